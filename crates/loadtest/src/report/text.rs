//! All texts of a report, in English and Korean, side by side so that none is forgotten.

use std::collections::BTreeMap;

use super::Lang;
use crate::model::{Condition, FindingCode, Outcome, Resource, Service, TestKind, names};
use boxoffice_report::number::{self, count, millis, plain, share, span};

macro_rules! texts {
    ($($name:ident: $en:literal, $ko:literal;)*) => {
        /// What does not depend on figures.
        pub(super) struct Text { $(pub(super) $name: &'static str,)* }
        const EN: Text = Text { $($name: $en,)* };
        const KO: Text = Text { $($name: $ko,)* };
    };
}

pub(super) fn of(lang: Lang) -> &'static Text {
    match lang {
        Lang::En => &EN,
        Lang::Ko => &KO,
    }
}

texts! {
    report: "Performance report", "성능 테스트 보고서";
    // Sections.
    verdict: "Verdict", "판정";
    to_mind: "What to mind when reading the figures", "수치를 읽을 때 유의할 점";
    no_findings: "Nothing was found against it.", "문제가 될 만한 점은 발견되지 않았습니다.";
    no_reason: "The run kept no reason for its verdict.", "판정 이유가 기록되어 있지 않습니다.";
    figures: "Figures", "측정 결과";
    over_time: "Over time", "시간에 따른 변화";
    errors: "Errors and intended rejections", "오류와 의도된 거절";
    resources: "What the service and k6 used", "서비스와 k6의 자원 사용량";
    conditions: "Conditions side by side", "조건별 비교";
    original: "Beside the original report", "원본 보고서와의 비교";
    limit: "Where it gives", "한계 지점";
    safe_rate: "The safe admission rate", "안전한 입장 속도";
    baseline: "Compared with static answers", "고정 응답과의 비교";
    audit: "Audit of the books", "데이터 정합성 감사";
    the_run: "The run, and how to repeat it", "실행 환경과 재현 방법";
    // Tiles and rows.
    requests: "Requests", "요청 수";
    tps: "Requests per second (TPS)", "초당 요청 수(TPS)";
    rate_short: "Requests/s", "초당 요청";
    error_rate: "Error rate", "오류율";
    checks_failed: "Failed checks", "실패한 검사";
    iterations: "Iterations", "반복 수";
    median: "Median (p50)", "중앙값(p50)";
    average: "Average", "평균";
    lowest: "Lowest", "최소";
    highest: "Highest (max)", "최대(max)";
    service_cpu: "CPU of the service, mean", "서비스 CPU 평균";
    memory_peak: "Memory of the service, peak", "서비스 메모리 최대";
    knee_tile: "Limit found, iterations per second", "찾아낸 한계(초당 반복)";
    safe_tile: "Safe admissions per second", "초당 안전 입장 인원";
    figure: "Figure", "지표";
    latency: "Latency", "지연 시간";
    latency_note: "http_req_duration is from the first byte sent to the last byte received: sending, waiting (until the first byte of the answer) and receiving. http_req_connecting is the time to open a connection; k6 counts 0 where one is used again, so its middle is 0 while connections are kept open.",
        "http_req_duration은 요청의 첫 바이트를 보낸 때부터 응답의 마지막 바이트를 받을 때까지, 곧 전송, 대기(응답의 첫 바이트까지), 수신 시간의 합입니다. http_req_connecting은 연결을 맺는 데 걸린 시간입니다. 이미 열린 연결을 다시 쓰면 k6가 0으로 세므로, 연결이 유지되는 동안에는 중앙값이 0입니다.";
    by_request: "Each request of a user's way", "사용자 동선의 요청별 지연 시간";
    request: "Request", "요청";
    number: "Count", "건수";
    // Series.
    time: "Time", "시각";
    time_axis: "time since the start", "시작 후 경과 시간";
    warm_up: "shaded: warm-up, not counted in the totals", "음영: 준비 구간(집계에서 제외)";
    chart_rate: "Requests per second", "초당 요청 수";
    chart_iterations: "Iterations per second", "초당 반복 수";
    chart_vus: "Virtual users", "가상 사용자 수";
    chart_latency: "Latency of all requests", "전체 요청의 지연 시간";
    chart_failed: "Failed requests", "실패한 요청 비율";
    chart_cpu: "CPUs in use", "사용 중인 CPU 수";
    chart_memory: "Memory of the service", "서비스 메모리";
    chart_queue: "People in the queue", "대기열 인원";
    chart_joins: "People who join, per second", "초당 줄 서는 인원";
    chart_flow: "People let in and buying, per second", "초당 입장·구매 인원";
    chart_shed: "Requests sent away with 503, per second", "초당 503 거절";
    chart_commit: "Time of a commit of the store", "저장소 커밋 시간";
    chart_pending: "Commands that wait for the store", "저장소를 기다리는 명령 수";
    chart_duration: "http_req_duration", "http_req_duration";
    chart_waiting: "http_req_waiting", "http_req_waiting";
    chart_connecting: "http_req_connecting", "http_req_connecting";
    s_requests: "requests", "요청";
    s_iterations: "iterations", "반복";
    s_dropped: "dropped", "시작 못 함";
    s_vus: "users", "사용자";
    s_failed: "failed", "실패";
    s_average: "average", "평균";
    s_max: "max", "최대";
    s_service: "service", "서비스";
    s_generator: "k6", "k6";
    s_machine: "whole machine", "기기 전체";
    s_engines: "engines", "DB 등 엔진";
    s_memory: "in use", "사용량";
    s_waiting: "waiting", "대기";
    s_active: "let in", "입장";
    s_joined: "joined", "줄 섬";
    s_admitted: "let in", "입장";
    s_reserved: "reserved", "예약";
    s_paid: "paid", "결제";
    s_shed: "shed (503)", "503 거절";
    s_commit: "mean", "평균";
    s_pending: "waiting", "대기";
    cpu_limit: "may use", "사용 한도";
    stack_title: "Load, latency, resources and queue on one time axis", "하나의 시간축에서 본 부하·지연·자원·대기열";
    stack_hint: "All panels share the time axis. Point at the chart, or go through it with the arrow keys, to read the values of a moment. A gap means that nothing was measured there.",
        "모든 그래프가 같은 시간축을 씁니다. 그래프 위에 포인터를 올리거나 화살표 키를 누르면 그 시점의 값이 보입니다. 끊긴 곳은 측정값이 없는 구간입니다.";
    http_title: "http_req_duration, waiting and connecting over time", "http_req_duration·waiting·connecting의 변화";
    no_series: "Nothing was recorded over time.", "시간에 따른 기록이 없습니다.";
    series_missing: "Not measured in this run:", "이 실행에서 측정되지 않은 항목:";
    as_table: "The main figures in a dozen spans of time", "주요 수치를 시간 구간별 표로 보기";
    table_how: "Rates, CPU and shares are means of the span. Latencies are of its worst second. Memory and people are as at its end.",
        "속도, CPU, 비율은 구간 평균이고, 지연 시간은 구간에서 가장 나쁜 1초의 값이며, 메모리와 인원은 구간 끝의 값입니다.";
    memory: "Memory", "메모리";
    cpu: "CPU of the service", "서비스 CPU";
    waiting: "Waiting", "대기 인원";
    active: "Let in", "입장 인원";
    admitted: "Let in per second", "초당 입장";
    p95_worst: "p95 (worst second)", "p95(최악의 1초)";
    p99_worst: "p99 (worst second)", "p99(최악의 1초)";
    // Errors.
    error_kinds: "Errors by kind", "종류별 오류";
    kind: "Kind", "종류";
    of_requests: "Share of requests", "요청 대비 비율";
    no_errors: "No request failed.", "실패한 요청이 없습니다.";
    kinds_unknown: "Requests failed, but their kinds were not recorded.", "실패한 요청이 있으나 종류가 기록되지 않았습니다.";
    rejections: "Intended rejections", "의도된 거절";
    rejections_note: "These answers are what the rules demand, such as for a seat that another was faster to take. They are not errors.",
        "다른 사람이 먼저 잡은 좌석처럼, 규칙에 따라 거절해야 하는 응답입니다. 오류로 세지 않습니다.";
    no_rejections: "The script counted no intended rejection.", "스크립트가 센 의도된 거절이 없습니다.";
    other_counts: "What else the script counted", "스크립트가 센 그 밖의 항목";
    server_counts: "Counters of the service that changed, and by how much", "변화가 있었던 서비스 카운터와 변화량";
    // Use.
    service: "The service", "서비스";
    generator: "k6, the load generator", "부하 생성기 k6";
    cpu_seconds: "CPU time", "CPU 시간";
    cpu_per_request: "CPU per request", "요청당 CPU";
    exit_code: "Exit code", "종료 코드";
    dropped: "Iterations that it could not start (dropped_iterations)", "시작하지 못한 반복(dropped_iterations)";
    vus_max: "Most virtual users at once", "최대 동시 가상 사용자";
    saturated_share: "Seconds in which k6 or the machine was at its limit", "k6 또는 기기가 한계였던 시간의 비율";
    memory_peak_short: "Memory, peak", "메모리 최대";
    // Conditions.
    condition: "Condition", "조건";
    this_run: "this run", "이번 실행";
    same_axis: "The same test in each condition, on one time axis", "조건별 같은 테스트, 하나의 시간축";
    outcome: "Verdict", "판정";
    // Original.
    original_note: "The original ran a Spring Boot service with MySQL, Redis and Kafka, and k6, on a laptop. It is another machine, so read orders of magnitude, not decimals.",
        "원본은 노트북 한 대에서 Spring Boot 서비스와 MySQL, Redis, Kafka, k6를 함께 돌린 결과입니다. 기기가 다르므로 소수점이 아니라 자릿수 차이로 읽으십시오.";
    original_closed: "Both are closed models: users wait for an answer before they ask again, so a slow service gets fewer requests, and requests per second depend on the number of users first.",
        "둘 다 폐쇄형 부하입니다. 사용자가 응답을 받은 뒤에야 다음 요청을 보내므로 서비스가 느려지면 요청도 줄고, 초당 요청 수는 무엇보다 사용자 수에 좌우됩니다.";
    original_short: "original", "원본";
    ladder_title: "Latency: percentiles side by side", "백분위수별 지연 시간 비교";
    ladder_hint: "Lower is better. The original has no p99 and no p99.9.", "낮을수록 좋습니다. 원본에는 p99와 p99.9가 없습니다.";
    // Breakpoint.
    held_to_the_end: "It held to the end of the ramp: the limit is above what was asked for.", "부하를 끝까지 올려도 버텼습니다. 한계는 이번에 요청한 부하보다 높습니다.";
    saturated_what: "What gave first", "먼저 한계에 닿은 것";
    evidence: "The evidence", "근거";
    no_evidence: "No evidence was kept.", "근거가 기록되지 않았습니다.";
    confirmations: "Held around the limit", "한계 전후 확인";
    share_of_limit: "Share of the limit", "한계 대비";
    asked: "Asked for, per second", "초당 요청 부하";
    held: "Result", "결과";
    expected: "Expected", "예상";
    holds: "held", "버팀";
    gives: "gave way", "못 버팀";
    as_expected: "as expected", "예상대로";
    not_as_expected: "not as expected", "예상과 다름";
    not_confirmed: "The limit was not confirmed by holding 80 % and 120 % of it.", "한계의 80%와 120%를 유지해 보는 확인은 하지 않았습니다.";
    limit_title: "What happened as the rate rose", "부하를 올리는 동안 일어난 일";
    limit_hint: "Each point is the mean of the seconds in which so much was asked for. 80 % and 120 % mark what was held afterwards, ✓ where it held.",
        "각 점은 그만큼의 부하를 요청한 동안의 평균입니다. 80%와 120%는 나중에 유지해 본 부하이며, 버텼으면 ✓로 표시합니다.";
    asked_axis: "iterations asked for per second", "초당 요청한 반복 수";
    s_asked: "asked for", "요청";
    s_done: "done", "처리";
    knee: "knee", "한계";
    // Safe rate.
    no_safe_rate: "It was not worked out: the run does not say enough. It takes the CPU of a poll, of a join and of a purchase: run the breakpoint tests.",
        "계산하지 않았습니다. 이 실행만으로는 정보가 부족합니다. 조회·줄 서기·구매 각각의 CPU 비용이 필요하니 한계(breakpoint) 테스트를 실행하십시오.";
    safe_caution: "It holds for this machine, this build and this crowd. Measure again when one of them changes.",
        "이 기기, 이 빌드, 이 인원 규모에서만 유효합니다. 하나라도 바뀌면 다시 측정하십시오.";
    arithmetic: "The arithmetic", "계산 과정";
    // Baseline.
    no_baseline: "Not measured in this run. With --baseline the same script first runs against static answers on the same HTTP stack: what k6 and the stack cost by themselves.",
        "이 실행에서는 측정하지 않았습니다. --baseline을 주면 같은 HTTP 스택의 고정 응답을 상대로 같은 스크립트를 먼저 실행해, k6와 스택 자체의 비용을 잽니다.";
    baseline_note: "The same script against static answers on the same HTTP stack. What it takes there is the load generator's and the stack's; the rest is the service's doing.",
        "같은 HTTP 스택이 고정 응답을 내게 하고 같은 스크립트를 실행한 결과입니다. 여기서 걸린 시간은 k6와 스택의 몫이고, 나머지가 서비스의 몫입니다.";
    static_answers: "Static answers", "고정 응답";
    ratio: "Ratio", "배율";
    // Audit.
    audit_clean: "The audit found no violation of the invariants.", "감사 결과 불변 조건 위반이 없습니다.";
    audit_dirty: "The audit found violations of the invariants.", "감사 결과 불변 조건 위반이 있습니다.";
    audit_none: "The audit was not done, or its result could not be had. Whether the books are in order is not known.",
        "감사를 하지 못했거나 결과를 얻지 못했습니다. 데이터가 올바른지 알 수 없습니다.";
    audit_empty: "It printed nothing.", "출력된 내용이 없습니다.";
    // Run.
    test: "Test", "테스트";
    test_kind: "Kind", "종류";
    script: "Script", "스크립트";
    started_at: "Started at", "시작 시각";
    lasted: "k6 ran for", "k6 실행 시간";
    machine: "Machine", "기기";
    kernel: "Kernel", "커널";
    load_before: "Load average before the run", "실행 전 부하 평균(load average)";
    commit: "Commit", "커밋";
    no_commit: "not from a clone", "git 저장소가 아님";
    dirty: "The working tree had changes that are not in the commit.", "커밋되지 않은 변경이 있는 상태였습니다.";
    settings: "Settings beyond the defaults", "기본값과 다른 설정";
    variables: "Variables of the script", "스크립트 변수";
    none: "none", "없음";
    repeat: "To repeat it, in a clone of the repository at this commit:", "이 커밋의 저장소 복제본에서 다음을 실행하면 재현됩니다.";
    repeat_url: "The service was already running; its settings are not part of this report.", "이미 실행 중이던 서비스를 대상으로 했으므로, 서비스 설정은 이 보고서에 없습니다.";
    cpu_word: "CPU", "CPU";
    footer: "Whatever could not be measured is shown as “not measured”, never as zero.", "측정하지 못한 값은 0이 아니라 ‘측정되지 않음’으로 표시합니다.";
    // The document of all runs.
    doc_title: "Performance", "성능";
    doc_intro: "This page is made from load test runs by one command (below); do not edit it by hand. What is written by hand stands at its end and in a file of its own.",
        "이 문서는 부하 테스트 실행 결과에서 명령 하나로 만든 것이니 직접 고치지 마십시오. 사람이 쓴 분석은 별도 파일에 있으며 문서 끝에 실립니다.";
    doc_none: "There are no runs yet.", "아직 실행 결과가 없습니다.";
    doc_summary: "Summary", "요약";
    doc_what: "What was tested", "무엇을 테스트했나";
    doc_indicators: "Indicators", "지표";
    doc_kinds: "Kinds of test", "테스트 종류";
    doc_scenarios: "Scenarios", "시나리오";
    doc_machine: "Machine and conditions", "기기와 조건";
    doc_purpose: "Purpose", "목적";
    doc_conditions: "Conditions", "조건";
    doc_figures: "Figures", "결과";
    doc_short: "In short", "요약";
    doc_analysis: "What the figures say", "수치가 말하는 것";
    doc_again: "To make this page again:", "이 문서를 다시 만들려면:";
    meaning: "Meaning", "의미";
    i_tps: "Requests that were answered per second, by k6's count.", "k6가 센 초당 응답 완료 요청 수.";
    i_latency: "http_req_duration: from the first byte of the request to the last of the answer. The middle (p50), and what 90, 95, 99 and 99.9 of 100 stay below, and the worst.",
        "http_req_duration: 요청의 첫 바이트부터 응답의 마지막 바이트까지. 중앙값(p50), 요청 100건 중 90·95·99·99.9건이 그 안에 드는 값, 최댓값.";
    i_connecting: "http_req_connecting (opening a connection) and http_req_waiting (until the first byte of the answer), as parts of it.",
        "http_req_connecting(연결 수립)과 http_req_waiting(응답 첫 바이트까지).";
    i_errors: "Share of requests whose answer the script does not expect. A seat that is taken is expected, and is counted apart.",
        "스크립트가 예상하지 않은 응답의 비율. 이미 팔린 좌석 같은 예상된 거절은 따로 셉니다.";
    i_resources: "CPU and memory of the service and of k6, from the kernel's accounts, every second.", "커널 통계에서 1초마다 읽은 서비스와 k6의 CPU·메모리.";
    i_audit: "After each run the audit counts money, seats and places in the line.", "실행이 끝날 때마다 돈·좌석·순번이 맞는지 감사합니다.";
}

/// Name and purpose of a kind of test.
pub(super) fn kind(kind: TestKind, lang: Lang) -> (&'static str, &'static str) {
    let (en, ko) = match kind {
        TestKind::Scenario => (
            ("scenario", "one of the four scenarios of the original report"),
            ("시나리오", "원본 보고서의 네 시나리오 가운데 하나"),
        ),
        TestKind::Load => (
            ("load", "holds a target, to see whether it can be held"),
            ("부하(load)", "목표 부하를 유지할 수 있는지 확인"),
        ),
        TestKind::Stress => (
            (
                "stress",
                "goes beyond what can be held, and back, to see how it bends and whether it recovers",
            ),
            (
                "스트레스(stress)",
                "감당할 수 있는 수준을 넘겼다가 되돌려, 어떻게 버티고 회복하는지 확인",
            ),
        ),
        TestKind::Breakpoint => (
            ("breakpoint", "rises until it gives, to find the limit and what sets it"),
            ("한계(breakpoint)", "무너질 때까지 부하를 올려 한계와 그 원인을 찾음"),
        ),
        TestKind::Spike => (
            ("spike", "everybody at once, as when sales open"),
            ("스파이크(spike)", "예매 시작 순간처럼 한꺼번에 몰리는 상황"),
        ),
        TestKind::Custom => (
            ("own script", "a script of the user's own"),
            ("사용자 스크립트", "사용자가 직접 준 스크립트"),
        ),
    };
    pick(lang, en, ko)
}

fn pick<T>(lang: Lang, en: T, ko: T) -> T {
    match lang {
        Lang::En => en,
        Lang::Ko => ko,
    }
}

/// The verdict in a word, and a sign that needs no colour.
pub(super) fn outcome(outcome: Outcome, lang: Lang) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Pass => ("✓", pick(lang, "PASS", "통과")),
        Outcome::Fail => ("✗", pick(lang, "FAIL", "실패")),
        Outcome::Incomplete => ("◐", pick(lang, "INCOMPLETE", "미완료")),
    }
}

/// What a finding means to somebody who does not know the program.
pub(super) fn finding(code: FindingCode, lang: Lang) -> &'static str {
    let (en, ko) = match code {
        FindingCode::ThresholdCrossed => {
            ("A threshold of the script was crossed.", "스크립트에 정한 기준값을 넘었습니다.")
        }
        FindingCode::ThresholdBeyondGenerator => (
            "A bound of the script was crossed that static answers cross too, here; the service took hardly longer.",
            "스크립트의 기준값을 넘었지만 이 장비에서는 고정 응답도 넘는 값이며, 서비스는 고정 응답과 거의 같았습니다.",
        ),
        FindingCode::RequestsFailed => (
            "Requests failed that the script does not expect to fail.",
            "실패하지 않아야 할 요청이 실패했습니다.",
        ),
        FindingCode::ChecksFailed => (
            "Answers were not what the script checks for.",
            "응답이 스크립트의 검사 조건과 달랐습니다.",
        ),
        FindingCode::AuditViolations => (
            "The books are not in order: the audit found violations of the invariants.",
            "데이터가 어긋났습니다. 감사에서 불변 조건 위반이 나왔습니다.",
        ),
        FindingCode::AuditMissing => (
            "The audit could not be had, so nobody knows whether the books are in order.",
            "감사를 하지 못해 데이터가 올바른지 알 수 없습니다.",
        ),
        FindingCode::MetricMissing => (
            "A figure that the verdict needs is missing. A missing figure never counts as a pass.",
            "판정에 필요한 값이 없습니다. 없는 값은 통과로 치지 않습니다.",
        ),
        FindingCode::ServiceDied => (
            "The service ended, or could not be reached, during the run.",
            "실행 중에 서비스가 종료되었거나 연결되지 않았습니다.",
        ),
        FindingCode::GeneratorFailed => {
            ("k6 ended with an error of its own.", "k6 자체가 오류로 끝났습니다.")
        }
        FindingCode::GeneratorSaturated => (
            "k6 or the machine was at its limit, so the latencies are partly its own and not the service's.",
            "k6 또는 기기가 한계에 이르러, 지연 시간에 서비스가 아닌 부하 생성기의 몫이 섞여 있습니다.",
        ),
        FindingCode::DroppedIterations => (
            "k6 could not start all the iterations that were due: the load was less than asked for.",
            "k6가 예정된 반복을 모두 시작하지 못해, 실제 부하가 요청한 것보다 적었습니다.",
        ),
        FindingCode::Interrupted => (
            "It was stopped before its end. What was measured until then is below.",
            "끝나기 전에 중단되었습니다. 그때까지 측정한 값은 아래에 있습니다.",
        ),
        FindingCode::LimitNotConfirmed => (
            "The limit could not be confirmed: 80 % of it should hold, and 120 % should not.",
            "한계를 확인하지 못했습니다. 한계의 80%는 버티고 120%는 못 버텨야 합니다.",
        ),
        FindingCode::NoisyMachine => (
            "The machine was busy with other things, so the figures are worse than they could be.",
            "기기에서 다른 작업이 돌고 있어 수치가 실제보다 나쁘게 나왔을 수 있습니다.",
        ),
    };
    pick(lang, en, ko)
}

/// What the runner says in figures and a few words: evidence and details of findings. It says it in English;
/// for a report in Korean the commonest are known by their pattern. What is not known stays as it is, such as
/// the last words of k6 or of the service.
pub(super) fn said(text: &str, lang: Lang) -> String {
    match lang {
        Lang::En => text.to_string(),
        Lang::Ko => in_korean(text).unwrap_or_else(|| text.to_string()),
    }
}

/// English and Korean; `{}` stands for what is kept, which is itself put into Korean where it is known.
const PATTERNS: &[(&str, &str)] = &[
    // Evidence.
    ("at {} per second: {}", "초당 {}회에서 {}"),
    ("p95 {} ms, above {} ms", "p95 {}ms, 기준 {}ms 초과"),
    ("{} % failed, above {} %", "실패 {}%, 기준 {}% 초과"),
    ("only {} per second were done", "초당 {}회만 처리됨"),
    ("{} iterations could not be started", "반복 {}회를 시작하지 못함"),
    (
        "{} per second were done of {}; {} per second were done before",
        "초당 {1}회 중 {0}회를 처리, 그 앞 단계에서는 초당 {2}회를 처리",
    ),
    ("service: {} of its {} CPUs", "서비스: 쓸 수 있는 CPU {1}개 중 {0}개 사용"),
    ("k6: {} CPUs; the machine: {} of {}", "k6: CPU {0}개, 기기 전체: {2}개 중 {1}개 사용"),
    (
        "a commit took {} ms ({} ms in the warm-up); up to {} commands waited for the store",
        "커밋에 {}ms(준비 구간 {}ms), 저장소를 기다린 명령은 최대 {}개",
    ),
    (
        "a commit took {} ms; up to {} commands waited for the store",
        "커밋에 {}ms, 저장소를 기다린 명령은 최대 {}개",
    ),
    (
        "{} requests per second were refused by limits of concurrency",
        "동시 처리 제한으로 초당 {}건을 거절",
    ),
    ("it held to the end of the ramp, {} per second", "마지막 단계인 초당 {}회까지 버팀"),
    (
        "the ramp ended at {} per second and nothing says why",
        "초당 {}회에서 끝났으나 이유를 말해 주는 수치가 없음",
    ),
    ("nothing was measured in any step", "어느 단계에서도 측정된 값이 없음"),
    (
        "{} per second did not hold, so {} per second were tried next",
        "초당 {}회를 버티지 못해 한계를 초당 {}회로 낮춰 다시 시도",
    ),
    (
        "{} per second held, so {} per second were tried next",
        "초당 {}회를 버텨 한계를 초당 {}회로 높여 다시 시도",
    ),
    // Details of findings.
    ("stopped by a signal before its end", "끝나기 전에 신호를 받아 중단됨"),
    (
        "in {} % of the seconds k6 or the machine had no CPU left, so latencies are partly their own",
        "전체 시간의 {}% 동안 k6나 기기에 남은 CPU가 없었음",
    ),
    (
        "{} iterations were due and could not be started: there were not enough users free",
        "예정된 반복 {}회를 시작하지 못함: 비어 있는 사용자가 모자람",
    ),
    ("load average {} before the run, on {} CPUs", "실행 전 부하 평균 {0}, CPU {1}개"),
    ("{} % of {} requests", "요청 {1}건 중 {0}%"),
    ("{} % of {} requests; {}", "요청 {1}건 중 {0}%; {2}"),
    ("{} of {} checks", "검사 {1}건 중 {0}건"),
    ("{} % of the limit was not tried", "한계의 {}%는 시도하지 못함"),
    (
        "{} % of the limit ({} per second) did not hold: {} % failed, {} dropped, p95 {}",
        "한계의 {}%(초당 {}회)를 버티지 못함: 실패 {}%, 시작 못 한 반복 {}회, p95 {}",
    ),
    (
        "{} % of the limit ({} per second) held: {} % failed, {} dropped, p95 {}",
        "한계의 {}%(초당 {}회)를 버팀: 실패 {}%, 시작 못 한 반복 {}회, p95 {}",
    ),
    ("{}: nothing was measured that it could be held against", "{}: 견줄 측정값이 없음"),
    (
        "static answers took {} ms, and the service {} × that; {}",
        "고정 응답은 {} ms, 서비스는 그 {}배; {}",
    ),
    ("k6 measured no request", "k6가 측정한 요청이 없음"),
    ("the {} of the latency", "지연 시간의 {}"),
    ("median", "중앙값"),
    ("maximum", "최댓값"),
    ("95th percentile", "p95"),
    ("99th percentile", "p99"),
    ("dropped iterations", "시작하지 못한 반복 수"),
    (
        "the CPU of k6 and the machine: whether the generator was the limit is not known",
        "k6와 기기의 CPU: 부하 생성기가 한계였는지 알 수 없음",
    ),
    ("the figures of each second: k6 recorded none", "초별 수치: k6가 기록하지 않음"),
    ("the CPU time of the service", "서비스의 CPU 시간"),
    ("the service's own figures (/metrics)", "서비스 자체 지표(/metrics)"),
    ("it ended with code {} when it was asked to end", "종료를 요청하자 코드 {}로 끝남"),
    ("it did not say how it ended", "어떻게 끝났는지 알 수 없음"),
    (
        "the audit of a running service needs its admin token (--admin-token)",
        "실행 중인 서비스를 감사하려면 관리자 토큰이 필요함(--admin-token)",
    ),
];

fn in_korean(text: &str) -> Option<String> {
    if let Some(of_all) = text.strip_prefix("no limit was found: ") {
        let each: Vec<String> = of_all.split("; ").map(|one| said(one, Lang::Ko)).collect();
        return Some(format!("한계를 찾지 못함: {}", each.join("; ")));
    }
    PATTERNS.iter().find_map(|(english, korean)| {
        let kept = matched(english, text)?;
        let (mut out, mut rest) = (String::new(), *korean);
        for next in 0.. {
            let Some((before, after)) = rest.split_once('{') else { break };
            let (number, tail) = after.split_once('}')?;
            let index = if number.is_empty() { next } else { number.parse().ok()? };
            out.push_str(before);
            out.push_str(&said(kept.get(index)?, Lang::Ko));
            rest = tail;
        }
        out.push_str(rest);
        Some(out)
    })
}

/// What stands for each `{}` of a pattern. Only the last of them may hold more than a figure or a word.
fn matched<'a>(pattern: &str, text: &'a str) -> Option<Vec<&'a str>> {
    let mut pieces = pattern.split("{}");
    let mut rest = text.strip_prefix(pieces.next()?)?;
    let mut pieces = pieces.peekable();
    let mut kept = Vec::new();
    while let Some(piece) = pieces.next() {
        let last = pieces.peek().is_none();
        let end = match (last, piece.is_empty()) {
            (true, true) => rest.len(),
            (true, false) => {
                rest.len().checked_sub(piece.len()).filter(|_| rest.ends_with(piece))?
            }
            (false, _) => rest.find(piece)?,
        };
        let (part, after) = rest.split_at(end);
        if !last && part.contains(' ') {
            return None;
        }
        kept.push(part);
        rest = &after[piece.len()..];
    }
    rest.is_empty().then_some(kept)
}

/// What gave first, and what would help.
pub(super) fn resource(resource: Resource, lang: Lang) -> (&'static str, &'static str) {
    let (en, ko) = match resource {
        Resource::ServerCpu => (
            ("the CPU of the service", "More CPU, or less CPU for each request, moves the limit."),
            ("서비스의 CPU", "CPU를 늘리거나 요청당 CPU를 줄이면 한계가 올라갑니다."),
        ),
        Resource::Store => (
            (
                "the store",
                "Its commits took long while the CPU had time: a faster disk or database moves the limit, more CPU does not.",
            ),
            (
                "저장소",
                "CPU에는 여유가 있는데 커밋이 오래 걸렸습니다. 더 빠른 디스크나 데이터베이스가 한계를 올리며, CPU를 늘려도 소용없습니다.",
            ),
        ),
        Resource::Generator => (
            (
                "k6, or the machine that it shares",
                "The limit of the service is higher than this and was not reached. Run k6 on another machine to find it.",
            ),
            (
                "k6 또는 함께 쓰는 기기",
                "서비스의 한계는 이보다 높으며 거기까지 가지 못했습니다. 찾으려면 k6를 다른 기기에서 실행하십시오.",
            ),
        ),
        Resource::ConcurrencyLimit => (
            (
                "the limits of concurrency, which answer 503",
                "They protect the service from too much at once. Raise them only if CPU and store have room.",
            ),
            (
                "동시 처리 제한(503 응답)",
                "한꺼번에 몰리는 요청에서 서비스를 지키는 장치입니다. CPU와 저장소에 여유가 있을 때만 올리십시오.",
            ),
        ),
        Resource::None => (
            ("nothing", "No resource came to its limit."),
            ("없음", "한계에 이른 자원이 없습니다."),
        ),
        Resource::Unknown => (
            ("not known", "It gave, and no figure says why."),
            ("알 수 없음", "한계에 이르렀지만 그 이유를 말해 주는 수치가 없습니다."),
        ),
    };
    pick(lang, en, ko)
}

/// Counters of our scripts; others keep their names.
pub(super) fn counter(name: &str, lang: Lang) -> String {
    let (en, ko) = match name {
        "rejected_seat_taken" => ("seat taken by somebody faster", "다른 사람이 먼저 잡은 좌석"),
        "rejected_not_enough_points" => ("not enough points", "포인트 부족"),
        "rejected_sold_out" => ("sold out", "매진"),
        "rejected_seat_limit" => ("more seats than one may have", "1인당 좌석 수 초과"),
        "rejected_not_your_turn" | "rejected_not_yet" => ("not your turn yet", "아직 순서가 아님"),
        "rejected_shed" => {
            ("sent away by a limit of the service (503)", "서비스의 동시 처리 제한으로 거절(503)")
        }
        "reservations_made" => ("reservations made", "예약 성공"),
        "payments_made" => ("payments made", "결제 성공"),
        "holds_abandoned" => ("holds given up before payment", "결제하지 않고 놓은 좌석"),
        "fans_arrived" => ("fans who came", "찾아온 팬"),
        "fans_let_in" => ("fans who were let in", "입장한 팬"),
        "fans_left" => ("fans who left the line", "줄을 떠난 팬"),
        "fans_still_waiting" => ("fans who waited still at the end", "끝날 때까지 기다린 팬"),
        "fans_expired" => ("fans whose turn ran out", "순서가 만료된 팬"),
        "unexpected_answers" => ("unexpected answers", "예상 밖 응답"),
        _ => return name.to_string(),
    };
    format!("{} ({name})", pick(lang, en, ko))
}

/// Failures by kind, as our scripts name them; others keep their names.
pub(super) fn error(name: &str, lang: Lang) -> String {
    let kind = name.strip_prefix("error_").unwrap_or(name);
    let (en, ko) = match kind {
        "timeout" => ("timed out", "시간 초과"),
        "connection" => ("connection refused, reset or closed", "연결 거부·끊김"),
        "dns" => ("name not resolved", "이름 찾기 실패"),
        "tls" => ("TLS failed", "TLS 실패"),
        "other" => ("other", "기타"),
        "4xx" => ("other 4xx", "그 밖의 4xx"),
        "5xx" => ("other 5xx", "그 밖의 5xx"),
        _ => return kind.to_string(),
    };
    pick(lang, en, ko).to_string()
}

/// A series by its name; `None` for one that the report does not know.
pub(super) fn series(name: &str, lang: Lang) -> Option<&'static str> {
    let t = of(lang);
    Some(match name {
        names::VUS => t.chart_vus,
        names::REQUESTS_PER_SECOND => t.chart_rate,
        names::ITERATIONS_PER_SECOND => t.chart_iterations,
        names::DROPPED_PER_SECOND => pick(lang, "dropped iterations", "시작하지 못한 반복"),
        names::FAILED_SHARE => t.chart_failed,
        names::DURATION_AVG => pick(lang, "average latency", "평균 지연 시간"),
        names::DURATION_P50 => "p50",
        names::DURATION_P90 => "p90",
        names::DURATION_P95 => "p95",
        names::DURATION_P99 => "p99",
        names::DURATION_MAX => "max",
        names::WAITING_AVG | names::WAITING_P95 => "http_req_waiting",
        names::CONNECTING_AVG | names::CONNECTING_P95 => "http_req_connecting",
        names::SERVER_CPUS => t.cpu,
        names::GENERATOR_CPUS => pick(lang, "CPU of k6", "k6 CPU"),
        names::MACHINE_CPUS => pick(lang, "CPU of the machine", "기기 전체 CPU"),
        names::SERVER_RSS => t.chart_memory,
        names::QUEUE_WAITING => pick(lang, "people waiting", "대기 인원"),
        names::QUEUE_ACTIVE => pick(lang, "people let in", "입장 인원"),
        names::JOINED_PER_SECOND => pick(lang, "joins per second", "초당 줄 선 인원"),
        names::ADMITTED_PER_SECOND => pick(lang, "admissions per second", "초당 입장"),
        names::RESERVED_PER_SECOND => pick(lang, "reservations per second", "초당 예약"),
        names::PAID_PER_SECOND => pick(lang, "payments per second", "초당 결제"),
        names::SHED_PER_SECOND => pick(lang, "requests shed per second", "초당 503 거절"),
        names::COMMIT_MS => t.chart_commit,
        names::STORE_PENDING => t.chart_pending,
        names::ENGINE_CPUS => pick(lang, "CPU of the engines", "DB 등 엔진의 CPU"),
        _ => return None,
    })
}

fn cpus(cpus: f64, lang: Lang) -> String {
    let number = plain(cpus);
    match lang {
        Lang::En if cpus == 1.0 => "1 CPU".to_string(),
        Lang::En if cpus < 1.0 => format!("{number} of a CPU"),
        Lang::En => format!("{number} CPUs"),
        Lang::Ko => format!("CPU {number}개"),
    }
}

/// `1 CPU`, `cluster of 3, 2 CPUs each`.
pub(super) fn condition(condition: &Condition, lang: Lang) -> String {
    let cpus = condition.cpus.filter(|c| c.is_finite()).map(|number| cpus(number, lang));
    match (&condition.service, cpus) {
        (Service::Embedded, Some(cpus)) => {
            pick(lang, format!("one process, {cpus}"), format!("단일 프로세스, {cpus}"))
        }
        (Service::Embedded, None) => pick(lang, "one process", "단일 프로세스").to_string(),
        (Service::Cluster { instances }, Some(cpus)) => pick(
            lang,
            format!("cluster of {instances}, {cpus} each"),
            format!("클러스터 {instances}대, 각 {cpus}"),
        ),
        (Service::Cluster { instances }, None) => {
            pick(lang, format!("cluster of {instances}"), format!("클러스터 {instances}대"))
        }
        (Service::Url { url }, _) => {
            pick(lang, format!("running service {url}"), format!("실행 중이던 서비스 {url}"))
        }
    }
}

/// The same, short enough for the head of a column.
pub(super) fn condition_short(condition: &Condition, lang: Lang) -> String {
    let cpus = condition.cpus.filter(|c| c.is_finite()).map(plain);
    match (&condition.service, cpus) {
        (Service::Embedded, Some(cpus)) => format!("CPU {cpus}"),
        (Service::Embedded, None) => pick(lang, "one process", "단일 프로세스").to_string(),
        (Service::Cluster { instances }, Some(cpus)) => {
            pick(lang, format!("{instances} × CPU {cpus}"), format!("{instances}대 × CPU {cpus}"))
        }
        (Service::Cluster { instances }, None) => {
            pick(lang, format!("cluster of {instances}"), format!("클러스터 {instances}대"))
        }
        (Service::Url { url }, _) => url.clone(),
    }
}

pub(super) fn summary(requests: u64, seconds: f64, rate: f64, lang: Lang) -> String {
    match lang {
        Lang::En => format!(
            "{} requests in {}: {} per second.",
            count(requests),
            span(seconds, lang),
            plain(rate)
        ),
        Lang::Ko => format!(
            "{} 동안 요청 {}건, 초당 {}건을 처리했습니다.",
            span(seconds, lang),
            count(requests),
            plain(rate)
        ),
    }
}

pub(super) fn summary_latency(
    med: Option<f64>,
    p95: Option<f64>,
    max: Option<f64>,
    lang: Lang,
) -> Option<String> {
    let say = |value| millis(value, lang);
    let mut parts = Vec::new();
    if let Some(med) = med {
        parts.push(pick(
            lang,
            format!("half of them were answered within {}", say(med)),
            format!("절반은 {} 안에", say(med)),
        ));
    }
    if let Some(p95) = p95 {
        parts.push(pick(
            lang,
            format!("95 of 100 within {}", say(p95)),
            format!("100건 중 95건은 {} 안에", say(p95)),
        ));
    }
    if parts.is_empty() {
        return None;
    }
    Some(match (lang, max) {
        (Lang::En, Some(max)) => {
            let text = format!("{}; the slowest took {}.", parts.join(", "), say(max));
            capital(&text)
        }
        (Lang::En, None) => capital(&format!("{}.", parts.join(", "))),
        (Lang::Ko, Some(max)) => {
            format!("{} 응답했고, 가장 느린 응답은 {} 걸렸습니다.", parts.join(", "), say(max))
        }
        (Lang::Ko, None) => format!("{} 응답했습니다.", parts.join(", ")),
    })
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

pub(super) fn summary_failed(failed: f64, lang: Lang) -> String {
    if failed > 0.0 {
        pick(
            lang,
            format!("{} of the requests failed.", share(failed, lang)),
            format!("요청의 {}가 실패했습니다.", share(failed, lang)),
        )
    } else {
        of(lang).no_errors.to_string()
    }
}

/// How many of the waits took as long as fans had been told, where any ended.
pub(super) fn summary_promises(counters: &BTreeMap<String, f64>, lang: Lang) -> Option<String> {
    let sum = |name: &str| -> f64 {
        let of_name = |(key, _): &(&String, &f64)| key.split('{').next() == Some(name);
        counters.iter().filter(of_name).map(|(_, value)| value).sum()
    };
    let made = sum("boxoffice_queue_eta_ratio_count");
    (made > 0.0).then(|| {
        let kept = share(sum("boxoffice_queue_eta_kept_total") / made, lang);
        pick(
            lang,
            format!(
                "Of {} waits that were watched, {kept} took as long as fans had been told, to a \
                 quarter or 5 s.",
                plain(made)
            ),
            format!(
                "지켜본 대기 {}건 중 {kept}가 안내한 시간과 25 % 또는 5초 안에서 맞았습니다.",
                plain(made)
            ),
        )
    })
}

pub(super) fn summary_cpu(used: f64, limit: Option<f64>, lang: Lang) -> String {
    match limit.filter(|l| *l > 0.0) {
        Some(limit) => pick(
            lang,
            format!(
                "The service used {} on average, {} of the {} that it may use.",
                cpus(used, lang),
                share(used / limit, lang),
                if limit == 1.0 { "CPU".to_string() } else { plain(limit) }
            ),
            format!(
                "서비스는 평균 CPU {}개를 썼습니다. 쓸 수 있는 {}개의 {}입니다.",
                plain(used),
                plain(limit),
                share(used / limit, lang)
            ),
        ),
        None => pick(
            lang,
            format!("The service used {} CPUs on average.", plain(used)),
            format!("서비스는 평균 CPU {}개를 썼습니다.", plain(used)),
        ),
    }
}

pub(super) fn no_totals(lang: Lang) -> &'static str {
    pick(
        lang,
        "k6 ended before it could say what it measured. The figures over the whole run are missing.",
        "k6가 결과를 내놓기 전에 끝나 전체 실행에 대한 수치가 없습니다.",
    )
}

pub(super) fn warm_up_note(seconds: f64, lang: Lang) -> String {
    pick(
        lang,
        format!("The first {} are warm-up and not counted.", span(seconds, lang)),
        format!("처음 {}는 준비 구간이라 집계에서 뺐습니다.", span(seconds, lang)),
    )
}

/// Ours as a multiple or a part of theirs.
pub(super) fn times(ours: f64, theirs: f64, lang: Lang) -> Option<String> {
    if !(ours.is_finite() && theirs.is_finite() && ours > 0.0 && theirs > 0.0) {
        return None;
    }
    let ratio = ours / theirs;
    Some(if (0.95..=1.05).contains(&ratio) {
        pick(lang, "about the same", "비슷함").to_string()
    } else if ratio > 1.0 {
        pick(lang, format!("{}×", plain(ratio)), format!("{}배", plain(ratio)))
    } else {
        pick(lang, format!("1/{}", plain(1.0 / ratio)), format!("1/{}", plain(1.0 / ratio)))
    })
}

/// A difference of shares, in percentage points.
pub(super) fn points(ours: f64, theirs: f64, lang: Lang) -> String {
    let change = (ours - theirs) * 100.0;
    if change == 0.0 {
        return pick(lang, "the same", "같음").to_string();
    }
    let sign = if change > 0.0 { "+" } else { "" };
    pick(lang, format!("{sign}{} points", plain(change)), format!("{sign}{}%p", plain(change)))
}

pub(super) fn knee(per_second: f64, at: Option<f64>, lang: Lang) -> String {
    let when = at.filter(|a| a.is_finite());
    match (lang, when) {
        (Lang::En, Some(at)) => format!(
            "It gave at {} iterations per second, {} after the start.",
            plain(per_second),
            span(at, lang)
        ),
        (Lang::En, None) => format!("It gave at {} iterations per second.", plain(per_second)),
        (Lang::Ko, Some(at)) => {
            format!(
                "시작 {} 뒤, 초당 반복 {}회에서 한계에 이르렀습니다.",
                span(at, lang),
                plain(per_second)
            )
        }
        (Lang::Ko, None) => format!("초당 반복 {}회에서 한계에 이르렀습니다.", plain(per_second)),
    }
}

pub(super) fn generator_verdict(
    saturated: Option<f64>,
    dropped: Option<u64>,
    lang: Lang,
) -> String {
    match (saturated.filter(|s| s.is_finite()), dropped) {
        (Some(share_of), _) if share_of > 0.0 => pick(
            lang,
            format!("In {} of the seconds k6 or the machine was at its limit: latencies of those seconds are partly k6's own.", share(share_of, lang)),
            format!("전체 시간의 {} 동안 k6 또는 기기가 한계였습니다. 그 구간의 지연 시간에는 k6의 몫이 섞여 있습니다.", share(share_of, lang)),
        ),
        (_, Some(dropped)) if dropped > 0 => pick(
            lang,
            format!("k6 could not start {} iterations when they were due: the load was less than asked for.", count(dropped)),
            format!("k6가 반복 {}회를 제때 시작하지 못해, 실제 부하가 요청한 것보다 적었습니다.", count(dropped)),
        ),
        (Some(_), Some(_)) => pick(
            lang,
            "k6 and the machine had room in every second, and k6 started every iteration that was due.",
            "k6와 기기에는 내내 여유가 있었고, k6는 예정된 반복을 모두 시작했습니다.",
        )
        .to_string(),
        (None, _) => pick(
            lang,
            "Whether k6 was at its limit was not measured, so its share of the latencies is not known.",
            "k6가 한계였는지는 측정되지 않아, 지연 시간 중 k6의 몫을 알 수 없습니다.",
        )
        .to_string(),
        (Some(_), None) => pick(
            lang,
            "k6 and the machine had room in every second; how many iterations k6 could not start was not measured.",
            "k6와 기기에는 내내 여유가 있었으나, 시작하지 못한 반복 수는 측정되지 않았습니다.",
        )
        .to_string(),
    }
}

/// One line of the arithmetic of the safe rate.
pub(super) struct Sum {
    pub(super) what: String,
    pub(super) formula: String,
}

/// The arithmetic, as a person would write it down, and the sentence that it ends in.
///
/// `knee` is the limit in iterations per second, of which only a part are buyers.
pub(super) fn safe_rate(
    rate: &crate::model::SafeRate,
    knee: Option<f64>,
    lang: Lang,
) -> (String, Vec<Sum>, Vec<String>) {
    let n = |value: f64| plain(value);
    let seconds = |micros: f64| micros / 1e6;
    let polls_per_second = rate.waiting / rate.poll_every_seconds;
    let polls = polls_per_second * seconds(rate.poll_micros);
    let joins = rate.joins_per_second * seconds(rate.join_micros);
    let planned = rate.cpus * rate.headroom;
    let left = planned - polls - joins;
    let by_cpu = left / seconds(rate.buyer_micros);
    let cpu = |value: f64| pick(lang, format!("{} CPU", n(value)), format!("CPU {}개", n(value)));
    let micros = |value: f64| number::micros(value, lang);
    let sentence = if rate.per_second > 0.0 {
        pick(
            lang,
            format!(
                "Up to {} people may be let in per second, while {} wait and {} join per second.",
                n(rate.per_second),
                n(rate.waiting),
                n(rate.joins_per_second)
            ),
            format!(
                "{}명이 기다리고 초당 {}명이 줄을 서는 동안, 초당 {}명까지 입장시켜도 안전합니다.",
                n(rate.waiting),
                n(rate.joins_per_second),
                n(rate.per_second)
            ),
        )
    } else {
        pick(
            lang,
            format!(
                "Nobody can safely be let in while {} wait and {} join per second: they alone use up the CPU that may be planned with.",
                n(rate.waiting),
                n(rate.joins_per_second)
            ),
            format!(
                "{}명이 기다리고 초당 {}명이 줄을 서는 동안에는 아무도 안전하게 입장시킬 수 없습니다. 계획에 쓸 수 있는 CPU를 이들이 모두 씁니다.",
                n(rate.waiting),
                n(rate.joins_per_second)
            ),
        )
    };
    let mut sums = vec![
        Sum {
            what: pick(lang, "CPU to plan with", "계획에 쓸 CPU").to_string(),
            formula: format!(
                "{} × {} = {}",
                cpu(rate.cpus),
                share(rate.headroom, lang),
                cpu(planned)
            ),
        },
        Sum {
            what: pick(lang, "Those who wait ask", "대기자의 조회").to_string(),
            formula: format!(
                "{} ÷ {} = {}; × {} = {}",
                pick(lang, format!("{} people", n(rate.waiting)), format!("{}명", n(rate.waiting))),
                span(rate.poll_every_seconds, lang),
                pick(
                    lang,
                    format!("{} polls/s", n(polls_per_second)),
                    format!("초당 {}건", n(polls_per_second))
                ),
                micros(rate.poll_micros),
                cpu(polls)
            ),
        },
        Sum {
            what: pick(lang, "Those who come join", "새로 온 사람의 줄 서기").to_string(),
            formula: format!(
                "{} × {} = {}",
                pick(
                    lang,
                    format!("{} joins/s", n(rate.joins_per_second)),
                    format!("초당 {}명", n(rate.joins_per_second))
                ),
                micros(rate.join_micros),
                cpu(joins)
            ),
        },
        Sum {
            what: pick(lang, "Left for buyers", "구매자에게 남는 CPU").to_string(),
            formula: format!("{} − {} − {} = {}", n(planned), n(polls), n(joins), cpu(left)),
        },
        Sum {
            what: pick(lang, "Buyers that it carries", "감당할 수 있는 구매자").to_string(),
            formula: if left > 0.0 {
                format!(
                    "{} ÷ {} = {}",
                    cpu(left),
                    pick(
                        lang,
                        format!("{} per buyer", micros(rate.buyer_micros)),
                        format!("1인당 {}", micros(rate.buyer_micros))
                    ),
                    pick(
                        lang,
                        format!("{} per second", n(by_cpu)),
                        format!("초당 {}명", n(by_cpu))
                    )
                )
            } else {
                pick(lang, "none: nothing is left", "없음: 남는 CPU가 없음").to_string()
            },
        },
    ];
    let mut notes = Vec::new();
    match rate.knee_limit_per_second.filter(|l| l.is_finite()) {
        Some(limit) => {
            let buyers = limit / rate.headroom;
            let part = knee
                .filter(|k| k.is_finite() && *k > 0.0)
                .map(|k| (k, buyers / k))
                .filter(|(_, p)| *p <= 1.001);
            let found = match part {
                Some((knee, part)) if part < 0.999 => pick(
                    lang,
                    format!("{} iterations/s × {} of them buy", n(knee), share(part, lang)),
                    format!("초당 반복 {}회 × 구매 비율 {}", n(knee), share(part, lang)),
                ),
                _ => {
                    pick(lang, format!("{} per second", n(buyers)), format!("초당 {}명", n(buyers)))
                }
            };
            sums.push(Sum {
                what: pick(lang, "The limit that was found", "찾아낸 한계").to_string(),
                formula: format!(
                    "{found} × {} = {}",
                    share(rate.headroom, lang),
                    pick(lang, format!("{} per second", n(limit)), format!("초당 {}명", n(limit)))
                ),
            });
            sums.push(Sum {
                what: pick(lang, "The smaller of the two", "둘 중 작은 값").to_string(),
                formula: pick(
                    lang,
                    format!("{} per second", n(by_cpu.min(limit).max(0.0))),
                    format!("초당 {}명", n(by_cpu.min(limit).max(0.0))),
                ),
            });
        }
        None => notes.push(
            pick(
                lang,
                "No breakpoint run confirms it: the figure comes from CPU alone.",
                "한계 테스트로 확인한 값이 아니라 CPU 비용만으로 계산한 값입니다.",
            )
            .to_string(),
        ),
    }
    let worked_out = rate
        .knee_limit_per_second
        .filter(|l| l.is_finite())
        .map_or(by_cpu, |limit| by_cpu.min(limit))
        .max(0.0);
    if worked_out.is_finite()
        && (worked_out - rate.per_second).abs() > (rate.per_second.abs() * 0.02).max(1.0)
    {
        notes.push(pick(
            lang,
            format!(
                "The run keeps {} per second, which is not what this arithmetic gives ({}).",
                n(rate.per_second),
                n(worked_out)
            ),
            format!(
                "실행 기록의 값은 초당 {}명으로, 위 계산 결과({})와 다릅니다.",
                n(rate.per_second),
                n(worked_out)
            ),
        ));
    }
    if left <= 0.0 {
        notes.push(
            pick(
                lang,
                "Let those who wait ask less often, or give the service more CPU.",
                "기다리는 사람들의 조회 간격을 늘리거나, 서비스의 CPU를 늘리십시오.",
            )
            .to_string(),
        );
    }
    (sentence, sums, notes)
}

pub(super) fn baseline_ratio(ratio: f64, lang: Lang) -> String {
    pick(
        lang,
        format!("The service's p95 is {} times that of static answers.", plain(ratio)),
        format!("서비스의 p95는 고정 응답의 {}배입니다.", plain(ratio)),
    )
}

/// The three kinds of bar between a name and its parts, for screen readers and search.
pub(super) fn analysis_limit(
    place: &str,
    what: &str,
    then: &str,
    evidence: &[String],
    lang: Lang,
) -> String {
    let evidence = if evidence.is_empty() {
        of(lang).no_evidence.to_string()
    } else {
        evidence.iter().map(|one| said(one, lang)).collect::<Vec<_>>().join("; ")
    };
    pick(
        lang,
        format!("{place}: what gave first is {what} ({evidence}). {then}"),
        format!("{place}: 먼저 한계에 닿은 것은 {what} ({evidence}). {then}"),
    )
}

/// A condition's name, requests per second and p95.
type Point<'a> = (&'a str, f64, Option<f64>);

pub(super) fn analysis_cpus(test: &str, few: Point<'_>, many: Point<'_>, lang: Lang) -> String {
    let p95 = |value: Option<f64>| {
        value.map_or_else(|| boxoffice_report::not_measured(lang).to_string(), |v| millis(v, lang))
    };
    let rate = |value: f64| {
        pick(lang, format!("{} requests/s", plain(value)), format!("초당 요청 {}건", plain(value)))
    };
    format!(
        "{test}: {} → {}: {} → {}, p95 {} → {}.",
        few.0,
        many.0,
        rate(few.1),
        rate(many.1),
        p95(few.2),
        p95(many.2)
    )
}

pub(super) fn analysis_cluster(test: &str, one: f64, cluster: f64, lang: Lang) -> String {
    let (a, b) = (number::micros(one, lang), number::micros(cluster, lang));
    let times = plain(cluster / one);
    pick(
        lang,
        format!(
            "{test}: a request takes {a} of the service's CPU in one process and {b} in a cluster, {times} times as much."
        ),
        format!(
            "{test}: 요청 하나에 드는 서비스 CPU는 단일 프로세스에서 {a}, 클러스터에서 {b}로 {times}배입니다."
        ),
    )
}
