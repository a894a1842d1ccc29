//! How fast, how many, when, and whether at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::queue::{Ending, QueueSettings, SettingsChange};

use super::{Checker, Fact, Violation, rules};
use crate::instance::Standing;
use crate::plan::{Peer, Plan, What};
use crate::timeline::EPOCH_MS;
use crate::turns::Turns;

/// The rate, with what a full bucket adds, and once more for clocks that differ and calls that take
/// a while.
#[derive(Default)]
pub(super) struct Rate {
    /// How far clocks of instances are apart, in seconds: credit follows the one that is ahead.
    apart_s: f64,
    credit: f64,
    filled_us: Option<u64>,
    /// The highest rate of the last second: a change takes a moment to be heard.
    rate: f64,
    rate_before: (f64, u64),
}

impl Rate {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    pub(super) fn new(plan: &Plan) -> Self {
        Self { apart_s: plan.clocks_apart_ms() as f64 / 1e3, ..Self::default() }
    }
}

impl Checker for Rate {
    #[expect(clippy::cast_precision_loss, reason = "counts of a history are small")]
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        let Fact::Step { from, upto, admitted, settings, .. } = fact else { return };
        if (settings.admit_per_second - self.rate).abs() > f64::EPSILON {
            self.rate_before = (self.rate, now_us);
            self.rate = settings.admit_per_second;
        }
        let old = if now_us < self.rate_before.1 + 3_000_000 { self.rate_before.0 } else { 0.0 };
        let rate = self.rate.max(old);
        // A step that was on its way for long, and one that was planned since, each with a full bucket.
        let capacity = 3.0 * (rate / 2.0).max(2.0) + 1.0 + rate * self.apart_s;
        let elapsed_s = match self.filled_us {
            Some(filled_us) => (now_us - filled_us) as f64 / 1e6,
            None => f64::INFINITY,
        };
        self.filled_us = Some(now_us);
        self.credit = (self.credit + rate * elapsed_s).min(capacity);
        self.credit -= admitted.len() as f64;
        if self.credit < 0.0 {
            let how = format!("{from} to {upto} at {rate} a second, {:.1} too many", -self.credit);
            broken.push(Violation { rule: rules::TOO_FAST, at_us: now_us, how });
            self.credit = 0.0;
        }
    }
}

/// Times of admission are within a bound of the store's: a clock that is off does not decide.
pub(super) struct Vouched;

/// What may be off, and as long again for a step that is on its way, in milliseconds.
const APART_MS: i64 = 2_100;

impl Checker for Vouched {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        let Fact::Step { upto, at, database, .. } = fact else { return };
        let apart_ms = at.0 - database.0;
        if apart_ms.abs() > APART_MS {
            let how = format!("the step to {upto} is {apart_ms} ms ahead of the store");
            broken.push(Violation { rule: rules::TIME_APART, at_us: now_us, how });
        }
    }
}

/// What is known of a number that was admitted.
struct Active {
    admitted_us: u64,
    seen_us: Option<u64>,
    ended_us: Option<u64>,
}

/// `max_active`: of those admitted within the claim window, or seen within it.
pub(super) struct Bound {
    known_us: u64,
    /// When something is broken. Who was seen a moment before may be forgotten with an instance, or heard
    /// of late by the others, until he is seen again.
    broken_us: Vec<(u64, u64)>,
    claim_window_us: u64,
    active_us: u64,
    /// By number. Who it is, is known of those who were told.
    admitted: BTreeMap<u64, Active>,
    numbers: BTreeMap<usize, u64>,
    ended: BTreeMap<u64, u64>,
}

/// Who is seen so long before the end of the claim window is known to all in time, in microseconds, by
/// clocks that agree.
const KNOWN_US: u64 = 1_500_000;

/// Clocks may be apart by so much, in microseconds: for whoever admits some are out of time already.
const APART_US: u64 = 1_000_000;
/// It takes so long until more than the instance that has answered knows whom it has seen, in
/// microseconds.
const MARKED_US: u64 = 2_500_000;

impl Bound {
    pub(super) fn new(plan: &Plan) -> Self {
        let us = |time: Duration| time.as_micros() as u64;
        Self {
            known_us: KNOWN_US + plan.clocks_apart_ms() * 1_000,
            broken_us: plan
                .faults
                .iter()
                .map(|fault| (fault.from_ms * 1_000, fault.until_ms * 1_000))
                .collect(),
            claim_window_us: us(plan.queue.claim_window),
            active_us: us(plan.queue.active_ttl),
            admitted: BTreeMap::new(),
            numbers: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    /// How many are active at least: for those about whom instances may differ, the milder holds.
    fn active(&self, now_us: u64) -> u64 {
        let active = |active: &&Active| {
            let age_us = now_us - active.admitted_us;
            if active.ended_us.is_some() || age_us + APART_US >= self.active_us {
                return false;
            }
            let in_time = |seen_us: u64| {
                seen_us + self.known_us < active.admitted_us + self.claim_window_us
                    && seen_us + self.known_us < now_us
            };
            age_us + self.known_us < self.claim_window_us || active.seen_us.is_some_and(in_time)
        };
        self.admitted.values().filter(active).count() as u64
    }
}

impl Checker for Bound {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        match fact {
            Fact::Told { fan, seq, .. } => {
                self.numbers.insert(*fan, *seq);
            }
            Fact::Stands { seq, standing: Standing::Active, .. } => {
                let lost = |(from_us, until_us): &(u64, u64)| {
                    *from_us <= now_us + MARKED_US && now_us <= *until_us + MARKED_US
                };
                if self.broken_us.iter().any(lost) {
                    return;
                }
                if let Some(active) = self.admitted.get_mut(seq) {
                    active.seen_us.get_or_insert(now_us);
                }
            }
            // Others may know it before the fan does.
            Fact::MayEnd { fan, .. } | Fact::Ended { fan } => {
                if let Some(seq) = self.numbers.get(fan) {
                    self.ended.insert(*seq, now_us);
                    if let Some(active) = self.admitted.get_mut(seq) {
                        active.ended_us = Some(now_us);
                    }
                }
            }
            Fact::Step { from, upto, admitted, at, database, settings, .. } => {
                // Their time began with the step's, which may have been on its way for a while.
                let late_us = database.since(*at).as_micros() as u64;
                let admitted_us = now_us.saturating_sub(late_us);
                for seq in admitted {
                    let ended_us = self.ended.get(seq).copied();
                    let active = Active { admitted_us, seen_us: None, ended_us };
                    self.admitted.insert(*seq, active);
                }
                let Some(max) = settings.max_active else { return };
                let active = self.active(now_us);
                if active > max {
                    let how = format!("{active} after {from} to {upto}; {max} are allowed");
                    broken.push(Violation { rule: rules::TOO_MANY, at_us: now_us, how });
                }
            }
            _ => {}
        }
    }
}

/// Nobody is admitted once an operator was told that the queue is paused, or opens later.
#[derive(Default)]
pub(super) struct Gated {
    told: Vec<(u64, SettingsChange)>,
}

impl Checker for Gated {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        match fact {
            Fact::Changed { change } => self.told.push((now_us, change.clone())),
            Fact::Step { from, upto, admitted, settings, .. } if !admitted.is_empty() => {
                let QueueSettings { paused, opens_at, .. } = settings;
                let told = |of: fn(&SettingsChange) -> bool| {
                    self.told.iter().rev().find(|(_, change)| of(change)).map(|(at_us, _)| *at_us)
                };
                let paused_us = told(|change| change.paused.is_some()).filter(|_| *paused);
                let opens_us = told(|change| change.opens_at.is_some()).filter(|_| {
                    // A clock may be ahead by a second.
                    let open_ms = opens_at.map_or(i64::MIN, |at| at.0 - EPOCH_MS);
                    (now_us / 1_000) as i64 + 1_000 < open_ms
                });
                if let Some(told_us) = paused_us.or(opens_us) {
                    let how = format!(
                        "{from} to {upto}, though the operator was told at {} ms",
                        told_us / 1_000
                    );
                    broken.push(Violation { rule: rules::SHUT, at_us: now_us, how });
                }
            }
            _ => {}
        }
    }
}

/// Whoever polls is let in: nobody is over without having been active, and at the end of a history in
/// which everybody had time enough, nobody waits.
pub(super) struct LetIn {
    liveness: bool,
    claim_window_us: u64,
    /// Who has come within this time need not be known to be there.
    heard_us: u64,
    active: BTreeMap<usize, bool>,
    /// When fans who poll were heard of last; gone for those who went away.
    polled_us: BTreeMap<usize, u64>,
    /// Since when they have been there.
    since_us: BTreeMap<usize, u64>,
    /// Whose number it is.
    fans: BTreeMap<u64, usize>,
}

/// Who has polled within this time is there, whatever it was told, in microseconds.
const THERE_US: u64 = 9_000_000;
/// Who has only just come, or come back, need not be known to be there, in microseconds.
const HEARD_US: u64 = 3_000_000;
/// Nor for so long where instances hear of each other late: they wait for five seconds for one that is
/// silent, and its next beat and the way come on top.
const HEARD_LATE_US: u64 = 6_500_000;

impl LetIn {
    pub(super) fn new(plan: &Plan) -> Self {
        let is_late = plan.faults.iter().any(|fault| match fault.what {
            What::Cut { peer, .. } | What::Slow { peer, .. } => peer == Peer::Store,
            _ => false,
        });
        Self {
            liveness: plan.liveness,
            claim_window_us: plan.queue.claim_window.as_micros() as u64,
            heard_us: if is_late { HEARD_LATE_US } else { HEARD_US },
            active: BTreeMap::new(),
            polled_us: BTreeMap::new(),
            since_us: BTreeMap::new(),
            fans: BTreeMap::new(),
        }
    }
}

impl Checker for LetIn {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        match fact {
            Fact::Away { fan } => {
                self.polled_us.remove(fan);
                self.since_us.remove(fan);
            }
            Fact::Stands { fan, seq, standing, polls: true, .. } => {
                match standing {
                    Standing::Active => {
                        self.active.insert(*fan, true);
                    }
                    Standing::Over(Ending::TimedOut) if !self.active.contains_key(fan) => {
                        let polled = self.polled_us.get(fan);
                        if polled.is_some_and(|at_us| now_us - at_us < self.claim_window_us) {
                            let how = format!("fan {fan} with {seq} polled and was never let in");
                            broken.push(Violation { rule: rules::PASSED_OVER, at_us: now_us, how });
                        }
                    }
                    _ => {}
                }
                let before_us = self.polled_us.insert(*fan, now_us);
                let goes_on = before_us.is_some_and(|us| now_us - us < THERE_US);
                if !goes_on {
                    self.since_us.insert(*fan, now_us);
                }
                self.fans.insert(*seq, *fan);
            }
            Fact::Step { passed, .. } => {
                for seq in passed {
                    let Some(fan) = self.fans.get(seq) else { continue };
                    let new = self.since_us.get(fan).is_none_or(|us| now_us - us < self.heard_us);
                    let polled_us = self.polled_us.get(fan);
                    let there = polled_us.filter(|at_us| !new && now_us - **at_us < THERE_US);
                    if let Some(at_us) = there {
                        let how = format!("{seq} polled at {} ms", at_us / 1_000);
                        broken.push(Violation { rule: rules::PASSED_OVER, at_us: now_us, how });
                    }
                }
            }
            Fact::StillWaits { fan, seq, since_us } if self.liveness => {
                let how = format!("fan {fan} with {seq} has polled since {} ms", since_us / 1_000);
                broken.push(Violation { rule: rules::NOT_LET_IN, at_us: now_us, how });
            }
            _ => {}
        }
    }
}

/// Nobody is told to ask more seldom than three times in a claim window.
pub(super) struct AskedInTime {
    longest_ms: u64,
}

impl AskedInTime {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { longest_ms: plan.queue.claim_window.as_millis() as u64 / 3 }
    }
}

impl Checker for AskedInTime {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        match fact {
            Fact::Stands { fan, after_ms, .. } if *after_ms > self.longest_ms => {
                let how = format!("fan {fan} in {after_ms} ms");
                broken.push(Violation { rule: rules::ASKED_SELDOM, at_us: now_us, how });
            }
            _ => {}
        }
    }
}

/// Nobody is told to be let in whose step is not durable.
#[derive(Default)]
pub(super) struct ByAStep {
    turns: Arc<Turns>,
    served: u64,
}

impl Checker for ByAStep {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        match fact {
            Fact::Step { upto, .. } => self.served = self.served.max(*upto),
            Fact::Drawn { turns } => self.turns = turns.clone(),
            Fact::Stands { fan, seq, standing: Standing::Active, .. }
                if self.turns.turn(*seq) > self.served =>
            {
                let how = format!("fan {fan} with {seq}; the store has admitted {}", self.served);
                broken.push(Violation { rule: rules::NO_STEP, at_us: now_us, how });
            }
            _ => {}
        }
    }
}
