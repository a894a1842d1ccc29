//! A hundred thousand hostile requests, mixed with honest ones.
//!
//! Whatever is sent, the service must not panic, not answer 5xx, answer every error as a problem
//! document, keep its books, and go on serving whoever behaves.

mod people;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use boxoffice::endpoints::{Class, Route};
use boxoffice::http::problem::ErrorCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::common::{
    self, ADMIN, Call, Client, ENDS_EARLY, OnSale, Parsed, Reply, TestService, get, join, pay,
    post, shown, status,
};

/// Requests with a head that is HTTP, sent over connections that are kept.
const FRAMED: u64 = 96_000;
/// Connections that send bytes which may be no HTTP at all; each is a few requests.
const RAW: u64 = 5_000;
/// Connections that send slowly, or stop.
const SLOW: u64 = 48;
/// Users that hostile clients are.
const USERS: i64 = 100;
/// Tokens that wait in a line which does not move.
const WAITING: i64 = 10;
/// Seats that they fight for: fewer than they may have together.
const SEATS: u32 = 120;
/// Connections that send framed requests at the same time.
const FRAMED_LANES: u64 = 12;
/// Raw connections at the same time.
const RAW_LANES: u64 = 25;

/// Set where the test has the process to itself.
const ALONE: &str = "BOXOFFICE_TEST_ALONE";

/// Panics of any thread, and errors in the service's log.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static ERRORS: Mutex<Vec<u8>> = Mutex::new(Vec::new());

#[derive(Clone, Copy)]
struct ErrorLog;

impl Write for ErrorLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        ERRORS.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Random numbers that a seed repeats: splitmix64, because its whole state is one printable word.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `times`.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// What a hostile client knows of the service: enough to get far.
struct Target {
    hall: OnSale,
    /// The only one that is called off: one call would end the fight for the seats of another.
    doomed: OnSale,
    /// Those that are not.
    spared: [i64; 2],
    /// Whose, and the token: one that opens doors for each of the first [`USERS`] users, replaced
    /// now and then because payments spend them, and behind these tokens in every other state.
    tokens: RwLock<Vec<(i64, String)>>,
    /// A pass that was good when it all began.
    pass: String,
    /// The last reservation of each user.
    reservations: Mutex<HashMap<i64, i64>>,
    address: std::net::SocketAddr,
}

/// Numbers on the edges of what machines and rules can hold. None is a count of seats or tokens
/// that would fill the disk of whoever runs this.
const NUMBERS: [&str; 28] = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "-0",
    "1.0",
    "1.5",
    "1e0",
    "1e-1",
    "1E400",
    "-1e400",
    "1e15",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740991",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "100000000000000000000000000000000000000000",
    "200001",
    "01",
];

const TEXTS: [&str; 29] = [
    "",
    " ",
    "0",
    "-1",
    "abc",
    "null",
    "NaN",
    "Infinity",
    "1e5",
    "0x10",
    "1_000",
    "\\u0000",
    "\\ud800",
    "\\uD83D\\uDE00",
    "\\u202e",
    "'; DROP TABLE seat;--",
    "<script>",
    "../../etc/passwd",
    "${jndi:ldap://x}",
    "%00",
    "{n}",
    "eyJhbGciOiJub25lIn0.e30.",
    "2026-01-01T00:00:00Z",
    "9999-99-99T99:99:99+99:99",
    "9999-12-31T23:59:59.999Z",
    "9999-12-31T23:59:59-23:59",
    "+020000-01-01T00:00:00Z",
    "-009999-01-02T01:59:59Z",
    "0000-01-01T00:00:00Z",
];

const SEGMENTS: [&str; 30] = [
    "..",
    ".",
    "%2e%2e",
    "%2f",
    "%2F..%2F",
    "%5c",
    "%00",
    "%ff",
    "%c3%28",
    "%",
    "%zz",
    "%u0041",
    "~",
    "*",
    "{id}",
    "{*rest}",
    ":id",
    "-1",
    "0",
    "01",
    "1e1",
    "9223372036854775808",
    "main%20",
    "MAIN",
    "a;b=c",
    "a=b&c",
    "@",
    "%E2%80%AE",
    "'",
    "|",
];

impl Target {
    fn path(&self, dice: &mut Dice, route: Route, user: i64) -> String {
        let id = |dice: &mut Dice, right: i64| match dice.below(16) {
            0 => dice.below(300).to_string(),
            1 => (*dice.pick(&NUMBERS)).to_owned(),
            2 => (*dice.pick(&SEGMENTS)).to_owned(),
            _ => right.to_string(),
        };
        let template = route.template();
        let own = if template.contains("/reservations/") {
            let own = self.reservations.lock().unwrap().get(&user).copied();
            own.unwrap_or(dice.below(400) as i64)
        } else {
            user
        };
        let calls_off = template.ends_with("/cancel");
        let is_doomed = calls_off || route == Route::ReservationCreate && dice.once_in(8);
        let hall = if is_doomed { &self.doomed } else { &self.hall };
        let own = if template.contains("/concerts/") { hall.concert } else { own };
        // What is to be called off is not to be gone.
        let removes = matches!(route, Route::AdminConcertRemove | Route::AdminSessionRemove);
        let spared = |number: i64| {
            calls_off && self.spared.contains(&number) || removes && number == self.doomed.concert
        };
        let named = loop {
            let text = id(dice, own);
            if !text.parse().is_ok_and(spared) {
                break text;
            }
        };
        let queue = (*dice.pick(&["main", "main", "rope", "none", "%ff", "a%2fb"])).to_owned();
        let mut path = template
            .replace("{id}", &named)
            .replace("{sessionId}", &id(dice, hall.session))
            .replace("{queue}", &queue);
        if dice.once_in(20) {
            let at = dice.below(path.len() + 1);
            let more: &str = dice.pick::<&str>(&SEGMENTS);
            path.insert_str(at, more);
        }
        if dice.once_in(60) {
            path.push('/');
        }
        match dice.below(120) {
            10..15 => path.push_str(&format!("?{}={}", dice.pick(&SEGMENTS), dice.pick(&SEGMENTS))),
            1 => path.push_str(&"/x".repeat(dice.below(4_500))),
            2 => path.push_str(&format!("?{}", "a&".repeat(dice.below(4_500)))),
            3 => path.insert(0, '/'),
            4 => path = format!("http://other.example{path}"),
            5 => path = "*".into(),
            6 => path.push('#'),
            _ => {}
        }
        // What would end the request line or make it no HTTP is for the raw connections.
        path.retain(|c| c.is_ascii_graphic());
        path
    }

    fn seat(&self, dice: &mut Dice) -> String {
        match dice.below(8) {
            0 => (*dice.pick(&NUMBERS)).to_owned(),
            1 => format!("\"{}\"", self.hall.seat(1 + dice.below(SEATS as usize) as i64)),
            2 => format!("\"{}\"", dice.pick(&TEXTS)),
            _ => self.hall.seat(1 + dice.below(SEATS as usize) as i64).to_string(),
        }
    }

    fn value(&self, dice: &mut Dice) -> String {
        match dice.below(10) {
            0..=2 => (*dice.pick(&NUMBERS)).to_owned(),
            3..=4 => format!("\"{}\"", dice.pick(&TEXTS)),
            5 => "null".to_owned(),
            6 => "true".to_owned(),
            7 => "[]".to_owned(),
            8 => "{}".to_owned(),
            _ => {
                let depth = 1 + dice.below(300);
                format!("{}{}", "[".repeat(depth), "]".repeat(depth))
            }
        }
    }

    /// A body that the endpoint would take, but for values here and there.
    fn body(&self, dice: &mut Dice, route: Route, user: i64) -> String {
        let own = self.reservations.lock().unwrap().get(&user).copied();
        let user = match dice.below(12) {
            0 => self.value(dice),
            1 => (1 + dice.below(USERS as usize)).to_string(),
            2 => format!("\"{user}\""),
            _ => user.to_string(),
        };
        let or = |dice: &mut Dice, good: &str| {
            if dice.once_in(5) { self.value(dice) } else { good.to_owned() }
        };
        match route {
            Route::QueueJoin => {
                let queue = or(dice, "\"main\"");
                format!("{{\"userId\": {user}, \"queue\": {queue}}}")
            }
            Route::ReservationCreate => {
                if dice.once_in(4) {
                    let count = dice.below(6).to_string();
                    let mut wish = format!("\"count\": {}", or(dice, &count));
                    for (field, good) in
                        [("together", "false"), ("grade", "\"R\""), ("section", "\"A\"")]
                    {
                        if dice.once_in(3) {
                            wish += &format!(", \"{field}\": {}", or(dice, good));
                        }
                    }
                    let seats = if dice.once_in(6) { ", \"seatIds\": [1]" } else { "" };
                    return format!("{{\"userId\": {user}, \"best\": {{{wish}}}{seats}}}");
                }
                let count = if dice.once_in(30) { dice.below(6_000) } else { dice.below(6) };
                let mut seats: Vec<String> = (0..count).map(|_| self.seat(dice)).collect();
                if count > 1 && dice.once_in(8) {
                    seats[0] = seats[1].clone();
                }
                format!("{{\"userId\": {user}, \"seatIds\": [{}]}}", seats.join(","))
            }
            Route::PaymentCreate => {
                let other = dice.below(400) as i64;
                let good = own.filter(|_| !dice.once_in(4)).unwrap_or(other).to_string();
                let reservation = or(dice, &good);
                format!("{{\"userId\": {user}, \"reservationId\": {reservation}}}")
            }
            Route::PaymentRefund => format!("{{\"userId\": {user}}}"),
            Route::AdminKeyRotate => format!("{{\"inSeconds\": {}}}", or(dice, "60")),
            Route::PointsCharge | Route::PointsChargeByPost => {
                let amount = or(dice, "10");
                format!("{{\"amount\": {amount}}}")
            }
            Route::AdminQueueCreate | Route::AdminQueueChange => {
                let name = or(dice, "\"rope\"");
                let (rate, max) = (or(dice, "300.0"), or(dice, "5000"));
                let opens = or(dice, "null");
                format!(
                    "{{\"queue\": {name}, \"admitPerSecond\": {rate}, \"maxActive\": {max}, \
                     \"opensAt\": {opens}}}"
                )
            }
            Route::AdminTokenIssue => {
                let (count, first) = (or(dice, "2"), or(dice, "1"));
                let format = or(dice, "\"hostile-{n}\"");
                format!(
                    "{{\"count\": {count}, \"format\": {format}, \"activated\": {}, \
                     \"guessable\": true, \"firstNumber\": {first}, \"userId\": {user}}}",
                    dice.once_in(2),
                )
            }
            Route::AdminConcertCreate => {
                let (name, queue) = (or(dice, "\"A\""), or(dice, "\"rope\""));
                let (opens, closes) =
                    (or(dice, "\"2001-01-01T00:00:00Z\""), or(dice, "\"2099-01-01T00:00:00Z\""));
                format!(
                    "{{\"name\": {name}, \"venue\": \"B\", \"queue\": {queue}, \
                     \"reservationOpensAt\": {opens}, \"reservationClosesAt\": {closes}}}"
                )
            }
            Route::AdminSessionCreate | Route::AdminSeatCreate => {
                let (count, price) = (or(dice, "2"), or(dice, "10"));
                let at = or(dice, "\"2099-01-01T00:00:00Z\"");
                format!("{{\"concertAt\": {at}, \"seatCount\": {count}, \"price\": {price}}}")
            }
            _ => self.value(dice),
        }
    }

    fn spoil(&self, dice: &mut Dice, body: &mut Vec<u8>) {
        match dice.below(14) {
            0 if !body.is_empty() => {
                let at = dice.below(body.len());
                body[at] = dice.next() as u8;
            }
            1 if !body.is_empty() => body.truncate(dice.below(body.len())),
            2 => {
                let at = dice.below(body.len() + 1);
                let more = dice.bytes(8);
                body.splice(at..at, more);
            }
            3 => body.splice(0..0, *b"\xef\xbb\xbf").for_each(drop),
            4 => body.push(0),
            5 => {
                let again = body.clone();
                body.extend_from_slice(&again);
            }
            6 => *body = dice.bytes(200),
            7 => {
                let at = dice.below(body.len() + 1);
                body.splice(at..at, *b"\xff\xfe");
            }
            8 => {
                // A field twice.
                let text = String::from_utf8_lossy(body).into_owned();
                if let Some(rest) = text.strip_prefix('{') {
                    *body = format!("{{\"userId\": 1, \"amount\": 1, {rest}").into_bytes();
                }
            }
            9 => {
                let depth = 1 + dice.below(20_000);
                *body = "[{\"a\":".as_bytes().repeat(depth / 6);
            }
            10 => *body = vec![b' '; dice.below(70_000)],
            11 => body.extend(std::iter::repeat_n(b'\n', dice.below(300))),
            12 if body.len() > 2 => {
                let at = 1 + dice.below(body.len() - 1);
                body.rotate_left(at);
            }
            _ => body.clear(),
        }
    }

    /// A token, or what is left of it.
    fn spoil_token(&self, dice: &mut Dice, token: String, other: &str) -> Vec<u8> {
        let mut token = token.into_bytes();
        match dice.below(30) {
            0 => {
                let at = dice.below(token.len());
                token[at] = b'!' + dice.below(90) as u8;
            }
            1 => token.truncate(dice.below(token.len())),
            2 => token.extend_from_slice(b"A"),
            3 => {
                let parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
                let none = b"eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0".as_slice();
                let claims = parts.get(1).copied().unwrap_or_default();
                token = [none, claims, b""].join(&b'.');
            }
            4 => {
                // The head and claims of one, the signature of another.
                let at = token.len() / 2;
                token.truncate(at);
                token.extend_from_slice(&other.as_bytes()[other.len() / 2..]);
            }
            5 => token = vec![b'e'; dice.below(9_000)],
            6 => token = format!("eyJ{}", "A.".repeat(dice.below(400))).into_bytes(),
            7 => token = format!("hostile-{}", dice.pick(&NUMBERS)).into_bytes(),
            8 => {
                let at = dice.below(token.len());
                token.insert(at, 0x80 | dice.next() as u8);
            }
            _ => {}
        }
        token
    }

    /// A request that HTTP can carry, whatever it asks for.
    fn framed(&self, dice: &mut Dice) -> (i64, Call) {
        let route = loop {
            let route = *dice.pick(Route::ALL);
            // The admin API and the audit above all are made less of: they do real work.
            let rare = route.template().starts_with("/admin") && !dice.once_in(3)
                || route == Route::AdminAudit && !dice.once_in(60)
                || matches!(route, Route::QueueLeave | Route::ReservationCancel)
                    && !dice.once_in(5)
                || route.class() == Class::Ops && !dice.once_in(4);
            // That one has no end.
            if !matches!((route, route.method()), (Route::AdminLive, _) | (_, "*")) && !rare {
                break route;
            }
        };
        let methods = ["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "BREW"];
        let method = if dice.once_in(25) { *dice.pick(&methods) } else { route.method() };
        let (user, token, other) = {
            let tokens = self.tokens.read().unwrap();
            // Mostly those that open something.
            let (open, others) = tokens.split_at(USERS as usize);
            let some = if dice.once_in(6) { others } else { open };
            let (user, token) = dice.pick(some).clone();
            (user, token, dice.pick(&tokens).1.clone())
        };
        let mut call = Call::new(method, self.path(dice, route, user));
        if dice.once_in(2) || !route.template().starts_with("/admin") && !dice.once_in(10) {
            call = call.header("QUEUE-TOKEN", self.spoil_token(dice, token, &other));
        }
        if route == Route::Gate && !dice.once_in(8) {
            let pass = self.spoil_token(dice, self.pass.clone(), &other);
            let cookie = [b"a=1; boxoffice-pass=".as_slice(), &pass].concat();
            let asked = if dice.once_in(2) { "X-Original-URI" } else { "X-Forwarded-Uri" };
            call = call.header("Cookie", cookie).header(asked, dice.bytes_for_header(300));
        }
        if route.template().starts_with("/admin") {
            let token = match dice.below(8) {
                0 => format!("Bearer {}x", ADMIN),
                1 => format!("Basic {}", ADMIN),
                2 => ADMIN.to_owned(),
                _ => format!("Bearer {ADMIN}"),
            };
            call = call.header("Authorization", token);
            match dice.below(12) {
                0 => call = call.header("X-Reason", dice.bytes_for_header(700)),
                1 => call = call.header("If-Match", dice.bytes_for_header(40)),
                _ => {}
            }
        }
        if route.template().starts_with("/admin") && dice.once_in(8) || dice.once_in(40) {
            call.headers.retain(|(name, _)| name != "Authorization");
            let cookie =
                [b"__Host-boxoffice-ops=".as_slice(), &dice.bytes_for_header(300)].concat();
            call = call.header("Cookie", cookie).header("Sec-Fetch-Site", "same-origin");
        }
        if matches!(method, "POST" | "PATCH" | "PUT") || dice.once_in(20) {
            let mut body = self.body(dice, route, user).into_bytes();
            while dice.once_in(4) {
                self.spoil(dice, &mut body);
            }
            let kind = match dice.below(40) {
                0 => "text/plain",
                1 => "application/x-www-form-urlencoded",
                2 => "application/json; charset=utf-16",
                3 => "multipart/form-data; boundary=x",
                4 => "",
                _ => "application/json",
            };
            call = call.header("Content-Type", kind);
            call.body = Some(body);
        }
        if dice.once_in(4) {
            let key = match dice.below(6) {
                0 => vec![b'k'; dice.below(400)],
                1 => b"\"open".to_vec(),
                2 => b"\"a\\\"b\"".to_vec(),
                3 => b"a b".to_vec(),
                4 => vec![b'k', 0xc3, 0xa9],
                _ => format!("key-{}", dice.below(50)).into_bytes(),
            };
            call = call.header("Idempotency-Key", key);
        }
        for _ in 0..dice.below(5) / 2 {
            let header = dice.below(call.headers.len().max(1));
            match dice.below(10) {
                // The same once more.
                0 if !call.headers.is_empty() => call.headers.push(call.headers[header].clone()),
                1 => call = call.header("X-Request-Id", dice.bytes_for_header(200)),
                2 => call = call.header("Accept-Encoding", "gzip, br;q=x, *;q=0"),
                3 => call = call.header("If-None-Match", dice.bytes_for_header(50)),
                4 => call = call.header("Accept", "*/*;q=banana"),
                5 => call = call.header("Content-Encoding", "gzip"),
                6 => call = call.header("X-Forwarded-For", "::1, 127.0.0.1"),
                7 => call = call.header("X-Long", vec![b'x'; dice.below(7_000)]),
                8 => call = call.header("traceparent", dice.bytes_for_header(120)),
                _ => call = call.header("Host", "other.example:99999"),
            }
        }
        (user, call)
    }

    /// Bytes that somebody may send to a port where HTTP is spoken.
    fn raw(&self, dice: &mut Dice) -> Vec<u8> {
        let good = self.framed(dice).1.to_bytes();
        let json = b"{\"userId\": 1}";
        let post = |more: &str| {
            format!(
                "POST /api/v1/waiting-queues HTTP/1.1\r\nHost: x\r\n\
                 Content-Type: application/json\r\n{more}\r\n"
            )
            .into_bytes()
        };
        let with = |more: &str, body: &[u8]| [&post(more), body].concat();
        match dice.below(36) {
            0 => dice.bytes(400),
            1 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            2 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            3 => b"GET /api/v1/concerts\r\n\r\n".to_vec(),
            4 => b"GET /api/v1/concerts HTTP/9.9\r\nHost: x\r\n\r\n".to_vec(),
            5 => b"GET /api/v1/concerts HTTP/1.0\r\n\r\n".to_vec(),
            6 => b"GET  /api/v1/concerts  HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            7 => b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n".to_vec(),
            8 => b"GET /\xff\xfe/\x80 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            9 => b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            10 => with("Content-Length: 5\r\n", json),
            11 => with("Content-Length: 500\r\n", json),
            12 => with("Content-Length: -1\r\n", json),
            13 => with("Content-Length: 18446744073709551616\r\n", json),
            14 => with("Content-Length: 13\r\nContent-Length: 14\r\n", json),
            15 => with("Content-Length: 13\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
            16 => with("Transfer-Encoding: chunked\r\n", b"zz\r\n{}\r\n0\r\n\r\n"),
            17 => with("Transfer-Encoding: chunked\r\n", b"ffffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
            18 => with(
                "Transfer-Encoding: chunked\r\n",
                b"d;ext=\"x\"\r\n{\"userId\": 1}\r\n0\r\nX: y\r\n\r\n",
            ),
            19 => with("Transfer-Encoding: chunked\r\n", b"d\r\n{\"userId\": 1}XX0\r\n\r\n"),
            20 => with("Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
            21 => with("Transfer-Encoding: identity\r\nContent-Length: 13\r\n", json),
            22 => with("Expect: 100-continue\r\nContent-Length: 13\r\n", json),
            23 => with("Bad Name: x\r\nContent-Length: 13\r\n", json),
            24 => with("X: a\r\n folded\r\nContent-Length: 13\r\n", json),
            25 => with("X: \0\x01\x7f\r\nContent-Length: 13\r\n", json),
            26 => with("Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 13\r\n", json),
            27 => {
                // Many at once, good and bad.
                let mut bytes = good;
                for _ in 0..dice.below(6) {
                    bytes.extend_from_slice(&self.framed(dice).1.to_bytes());
                }
                bytes
            }
            29 => b"GET /api/v1/concerts HTTP/1.1\r\n\r\n".to_vec(),
            30 => with("Host: y\r\nContent-Length: 13\r\n", json),
            31 => with("Content-Length: 13\n", json),
            32 => with("Transfer-Encoding: chunked\r\n", b"d\n{\"userId\": 1}\r\n0\r\n\r\n"),
            33 => {
                with("Transfer-Encoding: chunked\r\n", b"d\r\n{\"userId\": 1}\r\n0\r\nX: y\n\r\n")
            }
            34 => {
                // Line ends that are none, anywhere.
                let mut bytes = good;
                bytes.retain(|byte| *byte != b'\r' || !dice.once_in(4));
                bytes
            }
            28 => {
                let mut bytes = good;
                for _ in 0..=dice.below(4) {
                    let at = dice.below(bytes.len());
                    bytes[at] = dice.next() as u8;
                }
                bytes
            }
            _ => {
                let mut bytes = good;
                bytes.truncate(dice.below(bytes.len()));
                bytes
            }
        }
    }
}

impl Dice {
    /// Bytes that may stand in a header, not all of them text.
    fn bytes_for_header(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = self.bytes(most);
        bytes.retain(|byte| *byte >= b' ' && *byte != 0x7f);
        bytes
    }
}

/// What the lanes share.
#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    unanswered: AtomicU64,
    done: AtomicBool,
    codes: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    fn note(&self, reply: &Reply) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        // Only errors have one, and some of the other documents are long.
        let code = if reply.status < 400 { None } else { reply.code() };
        let code = code.unwrap_or_else(|| reply.status.to_string());
        *self.codes.lock().unwrap().entry(code).or_default() += 1;
    }
}

/// What is wrong with an answer to a hostile request.
fn flaw(reply: &Reply, to_head: bool) -> Option<String> {
    if reply.status >= 500 {
        return Some("the service is at fault".into());
    }
    reply.flaw(to_head)
}

/// Sends a request and reads the answer. A server may close a connection that it has answered on, and say so
/// only by closing: then it is sent once more.
async fn ask(client: &mut Client, bytes: &[u8], to_head: bool) -> Result<Option<Reply>, String> {
    let mut reply = Ok(None);
    for _ in 0..2 {
        let sent = client.write(bytes).await;
        reply = client.read(to_head).await;
        if sent.is_err() || matches!(reply, Ok(None)) {
            client.hang_up();
        }
        if !matches!(reply, Ok(None)) {
            break;
        }
    }
    reply
}

/// Framed requests over one connection, as long as the server keeps it. Each is answered.
async fn framed_lane(target: Arc<Target>, tally: Arc<Tally>, seed: u64, count: u64) {
    let mut client = Client::new(target.address);
    for number in 0..count {
        let seed = seed.wrapping_add(number << 20);
        let (user, call) = target.framed(&mut Dice(seed));
        let bytes = call.to_bytes();
        let to_head = call.method == "HEAD";
        let asked = || format!("seed {seed:#x}: {}", shown(&bytes));
        match ask(&mut client, &bytes, to_head).await {
            Ok(Some(reply)) => {
                if let Some(flaw) = flaw(&reply, to_head) {
                    panic!("{flaw}: {reply}\nto {}", asked());
                }
                tally.note(&reply);
                if reply.status == 201
                    && let Some(path) = reply.header("location")
                {
                    let id = path.rsplit('/').next().unwrap().parse().unwrap();
                    target.reservations.lock().unwrap().insert(user, id);
                }
            }
            Ok(None) => panic!("closed twice without an answer: {}", asked()),
            // Where a handler looks at no body, a long one is left unread, and closing resets the
            // connection: what the client has not read by then of a long answer is lost to it.
            Err(why) if why.starts_with(ENDS_EARLY) && has_unread_body(&call) => {
                tally.unanswered.fetch_add(1, Ordering::Relaxed);
            }
            Err(why) => panic!("{why}: {}", asked()),
        }
    }
}

/// Whether there is a body that is longer than what is read with the head, and that no handler asks
/// for.
fn has_unread_body(call: &Call) -> bool {
    let length = call.body.as_ref().map_or(0, Vec::len);
    length > 4_096 && call.method == "GET"
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// One connection of bytes. Whatever is answered must be HTTP; that nothing is answered is fine.
async fn raw_connection(target: &Target, tally: &Tally, seed: u64) {
    let mut dice = Dice(seed);
    let bytes = target.raw(&mut dice);
    let wait_for_end = dice.once_in(20);
    let to_head = bytes.starts_with(b"HEAD ");
    let Ok(mut stream) = TcpStream::connect(target.address).await else {
        panic!("cannot connect at seed {seed:#x}");
    };
    let _ = stream.write_all(&bytes).await;
    let mut unread = Vec::new();
    let mut chunk = vec![0; 32 * 1024];
    // The service's own time-outs are short here, so the end of a connection comes soon; most are
    // given up earlier, as hostile clients do.
    let patience = if wait_for_end { Duration::from_secs(15) } else { Duration::from_millis(30) };
    loop {
        // A stream goes on for as long as its ticket does.
        if contains(&unread, b"text/event-stream") {
            break;
        }
        match tokio::time::timeout(patience, stream.read(&mut chunk)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(count)) => unread.extend_from_slice(&chunk[..count]),
            Err(_) if wait_for_end => panic!("left open at seed {seed:#x}: {}", shown(&bytes)),
            Err(_) => break,
        }
    }
    let mut rest = unread.as_slice();
    let mut is_first = true;
    let has_head = contains(&bytes, b"HEAD ");
    // Behind a HEAD it is not known which answers have bodies, so there only the first is read.
    while !rest.is_empty() {
        match Reply::parse(rest, to_head) {
            Parsed::Whole(reply, used) => {
                rest = &rest[used..];
                if reply.status < 200 {
                    continue;
                }
                // A head that is none, and came along with the request before it: hyper answers
                // that by itself, and where it begins in what is written cannot be seen.
                let is_hypers_own = !is_first
                    && matches!(reply.status, 400 | 414 | 431)
                    && reply.body.is_empty()
                    && reply.closes();
                is_first = false;
                let found = flaw(&reply, to_head).filter(|_| !has_head && !is_hypers_own);
                if let Some(flaw) = found {
                    panic!("{flaw} at seed {seed:#x}: {reply}\nto {}", shown(&bytes));
                }
                assert!(reply.status < 500, "seed {seed:#x}: {reply}\nto {}", shown(&bytes));
                tally.note(&reply);
                if has_head {
                    break;
                }
            }
            // Given up in the middle of an answer.
            Parsed::Part => break,
            Parsed::Broken(_) if has_head => break,
            Parsed::Broken(why) => panic!("{why} at seed {seed:#x}\nto {}", shown(&bytes)),
        }
    }
    if unread.is_empty() {
        tally.unanswered.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection that sends a byte now and then, or stops: in the head, in the body, or while it
/// should read. The service ends it.
async fn slow_connection(target: &Target, tally: &Tally, seed: u64) {
    let mut dice = Dice(seed);
    let mut stream = TcpStream::connect(target.address).await.unwrap();
    let body = b"POST /api/v1/waiting-queues HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\
                 Content-Type: application/json\r\n\r\n{\"userId\": "
        .as_slice();
    let (bytes, drips) = match dice.below(4) {
        0 => (b"".as_slice(), false),
        1 => (b"GET /api/v1/conc".as_slice(), false),
        2 => (body, false),
        _ => (body, true),
    };
    if drips {
        for byte in bytes {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            // Slow is what this is about.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    } else {
        stream.write_all(bytes).await.unwrap();
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "a connection that says nothing is kept: seed {seed:#x}");
    if let Parsed::Whole(reply, _) = Reply::parse(&answer, false) {
        assert_eq!(flaw(&reply, false), None, "{reply}");
        reply.refused(ErrorCode::RequestTimeout);
        tally.note(&reply);
    }
}

/// A fan who behaves: joins, waits, holds, pays. Returns the number of journeys.
async fn honest_fan(
    address: std::net::SocketAddr,
    tally: Arc<Tally>,
    hall: OnSale,
    user: i64,
) -> u64 {
    let mut client = Client::new(address);
    let mut journeys = 0;
    let mut seat = 1 + (user % 10) * 100;
    let last = seat + 99;
    while seat <= last && (journeys == 0 || !tally.done.load(Ordering::Relaxed)) {
        let ask = json!({"userId": user + journeys as i64, "queue": "honest"});
        let user = user + journeys as i64;
        let joined = client.send(post("/api/v1/waiting-queues").json(ask)).await.ok(201);
        let token = joined["token"].as_str().unwrap().to_owned();
        let mut before = joined["waitingNumber"].as_u64().unwrap();
        loop {
            let place = client.send(status(&token)).await.ok(200);
            let number = place["waitingNumber"].as_u64().unwrap();
            assert!(number <= before, "{number} after {before}");
            before = number;
            if place["status"] == "ACTIVATED" {
                break;
            }
            assert_eq!(place["status"], "WAITING");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        client.send(common::charge(user, 10)).await.ok(200);
        client.send(hall.seats(&token)).await.ok(200);
        let held = client.send(hall.reserve(&token, user, &[seat]).key("hold")).await.ok(201);
        let reservation = held["reservationId"].as_i64().unwrap();
        let paid = client.send(pay(&token, user, reservation).key("pay")).await.ok(201);
        assert_eq!(paid["paymentAmount"], 10);
        let place = client.send(status(&token)).await.ok(200);
        assert_eq!(place["status"], "EXPIRED");
        seat += 1;
        journeys += 1;
    }
    journeys
}

/// New tokens that open doors, one for each user, and some that wait.
async fn new_tokens(client: &mut Client, round: u32) -> Vec<(i64, String)> {
    let mut tokens = Vec::new();
    for (name, count, queue, activated) in
        [("open", USERS, "main", true), ("waiting", WAITING, "closed", false)]
    {
        let ask = json!({
            "count": count, "format": format!("{name}-{round}-{{n}}"), "queue": queue,
            "activated": activated, "guessable": true, "activeSeconds": 3_600,
        });
        client.send(post("/admin/v1/tokens").admin().json(ask)).await.ok(201);
        tokens.extend((1..=count).map(|user| (user, format!("{name}-{round}-{user}"))));
    }
    tokens
}

/// Replaces the tokens that payments spend and departures end, until the hostile lanes have ended.
async fn keep_tokens_open(target: Arc<Target>, tally: Arc<Tally>) {
    let mut client = Client::new(target.address);
    for round in 1.. {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if tally.done.load(Ordering::Relaxed) {
            return;
        }
        let fresh = new_tokens(&mut client, round).await;
        target.tokens.write().unwrap()[..fresh.len()].clone_from_slice(&fresh);
    }
}

/// Tokens of every kind: open ones, waiting ones, and signed ones that were let in, have paid, left,
/// ran out, or are of another queue.
async fn tokens(service: &TestService, hall: &OnSale) -> Vec<(i64, String)> {
    let mut client = service.client();
    client.send(post("/admin/v1/queues").admin().json(json!({"queue": "closed"}))).await.ok(201);
    service.pause("closed").await;
    let mut tokens = new_tokens(&mut client, 0).await;
    for user in 1..=10 {
        tokens.push((user, service.admitted(user).await));
    }
    let paying = service.admitted(11).await;
    service.charge(11, 1_000).await;
    let held = client.send(hall.reserve(&paying, 11, &[1])).await.ok(201);
    client.send(pay(&paying, 11, held["reservationId"].as_i64().unwrap())).await.ok(201);
    tokens.push((11, paying));
    let leaving = service.admitted(12).await;
    client.send(common::delete("/api/v1/waiting-queues").token(&leaving)).await.empty(204);
    tokens.push((12, leaving));
    let ask = json!({"count": 1, "format": "short", "activated": true, "guessable": true, "activeSeconds": 1});
    client.send(post("/admin/v1/tokens").admin().json(ask)).await.ok(201);
    // Before anybody spends it.
    common::until("the token to run out", async || {
        let place = client.send(status("short")).await.ok(200);
        (place["status"] == "EXPIRED").then_some(())
    })
    .await;
    tokens.push((1, "short".to_owned()));
    tokens.push((14, service.token_in("rope", 14).await));
    tokens
}

/// Runs the test again in a process that it has to itself: it counts every panic and every error in
/// the log of its process, and must not count those of other tests.
fn in_a_process_of_its_own(name: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains(" 1 passed;"), "{}", output.status);
}

/// Keeps every panic and every error in the log of this process.
fn watch() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.lock().unwrap().push(info.to_string());
        before(info);
    }));
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::ERROR)
        .with_ansi(false)
        .with_writer(|| ErrorLog)
        .init();
}

/// Another seed each day would find more, and fail on days when nobody has changed anything.
fn seed() -> u64 {
    std::env::var("BOXOFFICE_TEST_SEED")
        .ok()
        .and_then(|seed| u64::from_str_radix(seed.trim_start_matches("0x"), 16).ok())
        .unwrap_or(0x00b0_c5ed)
}

/// Nothing of what [`watch`] keeps has come.
fn assert_well(seed: u64) {
    let panics = PANICS.lock().unwrap().clone();
    assert!(panics.is_empty(), "BOXOFFICE_TEST_SEED={seed:#x}: {panics:#?}");
    let errors = String::from_utf8_lossy(&ERRORS.lock().unwrap()).into_owned();
    assert_eq!(errors, "", "BOXOFFICE_TEST_SEED={seed:#x}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_hostile_requests_change_nothing_for_honest_ones() {
    if std::env::var_os(ALONE).is_none() {
        return in_a_process_of_its_own(
            "hostile::a_hundred_thousand_hostile_requests_change_nothing_for_honest_ones",
        );
    }
    watch();
    let seed = seed();
    let service = TestService::start_with(|config| {
        config.server.header_timeout_ms = 500;
        config.server.idle_timeout_ms = 2_000;
        config.server.body_timeout_ms = 500;
        config.server.write_timeout_ms = 2_000;
    })
    .await;
    let hall = service.concert(SEATS, 10).await;
    service.send(post("/admin/v1/queues").admin().json(json!({"queue": "rope"}))).await.ok(201);
    service.send(post("/admin/v1/queues").admin().json(json!({"queue": "honest"}))).await.ok(201);
    let honest = service.concert_in("honest", 1_000, 10).await;
    let doomed = service.concert(5, 10).await;
    let spared = [hall.concert, honest.concert];
    let tokens = RwLock::new(tokens(&service, &hall).await);
    let inside = service.send(status(&service.admitted(15).await)).await.ok(200);
    let target = Arc::new(Target {
        pass: inside["pass"].as_str().unwrap().to_owned(),
        hall,
        doomed,
        spared,
        tokens,
        reservations: Mutex::default(),
        address: service.address(),
    });
    let tally = Arc::new(Tally::default());
    let started = Instant::now();

    let mut fans = JoinSet::new();
    for fan in 0..2 {
        let user = 1_000_000 + fan * 100_001;
        fans.spawn(honest_fan(service.address(), tally.clone(), honest.clone(), user));
    }
    let refresher = tokio::spawn(keep_tokens_open(target.clone(), tally.clone()));
    let mut lanes = JoinSet::new();
    for lane in 0..FRAMED_LANES {
        let seed = Dice(seed ^ lane << 56).next();
        lanes.spawn(framed_lane(target.clone(), tally.clone(), seed, FRAMED / FRAMED_LANES));
    }
    for lane in 0..RAW_LANES {
        let (target, tally) = (target.clone(), tally.clone());
        let seed = Dice(seed ^ (lane + 100) << 48).next();
        lanes.spawn(async move {
            for number in 0..RAW / RAW_LANES {
                raw_connection(&target, &tally, seed.wrapping_add(number << 20)).await;
            }
        });
    }
    for lane in 0..SLOW {
        let (target, tally) = (target.clone(), tally.clone());
        lanes.spawn(async move { slow_connection(&target, &tally, Dice(lane).next()).await });
    }
    while let Some(lane) = lanes.join_next().await {
        if let Err(error) = lane {
            panic!("BOXOFFICE_TEST_SEED={seed:#x}: {error}");
        }
    }
    tally.done.store(true, Ordering::Relaxed);
    refresher.await.unwrap();
    let journeys: u64 = fans.join_all().await.into_iter().sum();
    let took = started.elapsed();

    let answered = tally.answered.load(Ordering::Relaxed);
    let codes = tally.codes.lock().unwrap().clone();
    println!("{answered} answers in {took:?}, {journeys} honest journeys\n{codes:#?}");
    let unanswered = tally.unanswered.load(Ordering::Relaxed);
    assert!(answered + unanswered >= 100_000, "{answered} answered, {unanswered} not");
    // A generator that is refused at the door has tried little.
    for code in [
        "200",
        "201",
        "204",
        "INVALID_FIELD",
        "MALFORMED_JSON",
        "INVALID_ID",
        "INVALID_HEADER",
        "DUPLICATE_HEADER",
        "TOKEN_INVALID",
        "PASS_MISSING",
        "PASS_INVALID",
        "TOKEN_SPENT",
        "TOKEN_EXPIRED",
        "TOKEN_NOT_ACTIVATED",
        "USER_MISMATCH",
        "WRONG_QUEUE",
        "RESERVATION_NOT_YOURS",
        "SEAT_TAKEN",
        "TOO_MANY_SEATS",
        "DUPLICATE_SEATS",
        "NO_SEATS",
        "SEATS_OR_BEST",
        "GRADE_NOT_FOUND",
        "SECTION_NOT_FOUND",
        "SEAT_NOT_FOUND",
        "SEAT_LIMIT_REACHED",
        "ALREADY_PAID",
        "HOLD_CANCELLED",
        "SESSION_CANCELLED",
        "PAYMENT_NOT_FOUND",
        "BODY_TOO_LARGE",
        "URI_TOO_LONG",
        "HEADERS_TOO_LARGE",
        "UNSUPPORTED_MEDIA_TYPE",
        "ROUTE_NOT_FOUND",
        "METHOD_NOT_ALLOWED",
        "IDEMPOTENCY_KEY_REUSED",
        "INVALID_AMOUNT",
        "POINTS_OVERFLOW",
        "ADMIN_TOKEN_INVALID",
        "INVALID_SETTING",
        "ALREADY_EXISTS",
        "REQUEST_TIMEOUT",
    ] {
        assert!(codes.contains_key(code), "{code} never came: the generator has grown dull");
    }

    // After all that: nothing hangs, the books are right, and whoever behaves is served.
    let text = String::from_utf8(service.send(get("/metrics")).await.body).unwrap();
    for line in text.lines().filter(|line| line.starts_with("http_server_requests_shed_total")) {
        assert!(line.ends_with(" 0"), "{line}");
    }
    service.audit().await;
    service
        .change_queue("main", json!({"admitPerSecond": 300, "maxActive": null, "opensAt": null}))
        .await;
    service.resume("main").await;
    service.send(join(5_000)).await.ok(201);
    // The crowd has bought the hall, and is inside still, the larger the longer it took: nobody is let in for whom
    // nothing would be left.
    let more = service.concert(200_000, 10).await;
    let token = service.admitted(5_001).await;
    let mut fan = service.client();
    service.charge(5_001, 100).await;
    let held = fan.send(more.reserve(&token, 5_001, &[1, 2])).await.ok(201);
    fan.send(pay(&token, 5_001, held["reservationId"].as_i64().unwrap())).await.ok(201);
    let service = service.restart(|_| ()).await;
    assert_eq!(service.send(status(&token)).await.ok(200)["status"], "EXPIRED");
    service.finish().await;

    assert_well(seed);
}
