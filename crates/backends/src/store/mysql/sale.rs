//! The sale as statements: what commands want is asked for in few of them, and what they have
//! changed is saved in few, each sent together.

use std::collections::HashMap;
use std::fmt::Write;

use boxoffice_domain::command::{
    Changes, KeyRow, LiveSeats, ReservationRow, ResultOf, ResultRow, RowId, Rows, TicketHold,
    TicketRef, Wants,
};
use boxoffice_domain::ids::{PaymentId, ReservationId, SeatId, SessionId, UserId};
use boxoffice_domain::sales::{ReservationState, Seat, SeatState};
use boxoffice_domain::time::Timestamp;
use mysql_async::{Row, Value};

use super::pool::{Packet, Ran};
use super::publication::SeatShown;
use super::rows::{self, Failure, column, items_to_text, reservation_columns, seat_columns, take};
use super::sql::{self, LIST_MAX, filled};
use crate::cloud_event::cloud_event;

type Op<T> = Result<T, Failure>;

/// Into so many parts the events are divided by their key, for several relays to share them.
const SHARDS: i64 = 16;

/// The name of the counter of reservations.
pub(super) const RESERVATIONS: &str = "reservation";
/// The name of the counter of payments.
pub(super) const PAYMENTS: &str = "payment";
/// The name of the counter of entries in the ledger.
pub(super) const ENTRIES: &str = "entry";

// ---- texts ----

/// `1,2,3`
fn list(ids: impl IntoIterator<Item = i64>) -> String {
    let mut text = String::new();
    for id in ids {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(itoa::Buffer::new().format(id));
    }
    text
}

/// Adds a value to a list, or the column where there is none.
fn value_or(text: &mut String, value: Option<i64>, column: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    match value {
        Some(value) => text.push_str(itoa::Buffer::new().format(value)),
        None => text.push_str(column),
    }
}

/// Rows in brackets, built value by value.
#[derive(Default)]
struct RowsText(String);

impl RowsText {
    fn row(&mut self) -> &mut Self {
        self.0.push_str(if self.0.is_empty() { "(" } else { ",(" });
        self
    }

    fn before_value(&mut self) {
        if !self.0.ends_with('(') {
            self.0.push(',');
        }
    }

    fn int(&mut self, value: i64) -> &mut Self {
        self.before_value();
        self.0.push_str(itoa::Buffer::new().format(value));
        self
    }

    fn optional(&mut self, value: Option<i64>) -> &mut Self {
        match value {
            Some(value) => self.int(value),
            None => {
                self.before_value();
                self.0.push_str("NULL");
                self
            }
        }
    }

    /// Any text, escaped by the client library. The session's `sql_mode` leaves backslashes their
    /// meaning.
    fn text(&mut self, value: &str) -> &mut Self {
        self.before_value();
        self.0.push_str(&Value::from(value).as_sql(false));
        self
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.before_value();
        self.0.push_str("X'");
        for byte in value {
            let _ = write!(self.0, "{byte:02x}");
        }
        self.0.push('\'');
        self
    }

    fn end(&mut self) {
        self.0.push(')');
    }
}

/// The rows of many, as text.
fn rows_text<T>(of: impl IntoIterator<Item = T>, row: impl Fn(&mut RowsText, T)) -> String {
    let mut text = RowsText::default();
    for item in of {
        row(text.row(), item);
        text.end();
    }
    text.0
}

/// Parts of a sorted list, none too long for one statement.
fn parts<T: Copy>(of: impl IntoIterator<Item = T>) -> Vec<Vec<T>> {
    let all: Vec<T> = of.into_iter().collect();
    all.chunks(LIST_MAX).map(<[T]>::to_vec).collect()
}

// ---- looking, without locks ----

/// What the first statements look for.
enum Peeked {
    Accounts,
    Reservations,
}

/// Statements that look which of these users have accounts, and at the reservations that are wanted.
pub(super) struct Peek {
    pub(super) packet: Packet,
    asked: Vec<Peeked>,
    reservations: Vec<ReservationId>,
}

pub(super) fn peek(users: &[UserId], reservations: Vec<ReservationId>) -> Peek {
    let mut peek = Peek { packet: Packet::default(), asked: Vec::new(), reservations };
    for part in parts(users.iter().map(|user| user.get())) {
        peek.packet.push(&filled(sql::ACCOUNTS_KNOWN, &[&list(part)]));
        peek.asked.push(Peeked::Accounts);
    }
    for part in parts(peek.reservations.iter().map(|id| id.get())) {
        peek.packet.push(&filled(sql::RESERVATIONS, &[&list(part)]));
        peek.asked.push(Peeked::Reservations);
    }
    peek
}

impl Peek {
    /// Puts what was found where it belongs; returns the users who have accounts.
    pub(super) fn read(
        self,
        found: Vec<Ran>,
        wants: &mut Wants,
        into: &mut Rows,
    ) -> Op<Vec<UserId>> {
        let mut have_accounts = Vec::new();
        for id in self.reservations {
            into.put_reservation(id, None);
        }
        for (asked, ran) in self.asked.iter().zip(found) {
            for mut row in ran.rows {
                match asked {
                    Peeked::Accounts => {
                        have_accounts.push(rows::id(UserId::new, take(&mut row, 0)?, "user")?);
                    }
                    Peeked::Reservations => {
                        let (id, found) = reservation(&mut row)?;
                        wants.add_rows_of(&found);
                        into.put_reservation(id, Some(found));
                    }
                }
            }
        }
        Ok(have_accounts)
    }
}

fn seat(row: &mut Row) -> Op<(SessionId, Seat)> {
    let session = rows::id(SessionId::new, take(row, 6)?, "session")?;
    Ok((session, rows::seat(row)?))
}

fn reservation(row: &mut Row) -> Op<(ReservationId, ReservationRow)> {
    let id = rows::id(ReservationId::new, take(row, 0)?, "reservation")?;
    Ok((id, rows::reservation(id, row, 1)?))
}

// ---- locking ----

/// What a statement of a [`Load`] asks for.
enum Asked {
    Nothing,
    CalledOff,
    Accounts(Vec<UserId>),
    Seats(Vec<SeatId>),
    Reservations(Vec<ReservationId>),
    LiveSeats,
    Tickets,
    TicketHolds,
    Refunds,
    Keys,
}

/// Statements that begin a transaction, lock what is decided on, and read the rest under these locks.
///
/// Locks come in one order everywhere: accounts, seats, reservations, each by its primary key. A row
/// that is locked already is left out instead of waited for. An account stands for all that its user
/// does, so whoever has it finds the user's keys, tickets and seats as they stay.
pub(super) struct Load {
    pub(super) packet: Packet,
    asked: Vec<Asked>,
}

impl Load {
    fn push(&mut self, statement: &str, asked: Asked) {
        self.packet.push(statement);
        self.asked.push(asked);
    }
}

/// `absent` are users who have no account yet, in the order of their ids.
pub(super) fn load(wants: &Wants, absent: &[UserId], rows: &Rows) -> Load {
    let mut load = Load { packet: Packet::default(), asked: Vec::new() };
    load.push("START TRANSACTION", Asked::Nothing);
    for part in parts(absent.iter().copied()) {
        let made = rows_text(part, |row, user| {
            row.int(user.get()).int(0);
        });
        load.push(&filled(sql::ACCOUNTS_MAKE, &[&made]), Asked::Nothing);
    }
    for part in parts(wants.users.iter().copied()) {
        let text = filled(sql::ACCOUNTS_LOCK, &[&list(part.iter().map(|user| user.get()))]);
        load.push(&text, Asked::Accounts(part));
    }
    for part in parts(wants.seats.keys().copied()) {
        let text = filled(sql::SEATS_LOCK, &[&list(part.iter().map(|seat| seat.get()))]);
        load.push(&text, Asked::Seats(part));
    }
    // Another instance may have called a session off that is on sale in memory.
    for part in parts(wants.sessions.iter().map(|(_, session)| session.get())) {
        load.push(&filled(sql::CALLED_OFF_OF, &[&list(part)]), Asked::CalledOff);
    }
    let known = |id: &&ReservationId| rows.has_reservation(**id);
    for part in parts(wants.reservations.iter().filter(known).copied()) {
        let text = filled(sql::RESERVATIONS_LOCK, &[&list(part.iter().map(|id| id.get()))]);
        load.push(&text, Asked::Reservations(part));
    }
    for part in parts(wants.live_seats.iter().copied()) {
        let states = part.iter().flat_map(|of| [(*of, 0), (*of, 1)]);
        let of = rows_text(states, |row, ((user, session), state)| {
            row.int(user.get()).int(session.get()).int(state);
        });
        load.push(&filled(sql::LIVE_SEATS, &[&of]), Asked::LiveSeats);
    }
    for part in parts(wants.tickets.iter()) {
        let of = rows_text(part, |row, ticket: &TicketRef| {
            row.text(ticket.queue.as_str()).int(column(ticket.seq)).bytes(&ticket.id.0);
        });
        load.push(&filled(sql::TICKETS_SPENT, &[&of]), Asked::Tickets);
    }
    for part in parts(wants.holds_of.iter()) {
        let of = rows_text(part, |row, ticket: &TicketRef| {
            row.int(column(ticket.seq)).bytes(&ticket.id.0);
        });
        load.push(&filled(sql::TICKETS_HOLDS, &[&of]), Asked::TicketHolds);
    }
    for part in parts(wants.refunds.iter().map(|payment| payment.get())) {
        load.push(&filled(sql::REFUNDS, &[&list(part)]), Asked::Refunds);
    }
    for part in parts(wants.keys.iter()) {
        let of = rows_text(part, |row, (user, key): &(UserId, String)| {
            row.int(user.get()).text(key);
        });
        load.push(&filled(sql::KEYS_FIND, &[&of]), Asked::Keys);
    }
    load
}

impl Load {
    /// Puts what was found where it belongs; returns the seats that were not found, which either do
    /// not exist or are locked, and those that were.
    pub(super) fn read(
        self,
        found: Vec<Ran>,
        wants: &Wants,
        into: &mut Rows,
    ) -> Op<(Vec<SeatId>, Vec<SeatShown>)> {
        let (mut missing, mut seen) = (Vec::new(), Vec::new());
        let mut live: HashMap<(UserId, SessionId), Vec<LiveSeats>> =
            wants.live_seats.iter().map(|of| (*of, Vec::new())).collect();
        for ticket in &wants.tickets {
            into.put_ticket(ticket.clone(), false);
        }
        let mut holds: HashMap<TicketRef, Vec<TicketHold>> = HashMap::new();
        for payment in &wants.refunds {
            into.put_refund(*payment, None);
        }
        let mut keys: HashMap<(UserId, String), KeyRow> = HashMap::new();
        for (asked, ran) in self.asked.into_iter().zip(found) {
            let mut ran = ran.rows;
            match asked {
                Asked::Nothing => {}
                Asked::CalledOff => {
                    for row in &mut ran {
                        let session = rows::id(SessionId::new, take(row, 0)?, "session")?;
                        into.put_called_off(session);
                    }
                }
                Asked::Accounts(mut users) => {
                    for row in &mut ran {
                        let user = rows::id(UserId::new, take(row, 0)?, "user")?;
                        users.retain(|other| *other != user);
                        into.put_account(user, take(row, 1)?);
                    }
                    // All of them have accounts: these are locked.
                    for user in users {
                        into.put_account(user, 0);
                        into.put_locked(RowId::Account(user));
                    }
                }
                Asked::Seats(mut seats) => {
                    for row in &mut ran {
                        let (session, seat) = seat(row)?;
                        if let Ok(index) = seats.binary_search(&seat.id) {
                            seats.remove(index);
                        }
                        into.put_seat(seat.id, Some((session, seat)));
                        seen.push((seat.id, session, seat.state));
                    }
                    for seat in &seats {
                        into.put_seat(*seat, None);
                    }
                    missing.extend(seats);
                }
                Asked::Reservations(mut reservations) => {
                    for row in &mut ran {
                        let (id, found) = reservation(row)?;
                        reservations.retain(|other| *other != id);
                        into.put_reservation(id, Some(found));
                    }
                    for id in reservations {
                        into.put_locked(RowId::Reservation(id));
                    }
                }
                Asked::LiveSeats => {
                    for row in &mut ran {
                        let user = rows::id(UserId::new, take(row, 0)?, "user")?;
                        let session = rows::id(SessionId::new, take(row, 1)?, "session")?;
                        let held = take::<i64>(row, 4)? == rows::reservation_state::HELD;
                        live.entry((user, session)).or_default().push(LiveSeats {
                            reservation: rows::id(
                                ReservationId::new,
                                take(row, 2)?,
                                "reservation",
                            )?,
                            seats: take(row, 3)?,
                            until: if held { Some(Timestamp(take(row, 5)?)) } else { None },
                        });
                    }
                }
                Asked::Tickets => {
                    for row in &mut ran {
                        let ticket = TicketRef {
                            queue: rows::queue_name(&take::<String>(row, 0)?)?,
                            seq: rows::count(take(row, 1)?, "seq")?,
                            id: rows::ticket_id(&take::<Vec<u8>>(row, 2)?)?,
                        };
                        into.put_ticket(ticket, true);
                    }
                }
                Asked::TicketHolds => {
                    for row in &mut ran {
                        let ticket = TicketRef {
                            queue: rows::queue_name(&take::<String>(row, 0)?)?,
                            seq: rows::count(take(row, 1)?, "seq")?,
                            id: rows::ticket_id(&take::<Vec<u8>>(row, 2)?)?,
                        };
                        let reservation = take(row, 3)?;
                        let is_held = take::<i64>(row, 4)? == rows::reservation_state::HELD;
                        let until = Timestamp(take(row, 5)?);
                        holds.entry(ticket).or_default().push(TicketHold {
                            reservation: rows::id(ReservationId::new, reservation, "reservation")?,
                            until: is_held.then_some(until),
                        });
                    }
                }
                Asked::Refunds => {
                    for row in &mut ran {
                        let columns = (take(row, 0)?, take(row, 1)?, take(row, 2)?, take(row, 3)?);
                        let refund = rows::refund(columns)?;
                        into.put_refund(refund.payment, Some(refund));
                    }
                }
                Asked::Keys => {
                    for row in &mut ran {
                        let user = rows::id(UserId::new, take(row, 0)?, "user")?;
                        let key = String::from_utf8(take(row, 1)?)
                            .map_err(|error| Failure::Corrupt(format!("a key: {error}")))?;
                        let fingerprint = rows::digest(&take::<Vec<u8>>(row, 2)?)?;
                        let result = take(row, 3)?;
                        keys.insert((user, key), KeyRow { fingerprint, result });
                    }
                }
            }
        }
        for (of, live) in live {
            into.put_live_seats(of, live);
        }
        for ticket in &wants.holds_of {
            into.put_ticket_holds(ticket.clone(), holds.remove(ticket).unwrap_or_default());
        }
        for of in &wants.keys {
            into.put_key(of.0, of.1.clone(), keys.remove(of));
        }
        Ok((missing, seen))
    }
}

/// Statements that look at these seats as they were committed last.
pub(super) fn look_at(seats: &[SeatId]) -> Packet {
    let mut packet = Packet::default();
    for part in parts(seats.iter().map(|seat| seat.get())) {
        packet.push(&filled(sql::SEATS, &[&list(part)]));
    }
    packet
}

/// Puts seats in that another transaction has locked.
pub(super) fn read_locked(found: Vec<Ran>, into: &mut Rows) -> Op<()> {
    for mut row in found.into_iter().flat_map(|ran| ran.rows) {
        let (session, seat) = seat(&mut row)?;
        into.put_seat(seat.id, Some((session, seat)));
        into.put_locked(RowId::Seat(seat.id));
    }
    Ok(())
}

// ---- what repeated requests are answered with ----

/// Statements that load what repeated requests are answered with.
pub(super) fn results(wanted: &[ResultOf]) -> Packet {
    let (mut reservations, mut payments, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for of in wanted {
        match of {
            ResultOf::Reserve(id) => reservations.push(id.get()),
            ResultOf::Pay(id) => payments.push(id.get()),
            ResultOf::Charge(id) => entries.push(*id),
        }
    }
    let mut packet = Packet::default();
    // Each once, so that it is known which answer is whose; none is 0.
    for (text, ids) in
        [(sql::RESERVATIONS, reservations), (sql::PAYMENTS, payments), (sql::ENTRIES, entries)]
    {
        let ids = if ids.is_empty() { vec![0] } else { ids };
        packet.push(&filled(text, &[&list(ids)]));
    }
    packet
}

/// Puts the results where they belong.
pub(super) fn read_results(found: Vec<Ran>, into: &mut Rows) -> Op<()> {
    for (index, ran) in found.into_iter().enumerate() {
        for mut row in ran.rows {
            match index {
                0 => {
                    let (id, found) = reservation(&mut row)?;
                    into.put_result(ResultOf::Reserve(id), ResultRow::Reserve(found));
                }
                1 => {
                    let payment = rows::payment(&mut row)?;
                    into.put_result(ResultOf::Pay(payment.id), ResultRow::Pay(payment));
                }
                _ => {
                    let entry = ResultOf::Charge(take(&mut row, 0)?);
                    into.put_result(entry, ResultRow::Charge(take(&mut row, 1)?));
                }
            }
        }
    }
    Ok(())
}

// ---- saving ----

/// Statements that save changes, and how many rows each of them must find.
pub(super) struct Saving {
    pub(super) packet: Packet,
    expected: Vec<Option<u64>>,
}

impl Saving {
    fn push(&mut self, statement: &str, expected: Option<usize>) {
        self.packet.push(statement);
        self.expected.push(expected.map(|count| count as u64));
    }

    /// Whether all rows were there that were changed. They are under our locks, so nothing but a
    /// mistake or another program can have taken one away.
    pub(super) fn check(&self, ran: &[Ran]) -> Op<()> {
        for (index, (expected, ran)) in self.expected.iter().zip(ran).enumerate() {
            if expected.is_some_and(|expected| expected != ran.found) {
                return Err(Failure::Corrupt(format!(
                    "statement {index} of {} found {} rows, not {expected:?}",
                    self.packet.len(),
                    ran.found
                )));
            }
        }
        Ok(())
    }
}

pub(super) fn saving(changes: &Changes) -> Saving {
    let mut saving = Saving { packet: Packet::default(), expected: Vec::new() };
    save_reservations(changes, &mut saving);
    save_seats(changes, &mut saving);
    save_points(changes, &mut saving);
    let spent = rows_text(&changes.spent, |row, spent| {
        let ticket = &spent.ticket;
        row.text(ticket.queue.as_str()).int(column(ticket.seq)).bytes(&ticket.id.0);
        row.optional(spent.payment.map(PaymentId::get)).int(spent.at.0);
    });
    let left = rows_text(&changes.left, |row, (queue, seq)| {
        row.text(queue.as_str()).int(column(*seq));
    });
    let keys = rows_text(&changes.keys, |row, key| {
        row.int(key.user.get()).text(&key.key).bytes(&key.fingerprint);
        row.int(key.result).int(key.at.0);
    });
    let events = rows_text(&changes.events, |row, (event, at)| {
        row.int(event.key().rem_euclid(SHARDS)).text(event.topic().name()).int(event.key());
        row.text(&cloud_event(event, *at));
    });
    for (text, rows) in [
        (sql::TICKETS_SPEND, spent),
        (sql::LINES_LEAVE, left),
        (sql::KEYS_ADD, keys),
        (sql::EVENTS_ADD, events),
    ] {
        if !rows.is_empty() {
            saving.push(&filled(text, &[&rows]), None);
        }
    }
    saving
}

fn save_reservations(changes: &Changes, saving: &mut Saving) {
    if !changes.reservations_made.is_empty() {
        let made = rows_text(&changes.reservations_made, |row, (id, made)| {
            let ReservationRow { reservation, until, ticket } = made;
            let (state, payment) = reservation_columns(reservation.state);
            row.int(id.get()).int(reservation.user.get()).int(reservation.concert.get());
            row.int(reservation.session.get()).text(&items_to_text(&reservation.items));
            row.int(reservation.items.len() as i64).int(reservation.total());
            row.int(reservation.created_at.0).int(until.0).int(state).optional(payment);
            match ticket {
                Some(ticket) => {
                    row.text(ticket.queue.as_str()).int(column(ticket.seq)).bytes(&ticket.id.0)
                }
                None => row.optional(None).optional(None).optional(None),
            };
        });
        saving.push(&filled(sql::RESERVATIONS_ADD, &[&made]), None);
    }
    let (mut paid, mut cancelled, mut expired) = (Vec::new(), Vec::new(), Vec::new());
    let mut refunded = Vec::new();
    for (id, reservation) in &changes.reservations_settled {
        match reservation.state {
            ReservationState::Paid { payment } => paid.push((id.get(), payment.get())),
            ReservationState::Refunded { payment } => refunded.push((id.get(), payment.get())),
            ReservationState::Cancelled => cancelled.push(id.get()),
            ReservationState::Expired => expired.push(id.get()),
            // What is still held has not been settled.
            ReservationState::Held { .. } => {}
        }
    }
    for (text, with_payments) in
        [(sql::RESERVATIONS_PAY, paid), (sql::RESERVATIONS_REFUND, refunded)]
    {
        for part in parts(with_payments) {
            let ids = list(part.iter().map(|(id, _)| *id));
            let payments = list(part.iter().map(|(_, payment)| *payment));
            let texts = [&ids, &payments, &ids].map(String::as_str);
            saving.push(&filled(text, &texts), Some(part.len()));
        }
    }
    for (text, ids) in [(sql::RESERVATIONS_CANCEL, cancelled), (sql::RESERVATIONS_EXPIRE, expired)]
    {
        for part in parts(ids) {
            let count = part.len();
            saving.push(&filled(text, &[&list(part)]), Some(count));
        }
    }
}

fn save_seats(changes: &Changes, saving: &mut Saving) {
    let seats: Vec<(i64, SeatState)> =
        changes.seats.iter().map(|(seat, (_, state))| (seat.get(), *state)).collect();
    // They stand in the order of their ids, so each finds its values by binary search.
    for part in seats.chunks(LIST_MAX) {
        let ids = list(part.iter().map(|(seat, _)| *seat));
        let (mut states, mut owners, mut ends) = (String::new(), String::new(), String::new());
        for (_, state) in part {
            let (state, owner, end) = seat_columns(*state);
            value_or(&mut states, Some(state), "state");
            // What no longer means anything stays as it was.
            value_or(&mut owners, owner, "reservation_id");
            value_or(&mut ends, end, "held_until");
        }
        let texts = [&ids, &states, &ids, &owners, &ids, &ends, &ids].map(String::as_str);
        saving.push(&filled(sql::SEATS_SET, &texts), Some(part.len()));
    }
}

fn save_points(changes: &Changes, saving: &mut Saving) {
    if !changes.payments.is_empty() {
        let made = rows_text(&changes.payments, |row, (payment, user)| {
            row.int(payment.id.get()).int(payment.reservation.get()).int(user.get());
            row.int(payment.amount).int(payment.paid_at.0);
        });
        saving.push(&filled(sql::PAYMENTS_ADD, &[&made]), None);
    }
    if !changes.refunds.is_empty() {
        let made = rows_text(&changes.refunds, |row, new| {
            let refund = &new.refund;
            row.int(refund.payment.get()).int(refund.reservation.get()).int(new.user.get());
            row.int(new.session.get()).int(refund.amount).int(i64::from(new.called_off));
            row.int(refund.refunded_at.0);
        });
        saving.push(&filled(sql::REFUNDS_ADD, &[&made]), None);
    }
    if !changes.accounts.is_empty() {
        let balances = rows_text(&changes.accounts, |row, (user, balance)| {
            row.int(user.get()).int(*balance);
        });
        saving.push(&filled(sql::ACCOUNTS_SET, &[&balances]), None);
    }
    if !changes.entries.is_empty() {
        let made = rows_text(&changes.entries, |row, entry| {
            let (kind, payment) = rows::entry_columns(entry.kind);
            row.int(entry.id).int(entry.user.get()).int(entry.amount).int(entry.balance);
            row.int(kind).optional(payment).int(entry.at.0);
        });
        saving.push(&filled(sql::ENTRIES_ADD, &[&made]), None);
    }
}
