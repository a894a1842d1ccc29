//! What is for sale, as everybody here sees it. What this instance commits is published at once; what
//! other instances commit is found by looking.
//!
//! A commit that was published must not be overwritten by what was read before it, nor by an earlier
//! commit of this instance that gets here later. So it is kept for a while which seats were published,
//! when, and with locks of which order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use boxoffice_domain::ids::{ConcertId, SeatId, SessionId};
use boxoffice_domain::sales::{Concert, Seat, SeatState, Session};
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;

use crate::store::catalog::{Catalog, Inventory, Made};
use crate::store::plans::StoredPlan;

/// A replica that is further behind than this is not fit for use.
pub(super) const REPLICA_LAG: Duration = Duration::from_secs(30);

/// A seat, its session, and the state in which it is to be seen.
pub(super) type SeatShown = (SeatId, SessionId, SeatState);

/// A session that was made elsewhere, with its seats and its plan.
pub(super) type Found = (Session, Vec<Seat>, Option<Arc<StoredPlan>>);

/// What is published.
pub(super) struct Publication {
    catalog: ArcSwap<Catalog>,
    /// Seats that commits of this instance have changed, and when that was published. Also what
    /// makes publishing one step.
    own: Mutex<Own>,
    next_order: AtomicU64,
}

/// The place of a transaction's locks among those of this instance. Two that lock the same seat have
/// it one after the other, so the later locks are those of the later commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LockOrder(u64);

/// What was shown at a moment.
pub(super) struct Known {
    catalog: Arc<Catalog>,
    sessions: Vec<Session>,
}

struct Own {
    seats: HashMap<SeatId, (Instant, LockOrder)>,
    /// The last corrections of this instance, which may get here in another order than to the store.
    concerts: HashMap<ConcertId, LockOrder>,
    sessions: HashMap<SessionId, LockOrder>,
    pruned: Instant,
}

impl Publication {
    pub(super) fn new(catalog: Catalog) -> Self {
        let now = Instant::now();
        Self {
            catalog: ArcSwap::from_pointee(catalog),
            own: Mutex::new(Own {
                seats: HashMap::new(),
                concerts: HashMap::new(),
                sessions: HashMap::new(),
                pruned: now,
            }),
            next_order: AtomicU64::new(0),
        }
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Returns the order of a transaction's locks. It has them all, and gives none up before this
    /// returns.
    pub(super) fn next_order(&self) -> LockOrder {
        LockOrder(self.next_order.fetch_add(1, Ordering::SeqCst))
    }

    /// Lets everybody see what was committed, but for seats that somebody with later locks has
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
            if own.is_last(&made, order) {
                self.show(made);
            }
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
            Made::Inventory(session, seats, plan) => match catalog.inventory_of(session.id) {
                None => {
                    let inventory = Arc::new(Inventory::new(session, seats).with_plan(plan));
                    self.catalog.store(Arc::new(catalog.with_inventory(inventory)));
                }
                Some(inventory) => inventory.merge(seats, |_| true),
            },
            Made::CalledOff(session, at) => catalog.call_off(session, at),
            Made::Seats(session, seats) => {
                if let Some(inventory) = catalog.inventory_of(session) {
                    inventory.merge(seats, |_| true);
                }
            }
            Made::ConcertChanged(concert) => {
                if catalog.concert(concert.id).is_some_and(|known| **known != concert) {
                    self.catalog.store(Arc::new(catalog.with_concert(concert)));
                }
            }
            Made::SessionMoved(session, starts_at) => {
                if let Some(inventory) = catalog.inventory_of(session) {
                    inventory.move_to(starts_at);
                }
            }
            Made::SessionGone(session) => {
                if catalog.inventory_of(session).is_some() {
                    self.catalog.store(Arc::new(catalog.without_session(session)));
                }
            }
            Made::ConcertGone(concert) => {
                if catalog.concert(concert).is_some() {
                    self.catalog.store(Arc::new(catalog.without_concert(concert)));
                }
            }
        }
    }

    pub(super) fn show_found(
        &self,
        concerts: Vec<Concert>,
        inventories: Vec<Found>,
        called_off: Vec<(SessionId, Timestamp)>,
    ) {
        let _own = self.own.lock();
        concerts.into_iter().for_each(|concert| self.show(Made::Concert(concert)));
        inventories
            .into_iter()
            .for_each(|(session, seats, plan)| self.show(Made::Inventory(session, seats, plan)));
        let show = |(session, at)| self.show(Made::CalledOff(session, at));
        called_off.into_iter().for_each(show);
    }

    /// What is shown now, for who is about to read the same from the store.
    pub(super) fn known(&self) -> Known {
        let catalog = self.catalog();
        let inventories = catalog.concerts().flat_map(|concert| catalog.inventories(concert.id));
        let sessions = inventories.map(|inventory| inventory.session()).collect();
        Known { catalog, sessions }
    }

    /// Takes over what was corrected or removed elsewhere: `concerts` and `sessions` are all that the
    /// primary had after `known` was looked at. What has changed here since then is left for the next
    /// time.
    pub(super) fn follow(&self, known: &Known, concerts: Vec<Concert>, sessions: &[Session]) {
        let _own = self.own.lock();
        let Known { catalog: known, sessions: known_sessions } = known;
        let there: HashSet<ConcertId> = concerts.iter().map(|concert| concert.id).collect();
        for concert in concerts {
            let current = self.catalog.load();
            let is_as_known = match (known.concert(concert.id), current.concert(concert.id)) {
                (Some(known), Some(current)) => Arc::ptr_eq(known, current),
                _ => false,
            };
            if is_as_known {
                self.show(Made::ConcertChanged(concert));
            }
        }
        for concert in known.concerts().filter(|concert| !there.contains(&concert.id)) {
            self.show(Made::ConcertGone(concert.id));
        }
        let there: HashMap<SessionId, Session> =
            sessions.iter().map(|session| (session.id, *session)).collect();
        for session in known_sessions {
            let current = self.catalog.load().inventory_of(session.id).map(|it| it.session());
            match there.get(&session.id) {
                None => self.show(Made::SessionGone(session.id)),
                Some(stored) if current == Some(*session) => {
                    self.show(Made::SessionMoved(session.id, stored.starts_at));
                }
                Some(_) => {}
            }
        }
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
        inventory.merge(seats, |known| {
            own.seats.get(&known.id).is_some_and(|(at, _)| *at + lag >= begun)
        });
    }

    /// Whether seats were published since `begun`.
    pub(super) fn is_newer(&self, seat: SeatId, begun: Instant) -> bool {
        self.own.lock().seats.get(&seat).is_some_and(|(at, _)| *at >= begun)
    }

    /// The seats, as far as it is certain what they are. A hold may have been given back through
    /// another instance, so its seat is shown as free, for the store to decide. A sold seat stays so
    /// until this instance hears of a refund elsewhere: they are rare, and nearly all of a rush is for
    /// seats that are sold. `None` where the session may have seats that this instance has not heard of.
    pub(super) fn seats_for_refusal(
        inventory: &Inventory,
        ids: &[SeatId],
    ) -> Option<Vec<Option<Seat>>> {
        let mut seats = inventory.find(ids);
        for seat in &mut seats {
            let seat = seat.as_mut()?;
            if matches!(seat.state, SeatState::Held { .. } | SeatState::Released { .. }) {
                seat.state = SeatState::Available;
            }
        }
        Some(seats)
    }
}

impl Own {
    /// Whether nobody with later locks has published something about the same before.
    fn is_last(&mut self, made: &Made, order: LockOrder) -> bool {
        let last = match made {
            Made::ConcertChanged(concert) => self.concerts.entry(concert.id).or_insert(order),
            Made::SessionMoved(session, _) => self.sessions.entry(*session).or_insert(order),
            Made::Concert(_)
            | Made::Inventory(..)
            | Made::Seats(..)
            | Made::CalledOff(..)
            | Made::SessionGone(_)
            | Made::ConcertGone(_) => return true,
        };
        let is_last = *last <= order;
        *last = order.max(*last);
        is_last
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use boxoffice_domain::ids::{ConcertId, ReservationId};

    use super::*;

    const LATER: Timestamp = Timestamp(9);

    fn publication() -> (Publication, Arc<Inventory>, SeatId) {
        let (id, number) = (SeatId::new(5).unwrap(), 1);
        let seat = Seat { id, number, price: 1, state: SeatState::Available };
        let (id, concert) = (SessionId::new(2).unwrap(), ConcertId::new(1).unwrap());
        let inventory = Inventory::new(Session { id, concert, starts_at: LATER }, vec![seat]);
        let inventory = Arc::new(inventory);
        let catalog = Catalog::default().with_inventory(inventory.clone());
        (Publication::new(catalog), inventory, seat.id)
    }

    fn held_by(id: i64) -> SeatState {
        SeatState::Held { reservation: ReservationId::new(id).unwrap(), until: LATER }
    }

    fn state(inventory: &Inventory, seat: SeatId) -> SeatState {
        inventory.find(&[seat])[0].unwrap().state
    }

    #[test]
    fn a_commit_that_gets_here_late_does_not_hide_the_one_after_it() {
        let (publication, inventory, seat) = publication();
        let (first, second) = (publication.next_order(), publication.next_order());
        let session = inventory.session().id;
        publication.publish(second, &[(seat, session, held_by(2))], Vec::new());
        publication.publish(first, &[(seat, session, SeatState::Available)], Vec::new());
        assert_eq!(state(&inventory, seat), held_by(2));
        let third = publication.next_order();
        publication.publish(third, &[(seat, session, SeatState::Available)], Vec::new());
        assert_eq!(state(&inventory, seat), SeatState::Available);
    }

    #[test]
    fn a_read_takes_a_sale_back_unless_it_may_be_older() {
        let (publication, inventory, seat) = publication();
        let sold = SeatState::Sold { reservation: ReservationId::new(1).unwrap() };
        let read = |state, begun, lag| {
            let seat = Seat { id: seat, number: 1, price: 1, state };
            publication.merge_read(&inventory, vec![seat], begun, lag);
        };
        read(sold, Instant::now(), Duration::ZERO);
        // As after a refund through another instance.
        read(SeatState::Available, Instant::now(), REPLICA_LAG);
        assert_eq!(state(&inventory, seat), SeatState::Available);
        // It does not where the sale was committed here after the read began, or where the server that
        // was read may not have had it yet.
        let begun = Instant::now();
        let session = inventory.session().id;
        publication.publish(publication.next_order(), &[(seat, session, sold)], Vec::new());
        read(SeatState::Available, begun, Duration::ZERO);
        assert_eq!(state(&inventory, seat), sold);
        read(SeatState::Available, Instant::now(), REPLICA_LAG);
        assert_eq!(state(&inventory, seat), sold);
    }
}
