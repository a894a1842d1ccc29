//! Reports: one HTML file that needs nothing else, and the same as Markdown, in English or Korean.
//!
//! A [`Document`] says what a report says, as blocks; [`render_html`] and [`render_markdown`] write blocks down, so
//! the two forms cannot say different things. The page comes from the templates in `templates/`, and
//! [uPlot](https://github.com/leeoniya/uPlot) draws its charts, in the browser. All of it is pure: a document goes
//! in, text comes out.
//!
//! Templates are askama's and not minijinja's because they are compiled: a name that the model does not have, or a
//! block that the template forgets, is an error of the build, and rendering cannot fail at run time.
//!
//! What does not belong here: what a report is about. The words of one are those of the program that makes it.

mod chart;
pub mod markdown;
pub mod number;
mod page;
mod plot;
mod words;

#[cfg(feature = "external")]
pub mod browser;
#[cfg(test)]
mod tests;

pub use chart::{Along, Band, Chart, Limit, Line, Mark, Over, Panel, Unit};

/// Language of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Korean.
    Ko,
}

/// A report.
pub struct Document {
    /// What its words are in; those that the page adds follow.
    pub language: Language,
    /// A line over the title: whose report, and of what kind.
    pub kind: String,
    /// What it is of.
    pub title: String,
    /// A line under the title: when, where.
    pub subtitle: String,
    /// What matters most first; the first may say how it turned out.
    pub sections: Vec<Section>,
    /// The last line.
    pub footer: String,
}

/// A part of a report with a heading.
pub struct Section {
    /// Where links lead to; unique in the document.
    pub id: String,
    /// The heading.
    pub title: String,
    /// How it turned out, said in the heading.
    pub outcome: Option<Outcome>,
    /// What it says.
    pub blocks: Vec<Block>,
}

/// How something turned out, in a word.
pub struct Outcome {
    /// Its colour.
    pub tone: Tone,
    /// A sign that needs no colour, such as ✓.
    pub sign: &'static str,
    /// The word.
    pub word: String,
}

/// How text is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As all others.
    Plain,
    /// Was not measured.
    Missing,
    /// Worth seeing first.
    Strong,
    /// As it should be.
    Good,
    /// To be minded: neither good nor bad.
    Mind,
    /// Not as it should be.
    Bad,
}

/// A piece of a line.
pub enum Inline {
    /// Plain text.
    Text(String),
    /// Text that is to be seen first.
    Strong(String),
    /// As it was, letter by letter.
    Code(String),
}

/// What stands in a table at one place.
#[derive(Debug)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// How it is to be seen.
    pub tone: Tone,
}

/// Rows of cells. The first cell of a row is its name.
#[derive(Debug)]
pub struct Table {
    /// Empty where the heading over it says enough.
    pub caption: String,
    /// Names of the columns; may be empty.
    pub head: Vec<String>,
    /// All the same length.
    pub rows: Vec<Vec<Cell>>,
    /// Whether columns after the first hold figures, which stand at the right.
    pub figures: bool,
}

/// A figure to be seen from afar.
pub struct Figure {
    /// What it is.
    pub name: String,
    /// The figure, with its unit.
    pub value: Cell,
    /// A second line: of what, compared with what.
    pub note: String,
}

/// Something that was found.
pub struct Verdict {
    /// [`Tone::Good`], [`Tone::Mind`] or [`Tone::Bad`].
    pub tone: Tone,
    /// In words for somebody who does not know the program.
    pub says: String,
    /// The figures, or what a program said; may be empty.
    pub detail: String,
}

/// What sections are made of.
pub enum Block {
    /// A paragraph.
    Paragraph(Vec<Inline>),
    /// A heading inside of a section.
    Heading(String),
    /// Points, in any order.
    List(Vec<Vec<Inline>>),
    /// A table.
    Table(Table),
    /// Text as it was, such as a command line.
    Code(String),
    /// Big numbers beside each other.
    Figures(Vec<Figure>),
    /// What was found, one under the other.
    Verdicts(Vec<Verdict>),
    /// Curves over a shared axis. Markdown leaves it out: what it shows has to stand in tables too.
    Chart(Chart),
    /// What only some want to see.
    Details {
        /// What is seen while it is closed.
        summary: String,
        /// What is seen when it is opened.
        blocks: Vec<Block>,
    },
}

impl Cell {
    /// Returns a cell with plain text.
    pub fn new(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), tone: Tone::Plain }
    }

    /// Returns a cell with text that is seen in a certain way.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Cell {
        Cell { text: text.into(), tone }
    }

    /// Returns a value, or that there is none. What is not a number was not measured either.
    pub fn of(value: Option<f64>, language: Language, say: impl Fn(f64) -> String) -> Cell {
        match value.filter(|v| v.is_finite()) {
            Some(value) => Cell::new(say(value)),
            None => Cell::toned(words::of(language).not_measured, Tone::Missing),
        }
    }
}

impl Block {
    /// Returns a paragraph of plain text.
    pub fn says(text: impl Into<String>) -> Block {
        Block::Paragraph(vec![Inline::Text(text.into())])
    }
}

/// Returns what a report in this language says where there is no value.
pub fn not_measured(language: Language) -> &'static str {
    words::of(language).not_measured
}

/// Returns one HTML page that needs nothing else: it makes no request at all.
pub fn render_html(document: &Document) -> String {
    page::render(document)
}

/// Returns the same as Markdown, as GitHub reads it.
pub fn render_markdown(document: &Document) -> String {
    markdown::page(document)
}

/// Whether a character is not text, or makes text look like other text: what controls a terminal, what turns the
/// direction of writing, what has no width.
pub fn is_trick(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fffe}' | '\u{ffff}')
}
