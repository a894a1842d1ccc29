//! Passes, and the gate that asks for them.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use boxoffice::http::problem::ErrorCode;
use boxoffice::passes::Claims;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::{Value, json};

use super::keys::{key_set, public_half};
use crate::common::{
    Call, Client, Reply, TestService, delete, get, join, pay, post, status, until,
};

fn part(pass: &str, index: usize) -> Value {
    let part = pass.split('.').nth(index).unwrap();
    serde_json::from_slice(&BASE64.decode(part).unwrap()).unwrap()
}

fn gate(queue: &str, pass: &str) -> Call {
    get(format!("/gate/{queue}")).header("Cookie", format!("a=1; boxoffice-pass={pass}; b=2"))
}

async fn pass_of(client: &mut Client, token: &str) -> String {
    let place = client.send(status(token)).await.ok(200);
    assert_eq!(place["status"], "ACTIVATED", "{place}");
    place["pass"].as_str().unwrap().to_owned()
}

#[track_caller]
fn turned_away(reply: &Reply, code: ErrorCode, address: &str) {
    reply.refused(code);
    assert_eq!(reply.header("location"), Some(address), "{reply}");
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply}");
}

const WAIT: &str = "/wait/main?return=/";

#[tokio::test]
async fn an_activated_ticket_has_a_pass_that_anybody_can_check() {
    let service = TestService::start_with(|config| {
        config.pass.issuer = "https://tickets.example".into();
    })
    .await;
    let mut fan = service.client();
    let token = service.admitted(17).await;
    let place = fan.send(status(&token)).await.ok(200);
    let pass = place["pass"].as_str().unwrap().to_owned();
    let (header, claims) = (part(&pass, 0), part(&pass, 1));
    let set = key_set(&mut fan).await;
    assert_eq!(header, json!({"alg": "EdDSA", "typ": "JWT", "kid": set[0]["kid"]}));
    let until: jiff::Timestamp = place["activeUntil"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        (&claims["iss"], &claims["aud"], &claims["sub"], &claims["exp"], &claims["iat"]),
        (
            &json!("https://tickets.example"),
            &json!("main"),
            &json!("17"),
            // Whole seconds, between which all of it lies.
            &json!((until.as_millisecond() + 999) / 1_000),
            &json!(until.as_second() - 300),
        )
    );
    let ticket: Value = part(&token, 1);
    assert_eq!((&claims["jti"], &claims["seq"]), (&ticket["jti"], &ticket["seq"]));
    let (message, signature) = pass.rsplit_once('.').unwrap();
    let key = UnparsedPublicKey::new(&ED25519, public_half(&set[0]));
    key.verify(message.as_bytes(), &BASE64.decode(signature).unwrap()).unwrap();

    // The same at each poll, and after a restart.
    assert_eq!(pass_of(&mut fan, &token).await, pass);
    fan.send(gate("main", &pass)).await.empty(204);
    let service = service.restart(|_| ()).await;
    let mut fan = service.client();
    fan.send(gate("main", &pass)).await.empty(204);
    assert_eq!(pass_of(&mut fan, &token).await, pass);
    service.finish().await;
}

#[tokio::test]
async fn who_waits_or_is_over_has_no_pass_and_a_join_that_finds_the_door_open_has() {
    let service = TestService::start().await;
    let mut fan = service.client();
    let joined = fan.send(join(1).key("once")).await.ok(201);
    assert!(joined.get("pass").is_none() || joined["status"] == "ACTIVATED", "{joined}");
    let token = joined["token"].as_str().unwrap();
    let pass = until("the turn", async || {
        let place = fan.send(status(token)).await.ok(200);
        place.get("pass").map(|pass| pass.as_str().unwrap().to_owned())
    })
    .await;
    let again = fan.send(join(1).key("once")).await.ok(200);
    assert_eq!((&again["status"], &again["pass"]), (&json!("ACTIVATED"), &json!(pass)));
    fan.send(delete("/api/v1/waiting-queues").token(token)).await.empty(204);
    let place = fan.send(status(token)).await.ok(200);
    assert!(place["status"] == "EXPIRED" && place.get("pass").is_none(), "{place}");
    service.pause("main").await;
    let waiting = fan.send(join(2)).await.ok(201);
    assert!(waiting["status"] == "WAITING" && waiting.get("pass").is_none(), "{waiting}");
    let place = fan.send(status(waiting["token"].as_str().unwrap())).await.ok(200);
    assert!(place["status"] == "WAITING" && place.get("pass").is_none(), "{place}");
    service.finish().await;
}

#[tokio::test]
async fn the_gate_opens_for_good_passes_of_its_queue_only() {
    let service = TestService::start().await;
    let mut fan = service.client();
    fan.send(post("/admin/v1/queues").admin().json(json!({"queue": "vip"}))).await.ok(201);
    let token = service.admitted(1).await;
    let pass = pass_of(&mut fan, &token).await;
    turned_away(&fan.send(get("/gate/main")).await, ErrorCode::PassMissing, WAIT);
    fan.send(gate("main", &pass)).await.empty(204);
    fan.send(gate("main", &format!("\"{pass}\""))).await.empty(204);
    fan.send(Call::new("HEAD", "/gate/main").header("Cookie", format!("boxoffice-pass={pass}")))
        .await
        .empty(204);
    let bearer = |token: &str| get("/gate/main").header("Authorization", format!("Bearer {token}"));
    fan.send(bearer(&pass)).await.empty(204);
    // The path in another spelling is the same gate.
    fan.send(gate("m%61in", &pass)).await.empty(204);
    // Bearer tokens of the site, and cookies of another queue, take nothing away from it.
    let with_cookie = |call: Call| call.header("Cookie", format!("boxoffice-pass={pass}"));
    fan.send(with_cookie(bearer("the-sites-own"))).await.empty(204);
    fan.send(with_cookie(gate("main", "junk"))).await.empty(204);

    let vip = "/wait/vip?return=/";
    turned_away(&fan.send(gate("vip", &pass)).await, ErrorCode::PassInvalid, vip);
    // Of a queue that does not exist, or that is gone.
    let gone = "/wait/gone?return=/";
    turned_away(&fan.send(gate("gone", &pass)).await, ErrorCode::PassInvalid, gone);
    for odd in ["Main", "%ff", "a%20b", "m%0d%0aain"] {
        let reply = fan.send(gate(odd, &pass)).await;
        turned_away(&reply, ErrorCode::PassInvalid, "/wait/?return=/");
    }
    turned_away(&fan.send(bearer(&token)).await, ErrorCode::PassInvalid, WAIT);
    fan.send(post("/gate/main")).await.refused(ErrorCode::MethodNotAllowed);
    fan.send(get("/gate/")).await.refused(ErrorCode::RouteNotFound);
    fan.send(get("/gate/main/x")).await.refused(ErrorCode::RouteNotFound);
    let asked = get("/gate/main").header("X-Original-URI", "/seats?row=7");
    let back = "/wait/main?return=/seats%3Frow%3D7";
    turned_away(&fan.send(asked).await, ErrorCode::PassMissing, back);
    service.finish().await;
}

#[tokio::test]
async fn passes_that_are_not_ours_or_were_changed_open_nothing() {
    let (service, other) = (TestService::start().await, TestService::start().await);
    let mut fan = service.client();
    let token = service.admitted(1).await;
    let pass = pass_of(&mut fan, &token).await;
    let theirs = pass_of(&mut other.client(), &other.admitted(1).await).await;
    let parts: Vec<&str> = pass.split('.').collect();
    let coded = |value: &Value| BASE64.encode(value.to_string());
    let with = |name: &str, value: Value| {
        let mut claims = part(&pass, 1);
        claims[name] = value;
        format!("{}.{}.{}", parts[0], coded(&claims), parts[2])
    };
    let kid = &part(&pass, 0)["kid"];
    // Signed with the public half as a secret, as if it were one.
    let public = public_half(&key_set(&mut fan).await[0]);
    let as_secret = {
        let head = coded(&json!({"alg": "HS256", "typ": "JWT", "kid": kid}));
        let message = format!("{head}.{}", parts[1]);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &public);
        format!("{message}.{}", BASE64.encode(ring::hmac::sign(&key, message.as_bytes())))
    };
    let bad = [
        theirs.clone(),
        as_secret,
        format!("{}.{}.", coded(&json!({"alg": "none", "typ": "JWT", "kid": kid})), parts[1]),
        format!("{}.{}.{}", coded(&json!({"alg": "none"})), parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.{}", theirs.split('.').next().unwrap(), parts[1], parts[2]),
        with("exp", json!(9_999_999_999_u64)),
        with("aud", json!("vip")),
        with("sub", json!("2")),
        with("tag", json!("AAAAAAAAAAAAAAAAAAAAAA")),
        format!("{pass}="),
        format!("{pass}.{}", parts[2]),
        pass.to_uppercase(),
        String::new(),
        ".".into(),
        "..".into(),
        "a".repeat(8_000),
        format!("{}.{}", parts[0], "A".repeat(9_000)),
    ];
    for wrong in &bad {
        let reply = fan.send(gate("main", wrong)).await;
        turned_away(&reply, ErrorCode::PassInvalid, WAIT);
    }
    // So many at once that some are not looked at: a good one behind them is not found, and nothing breaks.
    let many = format!("{}boxoffice-pass={pass}", "boxoffice-pass=x; ".repeat(800));
    let reply = fan.send(get("/gate/main").header("Cookie", &many)).await;
    turned_away(&reply, ErrorCode::PassInvalid, WAIT);
    let few = format!("{}boxoffice-pass={pass}", "boxoffice-pass=x; ".repeat(7));
    fan.send(get("/gate/main").header("Cookie", &few)).await.empty(204);
    let odd = [b"boxoffice-pass=\xff\xfe; boxoffice-pass=".as_slice(), pass.as_bytes()].concat();
    fan.send(get("/gate/main").header("Cookie", &odd)).await.empty(204);
    let huge = get("/gate/main").header("Cookie", "boxoffice-pass=x".repeat(5_000));
    fan.send(huge).await.refused(ErrorCode::HeadersTooLarge);
    fan.send(gate("main", &pass)).await.empty(204);
    other.finish().await;
    service.finish().await;
}

#[tokio::test]
async fn a_pass_ends_with_the_active_time_and_with_its_ticket() {
    let service = TestService::start_with(|config| {
        config.queue.active_ttl_seconds = 3;
        config.queue.claim_window_seconds = 3;
    })
    .await;
    let mut fan = service.client();
    let (paid, left, stays) =
        (service.admitted(1).await, service.admitted(2).await, service.admitted(3).await);
    let passes = [&paid, &left, &stays];
    let mut shown = Vec::new();
    for token in passes {
        shown.push(pass_of(&mut fan, token).await);
    }
    for pass in &shown {
        fan.send(gate("main", pass)).await.empty(204);
    }
    let hall = service.concert(5, 0).await;
    let held = fan.send(hall.reserve(&paid, 1, &[1])).await.ok(201);
    fan.send(pay(&paid, 1, held["reservationId"].as_i64().unwrap())).await.ok(201);
    fan.send(delete("/api/v1/waiting-queues").token(&left)).await.empty(204);
    for pass in &shown[..2] {
        let reply = fan.send(gate("main", pass)).await;
        turned_away(&reply, ErrorCode::PassInvalid, WAIT);
    }
    fan.send(gate("main", &shown[2])).await.empty(204);
    let ends = part(&shown[2], 1)["exp"].as_i64().unwrap();
    until("the end", async || {
        let place = fan.send(status(&stays)).await.ok(200);
        let before = service.now().as_second();
        let reply = fan.send(gate("main", &shown[2])).await;
        let after = service.now().as_second();
        assert!(reply.status == 204 || after >= ends, "ended before its time");
        assert!(place["status"] != "EXPIRED" || after + 1 >= ends, "more than a second longer");
        assert!(reply.status == 401 || before < ends, "goes on after its end");
        (reply.status == 401).then_some(())
    })
    .await;
    service.finish().await;
}

#[tokio::test]
async fn an_opaque_token_has_a_pass_as_well() {
    let service = TestService::start().await;
    let mut fan = service.client();
    let issue = json!({
        "count": 1, "format": "partner_{n}_{r}", "activated": true, "activeSeconds": 4_000, "firstNumber": 5,
    });
    let issued = fan.send(post("/admin/v1/tokens").admin().json(issue)).await.ok(201);
    let token = issued["first"].as_str().unwrap().to_owned();
    let pass = pass_of(&mut fan, &token).await;
    let claims = part(&pass, 1);
    let lasts = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!((claims["sub"].as_str(), lasts / 2), (Some("5"), 2_000));
    fan.send(gate("main", &pass)).await.empty(204);
    let service = service.restart(|_| ()).await;
    let mut fan = service.client();
    fan.send(gate("main", &pass)).await.empty(204);
    assert_eq!(pass_of(&mut fan, &token).await, pass);
    fan.send(delete("/api/v1/waiting-queues").token(&token)).await.empty(204);
    turned_away(&fan.send(gate("main", &pass)).await, ErrorCode::PassInvalid, WAIT);
    service.finish().await;
}

#[tokio::test]
async fn keys_change_while_passes_are_out() {
    let service = TestService::start_with(|config| {
        config.queue.active_ttl_seconds = 8;
        config.queue.claim_window_seconds = 8;
    })
    .await;
    let mut fan = service.client();
    let rotate = |body: Value| post("/admin/v1/keys/rotate").admin().json(body);
    let (old, begun) = (service.admitted(1).await, std::time::Instant::now());
    let old_pass = pass_of(&mut fan, &old).await;
    // A second later, which is how exactly a pass says when it began.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    fan.send(rotate(json!({"inSeconds": 0}))).await.ok(201);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let new_pass = pass_of(&mut fan, &service.admitted(2).await).await;
    assert_ne!(part(&old_pass, 0)["kid"], part(&new_pass, 0)["kid"]);
    let set = key_set(&mut fan).await;
    let kids: Vec<&Value> = set.iter().map(|key| &key["kid"]).collect();
    assert_eq!(kids, [&part(&old_pass, 0)["kid"], &part(&new_pass, 0)["kid"]]);
    if begun.elapsed() < Duration::from_secs(6) {
        assert_eq!(pass_of(&mut fan, &old).await, old_pass, "it is the same pass still");
        fan.send(gate("main", &old_pass)).await.empty(204);
    }
    fan.send(gate("main", &new_pass)).await.empty(204);
    // When the last pass of its time has ended, the old key goes.
    until("the old key to go", async || (key_set(&mut fan).await.len() == 1).then_some(())).await;
    assert!(begun.elapsed() >= Duration::from_secs(8), "too early: {:?}", begun.elapsed());
    let now = service.admitted(3).await;
    let stolen = pass_of(&mut fan, &now).await;
    fan.send(rotate(json!({"withdraw": true}))).await.ok(201);
    turned_away(&fan.send(gate("main", &stolen)).await, ErrorCode::PassInvalid, WAIT);
    let fresh = pass_of(&mut fan, &now).await;
    assert_ne!(fresh, stolen);
    fan.send(gate("main", &fresh)).await.empty(204);
    service.finish().await;
}

/// A restore has given the number to somebody else.
#[tokio::test]
async fn a_pass_of_another_epoch_opens_nothing() {
    let service = TestService::start().await;
    let mut fan = service.client();
    let token = service.admitted(1).await;
    let pass = pass_of(&mut fan, &token).await;
    let app = service.running().app();
    let claims = app.passes.read(&app.signing, &pass).unwrap();
    for (epoch, status) in [(0, 204), (7, 401)] {
        let claims = Claims { epoch, ..claims.clone() };
        let pass = app.passes.pass(&app.signing, &claims);
        assert_eq!(fan.send(gate("main", &pass)).await.status, status, "{epoch}");
    }
    service.finish().await;
}
