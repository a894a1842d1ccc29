//! The rows of the sale: loading what commands want, saving what they have changed.

use std::collections::HashMap;

use boxoffice_domain::command::{
    Changes, KeyRow, LiveSeats, NewRefund, Payment, Refunded, ReservationRow, ResultOf, ResultRow,
    Rows, TicketHold, TicketRef, Wants,
};
use boxoffice_domain::ids::{PaymentId, ReservationId, SeatId, SessionId, UserId};
use boxoffice_domain::sales::{Reservation, Seat, SeatState};
use boxoffice_domain::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::rows::{self, Failure, column, items_to_text, reservation_state, seat_columns};
use crate::cloud_event::cloud_event;
use crate::store::catalog::Catalog;

type Op<T> = Result<T, Failure>;

/// Loads the reservations that are wanted, and adds their seats.
pub(super) fn peek(connection: &Connection, wants: &mut Wants, rows: &mut Rows) -> Op<()> {
    for id in std::mem::take(&mut wants.reservations) {
        let found = rows::reservation(connection, id)?;
        if let Some(row) = &found {
            wants.add_rows_of(row);
        }
        rows.put_reservation(id, found);
    }
    Ok(())
}

/// Loads the rest. There is one writer, so the seats are as they are in memory.
pub(super) fn load(
    connection: &Connection,
    catalog: &Catalog,
    wants: &Wants,
    rows: &mut Rows,
) -> Op<()> {
    if !wants.accounts.is_empty() {
        let mut find = connection.prepare_cached(BALANCE)?;
        for user in &wants.accounts {
            rows.put_account(*user, balance_by(&mut find, *user)?);
        }
    }
    let mut by_session: HashMap<SessionId, Vec<SeatId>> = HashMap::new();
    for (seat, session) in &wants.seats {
        by_session.entry(*session).or_default().push(*seat);
    }
    for (session, ids) in by_session {
        let found: Vec<Option<Seat>> = catalog
            .inventory_of(session)
            .map_or_else(|| vec![None; ids.len()], |inventory| inventory.find(&ids));
        for (id, seat) in ids.into_iter().zip(found) {
            rows.put_seat(id, seat.map(|seat| (session, seat)));
        }
    }
    if !wants.live_seats.is_empty() {
        let mut find = connection.prepare_cached(
            "SELECT id, seat_count, state, held_until FROM reservation INDEXED BY reservation_live \
             WHERE user_id = ?1 AND session_id = ?2 AND state <= 1",
        )?;
        for (user, session) in &wants.live_seats {
            let mut found = find.query([user.get(), session.get()])?;
            let mut live = Vec::new();
            while let Some(row) = found.next()? {
                live.push(LiveSeats {
                    reservation: rows::id(ReservationId::new, row.get(0)?, "reservation")?,
                    seats: row.get(1)?,
                    until: (row.get::<_, i64>(2)? == 0)
                        .then(|| row.get(3).map(Timestamp))
                        .transpose()?,
                });
            }
            rows.put_live_seats((*user, *session), live);
        }
    }
    if !wants.tickets.is_empty() {
        let mut find = connection.prepare_cached(SPENT)?;
        for ticket in &wants.tickets {
            rows.put_ticket(ticket.clone(), is_spent_by(&mut find, ticket)?);
        }
    }
    if !wants.holds_of.is_empty() {
        let mut find = connection.prepare_cached(
            "SELECT id, state, held_until FROM reservation INDEXED BY reservation_by_ticket \
             WHERE ticket_seq = ?1 AND ticket_id = ?2 AND queue = ?3",
        )?;
        for ticket in &wants.holds_of {
            let of = params![column(ticket.seq), ticket.id.0, ticket.queue.as_str()];
            let mut found = find.query(of)?;
            let mut holds = Vec::new();
            while let Some(row) = found.next()? {
                let is_held = row.get::<_, i64>(1)? == reservation_state::HELD;
                holds.push(TicketHold {
                    reservation: rows::id(ReservationId::new, row.get(0)?, "reservation")?,
                    until: is_held.then(|| row.get(2).map(Timestamp)).transpose()?,
                });
            }
            rows.put_ticket_holds(ticket.clone(), holds);
        }
    }
    for payment in &wants.refunds {
        rows.put_refund(*payment, refund(connection, *payment)?);
    }
    if !wants.keys.is_empty() {
        let mut find = connection.prepare_cached(
            "SELECT fingerprint, result_id FROM idempotency WHERE user_id = ?1 AND key = ?2",
        )?;
        for (user, key) in &wants.keys {
            let found: Option<(Vec<u8>, i64)> =
                find.query_row(params![user.get(), key], |row| row.try_into()).optional()?;
            let found = found
                .map(|(fingerprint, result)| {
                    Ok::<_, Failure>(KeyRow { fingerprint: rows::digest(&fingerprint)?, result })
                })
                .transpose()?;
            rows.put_key(*user, key.clone(), found);
        }
    }
    Ok(())
}

/// Loads what repeated requests are answered with. What is missing leaves its command without an
/// answer.
pub(super) fn load_results(
    connection: &Connection,
    wanted: &[ResultOf],
    rows: &mut Rows,
) -> Op<()> {
    for of in wanted {
        let found = match *of {
            ResultOf::Reserve(id) => rows::reservation(connection, id)?.map(ResultRow::Reserve),
            ResultOf::Pay(id) => payment(connection, id)?.map(ResultRow::Pay),
            ResultOf::Charge(entry) => connection
                .prepare_cached("SELECT balance FROM points_entry WHERE id = ?1")?
                .query_row([entry], |row| row.get(0))
                .optional()?
                .map(ResultRow::Charge),
        };
        if let Some(found) = found {
            rows.put_result(*of, found);
        }
    }
    Ok(())
}

fn refund(connection: &Connection, payment: PaymentId) -> Op<Option<Refunded>> {
    let found = connection
        .prepare_cached(
            "SELECT payment_id, reservation_id, amount, refunded_at FROM refund \
             WHERE payment_id = ?1",
        )?
        .query_row([payment.get()], |row| row.try_into())
        .optional()?;
    Ok(found.map(rows::refund).transpose()?)
}

pub(super) fn payment(connection: &Connection, id: PaymentId) -> Op<Option<Payment>> {
    let mut statement = connection
        .prepare_cached("SELECT reservation_id, amount, paid_at FROM payment WHERE id = ?1")?;
    let found: Option<(i64, i64, i64)> =
        statement.query_row([id.get()], |row| row.try_into()).optional()?;
    found
        .map(|(reservation, amount, at)| {
            Ok(Payment {
                id,
                reservation: rows::id(ReservationId::new, reservation, "reservation")?,
                amount,
                paid_at: Timestamp(at),
            })
        })
        .transpose()
}

const SPENT: &str = "SELECT 1 FROM spent_ticket WHERE queue = ?1 AND seq = ?2 AND ticket_id = ?3";
const BALANCE: &str = "SELECT balance FROM account WHERE user_id = ?1";

/// Whether a ticket is spent.
pub(super) fn is_spent(connection: &Connection, ticket: &TicketRef) -> Op<bool> {
    is_spent_by(&mut *connection.prepare_cached(SPENT)?, ticket)
}

fn is_spent_by(find: &mut Statement<'_>, ticket: &TicketRef) -> Op<bool> {
    Ok(find.exists(params![ticket.queue.as_str(), column(ticket.seq), ticket.id.0])?)
}

/// Returns the balance of a user; 0 for one never heard of.
pub(super) fn balance(connection: &Connection, user: UserId) -> Op<i64> {
    balance_by(&mut *connection.prepare_cached(BALANCE)?, user)
}

fn balance_by(find: &mut Statement<'_>, user: UserId) -> Op<i64> {
    Ok(find.query_row([user.get()], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Writes all that has changed. `last_event` is the last id in the outbox.
pub(super) fn save(connection: &Connection, changes: &Changes, last_event: &mut i64) -> Op<()> {
    save_reservations(connection, changes)?;
    save_seats(connection, changes)?;
    if !changes.accounts.is_empty() {
        let mut set = connection.prepare_cached(
            "INSERT INTO account (user_id, balance) VALUES (?1, ?2) \
             ON CONFLICT (user_id) DO UPDATE SET balance = excluded.balance",
        )?;
        for (user, balance) in &changes.accounts {
            set.execute([user.get(), *balance])?;
        }
    }
    if !changes.entries.is_empty() {
        let mut add = connection.prepare_cached(
            "INSERT INTO points_entry (id, user_id, amount, balance, kind, payment_id, at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for entry in &changes.entries {
            let (kind, payment) = rows::entry_columns(entry.kind);
            let (user, at) = (entry.user.get(), entry.at.0);
            add.execute(params![entry.id, user, entry.amount, entry.balance, kind, payment, at])?;
        }
    }
    if !changes.payments.is_empty() {
        let mut add = connection.prepare_cached(
            "INSERT INTO payment (id, reservation_id, user_id, amount, paid_at) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for (payment, user) in &changes.payments {
            let Payment { id, reservation, amount, paid_at } = payment;
            add.execute([id.get(), reservation.get(), user.get(), *amount, paid_at.0])?;
        }
    }
    for NewRefund { refund, user, session, called_off } in &changes.refunds {
        let Refunded { payment, reservation, amount, refunded_at } = refund;
        connection
            .prepare_cached(
                "INSERT INTO refund (payment_id, reservation_id, user_id, session_id, amount, \
                 called_off, refunded_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                payment.get(),
                reservation.get(),
                user.get(),
                session.get(),
                amount,
                called_off,
                refunded_at.0,
            ])?;
    }
    if !changes.spent.is_empty() {
        let mut add = connection.prepare_cached(
            "INSERT INTO spent_ticket (queue, seq, ticket_id, payment_id, at) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for spent in &changes.spent {
            let (ticket, payment) = (&spent.ticket, spent.payment.map(PaymentId::get));
            let (queue, seq) = (ticket.queue.as_str(), column(ticket.seq));
            add.execute(params![queue, seq, ticket.id.0, payment, spent.at.0])?;
        }
    }
    for (queue, seq) in &changes.left {
        connection
            .prepare_cached("INSERT OR IGNORE INTO queue_left (queue, seq) VALUES (?1, ?2)")?
            .execute(params![queue.as_str(), column(*seq)])?;
    }
    if !changes.keys.is_empty() {
        let mut add = connection.prepare_cached(
            "INSERT INTO idempotency (user_id, key, fingerprint, result_id, at) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for key in &changes.keys {
            let (user, at) = (key.user.get(), key.at.0);
            add.execute(params![user, key.key, key.fingerprint, key.result, at])?;
        }
    }
    if !changes.events.is_empty() {
        let mut add = connection
            .prepare_cached("INSERT INTO outbox (id, topic, key, body) VALUES (?1, ?2, ?3, ?4)")?;
        for (event, at) in &changes.events {
            *last_event += 1;
            let body = cloud_event(event, *at);
            add.execute(params![*last_event, event.topic().name(), event.key(), body])?;
        }
    }
    Ok(())
}

fn save_reservations(connection: &Connection, changes: &Changes) -> Op<()> {
    if !changes.reservations_made.is_empty() {
        let mut add = connection.prepare_cached(
            "INSERT INTO reservation (id, user_id, concert_id, session_id, items, seat_count, \
             total, created_at, held_until, state, payment_id, queue, ticket_seq, ticket_id) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?;
        for (id, ReservationRow { reservation, until, ticket }) in &changes.reservations_made {
            let (state, payment) = rows::reservation_columns(reservation.state);
            add.execute(params![
                id.get(),
                reservation.user.get(),
                reservation.concert.get(),
                reservation.session.get(),
                items_to_text(&reservation.items),
                reservation.items.len() as i64,
                reservation.total(),
                reservation.created_at.0,
                until.0,
                state,
                payment,
                ticket.as_ref().map(|ticket| ticket.queue.as_str()),
                ticket.as_ref().map(|ticket| column(ticket.seq)),
                ticket.as_ref().map(|ticket| ticket.id.0),
            ])?;
        }
    }
    if !changes.reservations_settled.is_empty() {
        let mut set = connection.prepare_cached(
            "UPDATE reservation SET state = ?2, payment_id = ?3 WHERE id = ?1 AND (state = 0 \
             OR (state = 1 AND ?2 = 4))",
        )?;
        for (id, Reservation { state, .. }) in &changes.reservations_settled {
            let (state, payment) = rows::reservation_columns(*state);
            if set.execute(params![id.get(), state, payment])? != 1 {
                return Err(Failure::Corrupt(format!("reservation {id} is settled already")));
            }
        }
    }
    Ok(())
}

fn save_seats(connection: &Connection, changes: &Changes) -> Op<()> {
    if changes.seats.is_empty() {
        return Ok(());
    }
    let mut set = connection.prepare_cached(
        "UPDATE seat SET state = ?3, reservation_id = ?4, held_until = ?5 \
         WHERE id BETWEEN ?1 AND ?2",
    )?;
    let seats: Vec<(SeatId, SeatState)> =
        changes.seats.iter().map(|(seat, (_, state))| (*seat, *state)).collect();
    // Friends sit side by side: seats next to each other are one statement.
    for run in seats.chunk_by(|a, b| b.0.get() - a.0.get() == 1 && a.1 == b.1) {
        let (Some((first, state)), Some((last, _))) = (run.first(), run.last()) else { continue };
        let (number, reservation, until) = seat_columns(*state);
        let values = params![first.get(), last.get(), number, reservation, until];
        if set.execute(values)? != run.len() {
            return Err(Failure::Corrupt(format!("no rows for seats {first} to {last}")));
        }
    }
    Ok(())
}

/// Returns the holds that ran out by `now`, at most `max` of them, oldest first.
pub(super) fn due(connection: &Connection, now: Timestamp, max: u32) -> Op<Vec<ReservationId>> {
    let mut find = connection.prepare_cached(
        "SELECT id FROM reservation WHERE state = 0 AND held_until <= ?1 \
         ORDER BY held_until LIMIT ?2",
    )?;
    let mut found = find.query(params![now.0, max])?;
    let mut due = Vec::new();
    while let Some(row) = found.next()? {
        due.push(rows::id(ReservationId::new, row.get(0)?, "reservation")?);
    }
    Ok(due)
}

/// Lets everybody see the seats that have changed.
pub(super) fn publish(catalog: &Catalog, changes: &Changes) {
    let mut by_session: HashMap<SessionId, Vec<(SeatId, SeatState)>> = HashMap::new();
    for (seat, (session, state)) in &changes.seats {
        by_session.entry(*session).or_default().push((*seat, *state));
    }
    for (session, changes) in by_session {
        if let Some(inventory) = catalog.inventory_of(session) {
            inventory.publish(&changes);
        }
    }
}
