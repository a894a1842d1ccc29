//! Lists for operators, in parts. Each part looks at a bounded run of ids.

use boxoffice_domain::command::Payment;
use boxoffice_domain::ids::{PaymentId, ReservationId, UserId};
use boxoffice_domain::sales::Reservation;
use boxoffice_domain::time::Timestamp;

use super::pool::Lease;
use super::rows::{self, Failure, take};
use super::sql;
use crate::store::columns::state_of;
use crate::store::types::{Became, LOOKED_AT_MAX, Part, Person};

type List<T> = Result<Part<T>, Failure>;

pub(super) async fn reservations(
    lease: &mut Lease,
    after: i64,
    max: u32,
    became: Option<Became>,
) -> List<(Reservation, Timestamp)> {
    let values = vec![after.into(), (LOOKED_AT_MAX - 1).into()];
    let row = lease.rows(sql::RESERVATIONS_END, values).await?.pop();
    let end: Option<i64> = row.map(|mut row| take(&mut row, 0)).transpose()?;
    let last = end.unwrap_or(i64::MAX);
    let found = match became {
        None => {
            let values = vec![after.into(), last.into(), max.into()];
            lease.rows(sql::RESERVATIONS_LIST, values).await?
        }
        Some(became) => {
            let values = vec![after.into(), last.into(), state_of(became).into(), max.into()];
            lease.rows(sql::RESERVATIONS_LIST_STATE, values).await?
        }
    };
    let mut items = Vec::new();
    for mut row in found {
        let id = rows::id(ReservationId::new, take(&mut row, 0)?, "reservation")?;
        let row = rows::reservation(id, &mut row, 1)?;
        items.push((row.reservation, row.until));
    }
    Ok(Part::of(items, max, end, |(reservation, _)| reservation.id.get()))
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
