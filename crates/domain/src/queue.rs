//! The waiting queue: tickets that carry their own place.
//!
//! A ticket holds a number, `seq`, taken from a counter at the moment of joining. The queue itself
//! keeps no record per waiting user: a [`Line`] is a few counters, a log of admissions no longer
//! than the active time, and sets of numbers that are small in practice. Everything that a poll
//! wants to know follows by arithmetic from the number and the line.
//!
//! Where those are drawn who join before the opening ([`Draw`]), a number has another *rank*: which turn it
//! has. Else the two are the same. A line counts ranks.
//!
//! Numbers whose owners are not there ([`Presence`]) are passed over when their turn comes. They
//! wait on, ahead of everybody, and are admitted once their owners are back.
//!
//! `next`, the last number given, is not part of the line: it moves with every join, while a line
//! is a snapshot that changes a few times a second and is shared by all polls.

mod bucket;
mod change;
mod draw;
mod forecast;
mod governor;
mod pace;
mod presence;
mod preview;
mod record;
mod replay;
mod runs;
mod sale;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringTreemap;

pub use bucket::Bucket;
pub use change::SettingsChange;
pub use draw::{Draw, Drawing, Drawn, Order};
pub use forecast::{Expected, Forecast, Observed, Promise, Speed};
pub use governor::{Felt, Governor, GovernorParts, Reason, SHARE_MIN};
pub use pace::poll_after;
pub use presence::Presence;
pub use preview::{Circumstances, Warning, warnings};
pub use record::{Admitted, Entry, Record, Standing, Terms};
pub use replay::{Broken, Fate, Replay};
pub use runs::Runs;
pub use sale::{AfterSale, Closing, Outlook, QueueState, Sale, SaleRules, SaleWindow};

use forecast::Cohort;

use crate::ids::{QueueName, TicketId, UserId};
use crate::time::Timestamp;

/// How long after the claim window the room of an unseen ticket is kept: somebody who first shows
/// up within the window keeps it, even where another instance hears of that a little later.
pub const CLAIM_GRACE: Duration = Duration::from_secs(2);

/// Times of steps that different instances plan may be apart by so much: a step is planned at most a second
/// ahead of the database's time, and counts for two seconds.
pub const CLOCKS_APART: Duration = Duration::from_secs(3);

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
    /// How long an admitted ticket counts as active before its owner has been seen, but for
    /// [`CLAIM_GRACE`].
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

/// An entry of the log of admissions: every number up to `upto` that is not in an entry before it
/// had its turn at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The highest number that had its turn.
    pub upto: u64,
    /// When.
    pub at: Timestamp,
}

/// One step of admission, as [`Line::plan`] decides it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// `serving` after the step: at least what it was before.
    pub upto: u64,
    /// When.
    pub at: Timestamp,
    /// The numbers above the old `serving` and up to `upto` that are passed over, because their
    /// owners are absent. Those who left are not among them.
    pub passed: RoaringTreemap,
    /// The numbers above the old `serving` and up to `upto` whose owners left before. They are known by other
    /// ways too; this is for the admission log.
    pub left: RoaringTreemap,
    /// The numbers that were passed over in an earlier step and are admitted now.
    pub returned: RoaringTreemap,
}

/// Where a ticket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the line; `number` counts those ahead, plus one.
    Waiting {
        /// At least 1; never grows for a given ticket.
        number: u64,
    },
    /// It takes part in the opening draw, and has no place before.
    Undrawn,
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
    /// It bought what it was for.
    Finished,
    /// Its owner gave it up, while waiting or after being admitted.
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

/// The parts of a [`Line`], as they are stored.
#[derive(Clone, Debug, Default)]
pub struct LineParts {
    /// See [`Line::steps`].
    pub steps: u64,
    /// See [`Line::serving`].
    pub serving: u64,
    /// See [`Line::floor`].
    pub floor: u64,
    /// See [`Line::log`].
    pub log: Vec<Admission>,
    /// See [`Line::left`].
    pub left: RoaringTreemap,
    /// See [`Line::claimed`].
    pub claimed: RoaringTreemap,
    /// See [`Line::finished`].
    pub finished: RoaringTreemap,
    /// See [`Line::passed`].
    pub passed: RoaringTreemap,
    /// See [`Line::readmitted`]; in any order.
    pub readmitted: Vec<(u64, Timestamp)>,
    /// See [`Line::order`].
    pub order: Order,
}

/// Who had their turn in a line, to count how many it has let in since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    serving: u64,
    passed: u64,
    readmitted: u64,
}

/// A queue but for its counter of joins. Cheap to clone: the parts are shared until one changes.
///
/// `passed` and `readmitted` change by steps alone. So a number that was passed over and then left
/// is in `passed` and in `left`, and `left` outweighs; the same with `finished`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// How many steps and changes of settings there were.
    steps: u64,
    /// The highest number that had its turn.
    serving: u64,
    /// Every number up to here that was admitted in its turn has run out of active time; the log
    /// starts behind it.
    floor: u64,
    /// Admissions that may still be active, in order.
    log: Arc<Vec<Admission>>,
    /// Gave up, while waiting or after their admission.
    left: Arc<RoaringTreemap>,
    /// Admitted in their turn, seen since, and neither finished nor given up.
    claimed: Arc<RoaringTreemap>,
    /// Admitted, then paid.
    finished: Arc<RoaringTreemap>,
    /// Absent in their turn, and not admitted since.
    passed: Arc<RoaringTreemap>,
    /// Absent in their turn and admitted later, with the time of that.
    readmitted: Arc<BTreeMap<u64, Timestamp>>,
    /// Which turn a number has.
    order: Order,
}

impl Line {
    /// A line as it was stored. `None` where the parts contradict each other: a log that does not
    /// rise, or that does not lead from `floor` to `serving`; numbers that were passed over or
    /// readmitted before their turn, or that are both or twice the one; a turn before the draw.
    pub fn restore(parts: LineParts) -> Option<Self> {
        let LineParts {
            steps,
            serving,
            floor,
            log,
            left,
            claimed,
            finished,
            passed,
            readmitted: admitted_late,
            order,
        } = parts;
        let rises = log.windows(2).all(|w| w[0].upto < w[1].upto && w[0].at <= w[1].at);
        let leads = log.last().map_or(floor, |last| last.upto) == serving
            && log.first().is_none_or(|first| first.upto > floor);
        let count = admitted_late.len();
        let readmitted: BTreeMap<u64, Timestamp> = admitted_late.into_iter().collect();
        let had_turn = passed.max().is_none_or(|max| max <= serving)
            && readmitted.last_key_value().is_none_or(|(last, _)| *last <= serving);
        let apart =
            readmitted.len() == count && readmitted.keys().all(|seq| !passed.contains(*seq));
        let drawn = order != Order::Undrawn || serving == 0;
        (rises && leads && had_turn && apart && drawn).then(|| Self {
            steps,
            serving,
            floor,
            log: Arc::new(log),
            left: Arc::new(left),
            claimed: Arc::new(claimed),
            finished: Arc::new(finished),
            passed: Arc::new(passed),
            readmitted: Arc::new(readmitted),
            order,
        })
    }

    /// Returns the parts to store; [`Line::restore`] makes the same line of them.
    pub fn parts(&self) -> LineParts {
        LineParts {
            steps: self.steps,
            serving: self.serving,
            floor: self.floor,
            log: (*self.log).clone(),
            left: (*self.left).clone(),
            claimed: (*self.claimed).clone(),
            finished: (*self.finished).clone(),
            passed: (*self.passed).clone(),
            readmitted: self.readmitted.iter().map(|(seq, at)| (*seq, *at)).collect(),
            order: self.order.clone(),
        }
    }

    /// How many steps of admission and changes of settings the line has seen. A step counts only
    /// from the `steps` that it was planned on.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Notes a change of settings, after which the line has seen so many steps.
    pub const fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// The highest number that had its turn.
    pub const fn serving(&self) -> u64 {
        self.serving
    }

    /// Every number up to here that was admitted in its turn has run out of active time.
    pub const fn floor(&self) -> u64 {
        self.floor
    }

    /// Who had their turn up to now.
    pub fn turns(&self) -> Turns {
        Turns {
            serving: self.serving,
            passed: self.passed.len(),
            readmitted: self.readmitted.len() as u64,
        }
    }

    /// How many it has let in since. Who leaves right after that counts as never let in.
    pub fn admitted_since(&self, before: Turns) -> u64 {
        let now = self.turns();
        let turned = now.serving.saturating_sub(before.serving);
        let left = self.left_in(before.serving.min(now.serving), now.serving);
        let passed =
            (now.passed + now.readmitted).saturating_sub(before.passed + before.readmitted);
        turned.saturating_sub(left + passed) + now.readmitted.saturating_sub(before.readmitted)
    }

    /// The admissions that may still be active, in order.
    pub fn log(&self) -> &[Admission] {
        &self.log
    }

    /// The numbers that were seen after their admission and have not finished.
    pub fn claimed(&self) -> &RoaringTreemap {
        &self.claimed
    }

    /// The numbers given up. Those that had been passed over by then stay here for good.
    pub fn left(&self) -> &RoaringTreemap {
        &self.left
    }

    /// The numbers that paid.
    pub fn finished(&self) -> &RoaringTreemap {
        &self.finished
    }

    /// The numbers whose owners were absent in their turn, and that were not admitted since; also
    /// those of them that left.
    pub fn passed(&self) -> &RoaringTreemap {
        &self.passed
    }

    /// The numbers that were passed over and then admitted, and when; until their time is over.
    pub fn readmitted(&self) -> &BTreeMap<u64, Timestamp> {
        &self.readmitted
    }

    /// Which turn a number has.
    pub const fn order(&self) -> &Order {
        &self.order
    }

    /// Whether the opening draw is still to come.
    pub fn is_undrawn(&self) -> bool {
        self.order == Order::Undrawn
    }

    /// The opening draw, unless there was one, or there is to be none. From now on what is kept of numbers is
    /// kept of their ranks.
    pub fn draw(&mut self, draw: &Draw) {
        if !self.is_undrawn() {
            return;
        }
        if !self.left.is_empty() {
            self.left = Arc::new(self.left.iter().map(|number| draw.rank(number)).collect());
        }
        self.order = Order::Drawn(draw.clone());
    }

    /// Where the ticket with this number stands at `now`, and its rank.
    pub fn place_of(&self, number: u64, active_ttl: Duration, now: Timestamp) -> (Place, u64) {
        if self.is_undrawn() && !self.left.contains(number) {
            return (Place::Undrawn, number);
        }
        let rank = self.order.rank(number);
        (self.place(rank, active_ttl, now), rank)
    }

    /// Where the rank `seq` stands at `now`.
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
        if self.passed.contains(seq) {
            return Place::Waiting { number: 1 };
        }
        // Who comes back is seen by that.
        let (at, seen) = match self.readmitted.get(&seq) {
            Some(at) => (Some(*at), true),
            None => (self.admitted_at(seq), self.claimed.contains(seq)),
        };
        match at.map(|at| at.plus(active_ttl)) {
            Some(until) if now < until => Place::Active { until, claimed: seen },
            _ => Place::Over(Ending::TimedOut),
        }
    }

    /// How many wait for their turn, where `next` is the last number given.
    pub fn waiting(&self, next: u64) -> u64 {
        let given = next.saturating_sub(self.serving);
        given - self.left_in(self.serving, next.max(self.serving))
    }

    /// How many count as active at `now`: admitted within the claim window and [`CLAIM_GRACE`], or
    /// seen since, and in both cases neither finished nor out of time.
    pub fn active(&self, settings: &QueueSettings, now: Timestamp) -> u64 {
        let ttl = settings.active_ttl;
        let floor = self.turned(ttl, now);
        let recent = self.turned(claim_kept(settings).min(ttl), now).max(floor);
        let readmitted = self.readmitted.iter().filter(|(seq, at)| {
            now < at.plus(ttl) && !self.finished.contains(**seq) && !self.left.contains(**seq)
        });
        (self.serving - recent).saturating_sub(self.gone_in(recent, self.serving))
            + count_in(&self.claimed, floor, recent)
            + readmitted.count() as u64
    }

    /// Those whose active time is not over, by when they were let in: in units of `unit_ms` since 1970. Who
    /// left is counted of the numbers above `above`.
    fn cohorts(
        &self,
        settings: &QueueSettings,
        unit_ms: i64,
        above: u64,
        now: Timestamp,
    ) -> BTreeMap<i64, Cohort> {
        let mut cohorts: BTreeMap<i64, Cohort> = BTreeMap::new();
        let mut from = self.turned(settings.active_ttl, now);
        let begins = self.log.partition_point(|admission| admission.upto <= from);
        let same =
            |a: &Admission, b: &Admission| a.at.0.div_euclid(unit_ms) == b.at.0.div_euclid(unit_ms);
        for steps in self.log[begins..].chunk_by(same) {
            let Some(Admission { upto, at }) = steps.last().copied() else { continue };
            let readmitted: Vec<u64> =
                self.readmitted.range(from + 1..=upto).map(|(seq, _)| *seq).collect();
            let count = |set: &RoaringTreemap| {
                readmitted.iter().filter(|seq| set.contains(**seq)).count() as u64
            };
            let passed = count_in(&self.passed, from, upto) + readmitted.len() as u64;
            let inside = if now < at.plus(claim_kept(settings)) {
                (upto - from).saturating_sub(self.gone_in(from, upto))
            } else {
                count_in(&self.claimed, from, upto)
            };
            cohorts.insert(
                at.0.div_euclid(unit_ms),
                Cohort {
                    turned: (upto - from).saturating_sub(passed),
                    left: count_in(&self.left, from.max(above), upto),
                    paid: count_in(&self.finished, from, upto) - count(&self.finished),
                    inside,
                },
            );
            from = upto;
        }
        for (seq, at) in &*self.readmitted {
            if now < at.plus(settings.active_ttl) {
                let cohort = cohorts.entry(at.0.div_euclid(unit_ms)).or_default();
                let (left, paid) = (self.left.contains(*seq), self.finished.contains(*seq));
                cohort.turned += 1;
                cohort.paid += u64::from(paid);
                cohort.inside += u64::from(!left && !paid);
            }
        }
        cohorts
    }

    /// Whether at `now` the claim window of `seq` is over, and as much again as `grace`. Who is first seen
    /// after the window counts on top of `max_active`, and so does whoever is first heard of
    /// [`CLAIM_GRACE`] after it: the room may have been given away.
    pub fn is_late(
        &self,
        seq: u64,
        settings: &QueueSettings,
        grace: Duration,
        now: Timestamp,
    ) -> bool {
        let window = settings.claim_window + grace;
        !self.readmitted.contains_key(&seq)
            && self.admitted_at(seq).is_some_and(|at| at.plus(window) <= now)
    }

    /// Decides whom to admit at `now`, at most `credit` of them: first those who were passed over and
    /// are back, then the next numbers in order, passing over those who left or are absent. `None`
    /// where the gate is shut, no place is free, or nobody is there to admit or to pass over.
    ///
    /// `active_bypass` counts active tickets that are not of this line (issued by an operator).
    pub fn plan(
        &self,
        settings: &QueueSettings,
        next: u64,
        credit: u64,
        active_bypass: u64,
        presence: &Presence,
        now: Timestamp,
    ) -> Option<Step> {
        if settings.gate(now) != Gate::Open || self.is_undrawn() {
            return None;
        }
        let mut room = match settings.max_active {
            None => credit,
            Some(max) => credit.min(max.saturating_sub(self.active(settings, now) + active_bypass)),
        };
        if room == 0 {
            return None;
        }
        let mut returned = RoaringTreemap::new();
        for seq in presence.returned(self, now) {
            returned.insert(seq);
            room -= 1;
            if room == 0 {
                break;
            }
        }

        let mut upto = self.serving;
        let mut passed = RoaringTreemap::new();
        let judged = presence.judged(self.serving).min(next).max(self.serving);
        let anybody_left = self.left_in(self.serving, judged) > 0;
        // Absent numbers come in long runs, and are put into the set run by run.
        let mut run_begins = None;
        let mut end_run = |begins: &mut Option<u64>, end: u64| {
            if let Some(first) = begins.take() {
                passed.insert_range(first..end);
            }
        };
        for seq in self.serving + 1..=judged {
            if room == 0 {
                break;
            }
            if anybody_left && self.left.contains(seq) {
                end_run(&mut run_begins, seq);
                continue;
            }
            if presence.is_absent(seq, now) {
                run_begins.get_or_insert(seq);
            } else {
                end_run(&mut run_begins, seq);
                room -= 1;
            }
            upto = seq;
        }
        end_run(&mut run_begins, upto + 1);
        if room > 0 && presence.is_full() {
            // Those behind wait to be judged, until the stretch has followed.
            upto = judged;
        } else if room > 0 {
            upto = self.next_waiting(judged, room, next).unwrap_or(upto);
        }
        if upto == self.serving && returned.is_empty() {
            return None;
        }
        // The log must not run backwards even where the clock did.
        let at = self.log.last().map_or(now, |last| last.at.max(now));
        let left = self.left_between(self.serving, upto);
        Some(Step { upto, at, passed, left, returned })
    }

    /// Carries out a step that [`Line::plan`] decided. Returns how many it admitted.
    pub fn admit(&mut self, step: &Step) -> u64 {
        debug_assert!(step.upto >= self.serving, "an admission moves forward");
        self.steps += 1;
        let mut admitted = 0;
        if !step.returned.is_empty() {
            let passed = Arc::make_mut(&mut self.passed);
            let readmitted = Arc::make_mut(&mut self.readmitted);
            for seq in step.returned.iter().filter(|seq| passed.remove(*seq)) {
                readmitted.insert(seq, step.at);
                // Who left since the step was planned is readmitted all the same, so that all
                // instances know the same of it; but `left` outweighs.
                admitted += u64::from(!self.left.contains(seq) && !self.finished.contains(seq));
            }
        }
        if !step.passed.is_empty() {
            *Arc::make_mut(&mut self.passed) |= &step.passed;
        }
        if step.upto > self.serving {
            let before = std::mem::replace(&mut self.serving, step.upto);
            Arc::make_mut(&mut self.log).push(Admission { upto: step.upto, at: step.at });
            admitted += (step.upto - before).saturating_sub(self.gone_in(before, step.upto));
        }
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
        // What is below the floor is out of time already, unless it was passed over in its turn.
        if (seq > self.floor || self.is_apart(seq)) && !self.finished.contains(seq) {
            Arc::make_mut(&mut self.left).insert(seq);
            if self.claimed.contains(seq) {
                Arc::make_mut(&mut self.claimed).remove(seq);
            }
        }
    }

    /// The ticket `seq` has done what it was for. Of a number that had no turn nothing is kept: the
    /// caller's view may be behind, never ahead. One that is passed over here was readmitted
    /// meanwhile.
    pub fn finish(&mut self, seq: u64) {
        let known = seq <= self.serving && (seq > self.floor || self.is_apart(seq));
        if known && !self.left.contains(seq) {
            Arc::make_mut(&mut self.finished).insert(seq);
            if self.claimed.contains(seq) {
                Arc::make_mut(&mut self.claimed).remove(seq);
            }
        }
    }

    /// Forgets the admissions whose active time is over at `now`, and all that was kept of them.
    /// Those who were passed over are kept for good.
    pub fn prune(&mut self, active_ttl: Duration, now: Timestamp) -> Pruned {
        let floor = self.turned(active_ttl, now);
        let is_over = |at: &Timestamp| at.plus(active_ttl) <= now;
        let any_over = self.readmitted.values().any(is_over);
        if floor == self.floor && !any_over {
            return Pruned::default();
        }
        let claimed = count_in(&self.claimed, self.floor, floor);
        let no_show =
            (floor - self.floor).saturating_sub(self.gone_in(self.floor, floor) + claimed);
        let mut expired = claimed;
        if any_over {
            let (left, finished) = (&self.left, &self.finished);
            Arc::make_mut(&mut self.readmitted).retain(|seq, at| {
                let over = is_over(at);
                expired += u64::from(over && !left.contains(*seq) && !finished.contains(*seq));
                !over
            });
        }
        if floor != self.floor {
            Arc::make_mut(&mut self.log).retain(|admission| admission.upto > floor);
            self.floor = floor;
        }
        self.forget_past();
        Pruned { expired, no_show }
    }

    /// Takes in what another view of the same queue knows. Nothing goes back: what steps decide is
    /// taken from who has seen more of them, and whoever has left, been seen or finished in either of
    /// them has done so.
    pub fn absorb(&mut self, other: &Self) {
        match (&self.order, &other.order) {
            (Order::Undrawn, Order::Drawn(draw)) => self.draw(draw),
            (Order::Drawn(draw), Order::Undrawn) => {
                let mut other = other.clone();
                other.draw(draw);
                return self.absorb(&other);
            }
            _ => {}
        }
        if other.steps > self.steps && other.serving >= self.serving {
            // What is over here stays so, and is not counted again.
            let fresh: Vec<_> = other
                .readmitted
                .iter()
                .filter(|(seq, _)| **seq > self.serving || self.passed.contains(**seq))
                .collect();
            if !fresh.is_empty() {
                Arc::make_mut(&mut self.readmitted).extend(fresh);
            }
            if self.passed != other.passed {
                self.passed = other.passed.clone();
            }
            if other.floor > self.serving {
                // Everybody who was admitted here is out of time there.
                self.floor = other.floor;
                self.log = other.log.clone();
            } else if other.serving > self.serving {
                let known = other.log.partition_point(|step| step.upto <= self.serving);
                Arc::make_mut(&mut self.log).extend_from_slice(&other.log[known..]);
            }
            self.serving = other.serving;
            self.steps = other.steps;
            self.forget_past();
        }
        let fresh = |theirs: &RoaringTreemap, ours: &RoaringTreemap, upto: u64| {
            let mut fresh = theirs - ours;
            let kept = self.apart_of(&fresh, self.floor);
            fresh.remove_range(..=self.floor);
            fresh.remove_range(upto.saturating_add(1)..);
            fresh | kept
        };
        // A number is in one of the three at the most: each counts it once.
        let left = fresh(&other.left, &self.left, u64::MAX - 1) - &*self.finished;
        let finished = fresh(&other.finished, &self.finished, self.serving) - &*self.left - &left;
        let mut claimed = fresh(&other.claimed, &self.claimed, self.serving);
        if !left.is_empty() {
            *Arc::make_mut(&mut self.claimed) -= &left;
            *Arc::make_mut(&mut self.left) |= left;
        }
        if !finished.is_empty() {
            *Arc::make_mut(&mut self.claimed) -= &finished;
            *Arc::make_mut(&mut self.finished) |= finished;
        }
        claimed -= &*self.left;
        claimed -= &*self.finished;
        if !claimed.is_empty() {
            *Arc::make_mut(&mut self.claimed) |= claimed;
        }
    }

    /// Forgets what is kept of the numbers up to the floor, but for those that were passed over.
    fn forget_past(&mut self) {
        let floor = self.floor;
        if self.claimed.min().is_some_and(|min| min <= floor) {
            Arc::make_mut(&mut self.claimed).remove_range(..=floor);
        }
        let kept = [&self.left, &self.finished].map(|set| self.apart_of(set, floor));
        for (set, kept) in [&mut self.left, &mut self.finished].into_iter().zip(kept) {
            if set.range_cardinality(..=floor) != kept.len() {
                let set = Arc::make_mut(set);
                set.remove_range(..=floor);
                *set |= kept;
            }
        }
    }

    /// Whether `seq` was passed over, and may come back.
    fn waits_apart(&self, seq: u64) -> bool {
        self.passed.contains(seq) && !self.left.contains(seq) && !self.finished.contains(seq)
    }

    /// Whether `seq` was passed over in its turn.
    fn is_apart(&self, seq: u64) -> bool {
        self.passed.contains(seq) || self.readmitted.contains_key(&seq)
    }

    /// Those of `set`, up to and with `upto`, that were passed over in their turn.
    fn apart_of(&self, set: &RoaringTreemap, upto: u64) -> RoaringTreemap {
        if set.min().is_none_or(|min| min > upto) {
            return RoaringTreemap::new();
        }
        let mut apart = set & &*self.passed;
        apart.remove_range(upto.saturating_add(1)..);
        apart.extend(
            self.readmitted.range(..=upto).map(|(seq, _)| *seq).filter(|s| set.contains(*s)),
        );
        apart
    }

    /// How many of the numbers above `from`, up to and with `upto`, left, finished, or were passed
    /// over in their turn.
    fn gone_in(&self, from: u64, upto: u64) -> u64 {
        let over = |seq: &u64| self.left.contains(*seq) || self.finished.contains(*seq);
        let mut gone = self.left_in(from, upto) + count_in(&self.finished, from, upto);
        let passed = count_in(&self.passed, from, upto);
        if passed > 0 {
            let both = |set: &RoaringTreemap| {
                if count_in(set, from, upto) == 0 {
                    return 0;
                }
                let mut both = RoaringTreemap::new();
                both.insert_range(from + 1..=upto);
                both &= set;
                both.intersection_len(&self.passed)
            };
            gone += passed - both(&self.left) - both(&self.finished);
        }
        if from < upto && !self.readmitted.is_empty() {
            let readmitted = self.readmitted.range(from + 1..=upto);
            gone += readmitted.filter(|(seq, _)| !over(seq)).count() as u64;
        }
        gone
    }

    /// The last of the first `count` numbers above `from` that wait, or of all up to `next` where
    /// there are fewer.
    fn next_waiting(&self, from: u64, count: u64, next: u64) -> Option<u64> {
        let given = next.saturating_sub(from);
        let wanted = count.min(given - self.left_in(from, next.max(from)));
        if wanted == 0 {
            return None;
        }
        let mut upto = from + wanted;
        // Each round passes over those who left in the stretch that the last round added; it ends
        // because at least `wanted` numbers up to `next` have not left.
        loop {
            let staying = upto - from - self.left_in(from, upto);
            if staying == wanted {
                return Some(upto);
            }
            upto += wanted - staying;
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

    /// The highest number whose turn was at least `ago` before `now`.
    fn turned(&self, ago: Duration, now: Timestamp) -> u64 {
        let count = self.log.partition_point(|admission| admission.at.plus(ago) <= now);
        count.checked_sub(1).map_or(self.floor, |last| self.log[last].upto)
    }

    /// Those above `from`, up to and with `upto`, that gave up while waiting.
    fn left_between(&self, from: u64, upto: u64) -> RoaringTreemap {
        let mut between = RoaringTreemap::new();
        if self.left_in(from, upto) > 0 {
            between.insert_range(from + 1..=upto);
            between &= &*self.left;
        }
        between
    }

    /// How many of the numbers above `from`, up to and with `upto`, were given up.
    fn left_in(&self, from: u64, upto: u64) -> u64 {
        count_in(&self.left, from, upto)
    }
}

/// How many numbers of `set` are above `from`, up to and with `upto`.
fn count_in(set: &RoaringTreemap, from: u64, upto: u64) -> u64 {
    if from >= upto || set.is_empty() { 0 } else { set.range_cardinality(from + 1..=upto) }
}

/// How long the room of an admission is kept for somebody who has not been seen.
const fn claim_kept(settings: &QueueSettings) -> Duration {
    settings.claim_window.saturating_add(CLAIM_GRACE)
}
