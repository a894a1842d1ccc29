//! The Kafka sink and source against a real broker, in good and in bad times.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::broker::Broker;
use boxoffice_backends::Fault;
use boxoffice_backends::events::{
    EventSink, KafkaConnection, KafkaSasl, KafkaSink, KafkaSource, SourceEvent, TopicPlan,
};
use boxoffice_backends::store::OutboxRow;
use boxoffice_domain::event::Topic;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};

const PLAN: TopicPlan = TopicPlan { partitions: 3, replication: None };

fn connection(address: &str) -> KafkaConnection {
    KafkaConnection {
        brokers: address.to_owned(),
        client_id: "boxoffice-test".to_owned(),
        topic_prefix: String::new(),
        tls: false,
        ca_file: None,
        sasl: None,
    }
}

fn sink(address: &str, timeout: Duration) -> EventSink {
    EventSink::Kafka(KafkaSink::new(connection(address), PLAN, timeout))
}

/// Events of 20 keys over the four topics. The number of an event rises within its key.
fn row(id: i64) -> OutboxRow {
    let topic = Topic::ALL[(id % 4) as usize].name();
    OutboxRow { id, topic: topic.into(), key: id % 20, body: format!("{{\"id\":\"e-{id}\"}}") }
}

fn rows(ids: std::ops::Range<i64>) -> Vec<OutboxRow> {
    ids.map(row).collect()
}

#[track_caller]
fn complaint(result: Result<(), Fault>) -> String {
    match result {
        Err(Fault::Unavailable(text)) => text,
        other => panic!("expected a complaint, not {other:?}"),
    }
}

/// A message as the topic has it.
#[derive(Debug)]
struct Seen {
    topic: String,
    key: i64,
    id: i64,
}

fn next(consumer: &BaseConsumer) -> rdkafka::message::BorrowedMessage<'_> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(message) = consumer.poll(Duration::from_secs(1)) {
            return message.unwrap();
        }
        assert!(Instant::now() < deadline, "no message comes");
    }
}

/// Everything in the topics, in the order of each partition, by a consumer that is not ours.
fn everything(address: &str) -> Vec<Seen> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "test")
        .create()
        .unwrap();
    let mut seen = Vec::new();
    for topic in Topic::ALL.map(Topic::name) {
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
        let partitions = metadata.topics()[0].partitions().len();
        assert_eq!(partitions, 3, "{topic}");
        let mut assignment = rdkafka::TopicPartitionList::new();
        for partition in 0..partitions as i32 {
            assignment.add_partition_offset(topic, partition, rdkafka::Offset::Beginning).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let ends: i64 = (0..partitions as i32)
            .map(|n| consumer.fetch_watermarks(topic, n, Duration::from_secs(10)).unwrap().1)
            .sum();
        for _ in 0..ends {
            let message = next(&consumer);
            let headers = message.headers().unwrap();
            assert_eq!(headers.get(0).key, "content-type");
            let value = headers.get(0).value.unwrap();
            assert_eq!(value, b"application/cloudevents+json; charset=UTF-8");
            let body: serde_json::Value =
                serde_json::from_slice(message.payload().unwrap()).unwrap();
            seen.push(Seen {
                topic: topic.to_owned(),
                key: message.key_view::<str>().unwrap().unwrap().parse().unwrap(),
                id: body["id"].as_str().unwrap()[2..].parse().unwrap(),
            });
        }
    }
    seen
}

/// Each event is there, under its key; without repetitions they are in order. Returns how many were
/// repeated.
#[track_caller]
fn check_complete_and_in_order(seen: &[Seen], ids: std::ops::Range<i64>) -> usize {
    let mut count: BTreeMap<i64, usize> = ids.clone().map(|id| (id, 0)).collect();
    let mut last: HashMap<(String, i64), i64> = HashMap::new();
    for event in seen {
        assert_eq!((event.key, &*event.topic), (row(event.id).key, &*row(event.id).topic));
        let count = count.get_mut(&event.id).unwrap();
        *count += 1;
        if *count > 1 {
            continue;
        }
        let last = last.entry((event.topic.clone(), event.key)).or_insert(i64::MIN);
        assert!(*last < event.id, "{} came before {} of the key {}", *last, event.id, event.key);
        *last = event.id;
    }
    let lost: Vec<_> = count.iter().filter(|(_, n)| **n == 0).map(|(id, _)| *id).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    seen.len() - count.len()
}

#[test]
fn every_event_arrives_once_and_in_order_and_topics_are_made() {
    let broker = Broker::start(&[]);
    let mut sink = sink(&broker.address(), Duration::from_secs(10));
    sink.connect().unwrap();
    let began = Instant::now();
    for start in (0..20_000).step_by(2_000) {
        sink.publish(&rows(start..start + 2_000)).unwrap();
    }
    println!("20,000 events in {:?}", began.elapsed());
    let began = Instant::now();
    for id in 20_000..20_100 {
        sink.publish(&[row(id)]).unwrap();
    }
    println!("100 single events in {:?}", began.elapsed());
    let seen = everything(&broker.address());
    assert_eq!(check_complete_and_in_order(&seen, 0..20_100), 0);

    // The same through our own consumer, twice: what is committed does not come again.
    let mut source = KafkaSource::open(connection(&broker.address()), "g", true).unwrap();
    let mut ids = Vec::new();
    while ids.len() < 20_100 {
        if let SourceEvent::Message(message) = source.receive().unwrap() {
            let body: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
            ids.push(body["id"].as_str().unwrap()[2..].parse::<i64>().unwrap());
        }
    }
    source.commit().unwrap();
    drop(source);
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..20_100));
    sink.publish(&[row(20_100)]).unwrap();
    let mut again = KafkaSource::open(connection(&broker.address()), "g", true).unwrap();
    let message = loop {
        if let SourceEvent::Message(message) = again.receive().unwrap() {
            break message;
        }
    };
    assert_eq!(message.payload, row(20_100).body.as_bytes());
}

/// How a relay gets on.
#[derive(Default)]
struct Progress {
    published: AtomicUsize,
    failures: AtomicUsize,
}

impl Progress {
    fn failures(&self) -> usize {
        self.failures.load(Ordering::Relaxed)
    }

    /// Waits until a hand-over fails so many times from now on.
    fn wait_for_failures(&self, count: usize) {
        wait_for_more(&self.failures, count);
    }

    /// Waits until so many hand-overs more have succeeded.
    fn wait_for_published(&self, count: usize) {
        wait_for_more(&self.published, count);
    }
}

#[track_caller]
fn wait_for_more(counter: &AtomicUsize, count: usize) {
    let (began, before) = (Instant::now(), counter.load(Ordering::Relaxed));
    while counter.load(Ordering::Relaxed) < before + count {
        assert!(began.elapsed() < Duration::from_secs(40), "it does not get on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Publishes as the relay does: the same rows again until they are through.
fn relay(
    sink: &mut EventSink,
    ids: std::ops::Range<i64>,
    progress: &Progress,
    longest: &mut Duration,
) {
    for start in ids.clone().step_by(100) {
        let rows = rows(start..(start + 100).min(ids.end));
        loop {
            let began = Instant::now();
            let result = sink.publish(&rows);
            *longest = (*longest).max(began.elapsed());
            match result {
                Ok(()) => break,
                Err(fault) => {
                    println!("{fault}");
                    progress.failures.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
        progress.published.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_broker_that_is_killed_loses_nothing_and_keeps_the_order() {
    let mut broker = Broker::start(&[]);
    let address = broker.address();
    let progress = Progress::default();
    let longest = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut sink = sink(&address, Duration::from_secs(3));
            sink.connect().unwrap();
            let mut longest = Duration::ZERO;
            relay(&mut sink, 0..60_000, &progress, &mut longest);
            longest
        });
        for _ in 0..2 {
            progress.wait_for_published(20);
            broker.kill();
            // It was missed, each time.
            progress.wait_for_failures(1);
            broker.restart();
        }
        publishing.join().unwrap()
    });
    let repeated = check_complete_and_in_order(&everything(&broker.address()), 0..60_000);
    let failures = progress.failures();
    println!("{failures} failed hand-overs, the longest took {longest:?}; {repeated} repeated");
    assert!(longest < Duration::from_secs(17), "{longest:?}");
}

#[test]
fn a_broker_that_hangs_holds_nobody_up_for_long() {
    let broker = Broker::start(&[]);
    let mut sink = sink(&broker.address(), Duration::from_secs(3));
    let mut longest = Duration::ZERO;
    let progress = Progress::default();
    relay(&mut sink, 0..1_000, &progress, &mut longest);
    assert_eq!(progress.failures(), 0);
    broker.freeze();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Of a client that was connected, and of two that never are.
            progress.wait_for_failures(3);
            broker.thaw();
        });
        relay(&mut sink, 1_000..3_000, &progress, &mut longest);
    });
    // 3 s for the acknowledgement, or 5 s for the first answer, and throwing the client away.
    assert!(longest < Duration::from_secs(8), "{longest:?}");
    let repeated = check_complete_and_in_order(&everything(&broker.address()), 0..3_000);
    println!("the longest hand-over took {longest:?}; {repeated} repeated");
}

#[test]
fn what_a_broker_refuses_is_named() {
    let broker = Broker::start(&["message.max.bytes=2000"]);
    let plan = TopicPlan { partitions: 3, replication: Some(3) };
    let timeout = Duration::from_secs(5);
    let mut refused =
        EventSink::Kafka(KafkaSink::new(connection(&broker.address()), plan, timeout));
    let text = complaint(refused.publish(&[row(1)]));
    for part in ["concert.concert-reserved", "replication 3", "events.kafka.replication"] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }

    let mut sink = sink(&broker.address(), timeout);
    sink.publish(&[row(0)]).unwrap();
    // Noise, which does not become small by compression.
    let noise: String = (0..1_000_u64)
        .map(|n| format!("{:05x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44))
        .collect();
    let mut large = row(1);
    large.body = format!("{{\"id\":\"e-1\",\"noise\":\"{noise}\"}}");
    let text = complaint(sink.publish(&[large]));
    assert!(text.contains("concert.reservation-cancelled"), "{text}");
    assert!(text.contains("max.message.bytes"), "{text}");
    // And then it goes on.
    sink.publish(&rows(1..50)).unwrap();
    assert_eq!(check_complete_and_in_order(&everything(&broker.address()), 0..50), 0);
}

#[test]
fn nobody_there_is_said_soon() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [address, hole.local_addr().unwrap().to_string()] {
        let mut sink = sink(&address, Duration::from_secs(5));
        let began = Instant::now();
        let text = complaint(sink.connect());
        assert!(text.contains(&address) && text.contains("events.kafka.brokers"), "{text}");
        assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
        let source = KafkaSource::open(connection(&address), "g", true);
        assert!(matches!(source, Err(Fault::Unavailable(text)) if text.contains(&address)));
    }
}

#[test]
fn credentials_are_checked() {
    let broker = Broker::start(&[
        "listeners=SASL_PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners=SASL_PLAINTEXT://127.0.0.1:{port}",
        "inter.broker.listener.name=SASL_PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN",
        "sasl.mechanism.inter.broker.protocol=PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config=\
         org.apache.kafka.common.security.plain.PlainLoginModule required \
         username=\"admin\" password=\"a\" user_admin=\"a\" user_boxoffice=\"right\";",
    ]);
    let with = |password: &str| {
        let sasl = KafkaSasl {
            mechanism: "PLAIN".to_owned(),
            username: "boxoffice".to_owned(),
            password: password.to_owned(),
        };
        let connection = KafkaConnection { sasl: Some(sasl), ..connection(&broker.address()) };
        EventSink::Kafka(KafkaSink::new(connection, PLAN, Duration::from_secs(5)))
    };
    let text = complaint(with("wrong").publish(&[row(1)]));
    assert!(text.contains("refuses the credentials"), "{text}");
    assert!(text.contains("events.kafka.password") && !text.contains("wrong"), "{text}");
    with("right").publish(&[row(1)]).unwrap();
    // Without credentials the broker cuts the connection; what helps is named.
    let text = complaint(sink(&broker.address(), Duration::from_secs(5)).publish(&[row(1)]));
    assert!(text.contains("events.kafka.security"), "{text}");
}
