//! Histories of a cluster in simulated time: real sequencers, scripts and stores, on one thread, with
//! everything that comes from outside decided by one seed.
//!
//! What is simulated: time, networks, Redis as a server, processes, fans. What is not: HTTP, the client
//! libraries, MySQL and its locks. Those are the business of the tests with real servers, and of
//! `scripts/drill`.

pub mod check;
pub mod digest;
pub mod instance;
pub mod plan;
pub mod random;
pub mod redis;
pub mod shrink;
pub mod swarm;
pub mod timeline;
pub mod world;
