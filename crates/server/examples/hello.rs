//! The baseline of the benchmarks: a bare axum router on the product's own listener.
//!
//! It answers `GET /hello` with a text, and the queue's two hottest calls with constant documents
//! of the size of the real ones, so that the same k6 script can be run against it. What the product
//! costs above this is what the product does; what this costs is the HTTP stack, the kernel and
//! the load generator.
//!
//! ```text
//! cargo run --release --example hello -- --listen 127.0.0.1:8081
//! ```

use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
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
    (StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], JOINED)
}

async fn status() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], STATUS)
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let mut limits = ListenerLimits::default();
    limits.max_connections =
        listener::cap_connections(limits.max_connections, listener::raise_open_files());
    let router = Router::new()
        .route("/hello", get(hello))
        .route("/api/v1/waiting-queues", get(status).post(join));
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
