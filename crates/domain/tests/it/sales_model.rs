//! The sale against a naive model of seats and balances.
//!
//! A little store drives the deciders the way the real ones do: it loads what a decider looks at,
//! and writes what the decider says. Like them it is lazy: a hold that ran out stays written until
//! somebody takes its seats or a sweep comes by. The model beside it is eager and knows nothing of
//! the deciders: whoever has a seat stands in a map, and time takes the seat away on the spot.
//!
//! Time does not go back here. The deciders judge a reservation by its own deadline alone, so a
//! store to which requests come out of the order of their times must make sure by itself that the
//! seats are still the reservation's own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use boxoffice_domain::ids::{
    ConcertId, PaymentId, QueueName, ReservationId, SeatId, SessionId, UserId,
};
use boxoffice_domain::points::{BALANCE_MAX, ChargeRejected, decide_charge};
use boxoffice_domain::sales::{
    Concert, HoldRejected, HoldRequest, Limits, PaidWith, Reservation, ReservationState, Seat,
    SeatState, Session, SettleRejected, TicketHolds, decide_cancel, decide_hold, decide_payment,
};
use boxoffice_domain::time::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

const START: Timestamp = Timestamp(1_000_000);
const USERS: i64 = 4;
const TICKETS_PER_USER: i64 = 4;
const SEATS_PER_SESSION: i64 = 7;

fn user_id(id: i64) -> UserId {
    UserId::new(id).unwrap()
}

fn seat_id(id: i64) -> SeatId {
    SeatId::new(id).unwrap()
}

/// Seat ids of the first session are 1 to 7, of the second 8 to 14.
fn session_of(seat: i64) -> i64 {
    (seat - 1) / SEATS_PER_SESSION
}

#[derive(Clone, Debug)]
enum Op {
    Reserve {
        user: i64,
        ticket: i64,
        session: i64,
        seats: Vec<i64>,
    },
    /// Pays for one of the reservations made so far; `by` is a user where it is not the owner.
    Pay {
        nth: u16,
        by: Option<i64>,
        ticket: i64,
    },
    Cancel {
        nth: u16,
        by: Option<i64>,
    },
    /// Tidies up at most so many holds that ran out.
    Sweep(usize),
    Charge {
        user: i64,
        amount: i64,
    },
    /// So many milliseconds pass.
    Pass(i64),
    /// Time goes on to the deadline of a hold, give or take a millisecond.
    PassToDeadline {
        nth: u16,
        off_by: i64,
    },
    /// Time goes on to the opening, the closing or the start of a session, give or take a
    /// millisecond, and somebody asks for a seat on the spot.
    PassToEdge {
        edge: usize,
        off_by: i64,
        user: i64,
        seat: i64,
    },
    /// The owner's payment and the sweep arrive in the same millisecond, in either order.
    Race {
        nth: u16,
        ticket: i64,
        sweep_first: bool,
    },
}

fn with(balance: i64, ticket_spent: bool) -> PaidWith {
    PaidWith { balance, ticket_spent, ticket_of_queue: true, called_off: false }
}

/// Live holds of one ticket, and holds in its life.
const LIVE_MAX: u32 = 2;
const MADE_MAX: u32 = 5;

/// What the deciders' answers are written to.
struct Store {
    concert: Concert,
    sessions: [Session; 2],
    limits: Limits,
    seats: BTreeMap<SeatId, Seat>,
    reservations: BTreeMap<ReservationId, Reservation>,
    balances: BTreeMap<UserId, i64>,
    /// Tickets by owner and count.
    spent: BTreeSet<(UserId, i64)>,
    /// What was held with each of them.
    held_with: BTreeMap<(UserId, i64), Vec<ReservationId>>,
    payments: Vec<(PaymentId, ReservationId, UserId, i64)>,
}

impl Store {
    fn reserve(
        &mut self,
        user: UserId,
        ticket: i64,
        session: i64,
        seat_ids: &[SeatId],
        now: Timestamp,
    ) -> Result<Reservation, HoldRejected> {
        let session = &self.sessions[session as usize];
        let index = session.id.get() - 1;
        let stored = |id: &SeatId| {
            let here = session_of(id.get()) == index;
            self.seats.get(id).copied().filter(|_| here)
        };
        let seats: Vec<Option<Seat>> = seat_ids.iter().map(stored).collect();
        let live = |r: &&Reservation| {
            let state = r.state_at(now);
            matches!(state, ReservationState::Held { .. } | ReservationState::Paid { .. })
                && r.user == user
                && r.session == session.id
        };
        let user_has: usize = self.reservations.values().filter(live).map(|r| r.items.len()).sum();
        let held_with: Vec<&Reservation> = self
            .held_with
            .get(&(user, ticket))
            .into_iter()
            .flatten()
            .map(|id| &self.reservations[id])
            .collect();
        let waits = |r: &&&Reservation| matches!(r.state_at(now), ReservationState::Held { .. });
        let ticket_holds = TicketHolds {
            made: held_with.len() as u32,
            live: held_with.iter().filter(waits).count() as u32,
        };
        let request = HoldRequest {
            reservation: ReservationId::new(self.reservations.len() as i64 + 1).unwrap(),
            user,
            concert: &self.concert,
            session,
            called_off: false,
            seat_ids,
            seats: &seats,
            user_has: user_has as u32,
            ticket_spent: self.spent.contains(&(user, ticket)),
            ticket_holds,
            surroundings: None,
        };
        let reservation = decide_hold(&request, &self.limits, now)?;
        let ReservationState::Held { until } = reservation.state else {
            panic!("a new reservation is {:?}", reservation.state);
        };
        for item in &reservation.items {
            let state = SeatState::Held { reservation: reservation.id, until };
            self.seats.get_mut(&item.seat).unwrap().state = state;
        }
        self.held_with.entry((user, ticket)).or_default().push(reservation.id);
        self.reservations.insert(reservation.id, reservation.clone());
        Ok(reservation)
    }

    fn pay(
        &mut self,
        id: ReservationId,
        user: UserId,
        ticket: i64,
        now: Timestamp,
    ) -> Result<i64, SettleRejected> {
        let balance = self.balance(user);
        let spent = self.spent.contains(&(user, ticket));
        let reservation = self.reservations.get_mut(&id).unwrap();
        let amount = decide_payment(reservation, user, with(balance, spent), now)?;
        let payment = PaymentId::new(self.payments.len() as i64 + 1).unwrap();
        reservation.state = ReservationState::Paid { payment };
        for item in &reservation.items {
            self.seats.get_mut(&item.seat).unwrap().state = SeatState::Sold { reservation: id };
        }
        self.balances.insert(user, balance - amount);
        self.spent.insert((user, ticket));
        self.payments.push((payment, id, user, amount));
        Ok(amount)
    }

    fn cancel(
        &mut self,
        id: ReservationId,
        user: UserId,
        now: Timestamp,
    ) -> Result<(), SettleRejected> {
        decide_cancel(&self.reservations[&id], user, now)?;
        self.end(id, ReservationState::Cancelled);
        Ok(())
    }

    fn sweep(&mut self, max: usize, now: Timestamp) -> Vec<ReservationId> {
        let due = |r: &&Reservation| {
            matches!(r.state, ReservationState::Held { .. })
                && decide_cancel(r, r.user, now) == Err(SettleRejected::Expired)
        };
        let due: Vec<_> = self.reservations.values().filter(due).map(|r| r.id).take(max).collect();
        for id in &due {
            self.end(*id, ReservationState::Expired);
        }
        due
    }

    fn end(&mut self, id: ReservationId, state: ReservationState) {
        let reservation = self.reservations.get_mut(&id).unwrap();
        reservation.state = state;
        for item in &reservation.items {
            let seat = self.seats.get_mut(&item.seat).unwrap();
            if matches!(seat.state, SeatState::Held { reservation, .. } if reservation == id) {
                seat.state = SeatState::Available;
            }
        }
    }

    fn charge(&mut self, user: UserId, amount: i64) -> Result<i64, ChargeRejected> {
        let balance = decide_charge(self.balance(user), amount)?;
        self.balances.insert(user, balance);
        Ok(balance)
    }

    fn balance(&self, user: UserId) -> i64 {
        self.balances.get(&user).copied().unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Live,
    Paid,
    Cancelled,
    /// The hold ran out; whether that was tidied up.
    Expired {
        swept: bool,
    },
}

/// One reservation of the model.
#[derive(Clone, Debug)]
struct Booking {
    user: i64,
    ticket: i64,
    seats: Vec<i64>,
    price: i64,
    until: i64,
    fate: Fate,
}

/// The model: plain numbers, and nothing that comes from the crate under test.
struct Model {
    opens_at: i64,
    closes_at: i64,
    starts_at: [i64; 2],
    hold_ms: i64,
    reservation_max: usize,
    user_max: usize,
    live_max: usize,
    made_max: usize,
    prices: BTreeMap<i64, i64>,
    /// The owner of a seat, as an index into the bookings.
    owners: BTreeMap<i64, usize>,
    bookings: Vec<Booking>,
    balances: BTreeMap<i64, i64>,
    spent: BTreeSet<(i64, i64)>,
    charged: i64,
    paid: i64,
}

impl Model {
    fn seats_of(&self, user: i64, session: i64) -> usize {
        let theirs = |(seat, owner): &(&i64, &usize)| {
            self.bookings[**owner].user == user && session_of(**seat) == session
        };
        self.owners.iter().filter(theirs).count()
    }

    fn balance(&self, user: i64) -> i64 {
        self.balances.get(&user).copied().unwrap_or(0)
    }

    fn bookable(&self, session: i64, now: i64) -> bool {
        self.opens_at <= now && now < self.closes_at && now < self.starts_at[session as usize]
    }

    fn exists(&self, session: i64, seat: i64) -> bool {
        self.prices.contains_key(&seat) && session_of(seat) == session
    }

    /// How many holds there were with a ticket, and how many of them are live.
    fn held_with(&self, user: i64, ticket: i64) -> (usize, usize) {
        let with = |b: &&Booking| b.user == user && b.ticket == ticket;
        let live = |b: &&Booking| with(b) && b.fate == Fate::Live;
        (self.bookings.iter().filter(with).count(), self.bookings.iter().filter(live).count())
    }

    fn may_reserve(&self, user: i64, ticket: i64, session: i64, seats: &[i64], now: i64) -> bool {
        let distinct: BTreeSet<i64> = seats.iter().copied().collect();
        self.bookable(session, now)
            && !self.spent.contains(&(user, ticket))
            && (1..=self.reservation_max).contains(&seats.len())
            && distinct.len() == seats.len()
            && seats.iter().all(|s| self.exists(session, *s) && !self.owners.contains_key(s))
            && self.seats_of(user, session) + seats.len() <= self.user_max
            && self.held_with(user, ticket).0 < self.made_max
            && self.held_with(user, ticket).1 < self.live_max
    }

    fn may_pay(&self, index: usize, user: i64, ticket: i64) -> bool {
        let booking = &self.bookings[index];
        booking.fate == Fate::Live
            && booking.user == user
            && !self.spent.contains(&(user, ticket))
            && self.balance(user) >= booking.price
    }

    fn free(&mut self, index: usize, fate: Fate) {
        self.bookings[index].fate = fate;
        self.owners.retain(|_, owner| *owner != index);
    }

    /// Time is at `now`: whatever ran out is free.
    fn pass(&mut self, now: i64) {
        for index in 0..self.bookings.len() {
            if self.bookings[index].fate == Fate::Live && self.bookings[index].until <= now {
                self.free(index, Fate::Expired { swept: false });
            }
        }
    }
}

struct World {
    store: Store,
    model: Model,
    now: Timestamp,
}

impl World {
    fn new(prices: &[i64], hold_ms: i64, reservation_max: u32, user_max: u32) -> Self {
        let concert_id = ConcertId::new(1).unwrap();
        let (opens_at, closes_at) = (START.0 + 50, START.0 + 20_000);
        let starts_at = [START.0 + 15_000, START.0 + 30_000];
        let seat = |index: usize| {
            let id = seat_id(index as i64 + 1);
            let number = index as u32 % SEATS_PER_SESSION as u32 + 1;
            (id, Seat { id, number, price: prices[index], state: SeatState::Available })
        };
        let session = |index: usize| Session {
            id: SessionId::new(index as i64 + 1).unwrap(),
            concert: concert_id,
            starts_at: Timestamp(starts_at[index]),
        };
        Self {
            store: Store {
                concert: Concert {
                    id: concert_id,
                    name: "concert".into(),
                    venue: "venue".into(),
                    queue: QueueName::new("main").unwrap(),
                    opens_at: Timestamp(opens_at),
                    closes_at: Timestamp(closes_at),
                },
                sessions: [session(0), session(1)],
                limits: Limits {
                    hold: Duration::from_millis(hold_ms as u64),
                    seats_per_reservation_max: reservation_max,
                    seats_per_user_max: user_max,
                    live_holds_max: LIVE_MAX,
                    holds_per_ticket_max: MADE_MAX,
                    no_orphans: false,
                },
                seats: (0..prices.len()).map(seat).collect(),
                reservations: BTreeMap::new(),
                balances: BTreeMap::new(),
                spent: BTreeSet::new(),
                held_with: BTreeMap::new(),
                payments: Vec::new(),
            },
            model: Model {
                opens_at,
                closes_at,
                starts_at,
                hold_ms,
                reservation_max: reservation_max as usize,
                user_max: user_max as usize,
                live_max: LIVE_MAX as usize,
                made_max: MADE_MAX as usize,
                prices: (1..).zip(prices.iter().copied()).collect(),
                owners: BTreeMap::new(),
                bookings: Vec::new(),
                balances: BTreeMap::new(),
                spent: BTreeSet::new(),
                charged: 0,
                paid: 0,
            },
            now: START,
        }
    }

    fn pick(&self, nth: u16) -> Option<usize> {
        let count = self.model.bookings.len();
        (count > 0).then(|| usize::from(nth) % count)
    }

    /// The nth of the holds that are live, if any; otherwise of all reservations.
    fn pick_live(&self, nth: u16) -> Option<usize> {
        let live = |index: &usize| self.model.bookings[*index].fate == Fate::Live;
        let live: Vec<usize> = (0..self.model.bookings.len()).filter(live).collect();
        if live.is_empty() { self.pick(nth) } else { Some(live[usize::from(nth) % live.len()]) }
    }

    fn pass_to(&mut self, now: i64) {
        self.now.0 = self.now.0.max(now);
        self.model.pass(self.now.0);
    }

    fn reserve(&mut self, user: i64, ticket: i64, session: i64, seats: &[i64]) -> TestCaseResult {
        let (model, now) = (&mut self.model, self.now.0);
        let seat_ids: Vec<SeatId> = seats.iter().copied().map(seat_id).collect();
        let answer = self.store.reserve(user_id(user), ticket, session, &seat_ids, self.now);
        let may = model.may_reserve(user, ticket, session, seats, now);
        prop_assert_eq!(answer.is_ok(), may, "{:?}", answer);
        match answer {
            Ok(reservation) => {
                let until = now + model.hold_ms;
                let price = seats.iter().map(|seat| model.prices[seat]).sum();
                let held: Vec<i64> = reservation.items.iter().map(|i| i.seat.get()).collect();
                prop_assert_eq!(&held, &seats);
                for item in &reservation.items {
                    let seat = item.seat.get();
                    prop_assert_eq!(item.price, model.prices[&seat]);
                    prop_assert_eq!(i64::from(item.number), (seat - 1) % SEATS_PER_SESSION + 1);
                }
                prop_assert_eq!(reservation.total(), price);
                prop_assert_eq!(reservation.user.get(), user);
                prop_assert_eq!(reservation.session.get(), session + 1);
                prop_assert_eq!(reservation.created_at, self.now);
                let state = ReservationState::Held { until: Timestamp(until) };
                prop_assert_eq!(reservation.state, state);
                let index = model.bookings.len();
                prop_assert_eq!(reservation.id.get(), index as i64 + 1);
                model.owners.extend(seats.iter().map(|seat| (*seat, index)));
                let (seats, fate) = (seats.to_vec(), Fate::Live);
                model.bookings.push(Booking { user, ticket, seats, price, until, fate });
                // A hold for no time at all is over at once.
                model.pass(now);
            }
            Err(rejected) => {
                let has = model.seats_of(user, session);
                let so = match rejected {
                    HoldRejected::NoSeats => seats.is_empty(),
                    HoldRejected::TooManySeats { max } => {
                        max as usize == model.reservation_max && seats.len() > max as usize
                    }
                    HoldRejected::DuplicateSeat(seat) => {
                        seats.iter().filter(|s| **s == seat.get()).count() > 1
                    }
                    HoldRejected::TicketSpent => model.spent.contains(&(user, ticket)),
                    HoldRejected::NotYetOpen { opens_at } => {
                        opens_at.0 == model.opens_at && now < opens_at.0
                    }
                    HoldRejected::Closed { closed_at } => {
                        closed_at.0 == model.closes_at && now >= closed_at.0
                    }
                    HoldRejected::SessionCancelled => false,
                    HoldRejected::SessionStarted => now >= model.starts_at[session as usize],
                    HoldRejected::NoSuchSeat(seat) => {
                        seats.contains(&seat.get()) && !model.exists(session, seat.get())
                    }
                    HoldRejected::SeatTaken(seat) => {
                        seats.contains(&seat.get()) && model.owners.contains_key(&seat.get())
                    }
                    HoldRejected::UserLimit { max, has: told } => {
                        max as usize == model.user_max
                            && told as usize == has
                            && has + seats.len() > model.user_max
                    }
                    HoldRejected::LiveHoldLimit { max } => {
                        max == LIVE_MAX && model.held_with(user, ticket).1 >= model.live_max
                    }
                    HoldRejected::HoldLimit { max } => {
                        max == MADE_MAX && model.held_with(user, ticket).0 >= model.made_max
                    }
                    // Nothing was said of what is around the seats.
                    HoldRejected::LeavesSinglePlace { .. }
                    | HoldRejected::NotEnoughSeats { .. }
                    | HoldRejected::NotTogether => false,
                };
                prop_assert!(so, "{:?} is not so; the user has {} seats", rejected, has);
            }
        }
        Ok(())
    }

    /// Whether what a settlement was refused for is so.
    fn is_so(&self, rejected: SettleRejected, index: usize, user: i64, ticket: i64) -> bool {
        let booking = &self.model.bookings[index];
        match rejected {
            SettleRejected::NotYours => booking.user != user,
            SettleRejected::AlreadyPaid => booking.fate == Fate::Paid,
            SettleRejected::Cancelled => booking.fate == Fate::Cancelled,
            SettleRejected::Expired => matches!(booking.fate, Fate::Expired { .. }),
            SettleRejected::WrongQueue
            | SettleRejected::Refunded
            | SettleRejected::SessionCancelled => false,
            SettleRejected::TicketSpent => self.model.spent.contains(&(user, ticket)),
            SettleRejected::NotEnoughPoints { balance, due } => {
                balance == self.model.balance(user) && due == booking.price && balance < due
            }
        }
    }

    /// Gives whether it was paid.
    fn pay(&mut self, index: usize, user: i64, ticket: i64) -> Result<bool, TestCaseError> {
        let id = ReservationId::new(index as i64 + 1).unwrap();
        let answer = self.store.pay(id, user_id(user), ticket, self.now);
        let may = self.model.may_pay(index, user, ticket);
        prop_assert_eq!(answer.is_ok(), may, "{:?}", answer);
        match answer {
            Ok(amount) => {
                let model = &mut self.model;
                let booking = &mut model.bookings[index];
                prop_assert_eq!(amount, booking.price);
                booking.fate = Fate::Paid;
                *model.balances.entry(user).or_default() -= booking.price;
                model.paid += booking.price;
                prop_assert!(model.spent.insert((user, ticket)), "the ticket paid before");
            }
            Err(rejected) => {
                prop_assert!(self.is_so(rejected, index, user, ticket), "{:?} is not so", rejected);
            }
        }
        Ok(may)
    }

    fn cancel(&mut self, index: usize, user: i64) -> TestCaseResult {
        let id = ReservationId::new(index as i64 + 1).unwrap();
        let answer = self.store.cancel(id, user_id(user), self.now);
        let booking = &self.model.bookings[index];
        let may = booking.fate == Fate::Live && booking.user == user;
        prop_assert_eq!(answer.is_ok(), may, "{:?}", answer);
        match answer {
            Ok(()) => self.model.free(index, Fate::Cancelled),
            Err(rejected) => {
                prop_assert!(self.is_so(rejected, index, user, 0), "{:?} is not so", rejected);
            }
        }
        Ok(())
    }

    fn sweep(&mut self, max: usize) -> TestCaseResult {
        let due = |b: &&Booking| b.fate == Fate::Expired { swept: false };
        let due = self.model.bookings.iter().filter(due).count();
        let swept = self.store.sweep(max, self.now);
        prop_assert_eq!(swept.len(), due.min(max));
        for id in swept {
            let booking = &mut self.model.bookings[id.get() as usize - 1];
            prop_assert_eq!(booking.fate, Fate::Expired { swept: false });
            booking.fate = Fate::Expired { swept: true };
        }
        Ok(())
    }

    fn charge(&mut self, user: i64, amount: i64) -> TestCaseResult {
        let before = self.model.balance(user);
        let expected = match before.checked_add(amount) {
            _ if amount <= 0 => Err(ChargeRejected::NotPositive),
            Some(after) if after < 1 << 53 => Ok(after),
            _ => Err(ChargeRejected::Overflow),
        };
        prop_assert_eq!(self.store.charge(user_id(user), amount), expected);
        if let Ok(after) = expected {
            self.model.balances.insert(user, after);
            self.model.charged += amount;
        }
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> TestCaseResult {
        match op {
            Op::Reserve { user, ticket, session, seats } => {
                self.reserve(*user, *ticket, *session, seats)?;
            }
            Op::Pay { nth, by, ticket } => {
                if let Some(index) = self.pick(*nth) {
                    let user = by.unwrap_or(self.model.bookings[index].user);
                    self.pay(index, user, *ticket)?;
                }
            }
            Op::Cancel { nth, by } => {
                if let Some(index) = self.pick(*nth) {
                    self.cancel(index, by.unwrap_or(self.model.bookings[index].user))?;
                }
            }
            Op::Sweep(max) => self.sweep(*max)?,
            Op::Charge { user, amount } => self.charge(*user, *amount)?,
            Op::Pass(ms) => self.pass_to(self.now.0 + ms),
            Op::PassToDeadline { nth, off_by } => {
                if let Some(index) = self.pick_live(*nth) {
                    self.pass_to(self.model.bookings[index].until + off_by);
                }
            }
            Op::PassToEdge { edge, off_by, user, seat } => {
                let [first, second] = self.model.starts_at;
                let edges = [self.model.opens_at, self.model.closes_at, first, second];
                self.pass_to(edges[*edge] + off_by);
                self.reserve(*user, 0, session_of(*seat), &[*seat])?;
            }
            Op::Race { nth, ticket, sweep_first } => {
                let Some(index) = self.pick_live(*nth) else { return Ok(()) };
                let (user, fate) =
                    (self.model.bookings[index].user, self.model.bookings[index].fate);
                let unsettled = matches!(fate, Fate::Live | Fate::Expired { swept: false });
                let spent = self.model.spent.contains(&(user, *ticket));
                // So that nothing but the deadline stands between the two.
                self.charge(user, 1_000)?;
                if *sweep_first {
                    self.sweep(usize::MAX)?;
                }
                let paid = self.pay(index, user, *ticket)?;
                if !*sweep_first {
                    self.sweep(usize::MAX)?;
                }
                let swept = self.model.bookings[index].fate == Fate::Expired { swept: true };
                if unsettled && !spent {
                    prop_assert!(paid != swept, "exactly one of payment and expiry wins");
                }
            }
        }
        Ok(())
    }

    fn check(&self) -> TestCaseResult {
        let (store, model, now) = (&self.store, &self.model, self.now);
        // Seats: the store and the model agree on every owner.
        for (id, seat) in &store.seats {
            let owner = match seat.state {
                SeatState::Sold { reservation } => Some(reservation),
                SeatState::Held { reservation, until } if now < until => Some(reservation),
                SeatState::Held { .. } | SeatState::Released { .. } | SeatState::Available => None,
            };
            let expected = model.owners.get(&id.get()).map(|index| *index as i64 + 1);
            prop_assert_eq!(owner.map(ReservationId::get), expected, "owner of seat {}", id);
            prop_assert_eq!(seat.state.is_free(now), expected.is_none(), "seat {}", id);
        }
        // Reservations: a live one has all its seats, and no two have the same.
        let mut live_seats = BTreeSet::new();
        for (reservation, booking) in store.reservations.values().zip(&model.bookings) {
            let state = reservation.state_at(now);
            let agrees = match booking.fate {
                Fate::Live => state == ReservationState::Held { until: Timestamp(booking.until) },
                Fate::Paid => matches!(state, ReservationState::Paid { .. }),
                Fate::Cancelled => state == ReservationState::Cancelled,
                Fate::Expired { .. } => state == ReservationState::Expired,
            };
            prop_assert!(agrees, "{:?} but {:?}", state, booking.fate);
            if matches!(booking.fate, Fate::Live | Fate::Paid) {
                for seat in &booking.seats {
                    prop_assert!(live_seats.insert(*seat), "seat {} has two owners", seat);
                    let owner = model.owners.get(seat).map(|index| *index as i64 + 1);
                    prop_assert_eq!(owner, Some(reservation.id.get()), "all seats or none");
                }
            }
            // Whatever a reservation may be asked for, there is one answer at any instant.
            let owner = reservation.user;
            let payable = decide_payment(reservation, owner, with(BALANCE_MAX, false), now);
            let ending = decide_cancel(reservation, owner, now);
            prop_assert_eq!(payable.is_ok(), booking.fate == Fate::Live);
            prop_assert_eq!(
                payable.err(),
                ending.err(),
                "payable exactly while it can be given up"
            );
            if booking.fate == Fate::Paid {
                prop_assert_eq!(ending, Err(SettleRejected::AlreadyPaid));
                let of_this = |(_, id, ..): &&(_, ReservationId, _, _)| *id == reservation.id;
                let payments: Vec<_> = store.payments.iter().filter(of_this).collect();
                prop_assert_eq!(payments.len(), 1, "a paid reservation has one payment");
                prop_assert_eq!((payments[0].2, payments[0].3), (owner, booking.price));
                prop_assert_eq!(state, ReservationState::Paid { payment: payments[0].0 });
            }
        }
        prop_assert_eq!(live_seats.len(), model.owners.len());
        // Users: nobody has more seats than allowed, and points are neither lost nor made.
        let mut sum = 0;
        for user in 1..=USERS {
            for session in 0..2 {
                prop_assert!(model.seats_of(user, session) <= model.user_max);
            }
            let balance = store.balance(user_id(user));
            prop_assert_eq!(balance, model.balance(user), "balance of {}", user);
            prop_assert!((0..=BALANCE_MAX).contains(&balance));
            sum += balance;
        }
        let paid: i64 = store.payments.iter().map(|(.., amount)| amount).sum();
        prop_assert_eq!(paid, model.paid);
        prop_assert_eq!(model.charged - paid, sum);
        // Tickets: each paid at most once, so there are as many spent ones as payments.
        prop_assert_eq!(store.spent.len(), store.payments.len());
        Ok(())
    }
}

fn op() -> impl Strategy<Value = Op> {
    let user = || 1..=USERS;
    let ticket = || 0..TICKETS_PER_USER;
    let by = || proptest::option::weighted(0.15, user());
    // Mostly seats of the session, distinct: what a client asks for. Seldom one of them twice, or
    // nonsense.
    let distinct = |count| {
        (0..2_i64).prop_flat_map(move |session| {
            let first = session * SEATS_PER_SESSION + 1;
            let all: Vec<i64> = (first..first + SEATS_PER_SESSION).collect();
            (Just(session), proptest::sample::subsequence(all, 1..=count).prop_shuffle())
        })
    };
    let likely = distinct(3);
    let twice = distinct(2).prop_map(|(session, mut seats)| {
        seats.push(seats[0]);
        (session, seats)
    });
    let nonsense = (0..2_i64, proptest::collection::vec(1..=2 * SEATS_PER_SESSION + 1, 0..6));
    let wish = prop_oneof![10 => likely, 1 => twice, 2 => nonsense];
    // The opening above all, because after the closing little can happen.
    let edge = prop_oneof![6 => Just(0), 1 => Just(1), 2 => Just(2), 1 => Just(3)];
    prop_oneof![
        12 => (user(), ticket(), wish).prop_map(|(user, ticket, (session, seats))| {
            Op::Reserve { user, ticket, session, seats }
        }),
        6 => (any::<u16>(), by(), ticket())
            .prop_map(|(nth, by, ticket)| Op::Pay { nth, by, ticket }),
        3 => (any::<u16>(), by()).prop_map(|(nth, by)| Op::Cancel { nth, by }),
        2 => (0..4_usize).prop_map(Op::Sweep),
        4 => (user(), 1..200_i64).prop_map(|(user, amount)| Op::Charge { user, amount }),
        1 => (user(), prop_oneof![-5..=0_i64, Just(BALANCE_MAX), any::<i64>()])
            .prop_map(|(user, amount)| Op::Charge { user, amount }),
        4 => (0..800_i64).prop_map(Op::Pass),
        3 => (any::<u16>(), -1..=1_i64)
            .prop_map(|(nth, off_by)| Op::PassToDeadline { nth, off_by }),
        1 => (edge, -1..=1_i64, user(), 1..=2 * SEATS_PER_SESSION)
            .prop_map(|(edge, off_by, user, seat)| Op::PassToEdge { edge, off_by, user, seat }),
        3 => (any::<u16>(), ticket(), any::<bool>())
            .prop_map(|(nth, ticket, sweep_first)| Op::Race { nth, ticket, sweep_first }),
    ]
}

proptest! {
    // Long runs of random things meet the rare instants seldom, so more of them than usual.
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: ProptestConfig::default().cases * 3,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_sale_equals_the_naive_model(
        prices in proptest::collection::vec(0..100_i64, 2 * SEATS_PER_SESSION as usize),
        hold_ms in prop_oneof![1 => Just(0), 9 => 1..4_000_i64],
        reservation_max in 1..5_u32,
        user_max in 1..6_u32,
        ops in proptest::collection::vec(op(), 1..100),
    ) {
        let mut world = World::new(&prices, hold_ms, reservation_max, user_max);
        for op in &ops {
            world.apply(op)?;
            world.check()?;
        }
    }

    #[test]
    fn points_are_charged_up_to_the_largest_balance_and_no_further(
        balance in 0..=BALANCE_MAX,
        amount in prop_oneof![1..=BALANCE_MAX, any::<i64>()],
        off_by in -2..=2_i64,
    ) {
        for amount in [amount, off_by, BALANCE_MAX - balance + off_by] {
            let after = i128::from(balance) + i128::from(amount);
            let expected = match () {
                () if amount <= 0 => Err(ChargeRejected::NotPositive),
                () if after >= 1 << 53 => Err(ChargeRejected::Overflow),
                () => Ok(balance + amount),
            };
            prop_assert_eq!(decide_charge(balance, amount), expected);
        }
    }

    #[test]
    fn a_hold_is_payable_or_free_and_never_both(
        until in any::<i64>(),
        offset in prop_oneof![-2..=2_i64, any::<i64>()],
        prices in proptest::collection::vec(0..1_000_000_i64, 1..5),
        // How far the balance is from what is due.
        spare in prop_oneof![-2..=2_i64, -1_000_000..1_000_000_i64],
    ) {
        let now = Timestamp(until.saturating_add(offset));
        let until = Timestamp(until);
        let id = ReservationId::new(1).unwrap();
        let items = (1..).zip(&prices).map(|(number, price)| boxoffice_domain::sales::Item {
            seat: seat_id(number.into()),
            number,
            price: *price,
        });
        let reservation = Reservation {
            id,
            user: user_id(1),
            concert: ConcertId::new(1).unwrap(),
            session: SessionId::new(1).unwrap(),
            items: items.collect(),
            created_at: Timestamp(0),
            state: ReservationState::Held { until },
        };
        let free = SeatState::Held { reservation: id, until }.is_free(now);
        let due: i64 = prices.iter().sum();
        let balance = (due + spare).max(0);
        let expected = match balance >= due {
            _ if free => Err(SettleRejected::Expired),
            true => Ok(due),
            false => Err(SettleRejected::NotEnoughPoints { balance, due }),
        };
        prop_assert_eq!(decide_payment(&reservation, user_id(1), with(balance, false), now), expected);
        prop_assert_eq!(free, now >= until);
        prop_assert_eq!(decide_cancel(&reservation, user_id(1), now).is_ok(), !free);
        prop_assert_eq!(reservation.state_at(now) == ReservationState::Expired, free);
    }
}
