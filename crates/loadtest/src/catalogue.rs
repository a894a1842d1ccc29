//! The tests that exist: what each is for, how it is run, and what the original report has for it.

use crate::model::TestKind;

/// A test of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) kind: TestKind,
    /// In the repository.
    pub(crate) script: &'static str,
    /// Variables that the script gets besides its own defaults.
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// And those of a short run, which only shows that all of it works.
    pub(crate) quick: &'static [(&'static str, &'static str)],
    /// Activated tokens that it needs, as `TOKEN_FORMAT` has them.
    pub(crate) tokens: u32,
    pub(crate) quick_tokens: u32,
    /// Whether static answers can stand in for the service: it only joins and polls.
    pub(crate) baseline: bool,
    /// Whether the script sets its own stage with the admin API.
    pub(crate) admin: bool,
    /// Whether `all` runs it with every number of CPUs.
    pub(crate) every_condition: bool,
    /// What it answers.
    pub(crate) purpose_en: &'static str,
    pub(crate) purpose_ko: &'static str,
    pub(crate) original: &'static [Original],
}

/// A run of the report that this project starts from. Milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Original {
    /// CPUs of its container; `None` where it does not say.
    pub(crate) cpus: Option<u32>,
    pub(crate) requests: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) failed_share: f64,
    pub(crate) avg: f64,
    pub(crate) med: f64,
    pub(crate) p90: f64,
    pub(crate) p95: f64,
    pub(crate) max: f64,
}

/// In the order in which `all` runs them.
pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "scenario1",
        kind: TestKind::Scenario,
        script: "load/k6/scenario1.js",
        env: &[],
        quick: &[("VUS", "500"), ("DURATION", "15s"), ("P95_MS", "2000")],
        tokens: 0,
        quick_tokens: 0,
        baseline: true,
        admin: false,
        every_condition: true,
        purpose_en: "A constant crowd of 10,000 joins at the same moment and polls every 3 s: does the queue stand a \
                     rush, and what do those in it notice?",
        purpose_ko: "10,000명이 동시에 대기열에 들어와 3초마다 순번을 확인합니다. 한꺼번에 몰려도 대기열이 버티는지, \
                     기다리는 사람은 무엇을 느끼는지 봅니다.",
        original: &[
            Original {
                cpus: Some(1),
                requests: 415_136,
                requests_per_second: 2_767.0,
                failed_share: 0.0509,
                avg: 658.73,
                med: 3.75,
                p90: 192.67,
                p95: 10_000.0,
                max: 60_000.0,
            },
            Original {
                cpus: Some(3),
                requests: 416_597,
                requests_per_second: 2_776.0,
                failed_share: 0.05,
                avg: 624.44,
                med: 2.16,
                p90: 75.8,
                p95: 8_170.0,
                max: 60_000.0,
            },
        ],
    },
    Test {
        name: "scenario2",
        kind: TestKind::Scenario,
        script: "load/k6/scenario2.js",
        env: &[],
        quick: &[("VUS", "200"), ("DURATION", "10s"), ("P95_MS", "2000")],
        tokens: 0,
        quick_tokens: 0,
        baseline: true,
        admin: false,
        every_condition: true,
        purpose_en: "25 to 1,000 users do nothing but join, as fast as they are answered: how many joins can be taken?",
        purpose_ko: "25명에서 1,000명까지 늘어나는 사용자가 쉬지 않고 대기열 진입만 요청합니다. 진입을 얼마나 받아 낼 수 \
                     있는지 봅니다.",
        original: &[Original {
            cpus: None,
            requests: 204_048,
            requests_per_second: 2_256.0,
            failed_share: 0.0,
            avg: 256.67,
            med: 256.21,
            p90: 426.3,
            p95: 455.42,
            max: 786.73,
        }],
    },
    Test {
        name: "scenario3",
        kind: TestKind::Scenario,
        script: "load/k6/scenario3.js",
        env: &[],
        quick: &[("VUS", "200"), ("DURATION", "15s"), ("P95_MS", "500")],
        tokens: 0,
        quick_tokens: 0,
        baseline: true,
        admin: false,
        every_condition: true,
        purpose_en: "1 to 1,000 users join and poll every 3 s: what does a fan notice at an ordinary, growing load?",
        purpose_ko: "1명에서 1,000명까지 늘어나는 사용자가 대기열에 들어와 3초마다 순번을 확인합니다. 평소처럼 서서히 \
                     늘어나는 부하에서 사용자가 느끼는 응답을 봅니다.",
        original: &[Original {
            cpus: None,
            requests: 20_408,
            requests_per_second: 227.0,
            failed_share: 0.0,
            avg: 3.19,
            med: 2.53,
            p90: 5.77,
            p95: 8.0,
            max: 63.66,
        }],
    },
    Test {
        name: "scenario4",
        kind: TestKind::Scenario,
        script: "load/k6/scenario4.js",
        env: &[],
        quick: &[("VUS", "100"), ("THINK", "0.3"), ("P95_MS", "2000")],
        tokens: 300,
        quick_tokens: 100,
        baseline: true,
        admin: false,
        every_condition: true,
        purpose_en: "300 buyers who were let in look for seats, reserve and pay, once each: does buying stay quick when \
                     many want the same seats?",
        purpose_ko: "입장한 300명이 좌석을 찾고 예약하고 결제하기까지 한 번씩 진행합니다. 같은 좌석을 여럿이 원할 때도 \
                     구매가 빠른지 봅니다.",
        original: &[Original {
            cpus: None,
            requests: 1_200,
            requests_per_second: 144.0,
            failed_share: 0.0691,
            avg: 225.5,
            med: 120.05,
            p90: 694.22,
            p95: 837.54,
            max: 1_000.0,
        }],
    },
    Test {
        name: "load",
        kind: TestKind::Load,
        script: "load/k6/load.js",
        env: &[("WORKLOAD", "mix")],
        quick: &[
            ("WORKLOAD", "mix"),
            ("RATE", "20"),
            ("DURATION", "10s"),
            ("WARMUP", "3s"),
            ("P95_MS", "2000"),
        ],
        tokens: 0,
        quick_tokens: 0,
        baseline: false,
        admin: true,
        every_condition: false,
        purpose_en: "Holds a load that should be no trouble: are the targets met for as long as it lasts?",
        purpose_ko: "무리 없어야 할 부하를 일정하게 유지합니다. 내내 목표를 지키는지 봅니다.",
        original: &[],
    },
    Test {
        name: "stress",
        kind: TestKind::Stress,
        script: "load/k6/stress.js",
        env: &[("WORKLOAD", "mix")],
        quick: &[
            ("WORKLOAD", "mix"),
            ("RATE", "20"),
            ("STRESS_RATE", "100"),
            ("RAMP", "2s"),
            ("DURATION", "5s"),
            ("SETTLE", "3s"),
            ("RECOVERY", "5s"),
            ("WARMUP", "3s"),
            ("P95_MS", "2000"),
        ],
        tokens: 0,
        quick_tokens: 0,
        baseline: false,
        admin: true,
        every_condition: false,
        purpose_en: "Goes far beyond the usual load and back: does it fail in good order, and is it well again after?",
        purpose_ko: "평소 부하를 훨씬 넘겼다가 되돌립니다. 무너지더라도 질서 있게 거절하는지, 그 뒤에 회복하는지 봅니다.",
        original: &[],
    },
    Test {
        name: "breakpoint",
        kind: TestKind::Breakpoint,
        script: "load/k6/breakpoint.js",
        env: &[("WORKLOAD", "mix")],
        quick: &[
            ("WORKLOAD", "mix"),
            ("START_RATE", "50"),
            ("MAX_RATE", "1000"),
            ("STEPS", "8"),
            ("DURATION", "32s"),
            ("WARMUP", "3s"),
        ],
        tokens: 0,
        quick_tokens: 0,
        baseline: false,
        admin: true,
        every_condition: false,
        purpose_en: "Rises step by step until it gives: where is the limit, what sets it, and how many may safely be let \
                     in per second?",
        purpose_ko: "한계가 드러날 때까지 단계적으로 부하를 올립니다. 한계가 어디인지, 무엇이 그 한계를 만드는지, 초당 몇 \
                     명까지 안전하게 입장시킬 수 있는지 봅니다.",
        original: &[],
    },
    Test {
        name: "spike",
        kind: TestKind::Spike,
        script: "load/k6/spike.js",
        env: &[("WORKLOAD", "mix")],
        quick: &[
            ("WORKLOAD", "mix"),
            ("FANS", "100"),
            ("DURATION", "8s"),
            ("RECOVERY", "5s"),
            ("WARMUP", "3s"),
            ("P95_MS", "3000"),
        ],
        tokens: 0,
        quick_tokens: 0,
        baseline: false,
        admin: true,
        every_condition: false,
        purpose_en: "Everybody within a second, out of nothing: what does the moment of opening cost, and how long does it \
                     last?",
        purpose_ko: "조용하다가 1초 안에 모두가 몰립니다. 예매가 열리는 순간의 충격이 얼마나 크고 얼마나 오래가는지 봅니다.",
        original: &[],
    },
];

pub(crate) fn find(name: &str) -> Option<&'static Test> {
    TESTS.iter().find(|test| test.name == name)
}
