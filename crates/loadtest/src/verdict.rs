//! Pass, fail or incomplete, and why.
//!
//! What is missing never counts as good: a run without latencies, without an audit or without the figures
//! that a threshold asks for is not a pass.

use crate::k6::{THRESHOLDS_CROSSED, Threshold};
use crate::model::{
    Audit, Baseline, Breakpoint, Finding, FindingCode, Generator, Machine, Outcome, Resource,
    ServerUse, TestKind, Totals, Verdict,
};

/// Of the run's seconds: what is more is no outlier.
const SATURATED_SHARE: f64 = 0.1;
/// Of the machine's CPUs: what else was going on before the run.
const BUSY_SHARE: f64 = 0.25;

/// What the service may take, as a multiple of what static answers take.
const BASELINE_RATIO_MAX: f64 = 1.2;
/// A baseline of which more failed is none.
pub(crate) const BASELINE_FAILED_MAX: f64 = 0.01;

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
    /// The same script against static answers, where that was run.
    pub(crate) baseline: Option<&'a Baseline>,
    pub(crate) elapsed_seconds: f64,
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
            // A ramp goes on until one is; what it finds is judged by its confirmations. Answers that are no
            // sign of overload are wrong at any rate.
            let wrong = threshold.metric.starts_with("unexpected");
            match run.baseline.and_then(|baseline| beyond_generator(threshold, baseline)) {
                Some(how) => {
                    let text = format!("{how}; {text}");
                    find(false, FindingCode::ThresholdBeyondGenerator, text);
                }
                None => find(!ramp || wrong, FindingCode::ThresholdCrossed, text),
            }
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

/// Whether a bound of the 95th percentile tells nothing about the service: where static answers do not
/// keep it either, generator and machine do not, whatever they are given. The service is held against the
/// static answers then. Says how the two did.
fn beyond_generator(threshold: &Threshold, baseline: &Baseline) -> Option<String> {
    let is_latency = threshold.metric.split('{').next() == Some("http_req_duration");
    let bound_ms = threshold.condition.replace(' ', "");
    let bound_ms: f64 = bound_ms.strip_prefix("p(95)<")?.trim_start_matches('=').parse().ok()?;
    let bare_ms = baseline.totals.duration.p95?;
    let ratio = baseline.p95_ratio?;
    let answered = baseline.totals.failed_share <= BASELINE_FAILED_MAX;
    (is_latency && answered && bare_ms > bound_ms && ratio <= BASELINE_RATIO_MAX)
        .then(|| format!("static answers took {bare_ms:.0} ms, and the service {ratio:.2} × that"))
}

/// A run of a moment has no figures of each second, and needs none.
fn too_short(run: &Judged<'_>) -> bool {
    run.elapsed_seconds < 3.0
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
            run.ours && !too_short(run),
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
    // A script of the user's own that has no thresholds cannot tell a seat that is taken from an error. Where
    // all were refusals (4xx), they are said, and no more.
    let refusals = run.kind == TestKind::Custom
        && !totals.errors.is_empty()
        && totals.errors.keys().all(|kind| kind == "4xx");
    // The script's own thresholds say what is too much; without any, every failure is.
    let script_judges = refusals
        || run.thresholds.iter().any(|t| t.metric.starts_with("http_req_failed") && t.asserts());
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
        refusals || run.thresholds.iter().any(|t| t.metric.starts_with("checks") && t.asserts());
    if totals.checks_failed > 0 {
        find(
            !script_judges,
            FindingCode::ChecksFailed,
            format!("{} of {} checks", totals.checks_failed, totals.checks),
        );
    }
    if run.seconds_measured == 0 {
        find(
            !too_short(run),
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
        find(
            run.server.cpu_seconds.is_none() || !too_short(run),
            FindingCode::MetricMissing,
            "the CPU time of the service".to_owned(),
        );
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
    if run.interrupted {
        return;
    }
    if found.knee_per_second.is_none() {
        // That it held to the end is no failure, but no limit either.
        let held = found.saturated == Resource::None;
        find(
            !held,
            FindingCode::LimitNotConfirmed,
            format!("no limit was found: {}", found.evidence.join("; ")),
        );
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
        FindingCode::ThresholdBeyondGenerator => 11,
        FindingCode::GeneratorSaturated => 12,
        FindingCode::NoisyMachine => 13,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Confirmation, Latency};

    struct Case {
        kind: TestKind,
        interrupted: bool,
        died: Option<&'static str>,
        totals: Option<Totals>,
        thresholds: Vec<Threshold>,
        generator: Generator,
        server: ServerUse,
        ours: bool,
        audit: Result<Audit, String>,
        machine: Machine,
        breakpoint: Option<Breakpoint>,
        baseline: Option<Baseline>,
        seconds: usize,
        elapsed: f64,
    }

    fn good() -> Case {
        let latency = Latency {
            count: Some(9),
            min: Some(1.0),
            avg: Some(1.0),
            med: Some(1.0),
            p90: Some(1.0),
            p95: Some(1.0),
            p99: Some(1.0),
            p999: Some(1.0),
            max: Some(1.0),
        };
        Case {
            kind: TestKind::Load,
            interrupted: false,
            died: None,
            totals: Some(Totals {
                requests: 9,
                requests_per_second: 1.0,
                failed_share: 0.0,
                checks: 9,
                checks_failed: 0,
                iterations: 9,
                duration: latency,
                waiting: None,
                connecting: None,
                counters: Default::default(),
                errors: Default::default(),
            }),
            thresholds: Vec::new(),
            generator: Generator {
                k6_version: "1.1.0".to_owned(),
                exit_code: Some(0),
                cpu_seconds: Some(1.0),
                peak_rss_bytes: Some(1),
                dropped_iterations: Some(0),
                vus_max: Some(1),
                saturated_share: Some(0.0),
            },
            server: ServerUse {
                cpu_seconds: Some(1.0),
                cpu_micros_per_request: Some(1.0),
                peak_rss_bytes: Some(1),
                exit_code: Some(0),
                counters: [("x_total".to_owned(), 1.0)].into(),
            },
            ours: true,
            audit: Ok(Audit { clean: true, output: String::new() }),
            machine: Machine {
                cpu: String::new(),
                cpus: 2,
                memory_bytes: 1,
                kernel: String::new(),
                load_average_before: 0.0,
            },
            breakpoint: None,
            baseline: None,
            seconds: 9,
            elapsed: 9.0,
        }
    }

    fn judged(case: &Case) -> Verdict {
        judge(&Judged {
            kind: case.kind,
            interrupted: case.interrupted,
            died: case.died,
            totals: case.totals.as_ref(),
            thresholds: &case.thresholds,
            generator: &case.generator,
            generator_said: "said",
            server: &case.server,
            ours: case.ours,
            audit: &case.audit,
            machine: &case.machine,
            breakpoint: case.breakpoint.as_ref(),
            baseline: case.baseline.as_ref(),
            elapsed_seconds: case.elapsed,
            seconds_measured: case.seconds,
            seconds_sampled: case.seconds,
        })
    }

    fn details_of(case: &Case) -> Vec<String> {
        judged(case).findings.into_iter().map(|finding| finding.detail).collect()
    }

    #[test]
    fn a_report_in_korean_says_the_details_in_korean() {
        let latency = Latency::default();
        let hold = |share: f64, held| Confirmation {
            share,
            held,
            per_second: 9.0,
            failed_share: 0.5,
            dropped_iterations: 3,
            p95_ms: Some(700.0),
        };
        let limit = |confirmations| Breakpoint {
            knee_per_second: Some(10.0),
            knee_at: Some(1.0),
            saturated: Resource::ServerCpu,
            evidence: Vec::new(),
            confirmations,
        };
        let mut worst = good();
        worst.kind = TestKind::Breakpoint;
        worst.interrupted = false;
        worst.thresholds = Vec::new();
        if let Some(totals) = &mut worst.totals {
            totals.failed_share = 0.25;
            totals.checks_failed = 1;
            totals.duration = latency;
        }
        worst.generator.saturated_share = Some(0.5);
        worst.generator.dropped_iterations = Some(7);
        worst.server = ServerUse { exit_code: Some(1), ..ServerUse::default() };
        worst.machine.load_average_before = 3.0;
        worst.seconds = 0;
        worst.breakpoint = Some(limit(vec![hold(0.8, false), hold(1.2, true)]));
        let mut details: Vec<String> = details_of(&worst);
        worst.kind = TestKind::Load;
        worst.totals = None;
        worst.interrupted = true;
        worst.generator.saturated_share = None;
        worst.generator.dropped_iterations = None;
        worst.server.exit_code = None;
        worst.thresholds = vec![
            threshold("x", false, false),
            threshold("http_req_duration{phase:main}", true, true),
        ];
        worst.baseline = Some(baseline(1_130.0, 1.01));
        details.extend(details_of(&worst));
        worst.interrupted = false;
        worst.breakpoint = Some(limit(Vec::new()));
        details.extend(details_of(&worst));
        assert!(details.len() > 25, "{details:?}");
        for detail in details {
            // What k6 itself said stays as it is.
            if !detail.contains("said") {
                assert!(crate::report::known_in_korean(&detail), "{detail}");
            }
        }
    }

    fn threshold(metric: &str, crossed: bool, measured: bool) -> Threshold {
        Threshold { metric: metric.to_owned(), condition: "p(95)<5".to_owned(), crossed, measured }
    }

    /// Spoils a good run in one way, and says what becomes of it.
    fn outcome(spoil: impl FnOnce(&mut Case)) -> (Outcome, Vec<FindingCode>) {
        let mut case = good();
        spoil(&mut case);
        let verdict = judged(&case);
        (verdict.outcome, verdict.findings.iter().map(|finding| finding.code).collect())
    }

    /// Static answers with this 95th percentile, and the service's as a multiple of it.
    fn baseline(p95_ms: f64, ratio: f64) -> Baseline {
        let mut totals = good().totals.unwrap();
        totals.duration.p95 = Some(p95_ms);
        Baseline { totals, server_cpu_seconds: None, p95_ratio: Some(ratio) }
    }

    #[test]
    fn a_bound_that_static_answers_do_not_keep_is_held_against_them() {
        let with = |metric: &'static str, p95_ms, ratio| {
            outcome(move |c| {
                // A bound of 5 ms.
                c.thresholds.push(threshold(metric, true, true));
                c.baseline = Some(baseline(p95_ms, ratio));
            })
        };
        let passed = (Outcome::Pass, vec![FindingCode::ThresholdBeyondGenerator]);
        let failed = (Outcome::Fail, vec![FindingCode::ThresholdCrossed]);
        assert_eq!(with("http_req_duration{phase:main}", 6.0, 1.2), passed);
        assert_eq!(with("http_req_duration", 6.0, 0.9), passed);
        // The service is slower than that.
        assert_eq!(with("http_req_duration", 6.0, 1.21), failed);
        // They keep it.
        assert_eq!(with("http_req_duration", 5.0, 1.1), failed);
        // It is no bound of the latency of answers.
        assert_eq!(with("http_req_durations", 6.0, 1.1), failed);
        assert_eq!(with("unexpected_answers", 6.0, 1.1), failed);
        // They did not answer.
        let failing = outcome(|c| {
            c.thresholds.push(threshold("http_req_duration", true, true));
            let mut bare = baseline(6.0, 1.1);
            bare.totals.failed_share = 0.02;
            c.baseline = Some(bare);
        });
        assert_eq!(failing, failed);
    }

    #[test]
    fn a_run_in_which_all_is_well_passes() {
        assert_eq!(outcome(|_| {}), (Outcome::Pass, vec![]));
    }

    #[test]
    fn whatever_is_missing_is_no_pass() {
        let missing = (Outcome::Fail, vec![FindingCode::MetricMissing]);
        assert_eq!(outcome(|c| c.totals = None), missing);
        assert_eq!(outcome(|c| c.totals.as_mut().unwrap().duration.p95 = None), missing);
        assert_eq!(outcome(|c| c.totals.as_mut().unwrap().duration.p99 = None), missing);
        assert_eq!(outcome(|c| c.server.cpu_seconds = None), missing);
        assert_eq!(outcome(|c| c.server.counters.clear()), missing);
        assert_eq!(outcome(|c| c.generator.saturated_share = None), missing);
        assert_eq!(outcome(|c| c.generator.dropped_iterations = None), missing);
        assert_eq!(outcome(|c| c.thresholds.push(threshold("checks", false, false))), missing);
        assert_eq!(outcome(|c| c.seconds = 0).0, Outcome::Fail);
        assert_eq!(
            outcome(|c| c.audit = Err("gone".into())),
            (Outcome::Fail, vec![FindingCode::AuditMissing])
        );
        assert_eq!(
            outcome(|c| c.server.exit_code = None),
            (Outcome::Fail, vec![FindingCode::ServiceDied])
        );
        assert_eq!(
            outcome(|c| c.generator.exit_code = None),
            (Outcome::Fail, vec![FindingCode::GeneratorFailed])
        );
    }

    #[test]
    fn whatever_went_wrong_is_said() {
        use FindingCode as F;
        assert_eq!(
            outcome(|c| c.thresholds.push(threshold("x", true, true))),
            (Outcome::Fail, vec![F::ThresholdCrossed])
        );
        assert_eq!(
            outcome(|c| c.audit = Ok(Audit { clean: false, output: "I1".into() })),
            (Outcome::Fail, vec![F::AuditViolations])
        );
        assert_eq!(
            outcome(|c| c.totals.as_mut().unwrap().failed_share = 0.01),
            (Outcome::Fail, vec![F::RequestsFailed])
        );
        assert_eq!(
            outcome(|c| c.totals.as_mut().unwrap().checks_failed = 1),
            (Outcome::Fail, vec![F::ChecksFailed])
        );
        assert_eq!(
            outcome(|c| c.generator.exit_code = Some(107)),
            (Outcome::Fail, vec![F::GeneratorFailed])
        );
        assert_eq!(
            outcome(|c| c.generator.dropped_iterations = Some(1)),
            (Outcome::Fail, vec![F::DroppedIterations])
        );
        assert_eq!(
            outcome(|c| c.server.exit_code = Some(1)),
            (Outcome::Fail, vec![F::ServiceDied])
        );
        let (result, found) = outcome(|c| {
            c.died = Some("killed");
            c.server.exit_code = Some(-9);
            c.generator.exit_code = Some(105);
        });
        assert_eq!((result, found), (Outcome::Fail, vec![F::ServiceDied]));
    }

    #[test]
    fn some_things_are_only_to_be_minded() {
        use FindingCode as F;
        assert_eq!(
            outcome(|c| c.generator.saturated_share = Some(0.5)),
            (Outcome::Pass, vec![F::GeneratorSaturated])
        );
        assert_eq!(
            outcome(|c| c.machine.load_average_before = 2.0),
            (Outcome::Pass, vec![F::NoisyMachine])
        );
        // What the script allows is allowed.
        let (result, found) = outcome(|c| {
            c.totals.as_mut().unwrap().failed_share = 0.001;
            c.thresholds.push(threshold("http_req_failed{phase:main}", false, true));
        });
        assert_eq!((result, found), (Outcome::Pass, vec![F::RequestsFailed]));
        // A script of the user's own without thresholds, where seats were taken; and one where it broke.
        let refused = |kind: &'static str| {
            outcome(|c| {
                c.kind = TestKind::Custom;
                let totals = c.totals.as_mut().unwrap();
                (totals.failed_share, totals.checks_failed) = (0.1, 1);
                totals.errors = [(kind.to_owned(), 1)].into();
            })
            .0
        };
        assert_eq!(
            (refused("4xx"), refused("5xx"), refused("timeout")),
            (Outcome::Pass, Outcome::Fail, Outcome::Fail)
        );
        // A moment is too short for figures of each second, but not for all the others.
        let (result, found) = outcome(|c| {
            (c.elapsed, c.seconds) = (0.5, 0);
            c.generator.saturated_share = None;
        });
        assert_eq!((result, found), (Outcome::Pass, vec![F::MetricMissing; 3]));
        // Of somebody else's service much cannot be known, and it is still judged.
        let (result, found) = outcome(|c| {
            c.ours = false;
            c.server = ServerUse::default();
            c.audit = Err("no token".into());
            c.generator.saturated_share = Some(0.0);
        });
        assert_eq!((result, found), (Outcome::Pass, vec![F::AuditMissing]));
    }

    #[test]
    fn what_was_stopped_is_incomplete_whatever_else_it_is() {
        let (result, found) = outcome(|c| {
            c.interrupted = true;
            c.totals = None;
            c.generator.exit_code = Some(105);
        });
        assert_eq!(result, Outcome::Incomplete);
        assert_eq!(found[0], FindingCode::Interrupted);
    }

    #[test]
    fn a_limit_must_be_confirmed_from_both_sides() {
        let with = |low: Option<bool>, high: Option<bool>| {
            outcome(|c| {
                c.kind = TestKind::Breakpoint;
                // The ramp ends by crossing them, and that is no failure of it.
                c.thresholds.push(threshold("x", true, true));
                c.generator.exit_code = Some(THRESHOLDS_CROSSED);
                c.generator.dropped_iterations = Some(99);
                let one = |share: f64, held: Option<bool>| {
                    held.map(|held| Confirmation {
                        share,
                        per_second: 1.0,
                        held,
                        failed_share: 0.0,
                        dropped_iterations: 0,
                        p95_ms: None,
                    })
                };
                c.breakpoint = Some(Breakpoint {
                    knee_per_second: Some(9.0),
                    knee_at: Some(1.0),
                    saturated: Resource::ServerCpu,
                    evidence: vec![],
                    confirmations: [one(0.8, low), one(1.2, high)].into_iter().flatten().collect(),
                });
            })
            .0
        };
        assert_eq!(with(Some(true), Some(false)), Outcome::Pass);
        assert_eq!(with(Some(false), Some(false)), Outcome::Fail);
        assert_eq!(with(Some(true), Some(true)), Outcome::Fail);
        assert_eq!(with(Some(true), None), Outcome::Fail);
        assert_eq!(with(None, None), Outcome::Fail);
        let without = |saturated: Resource| {
            outcome(|c| {
                c.kind = TestKind::Breakpoint;
                c.breakpoint = Some(Breakpoint {
                    knee_per_second: None,
                    knee_at: None,
                    saturated,
                    evidence: vec!["held".to_owned()],
                    confirmations: vec![],
                });
            })
        };
        assert_eq!(without(Resource::None), (Outcome::Pass, vec![FindingCode::LimitNotConfirmed]));
        assert_eq!(
            without(Resource::Unknown),
            (Outcome::Fail, vec![FindingCode::LimitNotConfirmed])
        );
    }
}
