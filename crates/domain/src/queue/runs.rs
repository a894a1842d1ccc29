//! Sets of numbers as runs, as they stand in the admission log.

use std::collections::BTreeMap;

use roaring::RoaringTreemap;

/// A set of numbers, as runs that neither overlap nor touch. What it takes depends on the number of runs and
/// not on their lengths, so that a log that somebody made up cannot fill the memory of whoever checks it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(BTreeMap<u64, u64>);

impl Runs {
    /// No numbers.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are; no more than a `u64` holds.
    pub fn count(&self) -> u64 {
        self.iter()
            .fold(0, |sum: u64, (first, last)| sum.saturating_add(last - first).saturating_add(1))
    }

    /// The runs in order: the first and the last number of each.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// The lowest and the highest number.
    pub fn bounds(&self) -> Option<(u64, u64)> {
        Some((*self.0.first_key_value()?.0, *self.0.last_key_value()?.1))
    }

    /// Whether a number is in it.
    pub fn contains(&self, seq: u64) -> bool {
        self.contains_run(seq, seq)
    }

    /// Whether all numbers from `first` to `last` are in it.
    pub fn contains_run(&self, first: u64, last: u64) -> bool {
        self.0.range(..=first).next_back().is_some_and(|(_, end)| last <= *end)
    }

    /// Whether the two have a number in common.
    pub fn meets(&self, other: &Self) -> bool {
        let (few, many) = if self.0.len() < other.0.len() { (self, other) } else { (other, self) };
        few.iter().any(|(first, last)| {
            many.0.range(..=last).next_back().is_some_and(|(_, end)| first <= *end)
        })
    }

    /// Adds the numbers from `first` to `last`. Returns false, and adds nothing, where they are no run or
    /// one of them is there already.
    pub fn add(&mut self, first: u64, last: u64) -> bool {
        let before = self.0.range(..=last).next_back().map(|(first, last)| (*first, *last));
        if first > last || before.is_some_and(|(_, end)| end >= first) {
            return false;
        }
        let begin = match before {
            Some((begin, end)) if end + 1 == first => begin,
            _ => first,
        };
        let after = last.checked_add(1).and_then(|next| self.0.remove(&next));
        self.0.insert(begin, after.unwrap_or(last));
        true
    }

    /// Takes the numbers from `first` to `last` out. Returns false, and takes nothing, where one of them is
    /// not there.
    pub fn take(&mut self, first: u64, last: u64) -> bool {
        if first > last || !self.contains_run(first, last) {
            return false;
        }
        let Some((begin, end)) =
            self.0.range(..=first).next_back().map(|(begin, end)| (*begin, *end))
        else {
            return false;
        };
        self.0.remove(&begin);
        if begin < first {
            self.0.insert(begin, first - 1);
        }
        if last < end {
            self.0.insert(last + 1, end);
        }
        true
    }
}

impl From<&RoaringTreemap> for Runs {
    fn from(set: &RoaringTreemap) -> Self {
        let mut runs = BTreeMap::new();
        let mut left = set.iter().peekable();
        while let Some(first) = left.next() {
            let mut last = first;
            while let Some(next) = left.next_if(|next| *next == last + 1) {
                last = next;
            }
            runs.insert(first, last);
        }
        Self(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(of: &[(u64, u64)]) -> Runs {
        let mut runs = Runs::new();
        for (first, last) in of {
            assert!(runs.add(*first, *last), "{first} to {last}");
        }
        runs
    }

    #[test]
    fn runs_grow_together_and_fall_apart() {
        let mut set = runs(&[(5, 7), (1, 2), (9, 9)]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(1, 2), (5, 7), (9, 9)]);
        assert_eq!((set.count(), set.bounds()), (6, Some((1, 9))));
        for (first, last) in [(2, 3), (7, 7), (6, 8), (0, 1), (9, 10), (0, 20), (4, 3)] {
            assert!(!set.add(first, last), "{first} to {last}");
        }
        assert!(set.add(8, 8) && set.add(3, 4));
        assert_eq!(set.iter().collect::<Vec<_>>(), [(1, 9)]);
        for (first, last) in [(0, 1), (9, 10), (10, 10), (5, 4)] {
            assert!(!set.take(first, last), "{first} to {last}");
        }
        assert!(set.take(4, 6) && set.take(1, 1) && set.take(9, 9));
        assert_eq!(set.iter().collect::<Vec<_>>(), [(2, 3), (7, 8)]);
        assert!(set.contains(3) && !set.contains(4) && set.contains_run(7, 8));
        assert!(!set.contains_run(3, 7));
        assert!(set.take(2, 3) && set.take(7, 8) && set.is_empty());
    }

    #[test]
    fn two_sets_meet_where_they_share_a_number() {
        let set = runs(&[(3, 5), (10, 20)]);
        for (other, meets) in
            [((1, 2), false), ((1, 3), true), ((5, 9), true), ((6, 9), false), ((20, 30), true)]
        {
            let other = runs(&[other]);
            assert_eq!((set.meets(&other), other.meets(&set)), (meets, meets), "{other:?}");
        }
        assert!(!set.meets(&Runs::new()) && !Runs::new().meets(&set));
    }

    #[test]
    fn a_run_may_end_with_the_last_number() {
        let mut set = runs(&[(u64::MAX, u64::MAX), (0, 0)]);
        assert!(!set.add(u64::MAX, u64::MAX) && set.add(1, u64::MAX - 1));
        assert_eq!((set.iter().len(), set.count()), (1, u64::MAX));
    }

    #[test]
    fn runs_are_made_of_sets() {
        let set = RoaringTreemap::from_iter([1, 2, 3, 7, 1 << 40]);
        assert_eq!(Runs::from(&set), runs(&[(1, 3), (7, 7), (1 << 40, 1 << 40)]));
    }
}
