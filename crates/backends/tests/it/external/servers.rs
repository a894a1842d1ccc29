//! Redis servers of a test's own, on ports and in directories of their own.

// Not every test uses all of it.
#![allow(dead_code)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A port that is free at the moment.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // A node of a cluster also takes the port 10,000 above its own.
        if port < 50_000 {
            return port;
        }
        let port = port - 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A `redis-server` process.
pub(crate) struct Server {
    pub(crate) port: u16,
    arguments: Vec<String>,
    child: Child,
    directory: TempDir,
}

impl Server {
    /// A server that keeps nothing on disk.
    pub(crate) fn start() -> Self {
        Self::with(&["--save", ""])
    }

    /// A server with these arguments.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = Self::spawn(port, &directory, &arguments);
        let server = Self { port, arguments, child, directory };
        server.ready();
        server
    }

    fn spawn(port: u16, directory: &TempDir, arguments: &[String]) -> Child {
        let mut command = Command::new("redis-server");
        if let Some(file) = arguments.first().filter(|word| !word.starts_with("--")) {
            std::fs::write(directory.path().join("server.conf"), file).unwrap();
            command.arg(directory.path().join("server.conf")).args(&arguments[1..]);
        } else {
            command.args(arguments);
        }
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server must be installed; scripts/tools redis-server gets it")
    }

    fn ready(&self) {
        let limit = Instant::now() + Duration::from_secs(10);
        while self.try_ask::<String>(&["PING"]).is_err() {
            assert!(Instant::now() < limit, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn try_ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_millis(500))?;
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }

    /// Asks it something, on a connection for this alone.
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).unwrap()
    }

    /// How many scripts it has run.
    pub(crate) fn calls(&self) -> u64 {
        let text: String = self.ask(&["INFO", "commandstats"]);
        let of = |kind: &str| -> u64 {
            let start = format!("cmdstat_{kind}:calls=");
            let line = text.lines().find_map(|line| line.strip_prefix(start.as_str()));
            line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
        };
        of("evalsha") + of("eval")
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// Starts it again, after it was killed.
    pub(crate) fn restart(&mut self) {
        self.child = Self::spawn(self.port, &self.directory, &self.arguments);
        self.ready();
    }

    /// Stops it without ending it: it is connected and does not answer.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
