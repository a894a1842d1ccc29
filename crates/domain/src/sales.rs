//! Seats, holds and payments: the deciders. Each is a pure function from what is stored and what
//! is asked to what shall be stored, or to the reason why not. Every store calls these and writes
//! the result in the transaction in which it read.

use std::time::Duration;

use crate::ids::{ConcertId, PaymentId, QueueName, ReservationId, SeatId, SessionId, UserId};
use crate::points::BALANCE_MAX;
use crate::seating::{NoChoice, PlaceSet, Plan, Wish, needless_single};
use crate::time::Timestamp;

/// Who owns a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatState {
    /// Nobody.
    Available,
    /// A reservation that has not paid yet, until `until`; after that nobody.
    Held {
        /// The reservation.
        reservation: ReservationId,
        /// When the seat is free, at the end of the hold or some time after it.
        until: Timestamp,
    },
    /// Nobody, but it cannot be had before `until`: whoever gave it back, or knew when its hold would
    /// end, is not to be the first who knows that it is free.
    Released {
        /// When the seat is free.
        until: Timestamp,
    },
    /// A reservation that has paid.
    Sold {
        /// The reservation.
        reservation: ReservationId,
    },
}

impl SeatState {
    /// Whether a buyer may take the seat at `now`. A hold that ran out counts as free at once, not
    /// when somebody gets round to tidying it up.
    pub fn is_free(self, now: Timestamp) -> bool {
        match self {
            Self::Available => true,
            Self::Held { until, .. } | Self::Released { until } => until <= now,
            Self::Sold { .. } => false,
        }
    }
}

/// A seat of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its id.
    pub id: SeatId,
    /// The number printed on it, from 1 within its session.
    pub number: u32,
    /// Its price in points.
    pub price: i64,
    /// Who owns it.
    pub state: SeatState,
}

/// A concert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concert {
    /// Its id.
    pub id: ConcertId,
    /// Its name, for people.
    pub name: String,
    /// Where it is, for people.
    pub venue: String,
    /// The queue whose tickets open it.
    pub queue: QueueName,
    /// When reservations begin.
    pub opens_at: Timestamp,
    /// When they end.
    pub closes_at: Timestamp,
}

impl Concert {
    /// Returns the moment from which no seat of one of its sessions can be booked: it closes, or the session
    /// begins.
    pub fn sells_until(&self, session: &Session) -> Timestamp {
        self.closes_at.min(session.starts_at)
    }
}

/// One evening of a concert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The concert that it is of.
    pub concert: ConcertId,
    /// When it begins.
    pub starts_at: Timestamp,
}

/// How much one user may take, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long seats are held for payment.
    pub hold: Duration,
    /// Most seats in one reservation.
    pub seats_per_reservation_max: u32,
    /// Most seats of one user in one session, held and bought together.
    pub seats_per_user_max: u32,
    /// Most holds of one ticket that wait for payment at a time. It pays for one of them.
    pub live_holds_max: u32,
    /// Most holds of one ticket in its life, whatever became of them.
    pub holds_per_ticket_max: u32,
    /// Whether no hold may leave a single seat needlessly.
    pub no_orphans: bool,
}

/// One seat of a reservation, at the price agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The seat.
    pub seat: SeatId,
    /// The number printed on it.
    pub number: u32,
    /// The price in points at the time of the reservation.
    pub price: i64,
}

/// What has become of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationState {
    /// Waiting for payment.
    Held {
        /// When the hold runs out.
        until: Timestamp,
    },
    /// Paid.
    Paid {
        /// The payment.
        payment: PaymentId,
    },
    /// Given back by its user.
    Cancelled,
    /// The hold ran out.
    Expired,
    /// It was paid; the points went back, and the seats are others'.
    Refunded {
        /// The payment.
        payment: PaymentId,
    },
}

/// Some seats of one session, for one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Its id.
    pub id: ReservationId,
    /// Whose it is.
    pub user: UserId,
    /// The concert.
    pub concert: ConcertId,
    /// The session.
    pub session: SessionId,
    /// The seats.
    pub items: Vec<Item>,
    /// When it was made.
    pub created_at: Timestamp,
    /// What has become of it.
    pub state: ReservationState,
}

impl Reservation {
    /// The price of all seats together, in points. The deciders let no reservation come to be
    /// whose sum overflows.
    pub fn total(&self) -> i64 {
        self.items.iter().map(|item| item.price).sum()
    }

    /// The state at `now`: a hold that ran out is expired, tidied up or not.
    pub fn state_at(&self, now: Timestamp) -> ReservationState {
        match self.state {
            ReservationState::Held { until } if until <= now => ReservationState::Expired,
            state => state,
        }
    }
}

/// Why a hold was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldRejected {
    /// No seats were asked for.
    NoSeats,
    /// More seats than one reservation may have.
    TooManySeats {
        /// The most allowed.
        max: u32,
    },
    /// The same seat twice.
    DuplicateSeat(SeatId),
    /// The ticket has paid already, or was given up.
    TicketSpent,
    /// The session was called off.
    SessionCancelled,
    /// Reservations have not begun.
    NotYetOpen {
        /// When they begin.
        opens_at: Timestamp,
    },
    /// Reservations are over.
    Closed {
        /// When they ended.
        closed_at: Timestamp,
    },
    /// The session has begun.
    SessionStarted,
    /// The session has no such seat.
    NoSuchSeat(SeatId),
    /// Somebody has the seat.
    SeatTaken(SeatId),
    /// The user would have more seats of the session than allowed.
    UserLimit {
        /// The most allowed.
        max: u32,
        /// What the user has already.
        has: u32,
    },
    /// The ticket holds something already that waits for payment.
    LiveHoldLimit {
        /// The most such holds at a time.
        max: u32,
    },
    /// The ticket has held as often as it may.
    HoldLimit {
        /// The most holds of one ticket.
        max: u32,
    },
    /// A single seat would be left that nobody wants, and need not be.
    LeavesSinglePlace {
        /// The number of that seat.
        number: u32,
    },
    /// Of the seats that would do, fewer are free.
    NotEnoughSeats {
        /// How many are.
        free: u32,
    },
    /// So many seats are free, but not together.
    NotTogether,
}

impl From<NoChoice> for HoldRejected {
    fn from(why: NoChoice) -> Self {
        match why {
            NoChoice::NotEnough { free } => Self::NotEnoughSeats { free },
            NoChoice::NotTogether => Self::NotTogether,
        }
    }
}

/// What was held with a ticket so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TicketHolds {
    /// How many holds there were, whatever became of them.
    pub made: u32,
    /// How many of them wait for payment.
    pub live: u32,
}

/// The part of a hold that can be judged from the request alone.
pub fn check_seat_list(seats: &[SeatId], limits: &Limits) -> Result<(), HoldRejected> {
    if seats.is_empty() {
        return Err(HoldRejected::NoSeats);
    }
    // Before the search for duplicates, whose time grows with the square of the length.
    if seats.len() > limits.seats_per_reservation_max as usize {
        return Err(HoldRejected::TooManySeats { max: limits.seats_per_reservation_max });
    }
    for (index, seat) in seats.iter().enumerate() {
        if seats[..index].contains(seat) {
            return Err(HoldRejected::DuplicateSeat(*seat));
        }
    }
    Ok(())
}

/// The same for the best seats, of which nobody knows yet which they are.
pub fn check_wish(wish: &Wish, limits: &Limits) -> Result<(), HoldRejected> {
    match wish.count {
        0 => Err(HoldRejected::NoSeats),
        count if count > limits.seats_per_reservation_max => {
            Err(HoldRejected::TooManySeats { max: limits.seats_per_reservation_max })
        }
        _ => Ok(()),
    }
}

/// Whether seats of `session` can be booked at `now`.
pub fn check_open(
    concert: &Concert,
    session: &Session,
    now: Timestamp,
) -> Result<(), HoldRejected> {
    if now < concert.opens_at {
        return Err(HoldRejected::NotYetOpen { opens_at: concert.opens_at });
    }
    if now < concert.sells_until(session) {
        Ok(())
    } else if now >= concert.closes_at {
        Err(HoldRejected::Closed { closed_at: concert.closes_at })
    } else {
        Err(HoldRejected::SessionStarted)
    }
}

/// What a hold decision looks at. `seats` are those asked for, in the order asked, `None` where
/// the session has no such seat.
#[derive(Clone, Copy, Debug)]
pub struct HoldRequest<'a> {
    /// The id that the reservation will have.
    pub reservation: ReservationId,
    /// Who asks.
    pub user: UserId,
    /// The concert.
    pub concert: &'a Concert,
    /// The session.
    pub session: &'a Session,
    /// Whether the session was called off.
    pub called_off: bool,
    /// The seats asked for.
    pub seat_ids: &'a [SeatId],
    /// Those seats as stored.
    pub seats: &'a [Option<Seat>],
    /// How many live seats the user has in this session.
    pub user_has: u32,
    /// Whether the ticket has paid already, or was given up.
    pub ticket_spent: bool,
    /// What was held with the ticket so far.
    pub ticket_holds: TicketHolds,
    /// What is around the seats, where a hold must not leave single ones.
    pub surroundings: Option<Surroundings<'a>>,
}

/// What is around the seats of a hold.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The hall.
    pub plan: &'a Plan,
    /// Those seats that [`seating::around`](crate::seating::around) names, as stored.
    pub seats: &'a [Seat],
    /// The places that are free, as far as is known: what else there would have been. Of the seats above it
    /// need not be right.
    pub free: &'a PlaceSet,
}

impl Surroundings<'_> {
    /// Returns the number of a single seat that a hold of these would leave needlessly.
    fn single_left(&self, held: &[Item], now: Timestamp) -> Option<u32> {
        let mut free = self.free.clone();
        for seat in self.seats {
            let Some(index) = seat.number.checked_sub(1) else { continue };
            if seat.state.is_free(now) { free.insert(index) } else { free.remove(index) }
        }
        let held: Vec<u32> = held.iter().filter_map(|item| item.number.checked_sub(1)).collect();
        needless_single(self.plan, &held, &free).map(|index| index + 1)
    }
}

/// Decides a hold of the best seats where there are none: why it is refused.
pub fn decide_no_choice(request: &HoldRequest<'_>, why: NoChoice, now: Timestamp) -> HoldRejected {
    check_door(request, now).err().unwrap_or_else(|| why.into())
}

/// Whether anything may be held with this ticket in this session at `now`.
fn check_door(request: &HoldRequest<'_>, now: Timestamp) -> Result<(), HoldRejected> {
    if request.ticket_spent {
        return Err(HoldRejected::TicketSpent);
    }
    if request.called_off {
        return Err(HoldRejected::SessionCancelled);
    }
    check_open(request.concert, request.session, now)
}

/// Decides a hold: all seats or none.
pub fn decide_hold(
    request: &HoldRequest<'_>,
    limits: &Limits,
    now: Timestamp,
) -> Result<Reservation, HoldRejected> {
    check_seat_list(request.seat_ids, limits)?;
    check_door(request, now)?;
    for (id, seat) in request.seat_ids.iter().zip(request.seats) {
        if seat.is_none() {
            return Err(HoldRejected::NoSuchSeat(*id));
        }
    }
    if let Some(taken) = request.seats.iter().flatten().find(|seat| !seat.state.is_free(now)) {
        return Err(HoldRejected::SeatTaken(taken.id));
    }
    let item = |seat: &Seat| Item { seat: seat.id, number: seat.number, price: seat.price };
    let items: Vec<Item> = request.seats.iter().flatten().map(item).collect();
    let wanted = u32::try_from(items.len()).unwrap_or(u32::MAX);
    if request.user_has.saturating_add(wanted) > limits.seats_per_user_max {
        return Err(HoldRejected::UserLimit {
            max: limits.seats_per_user_max,
            has: request.user_has,
        });
    }
    if request.ticket_holds.live >= limits.live_holds_max {
        return Err(HoldRejected::LiveHoldLimit { max: limits.live_holds_max });
    }
    if request.ticket_holds.made >= limits.holds_per_ticket_max {
        return Err(HoldRejected::HoldLimit { max: limits.holds_per_ticket_max });
    }
    let single = request.surroundings.and_then(|around| around.single_left(&items, now));
    if let Some(number) = single {
        return Err(HoldRejected::LeavesSinglePlace { number });
    }
    Ok(Reservation {
        id: request.reservation,
        user: request.user,
        concert: request.concert.id,
        session: request.session.id,
        items,
        created_at: now,
        state: ReservationState::Held { until: now.plus(limits.hold) },
    })
}

/// Why a reservation was not paid, or not given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleRejected {
    /// It belongs to somebody else.
    NotYours,
    /// It is paid.
    AlreadyPaid,
    /// It was given back.
    Cancelled,
    /// The hold ran out.
    Expired,
    /// It was paid, and refunded.
    Refunded,
    /// The session was called off.
    SessionCancelled,
    /// The ticket has paid for something else already, or was given up.
    TicketSpent,
    /// The ticket is of another queue than the one that holds.
    WrongQueue,
    /// The balance does not reach.
    NotEnoughPoints {
        /// What the user has.
        balance: i64,
        /// What is due.
        due: i64,
    },
}

/// What a payment is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaidWith {
    /// What the user has.
    pub balance: i64,
    /// Whether the ticket has paid already, or was given up.
    pub ticket_spent: bool,
    /// Whether it is of the queue of the ticket that holds.
    pub ticket_of_queue: bool,
    /// Whether the session was called off.
    pub called_off: bool,
}

/// Decides a payment; returns the amount. The balance afterwards is that much less.
pub fn decide_payment(
    reservation: &Reservation,
    user: UserId,
    with: PaidWith,
    now: Timestamp,
) -> Result<i64, SettleRejected> {
    check_unsettled(reservation, user, now)?;
    if with.called_off {
        return Err(SettleRejected::SessionCancelled);
    }
    if with.ticket_spent {
        return Err(SettleRejected::TicketSpent);
    }
    if !with.ticket_of_queue {
        return Err(SettleRejected::WrongQueue);
    }
    let (due, balance) = (reservation.total(), with.balance);
    if balance < due {
        return Err(SettleRejected::NotEnoughPoints { balance, due });
    }
    Ok(due)
}

/// Decides whether a hold may be given back.
pub fn decide_cancel(
    reservation: &Reservation,
    user: UserId,
    now: Timestamp,
) -> Result<(), SettleRejected> {
    check_unsettled(reservation, user, now)
}

fn check_unsettled(
    reservation: &Reservation,
    user: UserId,
    now: Timestamp,
) -> Result<(), SettleRejected> {
    if reservation.user != user {
        return Err(SettleRejected::NotYours);
    }
    match reservation.state_at(now) {
        ReservationState::Held { .. } => Ok(()),
        ReservationState::Paid { .. } => Err(SettleRejected::AlreadyPaid),
        ReservationState::Cancelled => Err(SettleRejected::Cancelled),
        ReservationState::Expired => Err(SettleRejected::Expired),
        ReservationState::Refunded { .. } => Err(SettleRejected::Refunded),
    }
}

/// Why a payment was not refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundRejected {
    /// The reservation belongs to somebody else.
    NotYours,
    /// The reservation is not paid, or by another payment.
    NotPaid,
    /// It is too close to the beginning of the session.
    TooLate {
        /// Until when it could have been refunded.
        until: Timestamp,
    },
    /// The balance would pass the largest there is.
    Overflow,
}

/// Decides whether a user may have the points of a payment back; returns the balance afterwards.
/// `until` is when refunds of the session end.
pub fn decide_refund(
    reservation: &Reservation,
    payment: PaymentId,
    user: UserId,
    until: Timestamp,
    balance: i64,
    now: Timestamp,
) -> Result<i64, RefundRejected> {
    if reservation.user != user {
        return Err(RefundRejected::NotYours);
    }
    if reservation.state != (ReservationState::Paid { payment }) {
        return Err(RefundRejected::NotPaid);
    }
    if now >= until {
        return Err(RefundRejected::TooLate { until });
    }
    refunded_balance(reservation, balance)
}

/// What becomes of a reservation whose session was called off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOff {
    /// A hold ends.
    End,
    /// What was paid goes back; the balance is this afterwards.
    Refund {
        /// The payment.
        payment: PaymentId,
        /// The balance afterwards.
        balance: i64,
    },
    /// There is nothing to do.
    Nothing,
}

/// Decides what becomes of a reservation whose session was called off.
pub fn decide_call_off(reservation: &Reservation, balance: i64) -> Result<CallOff, RefundRejected> {
    Ok(match reservation.state {
        ReservationState::Held { .. } => CallOff::End,
        ReservationState::Paid { payment } => {
            CallOff::Refund { payment, balance: refunded_balance(reservation, balance)? }
        }
        ReservationState::Cancelled
        | ReservationState::Expired
        | ReservationState::Refunded { .. } => CallOff::Nothing,
    })
}

/// The balance after a refund.
fn refunded_balance(reservation: &Reservation, balance: i64) -> Result<i64, RefundRejected> {
    match balance.checked_add(reservation.total()) {
        Some(total) if total <= BALANCE_MAX => Ok(total),
        _ => Err(RefundRejected::Overflow),
    }
}

/// The highest price of one seat, in points. Low enough that no sum over the most seats that a
/// configuration allows comes near the largest balance.
pub const PRICE_MAX: i64 = 1_000_000_000_000;

#[cfg(test)]
mod tests;
