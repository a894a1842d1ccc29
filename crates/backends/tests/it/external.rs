//! Tests against real servers, which `scripts/test` installs.

mod broker;
mod kafka;
mod mysql;
mod redis;
mod servers;
