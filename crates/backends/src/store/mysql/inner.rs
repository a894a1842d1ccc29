//! What all parts of the store share: connections for each kind of work, what is published, and how
//! an operation becomes a transaction.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use boxoffice_domain::ids::SeatId;
use boxoffice_domain::sales::Seat;
use tokio::sync::Semaphore;

use super::familiar::Familiar;
use super::fence::Fence;
use super::pool::{Lane, Lease, Pool};
use super::publication::Publication;
use super::rows::{DEADLOCK, Failure};
use super::sql;
use super::tx::{Done, Operation, Tx};
use crate::Fault;
use crate::store::catalog::{Catalog, Inventory};
use crate::store::stats::{Commit, CommitObserver, StoreStats};

/// How often an operation is tried when the database asks to try again.
const TRIES: u32 = 6;
/// What is read over a connection.
pub(super) type Reading<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// What the store and its parts share.
pub(super) struct Inner {
    pub(super) sale: Arc<Pool>,
    pub(super) work: Arc<Pool>,
    pub(super) relaying: Arc<Pool>,
    pub(super) bulk: Arc<Pool>,
    pub(super) look: Arc<Pool>,
    pub(super) replica: Option<Arc<Pool>>,
    pub(super) replica_failed: AtomicBool,
    pub(super) publication: Publication,
    pub(super) familiar: Familiar,
    pub(super) stats: StoreStats,
    pub(super) observe: CommitObserver,
    /// Where this must be the only instance: whether it is.
    pub(super) fence: Option<Arc<Fence>>,
    /// One relay of this instance at a time.
    pub(super) relay: Arc<Semaphore>,
}

impl Inner {
    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.publication.catalog()
    }

    fn pool(&self, lane: Lane) -> &Arc<Pool> {
        match lane {
            Lane::Sale => &self.sale,
            Lane::Work => &self.work,
            Lane::Relay => &self.relaying,
            Lane::Bulk => &self.bulk,
        }
    }

    pub(super) fn seats_for_refusal(
        &self,
        inventory: &Inventory,
        seats: &[SeatId],
    ) -> Option<Vec<Option<Seat>>> {
        match &self.fence {
            // Nobody else sells.
            Some(_) => Some(inventory.find(seats)),
            None => Publication::seats_for_refusal(inventory, seats),
        }
    }

    /// The database answers.
    pub(super) fn note_alive(&self) {
        self.stats.recovered();
    }

    /// The database does not answer, or not as it should.
    pub(super) fn note_fault(&self, fault: &Fault) {
        self.stats.failed(fault);
    }

    async fn run<O: Operation>(self: &Arc<Self>, operation: O) -> Result<O::Answer, Fault> {
        let mut tries = 0;
        loop {
            tries += 1;
            let began = Instant::now();
            let failure = match self.once(&operation, began).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let again = match &failure {
                Failure::Server(DEADLOCK, _) => true,
                Failure::Unknown(_) => O::REPEATABLE,
                _ => false,
            };
            if again && tries < TRIES {
                // Two that met once are not to meet again.
                let spread = u64::from(began.elapsed().subsec_nanos()) % 8;
                tokio::time::sleep(Duration::from_millis(u64::from(tries) * 2 + spread)).await;
                continue;
            }
            let is_away = matches!(failure, Failure::Lost(_) | Failure::Late(_));
            let fault = Fault::from(failure);
            if is_away {
                self.note_fault(&fault);
            }
            if matches!(fault, Fault::OutcomeUnknown(_)) {
                tracing::warn!(error = %fault, "nobody knows whether an operation was done");
            }
            return Err(fault);
        }
    }

    /// Runs an operation in one transaction. After any failure but `Unknown` nothing has happened.
    async fn once<O: Operation>(
        self: &Arc<Self>,
        operation: &O,
        began: Instant,
    ) -> Result<O::Answer, Failure> {
        let lease = self.begin(O::LANE).await?;
        let mut tx = Tx { lease, catalog: self.catalog(), made: Vec::new() };
        match operation.run(&mut tx).await {
            Ok(Done::Commit(answer)) => {
                let order = self.publication.next_order();
                tx.lease.commit().await?;
                self.publication.publish(order, &[], tx.made);
                tx.lease.release();
                self.stats.recovered();
                (self.observe)(Commit { commands: 1, took: began.elapsed() });
                Ok(answer)
            }
            Ok(Done::Nothing(answer)) => {
                tx.lease.roll_back().await;
                Ok(answer)
            }
            Err(failure) => {
                // Also after a lock time-out: by itself that undoes its statement only.
                tx.lease.roll_back().await;
                if matches!(failure, Failure::Lost(_) | Failure::Late(_)) {
                    self.pool(O::LANE).purge();
                }
                Err(failure)
            }
        }
    }

    pub(super) async fn acquire(&self, lane: Lane) -> Result<Lease, Failure> {
        if let Some(fence) = &self.fence {
            fence.check()?;
        }
        self.pool(lane).acquire().await
    }

    /// A connection with a transaction begun.
    pub(super) async fn begin(&self, lane: Lane) -> Result<Lease, Failure> {
        let lease = self.acquire(lane).await?;
        self.begin_on(lane, lease).await
    }

    /// Begins a transaction. A connection that was cut off while nobody used it shows here, before
    /// anything was done.
    async fn begin_on(&self, lane: Lane, mut lease: Lease) -> Result<Lease, Failure> {
        loop {
            match lease.text("START TRANSACTION").await {
                Ok(()) => return Ok(lease),
                Err(Failure::Lost(_)) if !lease.fresh => lease = self.replace(lane, lease).await?,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Returns once everything is on the disk that anybody could see so far.
    pub(super) async fn flush_log(&self, lane: Lane) -> Result<(), Failure> {
        let mut lease = self.acquire(lane).await?;
        let mut flushed = lease.text(sql::LOG_FLUSH).await;
        while matches!(flushed, Err(Failure::Lost(_))) && !lease.fresh {
            lease = self.replace(lane, lease).await?;
            flushed = lease.text(sql::LOG_FLUSH).await;
        }
        match flushed {
            Ok(()) => lease.release(),
            Err(_) => lease.roll_back().await,
        }
        flushed
    }

    /// Another connection, because this one was cut off, and so were those that waited beside it.
    async fn replace(&self, lane: Lane, lease: Lease) -> Result<Lease, Failure> {
        lease.was_cut_off();
        self.pool(lane).acquire().await
    }

    /// Runs an operation to its end, whether or not anybody still waits for it: what it commits is
    /// to be published.
    pub(super) async fn call<O: Operation>(
        self: &Arc<Self>,
        operation: O,
    ) -> Result<O::Answer, Fault> {
        let inner = self.clone();
        let task = tokio::spawn(async move { inner.run(operation).await });
        task.await.unwrap_or_else(|error| {
            Err(Fault::OutcomeUnknown(format!("an operation did not end: {error}")))
        })
    }

    /// Runs a read of what was committed last. It is tried again where the connection turns out to have been
    /// cut off while nobody used it.
    pub(super) async fn read<T>(
        &self,
        pool: &Arc<Pool>,
        query: impl for<'a> Fn(&'a mut Lease) -> Reading<'a, T>,
    ) -> Result<T, Fault> {
        loop {
            let mut lease = pool.acquire().await?;
            match query(&mut lease).await {
                Ok(value) => {
                    lease.release();
                    return Ok(value);
                }
                Err(Failure::Lost(_)) if !lease.fresh => lease.was_cut_off(),
                Err(failure) => {
                    // It may be in the middle of a transaction.
                    lease.roll_back().await;
                    if matches!(failure, Failure::Late(_)) {
                        // The others may have been forgotten by the network as well.
                        pool.purge();
                    }
                    return Err(failure.into());
                }
            }
        }
    }
}
