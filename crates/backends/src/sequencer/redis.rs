//! The sequencer of several instances.
//!
//! The store grants numbers and decides, by compare-and-set, who admits. Redis keeps a pool of granted
//! numbers and passes them to joins, and news between the instances. Each of them keeps a mirror of
//! every queue, which is all that polls read. Nothing here rests on Redis keeping what it was told:
//! without it numbers come from the store, and mirrors are read from there.
//!
//! Time-outs and pauses of calls are measured here, with the runtime's own clock; what the rules
//! call `now` comes in as everywhere.

mod beats;
mod deadline;
mod link;
mod member;
mod mirror;
mod mode;
mod pools;
mod protocol;
mod tick;

use std::sync::Arc;

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{QueueSettings, SaleRules, SettingsChange, Ticket};
use boxoffice_domain::time::Timestamp;

use self::beats::Beats;
#[cfg(feature = "simulation")]
pub use self::link::simulated;
pub use self::link::{RedisMode, RedisOptions, RedisStats};
use self::member::Members;
use self::mirror::Mirror;
use self::pools::Pools;
use self::protocol::Protocol;
use self::tick::Ticker;
use super::aliases::Aliases;
use super::governing::Governing;
use super::joins::Numbers;
use super::news::News;
use super::places::{Keeping, Kept};
use super::queue::Queue;
use super::solutions::{Solution, Solutions, Use};
use crate::store::{Act, ActRejected, Acted, Effect, Note, Store};
use crate::{Error, Fault};

/// So many tickets of people are kept in one call: Redis answers nobody else meanwhile.
const KEPT_PART: usize = 500;

/// The sequencer of several instances.
pub struct RedisSequencer {
    store: Store,
    protocol: Arc<Protocol>,
    pools: Arc<Pools>,
    beats: Beats,
    mirror: Arc<Mirror>,
    solutions: Solutions,
    ticker: tokio::sync::Mutex<Ticker>,
    /// Held while settings are changed, so that changes reach memory in the order in which they
    /// reach the store.
    changing: tokio::sync::Mutex<()>,
}

impl RedisSequencer {
    /// Loads the queues as the store has them, and connects to Redis. Every queue gets the active
    /// time and claim window of `defaults`. Redis may be away.
    ///
    /// # Errors
    /// Where the store cannot be read, what it says of a queue makes no sense, the Redis belongs to
    /// instances of another store, or another instance signs tickets with a key that this one does not
    /// have.
    pub async fn open(
        store: Store,
        defaults: &QueueSettings,
        options: RedisOptions,
        now: Timestamp,
    ) -> Result<Arc<Self>, Fault> {
        let aliases = store.aliases(now).await?;
        let protocol = Arc::new(Protocol::new(options, store.tasks().clone()));
        let members = Arc::new(Members::default());
        let pools = Pools::new(store.clone(), protocol.clone(), members.clone());
        let mirror = Mirror::new(store.clone(), protocol.clone(), members, pools.clone(), defaults);
        let mirror = Arc::new(mirror);
        let beats = Beats::new(store.clone(), protocol.clone(), pools.clone(), mirror.clone());
        beats.open(now).await?;
        mirror.aliases.remember(&aliases);
        mirror.reload(false).await?;
        protocol.link().dial_first().await;
        let mut ticker = Ticker::new(store.clone(), protocol.clone(), mirror.clone(), now);
        ticker.open(now).await?;
        mirror.aliases.tidy(&mirror.queues(), now);
        let ticker = tokio::sync::Mutex::new(ticker);
        let changing = tokio::sync::Mutex::default();
        let solutions = Solutions::default();
        Ok(Arc::new(Self { store, protocol, pools, beats, mirror, solutions, ticker, changing }))
    }

    /// Follows the sales behind the queues from now on.
    pub(super) fn follow_sales(&self, rules: SaleRules, now: Timestamp) {
        self.mirror.sales.follow(rules);
        self.mirror.note_sales(now);
    }

    pub(super) fn stats(&self) -> &RedisStats {
        self.protocol.stats()
    }

    pub(super) const fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn governing(&self) -> &Governing {
        &self.mirror.governing
    }

    pub(super) fn aliases(&self) -> &Aliases {
        &self.mirror.aliases
    }

    /// Has the others told with the next tick.
    pub(super) fn tell(&self, news: News) {
        self.mirror.tell(news);
    }

    pub(super) fn queue(&self, name: &str) -> Option<Arc<Queue>> {
        self.mirror.members.get(name).map(|member| member.queue.clone())
    }

    pub(super) fn queues(&self) -> Vec<Arc<Queue>> {
        self.mirror.queues()
    }

    pub(super) async fn create(
        &self,
        name: QueueName,
        settings: QueueSettings,
    ) -> Result<bool, Fault> {
        if !self.store.create_queue(name, settings).await? {
            return Ok(false);
        }
        self.mirror.reload(false).await?;
        self.tell(News::Reload);
        Ok(true)
    }

    pub(super) async fn create_noted(
        &self,
        act: Act,
        note: Note,
    ) -> Result<Acted, Error<ActRejected>> {
        let acted = self.store.act(act, note).await?;
        if matches!(acted, Acted::Now(..)) {
            self.mirror.reload(false).await?;
            self.tell(News::Reload);
        }
        Ok(acted)
    }

    pub(super) async fn change_noted(
        &self,
        queue: &Queue,
        act: Act,
        note: Note,
    ) -> Result<Acted, Error<ActRejected>> {
        let _changing = self.changing.lock().await;
        let acted = self.store.act(act, note).await?;
        if let Acted::Now(Effect::Queue { after, .. }, _) = &acted {
            queue.configure(after.clone());
            queue.forget_credit();
            self.tell(News::Reload);
        }
        Ok(acted)
    }

    pub(super) async fn change(
        &self,
        queue: &Queue,
        change: SettingsChange,
    ) -> Result<QueueSettings, Fault> {
        let _changing = self.changing.lock().await;
        let settings = self.store.change_queue(queue.name().clone(), change).await?;
        let settings = queue.configure(settings);
        queue.forget_credit();
        // This instance hears it too: another may have changed something since.
        self.tell(News::Reload);
        Ok(settings)
    }

    pub(super) async fn join(&self, queue: &Queue) -> Result<u64, Fault> {
        queue.wait_for_number().await
    }

    /// Uses the solution of a challenge. While Redis is away each instance knows of those that were used
    /// here: a solution may be good once at each of them then, and nowhere twice.
    pub(super) async fn use_solution(&self, solution: &Solution, now: Timestamp) -> Use {
        let here = self.solutions.take(solution, now);
        if matches!(here, Use::Another | Use::Unknown) {
            return here;
        }
        match self.protocol.use_solution(solution, now).await {
            Ok(None) => Use::First,
            Ok(Some(first)) => {
                // It may have been elsewhere: whoever repeats it here is that one, and no other.
                self.solutions.correct(solution, first);
                solution.after(first)
            }
            Err(_) => here,
        }
    }

    /// Keeps tickets of people. While Redis is away, nobody is noted.
    pub(super) async fn keep(&self, queue: &Queue, keeping: &[Keeping]) -> Vec<Kept> {
        let mut kept = Vec::with_capacity(keeping.len());
        for part in keeping.chunks(KEPT_PART) {
            let Ok((generation, others)) = self.protocol.keep(queue.name(), part).await else {
                break;
            };
            let done = part.iter().zip(&others).filter(|(_, other)| other.is_none());
            queue.note_kept(done.map(|(keeping, _)| keeping.keeps.seq), &generation);
            kept.extend(others.into_iter().map(|other| other.map_or(Kept::Done, Kept::Another)));
        }
        kept.resize(keeping.len(), Kept::Unknown);
        kept
    }

    /// The ticket is over: joins are not to find it, at whichever instance.
    pub(super) async fn forget_place(&self, queue: &Queue, ticket: &Ticket) {
        // Where this fails, the others hear of the end with the next tick.
        let _ = self.protocol.forget(queue.name(), ticket).await;
    }

    /// The next `count` numbers. Returns the first.
    pub(super) async fn next_numbers(&self, queue: &Queue, count: u64) -> Result<u64, Fault> {
        self.pools.next_numbers(queue, count).await
    }

    pub(super) async fn tick(&self, now: Timestamp) -> Result<(), Fault> {
        self.ticker.lock().await.tick(now).await
    }

    pub(super) async fn beat(&self, now: Timestamp) -> Result<(), Fault> {
        self.beats.beat(now).await
    }

    pub(super) fn instances(&self) -> (String, Vec<(String, Timestamp)>) {
        self.beats.instances()
    }

    /// Whether joins are sent elsewhere, because other instances have Redis.
    pub(super) fn are_joins_elsewhere(&self) -> bool {
        self.pools.are_elsewhere()
    }

    pub(super) async fn close(&self, now: Timestamp) -> Result<(), Fault> {
        let closed = self.ticker.lock().await.close(now).await;
        self.beats.close(now).await?;
        closed
    }
}
