//! What the store keeps for the queues.

use std::time::Duration;

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{Admission, Bucket, QueueSettings, SettingsChange, Ticket};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;

use super::{
    START, Subject, assert_clean, at, at_once, charge, main_queue, pay, sale, settings, ticket,
    user,
};
use boxoffice_backends::store::{
    Advance, Alias, AliasExists, Checkpoint, Pay, Progress, Store, StoredQueue, TicketRef,
};
use boxoffice_backends::{Error, Fault};

fn name(text: &str) -> QueueName {
    QueueName::new(text).unwrap()
}

fn point(queue: &str, next: u64, watermark: u64) -> Checkpoint {
    let queue = name(queue);
    Checkpoint { queue, next, watermark, floor: 0, admission: None, claimed: None }
}

fn admitting(point: Checkpoint, upto: u64, at: Timestamp) -> Checkpoint {
    Checkpoint { admission: Some(Admission { upto, at }), ..point }
}

async fn stored(store: &Store, queue: &str) -> StoredQueue {
    let found = store.queues().await.unwrap().into_iter().find(|q| q.name.as_str() == queue);
    found.unwrap()
}

/// The parts of a stored queue that a checkpoint may change.
fn counters(queue: &StoredQueue) -> (u64, u64, u64, Vec<Admission>, RoaringTreemap) {
    let StoredQueue { watermark, serving, floor, log, claimed, .. } = queue.clone();
    (watermark, serving, floor, log, claimed)
}

/// A queue is made once, keeps its settings, and takes new ones.
pub(crate) async fn a_queue_is_made_once_and_configured(subject: Subject) {
    let store = &subject.store;
    let open = QueueSettings {
        admit_per_second: 300.0,
        max_active: None,
        opens_at: None,
        paused: false,
        ..settings()
    };
    assert!(store.queues().await.unwrap().is_empty());
    assert_eq!(store.create_queue(main_queue(), settings()).await, Ok(true));
    assert_eq!(store.create_queue(main_queue(), open.clone()).await, Ok(false));
    assert_eq!(store.create_queue(name("a-2"), open.clone()).await, Ok(true));
    let names: Vec<_> = store.queues().await.unwrap().into_iter().map(|q| q.name).collect();
    assert_eq!(names, [name("a-2"), main_queue()]);
    let fresh = stored(store, "main").await;
    assert_eq!(fresh.settings, settings());
    assert_eq!((fresh.watermark, fresh.serving, fresh.floor), (0, 0, 0));
    assert!(fresh.log.is_empty() && fresh.left.is_empty());
    assert!(fresh.claimed.is_empty() && fresh.finished.is_empty());

    assert_eq!(store.change_queue(main_queue(), all(&open)).await, Ok(open.clone()));
    assert_eq!(store.change_queue(name("a-2"), all(&settings())).await, Ok(settings()));
    let answer = store.change_queue(name("none"), all(&open)).await;
    assert!(matches!(answer, Err(Fault::Corrupt(_))), "{answer:?}");
    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(stored(store, "main").await.settings, open);
    assert_eq!(stored(store, "a-2").await.settings, settings());
    assert_eq!(store.queues().await.unwrap().len(), 2);
    assert_clean(store, START).await;
}

/// A change that names every setting that can be changed.
fn all(settings: &QueueSettings) -> SettingsChange {
    SettingsChange {
        admit_per_second: Some(settings.admit_per_second),
        max_active: Some(settings.max_active),
        opens_at: Some(settings.opens_at),
        paused: Some(settings.paused),
    }
}

/// What a change does not name stays as it is, and the answer says how the queue admits then.
pub(crate) async fn a_change_of_a_queue_touches_what_it_names(subject: Subject) {
    let store = &subject.store;
    let none = SettingsChange::default;
    store.create_queue(main_queue(), settings()).await.unwrap();
    store.create_queue(name("a-2"), settings()).await.unwrap();
    let mut expected = settings();
    for change in [
        none(),
        SettingsChange { admit_per_second: Some(0.25), ..none() },
        SettingsChange { max_active: Some(None), ..none() },
        SettingsChange { opens_at: Some(None), ..none() },
        SettingsChange::pause(false),
        none(),
        SettingsChange { max_active: Some(Some(1)), ..none() },
        SettingsChange { opens_at: Some(Some(at(9))), ..none() },
        SettingsChange::pause(true),
        none(),
    ] {
        change.apply(&mut expected);
        let answer = store.change_queue(main_queue(), change.clone()).await;
        assert_eq!(answer.as_ref(), Ok(&expected), "{change:?}");
        assert_eq!(stored(store, "main").await.settings, expected, "{change:?}");
    }
    let subject = subject.reopened().await;
    assert_eq!(stored(&subject.store, "main").await.settings, expected);
    assert_eq!(stored(&subject.store, "a-2").await.settings, settings());
    assert_clean(&subject.store, START).await;
}

/// Changes at once of different settings: none undoes another.
pub(crate) async fn changes_of_a_queue_at_once_all_stand(Subject { store, .. }: Subject) {
    store.create_queue(main_queue(), settings()).await.unwrap();
    for round in 1..=20_u64 {
        let none = SettingsChange::default;
        let changes = [
            SettingsChange { admit_per_second: Some(round as f64), ..none() },
            SettingsChange { max_active: Some(Some(round)), ..none() },
            SettingsChange { opens_at: Some(Some(at(round as i64))), ..none() },
            SettingsChange::pause(round.is_multiple_of(2)),
        ];
        let mut expected = settings();
        changes.iter().for_each(|change| change.apply(&mut expected));
        let answers = at_once(changes.map(|change| {
            let store = store.clone();
            async move { store.change_queue(main_queue(), change).await }
        }))
        .await;
        assert_eq!(stored(&store, "main").await.settings, expected);
        assert!(answers.contains(&Ok(expected)), "one of them was the last: {answers:?}");
    }
    assert_clean(&store, START).await;
}

/// No counter goes back, whatever a caller says; but a watermark may return to what was given.
pub(crate) async fn counters_never_go_back(subject: Subject) {
    let store = &subject.store;
    store.create_queue(main_queue(), settings()).await.unwrap();
    store.checkpoint(vec![point("main", 0, 100)], at(1)).await.unwrap();
    store.checkpoint(vec![admitting(point("main", 50, 100), 20, at(2))], at(2)).await.unwrap();
    let second = Checkpoint { floor: 20, ..admitting(point("main", 60, 100), 30, at(3)) };
    store.checkpoint(vec![second], at(3)).await.unwrap();
    let before = counters(&stored(store, "main").await);
    let log = vec![Admission { upto: 30, at: at(3) }];
    assert_eq!(before, (100, 30, 20, log, RoaringTreemap::new()));

    let good = Checkpoint { floor: 20, ..point("main", 60, 100) };
    for (what, bad) in [
        ("next", Checkpoint { next: 59, ..good.clone() }),
        ("floor", Checkpoint { floor: 19, ..good.clone() }),
        ("serving", admitting(good.clone(), 29, at(4))),
        ("a watermark below next", Checkpoint { watermark: 59, ..good.clone() }),
        ("a queue that is none", Checkpoint { queue: name("none"), ..good.clone() }),
    ] {
        let answer = store.checkpoint(vec![bad], at(4)).await;
        assert!(matches!(answer, Err(Fault::Corrupt(_))), "{what}: {answer:?}");
        assert_eq!(counters(&stored(store, "main").await), before, "{what}");
    }
    // The service ends in good order: nothing is reserved ahead any more.
    let exact = Checkpoint { watermark: 60, ..good.clone() };
    store.checkpoint(vec![exact.clone()], at(4)).await.unwrap();
    assert_eq!(stored(store, "main").await.watermark, 60);
    // The same once more is no step back.
    store.checkpoint(vec![exact], at(4)).await.unwrap();
    store.checkpoint(vec![good], at(4)).await.unwrap();
    assert_eq!(stored(store, "main").await.watermark, 100);
    assert_clean(store, at(4)).await;
    let subject = subject.reopened().await;
    assert_eq!(counters(&stored(&subject.store, "main").await), before);
}

/// One tick of several queues is one step: where one of them is refused, none has moved.
pub(crate) async fn a_checkpoint_of_several_queues_is_all_or_nothing(
    Subject { store, .. }: Subject,
) {
    for queue in ["a", "b", "c"] {
        store.create_queue(name(queue), settings()).await.unwrap();
        store.checkpoint(vec![point(queue, 10, 20)], at(1)).await.unwrap();
    }
    let points = vec![
        admitting(point("a", 15, 30), 5, at(2)),
        point("b", 9, 20),
        admitting(point("c", 15, 30), 5, at(2)),
    ];
    store.checkpoint(points, at(2)).await.unwrap_err();
    for queue in ["a", "b", "c"] {
        let expected = (20, 0, 0, vec![], RoaringTreemap::new());
        assert_eq!(counters(&stored(&store, queue).await), expected, "{queue}");
    }
    assert_eq!(store.clock().await, Ok(at(1)));
    let points = ["a", "b", "c"].map(|queue| admitting(point(queue, 15, 30), 5, at(2)));
    store.checkpoint(points.into(), at(2)).await.unwrap();
    for queue in ["a", "b", "c"] {
        assert_eq!(stored(&store, queue).await.serving, 5, "{queue}");
    }
    assert_clean(&store, at(2)).await;
}

/// Log, floor and the three sets come back as they were; what is below the floor is forgotten.
pub(crate) async fn a_line_survives_a_reopen(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 2).await;
    for queue in ["main", "vip"] {
        store.create_queue(name(queue), settings()).await.unwrap();
    }
    let big = u64::from(u32::MAX) + 7;
    let admissions = [(10, 100), (20, 200), (25, 200), (big, 300)];
    for (upto, ms) in admissions {
        let next = admitting(point("main", big + 100, big + 200), upto, at(ms));
        store.checkpoint(vec![next], at(ms)).await.unwrap();
    }
    // 5 and 15 gave up in the line, 12 after its admission, 13 paid, 14 and 13 have been seen.
    for (seq, waiting) in [(5, true), (15, true), (big + 50, true), (12, false), (3, false)] {
        store.leave_queue(ticket(seq), waiting, at(301)).await.unwrap();
    }
    let held = sale.held(store, 1, &[0]).await;
    store.charge(charge(1, 1_000, START)).await.unwrap();
    store.pay(Pay { ticket: ticket(13), ..pay(1, held.id, at(302)) }).await.unwrap();
    // A ticket issued past the line has no number, and takes nobody's place in the line.
    let beside = TicketRef { seq: 0, ..ticket(4) };
    store.leave_queue(beside, false, at(303)).await.unwrap();
    let claimed = RoaringTreemap::from_iter([11, 13, 14, big]);
    let point = Checkpoint {
        claimed: Some(claimed.clone()),
        floor: 10,
        ..point("main", big + 100, big + 200)
    };
    store.checkpoint(vec![point.clone()], at(304)).await.unwrap();

    let subject = subject.reopened().await;
    let store = &subject.store;
    let main = stored(store, "main").await;
    assert_eq!((main.watermark, main.serving, main.floor), (big + 200, big, 10));
    let log: Vec<_> = main.log.iter().map(|step| (step.upto, step.at)).collect();
    assert_eq!(log, [(20, at(200)), (25, at(200)), (big, at(300))]);
    assert_eq!(main.left, RoaringTreemap::from_iter([15, big + 50]));
    assert_eq!(main.finished, RoaringTreemap::from_iter([12, 13]));
    assert_eq!(main.claimed, RoaringTreemap::from_iter([11, 14, big]));
    let vip = stored(store, "vip").await;
    assert!(vip.left.is_empty() && vip.finished.is_empty() && vip.claimed.is_empty());
    assert_eq!((vip.watermark, vip.log), (0, vec![]));
    assert_clean(store, at(304)).await;

    // Claims that are not told of stay; an empty set is told of.
    store.checkpoint(vec![Checkpoint { claimed: None, ..point.clone() }], at(305)).await.unwrap();
    assert!(!stored(store, "main").await.claimed.is_empty());
    let none = Checkpoint { claimed: Some(RoaringTreemap::new()), floor: big, ..point };
    store.checkpoint(vec![none], at(306)).await.unwrap();
    let subject = subject.reopened().await;
    let store = &subject.store;
    let main = stored(store, "main").await;
    assert_eq!((main.serving, main.floor, main.log), (big, big, vec![]));
    assert!(main.claimed.is_empty() && main.finished.is_empty());
    assert_eq!(main.left, RoaringTreemap::from_iter([big + 50]));
    assert_clean(store, at(306)).await;
}

/// The latest time that any checkpoint, admission, reservation or charge told of.
pub(crate) async fn the_clock_never_goes_back(subject: Subject) {
    let store = &subject.store;
    assert_eq!(store.clock().await, Ok(Timestamp(0)));
    store.checkpoint(vec![], at(10)).await.unwrap();
    store.checkpoint(vec![], at(5)).await.unwrap();
    assert_eq!(store.clock().await, Ok(at(10)));
    // More digits are later, which text would not say.
    store.checkpoint(vec![], Timestamp(9)).await.unwrap();
    assert_eq!(store.clock().await, Ok(at(10)));
    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(store.clock().await, Ok(at(10)));
    // A crash may come before the next checkpoint, but nothing that was sold is in the future.
    let sale = sale(store, 1).await;
    store.reserve(sale.reserve(1, &[0], at(20))).await.unwrap();
    assert_eq!(store.clock().await, Ok(at(20)));
    store.charge(charge(1, 1, at(30))).await.unwrap();
    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(store.clock().await, Ok(at(30)));
}

fn alias(token: &str, seq: u64, active_until: Option<Timestamp>) -> Alias {
    let TicketRef { queue, id, .. } = ticket(token.bytes().map(u64::from).sum());
    let ticket = Ticket { queue, seq, user: user(seq as i64 + 1), issued_at: at(3), id };
    Alias { token: token.into(), ticket, active_until, spent: false }
}

async fn sorted_aliases(store: &Store, now: Timestamp) -> Vec<Alias> {
    let mut aliases = store.aliases(now).await.unwrap();
    aliases.sort_by(|a, b| a.token.cmp(&b.token));
    aliases
}

/// Opaque tokens come back as they were given. Where one of them exists, or stands twice in the
/// list, none of the list is stored.
pub(crate) async fn aliases_are_stored_all_or_none(subject: Subject) {
    let store = &subject.store;
    let first = vec![alias("a", 1, None), alias("b", 0, Some(at(500))), alias("c", 2, None)];
    store.add_aliases(first.clone()).await.unwrap();
    store.add_aliases(vec![]).await.unwrap();
    assert_eq!(sorted_aliases(store, START).await, first);
    let exists = |token: &str| Err(Error::Rejected(AliasExists(token.into())));
    let overlapping = vec![alias("d", 4, None), alias("b", 5, None), alias("e", 6, None)];
    assert_eq!(store.add_aliases(overlapping).await, exists("b"));
    let twice = vec![alias("f", 4, None), alias("g", 5, None), alias("f", 6, None)];
    assert_eq!(store.add_aliases(twice).await, exists("f"));
    assert_eq!(sorted_aliases(store, START).await, first);
    // A token differs in every character, its case too.
    store.add_aliases(vec![alias("A", 7, None)]).await.unwrap();
    let subject = subject.reopened().await;
    let store = &subject.store;
    let mut all = first;
    all.insert(0, alias("A", 7, None));
    assert_eq!(sorted_aliases(store, START).await, all);
    assert_clean(store, START).await;
}

/// A token's ticket is spent by payment or by giving it up, and a token that ran out is known as
/// such for one day more.
pub(crate) async fn aliases_know_whether_they_are_spent_and_run_out(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 1).await;
    let given = ["bought", "given up", "in the line", "unused"];
    let aliases: Vec<_> = given.map(|token| alias(token, 0, Some(at(500)))).into();
    let in_line = alias("in the line", 9, None);
    let aliases = [&aliases[..2], std::slice::from_ref(&in_line), &aliases[3..]].concat();
    store.add_aliases(aliases.clone()).await.unwrap();
    let held = sale.held(store, 1, &[0]).await;
    store.charge(charge(1, 1_000, START)).await.unwrap();
    let bought = TicketRef::from(&aliases[0].ticket);
    store.pay(Pay { ticket: bought, ..pay(1, held.id, at(1)) }).await.unwrap();
    store.leave_queue((&aliases[1].ticket).into(), false, at(1)).await.unwrap();
    let subject = subject.reopened().await;
    let store = &subject.store;
    let spent: Vec<_> = sorted_aliases(store, at(2)).await.iter().map(|a| a.spent).collect();
    assert_eq!(spent, [true, true, false, false]);
    store.leave_queue((&in_line.ticket).into(), true, at(3)).await.unwrap();
    let spent: Vec<_> = sorted_aliases(store, at(3)).await.iter().map(|a| a.spent).collect();
    assert_eq!(spent, [true, true, true, false]);
    let day = Duration::from_secs(86_400).as_millis() as i64;
    assert_eq!(sorted_aliases(store, at(499 + day)).await.len(), 4);
    // A place in the line does not run out by itself.
    assert_eq!(sorted_aliases(store, at(500 + day)).await.len(), 1);
    assert_clean(store, START).await;
}

/// Fifty tasks, and no number is handed out twice or left out.
pub(crate) async fn numbers_taken_at_once_are_disjoint(subject: Subject) {
    const TASKS: u64 = 50;
    let store = &subject.store;
    store.create_queue(main_queue(), settings()).await.unwrap();
    store.create_queue(name("vip"), settings()).await.unwrap();
    let taken = at_once((0..TASKS).map(|task| {
        let store = store.clone();
        async move {
            let mut ranges = Vec::new();
            for round in 0..4 {
                let count = 1 + (task + round) % 7;
                let first = store.allocate_numbers(main_queue(), count, 0).await.unwrap();
                ranges.push((first, count));
            }
            ranges
        }
    }))
    .await;
    // Whoever asks again gets higher numbers.
    for ranges in &taken {
        assert!(ranges.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0), "{ranges:?}");
    }
    let mut numbers: Vec<u64> =
        taken.iter().flatten().flat_map(|(first, count)| *first..first + count).collect();
    numbers.sort_unstable();
    let all = numbers.len() as u64;
    assert_eq!(numbers, (1..=all).collect::<Vec<_>>());
    assert_eq!(store.allocate_numbers(name("vip"), 3, 0).await, Ok(1));
    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(stored(store, "main").await.watermark, all);
    assert_eq!(store.allocate_numbers(main_queue(), 1, 0).await, Ok(all + 1));
    assert_clean(store, START).await;
}

/// Numbers that were given without the store are not given again by it.
pub(crate) async fn numbers_are_taken_above_what_the_caller_knows(Subject { store, .. }: Subject) {
    store.create_queue(main_queue(), settings()).await.unwrap();
    assert_eq!(store.allocate_numbers(main_queue(), 10, 0).await, Ok(1));
    assert_eq!(store.allocate_numbers(main_queue(), 10, 7).await, Ok(11));
    assert_eq!(store.allocate_numbers(main_queue(), 10, 100).await, Ok(101));
    assert_eq!(stored(&store, "main").await.watermark, 110);
    // None: the watermark rises, or stays.
    assert_eq!(store.allocate_numbers(main_queue(), 0, 200).await, Ok(201));
    assert_eq!(store.allocate_numbers(main_queue(), 0, 150).await, Ok(201));
    assert_eq!(stored(&store, "main").await.watermark, 200);
    assert_eq!(stored(&store, "main").await.next, 0);
    let far = u64::from(u32::MAX) * 4;
    assert_eq!(store.allocate_numbers(main_queue(), 1, far).await, Ok(far + 1));
    let answer = store.allocate_numbers(name("none"), 1, 0).await;
    assert!(matches!(answer, Err(Fault::Corrupt(_))), "{answer:?}");
    assert_clean(&store, START).await;
}

fn step(from: u64, upto: u64, at: Timestamp) -> Advance {
    let bucket = Bucket::restore(upto, Some(at));
    Advance { queue: main_queue(), from, admission: Admission { upto, at }, bucket }
}

fn open() -> QueueSettings {
    QueueSettings { opens_at: None, paused: false, ..settings() }
}

/// Many instances plan on the same state, again and again; each time one of them admits.
pub(crate) async fn one_of_several_admits(subject: Subject) {
    let store = &subject.store;
    store.create_queue(main_queue(), open()).await.unwrap();
    store.allocate_numbers(main_queue(), 1_000, 0).await.unwrap();
    let mut serving = 0;
    for round in 1..=10_u64 {
        let now = at(round as i64 * 100);
        let admitted = at_once((1..=20_u64).map(|instance| {
            let store = store.clone();
            let step = step(serving, serving + instance, now);
            async move { (instance, store.advance(step, now).await.unwrap()) }
        }))
        .await;
        let winners: Vec<u64> =
            admitted.iter().filter(|(_, admitted)| *admitted).map(|(i, _)| *i).collect();
        let [winner] = winners[..] else { panic!("{winners:?} admitted at once") };
        serving += winner;
        let main = stored(store, "main").await;
        assert_eq!(main.serving, serving);
        assert_eq!(main.bucket, Bucket::restore(serving, Some(now)));
        assert_eq!(main.log.len() as u64, round);
        assert_eq!(main.log.last(), Some(&Admission { upto: serving, at: now }));
    }
    let before = stored(store, "main").await;
    let subject = subject.reopened().await;
    let store = &subject.store;
    let main = stored(store, "main").await;
    assert_eq!((main.serving, &main.log, &main.bucket), (serving, &before.log, &before.bucket));
    assert_eq!((main.next, main.watermark), (serving, 1_000));
    assert_eq!(store.clock().await, Ok(at(1_000)));
    assert_clean(store, at(1_000)).await;
}

/// A step planned on an older or newer state, backwards, in a paused or an unknown queue.
pub(crate) async fn a_step_is_for_the_queue_as_it_was_planned(Subject { store, .. }: Subject) {
    store.create_queue(main_queue(), open()).await.unwrap();
    assert_eq!(store.advance(step(0, 20, at(1)), at(1)).await, Ok(true));
    // What was admitted had joined.
    let main = stored(&store, "main").await;
    assert_eq!((main.next, main.watermark), (20, 20));
    for (from, upto) in [(0, 20), (0, 30), (19, 30), (21, 30), (20, 20), (20, 19)] {
        assert_eq!(store.advance(step(from, upto, at(2)), at(2)).await, Ok(false), "{from} {upto}");
    }
    store.change_queue(main_queue(), SettingsChange::pause(true)).await.unwrap();
    assert_eq!(store.advance(step(20, 30, at(3)), at(3)).await, Ok(false));
    let main = stored(&store, "main").await;
    assert_eq!((main.serving, main.log.len()), (20, 1));
    // Other settings, and nothing is left of the credit.
    assert_eq!(main.bucket, Bucket::default());
    assert_eq!(store.clock().await, Ok(at(1)));
    store.change_queue(main_queue(), SettingsChange::pause(false)).await.unwrap();
    assert_eq!(store.advance(step(20, 30, at(4)), at(4)).await, Ok(true));
    let answer = store.advance(Advance { queue: name("none"), ..step(0, 1, at(5)) }, at(5)).await;
    assert!(matches!(answer, Err(Fault::Corrupt(_))), "{answer:?}");
    assert_clean(&store, at(5)).await;
}

fn progress(next: u64, floor: u64, claimed: Option<&[u64]>) -> Vec<Progress> {
    let claimed = claimed.map(|numbers| numbers.iter().copied().collect());
    vec![Progress { queue: main_queue(), next, floor, claimed }]
}

/// Instances record what they know, each a little behind another.
pub(crate) async fn what_is_recorded_never_goes_back(subject: Subject) {
    let store = &subject.store;
    store.create_queue(main_queue(), open()).await.unwrap();
    store.allocate_numbers(main_queue(), 100, 0).await.unwrap();
    for (from, upto) in [(0, 10), (10, 20), (20, 30)] {
        let now = at(upto as i64);
        assert_eq!(store.advance(step(from, upto, now), now).await, Ok(true));
    }
    store.leave_queue(ticket(5), true, at(31)).await.unwrap();
    store.leave_queue(ticket(80), true, at(31)).await.unwrap();
    store.record(progress(60, 10, Some(&[3, 12, 14])), at(40)).await.unwrap();
    store.record(progress(50, 0, Some(&[13, 25])), at(39)).await.unwrap();
    store.record(progress(0, 0, None), at(38)).await.unwrap();
    let main = stored(store, "main").await;
    assert_eq!((main.next, main.watermark, main.floor), (60, 100, 10));
    assert_eq!(main.claimed, RoaringTreemap::from_iter([12, 13, 14, 25]));
    assert_eq!(main.left, RoaringTreemap::from_iter([80]));
    let log: Vec<_> = main.log.iter().map(|step| step.upto).collect();
    assert_eq!(log, [20, 30]);
    assert_eq!(store.clock().await, Ok(at(40)));
    // Given without the store while it was away; and a floor that no admission bears out yet.
    store.record(progress(140, 40, None), at(41)).await.unwrap();
    let subject = subject.reopened().await;
    let store = &subject.store;
    let main = stored(store, "main").await;
    assert_eq!((main.next, main.watermark), (140, 140));
    assert_eq!((main.serving, main.floor, main.log), (30, 30, vec![]));
    assert_eq!(store.allocate_numbers(main_queue(), 1, 0).await, Ok(141));
    let unknown = Progress { queue: name("none"), next: 1, floor: 0, claimed: None };
    let two = [progress(500, 0, None), vec![unknown]].concat();
    let answer = store.record(two, at(42)).await;
    assert!(matches!(answer, Err(Fault::Corrupt(_))), "{answer:?}");
    assert_eq!(stored(store, "main").await.next, 140);
    assert_clean(store, at(42)).await;
}
