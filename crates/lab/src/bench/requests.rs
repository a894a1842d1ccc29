//! What single requests cost, all in turn with the bare stack.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use testbed::Nginx;

use super::load::{Load, Measured, must, named, wait_for};
use super::row::{Row, Target};
use super::servers::{Id, Program, Settings};
use super::wrk::Figure;
use super::{
    BUSY_MIN, BUYERS, Bench, QUEUE_PATH, SEATS_PER_RESERVATION, SERVER_CPU, SMALL_CROWD, Topic,
};
use crate::report::middle;

/// What a client that reads JSON says.
const READER: [(&str, &str); 2] = [("accept", "application/json"), ("accept-encoding", "gzip")];

impl Bench {
    /// Measures them.
    pub(super) fn requests(&mut self) -> Result<(), String> {
        let all = [
            Topic::Live,
            Topic::Poll,
            Topic::Drawn,
            Topic::Document,
            Topic::Pages,
            Topic::Nginx,
            Topic::Join,
            Topic::Seats,
            Topic::Reject,
        ];
        let wanted: Vec<&str> =
            all.into_iter().filter(|topic| self.wants(*topic)).map(Topic::name).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        eprintln!("costs of single requests: {}", wanted.join(", "));
        let mut loads = self.request_loads()?;
        self.interleave(&mut loads)?;
        for name in ["poll", "join"] {
            let static_answer = format!("hello-{name}");
            let note = match (named(&loads, name), named(&loads, &static_answer)) {
                (Some(load), Some(other)) => {
                    let ratios = Figure::Cost.ratios(&load.samples, &other.samples);
                    let ratio = middle(&ratios).unwrap_or(f64::NAN);
                    format!("{ratio:.2} × {static_answer}")
                }
                _ => continue,
            };
            if let Some(load) = loads.iter_mut().find(|load| load.of.name == name) {
                load.of.notes.push(note);
            }
        }
        self.report_requests(&loads)
    }

    fn request_loads(&mut self) -> Result<Vec<Load>, String> {
        let hello = self.hello()?;
        let mut loads = vec![Load::new("hello", hello, "/hello", 200)];
        let main = self.filled_server("main", None)?;
        if self.wants(Topic::Live) {
            loads.push(Load::new("live", main, "/health/live", 200));
        }
        if self.wants(Topic::Poll) || self.wants(Topic::Drawn) || self.wants(Topic::Reject) {
            let tokens = self.at(main).join(100)?;
            loads.push(self.poll_load("poll", main, &tokens)?);
            // What the kernel, the HTTP stack and wrk make of the same request and an answer of the same size, with
            // nothing done in between.
            loads.push(self.poll_load("hello-poll", hello, &tokens)?);
        }
        if self.wants(Topic::Poll)
            && let Some(build) = self.options.against.clone()
        {
            let older = self.filled_server("older", Some(build))?;
            loads.push(self.polls_of_new("older poll", older)?);
        }
        if self.wants(Topic::Drawn) {
            let tokens = self.drawn(main, SMALL_CROWD / 5)?;
            loads.push(self.poll_load("drawn", main, &tokens)?);
        }
        if [Topic::Document, Topic::Pages, Topic::Nginx].iter().any(|topic| self.wants(*topic)) {
            self.add_beside_one_poll(main, &mut loads)?;
        }
        if self.wants(Topic::Join) {
            // A server of its own: the joins must not swell the crowd that the polls see.
            let joins = self.server("joins", None, Settings::new())?;
            loads.push(Self::join_load("join", joins));
            loads.push(Self::join_load("hello-join", hello));
        }
        if self.wants(Topic::Seats) {
            loads.extend(self.seat_loads(main)?);
        }
        if self.wants(Topic::Reject) {
            loads.push(self.reject_load(main)?);
        }
        Ok(loads)
    }

    /// The same token again and again, so that no script is needed; what is compared with that.
    fn add_beside_one_poll(&mut self, main: Id, loads: &mut Vec<Load>) -> Result<(), String> {
        let token = self.at(main).join(1)?.pop().unwrap_or_default();
        let [accept, encoding] = READER;
        let poll = [("QUEUE-TOKEN", token.as_str()), accept, encoding];
        loads.push(Load::new("one poll", main, QUEUE_PATH, 200).headers(&poll));
        if self.wants(Topic::Document) {
            let path = format!("{QUEUE_PATH}/main");
            loads.push(Load::new("document", main, &path, 200).headers(&READER));
        }
        if self.wants(Topic::Pages) {
            let browser = [("accept", "text/html"), encoding];
            for (name, path) in [("waiting page", "/wait/main?c=1"), ("concert page", "/c/1")] {
                loads.push(Load::new(name, main, path, 200).headers(&browser));
            }
        }
        if self.wants(Topic::Nginx) {
            let answer = self.at(main).request("GET", QUEUE_PATH, &poll, None)?.body;
            let home = self.work.path().join("nginx");
            let nginx = Nginx::start(&home, QUEUE_PATH, &answer, &[SERVER_CPU])?;
            let nginx = self.add_server("nginx", Program::Nginx(nginx));
            loads.push(Load::new("nginx", nginx, QUEUE_PATH, 200).headers(&poll));
        }
        Ok(())
    }

    fn report_requests(&mut self, loads: &[Load]) -> Result<(), String> {
        let hello = must(loads, "hello")?;
        self.add(Row::cost(hello));
        let apart =
            ["hello", "reject", "document", "waiting page", "concert page", "nginx", "drawn"];
        for load in loads.iter().map(|load| &load.of) {
            if !apart.contains(&load.name.as_str()) {
                let target = match load.name.as_str() {
                    "poll" => Some(Target::AtMost(1.2)),
                    "join" => Some(Target::AtMost(1.3)),
                    _ => None,
                };
                self.add(Row::cost_beside(load, hello).target(target));
            }
        }
        if let Some(older) = named(loads, "older poll") {
            let poll = must(loads, "poll")?;
            let row = Row::new("poll, this build", poll.median(Figure::Cost), "µs CPU", 2).of(poll);
            let row = row.beside(poll, older, &older.name, Figure::Cost);
            self.add(row.target(Target::AtMost(1.02)));
        }
        if let Some(drawn) = named(loads, "drawn") {
            let row = Row::cost_beside(drawn, must(loads, "poll")?);
            self.add(row.target(Target::AtMost(1.05)));
        }
        if let Some(document) = named(loads, "document") {
            let row = Row::cost_beside(document, must(loads, "one poll")?);
            self.add(row.target(Target::AtMost(1.0)));
        }
        for (page, most) in [("waiting page", 2.5), ("concert page", 10.0)] {
            if let Some(page) = named(loads, page) {
                let row = Row::cost_beside(page, must(loads, "one poll")?);
                self.add(row.target(Target::AtMost(most)));
            }
        }
        if let Some(nginx) = named(loads, "nginx") {
            let poll = must(loads, "one poll")?;
            self.add(Row::cost_beside(nginx, poll));
            self.add(polls_beside(poll, nginx));
        }
        if let Some(reject) = named(loads, "reject") {
            let row = Row::cost_beside(reject, must(loads, "poll")?);
            self.add(row.target(Target::AtMost(1.5)));
        }
        Ok(())
    }

    /// Tokens of a queue that was drawn, of `count` users, and that lets hardly anybody in.
    fn drawn(&self, server: Id, count: u64) -> Result<Vec<String>, String> {
        let server = self.at(server);
        let opens_at = Timestamp::now() + SignedDuration::from_hours(1);
        let body = json!({
            "queue": "drawn",
            "opening": "draw",
            "admitPerSecond": 0.001,
            "opensAt": opens_at.to_string(),
        });
        server.admin("POST", "/admin/v1/queues", &body)?;
        let join =
            |n| server.join_as(&json!({"userId": n % 1000 + 1, "queue": "drawn"}), &[], &[201]);
        let mut tokens = (0..count).map(join).collect::<Result<Vec<_>, _>>()?;
        server.admin("PATCH", "/admin/v1/queues/drawn", &json!({"opensAt": null}))?;
        wait_for(server, 30.0, "nobody was drawn", |server| {
            let queue = server.call("GET", &format!("{QUEUE_PATH}/drawn"), &[], None, &[200])?;
            Ok((queue["drawCount"] == count).then_some(()))
        })?;
        tokens.truncate(100);
        Ok(tokens)
    }

    fn seat_loads(&self, server: Id) -> Result<[Load; 2], String> {
        let at = self.at(server);
        let headers = [("QUEUE-TOKEN", "bench_1"), ("Accept-Encoding", "gzip")];
        let answer = at.call("GET", "/api/v1/concerts/1/sessions", &headers, None, &[200])?;
        let session =
            answer["sessions"][0]["sessionId"].as_i64().ok_or("no session of the demo")?;
        let path = format!("/api/v1/concerts/1/sessions/{session}/seats");
        let reply = at.request("GET", &path, &headers, None)?;
        let etag = reply.header("etag").filter(|_| reply.status == 200);
        let etag = etag.ok_or_else(|| format!("GET {path}: {}, or no ETag", reply.status))?;
        let buyers: Vec<String> = (1..=100).map(|n| format!("bench_{n}")).collect();
        let tokens = self.token_file("seats", &buyers)?;
        let load = |name, expect| {
            Load::new(name, server, &path, expect)
                .script("poll.lua")
                .env("WRK_PATH", &path)
                .env("WRK_TOKENS", &tokens)
        };
        Ok([load("seats", 200), load("seats-304", 304).env("WRK_ETAG", etag)])
    }

    fn reject_load(&mut self, server: Id) -> Result<Load, String> {
        let session = self.new_session(server, 100, 100)?;
        let at = self.at(server);
        let path =
            format!("/api/v1/concerts/{}/sessions/{}/reservations", at.concert()?, session.id);
        let seats: Vec<i64> =
            (0..SEATS_PER_RESERVATION).map(|n| session.first_seat + i64::from(n)).collect();
        let holder = format!("bench_{BUYERS}");
        let body = json!({"userId": BUYERS, "seatIds": seats});
        at.call("POST", &path, &[("QUEUE-TOKEN", &holder)], Some(&body), &[201])?;
        let mut load = Load::new("reject", server, "/", 409).script("reserve.lua");
        // The holder is not among those who are rejected.
        load.env = self.reserve_env(server, &[session], BUYERS - 1)?;
        Ok(load.env("WRK_REPEAT", "1"))
    }
}

/// Polls a second, beside those of nginx.
fn polls_beside(poll: &Measured, nginx: &Measured) -> Row {
    let busy = poll.median(Figure::Busy).min(nginx.median(Figure::Busy));
    let note = (busy < BUSY_MIN).then(|| {
        format!(
            "the CPU was not full ({:.0}%): the rates are also those of wrk or of other programs",
            busy * 100.0
        )
    });
    Row::new("polls", poll.median(Figure::Rate), "/s", 0)
        .of(poll)
        .notes(note)
        .beside(poll, nginx, &nginx.name, Figure::Rate)
        .target(Target::AtLeast(1.0))
}
