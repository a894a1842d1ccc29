//! What a drill and an incident are played on: a cluster, fans and buyers who remember what they were told,
//! and the books that it is held against.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;
use serde_json::json;
use testbed::instance::Commands;
use testbed::process::log_to;
use testbed::{Cluster, ClusterOptions, Process};

use crate::clock;
use crate::load::{Load, PRICE};
use crate::report::in_days;
use crate::witness::{self, Books, Events, Finding, HOLD_S, Seconds, Topic};

/// What the load buys in a round of a drill, and more.
pub(crate) const SEATS_PER_ROUND: i64 = 3_000;

/// Settings of the instances. `admit_per_second` is what the load can use up.
pub(crate) fn settings(admit_per_second: u32) -> [(&'static str, String); 5] {
    [
        ("demo.seed", "false".to_owned()),
        ("queue.admit_per_second", admit_per_second.to_string()),
        ("queue.active_ttl_seconds", "3600".to_owned()),
        ("sales.hold_seconds", format!("{HOLD_S}")),
        ("log.format", "text".to_owned()),
    ]
}

/// What was found at the end of a drill, or of an incident.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Final {
    pub(crate) problems: Vec<String>,
    /// The last line of the audit at rest.
    pub(crate) audit: String,
    /// What the consumer said that read all of Kafka once more.
    pub(crate) consumed: String,
    /// Payments in Kafka.
    pub(crate) payments: u64,
}

/// A cluster with its load and its books.
// In the order in which it is dropped: who asks before who is asked.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) load: Load,
    consumer: Process,
    pub(crate) cluster: Cluster,
    /// Of the first instance. They outlive every instance: commands use the first data directory.
    pub(crate) operator: Commands,
    events: Events,
    concert: i64,
    concert_at: String,
    /// How often each difference has been reported.
    reported: HashMap<Finding, usize>,
}

impl Scene {
    /// Starts the cluster.
    pub(crate) fn start(directory: &Path, options: &ClusterOptions) -> Result<Self, String> {
        let cluster = Cluster::start(directory, options)?;
        let first = cluster.instances.first().ok_or("there is no instance")?;
        let operator = first.commands().clone();
        let body = json!({
            "name": "Drill",
            "venue": "Hall",
            "reservationOpensAt": in_days(-1),
            "reservationClosesAt": in_days(30),
        });
        let concert = first.admin("POST", "/admin/v1/concerts", Some(&body))?;
        let concert = concert["concertId"].as_i64().ok_or("a concert without an id")?;
        let ports: Vec<(String, u16)> =
            cluster.instances.iter().map(|it| (it.label.clone(), it.port)).collect();
        let load = Load::new(cluster.proxy.port, &ports)?;
        let events = Events::new(cluster.directory.join("events.jsonl"));
        let consumer = start_consumer(&operator, &cluster, &events)?;
        let (concert_at, reported) = (in_days(40), HashMap::new());
        Ok(Self { load, consumer, cluster, operator, events, concert, concert_at, reported })
    }

    /// Sells a new session from now on, in whose hall are enough seats for a round.
    pub(crate) fn new_session(&self, round: u32, seats: i64) -> Result<(), String> {
        let first = self.cluster.instances.first().ok_or("there is no instance")?;
        let path = format!("/admin/v1/concerts/{}/sessions", self.concert);
        let body = json!({
            "concertAt": self.concert_at, "seatCount": seats, "price": PRICE,
        });
        let made = first.admin("POST", &path, Some(&body))?;
        let id =
            |name: &str| made[name].as_i64().ok_or_else(|| format!("a session without {name}"));
        let seat = id("firstSeatId")?;
        self.load.sell(round, self.concert, id("sessionId")?, seat..seat + seats);
        Ok(())
    }

    /// What the database and Kafka have.
    pub(crate) fn books(&mut self) -> Result<Books, String> {
        self.events.read()?;
        Books::read(&self.cluster.database, &self.events)
    }

    /// Waits until events are out, and compares everything. Returns what is new, and when it was seen.
    pub(crate) fn settle(
        &mut self,
        began: Seconds,
        noted_before: usize,
    ) -> Result<Vec<(Seconds, Finding)>, String> {
        self.load.look_again(began);
        let until = clock::now() + 30.0;
        loop {
            let waiting = self.cluster.database.number("SELECT COUNT(*) FROM boxoffice.outbox");
            match waiting {
                Ok(0) => break,
                _ if clock::now() < until => std::thread::sleep(Duration::from_millis(100)),
                Ok(count) => {
                    self.load.note(Finding::EventsWait { count });
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let until = clock::now() + 15.0;
        let books = loop {
            let books = self.books()?;
            if witness::events(&books).is_empty() || clock::now() > until {
                break books;
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        let left = self.cluster.database.number(
            "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_started < NOW() - INTERVAL 60 SECOND",
        )?;
        if left != 0 {
            self.load.note(Finding::LocksLeft { count: left });
        }
        if let Some(ended) = self.consumer.ended() {
            let what = format!("`boxoffice consume` ended by itself with code {}", ended.code);
            self.load.note(Finding::Drill { what });
            self.consumer = start_consumer(&self.operator, &self.cluster, &self.events)?;
        }
        for instance in &mut self.cluster.instances {
            let label = instance.label.clone();
            if let Some(ended) = instance.ended() {
                let log = instance.log_tail(8);
                self.load.note(Finding::Died { instance: label, code: ended.code, log });
                continue;
            }
            let audit = instance.audit()?;
            if !audit.clean {
                self.load.note(Finding::Audit { instance: label, said: end_of(&audit.output) });
            }
        }
        let state = self.load.state();
        let noted = &state.told.noted;
        let now = clock::now();
        // What was noted comes first, and each once; a difference stays until the end.
        let all = witness::compare(&state.told, &books);
        let (_, differences) = all.split_at(noted.len());
        let mut found: Vec<(Seconds, Finding)> =
            noted[noted_before..].iter().map(|noted| (noted.at, noted.finding.clone())).collect();
        let mut seen: HashMap<&Finding, usize> = HashMap::new();
        for finding in differences {
            let count = seen.entry(finding).or_default();
            *count += 1;
            if *count > self.reported.get(finding).copied().unwrap_or(0) {
                found.push((now, finding.clone()));
            }
        }
        for (finding, count) in seen {
            let before = self.reported.entry(finding.clone()).or_default();
            *before = count.max(*before);
        }
        Ok(found)
    }

    /// An orderly end, an audit at rest, and all of Kafka once more.
    pub(crate) fn finish(&mut self) -> Result<Final, String> {
        self.cluster.proxy.engine.stop();
        let mut problems = Vec::new();
        for instance in &mut self.cluster.instances {
            let code = instance.stop();
            if code != 0 {
                problems.push(format!("{} ended with code {code} on SIGTERM", instance.label));
            }
        }
        self.consumer.stop(Signal::TERM, Duration::from_secs(10));
        let audit = self.operator.audit()?;
        if !audit.clean {
            problems.push(format!("the audit at rest is not clean: {}", end_of(&audit.output)));
        }
        let mut again = Events::new(self.cluster.directory.join("again.jsonl"));
        let output = again.path().display().to_string();
        let said = self.operator.run(&[
            "consume",
            "--brokers",
            &self.cluster.kafka.address(),
            "--from-beginning",
            "--group",
            "again",
            "--until-idle",
            "3",
            "--remember",
            "1000000",
            "--output",
            &output,
        ])?;
        let consumed = said.text();
        if !said.status.success() {
            problems.push(format!("`boxoffice consume` failed: {}", end_of(&consumed)));
        }
        again.read()?;
        let books = Books::read(&self.cluster.database, &again)?;
        let differences = witness::events(&books);
        problems.extend(
            differences.iter().take(20).map(|finding| format!("{}: {finding}", finding.kind())),
        );
        Ok(Final {
            problems,
            audit: audit.output.lines().last().unwrap_or_default().to_owned(),
            consumed: end_of(&consumed),
            payments: again.of(Topic::Paid),
        })
    }
}

/// The end of what a program has said.
fn end_of(text: &str) -> String {
    let count = text.chars().count();
    text.chars().skip(count.saturating_sub(1_500)).collect()
}

/// Starts a consumer that follows as long as the drill runs, whatever becomes of the broker.
fn start_consumer(
    operator: &Commands,
    cluster: &Cluster,
    events: &Events,
) -> Result<Process, String> {
    let log: PathBuf = cluster.directory.join("consumer.log");
    let output = events.path().display().to_string();
    let brokers = cluster.kafka.address();
    let mut command: Command = operator.command(&[
        "consume",
        "--brokers",
        &brokers,
        "--from-beginning",
        "--output",
        &output,
    ]);
    log_to(&mut command, &log)?;
    Process::spawn("the consumer", command)
}
