//! HTTP over connections that are kept, for making load. It never repeats a request by itself, and knows of
//! each one without an answer whether it was sent.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::clock;
use crate::witness::Seconds;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

type Sender = SendRequest<Full<Bytes>>;

/// The connection failed or the time was over.
#[derive(Clone, Debug)]
pub(crate) struct NoAnswer {
    pub(crate) reason: String,
    /// Whether what was asked may have been done.
    pub(crate) sent: bool,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By names in lower case.
    headers: HashMap<String, String>,
    pub(crate) body: Bytes,
    pub(crate) sent_at: Seconds,
    pub(crate) at: Seconds,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn json(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// The error code; empty where there is none.
    pub(crate) fn code(&self) -> String {
        let code = self.json().ok().and_then(|body| Some(body["code"].as_str()?.to_owned()));
        code.unwrap_or_default()
    }

    /// The beginning of the body.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(300).collect()
    }
}

/// A request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) token: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) body: Option<Value>,
}

/// Kept connections to several servers of 127.0.0.1.
#[derive(Debug, Default)]
pub(crate) struct Client {
    idle: Mutex<HashMap<u16, Vec<Sender>>>,
}

impl Client {
    /// Sends a request and waits for the whole answer.
    pub(crate) async fn send(&self, port: u16, call: &Call<'_>) -> Result<Answer, NoAnswer> {
        let mut sent = false;
        match tokio::time::timeout(PATIENCE, self.exchange(port, call, &mut sent)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(reason)) => Err(NoAnswer { reason, sent }),
            Err(_) => Err(NoAnswer { reason: "timeout".to_owned(), sent }),
        }
    }

    async fn exchange(
        &self,
        port: u16,
        call: &Call<'_>,
        sent: &mut bool,
    ) -> Result<Answer, String> {
        let sent_at = clock::now();
        let mut sender = self.connection(port).await.map_err(|error| error.to_string())?;
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(&call.path)
            .header("host", "boxoffice");
        if let Some(token) = call.token {
            request = request.header("queue-token", token);
        }
        if let Some(key) = call.key {
            request = request.header("idempotency-key", key);
        }
        let body = match &call.body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        *sent = true;
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                // What comes back was never written.
                *sent = error.take_message().is_none();
                return Err(error.into_error().to_string());
            }
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        let headers = head.headers.iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let answer = Answer {
            status: head.status.as_u16(),
            headers: headers.collect(),
            body,
            sent_at,
            at: clock::now(),
        };
        self.idle().entry(port).or_default().push(sender);
        Ok(answer)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<u16, Vec<Sender>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(
        &self,
        port: u16,
    ) -> Result<Sender, Box<dyn std::error::Error + Send + Sync>> {
        loop {
            let kept = self.idle().get_mut(&port).and_then(Vec::pop);
            let Some(mut kept) = kept else { break };
            if kept.ready().await.is_ok() {
                return Ok(kept);
            }
        }
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with its sender.
        tokio::spawn(connection);
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn call() -> Call<'static> {
        Call { method: Method::GET, path: "/".to_owned(), ..Call::default() }
    }

    #[tokio::test]
    async fn a_refused_connection_is_not_sent_and_a_broken_one_is() {
        let client = Client::default();
        let port = testbed::free_port().unwrap();
        assert!(!client.send(port, &call()).await.unwrap_err().sent);
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let server = std::thread::spawn(move || {
            // The first is answered, on a connection that stays; then it ends in the middle of the second.
            let (mut stream, _) = listener.accept().unwrap();
            let mut chunk = [0; 1024];
            assert!(stream.read(&mut chunk).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\n{}").unwrap();
            assert!(stream.read(&mut chunk).unwrap() > 0);
        });
        let answer = client.send(port, &call()).await.unwrap();
        assert_eq!(
            (answer.status, answer.header("x-a"), answer.text().as_str()),
            (200, Some("b"), "{}")
        );
        assert!(client.send(port, &call()).await.unwrap_err().sent);
        server.join().unwrap();
        assert!(!client.send(port, &call()).await.unwrap_err().sent);
    }
}
