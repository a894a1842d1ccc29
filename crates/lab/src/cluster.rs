//! What several instances promise together, on real servers.
//!
//! Three instances of the release binary, a MariaDB, a Redis and a Kafka. Clients talk to the instances straight,
//! so that what happens at the same moment does happen at different instances.
//!
//! Each check makes something happen and lets plain functions judge what was seen. Tests of these plant each fault
//! and see that exactly this is found.

mod held;
mod mistakes;
mod order;
mod races;
mod rate;
mod shop;
mod statements;
mod swarm;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use testbed::mariadb::BINARY_LOG;
use testbed::{
    Cluster, ClusterOptions, Machine, Redis, RedisServer, Workdir, machine, process, signals, tools,
};

use crate::clock;
use crate::report::{self, keep, now_text, results_dir};
use crate::witness::Seconds;

const INSTANCES: usize = 3;
const QUEUES: &str = "/api/v1/waiting-queues";
const SETTINGS: [(&str, &str); 5] = [
    // So that winners of many rounds stay under the limit of seats.
    ("sales.max_seats_per_user", "1000"),
    ("sales.max_seats_per_reservation", "10"),
    ("sales.live_holds_max", "100000"),
    ("sales.holds_per_ticket_max", "100000"),
    // Short enough to wait for the end of some, and longer than a replica lags. All instances have the same.
    ("sales.hold_seconds", "10"),
];

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Check {
    /// joins at all instances at once: numbers, and who was overtaken by whom
    Order,
    /// one seat, one reservation, one balance, wanted at all instances at once
    Races,
    /// a console holds the lock of one seat: that seat's buyer is told to come back, the others go on
    Held,
    /// the rate of admission and the bound of active users are the cluster's
    Rate,
    /// what a reservation and a payment ask of MariaDB, a join and a poll of Redis
    Statements,
    /// wrong settings and sick engines: what does not start, and what goes on
    Mistakes,
    /// the end of all others
    #[value(skip)]
    Audit,
}

impl Check {
    const ALL: [Self; 6] =
        [Self::Order, Self::Races, Self::Held, Self::Rate, Self::Statements, Self::Mistakes];

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn about(self) -> String {
        let value = self.to_possible_value();
        let help = value.and_then(|value| value.get_help().map(ToString::to_string));
        // None can be chosen that is done always.
        help.unwrap_or_else(|| "an orderly end, and what the audit says".to_owned())
    }
}

/// What to check, and how.
#[derive(Debug, Args)]
#[command(
    after_help = "It fails unless every promise held and the audits are clean. A whole run takes about 5 minutes, --quick \
                  about 2."
)]
pub(crate) struct Arguments {
    /// Fewer joins and rounds: what scripts/test runs
    #[arg(long)]
    quick: bool,
    /// Only this; may be repeated
    #[arg(long, value_name = "CHECK")]
    only: Vec<Check>,
    /// Joins of `order` [default: 100000; quick: 15000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(order::SAMPLE as i64..))]
    joins: Option<u32>,
    /// Rounds of each race [default: 40; quick: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Where results go [default: target/cluster/TIME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Take the binary as it is
    #[arg(long)]
    no_build: bool,
}

impl Arguments {
    fn joins(&self) -> usize {
        self.joins.map_or(if self.quick { 15_000 } else { 100_000 }, |joins| joins as usize)
    }

    fn rounds(&self) -> usize {
        self.rounds.map_or(if self.quick { 20 } else { 40 }, |rounds| rounds as usize)
    }

    /// The checks, in their own order, whatever that of the command line.
    fn checks(&self) -> Vec<Check> {
        let wanted = |check: &Check| self.only.is_empty() || self.only.contains(check);
        Check::ALL.into_iter().filter(wanted).collect()
    }
}

/// One figure of a report: the check, what it is of, and what came of it.
#[derive(Clone, Debug, Serialize)]
struct Row(Check, String, String);

/// What was found so far.
#[derive(Debug, Default)]
struct Found {
    rows: Vec<Row>,
    problems: Vec<String>,
}

impl Found {
    /// Keeps what came of something.
    fn record(&mut self, check: Check, what: &str, text: String) {
        eprintln!("  {what}: {text}");
        self.keep(check, what, text);
    }

    /// The same for the report alone.
    fn keep(&mut self, check: Check, what: &str, text: String) {
        self.rows.push(Row(check, what.to_owned(), text));
    }

    /// Keeps what was wrong.
    fn wrong(&mut self, problems: impl IntoIterator<Item = String>) {
        for problem in problems {
            eprintln!("  WRONG: {problem}");
            self.problems.push(problem);
        }
    }

    /// Keeps what was wrong, unless something holds.
    fn expect(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        self.wrong((!holds).then(problem));
    }
}

/// Checks under way.
struct Checks<'a> {
    options: &'a Arguments,
    work: &'a Path,
    cluster: Cluster,
    found: Found,
    random: fastrand::Rng,
    /// How many buyers have been made.
    buyers: u64,
}

impl<'a> Checks<'a> {
    fn start(options: &'a Arguments, work: &'a Path) -> Result<Self, String> {
        eprintln!("starting {INSTANCES} instances, MariaDB, Redis and Kafka …");
        let mut wanted = ClusterOptions::new("cluster", INSTANCES);
        wanted.settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        // For the replica that lags.
        wanted.database_options = BINARY_LOG.map(str::to_owned).into();
        wanted.database_options.push("--binlog-format=ROW".to_owned());
        Ok(Self {
            options,
            work,
            cluster: Cluster::start(work, &wanted)?,
            found: Found::default(),
            random: fastrand::Rng::with_seed(20_261_123),
            buyers: 0,
        })
    }

    fn run(&mut self) -> Result<(), String> {
        for check in self.options.checks().into_iter().chain([Check::Audit]) {
            eprintln!("{}: {}", check.name(), check.about());
            match check {
                Check::Order => self.order()?,
                Check::Races => self.races()?,
                Check::Held => self.held()?,
                Check::Rate => self.rate()?,
                Check::Statements => self.statements()?,
                Check::Mistakes => self.mistakes()?,
                Check::Audit => self.finish()?,
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        let code = self.cluster.stop();
        let audit = self.cluster.audit()?;
        self.found.expect(code == 0, || format!("an instance ended with code {code} on SIGTERM"));
        self.found.expect(audit.clean, || {
            let said: String = one_line(&audit.output).chars().take(1_000).collect();
            format!("the audit is not clean: {said}")
        });
        let last = audit.output.lines().last().unwrap_or_default().to_owned();
        let text = if audit.clean { last } else { "NOT CLEAN".to_owned() };
        self.found.record(Check::Audit, "at the end", text);
        Ok(())
    }

    fn ports(&self) -> Vec<u16> {
        self.cluster.instances.iter().map(|instance| instance.port).collect()
    }

    /// The ports of so many requests: every instance in turn, the first one by chance.
    fn spread(&mut self, count: usize) -> Vec<u16> {
        let begin = self.random.usize(..INSTANCES);
        self.ports().into_iter().cycle().skip(begin).take(count).collect()
    }

    /// A metric summed over the instances.
    fn metric(&self, name: &str, label: &str) -> Result<f64, String> {
        let mut sum = 0.0;
        for instance in &self.cluster.instances {
            sum += instance.metric(name, label)?.unwrap_or(0.0);
        }
        Ok(sum)
    }

    fn redis(&self) -> Result<&RedisServer, String> {
        match &self.cluster.redis {
            Redis::Single(server) => Ok(server),
            Redis::Sentinels(_) | Redis::Cluster(_) => Err("one Redis is needed".to_owned()),
        }
    }

    /// How often commands of Redis were called whose names begin so.
    fn redis_calls(&self, names: &[&str]) -> Result<u64, String> {
        let calls = self.redis()?.calls()?;
        let wanted = calls.iter().filter(|(name, _)| names.iter().any(|it| name.starts_with(it)));
        Ok(wanted.map(|(_, count)| count).sum())
    }
}

/// Lets time pass.
fn pause(seconds: Seconds) -> Result<(), String> {
    let until = clock::now() + seconds;
    loop {
        if signals::stopped() {
            return Err("stopped by hand".to_owned());
        }
        let left = until - clock::now();
        if left <= 0.0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs_f64(left.min(0.25)));
    }
}

/// Waits for a condition. Returns how long it took.
fn wait_until(
    what: &str,
    mut condition: impl FnMut() -> Result<bool, String>,
) -> Result<Seconds, String> {
    const PATIENCE: Seconds = 20.0;
    let began = clock::now();
    while !condition()? {
        if clock::now() - began > PATIENCE {
            return Err(format!("{what}: not within {PATIENCE:.0} s"));
        }
        pause(0.02)?;
    }
    Ok(clock::now() - began)
}

/// A text without line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

// ---------------------------------------------------------------- the report

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Results<'a> {
    started_at: &'a str,
    commit: &'a str,
    machine: &'a Machine,
    results: &'a [Row],
    problems: &'a [String],
}

/// What a report says about its circumstances.
struct Circumstances {
    at: String,
    commit: String,
    machine: Machine,
}

fn verdict(found: &Found) -> String {
    if found.problems.is_empty() {
        return "Every promise held, audit clean.".to_owned();
    }
    let lines: Vec<String> = found.problems.iter().map(|it| format!("- WRONG: {it}")).collect();
    lines.join("\n")
}

fn markdown(found: &Found, about: &Circumstances) -> String {
    let machine = &about.machine;
    let mut rows = vec![["check", "what", "result"].map(str::to_owned).to_vec()];
    rows.extend(
        found.rows.iter().map(|Row(check, what, text)| {
            vec![check.name(), what.clone(), text.replace('|', "\\|")]
        }),
    );
    format!(
        "# {INSTANCES} instances on MariaDB, Redis and Kafka\n\n{}, commit {}, {} × {}, Linux {}, load average before \
         {:.2}.\n\n{}\n{}\n",
        about.at,
        about.commit,
        machine.cpus,
        machine.cpu,
        machine.kernel,
        machine.load_average_before,
        report::words(&rows),
        verdict(found)
    )
}

/// Runs the command. Returns whether every promise held.
pub(crate) fn main(options: &Arguments) -> Result<bool, String> {
    let about = Circumstances {
        at: now_text(),
        commit: machine::commit().unwrap_or_else(|| "unknown".to_owned()),
        machine: Machine::look(),
    };
    process::raise_file_limit(2_000, "the races of 500 buyers")?;
    if !options.no_build {
        tools::build("boxoffice", &["--bin", "boxoffice"])?;
    }
    tools::boxoffice()?;
    let workdir = Workdir::temporary()?;
    let mut checks = Checks::start(options, workdir.path())?;
    let done = checks.run();
    let mut found = checks.found;
    // What was found until then is kept, too.
    found.problems.extend(done.as_ref().err().map(|error| format!("it was not finished: {error}")));
    // Before the directory goes away.
    drop(checks.cluster);
    let out = results_dir("cluster", options.out.as_deref(), &about.at)?;
    let results = Results {
        started_at: &about.at,
        commit: &about.commit,
        machine: &about.machine,
        results: &found.rows,
        problems: &found.problems,
    };
    let json = serde_json::to_string_pretty(&results).map_err(|error| error.to_string())?;
    keep(&out.join("result.json"), &(json + "\n"))?;
    keep(&out.join("result.md"), &markdown(&found, &about))?;
    println!("\n{}\n\nresults in {}", verdict(&found), out.display());
    done?;
    Ok(found.problems.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    fn arguments(words: &[&str]) -> Result<Arguments, clap::Error> {
        let words = ["lab", "cluster"].iter().chain(words);
        crate::Cli::try_parse_from(words).map(|cli| {
            let crate::Command::Cluster(arguments) = cli.command else { panic!("another command") };
            arguments
        })
    }

    #[test]
    fn what_runs_is_chosen_by_options() {
        crate::Cli::command().debug_assert();
        let whole = arguments(&[]).unwrap();
        assert_eq!((whole.joins(), whole.rounds()), (100_000, 40));
        assert_eq!(whole.checks(), Check::ALL);
        let quick = arguments(&["--quick", "--only", "races", "--only", "order"]).unwrap();
        assert_eq!((quick.joins(), quick.rounds()), (15_000, 20));
        assert_eq!(quick.checks(), [Check::Order, Check::Races]);
        let own = arguments(&["--quick", "--joins", "700", "--rounds", "3"]).unwrap();
        assert_eq!((own.joins(), own.rounds()), (700, 3));
        for wrong in
            [["--only", "audit"], ["--only", "drill"], ["--joins", "199"], ["--rounds", "0"]]
        {
            assert_eq!(arguments(&wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        assert!(Check::Order.about().starts_with("joins at all instances"));
    }

    #[test]
    fn a_report_has_every_figure_and_every_problem() {
        let mut found = Found::default();
        found.record(Check::Order, "joins", "1|2".to_owned());
        found.expect(true, || "not so".to_owned());
        let about = Circumstances {
            at: "2026-11-30T00:00:00Z".to_owned(),
            commit: "abc".to_owned(),
            machine: Machine::look(),
        };
        let text = markdown(&found, &about);
        assert!(text.contains("| order | joins | 1\\|2   |\n"), "{text}");
        assert!(text.ends_with("\n\nEvery promise held, audit clean.\n"), "{text}");
        found.expect(false, || "a number twice".to_owned());
        found.wrong(["lost".to_owned()]);
        let text = markdown(&found, &about);
        assert!(text.ends_with("\n\n- WRONG: a number twice\n- WRONG: lost\n"), "{text}");
        let row = serde_json::to_string(&found.rows[0]).unwrap();
        assert_eq!(row, r#"["order","joins","1|2"]"#);
    }
}
