//! Between rows and the domain's types. A value that no version of this program writes makes the
//! row corrupt, never a default.

use boxoffice_domain::ids::{
    ConcertId, PaymentId, QueueName, ReservationId, SeatId, SessionId, TicketId, UserId,
};
use boxoffice_domain::sales::{Item, Reservation, ReservationState, SeatState};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::Fault;

/// `reservation.state`
pub(super) mod reservation_state {
    pub(crate) const HELD: i64 = 0;
    pub(crate) const PAID: i64 = 1;
    pub(crate) const CANCELLED: i64 = 2;
    pub(crate) const EXPIRED: i64 = 3;
}

/// `seat.state`
pub(super) mod seat_state {
    pub(crate) const AVAILABLE: i64 = 0;
    pub(crate) const HELD: i64 = 1;
    pub(crate) const SOLD: i64 = 2;
}

/// `points_entry.kind`
pub(super) mod entry_kind {
    pub(crate) const OPENING: i64 = 0;
    pub(crate) const CHARGE: i64 = 1;
    pub(crate) const PAYMENT: i64 = 2;
}

/// Why an operation stopped half-way. The transaction is rolled back.
#[derive(Debug)]
pub(super) enum Failure {
    Sqlite(rusqlite::Error),
    Corrupt(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
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

/// Makes an id newtype of a column.
pub(super) fn id<T>(new: fn(i64) -> Option<T>, value: i64, what: &str) -> Result<T, Failure> {
    new(value).ok_or_else(|| Failure::Corrupt(format!("{what} {value} is not positive")))
}

pub(super) fn queue_name(text: &str) -> Result<QueueName, Failure> {
    QueueName::new(text).ok_or_else(|| Failure::Corrupt(format!("queue name {text:?}")))
}

pub(super) fn ticket_id(bytes: &[u8]) -> Result<TicketId, Failure> {
    let bytes = bytes.try_into().map_err(|_| Failure::Corrupt("length of a ticket id".into()))?;
    Ok(TicketId(bytes))
}

/// A counter that is never negative.
pub(super) fn count(value: i64, what: &str) -> Result<u64, Failure> {
    u64::try_from(value).map_err(|_| Failure::Corrupt(format!("{what} is {value}")))
}

/// A set of numbers of a queue, from a column that may be empty.
pub(super) fn numbers_from(bytes: Option<Vec<u8>>, queue: &str) -> Result<RoaringTreemap, Failure> {
    let Some(bytes) = bytes else { return Ok(RoaringTreemap::new()) };
    RoaringTreemap::deserialize_from(&bytes[..])
        .map_err(|error| Failure::Corrupt(format!("claimed numbers of {queue}: {error}")))
}

/// A set of numbers of a queue as a column.
pub(super) fn numbers_to(numbers: &RoaringTreemap) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::with_capacity(numbers.serialized_size());
    numbers
        .serialize_into(&mut bytes)
        .map_err(|error| Failure::Corrupt(format!("claimed numbers: {error}")))?;
    Ok(bytes)
}

/// A number of a queue as a column. Numbers count joins one by one, so 2^63 is out of reach.
pub(super) fn column(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

pub(super) fn seat_from(
    state: i64,
    reservation: Option<i64>,
    until: Option<i64>,
) -> Result<SeatState, Failure> {
    let owner = |reservation| id(ReservationId::new, reservation, "reservation of a seat");
    match (state, reservation, until) {
        (seat_state::AVAILABLE, _, _) => Ok(SeatState::Available),
        (seat_state::HELD, Some(r), Some(until)) => {
            Ok(SeatState::Held { reservation: owner(r)?, until: Timestamp(until) })
        }
        (seat_state::SOLD, Some(r), _) => Ok(SeatState::Sold { reservation: owner(r)? }),
        other => Err(Failure::Corrupt(format!("seat with state {other:?}"))),
    }
}

/// The three columns of a seat's state.
pub(super) fn seat_columns(state: SeatState) -> (i64, Option<i64>, Option<i64>) {
    match state {
        SeatState::Available => (seat_state::AVAILABLE, None, None),
        SeatState::Held { reservation, until } => {
            (seat_state::HELD, Some(reservation.get()), Some(until.0))
        }
        SeatState::Sold { reservation } => (seat_state::SOLD, Some(reservation.get()), None),
    }
}

/// `[[seat, number, price], ...]`
pub(super) fn items_to_text(items: &[Item]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 + items.len() * 24);
    for (index, item) in items.iter().enumerate() {
        let start = if index == 0 { '[' } else { ',' };
        // Writing into a String does not fail.
        let _ = write!(text, "{start}[{},{},{}]", item.seat, item.number, item.price);
    }
    text.push(']');
    text
}

fn items_from_text(text: &str) -> Result<Vec<Item>, Failure> {
    let rows: Vec<(i64, u32, i64)> = serde_json::from_str(text)
        .map_err(|error| Failure::Corrupt(format!("items of a reservation: {error}")))?;
    rows.into_iter()
        .map(|(seat, number, price)| {
            Ok(Item { seat: id(SeatId::new, seat, "seat of a reservation")?, number, price })
        })
        .collect()
}

const RESERVATION: &str = "SELECT user_id, concert_id, session_id, items, created_at, held_until, \
                           state, payment_id FROM reservation WHERE id = ?1";

/// The reservation with this id, and when its hold ends or ended.
pub(super) fn reservation(
    connection: &Connection,
    reservation: ReservationId,
) -> Result<Option<(Reservation, Timestamp)>, Failure> {
    type Columns = (i64, i64, i64, String, i64, i64, i64, Option<i64>);
    let columns = |row: &Row<'_>| -> rusqlite::Result<Columns> { row.try_into() };
    let mut statement = connection.prepare_cached(RESERVATION)?;
    let Some((user, concert, session, items, created_at, until, state, payment)) =
        statement.query_row([reservation.get()], columns).optional()?
    else {
        return Ok(None);
    };
    let until = Timestamp(until);
    let state = match (state, payment) {
        (reservation_state::HELD, _) => ReservationState::Held { until },
        (reservation_state::PAID, Some(payment)) => {
            ReservationState::Paid { payment: id(PaymentId::new, payment, "payment")? }
        }
        (reservation_state::CANCELLED, _) => ReservationState::Cancelled,
        (reservation_state::EXPIRED, _) => ReservationState::Expired,
        other => return Err(Failure::Corrupt(format!("reservation with state {other:?}"))),
    };
    let found = Reservation {
        id: reservation,
        user: id(UserId::new, user, "user")?,
        concert: id(ConcertId::new, concert, "concert")?,
        session: id(SessionId::new, session, "session")?,
        items: items_from_text(&items)?,
        created_at: Timestamp(created_at),
        state,
    };
    Ok(Some((found, until)))
}
