//! One queue in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::invariant::Finding;
use boxoffice_domain::queue::{
    Bucket, CLAIM_GRACE, CLOCKS_APART, Closing, Drawing, Drawn, Ending, Expected, Forecast, Gate,
    Line, Observed, Order, Outlook, Place, Presence, Promise, Pruned, QueueSettings, QueueState,
    Sale, SaleRules, SettingsChange, Speed, Step, Turns, poll_after,
};
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use roaring::RoaringTreemap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::newcomer::{Newcomer, Stub};
use super::places::{Shown, Tickets};
use super::polled::Polled;
use crate::Fault;
use crate::planted::{Bug, planted};
use crate::store::{self, Advance, Checkpoint, Progress, StoredQueue};

/// What a poll reads: a snapshot, replaced as a whole.
#[derive(Debug)]
struct View {
    /// How operators let it admit.
    settings: QueueSettings,
    /// What comes of that with the sale behind it.
    outlook: Outlook,
    line: Line,
    /// The opening draw, where there is one.
    draw: Option<Drawing>,
    forecast: Forecast,
    polled: Polled,
}

/// What the owner of a ticket is told beside its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What the queue is doing.
    pub state: QueueState,
    /// Why a ticket that waits is over all the same, where that is so.
    pub turned_away: Option<Closing>,
    /// How long it may take, where that is known.
    pub eta: Option<Duration>,
    /// When to ask again.
    pub poll_after: Duration,
}

/// Sums since the start of the process, for metrics and the audit.
#[derive(Debug, Default)]
pub struct Counters {
    /// Numbers given.
    pub joined: AtomicU64,
    /// Tickets admitted.
    pub admitted: AtomicU64,
    /// Tickets that were admitted and seen, and ran out of time.
    pub expired: AtomicU64,
    /// Tickets that were admitted and never seen.
    pub no_show: AtomicU64,
    /// Tickets given up, in the line or after.
    pub left: AtomicU64,
    /// Numbers that were passed over, because their owners were not there.
    pub passed: AtomicU64,
    /// Those of them that were let in later.
    pub returned: AtomicU64,
    /// Joins of people who had a place already, or that were repeated under their idempotency key.
    pub rejoined: AtomicU64,
    /// Second places of people that were given up when they were found.
    pub seconds: AtomicU64,
    /// Admissions that were checked against `max_active` (I5).
    pub bound_checked: AtomicU64,
    /// Admissions that went past it (I5).
    pub bound_broken: AtomicU64,
    /// Snapshots published (I3).
    pub published: AtomicU64,
    /// Snapshots in which a counter went back (I3).
    pub went_back: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// The numbers: the last one given, and how far they may go without asking the store.
#[derive(Debug)]
struct Numbers {
    next: u64,
    watermark: u64,
    closed: bool,
}

/// What a tick works on.
struct Work {
    line: Line,
    draw: Option<Drawing>,
    bucket: Bucket,
    /// Who is there, as far as polls here and elsewhere tell.
    presence: Presence,
    /// How fast it moves, and what follows for those who wait.
    speed: Speed,
    forecast: Forecast,
    polled: Polled,
    /// Polls that the other instances have not been told of,
    untold: RoaringTreemap,
    /// and who was seen for the first time since the admission.
    untold_claimed: RoaringTreemap,
    /// Somebody was seen here for the first time, and is not in the store yet.
    unrecorded: bool,
    /// Steps after which more seemed to be active than the queue allows.
    suspects: Vec<Suspect>,
    /// When the line was looked at last.
    looked_at: Timestamp,
    /// When the other instances were heard last, where there may be any.
    heard_at: Option<Instant>,
    /// Seen for the first time only after the claim window; they come on top of `max_active`.
    late: RoaringTreemap,
    /// Known to have been seen from Redis only: whoever is without the news there may not know of it.
    unconfirmed: RoaringTreemap,
    saved: Saved,
    joined_before: u64,
    /// How often the settings were changed here.
    changes: u64,
    /// What is sold behind it, the rules by which it follows that, and when it was looked at.
    sale: Sale,
    rules: SaleRules,
    sale_at: Timestamp,
    /// The part of its rate that it admits, so that the shop can serve them.
    share: f64,
}

impl Work {
    /// What comes of these settings with the sale behind the queue, and with what the shop can serve.
    fn outlook(&self, settings: &QueueSettings) -> Outlook {
        let mut outlook = self.sale.outlook(settings, self.rules, self.sale_at);
        outlook.settings.admit_per_second *= self.share;
        outlook
    }

    /// The time by which credit is earned and a step is planned: neither before the credit was counted last, nor
    /// before the last step, which may have been another instance's. From the times of the steps anybody can work
    /// out that the rate was kept. A clock that went back by more than `apart` is not waited for.
    fn not_before(&self, now: Timestamp, apart: Duration) -> Timestamp {
        let (_, filled_at) = self.bucket.state();
        let moved_at = self.line.log().last().map(|last| last.at);
        let known = [filled_at, moved_at].into_iter().flatten();
        known.filter(|then| then.since(now) <= apart).fold(now, Timestamp::max)
    }
}

/// A step after which more seemed to be active than the queue allows. Whoever planned it may have known
/// of somebody who had paid or left, and this instance not yet.
struct Suspect {
    line: Line,
    at: Timestamp,
    max: u64,
    since: Instant,
    /// When the store was last asked about it.
    looked_at: Option<Instant>,
}

/// Before the store is asked for a queue: what is older than the answer.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    /// How often the settings had been changed here.
    changes: u64,
    began: Instant,
}

/// How an instance has heard that others have seen somebody.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HeardFrom {
    /// In Redis, which not all may have.
    Redis,
    /// In Redis, from somebody who says that it was after the claim window.
    RedisLate,
    /// In the store, as all who admit.
    Store,
}

/// So many suspect steps are kept until it is known who knew what,
const SUSPECTS_MAX: usize = 64;
/// and for so long.
const SUSPECT_MAX: Duration = Duration::from_secs(60);
/// What others tell of in the store comes in beats: until the next one nothing new is known.
const SUSPECT_INTERVAL: Duration = Duration::from_millis(500);

/// What the store has.
struct Saved {
    next: u64,
    watermark: u64,
    floor: u64,
    claimed_at: Timestamp,
    claimed: RoaringTreemap,
}

/// A join that waits for its number.
pub(super) struct Join {
    /// Who it is, where a repeated join is to be found; and the number of a ticket of theirs that is over.
    pub(super) newcomer: Option<(Newcomer, u64)>,
    pub(super) reply: oneshot::Sender<Result<Given, Fault>>,
}

/// What a join is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// A new number.
    New(u64),
    /// The ticket that there is.
    Kept(Stub),
}

impl Given {
    pub(super) const fn seq(self) -> u64 {
        match self {
            Self::New(seq) => seq,
            Self::Kept(stub) => stub.seq,
        }
    }
}

/// One queue.
pub struct Queue {
    name: QueueName,
    /// Whether other instances answer polls as well.
    shared: bool,
    view: ArcSwap<View>,
    numbers: Mutex<Numbers>,
    work: Mutex<Work>,
    /// Tickets whose owners have shown up since the last tick: admitted ones, and those that were passed
    /// over.
    seen: Mutex<Vec<u64>>,
    joins: mpsc::UnboundedSender<Join>,
    /// The tickets that people show; `None` where a person may have several.
    shown: Option<Shown>,
    /// The tickets of those who have one, where no other instance gives any.
    kept: Option<Tickets>,
    /// Numbers that were given here since the last tick, where others give numbers as well.
    fresh: Mutex<RoaringTreemap>,
    /// Joins that wait for numbers to be reserved.
    pending: AtomicU64,
    /// Active tickets that an operator issued past the line.
    pub(super) bypassing: AtomicU64,
    /// Promises that have turned out, and that nobody has asked for.
    promises: Mutex<Vec<Promise>>,
    counters: Counters,
}

/// How many sightings are kept between two ticks. Past this they are dropped: whoever is not
/// marked by this poll is marked by the next.
const SEEN_MAX: usize = 100_000;
/// So many promises are kept until somebody asks for them.
const PROMISES_MAX: usize = 10_000;
/// Claimed numbers are made durable this often. A crash forgets the last ones; their owners are
/// marked again when they poll.
const CLAIMED_SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// Where what is left to buy can be reached in this time, other instances may sell it meanwhile.
const STOCK_AHEAD: Duration = Duration::from_secs(10);
/// Who has not heard the other instances for longer does not know who is there.
const HEARD_MAX: Duration = Duration::from_secs(5);
/// The fewest numbers that are reserved ahead of joins. After a crash as many places may be empty.
const HEADROOM_MIN: u64 = 16;

impl Queue {
    /// A queue as stored; `shared` where other instances give numbers as well, and with one place for each
    /// person where that is asked for.
    pub(super) fn new(
        stored: StoredQueue,
        shared: bool,
        one_place_each: bool,
        joins: mpsc::UnboundedSender<Join>,
    ) -> Result<Self, Fault> {
        let StoredQueue { name, settings, next, watermark, line, draw, .. } = stored;
        // Numbers up to the watermark may have been given before a crash; none is given twice.
        // Who shares the queue is told of the numbers that are given.
        let next = if shared { next.max(line.serving) } else { watermark };
        let saved = Saved {
            next,
            watermark,
            floor: line.floor,
            claimed_at: Timestamp(i64::MIN),
            claimed: line.claimed.clone(),
        };
        let line = Line::restore(line)
            .filter(|line| line.serving() <= watermark)
            .ok_or_else(|| Fault::Corrupt(format!("the stored counters of queue {name}")))?;
        // Whether those who were seen before this instance came were seen in time, is not stored.
        let late = if shared { line.claimed().clone() } else { RoaringTreemap::new() };
        let forecast = Forecast::initial(&settings);
        Ok(Self {
            name,
            shared,
            view: ArcSwap::from_pointee(View {
                outlook: Outlook::of(settings.clone()),
                settings,
                line: line.clone(),
                draw: draw.clone(),
                forecast: forecast.clone(),
                polled: Polled::default(),
            }),
            numbers: Mutex::new(Numbers { next, watermark, closed: false }),
            work: Mutex::new(Work {
                line,
                draw,
                bucket: Bucket::default(),
                presence: Presence::default(),
                speed: Speed::default(),
                forecast,
                polled: Polled::default(),
                untold: RoaringTreemap::new(),
                untold_claimed: RoaringTreemap::new(),
                unrecorded: false,
                suspects: Vec::new(),
                looked_at: Timestamp::default(),
                heard_at: None,
                late,
                unconfirmed: RoaringTreemap::new(),
                saved,
                joined_before: 0,
                changes: 0,
                sale: Sale::default(),
                rules: SaleRules::default(),
                sale_at: Timestamp::default(),
                share: 1.0,
            }),
            seen: Mutex::default(),
            joins,
            shown: one_place_each.then(Shown::default),
            kept: (!shared).then(Tickets::default),
            fresh: Mutex::default(),
            pending: AtomicU64::new(0),
            bypassing: AtomicU64::new(0),
            promises: Mutex::default(),
            counters: Counters::default(),
        })
    }

    /// Its name.
    pub const fn name(&self) -> &QueueName {
        &self.name
    }

    /// How operators let it admit.
    pub fn settings(&self) -> QueueSettings {
        self.view.load().settings.clone()
    }

    /// How it admits, with the sale behind it.
    pub fn outlook(&self) -> Outlook {
        self.view.load().outlook.clone()
    }

    /// The settings by which it admits, with the sale behind it.
    fn in_force(&self) -> QueueSettings {
        self.view.load().outlook.settings.clone()
    }

    /// The sums for metrics.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Another number whenever settings or line have changed: what is read after it is no older.
    pub fn edition(&self) -> u64 {
        self.counters.published.load(Ordering::Acquire)
    }

    /// The highest number admitted.
    pub fn serving(&self) -> u64 {
        self.view.load().line.serving()
    }

    /// The last number given.
    pub fn next(&self) -> u64 {
        self.numbers.lock().next
    }

    /// How many wait.
    pub fn waiting(&self) -> u64 {
        let next = self.next();
        self.view.load().line.waiting(next)
    }

    /// How many are active, with those that an operator let in past the line.
    pub fn active(&self, now: Timestamp) -> u64 {
        let view = self.view.load();
        view.line.active(&view.settings, now) + self.bypassing.load(Ordering::Relaxed)
    }

    /// Why those who wait are told that it is over, and joins are refused, where that is so.
    pub fn turned_away(&self) -> Option<Closing> {
        self.view.load().outlook.turned_away()
    }

    /// What it is doing.
    pub fn state(&self, now: Timestamp) -> QueueState {
        self.view.load().outlook.state(now)
    }

    /// Notes what is sold behind it. Returns whether that may be all within seconds.
    pub(super) fn note_sale(&self, sale: Sale, rules: SaleRules, now: Timestamp) -> bool {
        let mut work = self.work.lock();
        let work = &mut *work;
        (work.sale, work.rules, work.sale_at) = (sale, rules, now);
        let settings = self.settings();
        let outlook = work.outlook(&settings);
        if outlook != self.view.load().outlook {
            self.reconfigure(work, &settings);
        }
        let soon = settings.admit_per_second * STOCK_AHEAD.as_secs_f64();
        // A float turns into the nearest integer that fits.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let soon = (soon.ceil() as u64).saturating_add(work.line.active(&settings, now));
        outlook.stock.is_some_and(|stock| stock <= soon)
    }

    /// From now on it admits this part of its rate.
    pub(super) fn govern(&self, share: f64) {
        let mut work = self.work.lock();
        work.share = share;
        let settings = self.settings();
        if work.outlook(&settings) != self.view.load().outlook {
            self.reconfigure(&mut work, &settings);
        }
    }

    /// How many it would admit a second at `now` if nothing held it up; none where nobody waits or it is shut.
    pub(super) fn admits_at_most(&self, now: Timestamp) -> f64 {
        let view = self.view.load();
        let is_open = view.outlook.settings.gate(now) == Gate::Open;
        let any = is_open && view.line.waiting(self.next()) > 0;
        if any { view.settings.admit_per_second } else { 0.0 }
    }

    /// How many it admits a second at `now` at the most.
    pub fn admitting_per_second(&self, now: Timestamp) -> f64 {
        let view = self.view.load();
        match view.outlook.state(now) {
            QueueState::Open => view.outlook.settings.admit_per_second,
            QueueState::Paused | QueueState::Scheduled(_) | QueueState::Closed(_) => 0.0,
        }
    }

    /// The next number, if one is reserved and nobody has been waiting for one: a join costs no
    /// commit, and does not overtake those who came when the reserved numbers had run out.
    pub(super) fn next_number(&self) -> Result<Option<u64>, Fault> {
        if self.pending.load(Ordering::Acquire) > 0 { Ok(None) } else { self.next_numbers(1) }
    }

    /// Waits in the batch of joins that want numbers. Returns the number.
    pub(super) async fn wait_for_number(&self) -> Result<u64, Fault> {
        self.wait_for_place(None).await.map(Given::seq)
    }

    /// The same for somebody who may have a ticket; beside them stands the number of one that is over.
    pub(super) async fn wait_for_place(
        &self,
        newcomer: Option<(Newcomer, u64)>,
    ) -> Result<Given, Fault> {
        let closed = || Fault::Unavailable("the queue is closed".into());
        let (reply, answer) = oneshot::channel();
        self.pending.fetch_add(1, Ordering::Release);
        self.joins.send(Join { newcomer, reply }).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// So many of the batch have their numbers, or will not get any.
    pub(super) fn dequeued(&self, count: u64) {
        self.pending.fetch_sub(count, Ordering::Release);
    }

    /// The next `count` numbers, if as many are reserved in the store. Returns the first.
    pub(super) fn next_numbers(&self, count: u64) -> Result<Option<u64>, Fault> {
        let mut numbers = self.numbers.lock();
        if numbers.closed {
            return Err(shutting_down());
        }
        if numbers.next + count > numbers.watermark {
            return Ok(None);
        }
        let first = numbers.next + 1;
        numbers.next += count;
        add(&self.counters.joined, count);
        Ok(Some(first))
    }

    /// No more joins.
    pub(super) fn close(&self) {
        self.numbers.lock().closed = true;
    }

    /// Where the number stands, without marking its owner as seen, and its rank.
    pub(super) fn peek(&self, seq: u64, now: Timestamp) -> (Place, u64) {
        let view = self.view.load();
        view.line.place_of(seq, view.settings.active_ttl, now)
    }

    /// The opening draw, where there is one.
    pub fn draw(&self) -> Option<Drawing> {
        self.view.load().draw.clone()
    }

    /// Whether those who have joined are to be drawn now. A pause does not put it off: it is at the opening.
    pub(super) fn draw_is_due(&self, now: Timestamp) -> bool {
        let view = self.view.load();
        let opens_at = view.outlook.settings.opens_at;
        view.line.is_undrawn() && opens_at.is_none_or(|opens_at| opens_at <= now)
    }

    /// They were drawn, durably.
    pub(super) fn drawn(&self, drawn: Drawn, now: Timestamp) {
        let mut work = self.work.lock();
        let drawing = work.draw.clone().map(|draw| Drawing { drawn: Some(drawn), ..draw });
        if self.take_draw(&mut work, drawing, now) {
            self.learn_next(drawn.count);
            self.publish(&work, &self.settings());
        }
    }

    /// From now on numbers are what was drawn. Returns whether that is new.
    fn take_draw(&self, work: &mut Work, drawing: Option<Drawing>, now: Timestamp) -> bool {
        let Order::Drawn(draw) = store::order(drawing.as_ref()) else {
            // After a restore it is another one that is still to come.
            if work.line.is_undrawn() {
                work.draw = drawing;
            }
            return false;
        };
        if !work.line.is_undrawn() {
            return false;
        }
        let in_force = self.in_force();
        let polled = work.polled.take();
        work.presence.polled(polled, &work.line, &in_force, now);
        if !planted(Bug::PresenceUndrawn) {
            work.presence.draw(&draw, &in_force, now);
        }
        work.line.draw(&draw);
        work.draw = drawing;
        // The others know them by their numbers, or hear of them with their next polls.
        work.untold.clear();
        self.fresh.lock().clear();
        true
    }

    /// Whether the number is over, without marking its owner as seen.
    pub(super) fn is_over(&self, seq: u64, now: Timestamp) -> bool {
        matches!(self.peek(seq, now).0, Place::Over(_))
    }

    /// Whether a person has one place at the most.
    pub fn has_one_place_each(&self) -> bool {
        self.shown.is_some()
    }

    /// The tickets that people show, where a person has one place.
    pub(super) const fn shown(&self) -> Option<&Shown> {
        self.shown.as_ref()
    }

    /// The tickets with these numbers are kept where joins look for them; see [`Shown::note`].
    pub(super) fn note_kept(&self, seqs: impl IntoIterator<Item = u64>, generation: &str) {
        if let Some(shown) = &self.shown {
            shown.note(seqs, generation);
        }
    }

    /// The tickets of those who have one, where no other instance gives any.
    pub(super) const fn kept(&self) -> Option<&Tickets> {
        self.kept.as_ref()
    }

    /// Forgets whose places are over, some at each call.
    pub(super) fn sweep_places(&self, now: Timestamp) {
        let (Some(kept), Some(_)) = (&self.kept, &self.shown) else { return };
        let view = self.view.load();
        let ttl = view.settings.active_ttl;
        let is_over = |seq| matches!(view.line.place_of(seq, ttl, now).0, Place::Over(_));
        let serving = view.line.serving();
        // Whose turn it was, is anywhere among those who were drawn.
        let had_turn = match view.line.order() {
            Order::Drawn(draw) => serving.max(draw.count()),
            Order::Joined | Order::Undrawn => serving,
        };
        kept.sweep(had_turn, is_over);
    }

    /// How many people have a place, where that is known here.
    pub fn people(&self) -> Option<u64> {
        self.shown.as_ref().and(self.kept.as_ref()).map(Tickets::people)
    }

    /// Where the number stands, and whether its owner has been seen now for the first time.
    pub(super) fn place(&self, seq: u64, now: Timestamp) -> Place {
        let view = self.view.load();
        let (place, rank) = view.line.place_of(seq, view.settings.active_ttl, now);
        match place {
            Place::Undrawn => view.polled.note(rank),
            Place::Waiting { .. } if rank > view.line.serving() => view.polled.note(rank),
            Place::Waiting { .. } | Place::Active { claimed: false, .. } => {
                let mut seen = self.seen.lock();
                if seen.len() < SEEN_MAX {
                    seen.push(rank);
                }
            }
            Place::Active { .. } | Place::Over(_) => {}
        }
        place
    }

    /// What to make durable before `count` more joins can have numbers.
    pub(super) fn reserve_ahead(&self, count: u64) -> Checkpoint {
        let next = self.numbers.lock().next;
        let work = self.work.lock();
        let ahead = count.saturating_mul(8).max(HEADROOM_MIN);
        Checkpoint {
            queue: self.name.clone(),
            next,
            watermark: (next + count + ahead).max(work.saved.watermark),
            floor: work.saved.floor,
            step: None,
            claimed: None,
            over_before: Timestamp(i64::MIN),
        }
    }

    /// Prepares one step: marks who was seen, forgets who is out of time, decides whom to
    /// admit. `None` where nothing has changed that the store should know.
    pub(super) fn prepare(&self, now: Timestamp) -> Option<Checkpoint> {
        let next = self.next();
        let mut work = self.work.lock();
        let work = &mut *work;
        let settings = self.settings();
        self.look(work, &settings, false, now);

        let in_force = self.in_force();
        let step = if in_force.gate(now) == Gate::Open {
            // Where the time is corrected by a little, the same moments are not credit twice.
            let now = work.not_before(now, CLOCKS_APART);
            let credit = work.bucket.fill(in_force.admit_per_second, now);
            let bypassing = self.bypassing.load(Ordering::Relaxed);
            let step = work.line.plan(&in_force, next, credit, bypassing, &work.presence, now);
            step.map(|step| (work.line.serving(), step))
        } else {
            work.bucket.empty(now);
            None
        };

        let joined = self.counters.joined.load(Ordering::Relaxed);
        let headroom = (4 * (joined - work.joined_before)).max(HEADROOM_MIN);
        work.joined_before = joined;
        let short = work.saved.watermark.saturating_sub(next) < headroom / 2;
        let watermark = if short { next + headroom } else { next }.max(work.saved.watermark);
        let claimed_due = now.since(work.saved.claimed_at) >= CLAIMED_SAVE_INTERVAL
            && work.saved.claimed != *work.line.claimed();
        let due = step.is_some()
            || next != work.saved.next
            || work.line.floor() != work.saved.floor
            || claimed_due;
        due.then(|| Checkpoint {
            queue: self.name.clone(),
            next,
            watermark,
            floor: work.line.floor(),
            step,
            claimed: claimed_due.then(|| work.line.claimed().clone()),
            over_before: over_before(&settings, now),
        })
    }

    /// Marks who was seen, forgets who is out of time, unless the time is in doubt, and notes who is there.
    /// Returns what is new.
    fn look(
        &self,
        work: &mut Work,
        settings: &QueueSettings,
        in_doubt: bool,
        now: Timestamp,
    ) -> Refreshed {
        let seen = std::mem::take(&mut *self.seen.lock());
        let (passed, seen) = seen.into_iter().partition(|seq| work.line.passed().contains(*seq));
        let mut returned: Vec<u64> = passed;
        if planted(Bug::ReturnUnnoticed) {
            returned.clear();
        }
        returned.sort_unstable();
        returned.dedup();
        let marked = mark_claimed(&mut work.line, seen, settings, now);
        let (late, claimed): (Vec<u64>, Vec<u64>) = marked
            .into_iter()
            .partition(|seq| work.line.is_late(*seq, settings, Duration::ZERO, now));
        work.late.extend(&late);
        let before = work.line.floor();
        if !in_doubt {
            let Pruned { expired, no_show } = work.line.prune(settings.active_ttl, now);
            add(&self.counters.expired, expired);
            add(&self.counters.no_show, no_show);
        }
        let floor = work.line.floor();
        work.late.remove_range(..=floor);
        work.unconfirmed.remove_range(..=floor);

        work.looked_at = now;
        let mut polled = work.polled.take();
        if planted(Bug::PollsUnnoticed) {
            polled.clear();
        }
        polled.extend(&returned);
        let in_force = &self.in_force();
        work.presence.polled(polled.iter().copied(), &work.line, in_force, now);
        if self.shared {
            work.untold.extend(polled);
            work.untold_claimed.extend(&claimed);
            work.unrecorded |= !claimed.is_empty() || !late.is_empty();
        }
        work.presence.follow(&work.line, in_force, self.next(), now);
        let unheard = self.shared && work.heard_at.is_none_or(|at| at.elapsed() > HEARD_MAX);
        if unheard {
            work.presence.assume_all(in_force, now);
        }
        let (from, upto) = work.presence.stretch();
        let mut fresh = std::mem::take(&mut *self.fresh.lock());
        fresh.remove_range(..=from);
        fresh.remove_range(upto + 1..);
        if let Order::Drawn(draw) = work.line.order() {
            // Of ranks, those behind the draw are numbers.
            fresh.remove_range(..=draw.count());
        }
        if !fresh.is_empty() {
            work.presence.polled(fresh.iter(), &work.line, in_force, now);
            work.untold |= fresh;
        }
        let moved = work.polled.moved(from, upto);
        let marked = !claimed.is_empty() || !late.is_empty();
        let is_told_anew = self.measure(work, settings, now);
        if marked || floor != before || moved.is_some() || is_told_anew {
            work.polled = moved.unwrap_or_else(|| work.polled.clone());
            self.publish(work, settings);
        }
        Refreshed { claimed, late, returned }
    }

    /// The last checkpoint: exact, with nothing reserved ahead.
    pub(super) fn last_checkpoint(&self) -> Checkpoint {
        let next = self.next();
        let work = self.work.lock();
        Checkpoint {
            queue: self.name.clone(),
            next,
            watermark: next,
            floor: work.line.floor(),
            step: None,
            claimed: Some(work.line.claimed().clone()),
            over_before: Timestamp(i64::MIN),
        }
    }

    /// The checkpoint is durable: what it says may be known.
    pub(super) fn apply(&self, point: &Checkpoint, now: Timestamp) {
        let mut work = self.work.lock();
        let work = &mut *work;
        let settings = self.settings();
        work.saved.next = point.next;
        work.saved.watermark = point.watermark;
        work.saved.floor = point.floor;
        if let Some(claimed) = &point.claimed {
            work.saved.claimed = claimed.clone();
            work.saved.claimed_at = now;
        }
        {
            let mut numbers = self.numbers.lock();
            numbers.watermark = numbers.watermark.max(point.watermark);
        }
        if let Some((_, step)) = &point.step {
            let admitted = self.admit(work, step, &settings);
            work.bucket.spend(admitted);
            self.count(step, admitted);
        }
    }

    /// Counts a step. Of a shared queue it is counted where it was made, once for all instances.
    fn count(&self, step: &Step, admitted: u64) {
        add(&self.counters.admitted, admitted);
        add(&self.counters.passed, step.passed.len());
        add(&self.counters.returned, step.returned.len());
    }

    /// Carries out a step of admission. Returns how many it admitted.
    fn admit(&self, work: &mut Work, step: &Step, settings: &QueueSettings) -> u64 {
        let admitted = work.line.admit(step);
        if let Some(max) = settings.max_active {
            // `late` holds some who have finished; counting them makes the check milder by no more
            // than the late claims of one active time, which the rule allows on top anyway.
            let bound = max + work.late.len() + self.bypassing.load(Ordering::Relaxed);
            add(&self.counters.bound_checked, 1);
            // At the time for which it was planned: a moment earlier more had not run out of time.
            if work.line.active(settings, step.at) > bound {
                if self.shared {
                    if work.suspects.len() < SUSPECTS_MAX {
                        let (line, since) = (work.line.clone(), Instant::now());
                        let looked_at = None;
                        work.suspects.push(Suspect { line, at: step.at, max, since, looked_at });
                    }
                } else {
                    self.bound_is_broken(max);
                }
            }
        }
        self.publish(work, settings);
        admitted
    }

    fn bound_is_broken(&self, max: u64) {
        add(&self.counters.bound_broken, 1);
        tracing::error!(queue = %self.name, max, "more are active than the queue allows");
    }

    /// Whether the store is to be asked who was over when a step was made.
    pub(super) fn has_suspects(&self) -> bool {
        let is_due = |at: Instant| at.elapsed() >= SUSPECT_INTERVAL;
        self.work.lock().suspects.iter().any(|suspect| suspect.looked_at.is_none_or(is_due))
    }

    /// Looks at suspect steps again, with what the store knows and the others have told.
    fn clear_suspects(&self, work: &mut Work, settings: &QueueSettings, reading: Reading) {
        // Until the others are heard again nobody can tell.
        if work.heard_at.is_none_or(|at| at.elapsed() > HEARD_MAX) {
            return;
        }
        for mut suspect in std::mem::take(&mut work.suspects) {
            // Whoever planned the step may have known what the store did not have yet at this reading.
            if suspect.since > reading.began {
                work.suspects.push(suspect);
                continue;
            }
            work.line.finished().iter().for_each(|seq| suspect.line.finish(seq));
            work.line.left().iter().for_each(|seq| suspect.line.leave(seq));
            let active = suspect.line.active(settings, suspect.at);
            let bound = suspect.max + work.late.len() + self.bypassing.load(Ordering::Relaxed);
            if active > bound + work.unconfirmed.len() {
                self.bound_is_broken(suspect.max);
            } else if active > bound && suspect.since.elapsed() < SUSPECT_MAX {
                suspect.looked_at = Some(Instant::now());
                work.suspects.push(suspect);
            }
        }
    }

    /// The owner of `seq` gave it up, durably.
    pub(super) fn leave(&self, seq: u64) {
        let mut work = self.work.lock();
        let rank = work.line.order().rank(seq);
        work.line.leave(rank);
        add(&self.counters.left, 1);
        self.publish(&work, &self.settings());
    }

    /// `seq` has paid, durably.
    pub(super) fn finish(&self, seq: u64) {
        let mut work = self.work.lock();
        let rank = work.line.order().rank(seq);
        work.line.finish(rank);
        self.publish(&work, &self.settings());
    }

    /// The store has changed how the queue admits, and answered with all of it. Returns the settings
    /// in force; the times are those of the configuration, not those in the store.
    pub(super) fn configure(&self, stored: QueueSettings) -> QueueSettings {
        let mut work = self.work.lock();
        work.changes += 1;
        let QueueSettings { active_ttl, claim_window, .. } = self.settings();
        let settings = QueueSettings { active_ttl, claim_window, ..stored };
        self.reconfigure(&mut work, &settings);
        settings
    }

    /// From now on it admits by these settings, and that is what polls are told.
    fn reconfigure(&self, work: &mut Work, settings: &QueueSettings) {
        let now = work.looked_at.max(work.sale_at);
        // Before anybody has looked it is no time at all, and nothing can be measured by it.
        if now > Timestamp::default() {
            self.measure(work, settings, now);
        }
        self.publish(work, settings);
    }

    /// Measures how fast the line moves. Returns whether polls are to be told something else.
    fn measure(&self, work: &mut Work, settings: &QueueSettings, now: Timestamp) -> bool {
        let outlook = work.outlook(settings);
        let Work { line, presence, speed, .. } = work;
        let bypassing = self.bypassing.load(Ordering::Relaxed);
        let next = self.next();
        let seen = Observed { line, settings, outlook: &outlook, next, bypassing, presence };
        let new = speed.follow(&seen, now, |promise| {
            let mut promises = self.promises.lock();
            if promises.len() < PROMISES_MAX {
                promises.push(promise);
            }
        });
        let Some(forecast) = new else { return false };
        work.forecast = forecast;
        true
    }

    /// What can be expected of the line as it is, and what with this change.
    pub fn preview(&self, change: &SettingsChange, now: Timestamp) -> [Expected; 2] {
        let work = self.work.lock();
        let before = self.settings();
        let mut after = before.clone();
        change.apply(&mut after);
        let (bypassing, next) = (self.bypassing.load(Ordering::Relaxed), self.next());
        let Work { line, presence, speed, .. } = &*work;
        [&before, &after].map(|settings| {
            let outlook = work.outlook(settings);
            let seen = Observed { line, settings, outlook: &outlook, next, bypassing, presence };
            speed.expect(&seen, now)
        })
    }

    /// How long the last of those who wait now will do so; `None` where nobody knows.
    pub fn last_wait(&self, now: Timestamp) -> Option<Duration> {
        match self.waiting() {
            0 => Some(Duration::ZERO),
            waiting => self.told(Place::Waiting { number: waiting }, now, 0).eta,
        }
    }

    /// Who had their turn up to now.
    pub fn turns(&self) -> Turns {
        self.view.load().line.turns()
    }

    /// How many were let in since, by any instance.
    pub fn admitted_since(&self, before: Turns) -> u64 {
        self.view.load().line.admitted_since(before)
    }

    /// What somebody who stands there is told. `jitter`, any number, spreads the crowd.
    pub fn told(&self, place: Place, now: Timestamp, jitter: u64) -> Told {
        let view = self.view.load();
        let outlook = &view.outlook;
        let eta = match place {
            Place::Active { .. } | Place::Over(_) => Some(Duration::ZERO),
            // Nobody knows what comes back, and when, nor what is drawn.
            Place::Undrawn => None,
            Place::Waiting { .. } if outlook.admits_nobody() => None,
            Place::Waiting { number } => view.forecast.eta(number, &outlook.settings, now),
        };
        Told {
            state: outlook.state(now),
            turned_away: outlook.turned_away(),
            eta,
            poll_after: poll_after(eta, &outlook.settings, now, jitter),
        }
    }

    /// Promises of [`Queue::told`] that have turned out since the last call: not all of them, but enough
    /// to know how good they are.
    pub fn take_promises(&self) -> Vec<Promise> {
        std::mem::take(&mut *self.promises.lock())
    }

    /// Whether waiting for a place or holding one, `seq` has not ended yet.
    pub(super) fn is_waiting(&self, seq: u64) -> bool {
        let line = &self.work.lock().line;
        line.is_undrawn() || line.order().rank(seq) > line.serving()
    }

    // ---- a queue that several instances share: here is a mirror of it ----

    /// Numbers up to `next` have been given, by whomever.
    pub(super) fn learn_next(&self, next: u64) {
        let mut numbers = self.numbers.lock();
        numbers.next = numbers.next.max(next);
    }

    /// Whether joins are still taken.
    pub(super) fn is_open(&self) -> Result<(), Fault> {
        if self.numbers.lock().closed { Err(shutting_down()) } else { Ok(()) }
    }

    /// Starts to earn credit anew, as after a change of the settings.
    pub(super) fn forget_credit(&self) {
        self.work.lock().bucket = Bucket::default();
    }

    /// `count` numbers from `first` on are given here. Whoever has one is there, which the others are to
    /// know: where Redis was lost they may take the number for one that was given long ago.
    pub(super) fn note_given(&self, first: u64, count: u64) {
        self.fresh.lock().insert_range(first..first + count);
        let mut numbers = self.numbers.lock();
        numbers.next = numbers.next.max(first + count - 1);
        add(&self.counters.joined, count);
    }

    /// Marks who was seen here, forgets who is out of time, unless the time is in doubt, and notes who is
    /// there. Returns what the other instances are to know.
    pub(super) fn refresh(&self, in_doubt: bool, now: Timestamp) -> Refreshed {
        let mut work = self.work.lock();
        self.look(&mut work, &self.settings(), in_doubt, now)
    }

    /// Whose polls were answered here since the last call, and who was seen within the claim window for
    /// the first time.
    pub(super) fn take_seen(&self) -> (RoaringTreemap, RoaringTreemap) {
        let mut work = self.work.lock();
        (std::mem::take(&mut work.untold), std::mem::take(&mut work.untold_claimed))
    }

    /// The others have been told of these only now.
    pub(super) fn claims_are_told(&self, seqs: &RoaringTreemap, now: Timestamp) {
        let mut work = self.work.lock();
        let work = &mut *work;
        let settings = self.settings();
        let late = seqs.iter().filter(|seq| work.line.is_late(*seq, &settings, CLAIM_GRACE, now));
        work.late.extend(late);
    }

    /// Other instances have answered polls of these.
    pub(super) fn hear_polled(&self, seqs: impl IntoIterator<Item = u64>, now: Timestamp) {
        let mut work = self.work.lock();
        let work = &mut *work;
        if !planted(Bug::PollsUnheard) {
            work.presence.polled(seqs, &work.line, &self.in_force(), now);
        }
    }

    /// Polls may have been answered elsewhere that nobody here has heard of.
    pub(super) fn assume_all(&self, now: Timestamp) {
        let mut work = self.work.lock();
        let work = &mut *work;
        work.presence.assume_all(&self.in_force(), now);
    }

    /// All that others have told was heard.
    pub(super) fn has_heard(&self, at: Instant) {
        self.work.lock().heard_at = Some(at);
    }

    /// Decides whom to admit, on what this instance has heard. Nothing changes but the credit.
    pub(super) fn plan(&self, now: Timestamp) -> Option<Advance> {
        let next = self.next();
        let mut work = self.work.lock();
        let work = &mut *work;
        let settings = self.in_force();
        let (_, filled_at) = work.bucket.state();
        // The clocks of instances differ by a little. Credit follows the one that is ahead: counted on
        // from each in turn, the difference would be credit again and again.
        let now = work.not_before(now, Duration::MAX);
        if settings.gate(now) != Gate::Open {
            work.bucket.empty(now);
            return None;
        }
        if let Some(opens_at) = settings.opens_at
            && filled_at.is_some_and(|then| then < opens_at)
        {
            work.bucket = Bucket::restore(0, Some(opens_at));
        }
        let credit = work.bucket.fill(settings.admit_per_second, now);
        let bypassing = self.bypassing.load(Ordering::Relaxed);
        let step = work.line.plan(&settings, next, credit, bypassing, &work.presence, now)?;
        // Those who left or were passed over cost nothing.
        let mut after = work.line.clone();
        let mut bucket = work.bucket.clone();
        let admitted = after.admit(&step);
        if !planted(Bug::CreditUnspent) {
            bucket.spend(admitted);
        }
        Some(Advance {
            queue: self.name.clone(),
            steps: work.line.steps(),
            serving: work.line.serving(),
            step,
            bucket,
        })
    }

    /// The step is durable. Returns false where a step before it is missing here.
    pub(super) fn advanced(&self, step: &Advance, here: bool) -> bool {
        let mut work = self.work.lock();
        let work = &mut *work;
        let settings = self.settings();
        if step.steps < work.line.steps() {
            return true;
        }
        if step.steps > work.line.steps() || step.serving != work.line.serving() {
            return false;
        }
        self.learn_next(step.step.upto);
        let admitted = self.admit(work, &step.step, &settings);
        // It is counted where it was made, once for all instances.
        if here {
            self.count(&step.step, admitted);
        }
        work.bucket = step.bucket.clone();
        true
    }

    /// The store is about to be asked.
    pub(super) fn begin_reading(&self) -> Reading {
        Reading { changes: self.work.lock().changes, began: Instant::now() }
    }

    /// Takes over what the store has of it. What it says of the settings may be older than a change that
    /// was made here since the reading began, which stands then.
    pub(super) fn absorb(&self, stored: StoredQueue, reading: Reading) -> Result<(), Fault> {
        let StoredQueue { name, settings, next, line, bucket, draw, .. } = stored;
        let line = Line::restore(line)
            .ok_or_else(|| Fault::Corrupt(format!("the stored counters of queue {name}")))?;
        let mut work = self.work.lock();
        let old_settings = self.settings();
        let known = work.changes != reading.changes || planted(Bug::SettingsUnheard);
        let settings = if known { old_settings.clone() } else { settings };
        if old_settings != settings {
            work.bucket = Bucket::default();
        } else if line.steps() > work.line.steps() {
            work.bucket = bucket;
        }
        let old_line = work.line.clone();
        let looked_at = work.looked_at;
        self.take_draw(&mut work, draw, looked_at);
        work.line.absorb(&line);
        // Whether they were seen in time is not stored.
        let more = work.line.claimed() - old_line.claimed();
        work.late |= more;
        self.learn_next(next.max(work.line.serving()));
        if old_settings != settings {
            self.reconfigure(&mut work, &settings);
        } else if work.line != old_line {
            self.publish(&work, &settings);
        }
        self.clear_suspects(&mut work, &settings, reading);
        Ok(())
    }

    /// Other instances have seen these.
    pub(super) fn apply_claimed(
        &self,
        seqs: impl IntoIterator<Item = u64>,
        from: HeardFrom,
        now: Timestamp,
    ) {
        let mut work = self.work.lock();
        let work = &mut *work;
        let settings = self.settings();
        let seqs: Vec<u64> = seqs.into_iter().collect();
        let known = match from {
            HeardFrom::Store => {
                seqs.iter().copied().filter(|seq| work.unconfirmed.remove(*seq)).collect()
            }
            HeardFrom::Redis | HeardFrom::RedisLate => Vec::new(),
        };
        let marked = mark_claimed(&mut work.line, seqs, &settings, now);
        let is_new = !marked.is_empty();
        for seq in marked.into_iter().chain(known) {
            let is_late =
                from == HeardFrom::RedisLate || work.line.is_late(seq, &settings, CLAIM_GRACE, now);
            if is_late {
                work.late.insert(seq);
            } else if from == HeardFrom::Redis {
                work.unconfirmed.insert(seq);
            }
        }
        if is_new {
            self.publish(work, &settings);
        }
    }

    /// Other instances know that these gave up, or (`finished`) have paid.
    pub(super) fn apply_over(&self, seqs: Vec<u64>, finished: bool) {
        let mut work = self.work.lock();
        for seq in seqs {
            let is_by_number = planted(Bug::EndedByNumber);
            let rank = if is_by_number { seq } else { work.line.order().rank(seq) };
            if finished {
                work.line.finish(rank);
            } else {
                work.line.leave(rank);
            }
        }
        self.publish(&work, &self.settings());
    }

    /// What to record of it; the floor only where this instance's clock can be trusted: what is below
    /// it is forgotten for all. The claimed numbers come with it where there are new ones.
    pub(super) fn progress(&self, with_floor: bool, now: Timestamp) -> Progress {
        let next = self.next();
        let mut work = self.work.lock();
        work.unrecorded = false;
        let claimed = (work.saved.claimed != *work.line.claimed()).then(|| {
            work.saved.claimed = work.line.claimed().clone();
            work.saved.claimed.clone()
        });
        let floor = if with_floor { work.line.floor() } else { 0 };
        let over_before = match with_floor {
            true => over_before(&self.settings(), now),
            false => Timestamp(i64::MIN),
        };
        Progress { queue: self.name.clone(), next, floor, claimed, over_before }
    }

    /// What was to be recorded was not.
    pub(super) fn not_recorded(&self) {
        let mut work = self.work.lock();
        work.saved.claimed.clear();
        work.unrecorded = self.shared;
    }

    /// Whether somebody was seen here for the first time and is not in the store yet.
    pub(super) fn has_unrecorded(&self) -> bool {
        self.work.lock().unrecorded
    }

    /// Adds what there is to say of I3 and I5.
    pub(super) fn audit(&self, overtaken: &mut Finding, bounded: &mut Finding, now: Timestamp) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let name = &self.name;
        overtaken.add_checked(count(&counters.published));
        let went_back = count(&counters.went_back);
        overtaken.expect(went_back == 0, || {
            format!("a counter of queue {name} went back {went_back} times")
        });
        // The view first: nobody is admitted before joining, so its `serving` is no more than any `next`
        // that is read after it. The other way round, joins and a tick may come between the two.
        let view = self.view.load();
        let next = self.next();
        overtaken.expect(view.line.serving() <= next, || {
            format!("queue {name} serves {} of {next}", view.line.serving())
        });
        bounded.add_checked(count(&counters.bound_checked));
        let broken = count(&counters.bound_broken);
        bounded.expect(broken == 0, || {
            format!("queue {name} admitted past max_active {broken} times")
        });
        // Unbounded, the arithmetic must still not count more than were ever admitted.
        let active = view.line.active(&view.settings, now);
        let readmitted = view.line.readmitted().len() as u64;
        bounded.expect(active <= view.line.serving() - view.line.floor() + readmitted, || {
            format!("queue {name} counts {active} active")
        });
    }

    /// Adds what there is to say of I9, where the tickets of people are kept here.
    pub(super) fn audit_places(&self, one_each: &mut Finding) {
        let (Some(_), Some(kept)) = (&self.shown, &self.kept) else { return };
        let (people, wrong) = kept.audit();
        one_each.add_checked(people);
        if wrong > 0 {
            let name = &self.name;
            one_each.violated(format!("{wrong} places of queue {name} are not one person's"));
        }
    }

    fn publish(&self, work: &Work, settings: &QueueSettings) {
        let before = self.view.load();
        let (old, new) = (&before.line, &work.line);
        if new.serving() < old.serving() || new.floor() < old.floor() {
            add(&self.counters.went_back, 1);
            tracing::error!(queue = %self.name, "a counter went back");
        }
        self.view.store(Arc::new(View {
            settings: settings.clone(),
            outlook: work.outlook(settings),
            line: new.clone(),
            draw: work.draw.clone(),
            forecast: work.forecast.clone(),
            polled: work.polled.clone(),
        }));
        self.counters.published.fetch_add(1, Ordering::Release);
    }

    /// How long ago whoever stands there was let in, where they are inside.
    pub fn inside_for(&self, place: Place, now: Timestamp) -> Option<Duration> {
        let Place::Active { until, .. } = place else { return None };
        self.view.load().settings.active_ttl.checked_sub(until.since(now))
    }

    /// Whether `place` means that the ticket is over for good because of what its owner did.
    pub fn is_spent(place: Place) -> bool {
        matches!(place, Place::Over(Ending::Finished | Ending::Left))
    }
}

/// What a look at the line has shown.
#[derive(Debug)]
pub(super) struct Refreshed {
    /// Numbers that were seen for the first time since their admission,
    pub(super) claimed: Vec<u64>,
    /// and those of them that were seen after the claim window.
    pub(super) late: Vec<u64>,
    /// Numbers that were passed over, and whose owners are there again.
    pub(super) returned: Vec<u64>,
}

/// Who was let in before this is out of time.
fn over_before(settings: &QueueSettings, now: Timestamp) -> Timestamp {
    let ttl_ms = i64::try_from(settings.active_ttl.as_millis()).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_sub(ttl_ms))
}

/// Marks numbers as seen. Returns those that were not before.
fn mark_claimed(
    line: &mut Line,
    seen: impl IntoIterator<Item = u64>,
    settings: &QueueSettings,
    now: Timestamp,
) -> Vec<u64> {
    if planted(Bug::ClaimsUnnoticed) {
        return Vec::new();
    }
    seen.into_iter().filter(|seq| line.claim(*seq, settings.active_ttl, now)).collect()
}

fn shutting_down() -> Fault {
    Fault::Unavailable("the service is shutting down".into())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use boxoffice_domain::invariant::Invariant;
    use boxoffice_domain::queue::{Admission, LineParts, SaleWindow};

    use super::*;

    const TTL: Duration = Duration::from_millis(500);

    fn stored(serving: u64) -> StoredQueue {
        let Some(name) = QueueName::new("main") else { panic!("a name") };
        StoredQueue {
            name,
            settings: QueueSettings {
                admit_per_second: 100_000.0,
                max_active: None,
                active_ttl: TTL,
                claim_window: TTL,
                opens_at: None,
                paused: false,
            },
            next: serving,
            watermark: u64::MAX / 2,
            line: LineParts {
                serving,
                log: (serving > 0)
                    .then_some(Admission { upto: serving, at: Timestamp(0) })
                    .into_iter()
                    .collect(),
                ..LineParts::default()
            },
            bucket: Bucket::default(),
            draw: None,
        }
    }

    fn queue(stored: StoredQueue) -> Queue {
        match Queue::new(stored, true, false, mpsc::unbounded_channel().0) {
            Ok(queue) => queue,
            Err(fault) => panic!("{fault}"),
        }
    }

    /// The step that lets in the two up to `upto`, from another instance.
    fn two_more(steps: u64, upto: u64, at: i64) -> Advance {
        Advance {
            queue: stored(0).name,
            steps,
            serving: upto - 2,
            step: Step {
                upto,
                at: Timestamp(at),
                passed: RoaringTreemap::new(),
                left: RoaringTreemap::new(),
                returned: RoaringTreemap::new(),
            },
            bucket: Bucket::default(),
        }
    }

    /// Two are admitted, and then two more by somebody who has heard of nobody: the first two were seen in
    /// time, and that is heard of from Redis at once, and from the store at `told`. Returns how often the
    /// bound was broken.
    fn broken_where_the_store_tells(told: i64) -> u64 {
        let mut begin = stored(0);
        begin.settings.max_active = Some(2);
        begin.settings.active_ttl = Duration::from_secs(60);
        let queue = queue(begin.clone());
        assert!(queue.advanced(&two_more(0, 2, 0), false));
        queue.apply_claimed([1, 2], HeardFrom::Redis, Timestamp(100));
        let tell = |now: i64| {
            if now == told {
                queue.apply_claimed([1, 2], HeardFrom::Store, Timestamp(now));
            }
            queue.has_heard(Instant::now());
            let mut stored = begin.clone();
            stored.line.steps = queue.work.lock().line.steps();
            assert!(queue.absorb(stored, queue.begin_reading()).is_ok());
        };
        tell(200);
        assert!(queue.advanced(&two_more(1, 4, 3_000), false));
        [3_100, 4_000, 5_000].into_iter().for_each(tell);
        queue.counters().bound_broken.load(Ordering::Relaxed)
    }

    #[test]
    fn whoever_admits_cannot_know_what_only_redis_had_told() {
        assert_eq!(broken_where_the_store_tells(200), 1, "all knew that they were there");
        assert_eq!(broken_where_the_store_tells(4_000), 0, "the room was given away before that");
        assert_eq!(broken_where_the_store_tells(0), 0, "nobody knows who knew");
    }

    #[test]
    fn what_was_read_before_a_step_does_not_judge_it() {
        let mut begin = stored(0);
        begin.settings.max_active = Some(2);
        let queue = queue(begin.clone());
        let tell = |reading, left: &[u64]| {
            queue.has_heard(Instant::now());
            let mut stored = begin.clone();
            stored.line.steps = queue.work.lock().line.steps();
            stored.line.left = left.iter().copied().collect();
            assert!(queue.absorb(stored, reading).is_ok());
            queue.counters().bound_broken.load(Ordering::Relaxed)
        };
        assert!(queue.advanced(&two_more(0, 2, 0), false));
        let earlier = queue.begin_reading();
        // Whoever planned this knew that the first two had left.
        assert!(queue.advanced(&two_more(1, 4, 0), false));
        assert_eq!(tell(earlier, &[]), 0);
        assert_eq!(tell(queue.begin_reading(), &[1, 2]), 0);
        assert!(!queue.has_suspects());
        assert!(queue.advanced(&two_more(2, 6, 0), false));
        assert_eq!(tell(queue.begin_reading(), &[1, 2]), 1, "of these nobody has left");
    }

    /// Whoever starts with a clock that is behind earns nothing for moments that have been earned already: who
    /// follows the log has no other times than those of the steps.
    #[test]
    fn credit_is_earned_once_whoever_plans_next() {
        let mut begin = stored(2);
        begin.settings.admit_per_second = 10.0;
        begin.next = 100;
        begin.line.log[0].at = Timestamp(10_000);
        for shared in [true, false] {
            let queue = match Queue::new(begin.clone(), shared, false, mpsc::unbounded_channel().0)
            {
                Ok(queue) => queue,
                Err(fault) => panic!("{fault}"),
            };
            let plan = |now: i64| match shared {
                true => queue.plan(Timestamp(now)).map(|advance| advance.step),
                false => queue.prepare(Timestamp(now)).and_then(|point| Some(point.step?.1)),
            };
            for now in [9_500, 9_700, 9_999, 10_000] {
                assert_eq!(plan(now), None, "at {now}, shared: {shared}");
            }
            let step = plan(10_200);
            assert_eq!(step.map(|step| (step.at.0, step.upto)), Some((10_200, 4)), "{shared}");
        }
    }

    /// A queue hears what is sold behind it before it is looked at for the first time.
    #[test]
    fn nothing_is_promised_before_there_is_a_time() {
        let mut begin = stored(0);
        begin.settings.admit_per_second = 20.0;
        begin.next = 100;
        let queue = queue(begin);
        let now = |ms: i64| Timestamp(1_000_000 + ms);
        let window = SaleWindow {
            opens_at: Timestamp(0),
            ends_at: Timestamp(i64::MAX),
            left: Some(5_000),
            sold: 0,
            purchases: 0,
        };
        let rules = SaleRules { by_stock: true, ..SaleRules::default() };
        queue.configure(queue.settings());
        queue.note_sale(Sale { exists: true, windows: vec![window] }, rules, now(0));
        assert_eq!(queue.outlook().stock, Some(5_000));
        for ms in (0..=10_000).step_by(100) {
            queue.refresh(false, now(ms));
            if let Some(advance) = queue.plan(now(ms)) {
                assert!(queue.advanced(&advance, true));
            }
        }
        queue.refresh(false, now(10_100));
        let promises = queue.take_promises();
        assert!(promises.len() > 5 && promises.iter().all(Promise::is_kept), "{promises:?}");
    }

    /// Everybody who joins is admitted at once, so that a counter that is read too early is too low
    /// a moment later.
    #[test]
    fn an_audit_beside_joins_and_admissions_finds_nothing() {
        let queue = queue(stored(0));
        let (mut overtaken, mut bounded) =
            (Finding::new(Invariant::NobodyOvertaken), Finding::new(Invariant::ActiveBounded));
        let mut audits = 0;
        thread::scope(|scope| {
            let joins = scope.spawn(|| {
                for now in 0..50_000 {
                    assert!(matches!(queue.next_numbers(1), Ok(Some(_))));
                    if let Some(point) = queue.prepare(Timestamp(now)) {
                        queue.apply(&point, Timestamp(now));
                    }
                }
            });
            while !joins.is_finished() {
                queue.audit(&mut overtaken, &mut bounded, Timestamp(0));
                audits += 1;
            }
        });
        assert!(queue.serving() > 10_000 && audits > 100, "{} {audits}", queue.serving());
        assert_eq!(overtaken.violations, 0, "of {audits} audits: {overtaken:?}");
    }

    /// Whatever else is published at the same moment, it has the settings as they were changed last.
    #[test]
    fn settings_stand_beside_all_that_is_published() {
        const ADMITTED: u64 = 50_000;
        let queue = queue(stored(ADMITTED));
        thread::scope(|scope| {
            let polls = scope.spawn(|| {
                for seq in 1..=ADMITTED {
                    queue.place(seq, Timestamp(1));
                    queue.refresh(false, Timestamp(1));
                }
            });
            let mut changes = 0_u64;
            while !polls.is_finished() {
                changes += 1;
                let paused = changes.is_multiple_of(2);
                queue.configure(QueueSettings { paused, ..queue.settings() });
                for _ in 0..20 {
                    assert_eq!(queue.settings().paused, paused, "change {changes}");
                }
            }
            assert!(changes > 100, "{changes}");
        });
        assert_eq!(queue.work.lock().line.claimed().len(), ADMITTED);
    }

    /// Others may take a number for one that was given long ago.
    #[test]
    fn who_joins_here_is_told_to_the_others() {
        let queue = queue(stored(0));
        queue.note_given(5, 3);
        queue.refresh(false, Timestamp(100));
        let (told, _) = queue.take_seen();
        assert_eq!(told.iter().collect::<Vec<_>>(), [5, 6, 7]);
        queue.refresh(false, Timestamp(200));
        assert!(queue.take_seen().0.is_empty(), "once");
        // Who takes the stretch for long absent hears of them, and passes nobody over.
        let there = |queue: &Queue| {
            let work = queue.work.lock();
            (5..=7).filter(|seq| !work.presence.is_absent(*seq, Timestamp(200_000))).count()
        };
        queue.has_heard(Instant::now());
        for now in (1_000..=200_000).step_by(1_000) {
            queue.has_heard(Instant::now());
            queue.refresh(false, Timestamp(now));
        }
        assert_eq!(there(&queue), 0);
        queue.note_given(5, 3);
        queue.refresh(false, Timestamp(200_000));
        assert_eq!(there(&queue), 3);
    }

    #[test]
    fn what_was_read_before_a_change_does_not_undo_it() {
        let queue = queue(stored(0));
        let read = stored(0);
        let before = queue.begin_reading();
        let paused = queue.configure(QueueSettings { paused: true, ..queue.settings() });
        assert!(queue.absorb(read.clone(), before).is_ok());
        assert_eq!(queue.settings(), paused);
        // What was read since is as new, or newer: another instance may have ended the pause.
        assert!(queue.absorb(read, queue.begin_reading()).is_ok());
        assert!(!queue.settings().paused);
    }

    #[test]
    fn the_times_of_a_queue_are_not_changed_with_its_settings() {
        let queue = queue(stored(0));
        let day = Duration::from_secs(86_400);
        let answer = QueueSettings {
            admit_per_second: 2.0,
            active_ttl: day,
            claim_window: day,
            ..stored(0).settings
        };
        let expected = QueueSettings { admit_per_second: 2.0, ..stored(0).settings };
        assert_eq!(queue.configure(answer), expected);
        assert_eq!(queue.settings(), expected);
    }
}
