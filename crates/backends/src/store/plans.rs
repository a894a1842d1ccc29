//! Halls as bytes: one form in which a plan is stored, named by its digest, and served.
//!
//! It is a JSON document, and for each plan there is exactly one: whatever can be told by a rule (places at
//! the same distance, labels that count on, a row of one grade) is told so.
//!
//! What does not belong here: what a plan must be like (`domain::seating`), and what others call one.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use boxoffice_domain::ids::SessionId;
use boxoffice_domain::invariant::{Finding, Invariant};
use boxoffice_domain::seating::{
    Area, PLACES_MAX, Parts, PlacePart, Plan, Point, Row, RowPart, SeatingPart, Section,
    SectionPart,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::digest::Digest;

/// The most bytes of a plan: what a column of MySQL takes, with room to spare. A hall of 100,000 places has
/// some megabytes where each has a position and a label of its own.
pub const PLAN_BYTES_MAX: usize = 12 * 1024 * 1024;

/// A plan, with its bytes and their digest, by which it is known.
pub struct StoredPlan {
    digest: Digest,
    body: Vec<u8>,
    plan: Arc<Plan>,
}

impl fmt::Debug for StoredPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plan {}", self.digest)
    }
}

impl StoredPlan {
    /// A plan as it will be stored. `None` where it has more than [`PLAN_BYTES_MAX`].
    pub fn new(plan: Plan) -> Option<Self> {
        let body = to_bytes(&plan);
        let digest = Digest(Sha256::digest(&body).into());
        (body.len() <= PLAN_BYTES_MAX).then(|| Self { digest, body, plan: Arc::new(plan) })
    }

    /// What was stored under this digest.
    ///
    /// # Errors
    /// What makes no sense about it.
    pub(super) fn stored(digest: Digest, body: Vec<u8>) -> Result<Self, String> {
        if digest.0 != <[u8; 32]>::from(Sha256::digest(&body)) {
            return Err(format!("the plan {digest} is not what it was"));
        }
        let plan = from_bytes(&body).map_err(|what| format!("the plan {digest}: {what}"))?;
        let plan = Arc::new(plan);
        Ok(Self { digest, body, plan })
    }

    /// The SHA-256 of its bytes.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Its bytes: a JSON document.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The hall.
    pub const fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Whether a session with so many seats may have it.
    pub(super) fn is_of(&self, seats: usize) -> bool {
        self.plan.places().len() == seats
    }
}

/// What is said where the plan of a session is not there.
pub(super) fn missing(session: SessionId, digest: Digest) -> String {
    format!("session {session} has the plan {digest}, which is not there")
}

/// Checks for an audit that the sessions have the plans that they were made with.
#[derive(Default)]
pub(super) struct PlanCheck {
    /// How many places each plan has, as far as it can be read.
    places: HashMap<Vec<u8>, Option<i64>>,
    finding: Option<Finding>,
}

impl PlanCheck {
    fn found(&mut self) -> &mut Finding {
        self.finding.get_or_insert_with(|| Finding::new(Invariant::AcknowledgedIsDurable))
    }

    /// Looks at a plan.
    pub(super) fn plan(&mut self, digest: &[u8], body: Vec<u8>) {
        let named = digest.try_into().map(Digest).map_err(|_| "a plan has no digest".to_owned());
        let read = named.and_then(|digest| StoredPlan::stored(digest, body));
        let places = read.as_ref().ok().and_then(|it| i64::try_from(it.plan.places().len()).ok());
        self.found().expect(read.is_ok(), || read.err().unwrap_or_default());
        self.places.insert(digest.to_owned(), places);
    }

    /// Looks at a session that has a plan, once all plans were looked at.
    pub(super) fn session(&mut self, session: i64, digest: &[u8], seats: i64) {
        let places = self.places.get(digest).copied();
        let said = |what: &str| format!("session {session} with {seats} seats: its plan {what}");
        let finding = self.found();
        match places {
            None => finding.violated(said("is not there")),
            // What is wrong with the plan was said.
            Some(None) => finding.add_checked(1),
            Some(Some(places)) => {
                finding.expect(places == seats, || said(&format!("has {places} places")));
            }
        }
    }

    /// What was found.
    pub(super) fn finding(mut self) -> Finding {
        self.found();
        self.finding.unwrap_or_else(|| Finding::new(Invariant::AcknowledgedIsDurable))
    }
}

// ---- the document ----

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: String,
    width: i32,
    height: i32,
    stage: Spot,
    grades: Vec<String>,
    sections: Vec<SectionText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spot {
    x: i32,
    y: i32,
}

/// Either `rows`, or all the rest.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SectionText {
    name: String,
    standing: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<RowText>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grade: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    y: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    width: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    height: Option<i32>,
}

/// Positions, each axis by itself, by `x` and `dx` or by `xs`; labels by `first`, `step` or `labels`; grades by
/// `grade` or `grades`.
///
/// `xs` has the first, and then how much each is more than the one before: rows of a hall that bend alike differ in
/// the first alone, which makes a bent hall of 50,000 places a tenth of what it is with positions, compressed.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowText {
    name: String,
    count: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    y: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dx: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dy: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xs: Option<Vec<i64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ys: Option<Vec<i64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grade: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grades: Option<Vec<u16>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<u32>,
}

/// Returns the one document of a plan.
fn to_bytes(plan: &Plan) -> Vec<u8> {
    let (size, stage) = (plan.size(), plan.stage());
    let document = Document {
        name: plan.name().to_owned(),
        width: size.x,
        height: size.y,
        stage: Spot { x: stage.x, y: stage.y },
        grades: plan.grades().to_vec(),
        sections: plan.sections().iter().map(|section| section_text(plan, section)).collect(),
    };
    // Texts and numbers always serialise.
    serde_json::to_vec(&document).unwrap_or_default()
}

fn section_text(plan: &Plan, section: &Section) -> SectionText {
    let name = section.name.clone();
    let Some(Area { at, size }) = section.standing else {
        let rows = &plan.rows()[section.rows.start as usize..section.rows.end as usize];
        let rows = Some(rows.iter().map(|row| row_text(plan, row)).collect());
        return SectionText { name, rows, ..SectionText::default() };
    };
    let places = plan.places_of(section);
    SectionText {
        name,
        standing: true,
        rows: None,
        count: Some(places.end - places.start),
        grade: plan.places().get(places.start as usize).map(|place| place.grade),
        x: Some(at.x),
        y: Some(at.y),
        width: Some(size.x),
        height: Some(size.y),
    }
}

fn row_text(plan: &Plan, row: &Row) -> RowText {
    let places = &plan.places()[row.places.start as usize..row.places.end as usize];
    let mut text = RowText {
        name: row.name.clone(),
        count: row.places.end - row.places.start,
        ..RowText::default()
    };
    let axis =
        |of: fn(Point) -> i32| -> Vec<i32> { places.iter().map(|place| of(place.at)).collect() };
    let (xs, ys) = (axis(|at| at.x), axis(|at| at.y));
    match evenly(&xs) {
        Some((x, dx)) => (text.x, text.dx) = (Some(x), Some(dx)),
        None => text.xs = Some(steps(&xs)),
    }
    match evenly(&ys) {
        Some((y, dy)) => (text.y, text.dy) = (Some(y), Some(dy)),
        None => text.ys = Some(steps(&ys)),
    }
    let counted = places.iter().map(|place| number(&place.label)).collect::<Option<Vec<_>>>();
    match counted.and_then(|numbers| evenly(&numbers)) {
        Some((first, step)) => (text.first, text.step) = (Some(first), Some(step)),
        None => text.labels = Some(places.iter().map(|place| place.label.to_string()).collect()),
    }
    match places {
        [first, rest @ ..] if rest.iter().all(|place| place.grade == first.grade) => {
            text.grade = Some(first.grade);
        }
        _ => text.grades = Some(places.iter().map(|place| place.grade).collect()),
    }
    let begins = |place: &u32| !plan.next_is_beside(place - 1);
    text.gaps = (row.places.start + 1..row.places.end)
        .filter(begins)
        .map(|place| place - row.places.start)
        .collect();
    text
}

/// The number that a label is, if it is written as a number is.
fn number(label: &str) -> Option<i32> {
    let number: i32 = label.parse().ok()?;
    (number.to_string() == label).then_some(number)
}

/// The first of some numbers, and how much each is more than the one before: 0 where there is one. `None` where
/// that is not the same for all.
fn evenly(numbers: &[i32]) -> Option<(i32, i32)> {
    let first = *numbers.first()?;
    let Some(second) = numbers.get(1) else { return Some((first, 0)) };
    let step = second.checked_sub(first)?;
    let is_even = numbers.windows(2).all(|two| two[1].checked_sub(two[0]) == Some(step));
    is_even.then_some((first, step))
}

/// The first of some numbers, then how much each is more than the one before.
fn steps(numbers: &[i32]) -> Vec<i64> {
    let mut before = 0;
    let step = |number: &i32| {
        let number = i64::from(*number);
        number - std::mem::replace(&mut before, number)
    };
    numbers.iter().map(step).collect()
}

/// The numbers of which these are the [`steps`]. `None` where one is out of range.
fn summed(steps: &[i64]) -> Option<Vec<i32>> {
    let mut sum = 0_i64;
    let number = |step: &i64| {
        sum = sum.checked_add(*step)?;
        i32::try_from(sum).ok()
    };
    steps.iter().map(number).collect()
}

/// Reads a plan.
fn from_bytes(bytes: &[u8]) -> Result<Plan, String> {
    let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let mut left = PLACES_MAX;
    let sections = document
        .sections
        .into_iter()
        .map(|section| section_part(section, &mut left))
        .collect::<Result<_, _>>()?;
    let parts = Parts {
        name: document.name,
        size: Point { x: document.width, y: document.height },
        stage: Point { x: document.stage.x, y: document.stage.y },
        grades: document.grades,
        sections,
    };
    Plan::new(parts).map_err(|problems| {
        let first = problems.listed.first().map(|problem| format!("{problem:?}"));
        first.unwrap_or_default()
    })
}

/// `left` is how many places there may be; none are made beyond.
fn section_part(text: SectionText, left: &mut u32) -> Result<SectionPart, String> {
    let mut take = |count: u32| {
        *left = left.checked_sub(count).ok_or_else(|| "too many places".to_owned())?;
        Ok::<_, String>(())
    };
    let SectionText { name, standing, rows, count, grade, x, y, width, height } = text;
    let seating = match (standing, rows, (count, grade), (x, y, width, height)) {
        (false, Some(rows), (None, None), (None, None, None, None)) => {
            let part = |row: RowText| {
                take(row.count)?;
                row_part(row)
            };
            SeatingPart::Rows(rows.into_iter().map(part).collect::<Result<_, _>>()?)
        }
        (true, None, (Some(count), Some(grade)), (Some(x), Some(y), Some(width), Some(height))) => {
            take(count)?;
            let area = Area { at: Point { x, y }, size: Point { x: width, y: height } };
            SeatingPart::Standing { area, grade, count }
        }
        _ => return Err(format!("section {name:?} has neither rows nor standing places")),
    };
    Ok(SectionPart { name, seating })
}

fn row_part(text: RowText) -> Result<RowPart, String> {
    let RowText { name, count, .. } = text;
    let corrupt = |what: &str| format!("row {name:?}: {what}");
    let length = count as usize;
    let along = |from: i32, by: i32| {
        (0..i64::from(count))
            .map(|index| i32::try_from(i64::from(from) + index * i64::from(by)).ok())
            .collect::<Option<Vec<i32>>>()
    };
    let axis = |from: Option<i32>, by: Option<i32>, steps: Option<Vec<i64>>| {
        let numbers = match (from, by, steps) {
            (Some(from), Some(by), None) => along(from, by),
            (None, None, Some(steps)) if steps.len() == length => summed(&steps),
            _ => return Err(corrupt("its positions are not told, or twice")),
        };
        numbers.ok_or_else(|| corrupt("a position is out of range"))
    };
    let xs = axis(text.x, text.dx, text.xs)?;
    let ys = axis(text.y, text.dy, text.ys)?;
    let at = xs.into_iter().zip(ys);
    let labels: Vec<String> = match (text.first, text.step, text.labels) {
        (Some(first), Some(step), None) => {
            let numbers = along(first, step).ok_or_else(|| corrupt("a label is out of range"))?;
            numbers.iter().map(ToString::to_string).collect()
        }
        (None, None, Some(labels)) if labels.len() == length => labels,
        _ => return Err(corrupt("its labels are not told, or twice")),
    };
    let grades = match (text.grade, text.grades) {
        (Some(grade), None) => vec![grade; length],
        (None, Some(grades)) if grades.len() == length => grades,
        _ => return Err(corrupt("its grades are not told, or twice")),
    };
    let place = |((label, grade), (x, y))| PlacePart { label, grade, at: Point { x, y } };
    let places = labels.into_iter().zip(grades).zip(at).map(place).collect();
    Ok(RowPart { name, places, cuts: Some(text.gaps) })
}

#[cfg(test)]
mod tests {
    use boxoffice_domain::seating::hall;
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z]{1,3}", "[1-9][0-9]{0,2}", Just("🦉 </script>\"\\".to_owned())]
    }

    /// A row of its own height: even or crooked, counted or not.
    fn row(number: i32) -> impl Strategy<Value = RowPart> {
        let places = prop::collection::vec((any::<bool>(), 0..3_u16, 0..40_i32), 1..12);
        (
            places,
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            prop::collection::vec(0..12_u32, 0..3),
        )
            .prop_map(move |(places, even, counted, alike, cuts)| {
                let place = |(index, (odd, grade, shift)): (i32, (bool, u16, i32))| PlacePart {
                    label: match (counted, odd) {
                        (true, _) => (3 + 2 * index).to_string(),
                        (false, true) => format!("0{index}"),
                        (false, false) => format!("{index}b"),
                    },
                    grade: if alike { 1 } else { grade },
                    at: Point {
                        x: 100 * index,
                        y: 1_000 * number + if even { 7 * index } else { shift },
                    },
                };
                let places = (0..).zip(places).map(place).collect();
                RowPart { name: format!("{number}"), places, cuts: Some(cuts) }
            })
    }

    fn parts() -> impl Strategy<Value = Parts> {
        let rows = (row(1), row(2), row(3)).prop_map(|(a, b, c)| vec![a, b, c]);
        (text(), text(), rows, 0..2_u32, -50..50_i32).prop_map(|(name, of, rows, standing, x)| {
            let area = Area { at: Point { x, y: 10_000 }, size: Point { x: 40, y: 30 } };
            let mut sections = vec![SectionPart { name: of, seating: SeatingPart::Rows(rows) }];
            let seating = SeatingPart::Standing { area, grade: 2, count: 250 };
            if standing == 1 {
                sections.insert(0, SectionPart { name: "Floor".to_owned(), seating });
            }
            Parts {
                name,
                size: Point { x: 2_000, y: 12_000 },
                stage: Point { x: 1_000, y: -5 },
                grades: vec!["R".to_owned(), "S".to_owned(), "A".to_owned()],
                sections,
            }
        })
    }

    proptest! {
        #[test]
        fn a_plan_is_what_its_bytes_say(parts in parts()) {
            let plan = Plan::new(parts).map_err(|problems| TestCaseError::fail(format!("{problems:?}")))?;
            let bytes = to_bytes(&plan);
            let read = from_bytes(&bytes).map_err(TestCaseError::fail)?;
            prop_assert_eq!(&read, &plan);
            prop_assert_eq!(to_bytes(&read), bytes);
        }

        #[test]
        fn bytes_that_are_none_are_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let stored = StoredPlan::new(Plan::new(hall("Hall", 50)).unwrap()).unwrap();
            let mut bytes = stored.body().to_vec();
            let at = at.index(bytes.len());
            let was = std::mem::replace(&mut bytes[at], byte);
            // Whatever it is, it is a plan or an error.
            let _ = from_bytes(&bytes);
            prop_assert_eq!(StoredPlan::stored(stored.digest(), bytes.clone()).is_ok(), was == byte);
            bytes.truncate(at);
            prop_assert!(from_bytes(&bytes).is_err());
        }
    }

    #[test]
    fn a_document_is_as_short_as_it_can_be() {
        let stored = StoredPlan::new(Plan::new(hall("Hall", 50_000)).unwrap()).unwrap();
        // Its rows are bent, so the places of one are not as far from the stage as each other.
        assert!(stored.body().len() < 50_000 * 6, "{}", stored.body().len());
        let seat = |index: i32| PlacePart {
            label: (index + 1).to_string(),
            grade: 0,
            at: Point { x: 100 + 25 * index, y: 50 },
        };
        let row = RowPart {
            name: "1".to_owned(),
            places: (0..20).map(seat).collect(),
            cuts: Some(vec![10]),
        };
        let parts = Parts {
            name: "올림픽홀".to_owned(),
            size: Point { x: 1_200, y: 900 },
            stage: Point { x: 600, y: 0 },
            grades: vec!["R".to_owned()],
            sections: vec![SectionPart {
                name: "A".to_owned(),
                seating: SeatingPart::Rows(vec![row]),
            }],
        };
        let bytes = to_bytes(&Plan::new(parts).unwrap());
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            r#"{"name":"올림픽홀","width":1200,"height":900,"stage":{"x":600,"y":0},"grades":["R"],"sections":[{"name":"A","standing":false,"rows":[{"name":"1","count":20,"x":100,"y":50,"dx":25,"dy":0,"first":1,"step":1,"grade":0,"gaps":[10]}]}]}"#
        );
    }

    #[test]
    fn what_a_document_may_not_say_is_refused() {
        let whole = |rows: &str| {
            format!(
                r#"{{"name":"H","width":9,"height":9,"stage":{{"x":0,"y":0}},"grades":["R"],"sections":[{{"name":"A","standing":false,"rows":[{rows}]}}]}}"#
            )
        };
        let good =
            r#"{"name":"1","count":1,"x":1,"y":1,"dx":0,"dy":0,"first":1,"step":0,"grade":0}"#;
        assert!(from_bytes(whole(good).as_bytes()).is_ok());
        let bent = good.replace("\"x\":1,\"y\":1,\"dx\":0", "\"xs\":[1],\"y\":1");
        assert!(from_bytes(whole(&bent).as_bytes()).is_ok());
        for (was, is) in [
            ("\"count\":1", "\"count\":4000000000"),
            ("\"count\":1", "\"count\":2"),
            ("\"dx\":0", "\"dx\":0,\"xs\":[1]"),
            ("\"x\":1,\"y\":1,\"dx\":0", "\"xs\":[1,2],\"y\":1"),
            ("\"x\":1,\"y\":1,\"dx\":0", "\"xs\":[3000000000],\"y\":1"),
            ("\"x\":1,\"y\":1,\"dx\":0", "\"xs\":[],\"y\":1"),
            ("\"dx\":0,", ""),
            ("\"x\":1", "\"x\":2000000000"),
            ("\"step\":0", "\"step\":0,\"labels\":[\"1\"]"),
            ("\"grade\":0", "\"grade\":1"),
            ("\"grade\":0", "\"grades\":[]"),
            ("\"grade\":0", "\"grade\":0,\"more\":1"),
        ] {
            assert!(good.contains(was), "{was}");
            let bad = whole(&good.replacen(was, is, 1));
            assert!(from_bytes(bad.as_bytes()).is_err(), "{bad}");
        }
        let standing = whole(good).replace("\"standing\":false", "\"standing\":true");
        assert!(from_bytes(standing.as_bytes()).is_err());
    }
}
