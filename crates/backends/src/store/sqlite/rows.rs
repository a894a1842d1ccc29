//! Rows of SQLite as the domain's types.

use boxoffice_domain::command::ReservationRow;
use boxoffice_domain::ids::{ReservationId, UserId};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::Fault;
pub(super) use crate::store::columns::{
    Corrupt, ReservationColumns, SET_BACK, TicketColumns, check_passed, column, count, digest,
    entry_columns, entry_kind, id, items_to_text, numbers_from, numbers_to, parts_of, passed_after,
    queue_name, refund, reservation as from_columns, reservation_columns, reservation_state, role,
    seat_columns, seat_from, seat_state, ticket_id,
};

/// Why an operation stopped half-way. The transaction is rolled back.
#[derive(Debug)]
pub(super) enum Failure {
    Sqlite(rusqlite::Error),
    Corrupt(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
        };
        match error {
            // No statement of ours writes such a value, and the schema forbids it.
            InvalidColumnType(_, name, found) => Self::Corrupt(format!(
                "a row has a value of type {found} in its column {name}, where that cannot be"
            )),
            FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | Utf8Error(..) => {
                Self::Corrupt(format!("a row has a value that cannot be ({error})"))
            }
            error => Self::Sqlite(error),
        }
    }
}

impl From<Corrupt> for Failure {
    fn from(Corrupt(what): Corrupt) -> Self {
        Self::Corrupt(what)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match failure {
            Failure::Corrupt(what) => Self::Corrupt(what),
            Failure::Sqlite(error) => match error.sqlite_error_code() {
                Some(DatabaseCorrupt | NotADatabase) => Self::Corrupt(error.to_string()),
                _ => Self::Unavailable(error.to_string()),
            },
        }
    }
}

const RESERVATION: &str = "SELECT user_id, concert_id, session_id, items, created_at, held_until, \
                           state, payment_id, queue, ticket_seq, ticket_id \
                           FROM reservation WHERE id = ?1";

/// The reservation with this id.
pub(super) fn reservation(
    connection: &Connection,
    reservation: ReservationId,
) -> Result<Option<ReservationRow>, Failure> {
    let mut statement = connection.prepare_cached(RESERVATION)?;
    let found = statement.query_row([reservation.get()], |row| reservation_parts(row, 0));
    let found = found.optional()?;
    Ok(found.map(|(columns, ticket)| from_columns(reservation, columns, ticket)).transpose()?)
}

const RESERVATIONS_OF: &str = "SELECT id, user_id, concert_id, session_id, items, created_at, \
                               held_until, state, payment_id, queue, ticket_seq, ticket_id \
                               FROM reservation INDEXED BY reservation_of_user WHERE user_id = ?1 \
                               AND (created_at, id) < (?2, ?3) \
                               ORDER BY created_at DESC, id DESC LIMIT ?4";

/// A user's reservations that were made before this one, the newest first.
pub(super) fn reservations_of(
    connection: &Connection,
    user: UserId,
    after: Option<ReservationId>,
    max: u32,
) -> Result<Vec<ReservationRow>, Failure> {
    let (mut created_at, mut before) = (i64::MAX, i64::MAX);
    if let Some(after) = after {
        let found = connection
            .prepare_cached("SELECT created_at FROM reservation WHERE id = ?1 AND user_id = ?2")?
            .query_row([after.get(), user.get()], |row| row.get(0))
            .optional()?;
        let Some(found) = found else { return Ok(Vec::new()) };
        (created_at, before) = (found, after.get());
    }
    let mut find = connection.prepare_cached(RESERVATIONS_OF)?;
    let mut found = find.query([user.get(), created_at, before, max.into()])?;
    let mut reservations = Vec::new();
    while let Some(row) = found.next()? {
        reservations.push(listed_reservation(row)?);
    }
    Ok(reservations)
}

/// A reservation of a list, of which the first column is the id.
pub(super) fn listed_reservation(row: &Row<'_>) -> Result<ReservationRow, Failure> {
    let id = id(ReservationId::new, row.get(0)?, "reservation")?;
    let (columns, ticket) = reservation_parts(row, 1)?;
    Ok(from_columns(id, columns, ticket)?)
}

/// The columns of a reservation, of which the first is at `from`.
fn reservation_parts(
    row: &Row<'_>,
    from: usize,
) -> rusqlite::Result<(ReservationColumns, TicketColumns)> {
    let columns = (
        row.get(from)?,
        row.get(from + 1)?,
        row.get(from + 2)?,
        row.get(from + 3)?,
        row.get(from + 4)?,
        row.get(from + 5)?,
        row.get(from + 6)?,
        row.get(from + 7)?,
    );
    Ok((columns, (row.get(from + 8)?, row.get(from + 9)?, row.get(from + 10)?)))
}
