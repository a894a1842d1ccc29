//! The steps of a batch in MySQL. Each is as few statements as there are tables, sent together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use boxoffice_domain::command::{Changes, IdRange, Ids, IdsNeeded, ResultOf, Rows, Wants};
use boxoffice_domain::ids::UserId;

use super::inner::Inner;
use super::pool::{Lane, Lease, Packet, Ran};
use super::publication::{LockOrder, SeatShown};
use super::rows::{DEADLOCK, DUPLICATE, Failure};
use super::{load, sale, sql};
use crate::Fault;
use crate::store::batch::{Engine, NoJob, Trouble};
use crate::store::catalog::{Catalog, Inventory};

/// Ids that are taken at a time. What is left of them is lost with the process.
const ID_BLOCK: i64 = 1_000;

/// What does the steps, over one connection at a time.
pub(super) struct MysqlEngine {
    inner: Arc<Inner>,
    lease: Option<Lease>,
    /// Of the locks of the transaction under way.
    order: LockOrder,
    /// Users to whom the transaction under way gives one.
    absent: Vec<UserId>,
    /// Seats as the transaction under way has found them, under its locks.
    seen: Vec<SeatShown>,
}

impl MysqlEngine {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            lease: None,
            order: LockOrder::default(),
            absent: Vec::new(),
            seen: Vec::new(),
        }
    }

    async fn send(&mut self, packet: &Packet) -> Result<Vec<Ran>, Trouble> {
        let Some(lease) = self.lease.as_mut() else {
            return Err(Trouble::Away(Fault::Unavailable("no transaction was begun".into())));
        };
        let fresh = lease.fresh;
        match lease.packet(packet, None).await {
            Ok(ran) => Ok(ran),
            Err((_, failure)) => Err(self.trouble(failure, fresh)),
        }
    }

    /// What to make of a failure before the end of a transaction.
    fn trouble(&self, failure: Failure, fresh: bool) -> Trouble {
        let again = match &failure {
            Failure::Server(code, _) => matches!(*code, DEADLOCK | DUPLICATE),
            // It was cut off while nobody used it.
            Failure::Lost(_) => !fresh,
            _ => false,
        };
        let away = matches!(failure, Failure::Lost(_) | Failure::Late(_) | Failure::Unavailable(_));
        if away {
            self.inner.sale.purge();
        }
        match failure {
            failure if again => Trouble::Again(failure.into()),
            failure if away => Trouble::Away(failure.into()),
            failure => Trouble::Refused(failure.into()),
        }
    }

    async fn take_ids(
        &mut self,
        ids: &mut IdRange,
        needed: i64,
        name: &'static str,
    ) -> Result<(), Trouble> {
        if ids.left() >= needed {
            return Ok(());
        }
        // A transaction of its own: with a transaction that is rolled back they would come again.
        let count = needed.max(ID_BLOCK);
        let mut lease = match self.inner.acquire(Lane::Sale).await {
            Ok(lease) => lease,
            Err(failure) => return Err(self.trouble(failure, true)),
        };
        let fresh = lease.fresh;
        match lease.insert(sql::IDS_TAKE, vec![count.into(), name.into()]).await {
            Ok(last) => {
                lease.release();
                ids.add(last - count + 1..last + 1);
                Ok(())
            }
            Err(failure) => {
                lease.roll_back().await;
                Err(self.trouble(failure, fresh))
            }
        }
    }
}

fn corrupt(failure: Failure) -> Trouble {
    Trouble::Refused(failure.into())
}

impl Engine for MysqlEngine {
    type Job = NoJob;

    fn catalog(&self) -> Arc<Catalog> {
        self.inner.catalog()
    }

    async fn add_ids(&mut self, ids: &mut Ids, needed: IdsNeeded) -> Result<(), Trouble> {
        self.take_ids(&mut ids.reservations, needed.reservations, sale::RESERVATIONS).await?;
        self.take_ids(&mut ids.payments, needed.payments, sale::PAYMENTS).await?;
        self.take_ids(&mut ids.entries, needed.entries, sale::ENTRIES).await
    }

    async fn begin(&mut self) -> Result<(), Trouble> {
        match self.inner.acquire(Lane::Sale).await {
            Ok(lease) => {
                self.lease = Some(lease);
                Ok(())
            }
            Err(failure) => Err(self.trouble(failure, true)),
        }
    }

    async fn run(&mut self, job: &mut NoJob) -> Result<(), Trouble> {
        match *job {}
    }

    async fn peek(&mut self, wants: &mut Wants, rows: &mut Rows) -> Result<(), Trouble> {
        let familiar = &self.inner.familiar;
        let users = familiar.without_account(wants.users.iter().copied());
        let (holds, reservations) = familiar.holds(&wants.reservations);
        for row in holds {
            wants.add_rows_of(&row);
            rows.put_reservation(row.reservation.id, Some(row));
        }
        let peek = sale::peek(&users, reservations);
        let found = self.send(&peek.packet).await?;
        let have_accounts = peek.read(found, wants, rows).map_err(corrupt)?;
        self.inner.familiar.add_accounts(have_accounts);
        self.absent = self.inner.familiar.without_account(users);
        Ok(())
    }

    async fn look_again(&mut self, inventory: &Inventory) -> Result<bool, Trouble> {
        let Some(lease) = self.lease.as_mut() else { return Ok(false) };
        let (begun, fresh) = (Instant::now(), lease.fresh);
        match load::seats_of(lease, inventory.session().id).await {
            Ok(seats) => {
                self.inner.publication.merge_read(inventory, seats, begun, Duration::ZERO);
                Ok(true)
            }
            Err(failure) => Err(self.trouble(failure, fresh)),
        }
    }

    async fn load(&mut self, wants: &Wants, rows: &mut Rows) -> Result<(), Trouble> {
        let load = sale::load(wants, &self.absent, rows);
        let found = self.send(&load.packet).await?;
        let (missing, seen) = load.read(found, wants, rows).map_err(corrupt)?;
        self.seen = seen;
        self.order = self.inner.publication.next_order();
        // Seldom: a seat that is locked, or that nobody has made.
        let looked = self.send(&sale::look_at(&missing)).await?;
        sale::read_locked(looked, rows).map_err(corrupt)
    }

    async fn load_results(&mut self, wanted: &[ResultOf], rows: &mut Rows) -> Result<(), Trouble> {
        let found = self.send(&sale::results(wanted)).await?;
        sale::read_results(found, rows).map_err(corrupt)
    }

    async fn commit(&mut self, changes: &Changes) -> Result<(), Trouble> {
        let mut saving = sale::saving(changes);
        let before_commit = saving.packet.len();
        saving.packet.push("COMMIT");
        let Some(mut lease) = self.lease.take() else {
            return Err(Trouble::Away(Fault::Unavailable("no transaction was begun".into())));
        };
        match lease.packet(&saving.packet, None).await {
            Ok(ran) => {
                lease.release();
                if let Err(failure) = saving.check(&ran) {
                    let fault = Fault::from(failure);
                    tracing::error!(error = %fault, "what was saved is not what was loaded");
                    return Err(Trouble::Unknown(fault));
                }
            }
            // A statement that fails ends the packet, so this was not followed by a commit.
            Err((done, failure @ Failure::Server(..))) if done < before_commit => {
                lease.roll_back().await;
                return Err(self.trouble(failure, true));
            }
            Err((_, failure)) => {
                drop(lease);
                self.inner.sale.purge();
                let why = match failure {
                    Failure::Server(_, text) | Failure::Lost(text) | Failure::Late(text) => text,
                    other => format!("{other:?}"),
                };
                let text = format!("the answer to a commit is missing: {why}");
                return Err(Trouble::Unknown(Fault::OutcomeUnknown(text)));
            }
        }
        self.inner.familiar.add_accounts(self.absent.drain(..));
        self.inner.familiar.note(changes);
        self.inner.stats.recovered();
        Ok(())
    }

    async fn await_durable(&mut self) -> Result<(), Trouble> {
        // Nobody waits for the locks of what has changed nothing.
        self.roll_back().await;
        self.inner.flush_log(Lane::Sale).await.map_err(|failure| self.trouble(failure, true))
    }

    async fn roll_back(&mut self) {
        self.absent.clear();
        self.seen.clear();
        if let Some(lease) = self.lease.take() {
            lease.roll_back().await;
        }
    }

    fn publish(&mut self, changes: &Changes) {
        // Whoever comes next for a seat that is gone is refused without its lock.
        let mut shown = std::mem::take(&mut self.seen);
        shown.retain(|(seat, ..)| !changes.seats.contains_key(seat));
        let changed = changes.seats.iter();
        shown.extend(changed.map(|(seat, (session, state))| (*seat, *session, *state)));
        self.inner.publication.publish(self.order, &shown, Vec::new());
    }

    fn gave_up(&self, trouble: &Trouble) {
        match trouble {
            Trouble::Away(fault) => self.inner.note_fault(fault),
            Trouble::Unknown(fault) => {
                tracing::warn!(error = %fault, "nobody knows whether purchases were done");
            }
            Trouble::Again(_) | Trouble::Refused(_) => {}
        }
    }
}
