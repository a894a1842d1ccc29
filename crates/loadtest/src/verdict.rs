//! Pass, fail or incomplete, and why.
//!
//! What is missing never counts as good: a run without latencies, without an audit or without the figures
//! that a threshold asks for is not a pass.

use crate::k6::{THRESHOLDS_CROSSED, Threshold};
use crate::model::{
    Audit, Breakpoint, Finding, FindingCode, Generator, Machine, Outcome, ServerUse, TestKind,
    Totals, Verdict,
};

/// Of the run's seconds: what is more is no outlier.
const SATURATED_SHARE: f64 = 0.1;
/// Of the machine's CPUs: what else was going on before the run.
const BUSY_SHARE: f64 = 0.25;

/// What is judged.
#[derive(Debug)]
pub(crate) struct Judged<'a> {
    pub(crate) kind: TestKind,
    pub(crate) interrupted: bool,
    /// How the service ended by itself.
    pub(crate) died: Option<&'a str>,
    pub(crate) totals: Option<&'a Totals>,
    pub(crate) thresholds: &'a [Threshold],
    pub(crate) generator: &'a Generator,
    /// The end of k6's log.
    pub(crate) generator_said: &'a str,
    pub(crate) server: &'a ServerUse,
    /// Whether the service is ours to start and stop.
    pub(crate) ours: bool,
    pub(crate) audit: &'a Result<Audit, String>,
    pub(crate) machine: &'a Machine,
    pub(crate) breakpoint: Option<&'a Breakpoint>,
    /// How many seconds of the series have a latency, and how many a CPU of the service.
    pub(crate) seconds_measured: usize,
    pub(crate) seconds_sampled: usize,
}

pub(crate) fn judge(run: &Judged<'_>) -> Verdict {
    let mut findings = Vec::new();
    let mut find = |fatal: bool, code: FindingCode, detail: String| {
        findings.push(Finding { fatal, code, detail })
    };
    if run.interrupted {
        find(true, FindingCode::Interrupted, "stopped by a signal before its end".to_owned());
    }
    if let Some(how) = run.died {
        find(true, FindingCode::ServiceDied, how.to_owned());
    }
    generator(run, &mut find);
    let ramp = run.kind == TestKind::Breakpoint;
    for threshold in run.thresholds.iter().filter(|threshold| threshold.asserts()) {
        let text = format!("{}: {}", threshold.metric, threshold.condition);
        if threshold.crossed {
            // A ramp goes on until one is; what it finds is judged by its confirmations.
            find(!ramp, FindingCode::ThresholdCrossed, text);
        } else if !threshold.measured && !ramp {
            find(
                true,
                FindingCode::MetricMissing,
                format!("{text}: nothing was measured that it could be held against"),
            );
        }
    }
    match run.totals {
        None => find(true, FindingCode::MetricMissing, "k6 measured no request".to_owned()),
        Some(totals) => of_totals(run, totals, &mut find),
    }
    server(run, &mut find);
    match run.audit {
        Ok(audit) if !audit.clean => find(true, FindingCode::AuditViolations, audit.output.clone()),
        Ok(_) => {}
        // Without its admin token nobody can audit somebody else's service, and that is said.
        Err(why) => find(run.ours, FindingCode::AuditMissing, why.clone()),
    }
    if run.machine.load_average_before > BUSY_SHARE * f64::from(run.machine.cpus) {
        find(
            false,
            FindingCode::NoisyMachine,
            format!(
                "load average {:.2} before the run, on {} CPUs",
                run.machine.load_average_before, run.machine.cpus
            ),
        );
    }
    if let Some(found) = run.breakpoint {
        confirmations(run, found, &mut find);
    }
    findings.sort_by_key(|finding| (!finding.fatal, order(finding.code)));
    let outcome = if run.interrupted {
        Outcome::Incomplete
    } else if findings.iter().any(|finding| finding.fatal) {
        Outcome::Fail
    } else {
        Outcome::Pass
    };
    Verdict { outcome, findings }
}

type Find<'a> = dyn FnMut(bool, FindingCode, String) + 'a;

fn generator(run: &Judged<'_>, find: &mut Find<'_>) {
    let generator = run.generator;
    match generator.exit_code {
        Some(0 | THRESHOLDS_CROSSED) => {}
        // We have ended it ourselves.
        _ if run.interrupted || run.died.is_some() => {}
        Some(code) => find(
            true,
            FindingCode::GeneratorFailed,
            format!("k6 ended with code {code}: {}", run.generator_said),
        ),
        None => find(
            true,
            FindingCode::GeneratorFailed,
            format!("k6 did not end: {}", run.generator_said),
        ),
    }
    match generator.saturated_share {
        Some(share) if share > SATURATED_SHARE => find(
            false,
            FindingCode::GeneratorSaturated,
            format!(
                "in {:.0} % of the seconds k6 or the machine had no CPU left, so latencies are partly their own",
                share * 100.0
            ),
        ),
        Some(_) => {}
        None => find(
            run.ours,
            FindingCode::MetricMissing,
            "the CPU of k6 and the machine: whether the generator was the limit is not known"
                .to_owned(),
        ),
    }
    match generator.dropped_iterations {
        // A ramp and a stress test ask for more than can be had.
        Some(dropped) if dropped > 0 => find(
            !matches!(run.kind, TestKind::Breakpoint | TestKind::Stress),
            FindingCode::DroppedIterations,
            format!(
                "{dropped} iterations were due and could not be started: there were not enough users free"
            ),
        ),
        Some(_) => {}
        None => find(true, FindingCode::MetricMissing, "dropped iterations".to_owned()),
    }
}

fn of_totals(run: &Judged<'_>, totals: &Totals, find: &mut Find<'_>) {
    let duration = &totals.duration;
    for (name, value) in [
        ("median", duration.med),
        ("95th percentile", duration.p95),
        ("99th percentile", duration.p99),
        ("maximum", duration.max),
    ] {
        if value.is_none() {
            find(true, FindingCode::MetricMissing, format!("the {name} of the latency"));
        }
    }
    // The script's own thresholds say what is too much; without any, every failure is.
    let script_judges =
        run.thresholds.iter().any(|t| t.metric.starts_with("http_req_failed") && t.asserts());
    if totals.failed_share > 0.0 {
        let kinds: Vec<String> =
            totals.errors.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
        find(
            !script_judges,
            FindingCode::RequestsFailed,
            format!(
                "{:.3} % of {} requests{}{}",
                totals.failed_share * 100.0,
                totals.requests,
                if kinds.is_empty() { "" } else { "; " },
                kinds.join(", ")
            ),
        );
    }
    let script_judges =
        run.thresholds.iter().any(|t| t.metric.starts_with("checks") && t.asserts());
    if totals.checks_failed > 0 {
        find(
            !script_judges,
            FindingCode::ChecksFailed,
            format!("{} of {} checks", totals.checks_failed, totals.checks),
        );
    }
    if run.seconds_measured == 0 {
        find(
            true,
            FindingCode::MetricMissing,
            "the figures of each second: k6 recorded none".to_owned(),
        );
    }
}

fn server(run: &Judged<'_>, find: &mut Find<'_>) {
    if !run.ours {
        return;
    }
    if run.server.cpu_seconds.is_none() || run.seconds_sampled == 0 {
        find(true, FindingCode::MetricMissing, "the CPU time of the service".to_owned());
    }
    if run.server.counters.is_empty() {
        find(true, FindingCode::MetricMissing, "the service's own figures (/metrics)".to_owned());
    }
    match run.server.exit_code {
        Some(0) => {}
        // Said already.
        _ if run.died.is_some() => {}
        Some(code) => find(
            true,
            FindingCode::ServiceDied,
            format!("it ended with code {code} when it was asked to end"),
        ),
        None => find(true, FindingCode::ServiceDied, "it did not say how it ended".to_owned()),
    }
}

fn confirmations(run: &Judged<'_>, found: &Breakpoint, find: &mut Find<'_>) {
    if found.knee_per_second.is_none() || run.interrupted {
        return;
    }
    for (share, must_hold) in [(0.8, true), (1.2, false)] {
        let what = format!("{:.0} % of the limit", share * 100.0);
        match found.confirmations.iter().find(|one| (one.share - share).abs() < 0.01) {
            None => find(true, FindingCode::LimitNotConfirmed, format!("{what} was not tried")),
            Some(one) if one.held != must_hold => find(
                true,
                FindingCode::LimitNotConfirmed,
                format!(
                    "{what} ({:.0} per second) {}: {:.2} % failed, {} dropped, p95 {}",
                    one.per_second,
                    if one.held { "held" } else { "did not hold" },
                    one.failed_share * 100.0,
                    one.dropped_iterations,
                    one.p95_ms.map_or("unknown".to_owned(), |ms| format!("{ms:.1} ms")),
                ),
            ),
            Some(_) => {}
        }
    }
}

/// Worst first.
const fn order(code: FindingCode) -> u8 {
    match code {
        FindingCode::Interrupted => 0,
        FindingCode::ServiceDied => 1,
        FindingCode::AuditViolations => 2,
        FindingCode::GeneratorFailed => 3,
        FindingCode::AuditMissing => 4,
        FindingCode::ThresholdCrossed => 5,
        FindingCode::RequestsFailed => 6,
        FindingCode::ChecksFailed => 7,
        FindingCode::LimitNotConfirmed => 8,
        FindingCode::DroppedIterations => 9,
        FindingCode::MetricMissing => 10,
        FindingCode::GeneratorSaturated => 11,
        FindingCode::NoisyMachine => 12,
    }
}
