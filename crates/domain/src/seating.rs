//! Halls: where the places of a session are, which are next to each other, and which of the free ones are
//! the best.
//!
//! A place is known by its index in the plan; the seat with number `n` of a session is the place with
//! index `n - 1`.

use std::ops::Range;

/// A point of a hall, in the plan's own units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// To the right.
    pub x: i32,
    /// Away from the stage, or down.
    pub y: i32,
}

/// A part of a hall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name, for people.
    pub name: String,
    /// Whether its places are for standing: none has a position of its own, and all are alike.
    pub standing: bool,
    /// Its rows. A standing area has one.
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
    pub label: String,
    /// The row that it is in.
    pub row: u32,
    /// Which of the plan's grades it has.
    pub grade: u16,
    /// Where it is.
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
}
