//! The wire contract, endpoint by endpoint, over real sockets against a whole service.
//!
//! Every answer to every request here is checked for what all answers have in common (see
//! `Reply::flaw`) and for being one that the API description lists; every test ends with an audit.

mod admission_log;
pub(crate) mod challenges;
mod concert_tickets;
mod concerts;
pub(crate) mod console;
mod documents;
mod draws;
mod errors;
mod gate;
mod journey;
mod keys;
mod line_and_sale;
mod operations;
mod operators;
mod pace;
mod pages;
mod people;
mod places;
mod points;
mod protocol;
mod queue;
mod restart;
mod sales;
mod seat_states;
mod seat_streams;
mod seating;
pub(crate) mod sign_in;
mod tokens;
