//! Written histories, and the simulator itself.
#![allow(clippy::unwrap_used)]

mod bad_cases;
mod common;
mod draws;
#[cfg(feature = "external")]
mod external;
mod mistakes;
mod schedules;
mod swarm;
