//! Whoever follows an admission log finds what breaks the rules, and as what.

use boxoffice_domain::queue::{
    Admitted, Broken, Drawing, Drawn, Entry, Fate, Record, Replay, Runs, Standing, Terms,
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

// ---- A queue with an opening draw.

const DRAWN: Drawn = Drawn { count: 10, seed: [7; 32] };

fn standing(serving: u64, drawn: Option<Drawn>) -> Standing {
    let draw = Some(Drawing { commitment: [2; 32], drawn });
    Standing { serving, terms: terms(), draw, ..Standing::default() }
}

/// An honest log: the seed is exchanged after a restore, and ten are drawn at the opening.
fn drawn() -> Vec<Record> {
    let first = Drawing { commitment: [1; 32], drawn: None };
    let record = |at, entry| Record { number: 0, at: Timestamp(at), entry };
    let mut log = vec![
        record(0, Entry::Stands(Standing { draw: Some(first), ..standing(0, None) })),
        record(10, Entry::Restored { epoch: 3 }),
        record(10, Entry::Committed([2; 32])),
        record(500, Entry::Stands(standing(0, None))),
        record(1_000, Entry::Drawn(DRAWN)),
        step(0, 1_000, 0, 5),
        record(1_100, Entry::Stands(standing(5, Some(DRAWN)))),
        step(0, 1_300, 5, 10),
        step(0, 1_600, 10, 12),
    ];
    renumber(&mut log);
    log
}

/// Whoever cheats numbers the records so that it does not show.
fn renumber(log: &mut [Record]) {
    for (number, record) in (0..).zip(log) {
        record.number = number;
    }
}

fn stands(record: &mut Record) -> &mut Standing {
    match &mut record.entry {
        Entry::Stands(standing) => standing,
        entry => panic!("{entry:?} does not say where the queue stands"),
    }
}

#[test]
fn an_honest_log_of_a_queue_that_is_drawn_breaks_nothing() {
    assert_eq!(broken(&drawn()), []);
    // It may begin wherever it says where the queue stands: before the draw, and behind it.
    assert_eq!(broken(&drawn()[3..]), []);
    assert_eq!(broken(&drawn()[6..]), []);
    let mut replay = Replay::default();
    drawn()[..4].iter().for_each(|record| drop(replay.follow(record)));
    assert!(replay.is_undrawn());
    assert_eq!(replay.draw(), Some(&Drawing { commitment: [2; 32], drawn: None }));
    drawn()[4..].iter().for_each(|record| drop(replay.follow(record)));
    assert!(!replay.is_undrawn());
    assert_eq!(replay.draw().and_then(|draw| draw.drawn), Some(DRAWN));
    // A restore after the draw leaves it as it is.
    let mut log = drawn();
    log.insert(7, Record { entry: Entry::Restored { epoch: 4 }, ..log[6].clone() });
    renumber(&mut log);
    assert_eq!(broken(&log), []);
}

#[test]
fn each_cheat_with_a_draw_is_found_as_what_it_is() {
    type Cheat = (&'static str, fn(&mut Vec<Record>), (u64, Broken));
    let elsewhere = || Broken::Elsewhere { part: "draw" };
    let cheats: Vec<Cheat> = vec![
        (
            "somebody has their turn before the draw",
            |log| log.insert(4, step(0, 1_000, 0, 2)),
            (4, Broken::NotDrawn),
        ),
        (
            "the draw comes when somebody has had their turn",
            |log| log.swap(4, 5),
            (5, Broken::NoDraw),
        ),
        ("there is no draw", |log| drop(log.remove(4)), (4, Broken::NotDrawn)),
        ("a second draw", |log| log.insert(5, log[4].clone()), (5, Broken::NoDraw)),
        (
            "a second draw, of others",
            |log| {
                let drawn = Drawn { count: 12, seed: [8; 32] };
                log.insert(7, Record { entry: Entry::Drawn(drawn), ..log[6].clone() });
            },
            (7, Broken::NoDraw),
        ),
        (
            "a draw before the opening",
            |log| log[4].at.0 = 999,
            (4, Broken::NotOpen { opens_at: Timestamp(1_000) }),
        ),
        (
            "a draw that nobody was told of",
            |log| {
                stands(&mut log[0]).draw = None;
                stands(&mut log[3]).draw = None;
                log.drain(1..3);
            },
            (2, Broken::NoDraw),
        ),
        (
            "another seed is told of later",
            |log| {
                stands(&mut log[6]).draw = standing(5, Some(Drawn { seed: [8; 32], ..DRAWN })).draw;
            },
            (6, elsewhere()),
        ),
        (
            "another count is told of later",
            |log| stands(&mut log[6]).draw = standing(5, Some(Drawn { count: 11, ..DRAWN })).draw,
            (6, elsewhere()),
        ),
        (
            "the draw is told of as still to come",
            |log| stands(&mut log[6]).draw = standing(5, None).draw,
            (6, elsewhere()),
        ),
        ("nothing is told of the draw", |log| stands(&mut log[6]).draw = None, (6, elsewhere())),
        (
            "the draw is told of, and was none",
            |log| stands(&mut log[3]).draw = standing(0, Some(DRAWN)).draw,
            (3, elsewhere()),
        ),
        (
            "another commitment is told of",
            |log| {
                let other = Drawing { commitment: [9; 32], drawn: None };
                stands(&mut log[3]).draw = Some(other);
            },
            (3, elsewhere()),
        ),
        (
            "the commitment is exchanged, and no restore came before",
            |log| drop(log.remove(1)),
            (1, Broken::Recommitted),
        ),
        (
            "it is exchanged later than at the restore",
            |log| log.swap(2, 3),
            (3, Broken::Recommitted),
        ),
        (
            "it is exchanged twice for one restore",
            |log| log.insert(3, log[2].clone()),
            (3, Broken::Recommitted),
        ),
        (
            "it is exchanged after the draw",
            |log| drop(log.splice(5..5, [log[1].clone(), log[2].clone()])),
            (6, Broken::Recommitted),
        ),
        (
            "a log begins where somebody had their turn before the draw",
            |log| {
                log.truncate(1);
                stands(&mut log[0]).serving = 1;
            },
            (0, Broken::NotDrawn),
        ),
        (
            "an extra admission",
            |log| edit(&mut log[7], |step| step.returned = runs(&[(3, 3)])),
            (7, Broken::NotPassedOver { first: 3, last: 3 }),
        ),
        (
            "somebody from behind is let in first",
            |log| edit(&mut log[7], |step| step.from = 7),
            (7, Broken::NotInOrder { serving: 5 }),
        ),
    ];
    for (what, cheat, expected) in cheats {
        let mut log = drawn();
        cheat(&mut log);
        renumber(&mut log);
        let found = broken(&log);
        assert!(found.contains(&expected), "{what}: {found:?}");
        assert!(expected.1.to_string().len() < 120);
    }
    // None is missing from the numbers, unless the numbers tell.
    let mut log = drawn();
    log.remove(4);
    assert!(broken(&log).contains(&(5, Broken::Number { expected: 4 })));
}

/// What is about the draw is about who comes before whom.
#[test]
fn a_draw_that_breaks_a_rule_is_a_matter_of_order() {
    for broken in [Broken::NotDrawn, Broken::NoDraw, Broken::Recommitted] {
        assert!(broken.is_of_order());
    }
}
