//! Tests that need servers, which `scripts/test` installs.

mod kafka;
mod mysql;
mod prometheus;
mod redis;
