//! A store at the other end of a simulated network.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::time::Timestamp;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{ClockCheck, MemoryStore, Outbox, SqliteStore, Store};
use crate::{Fault, Tasks};

/// What carries operations to a store, and answers back. Whatever it does with them is what happens on
/// a network: an operation may come late, and be executed all the same; an answer may be lost.
pub trait Road: Send + Sync {
    /// Takes an operation over.
    fn carry(&self, errand: Errand);
}

/// What becomes of an operation.
pub type Executed = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// An operation on its way to the store.
pub struct Errand {
    /// What it does.
    pub operation: &'static str,
    work: Box<dyn FnOnce(Option<Fault>) -> Executed + Send>,
}

impl Errand {
    /// Executes the operation. Whoever asked gets the answer when the reply is delivered.
    pub fn run(self) -> Executed {
        (self.work)(None)
    }

    /// Tells whoever asked that nothing has happened.
    pub async fn refuse(self, fault: Fault) {
        (self.work)(Some(fault)).await.deliver();
    }
}

/// An answer on its way back. Dropped, it is lost: whoever asked waits for ever.
pub struct Reply(Box<dyn FnOnce(Option<Fault>) + Send>);

impl Reply {
    /// Gives it to whoever asked.
    pub fn deliver(self) {
        (self.0)(None);
    }

    /// Gives this to whoever asked instead, as where a connection breaks before the answer has come.
    pub fn replace(self, fault: Fault) {
        (self.0)(Some(fault));
    }
}

/// The store itself.
#[derive(Clone)]
pub(super) enum Near {
    Sqlite(Arc<SqliteStore>),
    Memory(Arc<MemoryStore>),
}

impl Near {
    fn store(self) -> Store {
        match self {
            Self::Sqlite(store) => Store::Sqlite(store),
            Self::Memory(store) => Store::Memory(store),
        }
    }
}

/// What is not one operation of a store, but several: it makes one way over the network here.
type Whole<T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send>>;

impl Near {
    pub(super) fn expire_due(self, now: Timestamp, max: u32) -> Whole<u32> {
        Box::pin(async move { self.store().expire_due(now, max).await })
    }

    pub(super) fn next_events(self, max: u32) -> Whole<Outbox> {
        Box::pin(async move { self.store().next_events(max).await })
    }

    pub(super) fn mark_published(self, outbox: Outbox) -> Whole<()> {
        Box::pin(async move { self.store().mark_published(outbox).await })
    }
}

/// The store as one process has it.
pub struct Distant {
    pub(super) near: Near,
    road: Arc<dyn Road>,
    patience: Duration,
    tasks: Tasks,
    clock_check: ClockCheck,
}

impl Distant {
    /// A store for one process, at the end of this road, whose answers are waited for no longer than
    /// `patience`. A store that is distant already, or has a server of its own, cannot be put there.
    pub fn new(store: Store, road: Arc<dyn Road>, patience: Duration) -> Option<Arc<Self>> {
        let near = match store {
            Store::Sqlite(store) => Near::Sqlite(store),
            Store::Memory(store) => Near::Memory(store),
            Store::Mysql(_) | Store::Distant(_) => return None,
        };
        let (tasks, clock_check) = (Tasks::default(), ClockCheck::default());
        Some(Arc::new(Self { near, road, patience, tasks, clock_check }))
    }

    /// How the clock of the process compares with that of the store.
    pub(super) const fn clock_check(&self) -> &ClockCheck {
        &self.clock_check
    }

    /// The background work of the process.
    pub(super) const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(super) async fn call<T, E, F>(
        &self,
        operation: &'static str,
        work: impl FnOnce(Near) -> F + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (sender, answer) = oneshot::channel::<Result<T, E>>();
        let near = self.near.clone();
        let run = async move |refused: Option<Fault>| {
            let done = match refused {
                Some(fault) => Err(fault.into()),
                None => work(near).await,
            };
            Reply(Box::new(move |broken| {
                // Whoever asked may have given up, or be dead.
                let _ = sender.send(broken.map_or(done, |fault| Err(fault.into())));
            }))
        };
        self.road.carry(Errand { operation, work: Box::new(|refused| Box::pin(run(refused))) });
        let answer = async {
            match answer.await {
                Ok(answer) => answer,
                Err(_) => pending().await,
            }
        };
        timeout(self.patience, answer).await.unwrap_or_else(|_| {
            Err(Fault::OutcomeUnknown("no answer from the store in time".into()).into())
        })
    }
}
