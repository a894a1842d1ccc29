//! What the sale tells the rest of the world, once for each effect.

use crate::ids::{ConcertId, PaymentId, ReservationId, SeatId, SessionId, UserId};
use crate::time::Timestamp;

/// Why a reservation ended without payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its user gave it back.
    Cancelled,
    /// The hold ran out.
    Expired,
    /// The session was called off.
    SessionCancelled,
}

/// One effect of the sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Seats were put on hold.
    ConcertReserved {
        /// The new reservation.
        reservation: ReservationId,
        /// Who holds it.
        user: UserId,
        /// The concert.
        concert: ConcertId,
        /// The session of the concert.
        session: SessionId,
        /// The seats held.
        seats: Vec<SeatId>,
        /// What it will cost, in points.
        total: i64,
        /// When the hold runs out.
        until: Timestamp,
    },
    /// A hold ended without payment; its seats are free again.
    ReservationCancelled {
        /// The reservation that ended.
        reservation: ReservationId,
        /// Who held it.
        user: UserId,
        /// Why it ended.
        reason: EndReason,
    },
    /// A reservation was paid.
    PaymentCompleted {
        /// The payment.
        payment: PaymentId,
        /// The reservation that it pays.
        reservation: ReservationId,
        /// Who paid.
        user: UserId,
        /// How much, in points.
        amount: i64,
    },
    /// The points of a payment went back, and its seats came free.
    PaymentRefunded {
        /// The payment.
        payment: PaymentId,
        /// The reservation that it had paid.
        reservation: ReservationId,
        /// Whose points.
        user: UserId,
        /// How many.
        amount: i64,
    },
    /// Points were charged onto a balance.
    PointCharged {
        /// The entry in the points ledger.
        entry: i64,
        /// Whose points.
        user: UserId,
        /// How many were added.
        amount: i64,
        /// The balance afterwards.
        balance: i64,
    },
}

/// The kinds of event, one topic each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// `concert.concert-reserved`
    ConcertReserved,
    /// `concert.reservation-cancelled`
    ReservationCancelled,
    /// `concert.payment-completed`
    PaymentCompleted,
    /// `concert.payment-refunded`
    PaymentRefunded,
    /// `user.point-charged`
    PointCharged,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 5] = [
        Self::ConcertReserved,
        Self::ReservationCancelled,
        Self::PaymentCompleted,
        Self::PaymentRefunded,
        Self::PointCharged,
    ];

    /// The topic's name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConcertReserved => "concert.concert-reserved",
            Self::ReservationCancelled => "concert.reservation-cancelled",
            Self::PaymentCompleted => "concert.payment-completed",
            Self::PaymentRefunded => "concert.payment-refunded",
            Self::PointCharged => "user.point-charged",
        }
    }
}

impl Event {
    /// Where the event goes.
    pub const fn topic(&self) -> Topic {
        match self {
            Self::ConcertReserved { .. } => Topic::ConcertReserved,
            Self::ReservationCancelled { .. } => Topic::ReservationCancelled,
            Self::PaymentCompleted { .. } => Topic::PaymentCompleted,
            Self::PaymentRefunded { .. } => Topic::PaymentRefunded,
            Self::PointCharged { .. } => Topic::PointCharged,
        }
    }

    /// The event's id: made from the effect's own id, so that the same effect can never have two
    /// events that a consumer would take for different ones.
    pub fn id(&self) -> String {
        match self {
            Self::ConcertReserved { reservation, .. } => format!("reserved-{reservation}"),
            Self::ReservationCancelled { reservation, .. } => format!("cancelled-{reservation}"),
            Self::PaymentCompleted { payment, .. } => format!("paid-{payment}"),
            Self::PaymentRefunded { payment, .. } => format!("refunded-{payment}"),
            Self::PointCharged { entry, .. } => format!("charged-{entry}"),
        }
    }

    /// Events of one key reach a consumer in order: the reservation's id, or the user's for points.
    pub const fn key(&self) -> i64 {
        match self {
            Self::ConcertReserved { reservation, .. }
            | Self::ReservationCancelled { reservation, .. }
            | Self::PaymentCompleted { reservation, .. }
            | Self::PaymentRefunded { reservation, .. } => reservation.get(),
            Self::PointCharged { user, .. } => user.get(),
        }
    }
}
