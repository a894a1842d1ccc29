//! Written histories, and the simulator itself.
#![allow(clippy::unwrap_used)]

mod common;
mod redis;
mod schedules;
mod swarm;
