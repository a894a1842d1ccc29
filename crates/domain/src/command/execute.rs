//! Commands, one at a time: look, ask the decider, record what has changed.

use super::rows::{Earlier, Looked, ReservationRow, ResultOf, ResultRow, RowId, Rows};
use super::{
    Answer, Best, CallOff, CalledOff, Cancel, Charge, Command, EntryKind, Expire, LeaveQueue,
    NewRefund, Outcome, Pay, Payment, PointsEntry, PointsRejected, Refund, RefundRefused, Refunded,
    ReservationRejected, Reserve, ReserveRejected, SpentTicket, TicketRef, Unwanted,
};
use crate::event::{EndReason, Event};
use crate::ids::{PaymentId, ReservationId};
use crate::points::decide_charge;
use crate::sales::CallOff as Decided;
use crate::sales::{
    Concert, HoldRejected, HoldRequest, PaidWith, Reservation, ReservationState, Seat, SeatState,
    Session, SettleRejected, Surroundings, TicketHolds, check_seat_list, check_wish,
    decide_call_off, decide_cancel, decide_hold, decide_no_choice, decide_payment, decide_refund,
};
use crate::seating::NoChoice;
use crate::time::Timestamp;

/// Executes one command at `now`, which is not before the time of any command executed before it,
/// and records what has changed.
///
/// # Errors
/// [`Unwanted`] where a row is missing that the command should have asked for. Nothing has changed.
pub fn execute(rows: &mut Rows, command: &Command, now: Timestamp) -> Result<Outcome, Unwanted> {
    Ok(match command {
        Command::Reserve(command) => Outcome::Reserve(reserve(rows, command, now)?),
        Command::Pay(command) => Outcome::Pay(pay(rows, command, now)?),
        Command::Cancel(command) => Outcome::Cancel(cancel(rows, command, now)?),
        Command::Charge(command) => Outcome::Charge(charge(rows, command, now)?),
        Command::Refund(command) => Outcome::Refund(refund(rows, command, now)?),
        Command::Expire(command) => Outcome::Expire(expire(rows, command, now)?),
        Command::CallOff(command) => Outcome::CallOff(call_off(rows, command, now)?),
        Command::LeaveQueue(command) => {
            leave_queue(rows, command, now)?;
            Outcome::LeaveQueue
        }
    })
}

/// Stands for the id that a reservation will get; a refusal does not depend on it.
const ANY_RESERVATION: ReservationId = match ReservationId::new(1) {
    Some(id) => id,
    None => unreachable!(),
};

/// Returns why a hold must be refused, judged by seats that are in memory. In a rush most holds are
/// for seats that are gone. What is refused on seats that are certainly as memory has them is
/// refused rightly, and without a transaction; what is not refused here is decided by the store.
pub fn refusal_from_memory(
    request: &Reserve,
    concert: &Concert,
    session: &Session,
    seats: &[Option<Seat>],
) -> Option<HoldRejected> {
    hold(request, ANY_RESERVATION, (concert, session, seats), (KINDEST, None), request.now).err()
}

/// The same for the best seats, where so many of those that would do are free in memory at the most.
pub fn best_refusal_from_memory(
    request: &Reserve,
    (concert, session): (&Concert, &Session),
    free: u32,
) -> Option<HoldRejected> {
    let best = request.best.filter(|best| free < best.wish.count)?;
    let why = NoChoice::NotEnough { free };
    let best = Some(Best { refused: Some(why), ..best });
    let request = Reserve { best, ..request.clone() };
    hold(&request, ANY_RESERVATION, (concert, session, &[]), (KINDEST, None), request.now).err()
}

/// Returns the answer to a command some of whose rows another transaction has locked, where they
/// cannot change it: a repeated request gets its first answer, and a hold of seats that are taken as
/// they were committed last is refused. None where the lock is to be waited for.
pub fn answer_while_locked(rows: &mut Rows, command: &Command, now: Timestamp) -> Option<Outcome> {
    let (user, key) = match command {
        Command::Reserve(reserve) => (reserve.user, &reserve.idempotency),
        Command::Pay(pay) => (pay.user, &pay.idempotency),
        Command::Charge(_)
        | Command::Refund(_)
        | Command::Cancel(_)
        | Command::Expire(_)
        | Command::CallOff(_)
        | Command::LeaveQueue(_) => return None,
    };
    // With the account of the user nobody else can be doing this very request.
    if rows.is_locked(RowId::Account(user)) {
        return None;
    }
    let is_new = matches!(rows.earlier(user, key.as_ref()), Ok(Earlier::None));
    if !is_new {
        return execute(rows, command, now).ok();
    }
    let Command::Reserve(request) = command else { return None };
    // Of the best others can be had.
    if request.best.is_some() {
        return None;
    }
    let concert = rows.concert(request.concert).ok()??;
    let session = rows.session((request.concert, request.session)).ok()??;
    check_seat_list(&request.seats, &request.limits).ok()?;
    let seats = request.seats.iter().map(|seat| rows.seat(*seat, request.session));
    let seats = seats.collect::<Looked<Vec<_>>>().ok()?;
    let sale = (&*concert, &session, &seats[..]);
    let refusal = hold(request, ANY_RESERVATION, sale, (KINDEST, None), now);
    match refusal {
        Err(why @ HoldRejected::SeatTaken(_)) => {
            Some(Outcome::Reserve(Err(ReserveRejected::Hold(why))))
        }
        _ => None,
    }
}

/// What the store knows of a user and a ticket.
struct Known {
    called_off: bool,
    user_has: u32,
    ticket_spent: bool,
    ticket_holds: TicketHolds,
}

/// All that is not known speaks for the buyer.
const KINDEST: Known = Known {
    called_off: false,
    user_has: 0,
    ticket_spent: false,
    ticket_holds: TicketHolds { made: 0, live: 0 },
};

fn hold(
    request: &Reserve,
    reservation: ReservationId,
    (concert, session, seats): (&Concert, &Session, &[Option<Seat>]),
    (known, surroundings): (Known, Option<Surroundings<'_>>),
    now: Timestamp,
) -> Result<Reservation, HoldRejected> {
    let asked = HoldRequest {
        reservation,
        user: request.user,
        concert,
        session,
        seat_ids: &request.seats,
        seats,
        called_off: known.called_off,
        user_has: known.user_has,
        ticket_spent: request.ticket_over || known.ticket_spent,
        ticket_holds: known.ticket_holds,
        surroundings,
    };
    match request.best.and_then(|best| best.refused) {
        Some(why) => Err(decide_no_choice(&asked, why, now)),
        None => decide_hold(&asked, &request.limits, now),
    }
}

fn reserve(
    rows: &mut Rows,
    request: &Reserve,
    now: Timestamp,
) -> Looked<Result<Answer<Reservation>, ReserveRejected>> {
    match rows.earlier(request.user, request.idempotency.as_ref())? {
        Earlier::None => {}
        Earlier::Other => return Ok(Err(ReserveRejected::KeyReused)),
        Earlier::Same(result) => {
            let id = ReservationId::new(result).ok_or(Unwanted("a result that is no id"))?;
            let ResultRow::Reserve(row) = rows.result(ResultOf::Reserve(id))? else {
                return Err(Unwanted("a result of another kind"));
            };
            let mut value = row.reservation.clone();
            // The first answer told of a hold, whatever has become of it since.
            value.state = ReservationState::Held { until: row.until };
            return Ok(Ok(Answer::replayed(value)));
        }
    }
    let Some(concert) = rows.concert(request.concert)? else {
        return Ok(Err(ReserveRejected::NoSuchConcert));
    };
    let Some(session) = rows.session((request.concert, request.session))? else {
        return Ok(Err(ReserveRejected::NoSuchSession));
    };
    // Before the seats are looked at: of a list that is too long not all were asked for.
    let checked = match &request.best {
        Some(best) => check_wish(&best.wish, &request.limits),
        None => check_seat_list(&request.seats, &request.limits),
    };
    if let Err(rejected) = checked {
        return Ok(Err(ReserveRejected::Hold(rejected)));
    }
    let seats = request
        .seats
        .iter()
        .map(|seat| rows.seat(*seat, request.session))
        .collect::<Looked<Vec<_>>>()?;
    let around =
        request.beside.iter().filter_map(|seat| rows.seat(*seat, request.session).transpose());
    let around = around.collect::<Looked<Vec<Seat>>>()?;
    let known = Known {
        called_off: rows.is_called_off((request.concert, request.session))?,
        user_has: rows.live_seats((request.user, request.session), now)?,
        ticket_spent: rows.is_spent(&request.ticket)?,
        ticket_holds: rows.holds_of(&request.ticket, now)?,
    };
    // The id is used up only where a reservation comes to be.
    let next = rows.ids.reservations.next().and_then(ReservationId::new);
    let id = next.ok_or(Unwanted("an id for a reservation"))?;
    let sale = (&*concert, &session, &seats[..]);
    let hall = rows.hall(request.session).filter(|_| request.limits.no_orphans);
    let surroundings = hall.map(|(plan, free)| Surroundings { plan, seats: &around, free });
    let reservation = match hold(request, id, sale, (known, surroundings), now) {
        Ok(reservation) => reservation,
        Err(rejected) => return Ok(Err(ReserveRejected::Hold(rejected))),
    };
    rows.ids.reservations.take();
    let until = now.plus(request.limits.hold);
    let seats_until = until.plus(request.release_delay);
    for item in &reservation.items {
        rows.set_seat(item.seat, SeatState::Held { reservation: id, until: seats_until })?;
    }
    let ticket = Some(request.ticket.clone());
    let row = ReservationRow { reservation: reservation.clone(), until, ticket };
    let result = (ResultOf::Reserve(id), ResultRow::Reserve(row.clone()));
    rows.add_reservation(row);
    rows.remember(request.user, request.idempotency.as_ref(), result, now);
    let event = Event::ConcertReserved {
        reservation: id,
        user: reservation.user,
        concert: reservation.concert,
        session: reservation.session,
        seats: request.seats.clone(),
        total: reservation.total(),
        until,
    };
    rows.changes.events.push((event, now));
    Ok(Ok(Answer::new(reservation)))
}

/// The time at which a reservation is settled. Where another hold has taken one of its seats over,
/// perhaps by the faster clock of another instance, it is over, whatever the time here.
fn settling_time(rows: &Rows, row: &ReservationRow, now: Timestamp) -> Looked<Timestamp> {
    let own = own_seats(rows, &row.reservation)?;
    let all = own.len() == row.reservation.items.len();
    Ok(if all { now } else { now.max(row.until) })
}

/// The seats that a hold still has: those that no later hold has taken.
fn own_seats(rows: &Rows, reservation: &Reservation) -> Looked<Vec<crate::ids::SeatId>> {
    let mut own = Vec::with_capacity(reservation.items.len());
    for item in &reservation.items {
        let seat = rows.seat(item.seat, reservation.session)?;
        let state = seat.map(|seat| seat.state);
        if matches!(state, Some(SeatState::Held { reservation: r, .. }) if r == reservation.id) {
            own.push(item.seat);
        }
    }
    Ok(own)
}

fn pay(
    rows: &mut Rows,
    request: &Pay,
    now: Timestamp,
) -> Looked<Result<Answer<Payment>, ReservationRejected>> {
    match rows.earlier(request.user, request.idempotency.as_ref())? {
        Earlier::None => {}
        Earlier::Other => return Ok(Err(ReservationRejected::KeyReused)),
        Earlier::Same(result) => {
            let id = PaymentId::new(result).ok_or(Unwanted("a result that is no id"))?;
            let ResultRow::Pay(payment) = rows.result(ResultOf::Pay(id))? else {
                return Err(Unwanted("a result of another kind"));
            };
            return Ok(Ok(Answer::replayed(*payment)));
        }
    }
    let Some(mut row) = rows.reservation(request.reservation)? else {
        return Ok(Err(ReservationRejected::NoSuchReservation));
    };
    let now = settling_time(rows, &row, now)?;
    let balance = rows.balance(request.user)?;
    let of_queue = |holding: &TicketRef| holding.queue == request.ticket.queue;
    let with = PaidWith {
        balance,
        ticket_spent: rows.is_spent(&request.ticket)?,
        ticket_of_queue: row.ticket.as_ref().is_none_or(of_queue),
        called_off: rows.is_called_off((row.reservation.concert, row.reservation.session))?,
    };
    let decision = decide_payment(&row.reservation, request.user, with, now);
    let amount = match decision {
        Ok(amount) => amount,
        Err(rejected) => return Ok(Err(ReservationRejected::Settle(rejected))),
    };
    let id = rows.ids.payments.take().and_then(PaymentId::new);
    let id = id.ok_or(Unwanted("an id for a payment"))?;
    let entry = rows.ids.entries.take().ok_or(Unwanted("an id for an entry"))?;
    let reservation = row.reservation.id;
    let payment = Payment { id, reservation, amount, paid_at: now };
    for item in &row.reservation.items {
        rows.set_seat(item.seat, SeatState::Sold { reservation })?;
    }
    row.reservation.state = ReservationState::Paid { payment: id };
    let holding = row.ticket.clone();
    rows.settle(row);
    let balance = balance - amount;
    rows.set_balance(request.user, balance);
    let kind = EntryKind::Payment(id);
    let entry =
        PointsEntry { id: entry, user: request.user, amount: -amount, balance, kind, at: now };
    rows.changes.entries.push(entry);
    rows.changes.payments.push((payment, request.user));
    rows.spend(SpentTicket { ticket: request.ticket.clone(), payment: Some(id), at: now });
    // With another ticket of the same person the one that holds would be good for another purchase.
    let mut also_spent = None;
    if let Some(holding) = holding
        && !rows.is_spent(&holding)?
    {
        rows.spend(SpentTicket { ticket: holding.clone(), payment: Some(id), at: now });
        also_spent = Some(holding);
    }
    let result = (ResultOf::Pay(id), ResultRow::Pay(payment));
    rows.remember(request.user, request.idempotency.as_ref(), result, now);
    let event = Event::PaymentCompleted { payment: id, reservation, user: request.user, amount };
    rows.changes.events.push((event, now));
    Ok(Ok(Answer { also_spent, ..Answer::new(payment) }))
}

fn cancel(
    rows: &mut Rows,
    request: &Cancel,
    now: Timestamp,
) -> Looked<Result<(), ReservationRejected>> {
    let Some(row) = rows.reservation(request.reservation)? else {
        return Ok(Err(ReservationRejected::NoSuchReservation));
    };
    let now = settling_time(rows, &row, now)?;
    if let Err(rejected) = unsettled(&row.reservation, Some(request.user), now) {
        return Ok(Err(ReservationRejected::Settle(rejected)));
    }
    let free_at = Some(now.plus(request.release_delay));
    end(rows, row, EndReason::Cancelled, free_at, now)?;
    Ok(Ok(()))
}

fn expire(rows: &mut Rows, request: &Expire, now: Timestamp) -> Looked<bool> {
    let Some(row) = rows.reservation(request.reservation)? else { return Ok(false) };
    // What was settled stays so; of a hold the decider says whether it has run out.
    let is_held = matches!(row.reservation.state, ReservationState::Held { .. });
    let has_run_out = unsettled(&row.reservation, None, now) == Err(SettleRejected::Expired);
    if is_held && has_run_out {
        end(rows, row, EndReason::Expired, None, now)?;
        return Ok(true);
    }
    Ok(false)
}

fn call_off(rows: &mut Rows, request: &CallOff, now: Timestamp) -> Looked<CalledOff> {
    let Some(row) = rows.reservation(request.reservation)? else { return Ok(CalledOff::Nothing) };
    let Reservation { user, concert, session, .. } = row.reservation;
    if !rows.is_called_off((concert, session))? {
        return Ok(CalledOff::Nothing);
    }
    Ok(match decide_call_off(&row.reservation, rows.balance(user)?) {
        Ok(Decided::End) => {
            let now = settling_time(rows, &row, now)?;
            let has_run_out = unsettled(&row.reservation, None, now).is_err();
            let reason = if has_run_out { EndReason::Expired } else { EndReason::SessionCancelled };
            end(rows, row, reason, Some(now), now)?;
            CalledOff::Ended
        }
        Ok(Decided::Refund { payment, balance }) => {
            give_points_back(rows, row, payment, (balance, now, true), now)?;
            CalledOff::Refunded
        }
        Ok(Decided::Nothing) => CalledOff::Nothing,
        Err(_) => CalledOff::Overflow,
    })
}

/// Whether a hold is still to be settled, by its own user where nobody else is named.
fn unsettled(
    reservation: &Reservation,
    user: Option<crate::ids::UserId>,
    now: Timestamp,
) -> Result<(), SettleRejected> {
    decide_cancel(reservation, user.unwrap_or(reservation.user), now)
}

/// A seat that nobody has any more, and that can be had from `until` on.
fn released(until: Timestamp, now: Timestamp) -> SeatState {
    if until > now { SeatState::Released { until } } else { SeatState::Available }
}

/// Ends a hold without payment. Its seats are free at `free_at`, or when the hold has said that they
/// would be. Seats that another hold has taken since are left alone.
fn end(
    rows: &mut Rows,
    mut row: ReservationRow,
    reason: EndReason,
    free_at: Option<Timestamp>,
    now: Timestamp,
) -> Looked<()> {
    for id in own_seats(rows, &row.reservation)? {
        let until = match (free_at, rows.seat(id, row.reservation.session)?) {
            (Some(free_at), _) => free_at,
            (None, Some(Seat { state: SeatState::Held { until, .. }, .. })) => until,
            (None, _) => now,
        };
        rows.set_seat(id, released(until, now))?;
    }
    row.reservation.state = match reason {
        EndReason::Cancelled | EndReason::SessionCancelled => ReservationState::Cancelled,
        EndReason::Expired => ReservationState::Expired,
    };
    let Reservation { id, user, .. } = row.reservation;
    rows.settle(row);
    rows.changes.events.push((Event::ReservationCancelled { reservation: id, user, reason }, now));
    Ok(())
}

fn charge(
    rows: &mut Rows,
    request: &Charge,
    now: Timestamp,
) -> Looked<Result<Answer<i64>, PointsRejected>> {
    match rows.earlier(request.user, request.idempotency.as_ref())? {
        Earlier::None => {}
        Earlier::Other => return Ok(Err(PointsRejected::KeyReused)),
        Earlier::Same(entry) => {
            let ResultRow::Charge(balance) = rows.result(ResultOf::Charge(entry))? else {
                return Err(Unwanted("a result of another kind"));
            };
            return Ok(Ok(Answer::replayed(*balance)));
        }
    }
    let balance = match decide_charge(rows.balance(request.user)?, request.amount) {
        Ok(balance) => balance,
        Err(rejected) => return Ok(Err(PointsRejected::Charge(rejected))),
    };
    let id = rows.ids.entries.take().ok_or(Unwanted("an id for an entry"))?;
    let Charge { user, amount, .. } = *request;
    rows.set_balance(user, balance);
    let kind = EntryKind::Charge;
    rows.changes.entries.push(PointsEntry { id, user, amount, balance, kind, at: now });
    let result = (ResultOf::Charge(id), ResultRow::Charge(balance));
    rows.remember(user, request.idempotency.as_ref(), result, now);
    rows.changes.events.push((Event::PointCharged { entry: id, user, amount, balance }, now));
    Ok(Ok(Answer::new(balance)))
}

fn refund(
    rows: &mut Rows,
    request: &Refund,
    now: Timestamp,
) -> Looked<Result<Answer<Refunded>, RefundRefused>> {
    if matches!(rows.earlier(request.user, request.idempotency.as_ref())?, Earlier::Other) {
        return Ok(Err(RefundRefused::KeyReused));
    }
    let Some(row) = rows.reservation(request.reservation)? else {
        return Ok(Err(RefundRefused::NoSuchPayment));
    };
    // A payment is refunded once; whoever asks again, with a key or without, gets the same answer.
    if row.reservation.user == request.user
        && let Some(refunded) = rows.refund(request.payment)?
    {
        return Ok(Ok(Answer::replayed(refunded)));
    }
    let session = rows.session(request.of)?.ok_or(Unwanted("the session of a payment"))?;
    let ends_before = i64::try_from(request.ends_before.as_millis()).unwrap_or(i64::MAX);
    let until = Timestamp(session.starts_at.0.saturating_sub(ends_before));
    let balance = rows.balance(request.user)?;
    let decision =
        decide_refund(&row.reservation, request.payment, request.user, until, balance, now);
    let balance = match decision {
        Ok(balance) => balance,
        Err(rejected) => return Ok(Err(RefundRefused::Refund(rejected))),
    };
    let free_at = now.plus(request.release_delay);
    let refunded = give_points_back(rows, row, request.payment, (balance, free_at, false), now)?;
    let (key, result) = (request.idempotency.as_ref(), request.payment.get());
    rows.remember_id(request.user, key, result, now);
    Ok(Ok(Answer::new(refunded)))
}

/// Refunds a paid reservation: the balance is `balance` then, and its seats are free at `free_at`.
fn give_points_back(
    rows: &mut Rows,
    mut row: ReservationRow,
    payment: PaymentId,
    (balance, free_at, called_off): (i64, Timestamp, bool),
    now: Timestamp,
) -> Looked<Refunded> {
    let id = rows.ids.entries.take().ok_or(Unwanted("an id for an entry"))?;
    let Reservation { id: reservation, user, session, .. } = row.reservation;
    for item in &row.reservation.items {
        let own = SeatState::Sold { reservation };
        if rows.seat(item.seat, session)?.is_some_and(|seat| seat.state == own) {
            rows.set_seat(item.seat, released(free_at, now))?;
        }
    }
    let amount = row.reservation.total();
    row.reservation.state = ReservationState::Refunded { payment };
    rows.settle(row);
    rows.set_balance(user, balance);
    let kind = EntryKind::Refund(payment);
    rows.changes.entries.push(PointsEntry { id, user, amount, balance, kind, at: now });
    let refund = Refunded { payment, reservation, amount, refunded_at: now };
    rows.add_refund(NewRefund { refund, user, session, called_off });
    rows.changes.events.push((Event::PaymentRefunded { payment, reservation, user, amount }, now));
    Ok(refund)
}

fn leave_queue(rows: &mut Rows, request: &LeaveQueue, now: Timestamp) -> Looked<()> {
    let LeaveQueue { ticket, waiting, .. } = request;
    if *waiting {
        rows.changes.left.push((ticket.queue.clone(), ticket.seq));
    }
    // In the line too: should it be admitted before the line in memory learns of it, it still buys
    // nothing. Giving up what was given up before changes nothing.
    if !rows.is_spent(ticket)? {
        rows.spend(SpentTicket { ticket: ticket.clone(), payment: None, at: now });
    }
    Ok(())
}
