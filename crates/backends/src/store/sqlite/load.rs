//! Reads whole tables: at the start, and for operators.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::command::Ids;
use boxoffice_domain::ids::{ConcertId, QueueName, SeatId, SessionId, TicketId, UserId};
use boxoffice_domain::queue::{Admission, Bucket, Drawing, LineParts, QueueSettings, Ticket};
use boxoffice_domain::sales::{Concert, Seat, Session};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{self, Failure, column};
use crate::store::catalog::{Catalog, Inventory};
use crate::store::chain;
use crate::store::digest::Digest;
use crate::store::draws::{self, DrawSeed};
use crate::store::plans::{self, StoredPlan};
use crate::store::types::{ALIAS_KEPT_MS, Alias, SpentBy, StoredQueue};

type Load<T> = Result<T, Failure>;

/// Settings that tell the last ids that were given, where their rows may be gone.
pub(super) const LAST_CONCERT: &str = "last.concert";
pub(super) const LAST_SESSION: &str = "last.session";
pub(super) const LAST_SEAT: &str = "last.seat";

/// The highest ids in use. They only rise; a rolled-back transaction leaves a gap.
#[derive(Debug, Default)]
pub(super) struct LastIds {
    pub(super) concert: i64,
    pub(super) session: i64,
    pub(super) seat: i64,
    /// The last entry of the ledger that a seed has made.
    pub(super) seeded_entry: i64,
    pub(super) outbox: i64,
}

/// All that the writer keeps in memory. `other` is a second connection to the same file.
pub(super) fn everything(
    connection: &Connection,
    other: Connection,
) -> Load<(Catalog, LastIds, Ids)> {
    let concerts = concerts(connection)?;
    let mut seats = seats(connection, other)?;
    let mut inventories = Vec::new();
    let plans = plans(connection)?;
    let mut statement =
        connection.prepare("SELECT id, concert_id, starts_at, plan FROM session ORDER BY id")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let session = Session {
            id: rows::id(SessionId::new, row.get(0)?, "session")?,
            concert: rows::id(ConcertId::new, row.get(1)?, "concert")?,
            starts_at: Timestamp(row.get(2)?),
        };
        let plan = match row.get::<_, Option<Vec<u8>>>(3)? {
            None => None,
            Some(digest) => {
                let digest = chain::digest_of(&digest)?;
                let plan = plans.get(&digest).cloned();
                Some(plan.ok_or_else(|| Failure::Corrupt(plans::missing(session.id, digest)))?)
            }
        };
        let seats = seats.remove(&session.id).unwrap_or_default();
        inventories.push(Inventory::new(session, seats).with_plan(plan));
    }
    if let Some(session) = seats.keys().next() {
        return Err(Failure::Corrupt(format!("seats of session {session}, which does not exist")));
    }
    let last = LastIds {
        concert: given(connection, "SELECT MAX(id) FROM concert", LAST_CONCERT)?,
        session: given(connection, "SELECT MAX(id) FROM session", LAST_SESSION)?,
        seat: given(connection, "SELECT MAX(id) FROM seat", LAST_SEAT)?,
        seeded_entry: 0,
        // Rows leave the outbox, and an id must not come back: consumers saw it.
        outbox: last_event(connection)?,
    };
    let mut ids = Ids::default();
    // The writer is alone, so all ids above the highest are its own.
    let after = |highest: i64| highest + 1..i64::MAX;
    ids.reservations.add(after(highest(connection, "SELECT MAX(id) FROM reservation")?));
    ids.payments.add(after(highest(connection, "SELECT MAX(id) FROM payment")?));
    ids.entries.add(after(last_entry(connection)?));
    let catalog = Catalog::from_parts(concerts, inventories);
    let mut statement = connection.prepare("SELECT session_id, at FROM called_off")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let session = rows::id(SessionId::new, row.get(0)?, "session")?;
        catalog.call_off(session, Timestamp(row.get(1)?));
    }
    Ok((catalog, last, ids))
}

/// The highest id that was ever given: what was removed has taken its own along, and it was noted.
fn given(connection: &Connection, sql: &str, noted: &str) -> Load<i64> {
    let noted = setting(connection, noted)?.and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(highest(connection, sql)?.max(noted))
}

/// The highest id of an entry in the ledger.
pub(super) fn last_entry(connection: &Connection) -> Load<i64> {
    highest(connection, "SELECT MAX(id) FROM points_entry")
}

/// The highest outbox id ever used.
pub(super) fn last_event(connection: &Connection) -> Load<i64> {
    Ok(highest(connection, "SELECT MAX(id) FROM outbox")?
        .max(highest(connection, "SELECT MAX(last_id) FROM published")?))
}

fn highest(connection: &Connection, sql: &str) -> Load<i64> {
    Ok(connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0))
}

/// The plans that sessions have.
fn plans(connection: &Connection) -> Load<HashMap<Digest, Arc<StoredPlan>>> {
    let mut statement = connection
        .prepare("SELECT digest, body FROM plan WHERE digest IN (SELECT plan FROM session)")?;
    let mut found = statement.query([])?;
    let mut plans = HashMap::new();
    while let Some(row) = found.next()? {
        let digest = chain::digest_of(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
        plans.insert(
            digest,
            Arc::new(StoredPlan::stored(digest, row.get(1)?).map_err(Failure::Corrupt)?),
        );
    }
    Ok(plans)
}

fn concerts(connection: &Connection) -> Load<Vec<Concert>> {
    let mut statement = connection
        .prepare("SELECT id, name, venue, queue, opens_at, closes_at FROM concert ORDER BY id")?;
    let mut found = statement.query([])?;
    let mut concerts = Vec::new();
    while let Some(row) = found.next()? {
        concerts.push(concert(row)?);
    }
    Ok(concerts)
}

/// A concert from the columns id, name, venue, queue, opens at, closes at.
pub(super) fn concert(row: &Row<'_>) -> Load<Concert> {
    Ok(Concert {
        id: rows::id(ConcertId::new, row.get(0)?, "concert")?,
        name: row.get(1)?,
        venue: row.get(2)?,
        queue: rows::queue_name(row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?)?,
        opens_at: Timestamp(row.get(4)?),
        closes_at: Timestamp(row.get(5)?),
    })
}

/// All seats, by session and in order. They are nearly all that there is to load, so two threads
/// share them.
fn seats(connection: &Connection, other: Connection) -> Load<HashMap<SessionId, Vec<Seat>>> {
    let middle = highest(connection, "SELECT MAX(id) FROM seat")? / 2;
    let (lower, upper) = std::thread::scope(|scope| {
        let lower = scope.spawn(move || seats_between(&other, 0, middle));
        let upper = seats_between(connection, middle + 1, i64::MAX);
        (lower.join(), upper)
    });
    let mut seats =
        lower.unwrap_or_else(|_| Err(Failure::Corrupt("reading seats panicked".into())))?;
    for (session, more) in upper? {
        seats.entry(session).or_default().extend(more);
    }
    Ok(seats)
}

fn seats_between(
    connection: &Connection,
    first: i64,
    last: i64,
) -> Load<HashMap<SessionId, Vec<Seat>>> {
    let mut statement = connection.prepare(
        "SELECT id, session_id, number, price, state, reservation_id, held_until FROM seat \
         WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
    )?;
    let mut found = statement.query([first, last])?;
    let mut seats: HashMap<SessionId, Vec<Seat>> = HashMap::new();
    // Seats of a session come in long runs, and there may be millions: a run is gathered in one
    // vector, and the map is asked once for each.
    let mut run: Option<(SessionId, Vec<Seat>)> = None;
    while let Some(row) = found.next()? {
        let session = rows::id(SessionId::new, row.get(1)?, "session")?;
        match &mut run {
            Some((same, gathered)) if *same == session => gathered.push(seat(row)?),
            _ => {
                let started = (session, vec![seat(row)?]);
                if let Some((done, gathered)) = run.replace(started) {
                    seats.entry(done).or_default().extend(gathered);
                }
            }
        }
    }
    if let Some((done, gathered)) = run {
        seats.entry(done).or_default().extend(gathered);
    }
    Ok(seats)
}

/// A seat from the columns id, (session), number, price, state, reservation, until.
fn seat(row: &Row<'_>) -> Load<Seat> {
    Ok(Seat {
        id: rows::id(SeatId::new, row.get(0)?, "seat")?,
        number: row.get(2)?,
        price: row.get(3)?,
        state: rows::seat_from(row.get(4)?, row.get(5)?, row.get(6)?)?,
    })
}

/// How many payments of a session were refunded because it was called off.
pub(super) fn refunded(connection: &Connection, session: SessionId) -> Load<u64> {
    let mut count = connection
        .prepare_cached("SELECT count(*) FROM refund WHERE session_id = ?1 AND called_off = 1")?;
    let count: i64 = count.query_row([session.get()], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// The seats of one session as stored.
pub(super) fn seats_of(connection: &Connection, session: SessionId) -> Load<Vec<Seat>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, session_id, number, price, state, reservation_id, held_until FROM seat \
         WHERE id BETWEEN (SELECT MIN(id) FROM seat WHERE session_id = ?1) AND \
         (SELECT MAX(id) FROM seat WHERE session_id = ?1) AND session_id = ?1 ORDER BY id",
    )?;
    let mut found = statement.query([session.get()])?;
    let mut seats = Vec::new();
    while let Some(row) = found.next()? {
        seats.push(seat(row)?);
    }
    Ok(seats)
}

pub(super) fn queues(connection: &Connection) -> Load<Vec<StoredQueue>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, watermark, serving, floor, claimed, admit_per_second, max_active, \
         active_ttl_ms, claim_window_ms, opens_at, paused, next, credit_micro, credit_at, \
         steps, draw_seed, drawn FROM queue ORDER BY name",
    )?;
    let mut found = statement.query([])?;
    let mut queues = Vec::new();
    while let Some(row) = found.next()? {
        let text: String = row.get(0)?;
        let claimed = rows::numbers_from(row.get(4)?, &text)?;
        let credit_micro: Option<i64> = row.get(12)?;
        let serving = rows::count(row.get(2)?, "serving")?;
        let floor = rows::count(row.get(3)?, "floor")?;
        let name = rows::queue_name(&text)?;
        let draw = drawing_of(&name, row, 15)?;
        let order = draws::order(draw.as_ref());
        let readmitted = readmitted(connection, &text)?;
        let late: RoaringTreemap = readmitted.iter().map(|(seq, _)| *seq).collect();
        let read_from = draws::read_from(&order, floor, !readmitted.is_empty());
        let ranks = |numbers| draws::ranks(&order, numbers, floor, |rank| late.contains(rank));
        let gave_up = numbers(
            connection,
            "SELECT seq FROM queue_left WHERE queue = ?1 AND seq > ?2 UNION ALL \
             SELECT seq FROM spent_ticket WHERE queue = ?1 AND seq > ?2 \
             AND payment_id IS NULL UNION ALL \
             SELECT s.seq FROM readmitted r JOIN spent_ticket s ON s.queue = r.queue \
             AND s.seq = r.seq WHERE r.queue = ?1 AND s.payment_id IS NULL",
            &text,
            read_from,
        )?;
        let finished = numbers(
            connection,
            "SELECT seq FROM spent_ticket WHERE queue = ?1 AND seq > ?2 \
             AND payment_id IS NOT NULL UNION ALL \
             SELECT s.seq FROM readmitted r JOIN spent_ticket s ON s.queue = r.queue \
             AND s.seq = r.seq WHERE r.queue = ?1 AND s.payment_id IS NOT NULL",
            &text,
            read_from,
        )?;
        let (gave_up, finished) = (ranks(gave_up), ranks(finished));
        // Whoever has paid did not leave, whatever an instance that lags behind took it for.
        let left = gave_up - &finished;
        queues.push(StoredQueue {
            name,
            settings: settings(row, 5)?,
            next: rows::count(row.get(11)?, "next")?,
            watermark: rows::count(row.get(1)?, "watermark")?,
            line: LineParts {
                steps: rows::count(row.get(14)?, "steps")?,
                serving,
                floor,
                log: admissions(connection, &text, floor)?,
                claimed: claimed - &finished - &left,
                left,
                finished,
                passed: passed(connection, &text)?,
                readmitted,
                order,
            },
            bucket: Bucket::restore(
                rows::count(credit_micro.unwrap_or(0), "credit_micro")?,
                row.get::<_, Option<i64>>(13)?.map(Timestamp),
            ),
            draw,
        });
    }
    Ok(queues)
}

/// The opening draw of a queue, where it has one; `None` where there is no such queue.
pub(super) fn drawing(connection: &Connection, queue: &str) -> Load<Option<Option<Drawing>>> {
    let mut find =
        connection.prepare_cached("SELECT draw_seed, drawn FROM queue WHERE name = ?1")?;
    let mut found = find.query([queue])?;
    let Some(row) = found.next()? else { return Ok(None) };
    Ok(Some(drawing_of(&rows::queue_name(queue)?, row, 0)?))
}

/// What a draw of a queue is decided by; `None` where there is no such queue.
pub(super) fn undecided(connection: &Connection, queue: &str) -> Load<Option<draws::Stored>> {
    let mut find = connection.prepare_cached(
        "SELECT draw_seed, drawn, opens_at, next, watermark FROM queue WHERE name = ?1",
    )?;
    let mut found = find.query([queue])?;
    let Some(row) = found.next()? else { return Ok(None) };
    let (seed, drawn) = seed_and_count(row, 0)?;
    Ok(Some(draws::Stored {
        seed,
        drawn,
        opens_at: row.get::<_, Option<i64>>(2)?.map(Timestamp),
        next: rows::count(row.get(3)?, "next")?,
        watermark: rows::count(row.get(4)?, "watermark")?,
    }))
}

/// The opening draw of a queue: two columns from `first` on.
fn drawing_of(queue: &QueueName, row: &Row<'_>, first: usize) -> Load<Option<Drawing>> {
    let (seed, count) = seed_and_count(row, first)?;
    Ok(draws::drawing(queue, seed, count))
}

fn seed_and_count(row: &Row<'_>, first: usize) -> Load<(Option<DrawSeed>, Option<u64>)> {
    let seed: Option<Vec<u8>> = row.get(first)?;
    let seed = seed.map(|seed| chain::digest_of(&seed)).transpose()?;
    let count: Option<i64> = row.get(first + 1)?;
    let count = count.map(|count| rows::count(count, "drawn")).transpose()?;
    Ok((seed.map(|seed| DrawSeed(seed.0)), count))
}

/// How a queue admits: six columns from `first` on.
pub(super) fn settings(row: &Row<'_>, first: usize) -> Load<QueueSettings> {
    let max_active: Option<i64> = row.get(first + 1)?;
    let ms = |column| -> Load<Duration> {
        Ok(Duration::from_millis(rows::count(row.get(column)?, "a duration")?))
    };
    Ok(QueueSettings {
        admit_per_second: row.get(first)?,
        max_active: max_active.map(|max| rows::count(max, "max_active")).transpose()?,
        active_ttl: ms(first + 2)?,
        claim_window: ms(first + 3)?,
        opens_at: row.get::<_, Option<i64>>(first + 4)?.map(Timestamp),
        paused: row.get(first + 5)?,
    })
}

fn numbers(connection: &Connection, sql: &str, queue: &str, floor: u64) -> Load<RoaringTreemap> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params![queue, column(floor)])?;
    let mut numbers = RoaringTreemap::new();
    while let Some(row) = found.next()? {
        numbers.insert(rows::count(row.get(0)?, "a number")?);
    }
    Ok(numbers)
}

fn admissions(connection: &Connection, queue: &str, floor: u64) -> Load<Vec<Admission>> {
    let mut statement = connection.prepare_cached(
        "SELECT upto, at FROM admission WHERE queue = ?1 AND upto > ?2 ORDER BY upto",
    )?;
    let mut found = statement.query(params![queue, column(floor)])?;
    let mut log = Vec::new();
    while let Some(row) = found.next()? {
        log.push(Admission { upto: rows::count(row.get(0)?, "upto")?, at: Timestamp(row.get(1)?) });
    }
    Ok(log)
}

pub(super) fn passed(connection: &Connection, queue: &str) -> Load<RoaringTreemap> {
    let mut statement =
        connection.prepare_cached("SELECT seqs FROM queue_passed WHERE queue = ?1")?;
    let mut found = statement.query([queue])?;
    let mut passed = RoaringTreemap::new();
    while let Some(row) = found.next()? {
        passed |= rows::numbers_from(row.get(0)?, queue)?;
    }
    Ok(passed)
}

pub(super) fn readmitted(connection: &Connection, queue: &str) -> Load<Vec<(u64, Timestamp)>> {
    let mut statement = connection
        .prepare_cached("SELECT seq, at FROM readmitted WHERE queue = ?1 ORDER BY seq")?;
    let mut found = statement.query([queue])?;
    let mut readmitted = Vec::new();
    while let Some(row) = found.next()? {
        readmitted.push((rows::count(row.get(0)?, "seq")?, Timestamp(row.get(1)?)));
    }
    Ok(readmitted)
}

pub(super) fn aliases(connection: &Connection, now: Timestamp) -> Load<Vec<Alias>> {
    let spent = spent_aliases(connection)?;
    let mut statement = connection.prepare_cached(
        "SELECT token, queue, seq, user_id, issued_at, ticket_id, active_until FROM alias \
         WHERE active_until IS NULL OR active_until > ?1",
    )?;
    let mut found = statement.query([now.0.saturating_sub(ALIAS_KEPT_MS)])?;
    let mut aliases: Vec<Alias> = Vec::new();
    while let Some(row) = found.next()? {
        let queue = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        // There are many tokens and few queues.
        let queue = match aliases.last() {
            Some(alias) if alias.ticket.queue.as_str() == queue => alias.ticket.queue.clone(),
            _ => rows::queue_name(queue)?,
        };
        let id = rows::ticket_id(row.get_ref(5)?.as_blob().map_err(rusqlite::Error::from)?)?;
        aliases.push(Alias {
            token: row.get(0)?,
            ticket: Ticket {
                queue,
                seq: rows::count(row.get(2)?, "seq")?,
                user: rows::id(UserId::new, row.get(3)?, "user")?,
                issued_at: Timestamp(row.get(4)?),
                id,
            },
            active_until: row.get::<_, Option<i64>>(6)?.map(Timestamp),
            spent: spent.get(&id).copied(),
        });
    }
    Ok(aliases)
}

/// The tickets behind opaque tokens that have paid or were given up. Those past the line have no
/// number of their own, and so are found together; the others are few.
fn spent_aliases(connection: &Connection) -> Load<HashMap<TicketId, SpentBy>> {
    let mut statement = connection.prepare_cached(
        "SELECT s.ticket_id, s.payment_id IS NOT NULL \
         FROM (SELECT DISTINCT queue FROM alias) q JOIN spent_ticket s \
         ON s.queue = q.queue AND s.seq = 0 \
         UNION ALL SELECT s.ticket_id, s.payment_id IS NOT NULL \
         FROM alias a JOIN spent_ticket s ON s.queue = a.queue \
         AND s.seq = a.seq AND s.ticket_id = a.ticket_id WHERE a.seq > 0",
    )?;
    let mut found = statement.query([])?;
    let mut spent = HashMap::new();
    while let Some(row) = found.next()? {
        let id = rows::ticket_id(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
        spent.insert(id, SpentBy::of(row.get(1)?));
    }
    Ok(spent)
}

pub(super) fn clock(connection: &Connection) -> Load<Timestamp> {
    let stored = setting(connection, "clock")?.and_then(|text| text.parse().ok()).unwrap_or(0);
    // A store that was killed between two checkpoints has seen later times than it noted.
    let seen = highest(
        connection,
        "SELECT MAX(at) FROM (SELECT MAX(at) AS at FROM admission UNION ALL \
         SELECT MAX(at) FROM readmitted UNION ALL \
         SELECT created_at FROM reservation WHERE id = (SELECT MAX(id) FROM reservation) UNION ALL \
         SELECT at FROM points_entry WHERE id = (SELECT MAX(id) FROM points_entry))",
    )?;
    Ok(Timestamp(seen.max(stored)))
}

pub(super) fn setting(connection: &Connection, name: &str) -> Load<Option<String>> {
    let mut statement = connection.prepare_cached("SELECT value FROM setting WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}
