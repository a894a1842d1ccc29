//! Several instances on one database.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conformance::seating::best;
use crate::conformance::{
    HOLD_MS, PRICE, START, Sale, assert_clean, at, at_once, charge, count_events, key, limits, pay,
    sale, session_of, ticket, user,
};
use boxoffice_backends::store::{
    Act, ConcertChange, MysqlOptions, MysqlServer, NewSeats, Note, Pay, ReservationRejected,
    Reserve, ReserveRejected, Role, Seating, Store, StoredPlan,
};
use boxoffice_backends::{Error, Fault};
use boxoffice_domain::ids::SeatId;
use boxoffice_domain::invariant::Invariant;
use boxoffice_domain::sales::{HoldRejected, Limits, ReservationState, SeatState, SettleRejected};
use boxoffice_domain::seating::{Plan, hall as seating_hall};
use mysql_async::prelude::Queryable;

use super::server::{open, options, shared, try_open};

/// So many instances on an empty database.
async fn instances(count: usize) -> (Vec<Store>, MysqlServer) {
    let server = shared().database().await;
    let mut stores = Vec::new();
    for _ in 0..count {
        stores.push(open(&server).await);
    }
    (stores, server)
}

/// Waits until something shows; returns how long that took.
async fn shows(mut what: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not show");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

async fn known(store: &Store, sale: &Sale) {
    shows(|| store.catalog().inventory(sale.concert, sale.session).is_some()).await;
}

async fn close(stores: Vec<Store>) {
    for store in stores {
        store.close().await;
    }
}

/// What is corrected or removed at one instance is so at the others a moment later; what they have just
/// made themselves does not go meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrections_and_removals_show_at_every_instance() {
    let (stores, _server) = instances(2).await;
    let [a, b] = &stores[..] else { panic!("two") };
    let sale = sale(a, 2).await;
    let other = session_of(a, sale.concert, 1).await;
    known(b, &other).await;
    let note = |operation| Note {
        at: at(1),
        who: "ada".into(),
        role: Role::Admin,
        origin: "here".into(),
        operation,
        reason: None,
        key: None,
        answer: std::sync::Arc::new(|_| String::new()),
    };
    let change = ConcertChange {
        name: Some("Another".into()),
        closes_at: Some(at(70)),
        ..ConcertChange::default()
    };
    a.act(Act::ChangeConcert(sale.concert, change), note("a")).await.unwrap();
    a.act(Act::ChangeSession(sale.concert, sale.session, at(60)), note("b")).await.unwrap();
    let took = shows(|| {
        let catalog = b.catalog();
        let concert = catalog.concert(sale.concert).unwrap();
        let session = catalog.inventory_of(sale.session).unwrap().session();
        (concert.name.as_str(), concert.closes_at, session.starts_at) == ("Another", at(70), at(60))
    })
    .await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    a.act(Act::RemoveSession(sale.concert, other.session), note("c")).await.unwrap();
    shows(|| b.catalog().inventory_of(other.session).is_none()).await;
    a.act(Act::RemoveConcert(sale.concert), note("d")).await.unwrap();
    // Sessions come and stay while that is found out.
    for _ in 0..40 {
        let fresh = crate::conformance::sale(b, 1).await;
        assert!(b.catalog().inventory_of(fresh.session).is_some());
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(b.catalog().inventory_of(fresh.session).is_some(), "it went");
    }
    shows(|| b.catalog().concert(sale.concert).is_none()).await;
    assert!(b.catalog().inventory_of(sale.session).is_none());
    let log = b.log(i64::MAX, 10).await.unwrap();
    assert_eq!(log.len(), 4);
    assert_clean(b, START).await;
    close(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_start_at_once_agree() {
    let server = shared().database().await;
    let opened = at_once((0..4).map(|_| try_open(options(&server)))).await;
    let stores: Vec<Store> = opened.into_iter().map(Result::unwrap).collect();
    let values = at_once(stores.iter().cloned().enumerate().map(|(n, store)| async move {
        store.setting("key", Some(format!("value {n}"))).await.unwrap()
    }))
    .await;
    assert!(values.windows(2).all(|two| two[0] == two[1]), "{values:?}");
    // And fill it with demo data once.
    let concert = crate::conformance::concert();
    let seed = boxoffice_backends::store::Seed {
        users: 1..=1_500,
        points: 7,
        concerts: vec![(
            concert,
            vec![(at(1_000), NewSeats { count: 2_500, price: PRICE }.into())],
        )],
    };
    for filled in at_once(stores.iter().cloned().map(|store| {
        let seed = seed.clone();
        async move { store.seed(seed, START).await }
    }))
    .await
    {
        filled.unwrap();
    }
    for store in &stores {
        shows(|| store.catalog().concerts().count() == 1).await;
        assert_eq!(store.balance(user(1_500)).await, Ok(7));
    }
    assert_clean(&stores[3], START).await;
    close(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_buyers_of_one_seat_over_three_instances() {
    let (stores, _) = instances(3).await;
    let sale = sale(&stores[0], 1).await;
    for store in &stores {
        known(store, &sale).await;
    }
    let answers = at_once((1..=500).map(|by| {
        let (store, request) = (stores[by as usize % 3].clone(), sale.reserve(by, &[0], START));
        async move { store.reserve(request).await }
    }))
    .await;
    let taken = Err(Error::Rejected(ReserveRejected::Hold(HoldRejected::SeatTaken(sale.seats[0]))));
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(answers.iter().filter(|answer| **answer == taken).count(), 499);
    assert_eq!(count_events(&stores[1], "concert.concert-reserved").await, 1);
    for store in &stores {
        shows(|| sale.owner(store, 0) != SeatState::Available).await;
        assert_clean(store, START).await;
    }
    close(stores).await;
}

/// Who comes late for a seat waits for nobody, with a key or without, and wherever it was taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_tells_those_who_come_next() {
    let (stores, server) = instances(2).await;
    let sale = sale(&stores[0], 1).await;
    known(&stores[1], &sale).await;
    let taken = Err(Error::Rejected(ReserveRejected::Hold(HoldRejected::SeatTaken(sale.seats[0]))));
    let keyed = |by: i64, fingerprint| Reserve {
        idempotency: key("rush", fingerprint),
        ..sale.reserve(by, &[0], START)
    };
    let first = stores[0].reserve(keyed(1, 1)).await.unwrap();
    // The first one there finds it out under the lock of the seat, and says so.
    assert_eq!(stores[1].reserve(keyed(2, 2)).await, taken);
    assert_ne!(sale.owner(&stores[1], 0), SeatState::Available);
    // From then on nobody needs that lock; whoever did would be told to come back later.
    let mut admin = shared().admin(Some(&server.database)).await;
    admin.query_drop("START TRANSACTION").await.unwrap();
    admin.query_drop("SELECT * FROM seat FOR UPDATE").await.unwrap();
    for store in &stores {
        assert_eq!(store.reserve(keyed(2, 2)).await, taken);
        assert_eq!(store.reserve(sale.reserve(3, &[0], START)).await, taken);
        let over = store.reserve(Reserve { ticket_over: true, ..keyed(1, 1) });
        assert_eq!(over.await.unwrap().value, first.value);
    }
    // A key that stands for something else is told so, whoever has the seat.
    let reused = Err(Error::Rejected(ReserveRejected::KeyReused));
    assert_eq!(stores[1].reserve(keyed(1, 9)).await, reused);
    admin.query_drop("ROLLBACK").await.unwrap();
    // Given back elsewhere, it is to be had at once.
    stores[0].cancel(first.value.id, user(1), START).await.unwrap();
    stores[1].reserve(keyed(2, 2)).await.unwrap();
    assert_clean(&stores[1], START).await;
    close(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_no_more_seats_than_allowed_over_two_instances() {
    let (stores, _) = instances(2).await;
    let sale = sale(&stores[0], 40).await;
    known(&stores[1], &sale).await;
    for by in 1..=4 {
        let answers = at_once((0..10).map(|n: usize| {
            let request = sale.reserve(by, &[(by as usize - 1) * 10 + n], START);
            let store = stores[n % 2].clone();
            async move { store.reserve(request).await }
        }))
        .await;
        let got = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(got, limits().seats_per_user_max as usize);
    }
    assert_clean(&stores[0], START).await;
    close(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_is_paid_once_over_two_instances() {
    let (stores, _) = instances(2).await;
    let sale = sale(&stores[0], 12).await;
    known(&stores[1], &sale).await;
    for n in 0..6 {
        let by = n as i64 + 1;
        let held = sale.held(&stores[n % 2], by, &[n]).await;
        let other = sale.held(&stores[1 - n % 2], by, &[6 + n]).await;
        stores[0].charge(charge(by, 5 * PRICE, START)).await.unwrap();
        // Twice the same with two tickets, and another hold with one of them.
        let requests = [
            pay(by, held.id, at(1)),
            Pay { ticket: ticket(100 + by as u64), ..pay(by, held.id, at(1)) },
            pay(by, other.id, at(1)),
        ];
        let answers = at_once(requests.into_iter().enumerate().map(|(m, request)| {
            let store = stores[m % 2].clone();
            async move { store.pay(request).await }
        }))
        .await;
        let of_first = answers[..2].iter().filter(|answer| answer.is_ok()).count();
        let with_first = [0, 2].iter().filter(|m| answers[**m].is_ok()).count();
        assert!(of_first <= 1 && with_first <= 1 && of_first + with_first > 0, "{answers:?}");
    }
    assert_clean(&stores[0], at(1)).await;
    assert_clean(&stores[1], at(1)).await;
    close(stores).await;
}

/// The clock of one instance is behind, and its request comes after another has taken the seat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_clock_does_not_bring_a_hold_back() {
    let (stores, _) = instances(2).await;
    let (slow, fast) = (&stores[0], &stores[1]);
    let sale = sale(slow, 3).await;
    known(fast, &sale).await;
    let first = sale.held(slow, 1, &[0, 1]).await;
    let second = fast.reserve(sale.reserve(2, &[1], at(HOLD_MS))).await.unwrap().value;
    slow.charge(charge(1, 2 * PRICE, START)).await.unwrap();
    let late = Err(Error::Rejected(ReservationRejected::Settle(SettleRejected::Expired)));
    assert_eq!(slow.pay(pay(1, first.id, at(HOLD_MS - 5))).await.map(|_| ()), late);
    assert_eq!(slow.cancel(first.id, user(1), at(HOLD_MS - 5)).await, late);
    assert_eq!(slow.balance(user(1)).await, Ok(2 * PRICE));
    fast.charge(charge(2, PRICE, at(HOLD_MS))).await.unwrap();
    fast.pay(pay(2, second.id, at(HOLD_MS + 1))).await.unwrap();
    assert_eq!(slow.pay(pay(1, first.id, at(HOLD_MS - 4))).await.map(|_| ()), late);
    assert_eq!(fast.expire_due(at(HOLD_MS + 1), 10).await, Ok(1));
    shows(|| sale.owner(slow, 1) == SeatState::Sold { reservation: second.id }).await;
    shows(|| sale.owner(slow, 0) == SeatState::Available).await;
    assert_clean(slow, at(HOLD_MS + 1)).await;
    close(stores).await;
}

/// A request that has waited for the database is decided by when it was asked, so a hold may seem to begin before the
/// end of the one before it, which another instance has ended meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_waited_is_decided_by_when_it_was_asked() {
    let (stores, _) = instances(2).await;
    let (quick, waits) = (&stores[0], &stores[1]);
    let sale = sale(quick, 1).await;
    known(waits, &sale).await;
    let asked = at(HOLD_MS - 1_000);
    let first = sale.held(quick, 1, &[0]).await;
    assert_eq!(first.state, ReservationState::Held { until: at(HOLD_MS) });
    // Until it has ended the seat is taken.
    assert!(waits.reserve(sale.reserve(2, &[0], asked)).await.is_err());
    assert_eq!(quick.expire_due(at(HOLD_MS), 10).await, Ok(1));
    shows(|| sale.owner(waits, 0) == SeatState::Available).await;
    let second = waits.reserve(sale.reserve(2, &[0], asked)).await.unwrap().value;
    assert_eq!(second.created_at, asked);
    // And told so: it lasts as long as ever from then on.
    assert_eq!(second.state, ReservationState::Held { until: at(2 * HOLD_MS - 1_000) });
    assert_clean(quick, at(HOLD_MS)).await;
    close(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweeps_and_payments_of_several_instances_end_each_hold_once() {
    const HOLDS: usize = 60;
    let (stores, _) = instances(3).await;
    let sale = sale(&stores[0], HOLDS as u32).await;
    for store in &stores {
        known(store, &sale).await;
    }
    let mut held = Vec::new();
    for n in 0..HOLDS {
        held.push(sale.held(&stores[n % 3], n as i64 + 1, &[n]).await);
        stores[0].charge(charge(n as i64 + 1, PRICE, START)).await.unwrap();
    }
    let payments = held.iter().enumerate().map(|(n, held)| {
        let (store, request) =
            (stores[n % 2].clone(), pay(held.user.get(), held.id, at(HOLD_MS - 1)));
        tokio::spawn(async move { store.pay(request).await })
    });
    let payments: Vec<_> = payments.collect();
    let sweeps = at_once((0..12).map(|n| {
        let store = stores[1 + n % 2].clone();
        async move { store.expire_due(at(HOLD_MS), 7).await.unwrap() as usize }
    }))
    .await;
    let mut paid = 0;
    for payment in payments {
        match payment.await.unwrap() {
            Ok(_) => paid += 1,
            Err(Error::Rejected(ReservationRejected::Settle(SettleRejected::Expired))) => {}
            Err(other) => panic!("{other}"),
        }
    }
    let rest = stores[0].expire_due(at(HOLD_MS), 1_000).await.unwrap() as usize;
    assert_eq!(paid + sweeps.iter().sum::<usize>() + rest, HOLDS);
    assert_eq!(count_events(&stores[0], "concert.reservation-cancelled").await, HOLDS - paid);
    assert_clean(&stores[2], at(HOLD_MS)).await;
    close(stores).await;
}

/// A seat that was given back through one instance can be had through another at once, whatever
/// that one remembers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seat_given_back_is_to_be_had_everywhere_at_once() {
    let (stores, _) = instances(2).await;
    let sale = sale(&stores[0], 1).await;
    known(&stores[1], &sale).await;
    for round in 0..20 {
        let now = at(round);
        let store = &stores[round as usize % 2];
        let held = store.reserve(sale.reserve(1, &[0], now)).await.unwrap().value;
        let other = &stores[(round as usize + 1) % 2];
        let inventory = other.catalog().inventory(sale.concert, sale.session).unwrap().clone();
        // Nothing that may have changed is held against a buyer.
        let seats_for_refusal = other.seats_for_refusal(&inventory, &[sale.seats[0]]).unwrap();
        assert_eq!(seats_for_refusal[0].unwrap().state, SeatState::Available);
        assert!(other.reserve(sale.reserve(2, &[0], now)).await.is_err());
        other.cancel(held.id, user(1), now).await.unwrap();
    }
    assert_clean(&stores[0], at(20)).await;
    close(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_do_shows_within_the_time_that_is_promised() {
    let (stores, _) = instances(2).await;
    let (here, there) = (&stores[0], &stores[1]);
    let sale = sale(there, 5).await;
    // Half of what the documents say would do; the machine may be busy.
    let began = Instant::now();
    known(here, &sale).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let inventory = here.catalog().inventory(sale.concert, sale.session).unwrap().clone();
    let held = sale.held(there, 1, &[0, 1]).await;
    let took = shows(|| inventory.available(START) == 3).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(sale.owner(here, 0), SeatState::Held { reservation: held.id, until: at(HOLD_MS) });
    // Nothing changes nothing, however often it is looked at.
    let version = inventory.version();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(inventory.version(), version);
    }
    there.cancel(held.id, user(1), at(1)).await.unwrap();
    shows(|| inventory.available(START) == 5).await;
    assert!(inventory.version() > version);
    // More seats, another session, another concert.
    let more = NewSeats { count: 2, price: 9 };
    there.add_seats(sale.concert, sale.session, more).await.unwrap().unwrap();
    shows(|| inventory.total() == 7).await;
    let second = session_of(there, sale.concert, 1).await;
    known(here, &second).await;
    assert_eq!(here.catalog().inventories(sale.concert).len(), 2);
    here.add_seats(sale.concert, sale.session, more).await.unwrap().unwrap();
    let numbers: Vec<u32> = inventory.snapshot().1.iter().map(|seat| seat.number).collect();
    assert_eq!(numbers, (1..=9).collect::<Vec<_>>());
    assert_clean(here, at(1)).await;
    close(stores).await;
}

/// A sale that others saw before it was on the disk can be lost with a crash, and so can one with a
/// failover. The seat is for sale again everywhere, without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_a_crash_took_back_does_not_stay_in_memory() {
    let (stores, server) = instances(2).await;
    let (here, there) = (&stores[0], &stores[1]);
    let sale = sale(there, 2).await;
    known(here, &sale).await;
    let inventory = here.catalog().inventory(sale.concert, sale.session).unwrap().clone();
    let (held, _) = sale.bought(there, 1, &[0]).await;
    shows(|| inventory.available(START) == 1).await;
    let mut console = shared().admin(Some(&server.database)).await;
    for lost in [
        format!("UPDATE seat SET state = 0 WHERE id = {}", sale.seats[0]),
        format!("DELETE FROM payment WHERE reservation_id = {}", held.id),
    ] {
        console.query_drop(lost).await.unwrap();
    }
    shows(|| inventory.available(START) == 2).await;
    here.reserve(sale.reserve(2, &[0], START)).await.unwrap();
    close(stores).await;
}

/// Two relays at once: nothing twice, nothing lost, and the events of one key in their order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_share_the_events_and_keep_the_order_of_each_key() {
    const USERS: i64 = 24;
    const CHARGES: i64 = 20;
    let (stores, _) = instances(3).await;
    let relays: Vec<_> = stores[..2]
        .iter()
        .cloned()
        .map(|store| {
            tokio::spawn(async move {
                let mut got: Vec<(Instant, i64, String)> = Vec::new();
                let mut idle = 0;
                while idle < 40 {
                    let taken = store.next_events(17).await.unwrap();
                    idle = if taken.rows.is_empty() { idle + 1 } else { 0 };
                    // Some are given up half-way, as when the sink fails.
                    if taken.rows.first().is_some_and(|row| row.id % 5 == 0) && idle == 0 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        if got.len().is_multiple_of(2) {
                            drop(taken);
                            got.push((Instant::now(), 0, String::new()));
                            continue;
                        }
                    }
                    let now = Instant::now();
                    let rows = taken.rows.clone();
                    store.mark_published(taken).await.unwrap();
                    got.extend(rows.into_iter().map(|row| (now, row.key, row.body)));
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                got
            })
        })
        .collect();
    at_once((1..=USERS).map(|by| {
        let store = stores[2].clone();
        async move {
            for n in 0..CHARGES {
                store.charge(charge(by, 1, at(n))).await.unwrap();
            }
        }
    }))
    .await;
    let mut all = Vec::new();
    for relay in relays {
        all.extend(relay.await.unwrap().into_iter().filter(|(_, key, _)| *key > 0));
    }
    assert_eq!(all.len(), (USERS * CHARGES) as usize);
    all.sort_by_key(|(at, _, _)| *at);
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    for (_, key, body) in all {
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let balance = body["data"]["totalAmount"].as_i64().unwrap();
        assert_eq!(balance, last.insert(key, balance).unwrap_or(0) + 1, "of user {key}");
    }
    assert_clean(&stores[0], at(CHARGES)).await;
    close(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_queue_of_its_own_an_instance_is_the_only_one() {
    let server = shared().database().await;
    let alone = || MysqlOptions { exclusive: true, ..options(&server) };
    let first = try_open(alone()).await.unwrap();
    let sale = sale(&first, 2).await;
    let Err(Fault::Unavailable(text)) = try_open(alone()).await else { panic!("it opened") };
    assert!(text.contains("another instance uses the database"), "{text}");
    assert!(text.contains("queue.kind"), "{text}");
    // Whoever only looks may.
    let looking = open(&server).await;
    assert_clean(&looking, START).await;
    looking.close().await;

    // The lock is lost with its connection, and somebody else is faster: nothing is written.
    let mut admin = shared().admin(None).await;
    let name = format!("boxoffice.instance.{}", server.database);
    let holder: Option<Option<i64>> =
        admin.exec_first("SELECT IS_USED_LOCK(?)", (&name,)).await.unwrap();
    let holder = holder.flatten().unwrap();
    let mut thief = shared().admin(None).await;
    let stealing = tokio::spawn({
        let name = name.clone();
        async move {
            let got: Option<i64> =
                thief.exec_first("SELECT GET_LOCK(?, 10)", (&name,)).await.unwrap();
            assert_eq!(got, Some(1));
            thief
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    admin.query_drop(format!("KILL {holder}")).await.unwrap();
    let thief = stealing.await.unwrap();
    let began = Instant::now();
    loop {
        match first.charge(charge(1, 1, START)).await {
            Ok(_) => assert!(began.elapsed() < Duration::from_secs(10), "it goes on writing"),
            Err(Error::Fault(Fault::Unavailable(_))) => break,
            Err(other) => panic!("{other}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    thief.disconnect().await.unwrap();
    let began = Instant::now();
    while first.charge(charge(1, 1, START)).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "it does not take the lock again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.reserve(sale.reserve(1, &[0], START)).await.unwrap();
    first.close().await;
    try_open(alone()).await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_away_is_done_without() {
    let server = shared().database().await;
    let away = MysqlServer { port: 1, ..server.clone() };
    let with = |replica| MysqlOptions { replica: Some(replica), ..options(&server) };
    let there = open(&server).await;
    let sale = sale(&there, 2).await;
    for replica in [away, server.clone()] {
        let here = try_open(with(replica)).await.unwrap();
        let held = sale.held(&there, 1, &[0]).await;
        shows(|| sale.owner(&here, 0) != SeatState::Available).await;
        there.cancel(held.id, user(1), START).await.unwrap();
        shows(|| sale.owner(&here, 0) == SeatState::Available).await;
        // What was committed here is not taken back by a replica that may be behind.
        let own = sale.held(&here, 2, &[1]).await;
        let until = match own.state {
            ReservationState::Held { until } => until,
            other => panic!("{other:?}"),
        };
        for _ in 0..60 {
            let held = SeatState::Held { reservation: own.id, until };
            assert_eq!(sale.owner(&here, 1), held);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Another instance gives the seat back, and the replica may not have that for long: it shows as it was,
        // which an audit does not take for a loss.
        there.cancel(own.id, user(2), START).await.unwrap();
        shows(|| sale.owner(&there, 1) == SeatState::Available).await;
        assert_ne!(sale.owner(&here, 1), SeatState::Available);
        assert_clean(&here, START).await;
        here.close().await;
    }
    there.close().await;
}

/// Instances that choose the best seats at once sell a hall out to its last seat, and share none. They know its
/// plan, wherever the session was made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_best_at_two_instances_sell_out_to_the_last_seat() {
    let (stores, server) = instances(2).await;
    let first = sale(&stores[0], 1).await;
    let big = Arc::new(StoredPlan::new(Plan::new(seating_hall("Hall", 400)).unwrap()).unwrap());
    let prices = vec![PRICE; big.plan().grades().len()];
    let seating = Seating::planned(big.clone(), &prices).unwrap();
    let made = stores[0].create_session(first.concert, at(80_000_000), seating).await.unwrap();
    let (session, added) = made.unwrap();
    let ids = added[0].first.get()..added[0].first.get() + 400;
    let seats = ids.map(|id| SeatId::new(id).unwrap()).collect();
    let hall = Sale { concert: first.concert, session, seats };
    known(&stores[1], &hall).await;
    let catalog = stores[1].catalog();
    let inventory = catalog.inventory(hall.concert, hall.session).unwrap();
    assert_eq!(inventory.plan().unwrap().digest(), big.digest());
    let answers = at_once((1..=240).map(|by: i64| {
        let (store, request) = (stores[by as usize % 2].clone(), best(&hall, by, 2));
        async move { store.reserve(request).await }
    }))
    .await;
    let mut seats = HashSet::new();
    let (mut lost, mut held) = (0, Vec::new());
    for answer in answers {
        match answer {
            Ok(answer) => {
                assert!(answer.value.items.iter().all(|item| seats.insert(item.seat)));
                held.push(answer.value);
            }
            Err(Error::Rejected(ReserveRejected::Hold(
                HoldRejected::NotEnoughSeats { .. } | HoldRejected::NotTogether,
            ))) => lost += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(held.len() + lost, 240);
    // What is left are single seats at the ends of rows, of which one goes to each.
    let left = 400 - seats.len();
    let answers = at_once((241..=240 + left as i64 + 3).map(|by: i64| {
        let (store, request) = (stores[by as usize % 2].clone(), best(&hall, by, 1));
        async move { store.reserve(request).await }
    }))
    .await;
    for answer in answers {
        match answer {
            Ok(answer) => {
                assert!(answer.value.items.iter().all(|item| seats.insert(item.seat)));
                held.push(answer.value);
            }
            Err(error) => assert_eq!(
                error,
                Error::Rejected(ReserveRejected::Hold(HoldRejected::NotEnoughSeats { free: 0 }))
            ),
        }
    }
    assert_eq!(seats.len(), 400);
    // Given back at the one, they are to be had at the other in a moment.
    let back = held.pop().unwrap();
    stores[0].cancel(back.id, back.user, START).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(2);
    let again = loop {
        match stores[1].reserve(best(&hall, 900, 1)).await {
            Ok(answer) => break answer.value,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(back.items.iter().any(|item| item.seat == again.items[0].seat));
    assert_clean(&stores[0], START).await;
    // An audit sees where the plan is not what it was.
    let mut admin = shared().admin(Some(&server.database)).await;
    admin.query_drop("UPDATE plan SET body = CONCAT(body, ' ')").await.unwrap();
    let findings = stores[1].audit(START).await.unwrap();
    let bad: Vec<_> = findings.iter().filter(|finding| finding.violations > 0).collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!(bad[0].invariant, Invariant::AcknowledgedIsDurable);
    close(stores).await;
}

/// Two instances, at each of which one hold leaves no single seat: together they do not, either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_seat_is_left_by_two_instances() {
    let (stores, _) = instances(2).await;
    let first = sale(&stores[0], 1).await;
    let strict = Limits { no_orphans: true, ..limits() };
    for round in 0..20_i64 {
        let sale = session_of(&stores[0], first.concert, 12).await;
        known(&stores[1], &sale).await;
        let hold =
            |by, seats: &[usize]| Reserve { limits: strict, ..sale.reserve(by, seats, START) };
        let requests = [hold(10 * round + 1, &[0, 1]), hold(10 * round + 2, &[3, 4])];
        let answers = at_once(requests.into_iter().zip(&stores).map(|(request, store)| {
            let store = store.clone();
            async move { store.reserve(request).await.map(|answer| answer.value.items.len()) }
        }))
        .await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        let refused = answers.into_iter().find_map(Result::err).unwrap();
        let single = HoldRejected::LeavesSinglePlace { number: 3 };
        assert_eq!(refused, Error::Rejected(ReserveRejected::Hold(single)));
    }
    assert_clean(&stores[1], START).await;
    close(stores).await;
}
