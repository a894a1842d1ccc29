//! Simulated time, and what is to happen when.
//!
//! tokio's paused clock counts milliseconds and moves on when nothing is left to do; the heap here has
//! microseconds, and its events come when tokio has reached their millisecond. What tasks send goes
//! into a box that is emptied after each event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The time at which every history begins, in milliseconds since 1970.
pub const EPOCH_MS: i64 = 1_800_000_000_000;

/// What tasks can reach of the time and of the world.
pub struct Outside<M> {
    start: Instant,
    now_us: AtomicU64,
    inbox: Mutex<Vec<M>>,
    wake: Notify,
}

impl<M> Outside<M> {
    /// Begins now.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            now_us: AtomicU64::new(0),
            inbox: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// Microseconds since the beginning.
    pub fn now_us(&self) -> u64 {
        let elapsed_us = self.start.elapsed().as_micros() as u64;
        self.now_us.fetch_max(elapsed_us, Ordering::Relaxed).max(elapsed_us)
    }

    /// Sends something to the world.
    pub fn post(&self, message: M) {
        self.inbox.lock().push(message);
        self.wake.notify_one();
    }
}

/// What is to happen when.
pub struct Timeline<M, E> {
    pub(crate) outside: Arc<Outside<M>>,
    order: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, E>,
    next_number: u64,
}

/// What comes next.
pub enum Next<M, E> {
    /// Tasks have sent these.
    Messages(Vec<M>),
    /// An event is due.
    Event(E),
    /// The time is over.
    End,
}

impl<M, E> Timeline<M, E> {
    /// Nothing yet.
    pub fn new(outside: Arc<Outside<M>>) -> Self {
        Self { outside, order: BinaryHeap::new(), events: BTreeMap::new(), next_number: 0 }
    }

    /// Has something happen at a time, or now where that is over.
    pub fn at(&mut self, at_us: u64, event: E) {
        let at_us = at_us.max(self.outside.now_us());
        self.order.push(Reverse((at_us, self.next_number)));
        self.events.insert(self.next_number, event);
        self.next_number += 1;
    }

    /// Waits for what comes next, but no longer than until `end_us`. `settle`: tasks may have been
    /// woken since the last call.
    pub async fn next(&mut self, end_us: u64, settle: bool) -> Next<M, E> {
        if settle {
            // Goes on when no task has anything left to do.
            tokio::task::yield_now().await;
        }
        loop {
            let messages = std::mem::take(&mut *self.outside.inbox.lock());
            if !messages.is_empty() {
                return Next::Messages(messages);
            }
            let due_us = self.order.peek().map_or(end_us, |Reverse((at_us, _))| *at_us).min(end_us);
            let due = self.outside.start + Duration::from_millis(due_us / 1_000);
            if Instant::now() >= due {
                self.outside.now_us.fetch_max(due_us, Ordering::Relaxed);
                if due_us >= end_us {
                    return Next::End;
                }
                if let Some(Reverse((_, number))) = self.order.pop()
                    && let Some(event) = self.events.remove(&number)
                {
                    return Next::Event(event);
                }
                continue;
            }
            tokio::select! {
                biased;
                () = self.outside.wake.notified() => {}
                () = sleep_until(due) => {}
            }
        }
    }
}
