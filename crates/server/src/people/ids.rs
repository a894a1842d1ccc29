//! The ids of people, asked of the store for many at once: a rush brings thousands a second who have
//! never been seen.

use std::time::Duration;

use boxoffice_backends::Fault;
use boxoffice_backends::store::{NewPerson, Store};
use boxoffice_domain::ids::UserId;
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// So many are asked for at once,
const BATCH_MAX: usize = 512;
/// so many may wait for that,
const WAITING_MAX: usize = 16_384;
/// and none for longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

type Found = Result<Option<UserId>, Fault>;

struct Ask {
    person: NewPerson,
    now: Timestamp,
    reply: oneshot::Sender<Found>,
}

/// Finds the ids of people.
pub(super) struct Ids {
    asks: mpsc::Sender<Ask>,
    finding: Mutex<Option<JoinHandle<()>>>,
}

impl Ids {
    pub(super) fn new(store: Store) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let tasks = store.tasks().clone();
        let finding = tasks.spawn("people", find(store, receiver));
        Self { asks: sender, finding: Mutex::new(Some(finding)) }
    }

    /// Finds nobody any more, and lets go of the store.
    pub(super) async fn close(&self) {
        let finding = self.finding.lock().take();
        if let Some(finding) = finding {
            finding.abort();
            let _ = finding.await;
        }
    }

    /// Returns the id of a person, a new one where they are new; `None` where they bring one along that
    /// is another person's.
    pub(super) async fn id_of(&self, person: NewPerson, now: Timestamp) -> Found {
        let (reply, found) = oneshot::channel();
        let ask = Ask { person, now, reply };
        self.asks
            .try_send(ask)
            .map_err(|_| Fault::Unavailable("too many people come for the first time".into()))?;
        match timeout(PATIENCE, found).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => Err(Fault::Unavailable("the service is shutting down".into())),
            Err(_) => Err(Fault::Unavailable("the store does not tell who it is".into())),
        }
    }
}

async fn find(store: Store, mut asked: mpsc::Receiver<Ask>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while asked.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let now = batch.iter().map(|ask| ask.now).max().unwrap_or_default();
        let people = batch.iter().map(|ask| ask.person.clone()).collect();
        let found = store.people(people, now).await;
        for (index, ask) in batch.drain(..).enumerate() {
            let id = match &found {
                Ok(ids) => Ok(ids.get(index).copied().flatten()),
                Err(fault) => Err(fault.clone()),
            };
            // Whoever asked may have gone away.
            let _ = ask.reply.send(id);
        }
    }
}
