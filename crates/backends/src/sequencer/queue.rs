//! One queue in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{Admission, Bucket, Ending, Gate, Line, Place, Pruned, Settings};
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use roaring::RoaringTreemap;
use tokio::sync::{mpsc, oneshot};

use crate::Fault;
use crate::store::{Checkpoint, StoredQueue};

/// What a poll reads: a snapshot, replaced as a whole.
#[derive(Debug)]
pub(super) struct View {
    pub(super) settings: Settings,
    pub(super) line: Line,
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
    bucket: Bucket,
    /// Seen for the first time only after the claim window; they come on top of `max_active`.
    late: RoaringTreemap,
    saved: Saved,
    joined_before: u64,
}

/// What the store has.
struct Saved {
    next: u64,
    watermark: u64,
    floor: u64,
    claimed_at: Timestamp,
    claimed: RoaringTreemap,
}

pub(super) type JoinReply = oneshot::Sender<Result<u64, Fault>>;

/// One queue.
pub struct Queue {
    name: QueueName,
    view: ArcSwap<View>,
    numbers: Mutex<Numbers>,
    work: Mutex<Work>,
    /// Admitted tickets whose owners have shown up since the last tick.
    seen: Mutex<Vec<u64>>,
    joins: mpsc::UnboundedSender<JoinReply>,
    /// Joins that wait for numbers to be reserved.
    pending: AtomicU64,
    /// Active tickets that an operator issued past the line.
    pub(super) beside: AtomicU64,
    /// Whether everything of the concerts behind it is sold; for those who ask, no rule reads it.
    sold_out: AtomicBool,
    counters: Counters,
}

/// How many sightings are kept between two ticks. Past this they are dropped: whoever is not
/// marked by this poll is marked by the next.
const SEEN_MAX: usize = 100_000;
/// Claimed numbers are made durable this often. A crash forgets the last ones; their owners are
/// marked again when they poll.
const CLAIMED_SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// The fewest numbers that are reserved ahead of joins. After a crash as many places may be empty.
const HEADROOM_MIN: u64 = 16;

impl Queue {
    pub(super) fn new(
        stored: StoredQueue,
        joins: mpsc::UnboundedSender<JoinReply>,
    ) -> Result<Self, Fault> {
        let StoredQueue {
            name,
            settings,
            watermark,
            serving,
            floor,
            log,
            left,
            claimed,
            finished,
            ..
        } = stored;
        let saved = Saved {
            next: watermark,
            watermark,
            floor,
            claimed_at: Timestamp(i64::MIN),
            claimed: claimed.clone(),
        };
        let line = Line::restore(serving, floor, log, left, claimed, finished)
            .filter(|line| line.serving() <= watermark)
            .ok_or_else(|| Fault::Corrupt(format!("the stored counters of queue {name}")))?;
        Ok(Self {
            name,
            view: ArcSwap::from_pointee(View { settings, line: line.clone() }),
            // Numbers up to the watermark may have been given before a crash; none is given twice.
            numbers: Mutex::new(Numbers { next: watermark, watermark, closed: false }),
            work: Mutex::new(Work {
                line,
                bucket: Bucket::default(),
                late: RoaringTreemap::new(),
                saved,
                joined_before: 0,
            }),
            seen: Mutex::default(),
            joins,
            pending: AtomicU64::new(0),
            beside: AtomicU64::new(0),
            sold_out: AtomicBool::new(false),
            counters: Counters::default(),
        })
    }

    /// Its name.
    pub const fn name(&self) -> &QueueName {
        &self.name
    }

    /// How it admits.
    pub fn settings(&self) -> Settings {
        self.view.load().settings.clone()
    }

    /// The sums for metrics.
    pub const fn counters(&self) -> &Counters {
        &self.counters
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
        view.line.active(&view.settings, now) + self.beside.load(Ordering::Relaxed)
    }

    /// Whether it admits.
    pub fn gate(&self, now: Timestamp) -> Gate {
        self.view.load().settings.gate(now)
    }

    /// Whether all is sold behind it.
    pub fn is_sold_out(&self) -> bool {
        self.sold_out.load(Ordering::Relaxed)
    }

    /// Notes whether all is sold behind it.
    pub fn set_sold_out(&self, sold_out: bool) {
        self.sold_out.store(sold_out, Ordering::Relaxed);
    }

    pub(super) fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The next number, if one is reserved and nobody has been waiting for one: a join costs no
    /// commit, and does not overtake those who came when the reserved numbers had run out.
    pub(super) fn take_one(&self) -> Result<Option<u64>, Fault> {
        if self.pending.load(Ordering::Acquire) > 0 { Ok(None) } else { self.take(1) }
    }

    /// Puts a join into the batch that waits for numbers.
    pub(super) fn enqueue(&self, reply: JoinReply) -> Result<(), Fault> {
        self.pending.fetch_add(1, Ordering::Release);
        let closed = |_| Fault::Unavailable("the queue is closed".into());
        self.joins.send(reply).map_err(closed)
    }

    /// So many of the batch have their numbers, or will not get any.
    pub(super) fn dequeued(&self, count: u64) {
        self.pending.fetch_sub(count, Ordering::Release);
    }

    /// Takes the next `count` numbers, if the store has allowed as many; gives the first.
    pub(super) fn take(&self, count: u64) -> Result<Option<u64>, Fault> {
        let mut numbers = self.numbers.lock();
        if numbers.closed {
            return Err(Fault::Unavailable("the service is shutting down".into()));
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

    /// Where the number stands, and whether its owner has been seen now for the first time.
    pub(super) fn place(&self, seq: u64, now: Timestamp) -> Place {
        let view = self.view.load();
        let place = view.line.place(seq, view.settings.active_ttl, now);
        if matches!(place, Place::Active { claimed: false, .. }) {
            let mut seen = self.seen.lock();
            if seen.len() < SEEN_MAX {
                seen.push(seq);
            }
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
            admission: None,
            claimed: None,
        }
    }

    /// Prepares one step: takes in who was seen, forgets who is out of time, decides whom to
    /// admit. `None` where nothing has changed that the store should know.
    pub(super) fn prepare(&self, now: Timestamp) -> Option<Checkpoint> {
        let settings = self.settings();
        let seen = std::mem::take(&mut *self.seen.lock());
        let next = self.next();
        let mut work = self.work.lock();
        let work = &mut *work;
        let mut changed = false;
        for seq in seen {
            let Place::Active { until, .. } = work.line.place(seq, settings.active_ttl, now) else {
                continue;
            };
            if work.line.claim(seq, settings.active_ttl, now) {
                changed = true;
                // `until` is the admission plus the active time.
                if until.plus(settings.claim_window) <= now.plus(settings.active_ttl) {
                    work.late.insert(seq);
                }
            }
        }
        let Pruned { expired, no_show } = work.line.prune(settings.active_ttl, now);
        add(&self.counters.expired, expired);
        add(&self.counters.no_show, no_show);
        work.late.remove_range(..=work.line.floor());
        if changed || work.line.floor() != work.saved.floor {
            self.publish(work, &settings);
        }

        let admission = if settings.gate(now) == Gate::Open {
            let credit = work.bucket.fill(settings.admit_per_second, now);
            let beside = self.beside.load(Ordering::Relaxed);
            work.line.plan(&settings, next, credit, beside, now)
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
        let due = admission.is_some()
            || next != work.saved.next
            || work.line.floor() != work.saved.floor
            || claimed_due;
        due.then(|| Checkpoint {
            queue: self.name.clone(),
            next,
            watermark,
            floor: work.line.floor(),
            admission,
            claimed: claimed_due.then(|| work.line.claimed().clone()),
        })
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
            admission: None,
            claimed: Some(work.line.claimed().clone()),
        }
    }

    /// The checkpoint is durable: what it says may be known.
    pub(super) fn apply(&self, point: &Checkpoint, now: Timestamp) {
        let settings = self.settings();
        let mut work = self.work.lock();
        let work = &mut *work;
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
        if let Some(admission) = point.admission {
            self.admit(work, admission, &settings, now);
        }
    }

    fn admit(&self, work: &mut Work, admission: Admission, settings: &Settings, now: Timestamp) {
        let admitted = work.line.admit(admission);
        work.bucket.take(admitted);
        add(&self.counters.admitted, admitted);
        if let Some(max) = settings.max_active {
            // `late` holds some who have finished; counting them makes the check milder by no more
            // than the late claims of one active time, which the rule allows on top anyway.
            let bound = max + work.late.len() + self.beside.load(Ordering::Relaxed);
            add(&self.counters.bound_checked, 1);
            if work.line.active(settings, now) > bound {
                add(&self.counters.bound_broken, 1);
                tracing::error!(queue = %self.name, max, "more are active than the queue allows");
            }
        }
        self.publish(work, settings);
    }

    /// The owner of `seq` gave it up, durably.
    pub(super) fn leave(&self, seq: u64) {
        let mut work = self.work.lock();
        work.line.leave(seq);
        add(&self.counters.left, 1);
        self.publish(&work, &self.settings());
    }

    /// `seq` has paid, durably.
    pub(super) fn finish(&self, seq: u64) {
        let mut work = self.work.lock();
        work.line.finish(seq);
        self.publish(&work, &self.settings());
    }

    pub(super) fn configure(&self, settings: &Settings) {
        let work = self.work.lock();
        self.publish(&work, settings);
    }

    /// Whether waiting for a place or holding one, `seq` has not ended yet.
    pub(super) fn is_waiting(&self, seq: u64) -> bool {
        seq > self.work.lock().line.serving()
    }

    fn publish(&self, work: &Work, settings: &Settings) {
        let before = self.view.load();
        let (old, new) = (&before.line, &work.line);
        add(&self.counters.published, 1);
        if new.serving() < old.serving() || new.floor() < old.floor() {
            add(&self.counters.went_back, 1);
            tracing::error!(queue = %self.name, "a counter went back");
        }
        self.view.store(Arc::new(View { settings: settings.clone(), line: new.clone() }));
    }

    /// Whether `place` means that the ticket is over for good because of what its owner did.
    pub fn is_spent(place: Place) -> bool {
        matches!(place, Place::Over(Ending::Finished | Ending::Left))
    }
}
