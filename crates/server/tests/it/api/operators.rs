//! Operators: their tokens, what each role may do, and the log of what they changed.

use std::time::{Duration, Instant};

use boxoffice::endpoints::{Class, Route};
use boxoffice::http::problem::ErrorCode;
use boxoffice::operators::REFRESH;
use boxoffice_backends::store::{Act, Note, Role};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::api::sign_in;
use crate::common::{
    Call, Client, FUTURE, ICON, PAST, PATIENCE, Reply, TestService, delete, get, join, patch, post,
    until,
};
use crate::issuer::{Issuer, Signer};

/// Adds an operator. Returns the token.
pub(super) async fn operator(service: &TestService, name: &str, role: Role) -> String {
    let body = json!({"name": name, "role": role.as_str()});
    let added = service.send(post("/admin/v1/operators").admin().json(body)).await.ok(201);
    assert_eq!((&added["name"], &added["role"]), (&json!(name), &json!(role.as_str())));
    added["token"].as_str().unwrap().to_owned()
}

pub(super) trait By {
    fn by(self, token: &str) -> Self;
}

impl By for Call {
    fn by(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }
}

/// Every endpoint for operators, as a call that does little.
fn calls() -> Vec<(Route, Call)> {
    // The answer to one has no end; `console` asks for it.
    let is_for_operators =
        |route: &&Route| route.class() == Class::Admin && **route != Route::AdminLive;
    let admin = Route::ALL.iter().filter(is_for_operators);
    admin
        .map(|route| {
            let path = route.template().split('/').map(|part| match part {
                "{queue}" => "main",
                "{name}" => "nobody",
                part if part.starts_with('{') => "999",
                part => part,
            });
            let path = path.collect::<Vec<_>>().join("/");
            (*route, Call::new(route.method(), path).json(json!({})))
        })
        .collect()
}

/// What is asked with a body and changes nothing.
const QUESTIONS: [Route; 2] = [Route::AdminTicketVerify, Route::AdminQueuePreview];

#[tokio::test]
async fn every_endpoint_asks_for_its_role() {
    let service = TestService::start().await;
    let mut client = service.client();
    let mut tokens = Vec::new();
    for role in Role::ALL {
        tokens.push((role, operator(&service, &format!("a-{role}"), role).await));
    }
    let calls = calls();
    assert!(calls.len() >= 18, "only {}", calls.len());
    for (route, call) in calls {
        // What the contract says in words.
        let on_queue = route.template().starts_with("/admin/v1/queues/{queue}");
        let needed = match route.method() {
            "GET" => Role::Viewer,
            _ if QUESTIONS.contains(&route) => Role::Viewer,
            _ if on_queue || route == Route::AdminUndo => Role::Operator,
            _ => Role::Admin,
        };
        assert_eq!(route.role(), Some(needed), "{route:?}");
        client.send(call.clone()).await.refused(ErrorCode::AdminTokenMissing);
        client.send(call.clone().by("bxo_nobody")).await.refused(ErrorCode::AdminTokenInvalid);
        for (role, token) in &tokens {
            let reply = client.send(call.clone().by(token)).await;
            if role.may(needed) {
                assert!(!matches!(reply.status, 401 | 403 | 500..), "{route:?} {role}: {reply}");
            } else {
                let refused = reply.refused(ErrorCode::RoleRequired);
                let detail = refused["detail"].as_str().unwrap();
                assert!(detail.contains(&format!("the role {needed}")), "{detail}");
            }
        }
    }
    // The description says the same.
    let document = client.send(get("/openapi.json")).await.ok(200);
    for (route, _) in self::calls() {
        let method = route.method().to_ascii_lowercase();
        let operation = &document["paths"][route.template()][method];
        let expected = format!("Needs the role `{}`.", route.role().unwrap());
        assert_eq!(operation["description"], expected, "{route:?}");
    }
    service.finish().await;
}

#[tokio::test]
async fn a_token_is_shown_once_and_gone_when_it_is_taken_away() {
    let service = TestService::start().await;
    let token = operator(&service, "desk-1", Role::Viewer).await;
    assert!(token.starts_with("bxo_") && token.len() >= 4 + 32, "{token}");
    let reads = || get("/admin/v1/queues").by(&token);
    service.send(reads()).await.ok(200);
    let listed = service.send(get("/admin/v1/operators").admin()).await;
    assert!(!String::from_utf8(listed.body.clone()).unwrap().contains(&token));
    let listed = listed.ok(200);
    let operators = listed["operators"].as_array().unwrap();
    assert_eq!(operators.len(), 1);
    assert_eq!(
        (&operators[0]["name"], &operators[0]["role"]),
        (&json!("desk-1"), &json!("viewer"))
    );
    // Neither the store nor its log has more than a digest.
    for entry in std::fs::read_dir(service.data_dir()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
        assert!(!found, "the token is in a file");
    }
    let again = json!({"name": "desk-1", "role": "admin"});
    let again = service.send(post("/admin/v1/operators").admin().json(again)).await;
    again.refused(ErrorCode::AlreadyExists);
    for name in ["", "Desk", "admin", "command-line", "a b"] {
        let body = json!({"name": name, "role": "viewer"});
        let refused = service.send(post("/admin/v1/operators").admin().json(body)).await;
        refused.refused(ErrorCode::InvalidSetting);
    }
    let root = json!({"name": "root", "role": "root"});
    let root = service.send(post("/admin/v1/operators").admin().json(root)).await;
    root.refused(ErrorCode::InvalidField);

    // A request of theirs that is under way ends as it began.
    let admin = operator(&service, "desk-2", Role::Admin).await;
    let body = concert("Under way").to_string();
    let call = post("/admin/v1/concerts").by(&admin).header("Expect", "100-continue").text(body);
    let bytes = call.to_bytes();
    let (head, rest) = bytes.split_at(bytes.len() - 20);
    let mut slow = service.client();
    slow.write(head).await.unwrap();
    // The body is asked for, so its head has been looked at.
    let mut continues = [0; 25];
    slow.connect().await.read_exact(&mut continues).await.unwrap();
    assert!(continues.starts_with(b"HTTP/1.1 100 Continue\r\n"));
    service.send(delete("/admin/v1/operators/desk-2").admin()).await.empty(204);
    service.send(get("/admin/v1/queues").by(&admin)).await.refused(ErrorCode::AdminTokenInvalid);
    slow.write(rest).await.unwrap();
    slow.answer(&call).await.ok(201);
    assert_eq!(last_change(&service).await["who"], "desk-2");

    // Taken away through another instance, it is refused here a moment later.
    let note = Note {
        at: service.running().app().clock.now(),
        who: "elsewhere".into(),
        role: Role::Admin,
        origin: "elsewhere".into(),
        operation: "remove_operator",
        reason: None,
        key: None,
        answer: std::sync::Arc::new(|_| String::new()),
    };
    let store = &service.running().app().store;
    store.act(Act::RemoveOperator("desk-1".into()), note).await.unwrap();
    let began = Instant::now();
    until("the token to be refused", async || {
        (service.send(reads()).await.status == 401).then_some(())
    })
    .await;
    assert!(began.elapsed() < REFRESH + Duration::from_secs(5) && REFRESH < PATIENCE);
    service
        .send(delete("/admin/v1/operators/desk-1").admin())
        .await
        .refused(ErrorCode::OperatorNotFound);
    // The name can be had again; the token is another.
    assert_ne!(operator(&service, "desk-1", Role::Viewer).await, token);
    service.send(reads()).await.refused(ErrorCode::AdminTokenInvalid);
    let service = service.restart(|_| ()).await;
    assert_eq!(
        service.send(get("/admin/v1/operators").admin()).await.ok(200)["operators"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    service.finish().await;
}

#[tokio::test]
async fn lists_come_in_pages_and_as_tables() {
    let service = TestService::start().await;
    let hall = service.concert(5, 10).await;
    let odd = json!({
        "name": "=1+1 \"가을\", 서울", "venue": "@hall", "queue": "main",
        "reservationOpensAt": PAST, "reservationClosesAt": FUTURE,
    });
    service.send(post("/admin/v1/concerts").admin().json(odd)).await.ok(201);
    let other = service.session(hall.concert, 2, 1, PAST).await;
    for user in 1..=4 {
        service.charge(user, 100).await;
        let token = service.token(user).await;
        let held = service.send(hall.reserve(&token, user, &[user])).await.ok(201);
        if user == 3 {
            continue;
        }
        let id = held["reservationId"].as_i64().unwrap();
        let paid = service.send(crate::common::pay(&token, user, id)).await.ok(201);
        if user == 4 {
            let back = post(format!("/api/v1/payments/{}/refund", paid["paymentId"]));
            service.send(back.token(&token).json(json!({"userId": user}))).await.ok(200);
        }
    }
    // The other session is called off: a row of the log, and the list of sessions says it.
    let off = format!("/admin/v1/concerts/{}/sessions/{}/cancel", hall.concert, other.session);
    service.send(post(off).admin()).await.ok(200);
    let sessions = get(format!("/admin/v1/concerts/{}/sessions", hall.concert)).admin();
    let sessions = service.send(sessions).await.ok(200);
    assert_eq!(sessions["sessions"][0]["cancelledAt"], Value::Null);
    assert!(sessions["sessions"][1]["cancelledAt"].is_string(), "{sessions}");
    let viewer = operator(&service, "ada", Role::Viewer).await;
    let mut client = service.client();
    for (path, name, expected) in [
        ("/admin/v1/concerts", "concerts", 2),
        (&format!("/admin/v1/concerts/{}/sessions", hall.concert), "sessions", 2),
        ("/admin/v1/reservations", "reservations", 4),
        ("/admin/v1/reservations?state=REFUNDED", "reservations", 1),
        ("/admin/v1/reservations?state=PAID", "reservations", 2),
        ("/admin/v1/reservations?state=HELD", "reservations", 1),
        ("/admin/v1/payments", "payments", 3),
        ("/admin/v1/people", "people", 4),
        ("/admin/v1/log", "changes", 10),
    ] {
        let all = client.send(get(path).by(&viewer)).await.ok(200);
        let items = all[name].as_array().unwrap();
        assert_eq!((items.len(), &all["next"]), (expected, &Value::Null), "{path}: {all}");
        // One by one, as JSON and as tables, along the links.
        let join = if path.contains('?') { '&' } else { '?' };
        let mut next = format!("{path}{join}limit=1");
        let (mut found, mut tables) = (Vec::new(), Vec::new());
        loop {
            let reply = client.send(get(&next).by(&viewer)).await;
            found.extend(reply.ok(200)[name].as_array().unwrap().iter().cloned());
            let table = client.send(get(&next).by(&viewer).header("Accept", "text/csv")).await;
            assert_eq!(table.header("content-type"), Some("text/csv; charset=utf-8"));
            assert_eq!(table.header("link"), reply.header("link"));
            tables.push(String::from_utf8(table.body.clone()).unwrap());
            let Some(link) = reply.header("link") else { break };
            next = link.split(['<', '>']).nth(1).unwrap().to_owned();
        }
        assert_eq!(&found, items, "{path}");
        for table in tables {
            assert!(
                table.starts_with('\u{feff}') && (table.len() == 3 || table.ends_with("\r\n")),
                "{table:?}"
            );
        }
        let unknown = format!("{path}{join}colour=red");
        client.send(get(unknown).by(&viewer)).await.refused(ErrorCode::InvalidQuery);
    }
    let people = client.send(get("/admin/v1/people?after=2").by(&viewer)).await.ok(200);
    let third = json!({
        "userId": 3, "totalAmount": 100, "heldReservations": 1, "paidReservations": 0,
    });
    // Whose payment was refunded has the points, and nothing else.
    let fourth = json!({
        "userId": 4, "totalAmount": 100, "heldReservations": 0, "paidReservations": 0,
    });
    assert_eq!(people["people"], json!([third, fourth]));
    let table =
        client.send(get("/admin/v1/concerts?after=1").by(&viewer).header("Accept", "text/csv"));
    let table = String::from_utf8(table.await.body).unwrap();
    let expected = "\u{feff}concertId,name,venue,queue,reservationOpensAt,reservationClosesAt,state\r\n\
        2,\"'=1+1 \"\"가을\"\", 서울\",'@hall,main,";
    assert!(table.starts_with(expected), "{table}");
    for state in ["paid", "SOLD", ""] {
        let path = format!("/admin/v1/reservations?state={state}");
        client.send(get(path).by(&viewer)).await.refused(ErrorCode::InvalidQuery);
    }
    let nowhere = "/admin/v1/concerts/99/sessions";
    client.send(get(nowhere).by(&viewer)).await.refused(ErrorCode::ConcertNotFound);
    assert_ne!(other.session, hall.session);
    service.finish().await;
}

pub(super) async fn raw(client: &mut Client, call: Call) -> Reply {
    client.write(&call.to_bytes()).await.unwrap();
    client.read(call.method == "HEAD").await.unwrap().unwrap()
}

#[tokio::test]
async fn what_is_for_operators_has_a_listener_of_its_own() {
    let issuer = Issuer::start(Signer::ed()).await;
    let service = TestService::start_with(|config| {
        sign_in::configure(&issuer, config);
        config.admin.listen = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let (mut public, mut inner) =
        (service.client(), Client::new(service.running().admin_address()));
    assert_ne!(service.address(), service.running().admin_address());
    for route in Route::ALL {
        let path = route.template();
        if matches!(
            route,
            Route::NotFound | Route::MethodNotAllowed | Route::Preflight | Route::AdminLive
        ) {
            continue;
        }
        // There is a document of the console where pages are built with it.
        if Route::PAGES.contains(route) && path.starts_with("/ops") {
            continue;
        }
        let path = path.split('/').map(|part| match part {
            "{*file}" => ICON,
            part if part.starts_with('{') => "1",
            part => part,
        });
        let path = path.collect::<Vec<_>>().join("/");
        let call = || Call::new(route.method(), path.clone()).admin().json(json!({}));
        let is_for_operators = route.class() == Class::Admin
            || ["/ops", "/metrics", "/actuator", "/swagger-ui", "/openapi.json"]
                .iter()
                .any(|begin| path.starts_with(begin));
        let is_for_both =
            ["/health", "/docs/errors", "/assets/"].iter().any(|begin| path.starts_with(begin));
        // The description tells of a service with one listener.
        let at_public = raw(&mut public, call()).await;
        let at_inner = raw(&mut inner, call()).await;
        let hidden = |reply: &Reply| reply.code().as_deref() == Some("ROUTE_NOT_FOUND");
        assert_eq!(hidden(&at_public), is_for_operators, "{path}: {at_public}");
        assert_eq!(hidden(&at_inner), !is_for_operators && !is_for_both, "{path}: {at_inner}");
    }
    let odd = ["/admin/v1/queues?x", "/%61dmin/v1/queues", "//admin/v1/queues", "/ADMIN/v1/queues"];
    for path in odd {
        let reply = raw(&mut public, get(path).admin()).await;
        assert_eq!(reply.status, 404, "{path}: {reply}");
    }
    // Both end in good order, and the next start knows which of them it has.
    let note = service.data_dir().join("boxoffice.admin.addr");
    let noted = std::fs::read_to_string(&note).unwrap();
    assert_eq!(noted, service.running().admin_address().to_string());
    let service = service.restart(|config| config.admin.listen = None).await;
    assert!(!note.exists());
    service.send(get("/admin/v1/queues").admin()).await.ok(200);
    service.finish().await;
}

fn concert(name: &str) -> Value {
    json!({
        "name": name, "venue": "A hall", "queue": "main",
        "reservationOpensAt": PAST, "reservationClosesAt": FUTURE,
    })
}

async fn log(service: &TestService) -> Vec<Value> {
    let page = service.send(get("/admin/v1/log?limit=1000").admin()).await.ok(200);
    page["changes"].as_array().unwrap().clone()
}

async fn last_change(service: &TestService) -> Value {
    log(service).await.swap_remove(0)
}

/// The endpoint, the call, the status, the target, a part of what was, a part of what has become.
type Change = (Route, Call, u16, &'static str, Option<&'static str>, Option<&'static str>);

/// Every endpoint that changes something, in an order in which all succeed, with what the log is to say:
/// the target, a part of what was, and a part of what has become.
fn changes() -> Vec<Change> {
    use Route as R;
    let add = json!({"name": "desk-9", "role": "cashier"});
    let tokens = json!({
        "count": 3, "format": "a_secret_token_{n}", "activated": true, "guessable": true,
    });
    let session = json!({"concertAt": FUTURE, "seatCount": 4, "price": 7});
    let a_concert = "/admin/v1/concerts/1";
    let a_session = "/admin/v1/concerts/1/sessions/1";
    vec![
        (
            R::AdminQueueCreate,
            post("/admin/v1/queues").json(json!({"queue": "vip", "admitPerSecond": 5})),
            201,
            "queue vip",
            None,
            Some("\"admitPerSecond\":5.0"),
        ),
        (
            R::AdminQueueChange,
            patch("/admin/v1/queues/vip").json(json!({"maxActive": 11})),
            200,
            "queue vip",
            Some("\"maxActive\":null"),
            Some("\"maxActive\":11"),
        ),
        (
            R::AdminQueuePause,
            post("/admin/v1/queues/vip/pause"),
            200,
            "queue vip",
            Some("\"paused\":false"),
            Some("\"paused\":true"),
        ),
        (
            R::AdminQueueResume,
            post("/admin/v1/queues/vip/resume"),
            200,
            "queue vip",
            Some("\"paused\":true"),
            Some("\"paused\":false"),
        ),
        (
            R::AdminTokenIssue,
            post("/admin/v1/tokens").json(tokens),
            201,
            "tokens of queue main",
            None,
            Some("\"count\":3"),
        ),
        (
            R::AdminConcertCreate,
            post("/admin/v1/concerts").json(concert("First")),
            201,
            "concert 1",
            None,
            Some("\"name\":\"First\""),
        ),
        (
            R::AdminConcertChange,
            patch(a_concert).json(json!({"name": "첫 공연"})),
            200,
            "concert 1",
            Some("\"name\":\"First\""),
            Some("\"name\":\"첫 공연\""),
        ),
        (
            R::AdminSessionCreate,
            post("/admin/v1/concerts/1/sessions").json(session),
            201,
            "session 1",
            None,
            Some("\"seatCount\":4"),
        ),
        (
            R::AdminSeatCreate,
            post(format!("{a_session}/seats")).json(json!({"seatCount": 2, "price": 9})),
            201,
            "session 1",
            None,
            Some("\"price\":9"),
        ),
        (
            R::AdminSessionChange,
            patch(a_session).json(json!({"concertAt": "2098-01-01T00:00:00Z"})),
            200,
            "session 1",
            Some("2098-12-31"),
            Some("2098-01-01"),
        ),
        (
            R::AdminSessionCancel,
            post(format!("{a_session}/cancel")),
            200,
            "session 1",
            Some("\"sessionsCancelled\":0"),
            Some("\"sessionsCancelled\":1"),
        ),
        (
            R::AdminConcertCancel,
            post(format!("{a_concert}/cancel")),
            200,
            "concert 1",
            Some("\"sessionsCancelled\":1"),
            Some("\"sessionsCancelled\":1"),
        ),
        (R::AdminSessionRemove, delete(a_session), 204, "session 1", Some("2098-01-01"), None),
        (R::AdminConcertRemove, delete(a_concert), 204, "concert 1", Some("첫 공연"), None),
        (
            R::AdminOperatorCreate,
            post("/admin/v1/operators").json(add),
            201,
            "operator desk-9",
            None,
            Some("cashier"),
        ),
        (
            R::AdminOperatorRemove,
            delete("/admin/v1/operators/desk-9"),
            204,
            "operator desk-9",
            Some("cashier"),
            None,
        ),
        (
            R::AdminKeyRotate,
            post("/admin/v1/keys/rotate").json(json!({"inSeconds": 60})),
            201,
            "signing keys",
            Some("\"kid\":"),
            Some("\"othersWithdrawn\":false"),
        ),
    ]
}

#[tokio::test]
async fn every_change_is_one_row_of_the_log() {
    let service = TestService::start().await;
    let token = operator(&service, "ada", Role::Admin).await;
    let mut client = service.client();
    let changing: Vec<Route> = Route::ALL
        .iter()
        .copied()
        .filter(|route| route.class() == Class::Admin && route.method() != "GET")
        // What undoes is about a change; it is looked at in `console`.
        .filter(|route| !QUESTIONS.contains(route) && *route != Route::AdminUndo)
        .collect();
    let all = changes();
    for route in &changing {
        assert!(all.iter().any(|(of, ..)| of == route), "{route:?} is not among the changes");
    }
    let mut known = log(&service).await.len();
    for (route, call, status, target, before, after) in all {
        // Refused, it leaves nothing.
        client.send(call.clone().by("bxo_nobody")).await.refused(ErrorCode::AdminTokenInvalid);
        let reply = client.send(call.by(&token)).await;
        assert_eq!(reply.status, status, "{route:?}: {reply}");
        let entries = log(&service).await;
        assert_eq!(entries.len(), known + 1, "{route:?}");
        known = entries.len();
        let row = &entries[0];
        assert_eq!((&row["who"], &row["role"]), (&json!("ada"), &json!("admin")), "{row}");
        assert_eq!(row["origin"], "127.0.0.1", "{row}");
        assert_eq!(row["target"], target, "{row}");
        for (side, wanted) in [("before", before), ("after", after)] {
            match wanted {
                None => assert_eq!(row[side], Value::Null, "{route:?} {side}: {row}"),
                Some(part) => {
                    let found = row[side].as_str().unwrap_or_default();
                    assert!(found.contains(part), "{route:?} {side}: {row}");
                    serde_json::from_str::<Value>(found).unwrap();
                }
            }
        }
        let text = row.to_string();
        assert!(!text.contains("a_secret_token") && !text.contains("bxo_"), "{text}");
    }
    // What a rule forbids leaves none either.
    for call in [
        post("/admin/v1/queues").json(json!({"queue": "vip"})),
        patch("/admin/v1/queues/nowhere").json(json!({"maxActive": 1})),
        patch("/admin/v1/queues/vip").json(json!({"maxActive": 0})),
        patch("/admin/v1/concerts/1").json(json!({"name": "x"})),
        post("/admin/v1/concerts").json(json!({"name": "x"})),
        delete("/admin/v1/operators/nobody"),
        post("/admin/v1/concerts/1/cancel"),
        post("/admin/v1/concerts/1/sessions/1/cancel"),
    ] {
        let reply = client.send(call.by(&token)).await;
        assert!(reply.status >= 400, "{reply}");
    }
    assert_eq!(log(&service).await.len(), known);
    // In pages, and nothing but reading.
    let page = client.send(get("/admin/v1/log?limit=2").by(&token)).await.ok(200);
    let next = page["next"].as_i64().unwrap();
    let path = format!("/admin/v1/log?limit=1000&after={next}");
    let rest = client.send(get(path).by(&token)).await.ok(200);
    assert_eq!(rest["changes"].as_array().unwrap().len(), known - 2);
    assert_eq!(rest["next"], Value::Null);
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let reply = client.send(Call::new(method, "/admin/v1/log").by(&token)).await;
        reply.refused(ErrorCode::MethodNotAllowed);
    }
    for query in ["limit=0", "limit=1001", "limit=x", "after=-1", "colour=red", "limit=1&limit=2"] {
        let reply = client.send(get(format!("/admin/v1/log?{query}")).by(&token)).await;
        reply.refused(ErrorCode::InvalidQuery);
    }
    service.finish().await;
}

#[tokio::test]
async fn what_is_created_under_a_key_is_created_once() {
    let service = TestService::start().await;
    let token = operator(&service, "ada", Role::Admin).await;
    let mut client = service.client();
    let creates = changes().into_iter().filter(|(_, _, status, ..)| *status == 201);
    let mut tried = 0;
    for (index, (route, call, ..)) in creates.enumerate() {
        let key = format!("key-{index}");
        let keyed = |call: &Call| call.clone().by(&token).key(&key);
        let first = client.send(keyed(&call)).await.ok(201);
        let known = log(&service).await.len();
        let again = client.send(keyed(&call)).await.ok(201);
        let expected = match route {
            // Only a digest of the token is kept.
            Route::AdminOperatorCreate => {
                let mut shown = first.clone();
                shown["token"] = Value::Null;
                shown
            }
            _ => first,
        };
        assert_eq!(again, expected, "{route:?}");
        assert_eq!(log(&service).await.len(), known, "{route:?}: done twice");
        // The same, otherwise spaced and ordered, is the same.
        let body: Value = serde_json::from_slice(call.body.as_ref().unwrap()).unwrap();
        let spaced = serde_json::to_string_pretty(&body).unwrap();
        let spaced = Call::new(&call.method, call.path.clone()).text(spaced);
        assert_eq!(client.send(keyed(&spaced)).await.ok(201), expected, "{route:?}");
        // Something else is not.
        let mut other = body.clone();
        for field in ["admitPerSecond", "seatCount", "count", "name", "inSeconds"] {
            if other.get(field).is_some() {
                other[field] = if field == "name" { json!("other") } else { json!(6) };
            }
        }
        assert_ne!(other, body);
        let other = Call::new(&call.method, call.path.clone()).json(other);
        client.send(keyed(&other)).await.refused(ErrorCode::IdempotencyKeyReused);
        // Another operator's key is another.
        let reply: Reply = client.send(call.clone().admin().key(&key)).await;
        assert!(matches!(reply.status, 201 | 409), "{route:?}: {reply}");
        tried += 1;
    }
    assert_eq!(tried, 7);
    // Kept in the store, over a restart.
    let service = service.restart(|_| ()).await;
    let create = post("/admin/v1/queues").json(json!({"queue": "vip", "admitPerSecond": 5}));
    service.send(create.by(&token).key("key-0")).await.ok(201);
    service.finish().await;
}

#[tokio::test]
async fn what_is_sold_or_held_is_called_off_and_not_removed() {
    let service = TestService::start().await;
    let hall = service.concert(3, 0).await;
    let mut client = service.client();
    let fan = service.token(1).await;
    let held = client.send(hall.reserve(&fan, 1, &[1])).await.ok(201);
    let (concert, session) = (
        format!("/admin/v1/concerts/{}", hall.concert),
        format!("/admin/v1/concerts/{}/sessions/{}", hall.concert, hall.session),
    );
    for path in [&concert, &session] {
        let refused = client.send(delete(path.as_str()).admin()).await;
        let refused = refused.refused(ErrorCode::SoldOrHeld);
        assert!(refused["detail"].as_str().unwrap().contains("sold or held"));
    }
    // A correction is shown at once, and decides.
    let later = json!({"reservationOpensAt": "2098-01-01T00:00:00+09:00", "venue": "둘째 홀"});
    let changed = client.send(patch(concert.as_str()).admin().json(later)).await.ok(200);
    assert_eq!((&changed["name"], &changed["venue"]), (&json!("A concert"), &json!("둘째 홀")));
    assert_eq!(changed["reservationOpensAt"], "2097-12-31T15:00:00.000Z");
    let shown = client.send(get("/api/v1/concerts")).await.ok(200);
    assert_eq!(shown["concerts"][0]["venue"], "둘째 홀");
    let fan_2 = service.token(2).await;
    client.send(hall.reserve(&fan_2, 2, &[2])).await.refused(ErrorCode::ReservationNotOpen);
    for (change, code) in [
        (json!({"reservationClosesAt": PAST}), ErrorCode::InvalidSetting),
        (json!({"reservationOpensAt": "tomorrow"}), ErrorCode::InvalidSetting),
        (json!({"name": " "}), ErrorCode::InvalidSetting),
        (json!({"queue": "vip"}), ErrorCode::InvalidField),
    ] {
        client.send(patch(concert.as_str()).admin().json(change)).await.refused(code);
    }
    let moved = json!({"concertAt": PAST});
    let moved = client.send(patch(session.as_str()).admin().json(moved)).await.ok(200);
    assert_eq!((&moved["totalSeatCount"], &moved["soldSeatCount"]), (&json!(3), &json!(0)));
    let again = json!({"reservationOpensAt": PAST});
    client.send(patch(concert.as_str()).admin().json(again)).await.ok(200);
    client.send(hall.reserve(&fan_2, 2, &[2])).await.refused(ErrorCode::SessionStarted);
    // Given back, nothing is in the way.
    let path = format!("/api/v1/reservations/{}", held["reservationId"]);
    client.send(delete(path.as_str()).token(&fan)).await.empty(204);
    client.send(delete(session.as_str()).admin()).await.empty(204);
    client.send(delete(session.as_str()).admin()).await.refused(ErrorCode::SessionNotFound);
    client
        .send(patch(session.as_str()).admin().json(json!({})))
        .await
        .refused(ErrorCode::SessionNotFound);
    client.send(hall.seats(&fan_2)).await.refused(ErrorCode::SessionNotFound);
    // The reservation can still be looked at.
    let shown = client.send(get(path).token(&fan)).await.ok(200);
    assert_eq!(shown["reservationId"], held["reservationId"]);
    client.send(delete(concert.as_str()).admin()).await.empty(204);
    assert_eq!(client.send(get("/api/v1/concerts")).await.ok(200)["concerts"], json!([]));
    // The line had ended with the session, and follows with the next tick.
    until("the line to go on", async || {
        let joined = client.send(join(3)).await;
        (joined.status != 409).then(|| joined.ok(201))
    })
    .await;
    service.finish().await;
}
