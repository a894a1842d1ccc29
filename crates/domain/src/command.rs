//! The sale as a state machine: what a command needs is loaded first, then it is executed without
//! I/O, then what has changed is saved.
//!
//! A store takes some [`Command`]s, collects what they want ([`Wants`]), loads it as [`Rows`],
//! executes the commands one after another ([`execute`]), and saves the [`Changes`] of all of them
//! in one transaction. A command sees what those before it have done. The deciders are called here
//! and nowhere else, so a rule is the same on every store.
//!
//! What does *not* belong here: how rows are stored, locked or sent.

mod changes;
mod execute;
mod rows;

use std::time::Duration;

use crate::ids::{
    ConcertId, PaymentId, QueueName, ReservationId, SeatId, SessionId, TicketId, UserId,
};
use crate::points::ChargeRejected;
use crate::queue::Ticket;
use crate::sales::{HoldRejected, Limits, RefundRejected, Reservation, SettleRejected};
use crate::seating::{NoChoice, Wish};
use crate::time::Timestamp;

pub use changes::{
    Changes, EntryKind, IdRange, Ids, IdsNeeded, NewKey, NewRefund, PointsEntry, SpentTicket,
};
pub use execute::{answer_while_locked, best_refusal_from_memory, execute, refusal_from_memory};
pub use rows::{
    KeyRow, LiveSeats, ReservationRow, ResultOf, ResultRow, RowId, Rows, TicketHold, Unwanted,
    Wants,
};

/// What makes a repeated request the same request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The client's key. It is unique for one user, not for all.
    pub key: String,
    /// A digest of everything that was asked under it.
    pub fingerprint: [u8; 32],
}

/// An answer, and whether it was given before under the same idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// Whether nothing was done this time.
    pub replayed: bool,
    /// Another ticket that was spent beside the one that was shown: the one that held what is paid.
    pub also_spent: Option<TicketRef>,
}

impl<T> Answer<T> {
    const fn new(value: T) -> Self {
        Self { value, replayed: false, also_spent: None }
    }

    const fn replayed(value: T) -> Self {
        Self { value, replayed: true, also_spent: None }
    }
}

/// Which ticket an operation is done with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketRef {
    /// The queue.
    pub queue: QueueName,
    /// The number; 0 for a ticket that an operator issued past the line.
    pub seq: u64,
    /// The unique id.
    pub id: TicketId,
}

impl From<&Ticket> for TicketRef {
    fn from(ticket: &Ticket) -> Self {
        Self { queue: ticket.queue.clone(), seq: ticket.seq, id: ticket.id }
    }
}

/// Asks for a hold.
#[derive(Clone, Debug)]
pub struct Reserve {
    /// Who asks.
    pub user: UserId,
    /// With which ticket.
    pub ticket: TicketRef,
    /// Whether the ticket is known to be over; then only the answer to an earlier request with the
    /// same idempotency key is given.
    pub ticket_over: bool,
    /// The concert of the session.
    pub concert: ConcertId,
    /// The session.
    pub session: SessionId,
    /// Which seats. Where the best are asked for: those that were chosen.
    pub seats: Vec<SeatId>,
    /// What is asked for in place of seats.
    pub best: Option<Best>,
    /// Where a hold must not leave a single seat: the seats around these, on which that depends. Who
    /// executes the command says which they are.
    pub beside: Vec<SeatId>,
    /// The limits in force.
    pub limits: Limits,
    /// How long after the end of the hold its seats stay taken, should it run out.
    pub release_delay: Duration,
    /// The client's idempotency key.
    pub idempotency: Option<IdempotencyKey>,
    /// The time.
    pub now: Timestamp,
}

/// The best seats that there are, in place of named ones. Who executes the command chooses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Best {
    /// What they have to be like.
    pub wish: Wish,
    /// Why there are none, where that is so.
    pub refused: Option<NoChoice>,
}

impl From<Wish> for Best {
    fn from(wish: Wish) -> Self {
        Self { wish, refused: None }
    }
}

/// Why a hold was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveRejected {
    /// The decider says no.
    Hold(HoldRejected),
    /// There is no such concert.
    NoSuchConcert,
    /// The concert has no such session.
    NoSuchSession,
    /// The idempotency key was used for something else.
    KeyReused,
}

/// Asks for a payment.
#[derive(Clone, Debug)]
pub struct Pay {
    /// Who pays.
    pub user: UserId,
    /// With which ticket; the payment spends it, and the one that holds the reservation.
    pub ticket: TicketRef,
    /// For which reservation.
    pub reservation: ReservationId,
    /// The client's idempotency key.
    pub idempotency: Option<IdempotencyKey>,
    /// The time.
    pub now: Timestamp,
}

/// A payment made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Its id.
    pub id: PaymentId,
    /// What it pays.
    pub reservation: ReservationId,
    /// In points.
    pub amount: i64,
    /// When.
    pub paid_at: Timestamp,
}

/// Why a reservation was not paid, given back, or shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationRejected {
    /// The decider says no.
    Settle(SettleRejected),
    /// There is no such reservation.
    NoSuchReservation,
    /// The idempotency key was used for something else.
    KeyReused,
}

/// Asks to give a hold back.
#[derive(Clone, Copy, Debug)]
pub struct Cancel {
    /// Which hold.
    pub reservation: ReservationId,
    /// Who asks.
    pub user: UserId,
    /// How long its seats stay taken.
    pub release_delay: Duration,
    /// The time.
    pub now: Timestamp,
}

/// Asks for points to be charged.
#[derive(Clone, Debug)]
pub struct Charge {
    /// Whose.
    pub user: UserId,
    /// How many.
    pub amount: i64,
    /// The client's idempotency key.
    pub idempotency: Option<IdempotencyKey>,
    /// The time.
    pub now: Timestamp,
}

/// Why points were not charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointsRejected {
    /// The decider says no.
    Charge(ChargeRejected),
    /// The idempotency key was used for something else.
    KeyReused,
}

/// Asks for the points of a payment.
#[derive(Clone, Debug)]
pub struct Refund {
    /// Which payment.
    pub payment: PaymentId,
    /// The reservation that it paid.
    pub reservation: ReservationId,
    /// The concert and the session of the reservation.
    pub of: (ConcertId, SessionId),
    /// Who asks.
    pub user: UserId,
    /// How long before the session refunds end.
    pub ends_before: Duration,
    /// How long its seats stay taken.
    pub release_delay: Duration,
    /// The client's idempotency key.
    pub idempotency: Option<IdempotencyKey>,
    /// The time.
    pub now: Timestamp,
}

/// A refund made. A payment has one at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refunded {
    /// The payment.
    pub payment: PaymentId,
    /// The reservation that it had paid.
    pub reservation: ReservationId,
    /// In points.
    pub amount: i64,
    /// When.
    pub refunded_at: Timestamp,
}

/// Why a payment was not refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundRefused {
    /// The decider says no.
    Refund(RefundRejected),
    /// There is no such payment.
    NoSuchPayment,
    /// The idempotency key was used for something else.
    KeyReused,
}

/// Asks to end a hold if its time has run out.
#[derive(Clone, Copy, Debug)]
pub struct Expire {
    /// Which hold.
    pub reservation: ReservationId,
    /// The time.
    pub now: Timestamp,
}

/// Asks to settle a reservation whose session was called off.
#[derive(Clone, Copy, Debug)]
pub struct CallOff {
    /// Which reservation.
    pub reservation: ReservationId,
    /// The time.
    pub now: Timestamp,
}

/// What has become of a reservation whose session was called off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledOff {
    /// Its hold has ended.
    Ended,
    /// It was refunded.
    Refunded,
    /// There was nothing to do.
    Nothing,
    /// The balance would pass the largest there is.
    Overflow,
    /// Somebody has one of its rows locked; the next time it may be done.
    Locked,
}

/// Tells that a ticket was given up.
#[derive(Clone, Debug)]
pub struct LeaveQueue {
    /// Which ticket.
    pub ticket: TicketRef,
    /// Whether it was still waiting; else it had been admitted.
    pub waiting: bool,
    /// The time.
    pub now: Timestamp,
}

/// One operation of the sale.
#[derive(Clone, Debug)]
pub enum Command {
    /// Holds seats: all or none.
    Reserve(Reserve),
    /// Pays for a reservation: points, seats, ticket and event together.
    Pay(Pay),
    /// Gives a hold back.
    Cancel(Cancel),
    /// Charges points.
    Charge(Charge),
    /// Gives the points of a payment back.
    Refund(Refund),
    /// Tidies up a hold that has run out.
    Expire(Expire),
    /// Settles what was held or paid of a session that was called off.
    CallOff(CallOff),
    /// Gives a ticket up.
    LeaveQueue(LeaveQueue),
}

/// The answer to a [`Command`], of the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The hold, or why there is none.
    Reserve(Result<Answer<Reservation>, ReserveRejected>),
    /// The payment, or why there is none.
    Pay(Result<Answer<Payment>, ReservationRejected>),
    /// Whether the hold was given back.
    Cancel(Result<(), ReservationRejected>),
    /// The balance afterwards, or why it is as before.
    Charge(Result<Answer<i64>, PointsRejected>),
    /// The refund, or why there is none.
    Refund(Result<Answer<Refunded>, RefundRefused>),
    /// Whether the hold had run out and was ended.
    Expire(bool),
    /// What has become of the reservation.
    CallOff(CalledOff),
    /// Done.
    LeaveQueue,
}

impl Outcome {
    /// Whether it refuses seats that were chosen for whoever asked: others may do. Also where seats are gone,
    /// which whoever asked has not named: the session may be, too.
    pub const fn asks_for_another_choice(&self) -> bool {
        use HoldRejected::{LeavesSinglePlace, NoSuchSeat, SeatTaken};
        matches!(
            self,
            Self::Reserve(Err(ReserveRejected::Hold(
                NoSuchSeat(_) | SeatTaken(_) | LeavesSinglePlace { .. }
            )))
        )
    }

    /// Whether it says that something was done before, which must then be certain to last.
    pub const fn confirms_earlier(&self) -> bool {
        use ReservationRejected::Settle;
        match self {
            Self::Reserve(Ok(answer)) => answer.replayed,
            Self::Pay(Ok(answer)) => answer.replayed,
            Self::Charge(Ok(answer)) => answer.replayed,
            Self::Refund(Ok(answer)) => answer.replayed,
            Self::Pay(Err(Settle(SettleRejected::AlreadyPaid)))
            | Self::Cancel(Err(Settle(SettleRejected::AlreadyPaid | SettleRejected::Cancelled))) => {
                true
            }
            Self::Reserve(Err(_)) | Self::Pay(Err(_)) | Self::Charge(Err(_)) => false,
            Self::Refund(Err(_)) => false,
            Self::Cancel(_) | Self::Expire(_) | Self::CallOff(_) | Self::LeaveQueue => false,
        }
    }
}

impl Command {
    /// Returns the time at which the command was asked for.
    pub const fn now(&self) -> Timestamp {
        match self {
            Self::Reserve(reserve) => reserve.now,
            Self::Pay(pay) => pay.now,
            Self::Cancel(cancel) => cancel.now,
            Self::Charge(charge) => charge.now,
            Self::Refund(refund) => refund.now,
            Self::Expire(expire) => expire.now,
            Self::CallOff(call_off) => call_off.now,
            Self::LeaveQueue(leave_queue) => leave_queue.now,
        }
    }

    /// Returns the rows that the command is known to decide on. The seats of a reservation are not
    /// among them: they show once it is loaded.
    pub fn rows(&self) -> Vec<RowId> {
        match self {
            Self::Reserve(reserve) => {
                let seats = reserve.seats.iter().chain(&reserve.beside);
                let seats = seats.map(|seat| RowId::Seat(*seat));
                let choice = reserve.best.map(|_| RowId::Choice(reserve.session));
                seats.chain([RowId::Account(reserve.user)]).chain(choice).collect()
            }
            Self::Pay(pay) => vec![RowId::Reservation(pay.reservation), RowId::Account(pay.user)],
            Self::Refund(refund) => {
                vec![RowId::Reservation(refund.reservation), RowId::Account(refund.user)]
            }
            Self::Cancel(cancel) => vec![RowId::Reservation(cancel.reservation)],
            Self::Expire(expire) => vec![RowId::Reservation(expire.reservation)],
            Self::CallOff(call_off) => vec![RowId::Reservation(call_off.reservation)],
            Self::Charge(charge) => vec![RowId::Account(charge.user)],
            Self::LeaveQueue(_) => Vec::new(),
        }
    }

    /// Whether doing it twice is the same as doing it once.
    pub const fn is_repeatable(&self) -> bool {
        matches!(self, Self::Expire(_) | Self::CallOff(_) | Self::LeaveQueue(_))
    }

    /// Returns the answer where somebody has one of its rows locked and whoever asked comes by again.
    pub const fn answer_for_later(&self) -> Option<Outcome> {
        match self {
            Self::Expire(_) => Some(Outcome::Expire(false)),
            Self::CallOff(_) => Some(Outcome::CallOff(CalledOff::Locked)),
            Self::Reserve(_)
            | Self::Pay(_)
            | Self::Cancel(_)
            | Self::Charge(_)
            | Self::Refund(_)
            | Self::LeaveQueue(_) => None,
        }
    }

    /// Returns the user and the idempotency key, where the command has one.
    const fn idempotency(&self) -> Option<(UserId, &IdempotencyKey)> {
        let (user, key) = match self {
            Self::Reserve(reserve) => (reserve.user, &reserve.idempotency),
            Self::Pay(pay) => (pay.user, &pay.idempotency),
            Self::Charge(charge) => (charge.user, &charge.idempotency),
            Self::Refund(refund) => (refund.user, &refund.idempotency),
            Self::Cancel(_) | Self::Expire(_) | Self::CallOff(_) | Self::LeaveQueue(_) => {
                return None;
            }
        };
        match key {
            Some(key) => Some((user, key)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests;
