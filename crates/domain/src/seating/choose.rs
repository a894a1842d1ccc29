//! The best of the free places.
//!
//! Of the free places of the grade and the section that are asked for:
//!
//! 1. all together, in one run without a taken place between them; in an area for standing, any places are
//!    together, but nobody is to stand for whom there are seats;
//! 2. of such groups one that leaves no single place, if there is one;
//! 3. of these, the one whose squared distances to the stage have the smallest sum;
//! 4. of these, the first in the order of the plan.
//!
//! Where they cannot be together and need not be, the largest group that there is comes first, chosen in the
//! same way, and then the rest is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::groups::{Lone, fitting, together};
use super::single::single_beside;
use super::{PlaceSet, Plan};

/// What somebody wants who names no places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// How many places.
    pub count: u32,
    /// Of which grade, where not of any.
    pub grade: Option<u16>,
    /// In which section, where not in any. Sections of the same name are one.
    pub section: Option<u32>,
    /// Whether they have to be together.
    pub together: bool,
}

/// Why there is nothing to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoChoice {
    /// Fewer places of that kind are free.
    NotEnough {
        /// How many are.
        free: u32,
    },
    /// Enough are free, but not together.
    NotTogether,
}

/// Chooses the best of the free places. Returns their indexes in order.
///
/// # Errors
/// [`NoChoice`].
pub fn choose(plan: &Plan, free: &PlaceSet, wish: &Wish) -> Result<Vec<u32>, NoChoice> {
    let fit = fitting(plan, free, wish.grade, wish.section);
    let left = fit.count();
    if left < wish.count {
        return Err(NoChoice::NotEnough { free: left });
    }
    if wish.count == 0 {
        return Ok(Vec::new());
    }
    let mut choice = Choice::new(plan, free, &fit);
    match choice.best(wish.count) {
        Some(start) => choice.take(start, wish.count),
        None if wish.together => return Err(NoChoice::NotTogether),
        None => choice.take_apart(wish.count),
    }
    choice.taken.sort_unstable();
    Ok(choice.taken)
}

/// What is there to choose from, and what was chosen.
struct Choice<'a> {
    plan: &'a Plan,
    /// All free places, whether they fit or not: a single place is free for anybody.
    free: PlaceSet,
    /// The seats that fit.
    seats: PlaceSet,
    /// The places for standing that fit.
    standing: PlaceSet,
    taken: Vec<u32>,
}

/// How good a group is, the best first: whether it is for standing, whether it leaves a single place, how far it is,
/// where it begins.
type Rank = (bool, bool, i64, u32);

impl<'a> Choice<'a> {
    fn new(plan: &'a Plan, free: &PlaceSet, fit: &PlaceSet) -> Self {
        Self {
            plan,
            free: free.clone(),
            seats: fit.without(&plan.standing),
            standing: fit.and(&plan.standing),
            taken: Vec::new(),
        }
    }

    /// The sum of the squared distances of places in an area for standing: all are as far.
    fn far_standing(&self, start: u32, count: u32) -> i64 {
        self.far_seats(start, 1) * i64::from(count)
    }

    /// The sum of the squared distances of places that follow each other.
    fn far_seats(&self, start: u32, count: u32) -> i64 {
        self.plan.far[(start + count) as usize] - self.plan.far[start as usize]
    }

    /// The areas for standing of which places fit: the first of them, and how many there are.
    fn areas(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.plan.areas().filter_map(|area| {
            let count = self.standing.count_in(area.clone());
            if count == 0 {
                return None;
            }
            self.standing.iter_from(area.start).next().map(|first| (first, count))
        })
    }

    /// The place with which the best group of so many begins.
    fn best(&self, count: u32) -> Option<u32> {
        let starts = together(self.plan, &self.seats, count);
        let lone = Lone::new(self.plan, &self.free).beside(count);
        let sums = self.plan.far.as_slice();
        let ends = &sums[count as usize..];
        let nearest = |starts: &PlaceSet, leaves_single: bool| {
            let mut best: Option<Rank> = None;
            for start in starts.iter() {
                let far = ends[start as usize] - sums[start as usize];
                // Of those that are as far, the first stays.
                if best.is_none_or(|(_, _, least, _)| far < least) {
                    best = Some((false, leaves_single, far, start));
                }
            }
            best
        };
        let seats = nearest(&starts.without(&lone), false).or_else(|| nearest(&starts, true));
        let areas = self.areas().filter(|(_, free)| *free >= count);
        let areas = areas.map(|(start, _)| (true, false, self.far_standing(start, count), start));
        let best: Option<Rank> = areas.chain(seats).min();
        best.map(|(_, _, _, start)| start)
    }

    /// Takes the group that begins there.
    fn take(&mut self, start: u32, count: u32) {
        let group: Vec<u32> = if self.standing.contains(start) {
            self.standing.iter_from(start).take(count as usize).collect()
        } else {
            (start..start + count).collect()
        };
        for place in &group {
            self.free.remove(*place);
            self.seats.remove(*place);
            self.standing.remove(*place);
        }
        self.taken.extend(group);
    }

    /// Takes so many, which are there but not together.
    fn take_apart(&mut self, count: u32) {
        let mut rest = count;
        let mut blocks = self.blocks();
        while let Some((Reverse(length), rank)) = blocks.pop().map(|Reverse(block)| block) {
            let (stands, leaves_single, far, start) = rank;
            if length >= rest {
                if let Some(start) = self.best(rest) {
                    self.take(start, rest);
                }
                return;
            }
            // What was taken since may have made a place beside it a single one.
            if !leaves_single && self.leaves_single(start, length) {
                blocks.push(Reverse((Reverse(length), (stands, true, far, start))));
                continue;
            }
            self.take(start, length);
            rest -= length;
        }
    }

    /// All that fit and are together, as large as can be; the largest on top, of these the best.
    fn blocks(&self) -> BinaryHeap<Reverse<(Reverse<u32>, Rank)>> {
        let has_next = together(self.plan, &self.seats, 2);
        let starts = self.seats.without(&has_next.behind());
        let ends = self.seats.without(&has_next);
        let lone = Lone::new(self.plan, &self.free);
        let seats = starts.iter().zip(ends.iter()).map(|(start, end)| (start, end - start + 1));
        let seats = seats.map(|(start, count)| {
            let leaves_single = lone.is_beside(start, count);
            (count, (false, leaves_single, self.far_seats(start, count), start))
        });
        let areas = self
            .areas()
            .map(|(start, count)| (count, (true, false, self.far_standing(start, count), start)));
        let block = |(count, rank)| Reverse((Reverse(count), rank));
        seats.chain(areas).map(block).collect()
    }

    fn leaves_single(&self, start: u32, count: u32) -> bool {
        let group = start..start + count;
        let is_free = |place: u32| self.free.contains(place) && !group.contains(&place);
        single_beside(self.plan, group.clone(), is_free).is_some()
    }
}
