//! The states of seats as a stream.

use std::time::{Duration, Instant};

use boxoffice::http::problem::ErrorCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::seat_states::{Known, since};
use crate::common::{Call, OnSale, PATIENCE, TestService, delete, get, pay, post, until};

/// Something of a stream.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Event {
        id: String,
        data: Value,
    },
    Heartbeat,
    /// It ended in good order.
    End,
    /// The connection ended before the stream did.
    Cut,
}

/// A stream that is read.
struct Stream {
    connection: TcpStream,
    head: String,
    unread: Vec<u8>,
    text: String,
    ended: bool,
}

fn listen(hall: &OnSale, token: &str) -> Call {
    get(hall.path("seats/stream")).token(token)
}

impl Stream {
    async fn open(service: &TestService, call: Call) -> Self {
        let connection = TcpStream::connect(service.address()).await.unwrap();
        let mut stream = Self::on(connection, call).await;
        stream.read_head().await;
        stream
    }

    /// Asks, and reads nothing.
    async fn on(mut connection: TcpStream, call: Call) -> Self {
        connection.write_all(&call.to_bytes()).await.unwrap();
        let (head, text) = (String::new(), String::new());
        Self { connection, head, unread: Vec::new(), text, ended: false }
    }

    async fn read_head(&mut self) {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|it| it == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.more().await, "{}", String::from_utf8_lossy(&self.unread));
        };
        self.head = String::from_utf8(self.unread.drain(..end).collect()).unwrap();
        assert!(self.head.starts_with("HTTP/1.1 200 "), "{}", self.head);
    }

    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.connection.read_buf(&mut self.unread)).await;
        matches!(read.expect("nothing comes"), Ok(1..))
    }

    /// Takes what has come out of its chunks.
    fn unchunk(&mut self) {
        while let Some(line) = self.unread.windows(2).position(|it| it == b"\r\n") {
            let size = std::str::from_utf8(&self.unread[..line]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            let end = line + 2 + size + 2;
            if self.unread.len() < end {
                return;
            }
            self.text.push_str(std::str::from_utf8(&self.unread[line + 2..end - 2]).unwrap());
            self.unread.drain(..end);
            self.ended |= size == 0;
        }
    }

    async fn next(&mut self) -> Said {
        loop {
            self.unchunk();
            if let Some(end) = self.text.find("\n\n") {
                let said: String = self.text.drain(..end + 2).collect();
                return said_of(&said);
            }
            if self.ended {
                return Said::End;
            }
            if !self.more().await {
                return Said::Cut;
            }
        }
    }

    /// The next event, as a client takes it.
    async fn event(&mut self, known: &mut Known) -> Value {
        loop {
            match self.next().await {
                Said::Heartbeat => {}
                Said::Event { id, data } => {
                    known.read(&data);
                    assert_eq!(id, known.version);
                    return data;
                }
                other => panic!("{other:?} in place of an event"),
            }
        }
    }

    /// Reads on to the end.
    async fn end(&mut self) -> Said {
        loop {
            match self.next().await {
                end @ (Said::End | Said::Cut) => return end,
                Said::Event { .. } | Said::Heartbeat => {}
            }
        }
    }
}

fn said_of(text: &str) -> Said {
    if text == ":\n\n" {
        return Said::Heartbeat;
    }
    let lines: Vec<&str> = text.trim_end_matches('\n').split('\n').collect();
    let [event, id, data] = lines[..] else { panic!("{text:?}") };
    assert_eq!(event, "event: seats");
    let id = id.strip_prefix("id: ").unwrap().to_owned();
    Said::Event { id, data: serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap() }
}

async fn metric(service: &TestService, name: &str) -> u64 {
    let text = String::from_utf8(service.send(get("/metrics").admin()).await.body).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

async fn streams(service: &TestService, count: u64) {
    until("so many streams", async || {
        (metric(service, "boxoffice_seat_streams").await == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_tells_all_and_then_each_change() {
    let service = TestService::start_with(|config| {
        config.sales.hold_seconds = 2;
        // A stream is no request in progress.
        config.server.concurrency.browse = 1;
    })
    .await;
    let hall = service.concert(10, 5).await;
    service.charge(1, 100).await;
    let (mine, other, yours) =
        (service.token(1).await, service.token(3).await, service.token(2).await);
    let mut stream =
        Stream::open(&service, listen(&hall, &yours).header("Accept-Encoding", "gzip")).await;
    let head = stream.head.to_ascii_lowercase();
    for line in [
        "content-type: text/event-stream",
        "cache-control: no-store",
        "x-accel-buffering: no",
        "x-request-id: ",
    ] {
        assert!(head.contains(&format!("\r\n{line}")), "{head}");
    }
    assert!(!head.contains("content-encoding"), "{head}");
    let mut known = Known::default();
    let told = stream.event(&mut known).await;
    assert_eq!((&told["count"], known.all(0).len()), (&json!(10), 10));
    assert_eq!(told["seatIds"], json!([[1, hall.first_seat, 10]]));
    let held = service.send(hall.reserve(&mine, 1, &[2, 3])).await.ok(201);
    let told = stream.event(&mut known).await;
    assert_eq!(told, json!({"version": known.version, "held": [2, 3]}));
    service.send(pay(&mine, 1, held["reservationId"].as_i64().unwrap())).await.ok(201);
    let told = stream.event(&mut known).await;
    assert_eq!(told, json!({"version": known.version, "sold": [2, 3]}));
    let held = service.send(hall.reserve(&other, 3, &[9])).await.ok(201);
    assert_eq!(stream.event(&mut known).await["held"], json!([9]));
    let reservation = format!("/api/v1/reservations/{}", held["reservationId"]);
    service.send(delete(reservation).token(&other)).await.empty(204);
    assert_eq!(stream.event(&mut known).await["free"], json!([9]));
    // Time alone changes what is held.
    service.send(hall.reserve(&other, 3, &[7])).await.ok(201);
    assert_eq!(stream.event(&mut known).await["held"], json!([7]));
    assert_eq!(stream.event(&mut known).await["free"], json!([7]));
    assert_eq!((known.whole, known.all(2)), (1, vec![2, 3]));
    // What is asked for is the same.
    let asked = service.send(since(&hall, &yours, &known.version)).await.ok(200);
    assert_eq!(asked, json!({"version": known.version}));
    drop(stream);
    streams(&service, 0).await;
    service.finish().await;
}

#[tokio::test]
async fn a_stream_goes_on_where_the_last_one_ended() {
    let service = TestService::start().await;
    let hall = service.concert(10, 5).await;
    let (mine, yours) = (service.token(1).await, service.token(2).await);
    let mut known = Known::default();
    let mut stream = Stream::open(&service, listen(&hall, &yours)).await;
    stream.event(&mut known).await;
    drop(stream);
    service.send(hall.reserve(&mine, 1, &[5])).await.ok(201);
    let again = |id: &str| listen(&hall, &yours).header("Last-Event-ID", id);
    let mut stream = Stream::open(&service, again(&known.version)).await;
    assert_eq!(stream.event(&mut known).await["held"], json!([5]));
    assert_eq!(known.whole, 1);
    drop(stream);
    // Nothing is new: a sign of life comes, so that proxies pass on the head.
    let mut stream = Stream::open(&service, again(&known.version)).await;
    assert_eq!(stream.next().await, Said::Heartbeat);
    drop(stream);
    let long = "9".repeat(5_000);
    for unknown in ["", "0", "nonsense", "\u{e9}", &long] {
        let mut stream = Stream::open(&service, again(unknown)).await;
        let told = stream.event(&mut known).await;
        assert_eq!(told["count"], 10, "{unknown:.40}");
    }
    service.finish().await;
}

#[tokio::test]
async fn many_who_listen_are_told_the_same() {
    let service = TestService::start().await;
    let hall = service.concert(2_000, 5).await;
    let mut listeners = Vec::new();
    for user in 1..=40 {
        let token = service.token(user).await;
        let mut known = Known::default();
        let mut stream = Stream::open(&service, listen(&hall, &token)).await;
        stream.event(&mut known).await;
        listeners.push((stream, known));
    }
    streams(&service, 40).await;
    for user in 101..=120 {
        let token = service.token(user).await;
        let first = (user - 101) * 4;
        service.send(hall.reserve(&token, user, &[first + 1, first + 2, first + 3])).await.ok(201);
    }
    for (stream, known) in &mut listeners {
        while known.all(1).len() < 60 {
            stream.event(known).await;
        }
    }
    let versions: Vec<&str> = listeners.iter().map(|(_, known)| known.version.as_str()).collect();
    assert!(versions.windows(2).all(|two| two[0] == two[1]), "{versions:?}");
    assert!(listeners.iter().all(|(_, known)| known.states == listeners[0].1.states));
    assert!(listeners.iter().all(|(_, known)| known.whole == 1));
    assert_eq!(metric(&service, "boxoffice_seat_stream_resends_total").await, 0);
    drop(listeners);
    streams(&service, 0).await;
    // The next one begins anew.
    let token = service.token(1).await;
    let mut known = Known::default();
    let mut stream = Stream::open(&service, listen(&hall, &token)).await;
    stream.event(&mut known).await;
    let token = service.token(131).await;
    service.send(hall.reserve(&token, 131, &[2_000])).await.ok(201);
    assert_eq!(stream.event(&mut known).await["held"], json!([2_000]));
    service.finish().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_ticket() {
    let service = TestService::start_with(|config| {
        config.queue.active_ttl_seconds = 3;
        config.queue.claim_window_seconds = 3;
    })
    .await;
    let hall = service.concert(10, 5).await;
    let mut fan = service.client();
    service.charge(1, 100).await;
    // Its time runs out.
    let begun = Instant::now();
    let token = service.admitted(3).await;
    let mut stream = Stream::open(&service, listen(&hall, &token)).await;
    assert_eq!(stream.end().await, Said::End);
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    fan.send(listen(&hall, &token)).await.refused(ErrorCode::TokenExpired);
    // It pays.
    let token = service.admitted(1).await;
    let mut stream = Stream::open(&service, listen(&hall, &token)).await;
    let held = fan.send(hall.reserve(&token, 1, &[1])).await.ok(201);
    fan.send(pay(&token, 1, held["reservationId"].as_i64().unwrap())).await.ok(201);
    assert_eq!(stream.end().await, Said::End);
    fan.send(listen(&hall, &token)).await.refused(ErrorCode::TokenSpent);
    // It is given up; nothing happens to any seat then.
    let token = service.admitted(2).await;
    let mut stream = Stream::open(&service, listen(&hall, &token)).await;
    fan.send(delete("/api/v1/waiting-queues").token(&token)).await.empty(204);
    assert_eq!(stream.end().await, Said::End);
    fan.send(listen(&hall, &token)).await.refused(ErrorCode::TokenSpent);
    streams(&service, 0).await;
    service.finish().await;
}

#[tokio::test]
async fn streams_end_when_the_service_does_and_when_the_session_is_gone() {
    let service = TestService::start().await;
    let hall = service.concert(10, 5).await;
    let token = service.token(1).await;
    let mut gone = Stream::open(&service, listen(&hall, &token)).await;
    let session = format!("/admin/v1/concerts/{}/sessions/{}", hall.concert, hall.session);
    service.send(delete(session).admin()).await.empty(204);
    assert_eq!(gone.end().await, Said::End);
    let hall = service.session(hall.concert, 10, 5, crate::common::FUTURE).await;
    let mut stream = Stream::open(&service, listen(&hall, &token)).await;
    stream.event(&mut Known::default()).await;
    // An end in good order cuts nobody: this would fail.
    let begun = Instant::now();
    let ((), end) = tokio::join!(service.finish(), stream.end());
    assert_eq!(end, Said::End);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn there_are_only_so_many_streams() {
    let service = TestService::start_with(|config| config.server.streams_max = 3).await;
    let hall = service.concert(10, 5).await;
    let (one, two, three) =
        (service.token(1).await, service.token(2).await, service.token(3).await);
    let mut oldest = Stream::open(&service, listen(&hall, &one)).await;
    let _second = Stream::open(&service, listen(&hall, &one)).await;
    let _other = Stream::open(&service, listen(&hall, &two)).await;
    let refused = service.send(listen(&hall, &three)).await;
    refused.refused(ErrorCode::Overloaded);
    assert_eq!(refused.header("retry-after"), Some("10"));
    assert_eq!(metric(&service, "boxoffice_seat_streams_refused_total").await, 1);
    // It still learns what changes.
    service.send(since(&hall, &three, "0")).await.ok(200);
    // A ticket's third ends its first.
    let third = Stream::open(&service, listen(&hall, &one)).await;
    assert_eq!(oldest.end().await, Said::End);
    streams(&service, 3).await;
    drop(third);
    streams(&service, 2).await;
    drop(Stream::open(&service, listen(&hall, &three)).await);
    service.finish().await;
}

#[tokio::test]
async fn a_quiet_stream_shows_that_it_lives_and_is_not_idle() {
    let service = TestService::start_with(|config| config.server.idle_timeout_ms = 1_000).await;
    let hall = service.concert(10, 5).await;
    let token = service.token(1).await;
    let mut stream = Stream::open(&service, listen(&hall, &token)).await;
    stream.event(&mut Known::default()).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(stream.next().await, Said::Heartbeat);
    }
    service.finish().await;
}

#[tokio::test]
async fn a_stream_to_head_is_none() {
    let service = TestService::start().await;
    let hall = service.concert(10, 5).await;
    let token = service.token(1).await;
    let mut fan = service.client();
    for _ in 0..5 {
        let reply = fan.send(Call::new("HEAD", hall.path("seats/stream")).token(&token)).await;
        assert_eq!(reply.status, 200);
    }
    streams(&service, 0).await;
    service.finish().await;
}

/// A session of so many seats that telling all of them takes 133 KB; each seat that is added is told with all.
async fn large(write_timeout_ms: u64) -> (TestService, OnSale) {
    let service = TestService::start_with(|config| {
        config.server.write_timeout_ms = write_timeout_ms;
        config.server.max_body_bytes = 1 << 20;
    })
    .await;
    let hall = service.concert(200_000, 5).await;
    add_seats(&service, &hall, 200_000).await;
    (service, hall)
}

async fn add_seats(service: &TestService, hall: &OnSale, seats: u32) {
    let path = format!("/admin/v1/concerts/{}/sessions/{}/seats", hall.concert, hall.session);
    service.send(post(path).admin().json(json!({"seatCount": seats, "price": 5}))).await.ok(201);
}

/// A stream of which nothing is read yet, at a client that takes little ahead.
async fn unread(service: &TestService, hall: &OnSale, token: &str) -> Stream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let connection = socket.connect(service.address()).await.unwrap();
    Stream::on(connection, listen(hall, token)).await
}

/// Whoever reads too slowly misses what was told meanwhile, and has all the same at the end.
#[tokio::test]
async fn nothing_is_kept_for_those_who_read_slowly() {
    // However long a busy machine takes until it reads.
    let (service, hall) = large(3_600_000).await;
    let (one, two) = (service.token(1).await, service.token(2).await);
    let mut slow = unread(&service, &hall, &one).await;
    let mut reader = Stream::open(&service, listen(&hall, &two)).await;
    let mut known = Known::default();
    reader.event(&mut known).await;
    let events = async || metric(&service, "boxoffice_seat_stream_events_total").await;
    // Two are told, until one of them takes no more.
    let (mut rounds, mut blocked) = (0, 0);
    while blocked < 4 {
        assert!(rounds < 300, "it reads");
        let before = events().await;
        add_seats(&service, &hall, 1).await;
        reader.event(&mut known).await;
        rounds += 1;
        blocked = if events().await == before + 1 { blocked + 1 } else { 0 };
    }
    slow.read_head().await;
    let mut late = Known::default();
    let mut told = 0;
    while late.states.len() < known.states.len() {
        slow.event(&mut late).await;
        told += 1;
    }
    assert_eq!(late.states, known.states);
    assert!(told < rounds, "it was told all of {rounds}");
    drop((slow, reader));
    streams(&service, 0).await;
    service.finish().await;
}

#[tokio::test]
async fn whoever_does_not_read_is_cut() {
    let (service, hall) = large(1_000).await;
    let token = service.token(1).await;
    let mut stuck = unread(&service, &hall, &token).await;
    streams(&service, 1).await;
    until("its end", async || {
        add_seats(&service, &hall, 1).await;
        (metric(&service, "http_server_connections_cut_total").await == 1).then_some(())
    })
    .await;
    streams(&service, 0).await;
    stuck.read_head().await;
    assert_eq!(stuck.end().await, Said::Cut);
    service.finish().await;
}
