//! What matters of a report: that it is whole, says the verdict first, and never shows what is missing
//! as a figure.

use boxoffice_report::not_measured;

use super::*;
use crate::compare::{self, Change, Figure};
use crate::model::{FindingCode, Outcome, Resource, Service, TestKind, names};

const LANGS: [Lang; 2] = [Lang::En, Lang::Ko];

#[test]
fn promises_are_told_where_waits_were_watched() {
    for lang in LANGS {
        let mut run = fixture::passed();
        assert!(!section::summary(&run, lang).contains("87.5"));
        for (name, value) in [
            ("boxoffice_queue_eta_ratio_count{queue=\"a\"}", 300.0),
            ("boxoffice_queue_eta_ratio_count{queue=\"b\"}", 100.0),
            ("boxoffice_queue_eta_kept_total{queue=\"a\"}", 350.0),
        ] {
            run.server.counters.insert(name.to_owned(), value);
        }
        let said = section::summary(&run, lang);
        assert!(said.contains("400") && said.contains("87.5"), "{said}");
    }
}

/// Whether tags open and close in order, attributes are quoted, and every `&` begins an entity.
fn well_formed(html: &str) -> Result<(), String> {
    const VOID: [&str; 3] = ["meta", "br", "!DOCTYPE"];
    let mut open: Vec<String> = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        entities(&rest[..at])?;
        rest = &rest[at + 1..];
        let end = tag_end(rest).ok_or_else(|| format!("a tag does not end: {:.60}", rest))?;
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            let last = open.pop();
            if last.as_deref() != Some(name) {
                return Err(format!("</{name}> closes {last:?}"));
            }
            continue;
        }
        let name: String = tag.chars().take_while(|c| !c.is_whitespace() && *c != '/').collect();
        if name.is_empty() {
            return Err(format!("<{tag:.40}> has no name"));
        }
        attributes(&tag[name.len()..])?;
        if VOID.contains(&name.as_str()) || tag.ends_with('/') {
            continue;
        }
        // What is no markup ends with its tag, whatever is in it.
        if name == "style" || name == "script" {
            let end = format!("</{name}>");
            let close = rest.find(&end).ok_or_else(|| format!("no {end}"))?;
            rest = &rest[close + end.len()..];
            continue;
        }
        open.push(name);
    }
    entities(rest)?;
    if open.is_empty() { Ok(()) } else { Err(format!("left open: {open:?}")) }
}

fn tag_end(rest: &str) -> Option<usize> {
    let mut quoted = false;
    for (i, c) in rest.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '>' if !quoted => return Some(i),
            '<' => return None,
            _ => {}
        }
    }
    None
}

fn attributes(text: &str) -> Result<(), String> {
    let mut rest = text.trim().trim_end_matches('/').trim();
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else {
            return if rest == "html" {
                Ok(())
            } else {
                Err(format!("attribute without a value: {rest}"))
            };
        };
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(format!("attribute {name}"));
        }
        let inner = after.strip_prefix('"').ok_or_else(|| format!("{name} is not quoted"))?;
        let (value, after) =
            inner.split_once('"').ok_or_else(|| format!("{name} is not closed"))?;
        entities(value)?;
        rest = after.trim_start();
    }
    Ok(())
}

fn entities(text: &str) -> Result<(), String> {
    for part in text.split('&').skip(1) {
        let name: String = part.chars().take_while(|c| *c != ';').take(8).collect();
        if !["#38", "#60", "#62", "#34", "#39"].contains(&name.as_str()) {
            return Err(format!("&{name}"));
        }
    }
    if text.contains('>') { Err(format!("a bare > in {text:.60}")) } else { Ok(()) }
}

#[test]
fn the_checker_of_html_finds_faults() {
    assert!(well_formed("<p>a</p><br/>").is_ok());
    for bad in
        ["<p>a", "<p><b>x</p></b>", "<p a=b>x</p>", "a & b", "<p a=\"x>y</p>", "a > b", "< p>x</p>"]
    {
        assert!(well_formed(bad).is_err(), "{bad}");
    }
}

/// Each fixture by itself, and one with others beside it.
fn reports(lang: Lang) -> Vec<(String, String, String)> {
    let mut out = Vec::new();
    for (name, run) in fixture::all() {
        out.push((name.to_string(), html(&run, &[], lang), markdown(&run, &[], lang)));
    }
    let others: Vec<_> = fixture::all().into_iter().map(|(_, run)| run).collect();
    let run = fixture::passed();
    out.push(("beside".to_string(), html(&run, &others, lang), markdown(&run, &others, lang)));
    out
}

#[test]
fn every_page_is_well_formed_and_needs_nothing_else() {
    for lang in LANGS {
        for (name, html, _) in reports(lang) {
            well_formed(&html).unwrap_or_else(|fault| panic!("{name}: {fault}"));
            // uPlot is in the page, and the only script but ours; the rest is data.
            for script in html.split("<script").skip(1) {
                assert!(
                    script.starts_with(">\n/*!")
                        || script.starts_with(" type=\"application/json\">"),
                    "{name}: {script:.60}"
                );
            }
            for needs in [
                "<script src",
                "fetch(",
                "XMLHttpRequest",
                "import(",
                "<link",
                "<img",
                "<iframe",
                " src=\"",
                "url(",
                "@import",
                "href=\"http",
                " onerror=\"",
            ] {
                assert!(!html.contains(needs), "{name} has {needs}");
            }
            assert!(!html.contains("NaN") && !html.contains("inf\""), "{name}: not a number");
            let ids: Vec<&str> =
                html.split(" id=\"").skip(1).filter_map(|part| part.split('"').next()).collect();
            let mut once = ids.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), ids.len(), "{name}: an id is there twice");
        }
    }
}

#[test]
fn names_from_a_run_stay_text() {
    let run = fixture::empty();
    for lang in LANGS {
        let (html, markdown) = (
            html(&run, std::slice::from_ref(&run), lang),
            markdown(&run, std::slice::from_ref(&run), lang),
        );
        assert!(html.contains("&#60;img src=x"));
        for trick in ["<img", "\u{202e}", "\0"] {
            assert!(!html.contains(trick), "{trick:?} in HTML");
        }
        // As many ends as beginnings: none came from the run.
        assert_eq!(html.matches("</script>").count(), html.matches("<script").count());
        // Outside of code, which Markdown does not read.
        let mut fence: Option<&str> = None;
        for line in markdown.lines() {
            match fence {
                Some(open) if line == open => fence = None,
                Some(_) => {}
                None if line.starts_with("```") => fence = Some(line),
                None => {
                    for trick in ["<img", "</script>", "[x](", "\u{202e}"] {
                        assert!(!line.contains(trick), "{trick:?} in {line}");
                    }
                    assert!(!line.starts_with("# x"));
                }
            }
        }
        assert!(fence.is_none(), "a fence is left open");
    }
}

#[test]
fn a_fence_in_the_audit_ends_no_code() {
    let mut run = fixture::passed();
    run.audit =
        Some(crate::model::Audit { clean: false, output: "````\n# not a heading\n````".into() });
    let text = markdown(&run, &[], Lang::En);
    assert!(text.contains("`````\n````\n# not a heading\n````\n`````"));
}

#[test]
fn the_verdict_comes_first() {
    for lang in LANGS {
        for (name, html, markdown) in reports(lang) {
            let body = html.split_once("<main>").unwrap().1;
            let verdict = body.find("class=\"outcome").unwrap();
            for later in ["<table", "<figure", "<h3", "<dl"] {
                if let Some(at) = body.find(later) {
                    assert!(verdict < at, "{name}: {later} is before the verdict");
                }
            }
            let headings: Vec<&str> = markdown.lines().filter(|l| l.starts_with("## ")).collect();
            assert!(headings[0].contains(text::of(lang).verdict), "{name}: {}", headings[0]);
        }
    }
    let html = html(&fixture::failed(), &[], Lang::En);
    let reason = html.find("The service ended, or could not be reached").unwrap();
    assert!(reason < html.find("<dl").unwrap(), "the reasons are before the figures");
    assert!(html.contains("exit code 101 after 61 s"));
    assert!(html.contains("<strong>FAIL</strong>"));
}

#[test]
fn what_is_missing_is_said_to_be_missing() {
    let run = fixture::interrupted();
    for lang in LANGS {
        let missing = not_measured(lang);
        let (html, markdown) = (html(&run, &[], lang), markdown(&run, &[], lang));
        // Totals, their latencies in three kinds, tiles.
        assert!(html.matches(missing).count() > 30, "{}", html.matches(missing).count());
        assert!(markdown.matches(missing).count() > 30);
        assert!(html.contains(text::of(lang).audit_none));
        assert!(html.contains(text::of(lang).no_baseline));
        let row = |name: &str| {
            let start =
                markdown.find(&format!("| {name} |")).unwrap_or_else(|| panic!("no row {name}"));
            markdown[start..].lines().next().unwrap().to_string()
        };
        let failed = row(text::of(lang).error_rate);
        assert_eq!(failed.split('|').nth(2), Some(format!(" *{missing}* ").as_str()), "{failed}");
        assert!(row("p95").contains(missing));
    }
    // And a single figure among others.
    let text = markdown(&fixture::failed(), &[], Lang::En);
    let row = text.lines().find(|l| l.starts_with("| p99.9 |")).unwrap();
    assert!(row.contains("*not measured*") && row.contains("21 ms"), "{row}");
    assert!(text.contains("Not measured in this run: Memory of the service, people let in."));
    assert!(text.contains("dropped\\_iterations) | *not measured* |"));
}

#[test]
fn a_zero_that_was_measured_is_a_zero() {
    let text = markdown(&fixture::passed(), &[], Lang::En);
    assert!(text.contains("| Error rate | 0 % |"));
    assert!(text.contains("dropped\\_iterations) | 0 |"));
    assert!(text.contains("No request failed."));
}

#[test]
fn errors_and_intended_rejections_are_apart() {
    let text = markdown(&fixture::failed(), &[], Lang::En);
    let errors = text.find("Errors by kind").unwrap();
    let rejections = text.find("### Intended rejections").unwrap();
    let of = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what}"));
    assert!((errors..rejections).contains(&of("connection refused")));
    assert!(of("seat taken by somebody faster") > rejections);
}

#[test]
fn the_original_stands_beside_ours() {
    let text = markdown(&fixture::passed(), &[fixture::two_cpus()], Lang::En);
    let row = text.lines().find(|l| l.starts_with("| p95 | 10 s |")).unwrap();
    assert_eq!(row, "| p95 | 10 s | 8.17 s | **9.7 ms** | 6.79 ms | 1/1,031 |");
    // On two CPUs there is no original; the first is taken, and the head says so.
    let text = markdown(&fixture::two_cpus(), &[], Lang::Ko);
    assert!(text.contains("이번 실행 ÷ 원본, CPU 1"));
}

#[test]
fn conditions_stand_side_by_side() {
    let others = [fixture::two_cpus(), fixture::cluster(), fixture::passed()];
    let text = markdown(&fixture::passed(), &others, Lang::En);
    let head = text.lines().skip_while(|l| *l != "## Conditions side by side").nth(2).unwrap();
    assert!(
        head.contains("this run (CPU 1, 2026-11-23 01:20 UTC)") && head.contains("| CPU 2 |"),
        "{head}"
    );
    assert!(head.contains("3 × CPU 1"), "{head}");
}

#[test]
fn the_arithmetic_is_shown_and_checked() {
    let text = markdown(&fixture::knee(), &[], Lang::En);
    for step in [
        "1 CPU × 70 % = 0.7 CPU",
        "10,000 people ÷ 3 s = 3,333 polls/s; × 60 µs = 0.2 CPU",
        "0.48 CPU ÷ 1,100 µs per buyer = 440 per second",
        "640 per second × 70 % = 448 per second",
        "Up to 440 people may be let in per second",
    ] {
        assert!(text.contains(step), "no {step}");
    }
    assert!(!text.contains("is not what this arithmetic gives"));
    let mut wrong = fixture::knee();
    if let Some(rate) = &mut wrong.safe_rate {
        rate.per_second = 900.0;
    }
    assert!(markdown(&wrong, &[], Lang::En).contains("is not what this arithmetic gives"));
    if let Some(rate) = &mut wrong.safe_rate {
        rate.waiting = 1e6;
        rate.per_second = 0.0;
    }
    assert!(markdown(&wrong, &[], Lang::En).contains("Nobody can safely be let in while"));
}

#[test]
fn the_limit_is_named_with_its_evidence() {
    let html = html(&fixture::knee(), &[], Lang::Ko);
    for said in ["서비스의 CPU", "the service used 0.98 of 1 CPU", "80% ✓", "120% ✗", "예상대로"]
    {
        assert!(html.contains(said), "no {said}");
    }
    let mut run = fixture::knee();
    if let Some(found) = &mut run.breakpoint {
        found.knee_per_second = None;
        found.knee_at = None;
        found.saturated = Resource::None;
        found.confirmations.clear();
    }
    let text = markdown(&run, &[], Lang::En);
    assert!(text.contains("It held to the end of the ramp"));
    assert!(text.contains("was not confirmed"));
}

#[test]
fn the_command_line_can_be_pasted() {
    let mut run = fixture::cluster();
    run.condition.env.insert("NOTE".into(), "it's; rm -rf /".into());
    assert_eq!(
        section::repeat(&run),
        "cargo run --release -p loadtest -- run scenario1 --cluster 3 --cpus 1 --set queue.admit_per_second=80 \
         -e DURATION=2m -e 'NOTE=it'\\''s; rm -rf /' -e VUS=10000"
    );
    run.condition.service = Service::Url { url: "http://127.0.0.1:8080".into() };
    run.condition.cpus = None;
    assert!(section::repeat(&run).contains("--url http://127.0.0.1:8080 --set"));
    // What was really given is better than what can be told from the condition.
    run.arguments = ["run", "load", "-e", "NOTE=a b", "--quick"].map(str::to_owned).to_vec();
    assert_eq!(
        section::repeat(&run),
        "cargo run --release -p loadtest -- run load -e 'NOTE=a b' --quick"
    );
}

#[test]
fn everything_has_words_in_both_languages() {
    use FindingCode as F;
    let codes = [
        F::ThresholdCrossed,
        F::ThresholdBeyondGenerator,
        F::RequestsFailed,
        F::ChecksFailed,
        F::AuditViolations,
        F::AuditMissing,
        F::MetricMissing,
        F::ServiceDied,
        F::GeneratorFailed,
        F::GeneratorSaturated,
        F::DroppedIterations,
        F::Interrupted,
        F::LimitNotConfirmed,
        F::NoisyMachine,
    ];
    let hangul = |text: &str| text.chars().any(|c| ('가'..='힣').contains(&c));
    for code in codes {
        assert!(
            !hangul(text::finding(code, Lang::En)) && hangul(text::finding(code, Lang::Ko)),
            "{code:?}"
        );
    }
    for resource in [
        Resource::ServerCpu,
        Resource::Store,
        Resource::Generator,
        Resource::ConcurrencyLimit,
        Resource::None,
        Resource::Unknown,
    ] {
        assert!(
            hangul(text::resource(resource, Lang::Ko).0)
                && !hangul(text::resource(resource, Lang::En).0)
        );
    }
    for kind in [
        TestKind::Scenario,
        TestKind::Load,
        TestKind::Stress,
        TestKind::Breakpoint,
        TestKind::Spike,
        TestKind::Custom,
    ] {
        assert!(hangul(text::kind(kind, Lang::Ko).1) && !hangul(text::kind(kind, Lang::En).1));
    }
    for outcome in [Outcome::Pass, Outcome::Fail, Outcome::Incomplete] {
        assert!(hangul(text::outcome(outcome, Lang::Ko).1));
    }
    for name in fixture::cluster().series.values.keys() {
        assert!(text::series(name, Lang::Ko).is_some(), "{name}");
    }
    // Nothing but names may be left in English in a Korean report.
    let ko = markdown(&fixture::passed(), &[], Lang::Ko);
    for word in ["not measured", "Requests", "Latency", " per second", "The run"] {
        assert!(!ko.contains(word), "{word} in the Korean report");
    }
}

#[test]
fn a_run_reads_the_same_after_it_was_kept() {
    for (name, run) in fixture::all() {
        if name == "empty" {
            continue; // JSON knows no NaN, so no such run can be read.
        }
        let kept: Run = serde_json::from_str(&serde_json::to_string(&run).unwrap()).unwrap();
        assert_eq!(markdown(&run, &[], Lang::En), markdown(&kept, &[], Lang::En), "{name}");
    }
}

#[test]
fn a_long_run_stays_a_small_file() {
    let mut run = fixture::passed();
    let seconds = 7200;
    run.series.at = (0..seconds).map(f64::from).collect();
    for values in run.series.values.values_mut() {
        *values = (0..seconds).map(|s| Some(f64::from(s % 97) + 0.5)).collect();
    }
    let html = html(&run, &[fixture::passed()], Lang::En);
    assert!(html.len() < 1_500_000, "{} bytes", html.len());
    well_formed(&html).unwrap();
}

#[test]
fn no_heading_in_markdown_stands_over_nothing() {
    for lang in LANGS {
        for (name, _, text) in reports(lang) {
            // Names in code may begin with one of them.
            let depth = |line: &str| line.find(|c| c != '#').filter(|&depth| depth > 1);
            let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            for pair in lines.windows(2) {
                if let (Some(above), Some(below)) = (depth(pair[0]), depth(pair[1])) {
                    assert!(above < below, "{name}: {pair:?}");
                }
            }
        }
    }
}

#[test]
fn the_warm_up_is_shaded_and_said() {
    let html = html(&fixture::knee(), &[], Lang::En);
    assert!(html.contains("<li class=\"band\">") && html.contains("shaded: warm-up"));
    assert!(html.contains("\"bands\":[[0.0,20.0]]"));
    assert!(html.contains("The first 20 s are warm-up and not counted."));
    let plain = super::html(&fixture::passed(), &[], Lang::En);
    assert!(!plain.contains("class=\"band\"") && !plain.contains("\"bands\":[["));
}

#[test]
fn the_document_of_all_runs_has_all_of_it() {
    let mut older = fixture::passed();
    older.started_at = "2026-11-22T01:20:07Z".into();
    older.totals = None;
    let runs = [
        older,
        fixture::knee(),
        fixture::failed(),
        fixture::cluster(),
        fixture::two_cpus(),
        fixture::passed(),
    ];
    for lang in LANGS {
        let text = performance_doc(&runs, lang);
        let t = text::of(lang);
        for said in [
            t.doc_summary,
            t.doc_what,
            t.doc_indicators,
            t.doc_kinds,
            t.doc_scenarios,
            "## scenario1",
            "## scenario4",
            "## breakpoint",
            "--cluster 3",
            "8.17",
            t.doc_analysis,
        ] {
            assert!(text.contains(said), "{lang:?}: no {said}");
        }
        assert!(text.find("## scenario1").unwrap() < text.find("## breakpoint").unwrap());
        assert!(!text.contains("2026-11-22"), "the older run of the same condition is left out");
        let first_two = text.find("CPU 1 |").unwrap() < text.find("CPU 2 |").unwrap();
        assert!(first_two, "few CPUs first");
        let whole = with_analysis(&text, "## By hand\n\nWords.\n");
        assert!(whole.contains("Words.") && !whole.contains("<!-- analysis -->"));
        assert!(!with_analysis(&text, "").contains("<!--"));
        // Making it again gives the same text.
        assert_eq!(text, performance_doc(&runs, lang));
    }
    assert!(performance_doc(&[], Lang::En).contains("There are no runs yet."));
    performance_doc(&[fixture::empty()], Lang::Ko);
}

#[test]
fn a_comparison_says_what_got_worse() {
    let (a, mut b) = (fixture::passed(), fixture::passed());
    if let Some(totals) = &mut b.totals {
        totals.duration = fixture::latency(5.0);
        totals.duration.p99 = None;
    }
    let text = comparison_text(&a, &b, &compare::compare(&a, &b));
    assert!(text.starts_with("A  scenario1: one process, 1 CPU"), "{text}");
    assert!(text.contains("B is worse than A in median, p95"), "{text}");
    assert!(text.contains("B lacks what A has, which is no pass: p99."), "{text}");
    assert!(text.contains("not measured"), "{text}");
    let same = comparison_text(&a, &a, &compare::compare(&a, &a));
    assert!(same.contains("B is no worse than A"), "{same}");
    let evil = fixture::empty();
    let text = comparison_text(&evil, &a, &compare::compare(&evil, &a));
    assert!(!text.contains('\0') && !text.contains('\u{202e}'));
}

#[test]
fn of_few_answers_the_median_is_compared() {
    let (a, mut b) = (fixture::passed(), fixture::passed());
    let of_join = |b: &crate::model::Run| {
        let rows = crate::compare::compare(&a, b).rows;
        let row = rows.into_iter().find(|row| row.request.as_deref() == Some("join")).unwrap();
        (row.figure, row.change)
    };
    let join = b.by_request.get_mut("join").unwrap();
    join.p95 = join.p95.map(|p95| p95 * 3.0);
    assert_eq!(of_join(&b), (Figure::P95, Change::Worse));
    b.by_request.get_mut("join").unwrap().count = Some(20);
    assert_eq!(of_join(&b), (Figure::Median, Change::Same));
    let join = b.by_request.get_mut("join").unwrap();
    join.med = join.med.map(|med| med * 3.0);
    assert_eq!(of_join(&b), (Figure::Median, Change::Worse));
}

#[test]
fn series_of_runs_with_other_clocks_share_an_axis() {
    let mut other = fixture::two_cpus();
    other.series.at = other.series.at.iter().map(|at| at + 0.4).collect();
    let page = html(&fixture::passed(), &[other], Lang::En);
    assert!(page.contains("id=\"conditions-chart\""));
    let mut far = fixture::two_cpus();
    far.series.at = vec![1e18; far.series.at.len()];
    far.series.values.insert(names::VUS.into(), Vec::new());
    well_formed(&html(&far, &[fixture::passed()], Lang::En)).unwrap();
}
