//! Signing in on the pages: a browser is sent to the issuer, comes back, and has a cookie.

use std::collections::HashMap;

use boxoffice::config::{Config, Secret};
use boxoffice::http::problem::ErrorCode;
use serde_json::{Value, json};

use crate::api::people::{By, admitted, join_as_i_am};
use crate::common::{
    BALANCE_MAX, Call, Client, Reply, TestService, charge, delete, get, pay, post, status, until,
};
use crate::issuer::{AUDIENCE, Answer, Issuer, Signer, TokenAnswer, now_seconds, values};

const CLIENT: &str = "box office/pages";
pub(crate) const ORIGIN: &str = "https://tickets.example";
const IDENTITY: &str = "__Host-boxoffice";
const LOGIN: &str = "__Host-boxoffice-login";

/// Has people of an issuer sign in on the pages of a service.
pub(crate) fn configure(issuer: &Issuer, config: &mut Config) {
    issuer.configure(config);
    config.auth.client_id = Some(CLIENT.into());
    config.auth.client_secret = Some(Secret::new("a secret: 50%"));
    config.auth.public_url = Some(ORIGIN.into());
}

async fn started(issuer: &Issuer) -> TestService {
    TestService::start_with(|config| configure(issuer, config)).await
}

/// A browser: it keeps cookies, and is sent from place to place.
pub(crate) struct Browser {
    client: Client,
    cookies: HashMap<String, String>,
}

impl Browser {
    pub(crate) fn of(service: &TestService) -> Self {
        Self { client: service.client(), cookies: HashMap::new() }
    }

    /// Asks as a page of the service's does.
    pub(crate) async fn asks(&mut self, call: Call) -> Reply {
        self.sends(call.header("Sec-Fetch-Site", "same-origin")).await
    }

    /// Sends a request with its cookies.
    pub(crate) async fn sends(&mut self, call: Call) -> Reply {
        let pairs = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
        let line = pairs.chain(["theme=dark".to_owned()]).collect::<Vec<_>>().join("; ");
        let reply = self.client.send(call.header("Cookie", line)).await;
        for (_, cookie) in reply.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (pair, attributes) = cookie.split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            let rest = attributes.strip_prefix("Path=/; Max-Age=").unwrap();
            let (age, rest) = rest.split_once("; ").unwrap();
            assert_eq!(rest, "Secure; HttpOnly; SameSite=Lax");
            if age.parse::<i64>().unwrap() > 0 {
                assert!(cookie.len() < 2_048);
                self.cookies.insert(name.to_owned(), value.to_owned());
            } else {
                self.cookies.remove(name);
            }
        }
        reply
    }

    /// Goes to an address, and returns where it is sent.
    pub(crate) async fn goes(&mut self, path: impl Into<String>) -> String {
        let reply = self.sends(get(path)).await;
        reply.empty(303);
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        reply.header("location").unwrap().to_owned()
    }

    /// Begins to sign in, and returns what the issuer is asked.
    async fn begins(&mut self, back: &str) -> HashMap<String, String> {
        let address = self.goes(format!("/auth/login?return={back}")).await;
        assert!(self.cookies.contains_key(LOGIN), "{address}");
        values(address.split_once('?').unwrap().1)
    }

    /// Signs in as somebody.
    pub(crate) async fn signs_in(&mut self, issuer: &Issuer, sub: &str) {
        let asked = self.begins("/me").await;
        issuer.grants("c1", &asked, issuer.signed(&id_token(issuer, sub, &asked)));
        let back = self.goes(came(&asked, "c1")).await;
        assert_eq!(back, "/me");
        assert!(self.cookies.contains_key(IDENTITY) && !self.cookies.contains_key(LOGIN));
    }

    /// Its id, where it is signed in.
    pub(crate) async fn id(&mut self) -> i64 {
        self.sends(get("/auth/me")).await.ok(200)["userId"].as_i64().unwrap()
    }
}

/// The claims of a good ID token.
fn id_token(issuer: &Issuer, sub: &str, asked: &HashMap<String, String>) -> Value {
    let mut claims = issuer.claims(sub);
    claims["aud"] = CLIENT.into();
    claims["nonce"] = asked["nonce"].clone().into();
    claims
}

/// Where the issuer sends a browser back to.
fn came(asked: &HashMap<String, String>, code: &str) -> String {
    format!("/auth/callback?code={code}&state={}&session_state=x", asked["state"])
}

#[tokio::test]
async fn somebody_signs_in_and_buys() {
    let issuer = Issuer::start(Signer::es()).await;
    let service = started(&issuer).await;
    let sale = service.concert(10, 100).await;
    let mut fan = Browser::of(&service);
    fan.sends(get("/auth/me")).await.refused(ErrorCode::PersonTokenMissing);
    fan.asks(join_as_i_am()).await.refused(ErrorCode::PersonTokenMissing);

    let address = fan.goes("/auth/login?return=%2Fwait%2Fmain%3Fc%3D1").await;
    assert!(address.starts_with(&format!("{}/authorize?tenant=1&", issuer.url())), "{address}");
    let asked = values(address.split_once('?').unwrap().1);
    let expected = [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", "https://tickets.example/auth/callback"),
        ("scope", "openid"),
        ("code_challenge_method", "S256"),
        ("tenant", "1"),
    ];
    for (name, value) in expected {
        assert_eq!(asked[name], value, "{name}");
    }
    for name in ["state", "nonce", "code_challenge"] {
        assert_eq!(asked[name].len(), 43, "{name}");
    }
    assert_eq!(asked.len(), expected.len() + 3, "{asked:?}");
    let mut claims = id_token(&issuer, "kim", &asked);
    claims["name"] = " Kim\u{202e} \n\"Minji\" ".into();
    issuer.grants("c1", &asked, issuer.signed(&claims));
    assert_eq!(fan.goes(came(&asked, "c1")).await, "/wait/main?c=1");
    let (header, form) = issuer.shown();
    // `box%20office%2Fpages:a%20secret%3A%2050%25`
    assert_eq!(header, "Basic Ym94JTIwb2ZmaWNlJTJGcGFnZXM6YSUyMHNlY3JldCUzQSUyMDUwJTI1");
    assert!(form.len() == 4 && !form.contains_key("client_secret"), "{form:?}");

    let me = fan.sends(get("/auth/me")).await.ok(200);
    assert_eq!(me["name"], "Kim \"Minji\"");
    let user = me["userId"].as_i64().unwrap();
    let until_seconds = jiff::Timestamp::from_second(now_seconds() as i64 + 12 * 3_600).unwrap();
    let told: jiff::Timestamp = me["until"].as_str().unwrap().parse().unwrap();
    assert!((told - until_seconds).total(jiff::Unit::Second).unwrap().abs() < 60.0, "{told}");
    // Whoever brings a token of the same person is the same person.
    let (_, of_token) = admitted(&service, &issuer.token("kim")).await;
    assert_eq!(user, of_token);

    // Everything that a person may do.
    service.send(charge(user, 500).admin()).await.ok(200);
    let joined = fan.asks(join_as_i_am()).await.ok(200);
    let ticket = joined["token"].as_str().unwrap();
    let held = fan.asks(sale.reserve(ticket, user, &[1, 2])).await.ok(201);
    let reservation = held["reservationId"].as_i64().unwrap();
    let shown = fan.sends(get(format!("/api/v1/reservations/{reservation}"))).await.ok(200);
    assert_eq!(shown["userId"], user);
    let paid = fan.asks(pay(ticket, user, reservation)).await.ok(201);
    let refund = post(format!("/api/v1/payments/{}/refund", paid["paymentId"]));
    fan.asks(refund.json(json!({})).token(ticket)).await.ok(200);
    let listed = fan.sends(get("/api/v1/reservations")).await.ok(200);
    assert_eq!(listed["reservations"].as_array().unwrap().len(), 1);
    let points = get(format!("/api/v1/users/{user}/points"));
    assert_eq!(fan.sends(points.clone()).await.ok(200)["totalAmount"], 500);
    // But for charging points, which is for shops.
    fan.asks(charge(user, 1)).await.refused(ErrorCode::AdminTokenMissing);

    // Nobody else may.
    let mut other = Browser::of(&service);
    other.signs_in(&issuer, "lee").await;
    assert_ne!(other.id().await, user);
    other.sends(points.clone()).await.refused(ErrorCode::UserMismatch);
    other.asks(sale.reserve(ticket, user, &[3])).await.refused(ErrorCode::UserMismatch);
    let theirs = format!("/api/v1/reservations/{reservation}");
    other.sends(get(theirs)).await.refused(ErrorCode::ReservationNotYours);
    // A token goes before a cookie, also where it is not good.
    let by_token = points.by(&issuer.token("kim"));
    assert_eq!(other.sends(by_token).await.ok(200)["totalAmount"], 500);
    other.asks(join_as_i_am().by("nonsense")).await.refused(ErrorCode::PersonTokenInvalid);

    // Signed out.
    fan.asks(post("/auth/logout")).await.empty(204);
    assert!(!fan.cookies.contains_key(IDENTITY));
    fan.sends(get("/auth/me")).await.refused(ErrorCode::PersonTokenMissing);
    fan.asks(join_as_i_am()).await.refused(ErrorCode::PersonTokenMissing);
    service.finish().await;
}

/// A public client, one whose issuer wants the secret in the form, and one who is to be asked who they are.
#[tokio::test]
async fn clients_say_who_they_are_as_the_issuer_wants_it() {
    let issuer = Issuer::start(Signer::ed()).await;
    issuer.says(json!({"token_endpoint_auth_methods_supported": ["client_secret_post"]}));
    let service = started(&issuer).await;
    let mut fan = Browser::of(&service);
    fan.signs_in(&issuer, "kim").await;
    let (header, form) = issuer.shown();
    assert_eq!((header.as_str(), form["client_id"].as_str()), ("", CLIENT));
    assert_eq!(form["client_secret"], "a secret: 50%");
    let asked = fan.goes("/auth/login?return=/&prompt=login").await;
    assert!(asked.ends_with("&prompt=login"), "{asked}");
    let asked = fan.goes("/auth/login?prompt=none").await;
    assert!(!asked.contains("prompt"), "{asked}");

    issuer.says(json!({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}));
    let service = service.restart(|_| ()).await;
    let mut fan = Browser::of(&service);
    assert_eq!(fan.goes("/auth/login?return=/me").await, "/me?signin=away");

    let service = service
        .restart(|config| {
            config.auth.client_secret = None;
            config.auth.scopes = vec!["openid".into(), "profile".into()];
        })
        .await;
    let mut fan = Browser::of(&service);
    assert_eq!(fan.begins("/").await["scope"], "openid profile");
    fan.signs_in(&issuer, "kim").await;
    let (header, form) = issuer.shown();
    assert_eq!((header.as_str(), form.len(), form["client_id"].as_str()), ("", 5, CLIENT));
    service.finish().await;
}

/// Another site's page can send a browser's cookies along, and gains nothing by it.
#[tokio::test]
async fn no_other_site_asks_for_somebody() {
    let issuer = Issuer::start(Signer::ed()).await;
    let service = TestService::start_with(|config| {
        configure(&issuer, config);
        config.server.cors_origins = vec!["https://shop.example".into()];
    })
    .await;
    let sale = service.concert(10, 100).await;
    let mut fan = Browser::of(&service);
    fan.signs_in(&issuer, "kim").await;
    let user = fan.id().await;
    let (ticket, _) = admitted(&service, &issuer.token("kim")).await;
    let held = fan.asks(sale.reserve(&ticket, user, &[1])).await.ok(201);
    let reservation = format!("/api/v1/reservations/{}", held["reservationId"]);
    let calls = [
        join_as_i_am(),
        sale.reserve(&ticket, user, &[2]),
        pay(&ticket, user, held["reservationId"].as_i64().unwrap()),
        post("/api/v1/payments/1/refund").token(&ticket).json(json!({})),
        delete(reservation.clone()).token(&ticket),
        post("/auth/logout"),
    ];
    let sites: [&[(&str, &str)]; 9] = [
        &[],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "none")],
        &[("Sec-Fetch-Site", "same-site"), ("Origin", ORIGIN)],
        &[("Origin", "https://shop.example")],
        &[("Origin", "null")],
        &[("Origin", "http://tickets.example")],
        &[("Origin", "https://tickets.example.evil.example")],
    ];
    for call in &calls {
        for site in sites {
            let call =
                site.iter().fold(call.clone(), |call, (name, value)| call.header(name, value));
            fan.sends(call).await.refused(ErrorCode::CrossSite);
        }
    }
    // What changes nothing is answered, for nobody else to read.
    for site in sites {
        let call =
            site.iter().fold(get("/auth/me"), |call, (name, value)| call.header(name, value));
        let reply = fan.sends(call).await;
        assert_eq!(reply.ok(200)["userId"], user);
        assert!(
            !reply.headers.iter().any(|(name, _)| name.starts_with("access-control")),
            "{reply}"
        );
    }
    let shared = fan.sends(get(&reservation).header("Origin", "https://shop.example")).await;
    assert_eq!(shared.ok(200)["status"], "HELD");
    assert_eq!(shared.header("access-control-allow-origin"), Some("https://shop.example"));
    assert_eq!(shared.header("access-control-allow-credentials"), None);
    assert_eq!(shared.header("vary"), Some("authorization, cookie, queue-token, origin"));
    // Of browsers that do not say which site asks.
    fan.sends(delete(&reservation).token(&ticket).header("Origin", ORIGIN)).await.empty(204);
    // A token is no cookie: no browser sends it by itself.
    fan.sends(join_as_i_am().by(&issuer.token("kim"))).await.ok(200);
    service.finish().await;
}

#[tokio::test]
async fn what_comes_back_wrong_signs_nobody_in() {
    let issuer = Issuer::start(Signer::rsa()).await;
    let service = started(&issuer).await;
    let mut fan = Browser::of(&service);
    let failed = "/c/4?a=b&signin=failed";
    let path = "%2Fc%2F4%3Fa%3Db";

    // Which a browser brings along, and the issuer knows nothing of.
    type Change = fn(&HashMap<String, String>) -> String;
    let codes: [(&str, Change, &str); 9] = [
        ("a code that nobody gave", |asked| came(asked, "c9"), failed),
        ("no code", |asked| format!("/auth/callback?state={}", asked["state"]), failed),
        ("no state", |_| "/auth/callback?code=c1".into(), failed),
        ("another state", |_| "/auth/callback?code=c1&state=x".into(), failed),
        ("two states", |asked| format!("{}&state=x", came(asked, "c1")), failed),
        (
            "another issuer",
            |asked| format!("{}&iss=https://evil.example", came(asked, "c1")),
            failed,
        ),
        ("nothing", |_| "/auth/callback".into(), failed),
        (
            "the fan does not want to",
            |asked| format!("/auth/callback?error=access_denied&state={}", asked["state"]),
            "/c/4?a=b&signin=denied",
        ),
        (
            "the issuer cannot",
            |asked| format!("/auth/callback?error=server_error&state={}", asked["state"]),
            "/c/4?a=b&signin=away",
        ),
    ];
    for (what, change, sent) in codes {
        let asked = fan.begins(path).await;
        issuer.grants("c1", &asked, issuer.signed(&id_token(&issuer, "kim", &asked)));
        assert_eq!(fan.goes(change(&asked)).await, sent, "{what}");
        // One try, also where it was somebody else's.
        assert_eq!(fan.goes(came(&asked, "c1")).await, "/?signin=late", "{what}");
        assert!(fan.cookies.is_empty(), "{what}");
    }

    // ID tokens.
    type Spoil = fn(&mut Value);
    let claims: [(&str, Spoil); 12] = [
        ("of another client", |claims| claims["aud"] = AUDIENCE.into()),
        ("of several, made for another", |claims| {
            claims["aud"] = json!([CLIENT, "shop"]);
            claims["azp"] = "shop".into();
        }),
        ("of several, made for nobody", |claims| claims["aud"] = json!([CLIENT, "shop"])),
        ("made for another", |claims| claims["azp"] = "shop".into()),
        ("of another sign-in", |claims| claims["nonce"] = "x".into()),
        ("of no sign-in", |claims| drop(claims.as_object_mut().unwrap().remove("nonce"))),
        ("of another issuer", |claims| claims["iss"] = "https://evil.example".into()),
        ("that is over", |claims| claims["exp"] = json!(now_seconds() - 31)),
        ("without an end", |claims| drop(claims.as_object_mut().unwrap().remove("exp"))),
        ("of nobody", |claims| drop(claims.as_object_mut().unwrap().remove("sub"))),
        ("with an odd nonce", |claims| claims["nonce"] = json!(["x"])),
        ("of a number too large", |claims| claims["sub"] = json!(BALANCE_MAX + 1)),
    ];
    for (what, change) in claims {
        let asked = fan.begins(path).await;
        let mut claims = id_token(&issuer, "kim", &asked);
        change(&mut claims);
        issuer.grants("c1", &asked, issuer.signed(&claims));
        assert_eq!(fan.goes(came(&asked, "c1")).await, failed, "{what}");
        assert!(fan.cookies.is_empty(), "{what}");
    }
    let asked = fan.begins(path).await;
    let text = issuer.signed(&id_token(&issuer, "kim", &asked));
    let (rest, _) = text.rsplit_once('.').unwrap();
    for forged in [format!("{rest}."), "x".into(), String::new(), "y".repeat(9_000)] {
        let asked = fan.begins(path).await;
        issuer.grants("c1", &asked, forged);
        assert_eq!(fan.goes(came(&asked, "c1")).await, failed);
    }

    // What the issuer answers.
    for (status, text, word) in [
        (200, "{}", "failed"),
        (200, "<html>", "failed"),
        (200, "", "failed"),
        (200, "{\"id_token\": 7}", "failed"),
        (302, "", "failed"),
        (401, "{\"error\": \"invalid_client\"}", "failed"),
        (500, "", "away"),
        (503, "{}", "away"),
        (429, "slow down", "away"),
    ] {
        issuer.answers_codes(TokenAnswer::Text(status, text.into()));
        let asked = fan.begins("/me").await;
        let sent = fan.goes(came(&asked, "c1")).await;
        assert_eq!(sent, format!("/me?signin={word}"), "{status} {text}");
    }
    issuer.answers_codes(TokenAnswer::Honest);

    // A code is used once, also by somebody who began twice.
    let first = fan.begins("/me").await;
    let second = fan.begins("/me").await;
    assert_ne!(first["state"], second["state"]);
    issuer.grants("c1", &second, issuer.signed(&id_token(&issuer, "kim", &second)));
    assert_eq!(fan.goes(came(&second, "c1")).await, "/me");
    let third = fan.begins("/me").await;
    assert_eq!(fan.goes(came(&third, "c1")).await, "/me?signin=failed");
    // What was signed in before stays.
    fan.id().await;
    // A code that was given to somebody else is of no use: the verifier is that of another browser.
    let mut other = Browser::of(&service);
    let mine = other.begins("/me").await;
    let theirs = fan.begins("/me").await;
    issuer.grants("c2", &theirs, issuer.signed(&id_token(&issuer, "kim", &mine)));
    assert_eq!(other.goes(came(&mine, "c2")).await, "/me?signin=failed");
    service.finish().await;
}

/// An issuer that says who it is has to do so each time (RFC 9207).
#[tokio::test]
async fn an_issuer_that_says_who_it_is_is_not_mixed_up() {
    let issuer = Issuer::start(Signer::ed()).await;
    issuer.says(json!({"authorization_response_iss_parameter_supported": true}));
    let service = started(&issuer).await;
    let mut fan = Browser::of(&service);
    let url = issuer.url();
    for (said, sent) in [
        (String::new(), "/me?signin=failed"),
        ("&iss=".into(), "/me?signin=failed"),
        (format!("&iss={url}/"), "/me?signin=failed"),
        (format!("&iss={url}"), "/me"),
    ] {
        let asked = fan.begins("/me").await;
        issuer.grants("c1", &asked, issuer.signed(&id_token(&issuer, "kim", &asked)));
        assert_eq!(fan.goes(format!("{}{said}", came(&asked, "c1"))).await, sent, "{said}");
    }
    // An instance that has not asked it anything yet knows it, too.
    let asked = fan.begins("/me").await;
    issuer.grants("c1", &asked, issuer.signed(&id_token(&issuer, "kim", &asked)));
    let service = service.restart(|_| ()).await;
    fan.client = service.client();
    assert_eq!(fan.goes(came(&asked, "c1")).await, "/me?signin=failed");
    service.finish().await;
}

#[tokio::test]
async fn an_issuer_that_is_away_is_said_to_be() {
    let issuer = Issuer::start(Signer::ed()).await;
    issuer.is_away(true);
    issuer.answers(Answer::Failure);
    let service = TestService::start_with(|config| {
        configure(&issuer, config);
        config.server.concurrency.sign_in = 2;
    })
    .await;
    let mut fan = Browser::of(&service);
    assert_eq!(fan.goes("/auth/login?return=/c/4").await, "/c/4?signin=away");
    assert!(fan.cookies.is_empty());
    issuer.is_away(false);
    until("the issuer", async || {
        let sent = fan.goes("/auth/login?return=/c/4").await;
        sent.starts_with(&issuer.url()).then_some(())
    })
    .await;
    // It signs with a key that nobody could read.
    let asked = fan.begins("/me").await;
    issuer.grants("c1", &asked, issuer.signed(&id_token(&issuer, "kim", &asked)));
    assert_eq!(fan.goes(came(&asked, "c1")).await, "/me?signin=away");

    // It does not answer: whoever comes meanwhile is sent back, and everybody else is served.
    issuer.answers_codes(TokenAnswer::Silence);
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut other = Browser::of(&service);
        let asked = other.begins("/me").await;
        let path = came(&asked, "c1");
        waiting.push(tokio::spawn(async move { other.goes(path).await }));
    }
    until("both to wait", async || {
        let sent = fan.goes("/auth/login?return=/c/4").await;
        (sent == "/?signin=away").then_some(())
    })
    .await;
    fan.sends(get("/api/v1/concerts")).await.ok(200);
    for one in waiting {
        assert_eq!(one.await.unwrap(), "/me?signin=away");
    }
    service.finish().await;
}

/// Of those who come while an issuer hangs one asks it, and all are sent back together.
#[tokio::test]
async fn while_an_issuer_hangs_nobody_waits_for_those_before() {
    let issuer = Issuer::start(Signer::ed()).await;
    issuer.hangs();
    let service = TestService::start_with(|config| {
        configure(&issuer, config);
        // Else the reader of keys would ask as well.
        config.auth.jwks_url = Some(format!("{}/keys", issuer.url()));
    })
    .await;
    let came = (0..6).map(|_| {
        let mut fan = Browser::of(&service);
        tokio::spawn(async move { fan.goes("/auth/login?return=/me").await })
    });
    let came: Vec<_> = came.collect();
    for one in came {
        assert_eq!(one.await.unwrap(), "/me?signin=away");
    }
    assert_eq!(issuer.described(), 1, "each of them asked");
    service.finish().await;
}

/// All instances know the cookie, and so does one that was started again; with other keys nobody is signed in.
#[tokio::test]
async fn a_cookie_outlives_a_restart() {
    let issuer = Issuer::start(Signer::ed()).await;
    let key = |text: &str| Secret::new(format!("{text} 0123456789abcdef0123456789abcdef"));
    let service = TestService::start_with(|config| {
        configure(&issuer, config);
        config.ticket.signing_key = Some(key("first"));
    })
    .await;
    let mut fan = Browser::of(&service);
    fan.signs_in(&issuer, "kim").await;
    let user = fan.id().await;
    let service = service.restart(|_| ()).await;
    fan.client = service.client();
    assert_eq!(fan.id().await, user);
    let service = service
        .restart(|config| {
            config.ticket.signing_key = Some(key("second"));
            config.ticket.previous_signing_keys = vec![key("first")];
        })
        .await;
    fan.client = service.client();
    assert_eq!(fan.id().await, user);
    let service = service.restart(|config| config.ticket.previous_signing_keys.clear()).await;
    fan.client = service.client();
    fan.sends(get("/auth/me")).await.refused(ErrorCode::PersonTokenInvalid);
    fan.asks(join_as_i_am()).await.refused(ErrorCode::PersonTokenInvalid);
    // Nothing is lost by it.
    fan.signs_in(&issuer, "kim").await;
    assert_eq!(fan.id().await, user);
    service.finish().await;
}

#[tokio::test]
async fn where_nobody_signs_in_there_is_nothing() {
    let issuer = Issuer::start(Signer::ed()).await;
    for service in [
        TestService::start().await,
        TestService::start_with(|config| issuer.configure(config)).await,
    ] {
        let mut fan = Browser::of(&service);
        for call in [
            get("/auth/login?return=/"),
            get("/auth/callback?code=x&state=y"),
            get("/auth/me"),
            post("/auth/logout"),
            get("/auth"),
        ] {
            fan.asks(call).await.refused(ErrorCode::RouteNotFound);
        }
        service.finish().await;
    }
    let service = started(&issuer).await;
    let mut fan = Browser::of(&service);
    for call in [post("/auth/login"), post("/auth/callback"), post("/auth/me"), get("/auth/logout")]
    {
        fan.asks(call).await.refused(ErrorCode::MethodNotAllowed);
    }
    service.finish().await;
}

/// Whatever comes as a cookie or as a query, nobody is signed in by it, and nobody sees an error of the API.
#[tokio::test]
async fn nonsense_signs_nobody_in() {
    let issuer = Issuer::start(Signer::ed()).await;
    let service = started(&issuer).await;
    let mut fan = Browser::of(&service);
    fan.signs_in(&issuer, "kim").await;
    let good = fan.cookies.remove(IDENTITY).unwrap();
    fan.begins("/c/4").await;
    let login = fan.cookies.remove(LOGIN).unwrap();
    let many = ["x.y", "x.y", "x.y", "x.y"].map(|it| format!("{IDENTITY}={it}; ")).concat();
    let mut lines: Vec<Vec<u8>> = [
        format!("{IDENTITY}={login}"),
        format!("{IDENTITY}={}", &good[1..]),
        format!("{IDENTITY}={good}x"),
        format!("{IDENTITY}={good}.{good}"),
        format!("{IDENTITY} = {good}"),
        format!("x{IDENTITY}={good}"),
        format!("{}={good}", IDENTITY.to_lowercase()),
        format!("{IDENTITY}="),
        IDENTITY.to_owned(),
        format!("{IDENTITY}={}", "A".repeat(7_000)),
        // Only so many are looked at.
        format!("{many}{IDENTITY}={good}"),
        ";;=;=;".to_owned(),
    ]
    .map(String::into_bytes)
    .into();
    lines.push([IDENTITY.as_bytes(), b"=\xff\xfe"].concat());
    for line in lines {
        for call in [get("/auth/me"), join_as_i_am().header("Sec-Fetch-Site", "same-origin")] {
            let reply = service.send(call.header("Cookie", &line)).await;
            assert!(matches!(reply.status, 400 | 401), "{reply}");
        }
        if line.ends_with(login.as_bytes()) {
            continue;
        }
        let line = String::from_utf8_lossy(&line).replace(IDENTITY, LOGIN).into_bytes();
        let back = get("/auth/callback?code=c1&state=x").header("Cookie", line);
        let reply = service.send(back).await;
        if reply.status != 400 {
            assert_eq!(reply.header("location"), Some("/?signin=late"), "{reply}");
        }
    }
    let both = format!("{IDENTITY}=x.y; {IDENTITY}=\"{good}\"");
    service.send(get("/auth/me").header("Cookie", both)).await.ok(200);
    for query in [
        "",
        "?",
        "?return",
        "?return=%ff",
        "?return=//x&return=/",
        "?%00",
        "?return=%2F%2Fevil.example",
    ] {
        let sent = fan.goes(format!("/auth/login{query}")).await;
        let asked = values(sent.split_once('?').unwrap().1);
        issuer.grants("c1", &asked, issuer.signed(&id_token(&issuer, "kim", &asked)));
        assert_eq!(fan.goes(came(&asked, "c1")).await, "/", "{query}");
        let sent = fan.goes(format!("/auth/callback{query}")).await;
        assert_eq!(sent, "/?signin=late", "{query}");
    }
    let long = format!("/auth/callback?code={}", "x".repeat(9_000));
    assert_eq!(fan.goes(long).await, "/?signin=failed");
    // A poll has a ticket, and is the same with any cookie.
    let (ticket, _) = admitted(&service, &issuer.token("lee")).await;
    service.send(status(&ticket).header("Cookie", format!("{IDENTITY}=x"))).await.ok(200);
    service.finish().await;
}
