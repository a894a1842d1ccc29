//! Instances as processes: started, paused, killed, stopped, and the requests that they answer.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use boxoffice_backends::Fault;
use boxoffice_backends::simulation::{Distant, Gate};
use boxoffice_backends::store::Store;
use boxoffice_domain::sales::Limits;

use super::World;
use super::message::{Event, Message};
use super::network::{ToRedis, ToStore};
use crate::check::Fact;
use crate::instance::{Ahead, Ask, Instance, Start, Told};
use crate::plan::What;

/// An answer of the store that does not come within this time does not come: the time-out of whoever
/// connects to a database.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// One that could not start is started again after this.
const RESTART: Duration = Duration::from_secs(1);

/// A process.
pub(super) struct Process {
    pub(super) gate: Option<Gate>,
    pub(super) life: u64,
    pub(super) instance: Option<Arc<Instance>>,
    pub(super) ahead_ms: Ahead,
    /// Requests that wait while it is paused.
    waiting: Vec<u64>,
}

impl Process {
    pub(super) fn new(ahead_ms: i64) -> Self {
        Self {
            gate: None,
            life: 0,
            instance: None,
            ahead_ms: Arc::new(AtomicI64::new(ahead_ms)),
            waiting: Vec::new(),
        }
    }

    pub(super) const fn is_up(&self) -> bool {
        self.gate.is_some()
    }

    pub(super) fn is_running(&self) -> bool {
        self.gate.as_ref().is_some_and(Gate::is_running)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_running() && self.instance.as_ref().is_some_and(|instance| instance.is_ready())
    }
}

impl World {
    pub(super) fn start(&mut self, number: usize) {
        self.trace(|| format!("{number} is started"));
        let yields = self.plan.yields;
        let (outside, now) = (self.outside.clone(), self.now());
        let process = &mut self.processes[number];
        process.life += 1;
        let life = process.life;
        let seed = crate::random::mix(self.plan.seed ^ (number as u64) << 32 ^ life);
        let gate = Gate::new(seed, yields);
        process.gate = Some(gate.clone());
        let road = Arc::new(ToStore { outside: outside.clone(), instance: number, life });
        let Some(store) = Distant::new(self.store.clone(), road, STORE_PATIENCE) else { return };
        let start = Start {
            number,
            life,
            store: Store::Distant(store),
            redis: Arc::new(ToRedis { outside: outside.clone(), instance: number, life }),
            queue: self.plan.queue.clone(),
            sale_rules: self.plan.sale_rules,
            call_timeout: self.plan.call_timeout,
            turn: self.plan.turn,
            limits: Limits {
                hold: self.plan.hold,
                seats_per_reservation_max: 4,
                seats_per_user_max: 4,
                live_holds_max: 1,
                holds_per_ticket_max: 20,
                no_orphans: false,
            },
            now,
            ahead_ms: process.ahead_ms.clone(),
            sink: {
                let outside = outside.clone();
                Arc::new(move |events| outside.post(Message::Relayed(events)))
            },
        };
        gate.spawn(async move {
            let opened = Instance::open(start).await;
            outside.post(Message::Opened(number, life, opened));
        });
        self.unsettled = true;
    }

    pub(super) fn opened(
        &mut self,
        number: usize,
        life: u64,
        opened: Result<Arc<Instance>, Fault>,
    ) {
        if self.processes[number].life != life {
            return;
        }
        match opened {
            Ok(instance) => {
                self.trace(|| format!("{number} runs"));
                self.processes[number].instance = Some(instance);
            }
            Err(fault) => {
                self.trace(|| format!("{number} could not start: {fault}"));
                self.kill(number);
                self.soon(RESTART, Event::Start(number));
            }
        }
    }

    pub(super) fn stopped(&mut self, number: usize, life: u64) {
        if self.processes[number].life == life {
            self.trace(|| format!("{number} has stopped"));
            self.kill(number);
            // Where it took longer than it should be away.
            self.soon(RESTART, Event::Start(number));
        }
    }

    /// Starts a process that is to run and does not.
    pub(super) fn start_if_due(&mut self, number: usize) {
        let keeps_down = |fault: &usize| match self.plan.faults[*fault].what {
            What::Kill(instance) | What::Stop(instance) => instance == number,
            _ => false,
        };
        if !self.processes[number].is_up() && !self.active.iter().any(keeps_down) {
            self.start(number);
        }
    }

    /// Ends a process at once.
    pub(super) fn kill(&mut self, number: usize) {
        let process = &mut self.processes[number];
        if let Some(gate) = process.gate.take() {
            gate.kill();
        }
        process.instance = None;
        process.waiting.clear();
        // Answers to it that are on their way are for nobody.
        process.life += 1;
        self.redis.disconnect(|instance| instance == number);
        let broken: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, request)| request.instance == number && request.arrived)
            .map(|(request, _)| *request)
            .collect();
        for request in broken {
            self.soon(Duration::from_millis(1), Event::ResponseArrives(request, Told::Broken));
        }
        self.unsettled = true;
    }

    /// Lets a paused process go on. Returns how many requests have waited.
    pub(super) fn resume(&mut self, number: usize) -> u64 {
        let process = &mut self.processes[number];
        if let Some(gate) = &process.gate {
            gate.resume();
        }
        let waiting = std::mem::take(&mut process.waiting);
        let count = waiting.len() as u64;
        waiting.into_iter().for_each(|request| self.request_arrives(request));
        self.unsettled = true;
        count
    }

    // ---- requests ----

    pub(super) fn request_arrives(&mut self, number: u64) {
        let Some(request) = self.requests.get_mut(&number) else { return };
        let process = &mut self.processes[request.instance];
        request.arrived = true;
        request.life = process.life;
        let listening = process.instance.clone().filter(|instance| instance.listens());
        let Some((gate, instance)) = process.gate.as_ref().zip(listening) else {
            self.soon(Duration::from_micros(300), Event::ResponseArrives(number, Told::Broken));
            return;
        };
        if !gate.is_running() {
            process.waiting.push(number);
            return;
        }
        if let Ask::Poll(ticket) = &request.ask {
            // It reads memory only, so nothing can come between its beginning and its end.
            let told = instance.poll(ticket);
            self.answered(number, told);
            return;
        }
        let (ask, outside) = (request.ask.clone(), self.outside.clone());
        gate.spawn(async move {
            let told = instance.answer(ask).await;
            outside.post(Message::Answered(number, told));
        });
        self.unsettled = true;
    }

    /// An instance has answered.
    pub(super) fn answered(&mut self, number: u64, told: Told) {
        let Some(request) = self.requests.get(&number) else { return };
        let (fan, instance, asked_us) = (request.fan, request.instance, request.asked_us);
        if let (Some(fan), Told::Joined(ticket, ..)) = (fan, &told) {
            self.counts.joins += 1;
            self.counts.highest = self.counts.highest.max(ticket.seq);
            self.digest.number(ticket.seq);
            let (fan, seq) = (fan, ticket.seq);
            self.trace(|| format!("{instance} gave fan {fan} number {seq}"));
            let database = self.database_now();
            self.fact(&Fact::Numbered { fan, seq, asked_us, instance, database });
        }
        let (low, high) = self.plan.latency_us[2];
        let wait_us = self.network_dice.between(low / 2, high / 2);
        self.soon(Duration::from_micros(wait_us), Event::ResponseArrives(number, told));
    }
}
