//! The public document of a concert: what there is, what it costs and what is left of it.

use std::time::{Duration, Instant};

use boxoffice::http::problem::ErrorCode;
use serde_json::{Value, json};

use crate::common::{
    Call, FUTURE, OnSale, PAST, Reply, TestService, delete, get, patch, pay, post, until,
};

fn path(concert: i64) -> String {
    format!("/api/v1/concerts/{concert}")
}

async fn document(service: &TestService, concert: i64) -> Value {
    service.send(get(path(concert))).await.ok(200)
}

/// Waits until the document is as it should be. Returns how long that took.
async fn comes_to(service: &TestService, concert: i64, is: impl Fn(&Value) -> bool) -> Duration {
    let begun = Instant::now();
    until("the document", async || is(&document(service, concert).await).then_some(())).await;
    begun.elapsed()
}

async fn comes_to_state(service: &TestService, concert: i64, state: &str) {
    comes_to(service, concert, |document| document["state"] == state).await;
}

async fn concert(service: &TestService, opens: &str, closes: &str) -> i64 {
    let concert = json!({
        "name": "\"A\" \\ 콘서트 </script>", "venue": "A hall",
        "reservationOpensAt": opens, "reservationClosesAt": closes,
    });
    let made = service.send(post("/admin/v1/concerts").admin().json(concert)).await.ok(201);
    made["concertId"].as_i64().unwrap()
}

async fn call_off(service: &TestService, hall: &OnSale) {
    let path = format!("/admin/v1/concerts/{}/sessions/{}/cancel", hall.concert, hall.session);
    service.send(post(path).admin()).await.ok(200);
}

async fn bought(service: &TestService, hall: &OnSale, user: i64, numbers: &[i64]) {
    service.charge(user, 1_000_000).await;
    let token = service.token(user).await;
    let held = service.send(hall.reserve(&token, user, numbers)).await.ok(201);
    let reservation = held["reservationId"].as_i64().unwrap();
    service.send(pay(&token, user, reservation)).await.ok(201);
}

#[tokio::test]
async fn a_document_says_what_there_is_to_whoever_asks() {
    let service = TestService::start().await;
    let id = concert(&service, PAST, FUTURE).await;
    let late = service.session(id, 3, 500, "2098-05-01T19:00:00+09:00").await;
    let early = service.session(id, 2, 700, "2098-04-01T19:00:00+09:00").await;
    let more = format!("/admin/v1/concerts/{id}/sessions/{}/seats", late.session);
    for (seats, price) in [(4, 900), (1, 500)] {
        let more = post(&more).admin().json(json!({"seatCount": seats, "price": price}));
        service.send(more).await.ok(201);
    }
    let reply = service.send(get(path(id))).await;
    assert_eq!(reply.header("cache-control"), Some("public, max-age=1"));
    assert_eq!(reply.header("vary"), None);
    let mut document = reply.ok(200);
    let written = document.as_object_mut().unwrap().remove("serverTime").unwrap();
    let written: jiff::Timestamp = written.as_str().unwrap().parse().unwrap();
    assert!(written.duration_until(jiff::Timestamp::now()).as_secs() < 60, "{written}");
    let prices = json!([
        {"price": 900, "grade": null, "totalSeatCount": 4, "availableSeatCount": 4},
        {"price": 500, "grade": null, "totalSeatCount": 4, "availableSeatCount": 4},
    ]);
    assert_eq!(
        document,
        json!({
            "concertId": id, "name": "\"A\" \\ 콘서트 </script>", "venue": "A hall", "queue": "main",
            "reservationOpensAt": "2001-01-01T00:00:00.000Z",
            "reservationClosesAt": "2098-12-31T15:00:00.000Z",
            "state": "OPEN",
            "sessions": [
                {
                    "sessionId": early.session, "concertAt": "2098-04-01T10:00:00.000Z", "cancelled": false,
                    "totalSeatCount": 2, "availableSeatCount": 2, "plan": null,
                    "prices": [
                        {"price": 700, "grade": null, "totalSeatCount": 2, "availableSeatCount": 2},
                    ],
                },
                {
                    "sessionId": late.session, "concertAt": "2098-05-01T10:00:00.000Z", "cancelled": false,
                    "totalSeatCount": 8, "availableSeatCount": 8, "plan": null, "prices": prices,
                },
            ],
        })
    );
    // What the list says of it is the same.
    let list = service.send(get("/api/v1/concerts")).await.ok(200);
    for (field, value) in list["concerts"][0].as_object().unwrap() {
        assert_eq!(document[field], *value, "{field}");
    }
    service.finish().await;
}

#[tokio::test]
async fn a_document_is_the_same_by_whichever_way_it_is_asked_for() {
    let service = TestService::start().await;
    let hall = service.concert(5, 10).await;
    let mut fan = service.client();
    let head = |reply: &Reply| -> Vec<(String, String)> {
        let differs = ["x-request-id", "date"];
        let headers = reply.headers.iter().filter(|(name, _)| !differs.contains(&name.as_str()));
        headers.cloned().collect()
    };
    let at = path(hall.concert);
    let plain = fan.send(get(&at)).await;
    plain.ok(200);
    let told = |reply: &Reply| {
        let mut document = reply.ok(200);
        document["serverTime"] = Value::Null;
        document
    };
    let token = service.token(1).await;
    assert_eq!(hall.concert, 1);
    let escaped = "/api/v1/concerts/%31";
    for call in
        [get(format!("{at}?")), get(format!("{at}?x=1")), get(&at).token(&token), get(escaped)]
    {
        let reply = fan.send(call.clone()).await;
        assert_eq!((told(&reply), head(&reply)), (told(&plain), head(&plain)), "{}", call.path);
    }
    let reply = fan.send(Call::new("HEAD", &at)).await;
    assert_eq!((reply.status, head(&reply)), (200, head(&plain)));
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let reply = fan.send(Call::new(method, &at)).await;
        assert_eq!(reply.header("allow"), Some("GET,HEAD"), "{method}");
        reply.refused(ErrorCode::MethodNotAllowed);
    }
    for id in [
        "0",
        "-1",
        "+1",
        "01",
        "1.0",
        "1e0",
        "x",
        "%20",
        "%ff",
        "9223372036854775808",
        "%D9%A1",
        "18446744073709551617",
        "1%00",
        "1;2",
        "null",
    ] {
        let reply = fan.send(get(format!("/api/v1/concerts/{id}"))).await;
        reply.refused(ErrorCode::InvalidId);
    }
    for id in [2, 1_000_000, i64::MAX] {
        let reply = fan.send(get(path(id))).await;
        reply.refused(ErrorCode::ConcertNotFound);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    service.finish().await;
}

#[tokio::test]
async fn what_is_sold_held_and_given_back_shows_within_a_second() {
    let service = TestService::start().await;
    let hall = service.concert(4, 10).await;
    let free = |document: &Value| {
        let session = &document["sessions"][0];
        assert_eq!(session["totalSeatCount"], 4);
        assert_eq!(session["prices"][0]["availableSeatCount"], session["availableSeatCount"]);
        session["availableSeatCount"].as_u64().unwrap()
    };
    // A second, and what a busy machine adds.
    let soon = |took: Duration| assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(free(&document(&service, hall.concert).await), 4);
    bought(&service, &hall, 1, &[1]).await;
    soon(comes_to(&service, hall.concert, |it| free(it) == 3).await);
    let token = service.token(2).await;
    let held = service.send(hall.reserve(&token, 2, &[2, 3])).await.ok(201);
    soon(comes_to(&service, hall.concert, |it| free(it) == 1).await);
    let reservation = format!("/api/v1/reservations/{}", held["reservationId"]);
    service.send(delete(reservation).token(&token)).await.empty(204);
    soon(comes_to(&service, hall.concert, |it| free(it) == 3).await);
    service.finish().await;
}

#[tokio::test]
async fn sessions_that_are_added_moved_called_off_and_removed_show() {
    let service = TestService::start().await;
    let id = concert(&service, PAST, FUTURE).await;
    // Those of an open concert are still to be made.
    let empty = document(&service, id).await;
    assert_eq!((&empty["state"], &empty["sessions"]), (&json!("OPEN"), &json!([])));
    let [first, second, third] = [
        service.session(id, 2, 5, "2098-01-01T00:00:00Z").await,
        service.session(id, 2, 5, "2098-01-02T00:00:00Z").await,
        service.session(id, 2, 5, "2098-01-03T00:00:00Z").await,
    ];
    let order = |document: &Value| -> Vec<i64> {
        let sessions = document["sessions"].as_array().unwrap().iter();
        sessions.map(|session| session["sessionId"].as_i64().unwrap()).collect()
    };
    let all = [first.session, second.session, third.session];
    comes_to(&service, id, |it| order(it) == all).await;
    let of = |hall: &OnSale| format!("/admin/v1/concerts/{id}/sessions/{}", hall.session);
    let later = json!({"concertAt": "2098-02-01T00:00:00Z"});
    service.send(patch(of(&first)).admin().json(later)).await.ok(200);
    comes_to(&service, id, |it| order(it) == [second.session, third.session, first.session]).await;
    service.send(delete(of(&first)).admin()).await.empty(204);
    comes_to(&service, id, |it| order(it) == [second.session, third.session]).await;
    bought(&service, &second, 1, &[1]).await;
    call_off(&service, &second).await;
    comes_to(&service, id, |it| {
        let session = &it["sessions"][0];
        session["cancelled"] == true
            && session["availableSeatCount"] == 0
            && session["totalSeatCount"] == 2
    })
    .await;
    let rest = document(&service, id).await;
    assert_eq!(rest["state"], "OPEN");
    let other = &rest["sessions"][1];
    assert_eq!((&other["cancelled"], &other["availableSeatCount"]), (&json!(false), &json!(2)));
    // The refund frees its seat, and nobody can have that.
    until("the refund", async || (service.balance(1).await == 1_000_000).then_some(())).await;
    let refunded_at = service.now();
    let refunded = until("a later document", async || {
        let document = document(&service, id).await;
        let written: jiff::Timestamp = document["serverTime"].as_str().unwrap().parse().unwrap();
        (written > refunded_at).then_some(document)
    })
    .await;
    assert_eq!(refunded["sessions"][0]["availableSeatCount"], 0, "{refunded}");
    assert_eq!(refunded["sessions"][0]["prices"][0]["availableSeatCount"], 0, "{refunded}");
    call_off(&service, &third).await;
    comes_to_state(&service, id, "CANCELLED").await;
    // And the concert itself.
    let bare = concert(&service, PAST, FUTURE).await;
    document(&service, bare).await;
    service.send(delete(format!("/admin/v1/concerts/{bare}")).admin()).await.empty(204);
    until("the end", async || {
        let reply = service.send(get(path(bare))).await;
        (reply.code().as_deref() == Some("CONCERT_NOT_FOUND")).then_some(())
    })
    .await;
    service.finish().await;
}

#[tokio::test]
async fn the_state_of_a_concert_is_that_of_its_sale() {
    let service = TestService::start().await;
    let state = async |id: i64| document(&service, id).await["state"].as_str().unwrap().to_owned();
    let scheduled = concert(&service, FUTURE, "2100-01-01T00:00:00Z").await;
    assert_eq!(state(scheduled).await, "SCHEDULED");
    let closed = concert(&service, "2000-01-01T00:00:00Z", PAST).await;
    service.session(closed, 2, 0, FUTURE).await;
    assert_eq!(state(closed).await, "ENDED");
    // All that there was has begun, though the sale is open.
    let begun = concert(&service, PAST, FUTURE).await;
    service.session(begun, 2, 0, PAST).await;
    assert_eq!(state(begun).await, "ENDED");
    // What was called off is no session to come.
    let mixed = concert(&service, PAST, FUTURE).await;
    service.session(mixed, 2, 0, PAST).await;
    let off = service.session(mixed, 2, 0, FUTURE).await;
    assert_eq!(state(mixed).await, "OPEN");
    call_off(&service, &off).await;
    comes_to_state(&service, mixed, "ENDED").await;

    let hall = service.concert(2, 10).await;
    bought(&service, &hall, 1, &[1]).await;
    let token = service.token(2).await;
    let held = service.send(hall.reserve(&token, 2, &[2])).await.ok(201);
    comes_to(&service, hall.concert, |it| it["sessions"][0]["availableSeatCount"] == 0).await;
    // A seat that is held may come back.
    assert_eq!(state(hall.concert).await, "OPEN");
    service.charge(2, 1_000).await;
    let reservation = held["reservationId"].as_i64().unwrap();
    service.send(pay(&token, 2, reservation)).await.ok(201);
    comes_to_state(&service, hall.concert, "SOLD_OUT").await;
    // Its line says the same, as soon as nothing else is sold behind it.
    let more = service.session(hall.concert, 1, 10, FUTURE).await;
    comes_to_state(&service, hall.concert, "OPEN").await;
    call_off(&service, &more).await;
    comes_to_state(&service, hall.concert, "SOLD_OUT").await;
    let closes = json!({"reservationClosesAt": "2001-02-01T00:00:00Z"});
    let at = format!("/admin/v1/concerts/{}", hall.concert);
    service.send(patch(&at).admin().json(closes)).await.ok(200);
    comes_to_state(&service, hall.concert, "ENDED").await;
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_reads_sums_that_agree_and_only_fall_while_seats_are_sold() {
    let service = TestService::start().await;
    let hall = service.concert(60, 1).await;
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (mut fan, at) = (service.client(), path(hall.concert));
        readers.spawn(async move {
            let (mut before, mut read) = (60, 0_u64);
            loop {
                let document = fan.send(get(&at)).await.ok(200);
                let session = &document["sessions"][0];
                let free = session["availableSeatCount"].as_u64().unwrap();
                assert!(free <= before, "{free} after {before}");
                assert_eq!(session["prices"][0]["availableSeatCount"], free);
                (before, read) = (free, read + 1);
                if document["state"] == "SOLD_OUT" {
                    return (free, read);
                }
            }
        });
    }
    for user in 1..=15 {
        let numbers: Vec<i64> = (1..=4).map(|seat| (user - 1) * 4 + seat).collect();
        bought(&service, &hall, user, &numbers).await;
    }
    for (last, read) in readers.join_all().await {
        assert_eq!(last, 0);
        assert!(read > 15, "{read}");
    }
    service.finish().await;
}
