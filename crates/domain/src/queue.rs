//! The waiting queue: tickets that carry their own place.
//!
//! A ticket holds a number, `seq`, taken from a counter at the moment of joining. The queue itself
//! keeps no record per waiting user: a [`Line`] is a few counters, a log of admissions no longer
//! than the active time, and three sets of numbers that are small in practice. Everything that a
//! poll wants to know follows by arithmetic from the number and the line.
//!
//! `next`, the last number given, is not part of the line: it moves with every join, while a line
//! is a snapshot that changes a few times a second and is shared by all polls.

mod bucket;
mod change;
mod pace;

use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringTreemap;

pub use bucket::Bucket;
pub use change::SettingsChange;
pub use pace::{eta, poll_after};

use crate::ids::{QueueName, TicketId, UserId};
use crate::time::Timestamp;

/// What a ticket says. The signature that makes it true is the server's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The queue that the ticket is for.
    pub queue: QueueName,
    /// The number in the queue, counted from 1 by order of joining.
    pub seq: u64,
    /// Whose ticket it is.
    pub user: UserId,
    /// When it was given, or the second of that where the ticket was read from a token.
    pub issued_at: Timestamp,
    /// What makes it unique.
    pub id: TicketId,
}

/// How a queue admits.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueSettings {
    /// Admissions a second; finite and above zero.
    pub admit_per_second: f64,
    /// How many may be active at once, where that is bounded.
    pub max_active: Option<u64>,
    /// How long an admitted ticket opens doors.
    pub active_ttl: Duration,
    /// How long an admitted ticket counts as active before its owner has been seen.
    pub claim_window: Duration,
    /// Nobody is admitted before this moment, where one is set. Joining is possible all the same.
    pub opens_at: Option<Timestamp>,
    /// Nobody is admitted while this is true. Joining is possible all the same.
    pub paused: bool,
}

/// Whether a queue admits at a given moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It admits.
    Open,
    /// An operator paused it.
    Paused,
    /// It opens at a moment still to come.
    Scheduled(Timestamp),
}

impl QueueSettings {
    /// Whether the queue admits at `now`. A pause outweighs a schedule.
    pub fn gate(&self, now: Timestamp) -> Gate {
        match self.opens_at {
            _ if self.paused => Gate::Paused,
            Some(at) if now < at => Gate::Scheduled(at),
            _ => Gate::Open,
        }
    }
}

/// One step of admission: every number up to `upto` that was not admitted before, at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The highest number admitted.
    pub upto: u64,
    /// When.
    pub at: Timestamp,
}

/// Where a ticket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the line; `number` counts those ahead, plus one.
    Waiting {
        /// At least 1; never grows for a given ticket.
        number: u64,
    },
    /// Admitted.
    Active {
        /// When it ends.
        until: Timestamp,
        /// Whether its owner has been seen since the admission.
        claimed: bool,
    },
    /// Over.
    Over(Ending),
}

/// How a ticket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its active time ran out.
    TimedOut,
    /// It bought what it was for, or its owner left after being admitted.
    Finished,
    /// Its owner gave the place up while waiting.
    Left,
}

/// What became of the admissions that a [`Line::prune`] forgot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Admitted, seen, but neither paid nor left in time.
    pub expired: u64,
    /// Admitted and never seen.
    pub no_show: u64,
}

/// A queue but for its counter of joins. Cheap to clone: the parts are shared until one changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// The highest number admitted.
    serving: u64,
    /// Every number up to here has run out of active time; the log starts behind it.
    floor: u64,
    /// Admissions that may still be active, in order.
    log: Arc<Vec<Admission>>,
    /// Gave up while waiting.
    left: Arc<RoaringTreemap>,
    /// Admitted, seen since, and not finished.
    claimed: Arc<RoaringTreemap>,
    /// Admitted, then paid or left.
    finished: Arc<RoaringTreemap>,
}

impl Line {
    /// A line as it was stored. `None` where the parts contradict each other: a log that does not
    /// rise, or that does not lead from `floor` to `serving`.
    pub fn restore(
        serving: u64,
        floor: u64,
        log: Vec<Admission>,
        left: RoaringTreemap,
        claimed: RoaringTreemap,
        finished: RoaringTreemap,
    ) -> Option<Self> {
        let rises = log.windows(2).all(|w| w[0].upto < w[1].upto && w[0].at <= w[1].at);
        let leads = log.last().map_or(floor, |last| last.upto) == serving
            && log.first().is_none_or(|first| first.upto > floor);
        (rises && leads).then(|| Self {
            serving,
            floor,
            log: Arc::new(log),
            left: Arc::new(left),
            claimed: Arc::new(claimed),
            finished: Arc::new(finished),
        })
    }

    /// The highest number admitted.
    pub const fn serving(&self) -> u64 {
        self.serving
    }

    /// Every number up to here has run out of active time.
    pub const fn floor(&self) -> u64 {
        self.floor
    }

    /// The admissions that may still be active, in order.
    pub fn log(&self) -> &[Admission] {
        &self.log
    }

    /// The numbers that were seen after their admission and have not finished.
    pub fn claimed(&self) -> &RoaringTreemap {
        &self.claimed
    }

    /// The numbers given up while waiting.
    pub fn left(&self) -> &RoaringTreemap {
        &self.left
    }

    /// The numbers that paid, or left after their admission.
    pub fn finished(&self) -> &RoaringTreemap {
        &self.finished
    }

    /// Where the ticket with number `seq` stands at `now`.
    pub fn place(&self, seq: u64, active_ttl: Duration, now: Timestamp) -> Place {
        if seq > self.serving {
            if self.left.contains(seq) {
                return Place::Over(Ending::Left);
            }
            let left_ahead = self.left_in(self.serving, seq - 1);
            return Place::Waiting { number: seq - self.serving - left_ahead };
        }
        if self.finished.contains(seq) {
            return Place::Over(Ending::Finished);
        }
        if self.left.contains(seq) {
            return Place::Over(Ending::Left);
        }
        match self.admitted_at(seq).map(|at| at.plus(active_ttl)) {
            Some(until) if now < until => {
                Place::Active { until, claimed: self.claimed.contains(seq) }
            }
            _ => Place::Over(Ending::TimedOut),
        }
    }

    /// How many wait, where `next` is the last number given.
    pub fn waiting(&self, next: u64) -> u64 {
        let given = next.saturating_sub(self.serving);
        given - self.left_in(self.serving, next.max(self.serving))
    }

    /// How many count as active at `now`: admitted within the claim window, or seen since, and in
    /// both cases neither finished nor out of time.
    pub fn active(&self, settings: &QueueSettings, now: Timestamp) -> u64 {
        let floor = self.passed(settings.active_ttl, now);
        let recent = self.passed(settings.claim_window.min(settings.active_ttl), now).max(floor);
        let gone = |set: &RoaringTreemap| set.range_cardinality(recent + 1..=self.serving);
        self.serving - recent - gone(&self.left) - gone(&self.finished)
            + self.claimed.range_cardinality(floor + 1..=recent)
    }

    /// Decides whom to admit at `now`, at most `credit` of them: the next numbers in order, passing
    /// over those who left. `None` where the gate is shut, nobody waits, or no place is free.
    ///
    /// `active_bypass` counts active tickets that are not of this line (issued by an operator).
    pub fn plan(
        &self,
        settings: &QueueSettings,
        next: u64,
        credit: u64,
        active_bypass: u64,
        now: Timestamp,
    ) -> Option<Admission> {
        if settings.gate(now) != Gate::Open || next <= self.serving {
            return None;
        }
        let room = match settings.max_active {
            None => credit,
            Some(max) => credit.min(max.saturating_sub(self.active(settings, now) + active_bypass)),
        };
        let wanted = room.min(self.waiting(next));
        if wanted == 0 {
            return None;
        }
        let mut upto = self.serving + wanted;
        // Each round passes over those who left in the stretch that the last round added; it ends
        // because at least `wanted` numbers up to `next` have not left.
        loop {
            let staying = upto - self.serving - self.left_in(self.serving, upto);
            if staying == wanted {
                break;
            }
            upto += wanted - staying;
        }
        // The log must not run backwards even where the clock did.
        let at = self.log.last().map_or(now, |last| last.at.max(now));
        Some(Admission { upto, at })
    }

    /// Carries out an admission that [`Line::plan`] decided. Returns how many it admitted.
    pub fn admit(&mut self, admission: Admission) -> u64 {
        debug_assert!(admission.upto > self.serving, "an admission moves forward");
        let left = self.left_in(self.serving, admission.upto);
        let admitted = admission.upto - self.serving - left;
        self.serving = admission.upto;
        Arc::make_mut(&mut self.log).push(admission);
        admitted
    }

    /// Whether `seq` may be marked as seen at `now`: admitted, still active, not yet marked.
    pub fn claim(&mut self, seq: u64, active_ttl: Duration, now: Timestamp) -> bool {
        let unseen =
            matches!(self.place(seq, active_ttl, now), Place::Active { claimed: false, .. });
        if unseen {
            Arc::make_mut(&mut self.claimed).insert(seq);
        }
        unseen
    }

    /// The owner of `seq` gives up: a place in the line, or an admission.
    pub fn leave(&mut self, seq: u64) {
        if seq > self.serving {
            Arc::make_mut(&mut self.left).insert(seq);
        } else {
            self.finish(seq);
        }
    }

    /// The ticket `seq` has done what it was for. Of a number that was never admitted nothing is
    /// kept: the caller's view may be behind, never ahead.
    pub fn finish(&mut self, seq: u64) {
        if seq <= self.serving && seq > self.floor && !self.left.contains(seq) {
            Arc::make_mut(&mut self.finished).insert(seq);
            if self.claimed.contains(seq) {
                Arc::make_mut(&mut self.claimed).remove(seq);
            }
        }
    }

    /// Forgets the admissions whose active time is over at `now`, and all that was kept of them.
    pub fn prune(&mut self, active_ttl: Duration, now: Timestamp) -> Pruned {
        let floor = self.passed(active_ttl, now);
        if floor == self.floor {
            return Pruned::default();
        }
        let count = |set: &RoaringTreemap| set.range_cardinality(self.floor + 1..=floor);
        let expired = count(&self.claimed);
        let gone = count(&self.left) + count(&self.finished);
        let no_show = floor - self.floor - gone - expired;
        for set in [&mut self.left, &mut self.claimed, &mut self.finished] {
            if set.min().is_some_and(|min| min <= floor) {
                Arc::make_mut(set).remove_range(..=floor);
            }
        }
        Arc::make_mut(&mut self.log).retain(|admission| admission.upto > floor);
        self.floor = floor;
        Pruned { expired, no_show }
    }

    /// Takes in what another view of the same queue knows. Nothing goes back: the further `serving`
    /// counts, and whoever has left, been seen or finished in either of them has done so.
    pub fn absorb(&mut self, other: &Self) {
        if other.serving > self.serving {
            if other.floor > self.serving {
                // Everybody who was admitted here is out of time there.
                self.floor = other.floor;
                self.log = other.log.clone();
                for set in [&mut self.left, &mut self.claimed, &mut self.finished] {
                    Arc::make_mut(set).remove_range(..=other.floor);
                }
            } else {
                let known = other.log.partition_point(|step| step.upto <= self.serving);
                Arc::make_mut(&mut self.log).extend_from_slice(&other.log[known..]);
            }
            self.serving = other.serving;
        }
        let (floor, serving) = (self.floor, self.serving);
        let fresh = |theirs: &RoaringTreemap, ours: &RoaringTreemap, upto: u64| {
            let mut fresh = theirs - ours;
            fresh.remove_range(..=floor);
            fresh.remove_range(upto.saturating_add(1)..);
            fresh
        };
        // A number is in one of the three at the most: each counts it once.
        let left = fresh(&other.left, &self.left, u64::MAX - 1) - &*self.finished;
        if !left.is_empty() {
            *Arc::make_mut(&mut self.claimed) -= &left;
            *Arc::make_mut(&mut self.left) |= left;
        }
        let finished = fresh(&other.finished, &self.finished, serving) - &*self.left;
        if !finished.is_empty() {
            *Arc::make_mut(&mut self.claimed) -= &finished;
            *Arc::make_mut(&mut self.finished) |= finished;
        }
        let claimed = fresh(&other.claimed, &self.claimed, serving) - &*self.left - &*self.finished;
        if !claimed.is_empty() {
            *Arc::make_mut(&mut self.claimed) |= claimed;
        }
    }

    /// When `seq` was admitted, as far as that is still known.
    fn admitted_at(&self, seq: u64) -> Option<Timestamp> {
        if seq <= self.floor {
            return None;
        }
        let index = self.log.partition_point(|admission| admission.upto < seq);
        self.log.get(index).map(|admission| admission.at)
    }

    /// The highest number whose admission was at least `ago` before `now`.
    fn passed(&self, ago: Duration, now: Timestamp) -> u64 {
        let count = self.log.partition_point(|admission| admission.at.plus(ago) <= now);
        count.checked_sub(1).map_or(self.floor, |last| self.log[last].upto)
    }

    /// How many of the numbers above `from`, up to and with `upto`, gave up while waiting.
    fn left_in(&self, from: u64, upto: u64) -> u64 {
        if self.left.is_empty() { 0 } else { self.left.range_cardinality(from + 1..=upto) }
    }
}
