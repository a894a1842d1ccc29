//! Between columns and the domain's types, for every store in SQL. A value that no version of this
//! program writes makes the row corrupt, never a default.

use boxoffice_domain::command::{EntryKind, Refunded, ReservationRow, TicketRef};
use boxoffice_domain::ids::{
    ConcertId, PaymentId, QueueName, ReservationId, SeatId, SessionId, TicketId, UserId,
};
use boxoffice_domain::invariant::Finding;
use boxoffice_domain::queue::Step;
use boxoffice_domain::sales::{Item, Reservation, ReservationState, SeatState};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;

use super::act::Role;
use super::types::Became;

/// What makes no sense about a row.
#[derive(Debug)]
pub(super) struct Corrupt(pub(super) String);

/// `reservation.state`
pub(super) mod reservation_state {
    pub(crate) const HELD: i64 = 0;
    pub(crate) const PAID: i64 = 1;
    pub(crate) const CANCELLED: i64 = 2;
    pub(crate) const EXPIRED: i64 = 3;
    pub(crate) const REFUNDED: i64 = 4;
}

/// The column for what a list asks for.
pub(super) const fn state_of(became: Became) -> i64 {
    match became {
        Became::Held => reservation_state::HELD,
        Became::Paid => reservation_state::PAID,
        Became::Cancelled => reservation_state::CANCELLED,
        Became::Expired => reservation_state::EXPIRED,
        Became::Refunded => reservation_state::REFUNDED,
    }
}

/// `seat.state`
pub(super) mod seat_state {
    pub(crate) const AVAILABLE: i64 = 0;
    pub(crate) const HELD: i64 = 1;
    pub(crate) const SOLD: i64 = 2;
    pub(crate) const RELEASED: i64 = 3;
}

/// `points_entry.kind`
pub(super) mod entry_kind {
    pub(crate) const OPENING: i64 = 0;
    pub(crate) const CHARGE: i64 = 1;
    pub(crate) const PAYMENT: i64 = 2;
    pub(crate) const REFUND: i64 = 3;
}

/// Makes an id newtype of a column.
pub(super) fn id<T>(new: fn(i64) -> Option<T>, value: i64, what: &str) -> Result<T, Corrupt> {
    new(value).ok_or_else(|| Corrupt(format!("{what} {value} is not positive")))
}

pub(super) fn queue_name(text: &str) -> Result<QueueName, Corrupt> {
    QueueName::new(text).ok_or_else(|| Corrupt(format!("queue name {text:?}")))
}

pub(super) fn ticket_id(bytes: &[u8]) -> Result<TicketId, Corrupt> {
    let bytes = bytes.try_into().map_err(|_| Corrupt("length of a ticket id".into()))?;
    Ok(TicketId(bytes))
}

pub(super) fn digest(bytes: &[u8]) -> Result<[u8; 32], Corrupt> {
    bytes.try_into().map_err(|_| Corrupt("length of a fingerprint".into()))
}

pub(super) fn role(text: &str) -> Result<Role, Corrupt> {
    Role::parse(text).ok_or_else(|| Corrupt(format!("role {text:?}")))
}

/// A counter that is never negative.
pub(super) fn count(value: i64, what: &str) -> Result<u64, Corrupt> {
    u64::try_from(value).map_err(|_| Corrupt(format!("{what} is {value}")))
}

/// A set of numbers of a queue, from a column that may be empty.
pub(super) fn numbers_from(bytes: Option<Vec<u8>>, queue: &str) -> Result<RoaringTreemap, Corrupt> {
    let Some(bytes) = bytes else { return Ok(RoaringTreemap::new()) };
    RoaringTreemap::deserialize_from(&bytes[..])
        .map_err(|error| Corrupt(format!("claimed numbers of {queue}: {error}")))
}

/// A set of numbers of a queue as a column.
pub(super) fn numbers_to(numbers: &RoaringTreemap) -> Result<Vec<u8>, Corrupt> {
    let mut bytes = Vec::with_capacity(numbers.serialized_size());
    numbers
        .serialize_into(&mut bytes)
        .map_err(|error| Corrupt(format!("claimed numbers: {error}")))?;
    Ok(bytes)
}

/// The parts, of 65,536 numbers each, in which a step changes who was passed over.
pub(super) fn parts_of(step: &Step) -> Vec<i64> {
    let numbers = step.passed.iter().chain(&step.returned);
    let mut parts: Vec<i64> = numbers.map(|seq| column(seq >> PART_BITS)).collect();
    parts.sort_unstable();
    parts.dedup();
    parts
}

const PART_BITS: u32 = 16;

/// Who of a part has been passed over after a step, where `before` were before it.
pub(super) fn passed_after(before: RoaringTreemap, part: i64, step: &Step) -> RoaringTreemap {
    let first = part.unsigned_abs() << PART_BITS;
    let mut only = RoaringTreemap::new();
    only.insert_range(first..first + (1 << PART_BITS));
    (before | (&step.passed & &only)) - &step.returned
}

/// Checks what is kept of those who were passed over (I3): only admission passes by, and who came back
/// was let in and does not wait any more.
pub(super) fn check_passed(
    finding: &mut Finding,
    queue: &str,
    serving: u64,
    passed: &RoaringTreemap,
    readmitted: &[(u64, Timestamp)],
) {
    finding.add_checked(readmitted.len() as u64);
    finding.expect(passed.max().is_none_or(|last| last <= serving), || {
        format!("queue {queue} has passed over {:?}, and serves {serving}", passed.max())
    });
    for (seq, _) in readmitted {
        if *seq > serving || passed.contains(*seq) {
            finding.violated(format!("queue {queue} has let {seq} in again, and it waits as well"));
        }
    }
}

/// A number of a queue as a column. Numbers count joins one by one, so 2^63 is out of reach.
pub(super) fn column(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

pub(super) fn seat_from(
    state: i64,
    reservation: Option<i64>,
    until: Option<i64>,
) -> Result<SeatState, Corrupt> {
    let owner = |reservation| id(ReservationId::new, reservation, "reservation of a seat");
    match (state, reservation, until) {
        (seat_state::AVAILABLE, _, _) => Ok(SeatState::Available),
        (seat_state::HELD, Some(r), Some(until)) => {
            Ok(SeatState::Held { reservation: owner(r)?, until: Timestamp(until) })
        }
        (seat_state::SOLD, Some(r), _) => Ok(SeatState::Sold { reservation: owner(r)? }),
        (seat_state::RELEASED, _, Some(until)) => {
            Ok(SeatState::Released { until: Timestamp(until) })
        }
        other => Err(Corrupt(format!("seat with state {other:?}"))),
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
        SeatState::Released { until } => (seat_state::RELEASED, None, Some(until.0)),
    }
}

/// The two columns of a reservation's state: `state` and `payment_id`.
pub(super) const fn reservation_columns(state: ReservationState) -> (i64, Option<i64>) {
    match state {
        ReservationState::Held { .. } => (reservation_state::HELD, None),
        ReservationState::Paid { payment } => (reservation_state::PAID, Some(payment.get())),
        ReservationState::Cancelled => (reservation_state::CANCELLED, None),
        ReservationState::Expired => (reservation_state::EXPIRED, None),
        ReservationState::Refunded { payment } => {
            (reservation_state::REFUNDED, Some(payment.get()))
        }
    }
}

/// The two columns of why an entry stands in the ledger: `kind` and `payment_id`.
pub(super) const fn entry_columns(kind: EntryKind) -> (i64, Option<i64>) {
    match kind {
        EntryKind::Opening => (entry_kind::OPENING, None),
        EntryKind::Charge => (entry_kind::CHARGE, None),
        EntryKind::Payment(payment) => (entry_kind::PAYMENT, Some(payment.get())),
        EntryKind::Refund(payment) => (entry_kind::REFUND, Some(payment.get())),
    }
}

/// payment, reservation, amount, refunded at
pub(super) fn refund(
    (payment, reservation, amount, at): (i64, i64, i64, i64),
) -> Result<Refunded, Corrupt> {
    Ok(Refunded {
        payment: id(PaymentId::new, payment, "payment")?,
        reservation: id(ReservationId::new, reservation, "reservation")?,
        amount,
        refunded_at: Timestamp(at),
    })
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

pub(super) fn items_from_text(text: &str) -> Result<Vec<Item>, Corrupt> {
    let rows: Vec<(i64, u32, i64)> = serde_json::from_str(text)
        .map_err(|error| Corrupt(format!("items of a reservation: {error}")))?;
    rows.into_iter()
        .map(|(seat, number, price)| {
            Ok(Item { seat: id(SeatId::new, seat, "seat of a reservation")?, number, price })
        })
        .collect()
}

/// queue, number, id
pub(super) type TicketColumns = (Option<String>, Option<i64>, Option<Vec<u8>>);

/// The ticket that holds a reservation; none in rows of older versions.
pub(super) fn holding_ticket(
    (queue, seq, id): TicketColumns,
) -> Result<Option<TicketRef>, Corrupt> {
    let (Some(queue), Some(seq), Some(id)) = (queue, seq, id) else { return Ok(None) };
    let (queue, seq) = (queue_name(&queue)?, count(seq, "number of a ticket")?);
    Ok(Some(TicketRef { queue, seq, id: ticket_id(&id)? }))
}

/// user, concert, session, items, created at, held until, state, payment
pub(super) type ReservationColumns = (i64, i64, i64, String, i64, i64, i64, Option<i64>);

/// A row of a reservation.
pub(super) fn reservation(
    reservation: ReservationId,
    (user, concert, session, items, created_at, until, state, payment): ReservationColumns,
    ticket: TicketColumns,
) -> Result<ReservationRow, Corrupt> {
    let until = Timestamp(until);
    let state = match (state, payment) {
        (reservation_state::HELD, _) => ReservationState::Held { until },
        (reservation_state::PAID, Some(payment)) => {
            ReservationState::Paid { payment: id(PaymentId::new, payment, "payment")? }
        }
        (reservation_state::CANCELLED, _) => ReservationState::Cancelled,
        (reservation_state::EXPIRED, _) => ReservationState::Expired,
        (reservation_state::REFUNDED, Some(payment)) => {
            ReservationState::Refunded { payment: id(PaymentId::new, payment, "payment")? }
        }
        other => return Err(Corrupt(format!("reservation with state {other:?}"))),
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
    Ok(ReservationRow { reservation: found, until, ticket: holding_ticket(ticket)? })
}

/// Takes times back that lie in the future, in every store in SQL. Each `?` is the present. Holds that
/// were made in the future end.
pub(super) const SET_BACK: [&str; 16] = [
    "UPDATE seat SET held_until = ? WHERE state = 1 AND reservation_id IN \
     (SELECT id FROM reservation WHERE state = 0 AND created_at > ?)",
    "UPDATE seat SET held_until = ? WHERE state = 3 AND held_until > ?",
    "UPDATE reservation SET held_until = ? WHERE state = 0 AND created_at > ?",
    "UPDATE reservation SET created_at = ? WHERE created_at > ?",
    "UPDATE payment SET paid_at = ? WHERE paid_at > ?",
    "UPDATE refund SET refunded_at = ? WHERE refunded_at > ?",
    "UPDATE points_entry SET at = ? WHERE at > ?",
    "UPDATE spent_ticket SET at = ? WHERE at > ?",
    "UPDATE idempotency SET at = ? WHERE at > ?",
    "UPDATE change_key SET at = ? WHERE at > ?",
    "UPDATE admission SET at = ? WHERE at > ?",
    "UPDATE readmitted SET at = ? WHERE at > ?",
    "UPDATE admission_mark SET at = ? WHERE at > ?",
    "UPDATE alias SET issued_at = ? WHERE issued_at > ?",
    "UPDATE queue SET credit_at = NULLIF(?, credit_at), credit_micro = 0 WHERE credit_at > ?",
    "UPDATE setting SET value = ? WHERE name = 'clock' AND value + 0 > ?",
];
