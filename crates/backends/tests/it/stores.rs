//! Every store passes the suite that every store must pass. MySQL needs a server, and does so in
//! `external::mysql`.
//!
//! A store that is no server is told the time here, so that it vouches for it as a server does.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use boxoffice_backends::store::DatabaseTime;
use boxoffice_domain::time::Timestamp;

/// The system's time, as a server would tell it.
fn system() -> DatabaseTime {
    DatabaseTime::told_by(|| {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp(since_1970.as_millis() as i64)
    })
}

mod sqlite {
    use boxoffice_backends::store::{SqliteStore, Store};
    use tempfile::TempDir;

    use crate::common::options;
    use crate::conformance::store_conformance;

    async fn fresh() -> (Store, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        (open(&directory), directory)
    }

    fn open(directory: &TempDir) -> Store {
        let opened = SqliteStore::open_at(options(directory.path()), super::system());
        Store::Sqlite(opened.unwrap().0)
    }

    async fn reopen(store: Store, directory: &TempDir) -> Store {
        store.close().await;
        drop(store);
        open(directory)
    }

    store_conformance!(fresh, reopen);
}

mod memory {
    use boxoffice_backends::store::{Kept, MemoryStore, Store};

    use crate::conformance::store_conformance;

    async fn fresh() -> (Store, Kept) {
        let kept = Kept::at(super::system());
        (Store::Memory(MemoryStore::open(&kept)), kept)
    }

    async fn reopen(store: Store, kept: &Kept) -> Store {
        store.close().await;
        drop(store);
        Store::Memory(MemoryStore::open(kept))
    }

    store_conformance!(fresh, reopen);
}

mod time {
    use boxoffice_backends::store::{
        Advance, Beat, Kept, MemoryStore, Present, Rules, SqliteStore, Store, Taken,
    };
    use boxoffice_domain::queue::{Bucket, QueueSettings};
    use tempfile::TempDir;

    use super::*;
    use crate::common::{self, options};
    use crate::conformance::{START, at, everybody, main_queue, settings};

    /// A time that stands still until it is set.
    #[derive(Clone, Default)]
    struct Clock(Arc<AtomicI64>);

    impl Clock {
        fn set(&self, ms: i64) {
            self.0.store(at(ms).0, Ordering::SeqCst);
        }

        fn time(&self) -> DatabaseTime {
            let now = self.0.clone();
            DatabaseTime::told_by(move || Timestamp(now.load(Ordering::SeqCst)))
        }
    }

    /// A store of each kind that is told the time, with an open queue.
    async fn stores(clock: &Clock) -> (Vec<Store>, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let sqlite = SqliteStore::open_at(options(directory.path()), clock.time()).unwrap().0;
        let memory = MemoryStore::open(&Kept::at(clock.time()));
        let stores = vec![Store::Sqlite(sqlite), Store::Memory(memory)];
        for store in &stores {
            store.create_queue(main_queue(), open()).await.unwrap();
        }
        (stores, directory)
    }

    fn open() -> QueueSettings {
        QueueSettings { opens_at: None, paused: false, ..settings() }
    }

    /// The step of that number, which admits one.
    fn step(steps: u64, at: Timestamp) -> Advance {
        let step = everybody(steps + 1, at);
        Advance { queue: main_queue(), steps, serving: steps, step, bucket: Bucket::default() }
    }

    #[tokio::test]
    async fn a_step_is_at_most_a_second_ahead_and_two_seconds_late() {
        let clock = Clock::default();
        let (stores, _guard) = stores(&clock).await;
        for store in &stores {
            clock.set(0);
            for (ms, steps, counts) in
                [(1_001, 0, false), (1_000, 0, true), (-2_001, 1, false), (-2_000, 1, true)]
            {
                assert_eq!(store.advance(step(steps, at(ms)), at(ms)).await, Ok(counts), "{ms}");
            }
            // The database's own time jumps, and what was planned by the one before is void.
            clock.set(3_600_000);
            assert_eq!(store.advance(step(2, at(0)), at(0)).await, Ok(false));
        }
    }

    #[tokio::test]
    async fn numbers_are_taken_two_seconds_after_the_last_redis() {
        let clock = Clock::default();
        let (stores, _guard) = stores(&clock).await;
        let beat = |with_redis| Beat {
            instance: "a".into(),
            is_last: false,
            with_redis,
            ticket_keys: String::new(),
            rules: Rules::default(),
            present: Present::default(),
            claimed: Present::default(),
            since: START,
        };
        for store in &stores {
            clock.set(0);
            store.beat(beat(true)).await.unwrap();
            clock.set(1_999);
            store.beat(beat(false)).await.unwrap();
            assert_eq!(store.take_numbers(main_queue(), 1).await, Ok(Taken::Elsewhere));
            clock.set(2_000);
            assert_eq!(store.take_numbers(main_queue(), 1).await, Ok(Taken::From(1)));
            // A database whose clock was set back by an hour does not keep joins waiting for that long.
            store.beat(beat(true)).await.unwrap();
            clock.set(2_000 - 3_600_000);
            assert_eq!(store.take_numbers(main_queue(), 1).await, Ok(Taken::From(2)));
        }
    }

    /// Who has not beaten for ten minutes is gone.
    #[tokio::test]
    async fn an_instance_that_is_silent_for_ten_minutes_is_forgotten() {
        let clock = Clock::default();
        let (stores, _guard) = stores(&clock).await;
        let beat = |instance: &str| Beat { instance: instance.into(), ..Beat::default() };
        for store in &stores {
            clock.set(0);
            store.beat(beat("a")).await.unwrap();
            clock.set(599_999);
            assert_eq!(store.beat(beat("b")).await.unwrap().others.len(), 1);
            clock.set(600_000);
            store.beat(beat("b")).await.unwrap();
            assert_eq!(store.beat(beat("b")).await.unwrap().others.len(), 0);
        }
    }

    /// The store of a single process has no time but that of its process.
    #[tokio::test]
    async fn a_store_that_is_told_no_time_takes_a_step_at_any() {
        let (sqlite, _guard) = common::fresh().await;
        for store in [sqlite, Store::Memory(MemoryStore::open(&Kept::default()))] {
            store.create_queue(main_queue(), open()).await.unwrap();
            assert_eq!(store.advance(step(0, at(0)), at(0)).await, Ok(true));
            let later = at(365 * 86_400_000);
            assert_eq!(store.advance(step(1, later), later).await, Ok(true));
        }
    }
}
