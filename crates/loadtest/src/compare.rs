//! One run held against another of the same test: what got worse by more than runs differ anyway.

use crate::model::{FindingCode, Latency, Outcome, Run};

/// All figures of two runs side by side.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    pub(crate) rows: Vec<Row>,
    /// Why the two are not quite the same measurement, as plain text; empty where they are.
    pub(crate) notes: Vec<String>,
    /// A was a pass and B is not, whatever the figures say.
    pub(crate) verdict_lost: bool,
}

/// One figure of both.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) figure: Figure,
    /// Of which request (its `name` tag); `None` for all of them.
    pub(crate) request: Option<String>,
    pub(crate) a: Option<f64>,
    pub(crate) b: Option<f64>,
    /// How much of `a` may be noise, 0.25 for a quarter.
    pub(crate) margin: f64,
    /// And how much in the figure's own unit. Both must be exceeded.
    pub(crate) floor: f64,
    pub(crate) change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Milliseconds.
    Median,
    P95,
    P99,
    RequestsPerSecond,
    /// Microseconds of the service's CPU.
    CpuPerRequest,
    /// 0 to 1.
    FailedShare,
    /// 0 to 1.
    ChecksFailedShare,
    /// Buyers per second that a breakpoint run found.
    Knee,
    /// Bytes.
    PeakMemory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Better,
    /// Not more apart than two runs of the same are.
    Same,
    Worse,
    /// Both runs lack it: nothing is said of it.
    Unknown,
    /// One run has it and the other lacks it, so nobody can say that it is as good.
    Missing,
}

impl Comparison {
    /// Whether B is worse than A, or cannot be said to be as good.
    pub(crate) fn regressed(&self) -> bool {
        self.verdict_lost
            || self.rows.iter().any(|row| matches!(row.change, Change::Worse | Change::Missing))
    }
}

impl Row {
    /// `b` as a multiple of `a`.
    pub(crate) fn ratio(&self) -> Option<f64> {
        match (self.a, self.b) {
            (Some(a), Some(b)) if a != 0.0 => Some(b / a),
            _ => None,
        }
    }
}

impl Figure {
    const fn higher_is_better(self) -> bool {
        matches!(self, Self::RequestsPerSecond | Self::Knee)
    }

    /// Share and absolute difference that two runs of the same may show. From runs on a machine that k6
    /// shares with the service: the tail moves far more than the middle, and below a millisecond all of
    /// it is scheduling.
    const fn noise(self) -> (f64, f64) {
        match self {
            Self::Median => (0.3, 1.0),
            Self::P95 => (0.4, 2.0),
            Self::P99 => (0.6, 5.0),
            Self::RequestsPerSecond => (0.07, 1.0),
            Self::CpuPerRequest => (0.2, 5.0),
            Self::FailedShare | Self::ChecksFailedShare => (0.0, 0.001),
            Self::Knee => (0.15, 1.0),
            Self::PeakMemory => (0.3, 32.0 * 1024.0 * 1024.0),
        }
    }
}

/// Compares B with A.
pub(crate) fn compare(a: &Run, b: &Run) -> Comparison {
    let mut rows = Vec::new();
    let mut add =
        |figure, get: &dyn Fn(&Run) -> Option<f64>| rows.push(row(figure, None, get(a), get(b)));
    let duration = |run: &Run, get: fn(&Latency) -> Option<f64>| {
        run.totals.as_ref().and_then(|t| get(&t.duration))
    };
    add(Figure::Median, &|run| duration(run, |l| l.med));
    add(Figure::P95, &|run| duration(run, |l| l.p95));
    add(Figure::P99, &|run| duration(run, |l| l.p99));
    add(Figure::RequestsPerSecond, &|run| run.totals.as_ref().map(|t| t.requests_per_second));
    add(Figure::FailedShare, &|run| run.totals.as_ref().map(|t| t.failed_share));
    add(Figure::ChecksFailedShare, &|run| {
        let totals = run.totals.as_ref()?;
        Some(if totals.checks == 0 {
            0.0
        } else {
            totals.checks_failed as f64 / totals.checks as f64
        })
    });
    add(Figure::CpuPerRequest, &|run| run.server.cpu_micros_per_request);
    add(Figure::PeakMemory, &|run| run.server.peak_rss_bytes.map(|bytes| bytes as f64));
    if a.breakpoint.is_some() || b.breakpoint.is_some() {
        add(Figure::Knee, &|run| run.breakpoint.as_ref().and_then(|found| found.knee_per_second));
    }
    let mut names: Vec<&String> = a.by_request.keys().chain(b.by_request.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let get = |run: &Run, figure: fn(&Latency) -> Option<f64>| {
            run.by_request.get(name).and_then(figure)
        };
        let few = [a, b].iter().any(|run| {
            run.by_request.get(name).and_then(|l| l.count).is_some_and(|count| count < FEW)
        });
        rows.push(if few {
            row(Figure::Median, Some(name), get(a, |l| l.med), get(b, |l| l.med))
        } else {
            row(Figure::P95, Some(name), get(a, |l| l.p95), get(b, |l| l.p95))
        });
    }
    let passed = |run: &Run| run.verdict.outcome == Outcome::Pass;
    Comparison { rows, notes: notes(a, b), verdict_lost: passed(a) && !passed(b) }
}

/// Of fewer answers the 95th percentile is a matter of one or two of them; the median is not.
const FEW: u64 = 100;

fn row(figure: Figure, request: Option<&String>, a: Option<f64>, b: Option<f64>) -> Row {
    let (margin, floor) = figure.noise();
    let change = match (a, b) {
        (None, None) => Change::Unknown,
        // A figure that only the newer run has is news, not a loss.
        (None, Some(_)) => Change::Unknown,
        (Some(_), None) => Change::Missing,
        (Some(a), Some(b)) => {
            let worse = if figure.higher_is_better() { a - b } else { b - a };
            // Seen from the better of the two, so that a comparison the other way round says the same.
            if worse.abs() <= floor || worse.abs() <= margin * a.min(b) {
                Change::Same
            } else if worse > 0.0 {
                Change::Worse
            } else {
                Change::Better
            }
        }
    };
    Row { figure, request: request.cloned(), a, b, margin, floor, change }
}

fn notes(a: &Run, b: &Run) -> Vec<String> {
    let mut notes = Vec::new();
    let mut differ = |what: &str, a: String, b: String| {
        if a != b {
            notes.push(format!("{what}: {a} and {b}"));
        }
    };
    differ("different tests", a.test.clone(), b.test.clone());
    differ("different machines", machine(a), machine(b));
    differ(
        "different services",
        format!("{:?}", a.condition.service),
        format!("{:?}", b.condition.service),
    );
    let cpus = |run: &Run| run.condition.cpus.map_or("unknown".to_owned(), |cpus| cpus.to_string());
    differ("different CPUs of the service", cpus(a), cpus(b));
    differ(
        "different settings",
        format!("{:?}", a.condition.settings),
        format!("{:?}", b.condition.settings),
    );
    differ(
        "different variables",
        format!("{:?}", a.condition.env),
        format!("{:?}", b.condition.env),
    );
    for (name, run) in [("A", a), ("B", b)] {
        match run.verdict.outcome {
            Outcome::Pass => {}
            Outcome::Fail => notes.push(format!("{name} is no pass: see its report")),
            Outcome::Incomplete => notes.push(format!("{name} was stopped before its end")),
        }
        for finding in &run.verdict.findings {
            if matches!(
                finding.code,
                FindingCode::GeneratorSaturated
                    | FindingCode::NoisyMachine
                    | FindingCode::Interrupted
            ) {
                notes.push(format!("{name}: {}", finding.detail));
            }
        }
    }
    notes
}

fn machine(run: &Run) -> String {
    format!("{} × {}", run.machine.cpus, run.machine.cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(figure: Figure, a: Option<f64>, b: Option<f64>) -> Change {
        row(figure, None, a, b).change
    }

    #[test]
    fn noise_is_no_regression_and_a_regression_is_no_noise() {
        use Change::{Better, Missing, Same, Unknown, Worse};
        for (figure, a, b, expected) in [
            (Figure::P95, Some(100.0), Some(130.0), Same),
            (Figure::P95, Some(100.0), Some(150.0), Worse),
            (Figure::P95, Some(150.0), Some(100.0), Better),
            // Twice as long, and nobody notices.
            (Figure::P95, Some(0.5), Some(1.0), Same),
            (Figure::P95, Some(0.5), Some(20.0), Worse),
            (Figure::P99, Some(0.0), Some(4.0), Same),
            (Figure::P99, Some(0.0), Some(6.0), Worse),
            (Figure::RequestsPerSecond, Some(1000.0), Some(980.0), Same),
            (Figure::RequestsPerSecond, Some(1000.0), Some(900.0), Worse),
            (Figure::RequestsPerSecond, Some(900.0), Some(1000.0), Better),
            (Figure::Knee, Some(100.0), Some(60.0), Worse),
            (Figure::CpuPerRequest, Some(50.0), Some(54.0), Same),
            (Figure::CpuPerRequest, Some(50.0), Some(70.0), Worse),
            // One request in a thousand.
            (Figure::FailedShare, Some(0.0), Some(0.0005), Same),
            (Figure::FailedShare, Some(0.0), Some(0.002), Worse),
            (Figure::FailedShare, Some(0.1), Some(0.0), Better),
            (Figure::P95, Some(1.0), None, Missing),
            (Figure::P95, None, Some(1.0), Unknown),
            (Figure::P95, None, None, Unknown),
        ] {
            assert_eq!(change(figure, a, b), expected, "{figure:?} {a:?} {b:?}");
        }
    }

    #[test]
    fn what_is_missing_is_no_pass() {
        let rows = vec![row(Figure::P95, None, Some(1.0), None)];
        assert!(Comparison { rows, notes: Vec::new(), verdict_lost: false }.regressed());
        let rows = vec![row(Figure::P95, None, Some(1.0), Some(1.0))];
        assert!(!Comparison { rows, notes: Vec::new(), verdict_lost: false }.regressed());
    }

    #[test]
    fn a_ratio_needs_something_to_divide_by() {
        assert_eq!(row(Figure::P95, None, Some(2.0), Some(3.0)).ratio(), Some(1.5));
        assert_eq!(row(Figure::P95, None, Some(0.0), Some(3.0)).ratio(), None);
        assert_eq!(row(Figure::P95, None, None, Some(3.0)).ratio(), None);
    }
}
