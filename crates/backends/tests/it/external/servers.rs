//! Redis servers of a test's own: those of the testbed, with answers that have types.

// Not every test uses all of it.
#![allow(dead_code)]

use std::time::Duration;

use testbed::{RedisServer, Workdir};

/// A `redis-server` process, which does not outlive the test.
pub(crate) struct Server {
    pub(crate) port: u16,
    server: RedisServer,
    _directory: Workdir,
}

impl Server {
    /// A server that keeps nothing on disk.
    pub(crate) fn start() -> Self {
        Self::with(&["--save", ""])
    }

    /// A server with these arguments; the first may be the text of a configuration.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let directory = Workdir::temporary().unwrap();
        let server = match arguments.split_first() {
            Some((text, rest)) if !text.starts_with("--") => {
                RedisServer::configured(directory.path(), &[], text, rest)
            }
            _ => RedisServer::start(directory.path(), &[], arguments),
        };
        let server = server.unwrap();
        Self { port: server.port, server, _directory: directory }
    }

    /// Asks it something, on a connection for this alone.
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let connection = client.get_connection_with_timeout(Duration::from_millis(500));
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection.unwrap()).unwrap()
    }

    /// How many scripts it has run.
    pub(crate) fn calls(&self) -> u64 {
        let calls = self.server.calls().unwrap();
        ["evalsha", "eval"].into_iter().filter_map(|name| calls.get(name)).sum()
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.server.engine.kill();
    }

    /// Starts it again, after it was killed.
    pub(crate) fn restart(&mut self) {
        self.server.engine.restart().unwrap();
    }

    /// Stops it without ending it: it is connected and does not answer.
    pub(crate) fn freeze(&self) {
        self.server.engine.freeze();
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.server.engine.thaw();
    }
}
