//! Every error code can be had, with its status, by doing what its documentation says.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use boxoffice::config::{ChallengeMode, Secret};
use boxoffice::http::problem::ErrorCode;
use boxoffice::tickets::SigningKeys;
use boxoffice_backends::store::Epochs;
use boxoffice_domain::ids::{QueueName, TicketId, UserId};
use boxoffice_domain::queue::Ticket;
use boxoffice_domain::time::Timestamp;
use serde_json::json;

use crate::api::challenges::solved;
use crate::api::console::long_ago;
use crate::api::sign_in;
use crate::common::{
    BALANCE_MAX, Call, Client, FUTURE, PAST, Reply, TestService, charge, delete, get, join, patch,
    pay, post, status, until,
};
use crate::issuer::{Answer, Issuer, Signer};

/// The key that tickets are signed with.
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Codes that no request brings about in a service that works.
const NOT_BY_ASKING: [ErrorCode; 3] = [
    // Not from this machine; the test of the listener claims to be elsewhere.
    ErrorCode::TooManyConnections,
    // Faults of the service itself.
    ErrorCode::Internal,
    ErrorCode::OutcomeUnknown,
];

#[derive(Default)]
struct Seen(BTreeSet<&'static str>);

impl Seen {
    #[track_caller]
    fn note(&mut self, reply: &Reply, code: ErrorCode) {
        reply.refused(code);
        self.0.insert(code.as_str());
    }

    async fn expect(&mut self, client: &mut Client, call: Call, code: ErrorCode) {
        let reply = client.send(call).await;
        self.note(&reply, code);
    }
}

#[tokio::test]
async fn every_code_can_be_had() {
    let service = TestService::start_with(|config| {
        config.sales.hold_seconds = 2;
        config.sales.holds_per_ticket_max = 3;
        config.ticket.signing_key = Some(Secret::new(KEY));
        config.server.body_timeout_ms = 200;
        config.server.join_rate.per_second = 0.01;
        config.server.join_rate.burst = 4;
        config.server.trusted_proxies = vec!["127.0.0.0/8".into()];
        config.server.bodies_max = 2;
        config.server.bodies_per_address_max = 1;
    })
    .await;
    let mut seen = Seen::default();
    let mut fan = service.client();
    let hall = service.concert(10, 10).await;
    let begun = service.session(hall.concert, 1, 1, PAST).await;
    let within = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(12);
    let soon = service.session(hall.concert, 1, 1, &within.to_string()).await;
    let concert = |opens: &str, closes: &str| {
        post("/admin/v1/concerts").admin().json(json!({
            "name": "A", "venue": "B", "reservationOpensAt": opens, "reservationClosesAt": closes,
        }))
    };
    let early = fan.send(concert(FUTURE, "2100-01-01T00:00:00Z")).await.ok(201);
    let early = service.session(early["concertId"].as_i64().unwrap(), 1, 1, FUTURE).await;
    let late = fan.send(concert("2000-01-01T00:00:00Z", PAST)).await.ok(201);
    let late = service.session(late["concertId"].as_i64().unwrap(), 1, 1, FUTURE).await;
    fan.send(post("/admin/v1/queues").admin().json(json!({"queue": "other"}))).await.ok(201);
    let (one, two) = (service.token(1).await, service.token(2).await);
    let other = service.token_in("other", 1).await;

    let queues = "/api/v1/waiting-queues";
    // A queue whose only sale is over, and one with nothing left.
    let join_at = |queue: &str| post(queues).json(json!({"userId": 1, "queue": queue}));
    for (queue, closes) in [("over", PAST), ("small", FUTURE)] {
        fan.send(post("/admin/v1/queues").admin().json(json!({"queue": queue}))).await.ok(201);
        let concert = json!({
            "name": "A", "venue": "B", "queue": queue,
            "reservationOpensAt": "2000-01-01T00:00:00Z", "reservationClosesAt": closes,
        });
        let made = fan.send(post("/admin/v1/concerts").admin().json(concert)).await.ok(201);
        let small = service.session(made["concertId"].as_i64().unwrap(), 1, 0, FUTURE).await;
        if queue == "small" {
            let buyer = service.token_in(queue, 1).await;
            let held = fan.send(small.reserve(&buyer, 1, &[1])).await.ok(201);
            fan.send(pay(&buyer, 1, held["reservationId"].as_i64().unwrap())).await.ok(201);
        }
    }
    for (queue, code) in [("over", ErrorCode::QueueEnded), ("small", ErrorCode::QueueSoldOut)] {
        let refused = until("the queue to follow its sale", async || {
            let reply = fan.send(join_at(queue)).await;
            (reply.status != 201).then_some(reply)
        })
        .await;
        seen.note(&refused, code);
    }
    let drawn = json!({"queue": "drawn", "opening": "draw", "opensAt": PAST});
    fan.send(post("/admin/v1/queues").admin().json(drawn)).await.ok(201);
    until("the draw", async || service.queue("drawn").await["drawSeed"].is_string().then_some(()))
        .await;
    let moved = patch("/admin/v1/queues/drawn").admin().json(json!({"opensAt": FUTURE}));
    seen.expect(&mut fan, moved, ErrorCode::QueueDrawn).await;
    let text = |body: &str| post("/api/v1/users/1/points/charge").text(body);
    seen.expect(&mut fan, text("{"), ErrorCode::MalformedJson).await;
    seen.expect(&mut fan, text("{}"), ErrorCode::InvalidField).await;
    seen.expect(&mut fan, get("/api/v1/users/x/points"), ErrorCode::InvalidId).await;
    seen.expect(&mut fan, status("\u{e9}"), ErrorCode::InvalidHeader).await;
    seen.expect(&mut fan, status(&one).token(&one), ErrorCode::DuplicateHeader).await;
    seen.expect(&mut fan, get(queues), ErrorCode::TokenMissing).await;
    seen.expect(&mut fan, status("nobody's"), ErrorCode::TokenInvalid).await;
    // A ticket of an epoch that this store has never had.
    let keys = SigningKeys::new(KEY.as_bytes(), []);
    let keys = keys.within(Epochs::default().with(7, []).unwrap());
    let of_another_epoch = Ticket {
        queue: QueueName::new("main").unwrap(),
        seq: 1,
        user: UserId::new(1).unwrap(),
        issued_at: Timestamp(0),
        id: TicketId([7; 16]),
    };
    let outdated = keys.signed(&of_another_epoch).to_string();
    seen.expect(&mut fan, status(&outdated), ErrorCode::TokenOutdated).await;
    seen.expect(&mut fan, get("/admin/v1/audit"), ErrorCode::AdminTokenMissing).await;
    let wrong = get("/admin/v1/audit").header("Authorization", "Bearer wrong");
    seen.expect(&mut fan, wrong, ErrorCode::AdminTokenInvalid).await;
    seen.expect(&mut fan, get("/gate/main"), ErrorCode::PassMissing).await;
    let wrong = get("/gate/main").header("Cookie", "boxoffice-pass=wrong");
    seen.expect(&mut fan, wrong, ErrorCode::PassInvalid).await;
    seen.expect(&mut fan, get("/nowhere"), ErrorCode::RouteNotFound).await;
    seen.expect(&mut fan, delete("/metrics"), ErrorCode::MethodNotAllowed).await;
    seen.expect(&mut fan, get("/api/v1/waiting-queues/no"), ErrorCode::QueueNotFound).await;
    seen.expect(
        &mut fan,
        get("/api/v1/concerts/99/sessions").token(&one),
        ErrorCode::ConcertNotFound,
    )
    .await;
    let path = format!("/api/v1/concerts/{}/sessions/99/seats", hall.concert);
    seen.expect(&mut fan, get(path).token(&one), ErrorCode::SessionNotFound).await;
    let path = "/api/v1/reservations/99";
    seen.expect(&mut fan, get(path).token(&one), ErrorCode::ReservationNotFound).await;
    let path = "/api/v1/reservations?limit=1000";
    seen.expect(&mut fan, get(path).token(&one), ErrorCode::InvalidQuery).await;
    let large = hall.reserve(&one, BALANCE_MAX + 1, &[1]);
    seen.expect(&mut fan, large, ErrorCode::UserIdTooLarge).await;
    seen.expect(&mut fan, hall.reserve(&one, 1, &[999]), ErrorCode::SeatNotFound).await;
    seen.expect(&mut fan, hall.reserve(&one, 1, &[]), ErrorCode::NoSeats).await;
    seen.expect(&mut fan, hall.reserve(&one, 1, &[1, 1]), ErrorCode::DuplicateSeats).await;
    seen.expect(&mut fan, hall.reserve(&one, 1, &[1, 2, 3, 4, 5]), ErrorCode::TooManySeats).await;
    seen.expect(&mut fan, hall.reserve(&one, 2, &[1]), ErrorCode::UserMismatch).await;
    seen.expect(&mut fan, hall.reserve(&other, 1, &[1]), ErrorCode::WrongQueue).await;
    seen.expect(&mut fan, early.reserve(&one, 1, &[1]), ErrorCode::ReservationNotOpen).await;
    seen.expect(&mut fan, late.reserve(&one, 1, &[1]), ErrorCode::ReservationClosed).await;
    seen.expect(&mut fan, begun.reserve(&one, 1, &[1]), ErrorCode::SessionStarted).await;

    let held = fan.send(hall.reserve(&one, 1, &[1, 2, 3])).await.ok(201);
    let first = held["reservationId"].as_i64().unwrap();
    seen.expect(&mut fan, hall.reserve(&two, 2, &[1]), ErrorCode::SeatTaken).await;
    seen.expect(&mut fan, hall.reserve(&one, 1, &[4, 5]), ErrorCode::SeatLimitReached).await;
    seen.expect(&mut fan, hall.reserve(&one, 1, &[4]), ErrorCode::LiveHoldLimit).await;
    seen.expect(&mut fan, pay(&two, 2, first), ErrorCode::ReservationNotYours).await;
    seen.expect(&mut fan, pay(&one, 1, first), ErrorCode::NotEnoughPoints).await;
    service.charge(1, 1_000).await;
    let path = format!("/api/v1/reservations/{first}");
    fan.send(delete(path).token(&one)).await.empty(204);
    seen.expect(&mut fan, pay(&one, 1, first), ErrorCode::HoldCancelled).await;
    let held = fan.send(hall.reserve(&one, 1, &[1])).await.ok(201);
    let second = held["reservationId"].as_i64().unwrap();
    until("the hold to run out", async || {
        let path = format!("/api/v1/reservations/{second}");
        let shown = fan.send(get(path).token(&one)).await.ok(200);
        (shown["status"] == "EXPIRED").then_some(())
    })
    .await;
    // It is shown by the clock of the database, and decided by that of the instance, which may be a second behind.
    tokio::time::sleep(Duration::from_secs(1)).await;
    seen.expect(&mut fan, pay(&one, 1, second), ErrorCode::HoldExpired).await;
    let held = fan.send(hall.reserve(&one, 1, &[1])).await.ok(201);
    let third = held["reservationId"].as_i64().unwrap();
    let ticket = get(format!("/api/v1/reservations/{third}/ticket")).token(&one);
    seen.expect(&mut fan, ticket, ErrorCode::NotPaid).await;
    fan.send(pay(&one, 1, third)).await.ok(201);
    seen.expect(&mut fan, pay(&one, 1, third), ErrorCode::AlreadyPaid).await;
    seen.expect(&mut fan, hall.seats(&one), ErrorCode::TokenSpent).await;
    let payments = fan.send(get(format!("/api/v1/reservations/{third}")).token(&one)).await.ok(200);
    let refund = |payment: &serde_json::Value| {
        let path = format!("/api/v1/payments/{payment}/refund");
        post(path).token(&one).json(json!({"userId": 1}))
    };
    seen.expect(&mut fan, refund(&json!(99)), ErrorCode::PaymentNotFound).await;
    fan.send(refund(&payments["paymentId"])).await.ok(200);
    seen.expect(&mut fan, pay(&one, 1, third), ErrorCode::AlreadyRefunded).await;
    let four = service.token(4).await;
    let held = fan.send(soon.reserve(&four, 4, &[1])).await.ok(201);
    let held = held["reservationId"].as_i64().unwrap();
    service.charge(4, 10).await;
    let paid = fan.send(pay(&four, 4, held)).await.ok(201);
    let path = format!("/api/v1/payments/{}/refund", paid["paymentId"]);
    let late = post(path).token(&four).json(json!({"userId": 4}));
    seen.expect(&mut fan, late, ErrorCode::RefundTooLate).await;

    for _ in 0..3 {
        let held = fan.send(hall.reserve(&two, 2, &[5])).await.ok(201);
        let path = format!("/api/v1/reservations/{}", held["reservationId"]);
        fan.send(delete(path).token(&two)).await.empty(204);
    }
    seen.expect(&mut fan, hall.reserve(&two, 2, &[5]), ErrorCode::HoldLimit).await;
    fan.send(post(format!("/admin/v1/concerts/{}/cancel", hall.concert)).admin()).await.ok(200);
    let off = soon.reserve(&service.token(5).await, 5, &[1]);
    seen.expect(&mut fan, off, ErrorCode::SessionCancelled).await;
    seen.expect(&mut fan, charge(1, 0), ErrorCode::InvalidAmount).await;
    seen.expect(&mut fan, charge(1, BALANCE_MAX), ErrorCode::PointsOverflow).await;
    fan.send(charge(1, 1).key("k")).await.ok(200);
    seen.expect(&mut fan, charge(1, 2).key("k"), ErrorCode::IdempotencyKeyReused).await;
    {
        let in_flight = &service.running().app().in_flight;
        let _guard = in_flight.enter(UserId::new(1).unwrap(), "busy").unwrap();
        seen.expect(&mut fan, charge(1, 2).key("busy"), ErrorCode::IdempotencyInFlight).await;
    }
    let exists = post("/admin/v1/queues").admin().json(json!({"queue": "other"}));
    seen.expect(&mut fan, exists, ErrorCode::AlreadyExists).await;
    let zero = post("/admin/v1/tokens").admin().json(json!({"count": 0, "format": "a"}));
    seen.expect(&mut fan, zero, ErrorCode::InvalidSetting).await;

    let mut plain = post(queues).header("Content-Type", "text/plain");
    plain.body = Some(b"{}".to_vec());
    seen.expect(&mut fan, plain, ErrorCode::UnsupportedMediaType).await;
    let long = text(&" ".repeat(70_000));
    seen.expect(&mut fan, long, ErrorCode::BodyTooLarge).await;
    let long = get(format!("/{}", "x".repeat(9_000)));
    seen.expect(&mut fan, long, ErrorCode::UriTooLong).await;
    let long = get("/").header("X", "x".repeat(20_000));
    seen.expect(&mut fan, long, ErrorCode::HeadersTooLarge).await;

    let reserve = post(hall.path("reservations"));
    let half = async |more: &str| {
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: test\r\nQUEUE-TOKEN: {two}\r\n{more}\
             Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{",
            reserve.path,
        );
        let mut slow = service.client();
        slow.write(head.as_bytes()).await.unwrap();
        slow
    };
    // Those before may have run out of time already.
    let stranger = "X-Forwarded-For: 192.0.2.1\r\n";
    let mut slow = until("an address to have too many bodies", async || {
        let first = half(stranger).await;
        let reply = half(stranger).await.answer(&reserve).await;
        if reply.status == 408 {
            return None;
        }
        seen.note(&reply, ErrorCode::TooManySlowBodies);
        Some(first)
    })
    .await;
    let reply = slow.answer(&reserve).await;
    seen.note(&reply, ErrorCode::RequestTimeout);
    until("too many bodies", async || {
        let _two = [half("").await, half("").await];
        let reply = half("").await.answer(&reserve).await;
        if reply.status == 408 {
            return None;
        }
        seen.note(&reply, ErrorCode::Overloaded);
        Some(())
    })
    .await;

    service.pause("main").await;
    let joined = fan.send(join(1)).await.ok(201);
    let waiting = joined["token"].as_str().unwrap();
    seen.expect(&mut fan, hall.seats(waiting), ErrorCode::TokenNotActivated).await;
    until("the limit of joins", async || {
        let reply = fan.send(join(1).header("X-Forwarded-For", "192.0.2.1")).await;
        if reply.status == 201 {
            return None;
        }
        seen.note(&reply, ErrorCode::RateLimited);
        Some(())
    })
    .await;
    let viewer = json!({"name": "desk-1", "role": "viewer"});
    let added = fan.send(post("/admin/v1/operators").admin().json(viewer)).await.ok(201);
    let bearer = format!("Bearer {}", added["token"].as_str().unwrap());
    let call = post("/admin/v1/queues/main/pause").header("Authorization", bearer);
    seen.expect(&mut fan, call, ErrorCode::RoleRequired).await;
    let call = delete("/admin/v1/operators/nobody").admin();
    seen.expect(&mut fan, call, ErrorCode::OperatorNotFound).await;
    let call = delete(format!("/admin/v1/concerts/{}", hall.concert)).admin();
    seen.expect(&mut fan, call, ErrorCode::SoldOrHeld).await;
    let short = json!({"count": 1, "format": "short", "activated": true, "guessable": true, "activeSeconds": 1});
    fan.send(post("/admin/v1/tokens").admin().json(short)).await.ok(201);
    until("the token to run out", async || {
        let reply = fan.send(hall.seats("short")).await;
        if reply.status == 200 {
            return None;
        }
        seen.note(&reply, ErrorCode::TokenExpired);
        Some(())
    })
    .await;
    service.running().app().draining.store(true, Ordering::Relaxed);
    seen.expect(&mut fan, join(1), ErrorCode::ShuttingDown).await;

    // Last, a store that is gone; joins are not limited in this one.
    let service = service.restart(|config| config.server.join_rate.per_second = 0.0).await;
    let mut fan = service.client();
    service.running().app().store.close().await;
    seen.expect(&mut fan, charge(1, 1), ErrorCode::StoreUnavailable).await;
    until("the numbers to run out", async || {
        let reply = fan.send(join(1)).await;
        if reply.status == 201 {
            return None;
        }
        seen.note(&reply, ErrorCode::QueueUnavailable);
        Some(())
    })
    .await;
    service.abandon().await;

    // Two operators, and the console.
    let service = TestService::start().await;
    let mut desk = service.client();
    let queue = |method: &str| Call::new(method, "/admin/v1/queues/main");
    let change = |rate: u32| queue("PATCH").admin().json(json!({"admitPerSecond": rate}));
    let stale = change(7).header("If-Match", "\"0000000000000000\"");
    seen.expect(&mut desk, stale, ErrorCode::ChangedMeanwhile).await;
    let undo = |id: &serde_json::Value| post(format!("/admin/v1/log/{id}/undo")).admin();
    seen.expect(&mut desk, undo(&json!(1_000)), ErrorCode::LogEntryNotFound).await;
    let first = desk.send(change(7)).await.ok(200)["logId"].clone();
    desk.send(change(8)).await.ok(200);
    seen.expect(&mut desk, undo(&first), ErrorCode::ChangedSince).await;
    desk.send(post("/admin/v1/queues").admin().json(json!({"queue": "vip"}))).await.ok(201);
    let log = desk.send(get("/admin/v1/log?limit=1").admin()).await.ok(200);
    seen.expect(&mut desk, undo(&log["changes"][0]["id"]), ErrorCode::NotUndoable).await;
    let old = long_ago(&service, 700_000).await;
    seen.expect(&mut desk, undo(&json!(old)), ErrorCode::UndoTooLate).await;
    let by_cookie = get("/admin/v1/queues").header("Cookie", "__Host-boxoffice-ops=x");
    seen.expect(&mut desk, by_cookie, ErrorCode::AdminSessionOver).await;
    seen.expect(&mut desk, post("/ops/logout"), ErrorCode::CrossSite).await;
    service.finish().await;

    // People, of an issuer that is away.
    let issuer = Issuer::start(Signer::ed()).await;
    issuer.answers(Answer::Failure);
    let service = TestService::start_with(|config| sign_in::configure(&issuer, config)).await;
    let mut fan = service.client();
    seen.expect(&mut fan, post("/auth/logout"), ErrorCode::CrossSite).await;
    let as_person = |token: &str| {
        post(queues).header("Authorization", format!("Bearer {token}")).json(json!({}))
    };
    seen.expect(&mut fan, join(1), ErrorCode::PersonTokenMissing).await;
    seen.expect(&mut fan, as_person("nonsense"), ErrorCode::PersonTokenInvalid).await;
    let good = as_person(&issuer.token("kim"));
    seen.expect(&mut fan, good, ErrorCode::IssuerUnavailable).await;
    service.finish().await;

    let service = TestService::start_with(|config| {
        config.challenge.mode = ChallengeMode::On;
        config.challenge.maxnumber_min = 10;
    })
    .await;
    let mut fan = service.client();
    let join_with = |solution: &str| post(queues).json(json!({"userId": 1, "altcha": solution}));
    seen.expect(&mut fan, join(1), ErrorCode::ChallengeRequired).await;
    seen.expect(&mut fan, join_with("nonsense"), ErrorCode::ChallengeInvalid).await;
    let challenge = fan.send(get("/api/v1/waiting-queues/main/challenge")).await.ok(200);
    let solution = solved(&challenge);
    fan.send(join_with(&solution)).await.ok(201);
    seen.expect(&mut fan, join_with(&solution), ErrorCode::ChallengeUsed).await;
    service.finish().await;

    // Halls, and the best seats of them.
    let service = TestService::start_with(|config| config.sales.no_orphans = true).await;
    let mut fan = service.client();
    let hall = service.concert(5, 1).await;
    let token = service.token(1).await;
    let ask = |body: serde_json::Value| {
        let mut body = body;
        body["userId"] = json!(1);
        post(hall.path("reservations")).token(&token).json(body)
    };
    seen.expect(&mut fan, ask(json!({})), ErrorCode::SeatsOrBest).await;
    let of_grade = ask(json!({"best": {"count": 1, "grade": "R"}}));
    seen.expect(&mut fan, of_grade, ErrorCode::GradeNotFound).await;
    let in_section = ask(json!({"best": {"count": 1, "section": "A"}}));
    seen.expect(&mut fan, in_section, ErrorCode::SectionNotFound).await;
    seen.expect(&mut fan, hall.reserve(&token, 1, &[2]), ErrorCode::LeavesSingleSeat).await;
    fan.send(hall.reserve(&service.token(2).await, 2, &[3])).await.ok(201);
    let three = ask(json!({"best": {"count": 3}}));
    seen.expect(&mut fan, three, ErrorCode::NotTogether).await;
    fan.send(hall.reserve(&service.token(3).await, 3, &[1, 2])).await.ok(201);
    let three = ask(json!({"best": {"count": 3}}));
    seen.expect(&mut fan, three, ErrorCode::NotEnoughSeats).await;
    let path = format!("/api/v1/plans/{}", "0".repeat(64));
    seen.expect(&mut fan, get(path), ErrorCode::PlanNotFound).await;
    let made_of = |plan: serde_json::Value| {
        let body = json!({"concertAt": FUTURE, "prices": {"R": 1}, "plan": plan});
        post(format!("/admin/v1/concerts/{}/sessions", hall.concert)).admin().json(body)
    };
    seen.expect(&mut fan, made_of(json!({})), ErrorCode::PlanInvalid).await;
    let seat = json!({"seat_number": "1", "category": "R"});
    let plan = json!({
        "name": "H", "size": {"width": 9, "height": 9}, "categories": [{"name": "R"}],
        "zones": [{"name": "A", "rows": [{"row_number": "1", "seats": [seat]}]}],
    });
    let made = fan.send(made_of(plan)).await.ok(201);
    let seats = format!("/admin/v1/concerts/{}/sessions/{}/seats", hall.concert, made["sessionId"]);
    let more = post(seats).admin().json(json!({"seatCount": 1, "price": 1}));
    seen.expect(&mut fan, more, ErrorCode::SessionHasPlan).await;
    service.finish().await;

    let all = ErrorCode::ALL.iter().filter(|code| !NOT_BY_ASKING.contains(code));
    let missing: Vec<&str> =
        all.map(|code| code.as_str()).filter(|code| !seen.0.contains(code)).collect();
    assert_eq!(missing, [""; 0], "codes that no request brought about");
}
