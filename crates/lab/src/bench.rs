//! Measures what one request costs the server, in CPU time, side by side on one machine.
//!
//! The server runs on CPU 0 and wrk on CPU 1. Absolute figures depend on the machine; what counts are the ratios
//! between rows of one run: rounds are interleaved (A B A B …), each round gives a ratio, and the median of them is
//! reported. The cost of a request is the CPU time that the server's process used during a round, divided by the
//! requests that wrk got answered.
//!
//! `cluster` puts one instance of a cluster on CPU 0, with its Redis and Kafka; MariaDB has CPU 1, and wrk takes CPU 0
//! for purchases, so that the database has its CPU for itself. With `--against` an older build runs the same beside
//! this one, round by round, on engines of its own with the same settings: what it leaves behind (pages to write,
//! rows to purge) is never counted as this build's. Whichever is not asked is idle meanwhile, and the report says what
//! idling costs. A purchase is counted by the service itself, between two readings under full load; an answer other
//! than 201 fails the row. How busy both CPUs were is in the notes: where one of them is near 100 %, it is the limit.

mod child;
mod cluster;
mod crowd;
mod load;
mod meter;
mod people;
mod purchases;
mod requests;
mod row;
mod sales;
mod servers;
mod streams;
mod text;
mod wrk;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, CommandFactory, ValueEnum};
use serde_json::Value;
use sha2::{Digest, Sha256};
use testbed::{Machine, Workdir, cpus, machine, process, signals, tool, tools};

use self::row::Row;
use self::servers::Server;
use self::text::{MachineThen, Results};
use crate::report::{keep, now_text, results_dir};

const SERVER_CPU: usize = 0;
const WRK_CPU: usize = 1;
/// Less of the server's CPU than this, and wrk is what a rate shows.
const BUSY_MIN: f64 = 0.9;
const SEATS_PER_SESSION: u32 = 50_000;
const SEATS_PER_RESERVATION: u32 = 2;
/// Enough that nobody holds more than two seats of a session of 50,000.
const BUYERS: u32 = SEATS_PER_SESSION / SEATS_PER_RESERVATION;
const SMALL_CROWD: u64 = 10_000;
const QUEUE_PATH: &str = "/api/v1/waiting-queues";

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Topic {
    /// GET /health/live
    Live,
    /// GET the place of a waiting token, 10,000 outstanding, beside the same request with a static answer
    Poll,
    /// GET the place of a waiting token of a queue that was drawn, beside a poll
    Drawn,
    /// GET the public document of a queue, beside a poll
    Document,
    /// GET the waiting page and the page of a concert, as a browser asks for them, beside a poll
    Pages,
    /// polls a second beside nginx, which answers a static file of the same size
    Nginx,
    /// POST a join, beside the same request with a static answer
    Join,
    /// GET a gate with the pass of somebody who is in, and with 10,000 passes that somebody made up, beside polls
    Gate,
    /// joins of people who are known by tokens (RS256) and polls of theirs, beside those of users who are believed
    People,
    /// GET the list of a session of 2,000 seats, whole and unchanged (304)
    Seats,
    /// POST a reservation of seats that are taken
    Reject,
    /// 1,000,000 people in line, each polled when told, beside as many polls a second with a static answer
    Million,
    /// poll with 5,000,000 outstanding against 10,000, and memory per waiting user
    Crowd,
    /// reservations of two seats each, end to end
    Reservations,
    /// time to ready on a store of 100,000 reservations, and idle memory
    Startup,
    /// a session of 50,000 seats sold out, with and without readers of the seat list
    Sellout,
    /// 1, 200 and 2,000 that listen to the seats of a session while some are held, and 200 that do not read
    Streams,
    /// polls, joins and purchases of an instance on MariaDB, Redis and Kafka beside an embedded one
    Cluster,
}

impl Topic {
    /// They need other servers, or Node.js, or much memory, so they run only where they are named.
    const NAMED_ONLY: [Self; 4] = [Self::Cluster, Self::Million, Self::Nginx, Self::People];

    const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Poll => "poll",
            Self::Drawn => "drawn",
            Self::Document => "document",
            Self::Pages => "pages",
            Self::Nginx => "nginx",
            Self::Join => "join",
            Self::Gate => "gate",
            Self::People => "people",
            Self::Seats => "seats",
            Self::Reject => "reject",
            Self::Million => "million",
            Self::Crowd => "crowd",
            Self::Reservations => "reservations",
            Self::Startup => "startup",
            Self::Sellout => "sellout",
            Self::Streams => "streams",
            Self::Cluster => "cluster",
        }
    }
}

/// What to measure, and how.
#[derive(Debug, Args)]
#[command(
    after_help = "Exits 0 only when every target is met, no answer was unexpected and the audits are clean.\n\
    A whole run takes about 11 minutes, --quick about 2. `cluster`, `million`, `nginx` and `people` run only where they\n\
    are named: `cluster` about 5, with --against about 10, --quick a third; `million` 4.\n\n\
    Example:\n  lab bench cluster --against ../older/target/release/boxoffice"
)]
pub(crate) struct Arguments {
    /// Only these rows [default: all but cluster, million, nginx and people]
    #[arg(value_enum, value_name = "ROW", hide_possible_values = false)]
    rows: Vec<Topic>,
    /// Only this row, too; may be repeated
    #[arg(long, value_enum, value_name = "ROW", hide_possible_values = true)]
    only: Vec<Topic>,
    /// Short rounds and a crowd of 500,000: for a first look
    #[arg(long)]
    quick: bool,
    /// Rounds [default: 5; quick: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Seconds of a round [default: 4; quick: 1]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,
    /// Connections of wrk; reservations use four times as many
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Users waiting in the big queue [default: 5000000; quick: 500000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    crowd: Option<u64>,
    /// People in line in `million` [default: 1000000; quick: 20000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    people: Option<u64>,
    /// Where results go [default: target/bench/TIME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// An older release build of boxoffice, for `cluster` and `poll`: the same beside it, and targets that compare
    #[arg(long, value_name = "BINARY")]
    against: Option<PathBuf>,
    /// Take the binaries as they are
    #[arg(long)]
    no_build: bool,
}

/// The same, with what was not said filled in.
#[derive(Clone, Debug, PartialEq)]
struct Options {
    topics: BTreeSet<Topic>,
    quick: bool,
    rounds: u32,
    seconds: u32,
    connections: u32,
    crowd: u64,
    people: u64,
    against: Option<PathBuf>,
}

impl Options {
    fn of(arguments: &Arguments) -> Result<Self, String> {
        let mut topics: BTreeSet<Topic> =
            arguments.rows.iter().chain(&arguments.only).copied().collect();
        if topics.is_empty() {
            topics.extend(Topic::value_variants());
            topics.retain(|topic| !Topic::NAMED_ONLY.contains(topic));
        }
        if arguments.against.is_some()
            && !topics.contains(&Topic::Cluster)
            && !topics.contains(&Topic::Poll)
        {
            return Err("--against compares `cluster` and `poll`: name one of them".to_owned());
        }
        let quick = arguments.quick;
        let usual =
            |value: Option<u64>, whole, short| value.unwrap_or(if quick { short } else { whole });
        Ok(Self {
            topics,
            quick,
            rounds: arguments.rounds.unwrap_or(if quick { 3 } else { 5 }),
            seconds: arguments.seconds.unwrap_or(if quick { 1 } else { 4 }),
            connections: arguments.connections,
            crowd: usual(arguments.crowd, 5_000_000, 500_000),
            people: usual(arguments.people, 1_000_000, 20_000),
            against: arguments.against.as_deref().map(program).transpose()?,
        })
    }
}

/// The path of a program that can be run.
fn program(path: &Path) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt;
    let runs = std::fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o111 != 0);
    let whole = path.canonicalize().ok().filter(|path| runs && path.is_file());
    whole.ok_or_else(|| format!("--against {}: there is no such program", path.display()))
}

/// A run under way.
// The directory is dropped last.
#[derive(Debug)]
struct Bench {
    options: Options,
    wrk: PathBuf,
    servers: Vec<Server>,
    rows: Vec<Row>,
    /// What was wrong apart from figures.
    problems: Vec<String>,
    /// How many series of tokens were issued.
    issued: u32,
    /// All that the load of `million` had to say.
    in_line: Option<Value>,
    work: Workdir,
}

impl Bench {
    fn wants(&self, topic: Topic) -> bool {
        self.options.topics.contains(&topic)
    }

    fn add(&mut self, row: Row) {
        self.rows.push(row.judged());
    }

    fn measure(&mut self) -> Result<(), String> {
        self.requests()?;
        self.people()?;
        self.gate()?;
        self.million()?;
        self.crowd()?;
        self.reservations()?;
        self.startup()?;
        self.sellout()?;
        self.streams()?;
        self.cluster()
    }
}

/// Sleeps, unless somebody wants the program to end.
fn pause(seconds: f64) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    loop {
        if signals::stopped() {
            return Err("stopped by hand".to_owned());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(250)));
    }
}

/// Runs the command. Returns whether nothing was wrong.
pub(crate) fn main(arguments: &Arguments) -> Result<bool, String> {
    let options = Options::of(arguments).unwrap_or_else(|error| {
        crate::Cli::command().error(clap::error::ErrorKind::InvalidValue, error).exit()
    });
    let available = cpus::available();
    if ![SERVER_CPU, WRK_CPU].iter().all(|cpu| available.contains(cpu)) {
        return Err(format!(
            "CPUs {SERVER_CPU} and {WRK_CPU} are needed, this process may use {available:?}; sharing one CPU between \
             server and generator would measure neither"
        ));
    }
    let (machine, started_at) = (Machine::look(), now_text());
    if machine.load_average_before > 0.5 {
        eprintln!(
            "warning: the load average is {:.2}; other programs will disturb the figures",
            machine.load_average_before
        );
    }
    let older = options.against.as_deref().map(what_it_is).transpose()?;
    let connections = (options.connections * 4).max(streams::LISTENERS_MAX);
    process::raise_file_limit(u64::from(connections) + 500, "the benchmark")?;
    if !arguments.no_build {
        // One after the other: what an example needs for itself is not to be in the service.
        tools::build("boxoffice", &["--bin", "boxoffice"])?;
        tools::build("boxoffice", &["--example", "hello"])?;
        if options.topics.contains(&Topic::Million) {
            tools::build("loadtest", &["--example", "crowd"])?;
        }
    }
    tools::boxoffice()?;
    let mut bench = Bench {
        options,
        wrk: tool("wrk")?,
        servers: Vec::new(),
        rows: Vec::new(),
        problems: Vec::new(),
        issued: 0,
        in_line: None,
        work: Workdir::temporary()?,
    };
    bench.measure()?;
    bench.stop_all()?;
    let results = Results {
        started_at: &started_at,
        commit: &machine::commit().unwrap_or_else(|| "unknown".to_owned()),
        machine: &MachineThen { machine: &machine, started_at: &started_at },
        rounds: bench.options.rounds,
        seconds: bench.options.seconds,
        connections: bench.options.connections,
        crowd: bench.options.crowd,
        people: bench.options.people,
        in_line: bench.in_line.as_ref(),
        against: older.as_deref(),
        rows: &bench.rows,
        problems: &bench.problems,
        failed: Results::failed(&bench.rows),
    };
    let out = results_dir("bench", arguments.out.as_deref(), &started_at)?;
    let json = serde_json::to_string_pretty(&results).map_err(|error| error.to_string())?;
    keep(&out.join("result.json"), &(json + "\n"))?;
    keep(&out.join("result.md"), &results.markdown(&bench.options))?;
    println!("\n{}\n\nresults in {}", results.terminal(&bench.options), out.display());
    Ok(results.is_ok())
}

/// An older build, as the report names it.
fn what_it_is(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let hash: String = Sha256::digest(&bytes).iter().take(8).map(|b| format!("{b:02x}")).collect();
    Ok(format!("{}, SHA-256 {hash}…", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        let words = ["lab", "bench"].into_iter().chain(line.split_whitespace());
        let cli = crate::Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        match cli.command {
            crate::Command::Bench(arguments) => Options::of(&arguments),
            other => Err(format!("not a benchmark: {other:?}")),
        }
    }

    #[test]
    fn rows_are_chosen_by_name_in_two_ways() {
        let topics = |line: &str| options(line).map(|options| Vec::from_iter(options.topics));
        assert_eq!(topics("--only poll --only drawn"), topics("drawn poll"));
        assert_eq!(topics("nginx --only poll").unwrap(), [Topic::Poll, Topic::Nginx]);
        assert_eq!(topics("").unwrap().len(), Topic::value_variants().len() - 4);
        for needs_more in Topic::NAMED_ONLY {
            assert!(!topics("").unwrap().contains(&needs_more));
            assert_eq!(topics(needs_more.name()).unwrap(), [needs_more]);
        }
        for topic in Topic::value_variants() {
            assert_eq!(topics(topic.name()).unwrap(), [*topic]);
        }
        assert!(topics("nonsense").is_err());
    }

    #[test]
    fn a_first_look_is_shorter() {
        let figures = |line: &str| {
            let options = options(line).unwrap();
            (options.rounds, options.seconds, options.crowd, options.people)
        };
        assert_eq!(figures(""), (5, 4, 5_000_000, 1_000_000));
        assert_eq!(figures("--quick"), (3, 1, 500_000, 20_000));
        assert_eq!(figures("--quick --rounds 2 --seconds 6 --crowd 7 --people 8"), (2, 6, 7, 8));
        assert!(options("--rounds 0").is_err());
    }

    #[test]
    fn an_older_build_is_a_program_that_is_compared() {
        let shell = Path::new("/bin/sh").canonicalize().unwrap();
        assert_eq!(options("poll --against /bin/sh").unwrap().against, Some(shell));
        assert!(options("join --against /bin/sh").unwrap_err().contains("name one of them"));
        for other in ["/etc/passwd", "/bin", "/nowhere"] {
            let error = options(&format!("poll --against {other}")).unwrap_err();
            assert!(error.contains("there is no such program"), "{error}");
        }
    }
}
