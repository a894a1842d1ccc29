//! The line: numbers, admission, and what a restart or a crash leaves of it. Time is injected.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::common::{self, crashed, fresh, open};
use crate::conformance::{START, at, at_once, charge, pay, sale};
use crate::line::{
    self, CLAIM_MS, GRACE_MS, Line, TICK_MS, TTL_MS, active, fast, name, opaque, pass, slow,
    waiting,
};
use boxoffice_backends::sequencer::{LocalSequencer, Queue, Sequencer};
use boxoffice_backends::store::{AliasExists, Pay, ReservationRejected, Reserve, Store, TicketRef};
use boxoffice_backends::{Error, Fault};
use boxoffice_domain::invariant::Invariant;
use boxoffice_domain::queue::{Ending, Place, QueueSettings, QueueState, SettingsChange};
use boxoffice_domain::sales::SettleRejected;

/// An empty store, and the sequencer of a single process.
async fn ground() -> line::Ground<tempfile::TempDir> {
    let (store, guard) = fresh().await;
    ((store.clone(), open_local(&store).await), guard)
}

async fn open_local(store: &Store) -> Sequencer {
    Sequencer::Local(LocalSequencer::open(store.clone(), &slow(), false).await.unwrap())
}

line::line_cases!(ground);

impl Line {
    async fn new(store: Store, settings: QueueSettings) -> Self {
        let sequencer = open_local(&store).await;
        Self::on((store, sequencer), settings).await
    }

    /// What the store of a directory has.
    async fn again(directory: &Path, now: i64) -> Self {
        let store = open(directory);
        let sequencer = open_local(&store).await;
        let queue = sequencer.queue("main").unwrap();
        Self { sequencer, queue, store, now }
    }
}

/// Whoever joins after somebody was told a number gets a higher one, in whichever task, and no
/// number is given twice or left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_follow_the_order_of_acknowledgement() {
    let (store, _guard) = fresh().await;
    let line = Arc::new(Line::new(store, slow()).await);
    // Checkpoints come in between, as they do in service.
    let done = Arc::new(AtomicBool::new(false));
    let ticker = {
        let (line, done) = (line.clone(), done.clone());
        tokio::spawn(async move {
            let mut now = 0;
            while !done.load(Ordering::SeqCst) {
                now += TICK_MS;
                line.sequencer.tick(at(now)).await.unwrap();
            }
        })
    };
    let told = Arc::new(AtomicU64::new(0));
    let numbers = at_once((0..16).map(|_| {
        let (line, told) = (line.clone(), told.clone());
        async move {
            let mut numbers = Vec::new();
            for _ in 0..150 {
                let before = told.load(Ordering::SeqCst);
                let number = line.join().await;
                assert!(number > before, "{number} after {before} was told");
                told.fetch_max(number, Ordering::SeqCst);
                numbers.push(number);
            }
            numbers
        }
    }))
    .await;
    done.store(true, Ordering::SeqCst);
    ticker.await.unwrap();
    for numbers in &numbers {
        assert!(numbers.windows(2).all(|two| two[0] < two[1]));
    }
    let all: BTreeSet<u64> = numbers.into_iter().flatten().collect();
    assert_eq!(all, (1..=16 * 150).collect());
    assert_eq!(line.queue.next(), 16 * 150);
    assert_eq!(line.queue.counters().joined.load(Ordering::SeqCst), 16 * 150);
}

/// Joins that are sent one after another without waiting keep that order, also across the moment
/// when the reserved numbers run out.
#[tokio::test]
async fn joins_that_wait_for_numbers_keep_their_order() {
    let (store, _guard) = fresh().await;
    let line = Arc::new(Line::new(store, slow()).await);
    let mut joins = Vec::new();
    for _ in 0..500 {
        let line = line.clone();
        // On this runtime of one thread, tasks first run in the order in which they were spawned.
        joins.push(tokio::spawn(async move { line.join().await }));
        if joins.len() % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut numbers = Vec::new();
    for join in joins {
        numbers.push(join.await.unwrap());
    }
    assert_eq!(numbers, (1..=500).collect::<Vec<_>>());
    line.audit().await;
}

/// A tick brings new numbers while a join waits for them, and the next join comes before the first
/// has heard of that: it does not get ahead.
#[tokio::test]
async fn a_join_does_not_overtake_one_that_waits_for_numbers() {
    async fn first_step<F: Future>(future: &mut Pin<Box<F>>) {
        std::future::poll_fn(|context| {
            assert!(future.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    }
    let (store, _guard) = fresh().await;
    let line = Line::new(store, slow()).await;
    line.join().await;
    while line.queue.next() < line.store.queues().await.unwrap()[0].watermark {
        line.join().await;
    }
    let last = line.queue.next();
    let mut tick = Box::pin(line.sequencer.tick(at(0)));
    first_step(&mut tick).await;
    let mut first = Box::pin(line.join());
    first_step(&mut first).await;
    // The join has been taken in, and waits for the tick to be done with the store.
    tokio::task::yield_now().await;
    tick.await.unwrap();
    let second = line.join().await;
    assert_eq!((first.await, second), (last + 1, last + 2));
}

/// The store refuses what memory has not heard of yet, and the other way round nothing is lost.
#[tokio::test]
async fn a_ticket_that_paid_is_finished_and_stays_so() {
    let (store, guard) = fresh().await;
    let mut line = Line::new(store, fast(None)).await;
    let sale = sale(&line.store, 2).await;
    line.joined(3).await;
    line.ticks(2).await;
    let key = TicketRef::from(&pass(&line.queue, 1).ticket);
    let request = Reserve { ticket: key.clone(), ..sale.reserve(1, &[0], at(line.now)) };
    let held = line.store.reserve(request.clone()).await.unwrap().value;
    line.store.charge(charge(1, 1_000, at(line.now))).await.unwrap();
    let payment = Pay { ticket: key, ..pay(1, held.id, at(line.now)) };
    line.store.pay(payment.clone()).await.unwrap();
    let again = Err(Error::Rejected(ReservationRejected::Settle(SettleRejected::AlreadyPaid)));
    assert_eq!(line.store.pay(payment).await, again);
    // The process dies before memory hears of the payment.
    let copy = crashed(guard.path());
    line.finish(1);
    assert_eq!(line.place(1), Place::Over(Ending::Finished));
    // Finishing twice, or what waits or never was, changes nothing.
    line.finish(1);
    line.finish(99);
    assert_eq!(line.queue.active(at(line.now)), 2);
    line.audit().await;

    let line = Line::again(copy.path(), line.now).await;
    assert_eq!(line.place(1), Place::Over(Ending::Finished));
    assert_eq!(line.place(2), active(200 + TTL_MS));
    line.audit().await;
}

/// After an orderly restart every ticket stands where it stood, and no number is skipped.
#[tokio::test]
async fn an_orderly_restart_keeps_every_place_and_every_number() {
    let (store, guard) = fresh().await;
    let mut line = Line::new(store, slow()).await;
    line.joined(50).await;
    line.ticks(21).await;
    assert_eq!(line.queue.serving(), 20);
    line.places([1, 2, 3]);
    line.leave(3).await;
    line.leave(4).await;
    line.leave(30).await;
    line.tick(TICK_MS).await;
    let before = line.places(1..=50);
    let (waiting, counted) = (line.queue.waiting(), line.queue.active(at(line.now)));
    let now = line.now;
    line.close().await;

    let mut line = Line::again(guard.path(), now).await;
    assert_eq!(line.places(1..=50), before);
    assert_eq!(line.queue.waiting(), waiting);
    assert_eq!(line.queue.active(at(now)), counted);
    assert_eq!(line.join().await, 51);
    line.ticks(11).await;
    assert_eq!(line.queue.serving(), 32, "ten more, past the one who left");
    line.audit().await;
}

/// Restarts of both kinds, one after another: no number comes twice, and nobody's grows.
#[tokio::test]
async fn crashes_give_no_number_twice_and_let_nobody_fall_back() {
    let (store, mut guard) = fresh().await;
    let mut line = Line::new(store, slow()).await;
    let mut given: Vec<u64> = Vec::new();
    let mut numbers: Vec<(u64, u64)> = Vec::new();
    for round in 0..8 {
        // More than are reserved ahead at first, with and without a tick in between.
        for n in 0..(3 + round * 9) {
            let seq = line.join().await;
            assert!(given.last().is_none_or(|last| *last < seq), "{seq} after {given:?}");
            given.push(seq);
            if n % 5 == 4 && round % 2 == 0 {
                line.tick(TICK_MS).await;
            }
            let Place::Waiting { number } = line.place(seq) else { panic!("{seq} does not wait") };
            numbers.push((seq, number));
        }
        if round % 3 == 1 {
            let waiting = given[given.len() - 2];
            line.leave(waiting).await;
            numbers.retain(|(seq, _)| *seq != waiting);
        }
        let now = line.now;
        if round % 4 == 3 {
            line.close().await;
            line = Line::again(guard.path(), now).await;
            let seq = line.join().await;
            assert_eq!(seq, given.last().unwrap() + 1, "an orderly end skips nothing");
            given.push(seq);
        } else {
            let copy = crashed(guard.path());
            line = Line::again(copy.path(), now).await;
            guard = copy;
        }
        numbers.retain_mut(|(seq, number)| match line.place(*seq) {
            Place::Waiting { number: after } => {
                assert!(after <= *number, "{seq} fell back from {number} to {after}");
                *number = after;
                true
            }
            Place::Active { .. } => false,
            other @ (Place::Over(_) | Place::Undrawn) => panic!("{seq} is {other:?}"),
        });
        line.audit().await;
    }
    assert!(numbers.len() > 100, "only {} still wait", numbers.len());
}

/// What was reserved ahead and not given is skipped after a crash, but is not skipped again and
/// again while nobody joins.
#[tokio::test]
async fn crashes_without_joins_skip_nothing_more() {
    let (store, mut guard) = fresh().await;
    let line = Line::new(store, slow()).await;
    line.joined(3).await;
    let mut lines = vec![line];
    let mut nexts = Vec::new();
    for _ in 0..5 {
        let copy = crashed(guard.path());
        let mut line = Line::again(copy.path(), 0).await;
        line.tick(0).await;
        nexts.push(line.queue.next());
        lines.push(line);
        guard = copy;
    }
    assert!(nexts[0] >= 3 && nexts[0] < 1_000, "{nexts:?}");
    assert!(nexts.windows(2).all(|two| two[0] == two[1]), "{nexts:?}");
}

/// Everybody polls while people join, leave and are admitted: nobody's number ever grows, and
/// nobody waits again after having been admitted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_overtaken_while_everything_moves() {
    const FANS: u64 = 300;
    let (store, _guard) = fresh().await;
    let settings = QueueSettings { admit_per_second: 400.0, max_active: Some(50), ..slow() };
    let line = Arc::new(Line::new(store, settings).await);
    let clock = Arc::new(AtomicU64::new(0));
    let fans: Vec<_> = (0..FANS)
        .map(|fan| {
            let (line, clock) = (line.clone(), clock.clone());
            tokio::spawn(async move {
                let seq = line.join().await;
                let pass = pass(&line.queue, seq);
                let mut number = u64::MAX;
                let mut polls = 0;
                loop {
                    let now = at(clock.load(Ordering::SeqCst) as i64);
                    match line.sequencer.place(&line.queue, &pass, now) {
                        Place::Waiting { number: after } => {
                            assert!(after >= 1 && after <= number, "{number} grew to {after}");
                            number = after;
                        }
                        Place::Active { .. } => break,
                        other @ (Place::Over(_) | Place::Undrawn) => panic!("{seq} is {other:?}"),
                    }
                    polls += 1;
                    if fan % 10 == 3 && polls == 5 {
                        line.sequencer.leave(&line.queue, &pass, now).await.unwrap();
                        let place = line.sequencer.place(&line.queue, &pass, now);
                        assert!(Queue::is_spent(place), "{place:?}");
                        return 0;
                    }
                    tokio::task::yield_now().await;
                }
                // Admitted for good: buys, which makes room.
                line.sequencer.finish(&line.queue, &pass);
                1
            })
        })
        .collect();
    while fans.iter().any(|fan| !fan.is_finished()) {
        let now = clock.fetch_add(TICK_MS as u64, Ordering::SeqCst) as i64 + TICK_MS;
        line.sequencer.tick(at(now)).await.unwrap();
    }
    let mut served = 0;
    for fan in fans {
        served += fan.await.unwrap();
    }
    assert!(served >= FANS * 9 / 10, "{served}");
    // Settled tickets are known to memory alone here, so the store is audited without them.
    for finding in line.sequencer.audit(at(clock.load(Ordering::SeqCst) as i64)) {
        assert_eq!(finding.violations, 0, "{finding:?}");
        // People are not known here.
        let is_looked_at = finding.invariant != Invariant::OnePlaceEach;
        assert_eq!(finding.checked > 0, is_looked_at, "{finding:?}");
    }
}

#[tokio::test]
async fn a_paused_queue_takes_joins_and_admits_nobody() {
    let (store, guard) = fresh().await;
    let mut line = Line::new(store, slow()).await;
    line.joined(30).await;
    line.ticks(4).await;
    assert_eq!(line.queue.serving(), 3);
    let settings = line.sequencer.change(&line.queue, SettingsChange::pause(true)).await;
    assert_eq!(settings, Ok(QueueSettings { paused: true, ..slow() }));
    assert_eq!(line.queue.state(at(line.now)), QueueState::Paused);
    line.ticks(50).await;
    assert_eq!(line.queue.serving(), 3);
    assert_eq!(line.join().await, 31);
    assert_eq!(line.places([4, 31]), [waiting(1), waiting(28)]);
    // Those who are in stay in.
    assert_eq!(line.place(3), active(400 + TTL_MS));
    // A pause outlives a restart.
    let now = line.now;
    line.close().await;
    let mut line = Line::again(guard.path(), now).await;
    line.ticks(5).await;
    assert_eq!((line.queue.serving(), line.queue.state(at(line.now))), (3, QueueState::Paused));
    // The pause has saved up nothing.
    line.sequencer.change(&line.queue, SettingsChange::pause(false)).await.unwrap();
    line.tick(TICK_MS).await;
    assert_eq!(line.queue.serving(), 4);
    line.ticks(10).await;
    assert_eq!(line.queue.serving(), 14);
    line.audit().await;
}

/// Whoever asks for a pause and hangs up before the answer has asked for it all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_seen_even_where_nobody_waits_for_its_answer() {
    let (store, _guard) = fresh().await;
    let line = Line::new(store, slow()).await;
    for round in 1..=20 {
        let paused = round % 2 == 1;
        let change = line.sequencer.change(&line.queue, SettingsChange::pause(paused));
        let mut change = Box::pin(change);
        let begun = poll_fn(|context| Poll::Ready(change.as_mut().poll(context))).await;
        assert!(begun.is_pending(), "a commit takes longer than that");
        drop(change);
        let before = Instant::now();
        while line.queue.settings().paused != paused {
            assert!(before.elapsed() < Duration::from_secs(20), "round {round}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let stored = line.store.queues().await.unwrap().remove(0);
        assert_eq!(stored.settings.paused, paused);
    }
    line.audit().await;
}

#[tokio::test]
async fn a_queue_opens_at_its_time_to_the_millisecond_and_without_a_burst() {
    let (store, guard) = fresh().await;
    let opens_at = Some(at(1_000));
    let mut line = Line::new(store, QueueSettings { opens_at, ..slow() }).await;
    line.joined(20).await;
    assert_eq!(line.queue.state(START), QueueState::Scheduled(at(1_000)));
    line.ticks(9).await;
    line.tick(99).await;
    assert_eq!((line.now, line.queue.serving()), (999, 0));
    let now = line.now;
    line.close().await;
    let mut line = Line::again(guard.path(), now).await;
    assert_eq!(line.queue.state(at(999)), QueueState::Scheduled(at(1_000)));
    line.tick(0).await;
    line.tick(1).await;
    assert_eq!((line.queue.state(at(1_000)), line.queue.serving()), (QueueState::Open, 0));
    line.ticks(1).await;
    assert_eq!(line.queue.serving(), 1);
    line.ticks(10).await;
    assert_eq!(line.queue.serving(), 11);
    line.audit().await;
}

/// Whether it ends in good order or is killed, before the opening or after it: there is one draw, of all who had a
/// number, and nobody has another place for it.
#[tokio::test]
async fn a_draw_goes_through_restarts() {
    for (is_killed, at_ms) in [(false, 900), (true, 900), (false, 1_000), (true, 1_000)] {
        let (store, guard) = fresh().await;
        let settings = QueueSettings { opens_at: Some(at(1_000)), ..slow() };
        let sequencer = open_local(&store).await;
        let mut line = Line::drawn_on((store, sequencer), settings).await;
        line.joined(40).await;
        line.leave(7).await;
        while line.now < at_ms {
            line.tick(TICK_MS).await;
        }
        let before = (line.queue.draw(), line.places(1..=40));
        let copy = crashed(guard.path());
        let mut line = if is_killed {
            Line::again(copy.path(), at_ms).await
        } else {
            line.close().await;
            Line::again(guard.path(), at_ms).await
        };
        assert_eq!((line.queue.draw(), line.places(1..=40)), before, "{is_killed} at {at_ms}");
        // The service was away when it opened.
        line.tick(2_000).await;
        let drawn = line.queue.draw().unwrap().drawn.unwrap();
        // After a kill some numbers may have been given that nobody knows of.
        assert!(drawn.count == 40 || (is_killed && at_ms < 1_000 && drawn.count > 40), "{drawn:?}");
        let order = boxoffice_backends::store::draw(&drawn);
        assert_eq!(line.place(7), Place::Over(Ending::Left));
        assert!(line.join().await > drawn.count);
        line.ticks(3).await;
        let serving = line.queue.serving();
        assert!((1..=10).contains(&serving), "{serving}");
        for number in (1..=40).filter(|number| *number != 7) {
            let is_in = matches!(line.place(number), Place::Active { .. });
            assert_eq!(is_in, order.rank(number) <= serving, "{number}");
        }
        line.audit().await;
    }
}

/// A queue is made once; numbers, admission, pauses and departures of two do not touch each other.
#[tokio::test]
async fn two_queues_are_independent() {
    let (store, guard) = fresh().await;
    let mut line = Line::new(store, slow()).await;
    assert!(line.sequencer.create(name("vip"), fast(None)).await.unwrap());
    assert!(!line.sequencer.create(name("vip"), slow()).await.unwrap());
    assert!(!line.sequencer.create(name("main"), fast(None)).await.unwrap());
    assert!(line.sequencer.queue("none").is_none());
    let names: Vec<_> = line.sequencer.queues().iter().map(|q| q.name().clone()).collect();
    assert_eq!(names, [name("main"), name("vip")]);
    let vip = line.sequencer.queue("vip").unwrap();
    assert_eq!(vip.settings(), fast(None));

    line.joined(10).await;
    for expected in 1..=4 {
        assert_eq!(line.sequencer.join(&vip).await, Ok(expected));
    }
    line.sequencer.leave(&vip, &pass(&vip, 3), at(line.now)).await.unwrap();
    line.ticks(3).await;
    assert_eq!((line.queue.serving(), vip.serving()), (2, 4));
    assert_eq!(line.place(3), waiting(1));
    let place = |seq| line.sequencer.place(&vip, &pass(&vip, seq), at(line.now));
    assert_eq!(place(3), Place::Over(Ending::Left));
    assert_eq!(place(4), active(200 + TTL_MS));
    line.sequencer.change(&vip, SettingsChange::pause(true)).await.unwrap();
    assert_eq!(line.sequencer.join(&vip).await, Ok(5));
    line.ticks(2).await;
    assert_eq!((line.queue.serving(), vip.serving()), (4, 4));
    drop(vip);
    let now = line.now;
    line.close().await;
    let line = Line::again(guard.path(), now).await;
    let vip = line.sequencer.queue("vip").unwrap();
    assert_eq!((line.queue.serving(), vip.serving()), (4, 4));
    assert_eq!((line.join().await, line.sequencer.join(&vip).await), (11, Ok(6)));
    line.audit().await;
}

/// Tokens issued past the line are active until their time, count against the bound, and can be
/// given up, used up, and found again after a restart.
#[tokio::test]
async fn opaque_tokens_past_the_line() {
    let (store, guard) = fresh().await;
    let mut line = Line::new(store, fast(Some(5))).await;
    line.joined(20).await;
    let until = Some(at(3_000));
    let tokens = ["a", "b", "c"].map(|token| opaque(token, until)).into();
    let issued = line.sequencer.issue(&line.queue, tokens, at(0)).await.unwrap();
    assert!(issued.iter().all(|alias| alias.ticket.seq == 0 && alias.spent.is_none()));
    assert_eq!(line.join().await, 21, "they took no number");
    assert!(line.sequencer.alias("x").is_none());
    let token = |line: &Line, token: &str| line.sequencer.alias(token).unwrap();
    let place = |line: &Line, name: &str| {
        line.sequencer.place(&line.queue, &token(line, name), at(line.now))
    };
    let in_force = Place::Active { until: at(3_000), claimed: true };
    let (finished, left) = (Place::Over(Ending::Finished), Place::Over(Ending::Left));
    assert_eq!(place(&line, "a"), in_force);
    assert_eq!(line.queue.active(START), 3);
    line.ticks(3).await;
    assert_eq!(line.queue.serving(), 2, "three of five places are taken");
    // One is used up and one given up; that is counted once a second.
    line.sequencer.finish(&line.queue, &token(&line, "a"));
    assert_eq!(place(&line, "a"), finished);
    let given_up = token(&line, "b");
    line.sequencer.leave(&line.queue, &given_up, at(line.now)).await.unwrap();
    assert_eq!([place(&line, "b"), place(&line, "c")], [left, in_force]);
    line.ticks(12).await;
    assert_eq!(line.queue.serving(), 4);
    let now = line.now;
    line.close().await;

    let mut line = Line::again(guard.path(), now).await;
    // The store was told of what was given up; of what was used up only a payment would tell it.
    assert_eq!([place(&line, "b"), place(&line, "c")], [left, in_force]);
    line.now = 2_999;
    assert_eq!(place(&line, "c"), in_force);
    line.now = 3_000;
    assert_eq!(place(&line, "c"), Place::Over(Ending::TimedOut));
    line.audit().await;
}

/// Tokens issued into the line have the next numbers and are tickets like any other.
#[tokio::test]
async fn opaque_tokens_in_the_line() {
    let (store, guard) = fresh().await;
    let mut line = Line::new(store, slow()).await;
    line.joined(2).await;
    let tokens = vec![opaque("a", None), opaque("now", Some(at(9_000))), opaque("b", None)];
    let issued = line.sequencer.issue(&line.queue, tokens, at(0)).await.unwrap();
    let seqs: Vec<u64> = issued.iter().map(|alias| alias.ticket.seq).collect();
    assert_eq!(seqs, [3, 0, 4]);
    assert_eq!(line.join().await, 5);
    let place = |line: &Line, token: &str| {
        let pass = line.sequencer.alias(token).unwrap();
        line.sequencer.place(&line.queue, &pass, at(line.now))
    };
    assert_eq!([place(&line, "a"), place(&line, "b")], [waiting(3), waiting(4)]);
    let first = line.sequencer.alias("a").unwrap();
    line.sequencer.leave(&line.queue, &first, at(line.now)).await.unwrap();
    assert_eq!(line.places([4, 5]), [waiting(3), waiting(4)]);
    line.ticks(4).await;
    assert_eq!(line.queue.serving(), 4);
    let now = line.now;
    let copy = crashed(guard.path());
    let line = Line::again(copy.path(), now).await;
    assert_eq!(place(&line, "a"), Place::Over(Ending::Left));
    assert_eq!(place(&line, "b"), active(400 + TTL_MS));
    line.audit().await;
}

/// Where one token of a list exists, none is issued, and numbers taken for them hold up nobody.
#[tokio::test]
async fn opaque_tokens_are_issued_all_or_none() {
    let (store, guard) = fresh().await;
    let mut line = Line::new(store, slow()).await;
    let one = vec![opaque("a", None)];
    line.sequencer.issue(&line.queue, one, at(0)).await.unwrap();
    for again in [
        vec![opaque("b", None), opaque("a", None)],
        vec![opaque("c", None), opaque("d", Some(at(1))), opaque("c", None)],
    ] {
        let exists = again.last().unwrap().token.clone();
        let answer = line.sequencer.issue(&line.queue, again, at(0)).await;
        assert_eq!(answer, Err(Error::Rejected(AliasExists(exists))));
    }
    for token in ["b", "c", "d"] {
        assert!(line.sequencer.alias(token).is_none(), "{token}");
    }
    // Behind the one that was issued, nobody.
    let seq = line.join().await;
    assert_eq!(line.place(seq), waiting(2));
    line.ticks(3).await;
    assert_eq!(line.place(seq), active(300 + TTL_MS));
    let now = line.now;
    line.close().await;
    let line = Line::again(guard.path(), now).await;
    assert!(line.sequencer.alias("a").is_some() && line.sequencer.alias("b").is_none());
    line.audit().await;
}

/// While the store cannot write, polls are answered as before; nobody is admitted, nobody joins
/// beyond what was reserved, and nobody is told that a ticket is given up.
#[tokio::test]
async fn what_is_not_durable_is_not_told() {
    let (store, guard) = fresh().await;
    let mut line = Line::new(store, slow()).await;
    line.joined(12).await;
    line.ticks(3).await;
    assert_eq!(line.queue.serving(), 2);
    line.store.close().await;

    for _ in 0..20 {
        line.now += TICK_MS;
        let answer = line.sequencer.tick(at(line.now)).await;
        assert!(matches!(answer, Err(Fault::Unavailable(_))), "{answer:?}");
    }
    assert_eq!(line.queue.serving(), 2);
    assert_eq!(line.places([2, 3, 12]), [active(300 + TTL_MS), waiting(1), waiting(10)]);
    let counters = line.queue.counters();
    assert_eq!(counters.admitted.load(Ordering::SeqCst), 2);

    // Numbers that the store allowed before may be given; then joins are refused.
    let mut given = 0;
    let refused = loop {
        match line.sequencer.join(&line.queue).await {
            Ok(seq) => {
                given += 1;
                assert_eq!(seq, 12 + given);
            }
            Err(fault) => break fault,
        }
        assert!(given < 1_000, "numbers without end");
    };
    assert!(matches!(refused, Fault::Unavailable(_)));
    let more = line.sequencer.join(&line.queue).await;
    assert!(matches!(more, Err(Fault::Unavailable(_))));

    let pass_of = |seq| pass(&line.queue, seq);
    for seq in [1, 5] {
        let before = line.place(seq);
        let answer = line.sequencer.leave(&line.queue, &pass_of(seq), at(line.now)).await;
        assert!(matches!(answer, Err(Fault::Unavailable(_))));
        assert_eq!(line.place(seq), before);
    }
    let before = line.queue.settings();
    let answer = line.sequencer.change(&line.queue, SettingsChange::pause(true)).await;
    assert!(matches!(answer, Err(Fault::Unavailable(_))));
    assert_eq!(line.queue.settings(), before);
    let answer = line.sequencer.create(name("new"), slow()).await;
    assert!(matches!(answer, Err(Fault::Unavailable(_))));
    assert!(line.sequencer.queue("new").is_none());
    let tokens = vec![opaque("a", Some(at(9_000)))];
    let answer = line.sequencer.issue(&line.queue, tokens, at(line.now)).await;
    assert!(matches!(answer, Err(Error::Fault(Fault::Unavailable(_)))));
    assert!(line.sequencer.alias("a").is_none());
    let answer = line.sequencer.close(at(line.now)).await;
    assert!(matches!(answer, Err(Fault::Unavailable(_))));

    // The next start finds all who were told anything in their places.
    let before = line.stands(1..=12 + given);
    let now = line.now;
    drop(line);
    let line = Line::again(guard.path(), now).await;
    assert_eq!(line.stands(1..=12 + given), before);
    assert_eq!(line.queue.serving(), 2);
    assert!(line.join().await > 12 + given);
    line.audit().await;
}

/// An admission is durable before anybody can see it: whatever a crash at any moment leaves, it has
/// at least what was visible.
#[tokio::test]
async fn an_admission_that_was_seen_survives_a_crash() {
    let (store, guard) = fresh().await;
    let mut line = Line::new(store, slow()).await;
    line.joined(40).await;
    for _ in 0..8 {
        line.ticks(2).await;
        let seen = line.stands(1..=40);
        let copy = crashed(guard.path());
        let survivor = Line::again(copy.path(), line.now).await;
        assert_eq!(survivor.stands(1..=40), seen);
        assert_eq!(survivor.queue.serving(), line.queue.serving());
    }
    assert_eq!(line.queue.serving(), 15);
}

/// Whoever was seen is made durable within a second or so, and no seat is lost by less.
#[tokio::test]
async fn claims_survive_a_crash_after_a_second() {
    let (store, guard) = fresh().await;
    let mut line = Line::new(store, fast(Some(3))).await;
    line.joined(9).await;
    line.ticks(2).await;
    line.places([1, 2]);
    line.ticks(12).await;
    let claimed = |until: i64| Place::Active { until: at(until), claimed: true };
    let copy = crashed(guard.path());
    let mut line = Line::again(copy.path(), line.now).await;
    let until = 200 + TTL_MS;
    assert_eq!(line.places([1, 2, 3]), [claimed(until), claimed(until), active(until)]);
    // So after the window one place is free, not three. That poll was the third one's own.
    line.tick(TICK_MS).await;
    line.now = 200 + CLAIM_MS + GRACE_MS;
    line.tick(0).await;
    line.tick(TICK_MS).await;
    assert_eq!(line.queue.serving(), 3);
    line.finish(3);
    line.tick(TICK_MS).await;
    assert_eq!(line.queue.serving(), 4);
    line.audit().await;
}

/// Almost two minutes of a pause go by, in which these poll: longer than anybody may be silent of whom
/// nobody knows what he was told.
async fn wait_polling(line: &mut Line, seqs: impl Iterator<Item = u64> + Clone) {
    line.sequencer.change(&line.queue, SettingsChange::pause(true)).await.unwrap();
    for _ in 0..220 {
        line.places(seqs.clone());
        line.tick(500).await;
    }
    line.sequencer.change(&line.queue, SettingsChange::pause(false)).await.unwrap();
    line.tick(TICK_MS).await;
}

/// Who does not poll costs those behind nothing, and comes before them once back, also after a restart.
#[tokio::test]
async fn whoever_is_absent_is_passed_over_and_let_in_when_back() {
    let (store, guard) = fresh().await;
    let mut line = Line::new(store, slow()).await;
    line.joined(40).await;
    let there = || (1..=10).chain(21..=40);
    wait_polling(&mut line, there()).await;
    let before = line.queue.serving();
    // As many as the rate allows, of those who are there.
    line.ticks(15).await;
    assert!(before <= 1 && line.queue.serving() >= 24, "{before} {}", line.queue.serving());
    assert_eq!(line.queue.counters().passed.load(Ordering::SeqCst), 10);
    assert!(matches!(line.place(10), Place::Active { .. }));
    assert_eq!(line.places([11, 15, 20]), [waiting(1); 3]);
    line.tick(TICK_MS).await;
    let places = line.places([11, 15, 20, 40]);
    assert!(matches!(places[0], Place::Active { claimed: true, .. }), "{places:?}");
    assert_eq!(places[1..3], [waiting(1); 2], "one in a tick");
    // Who has just come back and waits on is let in after the restart; who leaves is not.
    line.leave(15).await;
    assert_eq!(line.place(15), Place::Over(Ending::Left));
    let now = line.now;
    line.audit().await;
    line.close().await;
    let mut line = Line::again(guard.path(), now).await;
    assert!(matches!(line.place(11), Place::Active { .. }));
    assert_eq!(line.places([12, 20]), [waiting(1); 2]);
    line.ticks(3).await;
    assert!(line.places([12, 20]).iter().all(|place| matches!(place, Place::Active { .. })));
    assert_eq!(line.place(13), waiting(1));
    assert_eq!(line.queue.counters().returned.load(Ordering::SeqCst), 2);
    line.audit().await;
}

/// Numbers that nobody has, because a process died that had reserved them, keep nobody waiting.
#[tokio::test]
async fn empty_places_after_a_crash_cost_nothing() {
    let (store, guard) = fresh().await;
    let line = Line::new(store, slow()).await;
    line.joined(3).await;
    let copy = crashed(guard.path());
    let mut line = Line::again(copy.path(), 0).await;
    let last = line.join().await;
    assert!(last > 10, "{last}");
    wait_polling(&mut line, (1..=3).chain([last])).await;
    // Four are there, and each tick lets one in.
    line.ticks(4).await;
    let passed = line.queue.counters().passed.load(Ordering::SeqCst);
    assert_eq!((line.queue.serving(), passed), (last, last - 4));
    line.audit().await;
}

/// After the last checkpoint nobody gets a number: it would be given again after the restart.
#[tokio::test]
async fn a_closed_sequencer_takes_no_joins() {
    let (store, guard) = fresh().await;
    let mut line = Line::new(store, slow()).await;
    let given = line.joined(3).await;
    line.tick(TICK_MS).await;
    line.sequencer.close(at(line.now)).await.unwrap();
    for _ in 0..3 {
        let answer = line.sequencer.join(&line.queue).await;
        assert!(matches!(answer, Err(Fault::Unavailable(_))), "{answer:?}");
    }
    let tokens = vec![opaque("a", None)];
    line.sequencer.issue(&line.queue, tokens, at(line.now)).await.unwrap_err();
    assert_eq!(line.place(3), waiting(3));
    let now = line.now;
    line.close().await;
    let line = Line::again(guard.path(), now).await;
    assert_eq!(line.join().await, given[2] + 1);
    line.audit().await;
}

/// Joins that arrive while the sequencer closes either have a number that stays theirs, or none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_during_the_close_are_refused_or_kept() {
    let (store, guard) = fresh().await;
    let line = Line::new(store, slow()).await;
    let joins: Vec<_> = (0..8)
        .map(|_| {
            let (sequencer, queue) = (line.sequencer.clone(), line.queue.clone());
            tokio::spawn(async move {
                let mut given = Vec::new();
                while let Ok(seq) = sequencer.join(&queue).await {
                    given.push(seq);
                    tokio::task::yield_now().await;
                }
                given
            })
        })
        .collect();
    while line.queue.next() < 200 {
        tokio::task::yield_now().await;
    }
    line.sequencer.close(at(0)).await.unwrap();
    let mut given = BTreeSet::new();
    for join in joins {
        for seq in join.await.unwrap() {
            assert!(given.insert(seq), "{seq} was given twice");
        }
    }
    line.store.close().await;
    drop(line);
    let line = Line::again(guard.path(), 0).await;
    assert_eq!(line.join().await, given.len() as u64 + 1);
    line.audit().await;
}

/// A clock that goes back takes nothing from anybody, and admission goes on at the usual rate.
#[tokio::test]
async fn a_clock_that_goes_back_takes_nothing_back() {
    let (store, guard) = fresh().await;
    let mut line = Line::new(store, slow()).await;
    line.joined(100).await;
    line.now = 3_600_000;
    line.tick(0).await;
    line.ticks(10).await;
    assert_eq!(line.queue.serving(), 10);
    let until = line.now + TTL_MS;
    assert_eq!(line.stands([10]), [active(until)]);
    line.now = 0;
    line.tick(0).await;
    assert_eq!(line.queue.serving(), 10);
    assert_eq!(line.stands([10, 11]), [active(until), waiting(1)]);
    line.ticks(10).await;
    assert_eq!(line.queue.serving(), 20);
    // The log does not run backwards, so they have the time of the last one before.
    assert_eq!(line.stands([20]), [active(until)]);
    assert_eq!(line.store.clock().await, Ok(at(3_601_000)));
    line.audit().await;
    let now = line.now;
    line.close().await;
    let line = Line::again(guard.path(), now).await;
    assert_eq!(line.queue.serving(), 20);
    assert_eq!(line.stands([20]), [active(until)]);
    line.audit().await;
}

/// Active time and claim window are the service's own, whatever was stored with the queue.
#[tokio::test]
async fn times_come_from_the_defaults_and_the_rest_from_the_store() {
    let (store, guard) = fresh().await;
    let line = Line::new(store, fast(Some(9))).await;
    line.close().await;
    let store = open(guard.path());
    let defaults = QueueSettings {
        admit_per_second: 1.0,
        active_ttl: Duration::from_secs(7),
        claim_window: Duration::from_secs(3),
        ..slow()
    };
    let local = LocalSequencer::open(store, &defaults, false).await.unwrap();
    let expected = QueueSettings {
        active_ttl: defaults.active_ttl,
        claim_window: defaults.claim_window,
        ..fast(Some(9))
    };
    assert_eq!(Sequencer::Local(local).queue("main").unwrap().settings(), expected);
}

/// Counters that contradict each other are not guessed at.
#[tokio::test]
async fn a_corrupt_queue_is_refused() {
    for sql in [
        "UPDATE queue SET serving = 3",
        "UPDATE queue SET watermark = 1",
        "DELETE FROM admission",
        "UPDATE queue SET claimed = x'0102'",
        "UPDATE queue SET floor = -1",
        "INSERT INTO readmitted VALUES ('main', 3, 1)",
        "INSERT INTO queue_passed VALUES ('main', 0, x'0102')",
    ] {
        let (store, guard) = fresh().await;
        let mut line = Line::new(store, slow()).await;
        line.joined(10).await;
        line.ticks(3).await;
        line.close().await;
        let connection = common::raw(guard.path());
        assert!(connection.execute(sql, []).unwrap() > 0);
        drop(connection);
        let store = open(guard.path());
        let answer = LocalSequencer::open(store, &slow(), false).await.map(|_| ());
        assert!(matches!(answer, Err(Fault::Corrupt(_))), "{sql}: {answer:?}");
    }
}
