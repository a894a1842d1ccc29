//! Seating plans of pretix, as its public editor writes them, made into halls.
//!
//! What is told of a plan is what an operator can look for in the editor: zones are sections, categories are
//! grades. Positions are relative to the row, and those of rows to the zone. What else is in such a plan is
//! passed over.
//!
//! What does not belong here: what a hall must be like (`domain::seating`), and how it is stored.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{self, Write};

use boxoffice_backends::store::StoredPlan;
use boxoffice_domain::seating::{
    Area, COORDINATE_MAX, PROBLEMS_MAX, Parts, PlacePart, Plan, PlanProblem, PlanProblems, Point,
    RowPart, SeatingPart, SectionPart, Where,
};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A seating plan of pretix (`seating-plan.schema.json`). Fields that are not named here are passed over.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PretixPlan {
    /// What it is called.
    #[serde(deserialize_with = "text")]
    name: String,
    /// Its categories, of which each becomes a grade.
    #[serde(deserialize_with = "or_default")]
    categories: Vec<PretixCategory>,
    /// Its zones, of which each becomes a section.
    #[serde(deserialize_with = "or_default")]
    zones: Vec<PretixZone>,
    /// How large it is.
    #[serde(deserialize_with = "or_default")]
    size: PretixSize,
}

/// A category of seats.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PretixCategory {
    /// What it is called.
    #[serde(deserialize_with = "text")]
    name: String,
}

/// A part of a plan.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PretixZone {
    /// What it is called.
    #[serde(deserialize_with = "text")]
    name: String,
    /// Its id, which stands for a name that it has not.
    #[serde(deserialize_with = "text")]
    zone_id: String,
    /// Where it is.
    #[serde(deserialize_with = "or_default")]
    position: PretixPoint,
    /// Its rows.
    #[serde(deserialize_with = "or_default")]
    rows: Vec<PretixRow>,
    /// Its areas, which are drawn, and may be for standing.
    #[serde(deserialize_with = "or_default")]
    areas: Vec<PretixArea>,
}

/// A row of a zone.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PretixRow {
    /// Its number.
    #[serde(deserialize_with = "text")]
    row_number: String,
    /// What it is called where it has no number.
    #[serde(deserialize_with = "text")]
    row_label: String,
    /// Where it is in its zone.
    #[serde(deserialize_with = "or_default")]
    position: PretixPoint,
    /// Its seats.
    #[serde(deserialize_with = "or_default")]
    seats: Vec<PretixSeat>,
}

/// A seat of a row.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PretixSeat {
    /// What tells it from all others of the plan.
    #[serde(deserialize_with = "text")]
    seat_guid: String,
    /// What is printed on it.
    #[serde(deserialize_with = "text")]
    seat_number: String,
    /// Where it is in its row.
    #[serde(deserialize_with = "or_default")]
    position: PretixPoint,
    /// The name of its category.
    #[serde(deserialize_with = "text")]
    category: String,
}

/// Something drawn in a zone.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PretixArea {
    /// What tells it from others.
    #[serde(deserialize_with = "text")]
    uuid: String,
    /// Where it is in its zone.
    #[serde(deserialize_with = "or_default")]
    position: PretixPoint,
    /// What is written in it.
    #[serde(deserialize_with = "or_default")]
    text: PretixText,
    /// How large it is, where it is a rectangle.
    rectangle: Option<PretixSize>,
    /// Where it is a circle.
    circle: Option<PretixCircle>,
    /// Where it is an ellipse.
    ellipse: Option<PretixEllipse>,
    /// Where it is a polygon.
    polygon: Option<PretixPolygon>,
}

/// What is written in an area.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PretixText {
    /// The words.
    #[serde(deserialize_with = "text")]
    text: String,
}

/// A point, from the left and from the top.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PretixPoint {
    /// From the left.
    x: f64,
    /// From the top.
    y: f64,
}

/// A size.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PretixSize {
    /// From the left to the right.
    width: f64,
    /// From the top to the bottom.
    height: f64,
}

/// A circle around its position.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PretixCircle {
    /// Its radius.
    radius: f64,
}

/// An ellipse around its position.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PretixEllipse {
    /// Its radii.
    #[serde(deserialize_with = "or_default")]
    radius: PretixPoint,
}

/// A polygon, whose points are relative to its position.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PretixPolygon {
    /// Its points.
    #[serde(deserialize_with = "or_default")]
    points: Vec<PretixPoint>,
}

/// An area of a plan that is for standing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is written in it, or its uuid.
    pub area: String,
    /// How many may stand there.
    pub count: u32,
    /// The category of these places.
    pub category: String,
}

/// `null` is what is left out, too.
fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A text, or a number as a text: seats and rows have numbers, and some programs write them as such.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct TextVisitor;

    impl Visitor<'_> for TextVisitor {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_str<E: de::Error>(self, value: &str) -> Result<String, E> {
            let text = value.trim();
            // As much as shows that it is too long: a place says where it is by all of its names.
            Ok(text[..text.floor_char_boundary(TEXT_KEPT_MAX)].to_owned())
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<String, E> {
            Ok(value.to_string())
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
            Ok(value.to_string())
        }

        fn visit_unit<E: de::Error>(self) -> Result<String, E> {
            Ok(String::new())
        }
    }

    deserializer.deserialize_any(TextVisitor)
}

/// What became of a plan.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// The name of the hall.
    pub name: String,
    /// The SHA-256 of the plan as it is stored, by which it is known; null where something is wrong with it.
    #[schema(required, nullable)]
    pub digest: Option<String>,
    /// How many places it has.
    pub place_count: u64,
    /// Its sections. Those of the same name are one.
    pub sections: Vec<SectionCount>,
    /// Its grades.
    pub grades: Vec<GradeCount>,
    /// What is wrong with it: the first hundred.
    pub problems: Vec<PlanFault>,
    /// How much is wrong with it.
    pub problem_count: u64,
}

impl PlanReport {
    /// The report as a table for people.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}: {} places\n", self.name, self.place_count);
        let mut table = |title: &str, rows: Vec<(&String, u64)>| {
            let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
            let _ = writeln!(text, "\n{title}");
            for (name, count) in rows {
                let _ = writeln!(text, "  {name:<width$}  {count:>7}");
            }
        };
        let sections = self.sections.iter().map(|it| (&it.name, it.place_count));
        table("sections", sections.collect());
        let grades = self.grades.iter().map(|it| (&it.grade, it.place_count));
        table("grades", grades.collect());
        text.push('\n');
        for PlanFault { what, r#where, with } in &self.problems {
            let with = with.as_ref().map_or_else(String::new, |with| format!(" ({with})"));
            let _ = writeln!(text, "{}: {where}{with}", what.word());
        }
        let rest = self.problem_count - self.problems.len() as u64;
        if rest > 0 {
            let _ = writeln!(text, "and {rest} more");
        }
        let _ = match (&self.digest, self.problem_count) {
            (Some(digest), 0) => writeln!(text, "nothing is wrong; the plan is {digest}"),
            (_, count) => writeln!(text, "problems: {count}"),
        };
        text
    }
}

/// A section in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SectionCount {
    /// Its name.
    pub name: String,
    /// How many places it has.
    pub place_count: u64,
}

/// A grade in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GradeCount {
    /// The grade.
    pub grade: String,
    /// How many places are of it.
    pub place_count: u64,
}

/// Something that is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanFault {
    /// What.
    pub what: FaultKind,
    /// Where in the plan.
    pub r#where: String,
    /// What else it is about, where it is about two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with: Option<String>,
}

/// What can be wrong with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FaultKind {
    /// There is no seat at all.
    NoPlace,
    /// There are more places than a hall may have.
    TooManyPlaces,
    /// There are more categories than a hall may have.
    TooManyGrades,
    /// The whole is too large to be stored.
    TooLarge,
    /// Something has no name.
    NoName,
    /// A name is too long.
    LongName,
    /// A position is too far away, or a size is not above zero.
    OutOfRange,
    /// Two categories have the same name.
    DuplicateGrade,
    /// A seat has no category, or one that the plan has not.
    MissingCategory,
    /// A category that seats have has no price.
    MissingPrice,
    /// Two seats of a section have the same row and the same number.
    DuplicatePlace,
    /// Two seats have the same `seat_guid`.
    DuplicateGuid,
    /// Two seats are in the same spot.
    Overlap,
    /// The plan has no area of this name.
    UnknownArea,
    /// The plan has several areas of this name.
    AmbiguousArea,
}

impl FaultKind {
    /// Its word in the API.
    pub fn word(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(word)) => word,
            _ => String::new(),
        }
    }
}

/// A plan as it was read.
pub struct Imported {
    /// What became of it.
    pub report: PlanReport,
    /// The hall, unless something is wrong with it, and the prices of its grades where they were given.
    pub hall: Option<(StoredPlan, Vec<i64>)>,
}

/// What is wrong so far.
#[derive(Default)]
struct Faults {
    listed: Vec<PlanFault>,
    count: u64,
}

impl Faults {
    fn add(&mut self, what: FaultKind, at: &Where, with: Option<String>) {
        self.count += 1;
        if self.listed.len() < PROBLEMS_MAX {
            self.listed.push(PlanFault { what, r#where: at.to_string(), with });
        }
    }

    /// Adds what the hall itself finds.
    fn add_all(&mut self, found: PlanProblems) {
        let listed = found.listed.len() as u64;
        for problem in found.listed {
            let (what, at, with) = told(problem);
            self.add(what, &at, with);
        }
        self.count += found.count as u64 - listed;
    }
}

/// A problem of a hall in the words of who made the plan.
fn told(problem: PlanProblem) -> (FaultKind, Where, Option<String>) {
    use PlanProblem as P;
    match problem {
        P::NoPlace => (FaultKind::NoPlace, Where::Plan, None),
        P::TooManyPlaces { count } => {
            (FaultKind::TooManyPlaces, Where::Plan, Some(format!("{count} places")))
        }
        P::TooManyGrades { count } => {
            (FaultKind::TooManyGrades, Where::Plan, Some(format!("{count} categories")))
        }
        P::NoName(at) => (FaultKind::NoName, at, None),
        P::LongName(at) => (FaultKind::LongName, at, None),
        P::OutOfRange(at) => (FaultKind::OutOfRange, at, None),
        P::DuplicateGrade(at) => (FaultKind::DuplicateGrade, at, None),
        P::UnknownGrade(at) => (FaultKind::MissingCategory, at, None),
        P::DuplicatePlace(at) => (FaultKind::DuplicatePlace, at, None),
        P::Overlap { place, with } => (FaultKind::Overlap, place, Some(with.to_string())),
    }
}

/// Bytes of a text of a plan that are looked at. No name may be as long.
const TEXT_KEPT_MAX: usize = 1_000;

/// No grade has this index, so a place of it is found to have none.
const NO_GRADE: u16 = u16::MAX;

/// Makes a hall of a plan; `prices` are by category, where they are to be known.
pub fn import(
    plan: PretixPlan,
    standing: &[Standing],
    prices: Option<&BTreeMap<String, i64>>,
) -> Imported {
    let mut faults = Faults::default();
    let grades = used_grades(&plan, standing);
    let index: HashMap<&str, u16> = grades.iter().map(String::as_str).zip(0..NO_GRADE).collect();
    let grade_of = |name: &str| index.get(name).copied().unwrap_or(NO_GRADE);
    let areas = standing_areas(&plan, standing, grade_of, &mut faults);
    let stage = stage_of(&plan);
    let size = Point { x: rounded(plan.size.width), y: rounded(plan.size.height) };
    let mut guids = HashSet::new();
    let mut sections: Vec<SectionPart> = Vec::new();
    for zone in plan.zones {
        let name = if zone.name.is_empty() { zone.zone_id } else { zone.name };
        let mut rows = Vec::with_capacity(zone.rows.len());
        for row in zone.rows {
            let row_name = if row.row_number.is_empty() { row.row_label } else { row.row_number };
            let origin = sum(zone.position, row.position);
            let mut places = Vec::with_capacity(row.seats.len());
            for seat in row.seats {
                if !seat.seat_guid.is_empty() && !guids.insert(seat.seat_guid.clone()) {
                    let at = Where::Place {
                        section: name.clone(),
                        row: row_name.clone(),
                        label: seat.seat_number.clone(),
                    };
                    faults.add(FaultKind::DuplicateGuid, &at, Some(seat.seat_guid));
                }
                places.push(PlacePart {
                    grade: grade_of(&seat.category),
                    at: point(sum(origin, seat.position)),
                    label: seat.seat_number,
                });
            }
            rows.push(RowPart { name: row_name, places, cuts: None });
        }
        sections.push(SectionPart { name, seating: SeatingPart::Rows(rows) });
    }
    sections.extend(areas);
    let (by_section, by_grade) = counted(&sections, &grades);
    let by_name = |grade: &String| prices.map(|prices| prices.get(grade).copied());
    for grade in grades.iter().filter(|grade| by_name(grade) == Some(None)) {
        faults.add(FaultKind::MissingPrice, &Where::Grade(grade.clone()), None);
    }
    let prices: Vec<i64> = grades.iter().filter_map(|grade| by_name(grade)?).collect();
    let name = plan.name;
    let parts = Parts { name: name.clone(), size, stage, grades, sections };
    let made = match Plan::new(parts) {
        Ok(made) => {
            let stored = StoredPlan::new(made);
            if stored.is_none() {
                faults.add(FaultKind::TooLarge, &Where::Plan, None);
            }
            stored.filter(|_| faults.count == 0)
        }
        Err(problems) => {
            faults.add_all(problems);
            None
        }
    };
    let report = PlanReport {
        name,
        digest: made.as_ref().map(|stored| stored.digest().to_string()),
        place_count: by_section.iter().map(|section| section.place_count).sum(),
        sections: by_section,
        grades: by_grade,
        problems: faults.listed,
        problem_count: faults.count,
    };
    Imported { report, hall: made.map(|stored| (stored, prices)) }
}

/// What there is to tell of a plan that is known.
pub fn report_of(stored: &StoredPlan) -> PlanReport {
    let plan = stored.plan();
    let mut sections = Counts::default();
    for section in plan.sections() {
        sections.add(&section.name, plan.places_of(section).len() as u64);
    }
    let mut grades = vec![0; plan.grades().len()];
    for place in plan.places() {
        if let Some(count) = grades.get_mut(usize::from(place.grade)) {
            *count += 1;
        }
    }
    let grades = plan.grades().iter().zip(grades);
    PlanReport {
        name: plan.name().to_owned(),
        digest: Some(stored.digest().to_string()),
        place_count: plan.places().len() as u64,
        sections: sections.0,
        grades: grades
            .map(|(grade, place_count)| GradeCount { grade: grade.clone(), place_count })
            .collect(),
        problems: Vec::new(),
        problem_count: 0,
    }
}

/// How many places sections have. Those of the same name are one.
#[derive(Default)]
struct Counts(Vec<SectionCount>, HashMap<String, usize>);

impl Counts {
    fn add(&mut self, name: &str, count: u64) {
        match self.1.get(name) {
            Some(index) => self.0[*index].place_count += count,
            None => {
                self.1.insert(name.to_owned(), self.0.len());
                self.0.push(SectionCount { name: name.to_owned(), place_count: count });
            }
        }
    }
}

fn counted(sections: &[SectionPart], grades: &[String]) -> (Vec<SectionCount>, Vec<GradeCount>) {
    let mut by_section = Counts::default();
    let mut by_grade = vec![0; grades.len()];
    let mut add = |name: &str, grade: u16, count: u64| {
        by_section.add(name, count);
        if let Some(of_grade) = by_grade.get_mut(usize::from(grade)) {
            *of_grade += count;
        }
    };
    for SectionPart { name, seating } in sections {
        match seating {
            SeatingPart::Standing { grade, count, .. } => add(name, *grade, u64::from(*count)),
            SeatingPart::Rows(rows) => {
                let places = rows.iter().flat_map(|row| &row.places);
                places.for_each(|place| add(name, place.grade, 1));
            }
        }
    }
    let by_grade = grades.iter().zip(by_grade);
    let by_grade =
        by_grade.map(|(grade, place_count)| GradeCount { grade: grade.clone(), place_count });
    (by_section.0, by_grade.collect())
}

/// The categories that something has, in the order of the plan.
fn used_grades(plan: &PretixPlan, standing: &[Standing]) -> Vec<String> {
    let seats = plan.zones.iter().flat_map(|zone| &zone.rows).flat_map(|row| &row.seats);
    let used: HashSet<&str> = seats
        .map(|seat| seat.category.as_str())
        .chain(standing.iter().map(|standing| standing.category.trim()))
        .collect();
    let mut grades = Vec::new();
    let mut known = HashSet::new();
    for category in &plan.categories {
        if used.contains(category.name.as_str()) && known.insert(category.name.as_str()) {
            grades.push(category.name.clone());
        }
    }
    grades
}

fn standing_areas(
    plan: &PretixPlan,
    standing: &[Standing],
    grade_of: impl Fn(&str) -> u16,
    faults: &mut Faults,
) -> Vec<SectionPart> {
    let mut sections = Vec::with_capacity(standing.len());
    for Standing { area: wanted, count, category } in standing {
        let wanted = wanted.trim();
        let is_it = |area: &PretixArea| {
            !wanted.is_empty() && (area.text.text == wanted || area.uuid == wanted)
        };
        let areas =
            plan.zones.iter().flat_map(|zone| zone.areas.iter().map(move |area| (zone, area)));
        let mut found = areas.filter(|(_, area)| is_it(area));
        let at = || Where::Section(wanted.chars().take(100).collect());
        let Some((zone, area)) = found.next() else {
            faults.add(FaultKind::UnknownArea, &at(), None);
            continue;
        };
        if found.next().is_some() {
            faults.add(FaultKind::AmbiguousArea, &at(), None);
            continue;
        }
        let name = if area.text.text.is_empty() { wanted } else { &area.text.text };
        sections.push(SectionPart {
            name: name.to_owned(),
            seating: SeatingPart::Standing {
                area: rectangle(area, sum(zone.position, area.position)),
                grade: grade_of(category.trim()),
                count: *count,
            },
        });
    }
    sections
}

/// The rectangle around an area.
fn rectangle(area: &PretixArea, at: PretixPoint) -> Area {
    let around = |x: f64, y: f64| (at.x - x, at.y - y, 2.0 * x, 2.0 * y);
    let (x, y, width, height) = match (area.rectangle, area.circle, area.ellipse, &area.polygon) {
        (Some(size), ..) => (at.x, at.y, size.width, size.height),
        (None, Some(circle), ..) => around(circle.radius, circle.radius),
        (None, None, Some(ellipse), _) => around(ellipse.radius.x, ellipse.radius.y),
        (None, None, None, Some(polygon)) if !polygon.points.is_empty() => {
            let bounds = |of: fn(&PretixPoint) -> f64| {
                let all = polygon.points.iter().map(of);
                all.fold((f64::MAX, f64::MIN), |(low, high), it| (low.min(it), high.max(it)))
            };
            let (left, right) = bounds(|point| point.x);
            let (top, bottom) = bounds(|point| point.y);
            (at.x + left, at.y + top, right - left, bottom - top)
        }
        _ => (at.x, at.y, 1.0, 1.0),
    };
    let size = Point { x: rounded(width).max(1), y: rounded(height).max(1) };
    Area { at: point(PretixPoint { x, y }), size }
}

/// What an area is called that is the stage.
const STAGES: [&str; 4] = ["stage", "bühne", "무대", "scène"];

/// Where the stage is: the middle of the area that is called so, or of the upper edge.
fn stage_of(plan: &PretixPlan) -> Point {
    let is_stage = |area: &PretixArea| {
        let name = area.text.text.to_lowercase();
        STAGES.iter().any(|stage| name.contains(stage))
    };
    let areas = plan.zones.iter().flat_map(|zone| zone.areas.iter().map(move |area| (zone, area)));
    match areas.into_iter().find(|(_, area)| is_stage(area)) {
        Some((zone, area)) => rectangle(area, sum(zone.position, area.position)).middle(),
        None => Point { x: rounded(plan.size.width / 2.0), y: 0 },
    }
}

fn sum(a: PretixPoint, b: PretixPoint) -> PretixPoint {
    PretixPoint { x: a.x + b.x, y: a.y + b.y }
}

fn point(at: PretixPoint) -> Point {
    Point { x: rounded(at.x), y: rounded(at.y) }
}

/// The nearest whole number. What is beyond all halls stays so.
fn rounded(value: f64) -> i32 {
    let beyond = f64::from(COORDINATE_MAX) + 1.0;
    // Nothing is cut off: it is within the range of the type.
    #[allow(clippy::cast_possible_truncation)]
    let whole = value.clamp(-beyond, beyond).round() as i32;
    whole
}
