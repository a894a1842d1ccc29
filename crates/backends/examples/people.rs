//! One place each for a crowd: what it takes, and how long it takes to come back after a restart and after
//! Redis was wiped. A program to run and read, not a test; it fails where somebody loses a place or keeps two.
//!
//! ```sh
//! cargo run --release -p boxoffice-backends --example people -- 1000000 [PORT OF A REDIS TO WIPE]
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that is run by hand")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use boxoffice_backends::sequencer::{
    LocalSequencer, Name, Newcomer, Queue, RedisMode, RedisOptions, RedisSequencer, Sequencer,
};
use boxoffice_backends::store::{Rules, SqliteOptions, SqliteStore, Store};
use boxoffice_domain::ids::{QueueName, TicketId, UserId};
use boxoffice_domain::queue::{Place, QueueSettings, Ticket};
use boxoffice_domain::time::Timestamp;

/// Everybody polls once in so long.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// So many join before their tickets are thrown away.
const PART: u64 = 2_000;
/// One in so many joins once more before polling.
const AGAIN: u64 = 100;

fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64)
}

fn settings() -> QueueSettings {
    QueueSettings {
        admit_per_second: 1.0,
        max_active: None,
        active_ttl: Duration::from_secs(600),
        claim_window: Duration::from_secs(60),
        opens_at: None,
        paused: true,
    }
}

fn newcomer(person: u64, attempt: u64) -> Newcomer {
    let user = UserId::new(person as i64).unwrap();
    let mut id = [7; 16];
    id[11..].copy_from_slice(&(attempt << 24 | person).to_be_bytes()[3..]);
    Newcomer { user, name: Name::Person(user), issued_at: now(), id: TicketId(id) }
}

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches([':', '\t', ' ', 'k', 'B']).parse::<u64>().unwrap() * 1024
}

fn store_in(directory: &Path) -> Store {
    let options = SqliteOptions {
        directory: directory.into(),
        batch_max: 256,
        queue_max: 10_000,
        observe: Arc::new(|_| {}),
    };
    Store::Sqlite(SqliteStore::open(options).unwrap().0)
}

struct Instance {
    sequencer: Sequencer,
    queue: Arc<Queue>,
    ticking: tokio::task::JoinHandle<()>,
}

impl Instance {
    fn new(sequencer: Sequencer) -> Self {
        let queue = sequencer.queue("main").unwrap();
        let ticker = sequencer.clone();
        let ticking = tokio::spawn(async move {
            let mut due = tokio::time::interval(Duration::from_millis(100));
            let mut ticks = 0_u64;
            loop {
                due.tick().await;
                ticker.tick(now()).await.unwrap();
                ticks += 1;
                if ticks.is_multiple_of(5) {
                    ticker.beat(now()).await.unwrap();
                }
            }
        });
        Self { sequencer, queue, ticking }
    }

    /// Everybody joins, many at once.
    async fn joined(&self, people: std::ops::RangeInclusive<u64>, attempt: u64) -> Vec<Ticket> {
        let mut tickets = Vec::with_capacity(people.clone().count());
        let people: Vec<u64> = people.collect();
        for some in people.chunks(2_000) {
            let joins: Vec<_> = some
                .iter()
                .map(|person| {
                    let (sequencer, queue) = (self.sequencer.clone(), self.queue.clone());
                    let newcomer = newcomer(*person, attempt);
                    tokio::spawn(async move {
                        sequencer.join_once(&queue, newcomer, now()).await.unwrap()
                    })
                })
                .collect();
            for join in joins {
                tickets.push(join.await.unwrap().ticket);
            }
        }
        tickets
    }

    fn poll(&self, ticket: &Ticket) -> bool {
        let place = self.sequencer.place(&self.queue, &ticket.clone().into(), now());
        let is_live = !matches!(place, Place::Over(_));
        if is_live {
            self.sequencer.show(&self.queue, ticket);
        }
        is_live
    }

    fn seconds(&self) -> u64 {
        self.queue.counters().seconds.load(Ordering::Relaxed)
    }
}

/// Everybody polls once in the interval, at one of the instances; some join again just before. Then nobody
/// may hold two places, and everybody the one that they had.
async fn come_back(instances: &[Instance], tickets: &[Ticket]) {
    let began = Instant::now();
    let mut again = BTreeMap::new();
    let mut polls = Duration::ZERO;
    let steps = 300;
    for (step, some) in tickets.chunks(tickets.len().div_ceil(steps)).enumerate() {
        let mut joining = Vec::new();
        for (index, ticket) in some.iter().enumerate() {
            let person = ticket.user.get() as u64;
            if person.is_multiple_of(AGAIN) {
                let elsewhere = (index + 1) % instances.len();
                let Instance { sequencer, queue, .. } = &instances[elsewhere];
                let (sequencer, queue) = (sequencer.clone(), queue.clone());
                joining.push(tokio::spawn(async move {
                    let joined = sequencer.join_once(&queue, newcomer(person, 2), now()).await;
                    (elsewhere, person, joined.unwrap())
                }));
            }
        }
        for joined in joining {
            let (elsewhere, person, joined) = joined.await.unwrap();
            if joined.is_new {
                instances[elsewhere].poll(&joined.ticket);
                again.insert(person, joined.ticket);
            }
        }
        for (index, ticket) in some.iter().enumerate() {
            let at = &instances[index % instances.len()];
            let polled = Instant::now();
            assert!(at.poll(ticket), "{ticket:?} is lost");
            polls += polled.elapsed();
        }
        let due = POLL_INTERVAL * (step as u32 + 1) / steps as u32;
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
    }
    println!(
        "  everybody polled within {:.1} s; a poll took {:.0} ns; {} joined again in vain and got a second place",
        began.elapsed().as_secs_f64(),
        polls.as_nanos() as f64 / tickets.len() as f64,
        again.len()
    );
    let waited = Instant::now();
    while again.values().any(|ticket| instances.iter().any(|it| it.poll(ticket))) {
        assert!(waited.elapsed() < POLL_INTERVAL, "somebody keeps two places");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for ticket in tickets {
        assert!(instances.iter().all(|it| it.poll(ticket)), "{ticket:?} is lost");
    }
    let given_up: u64 = instances.iter().map(Instance::seconds).sum();
    println!(
        "  {given_up} second places were given up, the last one {} ms after the polls; nobody lost a place",
        waited.elapsed().as_millis()
    );
}

async fn one_process(people: u64) {
    let directory = tempfile::tempdir().unwrap();
    let open = || store_in(directory.path());
    let store = open();
    let name = QueueName::new("main").unwrap();
    store.create_queue(name, settings()).await.unwrap();
    let local = LocalSequencer::open(store.clone(), &settings(), true).await.unwrap();
    let instance = Instance::new(Sequencer::Local(local));
    // What the program itself needs for it is there already.
    for _ in 0..10 {
        instance.joined(1..=PART, 1).await;
    }
    let before = memory("VmRSS");
    let began = Instant::now();
    // Their tickets are the client's, not ours.
    for from in (PART + 1..=people).step_by(PART as usize) {
        instance.joined(from..=(from + PART - 1).min(people), 1).await;
    }
    let grown = memory("VmRSS") - before;
    println!(
        "one process: {} people joined in {:.1} s; memory grew by {:.1} bytes for each of them",
        instance.queue.people().unwrap(),
        began.elapsed().as_secs_f64(),
        grown as f64 / (people - PART) as f64
    );
    let tickets = instance.joined(1..=people, 3).await;
    let Instance { sequencer, ticking, .. } = instance;
    ticking.abort();
    let _ = ticking.await;
    sequencer.close(now()).await.unwrap();
    drop(sequencer);
    store.close().await;
    drop(store);
    let began = Instant::now();
    let store = open();
    let local = LocalSequencer::open(store.clone(), &settings(), true).await.unwrap();
    println!("  started again in {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
    let instances = [Instance::new(Sequencer::Local(local))];
    come_back(&instances, &tickets).await;
    assert_eq!(instances[0].queue.people(), Some(people));
    let findings = instances[0].sequencer.audit(now());
    assert!(findings.iter().all(|finding| finding.violations == 0), "{findings:?}");
    instances[0].ticking.abort();
}

async fn with_redis(people: u64, port: u16) {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    let name = QueueName::new("main").unwrap();
    store.create_queue(name, settings()).await.unwrap();
    let client = redis::Client::open(("127.0.0.1", port)).unwrap();
    let mut connection = client.get_connection().unwrap();
    let used = |connection: &mut redis::Connection| -> u64 {
        let info: String = redis::cmd("INFO").arg("memory").query(connection).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.trim().parse().unwrap()
    };
    let () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
    let mut instances = Vec::new();
    for instance in ["a", "b"] {
        let options = RedisOptions {
            mode: RedisMode::Standalone,
            nodes: vec![("127.0.0.1".into(), port)],
            user: None,
            password: None,
            sentinel_password: None,
            database: 0,
            tls: false,
            tls_ca: None,
            prefix: "people".into(),
            call_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            turn: Duration::from_millis(90),
            instance: instance.into(),
            ticket_keys: vec!["key".into()],
            one_place_each: true,
            epoch: 0,
            rules: Rules::default(),
            reserve: Duration::from_secs(30),
            cluster: "people".into(),
        };
        let opened = RedisSequencer::open(store.clone(), &settings(), options, now()).await;
        instances.push(Instance::new(Sequencer::Redis(opened.unwrap())));
    }
    let before = used(&mut connection);
    let began = Instant::now();
    let tickets = instances[0].joined(1..=people, 1).await;
    println!(
        "two instances: {people} people joined in {:.1} s; Redis grew by {:.1} bytes a person",
        began.elapsed().as_secs_f64(),
        (used(&mut connection) - before) as f64 / people as f64
    );
    let () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
    println!("  Redis is wiped");
    come_back(&instances, &tickets).await;
    println!(
        "  Redis has {:.1} bytes a person again",
        (used(&mut connection) - before) as f64 / people as f64
    );
    instances.iter().for_each(|instance| instance.ticking.abort());
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let people = arguments.next().map_or(1_000_000, |text| text.parse().unwrap());
    one_process(people).await;
    if let Some(port) = arguments.next() {
        with_redis(people, port.parse().unwrap()).await;
    }
}
