//! The command line of the real program: what it says, what it refuses, and with which exit code.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::program::{self, Client, Ended, Server, command, finish, run, wait_until};
use boxoffice_backends::store::{self, Digest, DrawSeed, SqliteStore};
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::Drawn;
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nobody listens here; only a privileged program could.
const NOWHERE: [&str; 2] = ["--set", "server.listen=127.0.0.1:1"];

/// A place for a data directory, which is not made yet.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    (directory, data)
}

/// A data directory with the demo data and a sale in it, at rest.
fn sold() -> (TempDir, PathBuf) {
    let (directory, data) = place();
    let server = Server::start(&data, &[]);
    run(&data, &["token", "issue", "--count", "2", "--activated", "--guessable"]).ok();
    let mut client = server.client();
    let reservation = reserve(&mut client, 1, &[1, 2]);
    let token = [("QUEUE-TOKEN", "queue_token_1")];
    let body = json!({ "userId": 1, "reservationId": reservation });
    client.send("POST", "/api/v1/payments", &token, Some(&body)).unwrap().expect(201);
    reserve(&mut client, 2, &[3]);
    charge(&mut client, 3, 7).expect(200);
    server.stop();
    (directory, data)
}

fn reserve(client: &mut Client, user: i64, seats: &[i64]) -> i64 {
    let token = format!("queue_token_{user}");
    let body = json!({ "userId": user, "seatIds": seats });
    let path = "/api/v1/concerts/1/sessions/1/reservations";
    let answer = client.send("POST", path, &[("QUEUE-TOKEN", &token)], Some(&body)).unwrap();
    answer.expect(201).json()["reservationId"].as_i64().unwrap()
}

fn charge(client: &mut Client, user: i64, amount: i64) -> program::Answer {
    let path = format!("/api/v1/users/{user}/points/charge");
    client.send("PATCH", &path, &[], Some(&json!({ "amount": amount }))).unwrap()
}

fn sql(data: &Path, statements: &str) {
    let connection = Connection::open(SqliteStore::file(data)).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection.execute_batch(statements).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Runs the program with variables of its own.
fn run_with(data: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = command(data.parent().unwrap());
    command.args(arguments).arg("--data-dir").arg(data);
    command.envs(variables.iter().copied());
    finish(command)
}

/// Tries to serve where that must fail.
fn serve(data: &Path, arguments: &[&str]) -> Ended {
    run(data, &[&["serve", "--listen", "127.0.0.1:0"], arguments].concat())
}

// ---- Help and settings.

#[test]
fn every_command_explains_itself() {
    let (directory, _data) = place();
    let help = |arguments: &[&str]| {
        let mut command = command(directory.path());
        command.args(arguments).arg("--help");
        finish(command).ok()
    };
    for (arguments, texts) in [
        (&[][..], &["serve", "token", "audit", "migrate", "config", "backup", "Examples:"][..]),
        (
            &["serve"],
            &["--listen", "sets server.listen", "127.0.0.1:8080", "sets data_dir", "--no-demo"],
        ),
        (&["token"], &["issue"]),
        (
            &["token", "issue"],
            &["--count", "--format", "queue_token_{n}", "--activated", "--guessable", "--user"],
        ),
        (&["queue"], &["list", "pause", "resume", "set"]),
        (&["log"], &["export"]),
        (&["log", "export"], &["--queue", "--from", "must not exist"]),
        (&["verify"], &["--ticket", "--keys", "--head", "docs/proof.md"]),
        (&["queue", "list"], &["Show all queues"]),
        (&["queue", "pause"], &["Stop admission", "default: the configured one"]),
        (&["queue", "resume"], &["admission"]),
        (&["queue", "set"], &["--admit-per-second", "--max-active", "--opens-at"]),
        (&["operator"], &["add", "list", "remove"]),
        (&["operator", "add"], &["--name", "--role", "cashier", "this once"]),
        (&["keys"], &["list", "rotate"]),
        (&["keys", "rotate"], &["--in", "default: 120", "--withdraw", "stolen"]),
        (&["audit"], &["invariants", "--json"]),
        (&["migrate"], &["schema version"]),
        (&["consume"], &["--brokers", "events.kafka.brokers"]),
        (&["config"], &["check", "show", "keys"]),
        (&["config", "check"], &["what is wrong"]),
        (&["config", "show"], &["secrets"]),
        (&["backup"], &["must not exist"]),
        (&["restore"], &["new data directory", "--finish", "MySQL"]),
    ] {
        let text = help(arguments);
        for part in texts.iter().chain(&["Usage: boxoffice", "--config", "--data-dir", "--set"]) {
            assert!(
                text.contains(part),
                "{part:?} is missing in the help of {arguments:?}: {text}"
            );
        }
        // A line that a placeholder broke in two would begin with what stood behind it.
        for line in text.lines() {
            assert!(!line.starts_with('\''), "{arguments:?}: {text}");
            assert!(!line.trim_start().starts_with("becomes"), "{arguments:?}: {text}");
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
    let mut nonsense = command(directory.path());
    nonsense.arg("nonsense");
    let ended = finish(nonsense);
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("nonsense") && ended.err.contains("--help"), "{}", ended.err);
    let mut version = command(directory.path());
    version.arg("--version");
    assert!(finish(version).ok().starts_with("boxoffice "));
}

#[test]
fn what_is_not_a_setting_is_named_with_its_origin() {
    let (directory, data) = place();
    fs::write(directory.path().join("boxoffice.toml"), "[server]\nlissten = '1'\n").unwrap();
    for arguments in [&["config", "check"][..], &["config", "show"], &["serve"], &["audit"]] {
        let arguments = [arguments, &["--set", "queue.rate=1"]].concat();
        run_with(&data, &[("BOXOFFICE_SERVR__LISTEN", "x")], &arguments).fails_with(&[
            "3 problems",
            "server.lissten: there is no such key; did you mean server.listen? (from file ",
            "servr.listen: there is no such key; did you mean server.listen, BOXOFFICE_SERVER__LISTEN? (from",
            "queue.rate: there is no such key (from flag --set queue.rate)",
        ]);
    }
    assert!(!data.exists(), "settings that are wrong have no effect");
    // What there is can be looked up then.
    let keys = run_with(&data, &[("BOXOFFICE_SERVR__LISTEN", "x")], &["config", "keys"]).ok();
    for part in [
        "server.listen: address:port [default: 127.0.0.1:8080]\n    Address and port to listen on;",
        "store.kind: sqlite, mysql [default: sqlite]",
        "sqlite: A SQLite file",
        "sales.hold_seconds: 1 to 86400 s [default: 300]",
        "[ticket]",
        "ticket.signing_key: text, secret [default: none]",
    ] {
        assert!(keys.contains(part), "{part:?} is missing: {keys}");
    }
}

#[test]
fn settings_are_checked_and_shown_without_secrets() {
    let (directory, data) = place();
    let (key, token) = ("k".repeat(40), "t".repeat(20));
    fs::write(
        directory.path().join("boxoffice.toml"),
        format!("[admin]\ntoken = '{token}'\n[queue]\nadmit_per_second = 7\n"),
    )
    .unwrap();
    let variables = [("BOXOFFICE_TICKET__SIGNING_KEY", key.as_str())];
    let shown = run_with(&data, &variables, &["config", "show"]).ok();
    for part in
        ["admit_per_second = 7.0  # from file", "BOXOFFICE_TICKET__SIGNING_KEY", "<redacted>"]
    {
        assert!(shown.contains(part), "{part:?} is missing: {shown}");
    }
    assert!(!shown.contains(&key) && !shown.contains(&token), "{shown}");
    assert!(run_with(&data, &variables, &["config", "check"]).ok().contains("valid"));
    // What is shown can be used as a file, but for the secrets.
    assert!(shown.replace("\"<redacted>\"", "\"\"").parse::<toml::Table>().is_ok(), "{shown}");
    let short = [("BOXOFFICE_TICKET__SIGNING_KEY", "short-secret")];
    let said = run_with(&data, &short, &["config", "check"]).fails_with(&[
        "ticket.signing_key",
        "32 bytes",
        "BOXOFFICE_TICKET__SIGNING_KEY",
    ]);
    assert!(!said.contains("short-secret"), "{said}");
    assert!(!data.exists(), "to look at settings makes no data directory");
}

// ---- Tokens.

#[test]
fn tokens_are_issued_by_the_thousand() {
    let (_directory, data) = place();
    let server = Server::start(&data, &[]);
    let said =
        run(&data, &["token", "issue", "--count", "25000", "--activated", "--guessable"]).ok();
    assert!(said.contains("issued 25000 tokens, queue_token_1 to queue_token_25000"), "{said}");
    assert!(said.contains("active until 2"), "{said}");
    let mut client = server.client();
    let mut place = |token: &str| {
        let headers = [("QUEUE-TOKEN", token)];
        client.send("GET", "/api/v1/waiting-queues", &headers, None).unwrap()
    };
    for number in [1, 10_000, 10_001, 24_999, 25_000] {
        let body = place(&format!("queue_token_{number}")).expect(200).json();
        assert_eq!((&body["status"], &body["userId"]), (&json!("ACTIVATED"), &json!(number)));
    }
    place("queue_token_25001").expect(401);

    let issue = |arguments: &[&str]| run(&data, &[&["token", "issue"], arguments].concat());
    issue(&["--count", "10"]).fails_with(&["queue_token_1 exists", "nothing was issued", "409"]);
    // A part that was issued before the refusal is told.
    let first = ["--count", "12000", "--first", "14001", "--activated", "--guessable"];
    issue(&first).fails_with(&["queue_token_14001 exists", "nothing was issued"]);
    let format = ["--format", "part_{n}"];
    issue(&[&format[..], &["--first", "10500"]].concat()).ok();
    issue(&[&format[..], &["--count", "11000"]].concat())
        .fails_with(&["part_10500 exists", "the first 10000 were issued"]);

    let said = issue(&[
        "--format",
        "vip",
        "--user",
        "7",
        "--active-for",
        "60",
        "--activated",
        "--guessable",
    ])
    .ok();
    assert!(said.contains("issued 1 tokens, vip to vip"), "{said}");
    assert_eq!(place("vip").expect(200).json()["userId"], 7);
    let said = issue(&["--format", "late_{n}", "--count", "3"]).ok();
    assert!(said.contains("waiting in the line"), "{said}");
    place("late_3").expect(200);
    issue(&["--count", "2", "--format", "same"]).fails_with(&["{n}"]);
    issue(&["--queue", "nowhere"]).fails_with(&["QUEUE_NOT_FOUND"]);
    issue(&["--format", "open_{n}", "--activated"]).fails_with(&["{r}", "--guessable"]);
    let said = issue(&["--format", "press_{n}_{r}", "--count", "3", "--activated"]).ok();
    let tokens: Vec<&str> = said.lines().collect();
    assert!(tokens.len() == 3 && tokens.iter().all(|token| token.len() == 8 + 32), "{said}");
    place(tokens[2]).expect(200);
    assert_eq!(issue(&["--count", "0"]).code, Some(2));
    run(&data, &["audit"]).ok();
    server.stop();
}

#[test]
fn commands_for_a_service_say_what_they_miss() {
    let (_directory, data) = place();
    let issue = [&["token", "issue"][..], &NOWHERE].concat();
    let list = [&["queue", "list"][..], &NOWHERE].concat();
    for arguments in [&issue, &list] {
        run(&data, arguments).fails_with(&["admin token", "--data-dir", "BOXOFFICE_ADMIN__TOKEN"]);
        let token = [("BOXOFFICE_ADMIN__TOKEN", "a-token-of-an-operator")];
        run_with(&data, &token, arguments)
            .fails_with(&["cannot reach the service at http://127.0.0.1:1", "boxoffice serve"]);
    }
    assert!(!data.exists());

    let mut server = Server::start(&data, &[]);
    let wrong = [("BOXOFFICE_ADMIN__TOKEN", "not-the-token-of-this-one")];
    let said = run_with(&data, &wrong, &issue).fails_with(&["401", "ADMIN_TOKEN_INVALID"]);
    assert!(!said.contains("not-the-token"), "{said}");
    run(&data, &issue).ok();
    server.kill();
    // The note of the address outlives a kill.
    run(&data, &issue).fails_with(&["cannot reach the service", "boxoffice serve"]);
    Server::start(&data, &[]).stop();
    run(&data, &issue).fails_with(&["cannot reach the service at http://127.0.0.1:1"]);
}

#[test]
fn the_generated_admin_token_is_for_its_owner_only() {
    let (_directory, data) = place();
    let server = Server::start(&data, &[]);
    let token = server.admin_token();
    assert_eq!(mode(&data.join("admin.token")), 0o600);
    assert_eq!(mode(&data), 0o700);
    assert!(token.len() >= 32, "{token}");
    let log = server.stop();
    assert!(!log.contains(&token), "{log}");
    let server = Server::start(&data, &[]);
    assert_eq!(server.admin_token(), token, "a restart keeps it");
    server.stop();
    fs::write(data.join("admin.token"), "short").unwrap();
    serve(&data, &[]).fails_with(&["admin.token", "too short", "delete the file"]);
}

// ---- Queues.

#[test]
fn queues_are_listed_paused_resumed_and_set() {
    let (_directory, data) = place();
    let server = Server::start(&data, &["--set", "queue.admit_per_second=50"]);
    let queue = |arguments: &[&str]| -> Value {
        let said = run(&data, &[&["queue"], arguments].concat()).ok();
        serde_json::from_str(&said).unwrap()
    };
    let join = |user: i64| -> String {
        let body = json!({ "userId": user });
        let mut client = server.client();
        let answer = client.send("POST", "/api/v1/waiting-queues", &[], Some(&body)).unwrap();
        answer.expect(201).json()["token"].as_str().unwrap().to_owned()
    };
    let status = |token: &str| -> String {
        let headers = [("QUEUE-TOKEN", token)];
        let mut client = server.client();
        let answer = client.send("GET", "/api/v1/waiting-queues", &headers, None).unwrap();
        answer.expect(200).json()["status"].as_str().unwrap().to_owned()
    };
    let listed = queue(&["list"]);
    assert_eq!(listed["queues"][0]["queue"], "main");
    assert_eq!(listed["queues"][0]["admitPerSecond"], 50.0);

    assert_eq!(queue(&["pause"])["state"], "PAUSED");
    let token = join(1);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(status(&token), "WAITING");
    assert_eq!(queue(&["resume", "main"])["state"], "OPEN");
    wait_until("the paused one is let in", || status(&token) == "ACTIVATED");

    let set = queue(&["set", "--admit-per-second", "12.5", "--max-active", "9"]);
    assert_eq!((&set["admitPerSecond"], &set["maxActive"]), (&json!(12.5), &json!(9)));
    assert_eq!(queue(&["set", "--max-active", "0"])["maxActive"], Value::Null);
    let set = queue(&["set", "--opens-at", "2099-01-01T00:00:00+09:00"]);
    assert_eq!(set["state"], "SCHEDULED");
    assert_eq!(set["opensAt"], "2098-12-31T15:00:00.000Z");
    assert_eq!(queue(&["set", "--opens-at", "now"])["state"], "OPEN");

    run(&data, &["queue", "set"]).fails_with(&["nothing to set", "--admit-per-second"]);
    run(&data, &["queue", "pause", "vip"]).fails_with(&["QUEUE_NOT_FOUND"]);
    run(&data, &["queue", "set", "--admit-per-second", "0"]).fails_with(&["admitPerSecond"]);
    run(&data, &["queue", "set", "--opens-at", "soon"]).fails_with(&["opensAt", "offset"]);
    queue(&["pause"]);
    server.stop();

    // What an operator set outlives a restart; the configuration does not undo it, and says so.
    let server = Server::start(&data, &["--set", "queue.admit_per_second=99"]);
    let listed = queue(&["list"]);
    assert_eq!(listed["queues"][0]["admitPerSecond"], 12.5);
    assert_eq!(listed["queues"][0]["state"], "PAUSED");
    let log = server.stop();
    assert!(log.contains("keeps its stored settings"), "{log}");
}

// ---- The admission log.

/// Joins, and waits to be let in. Returns the token.
fn let_in(server: &Server, user: i64) -> String {
    let mut client = server.client();
    let body = json!({ "userId": user });
    let joined = client.send("POST", "/api/v1/waiting-queues", &[], Some(&body)).unwrap();
    let token = joined.expect(201).json()["token"].as_str().unwrap().to_owned();
    wait_until("admission", || {
        let headers = [("QUEUE-TOKEN", token.as_str())];
        let answer = client.send("GET", "/api/v1/waiting-queues", &headers, None).unwrap();
        answer.expect(200).json()["status"] == "ACTIVATED"
    });
    token
}

const CHECK_LOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/check-log");

/// Runs a program in Python. Returns whether it succeeds, and what it says.
fn python(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("python3");
    command.args(arguments).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that fails may not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Runs the program of docs/proof.md on the document of a queue, for these numbers.
fn run_the_page(document: &Value, numbers: &[u64]) -> (bool, String) {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/proof.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, program) = page.split_once("```python\n").unwrap();
    let (program, _) = program.split_once("```").unwrap();
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    let mut arguments = vec!["-c", program];
    arguments.extend(numbers.iter().map(String::as_str));
    python(&arguments, &document.to_string())
}

/// The places that it tells.
fn places_by_the_page(document: &Value, numbers: &[u64]) -> Vec<u64> {
    let (is_right, said) = run_the_page(document, numbers);
    assert!(is_right, "{said}");
    let places = said.lines().zip(numbers).map(|(line, number)| {
        let place = line.strip_prefix(&format!("number {number}: place "));
        place.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
    });
    let places: Vec<u64> = places.collect();
    assert_eq!(places.len(), numbers.len(), "{said}");
    places
}

#[test]
fn the_program_of_the_page_knows_each_place_of_a_draw() {
    let seed: [u8; 32] = std::array::from_fn(|index| index as u8);
    let queue = QueueName::new("main").unwrap();
    let document = |count: u64| {
        json!({
            "queue": "main",
            "drawCommitment": Digest(DrawSeed(seed).commitment(&queue)).to_string(),
            "drawSeed": Digest(seed).to_string(),
            "drawCount": count,
        })
    };
    let numbers: Vec<u64> = (1..=11).collect();
    let places = places_by_the_page(&document(10), &numbers);
    assert_eq!(places, [8, 5, 7, 3, 10, 6, 1, 4, 2, 9, 11]);
    for count in [0, 1, 2, 3, 64, 65, 1_000, 1_048_576, 1_048_577, 10_000_000, u64::from(u32::MAX)]
    {
        let numbers = [1, 2, 3, count / 2 + 1, count.max(1), count + 1];
        let draw = store::draw(&Drawn { count, seed });
        let places = numbers.map(|number| draw.rank(number));
        assert_eq!(places_by_the_page(&document(count), &numbers), places, "{count}");
    }
    // Another seed than the one that was committed to.
    let mut other = document(10);
    other["drawSeed"] = Digest([7; 32]).to_string().into();
    let (is_right, said) = run_the_page(&other, &[1]);
    assert!(!is_right && said.contains("not the seed that was committed to"), "{said}");
}

#[test]
fn a_draw_is_checked_without_the_service() {
    let (directory, data) = place();
    let server = Server::start(&data, &[]);
    let mut client = server.client();
    let authorization = format!("Bearer {}", server.admin_token());
    let body = json!({
        "queue": "vip", "admitPerSecond": 1_000, "opensAt": "2099-01-01T00:00:00Z", "opening": "draw",
    });
    let headers = [("Authorization", authorization.as_str())];
    client.send("POST", "/admin/v1/queues", &headers, Some(&body)).unwrap().expect(201);
    let mut join = |user: i64| {
        let body = json!({ "userId": user, "queue": "vip" });
        client.send("POST", "/api/v1/waiting-queues", &[], Some(&body)).unwrap().expect(201).json()
    };
    let mut tokens = Vec::new();
    for user in 1..=20 {
        let joined = join(user);
        assert_eq!(
            (&joined["status"], &joined["waitingNumber"]),
            (&json!("WAITING"), &Value::Null)
        );
        tokens.push(joined["token"].as_str().unwrap().to_owned());
    }
    let document = || {
        let path = "/api/v1/waiting-queues/vip";
        server.client().send("GET", path, &[], None).unwrap().expect(200).json()
    };
    let before = document();
    assert_eq!((&before["drawSeed"], &before["drawCount"]), (&Value::Null, &Value::Null));
    run(&data, &["queue", "set", "vip", "--opens-at", "now"]).ok();
    wait_until("the draw", || document()["drawSeed"].is_string());
    let late = join(21);
    assert_ne!(late["waitingNumber"], Value::Null);
    tokens.push(late["token"].as_str().unwrap().to_owned());
    for token in &tokens {
        wait_until("admission", || {
            let headers = [("QUEUE-TOKEN", token.as_str())];
            let place = client.send("GET", "/api/v1/waiting-queues", &headers, None).unwrap();
            place.expect(200).json()["status"] == "ACTIVATED"
        });
    }
    let after = document();
    assert_eq!(after["drawCommitment"], before["drawCommitment"]);
    server.stop();

    let export = directory.path().join("vip.log").to_str().unwrap().to_owned();
    run(&data, &["log", "export", &export, "--queue", "vip"]).ok();
    let mut arguments = vec!["verify", &export];
    arguments.extend(tokens.iter().flat_map(|token| ["--ticket", token]));
    let said = run(&data, &arguments).ok();
    assert!(said.contains("verify: nothing is wrong"), "{said}");
    let count = after["drawCount"].as_u64().unwrap();
    assert_eq!(count, 20, "all who had joined, and nobody else");
    assert!(said.contains("ticket 21: comes behind the 20 that were drawn"), "{said}");
    // The service, `verify`, the page and the other program say the same.
    let numbers: Vec<u64> = (1..=count).collect();
    let told: Vec<String> = numbers.iter().map(u64::to_string).collect();
    let mut arguments = vec![CHECK_LOG, &export];
    arguments.extend(told.iter().map(String::as_str));
    let (is_right, elsewhere) = python(&arguments, "");
    assert!(is_right, "{elsewhere}");
    let places = places_by_the_page(&after, &numbers);
    for (number, place) in numbers.iter().zip(&places) {
        let drawn = format!("ticket {number}: was drawn to place {place} of 20, ");
        assert!(said.contains(&drawn), "{drawn}: {said}");
        let drawn = format!("ticket {number}: drawn to place {place} of 20\n");
        assert!(elsewhere.contains(&drawn), "{drawn}: {elsewhere}");
    }
    // A digit of the seed is another.
    let text = fs::read_to_string(&export).unwrap();
    let seed = after["drawSeed"].as_str().unwrap();
    let digit = if seed.starts_with('0') { "1" } else { "0" };
    let other = format!("{digit}{}", &seed[1..]);
    fs::write(&export, text.replace(seed, &other)).unwrap();
    assert_eq!(run(&data, &["verify", &export]).code, Some(1));
    let (is_right, said) = python(&[CHECK_LOG, &export], "");
    assert!(!is_right && said.contains("the digest does not follow"), "{said}");
}

#[test]
fn a_log_is_exported_and_checked_without_the_service() {
    let (directory, data) = place();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (live, piped, rest) = (file("live.log"), file("piped.log"), file("rest.log"));
    let server = Server::start(&data, &[]);
    let (one, two) = (let_in(&server, 1), let_in(&server, 2));
    run(&data, &["log", "export", &live]).ok();
    run(&data, &["log", "export", &live]).fails_with(&["cannot make", "live.log"]);
    let from = format!("http://{}/", server.address());
    fs::write(&piped, run(&data, &["log", "export", "-", "--from", &from]).ok()).unwrap();
    run(&data, &["log", "export", &rest, "--queue", "none"]).fails_with(&["QUEUE_NOT_FOUND"]);
    assert!(!Path::new(&rest).exists(), "half an export is none");
    let mut client = server.client();
    let log = client.send("GET", "/api/v1/waiting-queues/main/log", &[], None).unwrap().json();
    let head = log["head"]["signed"].as_str().unwrap().to_owned();
    let keys = client.send("GET", "/.well-known/jwks.json", &[], None).unwrap().json();
    fs::write(file("jwks.json"), keys.to_string()).unwrap();
    server.stop();
    run(&data, &["log", "export", &rest]).ok();

    let nowhere = directory.path().join("nowhere");
    let (jwks, live_text) = (file("jwks.json"), fs::read_to_string(&live).unwrap());
    for export in [&live, &piped, &rest] {
        let arguments = [
            "verify", export, "--ticket", &one, "--ticket", &two, "--head", &head, "--keys", &jwks,
        ];
        let said = run(&nowhere, &arguments).ok();
        for part in [
            "ticket 1: was let in at",
            "ticket 1 was not overtaken by ticket 2",
            "kept head: record",
            "verify: nothing is wrong",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("keys: those in the file"), "{said}");
    }
    assert!(!nowhere.exists(), "to check needs no store");
    // A program that shares nothing with ours says the same.
    let check = |export: &str| python(&[CHECK_LOG, export], "");
    let (is_right, said) = check(&rest);
    assert!(is_right && said.contains("up to number 2: nothing is wrong"), "{said}");
    // One number is another.
    fs::write(&live, live_text.replacen("\"upto\":2", "\"upto\":3", 1)).unwrap();
    let said = run(&nowhere, &["verify", &live]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("its digest does not follow"), "{said:?}");
    let (is_right, said) = check(&live);
    assert!(!is_right && said.contains("the digest does not follow"), "{said}");
    run(&nowhere, &["verify", &jwks]).fails_with(&["no export of an admission log"]);
    run(&nowhere, &["verify", &rest, "--ticket", "x"])
        .fails_with(&["neither the number nor the token"]);
    run(&nowhere, &["verify", &rest, "--keys", &rest]).fails_with(&["rest.log"]);
    let verdict = run(&nowhere, &["verify", &rest, "--head", "x.y.z"]);
    assert_eq!(verdict.code, Some(1), "{verdict:?}");
}

/// Whoever kept a head from after the backup is told that a restore has taken it back.
#[test]
fn a_restore_is_in_the_log_and_told_to_whoever_kept_a_head() {
    let (directory, data) = place();
    let server = Server::start(&data, &[]);
    let head = || {
        let log =
            server.client().send("GET", "/api/v1/waiting-queues/main/log", &[], None).unwrap();
        log.json()["head"]["signed"].as_str().unwrap().to_owned()
    };
    let_in(&server, 1);
    let before = head();
    let backup = directory.path().join("backup");
    run(&data, &["backup", backup.to_str().unwrap()]).ok();
    let_in(&server, 2);
    let after = head();
    server.stop();
    let restored = directory.path().join("restored");
    run(&restored, &["restore", backup.to_str().unwrap()]).ok();
    let file = directory.path().join("restored.log").to_str().unwrap().to_owned();
    run(&restored, &["log", "export", &file]).ok();
    let said = run(&restored, &["verify", &file, "--head", &before]).ok();
    assert!(said.contains("RESTORED from a backup before record"), "{said}");
    let said = run(&restored, &["verify", &file, "--head", &after]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("was restored from a backup before record"), "{said:?}");
    assert!(run(&restored, &["audit"]).ok().ends_with("audit: clean\n"));
}

// ---- Audit.

/// Runs the program with a file as standard input, where there is one.
fn ticket_verify(data: &Path, arguments: &[&str], input: Option<&Path>) -> Ended {
    let mut command = command(data.parent().unwrap());
    command.args(["ticket", "verify"]).args(arguments).arg("--data-dir").arg(data);
    if let Some(input) = input {
        command.stdin(fs::File::open(input).unwrap());
    }
    finish(command)
}

#[test]
fn a_concert_ticket_is_checked_at_the_door_with_the_service_and_without() {
    let (directory, data) = sold();
    let server = Server::start(&data, &[]);
    let mut client = server.client();
    let token = [("QUEUE-TOKEN", "queue_token_1")];
    let signed = client.send("GET", "/api/v1/reservations/1/ticket", &token, None).unwrap();
    let code = signed.expect(200).json()["code"].as_str().unwrap().to_owned();
    let jwks = client.send("GET", "/.well-known/jwks.json", &[], None).unwrap().expect(200);
    let keys = directory.path().join("jwks.json");
    fs::write(&keys, jwks.json().to_string()).unwrap();
    let scanned = directory.path().join("scanned");
    fs::write(&scanned, format!("  {code}\r\n")).unwrap();
    let verify = |arguments: &[&str]| ticket_verify(&data, arguments, Some(&scanned));

    let good = verify(&[&code]).ok();
    assert!(good.starts_with("good; reservation 1, concert 1 (\""), "{good}");
    assert!(good.ends_with("seats 1, 2\n"), "{good}");
    assert_eq!(verify(&["-"]).ok(), good);
    assert_eq!(verify(&["-", "--session", "1"]).ok(), good);
    let other = verify(&["-", "--session", "2"]);
    assert_eq!(other.code, Some(1));
    assert!(
        other.out.starts_with("not good: it is for another session; reservation 1"),
        "{other:?}"
    );
    let told: Value = serde_json::from_str(&verify(&["-", "--json"]).ok()).unwrap();
    assert_eq!((&told["valid"], &told["seats"]), (&json!(true), &json!(["1", "2"])));
    for text in ["x", "", "a.b.c", &code[..code.len() - 4]] {
        let bad = verify(&[text]);
        assert_eq!((bad.code, bad.out.starts_with("not good: ")), (Some(1), true), "{bad:?}");
    }
    let big = directory.path().join("big");
    fs::write(&big, vec![b'A'; 10_000_000]).unwrap();
    assert_eq!(
        ticket_verify(&data, &["-"], Some(&big)).out,
        "not good: this is no concert ticket\n"
    );
    fs::write(&big, b"\xff\xfe").unwrap();
    ticket_verify(&data, &["-"], Some(&big)).fails_with(&["cannot read standard input"]);

    // By the keys alone, from their address or a file.
    let url = format!("http://{}/.well-known/jwks.json", server.address());
    let file = keys.to_str().unwrap().to_owned();
    for keys in [&url, &file] {
        let known = verify(&["-", "--keys", keys, "--session", "1"]);
        assert!(known.err.contains("only the service knows"), "{known:?}");
        let known = known.ok();
        assert_eq!(known, "good; reservation 1, concert 1, session 1, seats 1, 2\n");
        assert_eq!(verify(&["x", "--keys", keys]).code, Some(1));
    }
    assert_eq!(verify(&["-", "--keys", &file, "--session", "2"]).code, Some(1));
    run(&data, &["keys", "rotate", "--withdraw"]).ok();
    let withdrawn = verify(&["-"]);
    assert!(withdrawn.out.contains("withdrawn; have it shown again"), "{withdrawn:?}");
    let unknown = verify(&["-", "--keys", &url]);
    assert!(unknown.out.contains("not known here; have it shown again"), "{unknown:?}");
    assert_eq!((withdrawn.code, unknown.code), (Some(1), Some(1)));
    server.stop();
    verify(&["-"]).fails_with(&["cannot reach the service"]);
    verify(&["-", "--keys", &file]).ok();
    verify(&["-", "--keys", &url]).fails_with(&["cannot read http://"]);
    fs::write(&keys, "{}").unwrap();
    verify(&["-", "--keys", &file]).fails_with(&["jwks.json"]);
    let nowhere = directory.path().join("nowhere");
    verify(&["-", "--keys", nowhere.to_str().unwrap()]).fails_with(&["cannot read"]);
}

#[test]
fn an_audit_tells_running_and_at_rest() {
    let (_directory, data) = place();
    run(&data, &["audit"]).fails_with(&["there is no store at", "--data-dir"]);
    assert!(!data.exists(), "an audit makes no store");

    let (_directory, data) = sold();
    let at_rest = run(&data, &["audit"]).ok();
    assert!(at_rest.ends_with("audit: clean\n"), "{at_rest}");
    for code in ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10"] {
        assert!(at_rest.lines().any(|line| line.starts_with(code)), "{code}: {at_rest}");
    }
    let report: Value = serde_json::from_str(&run(&data, &["audit", "--json"]).ok()).unwrap();
    assert_eq!(
        (&report["clean"], report["invariants"].as_array().unwrap().len()),
        (&json!(true), 10)
    );
    assert!(report["invariants"][0]["checked"].as_u64().unwrap() >= 3, "{report}");

    let server = Server::start(&data, &[]);
    assert!(run(&data, &["audit"]).ok().ends_with("audit: clean\n"));
    let report: Value = serde_json::from_str(&run(&data, &["audit", "--json"]).ok()).unwrap();
    assert_eq!(report["clean"], true);
    // The running one is asked; without its token it does not answer.
    let wrong = [("BOXOFFICE_ADMIN__TOKEN", "not-the-token-of-this-one")];
    run_with(&data, &wrong, &["audit"]).fails_with(&["ADMIN_TOKEN_INVALID"]);
    server.stop();
}

/// What is wrong with a store at rest and on a running service is found, and named.
#[test]
fn an_audit_names_the_invariant_that_was_broken() {
    for (code, plant) in [
        ("I1", "UPDATE seat SET reservation_id = 2 WHERE id = 1"),
        ("I2", "UPDATE account SET balance = balance + 1 WHERE user_id = 9"),
        ("I2", "DELETE FROM points_entry WHERE payment_id IS NOT NULL"),
        ("I6", "UPDATE published SET count = count - 1 WHERE topic LIKE '%payment%'"),
        ("I7", "UPDATE reservation SET total = total + 1 WHERE id = 1"),
        ("I7", "DELETE FROM payment"),
        ("I8", "DELETE FROM spent_ticket"),
    ] {
        let (_directory, data) = sold();
        sql(&data, plant);
        let named = |ended: Ended| {
            assert_eq!(ended.code, Some(1), "{plant}: {ended:?}");
            let broken: Vec<&str> =
                ended.out.lines().filter(|line| line.contains("BROKEN")).collect();
            let found = broken.iter().any(|line| line.starts_with(code));
            assert!(found && ended.out.ends_with("audit: NOT CLEAN\n"), "{plant}: {ended:?}");
        };
        named(run(&data, &["audit"]));
        let server = Server::start(&data, &[]);
        named(run(&data, &["audit"]));
        let ended = run(&data, &["audit", "--json"]);
        let report: Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!((ended.code, &report["clean"]), (Some(1), &json!(false)));
        let metric = format!("boxoffice_invariant_violations_total{{invariant=\"{code}\"}}");
        assert!(server.metric(&metric) > 0.0, "{metric}");
        server.stop();
    }
}

#[test]
fn an_audit_finds_a_store_that_was_changed_behind_the_service() {
    let (_directory, data) = sold();
    let server = Server::start(&data, &[]);
    sql(&data, "UPDATE seat SET state = 0, reservation_id = NULL WHERE id = 3");
    let ended = run(&data, &["audit"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let broken = |line: &str| line.starts_with("I4") && line.contains("BROKEN");
    assert!(ended.out.lines().any(broken), "{}", ended.out);
    server.stop();
}

#[test]
fn an_audit_at_rest_writes_nothing() {
    let (_directory, data) = sold();
    let before = content(&data);
    run(&data, &["audit"]).ok();
    assert!(content(&data) == before, "an audit wrote");

    // What a kill left in the log is looked at, and stays there.
    let mut server = Server::start(&data, &[]);
    charge(&mut server.client(), 3, 5).expect(200);
    server.kill();
    let store = |(name, _): &(String, Vec<u8>)| name.ends_with("3") || name.ends_with("-wal");
    let stored = || content(&data).into_iter().filter(store).collect::<Vec<_>>();
    let before = stored();
    assert!(before.len() == 2 && !before[1].1.is_empty(), "the kill left no log");
    run(&data, &["audit"]).ok();
    assert!(stored() == before, "an audit wrote");
    Server::start(&data, &[]).stop();

    // A store of the first version is not brought up on the way.
    sql(
        &data,
        "DROP TABLE plan; ALTER TABLE session DROP COLUMN plan; \
         ALTER TABLE queue DROP COLUMN draw_seed; ALTER TABLE queue DROP COLUMN drawn; \
         ALTER TABLE queue DROP COLUMN chain; DROP TABLE admission_log; DROP TABLE admission_mark; \
         ALTER TABLE queue DROP COLUMN credit_micro; ALTER TABLE queue DROP COLUMN credit_at; \
         ALTER TABLE queue DROP COLUMN steps; ALTER TABLE queue DROP COLUMN pool; \
         ALTER TABLE queue DROP COLUMN pool_after; ALTER TABLE queue DROP COLUMN pool_first; \
         ALTER TABLE queue DROP COLUMN pool_last; DROP TABLE queue_passed; DROP TABLE readmitted; \
         DROP TABLE operator; DROP TABLE change_log; DROP TABLE change_key; DROP TABLE person; \
         DROP INDEX reservation_live; DROP INDEX reservation_by_ticket; \
         DROP INDEX reservation_of_user; DROP TABLE refund; DROP TABLE called_off; \
         ALTER TABLE reservation DROP COLUMN queue; \
         ALTER TABLE reservation DROP COLUMN ticket_seq; \
         ALTER TABLE reservation DROP COLUMN ticket_id; \
         CREATE INDEX reservation_by_user ON reservation (user_id, session_id); \
         PRAGMA user_version = 1",
    );
    let before = content(&data);
    run(&data, &["audit"]).fails_with(&["schema version 1", "`boxoffice migrate`"]);
    assert!(content(&data) == before, "an audit wrote");
    let said = run(&data, &["migrate"]).ok();
    let now = SqliteStore::SCHEMA_VERSION;
    assert!(said.contains(&format!("schema version 1 -> {now}")), "{said}");
    run(&data, &["audit"]).ok();
}

#[test]
fn counters_that_contradict_each_other_stop_the_start_and_the_audit() {
    let (_directory, data) = sold();
    sql(&data, "UPDATE queue SET serving = watermark + 5");
    for ended in [run(&data, &["audit"]), serve(&data, &[])] {
        ended.fails_with(&["queue main"]);
    }
}

// ---- Keys.

#[test]
fn keys_are_changed_with_and_without_a_service() {
    let (_directory, data) = place();
    run(&data, &["keys", "rotate"]).fails_with(&["there is no store"]);
    run(&data, &["keys", "list"]).fails_with(&["there is no store"]);
    run(&data, &["migrate"]).ok();
    let first = |said: &str| said.split(' ').next().unwrap().to_owned();
    let made = first(&run(&data, &["keys", "rotate", "--in", "3600"]).ok());
    let listed = || -> Vec<(String, String)> {
        let said = run(&data, &["keys", "list"]).ok();
        let words = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        words.map(|words| (words[0].to_owned(), words[1].to_owned())).collect()
    };
    let is = |kid: &String, state: &str| (kid.clone(), state.to_owned());
    assert_eq!(listed(), [is(&made, "good")]);
    let server = Server::start(&data, &[]);
    // There was none to sign until then.
    assert_eq!(listed(), [is(&made, "signing")]);
    let next = first(&run(&data, &["keys", "rotate"]).ok());
    assert_eq!(listed(), [is(&made, "signing"), is(&next, "next")]);
    for wrong in [&["--in", "1", "--withdraw"] as &[&str], &["--in", "2592001"], &["--in", "-1"]] {
        let ended = run(&data, &[&["keys", "rotate"], wrong].concat());
        assert_eq!(ended.code, Some(2), "{wrong:?}: {ended:?}");
    }
    let last = first(&run(&data, &["keys", "rotate", "--withdraw"]).ok());
    let expected = [is(&made, "withdrawn"), is(&next, "withdrawn"), is(&last, "signing")];
    assert_eq!(listed(), expected);
    server.stop();
    // With nobody who serves, the store is changed, and its log says so.
    let newest = first(&run(&data, &["keys", "rotate", "--in", "0"]).ok());
    let connection = Connection::open(SqliteStore::file(&data)).unwrap();
    let last_row = "SELECT who || ' ' || operation FROM change_log ORDER BY id DESC";
    let row: String = connection.query_row(last_row, [], |row| row.get(0)).unwrap();
    assert_eq!(row, "command-line rotate_key");
    let stored = "SELECT value FROM setting WHERE name = 'signing.keys'";
    let stored: String = connection.query_row(stored, [], |row| row.get(0)).unwrap();
    let secrets = stored.lines().filter_map(|line| line.split(' ').nth(3));
    for secret in secrets.filter(|secret| *secret != "-") {
        let told =
            "SELECT count(*) FROM change_log WHERE instr(coalesce(was, '') || became, ?1) > 0";
        let told: i64 = connection.query_row(told, [secret], |row| row.get(0)).unwrap();
        assert_eq!((secret.len(), told), (64, 0), "a secret half is in the log");
    }
    drop(connection);
    let server = Server::start(&data, &[]);
    assert_eq!(listed().last(), Some(&is(&newest, "signing")));
    server.stop();
}

// ---- Operators.

#[test]
fn operators_are_added_and_removed_with_and_without_a_service() {
    let (_directory, data) = place();
    let add = ["operator", "add", "--name", "desk-1", "--role", "viewer"];
    run(&data, &add).fails_with(&["there is no store"]);
    run(&data, &["migrate"]).ok();
    let token = run(&data, &add).ok();
    let token = token.trim_end();
    assert!(token.starts_with("bxo_") && !token.contains(char::is_whitespace), "{token}");
    run(&data, &add).fails_with(&["there is an operator of this name"]);
    run(&data, &["operator", "add", "--name", "admin", "--role", "viewer"])
        .fails_with(&["neither admin"]);
    let listed = run(&data, &["operator", "list"]).ok();
    assert!(listed.starts_with("desk-1 ") && listed.contains(" viewer "), "{listed}");

    let server = Server::start(&data, &[]);
    let status = |token: &str, path: &str| {
        let bearer = format!("Bearer {token}");
        let answer = server.client().send("GET", path, &[("Authorization", &bearer)], None);
        answer.unwrap()
    };
    status(token, "/admin/v1/queues").expect(200);
    let second = run(&data, &["operator", "add", "--name", "desk-2", "--role", "cashier"]).ok();
    status(second.trim_end(), "/admin/v1/queues").expect(403);
    let listed = run(&data, &["operator", "list"]).ok();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(!listed.contains("bxo_"), "{listed}");
    run(&data, &["operator", "remove", "--name", "desk-1"]).ok();
    status(token, "/admin/v1/queues").expect(401);
    run(&data, &["operator", "remove", "desk-1"]).fails_with(&["OPERATOR_NOT_FOUND"]);
    let log = status(&server.admin_token(), "/admin/v1/log").expect(200).json();
    let rows: Vec<(&str, &str)> = log["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["who"].as_str().unwrap(), row["operation"].as_str().unwrap()))
        .collect();
    let expected =
        [("admin", "remove_operator"), ("admin", "add_operator"), ("command-line", "add_operator")];
    assert_eq!(rows, expected);
    server.stop();
    run(&data, &["operator", "remove", "desk-2"]).ok();
    run(&data, &["operator", "remove", "desk-2"]).fails_with(&["no operator of this name"]);
    assert_eq!(run(&data, &["operator", "list"]).ok(), "");
    // What else the command line changes is in the log too.
    run(&data, &["clock", "set-back"]).ok();
    let connection = Connection::open(SqliteStore::file(&data)).unwrap();
    let last = "SELECT who || ' ' || operation || ' ' || target FROM change_log ORDER BY id DESC";
    let last: String = connection.query_row(last, [], |row| row.get(0)).unwrap();
    assert_eq!(last, "command-line set_clock_back clock");
}

#[test]
fn commands_find_the_listener_for_operators() {
    let (_directory, data) = place();
    let server = Server::start(&data, &["--set", "admin.listen=127.0.0.1:0"]);
    run(&data, &["queue", "pause"]).ok();
    run(&data, &["audit"]).ok();
    run(&data, &["operator", "add", "--name", "desk-1", "--role", "viewer"]).ok();
    let bearer = format!("Bearer {}", server.admin_token());
    let answer = server
        .client()
        .send("GET", "/admin/v1/queues", &[("Authorization", &bearer)], None)
        .unwrap()
        .expect(404);
    assert_eq!(answer.code(), "ROUTE_NOT_FOUND");
    server.stop();
    let same = ["--set", "server.listen=127.0.0.1:7", "--set", "admin.listen=127.0.0.1:7"];
    run(&data, &[&["config", "check"], &same[..]].concat())
        .fails_with(&["admin.listen", "server.listen"]);
}

/// Killed in the middle of many changes, the store has a row of the log for each that it has.
#[test]
fn no_change_outlives_a_kill_without_its_row_of_the_log() {
    let (_directory, data) = place();
    let mut server = Server::start(&data, &["--no-demo"]);
    let (token, address) = (server.admin_token(), server.address());
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let bearer = format!("Bearer {token}");
            std::thread::spawn(move || {
                let mut client = Client::new(address);
                let body = json!({
                    "name": "A concert", "venue": "A hall",
                    "reservationOpensAt": "2001-01-01T00:00:00Z",
                    "reservationClosesAt": "2099-01-01T00:00:00Z",
                });
                let headers = [("Authorization", bearer.as_str())];
                let mut made = 0_i64;
                while let Ok(answer) =
                    client.send("POST", "/admin/v1/concerts", &headers, Some(&body))
                {
                    made += i64::from(answer.status == 201);
                }
                made
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(700));
    server.kill();
    let made: i64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    Server::start(&data, &["--no-demo"]).stop();
    let connection = Connection::open(SqliteStore::file(&data)).unwrap();
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let kept = count("SELECT COUNT(*) FROM concert");
    let rows = count("SELECT COUNT(*) FROM change_log WHERE operation = 'create_concert'");
    let each = count(
        "SELECT COUNT(DISTINCT target) FROM change_log JOIN concert ON target = 'concert ' || concert.id",
    );
    assert!(made > 20, "only {made} were made");
    assert!(kept >= made, "{made} were answered, {kept} are there");
    assert_eq!((rows, each), (kept, kept));
}

// ---- Migration and backup.

#[test]
fn a_migration_says_what_it_did() {
    let (_directory, data) = place();
    let said = run(&data, &["migrate"]).ok();
    let now = SqliteStore::SCHEMA_VERSION;
    assert!(said.contains(&format!("created with schema version {now}")), "{said}");
    let said = run(&data, &["migrate"]).ok();
    assert!(said.contains(&format!("schema version {now}, nothing to do")), "{said}");
    let server = Server::start(&data, &[]);
    run(&data, &["migrate"]).fails_with(&["another process", "--data-dir"]);
    server.stop();
}

#[test]
fn a_backup_is_a_whole_store_running_or_not() {
    let (directory, data) = sold();
    let target = |name: &str| directory.path().join(name).display().to_string();
    let at_rest = target("at-rest.sqlite3");
    let said = run(&data, &["backup", &at_rest]).ok();
    assert!(said.contains("bytes in"), "{said}");
    assert_eq!(mode(Path::new(&at_rest)), 0o600, "it holds the signing key");
    let bytes = fs::read(&at_rest).unwrap();
    run(&data, &["backup", &at_rest]).fails_with(&["at-rest.sqlite3 exists already"]);
    assert!(fs::read(&at_rest).unwrap() == bytes, "what exists is left alone");

    let store = Connection::open(SqliteStore::file(&data)).unwrap();
    let paid: i64 = store.query_row("SELECT amount FROM payment", [], |row| row.get(0)).unwrap();
    drop(store);
    let running = target("running.sqlite3");
    let server = Server::start(&data, &[]);
    let stop = AtomicBool::new(false);
    let charged = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut client = server.client();
            let mut charged = 0;
            while !stop.load(Ordering::Relaxed) {
                charge(&mut client, 500, 1).expect(200);
                charged += 1;
            }
            charged
        });
        run(&data, &["backup", &running]).ok();
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    assert!(charged > 0);
    server.stop();

    for backup in [at_rest, running] {
        let restored = directory.path().join("restored");
        run(&restored, &["restore", &backup]).ok();
        assert_eq!(mode(&SqliteStore::file(&restored)), 0o600, "it holds the signing key");
        run(&restored, &["audit"]).ok();
        let server = Server::start(&restored, &[]);
        let path = "/api/v1/users/1/points";
        let body = server.client().send("GET", path, &[], None).unwrap().expect(200).json();
        assert_eq!(body["totalAmount"], 1_000_000 - paid, "the sale is in it");
        run(&restored, &["audit"]).ok();
        server.stop();
        fs::remove_dir_all(&restored).unwrap();
    }
    let nowhere = directory.path().join("nowhere");
    run(&nowhere, &["backup", &target("none")]).fails_with(&["there is no store at"]);
    assert!(!nowhere.exists() && !Path::new(&target("none")).exists());
    run(&data, &["backup", &target("no/such/folder")]).fails_with(&["no/such/folder"]);
}

/// Joins the queue; returns the ticket.
fn join(client: &mut Client, user: i64) -> String {
    let body = json!({ "userId": user });
    let joined = client.send("POST", "/api/v1/waiting-queues", &[], Some(&body)).unwrap();
    joined.expect(201).json()["token"].as_str().unwrap().to_owned()
}

/// Asks for a ticket's place, or leaves with it.
fn with_ticket(client: &mut Client, method: &str, token: &str) -> program::Answer {
    client.send(method, "/api/v1/waiting-queues", &[("QUEUE-TOKEN", token)], None).unwrap()
}

#[test]
fn a_restored_store_knows_the_tickets_from_before_the_backup_and_no_later_ones() {
    let (directory, data) = place();
    let backup = directory.path().join("backup").display().to_string();
    let server = Server::start(&data, &[]);
    run(&data, &["queue", "pause"]).ok();
    let mut client = server.client();
    let before: Vec<String> = (1..=5).map(|user| join(&mut client, user)).collect();
    run(&data, &["backup", &backup]).ok();
    let stale: Vec<String> = (100..1_500).map(|user| join(&mut client, user)).collect();
    server.stop();

    let mut earlier: Vec<String> = Vec::new();
    for name in ["once", "twice"] {
        let restored = directory.path().join(name);
        let said = run(&restored, &["restore", &backup]).ok();
        assert!(said.contains("given after the backup are refused"), "{said}");
        let server = Server::start(&restored, &[]);
        let mut client = server.client();
        let fans: Vec<String> = (5_000..6_500).map(|user| join(&mut client, user)).collect();
        let numbers: Vec<u64> = fans.iter().filter_map(|token| program::seq_of(token)).collect();
        let mut twice = 0;
        for token in &stale {
            let answer = with_ticket(&mut client, "GET", token);
            if answer.status == 200 {
                // The numbers that were kept ready when the backup was made are nobody else's.
                assert!(!numbers.contains(&program::seq_of(token).unwrap()), "{answer:?}");
                continue;
            }
            assert_eq!((answer.status, &*answer.code()), (401, "TOKEN_OUTDATED"));
            twice += usize::from(numbers.contains(&program::seq_of(token).unwrap()));
            let answer = with_ticket(&mut client, "DELETE", token);
            assert_eq!((answer.status, &*answer.code()), (401, "TOKEN_OUTDATED"));
            let header = [("QUEUE-TOKEN", token.as_str())];
            let (seats, of) = (
                json!({"userId": 100, "seatIds": [1]}),
                json!({"userId": 100, "reservationId": 1}),
            );
            for (path, body) in
                [("/api/v1/concerts/1/sessions/1/reservations", seats), ("/api/v1/payments", of)]
            {
                let answer = client.send("POST", path, &header, Some(&body)).unwrap();
                assert_eq!((answer.status, &*answer.code()), (401, "TOKEN_OUTDATED"), "{path}");
            }
        }
        assert!(twice > 100, "{twice} numbers were given twice; this shows nothing");
        // The epoch of another restore of the same backup has never been.
        for token in &earlier {
            assert_eq!(with_ticket(&mut client, "GET", token).code(), "TOKEN_OUTDATED");
        }
        for (token, number) in before.iter().zip(1..) {
            let told = with_ticket(&mut client, "GET", token).expect(200).json();
            assert_eq!(
                (&told["status"], &told["waitingNumber"]),
                (&json!("WAITING"), &json!(number))
            );
        }
        for token in &fans {
            let told = with_ticket(&mut client, "GET", token).expect(200).json();
            assert_eq!(told["status"], "WAITING", "{told}");
        }
        run(&restored, &["queue", "resume"]).ok();
        wait_until("nobody is let in", || {
            let told = with_ticket(&mut client, "GET", &before[0]).expect(200).json();
            told["status"] == "ACTIVATED"
        });
        let log = client_log(&server);
        assert!(log.contains("\"operation\":\"restore\""), "{log}");
        run(&restored, &["audit"]).ok();
        server.stop();
        run(&restored, &["audit"]).ok();
        earlier = fans;
    }
}

/// What operators have changed, as the service says.
fn client_log(server: &Server) -> String {
    let token = format!("Bearer {}", server.admin_token());
    let header = [("Authorization", token.as_str())];
    server.client().send("GET", "/admin/v1/log", &header, None).unwrap().expect(200).body
}

#[test]
fn a_copy_of_a_backup_does_not_give_numbers_again() {
    let (directory, data) = sold();
    let backup = directory.path().join("backup");
    run(&data, &["backup", backup.to_str().unwrap()]).ok();
    let copy = directory.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(&backup, SqliteStore::file(&copy)).unwrap();
    run(&copy, &["audit"]).ok();
    serve(&copy, &[]).fails_with(&["copy of a backup", "boxoffice restore"]);
    let said = run(&copy, &["restore", "--finish"]).ok();
    assert!(said.contains("epoch"), "{said}");
    Server::start(&copy, &[]).stop();
    // Nor is the store itself taken for one, or a backup of what was restored.
    let server = Server::start(&data, &[]);
    run(&data, &["restore", "--finish"]).fails_with(&["another process"]);
    server.stop();
    let again = directory.path().join("again");
    run(&copy, &["backup", again.to_str().unwrap()]).ok();
    fs::copy(&again, SqliteStore::file(&copy)).unwrap();
    serve(&copy, &[]).fails_with(&["copy of a backup"]);
}

#[test]
fn what_is_no_backup_is_not_restored_and_nothing_is_written_over() {
    let (directory, data) = sold();
    let file = |name: &str| directory.path().join(name).display().to_string();
    run(&data, &["backup", &file("good")]).ok();
    let store = fs::read(SqliteStore::file(&data)).unwrap();
    run(&data, &["restore", &file("good")]).fails_with(&["is not empty", "is in it"]);
    assert!(fs::read(SqliteStore::file(&data)).unwrap() == store, "it is left alone");

    fs::write(file("text"), "not a database, and long enough to be looked at".repeat(99)).unwrap();
    fs::write(file("empty"), "").unwrap();
    fs::copy(file("good"), file("newer")).unwrap();
    let newer = format!("PRAGMA user_version = {}", SqliteStore::SCHEMA_VERSION + 1);
    Connection::open(file("newer")).unwrap().execute_batch(&newer).unwrap();
    Connection::open(file("foreign")).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
    let good = fs::read(file("good")).unwrap();
    fs::write(file("half"), &good[..good.len() / 2]).unwrap();
    for (name, says) in [
        ("nowhere", "cannot read"),
        (".", "is not a file"),
        ("text", "is not a SQLite database"),
        ("empty", "it is no backup"),
        ("newer", "A newer boxoffice wrote it"),
        ("foreign", "of another program"),
        ("half", "is damaged"),
    ] {
        let target = directory.path().join("target");
        run(&target, &["restore", &file(name)]).fails_with(&[says]);
        assert!(!SqliteStore::file(&target).exists(), "{name}");
        let _ = fs::remove_dir_all(&target);
    }
    assert!(fs::read(file("good")).unwrap() == good, "the backup is only read");
}

#[test]
fn a_restore_that_is_killed_leaves_a_whole_store_or_none_that_starts() {
    let (directory, data) = sold();
    let backup = directory.path().join("backup");
    run(&data, &["backup", backup.to_str().unwrap()]).ok();
    let target = directory.path().join("target");
    let unfinished = target.join("restoring");
    let (mut cut, mut whole) = (0, 0);
    for _ in 0..60 {
        if cut > 2 && whole > 0 {
            break;
        }
        let mut command = command(directory.path());
        command.arg("restore").arg(&backup).arg("--data-dir").arg(&target);
        command.stdout(std::process::Stdio::null());
        let mut child = program::Killed(command.spawn().unwrap());
        // The first ones as soon as something is there, the others later and later.
        while !unfinished.exists() && child.0.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis((cut + whole) * (cut + whole)));
        let _ = child.0.kill();
        let ended = child.0.wait().unwrap();
        if SqliteStore::file(&target).exists() {
            whole += 1;
            run(&target, &["audit"]).ok();
            // It is one that begins another epoch, and no copy.
            Server::start(&target, &["--no-demo"]).stop();
            fs::remove_dir_all(&target).unwrap();
        } else {
            assert!(!ended.success() && unfinished.exists());
            cut += 1;
            serve(&target, &[]).fails_with(&["cut short", "boxoffice restore FILE"]);
            assert!(!SqliteStore::file(&target).exists());
        }
    }
    assert!(cut > 2 && whole > 0, "{cut} {whole}");
}

// ---- Starting where that cannot be.

#[test]
fn a_data_directory_has_one_service_and_a_port_too() {
    let (directory, data) = place();
    let server = Server::start(&data, &[]);
    serve(&data, &[]).fails_with(&["another process", "data", "stop it", "--data-dir"]);
    // The loser has not taken the note of the address with it.
    run(&data, &["queue", "list"]).ok();

    let address = server.address().to_string();
    let other = directory.path().join("other");
    run(&other, &["serve", "--listen", &address]).fails_with(&[
        "cannot listen on",
        &address,
        "in use",
        "--listen",
    ]);
    server.client().send("GET", "/health/ready", &[], None).unwrap().expect(200);
    server.stop();
    // Whoever failed to start has left a store behind that can be started.
    Server::start(&other, &[]).stop();
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let (directory, _) = place();
    let file = directory.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    serve(&file, &[]).fails_with(&["data_dir", "is not a directory", "data_dir)"]);
    serve(&file.join("below"), &[]).fails_with(&["cannot make the data directory", "--data-dir"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a directory");

    let data = directory.path().join("data");
    Server::start(&data, &[]).stop();
    // Modes mean nothing to root, so root lets nobody try, with a copy of the program that nobody
    // can reach.
    let root = rustix::process::geteuid().is_root();
    let program = directory.path().join("boxoffice");
    fs::copy(env!("CARGO_BIN_EXE_boxoffice"), &program).unwrap();
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(directory.path(), 0o755);
    set_mode(&data, 0o555);
    for name in ["boxoffice.sqlite3", "boxoffice.lock"] {
        set_mode(&data.join(name), 0o444);
    }
    let nobody = |data: &Path| {
        let mut command = Command::new(&program);
        program::shield(&mut command, directory.path());
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
        if root {
            command.uid(65_534).gid(65_534);
        }
        finish(command)
    };
    nobody(&data).fails_with(&["data directory", "ermission denied", "--data-dir"]);
    set_mode(&data.join("boxoffice.lock"), 0o666);
    nobody(&data).fails_with(&["boxoffice.sqlite3", "owner"]);
    if root {
        let new = directory.path().join("new");
        nobody(&new).fails_with(&["cannot make the data directory", "ermission denied"]);
        assert!(!new.exists());
    }
    set_mode(&data, 0o755);
}

/// Everything in a data directory that was not made by looking at it.
fn content(data: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(data)
        .unwrap()
        .map(Result::unwrap)
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .filter(|(name, _)| name != "boxoffice.lock")
        .collect();
    files.sort();
    files
}

#[test]
fn a_file_that_is_not_our_store_is_left_as_it_is() {
    let (_directory, data) = place();
    fs::create_dir(&data).unwrap();
    let file = SqliteStore::file(&data);
    let refused = |texts: &[&str]| {
        let before = content(&data);
        for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate"], &["audit"]] {
            let said = run(&data, arguments).fails_with(texts);
            assert!(said.contains("boxoffice.sqlite3"), "{said}");
            assert!(content(&data) == before, "{arguments:?} changed something: {said}");
        }
    };
    fs::write(&file, "garbage, and nothing but garbage\n".repeat(1_000)).unwrap();
    refused(&["not a SQLite database", "nothing was changed"]);

    fs::remove_file(&file).unwrap();
    sql(&data, "CREATE TABLE cats (name TEXT); INSERT INTO cats VALUES ('Tom')");
    refused(&["another program", "nothing was changed", "--data-dir"]);

    // The same in the mode that leaves files of its own beside the store.
    sql(&data, "PRAGMA journal_mode = WAL; INSERT INTO cats VALUES ('Kit')");
    refused(&["another program", "nothing was changed", "--data-dir"]);

    fs::remove_dir_all(&data).unwrap();
    run(&data, &["migrate"]).ok();
    sql(&data, "PRAGMA user_version = 99");
    let knows = format!("knows {}", SqliteStore::SCHEMA_VERSION);
    refused(&["schema version 99", &knows, "newer boxoffice"]);
    sql(&data, &format!("PRAGMA user_version = {}", SqliteStore::SCHEMA_VERSION));
    run(&data, &["audit"]).ok();
}

#[test]
fn a_damaged_store_is_told_and_left_for_the_backup() {
    let (directory, data) = sold();
    let file = SqliteStore::file(&data);
    let whole = fs::read(&file).unwrap();
    let mut cases = vec![("cut in half", whole[..whole.len() / 2].to_vec())];
    for (name, from, to) in [("schema", 100, 400), ("tables", 4_096, whole.len())] {
        let mut bytes = whole.clone();
        bytes[from..to].fill(0xa5);
        cases.push((name, bytes));
    }
    for (name, bytes) in cases {
        println!("{name}");
        fs::write(&file, &bytes).unwrap();
        serve(&data, &[]).fails_with(&["boxoffice.sqlite3", "Restore a backup", "left as it is"]);
        run(&data, &["audit"]).fails_with(&["boxoffice.sqlite3", "Restore a backup"]);
        assert!(fs::read(&file).unwrap() == bytes, "{name}: the file was changed");
    }
    // A row that no version of the program writes.
    fs::write(&file, &whole).unwrap();
    sql(&data, "UPDATE seat SET state = 7 WHERE id = 4");
    serve(&data, &[]).fails_with(&["boxoffice.sqlite3", "seat with state", "Restore a backup"]);
    // A value that no version of the schema allows.
    fs::write(&file, &whole).unwrap();
    let schema = |from: &str, to: &str| {
        sql(
            &data,
            &format!(
                "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET \
                 sql = replace(sql, '{from}', '{to}') WHERE name = 'seat'"
            ),
        );
    };
    schema("price INTEGER NOT NULL", "price INTEGER");
    sql(&data, "UPDATE seat SET price = NULL WHERE id = 4");
    schema("price INTEGER", "price INTEGER NOT NULL");
    for ended in [serve(&data, &[]), run(&data, &["audit"])] {
        ended.fails_with(&["boxoffice.sqlite3", "in its column price", "Restore a backup"]);
    }
    fs::write(&file, &whole).unwrap();
    Server::start(&data, &[]).stop();
    drop(directory);
}

#[test]
fn events_that_are_not_ours_are_left_alone() {
    let (_directory, data) = sold();
    let events = data.join("events.jsonl");
    fs::write(&events, "somebody's notes\n").unwrap();
    serve(&data, &[]).fails_with(&["events.jsonl", "move the file away"]);
    assert_eq!(fs::read_to_string(&events).unwrap(), "somebody's notes\n");
    fs::remove_file(&events).unwrap();
    Server::start(&data, &[]).stop();
}

// ---- Keys.

#[test]
fn a_key_that_signed_tickets_cannot_just_go() {
    let (_directory, data) = place();
    let (one, two) = ("1".repeat(40), "2".repeat(40));
    let with = |current: Option<&str>, previous: Option<&str>| {
        let mut command = command(data.parent().unwrap());
        command.envs(current.map(|key| ("BOXOFFICE_TICKET__SIGNING_KEY", key)));
        command.envs(previous.map(|key| ("BOXOFFICE_TICKET__PREVIOUS_SIGNING_KEYS", key)));
        command
    };
    let refused = |mut command: Command, texts: &[&str]| {
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
        let said = finish(command).fails_with(texts);
        assert!(!said.contains(&one) && !said.contains(&two), "{said}");
    };
    let server = Server::start_by(with(Some(&one), None), &data, &[]);
    let body = json!({ "userId": 1 });
    let path = "/api/v1/waiting-queues";
    let joined = server.client().send("POST", path, &[], Some(&body)).unwrap().expect(201).json();
    let token = joined["token"].as_str().unwrap().to_owned();
    let log = server.stop();
    assert!(!log.contains(&one), "{log}");
    // A key that was given is not written down.
    let connection = Connection::open(SqliteStore::file(&data)).unwrap();
    let sql = "SELECT count(*) FROM setting WHERE instr(value, ?1) > 0";
    assert_eq!(connection.query_row(sql, [&one], |row| row.get::<_, i64>(0)).unwrap(), 0);
    drop(connection);

    let advice = ["were signed with the key", "ticket.signing_key", "previous_signing_keys"];
    refused(with(Some(&two), None), &advice);
    refused(with(None, None), &[&advice[..], &["there is no key now"]].concat());
    let accepts = |server: &Server, token: &str| {
        let headers = [("QUEUE-TOKEN", token)];
        server.client().send("GET", path, &headers, None).unwrap().status
    };
    let server = Server::start_by(with(Some(&two), Some(&one)), &data, &[]);
    assert_eq!(accepts(&server, &token), 200);
    server.stop();
    let server = Server::start_by(with(Some(&two), None), &data, &[]);
    assert_eq!(accepts(&server, &token), 401);
    server.stop();

    // A generated key is in the store, and a configured one does not replace it unnoticed.
    fs::remove_dir_all(&data).unwrap();
    let server = Server::start(&data, &[]);
    let joined = server.client().send("POST", path, &[], Some(&body)).unwrap().expect(201).json();
    let token = joined["token"].as_str().unwrap().to_owned();
    server.stop();
    let server = Server::start(&data, &[]);
    assert_eq!(accepts(&server, &token), 200);
    server.stop();
    refused(with(Some(&two), None), &advice);
}

// ---- Ending.

#[test]
fn sigterm_under_load_answers_whatever_was_begun() {
    let (_directory, data) = place();
    let mut server = Server::start(&data, &[]);
    let address = server.address();
    let acknowledged = Mutex::new(vec![0_i64; 12]);
    let (cut, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));

    // Requests whose bodies come only after the signal.
    let mut halves: Vec<TcpStream> = (0..20)
        .map(|index| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(program::PATIENCE)).unwrap();
            let head = format!(
                "PATCH /api/v1/users/{}/points/charge HTTP/1.1\r\nHost: x\r\n\
                 Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{{\"amo",
                900 + index
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let ended = std::thread::scope(|scope| {
        for user in 0..12_usize {
            let (acknowledged, cut, stop) = (&acknowledged, &cut, &stop);
            scope.spawn(move || {
                let mut client = Client::new(address);
                let path = format!("/api/v1/users/{}/points/charge", 100 + user);
                while !stop.load(Ordering::Relaxed) {
                    match client.send("PATCH", &path, &[], Some(&json!({ "amount": 1 }))) {
                        Ok(answer) if answer.status == 200 => {
                            acknowledged.lock().unwrap()[user] += 1;
                        }
                        Ok(answer) => cut.lock().unwrap().push(format!("{answer:?}")),
                        // No answer at all is what an idle connection may get when it is closed;
                        // half an answer is what nobody may get.
                        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                            cut.lock().unwrap().push(error.to_string());
                        }
                        Err(_) => return,
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(400));
        server.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(300));
        for stream in &mut halves {
            stream.write_all(b"unt\":1}").unwrap();
        }
        for stream in &mut halves {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
            assert!(answer.ends_with("{\"totalAmount\":1000001}"), "{answer:?}");
            assert!(answer.to_lowercase().contains("connection: close"), "{answer:?}");
        }
        let ended = server.wait();
        stop.store(true, Ordering::Relaxed);
        ended
    });
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.err.contains("stopped"), "{}", ended.err);
    assert!(cut.lock().unwrap().is_empty(), "{cut:?}");
    assert!(!data.join("boxoffice.addr").exists());

    // Everything acknowledged is there; of what was not, at most one a client.
    let connection = Connection::open(SqliteStore::file(&data)).unwrap();
    for (user, acknowledged) in acknowledged.lock().unwrap().iter().enumerate() {
        let sql = "SELECT balance - 1000000 FROM account WHERE user_id = ?1";
        let stored: i64 = connection.query_row(sql, [100 + user as i64], |row| row.get(0)).unwrap();
        assert!((*acknowledged..=acknowledged + 1).contains(&stored), "{stored}, {acknowledged}");
        assert!(*acknowledged > 0);
    }
    let waiting: i64 =
        connection.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
    assert_eq!(waiting, 0, "the last events went out");
    drop(connection);
    run(&data, &["audit"]).ok();
}

#[test]
fn sigint_ends_it_too_and_slow_peers_are_cut_with_a_code_of_their_own() {
    let (_directory, data) = place();
    let mut server = Server::start(&data, &[]);
    server.signal(Signal::INT);
    assert_eq!(server.wait().code, Some(0));

    let mut server = Server::start(&data, &["--set", "server.drain_timeout_ms=300"]);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = "POST /api/v1/waiting-queues HTTP/1.1\r\nHost: x\r\n\
                Content-Type: application/json\r\nContent-Length: 13\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    server.signal(Signal::TERM);
    let ended = server.wait();
    assert_eq!(ended.code, Some(3), "a connection had to be cut: {}", ended.err);
    run(&data, &["audit"]).ok();

    // A second signal does not wait for the slow one.
    let mut server = Server::start(&data, &[]);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    server.signal(Signal::TERM);
    wait_until("it drains", || server.log().contains("finishing requests"));
    server.signal(Signal::TERM);
    let ended = server.wait();
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("second signal"), "{}", ended.err);
    run(&data, &["audit"]).ok();
}

// ---- Not being whole.

fn spawn_with(data: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Server {
    let mut command = command(data.parent().unwrap());
    command.envs(variables.iter().copied());
    Server::start_by(command, data, arguments)
}

/// Insists that the service ended by itself, and said once which worker it lost.
#[track_caller]
fn assert_lost(server: &mut Server, worker: &str, why: &str) {
    let ended = server.wait();
    assert_eq!(ended.code, Some(1), "{worker}: {}", ended.err);
    let lines = ended.err.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let errors: Vec<Value> = lines.filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(errors.len(), 1, "{worker}: {}", ended.err);
    assert_eq!(errors[0]["worker"], worker, "{}", ended.err);
    assert!(errors[0]["error"].as_str().unwrap().contains(why), "{}", ended.err);
}

/// The switch is part of debug builds only, which tests are.
#[test]
fn a_worker_that_panics_ends_the_service_with_an_error() {
    for worker in [
        "admission",
        "expiry of holds",
        "calling off",
        "expiry of keys",
        "event relay",
        "joins",
        "listener",
    ] {
        let (_directory, data) = place();
        let mut server = spawn_with(&data, &[("BOXOFFICE_TEST_PANIC", worker)], &[]);
        // What was begun is finished, and what was promised is kept.
        charge(&mut server.client(), 3, 5).expect(200);
        assert_lost(&mut server, worker, "panicked: a planted panic");
        let server = Server::start(&data, &[]);
        let path = "/api/v1/users/3/points";
        let body = server.client().send("GET", path, &[], None).unwrap().expect(200).json();
        assert_eq!(body["totalAmount"], 1_000_005, "{worker}");
        server.stop();
        run(&data, &["audit"]).ok();
    }
}

#[test]
fn a_deleted_events_file_ends_the_service_with_an_error() {
    let (_directory, data) = place();
    let mut server = Server::start(&data, &[]);
    let events = data.join("events.jsonl");
    charge(&mut server.client(), 3, 5).expect(200);
    wait_until("the event is written", || fs::read_to_string(&events).unwrap().contains("charged"));
    fs::remove_file(&events).unwrap();
    assert_lost(&mut server, "event relay", "events.jsonl was deleted");
    let server = Server::start(&data, &[]);
    charge(&mut server.client(), 3, 6).expect(200);
    wait_until("the event is written", || {
        fs::read_to_string(&events).unwrap().contains("\"amount\":6")
    });
    server.stop();
}

/// Nobody listens at the port, so every connection is refused.
#[test]
fn brokers_that_are_away_hold_up_no_stop() {
    let (_directory, data) = place();
    let kafka = ["--set", "events.kind=kafka", "--set", "events.kafka.brokers=127.0.0.1:1"];
    // With an event that waits, and with none.
    for waits in [true, false] {
        let mut server = Server::start(&data.join(waits.to_string()), &kafka);
        if waits {
            charge(&mut server.client(), 3, 5).expect(200);
        }
        wait_until("the events wait", || server.log().contains("publishing events has stopped"));
        let began = Instant::now();
        server.signal(Signal::TERM);
        let ended = server.wait();
        println!("{waits}: {:?}", began.elapsed());
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}: {}", began.elapsed(), ended.err);
    }
}

// ---- Tidying up.

#[test]
fn idempotency_keys_are_forgotten_as_fast_as_they_come() {
    let (_directory, data) = sold();
    sql(
        &data,
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000) \
         INSERT INTO idempotency (user_id, key, fingerprint, result_id, at) \
         SELECT 1, 'old ' || n, x'00', 1, 1000 FROM n",
    );
    let server = Server::start(&data, &[]);
    let key = [("Idempotency-Key", "young")];
    let path = "/api/v1/users/3/points/charge";
    let body = json!({ "amount": 5 });
    server.client().send("PATCH", path, &key, Some(&body)).unwrap().expect(200);
    let connection = Connection::open(SqliteStore::file(&data)).unwrap();
    let keys = |which: &str| -> i64 {
        let query = format!("SELECT count(*) FROM idempotency WHERE key {which}");
        connection.query_row(&query, [], |row| row.get(0)).unwrap()
    };
    wait_until("all that are old enough are forgotten", || keys("LIKE 'old %'") == 0);
    assert_eq!(keys("= 'young'"), 1);
    drop(connection);
    server.stop();
}

// ---- Modes.

#[test]
fn whatever_is_written_is_for_its_owner_only() {
    let (directory, data) = place();
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    // By a shell, which sets what most systems begin with.
    let mut shell = Command::new("sh");
    program::shield(&mut shell, directory.path());
    let program = command(directory.path()).get_program().to_owned();
    shell.args(["-c", "umask 022; exec \"$0\" \"$@\""]).arg(program);
    let server = Server::start_by(shell, &data, &[]);
    charge(&mut server.client(), 3, 5).expect(200);
    let files = [
        "boxoffice.sqlite3",
        "boxoffice.sqlite3-wal",
        "boxoffice.sqlite3-shm",
        "events.jsonl",
        "admin.token",
    ];
    for file in files {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
    server.stop();
}

/// What would be made of a seating plan, and what is wrong with it, is told without a service.
#[test]
fn a_plan_of_a_hall_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let seat = |number: i64, category: &str| {
        let position = json!({"x": 25 * number, "y": 0});
        json!({"seat_number": number, "category": category, "position": position, "radius": 9})
    };
    let plan = |category: &str| {
        json!({
            "name": "Halle", "size": {"width": 300, "height": 200},
            "categories": [{"name": "R", "color": "#f00"}, {"name": "S", "color": "#0f0"}],
            "zones": [{
                "name": "Parkett", "position": {"x": 0, "y": 0},
                "rows": [{"row_number": "1", "seats": [seat(1, "R"), seat(2, category)]}],
                "areas": [{"text": {"text": "Floor"}, "rectangle": {"width": 90, "height": 60}}],
            }],
        })
    };
    let file = directory.path().join("hall.json");
    let path = file.to_str().unwrap();
    fs::write(&file, plan("R").to_string()).unwrap();
    let told = run(&data, &["plan", "check", path, "--standing", "Floor=30:S"]).ok();
    for line in
        ["Halle: 32 places", "Parkett", "Floor         30", "nothing is wrong; the plan is "]
    {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert!(!data.exists());
    let json = run(&data, &["plan", "check", path, "--price", "R=5", "--json"]).ok();
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&report["placeCount"], &report["problemCount"]), (&json!(2), &json!(0)));
    for (arguments, texts) in [
        (&["--price", "S=5"][..], &["MISSING_PRICE: grade R", "problems: 1"][..]),
        (&["--standing", "Ring=3:S"], &["UNKNOWN_AREA: section Ring"]),
    ] {
        let ended = run(&data, &[&["plan", "check", path][..], arguments].concat());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        texts.iter().for_each(|text| assert!(ended.out.contains(text), "{text}: {ended:?}"));
    }
    fs::write(&file, plan("Q").to_string()).unwrap();
    let ended = run(&data, &["plan", "check", path]);
    assert!(ended.out.contains("MISSING_CATEGORY: section Parkett, row 1, seat 2"), "{ended:?}");
    fs::write(&file, "[1, 2").unwrap();
    run(&data, &["plan", "check", path]).fails_with(&["hall.json is no seating plan"]);
    run(&data, &["plan", "check", "nowhere.json"]).fails_with(&["cannot read nowhere.json"]);
}
