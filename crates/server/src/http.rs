//! The HTTP side: the listener, what wraps every request, and the handlers.
//!
//! A handler parses, calls one operation, and maps the answer. What each of them does, where it is
//! found and how it refuses stands in one list, `crate::endpoints`. Rules are in
//! `boxoffice-domain`, what is stored in `boxoffice-backends`.

mod access;
mod admin;
mod admission_log;
mod auth;
mod bodies;
mod calling_off;
mod client;
mod coding;
mod concert_tickets;
mod concerts;
mod console;
mod cors;
mod cross_site;
mod damper;
mod describe;
mod documents;
mod door;
pub mod extract;
mod framing;
mod front;
mod gate;
mod idempotency;
mod keys;
pub mod listener;
mod lists;
mod live;
pub mod observe;
pub mod openapi;
mod operators;
mod ops;
mod page;
mod pages;
mod payments;
mod per_address;
mod place;
mod plans;
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
mod seat_news;
mod seat_states;
mod seat_streams;
mod sign_in;
mod state;
mod surface;
pub(crate) mod trace_id;

pub use admin::{IssuedTokens, TokenIssue};
pub use concert_tickets::{Reason, Verdict};
pub use front::Front;
pub use keys::{KeyCreated, KeyList, KeyRotation, KeyState, ListedKey};
pub(crate) use live::{ACTIONS_MAX, publish};
pub use operators::{ListedOperator, NewOperator, OperatorCreated, OperatorList, RoleName};
pub use state::HttpState;
pub use surface::Surface;
