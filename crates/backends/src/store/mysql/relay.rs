//! Events on their way out, with several instances carrying them.
//!
//! The events of one key must keep their order, whoever carries them. So they are divided into
//! shards by their key, and a relay works on the shards whose rows in `outbox_shard` it has locked;
//! the lock ends with the transaction in which its events are marked as published.
//!
//! A commit can be seen before it is on the disk, and a server that crashes then forgets it. An event
//! that had left by then would tell of something that never happened. So the log is flushed first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::inner::Inner;
use super::pool::{Lane, Lease, Packet};
use super::rows::{Failure, take as column};
use super::sql;
use crate::Fault;
use crate::cloud_event::OutboxRow;

/// How long to wait for the claim before this one to be given up.
const BEFORE: Duration = Duration::from_secs(5);

/// The transaction that has the shards of some events. Dropped, it gives them up: the events are
/// still there for whoever comes next.
pub(in crate::store) struct HeldShards {
    held: Option<(Lease, OwnedSemaphorePermit)>,
}

impl Drop for HeldShards {
    fn drop(&mut self) {
        if let Some((lease, turn)) = self.held.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                lease.roll_back().await;
                drop(turn);
            });
        }
    }
}

/// Takes some events, and what keeps other relays from them.
pub(super) async fn take(
    store: &Arc<Inner>,
    max: u32,
) -> Result<(Vec<OutboxRow>, HeldShards), Fault> {
    let turn = match timeout(BEFORE, store.relay.clone().acquire_owned()).await {
        Ok(Ok(turn)) => turn,
        _ => return Err(Fault::Unavailable("events are being published already".into())),
    };
    let mut lease = store.begin(Lane::Relay).await?;
    let found = match lock_shards(&mut lease, max).await {
        // Over another connection, because the shards must stay locked.
        Ok(rows) if !rows.is_empty() => store.flush_log(Lane::Work).await.map(|()| rows),
        found => found,
    };
    match found {
        Ok(rows) => Ok((rows, HeldShards { held: Some((lease, turn)) })),
        Err(failure) => {
            lease.roll_back().await;
            if matches!(failure, Failure::Late(_)) {
                store.relaying.purge();
            }
            Err(failure.into())
        }
    }
}

async fn lock_shards(lease: &mut Lease, max: u32) -> Result<Vec<OutboxRow>, Failure> {
    let mut values: Vec<Value> = Vec::new();
    for mut row in lease.rows(sql::SHARDS_LOCK, vec![]).await? {
        values.push(column::<i64>(&mut row, 0)?.into());
    }
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let text = sql::listed(sql::EVENTS_OF_SHARDS, values.len());
    values.push(max.into());
    let mut rows = Vec::new();
    for mut row in lease.rows(&text, values).await? {
        rows.push(OutboxRow {
            id: column(&mut row, 0)?,
            topic: column(&mut row, 1)?,
            key: column(&mut row, 2)?,
            body: column(&mut row, 3)?,
        });
    }
    Ok(rows)
}

/// Marks events as published that were taken with this claim.
pub(super) async fn mark(
    store: &Arc<Inner>,
    rows: Vec<OutboxRow>,
    shards: Option<HeldShards>,
) -> Result<(), Fault> {
    let claimed = shards.and_then(|mut shards| shards.held.take());
    let Some((mut lease, turn)) = claimed else {
        return Err(Fault::Unavailable("these events were not taken from this store".into()));
    };
    // Publishing took its own time.
    lease.restart();
    let done = match forget(&mut lease, &rows).await {
        Ok(()) => lease.commit().await,
        Err(failure) => Err(failure),
    };
    match done {
        Ok(()) => lease.release(),
        Err(failure) => {
            lease.roll_back().await;
            // Marked or not: whoever publishes them once more does no harm.
            return Err(failure.into());
        }
    }
    drop(turn);
    store.stats.recovered();
    Ok(())
}

async fn forget(lease: &mut Lease, rows: &[OutboxRow]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    // Ids follow each other nearly always, and a run of them is one look-up.
    let mut packet = Packet::default();
    for run in rows.chunk_by(|row, next| next.id == row.id + 1) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        packet
            .push(&sql::filled(sql::EVENTS_FORGET, &[&first.id.to_string(), &last.id.to_string()]));
    }
    let ran = lease.packet(&packet, None).await.map_err(|(_, failure)| failure)?;
    // What was there, not what we were given: an event is counted once.
    let forgotten: u64 = ran.iter().map(|ran| ran.found).sum();
    let mut sums: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for row in rows {
        let (count, last) = sums.entry(&row.topic).or_default();
        *count += 1;
        *last = (*last).max(row.id);
    }
    if forgotten == 0 {
        return Ok(());
    }
    if forgotten != rows.len() as u64 {
        return Err(Failure::Corrupt(format!(
            "of {} events that were published only {forgotten} were there",
            rows.len()
        )));
    }
    for (topic, (count, last)) in sums {
        lease.exec(sql::PUBLISHED_ADD, vec![topic.into(), count.into(), last.into()]).await?;
    }
    Ok(())
}
