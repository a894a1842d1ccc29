//! A row of the report: a figure, what it is compared with, and whether it meets its target.

use serde::Serialize;

use super::load::Measured;
use super::wrk::Figure;
use crate::report::{grouped, middle};

/// A row, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) figure: f64,
    pub(super) unit: &'static str,
    pub(super) digits: usize,
    pub(super) notes: Vec<String>,
    pub(super) unexpected: u64,
    pub(super) ratio: Option<f64>,
    pub(super) target: Option<String>,
    pub(super) pass: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_busy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ratio_range: Option<[f64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<String>,
}

/// What is to be met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(self, by: f64) -> bool {
        match self {
            Self::AtMost(limit) => by <= limit,
            Self::AtLeast(least) => by >= least,
        }
    }

    fn text(self, of: &str) -> String {
        let (sign, value) = match self {
            Self::AtMost(limit) => ('≤', limit),
            Self::AtLeast(least) => ('≥', least),
        };
        let value = match value.fract() == 0.0 {
            true => grouped(value as u64),
            false => value.to_string(),
        };
        format!("{sign} {value}{of}")
    }
}

impl Row {
    /// A figure by itself.
    pub(super) fn new(name: &str, figure: f64, unit: &'static str, digits: usize) -> Self {
        Self {
            name: name.to_owned(),
            figure,
            unit,
            digits,
            notes: Vec::new(),
            unexpected: 0,
            ratio: None,
            target: None,
            pass: None,
            requests_per_second: None,
            server_busy: None,
            ratio_range: None,
            reference: None,
        }
    }

    /// What a request of a load costs the server.
    pub(super) fn cost(load: &Measured) -> Self {
        Self::new(&load.name, load.median(Figure::Cost), "µs CPU", 2).of(load)
    }

    /// How many requests of a load were answered in a second.
    pub(super) fn rate(load: &Measured) -> Self {
        Self::new(&load.name, load.median(Figure::Rate), "/s", 0).of(load)
    }

    /// With what else is known of a load.
    pub(super) fn of(mut self, load: &Measured) -> Self {
        self.unexpected += load.unexpected;
        self.notes.extend(load.notes.iter().cloned());
        self.requests_per_second = Some(load.median(Figure::Rate));
        self.server_busy = Some(load.median(Figure::Busy));
        self
    }

    /// Beside another load: the median of how a figure of both compares in each round. The target is for that.
    pub(super) fn beside(
        mut self,
        load: &Measured,
        reference: &Measured,
        called: &str,
        by: Figure,
    ) -> Self {
        let ratios = by.ratios(&load.samples, &reference.samples);
        self.ratio = Some(middle(&ratios).unwrap_or(f64::NAN));
        let lowest = ratios.iter().copied().reduce(f64::min);
        let highest = ratios.iter().copied().reduce(f64::max);
        self.ratio_range = lowest.zip(highest).map(|(low, high)| [low, high]);
        self.reference = Some(called.to_owned());
        self
    }

    /// What a request of a load costs beside one of another load.
    pub(super) fn cost_beside(load: &Measured, reference: &Measured) -> Self {
        Self::cost(load).beside(load, reference, &reference.name, Figure::Cost)
    }

    /// With notes, which come before those of the load.
    pub(super) fn notes(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.notes.splice(0..0, notes);
        self
    }

    /// With a target for the ratio where there is one, for the figure where not.
    pub(super) fn target(mut self, target: impl Into<Option<Target>>) -> Self {
        let Some(target) = target.into() else { return self };
        let of = match &self.reference {
            Some(called) => format!(" × {called}"),
            None => format!(" {}", self.unit),
        };
        self.pass = Some(target.is_met(self.ratio.unwrap_or(self.figure)));
        self.target = Some(target.text(&of));
        self
    }

    /// What was unexpected fails a row that had no target, too.
    pub(super) fn judged(mut self) -> Self {
        if self.unexpected > 0 {
            self.pass = Some(false);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::servers::first_id;
    use crate::bench::wrk::Sample;

    fn load(name: &str, costs: &[f64]) -> Measured {
        let mut load = Measured::new(name, first_id());
        load.samples = costs
            .iter()
            .map(|cost| Sample {
                requests: 1_000_000,
                seconds: 20.0,
                cpu_seconds: *cost,
                ..Sample::default()
            })
            .collect();
        load
    }

    #[test]
    fn a_ratio_is_the_median_of_those_of_the_rounds() {
        // The medians alone would say 1.0.
        let (a, b) = (load("a", &[2.0, 4.0, 9.0]), load("b", &[4.0, 1.0, 6.0]));
        let row = Row::cost_beside(&a, &b);
        assert_eq!((row.figure, row.ratio), (4.0, Some(1.5)));
        assert_eq!((row.ratio_range, row.reference.as_deref()), (Some([0.5, 4.0]), Some("b")));
        assert_eq!((row.requests_per_second, row.server_busy), (Some(50_000.0), Some(0.2)));
        assert_eq!(row.target, None);
    }

    #[test]
    fn targets_are_for_the_ratio_or_else_for_the_figure() {
        let (a, b) = (load("a", &[6.0]), load("b", &[5.0]));
        for (row, target, pass, text) in [
            (Row::cost_beside(&a, &b), Target::AtMost(1.2), true, "≤ 1.2 × b"),
            (Row::cost_beside(&a, &b), Target::AtMost(1.19), false, "≤ 1.19 × b"),
            (Row::cost_beside(&a, &b), Target::AtMost(1.0), false, "≤ 1 × b"),
            (Row::cost_beside(&a, &b), Target::AtLeast(1.0), true, "≥ 1 × b"),
            (Row::rate(&a), Target::AtLeast(20_000.0), true, "≥ 20,000 /s"),
            (Row::rate(&a), Target::AtLeast(60_000.0), false, "≥ 60,000 /s"),
            (Row::new("memory", 16.5, "B", 2), Target::AtMost(16.0), false, "≤ 16 B"),
            (Row::new("none", f64::NAN, "B", 2), Target::AtMost(16.0), false, "≤ 16 B"),
        ] {
            let row = row.target(target).judged();
            assert_eq!((row.pass, row.target.as_deref()), (Some(pass), Some(text)));
        }
        let row = Row::cost(&a).target(None).judged();
        assert_eq!((row.pass, row.target), (None, None));
    }

    #[test]
    fn an_unexpected_answer_fails_whatever_the_figure() {
        let mut a = load("a", &[6.0]);
        a.unexpected = 1;
        a.notes.push("of the load".to_owned());
        let row = Row::cost(&a).target(Target::AtMost(100.0)).notes(["before".to_owned()]).judged();
        assert_eq!((row.pass, row.unexpected), (Some(false), 1));
        assert_eq!(row.notes, ["before", "of the load"]);
        assert_eq!(Row::cost(&a).judged().pass, Some(false));
    }

    #[test]
    fn what_a_row_has_not_is_left_out_of_what_is_kept() {
        let kept = serde_json::to_value(Row::new("idle memory", 12.5, "MiB", 1)).unwrap();
        let keys =
            ["name", "figure", "unit", "digits", "notes", "unexpected", "ratio", "target", "pass"];
        let mut expected = keys.to_vec();
        expected.sort_unstable();
        assert_eq!(kept.as_object().unwrap().keys().collect::<Vec<_>>(), expected);
        assert!(kept["ratio"].is_null());
    }
}
