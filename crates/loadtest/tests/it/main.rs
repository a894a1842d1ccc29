//! The program as it is used. All of it needs tools beside cargo, and so it is in `external`.

// Clippy counts helpers of a test as code of a product.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "external")]
mod external;
