//! What the instances say of themselves, once a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use testbed::http::{get, metric_of};

use crate::clock;
use crate::witness::Seconds;

/// One look at all instances.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Look {
    pub(crate) at: Seconds,
    /// The lowest part of its rate that any instance says to admit.
    pub(crate) share: Option<f64>,
    /// How many wait.
    pub(crate) waiting: Option<f64>,
    /// Requests that each instance has answered since its start.
    pub(crate) answered: BTreeMap<String, f64>,
}

/// Names and ports of instances that may run.
pub(crate) type Ports = Vec<(String, u16)>;

/// Looks until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    looks: Arc<Mutex<Vec<Look>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Looks at instances from now on.
    pub(crate) fn start(ports: Ports) -> Self {
        let (looks, ends) = (Arc::<Mutex<Vec<Look>>>::default(), Arc::new(AtomicBool::new(false)));
        let (kept, over) = (looks.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            let mut next = clock::now();
            while !over.load(Ordering::Relaxed) {
                let look = look(&ports);
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(look);
                next = (next + 1.0).max(clock::now());
                while clock::now() < next && !over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { looks, ends, thread: Some(thread) }
    }

    /// What was seen so far.
    pub(crate) fn looks(&self) -> Vec<Look> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look(ports: &Ports) -> Look {
    let mut look = Look { at: clock::now(), ..Look::default() };
    for (label, port) in ports {
        let Ok(reply) = get(&format!("http://127.0.0.1:{port}/metrics")) else { continue };
        let metric = |name: &str| metric_of(&reply.body, name, "");
        let share = metric("boxoffice_governor_share");
        look.share = look.share.into_iter().chain(share).reduce(f64::min);
        look.waiting = metric("boxoffice_queue_waiting").or(look.waiting);
        let answered = metric("http_server_request_duration_seconds_count").unwrap_or(0.0);
        look.answered.insert(label.clone(), answered);
    }
    look
}
