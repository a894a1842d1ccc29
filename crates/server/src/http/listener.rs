//! The accept loop: HTTP/1.1 connections with time-outs, a cap, and a shutdown that finishes what
//! has begun.
//!
//! `axum::serve` sets no timer, so its connections never time out. hyper's own
//! `header_read_timeout` runs from the end of one request, so that it cuts idle connections too, and
//! makes and drops a timer per request. Here the socket is wrapped instead: it notes what the
//! connection is doing, and one timer per connection looks at the note now and then. A request
//! costs a few relaxed stores and one reading of the clock, no timer. The same place looks at the bytes
//! before hyper does (see `framing`).
//!
//! What does not belong here: anything about the content of requests, and TLS (a proxy's business).

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::BoxError;
use axum::body::Bytes;
use axum::http::{HeaderMap, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use memchr::memmem;
use prometheus_client::metrics::counter::Counter;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::Sleep;

use super::client::ClientAddress;
use super::damper::Damper;
use super::framing::{Flaw, Framing};
use super::per_address::{OneOfAddress, PerAddress};
use super::problem::{ErrorCode, PROBLEM_JSON, Problem};
use super::request_id::RequestIds;
use crate::config::ServerConfig;
use crate::metrics::{IntGauge, Limit, LimitLabel, Metrics};

/// Connections that the kernel may hold ready for accepting. A rush arrives within a second; what
/// does not fit retries after one more. The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: u32 = 8_192;

/// File descriptors kept for the store, logs and the refusal of connections.
const RESERVED_FILES: u64 = 256;

/// Refused connections that are told so at once; beyond, they are just closed.
const REFUSALS_MAX: usize = 64;

/// How long a refused connection may take to read its refusal.
const REFUSAL_LINGER: Duration = Duration::from_millis(500);

/// How often the log is told at the most that an address has too many connections.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// First and longest pause after an accept failed for want of a resource.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What stands in hyper's own answers, and in none of ours that says what is wrong.
const NO_BODY: &[u8] = b"\r\ncontent-length: 0\r\n";

/// What hyper refuses in a head, before a chunk and after the last one: a byte that stands in none of
/// them, and the end of a head, because hyper looks at no other.
const REFUSED: &[u8] = b"\0\r\n\r\n";

/// The most that is read at once.
const READ_MAX: usize = 16 * 1024;

/// Answers up to this are written in one piece: those of polls and joins, and public documents.
const WRITE_WHOLE_MAX: usize = 1024;

thread_local! {
    /// Where bytes are looked at before hyper gets them: no connection needs it for longer than that.
    static INCOMING: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_MAX]);
}

/// What a connection may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Connections open at once.
    pub max_connections: usize,
    /// The same from one client address.
    pub max_connections_per_address: usize,
    /// Whose connections are those of others, and so have no limit of their own.
    pub trusted_proxies: Vec<IpNet>,
    /// From a request's first byte to the end of its head.
    pub header_timeout: Duration,
    /// Without a byte between requests, and before the first.
    pub idle_timeout: Duration,
    /// Without progress while a response is being written.
    pub write_timeout: Duration,
    /// From the shutdown until requests in progress are cut.
    pub drain_timeout: Duration,
    /// Largest request head, in bytes; at least 8,192, which is hyper's minimum.
    pub max_head_bytes: usize,
}

impl From<&ServerConfig> for ListenerLimits {
    fn from(config: &ServerConfig) -> Self {
        Self {
            max_connections: config.max_connections,
            max_connections_per_address: config.max_connections_per_address,
            // Who starts a service has been told of those that are none.
            trusted_proxies: config.trusted_proxies().unwrap_or_default(),
            header_timeout: Duration::from_millis(config.header_timeout_ms),
            idle_timeout: Duration::from_millis(config.idle_timeout_ms),
            write_timeout: Duration::from_millis(config.write_timeout_ms),
            drain_timeout: Duration::from_millis(config.drain_timeout_ms),
            max_head_bytes: 16 * 1024,
        }
    }
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self::from(&ServerConfig::default())
    }
}

/// The metrics that the listener keeps.
#[derive(Debug, Clone)]
pub struct ListenerMetrics {
    connections: IntGauge,
    refused_all: Counter,
    refused_address: Counter,
    cut: Counter,
}

impl From<&Metrics> for ListenerMetrics {
    fn from(metrics: &Metrics) -> Self {
        let refused = |limit| {
            metrics.http_server_connections_refused.get_or_create(&LimitLabel { limit }).clone()
        };
        Self {
            connections: metrics.http_server_connections.clone(),
            refused_all: refused(Limit::All),
            refused_address: refused(Limit::Address),
            cut: metrics.http_server_connections_cut.clone(),
        }
    }
}

/// Raises the soft limit of open files to the hard one, and returns what is in force; none where
/// there is no limit or it cannot be read.
pub fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, limit = current, "the limit of open files cannot be raised");
            current
        }
    }
}

/// As many of the wanted connections as the open files allow; warns where that is fewer.
pub fn cap_connections(wanted: usize, open_files: Option<u64>) -> usize {
    let Some(files) = open_files else { return wanted };
    let room = files.saturating_sub(RESERVED_FILES).max(files / 2);
    let room = usize::try_from(room).unwrap_or(usize::MAX).max(1);
    if room < wanted {
        tracing::warn!(
            wanted,
            connections.max = room,
            open_files = files,
            "fewer connections than configured: raise the limit of open files"
        );
    }
    wanted.min(room)
}

/// Binds a listening socket.
///
/// # Errors
/// The system's, such as the address being in use. To be called within a runtime.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the last connections of its predecessor to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown` is done, then drains; returns how many connections had to be cut with a
/// request in progress.
///
/// `service` gives what serves the connection of a peer. Failing to accept never ends the loop.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: impl Fn(SocketAddr) -> S,
    limits: ListenerLimits,
    metrics: ListenerMetrics,
    shutdown: impl Future<Output = ()>,
) -> usize
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send + Unpin,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut http = http1::Builder::new();
    // The header limit stays at hyper's 100: setting it moves the headers to the heap.
    http.max_buf_size(limits.max_head_bytes.max(8_192)).header_read_timeout(None);
    let server = Server::new(limits, http, metrics);

    let mut shutdown = pin!(shutdown);
    let mut backoff = ACCEPT_BACKOFF.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                backoff = ACCEPT_BACKOFF.0;
                server.accept(stream, peer, &service);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: those that are open go on, and closing gives back.
                tracing::error!(%error, pause.ms = backoff.as_millis() as u64, "cannot accept");
                tokio::select! {
                    () = &mut shutdown => break,
                    () = tokio::time::sleep(backoff) => {}
                }
                backoff = (backoff * 2).min(ACCEPT_BACKOFF.1);
            }
        }
    }
    // Closed now, so that whoever connects is refused by the kernel and not left waiting.
    drop(listener);
    server.drain().await
}

/// Whether accepting failed because of the one peer that was to be accepted.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

struct Server {
    limits: ListenerLimits,
    per_address: Arc<PerAddress>,
    /// Bounds how often the log is told of an address that has too many.
    refusals: Damper,
    http: http1::Builder,
    metrics: ListenerMetrics,
    ids: RequestIds,
    /// Times are kept as milliseconds since.
    epoch: Instant,
    open: AtomicUsize,
    refusing: AtomicUsize,
    aborted: AtomicUsize,
    draining: AtomicBool,
    drain: Notify,
    all_closed: Notify,
}

/// Counts a connection out, however its task ends.
struct OpenConnection(Arc<Server>, #[expect(dead_code, reason = "it is for its end")] OneOfAddress);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.all_closed.notify_one();
        }
    }
}

impl Server {
    fn new(limits: ListenerLimits, http: http1::Builder, metrics: ListenerMetrics) -> Arc<Self> {
        Arc::new(Self {
            per_address: PerAddress::new(limits.max_connections_per_address),
            limits,
            refusals: Damper::new(REFUSAL_LOG_INTERVAL),
            http,
            metrics,
            ids: RequestIds::new(),
            epoch: Instant::now(),
            open: AtomicUsize::new(0),
            refusing: AtomicUsize::new(0),
            aborted: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            drain: Notify::new(),
            all_closed: Notify::new(),
        })
    }

    fn accept<S, B>(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        service: &impl Fn(SocketAddr) -> S,
    ) where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Send + 'static,
        S::Future: Send + Unpin,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        // Only this loop adds, so the count cannot pass the cap in between.
        if self.open.load(Ordering::Acquire) >= self.limits.max_connections {
            self.metrics.refused_all.inc();
            let problem = Problem::new(ErrorCode::Overloaded)
                .detail("too many connections are open; nothing was done");
            self.refuse(stream, problem);
            return;
        }
        let client = ClientAddress::of_peer(peer, &self.limits.trusted_proxies);
        let Some(one) = self.per_address.enter(client) else {
            self.metrics.refused_address.inc();
            if let Some(left_out) = self.refusals.pass(Instant::now()) {
                tracing::warn!(
                    client.address = %peer.ip(),
                    log.left_out = left_out,
                    "too many connections of one address; if it is a proxy, name it in server.trusted_proxies"
                );
            }
            self.refuse(stream, Problem::new(ErrorCode::TooManyConnections));
            return;
        };
        self.open.fetch_add(1, Ordering::AcqRel);
        self.metrics.connections.inc();
        let open = OpenConnection(Arc::clone(self), one);
        // Answers are written whole; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        tokio::spawn(connection(stream, peer, service(peer), open));
    }

    fn refuse(self: &Arc<Self>, mut stream: TcpStream, problem: Problem) {
        if self.refusing.fetch_add(1, Ordering::Relaxed) >= REFUSALS_MAX {
            self.refusing.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let server = Arc::clone(self);
        tokio::spawn(async move {
            let answer = server.closing_response(&problem, "Retry-After: 1\r\n");
            let _ = tokio::time::timeout(REFUSAL_LINGER, async {
                stream.write_all(&answer).await?;
                stream.shutdown().await?;
                // Closing with unread input resets the connection, and the peer may lose the
                // answer; so its request is read first.
                let mut unread = [0; 1024];
                while stream.read(&mut unread).await? > 0 {}
                io::Result::Ok(())
            })
            .await;
            server.refusing.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// A whole response for connections where no request reached the router.
    fn closing_response(&self, problem: &Problem, more_headers: &str) -> Vec<u8> {
        let id = self.ids.take_or_make(&HeaderMap::new()).to_string();
        let body = problem.to_json(&id);
        let mut response = format!(
            "HTTP/1.1 {}\r\nContent-Type: {PROBLEM_JSON}\r\nContent-Length: {}\r\n\
             X-Request-Id: {id}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n{more_headers}\r\n",
            problem.code().status(),
            body.len(),
        )
        .into_bytes();
        response.extend_from_slice(&body);
        response
    }

    async fn drain(&self) -> usize {
        self.draining.store(true, Ordering::SeqCst);
        self.drain.notify_waiters();
        // Connections end themselves at the drain time-out; the second is for those that are being
        // polled just then.
        let patience = self.limits.drain_timeout + Duration::from_secs(1);
        let _ = tokio::time::timeout(patience, async {
            while self.open.load(Ordering::Acquire) > 0 {
                self.all_closed.notified().await;
            }
        })
        .await;
        self.aborted.load(Ordering::Relaxed) + self.open.load(Ordering::Acquire)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What a connection is doing. The socket and the service write it, the timer reads it, all in one
/// task.
struct Activity {
    phase: AtomicU8,
    /// When the phase began, for [`IDLE`] and [`HEAD`], in milliseconds since the server's epoch.
    since_ms: AtomicU64,
    /// When writing came to a halt, in the same way; zero while it goes on.
    blocked_ms: AtomicU64,
}

/// Nothing was read since the last response.
const IDLE: u8 = 0;
/// Something was read. Whole heads come in one piece as a rule and the service is called before
/// the clock would be needed.
const FIRST_BYTES: u8 = 1;
/// A head was begun and more of it is awaited.
const HEAD: u8 = 2;
/// The service has the request.
const BUSY: u8 = 3;
/// The service has answered; what is left is writing.
const ANSWERED: u8 = 4;

/// What the timer is to do.
enum Verdict {
    Cut,
    LookAgainIn(Duration),
}

impl Activity {
    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Relaxed)
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn enter_at(&self, phase: u8, now_ms: u64) {
        self.since_ms.store(now_ms, Ordering::Relaxed);
        self.enter(phase);
    }

    fn judge(&self, limits: &ListenerLimits, now_ms: u64) -> Verdict {
        let since_ms = self.since_ms.load(Ordering::Relaxed);
        let blocked_ms = self.blocked_ms.load(Ordering::Relaxed);
        let running = match self.phase() {
            _ if blocked_ms != 0 => Some((blocked_ms, limits.write_timeout)),
            IDLE => Some((since_ms, limits.idle_timeout)),
            HEAD => Some((since_ms, limits.header_timeout)),
            _ => None,
        };
        // Whatever begins right after this look is not over before the shortest limit is.
        let shortest = limits.header_timeout.min(limits.idle_timeout).min(limits.write_timeout);
        match running {
            None => Verdict::LookAgainIn(shortest),
            Some((began_ms, limit)) => {
                let gone = Duration::from_millis(now_ms.saturating_sub(began_ms));
                match limit.checked_sub(gone) {
                    None | Some(Duration::ZERO) => Verdict::Cut,
                    // Times are whole milliseconds, so a look a little late saves one too early.
                    Some(left) => {
                        Verdict::LookAgainIn((left + Duration::from_millis(1)).min(shortest))
                    }
                }
            }
        }
    }
}

/// How a connection ended.
enum End {
    /// By itself, or by the peer.
    Closed,
    /// The peer was too slow.
    Cut,
    /// The shutdown's patience ended.
    Aborted,
}

async fn connection<S, B>(stream: TcpStream, peer: SocketAddr, service: S, open: OpenConnection)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send + Unpin,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let server = &open.0;
    let activity = Arc::new(Activity {
        phase: AtomicU8::new(IDLE),
        since_ms: AtomicU64::new(server.now_ms()),
        blocked_ms: AtomicU64::new(0),
    });
    let io = Socket {
        inner: TokioIo::new(stream),
        framing: Framing::default(),
        flaw: None,
        activity: Arc::clone(&activity),
        server: Arc::clone(server),
        replacement: None,
    };
    let service = Noted { service, activity: Arc::clone(&activity) };
    let mut http = pin!(server.http.serve_connection(io, service));

    let limits = &server.limits;
    let first_look = limits.header_timeout.min(limits.idle_timeout).min(limits.write_timeout);
    let mut timer = pin!(tokio::time::sleep(first_look));
    let mut timer_set = false;
    let mut drain = pin!(server.drain.notified());
    let mut drain_set = false;
    let mut draining = false;

    let end = poll_fn(|cx| {
        // A task's waker stays good for its life, so registering once is enough: the timer and the
        // notification are not polled again on every request.
        if !drain_set {
            drain_set = true;
            let _ = drain.as_mut().poll(cx);
        }
        if !draining && server.draining.load(Ordering::Acquire) {
            draining = true;
            http.as_mut().graceful_shutdown();
            timer.as_mut().reset(tokio::time::Instant::now() + limits.drain_timeout);
            timer_set = false;
        }
        if http.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Closed);
        }
        while !timer_set || timer.is_elapsed() {
            timer_set = true;
            if poll_timer(timer.as_mut(), cx).is_pending() {
                break;
            }
            if draining {
                return Poll::Ready(End::Aborted);
            }
            match activity.judge(limits, server.now_ms()) {
                Verdict::Cut => return Poll::Ready(End::Cut),
                Verdict::LookAgainIn(pause) => {
                    timer.as_mut().reset(tokio::time::Instant::now() + pause);
                    timer_set = false;
                }
            }
        }
        Poll::Pending
    })
    .await;

    match end {
        End::Closed => {}
        // An idle connection that is closed is nobody's fault.
        End::Cut
            if activity.phase() == IDLE && activity.blocked_ms.load(Ordering::Relaxed) == 0 => {}
        End::Cut => {
            server.metrics.cut.inc();
            tracing::debug!(client.address = %peer, "connection cut: too slow");
        }
        End::Aborted => {
            server.metrics.cut.inc();
            if matches!(activity.phase(), BUSY | ANSWERED) {
                server.aborted.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(client.address = %peer, "request cut by the shutdown");
            }
        }
    }
}

/// A service that notes when it has a request, and when it has answered.
struct Noted<S> {
    service: S,
    activity: Arc<Activity>,
}

impl<S> Service<Request<Incoming>> for Noted<S>
where
    S: Service<Request<Incoming>>,
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = NotedFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.enter(BUSY);
        NotedFuture { answer: self.service.call(request), activity: Arc::clone(&self.activity) }
    }
}

/// See [`Noted`].
struct NotedFuture<F> {
    answer: F,
    activity: Arc<Activity>,
}

impl<F: Future + Unpin> Future for NotedFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let answer = Pin::new(&mut self.answer).poll(cx);
        if answer.is_ready() {
            self.activity.enter(ANSWERED);
        }
        answer
    }
}

fn poll_timer(timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    timer.poll(cx)
}

/// A socket that notes what the connection is doing, and whether its requests are what they seem.
struct Socket {
    inner: TokioIo<TcpStream>,
    framing: Framing,
    /// Why nothing more is read.
    flaw: Option<Flaw>,
    activity: Arc<Activity>,
    server: Arc<Server>,
    /// A response of ours in place of one that hyper wrote itself, and how much of it is written.
    replacement: Option<(Vec<u8>, usize)>,
}

impl Socket {
    fn note_write<T>(&self, result: &Poll<io::Result<T>>) {
        let blocked_ms = self.activity.blocked_ms.load(Ordering::Relaxed);
        if result.is_pending() {
            if blocked_ms == 0 {
                self.activity.blocked_ms.store(self.server.now_ms().max(1), Ordering::Relaxed);
            }
        } else {
            if blocked_ms != 0 {
                self.activity.blocked_ms.store(0, Ordering::Relaxed);
            }
            if self.activity.phase() == IDLE {
                // hyper reads ahead while it writes: idle is what comes after the writing. A stream is written
                // for as long as it lasts.
                self.activity.since_ms.store(self.server.now_ms(), Ordering::Relaxed);
            }
        }
    }

    /// Reads as much as there is room for, without what is not to be trusted: hyper gets [`REFUSED`]
    /// instead, and so refuses at the right place, after the answers to what came before.
    fn poll_trusted(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.flaw.is_some() {
            return Poll::Ready(Ok(()));
        }
        INCOMING.with_borrow_mut(|incoming| {
            let room = buf.remaining().min(READ_MAX).saturating_sub(REFUSED.len()).max(1);
            let mut incoming = ReadBuf::new(&mut incoming[..room]);
            match Pin::new(&mut self.inner).poll_read(cx, incoming.unfilled()) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            let bytes = incoming.filled();
            match self.framing.look_at(bytes) {
                Ok(()) => buf.put_slice(bytes),
                Err((at, flaw)) => {
                    buf.put_slice(&bytes[..at]);
                    buf.put_slice(&REFUSED[..REFUSED.len().min(buf.remaining())]);
                    self.flaw = Some(flaw);
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// hyper answers heads that it cannot parse by itself, without a body. What is written although
    /// no request reached the service is such an answer, and is replaced by a problem document. So is
    /// the answer to such a head behind requests that were served.
    fn is_hypers_own(&self, head: &[u8]) -> bool {
        match self.activity.phase() {
            IDLE | FIRST_BYTES | HEAD => true,
            ANSWERED => head.starts_with(b"HTTP/1.1 4") && memmem::find(head, NO_BODY).is_some(),
            _ => false,
        }
    }

    fn replacement_for(&self, head: &[u8]) -> Option<Vec<u8>> {
        let code = match head.strip_prefix(b"HTTP/1.1 ")?.get(..3)? {
            b"400" => {
                let detail = self.flaw.map_or("this is not an HTTP/1.1 request", Flaw::detail);
                let problem = Problem::new(ErrorCode::InvalidHeader).detail(detail);
                return Some(self.server.closing_response(&problem, ""));
            }
            b"414" => ErrorCode::UriTooLong,
            b"431" => ErrorCode::HeadersTooLarge,
            _ => return None,
        };
        Some(self.server.closing_response(&Problem::new(code), ""))
    }

    /// Writes the replacement, and claims to have written `len` bytes once that is done.
    fn poll_replacement(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<usize>> {
        while let Some((bytes, written)) = &mut self.replacement {
            if *written == bytes.len() {
                self.replacement = None;
                break;
            }
            match Pin::new(&mut self.inner).poll_write(cx, &bytes[*written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => *written += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(len))
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let result = self.poll_trusted(cx, &mut buf);
        let activity = &self.activity;
        match (activity.phase(), result.is_ready()) {
            (IDLE | ANSWERED, true) => activity.enter(FIRST_BYTES),
            (ANSWERED, false) => activity.enter_at(IDLE, self.server.now_ms()),
            (FIRST_BYTES, false) => activity.enter_at(HEAD, self.server.now_ms()),
            _ => {}
        }
        result
    }
}

/// Writes what is small in one piece: copying it costs less than telling the kernel of several.
fn poll_write_all(
    io: Pin<&mut TokioIo<TcpStream>>,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [buf] = bufs {
        return io.poll_write(cx, buf);
    }
    let mut whole = [0; WRITE_WHOLE_MAX];
    let mut length = 0;
    for buf in bufs {
        let Some(place) = whole.get_mut(length..length + buf.len()) else {
            return io.poll_write_vectored(cx, bufs);
        };
        place.copy_from_slice(buf);
        length += buf.len();
    }
    io.poll_write(cx, &whole[..length])
}

impl Write for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.replacement.is_none()
            && let Some(head) = bufs.first()
            && self.is_hypers_own(head)
            && let Some(bytes) = self.replacement_for(head)
        {
            self.replacement = Some((bytes, 0));
        }
        let result = if self.replacement.is_some() {
            let len = bufs.iter().map(|buf| buf.len()).sum();
            self.poll_replacement(cx, len)
        } else {
            poll_write_all(Pin::new(&mut self.inner), cx, bufs)
        };
        self.note_write(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_other_files() {
        assert_eq!(cap_connections(16_000, Some(20_000)), 16_000);
        assert_eq!(cap_connections(16_000, Some(1_024)), 768);
        assert_eq!(cap_connections(16_000, Some(100)), 50);
        assert_eq!(cap_connections(16_000, None), 16_000);
    }

    /// Answers everything with nothing.
    #[derive(Clone)]
    struct Empty;

    impl Service<Request<Incoming>> for Empty {
        type Response = Response<http_body_util::Empty<Bytes>>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn call(&self, _: Request<Incoming>) -> Self::Future {
            std::future::ready(Ok(Response::new(http_body_util::Empty::new())))
        }
    }

    #[tokio::test]
    async fn one_address_has_some_of_the_connections_and_leaves_the_others() {
        let metrics = Metrics::new();
        let limits = ListenerLimits {
            max_connections: 6,
            max_connections_per_address: 2,
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            ..ListenerLimits::default()
        };
        let server = Server::new(limits, http1::Builder::new(), ListenerMetrics::from(&metrics));
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        // A real connection that claims to come from somewhere else.
        let connect = async |from: &str| {
            let mut client = TcpStream::connect(address).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            server.accept(stream, from.parse().unwrap(), &|_| Empty);
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = [0; 12];
            client.read_exact(&mut answer).await.unwrap();
            (client, String::from_utf8_lossy(&answer[9..]).into_owned())
        };
        let one = connect("192.0.2.1:1").await;
        let two = connect("192.0.2.1:2").await;
        assert_eq!((one.1.as_str(), two.1.as_str()), ("200", "200"));
        let mut refused = connect("192.0.2.1:3").await;
        assert_eq!(refused.1, "429");
        refused.0.shutdown().await.unwrap();
        let mut rest = String::new();
        refused.0.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("TOO_MANY_CONNECTIONS") && rest.contains("Retry-After: 1"), "{rest}");
        assert_eq!(metrics.http_server_connections.get(), 2);
        // Others have room; our own and our proxies as much as there is.
        let others = ["192.0.2.2:1", "10.0.0.1:1", "10.0.0.1:2"];
        let mut open = Vec::new();
        for other in others {
            open.push(connect(other).await);
        }
        open.push(connect("127.0.0.1:1").await);
        assert!(open.iter().all(|(_, status)| status == "200"));
        assert_eq!(connect("127.0.0.1:2").await.1, "503");
        for limit in [Limit::All, Limit::Address] {
            let refused = &metrics.http_server_connections_refused;
            assert_eq!(refused.get_or_create(&LimitLabel { limit }).get(), 1);
        }
        // Who goes makes room.
        drop((one, open));
        let came = async {
            while metrics.http_server_connections.get() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), came).await.unwrap();
        assert_eq!(connect("192.0.2.1:4").await.1, "200");
    }

    #[test]
    fn the_limit_of_open_files_is_raised() {
        let raised = raise_open_files();
        assert_eq!(raised, getrlimit(Resource::Nofile).maximum);
    }
}
