//! What the store keeps for the queues.

use std::time::Duration;

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{
    Admission, Bucket, LineParts, QueueSettings, SettingsChange, Step, Ticket,
};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;

use super::{
    HOLD_MS, START, Subject, assert_clean, at, at_once, charge, everybody as to, main_queue, pay,
    sale, settings, ticket, user,
};
use boxoffice_backends::store::{
    Advance, Alias, AliasExists, Beat, Beats, Checkpoint, Grant, GrantRequest, OtherBeat, Pay,
    Present, Progress, Rules, SpentBy, Store, StoredQueue, Taken, TicketRef,
};
use boxoffice_backends::{Error, Fault};

fn name(text: &str) -> QueueName {
    QueueName::new(text).unwrap()
}

fn point(queue: &str, next: u64, watermark: u64) -> Checkpoint {
    let (queue, over_before) = (name(queue), Timestamp(i64::MIN));
    Checkpoint { queue, next, watermark, floor: 0, step: None, claimed: None, over_before }
}

fn set(seqs: &[u64]) -> RoaringTreemap {
    seqs.iter().copied().collect()
}

fn admitting(point: Checkpoint, before: u64, upto: u64, at: Timestamp) -> Checkpoint {
    Checkpoint { step: Some((before, to(upto, at))), ..point }
}

async fn stored(store: &Store, queue: &str) -> StoredQueue {
    let found = store.queues().await.unwrap().into_iter().find(|q| q.name.as_str() == queue);
    found.unwrap()
}

/// The parts of a stored queue that a checkpoint may change.
fn counters(queue: &StoredQueue) -> (u64, u64, u64, Vec<Admission>, RoaringTreemap) {
    let StoredQueue { watermark, line, .. } = queue.clone();
    let LineParts { serving, floor, log, claimed, .. } = line;
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
    assert_eq!((fresh.next, fresh.watermark), (0, 0));
    let LineParts { steps, serving, floor, .. } = fresh.line;
    assert_eq!((steps, serving, floor), (0, 0, 0));
    assert!(fresh.line.log.is_empty() && fresh.line.left.is_empty());
    assert!(fresh.line.claimed.is_empty() && fresh.line.finished.is_empty());
    assert!(fresh.line.passed.is_empty() && fresh.line.readmitted.is_empty());

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
    store.checkpoint(vec![admitting(point("main", 50, 100), 0, 20, at(2))], at(2)).await.unwrap();
    let second = Checkpoint { floor: 20, ..admitting(point("main", 60, 100), 20, 30, at(3)) };
    store.checkpoint(vec![second], at(3)).await.unwrap();
    let before = counters(&stored(store, "main").await);
    let log = vec![Admission { upto: 30, at: at(3) }];
    assert_eq!(before, (100, 30, 20, log, RoaringTreemap::new()));

    let good = Checkpoint { floor: 20, ..point("main", 60, 100) };
    for (what, bad) in [
        ("next", Checkpoint { next: 59, ..good.clone() }),
        ("floor", Checkpoint { floor: 19, ..good.clone() }),
        ("serving", admitting(good.clone(), 30, 29, at(4))),
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
        admitting(point("a", 15, 30), 0, 5, at(2)),
        point("b", 9, 20),
        admitting(point("c", 15, 30), 0, 5, at(2)),
    ];
    store.checkpoint(points, at(2)).await.unwrap_err();
    for queue in ["a", "b", "c"] {
        let expected = (20, 0, 0, vec![], RoaringTreemap::new());
        assert_eq!(counters(&stored(&store, queue).await), expected, "{queue}");
    }
    assert_eq!(store.clock().await, Ok(at(1)));
    let points = ["a", "b", "c"].map(|queue| admitting(point(queue, 15, 30), 0, 5, at(2)));
    store.checkpoint(points.into(), at(2)).await.unwrap();
    for queue in ["a", "b", "c"] {
        assert_eq!(stored(&store, queue).await.line.serving, 5, "{queue}");
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
    let mut before = 0;
    for (upto, ms) in admissions {
        let next = admitting(point("main", big + 100, big + 200), before, upto, at(ms));
        store.checkpoint(vec![next], at(ms)).await.unwrap();
        before = upto;
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
    let claimed = RoaringTreemap::from_iter([11, 12, 13, 14, big]);
    let point = Checkpoint {
        claimed: Some(claimed.clone()),
        floor: 10,
        ..point("main", big + 100, big + 200)
    };
    store.checkpoint(vec![point.clone()], at(304)).await.unwrap();

    let subject = subject.reopened().await;
    let store = &subject.store;
    let main = stored(store, "main").await;
    assert_eq!((main.watermark, main.line.serving, main.line.floor), (big + 200, big, 10));
    let log: Vec<_> = main.line.log.iter().map(|step| (step.upto, step.at)).collect();
    assert_eq!(log, [(20, at(200)), (25, at(200)), (big, at(300))]);
    assert_eq!(main.line.left, RoaringTreemap::from_iter([12, 15, big + 50]));
    assert_eq!(main.line.finished, RoaringTreemap::from_iter([13]));
    assert_eq!(main.line.claimed, RoaringTreemap::from_iter([11, 14, big]));
    let vip = stored(store, "vip").await;
    let LineParts { left, finished, claimed, log, .. } = vip.line;
    assert!(left.is_empty() && finished.is_empty() && claimed.is_empty());
    assert_eq!((vip.watermark, log), (0, vec![]));
    assert_clean(store, at(304)).await;

    // Claims that are not told of stay; an empty set is told of.
    store.checkpoint(vec![Checkpoint { claimed: None, ..point.clone() }], at(305)).await.unwrap();
    assert!(!stored(store, "main").await.line.claimed.is_empty());
    let none = Checkpoint { claimed: Some(RoaringTreemap::new()), floor: big, ..point };
    store.checkpoint(vec![none], at(306)).await.unwrap();
    let subject = subject.reopened().await;
    let store = &subject.store;
    let main = stored(store, "main").await;
    assert_eq!((main.line.serving, main.line.floor, main.line.log), (big, big, vec![]));
    assert!(main.line.claimed.is_empty() && main.line.finished.is_empty());
    assert_eq!(main.line.left, RoaringTreemap::from_iter([big + 50]));
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
    Alias { token: token.into(), ticket, active_until, spent: None }
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
    let (paid, left) = (Some(SpentBy::Payment), Some(SpentBy::Leaving));
    assert_eq!(spent, [paid, left, None, None]);
    store.leave_queue((&in_line.ticket).into(), true, at(3)).await.unwrap();
    let spent: Vec<_> = sorted_aliases(store, at(3)).await.iter().map(|a| a.spent).collect();
    assert_eq!(spent, [paid, left, left, None]);
    let day = Duration::from_secs(86_400).as_millis() as i64;
    assert_eq!(sorted_aliases(store, at(499 + day)).await.len(), 4);
    // A place in the line does not run out by itself.
    assert_eq!(sorted_aliases(store, at(500 + day)).await.len(), 1);
    assert_clean(store, START).await;
}

fn grant(pool: &str, after: u64, count: u64) -> GrantRequest {
    GrantRequest { queue: main_queue(), pool: pool.into(), after, count }
}

fn numbers(first: u64, last: u64) -> Result<Grant, Fault> {
    Ok(Grant::Numbers { first, last })
}

/// A request that is repeated gets the same numbers, one that comes late gets none, and another pool
/// gets others; all of it after a reopen as well.
pub(crate) async fn numbers_are_granted_once(subject: Subject) {
    let store = &subject.store;
    store.create_queue(main_queue(), settings()).await.unwrap();
    store.create_queue(name("vip"), settings()).await.unwrap();
    assert_eq!(store.grant_numbers(grant("a", 0, 64)).await, numbers(1, 64));
    assert_eq!(store.grant_numbers(grant("a", 0, 64)).await, numbers(1, 64));
    // It is the same request, whatever else it wants by now.
    assert_eq!(store.grant_numbers(grant("a", 0, 500)).await, numbers(1, 64));
    assert_eq!(store.grant_numbers(grant("a", 64, 36)).await, numbers(65, 100));
    assert_eq!(store.grant_numbers(grant("a", 0, 64)).await, Ok(Grant::Late));
    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(store.grant_numbers(grant("a", 64, 36)).await, numbers(65, 100));
    assert_eq!(store.grant_numbers(grant("a", 63, 36)).await, Ok(Grant::Late));
    assert_eq!(store.grant_numbers(grant("b", 0, 10)).await, numbers(101, 110));
    // Whoever asks for the pool before that gets numbers that nobody has.
    assert_eq!(store.grant_numbers(grant("a", 100, 10)).await, numbers(111, 120));
    let main = stored(store, "main").await;
    assert_eq!((main.next, main.watermark), (0, 120), "granted is not given");
    // Another queue has numbers of its own, and no queue has none.
    let vip = GrantRequest { queue: name("vip"), ..grant("a", 0, 5) };
    assert_eq!(store.grant_numbers(vip).await, numbers(1, 5));
    let none = GrantRequest { queue: name("none"), ..grant("a", 0, 5) };
    let answer = store.grant_numbers(none).await;
    assert!(matches!(answer, Err(Fault::Corrupt(_))), "{answer:?}");
    assert_clean(store, START).await;
}

/// Numbers that are taken lie above those that a pool has, and the next grant lies above them.
pub(crate) async fn numbers_are_taken_above_those_of_a_pool(subject: Subject) {
    let store = &subject.store;
    store.create_queue(main_queue(), settings()).await.unwrap();
    assert_eq!(store.take_numbers(main_queue(), 3).await, Ok(Taken::From(1)));
    assert_eq!(store.grant_numbers(grant("a", 0, 10)).await, numbers(4, 13));
    assert_eq!(store.take_numbers(main_queue(), 2).await, Ok(Taken::From(14)));
    let main = stored(store, "main").await;
    assert_eq!((main.next, main.watermark), (15, 15), "taken is given");
    // An answer that was lost is told again, though numbers above it have been taken since.
    assert_eq!(store.grant_numbers(grant("a", 0, 10)).await, numbers(4, 13));
    assert_eq!(store.grant_numbers(grant("a", 13, 10)).await, numbers(16, 25));
    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(store.take_numbers(main_queue(), 1).await, Ok(Taken::From(26)));
    let answer = store.take_numbers(name("none"), 1).await;
    assert!(matches!(answer, Err(Fault::Corrupt(_))), "{answer:?}");
    assert_clean(store, START).await;
}

/// Fifty tasks, half for pools and half without Redis: no number is handed out twice or left out.
pub(crate) async fn numbers_granted_and_taken_at_once_are_disjoint(subject: Subject) {
    const TASKS: u64 = 50;
    let store = &subject.store;
    store.create_queue(main_queue(), settings()).await.unwrap();
    let handed_out = at_once((0..TASKS).map(|task| {
        let store = store.clone();
        async move {
            let (mut ranges, mut after) = (Vec::new(), 0);
            for round in 0..4 {
                let count = 1 + (task + round) % 7;
                if task % 2 == 0 {
                    let taken = store.take_numbers(main_queue(), count).await;
                    let Ok(Taken::From(first)) = taken else { panic!("{taken:?}") };
                    ranges.push((first, first + count - 1));
                    continue;
                }
                // Five instances each ask for the same pool; some ask twice.
                let pool = (task % 5).to_string();
                let granted = store.grant_numbers(grant(&pool, after, count)).await.unwrap();
                if let Grant::Numbers { first, last } = granted {
                    ranges.push((first, last));
                    after = if round % 2 == 0 { last } else { after };
                }
            }
            ranges
        }
    }))
    .await;
    let mut ranges: Vec<_> = handed_out.into_iter().flatten().collect();
    ranges.sort_unstable();
    // What was told again is the same to the number.
    ranges.dedup();
    let handed_out = ranges.iter().flat_map(|(first, last)| *first..=*last);
    let all = ranges.last().unwrap().1;
    assert_eq!(handed_out.collect::<Vec<_>>(), (1..=all).collect::<Vec<_>>());
    let subject = subject.reopened().await;
    let store = &subject.store;
    let main = stored(store, "main").await;
    assert_eq!(main.watermark, all);
    assert!(main.next <= all);
    assert_eq!(store.take_numbers(main_queue(), 1).await, Ok(Taken::From(all + 1)));
    assert_clean(store, START).await;
}

fn beat(instance: &str, with_redis: bool) -> Beat {
    Beat {
        instance: instance.into(),
        is_last: false,
        with_redis,
        ticket_keys: format!("key of {instance}"),
        rules: Rules::from_iter([("of", instance)]),
        present: Present::default(),
        claimed: Present::default(),
        since: Timestamp(0),
    }
}

/// While any instance has had Redis within two seconds numbers come from its pool.
pub(crate) async fn no_numbers_are_taken_while_an_instance_has_redis(
    Subject { store, .. }: Subject,
) {
    store.create_queue(main_queue(), settings()).await.unwrap();
    store.beat(beat("a", false)).await.unwrap();
    assert_eq!(store.take_numbers(main_queue(), 1).await, Ok(Taken::From(1)));
    let had_redis_at = store.beat(beat("b", true)).await.unwrap().now;
    let mut refused = 0;
    let allowed_at = loop {
        // Both have lost it meanwhile, and say so.
        store.beat(beat("a", false)).await.unwrap();
        store.beat(beat("b", false)).await.unwrap();
        let before = store.database_now().await.unwrap();
        match store.take_numbers(main_queue(), 1).await.unwrap() {
            Taken::Elsewhere => refused += 1,
            Taken::From(first) => {
                assert_eq!(first, 2, "a refusal takes no number");
                break store.database_now().await.unwrap();
            }
        }
        assert!(before.0 - had_redis_at.0 < 2_100, "refused after {before:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(refused > 0);
    let after_ms = allowed_at.0 - had_redis_at.0;
    assert!(after_ms >= 2_000, "allowed after {after_ms} ms");
    // One that has ended has no Redis any more.
    store.beat(beat("b", true)).await.unwrap();
    assert_eq!(store.take_numbers(main_queue(), 1).await, Ok(Taken::Elsewhere));
    store.beat(Beat { is_last: true, ..beat("b", true) }).await.unwrap();
    assert_eq!(store.take_numbers(main_queue(), 1).await, Ok(Taken::From(3)));
    assert_clean(&store, START).await;
}

fn heard<'b>(beats: &'b Beats, instance: &str) -> Option<&'b OtherBeat> {
    beats.others.iter().find(|other| other.instance == instance)
}

/// Who beats hears what every other instance has told last, and the database's time.
pub(crate) async fn instances_hear_each_other(Subject { store, .. }: Subject) {
    let before = store.database_now().await.unwrap();
    let first = store.beat(beat("a", true)).await.unwrap();
    assert!(first.others.is_empty(), "{first:?}");
    let now = store.database_now().await.unwrap();
    assert!((before..=now).contains(&first.now), "{before:?} {first:?} {now:?}");

    let present = |seqs: &[u64]| Present(vec![(main_queue(), set(seqs)), (name("vip"), set(&[7]))]);
    let big = u64::from(u32::MAX) + 5;
    let told = Beat { present: present(&[1, 2, big]), since: at(5), ..beat("b", false) };
    let second = store.beat(told).await.unwrap();
    let a = heard(&second, "a").unwrap();
    assert_eq!((a.at, a.redis_at, a.since), (first.now, first.now, Timestamp(0)));
    assert_eq!((a.ticket_keys.as_str(), &a.present), ("key of a", &Present::default()));
    assert_eq!(a.rules, Rules::from_iter([("of", "a")]));
    assert_eq!(second.others.len(), 1);

    // It has lost Redis, and it is known when it had it.
    let third = store.beat(beat("a", false)).await.unwrap();
    let b = heard(&third, "b").unwrap();
    assert_eq!((b.at, b.redis_at, b.since), (second.now, Timestamp(0), at(5)));
    assert_eq!(b.present, present(&[1, 2, big]));
    let fourth = store.beat(Beat { present: present(&[3]), ..beat("b", false) }).await.unwrap();
    let a = heard(&fourth, "a").unwrap();
    assert_eq!((a.at, a.redis_at), (third.now, first.now));
    assert!(first.now <= second.now && second.now <= third.now && third.now <= fourth.now);
    // What counts is what was told last.
    let fifth = store.beat(beat("c", false)).await.unwrap();
    assert_eq!(heard(&fifth, "b").unwrap().present, present(&[3]));
    assert_eq!(fifth.others.len(), 2);

    // One that ends tells for the last time whom it has seen, and hears the others.
    let last = Beat { is_last: true, present: present(&[9]), ..beat("a", true) };
    let last = store.beat(last).await.unwrap();
    assert_eq!(last.others.len(), 2);
    let sixth = store.beat(beat("c", false)).await.unwrap();
    let a = heard(&sixth, "a").unwrap();
    assert_eq!((a.has_ended, a.at, a.redis_at), (true, last.now, Timestamp(0)));
    assert_eq!(a.present, present(&[9]));
    assert!(!heard(&sixth, "b").unwrap().has_ended);
    // Should it come again, it has never had Redis.
    store.beat(beat("a", false)).await.unwrap();
    let seventh = store.beat(beat("c", false)).await.unwrap();
    let a = heard(&seventh, "a").unwrap();
    assert_eq!((a.has_ended, a.redis_at), (false, Timestamp(0)));
    assert_clean(&store, START).await;
}

fn open() -> QueueSettings {
    QueueSettings { opens_at: None, paused: false, ..settings() }
}

/// A step that was planned on a queue of so many steps.
fn planned(steps: u64, serving: u64, step: Step) -> Advance {
    let bucket = Bucket::restore(step.upto, Some(step.at));
    Advance { queue: main_queue(), steps, serving, step, bucket }
}

/// Whether such a step counts.
async fn counts(store: &Store, steps: u64, serving: u64, step: Step) -> bool {
    let now = step.at;
    store.advance(planned(steps, serving, step), now).await.unwrap()
}

/// The time that every store vouches for.
async fn present(store: &Store) -> Timestamp {
    store.database_now().await.unwrap()
}

/// Many instances plan on the same state, again and again; each time one of them admits.
pub(crate) async fn one_of_several_admits(subject: Subject) {
    let store = &subject.store;
    store.create_queue(main_queue(), open()).await.unwrap();
    store.grant_numbers(grant("a", 0, 1_000)).await.unwrap();
    let (mut serving, mut now) = (0, Timestamp(0));
    for round in 0..10_u64 {
        now = present(store).await;
        let admitted = at_once((1..=20_u64).map(|instance| {
            let store = store.clone();
            let step = to(serving + instance, now);
            async move { (instance, counts(&store, round, serving, step).await) }
        }))
        .await;
        let winners: Vec<u64> =
            admitted.iter().filter(|(_, admitted)| *admitted).map(|(i, _)| *i).collect();
        let [winner] = winners[..] else { panic!("{winners:?} admitted at once") };
        serving += winner;
        let main = stored(store, "main").await;
        assert_eq!((main.line.serving, main.line.steps), (serving, round + 1));
        assert_eq!(main.bucket, Bucket::restore(serving, Some(now)));
        assert_eq!(main.line.log.len() as u64, round + 1);
        assert_eq!(main.line.log.last(), Some(&Admission { upto: serving, at: now }));
    }
    let before = stored(store, "main").await;
    let subject = subject.reopened().await;
    let store = &subject.store;
    let main = stored(store, "main").await;
    assert_eq!((main.line.steps, main.line.serving), (10, serving));
    assert_eq!((&main.line.log, &main.bucket), (&before.line.log, &before.bucket));
    assert_eq!((main.next, main.watermark), (serving, 1_000));
    assert_eq!(store.clock().await, Ok(now));
    assert_clean(store, now).await;
}

/// A step counts from the steps on which it was planned, and from no others.
pub(crate) async fn a_step_is_for_the_queue_as_it_was_planned(Subject { store, .. }: Subject) {
    store.create_queue(main_queue(), open()).await.unwrap();
    let now = present(&store).await;
    assert!(counts(&store, 0, 0, to(20, now)).await);
    // What was admitted had joined.
    let main = stored(&store, "main").await;
    assert_eq!((main.next, main.watermark, main.line.steps), (20, 20, 1));
    for (steps, serving, upto) in [(0, 0, 20), (0, 20, 30), (1, 0, 30), (1, 19, 30), (2, 20, 30)] {
        let counts = counts(&store, steps, serving, to(upto, now)).await;
        assert!(!counts, "{steps} {serving} {upto}");
    }
    let main = stored(&store, "main").await;
    assert_eq!((main.line.steps, main.line.serving, main.line.log.len()), (1, 20, 1));
    assert_eq!(store.clock().await, Ok(now));
    let none = Advance { queue: name("none"), ..planned(0, 0, to(1, now)) };
    let answer = store.advance(none, now).await;
    assert!(matches!(answer, Err(Fault::Corrupt(_))), "{answer:?}");
    // One that moves nobody is a step as well: what comes after it is planned on it.
    assert!(counts(&store, 1, 20, to(20, now)).await);
    assert!(!counts(&store, 1, 20, to(30, now)).await);
    assert!(counts(&store, 2, 20, to(30, now)).await);
    assert_eq!(stored(&store, "main").await.line.log.len(), 2);
    assert_clean(&store, now).await;
}

/// Whoever has changed how a queue admits knows that no step from before counts.
pub(crate) async fn a_change_of_settings_makes_planned_steps_void(Subject { store, .. }: Subject) {
    store.create_queue(main_queue(), open()).await.unwrap();
    let now = present(&store).await;
    assert!(counts(&store, 0, 0, to(20, now)).await);
    let mut steps = 1;
    for change in [
        SettingsChange { admit_per_second: Some(3.5), ..SettingsChange::default() },
        SettingsChange { max_active: Some(None), ..SettingsChange::default() },
        SettingsChange { opens_at: Some(Some(at(0))), ..SettingsChange::default() },
        SettingsChange::pause(false),
        SettingsChange::default(),
    ] {
        store.change_queue(main_queue(), change.clone()).await.unwrap();
        assert!(!counts(&store, steps, 20, to(30, now)).await, "{change:?}");
        steps += 1;
        let main = stored(&store, "main").await;
        assert_eq!((main.line.steps, main.line.serving), (steps, 20), "{change:?}");
        // Nothing is left of the credit.
        assert_eq!(main.bucket, Bucket::default(), "{change:?}");
    }
    // In a paused queue none counts, wherever it was planned.
    store.change_queue(main_queue(), SettingsChange::pause(true)).await.unwrap();
    assert!(!counts(&store, steps + 1, 20, to(30, now)).await);
    store.change_queue(main_queue(), SettingsChange::pause(false)).await.unwrap();
    assert!(!counts(&store, steps + 1, 20, to(30, now)).await);
    assert!(counts(&store, steps + 2, 20, to(30, now)).await);
    assert_clean(&store, now).await;
}

/// A step is carried out at about the database's time, or not at all: neither was it planned by a clock
/// that is ahead, nor by somebody who slept since.
pub(crate) async fn a_step_counts_at_about_its_own_time(Subject { store, .. }: Subject) {
    store.create_queue(main_queue(), open()).await.unwrap();
    for off_ms in [-365 * 86_400_000, -3_600_000, -10_000, 3_600_000, 365 * 86_400_000] {
        let then = Timestamp(present(&store).await.0 + off_ms);
        assert!(!counts(&store, 0, 0, to(5, then)).await, "off by {off_ms} ms");
    }
    // An opening that is refused now is not late for ever.
    let main = stored(&store, "main").await;
    assert_eq!((main.line.steps, main.line.serving, main.line.log), (0, 0, vec![]));
    assert_eq!(store.clock().await, Ok(Timestamp(0)));
    for (steps, off_ms) in [(0, -500), (1, 0), (2, 500)] {
        let then = Timestamp(present(&store).await.0 + off_ms);
        assert!(counts(&store, steps, steps, to(steps + 1, then)).await, "off by {off_ms} ms");
    }
    assert_clean(&store, present(&store).await).await;
}

/// Who was passed over, and who came back, is there after a reopen, however far apart they stand.
pub(crate) async fn the_passed_and_the_returned_survive_a_reopen(subject: Subject) {
    let store = &subject.store;
    store.create_queue(main_queue(), open()).await.unwrap();
    store.create_queue(name("vip"), open()).await.unwrap();
    let now = present(store).await;
    let mut passed = set(&[1, 199_999]);
    // Across the boundaries of what is stored together, 65,536 and 131,072.
    passed.insert_range(65_530..=131_075);
    let step = Step { passed: passed.clone(), ..to(200_000, now) };
    assert!(counts(store, 0, 0, step).await);
    let again = Timestamp(now.0 + 1);
    let returned = set(&[1, 65_535, 65_536, 131_072]);
    let more = set(&[200_001, 200_003]);
    let step = Step { passed: more.clone(), returned: returned.clone(), ..to(200_003, again) };
    assert!(counts(store, 1, 200_000, step).await);
    let expected = (passed - &returned) | more;
    let subject = subject.reopened().await;
    let store = &subject.store;
    let LineParts { passed, readmitted, log, serving, steps, .. } =
        stored(store, "main").await.line;
    assert_eq!(passed, expected);
    assert_eq!(readmitted, [1, 65_535, 65_536, 131_072].map(|seq| (seq, again)));
    assert_eq!((steps, serving, log.len()), (2, 200_003, 2));
    let vip = stored(store, "vip").await.line;
    assert!(vip.passed.is_empty() && vip.readmitted.is_empty());

    // A step may admit nobody but those: then the log is as long as before.
    let later = Timestamp(now.0 + 2);
    let step = Step { returned: set(&[199_999]), ..to(200_003, later) };
    assert!(counts(store, 2, 200_003, step).await);
    let line = stored(store, "main").await.line;
    assert_eq!((line.steps, line.serving, line.log), (3, 200_003, log));
    assert_eq!(line.passed, expected.clone() - set(&[199_999]));
    assert_eq!(line.readmitted.last(), Some(&(199_999, later)));
    assert!(store.clock().await.unwrap() >= later);

    // Those who came back are forgotten once their time is over, to the millisecond, and those who did
    // not come are kept, though everybody else of their time is forgotten.
    let over = |over_before, floor| {
        vec![Progress { queue: main_queue(), next: 200_003, floor, claimed: None, over_before }]
    };
    store.record(over(again, 200_003), later).await.unwrap();
    assert_eq!(stored(store, "main").await.line.readmitted.len(), 5);
    store.record(over(later, 200_003), later).await.unwrap();
    assert_eq!(stored(store, "main").await.line.readmitted, [(199_999, later)]);
    let at_last = Checkpoint {
        floor: 200_003,
        over_before: Timestamp(later.0 + 1),
        ..point("main", 200_003, 200_003)
    };
    store.checkpoint(vec![at_last], later).await.unwrap();
    let subject = subject.reopened().await;
    let line = stored(&subject.store, "main").await.line;
    assert_eq!((line.readmitted, line.log), (vec![], vec![]));
    assert_eq!(line.passed, expected - set(&[199_999]));
    assert_clean(&subject.store, later).await;
}

/// The only process of a store makes the same steps durable with its checkpoints.
pub(crate) async fn a_checkpoint_keeps_who_was_passed_over(subject: Subject) {
    let store = &subject.store;
    store.create_queue(main_queue(), settings()).await.unwrap();
    let step = |step| Checkpoint { step: Some(step), ..point("main", 10, 20) };
    let first = (0, Step { passed: set(&[2, 3]), ..to(5, at(1)) });
    store.checkpoint(vec![step(first)], at(1)).await.unwrap();
    let second = (5, Step { returned: set(&[3]), ..to(5, at(2)) });
    store.checkpoint(vec![step(second)], at(2)).await.unwrap();
    let subject = subject.reopened().await;
    let line = stored(&subject.store, "main").await.line;
    assert_eq!((line.steps, line.serving), (2, 5));
    assert_eq!(line.log, [Admission { upto: 5, at: at(1) }]);
    assert_eq!((line.passed, line.readmitted), (set(&[2]), vec![(3, at(2))]));
    assert_clean(&subject.store, at(2)).await;
}

/// One who came back and paid, or gave up after that, is over after a reopen as well.
pub(crate) async fn who_came_back_and_finished_is_over(subject: Subject) {
    let store = &subject.store;
    store.create_queue(main_queue(), settings()).await.unwrap();
    let step = |step, floor| Checkpoint { step, floor, ..point("main", 10, 20) };
    let first = (0, Step { passed: set(&[2, 3]), ..to(5, at(1)) });
    store.checkpoint(vec![step(Some(first), 0)], at(1)).await.unwrap();
    let second = (5, Step { returned: set(&[2, 3]), ..to(5, at(2)) });
    store.checkpoint(vec![step(Some(second), 5)], at(2)).await.unwrap();
    store.leave_queue(ticket(3), false, at(3)).await.unwrap();
    let sale = sale(store, 1).await;
    let held = sale.held(store, 1, &[0]).await;
    store.charge(charge(1, 1_000, START)).await.unwrap();
    store.pay(Pay { ticket: ticket(2), ..pay(1, held.id, at(4)) }).await.unwrap();
    let subject = subject.reopened().await;
    let line = stored(&subject.store, "main").await.line;
    assert_eq!((line.floor, line.finished, line.left), (5, set(&[2]), set(&[3])));
    assert_clean(&subject.store, at(3)).await;
}

fn progress(next: u64, floor: u64, claimed: Option<&[u64]>) -> Vec<Progress> {
    let (queue, over_before) = (main_queue(), Timestamp(i64::MIN));
    vec![Progress { queue, next, floor, claimed: claimed.map(set), over_before }]
}

/// Instances record what they know, each a little behind another.
pub(crate) async fn what_is_recorded_never_goes_back(subject: Subject) {
    let store = &subject.store;
    store.create_queue(main_queue(), open()).await.unwrap();
    store.grant_numbers(grant("a", 0, 100)).await.unwrap();
    for (steps, serving, upto) in [(0, 0, 10), (1, 10, 20), (2, 20, 30)] {
        let now = present(store).await;
        assert!(counts(store, steps, serving, to(upto, now)).await);
    }
    store.leave_queue(ticket(5), true, at(31)).await.unwrap();
    store.leave_queue(ticket(80), true, at(31)).await.unwrap();
    store.record(progress(60, 10, Some(&[3, 12, 14])), at(40)).await.unwrap();
    store.record(progress(50, 0, Some(&[13, 25])), at(39)).await.unwrap();
    store.record(progress(0, 0, None), at(38)).await.unwrap();
    let main = stored(store, "main").await;
    assert_eq!((main.next, main.watermark, main.line.floor), (60, 100, 10));
    assert_eq!(main.line.claimed, set(&[12, 13, 14, 25]));
    assert_eq!(main.line.left, set(&[80]));
    let log: Vec<_> = main.line.log.iter().map(|step| step.upto).collect();
    assert_eq!(log, [20, 30]);
    assert_eq!(store.clock().await, Ok(at(40)));
    // A floor that no admission bears out yet.
    store.record(progress(100, 40, None), at(41)).await.unwrap();
    let subject = subject.reopened().await;
    let store = &subject.store;
    let main = stored(store, "main").await;
    assert_eq!((main.next, main.watermark, main.line.steps), (100, 100, 3));
    assert_eq!((main.line.serving, main.line.floor, main.line.log), (30, 30, vec![]));
    assert_eq!(store.take_numbers(main_queue(), 1).await, Ok(Taken::From(101)));
    let unknown = Progress { queue: name("none"), ..progress(1, 0, None).remove(0) };
    let two = [progress(500, 0, None), vec![unknown]].concat();
    let answer = store.record(two, at(42)).await;
    assert!(matches!(answer, Err(Fault::Corrupt(_))), "{answer:?}");
    assert_eq!(stored(store, "main").await.next, 101);
    assert_clean(store, at(42)).await;
}

/// A clock was ahead by a day, and an operator takes back what it has left: it happened now. Holds that
/// were made then are over.
pub(crate) async fn times_in_the_future_are_set_back(subject: Subject) {
    const AHEAD: i64 = 70_000_000;
    let store = &subject.store;
    let sale = sale(store, 4).await;
    let held = sale.held(store, 1, &[0]).await;
    store.create_queue(main_queue(), settings()).await.unwrap();
    let ahead = sale.reserve(2, &[1], at(AHEAD));
    let held_ahead = store.reserve(ahead).await.unwrap().value;
    let bought = store.reserve(sale.reserve(3, &[2], at(AHEAD))).await.unwrap().value;
    store.charge(charge(3, 1_000, at(AHEAD))).await.unwrap();
    store.pay(pay(3, bought.id, at(AHEAD))).await.unwrap();
    let step = Step { passed: set(&[2]), ..to(4, at(-5)) };
    let point = |before, step| Checkpoint { step: Some((before, step)), ..point("main", 9, 20) };
    store.checkpoint(vec![point(0, step)], at(-5)).await.unwrap();
    let step = Step { returned: set(&[2]), ..to(6, at(AHEAD)) };
    store.checkpoint(vec![point(4, step)], at(AHEAD)).await.unwrap();
    let token = alias("token", 9, None);
    let token = Alias { ticket: Ticket { issued_at: at(AHEAD), ..token.ticket }, ..token };
    store.add_aliases(vec![token]).await.unwrap();
    assert_eq!(store.clock().await, Ok(at(AHEAD)));

    assert!(store.set_back(at(1_000)).await.unwrap() > 0);
    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(store.clock().await, Ok(at(1_000)));
    assert_clean(store, at(1_000)).await;
    let line = stored(store, "main").await.line;
    assert_eq!(line.log.iter().map(|step| step.at).collect::<Vec<_>>(), [at(-5), at(1_000)]);
    assert_eq!(line.readmitted, [(2, at(1_000))]);
    let aliases = store.aliases(at(1_000)).await.unwrap();
    assert_eq!(aliases[0].ticket.issued_at, at(1_000));
    // Its hold is over; what was held before is held, and what was bought stays so.
    let again = store.reserve(sale.reserve(4, &[1], at(1_000))).await.unwrap().value;
    assert!(store.reserve(sale.reserve(5, &[0], at(1_000))).await.is_err());
    assert!(store.reserve(sale.reserve(5, &[2], at(1_000))).await.is_err());
    assert!(store.pay(pay(2, held_ahead.id, at(1_001))).await.is_err());
    assert_eq!(store.expire_due(at(1_001), 10).await, Ok(1));
    store.charge(charge(1, 1_000, at(1_001))).await.unwrap();
    store.pay(pay(1, held.id, at(1_001))).await.unwrap();
    store.cancel(again.id, user(4), at(1_002)).await.unwrap();
    assert_clean(store, at(HOLD_MS)).await;
    // There is nothing left to be set back.
    assert_eq!(store.set_back(at(1_002)).await, Ok(0));
}
