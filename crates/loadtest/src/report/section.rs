//! What the report of a run says, in which order.

use std::collections::BTreeMap;

use boxoffice_report::{
    self as report, Along, Band, Block, Cell, Chart, Document, Figure, Inline, Limit, Line, Mark,
    Over, Panel, Section, Table, Tone, Unit, Verdict, number,
};

use super::{Lang, text};
use crate::catalogue::{self, Original};
use crate::model::{Breakpoint, Latency, Outcome, Run, Series, Service, Totals, names};

pub(super) fn title(run: &Run, lang: Lang) -> String {
    let (kind, _) = text::kind(run.kind, lang);
    // scenario1 needs no "(scenario)".
    let plain = text::kind(run.kind, Lang::En).0;
    if run.test.starts_with(plain) { run.test.clone() } else { format!("{} ({kind})", run.test) }
}

pub(super) fn subtitle(run: &Run, lang: Lang) -> String {
    let commit =
        run.commit.as_deref().map_or_else(String::new, |c| format!(" · {}", short_commit(c)));
    format!("{} · {}{commit}", text::condition(&run.condition, lang), moment(&run.started_at))
}

/// `2026-11-23T01:20:07.123Z` as `2026-11-23 01:20 UTC`; what is not a time stays as it is.
pub(super) fn moment(rfc3339: &str) -> String {
    rfc3339.parse::<jiff::Timestamp>().map_or_else(
        |_| rfc3339.to_string(),
        |at| {
            let text = at.to_string();
            format!("{} {} UTC", text.get(..10).unwrap_or(""), text.get(11..16).unwrap_or(""))
        },
    )
}

pub(super) fn short_commit(commit: &str) -> String {
    match commit.split_once('-') {
        Some((hash, rest)) => format!("{}-{rest}", hash.chars().take(10).collect::<String>()),
        None => commit.chars().take(10).collect(),
    }
}

/// The report of a run.
pub(super) fn document(run: &Run, others: &[Run], lang: Lang) -> Document {
    let t = text::of(lang);
    Document {
        language: lang,
        kind: format!("boxoffice · {}", t.report),
        title: title(run, lang),
        subtitle: subtitle(run, lang),
        sections: all(run, others, lang),
        footer: t.footer.to_string(),
    }
}

/// All sections, the verdict first.
fn all(run: &Run, others: &[Run], lang: Lang) -> Vec<Section> {
    let mut sections = vec![verdict(run, lang)];
    if let Some(found) = &run.breakpoint {
        sections.push(limit(run, found, lang));
    }
    if run.safe_rate.is_some() || run.breakpoint.is_some() {
        sections.push(safe_rate(run, lang));
    }
    sections.push(figures(run, lang));
    sections.push(over_time(run, lang));
    if !originals(&run.test).is_empty() {
        sections.push(beside_original(run, others, lang));
    }
    if !others.is_empty() {
        sections.push(conditions(run, others, lang));
    }
    sections.push(errors(run, lang));
    sections.push(resources(run, lang));
    sections.push(baseline(run, lang));
    sections.push(audit(run, lang));
    sections.push(the_run(run, lang));
    sections
}

fn section(id: &str, title: &str, blocks: Vec<Block>) -> Section {
    Section { id: id.to_string(), title: title.to_string(), outcome: None, blocks }
}

// What is asked of a run in more than one place.

/// CPUs that all instances of the service may use.
pub(super) fn cpu_limit(run: &Run) -> Option<f64> {
    let instances = match run.condition.service {
        Service::Cluster { instances } => f64::from(instances),
        Service::Embedded | Service::Url { .. } => 1.0,
    };
    run.condition.cpus.map(|cpus| cpus * instances).filter(|c| c.is_finite() && *c > 0.0)
}

/// CPUs that the service used on average.
pub(super) fn cpu_mean(run: &Run) -> Option<f64> {
    mean(&run.series, names::SERVER_CPUS).or_else(|| {
        run.server
            .cpu_seconds
            .filter(|_| run.elapsed_seconds > 0.0)
            .map(|s| s / run.elapsed_seconds)
    })
}

fn mean(series: &Series, name: &str) -> Option<f64> {
    let values: Vec<f64> =
        series.values.get(name)?.iter().flatten().copied().filter(|v| v.is_finite()).collect();
    if values.is_empty() { None } else { Some(values.iter().sum::<f64>() / values.len() as f64) }
}

fn has(series: &Series, name: &str) -> bool {
    series.values.get(name).is_some_and(|v| v.iter().flatten().any(|v| v.is_finite()))
}

pub(super) fn duration(run: &Run, get: impl Fn(&Latency) -> Option<f64>) -> Option<f64> {
    run.totals.as_ref().and_then(|t| get(&t.duration)).filter(|v| v.is_finite())
}

fn of_totals(run: &Run, get: impl Fn(&Totals) -> f64) -> Option<f64> {
    run.totals.as_ref().map(get).filter(|v| v.is_finite())
}

/// One figure of a latency.
type Rung = fn(&Latency) -> Option<f64>;

/// The figures of a latency, from the best to the worst, and their names.
pub(super) fn ladder(lang: Lang) -> Vec<(String, Rung)> {
    let t = text::of(lang);
    vec![
        (t.average.to_string(), |l: &Latency| l.avg),
        (t.lowest.to_string(), |l| l.min),
        (t.median.to_string(), |l| l.med),
        ("p90".to_string(), |l| l.p90),
        ("p95".to_string(), |l| l.p95),
        ("p99".to_string(), |l| l.p99),
        ("p99.9".to_string(), |l| l.p999),
        (t.highest.to_string(), |l| l.max),
    ]
}

fn failed_cell(value: Option<f64>, lang: Lang) -> Cell {
    let mut cell = Cell::of(value, lang, |v| number::share(v, lang));
    if value.is_some_and(|v| v > 0.0) {
        cell.tone = Tone::Bad;
    }
    cell
}

fn counted(value: Option<u64>, lang: Lang) -> Cell {
    Cell::of(value.map(|v| v as f64), lang, |_| value.map_or(String::new(), number::count))
}

/// Names of runs for the heads of columns, each different.
pub(super) fn labels(runs: &[&Run], lang: Lang) -> Vec<String> {
    let short: Vec<String> =
        runs.iter().map(|r| text::condition_short(&r.condition, lang)).collect();
    runs.iter()
        .zip(&short)
        .map(|(run, name)| {
            if short.iter().filter(|s| *s == name).count() > 1 {
                format!("{name}, {}", moment(&run.started_at))
            } else {
                name.clone()
            }
        })
        .collect()
}

// The sections.

pub(super) fn summary(run: &Run, lang: Lang) -> String {
    let mut said = Vec::new();
    match &run.totals {
        None => said.push(text::no_totals(lang).to_string()),
        Some(totals) => {
            let seconds = if totals.requests_per_second > 0.0 {
                totals.requests as f64 / totals.requests_per_second
            } else {
                run.elapsed_seconds
            };
            said.push(text::summary(totals.requests, seconds, totals.requests_per_second, lang));
            said.extend(text::summary_latency(
                totals.duration.med,
                totals.duration.p95,
                totals.duration.max,
                lang,
            ));
            said.push(text::summary_failed(totals.failed_share, lang));
            said.extend(text::summary_promises(&run.server.counters, lang));
        }
    }
    if let Some(used) = cpu_mean(run) {
        said.push(text::summary_cpu(used, cpu_limit(run), lang));
    }
    if run.series.warm_up_seconds > 0.0 {
        said.push(text::warm_up_note(run.series.warm_up_seconds, lang));
    }
    said.join(" ")
}

fn verdict(run: &Run, lang: Lang) -> Section {
    let t = text::of(lang);
    let verdicts = |fatal: bool| -> Vec<Verdict> {
        run.verdict
            .findings
            .iter()
            .filter(|f| f.fatal == fatal)
            .map(|f| Verdict {
                tone: if fatal { Tone::Bad } else { Tone::Mind },
                says: text::finding(f.code, lang).to_string(),
                detail: text::said(&f.detail, lang),
            })
            .collect()
    };
    let (fatal, minded) = (verdicts(true), verdicts(false));
    let mut blocks = Vec::new();
    let bad = run.verdict.outcome != Outcome::Pass;
    if fatal.is_empty() && bad && minded.is_empty() {
        blocks.push(Block::says(t.no_reason));
    }
    if !fatal.is_empty() {
        blocks.push(Block::Verdicts(fatal));
    }
    blocks.push(Block::says(summary(run, lang)));
    if !bad && minded.is_empty() {
        blocks.push(Block::says(t.no_findings));
    }
    blocks.push(Block::Figures(tiles(run, lang)));
    if !minded.is_empty() {
        blocks.push(Block::Heading(t.to_mind.to_string()));
        blocks.push(Block::Verdicts(minded));
    }
    let (sign, word) = text::outcome(run.verdict.outcome, lang);
    let tone = match run.verdict.outcome {
        Outcome::Pass => Tone::Good,
        Outcome::Fail => Tone::Bad,
        Outcome::Incomplete => Tone::Mind,
    };
    Section {
        outcome: Some(report::Outcome { tone, sign, word: word.to_string() }),
        ..section("verdict", t.verdict, blocks)
    }
}

fn tiles(run: &Run, lang: Lang) -> Vec<Figure> {
    let t = text::of(lang);
    let theirs = original_for(run);
    let beside = |say: &dyn Fn(&Original) -> String| {
        theirs.map_or(String::new(), |o| format!("{}: {}", original_name(o, lang), say(o)))
    };
    let ms = |v: f64| number::millis(v, lang);
    let mut tiles = Vec::new();
    let mut add = |name: &str, value: Cell, note: String| {
        tiles.push(Figure { name: name.to_string(), value, note })
    };
    if let Some(found) = &run.breakpoint {
        let held = Cell::new(t.held_to_the_end);
        let value = found
            .knee_per_second
            .map_or(held, |_| Cell::of(found.knee_per_second, lang, number::plain));
        let value = if found.knee_per_second.is_none() { Cell::new("—") } else { value };
        let note = format!("{}: {}", t.saturated_what, text::resource(found.saturated, lang).0);
        add(t.knee_tile, value, note);
    }
    if run.safe_rate.is_some() || run.breakpoint.is_some() {
        let value = Cell::of(run.safe_rate.as_ref().map(|r| r.per_second), lang, number::plain);
        let note = run
            .safe_rate
            .as_ref()
            .map_or(String::new(), |r| format!("{}: {}", t.waiting, number::plain(r.waiting)));
        add(t.safe_tile, value, note);
    }
    add(
        t.tps,
        Cell::of(of_totals(run, |v| v.requests_per_second), lang, number::plain),
        beside(&|o| number::plain(o.requests_per_second)),
    );
    add("p50", Cell::of(duration(run, |l| l.med), lang, ms), beside(&|o| ms(o.med)));
    add("p95", Cell::of(duration(run, |l| l.p95), lang, ms), beside(&|o| ms(o.p95)));
    add("p99", Cell::of(duration(run, |l| l.p99), lang, ms), String::new());
    add(
        t.error_rate,
        failed_cell(of_totals(run, |v| v.failed_share), lang),
        beside(&|o| number::share(o.failed_share, lang)),
    );
    let limit = cpu_limit(run);
    add(
        t.service_cpu,
        Cell::of(cpu_mean(run), lang, |v| match limit {
            Some(limit) => number::share(v / limit, lang),
            None => number::plain(v),
        }),
        text::condition(&run.condition, lang),
    );
    add(
        t.memory_peak,
        Cell::of(run.server.peak_rss_bytes.map(|b| b as f64), lang, number::bytes),
        String::new(),
    );
    tiles
}

/// The original's figures in the condition that is like ours, or its first.
fn original_for(run: &Run) -> Option<&'static Original> {
    let all = originals(&run.test);
    all.iter()
        .find(|o| o.cpus.is_some() && o.cpus.map(f64::from) == run.condition.cpus)
        .or_else(|| all.first())
}

/// What the original has of a test; nothing for those that it does not have.
pub(super) fn originals(test: &str) -> &'static [Original] {
    catalogue::find(test).map_or(&[], |test| test.original)
}

fn original_name(original: &Original, lang: Lang) -> String {
    let word = text::of(lang).original_short;
    original.cpus.map_or_else(|| word.to_string(), |cpus| format!("{word}, CPU {cpus}"))
}

fn totals_table(run: &Run, lang: Lang) -> Table {
    let t = text::of(lang);
    let totals = run.totals.as_ref();
    let checks = totals.map(|v| {
        let share = if v.checks == 0 { 0.0 } else { v.checks_failed as f64 / v.checks as f64 };
        (v.checks_failed, v.checks, share)
    });
    let checks_cell = match checks {
        Some((failed, all, share)) => Cell::toned(
            format!(
                "{} / {} ({})",
                number::count(failed),
                number::count(all),
                number::share(share, lang)
            ),
            if failed > 0 { Tone::Bad } else { Tone::Plain },
        ),
        None => Cell::of(None, lang, number::plain),
    };
    Table {
        caption: String::new(),
        head: vec![t.figure.to_string(), t.this_run.to_string()],
        rows: vec![
            vec![Cell::new(t.requests), counted(totals.map(|v| v.requests), lang)],
            vec![
                Cell::new(t.tps),
                Cell::of(of_totals(run, |v| v.requests_per_second), lang, number::plain),
            ],
            vec![Cell::new(t.error_rate), failed_cell(of_totals(run, |v| v.failed_share), lang)],
            vec![Cell::new(t.checks_failed), checks_cell],
            vec![Cell::new(t.iterations), counted(totals.map(|v| v.iterations), lang)],
        ],
        figures: true,
    }
}

fn figures(run: &Run, lang: Lang) -> Section {
    let t = text::of(lang);
    let totals = run.totals.as_ref();
    let mut blocks =
        vec![Block::Table(totals_table(run, lang)), Block::Heading(t.latency.to_string())];
    let columns: [Option<&Latency>; 3] = [
        totals.map(|v| &v.duration),
        totals.and_then(|v| v.waiting.as_ref()),
        totals.and_then(|v| v.connecting.as_ref()),
    ];
    let rows = ladder(lang)
        .into_iter()
        .map(|(name, get)| {
            let mut row = vec![Cell::new(name)];
            row.extend(
                columns
                    .iter()
                    .map(|c| Cell::of(c.and_then(get), lang, |v| number::millis(v, lang))),
            );
            row
        })
        .collect();
    blocks.push(Block::Table(Table {
        caption: String::new(),
        // The prefix http_req_ is left out: four columns are to fit on a telephone.
        head: vec![t.figure.into(), "duration".into(), "waiting".into(), "connecting".into()],
        rows,
        figures: true,
    }));
    blocks.push(Block::says(t.latency_note));
    if !run.by_request.is_empty() {
        blocks.push(Block::Heading(t.by_request.to_string()));
        blocks.push(Block::Table(by_request(&run.by_request, lang)));
    }
    section("figures", t.figures, blocks)
}

fn by_request(latencies: &BTreeMap<String, Latency>, lang: Lang) -> Table {
    let t = text::of(lang);
    let ms = |v: Option<f64>| Cell::of(v, lang, |v| number::millis(v, lang));
    Table {
        caption: String::new(),
        head: vec![
            t.request.into(),
            t.number.into(),
            "p50".into(),
            "p95".into(),
            "p99".into(),
            "p99.9".into(),
            "max".into(),
        ],
        rows: latencies
            .iter()
            .map(|(name, l)| {
                vec![
                    Cell::new(name),
                    counted(l.count, lang),
                    ms(l.med),
                    ms(l.p95),
                    ms(l.p99),
                    ms(l.p999),
                    ms(l.max),
                ]
            })
            .collect(),
        figures: true,
    }
}

fn line(run: &Run, series: &str, name: &str, style: usize) -> Line {
    Line {
        name: name.to_string(),
        values: run.series.values.get(series).cloned().unwrap_or_default(),
        style,
    }
}

/// How a table makes one of several values: of latencies the worst counts, of memory what it came to.
fn over(unit: Unit) -> Over {
    match unit {
        Unit::Millis => Over::Highest,
        Unit::Bytes => Over::Last,
        Unit::Count | Unit::Share => Over::Mean,
    }
}

/// A panel of a run's series: its name, style and series each.
fn panel(run: &Run, title: &str, unit: Unit, lines: &[(&str, &str, usize)]) -> Panel {
    Panel {
        title: title.to_string(),
        unit,
        may_be_log: false,
        lines: lines.iter().map(|(series, name, style)| line(run, series, name, *style)).collect(),
        limit: None,
        tall: false,
        over: over(unit),
    }
}

/// The same for what is counted at a moment, and not within a second.
fn stock(run: &Run, title: &str, lines: &[(&str, &str, usize)]) -> Panel {
    Panel { over: Over::Last, ..panel(run, title, Unit::Count, lines) }
}

/// The level of the CPUs that the service may use.
fn cpu_level(run: &Run, lang: Lang) -> Option<Limit> {
    let name = text::of(lang).cpu_limit;
    cpu_limit(run).map(|at| Limit { at, name: format!("{name}: {}", number::plain(at)) })
}

fn main_stack(run: &Run, lang: Lang) -> Chart {
    let t = text::of(lang);
    let latency = Panel {
        may_be_log: true,
        tall: true,
        ..panel(
            run,
            t.chart_latency,
            Unit::Millis,
            &[
                (names::DURATION_P50, "p50", 0),
                (names::DURATION_P95, "p95", 1),
                (names::DURATION_P99, "p99", 2),
                (names::DURATION_MAX, t.s_max, 3),
            ],
        )
    };
    let cpu = Panel {
        limit: cpu_level(run, lang),
        ..panel(
            run,
            t.chart_cpu,
            Unit::Count,
            &[
                (names::SERVER_CPUS, t.s_service, 0),
                (names::GENERATOR_CPUS, t.s_generator, 1),
                (names::MACHINE_CPUS, t.s_machine, 6),
                (names::ENGINE_CPUS, t.s_engines, 2),
            ],
        )
    };
    let panels = vec![
        panel(run, t.chart_rate, Unit::Count, &[(names::REQUESTS_PER_SECOND, t.s_requests, 0)]),
        latency,
        panel(run, t.chart_failed, Unit::Share, &[(names::FAILED_SHARE, t.s_failed, 1)]),
        cpu,
        panel(run, t.chart_memory, Unit::Bytes, &[(names::SERVER_RSS, t.s_memory, 0)]),
        stock(
            run,
            t.chart_queue,
            &[(names::QUEUE_WAITING, t.s_waiting, 0), (names::QUEUE_ACTIVE, t.s_active, 2)],
        ),
        // Joins by themselves: in a rush they are so many that all else would be a line at the bottom.
        panel(run, t.chart_joins, Unit::Count, &[(names::JOINED_PER_SECOND, t.s_joined, 0)]),
        panel(
            run,
            t.chart_flow,
            Unit::Count,
            &[
                (names::ADMITTED_PER_SECOND, t.s_admitted, 2),
                (names::RESERVED_PER_SECOND, t.s_reserved, 3),
                (names::PAID_PER_SECOND, t.s_paid, 4),
            ],
        ),
        panel(run, t.chart_shed, Unit::Count, &[(names::SHED_PER_SECOND, t.s_shed, 1)]),
        Panel {
            may_be_log: true,
            ..panel(run, t.chart_commit, Unit::Millis, &[(names::COMMIT_MS, t.s_commit, 0)])
        },
        stock(run, t.chart_pending, &[(names::STORE_PENDING, t.s_pending, 0)]),
        panel(
            run,
            t.chart_iterations,
            Unit::Count,
            &[
                (names::ITERATIONS_PER_SECOND, t.s_iterations, 0),
                (names::DROPPED_PER_SECOND, t.s_dropped, 1),
            ],
        ),
        stock(run, t.chart_vus, &[(names::VUS, t.s_vus, 6)]),
    ];
    stack_of(run, "over-time-chart", t.stack_title, panels, lang)
}

fn http_stack(run: &Run, lang: Lang) -> Chart {
    let t = text::of(lang);
    let of = |title: &str, avg: &str, p95: &str| Panel {
        may_be_log: true,
        ..panel(run, title, Unit::Millis, &[(avg, t.s_average, 0), (p95, "p95", 1)])
    };
    let panels = vec![
        of(t.chart_duration, names::DURATION_AVG, names::DURATION_P95),
        of(t.chart_waiting, names::WAITING_AVG, names::WAITING_P95),
        of(t.chart_connecting, names::CONNECTING_AVG, names::CONNECTING_P95),
    ];
    stack_of(run, "http-chart", t.http_title, panels, lang)
}

fn stack_of(run: &Run, id: &str, title: &str, panels: Vec<Panel>, lang: Lang) -> Chart {
    let t = text::of(lang);
    let knee = run.breakpoint.as_ref().and_then(|b| b.knee_at).filter(|at| at.is_finite());
    Chart {
        id: id.to_string(),
        title: title.to_string(),
        caption: t.stack_hint.to_string(),
        along: Along::Seconds,
        axis_name: t.time_axis.to_string(),
        at: run.series.at.clone(),
        bands: vec![Band {
            from: 0.0,
            to: run.series.warm_up_seconds,
            name: t.warm_up.to_string(),
        }],
        marks: knee.map(|at| Mark { at, name: t.knee.to_string() }).into_iter().collect(),
        panels,
    }
}

/// A chart under its title, where there is something to draw.
fn push_chart(blocks: &mut Vec<Block>, chart: Chart) {
    if !chart.is_empty() {
        blocks.push(Block::Heading(chart.title.clone()));
        blocks.push(Block::Chart(chart));
    }
}

fn over_time(run: &Run, lang: Lang) -> Section {
    let t = text::of(lang);
    let mut blocks = Vec::new();
    let chart = main_stack(run, lang);
    blocks.push(if chart.is_empty() { Block::says(t.no_series) } else { Block::Chart(chart) });
    let missing: Vec<&str> = EXPECTED
        .iter()
        .filter(|name| !has(&run.series, name))
        .filter_map(|name| text::series(name, lang))
        .fold(Vec::new(), |mut seen, name| {
            if !seen.contains(&name) {
                seen.push(name);
            }
            seen
        });
    if !missing.is_empty() {
        blocks.push(Block::Paragraph(vec![
            Inline::Text(format!("{} ", t.series_missing)),
            Inline::Text(format!("{}.", missing.join(", "))),
        ]));
    }
    push_chart(&mut blocks, http_stack(run, lang));
    if let Some(table) = spans_table(run, lang) {
        blocks.push(Block::Details {
            summary: t.as_table.to_string(),
            blocks: vec![Block::says(t.table_how), Block::Table(table)],
        });
    }
    section("over-time", t.over_time, blocks)
}

/// What a reader may expect to see over time, whichever form the service has.
const EXPECTED: [&str; 21] = [
    names::REQUESTS_PER_SECOND,
    names::DURATION_P50,
    names::DURATION_P95,
    names::DURATION_P99,
    names::DURATION_MAX,
    names::WAITING_AVG,
    names::CONNECTING_AVG,
    names::FAILED_SHARE,
    names::VUS,
    names::SERVER_CPUS,
    names::GENERATOR_CPUS,
    names::MACHINE_CPUS,
    names::SERVER_RSS,
    names::QUEUE_WAITING,
    names::QUEUE_ACTIVE,
    names::JOINED_PER_SECOND,
    names::ADMITTED_PER_SECOND,
    names::RESERVED_PER_SECOND,
    names::PAID_PER_SECOND,
    names::COMMIT_MS,
    names::STORE_PENDING,
];

/// The series in a dozen spans: what the Markdown file has instead of the chart.
fn spans_table(run: &Run, lang: Lang) -> Option<Table> {
    let t = text::of(lang);
    let panels: Vec<Panel> = [
        (names::REQUESTS_PER_SECOND, t.rate_short, Over::Mean, Unit::Count),
        (names::DURATION_P95, t.p95_worst, Over::Highest, Unit::Millis),
        (names::DURATION_P99, t.p99_worst, Over::Highest, Unit::Millis),
        (names::DURATION_MAX, "max", Over::Highest, Unit::Millis),
        (names::FAILED_SHARE, t.chart_failed, Over::Mean, Unit::Share),
        (names::SERVER_CPUS, t.cpu, Over::Mean, Unit::Count),
        (names::SERVER_RSS, t.memory, Over::Last, Unit::Bytes),
        (names::QUEUE_WAITING, t.waiting, Over::Last, Unit::Count),
        (names::QUEUE_ACTIVE, t.active, Over::Last, Unit::Count),
        (names::ADMITTED_PER_SECOND, t.admitted, Over::Mean, Unit::Count),
    ]
    .into_iter()
    .filter(|(name, ..)| has(&run.series, name))
    .map(|(name, title, over, unit)| Panel { over, ..panel(run, title, unit, &[(name, title, 0)]) })
    .collect();
    let chart = stack_of(run, "", "", panels, lang);
    let rows = chart.span_rows(lang);
    if chart.is_empty() || rows.len() < 2 {
        return None;
    }
    let head = std::iter::once(t.time.to_string())
        .chain(chart.panels.into_iter().map(|panel| panel.title))
        .collect();
    Some(Table { caption: String::new(), head, rows, figures: true })
}

fn beside_original(run: &Run, others: &[Run], lang: Lang) -> Section {
    let t = text::of(lang);
    let theirs = originals(&run.test);
    let mut blocks = vec![Block::Table(original_table(run, others, lang))];
    blocks.push(Block::says(format!("{} {}", t.original_note, t.original_closed)));
    let ours: Vec<&Run> = std::iter::once(run).chain(others).collect();
    let mut compared: Vec<String> = labels(&ours, lang);
    if let Some(first) = compared.first_mut() {
        *first = format!("{} ({first})", t.this_run);
    }
    compared.extend(theirs.iter().map(|o| original_name(o, lang)));
    // Nothing stands in place of the lowest value, which keeps the average apart from the percentiles.
    let places = 0..ladder(lang).len();
    let lines = compared
        .into_iter()
        .enumerate()
        .map(|(style, name)| Line {
            name,
            values: places
                .clone()
                .map(|place| match ours.get(style) {
                    _ if place == LOWEST => None,
                    Some(run) => duration(run, ladder(lang)[place].1),
                    None => original_figure(&theirs[style - ours.len()], place),
                })
                .collect(),
            style,
        })
        .collect();
    let chart = Chart {
        id: "original-chart".into(),
        title: t.ladder_title.into(),
        caption: t.ladder_hint.into(),
        along: Along::Names(places.clone().map(|place| short_name(place, lang)).collect()),
        axis_name: t.figure.into(),
        at: places.map(|place| place as f64).collect(),
        marks: Vec::new(),
        bands: Vec::new(),
        panels: vec![Panel {
            title: t.ladder_title.into(),
            unit: Unit::Millis,
            may_be_log: true,
            lines,
            limit: None,
            tall: true,
            over: Over::Highest,
        }],
    };
    if !chart.is_empty() {
        blocks.push(Block::Chart(chart));
    }
    section("original", t.original, blocks)
}

/// The place of the lowest value in [`ladder`].
const LOWEST: usize = 1;

/// The name of a place in [`ladder`], short enough to stand under an axis.
fn short_name(place: usize, lang: Lang) -> String {
    match place {
        0 => text::of(lang).s_average.to_string(),
        LOWEST => String::new(),
        2 => "p50".to_string(),
        7 => "max".to_string(),
        _ => ladder(lang).swap_remove(place).0,
    }
}

/// The original's figure by its place in [`ladder`].
fn original_figure(o: &Original, place: usize) -> Option<f64> {
    match place {
        0 => Some(o.avg),
        2 => Some(o.med),
        3 => Some(o.p90),
        4 => Some(o.p95),
        7 => Some(o.max),
        _ => None,
    }
}

/// The original's columns, ours, and how ours differs.
pub(super) fn original_table(run: &Run, others: &[Run], lang: Lang) -> Table {
    let t = text::of(lang);
    let theirs = originals(&run.test);
    let like = original_for(run);
    let ours: Vec<&Run> = std::iter::once(run).chain(others).collect();
    let mut head = vec![t.figure.to_string()];
    head.extend(theirs.iter().map(|o| original_name(o, lang)));
    let names = labels(&ours, lang);
    head.push(format!("{} ({})", t.this_run, names[0]));
    head.extend(names.into_iter().skip(1));
    let against = like.map_or_else(|| t.original_short.to_string(), |o| original_name(o, lang));
    head.push(format!("{} ÷ {against}", t.this_run));

    let mut rows = Vec::new();
    let mut add = |name: String,
                   of_theirs: &dyn Fn(&Original) -> Option<f64>,
                   of_ours: &dyn Fn(&Run) -> Option<f64>,
                   say: &dyn Fn(f64) -> String,
                   differ: &dyn Fn(f64, f64) -> Option<String>| {
        let mut row = vec![Cell::new(name)];
        row.extend(theirs.iter().map(|o| match of_theirs(o) {
            Some(value) => Cell::new(say(value)),
            None => Cell::toned("—", Tone::Missing),
        }));
        for (index, run) in ours.iter().enumerate() {
            let mut cell = Cell::of(of_ours(run), lang, say);
            if index == 0 && cell.tone == Tone::Plain {
                cell.tone = Tone::Strong;
            }
            row.push(cell);
        }
        let difference = match (of_ours(run), like.and_then(of_theirs)) {
            (Some(ours), Some(theirs)) => differ(ours, theirs),
            _ => None,
        };
        row.push(Cell::new(difference.unwrap_or_else(|| "—".to_string())));
        rows.push(row);
    };
    let times = |ours: f64, theirs: f64| text::times(ours, theirs, lang);
    add(
        t.requests.into(),
        &|o| Some(o.requests as f64),
        &|r| of_totals(r, |v| v.requests as f64),
        &|v| number::count(v as u64),
        &times,
    );
    add(
        t.tps.into(),
        &|o| Some(o.requests_per_second),
        &|r| of_totals(r, |v| v.requests_per_second),
        &number::plain,
        &times,
    );
    add(
        t.error_rate.into(),
        &|o| Some(o.failed_share),
        &|r| of_totals(r, |v| v.failed_share),
        &|v| number::share(v, lang),
        &|ours, theirs| Some(text::points(ours, theirs, lang)),
    );
    for (index, (name, get)) in ladder(lang).into_iter().enumerate() {
        if index == LOWEST {
            continue;
        }
        add(
            name,
            &|o| original_figure(o, index),
            &|r| duration(r, get),
            &|v| number::millis(v, lang),
            &times,
        );
    }
    Table { caption: String::new(), head, rows, figures: true }
}

fn conditions(run: &Run, others: &[Run], lang: Lang) -> Section {
    let t = text::of(lang);
    let runs: Vec<&Run> = std::iter::once(run).chain(others).collect();
    let mut blocks = vec![Block::Table(conditions_table(&runs, true, lang))];
    push_chart(&mut blocks, conditions_stack(&runs, lang));
    section("conditions", t.conditions, blocks)
}

/// One column for each run.
pub(super) fn conditions_table(runs: &[&Run], first_is_this: bool, lang: Lang) -> Table {
    let t = text::of(lang);
    let mut head = vec![t.figure.to_string()];
    head.extend(labels(runs, lang));
    if first_is_this && let Some(first) = head.get_mut(1) {
        *first = format!("{} ({first})", t.this_run);
    }
    let mut rows = Vec::new();
    let mut add = |name: &str, get: &dyn Fn(&Run) -> Cell| {
        let mut row = vec![Cell::new(name)];
        row.extend(runs.iter().map(|run| get(run)));
        rows.push(row);
    };
    add(t.outcome, &|r| {
        let (sign, word) = text::outcome(r.verdict.outcome, lang);
        let tone = if r.verdict.outcome == Outcome::Pass { Tone::Good } else { Tone::Bad };
        Cell::toned(format!("{sign} {word}"), tone)
    });
    add(t.requests, &|r| counted(r.totals.as_ref().map(|v| v.requests), lang));
    add(t.tps, &|r| Cell::of(of_totals(r, |v| v.requests_per_second), lang, number::plain));
    add(t.error_rate, &|r| failed_cell(of_totals(r, |v| v.failed_share), lang));
    for (name, get) in ladder(lang) {
        if name != t.lowest {
            add(&name, &|r| Cell::of(duration(r, get), lang, |v| number::millis(v, lang)));
        }
    }
    add(t.service_cpu, &|r| {
        Cell::of(cpu_mean(r), lang, |used| match cpu_limit(r) {
            Some(limit) => format!("{} / {}", number::plain(used), number::plain(limit)),
            None => number::plain(used),
        })
    });
    add(t.cpu_per_request, &|r| {
        Cell::of(r.server.cpu_micros_per_request, lang, |v| number::micros(v, lang))
    });
    add(t.memory_peak_short, &|r| {
        Cell::of(r.server.peak_rss_bytes.map(|b| b as f64), lang, number::bytes)
    });
    if runs.iter().any(|r| r.breakpoint.is_some()) {
        add(t.knee_tile, &|r| {
            Cell::of(r.breakpoint.as_ref().and_then(|b| b.knee_per_second), lang, number::plain)
        });
    }
    if runs.iter().any(|r| r.safe_rate.is_some()) {
        add(t.safe_tile, &|r| {
            Cell::of(r.safe_rate.as_ref().map(|s| s.per_second), lang, number::plain)
        });
    }
    add(t.saturated_share, &|r| {
        Cell::of(r.generator.saturated_share, lang, |v| number::share(v, lang))
    });
    Table { caption: String::new(), head, rows, figures: true }
}

/// The series of several runs on whole seconds: each has its own clock.
fn conditions_stack(runs: &[&Run], lang: Lang) -> Chart {
    const MOST_SECONDS: f64 = 14_400.0;
    let t = text::of(lang);
    let last = runs
        .iter()
        .flat_map(|r| r.series.at.iter().copied())
        .filter(|at| at.is_finite() && *at <= MOST_SECONDS)
        .fold(0.0f64, f64::max);
    let at: Vec<f64> = (0..=last.ceil() as usize).map(|s| s as f64).collect();
    let names_of = labels(runs, lang);
    let of = |title: &str, unit: Unit, name: &str, may_be_log: bool, tall: bool| Panel {
        title: title.to_string(),
        unit,
        may_be_log,
        lines: runs
            .iter()
            .zip(&names_of)
            .enumerate()
            .map(|(style, (run, label))| {
                let mut values = vec![None; at.len()];
                for (i, moment) in run.series.at.iter().enumerate() {
                    let value =
                        run.series.values.get(name).and_then(|v| v.get(i).copied().flatten());
                    if moment.is_finite()
                        && *moment >= 0.0
                        && let Some(slot) = values.get_mut(moment.round() as usize)
                    {
                        *slot = value;
                    }
                }
                Line { name: label.clone(), values, style }
            })
            .collect(),
        limit: None,
        tall,
        over: over(unit),
    };
    let panels = vec![
        of(t.chart_rate, Unit::Count, names::REQUESTS_PER_SECOND, false, false),
        of(&format!("{}, p95", t.chart_latency), Unit::Millis, names::DURATION_P95, true, true),
        of(t.cpu, Unit::Count, names::SERVER_CPUS, false, false),
        of(t.chart_memory, Unit::Bytes, names::SERVER_RSS, false, false),
    ];
    Chart {
        id: "conditions-chart".into(),
        title: t.same_axis.into(),
        caption: t.stack_hint.into(),
        along: Along::Seconds,
        axis_name: t.time_axis.into(),
        at,
        marks: Vec::new(),
        bands: Vec::new(),
        panels,
    }
}

fn errors(run: &Run, lang: Lang) -> Section {
    let t = text::of(lang);
    let mut blocks = Vec::new();
    match &run.totals {
        None => {
            blocks.push(Block::says(text::no_totals(lang)));
            blocks.push(Block::Table(Table {
                caption: String::new(),
                head: Vec::new(),
                rows: vec![vec![Cell::new(t.error_rate), Cell::of(None, lang, number::plain)]],
                figures: true,
            }));
        }
        Some(totals) => {
            let failed: Vec<(String, u64)> = totals
                .errors
                .iter()
                .filter(|(_, count)| **count > 0)
                .map(|(name, count)| (text::error(name, lang), *count))
                .collect();
            if failed.is_empty() {
                blocks.push(Block::says(if totals.failed_share > 0.0 {
                    t.kinds_unknown
                } else {
                    t.no_errors
                }));
            } else {
                blocks.push(Block::Table(counts_table(
                    t.error_kinds,
                    failed.into_iter(),
                    totals.requests,
                    lang,
                )));
            }
            let (rejected, rest): (Vec<_>, Vec<_>) =
                totals.counters.iter().partition(|(name, _)| name.starts_with("rejected_"));
            blocks.push(Block::Heading(t.rejections.to_string()));
            if rejected.is_empty() {
                blocks.push(Block::says(t.no_rejections));
            } else {
                blocks.push(Block::Table(counts_table(
                    "",
                    rejected.into_iter().map(|(name, count)| (text::counter(name, lang), *count)),
                    totals.requests,
                    lang,
                )));
                blocks.push(Block::says(t.rejections_note));
            }
            if !rest.is_empty() {
                blocks.push(Block::Heading(t.other_counts.to_string()));
                blocks.push(Block::Table(Table {
                    caption: String::new(),
                    head: vec![t.kind.into(), t.number.into()],
                    rows: rest
                        .into_iter()
                        .map(|(name, count)| {
                            vec![
                                Cell::new(text::counter(name, lang)),
                                Cell::new(number::count(*count)),
                            ]
                        })
                        .collect(),
                    figures: true,
                }));
            }
        }
    }
    section("errors", t.errors, blocks)
}

fn counts_table(
    caption: &str,
    counts: impl Iterator<Item = (String, u64)>,
    of: u64,
    lang: Lang,
) -> Table {
    let t = text::of(lang);
    let mut counts: Vec<(String, u64)> = counts.collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Table {
        caption: caption.to_string(),
        head: vec![t.kind.into(), t.number.into(), t.of_requests.into()],
        rows: counts
            .into_iter()
            .map(|(name, count)| {
                let share = (of > 0).then(|| count as f64 / of as f64);
                vec![
                    Cell::new(name),
                    Cell::new(number::count(count)),
                    Cell::of(share, lang, |v| number::share(v, lang)),
                ]
            })
            .collect(),
        figures: true,
    }
}

fn resources(run: &Run, lang: Lang) -> Section {
    let t = text::of(lang);
    let seconds = |v: f64| number::span(v, lang);
    let server = &run.server;
    let generator = &run.generator;
    let code = |code: Option<i32>| Cell::of(code.map(f64::from), lang, |v| format!("{v}"));
    let generator_mean = generator
        .cpu_seconds
        .filter(|_| run.elapsed_seconds > 0.0)
        .map(|s| s / run.elapsed_seconds);
    let rows = vec![
        vec![
            Cell::new(t.cpu_seconds),
            Cell::of(server.cpu_seconds, lang, seconds),
            Cell::of(generator.cpu_seconds, lang, seconds),
        ],
        vec![
            Cell::new(t.chart_cpu),
            Cell::of(cpu_mean(run), lang, |used| match cpu_limit(run) {
                Some(limit) => format!("{} / {}", number::plain(used), number::plain(limit)),
                None => number::plain(used),
            }),
            Cell::of(generator_mean, lang, number::plain),
        ],
        vec![
            Cell::new(t.cpu_per_request),
            Cell::of(server.cpu_micros_per_request, lang, |v| number::micros(v, lang)),
            Cell::of(
                generator
                    .cpu_seconds
                    .zip(run.totals.as_ref().map(|v| v.requests).filter(|r| *r > 0))
                    .map(|(s, requests)| s * 1e6 / requests as f64),
                lang,
                |v| number::micros(v, lang),
            ),
        ],
        vec![
            Cell::new(t.memory_peak_short),
            Cell::of(server.peak_rss_bytes.map(|b| b as f64), lang, number::bytes),
            Cell::of(generator.peak_rss_bytes.map(|b| b as f64), lang, number::bytes),
        ],
        vec![Cell::new(t.exit_code), code(server.exit_code), code(generator.exit_code)],
    ];
    let mut blocks = vec![Block::Table(Table {
        caption: String::new(),
        head: vec![t.figure.into(), t.service.into(), "k6".into()],
        rows,
        figures: true,
    })];
    blocks.push(Block::Heading(t.generator.to_string()));
    blocks.push(Block::says(text::generator_verdict(
        generator.saturated_share,
        generator.dropped_iterations,
        lang,
    )));
    let warn = |mut cell: Cell, bad: bool| {
        if bad {
            cell.tone = Tone::Bad;
        }
        cell
    };
    blocks.push(Block::Table(Table {
        caption: String::new(),
        head: Vec::new(),
        rows: vec![
            vec![
                Cell::new(t.dropped),
                warn(
                    counted(generator.dropped_iterations, lang),
                    generator.dropped_iterations.is_some_and(|d| d > 0),
                ),
            ],
            vec![
                Cell::new(t.saturated_share),
                warn(
                    Cell::of(generator.saturated_share, lang, |v| number::share(v, lang)),
                    generator.saturated_share.is_some_and(|s| s > 0.0),
                ),
            ],
            vec![Cell::new(t.vus_max), counted(generator.vus_max, lang)],
        ],
        figures: true,
    }));
    let changed = || server.counters.iter().filter(|(_, value)| **value != 0.0);
    if changed().count() > 0 {
        blocks.push(Block::Details {
            summary: t.server_counts.to_string(),
            blocks: vec![Block::Table(Table {
                caption: String::new(),
                head: vec![t.kind.into(), t.number.into()],
                rows: changed()
                    .map(|(name, value)| {
                        vec![Cell::new(name), Cell::of(Some(*value), lang, number::plain)]
                    })
                    .collect(),
                figures: true,
            })],
        });
    }
    section("resources", t.resources, blocks)
}

pub(super) fn limit(run: &Run, found: &Breakpoint, lang: Lang) -> Section {
    let t = text::of(lang);
    let mut blocks = Vec::new();
    let first = found
        .knee_per_second
        .map_or(t.held_to_the_end.to_string(), |rate| text::knee(rate, found.knee_at, lang));
    let (what, then) = text::resource(found.saturated, lang);
    blocks.push(Block::Paragraph(vec![
        Inline::Strong(first),
        Inline::Text(format!(" {}: ", t.saturated_what)),
        Inline::Strong(what.to_string()),
        Inline::Text(format!(". {then}")),
    ]));
    blocks.push(Block::Heading(t.evidence.to_string()));
    if found.evidence.is_empty() {
        blocks.push(Block::says(t.no_evidence));
    } else {
        blocks.push(Block::List(
            found.evidence.iter().map(|e| vec![Inline::Text(text::said(e, lang))]).collect(),
        ));
    }
    push_chart(&mut blocks, limit_stack(run, found, lang));
    blocks.push(Block::Heading(t.confirmations.to_string()));
    if found.confirmations.is_empty() {
        blocks.push(Block::says(t.not_confirmed));
    } else {
        blocks.push(Block::Table(confirmations(found, lang)));
    }
    section("limit", t.limit, blocks)
}

pub(super) fn confirmations(found: &Breakpoint, lang: Lang) -> Table {
    let t = text::of(lang);
    let rows = found
        .confirmations
        .iter()
        .map(|c| {
            let should = c.share < 1.0;
            let word = |held: bool| if held { t.holds } else { t.gives };
            let dropped = Cell::new(number::count(c.dropped_iterations));
            vec![
                Cell::new(number::share(c.share, lang)),
                Cell::of(Some(c.per_second), lang, number::plain),
                failed_cell(Some(c.failed_share), lang),
                dropped,
                Cell::of(c.p95_ms, lang, |v| number::millis(v, lang)),
                Cell::toned(word(c.held), Tone::Strong),
                Cell::toned(
                    if c.held == should { t.as_expected } else { t.not_as_expected },
                    if c.held == should { Tone::Good } else { Tone::Bad },
                ),
            ]
        })
        .collect();
    Table {
        caption: String::new(),
        head: vec![
            t.share_of_limit.into(),
            t.asked.into(),
            t.error_rate.into(),
            "dropped_iterations".into(),
            "p95".into(),
            t.held.into(),
            t.expected.into(),
        ],
        rows,
        figures: true,
    }
}

/// What happened against what was asked for, instead of against time.
fn limit_stack(run: &Run, found: &Breakpoint, lang: Lang) -> Chart {
    const BINS: usize = 60;
    let t = text::of(lang);
    let empty = Vec::new();
    let values = |name: &str| run.series.values.get(name).unwrap_or(&empty);
    let done = values(names::ITERATIONS_PER_SECOND);
    let dropped = values(names::DROPPED_PER_SECOND);
    // What is done and what is dropped add up to what was due.
    let asked: Vec<Option<f64>> = run
        .series
        .at
        .iter()
        .enumerate()
        .map(|(i, at)| {
            if *at < run.series.warm_up_seconds {
                return None;
            }
            let done = done.get(i).copied().flatten().filter(|v| v.is_finite())?;
            Some(done + dropped.get(i).copied().flatten().filter(|v| v.is_finite()).unwrap_or(0.0))
        })
        .collect();
    let most = asked.iter().flatten().copied().fold(0.0f64, f64::max);
    let bin_of = |value: f64| ((value / most * BINS as f64) as usize).min(BINS - 1);
    let mut used = [false; BINS];
    if most > 0.0 {
        for value in asked.iter().flatten() {
            used[bin_of(*value)] = true;
        }
    }
    let at: Vec<f64> =
        (0..BINS).filter(|b| used[*b]).map(|b| (b as f64 + 0.5) * most / BINS as f64).collect();
    let binned = |series: &[Option<f64>]| -> Vec<Option<f64>> {
        let mut sums = [(0.0, 0u32); BINS];
        if most > 0.0 {
            for (i, asked) in asked.iter().enumerate() {
                if let (Some(asked), Some(value)) =
                    (asked, series.get(i).copied().flatten().filter(|v| v.is_finite()))
                {
                    let sum = &mut sums[bin_of(*asked)];
                    sum.0 += value;
                    sum.1 += 1;
                }
            }
        }
        (0..BINS)
            .filter(|b| used[*b])
            .map(|b| (sums[b].1 > 0).then(|| sums[b].0 / f64::from(sums[b].1)))
            .collect()
    };
    let line = |series: &str, name: &str, style: usize| Line {
        name: name.to_string(),
        values: binned(values(series)),
        style,
    };
    let panel = |title: &str, unit: Unit, lines: Vec<Line>| Panel {
        title: title.to_string(),
        unit,
        may_be_log: unit == Unit::Millis,
        lines,
        limit: None,
        tall: false,
        over: Over::Mean,
    };
    let panels = vec![
        panel(
            t.chart_iterations,
            Unit::Count,
            vec![
                Line {
                    name: t.s_asked.into(),
                    values: at.iter().map(|v| Some(*v)).collect(),
                    style: 6,
                },
                line(names::ITERATIONS_PER_SECOND, t.s_done, 0),
            ],
        ),
        Panel {
            tall: true,
            ..panel(
                t.chart_latency,
                Unit::Millis,
                vec![
                    line(names::DURATION_P50, "p50", 0),
                    line(names::DURATION_P95, "p95", 1),
                    line(names::DURATION_P99, "p99", 2),
                ],
            )
        },
        Panel {
            limit: cpu_level(run, lang),
            ..panel(
                t.chart_cpu,
                Unit::Count,
                vec![
                    line(names::SERVER_CPUS, t.s_service, 0),
                    line(names::GENERATOR_CPUS, t.s_generator, 1),
                    line(names::MACHINE_CPUS, t.s_machine, 6),
                ],
            )
        },
        panel(t.chart_commit, Unit::Millis, vec![line(names::COMMIT_MS, t.s_commit, 0)]),
        panel(t.chart_shed, Unit::Count, vec![line(names::SHED_PER_SECOND, t.s_shed, 1)]),
    ];
    let mut marks: Vec<Mark> =
        found.knee_per_second.map(|at| Mark { at, name: t.knee.to_string() }).into_iter().collect();
    marks.extend(found.confirmations.iter().map(|c| Mark {
        at: c.per_second,
        name: format!("{} {}", number::share(c.share, lang), if c.held { "✓" } else { "✗" }),
    }));
    Chart {
        id: "limit-chart".into(),
        title: t.limit_title.into(),
        caption: t.limit_hint.into(),
        along: Along::Number,
        axis_name: t.asked_axis.into(),
        at,
        bands: Vec::new(),
        marks,
        panels,
    }
}

pub(super) fn safe_rate(run: &Run, lang: Lang) -> Section {
    let t = text::of(lang);
    let mut blocks = Vec::new();
    match run.safe_rate.as_ref().filter(|rate| rate.per_second.is_finite()) {
        None => blocks.push(Block::says(t.no_safe_rate)),
        Some(rate) => {
            let (sentence, sums, notes) = text::safe_rate(
                rate,
                run.breakpoint.as_ref().and_then(|b| b.knee_per_second),
                lang,
            );
            blocks.push(Block::Paragraph(vec![
                Inline::Strong(sentence),
                Inline::Text(format!(" {}", t.safe_caution)),
            ]));
            blocks.push(Block::Heading(t.arithmetic.to_string()));
            blocks.push(Block::Table(Table {
                caption: String::new(),
                head: Vec::new(),
                rows: sums
                    .into_iter()
                    .map(|sum| vec![Cell::new(sum.what), Cell::new(sum.formula)])
                    .collect(),
                figures: false,
            }));
            if !notes.is_empty() {
                blocks
                    .push(Block::List(notes.into_iter().map(|n| vec![Inline::Text(n)]).collect()));
            }
        }
    }
    section("safe-rate", t.safe_rate, blocks)
}

fn baseline(run: &Run, lang: Lang) -> Section {
    let t = text::of(lang);
    let mut blocks = Vec::new();
    match &run.baseline {
        None => blocks.push(Block::says(t.no_baseline)),
        Some(base) => {
            if let Some(ratio) = base.p95_ratio.filter(|r| r.is_finite()) {
                blocks.push(Block::Paragraph(vec![Inline::Strong(text::baseline_ratio(
                    ratio, lang,
                ))]));
            }
            blocks.push(Block::says(t.baseline_note));
            let mut rows = Vec::new();
            let mut add = |name: String,
                           ours: Option<f64>,
                           theirs: Option<f64>,
                           say: &dyn Fn(f64) -> String| {
                let ratio = ours.zip(theirs).filter(|(_, b)| *b > 0.0).map(|(a, b)| a / b);
                rows.push(vec![
                    Cell::new(name),
                    Cell::of(ours, lang, say),
                    Cell::of(theirs, lang, say),
                    Cell::of(ratio, lang, |v| format!("{}×", number::plain(v))),
                ]);
            };
            add(
                t.tps.into(),
                of_totals(run, |v| v.requests_per_second),
                Some(base.totals.requests_per_second),
                &number::plain,
            );
            for (name, get) in ladder(lang) {
                add(name, duration(run, get), get(&base.totals.duration), &|v| {
                    number::millis(v, lang)
                });
            }
            let per = |seconds: Option<f64>, requests: Option<u64>| {
                seconds.zip(requests.filter(|r| *r > 0)).map(|(s, r)| s * 1e6 / r as f64)
            };
            add(
                t.cpu_per_request.into(),
                run.server.cpu_micros_per_request,
                per(base.server_cpu_seconds, Some(base.totals.requests)),
                &|v| number::micros(v, lang),
            );
            blocks.push(Block::Table(Table {
                caption: String::new(),
                head: vec![
                    t.figure.into(),
                    t.service.into(),
                    t.static_answers.into(),
                    t.ratio.into(),
                ],
                rows,
                figures: true,
            }));
        }
    }
    section("baseline", t.baseline, blocks)
}

fn audit(run: &Run, lang: Lang) -> Section {
    let t = text::of(lang);
    let blocks = match &run.audit {
        None => vec![Block::Table(Table {
            caption: t.audit_none.to_string(),
            head: Vec::new(),
            rows: vec![vec![Cell::new(t.audit), Cell::of(None, lang, number::plain)]],
            figures: false,
        })],
        Some(audit) => {
            let said = if audit.clean { t.audit_clean } else { t.audit_dirty };
            let mut blocks = vec![Block::Paragraph(vec![Inline::Strong(said.to_string())])];
            if audit.output.trim().is_empty() {
                blocks.push(Block::says(t.audit_empty));
            } else {
                blocks.push(Block::Code(audit.output.clone()));
            }
            blocks
        }
    };
    section("audit", t.audit, blocks)
}

fn pairs(map: &BTreeMap<String, String>, lang: Lang) -> String {
    if map.is_empty() {
        return text::of(lang).none.to_string();
    }
    map.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

fn the_run(run: &Run, lang: Lang) -> Section {
    let t = text::of(lang);
    let (kind, why) = text::kind(run.kind, lang);
    let machine = &run.machine;
    let commit = run.commit.as_deref();
    let dirty = commit.is_some_and(|c| c.ends_with("-dirty"));
    let rows = vec![
        vec![Cell::new(t.test), Cell::new(&run.test)],
        vec![Cell::new(t.test_kind), Cell::new(format!("{kind}: {why}"))],
        vec![Cell::new(t.script), Cell::new(&run.script)],
        vec![Cell::new(t.started_at), Cell::new(moment(&run.started_at))],
        vec![
            Cell::new(t.lasted),
            Cell::of(Some(run.elapsed_seconds), lang, |v| number::span(v, lang)),
        ],
        vec![
            Cell::new(t.machine),
            Cell::new(format!(
                "{} · {} × {} · {}",
                machine.cpu,
                machine.cpus,
                t.cpu_word,
                number::bytes(machine.memory_bytes as f64)
            )),
        ],
        vec![Cell::new(t.kernel), Cell::new(&machine.kernel)],
        vec![
            Cell::new(t.load_before),
            Cell::of(Some(machine.load_average_before), lang, number::plain),
        ],
        vec![Cell::new("k6"), Cell::new(&run.generator.k6_version)],
        vec![
            Cell::new(t.commit),
            commit.map_or_else(
                || Cell::toned(t.no_commit, Tone::Missing),
                |c| if dirty { Cell::new(format!("{c} · {}", t.dirty)) } else { Cell::new(c) },
            ),
        ],
        vec![Cell::new(t.condition), Cell::new(text::condition(&run.condition, lang))],
        vec![Cell::new(t.settings), Cell::new(pairs(&run.condition.settings, lang))],
        vec![Cell::new(t.variables), Cell::new(pairs(&run.condition.env, lang))],
    ];
    let mut blocks = vec![Block::Table(Table {
        caption: String::new(),
        head: Vec::new(),
        rows,
        figures: false,
    })];
    blocks.push(Block::says(t.repeat));
    blocks.push(Block::Code(repeat(run)));
    if matches!(run.condition.service, Service::Url { .. }) {
        blocks.push(Block::says(t.repeat_url));
    }
    section("run", t.the_run, blocks)
}

/// The command line that makes the same run again.
pub(super) fn repeat(run: &Run) -> String {
    const PROGRAM: &str = "cargo run --release -p loadtest --";
    if !run.arguments.is_empty() {
        let words = run.arguments.iter().map(|word| quote(word));
        return std::iter::once(PROGRAM.to_string()).chain(words).collect::<Vec<_>>().join(" ");
    }
    // A run that was kept without them.
    let name = if run.kind == crate::model::TestKind::Custom { &run.script } else { &run.test };
    let mut words = vec![format!("{PROGRAM} run"), quote(name)];
    match &run.condition.service {
        Service::Embedded => {}
        Service::Cluster { instances } => words.push(format!("--cluster {instances}")),
        Service::Url { url } => words.push(format!("--url {}", quote(url))),
    }
    if let Some(cpus) = run.condition.cpus {
        words.push(format!("--cpus {cpus}"));
    }
    if run.baseline.is_some() {
        words.push("--baseline".to_string());
    }
    for (name, value) in &run.condition.settings {
        words.push(format!("--set {}", quote(&format!("{name}={value}"))));
    }
    for (name, value) in &run.condition.env {
        words.push(format!("-e {}", quote(&format!("{name}={value}"))));
    }
    words.join(" ")
}

/// A word for a shell, quoted where it must be.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
