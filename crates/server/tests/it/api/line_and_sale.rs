//! The line and the sale behind it: nobody is let in before there is something to buy, nor when nothing is
//! left, nor more people than what is left can serve; and a ticket that is over says why.

use std::time::{Duration, Instant};

use boxoffice::config::AfterSale;
use boxoffice::http::problem::ErrorCode;
use serde_json::{Value, json};

use crate::common::{
    Call, Client, FUTURE, OnSale, PAST, TestService, delete, get, join, patch, pay, post, status,
    until,
};

/// Later than [`FUTURE`].
const LATER: &str = "2100-01-01T00:00:00Z";

async fn joined(client: &mut Client, user: i64) -> String {
    client.send(join(user)).await.ok(201)["token"].as_str().unwrap().to_owned()
}

async fn crowd(client: &mut Client, users: std::ops::RangeInclusive<i64>) -> Vec<String> {
    let mut tokens = Vec::new();
    for user in users {
        tokens.push(joined(client, user).await);
    }
    tokens
}

async fn polled(client: &mut Client, token: &str) -> Value {
    client.send(status(token)).await.ok(200)
}

fn leave(token: &str) -> Call {
    delete("/api/v1/waiting-queues").token(token)
}

/// A moment so far from now.
fn within(time: Duration) -> jiff::Timestamp {
    jiff::Timestamp::now() + time
}

/// A concert of the default queue that is sold between two moments, with one session.
async fn concert(service: &TestService, opens: &str, closes: &str, seats: u32) -> OnSale {
    let concert = json!({
        "name": "A concert", "venue": "A hall",
        "reservationOpensAt": opens, "reservationClosesAt": closes,
    });
    let made = service.send(post("/admin/v1/concerts").admin().json(concert)).await.ok(201);
    service.session(made["concertId"].as_i64().unwrap(), seats, 0, FUTURE).await
}

async fn correct(service: &TestService, hall: &OnSale, change: Value) {
    let path = format!("/admin/v1/concerts/{}", hall.concert);
    service.send(patch(path).admin().json(change)).await.ok(200);
}

async fn comes_to(service: &TestService, state: &str) {
    until(state, async || {
        let document = service.queue("main").await;
        assert_eq!(document["state"], document["queueState"]);
        (document["state"] == state).then_some(())
    })
    .await;
}

/// Buys seats for a user whose ticket opens doors. Returns the payment.
async fn buy(client: &mut Client, hall: &OnSale, token: &str, user: i64, seats: &[i64]) -> i64 {
    let held = client.send(hall.reserve(token, user, seats)).await.ok(201);
    let paid = client.send(pay(token, user, held["reservationId"].as_i64().unwrap())).await.ok(201);
    paid["paymentId"].as_i64().unwrap()
}

async fn refund(client: &mut Client, token: &str, user: i64, payment: i64) {
    let path = format!("/api/v1/payments/{payment}/refund");
    client.send(post(path).token(token).json(json!({"userId": user}))).await.ok(200);
}

/// Asserts that the line stands still for some ticks.
async fn nobody_is_let_in(service: &TestService) {
    let serving = service.queue("main").await["serving"].clone();
    let deadline = Instant::now() + Duration::from_millis(700);
    while Instant::now() < deadline {
        assert_eq!(service.queue("main").await["serving"], serving, "somebody was let in");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_line_that_is_sold_out_is_told_and_goes_on_where_seats_come_back() {
    let service = TestService::start().await;
    let hall = service.concert(2, 0).await;
    let mut fan = service.client();
    let buyer = service.admitted(1).await;
    let looking = service.admitted(2).await;
    let line = crowd(&mut fan, 11..=20).await;
    nobody_is_let_in(&service).await;
    let held = fan.send(hall.reserve(&buyer, 1, &[1, 2])).await.ok(201);
    // What is held may come back: it is not sold.
    assert_eq!(polled(&mut fan, &line[0]).await["queueState"], "OPEN");
    let paid = fan.send(pay(&buyer, 1, held["reservationId"].as_i64().unwrap())).await.ok(201);
    let payment = paid["paymentId"].as_i64().unwrap();
    comes_to(&service, "SOLD_OUT").await;

    let told = async |fan: &mut Client| {
        for (index, token) in line.iter().enumerate() {
            let place = polled(fan, token).await;
            for (field, value) in [
                ("status", json!("EXPIRED")),
                ("reason", json!("SOLD_OUT")),
                ("queueState", json!("SOLD_OUT")),
                ("waitingNumber", json!(index + 1)),
                ("etaSeconds", Value::Null),
                ("activeUntil", Value::Null),
            ] {
                assert_eq!(place[field], value, "{field} of {place}");
            }
            assert!(place["pollAfterMs"].as_u64().unwrap() >= 9_000, "{place}");
        }
    };
    told(&mut fan).await;
    fan.send(join(30)).await.refused(ErrorCode::QueueSoldOut);
    assert_eq!(polled(&mut fan, &buyer).await["reason"], "PAID");
    // Who was let in stays, and may look.
    let place = polled(&mut fan, &looking).await;
    assert_eq!((&place["status"], &place["reason"]), (&json!("ACTIVATED"), &Value::Null));
    assert_eq!(place["queueState"], "SOLD_OUT");
    fan.send(leave(&looking)).await.empty(204);
    nobody_is_let_in(&service).await;

    // The first of those who wait gives up, the others learn the same after a restart.
    let (gone, line) = line.split_first().unwrap();
    fan.send(leave(gone)).await.empty(204);
    assert_eq!(polled(&mut fan, gone).await["reason"], "LEFT");
    let service = service.restart(|_| ()).await;
    let mut fan = service.client();
    assert_eq!(service.queue("main").await["state"], "SOLD_OUT");
    assert_eq!(polled(&mut fan, &line[0]).await["reason"], "SOLD_OUT");
    fan.send(join(30)).await.refused(ErrorCode::QueueSoldOut);
    nobody_is_let_in(&service).await;

    // Two seats come back, which serve two people; numbers are what they were.
    refund(&mut fan, &buyer, 1, payment).await;
    comes_to(&service, "OPEN").await;
    until("the first two", async || {
        let mut places = Vec::new();
        for token in line {
            places.push(polled(&mut fan, token).await);
        }
        assert!(places[2..].iter().all(|place| place["status"] == "WAITING"), "{places:?}");
        places[..2].iter().all(|place| place["status"] == "ACTIVATED").then_some(())
    })
    .await;
    fan.send(join(30)).await.ok(201);
    service.finish().await;
}

#[tokio::test]
async fn nobody_is_let_in_before_the_first_sale_opens() {
    let service = TestService::start().await;
    let mut fan = service.client();
    let hall = concert(&service, FUTURE, LATER, 100).await;
    comes_to(&service, "SCHEDULED").await;
    // The queue's own opening is long over.
    service.change_queue("main", json!({"opensAt": PAST})).await;
    let document = service.queue("main").await;
    assert_eq!(document["state"], "SCHEDULED");
    let at = |document: &Value| -> jiff::Timestamp {
        document["opensAt"].as_str().unwrap().parse().unwrap()
    };
    assert_eq!(at(&document), FUTURE.parse().unwrap());
    // Operators see what they have set.
    let listed = fan.send(get("/admin/v1/queues").admin()).await.ok(200);
    assert_eq!(at(&listed["queues"][0]), PAST.parse().unwrap());
    let first = fan.send(join(1)).await.ok(201);
    assert_eq!((&first["status"], &first["queueState"]), (&json!("WAITING"), &json!("SCHEDULED")));
    assert!(first["etaSeconds"].as_u64().unwrap() > 1_000_000);
    let line = crowd(&mut fan, 2..=5).await;
    nobody_is_let_in(&service).await;
    service.pause("main").await;
    assert_eq!(service.queue("main").await["state"], "PAUSED");
    service.resume("main").await;
    assert_eq!(service.queue("main").await["state"], "SCHEDULED");

    // Forward to in a moment, back, and forward again.
    let soon = within(Duration::from_secs(10)).to_string();
    correct(&service, &hall, json!({"reservationOpensAt": soon})).await;
    correct(&service, &hall, json!({"reservationOpensAt": FUTURE})).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    nobody_is_let_in(&service).await;
    let opens = within(Duration::from_millis(700));
    correct(&service, &hall, json!({"reservationOpensAt": opens.to_string()})).await;
    until("the opening", async || {
        let place = polled(&mut fan, &line[3]).await;
        if place["status"] == "WAITING" {
            return None;
        }
        // The moment of the admission, not that of the poll.
        let until: jiff::Timestamp = place["activeUntil"].as_str().unwrap().parse().unwrap();
        let ttl = Duration::from_secs(service.config.queue.active_ttl_seconds);
        assert!(until - ttl >= opens, "let in at {} for {opens}", until - ttl);
        assert_eq!(place["queueState"], "OPEN");
        Some(())
    })
    .await;
    let document = service.queue("main").await;
    assert_eq!((&document["state"], &document["opensAt"]), (&json!("OPEN"), &Value::Null));

    // Another sale that opens later closes nothing.
    concert(&service, FUTURE, LATER, 5).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(service.queue("main").await["state"], "OPEN");
    service.finish().await;
}

#[tokio::test]
async fn a_sale_that_is_over_ends_the_line_and_another_one_opens_it() {
    let service = TestService::start().await;
    let mut fan = service.client();
    let closes = within(Duration::from_millis(900)).to_string();
    let over = concert(&service, PAST, &closes, 10).await;
    service.pause("main").await;
    let waiting = joined(&mut fan, 1).await;
    comes_to(&service, "ENDED").await;
    service.resume("main").await;
    let place = polled(&mut fan, &waiting).await;
    assert_eq!((&place["status"], &place["reason"]), (&json!("EXPIRED"), &json!("ENDED")));
    assert_eq!(place["queueState"], "ENDED");
    fan.send(join(2)).await.refused(ErrorCode::QueueEnded);
    nobody_is_let_in(&service).await;

    // What is called off is over, too, and what begins.
    let off = concert(&service, PAST, FUTURE, 10).await;
    comes_to(&service, "OPEN").await;
    until("admission", async || {
        (polled(&mut fan, &waiting).await["status"] == "ACTIVATED").then_some(())
    })
    .await;
    fan.send(post(format!("/admin/v1/concerts/{}/cancel", off.concert)).admin()).await.ok(200);
    comes_to(&service, "ENDED").await;
    let begun = concert(&service, PAST, FUTURE, 10).await;
    comes_to(&service, "OPEN").await;
    let path = format!("/admin/v1/concerts/{}/sessions/{}", begun.concert, begun.session);
    fan.send(patch(path).admin().json(json!({"concertAt": PAST}))).await.ok(200);
    comes_to(&service, "ENDED").await;
    // A concert whose sessions are still to be made is one to wait for.
    let new = json!({
        "name": "N", "venue": "V", "reservationOpensAt": FUTURE, "reservationClosesAt": LATER,
    });
    let new = fan.send(post("/admin/v1/concerts").admin().json(new)).await.ok(201);
    comes_to(&service, "SCHEDULED").await;
    let waiting = joined(&mut fan, 3).await;
    nobody_is_let_in(&service).await;
    // With the last concert goes the sale: a queue that guards nothing goes by its settings.
    for id in [new["concertId"].as_i64().unwrap(), begun.concert, off.concert, over.concert] {
        let gone = fan.send(delete(format!("/admin/v1/concerts/{id}")).admin()).await;
        gone.empty(204);
    }
    comes_to(&service, "OPEN").await;
    until("admission", async || {
        (polled(&mut fan, &waiting).await["status"] == "ACTIVATED").then_some(())
    })
    .await;
    service.finish().await;
}

/// Thirty fans who all come when they are let in, for four seats; every other one does not buy.
#[tokio::test]
async fn no_more_are_inside_than_what_is_left_can_serve() {
    let service = TestService::start_with(|config| {
        config.queue.admit_per_second = 1_000.0;
        config.queue.active_ttl_seconds = 2;
        config.queue.claim_window_seconds = 1;
        config.sales.hold_seconds = 1;
    })
    .await;
    let hall = service.concert(4, 0).await;
    let mut fan = service.client();
    service.pause("main").await;
    let line = crowd(&mut fan, 1..=30).await;
    service.resume("main").await;
    let inside = async |client: &mut Client| {
        let list = client.send(get("/admin/v1/queues").admin()).await.ok(200);
        list["queues"][0]["active"].as_u64().unwrap()
    };
    until("all that are left to be offered", async || (inside(&mut fan).await == 4).then_some(()))
        .await;
    let mut bought = 0;
    let mut done = vec![false; line.len()];
    until("the last seat", async || {
        let inside = inside(&mut fan).await;
        assert!(inside <= 4 - bought, "{inside} are inside for {} seats", 4 - bought);
        for (index, token) in line.iter().enumerate() {
            if done[index] || polled(&mut fan, token).await["status"] != "ACTIVATED" {
                continue;
            }
            done[index] = true;
            let user = index as i64 + 1;
            // Whichever is free; the first who come hold all, and the even ones do not pay.
            for seat in 1..=4 {
                let held = fan.send(hall.reserve(token, user, &[seat])).await;
                if held.status != 201 {
                    continue;
                }
                if index % 2 == 1 {
                    let id = held.value()["reservationId"].as_i64().unwrap();
                    fan.send(pay(token, user, id)).await.ok(201);
                    bought += 1;
                }
                break;
            }
        }
        (bought == 4).then_some(())
    })
    .await;
    comes_to(&service, "SOLD_OUT").await;
    let serving = service.queue("main").await["serving"].as_u64().unwrap();
    assert!(serving < 30, "everybody was let in");
    assert_eq!(polled(&mut fan, &line[29]).await["reason"], "SOLD_OUT");
    let metrics = fan.send(get("/metrics")).await;
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains("boxoffice_queue_stock{queue=\"main\"} 0"), "{text}");
    service.finish().await;
}

/// A theatre takes seats back and lets people wait for them.
#[tokio::test]
async fn a_line_can_wait_for_seats_that_come_back() {
    let service = TestService::start_with(|config| {
        config.queue.after_sold_out = AfterSale::GoOn;
        config.queue.after_end = AfterSale::GoOn;
    })
    .await;
    let hall = service.concert(1, 0).await;
    let mut fan = service.client();
    let buyer = service.admitted(1).await;
    let payment = buy(&mut fan, &hall, &buyer, 1, &[1]).await;
    comes_to(&service, "SOLD_OUT").await;
    let joined = fan.send(join(2)).await.ok(201);
    assert_eq!((&joined["status"], &joined["queueState"]), (&json!("WAITING"), &json!("SOLD_OUT")));
    assert_eq!(joined["etaSeconds"], Value::Null);
    let token = joined["token"].as_str().unwrap().to_owned();
    nobody_is_let_in(&service).await;
    let place = polled(&mut fan, &token).await;
    assert_eq!((&place["status"], &place["reason"]), (&json!("WAITING"), &Value::Null));
    refund(&mut fan, &buyer, 1, payment).await;
    until("admission", async || {
        (polled(&mut fan, &token).await["status"] == "ACTIVATED").then_some(())
    })
    .await;
    // After the last sale it goes on as a queue that guards something else.
    fan.send(post(format!("/admin/v1/concerts/{}/cancel", hall.concert)).admin()).await.ok(200);
    comes_to(&service, "ENDED").await;
    let after = service.admitted(3).await;
    assert_eq!(polled(&mut fan, &after).await["queueState"], "ENDED");
    service.finish().await;
}

#[tokio::test]
async fn a_ticket_that_is_over_says_why_also_after_a_restart() {
    let service = TestService::start_with(|config| config.queue.active_ttl_seconds = 3_600).await;
    let hall = service.concert(10, 0).await;
    let mut fan = service.client();
    let (paid, left) = (service.admitted(1).await, service.admitted(2).await);
    let (opaque_paid, opaque_left) = (service.token(3).await, service.token(4).await);
    service.pause("main").await;
    let waiting = joined(&mut fan, 5).await;
    let short = json!({"count": 1, "format": "short", "activated": true, "guessable": true, "activeSeconds": 1});
    fan.send(post("/admin/v1/tokens").admin().json(short)).await.ok(201);
    for (user, token) in [(1, &paid), (3, &opaque_paid)] {
        assert_eq!(polled(&mut fan, token).await["reason"], Value::Null);
        buy(&mut fan, &hall, token, user, &[user]).await;
    }
    for token in [&left, &opaque_left, &waiting] {
        fan.send(leave(token)).await.empty(204);
    }
    until("the token to run out", async || {
        (polled(&mut fan, "short").await["status"] == "EXPIRED").then_some(())
    })
    .await;
    let mut service = service;
    for round in 0..2 {
        let mut fan = service.client();
        for (token, reason) in [
            (paid.as_str(), "PAID"),
            (&opaque_paid, "PAID"),
            (&left, "LEFT"),
            (&opaque_left, "LEFT"),
            (&waiting, "LEFT"),
            ("short", "TIMED_OUT"),
        ] {
            let place = polled(&mut fan, token).await;
            assert_eq!(place["status"], "EXPIRED", "{token} in round {round}");
            assert_eq!(place["reason"], reason, "{token} in round {round}");
        }
        service = service.restart(|_| ()).await;
    }
    service.finish().await;
}
