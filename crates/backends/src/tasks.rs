//! Work in the background that must not end unnoticed.
//!
//! A task that panics takes its work with it and tells nobody: fans would wait for an admission that
//! never comes, at a service that says it is well. So whatever works for as long as the service does
//! is spawned here, and whoever runs the service waits for [`Tasks::lost`] and ends.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

#[cfg(feature = "simulation")]
pub(crate) mod gate;

/// Spawns work that goes on to its end, whether anybody waits for it or not.
pub(crate) fn detach<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    #[cfg(feature = "simulation")]
    if let Some(process) = gate::Gate::current() {
        return process.spawn(work);
    }
    tokio::spawn(work)
}

/// Work that has ended and must not have. Nobody else does it; a restart begins it anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{worker}: {why}")]
pub struct Lost {
    /// Which work.
    pub worker: &'static str,
    /// What ended it.
    pub why: String,
}

/// The background work of one service.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    lost: watch::Sender<Option<Lost>>,
    steady: Arc<OnceLock<Steady>>,
}

/// A thread with a runtime of its own, for as long as this lives.
#[derive(Debug)]
struct Steady {
    handle: Handle,
    _lives: oneshot::Sender<()>,
}

impl Steady {
    /// `None` where the machine has no thread left.
    fn start() -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let handle = runtime.handle().clone();
        let (lives, ended) = oneshot::channel();
        let run = move || {
            // An error is the end that is waited for.
            let _ = runtime.block_on(ended);
        };
        std::thread::Builder::new().name("steady".into()).spawn(run).ok()?;
        Some(Self { handle, _lives: lives })
    }
}

impl Tasks {
    /// Spawns work that goes on until its owner ends it: by a signal, or by aborting the task.
    pub fn spawn<T: Send + 'static>(
        &self,
        worker: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        detach(self.watched(worker, work))
    }

    /// The same on a thread for such work alone. Requests that queue up for the CPU by the thousand do not hold
    /// it up; so it must be little, and must not block.
    pub fn spawn_steady<T: Send + 'static>(
        &self,
        worker: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let work = self.watched(worker, work);
        if cfg!(feature = "simulation") {
            return detach(work);
        }
        if self.steady.get().is_none()
            && let Some(started) = Steady::start()
        {
            // Somebody may have been faster; one of both ends at once.
            let _ = self.steady.set(started);
        }
        match self.steady.get() {
            Some(steady) => steady.handle.spawn(work),
            None => {
                tracing::warn!(worker, "no thread is left for it; it waits with the requests");
                detach(work)
            }
        }
    }

    /// Work whose panic is reported.
    fn watched<T: Send + 'static>(
        &self,
        worker: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        // The report alone: work that ends with this service must not keep its thread.
        let tasks = Self { lost: self.lost.clone(), steady: Arc::default() };
        #[cfg(debug_assertions)]
        let work = planted::panic_in(worker, work);
        let mut work = Box::pin(work);
        poll_fn(move |context| {
            let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
            polled.unwrap_or_else(|panic| {
                tasks.lose(worker, format!("panicked: {}", text_of(&*panic)));
                resume_unwind(panic)
            })
        })
    }

    /// Reports work that cannot go on. The first report counts; what follows from it does not.
    pub fn lose(&self, worker: &'static str, why: String) {
        self.lost.send_if_modified(|lost| {
            let is_first = lost.is_none();
            lost.get_or_insert(Lost { worker, why });
            is_first
        });
    }

    /// Whether some work was lost.
    pub fn any_lost(&self) -> bool {
        self.lost.borrow().is_some()
    }

    /// Waits until some work is lost.
    pub async fn lost(&self) -> Lost {
        let mut lost = self.lost.subscribe();
        loop {
            if let Some(lost) = lost.borrow_and_update().clone() {
                return lost;
            }
            // It cannot fail while `self` has the sender.
            let _ = lost.changed().await;
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Panics for tests of the whole program. Not part of a release build.
#[cfg(debug_assertions)]
mod planted {
    use std::time::Duration;

    /// Late enough for the service to be ready.
    const AFTER: Duration = Duration::from_millis(500);

    /// Panics in the worker that `BOXOFFICE_TEST_PANIC` names.
    pub(super) async fn panic_in<T>(worker: &str, work: impl Future<Output = T>) -> T {
        if std::env::var("BOXOFFICE_TEST_PANIC").is_ok_and(|name| name == worker) {
            tokio::select! {
                done = work => return done,
                () = tokio::time::sleep(AFTER) => panic!("a planted panic"),
            }
        }
        work.await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// What was lost; a failure alone waits for long.
    async fn lost(tasks: &Tasks) -> Lost {
        timeout(Duration::from_secs(10), tasks.lost()).await.expect("nothing was reported as lost")
    }

    async fn nothing_lost(tasks: &Tasks) -> bool {
        timeout(Duration::from_millis(50), tasks.lost()).await.is_err() && !tasks.any_lost()
    }

    #[tokio::test]
    async fn a_panic_is_reported_and_the_first_one_counts() {
        let tasks = Tasks::default();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let waits = tasks.clone();
        let told = tokio::spawn(async move { lost(&waits).await });
        let task = tasks.spawn("first", async move {
            gone.await.unwrap();
            let seats: [u8; 0] = [];
            assert_eq!(seats.len(), 1, "a seat is missing");
        });
        assert!(nothing_lost(&tasks).await);
        go.send(()).unwrap();
        assert!(task.await.unwrap_err().is_panic());
        tasks.lose("second", "its sink is gone".to_owned());
        let first = told.await.unwrap();
        assert_eq!(first.worker, "first");
        assert!(first.why.starts_with("panicked: ") && first.why.contains("a seat is missing"));
        // Whoever asks late is told the same.
        assert_eq!(lost(&tasks).await, first);
        assert!(tasks.any_lost());
    }

    #[cfg(not(feature = "simulation"))]
    #[tokio::test]
    async fn steady_work_goes_on_while_requests_keep_the_threads_busy_and_ends_with_its_owner() {
        let tasks = Tasks::default();
        let (turn, turns) = std::sync::mpsc::channel();
        let (gone, ended) = std::sync::mpsc::channel::<()>();
        let task = tasks.spawn_steady("turns", async move {
            let _gone = gone;
            loop {
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                let _ = turn.send(name);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        // Nothing else of this runtime goes on meanwhile.
        for _ in 0..3 {
            assert_eq!(turns.recv_timeout(Duration::from_secs(10)).unwrap(), "steady");
        }
        let reports = tasks.spawn_steady("panics", async { panic!("planted") });
        assert!(reports.await.unwrap_err().is_panic());
        assert_eq!(lost(&tasks).await.worker, "panics");
        drop((task, tasks));
        let ended = ended.recv_timeout(Duration::from_secs(10));
        assert_eq!(ended, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }

    #[tokio::test]
    async fn work_that_was_ended_is_not_lost() {
        let tasks = Tasks::default();
        assert_eq!(tasks.spawn("returns", async { 7 }).await.unwrap(), 7);
        let endless = tasks.spawn("aborted", std::future::pending::<()>());
        endless.abort();
        assert!(endless.await.unwrap_err().is_cancelled());
        assert!(nothing_lost(&tasks).await);
        tasks.lose("sink", "the file was deleted".to_owned());
        assert_eq!(lost(&tasks).await.to_string(), "sink: the file was deleted");
    }
}
