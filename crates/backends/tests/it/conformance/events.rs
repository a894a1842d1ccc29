//! The outbox: one event for each effect, in order, until it was published.

use std::collections::BTreeSet;

use boxoffice_domain::event::Topic;
use boxoffice_domain::time::Timestamp;
use serde_json::{Value, json};

use super::{
    HOLD_MS, PRICE, START, Subject, assert_clean, at, charge, mark_rows, pay, sale, user,
    waiting_rows,
};
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::OutboxRow;

/// Rows come oldest first and no more than asked for; those marked are gone, the others stay.
pub(crate) async fn the_outbox_keeps_the_order_and_forgets_what_was_published(subject: Subject) {
    let store = &subject.store;
    assert_eq!(waiting_rows(store, 10).await, []);
    assert_eq!(store.last_event().await, Ok(0));
    for n in 1..=6 {
        store.charge(charge(n, n, START)).await.unwrap();
    }
    let all = waiting_rows(store, 100).await;
    assert_eq!(all.iter().map(|row| row.key).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert!(all.windows(2).all(|rows| rows[0].id < rows[1].id), "{all:?}");
    assert_eq!(waiting_rows(store, 2).await, all[..2]);
    // Taking marks nothing: whoever took them may have failed.
    assert_eq!(waiting_rows(store, 100).await, all);

    // Not in order, and not from the beginning: a relay may have several on their way.
    assert_eq!(store.last_event().await, Ok(all[5].id));
    mark_rows(store, &[all[3].clone(), all[1].clone()]).await;
    let left: Vec<OutboxRow> = [0, 2, 4, 5].map(|index| all[index].clone()).into();
    assert_eq!(waiting_rows(store, 100).await, left);
    assert_clean(store, START).await;

    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(waiting_rows(store, 100).await, left);
    mark_rows(store, &left).await;
    assert_eq!(waiting_rows(store, 100).await, []);
    assert_eq!(store.last_event().await, Ok(all[5].id));
    assert_clean(store, START).await;
}

/// Whoever takes events and fails leaves them to the next, in the same order; whoever has them
/// keeps others from publishing them meanwhile only for as long.
pub(crate) async fn what_was_taken_and_dropped_is_there_again(Subject { store, .. }: Subject) {
    for n in 1..=40 {
        store.charge(charge(n, n, START)).await.unwrap();
    }
    let taken = store.next_events(100).await.unwrap();
    let rows = taken.rows.clone();
    assert_eq!(rows.len(), 40);
    // What happens meanwhile is for the next time.
    store.charge(charge(41, 1, START)).await.unwrap();
    drop(taken);
    let taken = store.next_events(40).await.unwrap();
    assert_eq!(taken.rows, rows);
    store.mark_published(taken).await.unwrap();
    assert_eq!(waiting_rows(&store, 100).await.iter().map(|row| row.key).collect::<Vec<_>>(), [41]);
    assert_clean(&store, START).await;
}

/// Each effect has one event with its topic, its key, an id made of the effect's own, and its data.
pub(crate) async fn events_say_what_happened(Subject { store, .. }: Subject) {
    let sale = sale(&store, 4).await;
    let (first, second) = (sale.held(&store, 1, &[0, 1]).await, sale.held(&store, 2, &[2]).await);
    let third = sale.held(&store, 3, &[3]).await;
    store.charge(charge(1, 250, at(1))).await.unwrap();
    let payment = store.pay(pay(1, first.id, at(2))).await.unwrap().value;
    store.cancel(second.id, user(2), at(3)).await.unwrap();
    store.expire_due(at(HOLD_MS), 10).await.unwrap();

    let rows = waiting_rows(&store, 100).await;
    let kinds: Vec<_> = rows.iter().map(|row| (row.topic.as_str(), row.key)).collect();
    let (first, second, third) = (first.id.get(), second.id.get(), third.id.get());
    assert_eq!(
        kinds,
        [
            (Topic::ConcertReserved.name(), first),
            (Topic::ConcertReserved.name(), second),
            (Topic::ConcertReserved.name(), third),
            (Topic::PointCharged.name(), 1),
            (Topic::PaymentCompleted.name(), first),
            (Topic::ReservationCancelled.name(), second),
            (Topic::ReservationCancelled.name(), third),
        ]
    );
    let bodies: Vec<Value> =
        rows.iter().map(|row| serde_json::from_str(&row.body).unwrap()).collect();
    for (row, body) in rows.iter().zip(&bodies) {
        assert_eq!(body["specversion"], "1.0");
        assert_eq!(body["type"], json!(row.topic));
        assert_eq!(body["subject"], json!(row.key.to_string()));
    }
    let ids: BTreeSet<&str> = bodies.iter().map(|body| body["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), bodies.len(), "{ids:?}");
    let time = |index: usize, expected: Timestamp| {
        assert_eq!(bodies[index]["time"], json!(rfc3339(expected)), "event {index}");
    };
    time(0, START);
    time(4, at(2));
    time(6, at(HOLD_MS));
    let data = |index: usize| &bodies[index]["data"];
    assert_eq!(
        *data(0),
        json!({
            "reservationId": first, "userId": 1, "concertId": sale.concert.get(),
            "sessionId": sale.session.get(), "totalPrice": 2 * PRICE,
            "seatIds": [sale.seats[0].get(), sale.seats[1].get()],
            "expiresAt": rfc3339(at(HOLD_MS)),
        })
    );
    assert_eq!(data(3)["amount"], 250);
    assert_eq!(data(3)["totalAmount"], 250);
    assert_eq!(
        *data(4),
        json!({
            "paymentId": payment.id.get(), "reservationId": first, "userId": 1,
            "paymentAmount": 2 * PRICE,
        })
    );
    let ended = |id, user, reason| json!({"reservationId": id, "userId": user, "reason": reason});
    assert_eq!(*data(5), ended(second, 2, "CANCELLED"));
    assert_eq!(*data(6), ended(third, 3, "EXPIRED"));
    assert_clean(&store, at(HOLD_MS)).await;
}

/// Marking the same event twice, or one that never was, leaves the books right.
pub(crate) async fn marking_twice_or_for_nothing_counts_nothing(Subject { store, .. }: Subject) {
    for n in 1..=3 {
        store.charge(charge(n, n, START)).await.unwrap();
    }
    let rows = waiting_rows(&store, 2).await;
    mark_rows(&store, &[]).await;
    mark_rows(&store, &rows).await;
    mark_rows(&store, &rows).await;
    let nothing = OutboxRow { id: 999_999, ..rows[0].clone() };
    mark_rows(&store, &[rows[0].clone(), rows[0].clone(), nothing]).await;
    assert_eq!(waiting_rows(&store, 10).await.len(), 1);
    assert_clean(&store, START).await;
}

/// Ids of reservations, payments and events are never given again, not even after the outbox was
/// emptied and the store was opened anew: a consumer would drop the new event as a duplicate.
pub(crate) async fn ids_never_come_again(mut subject: Subject) {
    let sale = sale(&subject.store, 8).await;
    let mut reservations = BTreeSet::new();
    let mut payments = BTreeSet::new();
    let mut rows = BTreeSet::new();
    let mut events = BTreeSet::new();
    for round in 0..4 {
        let store = &subject.store;
        let given_back = sale.held(store, round + 1, &[round as usize + 4]).await;
        store.cancel(given_back.id, user(round + 1), START).await.unwrap();
        let (reservation, payment) = sale.bought(store, round + 1, &[round as usize]).await;
        assert!(reservations.insert(reservation.id) && reservations.insert(given_back.id));
        assert!(payments.insert(payment.id), "payment {} again", payment.id);
        let waiting = waiting_rows(store, 100).await;
        assert_eq!(waiting.len(), 5);
        for row in &waiting {
            let body: Value = serde_json::from_str(&row.body).unwrap();
            assert!(rows.last().is_none_or(|last| *last < row.id), "row {} again", row.id);
            rows.insert(row.id);
            assert!(events.insert(body["id"].to_string()), "event {} again", body["id"]);
        }
        mark_rows(store, &waiting).await;
        subject = subject.reopened().await;
    }
    assert_clean(&subject.store, START).await;
}
