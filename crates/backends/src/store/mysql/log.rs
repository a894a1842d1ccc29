//! The admission log in MySQL: read, written on, begun, shortened. Whoever writes has the row of the queue
//! locked.

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{Entry, Record, Standing, Terms};
use boxoffice_domain::time::Timestamp;

use super::pool::Lease;
use super::rows::{self, Failure, column, take};
use super::{load, sql};
use crate::store::chain::{self, Head, Link, LogPart};
use crate::store::types::ShortenLog;

type Op<T> = Result<T, Failure>;

/// The last record of a queue, whose row is locked, and its counter `serving`.
pub(super) struct Locked {
    pub(super) serving: u64,
    pub(super) head: Head,
}

/// Locks the row of a queue.
pub(super) async fn lock(lease: &mut Lease, queue: &str) -> Op<Option<Locked>> {
    let row = lease.rows(sql::QUEUE_HEAD, vec![queue.into()]).await?.pop();
    let Some(mut row) = row else { return Ok(None) };
    let serving = rows::count(take(&mut row, 0)?, "serving")?;
    let number = rows::count(take(&mut row, 1)?, "steps")?;
    let digest: Option<Vec<u8>> = take(&mut row, 2)?;
    let digest = digest.ok_or_else(|| Failure::Corrupt(format!("queue {queue} has no log")))?;
    Ok(Some(Locked { serving, head: Head { number, digest: chain::digest_of(&digest)? } }))
}

/// Records behind the number `after`, at most `max`, and the head of the same moment, if whoever calls looks
/// at one moment.
pub(super) async fn part(
    lease: &mut Lease,
    queue: &QueueName,
    after: Option<u64>,
    max: u32,
) -> Op<Option<LogPart>> {
    let name = queue.as_str();
    let row = lease.rows(sql::LOG_HEAD, vec![name.into()]).await?.pop();
    let Some(mut row) = row else { return Ok(None) };
    let number = rows::count(take(&mut row, 0)?, "steps")?;
    let Some(digest) = take::<Option<Vec<u8>>>(&mut row, 1)? else { return Ok(None) };
    let head = Head { number, digest: chain::digest_of(&digest)? };
    // One more than is asked for: from the first one only its digest may be wanted.
    let values = vec![name.into(), column(after.unwrap_or(0)).into(), (i64::from(max) + 1).into()];
    let mut links = Vec::new();
    for mut row in lease.rows(sql::LOG_PART, values).await? {
        let digest: Vec<u8> = take(&mut row, 2)?;
        links.push(Link {
            number: rows::count(take(&mut row, 0)?, "the number of a record")?,
            bytes: take(&mut row, 1)?,
            digest: chain::digest_of(&digest)?,
        });
    }
    let mut part = LogPart::of(queue, after, links, head);
    part.links.truncate(max as usize);
    Ok(Some(part))
}

/// The same, on a snapshot of its own.
pub(super) async fn part_of_one_moment(
    lease: &mut Lease,
    queue: &QueueName,
    after: Option<u64>,
    max: u32,
) -> Op<Option<LogPart>> {
    load::snapshot(lease).await?;
    let part = part(lease, queue, after, max).await?;
    lease.text("COMMIT").await?;
    Ok(part)
}

/// The numbers of the last records that say where the queue stands, the latest first.
pub(super) async fn marks(lease: &mut Lease, queue: &str, max: u32) -> Op<Vec<(u64, Timestamp)>> {
    let found = lease.rows(sql::MARKS, vec![queue.into(), max.into()]).await?;
    let mark = |mut row| {
        let number = rows::count(take(&mut row, 0)?, "the number of a record")?;
        Ok((number, Timestamp(take(&mut row, 1)?)))
    };
    found.into_iter().map(mark).collect()
}

async fn put(lease: &mut Lease, queue: &str, link: &Link) -> Op<()> {
    let (number, digest) = (column(link.number), &link.digest.0[..]);
    let values = vec![number.into(), digest.into(), queue.into()];
    lease.exec(sql::QUEUE_STEPPED, values).await?;
    let values = vec![queue.into(), number.into(), link.bytes.as_slice().into(), digest.into()];
    lease.exec(sql::LOG_APPEND, values).await?;
    Ok(())
}

async fn mark(lease: &mut Lease, queue: &str, number: u64, at: Timestamp) -> Op<()> {
    lease.exec(sql::MARK_ADD, vec![queue.into(), column(number).into(), at.0.into()]).await?;
    Ok(())
}

/// Writes the record that follows `head`, which is the last one. The count of steps rises with it.
pub(super) async fn append(
    lease: &mut Lease,
    queue: &str,
    head: Head,
    at: Timestamp,
    entry: Entry,
) -> Op<()> {
    let is_mark = matches!(entry, Entry::Stands(_));
    let (link, _) = chain::following(head, at, entry);
    put(lease, queue, &link).await?;
    if is_mark {
        mark(lease, queue, link.number, at).await?;
    }
    Ok(())
}

/// Writes a record into the log of a queue, at the time of the database.
pub(super) async fn append_now(lease: &mut Lease, queue: &str, entry: Entry) -> Op<()> {
    let at = Timestamp(load::number(lease, sql::NOW).await?);
    let Some(Locked { head, .. }) = lock(lease, queue).await? else {
        return Err(Failure::Corrupt(format!("no queue {queue}")));
    };
    append(lease, queue, head, at, entry).await
}

/// Writes this into the logs of all queues.
pub(super) async fn append_to_all(lease: &mut Lease, entry: &Entry) -> Op<()> {
    for mut row in lease.rows(sql::QUEUE_NAMES, vec![]).await? {
        append_now(lease, &take::<String>(&mut row, 0)?, entry.clone()).await?;
    }
    Ok(())
}

/// The bytes of the record of a step that was planned when the queue had seen so many.
pub(super) fn bytes(steps: u64, at: Timestamp, entry: Entry) -> Vec<u8> {
    Record { number: steps + 1, at, entry }.to_bytes()
}

/// Writes the record of a step whose digest has just come into the row of the queue.
pub(super) async fn advanced(lease: &mut Lease, queue: &str, record: &[u8]) -> Op<()> {
    lease.exec(sql::LOG_ADVANCED, vec![record.into(), queue.into()]).await?;
    Ok(())
}

/// Where a queue stands, whose row is locked.
async fn standing(lease: &mut Lease, queue: &str) -> Op<Standing> {
    let row = lease.rows(sql::QUEUE_STANDING, vec![queue.into()]).await?.pop();
    let mut row = row.ok_or_else(|| Failure::Corrupt(format!("no queue {queue}")))?;
    let serving = rows::count(take(&mut row, 0)?, "serving")?;
    let terms = Terms::from(&load::settings(&mut row, 1)?);
    let passed = (&load::passed(lease, queue).await?).into();
    let draw = load::drawing(lease, queue).await?.flatten();
    Ok(Standing { serving, passed, terms, draw })
}

/// Begins the logs of those queues that have none: of one that was just made, or from before there were
/// any.
pub(super) async fn begin(lease: &mut Lease) -> Op<()> {
    for mut row in lease.rows(sql::LOGLESS, vec![]).await? {
        let name: String = take(&mut row, 0)?;
        let queue = rows::queue_name(&name)?;
        let number = rows::count(take(&mut row, 1)?, "steps")?;
        let at = Timestamp(load::number(lease, sql::NOW).await?);
        let entry = Entry::Stands(standing(lease, &name).await?);
        put(lease, &name, &chain::first(&queue, number, at, entry)).await?;
        mark(lease, &name, number, at).await?;
    }
    Ok(())
}

/// Forgets what is old, and says where the queue stands. Returns how many records were forgotten; `None` where
/// nothing was to be done.
pub(super) async fn shorten(lease: &mut Lease, shorten: &ShortenLog) -> Op<Option<u64>> {
    let ShortenLog { queue, kept_since, marked_before, max } = shorten;
    let name = queue.as_str();
    let last = marks(lease, name, 1).await?.pop();
    let kept = lease.rows(sql::MARK_KEPT, vec![name.into(), kept_since.0.into()]).await?.pop();
    let kept: Option<i64> = match kept {
        Some(mut row) => take(&mut row, 0)?,
        None => None,
    };
    let is_marked = last.is_some_and(|(_, at)| at >= *marked_before);
    if is_marked && kept.is_none() {
        return Ok(None);
    }
    let Some(Locked { head, .. }) = lock(lease, name).await? else { return Ok(None) };
    // Another instance may have said it meanwhile.
    let last = marks(lease, name, 1).await?.pop();
    let is_old = |(number, at): (u64, Timestamp)| at < *marked_before && number < head.number;
    if last.is_none_or(is_old) {
        let now = Timestamp(load::number(lease, sql::NOW).await?);
        let entry = Entry::Stands(standing(lease, name).await?);
        append(lease, name, head, now, entry).await?;
    }
    let Some(kept) = kept else { return Ok(Some(0)) };
    // Of the last one that is forgotten the digest is left, from which the rest goes on.
    let values = vec![name.into(), (kept - 1).into(), (*max).into()];
    let forgotten = lease.exec(sql::LOG_FORGET, values).await?;
    lease.exec(sql::MARKS_FORGET, vec![name.into(), kept.into()]).await?;
    Ok(Some(forgotten))
}
