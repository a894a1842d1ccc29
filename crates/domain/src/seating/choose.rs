//! The best of the free places.
//!
//! Of the free places of the grade and the section that are asked for:
//!
//! 1. all together, in one run without a taken place between them; in an area for standing, any places are
//!    together;
//! 2. of such groups one that leaves no single place, if there is one;
//! 3. of these, the one whose squared distances to the stage have the smallest sum;
//! 4. of these, the first in the order of the plan.
//!
//! Where they cannot be together and need not be, the largest group that there is comes first, chosen in the
//! same way, and then the rest is.
//!
//! A hall of 50,000 places has 782 words of bits, and most is done on words.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::{PlaceSet, Plan, single_beside};

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

/// The free places of a grade and a section.
pub(super) fn fitting(
    plan: &Plan,
    free: &PlaceSet,
    grade: Option<u16>,
    section: Option<u32>,
) -> PlaceSet {
    let none = || PlaceSet::none(plan.place_count());
    let of_grade = match grade {
        None => PlaceSet::all(plan.place_count()),
        Some(grade) => plan.graded.get(usize::from(grade)).cloned().unwrap_or_else(none),
    };
    let Some(section) = section else { return of_grade.and(free) };
    let mut here = none();
    if let Some(wanted) = plan.sections.get(section as usize) {
        let named = plan.sections.iter().filter(|section| section.name == wanted.name);
        named.for_each(|section| here.insert_all(plan.places_of(section)));
    }
    here.and(&of_grade).and(free)
}

/// The places with which so many of these begin that stand next to each other.
pub(super) fn together(plan: &Plan, these: &PlaceSet, count: u32) -> PlaceSet {
    if count <= 1 {
        return these.clone();
    }
    // Those that have the next one beside them; then those that have two such in a row, three, five, …
    let mut starts = these.and(&plan.links).and(&these.before(1));
    let mut links = 1;
    while links < count - 1 {
        let more = links.min(count - 1 - links);
        starts = starts.and(&starts.before(more));
        links += more;
    }
    starts
}

/// The places with which so many begin that leave a single place, if they are next to each other and free.
pub(super) fn leaving_single(plan: &Plan, free: &PlaceSet, count: u32) -> PlaceSet {
    // A free place that has a neighbour on the one side, and none that is free on the other.
    let to_the_right = free.and(&plan.links);
    let is_first = to_the_right.without(&to_the_right.behind());
    let to_the_left = free.and(&plan.links.behind());
    let is_last = to_the_left.without(&to_the_left.before(1));
    is_first.behind().or(&is_last.before(count))
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
    /// The areas that they are in.
    areas: Vec<Range<u32>>,
    taken: Vec<u32>,
}

/// How good a group is, the best first: whether it leaves a single place, how far it is, where it begins.
type Rank = (bool, i64, u32);

impl<'a> Choice<'a> {
    fn new(plan: &'a Plan, free: &PlaceSet, fit: &PlaceSet) -> Self {
        let standing = plan.sections.iter().filter(|section| section.standing.is_some());
        let areas: Vec<_> = standing.map(|section| plan.places_of(section)).collect();
        let mut all_standing = PlaceSet::none(plan.place_count());
        areas.iter().for_each(|area| all_standing.insert_all(area.clone()));
        Self {
            plan,
            free: free.clone(),
            seats: fit.without(&all_standing),
            standing: fit.and(&all_standing),
            areas,
            taken: Vec::new(),
        }
    }

    /// The sum of the squared distances of a group.
    fn far(&self, start: u32, count: u32) -> i64 {
        let sum = |end: u32| self.plan.far[end as usize];
        if self.standing.contains(start) {
            (sum(start + 1) - sum(start)) * i64::from(count)
        } else {
            sum(start + count) - sum(start)
        }
    }

    /// The areas for standing of which places fit: the first of them, and how many there are.
    fn areas(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.areas.iter().filter_map(|area| {
            let count = self.standing.count_in(area.clone());
            let first = self.standing.iter_from(area.start).next();
            first.filter(|_| count > 0).map(|first| (first, count))
        })
    }

    /// The place with which the best group of so many begins.
    fn best(&self, count: u32) -> Option<u32> {
        let starts = together(self.plan, &self.seats, count);
        let alone = leaving_single(self.plan, &self.free, count);
        let nearest = |starts: &PlaceSet, leaves_single: bool| {
            let rank = |start| (leaves_single, self.far(start, count), start);
            starts.iter().map(rank).min()
        };
        let seats = nearest(&starts.without(&alone), false).or_else(|| nearest(&starts, true));
        let areas = self.areas().filter(|(_, free)| *free >= count);
        let areas = areas.map(|(start, _)| (false, self.far(start, count), start));
        let best: Option<Rank> = areas.chain(seats).min();
        best.map(|(_, _, start)| start)
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
            let (leaves_single, far, start) = rank;
            if length >= rest {
                if let Some(start) = self.best(rest) {
                    self.take(start, rest);
                }
                return;
            }
            // What was taken since may have made a place beside it a single one.
            if !leaves_single && self.leaves_single(start, length) {
                blocks.push(Reverse((Reverse(length), (true, far, start))));
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
        let seats = starts.iter().zip(ends.iter()).map(|(start, end)| (start, end - start + 1));
        let seats: Vec<_> = seats.collect();
        let rank = |(start, count)| {
            let leaves_single = self.leaves_single(start, count);
            Reverse((Reverse(count), (leaves_single, self.far(start, count), start)))
        };
        seats.into_iter().chain(self.areas()).map(rank).collect()
    }

    fn leaves_single(&self, start: u32, count: u32) -> bool {
        let group = start..start + count;
        let is_free = |place: u32| self.free.contains(place) && !group.contains(&place);
        single_beside(self.plan, group.clone(), is_free).is_some()
    }
}
