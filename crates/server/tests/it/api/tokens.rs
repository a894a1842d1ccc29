//! Who asks: forged tickets, opaque tokens, and whose doors a ticket opens.

use boxoffice::http::problem::ErrorCode;
use boxoffice::tickets::SigningKeys;
use boxoffice_domain::ids::{QueueName, TicketId, UserId};
use boxoffice_domain::queue::Ticket;
use boxoffice_domain::time::Timestamp;
use serde_json::{Value, json};

use crate::common::{
    BALANCE_MAX, Call, OnSale, TestService, delete, get, join, pay, post, status, until,
};

/// Everything behind the queue, as asked with this token; none leaves the header out.
fn doors(hall: &OnSale, token: Option<&str>) -> Vec<Call> {
    let calls = vec![
        get("/api/v1/waiting-queues"),
        delete("/api/v1/waiting-queues"),
        get(format!("/api/v1/concerts/{}/sessions", hall.concert)),
        get(hall.path("seats")),
        post(hall.path("reservations")).json(json!({"userId": 1, "seatIds": [hall.seat(1)]})),
        get("/api/v1/reservations"),
        get("/api/v1/reservations/1"),
        delete("/api/v1/reservations/1"),
        post("/api/v1/payments").json(json!({"userId": 1, "reservationId": 1})),
        post("/api/v1/payments/1/refund").json(json!({"userId": 1})),
    ];
    calls
        .into_iter()
        .map(|call| match token {
            Some(token) => call.token(token),
            None => call,
        })
        .collect()
}

#[tokio::test]
async fn without_a_token_of_ours_no_door_opens() {
    let service = TestService::start().await;
    let hall = service.concert(5, 0).await;
    let mut fan = service.client();
    for door in doors(&hall, None) {
        fan.send(door).await.refused(ErrorCode::TokenMissing);
    }
    let genuine = service.admitted(1).await;
    let parts: Vec<&str> = genuine.split('.').collect();
    let ticket = Ticket {
        queue: QueueName::new("main").unwrap(),
        seq: 1,
        user: UserId::new(1).unwrap(),
        issued_at: Timestamp(1_763_800_000_123),
        id: TicketId([7; 16]),
    };
    let others = SigningKeys::new(b"another key of thirty-two bytes!", []);
    let foreign = others.signed(&ticket).to_string();
    let mut flipped = genuine.clone().into_bytes();
    let last = flipped.len() - 10;
    flipped[last] = if flipped[last] == b'A' { b'B' } else { b'A' };
    // {"alg":"none","typ":"JWT"}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let forged = [
        genuine[..genuine.len() - 1].to_owned(),
        genuine[..20].to_owned(),
        genuine[1..].to_owned(),
        format!("{genuine}x"),
        format!("{genuine}="),
        format!("{genuine}.{}", parts[2]),
        String::from_utf8(flipped).unwrap(),
        foreign,
        format!("{none}.{}.", parts[1]),
        format!("{none}.{}.{}", parts[1], parts[2]),
        format!("{}..{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        "eyJ".to_owned(),
        "..".to_owned(),
        String::new(),
        "queue_token_1".to_owned(),
        "null".to_owned(),
        format!("eyJ{}", "A".repeat(600)),
        "x".repeat(7_000),
        format!("Bearer {genuine}"),
    ];
    for token in &forged {
        for door in doors(&hall, Some(token)) {
            let reply = fan.send(door).await;
            let body = reply.refused(ErrorCode::TokenInvalid);
            // A token may be somebody's, so no answer repeats it.
            assert!(token.len() < 20 || !body.to_string().contains(token.as_str()), "{body}");
        }
    }
    for door in doors(&hall, Some(&genuine)) {
        fan.send(door.token(&genuine)).await.refused(ErrorCode::DuplicateHeader);
    }
    for bad in [b"queue\xff".as_slice(), "größe".as_bytes(), b"a\tb"] {
        for door in doors(&hall, None) {
            let door = door.header("Queue-Token", bad);
            fan.send(door).await.refused(ErrorCode::InvalidHeader);
        }
    }
    // The genuine one opens all the same.
    fan.send(hall.seats(&genuine)).await.ok(200);
    service.finish().await;
}

#[tokio::test]
async fn a_token_opens_its_own_users_doors_only() {
    let service = TestService::start().await;
    let hall = service.concert(5, 0).await;
    let mut fan = service.client();
    for token in [service.admitted(1).await, service.token(1).await] {
        for body in [json!(2), json!("2"), json!(BALANCE_MAX)] {
            let ask = json!({"userId": body, "seatIds": [hall.seat(1)]});
            let call = post(hall.path("reservations")).token(&token).json(ask);
            fan.send(call.clone()).await.refused(ErrorCode::UserMismatch);
            fan.send(call.key("k")).await.refused(ErrorCode::UserMismatch);
            let ask = json!({"userId": body, "reservationId": 1});
            let call = post("/api/v1/payments").token(&token).json(ask);
            fan.send(call).await.refused(ErrorCode::UserMismatch);
        }
    }
    // Whose a reservation is counts, not who can name it.
    let (mine, yours) = (service.token(1).await, service.token(2).await);
    let held = fan.send(hall.reserve(&mine, 1, &[1])).await.ok(201);
    let id = held["reservationId"].as_i64().unwrap();
    let path = format!("/api/v1/reservations/{id}");
    fan.send(get(path.as_str()).token(&yours)).await.refused(ErrorCode::ReservationNotYours);
    fan.send(delete(path.as_str()).token(&yours)).await.refused(ErrorCode::ReservationNotYours);
    fan.send(pay(&yours, 2, id)).await.refused(ErrorCode::ReservationNotYours);
    assert_eq!(fan.send(get(path).token(&mine)).await.ok(200)["status"], "HELD");
    service.finish().await;
}

fn issue(ask: Value) -> Call {
    post("/admin/v1/tokens").admin().json(ask)
}

#[tokio::test]
async fn opaque_tokens_are_of_the_user_with_their_number() {
    let service = TestService::start().await;
    let hall = service.concert(100, 0).await;
    let mut fan = service.client();
    let issued = fan
        .send(issue(
            json!({"count": 5, "format": "queue_token_{n}", "activated": true, "guessable": true}),
        ))
        .await
        .ok(201);
    assert_eq!(issued["count"], 5);
    assert_eq!(issued["first"], "queue_token_1");
    assert_eq!(issued["last"], "queue_token_5");
    issued["activeUntil"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    for user in 1..=5 {
        let token = format!("queue_token_{user}");
        let place = fan.send(status(&token)).await.ok(200);
        assert_eq!((&place["userId"], &place["status"]), (&json!(user), &json!("ACTIVATED")));
        fan.send(hall.reserve(&token, user, &[user])).await.ok(201);
        fan.send(hall.reserve(&token, user + 1, &[9])).await.refused(ErrorCode::UserMismatch);
    }
    for unknown in
        ["queue_token_0", "queue_token_6", "queue_token_01", "QUEUE_TOKEN_1", "queue_token_{n}"]
    {
        fan.send(status(unknown)).await.refused(ErrorCode::TokenInvalid);
    }

    // All or none: 4 and 5 exist, so 6 is not issued either.
    let more = json!({
        "count": 3, "format": "queue_token_{n}", "activated": true, "guessable": true, "firstNumber": 4,
    });
    fan.send(issue(more)).await.refused(ErrorCode::AlreadyExists);
    fan.send(status("queue_token_6")).await.refused(ErrorCode::TokenInvalid);
    let more = json!({
        "count": 2, "format": "queue_token_{n}", "activated": true, "guessable": true, "firstNumber": 6, "userId": "77",
    });
    fan.send(issue(more)).await.ok(201);
    for number in [6, 7] {
        let place = fan.send(status(&format!("queue_token_{number}"))).await.ok(200);
        assert_eq!(place["userId"], 77);
    }

    // Without activation they join the end of the line.
    service.pause("main").await;
    let before = fan.send(join(1)).await.ok(201)["waitingNumber"].as_u64().unwrap();
    let issued = fan.send(issue(json!({"count": 3, "format": "late-{n}"}))).await.ok(201);
    assert_eq!(issued["activeUntil"], Value::Null);
    for user in 1..=3 {
        let place = fan.send(status(&format!("late-{user}"))).await.ok(200);
        assert_eq!(place["status"], "WAITING");
        assert_eq!(place["waitingNumber"], before + user);
    }
    fan.send(hall.reserve("late-2", 2, &[9])).await.refused(ErrorCode::TokenNotActivated);
    // A batch that is refused leaves no gap that anybody would have to wait for.
    fan.send(issue(json!({"count": 3, "format": "late-{n}"})))
        .await
        .refused(ErrorCode::AlreadyExists);
    let after = fan.send(join(1)).await.ok(201)["waitingNumber"].as_u64().unwrap();
    assert_eq!(after, before + 4);
    service.resume("main").await;
    until("admission", async || {
        let place = fan.send(status("late-3")).await.ok(200);
        (place["status"] == "ACTIVATED").then_some(())
    })
    .await;
    fan.send(hall.reserve("late-3", 3, &[9])).await.ok(201);
    service.finish().await;
}

#[tokio::test]
async fn what_cannot_be_issued_is_refused() {
    let service = TestService::start().await;
    let mut fan = service.client();
    for wrong in [
        json!({"count": 0, "format": "a{n}"}),
        json!({"count": 100_001, "format": "a{n}"}),
        json!({"count": 2, "format": "a"}),
        json!({"count": 1, "format": ""}),
        json!({"count": 1, "format": "a b"}),
        json!({"count": 1, "format": "ä"}),
        json!({"count": 1, "format": "a\r\nSet-Cookie: b"}),
        json!({"count": 1, "format": "x".repeat(201)}),
        json!({"count": 1, "format": "eyJ{n}"}),
        json!({"count": 1, "format": "a{n}", "firstNumber": 0}),
        json!({"count": 2, "format": "a{n}", "firstNumber": u32::MAX}),
        json!({"count": 1, "format": "a{n}", "activeSeconds": 0}),
    ] {
        fan.send(issue(wrong.clone())).await.refused(ErrorCode::InvalidSetting);
    }
    for wrong in [
        json!({"format": "a{n}"}),
        json!({"count": 1}),
        json!({"count": -1, "format": "a{n}"}),
        json!({"count": 1.5, "format": "a{n}"}),
        json!({"count": "many", "format": "a{n}"}),
        json!({"count": 1, "format": 7}),
        json!({"count": 1, "format": "a{n}", "userId": 0}),
        json!({"count": 1, "format": "a{n}", "activated": "yes"}),
        json!([]),
    ] {
        fan.send(issue(wrong)).await.refused(ErrorCode::InvalidField);
    }
    let unknown = json!({"count": 1, "format": "a{n}", "queue": "other"});
    fan.send(issue(unknown)).await.refused(ErrorCode::QueueNotFound);
    fan.send(status("a1")).await.refused(ErrorCode::TokenInvalid);
    service.finish().await;
}

#[tokio::test]
async fn an_opaque_token_runs_out_at_its_own_time() {
    let service = TestService::start().await;
    let hall = service.concert(5, 0).await;
    let mut fan = service.client();
    let ask = json!({"count": 1, "format": "short", "activated": true, "guessable": true, "activeSeconds": 1});
    fan.send(issue(ask)).await.ok(201);
    until("the end", async || {
        let place = fan.send(status("short")).await.ok(200);
        (place["status"] == "EXPIRED").then_some(())
    })
    .await;
    fan.send(hall.seats("short")).await.refused(ErrorCode::TokenExpired);
    fan.send(hall.reserve("short", 1, &[1])).await.refused(ErrorCode::TokenExpired);
    service.finish().await;
}

#[tokio::test]
async fn activated_tokens_cannot_be_guessed_unless_that_is_said() {
    let service = TestService::start().await;
    let mut fan = service.client();
    let guessable = json!({"count": 2, "format": "queue_token_{n}", "activated": true});
    let refused = fan.send(issue(guessable)).await.refused(ErrorCode::InvalidSetting);
    assert!(refused["detail"].as_str().unwrap().contains("{r}"), "{refused}");
    fan.send(status("queue_token_1")).await.refused(ErrorCode::TokenInvalid);
    // In the line there is nothing to be had by guessing.
    fan.send(issue(json!({"count": 2, "format": "late_{n}"}))).await.ok(201);

    let ask = || issue(json!({"count": 3, "format": "press_{n}_{r}", "activated": true}));
    let issued = fan.send(ask().key("press")).await.ok(201);
    let tokens: Vec<&str> =
        issued["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!((tokens.len(), &issued["count"]), (3, &json!(3)));
    assert_eq!((&issued["first"], &issued["last"]), (&json!(tokens[0]), &json!(tokens[2])));
    let mut parts = Vec::new();
    for (number, token) in (1..).zip(&tokens) {
        let part = token.strip_prefix(&format!("press_{number}_")).unwrap();
        assert!(part.len() == 32 && part.bytes().all(|b| b.is_ascii_hexdigit()), "{token}");
        assert!(!parts.contains(&part), "{tokens:?}");
        parts.push(part);
        let place = fan.send(status(token)).await.ok(200);
        assert_eq!((&place["userId"], &place["status"]), (&json!(number), &json!("ACTIVATED")));
    }
    // Told again under the key, they are the same; without it they are others.
    assert_eq!(fan.send(ask().key("press")).await.ok(201), issued);
    let others = fan.send(ask()).await.ok(201);
    assert_ne!(others["tokens"], issued["tokens"]);
    let one = json!({"count": 2, "format": "{r}{r}", "activated": true, "userId": 9});
    let one = fan.send(issue(one)).await.ok(201);
    assert_eq!(one["first"].as_str().unwrap().len(), 64);
    let long = json!({"count": 1, "format": "{r}".repeat(20), "activated": true});
    fan.send(issue(long)).await.refused(ErrorCode::InvalidSetting);
    service.finish().await;
}

#[tokio::test]
async fn the_admin_api_asks_for_its_token() {
    let service = TestService::start().await;
    let mut client = service.client();
    let calls = || {
        use boxoffice::endpoints::{Class, Route};
        let admin = Route::ALL.iter().filter(|route| route.class() == Class::Admin);
        admin.map(|route| {
            let path = route
                .template()
                .replace("{queue}", "main")
                .replace("{id}", "1")
                .replace("{name}", "desk-1")
                .replace("{sessionId}", "1");
            Call::new(route.method(), path).text("{}")
        })
    };
    assert!(calls().count() >= 22);
    for call in calls() {
        client.send(call.clone()).await.refused(ErrorCode::AdminTokenMissing);
        for (value, code) in [
            ("", ErrorCode::AdminTokenMissing),
            ("Bearer", ErrorCode::AdminTokenMissing),
            ("Basic YTpi", ErrorCode::AdminTokenMissing),
            ("Bearer wrong", ErrorCode::AdminTokenInvalid),
            ("bearer  ", ErrorCode::AdminTokenMissing),
            ("Bearer the-admin-token-of-the-test", ErrorCode::AdminTokenInvalid),
            ("Bearer the-admin-token-of-the-tests2", ErrorCode::AdminTokenInvalid),
        ] {
            let call = call.clone().header("Authorization", value);
            client.send(call).await.refused(code);
        }
        let twice = call.admin().admin();
        client.send(twice).await.refused(ErrorCode::DuplicateHeader);
    }
    let scheme = format!("bEaReR {}", crate::common::ADMIN);
    client.send(get("/admin/v1/queues").header("authorization", scheme)).await.ok(200);
    // A ticket is no admin token and the other way round.
    let ticket = service.admitted(1).await;
    let call = get("/admin/v1/queues").header("Authorization", format!("Bearer {ticket}"));
    client.send(call).await.refused(ErrorCode::AdminTokenInvalid);
    client.send(status(crate::common::ADMIN)).await.refused(ErrorCode::TokenInvalid);
    service.finish().await;
}
