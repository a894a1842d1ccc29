//! The report of a run: one self-contained HTML file and one Markdown file, in English or Korean.

use crate::compare::Comparison;
use crate::model::Run;

/// Language of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lang {
    En,
    Ko,
}

pub(crate) fn html(run: &Run, _others: &[Run], _lang: Lang) -> String {
    format!("{:?}", run.verdict)
}

pub(crate) fn markdown(run: &Run, _others: &[Run], _lang: Lang) -> String {
    format!("{:?}", run.verdict)
}

pub(crate) fn performance_doc(runs: &[Run], _lang: Lang) -> String {
    format!("{} runs\n", runs.len())
}

pub(crate) fn comparison_text(_a: &Run, _b: &Run, comparison: &Comparison) -> String {
    format!("{comparison:#?}\n")
}
