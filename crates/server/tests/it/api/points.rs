//! Points, and the keys that make a repeated request the same request.

use boxoffice::http::problem::ErrorCode;
use boxoffice_backends::store::{IdempotencyKey, Pay, TicketRef};
use boxoffice_domain::ids::{QueueName, ReservationId, UserId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::{
    BALANCE_MAX, Call, TestService, charge, delete, get, patch, pay, post, status,
};

fn charge_text(body: &str) -> Call {
    patch("/api/v1/users/1/points/charge").text(body)
}

#[tokio::test]
async fn points_are_charged_and_told() {
    let service = TestService::start().await;
    let mut fan = service.client();
    assert_eq!(service.balance(1).await, 0, "whoever was never heard of has no points");
    assert_eq!(fan.send(charge(1, 70)).await.ok(200), json!({"totalAmount": 70}));
    let by_post = post("/api/v1/users/1/points/charge").json(json!({"amount": "30"}));
    assert_eq!(fan.send(by_post).await.ok(200), json!({"totalAmount": 100}));
    assert_eq!(service.balance(1).await, 100);
    assert_eq!(service.balance(2).await, 0);
    let last = BALANCE_MAX;
    fan.send(charge(last, 1)).await.ok(200);
    assert_eq!(service.balance(last).await, 1);
    fan.send(charge(last + 1, 1)).await.refused(ErrorCode::UserIdTooLarge);

    fan.send(charge(2, BALANCE_MAX)).await.ok(200);
    fan.send(charge(2, 1)).await.refused(ErrorCode::PointsOverflow);
    fan.send(charge(1, BALANCE_MAX)).await.refused(ErrorCode::PointsOverflow);
    assert_eq!(service.balance(2).await, BALANCE_MAX);
    assert_eq!(service.balance(1).await, 100);
    service.finish().await;
}

#[tokio::test]
async fn amounts_that_are_none_are_refused() {
    let service = TestService::start().await;
    let mut fan = service.client();
    for amount in [
        "0",
        "-1",
        "\"0\"",
        "\"-5\"",
        "-9223372036854775808",
        "9223372036854775808",
        "-9223372036854775809",
        "1000000000000000000000000000000",
        "\"99999999999999999999\"",
        "1e17",
        "9007199254740993.0",
    ] {
        let body = format!("{{\"amount\": {amount}}}");
        fan.send(charge_text(&body)).await.refused(ErrorCode::InvalidAmount);
    }
    fan.send(charge_text("{\"amount\": 9223372036854775807}"))
        .await
        .refused(ErrorCode::PointsOverflow);
    for amount in
        ["1.5", "1e-2", "\"abc\"", "\"\"", "\"1.0\"", "\"1e2\"", "null", "[]", "{}", "true"]
    {
        let body = format!("{{\"amount\": {amount}}}");
        let refused = fan.send(charge_text(&body)).await.refused(ErrorCode::InvalidField);
        assert!(refused["detail"].as_str().unwrap().starts_with("amount"), "{refused}");
    }
    for body in
        ["{}", "[]", "7", "null", "\"amount\"", "{\"Amount\": 1}", "{\"amount\":1,\"amount\":2}"]
    {
        fan.send(charge_text(body)).await.refused(ErrorCode::InvalidField);
    }
    for body in ["", " ", "{", "{\"amount\": 1", "{\"amount\": 01}", "{\"amount\": 1}}", "NaN"] {
        fan.send(charge_text(body)).await.refused(ErrorCode::MalformedJson);
    }
    for id in ["0", "-1", "abc", "1.5", "9223372036854775808", "01", "+1", "%20", "1%00", "٣"] {
        let path = format!("/api/v1/users/{id}/points");
        fan.send(get(path.as_str())).await.refused(ErrorCode::InvalidId);
        let call = patch(format!("{path}/charge")).json(json!({"amount": 1}));
        fan.send(call).await.refused(ErrorCode::InvalidId);
    }
    assert_eq!(service.balance(1).await, 0);
    // JSON has one kind of number, so a whole one may be written in other ways.
    for (amount, total) in [("1.0", 1), ("1e2", 101), ("0.9e1", 110)] {
        let body = format!("{{\"amount\": {amount}}}");
        assert_eq!(fan.send(charge_text(&body)).await.ok(200)["totalAmount"], total);
    }
    service.finish().await;
}

#[tokio::test]
async fn a_charge_with_a_key_happens_once() {
    let service = TestService::start().await;
    let mut fan = service.client();
    assert_eq!(fan.send(charge(1, 10).key("k-1")).await.ok(200)["totalAmount"], 10);
    fan.send(charge(1, 5)).await.ok(200);
    // The first answer again, though the balance has moved on; quoted or bare, as number or text,
    // by PATCH or POST: it is the same request.
    let text = json!({"amount": "10"});
    for again in [
        charge(1, 10).key("k-1"),
        charge(1, 10).key("\"k-1\""),
        patch("/api/v1/users/1/points/charge").json(text.clone()).key("k-1"),
        post("/api/v1/users/1/points/charge").json(text).key("k-1"),
    ] {
        assert_eq!(fan.send(again).await.ok(200)["totalAmount"], 10);
    }
    assert_eq!(service.balance(1).await, 15);
    fan.send(charge(1, 11).key("k-1")).await.refused(ErrorCode::IdempotencyKeyReused);
    // A key is one user's.
    assert_eq!(fan.send(charge(2, 11).key("k-1")).await.ok(200)["totalAmount"], 11);
    // What was refused was not done, so the key is free.
    fan.send(charge(1, 0).key("k-2")).await.refused(ErrorCode::InvalidAmount);
    assert_eq!(fan.send(charge(1, 1).key("k-2")).await.ok(200)["totalAmount"], 16);

    let too_long = "x".repeat(256);
    for bad in ["", "\"\"", "\"open", "a b", too_long.as_str(), "\u{e9}"] {
        fan.send(charge(1, 1).key(bad)).await.refused(ErrorCode::InvalidHeader);
    }
    let twice = charge(1, 1).key("k-3").key("k-3");
    fan.send(twice).await.refused(ErrorCode::DuplicateHeader);
    assert_eq!(fan.send(charge(1, 1).key(&"x".repeat(255))).await.ok(200)["totalAmount"], 17);
    service.finish().await;
}

#[tokio::test]
async fn a_key_answers_again_whatever_has_become_of_the_ticket() {
    let service = TestService::start().await;
    let hall = service.concert(10, 10).await;
    service.charge(1, 100).await;
    let mut fan = service.client();
    let token = service.admitted(1).await;
    let reserve = hall.reserve(&token, 1, &[1, 2]).key("reserve");
    let first = fan.send(reserve.clone()).await;
    let held = first.ok(201);
    let id = held["reservationId"].as_i64().unwrap();
    let again = fan.send(reserve.clone()).await;
    assert_eq!(again.ok(201), held);
    assert_eq!(again.header("location"), first.header("location"));
    fan.send(hall.reserve(&token, 1, &[3]).key("reserve"))
        .await
        .refused(ErrorCode::IdempotencyKeyReused);
    // The order of the seats is part of what was asked.
    fan.send(hall.reserve(&token, 1, &[2, 1]).key("reserve"))
        .await
        .refused(ErrorCode::IdempotencyKeyReused);
    // One operation's key is no other's.
    fan.send(pay(&token, 1, id).key("reserve")).await.refused(ErrorCode::IdempotencyKeyReused);
    fan.send(charge(1, 1).key("reserve")).await.refused(ErrorCode::IdempotencyKeyReused);

    let payment = pay(&token, 1, id).key("pay");
    let paid = fan.send(payment.clone()).await.ok(201);
    assert_eq!(fan.send(status(&token)).await.ok(200)["status"], "EXPIRED");
    assert_eq!(fan.send(payment.clone()).await.ok(201), paid);
    assert_eq!(fan.send(reserve.clone()).await.ok(201), held);
    assert_eq!(service.balance(1).await, 80);
    fan.send(pay(&token, 1, id)).await.refused(ErrorCode::AlreadyPaid);
    fan.send(pay(&token, 1, id + 1).key("pay")).await.refused(ErrorCode::IdempotencyKeyReused);
    let charged = fan.send(charge(1, 5).key("charge")).await.ok(200);

    // And after a restart.
    let service = service.restart(|_| ()).await;
    let mut fan = service.client();
    assert_eq!(fan.send(payment).await.ok(201), paid);
    assert_eq!(fan.send(reserve).await.ok(201), held);
    assert_eq!(fan.send(charge(1, 5).key("charge")).await.ok(200), charged);
    assert_eq!(service.balance(1).await, 85);
    service.finish().await;
}

#[tokio::test]
async fn a_payment_that_is_told_again_spends_no_other_ticket() {
    let service = TestService::start().await;
    let hall = service.concert(10, 10).await;
    service.charge(1, 100).await;
    let mut fan = service.client();
    let first = service.admitted(1).await;
    let held = fan.send(hall.reserve(&first, 1, &[1])).await.ok(201);
    let id = held["reservationId"].as_i64().unwrap();
    let paid = fan.send(pay(&first, 1, id).key("k")).await.ok(201);
    assert_eq!(fan.send(status(&first)).await.ok(200)["status"], "EXPIRED");
    // One from the line, and one past it.
    let others = [service.admitted(1).await, service.token(1).await];
    for (seat, other) in [2, 3].into_iter().zip(&others) {
        assert_eq!(fan.send(pay(other, 1, id).key("k")).await.ok(201), paid);
        assert_eq!(fan.send(status(other)).await.ok(200)["status"], "ACTIVATED");
        fan.send(hall.reserve(other, 1, &[seat])).await.ok(201);
    }
    service.finish().await;
}

#[tokio::test]
async fn a_payment_whose_answer_was_lost_spends_its_ticket_when_it_is_told_again() {
    let service = TestService::start().await;
    let hall = service.concert(10, 10).await;
    service.charge(1, 100).await;
    let mut fan = service.client();
    let token = service.admitted(1).await;
    let held = fan.send(hall.reserve(&token, 1, &[1])).await.ok(201);
    let id = held["reservationId"].as_i64().unwrap();
    // The store has paid, and nobody heard of it.
    let app = service.running().app();
    let find = |name: &str| Some((QueueName::new(name)?, ()));
    let (ticket, (), _) = app.tickets.verify(&token, find).unwrap();
    let asked = [1_i64, id].map(i64::to_be_bytes).concat();
    let fingerprint = Sha256::new().chain_update("pay").chain_update(asked).finalize().into();
    let idempotency = Some(IdempotencyKey { key: "k".into(), fingerprint });
    let (user, reservation) = (UserId::new(1).unwrap(), ReservationId::new(id).unwrap());
    let ticket = TicketRef::from(&ticket);
    let now = app.clock.now();
    app.store.pay(Pay { user, ticket, reservation, idempotency, now }).await.unwrap();
    assert_eq!(fan.send(status(&token)).await.ok(200)["status"], "ACTIVATED");
    fan.send(pay(&token, 1, id).key("k")).await.ok(201);
    assert_eq!(fan.send(status(&token)).await.ok(200)["status"], "EXPIRED");
    service.finish().await;
}

#[tokio::test]
async fn a_key_answers_again_after_its_hold_is_gone() {
    let service = TestService::start().await;
    let hall = service.concert(10, 10).await;
    let mut fan = service.client();
    let token = service.token(1).await;
    let reserve = hall.reserve(&token, 1, &[1]).key("reserve");
    let held = fan.send(reserve.clone()).await.ok(201);
    let path = format!("/api/v1/reservations/{}", held["reservationId"]);
    fan.send(delete(path).token(&token)).await.empty(204);
    // The answer is about the first request; nothing is held anew.
    assert_eq!(fan.send(reserve).await.ok(201), held);
    let other = service.token(2).await;
    fan.send(hall.reserve(&other, 2, &[1])).await.ok(201);
    service.finish().await;
}

#[tokio::test]
async fn a_key_in_progress_is_told_so() {
    let service = TestService::start().await;
    let hall = service.concert(10, 10).await;
    service.charge(1, 100).await;
    let mut fan = service.client();
    let token = service.token(1).await;
    let held = fan.send(hall.reserve(&token, 1, &[1])).await.ok(201);
    let id = held["reservationId"].as_i64().unwrap();
    let in_flight = &service.running().app().in_flight;
    let guard = in_flight.enter(UserId::new(1).unwrap(), "busy").unwrap();
    for call in [
        charge(1, 10).key("busy"),
        pay(&token, 1, id).key("\"busy\""),
        hall.reserve(&token, 1, &[2]).key("busy"),
    ] {
        let reply = fan.send(call).await;
        reply.refused(ErrorCode::IdempotencyInFlight);
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    // Another user's key of the same name, and another key, are not in progress.
    fan.send(charge(2, 10).key("busy")).await.ok(200);
    fan.send(charge(1, 10).key("free")).await.ok(200);
    drop(guard);
    assert_eq!(fan.send(charge(1, 10).key("busy")).await.ok(200)["totalAmount"], 120);
    service.finish().await;
}

#[tokio::test]
async fn a_payment_takes_what_is_due_once_or_nothing() {
    let service = TestService::start().await;
    let hall = service.concert(10, 50).await;
    let mut fan = service.client();
    let token = service.token(1).await;
    let held = fan.send(hall.reserve(&token, 1, &[1, 2])).await.ok(201);
    let id = held["reservationId"].as_i64().unwrap();

    service.charge(1, 99).await;
    let refused = fan.send(pay(&token, 1, id)).await.refused(ErrorCode::NotEnoughPoints);
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("100") && detail.contains("99"), "{detail}");
    assert_eq!(service.balance(1).await, 99);
    assert_eq!(fan.send(status(&token)).await.ok(200)["status"], "ACTIVATED");

    for (reservation, code) in [
        (json!(id + 1), ErrorCode::ReservationNotFound),
        (json!(i64::MAX), ErrorCode::ReservationNotFound),
        (json!(0), ErrorCode::InvalidField),
        (json!(-1), ErrorCode::InvalidField),
        (json!("x"), ErrorCode::InvalidField),
        (json!(1.5), ErrorCode::InvalidField),
        (Value::Null, ErrorCode::InvalidField),
        (json!([id]), ErrorCode::InvalidField),
    ] {
        let ask = json!({"userId": 1, "reservationId": reservation});
        fan.send(post("/api/v1/payments").token(&token).json(ask)).await.refused(code);
    }
    service.charge(1, 1).await;
    fan.send(pay(&token, 1, id)).await.ok(201);
    assert_eq!(service.balance(1).await, 0);
    fan.send(pay(&token, 1, id)).await.refused(ErrorCode::AlreadyPaid);
    let path = format!("/api/v1/reservations/{id}");
    fan.send(delete(path).token(&token)).await.refused(ErrorCode::AlreadyPaid);
    assert_eq!(service.balance(1).await, 0);
    service.finish().await;
}
