//! How fast a queue admits.

use std::time::Duration;

use crate::time::Timestamp;

/// A token bucket: credit grows with time at the queue's rate, and an admission takes from it.
///
/// It holds half a second's worth at the most (and always at least two), so that a stall of the
/// service or an idle line is not followed by a burst: admission is smooth by intent, and a system
/// that is too slow to tick is too slow to admit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// In millionths of an admission: a whole number, because ten times 0.1 must be one.
    credit_micro: u64,
    filled_at: Option<Timestamp>,
}

/// One admission, in the unit of the credit.
const ONE_MICRO: u64 = 1_000_000;

impl Bucket {
    const CAPACITY: Duration = Duration::from_millis(500);

    /// A bucket as it was stored: its credit in millionths of an admission, and when it was filled
    /// last.
    pub const fn restore(credit_micro: u64, filled_at: Option<Timestamp>) -> Self {
        Self { credit_micro, filled_at }
    }

    /// What to store of it: the credit in millionths of an admission, and when it was filled last.
    pub const fn state(&self) -> (u64, Option<Timestamp>) {
        (self.credit_micro, self.filled_at)
    }

    /// Adds the credit of the time since the last call; returns how many whole admissions it covers.
    /// Rates count to the thousandth of an admission a second.
    pub fn fill(&mut self, admit_per_second: f64, now: Timestamp) -> u64 {
        // A float turns into the nearest integer that fits, so a hostile rate cannot overflow.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rate_milli = (admit_per_second * 1000.0).round() as u64;
        let gained = |time: Duration| {
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            rate_milli.saturating_mul(ms)
        };
        let elapsed = self.filled_at.map_or(Duration::ZERO, |then| now.since(then));
        // A clock that went back must not stop admission until it has caught up, nor give credit
        // twice: the new time is where counting goes on.
        self.filled_at = Some(now);
        let capacity = gained(Self::CAPACITY).max(2 * ONE_MICRO);
        self.credit_micro = self.credit_micro.saturating_add(gained(elapsed)).min(capacity);
        self.credit_micro / ONE_MICRO
    }

    /// Takes the credit of `admitted` admissions.
    pub fn spend(&mut self, admitted: u64) {
        self.credit_micro = self.credit_micro.saturating_sub(admitted.saturating_mul(ONE_MICRO));
    }

    /// Forgets all credit, as when the gate is shut: opening it must not start with a burst.
    pub fn empty(&mut self, now: Timestamp) {
        self.credit_micro = 0;
        self.filled_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_run_rate_is_exact_and_steps_are_smooth() {
        for rate in [0.5, 1.0, 7.0, 300.0, 2999.0] {
            let mut bucket = Bucket::default();
            let (mut total, mut largest) = (0, 0);
            for tick in 0..=1000 {
                let admitted = bucket.fill(rate, Timestamp(tick * 100));
                bucket.spend(admitted);
                total += admitted;
                largest = largest.max(admitted);
            }
            assert!((total as f64 - rate * 100.0).abs() <= 1.0, "{rate}: {total}");
            assert!(largest as f64 <= rate / 10.0 + 1.0, "{rate}: a step of {largest}");
        }
    }

    #[test]
    fn a_bucket_goes_on_where_it_was_stored() {
        let mut bucket = Bucket::default();
        bucket.fill(7.0, Timestamp(1_000));
        bucket.fill(7.0, Timestamp(1_250));
        let (credit_micro, filled_at) = bucket.state();
        assert_eq!((credit_micro, filled_at), (1_750_000, Some(Timestamp(1_250))));
        let mut again = Bucket::restore(credit_micro, filled_at);
        assert_eq!(again, bucket);
        assert_eq!(again.fill(7.0, Timestamp(1_300)), bucket.fill(7.0, Timestamp(1_300)));
        assert_eq!(Bucket::restore(0, None), Bucket::default());
    }

    #[test]
    fn a_stall_is_not_followed_by_a_burst() {
        let mut bucket = Bucket::default();
        bucket.fill(300.0, Timestamp(0));
        assert_eq!(bucket.fill(300.0, Timestamp(3_600_000)), 150);
    }

    #[test]
    fn a_clock_that_goes_back_gives_no_credit_and_stops_nothing() {
        let mut bucket = Bucket::default();
        bucket.fill(10.0, Timestamp(5_000_000));
        assert_eq!(bucket.fill(10.0, Timestamp(1_000_000)), 0);
        assert_eq!(bucket.fill(10.0, Timestamp(1_000_100)), 1);
    }
}
