//! The MySQL store against a real MariaDB: the suite that every store must pass, and what only this
//! store can suffer.

#![allow(clippy::unwrap_used)]

mod explain;
mod faults;
mod instances;
mod proxy;
mod queues;
mod server;

use server::{fresh, reopen};

boxoffice_backends::store_conformance!(fresh, reopen);
