//! Events out of Kafka, as a member of a consumer group.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use super::{CONNECT, KafkaConnection, Trouble, forward_log};
use crate::Fault;

/// How long a look for the next message waits.
const POLL: Duration = Duration::from_millis(100);

/// One message of a topic.
pub struct Received {
    /// The full name of the topic.
    pub topic: String,
    /// The partition of the topic.
    pub partition: i32,
    /// Its place in the partition.
    pub offset: i64,
    /// What it holds; empty where it holds nothing.
    pub payload: Vec<u8>,
}

/// What came.
pub enum SourceEvent {
    /// A message. Those of one partition come in their order.
    Message(Received),
    /// Nothing for now.
    Idle,
    /// The partitions were taken away, and with them every message since the last
    /// [`KafkaSource::commit`]: whoever has them now gets these again. Forget them.
    Revoked,
}

#[derive(Clone, Default)]
struct Membership {
    trouble: Trouble,
    /// Rises whenever partitions are taken away.
    revocations: Arc<AtomicU64>,
    assigned: Arc<AtomicBool>,
}

impl ClientContext for Membership {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.note(&error, reason);
    }
}

impl ConsumerContext for Membership {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(_) => self.assigned.store(true, Ordering::Relaxed),
            Rebalance::Revoke(_) | Rebalance::Error(_) => {
                self.assigned.store(false, Ordering::Relaxed);
                self.revocations.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A consumer of all topics of events.
pub struct KafkaSource {
    connection: KafkaConnection,
    consumer: BaseConsumer<Membership>,
    membership: Membership,
    /// The revocations that were taken account of.
    seen: u64,
    /// Whether the caller is still to be told of one.
    revoked: bool,
    /// Messages that came while nobody asked for them.
    waiting: VecDeque<Received>,
    /// The next offset of each partition, by what was handed out and is not committed yet.
    positions: HashMap<(String, i32), i64>,
}

impl KafkaSource {
    /// Joins a consumer group. A group that has no offsets yet begins with the oldest message, or
    /// with the next one that comes. Blocks for some seconds at most.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] where no broker answers; the text says what to do.
    pub fn open(
        connection: KafkaConnection,
        group: &str,
        from_beginning: bool,
    ) -> Result<Self, Fault> {
        let mut config = connection.client_config();
        config
            .set("group.id", group)
            .set("auto.offset.reset", if from_beginning { "earliest" } else { "latest" })
            // Offsets are committed once the target has the events, and not before.
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // A member that was killed holds its partitions for this long.
            .set("session.timeout.ms", "10000")
            // A topic or partition that is made later is seen within this time.
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set("fetch.wait.max.ms", "100");
        let membership = Membership::default();
        let consumer: BaseConsumer<Membership> = connection.create(&config, membership.clone())?;
        if let Err(error) = consumer.client().fetch_metadata(None, CONNECT) {
            // Its complaints have waited to be heard.
            while let Some(Err(complaint)) = consumer.poll(Duration::ZERO) {
                membership.trouble.note(&complaint, &complaint.to_string());
            }
            tracing::debug!(%error, "no metadata from Kafka");
            return Err(connection.unreachable(&membership.trouble));
        }
        let topics = connection.topics();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(|error| {
            Fault::Unavailable(format!("cannot subscribe to {}: {error}", names.join(", ")))
        })?;
        Ok(Self {
            connection,
            consumer,
            membership,
            seen: 0,
            revoked: false,
            waiting: VecDeque::new(),
            positions: HashMap::new(),
        })
    }

    /// Waits for the next message, for a tenth of a second at most.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] where the group or the topics refuse us for good. An interrupted
    /// connection is not an error: it is made again.
    pub fn receive(&mut self) -> Result<SourceEvent, Fault> {
        if self.waiting.is_empty() && !self.revoked {
            self.poll(POLL)?;
        }
        if std::mem::take(&mut self.revoked) {
            return Ok(SourceEvent::Revoked);
        }
        let Some(received) = self.waiting.pop_front() else { return Ok(SourceEvent::Idle) };
        let place = (received.topic.clone(), received.partition);
        self.positions.insert(place, received.offset + 1);
        Ok(SourceEvent::Message(received))
    }

    fn poll(&mut self, time: Duration) -> Result<(), Fault> {
        let polled = self.consumer.poll(time);
        let revocations = self.membership.revocations.load(Ordering::Relaxed);
        if revocations != self.seen {
            self.seen = revocations;
            self.revoked = true;
            self.positions.clear();
            self.waiting.clear();
        }
        match polled {
            None => Ok(()),
            // Where it came with a revocation, it is of the assignment that followed.
            Some(Ok(message)) => {
                self.waiting.push_back(Received {
                    topic: message.topic().to_owned(),
                    partition: message.partition(),
                    offset: message.offset(),
                    payload: message.payload().unwrap_or_default().to_vec(),
                });
                Ok(())
            }
            Some(Err(error)) => self.trouble_of(&error),
        }
    }

    fn trouble_of(&self, error: &KafkaError) -> Result<(), Fault> {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => {
                Err(Fault::Unavailable(format!(
                    "Kafka at {} does not let us read: {error}; allow our user to read the topics \
                     and the group",
                    self.connection.brokers
                )))
            }
            Some(Code::Fatal) => {
                let (code, reason) =
                    self.consumer.client().fatal_error().unwrap_or((Code::Fatal, String::new()));
                Err(Fault::Unavailable(format!("the Kafka consumer cannot go on: {code} {reason}")))
            }
            _ => {
                self.membership.trouble.note(error, &error.to_string());
                Ok(())
            }
        }
    }

    /// Waits while staying a member of the group, without taking messages. False where the
    /// partitions were taken away meanwhile; the next [`KafkaSource::receive`] says so too.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] where the consumer does not follow.
    pub fn wait(&mut self, time: Duration) -> Result<bool, Fault> {
        let failed =
            |error: KafkaError| Fault::Unavailable(format!("cannot pause the consumer: {error}"));
        let held = self.consumer.assignment().map_err(failed)?;
        self.consumer.pause(&held).map_err(failed)?;
        let deadline = Instant::now() + time;
        while Instant::now() < deadline && !self.revoked {
            // Nothing comes from partitions that are paused; this keeps the membership.
            self.poll(POLL.min(deadline.saturating_duration_since(Instant::now())))?;
        }
        if !self.revoked {
            self.consumer.resume(&held).map_err(failed)?;
        }
        Ok(!self.revoked)
    }

    /// Whether the group has given us partitions.
    pub fn is_assigned(&self) -> bool {
        self.membership.assigned.load(Ordering::Relaxed)
    }

    /// Whether a broker answers. Blocks for some seconds where none does.
    pub fn is_reachable(&self) -> bool {
        self.consumer.client().fetch_metadata(None, CONNECT).is_ok()
    }

    /// What the client has complained of since the last call; it goes on trying.
    pub fn complaint(&self) -> Option<String> {
        self.membership.trouble.0.lock().take().map(|(_, reason)| reason)
    }

    /// Records in the group that everything which was handed out so far is done.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] where the group did not take it. The events come again, here or
    /// elsewhere.
    pub fn commit(&mut self) -> Result<(), Fault> {
        if self.positions.is_empty() {
            return Ok(());
        }
        let failed = |error: KafkaError| {
            Fault::Unavailable(format!("the offsets were not committed: {error}"))
        };
        let mut offsets = TopicPartitionList::with_capacity(self.positions.len());
        for ((topic, partition), next) in &self.positions {
            offsets
                .add_partition_offset(topic, *partition, Offset::Offset(*next))
                .map_err(failed)?;
        }
        self.consumer.commit(&offsets, CommitMode::Sync).map_err(failed)?;
        self.positions.clear();
        Ok(())
    }
}
