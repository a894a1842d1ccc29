//! What purchases cost the service and everything behind it, between two moments of a run under load.
//!
//! Counts are those of the service, of MariaDB and of the kernel, read at both moments in the same order, so what
//! begins before the first or ends after the second is counted once too often as often as once too little.

use std::time::Instant;

use testbed::http::metric_of;
use testbed::process::{self, CpuTime};

use super::servers::Server;

// What an answer of 201 counts as, by the service's own metrics.
const RESERVED: (&str, &str) = ("boxoffice_reservations_total", "\"created\"");
const PAID: (&str, &str) = ("boxoffice_payments_total", "\"completed\"");
const STATEMENTS: &str = "Questions";
const COMMITS: &str = "Com_commit";
const BATCHES: &str = "boxoffice_store_batch_commands";

/// The counters at one moment.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    at: Instant,
    counts: Counts,
    statements: i64,
    commits: i64,
    processes: Vec<(&'static str, CpuTime)>,
    /// CPU seconds by the number of the CPU.
    cpus: Vec<(usize, f64)>,
}

/// What the service counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    reserved: f64,
    paid: f64,
    other: f64,
    batches: f64,
    commands: f64,
}

impl Counts {
    fn of(text: &str) -> Self {
        // A counter that nothing was counted in yet may be left out.
        let counted = |name: &str, label: &str| metric_of(text, name, label).unwrap_or(0.0);
        let (reserved, paid) = (counted(RESERVED.0, RESERVED.1), counted(PAID.0, PAID.1));
        Self {
            reserved,
            paid,
            other: counted(RESERVED.0, "") + counted(PAID.0, "") - reserved - paid,
            batches: counted(&format!("{BATCHES}_count"), ""),
            commands: counted(&format!("{BATCHES}_sum"), ""),
        }
    }
}

/// Reads the counters of a server, of the engines of its cluster if it is one, of further processes, and of CPUs.
pub(super) fn read(
    server: &Server,
    further: &[(&'static str, u32)],
    cpus: &[usize],
) -> Result<Reading, String> {
    let engines = server.cluster();
    let status = engines.map_or_else(
        || Ok(String::new()),
        |engines| {
            engines.database.run(&format!(
                "SHOW GLOBAL STATUS WHERE Variable_name IN ('{STATEMENTS}', '{COMMITS}')"
            ))
        },
    )?;
    let counts = Counts::of(&server.instance()?.metrics()?);
    let mut ids = vec![("server", Some(server.id()?))];
    ids.extend(further.iter().map(|&(name, id)| (name, Some(id))));
    if let Some(engines) = engines {
        let redis = engines.redis.servers();
        ids.push(("MariaDB", engines.database.engine.id()));
        ids.push(("Redis", redis.first().and_then(|redis| redis.engine.id())));
        ids.push(("Kafka", engines.kafka.engine.id()));
    }
    let gone = |name: &str| format!("{name} does not run");
    let at = Instant::now();
    let processes = ids
        .into_iter()
        .map(|(name, id)| Ok((name, id.and_then(CpuTime::of).ok_or_else(|| gone(name))?)))
        .collect::<Result<_, String>>()?;
    let busy = |&cpu: &usize| {
        let seconds = process::busy_seconds(cpu);
        seconds.map(|seconds| (cpu, seconds)).ok_or_else(|| format!("/proc/stat has no CPU {cpu}"))
    };
    Ok(Reading {
        at,
        counts,
        statements: status_of(&status, STATEMENTS),
        commits: status_of(&status, COMMITS),
        processes,
        cpus: cpus.iter().map(busy).collect::<Result<_, _>>()?,
    })
}

/// A count in what MariaDB says of its status.
fn status_of(text: &str, name: &str) -> i64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// What happened between two readings.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) seconds: f64,
    pub(super) reserved: u64,
    pub(super) paid: u64,
    /// Purchases that were answered otherwise.
    pub(super) other: u64,
    pub(super) statements: i64,
    pub(super) commits: i64,
    pub(super) commands_per_batch: f64,
    /// Of processes by their names.
    pub(super) cpu_seconds: Vec<(&'static str, f64)>,
    busy: Vec<(usize, f64)>,
}

impl Span {
    pub(super) fn between(before: &Reading, after: &Reading) -> Self {
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let count =
            |of: fn(&Counts) -> f64| (of(&after.counts) - of(&before.counts)).max(0.0) as u64;
        let batches = after.counts.batches - before.counts.batches;
        let commands = after.counts.commands - before.counts.commands;
        let processes = before.processes.iter().zip(&after.processes);
        let cpus = before.cpus.iter().zip(&after.cpus);
        Self {
            seconds,
            reserved: count(|counts| counts.reserved),
            paid: count(|counts| counts.paid),
            other: count(|counts| counts.other),
            statements: after.statements - before.statements,
            commits: after.commits - before.commits,
            commands_per_batch: if batches > 0.0 { commands / batches } else { f64::NAN },
            cpu_seconds: processes.map(|(then, now)| (then.0, now.1.since(&then.1))).collect(),
            busy: cpus.map(|(then, now)| (then.0, (now.1 - then.1) / seconds)).collect(),
        }
    }

    /// Purchases.
    pub(super) const fn operations(&self) -> u64 {
        self.reserved + self.paid
    }

    /// CPU seconds of a process; not a number where it was not looked at.
    pub(super) fn seconds_of(&self, process: &str) -> f64 {
        let found = self.cpu_seconds.iter().find(|(name, _)| *name == process);
        found.map_or(f64::NAN, |(_, seconds)| *seconds)
    }

    /// CPU time of a process for each purchase, in microseconds.
    pub(super) fn micros(&self, process: &str) -> f64 {
        match self.operations() {
            0 => f64::NAN,
            operations => self.seconds_of(process) / operations as f64 * 1e6,
        }
    }

    pub(super) fn each(&self, count: i64) -> f64 {
        match self.operations() {
            0 => f64::NAN,
            operations => count as f64 / operations as f64,
        }
    }

    /// How busy a CPU was.
    pub(super) fn busy(&self, cpu: usize) -> f64 {
        let found = self.busy.iter().find(|(number, _)| *number == cpu);
        found.map_or(f64::NAN, |(_, share)| *share)
    }

    /// The CPUs that were looked at.
    pub(super) fn cpus(&self) -> impl Iterator<Item = usize> {
        self.busy.iter().map(|(cpu, _)| *cpu)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    /// A second in which so many were bought.
    pub(in super::super) fn span(reserved: u64, paid: u64, maria_db: f64, statements: i64) -> Span {
        Span {
            seconds: 1.0,
            reserved,
            paid,
            other: 0,
            statements,
            commits: statements / 2,
            commands_per_batch: 3.0,
            cpu_seconds: vec![("server", 0.5), ("wrk", 0.25), ("MariaDB", maria_db)],
            busy: vec![(0, 0.9), (1, 0.4)],
        }
    }

    #[test]
    fn the_service_counts_what_it_did_and_what_else_it_answered() {
        let text = "boxoffice_reservations_total{outcome=\"created\"} 10\n\
                    boxoffice_reservations_total{outcome=\"taken\"} 3\n\
                    boxoffice_payments_total{outcome=\"completed\"} 4\n\
                    boxoffice_payments_total{outcome=\"expired\"} 1\n\
                    boxoffice_store_batch_commands_sum 18\nboxoffice_store_batch_commands_count 6\n";
        let counts = Counts::of(text);
        assert_eq!((counts.reserved, counts.paid, counts.other), (10.0, 4.0, 4.0));
        assert_eq!((counts.batches, counts.commands), (6.0, 18.0));
        assert_eq!(Counts::of(""), Counts::default());
    }

    #[test]
    fn what_lies_between_two_readings_counts() {
        let at = Instant::now();
        let before = Reading {
            at,
            counts: Counts { reserved: 10.0, paid: 5.0, other: 1.0, batches: 2.0, commands: 4.0 },
            statements: 100,
            commits: 10,
            processes: Vec::new(),
            cpus: vec![(0, 10.0), (1, 20.0)],
        };
        let after = Reading {
            at: at + Duration::from_secs(2),
            counts: Counts { reserved: 40.0, paid: 15.0, other: 3.0, batches: 6.0, commands: 44.0 },
            statements: 180,
            commits: 30,
            processes: Vec::new(),
            cpus: vec![(0, 11.0), (1, 22.0)],
        };
        let span = Span::between(&before, &after);
        assert_eq!((span.reserved, span.paid, span.other, span.operations()), (30, 10, 2, 40));
        assert_eq!((span.each(span.statements), span.each(span.commits)), (2.0, 0.5));
        assert_eq!((span.commands_per_batch, span.busy(0), span.busy(1)), (10.0, 0.5, 1.0));
        let nothing = Span::between(&before, &before);
        assert!(nothing.commands_per_batch.is_nan() && nothing.each(3).is_nan());
    }

    #[test]
    fn cpu_time_is_shared_among_purchases() {
        let span = span(6_000, 4_000, 0.2, 5_000);
        assert!((span.micros("MariaDB") - 20.0).abs() < 1e-9 && span.micros("Kafka").is_nan());
        assert!((span.micros("server") - 50.0).abs() < 1e-9 && span.busy(7).is_nan());
        assert_eq!(span.cpus().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn the_status_of_the_database_is_read() {
        let text = "Com_commit\t12\nQuestions\t3456";
        assert_eq!((status_of(text, STATEMENTS), status_of(text, COMMITS)), (3456, 12));
        assert_eq!(status_of("", COMMITS), 0);
    }
}
