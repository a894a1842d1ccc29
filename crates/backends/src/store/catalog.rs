//! The seats in memory, as of the last commit: what lists are made from, and what lets a hold on a
//! taken seat be refused without a transaction.
//!
//! One writer publishes after each commit and before it acknowledges, so whoever has been told of
//! a change sees it here. A list may be behind by the commit that is under way; the hold decides.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use boxoffice_domain::ids::{ConcertId, ReservationId, SeatId, SessionId};
use boxoffice_domain::sales::{Concert, Seat, SeatState, Session};
use boxoffice_domain::seating::{PlaceSet, Plan, Wish};
use boxoffice_domain::time::Timestamp;
use parking_lot::{Mutex, RwLock};

use super::digest::Digest;
use super::plans::StoredPlan;

/// What is for sale.
#[derive(Default)]
pub struct Catalog {
    concerts: BTreeMap<ConcertId, Arc<Concert>>,
    inventories: HashMap<SessionId, Arc<Inventory>>,
    by_concert: HashMap<ConcertId, Vec<Arc<Inventory>>>,
    /// The plans that sessions have, each once.
    plans: HashMap<Digest, Arc<StoredPlan>>,
}

impl Catalog {
    /// Every concert, by id.
    pub fn concerts(&self) -> impl Iterator<Item = &Arc<Concert>> {
        self.concerts.values()
    }

    /// The concert with this id.
    pub fn concert(&self, id: ConcertId) -> Option<&Arc<Concert>> {
        self.concerts.get(&id)
    }

    /// The session with this id, if it is of this concert.
    pub fn inventory(&self, concert: ConcertId, session: SessionId) -> Option<&Arc<Inventory>> {
        self.inventories.get(&session).filter(|inventory| inventory.session.concert == concert)
    }

    /// The session with this id, of whichever concert.
    pub fn inventory_of(&self, session: SessionId) -> Option<&Arc<Inventory>> {
        self.inventories.get(&session)
    }

    /// The sessions of a concert, in the order in which they were made.
    pub fn inventories(&self, concert: ConcertId) -> &[Arc<Inventory>] {
        self.by_concert.get(&concert).map_or(&[], Vec::as_slice)
    }

    /// The plan with this digest, where a session has it.
    pub fn plan(&self, digest: &Digest) -> Option<&Arc<StoredPlan>> {
        self.plans.get(digest)
    }

    pub(super) fn with_concert(&self, concert: Concert) -> Self {
        let mut concerts = self.concerts.clone();
        concerts.insert(concert.id, Arc::new(concert));
        Self {
            concerts,
            inventories: self.inventories.clone(),
            by_concert: self.by_concert.clone(),
            plans: self.plans.clone(),
        }
    }

    pub(super) fn with_inventory(&self, inventory: Arc<Inventory>) -> Self {
        let mut inventories = self.inventories.clone();
        let mut by_concert = self.by_concert.clone();
        let siblings = by_concert.entry(inventory.session.concert).or_default();
        let place = siblings.partition_point(|sibling| sibling.session.id < inventory.session.id);
        siblings.insert(place, inventory.clone());
        let mut plans = self.plans.clone();
        plans.extend(inventory.plan.iter().map(|plan| (plan.digest(), plan.clone())));
        inventories.insert(inventory.session.id, inventory);
        Self { concerts: self.concerts.clone(), inventories, by_concert, plans }
    }

    pub(super) fn without_session(&self, id: SessionId) -> Self {
        let (mut inventories, mut by_concert) = (self.inventories.clone(), self.by_concert.clone());
        if let Some(inventory) = inventories.remove(&id)
            && let Some(siblings) = by_concert.get_mut(&inventory.session().concert)
        {
            siblings.retain(|sibling| sibling.session.id != id);
        }
        let plans = self.plans_of(&inventories);
        Self { concerts: self.concerts.clone(), inventories, by_concert, plans }
    }

    /// The plans that are left where these are the sessions that are.
    fn plans_of(
        &self,
        inventories: &HashMap<SessionId, Arc<Inventory>>,
    ) -> HashMap<Digest, Arc<StoredPlan>> {
        let used: HashSet<Digest> =
            inventories.values().filter_map(|it| it.plan()).map(|plan| plan.digest()).collect();
        let mut plans = self.plans.clone();
        plans.retain(|digest, _| used.contains(digest));
        plans
    }

    /// Without a concert and its sessions.
    pub(super) fn without_concert(&self, id: ConcertId) -> Self {
        let (mut concerts, mut inventories) = (self.concerts.clone(), self.inventories.clone());
        let mut by_concert = self.by_concert.clone();
        concerts.remove(&id);
        for inventory in by_concert.remove(&id).unwrap_or_default() {
            inventories.remove(&inventory.session.id);
        }
        let plans = self.plans_of(&inventories);
        Self { concerts, inventories, by_concert, plans }
    }

    /// Shows that a session was called off, if it is there.
    pub(super) fn call_off(&self, session: SessionId, at: Timestamp) {
        if let Some(inventory) = self.inventory_of(session) {
            inventory.call_off(at);
        }
    }

    pub(super) fn from_parts(concerts: Vec<Concert>, inventories: Vec<Inventory>) -> Self {
        let mut catalog = Self::default();
        for concert in concerts {
            catalog.concerts.insert(concert.id, Arc::new(concert));
        }
        for inventory in inventories {
            let inventory = Arc::new(inventory);
            catalog.plans.extend(inventory.plan.iter().map(|plan| (plan.digest(), plan.clone())));
            catalog
                .by_concert
                .entry(inventory.session.concert)
                .or_default()
                .push(inventory.clone());
            catalog.inventories.insert(inventory.session.id, inventory);
        }
        catalog
    }
}

/// What a transaction has made or called off, to be shown once it is durable.
pub(super) enum Made {
    /// A concert.
    Concert(Concert),
    /// A session with its first seats, and the hall that they are places of, where there is one.
    Inventory(Session, Vec<Seat>, Option<Arc<StoredPlan>>),
    /// More seats of a session.
    Seats(SessionId, Vec<Seat>),
    /// A concert as it was corrected.
    ConcertChanged(Concert),
    /// A session at another time.
    SessionMoved(SessionId, Timestamp),
    /// A session less.
    SessionGone(SessionId),
    /// A concert less, with its sessions.
    ConcertGone(ConcertId),
    /// Not made: called off.
    CalledOff(SessionId, Timestamp),
}

/// In place of the time at which a session was called off.
const STANDS: i64 = i64::MIN;

/// A session with its seats.
pub struct Inventory {
    /// When it begins, is in `starts_at`.
    session: Session,
    /// The hall that its seats are places of, where there is one.
    plan: Option<Arc<StoredPlan>>,
    /// Where there is none: the seats as one run of numbers, as they were when somebody asked last.
    numbered: Mutex<Option<Arc<Plan>>>,
    /// Milliseconds since 1970. A session can be moved.
    starts_at: AtomicI64,
    /// Sorted by id. A seat is never removed, and a change of state is a store of one word under
    /// the lock, so readers hold up the writer for no longer than a copy of the list.
    seats: RwLock<Vec<Seat>>,
    /// Counts the publications that changed something.
    version: AtomicU64,
    /// Seats that are neither held nor sold, as of the last publication.
    available: AtomicU64,
    /// Seats that nobody has, and that are free at some later time, as of the last publication.
    released: AtomicU64,
    /// Seats that are sold.
    sold: AtomicU64,
    /// The purchases that these were sold in, as they were counted last.
    purchases: Mutex<Purchases>,
    /// When it was called off; [`STANDS`] where it was not. It never takes place again.
    called_off_at: AtomicI64,
    /// Whether anybody has looked at the list or the count since that was last asked.
    asked_for: AtomicBool,
}

/// The seats of a session that have one price, and one grade where they have grades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priced {
    /// The price in points.
    pub price: i64,
    /// The grade, of those of the plan.
    pub grade: Option<u16>,
    /// How many there are.
    pub total: u64,
    /// How many of them nobody has.
    pub free: u64,
    /// How many of them are sold.
    pub sold: u64,
}

impl Priced {
    /// How many are held, or were given back and are not free yet.
    pub const fn held(&self) -> u64 {
        self.total - self.free - self.sold
    }

    /// What was paid for those that are sold, in points.
    pub fn money(&self) -> i64 {
        self.price.saturating_mul(i64::try_from(self.sold).unwrap_or(i64::MAX))
    }
}

/// How many seats had been sold in how many purchases when that was counted last.
#[derive(Default)]
struct Purchases {
    /// The version that was counted.
    version: u64,
    at: Timestamp,
    sold: u64,
    count: u64,
}

/// Purchases are counted no more often than this: all seats are looked at.
const PURCHASES_INTERVAL: Duration = Duration::from_secs(1);

impl Inventory {
    pub(super) fn new(session: Session, seats: Vec<Seat>) -> Self {
        debug_assert!(seats.windows(2).all(|w| w[0].id < w[1].id), "seats come sorted by id");
        let inventory = Self {
            session,
            plan: None,
            numbered: Mutex::default(),
            starts_at: AtomicI64::new(session.starts_at.0),
            seats: RwLock::new(seats),
            version: AtomicU64::new(1),
            available: AtomicU64::new(0),
            released: AtomicU64::new(0),
            sold: AtomicU64::new(0),
            purchases: Mutex::default(),
            called_off_at: AtomicI64::new(STANDS),
            asked_for: AtomicBool::new(false),
        };
        inventory.recount(&inventory.seats.read());
        inventory
    }

    /// The same, with seats that are the places of a hall.
    pub(super) fn with_plan(self, plan: Option<Arc<StoredPlan>>) -> Self {
        Self { plan, ..self }
    }

    /// The hall that its seats are places of, where there is one: the seat with number `n` is the place with
    /// index `n - 1`.
    pub const fn plan(&self) -> Option<&Arc<StoredPlan>> {
        self.plan.as_ref()
    }

    /// The hall; where there is none, as many numbers in one run as there are seats.
    pub fn hall(&self) -> Arc<Plan> {
        if let Some(stored) = &self.plan {
            return stored.plan().clone();
        }
        let count = self.total();
        let mut numbered = self.numbered.lock();
        match &*numbered {
            Some(plan) if plan.places().len() == count => plan.clone(),
            _ => {
                let plan = Arc::new(Plan::numbered(u32::try_from(count).unwrap_or(u32::MAX)));
                numbered.insert(plan).clone()
            }
        }
    }

    /// The session.
    pub fn session(&self) -> Session {
        Session { starts_at: Timestamp(self.starts_at.load(Ordering::Relaxed)), ..self.session }
    }

    /// Moves it to another time.
    pub(super) fn move_to(&self, starts_at: Timestamp) {
        self.starts_at.store(starts_at.0, Ordering::Relaxed);
    }

    /// Between which ids its seats are, where it has any.
    pub(super) fn range(&self) -> Option<(i64, i64)> {
        let seats = self.seats.read();
        Some((seats.first()?.id.get(), seats.last()?.id.get()))
    }

    /// When the session was called off, where it was.
    pub fn called_off(&self) -> Option<Timestamp> {
        let at = self.called_off_at.load(Ordering::Acquire);
        (at != STANDS).then_some(Timestamp(at))
    }

    pub(super) fn call_off(&self, at: Timestamp) {
        // What was said first stays.
        let _ =
            self.called_off_at.compare_exchange(STANDS, at.0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The reservations that have seats, held or sold, each once.
    pub fn owners(&self) -> Vec<ReservationId> {
        let mut owners: Vec<ReservationId> = self
            .seats
            .read()
            .iter()
            .filter_map(|seat| match seat.state {
                SeatState::Held { reservation, .. } | SeatState::Sold { reservation } => {
                    Some(reservation)
                }
                SeatState::Available | SeatState::Released { .. } => None,
            })
            .collect();
        owners.sort_unstable();
        owners.dedup();
        // As long as there are any, what others do to them matters.
        if !owners.is_empty() {
            self.asked_for.store(true, Ordering::Relaxed);
        }
        owners
    }

    /// Rises with every change of any seat.
    pub fn version(&self) -> u64 {
        self.asked_for.store(true, Ordering::Relaxed);
        self.version.load(Ordering::Acquire)
    }

    /// How many seats there are.
    pub fn total(&self) -> usize {
        self.seats.read().len()
    }

    /// How many seats are free. Holds that ran out since something changed last count once they are
    /// tidied up.
    pub fn available(&self, now: Timestamp) -> u64 {
        self.asked_for.store(true, Ordering::Relaxed);
        let available = self.available.load(Ordering::Relaxed);
        if self.released.load(Ordering::Relaxed) == 0 {
            return available;
        }
        let is_free = |seat: &&Seat| match seat.state {
            SeatState::Available => true,
            SeatState::Released { until } => until <= now,
            SeatState::Held { .. } | SeatState::Sold { .. } => false,
        };
        self.seats.read().iter().filter(is_free).count() as u64
    }

    /// How many seats are sold.
    pub fn sold(&self) -> u64 {
        self.sold.load(Ordering::Relaxed)
    }

    /// How many seats are sold and in how many purchases, as of about a second ago.
    pub fn purchases(&self, now: Timestamp) -> (u64, u64) {
        let mut counted = self.purchases.lock();
        let version = self.version.load(Ordering::Acquire);
        // A clock that went back does not put it off.
        let is_recent = now.since(counted.at).max(counted.at.since(now)) < PURCHASES_INTERVAL;
        if version != counted.version && (counted.version == 0 || !is_recent) {
            let mut owners: Vec<ReservationId> = self
                .seats
                .read()
                .iter()
                .filter_map(|seat| match seat.state {
                    SeatState::Sold { reservation } => Some(reservation),
                    _ => None,
                })
                .collect();
            let sold = owners.len() as u64;
            owners.sort_unstable();
            owners.dedup();
            *counted = Purchases { version, at: now, sold, count: owners.len() as u64 };
        }
        (counted.sold, counted.count)
    }

    /// Whether it is sold, now or later.
    pub fn is_sold(&self, concert: &Concert, now: Timestamp) -> bool {
        self.called_off().is_none() && now < concert.sells_until(&self.session())
    }

    /// How many seats there are of each price and grade, and how many of these are free at `now` and sold,
    /// from the highest price on. Whoever wants to know what others do to them says so ([`Inventory::ask_for`]).
    pub fn prices(&self, now: Timestamp) -> Vec<Priced> {
        let grade_of = |seat: &Seat| {
            let index = usize::try_from(seat.number.checked_sub(1)?).ok()?;
            Some(self.plan.as_ref()?.plan().places().get(index)?.grade)
        };
        let mut prices: BTreeMap<(Reverse<i64>, Option<u16>), Priced> = BTreeMap::new();
        // Seats of one price mostly lie together.
        let kind = |seat: &Seat| (Reverse(seat.price), grade_of(seat));
        for seats in self.seats.read().chunk_by(|one, next| kind(one) == kind(next)) {
            let (price, grade) = kind(&seats[0]);
            let none = Priced { price: price.0, grade, total: 0, free: 0, sold: 0 };
            let priced = prices.entry((price, grade)).or_insert(none);
            priced.total += seats.len() as u64;
            for seat in seats {
                priced.free += u64::from(seat.state.is_free(now));
                priced.sold += u64::from(matches!(seat.state, SeatState::Sold { .. }));
            }
        }
        prices.into_values().collect()
    }

    /// The name of a grade of its plan.
    pub fn grade_name(&self, grade: Option<u16>) -> Option<String> {
        self.plan.as_ref()?.plan().grades().get(usize::from(grade?)).cloned()
    }

    /// What others do to its seats matters now, as if somebody looked at them.
    pub fn ask_for(&self) {
        self.asked_for.store(true, Ordering::Relaxed);
    }

    /// A copy of all seats, with the version that it has.
    pub fn snapshot(&self) -> (u64, Vec<Seat>) {
        let seats = self.seats.read();
        (self.version(), seats.clone())
    }

    /// Looks at the seats where they are, and at the version that they have. Publications wait meanwhile.
    pub fn look<R>(&self, look: impl FnOnce(u64, &[Seat]) -> R) -> R {
        let seats = self.seats.read();
        look(self.version(), &seats)
    }

    /// The seats with these ids, `None` for each that this session does not have.
    pub fn find(&self, ids: &[SeatId]) -> Vec<Option<Seat>> {
        let seats = self.seats.read();
        ids.iter().map(|id| index_of(&seats, *id).map(|index| seats[index])).collect()
    }

    /// The places of these seats, by the hall's order; of seats that it does not have, none.
    pub(super) fn indexes(&self, ids: &[SeatId]) -> Vec<u32> {
        let found = self.find(ids).into_iter().flatten();
        found.filter_map(|seat| seat.number.checked_sub(1)).collect()
    }

    /// The seats that are these places of the hall.
    pub(super) fn seats_at(&self, places: &[u32]) -> Vec<SeatId> {
        let seats = self.seats.read();
        let at = |place: &u32| seat_at(&seats, *place).map(|seat| seat.id);
        places.iter().filter_map(at).collect()
    }

    /// Which of the first so many places of the hall are free at `now`.
    pub(super) fn free_places(&self, count: u32, now: Timestamp) -> PlaceSet {
        let seats = self.seats.read();
        let is_free = |place| seat_at(&seats, place).is_some_and(|seat| seat.state.is_free(now));
        PlaceSet::from_fn(count, is_free)
    }

    /// How many seats fit a wish and may be had, as far as the wish goes.
    pub(super) fn left_for(&self, wish: &Wish, may_be_had: impl Fn(SeatState) -> bool) -> u32 {
        let plan = self.plan.as_ref().map(|stored| &**stored.plan());
        let fits = |seat: &Seat| match plan {
            Some(plan) => plan.place(seat.number).is_some_and(|place| plan.fits(place, wish)),
            // There are neither grades nor sections.
            None => wish.grade.is_none(),
        };
        let seats = self.seats.read();
        let left = seats.iter().filter(|seat| may_be_had(seat.state) && fits(seat));
        u32::try_from(left.take(wish.count as usize).count()).unwrap_or(u32::MAX)
    }

    /// When the first of the seats that are taken at `now` is free by itself.
    pub fn next_expiry(seats: &[Seat], now: Timestamp) -> Option<Timestamp> {
        seats
            .iter()
            .filter_map(|seat| match seat.state {
                SeatState::Held { until, .. } | SeatState::Released { until } if until > now => {
                    Some(until)
                }
                _ => None,
            })
            .min()
    }

    pub(super) fn publish(&self, changes: &[(SeatId, SeatState)]) {
        let mut seats = self.seats.write();
        let (mut available, mut sold) = (self.available.load(Ordering::Relaxed), self.sold());
        let mut released = self.released.load(Ordering::Relaxed);
        let is_released = |state: &SeatState| matches!(state, SeatState::Released { .. });
        let mut changed = false;
        for (id, state) in changes {
            if let Some(index) = index_of(&seats, *id) {
                let before = std::mem::replace(&mut seats[index].state, *state);
                changed |= before != *state;
                released -= u64::from(is_released(&before));
                released += u64::from(is_released(state));
                available -= u64::from(before == SeatState::Available);
                sold -= u64::from(matches!(before, SeatState::Sold { .. }));
                available += u64::from(*state == SeatState::Available);
                sold += u64::from(matches!(state, SeatState::Sold { .. }));
            }
        }
        self.available.store(available, Ordering::Relaxed);
        self.released.store(released, Ordering::Relaxed);
        self.sold.store(sold, Ordering::Relaxed);
        if changed {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes over what was read from the store, but for the known seats that stay as they are.
    pub(super) fn merge(&self, stored: Vec<Seat>, stays: impl Fn(&Seat) -> bool) {
        let mut seats = self.seats.write();
        let mut changed = false;
        let mut missing = Vec::new();
        for seat in stored {
            match index_of(&seats, seat.id) {
                None => missing.push(seat),
                Some(index) => {
                    let known = &mut seats[index];
                    if known.state != seat.state && !stays(known) {
                        known.state = seat.state;
                        changed = true;
                    }
                }
            }
        }
        if !missing.is_empty() {
            seats.append(&mut missing);
            seats.sort_by_key(|seat| seat.id);
            changed = true;
        }
        if changed {
            self.recount(&seats);
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether anybody has looked at the seats since this was last called.
    pub(super) fn was_asked_for(&self) -> bool {
        self.asked_for.swap(false, Ordering::Relaxed)
    }

    pub(super) fn append(&self, mut more: Vec<Seat>) {
        let mut seats = self.seats.write();
        seats.append(&mut more);
        self.recount(&seats);
        self.version.fetch_add(1, Ordering::Release);
    }

    fn recount(&self, seats: &[Seat]) {
        let count =
            |is: fn(&SeatState) -> bool| seats.iter().filter(|seat| is(&seat.state)).count() as u64;
        self.available.store(count(|s| *s == SeatState::Available), Ordering::Relaxed);
        self.sold.store(count(|s| matches!(s, SeatState::Sold { .. })), Ordering::Relaxed);
        let released = count(|s| matches!(s, SeatState::Released { .. }));
        self.released.store(released, Ordering::Relaxed);
    }
}

/// Seats of a session are numbered without gaps unless some were added later, so the distance from
/// the first id is nearly always the place.
fn index_of(seats: &[Seat], id: SeatId) -> Option<usize> {
    let first = seats.first()?.id;
    let guess = usize::try_from(id.get() - first.get()).ok()?;
    match seats.get(guess) {
        Some(seat) if seat.id == id => Some(guess),
        _ => seats.binary_search_by_key(&id, |seat| seat.id).ok(),
    }
}

/// The seat that is a place of the hall. Numbers count on without a gap in the order of the ids.
fn seat_at(seats: &[Seat], place: u32) -> Option<&Seat> {
    seats.get(place as usize).filter(|seat| seat.number.checked_sub(1) == Some(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_counted_from_the_highest_on() {
        let session = Session {
            id: SessionId::new(1).unwrap(),
            concert: ConcertId::new(1).unwrap(),
            starts_at: Timestamp(1_000),
        };
        let reservation = ReservationId::new(1).unwrap();
        let held = SeatState::Held { reservation, until: Timestamp(10) };
        let states = [
            (5, SeatState::Available),
            (5, held),
            (9, SeatState::Sold { reservation }),
            (9, SeatState::Released { until: Timestamp(20) }),
            (5, SeatState::Available),
            (0, SeatState::Sold { reservation }),
        ];
        let seats = states.iter().zip(1..).map(|((price, state), number)| Seat {
            id: SeatId::new(number).unwrap(),
            number: number as u32,
            price: *price,
            state: *state,
        });
        let inventory = Inventory::new(session, seats.collect());
        let counted = |now: i64| -> Vec<(i64, u64, u64)> {
            let prices = inventory.prices(Timestamp(now));
            prices.iter().map(|it| (it.price, it.total, it.free)).collect()
        };
        assert_eq!(counted(9), [(9, 2, 0), (5, 3, 2), (0, 1, 0)]);
        // Nobody has to tidy up first.
        assert_eq!(counted(10), [(9, 2, 0), (5, 3, 3), (0, 1, 0)]);
        assert_eq!(counted(20), [(9, 2, 1), (5, 3, 3), (0, 1, 0)]);
        // Counting is no reason to read what others have done.
        assert!(!inventory.was_asked_for());
        inventory.ask_for();
        assert!(inventory.was_asked_for());
        assert!(Inventory::new(session, Vec::new()).prices(Timestamp(0)).is_empty());
    }
}
