//! People who are known by the tokens of an issuer.

use std::sync::atomic::Ordering;

use boxoffice::http::problem::ErrorCode;
use serde_json::{Value, json};

use crate::common::{
    ADMIN, BALANCE_MAX, Call, Reply, TestService, charge, delete, get, join, patch, pay, post,
    status, until,
};
use crate::issuer::{AUDIENCE, Answer, Issuer, Signer, base64, now_seconds};

pub(crate) trait By {
    /// Asked by the person of a token.
    fn by(self, token: &str) -> Self;
}

impl By for Call {
    fn by(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }
}

pub(crate) fn join_as_i_am() -> Call {
    post("/api/v1/waiting-queues").json(json!({}))
}

/// The answer to a join of somebody who may have a place already.
#[track_caller]
fn in_line(reply: &Reply) -> Value {
    if reply.status == 200 { reply.ok(200) } else { reply.ok(201) }
}

/// What a refusal says.
#[track_caller]
fn why(reply: &Reply, code: ErrorCode) -> String {
    reply.refused(code)["detail"].as_str().unwrap().to_owned()
}

/// Joins as a person, waits to be let in, and returns the ticket and the person's id.
pub(crate) async fn admitted(service: &TestService, token: &str) -> (String, i64) {
    let mut client = service.client();
    let joined = client.send(join_as_i_am().by(token)).await.ok(201);
    let ticket = joined["token"].as_str().unwrap().to_owned();
    let user = until("admission", async || {
        let place = client.send(status(&ticket)).await.ok(200);
        (place["status"] == "ACTIVATED").then(|| place["userId"].as_i64().unwrap())
    })
    .await;
    (ticket, user)
}

/// Somebody else's name buys nothing, shows nothing, gives nothing back.
#[tokio::test]
async fn nobody_can_be_somebody_else() {
    for signer in [Signer::rsa(), Signer::es(), Signer::ed()] {
        let issuer = Issuer::start(signer).await;
        let service = TestService::start_with(|config| issuer.configure(config)).await;
        let sale = service.concert(10, 100).await;
        let (kim, lee) = (issuer.token("kim"), issuer.token("lee"));
        let (kims, kim_id) = admitted(&service, &kim).await;
        let (lees, lee_id) = admitted(&service, &lee).await;
        assert_ne!(kim_id, lee_id);
        let mut client = service.client();
        let charged = charge(kim_id, 1_000);
        client.send(charged.clone()).await.refused(ErrorCode::AdminTokenMissing);
        client.send(charged.clone().by(&kim)).await.refused(ErrorCode::AdminTokenInvalid);
        client.send(charged.admin()).await.ok(200);

        let hold = |ticket: &str, seat: i64, user: Option<i64>| {
            let mut body = json!({"seatIds": [sale.first_seat + seat]});
            if let Some(user) = user {
                body["userId"] = user.into();
            }
            let path =
                format!("/api/v1/concerts/{}/sessions/{}/reservations", sale.concert, sale.session);
            post(path).token(ticket).json(body)
        };
        client.send(hold(&kims, 0, None)).await.refused(ErrorCode::PersonTokenMissing);
        client.send(hold(&kims, 0, None).by(&lee)).await.refused(ErrorCode::UserMismatch);
        let named = hold(&kims, 0, Some(lee_id)).by(&kim);
        client.send(named).await.refused(ErrorCode::UserMismatch);
        let named = hold(&kims, 0, Some(kim_id)).by(&lee);
        client.send(named).await.refused(ErrorCode::UserMismatch);
        let held = client.send(hold(&kims, 0, None).by(&kim)).await.ok(201);
        let reservation = held["reservationId"].as_i64().unwrap();

        let path = format!("/api/v1/reservations/{reservation}");
        for call in [get(path.clone()), delete(path.clone())] {
            let by_ticket = call.clone().token(&kims);
            client.send(by_ticket.clone()).await.refused(ErrorCode::PersonTokenMissing);
            client.send(by_ticket.by(&lee)).await.refused(ErrorCode::UserMismatch);
            let own_ticket = call.token(&lees).by(&lee);
            client.send(own_ticket).await.refused(ErrorCode::ReservationNotYours);
        }
        let shown = client.send(get(path).token(&kims).by(&kim)).await.ok(200);
        assert_eq!(shown["userId"], kim_id);

        let points = get(format!("/api/v1/users/{kim_id}/points"));
        client.send(points.clone()).await.refused(ErrorCode::PersonTokenMissing);
        client.send(points.clone().by(&lee)).await.refused(ErrorCode::UserMismatch);
        client.send(points.clone().admin()).await.refused(ErrorCode::PersonTokenInvalid);

        let nobody = pay(&kims, kim_id, reservation);
        client.send(nobody.clone()).await.refused(ErrorCode::PersonTokenMissing);
        client.send(nobody.by(&lee)).await.refused(ErrorCode::UserMismatch);
        let own = post("/api/v1/payments").json(json!({"reservationId": reservation}));
        client
            .send(own.clone().token(&lees).by(&lee))
            .await
            .refused(ErrorCode::ReservationNotYours);
        let paid = client.send(own.token(&kims).by(&kim)).await.ok(201);
        assert_eq!(client.send(points.clone().by(&kim)).await.ok(200)["totalAmount"], 900);

        let refund = |user: Option<i64>| {
            let body = user.map_or_else(|| json!({}), |user| json!({"userId": user}));
            post(format!("/api/v1/payments/{}/refund", paid["paymentId"])).json(body)
        };
        let nobody = refund(Some(kim_id)).token(&kims);
        client.send(nobody.clone()).await.refused(ErrorCode::PersonTokenMissing);
        client.send(nobody.by(&lee)).await.refused(ErrorCode::UserMismatch);
        for (named, ticket, person) in
            [(Some(lee_id), &kims, &kim), (None, &kims, &lee), (None, &lees, &kim)]
        {
            let refused = client.send(refund(named).token(ticket).by(person)).await;
            refused.refused(ErrorCode::UserMismatch);
        }
        let own_ticket = refund(None).token(&lees).by(&lee);
        client.send(own_ticket).await.refused(ErrorCode::ReservationNotYours);
        client.send(refund(None).by(&kim)).await.refused(ErrorCode::TokenMissing);
        let odd = post(format!("/api/v1/payments/{}/refund", paid["paymentId"]));
        let odd = odd.token(&kims).by(&kim).json(json!({"userId": kim_id, "amount": 1}));
        client.send(odd).await.refused(ErrorCode::InvalidField);
        client.send(refund(None).token(&kims).by(&kim)).await.ok(200);
        assert_eq!(client.send(points.by(&kim)).await.ok(200)["totalAmount"], 1_000);
        service.finish().await;
    }
}

/// Whoever has lost the ticket finds their reservations with the token alone, and never another's.
#[tokio::test]
async fn a_person_finds_their_own_reservations() {
    let issuer = Issuer::start(Signer::ed()).await;
    let service = TestService::start_with(|config| issuer.configure(config)).await;
    let sale = service.concert(10, 100).await;
    let (kim, lee) = (issuer.token("kim"), issuer.token("lee"));
    let (kims, kim_id) = admitted(&service, &kim).await;
    let (lees, _) = admitted(&service, &lee).await;
    let mut client = service.client();
    let hold = sale.reserve(&kims, kim_id, &[1]).by(&kim);
    let held = client.send(hold).await.ok(201);
    let list = || get("/api/v1/reservations");
    let reservations = |reply: Reply| -> Vec<Value> {
        let listed = reply.ok(200);
        listed["reservations"].as_array().unwrap().clone()
    };
    for call in [list().by(&kim), list().token(&kims).by(&kim)] {
        let own = reservations(client.send(call).await);
        assert_eq!(own.len(), 1);
        assert_eq!(
            (&own[0]["reservationId"], &own[0]["userId"]),
            (&held["reservationId"], &json!(kim_id))
        );
    }
    assert!(reservations(client.send(list().by(&lee)).await).is_empty());
    // The ticket says nothing of who asks, and another's is refused.
    client.send(list()).await.refused(ErrorCode::PersonTokenMissing);
    client.send(list().token(&kims)).await.refused(ErrorCode::PersonTokenMissing);
    client.send(list().token(&kims).by(&lee)).await.refused(ErrorCode::UserMismatch);
    client.send(list().token(&lees).by(&kim)).await.refused(ErrorCode::UserMismatch);
    client.send(list().token("nonsense").by(&kim)).await.refused(ErrorCode::TokenInvalid);
    client.send(list().by("nonsense")).await.refused(ErrorCode::PersonTokenInvalid);
    for request in ["JoinRequest", "ReserveRequest", "PaymentRequest", "RefundRequest"] {
        assert!(!names_its_user(&service, request).await, "{request}");
    }
    // Somebody who has never joined has none.
    let new = issuer.token("park");
    assert!(reservations(client.send(list().by(&new)).await).is_empty());
    service.finish().await;
}

/// A ticket is enough to poll and to leave; joining needs a person, who may name nobody else.
#[tokio::test]
async fn polls_need_the_ticket_alone() {
    let issuer = Issuer::start(Signer::ed()).await;
    let service = TestService::start_with(|config| issuer.configure(config)).await;
    let mut client = service.client();
    let refused = client.send(join_as_i_am()).await;
    refused.refused(ErrorCode::PersonTokenMissing);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    let refused = client.send(join_as_i_am().by("nonsense")).await;
    refused.refused(ErrorCode::PersonTokenInvalid);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    client.send(join(1)).await.refused(ErrorCode::PersonTokenMissing);
    let kim = issuer.token("kim");
    client.send(join(4_711).by(&kim)).await.refused(ErrorCode::UserMismatch);
    let null = post("/api/v1/waiting-queues").json(json!({"userId": null}));
    client.send(null.by(&kim)).await.refused(ErrorCode::InvalidField);
    let joined = client.send(join_as_i_am().by(&kim)).await.ok(201);
    let ticket = joined["token"].as_str().unwrap();
    let place = client.send(status(ticket)).await.ok(200);
    let user = place["userId"].as_i64().unwrap();
    client.send(join(user).by(&kim)).await.ok(200);
    client.send(status(ticket).by("nonsense")).await.ok(200);
    client.send(delete("/api/v1/waiting-queues").token(ticket)).await.empty(204);
    service.finish().await;
}

fn claims_with(issuer: &Issuer, name: &str, value: Value) -> Value {
    let mut claims = issuer.claims("kim");
    claims[name] = value;
    claims
}

fn claims_without(issuer: &Issuer, name: &str) -> Value {
    let mut claims = issuer.claims("kim");
    claims.as_object_mut().unwrap().remove(name);
    claims
}

/// Tokens of every wrong kind are refused, and the refusal says what is wrong.
#[tokio::test]
async fn tokens_that_are_not_good_are_refused() {
    let issuer = Issuer::start(Signer::rsa()).await;
    let service = TestService::start_with(|config| issuer.configure(config)).await;
    let mut client = service.client();
    let now = now_seconds();
    let good = issuer.token("kim");
    let (head, rest) = good.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let public = issuer.signer.jwk("k1").to_string();
    let hmac = |key: &[u8], alg: &str| {
        let head = base64(json!({"alg": alg, "kid": "k1"}).to_string());
        let text = format!("{head}.{claims}");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
        format!("{text}.{}", base64(ring::hmac::sign(&key, text.as_bytes())))
    };
    let none = base64(json!({"alg": "none", "kid": "k1"}).to_string());
    let with = |name: &str, value: Value| issuer.signed(&claims_with(&issuer, name, value));
    let without = |name: &str| issuer.signed(&claims_without(&issuer, name));
    let headed = |head: Value| issuer.signer.token(&head, &issuer.claims("kim"));
    let other = Signer::ed();
    let cases = [
        ("none", format!("{none}.{claims}."), "no signed JWT"),
        ("none, signed", format!("{none}.{claims}.{signature}"), "no signed JWT"),
        ("HS256 with the public key", hmac(public.as_bytes(), "HS256"), "no signed JWT"),
        ("HS256 named RS256", hmac(public.as_bytes(), "RS256"), "InvalidSignature"),
        ("no signature", format!("{head}.{claims}."), "InvalidSignature"),
        ("another signature", format!("{head}.{claims}.{}", base64([7; 256])), "InvalidSignature"),
        ("other claims", format!("{head}.{}.{signature}", base64("{}")), "InvalidSignature"),
        ("PS256", headed(json!({"alg": "PS256", "kid": "k1"})), "no signed JWT"),
        ("another type", headed(json!({"alg": "EdDSA", "kid": "k1"})), "does not have"),
        (
            "another key",
            other.token(&json!({"alg": "EdDSA", "kid": "k2"}), &issuer.claims("kim")),
            "does not have",
        ),
        ("crit", headed(json!({"alg": "RS256", "kid": "k1", "crit": ["exp"]})), "crit"),
        ("expired", with("exp", json!(now - 31)), "expired"),
        ("no exp", without("exp"), "exp"),
        ("exp is text", with("exp", json!("tomorrow")), "exp"),
        ("not yet", with("nbf", json!(now + 60)), "not good yet"),
        ("another issuer", with("iss", json!("https://else.example")), "InvalidIssuer"),
        ("a list of issuers", with("iss", json!([issuer.url()])), "iss"),
        ("no issuer", without("iss"), "iss"),
        ("another audience", with("aud", json!("shop")), "InvalidAudience"),
        ("no audience", without("aud"), "aud"),
        ("no sub", without("sub"), "no sub"),
        ("empty sub", with("sub", json!("")), "empty"),
        ("long sub", with("sub", json!("x".repeat(5_000))), "longer than 255"),
        ("sub is a list", with("sub", json!(["kim"])), ""),
        ("sub is true", with("sub", json!(true)), "neither text nor a number"),
        ("sub is 0", with("sub", json!(0)), "no whole number"),
        ("sub is 1.5", with("sub", json!(1.5)), "no whole number"),
        ("sub is 2^53", with("sub", json!(BALANCE_MAX + 1)), "no whole number"),
        ("no JSON", format!("{}.{claims}.{signature}", base64("{")), "no signed JWT"),
        ("one part", "token".to_owned(), "no signed JWT"),
        ("four parts", format!("{good}.{signature}"), ""),
        ("long", "x".repeat(9_000), "longer than 8192"),
    ];
    for (what, token, said) in cases {
        let reply = client.send(join_as_i_am().by(&token)).await;
        let detail = why(&reply, ErrorCode::PersonTokenInvalid);
        assert!(detail.contains(said), "{what}: {detail}");
    }
    for value in ["", "Bearer", "Bearer ", "Basic a2ltOmtpbQ==", good.as_str()] {
        let call = join_as_i_am().header("Authorization", value);
        client.send(call).await.refused(ErrorCode::PersonTokenMissing);
    }
    let twice = join_as_i_am().by(&good).by(&good);
    client.send(twice).await.refused(ErrorCode::DuplicateHeader);
    // Within the leeway, in a list of audiences, with a fraction of a second, in any alphabet.
    for claims in [
        claims_with(&issuer, "exp", json!(now - 5)),
        claims_with(&issuer, "nbf", json!(now + 5)),
        claims_with(&issuer, "aud", json!(["shop", AUDIENCE])),
        claims_with(&issuer, "exp", json!(now as f64 + 60.5)),
        claims_with(&issuer, "sub", json!("\u{1f3ab} \u{ae40}")),
        claims_with(&issuer, "sub", json!("x".repeat(255))),
    ] {
        in_line(&client.send(join_as_i_am().by(&issuer.signed(&claims))).await);
    }
    service.finish().await;
}

async fn id_of(service: &TestService, token: &str) -> i64 {
    let joined = in_line(&service.send(join_as_i_am().by(token)).await);
    let place = service.send(status(joined["token"].as_str().unwrap())).await.ok(200);
    place["userId"].as_i64().unwrap()
}

/// The same person has the same id, by every token and after a restart; no two have one.
#[tokio::test]
async fn a_person_keeps_an_id() {
    let issuer = Issuer::start(Signer::es()).await;
    let service = TestService::start_with(|config| issuer.configure(config)).await;
    let kim = id_of(&service, &issuer.token("kim")).await;
    let later = claims_with(&issuer, "iat", json!(1));
    assert_eq!(id_of(&service, &issuer.signed(&later)).await, kim);
    let mut ids = vec![kim];
    for name in ["Kim", "kim ", "k\u{0131}m", "17", "1"] {
        ids.push(id_of(&service, &issuer.token(name)).await);
    }
    // A number is the id, unless somebody has it.
    let number = |id: i64| issuer.signed(&claims_with(&issuer, "sub", json!(id)));
    ids.push(id_of(&service, &number(17_000)).await);
    assert_eq!(ids.last(), Some(&17_000));
    let taken = service.send(join_as_i_am().by(&number(kim))).await;
    let detail = why(&taken, ErrorCode::PersonTokenInvalid);
    assert!(detail.contains("another person"), "{detail}");
    let mut different = ids.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), ids.len(), "{ids:?}");
    let service = service.restart(|_| ()).await;
    assert_eq!(id_of(&service, &issuer.token("kim")).await, kim);
    service.finish().await;
}

/// Keys come and go at the issuer while the service runs; it is asked once a minute at the most.
#[tokio::test]
async fn keys_are_read_again() {
    let issuer = Issuer::start(Signer::es()).await;
    let service = TestService::start_with(|config| issuer.configure(config)).await;
    let asked = || issuer.asked.load(Ordering::SeqCst);
    service.send(join_as_i_am().by(&issuer.token("kim"))).await.ok(201);
    assert_eq!(asked(), 1);
    let (next, last) = (Signer::ed(), Signer::ed());
    issuer.answers(Answer::Keys(vec![next.jwk("k2"), last.jwk("k2"), issuer.signer.jwk("k1")]));
    let by = |signer: &Signer, id: &str| {
        signer.token(&json!({"alg": "EdDSA", "kid": id}), &issuer.claims("lee"))
    };
    // The first read was a moment ago.
    let soon = service.send(join_as_i_am().by(&by(&next, "k2"))).await;
    soon.refused(ErrorCode::PersonTokenInvalid);
    assert_eq!(asked(), 1);
    // A restart reads it. Two keys of one name both count.
    let service = service.restart(|_| ()).await;
    for signer in [&next, &last] {
        in_line(&service.send(join_as_i_am().by(&by(signer, "k2"))).await);
    }
    for n in 0..20 {
        let token = by(&next, &format!("unknown {n}"));
        service.send(join_as_i_am().by(&token)).await.refused(ErrorCode::PersonTokenInvalid);
    }
    assert_eq!(asked(), 2);
    service.finish().await;
}

/// Without the issuer nobody new is known, and the service says so; it goes on by itself.
#[tokio::test]
async fn an_issuer_that_is_away_is_waited_for() {
    let issuer = Issuer::start(Signer::es()).await;
    for answer in [
        Answer::Failure,
        Answer::Text("<html>Sorry</html>".into()),
        Answer::Text(format!("{{\"keys\": \"{}\"}}", "x".repeat(10 << 20))),
        Answer::Keys(vec![json!({"kty": "oct", "k": "AAAA", "kid": "k1"})]),
    ] {
        issuer.answers(answer);
        let service = TestService::start_with(|config| issuer.configure(config)).await;
        let kim = issuer.token("kim");
        let away = service.send(join_as_i_am().by(&kim)).await;
        away.refused(ErrorCode::IssuerUnavailable);
        issuer.answers(Answer::Keys(vec![issuer.signer.jwk("k1")]));
        until("the keys", async || {
            (service.send(join_as_i_am().by(&kim)).await.status == 201).then_some(())
        })
        .await;
        // Known keys go on.
        issuer.answers(Answer::Failure);
        service.send(join_as_i_am().by(&issuer.token("lee"))).await.ok(201);
        service.finish().await;
    }
}

/// Keys from a file; without a good one the service does not start.
#[tokio::test]
async fn keys_may_come_from_a_file() {
    let issuer = Issuer::start(Signer::rsa()).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.json");
    std::fs::write(&file, json!({"keys": [issuer.signer.jwk("k1")]}).to_string()).unwrap();
    let service = TestService::start_with(|config| {
        issuer.configure(config);
        config.auth.jwks_file = Some(file.clone());
    })
    .await;
    service.send(join_as_i_am().by(&issuer.token("kim"))).await.ok(201);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 0);
    let other = directory.path().join("other.json");
    std::fs::write(&other, "<html>").unwrap();
    let (service, error) =
        service.restart_in_vain(|config| config.auth.jwks_file = Some(other)).await;
    assert!(error.contains("no key set"), "{error}");
    service.finish().await;
}

/// Whether the description says that this request has to name its user.
async fn names_its_user(service: &TestService, request: &str) -> bool {
    let document = service.send(get("/openapi.json")).await.ok(200);
    let schema = &document["components"]["schemas"][request];
    assert!(schema["properties"]["userId"].is_object(), "{request}: {schema}");
    let required = schema["required"].as_array();
    required.is_some_and(|required| required.contains(&json!("userId")))
}

/// In mode `none` a request has to name its user, with an id that every parser reads exactly.
#[tokio::test]
async fn without_people_a_user_is_named() {
    let service = TestService::start().await;
    let mut client = service.client();
    let detail = why(&client.send(join_as_i_am()).await, ErrorCode::InvalidField);
    assert!(detail.contains("userId"), "{detail}");
    client.send(join(BALANCE_MAX)).await.ok(201);
    client.send(join(BALANCE_MAX + 1)).await.refused(ErrorCode::UserIdTooLarge);
    let points = get(format!("/api/v1/users/{}/points", i64::MAX));
    client.send(points).await.refused(ErrorCode::UserIdTooLarge);
    let ticket = service.token(9).await;
    let refund = post("/api/v1/payments/1/refund").token(&ticket).json(json!({}));
    client.send(refund).await.refused(ErrorCode::InvalidField);
    let mine = get("/api/v1/reservations");
    client.send(mine.clone().by(ADMIN)).await.refused(ErrorCode::TokenMissing);
    client.send(mine.token(&ticket).by("nonsense")).await.ok(200);
    for request in ["JoinRequest", "ReserveRequest", "PaymentRequest", "RefundRequest"] {
        assert!(names_its_user(&service, request).await, "{request}");
    }
    // A token means nothing here.
    client.send(join(7).by(ADMIN)).await.ok(201);
    client.send(patch("/api/v1/users/7/points/charge").json(json!({"amount": 1}))).await.ok(200);
    service.finish().await;
}

/// Where anybody may be anybody, the service listens to this machine alone, unless it is told otherwise.
#[tokio::test]
async fn strangers_are_served_only_where_that_is_said() {
    let everywhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    let service = TestService::start().await;
    let (service, error) = service.restart_in_vain(|it| it.server.listen = everywhere).await;
    assert!(error.contains("can act for any user"), "{error}");
    let service = service
        .restart(|config| {
            config.server.listen = everywhere;
            config.auth.allow_anonymous = true;
        })
        .await;
    service.send(join(1)).await.ok(201);
    service.finish().await;
    let issuer = Issuer::start(Signer::ed()).await;
    let service = TestService::start_with(|config| {
        issuer.configure(config);
        config.server.listen = everywhere;
    })
    .await;
    service.send(join_as_i_am().by(&issuer.token("kim"))).await.ok(201);
    service.finish().await;
}
