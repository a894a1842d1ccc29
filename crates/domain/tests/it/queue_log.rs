//! Whoever follows an admission log finds what breaks the rules, and as what.

use boxoffice_domain::queue::{
    Admitted, Broken, Entry, Fate, Record, Replay, Runs, Standing, Terms,
};
use boxoffice_domain::time::Timestamp;

fn runs(of: &[(u64, u64)]) -> Runs {
    let mut runs = Runs::new();
    assert!(of.iter().all(|(first, last)| runs.add(*first, *last)));
    runs
}

/// 20 a second, at most 5 at once, from second 1 on.
fn terms() -> Terms {
    Terms {
        rate_milli: 20_000,
        max_active: Some(5),
        opens_at: Some(Timestamp(1_000)),
        paused: false,
    }
}

fn step(number: u64, at: i64, from: u64, upto: u64) -> Record {
    let admitted = Admitted { from, upto, ..Admitted::default() };
    Record { number, at: Timestamp(at), entry: Entry::Admitted(admitted) }
}

fn changed(number: u64, at: i64, terms: Terms) -> Record {
    Record { number, at: Timestamp(at), entry: Entry::Changed(terms) }
}

fn edit(record: &mut Record, edit: impl FnOnce(&mut Admitted)) {
    match &mut record.entry {
        Entry::Admitted(admitted) => edit(admitted),
        entry => panic!("{entry:?} is no step"),
    }
}

/// An honest log. Number 2 is passed over and comes back, 4 and 5 have left.
fn honest() -> Vec<Record> {
    let standing = Standing { terms: terms(), ..Standing::default() };
    let mut log = vec![
        Record { number: 0, at: Timestamp(0), entry: Entry::Stands(standing) },
        step(1, 1_000, 0, 6),
        step(2, 1_200, 6, 6),
        step(3, 1_300, 6, 8),
        changed(4, 900, Terms { paused: true, ..terms() }),
        changed(5, 5_000, Terms { max_active: Some(9), ..terms() }),
        step(6, 9_000, 8, 15),
        step(7, 9_100, 15, 17),
    ];
    edit(&mut log[1], |step| (step.passed, step.left) = (runs(&[(2, 2)]), runs(&[(4, 5)])));
    edit(&mut log[2], |step| step.returned = runs(&[(2, 2)]));
    edit(&mut log[6], |step| step.passed = runs(&[(9, 10)]));
    let standing = Standing {
        serving: 17,
        passed: runs(&[(9, 10)]),
        terms: Terms { max_active: Some(9), ..terms() },
        draw: None,
    };
    log.push(Record { number: 8, at: Timestamp(10_000), entry: Entry::Stands(standing) });
    log
}

/// What is broken, and by which record.
fn broken(log: &[Record]) -> Vec<(u64, Broken)> {
    let mut replay = Replay::default();
    let mut broken = Vec::new();
    for record in log {
        broken.extend(replay.follow(record).into_iter().map(|what| (record.number, what)));
    }
    broken
}

#[test]
fn an_honest_log_breaks_nothing() {
    assert_eq!(broken(&honest()), []);
    // It may begin wherever it says where the queue stands.
    assert_eq!(broken(&honest()[8..]), []);
    let mut replay = Replay::default();
    honest().iter().for_each(|record| assert!(replay.follow(record).is_empty()));
    assert_eq!((replay.serving(), replay.number()), (17, Some(8)));
    assert_eq!((replay.passed(), replay.terms().max_active), (&runs(&[(9, 10)]), Some(9)));
}

#[test]
fn each_cheat_is_found_as_what_it_is() {
    type Cheat = (&'static str, fn(&mut Vec<Record>), (u64, Broken));
    let cheats: Vec<Cheat> = vec![
        ("a dropped record", |log| drop(log.remove(4)), (5, Broken::Number { expected: 4 })),
        (
            "a record twice",
            |log| log.insert(3, log[2].clone()),
            (2, Broken::Number { expected: 3 }),
        ),
        ("no beginning", |log| drop(log.remove(0)), (1, Broken::NoBeginning)),
        (
            "somebody from behind is let in first",
            |log| edit(&mut log[3], |step| step.from = 7),
            (3, Broken::NotInOrder { serving: 6 }),
        ),
        (
            "numbers have their turn again",
            |log| edit(&mut log[3], |step| step.from = 5),
            (3, Broken::NotInOrder { serving: 6 }),
        ),
        (
            "an extra admission",
            |log| edit(&mut log[2], |step| step.returned = runs(&[(2, 3)])),
            (2, Broken::NotPassedOver { first: 2, last: 3 }),
        ),
        (
            "somebody is let in twice",
            |log| edit(&mut log[3], |step| step.returned = runs(&[(2, 2)])),
            (3, Broken::NotPassedOver { first: 2, last: 2 }),
        ),
        (
            "somebody is passed over before the turn",
            |log| edit(&mut log[1], |step| step.passed = runs(&[(2, 2), (7, 7)])),
            (1, Broken::NoTurn),
        ),
        (
            "somebody has left and is absent",
            |log| edit(&mut log[1], |step| step.passed = runs(&[(2, 2), (4, 4)])),
            (1, Broken::NoTurn),
        ),
        ("before the opening", |log| log[1].at.0 = 999, {
            (1, Broken::NotOpen { opens_at: Timestamp(1_000) })
        }),
        ("while paused", |log| log.insert(5, step(5, 1_400, 8, 9)), (5, Broken::Paused)),
        (
            "too many at once",
            |log| edit(&mut log[6], |step| step.passed = Runs::new()),
            (6, Broken::Elsewhere { part: "set of numbers that were passed over" }),
        ),
        (
            "too many at once",
            |log| log[6] = step(6, 9_000, 8, 18),
            (6, Broken::TooMany { admitted: 10, max: 9 }),
        ),
        // After the seven of a moment ago there were three left, and two more have come.
        (
            "too fast",
            |log| {
                edit(&mut log[6], |step| (step.upto, step.passed) = (17, runs(&[(9, 10)])));
                log[7] = step(7, 9_100, 17, 23);
            },
            (7, Broken::TooFast { admitted: 6, allowed: 5 }),
        ),
        (
            "time goes back",
            |log| log[3].at.0 = 1_000 - 1,
            (3, Broken::TimeBack { before: Timestamp(1_000) }),
        ),
        (
            "another standing",
            |log| match &mut log[8].entry {
                Entry::Stands(standing) => standing.serving = 16,
                entry => panic!("{entry:?}"),
            },
            (8, Broken::Elsewhere { part: "highest number" }),
        ),
        (
            "other terms",
            |log| match &mut log[8].entry {
                Entry::Stands(standing) => standing.terms.rate_milli = 1,
                entry => panic!("{entry:?}"),
            },
            (8, Broken::Elsewhere { part: "rate, bound, opening or pause" }),
        ),
    ];
    for (what, cheat, expected) in cheats {
        let mut log = honest();
        cheat(&mut log);
        let found = broken(&log);
        let is_found = found.contains(&expected)
            // A step that says otherwise shows where the standing is told.
            || matches!(&expected.1, Broken::Elsewhere { .. })
                && found.iter().any(|(_, broken)| *broken == expected.1);
        assert!(is_found, "{what}: {found:?}");
        let said = expected.1.to_string();
        assert!(!said.is_empty() && said.len() < 120, "{said}");
    }
}

/// Whoever lets nobody new in may have a clock that is behind, by as much as instances may differ.
#[test]
fn times_of_those_who_came_back_may_be_a_little_earlier() {
    let mut log = honest();
    log.truncate(3);
    for (returned_at, at, is_broken) in [(4_000, 1_000, false), (4_001, 1_000, true)] {
        log[2].at.0 = returned_at;
        let next = step(3, at, 6, 7);
        let found = broken(&[&log[..], &[next]].concat());
        let back = found.iter().any(|(_, what)| matches!(what, Broken::TimeBack { .. }));
        assert_eq!(back, is_broken, "{returned_at}: {found:?}");
    }
    // Where times were taken back, they go on from there.
    let set_back = |number| Record { number, at: Timestamp(0), entry: Entry::SetBack };
    log[2].at.0 = 900_000;
    assert_eq!(broken(&[&log[..], &[set_back(3), step(4, 2_000, 6, 7)]].concat()), []);
}

#[test]
fn a_record_tells_what_became_of_a_number() {
    let log = honest();
    let fates = |seq| -> Vec<(u64, Fate)> {
        log.iter().filter_map(|it| Some((it.number, it.fate(seq)?))).collect()
    };
    assert_eq!(fates(1), [(1, Fate::Admitted)]);
    assert_eq!(fates(2), [(1, Fate::PassedOver), (2, Fate::Readmitted)]);
    assert_eq!(fates(4), [(1, Fate::Left)]);
    assert_eq!(fates(9), [(6, Fate::PassedOver)]);
    assert_eq!(fates(18), []);
}
