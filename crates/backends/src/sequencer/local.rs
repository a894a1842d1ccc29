//! The sequencer of a single process: counters in memory, made durable in the store.
//!
//! A join costs no commit: numbers are reserved in the store some way ahead. An admission is
//! committed before anybody learns of it. After a crash the counter goes on behind the last number
//! that may have been given, so no number is given twice, and no place in front of anybody moves.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::invariant::{Finding, Invariant};
use boxoffice_domain::queue::{Ending, Place, Settings, Ticket};
use boxoffice_domain::time::Timestamp;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use super::queue::{JoinReply, Queue};
use super::{Beside, NewAlias, Pass};
use crate::store::{Alias, AliasExists, Checkpoint, Store};
use crate::{Error, Fault};

/// The most joins that get their numbers in one step.
const BATCH_MAX: usize = 1024;
/// The time is made durable this often even where nothing else happens, in milliseconds.
const CLOCK_SAVE_INTERVAL_MS: i64 = 10_000;
/// Opaque tokens that are active are counted this often, in milliseconds.
const COUNT_INTERVAL_MS: i64 = 1_000;

/// The sequencer of a single process.
pub struct LocalSequencer {
    store: Store,
    queues: ArcSwap<BTreeMap<QueueName, Arc<Queue>>>,
    aliases: RwLock<HashMap<String, Pass>>,
    counted_at: AtomicI64,
    /// Held from the moment a checkpoint is made until the store has it, so that checkpoints reach
    /// the store in the order in which they were made.
    saving: tokio::sync::Mutex<Timestamp>,
    this: Weak<Self>,
}

impl LocalSequencer {
    /// Loads the queues as the store has them. Every queue gets the active time and claim window
    /// of `defaults`; the rest of its settings is its own.
    ///
    /// # Errors
    /// Where the store cannot be read, or what it says of a queue makes no sense.
    pub async fn open(store: Store, defaults: &Settings) -> Result<Arc<Self>, Fault> {
        let stored = store.queues().await?;
        let now = store.clock().await?;
        let aliases = store.aliases(now).await?;
        let sequencer = Arc::new_cyclic(|this| Self {
            store,
            queues: ArcSwap::default(),
            aliases: RwLock::default(),
            counted_at: AtomicI64::new(now.0),
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
        sequencer.remember(&aliases);
        sequencer.count_beside(now);
        Ok(sequencer)
    }

    fn start(&self, stored: crate::store::StoredQueue) -> Result<Arc<Queue>, Fault> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let queue = Arc::new(Queue::new(stored, sender)?);
        // Weak on both sides: the task ends when the queue is dropped.
        tokio::spawn(number_joins(self.this.clone(), Arc::downgrade(&queue), receiver));
        Ok(queue)
    }

    pub(super) fn queue(&self, name: &str) -> Option<Arc<Queue>> {
        self.queues.load().get(name).cloned()
    }

    pub(super) fn queues(&self) -> Vec<Arc<Queue>> {
        self.queues.load().values().cloned().collect()
    }

    pub(super) async fn create(&self, name: QueueName, settings: Settings) -> Result<bool, Fault> {
        let _saving = self.saving.lock().await;
        if !self.store.create_queue(name.clone(), settings).await? {
            return Ok(false);
        }
        let stored = self.store.queues().await?.into_iter().find(|queue| queue.name == name);
        let stored = stored
            .ok_or_else(|| Fault::Corrupt(format!("queue {name} was stored and is not there")))?;
        let queue = self.start(stored)?;
        let mut queues = BTreeMap::clone(&self.queues.load());
        queues.insert(name, queue);
        self.queues.store(Arc::new(queues));
        Ok(true)
    }

    pub(super) async fn configure(
        &self,
        queue: &Arc<Queue>,
        settings: Settings,
    ) -> Result<(), Fault> {
        let _saving = self.saving.lock().await;
        self.store.set_queue(queue.name().clone(), settings.clone()).await?;
        queue.configure(&settings);
        Ok(())
    }

    pub(super) async fn join(&self, queue: &Queue) -> Result<u64, Fault> {
        if let Some(seq) = queue.take_one()? {
            return Ok(seq);
        }
        let (reply, answer) = oneshot::channel();
        queue.enqueue(reply)?;
        answer.await.unwrap_or_else(|_| Err(Fault::Unavailable("the queue is closed".into())))
    }

    /// Takes `count` numbers, asking the store for more where they have run out.
    async fn take(&self, queue: &Queue, count: u64) -> Result<u64, Fault> {
        if let Some(first) = queue.take(count)? {
            return Ok(first);
        }
        let mut saving = self.saving.lock().await;
        // A tick may have brought more while we waited for it.
        if let Some(first) = queue.take(count)? {
            return Ok(first);
        }
        let point = queue.reserve_ahead(count);
        let now = *saving;
        self.save(&mut saving, vec![point], now).await?;
        let enough = queue.take(count)?;
        enough.ok_or_else(|| Fault::Unavailable("numbers have run out".into()))
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

    pub(super) fn alias(&self, token: &str) -> Option<Pass> {
        self.aliases.read().get(token).cloned()
    }

    pub(super) async fn issue(
        &self,
        queue: &Arc<Queue>,
        tokens: Vec<NewAlias>,
        now: Timestamp,
    ) -> Result<Vec<Alias>, Error<AliasExists>> {
        // Before any number is taken: a number that nobody has holds up the line.
        let mut listed = HashSet::with_capacity(tokens.len());
        for token in tokens.iter().map(|token| &token.token) {
            if !listed.insert(token) || self.alias(token).is_some() {
                return Err(Error::Rejected(AliasExists(token.clone())));
            }
        }
        let in_line = tokens.iter().filter(|token| token.active_until.is_none()).count() as u64;
        let mut seq = if in_line > 0 { self.take(queue, in_line).await? } else { 0 };
        let aliases: Vec<Alias> = tokens
            .into_iter()
            .map(|token| {
                let number = if token.active_until.is_some() { 0 } else { seq };
                seq += u64::from(token.active_until.is_none());
                let ticket = Ticket {
                    queue: queue.name().clone(),
                    seq: number,
                    user: token.user,
                    issued_at: now,
                    id: token.id,
                };
                Alias { token: token.token, ticket, active_until: token.active_until, spent: false }
            })
            .collect();
        // After an error the numbers are empty places, for good. To pass over them in memory alone
        // would let the places behind them go back by as many at the next start.
        self.store.add_aliases(aliases.clone()).await?;
        self.remember(&aliases);
        self.count_beside(now);
        Ok(aliases)
    }

    fn remember(&self, aliases: &[Alias]) {
        let mut known = self.aliases.write();
        for alias in aliases {
            let beside = alias
                .active_until
                .map(|until| Arc::new(Beside { until, spent: AtomicBool::new(alias.spent) }));
            let pass = Pass { ticket: alias.ticket.clone(), beside };
            known.insert(alias.token.clone(), pass);
        }
    }

    /// Counts the active tickets that are not of the line, for each queue.
    fn count_beside(&self, now: Timestamp) {
        let mut counts: HashMap<QueueName, u64> = HashMap::new();
        for pass in self.aliases.read().values() {
            let Some(beside) = &pass.beside else { continue };
            if beside.until > now && !beside.spent.load(Ordering::Relaxed) {
                *counts.entry(pass.ticket.queue.clone()).or_default() += 1;
            }
        }
        for queue in self.queues.load().values() {
            let count = counts.get(queue.name()).copied().unwrap_or(0);
            queue.beside.store(count, Ordering::Relaxed);
        }
    }

    pub(super) fn place(&self, queue: &Queue, pass: &Pass, now: Timestamp) -> Place {
        let Some(beside) = &pass.beside else {
            return queue.place(pass.ticket.seq, now);
        };
        if beside.spent.load(Ordering::Relaxed) {
            Place::Over(Ending::Finished)
        } else if now < beside.until {
            Place::Active { until: beside.until, claimed: true }
        } else {
            Place::Over(Ending::TimedOut)
        }
    }

    pub(super) async fn leave(
        &self,
        queue: &Queue,
        pass: &Pass,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let seq = pass.ticket.seq;
        let waiting = pass.beside.is_none() && queue.is_waiting(seq);
        self.store.give_up((&pass.ticket).into(), waiting, now).await?;
        match &pass.beside {
            Some(beside) => beside.spent.store(true, Ordering::Relaxed),
            None => queue.leave(seq),
        }
        Ok(())
    }

    pub(super) fn finish(&self, queue: &Queue, pass: &Pass) {
        match &pass.beside {
            Some(beside) => beside.spent.store(true, Ordering::Relaxed),
            None => queue.finish(pass.ticket.seq),
        }
    }

    pub(super) async fn tick(&self, now: Timestamp) -> Result<(), Fault> {
        let mut saving = self.saving.lock().await;
        let queues = self.queues.load_full();
        let points: Vec<Checkpoint> =
            queues.values().filter_map(|queue| queue.prepare(now)).collect();
        let clock_due = now.0.saturating_sub(saving.0) >= CLOCK_SAVE_INTERVAL_MS;
        if clock_due || !points.is_empty() {
            self.save(&mut saving, points, now).await?;
        }
        // Opaque tokens may be many, and their count is needed roughly.
        let counted_at = self.counted_at.load(Ordering::Relaxed);
        if (now.0 - counted_at).abs() >= COUNT_INTERVAL_MS {
            self.counted_at.store(now.0, Ordering::Relaxed);
            self.count_beside(now);
        }
        Ok(())
    }

    pub(super) async fn close(&self, now: Timestamp) -> Result<(), Fault> {
        let mut saving = self.saving.lock().await;
        let queues = self.queues.load_full();
        queues.values().for_each(|queue| queue.close());
        let points = queues.values().map(|queue| queue.last_checkpoint()).collect();
        self.save(&mut saving, points, now).await
    }

    pub(super) fn audit(&self, now: Timestamp) -> Vec<Finding> {
        let mut overtaken = Finding::new(Invariant::NobodyOvertaken);
        let mut bounded = Finding::new(Invariant::ActiveBounded);
        for queue in self.queues() {
            let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            let counters = queue.counters();
            let name = queue.name();
            overtaken.looked_at(count(&counters.published));
            let went_back = count(&counters.went_back);
            overtaken.expect(went_back == 0, || {
                format!("a counter of queue {name} went back {went_back} times")
            });
            let next = queue.next();
            let view = queue.view();
            overtaken.expect(view.line.serving() <= next, || {
                format!("queue {name} serves {} of {next}", view.line.serving())
            });
            bounded.looked_at(count(&counters.bound_checked));
            let broken = count(&counters.bound_broken);
            bounded.expect(broken == 0, || {
                format!("queue {name} admitted past max_active {broken} times")
            });
            // Unbounded, the arithmetic must still not count more than were ever admitted.
            let active = view.line.active(&view.settings, now);
            bounded.expect(active <= view.line.serving() - view.line.floor(), || {
                format!("queue {name} counts {active} active")
            });
        }
        vec![overtaken, bounded]
    }
}

/// Gives numbers to the joins that came when the reserved ones had run out: in the order in which
/// they came, as many in one step as have come while the last step was under way.
async fn number_joins(
    sequencer: Weak<LocalSequencer>,
    queue: Weak<Queue>,
    mut joins: mpsc::UnboundedReceiver<JoinReply>,
) {
    let mut batch: Vec<JoinReply> = Vec::with_capacity(BATCH_MAX);
    while joins.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let (Some(sequencer), Some(queue)) = (sequencer.upgrade(), queue.upgrade()) else { return };
        let count = batch.len() as u64;
        let taken = sequencer.take(&queue, count).await;
        queue.dequeued(count);
        match taken {
            Ok(first) => {
                for (reply, seq) in batch.drain(..).zip(first..) {
                    // Whoever hung up keeps an empty place in the line; it costs a moment.
                    let _ = reply.send(Ok(seq));
                }
            }
            Err(fault) => batch.drain(..).for_each(|reply| {
                let _ = reply.send(Err(fault.clone()));
            }),
        }
    }
}
