//! Events into Kafka, and out of it again.
//!
//! The sink uses an idempotent producer with `acks=all`, so a retry of the client neither doubles
//! nor reorders events. What is handed over a second time, because nobody knows how the first time
//! ended, gets into the topic again behind its first appearance: consumers drop it by its id.
//!
//! Order for each key outlives failures, because a failed hand-over is given up as a whole: what
//! waits in the client is thrown away, and the next one starts from the same event with a new
//! producer. A message never times out by itself, which could let a later one of its key pass.

mod source;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use boxoffice_domain::event::Topic;
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

pub use source::{KafkaSource, Received, SourceEvent};

use super::StopBy;
use crate::Fault;
use crate::cloud_event::OutboxRow;

/// Whether this build can speak TLS (and SCRAM) to a broker: the cargo feature `kafka-tls`.
pub const KAFKA_TLS: bool = cfg!(feature = "kafka-tls");

/// How long a connection may take until the broker has answered the first question.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a connection in the making is asked whether it stands, and what waits for Kafka whether
/// the service ends.
const STEP: Duration = Duration::from_millis(250);
/// How long the making of topics may take.
const CREATE: Duration = Duration::from_secs(10);
/// How long the producer's callbacks are served between two looks at what they said; the client
/// uses all of it, whatever comes.
const SERVE: Duration = Duration::from_millis(2);
/// What a message says of itself, as CloudEvents wants it for structured JSON.
const CONTENT_TYPE: &str = "application/cloudevents+json; charset=UTF-8";

/// How to reach Kafka, for the sink and for consumers.
#[derive(Clone)]
pub struct KafkaConnection {
    /// `host:port` of some brokers, separated by commas.
    pub brokers: String,
    /// The name that the brokers log and apply quotas to.
    pub client_id: String,
    /// What the names of the topics start with; may be empty.
    pub topic_prefix: String,
    /// Whether the connection is encrypted. Needs [`KAFKA_TLS`].
    pub tls: bool,
    /// Certificates (PEM) that the brokers' are checked against; none means those of the system.
    pub ca_file: Option<PathBuf>,
    /// Who we are; none where nobody asks.
    pub sasl: Option<KafkaSasl>,
}

/// Credentials.
#[derive(Clone)]
pub struct KafkaSasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

/// How topics are made that do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// Partitions of a topic.
    pub partitions: i32,
    /// Copies of each partition; none means the brokers' default.
    pub replication: Option<i32>,
}

impl KafkaConnection {
    /// The full name of a topic.
    fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix)
    }

    /// The full names of all topics.
    fn topics(&self) -> Vec<String> {
        Topic::ALL.iter().map(|topic| self.topic(topic.name())).collect()
    }

    fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", &self.client_id);
        // One black-holed broker of several must not use up all of the time that we have.
        config.set("socket.connection.setup.timeout.ms", "2000");
        // The client's own default is 10 s between two tries of one broker.
        config.set("reconnect.backoff.max.ms", "1000");
        let protocol = match (self.tls, &self.sasl) {
            (false, None) => "plaintext",
            (false, Some(_)) => "sasl_plaintext",
            (true, None) => "ssl",
            (true, Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        // A client that cannot speak TLS refuses settings of it.
        if let Some(file) = self.ca_file.as_ref().filter(|_| self.tls) {
            config.set("ssl.ca.location", file.to_string_lossy());
        }
        if let Some(sasl) = &self.sasl {
            config
                .set("sasl.mechanism", &sasl.mechanism)
                .set("sasl.username", &sasl.username)
                .set("sasl.password", &sasl.password);
        }
        config
    }

    fn create<C, T>(&self, config: &ClientConfig, context: C) -> Result<T, Fault>
    where
        C: ClientContext,
        T: FromClientConfigAndContext<C>,
    {
        config.create_with_context(context).map_err(|error| {
            Fault::Unavailable(format!("the settings events.kafka do not make a client: {error}"))
        })
    }

    /// What is wrong, with what the client complained of last and what to do.
    fn unreachable(&self, trouble: &Trouble) -> Fault {
        let brokers = &self.brokers;
        Fault::Unavailable(match trouble.last() {
            Some((RDKafkaErrorCode::Authentication, reason)) => format!(
                "Kafka at {brokers} refuses the credentials ({reason}); check \
                 events.kafka.username, events.kafka.password and events.kafka.sasl_mechanism"
            ),
            Some((RDKafkaErrorCode::SSL, reason)) => format!(
                "there is no TLS connection to Kafka at {brokers} ({reason}); check \
                 events.kafka.security and events.kafka.ca_file"
            ),
            Some((_, reason)) => format!(
                "cannot reach Kafka at {brokers} ({reason}); check that it runs and \
                 events.kafka.brokers and events.kafka.security"
            ),
            None => format!(
                "Kafka at {brokers} does not answer; check that it runs and \
                 events.kafka.brokers and events.kafka.security"
            ),
        })
    }
}

/// What a client complained of last. Its complaints come on its own threads and in its own words.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<Option<(RDKafkaErrorCode, String)>>>);

impl Trouble {
    fn note(&self, error: &KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last = self.0.lock();
        // That all brokers are down follows from what was said of each of them.
        if code != RDKafkaErrorCode::AllBrokersDown || last.is_none() {
            *last = Some((code, reason.to_owned()));
        }
    }

    fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0.lock().clone()
    }
}

impl ClientContext for Trouble {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(&error, reason);
    }
}

/// The client logs every failed connection; what matters of it is in our own messages.
fn forward_log(facility: &str, message: &str) {
    tracing::debug!(kafka.facility = facility, "{message}");
}

/// What a producer reports of the events that it was given.
#[derive(Clone, Default)]
struct Deliveries {
    trouble: Trouble,
    acknowledged: Arc<AtomicUsize>,
    refused: Arc<Mutex<Option<(String, KafkaError)>>>,
}

impl ClientContext for Deliveries {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        forward_log(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.note(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        use rdkafka::Message as _;
        match result {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, message)) => {
                self.refused.lock().get_or_insert((message.topic().to_owned(), error.clone()));
            }
        }
    }
}

/// Events into Kafka.
pub struct KafkaSink {
    connection: KafkaConnection,
    plan: TopicPlan,
    delivery_timeout: Duration,
    stop_by: StopBy,
    /// None until the first connection, and after a failure.
    producer: Option<BaseProducer<Deliveries>>,
}

impl KafkaSink {
    /// A sink that connects when it is first used. `delivery_timeout` bounds how long a hand-over
    /// waits for the brokers' acknowledgement.
    pub fn new(connection: KafkaConnection, plan: TopicPlan, delivery_timeout: Duration) -> Self {
        Self { connection, plan, delivery_timeout, stop_by: StopBy::default(), producer: None }
    }

    pub(super) fn stop_by(&self) -> StopBy {
        self.stop_by.clone()
    }

    /// Connects while nothing waits to be published. Given up at once when the service ends.
    pub(super) fn look(&mut self) -> Result<(), Fault> {
        self.connect(true)
    }

    /// Connects, where it is not connected, and makes the topics that do not exist. Blocks for 15 s
    /// at most.
    ///
    /// # Errors
    /// [`Fault::Unavailable`], which says what to do.
    fn connect(&mut self, only_looks: bool) -> Result<(), Fault> {
        if let Some(producer) = &self.producer {
            producer.poll(Duration::ZERO);
            match producer.client().fatal_error() {
                None => return Ok(()),
                Some((code, reason)) => {
                    tracing::warn!(kafka.code = %code, "a new Kafka producer is needed: {reason}");
                    self.producer = None;
                }
            }
        }
        let mut config = self.connection.client_config();
        // We give up before this, for all messages together.
        let never = self.delivery_timeout + Duration::from_secs(60);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("max.in.flight.requests.per.connection", "5")
            .set("message.timeout.ms", never.as_millis().to_string())
            .set("compression.type", "lz4")
            .set("linger.ms", "1")
            // The partition that other clients choose for the same key.
            .set("partitioner", "murmur2_random");
        let deliveries = Deliveries::default();
        let producer: BaseProducer<Deliveries> =
            self.connection.create(&config, deliveries.clone())?;
        let missing = self.missing_topics(&producer, &deliveries.trouble, only_looks)?;
        if !missing.is_empty() {
            self.create_topics(&missing)?;
        }
        self.producer = Some(producer);
        Ok(())
    }

    fn missing_topics(
        &self,
        producer: &BaseProducer<Deliveries>,
        trouble: &Trouble,
        only_looks: bool,
    ) -> Result<Vec<String>, Fault> {
        let own = Instant::now() + CONNECT;
        let mut step = STEP;
        // All topics: a broker may take a question for one by its name as the wish to have it made,
        // with a shape that nobody chose.
        let metadata = loop {
            let left = match only_looks && self.stop_by.is_set() {
                true => Duration::ZERO,
                false => self.stop_by.or(own).saturating_duration_since(Instant::now()),
            };
            let fault = match producer.client().fetch_metadata(None, left.min(step)) {
                Ok(metadata) => break metadata,
                Err(error) => error,
            };
            if left <= step {
                // Its complaints have waited to be heard.
                producer.poll(10 * SERVE);
                tracing::debug!(error = %fault, "no metadata from Kafka");
                return Err(self.connection.unreachable(trouble));
            }
            // A broker that has been asked is given all the time for its answer. Otherwise there was
            // none to ask so far.
            if fault.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut) {
                step = CONNECT;
            }
        };
        let mut missing = self.connection.topics();
        missing.retain(|name| !metadata.topics().iter().any(|topic| topic.name() == name));
        Ok(missing)
    }

    /// Waits until the sink has to be done.
    async fn ended(&self) {
        while !self.stop_by.is_over() {
            tokio::time::sleep(STEP).await;
        }
    }

    fn create_topics(&self, missing: &[String]) -> Result<(), Fault> {
        let TopicPlan { partitions, replication } = self.plan;
        let trouble = Trouble::default();
        let admin: AdminClient<Trouble> =
            self.connection.create(&self.connection.client_config(), trouble)?;
        let topics: Vec<NewTopic<'_>> = missing
            .iter()
            .map(|name| {
                // -1 is the protocol's word for the brokers' default.
                NewTopic::new(name, partitions, TopicReplication::Fixed(replication.unwrap_or(-1)))
            })
            .collect();
        let options =
            AdminOptions::new().request_timeout(Some(CREATE)).operation_timeout(Some(CREATE));
        let refused = |name: &str, why: &dyn std::fmt::Display| {
            let copies = replication.map_or("the default".to_owned(), |n| n.to_string());
            Fault::Unavailable(format!(
                "the Kafka topic {name} does not exist and could not be made with {partitions} \
                 partitions and replication {copies}: {why}. Make it by hand, or set \
                 events.kafka.partitions and events.kafka.replication to what the brokers allow"
            ))
        };
        let results = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| Fault::Unavailable(format!("cannot start a runtime: {error}")))?
            .block_on(async {
                tokio::select! {
                    made = admin.create_topics(&topics, &options) => {
                        made.map_err(|error| refused(&missing.join(", "), &error))
                    }
                    () = self.ended() => Err(ending()),
                }
            })?;
        for result in results {
            match result {
                Ok(name) => tracing::info!(kafka.topic = name, partitions, "made a Kafka topic"),
                // Another instance was quicker.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(refused(&name, &code)),
            }
        }
        Ok(())
    }

    /// Hands the events over and waits until all in-sync replicas have them.
    pub(super) fn publish(&mut self, rows: &[OutboxRow]) -> Result<(), Fault> {
        if self.stop_by.is_over() {
            return Err(ending());
        }
        self.connect(false)?;
        let Some(producer) = self.producer.take() else {
            return Err(Fault::Unavailable("there is no Kafka producer".to_owned()));
        };
        self.hand_over(&producer, rows)?;
        // After a failure it is not put back: dropping it throws away what it still holds.
        self.producer = Some(producer);
        Ok(())
    }

    fn hand_over(
        &self,
        producer: &BaseProducer<Deliveries>,
        rows: &[OutboxRow],
    ) -> Result<(), Fault> {
        let deliveries = producer.context();
        deliveries.acknowledged.store(0, Ordering::Relaxed);
        let began = Instant::now();
        let own = began + self.delivery_timeout;
        let is_late = || Instant::now() >= self.stop_by.or(own);
        for row in rows {
            let (topic, key) = (self.connection.topic(&row.topic), row.key.to_string());
            let content_type = Header { key: "content-type", value: Some(CONTENT_TYPE) };
            let mut record = BaseRecord::to(&topic)
                .key(&key)
                .payload(&row.body)
                .headers(OwnedHeaders::new_with_capacity(1).insert(content_type));
            loop {
                match producer.send(record) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                        if !is_late() =>
                    {
                        producer.poll(SERVE);
                        record = back;
                    }
                    Err((error, _)) => return Err(refusal(&topic, &error)),
                }
            }
        }
        loop {
            producer.poll(SERVE);
            if let Some((topic, error)) = deliveries.refused.lock().take() {
                return Err(refusal(&topic, &error));
            }
            let acknowledged = deliveries.acknowledged.load(Ordering::Relaxed);
            if acknowledged >= rows.len() {
                return Ok(());
            }
            if is_late() {
                let last = deliveries.trouble.last();
                let last = last.map_or(String::new(), |(_, reason)| format!(" ({reason})"));
                return Err(Fault::Unavailable(format!(
                    "Kafka at {} has acknowledged {acknowledged} of {} events within {:.1} s{last}; \
                     check that its brokers run and that enough replicas are in sync \
                     (min.insync.replicas)",
                    self.connection.brokers,
                    rows.len(),
                    began.elapsed().as_secs_f32(),
                )));
            }
        }
    }
}

fn ending() -> Fault {
    Fault::Unavailable("the service ends; the events wait in the store".to_owned())
}

/// Why a topic does not take an event, and what to do.
fn refusal(topic: &str, error: &KafkaError) -> Fault {
    use RDKafkaErrorCode as Code;
    let advice = match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge) => "raise max.message.bytes of the topic",
        Some(Code::TopicAuthorizationFailed) => "allow our user to write to it",
        Some(Code::ClusterAuthorizationFailed) => {
            "allow our user the cluster operation IdempotentWrite"
        }
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            "it was deleted; it is made again at the next try, if the brokers allow it"
        }
        _ => "see the brokers' log",
    };
    Fault::Unavailable(format!("the Kafka topic {topic} does not take events: {error}; {advice}"))
}
