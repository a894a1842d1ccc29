//! The one thread that writes.
//!
//! It takes every operation that is waiting into one transaction and answers them all after the
//! commit: the price of a commit is shared by as many as came while the last one was under way.
//! One writer also means that operations are decided one after another, so no two of them can
//! disagree about who has a seat.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::rows::Failure;
use super::tx::{State, Tx};
use crate::Fault;
use crate::store::{Commit, CommitObserver, StoreStats};

/// An operation with the types of its request and its answer forgotten.
pub(super) trait Job: Send {
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

impl<T, F> Job for Call<T, F>
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

enum Message {
    Job(Box<dyn Job>),
    Close,
}

/// The way to the writer.
pub(super) struct Writer {
    sender: SyncSender<Message>,
    stats: Arc<StoreStats>,
}

impl Writer {
    /// Starts the thread. It ends when told to close, or when nobody can reach it any more, and has
    /// `lock` until then.
    pub(super) fn start(
        connection: Connection,
        state: State,
        stats: Arc<StoreStats>,
        batch_max: usize,
        queue_max: usize,
        observe: CommitObserver,
        lock: Arc<File>,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(queue_max);
        let thread_stats = stats.clone();
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || {
            let run = || run(connection, state, &receiver, &thread_stats, batch_max, &observe);
            // A panic here is a bug that leaves us not knowing what the memory says against the
            // file. The file is right; a restart reads it.
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                tracing::error!("the store's writer panicked; stopping rather than guess");
                std::process::abort();
            }
            drop(lock);
        })?;
        Ok((Self { sender, stats }, thread))
    }

    /// Runs `operation` in the next transaction and waits until it is durable.
    pub(super) async fn call<T, F>(&self, operation: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Call { operation, value: None, reply });
        self.stats.pending.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.sender.try_send(Message::Job(call)) {
            self.stats.pending.fetch_sub(1, Ordering::Relaxed);
            let why = match error {
                TrySendError::Full(_) => "too many operations are waiting for the store",
                TrySendError::Disconnected(_) => "the store is closed",
            };
            return Err(Fault::Unavailable(why.into()));
        }
        answer.await.unwrap_or_else(|_| Err(Fault::Unavailable("the store is closed".into())))
    }

    /// Tells the thread to commit what came before and end. Blocks while its queue is full.
    pub(super) fn close(&self) {
        let _ = self.sender.send(Message::Close);
    }
}

/// A batch of so many commands says that there is a rush.
const RUSH_COMMANDS: usize = 8;
/// In a rush the writer looks this often whether more commands have come, and takes them when none
/// have, ...
const GATHER_STEP: Duration = Duration::from_millis(1);
/// ... or when it has looked so many times.
const GATHER_STEPS: u32 = 5;

/// Lets the commands of a rush come together. A commit costs about the same for two as for two
/// hundred, and whoever answers requests works through them faster when not interrupted for each
/// few. Whoever comes alone never waits.
fn gather(stats: &StoreStats, batch_max: usize) {
    let mut waiting = 0;
    for _ in 0..GATHER_STEPS {
        std::thread::sleep(GATHER_STEP);
        let now = stats.pending.load(Ordering::Relaxed);
        if now == waiting || now >= batch_max as u64 {
            return;
        }
        waiting = now;
    }
}

fn run(
    connection: Connection,
    mut state: State,
    receiver: &Receiver<Message>,
    stats: &StoreStats,
    batch_max: usize,
    observe: &CommitObserver,
) {
    let mut batch: Vec<Box<dyn Job>> = Vec::with_capacity(batch_max);
    let mut open = true;
    let mut last_commands = 0;
    while open {
        match receiver.recv() {
            Ok(Message::Job(job)) => batch.push(job),
            Ok(Message::Close) | Err(_) => break,
        }
        if last_commands >= RUSH_COMMANDS {
            gather(stats, batch_max);
        }
        while batch.len() < batch_max {
            match receiver.try_recv() {
                Ok(Message::Job(job)) => batch.push(job),
                Ok(Message::Close) => {
                    open = false;
                    break;
                }
                Err(_) => break,
            }
        }
        last_commands = batch.len();
        stats.pending.fetch_sub(last_commands as u64, Ordering::Relaxed);
        commit_batch(&connection, &mut state, &mut batch, stats, observe);
    }
}

fn commit_batch(
    connection: &Connection,
    state: &mut State,
    batch: &mut Vec<Box<dyn Job>>,
    stats: &StoreStats,
    observe: &CommitObserver,
) {
    let commands = batch.len();
    let started = Instant::now();
    let changes_before = connection.total_changes();
    match transact(connection, state, batch) {
        Ok(()) => {
            // A transaction that changed nothing succeeds on a full disk too.
            if connection.total_changes() != changes_before {
                stats.recovered();
            }
            observe(Commit { commands, took: started.elapsed() });
            batch.drain(..).for_each(|job| job.answer(Ok(())));
        }
        // Alone, an operation that fails takes no other down with it.
        Err(_) if commands > 1 => {
            for job in std::mem::take(batch) {
                commit_batch(connection, state, &mut vec![job], stats, observe);
            }
        }
        Err(failure) => {
            make_room(connection, &failure);
            let fault = Fault::from(failure);
            stats.failed(&fault);
            batch.drain(..).for_each(|job| job.answer(Err(fault.clone())));
        }
    }
}

/// On a full disk the write-ahead log may be what fills it. Copied into the database it can be
/// written again from its start; otherwise that waits for a commit, which waits for room.
fn make_room(connection: &Connection, failure: &Failure) {
    if let Failure::Sqlite(error) = failure
        && error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
    {
        // Where there is no room for this either, the next write tries again.
        let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
}

/// Runs the whole batch in one transaction. After an error nothing of it has happened.
fn transact(
    connection: &Connection,
    state: &mut State,
    batch: &mut [Box<dyn Job>],
) -> Result<(), Failure> {
    let done = connection
        .prepare_cached("BEGIN IMMEDIATE")
        .and_then(|mut begin| begin.execute([]))
        .map_err(Failure::from)
        .and_then(|_| {
            let mut tx = Tx::new(connection, state);
            batch.iter_mut().try_for_each(|job| job.run(&mut tx))
        })
        .and_then(|()| {
            let commit = connection.prepare_cached("COMMIT").and_then(|mut c| c.execute([]));
            commit.map(|_| ()).map_err(|error| {
                stop_after_failed_sync(&error);
                error.into()
            })
        });
    match done {
        Ok(()) => {
            state.publish();
            Ok(())
        }
        Err(failure) => {
            // Some errors end the transaction by themselves; a second rollback would be an error.
            if !connection.is_autocommit()
                && let Err(error) = connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "cannot roll back; stopping rather than guess");
                std::process::abort();
            }
            state.forget();
            Err(failure)
        }
    }
}

/// After a failed fsync nobody knows what the disk holds: the kernel may have dropped the very
/// pages that it could not write, and a second fsync would report success. The one safe way on is
/// a restart that reads the file.
fn stop_after_failed_sync(error: &rusqlite::Error) {
    use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC};
    let code = error.sqlite_error().map(|e| e.extended_code);
    if matches!(code, Some(SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC)) {
        tracing::error!(%error, "fsync failed; stopping rather than guess what is on the disk");
        std::process::abort();
    }
}
