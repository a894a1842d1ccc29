//! The report of a run: one self-contained HTML file and one Markdown file, in English or Korean.
//!
//! [`section`] says what a report says, as blocks; `boxoffice_report` writes blocks down. All of it is pure: runs
//! go in, text comes out.

mod comparison;
mod performance;
mod section;
mod text;

#[cfg(all(test, feature = "external"))]
mod browser;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub(crate) use boxoffice_report::Language as Lang;
pub(crate) use comparison::comparison_text;
pub(crate) use performance::{performance_doc, with_analysis};

use crate::model::Run;

/// One HTML page that needs nothing else. `others` are runs of the same test in other conditions.
pub(crate) fn html(run: &Run, others: &[Run], lang: Lang) -> String {
    boxoffice_report::render_html(&section::document(run, others, lang))
}

/// Whether what the runner says in English is known in Korean.
#[cfg(test)]
pub(crate) fn known_in_korean(said: &str) -> bool {
    text::said(said, Lang::Ko).chars().any(|c| ('가'..='힣').contains(&c))
}

/// The same as Markdown.
pub(crate) fn markdown(run: &Run, others: &[Run], lang: Lang) -> String {
    boxoffice_report::render_markdown(&section::document(run, others, lang))
}
