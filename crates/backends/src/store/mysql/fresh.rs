//! Looks for what other instances have committed: twice a second where somebody looks, every few
//! seconds elsewhere.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use boxoffice_domain::ids::SessionId;
use tokio::time::{MissedTickBehavior, interval};

use super::inner::Inner;
use super::load::{self, StoredSession};
use super::pool::{Lease, Pool};
use super::publication::{Found, Publication, REPLICA_LAG};
use super::rows::Failure;
use crate::store::catalog::Inventory;
use crate::store::plans::StoredPlan;

/// Sessions that somebody looks at are read this often.
const LOOK: Duration = Duration::from_millis(250);
/// Looks between two searches for new concerts, sessions and seats.
const DISCOVER_LOOKS: u32 = 3;
/// Seats that one look reads of sessions that nobody looks at: 10,000 a second.
const BESIDE_SEATS: i64 = 2_500;
/// Looks for what other instances have done, for as long as the store is open.
pub(super) async fn keep_fresh(store: Weak<Inner>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0_u32;
    let mut next = Turn::default();
    let failing = AtomicBool::new(false);
    loop {
        looks.tick().await;
        let Some(store) = store.upgrade() else { return };
        let discover = count.is_multiple_of(DISCOVER_LOOKS);
        count = count.wrapping_add(1);
        match refresh(&store, discover, &mut next).await {
            Ok(()) => {
                if failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("seats are kept fresh again");
                }
                match store.fence.as_ref().map_or(Ok(()), |fence| fence.check()) {
                    Ok(()) => store.note_alive(),
                    Err(failure) => store.note_fault(&failure.into()),
                }
            }
            Err(failure) => {
                let fault = crate::Fault::from(failure);
                if !failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(error = %fault, "seats cannot be kept fresh; trying on");
                }
                store.note_fault(&fault);
            }
        }
    }
}

async fn refresh(store: &Arc<Inner>, discover: bool, next: &mut Turn) -> Result<(), Failure> {
    if let Some(replica) = &store.replica {
        match refresh_sessions(store, replica, REPLICA_LAG, discover, next).await {
            Ok(()) if !store.replica_failed.swap(false, Ordering::Relaxed) => {}
            Ok(()) => tracing::info!("the replica can be read again"),
            Err(failure) => {
                if !store.replica_failed.swap(true, Ordering::Relaxed) {
                    let fault = crate::Fault::from(failure);
                    tracing::warn!(error = %fault, "the replica cannot be read; reading the primary");
                }
                replica.purge();
                return refresh_sessions(store, &store.look, Duration::ZERO, discover, next).await;
            }
        }
        // A replica that has not got something yet looks like one from which it was removed. So that is
        // asked of the primary, and with it whether the primary can be reached.
        if discover {
            let known = store.publication.known();
            let mut lease = store.look.acquire().await?;
            let concerts = load::concerts(&mut lease, 0).await?;
            let sessions = load::sessions(&mut lease).await?;
            lease.release();
            let sessions: Vec<_> = sessions.into_iter().map(|stored| stored.session).collect();
            store.publication.follow(&known, concerts, &sessions);
        }
        return Ok(());
    }
    refresh_sessions(store, &store.look, Duration::ZERO, discover, next).await
}

async fn refresh_sessions(
    store: &Arc<Inner>,
    pool: &Arc<Pool>,
    lag: Duration,
    discover: bool,
    next: &mut Turn,
) -> Result<(), Failure> {
    let mut lease = match pool.acquire().await {
        Err(Failure::Lost(_)) => pool.acquire().await?,
        lease => lease?,
    };
    let looked = refresh_with(store, &mut lease, lag, discover, next).await;
    match looked {
        Ok(()) => lease.release(),
        Err(_) => pool.purge(),
    }
    looked
}

async fn refresh_with(
    store: &Arc<Inner>,
    lease: &mut Lease,
    lag: Duration,
    discover: bool,
    next: &mut Turn,
) -> Result<(), Failure> {
    let publication = &store.publication;
    let mut wanted: Vec<Arc<Inventory>> = Vec::new();
    if discover {
        let from_primary = lag.is_zero();
        wanted.extend(discover_new(publication, lease, from_primary).await?);
    }
    let catalog = publication.catalog();
    let inventories: Vec<Arc<Inventory>> =
        catalog.concerts().flat_map(|concert| catalog.inventories(concert.id)).cloned().collect();
    wanted.extend(inventories.iter().filter(|inventory| inventory.was_asked_for()).cloned());
    let mut done: HashSet<SessionId> = HashSet::new();
    for inventory in wanted {
        if done.insert(inventory.session().id) {
            lease.restart();
            let begun = Instant::now();
            let seats = load::seats_of(lease, inventory.session().id).await?;
            publication.merge_read(&inventory, seats, begun, lag);
        }
    }
    // The others in turn and piece by piece, so that nobody's first look is at something old.
    let mut left = BESIDE_SEATS;
    for _ in 0..inventories.len() {
        let Some(inventory) = inventories.get(next.inventory % inventories.len()) else { break };
        lease.restart();
        let begun = Instant::now();
        let seats = load::some_seats_of(lease, inventory.session().id, next.after, left).await?;
        let read = seats.len() as i64;
        let last = seats.last().map(|seat| seat.id.get());
        publication.merge_read(inventory, seats, begun, lag);
        *next = match last {
            Some(last) if read == left => Turn { inventory: next.inventory, after: last },
            _ => Turn { inventory: (next.inventory + 1) % inventories.len(), after: 0 },
        };
        left -= read;
        if left <= 0 {
            break;
        }
    }
    Ok(())
}

/// How far the reading of sessions that nobody looks at has come.
#[derive(Default)]
struct Turn {
    /// The session, among all of them.
    inventory: usize,
    /// The last seat that was read of it.
    after: i64,
}

/// Finds concerts and sessions that were made elsewhere, and follows what was corrected or removed there;
/// returns the sessions that have got seats.
async fn discover_new(
    publication: &Publication,
    lease: &mut Lease,
    from_primary: bool,
) -> Result<Vec<Arc<Inventory>>, Failure> {
    let before = publication.known();
    // A session that is there has its concert there, too, which is read after it.
    let sessions = load::sessions(lease).await?;
    let mut concerts = load::concerts(lease, 0).await?;
    if from_primary {
        let sessions: Vec<_> = sessions.iter().map(|stored| stored.session).collect();
        publication.follow(&before, concerts.clone(), &sessions);
    }
    let known = publication.catalog();
    concerts.retain(|concert| known.concert(concert.id).is_none());
    let mut grown = Vec::new();
    let mut inventories: Vec<Found> = Vec::new();
    for StoredSession { session, seats, plan } in sessions {
        match known.inventory_of(session.id) {
            None => {
                let plan = match plan.map(|digest| (digest, known.plan(&digest).cloned())) {
                    Some((digest, None)) => {
                        // Of what has just been read, another may have it as well.
                        let read = inventories.iter().filter_map(|(.., plan)| plan.as_ref());
                        let mut read =
                            read.filter(|plan: &&Arc<StoredPlan>| plan.digest() == digest);
                        match read.next().cloned() {
                            Some(plan) => Some(plan),
                            None => Some(load::plan_of(lease, session.id, digest).await?),
                        }
                    }
                    Some((_, plan)) => plan,
                    None => None,
                };
                lease.restart();
                inventories.push((session, load::seats_of(lease, session.id).await?, plan));
            }
            Some(inventory) if inventory.total() < seats as usize => grown.push(inventory.clone()),
            Some(_) => {}
        }
    }
    let called_off = load::called_off(lease).await?;
    publication.show_found(concerts, inventories, called_off);
    Ok(grown)
}
