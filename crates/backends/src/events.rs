//! Where events go. An event is written into the outbox in the transaction of its effect, as
//! CloudEvents JSON, and carried from there to the sink: at least once, in order for each key.

mod jsonl;
mod kafka;

use boxoffice_domain::event::{EndReason, Event};
use boxoffice_domain::time::Timestamp;
use serde::Serialize;

pub use jsonl::JsonlSink;
pub use kafka::{
    KAFKA_TLS, KafkaConnection, KafkaSasl, KafkaSink, KafkaSource, Received, SourceEvent, TopicPlan,
};

use crate::Fault;
use crate::store::{OutboxRow, Store};

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

#[derive(Serialize)]
struct CloudEvent<'a, D> {
    specversion: &'static str,
    id: &'a str,
    source: &'static str,
    r#type: &'static str,
    subject: String,
    time: String,
    datacontenttype: &'static str,
    data: D,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reserved<'a> {
    reservation_id: i64,
    user_id: i64,
    concert_id: i64,
    session_id: i64,
    seat_ids: &'a [i64],
    total_price: i64,
    expires_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cancelled {
    reservation_id: i64,
    user_id: i64,
    reason: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Paid {
    payment_id: i64,
    reservation_id: i64,
    user_id: i64,
    payment_amount: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Charged {
    entry_id: i64,
    user_id: i64,
    amount: i64,
    total_amount: i64,
}

/// A moment as RFC 3339 text in UTC, to the millisecond. A time that no calendar has (only a
/// corrupt store could hold one) becomes the start of 1970.
pub fn rfc3339(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

/// The event as CloudEvents 1.0 JSON.
pub(crate) fn cloud_event(event: &Event, at: Timestamp) -> String {
    match event {
        Event::ConcertReserved { reservation, user, concert, session, seats, total, until } => {
            let seat_ids: Vec<i64> = seats.iter().map(|seat| seat.get()).collect();
            envelope(
                event,
                at,
                Reserved {
                    reservation_id: reservation.get(),
                    user_id: user.get(),
                    concert_id: concert.get(),
                    session_id: session.get(),
                    seat_ids: &seat_ids,
                    total_price: *total,
                    expires_at: rfc3339(*until),
                },
            )
        }
        Event::ReservationCancelled { reservation, user, reason } => envelope(
            event,
            at,
            Cancelled {
                reservation_id: reservation.get(),
                user_id: user.get(),
                reason: match reason {
                    EndReason::Cancelled => "CANCELLED",
                    EndReason::Expired => "EXPIRED",
                },
            },
        ),
        Event::PaymentCompleted { payment, reservation, user, amount } => envelope(
            event,
            at,
            Paid {
                payment_id: payment.get(),
                reservation_id: reservation.get(),
                user_id: user.get(),
                payment_amount: *amount,
            },
        ),
        Event::PointCharged { entry, user, amount, balance } => envelope(
            event,
            at,
            Charged {
                entry_id: *entry,
                user_id: user.get(),
                amount: *amount,
                total_amount: *balance,
            },
        ),
    }
}

fn envelope(event: &Event, at: Timestamp, data: impl Serialize) -> String {
    let envelope = CloudEvent {
        specversion: "1.0",
        id: &event.id(),
        source: "/boxoffice",
        r#type: event.topic().name(),
        subject: event.key().to_string(),
        time: rfc3339(at),
        datacontenttype: "application/json",
        data,
    };
    // Structs of strings and numbers always serialise.
    serde_json::to_string(&envelope).unwrap_or_default()
}
