//! The admission log in SQLite: read, written on, begun, shortened.

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{Entry, Standing, Terms};
use boxoffice_domain::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::load;
use super::rows::{self, Failure, column};
use crate::store::chain::{self, Head, Link, LogPart};

type Op<T> = Result<T, Failure>;

/// The last record of a queue; `None` where there is no such queue, or its log has not begun.
pub(super) fn head(connection: &Connection, queue: &str) -> Op<Option<Head>> {
    let mut find = connection.prepare_cached("SELECT steps, chain FROM queue WHERE name = ?1")?;
    let found: Option<(i64, Option<Vec<u8>>)> =
        find.query_row([queue], |row| row.try_into()).optional()?;
    let Some((steps, Some(digest))) = found else { return Ok(None) };
    let number = rows::count(steps, "steps")?;
    Ok(Some(Head { number, digest: chain::digest_of(&digest)? }))
}

/// Records behind the number `after`, at most `max`, and the head of the same moment, if whoever calls looks
/// at one moment.
pub(super) fn part(
    connection: &Connection,
    queue: &QueueName,
    after: Option<u64>,
    max: u32,
) -> Op<Option<LogPart>> {
    let Some(head) = head(connection, queue.as_str())? else { return Ok(None) };
    let mut find = connection.prepare_cached(
        "SELECT step, record, digest FROM admission_log WHERE queue = ?1 AND step >= ?2 \
         ORDER BY step LIMIT ?3",
    )?;
    let first = column(after.unwrap_or(0));
    // One more than is asked for: from the first one only its digest may be wanted.
    let mut found = find.query(params![queue.as_str(), first, i64::from(max) + 1])?;
    let mut links = Vec::new();
    while let Some(row) = found.next()? {
        let digest: Vec<u8> = row.get(2)?;
        links.push(Link {
            number: rows::count(row.get(0)?, "the number of a record")?,
            bytes: row.get(1)?,
            digest: chain::digest_of(&digest)?,
        });
    }
    let mut part = LogPart::of(queue, after, links, head);
    part.links.truncate(max as usize);
    Ok(Some(part))
}

/// The numbers of the last records that say where the queue stands, the latest first.
pub(super) fn marks(connection: &Connection, queue: &str, max: u32) -> Op<Vec<u64>> {
    let mut find = connection.prepare_cached(
        "SELECT step FROM admission_mark WHERE queue = ?1 ORDER BY step DESC LIMIT ?2",
    )?;
    let mut found = find.query(params![queue, max])?;
    let mut marks = Vec::new();
    while let Some(row) = found.next()? {
        marks.push(rows::count(row.get(0)?, "the number of a record")?);
    }
    Ok(marks)
}

fn put(connection: &Connection, queue: &str, link: &Link) -> Op<()> {
    let Link { number, bytes, digest } = link;
    let mut raise =
        connection.prepare_cached("UPDATE queue SET steps = ?2, chain = ?3 WHERE name = ?1")?;
    raise.execute(params![queue, column(*number), &digest.0[..]])?;
    let mut add = connection.prepare_cached(
        "INSERT INTO admission_log (queue, step, record, digest) VALUES (?1, ?2, ?3, ?4)",
    )?;
    add.execute(params![queue, column(*number), bytes, &digest.0[..]])?;
    Ok(())
}

fn mark(connection: &Connection, queue: &str, number: u64, at: Timestamp) -> Op<()> {
    let mut add = connection
        .prepare_cached("INSERT INTO admission_mark (queue, step, at) VALUES (?1, ?2, ?3)")?;
    add.execute(params![queue, column(number), at.0])?;
    Ok(())
}

/// Writes the next record, in the transaction under way. The count of steps rises with it.
pub(super) fn append(connection: &Connection, queue: &str, at: Timestamp, entry: Entry) -> Op<()> {
    let head = head(connection, queue)?;
    let head = head.ok_or_else(|| Failure::Corrupt(format!("queue {queue} has no log")))?;
    let is_mark = matches!(entry, Entry::Stands(_));
    let (link, _) = chain::following(head, at, entry);
    put(connection, queue, &link)?;
    if is_mark {
        mark(connection, queue, link.number, at)?;
    }
    Ok(())
}

/// Where a queue stands now.
fn standing(connection: &Connection, queue: &str) -> Op<Standing> {
    let mut find = connection.prepare_cached(
        "SELECT serving, admit_per_second, max_active, active_ttl_ms, claim_window_ms, opens_at, \
         paused FROM queue WHERE name = ?1",
    )?;
    let mut found = find.query([queue])?;
    let row = found.next()?.ok_or_else(|| Failure::Corrupt(format!("no queue {queue}")))?;
    let serving = rows::count(row.get(0)?, "serving")?;
    let terms = Terms::from(&load::settings(row, 1)?);
    let passed = (&load::passed(connection, queue)?).into();
    Ok(Standing { serving, passed, terms, draw: load::drawing(connection, queue)?.flatten() })
}

/// Begins the logs of those queues that have none: of one that was just made, or from before there were
/// any.
pub(super) fn begin(connection: &Connection, at: Timestamp) -> Op<()> {
    let mut find = connection.prepare_cached(
        "SELECT name, steps FROM queue WHERE chain IS NULL \
             AND NOT EXISTS (SELECT 1 FROM admission_log WHERE queue = name)",
    )?;
    let found = find.query_map([], |row| row.try_into())?;
    let found = found.collect::<Result<Vec<(String, i64)>, _>>()?;
    for (name, steps) in found {
        let queue = rows::queue_name(&name)?;
        let number = rows::count(steps, "steps")?;
        let entry = Entry::Stands(standing(connection, &name)?);
        put(connection, &name, &chain::first(&queue, number, at, entry))?;
        mark(connection, &name, number, at)?;
    }
    Ok(())
}

/// Says where a queue stands, if that was last said before `marked_before` and something has happened
/// since; and forgets, at most `max` of them, the records before the last of these sayings that is older
/// than `kept_since`. Returns how many were forgotten.
pub(super) fn shorten(
    connection: &Connection,
    queue: &str,
    (kept_since, marked_before): (Timestamp, Timestamp),
    (max, now): (u32, Timestamp),
) -> Op<u64> {
    let Some(head) = head(connection, queue)? else { return Ok(0) };
    let mut find = connection.prepare_cached(
        "SELECT step, at FROM admission_mark WHERE queue = ?1 ORDER BY step DESC LIMIT 1",
    )?;
    let last: Option<(i64, i64)> = find.query_row([queue], |row| row.try_into()).optional()?;
    if last.is_none_or(|(step, at)| at < marked_before.0 && step < column(head.number)) {
        append(connection, queue, now, Entry::Stands(standing(connection, queue)?))?;
    }
    let mut find = connection
        .prepare_cached("SELECT MAX(step) FROM admission_mark WHERE queue = ?1 AND at < ?2")?;
    let keep: Option<i64> = find.query_row(params![queue, kept_since.0], |row| row.get(0))?;
    let Some(keep) = keep else { return Ok(0) };
    // Of the last one that is forgotten the digest is left, from which the rest goes on.
    let mut forget = connection.prepare_cached(
        "DELETE FROM admission_log WHERE queue = ?1 AND step IN (SELECT step FROM admission_log \
         WHERE queue = ?1 AND step < ?2 ORDER BY step LIMIT ?3)",
    )?;
    let forgotten = forget.execute(params![queue, keep - 1, max])?;
    let mut forget =
        connection.prepare_cached("DELETE FROM admission_mark WHERE queue = ?1 AND step < ?2")?;
    forget.execute(params![queue, keep])?;
    Ok(forgotten as u64)
}
