//! The one thread that writes: the steps of a batch in SQLite, and other work beside the sale.
//!
//! One writer means that operations are decided one after another, so no two of them can disagree
//! about who has a seat, and no row is ever locked by somebody else.

use std::fs::File;
use std::sync::Arc;

use boxoffice_domain::command::{Changes, Ids, IdsNeeded, ResultOf, Rows, Wants};
use boxoffice_domain::time::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::rows::Failure;
use super::sale;
use super::tx::{State, Tx};
use crate::Fault;
use crate::store::batch::{BatchOptions, Engine, Job, Sales, Trouble, batches};
use crate::store::catalog::{Catalog, Inventory};
use crate::store::stats::StoreStats;

/// Other work, with the types of its request and its answer forgotten.
pub(in crate::store) struct Work(Box<dyn Steps>);

trait Steps: Send {
    /// Runs it inside the transaction. May run again in another one if this one is rolled back.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Failure>;
    /// Answers whoever asked.
    fn answer(self: Box<Self>, committed: Result<(), Fault>);
}

struct Call<T, F> {
    operation: F,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, Fault>>,
}

impl<T, F> Steps for Call<T, F>
where
    T: Send,
    F: FnMut(&mut Tx<'_>) -> Result<T, Failure> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        self.value = None;
        self.value = Some((self.operation)(tx)?);
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), Fault>) {
        let Self { value, reply, .. } = *self;
        let lost = || Fault::Unavailable("the operation did not run".into());
        // Whoever asked may have gone away; the operation stands all the same.
        let _ = reply.send(committed.and_then(|()| value.ok_or_else(lost)));
    }
}

impl Job for Work {
    fn answer(self, committed: Result<(), Fault>) {
        self.0.answer(committed);
    }
}

/// Runs `operation` in the next transaction and waits until it is durable.
pub(super) async fn call<T, F>(sales: &Sales<Work>, operation: F) -> Result<T, Fault>
where
    T: Send + 'static,
    F: FnMut(&mut Tx<'_>) -> Result<T, Failure> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    sales.hand_over(Work(Box::new(Call { operation, value: None, reply })))?;
    answer.await.unwrap_or_else(|_| Err(Fault::Unavailable("the store is closed".into())))
}

/// What the writer works with.
pub(super) type Start = (Connection, State, Arc<StoreStats>);

/// Starts the thread. It ends when told to close, or when nobody can reach it any more, and has
/// `lock` until then.
pub(super) fn start(
    start: Start,
    from: (Ids, Timestamp),
    options: BatchOptions,
    lock: Arc<File>,
) -> std::io::Result<(Sales<Work>, std::thread::JoinHandle<()>)> {
    // The steps block, so they have a thread of their own, and a runtime only to wait with.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (sales, run) = steps(start, from, options);
    let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || {
        runtime.block_on(run);
        drop(lock);
    })?;
    Ok((sales, thread))
}

/// The way to the writer, and what works off what is asked.
pub(super) fn steps(
    (connection, state, stats): Start,
    (ids, latest): (Ids, Timestamp),
    options: BatchOptions,
) -> (Sales<Work>, impl Future<Output = ()> + Send) {
    let changes_before = connection.total_changes();
    let writer = SqliteWriter { connection, state, stats, changes_before, is_full: false };
    batches(vec![writer], ids, latest, options)
}

struct SqliteWriter {
    connection: Connection,
    state: State,
    stats: Arc<StoreStats>,
    /// Rows that were changed before the transaction under way.
    changes_before: u64,
    /// Whether the last failure was for want of room.
    is_full: bool,
}

impl Engine for SqliteWriter {
    type Job = Work;

    fn catalog(&self) -> Arc<Catalog> {
        self.state.catalog.load_full()
    }

    async fn add_ids(&mut self, ids: &mut Ids, _needed: IdsNeeded) -> Result<(), Trouble> {
        // All that were left are there from the start; only a seed makes entries beside the sale.
        ids.entries.skip_to(self.state.last.seeded_entry);
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), Trouble> {
        self.changes_before = self.connection.total_changes();
        self.statement("BEGIN IMMEDIATE").map_err(|failure| self.trouble(failure))
    }

    async fn run(&mut self, job: &mut Work) -> Result<(), Trouble> {
        let mut tx = Tx::new(&self.connection, &mut self.state);
        job.0.run(&mut tx).map_err(|failure| self.trouble(failure))
    }

    async fn peek(&mut self, wants: &mut Wants, rows: &mut Rows) -> Result<(), Trouble> {
        sale::peek(&self.connection, wants, rows).map_err(|failure| self.trouble(failure))
    }

    async fn look_again(&mut self, _inventory: &Inventory) -> Result<bool, Trouble> {
        // Nobody else writes.
        Ok(false)
    }

    async fn load(&mut self, wants: &Wants, rows: &mut Rows) -> Result<(), Trouble> {
        sale::load(&self.connection, &self.state.catalog.load(), wants, rows)
            .map_err(|failure| self.trouble(failure))
    }

    async fn load_results(&mut self, wanted: &[ResultOf], rows: &mut Rows) -> Result<(), Trouble> {
        sale::load_results(&self.connection, wanted, rows).map_err(|failure| self.trouble(failure))
    }

    async fn commit(&mut self, changes: &Changes) -> Result<(), Trouble> {
        let last_event = &mut self.state.last.outbox;
        sale::save(&self.connection, changes, last_event)
            .map_err(|failure| self.trouble(failure))?;
        self.statement("COMMIT").map_err(|failure| {
            stop_after_failed_sync(&failure);
            self.trouble(failure)
        })?;
        // A transaction that changed nothing succeeds on a full disk too.
        if self.connection.total_changes() != self.changes_before {
            self.stats.recovered();
        }
        Ok(())
    }

    async fn await_durable(&mut self) -> Result<(), Trouble> {
        // There is one writer, and its commits return when they are durable.
        self.roll_back().await;
        Ok(())
    }

    async fn roll_back(&mut self) {
        // Some errors end the transaction by themselves; a second rollback would be an error.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "cannot roll back; stopping rather than guess");
            std::process::abort();
        }
        self.state.forget();
    }

    fn publish(&mut self, changes: &Changes) {
        self.state.publish();
        sale::publish(&self.state.catalog.load(), changes);
    }

    fn gave_up(&self, trouble: &Trouble) {
        if let Trouble::Refused(fault) = trouble {
            if self.is_full {
                self.make_room();
            }
            self.stats.failed(fault);
        }
    }
}

impl SqliteWriter {
    fn statement(&self, sql: &str) -> Result<(), Failure> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    fn trouble(&mut self, failure: Failure) -> Trouble {
        self.is_full = matches!(&failure, Failure::Sqlite(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull));
        Trouble::Refused(failure.into())
    }

    /// On a full disk the write-ahead log may be what fills it. Copied into the database it can be
    /// written again from its start; otherwise that waits for a commit, which waits for room.
    fn make_room(&self) {
        // Where there is no room for this either, the next write tries again.
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
}

/// After a failed fsync nobody knows what the disk holds: the kernel may have dropped the very
/// pages that it could not write, and a second fsync would report success. The one safe way on is
/// a restart that reads the file.
fn stop_after_failed_sync(failure: &Failure) {
    use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC};
    let Failure::Sqlite(error) = failure else { return };
    let code = error.sqlite_error().map(|e| e.extended_code);
    if matches!(code, Some(SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC)) {
        tracing::error!(%error, "fsync failed; stopping rather than guess what is on the disk");
        std::process::abort();
    }
}
