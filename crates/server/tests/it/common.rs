//! A whole service in the test's process, and a client that looks closely at every answer.
//!
//! The client speaks HTTP by hand over a real socket, because a library would hide what a test of
//! the wire wants to see: the bytes, when they are sent, and when the connection ends.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may fail like the test")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use boxoffice::config::{Config, Secret, StoreKind};
use boxoffice::http::problem::ErrorCode;
use boxoffice::service::{Service, StartError};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The admin token of every test service.
pub(crate) const ADMIN: &str = "the-admin-token-of-the-tests";
/// How long anything that must happen may take. Far beyond what it takes, for slow machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A moment that is over.
pub(crate) const PAST: &str = "2001-01-01T00:00:00Z";
/// A moment to come.
pub(crate) const FUTURE: &str = "2099-01-01T00:00:00+09:00";
/// What a balance holds at the most.
pub(crate) const BALANCE_MAX: i64 = (1 << 53) - 1;

/// An asset of the pages, by an address of another version.
pub(crate) const ICON: &str = "icon-0123456789abcdef.svg";

/// What [`Client::read`] says of an answer that was begun and not ended.
pub(crate) const ENDS_EARLY: &str = "the answer ends early";

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Option<Vec<u8>>,
}

impl Call {
    pub(crate) fn new(method: &str, path: impl Into<String>) -> Self {
        Self { method: method.to_owned(), path: path.into(), headers: Vec::new(), body: None }
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("QUEUE-TOKEN", token)
    }

    pub(crate) fn admin(self) -> Self {
        self.header("Authorization", format!("Bearer {ADMIN}"))
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("Idempotency-Key", key)
    }

    pub(crate) fn json(self, body: Value) -> Self {
        self.text(body.to_string())
    }

    /// A body that claims to be JSON, whatever it is.
    pub(crate) fn text(self, body: impl Into<Vec<u8>>) -> Self {
        let mut call = self.header("Content-Type", "application/json");
        call.body = Some(body.into());
        call
    }

    /// The request as bytes. A body without a length of its own gets one.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("{} {} HTTP/1.1\r\nHost: test\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        if let Some(body) = &self.body {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

pub(crate) fn get(path: impl Into<String>) -> Call {
    Call::new("GET", path)
}

pub(crate) fn post(path: impl Into<String>) -> Call {
    Call::new("POST", path)
}

pub(crate) fn patch(path: impl Into<String>) -> Call {
    Call::new("PATCH", path)
}

pub(crate) fn delete(path: impl Into<String>) -> Call {
    Call::new("DELETE", path)
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What the bytes read so far are.
pub(crate) enum Parsed {
    /// The beginning of an answer.
    Part,
    /// An answer, and how many bytes it took.
    Whole(Reply, usize),
    /// Nothing that HTTP knows.
    Broken(String),
}

impl Reply {
    /// Reads an answer from the start of `bytes`. The answer to `HEAD` has no body.
    pub(crate) fn parse(bytes: &[u8], to_head: bool) -> Parsed {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return if bytes.len() > 64 * 1024 {
                Parsed::Broken("a head without an end".into())
            } else {
                Parsed::Part
            };
        };
        let broken = |why: &str| {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            Parsed::Broken(format!("{why}: {head:?}"))
        };
        let Ok(head) = std::str::from_utf8(&bytes[..end]) else { return broken("not text") };
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let Some(status) = status_line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| status_line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3))
            .and_then(|status| status.parse::<u16>().ok())
        else {
            return broken("no status line");
        };
        let mut headers = Vec::new();
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { return broken("no header") };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Self { status, headers, body: Vec::new() };
        let rest = &bytes[end + 4..];
        if to_head || status < 200 || status == 204 || status == 304 {
            return Parsed::Whole(reply, end + 4);
        }
        if reply.is_stream() {
            return Parsed::Whole(reply, bytes.len());
        }
        let Some(length) = reply.header("content-length") else { return broken("no length") };
        let Ok(length) = length.parse::<usize>() else { return broken("a wrong length") };
        if rest.len() < length {
            return Parsed::Part;
        }
        reply.body = rest[..length].to_vec();
        Parsed::Whole(reply, end + 4 + length)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} comes twice");
        value
    }

    /// Whether it is a stream, whose end nobody waits for: the head is all of it here, and the client hangs up.
    pub(crate) fn is_stream(&self) -> bool {
        self.header("content-type") == Some("text/event-stream")
    }

    pub(crate) fn closes(&self) -> bool {
        self.is_stream()
            || self.headers.iter().any(|(name, value)| {
                name == "connection" && value.to_ascii_lowercase().contains("close")
            })
    }

    #[track_caller]
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the body of {self}"))
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub(crate) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self}");
        self.value()
    }

    /// An answer with this status and no body.
    #[track_caller]
    pub(crate) fn empty(&self, status: u16) {
        assert_eq!(self.status, status, "{self}");
        assert!(self.body.is_empty(), "{self}");
    }

    /// The problem document of a refusal with this code.
    #[track_caller]
    pub(crate) fn refused(&self, code: ErrorCode) -> Value {
        assert_eq!(self.code(), Some(code.as_str().to_owned()), "{self}");
        assert_eq!(self.status, code.status().as_u16(), "{self}");
        self.value()
    }

    /// The code of a problem document.
    pub(crate) fn code(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        Some(body["code"].as_str()?.to_owned())
    }

    /// What holds for every answer to whatever request: its id, and the form of an error. Gives
    /// what is wrong.
    pub(crate) fn flaw(&self, to_head: bool) -> Option<String> {
        let Some(id) = self.header("x-request-id") else { return Some("no request id".into()) };
        if id.is_empty() || id.len() > 128 {
            return Some("a request id of no use".into());
        }
        if self.status < 400 || to_head {
            return None;
        }
        if self.status == 503 && self.header("content-type") == Some("application/json") {
            // The health document tells of a service that is down.
            return None;
        }
        if self.header("content-type") != Some("application/problem+json") {
            return Some("an error that is no problem document".into());
        }
        let Ok(body) = serde_json::from_slice::<Value>(&self.body) else {
            return Some("a problem document that is no JSON".into());
        };
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        let known = ErrorCode::ALL.iter().find(|code| code.as_str() == text("code"));
        let Some(known) = known else { return Some("an unknown code".into()) };
        let anchor = known.as_str().to_ascii_lowercase().replace('_', "-");
        let checks = [
            ("status line", known.status().as_u16() == self.status),
            ("status", body["status"] == self.status),
            ("title", text("title") == known.title()),
            ("detail", !text("detail").is_empty()),
            ("message", text("message") == text("detail")),
            ("type", text("type") == format!("/docs/errors#{anchor}")),
            ("requestId", text("requestId") == id),
            ("retry-after", {
                let wait = self.header("retry-after");
                let wanted = matches!(self.status, 429 | 503);
                let usable = wait.is_some_and(|wait| wait.parse::<u32>().is_ok_and(|s| s > 0));
                if wanted { usable } else { wait.is_none() || usable }
            }),
            ("allow", self.status != 405 || self.header("allow").is_some()),
        ];
        let wrong = checks.iter().find(|(_, right)| !right)?;
        Some(format!("a problem document whose {} is wrong", wrong.0))
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        write!(f, "\n{}", String::from_utf8_lossy(&self.body))
    }
}

/// The answers that the API description lists, for each method and path template: what it says of
/// each status, and whether it is a problem.
type Described = HashMap<(String, String), HashMap<u16, (String, bool)>>;

fn described() -> &'static Described {
    static DESCRIBED: OnceLock<Described> = OnceLock::new();
    DESCRIBED.get_or_init(|| {
        let document = serde_json::to_value(boxoffice::http::openapi::document()).unwrap();
        let mut described = HashMap::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let answers = operation["responses"].as_object().unwrap().iter();
                let answers = answers.map(|(status, answer)| {
                    let text = answer["description"].as_str().unwrap().to_owned();
                    let problem = answer["content"].get("application/problem+json").is_some();
                    (status.parse().unwrap(), (text, problem))
                });
                let endpoint = (method.to_ascii_uppercase(), path.clone());
                described.insert(endpoint, answers.collect());
            }
        }
        described
    })
}

/// Whether an answer is one that the API description promises, a refusal by its very code; none
/// where the description does not know the endpoint.
fn is_described(method: &str, path: &str, reply: &Reply) -> Option<bool> {
    let method = if method == "HEAD" { "GET" } else { method };
    let path = path.split('?').next().unwrap_or(path);
    let fits = |template: &str| {
        let (mut wanted, mut given) = (template.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(wanted), Some(given)) if wanted == given => {}
                (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => {}
                _ => return false,
            }
        }
    };
    let (_, answers) = described()
        .iter()
        .find(|((described, template), _)| described == method && fits(template))?;
    Some(match (answers.get(&reply.status), reply.code()) {
        (Some((codes, true)), Some(code)) => codes.split(", ").any(|listed| listed == code),
        (answer, _) => answer.is_some(),
    })
}

/// A client with one connection, kept alive.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    unread: Vec<u8>,
    /// On the heap: the futures of a test hold many clients, and lie on the stack.
    chunk: Vec<u8>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, unread: Vec::new(), chunk: vec![0; 16 * 1024] }
    }

    /// Connects, unless it is connected.
    pub(crate) async fn connect(&mut self) -> &mut TcpStream {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            self.stream = Some(stream);
            self.unread.clear();
        }
        self.stream.as_mut().unwrap()
    }

    /// Hangs up.
    pub(crate) fn hang_up(&mut self) {
        self.stream = None;
    }

    /// Sends bytes as they are.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.connect().await.write_all(bytes).await
    }

    /// Reads one answer; none where the server closed the connection instead.
    pub(crate) async fn read(&mut self, to_head: bool) -> Result<Option<Reply>, String> {
        let stream = self.stream.as_mut().ok_or("not connected")?;
        loop {
            match Reply::parse(&self.unread, to_head) {
                Parsed::Broken(why) => return Err(why),
                Parsed::Whole(reply, used) => {
                    self.unread.drain(..used);
                    if reply.status < 200 {
                        continue;
                    }
                    if reply.closes() {
                        self.stream = None;
                    }
                    return Ok(Some(reply));
                }
                Parsed::Part => {}
            }
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut self.chunk)).await;
            match read {
                Err(_) => {
                    let unread = shown(&self.unread);
                    return Err(format!("no answer within {PATIENCE:?}; so far {unread}"));
                }
                Ok(Ok(0) | Err(_)) if self.unread.is_empty() => {
                    self.stream = None;
                    return Ok(None);
                }
                Ok(Ok(0) | Err(_)) => {
                    self.stream = None;
                    return Err(format!("{ENDS_EARLY}: {}", shown(&self.unread)));
                }
                Ok(Ok(count)) => self.unread.extend_from_slice(&self.chunk[..count]),
            }
        }
    }

    /// Sends a request and checks what holds for every answer.
    pub(crate) async fn send(&mut self, call: Call) -> Reply {
        self.write(&call.to_bytes()).await.unwrap();
        self.answer(&call).await
    }

    /// Reads the answer to a request that was sent, and checks what holds for every answer.
    pub(crate) async fn answer(&mut self, call: &Call) -> Reply {
        let asked =
            || format!("{} {}", call.method, call.path.chars().take(200).collect::<String>());
        let to_head = call.method == "HEAD";
        let reply = match self.read(to_head).await {
            Ok(Some(reply)) => reply,
            Ok(None) => panic!("{}: closed without an answer", asked()),
            Err(why) => panic!("{}: {why}", asked()),
        };
        if let Some(flaw) = reply.flaw(to_head) {
            panic!("{}: {flaw}: {reply}", asked());
        }
        if is_described(&call.method, &call.path, &reply) == Some(false) {
            panic!("{}: the API description does not know of {reply}", asked());
        }
        reply
    }
}

/// A session that a test sells.
#[derive(Clone, Debug)]
pub(crate) struct OnSale {
    pub(crate) concert: i64,
    pub(crate) session: i64,
    pub(crate) first_seat: i64,
}

impl OnSale {
    /// The id of the seat with this number.
    pub(crate) fn seat(&self, number: i64) -> i64 {
        self.first_seat + number - 1
    }

    pub(crate) fn path(&self, what: &str) -> String {
        format!("/api/v1/concerts/{}/sessions/{}/{what}", self.concert, self.session)
    }

    pub(crate) fn seats(&self, token: &str) -> Call {
        get(self.path("seats")).token(token)
    }

    pub(crate) fn reserve(&self, token: &str, user: i64, numbers: &[i64]) -> Call {
        let seats: Vec<i64> = numbers.iter().map(|number| self.seat(*number)).collect();
        post(self.path("reservations")).token(token).json(json!({"userId": user, "seatIds": seats}))
    }
}

pub(crate) fn pay(token: &str, user: i64, reservation: i64) -> Call {
    post("/api/v1/payments")
        .token(token)
        .json(json!({"userId": user, "reservationId": reservation}))
}

pub(crate) fn join(user: i64) -> Call {
    post("/api/v1/waiting-queues").json(json!({"userId": user}))
}

pub(crate) fn status(token: &str) -> Call {
    get("/api/v1/waiting-queues").token(token)
}

pub(crate) fn charge(user: i64, amount: i64) -> Call {
    patch(format!("/api/v1/users/{user}/points/charge")).json(json!({"amount": amount}))
}

/// A service on a store of its own. A test ends it with [`TestService::finish`], which runs the
/// audit: a test that passes and leaves a broken store behind has not passed.
pub(crate) struct TestService {
    running: Option<Service>,
    pub(crate) config: Config,
    directory: Option<TempDir>,
    tokens: AtomicU64,
}

/// Gives a service a database of its own on the server that the environment names: the same tests,
/// the other store. `scripts/test` does that; without it the store is SQLite.
async fn on_mysql(config: &mut Config, server: &str) {
    use mysql_async::prelude::Queryable;
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("boxoffice_{}_{count}", std::process::id());
    let opts = mysql_async::Opts::from_url(server).unwrap();
    let mut conn = mysql_async::Conn::new(opts).await.unwrap();
    conn.query_drop(format!("CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"))
        .await
        .unwrap();
    conn.disconnect().await.unwrap();
    config.store.kind = StoreKind::Mysql;
    config.store.mysql.url = Some(Secret::new(format!("{}/{name}", server.trim_end_matches('/'))));
    config.store.mysql.pool_size = 8;
    // Hundreds come at once, and the machine may be busy.
    config.store.mysql.acquire_timeout_ms = 10_000;
}

impl TestService {
    /// Starts on an empty store, without demo data.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// Starts on an empty store with a changed configuration.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = TempDir::new().unwrap();
        let mut config = Config { data_dir: directory.path().join("data"), ..Config::default() };
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        config.demo.seed = false;
        config.admin.token = Some(Secret::new(ADMIN));
        if let Ok(server) = std::env::var("BOXOFFICE_TEST_MYSQL") {
            on_mysql(&mut config, &server).await;
        }
        change(&mut config);
        Self::start_in(directory, config).await.map_err(|(_, error)| error).unwrap()
    }

    async fn start_in(directory: TempDir, config: Config) -> Result<Self, (TempDir, StartError)> {
        config.validate().unwrap();
        match Service::start(config.clone()).await {
            Ok(service) => Ok(Self {
                running: Some(service),
                config,
                directory: Some(directory),
                tokens: AtomicU64::new(0),
            }),
            Err(error) => Err((directory, error)),
        }
    }

    pub(crate) fn running(&self) -> &Service {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running().address()
    }

    /// The time that the service goes by: a little off the wall clock's, which it follows slowly.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.running().app().clock.now().0).unwrap()
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// Sends one request over a connection of its own.
    pub(crate) async fn send(&self, call: Call) -> Reply {
        self.client().send(call).await
    }

    /// Runs the audit and asserts that nothing is broken.
    pub(crate) async fn audit(&self) -> Value {
        let mut client = Client::new(self.running().admin_address());
        let report = client.send(get("/admin/v1/audit").admin()).await.ok(200);
        assert_eq!(report["clean"], true, "{report:#}");
        report
    }

    /// Audits, stops, and starts again on the same store with a changed configuration.
    pub(crate) async fn restart(mut self, change: impl FnOnce(&mut Config)) -> Self {
        let directory = self.end().await;
        change(&mut self.config);
        Self::start_in(directory, self.config.clone()).await.map_err(|(_, error)| error).unwrap()
    }

    /// Audits, stops, and tries to start again where that cannot be. Returns the error, and the
    /// service started anew with the configuration from before.
    pub(crate) async fn restart_in_vain(
        mut self,
        change: impl FnOnce(&mut Config),
    ) -> (Self, String) {
        let directory = self.end().await;
        let mut changed = self.config.clone();
        change(&mut changed);
        let Err((directory, error)) = Self::start_in(directory, changed).await else {
            panic!("it starts");
        };
        let again = Self::start_in(directory, self.config.clone()).await;
        (again.map_err(|(_, error)| error).unwrap(), error.to_string())
    }

    /// Audits and stops.
    pub(crate) async fn finish(mut self) {
        self.end().await;
    }

    /// Audits and stops; the data stays as long as what this returns.
    pub(crate) async fn end_well(mut self) -> TempDir {
        self.end().await
    }

    /// Stops without an audit, for a service that was broken on purpose.
    pub(crate) async fn abandon(mut self) {
        self.running.take().unwrap().stop().await;
        self.directory.take();
    }

    async fn end(&mut self) -> TempDir {
        self.audit().await;
        let cut = self.running.take().unwrap().stop().await;
        assert_eq!(cut, 0, "requests were cut");
        self.directory.take().unwrap()
    }

    /// Charges points.
    pub(crate) async fn charge(&self, user: i64, amount: i64) {
        self.send(charge(user, amount)).await.ok(200);
    }

    pub(crate) async fn balance(&self, user: i64) -> i64 {
        let reply = self.send(get(format!("/api/v1/users/{user}/points"))).await;
        reply.ok(200)["totalAmount"].as_i64().unwrap()
    }

    /// A concert on sale behind a queue, with one session.
    pub(crate) async fn concert_in(&self, queue: &str, seats: u32, price: i64) -> OnSale {
        let concert = json!({
            "name": "A concert", "venue": "A hall", "queue": queue,
            "reservationOpensAt": PAST, "reservationClosesAt": FUTURE,
        });
        let made = self.send(post("/admin/v1/concerts").admin().json(concert)).await.ok(201);
        let concert = made["concertId"].as_i64().unwrap();
        self.session(concert, seats, price, FUTURE).await
    }

    pub(crate) async fn concert(&self, seats: u32, price: i64) -> OnSale {
        self.concert_in("main", seats, price).await
    }

    /// One more session of a concert.
    pub(crate) async fn session(&self, concert: i64, seats: u32, price: i64, at: &str) -> OnSale {
        let path = format!("/admin/v1/concerts/{concert}/sessions");
        let session = json!({"concertAt": at, "seatCount": seats, "price": price});
        let made = self.send(post(path).admin().json(session)).await.ok(201);
        OnSale {
            concert,
            session: made["sessionId"].as_i64().unwrap(),
            first_seat: made["firstSeatId"].as_i64().unwrap(),
        }
    }

    /// A token that opens the default queue's doors for a user.
    pub(crate) async fn token(&self, user: i64) -> String {
        self.token_in("main", user).await
    }

    pub(crate) async fn token_in(&self, queue: &str, user: i64) -> String {
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        let token = format!("token-{}-{number}-of-{user}", self.address().port());
        let issue = json!({
            "count": 1, "format": token, "activated": true, "guessable": true, "userId": user, "queue": queue,
        });
        self.send(post("/admin/v1/tokens").admin().json(issue)).await.ok(201);
        token
    }

    /// Joins the queue and waits to be let in, as a fan does.
    pub(crate) async fn admitted(&self, user: i64) -> String {
        let mut client = self.client();
        let joined = client.send(join(user)).await.ok(201);
        let token = joined["token"].as_str().unwrap().to_owned();
        until("admission", async || {
            let place = client.send(status(&token)).await.ok(200);
            (place["status"] == "ACTIVATED").then_some(())
        })
        .await;
        token
    }

    /// Changes how a queue admits.
    pub(crate) async fn change_queue(&self, queue: &str, change: Value) -> Value {
        let path = format!("/admin/v1/queues/{queue}");
        self.send(patch(path).admin().json(change)).await.ok(200)
    }

    pub(crate) async fn pause(&self, queue: &str) {
        self.send(post(format!("/admin/v1/queues/{queue}/pause")).admin()).await.ok(200);
    }

    pub(crate) async fn resume(&self, queue: &str) {
        self.send(post(format!("/admin/v1/queues/{queue}/resume")).admin()).await.ok(200);
    }

    /// The public document of a queue.
    pub(crate) async fn queue(&self, queue: &str) -> Value {
        self.send(get(format!("/api/v1/waiting-queues/{queue}"))).await.ok(200)
    }
}

impl Drop for TestService {
    fn drop(&mut self) {
        assert!(
            self.running.is_none() || std::thread::panicking(),
            "the test ends without an audit: call finish"
        );
    }
}

/// The seats of a list, by id: the status.
pub(crate) fn seat_states(list: &Value) -> HashMap<i64, String> {
    let mut states = HashMap::new();
    for part in ["availableSeats", "unavailableSeats"] {
        for seat in list[part].as_array().unwrap() {
            let state = seat["status"].as_str().unwrap().to_owned();
            assert_eq!(state == "AVAILABLE", part == "availableSeats", "{seat} in {part}");
            let id = seat["seatId"].as_i64().unwrap();
            assert_eq!(states.insert(id, state), None, "seat {id} twice");
        }
    }
    assert_eq!(states.len() as u64, list["totalSeatCount"].as_u64().unwrap());
    states
}

/// Shows bytes that may be anything.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(1_000) {
        let _ = write!(text, "{}", byte.escape_ascii());
    }
    if bytes.len() > 1_000 {
        let _ = write!(text, "… ({} bytes)", bytes.len());
    }
    text
}
