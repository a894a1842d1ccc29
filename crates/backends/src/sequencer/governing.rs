//! How the shop does, as all instances feel it, and what the governor makes of that for all of them.
//!
//! Each instance tells the others once a second what its purchases felt like; whoever has the turn to admit
//! decides for all by what was told since the last decision, and tells it. All hear it, the one who decided
//! too, and go by it: there is one governor, which whoever has the turn next carries on. Without Redis each
//! instance goes on by what it feels itself.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use boxoffice_domain::queue::{Felt, Governor, Reason};
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::news::News;
use super::queue::Queue;
use crate::Error;
use crate::store::StoreResult;

/// There is a decision so often, in milliseconds.
const DECISION_MS: i64 = 1_000;
/// Who was let in longer ago and asks, asks again, or comes back: that is not how long people take to act.
const AGE_MAX: Duration = Duration::from_secs(30);
/// Whoever has the turn decides. Where nobody has it, because nobody has the store, everybody does after this time, in
/// milliseconds.
const UNDECIDED_MS: i64 = 3_000;
/// So many instances are listened to for a decision.
const INSTANCES_MAX: usize = 1_000;

/// What purchases felt like here: sums since the start of the process.
#[derive(Debug, Default)]
pub struct Purchases {
    asked: AtomicU64,
    served: AtomicU64,
    refused: AtomicU64,
    waited_us: AtomicU64,
    age_ms: AtomicU64,
    aged: AtomicU64,
}

impl Purchases {
    /// Somebody asks for a purchase now, who was let in so long ago, where that is known. What is returned is to
    /// be kept until they have their answer.
    pub fn ask(self: &Arc<Self>, age: Option<Duration>) -> Purchase {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if let Some(age) = age.filter(|age| *age <= AGE_MAX) {
            self.aged.fetch_add(1, Ordering::Relaxed);
            self.age_ms.fetch_add(millis(age), Ordering::Relaxed);
        }
        Purchase { purchases: self.clone(), began: Instant::now(), was_refused: false }
    }

    /// So many asked and were refused at once, because there are too many.
    pub fn refuse(&self, count: u64) {
        self.asked.fetch_add(count, Ordering::Relaxed);
        self.refused.fetch_add(count, Ordering::Relaxed);
    }

    /// All so far, with those who wait now.
    fn sums(&self) -> Felt {
        let sum = |of: &AtomicU64| of.load(Ordering::Relaxed);
        // Answers first: whoever asks in between waits.
        let (served, refused) = (sum(&self.served), sum(&self.refused));
        let asked = sum(&self.asked);
        Felt {
            over: Duration::ZERO,
            asked,
            served,
            refused,
            waited: Duration::from_micros(sum(&self.waited_us)),
            waiting: asked.saturating_sub(served + refused),
            admitted: 0,
            age: Duration::from_millis(sum(&self.age_ms)),
            aged: sum(&self.aged),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A purchase that is being answered. Dropped, it was.
#[derive(Debug)]
pub struct Purchase {
    purchases: Arc<Purchases>,
    began: Instant,
    was_refused: bool,
}

impl Purchase {
    /// The store has answered, or was too slow, too full or away.
    pub fn answered<T, R>(mut self, answer: &StoreResult<T, R>) {
        self.was_refused = matches!(answer, Err(Error::Fault(_)));
    }
}

impl Drop for Purchase {
    fn drop(&mut self) {
        if self.was_refused {
            self.purchases.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let waited = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.purchases.waited_us.fetch_add(waited, Ordering::Relaxed);
        self.purchases.served.fetch_add(1, Ordering::Relaxed);
    }
}

/// How the governor is doing, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Governed {
    /// The part of its rate that each queue admits.
    pub share: f64,
    /// Why.
    pub reason: Reason,
}

/// The governor as this instance has it.
pub(super) struct Governing {
    purchases: Arc<Purchases>,
    /// Whether admission goes by it.
    is_on: AtomicBool,
    /// What this instance is called by the others, in this alone.
    id: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    governor: Governor,
    /// When it was decided last.
    decided_at: Option<Timestamp>,
    /// What was felt here up to the last time that it was told.
    told: Felt,
    told_at: Option<Timestamp>,
    /// What each instance has felt since the last decision.
    heard: HashMap<u64, Felt>,
    /// When somebody was heard first.
    heard_since: Option<Timestamp>,
}

/// With whom an instance decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    /// By itself.
    Alone,
    /// With others, and it is its turn.
    OthersAndTurn,
    /// With others, and it is somebody else's turn.
    Others,
    /// Not at all: what goes wrong here is its own fault, and no reason for others to let in fewer.
    Nobody,
}

impl Governing {
    /// Of the instance of this name; not in force before [`Governing::follow`].
    pub(super) fn new(instance: &str) -> Self {
        let mut id = DefaultHasher::new();
        instance.hash(&mut id);
        Self {
            purchases: Arc::default(),
            is_on: AtomicBool::new(false),
            id: id.finish(),
            state: Mutex::default(),
        }
    }

    /// From now on admission goes by it.
    pub(super) fn follow(&self) {
        self.is_on.store(true, Ordering::Relaxed);
    }

    pub(super) const fn purchases(&self) -> &Arc<Purchases> {
        &self.purchases
    }

    pub(super) fn governed(&self) -> Governed {
        let state = self.state.lock();
        Governed { share: state.governor.share(), reason: state.governor.reason() }
    }

    /// What is due by now: returns what the others are to be told. Together with others nothing else happens
    /// before that is heard.
    pub(super) fn step(&self, queues: &[Arc<Queue>], among: Among, now: Timestamp) -> Vec<News> {
        if !self.is_on.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut state = self.state.lock();
        let mut news = Vec::new();
        if is_due(state.told_at, now) {
            let felt = self.take(&mut state, queues, now);
            let is_quiet = felt.asked == 0 && felt.waiting == 0 && felt.admitted == 0;
            match among {
                Among::Alone => state.hear(self.id, felt),
                Among::OthersAndTurn | Among::Others if !is_quiet => {
                    news.push(News::Felt(self.id, felt));
                }
                Among::OthersAndTurn | Among::Others | Among::Nobody => {}
            }
        }
        if !state.is_to_decide(among, now) {
            return news;
        }
        let governor = state.decide(queues, now);
        if among == Among::Alone {
            state.adopt(now, governor, queues);
        } else {
            // Not once more before this is heard.
            state.decided_at = Some(now);
            news.push(News::Governed(now, governor.parts()));
        }
        news
    }

    /// An instance has told what it felt.
    pub(super) fn hear(&self, id: u64, felt: Felt) {
        self.state.lock().hear(id, felt);
    }

    /// It was decided for all.
    pub(super) fn adopt(&self, at: Timestamp, governor: Governor, queues: &[Arc<Queue>]) {
        if self.is_on.load(Ordering::Relaxed) {
            self.state.lock().adopt(at, governor, queues);
        }
    }

    /// What was felt here since the last call.
    fn take(&self, state: &mut State, queues: &[Arc<Queue>], now: Timestamp) -> Felt {
        let mut sums = self.purchases.sums();
        sums.admitted =
            queues.iter().map(|queue| queue.counters().admitted.load(Ordering::Relaxed)).sum();
        let before = std::mem::replace(&mut state.told, sums);
        let over = state.told_at.map_or(Duration::ZERO, |then| now.since(then));
        state.told_at = Some(now);
        Felt {
            over,
            asked: sums.asked - before.asked,
            served: sums.served - before.served,
            refused: sums.refused - before.refused,
            waited: sums.waited.saturating_sub(before.waited),
            waiting: sums.waiting,
            admitted: sums.admitted - before.admitted,
            age: sums.age.saturating_sub(before.age),
            aged: sums.aged - before.aged,
        }
    }
}

/// Whether as much time has passed as lies between two decisions.
fn is_due(last: Option<Timestamp>, now: Timestamp) -> bool {
    last.is_none_or(|last| now.0.abs_diff(last.0) >= DECISION_MS.unsigned_abs())
}

impl State {
    /// Whether this instance decides now.
    fn is_to_decide(&mut self, among: Among, now: Timestamp) -> bool {
        self.heard_since = match self.heard.is_empty() {
            true => None,
            false => self.heard_since.or(Some(now)),
        };
        let is_undecided = self
            .heard_since
            .is_some_and(|since| now.0.abs_diff(since.0) >= UNDECIDED_MS.unsigned_abs());
        let is_its_turn = match among {
            Among::Alone | Among::OthersAndTurn => true,
            Among::Others => is_undecided,
            Among::Nobody => false,
        };
        let is_of_use = !self.heard.is_empty() || self.governor.share() < 1.0;
        is_its_turn && is_of_use && is_due(self.decided_at, now)
    }

    fn hear(&mut self, id: u64, felt: Felt) {
        if self.heard.len() < INSTANCES_MAX || self.heard.contains_key(&id) {
            let so_far = self.heard.entry(id).or_default();
            *so_far = so_far.then(felt);
        }
    }

    fn decide(&self, queues: &[Arc<Queue>], now: Timestamp) -> Governor {
        let felt = self.heard.values().fold(Felt::default(), |all, felt| all.with(*felt));
        // The first tells of no time: it counts from then on.
        let over = self.decided_at.map_or(felt.over, |then| now.since(then));
        let felt = Felt { over, ..felt };
        let full = queues.iter().map(|queue| queue.admits_at_most(now)).sum();
        let mut governor = self.governor;
        governor.decide(felt, full);
        self.tell_of(governor, felt);
        governor
    }

    /// Whoever decides writes down what changes.
    fn tell_of(&self, governor: Governor, felt: Felt) {
        let is_slow = |reason| matches!(reason, Reason::Refusing | Reason::Waiting);
        let (before, after) = (self.governor.reason(), governor.reason());
        let share = (governor.share() * 1e3).round() / 1e3;
        if is_slow(after) && !is_slow(before) {
            tracing::warn!(
                governor.share = share,
                governor.reason = after.name(),
                purchases.asked = felt.asked,
                purchases.served = felt.served,
                purchases.refused = felt.refused,
                purchases.waiting = felt.waiting,
                purchases.wait_ms = millis(felt.wait()),
                "the shop cannot serve all who are let in; letting in fewer"
            );
        } else if after == Reason::Full && before != Reason::Full {
            tracing::info!("the shop serves all again; letting in at the full rate");
        }
    }

    fn adopt(&mut self, at: Timestamp, governor: Governor, queues: &[Arc<Queue>]) {
        self.governor = governor;
        self.decided_at = Some(at);
        self.heard.clear();
        self.heard_since = None;
        queues.iter().for_each(|queue| queue.govern(governor.share()));
    }
}
