//! When a waiting fan is to ask again.

use std::time::Duration;

use super::{Gate, QueueSettings};
use crate::time::Timestamp;

/// The shortest interval between two polls, unless the claim window is shorter than three of them.
const POLL_MIN: Duration = Duration::from_secs(1);
/// The longest one, however long the claim window is.
const POLL_MAX: Duration = Duration::from_secs(33);
/// Polls are asked for so often that somebody who misses one, and has the next one on its way, still
/// comes within the claim window.
const POLLS_PER_CLAIM_WINDOW: u32 = 3;
/// A poll is asked for after this part of the expected wait, so that somebody who is nearly there
/// asks every second.
const POLL_PART: u32 = 10;
/// The longest interval while the line may begin to move at any moment.
const WAKE: Duration = Duration::from_secs(5);
/// An opening is near from here on.
const OPENING_NEAR: Duration = Duration::from_secs(30);

/// When to poll again, for an expected wait of `eta`: after a tenth of it, within a second and a third of
/// the claim window, and within 5 s while the queue is paused or about to open. `jitter`, any number,
/// spreads the crowd over a tenth of the interval; before an opening over half of it, so that whatever
/// made a crowd march in step is forgotten when it opens.
pub fn poll_after(
    eta: Option<Duration>,
    settings: &QueueSettings,
    now: Timestamp,
    jitter: u64,
) -> Duration {
    let longest = poll_after_max(settings);
    let is_waking = match settings.gate(now) {
        Gate::Open => false,
        Gate::Paused => true,
        Gate::Scheduled(at) => at.since(now) <= OPENING_NEAR,
    };
    let (base, spread) = if is_waking {
        let longest = longest.min(WAKE);
        let base = (longest / 2).max(POLL_MIN).min(longest);
        (base, longest - base)
    } else {
        let base = longest * 10 / 11;
        let base = eta.map_or(base, |eta| (eta / POLL_PART).max(POLL_MIN).min(base));
        (base, base / 10)
    };
    base + Duration::from_millis(jitter % (spread.as_millis() as u64 + 1))
}

/// The longest that [`poll_after`] tells anybody.
pub(super) fn poll_after_max(settings: &QueueSettings) -> Duration {
    (settings.claim_window / POLLS_PER_CLAIM_WINDOW).min(POLL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn settings() -> QueueSettings {
        QueueSettings {
            admit_per_second: 10.0,
            max_active: None,
            active_ttl: Duration::from_secs(300),
            claim_window: Duration::from_secs(30),
            opens_at: None,
            paused: false,
        }
    }

    /// The shortest and the longest interval, in milliseconds, for an expected wait in seconds.
    fn told(eta_s: Option<u64>, settings: &QueueSettings) -> (u128, u128) {
        let told =
            |jitter| poll_after(eta_s.map(Duration::from_secs), settings, NOW, jitter).as_millis();
        let all = (0..=6_000).map(told);
        (all.clone().min().unwrap(), all.max().unwrap())
    }

    #[test]
    fn intervals_by_expected_wait() {
        for (eta_s, expected) in [
            (Some(0), (1_000, 1_100)),
            (Some(10), (1_000, 1_100)),
            (Some(50), (5_000, 5_500)),
            (Some(100), (9_090, 9_999)),
            (Some(u64::MAX / 2), (9_090, 9_999)),
            (None, (9_090, 9_999)),
        ] {
            assert_eq!(told(eta_s, &settings()), expected, "{eta_s:?}");
        }
    }

    #[test]
    fn a_long_claim_window_lets_people_ask_seldom_and_a_short_one_often() {
        let with = |claim_window_s| QueueSettings {
            claim_window: Duration::from_secs(claim_window_s),
            ..settings()
        };
        assert_eq!(told(None, &with(3_600)), (30_000, 33_000));
        assert_eq!(told(Some(120), &with(3_600)), (12_000, 13_200));
        assert_eq!(
            told(Some(120), &with(2)).1,
            666,
            "a third of it, though that is below a second"
        );
        assert_eq!(told(Some(0), &with(1)).1, 333);
    }

    #[test]
    fn whoever_may_be_let_in_at_any_moment_asks_within_five_seconds_and_not_in_step() {
        let paused = QueueSettings { paused: true, ..settings() };
        assert_eq!(told(None, &paused), (2_500, 5_000));
        let opens_in = |ms| QueueSettings { opens_at: Some(Timestamp(NOW.0 + ms)), ..settings() };
        assert_eq!(told(Some(3_600), &opens_in(30_000)), (2_500, 5_000));
        assert_eq!(told(Some(3_600), &opens_in(1)), (2_500, 5_000));
        assert_eq!(told(Some(3_600), &opens_in(30_001)), (9_090, 9_999));
        assert_eq!(told(Some(3_600), &opens_in(-1)), (9_090, 9_999));
        let short = QueueSettings { claim_window: Duration::from_secs(6), ..paused };
        assert_eq!(told(None, &short), (1_000, 2_000));
    }
}
