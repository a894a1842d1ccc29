//! The MySQL store against a real MariaDB: the suite that every store must pass, and what only this
//! store can suffer.

mod batches;
mod explain;
mod faults;
mod instances;
mod log;
mod queues;
mod server;

use crate::conformance::store_conformance;
use server::{fresh, reopen};

store_conformance!(fresh, reopen);
