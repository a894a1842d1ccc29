//! What the console of operators needs beside the admin API: who is signed in, and what goes on.
//!
//! What does not belong here: HTTP (`http::console`, `http::live`), and the pages (`crates/server/pages/ops`).

pub mod live;
mod session;

pub use session::{LASTS, Session, Sessions, TOKEN_MAX, session_key};
