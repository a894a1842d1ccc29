//! Numbers and places.

use std::collections::{BTreeMap, VecDeque};

use boxoffice_domain::queue::Replay;

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

/// The admission log is a chain, and whoever checks it by itself finds that order, rate and times were kept.
#[derive(Default)]
pub(super) struct Log(Replay);

impl Checker for Log {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        let Fact::Logged { record, follows } = fact else { return };
        let number = record.number;
        let mut wrong: Vec<String> =
            self.0.follow(record).iter().map(|it| format!("record {number}: {it}")).collect();
        if !follows {
            wrong.push(format!("record {number} does not follow from the one before"));
        }
        let violation = |how| Violation { rule: rules::LOG, at_us: now_us, how };
        broken.extend(wrong.into_iter().map(violation));
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
            Standing::Undrawn => u64::MAX,
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
    late: Late,
    /// The numbers that fans have heard: when, and how many have overtaken them.
    told: BTreeMap<u64, (u64, u64)>,
}

/// What is left of a pool: at least so many numbers, and as many as come in so many milliseconds.
const POOL_MIN: u64 = 64;
const POOL_MS: u64 = 30_000;
/// The rate is a mean over about so many milliseconds.
const RATE_MS: u64 = 2_000;

/// A number from the store may be overtaken for so long until all know who has Redis, in milliseconds.
const KNOWN_MS: u64 = 2_500;

/// Whether Redis is lost to some instance, by what breaks.
fn loses_redis(what: &What) -> bool {
    match what {
        What::Cut { peer, .. } | What::Slow { peer, .. } => *peer == Peer::Redis,
        // Not all have it back, or find that it is gone, at the same moment; whoever stood still takes it
        // for gone when it goes on.
        What::Restart { .. } | What::Failover { .. } | What::OutOfMemory | What::Pause(_) => true,
        _ => false,
    }
}

/// How many join in a stretch of so many milliseconds, at the most.
fn joins_in(plan: &Plan, ms: u64) -> u64 {
    plan.crowd.iter().map(|group| group.count as u64 * ms / group.over_ms.max(ms)).sum()
}

/// How many numbers a pool has at the most, where at the most so many join in [`RATE_MS`].
fn pool(rush: u64) -> u64 {
    (rush * POOL_MS / RATE_MS).max(POOL_MIN)
}

/// How many numbers may be given late: after higher ones, or after a draw that they are in.
pub(super) struct Late {
    allowed: u64,
    /// Whether all are to know of a number after [`KNOWN_MS`].
    is_known: bool,
}

impl Late {
    pub(super) fn of(plan: &Plan) -> Self {
        let loses_redis = plan.faults.iter().any(|fault| loses_redis(&fault.what));
        let loses_store = plan.faults.iter().any(|fault| match fault.what {
            What::Cut { peer, .. } | What::Slow { peer, .. } => peer == Peer::Store,
            What::Pause(_) | What::StoreClock(_) => true,
            _ => false,
        });
        let allowed = match (loses_redis, loses_store) {
            (false, _) => 0,
            (true, false) => joins_in(plan, KNOWN_MS),
            (true, true) => pool(joins_in(plan, RATE_MS)),
        };
        Self { allowed, is_known: loses_redis && !loses_store }
    }

    /// Whether the last of so many, so much later, is one that may not be: of those past the count, the first.
    pub(super) const fn is_too_late(&self, by: u64, later_us: u64) -> bool {
        let is_known = self.is_known && later_us > KNOWN_MS * 1_000;
        by == self.allowed + 1 || (is_known && by <= self.allowed)
    }
}

impl InOrder {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { late: Late::of(plan), told: BTreeMap::new() }
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
                    if self.late.is_too_late(*by, asked_us - *told_us) {
                        let how = format!(
                            "{before}, told at {} ms, by fan {fan} with {seq} and {} before it",
                            *told_us / 1_000,
                            *by - 1
                        );
                        *by = self.late.allowed + 1;
                        broken.push(Violation { rule: rules::OVERTAKEN, at_us: now_us, how });
                    }
                }
            }
            _ => {}
        }
    }
}

/// Numbers that nobody has are no more than what the pool of a queue is to have, where no Redis was lost.
pub(super) struct EmptyPlaces {
    /// Whether it can be told.
    applies: bool,
    /// How many fans there are: each may have asked once more than was answered.
    fans: u64,
    given: u64,
    /// When the last numbers were given, in microseconds,
    recent_us: VecDeque<u64>,
    /// and the most that were ever given in [`RATE_MS`].
    rush: u64,
    is_told: bool,
}

impl EmptyPlaces {
    pub(super) fn new(plan: &Plan) -> Self {
        let loses =
            |what: &What| loses_redis(what) || matches!(what, What::Flush | What::Twice { .. });
        Self {
            applies: !plan.faults.iter().any(|fault| loses(&fault.what)),
            fans: plan.crowd.iter().map(|group| group.count as u64).sum(),
            given: 0,
            recent_us: VecDeque::new(),
            rush: joins_in(plan, RATE_MS),
            is_told: false,
        }
    }
}

impl Checker for EmptyPlaces {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        match fact {
            Fact::Numbered { .. } => {
                self.given += 1;
                self.recent_us.push_back(now_us);
                while self.recent_us.front().is_some_and(|at| at + RATE_MS * 1_000 < now_us) {
                    self.recent_us.pop_front();
                }
                self.rush = self.rush.max(self.recent_us.len() as u64);
            }
            Fact::Looked { watermark } if self.applies && !self.is_told => {
                let empty = watermark.saturating_sub(self.given);
                // The rate is a mean: a rush in its second half counts twice.
                if empty > 2 * pool(self.rush) + self.fans {
                    self.is_told = true;
                    let how = format!("{empty} of {watermark}");
                    broken.push(Violation { rule: rules::EMPTY, at_us: now_us, how });
                }
            }
            _ => {}
        }
    }
}
