//! The waiting queue: numbers, order, leaving, expiry, admission.

use std::time::{Duration, Instant};

use boxoffice::http::problem::ErrorCode;
use serde_json::{Value, json};

use crate::common::{
    Client, FUTURE, TestService, delete, get, join, patch, pay, post, status, until,
};

async fn joined(client: &mut Client, user: i64) -> (String, u64) {
    let joined = client.send(join(user)).await.ok(201);
    (joined["token"].as_str().unwrap().to_owned(), joined["waitingNumber"].as_u64().unwrap())
}

fn number(place: &Value) -> u64 {
    place["waitingNumber"].as_u64().unwrap()
}

fn leave(token: &str) -> crate::common::Call {
    delete("/api/v1/waiting-queues").token(token)
}

#[tokio::test]
async fn the_waiting_number_is_arithmetic_and_never_grows() {
    let service = TestService::start().await;
    service.pause("main").await;
    let mut fan = service.client();
    let mut line = Vec::new();
    for user in 1..=20 {
        let (token, number) = joined(&mut fan, user).await;
        assert_eq!(number, user as u64, "how many are ahead, plus one");
        line.push((token, number));
    }
    let document = service.queue("main").await;
    assert_eq!((&document["serving"], &document["waiting"]), (&json!(0), &json!(20)));

    // Whoever leaves moves those behind forward by one, and nobody else.
    fan.send(leave(&line[4].0)).await.empty(204);
    for (index, (token, before)) in line.iter_mut().enumerate() {
        let place = fan.send(status(token)).await.ok(200);
        if index == 4 {
            assert_eq!(place["status"], "EXPIRED");
            continue;
        }
        assert_eq!(place["status"], "WAITING");
        let wanted = if index < 4 { *before } else { *before - 1 };
        assert_eq!(number(&place), wanted);
        *before = wanted;
    }
    assert_eq!(service.queue("main").await["waiting"], 19);
    // A new fan comes behind all who wait.
    assert_eq!(joined(&mut fan, 21).await.1, 20);

    service.change_queue("main", json!({"admitPerSecond": 20})).await;
    service.resume("main").await;
    line.remove(4);
    until("everybody's turn", async || {
        let mut open = 0;
        // From the back, so that whoever is found in front later cannot have been overtaken.
        let mut behind_is_in = false;
        for (token, before) in line.iter_mut().rev() {
            let place = fan.send(status(token)).await.ok(200);
            let number = number(&place);
            assert!(number <= *before, "{number} after {before}");
            *before = number;
            let waits = place["status"] == "WAITING";
            assert_eq!(waits, number > 0);
            assert!(!(waits && behind_is_in), "somebody behind was let in first");
            behind_is_in |= !waits;
            open += usize::from(waits);
        }
        (open == 0).then_some(())
    })
    .await;
    service.finish().await;
}

#[tokio::test]
async fn a_client_can_compute_its_position_from_the_public_document() {
    let service = TestService::start().await;
    service.pause("main").await;
    let mut fan = service.client();
    for user in 1..=5 {
        joined(&mut fan, user).await;
    }
    let reply = fan.send(get("/api/v1/waiting-queues/main")).await;
    assert!(reply.header("cache-control").unwrap().contains("max-age=1"));
    let document = reply.ok(200);
    for (field, value) in [
        ("queue", json!("main")),
        ("serving", json!(0)),
        ("waiting", json!(5)),
        ("admitPerSecond", json!(300.0)),
        ("state", json!("PAUSED")),
        ("opensAt", Value::Null),
    ] {
        assert_eq!(document[field], value, "{field}");
    }
    service.resume("main").await;
    until("admission", async || (service.queue("main").await["serving"] == 5).then_some(())).await;
    let document = service.queue("main").await;
    assert_eq!((&document["state"], &document["waiting"]), (&json!("OPEN"), &json!(0)));
    service.finish().await;
}

#[tokio::test]
async fn leaving_is_for_good() {
    let service = TestService::start().await;
    let hall = service.concert(5, 0).await;
    let mut fan = service.client();
    let active = service.admitted(1).await;
    service.pause("main").await;
    let (waiting, _) = joined(&mut fan, 2).await;
    let opaque = service.token(3).await;
    for (user, token) in [(1, active), (2, waiting), (3, opaque)] {
        fan.send(leave(&token)).await.empty(204);
        assert_eq!(fan.send(status(&token)).await.ok(200)["status"], "EXPIRED");
        // Once more changes nothing, and is what was asked.
        fan.send(leave(&token)).await.empty(204);
        fan.send(hall.seats(&token)).await.refused(ErrorCode::TokenSpent);
        fan.send(hall.reserve(&token, user, &[1])).await.refused(ErrorCode::TokenSpent);
        fan.send(hall.reserve(&token, user, &[1]).key("k")).await.refused(ErrorCode::TokenSpent);
    }
    service.resume("main").await;
    // The place that was given up holds nobody up.
    service.admitted(4).await;
    service.finish().await;
}

#[tokio::test]
async fn a_ticket_runs_out_but_not_what_it_holds() {
    let service = TestService::start_with(|config| {
        config.queue.active_ttl_seconds = 1;
        config.queue.claim_window_seconds = 1;
    })
    .await;
    let hall = service.concert(5, 10).await;
    service.charge(1, 100).await;
    let mut fan = service.client();
    let joined = fan.send(join(1)).await.ok(201);
    let token = joined["token"].as_str().unwrap().to_owned();
    let held = until("a hold", async || {
        let reply = fan.send(hall.reserve(&token, 1, &[1])).await;
        if reply.status == 403 {
            reply.refused(ErrorCode::TokenNotActivated);
            return None;
        }
        Some(reply.ok(201))
    })
    .await;
    until("the end", async || {
        let place = fan.send(status(&token)).await.ok(200);
        (place["status"] == "EXPIRED").then_some(())
    })
    .await;
    let sessions = format!("/api/v1/concerts/{}/sessions", hall.concert);
    for door in [get(sessions).token(&token), hall.seats(&token), hall.reserve(&token, 1, &[2])] {
        fan.send(door.clone()).await.refused(ErrorCode::TokenExpired);
    }
    let keyed = hall.reserve(&token, 1, &[2]).key("k");
    fan.send(keyed).await.refused(ErrorCode::TokenExpired);
    // The hold was promised for five minutes when it was made.
    let reservation = held["reservationId"].as_i64().unwrap();
    fan.send(pay(&token, 1, reservation)).await.ok(201);
    service.finish().await;
}

#[tokio::test]
async fn no_more_are_active_than_allowed_and_a_no_show_makes_room() {
    let service = TestService::start_with(|config| {
        config.queue.max_active = Some(2);
        config.queue.claim_window_seconds = 1;
        config.queue.active_ttl_seconds = 60;
    })
    .await;
    let hall = service.concert(5, 0).await;
    service.pause("main").await;
    let mut fan = service.client();
    let mut tokens = Vec::new();
    for user in 1..=4 {
        tokens.push(joined(&mut fan, user).await.0);
    }
    service.resume("main").await;
    let active = async || {
        let list = service.send(get("/admin/v1/queues").admin()).await.ok(200);
        let queue = &list["queues"][0];
        (queue["active"].as_u64().unwrap(), queue["serving"].as_u64().unwrap())
    };
    // The first shows up; the second does not, and after the claim window the third comes in.
    until("the first", async || {
        let place = fan.send(status(&tokens[0])).await.ok(200);
        (place["status"] == "ACTIVATED").then_some(())
    })
    .await;
    let (_, serving) = active().await;
    assert_eq!(serving, 2);
    until("the third", async || {
        let (active, serving) = active().await;
        assert!(active <= 2, "{active} are active");
        (serving == 3).then_some(())
    })
    .await;
    assert_eq!(fan.send(status(&tokens[0])).await.ok(200)["status"], "ACTIVATED");
    // Now that it is seen, it stays; so the fourth waits however long, until somebody is done.
    assert_eq!(fan.send(status(&tokens[2])).await.ok(200)["status"], "ACTIVATED");
    until("the claim to be noted", async || (active().await.0 == 2).then_some(())).await;
    let deadline = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < deadline {
        assert_eq!(active().await.1, 3, "the fourth is let in while two are active");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Whoever comes late is not sent away: the ticket is good for its whole time.
    assert_eq!(fan.send(status(&tokens[1])).await.ok(200)["status"], "ACTIVATED");
    until("the late claim to be noted", async || (active().await.0 == 3).then_some(())).await;

    // A purchase and a departure make room for one, as there was one too many.
    let held = fan.send(hall.reserve(&tokens[0], 1, &[1])).await.ok(201);
    fan.send(pay(&tokens[0], 1, held["reservationId"].as_i64().unwrap())).await.ok(201);
    fan.send(leave(&tokens[1])).await.empty(204);
    until("the fourth", async || (active().await.1 == 4).then_some(())).await;
    assert_eq!(fan.send(status(&tokens[3])).await.ok(200)["status"], "ACTIVATED");
    service.finish().await;
}

#[tokio::test]
async fn an_operator_pauses_and_resumes() {
    let service = TestService::start().await;
    let mut fan = service.client();
    service.pause("main").await;
    assert_eq!(service.queue("main").await["state"], "PAUSED");
    let joined = fan.send(join(1)).await.ok(201);
    assert_eq!(joined["status"], "WAITING");
    assert_eq!(joined["etaSeconds"], Value::Null, "nobody knows how long a pause lasts");
    assert!((2_500..=5_000).contains(&joined["pollAfterMs"].as_u64().unwrap()));
    let token = joined["token"].as_str().unwrap();
    let hall = service.concert(5, 0).await;
    fan.send(hall.seats(token)).await.refused(ErrorCode::TokenNotActivated);
    fan.send(hall.reserve(token, 1, &[1])).await.refused(ErrorCode::TokenNotActivated);
    fan.send(pay(token, 1, 1)).await.refused(ErrorCode::TokenNotActivated);
    let reservation = get("/api/v1/reservations/1").token(token);
    fan.send(reservation).await.refused(ErrorCode::TokenNotActivated);
    service.resume("main").await;
    assert_eq!(service.queue("main").await["state"], "OPEN");
    until("admission", async || {
        let place = fan.send(status(token)).await.ok(200);
        (place["status"] == "ACTIVATED").then_some(())
    })
    .await;
    service.finish().await;
}

/// Whatever else is changed at the same moment: a pause holds, and so does the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_and_a_change_at_once_both_stand() {
    let service = TestService::start().await;
    let (mut one, mut other) = (service.client(), service.client());
    let pause = || post("/admin/v1/queues/main/pause").admin();
    let change = |change: Value| patch("/admin/v1/queues/main").admin().json(change);
    for round in 1..=60 {
        service.resume("main").await;
        let bound = if round % 2 == 0 { json!(round) } else { Value::Null };
        let asked = change(json!({"admitPerSecond": 300 + round, "maxActive": bound}));
        let (paused, changed) = tokio::join!(one.send(pause()), other.send(asked));
        assert_eq!((paused.status, changed.status), (200, 200));
        let listed = one.send(get("/admin/v1/queues").admin()).await.ok(200);
        let main = &listed["queues"][0];
        assert_eq!(main["state"], "PAUSED", "round {round}");
        assert_eq!(main["admitPerSecond"], 300.0 + f64::from(round), "round {round}");
        assert_eq!(main["maxActive"], bound, "round {round}");
    }
    // The store says the same as memory.
    let service = service.restart(|_| {}).await;
    let main = service.change_queue("main", json!({})).await;
    assert_eq!((&main["state"], &main["admitPerSecond"]), (&json!("PAUSED"), &json!(360.0)));
    assert_eq!(main["maxActive"], 60);
    service.finish().await;
}

#[tokio::test]
async fn an_operator_changes_the_rate() {
    let service = TestService::start().await;
    service.pause("main").await;
    let changed = service.change_queue("main", json!({"admitPerSecond": 10})).await;
    assert_eq!(changed["admitPerSecond"], 10.0);
    assert_eq!(changed["state"], "PAUSED");
    let mut fan = service.client();
    let mut last = Value::Null;
    for user in 1..=25 {
        last = fan.send(join(user)).await.ok(201);
    }
    service.resume("main").await;
    let resumed = Instant::now();
    let token = last["token"].as_str().unwrap();
    let place = fan.send(status(token)).await.ok(200);
    let wait = number(&place).div_ceil(10);
    assert_eq!(place["etaSeconds"], wait, "{place}");
    until("the last", async || {
        let serving = service.queue("main").await["serving"].as_u64().unwrap();
        // The bucket starts empty at the end of a pause, so no burst comes on top.
        let allowed = resumed.elapsed().as_secs_f64() * 10.0 + 3.0;
        assert!(serving as f64 <= allowed, "{serving} after {:?}", resumed.elapsed());
        (serving == 25).then_some(())
    })
    .await;
    for wrong in [json!(0), json!(-1), json!(1e9), json!(0.0001)] {
        let call = patch("/admin/v1/queues/main").admin().json(json!({"admitPerSecond": wrong}));
        fan.send(call).await.refused(ErrorCode::InvalidSetting);
    }
    assert_eq!(service.queue("main").await["admitPerSecond"], 10.0);
    service.finish().await;
}

#[tokio::test]
async fn a_queue_opens_at_its_time() {
    let service = TestService::start().await;
    let mut fan = service.client();
    service.change_queue("main", json!({"opensAt": FUTURE})).await;
    let document = service.queue("main").await;
    assert_eq!(document["state"], "SCHEDULED");
    let opens_at: jiff::Timestamp = document["opensAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(opens_at, FUTURE.parse().unwrap());
    let joined = fan.send(join(1)).await.ok(201);
    assert_eq!(joined["status"], "WAITING");
    assert!(joined["etaSeconds"].as_u64().unwrap() > 1_000_000);
    // Other settings leave the time as it is; null removes it.
    service.change_queue("main", json!({"admitPerSecond": 50})).await;
    assert_eq!(service.queue("main").await["state"], "SCHEDULED");

    let soon = service.now() + Duration::from_millis(1_200);
    service.change_queue("main", json!({"opensAt": soon.to_string()})).await;
    let token = joined["token"].as_str().unwrap();
    until("the opening", async || {
        let place = fan.send(status(token)).await.ok(200);
        if place["status"] == "ACTIVATED" {
            assert!(service.now() >= soon, "let in before the opening");
            return Some(());
        }
        None
    })
    .await;
    assert_eq!(service.queue("main").await["state"], "OPEN");
    assert_eq!(service.queue("main").await["opensAt"], Value::Null);
    service.change_queue("main", json!({"opensAt": FUTURE})).await;
    service.change_queue("main", json!({"opensAt": null})).await;
    assert_eq!(service.queue("main").await["state"], "OPEN");
    service.finish().await;
}

#[tokio::test]
async fn a_queue_is_sold_out_once_everything_behind_it_is() {
    let service = TestService::start().await;
    let hall = service.concert(2, 0).await;
    let mut fan = service.client();
    let state = async |wanted: &str| {
        until(wanted, async || (service.queue("main").await["state"] == wanted).then_some(()))
            .await;
    };
    let token = service.token(1).await;
    let held = fan.send(hall.reserve(&token, 1, &[1, 2])).await.ok(201);
    // A hold may come back: only what is paid is sold.
    assert_eq!(service.queue("main").await["state"], "OPEN");
    fan.send(pay(&token, 1, held["reservationId"].as_i64().unwrap())).await.ok(201);
    state("SOLD_OUT").await;
    let sessions = format!("/api/v1/concerts/{}/sessions", hall.concert);
    let token = service.token(2).await;
    let list = fan.send(get(sessions).token(&token)).await.ok(200);
    assert_eq!(list["sessions"], json!([]), "nothing can be booked");
    fan.send(join(3)).await.refused(ErrorCode::QueueSoldOut);

    let path = format!("/admin/v1/concerts/{}/sessions/{}/seats", hall.concert, hall.session);
    let more = json!({"seatCount": 3, "price": 5});
    let added = fan.send(post(path).admin().json(more)).await.ok(201);
    assert_eq!(added["seatCount"], 3);
    state("OPEN").await;
    let seat = added["firstSeatId"].as_i64().unwrap();
    let ask = json!({"userId": 2, "seatIds": [seat]});
    let held = fan.send(post(hall.path("reservations")).token(&token).json(ask)).await.ok(201);
    assert_eq!(held["reservedSeats"][0], json!({"seatId": seat, "number": 3, "price": 5}));
    service.finish().await;
}

#[tokio::test]
async fn queues_are_apart() {
    let service = TestService::start().await;
    let mut fan = service.client();
    let vip = json!({"queue": "vip", "admitPerSecond": 50, "maxActive": 10});
    let made = fan.send(post("/admin/v1/queues").admin().json(vip.clone())).await.ok(201);
    assert_eq!(made["queue"], "vip");
    assert_eq!((&made["admitPerSecond"], &made["maxActive"]), (&json!(50.0), &json!(10)));
    fan.send(post("/admin/v1/queues").admin().json(vip)).await.refused(ErrorCode::AlreadyExists);
    let main = service.concert(5, 0).await;
    let vip = service.concert_in("vip", 5, 0).await;

    // Each pauses for itself.
    service.pause("main").await;
    let ask = json!({"userId": 1, "queue": "vip"});
    let joined = fan.send(post("/api/v1/waiting-queues").json(ask)).await.ok(201);
    let token = joined["token"].as_str().unwrap().to_owned();
    until("admission", async || {
        let place = fan.send(status(&token)).await.ok(200);
        assert_eq!(place["queue"], "vip");
        (place["status"] == "ACTIVATED").then_some(())
    })
    .await;
    fan.send(vip.seats(&token)).await.ok(200);
    fan.send(vip.reserve(&token, 1, &[1])).await.ok(201);
    let sessions = format!("/api/v1/concerts/{}/sessions", main.concert);
    fan.send(get(sessions).token(&token)).await.refused(ErrorCode::WrongQueue);
    fan.send(main.seats(&token)).await.refused(ErrorCode::WrongQueue);
    fan.send(main.reserve(&token, 1, &[1])).await.refused(ErrorCode::WrongQueue);
    fan.send(main.reserve(&token, 1, &[1]).key("k")).await.refused(ErrorCode::WrongQueue);

    for unknown in ["/api/v1/waiting-queues/other", "/api/v1/waiting-queues/MAIN"] {
        fan.send(get(unknown)).await.refused(ErrorCode::QueueNotFound);
    }
    let ask = json!({"userId": 1, "queue": "other"});
    fan.send(post("/api/v1/waiting-queues").json(ask)).await.refused(ErrorCode::QueueNotFound);
    for path in ["/admin/v1/queues/other/pause", "/admin/v1/queues/other/resume"] {
        fan.send(post(path).admin()).await.refused(ErrorCode::QueueNotFound);
    }
    for name in ["", "A", "a b", "ä", &"x".repeat(41)] {
        let ask = json!({"queue": name});
        let refused = fan.send(post("/admin/v1/queues").admin().json(ask)).await;
        refused.refused(ErrorCode::InvalidSetting);
    }

    // They are there after a restart, each as it was.
    let service = service.restart(|_| ()).await;
    let mut fan = service.client();
    assert_eq!(service.queue("main").await["state"], "PAUSED");
    assert_eq!(service.queue("vip").await["admitPerSecond"], 50.0);
    assert_eq!(fan.send(status(&token)).await.ok(200)["status"], "ACTIVATED");
    fan.send(vip.seats(&token)).await.ok(200);
    service.finish().await;
}

#[tokio::test]
async fn many_join_at_once_and_each_has_a_place_of_its_own() {
    let service = TestService::start().await;
    service.pause("main").await;
    let mut joins = tokio::task::JoinSet::new();
    for user in 1..=200 {
        let mut fan = service.client();
        joins.spawn(async move { joined(&mut fan, user).await.1 });
    }
    let mut numbers = joins.join_all().await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<u64>>());
    service.finish().await;
}
