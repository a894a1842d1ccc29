//! Alertmanager, and whom it tells.

use std::convert::Infallible;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::engine::{Engine, Ready, words};
use crate::ports::free_port;
use crate::tools::tool;

/// A running Alertmanager.
#[derive(Debug)]
pub struct Alertmanager {
    /// The process.
    pub engine: Engine,
    /// Its port.
    pub port: u16,
}

impl Alertmanager {
    /// Starts it with a configuration, in a directory that is made for it.
    pub fn start(directory: &Path, configuration: &str, cpus: &[usize]) -> Result<Self, String> {
        let failed = |error| format!("{}: {error}", directory.display());
        std::fs::create_dir_all(directory).map_err(failed)?;
        let file = directory.join("alertmanager.yml");
        std::fs::write(&file, configuration).map_err(failed)?;
        let port = free_port()?;
        let mut line = words([&tool("prometheus-alertmanager")?]);
        line.push(format!("--config.file={}", file.display()).into());
        line.push(format!("--storage.path={}", directory.join("alerts").display()).into());
        line.push(format!("--web.listen-address=127.0.0.1:{port}").into());
        line.push("--cluster.listen-address=".into());
        let ready = Ready::Http(format!("http://127.0.0.1:{port}/-/ready"));
        let log = directory.join("alertmanager.log");
        let engine = Engine::start("Alertmanager", line, cpus, &log, ready)?;
        Ok(Self { engine, port })
    }
}

/// What a webhook was told, and when.
#[derive(Clone, Debug)]
pub struct Notification {
    /// When it came.
    pub at: Instant,
    /// The `Authorization` of the request; empty where there was none.
    pub authorization: String,
    /// The whole body; null where it is no JSON.
    pub body: Value,
}

impl Notification {
    /// Returns names of the alerts that fire, or that are over.
    pub fn alerts(&self, firing: bool) -> Vec<String> {
        let wanted = if firing { "firing" } else { "resolved" };
        let alerts = self.body["alerts"].as_array().into_iter().flatten();
        alerts
            .filter(|alert| alert["status"] == wanted)
            .filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned()))
            .collect()
    }
}

type Heard = Arc<Mutex<Vec<Notification>>>;

fn locked(heard: &Heard) -> MutexGuard<'_, Vec<Notification>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A receiver that writes down each notification, on a thread of its own.
#[derive(Debug)]
pub struct Webhook {
    /// Its port.
    pub port: u16,
    heard: Heard,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Webhook {
    /// Starts to listen.
    pub fn start() -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("the webhook does not start: {error}");
        let port = free_port()?;
        let listener = TcpListener::bind(("127.0.0.1", port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (heard, (stop, stopped)) = (Heard::default(), oneshot::channel());
        let notes = heard.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, notes) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { port, heard, stop: Some(stop), thread: Some(thread) })
    }

    /// Where notifications are to be sent.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Returns all that it was told so far, in the order in which it came.
    pub fn heard(&self) -> Vec<Notification> {
        locked(&self.heard).clone()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, heard: Heard) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let heard = heard.clone();
        let service = service_fn(move |request| note(request, heard.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn note(
    request: Request<Incoming>,
    heard: Heard,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let at = Instant::now();
    let authorization = request.headers().get("authorization");
    let authorization = authorization.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let authorization = authorization.to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    locked(&heard).push(Notification { at, authorization, body });
    Ok(Response::new(Full::default()))
}
