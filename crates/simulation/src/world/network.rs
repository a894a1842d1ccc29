//! The ways between instances and servers, and the servers at their ends.

use std::collections::BTreeMap;
use std::io;

use boxoffice_backends::Fault;
use boxoffice_backends::simulation::{Answer as Later, Endpoint, Errand, Reply, Road};
use redis::{Cmd, RedisError, Value};
use tokio::sync::oneshot;

use super::message::{Answer, Event, Message};
use super::{Call, World};
use crate::digest::Digest;
use crate::plan::{Fate, Peer, Way, What};
use crate::redis::{Data, Server};
use crate::timeline::{EPOCH_MS, Outside};

/// The server, and connections to it.
pub(super) struct Redis {
    server: Server,
    pub(super) is_up: bool,
    pub(super) ahead_us: i64,
    connections: BTreeMap<u64, Connection>,
    last_connection: u64,
    copies: BTreeMap<usize, Data>,
    identity: u64,
}

struct Connection {
    instance: usize,
    life: u64,
    /// When the last message arrived there, and back: none overtakes another.
    there_us: u64,
    back_us: u64,
}

impl Redis {
    pub(super) fn new(seed: u64) -> mlua::Result<Self> {
        Ok(Self {
            server: Server::new(seed)?,
            is_up: true,
            ahead_us: 0,
            connections: BTreeMap::new(),
            last_connection: 0,
            copies: BTreeMap::new(),
            identity: seed,
        })
    }

    /// Keeps a copy of the data as it is now.
    pub(super) fn copy(&mut self, fault: usize) {
        self.copies.insert(fault, self.server.snapshot());
    }

    /// Breaks connections; returns how many.
    pub(super) fn disconnect(&mut self, which: impl Fn(usize) -> bool) -> u64 {
        let before = self.connections.len();
        self.connections.retain(|_, connection| !which(connection.instance));
        (before - self.connections.len()) as u64
    }

    /// Starts the server anew with the copy that was made for a fault, or with nothing.
    pub(super) fn restart(&mut self, fault: usize) {
        self.identity = crate::random::mix(self.identity.wrapping_add(1));
        let data = self.copies.remove(&fault).unwrap_or_default();
        // What worked before works again.
        let _ = self.server.restart(self.identity, data);
        self.is_up = true;
    }

    pub(super) fn flush(&mut self) -> u64 {
        let keys = self.server.keys();
        let _ = self.server.execute(&[b"FLUSHALL"], 0);
        keys
    }

    pub(super) fn set_out_of_memory(&self, out: bool) {
        self.server.set_out_of_memory(out);
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        self.server.digest(digest);
    }
}

/// The end of the way to Redis that an instance has.
pub(super) struct ToRedis {
    pub(super) outside: std::sync::Arc<Outside<Message>>,
    pub(super) instance: usize,
    pub(super) life: u64,
}

impl Endpoint for ToRedis {
    fn connect(&self) -> Later<u64> {
        let (reply, answer) = oneshot::channel();
        self.outside.post(Message::Connect { instance: self.instance, life: self.life, reply });
        Box::pin(await_answer(answer))
    }

    fn call(&self, connection: u64, command: &Cmd) -> Later<Value> {
        let (reply, answer) = oneshot::channel();
        let words = command
            .args_iter()
            .map(|word| match word {
                redis::Arg::Simple(word) => word.to_vec(),
                _ => Vec::new(),
            })
            .collect();
        self.outside.post(Message::Call { connection, words, reply });
        Box::pin(await_answer(answer))
    }
}

/// An answer that is lost never comes.
async fn await_answer<T>(
    answer: oneshot::Receiver<Result<T, RedisError>>,
) -> Result<T, RedisError> {
    match answer.await {
        Ok(answer) => answer,
        Err(_) => std::future::pending().await,
    }
}

/// The end of the way to the store that an instance has.
pub(super) struct ToStore {
    pub(super) outside: std::sync::Arc<Outside<Message>>,
    pub(super) instance: usize,
    pub(super) life: u64,
}

impl Road for ToStore {
    fn carry(&self, errand: Errand) {
        self.outside.post(Message::Errand { instance: self.instance, life: self.life, errand });
    }
}

fn broken() -> RedisError {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection is broken").into()
}

fn refused() -> RedisError {
    io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused").into()
}

/// What becomes of a message.
enum Passage {
    /// It arrives at this time.
    At(u64),
    Lost,
    /// It waits for the end of this fault.
    Late(usize),
    Refused,
}

impl World {
    fn passage(&mut self, instance: usize, peer: Peer, there: bool) -> Passage {
        let latency = self.plan.latency_us[usize::from(peer == Peer::Store)];
        let mut wait_us = self.network_dice.between(latency.0 / 2, latency.1 / 2);
        for fault in &self.active {
            match &self.plan.faults[*fault].what {
                What::Cut { instances, peer: with, way, fate }
                    if *with == peer && instances.has(instance) =>
                {
                    let stops = match way {
                        Way::Both => true,
                        Way::To => there,
                        Way::Back => !there,
                    };
                    if stops {
                        self.bites[*fault] += 1;
                        return match fate {
                            Fate::Lost => Passage::Lost,
                            Fate::Late => Passage::Late(*fault),
                            Fate::Refused => Passage::Refused,
                        };
                    }
                }
                What::Slow { instances, peer: with, there_ms, back_ms }
                    if *with == peer && instances.has(instance) =>
                {
                    let (low, high) = if there { *there_ms } else { *back_ms };
                    if high > 0 {
                        self.bites[*fault] += 1;
                        wait_us += self.network_dice.between(low * 1_000, high * 1_000);
                    }
                }
                _ => {}
            }
        }
        Passage::At(self.now_us() + wait_us)
    }

    /// A message that is in order of a connection arrives no earlier than the one before it.
    fn in_order(&mut self, connection: u64, there: bool, at_us: u64) -> u64 {
        let Some(connection) = self.redis.connections.get_mut(&connection) else { return at_us };
        let last = if there { &mut connection.there_us } else { &mut connection.back_us };
        *last = at_us.max(*last + 1);
        *last
    }

    pub(super) fn connects(&mut self, instance: usize, life: u64, reply: Answer<u64>) {
        match self.passage(instance, Peer::Redis, true) {
            Passage::At(at_us) => {
                self.timeline.at(at_us, Event::Connected { instance, life, reply });
            }
            // Whoever connects waits, and tries again.
            Passage::Lost | Passage::Late(_) => {}
            Passage::Refused => {
                let _ = reply.send(Err(refused()));
            }
        }
    }

    pub(super) fn calls(&mut self, connection: u64, words: Vec<Vec<u8>>, reply: Answer<Value>) {
        let Some(instance) = self.redis.connections.get(&connection).map(|open| open.instance)
        else {
            let _ = reply.send(Err(broken()));
            return;
        };
        match self.passage(instance, Peer::Redis, true) {
            Passage::At(at_us) => {
                let at_us = self.in_order(connection, true, at_us);
                if let Some(within_ms) = self.repeats(instance) {
                    let later_us = at_us + self.network_dice.between(1, within_ms * 1_000);
                    self.timeline.at(later_us, Event::CallRepeated { words: words.clone() });
                }
                self.timeline.at(at_us, Event::CallArrives { connection, words, reply });
            }
            Passage::Lost => {}
            Passage::Late(fault) => {
                self.held.push((fault, Event::CallArrives { connection, words, reply }));
            }
            Passage::Refused => {
                let _ = reply.send(Err(broken()));
            }
        }
    }

    /// Within how many milliseconds a command of an instance comes again, if it does.
    fn repeats(&mut self, number: usize) -> Option<u64> {
        let within = |fault: &usize| match &self.plan.faults[*fault].what {
            What::Twice { instances, within_ms } if instances.has(number) => {
                Some((*fault, *within_ms))
            }
            _ => None,
        };
        let (fault, within_ms) = self.active.iter().find_map(within)?;
        self.bites[fault] += 1;
        Some(within_ms)
    }

    /// The time that the server has, in microseconds since 1970.
    fn redis_us(&self) -> u64 {
        (EPOCH_MS as u64 * 1_000 + self.now_us()).saturating_add_signed(self.redis.ahead_us)
    }

    pub(super) fn sends(&mut self, instance: usize, life: u64, errand: Errand) {
        match self.passage(instance, Peer::Store, true) {
            Passage::At(at_us) => {
                self.timeline.at(at_us, Event::ErrandArrives { instance, life, errand });
            }
            Passage::Lost => {}
            Passage::Late(fault) => {
                self.held.push((fault, Event::ErrandArrives { instance, life, errand }));
            }
            Passage::Refused => {
                let fault = Fault::Unavailable("the database refuses connections".into());
                tokio::spawn(errand.refuse(fault));
            }
        }
    }

    pub(super) fn executed(&mut self, instance: usize, life: u64, reply: Reply) {
        // Nobody hears what is said to the dead.
        if self.processes[instance].life != life {
            return;
        }
        match self.passage(instance, Peer::Store, false) {
            Passage::At(at_us) => self.timeline.at(at_us, Event::ErrandReturns { reply }),
            Passage::Lost => {}
            Passage::Late(fault) => self.held.push((fault, Event::ErrandReturns { reply })),
            Passage::Refused => {
                reply.replace(Fault::OutcomeUnknown("the connection broke".into()));
            }
        }
    }

    pub(super) fn arrives(&mut self, event: Event) {
        self.unsettled = true;
        match event {
            Event::Connected { instance, life, reply } => {
                if !self.redis.is_up || self.processes[instance].life != life {
                    let _ = reply.send(Err(refused()));
                    return;
                }
                self.redis.last_connection += 1;
                let number = self.redis.last_connection;
                let connection = Connection { instance, life, there_us: 0, back_us: 0 };
                self.redis.connections.insert(number, connection);
                self.trace(|| format!("{instance} connected to redis"));
                let _ = reply.send(Ok(number));
            }
            Event::CallArrives { connection, words, reply } => {
                self.call_arrives(connection, words, reply);
            }
            Event::CallRepeated { words } => {
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                if self.redis.is_up {
                    let server_us = self.redis_us();
                    let answer = self.redis.server.execute(&words, server_us);
                    digest_value(&mut self.digest, &answer);
                }
            }
            Event::CallReturns { connection, answer, reply } => {
                let is_open = self.redis.connections.contains_key(&connection);
                let _ = reply.send(if is_open { Ok(answer) } else { Err(broken()) });
            }
            Event::ErrandArrives { instance, life, errand } => {
                let outside = self.outside.clone();
                let operation = errand.operation;
                tokio::spawn(async move {
                    let reply = errand.run().await;
                    outside.post(Message::Executed { instance, life, operation, reply });
                });
            }
            Event::ErrandReturns { reply } => reply.deliver(),
            _ => {}
        }
    }

    fn call_arrives(&mut self, number: u64, words: Vec<Vec<u8>>, reply: Answer<Value>) {
        let open = self.redis.connections.get(&number).map(|open| (open.instance, open.life));
        let Some((instance, life)) = open.filter(|_| self.redis.is_up) else {
            let _ = reply.send(Err(broken()));
            return;
        };
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let now_us = self.now_us();
        let server_us = self.redis_us();
        self.counts.redis_calls += 1;
        self.digest.number(now_us);
        words.iter().for_each(|word| self.digest.bytes(word));
        let answer = self.redis.server.execute(&words, server_us);
        digest_value(&mut self.digest, &answer);
        if self.plan.records {
            self.calls.push(Call {
                at_us: now_us,
                words: words.iter().map(|word| word.to_vec()).collect(),
                answer: answer.clone(),
            });
        }
        if self.traces {
            let asked: Vec<_> =
                words[2..].iter().map(|word| String::from_utf8_lossy(word)).collect();
            self.trace(|| format!("{instance} redis {} -> {}", asked.join(" "), shown(&answer)));
        }
        if self.processes[instance].life != life {
            return;
        }
        match self.passage(instance, Peer::Redis, false) {
            Passage::At(at_us) => {
                let at_us = self.in_order(number, false, at_us);
                self.timeline.at(at_us, Event::CallReturns { connection: number, answer, reply });
            }
            Passage::Lost => {}
            Passage::Late(fault) => {
                let event = Event::CallReturns { connection: number, answer, reply };
                self.held.push((fault, event));
            }
            Passage::Refused => {
                let _ = reply.send(Err(broken()));
            }
        }
    }
}

fn digest_value(digest: &mut Digest, value: &Value) {
    match value {
        Value::Int(number) => digest.number(number.unsigned_abs()),
        Value::BulkString(bytes) => digest.bytes(bytes),
        Value::Array(parts) => parts.iter().for_each(|part| digest_value(digest, part)),
        _ => digest.number(1),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Array(parts) => {
            let parts: Vec<_> = parts.iter().map(shown).collect();
            format!("[{}]", parts.join(" "))
        }
        other => format!("{other:?}"),
    }
}
