//! Where boxoffice keeps its state.
//!
//! - [`store`]: concerts, seats, reservations, points: atomic business operations. SQLite, or MySQL.
//! - [`sequencer`]: the queue's counters and admission. In this process, or shared through Redis.
//! - [`events`]: where the outbox is emptied to. A JSON Lines file, or Kafka.
//!
//! What does *not* belong here: rules of the business (they are in `boxoffice-domain`, and every
//! store calls them), HTTP, configuration, ambient time. `now` comes in as an argument.

mod cloud_event;
mod error;
pub mod events;
mod planted;
pub mod sequencer;
pub mod store;
mod tasks;

pub use error::{Error, Fault};
pub use tasks::{Lost, Tasks};

/// The seams of `crates/simulation`: processes, networks and servers that are simulated.
#[cfg(feature = "simulation")]
pub mod simulation {
    pub use crate::planted::{Bug, plant, planted};
    pub use crate::sequencer::simulated::{Answer, Endpoint, SimulatedRedis};
    pub use crate::store::distant::{Distant, Errand, Executed, Reply, Road};
    pub use crate::tasks::gate::Gate;
}
