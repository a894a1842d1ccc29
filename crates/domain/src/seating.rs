//! Halls: where the places of a session are, which are next to each other, and which of the free ones are
//! the best.
//!
//! A place is known by its index in the plan; the seat with number `n` of a session is the place with
//! index `n - 1`. `choose` says what somebody gets who names no seats, and `single` what a hold must not leave
//! behind.
//!
//! What does *not* belong here: how a plan is written down, and who has which place.

mod choose;
mod groups;
mod hall;
mod parts;
mod set;
mod single;

use std::ops::Range;

pub use choose::{NoChoice, Wish, choose};
pub use hall::hall;
pub use parts::{
    COORDINATE_MAX, GRADES_MAX, NAME_MAX, PLACES_MAX, PROBLEMS_MAX, Parts, PlacePart, PlanProblem,
    PlanProblems, RowPart, SeatingPart, SectionPart, Where,
};
pub use set::PlaceSet;
pub use single::{around, needless_single, single_beside};

/// A point of a hall, in the plan's own units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// To the right.
    pub x: i32,
    /// Away from the stage, or down.
    pub y: i32,
}

impl Point {
    /// The square of the distance to another point. Both are within [`COORDINATE_MAX`].
    fn square_to(self, other: Self) -> i64 {
        let dx = i64::from(self.x) - i64::from(other.x);
        let dy = i64::from(self.y) - i64::from(other.y);
        dx * dx + dy * dy
    }
}

/// A rectangle of a hall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Area {
    /// Its corner at the top left.
    pub at: Point,
    /// Its width and its height.
    pub size: Point,
}

impl Area {
    /// Returns its middle.
    pub fn middle(self) -> Point {
        Point {
            x: self.at.x.saturating_add(self.size.x / 2),
            y: self.at.y.saturating_add(self.size.y / 2),
        }
    }
}

/// A part of a hall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name, for people.
    pub name: String,
    /// Where it is, if its places are for standing: none has a position of its own, and all are alike.
    pub standing: Option<Area>,
    /// Its rows. A standing area has one, without a name.
    pub rows: Range<u32>,
}

/// A row of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is called, for people.
    pub name: String,
    /// The section that it is in.
    pub section: u32,
    /// The indexes of its places.
    pub places: Range<u32>,
}

/// A place for one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What is printed on it.
    pub label: Box<str>,
    /// The row that it is in.
    pub row: u32,
    /// Which of the plan's grades it has.
    pub grade: u16,
    /// Where it is; of a standing area, the middle of that.
    pub at: Point,
}

/// A hall: its sections, rows and places, in their order. It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    name: String,
    size: Point,
    stage: Point,
    grades: Vec<String>,
    sections: Vec<Section>,
    rows: Vec<Row>,
    places: Vec<Place>,
    /// Places that are next to each other, without an aisle between them.
    runs: Vec<Range<u32>>,
    /// The places whose next one stands beside them: the runs once more, to be asked quickly.
    links: PlaceSet,
    /// The places of each grade.
    graded: Vec<PlaceSet>,
    /// The places of areas for standing.
    standing: PlaceSet,
    /// For each place, and for the end: the squared distances to the stage of all before it, added up.
    far: Vec<i64>,
}

impl Plan {
    /// A hall of which nothing is known but how many places it has: they stand in one run, in the order of
    /// their numbers, and have neither grades nor positions.
    pub fn numbered(count: u32) -> Self {
        let all = 0..count;
        let place = |index: u32| Place {
            label: (u64::from(index) + 1).to_string().into_boxed_str(),
            row: 0,
            grade: 0,
            at: Point::default(),
        };
        let section = Section { name: String::new(), standing: None, rows: 0..1 };
        let row = Row { name: String::new(), section: 0, places: all.clone() };
        let runs = if count == 0 { Vec::new() } else { vec![all.clone()] };
        let places = all.map(place).collect();
        let point = Point::default();
        Self::of(
            String::new(),
            (point, point),
            Vec::new(),
            (vec![section], vec![row], places, runs),
        )
    }

    /// Adds what follows from the rest.
    fn of(
        name: String,
        (size, stage): (Point, Point),
        grades: Vec<String>,
        (sections, rows, places, runs): (Vec<Section>, Vec<Row>, Vec<Place>, Vec<Range<u32>>),
    ) -> Self {
        let count = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let mut links = PlaceSet::none(count);
        for run in &runs {
            links.insert_all(run.start..run.end - 1);
        }
        let mut graded = vec![PlaceSet::none(count); grades.len()];
        let mut far = Vec::with_capacity(places.len() + 1);
        let mut sum = 0;
        far.push(sum);
        for (index, place) in (0..).zip(&places) {
            if let Some(of_grade) = graded.get_mut(usize::from(place.grade)) {
                of_grade.insert(index);
            }
            sum += place.at.square_to(stage);
            far.push(sum);
        }
        let standing = PlaceSet::none(count);
        let mut plan = Self {
            name,
            size,
            stage,
            grades,
            sections,
            rows,
            places,
            runs,
            links,
            graded,
            standing,
            far,
        };
        for area in plan.areas().collect::<Vec<_>>() {
            plan.standing.insert_all(area);
        }
        plan
    }

    /// Returns its name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its width and its height.
    pub const fn size(&self) -> Point {
        self.size
    }

    /// Returns where the stage is: the nearer a place, the better.
    pub const fn stage(&self) -> Point {
        self.stage
    }

    /// Returns its grades. There are none where nothing is known of the hall.
    pub fn grades(&self) -> &[String] {
        &self.grades
    }

    /// Returns its sections.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Returns the rows of all sections.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns all places.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Returns how many places there are.
    pub fn place_count(&self) -> u32 {
        self.links.size()
    }

    /// Returns the runs: places next to each other, without an aisle between them. Places of standing areas
    /// are in none.
    pub fn runs(&self) -> &[Range<u32>] {
        &self.runs
    }

    /// Returns the place that the seat with this number is, counted from 1.
    pub fn place(&self, number: u32) -> Option<&Place> {
        self.places.get(number.checked_sub(1)? as usize)
    }

    /// Returns the name of the grade of a place.
    pub fn grade_of(&self, place: &Place) -> Option<&str> {
        self.grades.get(usize::from(place.grade)).map(String::as_str)
    }

    /// Returns the row of a place.
    pub fn row_of(&self, place: &Place) -> &Row {
        &self.rows[place.row as usize]
    }

    /// Returns the section of a place.
    pub fn section_of(&self, place: &Place) -> &Section {
        &self.sections[self.row_of(place).section as usize]
    }

    /// Returns the indexes of the places of a section.
    pub fn places_of(&self, section: &Section) -> Range<u32> {
        let rows = &self.rows[section.rows.start as usize..section.rows.end as usize];
        match (rows.first(), rows.last()) {
            (Some(first), Some(last)) => first.places.start..last.places.end,
            _ => 0..0,
        }
    }

    /// Returns the index of the grade with this name.
    pub fn grade_named(&self, name: &str) -> Option<u16> {
        let index = self.grades.iter().position(|grade| grade == name)?;
        u16::try_from(index).ok()
    }

    /// Returns the index of the first section with this name.
    pub fn section_named(&self, name: &str) -> Option<u32> {
        let index = self.sections.iter().position(|section| section.name == name)?;
        u32::try_from(index).ok()
    }

    /// Whether a place is of the grade and in the section that are wished for. Sections of the same name are
    /// one.
    pub fn fits(&self, place: &Place, wish: &Wish) -> bool {
        let is_here = |wanted: u32| {
            let wanted = self.sections.get(wanted as usize);
            wanted.is_some_and(|wanted| wanted.name == self.section_of(place).name)
        };
        wish.grade.is_none_or(|grade| grade == place.grade) && wish.section.is_none_or(is_here)
    }

    /// Whether the places with this index and with the next one stand next to each other.
    pub fn next_is_beside(&self, index: u32) -> bool {
        self.links.contains(index)
    }

    /// The places of each area for standing.
    fn areas(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        let areas = self.sections.iter().filter(|section| section.standing.is_some());
        areas.map(|area| self.places_of(area))
    }

    /// How many places of a range have this grade.
    fn count_of(&self, grade: u16, range: Range<u32>) -> u32 {
        self.graded.get(usize::from(grade)).map_or(0, |of_grade| of_grade.count_in(range))
    }

    /// The neighbour before this place.
    fn before(&self, index: u32) -> Option<u32> {
        index.checked_sub(1).filter(|before| self.links.contains(*before))
    }

    /// The neighbour behind this place.
    fn behind(&self, index: u32) -> Option<u32> {
        self.links.contains(index).then(|| index + 1)
    }
}
