//! Histories of a cluster in simulated time: real sequencers, scripts and stores, on one thread, with
//! everything that comes from outside decided by one seed.
//!
//! What is simulated: time, networks, Redis as a server, processes, fans. What is not: HTTP, the client
//! libraries, MySQL and its locks. Those are the business of the tests with real servers, and of
//! `lab drill`.
//!
//! A [`plan::Plan`] says who comes and what breaks; [`swarm`] draws one from a seed, a test writes one
//! down. [`world::run`] carries it out and returns a [`world::Report`]. Nothing in a history depends on
//! anything but the plan and the code: there is one thread, `tokio`'s paused clock, one stream of random
//! numbers for each who needs some ([`random`]), and no iteration in an order that is not fixed.
//!
//! To add
//! - a **fault**: a variant of [`plan::What`], what it does in `world::breaks` (and in
//!   `world::network`, where it changes what becomes of messages), a line in `swarm::draw`. It has to
//!   count in `bites` whenever it changes something: a fault that does not bite shows nothing.
//! - something that **fans** do: an [`instance::Ask`], what the handler does with it in `instance`, with
//!   the checks that the handler of `crates/server` makes, and when they do it in `world::fan`.
//! - a **promise**: a fact in `check`, if none of those that are told says enough, and a checker in one of
//!   the modules under it. Break it on purpose (`--bug`) and see the checker complain.
//! - a **mistake** to be planted: a variant of `Bug` in `crates/backends/src/planted.rs`, and
//!   `planted(Bug::…)` at the place in the code.

pub mod check;
pub mod digest;
pub mod instance;
mod mistakes;
pub mod plan;
pub mod random;
pub mod redis;
pub mod shrink;
pub mod swarm;
pub mod timeline;
pub mod turns;
pub mod world;
