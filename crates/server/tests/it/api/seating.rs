//! Halls: sessions made of seating plans, where seats are, and holds of the best of them.

use std::collections::HashSet;
use std::io::Read;

use boxoffice::http::problem::ErrorCode;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::{Call, FUTURE, OnSale, TestService, get, pay, post};

/// A zone of `rows` rows of `seats` seats, as the editor of pretix writes it, with more than anybody reads.
fn zone(name: &str, y: i64, category: &str, rows: i64, seats: i64) -> Value {
    let seat = |row: i64, number: i64| {
        json!({
            "seat_guid": format!("{name}-{row}-{number}"), "uuid": format!("{name}/{row}/{number}"),
            "seat_number": number.to_string(), "category": category, "radius": 10,
            "position": {"x": 25.4 * (number - 1) as f64, "y": 0},
        })
    };
    let row = |row: i64| {
        json!({
            "row_number": row.to_string(), "row_label": null, "row_number_position": "start",
            "position": {"x": 10, "y": 40 * (row - 1)}, "uuid": format!("{name}/{row}"),
            "seats": (1..=seats).map(|number| seat(row, number)).collect::<Vec<_>>(),
        })
    };
    json!({
        "name": name, "zone_id": name, "uuid": name, "position": {"x": 100, "y": y},
        "rows": (1..=rows).map(row).collect::<Vec<_>>(), "areas": [],
    })
}

/// A hall with a zone of each category, the better the nearer, and an area for standing.
fn plan() -> Value {
    let mut back = zone("Balcony <script>", 400, "A", 1, 3);
    back["areas"] = json!([
        {
            "shape": "rectangle", "uuid": "a-1", "position": {"x": 0, "y": 100}, "color": "#fff",
            "text": {"text": "Floor 🦉", "color": "#000", "position": {"x": 0, "y": 0}},
            "rectangle": {"width": 200, "height": 80}, "rotation": 0,
        },
        {"shape": "text", "uuid": "a-2", "position": {"x": 50, "y": -400}, "text": {"text": "Stage"}},
    ]);
    json!({
        "name": "올림픽홀", "size": {"width": 600, "height": 700},
        "categories": [
            {"name": "VIP", "color": "#f00"}, {"name": "R", "color": "#0f0"},
            {"name": "A", "color": "#00f"}, {"name": "unused", "color": "#000"},
        ],
        "zones": [zone("Parkett", 50, "VIP", 2, 6), zone("Loge", 200, "R", 1, 4), back],
    })
}

fn session(plan: Value) -> Value {
    json!({
        "concertAt": FUTURE, "plan": plan, "prices": {"VIP": 400, "R": 300, "A": 100},
        "standing": [{"area": "Floor 🦉", "count": 5, "category": "A"}],
    })
}

/// Makes a session of a concert of this plan.
fn make(concert: i64, body: Value) -> Call {
    post(format!("/admin/v1/concerts/{concert}/sessions")).admin().json(body)
}

fn try_out(concert: i64, body: Value) -> Call {
    post(format!("/admin/v1/concerts/{concert}/sessions?dry_run=true")).admin().json(body)
}

fn on_sale(concert: i64, made: &Value) -> OnSale {
    OnSale {
        concert,
        session: made["sessionId"].as_i64().unwrap(),
        first_seat: made["firstSeatId"].as_i64().unwrap(),
    }
}

fn best(hall: &OnSale, token: &str, user: i64, wish: Value) -> Call {
    post(hall.path("reservations")).token(token).json(json!({"userId": user, "best": wish}))
}

/// The numbers of the seats that are held.
fn numbers(held: &Value) -> Vec<i64> {
    let seats = held["reservedSeats"].as_array().unwrap();
    seats.iter().map(|seat| seat["number"].as_i64().unwrap()).collect()
}

fn faults(report: &Value) -> Vec<(&str, &str)> {
    let listed = report["problems"].as_array().unwrap();
    listed.iter().map(|it| (it["what"].as_str().unwrap(), it["where"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_session_is_made_of_a_plan() {
    let service = TestService::start().await;
    let other = service.concert(3, 10).await;
    let concert = other.concert;
    let report = service.send(try_out(concert, session(plan()))).await.ok(200);
    assert_eq!(report["name"], "올림픽홀");
    assert_eq!(report["placeCount"], 24);
    assert_eq!(
        report["sections"],
        json!([
            {"name": "Parkett", "placeCount": 12}, {"name": "Loge", "placeCount": 4},
            {"name": "Balcony <script>", "placeCount": 3}, {"name": "Floor 🦉", "placeCount": 5},
        ])
    );
    assert_eq!(
        report["grades"],
        json!([
            {"grade": "VIP", "placeCount": 12}, {"grade": "R", "placeCount": 4},
            {"grade": "A", "placeCount": 8},
        ])
    );
    assert_eq!((&report["problems"], &report["problemCount"]), (&json!([]), &json!(0)));
    let digest = report["digest"].as_str().unwrap().to_owned();
    // Nothing was made.
    let path = format!("/api/v1/plans/{digest}");
    service.send(get(&path)).await.refused(ErrorCode::PlanNotFound);

    let reply = service.send(make(concert, session(plan())).key("once")).await;
    let made = reply.ok(201);
    assert_eq!(made["seatCount"], 24);
    for field in ["name", "digest", "placeCount", "sections", "grades", "problems", "problemCount"]
    {
        assert_eq!(made[field], report[field], "{field}");
    }
    let again = service.send(make(concert, session(plan())).key("once")).await;
    assert_eq!(again.ok(201), made);
    let mut changed = session(plan());
    changed["prices"]["A"] = json!(101);
    service.send(make(concert, changed).key("once")).await.refused(ErrorCode::IdempotencyKeyReused);
    let hall = on_sale(concert, &made);

    let document = service.send(get(format!("/api/v1/concerts/{concert}"))).await.ok(200);
    let sessions = document["sessions"].as_array().unwrap();
    let shown = sessions.iter().find(|it| it["sessionId"] == hall.session).unwrap();
    assert_eq!(shown["plan"], digest.as_str());
    assert_eq!(
        shown["prices"],
        json!([
            {"price": 400, "grade": "VIP", "totalSeatCount": 12, "availableSeatCount": 12},
            {"price": 300, "grade": "R", "totalSeatCount": 4, "availableSeatCount": 4},
            {"price": 100, "grade": "A", "totalSeatCount": 8, "availableSeatCount": 8},
        ])
    );
    let plain = sessions.iter().find(|it| it["sessionId"] == other.session).unwrap();
    assert_eq!((&plain["plan"], &plain["prices"][0]["grade"]), (&Value::Null, &Value::Null));

    let seats = post(format!("/admin/v1/concerts/{concert}/sessions/{}/seats", hall.session));
    let more = seats.admin().json(json!({"seatCount": 1, "price": 1}));
    service.send(more).await.refused(ErrorCode::SessionHasPlan);

    // The same hall once more, by its digest.
    let body =
        json!({"concertAt": FUTURE, "planDigest": digest, "prices": {"VIP": 1, "R": 2, "A": 3}});
    let known = service.send(make(concert, body.clone())).await.ok(201);
    assert_eq!((&known["digest"], &known["placeCount"]), (&report["digest"], &json!(24)));
    assert_eq!(known["sections"], report["sections"]);
    assert_eq!(known["grades"], report["grades"]);
    let mut lacking = body.clone();
    lacking["prices"].as_object_mut().unwrap().remove("R");
    service.send(make(concert, lacking)).await.refused(ErrorCode::InvalidSetting);
    let mut unknown = body;
    unknown["planDigest"] = json!("0".repeat(64));
    service.send(make(concert, unknown)).await.refused(ErrorCode::PlanNotFound);

    let service = service.restart(|_| {}).await;
    let reply = service.send(get(&path)).await;
    let found: String =
        Sha256::digest(&reply.body).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, digest);
    let plan = reply.ok(200);
    assert_eq!(plan["stage"], json!({"x": 150, "y": 0}));
    assert_eq!(plan["sections"][0]["rows"][0]["count"], 6);
    assert_eq!(
        plan["sections"][3],
        json!({
            "name": "Floor 🦉", "standing": true, "count": 5, "grade": 2, "x": 100, "y": 500,
            "width": 200, "height": 80,
        })
    );
    service.finish().await;
}

#[tokio::test]
async fn a_plan_is_kept_for_good() {
    let service = TestService::start().await;
    let other = service.concert(1, 1).await;
    let made = service.send(make(other.concert, session(plan()))).await.ok(201);
    let path = format!("/api/v1/plans/{}", made["digest"].as_str().unwrap());
    let plain = service.send(get(&path)).await;
    plain.ok(200);
    assert_eq!(plain.header("cache-control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(plain.header("vary"), Some("accept-encoding"));
    let packed = service.send(get(&path).header("Accept-Encoding", "gzip")).await;
    assert_eq!((packed.status, packed.header("content-encoding")), (200, Some("gzip")));
    let mut bytes = Vec::new();
    GzDecoder::new(packed.body.as_slice()).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, plain.body);
    let tags = [&plain, &packed].map(|reply| reply.header("etag").unwrap().to_owned());
    assert_ne!(tags[0], tags[1]);
    for (coding, tag) in [("identity", &tags[0]), ("gzip", &tags[1])] {
        let asked = get(&path).header("Accept-Encoding", coding).header("If-None-Match", tag);
        service.send(asked).await.empty(304);
    }
    for odd in ["0".repeat(64), "x".repeat(64), "0".to_owned(), "..%2f".to_owned()] {
        service.send(get(format!("/api/v1/plans/{odd}"))).await.refused(ErrorCode::PlanNotFound);
    }
    service.finish().await;
}

#[tokio::test]
async fn it_is_told_where_seats_are() {
    let service = TestService::start().await;
    let other = service.concert(3, 10).await;
    let made = service.send(make(other.concert, session(plan()))).await.ok(201);
    let hall = on_sale(other.concert, &made);
    let token = service.token(1).await;
    let list = service.send(hall.seats(&token)).await.ok(200);
    let seats = list["availableSeats"].as_array().unwrap();
    assert_eq!(seats.len(), 24);
    let first = json!({
        "section": "Parkett", "row": "1", "number": "1", "grade": "VIP", "x": 110, "y": 50,
    });
    let standing = json!({"section": "Floor 🦉", "number": "1", "grade": "A"});
    assert_eq!(
        seats[0],
        json!({
            "seatId": hall.seat(1), "number": 1, "status": "AVAILABLE", "price": 400, "place": first,
        })
    );
    assert_eq!(seats[19]["place"], standing);
    let held = service.send(hall.reserve(&token, 1, &[1, 20])).await.ok(201);
    let expected = json!([
        {"seatId": hall.seat(1), "number": 1, "price": 400, "place": first},
        {"seatId": hall.seat(20), "number": 20, "price": 100, "place": standing},
    ]);
    assert_eq!(held["reservedSeats"], expected);
    let id = held["reservationId"].as_i64().unwrap();
    let shown = service.send(get(format!("/api/v1/reservations/{id}")).token(&token)).await.ok(200);
    assert_eq!(shown["reservedSeats"], expected);
    let listed = service.send(get("/api/v1/reservations").token(&token)).await.ok(200);
    assert_eq!(listed["reservations"][0]["reservedSeats"], expected);
    // Where there is no plan nothing is said.
    let token = service.token(2).await;
    let held = service.send(other.reserve(&token, 2, &[2])).await.ok(201);
    assert_eq!(held["reservedSeats"], json!([{"seatId": other.seat(2), "number": 2, "price": 10}]));
    service.finish().await;
}

#[tokio::test]
async fn the_best_seats_are_held() {
    let service = TestService::start_with(|config| config.sales.live_holds_max = 100).await;
    let other = service.concert(3, 10).await;
    let made = service.send(make(other.concert, session(plan()))).await.ok(201);
    let hall = on_sale(other.concert, &made);
    let token = service.token(1).await;
    let ask = |wish: Value| best(&hall, &token, 1, wish);
    // Six in a row, with the stage before the second and the third: these would leave the first alone.
    let held = service.send(ask(json!({"count": 2})).key("k")).await.ok(201);
    assert_eq!(numbers(&held), [3, 4]);
    assert_eq!(held["reservedSeats"][0]["place"]["section"], "Parkett");
    let again = service.send(ask(json!({"count": 2})).key("k")).await.ok(201);
    assert_eq!(again, held);
    for other in [
        json!({"count": 3}),
        json!({"count": 2, "together": false}),
        json!({"count": 2, "grade": "VIP"}),
    ] {
        service.send(ask(other).key("k")).await.refused(ErrorCode::IdempotencyKeyReused);
    }
    service.charge(1, 10_000).await;
    let id = held["reservationId"].as_i64().unwrap();
    let second = service.token(1).await;
    service.send(pay(&token, 1, id)).await.ok(201);
    assert_eq!(service.send(ask(json!({"count": 2})).key("k")).await.ok(201), held);

    let token = second;
    let ask = |wish: Value| best(&hall, &token, 1, wish);
    let held = service.send(hall.reserve(&token, 1, &[14])).await.ok(201);
    assert_eq!(held["totalPrice"], 300);
    let held = service.send(ask(json!({"count": 1, "section": "Floor 🦉"}))).await.ok(201);
    assert_eq!(numbers(&held), [20]);
    service.send(ask(json!({"count": 1}))).await.refused(ErrorCode::SeatLimitReached);

    let token = service.token(2).await;
    let ask = |wish: Value| best(&hall, &token, 2, wish);
    for (wish, code) in [
        (json!({"count": 1, "grade": "X"}), ErrorCode::GradeNotFound),
        (json!({"count": 1, "section": "X"}), ErrorCode::SectionNotFound),
        (json!({"count": 4, "grade": "R"}), ErrorCode::NotEnoughSeats),
        (json!({"count": 4, "section": "Balcony <script>"}), ErrorCode::NotEnoughSeats),
        (json!({"count": 0}), ErrorCode::NoSeats),
        (json!({"count": 5}), ErrorCode::TooManySeats),
        (json!({"count": 1.5}), ErrorCode::InvalidField),
        (json!({"count": -1}), ErrorCode::InvalidField),
        (json!({}), ErrorCode::InvalidField),
        (json!({"count": 1, "near": "stage"}), ErrorCode::InvalidField),
        (Value::Null, ErrorCode::InvalidField),
    ] {
        service.send(ask(wish)).await.refused(code);
    }
    let both = json!({"userId": 2, "seatIds": [hall.seat(1)], "best": {"count": 1}});
    let path = hall.path("reservations");
    for body in [both, json!({"userId": 2})] {
        let call = post(&path).token(&token).json(body);
        service.send(call).await.refused(ErrorCode::SeatsOrBest);
    }
    // Three of the grade R are left, of four in a row.
    service.send(ask(json!({"count": 3, "grade": "R"}))).await.refused(ErrorCode::NotTogether);
    let apart = json!({"count": 3, "grade": "R", "together": false});
    assert_eq!(service.send(ask(apart)).await.ok(201)["totalPrice"], 900);
    service.send(ask(json!({"count": 1, "grade": "R"}))).await.refused(ErrorCode::NotEnoughSeats);

    // A session without a plan has neither grades nor sections, and its lowest numbers are its best.
    let token = service.token(3).await;
    for (wish, code) in [
        (json!({"count": 1, "grade": "R"}), ErrorCode::GradeNotFound),
        (json!({"count": 1, "section": "Loge"}), ErrorCode::SectionNotFound),
        (json!({"count": 4}), ErrorCode::NotEnoughSeats),
    ] {
        service.send(best(&other, &token, 3, wish)).await.refused(code);
    }
    let held = service.send(best(&other, &token, 3, json!({"count": 2}))).await.ok(201);
    assert_eq!(numbers(&held), [1, 2]);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_best_at_once_are_shared_by_nobody() {
    let service = TestService::start().await;
    let other = service.concert(3, 10).await;
    let made = service.send(make(other.concert, session(plan()))).await.ok(201);
    let hall = on_sale(other.concert, &made);
    let mut tokens = Vec::new();
    for user in 1..=30 {
        tokens.push((user, service.token(user).await));
    }
    let address = service.address();
    let buyers: Vec<_> = tokens
        .into_iter()
        .map(|(user, token)| {
            let call = best(&hall, &token, user, json!({"count": 1}));
            tokio::spawn(async move { crate::common::Client::new(address).send(call).await })
        })
        .collect();
    let mut seats = HashSet::new();
    for buyer in buyers {
        let reply = buyer.await.unwrap();
        if reply.status == 201 {
            assert!(seats.insert(numbers(&reply.value())[0]));
        } else {
            reply.refused(ErrorCode::NotEnoughSeats);
        }
    }
    assert_eq!(seats.len(), 24);
    service.finish().await;
}

#[tokio::test]
async fn no_single_seat_is_left_where_that_is_forbidden() {
    let service = TestService::start_with(|config| config.sales.no_orphans = true).await;
    let other = service.concert(10, 10).await;
    let (token, second) = (service.token(1).await, service.token(2).await);
    let refused = service.send(other.reserve(&token, 1, &[2, 3])).await;
    let problem = refused.refused(ErrorCode::LeavesSingleSeat);
    assert!(problem["detail"].as_str().unwrap().contains('1'), "{problem}");
    service.send(other.reserve(&token, 1, &[1, 2])).await.ok(201);
    service.send(other.reserve(&second, 2, &[4])).await.refused(ErrorCode::LeavesSingleSeat);
    let held = service.send(best(&other, &second, 2, json!({"count": 2}))).await.ok(201);
    assert_eq!(numbers(&held), [3, 4]);
    service.finish().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_plan_is_told() {
    let service = TestService::start().await;
    let concert = service.concert(1, 1).await.concert;
    let change = |change: &dyn Fn(&mut Value)| {
        let mut body = session(plan());
        change(&mut body);
        body
    };
    fn seat(body: &mut Value, number: usize) -> &mut Value {
        &mut body["plan"]["zones"][0]["rows"][0]["seats"][number - 1]
    }
    let third = "section Parkett, row 1, seat 3";
    for (body, expected) in [
        (change(&|it| seat(it, 3)["seat_guid"] = json!("Parkett-1-1")), ("DUPLICATE_GUID", third)),
        (
            change(&|it| seat(it, 3)["seat_number"] = json!(2)),
            ("DUPLICATE_PLACE", "section Parkett, row 1, seat 2"),
        ),
        (change(&|it| seat(it, 3)["category"] = json!("Q")), ("MISSING_CATEGORY", third)),
        (change(&|it| seat(it, 3)["category"] = Value::Null), ("MISSING_CATEGORY", third)),
        (
            change(&|it| {
                it["prices"].as_object_mut().unwrap().remove("R");
            }),
            ("MISSING_PRICE", "grade R"),
        ),
        (
            change(&|it| it["standing"][0]["area"] = json!("nowhere")),
            ("UNKNOWN_AREA", "section nowhere"),
        ),
        (
            change(&|it| it["standing"][0]["category"] = json!("Q")),
            ("MISSING_CATEGORY", "section Floor 🦉"),
        ),
        (change(&|it| it["plan"]["name"] = json!(" ")), ("NO_NAME", "the plan")),
        (change(&|it| it["plan"]["size"] = Value::Null), ("OUT_OF_RANGE", "the plan")),
        (change(&|it| seat(it, 3)["position"]["x"] = json!(1e300)), ("OUT_OF_RANGE", third)),
        (change(&|it| it["plan"]["zones"] = json!([])), ("UNKNOWN_AREA", "section Floor 🦉")),
    ] {
        let report = service.send(try_out(concert, body.clone())).await.ok(200);
        assert!(faults(&report).contains(&expected), "{expected:?}: {report}");
        assert!(report["digest"].is_null());
        let refused = service.send(make(concert, body)).await.refused(ErrorCode::PlanInvalid);
        assert!(refused["detail"].as_str().unwrap().contains(faults(&report)[0].0), "{refused}");
    }
    let overlapping = change(&|it| seat(it, 3)["position"] = json!({"x": 25.4, "y": 0}));
    let report = service.send(try_out(concert, overlapping)).await.ok(200);
    assert_eq!(report["problems"][0]["what"], "OVERLAP");
    assert!(report["problems"][0]["with"].as_str().unwrap().starts_with("section Parkett"));
    // Of many a hundred are listed.
    let many = change(&|it| {
        it["plan"]["zones"][0] = zone("Parkett", 50, "Q", 20, 20);
    });
    let report = service.send(try_out(concert, many)).await.ok(200);
    assert_eq!(faults(&report).len(), 100);
    assert_eq!(report["problemCount"], 400);
    service.finish().await;
}

#[tokio::test]
async fn odd_requests_for_a_session_are_refused_clearly() {
    let service = TestService::start().await;
    let concert = service.concert(1, 1).await.concert;
    let path = format!("/admin/v1/concerts/{concert}/sessions");
    let full = session(plan());
    let with = |field: &str, value: Value| {
        let mut body = full.clone();
        body[field] = value;
        body
    };
    let without = |field: &str| {
        let mut body = full.clone();
        body.as_object_mut().unwrap().remove(field);
        body
    };
    for (body, code) in [
        (without("prices"), ErrorCode::InvalidField),
        (without("plan"), ErrorCode::InvalidField),
        (without("concertAt"), ErrorCode::InvalidField),
        (with("seatCount", json!(3)), ErrorCode::InvalidSetting),
        (with("price", json!(3)), ErrorCode::InvalidSetting),
        (with("planDigest", json!("0".repeat(64))), ErrorCode::InvalidSetting),
        (with("hall", json!(1)), ErrorCode::InvalidField),
        (with("plan", json!({"zones": [{"rows": 3}]})), ErrorCode::InvalidField),
        (with("plan", json!({"zones": [{"name": true}]})), ErrorCode::InvalidField),
        (with("prices", json!({"VIP": -1, "R": 1, "A": 1})), ErrorCode::InvalidSetting),
        (with("prices", json!({"VIP": 1.5, "R": 1, "A": 1})), ErrorCode::InvalidField),
        (
            with("standing", json!([{"area": "x", "count": 0, "category": "A"}])),
            ErrorCode::InvalidSetting,
        ),
        (
            with("standing", json!([{"area": "x", "count": 1, "category": "A", "z": 1}])),
            ErrorCode::InvalidField,
        ),
        (json!({"concertAt": FUTURE, "seatCount": 3}), ErrorCode::InvalidField),
        (json!({"concertAt": FUTURE, "price": 3}), ErrorCode::InvalidField),
        (json!({"concertAt": FUTURE}), ErrorCode::InvalidField),
    ] {
        service.send(make(concert, body)).await.refused(code);
    }
    service.send(make(999, full.clone())).await.refused(ErrorCode::ConcertNotFound);
    service.send(try_out(999, full.clone())).await.refused(ErrorCode::ConcertNotFound);
    let numbered = json!({"concertAt": FUTURE, "seatCount": 1, "price": 1});
    service.send(try_out(concert, numbered)).await.refused(ErrorCode::InvalidSetting);
    for query in ["dry_run=maybe", "dryrun=true", "dry_run=true&dry_run=true"] {
        let call = post(format!("{path}?{query}")).admin().json(full.clone());
        service.send(call).await.refused(ErrorCode::InvalidQuery);
    }
    let text = |plan: &str| format!(r#"{{"concertAt":"{FUTURE}","prices":{{}},"plan":{plan}}}"#);
    for plan in [
        format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!(r#"{{"zones":{}{}}}"#, "[".repeat(300), "]".repeat(300)),
        format!(r#"{{"odd":{}{}}}"#, "[".repeat(100_000), "]".repeat(99_999)),
        r#"{"size":{"width":1e999}}"#.to_owned(),
        r#"{"size":{"width":NaN}}"#.to_owned(),
    ] {
        let call = post(&path).admin().text(text(&plan));
        let reply = service.send(call).await;
        let code = reply.code().unwrap_or_default();
        assert_eq!(reply.status, 400, "{code}");
        assert!(["MALFORMED_JSON", "INVALID_FIELD"].contains(&&*code), "{code}");
    }
    service.finish().await;
}

#[tokio::test]
async fn a_plan_may_be_larger_than_other_bodies() {
    let service = TestService::start_with(|config| config.server.max_plan_bytes = 200_000).await;
    let concert = service.concert(1, 1).await.concert;
    let path = format!("/admin/v1/concerts/{concert}/sessions");
    let body = |rows: i64| {
        let mut plan = plan();
        plan["zones"][0] = zone("Parkett", 50, "VIP", rows, 20);
        session(plan)
    };
    let (large, larger) = (body(40), body(80));
    assert!((65_536..200_000).contains(&large.to_string().len()), "{}", large.to_string().len());
    assert!(larger.to_string().len() > 200_000);
    let made = service.send(make(concert, large.clone()).key("large")).await.ok(201);
    assert_eq!(service.send(make(concert, large).key("large")).await.ok(201), made);
    service.send(make(concert, larger.clone())).await.refused(ErrorCode::BodyTooLarge);
    // Elsewhere it is as ever.
    let name = json!({"name": "x".repeat(70_000)});
    service
        .send(post("/admin/v1/concerts").admin().json(name))
        .await
        .refused(ErrorCode::BodyTooLarge);
    // Who may not ask is told so before anything of it is read.
    let mut client = service.client();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 150000\r\n\r\n"
    );
    client.write(head.as_bytes()).await.unwrap();
    let reply = client.read(false).await.unwrap().unwrap();
    assert_eq!(reply.code().as_deref(), Some("ADMIN_TOKEN_MISSING"));
    service.finish().await;
}

#[tokio::test]
async fn halls_of_one_place_and_of_very_many_are_told_of() {
    let service = TestService::start().await;
    let concert = service.concert(1, 1).await.concert;
    let body = |rows: i64, seats: i64| {
        json!({
            "concertAt": FUTURE, "prices": {"R": 1},
            "plan": {
                "name": "H", "size": {"width": 900, "height": 900}, "categories": [{"name": "R"}],
                "zones": [zone("A", 0, "R", rows, seats)],
            },
        })
    };
    let one = service.send(make(concert, body(1, 1))).await.ok(201);
    assert_eq!(one["seatCount"], 1);
    let token = service.token(1).await;
    let hall = on_sale(concert, &one);
    service.send(best(&hall, &token, 1, json!({"count": 1}))).await.ok(201);
    let standing = |count: u32| {
        let mut body = body(1, 1);
        body["standing"] = json!([{"area": "F", "count": count, "category": "R"}]);
        body["plan"]["zones"][0]["areas"] =
            json!([{"text": {"text": "F"}, "circle": {"radius": 5}}]);
        body
    };
    let most = service.send(try_out(concert, standing(99_999))).await.ok(200);
    assert_eq!((&most["placeCount"], &most["problemCount"]), (&json!(100_000), &json!(0)));
    for count in [100_000, u32::MAX] {
        let report = service.send(try_out(concert, standing(count))).await.ok(200);
        assert_eq!(faults(&report), [("TOO_MANY_PLACES", "the plan")]);
    }
    service.finish().await;
}

#[tokio::test]
async fn the_demo_data_have_halls() {
    let service = TestService::start_with(|config| config.demo.seed = true).await;
    let mut plans = HashSet::new();
    for (concert, sessions, seats) in [(1, 10, 2_000), (2, 2, 500), (3, 2, 500), (4, 3, 50)] {
        let document = service.send(get(format!("/api/v1/concerts/{concert}"))).await.ok(200);
        let listed = document["sessions"].as_array().unwrap();
        assert_eq!(listed.len(), sessions);
        for session in listed {
            assert_eq!(session["totalSeatCount"], seats);
            assert!(session["plan"].is_string());
            assert_eq!(session["plan"], listed[0]["plan"]);
            for price in session["prices"].as_array().unwrap() {
                assert!(price["grade"].is_string());
                // Whoever begins with a million pays for four seats many times over.
                assert!(price["price"].as_i64().unwrap() <= 5_000);
            }
        }
        plans.insert(listed[0]["plan"].clone());
        if concert == 1 {
            let grades: Vec<_> =
                listed[0]["prices"].as_array().unwrap().iter().map(|it| &it["grade"]).collect();
            assert_eq!(grades, ["VIP", "R", "S", "A"]);
        }
    }
    assert_eq!(plans.len(), 4);
    service.finish().await;
}
