//! Reads whole tables: at the start, to keep up with other instances, and for operators.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::command::{Payment, ReservationRow, TicketRef};
use boxoffice_domain::ids::{
    ConcertId, PaymentId, QueueName, ReservationId, SessionId, TicketId, UserId,
};
use boxoffice_domain::queue::{Admission, Bucket, Drawing, LineParts, QueueSettings, Ticket};
use boxoffice_domain::sales::{Concert, Seat, Session};
use boxoffice_domain::time::Timestamp;
use mysql_async::{Row, Value};
use roaring::RoaringTreemap;

use super::pool::Lease;
use super::rows::{self, Failure, take};
use super::sql;
use crate::store::catalog::{Catalog, Inventory};
use crate::store::chain;
use crate::store::digest::Digest;
use crate::store::draws::{self, DrawSeed};
use crate::store::plans::{self, StoredPlan};
use crate::store::types::{ALIAS_KEPT_MS, Alias, SpentBy, StoredQueue};

type Load<T> = Result<T, Failure>;

/// Seats that are read at a time when all of them are: some milliseconds of the server's.
const PAGE: i64 = 50_000;

/// Begins a transaction that sees one moment of the database, and changes nothing.
pub(super) async fn snapshot(lease: &mut Lease) -> Load<()> {
    // For the next transaction only; READ COMMITTED would look at a new moment each time.
    lease.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    lease.text("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await
}

/// All that is kept in memory.
pub(super) async fn catalog(lease: &mut Lease) -> Load<Catalog> {
    snapshot(lease).await?;
    let concerts = concerts(lease, 0).await?;
    let mut seats: HashMap<SessionId, Vec<Seat>> = HashMap::new();
    let mut after = 0;
    loop {
        lease.restart();
        let page = lease.rows(sql::SEATS_PAGE, vec![after.into(), PAGE.into()]).await?;
        let last = page.len() < PAGE as usize;
        for mut row in page {
            let session = rows::id(SessionId::new, take(&mut row, 6)?, "session")?;
            let seat = rows::seat(&mut row)?;
            after = seat.id.get();
            seats.entry(session).or_default().push(seat);
        }
        if last {
            break;
        }
    }
    let mut inventories = Vec::new();
    let mut plans: HashMap<Digest, Arc<StoredPlan>> = HashMap::new();
    for StoredSession { session, plan, .. } in sessions(lease).await? {
        let plan = match plan.map(|digest| (digest, plans.get(&digest).cloned())) {
            Some((digest, None)) => {
                let plan = plan_of(lease, session.id, digest).await?;
                Some(plans.entry(digest).or_insert(plan).clone())
            }
            Some((_, known)) => known,
            None => None,
        };
        let seats = seats.remove(&session.id).unwrap_or_default();
        inventories.push(Inventory::new(session, seats).with_plan(plan));
    }
    if let Some(session) = seats.keys().next() {
        return Err(Failure::Corrupt(format!("seats of session {session}, which does not exist")));
    }
    lease.text("COMMIT").await?;
    let catalog = Catalog::from_parts(concerts, inventories);
    for (session, at) in called_off(lease).await? {
        catalog.call_off(session, at);
    }
    Ok(catalog)
}

/// The concerts with an id above this.
pub(super) async fn concerts(lease: &mut Lease, after: i64) -> Load<Vec<Concert>> {
    let mut concerts = Vec::new();
    for mut row in lease.rows(sql::CONCERTS, vec![after.into()]).await? {
        concerts.push(concert(&mut row)?);
    }
    Ok(concerts)
}

/// A concert from the columns id, name, venue, queue, opens at, closes at.
pub(super) fn concert(row: &mut Row) -> Load<Concert> {
    Ok(Concert {
        id: rows::id(ConcertId::new, take(row, 0)?, "concert")?,
        name: take(row, 1)?,
        venue: take(row, 2)?,
        queue: rows::queue_name(&take::<String>(row, 3)?)?,
        opens_at: Timestamp(take(row, 4)?),
        closes_at: Timestamp(take(row, 5)?),
    })
}

/// The plan with this digest, which a session has.
pub(super) async fn plan_of(
    lease: &mut Lease,
    session: SessionId,
    digest: Digest,
) -> Load<Arc<StoredPlan>> {
    lease.restart();
    let row = lease.rows(sql::PLAN, vec![digest.0[..].into()]).await?.pop();
    let mut row = row.ok_or_else(|| Failure::Corrupt(plans::missing(session, digest)))?;
    Ok(Arc::new(StoredPlan::stored(digest, take(&mut row, 0)?).map_err(Failure::Corrupt)?))
}

/// A session, and what is read along with it.
pub(super) struct StoredSession {
    pub(super) session: Session,
    /// How many seats it has.
    pub(super) seats: u32,
    /// The plan that they are places of.
    pub(super) plan: Option<Digest>,
}

/// Every session.
pub(super) async fn sessions(lease: &mut Lease) -> Load<Vec<StoredSession>> {
    let mut sessions = Vec::new();
    for mut row in lease.rows(sql::SESSIONS, vec![]).await? {
        let session = Session {
            id: rows::id(SessionId::new, take(&mut row, 0)?, "session")?,
            concert: rows::id(ConcertId::new, take(&mut row, 1)?, "concert")?,
            starts_at: Timestamp(take(&mut row, 2)?),
        };
        let plan: Option<Vec<u8>> = take(&mut row, 4)?;
        let plan = plan.map(|digest| chain::digest_of(&digest)).transpose()?;
        sessions.push(StoredSession { session, seats: take(&mut row, 3)?, plan });
    }
    Ok(sessions)
}

/// Sessions that were called off, and when.
pub(super) async fn called_off(lease: &mut Lease) -> Load<Vec<(SessionId, Timestamp)>> {
    let found = lease.rows(sql::CALLED_OFF, vec![]).await?;
    found
        .into_iter()
        .map(|mut row| {
            let session = rows::id(SessionId::new, take(&mut row, 0)?, "session")?;
            Ok((session, Timestamp(take(&mut row, 1)?)))
        })
        .collect()
}

/// How many payments of a session were refunded because it was called off.
pub(super) async fn refunded(lease: &mut Lease, session: SessionId) -> Load<u64> {
    let row = lease.rows(sql::SESSION_REFUNDED, vec![session.get().into()]).await?.pop();
    let count = row.map(|mut row| take::<i64>(&mut row, 0)).transpose()?;
    Ok(rows::count(count.unwrap_or(0), "a count")?)
}

/// The seats of a session, by id.
pub(super) async fn seats_of(lease: &mut Lease, session: SessionId) -> Load<Vec<Seat>> {
    some_seats_of(lease, session, 0, i64::MAX).await
}

/// The first `max` seats of a session behind a seat, by id.
pub(super) async fn some_seats_of(
    lease: &mut Lease,
    session: SessionId,
    after: i64,
    max: i64,
) -> Load<Vec<Seat>> {
    let values = vec![session.get().into(), after.into(), max.into()];
    let found = lease.rows(sql::SEATS_OF, values).await?;
    found.into_iter().map(|mut row| rows::seat(&mut row)).collect()
}

/// Every queue, on one snapshot.
pub(super) async fn queues(lease: &mut Lease) -> Load<Vec<StoredQueue>> {
    snapshot(lease).await?;
    let mut queues = Vec::new();
    for mut row in lease.rows(sql::QUEUES, vec![]).await? {
        let row = &mut row;
        let text: String = take(row, 0)?;
        let watermark = rows::count(take(row, 2)?, "watermark")?;
        let serving = rows::count(take(row, 3)?, "serving")?;
        let floor = rows::count(take(row, 4)?, "floor")?;
        let claimed = rows::numbers_from(take(row, 5)?, &text)?;
        let bucket = Bucket::restore(
            rows::count(take::<Option<i64>>(row, 6)?.unwrap_or(0), "credit_micro")?,
            take::<Option<i64>>(row, 7)?.map(Timestamp),
        );
        let next = rows::count(take(row, 1)?, "next")?;
        let settings = settings(row, 8)?;
        let name = rows::queue_name(&text)?;
        let draw = drawing_of(&name, row, 15)?;
        let order = draws::order(draw.as_ref());
        let readmitted = readmitted(lease, &text).await?;
        let read_from = draws::read_from(&order, floor, !readmitted.is_empty());
        let mut left = numbers(lease, sql::QUEUE_LEFT, &text, read_from).await?;
        let mut finished = RoaringTreemap::new();
        spent(lease, sql::QUEUE_SPENT, &text, read_from, &mut finished, &mut left).await?;
        if !readmitted.is_empty() {
            spent(lease, sql::READMITTED_SPENT, &text, 0, &mut finished, &mut left).await?;
        }
        let late: RoaringTreemap = readmitted.iter().map(|(seq, _)| *seq).collect();
        let ranks = |numbers| draws::ranks(&order, numbers, floor, |rank| late.contains(rank));
        let (mut left, finished) = (ranks(left), ranks(finished));
        // Whoever has paid did not leave, whatever an instance that lags behind took it for.
        left -= &finished;
        queues.push(StoredQueue {
            name,
            settings,
            next,
            watermark,
            line: LineParts {
                steps: rows::count(take(row, 14)?, "steps")?,
                serving,
                floor,
                log: admissions(lease, &text, floor).await?,
                claimed: claimed - &finished - &left,
                left,
                finished,
                passed: passed(lease, &text).await?,
                readmitted,
                order,
            },
            bucket,
            draw,
        });
    }
    lease.text("COMMIT").await?;
    Ok(queues)
}

/// The opening draw of a queue, where it has one; `None` where there is no such queue.
pub(super) async fn drawing(lease: &mut Lease, queue: &str) -> Load<Option<Option<Drawing>>> {
    let row = lease.rows(sql::QUEUE_DRAWING, vec![queue.into()]).await?.pop();
    let Some(mut row) = row else { return Ok(None) };
    Ok(Some(drawing_of(&rows::queue_name(queue)?, &mut row, 0)?))
}

/// What a draw of a queue is decided by, whose row is locked from then on; `None` where there is no such queue.
pub(super) async fn undecided(lease: &mut Lease, queue: &str) -> Load<Option<draws::Stored>> {
    let row = lease.rows(sql::QUEUE_UNDECIDED, vec![queue.into()]).await?.pop();
    let Some(mut row) = row else { return Ok(None) };
    let (seed, drawn) = seed_and_count(&mut row, 0)?;
    Ok(Some(draws::Stored {
        seed,
        drawn,
        opens_at: take::<Option<i64>>(&mut row, 2)?.map(Timestamp),
        next: rows::count(take(&mut row, 3)?, "next")?,
        watermark: rows::count(take(&mut row, 4)?, "watermark")?,
    }))
}

/// The opening draw of a queue: two columns from `first` on.
fn drawing_of(queue: &QueueName, row: &mut Row, first: usize) -> Load<Option<Drawing>> {
    let (seed, count) = seed_and_count(row, first)?;
    Ok(draws::drawing(queue, seed, count))
}

fn seed_and_count(row: &mut Row, first: usize) -> Load<(Option<DrawSeed>, Option<u64>)> {
    let seed: Option<Vec<u8>> = take(row, first)?;
    let seed = seed.map(|seed| chain::digest_of(&seed)).transpose()?;
    let count: Option<i64> = take(row, first + 1)?;
    let count = count.map(|count| rows::count(count, "drawn")).transpose()?;
    Ok((seed.map(|seed| DrawSeed(seed.0)), count))
}

/// How a queue admits: six columns from `first` on.
pub(super) fn settings(row: &mut Row, first: usize) -> Load<QueueSettings> {
    let max_active: Option<i64> = take(row, first + 1)?;
    let mut ms = |column| -> Load<Duration> {
        Ok(Duration::from_millis(rows::count(take(row, column)?, "a duration")?))
    };
    let (active_ttl, claim_window) = (ms(first + 2)?, ms(first + 3)?);
    Ok(QueueSettings {
        admit_per_second: take(row, first)?,
        max_active: max_active.map(|max| rows::count(max, "max_active")).transpose()?,
        active_ttl,
        claim_window,
        opens_at: take::<Option<i64>>(row, first + 4)?.map(Timestamp),
        paused: take(row, first + 5)?,
    })
}

async fn numbers(lease: &mut Lease, sql: &str, queue: &str, floor: u64) -> Load<RoaringTreemap> {
    let mut numbers = RoaringTreemap::new();
    for mut row in lease.rows(sql, vec![queue.into(), rows::column(floor).into()]).await? {
        numbers.insert(rows::count(take(&mut row, 0)?, "a number")?);
    }
    Ok(numbers)
}

/// Reads the numbers that are spent: those that have paid, and those that were given up.
async fn spent(
    lease: &mut Lease,
    sql: &str,
    queue: &str,
    floor: u64,
    paid: &mut RoaringTreemap,
    left: &mut RoaringTreemap,
) -> Load<()> {
    for mut row in lease.rows(sql, vec![queue.into(), rows::column(floor).into()]).await? {
        let seq = rows::count(take(&mut row, 0)?, "a number")?;
        match SpentBy::of(take(&mut row, 1)?) {
            SpentBy::Payment => paid.insert(seq),
            SpentBy::Leaving => left.insert(seq),
        };
    }
    Ok(())
}

async fn admissions(lease: &mut Lease, queue: &str, floor: u64) -> Load<Vec<Admission>> {
    let found = vec![queue.into(), rows::column(floor).into()];
    let mut log = Vec::new();
    for mut row in lease.rows(sql::QUEUE_ADMISSIONS, found).await? {
        let upto = rows::count(take(&mut row, 0)?, "upto")?;
        log.push(Admission { upto, at: Timestamp(take(&mut row, 1)?) });
    }
    Ok(log)
}

pub(super) async fn passed(lease: &mut Lease, queue: &str) -> Load<RoaringTreemap> {
    let mut passed = RoaringTreemap::new();
    for mut row in lease.rows(sql::QUEUE_PASSED, vec![queue.into()]).await? {
        passed |= rows::numbers_from(take(&mut row, 0)?, queue)?;
    }
    Ok(passed)
}

pub(super) async fn readmitted(lease: &mut Lease, queue: &str) -> Load<Vec<(u64, Timestamp)>> {
    let mut readmitted = Vec::new();
    for mut row in lease.rows(sql::READMITTED, vec![queue.into()]).await? {
        let seq = rows::count(take(&mut row, 0)?, "seq")?;
        readmitted.push((seq, Timestamp(take(&mut row, 1)?)));
    }
    Ok(readmitted)
}

pub(super) async fn aliases(lease: &mut Lease, now: Timestamp) -> Load<Vec<Alias>> {
    let mut spent: HashMap<TicketId, SpentBy> = HashMap::new();
    for mut row in lease.rows(sql::ALIASES_SPENT, vec![]).await? {
        let id = rows::ticket_id(&take::<Vec<u8>>(&mut row, 0)?)?;
        spent.insert(id, SpentBy::of(take(&mut row, 1)?));
    }
    let since = now.0.saturating_sub(ALIAS_KEPT_MS);
    let mut aliases = Vec::new();
    for mut row in lease.rows(sql::ALIASES, vec![since.into()]).await? {
        let row = &mut row;
        let id = rows::ticket_id(&take::<Vec<u8>>(row, 5)?)?;
        let token = String::from_utf8(take(row, 0)?)
            .map_err(|error| Failure::Corrupt(format!("a token: {error}")))?;
        aliases.push(Alias {
            token,
            ticket: Ticket {
                queue: rows::queue_name(&take::<String>(row, 1)?)?,
                seq: rows::count(take(row, 2)?, "seq")?,
                user: rows::id(UserId::new, take(row, 3)?, "user")?,
                issued_at: Timestamp(take(row, 4)?),
                id,
            },
            active_until: take::<Option<i64>>(row, 6)?.map(Timestamp),
            spent: spent.get(&id).copied(),
        });
    }
    Ok(aliases)
}

/// The only column of the only row.
pub(super) async fn number(lease: &mut Lease, sql: &str) -> Load<i64> {
    let row = lease.rows(sql, vec![]).await?.pop();
    row.map_or(Ok(0), |mut row| Ok(take::<Option<i64>>(&mut row, 0)?.unwrap_or(0)))
}

pub(super) async fn setting(lease: &mut Lease, name: &str) -> Load<Option<String>> {
    let row = lease.rows(sql::SETTING, vec![name.into()]).await?.pop();
    row.map(|mut row| take(&mut row, 0)).transpose()
}

/// The reservation with this id.
pub(super) async fn reservation(
    lease: &mut Lease,
    id: ReservationId,
) -> Load<Option<ReservationRow>> {
    let text = sql::listed(sql::RESERVATIONS, 1);
    let row = lease.rows(&text, vec![id.get().into()]).await?.pop();
    row.map(|mut row| rows::reservation(id, &mut row, 1)).transpose()
}

/// The payment with this id.
pub(super) async fn payment(lease: &mut Lease, id: PaymentId) -> Load<Option<Payment>> {
    let row = lease.rows(&sql::listed(sql::PAYMENTS, 1), vec![id.get().into()]).await?.pop();
    row.map(|mut row| rows::payment(&mut row)).transpose()
}

/// A user's reservations that were made before this one, the newest first.
pub(super) async fn reservations_of(
    lease: &mut Lease,
    user: UserId,
    after: Option<ReservationId>,
    max: u32,
) -> Load<Vec<ReservationRow>> {
    let (mut created_at, mut before) = (i64::MAX, i64::MAX);
    if let Some(after) = after {
        let values = vec![after.get().into(), user.get().into()];
        let Some(mut row) = lease.rows(sql::RESERVATION_MADE, values).await?.pop() else {
            return Ok(Vec::new());
        };
        (created_at, before) = (take(&mut row, 0)?, after.get());
    }
    let values: [i64; 5] = [user.get(), created_at, created_at, before, max.into()];
    let found = lease.rows(sql::RESERVATIONS_OF, values.map(Value::from).to_vec()).await?;
    found
        .into_iter()
        .map(|mut row| {
            let id = rows::id(ReservationId::new, take(&mut row, 0)?, "reservation")?;
            rows::reservation(id, &mut row, 1)
        })
        .collect()
}

/// Whether a ticket is spent.
pub(super) async fn is_spent(lease: &mut Lease, ticket: &TicketRef) -> Load<bool> {
    let values =
        vec![ticket.queue.as_str().into(), rows::column(ticket.seq).into(), ticket.id.0[..].into()];
    Ok(!lease.rows(sql::TICKET_SPENT, values).await?.is_empty())
}

/// The holds that ran out by `now`, at most `max` of them, oldest first.
pub(super) async fn due(lease: &mut Lease, now: Timestamp, max: u32) -> Load<Vec<ReservationId>> {
    let found = lease.rows(sql::RESERVATIONS_DUE, vec![now.0.into(), max.into()]).await?;
    found
        .into_iter()
        .map(|mut row| Ok(rows::id(ReservationId::new, take(&mut row, 0)?, "reservation")?))
        .collect()
}
