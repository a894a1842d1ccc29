//! The baseline of the benchmarks: a bare axum router on the product's own listener.
//!
//! It answers `GET /hello` with a text, and the calls of a fan who joins, polls and buys with constant
//! documents of the size of the real ones, so that the same k6 script can be run against it. What the
//! product costs above this is what the product does; what this costs is the HTTP stack, the kernel and
//! the load generator.
//!
//! ```text
//! cargo run --release --example hello -- --listen 127.0.0.1:8081
//! ```

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use boxoffice::http::listener::{self, ListenerLimits};
use boxoffice::metrics::Metrics;
use clap::Parser;
use hyper_util::service::TowerToHyperService;

/// What a join answers; the token has the length of a real one.
const JOINED: &str = concat!(
    r#"{"token":"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IjAtMHE4Z0dPdy1RIn0."#,
    "eyJzdWIiOiIxMDAwIiwicSI6Im1haW4iLCJzZXEiOjEyMzQ1NiwiaWF0IjoxNzY0MDAwMDAwLCJqdGki",
    "OiJBYUlOOUpkN2Q2aVFDSGVhdGVscDVnIn0.",
    "signaturesignaturesignaturesignaturesignatu",
    r#"","status":"WAITING","waitingNumber":123456,"etaSeconds":412,"pollAfterMs":3000,"#,
    r#""joinedAt":"2026-01-01T00:00:00.000Z"}"#
);

/// What a poll answers.
const STATUS: &str = concat!(
    r#"{"userId":123456,"queue":"main","status":"WAITING","waitingNumber":123456,"#,
    r#""etaSeconds":412,"pollAfterMs":3000,"activeUntil":null}"#
);

/// What a reservation answers.
const RESERVED: &str = concat!(
    r#"{"reservationId":1,"totalPrice":2000,"expiresAt":"2026-01-01T00:05:00.000Z","#,
    r#""reservedSeats":[{"seatId":1,"number":1,"price":1000},{"seatId":2,"number":2,"price":1000}]}"#
);

/// What a payment answers.
const PAID: &str = concat!(
    r#"{"paymentId":1,"reservationId":1,"paymentAmount":2000,"status":"COMPLETED","#,
    r#""paidAt":"2026-01-01T00:00:00.000Z"}"#
);

/// Sessions of the demo data's first concert, and seats of each.
const SESSIONS: u32 = 10;
const SEATS: u32 = 2_000;

/// Serves constant answers, as a baseline.
#[derive(Parser)]
struct Arguments {
    /// Address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
}

async fn hello() -> &'static str {
    "hello"
}

async fn join() -> impl IntoResponse {
    document(StatusCode::CREATED, JOINED.into())
}

async fn status() -> impl IntoResponse {
    document(StatusCode::OK, STATUS.into())
}

fn document(status: StatusCode, body: Bytes) -> impl IntoResponse {
    (status, [(CONTENT_TYPE, "application/json")], body)
}

/// A document with so many elements in a list.
fn list(begin: &str, count: u32, element: impl Fn(u32) -> String, end: &str) -> Bytes {
    let elements: Vec<String> = (1..=count).map(element).collect();
    format!("{begin}[{}]{end}", elements.join(",")).into()
}

/// The way from the list of sessions to the payment.
fn sale() -> Router {
    let session = |id| {
        format!(
            r#"{{"sessionId":{id},"concertAt":"2026-01-01T00:00:00.000Z","totalSeatCount":{SEATS},"availableSeatCount":{SEATS}}}"#
        )
    };
    let seat = |id| format!(r#"{{"seatId":{id},"number":{id},"status":"AVAILABLE","price":1000}}"#);
    let sessions = list(r#"{"sessions":"#, SESSIONS, session, "}");
    let begin = format!(r#"{{"totalSeatCount":{SEATS},"availableSeats":"#);
    let seats = list(&begin, SEATS, seat, r#","unavailableSeats":[]}"#);
    let created = |body: &'static str| {
        // The body is read, as a real one is.
        post(async move |_: Bytes| document(StatusCode::CREATED, body.into()))
    };
    Router::new()
        .route(
            "/api/v1/concerts/{id}/sessions",
            get(async move || document(StatusCode::OK, sessions)),
        )
        .route(
            "/api/v1/concerts/{id}/sessions/{session}/seats",
            get(async move || document(StatusCode::OK, seats)),
        )
        .route("/api/v1/concerts/{id}/sessions/{session}/reservations", created(RESERVED))
        .route("/api/v1/payments", created(PAID))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let mut limits = ListenerLimits::default();
    limits.max_connections =
        listener::cap_connections(limits.max_connections, listener::raise_open_files());
    let router = Router::new()
        .route("/hello", get(hello))
        .route("/api/v1/waiting-queues", get(status).post(join))
        .merge(sale());
    let socket = listener::bind(arguments.listen)?;
    println!("listening on http://{}", socket.local_addr()?);
    let metrics = Metrics::new();
    let service = |_| TowerToHyperService::new(router.clone());
    listener::serve(socket, service, limits, (&metrics).into(), async {
        let _ = tokio::signal::ctrl_c().await;
    })
    .await;
    Ok(())
}
