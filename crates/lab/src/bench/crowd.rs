//! Many people in line.

use std::process::Stdio;

use serde_json::Value;
use testbed::instance::Serves;
use testbed::process::mortal_on;
use testbed::tools;

use super::child::Child;
use super::load::{Load, Measured};
use super::row::{Row, Target};
use super::servers::{Id, Settings, server_cpu, settings};
use super::wrk::Sample;
use super::{BUSY_MIN, Bench, QUEUE_PATH, SMALL_CROWD, Topic, WRK_CPU, pause};
use crate::report::{grouped, thousands};

/// Whoever is far back is told to ask every 27.3 to 30 s: a third of it, less up to a tenth.
const CLAIM_WINDOW_S: f64 = 90.0;
/// A million people are let in at 200 a second, which is a sale of 83 minutes. Fewer are let in as much more slowly,
/// so that the same part of them is near the front, and polls each second.
const PEOPLE_PER_ADMISSION_RATE: f64 = 5_000.0;
/// People come during one interval between polls, so that polls are as even from the first round on.
const MILLION_JOIN_S: f64 = 29.0;
/// What the example `hello` tells all who wait.
const STATIC_POLL_AFTER_S: f64 = 3.0;
const MEBIBYTE: f64 = 1_048_576.0;

/// When people come, and when they are counted.
#[derive(Clone, Copy, Debug)]
struct Times {
    join: f64,
    settle: f64,
    count: u32,
}

impl Bench {
    /// Polls with a big crowd waiting, beside those with a small one; and memory per waiting user.
    pub(super) fn crowd(&mut self) -> Result<(), String> {
        if !self.wants(Topic::Crowd) {
            return Ok(());
        }
        let size = self.options.crowd;
        eprintln!("polls with {} waiting, and memory per waiting user", grouped(size));
        let small = self.filled_server("main", None)?;
        let big = self.server("crowd", None, Settings::new())?;
        let mut tokens = self.at(big).join(50)?;
        // What a first crowd and its connections need once is not what each user needs.
        self.fill(big, SMALL_CROWD)?;
        let before = self.at(big).rss_bytes()?;
        let joined = self.fill(big, size)?;
        pause(2.0)?;
        let grown = self.at(big).rss_bytes()? as f64 - before as f64;
        tokens.extend(self.at(big).join(50)?);
        let mut loads = [
            self.polls_of_new("poll@10k", small)?,
            self.poll_load(&format!("poll@{}", short(size)), big, &tokens)?,
        ];
        self.interleave(&mut loads)?;
        let [few, many] = loads.map(|load| load.of);
        self.add(Row::cost(&few));
        self.add(Row::cost_beside(&many, &few).target(Target::AtMost(1.05)));
        let note = format!("{:.1} MiB for {} users", grown / MEBIBYTE, grouped(joined));
        let row = Row::new("memory per user", grown / joined as f64, "B", 2);
        self.add(row.target(Target::AtMost(16.0)).notes([note]));
        Ok(())
    }

    /// People who join once and poll when they are told, and as many polls a second with a static answer. The load is
    /// an example of its own: wrk asks as fast as it can, and knows no times.
    pub(super) fn million(&mut self) -> Result<(), String> {
        if !self.wants(Topic::Million) {
            return Ok(());
        }
        let people = self.options.people;
        let seconds = if self.options.quick { 20 } else { 60 };
        let many = grouped(people);
        eprintln!("{many} people in line, each polled when told, for {seconds} s");
        // Admission goes on as in a sale, so this server is not one of those that are paused.
        let admitted_per_second = (people as f64 / PEOPLE_PER_ADMISSION_RATE).max(1.0);
        let own = settings([
            ("queue.claim_window_seconds", CLAIM_WINDOW_S.to_string()),
            ("queue.stock", "off".to_owned()),
            ("queue.admit_per_second", admitted_per_second.to_string()),
        ]);
        let server = self.start("million", Serves::Boxoffice, None, own, server_cpu())?;
        let times =
            Times { join: MILLION_JOIN_S, settle: CLAIM_WINDOW_S / 3.0 + 1.0, count: seconds };
        let real = self.people_in_line(server, people, times)?;
        // The service counts for itself. What it refused is in both accounts, and once here.
        let mut lost = 0.0;
        let mut accounts = Vec::new();
        for (method, told) in [("GET", "polls"), ("POST", "joined")] {
            let route = format!("method=\"{method}\",route=\"{QUEUE_PATH}\",status=\"2xx\"");
            let name = "http_server_request_duration_seconds_count";
            let counted = self.at(server).metric(name, &route)?.unwrap_or(0.0);
            let told = number(&real, told)?;
            lost += (counted - told).abs();
            accounts.push(format!("{counted} {method} where the load counted {told}"));
        }
        eprintln!("  as many polls a second with a static answer");
        let hello = self.hello()?;
        let polls_per_second = number(&real, "pollsPerSecond")?;
        let others = (polls_per_second * STATIC_POLL_AFTER_S).round() as u64;
        let times = Times { join: STATIC_POLL_AFTER_S, settle: STATIC_POLL_AFTER_S + 1.0, ..times };
        let told = self.people_in_line(hello, others, times)?;
        let mut poll = as_load(&format!("poll, {many} in line"), server, &real)?;
        poll.unexpected += lost as u64;
        if lost > 0.0 {
            poll.notes.push(format!("the service counted {}", accounts.join(" and ")));
        }
        let answer = as_load("static answer", hello, &told)?;
        self.add(Row::cost(&answer));
        self.add(Row::cost_beside(&poll, &answer));
        for row in rows_of_million(people, admitted_per_second, &real, &told)? {
            self.add(row);
        }
        self.in_line = Some(serde_json::json!({"real": real, "static": told}));
        Ok(())
    }

    /// What the example `crowd` has to say of people who wait at that server.
    fn people_in_line(&self, server: Id, people: u64, times: Times) -> Result<Value, String> {
        let server = self.at(server);
        let mut command = mortal_on(&[WRK_CPU], &tools::example_of("loadtest", "crowd")?);
        command.arg(server.address());
        command.args(["--people", &people.to_string()]);
        command.args(["--join-seconds", &times.join.to_string()]);
        command.args(["--settle-seconds", &times.settle.to_string()]);
        command.args(["--seconds", &times.count.to_string(), "--pid", &server.id()?.to_string()]);
        // It says now and then how far it is.
        let mut child = Child::start("the crowd", command, Stdio::inherit())?;
        let code = child.finish()?;
        // What failed is in what it says, and in its code.
        let said = serde_json::from_slice(&child.out).ok().filter(|_| server.is_running());
        said.ok_or_else(|| {
            format!("the crowd ended with code {code}; {}:\n{}", server.name, server.log_tail())
        })
    }
}

/// `5M`, `500k`.
fn short(count: u64) -> String {
    match count {
        1_000_000.. => format!("{}M", count / 1_000_000),
        _ => format!("{}k", count / 1_000),
    }
}

/// A number of what the example told, by its path.
fn number(told: &Value, path: &str) -> Result<f64, String> {
    let found = path.split('.').try_fold(told, |value, name| value.get(name));
    found.and_then(Value::as_f64).ok_or_else(|| format!("the crowd did not tell {path}"))
}

/// The same as a load that wrk measured.
fn as_load(name: &str, server: Id, told: &Value) -> Result<Measured, String> {
    let seconds = number(told, "seconds")?;
    let failed = number(told, "failed")?;
    let mut load = Load::new(name, server, QUEUE_PATH, 200);
    load.keep(Sample {
        requests: (number(told, "pollsPerSecond")? * seconds).round() as u64,
        seconds,
        cpu_seconds: number(told, "server.cpuShare")? * seconds,
        not_ok: failed as u64,
        ..Sample::default()
    });
    let mut of = load.of;
    if failed > 0.0 {
        of.notes.push(format!("failed: {}", told["failures"]));
    }
    let own = number(told, "ownCpuShare")?;
    if own >= BUSY_MIN {
        let share = own * 100.0;
        of.notes
            .push(format!("the load had no CPU left ({share:.0}%): latencies are also its own"));
    }
    Ok(of)
}

/// What else is to be said of people in line.
fn rows_of_million(
    people: u64,
    admitted_per_second: f64,
    real: &Value,
    told: &Value,
) -> Result<Vec<Row>, String> {
    let of = |path: &str| number(real, path);
    let whole = |path: &str| Ok::<_, String>(thousands(number(real, path)?, 0));
    let percent =
        |from: &Value, path: &str| Ok::<_, String>(format!("{:.1}%", number(from, path)? * 100.0));
    let mut rows = vec![
        Row::new("polls", of("pollsPerSecond")?, "/s", 0).notes([format!(
            "{}–{} in a second; {} were let in, {admitted_per_second} a second; {:.0} B each, {:.0} B an answer",
            whole("pollsOfSecondMin")?,
            whole("pollsOfSecondMax")?,
            whole("admitted")?,
            of("bytesPerPoll")?,
            of("bytesPerAnswer")?
        )]),
        Row::new("the server's core", of("server.cpuShare")? * 100.0, "% busy", 1).notes([format!(
            "with the static answer {}; while people joined {}",
            percent(told, "server.cpuShare")?,
            percent(real, "server.cpuShareWhileJoining")?
        )]),
    ];
    for percentile in ["p50", "p99", "max"] {
        let (due, sent) = (format!("fromDueMs.{percentile}"), format!("fromSentMs.{percentile}"));
        let row = Row::new(&format!("latency of a poll, {percentile}"), of(&due)?, "ms", 3);
        rows.push(row.notes([format!(
            "from when it was due; from when it was sent {:.3} ms; static answer {:.3} and {:.3} ms",
            of(&sent)?,
            number(told, &due)?,
            number(told, &sent)?
        )]));
    }
    rows.push(Row::new("joins", of("joinsPerSecond")?, "/s", 0).notes([format!(
        "{} in {:.1} s, beside polls; p50 {:.3} ms, p99 {:.3} ms",
        whole("joined")?,
        of("joinSeconds")?,
        of("joinMs.p50")?,
        of("joinMs.p99")?
    )]));
    let at = |when: &str| Ok::<_, String>(of(&format!("server.bytes{when}"))? / MEBIBYTE);
    let name = format!("memory, {} in line", grouped(people));
    rows.push(Row::new(&name, at("AtEnd")?, "MiB", 1).notes([format!(
        "{:.1} MiB before anybody came, {:.1} MiB after the last join; {} connections",
        at("Before")?,
        at("Joined")?,
        whole("connections")?
    )]));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bench::servers::first_id;

    fn told() -> Value {
        json!({
            "seconds": 60, "pollsPerSecond": 40_300.0, "polls": 2_500_000, "joined": 1_000_000, "failed": 0,
            "failures": {}, "ownCpuShare": 0.6, "pollsOfSecondMin": 39_000, "pollsOfSecondMax": 41_500,
            "admitted": 24_000, "bytesPerPoll": 180.4, "bytesPerAnswer": 310.6, "connections": 1000,
            "fromDueMs": {"p50": 0.2, "p99": 1.5, "max": 20.0}, "fromSentMs": {"p50": 0.1, "p99": 1.0, "max": 9.0},
            "joinsPerSecond": 34_482.7, "joinSeconds": 29.0, "joinMs": {"p50": 0.3, "p99": 2.0},
            "server": {
                "cpuShare": 0.5, "cpuShareWhileJoining": 0.8, "bytesBefore": 10_485_760, "bytesJoined": 31_457_280,
                "bytesAtEnd": 41_943_040
            }
        })
    }

    #[test]
    fn what_the_crowd_tells_becomes_a_load() {
        let load = as_load("poll", first_id(), &told()).unwrap();
        assert_eq!((load.samples[0].requests, load.unexpected), (2_418_000, 0));
        assert!((load.samples[0].cpu_seconds - 30.0).abs() < 1e-9 && load.notes.is_empty());
        let mut failing = told();
        failing["failed"] = json!(7);
        failing["failures"] = json!({"status 500": 7});
        failing["ownCpuShare"] = json!(0.95);
        let load = as_load("poll", first_id(), &failing).unwrap();
        assert_eq!(load.unexpected, 7);
        assert!(load.notes[0].contains("status 500") && load.notes[1].contains("95%"), "{load:?}");
        assert!(as_load("poll", first_id(), &json!({"seconds": 60})).is_err());
    }

    #[test]
    fn all_of_a_line_is_reported() {
        let rows = rows_of_million(1_000_000, 200.0, &told(), &told()).unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "polls",
                "the server's core",
                "latency of a poll, p50",
                "latency of a poll, p99",
                "latency of a poll, max",
                "joins",
                "memory, 1,000,000 in line"
            ]
        );
        assert_eq!(
            rows[0].notes,
            [
                "39,000–41,500 in a second; 24,000 were let in, 200 a second; 180 B each, 311 B an answer"
            ]
        );
        assert_eq!((rows[1].figure, rows[3].figure, rows[6].figure), (50.0, 1.5, 40.0));
    }

    #[test]
    fn crowds_have_short_names() {
        assert_eq!((short(5_000_000), short(500_000)), ("5M".to_owned(), "500k".to_owned()));
    }
}
