//! The opening draw: once, at the opening, and from then on in the order that was drawn.

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{
    Admission, Bucket, Drawing, Drawn, Entry, Order, QueueSettings, Record, SettingsChange, Step,
};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;

use super::acts::{effect, note};
use super::{
    START, Subject, assert_clean, at, at_once, charge, everybody as to, main_queue, pay, sale,
    settings, ticket,
};
use boxoffice_backends::Error;
use boxoffice_backends::store::{
    Act, ActRejected, Advance, Checkpoint, Condition, DrawRequest, DrawSeed, Effect, Epochs, Pay,
    Store, StoredQueue, draw, is_as_committed,
};

/// When the queue opens.
const OPENS: Timestamp = Timestamp(START.0 + 5);

fn open() -> QueueSettings {
    QueueSettings { max_active: None, opens_at: Some(OPENS), paused: false, ..settings() }
}

fn seed() -> DrawSeed {
    DrawSeed([7; 32])
}

async fn made(store: &Store) {
    assert_eq!(store.create_queue_drawn(main_queue(), open(), Some(seed())).await, Ok(true));
}

fn request(count: u64, at: Timestamp) -> DrawRequest {
    DrawRequest { queue: main_queue(), count, at }
}

async fn stored(store: &Store) -> StoredQueue {
    store.queues().await.unwrap().remove(0)
}

async fn records(store: &Store) -> Vec<Record> {
    let part = store.admission_log(main_queue(), None, 1_000).await.unwrap().unwrap();
    part.links.iter().map(|link| Record::from_bytes(&link.bytes).unwrap()).collect()
}

/// Nobody is drawn before the opening, and nobody twice. What is told of it before is a digest.
pub(crate) async fn a_queue_is_drawn_once_at_its_opening(subject: Subject) {
    let store = &subject.store;
    made(store).await;
    let before = stored(store).await;
    let commitment = seed().commitment(&main_queue());
    assert_eq!(before.draw, Some(Drawing { commitment, drawn: None }));
    assert_eq!(before.line.order, Order::Undrawn);
    for early in [START, Timestamp(OPENS.0 - 1)] {
        assert_eq!(store.draw(request(3, early)).await, Ok(None));
    }
    let subject = subject.reopened().await;
    let store = &subject.store;
    let drawn = Drawn { count: 10, seed: seed().0 };
    assert_eq!(store.draw(request(10, OPENS)).await, Ok(Some(drawn)));
    for count in [0, 10, 11, 1_000] {
        assert_eq!(store.draw(request(count, at(50))).await, Ok(Some(drawn)), "{count}");
    }
    let subject = subject.reopened().await;
    let store = &subject.store;
    let after = stored(store).await;
    assert_eq!(after.draw, Some(Drawing { commitment, drawn: Some(drawn) }));
    assert_eq!(after.line.order, Order::Drawn(draw(&drawn)));
    assert!(is_as_committed(&after.draw.unwrap(), &main_queue()));
    assert_eq!((after.next, after.watermark, after.line.steps), (10, 10, 1));
    let log = records(store).await;
    assert_eq!((log.len(), log[1].at, &log[1].entry), (2, OPENS, &Entry::Drawn(drawn)));
    assert!(matches!(&log[0].entry, Entry::Stands(standing) if standing.draw == before.draw));
    assert_clean(store, START).await;
}

/// Of several at once one counts, and all are told of that one.
pub(crate) async fn of_draws_at_once_one_counts(Subject { store, .. }: Subject) {
    made(&store).await;
    let drawn = at_once((0..8).map(|index| {
        let store = store.clone();
        async move { store.draw(request(100 + index, at(60))).await.unwrap().unwrap() }
    }))
    .await;
    assert!((100..108).contains(&drawn[0].count) && drawn.iter().all(|other| *other == drawn[0]));
    assert_eq!(records(&store).await.len(), 2);
    assert_clean(&store, START).await;
}

/// A queue without a draw is not drawn; one of nobody or of one is.
pub(crate) async fn only_a_queue_with_a_draw_is_drawn(Subject { store, .. }: Subject) {
    store.create_queue(main_queue(), open()).await.unwrap();
    assert_eq!(store.draw(request(3, at(60))).await, Ok(None));
    assert_eq!((stored(&store).await.draw, records(&store).await.len()), (None, 1));
    for count in [0, 1, 10_000_000] {
        let queue = QueueName::new(&format!("q{count}")).unwrap();
        store.create_queue_drawn(queue.clone(), open(), Some(seed())).await.unwrap();
        let request = DrawRequest { queue: queue.clone(), count, at: at(60) };
        assert_eq!(store.draw(request).await.unwrap().unwrap().count, count);
        let found = store.queues().await.unwrap().into_iter().find(|found| found.name == queue);
        assert_eq!(found.unwrap().next, count);
    }
    assert_clean(&store, START).await;
}

/// Tickets keep their numbers, and the line counts by ranks: those who left before the draw and after it, those
/// who paid, and those who are forgotten.
pub(crate) async fn what_tickets_did_is_known_by_their_ranks(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 2).await;
    made(store).await;
    for number in [3, 40] {
        store.leave_queue(ticket(number), true, at(1)).await.unwrap();
    }
    assert_eq!(stored(store).await.line.left, RoaringTreemap::from_iter([3, 40]));
    let drawn = store.draw(request(100, OPENS)).await.unwrap().unwrap();
    let order = draw(&drawn);
    // One who was drawn and one who came later give up; somebody pays. Nobody is forgotten while anybody who was
    // drawn may be active.
    for number in [77, 130] {
        store.leave_queue(ticket(number), true, at(10)).await.unwrap();
    }
    let held = sale.held(store, 1, &[0]).await;
    store.charge(charge(1, 1_000, START)).await.unwrap();
    // With another ticket than the one that holds, so that both are spent.
    let payer = order.number(99);
    store.pay(Pay { ticket: ticket(payer), ..pay(1, held.id, at(11)) }).await.unwrap();
    let ranks = |numbers: &[u64]| -> RoaringTreemap {
        numbers.iter().map(|number| order.rank(*number)).collect()
    };
    let point = |floor: u64, step: Option<(u64, Step)>| Checkpoint {
        queue: main_queue(),
        next: 150,
        watermark: 200,
        floor,
        step,
        claimed: None,
        over_before: Timestamp(i64::MIN),
    };
    store.checkpoint(vec![point(0, Some((0, to(60, at(20)))))], at(20)).await.unwrap();
    store.checkpoint(vec![point(0, Some((60, to(120, at(21)))))], at(21)).await.unwrap();
    let subject = subject.reopened().await;
    let store = &subject.store;
    let line = stored(store).await.line;
    assert_eq!(line.left, ranks(&[3, 40, 77, 130]));
    assert_eq!(line.finished, ranks(&[1, payer]));

    store.checkpoint(vec![point(60, None)], at(30)).await.unwrap();
    let line = stored(store).await.line;
    let above_60 = |numbers: &[u64]| {
        let mut above = ranks(numbers);
        above.remove_range(..=60);
        above
    };
    assert_eq!(line.left, above_60(&[3, 40, 77, 130]));
    assert_eq!(line.finished, above_60(&[1, payer]));
    assert_eq!(line.log, [Admission { upto: 120, at: at(21) }]);
    store.checkpoint(vec![point(120, None)], at(31)).await.unwrap();
    let line = stored(store).await.line;
    assert_eq!(
        (line.left, line.finished),
        (RoaringTreemap::from_iter([130]), RoaringTreemap::new())
    );
    assert_clean(store, at(40)).await;
}

/// Whoever was passed over and came back is found by rank, long after the others are forgotten.
pub(crate) async fn who_came_back_is_known_by_rank(subject: Subject) {
    let store = &subject.store;
    made(store).await;
    let drawn = store.draw(request(100, OPENS)).await.unwrap().unwrap();
    let order = draw(&drawn);
    let point = |floor: u64, step: Option<(u64, Step)>| Checkpoint {
        queue: main_queue(),
        next: 100,
        watermark: 200,
        floor,
        step,
        claimed: None,
        over_before: Timestamp(i64::MIN),
    };
    let passed = Step { passed: [5, 6].into_iter().collect(), ..to(100, at(20)) };
    store.checkpoint(vec![point(0, Some((0, passed)))], at(20)).await.unwrap();
    let back = Step { returned: [5, 6].into_iter().collect(), ..to(100, at(50)) };
    store.checkpoint(vec![point(100, Some((100, back)))], at(50)).await.unwrap();
    store.leave_queue(ticket(order.number(6)), false, at(51)).await.unwrap();
    let line = stored(store).await.line;
    assert_eq!(line.left, RoaringTreemap::from_iter([6]));
    assert_eq!(line.readmitted, [(5, at(50)), (6, at(50))]);
    let subject = subject.reopened().await;
    assert_eq!(stored(&subject.store).await.line.left, RoaringTreemap::from_iter([6]));
    assert_clean(&subject.store, at(60)).await;
}

/// A step that was planned before the draw does not count after it.
pub(crate) async fn a_draw_makes_planned_steps_void(Subject { store, .. }: Subject) {
    let now = store.database_now().await.unwrap();
    let settings = QueueSettings { opens_at: Some(Timestamp(now.0 - 1_000)), ..open() };
    store.create_queue_drawn(main_queue(), settings, Some(seed())).await.unwrap();
    let advance = |steps: u64, now: Timestamp| Advance {
        queue: main_queue(),
        steps,
        serving: 0,
        step: to(5, now),
        bucket: Bucket::default(),
    };
    store.draw(request(10, now)).await.unwrap().unwrap();
    let now = store.database_now().await.unwrap();
    assert_eq!(store.advance(advance(0, now), now).await, Ok(false));
    assert_eq!(store.advance(advance(1, now), now).await, Ok(true));
    assert_clean(&store, START).await;
}

/// The opening that was drawn stays when it was; everything else may change.
pub(crate) async fn an_opening_that_was_drawn_is_not_moved(Subject { store, .. }: Subject) {
    made(&store).await;
    let opens =
        |at: Option<Timestamp>| SettingsChange { opens_at: Some(at), ..SettingsChange::default() };
    // Forward, and back.
    for moment in [at(9_000), OPENS] {
        let changed = Act::ChangeQueue(main_queue(), opens(Some(moment)), Condition::Any);
        effect(&store, changed, note("change_queue")).await;
    }
    store.draw(request(10, OPENS)).await.unwrap().unwrap();
    for moment in [None, Some(at(9_000)), Some(START)] {
        let act = Act::ChangeQueue(main_queue(), opens(moment), Condition::Any);
        let refused = store.act(act, note("late")).await;
        assert_eq!(refused, Err(Error::Rejected(ActRejected::Drawn)));
        let stayed = store.change_queue(main_queue(), opens(moment)).await.unwrap();
        assert_eq!(stayed.opens_at, Some(OPENS));
    }
    let steps = stored(&store).await.line.steps;
    let same = SettingsChange { paused: Some(true), ..opens(Some(OPENS)) };
    let pause = Act::ChangeQueue(main_queue(), same, Condition::Any);
    let changed = effect(&store, pause, note("pause")).await;
    assert!(matches!(changed, Effect::Queue { after, .. } if after.paused));
    assert_eq!(stored(&store).await.line.steps, steps + 1);
    assert_clean(&store, START).await;
}

/// After a restore a seed that may have been revealed is another one, and that is in the log.
pub(crate) async fn a_restore_exchanges_the_seed_of_a_draw_to_come(Subject { store, .. }: Subject) {
    made(&store).await;
    let before = stored(&store).await.draw.unwrap();
    let epochs = Epochs::default().with(7, [(main_queue(), 5)]).unwrap();
    effect(&store, Act::BeginEpoch(epochs.clone()), note("restore")).await;
    let after = stored(&store).await.draw.unwrap();
    assert_ne!(after.commitment, before.commitment);
    let entries: Vec<Entry> = records(&store).await.into_iter().map(|it| it.entry).collect();
    assert_eq!(entries[1..], [Entry::Restored { epoch: 7 }, Entry::Committed(after.commitment)]);
    let drawn = store.draw(request(10, OPENS)).await.unwrap().unwrap();
    assert_ne!(drawn.seed, seed().0);
    // One that was drawn stays so.
    effect(&store, Act::BeginEpoch(epochs.with(8, []).unwrap()), note("restore")).await;
    assert_eq!(stored(&store).await.draw.unwrap().drawn, Some(drawn));
    assert_clean(&store, START).await;
}
