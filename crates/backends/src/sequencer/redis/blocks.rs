//! Numbers for joins: Redis passes on blocks that the store has handed out. While Redis is away they
//! come from the store one batch at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::deadline::{NUMBERS_TIMEOUT, in_time};
use super::member::{Member, Members};
use super::protocol::{Join, Joined, Protocol};
use crate::Fault;
use crate::sequencer::joins::Numbers;
use crate::sequencer::queue::Queue;
use crate::store::Store;

/// A join that needs a block which somebody else fetches looks for it this often.
const FETCHED_INTERVAL: Duration = Duration::from_millis(4);
/// After so long it fetches one itself: the other may have been killed.
const FETCHED_TIMEOUT: Duration = Duration::from_millis(300);
/// A block may be used up by others before this instance sees any of it: so many times.
const TRIES_MAX: u32 = 8;
/// When the store comes back while Redis is away, numbers wait for so long: instances that have
/// Redis tell the store first which numbers were given without it.
const STORE_BACK_PAUSE: Duration = Duration::from_secs(2);

/// Where the numbers of this instance come from.
pub(super) struct Blocks {
    store: Store,
    protocol: Arc<Protocol>,
    members: Arc<Members>,
    /// The store did not hand out numbers the last time that it was asked for a block.
    store_away: AtomicBool,
    direct: Mutex<Direct>,
    this: Weak<Self>,
}

/// Whether numbers may come from the store while Redis is away.
#[derive(Default)]
struct Direct {
    store_failed: bool,
    not_before: Option<Instant>,
}

/// Why there is no new block.
pub(super) enum NoBlock {
    /// The store did not hand one out.
    Store(Fault),
    /// It could not be installed in Redis, and is lost.
    Redis,
}

impl Blocks {
    pub(super) fn new(store: Store, protocol: Arc<Protocol>, members: Arc<Members>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            store,
            protocol,
            members,
            store_away: AtomicBool::new(false),
            direct: Mutex::default(),
            this: this.clone(),
        })
    }

    /// The next `count` numbers, by way of Redis as long as it answers.
    async fn ask_redis(&self, member: &Arc<Member>, count: u64) -> Result<u64, Fault> {
        let fetched_by = Instant::now() + FETCHED_TIMEOUT;
        let mut tries = 0;
        while tries < TRIES_MAX {
            if !self.protocol.stats().is_up() {
                return self.ask_store(member, count).await;
            }
            let store_away = self.store_away.load(Ordering::Relaxed);
            let join = Join {
                queue: member.queue.name(),
                count,
                highest_given: member.queue.next(),
                refill_below: member.block() / 2,
                store_away,
                missed: member.missed(),
            };
            let highest_given = match self.protocol.join(&join).await {
                Ok(Joined::Numbers { first, fetch }) => {
                    if fetch {
                        self.fetch_ahead(member);
                    }
                    return Ok(first);
                }
                Ok(Joined::Short { fetch: false, .. }) if Instant::now() < fetched_by => {
                    tokio::time::sleep(FETCHED_INTERVAL).await;
                    continue;
                }
                Ok(Joined::Short { highest_given, .. }) => highest_given,
                Err(_) => {
                    tries += 1;
                    continue;
                }
            };
            tries += 1;
            member.learn_unsecured(highest_given);
            if let Err(NoBlock::Store(fault)) = self.fetch(member, count).await {
                // Where Redis has a block it goes on without the store. Where it has none, nobody
                // can tell which numbers were given.
                if store_away {
                    return Err(fault);
                }
            }
        }
        Err(Fault::Unavailable("numbers have run out".into()))
    }

    /// Has the store hand out a block, and installs it in Redis. The store knows then of all numbers
    /// that this instance knows to have been given.
    pub(super) async fn fetch(&self, member: &Member, count: u64) -> Result<(), NoBlock> {
        let size = member.block_for(count);
        let name = member.queue.name();
        let began = Instant::now();
        let handed_out = self.store.allocate_numbers(name.clone(), size, member.highest_given());
        let handed_out = in_time(NUMBERS_TIMEOUT, handed_out).await;
        member.fetched(began.elapsed());
        self.store_away.store(handed_out.is_err(), Ordering::Relaxed);
        let first = handed_out.map_err(NoBlock::Store)?;
        let stats = self.protocol.stats();
        stats.blocks.fetch_add(1, Ordering::Relaxed);
        let installed = self.protocol.install(name, first, first + size - 1).await;
        if !installed.map_err(|_| NoBlock::Redis)? {
            stats.skipped.fetch_add(size, Ordering::Relaxed);
        }
        Ok(())
    }

    fn fetch_ahead(&self, member: &Arc<Member>) {
        let (this, member) = (self.this.clone(), member.clone());
        crate::tasks::detach(async move {
            if let Some(blocks) = this.upgrade() {
                // The next join that needs the block tries again, and tells why it cannot.
                let _ = blocks.fetch(&member, 0).await;
            }
        });
    }

    /// The next `count` numbers from the store itself, because Redis is away.
    async fn ask_store(&self, member: &Member, count: u64) -> Result<u64, Fault> {
        let just_back =
            || Fault::Unavailable("redis is away, and the store has just come back".into());
        let failed = {
            let direct = self.direct.lock();
            if direct.not_before.is_some_and(|at| Instant::now() < at) {
                return Err(just_back());
            }
            direct.store_failed
        };
        let asked = if failed { 0 } else { count };
        let name = member.queue.name().clone();
        let handed_out = self.store.allocate_numbers(name, asked, member.highest_given());
        let handed_out = in_time(NUMBERS_TIMEOUT, handed_out).await;
        let mut direct = self.direct.lock();
        direct.store_failed = handed_out.is_err();
        let first = handed_out?;
        if failed {
            direct.not_before = Some(Instant::now() + STORE_BACK_PAUSE);
            return Err(just_back());
        }
        self.protocol.stats().direct.fetch_add(count, Ordering::Relaxed);
        Ok(first)
    }
}

impl Numbers for Blocks {
    /// At most a hundred calls a second of an instance, unless each serves 32 joins.
    const PACE: Duration = Duration::from_millis(10);

    async fn next_numbers(&self, queue: &Queue, count: u64) -> Result<u64, Fault> {
        let member = self.members.get(queue.name().as_str());
        let member = member.ok_or_else(|| Fault::Unavailable("the queue is closed".into()))?;
        queue.is_open()?;
        let first = self.ask_redis(&member, count).await?;
        queue.note_given(first, count);
        Ok(first)
    }
}
