//! The operations inside a transaction: load, ask the decider, write.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use boxoffice_domain::event::{EndReason, Event};
use boxoffice_domain::ids::{ConcertId, PaymentId, ReservationId, SeatId, SessionId, UserId};
use boxoffice_domain::points::decide_charge;
use boxoffice_domain::queue::{Admission, Settings, SettingsChange};
use boxoffice_domain::sales::{
    Concert, HoldRequest, Reservation, ReservationState, Seat, SeatState, Session, SettleRejected,
    decide_cancel, decide_hold, decide_payment,
};
use boxoffice_domain::time::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row, Statement, params};

use super::load;
use super::rows::{
    self, Failure, column, entry_kind, items_to_text, reservation_state, seat_columns, seat_state,
};
use crate::events::cloud_event;
use crate::store::hall::{Catalog, Hall};
use crate::store::{
    AddedSeats, Advance, Alias, AliasExists, Answer, Charge, Checkpoint, IdempotencyKey,
    NewConcert, NewSeats, Pay, Payment, PointsRejected, Progress, ReservationRejected, Reserve,
    ReserveRejected, Seed, TicketKey,
};

/// What the writer knows without asking the file: the last ids, and the seats as committed, with
/// what the transaction under way has changed of them.
pub(super) struct State {
    pub(super) catalog: Arc<ArcSwap<Catalog>>,
    pub(super) last: LastIds,
    /// The latest time at which anything was decided.
    latest: Timestamp,
    /// Seats that the transaction under way has changed.
    changed: HashMap<SeatId, (SessionId, SeatState)>,
    /// Concerts, sessions and seats that it has made.
    made: Vec<Made>,
}

/// The highest ids in use. They only rise; a rolled-back transaction leaves a gap.
#[derive(Debug, Default)]
pub(super) struct LastIds {
    pub(super) concert: i64,
    pub(super) session: i64,
    pub(super) seat: i64,
    pub(super) reservation: i64,
    pub(super) payment: i64,
    pub(super) entry: i64,
    pub(super) outbox: i64,
}

enum Made {
    Concert(Concert),
    Hall(Session, Vec<Seat>),
    Seats(SessionId, Vec<Seat>),
}

impl State {
    pub(super) fn new(catalog: Arc<ArcSwap<Catalog>>, last: LastIds, latest: Timestamp) -> Self {
        Self { catalog, last, latest, changed: HashMap::new(), made: Vec::new() }
    }

    /// The transaction is durable: lets everybody see what it did.
    pub(super) fn publish(&mut self) {
        for made in self.made.drain(..) {
            let catalog = self.catalog.load();
            match made {
                Made::Concert(concert) => {
                    self.catalog.store(Arc::new(catalog.with_concert(concert)))
                }
                Made::Hall(session, seats) => {
                    let hall = Arc::new(Hall::new(session, seats));
                    self.catalog.store(Arc::new(catalog.with_hall(hall)));
                }
                Made::Seats(session, seats) => {
                    if let Some(hall) = catalog.hall_of(session) {
                        hall.append(seats);
                    }
                }
            }
        }
        if self.changed.is_empty() {
            return;
        }
        let mut by_session: HashMap<SessionId, Vec<(SeatId, SeatState)>> = HashMap::new();
        for (seat, (session, state)) in self.changed.drain() {
            by_session.entry(session).or_default().push((seat, state));
        }
        let catalog = self.catalog.load();
        for (session, changes) in by_session {
            if let Some(hall) = catalog.hall_of(session) {
                hall.publish(&changes);
            }
        }
    }

    /// The transaction did not happen.
    pub(super) fn forget(&mut self) {
        self.changed.clear();
        self.made.clear();
    }
}

fn seats_of(reservation: &Reservation) -> impl Iterator<Item = SeatId> {
    reservation.items.iter().map(|item| item.seat)
}

fn next(last: &mut i64) -> i64 {
    *last += 1;
    *last
}

/// A transaction under way.
pub(super) struct Tx<'a> {
    connection: &'a Connection,
    state: &'a mut State,
    /// Statements that this transaction has used. To ask the connection's cache for one costs about
    /// as much as to run a small one, and a transaction runs the same few hundreds of times.
    statements: RefCell<Vec<(&'static str, CachedStatement<'a>)>>,
}

type Op<T> = Result<T, Failure>;

impl<'a> Tx<'a> {
    pub(super) const fn new(connection: &'a Connection, state: &'a mut State) -> Self {
        Self { connection, state, statements: RefCell::new(Vec::new()) }
    }

    pub(super) const fn connection(&self) -> &Connection {
        self.connection
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.state.catalog.load_full()
    }

    /// Whether the transaction under way has changed this seat.
    pub(super) fn has_changed(&self, seat: SeatId) -> bool {
        self.state.changed.contains_key(&seat)
    }

    /// The time at which an operation is decided. Requests do not get here in the order of their
    /// times (a slow body, a busy thread), and deciding one of them in the past of another would
    /// give the same seat to a hold that is over and to the one that came after it.
    fn effective_time(&mut self, asked: Timestamp) -> Timestamp {
        self.state.latest = self.state.latest.max(asked);
        self.state.latest
    }

    /// How many seats the transaction under way has added to a session.
    pub(super) fn has_added(&self, session: SessionId) -> usize {
        let added = |made: &Made| match made {
            Made::Seats(id, seats) if *id == session => seats.len(),
            _ => 0,
        };
        self.state.made.iter().map(added).sum()
    }

    fn with<T>(
        &self,
        sql: &'static str,
        run: impl FnOnce(&mut Statement<'_>) -> rusqlite::Result<T>,
    ) -> Op<T> {
        let kept = {
            let mut statements = self.statements.borrow_mut();
            // The same literal; another one of the same text is found in the connection's cache.
            let known = statements.iter().position(|(text, _)| std::ptr::eq(*text, sql));
            known.map(|index| statements.swap_remove(index).1)
        };
        let mut statement = match kept {
            Some(statement) => statement,
            None => self.connection.prepare_cached(sql)?,
        };
        let result = run(&mut statement);
        self.statements.borrow_mut().push((sql, statement));
        Ok(result?)
    }

    fn execute(&self, sql: &'static str, params: impl Params) -> Op<usize> {
        self.with(sql, |statement| statement.execute(params))
    }

    fn row<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Op<T> {
        self.with(sql, |statement| statement.query_row(params, read))
    }

    fn optional<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Op<Option<T>> {
        self.with(sql, |statement| statement.query_row(params, read).optional())
    }

    // ---- sales ----

    pub(super) fn reserve(
        &mut self,
        request: &Reserve,
    ) -> Op<Result<Answer<Reservation>, ReserveRejected>> {
        let now = self.effective_time(request.now);
        match self.earlier(request.user, request.idempotency.as_ref())? {
            Earlier::None => {}
            Earlier::Other => return Ok(Err(ReserveRejected::KeyReused)),
            Earlier::Same(result) => {
                let id = rows::id(ReservationId::new, result, "reservation")?;
                let (mut value, until) = rows::reservation(self.connection, id)?
                    .ok_or_else(|| Failure::Corrupt(format!("no reservation {id} for a key")))?;
                // The first answer told of a hold, whatever has become of it since.
                value.state = ReservationState::Held { until };
                return Ok(Ok(Answer { value, replayed: true }));
            }
        }
        let catalog = self.state.catalog.load_full();
        let Some(concert) = catalog.concert(request.concert) else {
            return Ok(Err(ReserveRejected::NoSuchConcert));
        };
        let Some(hall) = catalog.hall(request.concert, request.session) else {
            return Ok(Err(ReserveRejected::NoSuchSession));
        };
        let mut seats = hall.find(&request.seats);
        for seat in seats.iter_mut().flatten() {
            if let Some((_, state)) = self.state.changed.get(&seat.id) {
                seat.state = *state;
            }
        }
        let reservation = rows::id(ReservationId::new, self.state.last.reservation + 1, "id")?;
        let decision = decide_hold(
            &HoldRequest {
                reservation,
                user: request.user,
                concert,
                session: hall.session(),
                seat_ids: &request.seats,
                seats: &seats,
                user_has: self.live_seats_of(request.user, request.session, now)?,
                ticket_spent: request.ticket_over || self.is_spent(&request.ticket)?,
            },
            &request.limits,
            now,
        );
        let reservation = match decision {
            Ok(reservation) => reservation,
            Err(rejected) => return Ok(Err(ReserveRejected::Hold(rejected))),
        };
        self.state.last.reservation = reservation.id.get();
        let until = match reservation.state {
            ReservationState::Held { until } => until,
            other => return Err(Failure::Corrupt(format!("a new reservation is {other:?}"))),
        };
        let total = reservation.total();
        self.execute(
            "INSERT INTO reservation (id, user_id, concert_id, session_id, items, seat_count, \
             total, created_at, held_until, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                reservation.id.get(),
                reservation.user.get(),
                reservation.concert.get(),
                reservation.session.get(),
                items_to_text(&reservation.items),
                reservation.items.len() as i64,
                total,
                now.0,
                until.0,
                reservation_state::HELD,
            ],
        )?;
        let held = SeatState::Held { reservation: reservation.id, until };
        self.set_seats(request.session, seats_of(&reservation), held)?;
        self.remember(request.user, request.idempotency.as_ref(), reservation.id.get(), now)?;
        let event = Event::ConcertReserved {
            reservation: reservation.id,
            user: reservation.user,
            concert: reservation.concert,
            session: reservation.session,
            seats: request.seats.clone(),
            total,
            until,
        };
        self.emit(&event, now)?;
        Ok(Ok(Answer { value: reservation, replayed: false }))
    }

    pub(super) fn pay(
        &mut self,
        request: &Pay,
    ) -> Op<Result<Answer<Payment>, ReservationRejected>> {
        let now = self.effective_time(request.now);
        match self.earlier(request.user, request.idempotency.as_ref())? {
            Earlier::None => {}
            Earlier::Other => return Ok(Err(ReservationRejected::KeyReused)),
            Earlier::Same(result) => {
                let value = self.payment(rows::id(PaymentId::new, result, "payment")?)?;
                return Ok(Ok(Answer { value, replayed: true }));
            }
        }
        let Some((reservation, _)) = rows::reservation(self.connection, request.reservation)?
        else {
            return Ok(Err(ReservationRejected::NoSuchReservation));
        };
        let balance = self.balance(request.user)?;
        let spent = self.is_spent(&request.ticket)?;
        let decision = decide_payment(&reservation, request.user, balance, spent, now);
        let amount = match decision {
            Ok(amount) => amount,
            Err(rejected) => return Ok(Err(ReservationRejected::Settle(rejected))),
        };
        let payment = rows::id(PaymentId::new, next(&mut self.state.last.payment), "payment")?;
        self.execute(
            "INSERT INTO payment (id, reservation_id, user_id, amount, paid_at) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![payment.get(), reservation.id.get(), request.user.get(), amount, now.0],
        )?;
        self.move_points(
            request.user,
            -amount,
            balance - amount,
            entry_kind::PAYMENT,
            Some(payment),
            now,
        )?;
        self.execute(
            "UPDATE reservation SET state = ?2, payment_id = ?3 WHERE id = ?1",
            params![reservation.id.get(), reservation_state::PAID, payment.get()],
        )?;
        let sold = SeatState::Sold { reservation: reservation.id };
        self.set_seats(reservation.session, seats_of(&reservation), sold)?;
        self.spend(&request.ticket, Some(payment), now)?;
        self.remember(request.user, request.idempotency.as_ref(), payment.get(), now)?;
        let event = Event::PaymentCompleted {
            payment,
            reservation: reservation.id,
            user: request.user,
            amount,
        };
        self.emit(&event, now)?;
        let value = Payment { id: payment, reservation: reservation.id, amount, paid_at: now };
        Ok(Ok(Answer { value, replayed: false }))
    }

    pub(super) fn cancel(
        &mut self,
        id: ReservationId,
        user: UserId,
        now: Timestamp,
    ) -> Op<Result<(), ReservationRejected>> {
        let now = self.effective_time(now);
        let Some((reservation, _)) = rows::reservation(self.connection, id)? else {
            return Ok(Err(ReservationRejected::NoSuchReservation));
        };
        if let Err(rejected) = decide_cancel(&reservation, user, now) {
            return Ok(Err(ReservationRejected::Settle(rejected)));
        }
        self.end(&reservation, EndReason::Cancelled, now)?;
        Ok(Ok(()))
    }

    pub(super) fn expire_due(&mut self, now: Timestamp, max: u32) -> Op<u32> {
        let now = self.effective_time(now);
        let due: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT id FROM reservation WHERE state = 0 AND held_until <= ?1 \
                 ORDER BY held_until LIMIT ?2",
            )?
            .query_map(params![now.0, max], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let mut ended = 0;
        for due in due {
            let id = rows::id(ReservationId::new, due, "reservation")?;
            let Some((reservation, _)) = rows::reservation(self.connection, id)? else { continue };
            // The decider has the last word on whether it ran out, here as everywhere.
            let user = reservation.user;
            if decide_cancel(&reservation, user, now) == Err(SettleRejected::Expired) {
                self.end(&reservation, EndReason::Expired, now)?;
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// Ends a hold without payment. Seats that another hold has taken since are left alone.
    fn end(&mut self, reservation: &Reservation, reason: EndReason, now: Timestamp) -> Op<()> {
        let state = match reason {
            EndReason::Cancelled => reservation_state::CANCELLED,
            EndReason::Expired => reservation_state::EXPIRED,
        };
        self.execute(
            "UPDATE reservation SET state = ?2 WHERE id = ?1",
            params![reservation.id.get(), state],
        )?;
        let seats = self.own_seats(reservation)?;
        self.set_seats(reservation.session, seats, SeatState::Available)?;
        let event = Event::ReservationCancelled {
            reservation: reservation.id,
            user: reservation.user,
            reason,
        };
        self.emit(&event, now)
    }

    /// The seats that a hold still has: those that no later hold has taken.
    fn own_seats(&self, reservation: &Reservation) -> Op<Vec<SeatId>> {
        let seat_ids: Vec<SeatId> = seats_of(reservation).collect();
        let catalog = self.state.catalog.load();
        let hall = catalog.hall_of(reservation.session).ok_or_else(|| {
            Failure::Corrupt(format!("no session {} of a reservation", reservation.session))
        })?;
        let is_own = |seat: &Seat| {
            let state = self.state.changed.get(&seat.id).map_or(seat.state, |(_, state)| *state);
            matches!(state, SeatState::Held { reservation: r, .. } if r == reservation.id)
        };
        Ok(hall.find(&seat_ids).into_iter().flatten().filter(is_own).map(|seat| seat.id).collect())
    }

    fn set_seats(
        &mut self,
        session: SessionId,
        seats: impl IntoIterator<Item = SeatId>,
        state: SeatState,
    ) -> Op<()> {
        let (number, reservation, until) = seat_columns(state);
        let seats: Vec<SeatId> = seats.into_iter().collect();
        // Friends sit side by side: seats next to each other are one statement.
        for run in seats.chunk_by(|seat, next| next.get() - seat.get() == 1) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let changed = self.execute(
                "UPDATE seat SET state = ?3, reservation_id = ?4, held_until = ?5 \
                 WHERE id BETWEEN ?1 AND ?2",
                params![first.get(), last.get(), number, reservation, until],
            )?;
            if changed != run.len() {
                return Err(Failure::Corrupt(format!("no rows for seats {first} to {last}")));
            }
        }
        self.state.changed.extend(seats.into_iter().map(|seat| (seat, (session, state))));
        Ok(())
    }

    fn live_seats_of(&self, user: UserId, session: SessionId, now: Timestamp) -> Op<u32> {
        self.row(
            "SELECT COALESCE(SUM(seat_count), 0) FROM reservation WHERE user_id = ?1 \
             AND session_id = ?2 AND (state = 1 OR (state = 0 AND held_until > ?3))",
            params![user.get(), session.get(), now.0],
            |row| row.get(0),
        )
    }

    fn payment(&self, id: PaymentId) -> Op<Payment> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT reservation_id, amount, paid_at FROM payment WHERE id = ?1")?;
        let (reservation, amount, at): (i64, i64, i64) =
            statement.query_row([id.get()], |row| row.try_into())?;
        Ok(Payment {
            id,
            reservation: rows::id(ReservationId::new, reservation, "reservation")?,
            amount,
            paid_at: Timestamp(at),
        })
    }

    // ---- tickets ----

    fn is_spent(&self, ticket: &TicketKey) -> Op<bool> {
        self.with(
            "SELECT 1 FROM spent_ticket WHERE queue = ?1 AND seq = ?2 AND ticket_id = ?3",
            |find| find.exists(params![ticket.queue.as_str(), column(ticket.seq), ticket.id.0]),
        )
    }

    fn spend(&self, ticket: &TicketKey, payment: Option<PaymentId>, now: Timestamp) -> Op<()> {
        // Giving up a ticket that was given up before changes nothing.
        self.execute(
            "INSERT OR IGNORE INTO spent_ticket (queue, seq, ticket_id, payment_id, at) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                ticket.queue.as_str(),
                column(ticket.seq),
                ticket.id.0,
                payment.map(PaymentId::get),
                now.0
            ],
        )?;
        Ok(())
    }

    pub(super) fn give_up(&self, ticket: &TicketKey, waiting: bool, now: Timestamp) -> Op<()> {
        if waiting {
            self.execute(
                "INSERT OR IGNORE INTO queue_left (queue, seq) VALUES (?1, ?2)",
                params![ticket.queue.as_str(), column(ticket.seq)],
            )?;
        }
        // In the line too: should it be admitted before the line in memory learns of it, it still
        // buys nothing.
        self.spend(ticket, None, now)
    }

    pub(super) fn add_aliases(&self, aliases: &[Alias]) -> Op<Result<(), AliasExists>> {
        let mut exists = self.connection.prepare_cached("SELECT 1 FROM alias WHERE token = ?1")?;
        let mut listed = HashSet::with_capacity(aliases.len());
        for alias in aliases {
            if !listed.insert(&alias.token) || exists.exists([&alias.token])? {
                return Ok(Err(AliasExists(alias.token.clone())));
            }
        }
        for alias in aliases {
            self.execute(
                "INSERT INTO alias (token, queue, seq, user_id, issued_at, ticket_id, active_until) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    alias.token,
                    alias.ticket.queue.as_str(),
                    column(alias.ticket.seq),
                    alias.ticket.user.get(),
                    alias.ticket.issued_at.0,
                    alias.ticket.id.0,
                    alias.active_until.map(|t| t.0),
                ],
            )?;
        }
        Ok(Ok(()))
    }

    // ---- points ----

    fn balance(&self, user: UserId) -> Op<i64> {
        let sql = "SELECT balance FROM account WHERE user_id = ?1";
        Ok(self.optional(sql, [user.get()], |row| row.get(0))?.unwrap_or(0))
    }

    pub(super) fn charge(&mut self, request: &Charge) -> Op<Result<Answer<i64>, PointsRejected>> {
        let now = self.effective_time(request.now);
        match self.earlier(request.user, request.idempotency.as_ref())? {
            Earlier::None => {}
            Earlier::Other => return Ok(Err(PointsRejected::KeyReused)),
            Earlier::Same(entry) => {
                let mut statement = self
                    .connection
                    .prepare_cached("SELECT balance FROM points_entry WHERE id = ?1")?;
                let value = statement.query_row([entry], |row| row.get(0))?;
                return Ok(Ok(Answer { value, replayed: true }));
            }
        }
        let balance = match decide_charge(self.balance(request.user)?, request.amount) {
            Ok(balance) => balance,
            Err(rejected) => return Ok(Err(PointsRejected::Charge(rejected))),
        };
        let entry =
            self.move_points(request.user, request.amount, balance, entry_kind::CHARGE, None, now)?;
        self.remember(request.user, request.idempotency.as_ref(), entry, now)?;
        let event =
            Event::PointCharged { entry, user: request.user, amount: request.amount, balance };
        self.emit(&event, now)?;
        Ok(Ok(Answer { value: balance, replayed: false }))
    }

    fn move_points(
        &mut self,
        user: UserId,
        amount: i64,
        balance: i64,
        kind: i64,
        payment: Option<PaymentId>,
        now: Timestamp,
    ) -> Op<i64> {
        let entry = next(&mut self.state.last.entry);
        self.execute(
            "INSERT INTO account (user_id, balance) VALUES (?1, ?2) \
             ON CONFLICT (user_id) DO UPDATE SET balance = excluded.balance",
            params![user.get(), balance],
        )?;
        self.execute(
            "INSERT INTO points_entry (id, user_id, amount, balance, kind, payment_id, at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![entry, user.get(), amount, balance, kind, payment.map(PaymentId::get), now.0],
        )?;
        Ok(entry)
    }

    // ---- idempotency and events ----

    fn earlier(&self, user: UserId, key: Option<&IdempotencyKey>) -> Op<Earlier> {
        let Some(key) = key else { return Ok(Earlier::None) };
        let found: Option<(Vec<u8>, i64)> = self.optional(
            "SELECT fingerprint, result_id FROM idempotency WHERE user_id = ?1 AND key = ?2",
            params![user.get(), key.key],
            |row| row.try_into(),
        )?;
        Ok(match found {
            None => Earlier::None,
            Some((fingerprint, _)) if fingerprint != key.fingerprint => Earlier::Other,
            Some((_, result)) => Earlier::Same(result),
        })
    }

    fn remember(
        &self,
        user: UserId,
        key: Option<&IdempotencyKey>,
        result: i64,
        now: Timestamp,
    ) -> Op<()> {
        let Some(key) = key else { return Ok(()) };
        self.execute(
            "INSERT INTO idempotency (user_id, key, fingerprint, result_id, at) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![user.get(), key.key, key.fingerprint, result, now.0],
        )?;
        Ok(())
    }

    pub(super) fn forget_keys(&self, before: Timestamp, max: u32) -> Op<u32> {
        let forgotten = self.execute(
            "DELETE FROM idempotency WHERE (user_id, key) IN \
             (SELECT user_id, key FROM idempotency WHERE at < ?1 ORDER BY at LIMIT ?2)",
            params![before.0, max],
        )?;
        Ok(u32::try_from(forgotten).unwrap_or(max))
    }

    fn emit(&mut self, event: &Event, now: Timestamp) -> Op<()> {
        let id = next(&mut self.state.last.outbox);
        self.execute(
            "INSERT INTO outbox (id, topic, key, body) VALUES (?1, ?2, ?3, ?4)",
            params![id, event.topic().name(), event.key(), cloud_event(event, now)],
        )?;
        Ok(())
    }

    pub(super) fn mark_published(&self, ids: &[i64]) -> Op<()> {
        let mut gone: HashMap<String, (i64, i64)> = HashMap::new();
        // The relay hands over what it took, which is a run of ids; a run is one walk and one delete.
        for run in ids.chunk_by(|id, next| id.checked_add(1) == Some(*next)) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let mut find = self
                .connection
                .prepare_cached("SELECT id, topic FROM outbox WHERE id BETWEEN ?1 AND ?2")?;
            let mut rows = find.query([first, last])?;
            while let Some(row) = rows.next()? {
                let (id, topic): (i64, String) = (row.get(0)?, row.get(1)?);
                let (count, last) = gone.entry(topic).or_default();
                *count += 1;
                *last = (*last).max(id);
            }
            self.execute("DELETE FROM outbox WHERE id BETWEEN ?1 AND ?2", [first, last])?;
        }
        for (topic, (count, last)) in gone {
            self.execute(
                "INSERT INTO published (topic, count, last_id) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (topic) DO UPDATE SET count = count + excluded.count, \
                 last_id = MAX(last_id, excluded.last_id)",
                params![topic, count, last],
            )?;
        }
        Ok(())
    }

    // ---- queues ----

    pub(super) fn create_queue(&self, name: &str, settings: &Settings) -> Op<bool> {
        let made = self.execute(
            "INSERT OR IGNORE INTO queue (name, next, watermark, serving, floor, \
             admit_per_second, max_active, active_ttl_ms, claim_window_ms, opens_at, paused) \
             VALUES (?1, 0, 0, 0, 0, ?2, ?3, ?4, ?5, ?6, ?7)",
            Self::settings_of(name, settings),
        )?;
        Ok(made == 1)
    }

    pub(super) fn change_queue(&self, name: &str, change: &SettingsChange) -> Op<Settings> {
        // The credit was earned under the old settings.
        let mut update = self.connection.prepare_cached(
            "UPDATE queue SET admit_per_second = COALESCE(?2, admit_per_second), \
             max_active = IIF(?3, ?4, max_active), opens_at = IIF(?5, ?6, opens_at), \
             paused = COALESCE(?7, paused), credit_micro = NULL, credit_at = NULL \
             WHERE name = ?1 RETURNING admit_per_second, max_active, active_ttl_ms, \
             claim_window_ms, opens_at, paused",
        )?;
        let mut changed = update.query(params![
            name,
            change.admit_per_second,
            change.max_active.is_some(),
            change.max_active.flatten().map(column),
            change.opens_at.is_some(),
            change.opens_at.flatten().map(|at| at.0),
            change.paused,
        ])?;
        let Some(row) = changed.next()? else { return Err(no_queue(name)) };
        load::settings(row, 0)
    }

    /// The parameters 1 to 7 of a new queue.
    fn settings_of<'s>(name: &'s str, settings: &Settings) -> impl rusqlite::Params + use<'s> {
        (
            name,
            settings.admit_per_second,
            settings.max_active.map(column),
            settings.active_ttl.as_millis() as i64,
            settings.claim_window.as_millis() as i64,
            settings.opens_at.map(|t| t.0),
            settings.paused,
        )
    }

    pub(super) fn checkpoint(&self, queues: &[Checkpoint], now: Timestamp) -> Op<()> {
        for point in queues {
            let name = point.queue.as_str();
            let serving = point.admission.map(|a| column(a.upto));
            // The conditions are the rule that counters never go back, kept where they are stored.
            let changed = self.execute(
                "UPDATE queue SET next = ?2, watermark = ?3, floor = ?4, \
                 serving = COALESCE(?5, serving) WHERE name = ?1 AND next <= ?2 AND floor <= ?4 \
                 AND ?2 <= ?3 AND serving <= COALESCE(?5, serving)",
                params![
                    name,
                    column(point.next),
                    column(point.watermark),
                    column(point.floor),
                    serving
                ],
            )?;
            if changed != 1 {
                return Err(Failure::Corrupt(format!("counters of queue {name} would go back")));
            }
            if let Some(admission) = point.admission {
                self.log_admission(name, admission)?;
            }
            self.forget_below(name, point.floor)?;
            if let Some(claimed) = &point.claimed {
                self.execute(
                    "UPDATE queue SET claimed = ?2 WHERE name = ?1",
                    params![name, rows::numbers_to(claimed)?],
                )?;
            }
        }
        self.set_clock(now)
    }

    pub(super) fn take_numbers(&self, name: &str, count: u64, at_least: u64) -> Op<u64> {
        let mut take = self.connection.prepare_cached(
            "UPDATE queue SET watermark = MAX(watermark, ?2) + ?3 WHERE name = ?1 \
             RETURNING watermark",
        )?;
        let last: Option<i64> = take
            .query_row(params![name, column(at_least), column(count)], |row| row.get(0))
            .optional()?;
        let last = rows::count(last.ok_or_else(|| no_queue(name))?, "watermark")?;
        Ok(last - count + 1)
    }

    pub(super) fn advance(&self, step: &Advance, now: Timestamp) -> Op<bool> {
        let name = step.queue.as_str();
        let (credit_micro, credit_at) = step.bucket.state();
        // Whoever is admitted has joined, so the other two counters are at least as high.
        let changed = self.execute(
            "UPDATE queue SET serving = ?3, next = MAX(next, ?3), watermark = MAX(watermark, ?3), \
             credit_micro = ?4, credit_at = ?5 \
             WHERE name = ?1 AND serving = ?2 AND ?2 < ?3 AND paused = 0",
            params![
                name,
                column(step.from),
                column(step.admission.upto),
                column(credit_micro),
                credit_at.map(|t| t.0)
            ],
        )?;
        if changed == 0 {
            let mut find = self.connection.prepare_cached("SELECT 1 FROM queue WHERE name = ?1")?;
            return if find.exists([name])? { Ok(false) } else { Err(no_queue(name)) };
        }
        self.log_admission(name, step.admission)?;
        self.set_clock(now)?;
        Ok(true)
    }

    pub(super) fn record(&self, progress: &[Progress], now: Timestamp) -> Op<()> {
        for known in progress {
            let name = known.queue.as_str();
            let mut raise = self.connection.prepare_cached(
                "UPDATE queue SET next = MAX(next, ?2), watermark = MAX(watermark, ?2), \
                 floor = MAX(floor, MIN(serving, ?3)) WHERE name = ?1 RETURNING floor, claimed",
            )?;
            let stored: Option<(i64, Option<Vec<u8>>)> = raise
                .query_row(params![name, column(known.next), column(known.floor)], |row| {
                    row.try_into()
                })
                .optional()?;
            let (floor, claimed) = stored.ok_or_else(|| no_queue(name))?;
            let floor = rows::count(floor, "floor")?;
            self.forget_below(name, floor)?;
            if let Some(more) = &known.claimed {
                let mut claimed = rows::numbers_from(claimed, name)? | more;
                claimed.remove_range(..=floor);
                self.execute(
                    "UPDATE queue SET claimed = ?2 WHERE name = ?1",
                    params![name, rows::numbers_to(&claimed)?],
                )?;
            }
        }
        self.set_clock(now)
    }

    fn log_admission(&self, queue: &str, admission: Admission) -> Op<()> {
        self.execute(
            "INSERT INTO admission (queue, upto, at) VALUES (?1, ?2, ?3)",
            params![queue, column(admission.upto), admission.at.0],
        )?;
        Ok(())
    }

    /// What is below the floor has run out of time; nobody asks for it any more.
    fn forget_below(&self, queue: &str, floor: u64) -> Op<()> {
        self.execute(
            "DELETE FROM admission WHERE queue = ?1 AND upto <= ?2",
            params![queue, column(floor)],
        )?;
        self.execute(
            "DELETE FROM queue_left WHERE queue = ?1 AND seq <= ?2",
            params![queue, column(floor)],
        )?;
        Ok(())
    }

    fn set_clock(&self, now: Timestamp) -> Op<()> {
        self.execute(
            "INSERT INTO setting (name, value) VALUES ('clock', ?1) ON CONFLICT (name) DO UPDATE \
             SET value = excluded.value WHERE CAST(value AS INTEGER) < ?2",
            params![now.0.to_string(), now.0],
        )?;
        Ok(())
    }

    // ---- what is for sale ----

    pub(super) fn create_concert(&mut self, new: &NewConcert) -> Op<ConcertId> {
        let id = rows::id(ConcertId::new, next(&mut self.state.last.concert), "concert")?;
        self.execute(
            "INSERT INTO concert (id, name, venue, queue, opens_at, closes_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                id.get(),
                new.name,
                new.venue,
                new.queue.as_str(),
                new.opens_at.0,
                new.closes_at.0
            ],
        )?;
        self.state.made.push(Made::Concert(Concert {
            id,
            name: new.name.clone(),
            venue: new.venue.clone(),
            queue: new.queue.clone(),
            opens_at: new.opens_at,
            closes_at: new.closes_at,
        }));
        Ok(id)
    }

    fn has_concert(&self, id: ConcertId) -> bool {
        self.state.catalog.load().concert(id).is_some()
            || self.state.made.iter().any(|made| matches!(made, Made::Concert(c) if c.id == id))
    }

    pub(super) fn create_session(
        &mut self,
        concert: ConcertId,
        starts_at: Timestamp,
        groups: &[NewSeats],
    ) -> Op<Option<(SessionId, Vec<AddedSeats>)>> {
        if !self.has_concert(concert) {
            return Ok(None);
        }
        let id = rows::id(SessionId::new, next(&mut self.state.last.session), "session")?;
        self.execute(
            "INSERT INTO session (id, concert_id, starts_at) VALUES (?1, ?2, ?3)",
            params![id.get(), concert.get(), starts_at.0],
        )?;
        let mut seats = Vec::new();
        let mut added = Vec::with_capacity(groups.len());
        for group in groups {
            let numbered = u32::try_from(seats.len()).unwrap_or(u32::MAX);
            let (mut more, range) = self.insert_seats(id, numbered, *group)?;
            seats.append(&mut more);
            added.extend(range);
        }
        self.state.made.push(Made::Hall(Session { id, concert, starts_at }, seats));
        Ok(Some((id, added)))
    }

    pub(super) fn add_seats(
        &mut self,
        concert: ConcertId,
        session: SessionId,
        group: NewSeats,
    ) -> Op<Option<AddedSeats>> {
        let catalog = self.state.catalog.load_full();
        if catalog.hall(concert, session).is_none() {
            return Ok(None);
        }
        let numbered = self
            .connection
            .prepare_cached("SELECT COALESCE(MAX(number), 0) FROM seat WHERE session_id = ?1")?
            .query_row([session.get()], |row| row.get(0))?;
        let (seats, range) = self.insert_seats(session, numbered, group)?;
        self.state.made.push(Made::Seats(session, seats));
        Ok(range)
    }

    fn insert_seats(
        &mut self,
        session: SessionId,
        numbered: u32,
        group: NewSeats,
    ) -> Op<(Vec<Seat>, Option<AddedSeats>)> {
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO seat (id, session_id, number, price, state) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut seats = Vec::with_capacity(group.count as usize);
        for offset in 1..=group.count {
            let id = rows::id(SeatId::new, next(&mut self.state.last.seat), "seat")?;
            let number = numbered.saturating_add(offset);
            insert.execute(params![
                id.get(),
                session.get(),
                number,
                group.price,
                seat_state::AVAILABLE
            ])?;
            seats.push(Seat { id, number, price: group.price, state: SeatState::Available });
        }
        let added = seats.first().map(|first| AddedSeats { first: first.id, count: group.count });
        Ok((seats, added))
    }

    pub(super) fn seed(&mut self, seed: &Seed, now: Timestamp) -> Op<()> {
        for user in seed.users.clone().filter_map(UserId::new) {
            let balance = self.balance(user)? + seed.points;
            self.move_points(user, seed.points, balance, entry_kind::OPENING, None, now)?;
        }
        for (concert, sessions) in &seed.concerts {
            let id = self.create_concert(concert)?;
            for (starts_at, seats) in sessions {
                self.create_session(id, *starts_at, &[*seats])?;
            }
        }
        Ok(())
    }

    // ---- settings ----

    pub(super) fn setting(&self, name: &str, fresh: Option<&str>) -> Op<Option<String>> {
        if let Some(fresh) = fresh {
            self.execute(
                "INSERT OR IGNORE INTO setting (name, value) VALUES (?1, ?2)",
                params![name, fresh],
            )?;
        }
        let mut statement =
            self.connection.prepare_cached("SELECT value FROM setting WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    }

    pub(super) fn set_setting(&self, name: &str, value: &str) -> Op<()> {
        self.execute(
            "INSERT INTO setting (name, value) VALUES (?1, ?2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            params![name, value],
        )?;
        Ok(())
    }
}

enum Earlier {
    None,
    Same(i64),
    Other,
}

fn no_queue(name: &str) -> Failure {
    Failure::Corrupt(format!("no queue {name}"))
}
