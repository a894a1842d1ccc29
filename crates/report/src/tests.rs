//! What matters of a page: that it shows what it was given, as text, and draws what was measured and nothing else.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;

#[cfg(feature = "external")]
mod browser;

const LANGUAGES: [Language; 2] = [Language::En, Language::Ko];

/// Text that wants to be more than text, and is longer than any line.
fn hostile() -> String {
    let trick = "</script><script>document.title='taken'</script><img src=x onerror=document.title='taken'>\
                 <!--<script> \"'`&amp;{{ 7*7 }} 🎟️\u{202e}\0 ";
    let text = format!("{trick}{}", "x".repeat(200));
    assert!(text.chars().count() > 200);
    text
}

fn line(name: &str, values: Vec<Option<f64>>, style: usize) -> Line {
    Line { name: name.into(), values, style }
}

fn panel(title: &str, unit: Unit, lines: Vec<Line>) -> Panel {
    let may_be_log = unit == Unit::Millis;
    Panel {
        title: title.into(),
        unit,
        may_be_log,
        lines,
        limit: None,
        tall: false,
        over: Over::Mean,
    }
}

fn chart(at: Vec<f64>, panels: Vec<Panel>) -> Chart {
    Chart {
        id: "c".into(),
        title: "Chart".into(),
        caption: "How to read it.".into(),
        along: Along::Seconds,
        axis_name: "time".into(),
        at,
        marks: Vec::new(),
        bands: Vec::new(),
        panels,
    }
}

fn document(language: Language, blocks: Vec<Block>) -> Document {
    Document {
        language,
        kind: "Kind".into(),
        title: "Title".into(),
        subtitle: "Subtitle".into(),
        sections: vec![Section { id: "s".into(), title: "Section".into(), outcome: None, blocks }],
        footer: "Footer".into(),
    }
}

/// A document with every kind of block. `say` makes each of its texts.
fn everything(language: Language, say: &dyn Fn(&str) -> String) -> Document {
    let seconds: Vec<f64> = (-60..240).map(f64::from).collect();
    let of = |get: &dyn Fn(f64) -> Option<f64>| seconds.iter().map(|at| get(*at)).collect();
    let bad = |at: f64| (2.0..95.0).contains(&at);
    let requests = Panel {
        limit: Some(Limit { at: 900.0, name: say("promised: 900") }),
        ..panel(
            &say("Requests per second"),
            Unit::Count,
            vec![
                line(
                    &say("done"),
                    of(&|at| {
                        (!(20.0..24.0).contains(&at)).then_some(if bad(at) {
                            310.0
                        } else {
                            1240.0
                        })
                    }),
                    0,
                ),
                line(&say("failed"), of(&|at| Some(if bad(at) { 930.0 } else { 0.0 })), 1),
            ],
        )
    };
    let latency = Panel {
        tall: true,
        over: Over::Highest,
        ..panel(
            &say("Latency"),
            Unit::Millis,
            (0..4)
                .map(|style| {
                    line(
                        &say(["p50", "p95", "p99", "max"][style]),
                        of(&|at| {
                            Some(f64::from(1u32 << (2 * style)) * if bad(at) { 90.0 } else { 1.3 })
                        }),
                        style,
                    )
                })
                .collect(),
        )
    };
    let memory = panel(
        &say("Memory"),
        Unit::Bytes,
        vec![line(&say("in use"), of(&|at| Some(2e8 + at * 1e5)), 0)],
    );
    let share =
        panel(&say("Sent away"), Unit::Share, vec![line(&say("sent away"), of(&|_| Some(0.0)), 1)]);
    let mark = |at: f64, name: &str| Mark { at, name: say(name) };
    let timeline = Chart {
        id: "timeline".into(),
        title: say("What happened"),
        caption: say("A gap means that nothing was measured there."),
        axis_name: say("time since the fault"),
        marks: vec![
            mark(0.0, "fault"),
            mark(2.0, "first bad second"),
            mark(31.0, "alarm"),
            mark(78.0, "action"),
            mark(95.0, "back to normal"),
        ],
        bands: vec![Band { from: 2.0, to: 95.0, name: say("promises broken") }],
        ..chart(seconds.clone(), vec![requests, latency, memory, share])
    };
    let ladder = Chart {
        id: "ladder".into(),
        along: Along::Names(["p50", "p95", "max"].map(say).into()),
        ..chart(
            vec![0.0, 1.0, 2.0],
            vec![panel(
                &say("Latency, side by side"),
                Unit::Millis,
                vec![
                    line(&say("before"), vec![Some(1.0), Some(9.0), Some(120.0)], 0),
                    line(&say("after"), vec![Some(2.0), None, Some(90.0)], 1),
                ],
            )],
        )
    };
    let table = || Table {
        caption: say("What was done"),
        head: vec![say("Step"), say("Took")],
        rows: vec![
            vec![Cell::new(say("restart")), Cell::toned(say("4 s"), Tone::Good)],
            vec![Cell::new(say("wait")), Cell::of(None, language, |_| String::new())],
        ],
        figures: true,
    };
    let verdict =
        |tone, says: &str| Verdict { tone, says: say(says), detail: say("30 s, 60 s allowed") };
    let section = |id: &str, title: &str, blocks| Section {
        id: id.into(),
        title: say(title),
        outcome: None,
        blocks,
    };
    Document {
        language,
        kind: say("boxoffice · Incident report"),
        title: say("Redis stopped"),
        subtitle: say("2026-11-23 01:20 UTC"),
        sections: vec![
            Section {
                outcome: Some(Outcome { tone: Tone::Mind, sign: "◐", word: say("RECOVERED") }),
                ..section(
                    "verdict",
                    "Verdict",
                    vec![
                        Block::Paragraph(vec![
                            Inline::Text(say("Sales stood still for ")),
                            Inline::Strong(say("93 s")),
                            Inline::Text(": ".into()),
                            Inline::Code(say("redis-cli shutdown")),
                        ]),
                        Block::Figures(vec![
                            Figure {
                                name: say("Until the alarm"),
                                value: Cell::new(say("31 s")),
                                note: say("60 s allowed"),
                            },
                            Figure {
                                name: say("Until it was over"),
                                value: Cell::toned(say("95 s"), Tone::Bad),
                                note: String::new(),
                            },
                        ]),
                        Block::Verdicts(vec![
                            verdict(Tone::Good, "The alarm came in time."),
                            verdict(Tone::Mind, "Nobody was told who waited."),
                            verdict(Tone::Bad, "It took too long."),
                        ]),
                    ],
                )
            },
            section(
                "timeline-section",
                "What happened",
                vec![Block::Heading(say("Timeline")), Block::Chart(timeline), Block::Chart(ladder)],
            ),
            section(
                "actions",
                "What was done",
                vec![
                    Block::Table(table()),
                    Block::List(vec![
                        vec![Inline::Text(say("first"))],
                        vec![Inline::Code(say("second"))],
                    ]),
                    Block::Details {
                        summary: say("More"),
                        blocks: vec![Block::Table(table()), Block::Code(say("log line"))],
                    },
                ],
            ),
        ],
        footer: say("That is all."),
    }
}

/// The data of each chart, as the script of the page reads them.
fn plots(html: &str) -> Vec<Value> {
    html.split("<script type=\"application/json\">")
        .skip(1)
        .map(|rest| serde_json::from_str(rest.split("</script>").next().unwrap()).unwrap())
        .collect()
}

fn plot(chart: Chart) -> Value {
    let html = render_html(&document(Language::En, vec![Block::Chart(chart)]));
    plots(&html).pop().unwrap()
}

#[test]
fn what_is_vendored_is_what_the_readme_says() {
    let readme = include_str!("../vendor/uplot/README.md");
    let files: [(&str, &[u8]); 3] = [
        ("uPlot.iife.min.js", include_bytes!("../vendor/uplot/uPlot.iife.min.js")),
        ("uPlot.min.css", include_bytes!("../vendor/uplot/uPlot.min.css")),
        ("LICENSE", include_bytes!("../vendor/uplot/LICENSE")),
    ];
    for (name, bytes) in files {
        let digest: String =
            Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{name}`"))).unwrap();
        assert!(row.contains(&digest), "{name} has {digest}");
    }
    let script = include_str!("../vendor/uplot/uPlot.iife.min.js");
    assert!(script.contains("(v1.6.31)") && readme.starts_with("# uPlot 1.6.31\n"));
    // It stands in pages as it is.
    assert!(!script.contains("</script") && !script.contains("<!--"));
}

#[test]
fn hostile_text_stays_text() {
    for language in LANGUAGES {
        let html = render_html(&everything(language, &|_| hostile()));
        assert!(!html.contains("<img") && !html.contains("\u{202e}") && !html.contains('\0'));
        // The script of the page, and the data of two charts: each begins and ends once.
        assert_eq!(html.matches("<script").count(), 3);
        assert_eq!(html.matches("</script>").count(), 3);
        let plots = plots(&html);
        let name = plots[0]["panels"][0]["lines"][0]["name"].as_str().unwrap();
        assert!(name.starts_with("</script><script>") && name.contains("🎟️"), "{name}");
        let said = render_markdown(&everything(language, &|_| hostile()));
        // Code is shown as it is; everywhere else it is escaped.
        assert_eq!(said.matches("<img").count(), 3, "{said}");
        let escaped = said.matches("&lt;img").count() + said.matches("&#60;img").count();
        assert_eq!(escaped + 3, said.matches("img src=x").count());
    }
}

#[test]
fn both_forms_say_the_same() {
    for language in LANGUAGES {
        let document = everything(language, &str::to_string);
        let (html, markdown) = (render_html(&document), render_markdown(&document));
        for said in [
            "Redis stopped",
            "2026-11-23 01:20 UTC",
            "RECOVERED",
            "◐",
            "93 s",
            "redis-cli shutdown",
            "Until the alarm",
            "60 s allowed",
            "The alarm came in time.",
            "Nobody was told who waited.",
            "30 s, 60 s allowed",
            "What was done",
            "restart",
            "4 s",
            not_measured(language),
            "first",
            "second",
            "More",
            "log line",
            "That is all.",
        ] {
            assert!(html.contains(said), "no {said} in HTML");
            assert!(markdown.contains(said), "no {said} in Markdown");
        }
        assert!(markdown.starts_with("# Redis stopped\n\n## Verdict: ◐ RECOVERED\n"));
        assert!(markdown.contains("- ✓ The alarm") && markdown.contains("- ✗ It took too long"));
        let lang =
            if language == Language::Ko { "<html lang=\"ko\">" } else { "<html lang=\"en\">" };
        assert!(html.contains(lang));
    }
}

#[test]
fn a_chart_says_what_it_shows_in_words_and_as_a_table() {
    let html = render_html(&everything(Language::En, &str::to_string));
    let words = html.split("id=\"timeline-says\">").nth(1).unwrap().split("</p>").next().unwrap();
    assert!(words.contains("Latency: p50: mean 28.8 ms, highest 90 ms (0:02);"), "{words}");
    assert!(html.contains("<li class=\"mark\"><span class=\"sign\" aria-hidden=\"true\"></span>alarm <span class=\"at\">0:31</span></li>"));
    assert!(html.contains(
        "<li class=\"band\"><span class=\"sign\" aria-hidden=\"true\"></span>promises broken</li>"
    ));
    let table = html.split("<figure").nth(1).unwrap().split("<table").nth(1).unwrap();
    assert!(table.contains("<th scope=\"col\">Latency: p95 (highest)</th>"), "{table:.900}");
    assert!(table.contains("<th scope=\"row\">−1:00</th>"), "{table:.900}");
    assert!(html.contains("<noscript>"));
}

#[test]
fn a_page_without_charts_has_no_script() {
    let html = render_html(&document(Language::En, vec![Block::says("Words.")]));
    assert!(html.contains("<p>Words.</p>") && !html.contains("<script") && !html.contains("uPlot"));
    let inner = vec![Block::Chart(chart(
        vec![0.0],
        vec![panel("p", Unit::Count, vec![line("l", vec![Some(1.0)], 0)])],
    ))];
    let html = render_html(&document(
        Language::En,
        vec![Block::Details { summary: "More".into(), blocks: inner }],
    ));
    assert!(html.contains("uPlot=function"), "a chart in details is drawn too");
}

#[test]
fn charts_take_whatever_comes() {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -5.0, 0.0, 1e-300, 1e300, 3.0];
    for may_be_log in [false, true] {
        for unit in [Unit::Count, Unit::Millis, Unit::Share, Unit::Bytes] {
            for length in [1usize, 2, 3, 8, 4000, 4001] {
                let values = (0..length).map(|i| Some(odd[i % odd.len()])).collect();
                let odd_panel = Panel {
                    may_be_log,
                    limit: Some(Limit { at: f64::NAN, name: "x".into() }),
                    ..panel("p", unit, vec![line("l", values, 9)])
                };
                let chart = Chart {
                    marks: vec![
                        Mark { at: f64::NAN, name: "n".into() },
                        Mark { at: 1e12, name: "far".into() },
                        Mark { at: 0.0, name: "a very long name that fits nowhere ".repeat(5) },
                    ],
                    bands: vec![Band { from: 0.0, to: 1e9, name: "all".into() }],
                    ..chart((0..length).map(|i| i as f64).collect(), vec![odd_panel])
                };
                if chart.is_empty() {
                    assert!(length < 4, "{length}");
                    continue;
                }
                let html = render_html(&document(Language::En, vec![Block::Chart(chart)]));
                assert!(!html.contains("NaN") && !html.contains("inf "), "{unit:?} {length}");
                let plot = plots(&html).pop().unwrap();
                assert_eq!(plot["marks"].as_array().unwrap().len(), 1, "{}", plot["marks"]);
                assert_eq!(plot["bands"][0][1], plot["high"], "a band ends where the axis does");
                assert!(plot["panels"][0]["limit"].is_null());
                assert_eq!(plot["panels"][0]["lines"][0]["style"], 2);
                let places = plot["at"].as_array().unwrap();
                assert!(places.len() <= 1801, "{}", places.len());
                assert!(places.windows(2).all(|pair| pair[0].as_f64() < pair[1].as_f64()));
            }
        }
    }
}

#[test]
fn a_chart_without_values_is_no_chart() {
    let of = |at: Vec<f64>, values| {
        chart(at, vec![panel("p", Unit::Millis, vec![line("l", values, 0)])])
    };
    assert!(of(vec![], vec![]).is_empty());
    assert!(of(vec![0.0, 1.0], vec![None, None]).is_empty());
    assert!(of(vec![0.0, 1.0], vec![Some(f64::NAN), None]).is_empty());
    assert!(of(vec![f64::NAN], vec![Some(1.0)]).is_empty());
    // Values beyond the axis are left out.
    let one = of(vec![0.0], vec![Some(2.0), Some(3.0)]);
    assert!(!one.is_empty());
    assert_eq!(plot(one)["panels"][0]["lines"][0]["values"], serde_json::json!([2.0]));
}

#[test]
fn what_was_not_measured_is_a_gap() {
    let of = |at: Vec<f64>, values| {
        plot(chart(at, vec![panel("p", Unit::Count, vec![line("l", values, 0)])]))
    };
    let values = vec![Some(1.0), None, Some(f64::NAN), Some(3.0)];
    let drawn = of((0..4).map(f64::from).collect(), values);
    assert_eq!(drawn["panels"][0]["lines"][0]["values"], serde_json::json!([1.0, null, null, 3.0]));
    // A hole in the time axis is a gap as well.
    let drawn = of(vec![0.0, 1.0, 2.0, 3.0, 60.0, 61.0], vec![Some(1.0); 6]);
    assert_eq!(drawn["at"], serde_json::json!([0.0, 1.0, 2.0, 3.0, 31.5, 60.0, 61.0]));
    assert_eq!(
        drawn["panels"][0]["lines"][0]["values"],
        serde_json::json!([1.0, 1.0, 1.0, 1.0, null, 1.0, 1.0])
    );
    // So is one that is wide enough to be seen where many values are drawn as few.
    let many = (0..20_000).map(|i| (!(5_000..6_000).contains(&i)).then_some(1.0)).collect();
    let drawn = of((0..20_000).map(f64::from).collect(), many);
    let values = drawn["panels"][0]["lines"][0]["values"].as_array().unwrap();
    let gaps = values.iter().filter(|v| v.is_null()).count();
    assert!((60..=100).contains(&gaps), "{gaps} of {}", values.len());
}

#[test]
fn of_many_values_the_highest_and_lowest_are_drawn() {
    let values = (0..20_000)
        .map(|i| {
            Some(match i {
                7_777 => 9_000.0,
                8_888 => 1.0,
                _ => 50.0,
            })
        })
        .collect();
    let drawn = plot(chart(
        (0..20_000).map(f64::from).collect(),
        vec![panel("p", Unit::Count, vec![line("l", values, 0)])],
    ));
    let values: Vec<f64> = drawn["panels"][0]["lines"][0]["values"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    assert!(values.len() <= 1800, "{}", values.len());
    assert_eq!(values.iter().filter(|v| **v == 9_000.0).count(), 1);
    assert_eq!(values.iter().filter(|v| **v == 1.0).count(), 1);
}

#[test]
fn values_that_span_decades_are_logarithmic_where_that_is_wanted() {
    let of = |values: &[f64], may_be_log| {
        let values = values.iter().map(|v| Some(*v)).collect();
        let panel = Panel { may_be_log, ..panel("p", Unit::Millis, vec![line("l", values, 0)]) };
        let drawn = plot(chart(vec![0.0, 1.0, 2.0], vec![panel]));
        (
            drawn["panels"][0]["log"].as_bool().unwrap(),
            drawn["panels"][0]["zero"].as_bool().unwrap(),
        )
    };
    assert_eq!(of(&[1.0, 5.0, 200.0], true), (true, false));
    assert_eq!(of(&[1.0, 5.0, 200.0], false), (false, false));
    assert_eq!(of(&[1.0, 5.0, 14.0], true), (false, false));
    assert_eq!(of(&[0.0, 0.0, 0.0], true), (false, true));
    // Zero is at the bottom of a logarithmic axis, and does not make one.
    assert_eq!(of(&[0.0, 5.0, 6.0], true), (false, false));
}
