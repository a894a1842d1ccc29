//! The service with a queue in Redis, over HTTP.

use super::servers::Server;
use crate::api::challenges::solved;
use crate::common::{TestService, get, join, post, status, until};
use crate::program;
use boxoffice::config::{ChallengeMode, Config, QueueKind, RedisConfig, Secret};
use boxoffice::http::problem::ErrorCode;
use serde_json::{Value, json};

fn with_redis(server: &Server) -> impl FnOnce(&mut Config) + use<> {
    let nodes = vec![format!("127.0.0.1:{}", server.port)];
    move |config| {
        config.queue.kind = QueueKind::Redis;
        config.queue.redis = RedisConfig { nodes, ..RedisConfig::default() };
    }
}

/// What `/health/ready` says of Redis, while the service as a whole can sell.
async fn health(service: &TestService) -> String {
    let ready = service.send(get("/health/ready")).await.ok(200);
    assert_eq!(ready["status"], "UP");
    let parts: Vec<Value> = ready["dependencies"].as_array().unwrap().clone();
    let redis = parts.iter().find(|part| part["name"] == "redis").unwrap();
    redis["status"].as_str().unwrap().to_owned()
}

async fn metric(service: &TestService, name: &str) -> f64 {
    let text = String::from_utf8(service.send(get("/metrics")).await.body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_goes_through_with_redis_and_without() {
    let mut server = Server::start();
    let service = TestService::start_with(with_redis(&server)).await;
    assert_eq!(health(&service).await, "UP");
    service.admitted(1).await;
    assert!(metric(&service, "boxoffice_redis_calls_total{kind=\"join\"}").await >= 1.0);
    assert!(metric(&service, "boxoffice_redis_calls_total{kind=\"tick\"}").await >= 1.0);
    assert_eq!(metric(&service, "boxoffice_redis_up").await, 1.0);

    server.kill();
    until("redis is not missed", async || (health(&service).await == "DEGRADED").then_some(()))
        .await;
    assert_eq!(metric(&service, "boxoffice_redis_up").await, 0.0);
    service.admitted(2).await;
    assert!(metric(&service, "boxoffice_redis_direct_joins_total").await >= 1.0);

    server.restart();
    until("redis is not found", async || (health(&service).await == "UP").then_some(())).await;
    service.admitted(3).await;
    assert_eq!(service.audit().await["clean"], true);

    // A ticket keeps its place over a restart of the service.
    service.pause("main").await;
    let joined = service.send(join(4)).await.ok(201);
    let token = joined["token"].as_str().unwrap();
    let service = service.restart(|_| {}).await;
    let told = service.send(status(token)).await.ok(200);
    assert_eq!((&told["status"], &told["waitingNumber"]), (&"WAITING".into(), &1.into()));
    let joined = service.send(join(5)).await.ok(201);
    assert_eq!(joined["waitingNumber"], 2);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_of_two_stores_do_not_share_a_redis() {
    let server = Server::start();
    let service = TestService::start_with(with_redis(&server)).await;
    let other = TestService::start().await;
    let (other, why) = other.restart_in_vain(with_redis(&server)).await;
    assert!(why.contains("queue.redis.prefix"), "{why}");
    other.finish().await;
    service.finish().await;
}

/// Solutions that were used are known in Redis, over a restart and with another key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn solutions_are_good_once_over_a_restart_and_while_redis_is_away() {
    let mut server = Server::start();
    let key = |text: &str| Some(Secret::new(text));
    let service = TestService::start_with(|config| {
        with_redis(&server)(config);
        config.challenge.mode = ChallengeMode::On;
        config.challenge.maxnumber_min = 10;
        config.ticket.signing_key = key("a key of thirty-two bytes, first");
    })
    .await;
    let solution = async |service: &TestService| {
        solved(&service.send(get("/api/v1/waiting-queues/main/challenge")).await.ok(200))
    };
    let join_with = |solution: &str| {
        post("/api/v1/waiting-queues").json(json!({"userId": 1, "altcha": solution}))
    };
    let (used, kept) = (solution(&service).await, solution(&service).await);
    let joined = service.send(join_with(&used).key("mine")).await.ok(201);
    assert!(metric(&service, "boxoffice_redis_calls_total{kind=\"solution\"}").await >= 1.0);

    let service = service
        .restart(|config| {
            config.ticket.previous_signing_keys.extend(config.ticket.signing_key.take());
            config.ticket.signing_key = key("a key of thirty-two bytes, second");
        })
        .await;
    service.send(join_with(&used)).await.refused(ErrorCode::ChallengeUsed);
    service.send(join_with(&used).key("another")).await.refused(ErrorCode::ChallengeUsed);
    service.send(join_with(&used).key("mine")).await.ok(200);
    service.send(join_with(&kept)).await.ok(201);
    service.send(join_with(&kept)).await.refused(ErrorCode::ChallengeUsed);

    // Without Redis joins go on, and each instance knows of its own.
    let (before, meanwhile) = (solution(&service).await, solution(&service).await);
    service.send(join_with(&before)).await.ok(201);
    server.kill();
    until("redis is not missed", async || (health(&service).await == "DEGRADED").then_some(()))
        .await;
    service.send(join_with(&before)).await.refused(ErrorCode::ChallengeUsed);
    service.send(join_with(&meanwhile)).await.ok(201);
    service.send(join_with(&meanwhile)).await.refused(ErrorCode::ChallengeUsed);
    server.restart();
    until("redis is not found", async || (health(&service).await == "UP").then_some(())).await;
    service.send(join_with(&meanwhile)).await.refused(ErrorCode::ChallengeUsed);
    service.send(status(joined["token"].as_str().unwrap())).await.ok(200);
    service.finish().await;
}

#[test]
fn a_redial_that_panics_ends_the_service_with_an_error() {
    let mut server = Server::start();
    let directory = tempfile::tempdir().unwrap();
    let mut command = program::command(directory.path());
    command.env("BOXOFFICE_TEST_PANIC", "redis redial");
    let nodes = format!("queue.redis.nodes=127.0.0.1:{}", server.port);
    let settings = ["--set", "queue.kind=redis", "--set", &nodes];
    let data = directory.path().join("data");
    let mut service = program::Server::start_by(command, &data, &settings);
    // Nobody redials while Redis is there.
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(service.is_running(), "{}", service.log());
    server.kill();
    let ended = service.wait();
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("\"worker\":\"redis redial\""), "{}", ended.err);
}
