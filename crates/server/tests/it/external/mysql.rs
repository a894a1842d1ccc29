//! The real program on MySQL: from an empty database to a sale, a kill, and a second instance.
//! `scripts/lib/with-mariadb` gives it a server.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::faults::WallClock;
use super::servers::Server as RedisServer;
use crate::api::challenges::solved;
use crate::program::{self, Client, Server, run, wait_until};
use mysql_async::prelude::Queryable;
use serde_json::json;
use tempfile::TempDir;

/// Makes an empty database; returns its URL, and sends statements to it.
struct Database {
    name: String,
    server: String,
}

impl Database {
    fn new(name: &str) -> Self {
        let server = std::env::var("BOXOFFICE_TEST_MYSQL")
            .expect("BOXOFFICE_TEST_MYSQL names no server; run scripts/test mysql");
        let name = format!("{name}_{}", std::process::id());
        let database = Self { name, server };
        database.send(&format!("CREATE DATABASE {}", database.name));
        database
    }

    fn url(&self) -> String {
        format!("{}/{}", self.server.trim_end_matches('/'), self.name)
    }

    fn send(&self, statement: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let opts = mysql_async::Opts::from_url(&self.server).unwrap();
            let mut conn = mysql_async::Conn::new(opts).await.unwrap();
            conn.query_drop(statement).await.unwrap();
            conn.disconnect().await.unwrap();
        });
    }

    /// The settings that a program needs to use it.
    fn settings(&self) -> [String; 4] {
        let url = format!("store.mysql.url={}", self.url());
        ["--set".into(), "store.kind=mysql".into(), "--set".into(), url]
    }
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    (directory, data)
}

fn with<'a>(settings: &'a [String], arguments: &[&'a str]) -> Vec<&'a str> {
    arguments.iter().copied().chain(settings.iter().map(String::as_str)).collect()
}

fn reserve(client: &mut Client, user: i64, seats: &[i64]) -> program::Answer {
    let token = format!("queue_token_{user}");
    let body = json!({ "userId": user, "seatIds": seats });
    let path = "/api/v1/concerts/1/sessions/1/reservations";
    client.send("POST", path, &[("QUEUE-TOKEN", &token)], Some(&body)).unwrap()
}

fn audit(data: &Path, settings: &[String]) {
    let report = run(data, &with(settings, &["audit"])).ok();
    assert!(report.contains("audit: clean"), "{report}");
}

#[test]
fn an_empty_database_is_enough_and_a_kill_loses_nothing() {
    let database = Database::new("sale");
    let settings = database.settings();
    let (_directory, data) = place();
    let said = run(&data, &with(&settings, &["migrate"])).ok();
    assert!(
        said.contains("created with schema version") && said.contains(&database.name),
        "{said}"
    );
    let said = run(&data, &with(&settings, &["migrate"])).ok();
    assert!(said.contains("nothing to do"), "{said}");
    audit(&data, &settings);

    let mut server = Server::start(&data, &with(&settings, &[]));
    run(&data, &with(&settings, &["token", "issue", "--count", "3", "--activated", "--guessable"]))
        .ok();
    let mut client = server.client();
    let ready = client.send("GET", "/health/ready", &[], None).unwrap().expect(200);
    assert_eq!(ready.json()["status"], "UP");
    let held = reserve(&mut client, 1, &[1, 2]).expect(201).json()["reservationId"].clone();
    reserve(&mut client, 2, &[2]).expect(409);
    let body = json!({ "userId": 1, "reservationId": held });
    let token = [("QUEUE-TOKEN", "queue_token_1")];
    client.send("POST", "/api/v1/payments", &token, Some(&body)).unwrap().expect(201);
    reserve(&mut client, 2, &[3]).expect(201);
    audit(&data, &settings);

    // Another data directory does not make a second one of it.
    let (_other, elsewhere) = place();
    let said = run(&elsewhere, &with(&settings, &["serve", "--listen", "127.0.0.1:0"]))
        .fails_with(&["another instance uses the database", "queue.kind"]);
    assert!(!said.contains("root@"), "{said}");
    let copy = elsewhere.join("copy");
    run(&data, &with(&settings, &["backup", copy.to_str().unwrap()]))
        .fails_with(&["mariadb-dump", "--single-transaction"]);

    server.kill();
    audit(&data, &settings);
    let server = Server::start(&data, &with(&settings, &[]));
    let mut client = server.client();
    reserve(&mut client, 3, &[1]).expect(409);
    reserve(&mut client, 3, &[3]).expect(409);
    reserve(&mut client, 3, &[4]).expect(201);
    server.stop();
    audit(&data, &settings);
}

#[test]
fn a_second_instance_with_other_rules_does_not_start() {
    let database = Database::new("rules");
    let redis = RedisServer::start();
    let nodes = format!("queue.redis.nodes=127.0.0.1:{}", redis.port);
    let mut settings = database.settings().to_vec();
    settings.extend(["--set", "queue.kind=redis", "--set", &nodes].map(String::from));
    let (_directory, data) = place();
    let (_elsewhere, other) = place();
    let first = Server::start(&data, &with(&settings, &[]));
    let secret = "ticket.previous_signing_keys=[\"a secret that nobody is ever to read\"]";
    let differing = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--set",
        "sales.hold_seconds=60",
        "--set",
        "sales.max_seats_per_user=9",
        "--set",
        secret,
    ];
    let said = run(&other, &with(&settings, &differing)).fails_with(&[
        "another instance runs with other rules",
        "sales.hold_seconds is 300 there and 60 here",
        "sales.max_seats_per_user is 4 there and 9 here",
        "stop all instances",
    ]);
    assert!(!said.contains("a secret"), "{said}");
    // What is an instance's own may differ.
    let second = Server::start(&other, &with(&settings, &["--set", "server.max_connections=99"]));
    let mut client = second.client();
    client.send("GET", "/health/ready", &[], None).unwrap().expect(200);
    second.stop();
    // Where all have ended, one may start with other rules, whatever the last one was told to do.
    first.stop();
    let mut first = Server::start(&data, &with(&settings, &differing[3..]));
    // One that was killed counts for 5 s, and then no longer.
    first.kill();
    run(&other, &with(&settings, &["serve", "--listen", "127.0.0.1:0"]))
        .fails_with(&["sales.hold_seconds is 60 there and 300 here"]);
    std::thread::sleep(Duration::from_secs(6));
    Server::start(&other, &with(&settings, &[])).stop();
    audit(&data, &settings);
}

/// A challenge of one instance is solved for a join at another, and good once at both.
#[test]
fn a_challenge_of_one_instance_is_good_at_another_and_once() {
    let database = Database::new("door");
    let redis = RedisServer::start();
    let nodes = format!("queue.redis.nodes=127.0.0.1:{}", redis.port);
    let mut settings = database.settings().to_vec();
    let shared = ["queue.kind=redis", &nodes, "challenge.mode=on", "challenge.maxnumber_min=50"];
    settings.extend(shared.into_iter().flat_map(|it| ["--set".to_owned(), it.to_owned()]));
    let (_directory, data) = place();
    let (_elsewhere, other) = place();
    let servers = [&data, &other].map(|data| Server::start(data, &with(&settings, &[])));
    let mut clients = servers.each_ref().map(Server::client);
    let mut refused = 0;
    for round in 0..10 {
        let (one, two) = (round % 2, (round + 1) % 2);
        let challenge = "/api/v1/waiting-queues/main/challenge";
        let made = clients[one].send("GET", challenge, &[], None).unwrap().expect(200).json();
        let body = json!({ "userId": 1, "altcha": solved(&made) });
        let key = format!("round-{round}");
        let mut join = |at: usize, key: Option<&str>| {
            let headers: Vec<(&str, &str)> =
                key.map(|key| ("Idempotency-Key", key)).into_iter().collect();
            clients[at].send("POST", "/api/v1/waiting-queues", &headers, Some(&body)).unwrap()
        };
        let joined = join(two, Some(&key)).expect(201).json();
        for at in [one, two] {
            assert_eq!(join(at, Some(&key)).expect(200).json()["token"], joined["token"]);
            refused += usize::from(join(at, None).code() == "CHALLENGE_USED");
            refused += usize::from(join(at, Some("another")).code() == "CHALLENGE_USED");
        }
    }
    assert_eq!(refused, 40);
    for server in servers {
        server.stop();
    }
    audit(&data, &settings);
}

/// Whoever listens at one instance learns what another has sold, and asks with versions of their own.
#[test]
fn a_stream_tells_what_another_instance_has_sold() {
    let database = Database::new("streams");
    let redis = RedisServer::start();
    let nodes = format!("queue.redis.nodes=127.0.0.1:{}", redis.port);
    let mut settings = database.settings().to_vec();
    settings.extend(["--set", "queue.kind=redis", "--set", &nodes].map(String::from));
    let (_directory, data) = place();
    let (_elsewhere, other) = place();
    let one = Server::start(&data, &with(&settings, &[]));
    run(&data, &with(&settings, &["token", "issue", "--count", "3", "--activated", "--guessable"]))
        .ok();
    let two = Server::start(&other, &with(&settings, &[]));
    let (mut here, mut there) = (one.client(), two.client());
    let seats = "/api/v1/concerts/1/sessions/1/seats";
    let token = [("QUEUE-TOKEN", "queue_token_3")];
    let mut stream = std::net::TcpStream::connect(two.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head =
        format!("GET {seats}/stream HTTP/1.1\r\nHost: x\r\nQUEUE-TOKEN: queue_token_3\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut told = String::new();
    let mut hears = |what: &str| {
        let mut chunk = [0; 4_096];
        while !told.contains(what) {
            let count = stream.read(&mut chunk).unwrap();
            assert!(count > 0, "{what} was not told: {told}");
            told.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
        Instant::now()
    };
    hears("\"count\":2000");
    let begun = Instant::now();
    reserve(&mut here, 1, &[1, 2]).expect(201);
    // Nobody asks this instance for anything else.
    let took = hears("\"held\":[1,2]") - begun;
    assert!(took < Duration::from_secs(3), "{took:?}");
    std::thread::sleep(Duration::from_secs(2));
    reserve(&mut here, 2, &[7]).expect(201);
    hears("\"held\":[7]");
    // A version of one is none of the other's.
    let since = |client: &mut Client, version: &str| {
        let path = format!("{seats}?since={version}");
        client.send("GET", &path, &token, None).unwrap().expect(200).json()
    };
    let version = since(&mut there, "0")["version"].as_str().unwrap().to_owned();
    assert_eq!(since(&mut there, &version)["count"], json!(null));
    assert_eq!(since(&mut here, &version)["count"], 2000);
    two.stop();
    one.stop();
    audit(&data, &settings);
}

/// What one instance sells ends the line at the other, and why a ticket is over is the same at both.
#[test]
fn what_is_sold_at_one_instance_ends_the_line_at_the_other() {
    let database = Database::new("line_and_sale");
    let redis = RedisServer::start();
    let nodes = format!("queue.redis.nodes=127.0.0.1:{}", redis.port);
    let mut settings = database.settings().to_vec();
    settings.extend(["--set", "queue.kind=redis", "--set", &nodes].map(String::from));
    settings.extend(["--set", "demo.seed=false"].map(String::from));
    let (_directory, data) = place();
    let (_elsewhere, other) = place();
    let (one, two) = (Server::start(&data, &with(&settings, &[])), {
        let token = std::fs::read_to_string(data.join("admin.token")).unwrap();
        std::fs::create_dir_all(&other).unwrap();
        std::fs::write(other.join("admin.token"), token).unwrap();
        Server::start(&other, &with(&settings, &[]))
    });
    let token = std::fs::read_to_string(data.join("admin.token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let (mut here, mut there) = (one.client(), two.client());
    let mut admin = |path: &str, body: serde_json::Value| {
        let headers = [("Authorization", bearer.as_str())];
        here.send("POST", path, &headers, Some(&body)).unwrap().expect(201).json()
    };
    let concert = json!({
        "name": "A", "venue": "B",
        "reservationOpensAt": "2001-01-01T00:00:00Z", "reservationClosesAt": "2099-01-01T00:00:00Z",
    });
    let concert = admin("/admin/v1/concerts", concert)["concertId"].as_i64().unwrap();
    let session = json!({"concertAt": "2099-01-01T00:00:00Z", "seatCount": 2, "price": 0});
    let session = admin(&format!("/admin/v1/concerts/{concert}/sessions"), session);
    let seat = session["firstSeatId"].as_i64().unwrap();
    let seats =
        format!("/api/v1/concerts/{concert}/sessions/{}/reservations", session["sessionId"]);
    let queues = "/api/v1/waiting-queues";
    for client in [&mut here, &mut there] {
        wait_until("the instance to know of the seats", || {
            let metrics = client.send("GET", "/metrics", &[], None).unwrap().expect(200);
            metrics.body.contains("boxoffice_queue_stock{queue=\"main\"} 2")
        });
    }
    let joined = |client: &mut Client, user: i64| {
        let joined = client.send("POST", queues, &[], Some(&json!({"userId": user}))).unwrap();
        joined.expect(201).json()["token"].as_str().unwrap().to_owned()
    };
    let poll = |client: &mut Client, token: &str| {
        client.send("GET", queues, &[("QUEUE-TOKEN", token)], None).unwrap().expect(200).json()
    };
    let (buyer, leaving) = (joined(&mut here, 1), joined(&mut here, 2));
    for token in [&buyer, &leaving] {
        wait_until("admission", || poll(&mut here, token)["status"] == "ACTIVATED");
    }
    let line: Vec<String> = (10..20).map(|user| joined(&mut there, user)).collect();
    let token = [("QUEUE-TOKEN", buyer.as_str())];
    let held = json!({"userId": 1, "seatIds": [seat, seat + 1]});
    let held = here.send("POST", &seats, &token, Some(&held)).unwrap().expect(201).json();
    let paid = json!({"userId": 1, "reservationId": held["reservationId"]});
    here.send("POST", "/api/v1/payments", &token, Some(&paid)).unwrap().expect(201);
    let sold = Instant::now();
    wait_until("the end of the line", || poll(&mut there, &line[9])["reason"] == "SOLD_OUT");
    assert!(sold.elapsed() < Duration::from_secs(3), "{:?}", sold.elapsed());
    // Not before: somebody would be let in in their place, until it shows that nothing is left.
    here.send("DELETE", queues, &[("QUEUE-TOKEN", &leaving)], None).unwrap().expect(204);
    for client in [&mut here, &mut there] {
        // Each looks at what is sold in a tick of its own.
        wait_until("the end of the line", || poll(client, &line[9])["reason"] == "SOLD_OUT");
        // Who has paid and left is told as news of their own.
        wait_until("who has paid", || poll(client, &buyer)["reason"] == "PAID");
        wait_until("who has left", || poll(client, &leaving)["reason"] == "LEFT");
        let refused = client.send("POST", queues, &[], Some(&json!({"userId": 30}))).unwrap();
        assert_eq!(refused.expect(409).code(), "QUEUE_SOLD_OUT");
        for token in &line {
            let place = poll(client, token);
            assert_eq!(
                (&place["status"], &place["reason"]),
                (&json!("EXPIRED"), &json!("SOLD_OUT"))
            );
        }
    }
    // So say the public documents.
    let document = |client: &mut Client| {
        let path = format!("/api/v1/concerts/{concert}");
        client.send("GET", &path, &[], None).unwrap().expect(200).json()
    };
    for client in [&mut here, &mut there] {
        wait_until("the document", || document(client)["state"] == "SOLD_OUT");
        assert_eq!(document(client)["sessions"][0]["availableSeatCount"], 0);
    }
    // Both know the same after a restart.
    two.stop();
    one.stop();
    let again = Server::start(&data, &with(&settings, &[]));
    let mut client = again.client();
    assert_eq!(poll(&mut client, &buyer)["reason"], "PAID");
    assert_eq!(poll(&mut client, &leaving)["reason"], "LEFT");
    assert_eq!(poll(&mut client, &line[0])["reason"], "SOLD_OUT");
    again.stop();
    audit(&data, &settings);
}

/// The other half of a restore of MySQL is its own `mariadb-dump`.
#[test]
fn a_restored_database_takes_no_tickets_of_after_the_dump() {
    let database = Database::new("restored");
    let redis = RedisServer::start();
    let nodes = format!("queue.redis.nodes=127.0.0.1:{}", redis.port);
    let mut settings = database.settings().to_vec();
    settings.extend(["--set", "queue.kind=redis", "--set", &nodes].map(String::from));
    let (directory, data) = place();
    let server = Server::start(&data, &with(&settings, &[]));
    run(&data, &["queue", "pause"]).ok();
    let join = |client: &mut Client, user: i64| {
        let body = json!({ "userId": user });
        let joined = client.send("POST", "/api/v1/waiting-queues", &[], Some(&body)).unwrap();
        joined.expect(201).json()["token"].as_str().unwrap().to_owned()
    };
    let ask = |client: &mut Client, method: &str, token: &str| {
        client.send(method, "/api/v1/waiting-queues", &[("QUEUE-TOKEN", token)], None).unwrap()
    };
    let mut client = server.client();
    let before: Vec<String> = (1..=5).map(|user| join(&mut client, user)).collect();
    let dump = directory.path().join("dump.sql");
    let (_, port) = database.server.trim_end_matches('/').rsplit_once(':').unwrap();
    let tool = |name: &str| {
        let mut command = std::process::Command::new(name);
        command.args(["--no-defaults", "--host=127.0.0.1", "--user=root", "--port", port]);
        command
    };
    let mut dumping = tool("mariadb-dump");
    dumping.args(["--single-transaction", "--routines=false", &database.name]);
    let out = dumping.stdout(std::fs::File::create(&dump).unwrap()).status().unwrap();
    assert!(out.success());
    run(&data, &with(&settings, &["restore", "--finish"])).fails_with(&["1 instances run"]);
    run(&data, &with(&settings, &["restore", dump.to_str().unwrap()]))
        .fails_with(&["MySQL", "--finish"]);
    let stale: Vec<String> = (1_000..1_600).map(|user| join(&mut client, user)).collect();
    server.stop();

    database.send(&format!("DROP DATABASE {}", database.name));
    database.send(&format!("CREATE DATABASE {}", database.name));
    let reading =
        tool("mariadb").arg(&database.name).stdin(std::fs::File::open(&dump).unwrap()).status();
    assert!(reading.unwrap().success());
    let said = run(&data, &with(&settings, &["restore", "--finish"])).ok();
    assert!(said.contains("given after the backup are refused"), "{said}");
    // Redis has numbers that the store has not granted any more.
    run(&data, &with(&settings, &["serve", "--listen", "127.0.0.1:0"]))
        .fails_with(&["queue.redis.prefix"]);
    settings.extend(["--set", "queue.redis.prefix=restored"].map(String::from));
    let server = Server::start(&data, &with(&settings, &[]));
    let mut client = server.client();
    let fans: Vec<String> = (2_000..2_600).map(|user| join(&mut client, user)).collect();
    let numbers: Vec<u64> = fans.iter().filter_map(|token| program::seq_of(token)).collect();
    let mut refused = 0;
    for token in &stale {
        let answer = ask(&mut client, "GET", token);
        if answer.status == 401 {
            assert_eq!(answer.code(), "TOKEN_OUTDATED");
            assert_eq!(ask(&mut client, "DELETE", token).code(), "TOKEN_OUTDATED");
            refused += 1;
        } else {
            // It is of a block that the dump knew of, and nobody gets its numbers again.
            assert!(!numbers.contains(&program::seq_of(token).unwrap()), "{answer:?}");
        }
    }
    assert!(refused > 0);
    for token in before.iter().chain(&fans) {
        let told = ask(&mut client, "GET", token).expect(200).json();
        assert_eq!(told["status"], "WAITING", "{told}");
    }
    server.stop();
    audit(&data, &settings);
}

/// An instance whose clock is ten minutes off, beside one whose clock is right.
fn a_wrong_clock_beside_a_right_one(ahead: i64) {
    let database = Database::new(if ahead > 0 { "ahead" } else { "behind" });
    let redis = RedisServer::start();
    let nodes = format!("queue.redis.nodes=127.0.0.1:{}", redis.port);
    let mut settings = database.settings().to_vec();
    let shared = ["--set", "queue.kind=redis", "--set", &nodes, "--set", "sales.hold_seconds=60"];
    settings.extend(shared.map(String::from));
    let (_directory, data) = place();
    let (elsewhere, other) = place();
    let right = Server::start(&data, &with(&settings, &[]));
    let tokens = ["token", "issue", "--count", "9", "--activated", "--guessable"];
    run(&data, &with(&settings, &tokens)).ok();
    let mut client = right.client();
    let held = reserve(&mut client, 1, &[1]).expect(201).json()["reservationId"].clone();

    let clock = WallClock::new(elsewhere.path());
    clock.set(ahead);
    let wrong = Server::start_by(clock.command(elsewhere.path()), &other, &with(&settings, &[]));
    let mut at_wrong = wrong.client();
    let ready = at_wrong.send("GET", "/health/ready", &[], None).unwrap().expect(503);
    assert!(ready.body.contains("clock"), "{}", ready.body);
    // Another's live hold, a free seat, and whatever else goes by time.
    for seat in [1, 2] {
        let answer = reserve(&mut at_wrong, 2, &[seat]);
        assert!([409, 503].contains(&answer.status), "{answer:?}");
    }
    let token = [("QUEUE-TOKEN", "queue_token_1")];
    let body = json!({ "userId": 1, "reservationId": held });
    at_wrong.send("POST", "/api/v1/payments", &token, Some(&body)).unwrap().expect(503);
    let charge = json!({ "amount": 5 });
    at_wrong
        .send("PATCH", "/api/v1/users/3/points/charge", &[], Some(&charge))
        .unwrap()
        .expect(503);
    let own = format!("/api/v1/reservations/{held}");
    at_wrong.send("DELETE", &own, &token, None).unwrap().expect(503);
    let more = ["token", "issue", "--activated", "--guessable", "--first", "99"];
    run(&other, &with(&settings, &more)).fails_with(&["503"]);
    // It does not even say so.
    let shown = at_wrong.send("GET", &own, &token, None).unwrap().expect(200).json();
    assert_eq!(shown["status"], "HELD", "{shown}");
    let seats = "/api/v1/concerts/1/sessions/1/seats";
    let seats = at_wrong.send("GET", seats, &token, None).unwrap().expect(200).json();
    let free: Vec<i64> = seats["availableSeats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|seat| seat["seatId"].as_i64().unwrap())
        .collect();
    assert!(!free.contains(&1) && free.contains(&2), "{free:?}");
    // Its sweeps come twice a second.
    std::thread::sleep(Duration::from_secs(3));
    let shown = client.send("GET", &own, &token, None).unwrap().expect(200).json();
    assert_eq!(shown["status"], "HELD", "{shown}");
    reserve(&mut client, 2, &[1]).expect(409);
    wrong.stop();

    // Nor has it left its time behind, for those who start later or who are there.
    let (_late, third) = place();
    let late = Server::start(&third, &with(&settings, &[]));
    let mut at_late = late.client();
    at_late.send("GET", "/health/ready", &[], None).unwrap().expect(200);
    reserve(&mut at_late, 3, &[1]).expect(409);
    reserve(&mut at_late, 3, &[3]).expect(201);
    at_late.send("POST", "/api/v1/payments", &token, Some(&body)).unwrap().expect(201);
    late.stop();
    right.stop();
    audit(&data, &settings);
}

#[test]
fn an_instance_ten_minutes_ahead_sells_nothing_and_spreads_no_time() {
    a_wrong_clock_beside_a_right_one(600);
}

#[test]
fn an_instance_ten_minutes_behind_sells_nothing_and_spreads_no_time() {
    a_wrong_clock_beside_a_right_one(-600);
}

/// It makes the tables and the demo data, and ends; its clock must not be in what it leaves.
#[test]
fn a_first_instance_with_a_wrong_clock_leaves_a_store_that_can_be_used() {
    for (name, ahead) in [("first_ahead", 600), ("first_behind", -600)] {
        let database = Database::new(name);
        let settings = database.settings();
        let (directory, data) = place();
        let clock = WallClock::new(directory.path());
        clock.set(ahead);
        let wrong = Server::start_by(clock.command(directory.path()), &data, &with(&settings, &[]));
        wrong.client().send("GET", "/health/ready", &[], None).unwrap().expect(503);
        std::thread::sleep(Duration::from_secs(1));
        wrong.stop();
        let right = Server::start(&data, &with(&settings, &[]));
        let tokens = ["token", "issue", "--activated", "--guessable"];
        run(&data, &with(&settings, &tokens)).ok();
        reserve(&mut right.client(), 1, &[1]).expect(201);
        right.stop();
        audit(&data, &settings);
    }
}

#[test]
fn purchases_are_refused_fast_while_the_database_is_away() {
    let database = Database::new("away");
    let settings = database.settings();
    let (_directory, data) = place();
    let server = Server::start(&data, &with(&settings, &[]));
    run(&data, &with(&settings, &["token", "issue", "--count", "2", "--activated", "--guessable"]))
        .ok();
    let mut client = server.client();
    reserve(&mut client, 1, &[1]).expect(201);
    // To the program it is as good as gone.
    database.send(&format!("RENAME TABLE {0}.seat TO {0}.hidden", database.name));
    let began = Instant::now();
    let answer = reserve(&mut client, 2, &[2]).expect(503);
    assert!(answer.header("Retry-After").is_some(), "{}", answer.head);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    wait_until("it is not ready", || {
        client.send("GET", "/health/ready", &[], None).unwrap().status == 503
    });
    // What is in memory goes on.
    let body = json!({ "userId": 77 });
    client.send("POST", "/api/v1/waiting-queues", &[], Some(&body)).unwrap().expect(201);
    let token = [("QUEUE-TOKEN", "queue_token_1")];
    client.send("GET", "/api/v1/waiting-queues", &token, None).unwrap().expect(200);
    database.send(&format!("RENAME TABLE {0}.hidden TO {0}.seat", database.name));
    wait_until("it is ready", || {
        client.send("GET", "/health/ready", &[], None).unwrap().status == 200
    });
    reserve(&mut client, 2, &[2]).expect(201);
    server.stop();
    audit(&data, &settings);
}

#[test]
fn a_worker_of_the_store_that_panics_ends_the_service_with_an_error() {
    for worker in ["seat refresher", "store lock"] {
        let database = Database::new(&worker.replace(' ', "_"));
        let settings = database.settings();
        let (directory, data) = place();
        let mut command = program::command(directory.path());
        command.env("BOXOFFICE_TEST_PANIC", worker);
        let mut server = Server::start_by(command, &data, &with(&settings, &[]));
        let ended = server.wait();
        assert_eq!(ended.code, Some(1), "{}", ended.err);
        assert!(ended.err.contains(&format!("\"worker\":\"{worker}\"")), "{}", ended.err);
        // The lock is free for the next start.
        Server::start(&data, &with(&settings, &[])).stop();
        audit(&data, &settings);
    }
}
