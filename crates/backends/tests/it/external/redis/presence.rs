//! Who is there, as instances tell each other. Time is injected, and goes by faster than it does.

use super::*;
use boxoffice_backends::sequencer::Counters;

use crate::conformance::at;
use crate::line::{Line, slow, waiting};

/// Instances on one store that tick and beat when they are told to.
struct Crowd {
    lines: Vec<Line>,
    server: Server,
    _directory: TempDir,
    beats: bool,
}

const STEP_MS: i64 = 500;

impl Crowd {
    /// A paused queue in which thirty wait, ten of them without ever polling.
    async fn new(beats: bool) -> Self {
        let server = Server::start();
        let (store, directory) = fresh().await;
        let paused = QueueSettings { paused: true, ..slow() };
        assert!(store.create_queue(name("main"), paused).await.unwrap());
        let mut lines = Vec::new();
        for instance in ["a", "b"] {
            let options = RedisOptions {
                turn: Duration::ZERO,
                instance: instance.into(),
                ..options(server.port)
            };
            let redis = RedisSequencer::open(store.clone(), &slow(), options, START).await.unwrap();
            let sequencer = Sequencer::Redis(redis);
            let queue = sequencer.queue("main").unwrap();
            lines.push(Line { sequencer, queue, store: store.clone(), now: 0 });
        }
        let mut crowd = Self { lines, server, _directory: directory, beats };
        crowd.step().await;
        let [a, b] = &crowd.lines[..] else { panic!("two of them") };
        a.joined(15).await;
        b.joined(15).await;
        crowd
    }

    /// Half a second goes by.
    async fn step(&mut self) {
        for line in &mut self.lines {
            line.tick(STEP_MS).await;
            if self.beats {
                line.sequencer.beat(at(line.now)).await.unwrap();
            }
        }
    }

    /// Some seconds go by, in which the first ten poll at one instance and the last ten at the other.
    async fn seconds(&mut self, count: i64) {
        for _ in 0..count * 1_000 / STEP_MS {
            self.lines[0].places(21..=30);
            self.lines[1].places(1..=10);
            self.step().await;
        }
    }

    async fn open(&self) {
        let [a, b] = &self.lines[..] else { panic!("two of them") };
        a.sequencer.change(&a.queue, SettingsChange::pause(false)).await.unwrap();
        b.sequencer.change(&b.queue, SettingsChange::pause(false)).await.unwrap();
    }

    fn count(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        // A step is counted where it was made.
        let count = |line: &Line| counter(line.queue.counters()).load(Ordering::Relaxed);
        self.lines.iter().map(count).sum()
    }

    /// Nobody in `seqs` waits, wherever he asks.
    fn are_in(&self, seqs: std::ops::RangeInclusive<u64>) -> bool {
        self.lines.iter().all(|line| {
            line.places(seqs.clone()).iter().all(|place| matches!(place, Place::Active { .. }))
        })
    }

    async fn audit(&self) {
        for line in &self.lines {
            line.audit().await;
        }
    }
}

/// Whose polls one instance has answered is known to the other, which admits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_polls_at_one_instance_is_there_for_all() {
    for with_redis in [true, false] {
        let mut crowd = Crowd::new(true).await;
        if !with_redis {
            crowd.server.kill();
        }
        // Nobody knows for how long somebody may be silent who came before the service was started.
        crowd.seconds(110).await;
        assert_eq!(crowd.count(|counters| &counters.passed), 0, "in a paused queue");
        crowd.open().await;
        crowd.seconds(4).await;
        assert!(crowd.are_in(1..=10) && crowd.are_in(21..=30), "with redis: {with_redis}");
        // The numbers that were left in the pool went with it, and are empty places: they cost nothing.
        let serving = crowd.lines[0].queue.serving();
        assert!(if with_redis { serving == 30 } else { serving > 30 }, "{serving}");
        assert_eq!(crowd.count(|counters| &counters.passed), serving - 20);
        crowd.audit().await;

        // Who comes back is let in at the next tick, also where another instance admits.
        assert_eq!(crowd.lines[1].place(15), waiting(1));
        for _ in 0..3 {
            crowd.step().await;
        }
        assert!(crowd.are_in(15..=15), "with redis: {with_redis}");
        assert_eq!(crowd.lines[0].place(12), waiting(1));
        for _ in 0..3 {
            crowd.step().await;
        }
        assert!(crowd.are_in(12..=12), "with redis: {with_redis}");
        assert_eq!(crowd.count(|counters| &counters.returned), 2);
        crowd.audit().await;
        // All of it is in the store.
        let line = crowd.lines[0].store.queues().await.unwrap().remove(0).line;
        let expected: Vec<u64> = (11..=20).filter(|seq| *seq != 12 && *seq != 15).collect();
        assert_eq!(line.passed.iter().take_while(|seq| *seq <= 30).collect::<Vec<_>>(), expected);
        let readmitted: Vec<u64> = line.readmitted.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(readmitted, [12, 15]);
    }
}

/// Who does not hear the others passes nobody over: his fans may poll there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_beats_nobody_is_passed_over() {
    let mut crowd = Crowd::new(false).await;
    crowd.seconds(110).await;
    crowd.open().await;
    crowd.seconds(4).await;
    assert_eq!(crowd.count(|counters| &counters.passed), 0);
    assert!(crowd.are_in(1..=30));
    crowd.audit().await;
}

/// What was left in the pool of a Redis that was lost keeps nobody waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_the_places_that_were_lost_with_a_redis() {
    let mut crowd = Crowd::new(true).await;
    // A rush, so that the pool becomes large.
    let mut there = Vec::new();
    for _ in 0..20 {
        there.extend(crowd.lines[0].joined(10).await);
        crowd.step().await;
    }
    crowd.server.kill();
    crowd.server.restart();
    let mut late = Vec::new();
    while late.len() < 20 {
        crowd.step().await;
        // Until all know that Redis is back, joins may be refused.
        late.extend(crowd.lines[1].sequencer.join(&crowd.lines[1].queue).await);
    }
    let lost = late[0] - there[there.len() - 1] - 1;
    assert!(lost >= 500, "{lost} were lost");

    // Everybody polls until it is known of the numbers between them that nobody has them.
    there.extend(&late);
    let until = crowd.lines[0].now + 110_000;
    while crowd.lines[0].now < until {
        crowd.lines[0].places(there.iter().copied());
        crowd.step().await;
    }
    crowd.open().await;
    let (opened, mut waits) = (crowd.lines[0].now, there.len());
    while waits > 0 {
        let places = crowd.lines[0].places(there.iter().copied());
        waits = places.iter().filter(|place| matches!(place, Place::Waiting { .. })).count();
        crowd.step().await;
        assert!(crowd.lines[0].now - opened < 120_000, "{waits} of {} wait", there.len());
    }
    // Ten a second.
    let seconds = (crowd.lines[0].now - opened) / 1_000;
    println!("{} were lost; {} were let in within {seconds} s", lost, there.len());
    assert!((20..=25).contains(&seconds), "{seconds} s");
    crowd.audit().await;
}
