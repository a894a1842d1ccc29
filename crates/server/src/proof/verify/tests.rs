use boxoffice_backends::store::{Head, Link};
use boxoffice_domain::queue::{Admitted, Runs, Standing, Terms};
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

/// Number 2 is passed over and comes back, 5 has left, and once a change is made. 11 waits.
fn honest() -> Vec<Record> {
    let step = |from, upto, passed: &[u64], left: &[u64], returned: &[u64]| {
        let (passed, left, returned) = (set(passed), set(left), set(returned));
        Entry::Admitted(Admitted { from, upto, passed, left, returned })
    };
    let entries = [
        (0, Entry::Stands(Standing { terms: terms(), ..Standing::default() })),
        (100, step(0, 3, &[2], &[], &[])),
        (200, step(3, 6, &[], &[5], &[])),
        (300, step(6, 6, &[], &[], &[2])),
        (350, Entry::Changed(Terms { rate_milli: 10_000, ..terms() })),
        (400, step(6, 8, &[], &[], &[])),
        (600, step(8, 10, &[], &[], &[])),
    ];
    let record = |(number, (ms, entry)): (u64, (i64, Entry))| Record {
        number,
        at: Timestamp(START + ms),
        entry,
    };
    (0..).zip(entries).map(record).collect()
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever byte of a record is changed, in whatever way, it is found.
    #[test]
    fn a_byte_of_a_record_that_is_changed_is_found(
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let text = runtime.block_on(async { exported(&honest(), &keys().await) }).into_bytes();
        let begin = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let end = text.len() - 1;
        let mut other = text.clone();
        other[begin + at.index(end - begin)] ^= 1 << bit;
        // What is no text any more is found as that.
        let is_found = match verify(&other[..], Question::default()) {
            Ok(verdict) => !verdict.is_good(),
            Err(_) => true,
        };
        prop_assert!(is_found, "{}", String::from_utf8_lossy(&other));
    }
}
