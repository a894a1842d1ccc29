//! The server of boxoffice: configuration, the HTTP side, background work, and the command line.

pub mod app;
pub mod audit;
pub mod challenge;
pub mod cli;
pub mod clock;
pub mod concert_tickets;
pub mod config;
pub mod console;
mod consume;
mod demo;
pub mod endpoints;
pub mod health;
pub mod http;
pub mod metrics;
pub mod operators;
mod pages;
pub mod passes;
pub mod people;
pub mod plans;
pub mod proof;
pub mod service;
pub mod sign_in;
pub mod signing;
pub mod telemetry;
pub mod tickets;
mod workers;

/// A request makes dozens of small things that another thread frees, and a batch some long texts.
/// In a rush on a cluster the allocator of glibc took a fifth of the server's CPU (decision 033). Here,
/// so that tests and the baseline of the benchmarks have it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
