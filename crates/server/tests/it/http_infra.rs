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

const PATIENCE: Duration = Duration::from_secs(30);
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

#[tokio::test]
async fn requests_that_can_be_read_in_two_ways_are_refused() {
    let server = start(limits());
    let post = |lines: &str, body: &str| {
        format!(
            "POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{lines}\r\n{body}"
        )
    };
    for (name, request) in [
        ("no host", "GET /ok HTTP/1.1\r\n\r\n".to_owned()),
        ("no host, absolute form", "GET http://x/ok HTTP/1.1\r\n\r\n".into()),
        ("two hosts", "GET /ok HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n".into()),
        ("two different hosts", "GET /ok HTTP/1.1\r\nHost: x\r\nX: y\r\nhost: y\r\n\r\n".into()),
        ("bare LF after the request line", "GET /ok HTTP/1.1\nHost: x\r\n\r\n".into()),
        ("bare LF after a header", "GET /ok HTTP/1.1\r\nHost: x\nX: y\r\n\r\n".into()),
        ("bare LF at the end of the head", "GET /ok HTTP/1.1\r\nHost: x\r\n\n".into()),
        ("bare LFs only", "GET /ok HTTP/1.1\nHost: x\n\n".into()),
        ("another coding", post("Transfer-Encoding: gzip\r\n", "")),
        (
            "another coding before chunked",
            post("Transfer-Encoding: gzip, chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        ),
        ("identity", post("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", "{}")),
        (
            "chunked twice",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ),
        (
            "chunked and a length",
            post("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        ),
        (
            "a length and chunked",
            post("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        ),
        ("a folded header", post("Transfer-Encoding:\r\n chunked\r\n", "2\r\n{}\r\n0\r\n\r\n")),
        (
            "a space before the colon",
            post("Transfer-Encoding : chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        ),
        ("the same length twice", post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}")),
        ("a length with a sign", post("Content-Length: +2\r\n", "{}")),
    ] {
        // In one piece, byte by byte, and behind a request that is fine.
        for (way, before, piece) in
            [("whole", "", 4_096), ("bytes", "", 1), ("second", "GET", 4_096)]
        {
            let what = format!("{name}, {way}");
            let mut stream = server.connect().await;
            stream.set_nodelay(true).unwrap();
            let before = if before.is_empty() { &[] } else { GET_OK };
            let bytes = [before, request.as_bytes()].concat();
            for piece in bytes.chunks(piece) {
                // It may be refused, and the connection closed, before the last byte.
                let _ = stream.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let answer = read_to_end(&mut stream).await;
            let refusals = answer.matches("HTTP/1.1 400 Bad Request\r\n").count();
            assert_eq!(refusals, 1, "{what}: {answer}");
            assert_eq!(answer.contains("\r\n\r\nok"), !before.is_empty(), "{what}: {answer}");
            assert!(!answer.contains("{}"), "{what}: {answer}");
            assert!(answer.to_ascii_lowercase().contains("connection: close"), "{what}: {answer}");
            assert!(answer.contains("\"code\":\"INVALID_HEADER\""), "{what}: {answer}");
        }
    }
}

#[tokio::test]
async fn requests_that_can_be_read_in_one_way_are_served() {
    let server = start(limits());
    let json = "Content-Type: application/json\r\n";
    for request in [
        "GET /ok HTTP/1.0\r\n\r\n".to_owned(),
        "GET /ok HTTP/1.0\r\nHost: x\r\n\r\n".into(),
        "GET http://x/ok HTTP/1.1\r\nhost: x\r\nConnection: close\r\n\r\n".into(),
        "\r\nGET /ok HTTP/1.1\r\nHOST:x\r\nConnection: close\r\n\r\n".into(),
        format!(
            "POST /json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{json}Transfer-Encoding: chunked\r\n\r\n\
             3;a=b\r\n{{\n\n\r\n1\r\n}}\r\n0\r\nX: y\r\n\r\n"
        ),
        format!(
            "POST /json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{json}Content-Length: 5\r\n\r\n{{\n\n\n}}"
        ),
        format!(
            "POST /json HTTP/1.1\r\nHost: x\r\n{json}Content-Length: 5\r\n\r\n{{\n\n\n}}\
             GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ),
    ] {
        for piece in [4_096, 1] {
            let mut stream = server.connect().await;
            stream.set_nodelay(true).unwrap();
            for piece in request.as_bytes().chunks(piece) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let answer = read_to_end(&mut stream).await;
            let served = answer.matches(" 200 OK\r\n").count();
            assert_eq!(served, request.matches(" HTTP/1.").count(), "{request:?}: {answer}");
        }
    }
}
