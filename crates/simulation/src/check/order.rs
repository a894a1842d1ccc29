//! Numbers and places.

use std::collections::BTreeMap;

use super::{Checker, Fact, Violation, rules};
use crate::instance::Standing;
use crate::plan::{Peer, Plan, What};

/// A number is given to one ticket only.
#[derive(Default)]
pub(super) struct NumbersOnce {
    given: BTreeMap<u64, (usize, u64)>,
}

impl Checker for NumbersOnce {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        let Fact::Numbered { fan, seq, instance, .. } = fact else { return };
        if let Some((first, at_us)) = self.given.insert(*seq, (*fan, now_us)) {
            let how = format!(
                "{seq} by instance {instance} to fan {fan}, and at {} ms to fan {first}",
                at_us / 1_000
            );
            broken.push(Violation { rule: rules::NUMBER_TWICE, at_us: now_us, how });
        }
    }
}

/// Only the store hands out numbers: each that was given is below its watermark.
#[derive(Default)]
pub(super) struct FromTheStore {
    watermark: u64,
    /// The highest number that was given since the store was looked at, and to whom.
    highest: Option<(u64, usize, u64)>,
}

impl Checker for FromTheStore {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        match fact {
            Fact::Numbered { fan, seq, .. } => {
                self.highest = self.highest.max(Some((*seq, *fan, now_us)));
            }
            Fact::Looked { watermark } => {
                self.watermark = *watermark;
                if let Some((seq, fan, at_us)) = self.highest.take()
                    && seq > self.watermark
                {
                    let how = format!("fan {fan} has {seq}, the store has given {watermark}");
                    broken.push(Violation { rule: rules::UNKNOWN_TO_STORE, at_us, how });
                }
            }
            _ => {}
        }
    }
}

/// A place never grows, and nobody who was let in waits again. At another instance it may for as long
/// as that one takes to hear of what the first one knows, which has no bound while something is broken.
pub(super) struct PlacesShrink {
    breaks: bool,
    /// The last standing of each fan, when the answer had come, and from which instance.
    last: BTreeMap<(usize, u64), (Standing, u64, usize)>,
}

/// What an instance knows is known to all in time, in microseconds.
const HEARD_US: u64 = 1_000_000;

impl PlacesShrink {
    pub(super) const fn new(plan: &Plan) -> Self {
        Self { breaks: !plan.faults.is_empty(), last: BTreeMap::new() }
    }
}

impl Checker for PlacesShrink {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        let Fact::Stands { fan, seq, standing, asked_us, instance, .. } = fact else { return };
        let rank = |standing: &Standing| match standing {
            Standing::Waiting(number) => *number,
            Standing::Active | Standing::Over(_) => 0,
        };
        let before = self.last.insert((*fan, *seq), (*standing, now_us, *instance));
        let Some((before, heard_us, there)) = before else { return };
        let is_bound = if there == *instance {
            *asked_us >= heard_us
        } else {
            !self.breaks && *asked_us >= heard_us + HEARD_US
        };
        if is_bound && rank(standing) > rank(&before) {
            let how = format!(
                "fan {fan} with {seq}: {before:?} at {there}, then {standing:?} at {instance}"
            );
            broken.push(Violation { rule: rules::PLACE_GREW, at_us: now_us, how });
        }
    }
}

/// Who has an answer before somebody else asks has the lower number, within the documented bound: none,
/// but where some instances may have Redis while others have not. Then those who got a number from the
/// store are overtaken by what is left of the pool.
pub(super) struct InOrder {
    /// By how many later ones a number may be overtaken.
    allowed: u64,
    /// The numbers that fans have heard: when, and how many have overtaken them.
    told: BTreeMap<u64, (u64, u64)>,
}

/// What is left of a pool: at least so many numbers, and as many as come in so many milliseconds.
const POOL_MIN: u64 = 64;
const POOL_MS: u64 = 30_000;
/// The rate is a mean over about so many milliseconds.
const RATE_MS: u64 = 2_000;

impl InOrder {
    pub(super) fn new(plan: &Plan) -> Self {
        let tears = plan.faults.iter().any(|fault| match fault.what {
            What::Cut { peer, .. } | What::Slow { peer, .. } => peer == Peer::Redis,
            // Not all have it back, or find that it is gone, at the same moment.
            What::Restart { .. } | What::Failover { .. } | What::OutOfMemory => true,
            // Whoever stood still takes Redis for gone when it goes on.
            What::Pause(_) => true,
            _ => false,
        });
        let pools = plan
            .crowd
            .iter()
            .map(|group| group.count as u64 * POOL_MS / group.over_ms.max(RATE_MS));
        let allowed = if tears { pools.sum::<u64>().max(POOL_MIN) } else { 0 };
        Self { allowed, told: BTreeMap::new() }
    }
}

impl Checker for InOrder {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        match fact {
            Fact::Told { seq, .. } => {
                self.told.entry(*seq).or_insert((now_us, 0));
            }
            Fact::Numbered { fan, seq, asked_us, .. } => {
                for (before, (told_us, by)) in self.told.range_mut(seq + 1..) {
                    if *told_us >= *asked_us {
                        continue;
                    }
                    *by += 1;
                    // Each is told once.
                    if *by == self.allowed + 1 {
                        let how = format!(
                            "{before}, told at {} ms, by fan {fan} with {seq} and {} before it",
                            *told_us / 1_000,
                            self.allowed
                        );
                        broken.push(Violation { rule: rules::OVERTAKEN, at_us: now_us, how });
                    }
                }
            }
            _ => {}
        }
    }
}
