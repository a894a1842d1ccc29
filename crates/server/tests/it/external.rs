//! Tests that need tools beside cargo, which `scripts/test` installs.

#[path = "../../../backends/tests/it/external/broker.rs"]
mod broker;
mod faults;
mod issuer;
mod kafka;
mod metrics;
mod mysql;
mod redis;
#[path = "../../../backends/tests/it/external/servers.rs"]
mod servers;
mod widget;
