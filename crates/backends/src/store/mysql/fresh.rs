//! Keeps the catalogue in memory fresh. What this instance commits is published at once; what other
//! instances commit is found by looking: twice a second where somebody looks, every few seconds
//! elsewhere.
//!
//! Two things must not happen: that a commit which was published is overwritten by what was read
//! before it, and that of two commits on one seat the older is published last. So each commit takes
//! a number while it still has the locks of its seats, and it is kept for a while which seats were
//! published and when.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use boxoffice_domain::ids::{SeatId, SessionId};
use boxoffice_domain::sales::{Concert, Seat, SeatState, Session};
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use super::load;
use super::pool::{Lease, Pool};
use super::rows::Failure;
use super::{Inner, Made};
use crate::store::hall::{Catalog, Hall};

/// Sessions that somebody looks at are read this often.
const LOOK: Duration = Duration::from_millis(250);
/// Looks between two searches for new concerts, sessions and seats.
const DISCOVER_LOOKS: u32 = 3;
/// Seats that one look reads of sessions that nobody looks at: 10,000 a second, or one session.
const BESIDE_SEATS: usize = 2_500;
/// A replica that is further behind than this is not fit for use.
const REPLICA_LAG: Duration = Duration::from_secs(30);

/// What is published, and by which commit.
pub(super) struct Publication {
    catalog: ArcSwap<Catalog>,
    /// The number of the last commit, in an order that agrees with the locks of each seat.
    order: AtomicU64,
    /// Seats that commits of this instance have changed: the last commit, and when it was
    /// published. Also what makes publishing one step.
    own: Mutex<Own>,
}

struct Own {
    seats: HashMap<SeatId, (u64, Instant)>,
    pruned: Instant,
}

impl Publication {
    pub(super) fn new(catalog: Catalog) -> Self {
        let now = Instant::now();
        Self {
            catalog: ArcSwap::from_pointee(catalog),
            order: AtomicU64::new(0),
            own: Mutex::new(Own { seats: HashMap::new(), pruned: now }),
        }
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// A number for a commit that is about to be sent, while it has the locks of its seats.
    pub(super) fn number(&self) -> u64 {
        self.order.fetch_add(1, Ordering::SeqCst)
    }

    /// The commit with this number is durable: lets everybody see what it did.
    pub(super) fn publish(
        &self,
        number: u64,
        changed: &[(SessionId, SeatId, SeatState)],
        made: Vec<Made>,
    ) {
        if changed.is_empty() && made.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut own = self.own.lock();
        if now - own.pruned > REPLICA_LAG {
            own.pruned = now;
            own.seats.retain(|_, (_, at)| now - *at <= REPLICA_LAG);
        }
        for made in made {
            self.show(made);
        }
        let mut by_session: HashMap<SessionId, Vec<(SeatId, SeatState)>> = HashMap::new();
        for (session, seat, state) in changed {
            if own.seats.get(seat).is_none_or(|(last, _)| *last < number) {
                own.seats.insert(*seat, (number, now));
                by_session.entry(*session).or_default().push((*seat, *state));
            }
        }
        let catalog = self.catalog.load();
        for (session, changes) in by_session {
            if let Some(hall) = catalog.hall_of(session) {
                hall.publish(&changes);
            }
        }
    }

    /// Shows what was made, here or elsewhere, unless it is shown already.
    fn show(&self, made: Made) {
        let catalog = self.catalog.load();
        match made {
            Made::Concert(concert) => {
                if catalog.concert(concert.id).is_none() {
                    self.catalog.store(Arc::new(catalog.with_concert(concert)));
                }
            }
            Made::Hall(session, seats) => match catalog.hall_of(session.id) {
                None => {
                    let hall = Arc::new(Hall::new(session, seats));
                    self.catalog.store(Arc::new(catalog.with_hall(hall)));
                }
                Some(hall) => hall.merge(seats, |_| true),
            },
            Made::Seats(session, seats) => {
                if let Some(hall) = catalog.hall_of(session) {
                    hall.merge(seats, |_| true);
                }
            }
        }
    }

    fn show_found(&self, concerts: Vec<Concert>, halls: Vec<(Session, Vec<Seat>)>) {
        let _own = self.own.lock();
        concerts.into_iter().for_each(|concert| self.show(Made::Concert(concert)));
        halls.into_iter().for_each(|(session, seats)| self.show(Made::Hall(session, seats)));
    }

    /// Takes over the seats of a session that were read at `begun`; `lag` is how far the server
    /// that they were read from may have been behind.
    fn take_over(&self, hall: &Hall, seats: Vec<Seat>, begun: Instant, lag: Duration) {
        let own = self.own.lock();
        hall.merge(seats, |id| own.seats.get(&id).is_some_and(|(_, at)| *at + lag >= begun));
    }

    /// Whether seats were published since `begun`.
    pub(super) fn is_newer(&self, seat: SeatId, begun: Instant) -> bool {
        self.own.lock().seats.get(&seat).is_some_and(|(_, at)| *at >= begun)
    }

    /// The seats, as far as it is certain what they are. A sold seat stays sold. A hold may have
    /// been given back through another instance, so its seat is shown as free, for the store to
    /// decide. `None` where the session may have seats that this instance has not heard of.
    pub(super) fn certain(hall: &Hall, ids: &[SeatId]) -> Option<Vec<Option<Seat>>> {
        let mut seats = hall.find(ids);
        for seat in &mut seats {
            let seat = seat.as_mut()?;
            if matches!(seat.state, SeatState::Held { .. }) {
                seat.state = SeatState::Available;
            }
        }
        Some(seats)
    }
}

/// Looks for what other instances have done, for as long as the store is open.
pub(super) async fn keep_fresh(store: Weak<Inner>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0_u32;
    let mut next = 0_usize;
    let failing = AtomicBool::new(false);
    loop {
        looks.tick().await;
        let Some(store) = store.upgrade() else { return };
        let discover = count.is_multiple_of(DISCOVER_LOOKS);
        count = count.wrapping_add(1);
        match look(&store, discover, &mut next).await {
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

async fn look(store: &Arc<Inner>, discover: bool, next: &mut usize) -> Result<(), Failure> {
    if let Some(replica) = &store.replica {
        match look_at(store, replica, REPLICA_LAG, discover, next).await {
            Ok(()) if !store.replica_failed.swap(false, Ordering::Relaxed) => {}
            Ok(()) => tracing::info!("the replica can be read again"),
            Err(failure) => {
                if !store.replica_failed.swap(true, Ordering::Relaxed) {
                    let fault = crate::Fault::from(failure);
                    tracing::warn!(error = %fault, "the replica cannot be read; reading the primary");
                }
                replica.purge();
                return look_at(store, &store.look, Duration::ZERO, discover, next).await;
            }
        }
        // Whether the primary can be reached is asked of the primary.
        if discover {
            let mut lease = store.look.acquire().await?;
            lease.text("DO 1").await?;
            lease.give_back();
        }
        return Ok(());
    }
    look_at(store, &store.look, Duration::ZERO, discover, next).await
}

async fn look_at(
    store: &Arc<Inner>,
    pool: &Arc<Pool>,
    lag: Duration,
    discover: bool,
    next: &mut usize,
) -> Result<(), Failure> {
    let mut lease = match pool.acquire().await {
        Err(Failure::Lost(_)) => pool.acquire().await?,
        lease => lease?,
    };
    let looked = look_with(store, &mut lease, lag, discover, next).await;
    match looked {
        Ok(()) => lease.give_back(),
        Err(_) => pool.purge(),
    }
    looked
}

async fn look_with(
    store: &Arc<Inner>,
    lease: &mut Lease,
    lag: Duration,
    discover: bool,
    next: &mut usize,
) -> Result<(), Failure> {
    let publication = &store.publication;
    let mut wanted: Vec<Arc<Hall>> = Vec::new();
    if discover {
        wanted.extend(discover_new(publication, lease).await?);
    }
    let catalog = publication.catalog();
    let halls: Vec<Arc<Hall>> =
        catalog.concerts().flat_map(|concert| catalog.halls(concert.id)).cloned().collect();
    wanted.extend(halls.iter().filter(|hall| hall.was_looked_at()).cloned());
    // The others in turn, so that nobody's first look is at something old.
    let mut seats = 0;
    for _ in 0..halls.len() {
        let hall = &halls[*next % halls.len()];
        if seats > 0 && seats + hall.total() > BESIDE_SEATS {
            break;
        }
        seats += hall.total();
        wanted.push(hall.clone());
        *next = (*next + 1) % halls.len();
    }
    let mut done: HashSet<SessionId> = HashSet::new();
    for hall in wanted {
        if done.insert(hall.session().id) {
            lease.restart();
            let begun = Instant::now();
            let seats = load::seats_of(lease, hall.session().id).await?;
            publication.take_over(&hall, seats, begun, lag);
        }
    }
    Ok(())
}

/// Finds concerts and sessions that were made elsewhere; gives the sessions that have got seats.
async fn discover_new(
    publication: &Publication,
    lease: &mut Lease,
) -> Result<Vec<Arc<Hall>>, Failure> {
    let sessions = load::sessions(lease).await?;
    let known = publication.catalog();
    // Ids come in order, but commits do not: a lower one may show up after a higher one.
    let mut after = i64::MAX;
    for mut row in lease.rows(super::sql::CONCERT_IDS, vec![]).await? {
        let id: i64 = super::rows::take(&mut row, 0)?;
        let is_new = boxoffice_domain::ids::ConcertId::new(id)
            .is_some_and(|concert| known.concert(concert).is_none());
        if is_new {
            after = after.min(id - 1);
        }
    }
    let concerts = if after < i64::MAX { load::concerts(lease, after).await? } else { Vec::new() };
    let mut grown = Vec::new();
    let mut halls = Vec::new();
    for (session, seats) in sessions {
        match known.hall_of(session.id) {
            None => {
                lease.restart();
                halls.push((session, load::seats_of(lease, session.id).await?));
            }
            Some(hall) if hall.total() < seats as usize => grown.push(hall.clone()),
            Some(_) => {}
        }
    }
    publication.show_found(concerts, halls);
    Ok(grown)
}
