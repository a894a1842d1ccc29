//! What the tests share.

use simulation::plan::{Group, Habit, Plan};
use simulation::world::{Report, run};

/// Runs a plan, and sees to it that every fault of it changed something.
pub(crate) fn history(plan: &Plan) -> Report {
    let report = run(plan, std::env::var_os("TRACE").is_some()).unwrap();
    for (fault, bites) in plan.faults.iter().zip(&report.bites) {
        assert!(*bites > 0, "this fault changed nothing: {fault}");
    }
    report
}

/// How often a rule was broken.
pub(crate) fn broken(report: &Report, rule: &str) -> usize {
    report.violations.iter().filter(|violation| violation.rule == rule).count()
}

/// Sees to it that nothing was broken.
#[track_caller]
pub(crate) fn assert_holds(report: &Report) {
    let told: Vec<_> = report.violations.iter().take(10).map(ToString::to_string).collect();
    assert!(
        report.violations.is_empty(),
        "{} violations:\n{}",
        report.violations.len(),
        told.join("\n")
    );
}

/// Places that nobody has, up to the highest number that anybody has.
pub(crate) fn empty_places(report: &Report) -> u64 {
    report.counts.highest.saturating_sub(report.counts.joins)
}

/// One fan who comes then, and does this.
pub(crate) fn fan(at_ms: u64, at: Option<usize>, habit: Habit) -> Group {
    Group { count: 1, from_ms: at_ms, over_ms: 1, at, habit }
}
