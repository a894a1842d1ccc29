//! The store as a SQLite file: one writer thread with group commit, reads beside it.

mod act;
mod audit;
mod file;
mod lists;
mod load;
mod log;
mod restore;
mod rows;
mod sale;
mod schema;
mod tx;
mod writer;

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use boxoffice_domain::command::{Payment, ReservationRow, TicketRef};
use boxoffice_domain::ids::{ConcertId, PaymentId, QueueName, ReservationId, SessionId, UserId};
use boxoffice_domain::invariant::Finding;
use boxoffice_domain::queue::{Drawn, QueueSettings, SettingsChange};
use boxoffice_domain::sales::Reservation;
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use rusqlite::Connection;

use self::file::{
    Access, LOCK, LockProblem, Place, beside, create_private, explain, is_unwritable, keep_private,
    lock, lock_unwritable, make_private,
};
pub use self::restore::Restore;
use self::rows::Failure;
use self::tx::{State, Tx};
use self::writer::Work;
use super::act::{Act, ActRejected, Acted, LogEntry, Note, StoredOperator};
use super::batch::{BatchOptions, Gather, Sales};
use super::beat::{Beat, Beats, Instances};
use super::catalog::Catalog;
use super::chain::LogPart;
use super::database_time::DatabaseTime;
use super::draws::DrawSeed;
use super::epochs::{BACKUP_OF, EPOCHS, Epochs};
use super::numbers::{Grant, GrantRequest, Taken};
use super::stats::{CommitObserver, StoreStats};
use super::types::{
    AddedSeats, Advance, Alias, AliasExists, Checkpoint, DrawRequest, NewConcert, NewPerson,
    NewSeats, Part, Person, Progress, ReservationFilter, Seating, Seed, ShortenLog, StoredQueue,
};
use crate::cloud_event::OutboxRow;
use crate::{Error, Fault, Tasks};

/// How to open the store.
pub struct SqliteOptions {
    /// The folder for the file and its lock; made if it is missing.
    pub directory: PathBuf,
    /// The most operations in one transaction.
    pub batch_max: usize,
    /// The most operations that may wait; more are refused.
    pub queue_max: usize,
    /// Called after each commit.
    pub observe: CommitObserver,
}

/// The store in one SQLite file.
pub struct SqliteStore {
    place: Place,
    tasks: Tasks,
    catalog: Arc<ArcSwap<Catalog>>,
    /// The way to the writer.
    pub(super) sales: Sales<Work>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Whether reads are done where they are asked for.
    #[cfg(feature = "simulation")]
    is_inline: bool,
    readers: Arc<Mutex<Vec<Connection>>>,
    stats: Arc<StoreStats>,
    time: DatabaseTime,
    instances: Mutex<Instances>,
    /// Held for as long as the store is open: a second process would decide from a memory of its
    /// own who has which seat. The writer has it too: dropped without having been closed, the store
    /// is not free before the last operation is done.
    _lock: Arc<File>,
}

/// Where the batches are done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Thread,
    #[cfg(feature = "simulation")]
    Inline,
}

impl Writer {
    const fn gather(self) -> Gather {
        match self {
            Self::Thread => Gather::Looking,
            #[cfg(feature = "simulation")]
            Self::Inline => Gather::Never,
        }
    }
}

/// Reads that may run at once; more wait for one of the blocking threads.
const READERS: usize = 4;

impl SqliteStore {
    /// The schema version that this binary reads and writes.
    pub const SCHEMA_VERSION: i64 = schema::VERSION;

    /// The file inside a data directory.
    pub fn file(directory: &Path) -> PathBuf {
        file::store(directory)
    }

    /// Whether a running service has the store of this directory open.
    pub fn is_locked(directory: &Path) -> bool {
        directory.join(LOCK).exists() && matches!(lock(directory), Err(LockProblem::Held))
    }

    /// Opens the store, making or migrating the file where needed. Also gives the schema version
    /// that the file had before: 0 for a new one.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] where the file is locked, unreadable or not ours (the text says what
    /// to do); [`Fault::Corrupt`] where its content makes no sense.
    pub fn open(options: SqliteOptions) -> Result<(Arc<Self>, i64), Fault> {
        Self::open_at(options, DatabaseTime::default())
    }

    /// The same, in a store whose time is told by this.
    ///
    /// # Errors
    /// As for [`SqliteStore::open`].
    pub fn open_at(options: SqliteOptions, time: DatabaseTime) -> Result<(Arc<Self>, i64), Fault> {
        Self::open_as(options, time, Writer::Thread)
    }

    /// The same, but all that blocks is done where it is asked for, for simulations: a thread would
    /// go on while their time stands still. The batches run on the current tokio runtime.
    ///
    /// # Errors
    /// As for [`SqliteStore::open`].
    #[cfg(feature = "simulation")]
    pub fn open_inline(options: SqliteOptions, time: DatabaseTime) -> Result<Arc<Self>, Fault> {
        Self::open_as(options, time, Writer::Inline).map(|(store, _)| store)
    }

    fn open_as(
        options: SqliteOptions,
        time: DatabaseTime,
        writer: Writer,
    ) -> Result<(Arc<Self>, i64), Fault> {
        let directory = &options.directory;
        // The store holds the signing key of the tickets.
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(directory).map_err(|error| {
            Fault::Unavailable(format!(
                "cannot make the data directory {}: {error}; choose another with --data-dir",
                directory.display()
            ))
        })?;
        let lock = Arc::new(lock(directory).map_err(|problem| problem.into_fault(directory))?);
        let path = Self::file(directory);
        restore::must_be_done(directory)?;
        make_private(&path)?;
        let place = Place { path, access: Access::Write };
        let explain = |error: rusqlite::Error| explain(&place.path, error.into());
        let mut connection = place.connect().map_err(explain)?;
        // Before WAL mode, which writes: a file of another program is not to be touched.
        let version = schema::migrate(&mut connection)
            .map_err(explain)?
            .map_err(|problem| problem.into_fault(&place.path))?;
        keep_private(&place.path);
        prepare_writer(&connection).map_err(explain)?;
        begin_logs(&mut connection, &time)
            .map_err(|failure| file::explain(&place.path, failure))?;
        Ok((Self::start(place, connection, options, lock, (time, writer))?, version))
    }

    /// Opens the store of a directory to look at it, and writes neither the file nor its log. Nobody
    /// else can open it meanwhile.
    ///
    /// # Errors
    /// As for [`SqliteStore::open`], and [`Fault::Unavailable`] where there is no store or one of an
    /// older schema version.
    pub fn open_read_only(options: SqliteOptions) -> Result<Arc<Self>, Fault> {
        let directory = &options.directory;
        let lock = match lock(directory) {
            Err(LockProblem::Io(error)) if is_unwritable(&error) => lock_unwritable(directory),
            locked => locked,
        };
        let lock = Arc::new(lock.map_err(|problem| problem.into_fault(directory))?);
        let path = Self::file(directory);
        // What a crash left in a log, or in the journal of the very first start, belongs to the file.
        let has_log = ["-wal", "-journal"]
            .iter()
            .any(|suffix| std::fs::metadata(beside(&path, suffix)).is_ok_and(|log| log.len() > 0));
        let access = if has_log { Access::Read } else { Access::ReadAlone };
        let place = Place { path, access };
        let explain = |error: rusqlite::Error| explain(&place.path, error.into());
        let connection = place.connect().map_err(explain)?;
        let version = schema::version(&connection)
            .map_err(explain)?
            .map_err(|problem| problem.into_fault(&place.path))?;
        if version < schema::VERSION {
            return Err(Fault::Unavailable(format!(
                "{} has schema version {version}, this binary reads {}; nothing was changed. Make \
                 a backup and bring it up with `boxoffice migrate`, or use the boxoffice that wrote \
                 it",
                place.path.display(),
                schema::VERSION
            )));
        }
        let writer = (DatabaseTime::default(), Writer::Thread);
        Self::start(place, connection, options, lock, writer)
    }

    fn start(
        place: Place,
        connection: Connection,
        options: SqliteOptions,
        lock: Arc<File>,
        (time, writer): (DatabaseTime, Writer),
    ) -> Result<Arc<Self>, Fault> {
        let explain = |failure: Failure| explain(&place.path, failure);
        let other = place.connect().map_err(|error| explain(error.into()))?;
        let (catalog, last, ids) = load::everything(&connection, other).map_err(explain)?;
        let latest = load::clock(&connection).map_err(explain)?;
        let catalog = Arc::new(ArcSwap::from_pointee(catalog));
        let stats = Arc::new(StoreStats::default());
        let batch = BatchOptions {
            batch_max: options.batch_max.max(1),
            queue_max: options.queue_max,
            patience: None,
            gather: writer.gather(),
            observe: options.observe,
        };
        let state = State::new(catalog.clone(), last, time.clone());
        let tasks = Tasks::default();
        let start = (connection, state, stats.clone());
        let (sales, thread) = match writer {
            Writer::Thread => {
                let (sales, thread) = writer::start(start, (ids, latest), batch, lock.clone())
                    .map_err(|error| {
                        Fault::Unavailable(format!("cannot start a thread: {error}"))
                    })?;
                (sales, Some(thread))
            }
            #[cfg(feature = "simulation")]
            Writer::Inline => {
                let (sales, run) = writer::steps(start, (ids, latest), batch);
                tasks.spawn("sale", run);
                (sales, None)
            }
        };
        let store = Self {
            place,
            tasks,
            catalog,
            sales,
            #[cfg(feature = "simulation")]
            is_inline: thread.is_none(),
            thread: Mutex::new(thread),
            readers: Arc::default(),
            stats,
            time,
            instances: Mutex::default(),
            _lock: lock,
        };
        Ok(Arc::new(store))
    }

    pub(super) const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    pub(super) fn stats(&self) -> &StoreStats {
        self.stats.pending.store(self.sales.waiting(), Ordering::Relaxed);
        &self.stats
    }

    pub(super) async fn close(&self) {
        self.sales.close().await;
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the store's writer did not end in good order");
            }
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: impl FnMut(&mut Tx<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Fault> {
        writer::call(&self.sales, operation).await
    }

    /// Runs a read beside the writer, on what was committed last.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Fault> {
        let readers = self.readers.clone();
        let place = self.place.clone();
        let run = move || -> Result<T, Failure> {
            let free = readers.lock().pop();
            let connection = match free {
                Some(connection) => connection,
                None => place.connect()?,
            };
            let result = query(&connection);
            let mut readers = readers.lock();
            if readers.len() < READERS {
                readers.push(connection);
            }
            result
        };
        #[cfg(feature = "simulation")]
        if self.is_inline {
            return run().map_err(|failure| explain(&self.place.path, failure));
        }
        tokio::task::spawn_blocking(run)
            .await
            .map_err(|error| Fault::Unavailable(format!("a read did not end: {error}")))?
            .map_err(|failure| explain(&self.place.path, failure))
    }

    pub(super) async fn balance(&self, user: UserId) -> Result<i64, Fault> {
        self.read(move |connection| sale::balance(connection, user)).await
    }

    pub(super) async fn is_spent(&self, ticket: TicketRef) -> Result<bool, Fault> {
        self.read(move |connection| sale::is_spent(connection, &ticket)).await
    }

    pub(super) async fn reservation(
        &self,
        id: ReservationId,
    ) -> Result<Option<(Reservation, Timestamp)>, Fault> {
        let row = self.read(move |connection| rows::reservation(connection, id)).await?;
        Ok(row.map(|row| (row.reservation, row.until)))
    }

    pub(super) async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Fault> {
        self.read(move |connection| sale::payment(connection, id)).await
    }

    pub(super) async fn reservations_of(
        &self,
        user: UserId,
        after: Option<ReservationId>,
        max: u32,
    ) -> Result<Vec<ReservationRow>, Fault> {
        self.read(move |connection| rows::reservations_of(connection, user, after, max)).await
    }

    pub(super) async fn due(&self, now: Timestamp, max: u32) -> Result<Vec<ReservationId>, Fault> {
        self.read(move |connection| sale::due(connection, now, max)).await
    }

    pub(super) async fn forget_keys(&self, before: Timestamp, max: u32) -> Result<u32, Fault> {
        self.call(move |tx| tx.forget_keys(before, max)).await
    }

    pub(super) async fn queues(&self) -> Result<Vec<StoredQueue>, Fault> {
        self.read(load::queues).await
    }

    pub(super) async fn create_queue(
        &self,
        name: QueueName,
        settings: QueueSettings,
        seed: Option<DrawSeed>,
    ) -> Result<bool, Fault> {
        self.call(move |tx| tx.create_queue(name.as_str(), &settings, seed.as_ref())).await
    }

    pub(super) async fn change_queue(
        &self,
        name: QueueName,
        change: SettingsChange,
    ) -> Result<QueueSettings, Fault> {
        self.call(move |tx| {
            let changed = tx.change_queue(name.as_str(), &change)?;
            match changed {
                Some(settings) => Ok(settings),
                None => {
                    tx.settings_of_queue(name.as_str())?.ok_or_else(|| tx::no_queue(name.as_str()))
                }
            }
        })
        .await
    }

    pub(super) async fn draw(&self, request: DrawRequest) -> Result<Option<Drawn>, Fault> {
        self.call(move |tx| tx.draw(&request)).await
    }

    pub(super) async fn checkpoint(
        &self,
        queues: Vec<Checkpoint>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.call(move |tx| tx.checkpoint(&queues, now)).await
    }

    pub(super) async fn grant_numbers(&self, request: GrantRequest) -> Result<Grant, Fault> {
        self.call(move |tx| tx.grant_numbers(&request)).await
    }

    pub(super) async fn take_numbers(&self, queue: QueueName, count: u64) -> Result<Taken, Fault> {
        if self.instances.lock().any_with_redis(self.time.now()) {
            return Ok(Taken::Elsewhere);
        }
        self.call(move |tx| tx.take_numbers(queue.as_str(), count)).await
    }

    pub(super) async fn database_now(&self) -> Result<Timestamp, Fault> {
        Ok(self.time.now())
    }

    pub(super) async fn beat(&self, beat: Beat) -> Result<Beats, Fault> {
        Ok(self.instances.lock().beat(beat, self.time.now()))
    }

    pub(super) async fn advance(&self, step: Advance, now: Timestamp) -> Result<bool, Fault> {
        self.call(move |tx| tx.advance(&step, now)).await
    }

    pub(super) async fn record(
        &self,
        progress: Vec<Progress>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.call(move |tx| tx.record(&progress, now)).await
    }

    pub(super) async fn people(
        &self,
        people: Vec<NewPerson>,
        now: Timestamp,
    ) -> Result<Vec<Option<UserId>>, Fault> {
        self.call(move |tx| tx.people(&people, now)).await
    }

    pub(super) async fn add_aliases(&self, aliases: Vec<Alias>) -> Result<(), Error<AliasExists>> {
        Error::flatten(self.call(move |tx| tx.add_aliases(&aliases)).await)
    }

    pub(super) async fn aliases(&self, now: Timestamp) -> Result<Vec<Alias>, Fault> {
        self.read(move |connection| load::aliases(connection, now)).await
    }

    pub(super) async fn clock(&self) -> Result<Timestamp, Fault> {
        self.read(load::clock).await
    }

    pub(super) async fn set_back(&self, now: Timestamp) -> Result<u64, Fault> {
        self.call(move |tx| tx.set_back(now)).await
    }

    pub(super) async fn act(&self, act: Act, note: Note) -> Result<Acted, Error<ActRejected>> {
        Error::flatten(self.call(move |tx| tx.act(&act, &note)).await)
    }

    pub(super) async fn kept(
        &self,
        who: String,
        key: String,
    ) -> Result<Option<([u8; 32], String)>, Fault> {
        self.read(move |connection| act::kept(connection, &who, &key)).await
    }

    pub(super) async fn operators(&self) -> Result<Vec<StoredOperator>, Fault> {
        self.read(act::operators).await
    }

    pub(super) async fn log(&self, before: i64, max: u32) -> Result<Vec<LogEntry>, Fault> {
        self.read(move |connection| act::log(connection, before, max)).await
    }

    pub(super) async fn admission_log(
        &self,
        queue: QueueName,
        after: Option<u64>,
        max: u32,
    ) -> Result<Option<LogPart>, Fault> {
        self.read(move |connection| {
            // Records and head of one moment.
            connection.execute_batch("BEGIN")?;
            let part = log::part(connection, &queue, after, max);
            connection.execute_batch("ROLLBACK")?;
            part
        })
        .await
    }

    pub(super) async fn shorten_log(&self, shorten: ShortenLog) -> Result<u64, Fault> {
        self.call(move |tx| tx.shorten_log(&shorten)).await
    }

    pub(super) async fn list_reservations(
        &self,
        after: i64,
        max: u32,
        filter: ReservationFilter,
    ) -> Result<Part<(Reservation, Timestamp)>, Fault> {
        self.read(move |connection| lists::reservations(connection, after, max, &filter)).await
    }

    pub(super) async fn people_named(&self, name: String) -> Result<Vec<UserId>, Fault> {
        self.read(move |connection| lists::people_named(connection, &name)).await
    }

    pub(super) async fn list_payments(
        &self,
        after: i64,
        max: u32,
    ) -> Result<Part<(Payment, UserId)>, Fault> {
        self.read(move |connection| lists::payments(connection, after, max)).await
    }

    pub(super) async fn list_people(&self, after: i64, max: u32) -> Result<Part<Person>, Fault> {
        self.read(move |connection| lists::people(connection, after, max)).await
    }

    pub(super) async fn refunded(&self, session: SessionId) -> Result<u64, Fault> {
        self.read(move |connection| load::refunded(connection, session)).await
    }

    pub(super) async fn create_concert(&self, concert: NewConcert) -> Result<ConcertId, Fault> {
        self.call(move |tx| tx.create_concert(&concert)).await
    }

    pub(super) async fn create_session(
        &self,
        concert: ConcertId,
        starts_at: Timestamp,
        seats: Seating,
    ) -> Result<Option<(SessionId, Vec<AddedSeats>)>, Fault> {
        self.call(move |tx| tx.create_session(concert, starts_at, &seats)).await
    }

    pub(super) async fn add_seats(
        &self,
        concert: ConcertId,
        session: SessionId,
        seats: NewSeats,
    ) -> Result<Option<AddedSeats>, Fault> {
        self.call(move |tx| tx.add_seats(concert, session, seats)).await
    }

    pub(super) async fn seed(&self, seed: Seed, now: Timestamp) -> Result<(), Fault> {
        self.call(move |tx| tx.seed(&seed, now)).await
    }

    pub(super) async fn next_events(&self, max: u32) -> Result<Vec<OutboxRow>, Fault> {
        self.read(move |connection| {
            let mut statement = connection
                .prepare_cached("SELECT id, topic, key, body FROM outbox ORDER BY id LIMIT ?1")?;
            let rows = statement.query_map([max], |row| {
                Ok(OutboxRow {
                    id: row.get(0)?,
                    topic: row.get(1)?,
                    key: row.get(2)?,
                    body: row.get(3)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub(super) async fn last_event(&self) -> Result<i64, Fault> {
        self.read(load::last_event).await
    }

    pub(super) async fn mark_published(&self, ids: Vec<i64>) -> Result<(), Fault> {
        self.call(move |tx| tx.mark_published(&ids)).await
    }

    pub(super) async fn setting(
        &self,
        name: &'static str,
        fresh: Option<String>,
    ) -> Result<Option<String>, Fault> {
        match fresh {
            Some(fresh) => self.call(move |tx| tx.setting(name, Some(&fresh))).await,
            None => self.read(move |connection| load::setting(connection, name)).await,
        }
    }

    pub(super) async fn set_setting(&self, name: &'static str, value: String) -> Result<(), Fault> {
        self.call(move |tx| tx.set_setting(name, &value)).await
    }

    pub(super) async fn audit(&self, now: Timestamp) -> Result<Vec<Finding>, Fault> {
        let mut findings = self.read(move |connection| audit::stored(connection, now)).await?;
        let mut memory = self.read(audit::plans).await?;
        let sessions: Vec<SessionId> = {
            let catalog = self.catalog();
            catalog
                .concerts()
                .flat_map(|concert| catalog.inventories(concert.id).to_vec())
                .map(|inventory| inventory.session().id)
                .collect()
        };
        for session in sessions {
            // In the writer, between two transactions, because only there memory and file must be
            // the same; a session at a time, so that nobody waits long.
            let part = self.call(move |tx| audit::inventory(tx, session)).await?;
            memory.checked += part.checked;
            memory.violations += part.violations;
            memory.examples.extend(part.examples);
            memory.examples.truncate(Finding::EXAMPLES_MAX);
        }
        findings.push(memory);
        Ok(findings)
    }
}

/// Copies the store of a data directory, running or not, into the new file `target`. `progress` is
/// called with the bytes written so far and the bytes expected.
///
/// # Errors
/// [`Fault::Unavailable`] where there is no store, the target exists, or it cannot be written.
pub fn backup(
    directory: &Path,
    target: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<u64, Fault> {
    let source = SqliteStore::file(directory);
    let unavailable = |error: &dyn std::fmt::Display| Fault::Unavailable(error.to_string());
    if !source.exists() {
        return Err(unavailable(&format!("there is no store at {}", source.display())));
    }
    let expected = std::fs::metadata(&source).map_err(|error| unavailable(&error))?.len();
    // SQLite fills an empty file and leaves its mode: nobody else can read along while it grows.
    create_private(target).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            unavailable(&format!("{} exists already; choose another name", target.display()))
        }
        _ => unavailable(&format!("cannot make {}: {error}", target.display())),
    })?;
    let text = target.to_string_lossy().into_owned();
    let copy_source = source.clone();
    // `VACUUM INTO` copies one consistent snapshot while the service goes on writing.
    let copy = std::thread::spawn(move || -> Result<(), Failure> {
        let connection = Place { path: copy_source, access: Access::Write }.connect()?;
        connection.execute("VACUUM INTO ?1", [&text])?;
        mark(Path::new(&text))
    });
    let size = || std::fs::metadata(target).map_or(0, |m| m.len());
    while !copy.is_finished() {
        progress(size(), expected);
        std::thread::sleep(Duration::from_millis(50));
    }
    let outcome = copy.join().unwrap_or_else(|_| Err(Failure::Corrupt("the copy panicked".into())));
    if let Err(failure) = outcome {
        // Half a backup must not be taken for one.
        let _ = std::fs::remove_file(target);
        return Err(explain(&source, failure));
    }
    let sync = File::open(target).and_then(|file| file.sync_all());
    sync.map_err(|error| unavailable(&format!("cannot sync {}: {error}", target.display())))?;
    Ok(size())
}

/// Has a backup say that it is one, so that a copy of it that was not restored is not sold from.
fn mark(backup: &Path) -> Result<(), Failure> {
    let place = Place { path: backup.to_owned(), access: Access::Write };
    let connection = place.connect()?;
    let text = load::setting(&connection, EPOCHS)?.unwrap_or_default();
    let epochs = Epochs::from_text(&text)
        .ok_or_else(|| Failure::Corrupt(format!("the setting {EPOCHS} is {text:?}")))?;
    connection.execute(
        "INSERT OR REPLACE INTO setting (name, value) VALUES (?1, ?2)",
        [BACKUP_OF, &epochs.current().to_string()],
    )?;
    Ok(())
}

/// Begins the logs of queues from before there were any.
fn begin_logs(connection: &mut Connection, time: &DatabaseTime) -> Result<(), Failure> {
    let transaction = connection.transaction()?;
    log::begin(&transaction, time.now())?;
    Ok(transaction.commit()?)
}

fn prepare_writer(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        tracing::warn!(mode, "the store could not be put into WAL mode; commits will be slow");
    }
    // FULL: a commit is on the disk before it is answered.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // A checkpoint copies pages and syncs twice; seldom is better, and 16 MiB of WAL is nothing.
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)
}
