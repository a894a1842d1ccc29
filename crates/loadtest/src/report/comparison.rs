//! One run held against another, for a terminal. In English, as all that the program prints.

use std::fmt::Write as _;

use boxoffice_report::{is_trick, number};

use super::{Lang, section, text};
use crate::compare::{Change, Comparison, Figure, Row};
use crate::model::Run;

pub(crate) fn comparison_text(a: &Run, b: &Run, comparison: &Comparison) -> String {
    let mut out = String::new();
    for (name, run) in [("A", a), ("B", b)] {
        let (sign, word) = text::outcome(run.verdict.outcome, Lang::En);
        let _ = writeln!(
            out,
            "{name}  {}: {}  {sign} {word}",
            plain(&section::title(run, Lang::En)),
            plain(&section::subtitle(run, Lang::En))
        );
    }
    out.push('\n');
    let head = ["figure", "A", "B", "B ÷ A", "same within", ""].map(str::to_string);
    let mut lines = vec![head];
    lines.extend(comparison.rows.iter().map(line));
    let widths: Vec<usize> = (0..head_len(&lines))
        .map(|i| lines.iter().map(|l| l[i].chars().count()).max().unwrap_or(0))
        .collect();
    for line in &lines {
        let mut said = String::new();
        for (i, cell) in line.iter().enumerate() {
            // Names at the left, figures at the right, the word at the end as it is.
            let _ = match i {
                0 => write!(said, "{cell:<width$}", width = widths[i]),
                5 => write!(said, "  {cell}"),
                _ => write!(said, "  {cell:>width$}", width = widths[i]),
            };
        }
        let _ = writeln!(out, "{}", said.trim_end());
    }
    out.push('\n');
    for note in &comparison.notes {
        let _ = writeln!(out, "Not quite the same measurement: {}", plain(note));
    }
    let named = |change: Change| -> Vec<String> {
        comparison.rows.iter().filter(|r| r.change == change).map(name).collect()
    };
    for (change, says) in [
        (Change::Worse, "B is worse than A in"),
        (Change::Missing, "B lacks what A has, which is no pass:"),
        (Change::Better, "B is better than A in"),
    ] {
        let rows = named(change);
        if !rows.is_empty() {
            let _ = writeln!(out, "{says} {}.", rows.join(", "));
        }
    }
    if !comparison.regressed() {
        out.push_str("B is no worse than A, as far as two runs can tell.\n");
    }
    out
}

fn head_len(lines: &[[String; 6]]) -> usize {
    lines.first().map_or(0, |l| l.len())
}

/// Text from a run for a terminal: nothing that moves the cursor or turns the line round.
fn plain(text: &str) -> String {
    text.chars().map(|c| if is_trick(c) { '\u{fffd}' } else { c }).collect()
}

fn name(row: &Row) -> String {
    let figure = match row.figure {
        Figure::Median => "median",
        Figure::P95 => "p95",
        Figure::P99 => "p99",
        Figure::RequestsPerSecond => "requests per second",
        Figure::CpuPerRequest => "CPU per request",
        Figure::FailedShare => "failed requests",
        Figure::ChecksFailedShare => "failed checks",
        Figure::Knee => "limit per second",
        Figure::PeakMemory => "peak memory",
    };
    match &row.request {
        Some(request) => format!("{figure} of {}", plain(request)),
        None => figure.to_string(),
    }
}

fn say(figure: Figure, value: f64) -> String {
    match figure {
        Figure::Median | Figure::P95 | Figure::P99 => number::millis(value, Lang::En),
        Figure::RequestsPerSecond | Figure::Knee => number::plain(value),
        Figure::CpuPerRequest => number::micros(value, Lang::En),
        Figure::FailedShare | Figure::ChecksFailedShare => number::share(value, Lang::En),
        Figure::PeakMemory => number::bytes(value),
    }
}

fn line(row: &Row) -> [String; 6] {
    let value = |v: Option<f64>| {
        v.filter(|v| v.is_finite())
            .map_or_else(|| "not measured".to_string(), |v| say(row.figure, v))
    };
    let ratio = row
        .ratio()
        .filter(|r| r.is_finite())
        .map_or_else(|| "—".to_string(), |r| format!("{}×", number::plain(r)));
    let change = match row.change {
        Change::Better => "better",
        Change::Same => "same",
        Change::Worse => "WORSE",
        Change::Unknown => "unknown",
        Change::Missing => "MISSING",
    };
    let margin =
        format!("{} and {}", number::share(row.margin, Lang::En), say(row.figure, row.floor));
    [name(row), value(row.a), value(row.b), ratio, margin, change.to_string()]
}
