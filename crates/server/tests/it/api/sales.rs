//! Seats: lists, holds, limits, giving back, running out.

use std::io::Read;

use boxoffice::http::problem::ErrorCode;
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::common::{
    Call, FUTURE, PAST, TestService, delete, get, pay, post, seat_states, status, until,
};

#[tokio::test]
async fn seat_lists_can_be_kept_and_compressed() {
    let service = TestService::start().await;
    let hall = service.concert(20, 5).await;
    let mut fan = service.client();
    let token = service.token(1).await;
    let reply = fan.send(hall.seats(&token)).await;
    let list = reply.ok(200);
    let etag = reply.header("etag").unwrap().to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    assert_eq!(reply.header("cache-control"), Some("private, no-cache"));
    assert_eq!(reply.header("vary"), Some("accept-encoding, queue-token"));
    assert_eq!(reply.header("content-encoding"), None);

    for known in [
        etag.clone(),
        format!("W/{etag}"),
        "*".to_owned(),
        format!("\"other\", {etag}"),
        format!("{etag},\"other\""),
    ] {
        let reply = fan.send(hall.seats(&token).header("If-None-Match", &known)).await;
        reply.empty(304);
        assert_eq!(reply.header("etag"), Some(etag.as_str()), "{known}");
        assert!(reply.header("cache-control").is_some());
    }
    for other in ["\"other\"", "", etag.trim_matches('"')] {
        fan.send(hall.seats(&token).header("If-None-Match", other)).await.ok(200);
    }

    let reply = fan.send(hall.seats(&token).header("Accept-Encoding", "br, gzip")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let mut json = String::new();
    GzDecoder::new(reply.body.as_slice()).read_to_string(&mut json).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), list);
    let plain = fan.send(hall.seats(&token).header("Accept-Encoding", "gzip;q=0")).await;
    assert_eq!(plain.ok(200), list);

    // A strong tag says that the bytes are the same, so each form of the list has its own; a client
    // that has one form asks for it and is told that it is current.
    let compressed = reply.header("etag").unwrap().to_owned();
    assert_ne!(compressed, etag);
    assert_eq!(plain.header("etag"), Some(etag.as_str()));
    for (coding, known, current) in [
        ("gzip", &compressed, true),
        ("gzip", &etag, false),
        ("identity", &etag, true),
        ("identity", &compressed, false),
        ("gzip", &format!("{etag}, {compressed}"), true),
        ("identity", &format!("{etag}, {compressed}"), true),
    ] {
        let asked = hall.seats(&token).header("Accept-Encoding", coding);
        let reply = fan.send(asked.header("If-None-Match", known)).await;
        assert_eq!(reply.status, if current { 304 } else { 200 }, "{coding} {known}");
        let wanted = if coding == "gzip" { &compressed } else { &etag };
        assert_eq!(reply.header("etag"), Some(wanted.as_str()), "{coding} {known}");
        assert_eq!(reply.header("vary"), Some("accept-encoding, queue-token"));
    }

    // A change makes the list another one.
    fan.send(hall.reserve(&token, 1, &[1])).await.ok(201);
    let reply = until("another list", async || {
        let reply = fan.send(hall.seats(&token).header("If-None-Match", &etag)).await;
        (reply.status == 200).then_some(reply)
    })
    .await;
    assert_ne!(reply.header("etag"), Some(etag.as_str()));
    assert_eq!(seat_states(&reply.value())[&hall.seat(1)], "TEMPORARY_RESERVED");
    service.finish().await;
}

#[tokio::test]
async fn a_hold_takes_all_seats_or_none() {
    let service = TestService::start().await;
    let hall = service.concert(10, 5).await;
    let mut fan = service.client();
    let (mine, yours) = (service.token(1).await, service.token(2).await);
    fan.send(hall.reserve(&mine, 1, &[2])).await.ok(201);
    for key in [None, Some("k")] {
        for wanted in [[1, 2], [2, 1]] {
            let mut call = hall.reserve(&yours, 2, &wanted);
            if let Some(key) = key {
                call = call.key(key);
            }
            fan.send(call).await.refused(ErrorCode::SeatTaken);
        }
    }
    // Its own holder cannot take it again either.
    fan.send(hall.reserve(&mine, 1, &[2])).await.refused(ErrorCode::SeatTaken);
    // Nothing is left of the attempts: 1 is free.
    let held = fan.send(hall.reserve(&yours, 2, &[1])).await.ok(201);
    assert_eq!(held["totalPrice"], 5);
    service.finish().await;
}

#[tokio::test]
async fn what_is_asked_for_is_checked() {
    let service = TestService::start().await;
    let hall = service.concert(20, 5).await;
    let later = service.session(hall.concert, 5, 5, FUTURE).await;
    let begun = service.session(hall.concert, 5, 5, PAST).await;
    let other = service.concert(5, 5).await;
    let mut fan = service.client();
    let token = service.token(1).await;
    let ask = |seats: Value| {
        post(hall.path("reservations")).token(&token).json(json!({"userId": 1, "seatIds": seats}))
    };
    let (one, two) = (hall.seat(1), hall.seat(2));
    for (seats, code) in [
        (json!([]), ErrorCode::NoSeats),
        (json!([one, one]), ErrorCode::DuplicateSeats),
        (json!([one, one.to_string()]), ErrorCode::DuplicateSeats),
        (json!([1, 2, 3, 4, 5]), ErrorCode::TooManySeats),
        (json!([1, 1, 1, 1, 1]), ErrorCode::TooManySeats),
        (json!([later.seat(1)]), ErrorCode::SeatNotFound),
        (json!([one, other.seat(1)]), ErrorCode::SeatNotFound),
        (json!([i64::MAX]), ErrorCode::SeatNotFound),
        (json!([0]), ErrorCode::InvalidField),
        (json!([one, -1]), ErrorCode::InvalidField),
        (json!([one, null]), ErrorCode::InvalidField),
        (json!([one, "x"]), ErrorCode::InvalidField),
        (json!([[one]]), ErrorCode::InvalidField),
        (json!(one), ErrorCode::InvalidField),
        (json!({"0": one}), ErrorCode::InvalidField),
        (json!("1,2"), ErrorCode::InvalidField),
        (Value::Null, ErrorCode::InvalidField),
    ] {
        fan.send(ask(seats.clone())).await.refused(code);
        fan.send(ask(seats).key("k")).await.refused(code);
    }
    let missing = post(hall.path("reservations")).token(&token).json(json!({"userId": 1}));
    fan.send(missing).await.refused(ErrorCode::SeatsOrBest);
    // Ten thousand ids are within what is read, and refused without looking at each other.
    let many: Vec<i64> = (10_000..20_000).collect();
    fan.send(ask(json!(many))).await.refused(ErrorCode::TooManySeats);
    let many: Vec<i64> = (100_000..110_000).collect();
    fan.send(ask(json!(many))).await.refused(ErrorCode::BodyTooLarge);

    let paths = [
        (
            format!("/api/v1/concerts/{}/sessions/{}", other.concert, hall.session),
            ErrorCode::SessionNotFound,
        ),
        (format!("/api/v1/concerts/{}/sessions/999999", hall.concert), ErrorCode::SessionNotFound),
        (format!("/api/v1/concerts/999999/sessions/{}", hall.session), ErrorCode::ConcertNotFound),
        (format!("/api/v1/concerts/0/sessions/{}", hall.session), ErrorCode::InvalidId),
        (format!("/api/v1/concerts/{}/sessions/x", hall.concert), ErrorCode::InvalidId),
        (
            format!("/api/v1/concerts/{}/sessions/9223372036854775808", hall.concert),
            ErrorCode::InvalidId,
        ),
    ];
    for (path, code) in paths {
        fan.send(get(format!("{path}/seats")).token(&token)).await.refused(code);
        let body = json!({"userId": 1, "seatIds": [one]});
        let call = post(format!("{path}/reservations")).token(&token).json(body);
        fan.send(call.clone()).await.refused(code);
        fan.send(call.key("k")).await.refused(code);
    }
    for (path, code) in [
        ("/api/v1/concerts/999999/sessions", ErrorCode::ConcertNotFound),
        ("/api/v1/concerts/abc/sessions", ErrorCode::InvalidId),
    ] {
        fan.send(get(path).token(&token)).await.refused(code);
    }

    // What has begun is not listed and not sold.
    let list =
        fan.send(get(format!("/api/v1/concerts/{}/sessions", hall.concert)).token(&token)).await;
    let listed: Vec<i64> = list.ok(200)["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|session| session["sessionId"].as_i64().unwrap())
        .collect();
    assert_eq!(listed, [hall.session, later.session]);
    fan.send(begun.reserve(&token, 1, &[1])).await.refused(ErrorCode::SessionStarted);

    // After all that nothing is held.
    let states = seat_states(&fan.send(hall.seats(&token)).await.ok(200));
    assert!(states.values().all(|state| state == "AVAILABLE"));
    fan.send(ask(json!([one, two]))).await.ok(201);
    service.finish().await;
}

#[tokio::test]
async fn a_user_has_no_more_seats_of_a_session_than_allowed() {
    let service = TestService::start_with(|config| config.sales.live_holds_max = 3).await;
    let hall = service.concert(20, 5).await;
    let later = service.session(hall.concert, 5, 5, FUTURE).await;
    service.charge(1, 1_000).await;
    let mut fan = service.client();
    let (first, second) = (service.token(1).await, service.token(1).await);
    let held = fan.send(hall.reserve(&first, 1, &[1, 2, 3])).await.ok(201);
    let id = held["reservationId"].as_i64().unwrap();
    // However many tickets the user has, and whether held or bought.
    fan.send(hall.reserve(&second, 1, &[4, 5])).await.refused(ErrorCode::SeatLimitReached);
    fan.send(pay(&first, 1, id)).await.ok(201);
    fan.send(hall.reserve(&second, 1, &[4, 5])).await.refused(ErrorCode::SeatLimitReached);
    let held = fan.send(hall.reserve(&second, 1, &[4])).await.ok(201);
    fan.send(hall.reserve(&second, 1, &[5])).await.refused(ErrorCode::SeatLimitReached);
    // Another session counts for itself, and what is given back counts no more.
    fan.send(later.reserve(&second, 1, &[1, 2, 3, 4])).await.ok(201);
    let path = format!("/api/v1/reservations/{}", held["reservationId"]);
    fan.send(delete(path).token(&second)).await.empty(204);
    fan.send(hall.reserve(&second, 1, &[5])).await.ok(201);
    service.finish().await;
}

#[tokio::test]
async fn a_hold_can_be_given_back_once() {
    let service = TestService::start().await;
    let hall = service.concert(5, 5).await;
    service.charge(1, 100).await;
    let mut fan = service.client();
    let (mine, yours) = (service.token(1).await, service.token(2).await);
    let held = fan.send(hall.reserve(&mine, 1, &[1, 2])).await.ok(201);
    let id = held["reservationId"].as_i64().unwrap();
    let path = format!("/api/v1/reservations/{id}");
    fan.send(delete(path.as_str()).token(&mine)).await.empty(204);
    let shown = fan.send(get(path.as_str()).token(&mine)).await.ok(200);
    assert_eq!(shown["status"], "CANCELLED");
    assert_eq!(shown["totalPrice"], 10);
    fan.send(delete(path.as_str()).token(&mine)).await.refused(ErrorCode::HoldCancelled);
    fan.send(pay(&mine, 1, id)).await.refused(ErrorCode::HoldCancelled);
    assert_eq!(service.balance(1).await, 100);
    fan.send(hall.reserve(&yours, 2, &[1, 2])).await.ok(201);
    for (id, code) in [
        ("999999", ErrorCode::ReservationNotFound),
        ("9223372036854775807", ErrorCode::ReservationNotFound),
        ("0", ErrorCode::InvalidId),
        ("-1", ErrorCode::InvalidId),
        ("x", ErrorCode::InvalidId),
        ("9223372036854775808", ErrorCode::InvalidId),
    ] {
        let path = format!("/api/v1/reservations/{id}");
        let calls: [Call; 2] = [get(path.as_str()), delete(path.as_str())];
        for call in calls {
            fan.send(call.token(&mine)).await.refused(code);
        }
    }
    service.finish().await;
}

#[tokio::test]
async fn a_hold_that_runs_out_is_the_next_buyers() {
    let service = TestService::start_with(|config| config.sales.hold_seconds = 1).await;
    let hall = service.concert(5, 5).await;
    service.charge(1, 100).await;
    service.charge(2, 100).await;
    let mut fan = service.client();
    let (slow, next) = (service.token(1).await, service.token(2).await);
    let held = fan.send(hall.reserve(&slow, 1, &[1, 2])).await.ok(201);
    let id = held["reservationId"].as_i64().unwrap();
    let expires_at: jiff::Timestamp = held["expiresAt"].as_str().unwrap().parse().unwrap();
    let taken = until("the hold to run out", async || {
        let reply = fan.send(hall.reserve(&next, 2, &[2, 3])).await;
        if reply.status == 409 {
            reply.refused(ErrorCode::SeatTaken);
            return None;
        }
        Some(reply.ok(201))
    })
    .await;
    assert!(service.now() >= expires_at, "the hold ended before its time");
    fan.send(pay(&slow, 1, id)).await.refused(ErrorCode::HoldExpired);
    let path = format!("/api/v1/reservations/{id}");
    fan.send(delete(path.as_str()).token(&slow)).await.refused(ErrorCode::HoldExpired);
    let shown = fan.send(get(path).token(&slow)).await.ok(200);
    assert_eq!((&shown["status"], &shown["expiresAt"]), (&json!("EXPIRED"), &held["expiresAt"]));
    assert_eq!(service.balance(1).await, 100);
    fan.send(pay(&next, 2, taken["reservationId"].as_i64().unwrap())).await.ok(201);
    until("the list to follow", async || {
        let states = seat_states(&fan.send(hall.seats(&slow)).await.ok(200));
        let wanted = [(1, "AVAILABLE"), (2, "CONFIRMED"), (3, "CONFIRMED"), (4, "AVAILABLE")];
        wanted.iter().all(|(number, state)| states[&hall.seat(*number)] == *state).then_some(())
    })
    .await;
    service.finish().await;
}

#[tokio::test]
async fn whoever_pays_with_another_ticket_spends_both() {
    let service = TestService::start().await;
    let hall = service.concert(9, 10).await;
    service.charge(1, 1_000).await;
    let mut fan = service.client();
    fan.send(post("/admin/v1/queues").admin().json(json!({"queue": "vip"}))).await.ok(201);
    let vip = service.token_in("vip", 1).await;
    // Tickets of the line, and opaque ones, in both parts.
    let tokens = [
        (service.admitted(1).await, service.token(1).await),
        (service.token(1).await, service.admitted(1).await),
    ];
    for (seat, (holds, pays)) in (1..).zip(tokens) {
        let held = fan.send(hall.reserve(&holds, 1, &[seat])).await.ok(201);
        let id = held["reservationId"].as_i64().unwrap();
        fan.send(pay(&vip, 1, id)).await.refused(ErrorCode::WrongQueue);
        fan.send(pay(&pays, 1, id)).await.ok(201);
        for spent in [&holds, &pays] {
            assert_eq!(fan.send(status(spent)).await.ok(200)["status"], "EXPIRED");
            fan.send(hall.reserve(spent, 1, &[5])).await.refused(ErrorCode::TokenSpent);
        }
    }
    assert_eq!(fan.send(status(&vip)).await.ok(200)["status"], "ACTIVATED");
    service.finish().await;
}

#[tokio::test]
async fn whoever_lost_the_answer_to_a_hold_finds_it_again() {
    let service = TestService::start_with(|config| config.sales.live_holds_max = 3).await;
    let hall = service.concert(9, 10).await;
    let mut fan = service.client();
    let (one, two) = (service.token(1).await, service.token(2).await);
    let list = |query: &str| get(format!("/api/v1/reservations{query}")).token(&one);
    let empty = fan.send(list("")).await.ok(200);
    assert_eq!(empty, json!({"reservations": [], "next": null}));
    for (token, user, seat) in [(&one, 1, 1), (&two, 2, 2), (&one, 1, 3), (&one, 1, 4)] {
        fan.send(hall.reserve(token, user, &[seat])).await.ok(201);
    }
    let page = fan.send(list("?limit=2")).await.ok(200);
    let seats = |page: &Value| -> Vec<i64> {
        let rows = page["reservations"].as_array().unwrap().iter();
        rows.map(|row| row["reservedSeats"][0]["number"].as_i64().unwrap()).collect()
    };
    assert_eq!(seats(&page), [4, 3]);
    assert_eq!(page["reservations"][0]["status"], "HELD");
    let shown = format!("/api/v1/reservations/{}", page["reservations"][1]["reservationId"]);
    assert_eq!(fan.send(get(shown).token(&one)).await.ok(200), page["reservations"][1]);
    let next = page["next"].as_i64().unwrap();
    let page = fan.send(list(&format!("?after={next}&limit=2"))).await.ok(200);
    assert_eq!((seats(&page), &page["next"]), (vec![1], &Value::Null));
    for query in ["?limit=0", "?limit=101", "?after=x", "?page=2"] {
        fan.send(list(query)).await.refused(ErrorCode::InvalidQuery);
    }
    service.pause("main").await;
    let waiting = fan.send(crate::common::join(3)).await.ok(201);
    let waiting = get("/api/v1/reservations").token(waiting["token"].as_str().unwrap());
    fan.send(waiting).await.refused(ErrorCode::TokenNotActivated);
    service.finish().await;
}

#[tokio::test]
async fn a_payment_is_refunded_once_and_in_time() {
    let service = TestService::start().await;
    let hall = service.concert(9, 10).await;
    service.charge(1, 100).await;
    let mut fan = service.client();
    let (token, other) = (service.token(1).await, service.token(2).await);
    let held = fan.send(hall.reserve(&token, 1, &[1, 2])).await.ok(201);
    let reservation = held["reservationId"].as_i64().unwrap();
    let paid = fan.send(pay(&token, 1, reservation)).await.ok(201);
    assert_eq!(service.balance(1).await, 80);
    let path = format!("/api/v1/payments/{}/refund", paid["paymentId"]);
    let ask =
        |token: &str, user: i64| post(path.clone()).token(token).json(json!({"userId": user}));
    fan.send(ask(&other, 2)).await.refused(ErrorCode::ReservationNotYours);
    fan.send(ask(&other, 1)).await.refused(ErrorCode::UserMismatch);
    let nothing = post("/api/v1/payments/99/refund").token(&token).json(json!({"userId": 1}));
    fan.send(nothing).await.refused(ErrorCode::PaymentNotFound);
    // The ticket that paid is spent, and still says who asks.
    let first = fan.send(ask(&token, 1).key("back")).await.ok(200);
    assert_eq!((&first["refundAmount"], &first["status"]), (&json!(20), &json!("REFUNDED")));
    assert_eq!(first["reservationId"], reservation);
    for again in [ask(&token, 1).key("back"), ask(&token, 1)] {
        assert_eq!(fan.send(again).await.ok(200), first);
    }
    assert_eq!(service.balance(1).await, 100);
    let shown = get(format!("/api/v1/reservations/{reservation}")).token(&token);
    assert_eq!(fan.send(shown).await.ok(200)["status"], "REFUNDED");
    let next = service.token(1).await;
    fan.send(pay(&next, 1, reservation)).await.refused(ErrorCode::AlreadyRefunded);
    fan.send(hall.reserve(&other, 2, &[1])).await.ok(201);

    // The same sale under a rule that allows no refund any more.
    let held = fan.send(hall.reserve(&next, 1, &[3])).await.ok(201);
    let paid = fan.send(pay(&next, 1, held["reservationId"].as_i64().unwrap())).await.ok(201);
    let service = service.restart(|config| config.sales.refund_until_hours = 10_000_000).await;
    let mut fan = service.client();
    let path = format!("/api/v1/payments/{}/refund", paid["paymentId"]);
    let late = post(path).token(&next).json(json!({"userId": 1}));
    fan.send(late).await.refused(ErrorCode::RefundTooLate);
    service.finish().await;
}

#[tokio::test]
async fn a_session_called_off_sells_nothing_and_gives_everything_back() {
    let service = TestService::start().await;
    let hall = service.concert(9, 10).await;
    let later = service.session(hall.concert, 5, 10, FUTURE).await;
    service.charge(1, 100).await;
    service.charge(2, 100).await;
    let mut fan = service.client();
    let (one, two, three) =
        (service.token(1).await, service.token(2).await, service.token(3).await);
    let id = |held: &Value| held["reservationId"].as_i64().unwrap();
    let held = id(&fan.send(hall.reserve(&one, 1, &[1, 2])).await.ok(201));
    fan.send(pay(&one, 1, held)).await.ok(201);
    let waits = id(&fan.send(hall.reserve(&two, 2, &[3])).await.ok(201));
    let path = |what: &str| format!("/admin/v1/concerts/{}/{what}cancel", hall.concert);
    let session = path(&format!("sessions/{}/", hall.session));
    fan.send(post(session.clone())).await.refused(ErrorCode::AdminTokenMissing);
    let nowhere = path("sessions/99/");
    fan.send(post(nowhere).admin()).await.refused(ErrorCode::SessionNotFound);
    fan.send(post("/admin/v1/concerts/99/cancel").admin())
        .await
        .refused(ErrorCode::ConcertNotFound);
    let none = fan.send(get(path("")).admin()).await.ok(200);
    assert_eq!(none, json!({"sessions": []}));

    fan.send(post(session.clone()).admin()).await.ok(200);
    for call in [hall.reserve(&three, 3, &[5]), hall.reserve(&three, 3, &[5]).key("k")] {
        fan.send(call).await.refused(ErrorCode::SessionCancelled);
    }
    until("everything to be given back", async || {
        let shown = fan.send(get(session.clone()).admin()).await.ok(200);
        let session = &shown["sessions"][0];
        assert_eq!(session["sessionId"], hall.session);
        (session["left"] == 0 && session["refunded"] == 1).then_some(())
    })
    .await;
    assert_eq!(service.balance(1).await, 100);
    let shown = |token: &str, id| get(format!("/api/v1/reservations/{id}")).token(token);
    assert_eq!(fan.send(shown(&one, held)).await.ok(200)["status"], "REFUNDED");
    assert_eq!(fan.send(shown(&two, waits)).await.ok(200)["status"], "CANCELLED");
    // The other session sells on until the whole concert is called off.
    let list = get(format!("/api/v1/concerts/{}/sessions", hall.concert)).token(&three);
    let listed = fan.send(list).await.ok(200);
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 1);
    fan.send(later.reserve(&three, 3, &[1])).await.ok(201);
    let both = fan.send(post(path("")).admin()).await.ok(200);
    assert_eq!(both["sessions"].as_array().unwrap().len(), 2);
    fan.send(later.reserve(&two, 2, &[2])).await.refused(ErrorCode::SessionCancelled);
    service.finish().await;
}

#[tokio::test]
async fn whoever_gives_back_and_takes_at_once_gains_nothing() {
    let service =
        TestService::start_with(|config| config.sales.release_jitter_seconds = 3_600).await;
    let hall = service.concert(3, 10).await;
    let mut fan = service.client();
    let (one, two) = (service.token(1).await, service.token(2).await);
    let held = fan.send(hall.reserve(&one, 1, &[1])).await.ok(201);
    let path = format!("/api/v1/reservations/{}", held["reservationId"]);
    fan.send(delete(path).token(&one)).await.empty(204);
    for (token, user) in [(&one, 1), (&two, 2)] {
        fan.send(hall.reserve(token, user, &[1])).await.refused(ErrorCode::SeatTaken);
        let keyed = hall.reserve(token, user, &[1]).key("keyed");
        fan.send(keyed).await.refused(ErrorCode::SeatTaken);
    }
    let states = seat_states(&fan.send(hall.seats(&two)).await.ok(200));
    assert_eq!(states[&hall.seat(1)], "TEMPORARY_RESERVED");
    fan.send(hall.reserve(&one, 1, &[2])).await.ok(201);
    service.finish().await;
}
