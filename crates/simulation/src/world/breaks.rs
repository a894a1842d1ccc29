//! What breaks, and how it is mended.

use std::sync::atomic::Ordering;

use super::World;
use super::message::{Event, Message, Request};
use crate::instance::Ask;
use crate::plan::{Fate, Peer, What};

impl World {
    pub(super) fn plan_faults(&mut self) {
        for number in 0..self.plan.faults.len() {
            let fault = self.plan.faults[number].clone();
            self.timeline.at(fault.from_ms * 1_000, Event::Begins(number));
            if fault.until_ms > fault.from_ms {
                self.timeline.at(fault.until_ms * 1_000, Event::Ends(number));
            }
            let copied_ms = match fault.what {
                What::Restart { age_ms: Some(age_ms) } => Some(age_ms),
                What::Failover { lag_ms } => Some(lag_ms),
                _ => None,
            };
            if let Some(age_ms) = copied_ms {
                let at_ms = fault.from_ms.saturating_sub(age_ms);
                self.timeline.at(at_ms * 1_000, Event::Copied(number));
            }
        }
    }

    pub(super) fn fault_begins(&mut self, number: usize) {
        let fault = self.plan.faults[number].clone();
        self.trace(|| format!("begins: {:?}", fault.what));
        self.unsettled = true;
        if fault.until_ms > fault.from_ms {
            self.active.push(number);
        }
        let bites = match fault.what {
            What::Cut { instances, peer: Peer::Redis, fate: Fate::Refused, .. } => {
                self.redis.disconnect(|instance| instances.has(instance))
            }
            // These bite when a message comes.
            What::Cut { .. } | What::Slow { .. } | What::Twice { .. } => 0,
            What::Flush => self.redis.flush(),
            What::Restart { .. } => {
                self.redis.is_up = false;
                self.redis.disconnect(|_| true)
            }
            What::Failover { .. } => {
                let broken = self.redis.disconnect(|_| true);
                self.redis.restart(number);
                broken
            }
            What::OutOfMemory => {
                self.redis.set_out_of_memory(true);
                1
            }
            What::RedisClock(by_ms) => {
                self.redis.ahead_us += by_ms * 1_000;
                1
            }
            What::StoreClock(by_ms) => {
                self.store_ahead_ms.fetch_add(by_ms, Ordering::Relaxed);
                1
            }
            What::Kill(instance) => {
                let was_up = self.processes[instance].is_up();
                self.kill(instance);
                was_up.into()
            }
            What::Stop(instance) => {
                let process = &self.processes[instance];
                let life = process.life;
                match (&process.gate, &process.instance) {
                    (Some(gate), Some(running)) => {
                        let (outside, running) = (self.outside.clone(), running.clone());
                        gate.spawn(async move {
                            running.stop().await;
                            outside.post(Message::Stopped(instance, life));
                        });
                        1
                    }
                    _ => 0,
                }
            }
            What::Pause(instance) => {
                let process = &self.processes[instance];
                if let Some(gate) = &process.gate {
                    gate.pause();
                }
                process.is_up().into()
            }
            What::Clock(instance, by_ms) => {
                self.processes[instance].ahead_ms.fetch_add(by_ms, Ordering::Relaxed);
                self.processes[instance].is_up().into()
            }
            What::Change(instance, change) => {
                self.last_request += 1;
                let request = Request {
                    fan: None,
                    ask: Ask::Change(change),
                    instance,
                    life: 0,
                    asked_us: self.now_us(),
                    arrived: false,
                };
                self.requests.insert(self.last_request, request);
                self.request_arrives(self.last_request);
                1
            }
        };
        self.bites[number] += bites;
    }

    pub(super) fn fault_ends(&mut self, number: usize) {
        let fault = self.plan.faults[number].clone();
        self.trace(|| format!("ends: {:?}", fault.what));
        self.unsettled = true;
        self.active.retain(|active| *active != number);
        match fault.what {
            What::Cut { .. } | What::Slow { .. } => {
                let held = std::mem::take(&mut self.held);
                let mut wait_us = 0;
                for (of, event) in held {
                    if of == number {
                        // In the order in which they were sent.
                        wait_us += self.network_dice.between(10, 200);
                        let at_us = self.now_us() + wait_us;
                        self.timeline.at(at_us, event);
                    } else {
                        self.held.push((of, event));
                    }
                }
            }
            What::Restart { .. } => self.redis.restart(number),
            What::OutOfMemory => self.redis.set_out_of_memory(false),
            What::StoreClock(by_ms) => {
                self.store_ahead_ms.fetch_sub(by_ms, Ordering::Relaxed);
            }
            What::Kill(instance) | What::Stop(instance) => {
                self.timeline.at(0, Event::Start(instance));
            }
            What::Pause(instance) => {
                let waited = self.resume(instance);
                self.bites[number] += waited;
            }
            What::Flush
            | What::Failover { .. }
            | What::Twice { .. }
            | What::RedisClock(_)
            | What::Clock(..)
            | What::Change(..) => {}
        }
    }
}
