//! A queue that is drawn at its opening, over the wire.

use std::time::Duration;

use boxoffice::http::problem::ErrorCode;
use boxoffice_backends::store::{Digest, DrawSeed, draw};
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::Drawn;
use serde_json::{Value, json};

use crate::common::{Call, PAST, TestService, delete, get, patch, post, status, until};

fn join(user: i64) -> Call {
    post("/api/v1/waiting-queues").json(json!({"userId": user, "queue": "onsale"}))
}

fn change(body: Value) -> Call {
    patch("/admin/v1/queues/onsale").admin().json(body)
}

fn in_ms(ms: u64) -> String {
    (jiff::Timestamp::now() + Duration::from_millis(ms)).to_string()
}

#[tokio::test]
async fn those_who_come_before_the_opening_are_drawn() {
    let service = TestService::start().await;
    let mut client = service.client();
    let create = |body: Value| post("/admin/v1/queues").admin().json(body);
    for body in [
        json!({"queue": "onsale", "opening": "draw"}),
        json!({"queue": "onsale", "opening": "draw", "opensAt": null}),
    ] {
        client.send(create(body)).await.refused(ErrorCode::InvalidSetting);
    }
    let unknown = json!({"queue": "onsale", "opening": "lottery", "opensAt": in_ms(60_000)});
    client.send(create(unknown)).await.refused(ErrorCode::InvalidField);
    let body = json!({
        "queue": "onsale", "opening": "draw", "opensAt": in_ms(600_000), "admitPerSecond": 500.0,
    });
    let made = client.send(create(body)).await.ok(201);
    assert_eq!((&made["opening"], &made["state"]), (&json!("draw"), &json!("SCHEDULED")));
    let listed = client.send(get("/admin/v1/queues").admin()).await.ok(200);
    let openings: Vec<&Value> =
        listed["queues"].as_array().unwrap().iter().map(|queue| &queue["opening"]).collect();
    assert_eq!(openings, [&json!("fifo"), &json!("draw")]);
    let noted = client.send(get("/admin/v1/log").admin()).await.ok(200).to_string();
    assert!(noted.contains(r#"\"opening\":\"draw\""#), "{noted}");
    let hall = service.concert_in("onsale", 100, 0).await;

    // A digest of the seed stands in the document, and nothing of it elsewhere.
    let before = service.queue("onsale").await;
    assert_eq!((&before["drawSeed"], &before["drawCount"]), (&Value::Null, &Value::Null));
    assert!(before.get("drawSeed").is_some());
    let commitment = before["drawCommitment"].as_str().unwrap().to_owned();
    assert!(service.queue("main").await.get("drawCommitment").is_none());

    let mut tokens = Vec::new();
    for user in 1..=30 {
        let joined = client.send(join(user)).await.ok(201);
        assert_eq!(
            (&joined["status"], &joined["waitingNumber"]),
            (&json!("WAITING"), &Value::Null)
        );
        assert_eq!(
            (&joined["etaSeconds"], &joined["queueState"]),
            (&Value::Null, &json!("SCHEDULED"))
        );
        tokens.push(joined["token"].as_str().unwrap().to_owned());
    }
    let polled = client.send(status(&tokens[3])).await.ok(200);
    assert_eq!((&polled["status"], &polled["waitingNumber"]), (&json!("WAITING"), &Value::Null));
    client.send(hall.reserve(&tokens[3], 4, &[1])).await.refused(ErrorCode::TokenNotActivated);
    client.send(delete("/api/v1/waiting-queues").token(&tokens[6])).await.empty(204);
    client.send(status(&tokens[6])).await.ok(200);

    // It may be moved before, also to this moment.
    client.send(change(json!({"opensAt": in_ms(900_000)}))).await.ok(200);
    client.send(change(json!({"opensAt": null, "admitPerSecond": 0.001}))).await.ok(200);
    let document = until("the draw", async || {
        let document = service.queue("onsale").await;
        document["drawSeed"].is_string().then_some(document)
    })
    .await;
    assert_eq!(
        (&document["drawCommitment"], &document["drawCount"]),
        (&json!(commitment), &json!(30))
    );
    let seed = Digest::from_hex(document["drawSeed"].as_str().unwrap()).unwrap().0;
    let name = QueueName::new("onsale").unwrap();
    assert_eq!(Digest(DrawSeed(seed).commitment(&name)).to_string(), commitment);
    let order = draw(&Drawn { count: 30, seed });
    let mut left_ahead = 0;
    for rank in 1..=30 {
        let number = order.number(rank);
        let polled = client.send(status(&tokens[number as usize - 1])).await.ok(200);
        if number == 7 {
            assert_eq!(polled["reason"], "LEFT");
            left_ahead = 1;
            continue;
        }
        assert_eq!(polled["waitingNumber"], rank - left_ahead, "{number}");
    }
    let late = client.send(join(31)).await.ok(201);
    assert_eq!(late["waitingNumber"], 30);

    // From now on the opening stays; everything else may change.
    for opens_at in [json!(null), json!(in_ms(60_000)), json!(PAST)] {
        client.send(change(json!({"opensAt": opens_at}))).await.refused(ErrorCode::QueueDrawn);
    }
    client.send(change(json!({"admitPerSecond": 500.0}))).await.ok(200);
    let last = order.number(30);
    until("everybody's turn", async || {
        let polled = service.client().send(status(&tokens[last as usize - 1])).await.ok(200);
        (polled["status"] == "ACTIVATED").then_some(())
    })
    .await;
    client.send(hall.reserve(&tokens[3], 4, &[1])).await.ok(201);
    service.finish().await;
}
