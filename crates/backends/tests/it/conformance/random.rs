//! Buyers who do anything at once, against a model of what they were told.
//!
//! Every buyer is a task with a model of its own: its balance, its reservations and its tickets,
//! changed by acknowledged answers alone. One buyer's requests come one after another, so the model
//! predicts each answer exactly, but for what other buyers may do to it: take a seat, or let time
//! pass. At the end the models together must be what the store has.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use boxoffice_domain::event::Topic;
use boxoffice_domain::ids::{PaymentId, ReservationId, SeatId};
use boxoffice_domain::sales::{
    HoldRejected, Limits, Reservation, ReservationState, SeatState, SettleRejected,
};
use boxoffice_domain::time::Timestamp;

use super::{
    PRICE, START, Sale, Subject, assert_clean, at, at_once, charge, count_events, key, limits,
    sale, ticket, user,
};
use boxoffice_backends::Error;
use boxoffice_backends::store::{
    Answer, Charge, Pay, ReservationRejected, Reserve, ReserveRejected, Store, TicketRef,
};

const BUYERS: i64 = 12;
const SEATS: u32 = 900;
/// So many neighbouring seats are wanted at a time; on average, one of them is left behind after so
/// many milliseconds, or else all would be sold soon and nothing more happen.
const WANTED: usize = 12;
const WANTED_MS: i64 = 50;
const STEPS: usize = 600;
/// Short, so that many holds run out.
const HOLD_MS: u64 = 400;
/// A request that is late comes by so much after the hold that it is about.
const LATE: std::time::Duration = std::time::Duration::from_millis(100);

/// A small generator of numbers (SplitMix64), so that a seed tells all.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// What a buyer knows of a reservation of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Not settled yet; it may have run out.
    Held,
    Paid(PaymentId),
    Cancelled,
    Expired,
}

struct Buyer {
    id: i64,
    random: Random,
    store: Store,
    sale: Sale,
    clock: Arc<AtomicI64>,
    balance: i64,
    ticket: u64,
    made: BTreeMap<ReservationId, (Reservation, Timestamp, Expected)>,
    charges: usize,
    keys: usize,
    expired: u32,
}

impl Buyer {
    fn now(&self) -> Timestamp {
        Timestamp(self.clock.load(Ordering::SeqCst))
    }

    /// Numbers of this buyer's tickets, none of which another buyer has.
    fn ticket(&self, number: u64) -> TicketRef {
        ticket(self.id as u64 * 1_000 + number)
    }

    /// Holds a request up on its way, sometimes until the hold that it is about has run out: the
    /// store gets it with the time that it was made at.
    async fn on_the_way(&mut self, until: Timestamp) {
        let late = self.random.below(6) == 0;
        for _ in 0..self.random.below(if late { 200 } else { 3 }) {
            if late && self.now() > until.plus(LATE) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// A key for every second request; those are sent twice at once.
    fn key(&mut self) -> Option<boxoffice_backends::store::IdempotencyKey> {
        self.keys += 1;
        if self.random.below(2) == 0 { key(&format!("key {}", self.keys), 1) } else { None }
    }

    async fn step(&mut self) {
        match self.random.below(20) {
            0..7 => self.reserve().await,
            7..13 => self.pay().await,
            13..15 => self.cancel().await,
            15..18 => self.charge().await,
            // Seldom, so that most holds that run out are found by the next buyer.
            18 if self.random.below(4) == 0 => {
                let max = self.random.below(4) as u32;
                self.expired += self.store.expire_due(self.now(), max).await.unwrap();
            }
            _ => self.ask().await,
        }
        let passes = self.random.below(12) as i64;
        self.clock.fetch_add(passes, Ordering::SeqCst);
    }

    async fn reserve(&mut self) {
        let first = ((self.now().0 - START.0) / WANTED_MS) as usize;
        let mut seats: Vec<usize> = Vec::new();
        for _ in 0..=self.random.below(3) {
            let seat = (first + self.random.below(WANTED)) % SEATS as usize;
            if !seats.contains(&seat) {
                seats.push(seat);
            }
        }
        let spent = self.ticket > 0 && self.random.below(8) == 0;
        let number = self.ticket - u64::from(spent);
        let limits = Limits {
            hold: std::time::Duration::from_millis(HOLD_MS),
            seats_per_user_max: 20,
            ..limits()
        };
        let wanted = seats.len() as u32;
        let request = Reserve {
            ticket: self.ticket(number),
            limits,
            idempotency: self.key(),
            ..self.sale.reserve(self.id, &seats, self.now())
        };
        let send = |request| self.store.reserve(request);
        let keyed = request.idempotency.is_some();
        let answer = if keyed {
            same(tokio::join!(send(request.clone()), send(request.clone())))
        } else {
            send(request.clone()).await.map(|answer| answer.value)
        };
        match answer {
            Ok(reservation) => {
                assert!(!spent, "a spent ticket reserved: {reservation:?}");
                let ReservationState::Held { until } = reservation.state else {
                    panic!("{reservation:?}")
                };
                // The store's time may be ahead of a request that was held up, by what has passed.
                let earliest = request.now.plus(limits.hold);
                let latest = self.now().plus(limits.hold);
                assert!((earliest..=latest).contains(&until), "{earliest:?} {until:?} {latest:?}");
                let items: Vec<SeatId> = reservation.items.iter().map(|item| item.seat).collect();
                assert_eq!(items, request.seats);
                let known = (reservation.clone(), until, Expected::Held);
                assert!(self.made.insert(reservation.id, known).is_none());
            }
            Err(Error::Rejected(ReserveRejected::Hold(why))) => match why {
                HoldRejected::TicketSpent => assert!(spent),
                HoldRejected::SeatTaken(seat) => assert!(request.seats.contains(&seat)),
                HoldRejected::UserLimit { max, has } => assert!(has + wanted > max),
                other => panic!("{other:?}"),
            },
            Err(other) => panic!("{other}"),
        }
    }

    /// One of the own reservations, rather one of the last.
    fn any_made(&mut self) -> Option<ReservationId> {
        let back = self.random.below(4).min(self.made.len().checked_sub(1)?);
        self.made.keys().nth_back(back).copied()
    }

    async fn pay(&mut self) {
        let Some(id) = self.any_made() else { return };
        let (reservation, until, known) = self.made[&id].clone();
        let spent = self.ticket > 0 && self.random.below(8) == 0;
        let number = self.ticket - u64::from(spent);
        let request = Pay {
            user: user(self.id),
            ticket: self.ticket(number),
            reservation: id,
            idempotency: self.key(),
            now: self.now(),
        };
        self.on_the_way(until).await;
        if self.random.below(10) == 0 {
            // Somebody else tries first.
            let stranger = user(self.id % BUYERS + 1);
            let theirs = Pay { user: stranger, idempotency: None, ..request.clone() };
            let answer = self.store.pay(theirs).await;
            assert_eq!(answer, Err(not_settled(SettleRejected::NotYours)));
        }
        let send = |request| self.store.pay(request);
        let keyed = request.idempotency.is_some();
        let answer = if keyed {
            same(tokio::join!(send(request.clone()), send(request.clone())))
        } else {
            send(request.clone()).await.map(|answer| answer.value)
        };
        let due = reservation.total();
        match answer {
            Ok(payment) => {
                assert!(!spent && known == Expected::Held && self.balance >= due);
                assert!(request.now < until, "paid at {:?}, held until {until:?}", request.now);
                assert_eq!((payment.reservation, payment.amount), (id, due));
                self.balance -= due;
                self.ticket += 1;
                self.record(id, Expected::Paid(payment.id));
            }
            Err(Error::Rejected(ReservationRejected::Settle(why))) => match why {
                SettleRejected::TicketSpent => assert!(spent && known == Expected::Held),
                SettleRejected::NotEnoughPoints { balance, due: asked } => {
                    assert_eq!((balance, asked), (self.balance, due));
                    assert!(balance < due && known == Expected::Held);
                }
                why => self.ended(id, why),
            },
            Err(other) => panic!("{other}"),
        }
    }

    async fn cancel(&mut self) {
        let Some(id) = self.any_made() else { return };
        let (_, until, known) = self.made[&id].clone();
        let now = self.now();
        self.on_the_way(until).await;
        match self.store.cancel(id, user(self.id), now).await {
            Ok(()) => {
                assert!(known == Expected::Held && now < until);
                self.record(id, Expected::Cancelled);
            }
            Err(Error::Rejected(ReservationRejected::Settle(why))) => self.ended(id, why),
            Err(other) => panic!("{other}"),
        }
    }

    /// The store says that a reservation is settled already.
    fn ended(&mut self, id: ReservationId, why: SettleRejected) {
        let (_, until, known) = self.made[&id].clone();
        match why {
            SettleRejected::AlreadyPaid => assert!(matches!(known, Expected::Paid(_))),
            SettleRejected::Cancelled => assert_eq!(known, Expected::Cancelled),
            SettleRejected::Expired => {
                assert!(matches!(known, Expected::Held | Expected::Expired), "{known:?}");
                assert!(self.now() >= until, "expired before {until:?}");
                self.record(id, Expected::Expired);
            }
            other => panic!("{other:?}"),
        }
    }

    fn record(&mut self, id: ReservationId, known: Expected) {
        self.made.get_mut(&id).unwrap().2 = known;
    }

    async fn charge(&mut self) {
        let amount = 1 + self.random.below(6 * PRICE as usize) as i64;
        let request = Charge { idempotency: self.key(), ..charge(self.id, amount, self.now()) };
        let send = |request| self.store.charge(request);
        let keyed = request.idempotency.is_some();
        let answer = if keyed {
            same(tokio::join!(send(request.clone()), send(request.clone())))
        } else {
            send(request).await.map(|answer| answer.value)
        };
        self.balance += amount;
        self.charges += 1;
        assert_eq!(answer, Ok(self.balance));
    }

    /// Reads agree with what was told, too.
    async fn ask(&mut self) {
        assert_eq!(self.store.balance(user(self.id)).await, Ok(self.balance));
        let Some(id) = self.any_made() else { return };
        let (reservation, until, known) = self.made[&id].clone();
        let (stored, stored_until) = self.store.reservation(id).await.unwrap().unwrap();
        assert_eq!(stored_until, until);
        assert_eq!(stored.items, reservation.items);
        match (known, stored.state) {
            (Expected::Held, ReservationState::Held { .. }) => {}
            // A sweep may have been faster than the buyer.
            (Expected::Held | Expected::Expired, ReservationState::Expired) => {}
            // Expired to whoever asks, though nobody has swept yet.
            (Expected::Expired, ReservationState::Held { until }) => assert!(self.now() >= until),
            (Expected::Paid(payment), state) => {
                assert_eq!(state, ReservationState::Paid { payment })
            }
            (Expected::Cancelled, state) => assert_eq!(state, ReservationState::Cancelled),
            other => panic!("{other:?}"),
        }
    }
}

fn not_settled(why: SettleRejected) -> Error<ReservationRejected> {
    Error::Rejected(ReservationRejected::Settle(why))
}

/// The answers to one request sent twice at once: one did it and one was told, with the same
/// result, or neither did.
fn same<T: PartialEq + std::fmt::Debug, E: PartialEq + std::fmt::Debug>(
    answers: (Result<Answer<T>, E>, Result<Answer<T>, E>),
) -> Result<T, E> {
    match answers {
        (Ok(one), Ok(two)) => {
            assert_ne!(one.replayed, two.replayed, "{one:?} {two:?}");
            assert_eq!(one.value, two.value);
            Ok(one.value)
        }
        // A hold that runs out between the two, or a seat that comes free: the key is then the
        // second one's, and the first was refused.
        (Err(_), Ok(done)) | (Ok(done), Err(_)) if !done.replayed => Ok(done.value),
        (Err(error), Err(_)) => Err(error),
        other => panic!("{other:?}"),
    }
}

/// Buyers who reserve, pay, cancel, charge and sweep at once. The seed is in the output of a failed
/// test; `BOXOFFICE_TEST_SEED` gives another run the same choices, though not the same order.
pub(crate) async fn buyers_at_once_agree_with_a_model(subject: Subject) {
    let given = std::env::var("BOXOFFICE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("BOXOFFICE_TEST_SEED={seed}");
    let store = subject.store.clone();
    let sale = sale(&store, SEATS).await;
    let clock = Arc::new(AtomicI64::new(START.0));
    let buyers = at_once((1..=BUYERS).map(|id| {
        let mut buyer = Buyer {
            id,
            random: Random(seed.wrapping_add(id as u64)),
            store: store.clone(),
            sale: sale.clone(),
            clock: clock.clone(),
            balance: 0,
            ticket: 0,
            made: BTreeMap::new(),
            charges: 0,
            keys: 0,
            expired: 0,
        };
        async move {
            for _ in 0..STEPS {
                buyer.step().await;
            }
            // Only the model is wanted from here on; the store is to be opened anew.
            (buyer.id, buyer.balance, buyer.charges, buyer.expired, buyer.made)
        }
    }))
    .await;
    let now = Timestamp(clock.load(Ordering::SeqCst));
    assert_clean(&store, now).await;
    let end = now.plus(std::time::Duration::from_millis(HOLD_MS));
    let mut swept = store.expire_due(end, 100_000).await.unwrap();
    assert_eq!(store.expire_due(end, 1).await, Ok(0));
    assert!(end < at(80_000_000), "the session must not begin while it is sold");

    let mut owners: BTreeMap<SeatId, ReservationId> = BTreeMap::new();
    let (mut made, mut paid, mut cancelled, mut charges) = (0, 0, 0, 0);
    for (_, _, charged, expired, reservations) in &buyers {
        charges += charged;
        swept += expired;
        made += reservations.len();
        for (id, (reservation, _, known)) in reservations {
            cancelled += usize::from(*known == Expected::Cancelled);
            if let Expected::Paid(_) = known {
                paid += 1;
                for item in &reservation.items {
                    let before = owners.insert(item.seat, *id);
                    assert_eq!(before, None, "seat {} was sold twice", item.seat);
                }
            }
        }
    }
    println!("{made} reserved, {paid} paid, {cancelled} cancelled, {swept} swept");
    assert!(paid > 0 && cancelled > 0 && swept > 0, "a run without one of them proves little");
    assert_eq!(made, paid + cancelled + swept as usize);
    for (topic, effects) in [
        (Topic::ConcertReserved, made),
        (Topic::ReservationCancelled, cancelled + swept as usize),
        (Topic::PaymentCompleted, paid),
        (Topic::PointCharged, charges),
    ] {
        assert_eq!(count_events(&store, topic.name()).await, effects, "{}", topic.name());
    }

    let check = async |store: &Store| {
        for (id, balance, ..) in &buyers {
            assert_eq!(store.balance(user(*id)).await, Ok(*balance), "user {id}");
        }
        let catalog = store.catalog();
        let (_, seats) = catalog.inventory(sale.concert, sale.session).unwrap().snapshot();
        for seat in seats {
            let owner = owners.get(&seat.id);
            let state =
                owner.map_or(SeatState::Available, |id| SeatState::Sold { reservation: *id });
            assert_eq!(seat.state, state, "seat {}", seat.id);
        }
        assert_clean(store, end).await;
    };
    check(&store).await;
    drop(store);
    let subject = subject.reopened().await;
    check(&subject.store).await;
}
