//! Locks, lost connections, and a server that is away.

use std::time::{Duration, Instant};

use crate::conformance::{
    PRICE, START, assert_clean, at, at_once, charge, count_events, key, mark_rows, pay, sale, user,
    waiting_rows,
};
use boxoffice_backends::store::{
    Charge, MysqlServer, MysqlTls, ReservationRejected, Reserve, Store,
};
use boxoffice_backends::{Error, Fault};
use boxoffice_domain::sales::SettleRejected;
use mysql_async::prelude::Queryable;

use super::server::{Server, number, open, options, shared, try_open};
use testbed::{FaultProxy, Mode};

fn unavailable<T: std::fmt::Debug, R: std::fmt::Debug>(answer: &Result<T, Error<R>>) {
    assert!(matches!(answer, Err(Error::Fault(Fault::Unavailable(_)))), "{answer:?}");
}

fn through(server: &MysqlServer, proxy: &FaultProxy) -> MysqlServer {
    MysqlServer { port: proxy.port, ..server.clone() }
}

/// Waits until some transaction of the shared server waits for a lock in this database.
async fn somebody_waits(server: &MysqlServer) {
    let mut admin = shared().admin(None).await;
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p \
         ON p.id = t.trx_mysql_thread_id WHERE t.trx_state = 'LOCK WAIT' AND p.db = '{}'",
        server.database
    );
    while number(&mut admin, &sql).await == 0 {
        // Asked more often than every 100 ms, the table does not change.
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
}

fn connections(store: &Store) -> usize {
    match store {
        Store::Mysql(store) => store.free_connections(),
        _ => unreachable!(),
    }
}

/// Rows that are locked are left out, so there is little left to wait for: a row that another adds
/// at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_loses_a_deadlock_tries_again() {
    let server = shared().database().await;
    let store = open(&server).await;
    let sale = sale(&store, 2).await;
    for by in 100..200 {
        store.charge(charge(by, 1, START)).await.unwrap();
    }
    let mut held = Vec::new();
    for by in 1..=2 {
        store.charge(charge(by, PRICE, START)).await.unwrap();
        held.push(sale.held(&store, by, &[by as usize - 1]).await);
    }
    let mut other = shared().admin(Some(&server.database)).await;
    other.query_drop("START TRANSACTION").await.unwrap();
    // The transaction that has changed less is the one to be ended.
    other
        .query_drop("UPDATE account SET balance = balance + 1 WHERE user_id >= 100")
        .await
        .unwrap();
    // The first user's ticket is being spent elsewhere.
    other
        .query_drop(
            "INSERT INTO spent_ticket (queue, seq, ticket_id, payment_id, at) \
             VALUES ('main', 1, UNHEX(RPAD(LPAD('1', 16, '0'), 32, '0')), NULL, 1)",
        )
        .await
        .unwrap();
    let paying: Vec<_> = held
        .iter()
        .map(|held| {
            let (store, request) = (store.clone(), pay(held.user.get(), held.id, START));
            tokio::spawn(async move { store.pay(request).await })
        })
        .collect();
    somebody_waits(&server).await;
    let seat = sale.seats[0];
    other.query_drop(format!("SELECT id FROM seat WHERE id = {seat} FOR UPDATE")).await.unwrap();
    other.query_drop("ROLLBACK").await.unwrap();
    for payment in paying {
        payment.await.unwrap().unwrap();
    }
    assert_clean(&store, START).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_does_not_come_leaves_nothing_half_done() {
    let server = shared().database().await;
    let store = open(&server).await;
    let sale = sale(&store, 2).await;
    let mut other = shared().admin(Some(&server.database)).await;
    other.query_drop("START TRANSACTION").await.unwrap();
    let high = sale.seats[1];
    other.query_drop(format!("SELECT id FROM seat WHERE id = {high} FOR UPDATE")).await.unwrap();
    let request = Reserve { idempotency: key("k", 1), ..sale.reserve(1, &[0, 1], START) };
    let began = Instant::now();
    unavailable(&store.reserve(request.clone()).await);
    assert!(began.elapsed() < Duration::from_millis(2_600), "{:?}", began.elapsed());
    // Neither the key, nor the account, nor the first seat is kept: all of it is free at once.
    let mut admin = shared().admin(Some(&server.database)).await;
    for table in ["reservation", "idempotency", "outbox"] {
        assert_eq!(
            number(&mut admin, &format!("SELECT COUNT(*) FROM {table}")).await,
            0,
            "{table}"
        );
    }
    store.reserve(sale.reserve(1, &[0], START)).await.unwrap();
    other.query_drop("ROLLBACK").await.unwrap();
    let answer = store.reserve(Reserve { seats: vec![high], ..request }).await.unwrap();
    assert!(!answer.replayed);
    assert_clean(&store, START).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_without_an_answer_is_unknown_and_the_key_tells() {
    let server = shared().database().await;
    let direct = open(&server).await;
    let sale = sale(&direct, 4).await;
    direct.charge(charge(1, 1_000, START)).await.unwrap();
    let proxy = FaultProxy::start(server.port).unwrap();
    let store = open(&through(&server, &proxy)).await;
    for (mode, seat, done) in [(Mode::LoseAnswerToCommit, 0, true), (Mode::LoseCommit, 1, false)] {
        let name = format!("reserve {seat}");
        // A ticket for each purchase: the one that holds is spent with it.
        let ticket = crate::conformance::ticket(10 + seat as u64);
        let request = Reserve {
            ticket: ticket.clone(),
            idempotency: key(&name, 1),
            ..sale.reserve(1, &[seat], START)
        };
        proxy.set(mode);
        let answer = store.reserve(request.clone()).await;
        let unknown = matches!(answer, Err(Error::Fault(Fault::OutcomeUnknown(_))));
        assert!(unknown, "{mode:?}: {answer:?}");
        proxy.set(Mode::Pass);
        let answer = direct.reserve(request.clone()).await.unwrap();
        assert_eq!(answer.replayed, done, "{mode:?}");
        let again = store.reserve(request).await.unwrap();
        assert!(again.replayed && again.value == answer.value);
        // The payment too.
        let mut payment = pay(1, answer.value.id, at(1));
        payment.ticket = ticket;
        payment.idempotency = key(&format!("pay {seat}"), 1);
        proxy.set(mode);
        let lost = store.pay(payment.clone()).await;
        assert!(matches!(lost, Err(Error::Fault(Fault::OutcomeUnknown(_)))), "{mode:?}: {lost:?}");
        proxy.set(Mode::Pass);
        assert_eq!(direct.pay(payment).await.unwrap().replayed, done, "{mode:?}");
    }
    assert_eq!(direct.balance(user(1)).await, Ok(1_000 - 200));
    assert_eq!(count_events(&direct, "concert.concert-reserved").await, 2);
    assert_eq!(count_events(&direct, "concert.payment-completed").await, 2);
    assert_clean(&direct, at(1)).await;
    store.close().await;
    direct.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_swallows_everything_costs_no_more_than_the_time_outs() {
    let server = shared().database().await;
    let proxy = FaultProxy::start(server.port).unwrap();
    let opened = try_open(boxoffice_backends::store::MysqlOptions {
        acquire: Duration::from_millis(250),
        ..options(&through(&server, &proxy))
    });
    let store = opened.await.unwrap();
    let sale = sale(&store, 100).await;
    let reserve = |from: i64| {
        let (store, sale) = (store.clone(), sale.clone());
        (0..30).map(move |n| {
            let (store, request) = (store.clone(), sale.reserve(from + n, &[n as usize], START));
            async move {
                let began = Instant::now();
                (store.reserve(request).await, began.elapsed())
            }
        })
    };
    // Warm connections, some of which are then in the middle of something.
    at_once((0..10).map(|n| {
        let (store, request) = (store.clone(), charge(n + 1, 1, START));
        async move { store.charge(request).await.unwrap() }
    }))
    .await;
    for round in 0..2 {
        proxy.set(Mode::Stall);
        for (answer, took) in at_once(reserve(1_000 * (round + 1))).await {
            // All seats are different, so none of them can have been refused by a rule.
            unavailable(&answer);
            assert!(took < Duration::from_millis(3_000), "{took:?}");
        }
        assert!(store.stats().fault().is_some() || round == 0, "the service is not ready");
        proxy.set(Mode::Pass);
        let began = Instant::now();
        while store.charge(charge(1, 1, START)).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(5), "it does not recover");
        }
        let began = Instant::now();
        while connections(&store) < options(&server).pool_size {
            assert!(began.elapsed() < Duration::from_secs(5), "{} are free", connections(&store));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    for (answer, _) in at_once(reserve(1)).await {
        answer.unwrap();
    }
    let began = Instant::now();
    while store.stats().fault().is_some() {
        assert!(began.elapsed() < Duration::from_secs(5), "the service is not ready again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_clean(&store, START).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_of_a_client_that_vanished_do_not_outlive_its_silence() {
    let server = shared().database().await;
    let direct = open(&server).await;
    direct.charge(charge(1, 1_000, START)).await.unwrap();
    let proxy = FaultProxy::start(server.port).unwrap();
    let store = open(&through(&server, &proxy)).await;
    let claimed = store.next_events(10).await.unwrap();
    assert_eq!(claimed.rows.len(), 1);
    proxy.set(Mode::BlackHole);
    // The server hears neither of the rollback nor of the end of the connection.
    drop(claimed);
    let began = Instant::now();
    while direct.next_events(10).await.unwrap().rows.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "the events are locked for good");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(1), "nothing was locked");
    direct.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_was_given_up_is_not_followed_by_others() {
    let server = shared().database().await;
    let proxy = FaultProxy::start(server.port).unwrap();
    let store = open(&through(&server, &proxy)).await;
    // Several warm connections.
    at_once((0..6).map(|_| {
        let store = store.clone();
        async move { store.queues().await.unwrap() }
    }))
    .await;
    proxy.set(Mode::BlackHole);
    // As the sequencer asks: it does not wait for as long as the store would.
    let asked = tokio::time::timeout(Duration::from_millis(1_500), store.queues()).await;
    assert!(asked.is_err(), "{asked:?}");
    proxy.set(Mode::Pass);
    let began = Instant::now();
    store.queues().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    store.close().await;
}

/// A commit can be seen before it is on the disk, and a crash takes it back. So before an event
/// leaves, and before a request is answered with what was done earlier, the log is flushed: by a
/// commit, because the log is written in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_could_take_back_is_told_to_nobody() {
    let server = shared().database().await;
    let store = open(&server).await;
    let sale = sale(&store, 2).await;
    let mut conn = shared().admin(Some(&server.database)).await;
    let flushes = "SELECT COALESCE(SUM(value), 0) DIV 1 FROM setting WHERE name = 'log_flushes'";
    let request = Charge { idempotency: key("once", 1), ..charge(1, PRICE, START) };
    store.charge(request.clone()).await.unwrap();
    let held = sale.held(&store, 1, &[0]).await;
    store.pay(pay(1, held.id, START)).await.unwrap();
    assert_eq!(number(&mut conn, flushes).await, 0, "a commit flushes the log by itself");
    mark_rows(&store, &waiting_rows(&store, 10).await).await;
    let before = number(&mut conn, flushes).await;
    assert!(before > 0, "events have left");
    assert!(waiting_rows(&store, 10).await.is_empty());
    assert_eq!(number(&mut conn, flushes).await, before, "nothing was there to leave");
    assert!(store.charge(request).await.unwrap().replayed);
    assert_eq!(number(&mut conn, flushes).await, before + 1);
    let paid = store.pay(pay(1, held.id, START)).await;
    assert_eq!(
        paid,
        Err(Error::Rejected(ReservationRejected::Settle(SettleRejected::AlreadyPaid)))
    );
    assert_eq!(number(&mut conn, flushes).await, before + 2);
    // That a seat is gone may turn out to be wrong; nobody has lost anything by it.
    let reserved = store.reserve(sale.reserve(2, &[0], START)).await;
    assert!(matches!(reserved, Err(Error::Rejected(_))), "{reserved:?}");
    assert_eq!(number(&mut conn, flushes).await, before + 2);
    assert_clean(&store, START).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_comes_back_with_all_that_was_answered() {
    let mut own = tokio::task::spawn_blocking(Server::start).await.unwrap();
    let server = own.database().await;
    let store = open(&server).await;
    let sale = sale(&store, 10).await;
    let (bought, _) = sale.bought(&store, 1, &[0, 1]).await;
    let held = sale.held(&store, 2, &[2]).await;
    own.kill();
    let began = Instant::now();
    unavailable(&store.reserve(sale.reserve(3, &[3], START)).await);
    unavailable(&store.charge(charge(3, 1, START)).await);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    own.restart();
    let began = Instant::now();
    while store.reserve(sale.reserve(3, &[3], START)).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(store.reservation(bought.id).await.unwrap().unwrap().0.id, bought.id);
    store.charge(charge(2, 100, START)).await.unwrap();
    store.pay(pay(2, held.id, START)).await.unwrap();
    assert_clean(&store, START).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_says_what_to_do() {
    let server = shared().database().await;
    let says = async |server: MysqlServer, parts: &[&str]| {
        let text = match try_open(options(&server)).await {
            Err(Fault::Unavailable(text)) => text,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("it opened"),
        };
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
        assert!(!text.contains("se-cret"), "{text}");
    };
    let wrong = MysqlServer { password: "se-cret".into(), ..server.clone() };
    says(wrong, &["refuses the user root", "store.mysql.password"]).await;
    let nowhere = MysqlServer { database: "nowhere".into(), ..server.clone() };
    says(nowhere, &["no database nowhere", "CREATE DATABASE nowhere"]).await;
    let closed = MysqlServer { port: 1, ..server.clone() };
    says(closed, &["cannot reach", "127.0.0.1:1"]).await;

    // A database of another program is left alone.
    let mut admin = shared().admin(Some(&server.database)).await;
    admin.query_drop("CREATE TABLE theirs (id INT)").await.unwrap();
    says(server.clone(), &["tables of another program", "nothing was changed"]).await;
    let tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()";
    assert_eq!(number(&mut admin, tables).await, 1);
    admin.query_drop("DROP TABLE theirs").await.unwrap();

    open(&server).await.close().await;
    admin.query_drop("UPDATE schema_version SET version = version + 1").await.unwrap();
    says(server.clone(), &["A newer boxoffice wrote it"]).await;
    let greedy = boxoffice_backends::store::MysqlOptions { pool_size: 999, ..options(&server) };
    let Err(Fault::Unavailable(text)) = try_open(greedy).await else { panic!("it opened") };
    assert!(text.contains("max_connections") && text.contains("store.mysql.pool_size"), "{text}");
}

/// What an instance has goes to whom needs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_is_enough_for_all_where_the_server_has_no_other() {
    let server = shared().database().await;
    let store = open(&server).await;
    let sale = sale(&store, 24).await;
    store.close().await;
    let mut admin = shared().admin(Some(&server.database)).await;
    let user_name = format!("few_{}", server.database);
    for sql in [
        format!("CREATE USER {user_name}@'127.0.0.1'"),
        format!("GRANT ALL ON {}.* TO {user_name}@'127.0.0.1'", server.database),
        format!("ALTER USER {user_name}@'127.0.0.1' WITH MAX_USER_CONNECTIONS 30"),
    ] {
        admin.query_drop(sql).await.unwrap();
    }
    let store = open(&MysqlServer { user: user_name.clone(), ..server.clone() }).await;
    store.charge(charge(1, PRICE, START)).await.unwrap();
    // All but one are used up from outside, and no connection outlives that.
    let limit = format!("ALTER USER {user_name}@'127.0.0.1' WITH MAX_USER_CONNECTIONS 1");
    admin.query_drop(limit).await.unwrap();
    admin.query_drop(format!("KILL USER {user_name}@'127.0.0.1'")).await.unwrap();
    // Whoever notices the loss first takes the one that there is.
    for _ in 0..3 {
        let _ = store.charge(charge(1, PRICE, START)).await;
    }
    for round in 0..3 {
        let bought: Vec<_> = (0..8)
            .map(|n| {
                let (store, by) = (store.clone(), 2 + n as i64);
                let request = sale.reserve(by, &[8 * round + n], START);
                tokio::spawn(async move { store.reserve(request).await })
            })
            .collect();
        let queue = boxoffice_domain::ids::QueueName::new(&format!("other-{round}")).unwrap();
        // On a busy machine somebody else may have it for longer than is waited.
        let until = Instant::now() + Duration::from_secs(5);
        let settings = crate::conformance::settings();
        while let Err(why) = store.create_queue(queue.clone(), settings.clone()).await {
            assert!(Instant::now() < until, "{why}");
        }
        for (n, reserved) in bought.into_iter().enumerate() {
            let mut reserved = reserved.await.unwrap();
            while matches!(reserved, Err(Error::Fault(_))) && Instant::now() < until {
                let again = sale.reserve(2 + n as i64, &[8 * round + n], START);
                reserved = store.reserve(again).await;
            }
            reserved.unwrap();
        }
    }
    let mine =
        format!("SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{user_name}'");
    assert!(number(&mut admin, &mine).await <= 1);
    assert_clean(&open(&server).await, START).await;
    store.close().await;
    admin.query_drop(format!("DROP USER {user_name}@'127.0.0.1'")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_was_cut_short_is_run_again() {
    let server = shared().database().await;
    let store = open(&server).await;
    let sale = sale(&store, 1).await;
    store.close().await;
    // As a crash before the last statement of the step would leave it.
    let mut admin = shared().admin(Some(&server.database)).await;
    admin.query_drop("UPDATE schema_version SET version = 0").await.unwrap();
    admin.query_drop("DROP TABLE alias").await.unwrap();
    let store = open(&server).await;
    store.reserve(sale.reserve(1, &[0], START)).await.unwrap();
    assert_eq!(store.aliases(START).await, Ok(vec![]));
    assert_clean(&store, START).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_encrypted_where_that_is_asked_for() {
    let (own, authority) = tokio::task::spawn_blocking(Server::start_with_tls).await.unwrap();
    let plain = own.database().await;
    let mut admin = own.admin(None).await;
    // Who only may come encrypted.
    admin.query_drop("CREATE USER tls@'127.0.0.1' REQUIRE SSL").await.unwrap();
    admin.query_drop("GRANT ALL ON *.* TO tls@'127.0.0.1'").await.unwrap();
    let with = |tls| MysqlServer { user: "tls".into(), tls, ..plain.clone() };
    let verify = |ca_file| MysqlTls::Verify { ca_file };
    for tls in [MysqlTls::Required, verify(Some(authority))] {
        let store = open(&with(tls)).await;
        store.charge(charge(1, 1, START)).await.unwrap();
        store.close().await;
    }
    for (tls, part) in [
        (MysqlTls::Off, "refuses the user tls"),
        // An authority that nobody knows.
        (verify(None), "cannot reach"),
        (verify(Some("/nowhere/ca.pem".into())), "tls_ca_file"),
    ] {
        let Err(Fault::Unavailable(text)) = try_open(options(&with(tls))).await else {
            panic!("it opened")
        };
        assert!(text.contains(part), "{text}");
    }
}
