//! Charts: panels, one over the other, with the same horizontal axis. What the page gets is the data; uPlot draws it
//! there, as wide as the window is. What cannot see a drawing gets the same as words and as a table.

use crate::words;
use crate::{Cell, Language, Table, number};

/// What the values of a panel are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

/// An entry of the list that stands over a chart.
pub(crate) struct Entry {
    /// The class of the style sheet.
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) at: String,
}

pub(crate) fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite())
}

impl Line {
    pub(crate) fn measured(&self) -> impl Iterator<Item = (usize, f64)> {
        self.values.iter().enumerate().filter_map(|(i, v)| finite(*v).map(|v| (i, v)))
    }

    fn has_values(&self) -> bool {
        self.measured().next().is_some()
    }
}

impl Panel {
    pub(crate) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.has_values())
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = f64> {
        self.lines.iter().flat_map(|line| line.measured().map(|(_, v)| v))
    }

    /// Whether its values span decades, and may be shown so.
    pub(crate) fn is_log(&self) -> bool {
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
    pub(crate) fn places(&self) -> Vec<usize> {
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

    pub(crate) fn drawn(&self) -> impl Iterator<Item = &Panel> {
        self.panels.iter().filter(|panel| panel.lines().next().is_some())
    }

    /// Where the axis begins and ends. A mark far beyond the values is left out.
    pub(crate) fn ends(&self, at: &[f64]) -> (f64, f64) {
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
}

/// A span that people count in.
fn nice_span(seconds: f64) -> f64 {
    [1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0]
        .into_iter()
        .find(|s| *s >= seconds)
        .unwrap_or(3600.0 * (seconds / 3600.0).ceil())
}
