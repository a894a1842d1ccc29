//! The gate through which all tasks of a simulated process are polled.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

tokio::task_local! {
    static CURRENT: Gate;
}

/// A process in a simulation: whatever is spawned by one of its tasks belongs to it too.
#[derive(Clone)]
pub struct Gate(Arc<Mutex<State>>);

struct State {
    mode: Mode,
    /// Whom to poll once the process goes on.
    waiting: Vec<Waker>,
    dice: u64,
    /// How often, of 256 times, a task that could be polled has to let others go first.
    yields: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Running,
    Paused,
    Killed,
}

enum Turn {
    Now,
    Later,
    Never,
}

impl Gate {
    /// A process that runs. `seed` decides the order in which tasks are polled that could be polled at
    /// the same time; of 256 times each of them goes to the end of the line `yields` times.
    pub fn new(seed: u64, yields: u8) -> Self {
        let state = State { mode: Mode::Running, waiting: Vec::new(), dice: seed, yields };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The process of the current task, where it belongs to one.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Spawns a task of this process. It never ends where the process is killed before.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        tokio::spawn(Gated { gate: self.clone(), work: Some(Box::pin(work)) })
    }

    /// Stops all tasks. Time goes on.
    pub fn pause(&self) {
        let mut state = self.0.lock();
        if state.mode == Mode::Running {
            state.mode = Mode::Paused;
        }
    }

    /// Lets the tasks go on after a pause.
    pub fn resume(&self) {
        let waiting = {
            let mut state = self.0.lock();
            if state.mode == Mode::Paused {
                state.mode = Mode::Running;
            }
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ends the process as a power cut does: no task of it does anything any more.
    pub fn kill(&self) {
        let waiting = {
            let mut state = self.0.lock();
            state.mode = Mode::Killed;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether it was killed.
    pub fn is_killed(&self) -> bool {
        self.0.lock().mode == Mode::Killed
    }

    /// Whether it runs, and is not paused.
    pub fn is_running(&self) -> bool {
        self.0.lock().mode == Mode::Running
    }

    fn turn(&self, context: &Context<'_>) -> Turn {
        let mut state = self.0.lock();
        match state.mode {
            Mode::Killed => Turn::Never,
            Mode::Paused => {
                state.waiting.push(context.waker().clone());
                Turn::Later
            }
            Mode::Running if state.yields == 0 => Turn::Now,
            Mode::Running => {
                // A generator of Weyl numbers, mixed: it need not be better than that.
                state.dice = state.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (state.dice ^ (state.dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                if (mixed >> 56) < u64::from(state.yields) {
                    context.waker().wake_by_ref();
                    Turn::Later
                } else {
                    Turn::Now
                }
            }
        }
    }
}

struct Gated<F> {
    gate: Gate,
    work: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match self.gate.turn(context) {
            Turn::Now => {}
            Turn::Later => return Poll::Pending,
            Turn::Never => {
                self.work = None;
                return Poll::Pending;
            }
        }
        let gate = self.gate.clone();
        let Some(work) = &mut self.work else { return Poll::Pending };
        CURRENT.sync_scope(gate, || work.as_mut().poll(context))
    }
}
