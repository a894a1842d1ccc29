//! Where events go. An event is written into the outbox in the transaction of its effect, as
//! CloudEvents JSON, and carried from there to the sink: at least once, in order for each key.

mod jsonl;
mod kafka;

pub use crate::cloud_event::{rfc3339, rfc3339_to};
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

impl EventSink {
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
    /// [`Fault::Unavailable`], which says what to do.
    pub fn connect(&mut self) -> Result<(), Fault> {
        match self {
            Self::Jsonl(_) => Ok(()),
            Self::Kafka(sink) => sink.connect(),
        }
    }

    /// Hands the events over; when this returns they are durable there. Blocks.
    ///
    /// # Errors
    /// [`Fault::Unavailable`]: none of them counts as published; handing them over again is safe.
    pub fn publish(&mut self, rows: &[OutboxRow]) -> Result<(), Fault> {
        match self {
            Self::Jsonl(sink) => sink.publish(rows),
            Self::Kafka(sink) => sink.publish(rows),
        }
    }
}
