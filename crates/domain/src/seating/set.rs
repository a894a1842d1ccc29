//! Some of the places of a hall, as bits.

use std::ops::Range;

const BITS: u32 = u64::BITS;

/// The words that a range is in, with the bits of each.
fn masks(range: Range<u32>) -> impl Iterator<Item = (usize, u64)> {
    let words = range.start / BITS..range.end.div_ceil(BITS);
    let words = if range.is_empty() { 0..0 } else { words };
    words.map(move |word| {
        let from = word * BITS;
        let low = !0 << range.start.saturating_sub(from);
        let high = !0 >> (BITS - (range.end - from).min(BITS));
        (word as usize, low & high)
    })
}

/// Some of the places of a hall: those that are free, or those of a grade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceSet {
    /// The place with index 0 is the lowest bit of the first word. Bits behind the last place are 0.
    words: Vec<u64>,
    size: u32,
}

impl PlaceSet {
    /// None of so many places.
    pub fn none(size: u32) -> Self {
        Self { words: vec![0; size.div_ceil(BITS) as usize], size }
    }

    /// All of so many places.
    pub fn all(size: u32) -> Self {
        let mut set = Self::none(size);
        set.insert_all(0..size);
        set
    }

    /// Those of so many places of whose index it is true.
    pub fn from_fn(size: u32, is_in: impl Fn(u32) -> bool) -> Self {
        let mut set = Self::none(size);
        for (from, word) in (0..size).step_by(BITS as usize).zip(&mut set.words) {
            for bit in 0..BITS.min(size - from) {
                *word |= u64::from(is_in(from + bit)) << bit;
            }
        }
        set
    }

    /// Returns of how many places these are some.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Returns how many these are.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether the place is one of them.
    pub fn contains(&self, index: u32) -> bool {
        let word = self.words.get((index / BITS) as usize);
        word.is_some_and(|word| word >> (index % BITS) & 1 == 1)
    }

    /// Adds a place, if the hall has it.
    pub fn insert(&mut self, index: u32) {
        if index < self.size {
            self.words[(index / BITS) as usize] |= 1 << (index % BITS);
        }
    }

    /// Adds places next to each other, as far as the hall has them.
    pub(super) fn insert_all(&mut self, range: Range<u32>) {
        let range = range.start..range.end.min(self.size);
        for (index, mask) in masks(range) {
            self.words[index] |= mask;
        }
    }

    /// Returns how many of them are in this range.
    pub(super) fn count_in(&self, range: Range<u32>) -> u32 {
        masks(range).map(|(index, mask)| (self.word(index) & mask).count_ones()).sum()
    }

    /// Takes a place out.
    pub fn remove(&mut self, index: u32) {
        if let Some(word) = self.words.get_mut((index / BITS) as usize) {
            *word &= !(1 << (index % BITS));
        }
    }

    /// Returns their indexes, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.iter_from(0)
    }

    /// Returns the indexes of those from there on, in order.
    pub(super) fn iter_from(&self, start: u32) -> impl Iterator<Item = u32> + '_ {
        let skipped = (start / BITS) as usize;
        let mut rest = self.word(skipped) & (!0 << (start % BITS));
        let mut from = start - start % BITS;
        let mut words = self.words.iter().skip(skipped + 1);
        std::iter::from_fn(move || {
            while rest == 0 {
                rest = *words.next()?;
                from += BITS;
            }
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            Some(from + bit)
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The set whose words are made of those of this one, by index.
    fn map(&self, make: impl Fn(usize) -> u64) -> Self {
        Self { words: (0..self.words.len()).map(make).collect(), size: self.size }
    }

    /// The word with this index, where there is one.
    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    /// Those of these that are in the other, too.
    pub(super) fn and(&self, other: &Self) -> Self {
        self.map(|index| self.words[index] & other.word(index))
    }

    /// Those of these that are not in the other.
    pub(super) fn without(&self, other: &Self) -> Self {
        self.map(|index| self.words[index] & !other.word(index))
    }

    /// Those of these and of the other.
    pub(super) fn or(&self, other: &Self) -> Self {
        self.map(|index| self.words[index] | other.word(index))
    }

    /// The places so many before these.
    pub(super) fn before(&self, by: u32) -> Self {
        let (words, bits) = ((by / BITS) as usize, by % BITS);
        self.map(|index| {
            let low = self.word(index + words) >> bits;
            // A shift by all bits would be none.
            low | (self.word(index + words + 1) << 1) << (BITS - 1 - bits)
        })
    }

    /// The places just behind these, as far as there are any.
    pub(super) fn behind(&self) -> Self {
        let mut set = self.map(|index| {
            let carried = index.checked_sub(1).map_or(0, |before| self.words[before] >> (BITS - 1));
            self.words[index] << 1 | carried
        });
        if let (Some(last), rest @ 1..) = (set.words.last_mut(), self.size % BITS) {
            *last &= (1 << rest) - 1;
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Sizes at the edges of words, and sets of every seventh, all, and a few at the edges.
    fn each(check: impl Fn(u32, &BTreeSet<u32>, &PlaceSet)) {
        for size in [0, 1, 2, 63, 64, 65, 127, 128, 129, 200] {
            let edges = [0, 1, 62, 63, 64, 65, 126, 127, 128, 199];
            let sets: [&dyn Fn(&u32) -> bool; 4] =
                [&|place| place % 7 == 0, &|_| true, &|_| false, &|place| edges.contains(place)];
            for is_in in sets {
                let model: BTreeSet<u32> = (0..size).filter(is_in).collect();
                let set = PlaceSet::from_fn(size, |place| is_in(&place));
                check(size, &model, &set);
            }
        }
    }

    fn places(set: &PlaceSet) -> BTreeSet<u32> {
        set.iter().collect()
    }

    #[test]
    fn a_set_has_what_was_put_in() {
        each(|size, model, set| {
            assert_eq!((&places(set), set.size()), (model, size));
            assert_eq!(set.count() as usize, model.len());
            assert_eq!(set.is_empty(), model.is_empty());
            assert!((0..size + 70).all(|place| set.contains(place) == model.contains(&place)));
            let mut one_by_one = PlaceSet::none(size);
            model.iter().for_each(|place| one_by_one.insert(*place));
            assert_eq!(one_by_one, *set);
            model.iter().for_each(|place| one_by_one.remove(*place));
            assert_eq!(one_by_one, PlaceSet::none(size));
            // What the hall has not is in no set, also where its word is.
            (size..size + 70).for_each(|place| one_by_one.insert(place));
            (size..size + 70).for_each(|place| one_by_one.remove(place));
            assert!(one_by_one.is_empty());
        });
        assert_eq!(PlaceSet::all(65), PlaceSet::from_fn(65, |_| true));
    }

    #[test]
    fn ranges_are_as_their_places() {
        each(|size, model, set| {
            for start in 0..size + 1 {
                assert!(set.iter_from(start).eq(model.range(start..).copied()), "{size} {start}");
                for end in [start, start + 1, start + 3, start + 63, start + 64, start + 130] {
                    let end = end.min(size).max(start);
                    assert_eq!(set.count_in(start..end) as usize, model.range(start..end).count());
                    let mut all = set.clone();
                    all.insert_all(start..end);
                    let expected: BTreeSet<u32> = model.iter().copied().chain(start..end).collect();
                    assert_eq!(places(&all), expected, "{size} {start} {end}");
                }
            }
            let mut all = set.clone();
            all.insert_all(0..u32::MAX);
            assert_eq!(all, PlaceSet::all(size));
        });
    }

    #[test]
    fn sets_are_moved_and_put_together() {
        each(|size, model, set| {
            for by in [0, 1, 2, 5, 63, 64, 65, 130, 1_000] {
                let before = model.iter().filter_map(|place| place.checked_sub(by)).collect();
                assert_eq!(places(&set.before(by)), before, "{size} {by}");
            }
            let behind =
                model.iter().map(|place| place + 1).filter(|place| *place < size).collect();
            assert_eq!(places(&set.behind()), behind, "{size}");
            let third = PlaceSet::from_fn(size, |place| place % 3 == 0);
            let is_third = |place: &u32| place.is_multiple_of(3);
            let of_model =
                |is_in: &dyn Fn(&u32) -> bool| model.iter().copied().filter(is_in).collect();
            assert_eq!(places(&set.and(&third)), of_model(&is_third));
            assert_eq!(places(&set.without(&third)), of_model(&|place| !is_third(place)));
            let either =
                (0..size).filter(|place| is_third(place) || model.contains(place)).collect();
            assert_eq!(places(&set.or(&third)), either);
        });
    }
}
