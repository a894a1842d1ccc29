//! The load itself: connections, who asks next, and what came of it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use serde_json::json;

use super::Options;
use super::answer::{self, Answer};
use super::calendar::Calendar;
use super::histogram::Histogram;
use super::usage::{self, Usage};

const PATH: &str = "/api/v1/waiting-queues";
/// The events of the timer; a connection's are its number.
const TIMER: u64 = u64::MAX;
/// Requests that are sent before answers are looked for, and the other way round: neither has to wait long.
const SENT_AT_ONCE: usize = 8;
const EVENTS_AT_ONCE: usize = 32;
/// A poll that failed is due again after this, as a page would try it.
const AGAIN_MS: u64 = 5_000;
/// How long answers are waited for at the end. What has not come by then never came.
const PATIENCE_US: u64 = 10_000_000;
const PROGRESS_US: u64 = 5_000_000;
const SECOND_US: u64 = 1_000_000;

/// What a connection waits for.
#[derive(Clone, Copy)]
enum Asked {
    Join,
    Poll { ticket: u32, due_ms: u64 },
}

struct Connection {
    stream: TcpStream,
    /// And when that was.
    asked: Option<(Asked, u64)>,
    /// The beginning of an answer that came in pieces.
    kept: Vec<u8>,
}

/// Tickets, each with the last number that it had.
#[derive(Default)]
struct Tickets {
    tokens: Vec<u8>,
    ends: Vec<usize>,
    numbers: Vec<u32>,
}

impl Tickets {
    fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    fn token(&self, ticket: u32) -> &[u8] {
        let ticket = ticket as usize;
        let begin = if ticket == 0 { 0 } else { self.ends[ticket - 1] };
        &self.tokens[begin..self.ends[ticket]]
    }

    fn add(&mut self, token: &[u8], number: u64) -> u32 {
        self.tokens.extend_from_slice(token);
        self.ends.push(self.tokens.len());
        self.numbers.push(number as u32);
        self.len() - 1
    }
}

/// What came of it.
pub(crate) struct Report {
    joins: Histogram,
    joining_us: u64,
    /// Of the polls that were due in the seconds that are counted.
    from_due: Histogram,
    from_sent: Histogram,
    /// Polls that were answered as they should be, first to last.
    polls: u64,
    /// The same in each second that is counted, by when the answer came.
    by_second: Vec<u64>,
    admitted: u64,
    failures: BTreeMap<String, u64>,
    poll_bytes: (u64, u64),
    usages: Vec<Usage>,
}

/// Runs the load to its end.
///
/// # Errors
/// Where the service cannot be reached at all.
pub(crate) fn run(options: &Options) -> Result<Report, String> {
    let mut load = Load::new(options)?;
    load.run()?;
    Ok(load.report)
}

/// Where the run is; each stage begins at a time.
#[derive(Clone, Copy)]
enum Stage {
    Joining,
    Settling { until_us: u64 },
    Counting,
    Ending { until_us: u64 },
}

struct Load<'a> {
    options: &'a Options,
    head_of_poll: Vec<u8>,
    head_of_join: Vec<u8>,
    epoll: OwnedFd,
    timer: OwnedFd,
    began: Instant,
    connections: Vec<Connection>,
    /// The one that has been idle for longest comes first, so that none is idle for too long.
    free: VecDeque<u32>,
    tickets: Tickets,
    calendar: Calendar,
    due: VecDeque<(u32, u64)>,
    /// Whether the last request was a poll.
    was_poll: bool,
    joins_begun: u32,
    joins_done: u32,
    stage: Stage,
    /// The milliseconds that are counted, once they are known.
    counted_ms: (u64, u64),
    request: Vec<u8>,
    scratch: Vec<u8>,
    progress: (u64, u64),
    report: Report,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options) -> Result<Self, String> {
        let failed = |error: rustix::io::Errno| format!("cannot wait for events: {error}");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        // By epoll alone a wait ends up to a millisecond late.
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK).map_err(failed)?;
        let began = Instant::now();
        let millisecond = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let every = Itimerspec { it_interval: millisecond, it_value: millisecond };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every).map_err(failed)?;
        let data = epoll::EventData::new_u64(TIMER);
        epoll::add(&epoll, &timer, data, epoll::EventFlags::IN).map_err(failed)?;
        let people = options.people;
        let mut tickets = Tickets::default();
        tickets.tokens.reserve(people as usize * 256);
        tickets.ends.reserve(people as usize);
        tickets.numbers.reserve(people as usize);
        let head = |method| {
            format!(
                "{method} {PATH} HTTP/1.1\r\nHost: {}\r\naccept: application/json\r\n",
                options.address
            )
        };
        let mut load = Self {
            options,
            head_of_poll: format!("{}accept-encoding: gzip\r\nQUEUE-TOKEN: ", head("GET")).into(),
            head_of_join: format!(
                "{}Content-Type: application/json\r\nContent-Length: ",
                head("POST")
            )
            .into(),
            epoll,
            timer,
            began,
            connections: Vec::new(),
            free: VecDeque::new(),
            tickets,
            calendar: Calendar::new(people),
            due: VecDeque::new(),
            was_poll: false,
            joins_begun: 0,
            joins_done: 0,
            stage: Stage::Joining,
            counted_ms: (u64::MAX, u64::MAX),
            request: Vec::new(),
            scratch: vec![0; 16 * 1024],
            progress: (PROGRESS_US, 0),
            report: Report {
                joins: Histogram::new(),
                joining_us: 0,
                from_due: Histogram::new(),
                from_sent: Histogram::new(),
                polls: 0,
                by_second: vec![0; options.seconds as usize],
                admitted: 0,
                failures: BTreeMap::new(),
                poll_bytes: (0, 0),
                usages: Vec::new(),
            },
        };
        load.look()?;
        for number in 0..options.connections {
            let stream = load.connect(number)?;
            load.connections.push(Connection { stream, asked: None, kept: Vec::new() });
            load.free.push_back(number);
        }
        Ok(load)
    }

    fn connect(&self, number: u32) -> Result<TcpStream, String> {
        let address = self.options.address;
        let failed = |error: std::io::Error| format!("cannot connect to {address}: {error}");
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        let data = epoll::EventData::new_u64(number.into());
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)
            .map_err(|error| failed(error.into()))?;
        Ok(stream)
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn look(&mut self) -> Result<(), String> {
        self.report.usages.push(usage::now(self.options.pid)?);
        Ok(())
    }

    fn run(&mut self) -> Result<(), String> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_AT_ONCE);
        // Connecting is not joining.
        let joins_from_us = self.now_us();
        loop {
            let now_us = self.now_us();
            self.advance(joins_from_us, now_us)?;
            if let Stage::Ending { until_us } = self.stage {
                let waiting = self.connections.len() - self.free.len() + self.due.len();
                if waiting == 0 || now_us >= until_us {
                    self.fail_times("no answer in time", waiting as u64);
                    return Ok(());
                }
            }
            self.say(now_us);
            let last_ms = (now_us / 1000).min(self.counted_ms.1.saturating_sub(1));
            let due = &mut self.due;
            self.calendar.take(last_ms, |ticket, due_ms| due.push_back((ticket, due_ms)));
            let is_more = self.send(joins_from_us)?;
            let timeout = is_more.then_some(Timespec { tv_sec: 0, tv_nsec: 0 });
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("cannot wait for events: {error}")),
            }
            for event in &events {
                match event.data.u64() {
                    TIMER => {
                        // What it says is nothing new; but it is silent until it was read.
                        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
                    }
                    number => self.receive(number as u32)?,
                }
            }
        }
    }

    /// Goes on to the next stage where it is time.
    fn advance(&mut self, joins_from_us: u64, now_us: u64) -> Result<(), String> {
        match self.stage {
            Stage::Joining if self.joins_done == self.options.people => {
                self.report.joining_us = now_us - joins_from_us;
                self.look()?;
                let settle = Duration::from_secs_f64(self.options.settle_seconds);
                self.stage = Stage::Settling { until_us: now_us + settle.as_micros() as u64 };
            }
            Stage::Settling { until_us } if now_us >= until_us => {
                let from_ms = now_us / 1000;
                self.counted_ms = (from_ms, from_ms + u64::from(self.options.seconds) * 1000);
                self.look()?;
                self.stage = Stage::Counting;
            }
            Stage::Counting if now_us / 1000 >= self.counted_ms.1 => {
                self.look()?;
                self.stage = Stage::Ending { until_us: now_us + PATIENCE_US };
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends some of what is due; whether some is left that could be sent at once.
    fn send(&mut self, joins_from_us: u64) -> Result<bool, String> {
        for _ in 0..SENT_AT_ONCE {
            if self.free.is_empty() {
                return Ok(false);
            }
            let is_join_due = self.joins_begun < self.join_until(joins_from_us);
            // In turns: where the service falls behind, neither polls nor joins wait for the others to end.
            if is_join_due && (self.was_poll || self.due.is_empty()) {
                self.was_poll = false;
                self.joins_begun += 1;
                let body = format!(
                    r#"{{"userId":{},"queue":"{}"}}"#,
                    self.joins_begun, self.options.queue
                );
                self.request.clear();
                self.request.extend_from_slice(&self.head_of_join);
                // Into a vector nothing fails.
                let _ = write!(self.request, "{}\r\n\r\n{body}", body.len());
                self.ask(Asked::Join)?;
            } else if let Some((ticket, due_ms)) = self.due.pop_front() {
                self.was_poll = true;
                self.request.clear();
                self.request.extend_from_slice(&self.head_of_poll);
                self.request.extend_from_slice(self.tickets.token(ticket));
                self.request.extend_from_slice(b"\r\n\r\n");
                self.ask(Asked::Poll { ticket, due_ms })?;
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many should have joined by now.
    fn join_until(&self, joins_from_us: u64) -> u32 {
        let over_us = self.options.join_seconds * SECOND_US as f64;
        let share = (self.now_us() - joins_from_us) as f64 / over_us;
        if over_us <= 0.0 || share >= 1.0 {
            return self.options.people;
        }
        (f64::from(self.options.people) * share) as u32
    }

    /// Sends the request that was written.
    fn ask(&mut self, asked: Asked) -> Result<(), String> {
        let Some(number) = self.free.pop_front() else { return Ok(()) };
        if matches!(asked, Asked::Poll { .. }) {
            self.report.poll_bytes.0 += self.request.len() as u64;
        }
        let now_us = self.now_us();
        let connection = &mut self.connections[number as usize];
        connection.asked = Some((asked, now_us));
        // A request is small enough for a buffer that has nothing in it.
        match connection.stream.write(&self.request) {
            Ok(length) if length == self.request.len() => Ok(()),
            _ => self.lose(number, "broken connection"),
        }
    }

    /// Reads what came on a connection.
    fn receive(&mut self, number: u32) -> Result<(), String> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let connection = &mut self.connections[number as usize];
        let result = match connection.stream.read(&mut scratch) {
            Ok(0) => self.lose(number, "broken connection"),
            Ok(length) if connection.kept.is_empty() => {
                self.take_answer(number, &scratch[..length])
            }
            Ok(length) => {
                let mut bytes = std::mem::take(&mut connection.kept);
                bytes.extend_from_slice(&scratch[..length]);
                self.take_answer(number, &bytes)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(())
            }
            Err(_) => self.lose(number, "broken connection"),
        };
        self.scratch = scratch;
        result
    }

    fn take_answer(&mut self, number: u32, bytes: &[u8]) -> Result<(), String> {
        let answer = match answer::read(bytes) {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                self.connections[number as usize].kept = bytes.to_vec();
                return Ok(());
            }
            Err(what) => return self.lose(number, what),
        };
        if answer.length != bytes.len() {
            return self.lose(number, "an answer that is too long");
        }
        let Some((asked, sent_us)) = self.connections[number as usize].asked.take() else {
            return self.lose(number, "an answer to nothing");
        };
        let now_us = self.now_us();
        match asked {
            Asked::Join => {
                self.joins_done += 1;
                if let Err(what) = self.joined(&answer, sent_us, now_us) {
                    self.fail(&what);
                }
            }
            Asked::Poll { ticket, due_ms } => {
                if let Err(what) = self.polled(&answer, ticket, due_ms, sent_us, now_us) {
                    self.fail(&what);
                    self.again(ticket, now_us, AGAIN_MS)?;
                }
            }
        }
        if answer.closes {
            self.connections[number as usize].stream = self.connect(number)?;
        }
        self.free.push_back(number);
        Ok(())
    }

    fn joined(&mut self, answer: &Answer<'_>, sent_us: u64, now_us: u64) -> Result<(), String> {
        if answer.status != 201 {
            return Err(format!("join: {}", answer.status));
        }
        let place = answer::place(answer.body).ok_or("join: not understood")?;
        let token = answer::token(answer.body).ok_or("join: no token")?;
        self.report.joins.add(now_us - sent_us);
        let ticket = self.tickets.add(token, place.number);
        self.stand(ticket, &place, now_us)
    }

    fn polled(
        &mut self,
        answer: &Answer<'_>,
        ticket: u32,
        due_ms: u64,
        sent_us: u64,
        now_us: u64,
    ) -> Result<(), String> {
        if answer.status != 200 {
            return Err(format!("poll: {}", answer.status));
        }
        let place = answer::place(answer.body).ok_or("poll: not understood")?;
        let last =
            std::mem::replace(&mut self.tickets.numbers[ticket as usize], place.number as u32);
        if place.number > u64::from(last) {
            return Err("poll: a place that went backwards".to_owned());
        }
        self.report.polls += 1;
        self.report.poll_bytes.1 += answer.length as u64;
        let (from_ms, to_ms) = self.counted_ms;
        if (from_ms..to_ms).contains(&due_ms) {
            self.report.from_due.add(now_us.saturating_sub(due_ms * 1000));
            self.report.from_sent.add(now_us - sent_us);
        }
        let second = (now_us / 1000).checked_sub(from_ms).map(|ms| (ms / 1000) as usize);
        if let Some(polls) = second.and_then(|second| self.report.by_second.get_mut(second)) {
            *polls += 1;
        }
        self.stand(ticket, &place, now_us)
    }

    /// Does what somebody does who stands there.
    fn stand(&mut self, ticket: u32, place: &answer::Place<'_>, now_us: u64) -> Result<(), String> {
        match place.status {
            b"WAITING" => self.again(ticket, now_us, place.poll_after_ms),
            b"ACTIVATED" => {
                self.report.admitted += 1;
                Ok(())
            }
            other => Err(format!("a ticket that is {}", String::from_utf8_lossy(other))),
        }
    }

    fn again(&mut self, ticket: u32, now_us: u64, after_ms: u64) -> Result<(), String> {
        // A page's own timer counts whole milliseconds too.
        let due_ms = (now_us + after_ms * 1000).div_ceil(1000);
        self.calendar.add(ticket, due_ms).map_err(str::to_owned)
    }

    fn fail(&mut self, what: &str) {
        self.fail_times(what, 1);
    }

    fn fail_times(&mut self, what: &str, times: u64) {
        if times > 0 {
            *self.report.failures.entry(what.to_owned()).or_default() += times;
        }
    }

    /// Counts a failure and opens the connection anew.
    fn lose(&mut self, number: u32, what: &str) -> Result<(), String> {
        self.fail(what);
        let stream = self.connect(number)?;
        let connection = &mut self.connections[number as usize];
        connection.stream = stream;
        connection.kept.clear();
        let Some((asked, _)) = connection.asked.take() else {
            // Nothing was asked on it, so it is among those that are free.
            return Ok(());
        };
        self.free.push_back(number);
        match asked {
            Asked::Join => self.joins_done += 1,
            Asked::Poll { ticket, .. } => self.again(ticket, self.now_us(), AGAIN_MS)?,
        }
        Ok(())
    }

    fn say(&mut self, now_us: u64) {
        let (next_us, before) = self.progress;
        if now_us < next_us {
            return;
        }
        let stage = match self.stage {
            Stage::Joining => "joining",
            Stage::Settling { .. } => "settling",
            Stage::Counting => "counting",
            Stage::Ending { .. } => "ending",
        };
        let rate =
            (self.report.polls - before) as f64 / ((now_us + PROGRESS_US - next_us) as f64 / 1e6);
        eprintln!(
            "{:>4} s, {stage}: {} joined, {} admitted, {rate:.0} polls/s, {} late, {} failed",
            now_us / SECOND_US,
            self.tickets.len(),
            self.report.admitted,
            self.due.len(),
            self.report.failed(),
        );
        self.progress = (now_us + PROGRESS_US, self.report.polls);
    }
}

impl Report {
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    pub(crate) fn json(&self, options: &Options) -> serde_json::Value {
        let seconds = f64::from(options.seconds);
        let joining = self.joining_us as f64 / 1e6;
        let answered: u64 = self.by_second.iter().sum();
        // Before all, with everybody in line, and at both ends of what is counted.
        let (joins, counted) = match self.usages[..] {
            [before, joined, from, to] => ((before, joined), (from, to)),
            _ => Default::default(),
        };
        let server = options.pid.map(|_| {
            let cpu = counted.1.server_cpu - counted.0.server_cpu;
            json!({
                "cpuShareWhileJoining": (joins.1.server_cpu - joins.0.server_cpu) / joining,
                "cpuShare": cpu / seconds,
                "cpuMicrosPerPoll": cpu * 1e6 / answered as f64,
                "bytesBefore": joins.0.server_bytes,
                "bytesJoined": joins.1.server_bytes,
                "bytesAtEnd": counted.1.server_bytes,
            })
        });
        json!({
            "people": options.people,
            "connections": options.connections,
            "joined": self.joins.count(),
            "joinSeconds": joining,
            "joinsPerSecond": self.joins.count() as f64 / joining,
            "joinMs": latency(&self.joins),
            "seconds": seconds,
            "pollsPerSecond": answered as f64 / seconds,
            "pollsOfSecondMin": self.by_second.iter().min(),
            "pollsOfSecondMax": self.by_second.iter().max(),
            "pollsCounted": self.from_due.count(),
            "fromDueMs": latency(&self.from_due),
            "fromSentMs": latency(&self.from_sent),
            "polls": self.polls,
            "admitted": self.admitted,
            "failed": self.failed(),
            "failures": self.failures,
            "bytesPerPoll": self.poll_bytes.0 as f64 / self.polls as f64,
            "bytesPerAnswer": self.poll_bytes.1 as f64 / self.polls as f64,
            "ownCpuShare": (counted.1.own_cpu - counted.0.own_cpu) / seconds,
            "server": server,
        })
    }
}

fn latency(histogram: &Histogram) -> serde_json::Value {
    let ms = |us: u64| us as f64 / 1000.0;
    json!({
        "p50": ms(histogram.percentile(50.0)),
        "p99": ms(histogram.percentile(99.0)),
        "p99.9": ms(histogram.percentile(99.9)),
        "max": ms(histogram.max()),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::thread;

    use clap::Parser;

    use super::*;

    const JOINED: &str = r#"{"token":"t","status":"WAITING","waitingNumber":9,"pollAfterMs":100}"#;
    const WAITING: &str = r#"{"status":"WAITING","waitingNumber":9,"pollAfterMs":100}"#;

    /// A service that joins everybody, and has a status and a body for each poll.
    fn service(poll: impl Fn() -> (u16, &'static str) + Clone + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, poll) = (stream.unwrap(), poll.clone());
                thread::spawn(move || {
                    let mut request = [0; 4096];
                    while let Ok(length) = stream.read(&mut request) {
                        let (status, body) = match &request[..length] {
                            [] => return,
                            [b'P', ..] => (201, JOINED),
                            _ => poll(),
                        };
                        // A status of its own: to hang up.
                        if status == 0 {
                            return;
                        }
                        let length = body.len();
                        // In one piece: several small ones would wait for each other.
                        let answer = format!(
                            "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{body}"
                        );
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn report(address: SocketAddr, connections: &str, join_seconds: &str) -> Report {
        let address = address.to_string();
        let crowd = ["crowd", &address, "--people", "10", "--connections", connections];
        let times = ["--join-seconds", join_seconds, "--settle-seconds", "0.2", "--seconds", "1"];
        run(&Options::parse_from(crowd.into_iter().chain(times))).unwrap()
    }

    #[test]
    fn everybody_polls_when_told() {
        let report = report(service(|| (200, WAITING)), "4", "0");
        assert_eq!(report.joins.count(), 10);
        assert_eq!(report.failures, BTreeMap::new());
        // Ten in a second at the most; on a machine that is busy fewer.
        let polls = report.from_due.count();
        assert!((20..=100).contains(&polls), "{polls}");
        assert!(report.from_due.max() >= report.from_sent.max());
    }

    #[test]
    fn every_way_to_fail_counts() {
        for (status, body, expected) in [
            (503, "{}", "poll: 503"),
            (0, "", "broken connection"),
            (200, "{}", "poll: not understood"),
            (
                200,
                r#"{"status":"WAITING","waitingNumber":10,"pollAfterMs":1}"#,
                "poll: a place that went backwards",
            ),
            (
                200,
                r#"{"status":"EXPIRED","waitingNumber":0,"pollAfterMs":1}"#,
                "a ticket that is EXPIRED",
            ),
        ] {
            let report = report(service(move || (status, body)), "4", "0");
            // Each polls once, and would again after five seconds.
            assert_eq!(report.failures, BTreeMap::from([(expected.to_owned(), 10)]));
            assert_eq!(report.joins.count(), 10);
        }
    }

    #[test]
    fn waiting_for_a_slow_service_counts_from_when_a_poll_was_due() {
        let slow = service(|| {
            thread::sleep(Duration::from_millis(30));
            (200, WAITING)
        });
        // Ten are due every 100 ms, and three are answered.
        let report = report(slow, "1", "0");
        assert_eq!(report.failures, BTreeMap::new());
        let (due, sent) = (report.from_due.percentile(50.0), report.from_sent.percentile(50.0));
        assert!(sent >= 30_000 && due >= 3 * sent, "{due} {sent}");
    }

    #[test]
    fn joins_end_though_polls_are_always_due() {
        let slow = service(|| {
            thread::sleep(Duration::from_millis(10));
            (200, r#"{"status":"WAITING","waitingNumber":9,"pollAfterMs":1}"#)
        });
        let report = report(slow, "1", "0.3");
        assert_eq!((report.joins.count(), report.failed()), (10, 0));
        assert!(report.joining_us >= 300_000, "over the time they were given");
    }
}
