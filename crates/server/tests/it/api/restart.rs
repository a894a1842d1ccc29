//! What survives a restart, and what stops one.

use boxoffice::config::{Secret, StoreKind};
use boxoffice::http::problem::ErrorCode;
use boxoffice::service::Service;
use serde_json::json;

use crate::common::{TestService, charge, delete, get, join, pay, post, status, until};

#[tokio::test]
async fn everything_that_was_promised_survives() {
    let service = TestService::start_with(|config| config.queue.active_ttl_seconds = 3_600).await;
    let hall = service.concert(30, 10).await;
    service.charge(1, 1_000).await;
    let mut fan = service.client();
    let issue =
        json!({"count": 3, "format": "queue_token_{n}", "activated": true, "guessable": true});
    fan.send(post("/admin/v1/tokens").admin().json(issue)).await.ok(201);
    fan.send(delete("/api/v1/waiting-queues").token("queue_token_3")).await.empty(204);
    // Of three who were let in, one pays, one leaves, one goes on.
    let (paying, leaving, staying) =
        (service.admitted(1).await, service.admitted(2).await, service.admitted(3).await);
    let held = fan.send(hall.reserve(&paying, 1, &[1])).await.ok(201);
    let paid = held["reservationId"].as_i64().unwrap();
    fan.send(pay(&paying, 1, paid)).await.ok(201);
    fan.send(delete("/api/v1/waiting-queues").token(&leaving)).await.empty(204);
    let held = fan.send(hall.reserve(&staying, 3, &[2, 3])).await.ok(201);
    let open = held["reservationId"].as_i64().unwrap();
    let until_before = fan.send(status(&staying)).await.ok(200)["activeUntil"].clone();

    service.pause("main").await;
    let mut line = Vec::new();
    for user in 10..20 {
        let joined = fan.send(join(user)).await.ok(201);
        line.push(joined["token"].as_str().unwrap().to_owned());
    }
    fan.send(delete("/api/v1/waiting-queues").token(&line[2])).await.empty(204);
    let mut numbers = Vec::new();
    for token in &line {
        let place = fan.send(status(token)).await.ok(200);
        numbers.push(place["waitingNumber"].as_u64().unwrap());
    }
    let document = service.queue("main").await;

    let mut service = service;
    for _ in 0..2 {
        service = service.restart(|_| ()).await;
        let mut fan = service.client();
        assert_eq!(service.queue("main").await, document);
        for (token, before) in line.iter().zip(&numbers) {
            let place = fan.send(status(token)).await.ok(200);
            assert_eq!(place["waitingNumber"], *before);
            assert_eq!(place["status"], if *before == 0 { "EXPIRED" } else { "WAITING" });
        }
        let place = fan.send(status(&staying)).await.ok(200);
        assert_eq!(place["status"], "ACTIVATED");
        assert_eq!(place["activeUntil"], until_before, "no more time, and no less");
        for over in [&paying, &leaving] {
            assert_eq!(fan.send(status(over)).await.ok(200)["status"], "EXPIRED");
            fan.send(hall.seats(over)).await.refused(ErrorCode::TokenSpent);
        }
        assert_eq!(fan.send(status("queue_token_1")).await.ok(200)["status"], "ACTIVATED");
        assert_eq!(fan.send(status("queue_token_3")).await.ok(200)["status"], "EXPIRED");
        fan.send(status("queue_token_4")).await.refused(ErrorCode::TokenInvalid);
        assert_eq!(service.balance(1).await, 990);
        fan.send(pay(&paying, 1, paid)).await.refused(ErrorCode::AlreadyPaid);
        let shown = fan.send(get(format!("/api/v1/reservations/{open}")).token(&staying)).await;
        let shown = shown.ok(200);
        assert_eq!((&shown["status"], &shown["expiresAt"]), (&json!("HELD"), &held["expiresAt"]));
        fan.send(hall.reserve("queue_token_1", 1, &[2])).await.refused(ErrorCode::SeatTaken);
        fan.send(hall.reserve("queue_token_1", 1, &[1])).await.refused(ErrorCode::SeatTaken);
    }
    // And the sale goes on where it was.
    let mut fan = service.client();
    service.charge(3, 100).await;
    fan.send(pay(&staying, 3, open)).await.ok(201);
    let next = fan.send(join(99)).await.ok(201)["waitingNumber"].as_u64().unwrap();
    assert_eq!(next, 10, "behind the nine who wait, with no gap from the restart");
    service.resume("main").await;
    until("the last of the line", async || {
        let place = fan.send(status(&line[9])).await.ok(200);
        (place["status"] == "ACTIVATED").then_some(())
    })
    .await;
    service.finish().await;
}

#[tokio::test]
async fn a_hold_that_runs_out_while_the_service_is_away_is_free() {
    let service = TestService::start_with(|config| config.sales.hold_seconds = 1).await;
    let hall = service.concert(5, 0).await;
    let (slow, next) = (service.token(1).await, service.token(2).await);
    let held = service.send(hall.reserve(&slow, 1, &[1])).await.ok(201);
    let id = held["reservationId"].as_i64().unwrap();
    let service = service.restart(|_| ()).await;
    let mut fan = service.client();
    until("the seat", async || {
        let reply = fan.send(hall.reserve(&next, 2, &[1])).await;
        (reply.status == 201).then_some(())
    })
    .await;
    fan.send(pay(&slow, 1, id)).await.refused(ErrorCode::HoldExpired);
    service.finish().await;
}

#[tokio::test]
async fn another_signing_key_is_refused_and_a_rotated_one_accepted() {
    let key = |name: &str| Secret::new(format!("{name}: a key of more than thirty-two bytes"));
    let mut service = TestService::start_with(|config| {
        config.ticket.signing_key = Some(key("first"));
    })
    .await;
    let token = service.admitted(1).await;
    let hall = service.concert(5, 0).await;
    for wrong in [Some(key("second")), None] {
        let error;
        (service, error) =
            service.restart_in_vain(|config| config.ticket.signing_key = wrong).await;
        assert!(error.contains("ticket.signing_key"), "{error}");
        assert!(error.contains("BOXOFFICE_TICKET__SIGNING_KEY"), "{error}");
        assert!(error.contains("ticket.previous_signing_keys"), "{error}");
        assert!(!error.contains("thirty-two"), "the key itself is told: {error}");
        // Nothing is broken by the attempt: the old key opens as before.
        service.send(hall.seats(&token)).await.ok(200);
    }

    let service = service
        .restart(|config| {
            config.ticket.signing_key = Some(key("second"));
            config.ticket.previous_signing_keys = vec![key("first")];
        })
        .await;
    service.send(hall.seats(&token)).await.ok(200);
    let newer = service.admitted(2).await;
    assert_ne!(token.split('.').next(), newer.split('.').next(), "signed with the new key");
    // Once the old key is gone, so are its tickets; the new ones stay.
    let service = service.restart(|config| config.ticket.previous_signing_keys.clear()).await;
    service.send(hall.seats(&token)).await.refused(ErrorCode::TokenInvalid);
    service.send(hall.seats(&newer)).await.ok(200);
    service.finish().await;
}

#[tokio::test]
async fn one_store_is_for_one_service() {
    let service = TestService::start().await;
    service.charge(1, 5).await;
    let mut second = service.config.clone();
    second.demo.seed = true;
    let Err(error) = Service::start(second).await else { panic!("two services on one store") };
    let error = error.to_string();
    match service.config.store.kind {
        StoreKind::Sqlite => {
            assert!(error.contains(&service.data_dir().display().to_string()), "{error}");
            assert!(error.contains("--data-dir"), "{error}");
        }
        StoreKind::Mysql => assert!(error.contains("another instance uses"), "{error}"),
    }
    // The first one does not notice.
    assert_eq!(service.balance(1).await, 5);
    service.send(charge(1, 1)).await.ok(200);
    let noted = std::fs::read_to_string(service.data_dir().join("boxoffice.addr")).unwrap();
    assert_eq!(noted, service.address().to_string());
    service.finish().await;
}

#[tokio::test]
async fn an_address_in_use_is_told() {
    let service = TestService::start().await;
    let taken = service.address();
    let other = TestService::start().await;
    let (other, error) = other.restart_in_vain(|config| config.server.listen = taken).await;
    assert!(error.contains(&taken.to_string()) && error.contains("--listen"), "{error}");
    other.finish().await;
    service.finish().await;
}

#[tokio::test]
async fn a_generated_admin_token_is_kept_to_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let service = TestService::start().await;
    let path = service.data_dir().join("admin.token");
    assert!(!path.exists(), "a configured token needs no file");
    let without = service.config.clone();
    service.finish().await;
    // A service without the test's helper, because that one knows only the configured token.
    let directory = tempfile::TempDir::new().unwrap();
    let mut config = without;
    config.data_dir = directory.path().join("data");
    config.admin.token = None;
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let running = Service::start(config.clone()).await.unwrap();
        let path = config.data_dir.join("admin.token");
        let token = std::fs::read_to_string(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut client = crate::common::Client::new(running.address());
        let call = get("/admin/v1/queues").header("Authorization", format!("Bearer {token}"));
        client.send(call).await.ok(200);
        running.stop().await;
        tokens.push(token);
    }
    assert_eq!(tokens[0], tokens[1], "the same after a restart");
}

#[tokio::test]
async fn a_changed_configuration_is_in_force() {
    let service = TestService::start().await;
    let hall = service.concert(10, 0).await;
    let token = service.admitted(1).await;
    service.change_queue("main", json!({"admitPerSecond": 77})).await;
    let service = service
        .restart(|config| {
            config.sales.max_seats_per_reservation = 2;
            config.sales.max_seats_per_user = 3;
            config.sales.hold_seconds = 60;
            config.queue.admit_per_second = 5.0;
            config.server.max_body_bytes = 1_024;
        })
        .await;
    let mut fan = service.client();
    fan.send(hall.reserve(&token, 1, &[1, 2, 3])).await.refused(ErrorCode::TooManySeats);
    let held = fan.send(hall.reserve(&token, 1, &[1, 2])).await.ok(201);
    let expires_at: jiff::Timestamp = held["expiresAt"].as_str().unwrap().parse().unwrap();
    let left = expires_at.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((50..=60).contains(&left), "{left}");
    fan.send(hall.reserve(&token, 1, &[3, 4])).await.refused(ErrorCode::SeatLimitReached);
    let long = format!("{{\"userId\": 1, \"x\": \"{}\"}}", "x".repeat(2_000));
    let reply = fan.send(post("/api/v1/waiting-queues").text(long)).await;
    reply.refused(ErrorCode::BodyTooLarge);
    // What an operator set while it ran outlasts the configuration.
    assert_eq!(service.queue("main").await["admitPerSecond"], 77.0);

    // The time that tickets are good for is the configuration's, also for those that are out.
    let service = service
        .restart(|config| {
            config.queue.active_ttl_seconds = 1;
            config.queue.claim_window_seconds = 1;
        })
        .await;
    let mut fan = service.client();
    until("the end of the ticket", async || {
        (fan.send(status(&token)).await.ok(200)["status"] == "EXPIRED").then_some(())
    })
    .await;
    until("the end to be noted", async || {
        let text = String::from_utf8(fan.send(get("/metrics")).await.body).unwrap();
        let over = |name: &str| text.contains(&format!("{name}_total{{queue=\"main\"}} 1\n"));
        (over("boxoffice_queue_expired") || over("boxoffice_queue_no_show")).then_some(())
    })
    .await;
    // And time that ran out does not come back with a longer one.
    let service = service.restart(|config| config.queue.active_ttl_seconds = 3_600).await;
    let place = service.send(status(&token)).await.ok(200);
    assert_eq!(place["status"], "EXPIRED");

    // Another default queue: the old one stays.
    let service = service.restart(|config| config.queue.default = "second".to_owned()).await;
    let joined = service.send(join(5)).await.ok(201);
    let place = service.send(status(joined["token"].as_str().unwrap())).await.ok(200);
    assert_eq!(place["queue"], "second");
    assert_eq!(service.queue("main").await["admitPerSecond"], 77.0);
    assert_eq!(service.queue("second").await["admitPerSecond"], 5.0);
    service.finish().await;
}

#[tokio::test]
async fn demo_data_fills_an_empty_store_only() {
    let service = TestService::start().await;
    service.concert(5, 0).await;
    let service = service.restart(|config| config.demo.seed = true).await;
    assert!(!service.running().seeded());
    let list = service.send(get("/api/v1/concerts")).await.ok(200);
    assert_eq!(list["concerts"].as_array().unwrap().len(), 1);
    service.finish().await;
}

#[tokio::test]
async fn events_are_published_once_each_and_in_order() {
    let service = TestService::start().await;
    let hall = service.concert(5, 10).await;
    service.charge(1, 100).await;
    let token = service.token(1).await;
    let mut fan = service.client();
    let first = fan.send(hall.reserve(&token, 1, &[1])).await.ok(201);
    let path = format!("/api/v1/reservations/{}", first["reservationId"]);
    fan.send(delete(path).token(&token)).await.empty(204);
    let second = fan.send(hall.reserve(&token, 1, &[2])).await.ok(201);
    fan.send(pay(&token, 1, second["reservationId"].as_i64().unwrap())).await.ok(201);
    let service = service.restart(|_| ()).await;
    let text = std::fs::read_to_string(service.config.events_path()).unwrap();
    let mut ids = Vec::new();
    let mut kinds = Vec::new();
    for line in text.lines() {
        let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
        // The line may be an envelope of its own around the event.
        if event.get("type").is_none() {
            event = event["event"].take();
        }
        ids.push(event["id"].to_string());
        kinds.push(event["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds.len(), 5, "{text}");
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an event has an id of its own");
    service.finish().await;
}
