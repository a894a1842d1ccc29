//! The program with a real Kafka: what a sale publishes, and what `boxoffice consume` makes of it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::broker::Broker;
use crate::program::{Client, Ended, Killed, Server, command, finish, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn with_kafka(data: &Path, address: &str) -> Server {
    let brokers = format!("events.kafka.brokers={address}");
    let settings = ["--set", "events.kind=kafka", "--set", &brokers];
    let timeout = ["--set", "events.kafka.delivery_timeout_ms=3000"];
    Server::start(data, &[&settings[..], &timeout].concat())
}

/// Charges points, one after another for each user; each charge is one event.
fn charge(client: &mut Client, users: i64, rounds: i64) {
    for _ in 0..rounds {
        for user in 1..=users {
            let path = format!("/api/v1/users/{user}/points/charge");
            let body = json!({ "amount": 1_000 });
            client.send("POST", &path, &[], Some(&body)).unwrap().expect(200);
        }
    }
}

fn wait_published(server: &Server, count: f64) {
    wait_until("the events are published", || {
        server.metric("boxoffice_events_published_total") >= count
    });
}

fn consume(directory: &Path, broker: &Broker, arguments: &[&str]) -> std::process::Command {
    let mut command = command(directory);
    command.args(["consume", "--from-beginning", "--brokers", &broker.address()]).args(arguments);
    command
}

#[track_caller]
fn consume_all(directory: &Path, broker: &Broker, arguments: &[&str]) -> Ended {
    let ended = finish(consume(directory, broker, &[arguments, &["--until-idle", "2"]].concat()));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

fn events_of(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Each id is there once, and the balance of each user rises from event to event.
#[track_caller]
fn check_charges(events: &[Value], users: i64, rounds: i64) {
    let mut balances: HashMap<i64, i64> = HashMap::new();
    let mut ids: Vec<&str> = Vec::new();
    for event in events.iter().filter(|event| event["type"] == "user.point-charged") {
        let (user, total) =
            (event["data"]["userId"].as_i64().unwrap(), event["data"]["totalAmount"].as_i64());
        let before = balances.insert(user, total.unwrap());
        assert!(before < total, "user {user}: {before:?} before {total:?}");
        ids.push(event["id"].as_str().unwrap());
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((count, ids.len() as i64), (ids.len(), users * rounds));
}

#[test]
fn every_event_of_a_sale_is_in_the_file_once_also_when_the_consumer_is_killed() {
    let broker = Broker::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let server = with_kafka(&directory.path().join("data"), &broker.address());
    let mut client = server.client();
    // One of everything that happens to a reservation.
    let queue = "/api/v1/waiting-queues";
    let joined = client.send("POST", queue, &[], Some(&json!({ "userId": 1 }))).unwrap();
    let token = joined.expect(201).json()["token"].as_str().unwrap().to_owned();
    wait_until("the ticket is let in", || {
        let place = client.send("GET", queue, &[("QUEUE-TOKEN", &token)], None).unwrap();
        place.json()["status"] == "ACTIVATED"
    });
    let reserve = |client: &mut Client, seat: i64| {
        let path = "/api/v1/concerts/1/sessions/1/reservations";
        let body = json!({ "userId": 1, "seatIds": [seat] });
        let answer = client.send("POST", path, &[("QUEUE-TOKEN", &token)], Some(&body)).unwrap();
        answer.expect(201).json()["reservationId"].as_i64().unwrap()
    };
    let given_back = reserve(&mut client, 1);
    let path = format!("/api/v1/reservations/{given_back}");
    let answer = client.send("DELETE", &path, &[("QUEUE-TOKEN", &token)], None).unwrap();
    assert!((200..300).contains(&answer.status), "{answer:?}");
    // A ticket holds one thing at a time.
    let paid = reserve(&mut client, 2);
    let body = json!({ "userId": 1, "reservationId": paid });
    let answer = client.send("POST", "/api/v1/payments", &[("QUEUE-TOKEN", &token)], Some(&body));
    assert!((200..300).contains(&answer.unwrap().status));
    charge(&mut client, 20, 100);
    wait_published(&server, 2_004.0);
    let ready = client.send("GET", "/health/ready", &[], None).unwrap().expect(200).json();
    let parts = ready["dependencies"].as_array().unwrap();
    assert!(parts.iter().any(|part| part["name"] == "events" && part["status"] == "UP"));

    // Killed after the first lines, again and again, and started again each time.
    let file = directory.path().join("events.jsonl");
    let arguments = ["--output", "events.jsonl"];
    for round in 1..=2_u64 {
        let mut running = consume(directory.path(), &broker, &arguments);
        let mut child = Killed(running.stderr(Stdio::null()).spawn().unwrap());
        wait_until("the consumer writes", || {
            std::fs::metadata(&file).is_ok_and(|file| file.len() > (round - 1) * 150_000)
        });
        child.0.kill().unwrap();
        child.0.wait().unwrap();
    }
    let ended = consume_all(directory.path(), &broker, &arguments);
    println!("{}", ended.err);
    let events = events_of(&file);
    check_charges(&events, 20, 100);
    for (kind, reservation) in [
        ("concert.concert-reserved", given_back),
        ("concert.concert-reserved", paid),
        ("concert.reservation-cancelled", given_back),
        ("concert.payment-completed", paid),
    ] {
        let of =
            |event: &&Value| event["type"] == kind && event["data"]["reservationId"] == reservation;
        assert_eq!(events.iter().filter(of).count(), 1, "{kind} of {reservation}");
    }
    assert_eq!(events.len(), 2_004);

    // Another group has them all as well, on standard output; a signal ends it in good order.
    let ended = consume_all(directory.path(), &broker, &["--group", "other"]);
    assert_eq!(ended.out.lines().count(), 2_004);
    let mut running = consume(directory.path(), &broker, &arguments);
    let mut child = Killed(running.stderr(Stdio::null()).spawn().unwrap());
    std::thread::sleep(Duration::from_secs(1));
    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
    assert_eq!(events_of(&file).len(), 2_004);
    server.stop();
}

#[test]
fn a_sale_goes_on_without_kafka_and_its_events_follow() {
    let mut broker = Broker::start(&[]);
    broker.kill();
    let directory = tempfile::tempdir().unwrap();
    let server = with_kafka(&directory.path().join("data"), &broker.address());
    let mut client = server.client();
    let mut events_are = |status: &str| {
        wait_until(&format!("the events are {status}"), || {
            let ready = client.send("GET", "/health/ready", &[], None).unwrap().expect(200).json();
            let parts = ready["dependencies"].as_array().unwrap().iter();
            parts.clone().any(|part| part["name"] == "events" && part["status"] == status)
        });
    };
    events_are("DEGRADED");
    charge(&mut server.client(), 10, 3);
    assert_eq!(server.metric("boxoffice_events_published_total"), 0.0);
    broker.restart();
    events_are("UP");
    charge(&mut server.client(), 10, 2);
    wait_published(&server, 50.0);
    assert!(server.metric("boxoffice_events_failures_total") > 0.0);
    let log = server.stop();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("publishing events has stopped"), 1, "{log}");
    assert_eq!(lines("publishing events goes on"), 1, "{log}");
    assert!(log.contains(&broker.address()), "{log}");
    consume_all(directory.path(), &broker, &["--output", "events.jsonl"]);
    check_charges(&events_of(&directory.path().join("events.jsonl")), 10, 5);
}

#[test]
fn brokers_that_hang_hold_up_no_stop() {
    let broker = Broker::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    // Longer than a stop may take.
    let brokers = format!("events.kafka.brokers={}", broker.address());
    let settings = ["--set", "events.kind=kafka", "--set", &brokers];
    let timeout = ["--set", "events.kafka.delivery_timeout_ms=20000"];
    let data = directory.path().join("data");
    let mut server = Server::start(&data, &[&settings[..], &timeout].concat());
    charge(&mut server.client(), 10, 1);
    wait_published(&server, 10.0);
    broker.freeze();
    charge(&mut server.client(), 10, 2);
    // So that a hand-over is under way.
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    server.signal(Signal::TERM);
    let ended = server.wait();
    println!("{:?}", began.elapsed());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}: {}", began.elapsed(), ended.err);
    broker.thaw();
    let server = with_kafka(&data, &broker.address());
    wait_published(&server, 20.0);
    server.stop();
    consume_all(directory.path(), &broker, &["--output", "events.jsonl"]);
    check_charges(&events_of(&directory.path().join("events.jsonl")), 10, 3);
}

/// The requests that came, and how they were answered.
type Requests = Arc<Mutex<Vec<(u16, Value)>>>;

/// A server that answers each request by what `decide` says to its body and number; nothing at all
/// where that is 0.
fn target(decide: impl Fn(&Value, usize) -> u16 + Send + 'static) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let seen = Requests::default();
    let log = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = serve(stream.unwrap(), &decide, &log);
        }
    });
    (url, seen)
}

fn serve(
    stream: TcpStream,
    decide: &impl Fn(&Value, usize) -> u16,
    log: &Requests,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let event: Value = serde_json::from_slice(&body).unwrap();
        let status = {
            let mut log = log.lock().unwrap();
            let status = decide(&event, log.len());
            log.push((status, event));
            status
        };
        if status == 0 {
            return Ok(());
        }
        write!(stream.get_mut(), "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")?;
    }
}

#[test]
fn a_url_that_fails_is_tried_again_and_what_it_refuses_is_kept() {
    let broker = Broker::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let server = with_kafka(&directory.path().join("data"), &broker.address());
    charge(&mut server.client(), 10, 5);
    wait_published(&server, 50.0);
    server.stop();
    // The first two requests fail, one without an answer; the events of user 7 are refused.
    let (url, seen) = target(|event, number| match number {
        0 => 503,
        1 => 0,
        _ if event["data"]["userId"] == 7 => 422,
        _ => 204,
    });
    let ended = consume_all(directory.path(), &broker, &["--url", &url]);
    assert!(ended.err.contains("45 events delivered"), "{ended:?}");
    assert!(ended.err.contains("5 dead letters"), "{ended:?}");
    assert!(ended.err.contains("answers 503") && ended.err.contains("again"), "{ended:?}");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 52);
    assert!(seen[0].1 == seen[1].1 && seen[1].1 == seen[2].1, "the failed event was passed over");
    let delivered: Vec<Value> =
        seen.iter().filter(|(status, _)| *status == 204).map(|(_, event)| event.clone()).collect();
    check_charges(&delivered, 9, 5);
    let dead = events_of(&directory.path().join("consume.dead"));
    assert_eq!(dead.len(), 5);
    assert!(dead.iter().all(|line| line["reason"].as_str().unwrap().contains("422")));
    assert!(dead[0]["payload"].as_str().unwrap().contains("\"userId\":7"));
}

#[test]
fn what_cannot_be_consumed_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let said = |arguments: &[&str], texts: &[&str]| {
        let mut command = command(directory.path());
        command.arg("consume").args(arguments);
        finish(command).fails_with(texts);
    };
    said(&[], &["--brokers"]);
    said(&["--brokers", "nonsense"], &["events.kafka.brokers", "host:port"]);
    said(&["--brokers", "127.0.0.1:1"], &["127.0.0.1:1", "check that it runs"]);
    let https = ["--brokers", "127.0.0.1:1", "--url", "https://example.org/"];
    said(&https, &["https://example.org/", "http://"]);
    std::fs::write(directory.path().join("notes"), "milk\n").unwrap();
    said(&["--brokers", "127.0.0.1:1", "--output", "notes"], &["notes", "move it away"]);
}
