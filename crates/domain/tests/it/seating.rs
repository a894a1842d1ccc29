//! Halls against a model that knows nothing of bits: it goes through all groups of places, one by one, straight
//! from the stated rule.

use std::collections::BTreeSet;

use boxoffice_domain::seating::{
    Area, COORDINATE_MAX, NoChoice, Parts, PlacePart, PlaceSet, Plan, Point, RowPart, SeatingPart,
    SectionPart, Wish, around, choose, hall as made_up, needless_single, single_beside,
};

use crate::dice::Dice;

const HALLS: u64 = 10_000;
const PITCH: i32 = 20;

/// A number from 0 up to but not including `below`.
fn below(dice: &mut Dice, below: u32) -> u32 {
    (dice.roll() * f64::from(below)) as u32
}

/// A hall with a few sections, rows of several lengths with and without aisles, grades by row or by place, and
/// areas for standing. Small, so that nothing is rare; sections and rows may be called alike.
fn hall(dice: &mut Dice) -> Plan {
    let grades = 1 + below(dice, 3) as u16;
    let any_grade = |dice: &mut Dice| below(dice, u32::from(grades)) as u16;
    let sections = 1 + below(dice, 4);
    let names = ["A", "B", "C", "A"];
    // Sometimes the stage is far to one side, or in the middle.
    let stage = Point { x: below(dice, 300) as i32, y: below(dice, 200) as i32 - 50 };
    let mut y = 0;
    let mut parts = Vec::new();
    for index in 0..sections {
        let name = names[index as usize].to_owned();
        if below(dice, 4) == 0 {
            let area = Area {
                at: Point { x: below(dice, 200) as i32, y },
                size: Point { x: 1 + below(dice, 90) as i32, y: 1 + below(dice, 90) as i32 },
            };
            let (grade, count) = (any_grade(dice), below(dice, 12));
            // Of two areas of one name nobody could tell the places apart.
            let name = if index < 3 { name } else { "D".to_owned() };
            parts.push(SectionPart { name, seating: SeatingPart::Standing { area, grade, count } });
            y += 100;
            continue;
        }
        let mixed = below(dice, 3) == 0;
        let mut rows = Vec::new();
        for row in 0..1 + below(dice, 4) {
            let count = below(dice, 13);
            let (mut x, grade) = (below(dice, 5) as i32 * PITCH, any_grade(dice));
            let place = |number: u32| {
                // An aisle now and then.
                x += if below(dice, 7) == 0 { 3 * PITCH } else { PITCH };
                let grade = if mixed { any_grade(dice) } else { grade };
                let label = format!("{index}-{row}-{number}");
                PlacePart { label, grade, at: Point { x, y } }
            };
            let places: Vec<_> = (0..count).map(place).collect();
            // Said, or to be seen from the positions; both to come out alike is tested elsewhere.
            let cuts = (below(dice, 2) == 0).then(|| vec![count / 2, count + 3]);
            rows.push(RowPart { name: row.to_string(), places, cuts });
            y += PITCH;
        }
        parts.push(SectionPart { name, seating: SeatingPart::Rows(rows) });
    }
    let parts = Parts {
        name: "hall".to_owned(),
        size: Point { x: 1_000, y: 1_000 },
        stage,
        grades: (0..grades).map(|grade| format!("grade {grade}")).collect(),
        sections: parts,
    };
    // An empty one is no hall; what else could be wrong is not.
    Plan::new(parts).unwrap_or_else(|problems| {
        assert_eq!(problems.count, 1, "{problems:?}");
        Plan::numbered(1 + below(dice, 20))
    })
}

fn some_free(dice: &mut Dice, plan: &Plan) -> BTreeSet<u32> {
    let part = [0.0, 0.1, 0.3, 0.5, 0.8, 0.95, 1.0][below(dice, 7) as usize];
    (0..plan.place_count()).filter(|_| dice.roll() < part).collect()
}

/// The stated rule, one place at a time.
struct Naive<'a> {
    plan: &'a Plan,
    /// The run of each place.
    runs: Vec<Option<usize>>,
}

impl<'a> Naive<'a> {
    fn new(plan: &'a Plan) -> Self {
        let run_of = |place| plan.runs().iter().position(|run| run.contains(&place));
        Self { plan, runs: (0..plan.place_count()).map(run_of).collect() }
    }
    fn is_standing(&self, place: u32) -> bool {
        self.plan.section_of(&self.plan.places()[place as usize]).standing.is_some()
    }

    fn are_neighbours(&self, one: u32, other: u32) -> bool {
        one.abs_diff(other) == 1
            && self.runs[one as usize].is_some()
            && self.runs[one as usize] == self.runs[other as usize]
    }

    /// The single places beside a group, when all of the group are taken and these are free.
    fn singles(&self, group: &[u32], free: &BTreeSet<u32>) -> BTreeSet<u32> {
        let left: BTreeSet<u32> = free.iter().copied().filter(|p| !group.contains(p)).collect();
        let is_single = |place: &u32| {
            group.iter().any(|taken| self.are_neighbours(*taken, *place))
                && !left.iter().any(|other| self.are_neighbours(*other, *place))
        };
        left.iter().copied().filter(is_single).collect()
    }

    fn is_like(&self, place: u32, wish: &Wish) -> bool {
        let place = &self.plan.places()[place as usize];
        let section = &self.plan.section_of(place).name;
        let wanted = wish.section.map(|index| &self.plan.sections()[index as usize].name);
        let grade = self.plan.grade_of(place);
        wish.grade.is_none_or(|wanted| {
            grade.is_some() && grade == self.plan.grades().get(usize::from(wanted)).map(|g| &**g)
        }) && wanted.is_none_or(|wanted| wanted == section)
    }

    fn square(&self, place: u32) -> i128 {
        let (at, stage) = (self.plan.places()[place as usize].at, self.plan.stage());
        let (dx, dy) = (i128::from(at.x - stage.x), i128::from(at.y - stage.y));
        dx * dx + dy * dy
    }

    /// All groups of so many that are together.
    fn groups(&self, count: u32, free: &BTreeSet<u32>, wish: &Wish) -> Vec<Vec<u32>> {
        let mut groups = Vec::new();
        let fit: Vec<u32> =
            free.iter().copied().filter(|place| self.is_like(*place, wish)).collect();
        for first in fit.iter().copied() {
            let group: Vec<u32> = if self.is_standing(first) {
                let section = self.plan.section_of(&self.plan.places()[first as usize]);
                let area = self.plan.places_of(section);
                fit.iter().copied().filter(|p| *p >= first && area.contains(p)).collect()
            } else {
                let mut group = vec![first];
                while let Some(next) = group.last().map(|last| last + 1)
                    && fit.contains(&next)
                    && self.are_neighbours(next - 1, next)
                {
                    group.push(next);
                }
                group
            };
            if group.len() >= count as usize {
                groups.push(group[..count as usize].to_vec());
            }
        }
        groups
    }

    fn rank(&self, group: &[u32], free: &BTreeSet<u32>) -> (bool, bool, i128, u32) {
        let far = group.iter().map(|place| self.square(*place)).sum();
        (self.is_standing(group[0]), !self.singles(group, free).is_empty(), far, group[0])
    }

    fn best(&self, count: u32, free: &BTreeSet<u32>, wish: &Wish) -> Option<Vec<u32>> {
        let groups = self.groups(count, free, wish).into_iter();
        groups.min_by_key(|group| self.rank(group, free))
    }

    fn choose(&self, free: &BTreeSet<u32>, wish: &Wish) -> Result<Vec<u32>, NoChoice> {
        let mut free = free.clone();
        let fit = free.iter().filter(|place| self.is_like(**place, wish)).count() as u32;
        if fit < wish.count {
            return Err(NoChoice::NotEnough { free: fit });
        }
        let mut chosen = Vec::new();
        while (chosen.len() as u32) < wish.count {
            let rest = wish.count - chosen.len() as u32;
            let counts = (1..=rest).rev();
            let mut groups = counts.filter_map(|count| self.best(count, &free, wish));
            let group = groups.next().unwrap();
            if wish.together && (group.len() as u32) < wish.count {
                return Err(NoChoice::NotTogether);
            }
            group.iter().for_each(|place| assert!(free.remove(place)));
            chosen.extend(group);
        }
        chosen.sort();
        Ok(chosen)
    }
}

fn set(plan: &Plan, places: &BTreeSet<u32>) -> PlaceSet {
    PlaceSet::from_fn(plan.place_count(), |place| places.contains(&place))
}

#[test]
fn what_is_chosen_is_what_going_through_all_groups_finds() {
    let mut dice = Dice(1);
    let (mut refused, mut apart, mut together) = ([0, 0], 0, 0);
    for number in 0..HALLS {
        let plan = hall(&mut dice);
        let naive = Naive::new(&plan);
        let free = some_free(&mut dice, &plan);
        for _ in 0..3 {
            let wish = Wish {
                count: 1 + below(&mut dice, 8),
                grade: (below(&mut dice, 2) == 0).then(|| below(&mut dice, 4) as u16),
                section: (below(&mut dice, 3) == 0)
                    .then(|| below(&mut dice, plan.sections().len() as u32)),
                together: below(&mut dice, 2) == 0,
            };
            let chosen = choose(&plan, &set(&plan, &free), &wish);
            assert_eq!(chosen, naive.choose(&free, &wish), "hall {number}: {wish:?} of {free:?}");
            match chosen {
                Err(NoChoice::NotEnough { .. }) => refused[0] += 1,
                Err(NoChoice::NotTogether) => refused[1] += 1,
                Ok(_)
                    if choose(&plan, &set(&plan, &free), &Wish { together: true, ..wish })
                        .is_err() =>
                {
                    apart += 1;
                }
                Ok(_) => together += 1,
            }
        }
    }
    println!("refused {refused:?}, apart {apart}, together {together}");
    assert!(refused.into_iter().chain([apart, together]).all(|seen| seen > 1_000));
}

/// The same in halls that are more than a word of bits.
#[test]
fn what_is_chosen_of_a_larger_hall_is_the_same() {
    let mut dice = Dice(4);
    for number in 0..100 {
        let plan = match below(&mut dice, 3) {
            0 => Plan::numbered(1 + below(&mut dice, 400)),
            _ => Plan::new(made_up("Hall", 1 + below(&mut dice, 1_100))).unwrap(),
        };
        let naive = Naive::new(&plan);
        let free = some_free(&mut dice, &plan);
        let wish = Wish {
            count: 1 + below(&mut dice, 40),
            grade: (below(&mut dice, 3) == 0).then(|| below(&mut dice, 4) as u16),
            section: None,
            together: below(&mut dice, 2) == 0,
        };
        let chosen = choose(&plan, &set(&plan, &free), &wish);
        assert_eq!(chosen, naive.choose(&free, &wish), "hall {number}: {wish:?} of {free:?}");
    }
}

/// The places of a set that can be reached from one of them in so many steps from neighbour to neighbour.
fn reached(naive: &Naive<'_>, from: u32, within: &BTreeSet<u32>, steps: usize) -> BTreeSet<u32> {
    let mut reached = BTreeSet::from([from]);
    for _ in 0..steps {
        let nearby = reached.iter().flat_map(|place| [place.saturating_sub(1), place + 1]);
        let is_next = |next: &u32| {
            within.contains(next) && reached.iter().any(|place| naive.are_neighbours(*place, *next))
        };
        let more: Vec<u32> = nearby.filter(is_next).collect();
        reached.extend(more);
    }
    reached
}

impl Naive<'_> {
    /// Whether a hold leaves a single place where as many next to each other would not.
    fn is_needless(&self, held: &BTreeSet<u32>, free: &BTreeSet<u32>) -> bool {
        let mut to_judge = held.clone();
        while let Some(first) = to_judge.first().copied() {
            let stretch = reached(self, first, free, 20);
            let part: Vec<u32> = held.intersection(&stretch).copied().collect();
            to_judge.retain(|place| !part.contains(place));
            let others: BTreeSet<u32> = held.difference(&stretch).copied().collect();
            let free: BTreeSet<u32> = free.difference(&others).copied().collect();
            if !self.singles(&part, &free).is_empty() && self.has_other(&part, &free) {
                return true;
            }
        }
        false
    }

    fn has_other(&self, part: &[u32], free: &BTreeSet<u32>) -> bool {
        let kind = |group: &[u32]| {
            let mut kind: Vec<_> = group
                .iter()
                .map(|place| &self.plan.places()[*place as usize])
                .map(|place| (&self.plan.section_of(place).name, place.grade))
                .collect();
            kind.sort();
            kind
        };
        let count = part.len() as u32;
        let any = Wish { count, grade: None, section: None, together: true };
        let mut groups = self.groups(count, free, &any).into_iter();
        groups.any(|group| {
            !self.is_standing(group[0])
                && kind(&group) == kind(part)
                && self.singles(&group, free).is_empty()
        })
    }
}

/// Some of the free places: next to each other more often than not.
fn some_held(dice: &mut Dice, free: &BTreeSet<u32>) -> BTreeSet<u32> {
    let free: Vec<u32> = free.iter().copied().collect();
    let mut held = BTreeSet::new();
    for _ in 0..1 + below(dice, 3) {
        let at = below(dice, free.len() as u32) as usize;
        held.extend(free[at..].iter().take(1 + below(dice, 3) as usize));
    }
    held
}

#[test]
fn a_hold_is_judged_by_what_is_around_it_as_by_the_whole_hall() {
    let mut dice = Dice(2);
    let (mut judged, mut left, mut needless) = (0, 0, 0);
    for number in 0..HALLS {
        let plan = hall(&mut dice);
        let naive = Naive::new(&plan);
        let free = some_free(&mut dice, &plan);
        if free.is_empty() {
            continue;
        }
        let held = some_held(&mut dice, &free);
        let list: Vec<u32> = held.iter().rev().copied().collect();
        let about = || format!("hall {number}: {held:?} of {free:?}, runs {:?}", plan.runs());

        let around = around(&plan, &list);
        let all: BTreeSet<u32> = (0..plan.place_count()).collect();
        let expected: BTreeSet<u32> =
            held.iter().flat_map(|place| reached(&naive, *place, &all, 2)).collect();
        assert!(around.iter().cloned().flatten().eq(expected.iter().copied()), "{}", about());
        assert!(around.iter().all(|range| {
            plan.runs().iter().any(|run| run.start <= range.start && range.end <= run.end)
                || range.len() == 1 && naive.is_standing(range.start)
        }));

        // Whatever was said of the others would change nothing: nobody asks.
        let single = single_beside(&plan, list.iter().copied(), |place| {
            assert!(expected.contains(&place), "{}", about());
            free.contains(&place) && !held.contains(&place)
        });
        let singles = naive.singles(&list, &free);
        assert_eq!(single.is_some(), !singles.is_empty(), "{}", about());
        assert!(single.is_none_or(|single| singles.contains(&single)), "{}", about());

        let found = needless_single(&plan, &list, &set(&plan, &free));
        assert_eq!(found.is_some(), naive.is_needless(&held, &free), "{}", about());
        assert!(found.is_none_or(|found| singles.contains(&found)), "{}", about());
        judged += 1;
        left += u32::from(single.is_some());
        needless += u32::from(found.is_some());
    }
    println!("{judged} judged, {left} leave a single place, {needless} of them needlessly");
    assert!(needless > 1_000 && left - needless > 100 && judged - left > 1_000);
}

/// Where all places are alike, places apart from each other are never better: so it is enough to look at those
/// next to each other. All holds out of one stretch, with all that can be taken of a run.
#[test]
fn a_hold_is_refused_unless_every_choice_leaves_a_single_place() {
    const RUN: u32 = 9;
    let plan = Plan::numbered(RUN);
    let naive = Naive::new(&plan);
    let some =
        |bits: u32| -> BTreeSet<u32> { (0..RUN).filter(|place| bits >> place & 1 == 1).collect() };
    let (mut refused, mut all) = (0, 0);
    for free_bits in 1..1 << RUN {
        let free = some(free_bits);
        let stretches: BTreeSet<BTreeSet<u32>> =
            free.iter().map(|place| reached(&naive, *place, &free, 9)).collect();
        // Those out of one stretch, by how many they are: whether one leaves no single place.
        let mut is_avoidable = [false; RUN as usize + 1];
        let mut holds = Vec::new();
        for bits in (1..1 << RUN).filter(|bits| bits & free_bits == *bits) {
            let held = some(bits);
            if stretches.iter().any(|stretch| held.is_subset(stretch)) {
                let list: Vec<u32> = held.into_iter().collect();
                let leaves = !naive.singles(&list, &free).is_empty();
                is_avoidable[list.len()] |= !leaves;
                holds.push((list, leaves));
            }
        }
        for (held, leaves) in holds {
            let found = needless_single(&plan, &held, &set(&plan, &free)).is_some();
            assert_eq!(found, leaves && is_avoidable[held.len()], "{held:?} of {free:?}");
            refused += u32::from(found);
            all += 1;
        }
    }
    assert!(refused > 1_000 && all > 5_000, "{refused} of {all}");
}

#[test]
fn what_is_chosen_is_not_refused() {
    let mut dice = Dice(3);
    let mut left = 0;
    for number in 0..HALLS {
        let plan = hall(&mut dice);
        let free = some_free(&mut dice, &plan);
        let wish = Wish {
            count: 1 + below(&mut dice, 6),
            grade: (below(&mut dice, 3) == 0).then(|| below(&mut dice, 3) as u16),
            section: (below(&mut dice, 3) == 0)
                .then(|| below(&mut dice, plan.sections().len() as u32)),
            together: false,
        };
        let free = set(&plan, &free);
        if let Ok(chosen) = choose(&plan, &free, &wish) {
            let found = needless_single(&plan, &chosen, &free);
            assert_eq!(
                found,
                None,
                "hall {number}: {chosen:?} by {wish:?} of {:?}",
                free.iter().collect::<Vec<_>>()
            );
            let is_free = |place: u32| free.contains(place) && !chosen.contains(&place);
            left += u32::from(single_beside(&plan, chosen.iter().copied(), is_free).is_some());
        }
    }
    assert!(left > 100, "some leave a single place, because every choice does: {left}");
}

/// Anything at all, as somebody could send it.
fn anything(dice: &mut Dice) -> Parts {
    let odd =
        [0, 1, -1, 20, COORDINATE_MAX, -COORDINATE_MAX, COORDINATE_MAX + 1, i32::MAX, i32::MIN];
    // Mostly what may be, so that now and then all of it may.
    let is_odd = |dice: &mut Dice| below(dice, 60) == 0;
    let coordinate = |dice: &mut Dice| match below(dice, 40) {
        0 => odd[below(dice, odd.len() as u32) as usize],
        _ => below(dice, 2_000) as i32,
    };
    let point = |dice: &mut Dice| Point { x: coordinate(dice), y: coordinate(dice) };
    let name = |dice: &mut Dice, like: &str| match is_odd(dice) {
        true => ["", " ", &"x".repeat(201), "좌석"][below(dice, 4) as usize].to_owned(),
        false => format!("{like}{}", below(dice, 9)),
    };
    let grade = |dice: &mut Dice| below(dice, 2) as u16 + u16::from(below(dice, 99) == 0);
    let mut sections = Vec::new();
    for _ in 0..below(dice, 4) {
        let seating = if below(dice, 3) == 0 {
            let area = Area { at: point(dice), size: point(dice) };
            SeatingPart::Standing { area, grade: grade(dice), count: below(dice, 5) }
        } else {
            let mut rows = Vec::new();
            for _ in 0..below(dice, 3) {
                let mut places = Vec::new();
                for number in 0..below(dice, 6) {
                    let label = name(dice, &format!("{number}-"));
                    places.push(PlacePart { label, grade: grade(dice), at: point(dice) });
                }
                let cut = |dice: &mut Dice| [0, 1, 3, 99, u32::MAX][below(dice, 5) as usize];
                let cuts = (below(dice, 2) == 0).then(|| vec![cut(dice), cut(dice)]);
                rows.push(RowPart { name: name(dice, "row"), places, cuts });
            }
            SeatingPart::Rows(rows)
        };
        sections.push(SectionPart { name: name(dice, "section"), seating });
    }
    let size = Point { x: 1 + coordinate(dice).saturating_sub(1), y: 1_000 };
    let (name, stage) = (name(dice, "hall"), point(dice));
    let grades = (0..2 + below(dice, 2)).map(|grade| grade.to_string()).collect();
    Parts { name, size, stage, grades, sections }
}

#[test]
fn whatever_a_plan_is_made_of_is_refused_or_makes_sense() {
    let mut dice = Dice(5);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..HALLS {
        let parts = anything(&mut dice);
        let plan = match Plan::new(parts.clone()) {
            Ok(plan) => plan,
            Err(problems) => {
                assert!(problems.count > 0 && problems.listed.len() == problems.count.min(100));
                bad += 1;
                continue;
            }
        };
        good += 1;
        // All sections, rows and places follow each other without a gap, and none is empty.
        let count = plan.place_count();
        let follow = |ranges: &mut dyn Iterator<Item = std::ops::Range<u32>>, all: u32| {
            let end = ranges.fold(0, |end, range| {
                assert!(range.start == end && range.end > end, "{parts:?}");
                range.end
            });
            assert_eq!(end, all, "{parts:?}");
        };
        follow(&mut plan.sections().iter().map(|s| s.rows.clone()), plan.rows().len() as u32);
        follow(&mut plan.rows().iter().map(|row| row.places.clone()), count);
        follow(&mut plan.sections().iter().map(|section| plan.places_of(section)), count);
        assert!(plan.places().iter().all(|place| plan.grade_of(place).is_some()));
        // Each seat is in one run of its row, and no place for standing is in any.
        for (index, place) in (0..).zip(plan.places()) {
            let row = plan.row_of(place);
            assert!(row.places.contains(&index));
            let runs: Vec<_> = plan.runs().iter().filter(|run| run.contains(&index)).collect();
            let is_seat = plan.section_of(place).standing.is_none();
            assert_eq!(runs.len(), usize::from(is_seat), "{parts:?}");
            assert!(
                runs.iter().all(|run| row.places.start <= run.start && run.end <= row.places.end)
            );
            let ends = runs.first().is_none_or(|run| run.end == index + 1);
            assert_eq!(plan.next_is_beside(index), !ends);
        }
        // None was lost or changed, whatever the order within a row.
        let mut given = 0;
        for section in &parts.sections {
            match &section.seating {
                SeatingPart::Standing { count, .. } => given += count,
                SeatingPart::Rows(rows) => {
                    for part in rows.iter().flat_map(|row| &row.places) {
                        given += 1;
                        let same = plan.places().iter().filter(|place| {
                            *place.label == *part.label
                                && (place.grade, place.at) == (part.grade, part.at)
                        });
                        assert!(same.count() >= 1, "{part:?} of {parts:?}");
                    }
                }
            }
        }
        assert_eq!(given, count);
    }
    println!("{good} made, {bad} refused");
    assert!(good > 1_000 && bad > 1_000);
}
