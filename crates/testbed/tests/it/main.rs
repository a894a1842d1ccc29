//! Processes, and the servers that others run on, started for real.

// Clippy counts helpers of a test as code of a product.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "external")]
mod external;
mod processes;
