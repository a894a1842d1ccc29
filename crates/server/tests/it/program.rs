//! What the tests of the real program share: starting and ending it, running its commands, and a
//! client that knows exactly which answers it got.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may fail like the test")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Far beyond what anything here takes; only a test that fails waits as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program with nothing of this process's settings, in a directory without a configuration.
pub(crate) fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boxoffice"));
    shield(&mut command, directory);
    command
}

/// Keeps the settings of whoever runs the tests away from the program.
pub(crate) fn shield(command: &mut Command, directory: &Path) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BOXOFFICE_") {
            command.env_remove(name);
        }
    }
    command.current_dir(directory).stdin(Stdio::null());
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Insists on success and gives the standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Insists on exit code 1 and each of the texts in the error output, without a panic in it.
    #[track_caller]
    pub(crate) fn fails_with(self, texts: &[&str]) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        for text in texts {
            assert!(self.err.contains(text), "{text:?} is missing: {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self.err
    }
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn finish(mut command: Command) -> Ended {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    let out = drain(child.0.stdout.take().unwrap());
    let err = drain(child.0.stderr.take().unwrap());
    let deadline = Instant::now() + 4 * PATIENCE;
    let status = loop {
        match child.0.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(Instant::now() < deadline, "{command:?} does not end"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ended { code: status.code(), out: out.join().unwrap(), err: err.join().unwrap() }
}

/// Reads to the end on a thread of its own, so that no full pipe stops the writer.
fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A process that does not outlive the test.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the program on a data directory.
#[track_caller]
pub(crate) fn run(data: &Path, arguments: &[&str]) -> Ended {
    let mut command = command(beside(data));
    command.args(arguments).arg("--data-dir").arg(data);
    finish(command)
}

/// The nearest directory above, for a data directory that cannot be made too.
fn beside(data: &Path) -> &Path {
    data.ancestors().skip(1).find(|path| path.is_dir()).unwrap()
}

/// A running service.
pub(crate) struct Server {
    child: Killed,
    data: PathBuf,
    address: Option<SocketAddr>,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts the service on a data directory and a free port, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        Self::start_by(command(beside(data)), data, arguments)
    }

    /// The same by a command that has its environment already.
    #[track_caller]
    pub(crate) fn start_by(command: Command, data: &Path, arguments: &[&str]) -> Self {
        let mut server = Self::spawn(command, data, arguments);
        assert!(server.wait_ready(), "the service does not start: {}", server.log());
        server
    }

    /// Starts the service without waiting for it.
    #[track_caller]
    pub(crate) fn spawn(mut command: Command, data: &Path, arguments: &[&str]) -> Self {
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = Killed(command.spawn().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let reader = {
            let (from, log) = (child.0.stderr.take().unwrap(), log.clone());
            std::thread::spawn(move || {
                let mut from = BufReader::new(from);
                let mut line = Vec::new();
                while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
                    log.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            })
        };
        let (data, reader) = (data.to_owned(), Some(reader));
        Self { child, data, address: None, log, reader }
    }

    /// Waits until the service says that it is ready; false where it ended instead.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.0.try_wait().unwrap().is_some();
            let address = self.log().lines().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                let ready = line["message"] == "ready";
                line["server.address"].as_str().filter(|_| ready)?.parse().ok()
            });
            if address.is_some() {
                self.address = address;
                return true;
            }
            if ended {
                return false;
            }
            assert!(Instant::now() < deadline, "the service is not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address.unwrap()
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.0.id()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// What the service has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_none()
    }

    /// Sends a signal to the process, by its id.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(id.unwrap(), signal).unwrap();
    }

    /// Ends it at once, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.0.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "does not end: {}", self.log()),
            }
            std::thread::sleep(Duration::from_millis(3));
        };
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        Ended { code: status.code(), out: String::new(), err: self.log() }
    }

    /// Ends it in good order.
    #[track_caller]
    pub(crate) fn stop(mut self) -> String {
        self.signal(rustix::process::Signal::TERM);
        let ended = self.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        ended.err
    }

    pub(crate) fn admin_token(&self) -> String {
        std::fs::read_to_string(self.data.join("admin.token")).unwrap().trim().to_owned()
    }

    /// The value of a metric; 0 where it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.client().send("GET", "/metrics", &[], None).unwrap().body;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        lines.next().map_or(0.0, |value| value.trim().parse().unwrap())
    }
}

/// An answer that arrived whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error code; empty where there is none.
    pub(crate) fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// A client on one connection. It never repeats a request by itself: an error means that nobody
/// knows whether the request was carried out.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) const fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Asks, and waits for the whole answer.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> io::Result<Answer> {
        // An error leaves no connection behind whose next answer could be this request's.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                BufReader::new(stream)
            }
        };
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: boxoffice\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            let body = body.to_string();
            let length = body.len();
            request.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
        } else {
            request.push_str("\r\n");
        }
        stream.get_mut().write_all(request.as_bytes())?;
        let answer = read_answer(&mut stream)?;
        if answer.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")) {
            self.stream = Some(stream);
        }
        Ok(answer)
    }
}

fn read_answer(stream: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = String::new();
    loop {
        let mut line = String::new();
        let read = stream.read_line(&mut line)?;
        if read == 0 && head.is_empty() {
            // Nothing of an answer came: a connection that was closed while it was idle.
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status: u16 = status.ok_or_else(|| broken("no status"))?;
    let mut answer = Answer { status, head, body: String::new() };
    if answer.header("transfer-encoding").is_some() {
        return Err(broken("this client does not know chunks"));
    }
    let length = answer.header("content-length").map_or(Ok(0), str::parse);
    let length: usize = length.map_err(|_| broken("no length"))?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    answer.body = String::from_utf8(body).map_err(|_| broken("not UTF-8"))?;
    Ok(answer)
}

/// Random numbers that a seed repeats (splitmix64).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) const fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// One of `count` things.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap()
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { Some(&from[self.index(from.len())]) }
    }
}

/// The number in a signed token; none for an opaque one.
pub(crate) fn seq_of(token: &str) -> Option<u64> {
    use base64::Engine;
    let claims = token.strip_prefix("eyJ").and_then(|rest| rest.split('.').nth(1))?;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["seq"].as_u64()
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it does not happen: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
