//! Rows of MySQL as the domain's types, and what can go wrong with a statement.

use boxoffice_domain::command::{Payment, ReservationRow};
use boxoffice_domain::ids::{PaymentId, ReservationId, SeatId};
use boxoffice_domain::sales::Seat;
use boxoffice_domain::time::Timestamp;
use mysql_async::prelude::FromValue;
use mysql_async::{Error, Row};

use crate::Fault;
pub(super) use crate::store::columns::{
    Corrupt, SET_BACK, check_passed, column, count, digest, entry_columns, entry_kind, id,
    items_to_text, numbers_from, numbers_to, parts_of, passed_after, queue_name, refund,
    reservation_columns, reservation_state, role, seat_columns, seat_from, seat_state, ticket_id,
};

/// Why an operation stopped half-way. The transaction is rolled back.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refused the statement: its number for it, and its words.
    Server(u16, String),
    /// The connection is of no more use. What was not committed is rolled back by the server.
    Lost(String),
    /// The answer did not come in time; the connection is of no more use either.
    Late(String),
    /// There was no connection to be had, or the store is not to be written now.
    Unavailable(String),
    /// A commit was sent, and its answer did not come.
    Unknown(String),
    /// What is stored makes no sense.
    Corrupt(String),
}

/// The row is there already.
pub(super) const DUPLICATE: u16 = 1062;
/// Another transaction has held a lock for too long.
pub(super) const LOCK_WAIT: u16 = 1205;
/// This transaction was chosen to end a deadlock.
pub(super) const DEADLOCK: u16 = 1213;
/// The server has no connection left, for anybody or for this user.
pub(super) const NO_CONNECTION_LEFT: [u16; 3] = [1040, 1203, 1226];

impl Failure {
    /// Something changed under the operation; all of it is to be tried once more.
    pub(super) fn again() -> Self {
        Self::Server(DEADLOCK, "changed meanwhile".into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Server(error) => match error.code {
                // Shutting down, killed, or made read-only by a failover: another connection may
                // find a server that works.
                1053 | 1077 | 1290 | 1317 | 1836 | 1927 | 3169 | 4031 => {
                    Self::Lost(error.to_string())
                }
                code => Self::Server(code, error.message),
            },
            other => Self::Lost(other.to_string()),
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
        match failure {
            Failure::Server(LOCK_WAIT, _) => {
                Self::Unavailable("another transaction held a lock for too long".into())
            }
            Failure::Server(code, text) => {
                Self::Unavailable(format!("the database refused (error {code}): {text}"))
            }
            Failure::Lost(what) | Failure::Late(what) => {
                Self::Unavailable(format!("the database is away: {what}"))
            }
            Failure::Unavailable(what) => Self::Unavailable(what),
            Failure::Unknown(what) => Self::OutcomeUnknown(what),
            Failure::Corrupt(what) => Self::Corrupt(what),
        }
    }
}

/// A column of a row.
pub(super) fn take<T: FromValue>(row: &mut Row, index: usize) -> Result<T, Failure> {
    match row.take_opt::<T, usize>(index) {
        Some(Ok(value)) => Ok(value),
        _ => Err(Failure::Corrupt(format!("column {index} of a row has another type"))),
    }
}

/// A seat from the columns id, number, price, state, reservation, until.
pub(super) fn seat(row: &mut Row) -> Result<Seat, Failure> {
    Ok(Seat {
        id: id(SeatId::new, take(row, 0)?, "seat")?,
        number: take(row, 1)?,
        price: take(row, 2)?,
        state: seat_from(take(row, 3)?, take(row, 4)?, take(row, 5)?)?,
    })
}

/// A payment from the columns id, reservation, amount, paid at.
pub(super) fn payment(row: &mut Row) -> Result<Payment, Failure> {
    Ok(Payment {
        id: id(PaymentId::new, take(row, 0)?, "payment")?,
        reservation: id(ReservationId::new, take(row, 1)?, "reservation")?,
        amount: take(row, 2)?,
        paid_at: Timestamp(take(row, 3)?),
    })
}

/// A reservation from the columns user, concert, session, items, created at, held until, state,
/// payment, and those of its ticket, of which the first is at `from`.
pub(super) fn reservation(
    reservation: ReservationId,
    row: &mut Row,
    from: usize,
) -> Result<ReservationRow, Failure> {
    let columns = (
        take(row, from)?,
        take(row, from + 1)?,
        take(row, from + 2)?,
        take(row, from + 3)?,
        take(row, from + 4)?,
        take(row, from + 5)?,
        take(row, from + 6)?,
        take(row, from + 7)?,
    );
    let ticket = (take(row, from + 8)?, take(row, from + 9)?, take(row, from + 10)?);
    Ok(crate::store::columns::reservation(reservation, columns, ticket)?)
}
