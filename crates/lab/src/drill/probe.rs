//! Polls at one instance over one connection, and notes how long each took: on a thread of its own, so that
//! what else the load does is not in the figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock;
use crate::witness::Seconds;

const PER_SECOND: f64 = 50.0;
const PATIENCE: Duration = Duration::from_secs(5);

/// One poll.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probed {
    pub(crate) at: Seconds,
    pub(crate) ms: f64,
    /// 0 where there was no answer.
    pub(crate) status: u16,
}

/// A probe at work.
#[derive(Debug)]
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Probed>>,
}

impl Probe {
    /// Polls with these tokens, one after another.
    pub(crate) fn start(port: u16, tokens: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .timeout_global(Some(PATIENCE))
                .http_status_as_error(false)
                .build()
                .into();
            let url = format!("http://127.0.0.1:{port}/api/v1/waiting-queues");
            let mut polls = Vec::new();
            let mut due = clock::now();
            for token in tokens.iter().cycle() {
                let pause = (due - clock::now()).max(0.0);
                std::thread::sleep(Duration::from_secs_f64(pause));
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                due = (due + 1.0 / PER_SECOND).max(clock::now() - 1.0);
                let at = clock::now();
                let answer = agent.get(&url).header("QUEUE-TOKEN", token).call();
                // The connection is kept only if the answer was read.
                let status = answer.ok().and_then(|mut answer| {
                    answer.body_mut().read_to_vec().ok().map(|_| answer.status().as_u16())
                });
                let ms = (clock::now() - at) * 1e3;
                polls.push(Probed { at, ms, status: status.unwrap_or(0) });
            }
            polls
        });
        Self { stop, thread }
    }

    /// Ends it; returns all polls.
    pub(crate) fn end(self) -> Vec<Probed> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
