//! Sees to it that this is the only instance on a database, where it must be: with a queue that is
//! kept in this process, a second one would give the same numbers again.
//!
//! The instance is whoever has a named lock of the server. The lock belongs to a connection, so it
//! goes when the process dies, and it goes when the connection breaks: then nothing is written
//! until it is taken again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::schema::lock_name;
use crate::{Fault, Tasks};

use super::rows::Failure;

/// How often the connection that has the lock is used.
const BEAT: Duration = Duration::from_millis(1_000);
/// How long the server may take to answer.
const ANSWER: Duration = Duration::from_millis(2_000);
/// When the server gives up on a connection of ours that it does not hear from: after a cut of the
/// network the lock would otherwise be our own ghost's for hours.
const SILENCE_S: u32 = 10;

const HELD: u8 = 0;
const AWAY: u8 = 1;
const TAKEN: u8 = 2;

/// The lock.
pub(super) struct Fence {
    state: AtomicU8,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Fence {
    /// Takes the lock.
    pub(super) async fn acquire(
        opts: Opts,
        database: &str,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, Fault> {
        let name = lock_name("instance", database);
        let conn = match lock(&opts, &name).await {
            Ok(Some(conn)) => conn,
            Ok(None) => {
                return Err(Fault::Unavailable(format!(
                    "another instance uses the database {database}. With queue.kind = \"local\" \
                     there may be one only: stop it, use another database, or share the queue \
                     (queue.kind = \"redis\"). After a crash or a cut of the network the database \
                     server takes up to {SILENCE_S} s to notice"
                )));
            }
            Err(failure) => return Err(failure.into()),
        };
        let fence = Arc::new(Self { state: AtomicU8::new(HELD), keeper: Mutex::new(None) });
        let keeper = tasks.spawn("store lock", keep(Arc::downgrade(&fence), conn, opts, name));
        *fence.keeper.lock() = Some(keeper);
        Ok(fence)
    }

    /// Whether this is the only instance, as far as it knows.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.state.load(Ordering::SeqCst) {
            HELD => Ok(()),
            TAKEN => Err(Failure::Unavailable(
                "another instance has taken the database over; stop one of them".into(),
            )),
            _ => Err(Failure::Unavailable("the database is away: its lock was lost".into())),
        }
    }

    /// Gives the lock back.
    pub(super) async fn release(&self) {
        self.state.store(AWAY, Ordering::SeqCst);
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper {
            keeper.abort();
            // The connection goes with the task, and the lock with the connection.
            let _ = keeper.await;
        }
    }
}

/// A connection that has the lock; `None` where another has it.
async fn lock(opts: &Opts, name: &str) -> Result<Option<Conn>, Failure> {
    let work = async {
        let mut conn = Conn::new(opts.clone()).await?;
        conn.query_drop(format!("SET SESSION wait_timeout = {SILENCE_S}")).await?;
        let got: Option<Option<i64>> = conn.exec_first("SELECT GET_LOCK(?, 2)", (name,)).await?;
        Ok::<_, mysql_async::Error>((got.flatten() == Some(1)).then_some(conn))
    };
    match timeout(ANSWER + Duration::from_secs(2), work).await {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Failure::Late("no answer in time".into())),
    }
}

async fn keep(fence: std::sync::Weak<Fence>, conn: Conn, opts: Opts, name: String) {
    let mut held = Some(conn);
    loop {
        sleep(BEAT).await;
        let Some(fence) = fence.upgrade() else { return };
        held = match held {
            Some(mut conn) => match timeout(ANSWER, conn.query_drop("DO 1")).await {
                Ok(Ok(())) => Some(conn),
                _ => {
                    fence.state.store(AWAY, Ordering::SeqCst);
                    tracing::warn!(
                        "the lock of the database was lost; nothing is written until it is back"
                    );
                    None
                }
            },
            None => None,
        };
        if held.is_none() {
            match lock(&opts, &name).await {
                Ok(Some(conn)) => {
                    held = Some(conn);
                    fence.state.store(HELD, Ordering::SeqCst);
                    tracing::info!("the lock of the database was taken again");
                }
                Ok(None) => {
                    if fence.state.swap(TAKEN, Ordering::SeqCst) != TAKEN {
                        tracing::error!("another instance has taken the database over");
                    }
                }
                Err(_) => fence.state.store(AWAY, Ordering::SeqCst),
            }
        }
    }
}
