//! Lists for operators, in parts. Each part looks at a bounded run of ids.

use boxoffice_domain::command::Payment;
use boxoffice_domain::ids::{PaymentId, ReservationId, UserId};
use boxoffice_domain::sales::Reservation;
use boxoffice_domain::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, Failure};
use crate::store::columns::state_of;
use crate::store::types::{Became, LOOKED_AT_MAX, Part, Person};

type List<T> = Result<Part<T>, Failure>;

pub(super) fn reservations(
    connection: &Connection,
    after: i64,
    max: u32,
    became: Option<Became>,
) -> List<(Reservation, Timestamp)> {
    let end: Option<i64> = connection
        .prepare_cached("SELECT id FROM reservation WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2")?
        .query_row(params![after, LOOKED_AT_MAX - 1], |row| row.get(0))
        .optional()?;
    let mut find = connection.prepare_cached(
        "SELECT id, user_id, concert_id, session_id, items, created_at, held_until, state, \
         payment_id, queue, ticket_seq, ticket_id FROM reservation WHERE id > ?1 AND id <= ?2 AND (?3 IS NULL OR state = ?3) \
         ORDER BY id LIMIT ?4",
    )?;
    let last = end.unwrap_or(i64::MAX);
    let mut found = find.query(params![after, last, became.map(state_of), max])?;
    let mut items = Vec::new();
    while let Some(row) = found.next()? {
        let row = rows::listed_reservation(row)?;
        items.push((row.reservation, row.until));
    }
    Ok(Part::of(items, max, end, |(reservation, _)| reservation.id.get()))
}

pub(super) fn payments(connection: &Connection, after: i64, max: u32) -> List<(Payment, UserId)> {
    let mut find = connection.prepare_cached(
        "SELECT id, reservation_id, user_id, amount, paid_at FROM payment WHERE id > ?1 \
         ORDER BY id LIMIT ?2",
    )?;
    let mut found = find.query(params![after, max])?;
    let mut items = Vec::new();
    while let Some(row) = found.next()? {
        let payment = Payment {
            id: rows::id(PaymentId::new, row.get(0)?, "payment")?,
            reservation: rows::id(ReservationId::new, row.get(1)?, "reservation")?,
            amount: row.get(3)?,
            paid_at: Timestamp(row.get(4)?),
        };
        items.push((payment, rows::id(UserId::new, row.get(2)?, "user")?));
    }
    Ok(Part::of(items, max, None, |(payment, _)| payment.id.get()))
}

pub(super) fn people(connection: &Connection, after: i64, max: u32) -> List<Person> {
    // In these words SQLite knows that the index of live reservations has all of them.
    let mut find = connection.prepare_cached(
        "SELECT user_id, balance, \
         (SELECT COUNT(*) FROM reservation r WHERE r.user_id = a.user_id AND r.state <= 1 \
          AND r.state = 0), \
         (SELECT COUNT(*) FROM reservation r WHERE r.user_id = a.user_id AND r.state <= 1 \
          AND r.state = 1) \
         FROM account a WHERE user_id > ?1 ORDER BY user_id LIMIT ?2",
    )?;
    let mut found = find.query(params![after, max])?;
    let mut items = Vec::new();
    while let Some(row) = found.next()? {
        items.push(Person {
            user: rows::id(UserId::new, row.get(0)?, "user")?,
            balance: row.get(1)?,
            held: rows::count(row.get(2)?, "reservations")?,
            paid: rows::count(row.get(3)?, "reservations")?,
        });
    }
    Ok(Part::of(items, max, None, |person| person.user.get()))
}
