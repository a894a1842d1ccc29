//! The service's time: it never goes back and never jumps.
//!
//! Tickets, holds and admission are all decided by comparing times, so a wall clock that is set an
//! hour forward would end every hold at once, and one set back would stop admission. The service
//! reads the wall clock once at its start and then counts by the monotonic clock; small differences
//! are followed gently, large ones are reported and not followed until a restart. A restart goes on
//! no earlier than the latest time that the store has seen.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use boxoffice_domain::time::Timestamp;

/// A difference from the wall clock that is drift, to be followed. More is a jump.
const DRIFT_MAX_MS: i64 = 2_000;
/// How far one correction goes. Ten a second make one per cent, too little for anybody to notice.
const STEP_MS: i64 = 1;

/// The service's clock.
#[derive(Debug)]
pub struct Clock {
    anchor: Instant,
    /// The time at the anchor, corrections included, in milliseconds since 1970.
    base_ms: AtomicI64,
    jumped: AtomicBool,
}

/// What a look at the wall clock showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// It agrees, or nearly so.
    Followed,
    /// It has jumped since the last look, by so many milliseconds (ahead of us where positive).
    Jumped(i64),
    /// It is still away since an earlier jump.
    Away,
}

impl Clock {
    /// Starts at the wall clock's time, but no earlier than `floor`.
    pub fn start(floor: Timestamp) -> Self {
        let wall = wall_now();
        if wall < floor {
            let behind = floor.since(wall);
            tracing::warn!(
                behind.seconds = behind.as_secs(),
                "the wall clock is behind the store; going on from the store's time"
            );
        }
        Self::starting_at(wall.max(floor))
    }

    fn starting_at(now: Timestamp) -> Self {
        Self {
            anchor: Instant::now(),
            base_ms: AtomicI64::new(now.0),
            jumped: AtomicBool::new(false),
        }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// The time at a moment that was read a moment ago.
    pub fn at(&self, moment: Instant) -> Timestamp {
        self.after(moment.saturating_duration_since(self.anchor))
    }

    fn after(&self, elapsed: Duration) -> Timestamp {
        Timestamp(self.base_ms.load(Ordering::Relaxed)).plus(elapsed)
    }

    /// Looks at the wall clock and corrects by a millisecond at the most. Call it ten times a
    /// second.
    pub fn follow(&self) -> Drift {
        self.follow_to(wall_now(), self.anchor.elapsed())
    }

    fn follow_to(&self, wall: Timestamp, elapsed: Duration) -> Drift {
        let ahead_ms = wall.0.saturating_sub(self.after(elapsed).0);
        if ahead_ms.abs() > DRIFT_MAX_MS {
            return if self.jumped.swap(true, Ordering::Relaxed) {
                Drift::Away
            } else {
                Drift::Jumped(ahead_ms)
            };
        }
        self.jumped.store(false, Ordering::Relaxed);
        // Slowing down by 1 ms in 100 never makes the time go back between two looks, because the
        // monotonic part has moved on by more.
        self.base_ms.fetch_add(ahead_ms.clamp(-STEP_MS, STEP_MS), Ordering::Relaxed);
        Drift::Followed
    }
}

fn wall_now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(0).plus(since_1970)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn an_hour_forward_or_back_moves_nothing() {
        for jump_ms in [HOUR_MS, -HOUR_MS] {
            let clock = Clock::starting_at(Timestamp(10 * HOUR_MS));
            let mut before = clock.after(Duration::ZERO);
            for tick in 1..=100 {
                let elapsed = Duration::from_millis(100 * tick);
                let wall = Timestamp(10 * HOUR_MS).plus(elapsed);
                let wall = Timestamp(wall.0 + if tick > 50 { jump_ms } else { 0 });
                let drift = clock.follow_to(wall, elapsed);
                match tick {
                    ..=50 => assert_eq!(drift, Drift::Followed),
                    51 => assert_eq!(drift, Drift::Jumped(jump_ms)),
                    _ => assert_eq!(drift, Drift::Away),
                }
                let now = clock.after(elapsed);
                assert_eq!(now.since(before), Duration::from_millis(100));
                before = now;
            }
        }
    }

    #[test]
    fn drift_is_followed_without_ever_going_back() {
        let clock = Clock::starting_at(Timestamp(HOUR_MS));
        let mut before = clock.after(Duration::ZERO);
        for tick in 1..=3_000 {
            let elapsed = Duration::from_millis(100 * tick);
            clock.follow_to(Timestamp(HOUR_MS - 1_500).plus(elapsed), elapsed);
            assert!(clock.after(elapsed) > before);
            before = clock.after(elapsed);
        }
        assert_eq!(before.0, HOUR_MS - 1_500 + 300_000);
    }

    #[test]
    fn a_start_is_never_before_what_the_store_has_seen() {
        let future = Timestamp(wall_now().0 + HOUR_MS);
        assert!(Clock::start(future).now() >= future);
        assert!(Clock::start(Timestamp(0)).now() > Timestamp(0));
    }
}
