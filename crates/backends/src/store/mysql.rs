//! The store in a MySQL or MariaDB database, which several instances may share.
//!
//! Batches of the sale, and other operations one by one, are transactions at READ COMMITTED whose
//! locks, taken in one order, decide what happens one after another: no rule depends on what this
//! process remembers. Purchases have connections of their own, so that neither a sweep nor an audit
//! keeps a buyer waiting. Every wait has an end, after which the answer is that nothing happened, or
//! that nobody knows.

mod act;
mod audit;
mod engine;
mod familiar;
mod fence;
mod fresh;
mod inner;
mod lists;
mod load;
mod log;
mod pool;
mod publication;
mod relay;
mod rows;
mod sale;
mod schema;
mod sql;
mod tx;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use boxoffice_domain::command::{Ids, Payment, ReservationRow, TicketRef};
use boxoffice_domain::ids::{
    ConcertId, PaymentId, QueueName, ReservationId, SeatId, SessionId, UserId,
};
use boxoffice_domain::invariant::Finding;
use boxoffice_domain::queue::{Drawn, QueueSettings, SettingsChange};
use boxoffice_domain::sales::{Reservation, Seat};
use boxoffice_domain::time::Timestamp;
use mysql_async::{Opts, OptsBuilder, SslOpts};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use self::engine::MysqlEngine;
use self::familiar::Familiar;
use self::fence::Fence;
use self::inner::Inner;
use self::pool::{Pool, PoolOptions};
use self::publication::Publication;
pub(super) use self::relay::HeldShards;
use self::rows::Failure;
use super::act::{Act, ActRejected, Acted, Condition, LogEntry, Note, StoredOperator};
use super::batch::{BatchOptions, Gather, NoJob, Sales, batches};
use super::beat::{Beat, Beats};
use super::catalog::{Catalog, Inventory};
use super::chain::LogPart;
use super::clock_check::ClockCheck;
use super::draws::DrawSeed;
use super::numbers::{Grant, GrantRequest, Taken};
use super::stats::{CommitObserver, StoreStats};
use super::types::{
    AddedSeats, Advance, Alias, AliasExists, Checkpoint, DrawRequest, NewConcert, NewPerson,
    NewSeats, Part, Person, Progress, ReservationFilter, Seating, Seed, ShortenLog, StoredQueue,
};
use crate::cloud_event::OutboxRow;
use crate::{Error, Fault, Tasks};

/// Whether a connection is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MysqlTls {
    /// Not at all.
    Off,
    /// Encrypted, whoever the server is: against listening only.
    Required,
    /// Encrypted, and the server's certificate is checked: against the authorities of the file, or
    /// the well-known ones.
    Verify {
        /// Certificates of authorities, as PEM.
        ca_file: Option<PathBuf>,
    },
}

/// Where a server is, and as whom to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct MysqlServer {
    /// Its name or address.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// The database, which must exist.
    pub database: String,
    /// Whether the connection is encrypted.
    pub tls: MysqlTls,
}

impl MysqlServer {
    /// The server that a URL names: `mysql://user:password@host:port/database`.
    ///
    /// # Errors
    /// What is wrong with the URL. It may hold a password, so the text does not quote it.
    pub fn from_url(url: &str, tls: MysqlTls) -> Result<Self, String> {
        let opts = Opts::from_url(url).map_err(|_| {
            "must look like mysql://user:password@host:3306/database, with special characters \
             written as %.. and nothing behind the database"
                .to_owned()
        })?;
        let database = opts.db_name().filter(|name| !name.is_empty());
        Ok(Self {
            // An IPv6 address stands in brackets in a URL only.
            host: opts.ip_or_hostname().trim_matches(['[', ']']).to_owned(),
            port: opts.tcp_port(),
            user: opts.user().unwrap_or("boxoffice").to_owned(),
            password: opts.pass().unwrap_or_default().to_owned(),
            database: database.ok_or("names no database: mysql://.../database")?.to_owned(),
            tls,
        })
    }
}

/// How to open the store.
pub struct MysqlOptions {
    /// The server.
    pub primary: MysqlServer,
    /// A copy of it from which seats may be read for lists; it may be some seconds behind.
    pub replica: Option<MysqlServer>,
    /// Connections for purchases. As many operations are under way at once.
    pub pool_size: usize,
    /// The most commands in one transaction; at most 256 are.
    pub batch_max: usize,
    /// The most commands that may wait; more are refused.
    pub queue_max: usize,
    /// How long a purchase waits for one of them.
    pub acquire: Duration,
    /// Whether a database of an older schema version is brought to this one. An empty one always is.
    pub migrate: bool,
    /// Whether this must be the only instance on the database.
    pub exclusive: bool,
    /// The longest that events may take on their way from the store to the sink.
    pub publishing: Duration,
    /// Called after each commit.
    pub observe: CommitObserver,
}

/// Connections for the queue and for tidying up.
const WORK_CONNECTIONS: usize = 6;
/// Connections for what takes long: an audit, a session with many seats.
const BULK_CONNECTIONS: usize = 2;
/// Connections for keeping up with other instances, and for noticing that the server is away.
const LOOK_CONNECTIONS: usize = 1;
/// Connections for events: one hand-over at a time.
const RELAY_CONNECTIONS: usize = 1;
/// Silence after which the server ends a connection, and with it the locks of its transaction: where
/// the network has forgotten a connection, the server never hears that its client has gone. More than
/// any pause within an operation, and than the time for which an idle connection is trusted.
const SILENCE: Duration = Duration::from_secs(20);
/// The time for one purchase.
const SALE_BUDGET: Duration = Duration::from_millis(2_000);
/// Transactions of purchases at a time, where enough wait: while the database works on one, the other
/// is received and answered.
const BATCHES: usize = 2;
/// The most commands in one transaction: more bring nothing, and a statement grows with each.
const BATCH_MAX: usize = 256;
/// The time for one piece of other work.
const WORK_BUDGET: Duration = Duration::from_secs(5);
/// The time for what takes long.
const BULK_BUDGET: Duration = Duration::from_secs(60);
/// How long other work waits for a connection.
const WORK_WAIT: Duration = Duration::from_secs(2);
/// The oldest servers that know all that is used here.
const MARIADB_MIN: (u16, u16) = (10, 6);
const MYSQL_MIN: (u16, u16) = (8, 0);

/// The store in one MySQL or MariaDB database.
pub struct MysqlStore {
    /// The way to the batches.
    pub(super) sales: Sales<NoJob>,
    batches: Mutex<Option<JoinHandle<()>>>,
    inner: Arc<Inner>,
    clock_check: ClockCheck,
    tasks: Tasks,
    refresher: Mutex<Option<JoinHandle<()>>>,
}

impl MysqlStore {
    /// The schema version that this binary reads and writes.
    pub const SCHEMA_VERSION: i64 = schema::VERSION;

    /// Opens the store. Also gives the schema version that the database had before: 0 for an empty
    /// one.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] where the server cannot be reached, refuses, or has another schema
    /// version (the text says what to do); [`Fault::Corrupt`] where what is stored makes no sense.
    pub async fn open(options: MysqlOptions) -> Result<(Arc<Self>, i64), Fault> {
        let MysqlOptions {
            primary,
            replica,
            pool_size,
            batch_max,
            queue_max,
            acquire,
            migrate,
            exclusive,
            publishing,
            observe,
        } = options;
        let pool_size = pool_size.max(1);
        // Before anything is sent, so that no connection is ever made without all that was set.
        let at_primary = Login::new(&primary)?;
        let at_replica = replica.as_ref().map(Login::new).transpose()?;
        let setup = Setup::find(&primary, &at_primary).await?;
        let pool_for = |login: &Login, size, wait, budget, silence| {
            let opts = setup.opts(login, budget, silence);
            Pool::new(PoolOptions { opts, size, wait, budget })
        };
        let pool = |login: &Login, size, wait, budget| pool_for(login, size, wait, budget, SILENCE);
        let sale = pool(&at_primary, pool_size, acquire, SALE_BUDGET);
        let work = pool(&at_primary, WORK_CONNECTIONS, WORK_WAIT, WORK_BUDGET);
        let patient = publishing + SILENCE;
        let relaying = pool_for(&at_primary, RELAY_CONNECTIONS, WORK_WAIT, WORK_BUDGET, patient);
        let bulk = pool(&at_primary, BULK_CONNECTIONS, WORK_WAIT, BULK_BUDGET);
        let look = pool(&at_primary, LOOK_CONNECTIONS, WORK_WAIT, SALE_BUDGET);
        // What takes long or waits for others has limits that the others' connections do not have.
        let lenders = [&sale, &work, &relaying, &bulk, &look];
        for borrower in [&sale, &work, &look] {
            borrower.borrow_from(&lenders);
        }
        let replica =
            at_replica.map(|login| pool(&login, LOOK_CONNECTIONS, WORK_WAIT, SALE_BUDGET));
        let others = WORK_CONNECTIONS + RELAY_CONNECTIONS + BULK_CONNECTIONS + LOOK_CONNECTIONS;
        let wanted = pool_size + others + usize::from(exclusive);
        if wanted as i64 >= setup.max_connections {
            return Err(Fault::Unavailable(format!(
                "this instance needs up to {wanted} connections, and the database server allows {} \
                 in all: raise its max_connections, or lower store.mysql.pool_size",
                setup.max_connections
            )));
        }
        let tasks = Tasks::default();
        let mut lease = bulk.acquire().await?;
        let before = schema::prepare(&mut lease, &primary.database, migrate).await?;
        let fence = match exclusive {
            true => {
                let opts = setup.opts(&at_primary, SALE_BUDGET, SILENCE);
                Some(Fence::acquire(opts, &primary.database, &tasks).await?)
            }
            false => None,
        };
        let catalog = load::catalog(&mut lease).await?;
        let latest = load::number(&mut lease, sql::CLOCK).await?;
        lease.release();
        let inner = Arc::new(Inner {
            sale,
            work,
            relaying,
            bulk,
            look,
            replica,
            replica_failed: AtomicBool::new(false),
            publication: Publication::new(catalog),
            familiar: Familiar::default(),
            stats: StoreStats::default(),
            observe: observe.clone(),
            fence,
            relay: Arc::new(Semaphore::new(1)),
        });
        let refresher = tasks.spawn("seat refresher", fresh::keep_fresh(Arc::downgrade(&inner)));
        let batch = BatchOptions {
            batch_max: batch_max.clamp(1, BATCH_MAX),
            queue_max,
            patience: Some(SALE_BUDGET),
            gather: Gather::Listening,
            observe,
        };
        let engines = pool_size.min(BATCHES);
        let engines = (0..engines).map(|_| MysqlEngine::new(inner.clone())).collect();
        let (sales, run) = batches(engines, Ids::default(), Timestamp(latest), batch);
        let batches = Mutex::new(Some(tasks.spawn("sale", run)));
        let refresher = Mutex::new(Some(refresher));
        let clock_check = ClockCheck::default();
        Ok((Arc::new(Self { sales, batches, inner, clock_check, tasks, refresher }), before))
    }

    pub(super) const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.inner.catalog()
    }

    pub(super) fn stats(&self) -> &StoreStats {
        let stats = &self.inner.stats;
        stats.pending.store(self.sales.waiting(), Ordering::Relaxed);
        stats
    }

    pub(super) fn seats_for_refusal(
        &self,
        inventory: &Inventory,
        seats: &[SeatId],
    ) -> Option<Vec<Option<Seat>>> {
        self.inner.seats_for_refusal(inventory, seats)
    }

    pub(super) async fn close(&self) {
        if let Some(refresher) = self.refresher.lock().take() {
            refresher.abort();
        }
        self.sales.close().await;
        let batches = self.batches.lock().take();
        if let Some(batches) = batches {
            let _ = batches.await;
        }
        let Inner { sale, work, relaying, bulk, look, replica, .. } = &*self.inner;
        for pool in [sale, work, relaying, bulk, look].into_iter().chain(replica) {
            pool.close().await;
        }
        if let Some(fence) = &self.inner.fence {
            fence.release().await;
        }
    }

    pub(super) async fn balance(&self, user: UserId) -> Result<i64, Fault> {
        let found = self
            .inner
            .read(&self.inner.sale, move |lease| {
                Box::pin(async move {
                    let row = lease.rows(sql::BALANCE, vec![user.get().into()]).await?.pop();
                    row.map(|mut row| rows::take(&mut row, 0)).transpose()
                })
            })
            .await?;
        Ok(found.unwrap_or(0))
    }

    pub(super) async fn is_spent(&self, ticket: TicketRef) -> Result<bool, Fault> {
        self.inner
            .read(&self.inner.sale, move |lease| {
                let ticket = ticket.clone();
                Box::pin(async move { load::is_spent(lease, &ticket).await })
            })
            .await
    }

    pub(super) async fn reservation(
        &self,
        id: ReservationId,
    ) -> Result<Option<(Reservation, Timestamp)>, Fault> {
        let sale = &self.inner.sale;
        let row =
            self.inner.read(sale, move |lease| Box::pin(load::reservation(lease, id))).await?;
        Ok(row.map(|row| (row.reservation, row.until)))
    }

    pub(super) async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Fault> {
        self.inner.read(&self.inner.sale, move |lease| Box::pin(load::payment(lease, id))).await
    }

    pub(super) async fn reservations_of(
        &self,
        user: UserId,
        after: Option<ReservationId>,
        max: u32,
    ) -> Result<Vec<ReservationRow>, Fault> {
        let sale = &self.inner.sale;
        self.inner
            .read(sale, move |lease| Box::pin(load::reservations_of(lease, user, after, max)))
            .await
    }

    pub(super) async fn due(&self, now: Timestamp, max: u32) -> Result<Vec<ReservationId>, Fault> {
        self.inner.read(&self.inner.work, move |lease| Box::pin(load::due(lease, now, max))).await
    }

    pub(super) async fn forget_keys(&self, before: Timestamp, max: u32) -> Result<u32, Fault> {
        self.inner.call(tx::ForgetKeys { before, max }).await
    }

    pub(super) async fn queues(&self) -> Result<Vec<StoredQueue>, Fault> {
        self.inner.read(&self.inner.work, |lease| Box::pin(load::queues(lease))).await
    }

    pub(super) async fn create_queue(
        &self,
        name: QueueName,
        settings: QueueSettings,
        seed: Option<DrawSeed>,
    ) -> Result<bool, Fault> {
        self.inner.call(tx::CreateQueue(name.as_str().to_owned(), settings, seed)).await
    }

    pub(super) async fn change_queue(
        &self,
        name: QueueName,
        change: SettingsChange,
    ) -> Result<QueueSettings, Fault> {
        let changed = self.inner.call(tx::ChangeQueue(name.as_str().to_owned(), change)).await?;
        if let Some(settings) = changed {
            return Ok(settings);
        }
        let stored = self.queues().await?.into_iter().find(|queue| queue.name == name);
        let settings = stored.map(|queue| queue.settings);
        settings.ok_or_else(|| Fault::Corrupt(format!("no queue {name}")))
    }

    pub(super) async fn draw(&self, request: DrawRequest) -> Result<Option<Drawn>, Fault> {
        self.inner.call(tx::DrawQueue(request)).await
    }

    pub(super) async fn checkpoint(
        &self,
        queues: Vec<Checkpoint>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.inner.call(tx::Checkpoints(queues, now)).await
    }

    pub(super) async fn grant_numbers(&self, request: GrantRequest) -> Result<Grant, Fault> {
        self.inner.call(tx::GrantNumbers(request)).await
    }

    pub(super) async fn take_numbers(&self, queue: QueueName, count: u64) -> Result<Taken, Fault> {
        self.inner.call(tx::TakeNumbers { queue, count }).await
    }

    pub(super) async fn beat(&self, beat: Beat) -> Result<Beats, Fault> {
        self.inner.call(tx::TellBeat(beat)).await
    }

    pub(super) async fn database_now(&self) -> Result<Timestamp, Fault> {
        let now = self
            .inner
            .read(&self.inner.work, |lease| Box::pin(load::number(lease, sql::NOW)))
            .await?;
        Ok(Timestamp(now))
    }

    pub(super) const fn clock_check(&self) -> &ClockCheck {
        &self.clock_check
    }

    pub(super) async fn advance(&self, step: Advance, now: Timestamp) -> Result<bool, Fault> {
        self.inner.call(tx::AdvanceTo(step, now)).await
    }

    pub(super) async fn record(
        &self,
        progress: Vec<Progress>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.inner.call(tx::Record(progress, now)).await
    }

    pub(super) async fn people(
        &self,
        people: Vec<NewPerson>,
        now: Timestamp,
    ) -> Result<Vec<Option<UserId>>, Fault> {
        self.inner.call(tx::People(people, now)).await
    }

    pub(super) async fn add_aliases(&self, aliases: Vec<Alias>) -> Result<(), Error<AliasExists>> {
        Error::flatten(self.inner.call(tx::AddAliases(aliases)).await)
    }

    pub(super) async fn aliases(&self, now: Timestamp) -> Result<Vec<Alias>, Fault> {
        self.inner.read(&self.inner.bulk, move |lease| Box::pin(load::aliases(lease, now))).await
    }

    pub(super) async fn clock(&self) -> Result<Timestamp, Fault> {
        let clock = self
            .inner
            .read(&self.inner.work, |lease| Box::pin(load::number(lease, sql::CLOCK)))
            .await?;
        Ok(Timestamp(clock))
    }

    pub(super) async fn set_back(&self, now: Timestamp) -> Result<u64, Fault> {
        self.inner.call(tx::SetBack(now)).await
    }

    pub(super) async fn act(&self, act: Act, note: Note) -> Result<Acted, Error<ActRejected>> {
        let acted = match &act {
            // Done again, it would be refused because it was done.
            Act::ChangeQueue(_, _, Condition::Tagged(_)) => {
                self.inner.call(act::Small(act, note)).await
            }
            Act::ChangeQueue(..) | Act::CallOff(..) => {
                self.inner.call(act::Repeatable(act, note)).await
            }
            act_of_many if act_of_many.is_bulk() => self.inner.call(act::Bulk(act, note)).await,
            _ => self.inner.call(act::Small(act, note)).await,
        };
        Error::flatten(acted)
    }

    pub(super) async fn kept(
        &self,
        who: String,
        key: String,
    ) -> Result<Option<([u8; 32], String)>, Fault> {
        self.inner
            .read(&self.inner.work, move |lease| {
                let (who, key) = (who.clone(), key.clone());
                Box::pin(async move { act::kept(lease, &who, &key).await })
            })
            .await
    }

    pub(super) async fn operators(&self) -> Result<Vec<StoredOperator>, Fault> {
        self.inner.read(&self.inner.work, |lease| Box::pin(act::operators(lease))).await
    }

    pub(super) async fn log(&self, before: i64, max: u32) -> Result<Vec<LogEntry>, Fault> {
        self.inner.read(&self.inner.work, move |lease| Box::pin(act::log(lease, before, max))).await
    }

    pub(super) async fn admission_log(
        &self,
        queue: QueueName,
        after: Option<u64>,
        max: u32,
    ) -> Result<Option<LogPart>, Fault> {
        self.inner
            .read(&self.inner.work, move |lease| {
                let queue = queue.clone();
                Box::pin(async move { log::part_of_one_moment(lease, &queue, after, max).await })
            })
            .await
    }

    pub(super) async fn shorten_log(&self, shorten: ShortenLog) -> Result<u64, Fault> {
        self.inner.call(tx::Shorten(shorten)).await
    }

    pub(super) async fn list_reservations(
        &self,
        after: i64,
        max: u32,
        filter: ReservationFilter,
    ) -> Result<Part<(Reservation, Timestamp)>, Fault> {
        self.inner
            .read(&self.inner.work, move |lease| {
                let filter = filter.clone();
                Box::pin(async move { lists::reservations(lease, after, max, &filter).await })
            })
            .await
    }

    pub(super) async fn people_named(&self, name: String) -> Result<Vec<UserId>, Fault> {
        self.inner
            .read(&self.inner.work, move |lease| {
                let name = name.clone();
                Box::pin(async move { lists::people_named(lease, &name).await })
            })
            .await
    }

    pub(super) async fn list_payments(
        &self,
        after: i64,
        max: u32,
    ) -> Result<Part<(Payment, UserId)>, Fault> {
        self.inner
            .read(&self.inner.work, move |lease| Box::pin(lists::payments(lease, after, max)))
            .await
    }

    pub(super) async fn list_people(&self, after: i64, max: u32) -> Result<Part<Person>, Fault> {
        self.inner
            .read(&self.inner.work, move |lease| Box::pin(lists::people(lease, after, max)))
            .await
    }

    pub(super) async fn refunded(&self, session: SessionId) -> Result<u64, Fault> {
        let work = &self.inner.work;
        self.inner.read(work, move |lease| Box::pin(load::refunded(lease, session))).await
    }

    pub(super) async fn create_concert(&self, concert: NewConcert) -> Result<ConcertId, Fault> {
        self.inner.call(tx::CreateConcert(concert)).await
    }

    pub(super) async fn create_session(
        &self,
        concert: ConcertId,
        starts_at: Timestamp,
        seating: Seating,
    ) -> Result<Option<(SessionId, Vec<AddedSeats>)>, Fault> {
        self.inner.call(tx::CreateSession { concert, starts_at, seating }).await
    }

    pub(super) async fn add_seats(
        &self,
        concert: ConcertId,
        session: SessionId,
        group: NewSeats,
    ) -> Result<Option<AddedSeats>, Fault> {
        self.inner.call(tx::AddSeats { concert, session, group }).await
    }

    pub(super) async fn seed(&self, seed: Seed, now: Timestamp) -> Result<(), Fault> {
        self.inner.call(tx::Fill(seed, now)).await
    }

    pub(super) async fn next_events(
        &self,
        max: u32,
    ) -> Result<(Vec<OutboxRow>, HeldShards), Fault> {
        relay::take(&self.inner, max).await
    }

    pub(super) async fn mark_published(
        &self,
        rows: Vec<OutboxRow>,
        shards: Option<HeldShards>,
    ) -> Result<(), Fault> {
        relay::mark(&self.inner, rows, shards).await
    }

    pub(super) async fn last_event(&self) -> Result<i64, Fault> {
        self.inner
            .read(&self.inner.work, |lease| Box::pin(load::number(lease, sql::LAST_EVENT)))
            .await
    }

    pub(super) async fn setting(
        &self,
        name: &'static str,
        fresh: Option<String>,
    ) -> Result<Option<String>, Fault> {
        match fresh {
            Some(fresh) => self.inner.call(tx::FreshSetting(name, fresh)).await,
            None => {
                self.inner
                    .read(&self.inner.work, move |lease| Box::pin(load::setting(lease, name)))
                    .await
            }
        }
    }

    pub(super) async fn set_setting(&self, name: &'static str, value: String) -> Result<(), Fault> {
        self.inner.call(tx::SetSetting(name, value)).await
    }

    pub(super) async fn audit(&self, now: Timestamp) -> Result<Vec<Finding>, Fault> {
        let mut findings = self
            .inner
            .read(&self.inner.bulk, move |lease| Box::pin(audit::stored(lease, now)))
            .await?;
        findings.push(audit::memory(&self.inner).await?);
        Ok(findings)
    }
}

/// What only the tests of this store ask for.
#[cfg(feature = "external")]
impl MysqlStore {
    /// Every statement by its name, with `{}` for a list of question marks.
    pub fn statements() -> &'static [(&'static str, &'static str)] {
        sql::ALL
    }

    /// How many connections for purchases are not in use.
    pub fn free_connections(&self) -> usize {
        self.inner.sale.free()
    }
}

/// What was learnt about the server before the first use.
struct Setup {
    is_mariadb: bool,
    max_connections: i64,
}

impl Setup {
    async fn find(server: &MysqlServer, Login(opts): &Login) -> Result<Self, Fault> {
        let opts = opts.clone();
        let wait = Duration::from_secs(5);
        let pool = Pool::new(PoolOptions { opts, size: 1, wait, budget: wait });
        let mut lease = pool.acquire().await.map_err(|failure| explain(server, failure))?;
        let explain = |failure| explain(server, failure);
        let mut row = lease
            .rows("SELECT VERSION(), @@max_connections, @@innodb_flush_log_at_trx_commit", vec![])
            .await
            .map_err(explain)?
            .pop()
            .ok_or_else(|| Fault::Corrupt("the server does not tell its version".into()))?;
        let version: String = rows::take(&mut row, 0)?;
        let flush: i64 = rows::take(&mut row, 2)?;
        let setup = Self {
            is_mariadb: version.contains("MariaDB"),
            max_connections: rows::take(&mut row, 1)?,
        };
        let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u16>().ok());
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let (name, least) = match setup.is_mariadb {
            true => ("MariaDB", MARIADB_MIN),
            false => ("MySQL", MYSQL_MIN),
        };
        if found < least {
            return Err(Fault::Unavailable(format!(
                "the database server is {name} {version}; {}.{} or newer is needed",
                least.0, least.1
            )));
        }
        if flush != 1 {
            tracing::warn!(
                innodb_flush_log_at_trx_commit = flush,
                "a crash of the database server may lose what was answered; set it to 1"
            );
        }
        lease.release();
        pool.close().await;
        Ok(setup)
    }

    /// The options of every connection that is used for work.
    fn opts(&self, Login(opts): &Login, budget: Duration, silence: Duration) -> Opts {
        let seconds = budget.as_secs().max(1);
        let silence = silence.as_secs().max(1);
        // The server gives up by itself, a little after the client has.
        let limit = match self.is_mariadb {
            true => format!("max_statement_time = {}", seconds + 1),
            false => format!("max_execution_time = {}", (seconds + 1) * 1_000),
        };
        // Which index is used is said in the statements. To dive into it for each row first, only to
        // estimate, took a quarter of the time of looking up what 31 users have.
        let init = vec![
            format!(
                "SET SESSION sql_mode = \
                 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', \
                 autocommit = 1, innodb_lock_wait_timeout = 1, eq_range_index_dive_limit = 1, \
                 wait_timeout = {silence}, {limit}"
            ),
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned(),
        ];
        OptsBuilder::from_opts(opts.clone()).init(init).into()
    }
}

/// Prepared statements that a connection keeps; lists of seats of each length count. A server allows
/// 16,382 of them in all by default.
const STATEMENTS: usize = 64;

/// Where a server is and as whom to log in, with whatever that needs found and read.
struct Login(Opts);

impl Login {
    fn new(server: &MysqlServer) -> Result<Self, Fault> {
        let ssl = match &server.tls {
            MysqlTls::Off => None,
            MysqlTls::Required => Some(
                SslOpts::default()
                    .with_danger_accept_invalid_certs(true)
                    .with_danger_skip_domain_validation(true),
            ),
            MysqlTls::Verify { ca_file } => {
                if let Some(path) = ca_file
                    && let Err(error) = std::fs::metadata(path)
                {
                    return Err(Fault::Unavailable(format!(
                        "cannot read store.mysql.tls_ca_file {}: {error}",
                        path.display()
                    )));
                }
                let roots = ca_file.clone().map(Into::into).into_iter().collect();
                Some(SslOpts::default().with_root_certs(roots))
            }
        };
        let opts = OptsBuilder::default()
            .ip_or_hostname(server.host.clone())
            .tcp_port(server.port)
            .user(Some(server.user.clone()))
            .pass(Some(server.password.clone()))
            .db_name(Some(server.database.clone()))
            .prefer_socket(false)
            .tcp_keepalive(Some(Duration::from_secs(10)))
            // Rows found, not rows changed: an update that changes nothing is not a missing row.
            .client_found_rows(true)
            .stmt_cache_size(STATEMENTS)
            .ssl_opts(ssl);
        Ok(Self(opts.into()))
    }
}

/// Says what a person can do about an error of the first connection.
fn explain(server: &MysqlServer, failure: Failure) -> Fault {
    let MysqlServer { host, port, user, database, .. } = server;
    Fault::Unavailable(match failure {
        Failure::Server(1045 | 1698, text) => format!(
            "the database server {host}:{port} refuses the user {user}: {text}. Check \
             store.mysql.user and store.mysql.password (BOXOFFICE_STORE__MYSQL__PASSWORD)"
        ),
        Failure::Server(1044, text) => format!(
            "the user {user} may not use the database {database} on {host}:{port}: {text}. Grant \
             it: GRANT ALL ON {database}.* TO {user}"
        ),
        Failure::Server(1049, _) => format!(
            "there is no database {database} on {host}:{port}. Make it: CREATE DATABASE {database} \
             CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        ),
        Failure::Server(1040, text) => format!(
            "the database server {host}:{port} has no connection left: {text}. Raise its \
             max_connections, or lower store.mysql.pool_size"
        ),
        Failure::Server(code, text) => {
            format!("the database server {host}:{port} refuses (error {code}): {text}")
        }
        Failure::Lost(what) | Failure::Late(what) | Failure::Unavailable(what) => format!(
            "cannot reach the database server {host}:{port}: {what}. Is it running, and are \
             store.mysql.host, port and tls right?"
        ),
        other => format!("the database server {host}:{port}: {other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pools are made of a [`Login`], so there is none that lacks what was set: not even for a
    /// replica, which nobody asks before seats are read.
    #[tokio::test]
    async fn a_replica_without_its_certificates_stops_the_start() {
        let server = |tls| MysqlServer {
            host: "127.0.0.1".to_owned(),
            // Nobody listens here, so what is wrong with the replica must be seen before.
            port: 1,
            user: "boxoffice".to_owned(),
            password: "secret".to_owned(),
            database: "boxoffice".to_owned(),
            tls,
        };
        let ca_file = Some("/nowhere/ca.pem".into());
        let opened = MysqlStore::open(MysqlOptions {
            batch_max: 1,
            queue_max: 1,
            primary: server(MysqlTls::Off),
            replica: Some(server(MysqlTls::Verify { ca_file })),
            pool_size: 1,
            acquire: Duration::from_millis(100),
            migrate: false,
            exclusive: false,
            publishing: Duration::ZERO,
            observe: Arc::new(|_| {}),
        });
        let fault = opened.await.err().map(|fault| fault.to_string()).unwrap_or_default();
        assert!(fault.contains("store.mysql.tls_ca_file /nowhere/ca.pem"), "{fault}");
    }
}
