//! Challenges at the door: who joins shows a solution, which is good once, for one queue and one client.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boxoffice::challenge::{Challenge, Challenges, Whom, challenge_key};
use boxoffice::config::{ChallengeMode, Config, Secret};
use boxoffice::http::problem::ErrorCode;
use boxoffice_domain::time::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::api::people::By;
use crate::common::{Call, Client, Reply, TestService, get, join, post, status};
use crate::issuer::{Issuer, Signer};

/// The key that tickets are signed with.
const KEY: &str = "0123456789abcdef0123456789abcdef";
const CHALLENGE: &str = "/api/v1/waiting-queues/main/challenge";

/// What the widget makes of a challenge.
pub(crate) fn solved(challenge: &Value) -> String {
    let salt = challenge["salt"].as_str().unwrap();
    let wanted = challenge["challenge"].as_str().unwrap();
    let is_it = |number: &u64| {
        let digest = Sha256::digest(format!("{salt}{number}"));
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>() == wanted
    };
    let number = (0..=challenge["maxnumber"].as_u64().unwrap()).find(is_it).unwrap();
    let mut payload = challenge.clone();
    payload["number"] = number.into();
    payload["took"] = 7.into();
    payload.as_object_mut().unwrap().remove("maxnumber");
    STANDARD.encode(payload.to_string())
}

/// A service whose door is guarded, with challenges that a test can solve.
async fn guarded(change: impl FnOnce(&mut Config)) -> TestService {
    TestService::start_with(|config| {
        config.challenge.mode = ChallengeMode::On;
        config.challenge.maxnumber_min = 100;
        config.challenge.maxnumber_max = 2_000;
        config.challenge.target_per_second = 1_000.0;
        config.ticket.signing_key = Some(Secret::new(KEY));
        config.server.trusted_proxies = vec!["127.0.0.0/8".into()];
        change(config);
    })
    .await
}

async fn solution(client: &mut Client) -> String {
    solved(&client.send(get(CHALLENGE)).await.ok(200))
}

fn join_with(user: i64, solution: &str) -> Call {
    post("/api/v1/waiting-queues").json(json!({"userId": user, "altcha": solution}))
}

fn from(call: Call, address: &str) -> Call {
    call.header("X-Forwarded-For", address)
}

/// What a refusal says.
#[track_caller]
fn why(reply: &Reply, code: ErrorCode) -> String {
    reply.refused(code)["detail"].as_str().unwrap().to_owned()
}

fn in_seconds(seconds: i64) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(now.as_millis() as i64 + seconds * 1_000)
}

async fn metric(service: &TestService, result: &str) -> u64 {
    let text = String::from_utf8(service.send(get("/metrics").admin()).await.body).unwrap();
    let name = format!("boxoffice_challenges_total{{result=\"{result}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn by_default_nobody_is_asked_and_a_page_need_not_know() {
    let service = TestService::start().await;
    let mut fan = service.client();
    fan.send(join(1)).await.ok(201);
    let made = fan.send(get(CHALLENGE)).await;
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let made = made.ok(200);
    assert_eq!((&made["algorithm"], &made["maxnumber"]), (&json!("SHA-256"), &json!(50_000)));
    assert_eq!(made.as_object().unwrap().len(), 5, "{made}");
    for solution in ["", "nonsense"] {
        fan.send(join_with(2, solution)).await.ok(201);
    }
    let wrong = post("/api/v1/waiting-queues").json(json!({"userId": 2, "altcha": 7}));
    fan.send(wrong).await.refused(ErrorCode::InvalidField);
    let unknown = get("/api/v1/waiting-queues/other/challenge");
    fan.send(unknown).await.refused(ErrorCode::QueueNotFound);
    service.finish().await;
}

#[tokio::test]
async fn a_guarded_door_asks_for_a_solution_which_is_good_once() {
    let service = guarded(|_| ()).await;
    service.pause("main").await;
    let mut fan = service.client();
    for call in [join(1), join_with(1, "")] {
        let detail = why(&fan.send(call).await, ErrorCode::ChallengeRequired);
        assert!(detail.contains(CHALLENGE) && detail.contains("altcha"), "{detail}");
    }
    let first = solution(&mut fan).await;
    let joined = fan.send(join_with(1, &first)).await.ok(201);
    assert_eq!(joined["waitingNumber"], 1);
    for user in [1, 2] {
        why(&fan.send(join_with(user, &first)).await, ErrorCode::ChallengeUsed);
        let named = join_with(user, &first).key("a-key");
        why(&fan.send(named).await, ErrorCode::ChallengeUsed);
    }
    // Polls ask for nothing.
    fan.send(status(joined["token"].as_str().unwrap())).await.ok(200);
    let second = solution(&mut fan).await;
    assert_eq!(fan.send(join_with(1, &second)).await.ok(201)["waitingNumber"], 2);
    assert_eq!(metric(&service, "made").await, 2);
    assert_eq!(metric(&service, "solved").await, 2);
    assert_eq!(metric(&service, "missing").await, 2);
    assert_eq!(metric(&service, "used").await, 4);
    service.finish().await;
}

/// Whoever has lost the answer asks again with the same, and has not to solve anything.
#[tokio::test]
async fn a_join_that_is_repeated_needs_no_second_solution() {
    let service = guarded(|_| ()).await;
    let mut fan = service.client();
    let shown = solution(&mut fan).await;
    let joined = fan.send(join_with(1, &shown).key("mine")).await.ok(201);
    for _ in 0..3 {
        let again = fan.send(join_with(1, &shown).key("mine")).await.ok(200);
        assert_eq!(again["token"], joined["token"]);
    }
    // Another key, and the same key of another user, are other joins.
    for call in [join_with(1, &shown).key("another"), join_with(2, &shown).key("mine")] {
        why(&fan.send(call).await, ErrorCode::ChallengeUsed);
    }
    why(&fan.send(join_with(1, &shown)).await, ErrorCode::ChallengeUsed);
    // The key alone is not enough, and with another solution it is the same join.
    why(&fan.send(join(1).key("mine")).await, ErrorCode::ChallengeRequired);
    let other = solution(&mut fan).await;
    let again = fan.send(join_with(1, &other).key("mine")).await.ok(200);
    assert_eq!(again["token"], joined["token"]);
    assert_eq!(fan.send(get("/admin/v1/queues").admin()).await.ok(200)["queues"][0]["next"], 1);
    service.finish().await;
}

#[tokio::test]
async fn no_solution_is_good_for_anybody_or_anything_else() {
    let service = guarded(|_| ()).await;
    let mut fan = service.client();
    fan.send(post("/admin/v1/queues").admin().json(json!({"queue": "vip"}))).await.ok(201);
    let of_fan = fan.send(from(get(CHALLENGE), "192.0.2.1")).await.ok(200);
    let good = solved(&of_fan);
    let refused = async |call: Call| {
        let reply = service.send(from(call, "192.0.2.1")).await;
        why(&reply, ErrorCode::ChallengeInvalid)
    };
    for address in ["192.0.2.2", "2001:db8::1", "127.0.0.1"] {
        let reply = service.send(from(join_with(1, &good), address)).await;
        assert!(why(&reply, ErrorCode::ChallengeInvalid).contains("another person or address"));
    }
    let elsewhere = json!({"userId": 1, "queue": "vip", "altcha": good});
    let call = post("/api/v1/waiting-queues").json(elsewhere);
    let said = refused(call).await;
    assert!(said.contains("another queue") && said.contains("/vip/challenge"), "{said}");

    let make = |keys: &str, whom, expires_at| {
        let challenges = Challenges::new(&[challenge_key(keys.as_bytes())], Uuid::nil());
        challenges.make("main", whom, 50, expires_at).unwrap()
    };
    let payload = |made: &Challenge| solved(&serde_json::to_value(made).unwrap());
    let whom = Whom::Address(Some("192.0.2.1".parse().unwrap()));
    let over = payload(&make(KEY, whom, in_seconds(-1)));
    assert!(refused(join_with(1, &over)).await.contains("is over"));
    let forged = payload(&make("another key", whom, in_seconds(60)));
    assert!(refused(join_with(1, &forged)).await.contains("not of this service"));
    let mut changed = of_fan.clone();
    changed["salt"] =
        changed["salt"].as_str().unwrap().replacen("expires=1", "expires=2", 1).into();
    changed["number"] = 5.into();
    let changed = STANDARD.encode(changed.to_string());
    assert!(refused(join_with(1, &changed)).await.contains("does not solve"));
    for nonsense in ["x", "bnVsbA==", "e30=", &good[4..], &"A".repeat(3_000)] {
        assert!(refused(join_with(1, nonsense)).await.contains("what the widget makes"));
    }
    // A network of IPv6 is one client, as it is for limits; and all of that has used nothing up.
    service.send(from(join_with(1, &good), "192.0.2.1")).await.ok(201);
    let network = service.send(from(get(CHALLENGE), "2001:db8::1")).await.ok(200);
    service.send(from(join_with(1, &solved(&network)), "2001:db8::ffff:2")).await.ok(201);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_joins_with_one_solution_one_gets_a_place() {
    let service = guarded(|_| ()).await;
    let mut fan = service.client();
    for named in [false, true] {
        let shown = solution(&mut fan).await;
        let mut joins = tokio::task::JoinSet::new();
        for user in 1..=50 {
            let mut client = service.client();
            // Of those who have a key, all are the same join.
            let call = join_with(if named { 1 } else { user }, &shown);
            let call = if named { call.key("the-same") } else { call };
            joins.spawn(async move { client.send(call).await });
        }
        let replies = joins.join_all().await;
        let of = |status| replies.iter().filter(|reply| reply.status == status).count();
        if named {
            assert_eq!((of(201), of(200)), (1, 49));
            let token = |reply: &Reply| reply.value()["token"].clone();
            assert!(replies.iter().all(|reply| token(reply) == token(&replies[0])));
        } else {
            assert_eq!((of(201), of(409)), (1, 49));
        }
    }
    assert_eq!(service.send(get("/admin/v1/queues").admin()).await.ok(200)["queues"][0]["next"], 2);
    service.finish().await;
}

#[tokio::test]
async fn in_a_rush_joins_are_asked_and_challenges_get_harder() {
    let service = guarded(|config| {
        config.challenge.mode = ChallengeMode::Auto;
        config.challenge.target_per_second = 4.0;
    })
    .await;
    let mut fan = service.client();
    assert_eq!(fan.send(get(CHALLENGE)).await.ok(200)["maxnumber"], 100);
    // The rate is that of some seconds.
    let mut free = 0;
    while fan.send(join(1)).await.status == 201 {
        free += 1;
        assert!(free < 100);
    }
    assert!(free >= 20, "{free}");
    let harder = async |fan: &mut Client| {
        fan.send(get(CHALLENGE)).await.ok(200)["maxnumber"].as_u64().unwrap()
    };
    let before = harder(&mut fan).await;
    assert!((101..=500).contains(&before), "{before}");
    // Who is refused counts as well.
    for _ in 0..200 {
        fan.send(join(1)).await.refused(ErrorCode::ChallengeRequired);
    }
    let after = harder(&mut fan).await;
    assert!(after >= 2 * before && after <= 2_000, "{after} after {before}");
    let shown = solution(&mut fan).await;
    fan.send(join_with(1, &shown)).await.ok(201);
    service.finish().await;
}

#[tokio::test]
async fn a_challenge_of_a_person_is_theirs_wherever_they_are() {
    let issuer = Issuer::start(Signer::ed()).await;
    let service = guarded(|config| issuer.configure(config)).await;
    let (kim, lee) = (issuer.token("kim"), issuer.token("lee"));
    let mut fan = service.client();
    let as_i_am = |solution: &str| post("/api/v1/waiting-queues").json(json!({"altcha": solution}));
    let kims = from(get(CHALLENGE).by(&kim), "192.0.2.1");
    let kims = solved(&fan.send(kims).await.ok(200));
    let reply = fan.send(from(as_i_am(&kims).by(&lee), "192.0.2.1")).await;
    assert!(why(&reply, ErrorCode::ChallengeInvalid).contains("another person"));
    let joined = fan.send(from(as_i_am(&kims).by(&kim), "198.51.100.7")).await.ok(201);
    // A person has one place, so the same join finds it, and another one needs another solution.
    let again = fan.send(from(as_i_am(&kims).by(&kim), "192.0.2.1")).await.ok(200);
    assert_eq!(again["token"], joined["token"]);
    fan.send(as_i_am("").by(&kim)).await.refused(ErrorCode::ChallengeRequired);
    // The widget sends no token: then it is the address that counts.
    let anybodys = solved(&fan.send(from(get(CHALLENGE), "192.0.2.1")).await.ok(200));
    let reply = fan.send(from(as_i_am(&anybodys).by(&lee), "192.0.2.2")).await;
    why(&reply, ErrorCode::ChallengeInvalid);
    fan.send(from(as_i_am(&anybodys).by(&lee), "192.0.2.1")).await.ok(201);
    let reply = fan.send(from(as_i_am(&anybodys).by(&kim), "192.0.2.1")).await;
    why(&reply, ErrorCode::ChallengeUsed);
    let nobody = get(CHALLENGE).by("nonsense");
    fan.send(nobody).await.refused(ErrorCode::PersonTokenInvalid);
    service.finish().await;
}

/// A process that is alone has only its memory to know what was used.
#[tokio::test]
async fn a_restart_makes_no_solution_good_again() {
    let service = guarded(|_| ()).await;
    let mut fan = service.client();
    let (used, kept) = (solution(&mut fan).await, solution(&mut fan).await);
    let joined = fan.send(join_with(1, &used).key("mine")).await.ok(201);
    let service = service.restart(|_| ()).await;
    let mut fan = service.client();
    for call in [join_with(1, &used).key("mine"), join_with(1, &used), join_with(1, &kept)] {
        let said = why(&fan.send(call).await, ErrorCode::ChallengeInvalid);
        assert!(said.contains("before a restart"), "{said}");
    }
    fan.send(status(joined["token"].as_str().unwrap())).await.ok(200);
    let anew = solution(&mut fan).await;
    fan.send(join_with(1, &anew)).await.ok(201);
    service.finish().await;
}
