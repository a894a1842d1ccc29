//! What polls read: a mirror of every queue and of the opaque tokens, kept up with by the store and by
//! the news of the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{Governor, QueueSettings};
use boxoffice_domain::time::Timestamp;
use tokio::sync::mpsc;

use super::deadline::{READ_TIMEOUT, in_time};
use super::link::RedisStats;
use super::member::{ByName, Member, Members};
use super::pools::Pools;
use super::protocol::Protocol;
use crate::Fault;
use crate::sequencer::aliases::Aliases;
use crate::sequencer::governing::Governing;
use crate::sequencer::joins::number_joins;
use crate::sequencer::news::{News, Untold};
use crate::sequencer::queue::{HeardFrom, Queue, Reading};
use crate::sequencer::sales::Sales;
use crate::store::{Store, StoredQueue};

/// What the mirrors may lack, and the store has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lacks {
    /// Something of a queue, or a queue.
    pub(super) queues: bool,
    /// Numbers that were given, and nobody here has heard of.
    pub(super) numbers: bool,
    /// Opaque tokens.
    pub(super) aliases: bool,
}

/// All that this instance has in memory of what the instances share.
pub(super) struct Mirror {
    store: Store,
    protocol: Arc<Protocol>,
    active_ttl: Duration,
    claim_window: Duration,
    pools: Arc<Pools>,
    pub(super) members: Arc<Members>,
    pub(super) aliases: Aliases,
    pub(super) sales: Sales,
    pub(super) governing: Governing,
    pub(super) untold: Untold,
}

impl Mirror {
    /// An empty mirror. Every queue gets the active time and claim window of `defaults`.
    pub(super) fn new(
        store: Store,
        protocol: Arc<Protocol>,
        members: Arc<Members>,
        pools: Arc<Pools>,
        defaults: &QueueSettings,
    ) -> Self {
        let governing = Governing::new(&protocol.options().instance);
        Self {
            store,
            protocol,
            active_ttl: defaults.active_ttl,
            claim_window: defaults.claim_window,
            pools,
            members,
            aliases: Aliases::default(),
            sales: Sales::default(),
            governing,
            untold: Untold::default(),
        }
    }

    fn stats(&self) -> &RedisStats {
        self.protocol.stats()
    }

    /// Has the others told with the next tick.
    pub(super) fn tell(&self, news: News) {
        self.untold.add(news);
    }

    pub(super) fn queues(&self) -> Vec<Arc<Queue>> {
        self.members.queues()
    }

    /// Tells the queues what is sold behind them, as far as this instance knows.
    pub(super) fn note_sales(&self, now: Timestamp) {
        self.sales.note(&self.queues(), &self.store, now);
    }

    /// Reads the queues from the store. With `numbers`, those up to the watermark may have been given.
    pub(super) async fn reload(&self, numbers: bool) -> Result<(), Fault> {
        self.stats().reloads.fetch_add(1, Ordering::Relaxed);
        let members = self.members.all();
        let readings: HashMap<&QueueName, Reading> =
            members.iter().map(|(name, member)| (name, member.queue.begin_reading())).collect();
        for mut stored in in_time(READ_TIMEOUT, self.store.queues()).await? {
            stored.settings.active_ttl = self.active_ttl;
            stored.settings.claim_window = self.claim_window;
            let (Some(member), Some(reading)) =
                (members.get(&stored.name), readings.get(&stored.name))
            else {
                self.start(stored)?;
                continue;
            };
            if numbers {
                member.queue.learn_next(stored.watermark);
            }
            member.queue.absorb(stored, *reading)?;
        }
        Ok(())
    }

    fn start(&self, stored: StoredQueue) -> Result<(), Fault> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let one_place_each = self.protocol.options().one_place_each;
        let queue = Arc::new(Queue::new(stored, true, one_place_each, sender)?);
        if self.members.add(&Arc::new(Member::new(queue.clone()))) {
            let numbers = Arc::downgrade(&self.pools);
            let joins = number_joins(numbers, Arc::downgrade(&queue), receiver);
            self.store.tasks().spawn("joins", joins);
        }
        Ok(())
    }

    /// Reads the opaque tokens from the store.
    pub(super) async fn read_aliases(&self) -> Result<(), Fault> {
        let clock = in_time(READ_TIMEOUT, self.store.clock()).await?;
        let aliases = in_time(READ_TIMEOUT, self.store.aliases(clock)).await?;
        self.aliases.remember(&aliases);
        // Among them are some that had been forgotten.
        self.aliases.forget_over(&self.queues(), clock);
        Ok(())
    }

    /// Takes over what others have told. Returns what is to be read from the store now.
    pub(super) fn hear(&self, lines: &[String], now: Timestamp) -> Lacks {
        let mut lacks = Lacks::default();
        // Many pieces of one kind come together, and each change of a line is a copy of it.
        let mut over = Over::new();
        let members = self.members.all();
        for line in lines {
            match News::read(line) {
                News::Admitted(step) => {
                    // Room was made before it was taken.
                    end(&members, &mut over);
                    match members.get(&step.queue) {
                        Some(member) => lacks.queues |= !member.queue.advanced(&step, false),
                        None => lacks.queues = true,
                    }
                }
                News::Claimed(queue, seqs) => {
                    if let Some(member) = members.get(&queue) {
                        member.queue.apply_claimed(seqs, HeardFrom::Redis, now);
                    }
                }
                News::ClaimedLate(queue, seqs) => {
                    if let Some(member) = members.get(&queue) {
                        member.queue.apply_claimed(seqs, HeardFrom::RedisLate, now);
                    }
                }
                News::Returned(queue, seqs) => {
                    if let Some(member) = members.get(&queue) {
                        member.queue.hear_polled(seqs, now);
                    }
                }
                News::Left(queue, seqs) => over.entry((queue, false)).or_default().extend(seqs),
                News::Finished(queue, seqs) => over.entry((queue, true)).or_default().extend(seqs),
                News::Spent(id, by) => self.aliases.spent(id, by),
                News::Issued => lacks.aliases = true,
                News::Felt(id, felt) => self.governing.hear(id, felt),
                News::Governed(at, parts) => {
                    if let Some(governor) = Governor::restore(parts) {
                        self.governing.adopt(at, governor, &self.queues());
                    }
                }
                News::Reload => lacks.queues = true,
            }
        }
        end(&members, &mut over);
        lacks
    }
}

/// Numbers that are over, by queue and by whether they have paid.
type Over = HashMap<(QueueName, bool), Vec<u64>>;

fn end(members: &ByName, over: &mut Over) {
    for ((queue, finished), seqs) in over.drain() {
        if let Some(member) = members.get(&queue) {
            member.queue.apply_over(seqs, finished);
        }
    }
}
