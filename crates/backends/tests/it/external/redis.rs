//! The sequencer of several instances, against real Redis servers that are killed, stopped, wiped,
//! filled up and failed over. Several sequencers on one store stand for several instances.

mod draws;
mod numbers;
mod places;
mod presence;
mod solutions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::servers::Server;
use crate::common::fresh;
use crate::conformance::{START, assert_clean, user};
use crate::line;
use boxoffice_backends::Fault;
use boxoffice_backends::sequencer::{
    NewAlias, PresentedTicket, Queue, RedisMode, RedisOptions, RedisSequencer, RedisStats,
    Sequencer,
};
use boxoffice_backends::store::{Rules, Store};
use boxoffice_domain::ids::{QueueName, TicketId};
use boxoffice_domain::queue::{Ending, Place, QueueSettings, SettingsChange, Ticket};
use boxoffice_domain::time::Timestamp;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// An empty store, and a sequencer on a Redis of its own that admits at each tick, however soon that
/// comes after the last one.
async fn ground() -> line::Ground<(TempDir, Server)> {
    let server = Server::start();
    let (store, directory) = fresh().await;
    let options = RedisOptions { turn: Duration::ZERO, ..options(server.port) };
    let redis = RedisSequencer::open(store.clone(), &line::slow(), options, START).await.unwrap();
    ((store, Sequencer::Redis(redis)), (directory, server))
}

line::line_cases!(ground);

/// Now, as the service's clock says it.
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(since.as_millis() as i64)
}

fn settings(rate: f64, max_active: Option<u64>) -> QueueSettings {
    QueueSettings {
        admit_per_second: rate,
        max_active,
        active_ttl: Duration::from_secs(60),
        claim_window: Duration::from_secs(5),
        opens_at: None,
        paused: false,
    }
}

fn name(text: &str) -> QueueName {
    QueueName::new(text).unwrap()
}

fn options(port: u16) -> RedisOptions {
    RedisOptions {
        mode: RedisMode::Standalone,
        nodes: vec![("127.0.0.1".into(), port)],
        user: None,
        password: None,
        sentinel_password: None,
        database: 0,
        tls: false,
        tls_ca: None,
        prefix: "boxoffice".into(),
        call_timeout: Duration::from_millis(250),
        connect_timeout: Duration::from_millis(500),
        turn: Duration::from_millis(90),
        instance: format!("{:?}", Instant::now()),
        ticket_keys: vec!["k1".into()],
        one_place_each: false,
        epoch: 0,
        rules: Rules::default(),
        reserve: Duration::from_secs(30),
        cluster: "cluster-1".into(),
    }
}

/// One instance of the service: a sequencer that ticks and beats.
struct Instance {
    sequencer: Sequencer,
    queue: Arc<Queue>,
    running: Vec<JoinHandle<()>>,
    paused: Arc<AtomicBool>,
}

impl Instance {
    async fn start(store: &Store, options: RedisOptions) -> Self {
        let defaults = settings(1.0, None);
        let redis = RedisSequencer::open(store.clone(), &defaults, options, now()).await.unwrap();
        let sequencer = Sequencer::Redis(redis);
        let queue = sequencer.queue("main").unwrap();
        let paused = Arc::new(AtomicBool::new(false));
        let ticking = {
            let (sequencer, paused) = (sequencer.clone(), paused.clone());
            let mut due = tokio::time::interval(Duration::from_millis(100));
            due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            tokio::spawn(async move {
                loop {
                    due.tick().await;
                    if !paused.load(Ordering::Relaxed) {
                        let _ = sequencer.tick(now()).await;
                    }
                }
            })
        };
        let beating = {
            let (sequencer, paused) = (sequencer.clone(), paused.clone());
            let mut due = tokio::time::interval(Duration::from_millis(500));
            due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            tokio::spawn(async move {
                loop {
                    due.tick().await;
                    if !paused.load(Ordering::Relaxed) {
                        let _ = sequencer.beat(now()).await;
                    }
                }
            })
        };
        Self { sequencer, queue, running: vec![ticking, beating], paused }
    }

    async fn join(&self) -> Result<u64, Fault> {
        self.sequencer.join(&self.queue).await
    }

    fn place(&self, seq: u64) -> Place {
        self.sequencer.place(&self.queue, &pass(seq), now())
    }

    fn redis_is_up(&self) -> bool {
        self.sequencer.redis().unwrap().is_up()
    }

    /// As if the process had been killed.
    fn kill(self) {}
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}

fn pass(seq: u64) -> PresentedTicket {
    let id = TicketId(u128::from(seq).to_be_bytes());
    Ticket { queue: name("main"), seq, user: user(1), issued_at: now(), id }.into()
}

/// Instances on one store.
struct Cluster {
    instances: Vec<Instance>,
    store: Store,
    _directory: TempDir,
}

impl Cluster {
    async fn start(count: usize, settings: QueueSettings, options: &RedisOptions) -> Self {
        let (store, directory) = fresh().await;
        store.create_queue(name("main"), settings).await.unwrap();
        let mut instances = Vec::new();
        for _ in 0..count {
            let instance = format!("{}", instances.len());
            let options = RedisOptions { instance, ..options.clone() };
            instances.push(Instance::start(&store, options).await);
        }
        Self { instances, store, _directory: directory }
    }
}

/// What all instances have counted together.
fn sum(cluster: &Cluster, counter: impl Fn(&RedisStats) -> &AtomicU64) -> u64 {
    let count =
        |instance: &Instance| counter(instance.sequencer.redis().unwrap()).load(Ordering::Relaxed);
    cluster.instances.iter().map(count).sum()
}

/// Waits for a condition, with a limit that a failure alone reaches.
async fn until(what: &str, condition: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    began.elapsed()
}

/// Numbers as they were given, with the times between which each was asked for and acknowledged.
#[derive(Default)]
struct Given {
    numbers: Vec<(u64, Instant, Instant)>,
    /// How often, by why.
    refused: BTreeMap<String, u64>,
}

impl Given {
    fn assert_unique(&self) -> BTreeSet<u64> {
        let numbers: BTreeSet<u64> = self.numbers.iter().map(|(seq, _, _)| *seq).collect();
        assert_eq!(numbers.len(), self.numbers.len(), "a number was given twice");
        numbers
    }
}

/// By how much somebody came before another who had been answered when he asked.
fn overtaken(numbers: &[(u64, Instant, Instant)]) -> Duration {
    let mut by_number = numbers.to_vec();
    by_number.sort_unstable();
    let mut worst = Duration::ZERO;
    let mut latest_asked = by_number[0].1;
    for (_, asked, acknowledged) in &by_number {
        // Somebody with a lower number asked only after this one had been answered.
        worst = worst.max(latest_asked.saturating_duration_since(*acknowledged));
        latest_asked = latest_asked.max(*asked);
    }
    worst
}

/// Joins through all instances until told to stop, each by so many tasks.
fn joining(
    cluster: &Cluster,
    tasks: usize,
    stop: &Arc<AtomicBool>,
    limit: u64,
) -> Vec<JoinHandle<Given>> {
    let budget = Arc::new(AtomicU64::new(limit));
    let mut handles = Vec::new();
    for instance in &cluster.instances {
        for _ in 0..tasks {
            let (sequencer, queue) = (instance.sequencer.clone(), instance.queue.clone());
            let (stop, budget) = (stop.clone(), budget.clone());
            handles.push(tokio::spawn(async move {
                let mut given = Given::default();
                while !stop.load(Ordering::Relaxed) {
                    let left = budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                        left.checked_sub(1)
                    });
                    if left.is_err() {
                        break;
                    }
                    let asked = Instant::now();
                    match sequencer.join(&queue).await {
                        Ok(seq) => given.numbers.push((seq, asked, Instant::now())),
                        Err(fault) => {
                            *given.refused.entry(fault.to_string()).or_default() += 1;
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
                given
            }));
        }
    }
    handles
}

async fn joined(handles: Vec<JoinHandle<Given>>) -> Given {
    let mut all = Given::default();
    for handle in handles {
        let given = handle.await.unwrap();
        all.numbers.extend(given.numbers);
        for (why, count) in given.refused {
            *all.refused.entry(why).or_default() += count;
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_joins_through_three_instances() {
    let server = Server::start();
    let cluster = Cluster::start(3, settings(1.0, None), &options(server.port)).await;
    let began = Instant::now();
    let before = server.calls();
    let given = joined(joining(&cluster, 300, &Arc::default(), 100_000)).await;
    let took = began.elapsed();
    let calls = server.calls() - before;
    let numbers = given.assert_unique();
    assert_eq!((numbers.len(), given.refused), (100_000, BTreeMap::new()));
    // Whoever is asked for after another has been acknowledged comes behind, but for what was under
    // way: the batches of the other instances.
    let worst = overtaken(&given.numbers);
    let last = *numbers.last().unwrap();
    let per_join = calls as f64 / 100_000.0;
    println!(
        "100,000 joins in {took:?}, {per_join:.4} commands a join, {} empty places, overtaken by \
         {worst:?} at the most",
        last - 100_000
    );
    assert!(per_join <= 0.1, "{per_join} commands a join");
    assert!(worst <= Duration::from_millis(50), "overtaken by {worst:?}");
    assert!(last <= 105_000, "{} empty places", last - 100_000);
    // Polls make no call.
    cluster.instances.iter().for_each(|instance| instance.paused.store(true, Ordering::Relaxed));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = server.calls();
    for seq in &numbers {
        let _ = cluster.instances[(seq % 3) as usize].place(*seq);
    }
    assert_eq!(server.calls() - before, 0);
    assert_clean(&cluster.store, now()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_holds_for_all_together_and_everybody_hears_of_it() {
    let server = Server::start();
    let cluster = Cluster::start(3, settings(200.0, None), &options(server.port)).await;
    joined(joining(&cluster, 50, &Arc::default(), 3_000)).await;
    let serving = |index: usize| cluster.instances[index].queue.serving();
    let begin = (Instant::now(), serving(0));
    // How long after the first of them do all know?
    let mut worst = Duration::ZERO;
    while begin.0.elapsed() < Duration::from_secs(5) {
        let ahead = (0..3).map(serving).max().unwrap();
        let seen = Instant::now();
        until("an admission is not heard of", || (0..3).all(|index| serving(index) >= ahead)).await;
        worst = worst.max(seen.elapsed());
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    let rate = (serving(0) - begin.1) as f64 / begin.0.elapsed().as_secs_f64();
    println!("{rate:.1} a second instead of 200; heard of within {worst:?}");
    assert!((rate - 200.0).abs() <= 12.0, "{rate} a second");
    assert!(worst <= Duration::from_millis(300), "{worst:?}");
    for instance in &cluster.instances {
        let went_back = instance.queue.counters().went_back.load(Ordering::Relaxed);
        assert_eq!(went_back, 0);
    }
    let admitted: u64 = cluster
        .instances
        .iter()
        .map(|instance| instance.queue.counters().admitted.load(Ordering::Relaxed))
        .sum();
    assert!(admitted >= serving(0), "each admission is counted once, {admitted}");
    assert_clean(&cluster.store, now()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bound_of_active_holds_for_all_together() {
    const MAX: u64 = 40;
    let server = Server::start();
    let cluster = Cluster::start(3, settings(5_000.0, Some(MAX)), &options(server.port)).await;
    joined(joining(&cluster, 20, &Arc::default(), 400)).await;
    until("nobody is admitted", || cluster.instances.iter().all(|i| i.queue.serving() == MAX))
        .await;
    let mut next = 1;
    for _ in 0..5 {
        // Some are seen at one instance, and leave or pay at the others.
        for seq in next..next + 10 {
            let at = &cluster.instances[(seq % 3) as usize];
            assert!(matches!(at.place(seq), Place::Active { .. }), "{seq}");
            if seq.is_multiple_of(2) {
                at.sequencer.leave(&at.queue, &pass(seq), now()).await.unwrap();
            } else {
                cluster.store.leave_queue((&pass(seq).ticket).into(), false, now()).await.unwrap();
                at.sequencer.finish(&at.queue, &pass(seq));
            }
        }
        next += 10;
        until("no room was made", || {
            cluster.instances.iter().all(|i| i.queue.serving() >= MAX + next - 1)
        })
        .await;
        for instance in &cluster.instances {
            assert_eq!(instance.queue.active(now()), MAX);
        }
    }
    for instance in &cluster.instances {
        assert_eq!(instance.queue.counters().bound_broken.load(Ordering::Relaxed), 0);
        assert_eq!(instance.place(2), Place::Over(Ending::Left));
    }
    assert_clean(&cluster.store, now()).await;
}

/// What an instance does is known to the others within about a tenth of a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_reach_every_instance() {
    let server = Server::start();
    let cluster = Cluster::start(3, settings(1_000.0, None), &options(server.port)).await;
    let [a, b, c] = &cluster.instances[..] else { panic!("three of them") };
    // Opaque tokens, past the line and in it.
    let token = |text: &str, active_until| NewAlias {
        token: text.into(),
        user: user(9),
        active_until,
        id: TicketId([text.len() as u8; 16]),
    };
    let until_then = Timestamp(now().0 + 60_000);
    let tokens = vec![token("past", Some(until_then)), token("in the line", None)];
    a.sequencer.issue(&a.queue, tokens, now()).await.unwrap();
    until("a token is not known", || c.sequencer.alias("past").is_some()).await;
    let past = c.sequencer.alias("past").unwrap();
    assert_eq!(
        c.sequencer.place(&c.queue, &past, now()),
        Place::Active { until: until_then, claimed: true }
    );
    c.sequencer.leave(&c.queue, &past, now()).await.unwrap();
    until("a token is not spent", || {
        let pass = b.sequencer.alias("past").unwrap();
        b.sequencer.place(&b.queue, &pass, now()) == Place::Over(Ending::Left)
    })
    .await;
    assert_eq!(b.sequencer.alias("in the line").unwrap().ticket.seq, 1);
    // A pause, and a queue.
    b.sequencer.change(&b.queue, SettingsChange::pause(true)).await.unwrap();
    // Whoever changes something else at once does so on top of it.
    let faster = SettingsChange { admit_per_second: Some(2_000.0), ..SettingsChange::default() };
    let both = QueueSettings { paused: true, ..settings(2_000.0, None) };
    assert_eq!(c.sequencer.change(&c.queue, faster).await, Ok(both));
    let took = until("a pause is not known", || a.queue.settings().paused).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(c.sequencer.create(name("vip"), settings(5.0, None)).await.unwrap());
    assert!(!a.sequencer.create(name("vip"), settings(5.0, None)).await.unwrap());
    until("a queue is not known", || a.sequencer.queue("vip").is_some()).await;
    let vip = a.sequencer.queue("vip").unwrap();
    assert_eq!(a.sequencer.join(&vip).await, Ok(1));
    let vip = c.sequencer.queue("vip").unwrap();
    assert_eq!(c.sequencer.join(&vip).await, Ok(2));
    // Whoever leaves the line moves up those behind, wherever they ask.
    let first = a.join().await.unwrap();
    let second = b.join().await.unwrap();
    let third = c.join().await.unwrap();
    assert!(first < second && second < third);
    let before = c.place(third);
    a.sequencer.leave(&a.queue, &pass(second), now()).await.unwrap();
    let Place::Waiting { number } = before else { panic!("{before:?}") };
    until("nobody moves up", || c.place(third) == Place::Waiting { number: number - 1 }).await;
    // On with it: everybody is admitted, and is seen wherever he asks.
    a.sequencer.change(&a.queue, SettingsChange::pause(false)).await.unwrap();
    until("nobody is admitted", || matches!(b.place(third), Place::Active { .. })).await;
    until("nobody has seen him", || matches!(c.place(third), Place::Active { claimed: true, .. }))
        .await;
    assert_clean(&cluster.store, now()).await;
}

/// A pause at one instance and a change at another at the same moment: both stand, in the store and
/// in the memory of every instance, with Redis and without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_and_a_change_at_two_instances_both_stand() {
    let mut server = Server::start();
    let cluster = Cluster::start(3, settings(1.0, None), &options(server.port)).await;
    let [a, b, _] = &cluster.instances[..] else { panic!("three of them") };
    for round in 1..=30_u32 {
        if round == 20 {
            server.kill();
        }
        a.sequencer.change(&a.queue, SettingsChange::pause(false)).await.unwrap();
        let rate = f64::from(round);
        let change = SettingsChange { admit_per_second: Some(rate), ..SettingsChange::default() };
        let (paused, changed) = tokio::join!(
            a.sequencer.change(&a.queue, SettingsChange::pause(true)),
            b.sequencer.change(&b.queue, change),
        );
        assert!(paused.unwrap().paused, "round {round}");
        assert_eq!(changed.unwrap().admit_per_second, rate, "round {round}");
        let both = QueueSettings { paused: true, ..settings(rate, None) };
        let stored = cluster.store.queues().await.unwrap().remove(0).settings;
        assert_eq!((stored.paused, stored.admit_per_second), (true, rate), "round {round}");
        until("an instance has missed a change", || {
            cluster.instances.iter().all(|instance| instance.queue.settings() == both)
        })
        .await;
    }
    assert_clean(&cluster.store, now()).await;
}

/// Watches tickets through all instances: no number grows, and nothing goes back.
struct Watch {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<u64>>,
}

impl Watch {
    fn start(cluster: &Cluster, seqs: impl Iterator<Item = u64> + Clone + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let watch = |instance: &Instance| {
            let (sequencer, queue) = (instance.sequencer.clone(), instance.queue.clone());
            let (stop, seqs) = (stop.clone(), seqs.clone());
            tokio::spawn(async move {
                let mut last: Vec<(u64, u64)> = seqs.map(|seq| (seq, u64::MAX)).collect();
                let mut polls = 0;
                let (mut serving, mut next) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    for (seq, before) in &mut last {
                        // Not `place`, which would mark them as seen.
                        if let Place::Waiting { number } =
                            sequencer.place(&queue, &pass(*seq), now())
                        {
                            assert!(number <= *before, "{seq} fell back, {before} to {number}");
                            *before = number;
                        } else {
                            *before = 0;
                        }
                        polls += 1;
                    }
                    let seen = (queue.serving(), queue.next());
                    assert!(seen.0 >= serving && seen.1 >= next, "{seen:?} after {serving} {next}");
                    (serving, next) = seen;
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                polls
            })
        };
        let tasks = cluster.instances.iter().map(watch).collect();
        Self { stop, tasks }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut polls = 0;
        for task in self.tasks {
            polls += task.await.unwrap();
        }
        polls
    }
}

/// Redis loses everything, again and again, under joins and ticks.
async fn wiped(rounds: usize, joins_min: usize, wipe: impl Fn(&mut Server)) {
    let mut server = Server::start();
    let cluster = Cluster::start(3, settings(100.0, None), &options(server.port)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watch = Watch::start(&cluster, (1..3_000).step_by(97));
    let handles = joining(&cluster, 10, &stop, u64::MAX);
    let mut slowest = Duration::ZERO;
    // Whoever starts has lost nothing.
    assert_eq!(sum(&cluster, |redis| &redis.lost), 0);
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(150)).await;
        tokio::task::block_in_place(|| wipe(&mut server));
        let before = cluster.instances[0].queue.serving();
        slowest = slowest.max(
            until("admission has stopped", || {
                cluster.instances.iter().all(|instance| instance.queue.serving() > before)
            })
            .await,
        );
    }
    until("redis does not come back", || cluster.instances.iter().all(Instance::redis_is_up)).await;
    stop.store(true, Ordering::Relaxed);
    let given = joined(handles).await;
    let polls = watch.end().await;
    let numbers = given.assert_unique();
    let last = *numbers.last().unwrap();
    let grants = sum(&cluster, |redis| &redis.grants);
    println!(
        "{rounds} times: {} joins, {:?} refused, {} empty places, {grants} grants, {polls} polls; \
         admission went on within {slowest:?}",
        numbers.len(),
        given.refused,
        last - numbers.len() as u64,
    );
    assert_eq!(given.refused, BTreeMap::new());
    assert!(numbers.len() > joins_min, "only {}", numbers.len());
    for instance in &cluster.instances {
        assert_eq!(instance.queue.counters().went_back.load(Ordering::Relaxed), 0);
        // Each has found it, and no more often than it was so; whoever was slow may have missed a round.
        let lost = instance.sequencer.redis().unwrap().lost.load(Ordering::Relaxed);
        assert!((1..=rounds as u64).contains(&lost), "{lost} of {rounds}");
    }
    assert_clean(&cluster.store, now()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_flushed_under_joins_and_ticks() {
    wiped(25, 1_000, |server| server.ask(&["FLUSHALL"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_restarted_empty_under_joins_and_ticks() {
    wiped(8, 400, |server| {
        server.kill();
        server.restart();
    })
    .await;
}

/// A snapshot that is older than what was given since brings old numbers back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_comes_back_with_an_old_snapshot() {
    let mut server = Server::with(&["--save", "3600 100000"]);
    let cluster = Cluster::start(3, settings(50.0, None), &options(server.port)).await;
    let watch = Watch::start(&cluster, (1..2_000).step_by(71));
    let stop = Arc::new(AtomicBool::new(false));
    let handles = joining(&cluster, 5, &stop, u64::MAX);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.ask::<String>(&["SAVE"]);
        // Some more numbers of the same block, which only one instance knows of.
        tokio::time::sleep(Duration::from_millis(120)).await;
        tokio::task::block_in_place(|| {
            server.kill();
            server.restart();
        });
        until("redis is not back", || cluster.instances.iter().all(Instance::redis_is_up)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let given = joined(handles).await;
    watch.end().await;
    assert_eq!(given.refused, BTreeMap::new());
    given.assert_unique();
    assert_clean(&cluster.store, now()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_does_not_answer_for_five_seconds() {
    let server = Server::start();
    let cluster = Cluster::start(3, settings(100.0, None), &options(server.port)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let handles = joining(&cluster, 5, &stop, u64::MAX);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = cluster.instances[0].queue.serving();
    server.freeze();
    let frozen = Instant::now();
    let mut slowest_poll = Duration::ZERO;
    while frozen.elapsed() < Duration::from_secs(5) {
        let began = Instant::now();
        for seq in 1..100 {
            let _ = cluster.instances[(seq % 3) as usize].place(seq);
        }
        slowest_poll = slowest_poll.max(began.elapsed() / 100);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let admitted = cluster.instances[0].queue.serving() - before;
    server.thaw();
    until("redis is not back", || cluster.instances.iter().all(Instance::redis_is_up)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let given = joined(handles).await;
    given.assert_unique();
    let slowest = given.numbers.iter().map(|(_, from, to)| *to - *from).max().unwrap();
    let during = given
        .numbers
        .iter()
        .filter(|(_, from, _)| *from > frozen && *from < frozen + Duration::from_secs(5))
        .count();
    let connections = sum(&cluster, |redis| &redis.connections);
    let worst = overtaken(&given.numbers);
    assert!(worst < Duration::from_millis(500), "overtaken by {worst:?}");
    println!(
        "{during} joins in the 5 s without redis, the slowest of all took {slowest:?}; {admitted} \
         admitted of 500; a poll took {slowest_poll:?}; {connections} connections"
    );
    assert_eq!(given.refused, BTreeMap::new());
    assert!(during > 1_000, "{during}");
    // Once nobody has had it for two seconds.
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    assert!((400..=600).contains(&admitted), "{admitted}");
    assert!(slowest_poll < Duration::from_millis(5), "{slowest_poll:?}");
    assert_clean(&cluster.store, now()).await;
}

/// Joins through all instances while something is done, and everybody has an own number.
async fn joins_through(cluster: &Cluster, what: impl AsyncFnOnce()) -> Given {
    let stop = Arc::new(AtomicBool::new(false));
    let handles = joining(cluster, 4, &stop, u64::MAX);
    tokio::time::sleep(Duration::from_millis(300)).await;
    what().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let given = joined(handles).await;
    given.assert_unique();
    for instance in &cluster.instances {
        assert_eq!(instance.queue.counters().went_back.load(Ordering::Relaxed), 0);
    }
    given
}

fn all_up(cluster: &Cluster) -> bool {
    cluster.instances.iter().all(Instance::redis_is_up)
}

fn none_up(cluster: &Cluster) -> bool {
    !cluster.instances.iter().any(Instance::redis_is_up)
}

fn why_away(cluster: &Cluster) -> String {
    cluster.instances[0].sequencer.redis().unwrap().away().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_is_full_or_a_replica_is_done_without() {
    let server = Server::start();
    let cluster = Cluster::start(2, settings(100.0, None), &options(server.port)).await;
    let given = joins_through(&cluster, async || {
        server.ask::<String>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        server.ask::<String>(&["CONFIG", "SET", "maxmemory", "1"]);
        until("it is not full", || none_up(&cluster)).await;
        assert!(why_away(&cluster).contains("maxmemory"), "{}", why_away(&cluster));
        let before = cluster.instances[0].queue.serving();
        until("nobody is admitted", || cluster.instances[0].queue.serving() > before + 20).await;
        server.ask::<String>(&["CONFIG", "SET", "maxmemory", "0"]);
        until("it is still full", || all_up(&cluster)).await;
        let other = Server::start();
        server.ask::<String>(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
        until("it is no replica", || none_up(&cluster)).await;
        until("the reason is not told", || why_away(&cluster).contains("it is a replica")).await;
        let before = cluster.instances[0].queue.serving();
        until("nobody is admitted", || cluster.instances[0].queue.serving() > before + 20).await;
        server.ask::<String>(&["REPLICAOF", "NO", "ONE"]);
        until("it is still a replica", || all_up(&cluster)).await;
    })
    .await;
    assert_eq!(given.refused, BTreeMap::new());
    // Scripts that it has forgotten.
    server.ask::<String>(&["SCRIPT", "FLUSH"]);
    cluster.instances[0].join().await.unwrap();
    assert!(cluster.instances[0].redis_is_up());
    assert_clean(&cluster.store, now()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_of_another_store_are_refused() {
    let server = Server::start();
    let cluster = Cluster::start(1, settings(100.0, None), &options(server.port)).await;
    let (store, _directory) = fresh().await;
    let other = RedisOptions { cluster: "cluster-2".into(), ..options(server.port) };
    let defaults = settings(1.0, None);
    let answer =
        RedisSequencer::open(store.clone(), &defaults, other.clone(), now()).await.map(|_| ());
    let Err(Fault::Unavailable(why)) = answer else { panic!("{answer:?}") };
    assert!(why.contains("queue.redis.prefix"), "{why}");
    // Under a prefix of its own it is nobody's neighbour.
    let other = RedisOptions { prefix: "other".into(), ..other };
    store.create_queue(name("main"), settings(1.0, None)).await.unwrap();
    let instance = Instance::start(&store, other).await;
    assert!(instance.redis_is_up());
    assert_eq!(instance.join().await, Ok(1));
    assert_eq!(cluster.instances[0].join().await, Ok(1));
}

/// Changing the signing key has an order: known everywhere first, then used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_know_each_others_keys() {
    let server = Server::start();
    let with = |keys: &[&str]| RedisOptions {
        instance: keys.join(" "),
        ticket_keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..options(server.port)
    };
    let cluster = Cluster::start(0, settings(1.0, None), &with(&[])).await;
    let defaults = settings(1.0, None);
    let open = async |keys: &[&str]| {
        RedisSequencer::open(cluster.store.clone(), &defaults, with(keys), now()).await.map(|_| ())
    };
    let old = Instance::start(&cluster.store, with(&["old"])).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    for (keys, why) in
        [(&["new"][..], "we do not know theirs"), (&["new", "old"][..], "it does not know ours")]
    {
        let answer = open(keys).await;
        let Err(Fault::Unavailable(text)) = answer else { panic!("{answer:?}") };
        assert!(text.contains(why) && text.contains("previous_signing_keys"), "{text}");
    }
    // One that ends is none; then first the key is known, and then it signs.
    let both = Instance::start(&cluster.store, with(&["old", "new"])).await;
    old.sequencer.close(now()).await.unwrap();
    old.kill();
    tokio::time::sleep(Duration::from_millis(250)).await;
    open(&["new", "old"]).await.unwrap();
    drop(both);
}

/// What a fan may do must not depend on which instance answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_decide_by_the_same_rules() {
    let server = Server::start();
    let with = |instance: &str, hold: &str| RedisOptions {
        instance: instance.into(),
        rules: Rules::from_iter([("sales.hold_seconds", hold), ("auth.mode", "\"none\"")]),
        ..options(server.port)
    };
    let cluster = Cluster::start(0, settings(1.0, None), &with("", "300")).await;
    let defaults = settings(1.0, None);
    let open = async |instance: &str, hold: &str| {
        let options = with(instance, hold);
        let opened = RedisSequencer::open(cluster.store.clone(), &defaults, options, now()).await;
        opened.map(Sequencer::Redis)
    };
    let first = open("first", "300").await.unwrap();
    let answer = open("second", "60").await.map(|_| ());
    let Err(Fault::Unavailable(why)) = answer else { panic!("{answer:?}") };
    assert!(why.contains("sales.hold_seconds is 300 there and 60 here"), "{why}");
    assert!(!why.contains("auth.mode"), "{why}");
    // Who was refused is in nobody's way, and neither is one that has ended.
    let third = open("third", "300").await.unwrap();
    first.close(now()).await.unwrap();
    third.close(now()).await.unwrap();
    open("fourth", "60").await.unwrap();
    // Of two that start at once, at most one is there in the end.
    let (a, b) = tokio::join!(open("a", "1"), open("b", "2"));
    assert!(a.is_err() || b.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_starts_without_redis_and_finds_it_later() {
    let mut server = Server::start();
    server.kill();
    let cluster = Cluster::start(2, settings(1_000.0, None), &options(server.port)).await;
    assert!(none_up(&cluster));
    let first = cluster.instances[0].join().await.unwrap();
    let second = cluster.instances[1].join().await.unwrap();
    assert!(first < second);
    until("nobody is admitted", || {
        cluster.instances.iter().all(|instance| instance.queue.serving() >= second)
    })
    .await;
    server.restart();
    until("it is not found", || all_up(&cluster)).await;
    assert!(cluster.instances[0].join().await.unwrap() > second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_killed_and_all_are_restarted() {
    let server = Server::start();
    let options = options(server.port);
    let mut cluster = Cluster::start(3, settings(20.0, None), &options).await;
    let mut given = joins_through(&cluster, async || {}).await;
    cluster.instances.remove(0).kill();
    let before = cluster.instances[0].queue.serving();
    until("admission has stopped", || cluster.instances[0].queue.serving() > before + 3).await;
    // All of them, in good order or not.
    for instance in std::mem::take(&mut cluster.instances) {
        instance.kill();
    }
    for _ in 0..3 {
        let instance = Instance::start(&cluster.store, options.clone()).await;
        cluster.instances.push(instance);
    }
    let more = joins_through(&cluster, async || {}).await;
    let last = given.numbers.iter().map(|(seq, _, _)| *seq).max().unwrap();
    let next = more.numbers.iter().map(|(seq, _, _)| *seq).min().unwrap();
    // Redis knew where the line ended: no place is empty.
    assert_eq!(next, last + 1);
    given.numbers.extend(more.numbers);
    given.assert_unique();
    // And with Redis wiped meanwhile: those who joined are still admitted.
    for instance in std::mem::take(&mut cluster.instances) {
        instance.sequencer.close(now()).await.unwrap();
        assert!(instance.join().await.is_err());
    }
    server.ask::<String>(&["FLUSHALL"]);
    let instance = Instance::start(&cluster.store, options.clone()).await;
    let next = instance.join().await.unwrap();
    assert!(!given.numbers.iter().any(|(seq, _, _)| *seq >= next), "{next}");
    assert!(instance.queue.serving() > 0);
    assert_clean(&cluster.store, now()).await;
}

/// The connection is there and nothing comes through it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_costs_a_join_no_more_than_the_time_out() {
    // It takes connections and never says a word.
    let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = hole.local_addr().unwrap().port();
    let taken = Arc::new(AtomicU64::new(0));
    let count = taken.clone();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((connection, _)) = hole.accept() {
            open.push(connection);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let cluster = Cluster::start(1, settings(100.0, None), &options(port)).await;
    let given = joins_through(&cluster, async || {
        tokio::time::sleep(Duration::from_secs(3)).await;
    })
    .await;
    let slowest = given.numbers.iter().map(|(_, from, to)| *to - *from).max().unwrap();
    let dials = taken.load(Ordering::Relaxed);
    println!("{} joins, the slowest took {slowest:?}; {dials} connections", given.numbers.len());
    assert_eq!(given.refused, BTreeMap::new());
    assert!(slowest < Duration::from_millis(600), "{slowest:?}");
    assert!(dials < 20, "{dials} connections in 4 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_name_another_master() {
    let mut master = Server::start();
    let port = master.port.to_string();
    let replicas: Vec<Server> =
        (0..2).map(|_| Server::with(&["--save", "", "--replicaof", "127.0.0.1", &port])).collect();
    for replica in &replicas {
        until("a replica is not in step", || {
            replica.ask::<String>(&["INFO", "replication"]).contains("master_link_status:up")
        })
        .await;
    }
    let config = format!(
        "sentinel monitor tickets 127.0.0.1 {port} 2\nsentinel down-after-milliseconds tickets \
         1000\nsentinel failover-timeout tickets 4000\n"
    );
    let sentinels: Vec<Server> =
        (0..3).map(|_| Server::with(&[config.as_str(), "--sentinel"])).collect();
    for sentinel in &sentinels {
        until("the sentinels do not know each other", || {
            let text: String = sentinel.ask(&["INFO", "sentinel"]);
            text.contains("slaves=2,sentinels=3")
        })
        .await;
    }
    let options = RedisOptions {
        mode: RedisMode::Sentinel("tickets".into()),
        nodes: sentinels.iter().map(|s| ("127.0.0.1".into(), s.port)).collect(),
        ..options(0)
    };
    let cluster = Cluster::start(3, settings(100.0, None), &options).await;
    assert!(all_up(&cluster));
    let watch = Watch::start(&cluster, (1..2_000).step_by(97));
    let given = joins_through(&cluster, async || {
        master.kill();
        until("it is not missed", || none_up(&cluster)).await;
        let took = until("there is no other master", || all_up(&cluster)).await;
        println!("another master after {took:?}");
    })
    .await;
    watch.end().await;
    assert_eq!(given.refused, BTreeMap::new());
    assert!(replicas.iter().any(|replica| replica.calls() > 0));
    assert_clean(&cluster.store, now()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_cluster_fails_over() {
    let mut nodes: Vec<Server> = (0..6)
        .map(|_| {
            let bus = testbed::free_port().unwrap().to_string();
            Server::with(&[
                "--save",
                "",
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "1500",
            ])
        })
        .collect();
    let addresses: Vec<String> =
        nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let made = std::process::Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(&addresses)
        .args(["--cluster-replicas", "1", "--cluster-yes"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    for node in &nodes {
        until("a node is not ready", || {
            let replication: String = node.ask(&["INFO", "replication"]);
            node.ask::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                && (replication.contains("role:master")
                    || replication.contains("master_link_status:up"))
        })
        .await;
    }
    let options = RedisOptions {
        mode: RedisMode::Cluster,
        nodes: nodes.iter().take(3).map(|node| ("127.0.0.1".into(), node.port)).collect(),
        ..options(0)
    };
    let cluster = Cluster::start(3, settings(100.0, None), &options).await;
    assert!(all_up(&cluster), "{}", why_away(&cluster));
    let owner = nodes.iter().position(|node| node.calls() > 0).unwrap();
    let given = joins_through(&cluster, async || {
        nodes[owner].kill();
        until("it is not missed", || none_up(&cluster)).await;
        let began = Instant::now();
        while !all_up(&cluster) && began.elapsed() < Duration::from_secs(15) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(all_up(&cluster), "{}", why_away(&cluster));
        let took = began.elapsed();
        println!("another node after {took:?}");
    })
    .await;
    assert_eq!(given.refused, BTreeMap::new());
    assert_clean(&cluster.store, now()).await;
}

/// Everything but its joins stands still at one instance, as in a process that gets no time. It wakes
/// up with an old mirror, and the news that it missed are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_slept_catches_up() {
    let server = Server::start();
    let cluster = Cluster::start(3, settings(100.0, None), &options(server.port)).await;
    let watch = Watch::start(&cluster, (1..600).step_by(13));
    let given = joins_through(&cluster, async || {
        for trimmed in [false, true] {
            let [sleeper, other, _] = &cluster.instances[..] else { panic!("three of them") };
            sleeper.paused.store(true, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(150)).await;
            let before = sleeper.queue.serving();
            until("admission has stopped", || other.queue.serving() > before + 100).await;
            assert_eq!(sleeper.queue.serving(), before);
            let gone = other.queue.serving() + 50;
            other.sequencer.leave(&other.queue, &pass(gone), now()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(250)).await;
            if trimmed {
                server.ask::<u64>(&["XTRIM", "{boxoffice}:log", "MAXLEN", "0"]);
            }
            // It may find that it is its turn before it has heard anything.
            sleeper.paused.store(false, Ordering::Relaxed);
            until("it does not wake up", || {
                sleeper.queue.serving() >= before + 100
                    && sleeper.place(gone) == Place::Over(Ending::Left)
            })
            .await;
        }
    })
    .await;
    watch.end().await;
    assert_eq!(given.refused, BTreeMap::new());
    assert_clean(&cluster.store, now()).await;
}

/// A certificate for 127.0.0.1 and the authority that signed it, in files `ca.pem`, `server.pem` and
/// `server.key`.
fn certificates(directory: &std::path::Path) {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -keyout ca.key -out ca.pem -days 2 -subj /CN=test-authority && \
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key \
        -out server.csr -subj /CN=redis && echo subjectAltName=IP:127.0.0.1 > names && \
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
        -extfile names -out server.pem";
    let made = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Encrypted, as a user who may do what docs/operations.md lists and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_few_rights_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let tls_port = testbed::free_port().unwrap();
    let arguments: [&str; 12] = [
        "--save",
        "",
        "--tls-port",
        &tls_port.to_string(),
        "--tls-cert-file",
        &file("server.pem"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
        "--tls-auth-clients",
        "no",
    ];
    let server = Server::with(&arguments);
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let listed = guide.split("A user with the commands").nth(1).unwrap();
    let listed = listed.split("and the keys").next().unwrap();
    let mut rights: Vec<String> = listed
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|command| format!("+{}", command.to_lowercase()))
        .collect();
    assert!(rights.len() > 10, "{rights:?}");
    let words = ["ACL", "SETUSER", "tickets", "on", ">a-password", "~{boxoffice}:*"];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.append(&mut rights);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    server.ask::<String>(&words);

    let options = RedisOptions {
        user: Some("tickets".into()),
        password: Some("a-password".into()),
        tls: true,
        tls_ca: Some(std::fs::read(file("ca.pem")).unwrap()),
        ..options(tls_port)
    };
    let cluster = Cluster::start(2, settings(1_000.0, None), &options).await;
    assert!(all_up(&cluster), "{}", why_away(&cluster));
    let given = joins_through(&cluster, async || {
        let served = cluster.instances[1].queue.serving();
        until("nobody is admitted", || cluster.instances[1].queue.serving() > served).await;
    })
    .await;
    assert_eq!(given.refused, BTreeMap::new());
    assert!(all_up(&cluster), "{}", why_away(&cluster));
    let redis = cluster.instances[0].sequencer.redis().unwrap();
    assert_eq!(redis.direct.load(Ordering::Relaxed), 0);

    // What is wrong is said, and is done without.
    let wrong = [
        RedisOptions { password: Some("another".into()), ..options.clone() },
        RedisOptions { prefix: "elsewhere".into(), ..options.clone() },
        RedisOptions { tls_ca: None, ..options.clone() },
    ];
    for (options, why) in wrong.into_iter().zip(["queue.redis.password", "operations.md", "cert"]) {
        let cluster = Cluster::start(1, settings(1.0, None), &options).await;
        assert!(none_up(&cluster));
        assert!(why_away(&cluster).contains(why), "{why}: {}", why_away(&cluster));
        assert_eq!(cluster.instances[0].join().await, Ok(1));
    }
}

/// Whoever knew of the last numbers is gone, and the snapshot is older than they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_left_who_knows_that_a_snapshot_is_old() {
    let mut server = Server::with(&["--save", "3600 100000"]);
    let mut cluster = Cluster::start(1, settings(1.0, None), &options(server.port)).await;
    for _ in 0..10 {
        cluster.instances[0].join().await.unwrap();
    }
    server.ask::<String>(&["SAVE"]);
    cluster.instances[0].paused.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(150)).await;
    let mut last = 0;
    for _ in 0..10 {
        last = cluster.instances[0].join().await.unwrap();
    }
    cluster.instances.remove(0).kill();
    server.kill();
    server.restart();
    let instance = Instance::start(&cluster.store, options(server.port)).await;
    assert!(instance.redis_is_up());
    let next = instance.join().await.unwrap();
    assert!(next > last, "{next} after {last}");
}
