//! The report of a run: one self-contained HTML file and one Markdown file, in English or Korean.
//!
//! [`section`] says what a report says, as blocks; [`html`] and [`markdown`] write blocks down. So the
//! two forms cannot say different things. All of it is pure: runs go in, text comes out.

mod chart;
mod comparison;
mod escape;
mod html;
mod markdown;
mod number;
mod performance;
mod section;
mod text;

#[cfg(all(test, feature = "external"))]
mod browser;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub(crate) use comparison::comparison_text;
pub(crate) use performance::{performance_doc, with_analysis};

use crate::model::Run;

/// Language of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lang {
    #[default]
    En,
    Ko,
}

/// A piece of a line.
enum Inline {
    Text(String),
    Strong(String),
    /// As it was, letter by letter.
    Code(String),
}

/// How a cell is to be seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tone {
    Plain,
    /// Was not measured.
    Missing,
    /// Worth seeing first.
    Strong,
    Good,
    Bad,
}

struct Cell {
    text: String,
    tone: Tone,
}

struct Table {
    /// Empty where the heading over it says enough.
    caption: String,
    head: Vec<String>,
    rows: Vec<Vec<Cell>>,
    /// Whether columns after the first hold figures, which stand at the right.
    figures: bool,
}

/// A figure to be seen from afar.
struct Tile {
    name: String,
    value: Cell,
    /// A second line: of what, compared with what.
    note: String,
}

/// How a finding is to be seen.
struct Remark {
    fatal: bool,
    says: &'static str,
    detail: String,
}

enum Block {
    Paragraph(Vec<Inline>),
    /// A heading inside of a section.
    Heading(String),
    List(Vec<Vec<Inline>>),
    Table(Table),
    Code(String),
    Tiles(Vec<Tile>),
    Remarks(Vec<Remark>),
    /// Both forms of a chart as SVG. Markdown leaves it out: what it shows stands in tables too.
    Chart {
        svg: String,
        caption: String,
    },
    /// What only some want to see.
    Details {
        summary: String,
        blocks: Vec<Block>,
    },
}

struct Section {
    id: &'static str,
    title: String,
    blocks: Vec<Block>,
}

impl Cell {
    fn new(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), tone: Tone::Plain }
    }

    fn toned(text: impl Into<String>, tone: Tone) -> Cell {
        Cell { text: text.into(), tone }
    }

    /// A value, or that there is none. What is not a number was not measured either.
    fn of(value: Option<f64>, lang: Lang, say: impl Fn(f64) -> String) -> Cell {
        match value.filter(|v| v.is_finite()) {
            Some(value) => Cell::new(say(value)),
            None => Cell::toned(text::of(lang).not_measured, Tone::Missing),
        }
    }
}

fn says(text: impl Into<String>) -> Block {
    Block::Paragraph(vec![Inline::Text(text.into())])
}

/// One HTML page that needs nothing else. `others` are runs of the same test in other conditions.
pub(crate) fn html(run: &Run, others: &[Run], lang: Lang) -> String {
    html::page(&section::title(run, lang), run, &section::all(run, others, lang), lang)
}

/// Whether what the runner says in English is known in Korean.
#[cfg(test)]
pub(crate) fn known_in_korean(said: &str) -> bool {
    text::said(said, Lang::Ko).chars().any(|c| ('가'..='힣').contains(&c))
}

/// The same as Markdown.
pub(crate) fn markdown(run: &Run, others: &[Run], lang: Lang) -> String {
    markdown::page(&section::title(run, lang), run, &section::all(run, others, lang), lang)
}
