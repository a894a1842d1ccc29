//! Fault drills: a real cluster under load, a fault, and afterwards the books.
//!
//! Each drill starts several instances behind haproxy on a MariaDB, a Redis and a Kafka of its own. Fans join,
//! poll and buy all the time; what they were told is remembered, and after every round it is held against
//! the service, the database and the events in Kafka. A round fails where anything that was acknowledged is
//! lost, a number has grown, a seat has two owners, or an event is missing.

mod figures;
mod probe;
mod run;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use serde::Serialize;
use testbed::{Machine, Mode, RedisForm, Workdir, machine, process, tools};

use self::figures::Summary;
use self::run::{Hold, Run};
use self::text::{Circumstances, markdown};
use crate::load::Outcome;
use crate::report::{copy_logs, keep, now_text, results_dir, shown};
use crate::scene::Final;
use crate::witness::Seconds;

/// What is broken, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    KillInstance,
    KillRedis,
    FlushRedis,
    FailOver,
    StopRedis,
    KillDatabase,
    /// The network to the database.
    Network(Mode),
    /// Half of the time it hangs, then it is killed.
    StopKafka,
    Drain,
    /// Another fault in each round.
    InTurn,
}

/// A drill, as the list has it.
#[derive(Clone, Copy, Debug)]
struct Drill {
    name: &'static str,
    about: &'static str,
    fault: Fault,
    rounds: u32,
    /// How long the fault lasts, where that is chosen.
    seconds: Option<Seconds>,
    /// When the fault counts as over.
    ends: &'static str,
    /// How long a round goes on afterwards.
    after: Seconds,
    redis: RedisForm,
    database_proxy: bool,
    /// Instances that haproxy knows and that do not run at first.
    spare: usize,
}

impl Drill {
    const fn new(
        name: &'static str,
        about: &'static str,
        fault: Fault,
        rounds: u32,
        ends: &'static str,
    ) -> Self {
        Self {
            name,
            about,
            fault,
            rounds,
            seconds: None,
            ends,
            after: 5.0,
            redis: RedisForm::Single,
            database_proxy: false,
            spare: 0,
        }
    }

    const fn lasting(mut self, seconds: Seconds) -> Self {
        self.seconds = Some(seconds);
        self
    }

    const fn followed_for(mut self, seconds: Seconds) -> Self {
        self.after = seconds;
        self
    }

    const fn on_sentinels(mut self) -> Self {
        self.redis = RedisForm::Sentinels;
        self
    }

    const fn through_proxy(mut self) -> Self {
        self.database_proxy = true;
        self
    }

    const fn with_spare(mut self) -> Self {
        self.spare = 1;
        self
    }
}

const QUICK: &str = "quick";
const SLOW: std::time::Duration = std::time::Duration::from_millis(200);

const DRILLS: [Drill; 12] = [
    Drill::new(
        "kill-instance",
        "kill -9 of an instance, started again 1.5 s later",
        Fault::KillInstance,
        20,
        "the kill; the others carry on",
    ),
    Drill::new(
        "kill-redis",
        "kill -9 of Redis, started again empty 1 s later",
        Fault::KillRedis,
        20,
        "Redis answers",
    ),
    Drill::new("flush-redis", "FLUSHALL", Fault::FlushRedis, 20, "FLUSHALL is answered"),
    Drill::new(
        "failover",
        "kill -9 of the master before two replicas and three sentinels",
        Fault::FailOver,
        20,
        "the kill; nobody but the sentinels helps",
    )
    .on_sentinels()
    .followed_for(1.0),
    Drill::new("stop-redis", "Redis hangs (SIGSTOP)", Fault::StopRedis, 3, "SIGCONT").lasting(30.0),
    Drill::new(
        "kill-mysql",
        "kill -9 of MariaDB, started again 1 s later",
        Fault::KillDatabase,
        20,
        "MariaDB answers",
    ),
    Drill::new(
        "blackhole-mysql",
        "the network to MariaDB swallows everything; what was connected stays dead",
        Fault::Network(Mode::BlackHole),
        3,
        "packets pass",
    )
    .through_proxy()
    .lasting(30.0)
    .followed_for(12.0),
    Drill::new(
        "stall-mysql",
        "the network to MariaDB stands still; what was sent arrives late",
        Fault::Network(Mode::Stall),
        3,
        "packets pass",
    )
    .through_proxy()
    .lasting(30.0)
    .followed_for(12.0),
    Drill::new(
        "slow-mysql",
        "MariaDB answers 200 ms later",
        Fault::Network(Mode::Slow(SLOW)),
        3,
        "it is quick again",
    )
    .through_proxy()
    .lasting(30.0),
    Drill::new(
        "stop-kafka",
        "Kafka hangs, is killed, and started again",
        Fault::StopKafka,
        3,
        "Kafka answers",
    )
    .lasting(60.0),
    Drill::new(
        "drain",
        "a new instance joins, an old one ends (SIGTERM)",
        Fault::Drain,
        5,
        "the old one has ended",
    )
    .with_spare(),
    Drill::new(
        QUICK,
        "for tests: a round of kill-instance, of kill-redis and of kill-mysql",
        Fault::InTurn,
        3,
        "as there",
    )
    .followed_for(3.0),
];

/// What to drill, and how.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lab drill list\n  lab drill kill-redis --rounds 3\n  lab drill all --out /tmp/drills"
)]
pub(crate) struct Arguments {
    /// Drills, `all` (but quick), or `list`
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Rounds of each drill [default: its own number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Length of the faults that have one [default: their own]
    #[arg(long, value_name = "S", value_parser = positive)]
    seconds: Option<Seconds>,
    /// Instances of the service: at least 2, or nobody carries on
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..))]
    instances: u32,
    /// A setting of the instances; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
    /// Where results go [default: target/drill/TIME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Run each round within this command, such as `flock FILE`, where others use the machine too
    #[arg(long, value_name = "COMMAND")]
    within: Option<String>,
    /// Keep logs and data of the cluster in the results
    #[arg(long)]
    keep: bool,
    /// Take the binary as it is
    #[arg(long)]
    no_build: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is needed")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn positive(text: &str) -> Result<Seconds, String> {
    let seconds: Seconds = text.parse().map_err(|_| "a number of seconds is needed")?;
    if (0.1..=86_400.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("between 0.1 and 86400 seconds".to_owned())
    }
}

/// Returns the drills of these names, each once; an error names one that there is not.
fn chosen(names: &[String]) -> Result<Vec<Drill>, String> {
    let mut chosen: Vec<Drill> = Vec::new();
    for name in names {
        let own: Vec<Drill> = DRILLS
            .into_iter()
            .filter(|drill| if name == "all" { drill.name != QUICK } else { drill.name == name })
            .collect();
        if own.is_empty() {
            return Err(format!("there is no drill {name}; `lab drill list` says which there are"));
        }
        for drill in own {
            if chosen.iter().all(|other| other.name != drill.name) {
                chosen.push(drill);
            }
        }
    }
    Ok(chosen)
}

fn list() {
    for drill in DRILLS {
        let lasting = drill.seconds.map(|seconds| format!(", {seconds} s")).unwrap_or_default();
        println!("{:16} {:2} rounds{lasting:7} {}", drill.name, drill.rounds, drill.about);
    }
}

/// What is kept of all drills.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Results<'a> {
    started_at: &'a str,
    commit: &'a str,
    machine: &'a Machine,
    drills: &'a [Summary],
}

/// Runs the command. Returns whether nothing was wrong.
pub(crate) fn main(arguments: &Arguments) -> Result<bool, String> {
    if arguments.names == ["list"] {
        list();
        return Ok(true);
    }
    let drills = chosen(&arguments.names).unwrap_or_else(|error| {
        let mut command = crate::Cli::command();
        command.error(clap::error::ErrorKind::InvalidValue, error).exit()
    });
    if !arguments.no_build {
        tools::build("boxoffice", &["--bin", "boxoffice"])?;
    }
    tools::boxoffice()?;
    // Connections that a proxy has forgotten are kept to its end.
    process::raise_file_limit(8_192, "a drill")?;
    let about = Circumstances {
        at: now_text(),
        commit: machine::commit().unwrap_or_else(|| "unknown".to_owned()),
        machine: Machine::look(),
    };
    let out = results_dir("drill", arguments.out.as_deref(), &about.at)?;
    let mut sums: Vec<Summary> = Vec::new();
    let mut done = Ok(());
    for drill in drills {
        let (sum, result) = one(&drill, arguments, &out);
        sums.extend(sum);
        write(&out, &sums, &about)?;
        done = result;
        if done.is_err() {
            break;
        }
    }
    if !sums.is_empty() {
        println!("\n{}\nresults in {}", markdown(&sums, &about), out.display());
    }
    done?;
    Ok(sums.iter().all(Summary::is_ok))
}

fn write(out: &Path, sums: &[Summary], about: &Circumstances) -> Result<(), String> {
    let results = Results {
        started_at: &about.at,
        commit: &about.commit,
        machine: &about.machine,
        drills: sums,
    };
    let json = serde_json::to_string_pretty(&results).map_err(|error| error.to_string())?;
    keep(&out.join("result.json"), &(json + "\n"))?;
    keep(&out.join("result.md"), &markdown(sums, about))
}

/// One drill. Returns what its rounds came to, if there were any, and whether it could be finished.
fn one(drill: &Drill, arguments: &Arguments, out: &Path) -> (Option<Summary>, Result<(), String>) {
    let workdir = if arguments.keep {
        Workdir::kept(&out.join(format!("{}-cluster", drill.name)))
    } else {
        Workdir::temporary()
    };
    let workdir = match workdir {
        Ok(workdir) => workdir,
        Err(error) => return (None, Err(error)),
    };
    let started = Hold::take(arguments.within.as_deref()).and_then(|_hold| {
        let settings: BTreeMap<String, String> = arguments.settings.iter().cloned().collect();
        let seconds = drill.seconds.map(|own| arguments.seconds.unwrap_or(own));
        Run::start(drill, arguments.instances as usize, seconds, &settings, workdir.path())
    });
    let logs = out.join(format!("{}-logs", drill.name));
    let mut run = match started {
        Ok(run) => run,
        Err(error) => {
            copy_logs(workdir.path(), &logs);
            return (None, Err(error));
        }
    };
    let rounds = arguments.rounds.unwrap_or(drill.rounds);
    let done = play(&mut run, rounds, arguments.within.as_deref());
    let (last, done) = match done {
        Ok(last) => (last, Ok(())),
        Err(error) => {
            let problems = vec![format!("it was not finished: {error}")];
            (Final { problems, ..Final::default() }, Err(error))
        }
    };
    run.clear();
    for problem in &last.problems {
        eprintln!("    {}: {problem}", drill.name);
    }
    let sum = run.summary(&last);
    let recorded = record(&run, &sum, out);
    copy_logs(workdir.path(), &logs);
    (Some(sum), done.and(recorded))
}

fn play(run: &mut Run, rounds: u32, within: Option<&str>) -> Result<Final, String> {
    for number in 1..=rounds {
        {
            let _hold = Hold::take(within)?;
            run.round(number, rounds)?;
        }
        run.clear();
        let Some(round) = run.rounds().last() else { continue };
        let mut totals = BTreeMap::new();
        for (outcome, count) in round.requests.values().flatten() {
            *totals.entry(outcome).or_insert(0) += count;
        }
        let totals: Vec<String> =
            totals.iter().map(|(outcome, count)| format!("{}={count}", name(**outcome))).collect();
        eprintln!(
            "{} {number}/{rounds}: {}, {}, recovered after {} s",
            run.name(),
            if round.ok { "ok" } else { "FAILED" },
            totals.join(" "),
            shown(round.recovery.whole, 2)
        );
        for finding in round.findings.iter().take(8) {
            let text: String = finding.text.to_string().chars().take(600).collect();
            eprintln!("    {} (at {:.1} s): {text}", finding.kind, finding.at);
        }
    }
    run.finish()
}

fn name(outcome: Outcome) -> String {
    serde_json::to_value(outcome)
        .ok()
        .and_then(|name| Some(name.as_str()?.to_owned()))
        .unwrap_or_default()
}

/// What is kept of one drill.
#[derive(Serialize)]
struct Record<'a> {
    summary: &'a Summary,
    rounds: &'a [figures::Round],
}

fn record(run: &Run, summary: &Summary, out: &Path) -> Result<(), String> {
    let record = Record { summary, rounds: run.rounds() };
    let json = serde_json::to_string(&record).map_err(|error| error.to_string())?;
    keep(&out.join(format!("{}.json", run.name())), &(json + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drills_are_chosen_by_name_each_once() {
        let names = |of: &[&str]| {
            let of: Vec<String> = of.iter().map(|name| (*name).to_owned()).collect();
            chosen(&of).map(|all| all.iter().map(|drill| drill.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["drain", "quick", "drain"]).unwrap(), ["drain", "quick"]);
        let all = names(&["all"]).unwrap();
        assert_eq!(all.len(), DRILLS.len() - 1);
        assert!(!all.contains(&QUICK));
        assert!(names(&["nonsense"]).unwrap_err().contains("no drill nonsense"));
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("a").is_err());
        assert_eq!(positive("2.5"), Ok(2.5));
        for text in ["0", "-1", "NaN", "x"] {
            assert!(positive(text).is_err(), "{text}");
        }
        crate::Cli::command().debug_assert();
    }
}
