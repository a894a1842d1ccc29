//! What the script of the page draws of a chart, as JSON: the places of the axis, and the values of each panel.

use serde_json::{Value, json};

use crate::chart::finite;
use crate::page::readable;
use crate::{Along, Chart, Language, Line, Panel, Unit, words};

/// More places than this are drawn as the highest and lowest of each part: no screen has more columns.
const MOST_PLACES: usize = 1800;

/// The data of a chart. `templates/charts.js` reads it.
pub(crate) fn plot(chart: &Chart, language: Language) -> Value {
    let places = chart.places();
    let all: Vec<f64> = places.iter().map(|i| chart.at[*i]).collect();
    let (low, high) = chart.ends(&all);
    let rows = with_holes(chart, &places, usual_step(&all));
    let every = if rows.len() > MOST_PLACES { (2 * rows.len()).div_ceil(MOST_PLACES) } else { 1 };
    let at = rows.iter().map(|(at, _)| (at * 1000.0).round() / 1000.0).collect();
    let values = |line: &Line, unit: Unit| -> Vec<Option<f64>> {
        let measured =
            rows.iter().map(|(_, i)| finite(line.values.get((*i)?).copied().flatten())).collect();
        thinned(measured, every, lowest_and_highest)
            .into_iter()
            .map(|value| value.map(|value| compact(value, unit)))
            .collect()
    };
    let (axis, names) = match &chart.along {
        Along::Seconds => ("seconds", Vec::new()),
        Along::Number => ("number", Vec::new()),
        Along::Names(names) => ("names", names.iter().map(|name| readable(name)).collect()),
    };
    let marks = chart.marks.iter().filter(|mark| (low..=high).contains(&mark.at));
    let bands = chart.bands.iter().filter(|band| band.to > band.from);
    json!({
        "id": chart.id,
        "axis": axis,
        "names": names,
        "low": low,
        "high": high,
        "at": thinned(at, every, |part| [part[0], part[part.len() / 2]]),
        "marks": marks.map(|mark| level(mark.at, &mark.name)).collect::<Vec<_>>(),
        "bands": bands.map(|band| [band.from.max(low), band.to.min(high)]).collect::<Vec<_>>(),
        "panels": chart.drawn().map(|panel| of_panel(panel, &values, language)).collect::<Vec<_>>(),
    })
}

fn of_panel(
    panel: &Panel,
    values: &impl Fn(&Line, Unit) -> Vec<Option<f64>>,
    language: Language,
) -> Value {
    let w = words::of(language);
    let log = panel.is_log();
    let title =
        if log { format!("{} ({})", panel.title, w.log_scale) } else { panel.title.clone() };
    let limit = panel.limit.as_ref().filter(|limit| limit.at.is_finite());
    let lines = panel.lines().map(|line| {
        // Its main figure, which is seen while nobody points at the chart.
        let peak = line.measured().map(|(_, v)| v).fold(f64::NEG_INFINITY, f64::max);
        json!({
            "name": readable(&line.name),
            "style": line.style % 7,
            "peak": format!("{} {}", w.peak, panel.unit.say(peak, language)),
            "values": values(line, panel.unit),
        })
    });
    json!({
        "title": readable(&title),
        "unit": match panel.unit {
            Unit::Count => "count",
            Unit::Millis => "millis",
            Unit::Share => "share",
            Unit::Bytes => "bytes",
        },
        "log": log,
        "tall": panel.tall,
        // Nothing all the time, which is worth a line and no more.
        "zero": panel.values().all(|v| v == 0.0),
        "limit": limit.map(|limit| level(limit.at, &limit.name)),
        "lines": lines.collect::<Vec<_>>(),
    })
}

fn level(at: f64, name: &str) -> Value {
    json!({"at": at, "name": readable(name)})
}

/// Four digits are finer than a pixel, and the file stays small; a share that is nearly all needs more. What is
/// beyond all measure is cut.
fn compact(value: f64, unit: Unit) -> f64 {
    if value.abs() < 1e-9 {
        return 0.0;
    }
    let cut = value.clamp(-1e15, 1e15);
    let text = match unit {
        Unit::Share => format!("{cut:.5e}"),
        Unit::Count | Unit::Millis | Unit::Bytes => format!("{cut:.3e}"),
    };
    text.parse().unwrap_or(cut)
}

/// The places with a row of nothing before each that lies much further from the last than usual: behind a hole,
/// over which no line goes.
fn with_holes(chart: &Chart, places: &[usize], usual: f64) -> Vec<(f64, Option<usize>)> {
    let mut rows: Vec<(f64, Option<usize>)> = Vec::with_capacity(places.len());
    for i in places {
        let at = chart.at[*i];
        if chart.along == Along::Seconds
            && let Some((before, _)) = rows.last()
            && at - before > 3.5 * usual
        {
            rows.push(((before + at) / 2.0, None));
        }
        rows.push((at, Some(*i)));
    }
    rows
}

/// The step between two places that half of the steps do not exceed.
fn usual_step(at: &[f64]) -> f64 {
    let mut steps: Vec<f64> = at.windows(2).map(|w| w[1] - w[0]).collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len() / 2).copied().unwrap_or(1.0)
}

/// Two of each part; the last part may have but one.
fn thinned<T>(all: Vec<T>, every: usize, two: impl Fn(&[T]) -> [T; 2]) -> Vec<T> {
    if every == 1 {
        return all;
    }
    all.chunks(every).flat_map(|part| two(part).into_iter().take(part.len())).collect()
}

/// The two values that a part of a curve is drawn by, in their order; a gap where it is mostly one.
fn lowest_and_highest(part: &[Option<f64>]) -> [Option<f64>; 2] {
    let values: Vec<(usize, f64)> =
        part.iter().enumerate().filter_map(|(i, v)| v.map(|v| (i, v))).collect();
    if 2 * values.len() < part.len() {
        return [None, None];
    }
    let low = values.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
    let high = values.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    match (low, high) {
        (Some(low), Some(high)) if low.0 <= high.0 => [Some(low.1), Some(high.1)],
        (low, high) => [high.map(|v| v.1), low.map(|v| v.1)],
    }
}
