//! Queues of instances that share one database, and have no Redis at the moment.

use std::time::Duration;

use crate::conformance::{assert_clean, main_queue};
use boxoffice_backends::sequencer::{Queue, RedisMode, RedisOptions, RedisSequencer, Sequencer};
use boxoffice_backends::store::{Rules, Store};
use boxoffice_domain::queue::{QueueSettings, SettingsChange};
use boxoffice_domain::time::Timestamp;

use super::server::{open, shared};

fn settings() -> QueueSettings {
    QueueSettings {
        admit_per_second: 1_000.0,
        max_active: Some(5),
        active_ttl: Duration::from_secs(60),
        claim_window: Duration::from_secs(5),
        opens_at: None,
        paused: true,
    }
}

/// An instance that finds no Redis.
async fn instance(store: &Store, name: &str) -> Sequencer {
    let options = RedisOptions {
        mode: RedisMode::Standalone,
        nodes: vec![("127.0.0.1".into(), 1)],
        user: None,
        password: None,
        sentinel_password: None,
        database: 0,
        tls: false,
        tls_ca: None,
        prefix: "boxoffice".into(),
        call_timeout: Duration::from_millis(250),
        connect_timeout: Duration::from_millis(500),
        turn: Duration::ZERO,
        instance: name.into(),
        ticket_keys: vec!["k1".into()],
        one_place_each: false,
        epoch: 0,
        rules: Rules::default(),
        reserve: Duration::from_secs(30),
        cluster: "cluster-1".into(),
    };
    Sequencer::Redis(
        RedisSequencer::open(
            store.clone(),
            &settings(),
            options,
            store.database_now().await.unwrap(),
        )
        .await
        .unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_and_a_change_at_two_instances_both_stand() {
    let server = shared().database().await;
    let stores = [open(&server).await, open(&server).await];
    assert_eq!(stores[0].create_queue(main_queue(), settings()).await, Ok(true));
    let a = instance(&stores[0], "a").await;
    let b = instance(&stores[1], "b").await;
    let queue = |sequencer: &Sequencer| sequencer.queue("main").unwrap();
    let (at_a, at_b) = (queue(&a), queue(&b));
    for _ in 0..20 {
        a.join(&at_a).await.unwrap();
    }
    let mut now = stores[0].database_now().await.unwrap();
    for round in 1..=40_u32 {
        a.change(&at_a, SettingsChange::pause(false)).await.unwrap();
        let change = SettingsChange {
            admit_per_second: Some(f64::from(round)),
            max_active: Some(round.is_multiple_of(2).then_some(round.into())),
            ..SettingsChange::default()
        };
        let mut expected = settings();
        change.apply(&mut expected);
        let (paused, changed) =
            tokio::join!(a.change(&at_a, SettingsChange::pause(true)), b.change(&at_b, change));
        assert!(paused.unwrap().paused, "round {round}");
        assert_eq!(changed.unwrap().max_active, expected.max_active, "round {round}");
        for store in &stores {
            let stored = store.queues().await.unwrap().remove(0).settings;
            assert_eq!(stored, expected, "round {round}");
        }
        // The next look at the store shows it to both, and nobody is admitted.
        now = Timestamp(now.0 + 1_000);
        for sequencer in [&a, &b] {
            sequencer.tick(now).await.unwrap();
        }
        let shown = |queue: &Queue| (queue.settings(), queue.serving());
        assert_eq!(shown(&at_a), (expected.clone(), 0), "round {round}");
        assert_eq!(shown(&at_b), (expected, 0), "round {round}");
    }
    assert_clean(&stores[1], now).await;
    for (store, sequencer) in stores.iter().zip([a, b]) {
        sequencer.close(now).await.unwrap();
        store.close().await;
    }
}
