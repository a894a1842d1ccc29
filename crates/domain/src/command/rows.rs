//! What commands look at.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::changes::{Changes, Ids, NewRefund};
use super::{Command, IdempotencyKey, Payment, Refunded, TicketRef};
use crate::ids::{ConcertId, PaymentId, ReservationId, SeatId, SessionId, UserId};
use crate::sales::{Concert, Reservation, Seat, SeatState, Session, TicketHolds};
use crate::seating::{PlaceSet, Plan};
use crate::time::Timestamp;

/// The rows that some commands want, each once and in the order of its key.
#[derive(Clone, Debug, Default)]
pub struct Wants {
    /// Concerts and their sessions.
    pub sessions: BTreeSet<(ConcertId, SessionId)>,
    /// Balances.
    pub accounts: BTreeSet<UserId>,
    /// Users without whose account nothing may be decided about them, where others decide too. Those
    /// whose balance is wanted are among them.
    pub users: BTreeSet<UserId>,
    /// Seats, and the session that each is thought to be of.
    pub seats: BTreeMap<SeatId, SessionId>,
    /// Reservations. Their seats are wanted too, once it is known which they are.
    pub reservations: BTreeSet<ReservationId>,
    /// Those of them that are to be paid: whether the ticket that holds them is spent is wanted too.
    pub to_pay: BTreeSet<ReservationId>,
    /// Those of them whose session was called off: the accounts of their users are wanted too.
    pub to_call_off: BTreeSet<ReservationId>,
    /// What users have in sessions, held and bought.
    pub live_seats: BTreeSet<(UserId, SessionId)>,
    /// Whether tickets are spent.
    pub tickets: BTreeSet<TicketRef>,
    /// What was held with tickets.
    pub holds_of: BTreeSet<TicketRef>,
    /// Refunds, by their payments.
    pub refunds: BTreeSet<PaymentId>,
    /// Idempotency keys.
    pub keys: BTreeSet<(UserId, String)>,
}

impl Wants {
    /// Adds what one more command wants.
    pub fn add(&mut self, command: &Command) {
        if let Some((user, key)) = command.idempotency() {
            self.keys.insert((user, key.key.clone()));
        }
        match command {
            Command::Reserve(reserve) => {
                self.sessions.insert((reserve.concert, reserve.session));
                self.users.insert(reserve.user);
                // A longer list is refused for its length.
                let most = reserve.limits.seats_per_reservation_max as usize;
                for seat in reserve.seats.iter().take(most).chain(&reserve.beside) {
                    self.seats.insert(*seat, reserve.session);
                }
                self.live_seats.insert((reserve.user, reserve.session));
                self.tickets.insert(reserve.ticket.clone());
                self.holds_of.insert(reserve.ticket.clone());
            }
            Command::Pay(pay) => {
                self.accounts.insert(pay.user);
                self.users.insert(pay.user);
                self.reservations.insert(pay.reservation);
                self.to_pay.insert(pay.reservation);
                self.tickets.insert(pay.ticket.clone());
            }
            Command::Cancel(cancel) => {
                self.reservations.insert(cancel.reservation);
            }
            Command::Charge(charge) => {
                self.accounts.insert(charge.user);
                self.users.insert(charge.user);
            }
            Command::Refund(refund) => {
                self.sessions.insert(refund.of);
                self.accounts.insert(refund.user);
                self.users.insert(refund.user);
                self.reservations.insert(refund.reservation);
                self.refunds.insert(refund.payment);
            }
            Command::Expire(expire) => {
                self.reservations.insert(expire.reservation);
            }
            Command::CallOff(call_off) => {
                self.reservations.insert(call_off.reservation);
                self.to_call_off.insert(call_off.reservation);
            }
            Command::LeaveQueue(leave_queue) => {
                self.tickets.insert(leave_queue.ticket.clone());
            }
        }
    }

    /// Adds what else is wanted of a reservation: its seats, and the ticket that holds it. Which they
    /// are never changes.
    pub fn add_rows_of(&mut self, row: &ReservationRow) {
        let ReservationRow { reservation, ticket, .. } = row;
        if self.to_pay.contains(&reservation.id) {
            self.tickets.extend(ticket.clone());
            self.sessions.insert((reservation.concert, reservation.session));
        }
        if self.to_call_off.contains(&reservation.id) {
            self.sessions.insert((reservation.concert, reservation.session));
            self.accounts.insert(reservation.user);
            self.users.insert(reservation.user);
        }
        for item in &reservation.items {
            self.seats.insert(item.seat, reservation.session);
        }
    }
}

/// A row that a transaction locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowId {
    /// An account. It stands for all that its user does: points, seats of a session, idempotency
    /// keys, tickets spent by payments.
    Account(UserId),
    /// A seat.
    Seat(SeatId),
    /// A reservation.
    Reservation(ReservationId),
    /// The choice of the best seats of a session. It is no row: two who choose at once would choose the same.
    Choice(SessionId),
}

/// A reservation, and when its hold ends or ended.
#[derive(Clone, Debug)]
pub struct ReservationRow {
    /// The reservation.
    pub reservation: Reservation,
    /// When its hold ends, or ended.
    pub until: Timestamp,
    /// The ticket that holds it. Older versions did not keep it.
    pub ticket: Option<TicketRef>,
}

/// Something that was held with a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicketHold {
    /// The reservation.
    pub reservation: ReservationId,
    /// When the hold ends; none where it is settled.
    pub until: Option<Timestamp>,
}

/// Seats that a user holds or has bought in one session with one reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveSeats {
    /// The reservation.
    pub reservation: ReservationId,
    /// How many seats.
    pub seats: u32,
    /// When the hold ends; none where they are bought.
    pub until: Option<Timestamp>,
}

/// What was done under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The digest of what was asked.
    pub fingerprint: [u8; 32],
    /// The id of the reservation, the payment or the entry that was made.
    pub result: i64,
}

/// What the answer to a repeated request is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResultOf {
    /// A hold: its reservation.
    Reserve(ReservationId),
    /// A payment.
    Pay(PaymentId),
    /// A charge: its entry in the ledger.
    Charge(i64),
}

/// A row that a [`ResultOf`] names.
#[derive(Clone, Debug)]
pub enum ResultRow {
    /// A reservation.
    Reserve(ReservationRow),
    /// A payment.
    Pay(Payment),
    /// The balance after a charge.
    Charge(i64),
}

/// Where the seats of a session are.
#[derive(Debug)]
struct Hall {
    plan: Arc<Plan>,
    /// The places that are free.
    free: PlaceSet,
}

/// A command looked at a row that it has not asked for, or a store has not loaded what was wanted.
/// That is a mistake in the program, never in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwanted(pub &'static str);

pub(super) type Looked<T> = Result<T, Unwanted>;

/// A dozen look-ups for each command: the hash of the standard library took a fiftieth of the writer.
type Map<K, V> = HashMap<K, V, RandomState>;

/// The rows that were wanted, as they are before a batch and then after each of its commands, with
/// all that has changed so far.
#[derive(Debug, Default)]
pub struct Rows {
    concerts: Map<ConcertId, Option<Arc<Concert>>>,
    sessions: Map<(ConcertId, SessionId), Option<Session>>,
    accounts: Map<UserId, i64>,
    seats: Map<SeatId, Option<(SessionId, Seat)>>,
    reservations: Map<ReservationId, Option<ReservationRow>>,
    live_seats: Map<(UserId, SessionId), Vec<LiveSeats>>,
    tickets: Map<TicketRef, bool>,
    ticket_holds: Map<TicketRef, Vec<TicketHold>>,
    keys: Map<UserId, Vec<(String, Option<KeyRow>)>>,
    refunds: Map<PaymentId, Option<Refunded>>,
    results: Map<ResultOf, ResultRow>,
    called_off: HashSet<SessionId, RandomState>,
    halls: Map<SessionId, Hall>,
    locked: HashSet<RowId, RandomState>,
    pub(super) changes: Changes,
    pub(super) ids: Ids,
}

impl Rows {
    /// Returns rows that know of nothing yet, with ids for what will be made.
    pub fn new(ids: Ids) -> Self {
        Self { ids, ..Self::default() }
    }

    // ---- what a store puts in ----

    /// A wanted concert and session; none where they do not exist.
    pub fn put_session(
        &mut self,
        (concert, session): (ConcertId, SessionId),
        found: (Option<Arc<Concert>>, Option<Session>),
    ) {
        self.concerts.insert(concert, found.0);
        self.sessions.insert((concert, session), found.1);
    }

    /// A session that was called off.
    pub fn put_called_off(&mut self, session: SessionId) {
        self.called_off.insert(session);
    }

    /// The hall of a session in which no hold may leave a single seat needlessly, and which of its places
    /// were free as far as is known. The seats that a hold depends on are looked at all the same.
    pub fn put_hall(&mut self, session: SessionId, plan: Arc<Plan>, free: PlaceSet) {
        self.halls.insert(session, Hall { plan, free });
    }

    /// A wanted account; 0 where there is none.
    pub fn put_account(&mut self, user: UserId, balance: i64) {
        self.accounts.insert(user, balance);
    }

    /// A wanted seat with its session; none where it does not exist.
    pub fn put_seat(&mut self, id: SeatId, found: Option<(SessionId, Seat)>) {
        self.seats.insert(id, found);
    }

    /// A wanted reservation; none where it does not exist.
    pub fn put_reservation(&mut self, id: ReservationId, found: Option<ReservationRow>) {
        self.reservations.insert(id, found);
    }

    /// All that a user has in a session.
    pub fn put_live_seats(&mut self, of: (UserId, SessionId), live: Vec<LiveSeats>) {
        self.live_seats.insert(of, live);
    }

    /// Whether a wanted ticket is spent.
    pub fn put_ticket(&mut self, ticket: TicketRef, is_spent: bool) {
        self.tickets.insert(ticket, is_spent);
    }

    /// All that was held with a ticket.
    pub fn put_ticket_holds(&mut self, ticket: TicketRef, holds: Vec<TicketHold>) {
        self.ticket_holds.insert(ticket, holds);
    }

    /// A wanted key; none where it was not used.
    pub fn put_key(&mut self, user: UserId, key: String, found: Option<KeyRow>) {
        self.keys.entry(user).or_default().push((key, found));
    }

    /// A wanted refund; none where the payment has none.
    pub fn put_refund(&mut self, of: PaymentId, found: Option<Refunded>) {
        self.refunds.insert(of, found);
    }

    /// What a repeated request is answered with.
    pub fn put_result(&mut self, of: ResultOf, found: ResultRow) {
        self.results.insert(of, found);
    }

    /// A wanted row that another transaction has locked: what needs it is not to be executed.
    pub fn put_locked(&mut self, row: RowId) {
        self.locked.insert(row);
    }

    /// Returns what repeated requests among these commands will be answered with.
    pub fn results_wanted(&self, commands: &[&Command]) -> Result<Vec<ResultOf>, Unwanted> {
        let mut wanted = Vec::new();
        for command in commands {
            let Some((user, key)) = command.idempotency() else { continue };
            if let Earlier::Same(result) = self.earlier(user, Some(key))? {
                wanted.extend(result_of(command, result));
            }
        }
        Ok(wanted)
    }

    /// Whether a wanted reservation was found.
    pub fn has_reservation(&self, id: ReservationId) -> bool {
        self.reservations.get(&id).is_some_and(Option::is_some)
    }

    /// Returns the seats that another transaction has locked.
    pub fn locked_seats(&self) -> impl Iterator<Item = SeatId> {
        self.locked.iter().filter_map(|row| match row {
            RowId::Seat(seat) => Some(*seat),
            RowId::Account(_) | RowId::Reservation(_) | RowId::Choice(_) => None,
        })
    }

    /// Whether any wanted row was locked by another transaction.
    pub fn has_locked(&self) -> bool {
        !self.locked.is_empty()
    }

    /// Whether another transaction has locked this row.
    pub fn is_locked(&self, row: RowId) -> bool {
        self.locked.contains(&row)
    }

    /// Returns the rows that a command decides on and changes, and so has locked.
    pub fn rows_of(&self, command: &Command) -> Vec<RowId> {
        let mut rows = command.rows();
        let settled = rows.iter().find_map(|row| match row {
            RowId::Reservation(id) => self.reservations.get(id)?.as_ref(),
            RowId::Account(_) | RowId::Seat(_) | RowId::Choice(_) => None,
        });
        if let Some(row) = settled {
            if matches!(command, Command::CallOff(_)) {
                rows.push(RowId::Account(row.reservation.user));
            }
            rows.extend(row.reservation.items.iter().map(|item| RowId::Seat(item.seat)));
        }
        rows
    }

    /// Returns what has changed, and the ids that are left.
    pub fn into_changes(self) -> (Changes, Ids) {
        (self.changes, self.ids)
    }

    // ---- what commands look at ----

    pub(super) fn concert(&self, id: ConcertId) -> Looked<Option<Arc<Concert>>> {
        wanted(self.concerts.get(&id).cloned(), "a concert")
    }

    pub(super) fn session(&self, of: (ConcertId, SessionId)) -> Looked<Option<Session>> {
        wanted(self.sessions.get(&of).copied(), "a session")
    }

    pub(super) fn is_called_off(&self, of: (ConcertId, SessionId)) -> Looked<bool> {
        wanted(self.sessions.get(&of), "a session")?;
        Ok(self.called_off.contains(&of.1))
    }

    pub(super) fn balance(&self, user: UserId) -> Looked<i64> {
        wanted(self.accounts.get(&user).copied(), "an account")
    }

    /// The seat, if it is of this session.
    pub(super) fn seat(&self, id: SeatId, session: SessionId) -> Looked<Option<Seat>> {
        let found = wanted(self.seats.get(&id), "a seat")?;
        Ok(found.and_then(|(of, seat)| (of == session).then_some(seat)))
    }

    /// The hall of a session, and its places that are free as far as is known; none where single seats may be
    /// left in it.
    pub(super) fn hall(&self, session: SessionId) -> Option<(&Plan, &PlaceSet)> {
        self.halls.get(&session).map(|hall| (&*hall.plan, &hall.free))
    }

    pub(super) fn reservation(&self, id: ReservationId) -> Looked<Option<ReservationRow>> {
        wanted(self.reservations.get(&id).cloned(), "a reservation")
    }

    /// How many seats the user holds or has bought in the session at `now`.
    pub(super) fn live_seats(&self, of: (UserId, SessionId), now: Timestamp) -> Looked<u32> {
        let live = wanted(self.live_seats.get(&of), "seats of a user")?;
        let is_live = |live: &&LiveSeats| live.until.is_none_or(|until| until > now);
        Ok(live.iter().filter(is_live).map(|live| live.seats).sum())
    }

    pub(super) fn is_spent(&self, ticket: &TicketRef) -> Looked<bool> {
        wanted(self.tickets.get(ticket).copied(), "a ticket")
    }

    /// What was held with a ticket up to `now`.
    pub(super) fn holds_of(&self, ticket: &TicketRef, now: Timestamp) -> Looked<TicketHolds> {
        let holds = wanted(self.ticket_holds.get(ticket), "holds of a ticket")?;
        let live = holds.iter().filter(|hold| hold.until.is_some_and(|until| until > now)).count();
        let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(TicketHolds { made: count(holds.len()), live: count(live) })
    }

    pub(super) fn earlier(&self, user: UserId, key: Option<&IdempotencyKey>) -> Looked<Earlier> {
        let Some(key) = key else { return Ok(Earlier::None) };
        let keys = wanted(self.keys.get(&user), "an idempotency key")?;
        let found = keys.iter().find(|(name, _)| *name == key.key);
        Ok(match &wanted(found, "an idempotency key")?.1 {
            None => Earlier::None,
            Some(row) if row.fingerprint != key.fingerprint => Earlier::Other,
            Some(row) => Earlier::Same(row.result),
        })
    }

    pub(super) fn refund(&self, of: PaymentId) -> Looked<Option<Refunded>> {
        wanted(self.refunds.get(&of).copied(), "a refund")
    }

    pub(super) fn result(&self, of: ResultOf) -> Looked<&ResultRow> {
        wanted(self.results.get(&of), "the result of a repeated request")
    }

    // ---- what commands change ----

    pub(super) fn set_seat(&mut self, id: SeatId, state: SeatState) -> Looked<()> {
        let Some(Some((session, seat))) = self.seats.get_mut(&id) else {
            return wanted(None, "a seat");
        };
        seat.state = state;
        if let (Some(hall), Some(place)) = (self.halls.get_mut(session), seat.number.checked_sub(1))
        {
            match state {
                SeatState::Available => hall.free.insert(place),
                SeatState::Held { .. } | SeatState::Released { .. } | SeatState::Sold { .. } => {
                    hall.free.remove(place);
                }
            }
        }
        self.changes.seats.insert(id, (*session, state));
        Ok(())
    }

    pub(super) fn set_balance(&mut self, user: UserId, balance: i64) {
        self.accounts.insert(user, balance);
        self.changes.accounts.insert(user, balance);
    }

    pub(super) fn add_reservation(&mut self, row: ReservationRow) {
        let ReservationRow { reservation, until, ticket } = &row;
        if let Some(live) = self.live_seats.get_mut(&(reservation.user, reservation.session)) {
            live.push(LiveSeats {
                reservation: reservation.id,
                seats: u32::try_from(reservation.items.len()).unwrap_or(u32::MAX),
                until: Some(*until),
            });
        }
        if let Some(holds) = ticket.as_ref().and_then(|of| self.ticket_holds.get_mut(of)) {
            holds.push(TicketHold { reservation: reservation.id, until: Some(*until) });
        }
        self.changes.reservations_made.insert(reservation.id, row.clone());
        self.reservations.insert(reservation.id, Some(row));
    }

    /// A reservation that was held is now paid, given back or over.
    pub(super) fn settle(&mut self, row: ReservationRow) {
        let reservation = &row.reservation;
        if let Some(live) = self.live_seats.get_mut(&(reservation.user, reservation.session)) {
            match reservation.state {
                crate::sales::ReservationState::Paid { .. } => live
                    .iter_mut()
                    .filter(|live| live.reservation == reservation.id)
                    .for_each(|live| live.until = None),
                _ => live.retain(|live| live.reservation != reservation.id),
            }
        }
        if let Some(holds) = row.ticket.as_ref().and_then(|of| self.ticket_holds.get_mut(of)) {
            let of_this = holds.iter_mut().filter(|hold| hold.reservation == reservation.id);
            of_this.for_each(|hold| hold.until = None);
        }
        match self.changes.reservations_made.get_mut(&reservation.id) {
            Some(made) => made.reservation = reservation.clone(),
            None => {
                self.changes.reservations_settled.insert(reservation.id, reservation.clone());
            }
        }
        self.reservations.insert(reservation.id, Some(row));
    }

    pub(super) fn add_refund(&mut self, new: NewRefund) {
        self.refunds.insert(new.refund.payment, Some(new.refund));
        self.changes.refunds.push(new);
    }

    pub(super) fn spend(&mut self, spent: super::SpentTicket) {
        self.tickets.insert(spent.ticket.clone(), true);
        self.changes.spent.push(spent);
    }

    /// Remembers what was done under a key; a repetition in the same batch finds it.
    pub(super) fn remember(
        &mut self,
        user: UserId,
        key: Option<&IdempotencyKey>,
        (of, row): (ResultOf, ResultRow),
        at: Timestamp,
    ) {
        let result = match of {
            ResultOf::Reserve(id) => id.get(),
            ResultOf::Pay(id) => id.get(),
            ResultOf::Charge(entry) => entry,
        };
        if key.is_some()
            && let Entry::Vacant(vacant) = self.results.entry(of)
        {
            vacant.insert(row);
        }
        self.remember_id(user, key, result, at);
    }

    /// The same where the rows have what a repetition is answered with by itself.
    pub(super) fn remember_id(
        &mut self,
        user: UserId,
        key: Option<&IdempotencyKey>,
        result: i64,
        at: Timestamp,
    ) {
        let Some(IdempotencyKey { key, fingerprint }) = key.cloned() else { return };
        let known = self.keys.entry(user).or_default();
        known.retain(|(name, _)| *name != key);
        known.push((key.clone(), Some(KeyRow { fingerprint, result })));
        self.changes.keys.push(super::NewKey { user, key, fingerprint, result, at });
    }
}

/// Whether a key was used before.
pub(super) enum Earlier {
    None,
    Same(i64),
    Other,
}

fn result_of(command: &Command, result: i64) -> Option<ResultOf> {
    match command {
        Command::Reserve(_) => ReservationId::new(result).map(ResultOf::Reserve),
        Command::Pay(_) => PaymentId::new(result).map(ResultOf::Pay),
        Command::Charge(_) => Some(ResultOf::Charge(result)),
        Command::Refund(_)
        | Command::Cancel(_)
        | Command::Expire(_)
        | Command::CallOff(_)
        | Command::LeaveQueue(_) => None,
    }
}

/// What was looked at must have been asked for.
fn wanted<T>(found: Option<T>, what: &'static str) -> Looked<T> {
    debug_assert!(found.is_some(), "{what} was looked at and not wanted");
    found.ok_or(Unwanted(what))
}
