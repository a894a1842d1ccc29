//! The listener over real sockets: time-outs, cap, drain, and what it answers to nonsense.
//!
//! Time-outs are a few hundred milliseconds here. Tests wait for what they expect to happen, with a
//! deadline far beyond; the only fixed pauses are those in which something must *not* happen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, FromRef, State};
use axum::routing::{get, post};
use axum::{Extension, Router};
use boxoffice::config::ServerConfig;
use boxoffice::endpoints::Route;
use boxoffice::http::extract::{ApiJson, BodyLimits};
use boxoffice::http::listener::{self, ListenerLimits};
use boxoffice::http::observe::{Observer, not_found};
use boxoffice::metrics::{Limit, LimitLabel, Metrics};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(10);
const GET_OK: &[u8] = b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n";

#[derive(Clone)]
struct App {
    arrived: Arc<Notify>,
    go: Arc<Notify>,
}

impl FromRef<App> for BodyLimits {
    fn from_ref(_: &App) -> Self {
        BodyLimits { max_bytes: 1024, timeout: Duration::from_millis(200) }
    }
}

struct Running {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    /// Notified when a request to `/slow` has reached its handler.
    arrived: Arc<Notify>,
    /// Lets one request to `/slow` go on.
    go: Arc<Notify>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<usize>,
}

fn limits() -> ListenerLimits {
    ListenerLimits {
        max_connections: 100,
        max_connections_per_address: 100,
        trusted_proxies: Vec::new(),
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(900),
        write_timeout: Duration::from_millis(300),
        drain_timeout: Duration::from_secs(5),
        max_head_bytes: 16 * 1024,
    }
}

fn start(limits: ListenerLimits) -> Running {
    let metrics = Arc::new(Metrics::new());
    let observer = Observer::new(&ServerConfig::default(), &metrics);
    let app = App { arrived: Arc::new(Notify::new()), go: Arc::new(Notify::new()) };
    let router =
        Router::new()
            .route("/ok", get(observer.handler(Route::HealthLive, async || "ok")))
            .route(
                "/peer",
                get(observer.handler(
                    Route::HealthReady,
                    async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string(),
                )),
            )
            .route(
                "/slow",
                get(observer.handler(Route::ConcertList, async |State(app): State<App>| {
                    app.arrived.notify_one();
                    app.go.notified().await;
                    "done"
                })),
            )
            .route(
                "/big",
                get(observer.handler(Route::SeatList, async || "x".repeat(64 * 1024 * 1024))),
            )
            .route(
                "/json",
                post(observer.handler(
                    Route::QueueJoin,
                    async |ApiJson(value): ApiJson<serde_json::Value>| value.to_string(),
                )),
            )
            .fallback(observer.handler(Route::NotFound, not_found))
            .with_state(app.clone());
    let listener = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let service =
        move |peer| TowerToHyperService::new(router.clone().layer(Extension(ConnectInfo(peer))));
    let served =
        tokio::spawn(listener::serve(listener, service, limits, (&*metrics).into(), async move {
            let _ = stopped.await;
        }));
    Running { address, metrics, arrived: app.arrived, go: app.go, stop: Some(stop), served }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }
}

/// Reads until the peer closes (or resets).
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the connection stays open");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `wanted` has been seen `times` times.
async fn read_until(stream: &mut TcpStream, wanted: &str, times: usize) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    tokio::time::timeout(PATIENCE, async {
        while text.matches(wanted).count() < times {
            let n = stream.read(&mut buffer).await.unwrap();
            assert!(n > 0, "closed after {text:?}");
            text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{wanted:?} did not come"));
    text
}

#[tokio::test]
async fn a_head_that_drips_is_cut_at_the_header_time_out() {
    let server = start(limits());
    for warm in [false, true] {
        let mut stream = server.connect().await;
        if warm {
            stream.write_all(GET_OK).await.unwrap();
            read_until(&mut stream, "\r\n\r\nok", 1).await;
        }
        let began = Instant::now();
        let (mut reading, mut writing) = stream.split();
        let drip = async {
            for byte in GET_OK.iter().cycle().take(10_000).filter(|b| **b != b'\n') {
                if writing.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let mut rest = Vec::new();
        tokio::select! {
            () = drip => {}
            _ = reading.read_to_end(&mut rest) => {}
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(290), "cut after {took:?}");
        assert!(took < Duration::from_millis(850), "cut after {took:?}, like an idle connection");
    }
    assert_eq!(server.metrics.http_server_connections_cut.get(), 2);
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_the_idle_time_out_and_not_before() {
    let server = start(limits());
    let mut fresh = server.connect().await;
    let mut used = server.connect().await;
    let began = Instant::now();
    // Kept alive well beyond one idle time-out by being used.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(450)).await;
        used.write_all(GET_OK).await.unwrap();
        read_until(&mut used, "\r\n\r\nok", 1).await;
    }
    let last_use = Instant::now();
    assert_eq!(read_to_end(&mut fresh).await, "");
    assert!(began.elapsed() >= Duration::from_millis(890));
    assert_eq!(read_to_end(&mut used).await, "");
    let took = last_use.elapsed();
    assert!(took >= Duration::from_millis(890), "closed after {took:?}");
    assert_eq!(server.metrics.http_server_connections_cut.get(), 0);
}

#[tokio::test]
async fn a_slow_handler_is_not_cut() {
    let server = start(limits());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    server.arrived.notified().await;
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    server.go.notify_one();
    read_until(&mut stream, "done", 1).await;
}

#[tokio::test]
async fn a_body_that_stops_is_a_408() {
    let server = start(limits());
    let mut stream = server.connect().await;
    stream
        .write_all(
            b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[1",
        )
        .await
        .unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("REQUEST_TIMEOUT"), "{answer}");
}

#[tokio::test]
async fn a_reader_that_stalls_is_cut() {
    let server = start(limits());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut stream, "\r\n\r\n", 1).await;
    tokio::time::timeout(PATIENCE, async {
        while server.metrics.http_server_connections_cut.get() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the stalled connection stays open");
    assert_eq!(server.metrics.http_server_connections.get(), 0);
}

#[tokio::test]
async fn one_connection_too_many_is_answered_503() {
    let server = start(ListenerLimits { max_connections: 2, ..limits() });
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(GET_OK).await.unwrap();
        read_until(&mut stream, "\r\n\r\nok", 1).await;
        held.push(stream);
    }
    let mut refused = server.connect().await;
    refused.write_all(GET_OK).await.unwrap();
    refused.shutdown().await.unwrap();
    let answer = read_to_end(&mut refused).await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    let head = answer.to_ascii_lowercase();
    for header in [
        "content-type: application/problem+json",
        "retry-after: 1",
        "x-request-id: ",
        "connection: close",
    ] {
        assert!(head.contains(header), "{header} missing in {answer}");
    }
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["code"], "OVERLOADED");
    let refused = &server.metrics.http_server_connections_refused;
    assert_eq!(refused.get_or_create(&LimitLabel { limit: Limit::All }).get(), 1);

    // One closes, and there is room again.
    held.pop();
    tokio::time::timeout(PATIENCE, async {
        loop {
            let mut stream = server.connect().await;
            stream
                .write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            if read_to_end(&mut stream).await.starts_with("HTTP/1.1 200 ") {
                break;
            }
        }
    })
    .await
    .expect("the place is not given back");
}

#[tokio::test]
async fn the_drain_finishes_a_running_request_and_closes_idle_connections() {
    let mut server = start(limits());
    let mut idle = server.connect().await;
    idle.write_all(GET_OK).await.unwrap();
    read_until(&mut idle, "\r\n\r\nok", 1).await;
    let mut fresh = server.connect().await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    server.arrived.notified().await;

    let began = Instant::now();
    server.stop();
    assert_eq!(read_to_end(&mut idle).await, "");
    assert_eq!(read_to_end(&mut fresh).await, "");
    assert!(
        began.elapsed() < Duration::from_millis(800),
        "idle connections were not closed at once"
    );
    server.go.notify_one();
    let answer = read_to_end(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("done"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(tokio::time::timeout(PATIENCE, server.served).await.unwrap().unwrap(), 0);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn the_drain_cuts_what_does_not_end_and_says_how_many() {
    let mut server =
        start(ListenerLimits { drain_timeout: Duration::from_millis(200), ..limits() });
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    server.arrived.notified().await;
    let began = Instant::now();
    server.stop();
    assert_eq!(tokio::time::timeout(PATIENCE, server.served).await.unwrap().unwrap(), 1);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(190) && took < Duration::from_secs(1), "{took:?}");
    assert_eq!(read_to_end(&mut busy).await, "");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start(limits());
    let mut stream = server.connect().await;
    let body = r#"{"n":7}"#;
    let pipeline = format!(
        "GET /ok HTTP/1.1\r\nHost: x\r\n\r\nPOST /json HTTP/1.1\r\nHost: x\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{body}GET /peer HTTP/1.1\r\nHost: x\r\n\r\n",
        body.len()
    );
    stream.write_all(pipeline.as_bytes()).await.unwrap();
    let text = read_until(&mut stream, "127.0.0.1:", 1).await;
    let ok = text.find("\r\n\r\nok").unwrap();
    let json = text.find("\r\n\r\n{\"n\":7}").unwrap();
    let peer = text.find("\r\n\r\n127.0.0.1:").unwrap();
    assert!(ok < json && json < peer, "{text}");
}

#[tokio::test]
async fn heads_that_hyper_refuses_are_answered_as_problems() {
    let server = start(limits());
    let long = format!("GET /ok HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(20 * 1024));
    let many = format!("GET /ok HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-Many: 1\r\n".repeat(200));
    for (request, status, code) in [
        (long.as_str(), "431 Request Header Fields Too Large", "HEADERS_TOO_LARGE"),
        (many.as_str(), "431 Request Header Fields Too Large", "HEADERS_TOO_LARGE"),
        ("garbage\r\n\r\n", "400 Bad Request", "INVALID_HEADER"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", "400 Bad Request", "INVALID_HEADER"),
        (
            "GET /ok HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "400 Bad Request",
            "INVALID_HEADER",
        ),
    ] {
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = read_until(&mut stream, "\r\n\r\n", 1).await;
        answer.push_str(&read_to_end(&mut stream).await);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("X-Request-Id: "), "{answer}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], code);
    }
}
