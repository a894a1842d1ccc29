//! An audit that finds nothing proves something only if it would find what is wrong. Each corruption
//! here is planted alone, behind the store's back, and must be found as what it is and nothing else.

use std::collections::BTreeSet;

use crate::common::{fresh, open, raw, try_open};
use crate::conformance::refunds::refund;
use crate::conformance::seating::hall;
use crate::conformance::{
    HOLD_MS, PRICE, START, assert_clean, at, charge, everybody, key, main_queue, pay, planned,
    sale, settings, ticket, user,
};
use boxoffice_backends::Fault;
use boxoffice_backends::store::{Charge, Checkpoint, Pay, SqliteStore, Store};
use boxoffice_domain::invariant::Invariant;
use boxoffice_domain::queue::Step;
use roaring::RoaringTreemap;
use tempfile::TempDir;

/// When the audits run: the last hold is live still, the one before it has run out.
const NOW: i64 = HOLD_MS + 5;

// Ids in the store that `full` makes.
const SESSION_SEATS: i64 = 8;
const BOUGHT: i64 = 1;
const CANCELLED: i64 = 2;
const BOUGHT_TOO: i64 = 3;
const RAN_OUT: i64 = 4;
const HELD: i64 = 5;

/// A closed store with something of everything in it.
async fn full() -> TempDir {
    let (store, directory) = fresh().await;
    let sale = sale(&store, SESSION_SEATS as u32).await;
    let (bought, _) = sale.bought(&store, 1, &[0, 1]).await;
    let cancelled = sale.held(&store, 2, &[2]).await;
    store.cancel(cancelled.id, user(2), at(1)).await.unwrap();
    let (bought_too, _) = sale.bought(&store, 2, &[2]).await;
    let ran_out = sale.held(&store, 3, &[3]).await;
    let held = store.reserve(sale.reserve(3, &[4, 5], at(10))).await.unwrap().value;
    let ids = [bought.id, cancelled.id, bought_too.id, ran_out.id, held.id].map(|id| id.get());
    assert_eq!(ids, [BOUGHT, CANCELLED, BOUGHT_TOO, RAN_OUT, HELD]);
    store.charge(charge(1, 30, at(11))).await.unwrap();
    let points = Charge { idempotency: key("k", 1), ..charge(3, 70, at(12)) };
    store.charge(points).await.unwrap();
    // Some events have left, of each kind but one.
    let some = store.next_events(6).await.unwrap();
    store.mark_published(some).await.unwrap();
    let bought = sale.bought(&store, 4, &[6]).await;
    store.refund(refund(4, &bought, at(13))).await.unwrap();

    store.create_queue(main_queue(), settings()).await.unwrap();
    for (upto, floor) in [(10, 0), (20, 0), (30, 10)] {
        let passed = RoaringTreemap::from_iter([upto - 8]);
        let step = Step { passed, ..everybody(upto, at(upto as i64)) };
        let point = Checkpoint {
            queue: main_queue(),
            next: 50,
            watermark: 60,
            floor,
            step: Some((upto - 10, step)),
            claimed: None,
            over_before: START,
        };
        store.checkpoint(vec![point], at(50)).await.unwrap();
    }
    store.leave_queue(ticket(15), true, at(51)).await.unwrap();
    assert_clean(&store, at(NOW)).await;
    store.close().await;
    directory
}

/// The invariants that an audit finds broken, with their examples.
async fn broken(store: &Store) -> (BTreeSet<Invariant>, Vec<String>) {
    let findings = store.audit(at(NOW)).await.unwrap();
    let bad = findings.into_iter().filter(|finding| finding.violations > 0);
    bad.fold(<(BTreeSet<_>, Vec<_>)>::default(), |(mut codes, mut examples), finding| {
        assert!(!finding.examples.is_empty(), "{finding:?}");
        codes.insert(finding.invariant);
        examples.extend(finding.examples);
        (codes, examples)
    })
}

/// What was planted, the rule that it breaks, and the statements that plant it.
type Plant = (&'static str, Invariant, String);

fn one_owner() -> Vec<Plant> {
    let plant = |what, sql: String| (what, Invariant::OneOwner, sql);
    vec![
        plant("a sold seat is free", "UPDATE seat SET state = 0 WHERE id = 1".into()),
        plant(
            "a sold seat belongs to another",
            format!("UPDATE seat SET reservation_id = {BOUGHT_TOO} WHERE id = 1"),
        ),
        plant(
            "a sold seat belongs to nobody known",
            "UPDATE seat SET reservation_id = 999 WHERE id = 1".into(),
        ),
        plant(
            "a held seat is free before its time",
            "UPDATE seat SET state = 0, reservation_id = NULL, held_until = NULL WHERE id = 5"
                .into(),
        ),
        plant("a held seat is sold", "UPDATE seat SET state = 2 WHERE id = 5".into()),
        plant(
            "a free seat is held by what was cancelled",
            format!(
                "UPDATE seat SET state = 1, reservation_id = {CANCELLED}, held_until = {} \
                 WHERE id = 7",
                at(HOLD_MS).0
            ),
        ),
        plant(
            "a free seat is sold to whoever bought others",
            format!("UPDATE seat SET state = 2, reservation_id = {BOUGHT} WHERE id = 7"),
        ),
        plant(
            "a seat was bought twice",
            format!(
                "UPDATE reservation SET items = (SELECT json_array(json_extract(items, '$[0]')) \
                 FROM reservation WHERE id = {BOUGHT}) WHERE id = {BOUGHT_TOO}"
            ),
        ),
        plant(
            "a seat comes free before its hold ends",
            "UPDATE seat SET held_until = held_until - 1 WHERE id = 5".into(),
        ),
        plant(
            "a seat of another session is sold",
            "INSERT INTO session (id, concert_id, starts_at) VALUES (2, 1, 1); \
             UPDATE seat SET session_id = 2 WHERE id = 1"
                .into(),
        ),
    ]
}

fn points() -> Vec<Plant> {
    let plant = |what, sql: &str| (what, Invariant::PointsConserved, sql.into());
    vec![
        plant("a balance grew", "UPDATE account SET balance = balance + 1 WHERE user_id = 1"),
        plant("a balance shrank", "UPDATE account SET balance = balance - 1 WHERE user_id = 1"),
        plant("a balance came from nothing", "INSERT INTO account VALUES (77, 5)"),
        plant("an account is gone", "DELETE FROM account WHERE user_id = 1"),
        plant(
            "a balance is negative, and so is the sum of its entries",
            "PRAGMA ignore_check_constraints = ON; INSERT INTO account VALUES (77, -5); \
             INSERT INTO points_entry VALUES (77, 77, -5, -5, 0, NULL, 1)",
        ),
        plant(
            "an entry has another amount",
            "UPDATE points_entry SET amount = amount + 1 WHERE kind = 1 AND user_id = 3",
        ),
        plant(
            "an entry tells another balance",
            "UPDATE points_entry SET balance = balance + 1 WHERE kind = 1 AND user_id = 3",
        ),
        plant(
            "a payment took nothing",
            "DELETE FROM points_entry WHERE payment_id = 2; \
             UPDATE account SET balance = balance + 100 WHERE user_id = 2",
        ),
        plant(
            "a payment took from somebody else",
            "UPDATE points_entry SET user_id = 3, balance = 0, amount = 0 WHERE payment_id = 2; \
             UPDATE account SET balance = balance + 100 WHERE user_id = 2",
        ),
        plant(
            "a payment took twice",
            "INSERT INTO points_entry SELECT 77, user_id, 0, balance, kind, payment_id, at \
             FROM points_entry WHERE payment_id = 2",
        ),
        plant(
            "a refund gave nothing",
            "DELETE FROM points_entry WHERE kind = 3; \
             UPDATE account SET balance = balance - 100 WHERE user_id = 4",
        ),
        plant(
            "a refund gave twice",
            "INSERT INTO points_entry SELECT 77, user_id, 0, balance, kind, payment_id, at \
             FROM points_entry WHERE kind = 3",
        ),
        plant(
            "a refund gave somebody else the points",
            "UPDATE points_entry SET user_id = 1, balance = 130 WHERE kind = 3; \
             UPDATE account SET balance = balance - 100 WHERE user_id = 4; \
             UPDATE account SET balance = balance + 100 WHERE user_id = 1",
        ),
        plant(
            "points came back for no payment",
            "INSERT INTO points_entry VALUES (77, 3, 5, 75, 3, 999, 1); \
             UPDATE account SET balance = 75 WHERE user_id = 3",
        ),
        plant(
            "points went for a payment that never was",
            "INSERT INTO points_entry VALUES (77, 3, -70, 0, 2, 999, 1); \
             UPDATE account SET balance = 0 WHERE user_id = 3",
        ),
        plant(
            "points went for no payment",
            "INSERT INTO points_entry VALUES (77, 3, -70, 0, 2, NULL, 1); \
             UPDATE account SET balance = 0 WHERE user_id = 3",
        ),
    ]
}

fn nobody_overtaken() -> Vec<Plant> {
    let plant = |what, sql: &str| (what, Invariant::NobodyOvertaken, sql.into());
    vec![
        plant("the floor is above", "UPDATE queue SET floor = 31"),
        plant("more were admitted than joined", "UPDATE queue SET next = 29"),
        plant("numbers were given past the watermark", "UPDATE queue SET watermark = 49"),
        plant("admission goes back", "UPDATE queue SET serving = 20"),
        plant("admission is ahead of its log", "UPDATE queue SET serving = 31"),
        plant("the end of the log is gone", "DELETE FROM admission WHERE upto = 30"),
        plant("the log is gone", "DELETE FROM admission"),
        plant(
            "somebody came back before their turn",
            "INSERT INTO readmitted VALUES ('main', 31, 1)",
        ),
        plant("somebody came back and waits", "INSERT INTO readmitted VALUES ('main', 12, 1)"),
        plant(
            "somebody was passed over before their turn",
            "UPDATE queue SET serving = 1, floor = 1; DELETE FROM admission",
        ),
        plant(
            "a higher number was admitted first",
            "UPDATE admission SET at = (SELECT MAX(at) + 1 FROM admission) WHERE upto = 20",
        ),
    ]
}

fn one_event() -> Vec<Plant> {
    let plant = |what, sql: &str| (what, Invariant::OneEvent, sql.into());
    vec![
        plant("an event is lost", "DELETE FROM outbox WHERE id = (SELECT MAX(id) FROM outbox)"),
        plant(
            "an event is there twice",
            "INSERT INTO outbox SELECT 777, topic, key, body FROM outbox LIMIT 1",
        ),
        plant(
            "an event is lost and another of its kind is there twice",
            "UPDATE outbox SET body = (SELECT body FROM outbox WHERE topic = 'user.point-charged' \
             ORDER BY id LIMIT 1) WHERE topic = 'user.point-charged'",
        ),
        plant(
            "an event went to another topic",
            "UPDATE outbox SET topic = 'concert.concert-reserved' \
             WHERE id = (SELECT MAX(id) FROM outbox)",
        ),
        plant(
            "an event left uncounted",
            "UPDATE published SET count = count - 1 WHERE topic = 'concert.concert-reserved'",
        ),
        plant(
            "an event was counted twice",
            "UPDATE published SET count = count + 1 WHERE topic = 'concert.payment-completed'",
        ),
    ]
}

fn paid_once() -> Vec<Plant> {
    let plant = |what, sql: String| (what, Invariant::PaidOnce, sql);
    vec![
        plant(
            "the price was another",
            format!("UPDATE reservation SET total = total + 1 WHERE id = {BOUGHT}"),
        ),
        plant(
            "the items cost something else",
            format!(
                "UPDATE reservation SET items = json_set(items, '$[0][2]', {}) WHERE id = {HELD}",
                PRICE + 1
            ),
        ),
        plant(
            "the number of seats is another",
            format!("UPDATE reservation SET seat_count = 3 WHERE id = {HELD}"),
        ),
        plant(
            "the payment is for something else",
            format!(
                "UPDATE payment SET reservation_id = {CANCELLED} \
                 WHERE reservation_id = {BOUGHT_TOO}"
            ),
        ),
        plant(
            "the payment is for nothing known",
            format!("UPDATE payment SET reservation_id = 999 WHERE reservation_id = {BOUGHT}"),
        ),
        plant(
            "the reservation names another payment",
            format!("UPDATE reservation SET payment_id = 2 WHERE id = {BOUGHT}"),
        ),
        plant(
            "the reservation names no payment",
            format!("UPDATE reservation SET payment_id = NULL WHERE id = {BOUGHT}"),
        ),
        plant(
            "a refund is forgotten",
            "UPDATE reservation SET state = 1 WHERE state = 4; \
             UPDATE seat SET state = 2, reservation_id = 6 WHERE id = 7"
                .into(),
        ),
        plant(
            "a refund is of another reservation",
            format!("UPDATE refund SET reservation_id = {BOUGHT}"),
        ),
        plant(
            "what was paid counts as refunded",
            format!(
                "UPDATE reservation SET state = 4 WHERE id = {BOUGHT}; \
                 UPDATE seat SET state = 0 WHERE reservation_id = {BOUGHT}"
            ),
        ),
        plant(
            "somebody else owns what was paid",
            format!("UPDATE reservation SET user_id = 3 WHERE id = {BOUGHT}"),
        ),
    ]
}

fn spent_is_spent() -> Vec<Plant> {
    let plant = |what, sql: &str| (what, Invariant::SpentIsSpent, sql.into());
    vec![
        plant("a ticket that paid is unspent", "DELETE FROM spent_ticket WHERE payment_id = 1"),
        plant(
            "a ticket that paid counts as given up",
            "UPDATE spent_ticket SET payment_id = NULL WHERE payment_id = 1",
        ),
        plant(
            "a payment spent two tickets beside the one that held",
            "INSERT INTO spent_ticket SELECT queue, seq + 500, randomblob(16), payment_id, at \
             FROM spent_ticket WHERE payment_id = 1; \
             INSERT INTO spent_ticket SELECT queue, seq + 600, randomblob(16), payment_id, at \
             FROM spent_ticket WHERE payment_id = 1 LIMIT 1",
        ),
        plant(
            "the ticket that held is good for another purchase",
            "UPDATE reservation SET ticket_id = randomblob(16) WHERE payment_id = 1",
        ),
    ]
}

fn one_chain() -> Vec<Plant> {
    let plant = |what, sql: &str| (what, Invariant::OneChain, sql.into());
    vec![
        plant(
            "a record says something else",
            "UPDATE admission_log SET record = (SELECT record FROM admission_log WHERE step = 1) \
             WHERE step = 2",
        ),
        plant("a record makes no sense", "UPDATE admission_log SET record = X'01' WHERE step = 3"),
        plant("a record is gone", "DELETE FROM admission_log WHERE step = 2"),
        plant("the first record is gone", "DELETE FROM admission_log WHERE step = 0"),
        plant("the last record is gone", "DELETE FROM admission_log WHERE step = 3"),
        plant("the log is gone", "DELETE FROM admission_log"),
        plant(
            "a digest is another",
            "UPDATE admission_log SET digest = randomblob(32) WHERE step = 2",
        ),
        plant("a digest is none", "UPDATE admission_log SET digest = X'00' WHERE step = 2"),
        plant("the end is another", "UPDATE queue SET chain = randomblob(32)"),
        plant("the end is nowhere", "UPDATE queue SET chain = NULL"),
        plant("a step was not counted", "UPDATE queue SET steps = steps - 1"),
        plant(
            "somebody was passed over for nothing",
            "UPDATE queue_passed SET seqs = (SELECT seqs FROM (SELECT X'0000000000000000' AS seqs))",
        ),
    ]
}

async fn expect_each(plants: Vec<Plant>) {
    let base = full().await;
    for (what, invariant, sql) in plants {
        let copy = tempfile::tempdir().unwrap();
        let file = SqliteStore::file(copy.path());
        std::fs::copy(SqliteStore::file(base.path()), file).unwrap();
        let connection = raw(copy.path());
        let before = connection.total_changes();
        connection.execute_batch(&sql).unwrap();
        assert!(connection.total_changes() > before, "{what}: nothing was planted");
        drop(connection);
        let store = open(copy.path());
        let (codes, examples) = broken(&store).await;
        // Where the line stands is in the admission log, too.
        let also = sql.contains("SET serving").then_some(Invariant::OneChain);
        assert_eq!(codes, [invariant].into_iter().chain(also).collect(), "{what}: {examples:?}");
    }
}

#[tokio::test]
async fn i1_two_owners_or_none_are_found() {
    expect_each(one_owner()).await;
}

#[tokio::test]
async fn i2_points_lost_or_made_are_found() {
    expect_each(points()).await;
}

#[tokio::test]
async fn i3_a_line_out_of_order_is_found() {
    expect_each(nobody_overtaken()).await;
}

#[tokio::test]
async fn i6_events_too_few_or_too_many_are_found() {
    expect_each(one_event()).await;
}

#[tokio::test]
async fn i7_a_wrong_payment_is_found() {
    expect_each(paid_once()).await;
}

#[tokio::test]
async fn i8_an_unspent_ticket_is_found() {
    expect_each(spent_is_spent()).await;
}

#[tokio::test]
async fn i10_a_log_that_was_changed_is_found() {
    expect_each(one_chain()).await;
}

/// The file and the memory of the running store are compared: a change of the one alone is found,
/// whether or not the changed file would be right by itself.
#[tokio::test]
async fn i4_a_file_that_differs_from_memory_is_found() {
    let base = full().await;
    let durable = Invariant::AcknowledgedIsDurable;
    for (what, also, sql) in [
        ("a price changed", None, "UPDATE seat SET price = price + 1 WHERE id = 7"),
        ("a seat is gone", None, "DELETE FROM seat WHERE id = 8"),
        ("a seat in the middle is gone", None, "DELETE FROM seat WHERE id = 7"),
        (
            "a seat came",
            None,
            "INSERT INTO seat SELECT 99, session_id, 9, price, 0, NULL, NULL FROM seat WHERE id = 8",
        ),
        (
            "a hold was given back",
            Some(Invariant::OneEvent),
            "UPDATE reservation SET state = 2 WHERE id = 5; UPDATE seat SET state = 0, \
             reservation_id = NULL, held_until = NULL WHERE reservation_id = 5",
        ),
        (
            "a seat is sold to nobody at all",
            Some(Invariant::OneOwner),
            "UPDATE seat SET state = 2, reservation_id = NULL WHERE id = 1",
        ),
        (
            "a seat has a state that is none",
            Some(Invariant::OneOwner),
            "UPDATE seat SET state = 7 WHERE id = 1",
        ),
    ] {
        let copy = tempfile::tempdir().unwrap();
        let file = SqliteStore::file(copy.path());
        std::fs::copy(SqliteStore::file(base.path()), file).unwrap();
        let store = open(copy.path());
        assert_clean(&store, at(NOW)).await;
        raw(copy.path()).execute_batch(sql).unwrap();
        let (codes, examples) = broken(&store).await;
        assert_eq!(codes, [durable].into_iter().chain(also).collect(), "{what}: {examples:?}");
        // An audit is a look, and the store goes on.
        store.charge(charge(9, 1, at(NOW))).await.unwrap();
    }
}

/// The plan of a session is there, is what it was, and has a place for each of its seats.
#[tokio::test]
async fn i4_a_plan_that_is_not_what_it_was_is_found() {
    for (what, sql) in [
        ("it is gone", "DELETE FROM plan"),
        ("it was changed", "UPDATE plan SET body = CAST(replace(body, '\"R\"', '\"Q\"') AS BLOB)"),
        (
            "another is in its place",
            "UPDATE session SET plan = zeroblob(32) WHERE plan IS NOT NULL",
        ),
        ("it is no text", "UPDATE plan SET body = x'ff00'"),
    ] {
        let (store, directory) = fresh().await;
        let other = sale(&store, 1).await;
        planned(&store, other.concert, &hall()).await;
        assert_clean(&store, at(NOW)).await;
        raw(directory.path()).execute_batch(sql).unwrap();
        let (codes, examples) = broken(&store).await;
        assert_eq!(codes, [Invariant::AcknowledgedIsDurable].into(), "{what}: {examples:?}");
        store.close().await;
        drop(store);
        // Nobody is to buy seats whose places nobody knows.
        let fault = try_open(directory.path()).err().unwrap();
        assert!(matches!(fault, Fault::Corrupt(_)), "{what}: {fault:?}");
    }
    let (store, directory) = fresh().await;
    let other = sale(&store, 1).await;
    let sale = planned(&store, other.concert, &hall()).await;
    let last = sale.seats.last().unwrap();
    raw(directory.path()).execute("DELETE FROM seat WHERE id = ?1", [last.get()]).unwrap();
    let (codes, examples) = broken(&store).await;
    assert_eq!(codes, [Invariant::AcknowledgedIsDurable].into());
    assert!(examples.iter().any(|text| text.contains("its plan has 50 places")), "{examples:?}");
}

/// Counting what was looked at tells an audit of nothing from one that found nothing.
#[tokio::test]
async fn an_audit_tells_how_much_it_looked_at() {
    let (store, _guard) = fresh().await;
    for finding in store.audit(START).await.unwrap() {
        // The events of nothing are compared with nothing, topic by topic.
        let topics = if finding.invariant == Invariant::OneEvent { 5 } else { 0 };
        assert_eq!(finding.checked, topics, "{finding:?}");
    }
    let base = full().await;
    let store = open(base.path());
    let findings = store.audit(at(NOW)).await.unwrap();
    assert!(findings.iter().all(|finding| finding.checked > 0), "{findings:?}");
    let seats = findings.iter().find(|f| f.invariant == Invariant::AcknowledgedIsDurable);
    assert_eq!(seats.unwrap().checked, 1 + SESSION_SEATS as u64);
}

/// Sessions are audited one after another in the writer, beside sales that go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_during_a_sale_finds_nothing() {
    let (store, _guard) = fresh().await;
    let sale = sale(&store, 60).await;
    let buyers: Vec<_> = (0..60)
        .map(|n: usize| {
            let (store, sale) = (store.clone(), sale.clone());
            tokio::spawn(async move {
                let by = n as i64 + 1;
                let held = sale.held(&store, by, &[n]).await;
                store.charge(charge(by, PRICE, START)).await.unwrap();
                let request = Pay { ticket: ticket(by as u64), ..pay(by, held.id, START) };
                store.pay(request).await.unwrap();
            })
        })
        .collect();
    let mut audits = 0;
    while audits < 5 || buyers.iter().any(|buyer| !buyer.is_finished()) {
        assert_clean(&store, START).await;
        audits += 1;
    }
    for buyer in buyers {
        buyer.await.unwrap();
    }
    assert_clean(&store, START).await;
}
