//! The queue against a naive model that keeps one record for each ticket.
//!
//! The line answers by arithmetic on a few counters and sets. The model does what everybody else
//! does, one record per ticket, and is slow and obvious. Random things happen to both, and after
//! each of them every ticket must stand at the same place in both.

use std::time::Duration;

use boxoffice_domain::queue::{
    Admitted, Bucket, CLAIM_GRACE, Ending, Entry, Line, LineParts, Place, Presence, Pruned,
    QueueSettings, Record, Replay, Runs, Standing,
};
use boxoffice_domain::time::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

const HOUR_MS: i64 = 3_600_000;

/// Whom an operation is aimed at. Aiming matters: blind shots would mostly hit tickets to which
/// nothing can happen any more.
#[derive(Clone, Copy, Debug)]
enum Whom {
    Anybody,
    Waiting,
    /// Was passed over, and has not come back.
    Absent,
    Admitted,
    /// Left, or finished.
    Gone,
}

/// An instant at which something changes by itself.
#[derive(Clone, Copy, Debug)]
enum Edge {
    ActiveEnds,
    ClaimWindowEnds,
    Opens,
}

#[derive(Clone, Debug)]
enum Op {
    /// So many tickets are given.
    Join(u64),
    /// So many milliseconds pass, then the sequencer works once.
    Tick(i64),
    /// So many milliseconds pass and the sequencer does nothing.
    Stall(i64),
    /// Time goes on to an instant at which something changes, give or take a millisecond.
    PassTo {
        edge: Edge,
        nth: u16,
        off_by: i64,
        tick: bool,
    },
    /// The clock of the machine is set, forward or back.
    SetClock(i64),
    /// So many seconds pass, in which the sequencer works and everybody polls who is there.
    Live(u8),
    /// The owner of a ticket goes away, or comes back.
    Away(Whom, u16, bool),
    /// The owners of all tickets but every so manieth go away.
    AllAway(usize),
    /// A ticket asks where it stands, and is marked as seen where it was admitted.
    Poll(Whom, u16),
    Leave(Whom, u16),
    Finish(Whom, u16),
    Pause(bool),
    /// In thousandths of an admission a second.
    Rate(u64),
    MaxActive(Option<u64>),
    /// The opening is so many milliseconds away; or none is set.
    OpensIn(Option<i64>),
    /// The service ends and comes back with what it stored.
    Restart,
    /// Somebody takes a copy of the line, which must not change from then on.
    Snapshot,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waiting,
    /// Passed over.
    Absent,
    Left,
    Admitted,
    Finished,
}

/// One ticket of the model.
#[derive(Clone, Debug)]
struct Fan {
    state: State,
    /// When the line moved past the ticket. For one admitted that is its admission; one that left
    /// is passed over together with the next that is admitted.
    passed_at: Option<Timestamp>,
    /// When it was admitted after it had been passed over.
    back_at: Option<Timestamp>,
    /// It was passed over at some time.
    apart: bool,
    /// Its owner does not poll.
    away: bool,
    claimed: bool,
    /// A prune came by after the active time was over.
    forgotten: bool,
    /// The same, of the step that moved the line past the ticket.
    turn_forgotten: bool,
    /// The sequencer gave the place to somebody else, because the ticket was not claimed in time.
    /// If it is claimed after all, it counts on top of the bound.
    lapsed: bool,
    /// The last waiting number that was shown.
    number: u64,
}

impl Fan {
    fn admitted_at(&self) -> Option<Timestamp> {
        self.back_at.or(self.passed_at)
    }

    fn in_time(&self, settings: &QueueSettings, now: Timestamp) -> bool {
        let until = self.admitted_at().map(|at| at.plus(settings.active_ttl));
        self.state == State::Admitted && !self.forgotten && until.is_some_and(|until| now < until)
    }

    fn counts_as_active(&self, settings: &QueueSettings, now: Timestamp) -> bool {
        let claim_until =
            self.admitted_at().map(|at| at.plus(settings.claim_window).plus(CLAIM_GRACE));
        self.in_time(settings, now)
            && (self.claimed || claim_until.is_some_and(|until| now < until))
    }

    /// Whether the ticket takes one of the places that `max_active` bounds.
    fn takes_place(&self) -> bool {
        self.state == State::Admitted && !self.forgotten && !self.lapsed
    }
}

/// The model: all tickets in the order of joining.
#[derive(Clone, Debug, Default)]
struct Model {
    /// The number before that of the first ticket.
    base: u64,
    fans: Vec<Fan>,
}

impl Model {
    fn next(&self) -> u64 {
        self.base + self.fans.len() as u64
    }

    fn seq(&self, index: usize) -> u64 {
        self.base + 1 + index as u64
    }

    fn count(&self, of: impl Fn(&Fan) -> bool) -> u64 {
        self.fans.iter().filter(|fan| of(fan)).count() as u64
    }

    fn join(&mut self, count: u64) {
        for _ in 0..count {
            self.fans.push(Fan {
                state: State::Waiting,
                passed_at: None,
                back_at: None,
                apart: false,
                away: false,
                claimed: false,
                forgotten: false,
                turn_forgotten: false,
                lapsed: false,
                number: u64::MAX,
            });
        }
    }

    fn pick(&self, whom: Whom, nth: u16) -> Option<usize> {
        let fits = |fan: &Fan| match whom {
            Whom::Anybody => true,
            Whom::Waiting => fan.state == State::Waiting,
            Whom::Absent => fan.state == State::Absent,
            Whom::Gone => matches!(fan.state, State::Left | State::Finished) && !fan.forgotten,
            Whom::Admitted => fan.state == State::Admitted && !fan.forgotten,
        };
        let fitting: Vec<usize> = (0..self.fans.len()).filter(|i| fits(&self.fans[*i])).collect();
        (!fitting.is_empty()).then(|| fitting[usize::from(nth) % fitting.len()])
    }

    /// Admits as many as may be, in order: first those who were passed over and are back, then those
    /// who are not `absent`. Returns how many, and the number that the line has come to.
    fn admit(
        &mut self,
        settings: &QueueSettings,
        credit: u64,
        now: Timestamp,
        back: &[u64],
        absent: impl Fn(u64) -> bool,
    ) -> Option<(u64, u64)> {
        for fan in &mut self.fans {
            if fan.state == State::Admitted && !fan.counts_as_active(settings, now) {
                fan.lapsed = true;
            }
        }
        if settings.paused || settings.opens_at.is_some_and(|at| now < at) {
            return None;
        }
        let active = self.count(|fan| fan.counts_as_active(settings, now));
        let places = settings.max_active.map_or(u64::MAX, |max| max.saturating_sub(active));
        let room = credit.min(places);
        let kept = self.fans.iter().filter(|fan| !fan.turn_forgotten);
        let at = kept.filter_map(|fan| fan.passed_at).fold(now, Timestamp::max);
        let base = self.base;
        let turned = self.fans.iter().rposition(|fan| fan.passed_at.is_some());
        let (mut last, mut admitted) = (None, 0);
        for (seq, fan) in (base + 1..).zip(&mut self.fans) {
            if fan.state == State::Absent && back.contains(&seq) && admitted < room {
                (fan.state, fan.back_at, fan.claimed) = (State::Admitted, Some(at), true);
                admitted += 1;
            }
        }
        for (index, fan) in self.fans.iter_mut().enumerate() {
            if fan.state != State::Waiting || admitted == room {
                continue;
            }
            if absent(base + 1 + index as u64) {
                (fan.state, fan.apart) = (State::Absent, true);
            } else {
                fan.state = State::Admitted;
                admitted += 1;
            }
            last = Some(index);
        }
        if last.is_none() && admitted == 0 {
            return None;
        }
        let last = last.or(turned)?;
        for fan in &mut self.fans[..=last] {
            fan.passed_at.get_or_insert(at);
        }
        Some((admitted, self.seq(last)))
    }

    fn prune(&mut self, settings: &QueueSettings, now: Timestamp) -> Pruned {
        let mut pruned = Pruned::default();
        for fan in &mut self.fans {
            let is_over = |at: Timestamp| at.plus(settings.active_ttl) <= now;
            fan.turn_forgotten |= fan.passed_at.is_some_and(is_over);
            let waits = fan.apart && fan.back_at.is_none();
            if waits || !fan.admitted_at().is_some_and(is_over) || fan.forgotten {
                continue;
            }
            fan.forgotten = true;
            if fan.state == State::Admitted && fan.claimed {
                pruned.expired += 1;
            } else if fan.state == State::Admitted {
                pruned.no_show += 1;
            }
        }
        pruned
    }

    fn claim(&mut self, index: usize, settings: &QueueSettings, now: Timestamp) -> bool {
        let fan = &mut self.fans[index];
        let first = fan.in_time(settings, now) && !fan.claimed;
        fan.claimed |= first;
        first
    }

    fn finish(&mut self, index: usize) {
        let fan = &mut self.fans[index];
        // Whoever says so of one that was passed over knows of an admission that is not known here.
        if matches!(fan.state, State::Admitted | State::Absent) && !fan.forgotten {
            fan.state = State::Finished;
        }
    }

    fn leave(&mut self, index: usize) {
        let fan = &mut self.fans[index];
        if fan.state != State::Finished && !fan.forgotten {
            fan.state = State::Left;
        }
    }
}

/// The most that a queue may have admitted by now, from what time has earned it. In millionths.
#[derive(Debug, Default)]
struct Earnings {
    earned: i128,
    admitted: i128,
    filled_at: Option<Timestamp>,
    /// The most that `admitted` may ever be ahead of `earned`, as known so far: from any moment on,
    /// no more can be admitted than the bucket holds and time earns from then on.
    ahead_max: i128,
}

impl Earnings {
    fn fill(&mut self, rate_milli: u64, now: Timestamp) {
        let elapsed = self.filled_at.map_or(0, |then| (now.0 - then.0).max(0));
        self.filled_at = Some(now);
        self.earned += i128::from(rate_milli) * i128::from(elapsed);
        let capacity = (i128::from(rate_milli) * 500).max(2_000_000);
        self.ahead_max = self.ahead_max.min(self.admitted + capacity - self.earned);
    }

    fn admit(&mut self, count: u64) -> TestCaseResult {
        self.admitted += i128::from(count) * 1_000_000;
        let ahead = self.admitted - self.earned;
        prop_assert!(ahead <= self.ahead_max, "{} millionths too many", ahead - self.ahead_max);
        Ok(())
    }
}

/// The queue under test beside its model.
struct World {
    line: Line,
    presence: Presence,
    bucket: Bucket,
    model: Model,
    earnings: Earnings,
    settings: QueueSettings,
    rate_milli: u64,
    /// What `max_active` promises: its value, or what was taken already when it was lowered.
    ceiling: Option<u64>,
    now: Timestamp,
    snapshot: Option<(Line, Model)>,
    /// What the admission log says, followed as whoever checks it does.
    replay: Replay,
    /// The clock never went back.
    is_steady: bool,
}

impl World {
    fn new(base: u64, active_ttl_ms: u64, claim_window_ms: u64, max_active: Option<u64>) -> Self {
        let parts = LineParts { serving: base, floor: base, ..LineParts::default() };
        let line = Line::restore(parts).unwrap();
        let mut world = Self {
            line: if base == 0 { Line::default() } else { line },
            presence: Presence::default(),
            bucket: Bucket::default(),
            model: Model { base, fans: Vec::new() },
            earnings: Earnings::default(),
            settings: QueueSettings {
                admit_per_second: 20.0,
                max_active,
                active_ttl: Duration::from_millis(active_ttl_ms),
                claim_window: Duration::from_millis(claim_window_ms),
                opens_at: None,
                paused: false,
            },
            rate_milli: 20_000,
            ceiling: max_active,
            now: Timestamp(10 * HOUR_MS),
            snapshot: None,
            replay: Replay::default(),
            is_steady: true,
        };
        let terms = (&world.settings).into();
        let standing = Standing { serving: base, passed: Runs::new(), terms, draw: None };
        world.log(Entry::Stands(standing), world.now).unwrap();
        world
    }

    /// Writes a record, reads it, and follows it: all that happens keeps the rules that it is held against.
    fn log(&mut self, entry: Entry, at: Timestamp) -> TestCaseResult {
        let number = self.replay.number().map_or(7, |number| number + 1);
        let record = Record { number, at, entry };
        prop_assert_eq!(Record::from_bytes(&record.to_bytes()), Some(record.clone()));
        let mut broken = self.replay.follow(&record);
        broken.retain(|broken| self.is_steady || broken.is_of_order());
        prop_assert!(broken.is_empty(), "{:?} in {:?}", broken, record);
        prop_assert_eq!(self.replay.passed(), &Runs::from(self.line.passed()));
        prop_assert_eq!(self.replay.serving(), self.line.serving());
        Ok(())
    }

    /// Works once, as the sequencer does.
    fn tick(&mut self) -> TestCaseResult {
        let (settings, now) = (&self.settings, self.now);
        let credit = self.bucket.fill(settings.admit_per_second, now);
        self.earnings.fill(self.rate_milli, now);
        let next = self.model.next();
        self.presence.follow(&self.line, settings, next, now);
        let presence = &self.presence;
        let back: Vec<u64> = presence.returned(&self.line, now).collect();
        let expected =
            self.model.admit(settings, credit, now, &back, |seq| presence.is_absent(seq, now));
        let (mut admitted, mut logged) = (None, None);
        if let Some(step) = self.line.plan(settings, next, credit, 0, presence, now) {
            let steps = self.line.steps();
            let record = Admitted::of(&step, self.line.serving());
            let count = self.line.admit(&step);
            prop_assert_eq!(record.count(), count);
            logged = Some((record, step.at));
            self.bucket.spend(count);
            self.earnings.admit(count)?;
            prop_assert_eq!(self.line.steps(), steps + 1);
            admitted = Some((count, step.upto));
        }
        prop_assert_eq!(admitted, expected, "how many were admitted, and up to whom");
        let pruned = self.line.prune(settings.active_ttl, now);
        prop_assert_eq!(pruned, self.model.prune(settings, now));
        let taken = self.model.count(Fan::takes_place);
        prop_assert!(self.ceiling.is_none_or(|ceiling| taken <= ceiling));
        self.ceiling = settings.max_active.map(|max| max.max(taken));
        if let Some((record, at)) = logged {
            self.log(Entry::Admitted(record), at)?;
        }
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> TestCaseResult {
        let before = self.settings.clone();
        self.is_steady &= !matches!(op, Op::SetClock(ms) if *ms < 0);
        self.carry_out(op)?;
        if self.settings != before {
            self.log(Entry::Changed((&self.settings).into()), self.now)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, op: &Op) -> TestCaseResult {
        let (ttl, now) = (self.settings.active_ttl, self.now);
        match *op {
            Op::Join(count) => self.model.join(count),
            Op::Tick(ms) => {
                self.now.0 += ms;
                self.tick()?;
            }
            Op::Live(seconds) => {
                for _ in 0..seconds {
                    self.now.0 += 1_000;
                    let there = (self.model.base + 1..).zip(&self.model.fans);
                    let polling = there.filter(|(_, fan)| {
                        !fan.away && matches!(fan.state, State::Waiting | State::Absent)
                    });
                    let seqs: Vec<u64> = polling.map(|(seq, _)| seq).collect();
                    self.presence.polled(seqs, &self.line, &self.settings, self.now);
                    self.tick()?;
                    for fan in self.model.fans.iter().filter(|fan| !fan.away) {
                        let polls = fan.passed_at == Some(self.now) && fan.state == State::Absent;
                        prop_assert!(!polls, "somebody who polls was passed over");
                    }
                }
            }
            Op::Away(whom, nth, away) => {
                if let Some(index) = self.model.pick(whom, nth) {
                    self.model.fans[index].away = away;
                }
            }
            Op::AllAway(but) => {
                for (index, fan) in self.model.fans.iter_mut().enumerate() {
                    fan.away = index % but != 0;
                }
            }
            Op::PassTo { edge, nth, off_by, tick } => {
                let admitted = self.model.pick(Whom::Admitted, nth);
                let admitted_at = admitted.and_then(|index| self.model.fans[index].admitted_at());
                let at = match edge {
                    Edge::ActiveEnds => admitted_at.map(|at| at.plus(ttl)),
                    Edge::ClaimWindowEnds => {
                        admitted_at.map(|at| at.plus(self.settings.claim_window).plus(CLAIM_GRACE))
                    }
                    Edge::Opens => self.settings.opens_at,
                };
                self.now.0 = at.map_or(now.0, |at| now.0.max(at.0 + off_by));
                if tick {
                    self.tick()?;
                }
            }
            Op::Stall(ms) | Op::SetClock(ms) => self.now.0 += ms,
            Op::Poll(whom, nth) => {
                if let Some(index) = self.model.pick(whom, nth) {
                    let seq = self.model.seq(index);
                    self.presence.polled([seq], &self.line, &self.settings, now);
                    let first = self.line.claim(self.model.seq(index), ttl, now);
                    prop_assert_eq!(first, self.model.claim(index, &self.settings, now));
                }
            }
            Op::Leave(whom, nth) => {
                if let Some(index) = self.model.pick(whom, nth) {
                    self.line.leave(self.model.seq(index));
                    self.model.leave(index);
                }
            }
            Op::Finish(whom, nth) => {
                if let Some(index) = self.model.pick(whom, nth) {
                    self.line.finish(self.model.seq(index));
                    self.model.finish(index);
                }
            }
            Op::Pause(paused) => self.settings.paused = paused,
            Op::Rate(milli) => {
                self.rate_milli = milli;
                self.settings.admit_per_second = milli as f64 / 1000.0;
            }
            Op::MaxActive(max) => {
                self.settings.max_active = max;
                let taken = self.model.count(Fan::takes_place);
                self.ceiling = max.map(|max| max.max(taken));
            }
            Op::OpensIn(ms) => self.settings.opens_at = ms.map(|ms| Timestamp(now.0 + ms)),
            Op::Restart => {
                let line = &self.line;
                let restored = Line::restore(line.parts());
                prop_assert_eq!(
                    restored.as_ref(),
                    Some(line),
                    "a line that was cannot be restored"
                );
                self.line = restored.unwrap();
                self.bucket = Bucket::default();
                self.presence = Presence::default();
            }
            Op::Snapshot => self.snapshot = Some((self.line.clone(), self.model.clone())),
        }
        Ok(())
    }

    fn check(&mut self) -> TestCaseResult {
        check(&self.line, &mut self.model, &self.settings, self.now)?;
        let late = self.model.count(|fan| {
            fan.lapsed && fan.claimed && fan.counts_as_active(&self.settings, self.now)
        });
        // A clock that went back gives unclaimed tickets their claim window back.
        let again = self.model.count(|fan| {
            fan.lapsed && !fan.claimed && fan.counts_as_active(&self.settings, self.now)
        });
        let active = self.line.active(&self.settings, self.now);
        prop_assert!(self.ceiling.is_none_or(|ceiling| active <= ceiling + late + again));
        Ok(())
    }
}

/// Compares every ticket and every count of the line with those of the model.
fn check(
    line: &Line,
    model: &mut Model,
    settings: &QueueSettings,
    now: Timestamp,
) -> TestCaseResult {
    let mut number = 0;
    let mut anybody_waits = false;
    let mut until_max = Timestamp(i64::MIN);
    for index in 0..model.fans.len() {
        let seq = model.seq(index);
        let fan = &mut model.fans[index];
        let expected = match (fan.state, fan.admitted_at()) {
            _ if fan.forgotten => Place::Over(Ending::TimedOut),
            (State::Left, _) => Place::Over(Ending::Left),
            (State::Finished, _) => Place::Over(Ending::Finished),
            (State::Admitted, Some(at)) if fan.in_time(settings, now) => {
                Place::Active { until: at.plus(settings.active_ttl), claimed: fan.claimed }
            }
            (State::Admitted, _) => Place::Over(Ending::TimedOut),
            (State::Absent, _) => Place::Waiting { number: 1 },
            (State::Waiting, _) => {
                number += 1;
                Place::Waiting { number }
            }
        };
        let place = line.place(seq, settings.active_ttl, now);
        prop_assert_eq!(place, expected, "ticket {} of {}", index + 1, seq);
        match place {
            Place::Waiting { number } => {
                prop_assert!(number >= 1 && number <= fan.number, "ticket {} fell back", index + 1);
                fan.number = number;
                anybody_waits |= fan.state == State::Waiting;
            }
            Place::Active { .. } if fan.apart => {
                prop_assert!(!anybody_waits, "ticket {} overtook somebody", index + 1);
            }
            Place::Active { until, .. } => {
                prop_assert!(!anybody_waits, "ticket {} overtook somebody", index + 1);
                prop_assert!(until >= until_max, "ticket {} was admitted too early", index + 1);
                until_max = until;
            }
            Place::Undrawn => prop_assert!(false, "ticket {} is to be drawn", index + 1),
            Place::Over(Ending::Left) => {}
            Place::Over(_) => {
                prop_assert!(!anybody_waits, "ticket {} overtook somebody", index + 1);
            }
        }
    }
    prop_assert_eq!(line.waiting(model.next()), number);
    let active = model.count(|fan| fan.counts_as_active(settings, now));
    prop_assert_eq!(line.active(settings, now), active);
    let left = model.count(|fan| fan.state == State::Left && !fan.forgotten);
    let passed = model.count(|fan| fan.apart && fan.back_at.is_none());
    prop_assert_eq!(line.passed().len(), passed, "those who were passed over are kept for good");
    let back = model.count(|fan| fan.back_at.is_some() && !fan.forgotten);
    prop_assert_eq!(line.readmitted().len() as u64, back, "of the past nothing is kept");
    prop_assert_eq!(line.left().len(), left, "of the past nothing is kept");
    let claimed = model.count(|fan| {
        fan.state == State::Admitted && fan.claimed && fan.back_at.is_none() && !fan.forgotten
    });
    prop_assert_eq!(line.claimed().len(), claimed, "of the past nothing is kept");
    let finished = model.count(|fan| fan.state == State::Finished && !fan.forgotten);
    prop_assert_eq!(line.finished().len(), finished, "of the past nothing is kept");
    prop_assert!(line.log().iter().all(|admission| admission.upto > line.floor()));
    Ok(())
}

fn whom() -> impl Strategy<Value = Whom> {
    prop_oneof![
        2 => Just(Whom::Anybody),
        3 => Just(Whom::Waiting),
        2 => Just(Whom::Absent),
        5 => Just(Whom::Admitted),
        1 => Just(Whom::Gone),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let edge = prop_oneof![Just(Edge::ActiveEnds), Just(Edge::ClaimWindowEnds), Just(Edge::Opens)];
    prop_oneof![
        10 => (1..12_u64).prop_map(Op::Join),
        20 => prop_oneof![Just(100), 0..400_i64].prop_map(Op::Tick),
        4 => (400..12_000_i64).prop_map(Op::Tick),
        2 => (0..12_000_i64).prop_map(Op::Stall),
        4 => (edge, any::<u16>(), -1..=1_i64, any::<bool>())
            .prop_map(|(edge, nth, off_by, tick)| Op::PassTo { edge, nth, off_by, tick }),
        1 => prop_oneof![Just(HOUR_MS), Just(-HOUR_MS), -5_000..5_000_i64].prop_map(Op::SetClock),
        4 => prop_oneof![1..15_u8, 1..120_u8].prop_map(Op::Live),
        6 => (whom(), any::<u16>(), any::<bool>())
            .prop_map(|(whom, nth, away)| Op::Away(whom, nth, away)),
        1 => (2..8_usize).prop_map(Op::AllAway),
        12 => (whom(), any::<u16>()).prop_map(|(whom, nth)| Op::Poll(whom, nth)),
        8 => (whom(), any::<u16>()).prop_map(|(whom, nth)| Op::Leave(whom, nth)),
        5 => (whom(), any::<u16>()).prop_map(|(whom, nth)| Op::Finish(whom, nth)),
        2 => any::<bool>().prop_map(Op::Pause),
        2 => prop_oneof![1..5_000_u64, 5_000..200_000_u64].prop_map(Op::Rate),
        3 => proptest::option::weighted(0.8, 0..20_u64).prop_map(Op::MaxActive),
        2 => proptest::option::weighted(0.7, -1_000..8_000_i64).prop_map(Op::OpensIn),
        2 => Just(Op::Restart),
        1 => Just(Op::Snapshot),
    ]
}

proptest! {
    // Long runs of random things meet the rare instants seldom, so more of them than usual.
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: ProptestConfig::default().cases * 3,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_line_equals_the_naive_model(
        // The sets split numbers at 2^32, so a line that grows past it must not notice.
        base in prop_oneof![Just(0), Just(u64::from(u32::MAX) - 15), Just(1 << 40)],
        active_ttl_ms in 1..15_000_u64,
        // Longer than the active time in some runs, and none at all in others.
        claim_window_ms in prop_oneof![4 => 0..5_000_u64, 1 => Just(0), 1 => Just(20_000)],
        max_active in proptest::option::of(0..10_u64),
        ops in proptest::collection::vec(op(), 1..100),
    ) {
        let mut world = World::new(base, active_ttl_ms, claim_window_ms, max_active);
        for op in &ops {
            world.apply(op)?;
            world.check()?;
        }
        if let Some((line, mut model)) = world.snapshot {
            check(&line, &mut model, &world.settings, world.now)?;
        }
    }
}
