//! Made-up runs for the tests of the report. No figure here was measured.

use std::collections::BTreeMap;

use crate::model::{
    Audit, Baseline, Breakpoint, Condition, Confirmation, FORMAT, Finding, FindingCode, Generator,
    Latency, Machine, Outcome, Resource, Run, SafeRate, Series, ServerUse, Service, TestKind,
    Totals, Verdict, names,
};

/// The same "noise" in each run of the tests, from 0 to 1.
fn noise(seed: u64) -> f64 {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x1234_5678_9ABC_DEF1);
    x ^= x >> 29;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^= x >> 32;
    (x >> 11) as f64 / (1u64 << 53) as f64
}

pub(super) fn latency(scale: f64) -> Latency {
    Latency {
        count: Some(120_345),
        min: Some(0.08 * scale),
        avg: Some(2.9 * scale),
        med: Some(1.2 * scale),
        p90: Some(5.1 * scale),
        p95: Some(9.7 * scale),
        p99: Some(31.0 * scale),
        p999: Some(88.0 * scale),
        max: Some(212.0 * scale),
    }
}

fn totals() -> Totals {
    Totals {
        requests: 415_000,
        requests_per_second: 3458.3,
        failed_share: 0.0,
        checks: 415_000,
        checks_failed: 0,
        iterations: 12_345,
        duration: latency(1.0),
        waiting: Some(latency(0.9)),
        connecting: Some(Latency {
            count: Some(120_345),
            min: Some(0.0),
            avg: Some(0.02),
            med: Some(0.0),
            p90: Some(0.0),
            p95: Some(0.0),
            p99: Some(0.4),
            p999: Some(21.0),
            max: Some(44.0),
        }),
        counters: BTreeMap::from([
            ("rejected_seat_taken".to_string(), 312),
            ("rejected_not_enough_points".to_string(), 0),
            ("reservations_made".to_string(), 288),
        ]),
        errors: BTreeMap::new(),
    }
}

/// All series for `seconds`, with `rate` requests in a second.
fn series(seconds: usize, rate: f64) -> Series {
    let mut values: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
    let mut add = |name: &str, seed: u64, of: &dyn Fn(f64, f64) -> f64| {
        let list =
            (0..seconds).map(|s| Some(of(s as f64, noise(seed * 100_000 + s as u64)))).collect();
        values.insert(name.to_string(), list);
    };
    add(names::VUS, 1, &|_, _| 10_000.0);
    // In step every three seconds, as polls are.
    add(names::REQUESTS_PER_SECOND, 2, &|s, n| rate * if s < 2.0 { 2.4 } else { 0.9 + 0.2 * n });
    add(names::ITERATIONS_PER_SECOND, 3, &|_, n| rate / 30.0 * (0.8 + 0.4 * n));
    add(names::DROPPED_PER_SECOND, 3, &|_, _| 0.0);
    add(names::FAILED_SHARE, 4, &|_, _| 0.0);
    let rush = |s: f64| 1.0 + 60.0 * (-s / 3.0).exp();
    add(names::DURATION_AVG, 5, &move |s, n| 2.0 * rush(s) * (0.8 + n));
    add(names::DURATION_P50, 6, &move |s, n| 1.1 * rush(s) * (0.9 + 0.3 * n));
    add(names::DURATION_P90, 7, &move |s, n| 4.5 * rush(s) * (0.8 + 0.6 * n));
    add(names::DURATION_P95, 7, &move |s, n| 8.0 * rush(s) * (0.8 + 0.6 * n));
    add(names::DURATION_P99, 8, &move |s, n| 22.0 * rush(s) * (0.8 + 0.9 * n));
    add(names::DURATION_MAX, 9, &move |s, n| 60.0 * rush(s) * (0.8 + 2.0 * n));
    add(names::WAITING_AVG, 5, &move |s, n| 1.8 * rush(s) * (0.8 + n));
    add(names::WAITING_P95, 7, &move |s, n| 7.5 * rush(s) * (0.8 + 0.6 * n));
    add(names::CONNECTING_AVG, 10, &|s, n| if s < 3.0 { 12.0 * (1.0 + n) } else { 0.0 });
    add(names::CONNECTING_P95, 10, &|s, n| if s < 3.0 { 40.0 * (1.0 + n) } else { 0.0 });
    add(names::SERVER_CPUS, 11, &|s, n| if s < 3.0 { 0.99 } else { 0.42 + 0.1 * n });
    add(names::GENERATOR_CPUS, 12, &|s, n| if s < 3.0 { 0.97 } else { 0.7 + 0.2 * n });
    add(names::MACHINE_CPUS, 13, &|s, n| if s < 3.0 { 1.99 } else { 1.3 + 0.2 * n });
    add(names::SERVER_RSS, 14, &|s, n| {
        (60.0 + 150.0 * (1.0 - (-s / 20.0).exp()) + n) * 1_048_576.0
    });
    add(names::QUEUE_WAITING, 15, &|s, n| (10_000.0 - s * 80.0 + 20.0 * n).max(0.0));
    add(names::QUEUE_ACTIVE, 16, &|s, n| (s * 80.0 + 20.0 * n).min(3000.0));
    add(names::JOINED_PER_SECOND, 17, &|s, n| if s < 2.0 { 5000.0 } else { 80.0 + 9.0 * n });
    add(names::ADMITTED_PER_SECOND, 18, &|s, n| if s < 1.0 { 0.0 } else { 80.0 + 4.0 * n });
    add(names::RESERVED_PER_SECOND, 19, &|s, n| if s < 5.0 { 0.0 } else { 31.0 + 8.0 * n });
    add(names::PAID_PER_SECOND, 20, &|s, n| if s < 7.0 { 0.0 } else { 28.0 + 8.0 * n });
    add(names::SHED_PER_SECOND, 21, &|_, _| 0.0);
    add(names::COMMIT_MS, 22, &|_, n| 0.8 + 1.5 * n);
    add(names::STORE_PENDING, 23, &|s, n| if s < 3.0 { 200.0 * n } else { 3.0 * n });
    Series { at: (0..seconds).map(|s| s as f64).collect(), warm_up_seconds: 0.0, values }
}

/// A scenario that passed, with two minutes of series.
pub(super) fn passed() -> Run {
    Run {
        format: FORMAT,
        test: "scenario1".into(),
        kind: TestKind::Scenario,
        script: "load/k6/scenario1.js".into(),
        arguments: Vec::new(),
        started_at: "2026-11-23T01:20:07.123Z".into(),
        elapsed_seconds: 121.4,
        machine: Machine {
            cpu: "Fixture CPU @ 2.80GHz".into(),
            cpus: 2,
            memory_bytes: 8 * 1_073_741_824,
            kernel: "Linux 6.1.0".into(),
            load_average_before: 0.21,
        },
        commit: Some("0123456789abcdef0123456789abcdef01234567-dirty".into()),
        condition: Condition {
            service: Service::Embedded,
            cpus: Some(1.0),
            settings: BTreeMap::from([("queue.admit_per_second".into(), "80".into())]),
            env: BTreeMap::from([("VUS".into(), "10000".into()), ("DURATION".into(), "2m".into())]),
        },
        verdict: Verdict {
            outcome: Outcome::Pass,
            findings: vec![Finding {
                fatal: false,
                code: FindingCode::GeneratorSaturated,
                detail: "in 3 of 121 seconds".into(),
            }],
        },
        generator: Generator {
            k6_version: "v1.1.0".into(),
            exit_code: Some(0),
            cpu_seconds: Some(97.2),
            peak_rss_bytes: Some(2_362_232_013),
            dropped_iterations: Some(0),
            vus_max: Some(10_000),
            saturated_share: Some(0.025),
        },
        totals: Some(totals()),
        by_request: BTreeMap::from([
            ("join".to_string(), latency(6.0)),
            ("poll".to_string(), latency(0.8)),
        ]),
        server: ServerUse {
            cpu_seconds: Some(55.1),
            cpu_micros_per_request: Some(132.7),
            peak_rss_bytes: Some(220_200_960),
            exit_code: Some(0),
            counters: BTreeMap::from([(
                "boxoffice_queue_joins_total{queue=\"main\"}".to_string(),
                12_345.0,
            )]),
        },
        series: series(121, 3400.0),
        baseline: Some(Baseline {
            totals: Totals { duration: latency(0.6), requests_per_second: 3466.0, ..totals() },
            server_cpu_seconds: Some(21.0),
            p95_ratio: Some(1.67),
        }),
        audit: Some(Audit { clean: true, output: "8 invariants hold\nnothing to report".into() }),
        breakpoint: None,
        safe_rate: None,
    }
}

/// The same on two CPUs.
pub(super) fn two_cpus() -> Run {
    let mut run = passed();
    run.condition.cpus = Some(2.0);
    run.started_at = "2026-11-23T01:25:00Z".into();
    run.totals = Some(Totals { duration: latency(0.7), requests_per_second: 3481.0, ..totals() });
    run.series = series(119, 3500.0);
    run
}

/// The same on three instances.
pub(super) fn cluster() -> Run {
    let mut run = passed();
    run.condition.service = Service::Cluster { instances: 3 };
    run.started_at = "2026-11-23T01:31:00Z".into();
    run.totals = Some(Totals { duration: latency(3.4), requests_per_second: 2950.0, ..totals() });
    run.server.cpu_micros_per_request = Some(410.0);
    run.series = series(121, 2900.0);
    let engines = (0..121).map(|s| Some(0.3 + 0.2 * noise(s))).collect();
    run.series.values.insert(names::ENGINE_CPUS.to_string(), engines);
    run.baseline = None;
    run
}

/// The service died in the middle: failures, holes, and figures that nobody has.
pub(super) fn failed() -> Run {
    let mut run = passed();
    run.test = "scenario4".into();
    run.script = "load/k6/scenario4.js".into();
    run.commit = None;
    run.verdict = Verdict {
        outcome: Outcome::Fail,
        findings: vec![
            Finding {
                fatal: true,
                code: FindingCode::ServiceDied,
                detail: "exit code 101 after 61 s".into(),
            },
            Finding {
                fatal: true,
                code: FindingCode::ThresholdCrossed,
                detail: "http_req_duration p(95)<837: 10000 ms".into(),
            },
            Finding { fatal: true, code: FindingCode::AuditMissing, detail: String::new() },
        ],
    };
    run.generator.exit_code = Some(99);
    run.generator.saturated_share = None;
    run.generator.dropped_iterations = None;
    run.server = ServerUse { exit_code: Some(101), ..ServerUse::default() };
    run.audit = None;
    run.baseline = None;
    if let Some(totals) = &mut run.totals {
        totals.failed_share = 0.483;
        totals.checks_failed = 200_412;
        totals.errors = BTreeMap::from([
            ("connection refused".to_string(), 180_004),
            ("503".to_string(), 20_408),
        ]);
        totals.duration.p999 = None;
        totals.waiting = None;
    }
    run.by_request.insert("pay".to_string(), Latency { count: Some(0), ..Latency::default() });
    for (name, values) in &mut run.series.values {
        if name == names::FAILED_SHARE {
            for value in &mut values[61..] {
                *value = Some(1.0);
            }
        } else if !name.contains("vus") && !name.contains("requests") && !name.contains("cpus") {
            for value in &mut values[61..] {
                *value = None;
            }
        }
        // One hole of five seconds, with a single value in it.
        if name.starts_with("duration") {
            for i in [30, 31, 33, 34] {
                values[i] = None;
            }
        }
    }
    run.series.values.remove(names::SERVER_RSS);
    run.series.values.remove(names::QUEUE_ACTIVE);
    run
}

/// Stopped by Ctrl-C before k6 could say anything.
pub(super) fn interrupted() -> Run {
    let mut run = passed();
    run.verdict = Verdict {
        outcome: Outcome::Incomplete,
        findings: vec![Finding {
            fatal: true,
            code: FindingCode::Interrupted,
            detail: "after 17 s".into(),
        }],
    };
    run.elapsed_seconds = 17.0;
    run.totals = None;
    run.by_request = BTreeMap::new();
    run.generator.exit_code = None;
    run.series = series(17, 3400.0);
    run.audit = None;
    run.baseline = None;
    run
}

/// A breakpoint test that found a limit.
pub(super) fn knee() -> Run {
    let mut run = passed();
    run.test = "breakpoint".into();
    run.kind = TestKind::Breakpoint;
    run.script = "load/k6/breakpoint.js".into();
    run.condition.settings = BTreeMap::new();
    run.condition.env = BTreeMap::from([("WORKLOAD".into(), "mix".into())]);
    run.baseline = None;
    let seconds = 240usize;
    let mut all = series(seconds, 400.0);
    all.warm_up_seconds = 20.0;
    let limit = 640.0;
    let mut set = |name: &str, seed: u64, of: &dyn Fn(f64, f64) -> f64| {
        let list = (0..seconds)
            .map(|s| {
                let asked = 1000.0 * (s as f64 / seconds as f64);
                Some(of(asked, noise(seed * 100_000 + s as u64)))
            })
            .collect();
        all.values.insert(name.to_string(), list);
    };
    set(names::ITERATIONS_PER_SECOND, 1, &|asked, n| asked.min(limit * (0.97 + 0.05 * n)));
    set(names::DROPPED_PER_SECOND, 2, &|asked, _| (asked - limit).max(0.0));
    set(names::REQUESTS_PER_SECOND, 3, &|asked, n| asked.min(limit) * 4.5 * (0.97 + 0.05 * n));
    set(names::VUS, 3, &|asked, _| 100.0 + asked.min(limit) + (asked - limit).max(0.0) * 4.0);
    let over = |asked: f64| (1.0 / (1.0 - (asked / limit).min(0.995))).min(400.0);
    set(names::DURATION_P50, 4, &move |asked, n| 1.1 * over(asked) * (0.8 + 0.4 * n));
    set(names::DURATION_P95, 5, &move |asked, n| 4.0 * over(asked) * (0.8 + 0.4 * n));
    set(names::DURATION_P99, 6, &move |asked, n| 9.0 * over(asked) * (0.8 + 0.4 * n));
    set(names::DURATION_MAX, 7, &move |asked, n| 20.0 * over(asked) * (0.8 + n));
    set(names::SERVER_CPUS, 8, &|asked, n| (asked / limit).min(1.0) * (0.96 + 0.04 * n));
    set(names::GENERATOR_CPUS, 9, &|asked, n| (asked / limit).min(1.2) * 0.55 * (0.9 + 0.2 * n));
    set(names::MACHINE_CPUS, 10, &|asked, _| {
        (asked / limit).min(1.0) + (asked / limit).min(1.2) * 0.55
    });
    set(names::SHED_PER_SECOND, 11, &|asked, _| (asked - limit).max(0.0) / 4.0);
    run.series = all;
    run.elapsed_seconds = seconds as f64;
    run.breakpoint = Some(Breakpoint {
        knee_per_second: Some(640.0),
        knee_at: Some(153.6),
        saturated: Resource::ServerCpu,
        evidence: vec![
            "the service used 0.98 of 1 CPU in the 10 s before".into(),
            "a commit took 1.5 ms, as at the start".into(),
            "k6 used 0.55 CPUs of the one that was left to it".into(),
        ],
        confirmations: vec![
            Confirmation {
                share: 0.8,
                per_second: 512.0,
                held: true,
                failed_share: 0.0,
                dropped_iterations: 0,
                p95_ms: Some(18.2),
            },
            Confirmation {
                share: 1.2,
                per_second: 768.0,
                held: false,
                failed_share: 0.021,
                dropped_iterations: 1840,
                p95_ms: Some(1730.0),
            },
        ],
    });
    // 0.7 − 10,000 ÷ 3 × 60 µs − 100 × 160 µs = 0.484; ÷ 1,100 µs = 440; the limit says 640 × 0.7 = 448.
    run.safe_rate = Some(SafeRate {
        per_second: 440.0,
        cpus: 1.0,
        headroom: 0.7,
        poll_micros: 60.0,
        join_micros: 160.0,
        buyer_micros: 1100.0,
        waiting: 10_000.0,
        poll_every_seconds: 3.0,
        joins_per_second: 100.0,
        knee_limit_per_second: Some(448.0),
    });
    run
}

/// Nothing was measured, and every name is hostile.
pub(super) fn empty() -> Run {
    let evil = "</script></style></title><img src=x onerror=alert(1)>\"'&`|*_[x](javascript:alert(1))\u{202e}\u{0}\n# x";
    Run {
        format: FORMAT,
        test: evil.into(),
        kind: TestKind::Custom,
        script: format!("/tmp/{evil}.js"),
        arguments: Vec::new(),
        started_at: evil.into(),
        elapsed_seconds: f64::NAN,
        machine: Machine {
            cpu: evil.into(),
            cpus: 0,
            memory_bytes: 0,
            kernel: evil.into(),
            load_average_before: f64::INFINITY,
        },
        commit: Some(evil.into()),
        condition: Condition {
            service: Service::Url { url: format!("http://{evil}") },
            cpus: None,
            settings: BTreeMap::from([(evil.into(), evil.into())]),
            env: BTreeMap::from([(evil.into(), evil.into())]),
        },
        verdict: Verdict {
            outcome: Outcome::Fail,
            findings: vec![Finding {
                fatal: true,
                code: FindingCode::MetricMissing,
                detail: evil.into(),
            }],
        },
        generator: Generator {
            k6_version: evil.into(),
            exit_code: None,
            cpu_seconds: None,
            peak_rss_bytes: None,
            dropped_iterations: None,
            vus_max: None,
            saturated_share: None,
        },
        totals: None,
        by_request: BTreeMap::from([(evil.to_string(), Latency::default())]),
        server: ServerUse {
            counters: BTreeMap::from([(evil.to_string(), f64::NAN)]),
            ..ServerUse::default()
        },
        series: Series::default(),
        baseline: None,
        audit: Some(Audit { clean: false, output: format!("```\n{evil}\n~~~") }),
        breakpoint: Some(Breakpoint {
            knee_per_second: Some(f64::NAN),
            knee_at: Some(f64::NAN),
            saturated: Resource::Unknown,
            evidence: vec![evil.into()],
            confirmations: Vec::new(),
        }),
        safe_rate: Some(SafeRate {
            per_second: f64::NAN,
            cpus: 0.0,
            headroom: 0.0,
            poll_micros: 0.0,
            join_micros: 0.0,
            buyer_micros: 0.0,
            waiting: 0.0,
            poll_every_seconds: 0.0,
            joins_per_second: 0.0,
            knee_limit_per_second: None,
        }),
    }
}

pub(super) fn all() -> Vec<(&'static str, Run)> {
    vec![
        ("passed", passed()),
        ("two-cpus", two_cpus()),
        ("cluster", cluster()),
        ("failed", failed()),
        ("interrupted", interrupted()),
        ("knee", knee()),
        ("empty", empty()),
    ]
}
