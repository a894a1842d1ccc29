//! Work in the background that must not end unnoticed.
//!
//! A task that panics takes its work with it and tells nobody: fans would wait for an admission that
//! never comes, at a service that says it is well. So whatever works for as long as the service does
//! is spawned here, and whoever runs the service waits for [`Tasks::lost`] and ends.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::sync::watch;
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
}

impl Tasks {
    /// Spawns work that goes on until its owner ends it: by a signal, or by aborting the task.
    pub fn spawn<T: Send + 'static>(
        &self,
        worker: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let tasks = self.clone();
        #[cfg(debug_assertions)]
        let work = planted::panic_in(worker, work);
        let mut work = Box::pin(work);
        detach(poll_fn(move |context| {
            let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
            polled.unwrap_or_else(|panic| {
                tasks.lose(worker, format!("panicked: {}", text_of(&*panic)));
                resume_unwind(panic)
            })
        }))
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
