//! Halls made up, for demonstrations and tests: they look like one, and have as many places as is wanted.

use super::{Area, PLACES_MAX, Parts, PlacePart, Point, RowPart, SeatingPart, SectionPart};

/// From seat to seat, and from row to row.
const SEAT: i32 = 24;
const ROW: i32 = 28;
/// Seats without an aisle between them, and the width of an aisle in seats.
const RUN: i32 = 20;
const AISLE: i32 = 2;
/// What is left free around the places.
const MARGIN: i32 = 40;

/// From here on a hall has three sections and a balcony, and from here on it has an area for standing.
const BALCONY_FROM: i32 = 120;
const STANDING_FROM: i32 = 1_000;

const GRADES: [&str; 4] = ["VIP", "R", "S", "A"];
const VIP: u16 = 0;
const R: u16 = 1;
const S: u16 = 2;
const A: u16 = 3;

/// Makes up a hall with so many places, of [`PLACES_MAX`] at the most.
///
/// Its rows bend around the stage. A small hall is one section; a larger one has A, B and C on the floor and a
/// balcony, and a large one an area for standing in front of them.
pub fn hall(name: &str, count: u32) -> Parts {
    let count = count.min(PLACES_MAX) as i32;
    let standing = if count < STANDING_FROM { 0 } else { count * 3 / 20 };
    let balcony = if count < BALCONY_FROM { 0 } else { count / 4 };
    let floor = Floor::new(count - standing - balcony, count >= BALCONY_FROM);
    let mut sections = Vec::new();
    if standing > 0 {
        sections.push(floor.standing(standing));
    }
    sections.extend(floor.sections());
    if balcony > 0 {
        sections.push(floor.balcony(balcony));
    }
    finished(name, sections)
}

/// The floor. The middle of its first row is at (0, 0).
struct Floor {
    /// How many seats the middle section has in a row.
    middle: i32,
    /// How many those on its sides have in the first row; 0 where there are none.
    side: i32,
    /// How many seats it has.
    count: i32,
}

/// How many seats a row has to the left, in the middle, and to the right.
type Split = [i32; 3];

impl Floor {
    fn new(count: i32, has_sides: bool) -> Self {
        let width = (count * 11 / 5).isqrt().max(1);
        let middle = if has_sides { width * 2 / 5 } else { width };
        let side = (width - middle) / 2;
        Self { middle, side, count }
    }

    /// So many seats as rows, the first of which has so many before it.
    fn rows(&self, count: i32, before: i32) -> Vec<Split> {
        let mut rows = Vec::new();
        let mut rest = count;
        while rest > 0 {
            let in_middle = rest.min(self.middle);
            // The sides grow towards the back.
            let wide =
                if self.side == 0 { 0 } else { self.side + (before + rows.len() as i32) / 4 };
            let beside = (rest - in_middle).min(2 * wide);
            rows.push([beside - beside / 2, in_middle, beside / 2]);
            rest -= in_middle + beside;
        }
        rows
    }

    /// Where the seats of a row are, from the left.
    fn seats(&self, [left, middle, right]: Split) -> [Vec<i32>; 3] {
        let inner = self.half() + 2 * AISLE * SEAT;
        let centred = (self.middle - middle) / 2;
        [
            (0..left).rev().map(|seat| -inner - offset(seat, self.side)).collect(),
            (0..middle).map(|seat| offset(centred + seat, self.middle) - self.half()).collect(),
            (0..right).map(|seat| inner + offset(seat, self.side)).collect(),
        ]
    }

    /// How far rows come forward, so far from the middle.
    fn bend(&self, x: i32) -> i32 {
        x * x / (5 * (self.half() + (self.side + 6) * SEAT))
    }

    fn half(&self) -> i32 {
        offset(self.middle - 1, self.middle) / 2
    }

    fn sections(&self) -> Vec<SectionPart> {
        let splits = self.rows(self.count, 0);
        let mut sides: [Vec<_>; 3] = Default::default();
        for (row, split) in splits.iter().enumerate() {
            let (in_middle, beside) = match row * 10 / splits.len() {
                0..3 => (VIP, R),
                3..4 => (R, R),
                4..6 => (R, S),
                6..8 => (S, S),
                _ if self.side == 0 => (A, A),
                _ => (S, S),
            };
            let grades = [beside, in_middle, beside];
            for ((rows, seats), grade) in sides.iter_mut().zip(self.seats(*split)).zip(grades) {
                rows.push((row as i32 * ROW, grade, seats));
            }
        }
        let names = if self.side == 0 { ["", "A", ""] } else { ["A", "B", "C"] };
        let there = names.into_iter().zip(sides).filter(|(name, _)| !name.is_empty());
        there.map(|(name, rows)| self.section(name, rows)).collect()
    }

    fn balcony(&self, count: i32) -> SectionPart {
        let before = self.rows(self.count, 0).len() as i32;
        let rows = (before + 2..).zip(self.rows(count, before));
        let rows = rows.map(|(row, split)| (row * ROW, A, self.seats(split).concat()));
        self.section("Balcony", rows.collect())
    }

    fn standing(&self, count: i32) -> SectionPart {
        let width = 2 * self.half();
        let height = count * 150 / width;
        let y = -2 * ROW - self.bend(self.half()) - height;
        let area = Area { at: Point { x: -self.half(), y }, size: Point { x: width, y: height } };
        let seating = SeatingPart::Standing { area, grade: R, count: count as u32 };
        SectionPart { name: "Standing".to_owned(), seating }
    }

    /// A section of rows, each so far from the stage, of one grade, and with seats there. Rows and seats are
    /// numbered from 1 on, from the stage and from the left.
    fn section(&self, name: &str, rows: Vec<(i32, u16, Vec<i32>)>) -> SectionPart {
        let row = |(number, (y, grade, seats)): (u32, (i32, u16, Vec<i32>))| {
            let place = |(label, x): (u32, i32)| PlacePart {
                label: label.to_string(),
                grade,
                at: Point { x, y: y - self.bend(x) },
            };
            let places = (1..).zip(seats).map(place).collect();
            RowPart { name: number.to_string(), places, cuts: None }
        };
        let rows = (1..).zip(rows).map(row).collect();
        SectionPart { name: name.to_owned(), seating: SeatingPart::Rows(rows) }
    }
}

/// How far a seat is from the first of its row, with the aisles between them. A row of about this width has no
/// aisle with less than half of the usual seats behind it.
fn offset(seat: i32, width: i32) -> i32 {
    let aisles = (seat / RUN).min((width + RUN / 2) / RUN - 1).max(0);
    (seat + aisles * AISLE) * SEAT
}

/// Moves everything so that nothing is left of or above the hall, and leaves out grades that no place has.
fn finished(name: &str, mut sections: Vec<SectionPart>) -> Parts {
    let mut points = Vec::new();
    let mut is_used = [false; GRADES.len()];
    each(&mut sections, |point, grade| {
        points.push(*point);
        is_used[usize::from(*grade)] = true;
    });
    let min = |of: fn(&Point) -> i32| points.iter().map(of).min().unwrap_or(0);
    let max = |of: fn(&Point) -> i32| points.iter().map(of).max().unwrap_or(0);
    // The stage is above all, and before the middle.
    let shift = Point { x: MARGIN - min(|at| at.x), y: 3 * MARGIN - min(|at| at.y) };
    let size = Point { x: max(|at| at.x) + shift.x + MARGIN, y: max(|at| at.y) + shift.y + MARGIN };
    let before = |grade: u16| is_used.iter().take(usize::from(grade)).filter(|used| **used).count();
    each(&mut sections, |point, grade| {
        *point = Point { x: point.x + shift.x, y: point.y + shift.y };
        *grade = before(*grade) as u16;
    });
    let grades = GRADES.iter().zip(is_used).filter(|(_, used)| *used);
    Parts {
        name: name.to_owned(),
        size,
        stage: Point { x: shift.x, y: MARGIN },
        grades: grades.map(|(grade, _)| (*grade).to_owned()).collect(),
        sections,
    }
}

/// Calls this with the position and the grade of everything.
fn each(sections: &mut [SectionPart], mut what: impl FnMut(&mut Point, &mut u16)) {
    for section in sections {
        match &mut section.seating {
            SeatingPart::Standing { area, grade, .. } => what(&mut area.at, grade),
            SeatingPart::Rows(rows) => {
                let places = rows.iter_mut().flat_map(|row| &mut row.places);
                places.for_each(|place| what(&mut place.at, &mut place.grade));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::seating::Plan;

    #[test]
    fn halls_of_every_size_have_no_problems_and_as_many_places() {
        // All up to 3,000 take half a minute, and are well.
        for count in (1..=300).chain((300..=3_000).step_by(37)).chain([50_000, PLACES_MAX]) {
            let plan = Plan::new(hall("Hall", count)).unwrap();
            assert_eq!(plan.place_count(), count);
            for place in plan.places() {
                let inside = (0..plan.size().x, 0..plan.size().y);
                assert!(
                    inside.0.contains(&place.at.x) && inside.1.contains(&place.at.y),
                    "{count}"
                );
                assert!(place.at.y > plan.stage().y, "{count}");
            }
            let used: HashSet<u16> = plan.places().iter().map(|place| place.grade).collect();
            assert_eq!(used.len(), plan.grades().len(), "{count}");
        }
    }

    #[test]
    fn a_hall_has_what_its_size_asks_for() {
        let names = |count| {
            let plan = Plan::new(hall("Hall", count)).unwrap();
            plan.sections().iter().map(|section| section.name.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(50), "A");
        assert_eq!(names(500), "A B C Balcony");
        assert_eq!(names(2_000), "Standing A B C Balcony");
        let plan = Plan::new(hall("Hall", 2_000)).unwrap();
        assert_eq!(plan.grades(), GRADES);
        let standing = &plan.sections()[0];
        assert!(standing.standing.is_some());
        assert_eq!(plan.places_of(standing), 0..300);
        // Wide rows have aisles.
        assert!(plan.runs().len() > plan.rows().len());
        assert!(plan.runs().iter().all(|run| run.len() <= 2 * RUN as usize));
    }

    #[test]
    fn a_hall_is_the_same_each_time() {
        assert_eq!(hall("Hall", 777), hall("Hall", 777));
        assert_eq!(hall("Hall", u32::MAX), hall("Hall", PLACES_MAX));
    }

    #[test]
    fn no_seat_is_inside_of_the_area_for_standing() {
        for count in (1_000..=3_000).step_by(50).chain([50_000]) {
            let plan = Plan::new(hall("Hall", count)).unwrap();
            let standing = &plan.sections()[0];
            let Area { at, size } = standing.standing.unwrap();
            let seats = plan.places_of(standing).end as usize..;
            let is_inside = |place: &&crate::seating::Place| {
                (at.x..=at.x + size.x).contains(&place.at.x)
                    && (at.y..=at.y + size.y).contains(&place.at.y)
            };
            assert_eq!(plan.places()[seats].iter().find(is_inside), None, "{count}");
        }
    }
}
