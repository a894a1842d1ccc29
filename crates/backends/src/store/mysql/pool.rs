//! Connections to one server: at most so many, each wait bounded, none left behind.
//!
//! The client's own pool is not used. Here a place is a permit of a semaphore that goes back
//! whatever becomes of the connection, a connection that timed out is thrown away, and throwing it
//! away is bounded too, so that a server that swallows everything costs no more than the time-outs.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, Params, Row, Value};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::rows::{Failure, NO_CONNECTION_LEFT};

/// To make a connection, TLS and login included.
const CONNECT: Duration = Duration::from_millis(1_000);
/// To end a connection politely.
const GOODBYE: Duration = Duration::from_millis(500);
/// To undo a transaction.
const ROLLBACK: Duration = Duration::from_millis(500);
/// A connection that was not used for so long is not trusted: firewalls forget, and the server ends it
/// soon.
const IDLE: Duration = Duration::from_secs(15);

/// Where the server has no connection left, how long to wait for one of this instance that somebody else is
/// using, and how often to look.
const BORROWED_WITHIN: Duration = Duration::from_millis(100);
const LOOK_FOR_ONE: Duration = Duration::from_millis(5);

/// To wait for an answer so long and then to go without it is as bad as no answer.
const GIVEN_UP: Duration = Duration::from_secs(1);

/// Which connections an operation uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Those of purchases.
    Sale,
    /// Those of the queue and of tidying up.
    Work,
    /// That of events, whose transaction waits for the sink.
    Relay,
    /// Those of what takes long.
    Bulk,
}

/// What a pool is made with.
pub(super) struct PoolOptions {
    /// Where to, and as whom.
    pub(super) opts: Opts,
    /// The most connections.
    pub(super) size: usize,
    /// How long to wait for one of them.
    pub(super) wait: Duration,
    /// The time for all statements of one operation together.
    pub(super) budget: Duration,
}

/// Connections to one server.
pub(super) struct Pool {
    options: PoolOptions,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<(Conn, Instant)>>,
    /// Who else has connections to the same server.
    lenders: OnceLock<Vec<Weak<Self>>>,
}

impl Pool {
    pub(super) fn new(options: PoolOptions) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(options.size));
        Arc::new(Self { options, permits, idle: Mutex::default(), lenders: OnceLock::new() })
    }

    /// Names the pools that lend a connection where the server has none left. Borrowed connections have the
    /// limits of statements of the lender.
    pub(super) fn borrow_from(&self, lenders: &[&Arc<Self>]) {
        let others = lenders.iter().filter(|other| !std::ptr::eq(Arc::as_ptr(other), self));
        // Once is enough.
        let _ = self.lenders.set(others.map(|other| Arc::downgrade(other)).collect());
    }

    /// A connection for one operation, whose time begins now.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Lease, Failure> {
        let permit = timeout(self.options.wait, self.permits.clone().acquire_owned()).await;
        let permit = match permit {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(Failure::Unavailable("the store is closed".into())),
            Err(_) => {
                let text = "too many operations are waiting for a connection to the database";
                return Err(Failure::Unavailable(text.into()));
            }
        };
        let budget = self.options.budget;
        let deadline = Instant::now() + budget;
        let (conn, fresh, pool) = match self.pop() {
            Some(conn) => (conn, false, self.clone()),
            None => match self.connect().await {
                Ok(conn) => (conn, true, self.clone()),
                Err(Failure::Server(code, text)) if NO_CONNECTION_LEFT.contains(&code) => {
                    let borrowed = self.borrow_one().await;
                    let (conn, pool) = borrowed.ok_or(Failure::Server(code, text))?;
                    (conn, false, pool)
                }
                Err(failure) => return Err(failure),
            },
        };
        Ok(Lease { conn: Some(conn), fresh, broken: false, deadline, budget, pool, permit })
    }

    /// A connection of this instance that nobody uses, and whose it is.
    async fn borrow_one(self: &Arc<Self>) -> Option<(Conn, Arc<Self>)> {
        let until = Instant::now() + BORROWED_WITHIN.min(self.options.wait);
        loop {
            let lenders = self.lenders.get().into_iter().flatten().filter_map(Weak::upgrade);
            for pool in std::iter::once(self.clone()).chain(lenders) {
                if let Some(conn) = pool.pop() {
                    return Some((conn, pool));
                }
            }
            if Instant::now() >= until {
                return None;
            }
            sleep(LOOK_FOR_ONE).await;
        }
    }

    fn pop(&self) -> Option<Conn> {
        loop {
            let (conn, since) = self.idle.lock().pop()?;
            if since.elapsed() < IDLE {
                return Some(conn);
            }
            discard(conn);
        }
    }

    async fn connect(&self) -> Result<Conn, Failure> {
        match timeout(CONNECT, Conn::new(self.options.opts.clone())).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(Failure::Late(format!(
                "{}:{} did not answer within {} ms",
                self.options.opts.ip_or_hostname(),
                self.options.opts.tcp_port(),
                CONNECT.as_millis()
            ))),
        }
    }

    /// Forgets the connections that nobody uses, as after a restart of the server.
    pub(super) fn purge(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        idle.into_iter().for_each(|(conn, _)| discard(conn));
    }

    /// Waits for the operations under way and ends all connections.
    pub(super) async fn close(&self) {
        let size = u32::try_from(self.options.size).unwrap_or(u32::MAX);
        // Operations end by themselves within their budget.
        let wait = self.options.budget + CONNECT + GOODBYE;
        let _all = timeout(wait, self.permits.acquire_many(size)).await;
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle.lock());
        for (conn, _) in idle {
            let _ = timeout(GOODBYE, conn.disconnect()).await;
        }
    }

    /// How many connections are free to be taken, or to be made.
    #[cfg(feature = "external")]
    pub(super) fn free(&self) -> usize {
        self.permits.available_permits()
    }
}

/// Ends a connection beside everything else. Dropped as it is, it would be ended by a task without
/// a time-out.
fn discard(conn: Conn) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn(async move {
                let _ = timeout(GOODBYE, conn.disconnect()).await;
            });
        }
        // Without a runtime there is nobody left to be polite for.
        Err(_) => std::mem::forget(conn),
    }
}

/// Statements that are sent together.
#[derive(Default)]
pub(super) struct Packet {
    text: String,
    statements: usize,
}

impl Packet {
    /// Adds a statement.
    pub(super) fn push(&mut self, statement: &str) {
        if self.statements > 0 {
            self.text.push(';');
        }
        self.text.push_str(statement);
        self.statements += 1;
    }

    /// Returns how many statements there are.
    pub(super) const fn len(&self) -> usize {
        self.statements
    }
}

/// What a statement of a packet has brought.
pub(super) struct Ran {
    /// Its rows.
    pub(super) rows: Vec<Row>,
    /// How many rows it found, where it has changed some (not: how many are other than before).
    pub(super) found: u64,
}

/// A connection that one operation has.
pub(super) struct Lease {
    conn: Option<Conn>,
    /// Whether it was made for this operation. One that waited may have been cut off meanwhile.
    pub(super) fresh: bool,
    broken: bool,
    deadline: Instant,
    /// The time for all statements together.
    budget: Duration,
    /// Where the connection goes back.
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Sends a statement that gives no rows; tells how many rows it found (not: changed).
    pub(super) async fn exec(&mut self, sql: &str, values: Vec<Value>) -> Result<u64, Failure> {
        let sql = sql.to_owned();
        self.bounded(None, async |conn| {
            conn.exec_drop(sql, positional(values)).await?;
            Ok(conn.affected_rows())
        })
        .await
    }

    /// Inserts a row; returns its id.
    pub(super) async fn insert(&mut self, sql: &str, values: Vec<Value>) -> Result<i64, Failure> {
        let sql = sql.to_owned();
        let id = self
            .bounded(None, async |conn| {
                conn.exec_drop(sql, positional(values)).await?;
                Ok(conn.last_insert_id())
            })
            .await?;
        id.and_then(|id| i64::try_from(id).ok())
            .ok_or_else(|| Failure::Corrupt("a row was given no id".into()))
    }

    /// Sends a statement that gives rows.
    pub(super) async fn rows(
        &mut self,
        sql: &str,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, Failure> {
        let sql = sql.to_owned();
        self.bounded(None, async |conn| conn.exec::<Row, _, _>(sql, positional(values)).await).await
    }

    /// Sends a statement as text, which cannot be prepared or is sent but once.
    pub(super) async fn text(&mut self, sql: &str) -> Result<(), Failure> {
        let sql = sql.to_owned();
        self.bounded(None, async |conn| conn.query_drop(sql).await).await
    }

    /// Sends several statements at once. They are carried out one after another up to the first
    /// that fails.
    ///
    /// # Errors
    /// How many were carried out, and what became of the next. Where that is `Lost` or `Late`,
    /// nobody knows about the rest.
    pub(super) async fn packet(
        &mut self,
        packet: &Packet,
        limit: Option<Duration>,
    ) -> Result<Vec<Ran>, (usize, Failure)> {
        let mut ran = Vec::with_capacity(packet.statements);
        if packet.statements == 0 {
            return Ok(ran);
        }
        let done = self
            .bounded(limit, async |conn| {
                let mut result = conn.query_iter(packet.text.as_str()).await?;
                // Whether there is another result cannot be asked before one without rows.
                for _ in 0..packet.statements {
                    let found = result.affected_rows();
                    ran.push(Ran { rows: result.collect().await?, found });
                }
                result.drop_result().await
            })
            .await;
        match done {
            Ok(()) => Ok(ran),
            Err(failure) => Err((ran.len(), failure)),
        }
    }

    /// Makes the transaction durable. Whatever goes wrong from here on, nobody knows whether it is.
    pub(super) async fn commit(&mut self) -> Result<(), Failure> {
        let limit = self.left().max(ROLLBACK);
        let done = self.bounded(Some(limit), async |conn| conn.query_drop("COMMIT").await).await;
        done.map_err(|failure| {
            self.broken = true;
            let why = match failure {
                Failure::Server(_, text) | Failure::Lost(text) | Failure::Late(text) => text,
                other => format!("{other:?}"),
            };
            Failure::Unknown(format!("the answer to a commit is missing: {why}"))
        })
    }

    /// Undoes the transaction, if there is one, and gives the connection back. Where that fails the
    /// connection is thrown away, which undoes it too.
    pub(super) async fn roll_back(mut self) {
        if !self.broken {
            let undo = async |conn: &mut Conn| conn.query_drop("ROLLBACK").await;
            if self.bounded(Some(ROLLBACK), undo).await.is_ok() {
                self.release();
            }
        }
    }

    /// Gives the connection back, with no transaction open.
    pub(super) fn release(mut self) {
        if !self.broken
            && let Some(conn) = self.conn.take()
        {
            self.pool.idle.lock().push((conn, Instant::now()));
        }
    }

    /// Throws the connection away, and those that waited beside it.
    pub(super) fn was_cut_off(self) {
        self.pool.purge();
    }

    /// Begins the time for the statements to come anew.
    pub(super) fn restart(&mut self) {
        self.deadline = Instant::now() + self.budget;
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    async fn bounded<T>(
        &mut self,
        limit: Option<Duration>,
        send: impl AsyncFnOnce(&mut Conn) -> mysql_async::Result<T>,
    ) -> Result<T, Failure> {
        let limit = limit.unwrap_or_else(|| self.left());
        let Some(conn) = self.conn.as_mut().filter(|_| !self.broken) else {
            return Err(Failure::Lost("the connection is closed".into()));
        };
        // Until the answer is there the connection is not fit for another operation.
        self.broken = true;
        match timeout(limit, send(conn)).await {
            Ok(Ok(value)) => {
                self.broken = false;
                Ok(value)
            }
            Ok(Err(error)) => {
                let failure = Failure::from(error);
                self.broken = matches!(failure, Failure::Lost(_));
                Err(failure)
            }
            Err(_) => Err(Failure::Late("no answer in time".into())),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            discard(conn);
            // Whoever waited for it has given up before its time was over. It may be the network that
            // has forgotten the connection, and then those that wait beside it too.
            let used = self.budget.saturating_sub(self.left());
            if self.broken && used >= GIVEN_UP {
                self.pool.purge();
            }
        }
        // The permit goes back now: what is left of the connection ends within its own time-out.
        let _ = &self.permit;
    }
}

fn positional(values: Vec<Value>) -> Params {
    if values.is_empty() { Params::Empty } else { Params::Positional(values) }
}
