//! The line follows the sale behind it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use boxoffice_domain::time::Timestamp;

use super::{Checker, Fact, Violation, rules};
use crate::instance::Standing;
use crate::plan::Plan;
use crate::timeline::EPOCH_MS;

/// A step was planned no longer ago than this, by the store's time, which clocks follow within a second: what
/// was known of the sale then decides. In milliseconds.
const KNOWN_MS: i64 = 2_500;
/// Clocks may be apart by so much, and as long again: for whoever admits some are out of time already. In
/// microseconds.
const APART_US: u64 = 2_000_000;

/// Nobody is admitted before the sale opens or after all is sold, nor more than what is left can serve.
pub(super) struct Followed {
    is_on: bool,
    by_stock: bool,
    opens_at: Timestamp,
    /// How many seats were not sold, and when, by the store's time; the latest at the back.
    unsold: VecDeque<(Timestamp, u64)>,
    kept_us: u64,
    active_us: u64,
    /// When they were admitted, by number.
    admitted: BTreeMap<u64, u64>,
    numbers: BTreeMap<usize, u64>,
    /// Those who give up or pay, or have done so: the service may know it before they do.
    ended: BTreeSet<u64>,
}

impl Followed {
    pub(super) fn new(plan: &Plan) -> Self {
        let us = |time: std::time::Duration| time.as_micros() as u64;
        Self {
            is_on: plan.sale_rules.is_some(),
            by_stock: plan.sale_rules.is_some_and(|rules| rules.by_stock),
            opens_at: Timestamp(EPOCH_MS + plan.sale_opens_ms),
            unsold: VecDeque::new(),
            // Whoever has been let in is kept room for, seen or not, for so long by every clock.
            kept_us: us(plan.queue.claim_window).saturating_sub(APART_US),
            active_us: us(plan.queue.active_ttl),
            admitted: BTreeMap::new(),
            numbers: BTreeMap::new(),
            ended: BTreeSet::new(),
        }
    }

    /// The most that may have been left when a step of this time was planned.
    fn left(&self, at: Timestamp) -> u64 {
        let since = Timestamp(at.0 - KNOWN_MS);
        let before = self.unsold.iter().rev().find(|(then, _)| *then < since);
        let lately = self.unsold.iter().filter(|(then, _)| *then >= since);
        lately.chain(before).map(|(_, left)| *left).max().unwrap_or(u64::MAX)
    }
}

impl Checker for Followed {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        if !self.is_on {
            return;
        }
        match fact {
            Fact::Unsold { seats, database }
                if self.unsold.back().is_none_or(|(_, last)| last != seats) =>
            {
                self.unsold.push_back((*database, *seats));
            }
            Fact::Told { fan, seq } => {
                self.numbers.insert(*fan, *seq);
            }
            Fact::MayEnd { fan, .. } | Fact::Ended { fan } => {
                if let Some(seq) = self.numbers.get(fan) {
                    self.admitted.remove(seq);
                    self.ended.insert(*seq);
                }
            }
            Fact::Stands { seq, standing: Standing::Over(_), .. } => {
                self.admitted.remove(seq);
            }
            Fact::Step { from, upto, admitted, at, database, .. } if !admitted.is_empty() => {
                let left = self.left(*at);
                let early_ms = self.opens_at.0 - at.0;
                if early_ms > 0 || left == 0 {
                    let how = format!("{from} to {upto}, {early_ms} ms early, {left} seats left");
                    let rule = rules::NOTHING_TO_BUY;
                    broken.push(Violation { rule, at_us: now_us, how });
                }
                // Who is there by every reckoning; the others may be out of time, or not have been seen.
                let kept_us = self.kept_us.min(self.active_us.saturating_sub(APART_US));
                self.admitted.retain(|_, then_us| now_us - *then_us < kept_us);
                // Their time began with the step's, which may have been on its way for a while.
                let then_us = now_us.saturating_sub(database.since(*at).as_micros() as u64);
                let staying = admitted.iter().filter(|seq| !self.ended.contains(*seq));
                self.admitted.extend(staying.map(|seq| (*seq, then_us)));
                let inside = self.admitted.len() as u64;
                if self.by_stock && inside > left {
                    let how = format!("{inside} inside after {from} to {upto}, {left} seats left");
                    broken.push(Violation { rule: rules::NOT_FOR_ALL, at_us: now_us, how });
                }
            }
            _ => {}
        }
    }
}
