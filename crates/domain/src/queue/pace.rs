//! What a waiting fan is told: how long it may take, and when to ask again.

use std::time::Duration;

use super::{Gate, QueueSettings};
use crate::time::Timestamp;

/// The shortest interval between two polls.
const POLL_MIN: Duration = Duration::from_secs(1);
/// The longest one. A fan far back learns of a pause or a new rate within this time.
const POLL_MAX: Duration = Duration::from_secs(30);
/// A poll is asked for after this part of the expected wait, so that somebody an hour away asks
/// seldom and somebody who is nearly there asks every second.
const POLL_PART: u32 = 10;

/// How long the ticket with waiting number `number` is likely to wait, in whole seconds rounded
/// up; `None` while the queue is paused, because nobody knows.
pub fn eta(number: u64, settings: &QueueSettings, now: Timestamp) -> Option<Duration> {
    let opens_in = match settings.gate(now) {
        Gate::Open => Duration::ZERO,
        Gate::Scheduled(at) => at.since(now),
        Gate::Paused => return None,
    };
    #[allow(clippy::cast_precision_loss)]
    let wait = number as f64 / settings.admit_per_second + opens_in.as_secs_f64();
    // A line of 2^64 at the smallest rate is longer than a Duration. The bound holds for shorter
    // waits too, or else somebody behind such a wait would be told less than somebody before it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let seconds = wait.ceil().min(f64::from(u32::MAX)) as u64;
    Some(Duration::from_secs(seconds))
}

/// When to poll again, for an expected wait of `eta`. `jitter`, any number, spreads the crowd over
/// a tenth of the interval; the result is never below one second.
pub fn poll_after(eta: Option<Duration>, jitter: u64) -> Duration {
    let (base, spread_ms) = interval(eta);
    base + Duration::from_millis(jitter % (spread_ms + 1))
}

/// The longest that [`poll_after`] tells anybody for an expected wait of `eta`.
pub(super) fn poll_after_max(eta: Option<Duration>) -> Duration {
    let (base, spread_ms) = interval(eta);
    base + Duration::from_millis(spread_ms)
}

/// The interval for an expected wait of `eta`, and by how many milliseconds it is spread.
fn interval(eta: Option<Duration>) -> (Duration, u64) {
    let base = eta.map_or(POLL_MAX, |eta| (eta / POLL_PART).clamp(POLL_MIN, POLL_MAX));
    (base, base.as_millis() as u64 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(admit_per_second: f64) -> QueueSettings {
        QueueSettings {
            admit_per_second,
            max_active: None,
            active_ttl: Duration::from_secs(300),
            claim_window: Duration::from_secs(30),
            opens_at: None,
            paused: false,
        }
    }

    #[test]
    fn eta_table() {
        let seconds = |number, rate| eta(number, &settings(rate), Timestamp(0)).unwrap().as_secs();
        assert_eq!(seconds(1, 300.0), 1);
        assert_eq!(seconds(300, 300.0), 1);
        assert_eq!(seconds(301, 300.0), 2);
        assert_eq!(seconds(10, 0.5), 20);
        assert_eq!(seconds(u64::MAX, f64::MIN_POSITIVE), u32::MAX.into());
    }

    #[test]
    fn eta_counts_the_time_until_opening_and_knows_nothing_of_a_pause() {
        let mut settings = settings(10.0);
        settings.opens_at = Some(Timestamp(60_000));
        assert_eq!(eta(20, &settings, Timestamp(0)), Some(Duration::from_secs(62)));
        settings.paused = true;
        assert_eq!(eta(20, &settings, Timestamp(0)), None);
    }

    #[test]
    fn polls_are_never_faster_than_a_second_and_spread() {
        for eta_s in [0, 1, 5, 10, 11, 100, 300, 10_000] {
            for jitter in [0, 1, 99, 100, u64::MAX] {
                let after = poll_after(Some(Duration::from_secs(eta_s)), jitter);
                assert!(after >= POLL_MIN && after <= POLL_MAX * 11 / 10, "{eta_s} {jitter}");
            }
        }
        assert!(
            poll_after(Some(Duration::from_secs(200)), 0)
                > poll_after(Some(Duration::from_secs(50)), 0)
        );
        assert_eq!(poll_after(None, 0), POLL_MAX);
    }
}
