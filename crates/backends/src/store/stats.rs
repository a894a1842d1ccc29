//! How a store is doing, for metrics and for health.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::Fault;

/// Called after each commit.
pub type CommitObserver = Arc<dyn Fn(Commit) + Send + Sync>;

/// One commit, for metrics.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// How many operations it made durable.
    pub commands: usize,
    /// How long the transaction took.
    pub took: Duration,
}

/// How the store is doing.
#[derive(Debug, Default)]
pub struct StoreStats {
    /// Operations that wait for the writer.
    pub pending: AtomicU64,
    fault: Mutex<Option<String>>,
    faulty: AtomicBool,
}

impl StoreStats {
    /// Why the last write failed; `None` once one has succeeded again.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().clone()
    }

    pub(super) fn failed(&self, fault: &Fault) {
        let mut last = self.fault.lock();
        if last.is_none() {
            tracing::error!(error = %fault, "the store cannot write");
        }
        *last = Some(fault.to_string());
        self.faulty.store(true, Ordering::Relaxed);
    }

    pub(super) fn recovered(&self) {
        if self.faulty.swap(false, Ordering::Relaxed) {
            *self.fault.lock() = None;
            tracing::info!("the store writes again");
        }
    }
}
