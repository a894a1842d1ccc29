//! The rules against models and properties.

// Clippy counts helpers of a test as code of a product.
#![allow(clippy::unwrap_used)]

mod dice;
mod queue_forecast;
mod queue_governor;
mod queue_log;
mod queue_model;
mod queue_presence;
mod queue_properties;
mod sales_model;
mod seating;
