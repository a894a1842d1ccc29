//! Batches on a server that others use too: what is locked, lost, repeated or unknown concerns the
//! commands that it is about, and no others.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use boxoffice_backends::store::{
    Commit, MysqlOptions, MysqlStore, Pay, Reserve, ReserveRejected, Store,
};
use boxoffice_backends::{Error, Fault};
use boxoffice_domain::sales::{HoldRejected, SeatState};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::server::{number, open, options, shared, try_open};
use crate::conformance::{
    PRICE, START, assert_clean, at, at_once, charge, count_events, key, pay, sale, ticket, user,
};
use testbed::{FaultProxy, Mode};

/// A console has locked one seat of a busy session. All others go on at once, whatever they ask;
/// whoever wants that seat is told to come back, in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_row_holds_up_nobody_else() {
    let server = shared().database().await;
    let store = open(&server).await;
    let sale = sale(&store, 60).await;
    for by in 1..=40 {
        store.charge(charge(by, 10 * PRICE, START)).await.unwrap();
    }
    let held = sale.held(&store, 30, &[50]).await;
    let locked_hold = sale.held(&store, 31, &[51]).await;
    let keyed = Reserve { idempotency: key("again", 1), ..sale.reserve(32, &[52], START) };
    let first = store.reserve(keyed.clone()).await.unwrap();
    let mut console = shared().admin(Some(&server.database)).await;
    console.query_drop("START TRANSACTION").await.unwrap();
    for index in [0_usize, 51, 52] {
        let seat = sale.seats[index];
        let lock = format!("SELECT id FROM seat WHERE id = {seat} FOR UPDATE");
        console.query_drop(lock).await.unwrap();
    }
    let began = Instant::now();
    let waiting = {
        let (store, request) = (store.clone(), sale.reserve(1, &[0, 1], START));
        tokio::spawn(async move { (store.reserve(request).await, Instant::now()) })
    };
    let unpaid = {
        let (store, request) = (store.clone(), pay(31, locked_hold.id, START));
        tokio::spawn(async move { (store.pay(request).await, Instant::now()) })
    };
    // Seats, a refusal, a repetition, a payment, points and a hold given back, in the same batches.
    let answers = at_once((2..=20).map(|by: i64| {
        let (store, request) = (store.clone(), sale.reserve(by, &[by as usize], START));
        async move { store.reserve(request).await.is_ok() }
    }))
    .await;
    assert!(answers.iter().all(|ok| *ok), "{answers:?}");
    let taken = HoldRejected::SeatTaken(sale.seats[50]);
    let refused = store.reserve(sale.reserve(21, &[50], START)).await;
    assert_eq!(refused, Err(Error::Rejected(ReserveRejected::Hold(taken))));
    let again = store.reserve(keyed).await.unwrap();
    assert!(again.replayed && again.value == first.value);
    store.pay(pay(30, held.id, START)).await.unwrap();
    assert_eq!(store.charge(charge(22, 1, START)).await.unwrap().value, 10 * PRICE + 1);
    let own = sale.held(&store, 23, &[23]).await;
    store.cancel(own.id, user(23), START).await.unwrap();
    // A sweep leaves what is locked for the next time.
    assert_eq!(store.expire_due(at(1), 10).await, Ok(0));
    let took = began.elapsed();
    assert!(took < Duration::from_millis(1_500), "the others waited for {took:?}");
    for (answer, at) in [
        (waiting.await.map(|(answer, at)| (answer.map(|_| ()).map_err(|e| e.to_string()), at))),
        (unpaid.await.map(|(answer, at)| (answer.map(|_| ()).map_err(|e| e.to_string()), at))),
    ]
    .map(Result::unwrap)
    {
        let told = answer.unwrap_err();
        assert!(told.contains("held a lock for too long"), "{told}");
        let took = at - began;
        assert!(took > Duration::from_millis(1_500) && took < Duration::from_secs(4), "{took:?}");
    }
    console.query_drop("ROLLBACK").await.unwrap();
    store.reserve(sale.reserve(1, &[0, 1], START)).await.unwrap();
    store.pay(pay(31, locked_hold.id, START)).await.unwrap();
    assert_clean(&store, START).await;
    store.close().await;
}

/// A batch that waits for a row which somebody else is adding holds up only those who want one of its
/// own rows; they come after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_held_up_holds_up_nobody_else() {
    let server = shared().database().await;
    let store = open(&server).await;
    let sale = sale(&store, 80).await;
    for by in 1..=70 {
        store.charge(charge(by, 1, START)).await.unwrap();
    }
    let mut console = shared().admin(Some(&server.database)).await;
    console.query_drop("START TRANSACTION").await.unwrap();
    console.query_drop("INSERT INTO account (user_id, balance) VALUES (500, 0)").await.unwrap();
    let began = Instant::now();
    let ask = |by: i64, amount: i64| {
        let store = store.clone();
        tokio::spawn(async move {
            let balance = store.charge(charge(by, amount, START)).await.unwrap().value;
            (balance, Instant::now() - began)
        })
    };
    let held_up = ask(500, 1);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let behind = ask(500, 10);
    let few = at_once((1..=3).map(|by| {
        let (store, request) = (store.clone(), sale.reserve(by, &[by as usize], START));
        async move { store.reserve(request).await.is_ok() }
    }))
    .await;
    let took_few = began.elapsed();
    let many = at_once((4..=70).map(|by: i64| {
        let (store, request) = (store.clone(), sale.reserve(by, &[by as usize], START));
        async move { store.reserve(request).await.is_ok() }
    }))
    .await;
    let took_many = began.elapsed();
    assert!(few.iter().chain(&many).all(|ok| *ok), "{few:?} {many:?}");
    assert!(took_many < Duration::from_millis(600), "they waited: {took_few:?}, {took_many:?}");
    assert!(!held_up.is_finished() && !behind.is_finished());
    console.query_drop("ROLLBACK").await.unwrap();
    let (first, first_at) = held_up.await.unwrap();
    let (second, second_at) = behind.await.unwrap();
    assert_eq!((first, second), (1, 11));
    assert!(first_at <= second_at);
    assert_clean(&store, START).await;
    store.close().await;
}

/// A thousand at a time, in two batches at a time: each seat has one owner, and what everybody sees in
/// memory is what the database has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_beside_each_other_agree() {
    const SEATS: i64 = 700;
    let server = shared().database().await;
    let commits: Arc<Mutex<Vec<(Instant, Instant)>>> = Arc::default();
    let observed = commits.clone();
    let observe = Arc::new(move |commit: Commit| {
        let now = Instant::now();
        observed.lock().unwrap().push((now - commit.took, now));
    });
    // Small ones, so that there are many.
    let small = MysqlOptions { batch_max: 80, observe, ..options(&server) };
    let store = try_open(small).await.unwrap();
    let sale = sale(&store, SEATS as u32).await;
    for round in 0..3_i64 {
        // Two want nearly every seat, and some want again what they have just given back.
        let held = at_once((1..=1_200).map(|n: i64| {
            let (store, by) = (store.clone(), n + 2_000 * round);
            let request = sale.reserve(by, &[((n * 7 + round * 13) % SEATS) as usize], at(round));
            async move {
                let Ok(held) = store.reserve(request.clone()).await else { return 0 };
                let id = held.value.id;
                match n % 4 {
                    0 => store.cancel(id, user(by), at(round)).await.unwrap(),
                    1 => {
                        store.cancel(id, user(by), at(round)).await.unwrap();
                        let _ = store.reserve(request).await;
                    }
                    2 if round == 2 => {
                        store.charge(charge(by, PRICE, at(2))).await.unwrap();
                        store.pay(pay(by, id, at(2))).await.unwrap();
                    }
                    _ => {}
                }
                1
            }
        }))
        .await;
        assert!(held.iter().sum::<i64>() > 0, "round {round}");
    }
    let commits = std::mem::take(&mut *commits.lock().unwrap());
    let beside = commits
        .iter()
        .enumerate()
        .filter(|(n, one)| commits[n + 1..].iter().any(|other| one.0 < other.1 && other.0 < one.1))
        .count();
    assert!(beside > 0, "of {} batches {beside} were beside another", commits.len());
    let mut conn = shared().admin(Some(&server.database)).await;
    let stored: Vec<i64> = conn.query("SELECT state FROM seat ORDER BY id").await.unwrap();
    let shown: Vec<i64> = (0..SEATS as usize)
        .map(|seat| match sale.owner(&store, seat) {
            SeatState::Available => 0,
            SeatState::Held { .. } => 1,
            SeatState::Sold { .. } => 2,
            SeatState::Released { .. } => 3,
        })
        .collect();
    assert_eq!(shown, stored);
    assert_clean(&store, at(2)).await;
    store.close().await;
}

/// Nobody is overtaken at a row that was locked: who came first for it gets it when it is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_locked_seat_is_served_in_order() {
    let server = shared().database().await;
    let store = open(&server).await;
    let sale = sale(&store, 1).await;
    let mut console = shared().admin(Some(&server.database)).await;
    console.query_drop("START TRANSACTION").await.unwrap();
    console.query_drop("SELECT id FROM seat FOR UPDATE").await.unwrap();
    let mut waiting = Vec::new();
    for by in 1..=5 {
        let (store, request) = (store.clone(), sale.reserve(by, &[0], START));
        waiting.push(tokio::spawn(async move { store.reserve(request).await.is_ok() }));
        // Asked for one after another, while those before wait.
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    console.query_drop("ROLLBACK").await.unwrap();
    let mut got = Vec::new();
    for answer in waiting {
        got.push(answer.await.unwrap());
    }
    assert_eq!(got, [true, false, false, false, false]);
    assert_clean(&store, START).await;
    store.close().await;
}

/// A commit without an answer is unknown for every command of its batch, and each of them can be
/// asked for again with its key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_commit_is_unknown_for_the_whole_batch() {
    let server = shared().database().await;
    let direct = open(&server).await;
    let proxy = FaultProxy::start(server.port).unwrap();
    let through = boxoffice_backends::store::MysqlServer { port: proxy.port, ..server.clone() };
    let store = open(&through).await;
    store.charge(charge(99, 1, START)).await.unwrap();
    let request = |by: i64| boxoffice_backends::store::Charge {
        idempotency: key("charge", by as u8),
        ..charge(by, by, START)
    };
    for (mode, done, users) in
        [(Mode::LoseAnswerToCommit, true, 1..=20), (Mode::LoseCommit, false, 21..=40)]
    {
        proxy.set(mode);
        let answers = at_once(users.clone().map(|by| {
            let (store, request) = (store.clone(), request(by));
            async move { store.charge(request).await }
        }))
        .await;
        proxy.set(Mode::Pass);
        for answer in answers {
            let unknown = matches!(answer, Err(Error::Fault(Fault::OutcomeUnknown(_))));
            assert!(unknown, "{mode:?}: {answer:?}");
        }
        for by in users {
            let answer = direct.charge(request(by)).await.unwrap();
            assert_eq!((answer.value, answer.replayed), (by, done), "{mode:?}");
        }
    }
    assert_eq!(count_events(&direct, "user.point-charged").await, 41);
    assert_clean(&direct, START).await;
    store.close().await;
    direct.close().await;
}

/// Two instances whose batches want the same seats and users the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_overlap_crosswise_do_not_deadlock() {
    const SEATS: usize = 24;
    let server = shared().database().await;
    let stores = [open(&server).await, open(&server).await];
    let sale = sale(&stores[0], SEATS as u32).await;
    let began = Instant::now();
    while stores[1].catalog().concerts().count() == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "the sale does not show");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for by in 1..=8 {
        stores[0].charge(charge(by, 100 * PRICE, START)).await.unwrap();
    }
    for round in 0..6_usize {
        let answers = at_once((0..64_usize).map(|n| {
            let store = stores[n % 2].clone();
            let by = 1 + ((n / 2 + round) % 8) as i64;
            // One goes up through the seats, the other comes down.
            let (low, high) = ((n / 2) % (SEATS - 1), (n / 2) % (SEATS - 1) + 1);
            let seats = if n.is_multiple_of(2) { [low, high] } else { [high, low] };
            let mut request = sale.reserve(by, &seats, at(round as i64));
            request.limits.seats_per_user_max = 100;
            request.ticket = ticket(1_000 + (round * 100 + n) as u64);
            async move {
                let held = match store.reserve(request).await {
                    Ok(held) => held.value,
                    Err(Error::Rejected(_)) => return Ok(()),
                    Err(fault) => return Err(fault.to_string()),
                };
                if n % 3 == 0 {
                    let ticket = ticket(5_000 + (round * 100 + n) as u64);
                    let payment = Pay { ticket, ..pay(by, held.id, at(round as i64)) };
                    return store.pay(payment).await.map(|_| ()).map_err(|e| e.to_string());
                }
                store.cancel(held.id, user(by), at(round as i64)).await.map_err(|e| e.to_string())
            }
        }))
        .await;
        let failed: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
    assert_clean(&stores[0], at(10)).await;
    assert_clean(&stores[1], at(10)).await;
    // Our own locks cannot lead to a deadlock.
    let mut admin = shared().admin(None).await;
    let text: Option<(String, String, String)> =
        admin.query_first("SHOW ENGINE INNODB STATUS").await.unwrap();
    let status = text.unwrap().2;
    let deadlocked = status
        .split("LATEST DETECTED DEADLOCK")
        .nth(1)
        .is_some_and(|of| of.contains(&format!("`{}`", server.database)));
    assert!(!deadlocked, "{status}");
    for store in stores {
        store.close().await;
    }
}

/// What is left of a block of ids is lost with its process; nothing gets an id twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_a_lost_block_do_not_come_again() {
    let server = shared().database().await;
    let mut seen = Vec::new();
    let mut sale_of = None;
    for round in 0..3_i64 {
        let store = open(&server).await;
        let sale = match &sale_of {
            Some(sale) => sale,
            None => sale_of.insert(sale(&store, 10).await),
        };
        seen.push(sale.held(&store, round + 1, &[round as usize]).await.id);
        // As after a crash: nobody gives anything back.
        drop(store);
    }
    assert!(seen.windows(2).all(|two| two[0] < two[1]), "{seen:?}");
    let store = open(&server).await;
    assert_eq!(count_events(&store, "concert.concert-reserved").await, 3);
    assert_clean(&store, START).await;
    store.close().await;
}

/// A database of the first schema version, with sales in it, is brought up to date when that is
/// asked for, and its ids are gone on from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_the_first_version_is_brought_up_to_date() {
    let server = shared().database().await;
    let store = open(&server).await;
    let sale = sale(&store, 6).await;
    let (bought, payment) = sale.bought(&store, 1, &[0, 1]).await;
    let held = sale.held(&store, 2, &[2]).await;
    store.close().await;
    let mut admin = shared().admin(Some(&server.database)).await;
    for statement in [
        "DELETE FROM counter WHERE name <> 'seat'",
        "ALTER TABLE reservation DROP KEY reservation_live, \
         ADD KEY reservation_by_user (user_id, session_id)",
        "ALTER TABLE reservation MODIFY id BIGINT NOT NULL AUTO_INCREMENT",
        "ALTER TABLE payment MODIFY id BIGINT NOT NULL AUTO_INCREMENT",
        "ALTER TABLE points_entry MODIFY id BIGINT NOT NULL AUTO_INCREMENT",
        "UPDATE seat SET reservation_id = NULL, held_until = NULL WHERE state = 0",
        "ALTER TABLE queue DROP steps, DROP pool, DROP pool_after, DROP pool_first, DROP pool_last",
        "DROP TABLE queue_passed, readmitted, instance, operator, change_log, change_key",
        "UPDATE schema_version SET version = 1",
    ] {
        admin.query_drop(statement).await.unwrap();
    }
    let Err(Fault::Unavailable(text)) = try_open(options(&server)).await else {
        panic!("it opened")
    };
    assert!(text.contains("schema version 1") && text.contains("boxoffice migrate"), "{text}");
    let (migrated, before) =
        MysqlStore::open(MysqlOptions { migrate: true, ..options(&server) }).await.unwrap();
    assert_eq!(before, 1);
    let store = Store::Mysql(migrated);
    let next = sale.held(&store, 3, &[3]).await;
    assert!(next.id > held.id && held.id > bought.id);
    store.charge(charge(2, PRICE, START)).await.unwrap();
    let paid = store.pay(pay(2, held.id, START)).await.unwrap().value;
    assert!(paid.id > payment.id);
    assert_clean(&store, START).await;
    store.close().await;
    // A program that still lets the database give ids must not sell any more.
    let older =
        "INSERT INTO payment (reservation_id, user_id, amount, paid_at) VALUES (99, 1, 1, 1)";
    let mut admin = shared().admin(Some(&server.database)).await;
    admin.query_drop("SET sql_mode = 'STRICT_ALL_TABLES'").await.unwrap();
    assert!(admin.query_drop(older).await.is_err(), "an older program can still sell");
    let version = number(&mut admin, "SELECT MAX(version) FROM schema_version").await;
    assert_eq!(version, MysqlStore::SCHEMA_VERSION);
}

/// A user who holds and gives back again and again is looked up as fast as any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_given_back_make_no_hold_dearer() {
    let server = shared().database().await;
    let store = open(&server).await;
    let sale = sale(&store, 2).await;
    let mut admin = shared().admin(Some(&server.database)).await;
    // The sequences are MariaDB's.
    let past = format!(
        "INSERT INTO reservation (id, user_id, concert_id, session_id, items, seat_count, total, \
         created_at, held_until, state) SELECT seq + 1000000, 1, {}, {}, '[[1,1,100]]', 1, 100, \
         seq, seq, 2 FROM seq_1_to_100000",
        sale.concert, sale.session
    );
    admin.query_drop(past).await.unwrap();
    admin.query_drop("ANALYZE TABLE reservation").await.unwrap();
    let read = async |conn: &mut Conn| -> i64 {
        let row: Option<(String, String)> =
            conn.query_first("SHOW GLOBAL STATUS LIKE 'Handler_read_next'").await.unwrap();
        row.unwrap().1.parse().unwrap()
    };
    let before = read(&mut admin).await;
    let held = sale.held(&store, 1, &[0]).await;
    let rows = read(&mut admin).await - before;
    // Other tests use the server as well; 100,000 rows would show among them.
    assert!(rows < 50_000, "a hold has read {rows} rows");
    store.cancel(held.id, user(1), START).await.unwrap();
    store.close().await;
}
