//! The way of a fan from the end of the line to a paid seat.

use boxoffice::http::problem::ErrorCode;
use serde_json::{Value, json};

use crate::common::{Call, TestService, delete, get, join, pay, post, seat_states, status, until};

/// Asserts that a field is a date and time with an offset.
#[track_caller]
fn assert_moment(value: &Value) {
    let text = value.as_str().unwrap();
    assert!(text.ends_with('Z') || text[10..].contains(['+', '-']), "{text}");
    text.parse::<jiff::Timestamp>().unwrap();
}

/// Asserts that a document has these fields and no others.
#[track_caller]
fn assert_fields(document: &Value, mut wanted: Vec<&str>) {
    let mut found: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{document}");
}

#[tokio::test]
async fn a_fan_joins_waits_chooses_holds_and_pays() {
    let service = TestService::start().await;
    let hall = service.concert(10, 1_000).await;
    service.charge(17, 5_000).await;
    let mut fan = service.client();

    // Older clients send ids as text.
    let joined =
        fan.send(post("/api/v1/waiting-queues").json(json!({"userId": "17"}))).await.ok(201);
    assert_fields(
        &joined,
        vec![
            "token",
            "status",
            "waitingNumber",
            "etaSeconds",
            "pollAfterMs",
            "joinedAt",
            "queueState",
        ],
    );
    assert_moment(&joined["joinedAt"]);
    assert!(joined["pollAfterMs"].as_u64().unwrap() >= 1_000);
    let token = joined["token"].as_str().unwrap().to_owned();

    let place = until("admission", async || {
        let place = fan.send(status(&token)).await.ok(200);
        let mut fields = vec![
            "userId",
            "queue",
            "status",
            "waitingNumber",
            "etaSeconds",
            "pollAfterMs",
            "activeUntil",
            "queueState",
            "reason",
        ];
        if place["status"] == "ACTIVATED" {
            fields.push("pass");
        }
        assert_fields(&place, fields);
        if place["status"] == "WAITING" {
            assert_eq!(place["waitingNumber"], 1);
            assert_eq!(place["activeUntil"], Value::Null);
            return None;
        }
        Some(place)
    })
    .await;
    assert_eq!(place["userId"], 17);
    assert_eq!(place["queue"], "main");
    assert_eq!(place["status"], "ACTIVATED");
    assert_eq!(place["waitingNumber"], 0);
    assert_eq!(place["etaSeconds"], 0);
    assert_moment(&place["activeUntil"]);

    let list = fan.send(get("/api/v1/concerts")).await.ok(200);
    let concert = &list["concerts"][0];
    assert_fields(
        concert,
        vec![
            "concertId",
            "name",
            "venue",
            "queue",
            "reservationOpensAt",
            "reservationClosesAt",
            "state",
        ],
    );
    assert_eq!(concert["concertId"], hall.concert);
    assert_moment(&concert["reservationOpensAt"]);
    assert_moment(&concert["reservationClosesAt"]);
    assert_eq!(concert["state"], "OPEN");

    let path = format!("/api/v1/concerts/{}/sessions", hall.concert);
    let list = fan.send(get(path.as_str()).token(&token)).await.ok(200);
    let session = &list["sessions"][0];
    assert_fields(session, vec!["sessionId", "concertAt", "totalSeatCount", "availableSeatCount"]);
    assert_eq!(session["sessionId"], hall.session);
    assert_moment(&session["concertAt"]);
    assert_eq!(session["totalSeatCount"], 10);
    assert_eq!(session["availableSeatCount"], 10);

    let list = fan.send(hall.seats(&token)).await.ok(200);
    assert_fields(&list, vec!["totalSeatCount", "availableSeats", "unavailableSeats"]);
    assert_eq!(list["totalSeatCount"], 10);
    assert_eq!(list["unavailableSeats"], json!([]));
    let first = json!({
        "seatId": hall.seat(1), "number": 1, "status": "AVAILABLE", "price": 1_000,
    });
    assert_eq!(list["availableSeats"][0], first);

    // A seat as a number and one as text.
    let ask = json!({"userId": "17", "seatIds": [hall.seat(3), hall.seat(7).to_string()]});
    let reply = fan.send(post(hall.path("reservations")).token(&token).json(ask)).await;
    let held = reply.ok(201);
    assert_fields(&held, vec!["reservationId", "totalPrice", "expiresAt", "reservedSeats"]);
    let reservation = held["reservationId"].as_i64().unwrap();
    let location = format!("/api/v1/reservations/{reservation}");
    assert_eq!(reply.header("location"), Some(location.as_str()));
    assert_eq!(held["totalPrice"], 2_000);
    assert_moment(&held["expiresAt"]);
    let seats = json!([
        {"seatId": hall.seat(3), "number": 3, "price": 1_000},
        {"seatId": hall.seat(7), "number": 7, "price": 1_000},
    ]);
    assert_eq!(held["reservedSeats"], seats);

    let shown = fan.send(get(location.as_str()).token(&token)).await.ok(200);
    assert_eq!(shown["status"], "HELD");
    assert_eq!(shown["userId"], 17);
    assert_eq!(shown["concertId"], hall.concert);
    assert_eq!(shown["sessionId"], hall.session);
    assert_eq!(shown["expiresAt"], held["expiresAt"]);
    assert_eq!(shown["reservedSeats"], seats);
    assert_eq!(shown["paymentId"], Value::Null);
    let states = until("the hold in the list", async || {
        let states = seat_states(&fan.send(hall.seats(&token)).await.ok(200));
        (states[&hall.seat(3)] != "AVAILABLE").then_some(states)
    })
    .await;
    assert_eq!(states[&hall.seat(3)], "TEMPORARY_RESERVED");
    assert_eq!(states[&hall.seat(7)], "TEMPORARY_RESERVED");
    assert_eq!(states[&hall.seat(1)], "AVAILABLE");

    let ask = json!({"userId": "17", "reservationId": reservation.to_string()});
    let paid = fan.send(post("/api/v1/payments").token(&token).json(ask)).await.ok(201);
    assert_fields(&paid, vec!["paymentId", "reservationId", "paymentAmount", "status", "paidAt"]);
    assert!(paid["paymentId"].as_i64().unwrap() > 0);
    assert_eq!(paid["reservationId"], reservation);
    assert_eq!(paid["paymentAmount"], 2_000);
    assert_eq!(paid["status"], "COMPLETED");
    assert_moment(&paid["paidAt"]);
    assert_eq!(service.balance(17).await, 3_000);

    let place = fan.send(status(&token)).await.ok(200);
    assert_eq!(place["status"], "EXPIRED");
    assert_eq!(place["waitingNumber"], 0);
    assert_eq!(place["activeUntil"], Value::Null);
    let shown = fan.send(get(location.as_str()).token(&token)).await.ok(200);
    assert_eq!(shown["status"], "PAID");
    assert_eq!(shown["paymentId"], paid["paymentId"]);

    let other = service.token(18).await;
    let states = until("the sale in the list", async || {
        let states = seat_states(&fan.send(hall.seats(&other)).await.ok(200));
        (states[&hall.seat(3)] == "CONFIRMED").then_some(states)
    })
    .await;
    assert_eq!(states[&hall.seat(7)], "CONFIRMED");
    let list = fan.send(get(path.as_str()).token(&other)).await.ok(200);
    assert_eq!(list["sessions"][0]["availableSeatCount"], 8);
    service.finish().await;
}

#[tokio::test]
async fn a_spent_ticket_opens_nothing() {
    let service = TestService::start_with(|config| config.sales.live_holds_max = 2).await;
    let hall = service.concert(10, 1_000).await;
    service.charge(1, 10_000).await;
    let mut fan = service.client();
    // Both kinds of token are spent alike.
    for (token, seat) in [(service.admitted(1).await, 1), (service.token(1).await, 3)] {
        let first = fan.send(hall.reserve(&token, 1, &[seat])).await.ok(201);
        let second = fan.send(hall.reserve(&token, 1, &[seat + 1])).await.ok(201);
        let (first, second) =
            (first["reservationId"].as_i64().unwrap(), second["reservationId"].as_i64().unwrap());
        fan.send(pay(&token, 1, first)).await.ok(201);

        let sessions = format!("/api/v1/concerts/{}/sessions", hall.concert);
        let doors: Vec<Call> = vec![
            get(sessions).token(&token),
            hall.seats(&token),
            hall.reserve(&token, 1, &[9]),
            hall.reserve(&token, 1, &[9]).key("a-new-key"),
            pay(&token, 1, second),
            pay(&token, 1, second).key("another-new-key"),
        ];
        for door in doors {
            fan.send(door).await.refused(ErrorCode::TokenSpent);
        }
        assert_eq!(fan.send(status(&token)).await.ok(200)["status"], "EXPIRED");
        // What was bought is still the fan's to see, and the other hold to give back.
        let path = format!("/api/v1/reservations/{second}");
        fan.send(delete(path).token(&token)).await.empty(204);
    }
    service.finish().await;
}

#[tokio::test]
async fn the_demo_data_is_as_promised() {
    let service = TestService::start_with(|config| config.demo.seed = true).await;
    assert!(service.running().seeded());
    let mut fan = service.client();
    let list = fan.send(get("/api/v1/concerts")).await.ok(200);
    let ids: Vec<i64> = list["concerts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|concert| concert["concertId"].as_i64().unwrap())
        .collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    for (user, points) in [(1, 1_000_000), (1_000, 1_000_000), (1_001, 0)] {
        assert_eq!(service.balance(user).await, points, "user {user}");
    }
    // As `boxoffice token issue --count 300 --format 'queue_token_{n}' --activated --guessable` asks.
    let issue =
        json!({"count": 300, "format": "queue_token_{n}", "activated": true, "guessable": true});
    fan.send(post("/admin/v1/tokens").admin().json(issue)).await.ok(201);
    for (concert, sessions, seats) in [(1, 10, 2_000), (4, 3, 50)] {
        let path = format!("/api/v1/concerts/{concert}/sessions");
        let list = fan.send(get(path).token("queue_token_7")).await.ok(200);
        let list = list["sessions"].as_array().unwrap();
        assert_eq!(list.len(), sessions, "concert {concert}");
        assert!(list.iter().all(|session| session["totalSeatCount"] == seats));
    }
    let closed = fan.send(get("/api/v1/concerts/3/sessions").token("queue_token_7")).await.ok(200);
    assert_eq!(closed["sessions"], json!([]));

    // The journey of existing clients: a user id as text, and a token that was issued before.
    let list = fan.send(get("/api/v1/concerts/1/sessions/1/seats").token("queue_token_7")).await;
    let seat = list.ok(200)["availableSeats"][5].clone();
    let (seat, price) = (seat["seatId"].clone(), seat["price"].as_i64().unwrap());
    let held = fan
        .send(
            post("/api/v1/concerts/1/sessions/1/reservations")
                .token("queue_token_7")
                .json(json!({"userId": "7", "seatIds": [seat]})),
        )
        .await
        .ok(201);
    let ask = json!({"userId": "7", "reservationId": held["reservationId"]});
    fan.send(post("/api/v1/payments").token("queue_token_7").json(ask)).await.ok(201);
    // It can be done many times over, with four seats each.
    assert!((1..=5_000).contains(&price), "{price}");
    assert_eq!(service.balance(7).await, 1_000_000 - price);

    // Not yet open, and no longer.
    for (concert, session, code) in
        [(2, 11, ErrorCode::ReservationNotOpen), (3, 13, ErrorCode::ReservationClosed)]
    {
        let path = format!("/api/v1/concerts/{concert}/sessions/{session}/seats");
        let list = fan.send(get(path.as_str()).token("queue_token_8")).await.ok(200);
        let seat = list["availableSeats"][0]["seatId"].clone();
        let ask = json!({"userId": 8, "seatIds": [seat]});
        let path = format!("/api/v1/concerts/{concert}/sessions/{session}/reservations");
        for key in [None, Some("a-key")] {
            let mut call = post(path.as_str()).token("queue_token_8").json(ask.clone());
            if let Some(key) = key {
                call = call.key(key);
            }
            fan.send(call).await.refused(code);
        }
    }
    let joined = fan.send(join(1)).await.ok(201);
    assert!(joined["token"].as_str().unwrap().starts_with("eyJ"));
    service.finish().await;
}
