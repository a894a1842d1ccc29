//! Health, metrics, documents and the admin API.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use boxoffice::endpoints::Route;
use boxoffice::http::problem::{ErrorCode, errors_markdown};
use boxoffice_domain::invariant::Invariant;
use serde_json::{Value, json};

use crate::api::people::{By, admitted, join_as_i_am};
use crate::common::{Call, FUTURE, PAST, TestService, charge, get, join, patch, pay, post, status};
use crate::issuer::{Issuer, Signer};

#[tokio::test]
async fn health_names_every_dependency() {
    let service = TestService::start().await;
    let mut client = service.client();
    assert_eq!(client.send(get("/health/live")).await.ok(200)["status"], "UP");
    let ready = client.send(get("/health/ready")).await.ok(200);
    assert_eq!(ready["status"], "UP");
    let dependencies: BTreeMap<&str, &Value> = ready["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (part["name"].as_str().unwrap(), &part["status"]))
        .collect();
    // A database server has a clock of its own.
    let has_clock = service.running().app().store.clock_check().is_some();
    assert_eq!(dependencies.contains_key("clock"), has_clock);
    let names: Vec<&str> = dependencies.keys().copied().filter(|name| *name != "clock").collect();
    assert_eq!(names, ["events", "queue", "service", "store"]);
    assert!(dependencies.values().all(|status| **status == "UP"));

    // About to end: no longer ready and no place to join, but whoever is inside can go on.
    service.running().app().draining.store(true, Ordering::Relaxed);
    let reply = client.send(get("/health/ready")).await;
    let ready = reply.ok(503);
    assert_eq!(ready["status"], "DOWN");
    let service_part = ready["dependencies"].as_array().unwrap().iter();
    let down: Vec<&Value> = service_part.filter(|part| part["status"] == "DOWN").collect();
    assert_eq!(down.len(), 1);
    assert_eq!(down[0]["name"], "service");
    assert!(down[0]["detail"].is_string());
    assert_eq!(client.send(get("/health/live")).await.ok(200)["status"], "UP");
    client.send(join(1)).await.refused(ErrorCode::ShuttingDown);
    client.send(charge(1, 1)).await.ok(200);
    service.finish().await;
}

#[tokio::test]
async fn a_store_that_is_gone_is_told_without_its_cause() {
    let service = TestService::start().await;
    let hall = service.concert(5, 0).await;
    let mut client = service.client();
    let token = service.token(1).await;
    let held = client.send(hall.reserve(&token, 1, &[1])).await.ok(201);
    let id = held["reservationId"].as_i64().unwrap();
    service.running().app().store.close().await;
    let calls = [
        charge(1, 1),
        charge(1, 1).key("k"),
        hall.reserve(&token, 1, &[2]),
        hall.reserve(&token, 1, &[2]).key("k"),
        pay(&token, 1, id),
        pay(&token, 1, id).key("k"),
        crate::common::delete(format!("/api/v1/reservations/{id}")).token(&token),
        crate::common::delete("/api/v1/waiting-queues").token(&token),
        patch("/admin/v1/queues/main").admin().json(json!({"admitPerSecond": 7})),
        post("/admin/v1/queues").admin().json(json!({"queue": "other"})),
        post("/admin/v1/tokens")
            .admin()
            .json(json!({"count": 1, "format": "a", "activated": true, "guessable": true})),
    ];
    for call in calls {
        let reply = client.send(call).await;
        let body = reply.refused(ErrorCode::StoreUnavailable);
        assert!(!body.to_string().contains("closed"), "the cause is for the log: {body}");
    }
    // Numbers that were reserved ahead can still be given; then there are none.
    let code = crate::common::until("the numbers to run out", async || {
        let reply = client.send(join(1)).await;
        (reply.status != 201).then(|| reply.code().unwrap())
    })
    .await;
    assert_eq!(code, "QUEUE_UNAVAILABLE");
    // What is in memory is still told, and nothing has happened to it.
    assert_eq!(client.send(status(&token)).await.ok(200)["status"], "ACTIVATED");
    assert_eq!(service.queue("main").await["admitPerSecond"], 300.0);
    service.abandon().await;
}

/// A line of a scrape: the name, the labels, the value.
fn sample(line: &str) -> Option<(&str, BTreeMap<&str, &str>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value: f64 = value.parse().ok()?;
    let (name, rest) = series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest));
    let mut labels = BTreeMap::new();
    if !rest.is_empty() {
        let mut rest = rest.strip_suffix('}')?;
        while !rest.is_empty() {
            let (label, more) = rest.split_once("=\"")?;
            let (text, more) = more.split_once('"')?;
            labels.insert(label, text);
            rest = more.strip_prefix(',').unwrap_or(more);
        }
    }
    let good = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    (good(name) && labels.keys().all(|label| good(label))).then_some((name, labels, value))
}

#[tokio::test]
async fn metrics_are_text_that_every_scraper_reads() {
    let service = TestService::start().await;
    let hall = service.concert(5, 10).await;
    let mut client = service.client();
    service.charge(1, 100).await;
    let token = service.admitted(1).await;
    let held = client.send(hall.reserve(&token, 1, &[1])).await.ok(201);
    client.send(pay(&token, 1, held["reservationId"].as_i64().unwrap())).await.ok(201);
    client.send(pay(&token, 1, 999)).await.refused(ErrorCode::ReservationNotFound);
    // Which invariants are broken is known once somebody has looked.
    service.audit().await;
    let asked = [(None, false), (Some("*/*"), false), (Some("application/openmetrics-text"), true)];
    let paths = ["/metrics", "/actuator/prometheus"].iter();
    for (path, (accept, open_metrics)) in paths.flat_map(|path| asked.map(|asked| (path, asked))) {
        let call = get(*path);
        let call = if let Some(accept) = accept { call.header("Accept", accept) } else { call };
        let reply = client.send(call).await;
        assert_eq!(reply.status, 200);
        let content_type = reply.header("content-type").unwrap();
        let wanted = if open_metrics {
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        } else {
            "text/plain; version=0.0.4; charset=utf-8"
        };
        assert_eq!(content_type, wanted);
        assert_eq!(reply.header("vary"), Some("accept"));
        let text = String::from_utf8(reply.body.clone()).unwrap();
        assert_eq!(text.ends_with("# EOF\n"), open_metrics);
        let mut families = BTreeSet::new();
        let mut samples = Vec::new();
        let mut series = BTreeSet::new();
        for line in text.lines() {
            if line == "# EOF" {
                continue;
            }
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (kind, name) = (words.next().unwrap(), words.next().unwrap());
                assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "{line}");
                assert!(!words.next().unwrap().is_empty(), "{line}");
                if kind == "TYPE" {
                    assert!(families.insert(name.to_owned()), "{name} comes twice");
                }
                continue;
            }
            let parsed = sample(line).unwrap_or_else(|| panic!("no sample: {line}"));
            let key = line.rsplit_once(' ').unwrap().0;
            assert!(series.insert(key), "{key} comes twice");
            let known = families.iter().any(|family| parsed.0.starts_with(family.as_str()));
            assert!(known, "{line} is of no family");
            samples.push(parsed);
        }
        for family in [
            "boxoffice_build",
            "http_server_request_duration_seconds",
            "http_server_requests_shed",
            "http_server_connections",
            "http_server_connections_refused",
            "http_server_connections_cut",
            "boxoffice_queue_waiting",
            "boxoffice_queue_active",
            "boxoffice_queue_serving",
            "boxoffice_queue_joined",
            "boxoffice_queue_left",
            "boxoffice_queue_admitted",
            "boxoffice_queue_expired",
            "boxoffice_queue_no_show",
            "boxoffice_reservations",
            "boxoffice_payments",
            "boxoffice_points_charges",
            "boxoffice_store_batch_commands",
            "boxoffice_store_commit_duration_seconds",
            "boxoffice_store_pending_commands",
            "boxoffice_seat_list_builds",
            "boxoffice_events_pending",
            "boxoffice_events_published",
            "boxoffice_invariant_violations",
            "boxoffice_clock_jumps",
            "process_start_time_seconds",
        ] {
            // In the older format a family is called as its samples are.
            let named = ["", "_total", "_info"].map(|suffix| format!("{family}{suffix}"));
            assert!(named.iter().any(|name| families.contains(name)), "{family} is missing");
        }
        let value = |name: &str, label: &str, text: &str| {
            let found = samples.iter().find(|(n, labels, _)| {
                *n == name && (label.is_empty() || labels.get(label) == Some(&text))
            });
            found.unwrap_or_else(|| panic!("no {name} with {label}={text}")).2
        };
        for (name, label, text, wanted) in [
            ("boxoffice_queue_joined_total", "queue", "main", 1.0),
            ("boxoffice_queue_admitted_total", "queue", "main", 1.0),
            ("boxoffice_queue_serving", "queue", "main", 1.0),
            ("boxoffice_queue_waiting", "queue", "main", 0.0),
            ("boxoffice_reservations_total", "outcome", "created", 1.0),
            ("boxoffice_payments_total", "outcome", "completed", 1.0),
            ("boxoffice_payments_total", "outcome", "not_found", 1.0),
            ("boxoffice_points_charges_total", "outcome", "completed", 1.0),
            ("http_server_requests_shed_total", "class", "payment", 0.0),
            ("boxoffice_clock_jumps_total", "", "", 0.0),
        ] {
            assert_eq!(value(name, label, text), wanted, "{name} {label}={text}");
        }
    }
    service.finish().await;
}

#[tokio::test]
async fn the_description_lists_exactly_the_endpoints() {
    let service = TestService::start().await;
    let mut client = service.client();
    let document = client.send(get("/openapi.json")).await.ok(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.insert((method.to_ascii_uppercase(), path.clone()));
            assert!(operation["operationId"].is_string(), "{method} {path}");
            assert!(operation["responses"].as_object().unwrap().len() > 1, "{method} {path}");
            let parameters = path.matches('{').count();
            let listed = operation["parameters"].as_array().into_iter().flatten();
            let in_path = listed.filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(in_path, parameters, "{method} {path}");
        }
    }
    // The first two are the description itself; pages, and the way to the issuer and back, are for people; and
    // what has any method is no endpoint.
    let unlisted = [Route::OpenApi, Route::SwaggerUi, Route::AuthLogin, Route::AuthCallback];
    let served: BTreeSet<(String, String)> = Route::ALL
        .iter()
        .filter(|route| !unlisted.contains(route) && !Route::PAGES.contains(route))
        .filter(|route| route.method() != "*")
        .map(|route| (route.method().to_owned(), route.template().to_owned()))
        .collect();
    assert_eq!(described, served);

    // Every reference leads somewhere.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(target) if name == "$ref" => found.push(target),
                        other => references(other, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
    }
    let mut ids: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "operation ids name one operation each");
    service.finish().await;
}

#[tokio::test]
async fn the_documents_for_people_are_there() {
    let service = TestService::start().await;
    let mut client = service.client();
    let page = client.send(get("/swagger-ui/")).await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    let to = client.send(get("/swagger-ui")).await;
    assert_eq!((to.status, to.header("location")), (303, Some("/swagger-ui/")));
    let reply = client.send(get("/docs/errors")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(String::from_utf8(reply.body).unwrap(), errors_markdown());
    // Where each problem's type leads.
    for code in ErrorCode::ALL {
        let anchor = code.as_str().to_ascii_lowercase().replace('_', "-");
        assert!(errors_markdown().contains(&format!("<a id=\"{anchor}\"></a>")), "{anchor}");
    }
    service.finish().await;
}

#[tokio::test]
async fn the_audit_looks_at_every_invariant() {
    let issuer = Issuer::start(Signer::ed()).await;
    let service = TestService::start_with(|config| issuer.configure(config)).await;
    let hall = service.concert(5, 10).await;
    let kim = issuer.token("kim");
    let (token, user) = admitted(&service, &kim).await;
    service.send(charge(user, 100).admin()).await.ok(200);
    let mut client = service.client();
    let held = client.send(hall.reserve(&token, user, &[1, 2]).by(&kim)).await.ok(201);
    let reservation = held["reservationId"].as_i64().unwrap();
    client.send(pay(&token, user, reservation).by(&kim)).await.ok(201);
    client.send(join_as_i_am().by(&issuer.token("lee"))).await.ok(201);
    let report = service.audit().await;
    let entries = report["invariants"].as_array().unwrap();
    let codes: Vec<&str> = entries.iter().map(|entry| entry["code"].as_str().unwrap()).collect();
    assert_eq!(codes, Invariant::ALL.map(Invariant::code));
    for entry in entries {
        assert!(entry["checked"].as_u64().unwrap() > 0, "an audit that looked at nothing: {entry}");
        assert_eq!(entry["violations"], 0);
        assert_eq!(entry["examples"], json!([]));
    }
    service.finish().await;
}

fn concert(change: impl FnOnce(&mut Value)) -> Call {
    let mut body = json!({
        "name": "A", "venue": "B", "reservationOpensAt": PAST, "reservationClosesAt": FUTURE,
    });
    change(&mut body);
    post("/admin/v1/concerts").admin().json(body)
}

#[tokio::test]
async fn what_is_for_sale_is_checked() {
    let service = TestService::start().await;
    let mut client = service.client();
    let made = client.send(concert(|_| ())).await.ok(201)["concertId"].as_i64().unwrap();
    let names = ["x".repeat(200), "ü".repeat(200), "콘서트".to_owned(), "\"<b>&".to_owned()];
    for name in names {
        client.send(concert(|body| body["name"] = json!(name))).await.ok(201);
        let list = client.send(get("/api/v1/concerts")).await.ok(200);
        assert_eq!(list["concerts"].as_array().unwrap().last().unwrap()["name"], name);
    }
    let too_long = "ü".repeat(201);
    for field in ["name", "venue"] {
        for wrong in ["", " ", "a\nb", "\u{0}", too_long.as_str()] {
            let call = concert(|body| body[field] = json!(wrong));
            client.send(call).await.refused(ErrorCode::InvalidSetting);
        }
    }
    for field in ["reservationOpensAt", "reservationClosesAt"] {
        for wrong in [
            "",
            "tomorrow",
            "2026-12-31",
            "2026-12-31T20:00:00",
            "2026-13-01T00:00:00Z",
            "1",
            "20000-01-01T00:00:00Z",
            "+020000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-09:00",
            "-1-01-01T00:00:00Z",
            "-009999-01-02T01:59:59Z",
            "0000-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
        ] {
            let call = concert(|body| body[field] = json!(wrong));
            let refused = client.send(call).await.refused(ErrorCode::InvalidSetting);
            let detail = refused["detail"].as_str().unwrap();
            assert!(detail.starts_with(field) && detail.contains("9999"), "{refused}");
        }
    }
    let backwards = concert(|body| body["reservationClosesAt"] = json!(PAST));
    client.send(backwards).await.refused(ErrorCode::InvalidSetting);
    let nowhere = concert(|body| body["queue"] = json!("other"));
    client.send(nowhere).await.refused(ErrorCode::QueueNotFound);
    let ends_of_time = concert(|body| {
        body["reservationOpensAt"] = json!("1970-01-01T00:00:00Z");
        body["reservationClosesAt"] = json!("9999-12-31T23:59:59.999999999Z");
    });
    client.send(ends_of_time).await.ok(201);
    let list = client.send(get("/api/v1/concerts")).await.ok(200);
    let last = list["concerts"].as_array().unwrap().last().unwrap();
    assert_eq!(last["reservationOpensAt"], "1970-01-01T00:00:00.000Z");
    assert_eq!(last["reservationClosesAt"], "9999-12-31T23:59:59.999Z");

    let sessions = format!("/admin/v1/concerts/{made}/sessions");
    let session = |count: Value, price: Value| {
        let body = json!({"concertAt": FUTURE, "seatCount": count, "price": price});
        post(sessions.as_str()).admin().json(body)
    };
    for (count, price) in [
        (json!(0), json!(1)),
        (json!(200_001), json!(1)),
        (json!(1), json!(-1)),
        (json!(1), json!(1_000_000_000_001_i64)),
    ] {
        let refused = client.send(session(count, price)).await;
        refused.refused(ErrorCode::InvalidSetting);
    }
    for (count, price) in [
        (json!(-1), json!(1)),
        (json!(1.5), json!(1)),
        (json!(u64::MAX), json!(1)),
        (json!(1), json!(u64::MAX)),
        (json!(1), Value::Null),
    ] {
        client.send(session(count, price)).await.refused(ErrorCode::InvalidField);
    }
    for wrong in ["soon", "20000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"] {
        let body = json!({"concertAt": wrong, "seatCount": 1, "price": 1});
        let call = post(sessions.as_str()).admin().json(body);
        client.send(call).await.refused(ErrorCode::InvalidSetting);
    }
    let hall = client.send(session(json!(2), json!(1_000_000_000_000_i64))).await.ok(201);
    let body = json!({"concertAt": FUTURE, "seatCount": 1, "price": 1});
    let nowhere = post("/admin/v1/concerts/999999/sessions").admin().json(body);
    client.send(nowhere).await.refused(ErrorCode::ConcertNotFound);
    let body = json!({"seatCount": 1, "price": 1});
    let nowhere =
        post(format!("/admin/v1/concerts/{made}/sessions/999999/seats")).admin().json(body.clone());
    client.send(nowhere).await.refused(ErrorCode::SessionNotFound);
    // The dearest seats can be bought.
    let session_id = hall["sessionId"].as_i64().unwrap();
    service.charge(1, 2_000_000_000_000).await;
    let token = service.token(1).await;
    let first = hall["firstSeatId"].as_i64().unwrap();
    let path = format!("/api/v1/concerts/{made}/sessions/{session_id}/reservations");
    let ask = json!({"userId": 1, "seatIds": [first, first + 1]});
    let held = client.send(post(path).token(&token).json(ask)).await.ok(201);
    assert_eq!(held["totalPrice"], 2_000_000_000_000_i64);
    client.send(pay(&token, 1, held["reservationId"].as_i64().unwrap())).await.ok(201);
    assert_eq!(service.balance(1).await, 0);
    service.finish().await;
}

#[tokio::test]
async fn queue_settings_are_checked() {
    let service = TestService::start().await;
    let mut client = service.client();
    let change = |body: Value| patch("/admin/v1/queues/main").admin().json(body);
    let changed = client
        .send(change(json!({"admitPerSecond": 12.5, "maxActive": 7, "opensAt": FUTURE})))
        .await
        .ok(200);
    assert_eq!((&changed["admitPerSecond"], &changed["maxActive"]), (&json!(12.5), &json!(7)));
    assert!(changed["opensAt"].is_string());
    // What is left out stays, and null removes.
    let changed = client.send(change(json!({}))).await.ok(200);
    assert_eq!((&changed["admitPerSecond"], &changed["maxActive"]), (&json!(12.5), &json!(7)));
    let changed = client.send(change(json!({"maxActive": null, "opensAt": null}))).await.ok(200);
    assert_eq!((&changed["maxActive"], &changed["opensAt"]), (&Value::Null, &Value::Null));
    assert_eq!(changed["state"], "OPEN");
    client.send(change(json!({"maxActive": 0}))).await.refused(ErrorCode::InvalidSetting);
    for wrong in ["later", "20000-01-01T00:00:00Z", "-1-01-01T00:00:00Z", "0000-01-01T00:00:00Z"] {
        client.send(change(json!({"opensAt": wrong}))).await.refused(ErrorCode::InvalidSetting);
    }
    // The end of time is a time; whoever waits for it is told of a hundred years and more.
    let end = "9999-12-31T23:59:59.999Z";
    assert_eq!(client.send(change(json!({"opensAt": end}))).await.ok(200)["opensAt"], end);
    let document = client.send(get("/api/v1/waiting-queues/main")).await.ok(200);
    assert_eq!((&document["state"], &document["opensAt"]), (&json!("SCHEDULED"), &json!(end)));
    let joined = client.send(join(1)).await.ok(201);
    assert_eq!(joined["etaSeconds"], u32::MAX, "{joined}");
    client.send(change(json!({"opensAt": null}))).await.ok(200);
    for wrong in [
        json!({"admitPerSecond": "fast"}),
        json!({"maxActive": -1}),
        json!({"maxActive": 1.5}),
        json!({"opensAt": 7}),
        json!([]),
    ] {
        client.send(change(wrong)).await.refused(ErrorCode::InvalidField);
    }
    // A bound beyond what the store can hold is refused, or kept without harm.
    for max in [i64::MAX as u64, u64::MAX] {
        let reply = client.send(change(json!({"maxActive": max}))).await;
        assert!(matches!(reply.status, 200 | 400 | 422), "{reply}");
    }
    let list = client.send(get("/admin/v1/queues").admin()).await.ok(200);
    let queue = &list["queues"][0];
    for field in [
        "queue",
        "state",
        "next",
        "serving",
        "waiting",
        "active",
        "admitPerSecond",
        "maxActive",
        "opensAt",
    ] {
        assert!(queue.get(field).is_some(), "{field}");
    }
    let service = service.restart(|_| ()).await;
    service.admitted(1).await;
    service.finish().await;
}
