//! Stores, sequencers and event sinks. One binary, because linking it is what takes long.
//!
//! Tests that only cargo is needed for stand beside this file; all others are in `external`, and so
//! a filter for that name tells the two apart.

// Clippy counts helpers of a test as code of a product.
#![allow(clippy::unwrap_used)]

mod audit;
mod common;
mod conformance;
#[cfg(feature = "external")]
mod external;
mod line;
mod places;
mod sequencer;
mod sqlite;
mod stores;
