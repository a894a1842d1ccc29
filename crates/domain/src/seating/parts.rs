//! A plan made of its parts, and what can be wrong with them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::ops::Range;

use foldhash::fast::FixedState;

use super::{Area, Place, Plan, Point, Row, Section};

/// The most places of a plan.
pub const PLACES_MAX: u32 = 100_000;
/// The most grades of a plan.
pub const GRADES_MAX: usize = 100;
/// The most characters of a name or a label.
pub const NAME_MAX: usize = 200;
/// Coordinates are from minus this to this, so that no sum of squared distances overflows.
pub const COORDINATE_MAX: i32 = 1_000_000;
/// The most problems that are named.
pub const PROBLEMS_MAX: usize = 100;

/// What a plan is made of. Its sections, rows and places are in the order in which they are numbered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The name of the hall.
    pub name: String,
    /// Its width and its height.
    pub size: Point,
    /// Where the stage is.
    pub stage: Point,
    /// Its grades.
    pub grades: Vec<String>,
    /// Its sections. Those without places are left out.
    pub sections: Vec<SectionPart>,
}

/// A section of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionPart {
    /// Its name. Sections may share one.
    pub name: String,
    /// What is in it.
    pub seating: SeatingPart,
}

/// What is in a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeatingPart {
    /// Rows of seats. Those without places are left out.
    Rows(Vec<RowPart>),
    /// Places for standing. They are labelled from 1 on.
    Standing {
        /// Where.
        area: Area,
        /// Their grade, as an index.
        grade: u16,
        /// How many.
        count: u32,
    },
}

/// A row of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowPart {
    /// Its name.
    pub name: String,
    /// Its places.
    pub places: Vec<PlacePart>,
    /// The places, counted from 0, that have an aisle or a gap before them. Where nothing is said, it follows
    /// from the positions, and so does the order of the places: as they stand along the row.
    pub cuts: Option<Vec<u32>>,
}

/// A place of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacePart {
    /// What is printed on it.
    pub label: String,
    /// Its grade, as an index.
    pub grade: u16,
    /// Where it is.
    pub at: Point,
}

/// Something of a plan, as people call it. What has no name is called by its number among its like (`#3`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// The hall itself.
    Plan,
    /// A grade.
    Grade(String),
    /// A section.
    Section(String),
    /// A row.
    Row {
        /// The section that it is in.
        section: String,
        /// The row.
        row: String,
    },
    /// A place for standing.
    Standing {
        /// The section that it is in.
        section: String,
        /// The place.
        label: String,
    },
    /// A place of a row.
    Place {
        /// The section that it is in.
        section: String,
        /// The row that it is in.
        row: String,
        /// The place.
        label: String,
    },
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan => f.write_str("the plan"),
            Self::Grade(grade) => write!(f, "grade {grade}"),
            Self::Section(section) => write!(f, "section {section}"),
            Self::Row { section, row } => write!(f, "section {section}, row {row}"),
            Self::Standing { section, label } => write!(f, "section {section}, place {label}"),
            Self::Place { section, row, label } => {
                write!(f, "section {section}, row {row}, seat {label}")
            }
        }
    }
}

/// What is wrong with the parts of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanProblem {
    /// There is no place at all.
    NoPlace,
    /// There are more than [`PLACES_MAX`] places.
    TooManyPlaces {
        /// How many there are.
        count: u64,
    },
    /// There are more than [`GRADES_MAX`] grades.
    TooManyGrades {
        /// How many there are.
        count: usize,
    },
    /// A name is empty.
    NoName(Where),
    /// A name has more than [`NAME_MAX`] characters.
    LongName(Where),
    /// A coordinate is beyond [`COORDINATE_MAX`], or a size is not above zero.
    OutOfRange(Where),
    /// Two grades have the same name.
    DuplicateGrade(Where),
    /// A place has a grade that the plan has not.
    UnknownGrade(Where),
    /// Two places of a section have the same row and the same label.
    DuplicatePlace(Where),
    /// Two places are nearer to each other than a third of the usual distance of neighbours.
    Overlap {
        /// The one.
        place: Where,
        /// The other.
        with: Where,
    },
}

/// All that is wrong with the parts of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanProblems {
    /// The first of them, [`PROBLEMS_MAX`] at the most.
    pub listed: Vec<PlanProblem>,
    /// How many there are.
    pub count: usize,
}

impl PlanProblems {
    fn add(&mut self, problem: impl FnOnce() -> PlanProblem) {
        if self.listed.len() < PROBLEMS_MAX {
            self.listed.push(problem());
        }
        self.count += 1;
    }

    fn check_name(&mut self, name: &str, whose: impl FnOnce() -> Where) {
        if name.trim().is_empty() {
            self.add(|| PlanProblem::NoName(whose()));
        } else if name.chars().nth(NAME_MAX).is_some() {
            self.add(|| PlanProblem::LongName(whose()));
        }
    }
}

impl Plan {
    /// Makes a plan of its parts.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn new(parts: Parts) -> Result<Self, PlanProblems> {
        let mut problems = PlanProblems::default();
        let count = parts.sections.iter().map(SectionPart::count).fold(0, u64::saturating_add);
        if count == 0 {
            problems.add(|| PlanProblem::NoPlace);
        }
        if count > u64::from(PLACES_MAX) {
            problems.add(|| PlanProblem::TooManyPlaces { count });
        }
        if parts.grades.len() > GRADES_MAX {
            problems.add(|| PlanProblem::TooManyGrades { count: parts.grades.len() });
        }
        if problems.count > 0 {
            return Err(problems);
        }
        let Parts { name, size, stage, grades, sections } = parts;
        let mut flat = Flat::of(sections);
        problems.check_name(&name, || Where::Plan);
        if ![size, stage].into_iter().all(is_in_range) || size.x < 1 || size.y < 1 {
            problems.add(|| PlanProblem::OutOfRange(Where::Plan));
        }
        check_grades(&grades, &mut problems);
        let is_in_range = flat.check_parts(grades.len(), &mut problems);
        flat.check_labels(&mut problems);
        let mut runs = Vec::new();
        if is_in_range {
            runs = flat.runs();
            flat.check_overlaps(&runs, &mut problems);
        }
        if problems.count > 0 {
            return Err(problems);
        }
        Ok(Self::of(name, (size, stage), grades, (flat.sections, flat.rows, flat.places, runs)))
    }
}

impl SectionPart {
    fn count(&self) -> u64 {
        match &self.seating {
            SeatingPart::Rows(rows) => rows.iter().map(|row| row.places.len() as u64).sum(),
            SeatingPart::Standing { count, .. } => u64::from(*count),
        }
    }
}

fn is_in_range(point: Point) -> bool {
    let range = -COORDINATE_MAX..=COORDINATE_MAX;
    range.contains(&point.x) && range.contains(&point.y)
}

fn check_grades(grades: &[String], problems: &mut PlanProblems) {
    for (index, grade) in grades.iter().enumerate() {
        let this = || Where::Grade(shown(grade, index));
        problems.check_name(grade, this);
        if grades[..index].contains(grade) {
            problems.add(|| PlanProblem::DuplicateGrade(this()));
        }
    }
}

/// A name as it is told: its beginning, or its number among its like where there is none.
fn shown(name: &str, index: usize) -> String {
    if name.trim().is_empty() {
        return format!("#{}", index + 1);
    }
    name.chars().take(NAME_MAX).collect()
}

/// Sections, rows and places in their order.
struct Flat {
    sections: Vec<Section>,
    rows: Vec<Row>,
    places: Vec<Place>,
    /// Of each row, where it is cut, if that was said.
    cuts: Vec<Option<Vec<u32>>>,
}

impl Flat {
    /// There are not more places than a plan may have.
    fn of(parts: Vec<SectionPart>) -> Self {
        let mut flat =
            Self { sections: Vec::new(), rows: Vec::new(), places: Vec::new(), cuts: Vec::new() };
        for part in parts.into_iter().filter(|part| part.count() > 0) {
            let first_row = flat.rows.len() as u32;
            let standing = match part.seating {
                SeatingPart::Rows(rows) => {
                    for row in rows.into_iter().filter(|row| !row.places.is_empty()) {
                        let places = row.places.into_iter();
                        let places = places.map(|part| (part.label.into(), part.grade, part.at));
                        flat.add_row(row.name, places, row.cuts);
                    }
                    None
                }
                SeatingPart::Standing { area, grade, count } => {
                    let place = |number: u32| (number.to_string().into(), grade, area.middle());
                    flat.add_row(String::new(), (1..=count).map(place), None);
                    Some(area)
                }
            };
            let rows = first_row..flat.rows.len() as u32;
            flat.sections.push(Section { name: part.name, standing, rows });
        }
        flat
    }

    fn add_row(
        &mut self,
        name: String,
        places: impl Iterator<Item = (Box<str>, u16, Point)>,
        cuts: Option<Vec<u32>>,
    ) {
        let (row, first) = (self.rows.len() as u32, self.places.len() as u32);
        let section = self.sections.len() as u32;
        self.places.extend(places.map(|(label, grade, at)| Place { label, row, grade, at }));
        self.rows.push(Row { name, section, places: first..self.places.len() as u32 });
        self.cuts.push(cuts);
    }

    fn places_of(&self, row: &Row) -> &[Place] {
        &self.places[row.places.start as usize..row.places.end as usize]
    }

    fn section_name(&self, index: u32) -> String {
        shown(&self.sections[index as usize].name, index as usize)
    }

    fn row_name(&self, index: u32) -> String {
        let row = &self.rows[index as usize];
        let first = self.sections[row.section as usize].rows.start;
        shown(&row.name, (index - first) as usize)
    }

    fn where_is(&self, index: usize) -> Where {
        let place = &self.places[index];
        let row = &self.rows[place.row as usize];
        let section = self.section_name(row.section);
        let label = shown(&place.label, index - row.places.start as usize);
        if self.is_standing(row) {
            Where::Standing { section, label }
        } else {
            Where::Place { section, row: self.row_name(place.row), label }
        }
    }

    fn is_standing(&self, row: &Row) -> bool {
        self.sections[row.section as usize].standing.is_some()
    }

    /// Checks names, grades and positions one by one. Returns whether all positions are in range.
    fn check_parts(&self, grades: usize, problems: &mut PlanProblems) -> bool {
        let mut is_all_in_range = true;
        for (index, section) in (0..).zip(&self.sections) {
            let this = || Where::Section(self.section_name(index));
            problems.check_name(&section.name, this);
            if let Some(Area { at, size }) = section.standing {
                let end = Point { x: at.x.saturating_add(size.x), y: at.y.saturating_add(size.y) };
                if ![at, size, end].into_iter().all(is_in_range) || size.x < 1 || size.y < 1 {
                    is_all_in_range = false;
                    problems.add(|| PlanProblem::OutOfRange(this()));
                }
                let first = self.rows[section.rows.start as usize].places.start as usize;
                if usize::from(self.places[first].grade) >= grades {
                    problems.add(|| PlanProblem::UnknownGrade(this()));
                }
            }
        }
        for (index, row) in (0..).zip(&self.rows).filter(|(_, row)| !self.is_standing(row)) {
            problems.check_name(&row.name, || Where::Row {
                section: self.section_name(row.section),
                row: self.row_name(index),
            });
            for (index, place) in (row.places.start as usize..).zip(self.places_of(row)) {
                let this = || self.where_is(index);
                problems.check_name(&place.label, this);
                if !is_in_range(place.at) {
                    is_all_in_range = false;
                    problems.add(|| PlanProblem::OutOfRange(this()));
                }
                if usize::from(place.grade) >= grades {
                    problems.add(|| PlanProblem::UnknownGrade(this()));
                }
            }
        }
        is_all_in_range
    }

    /// Nobody finds a place whose name is that of another. Rows of one name in sections of one name are one
    /// here; so a name is looked at once, and not for each place.
    fn check_labels(&self, problems: &mut PlanProblems) {
        let sections = numbered(self.sections.iter().map(|section| &*section.name));
        let of_row = |row: &Row| sections[row.section as usize];
        let rows = numbered(self.rows.iter().map(|row| (of_row(row), &*row.name)));
        let of_place = |place: &Place| rows[place.row as usize];
        let mut known = HashSet::with_capacity_and_hasher(self.places.len(), FixedState::default());
        for (index, place) in self.places.iter().enumerate() {
            if !known.insert((of_place(place), &*place.label)) {
                problems.add(|| PlanProblem::DuplicatePlace(self.where_is(index)));
            }
        }
    }

    /// Returns the runs of all rows, and puts the places of rows in order whose cuts were not given.
    fn runs(&mut self) -> Vec<Range<u32>> {
        let mut runs = Vec::new();
        for (row, cuts) in self.rows.iter().zip(&mut self.cuts) {
            if self.sections[row.section as usize].standing.is_some() {
                continue;
            }
            let places = &mut self.places[row.places.start as usize..row.places.end as usize];
            let mut cuts = cuts.take().unwrap_or_else(|| {
                put_in_order(places);
                gaps(places)
            });
            cuts.retain(|cut| (1..places.len() as u32).contains(cut));
            cuts.sort_unstable();
            cuts.dedup();
            let mut start = row.places.start;
            for end in cuts.into_iter().map(|cut| row.places.start + cut).chain([row.places.end]) {
                runs.push(start..end);
                start = end;
            }
        }
        runs
    }

    /// Each seat is compared with those near it that came before, as far as these do not overlap themselves:
    /// of such there are few in a cell, however many places there are.
    fn check_overlaps(&self, runs: &[Range<u32>], problems: &mut PlanProblems) {
        let all = |run: &Range<u32>| &self.places[run.start as usize..run.end as usize];
        let mut squares: Vec<i64> = runs.iter().flat_map(|run| squares(all(run))).collect();
        squares.retain(|square| *square > 0);
        // Without any neighbours only those overlap that are at the same point.
        let usual = median(&mut squares).unwrap_or(1);
        let side = (usual / 9).isqrt() + 1;
        let cell_of =
            |at: Point| (i64::from(at.x).div_euclid(side), i64::from(at.y).div_euclid(side));
        let mut cells: HashMap<(i64, i64), Vec<usize>, FixedState> = HashMap::default();
        for index in runs.iter().flat_map(|run| run.start as usize..run.end as usize) {
            let at = self.places[index].at;
            let (x, y) = cell_of(at);
            let around = (-1..=1).flat_map(|dx| (-1..=1).map(move |dy| (x + dx, y + dy)));
            let mut near = around.filter_map(|cell| cells.get(&cell)).flatten();
            let overlaps = |other: &&usize| self.places[**other].at.square_to(at) * 9 < usual;
            match near.find(overlaps) {
                Some(&other) => problems.add(|| PlanProblem::Overlap {
                    place: self.where_is(index),
                    with: self.where_is(other),
                }),
                None => cells.entry((x, y)).or_default().push(index),
            }
        }
    }
}

/// A number for each of these, the same for those that are equal.
fn numbered<T: Eq + Hash>(names: impl Iterator<Item = T>) -> Vec<usize> {
    let mut known: HashMap<T, usize, FixedState> = HashMap::default();
    let number = |name| {
        let next = known.len();
        *known.entry(name).or_insert(next)
    };
    names.map(number).collect()
}

/// The squared distances of places that follow each other.
fn squares(places: &[Place]) -> impl Iterator<Item = i64> + '_ {
    places.windows(2).map(|pair| pair[0].at.square_to(pair[1].at))
}

/// The middle one; of two the smaller, so that one wide gap beside one spacing is a gap.
fn median(values: &mut [i64]) -> Option<i64> {
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable(middle).1)
}

/// The places, counted from 0, that are farther from the one before than 1.6 times the median.
fn gaps(row: &[Place]) -> Vec<u32> {
    let mut sorted: Vec<i64> = squares(row).collect();
    let Some(median) = median(&mut sorted) else { return Vec::new() };
    // 1.6² = 64/25.
    let is_gap = |square: i64| square * 25 > median * 64;
    (1..).zip(squares(row)).filter(|(_, square)| is_gap(*square)).map(|(index, _)| index).collect()
}

/// Puts the places of a row in the order in which they stand along the line between its ends, where that makes
/// the way from the first to the last shorter. It does not where a row bends by more than half a circle.
fn put_in_order(row: &mut [Place]) {
    let (Some(first), Some(last)) = (row.first(), row.last()) else { return };
    let farthest =
        |from: Point| row.iter().map(|place| place.at).max_by_key(|at| at.square_to(from));
    let Some(one) = farthest(first.at) else { return };
    let Some(other) = farthest(one) else { return };
    let along = |at: Point| {
        let part = |from: i32, to: i32, at: i32| {
            (i64::from(to) - i64::from(from)) * (i64::from(at) - i64::from(from))
        };
        part(one.x, other.x, at.x) + part(one.y, other.y, at.y)
    };
    // The direction stays as it was given.
    let sign = if along(first.at) <= along(last.at) { 1 } else { -1 };
    let key = |at: Point| sign * along(at);
    let given: Vec<Point> = row.iter().map(|place| place.at).collect();
    let mut sorted = given.clone();
    sorted.sort_by_key(|at| key(*at));
    if way(&sorted) < way(&given) {
        row.sort_by_key(|place| key(place.at));
    }
}

/// How long the way through these points is, in sixteenths.
fn way(points: &[Point]) -> i64 {
    points.windows(2).map(|pair| (pair[0].square_to(pair[1]) << 8).isqrt()).sum()
}

#[cfg(test)]
mod tests;
