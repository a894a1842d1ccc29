//! Lets so many people join a queue, and polls the ticket of each when the service says.
//!
//! One thread and a thousand connections: the load must cost less than what it loads. Each ticket has its own time,
//! which is the `pollAfterMs` of its last answer, counted from when that came. Latency is told from when a poll was
//! due and from when it was sent. A service that falls behind cannot hide it: what is due waits for a free
//! connection, and that counts.
//!
//! ```text
//! cargo run --release -p loadtest --example crowd -- 127.0.0.1:8080 --people 20000 --join-seconds 9
//! ```
//!
//! What failed is any answer other than the expected one, a connection that ended, a place that went backwards, a
//! ticket that ran out before it was let in, and an answer that never came. The last line is JSON. The exit code is
//! 0 if nothing failed.

mod answer;
mod calendar;
mod histogram;
mod load;
mod usage;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;

/// Joins and polls, at the times that the service says.
#[derive(Parser, Clone)]
struct Options {
    /// Where the service listens.
    address: SocketAddr,
    /// How many join, one ticket each.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    people: u32,
    /// The queue they join.
    #[arg(long, default_value = "main")]
    queue: String,
    /// Seconds over which they come; 0: as fast as they are answered. Polls are as even as joins were, so this
    /// should be what `pollAfterMs` will be, or a multiple.
    #[arg(long, default_value_t = 0.0)]
    join_seconds: f64,
    /// Seconds from the last join until counting begins: all that poll have done so once.
    #[arg(long, default_value_t = 31.0)]
    settle_seconds: f64,
    /// Seconds that are counted.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Connections, which are kept open and which all share.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// The process that serves, whose CPU time and memory are to be told.
    #[arg(long)]
    pid: Option<u32>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match load::run(&options) {
        Ok(report) => {
            println!("{}", report.json(&options));
            if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("crowd: {error}");
            ExitCode::FAILURE
        }
    }
}
