//! Many HTTP clients at once, for checks of what happens at the same moment.
//!
//! [`at_once`] sends a handful of requests in the same instant, each over a connection that is open before.
//! [`steadily`] lets a number of connections ask one request after another until it is told to stop. [`joins`]
//! lets threads join a queue as fast as they can, and says when each was asked for and answered.
//!
//! Plain sockets under one epoll: no client of a library says when the last byte of a request is sent.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use serde_json::{Value, json};
use testbed::signals;

use super::QUEUES;
use crate::clock;
use crate::witness::Seconds;

const CONNECT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// A server that is asked all the time answers somebody sooner than this.
const PATIENCE_OF_JOINS: Duration = Duration::from_secs(10);
/// How often somebody looks whether all is to end.
const SLICE: Duration = Duration::from_millis(250);
/// How many connections are read before somebody is asked again.
const EVENTS: usize = 256;
/// The headers of an answer; ours have about ten.
const HEADERS_MAX: usize = 64;

/// What a request was told: its status and the code of a refusal, empty where there is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) code: String,
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.code)
    }
}

/// One answer; status 0 where the connection broke.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) reply: Reply,
    /// Seconds to wait before it is tried again, where the answer says so.
    pub(super) retry_after: Option<String>,
    pub(super) body: String,
    pub(super) asked: Seconds,
    pub(super) answered: Seconds,
}

impl Answer {
    fn of(arrived: Arrived) -> Self {
        let Arrived { whole, asked, answered, .. } = arrived;
        let whole = whole.unwrap_or_default();
        let body = String::from_utf8_lossy(&whole.bytes[whole.body..]).into_owned();
        // Only refusals have one, and there are very many other answers.
        let code = if whole.status >= 400 {
            let body = serde_json::from_str::<Value>(&body);
            body.ok().and_then(|body| Some(body["code"].as_str()?.to_owned()))
        } else {
            None
        };
        let reply = Reply { status: whole.status, code: code.unwrap_or_default() };
        Self { reply, retry_after: whole.retry_after, body, asked, answered }
    }

    pub(super) const fn status(&self) -> u16 {
        self.reply.status
    }

    pub(super) fn is(&self, status: u16, code: &str) -> bool {
        self.reply.status == status && self.reply.code == code
    }

    pub(super) fn json(&self) -> Result<Value, String> {
        serde_json::from_str(&self.body)
            .map_err(|error| format!("an answer is not JSON: {error}: {}", self.text()))
    }

    /// Status and the beginning of the body, for a message.
    pub(super) fn text(&self) -> String {
        format!("{}: {}", self.status(), testbed::http::clip(&self.body))
    }
}

/// Returns a request as bytes.
pub(super) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Vec<u8> {
    let mut text =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    let body = body.map(Value::to_string);
    if body.is_some() {
        text += "Content-Type: application/json\r\n";
    }
    let body = body.unwrap_or_default();
    if method != "GET" {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    (text + "\r\n" + &body).into_bytes()
}

/// Returns the request by which a ticket is polled.
pub(super) fn poll(token: &str) -> Vec<u8> {
    request("GET", QUEUES, &[("QUEUE-TOKEN", token)], None)
}

/// An answer that has arrived as a whole.
#[derive(Debug, Default)]
struct Whole {
    status: u16,
    retry_after: Option<String>,
    bytes: Vec<u8>,
    /// Where the body begins.
    body: usize,
}

/// Takes what has been received, if it is a whole answer. Ours say how long they are.
fn whole(received: &mut Vec<u8>) -> Result<Option<Whole>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(received).map_err(|error| format!("an answer is not HTTP: {error}"))?;
    let httparse::Status::Complete(begin) = parsed else { return Ok(None) };
    let header = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).into_owned())
    };
    let length = match header("content-length") {
        Some(text) => text.parse().map_err(|_| format!("an answer of {text} bytes"))?,
        None => 0,
    };
    if received.len() < begin + length {
        return Ok(None);
    }
    let (status, retry_after) = (head.code.unwrap_or(0), header("retry-after"));
    let mut bytes = std::mem::take(received);
    bytes.truncate(begin + length);
    Ok(Some(Whole { status, retry_after, bytes, body: begin }))
}

/// One connection.
struct Wire {
    stream: TcpStream,
    port: u16,
    /// When the request was sent that is not answered yet.
    asked: Option<Seconds>,
    received: Vec<u8>,
}

impl Wire {
    fn send(&mut self, data: &[u8]) -> Result<(), String> {
        self.stream
            .write_all(data)
            .map_err(|error| format!("the instance at port {} takes nothing: {error}", self.port))
    }

    /// Sends the rest of a request, which begins to count now.
    fn ask(&mut self, data: &[u8]) -> Result<(), String> {
        self.asked = Some(clock::now());
        self.send(data)
    }
}

/// What came for a request.
struct Arrived {
    wire: usize,
    asked: Seconds,
    answered: Seconds,
    /// None where the connection broke.
    whole: Option<Whole>,
}

/// Connections, on all of which answers are waited for together.
struct Wires {
    epoll: OwnedFd,
    all: Vec<Wire>,
    chunk: Vec<u8>,
}

impl Wires {
    fn open(ports: impl Iterator<Item = u16>) -> Result<Self, String> {
        let failed = |error| format!("epoll: {error}");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let mut all = Vec::new();
        for port in ports {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let stream = TcpStream::connect_timeout(&address, CONNECT);
            let stream =
                stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream)).map_err(
                    |error| format!("cannot connect to the instance at port {port}: {error}"),
                )?;
            let data = epoll::EventData::new_u64(all.len() as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN).map_err(failed)?;
            all.push(Wire { stream, port, asked: None, received: Vec::new() });
        }
        Ok(Self { epoll, all, chunk: vec![0; 65_536] })
    }

    /// How many requests have no answer yet.
    fn under_way(&self) -> usize {
        self.all.iter().filter(|wire| wire.asked.is_some()).count()
    }

    /// Waits until something has arrived, and returns all that has.
    fn arrived(&mut self, patience: Duration) -> Result<Vec<Arrived>, String> {
        let until = Instant::now() + patience;
        let mut arrived = Vec::new();
        while arrived.is_empty() {
            if signals::stopped() {
                return Err("stopped by hand".to_owned());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!(
                    "{} of {} requests had no answer within {:.0} s",
                    self.under_way(),
                    self.all.len(),
                    patience.as_secs_f64()
                ));
            }
            let timeout = Timespec::try_from(left.min(SLICE)).map_err(|error| error.to_string())?;
            let mut events = Vec::with_capacity(EVENTS);
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("epoll: {error}")),
            }
            for event in events {
                arrived.extend(self.read(event.data.u64() as usize)?);
            }
        }
        Ok(arrived)
    }

    fn read(&mut self, number: usize) -> Result<Option<Arrived>, String> {
        let wire = &mut self.all[number];
        let count = match wire.stream.read(&mut self.chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(None),
            // Reset.
            Err(_) => 0,
        };
        let answered = clock::now();
        let came = if count == 0 {
            // Else it would be told again and again that there is nothing more.
            epoll::delete(&self.epoll, &wire.stream).map_err(|error| format!("epoll: {error}"))?;
            None
        } else {
            wire.received.extend_from_slice(&self.chunk[..count]);
            match whole(&mut wire.received)? {
                Some(whole) => Some(whole),
                None => return Ok(None),
            }
        };
        let asked = wire.asked.take();
        Ok(asked.map(|asked| Arrived { wire: number, asked, answered, whole: came }))
    }

    /// The same of connections that must not break.
    fn answered(&mut self, patience: Duration) -> Result<Vec<(Arrived, Whole)>, String> {
        let mut all = Vec::new();
        for mut arrived in self.arrived(patience)? {
            let port = self.all[arrived.wire].port;
            let whole = arrived.whole.take().ok_or_else(|| {
                format!("the instance at port {port} closed a connection before it answered")
            })?;
            all.push((arrived, whole));
        }
        Ok(all)
    }
}

/// A connection that is kept, for one request after another.
pub(super) struct Client(Wires);

impl Client {
    /// Connects.
    pub(super) fn connect(port: u16) -> Result<Self, String> {
        Wires::open(std::iter::once(port)).map(Self)
    }

    /// Sends a request and waits for its answer.
    pub(super) fn send(&mut self, data: &[u8]) -> Result<Answer, String> {
        self.0.all[0].ask(data)?;
        let (mut arrived, whole) =
            self.0.answered(PATIENCE)?.pop().ok_or("an answer got lost on its way")?;
        arrived.whole = Some(whole);
        Ok(Answer::of(arrived))
    }
}

/// A request, and the port that it goes to.
pub(super) type Call = (u16, Vec<u8>);

/// Sends all calls in the same instant: every server has all of a request but its last byte before the first of
/// these is sent.
pub(super) fn at_once(calls: &[Call]) -> Result<Vec<Answer>, String> {
    in_turn(calls, Duration::ZERO)
}

/// The same with so much time between one and the next.
pub(super) fn in_turn(calls: &[Call], gap: Duration) -> Result<Vec<Answer>, String> {
    let mut wires = Wires::open(calls.iter().map(|(port, _)| *port))?;
    let mut last = Vec::new();
    for (wire, (_, data)) in wires.all.iter_mut().zip(calls) {
        let (most, rest) = data.split_at(data.len().saturating_sub(1));
        wire.send(most)?;
        last.push(rest);
    }
    for (wire, rest) in wires.all.iter_mut().zip(last) {
        wire.ask(rest)?;
        if !gap.is_zero() {
            std::thread::sleep(gap);
        }
    }
    collect(wires)
}

/// Sends all calls at a moment, whole, because their time is when their head arrives.
pub(super) fn at_moment(calls: &[Call], moment: SystemTime) -> Result<Vec<Answer>, String> {
    let mut wires = Wires::open(calls.iter().map(|(port, _)| *port))?;
    // A moment that is over is now.
    std::thread::sleep(moment.duration_since(SystemTime::now()).unwrap_or_default());
    for (wire, (_, data)) in wires.all.iter_mut().zip(calls) {
        wire.ask(data)?;
    }
    collect(wires)
}

/// Waits for all answers, and returns them in the order of their requests.
fn collect(mut wires: Wires) -> Result<Vec<Answer>, String> {
    let mut answers: Vec<Option<Answer>> = vec![None; wires.all.len()];
    let until = Instant::now() + PATIENCE;
    let mut left = answers.len();
    while left > 0 {
        for arrived in wires.arrived(until.saturating_duration_since(Instant::now()))? {
            let number = arrived.wire;
            answers[number] = Some(Answer::of(arrived));
            left -= 1;
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

/// Lets so many connections, spread over the ports, send the requests, each the next as soon as it is answered,
/// until `stop`. Returns all answers in the order in which they came, without their bodies.
pub(super) fn steadily(
    ports: &[u16],
    requests: impl IntoIterator<Item = Vec<u8>>,
    connections: usize,
    stop: &AtomicBool,
) -> Result<Vec<Answer>, String> {
    let mut requests = requests.into_iter();
    let mut next = move || requests.next().ok_or("there was nothing left to ask for");
    let mut wires = Wires::open(ports.iter().copied().cycle().take(connections))?;
    for wire in &mut wires.all {
        wire.ask(&next()?)?;
    }
    let mut under_way = connections;
    let mut answers = Vec::new();
    while under_way > 0 {
        for (mut arrived, whole) in wires.answered(PATIENCE)? {
            let number = arrived.wire;
            arrived.whole = Some(whole);
            let mut answer = Answer::of(arrived);
            // There will be hundreds of thousands.
            answer.body = String::new();
            answers.push(answer);
            if stop.load(Ordering::Relaxed) {
                under_way -= 1;
            } else {
                wires.all[number].ask(&next()?)?;
            }
        }
    }
    Ok(answers)
}

/// A join that was answered: when, where, with which number.
#[derive(Clone, Debug)]
pub(super) struct Join {
    pub(super) asked: Seconds,
    pub(super) answered: Seconds,
    /// Which of the ports.
    pub(super) instance: usize,
    pub(super) number: u64,
    pub(super) token: String,
}

/// Joins, and by status how many were refused.
#[derive(Debug, Default)]
pub(super) struct Joins {
    pub(super) made: Vec<Join>,
    pub(super) refused: BTreeMap<u16, usize>,
}

/// Who joins what, and how many of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rush<'a> {
    pub(super) queue: &'a str,
    pub(super) total: usize,
    pub(super) connections: usize,
    pub(super) threads: usize,
}

/// Joins as fast as it goes, over connections that are spread over the ports.
pub(super) fn joins(ports: &[u16], rush: Rush<'_>) -> Result<Joins, String> {
    let threads = rush.threads;
    // All are open before the first of them asks.
    let wires = (0..threads).map(|first| {
        let ports = ports.iter().copied().cycle().skip(first);
        Wires::open(ports.take(rush.connections / threads))
    });
    let wires = wires.collect::<Result<Vec<_>, _>>()?;
    let bodies: Vec<Vec<u8>> = (1..=1_000)
        .map(|user| {
            let body = json!({"userId": user, "queue": rush.queue});
            request("POST", QUEUES, &[], Some(&body))
        })
        .collect();
    let start = Barrier::new(threads);
    let parts: Vec<Result<Part, String>> = std::thread::scope(|scope| {
        let (bodies, start) = (&bodies, &start);
        let running: Vec<_> = wires
            .into_iter()
            .enumerate()
            .map(|(index, wires)| {
                let share = rush.total / threads + usize::from(index < rush.total % threads);
                scope.spawn(move || {
                    start.wait();
                    part(wires, share, bodies)
                })
            })
            .collect();
        let broken = |_| Err("a client panicked".to_owned());
        running.into_iter().map(|thread| thread.join().unwrap_or_else(broken)).collect()
    });
    let mut all = Joins::default();
    for (first, part) in parts.into_iter().enumerate() {
        let part = part?;
        for (status, count) in part.refused {
            *all.refused.entry(status).or_default() += count;
        }
        for (arrived, whole) in part.made {
            let token = token_of(&whole.bytes[whole.body..])?;
            all.made.push(Join {
                asked: arrived.asked,
                answered: arrived.answered,
                instance: (arrived.wire + first) % ports.len(),
                number: number_of(&token)?,
                token,
            });
        }
    }
    Ok(all)
}

#[derive(Default)]
struct Part {
    // Read when all is over: it would take time from the next join.
    made: Vec<(Arrived, Whole)>,
    refused: BTreeMap<u16, usize>,
}

fn part(mut wires: Wires, share: usize, bodies: &[Vec<u8>]) -> Result<Part, String> {
    let mut part = Part::default();
    let mut next = bodies.iter().cycle().take(share);
    for wire in &mut wires.all {
        if let Some(body) = next.next() {
            wire.ask(body)?;
        }
    }
    let mut left = share;
    while left > 0 {
        for (arrived, whole) in wires.answered(PATIENCE_OF_JOINS)? {
            left -= 1;
            let wire = arrived.wire;
            if whole.status == 201 {
                part.made.push((arrived, whole));
            } else {
                *part.refused.entry(whole.status).or_default() += 1;
            }
            if let Some(body) = next.next() {
                wires.all[wire].ask(body)?;
            }
        }
    }
    Ok(part)
}

fn token_of(body: &[u8]) -> Result<String, String> {
    let body: Value =
        serde_json::from_slice(body).map_err(|error| format!("a join is not JSON: {error}"))?;
    body["token"].as_str().map(str::to_owned).ok_or_else(|| "a join without a token".to_owned())
}

fn number_of(token: &str) -> Result<u64, String> {
    let number = || {
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        serde_json::from_slice::<Value>(&claims).ok()?["seq"].as_u64()
    };
    number().ok_or_else(|| format!("a token without a number: {token}"))
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_answer_is_whole_when_all_of_it_is_there() {
        let text = b"HTTP/1.1 503 Away\r\ncontent-Length: 4\r\nRetry-After: 2\r\n\r\nabcd";
        for cut in 0..text.len() {
            assert!(whole(&mut text[..cut].to_vec()).unwrap().is_none(), "{cut}");
        }
        let mut received = text.to_vec();
        let got = whole(&mut received).unwrap().unwrap();
        assert_eq!((got.status, &got.bytes[got.body..]), (503, b"abcd".as_slice()));
        assert_eq!(got.retry_after.as_deref(), Some("2"));
        assert!(received.is_empty());
        let bare = whole(&mut b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()).unwrap().unwrap();
        assert_eq!((bare.status, bare.bytes.len()), (204, bare.body));
        assert!(whole(&mut b"SSH-2.0\r\n\r\n".to_vec()).is_err());
    }

    #[test]
    fn a_number_is_read_from_its_token() {
        let token = format!("v1.{}.signature", URL_SAFE_NO_PAD.encode(r#"{"seq":41}"#));
        assert_eq!(number_of(&token), Ok(41));
        for broken in ["", "v1", "v1.!.x", &format!("v1.{}.x", URL_SAFE_NO_PAD.encode("{}"))] {
            assert!(number_of(broken).unwrap_err().contains("without a number"), "{broken}");
        }
    }

    /// A server that reads a request of each of `count` connections, and says which path and what more was there
    /// before the last byte of it.
    fn serve(count: usize, answer: &'static [u8]) -> (u16, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (to, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let streams: Vec<_> = (0..count).map(|_| listener.accept().unwrap().0).collect();
            for stream in streams {
                let mut reader = std::io::BufReader::new(stream);
                let (mut first, mut line) = (String::new(), String::new());
                reader.read_line(&mut first).unwrap();
                let mut length = 0;
                while reader.read_line(&mut line).unwrap() > 2 {
                    if let Some(text) = line.strip_prefix("Content-Length: ") {
                        length = text.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                to.send(format!("{first}{}", String::from_utf8(body).unwrap())).unwrap();
                reader.get_mut().write_all(answer).unwrap();
            }
        });
        (port, heard)
    }

    #[test]
    fn requests_that_are_sent_at_once_arrive_whole_and_answers_keep_their_order() {
        const TAKEN: &[u8] =
            b"HTTP/1.1 409 C\r\nContent-Length: 21\r\n\r\n{\"code\":\"SEAT_TAKEN\"}";
        let (port, heard) = serve(2, TAKEN);
        let (other, _) = serve(1, b"");
        let body = json!({"a": 1});
        let calls = [
            (port, request("POST", "/a", &[("Idempotency-Key", "k")], Some(&body))),
            (other, poll("t")),
            (port, request("DELETE", "/b", &[], None)),
        ];
        let answers = at_once(&calls).unwrap();
        assert!(answers[0].is(409, "SEAT_TAKEN") && answers[2].is(409, "SEAT_TAKEN"));
        // Closed without an answer.
        assert_eq!(answers[1].reply, Reply { status: 0, code: String::new() });
        assert!(answers.iter().all(|answer| answer.asked <= answer.answered));
        assert_eq!(heard.recv().unwrap(), "POST /a HTTP/1.1\r\n{\"a\":1}");
        assert_eq!(heard.recv().unwrap(), "DELETE /b HTTP/1.1\r\n");
    }

    #[test]
    fn requests_in_turn_leave_time_between() {
        let (port, heard) = serve(2, b"HTTP/1.1 204 N\r\n\r\n");
        let calls = [(port, poll("t")), (port, poll("u"))];
        let answers = in_turn(&calls, Duration::from_millis(50)).unwrap();
        assert!(answers[1].asked - answers[0].asked >= 0.05, "{answers:?}");
        assert!(heard.recv().is_ok() && heard.recv().is_ok());
    }

    #[test]
    fn requests_of_a_moment_wait_for_it() {
        let (port, heard) = serve(1, b"HTTP/1.1 204 N\r\n\r\n");
        let moment = SystemTime::now() + Duration::from_millis(80);
        let began = Instant::now();
        let answers = at_moment(&[(port, poll("t"))], moment).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(75), "{:?}", began.elapsed());
        assert_eq!(answers[0].status(), 204);
        assert_eq!(heard.recv().unwrap(), format!("GET {QUEUES} HTTP/1.1\r\n"));
    }

    #[test]
    fn whoever_asks_steadily_wants_every_answer() {
        let stop = AtomicBool::new(false);
        let (port, _heard) = serve(2, b"");
        let error = steadily(&[port], std::iter::repeat(poll("t")), 2, &stop).unwrap_err();
        assert!(error.contains("closed a connection"), "{error}");
        let (port, _heard) = serve(2, b"HTTP/1.1 201 C\r\nContent-Length: 1\r\n\r\nx");
        let error = steadily(&[port], vec![poll("t")], 2, &stop).unwrap_err();
        assert!(error.contains("nothing left"), "{error}");
        stop.store(true, Ordering::Relaxed);
        let (port, _heard) = serve(2, b"HTTP/1.1 201 C\r\nContent-Length: 1\r\n\r\nx");
        let answers = steadily(&[port], std::iter::repeat(poll("t")), 2, &stop).unwrap();
        assert_eq!(answers.iter().map(Answer::status).collect::<Vec<_>>(), [201, 201]);
    }
}
