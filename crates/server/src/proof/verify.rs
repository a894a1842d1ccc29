//! Checks an export, without the service.

use std::fmt::Write as _;
use std::io::{BufRead, Read};

use base64_simd::URL_SAFE_NO_PAD as BASE64;
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::{self, Digest};
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{Drawing, Entry, Fate, Order, Record, Replay};
use boxoffice_domain::time::Timestamp;
use serde::Serialize;

use super::export::{Beginning, End, FORMAT, VERSION};
use super::{LoggedRecord, PublicKeys, SignedHead, unreadable};

/// The longest line, in bytes. A record that says where a queue of millions stands is long.
const LINE_MAX: u64 = 256 << 20;
/// What is wrong is told so many times; the rest is counted.
const TOLD_MAX: usize = 20;

/// A join may take so long from the second that its ticket names to its number, by clocks that are 3 s apart.
const JOIN_MS_MAX: i64 = 10_000;

/// What somebody wants to know of an export.
#[derive(Debug, Default)]
pub struct Question {
    /// The keys of the service, where the file's own are not to be believed.
    pub keys: Option<PublicKeys>,
    /// Heads that were kept.
    pub heads: Vec<String>,
    /// Tickets.
    pub tickets: Vec<AskedTicket>,
}

/// A ticket that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedTicket {
    /// Its number.
    pub number: u64,
    /// Its queue, where that is known.
    pub queue: Option<String>,
    /// The second in which it was given, where that is known.
    pub given_at: Option<Timestamp>,
}

/// What has come out.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What was found, line by line.
    pub found: Vec<String>,
    /// What is wrong: the first few things.
    pub wrong: Vec<String>,
    /// How many things are wrong.
    pub wrong_count: u64,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub const fn is_good(&self) -> bool {
        self.wrong_count == 0
    }

    fn wrong(&mut self, what: impl Into<String>) {
        self.wrong_count += 1;
        if self.wrong.len() < TOLD_MAX {
            self.wrong.push(what.into());
        }
    }

    fn found(&mut self, what: impl Into<String>) {
        self.found.push(what.into());
    }

    /// All of it, for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for line in &self.found {
            // Writing into a String does not fail.
            let _ = writeln!(text, "{line}");
        }
        for wrong in &self.wrong {
            let _ = writeln!(text, "WRONG: {wrong}");
        }
        let more = self.wrong_count - self.wrong.len() as u64;
        if more > 0 {
            let _ = writeln!(text, "WRONG: and {more} more");
        }
        let _ = match self.wrong_count {
            0 => writeln!(text, "verify: nothing is wrong"),
            1 => writeln!(text, "verify: 1 thing is WRONG"),
            many => writeln!(text, "verify: {many} things are WRONG"),
        };
        text
    }
}

impl AskedTicket {
    /// A ticket that is given as a number or as a signed token. Nobody checks the token: what it says is
    /// compared with the log.
    pub fn read(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse() {
            return Some(Self { number, queue: None, given_at: None });
        }
        let claims = BASE64.decode_to_vec(text.split('.').nth(1)?).ok()?;
        let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
        Some(Self {
            number: claims["seq"].as_u64()?,
            queue: Some(claims["q"].as_str()?.to_owned()),
            given_at: claims["iat"].as_i64().map(|second| Timestamp(second.saturating_mul(1_000))),
        })
    }
}

/// What became of a ticket.
struct Ticket {
    seq: u64,
    given_at: Option<Timestamp>,
    /// Which turn it has: its number, unless it was drawn.
    rank: u64,
    /// How many were drawn, where there was a draw.
    drawn: Option<u64>,
    /// What the records say of it: the number of each, its time, and what it means.
    fates: Vec<(u64, Timestamp, Fate)>,
    /// It had its turn before the log begins, and was passed over (`true`) or not.
    before: Option<bool>,
}

impl Ticket {
    /// The record by which it was let in.
    fn let_in(&self) -> Option<(u64, Timestamp)> {
        let is_in = |fate: &Fate| matches!(fate, Fate::Admitted | Fate::Readmitted);
        self.fates.iter().find(|(_, _, fate)| is_in(fate)).map(|(number, at, _)| (*number, *at))
    }

    fn passed_over(&self) -> Option<(u64, Timestamp)> {
        let is_it = |fate: &Fate| *fate == Fate::PassedOver;
        self.fates.iter().find(|(_, _, fate)| is_it(fate)).map(|(number, at, _)| (*number, *at))
    }

    fn told(&self, is_undrawn: bool) -> String {
        let mut told: Vec<String> = match self.before {
            Some(true) => vec!["had been passed over before this log begins".to_owned()],
            Some(false) => vec!["had its turn before this log begins".to_owned()],
            None => Vec::new(),
        };
        told.extend(self.fates.iter().map(|(number, at, fate)| {
            let what = match fate {
                Fate::Admitted => "was let in",
                Fate::PassedOver => "was absent in its turn and passed over",
                Fate::Left => "had left when its turn came",
                Fate::Readmitted => "came back and was let in",
            };
            format!("{what} at {} (record {number})", rfc3339(*at))
        }));
        if told.is_empty() && is_undrawn {
            told.push("takes part in the draw, which is still to come".to_owned());
        } else if told.is_empty() {
            told.push("has had no turn yet".to_owned());
        }
        match self.drawn {
            None => {}
            Some(count) if self.seq <= count => {
                told.insert(0, format!("was drawn to place {} of {count}", self.rank));
            }
            Some(count) => told.insert(0, format!("comes behind the {count} that were drawn")),
        }
        format!("ticket {}: {}", self.seq, told.join(", "))
    }
}

/// Says whether whoever joined later was let in earlier, and why. Returns false where there is no reason.
fn compare(earlier: &Ticket, later: &Ticket) -> (String, bool) {
    let (one, two) = (earlier.seq, later.seq);
    let Some((later_at, _)) = later.let_in() else {
        return (
            format!("ticket {one} was not overtaken by ticket {two}, who was not let in"),
            true,
        );
    };
    if earlier.before == Some(false) || earlier.let_in().is_some_and(|(at, _)| at <= later_at) {
        return (format!("ticket {one} was not overtaken by ticket {two}"), true);
    }
    let has_left =
        earlier.fates.iter().any(|(number, _, fate)| *fate == Fate::Left && *number <= later_at);
    if has_left {
        return (format!("ticket {two} came in before ticket {one}, who had left"), true);
    }
    let absent = match earlier.passed_over() {
        Some((number, at)) if number <= later_at => {
            format!("was absent in its turn, at {} (record {number})", rfc3339(at))
        }
        _ if earlier.before == Some(true) => {
            "was absent in its turn, before this log begins".to_owned()
        }
        _ => return (format!("ticket {two} was let in before ticket {one}, for no reason"), false),
    };
    let back = match earlier.let_in() {
        Some((number, at)) => {
            format!("came back and was let in at {} (record {number})", rfc3339(at))
        }
        None => "has not come back".to_owned(),
    };
    (format!("ticket {two} was let in before ticket {one}, who {absent}, and {back}"), true)
}

/// A head that was kept, and what the log says in its place.
struct Kept {
    head: SignedHead,
    found: Option<Digest>,
}

/// The check of a file under way.
struct Check {
    queue: QueueName,
    previous: Digest,
    replay: Replay,
    first: Option<(u64, Timestamp)>,
    last: Option<(u64, Timestamp)>,
    records: u64,
    steps: u64,
    admitted: u64,
    passed: u64,
    returned: u64,
    left: u64,
    changes: u64,
    restored: Vec<u64>,
    /// Which turn a number has.
    order: Order,
    tickets: Vec<Ticket>,
    kept: Vec<Kept>,
}

fn read_line(input: &mut impl BufRead) -> Result<Option<String>, String> {
    let mut line = String::new();
    let read = input.take(LINE_MAX).read_line(&mut line).map_err(|error| unreadable(&error))?;
    Ok((read > 0).then_some(line))
}

/// Whether a line is what was read from it, and nothing else.
fn is_as_written(line: &str, value: &impl Serialize) -> bool {
    let written = serde_json::to_string(value).unwrap_or_default();
    line.strip_suffix('\n') == Some(written.as_str())
}

/// Checks an export.
///
/// # Errors
/// Where it is none, or cannot be read, or the question makes no sense.
pub fn verify(mut input: impl BufRead, question: Question) -> Result<Verdict, String> {
    let mut verdict = Verdict::default();
    let line = read_line(&mut input)?.ok_or("the file is empty")?;
    let beginning: Beginning = serde_json::from_str(&line).map_err(|_| {
        "this is no export of an admission log: its first line is another".to_owned()
    })?;
    if beginning.format != FORMAT || beginning.version != VERSION {
        return Err(format!(
            "the export is of the format {:?}, version {}; this program reads {FORMAT:?}, version {VERSION}",
            beginning.format, beginning.version
        ));
    }
    if !is_as_written(&line, &beginning) {
        verdict.wrong("the first line is not as an export writes it");
    }
    let queue = QueueName::new(&beginning.queue)
        .ok_or_else(|| format!("{:?} is no name of a queue", beginning.queue))?;
    let previous = Digest::from_hex(&beginning.previous)
        .ok_or_else(|| "the first line names no digest that the log goes on from".to_owned())?;
    let (keys, are_own) = match question.keys {
        Some(keys) => (keys, false),
        None => {
            let keys = PublicKeys::from_set(&beginning.keys.to_string())
                .map_err(|what| format!("the keys in the file: {what}"))?;
            (keys, true)
        }
    };
    let mut kept = Vec::new();
    for text in &question.heads {
        match SignedHead::read(text, &keys) {
            Ok(head) if head.queue != queue => {
                verdict.wrong(format!("the head that was kept is of the queue {}", head.queue));
            }
            Ok(head) => kept.push(Kept { head, found: None }),
            Err(what) => verdict.wrong(format!("the head that was kept: {what}")),
        }
    }
    let mut tickets = Vec::new();
    for AskedTicket { number, queue: of, given_at } in question.tickets {
        match of.filter(|of| *of != queue.as_str()) {
            Some(of) => verdict.wrong(format!("ticket {number} is of the queue {of}")),
            None => tickets.push(Ticket {
                seq: number,
                given_at,
                rank: number,
                drawn: None,
                fates: Vec::new(),
                before: None,
            }),
        }
    }
    tickets.sort_unstable_by_key(|ticket| (ticket.seq, ticket.given_at.is_none()));
    tickets.dedup_by_key(|ticket| ticket.seq);
    let mut check = Check {
        queue,
        previous,
        replay: Replay::default(),
        first: None,
        last: None,
        records: 0,
        steps: 0,
        admitted: 0,
        passed: 0,
        returned: 0,
        left: 0,
        changes: 0,
        restored: Vec::new(),
        order: Order::default(),
        tickets,
        kept,
    };
    let begins = Digest::genesis(&check.queue) == previous;
    let mut end = None;
    let mut line_number = 1_u64;
    while let Some(line) = read_line(&mut input)? {
        line_number += 1;
        if end.is_some() {
            verdict.wrong(format!("line {line_number} comes behind the end"));
            break;
        }
        if line.starts_with("{\"head\"") {
            match serde_json::from_str::<End>(&line) {
                Ok(read) if is_as_written(&line, &read) => end = Some(read),
                _ => verdict.wrong(format!("line {line_number} is not as an export writes it")),
            }
            continue;
        }
        check.line(line_number, &line, &mut verdict);
    }
    check.end(end, &keys, begins, &mut verdict);
    if are_own {
        verdict.found(
            "keys: those in the file. Whoever made it up has made them up too: compare them with \
             /.well-known/jwks.json of the service, or give --keys",
        );
    }
    Ok(verdict)
}

impl Check {
    fn line(&mut self, line_number: u64, line: &str, verdict: &mut Verdict) {
        let Ok(logged) = serde_json::from_str::<LoggedRecord>(line) else {
            verdict.wrong(format!("line {line_number} is no record"));
            return;
        };
        let number = logged.number;
        if !is_as_written(line, &logged) {
            verdict.wrong(format!(
                "record {number} (line {line_number}) is not as an export writes it"
            ));
        }
        let Some((record, digest)) = logged.read() else {
            verdict.wrong(format!("record {number} (line {line_number}) makes no sense"));
            return;
        };
        if self.previous.then(&record.to_bytes()) != digest {
            verdict.wrong(format!(
                "record {number}: its digest does not follow from the one before. The record was \
                 changed, or one was left out or put in before it"
            ));
        }
        self.previous = digest;
        for broken in self.replay.follow(&record) {
            verdict.wrong(format!("record {number}, at {}: {broken}", rfc3339(record.at)));
        }
        for kept in self.kept.iter_mut().filter(|kept| kept.head.head.number == number) {
            kept.found = Some(digest);
        }
        self.draw(&record, verdict);
        self.count(&record);
    }

    /// Takes in a draw.
    fn draw(&mut self, record: &Record, verdict: &mut Verdict) {
        let is_of_draw = matches!(record.entry, Entry::Stands(_) | Entry::Drawn(_));
        let Some(drawing) = self.replay.draw().filter(|_| is_of_draw) else { return };
        let Drawing { drawn: Some(drawn), .. } = drawing else { return };
        let Record { number, .. } = record;
        if !store::is_as_committed(drawing, &self.queue) {
            verdict.wrong(format!(
                "record {number}: the seed of the draw is not the one that was committed to"
            ));
        }
        if self.order != Order::default() {
            return;
        }
        let draw = store::draw(drawn);
        // All numbers are drawn that were given by then. Where the record of it was forgotten, the opening
        // is left, which it cannot be before.
        let drawn_at = match record.entry {
            Entry::Drawn(_) => Some(record.at),
            _ => self.replay.terms().opens_at,
        };
        for ticket in &mut self.tickets {
            ticket.rank = draw.rank(ticket.seq);
            ticket.drawn = Some(draw.count());
            let is_early = |(given, drawn): &(Timestamp, Timestamp)| {
                given.0.saturating_add(JOIN_MS_MAX) < drawn.0
            };
            let early = ticket.given_at.zip(drawn_at).filter(is_early);
            if let (Some((given, _)), true) = (early, ticket.seq > draw.count()) {
                verdict.wrong(format!(
                    "ticket {} was given at {}, before the draw, and is not among the {} that were drawn",
                    ticket.seq,
                    rfc3339(given),
                    draw.count()
                ));
            }
        }
        self.tickets.sort_by_key(|ticket| ticket.rank);
        self.order = Order::Drawn(draw);
    }

    fn count(&mut self, record: &Record) {
        let here = (record.number, record.at);
        if self.first.is_none() {
            for ticket in &mut self.tickets {
                let had_turn = ticket.rank <= self.replay.serving();
                ticket.before = had_turn.then(|| self.replay.passed().contains(ticket.rank));
            }
        }
        self.first.get_or_insert(here);
        self.last = Some(here);
        self.records += 1;
        match &record.entry {
            Entry::Admitted(step) => {
                self.steps += 1;
                self.admitted += step.count();
                self.passed += step.passed.count();
                self.returned += step.returned.count();
                self.left += step.left.count();
                for ticket in &mut self.tickets {
                    if let Some(fate) = record.fate(ticket.rank) {
                        ticket.fates.push((record.number, record.at, fate));
                    }
                }
            }
            Entry::Changed(_) => self.changes += 1,
            Entry::Restored { .. } => self.restored.push(record.number),
            Entry::Stands(_) | Entry::SetBack | Entry::Drawn(_) | Entry::Committed(_) => {}
        }
    }

    fn end(&mut self, end: Option<End>, keys: &PublicKeys, begins: bool, verdict: &mut Verdict) {
        let (Some((first, first_at)), Some((last, last_at))) = (self.first, self.last) else {
            verdict.wrong("there is no record in it");
            return;
        };
        let Self { queue, records, .. } = self;
        verdict.found(format!(
            "queue {queue}: {records} records, {first} to {last}, {} to {}",
            rfc3339(first_at),
            rfc3339(last_at)
        ));
        verdict.found(match begins {
            true if first == 0 => "begins: with the queue".to_owned(),
            true => "begins: with where the queue stood, before it had a log".to_owned(),
            false => {
                "begins: with where the queue stood; what came before was forgotten".to_owned()
            }
        });
        if !begins && first == 0 {
            verdict.wrong("record 0 does not begin the log of this queue");
        }
        let Self { steps, admitted, passed, returned, left, changes, .. } = self;
        verdict.found(format!(
            "{steps} steps: {admitted} let in, {left} had left, {passed} absent and passed over, of whom \
             {returned} came back and are among those let in; {changes} changes of the terms"
        ));
        match self.replay.draw() {
            None => {}
            Some(Drawing { drawn: None, .. }) => {
                verdict.found("draw: still to come; until then nobody has a place");
            }
            Some(Drawing { drawn: Some(drawn), .. }) => verdict.found(format!(
                "draw: {} tickets, with the seed {}; who joined later follows behind them",
                drawn.count,
                Digest(drawn.seed)
            )),
        }
        for number in &self.restored {
            verdict.found(format!(
                "RESTORED from a backup before record {number}: what the log said between the backup and \
                 then is gone"
            ));
        }
        match end.map(|End { head }| SignedHead::read(&head, keys)) {
            None => verdict.wrong("there is no signed head at the end: the file was cut off"),
            Some(Err(what)) => verdict.wrong(format!("the head at the end: {what}")),
            Some(Ok(signed)) => {
                verdict.found(format!(
                    "head: record {}, signed on {} with the key {}",
                    signed.head.number,
                    rfc3339(signed.at),
                    signed.key_id
                ));
                if signed.queue != self.queue {
                    verdict.wrong(format!("the head at the end is of the queue {}", signed.queue));
                }
                if signed.head.number != last || signed.head.digest != self.previous {
                    verdict.wrong(format!(
                        "the head at the end is of record {} with the digest {}, and the records end with \
                         {last} and {}",
                        signed.head.number, signed.head.digest, self.previous
                    ));
                }
            }
        }
        self.compare_kept(first, last, verdict);
        for ticket in &self.tickets {
            verdict.found(ticket.told(self.replay.is_undrawn()));
        }
        for (index, earlier) in self.tickets.iter().enumerate() {
            for later in &self.tickets[index + 1..] {
                let (told, is_right) = compare(earlier, later);
                if is_right { verdict.found(told) } else { verdict.wrong(told) }
            }
        }
    }

    fn compare_kept(&self, first: u64, last: u64, verdict: &mut Verdict) {
        let heads = self.kept.iter().map(|kept| &kept.head);
        for (index, one) in heads.clone().enumerate() {
            let differs = |two: &&SignedHead| {
                two.head.number == one.head.number && two.head.digest != one.head.digest
            };
            if heads.clone().skip(index + 1).any(|two| differs(&two)) {
                verdict.wrong(format!(
                    "two of the heads that were kept are of record {} and differ: the service has told \
                     two stories",
                    one.head.number
                ));
            }
        }
        for Kept { head: SignedHead { head, at, .. }, found } in &self.kept {
            let (number, at) = (head.number, rfc3339(*at));
            // A restore after the head was signed would explain it, and makes it no less so.
            let restored = match self.restored.iter().find(|restored| **restored <= number) {
                Some(restored) => {
                    format!(". The store was restored from a backup before record {restored}")
                }
                None => String::new(),
            };
            match found {
                Some(digest) if *digest == head.digest => {
                    verdict.found(format!("kept head: record {number}, of {at}, is the same here"));
                }
                Some(digest) => verdict.wrong(format!(
                    "record {number} had the digest {} when its head was signed on {at}, and has {digest} \
                     here: what was before it was rewritten{restored}",
                    head.digest
                )),
                None if number > last => verdict.wrong(format!(
                    "the head that was kept is of record {number}, signed on {at}, and the log ends with \
                     {last}: its end was cut off, or the export is older{restored}"
                )),
                None if number < first => verdict.found(format!(
                    "kept head: record {number}, of {at}, is from before this log begins, and cannot be \
                     compared"
                )),
                None => verdict.wrong(format!("record {number}, of which a head was kept, is missing")),
            }
        }
    }
}

#[cfg(test)]
mod tests;
