//! People who are known by tokens, and gates that ask for passes.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use testbed::{process, tool, tools};

use super::load::{Load, must, wait_for};
use super::row::{Row, Target};
use super::servers::{Server, Settings};
use super::{Bench, QUEUE_PATH, Topic};
use crate::report::grouped;

/// How many people come for the first time.
const PEOPLE: u32 = 20_000;
/// How many passes somebody makes up.
const MADE_UP: u128 = 10_000;

impl Bench {
    /// People: everybody for the first time, then those who are known.
    pub(super) fn people(&mut self) -> Result<(), String> {
        if !self.wants(Topic::People) {
            return Ok(());
        }
        eprintln!("people who are known by their tokens, beside users who are believed");
        let (everybody, known) = self.mint()?;
        let first = self.token_file("known", &everybody[..1000])?;
        let mut start = |name: &str, each: &str| {
            let mut settings = known.clone();
            settings.insert("queue.one_place_each".to_owned(), each.to_owned());
            self.server(name, None, settings)
        };
        let one = start("one place each", "true")?;
        let many = start("many places", "false")?;
        let before = self.at(one).cpu_time()?;
        let began = Instant::now();
        // Everybody once, as fast as they are served.
        join_once(self.at(one), &everybody, self.options.connections as usize)?;
        let took = began.elapsed().as_secs_f64();
        let spent = self.at(one).cpu_time()?.since(&before);
        let cost = spent / everybody.len() as f64 * 1e6;
        self.add(Row::new("first join of a person", cost, "µs CPU", 2).notes([format!(
            "{} people in {took:.1} s; the token is checked (RS256), and the id is stored",
            grouped(everybody.len() as u64)
        )]));

        let joins = self.server("joins", None, Settings::new())?;
        let main = self.server("main", None, Settings::new())?;
        let tickets = join_people(self.at(one), &everybody[..100])?;
        let again = Load::new("join again", one, QUEUE_PATH, 200)
            .script("join.lua")
            .env("WRK_PEOPLE", &first);
        let mut loads = [
            Self::join_load("join of a user", joins),
            Self::join_load("join of a person", many).env("WRK_PEOPLE", &first),
            again,
            self.polls_of_new("poll of a user", main)?,
            self.poll_load("poll of a person", one, &tickets)?,
        ];
        self.interleave(&mut loads)?;
        for name in ["join of a user", "poll of a user"] {
            self.add(Row::cost(must(&loads, name)?));
        }
        for (name, reference, limit) in [
            ("join of a person", "join of a user", 2.0),
            ("join again", "join of a user", 2.0),
            ("poll of a person", "poll of a user", 1.1),
        ] {
            let row = Row::cost_beside(must(&loads, name)?, must(&loads, reference)?);
            self.add(row.target(Target::AtMost(limit)));
        }
        Ok(())
    }

    /// Mints tokens. Returns them, and the settings by which a server knows their people.
    fn mint(&self) -> Result<(Vec<String>, Settings), String> {
        let home = self.work.path().join("people");
        std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
        let mut command = Command::new(tool("node")?);
        command.arg(tools::root().join("scripts/lib/mint.mjs")).arg(&home);
        command.args([&PEOPLE.to_string(), "RS256"]);
        let said = process::run(command, b"", Duration::from_secs(300))?;
        if !said.status.success() {
            return Err(format!("no tokens were minted:\n{}", said.text()));
        }
        let known = super::servers::settings([
            ("auth.mode", "jwt".to_owned()),
            ("auth.issuer", "https://issuer.test".to_owned()),
            ("auth.audience", "boxoffice".to_owned()),
            ("auth.jwks_file", home.join("keys.json").display().to_string()),
        ]);
        Ok((lines_of(&home.join("people.txt"))?, known))
    }

    /// A gate, beside polls of those who wait and of those who are in.
    pub(super) fn gate(&mut self) -> Result<(), String> {
        if !self.wants(Topic::Gate) {
            return Ok(());
        }
        eprintln!("gates: passes that are good, and made up");
        let main = self.filled_server("main", None)?;
        let server = self.at(main);
        // A queue of its own: in the other one nobody is let in.
        server.admin("POST", "/admin/v1/queues", &json!({"queue": "gate"}))?;
        let join = |n: u32| server.join_as(&json!({"userId": n, "queue": "gate"}), &[], &[201]);
        let tickets = (1..=100).map(join).collect::<Result<Vec<_>, _>>()?;
        let passes = tickets.iter().map(|ticket| pass_of(server, ticket));
        let passes = passes.collect::<Result<Vec<_>, _>>()?;
        let made_up = (0..MADE_UP).map(|number| {
            make_up(&passes[0], number).ok_or_else(|| format!("no pass: {}", passes[0]))
        });
        let made_up = made_up.collect::<Result<Vec<_>, _>>()?;
        let path = "/gate/gate";
        let gate = |name, expect, passes: String| {
            let load = Load::new(name, main, path, expect).script("gate.lua");
            load.env("WRK_PATH", path).env("WRK_PASSES", passes)
        };
        let mut loads = [
            self.polls_of_new("poll beside a gate", main)?,
            self.poll_load("poll of those who are in", main, &tickets)?,
            gate("gate", 204, self.token_file("passes", &passes)?),
            gate("gate, made up", 401, self.token_file("made-up", &made_up)?),
        ];
        self.interleave(&mut loads)?;
        let [poll, inside, good, forged] = loads.map(|load| load.of);
        self.add(Row::cost(&poll));
        self.add(Row::cost_beside(&inside, &poll));
        for load in [good, forged] {
            self.add(Row::cost_beside(&load, &poll).target(Target::AtMost(2.0)));
        }
        Ok(())
    }
}

/// The pass of a ticket, once it is let in.
fn pass_of(server: &Server, ticket: &str) -> Result<String, String> {
    wait_for(server, 30.0, "nobody was let in", |server| {
        let headers = [("QUEUE-TOKEN", ticket)];
        let place = server.call("GET", QUEUE_PATH, &headers, None, &[200])?;
        let pass = place["pass"].as_str().filter(|_| place["status"] == "ACTIVATED");
        Ok(pass.map(str::to_owned))
    })
}

/// A pass as somebody would make it up who has seen one: all of it is right but for the ticket.
fn make_up(good: &str, number: u128) -> Option<String> {
    let [head, claims, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().ok()?;
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let claims: Value = serde_json::from_str(&text).ok()?;
    let ticket = claims["jti"].to_string();
    let other = URL_SAFE.encode(number.to_be_bytes());
    let other = Value::from(other.trim_end_matches('=')).to_string();
    // In the text, so that all else stays as it is.
    let claims = URL_SAFE_NO_PAD.encode(text.replace(&ticket, &other));
    Some(format!("{head}.{claims}.{signature}"))
}

fn lines_of(path: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn bearer(person: &str) -> String {
    format!("Bearer {person}")
}

/// Tickets of people, who have joined or join now.
fn join_people(server: &Server, people: &[String]) -> Result<Vec<String>, String> {
    let join = |person: &String| {
        let bearer = bearer(person);
        server.join_as(&json!({}), &[("Authorization", &bearer)], &[200, 201])
    };
    people.iter().map(join).collect()
}

/// Has each person join once, over so many connections. All must get a place.
fn join_once(server: &Server, people: &[String], connections: usize) -> Result<(), String> {
    let url = format!("{}{QUEUE_PATH}", server.url());
    let some = |number: usize| {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mine = people.iter().skip(number).step_by(connections);
        mine.filter(|person| {
            let request = agent.post(&url).header("Authorization", bearer(person));
            let answer = request.content_type("application/json").send("{}");
            answer.is_ok_and(|mut answer| {
                // Read to its end, so that the connection is kept.
                answer.status() == 201 && answer.body_mut().read_to_vec().is_ok()
            })
        })
        .count()
    };
    let joined: usize = std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..connections).map(|number| scope.spawn(move || some(number))).collect();
        all.into_iter().map(|one| one.join().unwrap_or(0)).sum()
    });
    match joined == people.len() {
        true => Ok(()),
        false => Err(format!("{joined} of {} people joined", people.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_made_up_with_another_ticket_alone() {
        let claims = r#"{"sub":"u","jti":"AAECAwQFBgcICQoLDA0ODw","aud":"gate","exp":9}"#;
        let good = format!("head.{}.signature", URL_SAFE_NO_PAD.encode(claims));
        let made_up = make_up(&good, 258).unwrap();
        let parts: Vec<&str> = made_up.split('.').collect();
        assert_eq!((parts[0], parts[2], made_up.len()), ("head", "signature", good.len()));
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        assert_eq!(text, claims.replace("AAECAwQFBgcICQoLDA0ODw", "AAAAAAAAAAAAAAAAAAABAg"));
        assert_eq!(make_up("no pass", 1), None);
    }
}
