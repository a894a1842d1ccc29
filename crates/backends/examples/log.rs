//! How much room the admission log of a sale takes, and how long its steps.
//!
//! `cargo run -p boxoffice-backends --example log -- 100000`: so many people are let in at 100 a second, ten in a
//! step; one in fifty is absent and comes back, and one in a hundred has left.

// A tool for whoever works on this, not a part of the product.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boxoffice_backends::store::{Checkpoint, SqliteOptions, SqliteStore, Store};
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{QueueSettings, Step};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;

const STEP: u64 = 10;

fn pages(file: &Path, sql: &str) -> i64 {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.execute_batch(sql).unwrap();
    let count: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let size: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
    count * size
}

#[tokio::main]
async fn main() {
    let people: u64 = std::env::args().nth(1).map_or(100_000, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        directory: directory.path().to_owned(),
        batch_max: 256,
        queue_max: 1_024,
        observe: Arc::new(|_| {}),
    };
    let (store, _) = SqliteStore::open(options).unwrap();
    let store = Store::Sqlite(store);
    let queue = QueueName::new("main").unwrap();
    let settings = QueueSettings {
        admit_per_second: 100.0,
        max_active: None,
        active_ttl: Duration::from_secs(300),
        claim_window: Duration::from_secs(30),
        opens_at: None,
        paused: false,
    };
    store.create_queue(queue.clone(), settings).await.unwrap();
    let mut returned = RoaringTreemap::new();
    let mut took = Duration::ZERO;
    let steps = people / STEP;
    for number in 0..steps {
        let (serving, upto) = (number * STEP, (number + 1) * STEP);
        let every = |of: u64| (serving + 1..=upto).filter(move |seq| seq % of == 7);
        let passed: RoaringTreemap = every(50).collect();
        let left: RoaringTreemap = every(100).filter(|seq| !passed.contains(*seq)).collect();
        let at = Timestamp(1_800_000_000_000 + i64::try_from(number).unwrap() * 100);
        let back = std::mem::replace(&mut returned, passed.clone());
        let point = Checkpoint {
            queue: queue.clone(),
            next: people,
            watermark: people,
            floor: serving.saturating_sub(30_000),
            step: Some((serving, Step { upto, at, passed, left, returned: back })),
            claimed: None,
            over_before: Timestamp(at.0 - 300_000),
        };
        let began = Instant::now();
        store.checkpoint(vec![point], at).await.unwrap();
        took += began.elapsed();
    }
    store.close().await;
    drop(store);
    let file = SqliteStore::file(directory.path());
    let with = pages(&file, "VACUUM");
    let records: i64 = {
        let connection = rusqlite::Connection::open(&file).unwrap();
        let sum = "SELECT SUM(LENGTH(record)) FROM admission_log";
        connection.query_row(sum, [], |row| row.get(0)).unwrap()
    };
    let without = pages(&file, "DELETE FROM admission_log; VACUUM");
    println!(
        "{people} people, {steps} steps: {} bytes of log in the file, {records} of them records; a step took \
         {:.3} ms",
        with - without,
        took.as_secs_f64() * 1_000.0 / steps as f64,
    );
}
