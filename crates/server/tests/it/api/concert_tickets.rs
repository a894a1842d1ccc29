//! What a buyer shows at the venue, and what is said of it at the door.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use boxoffice::http::problem::ErrorCode;
use boxoffice_domain::time::Timestamp;
use serde_json::{Value, json};

use super::keys::key_set;
use crate::common::{
    Call, Client, FUTURE, OnSale, PAST, TestService, get, patch, pay, post, status, until,
};

fn ticket_of(token: &str, reservation: i64) -> Call {
    get(format!("/api/v1/reservations/{reservation}/ticket")).token(token)
}

fn verify(code: &str) -> Call {
    post("/admin/v1/tickets/verify").admin().json(json!({"code": code}))
}

async fn verdict(client: &mut Client, code: &str) -> (Value, Value) {
    let told = client.send(verify(code)).await.ok(200);
    assert_eq!(told["valid"].as_bool().unwrap(), told["reason"].is_null(), "{told}");
    assert_eq!(told["reason"].is_null(), told["detail"].is_null(), "{told}");
    (told["reason"].clone(), told)
}

fn part(code: &str, index: usize) -> Value {
    let part = code.split('.').nth(index).unwrap();
    serde_json::from_slice(&BASE64.decode(part).unwrap()).unwrap()
}

/// Two seats, paid by user 1. Returns their token, the reservation, and the payment.
async fn bought(service: &TestService, hall: &OnSale) -> (String, i64, i64) {
    service.charge(1, 1_000).await;
    let token = service.token(1).await;
    let mut fan = service.client();
    let held = fan.send(hall.reserve(&token, 1, &[3, 4])).await.ok(201);
    let reservation = held["reservationId"].as_i64().unwrap();
    fan.send(ticket_of(&token, reservation)).await.refused(ErrorCode::NotPaid);
    let paid = fan.send(pay(&token, 1, reservation)).await.ok(201);
    (token, reservation, paid["paymentId"].as_i64().unwrap())
}

async fn code_of(client: &mut Client, token: &str, reservation: i64) -> String {
    let shown = client.send(ticket_of(token, reservation)).await.ok(200);
    shown["code"].as_str().unwrap().to_owned()
}

async fn rotate(client: &mut Client, body: Value) {
    client.send(post("/admin/v1/keys/rotate").admin().json(body)).await.ok(201);
}

#[tokio::test]
async fn who_has_paid_has_a_ticket_that_says_nothing_of_them() {
    let service = TestService::start().await;
    let hall = service.concert(9, 10).await;
    let (token, reservation, payment) = bought(&service, &hall).await;
    let mut fan = service.client();
    let shown = fan.send(ticket_of(&token, reservation)).await.ok(200);
    let code = shown["code"].as_str().unwrap();
    let (header, claims) = (part(code, 0), part(code, 1));
    let kid = &key_set(&mut fan).await[0]["kid"];
    assert_eq!(header, json!({"alg": "EdDSA", "typ": "boxoffice-ticket+jwt", "kid": kid}));
    let begins: jiff::Timestamp = FUTURE.parse().unwrap();
    let ends = begins.as_second() + 86_400;
    assert_eq!(
        claims,
        json!({
            "aud": "boxoffice-ticket", "reservation": reservation, "payment": payment,
            "concert": hall.concert, "session": hall.session, "seats": ["3", "4"],
            "iat": claims["iat"], "exp": ends,
        })
    );
    assert_eq!(shown["reservationId"], reservation);
    let until: jiff::Timestamp = shown["validUntil"].as_str().unwrap().parse().unwrap();
    assert_eq!(until.as_second(), ends);
    let size = shown["size"].as_u64().unwrap();
    assert!(size >= 21 && (size - 17).is_multiple_of(4), "{size}");
    assert!(shown["path"].as_str().unwrap().starts_with("M0 0h7v1h-7z"), "{shown}");

    let (reason, told) = verdict(&mut fan, code).await;
    assert_eq!(reason, Value::Null);
    let names = ["reservationId", "concertId", "sessionId", "seats", "moreSeats"];
    let expected =
        [json!(reservation), json!(hall.concert), json!(hall.session), json!(["3", "4"]), json!(0)];
    assert_eq!(names.map(|name| told[name].clone()), expected);
    let session: jiff::Timestamp = told["session"].as_str().unwrap().parse().unwrap();
    assert_eq!(session, begins);
    let concert = fan.send(get(format!("/api/v1/concerts/{}", hall.concert))).await.ok(200);
    assert_eq!(told["concert"], concert["name"]);
    // At the door of one session.
    for (id, reason) in [(hall.session, Value::Null), (hall.session + 1, json!("OTHER_SESSION"))] {
        let at = json!({"code": code, "sessionId": id});
        let told = fan.send(post("/admin/v1/tickets/verify").admin().json(at)).await.ok(200);
        assert_eq!(told["reason"], reason, "{told}");
    }
    service.finish().await;
}

#[tokio::test]
async fn nobody_else_has_it_and_only_operators_check_it() {
    let service = TestService::start().await;
    let hall = service.concert(9, 10).await;
    let (token, reservation, _) = bought(&service, &hall).await;
    let mut fan = service.client();
    let other = service.token(2).await;
    fan.send(ticket_of(&other, reservation)).await.refused(ErrorCode::ReservationNotYours);
    fan.send(ticket_of(&token, 999)).await.refused(ErrorCode::ReservationNotFound);
    let path = format!("/api/v1/reservations/{reservation}/ticket");
    fan.send(get(path)).await.refused(ErrorCode::TokenMissing);
    fan.send(ticket_of("x", reservation)).await.refused(ErrorCode::TokenInvalid);
    let body = json!({"code": "x"});
    let bare = post("/admin/v1/tickets/verify").json(body.clone());
    fan.send(bare).await.refused(ErrorCode::AdminTokenMissing);
    let add = |name: &str, role: &str| {
        post("/admin/v1/operators").admin().json(json!({"name": name, "role": role}))
    };
    let viewer = fan.send(add("door", "viewer")).await.ok(201);
    let cashier = fan.send(add("shop", "cashier")).await.ok(201);
    let ask = |who: &Value| {
        let bearer = format!("Bearer {}", who["token"].as_str().unwrap());
        post("/admin/v1/tickets/verify").header("Authorization", bearer).json(body.clone())
    };
    assert_eq!(fan.send(ask(&viewer)).await.ok(200)["reason"], "NOT_A_TICKET");
    fan.send(ask(&cashier)).await.refused(ErrorCode::RoleRequired);
    // It changes nothing, so it is not in the log.
    let log = fan.send(get("/admin/v1/log").admin()).await.ok(200).to_string();
    assert!(!log.contains("ticket"), "{log}");
    service.finish().await;
}

#[tokio::test]
async fn what_is_no_ticket_is_told_apart() {
    let service = TestService::start().await;
    let hall = service.concert(9, 10).await;
    let (token, reservation, _) = bought(&service, &hall).await;
    let mut fan = service.client();
    let code = code_of(&mut fan, &token, reservation).await;
    // A pass, the token, and other texts.
    let active = service.token(5).await;
    let pass = fan.send(status(&active)).await.ok(200)["pass"].as_str().unwrap().to_owned();
    for text in [
        "",
        " ",
        ".",
        "..",
        "<script>alert(1)</script>",
        "\u{1f3ab}\u{1f3ab}",
        "' OR 1=1 --",
        &pass,
        &token,
        &"A".repeat(60_000),
        &code[1..],
    ] {
        let (reason, told) = verdict(&mut fan, text).await;
        assert_eq!(reason, "NOT_A_TICKET", "{text}: {told}");
        assert_eq!(told["reservationId"], Value::Null);
    }
    fan.send(verify(&"A".repeat(70_000))).await.refused(ErrorCode::BodyTooLarge);
    // What was changed, and what another service has signed, which knows other keys.
    let [head, said, signature] = [0, 1, 2].map(|n| code.split('.').nth(n).unwrap().to_owned());
    let mut claims = part(&code, 1);
    claims["reservation"] = json!(reservation + 1);
    let changed = format!("{head}.{}.{signature}", BASE64.encode(claims.to_string()));
    assert_eq!(verdict(&mut fan, &changed).await.0, "SIGNATURE_INVALID");
    let none = BASE64
        .encode(json!({"alg": "none", "typ": "boxoffice-ticket+jwt", "kid": "x"}).to_string());
    assert_eq!(verdict(&mut fan, &format!("{none}.{said}.")).await.0, "NOT_A_TICKET");
    let elsewhere = TestService::start().await;
    let there = elsewhere.concert(9, 10).await;
    let (token, id, _) = bought(&elsewhere, &there).await;
    let foreign = code_of(&mut elsewhere.client(), &token, id).await;
    assert_eq!(verdict(&mut fan, &foreign).await.0, "KEY_UNKNOWN");
    // A pass is no ticket, and a ticket no pass.
    let gate = get("/gate/main").header("Cookie", format!("boxoffice-pass={code}"));
    fan.send(gate).await.refused(ErrorCode::PassInvalid);
    // Two things may be asked, and nothing else.
    for body in [
        json!({}),
        json!({"code": 1}),
        json!({"code": code, "x": 1}),
        json!({"code": code, "sessionId": 0}),
    ] {
        let asked = post("/admin/v1/tickets/verify").admin().json(body);
        fan.send(asked).await.refused(ErrorCode::InvalidField);
    }
    elsewhere.finish().await;
    service.finish().await;
}

#[tokio::test]
async fn a_printed_ticket_outlives_its_key_but_not_a_withdrawal() {
    let service = TestService::start().await;
    let hall = service.concert(9, 10).await;
    let (token, reservation, _) = bought(&service, &hall).await;
    let mut fan = service.client();
    let printed = code_of(&mut fan, &token, reservation).await;
    rotate(&mut fan, json!({"inSeconds": 0})).await;
    // Weeks later nothing is good any more that the old key let in.
    let app = service.running().app();
    let later = Timestamp(app.clock.now().0 + 30 * 86_400_000);
    app.signing.refresh(&app.store, later, Duration::from_secs(300), |_| false).await.unwrap();
    let kid = part(&printed, 0)["kid"].clone();
    assert!(key_set(&mut fan).await.iter().all(|key| key["kid"] != kid), "the key is retired");
    assert_eq!(verdict(&mut fan, &printed).await.0, Value::Null, "and its ticket good");
    let again = code_of(&mut fan, &token, reservation).await;
    assert_ne!(part(&again, 0)["kid"], kid);

    // After a restart, too: the keys are in the store. A new one forgets the secret half of the old.
    let service = service.restart(|_| ()).await;
    let mut fan = service.client();
    rotate(&mut fan, json!({"inSeconds": 0})).await;
    for code in [&printed, &again] {
        assert_eq!(verdict(&mut fan, code).await.0, Value::Null);
    }
    // A key was stolen: whatever any of them signed counts no more, and who shows it again is let in.
    rotate(&mut fan, json!({"withdraw": true})).await;
    for code in [&printed, &again] {
        let (reason, told) = verdict(&mut fan, code).await;
        assert_eq!(reason, "KEY_WITHDRAWN");
        assert!(told["detail"].as_str().unwrap().contains("shown again"), "{told}");
        assert_eq!(told["reservationId"], Value::Null);
    }
    let fresh = code_of(&mut fan, &token, reservation).await;
    assert_eq!(verdict(&mut fan, &fresh).await.0, Value::Null);
    service.finish().await;
}

#[tokio::test]
async fn what_becomes_of_the_sale_decides() {
    let service = TestService::start().await;
    let hall = service.concert(9, 10).await;
    let (token, reservation, payment) = bought(&service, &hall).await;
    let mut fan = service.client();
    let code = code_of(&mut fan, &token, reservation).await;
    // The session is moved, and its tickets stay good, whatever they say of the time.
    let session = format!("/admin/v1/concerts/{}/sessions/{}", hall.concert, hall.session);
    let moved = patch(session.clone()).admin().json(json!({"concertAt": "2097-05-05T10:00:00Z"}));
    fan.send(moved).await.ok(200);
    let (reason, told) = verdict(&mut fan, &code).await;
    assert_eq!((reason, &told["session"]), (Value::Null, &json!("2097-05-05T10:00:00.000Z")));
    let again = fan.send(ticket_of(&token, reservation)).await.ok(200);
    assert_eq!(again["validUntil"], "2097-05-06T10:00:00.000Z");
    fan.send(patch(session.clone()).admin().json(json!({"concertAt": PAST}))).await.ok(200);
    assert_eq!(verdict(&mut fan, &code).await.0, "OVER");
    fan.send(patch(session).admin().json(json!({"concertAt": FUTURE}))).await.ok(200);
    assert_eq!(verdict(&mut fan, &code).await.0, Value::Null);

    // Given back.
    let back = post(format!("/api/v1/payments/{payment}/refund"));
    fan.send(back.token(&token).json(json!({"userId": 1}))).await.ok(200);
    let (reason, told) = verdict(&mut fan, &code).await;
    assert_eq!((reason, &told["reservationId"]), (json!("REFUNDED"), &json!(reservation)));
    fan.send(ticket_of(&token, reservation)).await.refused(ErrorCode::NotPaid);
    // The seats are sold again: the first ticket stays what it is.
    let (token, reservation, _) = bought(&service, &hall).await;
    let second = code_of(&mut fan, &token, reservation).await;
    assert_eq!(verdict(&mut fan, &second).await.0, Value::Null);
    assert_eq!(verdict(&mut fan, &code).await.0, "REFUNDED");

    // Called off: nobody is let in, refunded or not yet.
    let off = format!("/admin/v1/concerts/{}/sessions/{}/cancel", hall.concert, hall.session);
    fan.send(post(off.clone()).admin()).await.ok(200);
    let (reason, told) = verdict(&mut fan, &second).await;
    assert!([json!("CALLED_OFF"), json!("REFUNDED")].contains(&reason), "{told}");
    let refused = fan.send(ticket_of(&token, reservation)).await;
    let codes = [ErrorCode::SessionCancelled, ErrorCode::NotPaid].map(ErrorCode::as_str);
    assert!(refused.code().is_some_and(|code| codes.contains(&code.as_str())), "{refused}");
    until("the refund", async || (verdict(&mut fan, &second).await.0 == "REFUNDED").then_some(()))
        .await;
    service.finish().await;
}

#[tokio::test]
async fn an_id_that_was_given_again_is_another_sale() {
    let service = TestService::start().await;
    let hall = service.concert(9, 10).await;
    let (token, reservation, _) = bought(&service, &hall).await;
    let app = service.running().app();
    let mut fan = service.client();
    let claims = part(&code_of(&mut fan, &token, reservation).await, 1);
    // As a service signed them whose sale was lost with a restore.
    let signed = |changes: &[(&str, Value)]| {
        let mut claims = claims.clone();
        for (name, value) in changes {
            claims[*name] = value.clone();
        }
        app.signing.of(app.clock.now()).sign_text("boxoffice-ticket+jwt", &claims)
    };
    assert_eq!(verdict(&mut fan, &signed(&[])).await.0, Value::Null);
    let earlier = claims["iat"].as_i64().unwrap() - 3_600;
    for changes in [
        [("seats", json!(["3", "5"]))],
        [("payment", json!(77))],
        [("reservation", json!(77))],
        [("reservation", json!(-1))],
        [("session", json!(77))],
        [("concert", json!(77))],
        [("iat", json!(earlier))],
    ] {
        let (reason, told) = verdict(&mut fan, &signed(&changes)).await;
        assert_eq!(reason, "RESERVATION_UNKNOWN", "{changes:?}");
        assert_eq!(told["concert"], Value::Null, "nothing is told of another's: {told}");
    }
    service.finish().await;
}
