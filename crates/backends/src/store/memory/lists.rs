//! Lists for operators, in parts.

use std::ops::Bound::{Excluded, Unbounded};

use boxoffice_domain::command::Payment;
use boxoffice_domain::ids::{PaymentId, ReservationId, UserId};
use boxoffice_domain::sales::{Reservation, ReservationState};
use boxoffice_domain::time::Timestamp;

use super::data::Data;
use crate::store::columns::{reservation_columns, state_of};
use crate::store::types::{LOOKED_AT_MAX, NAMED_MAX, Part, Person, ReservationFilter};

impl Data {
    pub(super) fn list_reservations(
        &self,
        after: i64,
        max: u32,
        filter: &ReservationFilter,
    ) -> Part<(Reservation, Timestamp)> {
        let after = ReservationId::new(after).map_or(Unbounded, Excluded);
        let looked_at = || self.reservations.range((after, Unbounded)).take(LOOKED_AT_MAX as usize);
        let is_all = looked_at().count() < LOOKED_AT_MAX as usize;
        let end = looked_at().last().filter(|_| !is_all).map(|(id, _)| id.get());
        let is_wanted = |it: &Reservation| {
            let state = reservation_columns(it.state).0;
            filter.became.is_none_or(|became| state_of(became) == state)
                && filter.users.as_ref().is_none_or(|users| users.contains(&it.user))
                && filter.reservation.is_none_or(|id| id == it.id)
                && filter.concert.is_none_or(|id| id == it.concert)
                && filter.session.is_none_or(|id| id == it.session)
        };
        let items = looked_at()
            .filter(|(_, row)| is_wanted(&row.reservation))
            .take(max as usize)
            .map(|(_, row)| (row.reservation.clone(), row.until));
        Part::of(items.collect(), max, end, |(reservation, _)| reservation.id.get())
    }

    /// Those whom their issuers call so.
    pub(super) fn people_named(&self, name: &str) -> Vec<UserId> {
        let named = self.people_by_id.iter().filter(|(_, it)| *it == name).map(|(id, _)| *id);
        let mut people: Vec<UserId> = named.collect();
        people.sort_unstable();
        people.truncate(NAMED_MAX as usize);
        people
    }

    pub(super) fn list_payments(&self, after: i64, max: u32) -> Part<(Payment, UserId)> {
        let after = PaymentId::new(after).map_or(Unbounded, Excluded);
        let items = self.payments.range((after, Unbounded)).take(max as usize);
        let items = items.map(|(_, paid)| *paid).collect();
        Part::of(items, max, None, |(payment, _)| payment.id.get())
    }

    pub(super) fn list_people(&self, after: i64, max: u32) -> Part<Person> {
        let after = UserId::new(after).map_or(Unbounded, Excluded);
        let items =
            self.accounts.range((after, Unbounded)).take(max as usize).map(|(user, balance)| {
                let (mut held, mut paid) = (0, 0);
                for row in self.reservations.values().filter(|row| row.reservation.user == *user) {
                    match row.reservation.state {
                        ReservationState::Held { .. } => held += 1,
                        ReservationState::Paid { .. } => paid += 1,
                        ReservationState::Cancelled
                        | ReservationState::Expired
                        | ReservationState::Refunded { .. } => {}
                    }
                }
                Person { user: *user, balance: *balance, held, paid }
            });
        Part::of(items.collect(), max, None, |person| person.user.get())
    }
}
