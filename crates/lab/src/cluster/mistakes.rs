//! Wrong settings and sick engines: what does not start, and what goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use testbed::process::run;
use testbed::redis::IN_MEMORY;
use testbed::{Instance, RedisServer};

use super::shop::{Buyer, Hall, call, hold};
use super::swarm::{Client, Joins, Rush, at_once, joins, request};
use super::{Check, Checks, QUEUES, one_line, pause, wait_until};
use crate::clock;
use crate::witness::Seconds;

/// How far the replica is behind, and how old its lists must be at least: its clock counts whole seconds.
const LAG_S: u32 = 4;
const LAG_SEEN_S: Seconds = 2.0;
/// How long lists are looked at that must not go back.
const LOOKED_AT_S: Seconds = 3.0;
const JOINS: usize = 300;
/// Two beats: by then no instance takes another for one that still has Redis, and leaves joins to it.
const AGREED_S: Seconds = 1.0;
/// A password that must not be in any message.
const WRONG: &str = "wr0ng";

/// Says what is wrong with how an instance did not start.
fn judge_refusal(what: &str, said: &str, parts: &[&str]) -> Option<String> {
    let text = one_line(said);
    let missing: Vec<&&str> = parts.iter().filter(|part| !text.contains(**part)).collect();
    if text.contains("ended with code") && missing.is_empty() {
        return None;
    }
    Some(format!("{what}: {missing:?} is not in: {}", end_of(&text, 700)))
}

/// The line of a log that says why something did not start.
fn why(said: &str) -> String {
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    last.map_or_else(|| "(nothing)".to_owned(), |line| end_of(line, 300))
}

fn end_of(text: &str, most: usize) -> String {
    text.chars().skip(text.chars().count().saturating_sub(most)).collect()
}

/// Says what is wrong with joins before, during and after a time in which Redis was sick.
fn judge_sick(what: &str, parts: &[&Joins; 3]) -> Vec<String> {
    let mut wrong = Vec::new();
    let numbers = |joins: &Joins| joins.made.iter().map(|join| join.number).collect::<Vec<u64>>();
    let [before, during, after] = parts.map(numbers);
    let all: Vec<u64> = [&before[..], &during, &after].concat();
    let twice = all.len() - all.iter().collect::<BTreeSet<_>>().len();
    let refused: Vec<_> = parts.iter().flat_map(|joins| &joins.refused).collect();
    if !refused.is_empty() || twice > 0 || all.len() != JOINS * 3 {
        wrong.push(format!(
            "{what}: {} of {} joined, {refused:?} refused, {twice} numbers twice",
            all.len(),
            JOINS * 3
        ));
    }
    if before.iter().max() >= during.iter().min() {
        wrong.push(format!("{what}: a number went back"));
    }
    wrong
}

/// Says what is wrong with an instance that reads from a replica: how many lists took its own hold back, when a hold
/// elsewhere was shown, whether another was not yet, how who wanted that seat was refused, and how many lists said
/// afterwards that it is free.
fn judge_lag(own: usize, late: Seconds, old: bool, told: &str, refused: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    if own > 0 {
        wrong.push(format!("{own} lists said that the own hold was none"));
    }
    if late < LAG_SEEN_S || !old {
        wrong.push(format!("a list was only {late:.1} s old: the replica does not lag"));
    }
    if told != "409 SEAT_TAKEN" {
        wrong.push(format!("a seat that is gone was answered {told}"));
    }
    if refused > 0 {
        wrong.push(format!("{refused} lists said that a seat is free after its hold was refused"));
    }
    wrong
}

/// Status and state of a dependency, as an instance says whether it is ready.
fn health(instance: &Instance, name: &str) -> Result<(u16, Option<String>), String> {
    let reply = instance.request("GET", "/health/ready", &[], None)?;
    let said = reply.json()?;
    let parts = said["dependencies"].as_array();
    let part = parts.and_then(|all| all.iter().find(|part| part["name"] == name));
    let state = part.and_then(|part| Some(part["status"].as_str()?.to_owned()));
    Ok((reply.status, state))
}

fn is_health(instance: &Instance, name: &str, status: u16, state: &str) -> Result<bool, String> {
    Ok(health(instance, name)? == (status, Some(state.to_owned())))
}

fn log_of(instance: &Instance) -> Result<String, String> {
    let log = std::fs::read(&instance.log);
    let log = log.map_err(|error| format!("{}: {error}", instance.log.display()))?;
    Ok(String::from_utf8_lossy(&log).into_owned())
}

/// What an instance says in its list of seats.
struct Lists<'a> {
    instance: &'a Instance,
    hall: &'a Hall,
    reader: &'a Buyer,
}

impl Lists<'_> {
    /// Whether it says that a seat is free.
    fn shows_free(&self, seat: u64) -> Result<bool, String> {
        let token = Some(self.reader.token.as_str());
        let list = call(self.instance, 200, "GET", &self.hall.seats(), token, None)?;
        let rows = ["availableSeats", "unavailableSeats"]
            .into_iter()
            .filter_map(|name| list[name].as_array())
            .flatten();
        let id = self.hall.first_seat + seat;
        let row = rows.into_iter().find(|row| row["seatId"].as_u64() == Some(id));
        let status = row.and_then(|row| row["status"].as_str());
        status.map(|it| it == "AVAILABLE").ok_or_else(|| format!("seat {id} is in no list"))
    }

    /// How many lists of some seconds say that a seat is free that is not.
    fn undone(&self, seat: u64) -> Result<usize, String> {
        let until = clock::now() + LOOKED_AT_S;
        let mut count = 0;
        while clock::now() < until {
            count += usize::from(self.shows_free(seat)?);
            pause(0.02)?;
        }
        Ok(count)
    }
}

impl Checks<'_> {
    pub(super) fn mistakes(&mut self) -> Result<(), String> {
        let url = self.cluster.settings["store.mysql.url"].clone();
        self.other_clusters(&url)?;
        self.schemas()?;
        self.cluster.database.run(
            "CREATE USER shop@'127.0.0.1' IDENTIFIED BY 'right'; GRANT ALL ON boxoffice.* TO shop@'127.0.0.1'",
        )?;
        let wrong = url.replace("root@", &format!("shop:{WRONG}@"));
        let what = "a wrong password of MariaDB";
        let said = self.refused(what, &["refuses the user shop"], &[("store.mysql.url", &wrong)]);
        self.found.expect(!said.contains(WRONG), || "the password is in the message".to_owned());
        self.redis_password()?;
        self.sick_redis()?;
        self.kafka_login()?;
        self.lagging_replica()
    }

    /// An instance with these settings does not start, and says why. Returns what it said.
    fn refused(&mut self, what: &str, parts: &[&str], settings: &[(&str, &str)]) -> String {
        let label = format!("refused-{}", self.found.rows.len());
        match self.extra(&label, "/health/ready", settings) {
            Err(said) => {
                self.found.wrong(judge_refusal(what, &said, parts));
                let text = format!("does not start: {}", why(&said));
                self.found.record(Check::Mistakes, what, text);
                said
            }
            Ok(mut instance) => {
                instance.stop();
                self.found.wrong([format!("{what}: it started")]);
                String::new()
            }
        }
    }

    fn ends_well(&mut self, what: &str, instance: &mut Instance) {
        let code = instance.stop();
        self.found.expect(code == 0, || format!("{what} ended with code {code}"));
    }

    fn other_clusters(&mut self, url: &str) -> Result<(), String> {
        let sql = "CREATE DATABASE other CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
        self.cluster.database.run(sql)?;
        let other = url.replace("/boxoffice", "/other");
        let prefix = ["queue.redis.prefix"];
        let what = "another cluster under the same prefix";
        self.refused(what, &prefix, &[("store.mysql.url", &other)]);
        let settings = [
            ("store.mysql.url", other.as_str()),
            ("queue.redis.prefix", "other"),
            ("events.kafka.topic_prefix", "other."),
        ];
        let mut neighbour = self.extra("neighbour", "/health/ready", &settings)?;
        let body = json!({"userId": 1});
        let joined = call(&neighbour, 201, "POST", QUEUES, None, Some(&body))?;
        let number = &joined["waitingNumber"];
        self.found
            .expect(*number == 1, || format!("the neighbour's first fan has number {number}"));
        self.ends_well("the neighbour", &mut neighbour);
        let what = "another cluster under its own prefix";
        self.found.record(Check::Mistakes, what, "sells beside the first".to_owned());
        let key = "k".repeat(43);
        self.refused("another signing key", &["signing"], &[("ticket.signing_key", &key)]);
        self.refused("SQLite at the same queue", &prefix, &[("store.kind", "sqlite")]);
        Ok(())
    }

    fn set_schema(&self, version: i64) -> Result<(), String> {
        let sql = format!("UPDATE boxoffice.schema_version SET version = {version}");
        self.cluster.database.run(&sql).map(drop)
    }

    fn schemas(&mut self) -> Result<(), String> {
        let sql = "SELECT MAX(version) FROM boxoffice.schema_version";
        let version = self.cluster.database.number(sql)?;
        self.set_schema(version + 1)?;
        let tried = self.with_newer_schema();
        self.set_schema(version)?;
        tried?;
        let what = "a schema from the past";
        if version > 1 {
            self.set_schema(version - 1)?;
            self.refused(what, &["boxoffice migrate"], &[]);
            self.set_schema(version)?;
        } else {
            let text = format!("there is none yet: this is version {version}");
            self.found.record(Check::Mistakes, what, text);
        }
        Ok(())
    }

    fn with_newer_schema(&mut self) -> Result<(), String> {
        const WHY: &str = "newer boxoffice";
        self.refused("a schema from the future", &[WHY], &[]);
        for name in ["migrate", "audit"] {
            // As if no instance of its data directory were there.
            let mut command = self.first().commands().command(&[name]);
            command.env("BOXOFFICE_DATA_DIR", self.cluster.directory.join("offline"));
            command.env_remove("BOXOFFICE_SERVER__LISTEN");
            let said = run(command, b"", Duration::from_secs(60))?;
            self.found.expect(!said.status.success() && said.text().contains(WHY), || {
                let end = end_of(&said.text(), 300);
                format!("{name} on a newer schema: {} {end}", said.status)
            });
        }
        Ok(())
    }

    fn redis_password(&mut self) -> Result<(), String> {
        let user = ["ACL", "SETUSER", "shop", "on", ">right", "~*", "&*", "+@all"];
        self.redis()?.ask(&user)?;
        let settings = [("queue.redis.user", "shop"), ("queue.redis.password", WRONG)];
        let mut lost = self.extra("lost", "/health/live", &settings)?;
        // The others have Redis, and with it the lower numbers: it says so, and takes no joins.
        wait_until("redis is missed", || is_health(&lost, "redis", 503, "DOWN"))?;
        let join = request("POST", QUEUES, &[], Some(&json!({"userId": 1})));
        let answer = Client::connect(lost.port)?.send(&join)?;
        self.found.expect(answer.status() == 503 && answer.retry_after.is_some(), || {
            format!("a join was answered {}", answer.text())
        });
        let log = log_of(&lost)?;
        self.found.expect(log.contains("queue.redis.password"), || {
            format!("the log does not say why: {}", lost.log_tail(15))
        });
        self.found.expect(!log.contains(WRONG), || "the password is in the log".to_owned());
        let body = json!({"userId": 2});
        let joined = call(self.first(), 201, "POST", QUEUES, None, Some(&body))?;
        let token = joined["token"].as_str();
        let told = call(&lost, 200, "GET", QUEUES, token, None)?;
        let status = told["status"].as_str().unwrap_or_default();
        self.found.expect(matches!(status, "WAITING" | "ACTIVATED"), || {
            format!("a ticket of the others is {status} there")
        });
        self.ends_well("an instance with a wrong password of Redis", &mut lost);
        let text = "starts, is not ready and says why; joins are refused, polls answered";
        self.found.record(Check::Mistakes, "a wrong password of Redis", text.to_owned());
        Ok(())
    }

    fn sick_redis(&mut self) -> Result<(), String> {
        let mut empty = RedisServer::start(&self.work.join("empty-redis"), &[], &IN_MEMORY)?;
        let port = empty.port.to_string();
        self.sick(
            "Redis with maxmemory reached",
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "SET", "maxmemory", "0"],
        )?;
        self.sick(
            "Redis as a read-only replica",
            &["REPLICAOF", "127.0.0.1", &port],
            &["REPLICAOF", "NO", "ONE"],
        )?;
        empty.engine.stop();
        Ok(())
    }

    fn sick(&mut self, what: &str, begin: &[&str], end: &[&str]) -> Result<(), String> {
        let ports = self.ports();
        let some =
            || joins(&ports, Rush { queue: "main", total: JOINS, connections: 30, threads: 1 });
        let instances = &self.cluster.instances;
        let before = some()?;
        self.redis()?.ask(begin)?;
        let mut since = None;
        let mut meanwhile = || {
            wait_until(&format!("{what} at all instances"), || {
                for one in instances {
                    if !is_health(one, "redis", 200, "DEGRADED")? {
                        since = None;
                        return Ok(false);
                    }
                }
                Ok(clock::now() - *since.get_or_insert_with(clock::now) > AGREED_S)
            })?;
            some()
        };
        let during = meanwhile();
        self.redis()?.ask(end)?;
        let during = during?;
        let mut took: Seconds = 0.0;
        for one in instances {
            let what = format!("the end of {what} at {}", one.label);
            took = took.max(wait_until(&what, || is_health(one, "redis", 200, "UP"))?);
        }
        let after = some()?;
        self.found.wrong(judge_sick(what, &[&before, &during, &after]));
        let text = format!(
            "DEGRADED, {} of {JOINS} joins go on, no number twice; UP within {took:.1} s after",
            during.made.len()
        );
        self.found.record(Check::Mistakes, what, text);
        Ok(())
    }

    fn kafka_login(&mut self) -> Result<(), String> {
        let settings = [
            ("events.kafka.security", "sasl_plaintext"),
            ("events.kafka.username", "shop"),
            ("events.kafka.password", WRONG),
            ("events.kafka.delivery_timeout_ms", "2000"),
        ];
        let mut lost = self.extra("no-kafka", "/health/ready", &settings)?;
        let path = "/api/v1/users/1/points/charge";
        call(&lost, 200, "PATCH", path, None, Some(&json!({"amount": 1})))?;
        let log = log_of(&lost)?;
        self.found.expect(!log.contains(WRONG), || "the password is in the log".to_owned());
        let (status, part) = health(&lost, "events")?;
        self.found
            .expect(status == 200, || format!("an instance without Kafka is not ready: {status}"));
        // The others carry its events away: they share the outbox.
        wait_until("its events are carried away", || {
            Ok(self.cluster.database.number("SELECT COUNT(*) FROM boxoffice.outbox")? == 0)
        })?;
        self.ends_well("an instance without Kafka", &mut lost);
        let part = part.unwrap_or_else(|| "not mentioned".to_owned());
        let text = format!("sells (events {part}); the others carry its events away");
        self.found.record(Check::Mistakes, "a login that Kafka does not have", text);
        Ok(())
    }

    /// A replica that is seconds behind: lists may be old elsewhere, what was done here is not undone, and the primary
    /// decides.
    fn lagging_replica(&mut self) -> Result<(), String> {
        let home = self.work.join("replica");
        let mut replica = self.cluster.database.replica(&home, &[], LAG_S)?;
        let hall = self.hall(10, 10)?;
        let buyers = self.buyers(4)?;
        let url = replica.url(replica.port);
        let settings = [("store.mysql.replica_url", url.as_str())];
        let mut instance = self.extra("reader", "/health/ready", &settings)?;
        let lists = Lists { instance: &instance, hall: &hall, reader: &buyers[3] };
        // Done here: shown at once, and never taken back by the replica.
        hold(&instance, &hall, &buyers[0], 0)?;
        let own = lists.undone(0)?;
        // Done elsewhere: shown late …
        hold(self.first(), &hall, &buyers[1], 1)?;
        let late = wait_until("the hold elsewhere shows", || Ok(!lists.shows_free(1)?))?;
        // … and refused at once, after which it is shown.
        hold(self.first(), &hall, &buyers[1], 2)?;
        let old = lists.shows_free(2)?;
        let wanting = [(instance.port, hall.reserving(&buyers[2], 2, None))];
        let answer = at_once(&wanting)?.remove(0);
        let refused = lists.undone(2)?;
        self.found.wrong(judge_lag(own, late, old, &answer.reply.to_string(), refused));
        let text = format!(
            "a hold elsewhere shows after {late:.1} s; before that the primary refuses the seat; own holds and refused \
             seats show at once and stay"
        );
        self.found.record(Check::Mistakes, &format!("a replica that is {LAG_S} s behind"), text);
        self.ends_well("the reader of the replica", &mut instance);
        replica.engine.stop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::swarm::Join;
    use super::*;

    #[test]
    fn a_refusal_ends_and_says_why() {
        let said = "refused-1 ended with code 2 before it was ready:\n    a line\n    see queue.redis.prefix\n\n";
        assert_eq!(judge_refusal("x", said, &["queue.redis.prefix"]), None);
        assert_eq!(why(said), "see queue.redis.prefix");
        assert_eq!(why("\n"), "(nothing)");
        let found = judge_refusal("x", said, &["signing"]).unwrap();
        assert!(found.starts_with("x: [\"signing\"] is not in: refused-1 ended"), "{found}");
        let hangs = "refused-1 was not ready within 20 s: see queue.redis.prefix";
        assert!(judge_refusal("x", hangs, &["queue.redis.prefix"]).is_some());
        assert_eq!(end_of("größer", 4), "ößer");
    }

    fn joins(numbers: impl Iterator<Item = u64>) -> Joins {
        let made = numbers.map(|number| Join {
            asked: 0.0,
            answered: 0.0,
            instance: 0,
            number,
            token: String::new(),
        });
        Joins { made: made.collect(), ..Joins::default() }
    }

    #[test]
    fn numbers_of_a_sick_redis_are_judged() {
        let [before, during, after] = [1..=300, 1_001..=1_300, 301..=600].map(joins);
        assert_eq!(judge_sick("x", &[&before, &during, &after]), [""; 0]);
        let again = joins(300..=599);
        let found = judge_sick("x", &[&before, &during, &again]);
        assert_eq!(found, ["x: 900 of 900 joined, [] refused, 1 numbers twice"]);
        let mut some = joins(1_001..=1_299);
        some.refused.insert(503, 1);
        let found = judge_sick("x", &[&before, &some, &after]);
        assert_eq!(found, ["x: 899 of 900 joined, [(503, 1)] refused, 0 numbers twice"]);
        let found = judge_sick("x", &[&during, &before, &after]);
        assert_eq!(found, ["x: a number went back"]);
    }

    #[test]
    fn each_fault_of_a_reader_is_found() {
        let taken = "409 SEAT_TAKEN";
        assert_eq!(judge_lag(0, 4.1, true, taken, 0), [""; 0]);
        for (found, part) in [
            (judge_lag(2, 4.1, true, taken, 0), "2 lists said that the own hold"),
            (judge_lag(0, 0.4, true, taken, 0), "only 0.4 s old"),
            (judge_lag(0, 4.1, false, taken, 0), "does not lag"),
            (judge_lag(0, 4.1, true, "201 ", 0), "a seat that is gone was answered 201"),
            (judge_lag(0, 4.1, true, taken, 3), "3 lists said that a seat is free"),
        ] {
            assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
        }
    }
}
