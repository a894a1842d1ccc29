//! The numbered invariants over the maps. `docs/invariants.md` explains each.

use std::collections::BTreeMap;

use boxoffice_domain::command::{EntryKind, NewRefund, TicketRef};
use boxoffice_domain::event::Topic;
use boxoffice_domain::ids::{PaymentId, UserId};
use boxoffice_domain::invariant::{Finding, Invariant};
use boxoffice_domain::sales::{ReservationState, SeatState};
use boxoffice_domain::time::Timestamp;

use super::data::Data;
use crate::store::catalog::Catalog;
use crate::store::chain::{Check, Head, LogPart};
use crate::store::columns::check_passed;

/// Checks all that can be seen.
pub(super) fn findings(data: &Data, catalog: &Catalog, now: Timestamp) -> Vec<Finding> {
    vec![
        one_owner(data, now),
        points(data),
        line(data),
        memory(data, catalog),
        one_event(data),
        paid_once(data),
        spent(data),
        logs(data),
    ]
}

fn one_owner(data: &Data, now: Timestamp) -> Finding {
    let mut finding = Finding::new(Invariant::OneOwner);
    for (id, row) in &data.reservations {
        for item in &row.reservation.items {
            let state = data.seats.get(&item.seat).map(|(_, seat)| seat.state);
            let own = match row.reservation.state {
                ReservationState::Paid { .. } => {
                    state == Some(SeatState::Sold { reservation: *id })
                }
                ReservationState::Held { until } if until > now => {
                    matches!(state, Some(SeatState::Held { reservation, until: seat_until })
                        if reservation == *id && seat_until >= until)
                }
                _ => true,
            };
            finding.expect(own, || format!("reservation {id} lists {}: {state:?}", item.seat));
        }
    }
    for (session, seat) in data.seats.values() {
        let (owner, is_sold) = match seat.state {
            SeatState::Available | SeatState::Released { .. } => continue,
            SeatState::Held { reservation, .. } => (reservation, false),
            SeatState::Sold { reservation } => (reservation, true),
        };
        let row = data.reservations.get(&owner);
        let fits = row.is_some_and(|row| {
            let state = match row.reservation.state {
                ReservationState::Held { .. } => !is_sold,
                ReservationState::Paid { .. } => is_sold,
                _ => false,
            };
            let lists = row.reservation.items.iter().any(|item| item.seat == seat.id);
            state && lists && row.reservation.session == *session
        });
        finding.expect(fits, || format!("seat {seat:?} does not fit its reservation {row:?}"));
    }
    finding
}

fn points(data: &Data) -> Finding {
    let mut finding = Finding::new(Invariant::PointsConserved);
    let mut sums: BTreeMap<UserId, i64> = BTreeMap::new();
    let mut taken: BTreeMap<PaymentId, Vec<i64>> = BTreeMap::new();
    let mut back: BTreeMap<PaymentId, Vec<i64>> = BTreeMap::new();
    for entry in data.entries.values() {
        let sum = sums.entry(entry.user).or_default();
        *sum += entry.amount;
        finding.expect(*sum == entry.balance, || format!("{entry:?} leads to {sum}"));
        match entry.kind {
            EntryKind::Payment(payment) => taken.entry(payment).or_default().push(entry.amount),
            EntryKind::Refund(payment) => back.entry(payment).or_default().push(entry.amount),
            EntryKind::Opening | EntryKind::Charge => {}
        }
    }
    for (user, balance) in &data.accounts {
        let sum = sums.remove(user).unwrap_or(0);
        let holds = *balance == sum && *balance >= 0;
        finding.expect(holds, || format!("user {user} has {balance}, entries sum to {sum}"));
    }
    finding.expect(sums.is_empty(), || format!("entries without an account: {sums:?}"));
    for (payment, _) in data.payments.values() {
        let entries = taken.remove(&payment.id).unwrap_or_default();
        finding.expect(entries == [-payment.amount], || format!("{payment:?} took {entries:?}"));
    }
    for NewRefund { refund, .. } in data.refunds.values() {
        let entries = back.remove(&refund.payment).unwrap_or_default();
        finding.expect(entries == [refund.amount], || format!("{refund:?} gave {entries:?}"));
    }
    finding.expect(back.is_empty(), || format!("entries without a refund: {back:?}"));
    finding.expect(taken.is_empty(), || format!("entries without a payment: {taken:?}"));
    finding
}

fn line(data: &Data) -> Finding {
    let mut finding = Finding::new(Invariant::NobodyOvertaken);
    for (name, queue) in &data.queues {
        let counters = [queue.floor, queue.serving, queue.next, queue.watermark];
        finding.expect(counters.is_sorted(), || format!("queue {name}: {counters:?} do not rise"));
        let times: Vec<_> = queue.log.values().collect();
        finding.expect(times.is_sorted(), || format!("queue {name} admitted out of order"));
        let last = queue.log.last_key_value().map_or(queue.floor, |(upto, _)| *upto);
        finding.expect(last == queue.serving, || {
            format!("queue {name} serves {}, its log ends at {last}", queue.serving)
        });
        let readmitted: Vec<_> = queue.readmitted.iter().map(|(seq, at)| (*seq, *at)).collect();
        let name = name.as_str();
        check_passed(&mut finding, name, queue.serving, &queue.passed, &readmitted);
    }
    finding
}

fn memory(data: &Data, catalog: &Catalog) -> Finding {
    let mut finding = Finding::new(Invariant::AcknowledgedIsDurable);
    for session in data.sessions.keys() {
        let shown = catalog
            .inventory_of(*session)
            .map(|inventory| inventory.snapshot().1)
            .unwrap_or_default();
        let stored: Vec<_> =
            data.seats.values().filter(|(of, _)| of == session).map(|(_, seat)| *seat).collect();
        finding.expect(shown == stored, || format!("session {session} is not shown as it is"));
        finding.add_checked(stored.len() as u64);
        if let Some(plan) = data.plans.get(session) {
            finding
                .expect(plan.is_of(stored.len()), || format!("session {session} is not its plan"));
        }
    }
    finding
}

/// Follows each log from the last record but one that says where the queue stands.
fn logs(data: &Data) -> Finding {
    let mut finding = Finding::new(Invariant::OneChain);
    for (name, queue) in &data.queues {
        let but_one = queue.marks.len().saturating_sub(2);
        let begin = queue.marks.get(but_one).map_or(0, |(number, _)| *number);
        let part = data.admission_log(name, begin.checked_sub(1), usize::MAX - 1);
        let Some(LogPart { previous, links, head }) = part else {
            finding.violated(format!("queue {name} has no log"));
            continue;
        };
        let mut check = Check::new(name.clone(), previous);
        links.iter().for_each(|link| check.follow(link, &mut finding));
        let head = Head { number: queue.steps, ..head };
        check.end(head, queue.serving, &queue.passed, &mut finding);
    }
    finding
}

fn one_event(data: &Data) -> Finding {
    let mut finding = Finding::new(Invariant::OneEvent);
    let reservations = || data.reservations.values().map(|row| row.reservation.state);
    let is_ended = |state: &ReservationState| {
        matches!(state, ReservationState::Cancelled | ReservationState::Expired)
    };
    for topic in Topic::ALL {
        let effects = match topic {
            Topic::ConcertReserved => reservations().count(),
            Topic::ReservationCancelled => reservations().filter(is_ended).count(),
            Topic::PaymentCompleted => data.payments.len(),
            Topic::PaymentRefunded => data.refunds.len(),
            Topic::PointCharged => {
                data.entries.values().filter(|entry| entry.kind == EntryKind::Charge).count()
            }
        } as u64;
        let waiting = data.outbox.values().filter(|row| row.topic == topic.name()).count() as u64;
        let sent = data.published.get(topic.name()).copied().unwrap_or(0);
        finding.add_checked(effects);
        finding.expect(effects == waiting + sent, || {
            format!("{}: {effects} effects, {sent} events sent, {waiting} waiting", topic.name())
        });
    }
    finding
}

fn paid_once(data: &Data) -> Finding {
    let mut finding = Finding::new(Invariant::PaidOnce);
    for (payment, user) in data.payments.values() {
        let row = data.reservations.get(&payment.reservation).map(|row| &row.reservation);
        let fits = row.is_some_and(|row| {
            let state = if data.refunds.contains_key(&payment.id) {
                ReservationState::Refunded { payment: payment.id }
            } else {
                ReservationState::Paid { payment: payment.id }
            };
            row.state == state && row.total() == payment.amount && row.user == *user
        });
        finding.expect(fits, || format!("{payment:?} is for {row:?}"));
    }
    for (id, row) in &data.reservations {
        if let ReservationState::Paid { payment } | ReservationState::Refunded { payment } =
            row.reservation.state
        {
            let paid = data.payments.get(&payment).is_some_and(|(p, _)| p.reservation == *id);
            finding.expect(paid, || format!("reservation {id} is paid without a payment"));
        }
    }
    for NewRefund { refund, user, .. } in data.refunds.values() {
        let fits = data.payments.get(&refund.payment).is_some_and(|(payment, paid_by)| {
            payment.reservation == refund.reservation
                && payment.amount == refund.amount
                && paid_by == user
        });
        finding.expect(fits, || format!("{refund:?} is of no such payment"));
    }
    finding
}

fn spent(data: &Data) -> Finding {
    let mut finding = Finding::new(Invariant::SpentIsSpent);
    let mut tickets: BTreeMap<PaymentId, Vec<&TicketRef>> = BTreeMap::new();
    for (ticket, payment) in &data.spent {
        if let Some(payment) = payment {
            tickets.entry(*payment).or_default().push(ticket);
        }
    }
    for (payment, _) in data.payments.values() {
        let row = data.reservations.get(&payment.reservation);
        let holding = row.and_then(|row| row.ticket.as_ref());
        let spent = tickets.get(&payment.id).map_or(&[][..], Vec::as_slice);
        // The one that was shown, and the one that held where it was another.
        let others = spent.iter().filter(|ticket| Some(**ticket) != holding).count();
        let holds = !spent.is_empty() && others <= 1;
        finding.expect(holds, || format!("{payment:?} spent {spent:?}"));
        let is_spent = holding.is_none_or(|ticket| data.spent.contains_key(ticket));
        finding.expect(is_spent, || format!("{payment:?}: {holding:?} held and is not spent"));
    }
    finding
}
