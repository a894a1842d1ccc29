//! The sequencer: gives joins their numbers, admits, and knows where each ticket stands.

mod aliases;
mod joins;
mod local;
mod queue;
mod redis;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use boxoffice_domain::ids::{QueueName, UserId};
use boxoffice_domain::invariant::{Finding, Invariant};
use boxoffice_domain::queue::{Place, Settings, Ticket};
use boxoffice_domain::time::Timestamp;

pub use local::LocalSequencer;
pub use queue::{Counters, Queue};
pub use redis::{RedisMode, RedisOptions, RedisSequencer, RedisStats};

use crate::store::{Alias, AliasExists};
use crate::{Error, Fault};

/// A ticket as presented: signed, or by an opaque token that an operator issued for it.
#[derive(Clone, Debug)]
pub struct Pass {
    /// What the ticket says.
    pub ticket: Ticket,
    /// Set where it was let in without ever having been in the line.
    pub beside: Option<Arc<Beside>>,
}

/// A ticket that an operator let in past the line.
#[derive(Debug)]
pub struct Beside {
    until: Timestamp,
    spent: AtomicBool,
}

impl From<Ticket> for Pass {
    fn from(ticket: Ticket) -> Self {
        Self { ticket, beside: None }
    }
}

/// Opaque tokens to be issued.
#[derive(Clone, Debug)]
pub struct NewAlias {
    /// The token as the client will send it.
    pub token: String,
    /// Whose it is.
    pub user: UserId,
    /// Until when it is active; `None` puts it at the end of the line instead.
    pub active_until: Option<Timestamp>,
    /// The unique id of the ticket behind it.
    pub id: boxoffice_domain::ids::TicketId,
}

/// The sequencer in use.
#[derive(Clone)]
pub enum Sequencer {
    /// Counters in this process, checkpointed in the store.
    Local(Arc<LocalSequencer>),
    /// Numbers and news through Redis, what is durable through the store; shared by instances.
    Redis(Arc<RedisSequencer>),
}

impl Sequencer {
    /// The queue of this name.
    pub fn queue(&self, name: &str) -> Option<Arc<Queue>> {
        match self {
            Self::Local(local) => local.queue(name),
            Self::Redis(redis) => redis.queue(name),
        }
    }

    /// Every queue, by name.
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        match self {
            Self::Local(local) => local.queues(),
            Self::Redis(redis) => redis.queues(),
        }
    }

    /// Makes a queue; gives whether it is new.
    pub async fn create(&self, name: QueueName, settings: Settings) -> Result<bool, Fault> {
        match self {
            Self::Local(local) => local.create(name, settings).await,
            Self::Redis(redis) => redis.create(name, settings).await,
        }
    }

    /// How a queue admits, as the store has it: another instance may have changed that a moment ago.
    pub async fn settings(&self, queue: &Queue) -> Result<Settings, Fault> {
        match self {
            // Nobody else changes it.
            Self::Local(_) => Ok(queue.settings()),
            Self::Redis(redis) => redis.settings(queue).await,
        }
    }

    /// Changes how a queue admits, durably.
    pub async fn configure(&self, queue: &Arc<Queue>, settings: Settings) -> Result<(), Fault> {
        match self {
            Self::Local(local) => local.configure(queue, settings).await,
            Self::Redis(redis) => redis.configure(queue, settings).await,
        }
    }

    /// The next number of the queue. Numbers rise in the order in which joins arrive here.
    pub async fn join(&self, queue: &Queue) -> Result<u64, Fault> {
        match self {
            Self::Local(local) => local.join(queue).await,
            Self::Redis(redis) => redis.join(queue).await,
        }
    }

    /// What stands behind an opaque token.
    pub fn alias(&self, token: &str) -> Option<Pass> {
        match self {
            Self::Local(local) => local.alias(token),
            Self::Redis(redis) => redis.alias(token),
        }
    }

    /// Issues opaque tokens: all or none.
    pub async fn issue(
        &self,
        queue: &Arc<Queue>,
        tokens: Vec<NewAlias>,
        now: Timestamp,
    ) -> Result<Vec<Alias>, Error<AliasExists>> {
        match self {
            Self::Local(local) => local.issue(queue, tokens, now).await,
            Self::Redis(redis) => redis.issue(queue, tokens, now).await,
        }
    }

    /// Where a ticket stands. Reads memory only; also notes that its owner has been seen.
    pub fn place(&self, queue: &Queue, pass: &Pass, now: Timestamp) -> Place {
        aliases::place(queue, pass, now)
    }

    /// The owner gives the ticket up; durable when this returns.
    pub async fn leave(&self, queue: &Queue, pass: &Pass, now: Timestamp) -> Result<(), Fault> {
        match self {
            Self::Local(local) => local.leave(queue, pass, now).await,
            Self::Redis(redis) => redis.leave(queue, pass, now).await,
        }
    }

    /// The ticket has paid. The store knows already; this is for those who ask where it stands.
    pub fn finish(&self, queue: &Queue, pass: &Pass) {
        match self {
            Self::Local(local) => local.finish(queue, pass),
            Self::Redis(redis) => redis.finish(queue, pass),
        }
    }

    /// One step of admission for every queue. To be called every 100 ms.
    pub async fn tick(&self, now: Timestamp) -> Result<(), Fault> {
        match self {
            Self::Local(local) => local.tick(now).await,
            Self::Redis(redis) => redis.tick(now).await,
        }
    }

    /// Records the counters for the last time, exactly, so that no number is skipped after an
    /// orderly restart. Joins after this are refused.
    pub async fn close(&self, now: Timestamp) -> Result<(), Fault> {
        match self {
            Self::Local(local) => local.close(now).await,
            Self::Redis(redis) => redis.close(now).await,
        }
    }

    /// Checks the invariants that only the sequencer can see.
    pub fn audit(&self, now: Timestamp) -> Vec<Finding> {
        let mut overtaken = Finding::new(Invariant::NobodyOvertaken);
        let mut bounded = Finding::new(Invariant::ActiveBounded);
        for queue in self.queues() {
            queue.audit(&mut overtaken, &mut bounded, now);
        }
        vec![overtaken, bounded]
    }

    /// How the sequencer's Redis is doing, where it has one.
    pub fn redis(&self) -> Option<&RedisStats> {
        match self {
            Self::Local(_) => None,
            Self::Redis(redis) => Some(redis.stats()),
        }
    }
}
