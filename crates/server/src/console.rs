//! What the console of operators needs beside the admin API: who is signed in.
//!
//! What does not belong here: HTTP (`http::console`), and the pages (`crates/server/pages/ops`).

mod session;

pub use session::{LASTS, Session, Sessions, session_key};
