//! A line under test, and what holds of it whatever sequencer it has. Time is injected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::conformance::acts::note;
use crate::conformance::{START, assert_clean, at, concert, sale, session_of, user};
use boxoffice_backends::Error;
use boxoffice_backends::sequencer::{NewAlias, PresentedTicket, Queue, Sequencer};
use boxoffice_backends::store::{
    ActRejected, Condition, NewConcert, NewSeats, Reserve, ReserveRejected, Store, TicketRef,
    draw as store_draw, is_as_committed,
};
use boxoffice_domain::ids::{QueueName, TicketId};
use boxoffice_domain::queue::{
    AfterSale, CLAIM_GRACE, Closing, Ending, Place, QueueSettings, QueueState, SaleRules,
    SettingsChange, Ticket,
};
use boxoffice_domain::sales::HoldRejected;
use boxoffice_domain::time::Timestamp;

/// An empty store with its sequencer, and what they need to live.
pub(crate) type Ground<G> = ((Store, Sequencer), G);

/// Makes one test of each case, given an async function that makes an empty store and a sequencer.
macro_rules! line_cases {
    ($ground:path) => {
        $crate::line::line_cases! { @cases $ground;
            admission_is_at_the_rate_and_smooth,
            a_pause_of_the_ticks_is_not_followed_by_a_burst,
            nobody_is_admitted_before_joining,
            a_bounded_queue_admits_as_places_come_free,
            a_new_bound_counts_from_the_next_tick,
            whoever_leaves_the_line_moves_those_behind_up,
            whoever_leaves_after_admission_makes_room_and_buys_nothing,
            nobody_is_admitted_before_the_sale_opens,
            a_line_that_is_sold_out_stands_and_passes_nobody_over,
            no_more_are_admitted_than_what_is_left_can_serve,
            those_who_come_before_the_opening_are_drawn,
            a_pause_does_not_put_a_draw_off,
        }
    };
    (@cases $ground:path; $($case:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::line::$case($ground).await;
            }
        )*
    };
}
pub(crate) use line_cases;

pub(crate) const TTL_MS: i64 = 60_000;
pub(crate) const CLAIM_MS: i64 = 5_000;
/// The room of whoever was not seen is kept for so much longer.
pub(crate) const GRACE_MS: i64 = CLAIM_GRACE.as_millis() as i64;
pub(crate) const TICK_MS: i64 = 100;

/// Ten a second, one in a tick, without a bound.
pub(crate) fn slow() -> QueueSettings {
    QueueSettings {
        admit_per_second: 10.0,
        max_active: None,
        active_ttl: Duration::from_millis(TTL_MS as u64),
        claim_window: Duration::from_millis(CLAIM_MS as u64),
        opens_at: None,
        paused: false,
    }
}

/// As many as there is room for.
pub(crate) fn fast(max_active: Option<u64>) -> QueueSettings {
    QueueSettings { admit_per_second: 100_000.0, max_active, ..slow() }
}

pub(crate) fn name(text: &str) -> QueueName {
    QueueName::new(text).unwrap()
}

pub(crate) fn waiting(number: u64) -> Place {
    Place::Waiting { number }
}

pub(crate) fn active(until: i64) -> Place {
    Place::Active { until: at(until), claimed: false }
}

/// A sequencer on a store, with one queue named `main` for most tests.
pub(crate) struct Line {
    pub(crate) sequencer: Sequencer,
    pub(crate) queue: Arc<Queue>,
    pub(crate) store: Store,
    pub(crate) now: i64,
}

impl Line {
    /// A queue named `main` on an empty store.
    pub(crate) async fn on(
        (store, sequencer): (Store, Sequencer),
        settings: QueueSettings,
    ) -> Self {
        assert!(sequencer.create(name("main"), settings).await.unwrap());
        let queue = sequencer.queue("main").unwrap();
        Self { sequencer, queue, store, now: 0 }
    }

    /// A queue named `main` that is drawn at its opening.
    pub(crate) async fn drawn_on(
        (store, sequencer): (Store, Sequencer),
        settings: QueueSettings,
    ) -> Self {
        let created = sequencer.create_noted(name("main"), settings, true, note("create_queue"));
        created.await.unwrap();
        let queue = sequencer.queue("main").unwrap();
        Self { sequencer, queue, store, now: 0 }
    }

    /// Ends in good order.
    pub(crate) async fn close(self) {
        self.sequencer.close(at(self.now)).await.unwrap();
        self.store.close().await;
    }

    pub(crate) async fn join(&self) -> u64 {
        self.sequencer.join(&self.queue).await.unwrap()
    }

    pub(crate) async fn joined(&self, count: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            numbers.push(self.join().await);
        }
        numbers
    }

    /// Time goes on, and a tick comes.
    pub(crate) async fn tick(&mut self, ms: i64) {
        self.now += ms;
        self.sequencer.tick(at(self.now)).await.unwrap();
    }

    pub(crate) async fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.tick(TICK_MS).await;
        }
    }

    pub(crate) fn place(&self, seq: u64) -> Place {
        self.sequencer.place(&self.queue, &pass(&self.queue, seq), at(self.now))
    }

    /// Where tickets stand, but for whether they have been seen, which asking changes.
    pub(crate) fn stands(&self, seqs: impl IntoIterator<Item = u64>) -> Vec<Place> {
        let unseen = |place| match place {
            Place::Active { until, .. } => Place::Active { until, claimed: false },
            place => place,
        };
        self.places(seqs).into_iter().map(unseen).collect()
    }

    pub(crate) fn places(&self, seqs: impl IntoIterator<Item = u64>) -> Vec<Place> {
        seqs.into_iter().map(|seq| self.place(seq)).collect()
    }

    pub(crate) async fn leave(&self, seq: u64) {
        let pass = pass(&self.queue, seq);
        self.sequencer.leave(&self.queue, &pass, at(self.now)).await.unwrap();
    }

    pub(crate) fn finish(&self, seq: u64) {
        self.sequencer.finish(&self.queue, &pass(&self.queue, seq));
    }

    /// Nothing wrong in memory or in the store.
    pub(crate) async fn audit(&self) {
        for finding in self.sequencer.audit(at(self.now)) {
            assert_eq!(finding.violations, 0, "{finding:?}");
        }
        assert_clean(&self.store, at(self.now)).await;
    }
}

/// The ticket that a client with this number shows.
pub(crate) fn pass(queue: &Queue, seq: u64) -> PresentedTicket {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&seq.to_be_bytes());
    let queue = queue.name().clone();
    let by = user(seq as i64 + 1);
    PresentedTicket::from(Ticket { queue, seq, user: by, issued_at: START, id: TicketId(id) })
}

pub(crate) fn opaque(token: &str, active_until: Option<Timestamp>) -> NewAlias {
    let mut id = [7; 16];
    id[..token.len()].copy_from_slice(token.as_bytes());
    NewAlias { token: token.into(), user: user(9), active_until, id: TicketId(id) }
}

pub(crate) async fn admission_is_at_the_rate_and_smooth<G>(ground: impl AsyncFn() -> Ground<G>) {
    for (rate, joined) in [(300.0, 1_000), (10.0, 100), (2.5, 30), (0.5, 10)] {
        let (place, _guard) = ground().await;
        let settings = QueueSettings { admit_per_second: rate, ..slow() };
        let mut line = Line::on(place, settings).await;
        line.joined(joined).await;
        line.tick(0).await;
        let mut before = line.queue.serving();
        assert_eq!(before, 0, "the first tick only starts the count");
        let seconds = 3;
        for tick in 1..=seconds * 10 {
            line.tick(TICK_MS).await;
            let serving = line.queue.serving();
            let step = serving - before;
            assert!(step as f64 <= rate / 10.0 + 1.0, "{rate}: {step} in a tick");
            let due = rate * tick as f64 / 10.0;
            assert!((serving as f64 - due).abs() <= 1.0, "{rate}: {serving}, due {due}");
            before = serving;
        }
        let counters = line.queue.counters();
        assert_eq!(counters.admitted.load(Ordering::SeqCst), before);
        line.audit().await;
    }
}

/// A service that stood still for a while, or had nobody in line, does not let a crowd in at once.
pub(crate) async fn a_pause_of_the_ticks_is_not_followed_by_a_burst<G>(
    ground: impl AsyncFn() -> Ground<G>,
) {
    let (place, _guard) = ground().await;
    let mut line = Line::on(place, slow()).await;
    line.joined(100).await;
    line.ticks(11).await;
    assert_eq!(line.queue.serving(), 10);
    line.tick(3_600_000).await;
    assert_eq!(line.queue.serving(), 15, "half a second's worth");
    line.ticks(10).await;
    assert_eq!(line.queue.serving(), 25);
    line.audit().await;
}

/// An admission beyond those who wait is not made up for later joins.
pub(crate) async fn nobody_is_admitted_before_joining<G>(ground: impl AsyncFn() -> Ground<G>) {
    let (place, _guard) = ground().await;
    let mut line = Line::on(place, fast(None)).await;
    line.ticks(5).await;
    assert_eq!((line.queue.serving(), line.queue.waiting()), (0, 0));
    let seq = line.join().await;
    assert_eq!((seq, line.place(seq), line.queue.waiting()), (1, waiting(1), 1));
    line.tick(TICK_MS).await;
    assert_eq!(line.place(1), active(600 + TTL_MS));
    assert_eq!(line.queue.serving(), 1);
    let seq = line.join().await;
    assert_eq!((seq, line.place(seq)), (2, waiting(1)));
    line.audit().await;
}

/// The bound counts those admitted lately and those seen since; who was never seen makes room after
/// the claim window and is honoured all the same.
pub(crate) async fn a_bounded_queue_admits_as_places_come_free<G>(
    ground: impl AsyncFn() -> Ground<G>,
) {
    let (place, _guard) = ground().await;
    let mut line = Line::on(place, fast(Some(10))).await;
    line.joined(100).await;
    line.ticks(20).await;
    // The first tick has no credit; the second admits all there is room for, at 200.
    assert_eq!(line.queue.serving(), 10);
    assert_eq!(line.queue.active(at(line.now)), 10);
    let until = 200 + TTL_MS;
    // 1 to 4 show up.
    assert_eq!(line.places(1..=4), vec![active(until); 4]);
    line.tick(TICK_MS).await;
    assert_eq!(line.place(1), Place::Active { until: at(until), claimed: true });
    // The window of the others ends.
    line.now = 200 + CLAIM_MS + GRACE_MS - 1;
    line.tick(0).await;
    assert_eq!(line.queue.serving(), 10);
    line.tick(1).await;
    assert_eq!(line.queue.serving(), 16);
    // Five comes late and is let in; the bound does not push anybody out.
    assert_eq!(line.place(5), active(until));
    line.tick(TICK_MS).await;
    assert_eq!(line.place(5), Place::Active { until: at(until), claimed: true });
    assert_eq!(line.queue.active(at(line.now)), 11);
    // One pays and one leaves: with the one above the bound, that is one place.
    line.finish(1);
    line.leave(2).await;
    line.tick(TICK_MS).await;
    assert_eq!(line.queue.serving(), 17);
    // Time runs out for the others of the first ten, to the millisecond.
    line.now = until - 1;
    assert!(matches!(line.place(3), Place::Active { .. }));
    line.now = until;
    assert_eq!(line.place(3), Place::Over(Ending::TimedOut));
    assert_eq!(line.place(6), Place::Over(Ending::TimedOut));
    line.tick(0).await;
    let counters = line.queue.counters();
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    // 3, 4 and 5 were seen; 6 to 10 never.
    assert_eq!((count(&counters.expired), count(&counters.no_show)), (3, 5));
    assert!(count(&counters.bound_checked) > 0);
    line.audit().await;
}

/// A bound of nothing admits nobody; raising it admits as many as there is room for.
pub(crate) async fn a_new_bound_counts_from_the_next_tick<G>(ground: impl AsyncFn() -> Ground<G>) {
    let (place, _guard) = ground().await;
    let mut line = Line::on(place, fast(Some(0))).await;
    line.joined(20).await;
    line.ticks(5).await;
    assert_eq!(line.queue.serving(), 0);
    for (max, serving) in [(Some(3), 3), (Some(2), 3), (Some(7), 7), (None, 20)] {
        let change = SettingsChange { max_active: Some(max), ..SettingsChange::default() };
        line.sequencer.change(&line.queue, change).await.unwrap();
        line.ticks(2).await;
        assert_eq!(line.queue.serving(), serving, "{max:?}");
    }
    line.audit().await;
}

pub(crate) async fn whoever_leaves_the_line_moves_those_behind_up<G>(
    ground: impl AsyncFn() -> Ground<G>,
) {
    let (place, _guard) = ground().await;
    let mut line = Line::on(place, slow()).await;
    line.joined(20).await;
    line.ticks(3).await;
    assert_eq!(line.queue.serving(), 2);
    line.leave(5).await;
    line.leave(6).await;
    // Once more changes nothing.
    line.leave(6).await;
    let left = Place::Over(Ending::Left);
    let places = line.places([3, 4, 5, 6, 7, 20]);
    assert_eq!(places, [waiting(1), waiting(2), left, left, waiting(3), waiting(16)]);
    assert_eq!(line.queue.waiting(), 16);
    // They take no credit: four ticks admit 3, 4, 7 and 8.
    line.ticks(4).await;
    assert_eq!(line.queue.serving(), 8);
    assert_eq!(line.places([5, 9]), [left, waiting(1)]);
    assert_eq!(line.queue.active(at(line.now)), 6);
    line.audit().await;
}

/// A ticket given up buys nothing, and after its admission it makes room for the next.
pub(crate) async fn whoever_leaves_after_admission_makes_room_and_buys_nothing<G>(
    ground: impl AsyncFn() -> Ground<G>,
) {
    let (place, _guard) = ground().await;
    let mut line = Line::on(place, fast(Some(2))).await;
    let sale = sale(&line.store, 4).await;
    line.joined(5).await;
    line.ticks(2).await;
    assert_eq!(line.queue.serving(), 2);
    line.leave(1).await;
    line.leave(4).await;
    for seq in [1, 4] {
        assert_eq!(line.place(seq), Place::Over(Ending::Left));
    }
    assert!(Queue::is_spent(line.place(1)) && Queue::is_spent(line.place(4)));
    for seq in [1, 4] {
        let ticket = TicketRef::from(&pass(&line.queue, seq).ticket);
        let request = Reserve { ticket, ..sale.reserve(seq as i64, &[0], at(line.now)) };
        let spent = Error::Rejected(ReserveRejected::Hold(HoldRejected::TicketSpent));
        assert_eq!(line.store.reserve(request).await, Err(spent));
    }
    line.tick(TICK_MS).await;
    assert_eq!(line.queue.serving(), 3);
    line.audit().await;
}

const CLOSE: SaleRules =
    SaleRules { by_stock: true, after_sold_out: AfterSale::Close, after_end: AfterSale::Close };

/// The queue itself is open, and the sale behind it opens to the millisecond and without a burst.
pub(crate) async fn nobody_is_admitted_before_the_sale_opens<G>(
    ground: impl AsyncFn() -> Ground<G>,
) {
    let (place, _guard) = ground().await;
    let mut line = Line::on(place, slow()).await;
    let made = NewConcert { opens_at: at(1_000), ..concert() };
    let made = line.store.create_concert(made).await.unwrap();
    session_of(&line.store, made, 50).await;
    line.sequencer.follow_sales(CLOSE, START);
    line.joined(20).await;
    assert_eq!(line.queue.state(START), QueueState::Scheduled(at(1_000)));
    line.ticks(9).await;
    line.tick(99).await;
    assert_eq!((line.now, line.queue.serving()), (999, 0));
    assert_eq!(line.queue.state(at(999)), QueueState::Scheduled(at(1_000)));
    line.tick(1).await;
    assert_eq!((line.queue.state(at(1_000)), line.queue.serving()), (QueueState::Open, 0));
    line.ticks(1).await;
    assert_eq!(line.queue.serving(), 1);
    line.ticks(10).await;
    assert_eq!(line.queue.serving(), 11);
    // A queue that opens after the sale does opens at its own time.
    let later = SettingsChange { opens_at: Some(Some(at(9_000))), ..SettingsChange::default() };
    line.sequencer.change(&line.queue, later).await.unwrap();
    assert_eq!(line.queue.state(at(line.now)), QueueState::Scheduled(at(9_000)));
    line.ticks(5).await;
    assert_eq!(line.queue.serving(), 11);
    line.audit().await;
}

/// Fans who are told that all is sold are told to ask seldom. When something comes back they are there, as
/// far as anybody can know.
pub(crate) async fn a_line_that_is_sold_out_stands_and_passes_nobody_over<G>(
    ground: impl AsyncFn() -> Ground<G>,
) {
    let (place, _guard) = ground().await;
    let mut line = Line::on(place, fast(None)).await;
    let sale = sale(&line.store, 1).await;
    line.sequencer.follow_sales(CLOSE, START);
    assert_eq!(line.queue.turned_away(), None);
    sale.bought(&line.store, 1, &[0]).await;
    line.tick(TICK_MS).await;
    assert_eq!(line.queue.state(at(line.now)), QueueState::Closed(Closing::SoldOut));
    assert_eq!(line.queue.turned_away(), Some(Closing::SoldOut));
    line.joined(3).await;
    for _ in 0..6 {
        assert_eq!(line.places(1..=3), [waiting(1), waiting(2), waiting(3)]);
        let told = line.queue.told(waiting(3), at(line.now), 0);
        assert_eq!(told.eta, None, "nobody knows what comes back");
        for _ in 0..told.poll_after.as_secs() {
            line.tick(1_000).await;
        }
    }
    assert_eq!(line.queue.serving(), 0);
    let more = NewSeats { count: 3, price: 1 };
    line.store.add_seats(sale.concert, sale.session, more).await.unwrap();
    line.tick(TICK_MS).await;
    line.tick(TICK_MS).await;
    assert_eq!((line.queue.turned_away(), line.queue.serving()), (None, 3));
    let passed = line.queue.counters().passed.load(Ordering::Relaxed);
    assert_eq!(passed, 0, "they asked as they were told");
    line.audit().await;
}

pub(crate) async fn no_more_are_admitted_than_what_is_left_can_serve<G>(
    ground: impl AsyncFn() -> Ground<G>,
) {
    let (place, _guard) = ground().await;
    let mut line = Line::on(place, fast(None)).await;
    let sale = sale(&line.store, 3).await;
    line.sequencer.follow_sales(CLOSE, START);
    line.joined(12).await;
    line.ticks(5).await;
    assert_eq!(line.queue.serving(), 3);
    line.places(1..=3);
    // One buys a seat: that serves nobody else. One goes: that is room for one.
    sale.bought(&line.store, 1, &[0]).await;
    line.finish(1);
    line.ticks(5).await;
    assert_eq!(line.queue.serving(), 3);
    line.leave(2).await;
    line.ticks(5).await;
    assert_eq!(line.queue.serving(), 4);
    line.places([4]);
    // A bound of the queue's own holds beside it, and whoever is inside by then stays.
    let bound = |max| SettingsChange { max_active: Some(max), ..SettingsChange::default() };
    line.sequencer.change(&line.queue, bound(Some(1))).await.unwrap();
    line.leave(3).await;
    line.ticks(5).await;
    assert_eq!((line.queue.serving(), line.queue.active(at(line.now))), (4, 1));
    line.sequencer.change(&line.queue, bound(None)).await.unwrap();
    line.ticks(5).await;
    assert_eq!(line.queue.serving(), 5);
    // A hold may come back, so it is something to wait for.
    let held = line.store.reserve(sale.reserve(7, &[1, 2], at(line.now))).await;
    assert!(held.is_ok(), "{held:?}");
    line.leave(4).await;
    line.ticks(5).await;
    assert_eq!(line.queue.serving(), 6);
    assert_eq!(line.queue.outlook().stock, Some(2));
    line.audit().await;
}

/// Opens after two seconds.
const OPENS_MS: i64 = 2_000;

fn drawn(rate: f64) -> QueueSettings {
    QueueSettings { admit_per_second: rate, opens_at: Some(at(OPENS_MS)), ..slow() }
}

/// Before the opening nobody has a place; from then on those who were there have the turn that was drawn, and
/// whoever comes later is behind them.
pub(crate) async fn those_who_come_before_the_opening_are_drawn<G>(
    ground: impl AsyncFn() -> Ground<G>,
) {
    let (place, _guard) = ground().await;
    let mut line = Line::drawn_on(place, drawn(50.0)).await;
    let commitment = line.queue.draw().unwrap().commitment;
    line.joined(200).await;
    line.ticks(19).await;
    assert_eq!(line.places(1..=200), vec![Place::Undrawn; 200]);
    let told = line.queue.told(Place::Undrawn, at(line.now), 7);
    assert!(told.eta.is_none() && told.poll_after <= Duration::from_secs(5), "{told:?}");
    line.leave(5).await;
    line.leave(50).await;
    assert_eq!(line.places([4, 5]), [Place::Undrawn, Place::Over(Ending::Left)]);
    assert_eq!((line.queue.draw().unwrap().drawn, line.queue.serving()), (None, 0));

    line.tick(TICK_MS).await;
    let draw = line.queue.draw().unwrap();
    let drawn = draw.drawn.unwrap();
    assert_eq!((draw.commitment, drawn.count), (commitment, 200));
    assert!(is_as_committed(&draw, &name("main")));
    let order = store_draw(&drawn);
    let gone = [5, 50];
    let mut by_rank: Vec<u64> = (1..=200).filter(|number| !gone.contains(number)).collect();
    by_rank.sort_by_key(|number| order.rank(*number));
    assert_eq!(line.place(5), Place::Over(Ending::Left));
    assert_eq!(line.joined(20).await, (201..=220).collect::<Vec<_>>());
    by_rank.extend(201..=220);
    // One that was drawn leaves by the number of its ticket, and so does one that was not.
    for gone in [by_rank[100], 210] {
        line.leave(gone).await;
        assert_eq!(line.place(gone), Place::Over(Ending::Left));
        by_rank.retain(|number| *number != gone);
    }
    let mut admitted = 0;
    for _ in 0..60 {
        let stands = line.stands(by_rank.iter().copied());
        let now_admitted = stands.iter().filter(|it| matches!(it, Place::Active { .. })).count();
        assert!(now_admitted >= admitted);
        admitted = now_admitted;
        let active = stands[..admitted].iter().all(|it| matches!(it, Place::Active { .. }));
        assert!(active, "{stands:?}");
        let waiting: Vec<Place> =
            (1..=stands.len() - admitted).map(|it| waiting(it as u64)).collect();
        assert_eq!(stands[admitted..], waiting);
        line.tick(TICK_MS).await;
    }
    assert_eq!(line.queue.serving(), 220);
    let payer = by_rank[3];
    line.finish(payer);
    assert_eq!(line.place(payer), Place::Over(Ending::Finished));
    line.audit().await;
}

/// The draw is at the opening, whether anybody is let in then or not; and it is no other one afterwards.
pub(crate) async fn a_pause_does_not_put_a_draw_off<G>(ground: impl AsyncFn() -> Ground<G>) {
    let (place, _guard) = ground().await;
    let mut line = Line::drawn_on(place, drawn(50.0)).await;
    line.joined(3).await;
    // Moved forward and back before.
    for opens_ms in [9_000, OPENS_MS] {
        let opens_at = Some(Some(at(opens_ms)));
        let change = SettingsChange { opens_at, ..SettingsChange::default() };
        line.sequencer.change(&line.queue, change).await.unwrap();
    }
    line.sequencer.change(&line.queue, SettingsChange::pause(true)).await.unwrap();
    line.ticks(21).await;
    let draw = line.queue.draw().unwrap();
    assert_eq!(draw.drawn.unwrap().count, 3);
    assert_eq!((line.join().await, line.place(4), line.queue.serving()), (4, waiting(4), 0));
    let later = SettingsChange { opens_at: Some(Some(at(60_000))), ..SettingsChange::default() };
    let refused =
        line.sequencer.change_noted(&line.queue, later.clone(), Condition::Any, note("late")).await;
    assert_eq!(refused, Err(Error::Rejected(ActRejected::Drawn)));
    line.sequencer.change(&line.queue, later).await.unwrap();
    assert_eq!(line.queue.settings().opens_at, Some(at(OPENS_MS)));
    line.sequencer.change(&line.queue, SettingsChange::pause(false)).await.unwrap();
    line.ticks(10).await;
    assert_eq!((line.queue.serving(), line.queue.draw().unwrap()), (4, draw));
    line.audit().await;
}
