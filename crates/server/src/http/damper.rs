//! Lets something through now and then, and counts what it holds back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lets one through at once, and one more each time that the interval is over.
#[derive(Debug)]
pub(super) struct Damper {
    began: Instant,
    interval: Duration,
    /// When the next one may pass, in milliseconds since the beginning.
    next_ms: AtomicU64,
    held_back: AtomicU64,
}

impl Damper {
    /// A damper that begins now.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            began: Instant::now(),
            interval,
            next_ms: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// Where this one may pass: how many were held back since the last one that did.
    pub(super) fn pass(&self, now: Instant) -> Option<u64> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now_ms = millis(now.saturating_duration_since(self.began));
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let then_ms = now_ms.saturating_add(millis(self.interval));
        // Of those who come at once, the one that moves the time forward passes.
        let passes = now_ms >= next_ms
            && self
                .next_ms
                .compare_exchange(next_ms, then_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if passes {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_passes_and_then_one_in_each_interval() {
        let damper = Damper::new(Duration::from_secs(1));
        let at = |ms| damper.began + Duration::from_millis(ms);
        let passed = [0, 1, 999, 1_000, 1_500, 5_000, 5_000, 6_000].map(|ms| damper.pass(at(ms)));
        assert_eq!(passed, [Some(0), None, None, Some(2), None, Some(1), None, Some(1)]);
    }
}
