//! Seats, points, events.

use boxoffice_domain::sales::ReservationState;

use super::{Checker, Fact, Violation, rules};

/// The audits of store and sequencer find nothing.
pub(super) struct Audit;

impl Checker for Audit {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        let Fact::Audited(finding) = fact else { return };
        if finding.violations > 0 {
            let how = format!("{}: {}", finding.invariant, finding.examples.join("; "));
            broken.push(Violation { rule: rules::AUDIT, at_us: now_us, how });
        }
    }
}

/// What a fan was told is so: holds, payments, tickets that were given up.
pub(super) struct Acknowledged;

impl Checker for Acknowledged {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        let how = match fact {
            Fact::PaidInTheEnd { state: Some(ReservationState::Paid { .. }), .. } => return,
            Fact::PaidInTheEnd { fan, reservation, state } => {
                format!("fan {fan} was told that {reservation} is paid; it is {state:?}")
            }
            Fact::Lost { fan, what } => format!("fan {fan} was told of {what}"),
            _ => return,
        };
        broken.push(Violation { rule: rules::LOST, at_us: now_us, how });
    }
}
