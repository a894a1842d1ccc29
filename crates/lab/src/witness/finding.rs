//! What can be wrong.

use std::fmt;

use serde::{Serialize, Serializer};

use super::books::{SeatState, State, Topic};

/// A kind of finding, by which they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Kind {
    #[serde(rename = "place lost")]
    PlaceLost,
    #[serde(rename = "number grown")]
    NumberGrown,
    #[serde(rename = "number twice")]
    NumberTwice,
    #[serde(rename = "seat doubled")]
    SeatDoubled,
    #[serde(rename = "paid twice")]
    PaidTwice,
    #[serde(rename = "event lost")]
    EventLost,
    #[serde(rename = "event twice")]
    EventTwice,
    #[serde(rename = "effect lost")]
    EffectLost,
    #[serde(rename = "points")]
    Points,
    #[serde(rename = "ghost")]
    Ghost,
    #[serde(rename = "false refusal")]
    FalseRefusal,
    #[serde(rename = "lock left")]
    LockLeft,
    #[serde(rename = "5xx")]
    ServerError,
    #[serde(rename = "4xx")]
    ClientError,
    #[serde(rename = "audit")]
    Audit,
    #[serde(rename = "died")]
    Died,
    #[serde(rename = "drill")]
    Drill,
}

impl Kind {
    /// What a report counts it under.
    pub(crate) const fn group(self) -> &'static str {
        match self {
            Self::PlaceLost => "places lost",
            Self::NumberGrown | Self::NumberTwice => "numbers grown",
            Self::SeatDoubled | Self::PaidTwice => "seats doubled",
            Self::EventLost | Self::EventTwice => "events lost",
            Self::EffectLost | Self::Points => "effects lost",
            Self::Ghost => "effects of refused requests",
            Self::FalseRefusal => "refused without cause",
            Self::LockLeft => "locks left",
            Self::ServerError | Self::ClientError | Self::Audit | Self::Died | Self::Drill => {
                "other"
            }
        }
    }

    /// The groups, in the order of a report.
    pub(crate) const GROUPS: [&'static str; 9] = [
        "places lost",
        "numbers grown",
        "seats doubled",
        "events lost",
        "effects lost",
        "effects of refused requests",
        "refused without cause",
        "locks left",
        "other",
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Something that must not be. What was answered on the way is in `said`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Finding {
    /// A token that was given is not known.
    PlaceUnknown {
        seq: u64,
        instance: String,
    },
    /// A place is over, and its owner has neither left nor paid.
    PlaceOver {
        seq: u64,
        instance: String,
    },
    /// An instance says a higher number than it had said before.
    NumberGrewAtOne {
        seq: u64,
        instance: String,
        before: u64,
        after: u64,
        apart_ms: u64,
    },
    /// An instance says a higher number than any had said, longer ago than news take.
    NumberGrew {
        seq: u64,
        instance: String,
        before: u64,
        after: u64,
    },
    NumberTwice {
        seq: u64,
        users: Vec<i64>,
    },
    ReservationTwice {
        reservation: i64,
        users: [i64; 2],
    },
    /// Both of a race were told that the seat is theirs.
    SeatToldTwice {
        seat: i64,
        users: [i64; 2],
    },
    SeatPaidTwice {
        seat: i64,
        reservations: [i64; 2],
    },
    SeatHeldTwice {
        seat: i64,
        reservations: [i64; 2],
        /// Of the first.
        state: State,
        overlap_ms: i64,
    },
    /// Two payments of one reservation were acknowledged.
    PaidTwice {
        reservation: i64,
    },
    EventsWait {
        count: i64,
    },
    EventLost {
        topic: Topic,
        id: i64,
    },
    EventTwice {
        topic: Topic,
        id: i64,
        count: u32,
    },
    /// An event of something that the database does not know.
    EventOfNothing {
        topic: Topic,
        id: i64,
    },
    EventUnknown {
        name: String,
    },
    HoldLost {
        reservation: i64,
        user: i64,
        said: String,
    },
    PaymentLost {
        reservation: i64,
        payment: i64,
        state: State,
    },
    CancelLost {
        reservation: i64,
        state: State,
    },
    RefundLost {
        payment: i64,
        state: State,
    },
    ChargeLost {
        user: i64,
        have: usize,
        acknowledged: usize,
        said: String,
    },
    /// A seat of a paid reservation is not sold to it.
    SeatLost {
        seat: i64,
        reservation: i64,
        found: Option<(SeatState, i64)>,
    },
    /// A paid reservation names a payment that is not its own.
    PaymentOfAnother {
        reservation: i64,
        payment: Option<i64>,
    },
    Balance {
        user: i64,
        balance: i64,
        entries: i64,
    },
    PaymentEntries {
        payment: i64,
        entries: usize,
    },
    PaymentTookNothing {
        payment: i64,
        user: i64,
        amount: i64,
    },
    RefundEntries {
        payment: i64,
        entries: usize,
    },
    /// A balance was told that does not follow from the charge that was acknowledged.
    PointsTold {
        user: i64,
        points: i64,
    },
    HoldNotAsked {
        reservation: i64,
        user: i64,
        said: String,
    },
    HoldsTooMany {
        user: i64,
        seats: Vec<i64>,
        have: usize,
        asked: usize,
    },
    PaidNotAsked {
        reservation: i64,
        said: String,
    },
    CancelNotAsked {
        reservation: i64,
        said: String,
    },
    RefundNotAsked {
        payment: i64,
        said: String,
    },
    ChargedTooOften {
        user: i64,
        have: usize,
        at_most: usize,
        said: String,
    },
    /// A rule was named that does not apply.
    RefusedWrongly {
        user: i64,
        code: String,
        why: String,
        said: String,
    },
    LocksLeft {
        count: i64,
    },
    ServerError {
        request: String,
        answer: String,
    },
    ClientError {
        request: String,
        answer: String,
    },
    Audit {
        instance: String,
        said: String,
    },
    Died {
        instance: String,
        code: i32,
        log: String,
    },
    /// A mistake of the drill itself.
    Drill {
        what: String,
    },
}

impl Finding {
    /// Returns what it is counted as.
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::PlaceUnknown { .. } | Self::PlaceOver { .. } => Kind::PlaceLost,
            Self::NumberGrewAtOne { .. } | Self::NumberGrew { .. } => Kind::NumberGrown,
            Self::NumberTwice { .. } => Kind::NumberTwice,
            Self::ReservationTwice { .. }
            | Self::SeatToldTwice { .. }
            | Self::SeatPaidTwice { .. }
            | Self::SeatHeldTwice { .. } => Kind::SeatDoubled,
            Self::PaidTwice { .. } => Kind::PaidTwice,
            Self::EventsWait { .. } | Self::EventLost { .. } => Kind::EventLost,
            Self::EventTwice { .. } | Self::EventOfNothing { .. } | Self::EventUnknown { .. } => {
                Kind::EventTwice
            }
            Self::HoldLost { .. }
            | Self::PaymentLost { .. }
            | Self::CancelLost { .. }
            | Self::RefundLost { .. }
            | Self::ChargeLost { .. }
            | Self::SeatLost { .. }
            | Self::PaymentOfAnother { .. } => Kind::EffectLost,
            Self::Balance { .. }
            | Self::PaymentEntries { .. }
            | Self::PaymentTookNothing { .. }
            | Self::RefundEntries { .. }
            | Self::PointsTold { .. } => Kind::Points,
            Self::HoldNotAsked { .. }
            | Self::HoldsTooMany { .. }
            | Self::PaidNotAsked { .. }
            | Self::CancelNotAsked { .. }
            | Self::RefundNotAsked { .. }
            | Self::ChargedTooOften { .. } => Kind::Ghost,
            Self::RefusedWrongly { .. } => Kind::FalseRefusal,
            Self::LocksLeft { .. } => Kind::LockLeft,
            Self::ServerError { .. } => Kind::ServerError,
            Self::ClientError { .. } => Kind::ClientError,
            Self::Audit { .. } => Kind::Audit,
            Self::Died { .. } => Kind::Died,
            Self::Drill { .. } => Kind::Drill,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlaceUnknown { seq, instance } => write!(f, "number {seq}: 401 at {instance}"),
            Self::PlaceOver { seq, instance } => {
                write!(f, "number {seq} is EXPIRED at {instance} and has neither left nor paid")
            }
            Self::NumberGrewAtOne { seq, instance, before, after, apart_ms } => {
                write!(f, "number {seq} at {instance}: {before} then {after}, {apart_ms} ms apart")
            }
            Self::NumberGrew { seq, instance, before, after } => write!(
                f,
                "number {seq}: {before} was told more than {LAG} s before {instance} says {after}",
                LAG = super::LAG_S
            ),
            Self::NumberTwice { seq, users } => {
                write!(f, "number {seq} was given to users {users:?}")
            }
            Self::ReservationTwice { reservation, users: [one, other] } => {
                write!(f, "reservation {reservation} was given to users {one} and {other}")
            }
            Self::SeatToldTwice { seat, users: [one, other] } => {
                write!(f, "seat {seat}: both {one} and {other} were told 201")
            }
            Self::SeatPaidTwice { seat, reservations: [one, other] } => {
                write!(f, "seat {seat} is paid in reservations {one} and {other}")
            }
            Self::SeatHeldTwice { seat, reservations: [one, other], state, overlap_ms } => write!(
                f,
                "seat {seat}: reservations {one} ({state}) and {other} at the same time, for {overlap_ms} ms"
            ),
            Self::PaidTwice { reservation } => {
                write!(f, "reservation {reservation}: two payments were answered with 201")
            }
            Self::EventsWait { count } => {
                write!(f, "{count} events are still in the outbox 30 s after the round")
            }
            Self::EventLost { topic, id } => write!(f, "{topic} {id}"),
            Self::EventTwice { topic, id, count } => write!(f, "{topic} {id} ×{count}"),
            Self::EventOfNothing { topic, id } => write!(f, "{topic} {id} without an effect"),
            Self::EventUnknown { name } => write!(f, "{name} is no event that anybody knows"),
            Self::HoldLost { reservation, user, said } => write!(
                f,
                "reservation {reservation} of user {user} was answered with 201 and is not in the database: {said}"
            ),
            Self::PaymentLost { reservation, payment, state } => write!(
                f,
                "payment {payment} of reservation {reservation} was answered with 201 and is not in the database so; \
                 the reservation is {state}"
            ),
            Self::CancelLost { reservation, state } => {
                write!(f, "reservation {reservation} was given back with 204 and is {state}")
            }
            Self::RefundLost { payment, state } => {
                write!(f, "payment {payment} was refunded with 200; its reservation is {state}")
            }
            Self::ChargeLost { user, have, acknowledged, said } => write!(
                f,
                "user {user} was charged {have} times; {acknowledged} were acknowledged: {said}"
            ),
            Self::SeatLost { seat, reservation, found } => {
                write!(f, "seat {seat} of paid reservation {reservation} is ")?;
                match found {
                    Some((state, of)) => write!(f, "{state} by reservation {of}"),
                    None => f.write_str("free"),
                }
            }
            Self::PaymentOfAnother { reservation, payment } => match payment {
                Some(payment) => write!(
                    f,
                    "reservation {reservation} names payment {payment}, which is not its own"
                ),
                None => write!(f, "reservation {reservation} is paid and names no payment"),
            },
            Self::Balance { user, balance, entries } => {
                write!(f, "user {user}: balance {balance}, entries {entries}")
            }
            Self::PaymentEntries { payment, entries } => {
                write!(f, "payment {payment} has {entries} entries")
            }
            Self::PaymentTookNothing { payment, user, amount } => {
                write!(f, "payment {payment} of {amount} took nothing from user {user}")
            }
            Self::RefundEntries { payment, entries } => {
                write!(f, "the refund of payment {payment} has {entries} entries")
            }
            Self::PointsTold { user, points } => {
                write!(f, "user {user} has {points} after one charge of {}", super::CHARGE)
            }
            Self::HoldNotAsked { reservation, user, said } => write!(
                f,
                "reservation {reservation} of user {user}: all that was answered is {said}"
            ),
            Self::HoldsTooMany { user, seats, have, asked } => {
                write!(f, "user {user} has {have} reservations of {seats:?}, asked for {asked}")
            }
            Self::PaidNotAsked { reservation, said } => {
                write!(f, "reservation {reservation} is paid: {said}")
            }
            Self::CancelNotAsked { reservation, said } => {
                write!(f, "reservation {reservation} was given back: {said}")
            }
            Self::RefundNotAsked { payment, said } => {
                write!(f, "payment {payment} was refunded: {said}")
            }
            Self::ChargedTooOften { user, have, at_most, said } => {
                write!(f, "user {user} was charged {have} times; at most {at_most} can be: {said}")
            }
            Self::RefusedWrongly { user, code, why, said } => {
                write!(f, "user {user} was told {code}, {why}: {said}")
            }
            Self::LocksLeft { count } => {
                write!(f, "{count} transactions are open in the database since more than 60 s")
            }
            Self::ServerError { request, answer } | Self::ClientError { request, answer } => {
                write!(f, "{request}: {answer}")
            }
            Self::Audit { instance, said } => write!(f, "{instance}: {said}"),
            Self::Died { instance, code, log } => {
                write!(f, "{instance} ended with code {code}:\n{log}")
            }
            Self::Drill { what } => f.write_str(what),
        }
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
