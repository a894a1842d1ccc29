use std::path::Path;
use std::process::Command;

use boxoffice_backends::store::{DrawSeed, Head, Link};
use boxoffice_domain::queue::{Admitted, Drawn, Runs, Standing, Terms};
use proptest::prelude::*;

use super::super::export::Export;
use super::super::{
    sign,
    tests::{keys, queue},
};
use super::*;
use crate::signing::ServiceKeys;

const START: i64 = 1_800_000_000_000;

fn set(seqs: &[u64]) -> Runs {
    Runs::from(&seqs.iter().copied().collect())
}

fn terms() -> Terms {
    Terms { rate_milli: 20_000, max_active: Some(8), opens_at: None, paused: false }
}

fn step(from: u64, upto: u64, passed: &[u64], left: &[u64], returned: &[u64]) -> Entry {
    let (passed, left, returned) = (set(passed), set(left), set(returned));
    Entry::Admitted(Admitted { from, upto, passed, left, returned })
}

fn numbered(entries: impl IntoIterator<Item = (i64, Entry)>) -> Vec<Record> {
    let record = |(number, (ms, entry)): (u64, (i64, Entry))| Record {
        number,
        at: Timestamp(START + ms),
        entry,
    };
    (0..).zip(entries).map(record).collect()
}

/// Number 2 is passed over and comes back, 5 has left, and once a change is made. 11 waits.
fn honest() -> Vec<Record> {
    let entries = [
        (0, Entry::Stands(Standing { terms: terms(), ..Standing::default() })),
        (100, step(0, 3, &[2], &[], &[])),
        (200, step(3, 6, &[], &[5], &[])),
        (300, step(6, 6, &[], &[], &[2])),
        (350, Entry::Changed(Terms { rate_milli: 10_000, ..terms() })),
        (400, step(6, 8, &[], &[], &[])),
        (600, step(8, 10, &[], &[], &[])),
    ];
    numbered(entries)
}

/// When the queue opens that is drawn.
const OPENS_MS: i64 = 60_000;
/// Of the numbers 1 to 10 the draw makes the places 8, 5, 7, 3, 10, 6, 1, 4, 2 and 9.
const DRAWN: Drawn = Drawn { count: 10, seed: seed(0) };

/// The bytes `first`, `first` + 1 and so on.
const fn seed(first: u8) -> [u8; 32] {
    let mut seed = [first; 32];
    let mut index = 0;
    while index < 32 {
        seed[index] += index as u8;
        index += 1;
    }
    seed
}

fn drawing(seed: [u8; 32], drawn: Option<Drawn>) -> Option<Drawing> {
    Some(Drawing { commitment: DrawSeed(seed).commitment(&queue()), drawn })
}

/// A queue with an opening draw, whose seed is exchanged after a restore. The second place is passed over and
/// comes back, the fifth has left; number 11 comes too late for the draw, and 12 waits.
fn drawn() -> Vec<Record> {
    let terms = Terms { opens_at: Some(Timestamp(START + OPENS_MS)), ..terms() };
    let stands = |serving, draw| {
        Entry::Stands(Standing { serving, terms: terms.clone(), draw, ..Standing::default() })
    };
    let at = |ms| OPENS_MS + ms;
    numbered([
        (0, stands(0, drawing(seed(99), None))),
        (10, Entry::Restored { epoch: 7 }),
        (10, Entry::Committed(DrawSeed(DRAWN.seed).commitment(&queue()))),
        (20, Entry::Changed(terms.clone())),
        (at(0), Entry::Drawn(DRAWN)),
        (at(100), step(0, 3, &[2], &[], &[])),
        (at(200), step(3, 6, &[], &[5], &[])),
        (at(300), step(6, 6, &[], &[], &[2])),
        (at(350), stands(6, drawing(DRAWN.seed, Some(DRAWN)))),
        (at(400), step(6, 8, &[], &[], &[])),
        (at(600), step(8, 11, &[], &[], &[])),
    ])
}

/// Links records to each other, as a store does: whoever cheats can do so as well.
fn chained(records: &[Record], previous: Digest) -> Vec<Link> {
    let mut digest = previous;
    let link = |record: &Record| {
        let bytes = record.to_bytes();
        digest = digest.then(&bytes);
        Link { number: record.number, bytes, digest }
    };
    records.iter().map(link).collect()
}

fn head_of(links: &[Link]) -> Head {
    let last = links.last().unwrap();
    Head { number: last.number, digest: last.digest }
}

fn signed(keys: &ServiceKeys, head: Head) -> String {
    sign(keys, &queue(), head, Timestamp(START + 10_000))
}

fn export(links: &[Link], keys: &ServiceKeys, head: String) -> String {
    let mut text = Vec::new();
    let mut export = Export::new(&mut text);
    let previous = Digest::genesis(&queue()).to_string();
    export.begin("main", &previous, std::str::from_utf8(&keys.set()).unwrap()).unwrap();
    let records: Vec<_> = links.iter().map(|link| LoggedRecord::new(link).unwrap()).collect();
    export.records(&records, u64::MAX).unwrap();
    export.end(head).unwrap();
    String::from_utf8(text).unwrap()
}

/// The export of a service that says this, and signs it.
fn exported(records: &[Record], keys: &ServiceKeys) -> String {
    let links = chained(records, Digest::genesis(&queue()));
    export(&links, keys, signed(keys, head_of(&links)))
}

fn verdict_of(text: &str, question: Question) -> Verdict {
    verify(text.as_bytes(), question).unwrap()
}

fn asked(tickets: &[u64], heads: &[String]) -> Question {
    let tickets = tickets
        .iter()
        .map(|number| AskedTicket { number: *number, queue: None, given_at: None })
        .collect();
    Question { tickets, heads: heads.to_vec(), keys: None }
}

#[tokio::test]
async fn an_honest_export_is_right_and_says_what_became_of_whom() {
    let keys = keys().await;
    let text = exported(&honest(), &keys);
    let kept: Vec<String> = chained(&honest(), Digest::genesis(&queue()))
        .iter()
        .map(|link| signed(&keys, Head { number: link.number, digest: link.digest }))
        .collect();
    let verdict = verdict_of(&text, asked(&[1, 2, 3, 5, 11], &kept));
    let told = verdict.to_text();
    assert!(verdict.is_good(), "{told}");
    for part in [
        "queue main: 7 records, 0 to 6",
        "5 steps: 9 let in, 1 had left, 1 absent and passed over, of whom 1 came back",
        "kept head: record 3, of 2027-01-15T08:00:10.000Z, is the same here",
        "ticket 1: was let in at 2027-01-15T08:00:00.100Z (record 1)",
        "ticket 2: was absent in its turn and passed over at 2027-01-15T08:00:00.100Z (record 1), came back \
         and was let in at 2027-01-15T08:00:00.300Z (record 3)",
        "ticket 11: has had no turn yet",
        "ticket 1 was not overtaken by ticket 2",
        "ticket 3 was let in before ticket 2, who was absent in its turn",
        "ticket 5: had left when its turn came",
        "verify: nothing is wrong",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // With keys from elsewhere.
    let own = PublicKeys::from_set(std::str::from_utf8(&keys.set()).unwrap()).unwrap();
    assert!(verdict_of(&text, Question { keys: Some(own), ..Question::default() }).is_good());
}

type Cheat = (&'static str, fn(&mut Vec<Record>), &'static str);

/// What a service does that is not honest, and signs: it is found by what it says.
const CHEATS: &[Cheat] = &[
    (
        "somebody from behind comes first",
        |log| edit(log, 2, |step| (step.from, step.upto) = (4, 6)),
        "record 2, at 2027-01-15T08:00:00.200Z: it does not go on behind number 3",
    ),
    (
        "an extra admission",
        |log| edit(log, 3, |step| step.returned = set(&[2, 4])),
        "record 3, at 2027-01-15T08:00:00.300Z: it lets numbers 4 to 4 in late",
    ),
    (
        "too fast",
        |log| edit(log, 6, |step| step.upto = 14),
        "record 6, at 2027-01-15T08:00:00.600Z: it lets 6 in, and the rate allows 5",
    ),
    (
        "too many at once",
        |log| edit(log, 6, |step| step.upto = 20),
        "it lets 12 in at once, and 8 may be active",
    ),
    (
        "time goes back",
        |log| log[5].at.0 = START + 199,
        "record 5, at 2027-01-15T08:00:00.199Z: its time is before that of an earlier step",
    ),
    (
        "a step while paused",
        |log| match &mut log[4].entry {
            Entry::Changed(terms) => terms.paused = true,
            entry => panic!("{entry:?}"),
        },
        "record 5, at 2027-01-15T08:00:00.400Z: it was made while the queue was paused",
    ),
    (
        "a record was dropped before it was signed",
        |log| drop(log.remove(3)),
        "record 4, at 2027-01-15T08:00:00.350Z: records are missing or doubled: number 3",
    ),
];

fn edit(log: &mut [Record], at: usize, edit: impl FnOnce(&mut Admitted)) {
    match &mut log[at].entry {
        Entry::Admitted(admitted) => edit(admitted),
        entry => panic!("{entry:?} is no step"),
    }
}

#[tokio::test]
async fn a_service_that_cheats_and_signs_it_is_found_out() {
    let keys = keys().await;
    for (what, cheat, expected) in CHEATS {
        let mut log = honest();
        cheat(&mut log);
        let verdict = verdict_of(&exported(&log, &keys), Question::default());
        assert!(verdict.wrong.iter().any(|wrong| wrong.contains(expected)), "{what}: {verdict:?}");
        assert!(verdict.to_text().contains("WRONG"));
    }
}

/// A ticket whose token says that it was given so many milliseconds before the opening.
fn given(number: u64, before_ms: i64) -> Question {
    let given_at = Some(Timestamp(START + OPENS_MS - before_ms));
    let ticket = AskedTicket { number, queue: Some("main".to_owned()), given_at };
    Question { tickets: vec![ticket], ..Question::default() }
}

#[tokio::test]
async fn an_honest_export_with_a_draw_is_right_and_says_who_was_drawn_to_which_place() {
    let keys = keys().await;
    let text = exported(&drawn(), &keys);
    let links = chained(&drawn(), Digest::genesis(&queue()));
    let kept: Vec<String> = links
        .iter()
        .map(|link| signed(&keys, Head { number: link.number, digest: link.digest }))
        .collect();
    let verdict = verdict_of(&text, asked(&[1, 2, 4, 6, 7, 9, 11, 12], &kept));
    let told = verdict.to_text();
    assert!(verdict.is_good(), "{told}");
    for part in [
        "5 steps: 10 let in, 1 had left, 1 absent and passed over, of whom 1 came back",
        "draw: 10 tickets, with the seed 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f; who \
         joined later follows behind them",
        "kept head: record 4, of 2027-01-15T08:00:10.000Z, is the same here",
        "ticket 7: was drawn to place 1 of 10, was let in at 2027-01-15T08:01:00.100Z (record 5)",
        "ticket 9: was drawn to place 2 of 10, was absent in its turn and passed over at \
         2027-01-15T08:01:00.100Z (record 5), came back and was let in at 2027-01-15T08:01:00.300Z (record 7)",
        "ticket 2: was drawn to place 5 of 10, had left when its turn came at 2027-01-15T08:01:00.200Z (record 6)",
        // Its place is its number, and it was drawn all the same.
        "ticket 6: was drawn to place 6 of 10, was let in at 2027-01-15T08:01:00.200Z (record 6)",
        "ticket 1: was drawn to place 8 of 10, was let in at 2027-01-15T08:01:00.400Z (record 9)",
        "ticket 11: comes behind the 10 that were drawn, was let in at 2027-01-15T08:01:00.600Z (record 10)",
        "ticket 12: comes behind the 10 that were drawn, has had no turn yet",
        "ticket 7 was not overtaken by ticket 1",
        "ticket 4 was let in before ticket 9, who was absent in its turn",
        "ticket 1 was not overtaken by ticket 11",
        "verify: nothing is wrong",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // Whoever joined early was drawn; whoever joined in the last seconds may have come too late.
    for (number, before_ms) in [(10, 50_000), (11, 0), (11, 10_000), (11, -5_000)] {
        let verdict = verdict_of(&text, given(number, before_ms));
        assert!(verdict.is_good(), "{number}, {before_ms}: {}", verdict.to_text());
    }
    // Before the draw nobody has a place.
    let verdict = verdict_of(&exported(&drawn()[..4], &keys), asked(&[1, 2], &kept[..4]));
    let told = verdict.to_text();
    assert!(verdict.is_good(), "{told}");
    for part in [
        "draw: still to come; until then nobody has a place",
        "ticket 1: takes part in the draw, which is still to come",
        "ticket 1 was not overtaken by ticket 2, who was not let in",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// The export of a log of which the beginning was forgotten.
fn exported_from(log: &[Record], keys: &ServiceKeys) -> String {
    let before = Digest([7; 32]);
    let links = chained(log, before);
    let begins = Digest::genesis(&queue()).to_string();
    export(&links, keys, signed(keys, head_of(&links))).replacen(&begins, &before.to_string(), 1)
}

#[tokio::test]
async fn a_log_that_begins_behind_the_draw_knows_it() {
    let keys = keys().await;
    let verdict = verdict_of(&exported_from(&drawn()[8..], &keys), asked(&[1, 7, 11], &[]));
    let told = verdict.to_text();
    assert!(verdict.is_good(), "{told}");
    for part in [
        "ticket 7: was drawn to place 1 of 10, had its turn before this log begins",
        "ticket 1: was drawn to place 8 of 10, was let in at 2027-01-15T08:01:00.400Z (record 9)",
        "ticket 11: comes behind the 10 that were drawn, was let in",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // Seed and count are held against what else is known there, too.
    let says = |edit: fn(&mut Drawing), question: Question, expected: &str| {
        let mut log = drawn().split_off(8);
        edit(stands(&mut log[0]).draw.as_mut().unwrap());
        let verdict = verdict_of(&exported_from(&log, &keys), question);
        assert!(verdict.wrong.iter().any(|wrong| wrong.contains(expected)), "{verdict:?}");
    };
    let other: fn(&mut Drawing) = |draw| draw.drawn.as_mut().unwrap().seed[31] ^= 1;
    let expected = "record 8: the seed of the draw is not the one that was committed to";
    says(other, Question::default(), expected);
    let fewer: fn(&mut Drawing) = |draw| draw.drawn.as_mut().unwrap().count = 9;
    says(fewer, given(10, 50_000), "and is not among the 9 that were drawn");
    let none: fn(&mut Drawing) = |draw| draw.drawn = None;
    says(none, Question::default(), "somebody has their turn before the draw");
}

fn stands(record: &mut Record) -> &mut Standing {
    match &mut record.entry {
        Entry::Stands(standing) => standing,
        entry => panic!("{entry:?} does not say where the queue stands"),
    }
}

fn decides(record: &mut Record) -> &mut Drawn {
    match &mut record.entry {
        Entry::Drawn(drawn) => drawn,
        entry => panic!("{entry:?} is no draw"),
    }
}

/// What a service does with the draw that is not honest, and signs. Its records are numbered in order.
const CHEATS_WITH_DRAW: &[Cheat] = &[
    (
        "a step before the draw",
        |log| log.insert(4, Record { entry: step(0, 2, &[], &[], &[]), ..log[4].clone() }),
        "record 4, at 2027-01-15T08:01:00.000Z: somebody has their turn before the draw",
    ),
    (
        "a draw after somebody had a turn",
        |log| log.swap(4, 5),
        "record 5, at 2027-01-15T08:01:00.000Z: it is a draw where none was to come",
    ),
    (
        "a second draw",
        |log| log.insert(5, log[4].clone()),
        "record 5, at 2027-01-15T08:01:00.000Z: it is a draw where none was to come",
    ),
    (
        "a second draw with another seed, when the line moves",
        |log| {
            let entry = Entry::Drawn(Drawn { seed: seed(99), ..DRAWN });
            log.insert(9, Record { entry, ..log[8].clone() });
        },
        "record 9, at 2027-01-15T08:01:00.350Z: it is a draw where none was to come",
    ),
    (
        "a draw before the opening",
        |log| log[4].at.0 = START + OPENS_MS - 1,
        "record 4, at 2027-01-15T08:00:59.999Z: it was made before the queue opened",
    ),
    (
        "another seed than the committed one",
        |log| decides(&mut log[4]).seed = seed(1),
        "record 4: the seed of the draw is not the one that was committed to",
    ),
    (
        "the seed of before the restore",
        |log| decides(&mut log[4]).seed = seed(99),
        "record 4: the seed of the draw is not the one that was committed to",
    ),
    (
        "another seed, also where the queue is said to stand",
        |log| {
            decides(&mut log[4]).seed = seed(1);
            stands(&mut log[8]).draw = drawing(DRAWN.seed, Some(Drawn { seed: seed(1), ..DRAWN }));
        },
        "record 8: the seed of the draw is not the one that was committed to",
    ),
    (
        "another seed and its commitment in a later STANDS",
        |log| {
            stands(&mut log[8]).draw = drawing(seed(1), Some(Drawn { seed: seed(1), ..DRAWN }));
        },
        "record 8, at 2027-01-15T08:01:00.350Z: it says another draw than the records before",
    ),
    (
        "another count in a later STANDS",
        |log| stands(&mut log[8]).draw = drawing(DRAWN.seed, Some(Drawn { count: 11, ..DRAWN })),
        "record 8, at 2027-01-15T08:01:00.350Z: it says another draw than the records before",
    ),
    (
        "fewer are drawn than had joined",
        |log| {
            decides(&mut log[4]).count = 9;
            stands(&mut log[8]).draw = drawing(DRAWN.seed, Some(Drawn { count: 9, ..DRAWN }));
        },
        "ticket 10 was given at 2027-01-15T08:00:40.000Z, before the draw, and is not among the 9 that were \
         drawn",
    ),
    (
        "another commitment without a restore",
        |log| drop(log.remove(1)),
        "record 1, at 2027-01-15T08:00:00.010Z: it exchanges the seed of the draw, and no restore came",
    ),
    (
        "two commitments for one restore",
        |log| log.insert(3, log[2].clone()),
        "record 3, at 2027-01-15T08:00:00.010Z: it exchanges the seed of the draw, and no restore came",
    ),
    (
        "a draw of which nobody was told",
        |log| {
            stands(&mut log[0]).draw = None;
            log.drain(1..3);
        },
        "record 2, at 2027-01-15T08:01:00.000Z: it is a draw where none was to come",
    ),
    (
        "an extra admission",
        |log| edit(log, 7, |step| step.returned = set(&[2, 4])),
        "record 7, at 2027-01-15T08:01:00.300Z: it lets numbers 4 to 4 in late",
    ),
    (
        "somebody from behind comes first",
        |log| edit(log, 6, |step| (step.from, step.upto) = (4, 6)),
        "record 6, at 2027-01-15T08:01:00.200Z: it does not go on behind number 3",
    ),
];

#[tokio::test]
async fn a_service_that_cheats_with_the_draw_and_signs_it_is_found_out() {
    let keys = keys().await;
    for (what, cheat, expected) in CHEATS_WITH_DRAW {
        let mut log = drawn();
        cheat(&mut log);
        for (number, record) in (0..).zip(&mut log) {
            record.number = number;
        }
        let verdict = verdict_of(&exported(&log, &keys), given(10, 20_000));
        assert!(verdict.wrong.iter().any(|wrong| wrong.contains(expected)), "{what}: {verdict:?}");
    }
}

/// The second implementation, which shares nothing with ours. Returns whether it finds nothing wrong, and what
/// it says.
fn checked_elsewhere(file: &Path, text: &str, tickets: &[&str]) -> (bool, String) {
    std::fs::write(file, text).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/check-log");
    let done = Command::new("python3").arg(script).arg(file).args(tickets).output().unwrap();
    let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    (done.status.success(), said)
}

#[tokio::test]
async fn a_program_that_shares_nothing_with_ours_finds_the_same() {
    let keys = keys().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("main.log");
    let tickets: Vec<String> = (1..=11).map(|number| number.to_string()).collect();
    let tickets: Vec<&str> = tickets.iter().map(String::as_str).collect();
    let (is_right, said) = checked_elsewhere(&file, &exported(&drawn(), &keys), &tickets);
    assert!(is_right, "{said}");
    for (number, place) in (1..).zip([8, 5, 7, 3, 10, 6, 1, 4, 2, 9]) {
        assert!(
            said.contains(&format!("ticket {number}: drawn to place {place} of 10\n")),
            "{said}"
        );
    }
    assert!(said.contains("ticket 11: not drawn\n"), "{said}");
    for log in [&drawn()[..1], &drawn()[..4], &drawn()[..5]] {
        let (is_right, said) = checked_elsewhere(&file, &exported(log, &keys), &[]);
        assert!(is_right, "{said}");
    }
    let (is_right, said) = checked_elsewhere(&file, &exported_from(&drawn()[8..], &keys), &["7"]);
    assert!(is_right && said.contains("ticket 7: drawn to place 1 of 10\n"), "{said}");
    let mut cheats = 0;
    for (what, cheat, _) in CHEATS_WITH_DRAW {
        let mut log = drawn();
        cheat(&mut log);
        for (number, record) in (0..).zip(&mut log) {
            record.number = number;
        }
        let text = exported(&log, &keys);
        // Where only a ticket tells, it knows of nothing. It stops at the first thing that is wrong.
        let Some(wrong) = verdict_of(&text, Question::default()).wrong.into_iter().next() else {
            continue;
        };
        let record = wrong.split([',', ':']).next().unwrap();
        let (is_right, said) = checked_elsewhere(&file, &text, &[]);
        assert!(!is_right && said.starts_with(&format!("WRONG: {record}:")), "{what}: {said}");
        cheats += 1;
    }
    assert_eq!(cheats, CHEATS_WITH_DRAW.len() - 1);
}

#[tokio::test]
async fn a_change_of_a_file_with_a_draw_is_found_out_at_every_record() {
    let keys = keys().await;
    let links = chained(&drawn(), Digest::genesis(&queue()));
    let head = signed(&keys, head_of(&links));
    let says = |links: &[Link], expected: &str| {
        let verdict = verdict_of(&export(links, &keys, head.clone()), Question::default());
        assert!(verdict.wrong.iter().any(|wrong| wrong.contains(expected)), "{verdict:?}");
    };
    for at in 0..links.len() {
        let mut changed = links.clone();
        let mut record = Record::from_bytes(&changed[at].bytes).unwrap();
        record.at.0 += 1;
        changed[at].bytes = record.to_bytes();
        says(&changed, &format!("record {at}: its digest does not follow"));
        // All digests behind it are made anew: the head tells.
        let mut log = drawn();
        log[at].at.0 += 1;
        let anew = chained(&log, Digest::genesis(&queue()));
        says(&anew, "the head at the end is of record 10 with the digest");
        if at + 1 < links.len() {
            let mut dropped = links.clone();
            dropped.remove(at);
            says(&dropped, &format!("record {}: its digest does not follow", at + 1));
        }
        if at > 0 {
            says(&links[..at], &format!("the records end with {}", at - 1));
        }
    }
}

#[tokio::test]
async fn a_change_of_the_file_is_found_out() {
    let (keys, others) = (keys().await, keys().await);
    let links = chained(&honest(), Digest::genesis(&queue()));
    let head = signed(&keys, head_of(&links));
    let says = |text: &str, expected: &str| {
        let verdict = verdict_of(text, Question::default());
        assert!(
            verdict.wrong.iter().any(|wrong| wrong.contains(expected)),
            "{expected}: {verdict:?}"
        );
    };
    // A record is changed, and its digest is not.
    let mut changed = links.clone();
    let mut record = Record::from_bytes(&changed[5].bytes).unwrap();
    record.at.0 += 1;
    changed[5].bytes = record.to_bytes();
    says(&export(&changed, &keys, head.clone()), "record 5: its digest does not follow");
    // All digests behind it are made anew: the head tells.
    let mut log = honest();
    log[5].at.0 += 1;
    let anew = chained(&log, Digest::genesis(&queue()));
    says(&export(&anew, &keys, head.clone()), "the head at the end is of record 6 with the digest");
    // And that cannot be signed by anybody else.
    let forged = signed(&others, head_of(&anew));
    says(&export(&anew, &keys, forged), "which is not among the keys");
    let mut dropped = links.clone();
    dropped.remove(3);
    says(&export(&dropped, &keys, head.clone()), "record 4: its digest does not follow");
    says(&export(&links[..6], &keys, head.clone()), "the records end with 5");
    let text = export(&links, &keys, head.clone());
    let without_head = text.lines().take(8).fold(String::new(), |text, line| text + line + "\n");
    says(&without_head, "there is no signed head at the end");
    says(&(text.clone() + &text), "comes behind the end");
    for none in ["", "{}\n", "hello\n"] {
        assert!(verify(none.as_bytes(), Question::default()).is_err(), "{none:?}");
    }
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    assert!(verify(newer.as_bytes(), Question::default()).unwrap_err().contains("version 2"));
}

#[tokio::test]
async fn whoever_kept_a_head_finds_what_was_changed_since() {
    let keys = keys().await;
    let links = chained(&honest(), Digest::genesis(&queue()));
    let kept = |index: usize| {
        signed(&keys, Head { number: links[index].number, digest: links[index].digest })
    };
    // The service rewrites the log, honestly looking, and signs it.
    let mut log = honest();
    log[1].at.0 += 1;
    let says = |log: &[Record], heads: &[String], expected: &str| {
        let verdict = verdict_of(&exported(log, &keys), asked(&[], heads));
        assert!(
            verdict.wrong.iter().any(|wrong| wrong.contains(expected)),
            "{expected}: {verdict:?}"
        );
        assert!(
            verdict_of(&exported(log, &keys), asked(&[], &[])).is_good(),
            "by itself it looks right"
        );
    };
    says(&log, &[kept(3)], "record 3 had the digest");
    // Its tail is cut off.
    says(&honest()[..4], &[kept(5)], "is of record 5, signed on");
    // Two stories for two people.
    let other = chained(&log, Digest::genesis(&queue()));
    let fork = signed(&keys, Head { number: 3, digest: other[3].digest });
    says(&honest(), &[kept(3), fork], "differ: the service has told two stories");
    // A restore makes it no less so, but says it.
    let mut restored = honest();
    restored.truncate(3);
    let record = |number, ms, entry| Record { number, at: Timestamp(START + ms), entry };
    restored.push(record(3, 90_000, Entry::Restored { epoch: 7 }));
    says(&restored, &[kept(3)], "restored from a backup before record 3");
    says(&restored, &[kept(6)], "restored from a backup before record 3");
    let verdict = verdict_of(&exported(&restored, &keys), asked(&[], &[kept(2)]));
    assert!(verdict.is_good() && verdict.to_text().contains("RESTORED"), "{}", verdict.to_text());
}

#[tokio::test]
async fn a_log_that_begins_later_says_so() {
    let keys = keys().await;
    let mut log = honest();
    let passed = set(&[2]);
    let standing = Standing { serving: 3, passed, terms: terms(), draw: None };
    let at = Timestamp(START + 150);
    log.splice(0..2, [Record { number: 1, at, entry: Entry::Stands(standing) }]);
    let before = Digest([7; 32]);
    let links = chained(&log, before);
    let head = signed(&keys, head_of(&links));
    let text = export(&links, &keys, head).replacen(
        &Digest::genesis(&queue()).to_string(),
        &before.to_string(),
        1,
    );
    let old = signed(&keys, Head { number: 0, digest: Digest([9; 32]) });
    let verdict = verdict_of(&text, asked(&[1, 2, 3], &[old]));
    let told = verdict.to_text();
    assert!(verdict.is_good(), "{told}");
    for part in [
        "what came before was forgotten",
        "ticket 1: had its turn before this log begins",
        "ticket 2: had been passed over before this log begins, came back",
        "is from before this log begins, and cannot be compared",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn tickets_are_given_as_numbers_or_tokens() {
    let token =
        format!("x.{}.y", BASE64.encode_to_string(r#"{"sub":"3","q":"main","seq":7,"iat":1}"#));
    let given_at = Some(Timestamp(1_000));
    let asked = AskedTicket { number: 7, queue: Some("main".to_owned()), given_at };
    assert_eq!(AskedTicket::read(&token), Some(asked));
    let asked = AskedTicket { number: 12, queue: None, given_at: None };
    assert_eq!(AskedTicket::read("12"), Some(asked));
    for text in ["", "a", "a.b.c", "-1"] {
        assert_eq!(AskedTicket::read(text), None, "{text}");
    }
}

/// Whether a bit that is changed in the records of an export is found; and the text with it.
fn is_bit_found(records: &[Record], at: prop::sample::Index, bit: u8) -> (bool, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let text = runtime.block_on(async { exported(records, &keys().await) }).into_bytes();
    let begin = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let end = text.len() - 1;
    let mut other = text;
    other[begin + at.index(end - begin)] ^= 1 << bit;
    // What is no text any more is found as that.
    let is_found = match verify(&other[..], Question::default()) {
        Ok(verdict) => !verdict.is_good(),
        Err(_) => true,
    };
    (is_found, String::from_utf8_lossy(&other).into_owned())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever byte of a record is changed, in whatever way, it is found.
    #[test]
    fn a_byte_of_a_record_that_is_changed_is_found(
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let (is_found, text) = is_bit_found(&honest(), at, bit);
        prop_assert!(is_found, "{text}");
    }

    #[test]
    fn a_byte_of_a_record_that_is_changed_is_found_where_there_is_a_draw(
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let (is_found, text) = is_bit_found(&drawn(), at, bit);
        prop_assert!(is_found, "{text}");
    }
}
