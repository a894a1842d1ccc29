//! What tasks send to the world, and what happens in it.

use std::sync::Arc;

use boxoffice_backends::Fault;
use boxoffice_backends::simulation::{Errand, Reply};
use redis::{RedisError, Value};
use tokio::sync::oneshot;

use crate::instance::{Ask, Instance, Told};

pub(super) type Answer<T> = oneshot::Sender<Result<T, RedisError>>;

/// From a task. Instances are told apart by number and by life: how often they were started before.
pub(super) enum Message {
    /// An instance runs, or could not be started.
    Opened(usize, u64, Result<Arc<Instance>, Fault>),
    /// An instance has ended in good order.
    Stopped(usize, u64),
    /// A request has its answer.
    Answered(u64, Told),
    /// The store has executed an operation.
    Executed { instance: usize, life: u64, operation: &'static str, reply: Reply },
    /// Events for the sink: the id, the key, the event.
    Relayed(Vec<(i64, i64, String)>),
    /// To Redis.
    Connect { instance: usize, life: u64, reply: Answer<u64> },
    /// A command to Redis.
    Call { connection: u64, words: Vec<Vec<u8>>, reply: Answer<Value> },
    /// An operation to the store.
    Errand { instance: usize, life: u64, errand: Errand },
}

/// At a time.
pub(super) enum Event {
    /// The checkers look at the store.
    Look,
    /// The balancer asks who is ready.
    Probe,
    /// An instance is started.
    Start(usize),
    /// A fan does something.
    Wakes(usize),
    /// A fan waits no longer for an answer.
    GivesUp(u64),
    RequestArrives(u64),
    ResponseArrives(u64, Told),
    /// A fault of the plan.
    Begins(usize),
    Ends(usize),
    /// A copy of the data of Redis is made, for this fault.
    Copied(usize),
    Connected {
        instance: usize,
        life: u64,
        reply: Answer<u64>,
    },
    CallArrives {
        connection: u64,
        words: Vec<Vec<u8>>,
        reply: Answer<Value>,
    },
    /// A command comes a second time; nobody waits for the answer.
    CallRepeated {
        words: Vec<Vec<u8>>,
    },
    CallReturns {
        connection: u64,
        answer: Value,
        reply: Answer<Value>,
    },
    ErrandArrives {
        instance: usize,
        life: u64,
        errand: Errand,
    },
    ErrandReturns {
        reply: Reply,
    },
}

/// What a fan has asked.
pub(super) struct Request {
    pub(super) fan: Option<usize>,
    pub(super) ask: Ask,
    pub(super) instance: usize,
    pub(super) life: u64,
    pub(super) asked_us: u64,
    /// Whether it has reached the instance.
    pub(super) arrived: bool,
}
