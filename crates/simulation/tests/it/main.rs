//! Written histories, and the simulator itself.
#![allow(clippy::unwrap_used)]

mod common;
#[cfg(feature = "external")]
mod external;
mod schedules;
mod swarm;
