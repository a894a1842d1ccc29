//! The server of boxoffice: configuration, the HTTP side, background work, and the command line.

pub mod app;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
mod consume;
mod demo;
pub mod endpoints;
pub mod http;
pub mod metrics;
pub mod service;
pub mod telemetry;
pub mod tickets;
mod workers;
