//! A real broker for tests, started by `scripts/lib/kafka.py`, on a free port.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may fail like the test")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// One node, which does not outlive the test.
pub(crate) struct Broker {
    directory: TempDir,
    port: u16,
    settings: Vec<String>,
    child: Child,
}

impl Broker {
    /// Starts it with settings of the form `key=value` and waits until it serves.
    #[track_caller]
    pub(crate) fn start(settings: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let settings: Vec<String> = settings.iter().map(|text| (*text).to_owned()).collect();
        let child = spawn(directory.path(), port, &settings);
        let mut broker = Self { directory, port, settings, child };
        broker.wait_ready();
        broker
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on its data.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.directory.path(), self.port, &self.settings);
        self.wait_ready();
    }

    /// Lets it hang: connections stay, and nothing answers.
    pub(crate) fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    pub(crate) fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(90);
        while !self.answers() {
            let log = || std::fs::read_to_string(self.directory.path().join("kafka.log")).unwrap();
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the broker ended ({status}): {}", log());
            }
            assert!(Instant::now() < deadline, "the broker is not ready: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether it answers a client's first request (`ApiVersions`), which it does once it serves.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        // Length 10; request 18 in version 0; number 1; no client id.
        let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
        let mut head = [0; 10];
        stream.write_all(&request).is_ok()
            && stream.read_exact(&mut head).is_ok()
            && head[4..] == [0, 0, 0, 1, 0, 0]
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &Path, port: u16, settings: &[String]) -> Child {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/lib/kafka.py");
    let log = File::options().create(true).append(true).open(directory.join("kafka.log")).unwrap();
    let mut command = Command::new(script);
    command.arg("run").arg("--dir").arg(directory.join("broker"));
    command.arg("--port").arg(port.to_string());
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}
