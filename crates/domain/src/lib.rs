//! The rules of a ticket sale.
//!
//! Everything here is a pure function or a deterministic state machine: no I/O, no clock, no
//! randomness, no serialisation. Time and ids come in as arguments. Both stores and the in-memory
//! sequencer call the same code, so a rule of the business stands here and nowhere else.
//!
//! What does *not* belong here: HTTP, SQL, JSON, configuration files, threads.

pub mod command;
pub mod event;
pub mod ids;
pub mod invariant;
pub mod points;
pub mod queue;
pub mod sales;
pub mod seating;
pub mod time;
