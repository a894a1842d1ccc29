//! A bit for each number of a queue, set and read without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The numbers of a part, which takes 128 KB once one of them is set.
const PART: u64 = 1 << 20;
/// The most parts. Numbers beyond them, four thousand million, are noted by nobody.
const PARTS: usize = 4_096;

type Part = Box<[AtomicU64]>;

/// Which numbers have been noted.
pub(super) struct Noted(Box<[OnceLock<Part>]>);

impl Default for Noted {
    fn default() -> Self {
        Self((0..PARTS).map(|_| OnceLock::new()).collect())
    }
}

impl Noted {
    fn part(&self, seq: u64) -> Option<&OnceLock<Part>> {
        self.0.get(usize::try_from(seq / PART).ok()?)
    }

    /// Whether the number is noted.
    pub(super) fn has(&self, seq: u64) -> bool {
        let (word, bit) = place(seq);
        let part = self.part(seq).and_then(OnceLock::get);
        part.is_some_and(|part| part[word].load(Ordering::Relaxed) & bit != 0)
    }

    /// Notes the number.
    pub(super) fn set(&self, seq: u64) {
        let Some(part) = self.part(seq) else { return };
        let (word, bit) = place(seq);
        let part = part.get_or_init(|| (0..PART / 64).map(|_| AtomicU64::new(0)).collect());
        part[word].fetch_or(bit, Ordering::Relaxed);
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        for part in self.0.iter().filter_map(OnceLock::get) {
            part.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }
}

/// The word in its part, and the bit in that.
const fn place(seq: u64) -> (usize, u64) {
    ((seq % PART / 64) as usize, 1 << (seq % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_noted_until_all_are_forgotten() {
        let noted = Noted::default();
        let seqs = [0, 1, 63, 64, PART - 1, PART, 3 * PART + 77];
        assert!(seqs.iter().all(|seq| !noted.has(*seq)));
        seqs.iter().for_each(|seq| noted.set(*seq));
        assert!(seqs.iter().all(|seq| noted.has(*seq)));
        assert!(![2, 62, 65, PART + 1, 2 * PART, 3 * PART + 76].iter().any(|seq| noted.has(*seq)));
        noted.set(u64::MAX);
        assert!(!noted.has(u64::MAX), "there is no room for it");
        noted.clear();
        assert!(seqs.iter().all(|seq| !noted.has(*seq)));
    }
}
