//! What is for sale, as everybody here sees it. What this instance commits is published at once; what
//! other instances commit is found by looking.
//!
//! A commit that was published must not be overwritten by what was read before it, nor by an earlier
//! commit of this instance that gets here later. So it is kept for a while which seats were published,
//! when, and in which turn.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use boxoffice_domain::ids::{SeatId, SessionId};
use boxoffice_domain::sales::{Concert, Seat, SeatState, Session};
use parking_lot::Mutex;

use crate::store::catalog::{Catalog, Inventory, Made};

/// A replica that is further behind than this is not fit for use.
pub(super) const REPLICA_LAG: Duration = Duration::from_secs(30);

/// A seat, its session, and the state in which it is to be seen.
pub(super) type SeatShown = (SeatId, SessionId, SeatState);

/// What is published.
pub(super) struct Publication {
    catalog: ArcSwap<Catalog>,
    /// Seats that commits of this instance have changed, and when that was published. Also what
    /// makes publishing one step.
    own: Mutex<Own>,
    orders: AtomicU64,
}

/// When a transaction had its locks, among others of this instance. Two that lock the same seat have
/// it one after the other, so the later turn is the later commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LockOrder(u64);

struct Own {
    seats: HashMap<SeatId, (Instant, LockOrder)>,
    pruned: Instant,
}

impl Publication {
    pub(super) fn new(catalog: Catalog) -> Self {
        let now = Instant::now();
        Self {
            catalog: ArcSwap::from_pointee(catalog),
            own: Mutex::new(Own { seats: HashMap::new(), pruned: now }),
            orders: AtomicU64::new(0),
        }
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Returns the turn of a transaction that has its locks, and gives none of them up before this
    /// returns.
    pub(super) fn next_order(&self) -> LockOrder {
        LockOrder(self.orders.fetch_add(1, Ordering::SeqCst))
    }

    /// Lets everybody see what was committed, but for seats that somebody in a later turn has
    /// published already.
    pub(super) fn publish(&self, order: LockOrder, seats: &[SeatShown], made: Vec<Made>) {
        if seats.is_empty() && made.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut own = self.own.lock();
        if now - own.pruned > REPLICA_LAG {
            own.pruned = now;
            own.seats.retain(|_, (at, _)| now - *at <= REPLICA_LAG);
        }
        for made in made {
            self.show(made);
        }
        let mut by_session: HashMap<SessionId, Vec<(SeatId, SeatState)>> = HashMap::new();
        for (seat, session, state) in seats {
            let last = own.seats.entry(*seat).or_insert((now, order));
            if last.1 > order {
                continue;
            }
            *last = (now, order);
            by_session.entry(*session).or_default().push((*seat, *state));
        }
        let catalog = self.catalog.load();
        for (session, changes) in by_session {
            if let Some(inventory) = catalog.inventory_of(session) {
                inventory.publish(&changes);
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
            Made::Inventory(session, seats) => match catalog.inventory_of(session.id) {
                None => {
                    let inventory = Arc::new(Inventory::new(session, seats));
                    self.catalog.store(Arc::new(catalog.with_inventory(inventory)));
                }
                Some(inventory) => inventory.merge(seats, true, |_| true),
            },
            Made::Seats(session, seats) => {
                if let Some(inventory) = catalog.inventory_of(session) {
                    inventory.merge(seats, true, |_| true);
                }
            }
        }
    }

    pub(super) fn show_found(
        &self,
        concerts: Vec<Concert>,
        inventories: Vec<(Session, Vec<Seat>)>,
    ) {
        let _own = self.own.lock();
        concerts.into_iter().for_each(|concert| self.show(Made::Concert(concert)));
        inventories
            .into_iter()
            .for_each(|(session, seats)| self.show(Made::Inventory(session, seats)));
    }

    /// Takes over the seats of a session that were read at `begun`; `lag` is how far the server
    /// that they were read from may have been behind.
    pub(super) fn merge_read(
        &self,
        inventory: &Inventory,
        seats: Vec<Seat>,
        begun: Instant,
        lag: Duration,
    ) {
        let own = self.own.lock();
        let may_be_old = !lag.is_zero();
        inventory.merge(seats, may_be_old, |id| {
            own.seats.get(&id).is_some_and(|(at, _)| *at + lag >= begun)
        });
    }

    /// Whether seats were published since `begun`.
    pub(super) fn is_newer(&self, seat: SeatId, begun: Instant) -> bool {
        self.own.lock().seats.get(&seat).is_some_and(|(at, _)| *at >= begun)
    }

    /// The seats, as far as it is certain what they are. A sold seat is not given back. A hold may have
    /// been given back through another instance, so its seat is shown as free, for the store to
    /// decide. `None` where the session may have seats that this instance has not heard of.
    pub(super) fn seats_for_refusal(
        inventory: &Inventory,
        ids: &[SeatId],
    ) -> Option<Vec<Option<Seat>>> {
        let mut seats = inventory.find(ids);
        for seat in &mut seats {
            let seat = seat.as_mut()?;
            if matches!(seat.state, SeatState::Held { .. }) {
                seat.state = SeatState::Available;
            }
        }
        Some(seats)
    }
}
