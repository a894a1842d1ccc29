//! The sequencer of a single process: counters in memory, made durable in the store.
//!
//! A join costs no commit: numbers are reserved in the store some way ahead. An admission is
//! committed before anybody learns of it. After a crash the counter goes on behind the last number
//! that may have been given, so no number is given twice, and no place in front of anybody moves.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{QueueSettings, SaleRules, SettingsChange};
use boxoffice_domain::time::Timestamp;
use tokio::sync::mpsc;

use super::aliases::Aliases;
use super::governing::{Among, Governing};
use super::joins::{Numbers, number_joins};
use super::newcomer::{Name, Newcomer, Stub};
use super::places::{Keeping, Kept, Other};
use super::queue::{Given, Queue};
use super::sales::Sales;
use super::solutions::Solutions;
use crate::store::{
    Act, ActRejected, Acted, Checkpoint, DrawRequest, Effect, Note, Store, StoredQueue,
};
use crate::{Error, Fault};

/// The time is made durable this often even where nothing else happens, in milliseconds.
const CLOCK_SAVE_INTERVAL_MS: i64 = 10_000;

/// Tickets are kept for as long as the process lives.
const HERE: &str = "";

/// The sequencer of a single process.
pub struct LocalSequencer {
    store: Store,
    one_place_each: bool,
    queues: ArcSwap<BTreeMap<QueueName, Arc<Queue>>>,
    aliases: Aliases,
    sales: Sales,
    governing: Governing,
    solutions: Solutions,
    /// Held from the moment a checkpoint is made until the store has it, so that checkpoints reach
    /// the store in the order in which they were made.
    saving: tokio::sync::Mutex<Timestamp>,
    this: Weak<Self>,
}

impl LocalSequencer {
    /// Loads the queues as the store has them. Every queue gets the active time and claim window
    /// of `defaults`; the rest of its settings is its own. With `one_place_each`, a person has one place at
    /// the most.
    ///
    /// # Errors
    /// Where the store cannot be read, or what it says of a queue makes no sense.
    pub async fn open(
        store: Store,
        defaults: &QueueSettings,
        one_place_each: bool,
    ) -> Result<Arc<Self>, Fault> {
        let stored = store.queues().await?;
        let now = store.clock().await?;
        let aliases = store.aliases(now).await?;
        let sequencer = Arc::new_cyclic(|this| Self {
            store,
            one_place_each,
            queues: ArcSwap::default(),
            aliases: Aliases::default(),
            sales: Sales::default(),
            governing: Governing::new(""),
            solutions: Solutions::default(),
            saving: tokio::sync::Mutex::new(now),
            this: this.clone(),
        });
        let mut queues = BTreeMap::new();
        for mut stored in stored {
            stored.settings.active_ttl = defaults.active_ttl;
            stored.settings.claim_window = defaults.claim_window;
            let queue = sequencer.start(stored)?;
            queues.insert(queue.name().clone(), queue);
        }
        sequencer.queues.store(Arc::new(queues));
        sequencer.aliases.remember(&aliases);
        sequencer.aliases.tidy(&sequencer.queues(), now);
        Ok(sequencer)
    }

    fn start(&self, stored: StoredQueue) -> Result<Arc<Queue>, Fault> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let queue = Arc::new(Queue::new(stored, false, self.one_place_each, sender)?);
        // Weak on both sides: the task ends when the queue is dropped.
        let joins = number_joins(self.this.clone(), Arc::downgrade(&queue), receiver);
        self.store.tasks().spawn("joins", joins);
        Ok(queue)
    }

    pub(super) fn queue(&self, name: &str) -> Option<Arc<Queue>> {
        self.queues.load().get(name).cloned()
    }

    pub(super) fn queues(&self) -> Vec<Arc<Queue>> {
        self.queues.load().values().cloned().collect()
    }

    /// Follows the sales behind the queues from now on.
    pub(super) fn follow_sales(&self, rules: SaleRules, now: Timestamp) {
        self.sales.follow(rules);
        self.sales.note(&self.queues(), &self.store, now);
    }

    pub(super) async fn create(
        &self,
        name: QueueName,
        settings: QueueSettings,
    ) -> Result<bool, Fault> {
        let _saving = self.saving.lock().await;
        if !self.store.create_queue(name.clone(), settings).await? {
            return Ok(false);
        }
        self.take_up(name).await?;
        Ok(true)
    }

    pub(super) async fn create_noted(
        &self,
        name: QueueName,
        act: Act,
        note: Note,
    ) -> Result<Acted, Error<ActRejected>> {
        let _saving = self.saving.lock().await;
        let acted = self.store.act(act, note).await?;
        if matches!(acted, Acted::Now(..)) {
            self.take_up(name).await?;
        }
        Ok(acted)
    }

    /// Starts a queue that the store has.
    async fn take_up(&self, name: QueueName) -> Result<(), Fault> {
        let stored = self.store.queues().await?.into_iter().find(|queue| queue.name == name);
        let stored = stored
            .ok_or_else(|| Fault::Corrupt(format!("queue {name} was stored and is not there")))?;
        let queue = self.start(stored)?;
        let mut queues = BTreeMap::clone(&self.queues.load());
        queues.insert(name, queue);
        self.queues.store(Arc::new(queues));
        Ok(())
    }

    pub(super) async fn change(
        &self,
        queue: &Queue,
        change: SettingsChange,
    ) -> Result<QueueSettings, Fault> {
        // Changes reach memory in the order in which they reach the store.
        let _saving = self.saving.lock().await;
        let settings = self.store.change_queue(queue.name().clone(), change).await?;
        Ok(queue.configure(settings))
    }

    pub(super) async fn change_noted(
        &self,
        queue: &Queue,
        act: Act,
        note: Note,
    ) -> Result<Acted, Error<ActRejected>> {
        let _saving = self.saving.lock().await;
        let acted = self.store.act(act, note).await?;
        if let Acted::Now(Effect::Queue { after, .. }, _) = &acted {
            queue.configure(after.clone());
        }
        Ok(acted)
    }

    pub(super) async fn join(&self, queue: &Queue) -> Result<u64, Fault> {
        if let Some(seq) = queue.next_number()? {
            return Ok(seq);
        }
        queue.wait_for_number().await
    }

    /// Keeps tickets of people.
    pub(super) fn keep(&self, queue: &Queue, keeping: &[Keeping]) -> Vec<Kept> {
        let Some(tickets) = queue.kept() else { return vec![Kept::Unknown; keeping.len()] };
        let keep = |Keeping { keeps, replaces, .. }: &Keeping| {
            let name = Name::Person(keeps.user);
            match tickets.offer(name, keeps.user, Stub::of(keeps), *replaces) {
                Ok(()) => {
                    queue.note_kept([keeps.seq], HERE);
                    Kept::Done
                }
                // A process decides alone, and no join of its own is answered twice.
                Err(other) => Kept::Another(Other {
                    ticket: other.ticket(queue.name(), keeps.user),
                    was_shown: true,
                    is_chosen: false,
                }),
            }
        };
        keeping.iter().map(keep).collect()
    }

    async fn save(
        &self,
        saving: &mut Timestamp,
        points: Vec<Checkpoint>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.store.checkpoint(points.clone(), now).await?;
        *saving = now;
        let queues = self.queues.load();
        for point in &points {
            if let Some(queue) = queues.get(&point.queue) {
                queue.apply(point, now);
            }
        }
        Ok(())
    }

    pub(super) const fn store(&self) -> &Store {
        &self.store
    }

    pub(super) const fn governing(&self) -> &Governing {
        &self.governing
    }

    pub(super) const fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    pub(super) const fn solutions(&self) -> &Solutions {
        &self.solutions
    }

    /// Compares the clock here with that of the database, where it has one.
    pub(super) async fn beat(&self, now: Timestamp) -> Result<(), Fault> {
        self.store.compare_clocks(now).await.map(|_| ())
    }

    pub(super) async fn tick(&self, now: Timestamp) -> Result<(), Fault> {
        let now = Timestamp(now.0.saturating_sub(self.store.clock_correction_ms()?));
        let mut saving = self.saving.lock().await;
        let queues = self.queues.load_full();
        self.sales.note(&self.queues(), &self.store, now);
        self.governing.step(&self.queues(), Among::Alone, now);
        for queue in queues.values() {
            self.draw(queue, now).await?;
        }
        let points: Vec<Checkpoint> =
            queues.values().filter_map(|queue| queue.prepare(now)).collect();
        let clock_due = now.0.saturating_sub(saving.0) >= CLOCK_SAVE_INTERVAL_MS;
        if clock_due || !points.is_empty() {
            self.save(&mut saving, points, now).await?;
        }
        self.aliases.tidy(&self.queues(), now);
        queues.values().for_each(|queue| queue.sweep_places(now));
        Ok(())
    }

    /// The opening draw, where it is due: of all numbers that are given by now.
    async fn draw(&self, queue: &Queue, now: Timestamp) -> Result<(), Fault> {
        if !queue.draw_is_due(now) {
            return Ok(());
        }
        let request = DrawRequest { queue: queue.name().clone(), count: queue.next(), at: now };
        if let Some(drawn) = self.store.draw(request).await? {
            queue.drawn(drawn, now);
        }
        Ok(())
    }

    pub(super) async fn close(&self, now: Timestamp) -> Result<(), Fault> {
        // A time to come would keep every other instance from starting.
        let now = self.store.vouched(now);
        let mut saving = self.saving.lock().await;
        let queues = self.queues.load_full();
        queues.values().for_each(|queue| queue.close());
        let points = queues.values().map(|queue| queue.last_checkpoint()).collect();
        self.save(&mut saving, points, now).await
    }
}

impl Numbers for LocalSequencer {
    const PACE: Duration = Duration::ZERO;

    /// Asks the store for more where they have run out.
    async fn next_numbers(&self, queue: &Queue, count: u64) -> Result<u64, Fault> {
        if let Some(first) = queue.next_numbers(count)? {
            return Ok(first);
        }
        let mut saving = self.saving.lock().await;
        // A tick may have brought more while we waited for it.
        if let Some(first) = queue.next_numbers(count)? {
            return Ok(first);
        }
        let point = queue.reserve_ahead(count);
        let now = *saving;
        self.save(&mut saving, vec![point], now).await?;
        let enough = queue.next_numbers(count)?;
        enough.ok_or_else(|| Fault::Unavailable("numbers have run out".into()))
    }

    async fn places(&self, queue: &Queue, people: &[(Newcomer, u64)]) -> Result<Vec<Given>, Fault> {
        let closed = || Fault::Unavailable("the queue is closed".into());
        let kept = queue.kept().ok_or_else(closed)?;
        let find = |(newcomer, over): &(Newcomer, u64)| {
            let found = kept.get(newcomer.name, newcomer.issued_at);
            found.filter(|stub| stub.seq != *over)
        };
        let found: Vec<Option<Stub>> = people.iter().map(find).collect();
        let new = found.iter().filter(|found| found.is_none()).count() as u64;
        let mut seq = if new > 0 { self.next_numbers(queue, new).await? } else { 0 };
        let mut given = Vec::with_capacity(people.len());
        for ((newcomer, over), found) in people.iter().zip(found) {
            if let Some(stub) = found {
                given.push(Given::Kept(stub));
                continue;
            }
            given.push(match kept.offer(newcomer.name, newcomer.user, newcomer.with(seq), *over) {
                Ok(()) => {
                    if newcomer.is_person() {
                        queue.note_kept([seq], HERE);
                    }
                    Given::New(seq)
                }
                // It was shown while numbers were fetched. The number is an empty place.
                Err(stub) => Given::Kept(stub),
            });
            seq += 1;
        }
        Ok(given)
    }
}
