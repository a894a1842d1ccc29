//! Groups of places next to each other. A hall of 50,000 places has 782 words of bits, and all this is done on
//! words.

use super::{PlaceSet, Plan};

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

/// Free places that become single ones where those on one side of them are taken.
pub(super) struct Lone {
    /// Places that have such a place before them.
    behind: PlaceSet,
    /// Such places that have something before them.
    before: PlaceSet,
}

impl Lone {
    pub(super) fn new(plan: &Plan, free: &PlaceSet) -> Self {
        let has_next = free.and(&plan.links);
        let has_previous = free.and(&plan.links.behind());
        Self {
            behind: has_next.without(&has_next.behind()).behind(),
            before: has_previous.without(&has_previous.before(1)),
        }
    }

    /// The places with which groups of so many begin that leave a single place.
    pub(super) fn beside(&self, count: u32) -> PlaceSet {
        self.behind.or(&self.before.before(count))
    }

    /// Whether such a group leaves a single place.
    pub(super) fn is_beside(&self, start: u32, count: u32) -> bool {
        self.behind.contains(start) || self.before.contains(start + count)
    }
}
