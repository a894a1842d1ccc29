//! The admission log: a chain that says what happened to a queue, whoever wrote it.

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{
    Admitted, Bucket, Entry, QueueSettings, Record, Replay, Runs, SettingsChange, Standing, Step,
};
use boxoffice_domain::time::Timestamp;

use super::{START, Subject, assert_clean, at_once, everybody as to, main_queue, settings};
use boxoffice_backends::store::{
    Act, Advance, Checkpoint, Digest, Epochs, Link, LogPart, Note, Role, ShortenLog, Store,
};

const ALL: u32 = 1_000;

fn open() -> QueueSettings {
    QueueSettings { max_active: None, opens_at: None, paused: false, ..settings() }
}

fn set(seqs: &[u64]) -> Runs {
    Runs::from(&seqs.iter().copied().collect())
}

/// The time of the store, so that a step counts.
async fn now(store: &Store) -> Timestamp {
    store.database_now().await.unwrap()
}

/// Admits up to a number, as an instance that shares the queue.
async fn advance(store: &Store, steps: u64, serving: u64, step: Step) -> bool {
    let at = step.at;
    let bucket = Bucket::default();
    let advance = Advance { queue: main_queue(), steps, serving, step, bucket };
    store.advance(advance, at).await.unwrap()
}

/// The same, as a process that is alone.
async fn checkpoint(store: &Store, before: u64, step: Step) {
    let upto = step.upto.max(50);
    let point = Checkpoint {
        queue: main_queue(),
        next: upto,
        watermark: upto,
        floor: 0,
        over_before: Timestamp(i64::MIN),
        step: Some((before, step)),
        claimed: None,
    };
    store.checkpoint(vec![point], START).await.unwrap();
}

async fn part(store: &Store, after: Option<u64>, max: u32) -> LogPart {
    store.admission_log(main_queue(), after, max).await.unwrap().unwrap()
}

/// The log, from the beginning that is kept on, with every link checked.
async fn log(store: &Store) -> Vec<Record> {
    let LogPart { previous, links, head } = part(store, None, ALL).await;
    let mut digest = previous;
    for link in &links {
        digest = digest.then(&link.bytes);
        assert_eq!(link.digest, digest, "record {}", link.number);
    }
    let last = links.last().unwrap();
    assert_eq!((last.number, last.digest), (head.number, head.digest));
    let records = links.iter().map(|link| Record::from_bytes(&link.bytes).unwrap());
    let records: Vec<Record> = records.collect();
    assert!(records.iter().zip(&links).all(|(record, link)| record.number == link.number));
    let mut replay = Replay::default();
    for record in &records {
        let broken = replay.follow(record);
        assert!(broken.iter().all(|it| !it.is_of_order()), "{broken:?} in {record:?}");
    }
    records
}

/// Everything that is done to a queue is in its log, and the log goes on after a reopen.
pub(crate) async fn a_log_is_one_chain_from_the_beginning_on(subject: Subject) {
    let store = &subject.store;
    assert_eq!(store.admission_log(main_queue(), None, ALL).await, Ok(None));
    store.create_queue(main_queue(), open()).await.unwrap();
    let before = now(store).await;
    let step = Step {
        passed: [2, 3].into_iter().collect(),
        left: [4].into_iter().collect(),
        ..to(5, before)
    };
    assert!(advance(store, 0, 0, step).await);
    store.change_queue(main_queue(), SettingsChange::pause(true)).await.unwrap();
    let subject = subject.reopened().await;
    let store = &subject.store;
    store.change_queue(main_queue(), SettingsChange::pause(false)).await.unwrap();
    let again = now(store).await;
    assert!(
        advance(store, 3, 5, Step { returned: [3].into_iter().collect(), ..to(7, again) }).await
    );
    let later = now(store).await;
    checkpoint(store, 7, Step { returned: [2].into_iter().collect(), ..to(7, later) }).await;

    let records = log(store).await;
    let entries: Vec<_> = records.iter().map(|record| record.entry.clone()).collect();
    let paused = QueueSettings { paused: true, ..open() };
    let expected = [
        Entry::Stands(Standing { terms: (&open()).into(), ..Standing::default() }),
        Entry::Admitted(Admitted {
            from: 0,
            upto: 5,
            passed: set(&[2, 3]),
            left: set(&[4]),
            ..Admitted::default()
        }),
        Entry::Changed((&paused).into()),
        Entry::Changed((&open()).into()),
        Entry::Admitted(Admitted { from: 5, upto: 7, returned: set(&[3]), ..Admitted::default() }),
        Entry::Admitted(Admitted { from: 7, upto: 7, returned: set(&[2]), ..Admitted::default() }),
    ];
    assert_eq!(entries, expected);
    assert_eq!((records[1].at, records[4].at, records[5].at), (before, again, later));
    assert!(records.windows(2).all(|two| two[0].at <= two[1].at));
    assert_eq!(part(store, None, 1).await.previous, Digest::genesis(&main_queue()));
    assert_clean(store, START).await;
}

/// Each part tells the digest that it goes on from, and all tell the head.
pub(crate) async fn a_log_is_read_in_parts(Subject { store, .. }: Subject) {
    store.create_queue(main_queue(), open()).await.unwrap();
    for step in 0..7 {
        let at = now(&store).await;
        assert!(advance(&store, step, step, to(step + 1, at)).await);
    }
    let whole = part(&store, None, ALL).await;
    assert_eq!(
        whole.links.iter().map(|link| link.number).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5, 6, 7]
    );
    for max in [1, 3, 8] {
        let mut after = None;
        let (mut digest, mut links) = (whole.previous, Vec::<Link>::new());
        loop {
            let part = part(&store, after, max).await;
            assert_eq!((part.previous, part.head), (digest, whole.head));
            let Some(last) = part.links.last() else { break };
            assert!(part.links.len() <= max as usize);
            (after, digest) = (Some(last.number), last.digest);
            links.extend(part.links);
        }
        assert_eq!(links, whole.links, "in parts of {max}");
    }
    let behind = part(&store, Some(99), 5).await;
    assert_eq!((behind.links.len(), behind.previous), (0, whole.head.digest));
    assert_eq!(store.admission_log(QueueName::new("none").unwrap(), None, 1).await, Ok(None));
}

/// Instances that plan the same step at once: one of them writes the record.
pub(crate) async fn of_steps_at_once_one_is_in_the_log(Subject { store, .. }: Subject) {
    store.create_queue(main_queue(), open()).await.unwrap();
    let mut serving = 0;
    for round in 0..10_u64 {
        let at = now(&store).await;
        let steps = (1..=6_u64).map(|more| {
            let store = store.clone();
            async move { advance(&store, round, serving, to(serving + more, at)).await }
        });
        let won = at_once(steps).await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1, "round {round}");
        let records = log(&store).await;
        assert_eq!(records.len() as u64, round + 2);
        match &records.last().unwrap().entry {
            Entry::Admitted(step) => serving = step.upto,
            entry => panic!("{entry:?}"),
        }
    }
    assert_clean(&store, START).await;
}

/// The answer to a commit may be missing, and then all is stored once more.
pub(crate) async fn a_step_that_is_stored_twice_is_in_the_log_once(Subject { store, .. }: Subject) {
    store.create_queue(main_queue(), open()).await.unwrap();
    let at = now(&store).await;
    let step = Step { passed: [2].into_iter().collect(), ..to(5, at) };
    checkpoint(&store, 0, step.clone()).await;
    let back = Step { returned: [2].into_iter().collect(), ..to(5, at) };
    checkpoint(&store, 5, back.clone()).await;
    let once = log(&store).await;
    assert_eq!(once.len(), 3);
    checkpoint(&store, 5, back).await;
    assert_eq!(log(&store).await, once, "nothing has happened since");
    assert_clean(&store, START).await;
}

/// Whoever does not know that a step was stored plans another one from the same place. What the first one
/// said stands, and the second says the rest.
pub(crate) async fn a_step_that_is_planned_once_more_goes_on_from_what_is_stored(
    Subject { store, .. }: Subject,
) {
    store.create_queue(main_queue(), open()).await.unwrap();
    let at = now(&store).await;
    checkpoint(&store, 0, Step { passed: [2].into_iter().collect(), ..to(5, at) }).await;
    let later = Timestamp(at.0 + 100);
    let again = Step {
        passed: [3, 7].into_iter().collect(),
        left: [1, 8].into_iter().collect(),
        ..to(9, later)
    };
    checkpoint(&store, 0, again).await;
    let expected =
        Admitted { from: 5, upto: 9, passed: set(&[7]), left: set(&[8]), returned: Runs::new() };
    assert_eq!(log(&store).await[2].entry, Entry::Admitted(expected));
    // Nobody is let in again twice.
    let back = |ms| Step { returned: [2].into_iter().collect(), ..to(9, Timestamp(later.0 + ms)) };
    checkpoint(&store, 9, back(1)).await;
    checkpoint(&store, 9, back(2)).await;
    let returned: Vec<_> = log(&store).await.iter().filter_map(|it| it.fate(2)).collect();
    assert_eq!(returned.len(), 2, "passed over and readmitted: {returned:?}");
}

fn note(operation: &'static str) -> Note {
    Note {
        at: START,
        who: "admin".into(),
        role: Role::Admin,
        origin: "local".into(),
        operation,
        reason: None,
        key: None,
        answer: std::sync::Arc::new(|_| String::new()),
    }
}

/// What would look like a cheat is said: that a backup was put back, or times were.
pub(crate) async fn a_restore_and_a_clock_that_is_set_back_are_in_the_log(subject: Subject) {
    let store = &subject.store;
    let vip = QueueName::new("vip").unwrap();
    store.create_queue(main_queue(), open()).await.unwrap();
    store.create_queue(vip.clone(), open()).await.unwrap();
    let epochs = Epochs::default().with(7, [(main_queue(), 3)]).unwrap();
    store.act(Act::BeginEpoch(epochs), note("restore")).await.unwrap();
    store.set_back(now(store).await).await.unwrap();
    let subject = subject.reopened().await;
    let store = &subject.store;
    let entries: Vec<_> = log(store).await.into_iter().map(|record| record.entry).collect();
    assert_eq!(entries[1..], [Entry::Restored { epoch: 7 }, Entry::SetBack]);
    let of_vip = store.admission_log(vip, None, ALL).await.unwrap().unwrap();
    assert_eq!(of_vip.links.len(), 3);
    let at = now(store).await;
    assert!(advance(store, 2, 0, to(1, at)).await);
    assert_clean(store, START).await;
}

/// What is old goes, up to a record from which the rest can be followed.
pub(crate) async fn an_old_part_of_a_log_is_forgotten(subject: Subject) {
    let store = &subject.store;
    store.create_queue(main_queue(), open()).await.unwrap();
    let past = Timestamp(0);
    let future = Timestamp(now(store).await.0 + 86_400_000);
    let shorten = |kept_since, marked_before, max| {
        let queue = main_queue();
        async move {
            let shorten = ShortenLog { queue, kept_since, marked_before, max };
            store.shorten_log(shorten).await.unwrap()
        }
    };
    // Nothing has happened since it began.
    assert_eq!(shorten(future, future, 100).await, 0);
    assert_eq!(log(store).await.len(), 1);
    let mut steps = 0;
    for serving in 0..5 {
        let at = now(store).await;
        let passed = [serving + 1].into_iter().collect();
        assert!(advance(store, steps, serving, Step { passed, ..to(serving + 1, at) }).await);
        steps += 1;
    }
    let whole = part(store, None, ALL).await;
    assert_eq!(shorten(past, past, 100).await, 0, "it said where it stands, and is young");
    assert_eq!(part(store, None, ALL).await, whole);
    // It says where it stands, and only then what is older can go.
    assert_eq!(shorten(past, future, 100).await, 0);
    let marked = log(store).await;
    assert_eq!(marked.len(), 7);
    let standing =
        Standing { serving: 5, passed: set(&[1, 2, 3, 4, 5]), terms: (&open()).into(), draw: None };
    assert_eq!(marked[6].entry, Entry::Stands(standing));
    assert_clean(store, START).await;
    steps += 1;
    let at = now(store).await;
    assert!(advance(store, steps, 5, to(6, at)).await);
    assert_eq!(shorten(future, past, 3).await, 3, "some at a time");
    assert_eq!(shorten(future, past, 100).await, 2);
    assert_eq!(shorten(future, past, 100).await, 0);
    let subject = subject.reopened().await;
    let store = &subject.store;
    let rest = part(store, None, ALL).await;
    assert_eq!(rest.previous, whole.head.digest, "the last one that was forgotten");
    assert_eq!(rest.links.iter().map(|link| link.number).collect::<Vec<_>>(), [6, 7]);
    assert_eq!(log(store).await.len(), 2);
    assert_eq!(part(store, Some(2), ALL).await, rest, "asked for what is gone");
    assert_clean(store, START).await;
    let none = ShortenLog {
        queue: QueueName::new("none").unwrap(),
        kept_since: future,
        marked_before: future,
        max: 1,
    };
    assert_eq!(store.shorten_log(none).await, Ok(0));
}
