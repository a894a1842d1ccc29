//! Makes a plan that fails smaller: fewer faults, fewer fans, less time.

use crate::plan::Plan;
use crate::world::{Report, run};

/// The most histories that are run for it.
const TRIES: usize = 60;

/// The smallest plan that was found which still breaks the rule that `plan` breaks first, and what
/// happens in it.
pub fn shrink(plan: &Plan, report: &Report) -> (Plan, Report) {
    let (mut best, mut found) = (plan.clone(), report.clone());
    let Some(rule) = report.violations.first().map(|violation| violation.rule) else {
        return (best, found);
    };
    let mut tries = 0;
    loop {
        let before = tries;
        let mut smaller = false;
        for candidate in candidates(&best, &found) {
            if tries == TRIES {
                return (best, found);
            }
            tries += 1;
            let Ok(report) = run(&candidate, false) else { continue };
            if report.violations.iter().any(|violation| violation.rule == rule) {
                (best, found) = (candidate, report);
                smaller = true;
                break;
            }
        }
        if !smaller || tries == before {
            return (best, found);
        }
    }
}

fn candidates(plan: &Plan, report: &Report) -> Vec<Plan> {
    let mut candidates = Vec::new();
    let broken_ms = report.violations.iter().map(|violation| violation.at_us / 1_000 + 1).min();
    if let Some(broken_ms) = broken_ms.filter(|ms| !plan.liveness && *ms < plan.length_ms) {
        candidates.push(Plan { length_ms: broken_ms, drain_ms: 0, ..plan.clone() });
    }
    for fault in 0..plan.faults.len() {
        let mut fewer = plan.clone();
        fewer.faults.remove(fault);
        candidates.push(fewer);
    }
    for group in 0..plan.crowd.len() {
        let mut fewer = plan.clone();
        fewer.crowd.remove(group);
        candidates.push(fewer);
        if plan.crowd[group].count > 1 {
            let mut fewer = plan.clone();
            fewer.crowd[group].count /= 2;
            candidates.push(fewer);
        }
    }
    candidates
}
