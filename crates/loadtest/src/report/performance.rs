//! `docs/PERFORMANCE.md`: the report of all runs, in the form of the original.

use boxoffice_report::{Block, Cell, Inline, Table, Tone, markdown, number};

use super::section::{self, cpu_limit, cpu_mean, duration};
use super::{Lang, text};
use crate::catalogue;
use crate::model::{Outcome, Run, Service, TestKind};

/// Where what is written by hand is put in.
const ANALYSIS: &str = "<!-- analysis -->";

/// The runs that the document shows: of each test and condition the newest, in the order of the catalogue.
fn chosen(runs: &[Run]) -> Vec<Vec<&Run>> {
    let mut groups: Vec<Vec<&Run>> = Vec::new();
    let mut tests: Vec<&str> = catalogue::TESTS.iter().map(|t| t.name).collect();
    for run in runs {
        if !tests.contains(&run.test.as_str()) {
            tests.push(&run.test);
        }
    }
    for test in tests {
        let mut of_test: Vec<&Run> = Vec::new();
        for run in runs.iter().filter(|r| r.test == test) {
            match of_test.iter_mut().find(|r| r.condition == run.condition) {
                Some(known) if moment(known) <= moment(run) => *known = run,
                Some(_) => {}
                None => of_test.push(run),
            }
        }
        of_test.sort_by(|a, b| order(a).total_cmp(&order(b)));
        if !of_test.is_empty() {
            groups.push(of_test);
        }
    }
    groups
}

fn moment(run: &Run) -> i128 {
    run.started_at.parse::<jiff::Timestamp>().map_or(i128::MIN, |t| t.as_nanosecond())
}

/// Few CPUs first, one process before a cluster.
fn order(run: &Run) -> f64 {
    let form = match run.condition.service {
        Service::Embedded => 0.0,
        Service::Cluster { instances } => 1000.0 * f64::from(instances),
        Service::Url { .. } => 1e9,
    };
    form + run.condition.cpus.unwrap_or(500.0)
}

/// The document, from runs alone: figures are never typed. What somebody wrote about them is added by
/// [`with_analysis`], and so outlives the next time that the document is made.
pub(crate) fn performance_doc(runs: &[Run], lang: Lang) -> String {
    let t = text::of(lang);
    let groups = chosen(runs);
    let other = match lang {
        Lang::En => "*[한국어](PERFORMANCE.ko.md)*",
        Lang::Ko => "*[English](PERFORMANCE.md)*",
    };
    let mut out = format!("# {}\n\n{other}\n\n{}\n\n", t.doc_title, t.doc_intro);
    if groups.is_empty() {
        out.push_str(t.doc_none);
        out.push_str("\n\n");
    } else {
        write(&mut out, t.doc_summary, &summary(&groups, lang));
    }
    write(&mut out, t.doc_what, &what(lang));
    if !groups.is_empty() {
        write(&mut out, t.doc_machine, &machines(&groups, lang));
    }
    for group in &groups {
        let run = group[0];
        write(&mut out, &section::title(run, lang), &one_test(group, lang));
    }
    if !groups.is_empty() {
        let said = computed(&groups, lang);
        if !said.is_empty() {
            let items = said.into_iter().map(|s| vec![Inline::Text(s)]).collect();
            write(&mut out, t.doc_analysis, &[Block::List(items)]);
        }
    }
    out.push_str(ANALYSIS);
    out.push('\n');
    out
}

/// Puts the analysis that is written by hand at the end of the document.
pub(crate) fn with_analysis(document: &str, analysis: &str) -> String {
    let analysis = analysis.trim();
    match document.rsplit_once(ANALYSIS) {
        Some((before, after)) if analysis.is_empty() => {
            format!("{}\n{}", before.trim_end(), after.trim_start())
        }
        Some((before, after)) => format!("{before}{analysis}\n{}", after.trim_start()),
        None => format!("{}\n\n{analysis}\n", document.trim_end()),
    }
}

fn write(out: &mut String, title: &str, blocks: &[Block]) {
    out.push_str("## ");
    out.push_str(&markdown::escape(title));
    out.push_str("\n\n");
    markdown::blocks(out, blocks, 3);
}

fn plain_table(head: &[&str], rows: Vec<Vec<Cell>>, figures: bool) -> Block {
    Block::Table(Table {
        caption: String::new(),
        head: head.iter().map(|h| (*h).to_string()).collect(),
        rows,
        figures,
    })
}

fn summary(groups: &[Vec<&Run>], lang: Lang) -> Vec<Block> {
    let t = text::of(lang);
    let mut rows = Vec::new();
    for run in groups.iter().flatten() {
        let (sign, word) = text::outcome(run.verdict.outcome, lang);
        let tone = if run.verdict.outcome == Outcome::Pass { Tone::Good } else { Tone::Bad };
        rows.push(vec![
            Cell::new(&run.test),
            Cell::new(text::condition_short(&run.condition, lang)),
            Cell::toned(format!("{sign} {word}"), tone),
            Cell::of(run.totals.as_ref().map(|v| v.requests_per_second), lang, number::plain),
            Cell::of(duration(run, |l| l.med), lang, |v| number::millis(v, lang)),
            Cell::of(duration(run, |l| l.p95), lang, |v| number::millis(v, lang)),
            Cell::of(duration(run, |l| l.p99), lang, |v| number::millis(v, lang)),
            Cell::of(run.totals.as_ref().map(|v| v.failed_share), lang, |v| number::share(v, lang)),
            Cell::of(cpu_mean(run), lang, |used| match cpu_limit(run) {
                Some(limit) => format!("{} / {}", number::plain(used), number::plain(limit)),
                None => number::plain(used),
            }),
        ]);
    }
    let mut blocks = vec![plain_table(
        &[
            t.test,
            t.condition,
            t.outcome,
            t.rate_short,
            "p50",
            "p95",
            "p99",
            t.error_rate,
            t.chart_cpu,
        ],
        rows,
        true,
    )];
    for run in groups.iter().flatten() {
        if let Some(rate) = &run.safe_rate {
            let (sentence, ..) = text::safe_rate(
                rate,
                run.breakpoint.as_ref().and_then(|b| b.knee_per_second),
                lang,
            );
            blocks.push(Block::Paragraph(vec![
                Inline::Strong(sentence),
                Inline::Text(format!(" ({}, {})", run.test, text::condition(&run.condition, lang))),
            ]));
        }
    }
    blocks
}

fn what(lang: Lang) -> Vec<Block> {
    let t = text::of(lang);
    let pair = |name: &str, says: &str| vec![Cell::new(name), Cell::new(says)];
    let indicators = vec![
        pair("TPS", t.i_tps),
        pair(t.latency, t.i_latency),
        pair("connecting, waiting", t.i_connecting),
        pair(t.error_rate, t.i_errors),
        pair(t.cpu_word, t.i_resources),
        pair(t.audit, t.i_audit),
    ];
    let kinds = [TestKind::Load, TestKind::Stress, TestKind::Breakpoint, TestKind::Spike]
        .into_iter()
        .map(|kind| {
            let (name, why) = text::kind(kind, lang);
            pair(name, why)
        })
        .collect();
    let scenarios = catalogue::TESTS
        .iter()
        .filter(|test| test.kind == TestKind::Scenario)
        .map(|test| pair(test.name, purpose(test, lang)))
        .collect();
    vec![
        Block::Heading(t.doc_indicators.to_string()),
        plain_table(&[t.figure, t.meaning], indicators, false),
        Block::Heading(t.doc_kinds.to_string()),
        plain_table(&[t.kind, t.meaning], kinds, false),
        Block::Heading(t.doc_scenarios.to_string()),
        plain_table(&[t.test, t.doc_purpose], scenarios, false),
    ]
}

fn purpose(test: &catalogue::Test, lang: Lang) -> &'static str {
    match lang {
        Lang::En => test.purpose_en,
        Lang::Ko => test.purpose_ko,
    }
}

fn machines(groups: &[Vec<&Run>], lang: Lang) -> Vec<Block> {
    let t = text::of(lang);
    let mut seen: Vec<(String, Vec<String>)> = Vec::new();
    for run in groups.iter().flatten() {
        let m = &run.machine;
        let machine = format!(
            "{} · {} × {} · {} · {} · k6 {}",
            m.cpu,
            m.cpus,
            t.cpu_word,
            number::bytes(m.memory_bytes as f64),
            m.kernel,
            run.generator.k6_version.trim_start_matches("k6 ").trim_start_matches('v')
        );
        let commit =
            run.commit.as_deref().map_or_else(|| t.no_commit.to_string(), section::short_commit);
        match seen.iter_mut().find(|(known, _)| *known == machine) {
            Some((_, commits)) if !commits.contains(&commit) => commits.push(commit),
            Some(_) => {}
            None => seen.push((machine, vec![commit])),
        }
    }
    let mut conditions: Vec<String> = Vec::new();
    for run in groups.iter().flatten() {
        let condition = text::condition(&run.condition, lang);
        if !conditions.contains(&condition) {
            conditions.push(condition);
        }
    }
    let mut items: Vec<Vec<Inline>> = seen
        .into_iter()
        .map(|(machine, commits)| {
            vec![
                Inline::Text(format!("{}: {machine}; {}: ", t.machine, t.commit)),
                Inline::Code(commits.join(", ")),
            ]
        })
        .collect();
    items.push(vec![Inline::Text(format!("{}: {}", t.doc_conditions, conditions.join("; ")))]);
    vec![
        Block::List(items),
        Block::says(t.doc_again),
        Block::Code(
            "cargo run --release -p loadtest -- all --out target/loadtest/all\n\
             cargo run --release -p loadtest -- report target/loadtest/all --performance docs/PERFORMANCE.md\n\
             cargo run --release -p loadtest -- report target/loadtest/all --performance docs/PERFORMANCE.ko.md --lang ko"
                .to_string(),
        ),
    ]
}

fn one_test(group: &[&Run], lang: Lang) -> Vec<Block> {
    let t = text::of(lang);
    let run = group[0];
    let others: Vec<Run> = group[1..].iter().map(|r| (*r).clone()).collect();
    let mut blocks = Vec::new();
    let why =
        catalogue::find(&run.test).map_or(text::kind(run.kind, lang).1, |test| purpose(test, lang));
    blocks.push(Block::Paragraph(vec![
        Inline::Strong(format!("{}.", t.doc_purpose)),
        Inline::Text(format!(" {why}")),
    ]));
    blocks.push(Block::Paragraph(vec![Inline::Strong(format!("{}.", t.doc_conditions))]));
    blocks.push(Block::List(
        group
            .iter()
            .map(|r| {
                let given: Vec<String> = r
                    .condition
                    .env
                    .iter()
                    .chain(&r.condition.settings)
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                let mut item = vec![Inline::Text(format!(
                    "{}, {}",
                    text::condition(&r.condition, lang),
                    section::moment(&r.started_at)
                ))];
                if !given.is_empty() {
                    item.push(Inline::Text(": ".to_string()));
                    item.push(Inline::Code(given.join(" ")));
                }
                item
            })
            .collect(),
    ));
    blocks
        .push(Block::Code(group.iter().map(|r| section::repeat(r)).collect::<Vec<_>>().join("\n")));

    if let Some(found) = &run.breakpoint {
        blocks.extend(section::limit(run, found, lang).blocks);
    }
    if run.safe_rate.is_some() || run.breakpoint.is_some() {
        blocks.push(Block::Heading(t.safe_rate.to_string()));
        blocks.extend(
            section::safe_rate(run, lang)
                .blocks
                .into_iter()
                .filter(|b| !matches!(b, Block::Heading(_))),
        );
    }

    blocks.push(Block::Heading(t.doc_figures.to_string()));
    if section::originals(&run.test).is_empty() {
        blocks.push(Block::Table(section::conditions_table(group, false, lang)));
    } else {
        blocks.push(Block::Table(section::original_table(run, &others, lang)));
        blocks.push(Block::Table(section::conditions_table(group, false, lang)));
    }
    blocks.push(Block::Heading(t.doc_short.to_string()));
    blocks.push(Block::List(
        group
            .iter()
            .map(|r| {
                let (sign, word) = text::outcome(r.verdict.outcome, lang);
                let mut item = vec![
                    Inline::Strong(format!(
                        "{}: {sign} {word}.",
                        text::condition(&r.condition, lang)
                    )),
                    Inline::Text(format!(" {}", section::summary(r, lang))),
                ];
                for finding in &r.verdict.findings {
                    item.push(Inline::Text(format!(" {}", text::finding(finding.code, lang))));
                    if !finding.detail.trim().is_empty() {
                        let detail = text::said(finding.detail.trim(), lang);
                        item.push(Inline::Text(format!(" ({detail})")));
                    }
                }
                item
            })
            .collect(),
    ));
    blocks
}

/// What follows from the figures without anybody's judgement.
fn computed(groups: &[Vec<&Run>], lang: Lang) -> Vec<String> {
    let mut said = Vec::new();
    for group in groups {
        for run in group {
            if let Some(found) = &run.breakpoint {
                let (what, then) = text::resource(found.saturated, lang);
                said.push(text::analysis_limit(
                    &place(run, lang),
                    what,
                    then,
                    &found.evidence,
                    lang,
                ));
            }
        }
        // The effect of CPUs: the fewest against the most, of the same form.
        let embedded: Vec<&&Run> = group
            .iter()
            .filter(|r| r.condition.service == Service::Embedded && r.condition.cpus.is_some())
            .collect();
        if let (Some(few), Some(many)) = (embedded.first(), embedded.last())
            && few.condition.cpus < many.condition.cpus
            && let (Some(a), Some(b)) = (&few.totals, &many.totals)
        {
            said.push(text::analysis_cpus(
                &few.test,
                (
                    &text::condition_short(&few.condition, lang),
                    a.requests_per_second,
                    a.duration.p95,
                ),
                (
                    &text::condition_short(&many.condition, lang),
                    b.requests_per_second,
                    b.duration.p95,
                ),
                lang,
            ));
        }
        // What several instances cost, against one process.
        let cluster = group.iter().find(|r| matches!(r.condition.service, Service::Cluster { .. }));
        if let (Some(one), Some(cluster)) = (embedded.first(), cluster)
            && let (Some(a), Some(b)) =
                (one.server.cpu_micros_per_request, cluster.server.cpu_micros_per_request)
            && a > 0.0
        {
            said.push(text::analysis_cluster(&one.test, a, b, lang));
        }
        for run in group {
            if let Some(ratio) =
                run.baseline.as_ref().and_then(|b| b.p95_ratio).filter(|r| r.is_finite())
            {
                said.push(format!("{}: {}", place(run, lang), text::baseline_ratio(ratio, lang)));
            }
            if run.generator.saturated_share.is_some_and(|s| s > 0.0)
                || run.generator.dropped_iterations.is_some_and(|d| d > 0)
            {
                said.push(format!(
                    "{}: {}",
                    place(run, lang),
                    text::generator_verdict(
                        run.generator.saturated_share,
                        run.generator.dropped_iterations,
                        lang
                    )
                ));
            }
        }
    }
    said
}

fn place(run: &Run, lang: Lang) -> String {
    format!("{} ({})", run.test, text::condition(&run.condition, lang))
}
