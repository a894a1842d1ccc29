//! The service as its users meet it: over HTTP, and as a program. One binary, because linking it is
//! what takes long.
//!
//! Tests that only cargo is needed for stand beside this file; all others are in `external`, and so
//! a filter for that name tells the two apart.

// Clippy counts helpers of a test as code of a product.
#![allow(clippy::unwrap_used)]

mod api;
mod calling_off;
mod cli;
mod common;
mod crash;
#[cfg(feature = "external")]
mod external;
mod hostile;
mod house;
mod http_infra;
mod issuer;
mod logs;
mod program;
mod races;
