//! Where events go. An event is written into the outbox in the transaction of its effect, as
//! CloudEvents JSON, and carried from there to the sink: at least once, in order for each key.

mod jsonl;
mod kafka;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

pub use crate::cloud_event::{from_rfc3339, rfc3339, rfc3339_to};
pub use jsonl::JsonlSink;
pub use kafka::{
    KAFKA_TLS, KafkaConnection, KafkaSasl, KafkaSink, KafkaSource, Received, SourceEvent, TopicPlan,
};

use crate::Fault;
use crate::cloud_event::OutboxRow;
use crate::store::Store;

/// The sink in use.
pub enum EventSink {
    /// A file with one event in a line.
    Jsonl(JsonlSink),
    /// Topics of Kafka.
    Kafka(KafkaSink),
}

/// Tells a sink that works on another thread by when it has to be done, because the service ends.
#[derive(Clone, Debug, Default)]
pub struct StopBy(Arc<OnceLock<Instant>>);

impl StopBy {
    /// From now on nothing begins that does not matter, and what is under way ends by `deadline`.
    /// The first call counts.
    pub fn set(&self, deadline: Instant) {
        let _ = self.0.set(deadline);
    }

    fn is_set(&self) -> bool {
        self.0.get().is_some()
    }

    fn is_over(&self) -> bool {
        self.0.get().is_some_and(|deadline| Instant::now() >= *deadline)
    }

    /// The sooner of the two.
    fn or(&self, own: Instant) -> Instant {
        self.0.get().map_or(own, |deadline| own.min(*deadline))
    }
}

impl EventSink {
    /// With what the sink is told that the service ends. A file needs no telling.
    pub fn stop_by(&self) -> StopBy {
        match self {
            Self::Jsonl(_) => StopBy::default(),
            Self::Kafka(sink) => sink.stop_by(),
        }
    }

    /// Whether the sink holds events that the store has never written: it belongs to another store,
    /// or the store is an older copy of itself. Events to come would be taken for old ones.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn is_ahead_of(&self, store: &Store) -> Result<bool, Fault> {
        match self {
            Self::Jsonl(sink) => Ok(sink.last_id() > store.last_event().await?),
            // Topics take events of any store; consumers tell them apart by their ids.
            Self::Kafka(_) => Ok(false),
        }
    }

    /// Makes sure of a connection, where the sink needs one, so that it is known to work before
    /// there is anything to publish. Blocks for 15 s at most; costs nothing once connected.
    ///
    /// # Errors
    /// [`Fault::Unavailable`], which says what to do. [`Fault::Corrupt`]: the sink is lost, and only
    /// opening it anew helps.
    pub fn connect(&mut self) -> Result<(), Fault> {
        match self {
            Self::Jsonl(sink) => sink.check(),
            Self::Kafka(sink) => sink.look(),
        }
    }

    /// Hands the events over; when this returns they are durable there. Blocks.
    ///
    /// # Errors
    /// [`Fault::Unavailable`]: none of them counts as published; handing them over again is safe.
    /// [`Fault::Corrupt`]: likewise, but the sink is lost, and only opening it anew helps.
    pub fn publish(&mut self, rows: &[OutboxRow]) -> Result<(), Fault> {
        match self {
            Self::Jsonl(sink) => sink.publish(rows),
            Self::Kafka(sink) => sink.publish(rows),
        }
    }
}
