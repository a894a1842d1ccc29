//! The states of seats as bits, and what has changed.

use std::io::Read;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boxoffice::http::problem::ErrorCode;
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::common::{Call, OnSale, TestService, delete, get, pay, seat_states, until};

/// Asks for what has changed.
pub(super) fn since(hall: &OnSale, token: &str, version: &str) -> Call {
    get(hall.path(&format!("seats?since={version}"))).token(token)
}

/// What a client knows of the seats: how their states are called in lists, by number.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) version: String,
    pub(super) states: Vec<u8>,
    /// How often all was told.
    pub(super) whole: usize,
}

impl Known {
    pub(super) fn read(&mut self, told: &Value) {
        self.version = told["version"].as_str().unwrap().to_owned();
        if let Some(states) = told["states"].as_str() {
            let bytes = STANDARD.decode(states).unwrap();
            let count = told["count"].as_u64().unwrap() as usize;
            assert_eq!(bytes.len(), count.div_ceil(4));
            self.states = (0..count).map(|at| bytes[at / 4] >> (at % 4 * 2) & 3).collect();
            self.whole += 1;
            return;
        }
        for (name, state) in [("free", 0), ("held", 1), ("sold", 2)] {
            for number in told[name].as_array().into_iter().flatten() {
                self.states[number.as_u64().unwrap() as usize - 1] = state;
            }
        }
    }

    /// The numbers of the seats in this state.
    pub(super) fn all(&self, state: u8) -> Vec<usize> {
        let is = |(index, found): (usize, &u8)| (*found == state).then_some(index + 1);
        self.states.iter().enumerate().filter_map(is).collect()
    }
}

#[tokio::test]
async fn all_states_are_told_and_then_what_has_changed() {
    let service = TestService::start().await;
    let hall = service.concert(10, 5).await;
    service.charge(1, 100).await;
    let mut fan = service.client();
    let (mine, yours) = (service.token(1).await, service.token(2).await);
    let reply = fan.send(since(&hall, &yours, "0")).await;
    let all = reply.ok(200);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(all["count"], 10);
    assert_eq!(all["seatIds"], json!([[1, hall.first_seat, 10]]));
    assert_eq!(all["states"], "AAAA");
    let first = all["version"].as_str().unwrap().to_owned();
    // Nothing has changed.
    assert_eq!(fan.send(since(&hall, &yours, &first)).await.ok(200), json!({"version": first}));
    let mut known = Known::default();
    known.read(&all);
    let mut look = async |known: &mut Known| {
        let told = fan.send(since(&hall, &yours, &known.version)).await.ok(200);
        known.read(&told);
        told
    };
    // Whoever was told of a change sees it.
    let held = service.send(hall.reserve(&mine, 1, &[2, 3])).await.ok(201);
    let told = look(&mut known).await;
    assert_eq!(told, json!({"version": known.version, "held": [2, 3]}));
    service.send(pay(&mine, 1, held["reservationId"].as_i64().unwrap())).await.ok(201);
    let told = look(&mut known).await;
    assert_eq!(told, json!({"version": known.version, "sold": [2, 3]}));
    let other = service.token(3).await;
    let held = service.send(hall.reserve(&other, 3, &[9])).await.ok(201);
    let told = look(&mut known).await;
    assert_eq!(told, json!({"version": known.version, "held": [9]}));
    let reservation = format!("/api/v1/reservations/{}", held["reservationId"]);
    service.send(delete(reservation).token(&other)).await.empty(204);
    let told = look(&mut known).await;
    assert_eq!(told, json!({"version": known.version, "free": [9]}));
    // Whoever was away is told the whole way.
    let told = service.send(since(&hall, &yours, &first)).await.ok(200);
    assert_eq!(told, json!({"version": known.version, "free": [9], "sold": [2, 3]}));
    let all = service.send(since(&hall, &yours, "0")).await.ok(200);
    assert_eq!(all["states"], STANDARD.encode([0b10_10_00, 0, 0]));
    // The list says the same.
    let listed = seat_states(&service.send(hall.seats(&yours)).await.ok(200));
    for (number, state) in (1..).zip(&known.states) {
        let name = ["AVAILABLE", "TEMPORARY_RESERVED", "CONFIRMED"][usize::from(*state)];
        assert_eq!(listed[&hall.seat(number)], name, "{number}");
    }
    service.finish().await;
}

#[tokio::test]
async fn versions_that_are_not_known_get_all_states() {
    let service = TestService::start().await;
    let hall = service.concert(10, 5).await;
    let other = service.session(hall.concert, 10, 5, crate::common::FUTURE).await;
    let mut fan = service.client();
    let token = service.token(1).await;
    let version = async |hall: &OnSale| {
        let all = service.send(since(hall, &token, "0")).await.ok(200);
        all["version"].as_str().unwrap().to_owned()
    };
    let (ours, theirs) = (version(&hall).await, version(&other).await);
    assert_ne!(ours, theirs);
    let long = "9".repeat(8_000);
    let ahead = format!("{ours}0");
    for unknown in [
        "",
        "1",
        "-1",
        "x",
        "%00",
        "%ff%fe",
        "%F0%9F%8E%AB",
        "0;1",
        "../..",
        &long,
        &theirs,
        &ahead,
        &format!("{ours}%00"),
        &ours.to_uppercase(),
        &ours[1..],
    ] {
        let told = fan.send(since(&hall, &token, unknown)).await.ok(200);
        assert_eq!(
            (&told["count"], told["version"].as_str()),
            (&json!(10), Some(ours.as_str())),
            "{unknown:.40}"
        );
    }
    assert_eq!(fan.send(since(&hall, &token, &ours)).await.ok(200), json!({"version": ours}));
    let twice = format!("{ours}&since={ours}");
    fan.send(since(&hall, &token, &twice)).await.refused(ErrorCode::InvalidQuery);
    fan.send(since(&hall, &token, &"9".repeat(9_000))).await.refused(ErrorCode::UriTooLong);
    // Whatever else a query has, is not ours.
    assert!(
        fan.send(get(hall.path("seats?_=1")).token(&token)).await.ok(200)["availableSeats"]
            .is_array()
    );
    // After a start, and with more seats, all is new.
    let more = crate::common::post(format!(
        "/admin/v1/concerts/{}/sessions/{}/seats",
        hall.concert, hall.session
    ));
    service.send(more.admin().json(json!({"seatCount": 5, "price": 7}))).await.ok(201);
    let told = until("more seats", async || {
        let told = service.send(since(&hall, &token, &ours)).await.ok(200);
        (told["count"] == 15).then_some(told)
    })
    .await;
    let added: Vec<Vec<i64>> = serde_json::from_value(told["seatIds"].clone()).unwrap();
    assert_eq!(added.iter().map(|run| run[2]).sum::<i64>(), 15);
    assert_eq!(added[1][0], 11);
    let ours = told["version"].as_str().unwrap().to_owned();
    let service = service.restart(|_| ()).await;
    let token = service.token(1).await;
    let told = service.send(since(&hall, &token, &ours)).await.ok(200);
    assert_eq!(told["count"], 15);
    assert_ne!(told["version"].as_str(), Some(ours.as_str()));
    service.finish().await;
}

#[tokio::test]
async fn only_an_active_ticket_of_the_concerts_queue_is_told() {
    let service = TestService::start().await;
    let hall = service.concert(10, 5).await;
    service.pause("main").await;
    let waiting =
        service.send(crate::common::join(1)).await.ok(201)["token"].as_str().unwrap().to_owned();
    let token = service.token(2).await;
    for path in ["seats?since=0", "seats/stream"] {
        let ask = || get(hall.path(path));
        service.send(ask()).await.refused(ErrorCode::TokenMissing);
        service.send(ask().token("nonsense")).await.refused(ErrorCode::TokenInvalid);
        service.send(ask().token(&waiting)).await.refused(ErrorCode::TokenNotActivated);
        let nowhere = get(format!("/api/v1/concerts/{}/sessions/999/{path}", hall.concert));
        service.send(nowhere.token(&token)).await.refused(ErrorCode::SessionNotFound);
        let nowhere = get(format!("/api/v1/concerts/999/sessions/{}/{path}", hall.session));
        service.send(nowhere.token(&token)).await.refused(ErrorCode::ConcertNotFound);
    }
    service.finish().await;
}

#[tokio::test]
async fn all_states_are_compressed_where_it_helps() {
    let service = TestService::start().await;
    let hall = service.concert(20_000, 5).await;
    let token = service.token(1).await;
    let ask = |coding: &str| since(&hall, &token, "0").header("Accept-Encoding", coding);
    let plain = service.send(ask("identity")).await;
    assert_eq!(plain.header("content-encoding"), None);
    let reply = service.send(ask("gzip")).await;
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    let mut json = String::new();
    GzDecoder::new(reply.body.as_slice()).read_to_string(&mut json).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), plain.ok(200));
    // Changes are short.
    let version = plain.ok(200)["version"].as_str().unwrap().to_owned();
    let changes = since(&hall, &token, &version).header("Accept-Encoding", "gzip");
    assert_eq!(service.send(changes).await.ok(200), json!({"version": version}));
    service.finish().await;
}

#[tokio::test]
async fn a_hold_that_runs_out_is_told_without_anybody_asking_for_it() {
    let service = TestService::start_with(|config| config.sales.hold_seconds = 1).await;
    let hall = service.concert(10, 5).await;
    let (mine, yours) = (service.token(1).await, service.token(2).await);
    let mut known = Known::default();
    known.read(&service.send(since(&hall, &yours, "0")).await.ok(200));
    service.send(hall.reserve(&mine, 1, &[4])).await.ok(201);
    known.read(&service.send(since(&hall, &yours, &known.version)).await.ok(200));
    assert_eq!(known.all(1), [4]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let told = until("the end of the hold", async || {
        let told = service.send(since(&hall, &yours, &known.version)).await.ok(200);
        (told["free"] == json!([4])).then_some(told)
    })
    .await;
    known.read(&told);
    assert_eq!((known.all(0).len(), known.whole), (10, 1));
    service.finish().await;
}
