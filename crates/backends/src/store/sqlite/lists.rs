//! Lists for operators, in parts. Each part looks at a bounded run of ids.

use boxoffice_domain::command::Payment;
use boxoffice_domain::ids::{PaymentId, ReservationId, UserId};
use boxoffice_domain::sales::Reservation;
use boxoffice_domain::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, Failure};
use crate::store::columns::state_of;
use crate::store::types::{LOOKED_AT_MAX, NAMED_MAX, Part, Person, ReservationFilter, merged};

type List<T> = Result<Part<T>, Failure>;

pub(super) fn reservations(
    connection: &Connection,
    after: i64,
    max: u32,
    filter: &ReservationFilter,
) -> List<(Reservation, Timestamp)> {
    let (after, last) = filter.range(after);
    let state = filter.became.map(state_of);
    let (concert, session) = (filter.concert.map(|id| id.get()), filter.session.map(|id| id.get()));
    if let Some(users) = &filter.users {
        let mut find = connection.prepare_cached(
            "SELECT id, user_id, concert_id, session_id, items, created_at, held_until, state, \
             payment_id, queue, ticket_seq, ticket_id FROM reservation INDEXED BY reservation_of_user \
             WHERE user_id = ?1 AND id > ?2 AND id <= ?3 AND state = COALESCE(?4, state) \
             AND concert_id = COALESCE(?5, concert_id) AND session_id = COALESCE(?6, session_id) \
             ORDER BY id LIMIT ?7",
        )?;
        let mut items = Vec::new();
        for user in users {
            let values = params![user.get(), after, last, state, concert, session, max];
            let mut found = find.query(values)?;
            while let Some(row) = found.next()? {
                let row = rows::listed_reservation(row)?;
                items.push((row.reservation, row.until));
            }
        }
        return Ok(merged(items, max, |(reservation, _)| reservation.id.get()));
    }
    let end: Option<i64> = connection
        .prepare_cached("SELECT id FROM reservation WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2")?
        .query_row(params![after, LOOKED_AT_MAX - 1], |row| row.get(0))
        .optional()?;
    let mut find = connection.prepare_cached(
        "SELECT id, user_id, concert_id, session_id, items, created_at, held_until, state, \
         payment_id, queue, ticket_seq, ticket_id FROM reservation WHERE id > ?1 AND id <= ?2 \
         AND state = COALESCE(?3, state) AND concert_id = COALESCE(?4, concert_id) \
         AND session_id = COALESCE(?5, session_id) ORDER BY id LIMIT ?6",
    )?;
    let end = end.filter(|end| *end < last);
    let last = end.unwrap_or(last);
    let mut found = find.query(params![after, last, state, concert, session, max])?;
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

/// Those whom their issuers call so.
pub(super) fn people_named(connection: &Connection, name: &str) -> Result<Vec<UserId>, Failure> {
    let mut find =
        connection.prepare_cached("SELECT id FROM person WHERE name = ?1 ORDER BY id LIMIT ?2")?;
    let mut found = find.query(params![name, NAMED_MAX])?;
    let mut people = Vec::new();
    while let Some(row) = found.next()? {
        people.push(rows::id(UserId::new, row.get(0)?, "user")?);
    }
    Ok(people)
}
