//! Where the seats of a list are in their hall.

use boxoffice_domain::seating::Plan;
use serde::Serialize;
use utoipa::ToSchema;

/// Where a seat is, in a session that has a plan.
#[derive(Serialize, ToSchema)]
pub(super) struct SeatPlace<'a> {
    /// The section.
    section: &'a str,
    /// The row; none in an area for standing.
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<&'a str>,
    /// What is printed on it.
    number: &'a str,
    /// Its grade.
    grade: &'a str,
    /// To the right, in the plan's own units; none in an area for standing.
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<i32>,
    /// Away from the stage, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<i32>,
}

impl<'a> SeatPlace<'a> {
    /// The place of the seat with this number; none where there is no plan.
    pub(super) fn of(plan: Option<&'a Plan>, number: u32) -> Option<Self> {
        let plan = plan?;
        let place = plan.place(number)?;
        let section = plan.section_of(place);
        let (number, grade) = (&*place.label, plan.grade_of(place).unwrap_or_default());
        let (row, x, y) = match section.standing {
            Some(_) => (None, None, None),
            None => (Some(&*plan.row_of(place).name), Some(place.at.x), Some(place.at.y)),
        };
        Some(Self { section: &section.name, row, number, grade, x, y })
    }

    /// How people call it.
    pub(super) fn name(&self) -> String {
        let Self { section, row, number, .. } = self;
        match row {
            Some(row) => format!("{section} {row}-{number}"),
            None => format!("{section} {number}"),
        }
    }
}
