//! What is kept of a run: the file `run.json`, and all that a report is made from.
//!
//! The runner fills it in, the report and the comparison read it. Whatever could not be measured is
//! `None`, never zero, so that a missing figure cannot pass for a good one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Goes up when an older program could not read the file.
pub(crate) const FORMAT: u32 = 1;

/// One run of one test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// [`FORMAT`] of the program that wrote it.
    pub(crate) format: u32,
    /// Name of the test, such as `scenario1`, or of the script where it is not one of ours.
    pub(crate) test: String,
    pub(crate) kind: TestKind,
    /// Path of the k6 script as it was given.
    pub(crate) script: String,
    /// What follows `loadtest` on the command line that makes the same run again, without secrets.
    #[serde(default)]
    pub(crate) arguments: Vec<String>,
    /// RFC 3339, when the measured part began.
    pub(crate) started_at: String,
    /// Seconds from the start of k6 to its end.
    pub(crate) elapsed_seconds: f64,
    pub(crate) machine: Machine,
    /// Git commit of the working tree, with `-dirty` where it had changes. `None` outside of a clone.
    pub(crate) commit: Option<String>,
    pub(crate) condition: Condition,
    pub(crate) verdict: Verdict,
    pub(crate) generator: Generator,
    /// What k6 measured. `None` where it ended before it could say.
    pub(crate) totals: Option<Totals>,
    /// Each request of a user's way by itself, by its `name` tag (`join`, `poll`, `seats` …).
    pub(crate) by_request: BTreeMap<String, Latency>,
    pub(crate) server: ServerUse,
    pub(crate) series: Series,
    /// The same script against static answers on the same HTTP stack.
    pub(crate) baseline: Option<Baseline>,
    pub(crate) audit: Option<Audit>,
    /// For breakpoint tests.
    pub(crate) breakpoint: Option<Breakpoint>,
    /// Where the run says enough to work it out.
    pub(crate) safe_rate: Option<SafeRate>,
}

/// What a test is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TestKind {
    /// One of the four scenarios of the original report.
    Scenario,
    /// Holds a target.
    Load,
    /// Goes beyond what is sustainable, and back.
    Stress,
    /// Rises until it gives.
    Breakpoint,
    /// Everybody at once.
    Spike,
    /// A script of the user's own.
    Custom,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// 1-minute load average before the run: what else was going on.
    pub(crate) load_average_before: f64,
}

/// Under what conditions the service ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Condition {
    pub(crate) service: Service,
    /// CPUs that the service (each instance of it) may use. `None` for `--url`.
    pub(crate) cpus: Option<f64>,
    /// Settings given to the service beyond its defaults.
    pub(crate) settings: BTreeMap<String, String>,
    /// Variables given to the script.
    pub(crate) env: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Service {
    /// One process with SQLite.
    Embedded,
    /// Instances on MariaDB, Redis and Kafka behind haproxy.
    Cluster { instances: u32 },
    /// A service that was already running.
    Url { url: String },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    /// Why not a pass, worst first; and what to mind where it is one.
    pub(crate) findings: Vec<Finding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Pass,
    Fail,
    /// Stopped before its end; what there is of it is kept. Never a pass.
    Incomplete,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// Whether it makes the run a failure, or is only to be minded.
    pub(crate) fatal: bool,
    /// One of a closed set, for translation: see `report::text`.
    pub(crate) code: FindingCode,
    /// The figures, names or the message of it, as plain text.
    pub(crate) detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FindingCode {
    /// A threshold of the script was crossed.
    ThresholdCrossed,
    /// The same of a bound of the latency that static answers do not keep either, while the service
    /// took hardly longer than they.
    ThresholdBeyondGenerator,
    /// Requests failed that the script does not expect to fail.
    RequestsFailed,
    /// Checks of the script failed.
    ChecksFailed,
    /// The invariants do not hold.
    AuditViolations,
    /// The audit could not be had.
    AuditMissing,
    /// A figure that the verdict needs is missing.
    MetricMissing,
    /// The service ended or could not be reached during the run.
    ServiceDied,
    /// k6 ended with an error.
    GeneratorFailed,
    /// k6 or the machine was the limit, so latencies are partly its own.
    GeneratorSaturated,
    /// An open-model test could not start all its iterations.
    DroppedIterations,
    /// Stopped by Ctrl-C or a signal.
    Interrupted,
    /// 80 % of the limit failed or 120 % of it passed.
    LimitNotConfirmed,
    /// The machine was busy with other things.
    NoisyMachine,
}

/// The load generator itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Generator {
    pub(crate) k6_version: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) peak_rss_bytes: Option<u64>,
    /// `dropped_iterations`; `Some(0)` where k6 says nothing of it and ended in good order.
    pub(crate) dropped_iterations: Option<u64>,
    pub(crate) vus_max: Option<u64>,
    /// Share of the run's seconds in which k6 and the service together used ≥ 95 % of the machine, or k6 ≥ 95 % of
    /// the CPUs that the service leaves it.
    pub(crate) saturated_share: Option<f64>,
}

/// What k6 says of the whole run, warm-up excluded where the script marks one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) requests_per_second: f64,
    /// `http_req_failed`, 0 to 1: not what a script expects, such as a seat that is taken.
    pub(crate) failed_share: f64,
    pub(crate) checks: u64,
    pub(crate) checks_failed: u64,
    pub(crate) iterations: u64,
    /// `http_req_duration`.
    pub(crate) duration: Latency,
    /// `http_req_waiting`.
    pub(crate) waiting: Option<Latency>,
    /// `http_req_connecting`.
    pub(crate) connecting: Option<Latency>,
    /// The script's own counters: intended rejections (`rejected_…`) and what else it counts.
    pub(crate) counters: BTreeMap<String, u64>,
    /// Failures by kind, such as `503` or `connection reset`.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// Milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) count: Option<u64>,
    pub(crate) min: Option<f64>,
    pub(crate) avg: Option<f64>,
    pub(crate) med: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p95: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) p999: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// What the service used up. All of its instances together; `None` for `--url`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ServerUse {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) cpu_micros_per_request: Option<f64>,
    pub(crate) peak_rss_bytes: Option<u64>,
    pub(crate) exit_code: Option<i32>,
    /// Changes of the service's own counters over the run, by the name of `/metrics` with labels.
    pub(crate) counters: BTreeMap<String, f64>,
}

/// One time axis, one value a second; `None` where nothing was measured in that second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Series {
    /// Seconds since the load began, ascending. What a script does before, to set its stage, is not on the axis.
    pub(crate) at: Vec<f64>,
    /// Seconds on the axis at the end of the warm-up, which the totals leave out.
    pub(crate) warm_up_seconds: f64,
    /// By name; each as long as `at`. See [`names`].
    pub(crate) values: BTreeMap<String, Vec<Option<f64>>>,
}

/// Names of the series.
pub(crate) mod names {
    pub(crate) const VUS: &str = "vus";
    pub(crate) const REQUESTS_PER_SECOND: &str = "requests_per_second";
    pub(crate) const ITERATIONS_PER_SECOND: &str = "iterations_per_second";
    pub(crate) const DROPPED_PER_SECOND: &str = "dropped_per_second";
    /// 0 to 1.
    pub(crate) const FAILED_SHARE: &str = "failed_share";
    pub(crate) const DURATION_AVG: &str = "duration_avg_ms";
    pub(crate) const DURATION_P50: &str = "duration_p50_ms";
    pub(crate) const DURATION_P90: &str = "duration_p90_ms";
    pub(crate) const DURATION_P95: &str = "duration_p95_ms";
    pub(crate) const DURATION_P99: &str = "duration_p99_ms";
    pub(crate) const DURATION_MAX: &str = "duration_max_ms";
    pub(crate) const WAITING_AVG: &str = "waiting_avg_ms";
    pub(crate) const WAITING_P95: &str = "waiting_p95_ms";
    pub(crate) const CONNECTING_AVG: &str = "connecting_avg_ms";
    pub(crate) const CONNECTING_P95: &str = "connecting_p95_ms";
    /// CPUs used by the service, by k6, by everything on the machine.
    pub(crate) const SERVER_CPUS: &str = "server_cpus";
    pub(crate) const GENERATOR_CPUS: &str = "generator_cpus";
    pub(crate) const MACHINE_CPUS: &str = "machine_cpus";
    pub(crate) const SERVER_RSS: &str = "server_rss_bytes";
    pub(crate) const QUEUE_WAITING: &str = "queue_waiting";
    pub(crate) const QUEUE_ACTIVE: &str = "queue_active";
    pub(crate) const JOINED_PER_SECOND: &str = "joined_per_second";
    pub(crate) const ADMITTED_PER_SECOND: &str = "admitted_per_second";
    pub(crate) const RESERVED_PER_SECOND: &str = "reserved_per_second";
    pub(crate) const PAID_PER_SECOND: &str = "paid_per_second";
    pub(crate) const SHED_PER_SECOND: &str = "shed_per_second";
    /// Mean time of a commit of the store in that second.
    pub(crate) const COMMIT_MS: &str = "commit_ms";
    pub(crate) const STORE_PENDING: &str = "store_pending_commands";
    /// CPUs used by the database and the other engines (cluster).
    pub(crate) const ENGINE_CPUS: &str = "engine_cpus";
}

/// The same load against static answers: what the generator and the HTTP stack cost by themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Baseline {
    pub(crate) totals: Totals,
    pub(crate) server_cpu_seconds: Option<f64>,
    /// The service's p95 divided by the baseline's.
    pub(crate) p95_ratio: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Audit {
    pub(crate) clean: bool,
    /// What `boxoffice audit` printed.
    pub(crate) output: String,
}

/// What a breakpoint test found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Breakpoint {
    /// Iterations per second, between what held and what did not, and corrected by what was confirmed; `None`
    /// where it held to the end of the ramp.
    pub(crate) knee_per_second: Option<f64>,
    /// Seconds since the load began.
    pub(crate) knee_at: Option<f64>,
    pub(crate) saturated: Resource,
    /// The figures that say so.
    pub(crate) evidence: Vec<String>,
    /// Held at 80 % and at 120 % of the knee.
    pub(crate) confirmations: Vec<Confirmation>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Confirmation {
    /// 0.8 or 1.2.
    pub(crate) share: f64,
    pub(crate) per_second: f64,
    /// Whether it held: no failures, no dropped iterations, p95 below the limit.
    pub(crate) held: bool,
    pub(crate) failed_share: f64,
    pub(crate) dropped_iterations: u64,
    pub(crate) p95_ms: Option<f64>,
}

/// What gave first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Resource {
    /// The CPU that the service may use.
    ServerCpu,
    /// The store: its commits take long while its CPU has time.
    Store,
    /// k6, or the machine that it shares.
    Generator,
    /// Limits of concurrency that shed with 503.
    ConcurrencyLimit,
    /// Nothing did.
    None,
    /// It gave, and no figure says why.
    Unknown,
}

/// How many may be let in per second, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SafeRate {
    /// Admissions per second.
    pub(crate) per_second: f64,
    /// CPUs that the service may use, all of them.
    pub(crate) cpus: f64,
    /// Share of them that may be planned with; the rest is for what cannot be planned.
    pub(crate) headroom: f64,
    /// CPU microseconds of one poll, one join, and all requests of one buyer after admission.
    pub(crate) poll_micros: f64,
    pub(crate) join_micros: f64,
    pub(crate) buyer_micros: f64,
    /// The crowd that is planned for, and how often each of them asks, seconds.
    pub(crate) waiting: f64,
    pub(crate) poll_every_seconds: f64,
    pub(crate) joins_per_second: f64,
    /// Knee in buyers per second times the headroom, where a breakpoint run says it; the smaller one counts.
    pub(crate) knee_limit_per_second: Option<f64>,
}
