//! One place for each person, and joins that are repeated.

use boxoffice::http::problem::ErrorCode;
use serde_json::{Value, json};

use crate::api::people::{By, join_as_i_am};
use crate::common::{
    Call, Client, TestService, charge, delete, get, join, pay, post, status, until,
};
use crate::issuer::{Issuer, Signer};

async fn token_of(client: &mut Client, call: Call, code: u16) -> String {
    let joined = client.send(call).await.ok(code);
    joined["token"].as_str().unwrap().to_owned()
}

/// A thousand joins of one person take one place, and the next one behind it is the second.
#[tokio::test]
async fn a_person_cannot_take_the_line() {
    let issuer = Issuer::start(Signer::ed()).await;
    let service = TestService::start_with(|config| {
        issuer.configure(config);
        config.queue.admit_per_second = 0.001;
    })
    .await;
    let (kim, lee) = (issuer.token("kim"), issuer.token("lee"));
    let mut client = service.client();
    let first = client.send(join_as_i_am().by(&kim)).await.ok(201);
    for attempt in 0..1_000 {
        let mut call = join_as_i_am().by(&kim);
        if attempt % 2 == 0 {
            call = call.header("Idempotency-Key", format!("attempt-{attempt}"));
        }
        let again = client.send(call).await.ok(200);
        assert_eq!(again["token"], first["token"]);
        assert_eq!(again["waitingNumber"], first["waitingNumber"]);
    }
    let other = client.send(join_as_i_am().by(&lee)).await.ok(201);
    assert_eq!(other["waitingNumber"], 2);
    // Another token of the same person is the same person.
    let mut claims = issuer.claims("kim");
    claims["jti"] = "another".into();
    let renewed = issuer.signed(&claims);
    assert_eq!(token_of(&mut client, join_as_i_am().by(&renewed), 200).await, first["token"]);
    let ticket = first["token"].as_str().unwrap();
    client.send(delete("/api/v1/waiting-queues").token(ticket)).await.empty(204);
    let anew = token_of(&mut client, join_as_i_am().by(&kim), 201).await;
    assert_ne!(anew, ticket);
    let metrics = client.send(get("/metrics").admin()).await;
    let metrics = String::from_utf8_lossy(&metrics.body);
    assert!(metrics.contains("boxoffice_queue_rejoined_total{queue=\"main\"} 1001"), "{metrics}");
    service.finish().await;
}

/// After a purchase somebody may stand in line again.
#[tokio::test]
async fn who_has_paid_gets_a_new_place() {
    let issuer = Issuer::start(Signer::ed()).await;
    let service = TestService::start_with(|config| issuer.configure(config)).await;
    let sale = service.concert(10, 100).await;
    let kim = issuer.token("kim");
    let mut client = service.client();
    let ticket = token_of(&mut client, join_as_i_am().by(&kim), 201).await;
    let user = until("admission", async || {
        let place = client.send(status(&ticket)).await.ok(200);
        (place["status"] == "ACTIVATED").then(|| place["userId"].as_i64().unwrap())
    })
    .await;
    let again = client.send(join_as_i_am().by(&kim)).await.ok(200);
    assert_eq!((&again["status"], &again["token"]), (&json!("ACTIVATED"), &json!(ticket)));
    let held = client.send(sale.reserve(&ticket, user, &[1]).by(&kim)).await.ok(201);
    let reservation = held["reservationId"].as_i64().unwrap();
    client.send(charge(user, 100).admin()).await.ok(200);
    client.send(pay(&ticket, user, reservation).by(&kim)).await.ok(201);
    let anew = token_of(&mut client, join_as_i_am().by(&kim), 201).await;
    assert_ne!(anew, ticket);
    service.finish().await;
}

/// Nothing is known of anybody after a start. Whoever joins before polling has two tickets until the next
/// tick, and keeps the first.
#[tokio::test]
async fn a_restart_gives_nobody_a_second_place() {
    let issuer = Issuer::start(Signer::ed()).await;
    let mut service = TestService::start_with(|config| {
        issuer.configure(config);
        config.queue.admit_per_second = 0.001;
    })
    .await;
    let (kim, lee) = (issuer.token("kim"), issuer.token("lee"));
    let mut client = service.client();
    let kims = token_of(&mut client, join_as_i_am().by(&kim), 201).await;
    let lees = token_of(&mut client, join_as_i_am().by(&lee), 201).await;
    service = service.restart(|_| ()).await;
    let mut client = service.client();
    let second = token_of(&mut client, join_as_i_am().by(&kim), 201).await;
    assert_ne!(second, kims);
    // Whoever is shown first is kept first, so what is waited for comes last.
    for ticket in [&lees, &kims, &second] {
        client.send(status(ticket)).await.ok(200);
    }
    until("the second place is given up", async || {
        (client.send(status(&second)).await.ok(200)["status"] == "EXPIRED").then_some(())
    })
    .await;
    for (person, ticket) in [(&kim, &kims), (&lee, &lees)] {
        assert_eq!(client.send(status(ticket)).await.ok(200)["status"], "WAITING");
        assert_eq!(token_of(&mut client, join_as_i_am().by(person), 200).await, **ticket);
    }
    service.finish().await;
}

/// Where nobody is known, everybody may join as often as they like, and a repeated request is found by its
/// key.
#[tokio::test]
async fn a_join_is_repeated_by_its_key() {
    let service = TestService::start_with(|config| config.queue.admit_per_second = 0.001).await;
    let mut client = service.client();
    let keyed = |user: i64, key: &str| join(user).header("Idempotency-Key", key);
    let first = token_of(&mut client, keyed(1, "a"), 201).await;
    assert_eq!(token_of(&mut client, keyed(1, "a"), 200).await, first);
    assert_eq!(token_of(&mut client, keyed(1, "\"a\""), 200).await, first);
    let others = [keyed(2, "a"), keyed(1, "b"), join(1), join(1)];
    let mut seen = vec![first.clone()];
    for other in others {
        let token = token_of(&mut client, other, 201).await;
        assert!(!seen.contains(&token));
        seen.push(token);
    }
    // The first answer again, even where its ticket is over.
    client.send(delete("/api/v1/waiting-queues").token(&first)).await.empty(204);
    let over: Value = client.send(keyed(1, "a")).await.ok(200);
    assert_eq!((&over["token"], &over["status"]), (&json!(first), &json!("EXPIRED")));
    for bad in ["", "two words", "\u{e9}", &"x".repeat(256)] {
        let refused = client.send(keyed(1, bad)).await;
        refused.refused(ErrorCode::InvalidHeader);
    }
    let twice = keyed(1, "a").header("Idempotency-Key", "b");
    client.send(twice).await.refused(ErrorCode::DuplicateHeader);
    let unknown = post("/api/v1/waiting-queues").json(json!({"userId": 1, "queue": "nowhere"}));
    client.send(unknown.header("Idempotency-Key", "a")).await.refused(ErrorCode::QueueNotFound);
    service.finish().await;
}

/// What somebody got while users were believed is not the place of the person whose id they gave.
#[tokio::test]
async fn a_ticket_from_before_people_were_known_is_nobodys_place() {
    let service = TestService::start_with(|config| config.queue.admit_per_second = 0.001).await;
    let theirs = token_of(&mut service.client(), join(201), 201).await;
    let issuer = Issuer::start(Signer::ed()).await;
    let service = service.restart(|config| issuer.configure(config)).await;
    let mut claims = issuer.claims("");
    claims["sub"] = json!(201);
    let person = issuer.signed(&claims);
    let mut client = service.client();
    let place = token_of(&mut client, join_as_i_am().by(&person), 201).await;
    assert_ne!(place, theirs);
    // Long enough for some ticks.
    for _ in 0..10 {
        for ticket in [&theirs, &place] {
            assert_eq!(client.send(status(ticket)).await.ok(200)["status"], "WAITING");
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(token_of(&mut client, join_as_i_am().by(&person), 200).await, place);
    service.finish().await;
}
