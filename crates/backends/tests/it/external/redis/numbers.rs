//! Where numbers come from: the store grants them to a pool in Redis, or gives them itself while nobody
//! has Redis. What may be lost, late or told twice, is.

use super::*;
use crate::common;
use testbed::{FaultProxy, Mode};

const STATE: &str = "{boxoffice}:state";

/// What the server has of the queue: the generation, the last number given, and the last one granted.
fn pool(server: &Server) -> (String, u64, u64) {
    let (generation, next, limit): (_, Option<u64>, Option<u64>) =
        server.ask(&["HMGET", STATE, "gen", "main:next", "main:limit"]);
    (generation, next.unwrap_or(0), limit.unwrap_or(0))
}

/// How many numbers are left in it.
fn left(server: &Server) -> u64 {
    let (_, next, limit) = pool(server);
    limit - next
}

async fn watermark(cluster: &Cluster) -> u64 {
    cluster.store.queues().await.unwrap()[0].watermark
}

/// Keeps everybody else from writing to the store.
struct Away(rusqlite::Connection);

impl Away {
    fn begin(cluster: &Cluster) -> Self {
        let file = common::raw(cluster._directory.path());
        file.busy_timeout(Duration::from_secs(20)).unwrap();
        file.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(file)
    }

    fn end(self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

/// Joins until it is refused; returns the numbers, why there are no more, and how long that took to say.
async fn join_until_refused(instance: &Instance) -> (Vec<u64>, Fault, Duration) {
    let mut numbers = Vec::new();
    loop {
        let asked = Instant::now();
        match instance.join().await {
            Ok(seq) => numbers.push(seq),
            Err(why) => return (numbers, why, asked.elapsed()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_has_sixty_four_numbers_at_least_and_is_topped_up() {
    let server = Server::start();
    let cluster = Cluster::start(1, settings(1.0, None), &options(server.port)).await;
    let [a] = &cluster.instances[..] else { panic!("one of them") };
    assert_eq!(a.join().await, Ok(1));
    assert_eq!(left(&server), 63);
    let pooled = || a.sequencer.redis().unwrap().pooled.load(Ordering::Relaxed);
    until("the pool is not told of", || pooled() == 63).await;
    // What the store has granted nobody has yet.
    let stored = cluster.store.queues().await.unwrap().remove(0);
    assert_eq!(stored.watermark, 64);
    for seq in 2..=200 {
        assert_eq!(a.join().await, Ok(seq));
        // A quarter of it may be gone before anybody fetches more, and a few more until they are there.
        assert!(left(&server) > 32, "{} left", left(&server));
    }
    until("it is not topped up", || left(&server) >= 48).await;
    let (_, next, limit) = pool(&server);
    assert_eq!((next, watermark(&cluster).await), (200, limit));
    assert_clean(&cluster.store, now()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_lasts_for_its_time_at_the_rate_of_the_rush() {
    for (instances, reserve) in [(1, 30), (2, 10)] {
        let server = Server::start();
        let reserve_time = Duration::from_secs(reserve);
        let options = RedisOptions { reserve: reserve_time, ..options(server.port) };
        let cluster = Cluster::start(instances, settings(1.0, None), &options).await;
        let stop = Arc::default();
        let began = Instant::now();
        // A join that comes alone waits for a hundredth of a second: a hundred a second for each instance.
        let joins = joining(&cluster, 1, &stop, u64::MAX);
        tokio::time::sleep(Duration::from_secs(6)).await;
        stop.store(true, Ordering::Relaxed);
        let given = joined(joins).await;
        let rate = given.numbers.len() as f64 / began.elapsed().as_secs_f64();
        let lasts_s = left(&server) as f64 / rate;
        println!("{rate} a second: {} left for {lasts_s} s of {reserve}", left(&server));
        assert!((0.6..=1.15).contains(&(lasts_s / reserve as f64)), "{lasts_s} s");
        assert_eq!(given.refused, BTreeMap::new());
        given.assert_unique();
    }
}

/// What is granted and not installed at once: once, and only where it belongs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_installed_once_and_in_its_own_pool() {
    let script = concat!(
        include_str!("../../../../src/sequencer/redis/state.lua"),
        include_str!("../../../../src/sequencer/redis/install.lua")
    );
    let server = Server::start();
    let cluster = Cluster::start(1, settings(1.0, None), &options(server.port)).await;
    cluster.instances[0].join().await.unwrap();
    let (generation, ..) = pool(&server);
    let install = |generation: &str, first: u64, last: u64| -> String {
        let (first, last) = (first.to_string(), last.to_string());
        let keys = [STATE, "{boxoffice}:log", "{boxoffice}:turn"];
        let arguments = ["cluster-1", "main", generation, &first, &last];
        let words = [&["EVAL", script, "3"][..], &keys, &arguments].concat();
        server.ask::<Vec<String>>(&words).remove(0)
    };
    let other = format!("{generation}0");
    for (pool_of, first, last, said, next, limit) in [
        (&generation, 65, 100, "OK", 1, 100),
        // Twice, late, or for a server that was restarted since.
        (&generation, 65, 100, "DROPPED", 1, 100),
        (&generation, 65, 80, "DROPPED", 1, 100),
        (&generation, 1, 64, "DROPPED", 1, 100),
        (&other, 101, 120, "DROPPED", 1, 100),
        (&generation, 101, 120, "OK", 1, 120),
        // Somebody was given numbers by the store meanwhile: what is below them is not given any more.
        (&generation, 131, 140, "OK", 130, 140),
    ] {
        assert_eq!(install(pool_of, first, last), said, "{first} to {last}");
        assert_eq!(pool(&server), (generation.clone(), next, limit), "{first} to {last}");
    }
    assert_eq!(cluster.instances[0].join().await, Ok(131));
}

/// Whoever was fetching did it for the pool that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_pool_is_filled_at_once() {
    let server = Server::start();
    let cluster = Cluster::start(1, settings(1.0, None), &options(server.port)).await;
    let [a] = &cluster.instances[..] else { panic!("one of them") };
    let mut last = 0;
    for _ in 0..2 {
        // An instance that is asked to fetch, and is killed before it has.
        let away = Away::begin(&cluster);
        let (numbers, ..) = join_until_refused(a).await;
        last = numbers.last().copied().unwrap_or(last);
        // As after a failover: all keys are there, and it is another server.
        server.ask::<u64>(&["HSET", STATE, "run", "another"]);
        away.end();
        let asked = Instant::now();
        let next = a.join().await.unwrap();
        assert!(next > last, "{next} after {last}");
        assert!(asked.elapsed() < Duration::from_millis(400), "{:?}", asked.elapsed());
        last = next;
    }
}

/// Numbers that others were given by the store lie above those of the pool: joins go on above them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_go_on_above_numbers_that_were_given_elsewhere() {
    let server = Server::start();
    let cluster = Cluster::start(1, settings(1.0, None), &options(server.port)).await;
    let [a] = &cluster.instances[..] else { panic!("one of them") };
    let mut last = a.join().await.unwrap();
    for beyond in [40, 500, 510] {
        // What a tick of another instance tells of numbers that it was given.
        server.ask::<u64>(&["HSET", STATE, "main:next", &beyond.to_string()]);
        // They were taken from the store.
        while watermark(&cluster).await < beyond {
            let request = boxoffice_backends::store::GrantRequest {
                queue: name("main"),
                pool: "elsewhere".into(),
                after: beyond,
                count: beyond - watermark(&cluster).await,
            };
            cluster.store.grant_numbers(request).await.unwrap();
        }
        for _ in 0..100 {
            let next = a.join().await.unwrap();
            assert!(next > last.max(beyond), "{next} after {last} and {beyond}");
            last = next;
        }
    }
    assert_eq!(a.sequencer.redis().unwrap().direct.load(Ordering::Relaxed), 0);
}

/// The pool lasts while the store is away; then joins are refused in time, and nobody makes numbers up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_used_up_while_the_store_is_away_and_no_further() {
    let server = Server::start();
    let cluster = Cluster::start(2, settings(50.0, None), &options(server.port)).await;
    let [a, b] = &cluster.instances[..] else { panic!("two of them") };
    assert_eq!(a.join().await, Ok(1));
    for _ in 0..2 {
        until("there is no pool", || left(&server) >= 48).await;
        let (_, next, limit) = pool(&server);
        let away = Away::begin(&cluster);
        let (at_a, ..) = join_until_refused(a).await;
        let (at_b, why, took) = join_until_refused(b).await;
        // Every number of the pool, and none beyond.
        assert_eq!([at_a, at_b].concat(), (next + 1..=limit).collect::<Vec<_>>());
        assert!(matches!(&why, Fault::Unavailable(_)), "{why}");
        assert!(took < Duration::from_millis(700), "refused after {took:?}");
        let served = a.queue.serving();
        let (none, ..) = join_until_refused(a).await;
        assert!(none.is_empty());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(a.queue.serving(), served, "admitted without the store");
        away.end();
        // It goes on where it was.
        let next = async || {
            let until = Instant::now() + Duration::from_secs(10);
            loop {
                match b.join().await {
                    Ok(seq) => return seq,
                    Err(why) => assert!(Instant::now() < until, "{why}"),
                }
            }
        };
        assert_eq!(next().await, limit + 1);
        until("admission has stopped", || a.queue.serving() >= limit).await;
    }
    assert_clean(&cluster.store, now()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_wiped_while_the_store_is_away() {
    let mut server = Server::start();
    let cluster = Cluster::start(2, settings(50.0, None), &options(server.port)).await;
    let [a, b] = &cluster.instances[..] else { panic!("two of them") };
    let mut given = BTreeSet::new();
    for round in 0..4 {
        for _ in 0..30 {
            given.insert(a.join().await.unwrap());
            given.insert(b.join().await.unwrap());
        }
        assert_eq!(given.len(), 61 * round + 60, "a number was given twice");
        let last = *given.last().unwrap();
        let away = Away::begin(&cluster);
        if round % 2 == 0 {
            server.ask::<()>(&["FLUSHALL"]);
        } else {
            tokio::task::block_in_place(|| {
                server.kill();
                server.restart();
            });
        }
        // Nobody knows which numbers are free, and nobody guesses.
        for instance in [a, b] {
            let (none, ..) = join_until_refused(instance).await;
            assert!(none.is_empty(), "{none:?}");
        }
        away.end();
        until("redis is not back", || all_up(&cluster)).await;
        let until = Instant::now() + Duration::from_secs(10);
        let next = loop {
            match b.join().await {
                Ok(seq) => break seq,
                Err(why) => assert!(Instant::now() < until, "{why}"),
            }
        };
        assert!(next > last, "{next} after {last}");
        // As many places are empty as the pools had that were lost.
        assert!(next <= last + 10_000, "{next} after {last}");
        given.insert(next);
    }
    for instance in &cluster.instances {
        assert_eq!(instance.queue.counters().went_back.load(Ordering::Relaxed), 0);
    }
    assert_clean(&cluster.store, now()).await;
}

/// A store that answers late leaves no place empty, and joins go on from the pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_answers_late_costs_no_numbers() {
    let server = Server::start();
    let cluster = Cluster::start(2, settings(50.0, None), &options(server.port)).await;
    let stop = Arc::default();
    let joins = joining(&cluster, 1, &stop, u64::MAX);
    // A pool for a rush of this size.
    until("there is no pool", || left(&server) > 500).await;
    let grants = sum(&cluster, |redis| &redis.grants);
    for _ in 0..8 {
        let away = tokio::task::block_in_place(|| Away::begin(&cluster));
        tokio::time::sleep(Duration::from_millis(600)).await;
        away.end();
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    assert!(sum(&cluster, |redis| &redis.grants) > grants, "nothing was fetched meanwhile");
    stop.store(true, Ordering::Relaxed);
    let given = joined(joins).await;
    let numbers = given.assert_unique();
    let slowest = given.numbers.iter().map(|(_, from, to)| *to - *from).max().unwrap();
    println!("{} joins, the slowest took {slowest:?}", numbers.len());
    assert_eq!(given.refused, BTreeMap::new());
    assert_eq!(numbers.len() as u64, *numbers.last().unwrap(), "there are empty places");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert_clean(&cluster.store, now()).await;
}

/// One instance cannot reach Redis: it sends its joins elsewhere, and they are taken there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_alone_without_redis_sends_joins_elsewhere() {
    let server = Server::start();
    let proxy = FaultProxy::start(server.port).unwrap();
    let mut cluster = Cluster::start(0, settings(100.0, None), &options(server.port)).await;
    for port in [proxy.port, server.port, server.port] {
        let instance = Instance::start(&cluster.store, options(port)).await;
        cluster.instances.push(instance);
    }
    let [a, b, _] = &cluster.instances[..] else { panic!("three of them") };
    let mut last = a.join().await.unwrap();
    let elsewhere = || a.sequencer.are_joins_elsewhere();
    assert!(!elsewhere());
    for _ in 0..2 {
        proxy.set(Mode::Stall);
        let lost = Instant::now();
        // Whoever joins before it is certain waits for that.
        let Err(Fault::Unavailable(why)) = a.join().await else {
            panic!("{last} was not the last")
        };
        assert!(why.contains("elsewhere"), "{why}");
        println!("certain after {:?}", lost.elapsed());
        assert!(lost.elapsed() < Duration::from_millis(3_300), "{:?}", lost.elapsed());
        until("it is not certain", elsewhere).await;
        for _ in 0..10 {
            let asked = Instant::now();
            assert!(a.join().await.is_err());
            assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
            let next = b.join().await.unwrap();
            assert!(next > last, "{next} after {last}");
            assert!(asked.elapsed() < Duration::from_millis(200), "{:?}", asked.elapsed());
            last = next;
        }
        // It hears of admissions through the store.
        until("it knows nothing", || a.queue.serving() >= last).await;
        assert!(!b.sequencer.are_joins_elsewhere());
        assert_eq!(sum(&cluster, |redis| &redis.direct), 0, "the store gave numbers as well");
        proxy.set(Mode::Pass);
        until("redis does not come back", || a.redis_is_up() && !elsewhere()).await;
        let next = a.join().await.unwrap();
        assert!(next > last, "{next} after {last}");
        last = next;
    }
    assert_clean(&cluster.store, now()).await;
}

/// Redis is away for all: numbers come from the store once nobody has had it for two seconds. Nobody is
/// refused, and nobody comes before those who were first, also when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_instances_without_redis_go_on_after_two_seconds() {
    let mut server = Server::start();
    let cluster = Cluster::start(3, settings(100.0, None), &options(server.port)).await;
    let given = joins_through(&cluster, async || {
        for _ in 0..2 {
            let direct = || sum(&cluster, |redis| &redis.direct);
            // Each has told that it has Redis.
            tokio::time::sleep(Duration::from_millis(700)).await;
            let before = direct();
            server.kill();
            let took = until("joins do not go on", || direct() > before).await;
            println!("joins go on after {took:?}");
            // The last beat with Redis may be half a second older.
            assert!((1_400..3_200).contains(&took.as_millis()), "{took:?}");
            assert!(!cluster.instances.iter().any(|i| i.sequencer.are_joins_elsewhere()));
            until("they stop again", || direct() > before + 300).await;
            server.restart();
            until("redis does not come back", || all_up(&cluster)).await;
            let pooled = sum(&cluster, |redis| &redis.grants);
            until("the pool is not used", || sum(&cluster, |redis| &redis.grants) > pooled).await;
        }
    })
    .await;
    assert_eq!(given.refused, BTreeMap::new());
    let worst = overtaken(&given.numbers);
    println!("{} joins, overtaken by {worst:?} at the most", given.numbers.len());
    assert!(worst < Duration::from_millis(700), "overtaken by {worst:?}");
    assert_clean(&cluster.store, now()).await;
}
