//! The admission log where several instances write it, and answers to commits are lost.

use std::time::Duration;

use crate::conformance::{START, assert_clean, at_once, everybody, main_queue, settings};
use boxoffice_backends::Fault;
use boxoffice_backends::store::{
    Advance, Checkpoint, Digest, LogPart, MysqlOptions, MysqlServer, MysqlStore, Store,
};
use boxoffice_domain::queue::{Bucket, Entry, QueueSettings, Record, Runs, Standing, Step};
use boxoffice_domain::time::Timestamp;
use mysql_async::prelude::Queryable;

use super::server::{open, options, shared};
use testbed::{FaultProxy, Mode};

fn admitting() -> QueueSettings {
    QueueSettings { max_active: None, opens_at: None, paused: false, ..settings() }
}

async fn log(store: &Store) -> LogPart {
    store.admission_log(main_queue(), None, 1_000).await.unwrap().unwrap()
}

/// Where the queue stands: how many steps it has seen, and the last number.
async fn stands(store: &Store) -> (u64, u64) {
    let line = store.queues().await.unwrap().remove(0).line;
    (line.steps, line.serving)
}

async fn advance(store: &Store, steps: u64, serving: u64, more: u64) -> Result<bool, Fault> {
    let at = store.database_now().await.unwrap_or(START);
    let step = everybody(serving + more, at);
    let bucket = Bucket::default();
    store.advance(Advance { queue: main_queue(), steps, serving, step, bucket }, at).await
}

fn checkpoint(before: u64, step: Step) -> Vec<Checkpoint> {
    let over_before = Timestamp(i64::MIN);
    let (queue, step) = (main_queue(), Some((before, step)));
    vec![Checkpoint { queue, next: 90, watermark: 99, floor: 0, step, claimed: None, over_before }]
}

/// Two instances plan on what they know, again and again: each number of a record is given once, and the log
/// has no fork.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_write_one_log() {
    let server = shared().database().await;
    let stores = [open(&server).await, open(&server).await];
    stores[0].create_queue(main_queue(), admitting()).await.unwrap();
    let racing = stores.clone().into_iter().map(|store| async move {
        let mut won = 0_u64;
        for _ in 0..40 {
            let (steps, serving) = stands(&store).await;
            won += u64::from(advance(&store, steps, serving, 2).await == Ok(true));
        }
        won
    });
    let won: u64 = at_once(racing).await.into_iter().sum();
    let LogPart { previous, links, head } = log(&stores[1]).await;
    assert!(won >= 40, "{won}");
    assert_eq!((links.len() as u64, head.number), (won + 1, won));
    let follow = |digest: Digest, link: &boxoffice_backends::store::Link| digest.then(&link.bytes);
    assert_eq!(links.iter().fold(previous, follow), head.digest);
    assert_clean(&stores[0], START).await;
    for store in stores {
        store.close().await;
    }
}

/// Whether a step is there is not known; whatever is planned then, it is in the log once or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_commit_has_no_answer_makes_no_fork() {
    let server = shared().database().await;
    let direct = open(&server).await;
    direct.create_queue(main_queue(), admitting()).await.unwrap();
    let proxy = FaultProxy::start(server.port).unwrap();
    let behind = MysqlServer { port: proxy.port, ..server.clone() };
    let store = open(&behind).await;
    for (mode, done) in [(Mode::LoseAnswerToCommit, true), (Mode::LoseCommit, false)] {
        let (steps, serving) = stands(&direct).await;
        let at = direct.database_now().await.unwrap();
        let step = everybody(serving + 3, at);
        let bucket = Bucket::default();
        let advance = Advance { queue: main_queue(), steps, serving, step, bucket };
        proxy.set(mode);
        let lost = store.advance(advance.clone(), at).await;
        assert!(matches!(lost, Err(Fault::OutcomeUnknown(_))), "{mode:?}: {lost:?}");
        proxy.set(Mode::Pass);
        // Asked again it counts only if it did not.
        assert_eq!(direct.advance(advance, at).await, Ok(!done), "{mode:?}");
        assert_eq!(stands(&direct).await, (steps + 1, serving + 3));
        assert_eq!(log(&direct).await.head.number, steps + 1);
        assert_clean(&direct, START).await;
    }
    // A process that is alone tries it again by itself, and then plans once more from the same place.
    for (mode, done) in [(Mode::LoseAnswerToCommit, true), (Mode::LoseCommit, false)] {
        let (steps, serving) = stands(&direct).await;
        let at = direct.database_now().await.unwrap();
        let passed = [serving + 2].into_iter().collect();
        let step = Step { passed, ..everybody(serving + 3, at) };
        proxy.set(mode);
        let lost = store.checkpoint(checkpoint(serving, step), at).await;
        assert!(matches!(lost, Err(Fault::OutcomeUnknown(_))), "{mode:?}: {lost:?}");
        proxy.set(Mode::Pass);
        assert_eq!(stands(&direct).await.0, steps + u64::from(done), "{mode:?}");
        let again = everybody(serving + 5, at.plus(Duration::from_millis(100)));
        store.checkpoint(checkpoint(serving, again), at).await.unwrap();
        assert_eq!(stands(&direct).await, (steps + 1 + u64::from(done), serving + 5));
        assert_clean(&direct, START).await;
    }
    store.close().await;
    direct.close().await;
}

/// A line from before there was a log, in a migration that was cut short more than once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_an_older_database_begins_with_where_the_line_stands() {
    let server = shared().database().await;
    let store = open(&server).await;
    store.create_queue(main_queue(), admitting()).await.unwrap();
    let now = store.database_now().await.unwrap();
    let step = Step { passed: [2, 3].into_iter().collect(), ..everybody(5, now) };
    store.checkpoint(checkpoint(0, step), now).await.unwrap();
    store.close().await;
    let mut admin = shared().admin(Some(&server.database)).await;
    for statement in [
        "ALTER TABLE queue DROP chain",
        "DROP TABLE admission_log, admission_mark",
        "UPDATE schema_version SET version = 4",
    ] {
        admin.query_drop(statement).await.unwrap();
    }
    let migrated = async || {
        let migrating = MysqlOptions { migrate: true, ..options(&server) };
        let (store, before) = MysqlStore::open(migrating).await.unwrap();
        (Store::Mysql(store), before)
    };
    let (store, before) = migrated().await;
    assert_eq!(before, 4);
    let begun = log(&store).await;
    assert_eq!((begun.previous, begun.links.len()), (Digest::genesis(&main_queue()), 1));
    let record = Record::from_bytes(&begun.links[0].bytes).unwrap();
    let passed = Runs::from(&[2, 3].into_iter().collect());
    let standing = Standing { serving: 5, passed, terms: (&admitting()).into(), draw: None };
    assert_eq!((record.number, record.entry), (1, Entry::Stands(standing)));
    store.close().await;
    // Cut short before the version was written: run again, the log only goes on.
    admin.query_drop("UPDATE schema_version SET version = 4").await.unwrap();
    let (store, before) = migrated().await;
    assert_eq!((before, log(&store).await), (4, begun.clone()));
    assert_eq!(advance(&store, 1, 5, 2).await, Ok(true));
    assert_eq!(log(&store).await.links[0], begun.links[0]);
    assert_clean(&store, START).await;
    store.close().await;
}
