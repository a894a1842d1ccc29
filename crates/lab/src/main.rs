//! The lab: what is tried and measured on real servers.

mod bench;
mod client;
mod clock;
mod cluster;
mod drill;
mod incident;
mod load;
mod progress;
mod report;
mod sale;
mod scene;
mod stage;
mod witness;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use testbed::signals;

/// Exit code for what was stopped by hand.
const INTERRUPTED: u8 = 130;

/// Tries and measures on real servers what no single test can see.
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
    /// Causes a failure under load, and measures alarm, answer and what is noticed
    Incident(incident::Arguments),
    /// Measures what one request costs the server, in CPU time, side by side on one machine
    Bench(bench::Arguments),
    /// Checks what several instances promise together: order, races, rate, and what goes wrong
    Cluster(cluster::Arguments),
    /// Has browsers buy a hall empty at a cluster, an instance of which is killed, and compares what they were told
    Sale(sale::Arguments),
    /// Starts a cluster, says where it is in a line of JSON, and stops it when the standard input ends
    Stage(stage::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Its zero.
    clock::now();
    let done = signals::watch().and_then(|()| match &cli.command {
        Command::Drill(arguments) => drill::main(arguments),
        Command::Incident(arguments) => incident::main(arguments),
        Command::Bench(arguments) => bench::main(arguments),
        Command::Cluster(arguments) => cluster::main(arguments),
        Command::Sale(arguments) => sale::main(arguments),
        Command::Stage(arguments) => stage::main(arguments),
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
