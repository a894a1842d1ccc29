//! Charts: panels, one over the other, with the same horizontal axis. What the page gets is the data; uPlot draws it
//! there, as wide as the window is. What cannot see a drawing gets the same as words and as a table.

use serde::Serialize;

use crate::page::readable;
use crate::words;
use crate::{Cell, Language, Table, number};

/// What the values of a panel are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Pieces, or pieces per second, as the panel's title says.
    Count,
    /// Milliseconds.
    Millis,
    /// 0 to 1, shown in per cent.
    Share,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// Returns a value in words.
    pub fn say(self, value: f64, language: Language) -> String {
        match self {
            Unit::Count => number::plain(value),
            Unit::Millis => number::millis(value, language),
            Unit::Share => number::share(value, language),
            Unit::Bytes => number::bytes(value),
        }
    }
}

/// How the values of a span of time become one, where a table has no room for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// Rates and shares.
    Mean,
    /// Latencies, of which the worst counts.
    Highest,
    /// Stocks, such as memory.
    Last,
}

/// A curve.
#[derive(Debug)]
pub struct Line {
    /// What it is of.
    pub name: String,
    /// One for each place of the axis; `None` where nothing was measured, which is a gap.
    pub values: Vec<Option<f64>>,
    /// Colour and dashes, 0 to 6, so that the same thing looks the same in each panel.
    pub style: usize,
}

/// A level that is worth knowing, such as the CPUs that the service may use.
#[derive(Debug)]
pub struct Limit {
    /// Where it is.
    pub at: f64,
    /// What it is.
    pub name: String,
}

/// Curves of one unit.
#[derive(Debug)]
pub struct Panel {
    /// What is shown, with the unit where that is not part of the figures.
    pub title: String,
    /// What the values are.
    pub unit: Unit,
    /// Logarithmic where the values span decades.
    pub may_be_log: bool,
    /// The curves.
    pub lines: Vec<Line>,
    /// A level to be drawn.
    pub limit: Option<Limit>,
    /// For what matters most.
    pub tall: bool,
    /// How a table makes one value of many.
    pub over: Over,
}

/// What the shared axis counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Along {
    /// Seconds since something happened; before it they are negative.
    Seconds,
    /// Any other quantity.
    Number,
    /// Things beside each other: a name for each place. A place without a name keeps what is on both sides apart.
    Names(Vec<String>),
}

/// A place on the shared axis that is marked through all panels.
#[derive(Debug)]
pub struct Mark {
    /// Where.
    pub at: f64,
    /// What happened there.
    pub name: String,
}

/// A part of the shared axis that is shaded in all panels.
#[derive(Debug)]
pub struct Band {
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// What it is.
    pub name: String,
}

/// Panels over a shared axis.
#[derive(Debug)]
pub struct Chart {
    /// Unique in the document.
    pub id: String,
    /// What a screen reader calls it.
    pub title: String,
    /// How to read it; stands under it.
    pub caption: String,
    /// What the axis counts.
    pub along: Along,
    /// What stands under the axis.
    pub axis_name: String,
    /// The places of the axis, going up; for [`Along::Names`] 0, 1, 2 and so on.
    pub at: Vec<f64>,
    /// Places to be marked.
    pub marks: Vec<Mark>,
    /// Parts to be shaded.
    pub bands: Vec<Band>,
    /// What is drawn, from the top.
    pub panels: Vec<Panel>,
}

/// More places than this are drawn as the highest and lowest of each part: no screen has more columns.
const MOST_PLACES: usize = 1800;

/// What the script of the page draws.
#[derive(Serialize)]
pub(crate) struct Plot {
    id: String,
    axis: &'static str,
    axis_name: String,
    names: Vec<String>,
    low: f64,
    high: f64,
    at: Vec<f64>,
    marks: Vec<PlotMark>,
    bands: Vec<(f64, f64)>,
    panels: Vec<PlotPanel>,
}

#[derive(Serialize)]
struct PlotMark {
    at: f64,
    name: String,
}

#[derive(Serialize)]
struct PlotPanel {
    title: String,
    unit: Unit,
    log: bool,
    tall: bool,
    /// Nothing all the time, which is worth a line and no more.
    zero: bool,
    limit: Option<PlotMark>,
    lines: Vec<PlotLine>,
}

#[derive(Serialize)]
struct PlotLine {
    name: String,
    style: usize,
    /// Its main figure in words, which is seen while nobody points at the chart.
    peak: String,
    values: Vec<Option<f64>>,
}

/// An entry of the list that stands over a chart.
pub(crate) struct Entry {
    /// The class of the style sheet.
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) at: String,
}

fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite())
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

impl Line {
    fn measured(&self) -> impl Iterator<Item = (usize, f64)> {
        self.values.iter().enumerate().filter_map(|(i, v)| finite(*v).map(|v| (i, v)))
    }

    fn has_values(&self) -> bool {
        self.measured().next().is_some()
    }
}

impl Panel {
    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.has_values())
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.lines.iter().flat_map(|line| line.measured().map(|(_, v)| v))
    }

    /// Whether its values span decades, and may be shown so.
    fn is_log(&self) -> bool {
        let highest = self.values().fold(0.0f64, f64::max);
        let lowest = self.values().filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
        self.may_be_log && lowest.is_finite() && highest / lowest >= 15.0
    }
}

impl Along {
    /// Returns a place of the axis in words.
    fn say(&self, at: f64, high: f64) -> String {
        match self {
            Along::Seconds => number::clock(at, high),
            Along::Number => number::plain(at),
            Along::Names(names) => names.get(at as usize).cloned().unwrap_or_default(),
        }
    }
}

impl Chart {
    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        let places = self.places();
        !self.drawn().any(|panel| {
            panel.lines().any(|line| line.measured().any(|(i, _)| places.contains(&i)))
        })
    }

    /// The places that can be drawn: those that go up.
    fn places(&self) -> Vec<usize> {
        let mut last = f64::NEG_INFINITY;
        let mut places = Vec::with_capacity(self.at.len());
        for (i, at) in self.at.iter().enumerate() {
            if at.is_finite() && *at > last {
                last = *at;
                places.push(i);
            }
        }
        places
    }

    fn drawn(&self) -> impl Iterator<Item = &Panel> {
        self.panels.iter().filter(|panel| panel.lines().next().is_some())
    }

    /// Where the axis begins and ends. A mark far beyond the values is left out.
    fn ends(&self, at: &[f64]) -> (f64, f64) {
        let (Some(first), Some(last)) = (at.first(), at.last()) else { return (0.0, 1.0) };
        if let Along::Names(names) = &self.along {
            return (-0.5, names.len() as f64 - 0.5);
        }
        let marks = || self.marks.iter().map(|m| m.at).filter(|at| at.is_finite());
        let low = marks().fold(first.min(0.0), f64::min).max(first.min(0.0) * 1.5);
        let high = marks().fold(*last, f64::max).min(last.max(0.0) * 1.5).max(*last);
        (low, high.max(low + 1.0))
    }

    /// The list over the chart: shaded parts and marks, so that they can be read as well as seen.
    pub(crate) fn legend(&self) -> Vec<Entry> {
        let at: Vec<f64> = self.places().into_iter().map(|i| self.at[i]).collect();
        let (low, high) = self.ends(&at);
        let inside = |at: f64| at.is_finite() && (low..=high).contains(&at);
        let bands = self.bands.iter().filter(|band| band.to > band.from).map(|band| Entry {
            kind: "band",
            name: band.name.clone(),
            at: String::new(),
        });
        let mut marks: Vec<&Mark> = self.marks.iter().filter(|mark| inside(mark.at)).collect();
        marks.sort_by(|a, b| a.at.total_cmp(&b.at));
        let marks = marks.into_iter().map(|mark| Entry {
            kind: "mark",
            name: mark.name.clone(),
            at: self.along.say(mark.at, high),
        });
        bands.chain(marks).collect()
    }

    /// What stands under the axis; names say by themselves what they are.
    pub(crate) fn under_axis(&self) -> Option<&str> {
        (!matches!(self.along, Along::Names(_))).then_some(self.axis_name.as_str())
    }

    /// The main figures in words, for those who do not see the drawing.
    pub(crate) fn says(&self, language: Language) -> String {
        let w = words::of(language);
        let places = self.places();
        let high = places.last().map_or(0.0, |i| self.at[*i]);
        let mut said = Vec::new();
        for panel in self.drawn() {
            let lines: Vec<String> = panel
                .lines()
                .filter_map(|line| {
                    let values: Vec<(usize, f64)> =
                        line.measured().filter(|(i, _)| *i < self.at.len()).collect();
                    let (at, highest) = values
                        .iter()
                        .copied()
                        .reduce(|best, next| if next.1 > best.1 { next } else { best })?;
                    let mean = values.iter().map(|(_, v)| v).sum::<f64>() / values.len() as f64;
                    Some(format!(
                        "{}: {} {}, {} {} ({})",
                        line.name,
                        w.mean,
                        panel.unit.say(mean, language),
                        w.highest,
                        panel.unit.say(highest, language),
                        self.along.say(self.at[at], high),
                    ))
                })
                .collect();
            said.push(format!("{}: {}.", panel.title, lines.join("; ")));
        }
        said.join(" ")
    }

    /// Returns the values as a table: all of them, or those of two dozen spans of time.
    pub fn table(&self, language: Language) -> Table {
        let spans = self.spans();
        let w = words::of(language);
        let joined = spans.iter().any(|(_, places)| places.len() > 1);
        let mut head = vec![self.axis_name.clone()];
        for panel in self.drawn() {
            let over = match panel.over {
                _ if !joined => String::new(),
                Over::Mean => format!(" ({})", w.mean),
                Over::Highest => format!(" ({})", w.highest),
                Over::Last => format!(" ({})", w.last),
            };
            let alone = panel.lines().count() == 1;
            head.extend(panel.lines().map(|line| match alone {
                true => format!("{}{over}", panel.title),
                false => format!("{}: {}{over}", panel.title, line.name),
            }));
        }
        Table { caption: String::new(), head, rows: self.rows(&spans, language), figures: true }
    }

    /// Returns the rows of [`table`](Chart::table), for whoever names the columns.
    pub fn span_rows(&self, language: Language) -> Vec<Vec<Cell>> {
        self.rows(&self.spans(), language)
    }

    fn rows(&self, spans: &[(f64, Vec<usize>)], language: Language) -> Vec<Vec<Cell>> {
        let high = spans.last().map_or(0.0, |(at, _)| *at);
        spans
            .iter()
            .map(|(from, places)| {
                let mut row = vec![Cell::new(self.along.say(*from, high.max(60.0)))];
                for panel in self.drawn() {
                    for line in panel.lines() {
                        let values: Vec<f64> = places
                            .iter()
                            .filter_map(|i| finite(line.values.get(*i).copied().flatten()))
                            .collect();
                        let value = match panel.over {
                            _ if values.is_empty() => None,
                            Over::Mean => Some(values.iter().sum::<f64>() / values.len() as f64),
                            Over::Highest => values.iter().copied().reduce(f64::max),
                            Over::Last => values.last().copied(),
                        };
                        row.push(Cell::of(value, language, |v| panel.unit.say(v, language)));
                    }
                }
                row
            })
            .collect()
    }

    /// The rows of a table: where each begins, and the places that are in it.
    fn spans(&self) -> Vec<(f64, Vec<usize>)> {
        const SPANS: f64 = 12.0;
        const MOST: usize = 200;
        let places = self.places();
        let (Some(first), Some(last)) = (places.first(), places.last()) else { return Vec::new() };
        let (first, last) = (self.at[*first].min(0.0), self.at[*last]);
        if self.along != Along::Seconds || last <= first {
            let named = |at: f64| match &self.along {
                Along::Names(names) => names.get(at as usize).is_some_and(|name| !name.is_empty()),
                Along::Seconds | Along::Number => true,
            };
            return places
                .into_iter()
                .filter(|i| named(self.at[*i]))
                .take(MOST)
                .map(|i| (self.at[i], vec![i]))
                .collect();
        }
        let step = nice_span((last - first) / SPANS);
        let mut spans = Vec::new();
        let mut from = (first / step).floor() * step;
        while from < last + 1e-9 && spans.len() < MOST {
            let to = from + step;
            let inside =
                places.iter().copied().filter(|i| (from..to).contains(&self.at[*i])).collect();
            spans.push((from, inside));
            from = to;
        }
        spans
    }

    pub(crate) fn plot(&self, language: Language) -> Plot {
        let w = words::of(language);
        let places = self.places();
        let all: Vec<f64> = places.iter().map(|i| self.at[*i]).collect();
        let (low, high) = self.ends(&all);
        // A place that is much further from the last than usual lies behind a hole, over which no line goes.
        let usual = usual_step(&all);
        let mut rows: Vec<(f64, Option<usize>)> = Vec::with_capacity(places.len());
        for i in places {
            if self.along == Along::Seconds
                && let Some((before, _)) = rows.last()
                && self.at[i] - before > 3.5 * usual
            {
                rows.push(((before + self.at[i]) / 2.0, None));
            }
            rows.push((self.at[i], Some(i)));
        }
        let panels: Vec<&Panel> = self.drawn().collect();
        let mut at: Vec<f64> = rows.iter().map(|(at, _)| (at * 1000.0).round() / 1000.0).collect();
        let every = if at.len() > MOST_PLACES { (2 * at.len()).div_ceil(MOST_PLACES) } else { 1 };
        if every > 1 {
            // Two of each part; the last may have but one.
            let two = |part: &[f64]| [part[0], part[part.len() / 2]].into_iter().take(part.len());
            at = at.chunks(every).flat_map(two).collect();
        }
        let values = |line: &Line, unit: Unit| -> Vec<Option<f64>> {
            let measured: Vec<Option<f64>> = rows
                .iter()
                .map(|(_, i)| finite(line.values.get((*i)?).copied().flatten()))
                .collect();
            let drawn = match every {
                1 => measured,
                _ => measured
                    .chunks(every)
                    .flat_map(|part| lowest_and_highest(part).into_iter().take(part.len()))
                    .collect(),
            };
            drawn.into_iter().map(|value| value.map(|value| compact(value, unit))).collect()
        };
        let mark = |at: f64, name: &str| PlotMark { at, name: readable(name) };
        Plot {
            id: self.id.clone(),
            axis: match self.along {
                Along::Seconds => "seconds",
                Along::Number => "number",
                Along::Names(_) => "names",
            },
            axis_name: readable(&self.axis_name),
            names: match &self.along {
                Along::Names(names) => names.iter().map(|name| readable(name)).collect(),
                Along::Seconds | Along::Number => Vec::new(),
            },
            low,
            high,
            at,
            marks: self
                .marks
                .iter()
                .filter(|m| m.at.is_finite() && (low..=high).contains(&m.at))
                .map(|m| mark(m.at, &m.name))
                .collect(),
            bands: self
                .bands
                .iter()
                .filter(|band| band.to > band.from)
                .map(|band| (band.from.max(low), band.to.min(high)))
                .collect(),
            panels: panels
                .iter()
                .map(|panel| PlotPanel {
                    title: readable(&match panel.is_log() {
                        true => format!("{} ({})", panel.title, w.log_scale),
                        false => panel.title.clone(),
                    }),
                    unit: panel.unit,
                    log: panel.is_log(),
                    tall: panel.tall,
                    zero: panel.values().all(|v| v == 0.0),
                    limit: panel
                        .limit
                        .as_ref()
                        .filter(|limit| limit.at.is_finite())
                        .map(|limit| mark(limit.at, &limit.name)),
                    lines: panel
                        .lines()
                        .map(|line| PlotLine {
                            name: readable(&line.name),
                            style: line.style % 7,
                            peak: line
                                .measured()
                                .map(|(_, v)| v)
                                .reduce(f64::max)
                                .map_or_else(String::new, |v| {
                                    format!("{} {}", w.peak, panel.unit.say(v, language))
                                }),
                            values: values(line, panel.unit),
                        })
                        .collect(),
                })
                .collect(),
        }
    }
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

/// The step between two places that half of the steps do not exceed.
fn usual_step(at: &[f64]) -> f64 {
    let mut steps: Vec<f64> = at.windows(2).map(|w| w[1] - w[0]).collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len() / 2).copied().unwrap_or(1.0)
}

/// A span that people count in.
fn nice_span(seconds: f64) -> f64 {
    [1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0]
        .into_iter()
        .find(|s| *s >= seconds)
        .unwrap_or(3600.0 * (seconds / 3600.0).ceil())
}
