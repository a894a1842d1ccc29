//! The public documents of queues: the same by whichever way, and never older than what was told before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use boxoffice::http::problem::ErrorCode;
use serde_json::json;

use crate::common::{Call, TestService, get, join, post, until};

const MAIN: &str = "/api/v1/waiting-queues/main";

#[tokio::test]
async fn the_document_is_the_same_by_whichever_way_it_is_asked_for() {
    let service = TestService::start().await;
    service.pause("main").await;
    let mut fan = service.client();
    fan.send(join(1)).await.ok(201);
    let head = |reply: &crate::common::Reply| -> Vec<(String, String)> {
        let differs = ["x-request-id", "date"];
        let headers = reply.headers.iter().filter(|(name, _)| !differs.contains(&name.as_str()));
        headers.cloned().collect()
    };
    let plain = fan.send(get(MAIN)).await;
    plain.ok(200);
    for path in [
        "/api/v1/waiting-queues/m%61in",
        "/api/v1/waiting-queues/main?",
        "/api/v1/waiting-queues/main?x=1",
    ] {
        let reply = fan.send(get(path)).await;
        assert_eq!(reply.body, plain.body, "{path}");
        assert_eq!(head(&reply), head(&plain), "{path}");
    }
    let reply = fan.send(Call::new("HEAD", MAIN)).await;
    assert_eq!((reply.status, head(&reply)), (200, head(&plain)));
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let reply = fan.send(Call::new(method, MAIN)).await;
        assert_eq!(reply.header("allow"), Some("GET,HEAD"), "{method}");
        reply.refused(ErrorCode::MethodNotAllowed);
    }
    let long = "x".repeat(41);
    for name in ["other", "MAIN", "m.ain", "-", &long, "%2e", "ma%20in", "%ff"] {
        let reply = fan.send(get(format!("/api/v1/waiting-queues/{name}"))).await;
        reply.refused(ErrorCode::QueueNotFound);
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{name}");
    }
    for path in ["/api/v1/waiting-queues/main/", "/api/v1/waiting-queues/main/x"] {
        fan.send(get(path)).await.refused(ErrorCode::RouteNotFound);
    }
    service.finish().await;
}

#[tokio::test]
async fn what_an_operator_has_changed_stands_in_the_next_document_and_joins_do_soon() {
    let service = TestService::start().await;
    let mut fan = service.client();
    for round in 1..=50 {
        service.pause("main").await;
        assert_eq!(fan.send(get(MAIN)).await.ok(200)["state"], "PAUSED", "{round}");
        let rate = f64::from(round);
        let changed = service.change_queue("main", json!({"admitPerSecond": rate})).await;
        assert_eq!(changed["admitPerSecond"], rate);
        assert_eq!(fan.send(get(MAIN)).await.ok(200)["admitPerSecond"], rate);
        service.resume("main").await;
        assert_eq!(fan.send(get(MAIN)).await.ok(200)["state"], "OPEN", "{round}");
    }
    service.pause("main").await;
    for waiting in 1..=5 {
        fan.send(join(waiting)).await.ok(201);
        until("the join", async || {
            (fan.send(get(MAIN)).await.ok(200)["waiting"] == waiting).then_some(())
        })
        .await;
    }
    // A queue that was not there is found once it is.
    let late = "/api/v1/waiting-queues/late";
    fan.send(get(late)).await.refused(ErrorCode::QueueNotFound);
    let made = post("/admin/v1/queues").admin().json(json!({"queue": "late"}));
    fan.send(made).await.ok(201);
    assert_eq!(fan.send(get(late)).await.ok(200)["queue"], "late");
    assert_eq!(fan.send(get(MAIN)).await.ok(200)["queue"], "main");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn numbers_never_go_back_whoever_asks() {
    let service = TestService::start().await;
    service.change_queue("main", json!({"admitPerSecond": 500})).await;
    let (highest, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut fan, highest, done) = (service.client(), highest.clone(), done.clone());
        readers.spawn(async move {
            let mut read = 0_u64;
            while !done.load(Ordering::SeqCst) {
                // Whatever anybody was told before this was asked.
                let before = highest.load(Ordering::SeqCst);
                let document = fan.send(get(MAIN)).await.ok(200);
                let serving = document["serving"].as_u64().unwrap();
                assert!(serving >= before, "{serving} after {before}");
                highest.fetch_max(serving, Ordering::SeqCst);
                read += 1;
            }
            read
        });
    }
    let mut fan = service.client();
    for user in 1..=600 {
        fan.send(join(user)).await.ok(201);
    }
    until("the last", async || (highest.load(Ordering::SeqCst) == 600).then_some(())).await;
    done.store(true, Ordering::SeqCst);
    let read: u64 = readers.join_all().await.iter().sum();
    assert!(read > 600, "{read}");
    service.finish().await;
}
