//! Documents as one HTML page.

use std::fmt;

use askama::Template;
use askama::filters::{Escaper, Html};

use crate::words::{self, Words};
use crate::{Block, Cell, Chart, Document, Inline, Language, Table, Tone, is_trick, plot};

/// How values are written into a page: escaped, and with a sign in place of what is no text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shown;

impl Escaper for Shown {
    fn write_escaped_str<W: fmt::Write>(&self, mut dest: W, string: &str) -> fmt::Result {
        Html.write_escaped_str(&mut dest, &readable(string))
    }
}

/// The text with U+FFFD for each character that is none; lines and tabs stay.
pub(crate) fn readable(text: &str) -> String {
    text.chars()
        .map(|c| if is_trick(c) && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c })
        .collect()
}

/// The text as a page shows it.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Writing into a string does not fail.
    let _ = Shown.write_escaped_str(&mut out, text);
    out
}

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    document: &'a Document,
    words: &'static Words,
    html_lang: &'static str,
    /// Whether there is a chart: only then does the page need what draws them.
    draws: bool,
    style: &'static str,
    uplot: &'static str,
    uplot_style: &'static str,
    uplot_licence: &'static str,
    script: &'static str,
}

#[derive(Template)]
#[template(path = "blocks.html")]
struct Blocks<'a> {
    blocks: &'a [Block],
    language: Language,
    words: &'static Words,
}

#[derive(Template)]
#[template(path = "table.html")]
struct TableView<'a> {
    table: &'a Table,
}

impl Blocks<'_> {
    fn inside<'b>(&self, blocks: &'b [Block]) -> Blocks<'b> {
        Blocks { blocks, language: self.language, words: self.words }
    }

    fn plot(&self, chart: &Chart) -> serde_json::Value {
        plot::plot(chart, self.language)
    }

    fn table<'b>(&self, table: &'b Table) -> TableView<'b> {
        TableView { table }
    }
}

impl Page<'_> {
    fn inside<'b>(&self, blocks: &'b [Block]) -> Blocks<'b> {
        Blocks { blocks, language: self.document.language, words: self.words }
    }
}

impl TableView<'_> {
    /// What a screen reader calls the box that the table scrolls in.
    fn label(&self) -> String {
        if self.table.caption.is_empty() {
            self.table.head.join(", ")
        } else {
            self.table.caption.clone()
        }
    }
}

impl Tone {
    /// The class of the style sheet.
    fn class(self) -> &'static str {
        match self {
            Tone::Plain => "plain",
            Tone::Missing => "missing",
            Tone::Strong => "strong",
            Tone::Good => "good",
            Tone::Mind => "mind",
            Tone::Bad => "bad",
        }
    }
}

impl Cell {
    /// The attribute that shows its tone; most cells need none.
    fn class(&self) -> Option<&'static str> {
        (self.tone != Tone::Plain).then(|| self.tone.class())
    }
}

fn draws(blocks: &[Block]) -> bool {
    blocks.iter().any(|block| match block {
        Block::Chart(_) => true,
        Block::Details { blocks, .. } => draws(blocks),
        _ => false,
    })
}

pub(crate) fn render(document: &Document) -> String {
    let page = Page {
        document,
        words: words::of(document.language),
        html_lang: match document.language {
            Language::En => "en",
            Language::Ko => "ko",
        },
        draws: document.sections.iter().any(|section| draws(&section.blocks)),
        style: include_str!("../templates/page.css"),
        uplot: include_str!("../vendor/uplot/uPlot.iife.min.js"),
        uplot_style: include_str!("../vendor/uplot/uPlot.min.css"),
        uplot_licence: include_str!("../vendor/uplot/LICENSE"),
        script: include_str!("../templates/charts.js"),
    };
    let mut out = String::with_capacity(256 * 1024);
    // Writing into a string does not fail, and no value of the templates refuses to be written.
    if let Err(error) = page.render_into(&mut out) {
        unreachable!("a template into a string: {error}");
    }
    out
}
