//! What a reservation and a payment ask of MariaDB, a join and a poll of Redis.

use std::collections::{BTreeMap, HashMap};

use super::shop::{charge, hold, pay};
use super::swarm::{Client, Join, Rush, joins, poll};
use super::{Check, Checks, INSTANCES, pause};
use crate::clock;
use crate::report::grouped;

/// Of a purchase that comes alone (decisions/031): one looks for a session that was called off, and one at what the
/// ticket has held; a reservation of a new user makes an account.
const KINDS: [Kind; 2] = [
    Kind { name: "reservation", mark: "insert into reservation", most: 11 },
    Kind { name: "payment", mark: "insert into payment", most: 14 },
];
const ROUNDS: usize = 30;
/// Calls of Redis in a few seconds that polls are not to blame for: this many, or this share of those without polls.
const CALLS_BESIDE: u64 = 12;
const SHARE_BESIDE: f64 = 0.15;
const WATCHED_S: f64 = 3.0;

/// A kind of transaction.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    /// What only its transactions have.
    mark: &'static str,
    /// How many statements it may take.
    most: usize,
}

/// The statements of a transaction, its first and its last included.
type Transaction = Vec<String>;

/// An entry of a general log: connection, command, and the first line of its text.
fn entry(line: &str) -> Option<(u64, &str, &str)> {
    // The time stands only before the first entry of a second.
    let (head, rest) = line.split_at(line.find(|c: char| !"0123456789: \t".contains(c))?);
    let number = head.strip_suffix(' ')?.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    let (command, text) = rest.split_once('\t')?;
    // Else it is a line of a text that has a number in it.
    let is_entry = !head.starts_with(' ') && head.len() > number.len() + 1;
    let is_word = command.chars().all(|c| c.is_ascii_alphabetic() || c == ' ');
    if !is_entry || !is_word {
        return None;
    }
    Some((number.parse().ok()?, command, text))
}

/// Returns the transactions of a general log. Statements that are prepared are counted when they are executed.
/// Those that are sent together are one entry of the log.
fn transactions(log: &str) -> Vec<Transaction> {
    let mut packets: Vec<(u64, String)> = Vec::new();
    // Whether lines belong to the last packet.
    let mut goes_on = false;
    for line in log.lines() {
        if let Some((connection, command, text)) = entry(line) {
            goes_on = matches!(command, "Query" | "Execute");
            if goes_on {
                packets.push((connection, text.to_owned()));
            }
        } else if let Some((_, text)) = packets.last_mut().filter(|_| goes_on) {
            text.push('\n');
            text.push_str(line);
        }
    }
    let mut open: HashMap<u64, Transaction> = HashMap::new();
    let mut done = Vec::new();
    for (connection, packet) in packets {
        // No text of these purchases has a semicolon in it.
        for statement in packet.split(';') {
            let statement = super::one_line(statement);
            let lower = statement.to_lowercase();
            if lower.starts_with("start transaction") || lower.starts_with("begin") {
                open.insert(connection, vec![statement]);
            } else if let Some(own) = open.get_mut(&connection).filter(|_| !statement.is_empty()) {
                own.push(statement);
                if lower.starts_with("commit") || lower.starts_with("rollback") {
                    done.extend(open.remove(&connection));
                }
            }
        }
    }
    done
}

impl Kind {
    /// The transactions of this kind.
    fn of(self, all: &[Transaction]) -> Vec<&Transaction> {
        let is_ours = |text: &String| text.to_lowercase().replace('`', "").contains(self.mark);
        all.iter().filter(|one| one.iter().any(is_ours)).collect()
    }

    /// Says what is wrong with its transactions, of which there should be so many.
    fn judge(self, own: &[&Transaction], count: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        if own.len() != count {
            let (mark, found) = (self.mark, own.len());
            wrong
                .push(format!("the log has {found} transactions with `{mark}` instead of {count}"));
        }
        let longest = own.iter().map(|one| one.len()).max().unwrap_or(0);
        if longest == 0 || longest > self.most {
            wrong.push(format!("a {} took {longest} statements, not {}", self.name, self.most));
        }
        wrong
    }
}

/// Says what is wrong with how often Redis was called in the same time with polls and without.
fn judge_polls(polls: usize, busy: u64, idle: u64) -> Option<String> {
    let more = busy.saturating_sub(idle);
    let bearable = (idle as f64 * SHARE_BESIDE).max(CALLS_BESIDE as f64);
    (more as f64 > bearable).then(|| format!("{polls} polls cost {more} calls of Redis"))
}

impl Checks<'_> {
    pub(super) fn statements(&mut self) -> Result<(), String> {
        let log = self.logged()?;
        let all = transactions(&log);
        for kind in KINDS {
            let own = kind.of(&all);
            let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
            for one in &own {
                *counts.entry(one.len()).or_default() += 1;
            }
            let counts: Vec<String> =
                counts.iter().map(|(statements, count)| format!("{statements}: {count}")).collect();
            let text = format!("{} (statements: transactions)", counts.join(", "));
            self.found.record(Check::Statements, &format!("a {}", kind.name), text);
            self.found.wrong(kind.judge(&own, ROUNDS));
            for (number, text) in own.last().into_iter().flat_map(|last| last.iter()).enumerate() {
                let what = format!("{} {}", kind.name, number + 1);
                self.found.keep(Check::Statements, &what, text.clone());
            }
        }
        self.polls()
    }

    /// Lets some buy, one after another. Returns MariaDB's general log of that.
    fn logged(&mut self) -> Result<String, String> {
        let buyers = self.buyers(ROUNDS)?;
        let hall = self.hall(ROUNDS as u32, 10)?;
        for buyer in &buyers {
            charge(self.first(), buyer, 100)?;
        }
        let path = self.work.join("general.log");
        self.cluster.database.run(&format!(
            "SET GLOBAL general_log_file = '{}'; SET GLOBAL log_output = 'FILE'; SET GLOBAL general_log = ON",
            path.display()
        ))?;
        let mut bought = || {
            let mut held = Vec::new();
            for (seat, buyer) in buyers.iter().enumerate() {
                held.push(hold(self.any(), &hall, buyer, seat)?);
            }
            for (buyer, held) in buyers.iter().zip(&held) {
                pay(self.any(), buyer, held)?;
            }
            Ok(())
        };
        let bought: Result<(), String> = bought();
        self.cluster.database.run("SET GLOBAL general_log = OFF")?;
        bought?;
        let text = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Redis, in the same time without polls and with them.
    fn polls(&mut self) -> Result<(), String> {
        let rush = Rush { queue: "main", total: 300, connections: 30, threads: 1 };
        let joins = joins(&self.ports(), rush)?.made;
        // All of them are in by then, so nobody's admission is told meanwhile.
        pause(2.0)?;
        let (_, idle) = self.calls_beside(&[])?;
        let (polls, busy) = self.calls_beside(&joins)?;
        let text = format!(
            "{} polls in {WATCHED_S} s: {busy} calls of Redis, {idle} in {WATCHED_S} s without polls ({:+.5} a poll)",
            grouped(polls as u64),
            (busy as f64 - idle as f64) / polls as f64
        );
        self.found.record(Check::Statements, "a poll", text);
        self.found.wrong(judge_polls(polls, busy, idle));
        Ok(())
    }

    /// How many polls there were in some seconds, and how many calls of Redis. Nobody polls where there are no tickets.
    fn calls_beside(&self, joins: &[Join]) -> Result<(usize, u64), String> {
        const CALLS: [&str; 3] = ["eval", "time", "role"];
        let before = self.redis_calls(&CALLS)?;
        let clients = self.ports().into_iter().map(Client::connect);
        let mut clients = clients.collect::<Result<Vec<_>, _>>()?;
        let until = clock::now() + WATCHED_S;
        let mut polls = 0;
        if joins.is_empty() {
            pause(WATCHED_S)?;
        }
        for join in joins.iter().cycle() {
            if clock::now() >= until {
                break;
            }
            clients[polls % INSTANCES].send(&poll(&join.token))?;
            polls += 1;
        }
        Ok((polls, self.redis_calls(&CALLS)? - before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "/usr/sbin/mariadbd, Version: 10.11\n\
        Time\t\t    Id Command\tArgument\n\
        261130  1:02:03\t    12 Query\tSTART TRANSACTION\n\
        \t\t    12 Prepare\tINSERT INTO reservation VALUES (?)\n\
        \t\t    12 Execute\tINSERT INTO `reservation`\n\
        \x20  (id,\n     price)\n 7 of\tthem\n\
        \t\t    12 Close stmt\t\n\
        \t\t    13 Query\tbegin; SELECT 1; INSERT INTO payment VALUES (2);\n\
        \t\t    14 Query\tSELECT 'alone'\n\
        \t\t    12 Query\tCOMMIT\n\
        261130  1:02:04\t    13 Execute\tSELECT 2\n\
        \t\t    13 Query\tROLLBACK\n\
        \t\t    15 Query\tSTART TRANSACTION\n";

    #[test]
    fn a_general_log_is_cut_into_transactions() {
        let all = transactions(LOG);
        assert_eq!(
            all,
            [
                vec![
                    "START TRANSACTION",
                    "INSERT INTO `reservation` (id, price) 7 of them",
                    "COMMIT"
                ],
                vec!["begin", "SELECT 1", "INSERT INTO payment VALUES (2)", "SELECT 2", "ROLLBACK"],
            ]
        );
        let [reservation, payment] = KINDS;
        assert_eq!(reservation.of(&all), [&all[0]]);
        assert_eq!(payment.of(&all), [&all[1]]);
    }

    #[test]
    fn a_transaction_that_asks_for_more_is_found() {
        let kind = KINDS[0];
        let of = |count: usize| vec![kind.mark.to_owned(); count];
        let (usual, longer) = (of(kind.most), of(kind.most + 1));
        assert_eq!(kind.judge(&[&usual, &usual], 2), [""; 0]);
        assert_eq!(kind.judge(&[&usual, &longer], 2), ["a reservation took 12 statements, not 11"]);
        let found = kind.judge(&[&usual], 2);
        assert_eq!(
            found,
            ["the log has 1 transactions with `insert into reservation` instead of 2"]
        );
        assert_eq!(kind.judge(&[], 0), ["a reservation took 0 statements, not 11"]);
    }

    #[test]
    fn polls_that_ask_redis_are_found() {
        assert_eq!(judge_polls(10_000, 72, 60), None);
        assert_eq!(judge_polls(10_000, 1_150, 1_000), None);
        assert_eq!(judge_polls(10_000, 50, 60), None);
        assert_eq!(judge_polls(9, 73, 60).unwrap(), "9 polls cost 13 calls of Redis");
        assert_eq!(judge_polls(9, 1_151, 1_000).unwrap(), "9 polls cost 151 calls of Redis");
    }
}
