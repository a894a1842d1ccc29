//! The servers that others run on, started for real.

#[cfg(feature = "external")]
mod external;
