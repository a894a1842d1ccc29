//! The lab: what is tried on a whole cluster of real servers.

mod client;
mod clock;
mod cluster;
mod drill;
mod report;
mod witness;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use testbed::signals;

/// Exit code for what was stopped by hand.
const INTERRUPTED: u8 = 130;

/// Tries on a whole cluster what no single test can see.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Breaks a part of a cluster under load, and compares every answer with the books afterwards
    Drill(drill::Arguments),
    /// Checks what several instances promise together: order, races, rate, and what goes wrong
    Cluster(cluster::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Its zero.
    clock::now();
    let done = signals::watch().and_then(|()| match &cli.command {
        Command::Drill(arguments) => drill::main(arguments),
        Command::Cluster(arguments) => cluster::main(arguments),
    });
    if let Err(error) = &done {
        eprintln!("lab: {error}");
    }
    if signals::stopped() {
        return ExitCode::from(INTERRUPTED);
    }
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}
