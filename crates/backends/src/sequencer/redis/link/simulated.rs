//! A Redis that is simulated in this process, in place of one at the end of a TCP connection.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use redis::{Cmd, RedisError, Value};

/// An answer that comes later, or never.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, RedisError>> + Send>>;

/// What stands for the server, and the way to it.
pub trait Endpoint: Send + Sync {
    /// Makes a connection. Returns its number.
    fn connect(&self) -> Answer<u64>;

    /// Sends a command over a connection. It is executed even where nobody waits for the answer.
    fn call(&self, connection: u64, command: &Cmd) -> Answer<Value>;
}

/// Where a process finds the simulated server.
#[derive(Clone)]
pub struct SimulatedRedis(pub Arc<dyn Endpoint>);

impl fmt::Debug for SimulatedRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedRedis")
    }
}

impl PartialEq for SimulatedRedis {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SimulatedRedis {}

impl SimulatedRedis {
    pub(super) async fn connect(&self) -> Result<Connection, RedisError> {
        let number = self.0.connect().await?;
        Ok(Connection { redis: self.clone(), number })
    }
}

#[derive(Clone)]
pub(super) struct Connection {
    redis: SimulatedRedis,
    number: u64,
}

impl Connection {
    pub(super) async fn call(&self, command: &Cmd) -> Result<Value, RedisError> {
        self.redis.0.call(self.number, command).await
    }
}
