//! The queues that instances share, as this instance has them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;

use crate::sequencer::queue::Queue;

/// The fewest numbers that a pool is to have.
const POOL_MIN: u64 = 64;
/// The most of them. With Redis they are lost, and whoever joins after that sees as many before them
/// until it is certain that nobody has them.
const POOL_MAX: u64 = 131_072;
/// The rate is a mean of about so many milliseconds: a rush counts after a moment, and its end is not
/// forgotten at once.
const RATE_MS: u64 = 2_000;

/// A queue, and how fast numbers of it are asked for.
pub(super) struct Member {
    pub(super) queue: Arc<Queue>,
    rush: Mutex<Rush>,
}

/// How fast numbers are given, by all instances together.
#[derive(Debug, Default)]
struct Rush {
    /// How many numbers Redis had given, and when it said so.
    counted: Option<(u64, Timestamp)>,
    /// Thousandths of a number a second.
    rate_milli: u64,
}

impl Rush {
    /// Redis has given so many numbers in all at `at`, by its own clock. What was measured covers the
    /// time that has passed, whether ticks come as they should or not.
    fn note(&mut self, given: u64, at: Timestamp) {
        let (before, since) = match self.counted {
            // A server that was restarted counts from the beginning.
            Some((before, since)) if before <= given && since <= at => (before, since),
            _ => {
                self.counted = Some((given, at));
                return;
            }
        };
        let passed_ms = at.0.abs_diff(since.0);
        if passed_ms == 0 {
            return;
        }
        self.counted = Some((given, at));
        let now_milli = (given - before).saturating_mul(1_000_000) / passed_ms;
        let rate = u128::from(self.rate_milli) * u128::from(RATE_MS)
            + u128::from(now_milli) * u128::from(passed_ms);
        let rate = rate / u128::from(RATE_MS + passed_ms);
        self.rate_milli = u64::try_from(rate).unwrap_or(u64::MAX);
    }

    /// How many numbers a pool is to have that lasts for `reserve`.
    fn pool(&self, reserve: Duration) -> u64 {
        let reserve_ms = u64::try_from(reserve.as_millis()).unwrap_or(u64::MAX);
        (self.rate_milli.saturating_mul(reserve_ms) / 1_000_000).clamp(POOL_MIN, POOL_MAX)
    }
}

impl Member {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, rush: Mutex::default() }
    }

    /// See [`Rush::note`].
    pub(super) fn note_given(&self, given: u64, at: Timestamp) {
        self.rush.lock().note(given, at);
    }

    /// How many numbers the pool is to have.
    pub(super) fn pool(&self, reserve: Duration) -> u64 {
        self.rush.lock().pool(reserve)
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

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVE: Duration = Duration::from_secs(30);

    /// The pool after steady joins, looked at in these intervals.
    fn pool_of(joins_a_second: u64, intervals_ms: &[i64]) -> u64 {
        let (mut rush, mut now) = (Rush::default(), 0);
        rush.note(0, Timestamp(now));
        for interval_ms in intervals_ms.iter().cycle().take(intervals_ms.len() * 200) {
            now += interval_ms;
            rush.note(now.unsigned_abs() * joins_a_second / 1000, Timestamp(now));
        }
        rush.pool(RESERVE)
    }

    #[test]
    fn a_pool_lasts_for_its_time_however_the_ticks_come() {
        for intervals_ms in [&[100][..], &[100, 3_000, 7], &[10_000]] {
            let pool = pool_of(100, intervals_ms);
            assert!((2_900..=3_100).contains(&pool), "{pool} by {intervals_ms:?}");
        }
        assert_eq!(pool_of(0, &[100]), POOL_MIN);
        assert_eq!(pool_of(1, &[100]), POOL_MIN);
        assert_eq!(pool_of(1_000_000, &[100]), POOL_MAX);
    }

    #[test]
    fn a_late_tick_is_no_rush_and_a_restart_is_none() {
        let mut rush = Rush::default();
        rush.note(1_000_000, Timestamp(5));
        assert_eq!(rush.pool(RESERVE), POOL_MIN);
        rush.note(7, Timestamp(105));
        rush.note(7, Timestamp(4));
        rush.note(1_000, Timestamp(4));
        assert_eq!(rush.pool(RESERVE), POOL_MIN);
        rush.note(1_030, Timestamp(10_004));
        assert!(rush.pool(RESERVE) < 3_500);
    }
}
