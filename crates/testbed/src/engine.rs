//! A server process that is not ours.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::process::{Process, cpu_seconds, log_to, memory_bytes, mortal_on, tail};
use crate::{http, ports, signals};

const STOP: Duration = Duration::from_secs(30);

/// How to see that a server serves.
#[derive(Clone, Debug)]
pub enum Ready {
    /// It accepts connections on a port.
    Listens(u16),
    /// It answers `PING` of Redis' protocol.
    Redis(u16),
    /// It answers the first request of every Kafka client.
    Kafka(u16),
    /// It greets whoever connects, as MySQL does.
    Mysql(u16),
    /// It answers a URL with 200.
    Http(String),
}

impl Ready {
    fn holds(&self) -> bool {
        match self {
            Self::Listens(port) => ports::listens(*port),
            Self::Redis(port) => said(*port, b"PING\r\n", 5).as_deref() == Some(b"+PONG"),
            // Length 10; request 18 (`ApiVersions`) in version 0; number 1; no client id.
            Self::Kafka(port) => {
                said(*port, &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff], 10)
                    .is_some_and(|head| head[4..] == [0, 0, 0, 1, 0, 0])
            }
            // The fifth byte is the version of the protocol; an error has 255 there.
            Self::Mysql(port) => said(*port, b"", 5).is_some_and(|head| head[4] == 10),
            Self::Http(url) => http::get(url).is_ok_and(|reply| reply.status == 200),
        }
    }
}

/// The first `count` bytes that somebody answers.
fn said(port: u16, request: &[u8], count: usize) -> Option<Vec<u8>> {
    let patience = Duration::from_secs(2);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(request).ok()?;
    let mut head = vec![0; count];
    stream.read_exact(&mut head).ok()?;
    Some(head)
}

/// One server: how it is started, and the process while there is one.
#[derive(Debug)]
pub struct Engine {
    name: String,
    words: Vec<OsString>,
    cpus: Vec<usize>,
    log: PathBuf,
    ready: Ready,
    patience: Duration,
    process: Option<Process>,
}

impl Engine {
    /// Starts a command line and waits until the server serves.
    pub fn start(
        name: &str,
        words: Vec<OsString>,
        cpus: &[usize],
        log: &Path,
        ready: Ready,
    ) -> Result<Self, String> {
        let mut engine = Self {
            name: name.to_owned(),
            words,
            cpus: cpus.to_vec(),
            log: log.to_owned(),
            ready,
            // For the JVM on a busy machine.
            patience: Duration::from_secs(90),
            process: None,
        };
        engine.restart()?;
        Ok(engine)
    }

    /// Starts it again, after a stop or a kill, and waits until it serves.
    pub fn restart(&mut self) -> Result<(), String> {
        let (program, arguments) =
            self.words.split_first().ok_or_else(|| format!("{} has no program", self.name))?;
        let mut command = mortal_on(&self.cpus, Path::new(program));
        command.args(arguments);
        log_to(&mut command, &self.log)?;
        self.process = Some(Process::spawn(&self.name, command)?);
        self.wait_until(&self.ready.clone())
    }

    /// Waits until it serves in a way of its own, once it runs.
    pub fn wait_until(&mut self, ready: &Ready) -> Result<(), String> {
        let until = Instant::now() + self.patience;
        while !ready.holds() {
            if let Some(ended) = self.process.as_mut().and_then(Process::ended) {
                return Err(format!(
                    "{} ended with code {} before it was ready:\n{}",
                    self.name,
                    ended.code,
                    tail(&self.log, 15)
                ));
            }
            if Instant::now() > until {
                return Err(format!(
                    "{} was not ready within {:.0} s:\n{}",
                    self.name,
                    self.patience.as_secs_f64(),
                    tail(&self.log, 15)
                ));
            }
            if signals::stopped() {
                return Err(format!("stopped while {} started", self.name));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Lets it hang: connections stay, and nothing answers (SIGSTOP).
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Asks it to end and waits (SIGTERM).
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::TERM, STOP);
        }
    }

    /// Its process id; none while it does not run.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_running)
    }

    /// CPU seconds of the process.
    pub fn cpu_seconds(&self) -> Option<f64> {
        cpu_seconds(self.id()?)
    }

    /// Memory of the process (`VmRSS`).
    pub fn rss_bytes(&self) -> Option<u64> {
        memory_bytes(self.id()?, "VmRSS")
    }

    /// Where it logs.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Its data goes with it, so there is nothing to tidy up.
        self.kill();
    }
}

/// The words of a command line.
pub(crate) fn words<const N: usize>(all: [&dyn AsRef<std::ffi::OsStr>; N]) -> Vec<OsString> {
    all.into_iter().map(|word| word.as_ref().to_owned()).collect()
}
