//! What plans are made of, and what is wrong with some.

use super::*;

fn point(x: i32, y: i32) -> Point {
    Point { x, y }
}

/// A row at this height, with places at these, labelled from 1 on.
fn row(name: &str, y: i32, places: &[i32]) -> RowPart {
    let place = |(label, x): (u32, &i32)| PlacePart {
        label: label.to_string(),
        grade: 0,
        at: point(*x, y),
    };
    let places = (1..).zip(places).map(place).collect();
    RowPart { name: name.to_owned(), places, cuts: None }
}

fn section(name: &str, rows: Vec<RowPart>) -> SectionPart {
    SectionPart { name: name.to_owned(), seating: SeatingPart::Rows(rows) }
}

fn parts(sections: Vec<SectionPart>) -> Parts {
    Parts {
        name: "Hall".to_owned(),
        size: point(1_000, 1_000),
        stage: point(50, 0),
        grades: vec!["R".to_owned(), "S".to_owned()],
        sections,
    }
}

fn one_row(row: RowPart) -> Parts {
    parts(vec![section("A", vec![row])])
}

fn problems(parts: Parts) -> Vec<PlanProblem> {
    let problems = Plan::new(parts).unwrap_err();
    assert_eq!(problems.listed.len(), problems.count);
    problems.listed
}

fn seat(section: &str, row: &str, label: &str) -> Where {
    Where::Place { section: section.into(), row: row.into(), label: label.into() }
}

#[test]
fn a_plan_has_its_parts_in_order() {
    let area = Area { at: point(0, 100), size: point(40, 20) };
    let standing = SeatingPart::Standing { area, grade: 1, count: 3 };
    let mut second = row("2", 30, &[0, 20, 40]);
    second.cuts = Some(vec![2, 0, 2, 7]);
    second.places[2].grade = 1;
    let plan = Plan::new(parts(vec![
        section("nothing", vec![row("1", 0, &[])]),
        section("A", vec![row("1", 10, &[0, 20]), row("nothing", 20, &[]), second]),
        SectionPart { name: "Floor".to_owned(), seating: standing },
    ]))
    .unwrap();
    assert_eq!(
        (plan.name(), plan.size(), plan.stage()),
        ("Hall", point(1_000, 1_000), point(50, 0))
    );
    let names: Vec<_> = plan.sections().iter().map(|section| section.name.as_str()).collect();
    assert_eq!(names, ["A", "Floor"]);
    assert_eq!(plan.rows().iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["1", "2", ""]);
    assert_eq!(plan.places_of(&plan.sections()[0]), 0..5);
    assert_eq!(plan.places_of(&plan.sections()[1]), 5..8);
    assert_eq!(plan.runs(), [0..2, 2..4, 4..5]);
    let beside: Vec<u32> = (0..9).filter(|index| plan.next_is_beside(*index)).collect();
    assert_eq!(beside, [0, 2]);

    let told = |number| {
        let place = plan.place(number).unwrap();
        let (section, row) = (plan.section_of(place), plan.row_of(place));
        let grade = plan.grade_of(place).unwrap();
        (&*section.name, &*row.name, &*place.label, grade, place.at)
    };
    assert_eq!(told(5), ("A", "2", "3", "S", point(40, 30)));
    assert_eq!(told(8), ("Floor", "", "3", "S", point(20, 110)));
    assert_eq!((plan.place(0), plan.place(9), plan.place_count()), (None, None, 8));
    assert_eq!((plan.grade_named("S"), plan.grade_named("A")), (Some(1), None));
    assert_eq!((plan.section_named("Floor"), plan.section_named("nothing")), (Some(1), None));
}

#[test]
fn a_hall_of_which_nothing_is_known_is_one_run_of_numbers() {
    let plan = Plan::numbered(3);
    assert_eq!(plan.runs().to_vec(), vec![0..3]);
    let place = plan.place(3).unwrap();
    assert_eq!((&*place.label, plan.grade_of(place)), ("3", None));
    assert_eq!((&*plan.row_of(place).name, &*plan.section_of(place).name), ("", ""));
    assert_eq!((Plan::numbered(0).place_count(), Plan::numbered(0).runs()), (0, &[][..]));
    assert_eq!(Plan::numbered(1).runs().to_vec(), vec![0..1]);
}

#[test]
fn a_row_is_cut_where_a_gap_is_wider_than_usual() {
    let runs = |places: &[i32]| Plan::new(one_row(row("1", 0, places))).unwrap().runs().to_vec();
    // 1.6 times the median is no gap yet.
    assert_eq!(runs(&[0, 10, 20, 36, 46]), vec![0..5]);
    assert_eq!(runs(&[0, 10, 20, 37, 47]), vec![0..3, 3..5]);
    assert_eq!(runs(&[0]), vec![0..1]);
    // Of two there is nothing to compare with, and of three the narrower spacing counts.
    assert_eq!(runs(&[0, 900]), vec![0..2]);
    assert_eq!(runs(&[0, 900, 920]), vec![0..1, 1..3]);
    assert_eq!(runs(&[0, 20, 60, 80, 120]), vec![0..2, 2..4, 4..5]);
    assert_eq!(runs(&[120, 80, 60, 20, 0]), vec![0..1, 1..3, 3..5]);
    // Where it is said, in whatever order, positions say nothing.
    let mut said = row("1", 0, &[0, 10, 20, 37, 47]);
    said.cuts = Some(vec![4, 1, 4, 0, 5, u32::MAX]);
    assert_eq!(Plan::new(one_row(said)).unwrap().runs(), [0..1, 1..4, 4..5]);
}

#[test]
fn places_that_were_not_named_in_order_are_put_in_order() {
    let labels = |row: RowPart| {
        let plan = Plan::new(one_row(row)).unwrap();
        let labels: Vec<_> = plan.places().iter().map(|place| place.label.to_string()).collect();
        (labels.join(" "), plan.runs().len())
    };
    // Odd numbers to the one side, even ones to the other.
    assert_eq!(labels(row("1", 0, &[50, 40, 60, 30, 70])), ("4 2 1 3 5".to_owned(), 1));
    // From the side of the first that was named to that of the last.
    assert_eq!(labels(row("1", 0, &[70, 60, 30, 40, 50])), ("1 2 5 4 3".to_owned(), 1));
    // What was said is left alone.
    let mut said = row("1", 0, &[50, 60, 40, 70, 30]);
    said.cuts = Some(Vec::new());
    assert_eq!(labels(said), ("1 2 3 4 5".to_owned(), 1));
    // Neither is a row that goes round three quarters of the stage.
    let ring = [(0, 30), (-22, 22), (-30, 0), (-22, -22), (0, -30), (22, -22), (30, 0)];
    let mut round = row("1", 0, &[0; 7]);
    for (place, (x, y)) in round.places.iter_mut().zip(ring) {
        place.at = point(x, y);
    }
    assert_eq!(labels(round.clone()), ("1 2 3 4 5 6 7".to_owned(), 1));
    // Half a circle is no trouble.
    round.places.truncate(5);
    round.places.swap(1, 3);
    assert_eq!(labels(round), ("1 2 3 4 5".to_owned(), 1));
}

#[test]
fn everything_that_is_wrong_is_told() {
    let long = "x".repeat(NAME_MAX + 1);
    let mut odd = row("", 0, &[0, 20, 40, 60]);
    odd.places[1].label = " ".to_owned();
    odd.places[2].grade = 2;
    odd.places[3].label = "1".to_owned();
    let area = Area { at: point(0, 100), size: point(0, 20) };
    let standing = SeatingPart::Standing { area, grade: 7, count: 2 };
    let mut parts = parts(vec![
        section(&long, vec![odd]),
        SectionPart { name: "Floor".to_owned(), seating: standing },
    ]);
    parts.name = String::new();
    parts.grades[1] = "R".to_owned();
    parts.size = point(0, 1);
    let x = "x".repeat(NAME_MAX);
    assert_eq!(
        problems(parts),
        [
            PlanProblem::NoName(Where::Plan),
            PlanProblem::OutOfRange(Where::Plan),
            PlanProblem::DuplicateGrade(Where::Grade("R".to_owned())),
            PlanProblem::LongName(Where::Section(x.clone())),
            PlanProblem::OutOfRange(Where::Section("Floor".to_owned())),
            PlanProblem::UnknownGrade(Where::Section("Floor".to_owned())),
            PlanProblem::NoName(Where::Row { section: x.clone(), row: "#1".to_owned() }),
            PlanProblem::NoName(seat(&x, "#1", "#2")),
            PlanProblem::UnknownGrade(seat(&x, "#1", "3")),
            PlanProblem::DuplicatePlace(seat(&x, "#1", "1")),
        ]
    );
}

#[test]
fn names_may_be_as_long_as_is_said() {
    let name = "좌".repeat(NAME_MAX);
    let mut parts = one_row(row(&name, 0, &[0]));
    parts.sections[0].name.clone_from(&name);
    parts.grades[0].clone_from(&name);
    parts.name = name;
    assert!(Plan::new(parts).is_ok());
}

#[test]
fn a_plan_without_a_place_or_with_too_many_is_none() {
    assert_eq!(problems(parts(Vec::new())), [PlanProblem::NoPlace]);
    assert_eq!(problems(one_row(row("1", 0, &[]))), [PlanProblem::NoPlace]);
    let area = Area { at: point(0, 0), size: point(10, 10) };
    let standing = |count: u32| SectionPart {
        name: count.to_string(),
        seating: SeatingPart::Standing { area, grade: 0, count },
    };
    assert!(Plan::new(parts(vec![standing(1), standing(PLACES_MAX - 1)])).is_ok());
    let count = u64::from(PLACES_MAX) + 1;
    let too_many = parts(vec![standing(1), standing(PLACES_MAX)]);
    assert_eq!(problems(too_many), [PlanProblem::TooManyPlaces { count }]);
    // Nothing of so many is made.
    let huge = parts(vec![standing(u32::MAX), standing(u32::MAX - 1)]);
    let count = 2 * u64::from(u32::MAX) - 1;
    assert_eq!(problems(huge), [PlanProblem::TooManyPlaces { count }]);

    let mut graded = one_row(row("1", 0, &[0]));
    graded.grades = (0..GRADES_MAX).map(|grade| grade.to_string()).collect();
    assert!(Plan::new(graded.clone()).is_ok());
    graded.grades.push("more".to_owned());
    assert_eq!(problems(graded), [PlanProblem::TooManyGrades { count: GRADES_MAX + 1 }]);
}

#[test]
fn places_of_one_name_are_told_wherever_they_are() {
    // Two sections and two rows may be called alike, as long as the places are not.
    let mut other = row("1", 30, &[0, 20]);
    other.places[0].label = "3".to_owned();
    let two = |other: RowPart| {
        parts(vec![section("A", vec![row("1", 0, &[0, 20])]), section("A", vec![other])])
    };
    assert_eq!(problems(two(other.clone())), [PlanProblem::DuplicatePlace(seat("A", "1", "2"))]);
    other.places[1].label = "4".to_owned();
    assert!(Plan::new(two(other)).is_ok());
}

#[test]
fn places_that_overlap_are_told_of() {
    // The usual distance is 30: ten is far enough, nine is not.
    let beside = |x| {
        let rows = vec![row("1", 0, &[0, 30, 60, 90, 120]), row("2", 0, &[x])];
        Plan::new(parts(vec![section("A", rows)]))
    };
    assert!(beside(130).is_ok() && beside(-10).is_ok());
    for (x, with) in [(129, "5"), (-9, "1"), (60, "3"), (51, "3")] {
        let overlap =
            PlanProblem::Overlap { place: seat("A", "2", "1"), with: seat("A", "1", with) };
        assert_eq!(beside(x).unwrap_err().listed, [overlap]);
    }
    // Of places without neighbours nothing is usual.
    let alone = |x| parts(vec![section("A", vec![row("1", 0, &[0]), row("2", 0, &[x])])]);
    assert!(Plan::new(alone(1)).is_ok());
    assert_eq!(problems(alone(0)).len(), 1);
}

#[test]
fn a_hundred_problems_are_named_and_all_are_counted() {
    let all: Vec<i32> = (0..PLACES_MAX as i32).collect();
    // All at one point: neither the count nor the time grows with the square of it.
    let mut row = row("1", 0, &all);
    row.places.iter_mut().for_each(|place| place.at = point(5, 5));
    let problems = Plan::new(one_row(row)).unwrap_err();
    assert_eq!(problems.count, PLACES_MAX as usize - 1);
    assert_eq!(problems.listed.len(), PROBLEMS_MAX);
    let is_overlap = |problem: &PlanProblem| matches!(problem, PlanProblem::Overlap { .. });
    assert!(problems.listed.iter().all(is_overlap));
}

/// Otherwise a name would be looked at for each place: a hundred gigabytes.
#[test]
fn names_without_end_take_no_more_time_than_it_takes_to_read_them() {
    let all: Vec<i32> = (0..PLACES_MAX as i32).collect();
    let long = "x".repeat(1_000_000);
    let mut row = row(&long, 0, &all);
    row.places[1].label = "1".to_owned();
    let parts = parts(vec![section(&long, vec![row])]);
    let x = "x".repeat(NAME_MAX);
    assert_eq!(
        problems(parts),
        [
            PlanProblem::LongName(Where::Section(x.clone())),
            PlanProblem::LongName(Where::Row { section: x.clone(), row: x.clone() }),
            PlanProblem::DuplicatePlace(seat(&x, &x, "1")),
        ]
    );
}

#[test]
fn positions_at_the_edge_of_what_is_allowed_overflow_nothing() {
    let max = COORDINATE_MAX;
    let corners = [(-max, -max), (max, max), (-max, max), (max, -max)];
    let at = |corners: &[(i32, i32)]| {
        let mut row = row("1", 0, &vec![0; corners.len()]);
        for (place, (x, y)) in row.places.iter_mut().zip(corners) {
            place.at = point(*x, *y);
        }
        let mut parts = one_row(row);
        parts.stage = point(-max, -max);
        Plan::new(parts)
    };
    assert!(at(&corners).is_ok());
    for beyond in [(max + 1, 0), (0, -max - 1), (i32::MIN, i32::MAX)] {
        let problems = at(&[(0, 0), beyond, (i32::MAX, i32::MIN)]).unwrap_err();
        let place = |label| PlanProblem::OutOfRange(seat("A", "1", label));
        assert_eq!(problems.listed, [place("2"), place("3")]);
    }
    // As many as there may be, as far away as can be.
    let far = (0..PLACES_MAX as i32).map(|index| (max, max - index)).collect::<Vec<_>>();
    let plan = at(&far).unwrap();
    let all = crate::seating::PlaceSet::all(PLACES_MAX);
    let wish =
        crate::seating::Wish { count: PLACES_MAX, grade: None, section: None, together: true };
    assert_eq!(crate::seating::choose(&plan, &all, &wish).unwrap().len(), PLACES_MAX as usize);
}

#[test]
fn what_is_told_names_the_place_as_people_do() {
    assert_eq!(seat("A", "3", "12").to_string(), "section A, row 3, seat 12");
    let standing = Where::Standing { section: "Floor".into(), label: "7".into() };
    assert_eq!(standing.to_string(), "section Floor, place 7");
    let row = Where::Row { section: "A".into(), row: "#3".into() };
    assert_eq!(row.to_string(), "section A, row #3");
}
