//! Solutions of challenges that were used, each until it is of no use any more.
//!
//! What does not belong here: what a challenge is, and whether it was solved; whoever asks knows that.

use std::collections::{BTreeMap, HashMap};

use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;

/// So many are remembered; with what a map needs beside them they are 80 MB at the most.
const SOLUTIONS_MAX: usize = 1_000_000;

/// They are forgotten together with those that end within the same time.
const SLOT_MS: i64 = 10_000;

/// For so long beyond its end a solution is remembered: the clock of another instance may be behind.
pub(super) const SLACK_MS: i64 = 5_000;

/// The solution of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solution {
    /// What makes it different from every other one.
    pub id: [u8; 16],
    /// From then on nobody accepts it.
    pub expires_at: Timestamp,
    /// By whom it is used, where a repetition by them is to be told from another use.
    pub by: Option<[u8; 16]>,
}

/// What a use of a solution is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The first one.
    First,
    /// A repetition of the first one.
    Again,
    /// Another one.
    Another,
    /// One that cannot be told from others, because too many are remembered.
    Unknown,
}

/// Stands for somebody who is not told from others.
pub(super) const NOBODY: [u8; 16] = [0; 16];

impl Solution {
    /// A use by whoever this is, where `first` was the first one.
    pub(super) fn after(&self, first: [u8; 16]) -> Use {
        match self.by {
            Some(by) if by == first && first != NOBODY => Use::Again,
            _ => Use::Another,
        }
    }
}

/// Solutions that were used.
#[derive(Debug)]
pub(super) struct Solutions {
    max: usize,
    used: Mutex<Used>,
}

/// By slot of time, and by whom.
#[derive(Debug, Default)]
struct Used {
    slots: BTreeMap<i64, HashMap<[u8; 16], [u8; 16]>>,
    count: usize,
}

impl Default for Solutions {
    fn default() -> Self {
        Self::with_room_for(SOLUTIONS_MAX)
    }
}

impl Solutions {
    fn with_room_for(max: usize) -> Self {
        Self { max, used: Mutex::default() }
    }

    /// Uses a solution.
    pub(super) fn take(&self, solution: &Solution, now: Timestamp) -> Use {
        let mut used = self.used.lock();
        let over = now.0.saturating_sub(SLACK_MS).div_euclid(SLOT_MS);
        while let Some(first) = used.slots.first_entry().filter(|slot| *slot.key() < over) {
            let forgotten = first.remove().len();
            used.count -= forgotten;
        }
        let slot = solution.expires_at.0.div_euclid(SLOT_MS);
        if let Some(first) = used.slots.get(&slot).and_then(|slot| slot.get(&solution.id)) {
            return solution.after(*first);
        }
        if used.count >= self.max {
            return Use::Unknown;
        }
        used.count += 1;
        let by = solution.by.unwrap_or(NOBODY);
        used.slots.entry(slot).or_default().insert(solution.id, by);
        Use::First
    }

    /// This is who used a solution first.
    pub(super) fn correct(&self, solution: &Solution, by: [u8; 16]) {
        let slot = solution.expires_at.0.div_euclid(SLOT_MS);
        let mut used = self.used.lock();
        if let Some(first) = used.slots.get_mut(&slot).and_then(|slot| slot.get_mut(&solution.id)) {
            *first = by;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn solution(id: u8, expires_at: i64, by: Option<u8>) -> Solution {
        let by = by.map(|by| [by; 16]);
        Solution { id: [id; 16], expires_at: Timestamp(expires_at), by }
    }

    #[test]
    fn a_solution_is_good_once_and_for_a_repetition_by_the_same() {
        let used = Solutions::default();
        let take = |id, by| used.take(&solution(id, 60_000, by), Timestamp(0));
        assert_eq!(take(1, Some(7)), Use::First);
        assert_eq!(take(1, Some(7)), Use::Again);
        assert_eq!(take(1, Some(8)), Use::Another);
        assert_eq!(take(1, None), Use::Another);
        assert_eq!(take(2, None), Use::First);
        assert_eq!(take(2, None), Use::Another);
        assert_eq!(take(2, Some(0)), Use::Another);
    }

    #[test]
    fn what_is_full_refuses_and_forgets_only_what_has_ended() {
        let used = Solutions::with_room_for(2);
        let take = |id, ends, now| used.take(&solution(id, ends, None), Timestamp(now));
        assert_eq!(take(1, 60_000, 0), Use::First);
        assert_eq!(take(2, 90_000, 0), Use::First);
        assert_eq!(take(3, 90_000, 0), Use::Unknown);
        assert_eq!(take(1, 60_000, 0), Use::Another);
        // It ends, and is remembered for a while.
        assert_eq!(take(1, 60_000, 60_000 + SLACK_MS), Use::Another);
        assert_eq!(take(3, 90_000, 60_000 + SLACK_MS), Use::Unknown);
        assert_eq!(take(3, 90_000, 70_000 + SLACK_MS), Use::First);
        assert_eq!(take(2, 90_000, 70_000 + SLACK_MS), Use::Another);
        assert_eq!(take(4, 200_000, 100_000 + SLACK_MS), Use::First);
        let kept = used.used.lock();
        assert_eq!((kept.count, kept.slots.len()), (1, 1));
    }
}
