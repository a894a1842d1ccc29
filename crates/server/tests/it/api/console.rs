//! The console of operators: who is signed in, what it is told, and what it may change.

use std::io;
use std::time::Duration;

use boxoffice::config::Secret;
use boxoffice::http::problem::ErrorCode;
use boxoffice_backends::store::{Condition, Note, Role};
use boxoffice_domain::queue::SettingsChange;
use boxoffice_domain::time::Timestamp;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::operators::{By, operator, raw};
use crate::common::{
    Call, Client, FUTURE, PAST, PATIENCE, Reply, TestService, charge, delete, get, join, patch,
    pay, post, until,
};
use crate::issuer::{Issuer, Signer};

const COOKIE: &str = "__Host-boxoffice-ops";

fn login(token: &str) -> Call {
    post("/ops/login").same_origin().json(json!({"token": token}))
}

trait Browser {
    /// As a page of the service itself sends it.
    fn same_origin(self) -> Self;
    /// With the cookie that signing in gave.
    fn cookie(self, cookie: &str) -> Self;
}

impl Browser for Call {
    fn same_origin(self) -> Self {
        self.header("Sec-Fetch-Site", "same-origin")
    }

    fn cookie(self, cookie: &str) -> Self {
        self.header("Cookie", format!("theme=dark; {COOKIE}={cookie}"))
    }
}

/// The value of the cookie that an answer sets.
fn cookie_of(reply: &Reply) -> String {
    reply.empty(204);
    let cookie = reply.header("set-cookie").unwrap();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; Max-Age=43200; HttpOnly; Secure; SameSite=Strict");
    let (name, value) = pair.split_once('=').unwrap();
    assert_eq!(name, COOKIE);
    value.to_owned()
}

async fn signed_in(service: &TestService, token: &str) -> String {
    cookie_of(&service.send(login(token)).await)
}

async fn last_change(service: &TestService) -> Value {
    let page = service.send(get("/admin/v1/log?limit=1").admin()).await.ok(200);
    page["changes"][0].clone()
}

#[tokio::test]
async fn a_cookie_stands_for_an_operator_as_long_as_there_is_one() {
    let service = TestService::start().await;
    let token = operator(&service, "desk-1", Role::Operator).await;
    let cookie = signed_in(&service, &token).await;
    assert!(!cookie.contains(&token));
    let me = || get("/admin/v1/me").cookie(&cookie);
    let found = service.send(me()).await.ok(200);
    assert_eq!((&found["name"], &found["role"]), (&json!("desk-1"), &json!("operator")));
    let until: jiff::Timestamp = found["until"].as_str().unwrap().parse().unwrap();
    let left = until.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((12 * 3_600 - 60..=12 * 3_600).contains(&left), "{left}");
    let by_token = service.send(get("/admin/v1/me").by(&token)).await.ok(200);
    assert_eq!(by_token, json!({"name": "desk-1", "role": "operator", "until": null}));

    // What it changes is in the log as by the API; what it may not, it may not.
    let pause = || post("/admin/v1/queues/main/pause").cookie(&cookie).same_origin();
    let paused = service.send(pause()).await.ok(200);
    let entry = last_change(&service).await;
    assert_eq!((&entry["who"], &entry["id"]), (&json!("desk-1"), &paused["logId"]), "{entry}");
    let add = post("/admin/v1/operators").cookie(&cookie).same_origin();
    let add = add.json(json!({"name": "desk-2", "role": "admin"}));
    service.send(add).await.refused(ErrorCode::RoleRequired);
    // A header outweighs a cookie; a scheme that is not ours does not.
    service.send(me().by("bxo_x")).await.refused(ErrorCode::AdminTokenInvalid);
    service.send(me().header("Authorization", "Basic YTpi")).await.ok(200);

    // Signing out takes the cookie away in this browser.
    let gone = service.send(post("/ops/logout").cookie(&cookie).same_origin()).await;
    gone.empty(204);
    let cleared = gone.header("set-cookie").unwrap();
    assert!(cleared.starts_with(&format!("{COOKIE}=; ")) && cleared.contains("Max-Age=0"));
    service.send(post("/ops/logout").same_origin()).await.empty(204);

    // Nothing is kept of it: it is good after a restart, and no more once its operator is removed; nor is it
    // that of a namesake.
    let service = service.restart(|_| ()).await;
    service.send(me()).await.ok(200);
    service.send(delete("/admin/v1/operators/desk-1").admin()).await.empty(204);
    service.send(me()).await.refused(ErrorCode::AdminSessionOver);
    service.send(pause()).await.refused(ErrorCode::AdminSessionOver);
    let again = operator(&service, "desk-1", Role::Operator).await;
    service.send(me()).await.refused(ErrorCode::AdminSessionOver);
    service.send(login(&token)).await.refused(ErrorCode::AdminTokenInvalid);
    let fresh = signed_in(&service, &again).await;
    service.send(get("/admin/v1/me").cookie(&fresh)).await.ok(200);
    service.finish().await;
}

#[tokio::test]
async fn only_who_reads_signs_in_and_nobody_else_makes_a_cookie() {
    let service = TestService::start().await;
    let cashier = operator(&service, "till-1", Role::Cashier).await;
    service.send(login(&cashier)).await.refused(ErrorCode::RoleRequired);
    service.send(login("")).await.refused(ErrorCode::AdminTokenInvalid);
    service.send(login(&"x".repeat(2_000))).await.refused(ErrorCode::AdminTokenInvalid);
    let odd = json!({"token": "x", "more": 1});
    let odd = post("/ops/login").same_origin().json(odd);
    service.send(odd).await.refused(ErrorCode::InvalidField);
    let form = Call::new("POST", "/ops/login").same_origin();
    let mut form = form.header("Content-Type", "application/x-www-form-urlencoded");
    form.body = Some(b"token=x".to_vec());
    service.send(form).await.refused(ErrorCode::UnsupportedMediaType);

    let admin = signed_in(&service, crate::common::ADMIN).await;
    let me = service.send(get("/admin/v1/me").cookie(&admin)).await.ok(200);
    assert_eq!((&me["name"], &me["role"]), (&json!("admin"), &json!("admin")));
    let changed = |at: usize| {
        let mut bytes = admin.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let spoiled = [changed(0), changed(20), changed(admin.len() - 10), String::new(), "é".into()];
    for spoiled in spoiled.iter().chain([&admin.repeat(9)]) {
        let refused = service.send(get("/admin/v1/queues").cookie(spoiled)).await;
        assert_eq!(refused.status, 401, "{spoiled}: {refused}");
    }
    let other = get("/admin/v1/queues").header("Cookie", format!("x{COOKIE}={admin}; a"));
    service.send(other).await.refused(ErrorCode::AdminTokenMissing);
    // The configured token is another after a restart, and what began with the old one is over.
    let service = service
        .restart(|config| {
            config.admin.token = Some(Secret::new("another-admin-token-of-the-tests"))
        })
        .await;
    let over = service.send(get("/admin/v1/me").cookie(&admin)).await;
    over.refused(ErrorCode::AdminSessionOver);
    service.abandon().await;
}

#[tokio::test]
async fn pages_of_others_change_nothing() {
    let service = TestService::start().await;
    let token = operator(&service, "desk-1", Role::Admin).await;
    let cookie = signed_in(&service, &token).await;
    let origin = |origin: &'static str| (origin, "Origin");
    let fetch = |site: &'static str| (site, "Sec-Fetch-Site");
    for (value, name) in [
        fetch("cross-site"),
        fetch("same-site"),
        fetch("none"),
        origin("https://evil.example"),
        origin("null"),
        origin("https://test.evil.example"),
    ] {
        for call in [
            post("/admin/v1/queues/main/pause"),
            patch("/admin/v1/queues/main").json(json!({"maxActive": 1})),
            delete("/admin/v1/operators/desk-1"),
            post("/admin/v1/queues").json(json!({"queue": "evil"})),
            post("/admin/v1/queues/main/preview").json(json!({})),
            post("/ops/logout"),
        ] {
            let refused = service.send(call.cookie(&cookie).header(name, value)).await;
            refused.refused(ErrorCode::CrossSite);
        }
        let sign_in = post("/ops/login").header(name, value).json(json!({"token": token}));
        service.send(sign_in).await.refused(ErrorCode::CrossSite);
        // Reading changes nothing, and the answer is not theirs to read.
        let read = service.send(get("/admin/v1/queues").cookie(&cookie).header(name, value)).await;
        read.ok(200);
        assert_eq!(read.header("access-control-allow-origin"), None);
    }
    let bare = service.send(post("/admin/v1/queues/main/pause").cookie(&cookie)).await;
    bare.refused(ErrorCode::CrossSite);
    // Browsers of old say where the page is from, and no browser sends a token by itself.
    let old = post("/admin/v1/queues/main/pause").cookie(&cookie).header("Origin", "https://test");
    service.send(old).await.ok(200);
    let by_token = post("/admin/v1/queues/main/resume").by(&token);
    service.send(by_token.header("Sec-Fetch-Site", "cross-site")).await.ok(200);
    let log = service.send(get("/admin/v1/log").admin()).await.ok(200);
    assert_eq!(log["changes"].as_array().unwrap().len(), 3);
    service.finish().await;
}

#[tokio::test]
async fn an_address_may_try_a_few_tokens() {
    let service = TestService::start_with(|config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".into()];
    })
    .await;
    let from = |address: &str, token: &str| login(token).header("X-Forwarded-For", address);
    for _ in 0..10 {
        let tried = service.send(from("192.0.2.1", "bxo_guess")).await;
        tried.refused(ErrorCode::AdminTokenInvalid);
    }
    let refused = service.send(from("192.0.2.1", crate::common::ADMIN)).await;
    refused.refused(ErrorCode::RateLimited);
    let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=6).contains(&wait), "{wait}");
    service.send(from("192.0.2.2", crate::common::ADMIN)).await.empty(204);
    service.finish().await;
}

/// A stream of events, as a browser reads it.
struct Events {
    client: Client,
    unread: Vec<u8>,
}

impl Events {
    /// Listens; the head of the answer has been read.
    async fn listen(service: &TestService, call: Call) -> Self {
        let mut client = Client::new(service.running().admin_address());
        client.write(&call.to_bytes()).await.unwrap();
        let mut events = Self { client, unread: Vec::new() };
        let head = events.until(b"\r\n\r\n").await.unwrap();
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        for line in ["content-type: text/event-stream\r\n", "cache-control: no-store\r\n"] {
            assert!(head.contains(line), "{head}");
        }
        events
    }

    /// Everything up to this; none where the answer ends before.
    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                let rest = self.unread.split_off(at + end.len());
                return Some(std::mem::replace(&mut self.unread, rest));
            }
            // The last chunk is empty.
            if self.unread.ends_with(b"\r\n0\r\n\r\n") {
                return None;
            }
            let mut chunk = [0; 16_384];
            let read = self.client.connect().await.read(&mut chunk);
            match timeout(PATIENCE, read).await.expect("nothing comes") {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// The next event: its name and its data. A chunk has one event, behind a line with its length.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            let text = String::from_utf8(self.until(b"\n\n").await?).unwrap();
            let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
            if let Some(name) = line("event: ") {
                let data = line("data: ").unwrap();
                return Some((name.to_owned(), serde_json::from_str(data).unwrap()));
            }
        }
    }

    async fn expect(&mut self, wanted: &str) -> Value {
        match self.next().await {
            Some((name, data)) if name == wanted => data,
            other => panic!("no {wanted}: {other:?}"),
        }
    }

    /// Waits for the end, and says why it is.
    async fn end(&mut self) -> Value {
        loop {
            let (name, data) = self.next().await.expect("an end");
            if name == "end" {
                assert!(self.next().await.is_none(), "something comes after the end");
                return data;
            }
        }
    }
}

fn live() -> Call {
    get("/admin/v1/live")
}

#[tokio::test]
async fn what_goes_on_is_told_once_a_second() {
    let service = TestService::start().await;
    let hall = service.concert(10, 50).await;
    let late = service.session(hall.concert, 1, 1, PAST).await;
    service.charge(1, 1_000).await;
    let buyer = service.admitted(1).await;
    let held = service.send(hall.reserve(&buyer, 1, &[1, 2])).await.ok(201);
    service.send(pay(&buyer, 1, held["reservationId"].as_i64().unwrap())).await.ok(201);
    let other = service.admitted(2).await;
    service.send(hall.reserve(&other, 2, &[3])).await.ok(201);
    service.pause("main").await;
    service.send(join(3)).await.ok(201);
    service.send(join(4)).await.ok(201);
    let why =
        patch("/admin/v1/queues/main").admin().header("X-Reason", "%EB%8A%90%EB%A6%AC%EA%B2%8C");
    service.send(why.json(json!({"admitPerSecond": 7}))).await.ok(200);

    let mut events = Events::listen(&service, live().admin()).await;
    let history = events.expect("history").await;
    assert_eq!(history["everySeconds"], 5);
    let points = history["points"].as_u64().unwrap();
    assert!(points >= 1 && history["unavailable"].as_array().unwrap().len() as u64 == points);
    let of_queue = &history["queues"][0];
    assert_eq!(of_queue["queue"], "main");
    for column in ["waiting", "active", "joinsPerSecond", "admittedPerSecond", "paymentsPerSecond"]
    {
        assert_eq!(of_queue[column].as_array().unwrap().len() as u64, points, "{column}");
    }
    let told = events.expect("live").await;
    let queue = &told["queues"][0];
    for (field, expected) in [
        ("queue", json!("main")),
        ("state", json!("PAUSED")),
        ("paused", json!(true)),
        ("admitPerSecond", json!(7.0)),
        ("admittingPerSecond", json!(0.0)),
        ("maxActive", Value::Null),
        ("waiting", json!(2)),
        ("lastWaitSeconds", Value::Null),
        ("lineEmptyAt", Value::Null),
        ("seatsTotal", json!(10)),
        ("seatsLeft", json!(8)),
    ] {
        assert_eq!(queue[field], expected, "{field}: {queue}");
    }
    let shown = service.send(get("/admin/v1/queues/main").admin()).await;
    assert_eq!(Some(queue["etag"].as_str().unwrap()), shown.header("etag"));
    assert_eq!(told["governor"], json!({"share": 1.0, "reason": "full"}));
    let session = &told["concerts"][0]["sessions"];
    assert_eq!(session.as_array().unwrap().len(), 1, "one is over: {session}, {late:?}");
    let grades = json!([{
        "grade": null, "price": 50, "total": 10, "free": 7, "held": 1, "sold": 2, "money": 100,
    }]);
    assert_eq!(session[0]["grades"], grades);
    assert_eq!((&told["instance"], &told["instances"]), (&Value::Null, &json!([])));
    let ready = service.send(get("/health/ready")).await.ok(200);
    assert_eq!(told["health"], ready);
    assert_eq!(told["alarms"], json!([]), "{told}");
    assert!(told["requests"]["asked"].as_u64().unwrap() >= 5, "{told}");
    assert!(told["requests"]["p95Ms"]["purchases"].as_f64().unwrap() > 0.0);
    // What operators have done comes with who and why.
    let actions = loop {
        let told = events.expect("live").await;
        if told["actions"][0]["operation"] == "change_queue" {
            break told["actions"].clone();
        }
    };
    assert_eq!((&actions[0]["who"], &actions[0]["reason"]), (&json!("admin"), &json!("느리게")));
    // Curves go on.
    service.resume("main").await;
    until("people to be let in", async || {
        let told = events.expect("live").await;
        (told["queues"][0]["waiting"] == 0
            && told["queues"][0]["admittedPerSecond"].as_f64()? > 0.0)
            .then_some(())
    })
    .await;
    drop(events);
    service.finish().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_right_to_it() {
    let service = TestService::start().await;
    let token = operator(&service, "desk-1", Role::Viewer).await;
    let cookie = signed_in(&service, &token).await;
    let mut by_cookie = Events::listen(&service, live().cookie(&cookie)).await;
    let mut by_token = Events::listen(&service, live().by(&token)).await;
    let mut other = Events::listen(&service, live().admin()).await;
    for events in [&mut by_cookie, &mut by_token, &mut other] {
        events.expect("history").await;
        events.expect("live").await;
    }
    let cashier = operator(&service, "till-1", Role::Cashier).await;
    service.send(live().by(&cashier)).await.refused(ErrorCode::RoleRequired);
    service.send(live()).await.refused(ErrorCode::AdminTokenMissing);
    service.send(delete("/admin/v1/operators/desk-1").admin()).await.empty(204);
    assert_eq!(by_cookie.end().await, json!({"reason": "SIGNED_OUT"}));
    assert_eq!(by_token.end().await, json!({"reason": "SIGNED_OUT"}));
    service.send(live().cookie(&cookie)).await.refused(ErrorCode::AdminSessionOver);
    other.expect("live").await;
    // And with the service, in good order.
    let ending = tokio::spawn(async move { other.end().await });
    let stopping = std::time::Instant::now();
    service.finish().await;
    assert_eq!(ending.await.unwrap(), json!({"reason": "SHUTTING_DOWN"}));
    assert!(stopping.elapsed() < Duration::from_secs(8), "{:?}", stopping.elapsed());
}

#[tokio::test]
async fn there_is_room_for_32_listeners() {
    let service = TestService::start_with(|config| {
        config.server.max_connections_per_address = 100;
    })
    .await;
    let mut listeners = Vec::new();
    for _ in 0..32 {
        listeners.push(Events::listen(&service, live().admin()).await);
    }
    let refused = service.send(live().admin()).await;
    refused.refused(ErrorCode::Overloaded);
    assert_eq!(refused.header("retry-after"), Some("10"));
    // Who does not read costs nothing, and whoever goes makes room.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for listener in &mut listeners {
        listener.expect("history").await;
        listener.expect("live").await;
    }
    listeners.pop();
    until("room for one", async || {
        let mut client = service.client();
        client.write(&live().admin().to_bytes()).await.unwrap();
        let mut head = [0; 12];
        let read: io::Result<_> = client.connect().await.read_exact(&mut head).await;
        read.unwrap();
        (&head == b"HTTP/1.1 200").then_some(())
    })
    .await;
    drop(listeners);
    service.finish().await;
}

#[tokio::test]
async fn of_two_operators_one_is_told_that_it_has_changed() {
    let service = TestService::start().await;
    let shown = service.send(get("/admin/v1/queues/main").admin()).await;
    let seen = shown.header("etag").unwrap().to_owned();
    assert_eq!(shown.ok(200)["etag"], seen.as_str());
    let change = |tag: &str, rate: u32| {
        let call = patch("/admin/v1/queues/main").admin().header("If-Match", tag);
        call.json(json!({"admitPerSecond": rate}))
    };
    let first = service.send(change(&seen, 50)).await;
    let tag = first.header("etag").unwrap().to_owned();
    let first = first.ok(200);
    assert_eq!((&first["admitPerSecond"], &first["etag"]), (&json!(50.0), &json!(tag)));
    assert_eq!(first["logId"], last_change(&service).await["id"]);
    let refused = service.send(change(&seen, 60)).await.refused(ErrorCode::ChangedMeanwhile);
    let current = json!({
        "admitPerSecond": 50.0, "maxActive": null, "opensAt": null, "paused": false, "etag": tag,
    });
    assert_eq!(refused["current"], current);
    for tag in [seen.as_str(), "\"x\"", "x", "", &format!("W/{tag}"), &format!("{tag}, {tag}")] {
        service.send(change(tag, 60)).await.refused(ErrorCode::ChangedMeanwhile);
        let pause = post("/admin/v1/queues/main/pause").admin().header("If-Match", tag);
        service.send(pause).await.refused(ErrorCode::ChangedMeanwhile);
    }
    assert_eq!(last_change(&service).await["id"], first["logId"]);
    service.send(change("*", 61)).await.ok(200);
    service.send(post("/admin/v1/queues/main/pause").admin()).await.ok(200);
    service.send(get("/admin/v1/queues/none").admin()).await.refused(ErrorCode::QueueNotFound);
    // At once.
    let shown = service.send(get("/admin/v1/queues/main").admin()).await;
    let seen = shown.header("etag").unwrap().to_owned();
    let mut changes = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (mut client, change) = (service.client(), change(&seen, 70 + n));
        changes.spawn(async move { client.send(change).await.status });
    }
    let mut statuses = changes.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
    service.finish().await;
}

#[tokio::test]
async fn a_change_of_a_queue_can_be_taken_back() {
    let service = TestService::start().await;
    let desk = operator(&service, "desk-1", Role::Operator).await;
    let undo = |id: &Value| post(format!("/admin/v1/log/{id}/undo")).by(&desk);
    let change = |body: Value| patch("/admin/v1/queues/main").by(&desk).json(body);
    let changed =
        service.send(change(json!({"admitPerSecond": 5, "opensAt": FUTURE}))).await.ok(200);
    let undone = service.send(undo(&changed["logId"])).await.ok(200);
    assert_eq!((&undone["admitPerSecond"], &undone["opensAt"]), (&json!(300.0), &Value::Null));
    let entry = last_change(&service).await;
    assert_eq!((&entry["operation"], &entry["who"]), (&json!("undo"), &json!("desk-1")));
    assert_eq!((&entry["id"], &entry["undoes"]), (&undone["logId"], &changed["logId"]));
    // The same again is the same answer, and an undo is a change like others.
    assert_eq!(service.send(undo(&changed["logId"])).await.ok(200), undone);
    let redone = service.send(undo(&undone["logId"])).await.ok(200);
    assert_eq!(redone["admitPerSecond"], 5.0);
    let again = service.send(undo(&changed["logId"])).await.ok(200);
    assert_eq!((&again["logId"], &again["admitPerSecond"]), (&undone["logId"], &json!(5.0)));
    // A pause too.
    let paused = service.send(post("/admin/v1/queues/main/pause").by(&desk)).await.ok(200);
    let resumed = service.send(undo(&paused["logId"])).await.ok(200);
    assert_eq!(resumed["paused"], false);
    // Not where somebody has changed it since, nor what is no change of a queue.
    let one = service.send(change(json!({"maxActive": 5}))).await.ok(200);
    service.send(change(json!({"maxActive": 6}))).await.ok(200);
    let refused = service.send(undo(&one["logId"])).await.refused(ErrorCode::ChangedSince);
    assert_eq!(refused["current"]["maxActive"], 6);
    service.concert(1, 1).await;
    let concert = last_change(&service).await["id"].clone();
    service.send(undo(&concert)).await.refused(ErrorCode::NotUndoable);
    service.send(post("/admin/v1/queues").admin().json(json!({"queue": "vip"}))).await.ok(201);
    let made = last_change(&service).await["id"].clone();
    service.send(undo(&made)).await.refused(ErrorCode::NotUndoable);
    for id in [json!(9_999), json!(i64::MAX)] {
        service.send(undo(&id)).await.refused(ErrorCode::LogEntryNotFound);
    }
    for id in ["0", "-1", "x", "9223372036854775808"] {
        let odd = post(format!("/admin/v1/log/{id}/undo")).by(&desk);
        service.send(odd).await.refused(ErrorCode::InvalidId);
    }
    // Nor after ten minutes.
    let id = long_ago(&service, 601_000).await;
    service.send(undo(&json!(id))).await.refused(ErrorCode::UndoTooLate);
    let id = long_ago(&service, 590_000).await;
    service.send(undo(&json!(id))).await.ok(200);
    let viewer = operator(&service, "eye-1", Role::Viewer).await;
    let by_viewer = post(format!("/admin/v1/log/{id}/undo")).by(&viewer);
    service.send(by_viewer).await.refused(ErrorCode::RoleRequired);
    service.finish().await;
}

/// Changes the main queue, as if so many milliseconds ago. Returns the number of the entry in the log.
pub(crate) async fn long_ago(service: &TestService, ms: i64) -> i64 {
    let app = service.running().app();
    let note = Note {
        at: Timestamp(app.clock.now().0 - ms),
        who: "ada".into(),
        role: Role::Operator,
        origin: "here".into(),
        operation: "change_queue",
        reason: None,
        key: None,
        answer: std::sync::Arc::new(|_| String::new()),
    };
    let queue = app.sequencer.queue("main").unwrap();
    let rate = queue.settings().admit_per_second + 1.0;
    let change = SettingsChange { admit_per_second: Some(rate), ..SettingsChange::default() };
    app.sequencer.change_noted(&queue, change, Condition::Any, note).await.unwrap();
    last_change(service).await["id"].as_i64().unwrap()
}

#[tokio::test]
async fn reasons_are_kept_with_what_they_are_for() {
    let service = TestService::start().await;
    let pause = |why: &str| post("/admin/v1/queues/main/pause").admin().header("X-Reason", why);
    for (why, kept) in [
        ("too%20fast", json!("too fast")),
        ("plain text, 100 %25", json!("plain text, 100 %")),
        ("%EC%84%9C%EB%B2%84%20%F0%9F%94%A5", json!("서버 🔥")),
        ("%3Cscript%3Ealert(1)%3C%2Fscript%3E", json!("<script>alert(1)</script>")),
        (&"%EA%B0%80".repeat(200), json!("가".repeat(200))),
        ("", Value::Null),
        ("%20", Value::Null),
    ] {
        service.send(pause(why)).await.ok(200);
        assert_eq!(last_change(&service).await["reason"], kept, "{why}");
    }
    let longest = "x".repeat(201);
    for why in ["100 %", "%x1", "%4", "%00", "a%0Ab", "%FF", "%ED%A0%80", longest.as_str()] {
        service.send(pause(why)).await.refused(ErrorCode::InvalidHeader);
    }
    let twice = pause("a").header("X-Reason", "b");
    service.send(twice).await.refused(ErrorCode::DuplicateHeader);
    service.finish().await;
}

#[tokio::test]
async fn a_preview_says_what_would_be_and_changes_nothing() {
    let service = TestService::start_with(|config| {
        config.queue.safe_rate = Some(400.0);
    })
    .await;
    service.admitted(1).await;
    service.pause("main").await;
    for user in 2..=41 {
        service.send(join(user)).await.ok(201);
    }
    let preview = |body: Value| post("/admin/v1/queues/main/preview").admin().json(body);
    let before = service.send(get("/admin/v1/queues/main").admin()).await.ok(200);
    let same = service.send(preview(json!({}))).await.ok(200);
    assert_eq!(same["now"], same["then"]);
    assert_eq!((&same["waiting"], &same["inside"]), (&json!(40), &json!(1)));
    assert_eq!(same["now"]["lastWaitSeconds"], Value::Null, "it is paused");
    assert_eq!(same["now"]["insideAtMost"], 1);
    assert_eq!((&same["warnings"], &same["etag"]), (&json!([]), &before["etag"]));
    assert_eq!((&same["seatsLeft"], &same["buyersServed"]), (&Value::Null, &Value::Null));
    let slow = service.send(preview(json!({"paused": false, "admitPerSecond": 1}))).await.ok(200);
    let fast = service.send(preview(json!({"paused": false, "admitPerSecond": 10}))).await.ok(200);
    let wait = |seen: &Value| seen["then"]["lastWaitSeconds"].as_i64().unwrap();
    assert_eq!((wait(&slow), wait(&fast)), (40, 4));
    assert!(slow["then"]["lineEmptyAt"].is_string());
    assert_eq!(fast["then"]["insideAtMost"], 41);
    let bounded = json!({"paused": false, "maxActive": 5});
    let bounded = service.send(preview(bounded)).await.ok(200);
    assert_eq!(bounded["then"]["insideAtMost"], 5);
    assert_eq!(bounded["then"]["lastWaitSeconds"], Value::Null, "nobody knows how long they stay");
    let codes = async |body: Value| -> Vec<String> {
        let seen = service.send(preview(body)).await.ok(200);
        let warnings = seen["warnings"].as_array().unwrap().clone();
        warnings.iter().map(|it| it["code"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(codes(json!({"admitPerSecond": 400})).await, [""; 0]);
    assert_eq!(codes(json!({"admitPerSecond": 401})).await, ["ABOVE_SAFE_RATE"]);
    assert_eq!(codes(json!({"opensAt": FUTURE})).await, ["OPENING_MOVED"]);
    assert_eq!(codes(json!({"opensAt": PAST})).await, ["OPENS_IN_PAST"]);
    assert_eq!(codes(json!({"maxActive": 1})).await, [""; 0]);
    for (body, code) in [
        (json!({"admitPerSecond": 0}), ErrorCode::InvalidSetting),
        (json!({"admitPerSecond": 1e300}), ErrorCode::InvalidSetting),
        (json!({"maxActive": 0}), ErrorCode::InvalidSetting),
        (json!({"maxActive": -1}), ErrorCode::InvalidField),
        (json!({"opensAt": "soon"}), ErrorCode::InvalidSetting),
        (json!({"paused": 1}), ErrorCode::InvalidField),
        (json!({"rate": 1}), ErrorCode::InvalidField),
        (json!([]), ErrorCode::InvalidField),
    ] {
        service.send(preview(body)).await.refused(code);
    }
    service
        .send(preview(json!({"maxActive": u32::MAX, "opensAt": "9999-12-31T00:00:00Z"})))
        .await
        .ok(200);
    let hall = service.concert(20, 1).await;
    let token = service.token(50).await;
    service.charge(50, 10).await;
    let held = service.send(hall.reserve(&token, 50, &[1, 2])).await.ok(201);
    service.send(pay(&token, 50, held["reservationId"].as_i64().unwrap())).await.ok(201);
    let seen = until("the purchase to be counted", async || {
        let seen = service.send(preview(json!({"paused": false}))).await.ok(200);
        (seen["seatsLeft"] == 18 && seen["seatsPerPurchase"].is_number()).then_some(seen)
    })
    .await;
    assert_eq!((&seen["seatsPerPurchase"], &seen["buyersServed"]), (&json!(2.0), &json!(9)));
    let inside = seen["then"]["insideAtMost"].as_u64().unwrap();
    assert!(inside <= 18, "no more than there are seats for: {inside}");
    let (before, log) = (
        service.send(get("/admin/v1/queues/main").admin()).await.ok(200),
        last_change(&service).await,
    );
    service.send(preview(json!({"admitPerSecond": 9}))).await.ok(200);
    let nowhere = post("/admin/v1/queues/none/preview").admin().json(json!({}));
    service.send(nowhere).await.refused(ErrorCode::QueueNotFound);
    let after = service.send(get("/admin/v1/queues/main").admin()).await.ok(200);
    assert_eq!((after, last_change(&service).await), (before, log));
    service.finish().await;
}

#[tokio::test]
async fn orders_are_found_and_summed_up() {
    let issuer = Issuer::start(Signer::ed()).await;
    let service = TestService::start_with(|config| issuer.configure(config)).await;
    let hall = service.concert(5, 10).await;
    let other = service.session(hall.concert, 2, 7, FUTURE).await;
    let person = |name: &str| format!("Bearer {}", issuer.token(name));
    let mut payments = Vec::new();
    for (name, sale, seats) in
        [("kim", &hall, &[1_i64, 2] as &[i64]), ("이영희", &other, &[1]), ("a&b=c #1", &hall, &[3])]
    {
        let as_person = |call: Call| call.header("Authorization", person(name));
        let joined =
            service.send(as_person(post("/api/v1/waiting-queues").json(json!({})))).await.ok(201);
        let token = joined["token"].as_str().unwrap().to_owned();
        until("the turn", async || {
            let place = service.send(as_person(get("/api/v1/waiting-queues").token(&token))).await;
            (place.ok(200)["status"] == "ACTIVATED").then_some(())
        })
        .await;
        let ids: Vec<i64> = seats.iter().map(|seat| sale.seat(*seat)).collect();
        let path =
            format!("/api/v1/concerts/{}/sessions/{}/reservations", sale.concert, sale.session);
        let hold = as_person(post(path).token(&token).json(json!({"seatIds": ids})));
        let held = service.send(hold).await.ok(201);
        let reservation = held["reservationId"].as_i64().unwrap();
        let shown =
            service.send(get(format!("/admin/v1/reservations?reservation={reservation}")).admin());
        let user = shown.await.ok(200)["reservations"][0]["userId"].as_i64().unwrap();
        if name != "kim" {
            payments.push((reservation, user, None));
            continue;
        }
        service.send(charge(user, 100).admin()).await.ok(200);
        let pay =
            post("/api/v1/payments").token(&token).json(json!({"reservationId": reservation}));
        let paid = service.send(as_person(pay)).await.ok(201);
        payments.push((reservation, user, paid["paymentId"].as_i64()));
    }
    let [kim, lee, odd] = payments[..] else { panic!("{payments:?}") };
    let find = async |query: String| -> Vec<i64> {
        let found =
            service.send(get(format!("/admin/v1/reservations?{query}")).admin()).await.ok(200);
        let found = found["reservations"].as_array().unwrap().clone();
        found.iter().map(|it| it["reservationId"].as_i64().unwrap()).collect()
    };
    let (paid, concert) = (kim.2.unwrap(), hall.concert);
    for (query, expected) in [
        (format!("user={}", kim.1), vec![kim.0]),
        (format!("payment={paid}"), vec![kim.0]),
        (format!("payment={paid}&reservation={}", kim.0), vec![kim.0]),
        (format!("payment={paid}&reservation={}", lee.0), vec![]),
        ("payment=99999".to_owned(), vec![]),
        ("name=kim".to_owned(), vec![kim.0]),
        ("name=ki".to_owned(), vec![]),
        ("name=%EC%9D%B4%EC%98%81%ED%9D%AC".to_owned(), vec![lee.0]),
        ("name=a%26b%3Dc+%231".to_owned(), vec![odd.0]),
        (format!("name=kim&user={}", lee.1), vec![]),
        ("state=PAID".to_owned(), vec![kim.0]),
        (format!("state=HELD&concert={concert}&session={}", hall.session), vec![odd.0]),
        (format!("session={}", other.session), vec![lee.0]),
        ("concert=99999".to_owned(), vec![]),
    ] {
        assert_eq!(find(query.clone()).await, expected, "{query}");
    }
    // The next page is asked for the same way.
    let page =
        service.send(get("/admin/v1/reservations?limit=1&name=a%26b%3Dc%20%231").admin()).await;
    let link = page.header("link").unwrap();
    let next = link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
    let rest = service.send(get(next.as_str()).admin()).await.ok(200);
    assert_eq!(rest["reservations"], json!([]), "{next}");
    let listed =
        service.send(get(format!("/admin/v1/reservations?payment={paid}")).admin()).await.ok(200);
    assert_eq!(listed["reservations"][0]["paymentId"], paid);
    let table = get("/admin/v1/reservations?state=PAID").admin().header("Accept", "text/csv");
    let table = service.send(table).await;
    assert_eq!(table.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(String::from_utf8(table.body).unwrap().lines().count(), 2);
    for query in [
        "user=0",
        "user=x",
        "reservation=-1",
        "payment=",
        "concert=1.5",
        "session=9223372036854775808",
        "state=LOST",
        "user=1&user=2",
        "other=1",
        &format!("name={}", "x".repeat(256)),
    ] {
        let refused = service.send(get(format!("/admin/v1/reservations?{query}")).admin()).await;
        refused.refused(ErrorCode::InvalidQuery);
    }

    let rows = async |query: &str| -> (Vec<Value>, Value) {
        let page = service.send(get(format!("/admin/v1/sales{query}")).admin()).await.ok(200);
        let of = |it: &Value| {
            assert_eq!(it["grade"], Value::Null);
            json!(
                ["sessionId", "price", "total", "free", "held", "sold", "money"]
                    .map(|name| it[name].clone())
            )
        };
        (page["sales"].as_array().unwrap().iter().map(of).collect(), page["next"].clone())
    };
    let first = json!([hall.session, 10, 5, 2, 1, 2, 20]);
    let second = json!([other.session, 7, 2, 1, 1, 0, 0]);
    assert_eq!(rows("").await, (vec![first.clone(), second.clone()], Value::Null));
    let (one, next) = rows("?limit=1").await;
    assert_eq!((one, &next), (vec![first], &json!(hall.session)));
    let (two, next) = rows(&format!("?limit=2&after={next}&concert={concert}")).await;
    assert_eq!((two, next), (vec![second], Value::Null));
    assert_eq!(rows("?concert=99999").await, (vec![], Value::Null));
    let table = get("/admin/v1/sales").admin().header("Accept", "text/csv");
    let table = String::from_utf8(service.send(table).await.body).unwrap();
    assert!(table.contains("money") && table.lines().count() == 3, "{table}");
    service.finish().await;
}

#[tokio::test]
async fn the_pages_of_the_console_are_where_the_admin_api_is() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("ops")).unwrap();
    for (name, text) in [
        ("ops/index.html", "<!doctype html>\"/assets/ops/a.js\""),
        ("ops/login.html", "<!doctype html>sign in"),
        ("ops/a.js", "1"),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let from = directory.path().to_owned();
    let service = TestService::start_with(|config| {
        config.pages.directory = Some(from);
        config.admin.listen = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let mut inner = Client::new(service.running().admin_address());
    let mut public = service.client();
    for path in [
        "/ops",
        "/ops/login",
        "/ops/queues",
        "/ops/queues/main",
        "/ops/sales",
        "/ops/concerts",
        "/ops/concerts/7",
        "/ops/orders",
        "/ops/orders/8",
        "/ops/log",
        "/ops/audit",
        "/ops/operators",
        "/ops/tickets",
    ] {
        let page = inner.send(get(path)).await;
        assert_eq!(page.status, 200, "{path}: {page}");
        assert!(page.body.starts_with(b"<!doctype html>"), "{path}");
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && policy.contains("trusted-types"));
        assert_eq!(page.header("x-frame-options"), Some("DENY"));
        // For the codes of tickets.
        let camera = page.header("permissions-policy").unwrap().contains("camera=(self)");
        assert_eq!(camera, path != "/ops/login");
        assert_eq!(page.body.ends_with(b"sign in"), path == "/ops/login");
        public.send(get(path)).await.refused(ErrorCode::RouteNotFound);
    }
    for path in [
        "/ops/",
        "/ops/nowhere",
        "/ops/queues/",
        "/ops/queues/A",
        "/ops/queues/a/b",
        "/ops/log/1",
        "/ops/concerts/x",
        "/ops/orders/0",
        "/ops/%71ueues",
        "/opsy",
    ] {
        inner.send(get(path)).await.refused(ErrorCode::RouteNotFound);
    }
    let document = inner.send(get("/ops")).await;
    let text = String::from_utf8(document.body).unwrap();
    let asset = text.split('"').nth(1).unwrap();
    assert_eq!(inner.send(get(asset)).await.body, b"1");
    // The description tells of a service with one listener.
    let sign_in = raw(&mut public, login(crate::common::ADMIN)).await;
    sign_in.refused(ErrorCode::RouteNotFound);
    inner.send(login(crate::common::ADMIN)).await.empty(204);
    service.finish().await;
}
