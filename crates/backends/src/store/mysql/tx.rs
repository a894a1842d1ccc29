//! The operations inside a transaction: load, ask the decider, write.
//!
//! Locks are taken in one order everywhere: idempotency key, account, seats by id, reservation,
//! and then what is only added to. What changes a reservation has the locks of all its seats.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use boxoffice_domain::event::{EndReason, Event};
use boxoffice_domain::ids::{
    ConcertId, PaymentId, QueueName, ReservationId, SeatId, SessionId, UserId,
};
use boxoffice_domain::points::decide_charge;
use boxoffice_domain::queue::{Admission, Settings, SettingsChange};
use boxoffice_domain::sales::{
    Concert, HoldRejected, HoldRequest, Reservation, ReservationState, Seat, SeatState, Session,
    SettleRejected, check_seat_list, decide_cancel, decide_hold, decide_payment,
};
use boxoffice_domain::time::Timestamp;
use mysql_async::Value;

use super::pool::Lease;
use super::rows::{
    self, DUPLICATE, Failure, column, entry_kind, items_to_text, reservation_state, seat_columns,
    seat_state, take,
};
use super::{Inner, Lane, load, sql};
use crate::events::cloud_event;
use crate::store::{
    AddedSeats, Advance, Alias, AliasExists, Answer, Charge, Checkpoint, IdempotencyKey,
    NewConcert, NewSeats, Pay, Payment, PointsRejected, Progress, ReservationRejected, Reserve,
    ReserveRejected, Seed, TicketKey,
};

/// A transaction under way.
pub(super) struct Tx {
    pub(super) lease: Lease,
    pub(super) store: Arc<Inner>,
    /// Seats that it has changed.
    pub(super) changed: Vec<(SessionId, SeatId, SeatState)>,
    /// Seats that it has found, under their locks, and left as they are.
    pub(super) seen: Vec<(SessionId, SeatId, SeatState)>,
    /// Concerts, sessions and seats that it has made.
    pub(super) made: Vec<Made>,
}

/// What a transaction has made.
pub(super) enum Made {
    Concert(Concert),
    Hall(Session, Vec<Seat>),
    Seats(SessionId, Vec<Seat>),
}

/// How an operation ends.
pub(super) enum Done<T> {
    /// With an effect, which is to be made durable.
    Commit(T),
    /// Without one.
    Nothing(T),
}

pub(super) type Op<T> = Result<T, Failure>;

/// A whole business operation.
pub(super) trait Operation: Send + Sync + 'static {
    type Answer: Send + 'static;
    /// Which connections it uses.
    const LANE: Lane = Lane::Sale;
    /// Whether doing it twice is the same as doing it once. Then it is simply tried again where
    /// nobody knows whether it was committed.
    const REPEATABLE: bool = false;

    /// The answer, where one look at what is committed gives it, without a transaction and without
    /// a lock.
    fn known(
        &self,
        _lease: &mut Lease,
        _store: &Inner,
    ) -> impl Future<Output = Op<Option<Self::Answer>>> + Send {
        std::future::ready(Ok(None))
    }

    fn run(&self, tx: &mut Tx) -> impl Future<Output = Op<Done<Self::Answer>>> + Send;
}

/// Stands for an id that the database has not given yet; no decision depends on it.
const NO_RESERVATION: ReservationId = match ReservationId::new(1) {
    Some(id) => id,
    None => unreachable!(),
};

fn list(ids: impl IntoIterator<Item = i64>) -> Vec<Value> {
    ids.into_iter().map(Value::from).collect()
}

fn seat_list(reservation: &Reservation) -> Vec<SeatId> {
    reservation.items.iter().map(|item| item.seat).collect()
}

/// A seat under a lock, and the session that it is of.
type LockedSeat = (Seat, SessionId);

impl Tx {
    /// The time at which an operation is decided: within this instance it does not go back.
    /// Requests do not get here in the order of their times (a slow body, a busy thread). Between
    /// instances that is seen to by the seats: see [`Tx::time_of_settling`].
    fn effective_time(&self, asked: Timestamp) -> Timestamp {
        self.store.effective_time(asked)
    }

    /// The time at which a reservation is settled. Where another hold has taken one of its seats
    /// over, perhaps by a faster clock, it is over, whatever the time here.
    fn time_of_settling(
        reservation: &Reservation,
        until: Timestamp,
        seats: &[LockedSeat],
        now: Timestamp,
    ) -> Timestamp {
        let own = |(seat, _): &&LockedSeat| is_held_by(seat.state, reservation.id);
        let all_own = seats.iter().filter(own).count() == reservation.items.len();
        if all_own { now } else { now.max(until) }
    }

    async fn lock_seats(&mut self, ids: &[SeatId]) -> Op<Vec<LockedSeat>> {
        self.locked_seats(sql::SEATS_LOCK, ids).await
    }

    async fn locked_seats(&mut self, text: &str, ids: &[SeatId]) -> Op<Vec<LockedSeat>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let text = sql::listed(text, ids.len());
        let found = self.lease.rows(&text, list(ids.iter().map(|id| id.get()))).await?;
        found
            .into_iter()
            .map(|mut row| {
                let session = rows::id(SessionId::new, take(&mut row, 6)?, "session")?;
                Ok((rows::seat(&mut row)?, session))
            })
            .collect()
    }

    async fn set_seats(
        &mut self,
        session: SessionId,
        seats: &[SeatId],
        state: SeatState,
    ) -> Op<()> {
        self.set_seats_of(&seats.iter().map(|seat| (session, *seat)).collect::<Vec<_>>(), state)
            .await
    }

    async fn set_seats_of(&mut self, seats: &[(SessionId, SeatId)], state: SeatState) -> Op<()> {
        if seats.is_empty() {
            return Ok(());
        }
        let (number, reservation, until) = seat_columns(state);
        let mut values = vec![number.into(), reservation.into(), until.into()];
        values.extend(list(seats.iter().map(|(_, seat)| seat.get())));
        let found = self.lease.exec(&sql::listed(sql::SEATS_SET, seats.len()), values).await?;
        if found != seats.len() as u64 {
            return Err(Failure::Corrupt(format!("of the seats {seats:?} only {found} are there")));
        }
        self.changed.extend(seats.iter().map(|(session, seat)| (*session, *seat, state)));
        Ok(())
    }

    /// Locks an account, and with it all that its user does about seats and points. A user who has
    /// none gets one.
    async fn lock_account(&mut self, user: UserId) -> Op<i64> {
        let of = || vec![Value::from(user.get())];
        if let Some(mut row) = self.lease.rows(sql::ACCOUNT_LOCK, of()).await?.pop() {
            return take(&mut row, 0);
        }
        self.lease.exec(sql::ACCOUNT_MAKE, of()).await?;
        let row = self.lease.rows(sql::ACCOUNT_LOCK, of()).await?.pop();
        row.map_or_else(|| Err(Failure::again()), |mut row| take(&mut row, 0))
    }

    async fn move_points(
        &mut self,
        user: UserId,
        amount: i64,
        balance: i64,
        kind: i64,
        payment: Option<PaymentId>,
        now: Timestamp,
    ) -> Op<i64> {
        self.lease.exec(sql::ACCOUNT_SET, vec![balance.into(), user.get().into()]).await?;
        let values = vec![
            user.get().into(),
            amount.into(),
            balance.into(),
            kind.into(),
            payment.map(PaymentId::get).into(),
            now.0.into(),
        ];
        self.lease.insert(sql::ENTRY_ADD, values).await
    }

    // ---- idempotency and events ----

    /// Enters a key, so that the same request elsewhere waits until this one is decided. It is
    /// entered first, and goes with the rest where the request is refused.
    async fn enter(
        &mut self,
        user: UserId,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Op<Earlier> {
        let Some(key) = key else { return Ok(Earlier::None) };
        let name = || vec![Value::from(user.get()), Value::from(key.key.as_bytes())];
        let mut values = name();
        values.extend([Value::from(&key.fingerprint[..]), now.0.into()]);
        match self.lease.exec(sql::KEY_ADD, values).await {
            Ok(_) => return Ok(Earlier::None),
            Err(Failure::Server(DUPLICATE, _)) => {}
            Err(failure) => return Err(failure),
        }
        let Some(mut row) = self.lease.rows(sql::KEY_FIND, name()).await?.pop() else {
            // Forgotten at this very moment.
            return Err(Failure::again());
        };
        let fingerprint: Vec<u8> = take(&mut row, 0)?;
        if fingerprint != key.fingerprint {
            return Ok(Earlier::Other);
        }
        Ok(Earlier::Same(take(&mut row, 1)?))
    }

    async fn remember(
        &mut self,
        user: UserId,
        key: Option<&IdempotencyKey>,
        result: i64,
    ) -> Op<()> {
        let Some(key) = key else { return Ok(()) };
        let values = vec![result.into(), user.get().into(), key.key.as_bytes().into()];
        self.lease.exec(sql::KEY_SET, values).await?;
        Ok(())
    }

    async fn emit(&mut self, events: &[Event], now: Timestamp) -> Op<()> {
        if events.is_empty() {
            return Ok(());
        }
        let mut values = Vec::with_capacity(events.len() * 4);
        for event in events {
            values.extend([
                event.key().rem_euclid(SHARDS).into(),
                event.topic().name().into(),
                event.key().into(),
                cloud_event(event, now).into(),
            ]);
        }
        let more = ", (?, ?, ?, ?)".repeat(events.len() - 1);
        self.lease.exec(&format!("{}{more}", sql::EVENT_ADD), values).await?;
        Ok(())
    }

    async fn reservation(&mut self, id: ReservationId) -> Op<Option<(Reservation, Timestamp)>> {
        let row = self.lease.rows(sql::RESERVATION, vec![id.get().into()]).await?.pop();
        row.map(|mut row| rows::reservation(id, &mut row, 0)).transpose()
    }

    /// Locks a reservation whose seats are locked; also tells whether the ticket is spent.
    async fn lock_reservation(
        &mut self,
        id: ReservationId,
        ticket: Option<&TicketKey>,
    ) -> Op<(Reservation, Timestamp, bool)> {
        let mut values = match ticket {
            Some(ticket) => ticket_values(ticket),
            None => vec!["".into(), 0.into(), "".into()],
        };
        values.push(id.get().into());
        let row = self.lease.rows(sql::RESERVATION_LOCK, values).await?.pop();
        let mut row = row.ok_or_else(|| Failure::Corrupt(format!("reservation {id} is gone")))?;
        let spent: i64 = take(&mut row, 8)?;
        let (reservation, until) = rows::reservation(id, &mut row, 0)?;
        Ok((reservation, until, spent != 0))
    }
}

/// Into so many parts the events are divided by their key, for several relays to share them.
pub(super) const SHARDS: i64 = 16;

fn is_held_by(state: SeatState, id: ReservationId) -> bool {
    matches!(state, SeatState::Held { reservation, .. } if reservation == id)
}

fn ticket_values(ticket: &TicketKey) -> Vec<Value> {
    vec![ticket.queue.as_str().into(), column(ticket.seq).into(), ticket.id.0[..].into()]
}

enum Earlier {
    None,
    Same(i64),
    Other,
}

// ---- sales ----

impl Operation for Reserve {
    type Answer = Result<Answer<Reservation>, ReserveRejected>;

    /// In a rush most holds are for seats that somebody has. Where memory says so, the database is
    /// asked, because memory may be behind; whoever is refused then has kept nobody waiting. An
    /// idempotency key is looked for after the seats: had this very request taken them, it would
    /// be there.
    async fn known(&self, lease: &mut Lease, store: &Inner) -> Op<Option<Self::Answer>> {
        let now = store.effective_time(self.now);
        let catalog = store.catalog();
        let (Some(concert), Some(hall)) =
            (catalog.concert(self.concert), catalog.hall(self.concert, self.session))
        else {
            return Ok(None);
        };
        if check_seat_list(&self.seats, &self.limits).is_err()
            || hall.first_taken(&self.seats, now).is_none()
        {
            return Ok(None);
        }
        let text = sql::listed(sql::SEATS, self.seats.len());
        let mut stored: HashMap<SeatId, Seat> = HashMap::new();
        for mut row in lease.rows(&text, list(self.seats.iter().map(|id| id.get()))).await? {
            let seat = rows::seat(&mut row)?;
            stored.insert(seat.id, seat);
        }
        let seats: Vec<Option<Seat>> =
            self.seats.iter().map(|id| stored.get(id).copied()).collect();
        // The kindest case: what is refused here is refused with all that the store knows, too.
        let ask = HoldRequest {
            reservation: NO_RESERVATION,
            user: self.user,
            concert,
            session: hall.session(),
            seat_ids: &self.seats,
            seats: &seats,
            user_has: 0,
            ticket_spent: self.ticket_over,
        };
        let Err(rejected @ HoldRejected::SeatTaken(_)) = decide_hold(&ask, &self.limits, now)
        else {
            return Ok(None);
        };
        if let Some(key) = &self.idempotency {
            let name = vec![self.user.get().into(), key.key.as_bytes().into()];
            if !lease.rows(sql::KEY_FIND, name).await?.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(Err(ReserveRejected::Hold(rejected))))
    }

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        let refuse = |why| Ok(Done::Nothing(Err(why)));
        let now = tx.effective_time(self.now);
        match tx.enter(self.user, self.idempotency.as_ref(), now).await? {
            Earlier::None => {}
            Earlier::Other => return refuse(ReserveRejected::KeyReused),
            Earlier::Same(result) => {
                let id = rows::id(ReservationId::new, result, "reservation")?;
                let (mut value, until) = tx
                    .reservation(id)
                    .await?
                    .ok_or_else(|| Failure::Corrupt(format!("no reservation {id} for a key")))?;
                // The first answer told of a hold, whatever has become of it since.
                value.state = ReservationState::Held { until };
                return Ok(Done::Nothing(Ok(Answer { value, replayed: true })));
            }
        }
        let catalog = tx.store.catalog();
        let Some(concert) = catalog.concert(self.concert) else {
            return refuse(ReserveRejected::NoSuchConcert);
        };
        let Some(hall) = catalog.hall(self.concert, self.session) else {
            return refuse(ReserveRejected::NoSuchSession);
        };
        if let Err(rejected) = check_seat_list(&self.seats, &self.limits) {
            return refuse(ReserveRejected::Hold(rejected));
        }
        tx.lock_account(self.user).await?;
        let locked: HashMap<SeatId, LockedSeat> = tx
            .lock_seats(&self.seats)
            .await?
            .into_iter()
            .map(|locked| (locked.0.id, locked))
            .collect();
        let of_this = |id: &SeatId| {
            let (seat, session) = locked.get(id)?;
            (*session == self.session).then_some(*seat)
        };
        let seats: Vec<Option<Seat>> = self.seats.iter().map(of_this).collect();
        let mut values =
            vec![self.user.get().into(), self.session.get().into(), Value::from(now.0)];
        values.extend(ticket_values(&self.ticket));
        let (user_has, spent) = match tx.lease.rows(sql::HOLD_LIMITS, values).await?.pop() {
            Some(mut row) => (take::<u32>(&mut row, 0)?, take::<i64>(&mut row, 1)? != 0),
            None => return Err(Failure::Corrupt("no answer about a user".into())),
        };
        let decision = decide_hold(
            &HoldRequest {
                reservation: NO_RESERVATION,
                user: self.user,
                concert,
                session: hall.session(),
                seat_ids: &self.seats,
                seats: &seats,
                user_has,
                ticket_spent: self.ticket_over || spent,
            },
            &self.limits,
            now,
        );
        let mut reservation = match decision {
            Ok(reservation) => reservation,
            Err(rejected) => {
                // Those who come next for a seat that is gone are not to wait for its lock.
                tx.seen
                    .extend(locked.values().map(|(seat, session)| (*session, seat.id, seat.state)));
                return refuse(ReserveRejected::Hold(rejected));
            }
        };
        let until = match reservation.state {
            ReservationState::Held { until } => until,
            other => return Err(Failure::Corrupt(format!("a new reservation is {other:?}"))),
        };
        let total = reservation.total();
        let values = vec![
            reservation.user.get().into(),
            reservation.concert.get().into(),
            reservation.session.get().into(),
            items_to_text(&reservation.items).into(),
            reservation.items.len().into(),
            total.into(),
            now.0.into(),
            until.0.into(),
        ];
        let id = tx.lease.insert(sql::RESERVATION_ADD, values).await?;
        reservation.id = rows::id(ReservationId::new, id, "reservation")?;
        let held = SeatState::Held { reservation: reservation.id, until };
        tx.set_seats(self.session, &self.seats, held).await?;
        tx.remember(self.user, self.idempotency.as_ref(), id).await?;
        let event = Event::ConcertReserved {
            reservation: reservation.id,
            user: reservation.user,
            concert: reservation.concert,
            session: reservation.session,
            seats: self.seats.clone(),
            total,
            until,
        };
        tx.emit(&[event], now).await?;
        Ok(Done::Commit(Ok(Answer { value: reservation, replayed: false })))
    }
}

impl Operation for Pay {
    type Answer = Result<Answer<Payment>, ReservationRejected>;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        let refuse = |why| Ok(Done::Nothing(Err(why)));
        let now = tx.effective_time(self.now);
        match tx.enter(self.user, self.idempotency.as_ref(), now).await? {
            Earlier::None => {}
            Earlier::Other => return refuse(ReservationRejected::KeyReused),
            Earlier::Same(result) => {
                let value = payment(tx, rows::id(PaymentId::new, result, "payment")?).await?;
                return Ok(Done::Nothing(Ok(Answer { value, replayed: true })));
            }
        }
        // What it lists never changes; what has become of it is read under the locks.
        let Some((listed, _)) = tx.reservation(self.reservation).await? else {
            return refuse(ReservationRejected::NoSuchReservation);
        };
        let balance = tx.lock_account(self.user).await?;
        let seats = tx.lock_seats(&seat_list(&listed)).await?;
        let (reservation, until, spent) =
            tx.lock_reservation(listed.id, Some(&self.ticket)).await?;
        let now = Tx::time_of_settling(&reservation, until, &seats, now);
        let decision = decide_payment(&reservation, self.user, balance, spent, now);
        let amount = match decision {
            Ok(amount) => amount,
            Err(rejected) => return refuse(ReservationRejected::Settle(rejected)),
        };
        let values = vec![
            reservation.id.get().into(),
            self.user.get().into(),
            amount.into(),
            Value::from(now.0),
        ];
        let id = tx.lease.insert(sql::PAYMENT_ADD, values).await?;
        let id = rows::id(PaymentId::new, id, "payment")?;
        tx.move_points(self.user, -amount, balance - amount, entry_kind::PAYMENT, Some(id), now)
            .await?;
        let values = vec![id.get().into(), reservation.id.get().into()];
        tx.lease.exec(sql::RESERVATION_PAID, values).await?;
        let sold = SeatState::Sold { reservation: reservation.id };
        tx.set_seats(reservation.session, &seat_list(&reservation), sold).await?;
        let mut values = ticket_values(&self.ticket);
        values.extend([id.get().into(), Value::from(now.0)]);
        match tx.lease.exec(sql::TICKET_SPEND, values).await {
            Ok(_) => {}
            // Spent since we looked: looked at again, it is refused.
            Err(Failure::Server(DUPLICATE, _)) => return Err(Failure::again()),
            Err(failure) => return Err(failure),
        }
        tx.remember(self.user, self.idempotency.as_ref(), id.get()).await?;
        let event = Event::PaymentCompleted {
            payment: id,
            reservation: reservation.id,
            user: self.user,
            amount,
        };
        tx.emit(&[event], now).await?;
        let value = Payment { id, reservation: reservation.id, amount, paid_at: now };
        Ok(Done::Commit(Ok(Answer { value, replayed: false })))
    }
}

async fn payment(tx: &mut Tx, id: PaymentId) -> Op<Payment> {
    let row = tx.lease.rows(sql::PAYMENT, vec![id.get().into()]).await?.pop();
    let mut row = row.ok_or_else(|| Failure::Corrupt(format!("no payment {id} for a key")))?;
    Ok(Payment {
        id,
        reservation: rows::id(ReservationId::new, take(&mut row, 0)?, "reservation")?,
        amount: take(&mut row, 1)?,
        paid_at: Timestamp(take(&mut row, 2)?),
    })
}

/// Gives a hold back.
pub(super) struct Cancel {
    pub(super) reservation: ReservationId,
    pub(super) user: UserId,
    pub(super) now: Timestamp,
}

impl Operation for Cancel {
    type Answer = Result<(), ReservationRejected>;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        let refuse = |why| Ok(Done::Nothing(Err(why)));
        let now = tx.effective_time(self.now);
        let Some((listed, _)) = tx.reservation(self.reservation).await? else {
            return refuse(ReservationRejected::NoSuchReservation);
        };
        let seats = tx.lock_seats(&seat_list(&listed)).await?;
        let (reservation, until, _) = tx.lock_reservation(listed.id, None).await?;
        let now = Tx::time_of_settling(&reservation, until, &seats, now);
        if let Err(rejected) = decide_cancel(&reservation, self.user, now) {
            return refuse(ReservationRejected::Settle(rejected));
        }
        end(tx, &[reservation], &seats, EndReason::Cancelled, now).await?;
        Ok(Done::Commit(Ok(())))
    }
}

/// Ends holds without payment. Seats that another hold has taken since are left alone.
async fn end(
    tx: &mut Tx,
    reservations: &[Reservation],
    seats: &[LockedSeat],
    reason: EndReason,
    now: Timestamp,
) -> Op<()> {
    let state = match reason {
        EndReason::Cancelled => reservation_state::CANCELLED,
        EndReason::Expired => reservation_state::EXPIRED,
    };
    let mut values = vec![Value::from(state)];
    values.extend(list(reservations.iter().map(|reservation| reservation.id.get())));
    tx.lease.exec(&sql::listed(sql::RESERVATIONS_END, reservations.len()), values).await?;
    let ended: HashSet<ReservationId> = reservations.iter().map(|r| r.id).collect();
    let own: Vec<(SessionId, SeatId)> = seats
        .iter()
        .filter(|(seat, _)| {
            matches!(seat.state, SeatState::Held { reservation, .. } if ended.contains(&reservation))
        })
        .map(|(seat, session)| (*session, seat.id))
        .collect();
    tx.set_seats_of(&own, SeatState::Available).await?;
    let events: Vec<Event> = reservations
        .iter()
        .map(|reservation| Event::ReservationCancelled {
            reservation: reservation.id,
            user: reservation.user,
            reason,
        })
        .collect();
    tx.emit(&events, now).await
}

/// Tidies up some holds that ran out. Those whose seats somebody has under a lock are left for the
/// next time: the payment of one of them must not wait for all others.
pub(super) struct Expire {
    pub(super) now: Timestamp,
    pub(super) max: u32,
}

impl Operation for Expire {
    type Answer = u32;
    const LANE: Lane = Lane::Work;

    async fn run(&self, tx: &mut Tx) -> Op<Done<u32>> {
        let now = tx.effective_time(self.now);
        let values = vec![Value::from(now.0), self.max.into()];
        let mut due: Vec<(i64, Vec<SeatId>)> = Vec::new();
        for mut row in tx.lease.rows(sql::RESERVATIONS_DUE, values).await? {
            let items = crate::store::columns::items_from_text(&take::<String>(&mut row, 1)?)?;
            due.push((take(&mut row, 0)?, items.into_iter().map(|item| item.seat).collect()));
        }
        let mut wanted: Vec<SeatId> = due.iter().flat_map(|(_, seats)| seats.clone()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let seats = tx.locked_seats(sql::SEATS_LOCK_FREE_ONES, &wanted).await?;
        let locked: HashSet<SeatId> = seats.iter().map(|(seat, _)| seat.id).collect();
        due.retain(|(_, seats)| seats.iter().all(|seat| locked.contains(seat)));
        if due.is_empty() {
            return Ok(Done::Nothing(0));
        }
        let text = sql::listed(sql::RESERVATIONS_LOCK, due.len());
        let mut found: HashMap<i64, Reservation> = HashMap::new();
        for mut row in tx.lease.rows(&text, list(due.iter().map(|(id, _)| *id))).await? {
            let id = take(&mut row, 0)?;
            let reservation = rows::id(ReservationId::new, id, "reservation")?;
            found.insert(id, rows::reservation(reservation, &mut row, 1)?.0);
        }
        // The decider has the last word on whether it ran out, here as everywhere.
        let ended: Vec<Reservation> = due
            .iter()
            .filter_map(|(id, _)| found.remove(id))
            .filter(|r| matches!(r.state, ReservationState::Held { .. }))
            .filter(|r| decide_cancel(r, r.user, now) == Err(SettleRejected::Expired))
            .collect();
        if ended.is_empty() {
            return Ok(Done::Nothing(0));
        }
        end(tx, &ended, &seats, EndReason::Expired, now).await?;
        Ok(Done::Commit(u32::try_from(ended.len()).unwrap_or(self.max)))
    }
}

// ---- points ----

impl Operation for Charge {
    type Answer = Result<Answer<i64>, PointsRejected>;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        let refuse = |why| Ok(Done::Nothing(Err(why)));
        let now = tx.effective_time(self.now);
        match tx.enter(self.user, self.idempotency.as_ref(), now).await? {
            Earlier::None => {}
            Earlier::Other => return refuse(PointsRejected::KeyReused),
            Earlier::Same(entry) => {
                let row = tx.lease.rows(sql::ENTRY_BALANCE, vec![entry.into()]).await?.pop();
                let missing = || Failure::Corrupt(format!("no entry {entry} for a key"));
                let value = take(&mut row.ok_or_else(missing)?, 0)?;
                return Ok(Done::Nothing(Ok(Answer { value, replayed: true })));
            }
        }
        let before = tx.lock_account(self.user).await?;
        let balance = match decide_charge(before, self.amount) {
            Ok(balance) => balance,
            Err(rejected) => return refuse(PointsRejected::Charge(rejected)),
        };
        let entry =
            tx.move_points(self.user, self.amount, balance, entry_kind::CHARGE, None, now).await?;
        tx.remember(self.user, self.idempotency.as_ref(), entry).await?;
        let event = Event::PointCharged { entry, user: self.user, amount: self.amount, balance };
        tx.emit(&[event], now).await?;
        Ok(Done::Commit(Ok(Answer { value: balance, replayed: false })))
    }
}

// ---- tickets and keys ----

/// Forgets idempotency keys.
pub(super) struct ForgetKeys {
    pub(super) before: Timestamp,
    pub(super) max: u32,
}

impl Operation for ForgetKeys {
    type Answer = u32;
    const LANE: Lane = Lane::Work;

    async fn run(&self, tx: &mut Tx) -> Op<Done<u32>> {
        let values = vec![self.before.0.into(), self.max.into()];
        let forgotten = tx.lease.exec(sql::KEYS_FORGET, values).await?;
        Ok(Done::Commit(u32::try_from(forgotten).unwrap_or(self.max)))
    }
}

/// Records that a ticket was given up.
pub(super) struct GiveUp {
    pub(super) ticket: TicketKey,
    pub(super) waiting: bool,
    pub(super) now: Timestamp,
}

impl Operation for GiveUp {
    type Answer = ();
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<()>> {
        let mut values = ticket_values(&self.ticket);
        if self.waiting {
            tx.lease.exec(sql::LINE_LEAVE, values[..2].to_vec()).await?;
        }
        // In the line too: should it be admitted before the line in memory learns of it, it still
        // buys nothing.
        values.push(self.now.0.into());
        tx.lease.exec(sql::TICKET_GIVE_UP, values).await?;
        Ok(Done::Commit(()))
    }
}

/// Stores opaque tokens.
pub(super) struct AddAliases(pub(super) Vec<Alias>);

/// Rows that one statement inserts.
const ROWS: usize = 1_000;

impl Operation for AddAliases {
    type Answer = Result<(), AliasExists>;
    const LANE: Lane = Lane::Bulk;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        let mut known: HashSet<Vec<u8>> = HashSet::new();
        for part in self.0.chunks(ROWS) {
            let values = part.iter().map(|alias| alias.token.as_bytes().into()).collect();
            for mut row in
                tx.lease.rows(&sql::listed(sql::ALIASES_KNOWN, part.len()), values).await?
            {
                known.insert(take(&mut row, 0)?);
            }
        }
        for alias in &self.0 {
            if !known.insert(alias.token.clone().into_bytes()) {
                return Ok(Done::Nothing(Err(AliasExists(alias.token.clone()))));
            }
        }
        for part in self.0.chunks(ROWS) {
            let mut values = Vec::with_capacity(part.len() * 7);
            for alias in part {
                values.extend([
                    alias.token.as_bytes().into(),
                    alias.ticket.queue.as_str().into(),
                    column(alias.ticket.seq).into(),
                    alias.ticket.user.get().into(),
                    alias.ticket.issued_at.0.into(),
                    Value::from(&alias.ticket.id.0[..]),
                    alias.active_until.map(|until| until.0).into(),
                ]);
            }
            let text = format!(
                "INSERT INTO alias (token, queue, seq, user_id, issued_at, ticket_id, active_until) \
                 VALUES {}",
                rows_of(7, part.len())
            );
            match tx.lease.exec(&text, values).await {
                Ok(_) => {}
                // Issued elsewhere since we looked; looking again names it.
                Err(Failure::Server(DUPLICATE, _)) => return Err(Failure::again()),
                Err(failure) => return Err(failure),
            }
        }
        Ok(Done::Commit(Ok(())))
    }
}

/// `(?, ?), (?, ?)`
fn rows_of(columns: usize, rows: usize) -> String {
    let mut one = "?,".repeat(columns);
    one.pop();
    let mut all = format!("({one}),").repeat(rows);
    all.pop();
    all
}

// ---- queues ----

fn settings_values(settings: &Settings) -> Vec<Value> {
    vec![
        settings.admit_per_second.into(),
        settings.max_active.map(column).into(),
        (settings.active_ttl.as_millis() as i64).into(),
        (settings.claim_window.as_millis() as i64).into(),
        settings.opens_at.map(|at| at.0).into(),
        settings.paused.into(),
    ]
}

/// Makes a queue.
pub(super) struct CreateQueue(pub(super) String, pub(super) Settings);

impl Operation for CreateQueue {
    type Answer = bool;
    const LANE: Lane = Lane::Work;

    async fn run(&self, tx: &mut Tx) -> Op<Done<bool>> {
        let mut values = vec![Value::from(self.0.as_str())];
        values.extend(settings_values(&self.1));
        match tx.lease.exec(sql::QUEUE_ADD, values).await {
            Ok(_) => Ok(Done::Commit(true)),
            Err(Failure::Server(DUPLICATE, _)) => Ok(Done::Nothing(false)),
            Err(failure) => Err(failure),
        }
    }
}

/// Changes how a queue admits.
pub(super) struct ChangeQueue(pub(super) String, pub(super) SettingsChange);

impl Operation for ChangeQueue {
    type Answer = Settings;
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Settings>> {
        let Self(name, change) = self;
        let values = vec![
            change.admit_per_second.into(),
            change.max_active.is_some().into(),
            change.max_active.flatten().map(column).into(),
            change.opens_at.is_some().into(),
            change.opens_at.flatten().map(|at| at.0).into(),
            change.paused.into(),
            name.as_str().into(),
        ];
        if tx.lease.exec(sql::QUEUE_CHANGE, values).await? != 1 {
            return Err(no_queue(name));
        }
        // The row is locked, so this is what the change has made of it.
        let row = tx.lease.rows(sql::QUEUE_SETTINGS, vec![name.as_str().into()]).await?.pop();
        let mut row = row.ok_or_else(|| no_queue(name))?;
        Ok(Done::Commit(load::settings(&mut row, 0)?))
    }
}

/// Makes the state of some queues durable.
pub(super) struct Checkpoints(pub(super) Vec<Checkpoint>, pub(super) Timestamp);

impl Operation for Checkpoints {
    type Answer = ();
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<()>> {
        let Self(queues, now) = self;
        for point in queues {
            let name = point.queue.as_str();
            let (next, watermark) = (column(point.next), column(point.watermark));
            let (floor, serving) = (column(point.floor), point.admission.map(|a| column(a.upto)));
            // The conditions are the rule that counters never go back, kept where they are stored.
            let values = vec![
                next.into(),
                watermark.into(),
                floor.into(),
                serving.into(),
                name.into(),
                next.into(),
                floor.into(),
                next.into(),
                watermark.into(),
                serving.into(),
            ];
            if tx.lease.exec(sql::QUEUE_CHECKPOINT, values).await? != 1 {
                return Err(Failure::Corrupt(format!("counters of queue {name} would go back")));
            }
            if let Some(admission) = point.admission {
                log_admission(tx, name, admission).await?;
            }
            forget_below(tx, name, point.floor).await?;
            if let Some(claimed) = &point.claimed {
                let values = vec![rows::numbers_to(claimed)?.into(), name.into()];
                tx.lease.exec(sql::QUEUE_CLAIMED, values).await?;
            }
        }
        set_clock(tx, *now).await?;
        Ok(Done::Commit(()))
    }
}

/// Hands out numbers.
pub(super) struct TakeNumbers {
    pub(super) queue: QueueName,
    pub(super) count: u64,
    pub(super) at_least: u64,
}

impl Operation for TakeNumbers {
    type Answer = u64;
    const LANE: Lane = Lane::Work;
    // Numbers that were taken and not given to anybody are empty places, as after any failure.
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<u64>> {
        let name = self.queue.as_str();
        let values = vec![column(self.at_least).into(), column(self.count).into(), name.into()];
        if tx.lease.exec(sql::QUEUE_TAKE, values).await? != 1 {
            return Err(no_queue(name));
        }
        let row = tx.lease.rows(sql::QUEUE_WATERMARK, vec![name.into()]).await?.pop();
        let mut row = row.ok_or_else(|| no_queue(name))?;
        let last = rows::count(take(&mut row, 0)?, "watermark")?;
        Ok(Done::Commit(last - self.count + 1))
    }
}

/// A step of admission.
pub(super) struct AdvanceTo(pub(super) Advance, pub(super) Timestamp);

impl Operation for AdvanceTo {
    type Answer = bool;
    const LANE: Lane = Lane::Work;

    async fn run(&self, tx: &mut Tx) -> Op<Done<bool>> {
        let Self(step, now) = self;
        let name = step.queue.as_str();
        let (credit_micro, credit_at) = step.bucket.state();
        let upto = column(step.admission.upto);
        // Whoever is admitted has joined, so the other two counters are at least as high.
        let values = vec![
            upto.into(),
            upto.into(),
            upto.into(),
            column(credit_micro).into(),
            credit_at.map(|at| at.0).into(),
            name.into(),
            column(step.from).into(),
            upto.into(),
        ];
        if tx.lease.exec(sql::QUEUE_ADVANCE, values).await? == 0 {
            let found = tx.lease.rows(sql::QUEUE_EXISTS, vec![name.into()]).await?;
            return if found.is_empty() { Err(no_queue(name)) } else { Ok(Done::Nothing(false)) };
        }
        log_admission(tx, name, step.admission).await?;
        set_clock(tx, *now).await?;
        Ok(Done::Commit(true))
    }
}

/// What is known of some queues.
pub(super) struct Record(pub(super) Vec<Progress>, pub(super) Timestamp);

impl Operation for Record {
    type Answer = ();
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<()>> {
        let Self(progress, now) = self;
        // Several instances do this at once; in one order, so that they wait and do not deadlock.
        let mut progress: Vec<&Progress> = progress.iter().collect();
        progress.sort_by(|a, b| a.queue.cmp(&b.queue));
        for known in progress {
            let name = known.queue.as_str();
            let next = column(known.next);
            let values = vec![next.into(), next.into(), column(known.floor).into(), name.into()];
            if tx.lease.exec(sql::QUEUE_RECORD, values).await? != 1 {
                return Err(no_queue(name));
            }
            let row = tx.lease.rows(sql::QUEUE_RECORDED, vec![name.into()]).await?.pop();
            let mut row = row.ok_or_else(|| no_queue(name))?;
            let floor = rows::count(take(&mut row, 0)?, "floor")?;
            forget_below(tx, name, floor).await?;
            if let Some(more) = &known.claimed {
                let mut claimed = rows::numbers_from(take(&mut row, 1)?, name)? | more;
                claimed.remove_range(..=floor);
                let values = vec![rows::numbers_to(&claimed)?.into(), name.into()];
                tx.lease.exec(sql::QUEUE_CLAIMED, values).await?;
            }
        }
        set_clock(tx, *now).await?;
        Ok(Done::Commit(()))
    }
}

async fn log_admission(tx: &mut Tx, queue: &str, admission: Admission) -> Op<()> {
    let values = vec![queue.into(), column(admission.upto).into(), admission.at.0.into()];
    tx.lease.exec(sql::ADMISSION_ADD, values).await?;
    Ok(())
}

/// What is below the floor has run out of time; nobody asks for it any more.
async fn forget_below(tx: &mut Tx, queue: &str, floor: u64) -> Op<()> {
    let below = || vec![Value::from(queue), column(floor).into()];
    tx.lease.exec(sql::ADMISSIONS_FORGET, below()).await?;
    tx.lease.exec(sql::LEFT_FORGET, below()).await?;
    Ok(())
}

async fn set_clock(tx: &mut Tx, now: Timestamp) -> Op<()> {
    tx.lease.exec(sql::CLOCK_NOTE, vec![now.0.to_string().into()]).await?;
    Ok(())
}

fn no_queue(name: &str) -> Failure {
    Failure::Corrupt(format!("no queue {name}"))
}

// ---- what is for sale ----

/// Makes a concert.
pub(super) struct CreateConcert(pub(super) NewConcert);

impl Operation for CreateConcert {
    type Answer = ConcertId;
    const LANE: Lane = Lane::Work;

    async fn run(&self, tx: &mut Tx) -> Op<Done<ConcertId>> {
        Ok(Done::Commit(create_concert(tx, &self.0).await?))
    }
}

async fn create_concert(tx: &mut Tx, new: &NewConcert) -> Op<ConcertId> {
    let values = vec![
        new.name.as_str().into(),
        new.venue.as_str().into(),
        new.queue.as_str().into(),
        new.opens_at.0.into(),
        new.closes_at.0.into(),
    ];
    let id = tx.lease.insert(sql::CONCERT_ADD, values).await?;
    let id = rows::id(ConcertId::new, id, "concert")?;
    tx.made.push(Made::Concert(Concert {
        id,
        name: new.name.clone(),
        venue: new.venue.clone(),
        queue: new.queue.clone(),
        opens_at: new.opens_at,
        closes_at: new.closes_at,
    }));
    Ok(id)
}

/// Makes a session with its first seats.
pub(super) struct CreateSession {
    pub(super) concert: ConcertId,
    pub(super) starts_at: Timestamp,
    pub(super) groups: Vec<NewSeats>,
}

impl Operation for CreateSession {
    type Answer = Option<(SessionId, Vec<AddedSeats>)>;
    const LANE: Lane = Lane::Bulk;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        let found = tx.lease.rows(sql::CONCERT_EXISTS, vec![self.concert.get().into()]).await?;
        if found.is_empty() {
            return Ok(Done::Nothing(None));
        }
        let made = create_session(tx, self.concert, self.starts_at, &self.groups).await?;
        Ok(Done::Commit(Some(made)))
    }
}

async fn create_session(
    tx: &mut Tx,
    concert: ConcertId,
    starts_at: Timestamp,
    groups: &[NewSeats],
) -> Op<(SessionId, Vec<AddedSeats>)> {
    let total = groups.iter().fold(0_u32, |sum, group| sum.saturating_add(group.count));
    let values = vec![concert.get().into(), starts_at.0.into(), total.into()];
    let id = tx.lease.insert(sql::SESSION_ADD, values).await?;
    let id = rows::id(SessionId::new, id, "session")?;
    let mut seats = Vec::new();
    let mut added = Vec::with_capacity(groups.len());
    for group in groups {
        let numbered = u32::try_from(seats.len()).unwrap_or(u32::MAX);
        let (mut more, range) = insert_seats(tx, id, numbered, *group).await?;
        seats.append(&mut more);
        added.extend(range);
    }
    tx.made.push(Made::Hall(Session { id, concert, starts_at }, seats));
    Ok((id, added))
}

/// Adds seats to a session.
pub(super) struct AddSeats {
    pub(super) concert: ConcertId,
    pub(super) session: SessionId,
    pub(super) group: NewSeats,
}

impl Operation for AddSeats {
    type Answer = Option<AddedSeats>;
    const LANE: Lane = Lane::Bulk;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        // The lock numbers the seats of two calls one after another.
        let values = vec![self.session.get().into(), self.concert.get().into()];
        let Some(mut row) = tx.lease.rows(sql::SESSION_LOCK, values).await?.pop() else {
            return Ok(Done::Nothing(None));
        };
        let numbered: u32 = take(&mut row, 0)?;
        let (seats, range) = insert_seats(tx, self.session, numbered, self.group).await?;
        let total = numbered.saturating_add(self.group.count);
        tx.lease.exec(sql::SESSION_SEATS, vec![total.into(), self.session.get().into()]).await?;
        tx.made.push(Made::Seats(self.session, seats));
        Ok(Done::Commit(range))
    }
}

async fn insert_seats(
    tx: &mut Tx,
    session: SessionId,
    numbered: u32,
    group: NewSeats,
) -> Op<(Vec<Seat>, Option<AddedSeats>)> {
    if group.count == 0 {
        return Ok((Vec::new(), None));
    }
    tx.lease.exec(sql::SEAT_IDS_TAKE, vec![group.count.into()]).await?;
    let last = load::number(&mut tx.lease, sql::SEAT_IDS_LAST).await?;
    let mut seats = Vec::with_capacity(group.count as usize);
    for offset in 1..=group.count {
        let id = last - i64::from(group.count) + i64::from(offset);
        seats.push(Seat {
            id: rows::id(SeatId::new, id, "seat")?,
            number: numbered.saturating_add(offset),
            price: group.price,
            state: SeatState::Available,
        });
    }
    for part in seats.chunks(ROWS) {
        let mut values = Vec::with_capacity(part.len() * 5);
        for seat in part {
            values.extend([
                seat.id.get().into(),
                session.get().into(),
                seat.number.into(),
                seat.price.into(),
                Value::from(seat_state::AVAILABLE),
            ]);
        }
        let text = format!(
            "INSERT INTO seat (id, session_id, number, price, state) VALUES {}",
            rows_of(5, part.len())
        );
        tx.lease.exec(&text, values).await?;
    }
    let added = seats.first().map(|first| AddedSeats { first: first.id, count: group.count });
    Ok((seats, added))
}

/// A first stock of everything.
pub(super) struct Fill(pub(super) Seed, pub(super) Timestamp);

impl Operation for Fill {
    type Answer = ();
    const LANE: Lane = Lane::Bulk;

    async fn run(&self, tx: &mut Tx) -> Op<Done<()>> {
        let Self(seed, now) = self;
        // Instances that start at once on an empty database take turns here, and the second finds
        // that it has been filled.
        tx.lease.exec(sql::SEAT_IDS_TAKE, vec![0.into()]).await?;
        let filled = !tx.lease.rows(sql::CONCERT_IDS, vec![]).await?.is_empty();
        if filled && tx.store.catalog().concerts().next().is_none() {
            return Ok(Done::Nothing(()));
        }
        let users: Vec<UserId> = seed.users.clone().filter_map(UserId::new).collect();
        for part in users.chunks(ROWS) {
            give_points(tx, part, seed.points, *now).await?;
        }
        for (concert, sessions) in &seed.concerts {
            let id = create_concert(tx, concert).await?;
            for (starts_at, seats) in sessions {
                create_session(tx, id, *starts_at, &[*seats]).await?;
            }
        }
        Ok(Done::Commit(()))
    }
}

/// Gives many users the same number of points to begin with.
async fn give_points(tx: &mut Tx, users: &[UserId], points: i64, now: Timestamp) -> Op<()> {
    let ids = list(users.iter().map(|user| user.get()));
    let make = format!(
        "INSERT INTO account (user_id, balance) VALUES {} \
         ON DUPLICATE KEY UPDATE balance = balance",
        vec!["(?, 0)"; users.len()].join(",")
    );
    tx.lease.exec(&make, ids.clone()).await?;
    let add = format!("UPDATE account SET balance = balance + {points} WHERE user_id IN ({{}})");
    tx.lease.exec(&sql::listed(&add, users.len()), ids.clone()).await?;
    let enter = format!(
        "INSERT INTO points_entry (user_id, amount, balance, kind, payment_id, at) \
         SELECT user_id, {points}, balance, {}, NULL, {} FROM account WHERE user_id IN ({{}}) \
         ORDER BY user_id",
        entry_kind::OPENING,
        now.0
    );
    tx.lease.exec(&sql::listed(&enter, users.len()), ids).await?;
    Ok(())
}

// ---- settings ----

/// A setting, and the value that it gets where it has none.
pub(super) struct FreshSetting(pub(super) &'static str, pub(super) String);

impl Operation for FreshSetting {
    type Answer = Option<String>;
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Option<String>>> {
        tx.lease.exec(sql::SETTING_FRESH, vec![self.0.into(), self.1.as_str().into()]).await?;
        Ok(Done::Commit(load::setting(&mut tx.lease, self.0).await?))
    }
}

/// Replaces a setting.
pub(super) struct SetSetting(pub(super) &'static str, pub(super) String);

impl Operation for SetSetting {
    type Answer = ();
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<()>> {
        tx.lease.exec(sql::SETTING_SET, vec![self.0.into(), self.1.as_str().into()]).await?;
        Ok(Done::Commit(()))
    }
}
