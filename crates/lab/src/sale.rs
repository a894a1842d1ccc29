//! A whole sale as fans see it: simulated browsers and real ones buy a hall empty at a cluster, of which an
//! instance is killed in the middle. What each of them was told in the end is held against the books.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use testbed::process::{log_to, mortal, tail};
use testbed::{Cluster, ClusterOptions, Process, Workdir, process, signals, tools};

use crate::clock;
use crate::progress::Progress;
use crate::report::{copy_logs, grouped, in_days, keep, now_text, results_dir};
use crate::witness::{Books, Events, Seconds, State};

/// Browsers buy a hall empty at a cluster while an instance is killed; then what they were told against the books
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How many simulated browsers (k6 with the requests of the pages)
    #[arg(long, default_value_t = 980)]
    browsers: u32,
    /// How many tabs of a real browser are among them
    #[arg(long, default_value_t = 20)]
    tabs: u32,
    /// How many seats there are
    #[arg(long, default_value_t = 500)]
    seats: u32,
    /// How many instances
    #[arg(long, default_value_t = 3)]
    instances: usize,
    /// Kills nobody
    #[arg(long)]
    whole: bool,
    /// Where logs go [default: target/sale/…]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Does not build the service first
    #[arg(long)]
    no_build: bool,
}

const QUEUE: &str = "evening";
/// Members of the demonstration.
const MEMBERS: u32 = 1_000;
/// All have come after so many seconds.
const WITHIN_S: u32 = 20;
const PATIENCE_S: Seconds = 300.0;

/// Plays it. Returns whether nothing contradicts anything.
pub(crate) fn main(arguments: &Arguments) -> Result<bool, String> {
    if arguments.browsers + arguments.tabs > MEMBERS {
        return Err(format!("--browsers and --tabs: there are {MEMBERS} members"));
    }
    for tool in ["k6", "haproxy", "node", "chromium", "playwright"] {
        tools::tool(tool)?;
    }
    if !arguments.no_build {
        tools::build("boxoffice", &["--bin", "boxoffice"])?;
    }
    tools::boxoffice()?;
    process::raise_file_limit(16_384, "a sale")?;
    let out = results_dir("sale", arguments.out.as_deref(), &now_text())?;
    let work = Workdir::temporary()?;
    let played = play(arguments, work.path(), &out);
    copy_logs(work.path(), &out);
    let (told, books, audit) = played?;
    let people = arguments.browsers + arguments.tabs;
    let wrong = judge(&told, &books, people, arguments.seats);
    let count = |end: &str| told.ends.values().filter(|it| it.name() == end).count();
    println!(
        "{people} fans at {} instances: {} bought {} seats in all, {} were told that all is sold, {} contradictions; {audit}",
        arguments.instances,
        count("bought"),
        told.ends.values().map(|end| end.seats().len()).sum::<usize>(),
        count("sold-out"),
        wrong.len(),
    );
    for line in wrong.iter().take(30) {
        println!("  {line}");
    }
    keep(&out.join("told.txt"), &wrong.join("\n"))?;
    println!("logs in {}", out.display());
    Ok(wrong.is_empty() && audit.ends_with("clean"))
}

/// How it ended for somebody, in their own words.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "end", rename_all = "kebab-case")]
enum End {
    /// They have seats, and have paid.
    Bought { reservation: i64, seats: Vec<i64> },
    /// They were told that there is nothing left.
    SoldOut,
    /// They were told nothing that they could go on with.
    Stuck { why: String },
}

impl End {
    const fn name(&self) -> &'static str {
        match self {
            Self::Bought { .. } => "bought",
            Self::SoldOut => "sold-out",
            Self::Stuck { .. } => "stuck",
        }
    }

    fn seats(&self) -> &[i64] {
        match self {
            Self::Bought { seats, .. } => seats,
            Self::SoldOut | Self::Stuck { .. } => &[],
        }
    }
}

/// What all of them were told.
#[derive(Debug, Default)]
struct Told {
    /// By member.
    ends: BTreeMap<i64, End>,
    /// What contradicted itself.
    wrong: Vec<String>,
}

impl Told {
    /// Takes the lines that begin as JSON does; programs say other things, too.
    fn take(&mut self, text: &str) -> Result<(), String> {
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let said: Value =
                serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
            let user = said["user"].as_i64().ok_or_else(|| format!("nobody says {line}"))?;
            if let Some(wrong) = said["wrong"].as_str() {
                self.wrong.push(format!("member {user}: {wrong}"));
                continue;
            }
            let end = End::deserialize(&said).map_err(|error| format!("{error}: {line}"))?;
            if self.ends.insert(user, end).is_some() {
                self.wrong.push(format!("member {user}: ended twice"));
            }
        }
        Ok(())
    }
}

/// Returns what contradicts anything: in what somebody was told, or between that and the books.
fn judge(told: &Told, books: &Books, people: u32, seats: u32) -> Vec<String> {
    let mut wrong = told.wrong.clone();
    let missing = people as usize - told.ends.len().min(people as usize);
    if missing > 0 {
        wrong.push(format!("{missing} of {people} fans said nothing in the end"));
    }
    for (user, end) in &told.ends {
        match end {
            End::Stuck { why } => wrong.push(format!("member {user} was stuck: {why}")),
            End::SoldOut => {}
            End::Bought { reservation, seats } => {
                let stored = books.reservations.get(reservation);
                let mut sorted = seats.clone();
                sorted.sort_unstable();
                let is_theirs = stored.is_some_and(|it| {
                    it.user == *user && it.state == State::Paid && it.seats == sorted
                });
                if !is_theirs {
                    wrong.push(format!("member {user} has a ticket for {seats:?} with reservation {reservation}, and the books have {stored:?}"));
                }
            }
        }
    }
    let mut sold = BTreeSet::new();
    for (number, stored) in books.reservations.iter().filter(|(_, it)| it.state == State::Paid) {
        for seat in &stored.seats {
            if !sold.insert(seat) {
                wrong.push(format!("seat {seat} is sold twice"));
            }
        }
        let knows = matches!(told.ends.get(&stored.user), Some(End::Bought { reservation, .. }) if reservation == number);
        if !knows {
            let user = stored.user;
            wrong.push(format!("reservation {number} is paid, and member {user} does not know"));
        }
    }
    let was_told = told.ends.values().filter(|end| **end == End::SoldOut).count();
    if was_told > 0 && sold.len() < seats as usize {
        let left = seats as usize - sold.len();
        wrong.push(format!("{was_told} fans were told that all is sold, and {left} seats are not"));
    }
    wrong
}

fn play(arguments: &Arguments, work: &Path, out: &Path) -> Result<(Told, Books, String), String> {
    let mut options = ClusterOptions::new("sale", arguments.instances);
    options.settings.insert("log.format".to_owned(), "text".to_owned());
    eprintln!("starting {} instances, haproxy, MariaDB, Redis and Kafka …", arguments.instances);
    let mut cluster = Cluster::start(work, &options)?;
    let (concert, session) = shop(&cluster, arguments.seats)?;
    let mut browsers = Crowd::k6(&cluster.url(), (concert, session), arguments, out)?;
    let mut tabs = Crowd::tabs(&cluster.url(), (concert, session), arguments, out)?;
    let mut is_whole = arguments.whole;
    let mut progress = Progress::new(10.0);
    let until = clock::now() + PATIENCE_S;
    loop {
        let run = [browsers.runs()?, tabs.runs()?];
        if run == [false, false] {
            break;
        }
        if signals::stopped() {
            return Err("stopped by hand".to_owned());
        }
        if clock::now() > until {
            return Err(format!("not over after {PATIENCE_S:.0} s"));
        }
        let sold = cluster.database.number(&format!(
            "SELECT COUNT(*) FROM boxoffice.seat WHERE state = 2 AND session_id = {session}"
        ))?;
        progress.show(format!(
            "{} of {} seats sold",
            grouped(sold.unsigned_abs()),
            arguments.seats
        ));
        if !is_whole && sold >= i64::from(arguments.seats) * 2 / 5 {
            is_whole = true;
            let name = cluster.names().pop().ok_or("there is no instance to kill")?;
            eprintln!("  {sold} seats are sold: kill -9 of {name}");
            cluster.instance(&name)?.kill();
            cluster.instances.retain(|instance| instance.label != name);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    progress.clear();
    let mut told = Told::default();
    told.take(&browsers.said()?)?;
    told.take(&tabs.said()?)?;
    let books = Books::read(&cluster.database, &Events::new(out.join("no-events.jsonl")))?;
    let code = cluster.stop();
    let audit = cluster.audit()?;
    keep(&out.join("audit.txt"), &audit.output)?;
    let audit = match (code, audit.clean) {
        (0, true) => "audit clean".to_owned(),
        (0, false) => format!("the audit found something:\n{}", audit.output),
        (code, _) => format!("an instance ended with code {code}"),
    };
    Ok((told, books, audit))
}

/// A concert behind a line of its own, with one evening. Returns concert and session.
fn shop(cluster: &Cluster, seats: u32) -> Result<(i64, i64), String> {
    let first = cluster.instances.first().ok_or("there is no instance")?;
    let queue = json!({ "queue": QUEUE, "admitPerSecond": 25 });
    first.admin("POST", "/admin/v1/queues", Some(&queue))?;
    let concert = json!({
        "name": "한강의 밤", "venue": "Riverside Hall", "queue": QUEUE,
        "reservationOpensAt": in_days(-1), "reservationClosesAt": in_days(30),
    });
    let id = |made: &Value, name: &str| {
        made[name].as_i64().ok_or_else(|| format!("made without {name}: {made}"))
    };
    let concert = id(&first.admin("POST", "/admin/v1/concerts", Some(&concert))?, "concertId")?;
    let session = json!({ "concertAt": in_days(40), "seatCount": seats, "price": 1_000 });
    let path = format!("/admin/v1/concerts/{concert}/sessions");
    let made = id(&first.admin("POST", &path, Some(&session))?, "sessionId")?;
    // Nobody is told of a concert before every instance has heard of it.
    let path = format!("/api/v1/concerts/{concert}");
    let until = clock::now() + 10.0;
    for instance in &cluster.instances {
        let knows = || {
            let reply = instance.request("GET", &path, &[], None).ok()?;
            let sessions = reply.json().ok()?["sessions"].as_array()?.len();
            (reply.status == 200 && sessions == 1).then_some(())
        };
        while knows().is_none() {
            if clock::now() > until {
                return Err(format!("{} does not hear of the concert", instance.label));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok((concert, made))
}

/// A program whose people say in lines of JSON what they are told.
#[derive(Debug)]
struct Crowd {
    process: Process,
    said: PathBuf,
    log: PathBuf,
    has_ended: bool,
}

impl Crowd {
    fn k6(
        url: &str,
        (concert, session): (i64, i64),
        arguments: &Arguments,
        out: &Path,
    ) -> Result<Self, String> {
        let (said, log) = (out.join("browsers.jsonl"), out.join("k6.log"));
        let mut command = mortal(&tools::tool("k6")?);
        command.args(["run", "--no-usage-report", "--no-color", "--log-format", "raw"]);
        command.arg("--log-output").arg(format!("file={}", said.display()));
        for (name, value) in [
            ("HOST", url.to_owned()),
            ("QUEUE", QUEUE.to_owned()),
            ("CONCERT", concert.to_string()),
            ("SESSION", session.to_string()),
            ("FANS", arguments.browsers.to_string()),
            ("FIRST_USER", "1".to_owned()),
            ("WITHIN", WITHIN_S.to_string()),
        ] {
            command.args(["-e", &format!("{name}={value}")]);
        }
        command.arg(tools::root().join("load/k6/browsers.js"));
        Self::start("k6", command, said, log)
    }

    fn tabs(
        url: &str,
        (concert, session): (i64, i64),
        arguments: &Arguments,
        out: &Path,
    ) -> Result<Self, String> {
        let (said, log) = (out.join("tabs.jsonl"), out.join("tabs.log"));
        let mut command = mortal(&tools::tool("node")?);
        command.arg(tools::root().join("scripts/lib/tabs.mjs")).arg(url).arg(&said);
        let first = arguments.browsers + 1;
        let numbers = [concert, session, first.into(), arguments.tabs.into(), WITHIN_S.into()];
        command.arg(QUEUE).args(numbers.map(|number| number.to_string()));
        command.env("CHROMIUM", tools::tool("chromium")?);
        Self::start("the tabs", command, said, log)
    }

    fn start(
        name: &str,
        mut command: std::process::Command,
        said: PathBuf,
        log: PathBuf,
    ) -> Result<Self, String> {
        log_to(&mut command, &log)?;
        Ok(Self { process: Process::spawn(name, command)?, said, log, has_ended: false })
    }

    /// Whether it still runs; an error where it has ended badly.
    fn runs(&mut self) -> Result<bool, String> {
        if let Some(ended) = self.process.ended()
            && !self.has_ended
        {
            if ended.code != 0 {
                let (name, code) = (&self.process.name, ended.code);
                return Err(format!("{name} ended with code {code}:\n{}", tail(&self.log, 15)));
            }
            self.has_ended = true;
        }
        Ok(!self.has_ended)
    }

    fn said(&self) -> Result<String, String> {
        std::fs::read_to_string(&self.said)
            .map_err(|error| format!("{}: {error}", self.said.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::Reservation;

    fn books(paid: &[(i64, i64, &[i64])]) -> Books {
        let mut books = Books::default();
        for (number, user, seats) in paid {
            let stored = Reservation {
                user: *user,
                session: 1,
                seats: seats.to_vec(),
                created_at: 0,
                held_until: 0,
                state: State::Paid,
                payment: Some(*number),
            };
            books.reservations.insert(*number, stored);
        }
        books
    }

    fn told(lines: &str) -> Told {
        let mut told = Told::default();
        assert_eq!(told.take(lines), Ok(()));
        told
    }

    const STORY: &str = "k6 says something of its own\n\
        {\"user\":1,\"end\":\"bought\",\"reservation\":7,\"payment\":3,\"seats\":[2,1]}\n\
        {\"user\":2,\"end\":\"bought\",\"reservation\":8,\"payment\":4,\"seats\":[3]}\n\
        {\"user\":3,\"end\":\"sold-out\"}\n";

    #[test]
    fn a_sale_that_went_well_has_nothing_wrong() {
        let books = books(&[(7, 1, &[1, 2]), (8, 2, &[3])]);
        assert_eq!(judge(&told(STORY), &books, 3, 3), Vec::<String>::new());
    }

    /// Each is planted in the story in which nothing is wrong.
    #[test]
    fn each_contradiction_is_found() {
        let well = || books(&[(7, 1, &[1, 2]), (8, 2, &[3])]);
        let mut cases: Vec<(&str, Told, Books, u32, u32)> = vec![
            ("1 of 4 fans said nothing", told(STORY), well(), 4, 3),
            ("1 fans were told that all is sold, and 1 seats are not", told(STORY), well(), 3, 4),
            ("member 2 has a ticket", told(STORY), books(&[(7, 1, &[1, 2])]), 3, 2),
            ("member 2 has a ticket", told(STORY), books(&[(7, 1, &[1, 2]), (8, 2, &[4])]), 3, 3),
            ("seat 2 is sold twice", told(STORY), books(&[(7, 1, &[1, 2]), (8, 2, &[2])]), 3, 2),
            (
                "reservation 9 is paid, and member 3 does not know",
                told(STORY),
                books(&[(7, 1, &[1, 2]), (8, 2, &[3]), (9, 3, &[4])]),
                3,
                4,
            ),
        ];
        let mut other = told(STORY);
        other.wrong.push("member 1: the number grew from 2 to 3".to_owned());
        cases.push(("the number grew", other, well(), 3, 3));
        let stuck = format!("{STORY}{{\"user\":4,\"end\":\"stuck\",\"why\":\"500\"}}\n");
        cases.push(("member 4 was stuck: 500", told(&stuck), well(), 4, 3));
        let twice = format!("{STORY}{{\"user\":3,\"end\":\"sold-out\"}}\n");
        cases.push(("member 3: ended twice", told(&twice), well(), 3, 3));
        for (wanted, told, books, people, seats) in cases {
            let wrong = judge(&told, &books, people, seats);
            assert!(wrong.iter().any(|line| line.contains(wanted)), "{wanted}: {wrong:?}");
        }
        assert!(Told::default().take("{\"user\":1,\"end\":\"flown\"}").is_err());
        assert!(Told::default().take("{\"end\":\"sold-out\"}").is_err());
    }
}
