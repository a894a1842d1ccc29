//! The store as maps in memory, for tests and simulations. Nothing of it outlives the process, but
//! what was committed outlives the store: see [`Kept`].

mod act;
mod audit;
mod data;
mod lists;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use boxoffice_domain::command::{
    Changes, Ids, IdsNeeded, LiveSeats, NewRefund, Payment, ReservationRow, ResultOf, ResultRow,
    Rows, TicketHold, TicketRef, Wants,
};
use boxoffice_domain::ids::{ConcertId, PaymentId, QueueName, ReservationId, SessionId, UserId};
use boxoffice_domain::invariant::Finding;
use boxoffice_domain::queue::{Drawn, QueueSettings, SettingsChange};
use boxoffice_domain::sales::{Concert, Reservation, ReservationState, Seat, SeatState, Session};
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::task::JoinHandle;

use self::data::Data;
use super::act::{Act, ActRejected, Acted, LogEntry, Note, StoredOperator};
use super::batch::{BatchOptions, Engine, Gather, NoJob, Sales, Trouble, batches};
use super::beat::{Beat, Beats};
use super::catalog::{Catalog, Inventory, Made};
use super::chain::LogPart;
use super::database_time::DatabaseTime;
use super::draws::DrawSeed;
use super::numbers::{Grant, GrantRequest, Taken};
use super::plans::StoredPlan;
use super::stats::StoreStats;
use super::types::{
    AddedSeats, Advance, Alias, AliasExists, Checkpoint, DrawRequest, NewConcert, NewPerson,
    NewSeats, Part, Person, Progress, ReservationFilter, Seating, Seed, ShortenLog, StoredQueue,
};
use crate::cloud_event::OutboxRow;
use crate::planted::{Bug, planted};
use crate::{Error, Fault, Tasks};

/// What a store has committed. A store that is opened on it goes on from there, as another does
/// from its file.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Data>>);

impl Kept {
    /// Nothing yet, in a store whose time is told by this.
    pub fn at(time: DatabaseTime) -> Self {
        Self(Arc::new(Mutex::new(Data::at(time))))
    }
}

/// The store in memory.
pub struct MemoryStore {
    /// The way to the batches.
    pub(super) sales: Sales<NoJob>,
    batches: Mutex<Option<JoinHandle<()>>>,
    tasks: Tasks,
    shared: Arc<Shared>,
}

struct Shared {
    data: Arc<Mutex<Data>>,
    catalog: ArcSwap<Catalog>,
    stats: StoreStats,
    /// Held by a batch from its beginning to its end, as a transaction would be: what an operator changes
    /// must not come in between.
    turn: Arc<AsyncMutex<()>>,
}

/// The most commands in a batch.
const BATCH_MAX: usize = 256;
/// The most commands that may wait.
const QUEUE_MAX: usize = 16_384;

impl MemoryStore {
    /// Opens a store on what was kept. Its batches run on the current tokio runtime.
    pub fn open(kept: &Kept) -> Arc<Self> {
        let data = kept.0.clone();
        let (catalog, ids, latest) = {
            let data = data.lock();
            (data.catalog(), data.ids(), data.clock())
        };
        let catalog = ArcSwap::from_pointee(catalog);
        let shared =
            Arc::new(Shared { data, catalog, stats: StoreStats::default(), turn: Arc::default() });
        let options = BatchOptions {
            batch_max: BATCH_MAX,
            queue_max: QUEUE_MAX,
            patience: None,
            gather: Gather::Never,
            observe: Arc::new(|_| {}),
        };
        let (sales, run) = batches(vec![MemoryEngine(shared.clone(), None)], ids, latest, options);
        let tasks = Tasks::default();
        let batches = Mutex::new(Some(tasks.spawn("sale", run)));
        Arc::new(Self { sales, batches, tasks, shared })
    }

    pub(super) const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.shared.catalog.load_full()
    }

    pub(super) fn stats(&self) -> &StoreStats {
        let stats = &self.shared.stats;
        stats.pending.store(self.sales.waiting(), Ordering::Relaxed);
        stats
    }

    pub(super) async fn close(&self) {
        self.sales.close().await;
        let batches = self.batches.lock().take();
        if let Some(batches) = batches {
            let _ = batches.await;
        }
    }

    /// Does other work on what is committed. It is whole or not at all, because nobody else looks
    /// meanwhile.
    fn with<T>(&self, work: impl FnOnce(&mut Data) -> T) -> T {
        work(&mut self.shared.data.lock())
    }

    pub(super) async fn balance(&self, user: UserId) -> Result<i64, Fault> {
        Ok(self.with(|data| data.balance(user)))
    }

    pub(super) async fn reservation(
        &self,
        id: ReservationId,
    ) -> Result<Option<(Reservation, Timestamp)>, Fault> {
        Ok(self.with(|data| data.reservation(id)).map(|row| (row.reservation, row.until)))
    }

    pub(super) async fn is_spent(&self, ticket: TicketRef) -> Result<bool, Fault> {
        Ok(self.with(|data| data.spent.contains_key(&ticket)))
    }

    pub(super) async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Fault> {
        Ok(self.with(|data| data.payments.get(&id).map(|(payment, _)| *payment)))
    }

    pub(super) async fn reservations_of(
        &self,
        user: UserId,
        after: Option<ReservationId>,
        max: u32,
    ) -> Result<Vec<ReservationRow>, Fault> {
        Ok(self.with(|data| data.reservations_of(user, after, max as usize)))
    }

    pub(super) async fn due(&self, now: Timestamp, max: u32) -> Result<Vec<ReservationId>, Fault> {
        Ok(self.with(|data| data.due(now, max as usize)))
    }

    pub(super) async fn forget_keys(&self, before: Timestamp, max: u32) -> Result<u32, Fault> {
        Ok(self.with(|data| data.forget_keys(before, max)))
    }

    pub(super) async fn queues(&self) -> Result<Vec<StoredQueue>, Fault> {
        Ok(self.with(|data| data.stored_queues()))
    }

    pub(super) async fn create_queue(
        &self,
        name: QueueName,
        settings: QueueSettings,
        seed: Option<DrawSeed>,
    ) -> Result<bool, Fault> {
        Ok(self.with(|data| data.create_queue(name, settings, seed)))
    }

    pub(super) async fn change_queue(
        &self,
        name: QueueName,
        change: SettingsChange,
    ) -> Result<QueueSettings, Fault> {
        self.with(|data| {
            let changed = data.change_queue(&name, &change)?;
            changed.or_else(|| data.settings_of(&name)).ok_or_else(|| data::no_queue(&name))
        })
    }

    pub(super) async fn draw(&self, request: DrawRequest) -> Result<Option<Drawn>, Fault> {
        self.with(|data| data.draw(&request))
    }

    pub(super) async fn checkpoint(
        &self,
        queues: Vec<Checkpoint>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.with(|data| data.checkpoint(&queues, now))
    }

    pub(super) async fn grant_numbers(&self, request: GrantRequest) -> Result<Grant, Fault> {
        self.with(|data| data.grant_numbers(&request))
    }

    pub(super) async fn take_numbers(&self, queue: QueueName, count: u64) -> Result<Taken, Fault> {
        self.with(|data| data.take_numbers(&queue, count))
    }

    pub(super) async fn database_now(&self) -> Result<Timestamp, Fault> {
        Ok(self.with(|data| data.time.now()))
    }

    pub(super) async fn beat(&self, beat: Beat) -> Result<Beats, Fault> {
        Ok(self.with(|data| data.beat(beat)))
    }

    pub(super) async fn advance(&self, step: Advance, now: Timestamp) -> Result<bool, Fault> {
        self.with(|data| data.advance(&step, now))
    }

    pub(super) async fn record(
        &self,
        progress: Vec<Progress>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.with(|data| data.record(&progress, now))
    }

    pub(super) async fn people(
        &self,
        people: Vec<NewPerson>,
        _: Timestamp,
    ) -> Result<Vec<Option<UserId>>, Fault> {
        self.with(|data| data.people(&people))
    }

    pub(super) async fn add_aliases(&self, aliases: Vec<Alias>) -> Result<(), Error<AliasExists>> {
        self.with(|data| data.add_aliases(aliases)).map_err(Error::Rejected)
    }

    pub(super) async fn aliases(&self, now: Timestamp) -> Result<Vec<Alias>, Fault> {
        Ok(self.with(|data| data.aliases(now)))
    }

    pub(super) async fn clock(&self) -> Result<Timestamp, Fault> {
        Ok(self.with(|data| data.clock()))
    }

    pub(super) async fn set_back(&self, now: Timestamp) -> Result<u64, Fault> {
        Ok(self.with(|data| data.set_back(now)))
    }

    pub(super) async fn act(&self, act: Act, note: Note) -> Result<Acted, Error<ActRejected>> {
        let _turn = self.shared.turn.lock().await;
        self.with(|data| {
            let (acted, made) = data.act(&act, &note)?.map_err(Error::Rejected)?;
            made.into_iter().for_each(|made| self.show(made));
            Ok(acted)
        })
    }

    pub(super) async fn kept(
        &self,
        who: String,
        key: String,
    ) -> Result<Option<([u8; 32], String)>, Fault> {
        Ok(self.with(|data| data.acts.kept(&who, &key)))
    }

    pub(super) async fn operators(&self) -> Result<Vec<StoredOperator>, Fault> {
        Ok(self.with(|data| data.acts.operators()))
    }

    pub(super) async fn log(&self, before: i64, max: u32) -> Result<Vec<LogEntry>, Fault> {
        Ok(self.with(|data| data.acts.log(before, max as usize)))
    }

    pub(super) async fn admission_log(
        &self,
        queue: QueueName,
        after: Option<u64>,
        max: u32,
    ) -> Result<Option<LogPart>, Fault> {
        Ok(self.with(|data| data.admission_log(&queue, after, max as usize)))
    }

    pub(super) async fn shorten_log(&self, shorten: ShortenLog) -> Result<u64, Fault> {
        Ok(self.with(|data| data.shorten_log(&shorten)))
    }

    fn show(&self, made: Made) {
        let catalog = self.shared.catalog.load();
        match made {
            Made::Concert(concert) | Made::ConcertChanged(concert) => self.show_concert(concert),
            Made::Inventory(session, seats, plan) => self.show_session(session, seats, plan),
            Made::Seats(session, seats) => {
                if let Some(inventory) = catalog.inventory_of(session) {
                    inventory.append(seats);
                }
            }
            Made::SessionMoved(session, starts_at) => {
                if let Some(inventory) = catalog.inventory_of(session) {
                    inventory.move_to(starts_at);
                }
            }
            Made::CalledOff(session, at) => catalog.call_off(session, at),
            Made::SessionGone(session) => {
                self.shared.catalog.store(Arc::new(catalog.without_session(session)));
            }
            Made::ConcertGone(concert) => {
                self.shared.catalog.store(Arc::new(catalog.without_concert(concert)));
            }
        }
    }

    pub(super) async fn list_reservations(
        &self,
        after: i64,
        max: u32,
        filter: ReservationFilter,
    ) -> Result<Part<(Reservation, Timestamp)>, Fault> {
        Ok(self.with(|data| data.list_reservations(after, max, &filter)))
    }

    pub(super) async fn people_named(&self, name: String) -> Result<Vec<UserId>, Fault> {
        Ok(self.with(|data| data.people_named(&name)))
    }

    pub(super) async fn list_payments(
        &self,
        after: i64,
        max: u32,
    ) -> Result<Part<(Payment, UserId)>, Fault> {
        Ok(self.with(|data| data.list_payments(after, max)))
    }

    pub(super) async fn list_people(&self, after: i64, max: u32) -> Result<Part<Person>, Fault> {
        Ok(self.with(|data| data.list_people(after, max)))
    }

    pub(super) async fn refunded(&self, session: SessionId) -> Result<u64, Fault> {
        let of_this = |new: &&NewRefund| new.session == session && new.called_off;
        Ok(self.with(|data| data.refunds.values().filter(of_this).count()) as u64)
    }

    pub(super) async fn create_concert(&self, new: NewConcert) -> Result<ConcertId, Fault> {
        self.with(|data| {
            let concert = data.create_concert(new)?;
            let id = concert.id;
            self.show_concert(concert);
            Ok(id)
        })
    }

    pub(super) async fn create_session(
        &self,
        concert: ConcertId,
        starts_at: Timestamp,
        seating: Seating,
    ) -> Result<Option<(SessionId, Vec<AddedSeats>)>, Fault> {
        self.with(|data| {
            let made = data.create_session(concert, starts_at, &seating)?;
            Ok(made.map(|(session, seats, added)| {
                self.show_session(session, seats, seating.plan().cloned());
                (session.id, added)
            }))
        })
    }

    pub(super) async fn add_seats(
        &self,
        concert: ConcertId,
        session: SessionId,
        group: NewSeats,
    ) -> Result<Option<AddedSeats>, Fault> {
        self.with(|data| {
            let Some((seats, added)) = data.add_seats(concert, session, group)? else {
                return Ok(None);
            };
            if let Some(inventory) = self.shared.catalog.load().inventory_of(session) {
                inventory.append(seats);
            }
            Ok(added)
        })
    }

    pub(super) async fn seed(&self, seed: Seed, now: Timestamp) -> Result<(), Fault> {
        // The ids of entries are the batches'. A seed comes before anything is sold.
        self.with(|data| {
            data.give_points(&seed, now);
            for (concert, sessions) in &seed.concerts {
                let concert = data.create_concert(concert.clone())?;
                let id = concert.id;
                self.show_concert(concert);
                for (starts_at, seats) in sessions {
                    if let Some((session, made, _)) = data.create_session(id, *starts_at, seats)? {
                        self.show_session(session, made, seats.plan().cloned());
                    }
                }
            }
            Ok(())
        })
    }

    fn show_concert(&self, concert: Concert) {
        let catalog = self.shared.catalog.load().with_concert(concert);
        self.shared.catalog.store(Arc::new(catalog));
    }

    fn show_session(&self, session: Session, seats: Vec<Seat>, plan: Option<Arc<StoredPlan>>) {
        let inventory = Arc::new(Inventory::new(session, seats).with_plan(plan));
        let catalog = self.shared.catalog.load().with_inventory(inventory);
        self.shared.catalog.store(Arc::new(catalog));
    }

    pub(super) fn next_events(&self, max: u32) -> Vec<OutboxRow> {
        self.with(|data| {
            let rows: Vec<_> = data.outbox.values().take(max as usize).cloned().collect();
            if planted(Bug::EventsForgotten) {
                rows.iter().for_each(|row| data.mark_published(&[row.id]));
            }
            rows
        })
    }

    pub(super) async fn last_event(&self) -> Result<i64, Fault> {
        Ok(self.with(|data| data.last_event))
    }

    pub(super) fn mark_published(&self, ids: Vec<i64>) {
        self.with(|data| data.mark_published(&ids));
    }

    pub(super) async fn setting(
        &self,
        name: &'static str,
        fresh: Option<String>,
    ) -> Result<Option<String>, Fault> {
        Ok(self.with(|data| match fresh {
            Some(fresh) => Some(data.settings.entry(name).or_insert(fresh).clone()),
            None => data.settings.get(name).cloned(),
        }))
    }

    pub(super) async fn set_setting(&self, name: &'static str, value: String) -> Result<(), Fault> {
        self.with(|data| data.settings.insert(name, value));
        Ok(())
    }

    pub(super) async fn audit(&self, now: Timestamp) -> Result<Vec<Finding>, Fault> {
        let data = self.shared.data.lock();
        Ok(audit::findings(&data, &self.shared.catalog.load(), now))
    }
}

struct MemoryEngine(Arc<Shared>, Option<OwnedMutexGuard<()>>);

impl Engine for MemoryEngine {
    type Job = NoJob;

    fn catalog(&self) -> Arc<Catalog> {
        self.0.catalog.load_full()
    }

    async fn add_ids(&mut self, ids: &mut Ids, _needed: IdsNeeded) -> Result<(), Trouble> {
        // All that were left are there from the start; only a seed makes entries beside the sale.
        ids.entries.skip_to(self.0.data.lock().seeded_entry);
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), Trouble> {
        self.1 = None;
        self.1 = Some(self.0.turn.clone().lock_owned().await);
        Ok(())
    }

    async fn run(&mut self, job: &mut NoJob) -> Result<(), Trouble> {
        match *job {}
    }

    async fn peek(&mut self, wants: &mut Wants, rows: &mut Rows) -> Result<(), Trouble> {
        let data = self.0.data.lock();
        for id in std::mem::take(&mut wants.reservations) {
            let found = data.reservation(id);
            if let Some(row) = &found {
                wants.add_rows_of(row);
            }
            rows.put_reservation(id, found);
        }
        Ok(())
    }

    async fn look_again(&mut self, _inventory: &Inventory) -> Result<bool, Trouble> {
        Ok(false)
    }

    async fn load(&mut self, wants: &Wants, rows: &mut Rows) -> Result<(), Trouble> {
        let data = self.0.data.lock();
        for user in &wants.accounts {
            rows.put_account(*user, data.balance(*user));
        }
        for seat in wants.seats.keys() {
            let mut found = data.seats.get(seat).copied();
            if let Some((_, seat)) = &mut found
                && ((matches!(seat.state, SeatState::Sold { .. }) && planted(Bug::SoldIsFree))
                    || (matches!(seat.state, SeatState::Held { .. }) && planted(Bug::HeldIsFree)))
            {
                seat.state = SeatState::Available;
            }
            rows.put_seat(*seat, found);
        }
        for of in &wants.live_seats {
            let live = data.live.get(of).into_iter().flatten().filter_map(|id| {
                let row = data.reservations.get(id)?;
                let held = matches!(row.reservation.state, ReservationState::Held { .. });
                Some(LiveSeats {
                    reservation: *id,
                    seats: u32::try_from(row.reservation.items.len()).unwrap_or(u32::MAX),
                    until: held.then_some(row.until),
                })
            });
            rows.put_live_seats(*of, live.collect());
        }
        for ticket in &wants.tickets {
            let is_spent = data.spent.contains_key(ticket) && !planted(Bug::SpentForgotten);
            rows.put_ticket(ticket.clone(), is_spent);
        }
        for ticket in &wants.holds_of {
            let made = data.holds.get(ticket).into_iter().flatten().filter_map(|id| {
                let row = data.reservations.get(id)?;
                let held = matches!(row.reservation.state, ReservationState::Held { .. });
                Some(TicketHold { reservation: *id, until: held.then_some(row.until) })
            });
            rows.put_ticket_holds(ticket.clone(), made.collect());
        }
        for payment in &wants.refunds {
            rows.put_refund(*payment, data.refunds.get(payment).map(|new| new.refund));
        }
        for (user, key) in &wants.keys {
            let found = data.key(*user, key).filter(|_| !planted(Bug::KeyForgotten));
            rows.put_key(*user, key.clone(), found);
        }
        Ok(())
    }

    async fn load_results(&mut self, wanted: &[ResultOf], rows: &mut Rows) -> Result<(), Trouble> {
        let data = self.0.data.lock();
        for of in wanted {
            let found = match of {
                ResultOf::Reserve(id) => data.reservation(*id).map(ResultRow::Reserve),
                ResultOf::Pay(id) => data.payments.get(id).map(|(p, _)| ResultRow::Pay(*p)),
                ResultOf::Charge(id) => {
                    data.entries.get(id).map(|entry| ResultRow::Charge(entry.balance))
                }
            };
            if let Some(found) = found {
                rows.put_result(*of, found);
            }
        }
        Ok(())
    }

    async fn commit(&mut self, changes: &Changes) -> Result<(), Trouble> {
        self.0.data.lock().save(changes);
        Ok(())
    }

    async fn await_durable(&mut self) -> Result<(), Trouble> {
        self.roll_back().await;
        Ok(())
    }

    async fn roll_back(&mut self) {
        self.1 = None;
    }

    fn publish(&mut self, changes: &Changes) {
        let catalog = self.0.catalog.load();
        for (seat, (session, state)) in &changes.seats {
            if let Some(inventory) = catalog.inventory_of(*session) {
                inventory.publish(&[(*seat, *state)] as &[(_, SeatState)]);
            }
        }
        self.1 = None;
    }

    fn gave_up(&self, _trouble: &Trouble) {}
}
