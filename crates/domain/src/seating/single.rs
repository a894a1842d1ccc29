//! Single places: a free one between taken ones, which nobody wants.
//!
//! A hold leaves a single place where a free place beside one of its own has no free neighbour any more. It
//! does so *needlessly* where as many places could have been had without: next to each other, of the same
//! section and grades, out of the same free places or others. Free places next to each other out of which a
//! hold takes some are judged by themselves; the rest of the hold stays where it is.

use std::ops::Range;

use super::groups::{Lone, fitting, together};
use super::{PlaceSet, Plan};

/// How far from a place of a hold it matters which others are free: its neighbour, and the one behind that.
const REACH: usize = 2;

/// Returns the places on which it depends whether a hold of these leaves a single one: themselves, and two
/// beyond on either side as far as the run goes. The ranges are in order, apart, and each lies in one run.
pub fn around(plan: &Plan, held: &[u32]) -> Vec<Range<u32>> {
    let mut held: Vec<u32> =
        held.iter().copied().filter(|place| *place < plan.place_count()).collect();
    held.sort_unstable();
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for place in held {
        let farthest = |step: fn(&Plan, u32) -> Option<u32>| {
            let walk = std::iter::successors(Some(place), |place| step(plan, *place));
            walk.take(REACH + 1).last().unwrap_or(place)
        };
        let range = farthest(Plan::before)..farthest(Plan::behind) + 1;
        match ranges.last_mut() {
            Some(last) if range.start < last.end => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    ranges
}

/// Returns a single place that a hold of these leaves. Whether a place is free is asked as it is with them
/// held, and only of those [`around`] them.
pub fn single_beside(
    plan: &Plan,
    held: impl IntoIterator<Item = u32>,
    is_free: impl Fn(u32) -> bool,
) -> Option<u32> {
    let is_single = |place: &u32| {
        let beside = [plan.before(*place), plan.behind(*place)];
        is_free(*place) && !beside.into_iter().flatten().any(&is_free)
    };
    let beside = held.into_iter().flat_map(|place| [plan.before(place), plan.behind(place)]);
    beside.flatten().find(is_single)
}

/// Returns a single place that a hold of these leaves needlessly. They are free themselves.
pub fn needless_single(plan: &Plan, held: &[u32], free: &PlaceSet) -> Option<u32> {
    let mut held = held.to_vec();
    held.sort_unstable();
    let (mut before, mut after) = (free.clone(), free.clone());
    held.iter().for_each(|place| before.insert(*place));
    held.iter().for_each(|place| after.remove(*place));
    let are_one = |a: &u32, b: &u32| {
        (*a..*b).all(|place| before.contains(place) && plan.next_is_beside(place))
    };
    held.chunk_by(are_one).find_map(|part| {
        let single = single_beside(plan, part.iter().copied(), |place| after.contains(place))?;
        let mut without = after.clone();
        part.iter().for_each(|place| without.insert(*place));
        has_other(plan, part, &without).then_some(single)
    })
}

/// Whether as many places of the same kind could be had so that no single one is left.
fn has_other(plan: &Plan, part: &[u32], free: &PlaceSet) -> bool {
    let Some(first) = part.first().and_then(|place| plan.places().get(*place as usize)) else {
        return false;
    };
    let section = Some(plan.row_of(first).section);
    let mut grades: Vec<u16> = part
        .iter()
        .filter_map(|place| plan.places().get(*place as usize))
        .map(|p| p.grade)
        .collect();
    grades.sort_unstable();
    let kinds: Vec<(Option<u16>, u32)> = if plan.grades().is_empty() {
        vec![(None, part.len() as u32)]
    } else {
        grades.chunk_by(u16::eq).map(|same| (Some(same[0]), same.len() as u32)).collect()
    };
    let none = PlaceSet::none(plan.place_count());
    let fit =
        kinds.iter().fold(none, |fit, (grade, _)| fit.or(&fitting(plan, free, *grade, section)));
    let fit = fit.without(&plan.standing);
    let count = part.len() as u32;
    let starts = together(plan, &fit, count).without(&Lone::new(plan, free).beside(count));
    let is_alike = |start: u32| {
        kinds.iter().all(|(grade, wanted)| {
            grade.is_none_or(|grade| plan.count_of(grade, start..start + count) == *wanted)
        })
    };
    starts.iter().any(is_alike)
}
