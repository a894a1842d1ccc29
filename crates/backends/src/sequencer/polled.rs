//! Who has polled since the last tick: a bit for each number near the head, set by polls without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One bit for each number of a stretch of the line, in a ring: the stretch moves on, and the bits stay
/// where they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Polled {
    words: Arc<[AtomicU64]>,
    /// The stretch: the numbers above this,
    from: u64,
    /// up to and with this.
    upto: u64,
}

impl Polled {
    /// The owner of `seq` has polled. Numbers outside the stretch are nobody's business.
    pub(super) fn note(&self, seq: u64) {
        if seq <= self.from || seq > self.upto {
            return;
        }
        let (word, bit) = self.place(seq);
        // Most have polled before: a read leaves the line of the cache where others have it, too.
        if let Some(word) = self.words.get(word)
            && word.load(Ordering::Relaxed) & bit == 0
        {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn place(&self, seq: u64) -> (usize, u64) {
        // The length is a power of two, so this is the number modulo the bits.
        let word = (seq / 64) as usize & self.words.len().wrapping_sub(1);
        (word, 1 << (seq % 64))
    }

    /// Who has polled since the last call; then it begins anew.
    pub(super) fn take(&self) -> Vec<u64> {
        let mut seqs = Vec::new();
        let words = self.words.len() as u64;
        if words == 0 {
            return seqs;
        }
        // Word by word as the stretch goes, so that the numbers rise.
        for row in self.from / 64..=self.upto / 64 {
            let (word, _) = self.place(row * 64);
            let word = &self.words[word];
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::Relaxed);
            while bits != 0 {
                let seq = row * 64 + u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                if seq > self.from && seq <= self.upto {
                    seqs.push(seq);
                }
            }
        }
        seqs
    }

    /// The stretch is another one from now on; `None` where it is the same. Bits of numbers in both stay.
    pub(super) fn moved(&self, from: u64, upto: u64) -> Option<Self> {
        if (from, upto) == (self.from, self.upto) {
            return None;
        }
        let words = if upto <= from { 0 } else { (upto / 64 - from / 64 + 1).next_power_of_two() };
        let kept = self.words.len() as u64;
        // It gets smaller only where that is worth it.
        let words = if words <= kept && kept <= words.saturating_mul(8).max(64) {
            self.words.clone()
        } else {
            (0..words).map(|_| AtomicU64::new(0)).collect()
        };
        // A bit of a number that was left behind would be that of a later one.
        let left = (self.from / 64..from / 64).take(self.words.len());
        left.for_each(|row| self.words[self.place(row * 64).0].store(0, Ordering::Relaxed));
        let moved = Self { words, from, upto };
        if !Arc::ptr_eq(&moved.words, &self.words) {
            self.take().into_iter().for_each(|seq| moved.note(seq));
        }
        Some(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(polled: &Polled, from: u64, upto: u64) -> Polled {
        polled.moved(from, upto).unwrap_or_else(|| panic!("the same stretch"))
    }

    #[test]
    fn whoever_polls_is_told_once() {
        let none = Polled::default();
        none.note(1);
        assert!(none.take().is_empty());
        assert!(none.moved(0, 0).is_none());
        let polled = moved(&none, 10, 200);
        for seq in [10, 11, 63, 64, 200, 11, 201, 1, u64::MAX] {
            polled.note(seq);
        }
        assert_eq!(polled.take(), [11, 63, 64, 200]);
        assert!(polled.take().is_empty());
    }

    #[test]
    fn the_stretch_moves_and_forgets_nobody_in_it() {
        let mut polled = moved(&Polled::default(), 0, 100);
        let mut expected: Vec<u64> = Vec::new();
        // Somebody who polls before each move is told after it, as long as he is in the stretch.
        for from in 1..20_000_u64 {
            let upto = from + 100 + from / 3;
            let seq = from + from * 7 % (polled.upto - polled.from);
            polled.note(seq);
            if seq > polled.from && seq <= polled.upto {
                expected.push(seq);
            }
            expected.retain(|seq| *seq > from && *seq <= upto);
            polled = moved(&polled, from, upto);
            if from % 50 == 0 {
                expected.sort_unstable();
                expected.dedup();
                assert_eq!(polled.take(), expected, "{from} {upto}");
                expected.clear();
            }
        }
        assert_eq!(moved(&polled, 30_000, 30_000).words.len(), 0);
    }
}
