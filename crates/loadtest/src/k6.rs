//! k6: where it is, what it says of a script, running it, and reading its two outputs.
//!
//! The totals are in its summary. The figures of each second are what its web dashboard would show: k6
//! works them out by itself and appends them to a file, which costs little however many users there are.
//! Its outputs of single requests (JSON, CSV) cost more CPU than the requests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::model::{Latency, Totals};
use testbed::process::{Process, log_to, mortal};
use testbed::tools::root;

/// The version that the scripts and this program were tried with; a patch release may differ.
pub(crate) const VERSION: &str = "1.1.";
/// k6's code for a threshold that was crossed.
pub(crate) const THRESHOLDS_CROSSED: i32 = 99;

pub(crate) const SUMMARY: &str = "k6-summary.json";
pub(crate) const SECONDS: &str = "k6-seconds.ndjson";
pub(crate) const LOG: &str = "k6.log";
pub(crate) const CONSOLE: &str = "k6-console.log";
const TREND_STATS: &str = "count,min,avg,med,p(90),p(95),p(99),p(99.9),max";

/// k6 as it is installed.
#[derive(Clone, Debug)]
pub(crate) struct K6 {
    pub(crate) program: PathBuf,
    pub(crate) version: String,
}

/// Finds k6 and checks its version.
pub(crate) fn find() -> Result<K6, String> {
    const HELP: &str = "k6 is needed. Get version 1.1.0 with `scripts/tools k6` (it needs python3 with venv), or give the \
                        path of yours in the environment variable LOADTEST_K6.";
    let program = match std::env::var_os("LOADTEST_K6") {
        Some(path) => PathBuf::from(path),
        None => {
            let tools = root().join("scripts/tools");
            let said = Command::new(&tools).args(["--path", "k6"]).stdin(Stdio::null()).output();
            match said {
                Ok(said) if said.status.success() => {
                    PathBuf::from(String::from_utf8_lossy(&said.stdout).trim().to_owned())
                }
                Ok(said) => {
                    return Err(format!(
                        "{HELP}\n{}",
                        String::from_utf8_lossy(&said.stderr).trim()
                    ));
                }
                Err(error) => return Err(format!("{HELP} ({}: {error})", tools.display())),
            }
        }
    };
    let said = Command::new(&program).arg("version").stdin(Stdio::null()).output();
    let said = said.map_err(|error| format!("{HELP} ({}: {error})", program.display()))?;
    let text = String::from_utf8_lossy(&said.stdout);
    let version = version_of(&text).ok_or_else(|| {
        format!(
            "{} does not say its version as k6 does, but: {}. {HELP}",
            program.display(),
            text.trim()
        )
    })?;
    if !version.starts_with(VERSION) {
        return Err(format!(
            "{} is k6 {version}; its outputs are only known from {VERSION}x, and figures of two versions must not be \
             compared. {HELP}",
            program.display()
        ));
    }
    Ok(K6 { program, version })
}

/// `1.1.0` of `k6 v1.1.0 (commit/…, go1.24.4, linux/amd64)`.
fn version_of(text: &str) -> Option<String> {
    let version = text.trim().strip_prefix("k6 v")?.split([' ', '\n']).next()?;
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
}

/// What k6 says of a script before anything is started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Inspection {
    /// Most users at once.
    pub(crate) users: u64,
    /// With the time that users get to finish; `None` where it is not bounded.
    pub(crate) seconds: Option<f64>,
}

fn env_arguments(env: &BTreeMap<String, String>) -> Vec<String> {
    env.iter().flat_map(|(name, value)| ["-e".to_owned(), format!("{name}={value}")]).collect()
}

impl K6 {
    pub(crate) fn inspect(
        &self,
        script: &Path,
        env: &BTreeMap<String, String>,
    ) -> Result<Inspection, String> {
        let mut command = Command::new(&self.program);
        command.args(["inspect", "--execution-requirements"]).args(env_arguments(env)).arg(script);
        shield(&mut command);
        let said = command
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot start k6: {error}"))?;
        if !said.status.success() {
            let text = [said.stderr, said.stdout].concat();
            let text = String::from_utf8_lossy(&text);
            return Err(format!("k6 cannot read {}:\n{}", script.display(), text.trim()));
        }
        let value: Value = serde_json::from_slice(&said.stdout).map_err(|error| {
            format!("what k6 says of {} is not JSON: {error}", script.display())
        })?;
        Ok(Inspection {
            users: value["maxVUs"].as_u64().unwrap_or(0),
            seconds: value["totalDuration"].as_str().and_then(seconds),
        })
    }

    /// Starts it; its outputs go into the directory.
    pub(crate) fn start(
        &self,
        script: &Path,
        url: &str,
        env: &BTreeMap<String, String>,
        directory: &Path,
    ) -> Result<Process, String> {
        let mut command = mortal(&self.program);
        command.args([
            "run",
            "--no-color",
            "--no-usage-report",
            "--summary-trend-stats",
            TREND_STATS,
        ]);
        command.arg("--summary-export").arg(directory.join(SUMMARY));
        command.arg("--console-output").arg(directory.join(CONSOLE));
        command.args(["-e", &format!("HOST={url}")]).args(env_arguments(env)).arg(script);
        shield(&mut command);
        // Without its page: only what the page would be told.
        command.env("K6_WEB_DASHBOARD", "true").env("K6_WEB_DASHBOARD_PORT", "-1");
        command.env("K6_WEB_DASHBOARD_PERIOD", "1s");
        command.env("K6_WEB_DASHBOARD_RECORD", directory.join(SECONDS));
        log_to(&mut command, &directory.join(LOG))?;
        Process::spawn("k6", command)
    }
}

/// Options of the caller's shell must not leak into a measurement.
fn shield(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("K6_") {
            command.env_remove(name);
        }
    }
}

/// Seconds of Go's way to write a time: `1m30s`, `2h0m0s`, `500ms`; or of a plain number of seconds.
pub(crate) fn seconds(text: &str) -> Option<f64> {
    if let Ok(plain) = text.parse::<f64>() {
        return plain.is_finite().then_some(plain);
    }
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        sum += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Some(sum)
}

/// The summary that k6 exports at its end.
#[derive(Clone, Debug)]
pub(crate) struct Summary(Value);

/// A threshold, as the summary has it.
#[derive(Clone, Debug)]
pub(crate) struct Threshold {
    pub(crate) metric: String,
    pub(crate) condition: String,
    pub(crate) crossed: bool,
    /// Whether there was anything to hold it against. k6 lets one pass that had nothing.
    pub(crate) measured: bool,
}

/// See [`Summary::step`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StepFigures {
    pub(crate) p95_ms: Option<f64>,
    pub(crate) failed_share: Option<f64>,
    pub(crate) iterations: Option<u64>,
}

impl Summary {
    pub(crate) fn read(path: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(path).ok()?)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        value.get("metrics")?.as_object()?;
        Some(Self(value))
    }

    fn metrics(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0["metrics"].as_object().into_iter().flatten()
    }

    fn metric(&self, name: &str) -> Option<&Value> {
        self.0["metrics"].get(name)
    }

    /// The measured part of a metric where the script marks one, else all of it.
    fn measured(&self, name: &str) -> Option<&Value> {
        self.metric(&format!("{name}{{phase:main}}")).or_else(|| self.metric(name))
    }

    /// Value of a gauge.
    pub(crate) fn gauge(&self, name: &str) -> Option<f64> {
        self.metric(name)?["value"].as_f64()
    }

    /// All requests, those of the warm-up too.
    pub(crate) fn requests_in_all(&self) -> Option<u64> {
        self.metric("http_reqs")?["count"].as_u64()
    }

    /// 95th percentile of what the open-model scripts judge by: of each iteration its slowest request, so that
    /// many quick polls do not hide a slow purchase.
    pub(crate) fn slowest_p95(&self) -> Option<f64> {
        latency(self.measured("slowest_answer")?).p95
    }

    /// k6 leaves it out where there were none.
    pub(crate) fn dropped_iterations(&self) -> u64 {
        self.metric("dropped_iterations").and_then(|metric| metric["count"].as_u64()).unwrap_or(0)
    }

    pub(crate) fn vus_max(&self) -> Option<u64> {
        let metric = self.metric("vus_max")?;
        metric["max"].as_u64().or_else(|| metric["value"].as_u64())
    }

    /// How long k6 itself says that it ran.
    fn seconds(&self) -> Option<f64> {
        let requests = self.metric("http_reqs")?;
        let (count, rate) = (requests["count"].as_f64()?, requests["rate"].as_f64()?);
        (rate > 0.0).then_some(count / rate)
    }

    /// What a step of the breakpoint test came to, by its tag.
    pub(crate) fn step(&self, number: u32) -> StepFigures {
        let metric = |name: &str| self.metric(&format!("{name}{{step:{number:02}}}"));
        // Of each iteration only its slowest request, so that many quick ones do not hide it.
        let slowest = metric("slowest_answer").or_else(|| metric("http_req_duration")).map(latency);
        // A share of nothing is 0 in the summary.
        let any = |metric: &&Value| {
            metric["passes"].as_u64().unwrap_or(0) + metric["fails"].as_u64().unwrap_or(0) > 0
        };
        StepFigures {
            p95_ms: slowest.and_then(|latency| latency.p95),
            failed_share: metric("http_req_failed")
                .filter(any)
                .and_then(|metric| metric["value"].as_f64()),
            iterations: metric("iterations").and_then(|metric| metric["count"].as_u64()),
        }
    }

    /// `None` where k6 made no request: then there are no figures, not good ones.
    pub(crate) fn totals(&self, warm_up_seconds: f64) -> Option<Totals> {
        let requests = self.measured("http_reqs")?;
        let count = requests["count"].as_u64()?;
        let duration = latency(self.measured("http_req_duration")?);
        if count == 0 {
            return None;
        }
        let seconds = self.seconds()? - warm_up_seconds;
        let checks = self.measured("checks");
        let of_checks = |field: &str| checks.and_then(|checks| checks[field].as_u64()).unwrap_or(0);
        let (mut counters, mut errors) = (BTreeMap::new(), BTreeMap::new());
        for (name, metric) in self.metrics() {
            let ours = is_counter(metric)
                && !name.contains('{')
                && !["http_", "data_", "iteration", "dropped_", "ws_", "grpc_"]
                    .iter()
                    .any(|p| name.starts_with(p));
            let Some(count) = ours.then(|| self.measured(name)?["count"].as_u64()).flatten() else {
                continue;
            };
            match name.strip_prefix("error_") {
                Some(_) if count == 0 => {}
                Some(kind) => _ = errors.insert(kind.replace('_', " "), count),
                None => _ = counters.insert(name.clone(), count),
            }
        }
        Some(Totals {
            requests: count,
            requests_per_second: if seconds > 0.0 {
                count as f64 / seconds
            } else {
                requests["rate"].as_f64()?
            },
            failed_share: self.measured("http_req_failed")?["value"].as_f64()?,
            checks: of_checks("passes") + of_checks("fails"),
            checks_failed: of_checks("fails"),
            iterations: self.measured("iterations").and_then(|m| m["count"].as_u64()).unwrap_or(0),
            duration,
            waiting: self.measured("http_req_waiting").map(latency),
            connecting: self.measured("http_req_connecting").map(latency),
            counters,
            errors,
        })
    }

    /// By the tag `name`, where thresholds of the script make k6 tell them apart.
    pub(crate) fn by_request(&self) -> BTreeMap<String, Latency> {
        let mut found = BTreeMap::new();
        for (metric, value) in self.metrics() {
            let Some(tags) =
                metric.strip_prefix("http_req_duration{").and_then(|rest| rest.strip_suffix('}'))
            else {
                continue;
            };
            let mut name = None;
            let mut others = false;
            for tag in tags.split(',') {
                match tag.split_once(':') {
                    Some(("name", value)) => name = Some(value),
                    Some(("phase", "main")) => {}
                    _ => others = true,
                }
            }
            let latency = latency(value);
            if let Some(name) = name
                && !others
                && latency.count != Some(0)
            {
                found.insert(name.to_owned(), latency);
            }
        }
        found
    }

    pub(crate) fn thresholds(&self) -> Vec<Threshold> {
        let mut found = Vec::new();
        for (metric, value) in self.metrics() {
            for (condition, crossed) in value["thresholds"].as_object().into_iter().flatten() {
                // A counter that never counted is zero, and that is a figure. Anything else was not measured.
                let measured = is_counter(value)
                    || match (
                        value["count"].as_u64(),
                        value["passes"].as_u64(),
                        value["fails"].as_u64(),
                    ) {
                        (Some(count), ..) => count > 0,
                        (None, Some(passes), Some(fails)) => passes + fails > 0,
                        _ => value["value"].as_f64().is_some(),
                    };
                found.push(Threshold {
                    metric: metric.clone(),
                    condition: condition.clone(),
                    crossed: crossed.as_bool() != Some(false),
                    measured,
                });
            }
        }
        found
    }
}

impl Threshold {
    /// Whether it can be crossed at all. Some stand in a script only to make k6 tell tags apart.
    pub(crate) fn asserts(&self) -> bool {
        let condition: String = self.condition.split_whitespace().collect();
        !condition.ends_with(">=0")
    }
}

fn is_counter(metric: &Value) -> bool {
    metric.as_object().is_some_and(|fields| {
        fields.contains_key("count")
            && fields.keys().all(|key| ["count", "rate", "thresholds"].contains(&key.as_str()))
    })
}

fn latency(metric: &Value) -> Latency {
    // Of nothing k6 says 0 for everything.
    let count = metric["count"].as_u64();
    let get = |name: &str| if count == Some(0) { None } else { metric[name].as_f64() };
    Latency {
        count,
        min: get("min"),
        avg: get("avg"),
        med: get("med"),
        p90: get("p(90)"),
        p95: get("p(95)"),
        p99: get("p(99)"),
        p999: get("p(99.9)"),
        max: get("max"),
    }
}

/// Requests that got no answer at all, by kind, from k6's log: what scripts that count nothing tell.
pub(crate) fn errors_of_log(text: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("msg=\"Request Failed\"")) {
        let Some(at) = line.find("error=\"") else { continue };
        let error = &line[at + 7..];
        let kind = [
            ("connection refused", "connection refused"),
            ("connection reset", "connection reset"),
            ("request timeout", "timeout"),
            ("i/o timeout", "timeout"),
            ("EOF", "connection closed"),
            ("broken pipe", "connection closed"),
            ("no such host", "name not found"),
            ("too many open files", "too many open files in k6"),
            ("cannot assign requested address", "no free port in k6"),
        ];
        let kind =
            kind.iter().find(|(part, _)| error.contains(part)).map_or("other", |(_, kind)| kind);
        *found.entry(kind.to_owned()).or_insert(0) += 1;
    }
    found
}

/// What k6 measured in one second, by metric: its aggregates in the order of the head.
#[derive(Clone, Debug)]
pub(crate) struct Second {
    /// When it ended, milliseconds since 1970.
    pub(crate) at_ms: f64,
    values: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Second {
    /// `None` where nothing of it was measured in that second.
    pub(crate) fn get(&self, metric: &str, aggregate: &str) -> Option<f64> {
        self.values.get(metric)?.get(aggregate).copied()
    }
}

/// The recording of the dashboard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recording {
    /// When the run began, milliseconds since 1970.
    pub(crate) start_ms: Option<f64>,
    pub(crate) seconds: Vec<Second>,
}

impl Recording {
    /// Of a file that may end in the middle of a line, where k6 was killed or still writes.
    pub(crate) fn read(path: &Path) -> Self {
        Self::parse(&String::from_utf8_lossy(&fs::read(path).unwrap_or_default()))
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut recording = Self::default();
        let mut aggregates: BTreeMap<String, Vec<String>> = BTreeMap::new();
        // A line holds an array for each metric that is known by then, in the order of their names.
        let mut kinds: BTreeMap<String, String> = BTreeMap::new();
        for line in text.lines() {
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            let data = &event["data"];
            match event["event"].as_str() {
                Some("param") => {
                    for (kind, names) in data["aggregates"].as_object().into_iter().flatten() {
                        let names = names.as_array().into_iter().flatten();
                        aggregates.insert(
                            kind.clone(),
                            names.filter_map(|n| n.as_str().map(str::to_owned)).collect(),
                        );
                    }
                }
                Some("metric") => {
                    for (name, about) in data.as_object().into_iter().flatten() {
                        kinds.insert(
                            name.clone(),
                            about["type"].as_str().unwrap_or_default().to_owned(),
                        );
                    }
                }
                Some("start") => recording.start_ms = data[0][0].as_f64(),
                Some("snapshot") => recording.seconds.extend(second(data, &kinds, &aggregates)),
                _ => {}
            }
        }
        recording
    }
}

fn second(
    data: &Value,
    kinds: &BTreeMap<String, String>,
    aggregates: &BTreeMap<String, Vec<String>>,
) -> Option<Second> {
    let arrays = data.as_array()?;
    // Another number of them would be another order, and every figure wrong.
    if arrays.len() != kinds.len() {
        return None;
    }
    let mut values = BTreeMap::new();
    for ((name, kind), array) in kinds.iter().zip(arrays) {
        let names = aggregates.get(kind)?;
        let figures = array.as_array()?;
        let mut named: BTreeMap<String, f64> =
            names.iter().cloned().zip(figures.iter().filter_map(Value::as_f64)).collect();
        if kind == "counter" && named.is_empty() {
            // Nothing was counted in that second, which is a figure.
            named = names.iter().map(|name| (name.clone(), 0.0)).collect();
        }
        values.insert(name.clone(), named);
    }
    let at_ms = *values.get("time")?.get("value")?;
    Some(Second { at_ms, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by k6 1.1.0, of a script with a warm-up, an open model that dropped iterations, requests that
    /// found nobody, and a threshold on checks that it never made.
    const SUMMARY: &str = include_str!("../tests/fixtures/summary.json");
    const SECONDS: &str = include_str!("../tests/fixtures/seconds.ndjson");

    #[test]
    fn totals_leave_the_warm_up_out() {
        let summary = Summary::parse(SUMMARY).unwrap();
        assert_eq!(summary.requests_in_all(), Some(114));
        assert_eq!(summary.dropped_iterations(), 120);
        assert_eq!(summary.vus_max(), Some(5));
        let totals = summary.totals(4.0).unwrap();
        assert_eq!(totals.duration.count, Some(110), "of phase main alone");
        assert!((totals.failed_share - 19.0 / 110.0).abs() < 1e-9);
        assert!((totals.duration.p999.unwrap() - 4.006348).abs() < 1e-5);
        assert_eq!(totals.counters, BTreeMap::from([("rejected_x".to_owned(), 91)]));
        assert_eq!(totals.checks, 0);
    }

    #[test]
    fn what_was_not_measured_is_told_from_what_is_zero() {
        let thresholds = Summary::parse(SUMMARY).unwrap().thresholds();
        let find = |metric: &str| thresholds.iter().find(|t| t.metric == metric).unwrap().clone();
        // k6 let this one pass: it had no check to hold it against.
        let checks = find("checks");
        assert!(!checks.crossed && !checks.measured && checks.asserts());
        let slow = find("http_req_duration{phase:main}");
        assert!(slow.crossed && slow.measured);
        // It stands there to make k6 tell them apart.
        assert!(!find("http_reqs{status:404}").asserts());
        let none = r#"{"metrics":{"http_reqs":{"count":0,"rate":0},"http_req_duration":{"count":0,"p(95)":0},
            "http_req_failed":{"passes":0,"fails":0,"value":0},
            "errors":{"count":0,"rate":0,"thresholds":{"count==0":false}}}}"#;
        let none = Summary::parse(none).unwrap();
        assert!(none.totals(0.0).is_none(), "no request is no good figure");
        assert!(none.thresholds()[0].measured, "a counter that stands at zero was measured");
        assert!(Summary::parse("{}").is_none());
        assert!(Summary::parse("").is_none());
    }

    #[test]
    fn requests_are_told_apart_by_their_name() {
        let text = r#"{"metrics":{
            "http_req_duration{name:poll,phase:main}":{"count":7,"p(95)":2.5},
            "http_req_duration{name:pay}":{"count":3,"p(95)":9},
            "http_req_duration{name:leave,phase:main}":{"count":0,"p(95)":0},
            "http_req_duration{name:poll,phase:warmup}":{"count":1,"p(95)":100},
            "http_req_duration{phase:main}":{"count":10,"p(95)":9}}}"#;
        let by_request = Summary::parse(text).unwrap().by_request();
        let found: Vec<_> =
            by_request.iter().map(|(name, latency)| (name.as_str(), latency.p95)).collect();
        assert_eq!(found, [("pay", Some(9.0)), ("poll", Some(2.5))]);
    }

    #[test]
    fn the_recording_has_a_point_for_each_second() {
        let recording = Recording::parse(SECONDS);
        assert_eq!(recording.start_ms, Some(1_795_395_023_336.0));
        assert_eq!(recording.seconds.len(), 11);
        let second = &recording.seconds[0];
        assert_eq!(second.get("http_reqs", "rate"), Some(2.0));
        assert_eq!(second.get("http_req_failed", "rate"), Some(1.0));
        assert_eq!(second.get("vus", "value"), None, "not known to it yet");
        // Nothing was asked in the third: no latency, and no requests.
        assert_eq!(recording.seconds[2].get("http_req_duration", "p(95)"), None);
        assert_eq!(recording.seconds[2].get("http_reqs", "rate"), Some(0.0));
        let last = &recording.seconds[10];
        assert_eq!(last.get("http_req_duration", "p(95)"), Some(1.5508));
        assert_eq!(last.get("dropped_iterations", "rate"), Some(17.0));
        assert_eq!(last.get("vus_max", "value"), Some(5.0));
    }

    #[test]
    fn a_recording_that_breaks_off_keeps_what_is_whole() {
        for length in [0, 100, 600, 3000, SECONDS.len() - 10] {
            let recording = Recording::parse(&SECONDS[..length]);
            assert!(recording.seconds.len() <= 11);
        }
        assert_eq!(Recording::parse(&SECONDS[..SECONDS.len() - 60]).seconds.len(), 11);
        // With another number of figures nobody knows which is which.
        let shifted = SECONDS.replace("[[],[],", "[[],");
        assert_eq!(Recording::parse(&shifted).seconds.len(), 10);
    }

    #[test]
    fn errors_are_read_from_the_log() {
        let log = "time=\"…\" level=warning msg=\"Request Failed\" error=\"Get \\\"http://127.0.0.1:1/\\\": dial tcp \
                   127.0.0.1:1: connect: connection refused\"\nrunning (1s)\n\
                   level=warning msg=\"Request Failed\" error=\"Get \\\"x\\\": request timeout\"\n\
                   level=warning msg=\"Request Failed\" error=\"Get \\\"x\\\": EOF\"\n";
        let found = errors_of_log(log);
        let expected = [("connection closed", 1), ("connection refused", 1), ("timeout", 1)];
        assert_eq!(found, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    }

    #[test]
    fn versions_and_times_are_read() {
        assert_eq!(
            version_of("k6 v1.1.0 (commit/0e3fb953be, go1.24.4, linux/amd64)\n").as_deref(),
            Some("1.1.0")
        );
        assert_eq!(version_of("k6 v0.49.0 (go1.21)").as_deref(), Some("0.49.0"));
        assert_eq!(version_of("Python 3.11"), None);
        assert_eq!(version_of(""), None);
        for (text, expected) in [
            ("90s", Some(90.0)),
            ("1m30s", Some(90.0)),
            ("2h0m0s", Some(7200.0)),
            ("500ms", Some(0.5)),
            ("1m", Some(60.0)),
            ("12", Some(12.0)),
            ("soon", None),
            ("5", Some(5.0)),
            ("5y", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
