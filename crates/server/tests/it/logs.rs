//! What the program writes down of a request, and by which ids somebody finds it.

use std::path::Path;

use serde_json::{Value, json};

use crate::program::{Server, command};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A service that writes down every request.
fn talkative(directory: &Path) -> Server {
    let mut by = command(directory);
    by.env("BOXOFFICE_LOG__LEVEL", "info,boxoffice=debug").env("BOXOFFICE_LOG__FORMAT", "json");
    Server::start_by(by, &directory.join("data"), &[])
}

/// The lines about one request, of all that a service has said until its end.
fn about(log: &str, id: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["request.id"] == id).collect()
}

#[test]
fn every_line_of_a_request_has_its_trace_where_it_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let server = talkative(directory.path());
    let admin = format!("Bearer {}", server.admin_token());
    let mut client = server.client();
    let requests = [
        ("GET", "/api/v1/concerts", None, 200, "browse"),
        ("POST", "/api/v1/waiting-queues", Some(json!({"userId": 1})), 201, "join"),
        ("GET", "/api/v1/waiting-queues/main", None, 200, "document"),
        ("GET", "/nowhere", None, 404, "nothing"),
        ("POST", "/admin/v1/queues", Some(json!({"queue": "vip"})), 201, "act"),
    ];
    for (method, path, body, status, id) in &requests {
        let mut headers = vec![("Authorization", admin.as_str()), ("X-Request-Id", *id)];
        let without = format!("{id}-alone");
        headers.push(("traceparent", PARENT));
        client.send(method, path, &headers, body.as_ref()).unwrap().expect(*status);
        // The next on the same connection has nothing of the one before.
        headers.pop();
        headers[1].1 = &without;
        let again = client.send(method, path, &headers, body.as_ref()).unwrap();
        assert!(again.status < 500, "{again:?}");
    }
    let log = server.stop();
    for (_, path, _, _, id) in &requests {
        let lines = about(&log, id);
        assert!(!lines.is_empty(), "{path}: {log}");
        for line in &lines {
            assert_eq!(line["trace.id"], TRACE, "{line}");
        }
        let lines = about(&log, &format!("{id}-alone"));
        assert!(!lines.is_empty(), "{path}: {log}");
        for line in &lines {
            assert!(line.get("trace.id").is_none(), "{line}");
        }
    }
    // What the operator did is a line of its own.
    let lines = about(&log, "act");
    assert!(lines.iter().any(|line| line["message"] == "queue created"), "{lines:?}");
}

#[test]
fn a_trace_that_is_none_is_ignored_and_costs_nobody_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let server = talkative(directory.path());
    let mut client = server.client();
    let long = PARENT.repeat(50);
    let mut ids = Vec::new();
    for (number, bad) in [
        "",
        "-",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-\u{e4}f7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c\",\"error\":\"-01",
        &long,
    ]
    .iter()
    .enumerate()
    {
        let id = format!("bad-{number}");
        let headers = [("X-Request-Id", id.as_str()), ("traceparent", bad)];
        let body = json!({"userId": 1});
        client.send("POST", "/api/v1/waiting-queues", &headers, Some(&body)).unwrap().expect(201);
        ids.push(id);
    }
    let twice = [("X-Request-Id", "twice"), ("traceparent", PARENT), ("Traceparent", PARENT)];
    client.send("GET", "/api/v1/concerts", &twice, None).unwrap().expect(200);
    ids.push("twice".to_owned());
    let log = server.stop();
    for id in &ids {
        let lines = about(&log, id);
        assert_eq!(lines.len(), 1, "{id}: {lines:?}");
        assert_eq!(lines[0]["message"], "request served");
        assert!(lines[0].get("trace.id").is_none(), "{}", lines[0]);
        assert!(lines[0].get("error").is_none(), "{}", lines[0]);
    }
}
