//! The queues that instances share, as this instance has them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use boxoffice_domain::ids::QueueName;

use crate::sequencer::queue::Queue;

/// A block of numbers lasts, at the rate at which joins come, as long as so many fetches of one take,
/// but at least and at most so many milliseconds. What is left of it is lost with Redis, so it is no
/// longer than it has to be.
const BLOCK_FETCHES: u64 = 16;
const BLOCK_MS_MIN: u64 = 100;
const BLOCK_MS_MAX: u64 = 2_000;
/// The fewest numbers of a block.
const BLOCK_MIN: u64 = 64;
/// The most numbers of a block.
const BLOCK_MAX: u64 = 1_000_000;
/// Who is missing in Redis is missed after so many seconds; see the script `join`.
const MISSED_SECONDS: u64 = 4;
/// How often a tick comes.
const TICKS_PER_SECOND: u64 = 10;

/// A queue, and how fast numbers of it are asked for.
pub(super) struct Member {
    pub(super) queue: Arc<Queue>,
    /// Numbers a second, of all instances together.
    rate: AtomicU64,
    /// How many numbers Redis has given, and had at the tick before.
    given: AtomicU64,
    /// See `given`.
    given_before: AtomicU64,
    /// The highest number that was given without the store, as far as this instance has heard.
    unsecured: AtomicU64,
    /// How long it takes this instance to fetch a block, in microseconds.
    fetch_us: AtomicU64,
}

impl Member {
    pub(super) const fn new(queue: Arc<Queue>) -> Self {
        Self {
            queue,
            rate: AtomicU64::new(0),
            given: AtomicU64::new(0),
            given_before: AtomicU64::new(0),
            unsecured: AtomicU64::new(0),
            fetch_us: AtomicU64::new(0),
        }
    }

    /// Redis has given so many numbers in all.
    pub(super) fn set_given(&self, given: u64) {
        self.given.store(given, Ordering::Relaxed);
    }

    /// Measures the rate, once in a tick: a mean of about half a second.
    pub(super) fn measure(&self) {
        let given = self.given.load(Ordering::Relaxed);
        let before = self.given_before.swap(given, Ordering::Relaxed);
        let rate = self.rate.load(Ordering::Relaxed);
        // An instance that has just come does not know since when.
        let since = if before == 0 { given } else { before };
        let last = given.saturating_sub(since) * TICKS_PER_SECOND;
        self.rate.store((rate * 4 + last) / 5, Ordering::Relaxed);
    }

    /// How many numbers a block has at the moment.
    pub(super) fn block(&self) -> u64 {
        let fetches_ms = self.fetch_us.load(Ordering::Relaxed) * BLOCK_FETCHES / 1000;
        let block_ms = fetches_ms.clamp(BLOCK_MS_MIN, BLOCK_MS_MAX);
        (self.rate.load(Ordering::Relaxed) * block_ms / 1000).clamp(BLOCK_MIN, BLOCK_MAX)
    }

    /// How many numbers to fetch where `count` are asked for at once.
    pub(super) fn block_for(&self, count: u64) -> u64 {
        self.block().max(count * 8).min(BLOCK_MAX.max(count))
    }

    /// The joins of the time after which an instance is missed.
    pub(super) fn missed(&self) -> u64 {
        (self.rate.load(Ordering::Relaxed) * MISSED_SECONDS).clamp(2 * BLOCK_MIN, 2 * BLOCK_MAX)
    }

    /// A fetch took so long: a mean of about four of them.
    pub(super) fn fetched(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / BLOCK_FETCHES);
        let before = self.fetch_us.load(Ordering::Relaxed);
        self.fetch_us.store(before - before / 4 + took_us / 4, Ordering::Relaxed);
    }

    /// Numbers up to here were given without the store.
    pub(super) fn learn_unsecured(&self, upto: u64) {
        self.unsecured.fetch_max(upto, Ordering::Relaxed);
    }

    /// Whether any number was given without the store.
    pub(super) fn has_unsecured(&self) -> bool {
        self.unsecured.load(Ordering::Relaxed) > 0
    }

    /// Numbers up to here may have been given.
    pub(super) fn highest_given(&self) -> u64 {
        self.queue.next().max(self.unsecured.load(Ordering::Relaxed))
    }
}

/// The queues by name.
pub(super) type ByName = BTreeMap<QueueName, Arc<Member>>;

/// Every queue. More may come, none goes.
#[derive(Default)]
pub(super) struct Members(ArcSwap<ByName>);

impl Members {
    pub(super) fn all(&self) -> Arc<ByName> {
        self.0.load_full()
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Member>> {
        self.0.load().get(name).cloned()
    }

    pub(super) fn queues(&self) -> Vec<Arc<Queue>> {
        self.0.load().values().map(|member| member.queue.clone()).collect()
    }

    /// Adds a queue, unless there is one of its name. Returns whether it is new.
    pub(super) fn add(&self, member: &Arc<Member>) -> bool {
        let name = member.queue.name();
        let mut new = false;
        self.0.rcu(|members| {
            // Two that ask at once may both have read of it.
            new = !members.contains_key(name);
            let mut members = BTreeMap::clone(members);
            members.entry(name.clone()).or_insert_with(|| member.clone());
            members
        });
        new
    }
}
