//! The keys that the service signs with for others to check.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use boxoffice::http::problem::ErrorCode;
use boxoffice_domain::time::Timestamp;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::{Value, json};

use crate::common::{Client, TestService, get, post, until};

/// The published keys.
pub(super) async fn key_set(client: &mut Client) -> Vec<Value> {
    let reply = client.send(get("/.well-known/jwks.json")).await;
    assert_eq!(reply.status, 200, "{reply}");
    assert_eq!(reply.header("content-type"), Some("application/jwk-set+json"), "{reply}");
    assert_eq!(reply.header("cache-control"), Some("public, max-age=60"), "{reply}");
    let set = reply.value();
    set["keys"].as_array().unwrap().clone()
}

pub(super) fn public_half(jwk: &Value) -> Vec<u8> {
    BASE64.decode(jwk["x"].as_str().unwrap()).unwrap()
}

async fn states(client: &mut Client) -> Vec<(String, String)> {
    let list = client.send(get("/admin/v1/keys").admin()).await.ok(200);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let keys = list["keys"].as_array().unwrap();
    keys.iter().map(|key| (text(&key["kid"]), text(&key["state"]))).collect()
}

#[tokio::test]
async fn what_the_service_signs_can_be_checked_by_anybody_and_survives_a_restart() {
    let service = TestService::start().await;
    let set = key_set(&mut service.client()).await;
    assert_eq!(set.len(), 1);
    let signed = service.running().app().signing.sign(b"a message", Timestamp(7));
    assert_eq!(set[0]["kid"], *signed.key_id);
    let key = UnparsedPublicKey::new(&ED25519, public_half(&set[0]));
    key.verify(b"a message", &signed.bytes).unwrap();
    assert!(key.verify(b"another", &signed.bytes).is_err());
    let service = service.restart(|_| ()).await;
    assert_eq!(key_set(&mut service.client()).await, set);
    assert_eq!(service.running().app().signing.sign(b"a message", Timestamp(7)), signed);
    service.finish().await;
}

#[tokio::test]
async fn keys_are_changed_by_admins_once_and_it_is_in_the_log() {
    let service = TestService::start().await;
    let mut client = service.client();
    let old = states(&mut client).await[0].0.clone();
    let rotate = |body: Value, key: &str| post("/admin/v1/keys/rotate").admin().key(key).json(body);
    for (body, code) in [
        (json!({"inSeconds": 2_592_001}), ErrorCode::InvalidSetting),
        (json!({"inSeconds": 1, "withdraw": true}), ErrorCode::InvalidSetting),
        (json!({"inSeconds": -1}), ErrorCode::InvalidField),
        (json!({"in": 1}), ErrorCode::InvalidField),
    ] {
        client.send(rotate(body, "bad")).await.refused(code);
    }
    let made = client.send(rotate(json!({}), "once")).await.ok(201);
    let next = made["kid"].as_str().unwrap().to_owned();
    assert_eq!(client.send(rotate(json!({}), "once")).await.ok(201), made, "told again");
    let state = |kid: &str, state: &str| (kid.to_owned(), state.to_owned());
    let expected = [state(&old, "SIGNING"), state(&next, "NEXT")];
    assert_eq!(states(&mut client).await, expected);
    let published = key_set(&mut client).await;
    assert_eq!(published.iter().map(|key| &key["kid"]).collect::<Vec<_>>(), [&old, &next]);
    let now = client.send(rotate(json!({"inSeconds": 0}), "now")).await.ok(201);
    let now = now["kid"].as_str().unwrap().to_owned();
    let expected = [state(&old, "OLD"), state(&next, "NEXT"), state(&now, "SIGNING")];
    assert_eq!(states(&mut client).await, expected);
    // A key was stolen.
    let last = client.send(rotate(json!({"withdraw": true}), "stolen")).await.ok(201);
    let last = last["kid"].as_str().unwrap().to_owned();
    let expected = [
        state(&old, "WITHDRAWN"),
        state(&next, "WITHDRAWN"),
        state(&now, "WITHDRAWN"),
        state(&last, "SIGNING"),
    ];
    assert_eq!(states(&mut client).await, expected);
    assert_eq!(key_set(&mut client).await.len(), 1);
    let log = client.send(get("/admin/v1/log").admin()).await.ok(200);
    let changes: Vec<&Value> = log["changes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|change| change["operation"] == "rotate_key")
        .collect();
    assert_eq!(changes.len(), 3, "{log}");
    assert_eq!(changes[0]["target"], "signing keys");
    let after: Value = serde_json::from_str(changes[0]["after"].as_str().unwrap()).unwrap();
    assert_eq!((&after["kid"], &after["othersWithdrawn"]), (&json!(last), &json!(true)));
    let service = service.restart(|_| ()).await;
    assert_eq!(states(&mut service.client()).await, expected);
    service.finish().await;
}

#[tokio::test]
async fn another_instance_hears_of_a_new_key() {
    let service = TestService::start().await;
    let app = service.running().app();
    // As another instance would do it: in the store.
    let rotation = app.signing.rotation(Timestamp(0), false).unwrap();
    let kid = rotation.key.id.clone();
    let note = boxoffice_backends::store::Note {
        at: app.clock.now(),
        who: "ada".into(),
        role: boxoffice_backends::store::Role::Admin,
        origin: "elsewhere".into(),
        operation: "rotate_key",
        reason: None,
        key: None,
        answer: std::sync::Arc::new(|_| String::new()),
    };
    app.store.act(boxoffice_backends::store::Act::RotateKey(rotation), note).await.unwrap();
    let mut client = service.client();
    until("the key", async || {
        let set = key_set(&mut client).await;
        set.iter().any(|key| key["kid"] == kid).then_some(())
    })
    .await;
    service.finish().await;
}
