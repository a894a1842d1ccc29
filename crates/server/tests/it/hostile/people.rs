//! A hundred thousand requests of people, most of them with a token that is wrong in some way.

use boxoffice_domain::points::BALANCE_MAX;
use serde_json::Value;

use super::*;
use crate::issuer::{AUDIENCE, Issuer, Signer, base64, now_seconds};

const REQUESTS: u64 = 100_000;
const LANES: u64 = 8;
/// People of the issuer, some of whom are known by a number.
const PEOPLE: usize = 40;

/// What the lanes send.
struct Crowd {
    address: std::net::SocketAddr,
    hall: OnSale,
    /// Tokens that are good.
    good: Vec<String>,
    /// Tokens that are not, each of another kind.
    bad: Vec<Vec<u8>>,
    /// Tickets of those who have joined, by their place in `good`.
    tickets: Mutex<HashMap<usize, String>>,
}

/// Tokens that are wrong in every way that somebody has thought of; and such as an issuer hardly gives out,
/// some of which are good all the same.
fn wrong(issuer: &Issuer) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let now = now_seconds();
    let good = issuer.token("kim");
    let (head, rest) = good.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let public = issuer.signer.jwk("k1").to_string();
    let hmac = |alg: &str| {
        let head = base64(json!({"alg": alg, "kid": "k1"}).to_string());
        let text = format!("{head}.{claims}");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.as_bytes());
        format!("{text}.{}", base64(ring::hmac::sign(&key, text.as_bytes())))
    };
    let headed = |head: Value| issuer.signer.token(&head, &issuer.claims("kim"));
    let own = Signer::es();
    let mut texts = vec![
        hmac("HS256"),
        hmac("RS256"),
        hmac("ES256"),
        format!("{}.{claims}.", base64(r#"{"alg":"none"}"#)),
        format!("{head}.{claims}."),
        format!("{head}.{claims}"),
        format!("{head}..{signature}"),
        format!(".{claims}.{signature}"),
        format!("{good}.{signature}"),
        format!("{head}.{}.{signature}", base64("{}")),
        format!("{}.{claims}.{signature}", base64("[".repeat(3_000))),
        format!("{head}.{claims}.{}", base64([0; 256])),
        format!("{head}.{claims}.{}", &signature[1..]),
        format!("{good}="),
        good.to_ascii_uppercase(),
        "x".repeat(16_000),
        format!("{}.a.b", "e".repeat(7_000)),
        ".".repeat(4_000),
        ADMIN.to_owned(),
        "eyJhbGciOiJIUzI1NiJ9.e30.".to_owned(),
        headed(json!({"alg": "PS256", "kid": "k1"})),
        headed(json!({"alg": ["RS256"], "kid": "k1"})),
        headed(json!({"alg": "RS256", "kid": 1})),
        headed(json!({"alg": "RS256", "kid": "k1", "crit": ["b64"], "b64": false})),
        headed(json!({"alg": "RS256", "jku": "http://127.0.0.1:1/", "kid": "k9"})),
        headed(json!({"alg": "RS256", "kid": "k".repeat(3_000)})),
        Signer::ed().token(&json!({"alg": "EdDSA", "kid": "k1"}), &issuer.claims("kim")),
        // It brings the key along that it is to be checked with.
        own.token(&json!({"alg": "ES256", "jwk": own.jwk("k1")}), &issuer.claims("kim")),
    ];
    let claim = |name: &str, value: Value| {
        let mut claims = issuer.claims("kim");
        claims[name] = value;
        issuer.signed(&claims)
    };
    texts.push(claim("exp", json!(now - 100)));
    texts.push(claim("nbf", json!(now + 100)));
    texts.push(claim("aud", json!([format!("{AUDIENCE}x")])));
    let mut bad: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    bad.push(vec![0xff; 40]);
    bad.push("\u{1f3ab}".repeat(20).into_bytes());
    let mut odd = Vec::new();
    for name in ["iss", "aud", "sub", "exp", "nbf"] {
        for value in [
            json!(null),
            json!(true),
            json!([]),
            json!({}),
            json!(-1),
            json!(0),
            json!(1e300),
            json!(u64::MAX),
            json!(BALANCE_MAX + 1),
            json!("\u{0}"),
            json!("x".repeat(3_000)),
            json!([[[[[[[]]]]]]]),
        ] {
            odd.push(claim(name, value).into_bytes());
        }
    }
    (bad, odd)
}

impl Crowd {
    /// A request, and whose it is where it is asked with a good token.
    fn draw(&self, dice: &mut Dice) -> (Call, Option<usize>) {
        let who = dice.below(self.good.len());
        let kind = dice.below(12);
        let is_good = (5..=7).contains(&kind);
        let whose = if is_good { who } else { dice.below(self.good.len()) };
        let ticket = self.tickets.lock().unwrap().get(&whose).cloned();
        let ticket = ticket.unwrap_or_else(|| "nonsense".to_owned());
        let user = 1 + dice.below(PEOPLE + 3) as i64;
        let id = 1 + dice.below(30) as i64;
        let hall = &self.hall;
        let mut call = match dice.below(9) {
            0 => post("/api/v1/waiting-queues").json(json!({})),
            1 => post("/api/v1/waiting-queues").json(json!({"userId": user})),
            2 if is_good => {
                let seat = hall.seat(1 + dice.below(20) as i64);
                let asked = post(hall.path("reservations")).token(&ticket);
                asked.json(json!({"seatIds": [seat]}))
            }
            2 => hall.reserve(&ticket, user, &[1 + dice.below(20) as i64]),
            3 if is_good => {
                post("/api/v1/payments").token(&ticket).json(json!({"reservationId": id}))
            }
            3 => pay(&ticket, user, id),
            4 => get(format!("/api/v1/reservations/{id}")).token(&ticket),
            5 => common::delete(format!("/api/v1/reservations/{id}")).token(&ticket),
            6 => post(format!("/api/v1/payments/{id}/refund")).token(&ticket).json(json!({})),
            7 => get(format!("/api/v1/users/{user}/points")),
            _ => get("/api/v1/reservations"),
        };
        if dice.once_in(3) {
            call = call.key(&format!("key-{}", dice.below(5)));
        }
        let bearer = |token: &[u8]| [b"Bearer ", token].concat();
        let call = match kind {
            0 => call,
            1 => call.header("Authorization", dice.bytes_for_header(60)),
            2 => call.header("Authorization", bearer(&dice.bytes_for_header(300))),
            3 => {
                // A good one with a byte changed, which may do nothing in its last character.
                let mut token = dice.pick(&self.good).clone().into_bytes();
                let at = dice.below(token.len() - 1);
                token[at] = *dice.pick(b"abcXYZ019-_.");
                call.header("Authorization", bearer(&token))
            }
            4 => {
                let good = bearer(dice.pick(&self.good).as_bytes());
                call.header("Authorization", good.clone()).header("Authorization", good)
            }
            _ if is_good => call.header("Authorization", bearer(self.good[who].as_bytes())),
            _ => call.header("Authorization", bearer(dice.pick::<Vec<u8>>(&self.bad))),
        };
        (call, is_good.then_some(who))
    }
}

async fn lane(crowd: Arc<Crowd>, tally: Arc<Tally>, seed: u64, count: u64) {
    let mut client = Client::new(crowd.address);
    for number in 0..count {
        let seed = seed.wrapping_add(number << 20);
        let (call, who) = crowd.draw(&mut Dice(seed));
        let bytes = call.to_bytes();
        let reply = match ask(&mut client, &bytes, false).await {
            Ok(Some(reply)) => reply,
            why => panic!("seed {seed:#x}: {why:?}\nto {}", shown(&bytes)),
        };
        if let Some(flaw) = flaw(&reply, false) {
            panic!("seed {seed:#x}: {flaw}: {reply}\nto {}", shown(&bytes));
        }
        tally.note(&reply);
        if matches!(reply.status, 200 | 201)
            && let (Some(who), Some(ticket)) = (who, reply.value()["token"].as_str())
        {
            crowd.tickets.lock().unwrap().insert(who, ticket.to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_wrong_tokens_are_nobody() {
    if std::env::var_os(ALONE).is_none() {
        return in_a_process_of_its_own(
            "hostile::people::a_hundred_thousand_wrong_tokens_are_nobody",
        );
    }
    watch();
    let seed = seed();
    let issuer = Issuer::start(Signer::rsa()).await;
    let service = TestService::start_with(|config| {
        issuer.configure(config);
        config.sales.release_jitter_seconds = 1;
    })
    .await;
    let hall = service.concert(20, 10).await;
    let named = (0..PEOPLE / 2).map(|number| issuer.token(&format!("person {number}")));
    let numbered = (0..PEOPLE / 2).map(|number| {
        let mut claims = issuer.claims("");
        claims["sub"] = json!(10_000 + number);
        issuer.signed(&claims)
    });
    let good: Vec<String> = named.chain(numbered).collect();
    let (mut bad, odd) = wrong(&issuer);
    let mut client = service.client();
    for token in &bad {
        let call = post("/api/v1/waiting-queues").json(json!({}));
        let call = call.header("Authorization", [b"Bearer ", &token[..]].concat());
        let reply = client.send(call).await;
        assert!(matches!(reply.status, 400 | 401 | 431), "{reply}: {}", shown(token));
    }
    bad.extend(odd);
    let crowd =
        Arc::new(Crowd { address: service.address(), hall, good, bad, tickets: Mutex::default() });
    let tally = Arc::new(Tally::default());
    let started = Instant::now();
    let mut lanes = JoinSet::new();
    for number in 0..LANES {
        let seed = Dice(seed ^ number << 56).next();
        lanes.spawn(lane(crowd.clone(), tally.clone(), seed, REQUESTS / LANES));
    }
    while let Some(lane) = lanes.join_next().await {
        if let Err(error) = lane {
            panic!("BOXOFFICE_TEST_SEED={seed:#x}: {error}");
        }
    }
    let codes = tally.codes.lock().unwrap().clone();
    println!("{} answers in {:?}\n{codes:#?}", REQUESTS, started.elapsed());
    assert_eq!(tally.answered.load(Ordering::Relaxed), REQUESTS);
    for code in [
        "200",
        "201",
        "PERSON_TOKEN_MISSING",
        "PERSON_TOKEN_INVALID",
        "USER_MISMATCH",
        "DUPLICATE_HEADER",
        "INVALID_HEADER",
        "TOKEN_INVALID",
        "HEADERS_TOO_LARGE",
        "SEAT_TAKEN",
    ] {
        assert!(codes.contains_key(code), "{code} never came: the generator has grown dull");
    }
    // The issuer was asked for its keys once, and once a minute at the most for those that it does not have.
    let minutes = started.elapsed().as_secs().div_ceil(60) as usize;
    assert!(issuer.asked.load(Ordering::SeqCst) <= 2 + minutes);
    service.audit().await;
    let mut client = service.client();
    let honest = post("/api/v1/waiting-queues").json(json!({}));
    let honest = honest.header("Authorization", format!("Bearer {}", issuer.token("honest")));
    client.send(honest.clone()).await.ok(201);
    client.send(honest).await.ok(200);
    service.finish().await;
    assert_well(seed);
}
