//! Those who listen to the seats of a session, while some of them are sold: what each of them costs, and what those
//! cost who do not read.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::json;
use tokio::net::TcpSocket;

use super::row::{Row, Target};
use super::servers::{Id, Server, Session};
use super::{BUYERS, Bench, Topic, WRK_CPU, pause};
use crate::report::{grouped, middle};

/// How many listen.
const LISTENERS: [u32; 3] = [1, 200, LISTENERS_MAX];
pub(super) const LISTENERS_MAX: u32 = 2_000;
/// Those who do not read, and half the seats of their session: all of them together are told in 133 KB.
const STUCK: u32 = 200;
const STUCK_SEATS: u32 = 200_000;
/// What the kernel keeps for a connection that is not read, in bytes; less than it would by itself.
const STUCK_BUFFER: u32 = 4_096;
const SEATS: u32 = 10_000;
/// As often as somebody is told.
const CHANGE_INTERVAL: Duration = Duration::from_millis(250);
const STREAMS: &str = "boxoffice_seat_streams";
const EVENTS: &str = "boxoffice_seat_stream_events_total";
const KIBIBYTE: f64 = 1_024.0;

/// What one number of listeners cost in one round.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Of the server, for a second.
    cpu_seconds: f64,
    /// How many changes each was told in a second.
    changes: f64,
    /// Bytes that each was sent for a change.
    bytes: f64,
    /// What each occupies.
    memory: f64,
}

impl Bench {
    /// Streams of seat states.
    pub(super) fn streams(&mut self) -> Result<(), String> {
        if !self.wants(Topic::Streams) {
            return Ok(());
        }
        let rounds = self.options.rounds.min(3);
        let seconds = f64::from(2 * self.options.seconds.max(2));
        eprintln!("{LISTENERS:?} listen to the seats of a session, {rounds} rounds of {seconds} s");
        let id = self.filled_server("main", None)?;
        let mut costs: [Vec<Cost>; LISTENERS.len()] = Default::default();
        let mut without = Vec::new();
        for _ in 0..rounds {
            let session = self.new_session(id, SEATS, 100)?;
            let mut seats = 0..SEATS;
            without.push(self.listened(id, session, 0, seconds, &mut seats)?.cpu_seconds);
            for (costs, count) in costs.iter_mut().zip(LISTENERS) {
                costs.push(self.listened(id, session, count, seconds, &mut seats)?);
            }
        }
        let without = middle(&without).unwrap_or(f64::NAN);
        let mut before = None;
        for (costs, count) in costs.iter().zip(LISTENERS) {
            let of = |figure: fn(&Cost) -> f64| {
                let all: Vec<f64> = costs.iter().map(figure).collect();
                middle(&all).unwrap_or(f64::NAN)
            };
            let changes = of(|cost| cost.changes);
            let change_us = (of(|cost| cost.cpu_seconds) - without) / changes * 1e6;
            let each_us = change_us / f64::from(count);
            let notes = [
                format!("{change_us:.0} µs for a change"),
                format!("{changes:.1} changes/s of {:.0} B", of(|cost| cost.bytes)),
                format!("{:.1} KiB resident each", of(|cost| cost.memory) / KIBIBYTE),
            ];
            let listeners = grouped(count.into());
            eprintln!("  {listeners}: {each_us:.1} µs CPU each, {}", notes.join(", "));
            let mut row =
                Row::new(&format!("change, {listeners} listen"), each_us, "µs CPU each", 1);
            // One of few pays for what is done once.
            if let Some((of_fewer, fewer)) = before.replace((each_us, listeners))
                && count > LISTENERS[1]
            {
                row.ratio = Some(each_us / of_fewer);
                row.reference = Some(format!("that of {fewer}"));
                row = row.target(Target::AtMost(1.25));
            }
            self.add(row.notes(notes));
        }
        self.stuck(id)
    }

    /// Seats are held for a while, and so many listen.
    fn listened(
        &self,
        id: Id,
        session: Session,
        count: u32,
        seconds: f64,
        seats: &mut impl Iterator<Item = u32>,
    ) -> Result<Cost, String> {
        let server = self.at(id);
        let memory_before = server.rss_bytes()? as f64;
        let listeners = Listeners::open(server, session, count, true)?;
        pause(1.0)?;
        let memory = (server.rss_bytes()? as f64 - memory_before).max(0.0);
        let (events, bytes) = (events(server)?, listeners.read());
        let (began, before) = (Instant::now(), server.cpu_time()?);
        let mut changes = 0;
        while began.elapsed().as_secs_f64() < seconds {
            self.hold(id, session, seats.next().ok_or("there are too few seats")?)?;
            changes += 1;
            let next = began + CHANGE_INTERVAL * changes;
            pause(next.saturating_duration_since(Instant::now()).as_secs_f64())?;
        }
        let cpu_seconds = server.cpu_time()?.since(&before);
        let took = began.elapsed().as_secs_f64();
        let told = self::events(server)? - events;
        let bytes = (listeners.read() - bytes) as f64;
        listeners.close(server)?;
        let each = f64::from(count.max(1));
        Ok(Cost {
            cpu_seconds: cpu_seconds / took,
            changes: told / each / took,
            bytes: bytes / told.max(1.0),
            memory: memory / each,
        })
    }

    fn hold(&self, id: Id, session: Session, seat: u32) -> Result<(), String> {
        let server = self.at(id);
        // Those who listen are the first of them; nobody holds more than he may.
        let user = BUYERS - seat % (BUYERS / 2);
        let path =
            format!("/api/v1/concerts/{}/sessions/{}/reservations", server.concert()?, session.id);
        let body = json!({"userId": user, "seatIds": [session.first_seat + i64::from(seat)]});
        let token = format!("bench_{user}");
        server.call("POST", &path, &[("QUEUE-TOKEN", &token)], Some(&body), &[201]).map(drop)
    }

    /// Some never read, and are told more than a connection holds.
    fn stuck(&mut self, id: Id) -> Result<(), String> {
        let rounds = if self.options.quick { 40 } else { 80 };
        eprintln!("{STUCK} listen and do not read");
        let session = self.new_session(id, STUCK_SEATS, 100)?;
        let server = self.at(id);
        let path =
            format!("/admin/v1/concerts/{}/sessions/{}/seats", server.concert()?, session.id);
        // More seats are told with all that there are.
        let add = |seats: u32| {
            let seats = json!({"seatCount": seats, "price": 100});
            server.admin("POST", &path, &seats).map(drop)
        };
        add(STUCK_SEATS)?;
        let listeners = Listeners::open(server, session, STUCK, false)?;
        let (mut full, mut told, mut memory) = (None, events(server)?, 0.0);
        for round in 0..rounds {
            add(1)?;
            pause(CHANGE_INTERVAL.as_secs_f64() * 1.2)?;
            let now = events(server)?;
            memory = server.rss_bytes()? as f64;
            if now - told < 1.0 && full.is_none() {
                full = Some((round, memory));
            }
            told = now;
        }
        listeners.close(server)?;
        let Some((round, before)) = full else {
            self.problems.push(format!("{STUCK} that do not read took {rounds} changes"));
            return Ok(());
        };
        let grown = (memory - before) / f64::from(STUCK) / KIBIBYTE;
        let note = format!("after change {round} of {rounds} they took nothing more");
        eprintln!("  {grown:.2} KiB each, {note}");
        let row = Row::new(&format!("memory, {STUCK} do not read"), grown, "KiB each", 2);
        self.add(row.notes([note]).target(Target::AtMost(1.0)));
        Ok(())
    }
}

/// Connects; what is not to be read has little room.
fn connect(address: &str, read: bool) -> std::io::Result<TcpStream> {
    if read {
        return TcpStream::connect(address);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(STUCK_BUFFER)?;
        let address = address.parse().map_err(std::io::Error::other)?;
        let stream = socket.connect(address).await?.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    })
}

fn events(server: &Server) -> Result<f64, String> {
    Ok(server.metric(EVENTS, "")?.unwrap_or(0.0))
}

/// The thread that reads.
type Reader = JoinHandle<Result<(), String>>;

/// Connections with a stream each, on the CPU of the load.
struct Listeners {
    reading: Option<(Arc<Reading>, Reader)>,
    streams: Vec<TcpStream>,
}

#[derive(Default)]
struct Reading {
    bytes: AtomicU64,
    is_over: AtomicBool,
}

impl Listeners {
    fn open(server: &Server, session: Session, count: u32, read: bool) -> Result<Self, String> {
        let path =
            format!("/api/v1/concerts/{}/sessions/{}/seats/stream", server.concert()?, session.id);
        let failed = |error: std::io::Error| format!("{}: {error}", server.name);
        let before = server.metric(STREAMS, "")?.unwrap_or(0.0);
        let mut streams = Vec::new();
        for user in 1..=count {
            let mut stream = connect(&server.address(), read).map_err(failed)?;
            let head =
                format!("GET {path} HTTP/1.1\r\nHost: x\r\nQUEUE-TOKEN: bench_{user}\r\n\r\n");
            stream.write_all(head.as_bytes()).map_err(failed)?;
            stream.set_nonblocking(true).map_err(failed)?;
            streams.push(stream);
        }
        let began = Instant::now();
        while server.metric(STREAMS, "")?.unwrap_or(0.0) < before + f64::from(count) {
            if began.elapsed() > Duration::from_secs(20) {
                return Err(format!("{} does not open {count} streams", server.name));
            }
            pause(0.05)?;
        }
        if !read {
            return Ok(Self { reading: None, streams });
        }
        let reading = Arc::new(Reading::default());
        let (theirs, of) = (std::mem::take(&mut streams), reading.clone());
        let thread = std::thread::spawn(move || of.read(theirs));
        Ok(Self { reading: Some((reading, thread)), streams })
    }

    fn read(&self) -> u64 {
        self.reading.as_ref().map_or(0, |(reading, _)| reading.bytes.load(Ordering::Relaxed))
    }

    fn close(self, server: &Server) -> Result<(), String> {
        let Self { reading, streams } = self;
        drop(streams);
        if let Some((reading, thread)) = reading {
            reading.is_over.store(true, Ordering::Relaxed);
            thread.join().map_err(|_| "the listeners panicked".to_owned())??;
        }
        let began = Instant::now();
        while server.metric(STREAMS, "")?.unwrap_or(0.0) > 0.0 {
            if began.elapsed() > Duration::from_secs(20) {
                return Err(format!("{} does not see that streams were closed", server.name));
            }
            pause(0.05)?;
        }
        Ok(())
    }
}

impl Reading {
    /// Reads what comes, and throws it away.
    fn read(&self, mut streams: Vec<TcpStream>) -> Result<(), String> {
        let failed = |error| format!("the listeners: {error}");
        let mut cpus = CpuSet::new();
        cpus.set(WRK_CPU);
        sched_setaffinity(None, &cpus).map_err(failed)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        for (index, stream) in (0..).zip(&streams) {
            let data = epoll::EventData::new_u64(index);
            epoll::add(&epoll, stream, data, epoll::EventFlags::IN).map_err(failed)?;
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let mut chunk = vec![0; 65_536];
        while !self.is_over.load(Ordering::Relaxed) {
            let mut events = Vec::with_capacity(256);
            match epoll::wait(&epoll, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
            for event in events {
                let stream = &mut streams[event.data.u64() as usize];
                match stream.read(&mut chunk) {
                    Ok(0) => return Err("a stream ended".to_owned()),
                    Ok(count) => drop(self.bytes.fetch_add(count as u64, Ordering::Relaxed)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(format!("a stream: {error}")),
                }
            }
        }
        Ok(())
    }
}
