//! Lists for operators, in parts. Each part looks at a bounded run of ids.

use boxoffice_domain::command::Payment;
use boxoffice_domain::ids::{PaymentId, ReservationId, UserId};
use boxoffice_domain::sales::Reservation;
use boxoffice_domain::time::Timestamp;
use mysql_async::Row;

use super::pool::Lease;
use super::rows::{self, Failure, take};
use super::sql;
use crate::store::columns::state_of;
use crate::store::types::{LOOKED_AT_MAX, NAMED_MAX, Part, Person, ReservationFilter, merged};

type List<T> = Result<Part<T>, Failure>;

pub(super) async fn reservations(
    lease: &mut Lease,
    after: i64,
    max: u32,
    filter: &ReservationFilter,
) -> List<(Reservation, Timestamp)> {
    let (after, last) = filter.range(after);
    let narrowed = || {
        let concert = filter.concert.map(|id| id.get());
        let session = filter.session.map(|id| id.get());
        [filter.became.map(state_of).into(), concert.into(), session.into(), max.into()]
    };
    if let Some(users) = &filter.users {
        let mut items = Vec::new();
        for user in users {
            let mut values = vec![user.get().into(), after.into(), last.into()];
            values.extend(narrowed());
            items.extend(listed(lease.rows(sql::RESERVATIONS_LIST_USER, values).await?)?);
        }
        return Ok(merged(items, max, |(reservation, _)| reservation.id.get()));
    }
    let values = vec![after.into(), (LOOKED_AT_MAX - 1).into()];
    let row = lease.rows(sql::RESERVATIONS_END, values).await?.pop();
    let end: Option<i64> = row.map(|mut row| take(&mut row, 0)).transpose()?;
    let end = end.filter(|end| *end < last);
    let mut values = vec![after.into(), end.unwrap_or(last).into()];
    values.extend(narrowed());
    let items = listed(lease.rows(sql::RESERVATIONS_LIST, values).await?)?;
    Ok(Part::of(items, max, end, |(reservation, _)| reservation.id.get()))
}

fn listed(found: Vec<Row>) -> Result<Vec<(Reservation, Timestamp)>, Failure> {
    let mut items = Vec::with_capacity(found.len());
    for mut row in found {
        let id = rows::id(ReservationId::new, take(&mut row, 0)?, "reservation")?;
        let row = rows::reservation(id, &mut row, 1)?;
        items.push((row.reservation, row.until));
    }
    Ok(items)
}

/// Those whom their issuers call so.
pub(super) async fn people_named(lease: &mut Lease, name: &str) -> Result<Vec<UserId>, Failure> {
    let found = lease.rows(sql::PEOPLE_NAMED, vec![name.into(), NAMED_MAX.into()]).await?;
    let mut people = Vec::with_capacity(found.len());
    for mut row in found {
        people.push(rows::id(UserId::new, take(&mut row, 0)?, "user")?);
    }
    Ok(people)
}

pub(super) async fn payments(lease: &mut Lease, after: i64, max: u32) -> List<(Payment, UserId)> {
    let mut items = Vec::new();
    for mut row in lease.rows(sql::PAYMENTS_LIST, vec![after.into(), max.into()]).await? {
        let row = &mut row;
        let payment = Payment {
            id: rows::id(PaymentId::new, take(row, 0)?, "payment")?,
            reservation: rows::id(ReservationId::new, take(row, 1)?, "reservation")?,
            amount: take(row, 3)?,
            paid_at: Timestamp(take(row, 4)?),
        };
        items.push((payment, rows::id(UserId::new, take(row, 2)?, "user")?));
    }
    Ok(Part::of(items, max, None, |(payment, _)| payment.id.get()))
}

pub(super) async fn people(lease: &mut Lease, after: i64, max: u32) -> List<Person> {
    let mut items = Vec::new();
    for mut row in lease.rows(sql::PEOPLE_LIST, vec![after.into(), max.into()]).await? {
        items.push(Person {
            user: rows::id(UserId::new, take(&mut row, 0)?, "user")?,
            balance: take(&mut row, 1)?,
            held: rows::count(take(&mut row, 2)?, "reservations")?,
            paid: rows::count(take(&mut row, 3)?, "reservations")?,
        });
    }
    Ok(Part::of(items, max, None, |person| person.user.get()))
}
