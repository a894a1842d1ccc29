//! The HTTP side: the listener, what wraps every request, and the handlers.
//!
//! A handler parses, calls one operation, and maps the answer. What each of them does, where it is
//! found and how it refuses stands in one list, `crate::endpoints`. Rules are in
//! `boxoffice-domain`, what is stored in `boxoffice-backends`.

mod admin;
mod auth;
mod calling_off;
mod client;
mod concerts;
mod damper;
mod describe;
pub mod extract;
mod front;
mod idempotency;
pub mod listener;
pub mod observe;
pub mod openapi;
mod ops;
mod page;
mod payments;
mod points;
pub mod problem;
mod queue;
pub mod rate_limit;
mod refunds;
mod reply;
pub mod request_id;
mod reservations;
mod router;
mod schema;
mod seat_list;
mod state;

pub use admin::{IssuedTokens, TokenIssue};
pub use front::Front;
pub use state::HttpState;
