//! Time that the database vouches for: how far this instance's clock is from the database's.
//!
//! Instances decide by their own clocks who is admitted, which sale is open and which hold is over. A
//! clock that is wrong would admit early, or keep everybody waiting once its instance has ended. So
//! each instance compares its clock with the one that all of them share, and does nothing that
//! depends on time while the two are too far apart.

use std::time::Duration;

use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;

use crate::Fault;
use crate::planted::{Bug, planted};

/// How far an instance's clock may be from the database's, in milliseconds.
pub const CLOCK_BOUND_MS: i64 = 1_000;

/// How this instance's clock compares with the database's.
#[derive(Debug, Default)]
pub struct ClockCheck(Mutex<Option<Measured>>);

#[derive(Clone, Copy, Debug)]
struct Measured {
    /// How far the clock here is ahead, in milliseconds.
    ahead_ms: i64,
    /// By how much that may be wrong: half of the time that the question took.
    give_or_take_ms: i64,
}

impl ClockCheck {
    /// Notes an answer: the database had the time `database` at a moment between `asked`, by the clock
    /// here, and `took` later.
    pub fn note(&self, asked: Timestamp, took: Duration, database: Timestamp) {
        let half_ms = i64::try_from(took.as_millis() / 2).unwrap_or(i64::MAX / 4);
        let here = asked.0.saturating_add(half_ms);
        let ahead_ms = here.saturating_sub(database.0);
        *self.0.lock() = Some(Measured { ahead_ms, give_or_take_ms: half_ms });
    }

    /// How far the clock here is ahead of the database's, in milliseconds, as measured last.
    pub fn ahead_ms(&self) -> Option<i64> {
        self.0.lock().map(|measured| measured.ahead_ms)
    }

    /// How many milliseconds to take from the clock here to have the database's time, as far as that is
    /// known.
    ///
    /// # Errors
    /// Where the two are too far apart; the text says by how much.
    pub fn correction_ms(&self) -> Result<i64, Fault> {
        let Some(Measured { ahead_ms, give_or_take_ms }) =
            self.0.lock().filter(|_| !planted(Bug::ClockUnchecked))
        else {
            return Ok(0);
        };
        if ahead_ms.saturating_abs().saturating_sub(give_or_take_ms) > CLOCK_BOUND_MS {
            let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
            #[allow(clippy::cast_precision_loss)]
            let seconds = ahead_ms.unsigned_abs() as f64 / 1000.0;
            return Err(Fault::Unavailable(format!(
                "this instance's clock is {seconds:.1} s {side} the database's: set both by NTP, and \
                 restart the instance"
            )));
        }
        // A correction that may be wrong by more than the difference is none.
        Ok(if ahead_ms.abs() > give_or_take_ms { ahead_ms } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    /// The correction where the database has answered after `took_ms` that it is `database` ms later than
    /// the question was asked.
    fn correction(took_ms: u64, database: i64) -> Result<i64, String> {
        let time = ClockCheck::default();
        time.note(NOW, Duration::from_millis(took_ms), Timestamp(NOW.0 + database));
        time.correction_ms().map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_databases_time_counts_as_long_as_it_is_near() {
        assert_eq!(ClockCheck::default().correction_ms().ok(), Some(0));
        assert_eq!(correction(2, 1), Ok(0));
        assert_eq!(correction(0, 1_000), Ok(-1_000));
        assert_eq!(correction(0, -1_000), Ok(1_000));
        // Asked for a second, it may have answered at any moment of it.
        assert_eq!(correction(1_000, 0), Ok(0));
        assert_eq!(correction(1_000, 1_000), Ok(0));
        assert_eq!(correction(1_000, 1_900), Ok(-1_400));
    }

    #[test]
    fn a_clock_that_is_too_far_away_is_told_how_far() {
        for (took_ms, database, text) in [
            (0, -1_001, "1.0 s ahead of"),
            (0, 3_200, "3.2 s behind"),
            (1_000, 2_001, "1.5 s behind"),
            (2, -3_600_000, "3600.0 s ahead of"),
            (2, 365 * 86_400_000, "31536000.0 s behind"),
        ] {
            let Err(why) = correction(took_ms, database) else { panic!("{database} is near") };
            assert!(why.contains(text), "{why}");
        }
    }
}
