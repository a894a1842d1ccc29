//! Each kind of loss is planted in a story in which nothing is wrong; exactly that is found.

use super::books::{Entry, EntryKind, Payment, Refund, Reservation, SeatState, State};
use super::*;

const SESSION: i64 = 7;
/// Milliseconds since 1970 at which the story begins.
const START: i64 = 1_800_000_000_000;

/// What was told, and the books that fit it.
struct Story {
    told: Told,
    books: Books,
}

fn answer(status: u16, code: &str, given: Given) -> Attempt {
    Attempt::Answered(Answer {
        status,
        code: code.to_owned(),
        instance: "a".to_owned(),
        at: 50.0,
        retry_after: None,
        given,
    })
}

fn silent(sent: bool) -> Attempt {
    Attempt::Silent { reason: "closed".to_owned(), sent }
}

fn heard(instance: &str, number: u64, sent_at: Seconds) -> Heard {
    let (instance, status) = (instance.to_owned(), Status::Waiting);
    Heard { instance, status, number, sent_at, at: sent_at + 0.01 }
}

fn saying(status: Status, heard: Heard) -> Heard {
    Heard { status, ..heard }
}

impl Story {
    fn new() -> Self {
        Self { told: Told::default(), books: Books::default() }
    }

    /// Three buyers: one pays, one gives back, one is refunded; a fourth holds. All wait in a line before.
    fn whole() -> Self {
        let mut story = Self::new();
        for user in 1..=4 {
            story.joins(user, user as u64, 10.0 + user as f64);
            story.charges(user);
            story.holds(user, user, &[user * 10, user * 10 + 1]);
        }
        story.pays(1, 1, 101);
        story.gives_back(2, 2);
        story.pays(3, 3, 103);
        story.refunds(3, 103);
        story
    }

    fn joins(&mut self, user: i64, seq: u64, at: Seconds) -> FanId {
        let heard = heard("a", 100 + seq, at);
        self.told.joined(Joined { user, token: String::new(), seq, heard }).0
    }

    fn asks(&mut self, user: i64, what: What, attempt: Attempt) -> EffectId {
        let id = self.told.asks(Order { user, what, key: Some("key".to_owned()) });
        if self.told.hears(id, attempt) != Next::Settled {
            self.told.gives_up(id);
        }
        id
    }

    fn event(&mut self, topic: Topic, id: i64) {
        *self.books.events.entry((topic, id)).or_default() += 1;
    }

    fn enter(&mut self, id: i64, user: i64, amount: i64, kind: EntryKind, payment: Option<i64>) {
        self.books.entries.insert(id, Entry { user, amount, kind, payment });
        *self.books.balances.entry(user).or_default() += amount;
    }

    fn charges(&mut self, user: i64) -> EffectId {
        let id = self.asks(user, What::Charge, answer(200, "", Given::Nothing));
        self.enter(user, user, CHARGE, EntryKind::Charge, None);
        self.event(Topic::Charged, user);
        id
    }

    fn hold(seats: &[i64]) -> What {
        What::Hold { session: SESSION, seats: seats.to_vec() }
    }

    fn holds(&mut self, user: i64, reservation: i64, seats: &[i64]) -> EffectId {
        let given = Given::Reservation(reservation);
        let id = self.asks(user, Self::hold(seats), answer(201, "", given));
        self.is_held(user, reservation, seats);
        id
    }

    fn is_held(&mut self, user: i64, reservation: i64, seats: &[i64]) {
        let row = Reservation {
            user,
            session: SESSION,
            seats: seats.to_vec(),
            created_at: START,
            held_until: START + 20_000,
            state: State::Held,
            payment: None,
        };
        self.books.reservations.insert(reservation, row);
        for &seat in seats {
            self.books.seats.insert(seat, (SeatState::Held, reservation));
        }
        self.event(Topic::Reserved, reservation);
    }

    fn row(&mut self, reservation: i64) -> &mut Reservation {
        self.books.reservations.get_mut(&reservation).unwrap()
    }

    fn pays(&mut self, user: i64, reservation: i64, payment: i64) -> EffectId {
        let given = Given::Payment { payment, amount: 2_000 };
        let id = self.asks(user, What::Pay { reservation }, answer(201, "", given));
        self.is_paid(user, reservation, payment);
        id
    }

    fn is_paid(&mut self, user: i64, reservation: i64, payment: i64) {
        let row = self.row(reservation);
        (row.state, row.payment) = (State::Paid, Some(payment));
        for seat in row.seats.clone() {
            self.books.seats.insert(seat, (SeatState::Sold, reservation));
        }
        self.books.payments.insert(payment, Payment { reservation, user, amount: 2_000 });
        self.enter(payment, user, -2_000, EntryKind::Payment, Some(payment));
        self.event(Topic::Paid, payment);
    }

    fn gives_back(&mut self, user: i64, reservation: i64) {
        self.asks(user, What::Cancel { reservation }, answer(204, "", Given::Nothing));
        self.is_given_back(reservation);
    }

    fn is_given_back(&mut self, reservation: i64) {
        let row = self.row(reservation);
        row.state = State::Cancelled;
        for seat in row.seats.clone() {
            self.books.seats.remove(&seat);
        }
        self.event(Topic::Cancelled, reservation);
    }

    fn refunds(&mut self, user: i64, payment: i64) {
        self.asks(user, What::Refund { payment }, answer(200, "", Given::Nothing));
        self.is_refunded(user, payment);
    }

    fn is_refunded(&mut self, user: i64, payment: i64) {
        let reservation = self.books.payments[&payment].reservation;
        let row = self.row(reservation);
        row.state = State::Refunded;
        for seat in row.seats.clone() {
            self.books.seats.insert(seat, (SeatState::Released, 0));
        }
        self.books.refunds.insert(payment, Refund { reservation, at: START + 9_000 });
        self.enter(payment + 1_000, user, 2_000, EntryKind::Refund, Some(payment));
        self.event(Topic::Refunded, payment);
    }

    fn found(&self) -> Vec<Finding> {
        compare(&self.told, &self.books)
    }

    /// Kinds of what is found, each once.
    #[track_caller]
    fn finds(&self, kinds: &[Kind]) {
        let found = self.found();
        let mut have: Vec<Kind> = found.iter().map(Finding::kind).collect();
        have.sort_unstable();
        have.dedup();
        assert_eq!(have, kinds, "{found:#?}");
        // All can be said.
        for finding in found {
            assert!(!finding.to_string().is_empty());
        }
    }
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    Story::whole().finds(&[]);
}

#[test]
fn a_lost_place_is_found() {
    let mut story = Story::whole();
    let fan = story.joins(9, 9, 20.0);
    story.told.place_unknown(fan, "b".to_owned(), 21.0);
    assert_eq!(story.found(), [Finding::PlaceUnknown { seq: 9, instance: "b".to_owned() }]);
    // Whose ticket may be over is told so rightly.
    let mut story = Story::whole();
    let fan = story.joins(9, 9, 20.0);
    story.told.fan_mut(fan).spent = true;
    story.told.polled(fan, saying(Status::Expired, heard("b", 0, 21.0)));
    story.finds(&[]);
    let fan = story.joins(10, 10, 20.0);
    story.told.polled(fan, saying(Status::Expired, heard("b", 0, 21.0)));
    assert_eq!(story.found(), [Finding::PlaceOver { seq: 10, instance: "b".to_owned() }]);
}

#[test]
fn a_number_that_grows_is_found() {
    let grown = |hears: &[(&str, u64, Seconds)]| {
        let mut story = Story::new();
        let fan = story.joins(1, 1, 10.0);
        for (instance, number, at) in hears {
            story.told.polled(fan, heard(instance, *number, *at));
        }
        (story.found(), story.told.late_news.len())
    };
    // It was 101 at first.
    assert_eq!(grown(&[("a", 90, 11.0), ("b", 80, 12.0), ("a", 80, 13.0)]), (vec![], 0));
    // At one instance, never; news take their time between two.
    let (found, late) = grown(&[("a", 90, 11.0), ("a", 91, 11.5)]);
    assert_eq!(late, 1);
    let at_one = Finding::NumberGrewAtOne {
        seq: 1,
        instance: "a".to_owned(),
        before: 90,
        after: 91,
        apart_ms: 490,
    };
    assert_eq!(found, [at_one]);
    assert_eq!(grown(&[("a", 90, 11.0), ("b", 91, 12.9)]), (vec![], 1));
    let (found, _) = grown(&[("a", 90, 11.0), ("b", 91, 13.2)]);
    let late = Finding::NumberGrew { seq: 1, instance: "b".to_owned(), before: 90, after: 91 };
    assert_eq!(found, [late]);
    // Who was let in has number 0, and none from then on.
    let mut story = Story::new();
    let fan = story.joins(1, 1, 10.0);
    assert!(story.told.polled(fan, saying(Status::Activated, heard("a", 0, 11.0))));
    assert!(!story.told.polled(fan, saying(Status::Activated, heard("b", 0, 12.0))));
    story.finds(&[]);
    story.told.polled(fan, heard("b", 3, 20.0));
    story.finds(&[Kind::NumberGrown]);
    // An answer that was under way when another came says nothing.
    let mut story = Story::new();
    let fan = story.joins(1, 1, 10.0);
    story.told.polled(fan, Heard { at: 12.0, ..heard("a", 50, 11.0) });
    story.told.polled(fan, Heard { at: 12.5, ..heard("a", 60, 11.5) });
    story.finds(&[]);
}

#[test]
fn many_polls_are_not_forgotten() {
    let mut story = Story::new();
    let fan = story.joins(1, 500, 10.0);
    for step in 0..300_u32 {
        let number = 600 - u64::from(step);
        story.told.polled(fan, heard("a", number, 11.0 + f64::from(step)));
    }
    story.finds(&[]);
    story.told.polled(fan, heard("b", 302, 400.0));
    let grew = Finding::NumberGrew { seq: 500, instance: "b".to_owned(), before: 301, after: 302 };
    assert_eq!(story.found(), [grew]);
}

#[test]
fn a_number_that_was_given_twice_is_found() {
    let mut story = Story::whole();
    story.joins(9, 2, 20.0);
    assert_eq!(story.found(), [Finding::NumberTwice { seq: 2, users: vec![2, 9] }]);
}

#[test]
fn who_was_overtaken_is_counted() {
    let mut told = Told::default();
    let mut join = |seq: u64, sent_at: Seconds, at: Seconds| {
        let heard = Heard { at, ..heard("a", seq, sent_at) };
        told.joined(Joined { user: seq as i64, token: String::new(), seq, heard });
    };
    join(10, 1.0, 1.2);
    // Beside one another: no order between them.
    join(9, 1.1, 1.3);
    join(11, 2.0, 2.1);
    // Sent 0.5 s after the answer with 11.
    join(4, 2.6, 2.7);
    join(12, 3.0, 3.1);
    join(8, 3.5, 3.6);
    let overtaken = told.overtaken(0.0);
    assert_eq!((overtaken.fans, overtaken.numbers), (2, 7));
    assert!((overtaken.seconds - 0.5).abs() < 1e-6, "{overtaken:?}");
    assert_eq!(told.overtaken(2.2).fans, 1);
    // It is a figure and no finding: at the loss of Redis it may be so.
    assert_eq!(compare(&told, &Books::default()), []);
}

#[test]
fn a_lost_hold_is_found() {
    let mut story = Story::whole();
    story.books.reservations.remove(&4);
    story.books.events.remove(&(Topic::Reserved, 4));
    let found = story.found();
    assert!(matches!(found[..], [Finding::HoldLost { reservation: 4, user: 4, .. }]), "{found:?}");
    // It is another user's.
    let mut story = Story::whole();
    story.row(4).user = 5;
    story.finds(&[Kind::EffectLost, Kind::Ghost]);
}

#[test]
fn a_lost_payment_is_found() {
    // As if the transaction had never been.
    let mut story = Story::whole();
    let row = story.row(1);
    (row.state, row.payment) = (State::Held, None);
    story.books.payments.remove(&101);
    story.books.entries.remove(&101);
    *story.books.balances.get_mut(&1).unwrap() += 2_000;
    story.books.events.remove(&(Topic::Paid, 101));
    let lost = Finding::PaymentLost { reservation: 1, payment: 101, state: State::Held };
    assert_eq!(story.found(), [lost]);
    // Another amount was taken than was told.
    let mut story = Story::whole();
    story.books.payments.get_mut(&101).unwrap().amount = 3_000;
    let found = story.found();
    let lost = Finding::PaymentLost { reservation: 1, payment: 101, state: State::Paid };
    let nothing = Finding::PaymentTookNothing { payment: 101, user: 1, amount: 3_000 };
    assert_eq!(found, [lost, nothing]);
    // The reservation names another one's.
    let mut story = Story::whole();
    story.row(1).payment = Some(103);
    let other = Finding::PaymentOfAnother { reservation: 1, payment: Some(103) };
    assert_eq!(story.found(), [other]);
}

#[test]
fn a_lost_seat_of_a_payment_is_found() {
    let mut story = Story::whole();
    story.books.seats.remove(&10);
    assert_eq!(story.found(), [Finding::SeatLost { seat: 10, reservation: 1, found: None }]);
}

#[test]
fn what_was_given_back_or_refunded_and_is_not_is_found() {
    let mut story = Story::whole();
    story.row(2).state = State::Held;
    story.books.events.remove(&(Topic::Cancelled, 2));
    let lost = Finding::CancelLost { reservation: 2, state: State::Held };
    assert_eq!(story.found(), [lost]);
    let mut story = Story::whole();
    story.row(3).state = State::Paid;
    for seat in [30, 31] {
        story.books.seats.insert(seat, (SeatState::Sold, 3));
    }
    story.books.refunds.remove(&103);
    story.books.entries.remove(&1_103);
    *story.books.balances.get_mut(&3).unwrap() -= 2_000;
    story.books.events.remove(&(Topic::Refunded, 103));
    assert_eq!(story.found(), [Finding::RefundLost { payment: 103, state: State::Paid }]);
    // The points of a refund came twice, or not at all.
    let mut story = Story::whole();
    story.enter(5_000, 3, 2_000, EntryKind::Refund, Some(103));
    assert_eq!(story.found(), [Finding::RefundEntries { payment: 103, entries: 2 }]);
}

#[test]
fn a_lost_charge_is_found() {
    let mut story = Story::whole();
    story.books.entries.remove(&4);
    story.books.balances.remove(&4);
    story.books.events.remove(&(Topic::Charged, 4));
    let found = story.found();
    assert!(matches!(found[..], [Finding::ChargeLost { user: 4, have: 0, acknowledged: 1, .. }]));
    // Once more than anybody asked for.
    let mut story = Story::whole();
    story.enter(5_000, 4, CHARGE, EntryKind::Charge, None);
    story.event(Topic::Charged, 5_000);
    let found = story.found();
    assert!(matches!(found[..], [Finding::ChargedTooOften { user: 4, have: 2, at_most: 1, .. }]));
}

#[test]
fn points_that_do_not_add_up_are_found() {
    let mut story = Story::whole();
    *story.books.balances.get_mut(&4).unwrap() += 1;
    let balance = Finding::Balance { user: 4, balance: CHARGE + 1, entries: CHARGE };
    assert_eq!(story.found(), [balance]);
    let mut story = Story::whole();
    story.enter(5_000, 1, -2_000, EntryKind::Payment, Some(101));
    assert_eq!(story.found(), [Finding::PaymentEntries { payment: 101, entries: 2 }]);
    let mut story = Story::whole();
    let charge = story.charges(9);
    story.told.judge_points(charge, CHARGE, 30.0);
    story.finds(&[]);
    story.told.judge_points(charge, 2 * CHARGE, 30.0);
    assert_eq!(story.found(), [Finding::PointsTold { user: 9, points: 2 * CHARGE }]);
}

#[test]
fn a_lost_event_of_each_kind_is_found() {
    for (topic, id) in [
        (Topic::Reserved, 1),
        (Topic::Cancelled, 2),
        (Topic::Paid, 101),
        (Topic::Refunded, 103),
        (Topic::Charged, 4),
    ] {
        let mut story = Story::whole();
        story.books.events.remove(&(topic, id));
        assert_eq!(story.found(), [Finding::EventLost { topic, id }]);
        let mut story = Story::whole();
        story.event(topic, id);
        assert_eq!(story.found(), [Finding::EventTwice { topic, id, count: 2 }]);
        let mut story = Story::whole();
        story.event(topic, 9_999);
        // A hold that has run out is recorded a little later.
        let expected = [Finding::EventOfNothing { topic, id: 9_999 }];
        assert_eq!(story.found(), expected[usize::from(topic == Topic::Cancelled)..]);
    }
    // What has run out has an event as well.
    let mut story = Story::whole();
    story.row(4).state = State::Expired;
    assert_eq!(story.found(), [Finding::EventLost { topic: Topic::Cancelled, id: 4 }]);
    let mut story = Story::whole();
    story.books.unknown_events.insert("concert.nonsense".to_owned());
    story.finds(&[Kind::EventTwice]);
}

#[test]
fn a_seat_with_two_owners_is_found() {
    // Paid twice.
    let mut story = Story::whole();
    story.charges(9);
    story.holds(9, 9, &[10]);
    story.row(9).created_at = START + 500;
    story.pays(9, 9, 109);
    let found = story.found();
    let twice = Finding::SeatPaidTwice { seat: 10, reservations: [1, 9] };
    assert!(found.contains(&twice), "{found:?}");
    // The seat itself has one owner only, and the two holds were there at one time.
    story.finds(&[Kind::SeatDoubled, Kind::EffectLost]);
    // Held twice, by two who were told so.
    let mut story = Story::whole();
    story.holds(9, 9, &[40]);
    story.row(9).created_at = START + 19_999;
    let (state, overlap_ms) = (State::Held, 1);
    let twice = Finding::SeatHeldTwice { seat: 40, reservations: [4, 9], state, overlap_ms };
    assert_eq!(story.found(), [twice]);
    // One after another is as it should be; also after what was given back or refunded, by whoever had waited.
    let refunded = START + 9_000 - ASKED_BEFORE_MS;
    for (seat, created_at) in [(40, START + 20_000), (20, START + 1), (30, refunded)] {
        let mut story = Story::whole();
        story.holds(9, 9, &[seat]);
        story.row(9).created_at = created_at;
        story.finds(&[]);
    }
    let mut story = Story::whole();
    story.holds(9, 9, &[30]);
    story.row(9).created_at = refunded - 1;
    story.finds(&[Kind::SeatDoubled]);
    let run_out = START + 20_000 - ASKED_BEFORE_MS;
    for (created_at, kinds) in [(run_out, &[][..]), (run_out - 1, &[Kind::SeatDoubled])] {
        let mut story = Story::whole();
        story.row(4).state = State::Expired;
        story.event(Topic::Cancelled, 4);
        story.holds(9, 9, &[40]);
        story.row(9).created_at = created_at;
        story.finds(kinds);
    }
    // One reservation for two.
    let mut story = Story::whole();
    story.asks(9, Story::hold(&[40, 41]), answer(201, "", Given::Reservation(4)));
    let found = story.found();
    assert!(found.contains(&Finding::ReservationTwice { reservation: 4, users: [4, 9] }));
    // Both of a race were told that it is theirs.
    let mut story = Story::whole();
    let both = [story.holds(8, 8, &[90]), story.holds(9, 9, &[91])];
    story.told.judge_race(both, 90);
    assert_eq!(story.found(), [Finding::SeatToldTwice { seat: 90, users: [8, 9] }]);
    // One of them was refused.
    let mut story = Story::whole();
    let refused = story.asks(9, Story::hold(&[90]), answer(409, "SEAT_TAKEN", Given::Nothing));
    let both = [story.holds(8, 8, &[90]), refused];
    story.told.judge_race(both, 90);
    story.finds(&[]);
}

#[test]
fn a_second_payment_is_found() {
    let mut story = Story::whole();
    let given = Given::Payment { payment: 101, amount: 2_000 };
    let first = story.pays(4, 4, 104);
    let second = story.asks(4, What::Pay { reservation: 4 }, answer(409, "ALREADY_PAID", given));
    story.told.judge_payments([first, second]);
    story.finds(&[]);
    let given = Given::Payment { payment: 104, amount: 2_000 };
    let second = story.asks(4, What::Pay { reservation: 4 }, answer(201, "", given));
    story.told.judge_payments([first, second]);
    assert_eq!(story.found(), [Finding::PaidTwice { reservation: 4 }]);
}

#[test]
fn what_was_refused_and_is_there_is_found() {
    // A hold that was refused.
    let mut story = Story::whole();
    story.asks(9, Story::hold(&[90]), answer(409, "SEAT_TAKEN", Given::Nothing));
    story.is_held(9, 9, &[90]);
    let found = story.found();
    assert!(matches!(found[..], [Finding::HoldNotAsked { reservation: 9, user: 9, .. }]));
    // One that nobody asked for.
    let mut story = Story::whole();
    story.is_held(9, 9, &[90]);
    story.finds(&[Kind::Ghost]);
    // Two where one was asked for.
    let mut story = Story::whole();
    story.is_held(4, 9, &[40, 41]);
    let too_many = Finding::HoldsTooMany { user: 4, seats: vec![40, 41], have: 2, asked: 1 };
    assert_eq!(story.found(), [too_many]);
    // A payment, a giving back and a refund.
    let refused = || answer(409, "HOLD_EXPIRED", Given::Nothing);
    let mut story = Story::whole();
    story.asks(4, What::Pay { reservation: 4 }, refused());
    story.is_paid(4, 4, 104);
    let found = story.found();
    assert!(matches!(found[..], [Finding::PaidNotAsked { reservation: 4, .. }]), "{found:?}");
    let mut story = Story::whole();
    story.asks(4, What::Cancel { reservation: 4 }, refused());
    story.is_given_back(4);
    let found = story.found();
    assert!(matches!(found[..], [Finding::CancelNotAsked { reservation: 4, .. }]), "{found:?}");
    let mut story = Story::whole();
    story.asks(1, What::Refund { payment: 101 }, refused());
    story.is_refunded(1, 101);
    let found = story.found();
    assert!(matches!(found[..], [Finding::RefundNotAsked { payment: 101, .. }]), "{found:?}");
}

#[test]
fn what_nobody_knows_may_be_either() {
    // An answer was lost, or a proxy gave up: it may be there or not. Where it was never sent, it may not.
    for (attempt, may_be) in [
        (silent(true), true),
        (silent(false), false),
        (answer(504, "", Given::Nothing), true),
        (answer(502, "", Given::Nothing), true),
        (answer(503, "", Given::Nothing), false),
        (answer(409, "IDEMPOTENCY_IN_FLIGHT", Given::Nothing), true),
    ] {
        let mut story = Story::whole();
        story.asks(9, What::Charge, attempt.clone());
        story.finds(&[]);
        story.enter(9, 9, CHARGE, EntryKind::Charge, None);
        story.event(Topic::Charged, 9);
        story.finds(if may_be { &[] } else { &[Kind::Ghost] });
        let mut story = Story::whole();
        story.asks(4, What::Pay { reservation: 4 }, attempt);
        story.is_paid(4, 4, 104);
        story.finds(if may_be { &[] } else { &[Kind::Ghost] });
    }
}

#[test]
fn an_effect_is_judged_by_all_of_its_answers() {
    let heard = |attempts: Vec<Attempt>| {
        let mut told = Told::default();
        let order = Order { user: 1, what: What::Charge, key: None };
        let id = told.asks(order);
        let settled = attempts.into_iter().map(|attempt| told.hears(id, attempt)).last();
        if settled != Some(Next::Settled) {
            told.gives_up(id);
        }
        (told.effect(id).verdict, told.effect(id).attempts)
    };
    let done = || answer(200, "", Given::Nothing);
    let refused = || answer(409, "SEAT_TAKEN", Given::Nothing);
    assert_eq!(heard(vec![silent(true), done()]), (Verdict::Done, 2));
    assert_eq!(heard(vec![refused()]), (Verdict::Refused, 1));
    // The first may have done what the second was refused for.
    assert_eq!(heard(vec![silent(true), refused()]), (Verdict::Unknown, 2));
    assert_eq!(heard(vec![silent(false), silent(false)]), (Verdict::Nothing, 2));
    assert_eq!(heard(vec![silent(false), silent(true)]), (Verdict::Unknown, 2));
    let busy = Attempt::Answered(Answer {
        status: 503,
        code: "UNAVAILABLE".to_owned(),
        instance: "a".to_owned(),
        at: 1.0,
        retry_after: Some(3.0),
        given: Given::Nothing,
    });
    let mut told = Told::default();
    let id = told.asks(Order { user: 1, what: What::Charge, key: None });
    assert_eq!(told.hears(id, busy.clone()), Next::Again(3.0));
    assert_eq!(heard(vec![busy]), (Verdict::Nothing, 1));
}

#[test]
fn a_refusal_without_cause_is_found() {
    let refused = |code: &str| answer(409, code, Given::Nothing);
    let story = |code: &str, contested: bool, active_at: Seconds| {
        let mut story = Story::new();
        let fan = story.joins(9, 9, 10.0);
        story.told.polled(fan, saying(Status::Activated, heard("a", 0, active_at)));
        let held = story.asks(9, Story::hold(&[90]), refused(code));
        story.told.judge_hold(fan, held, contested);
        story
    };
    // The answer comes at 50.
    story("SEAT_TAKEN", true, 40.0).finds(&[]);
    story("SEAT_TAKEN", false, 40.0).finds(&[Kind::FalseRefusal]);
    story("TOO_MANY_SEATS", false, 40.0).finds(&[]);
    story("TOKEN_NOT_ACTIVATED", false, 49.0).finds(&[]);
    story("TOKEN_NOT_ACTIVATED", false, 47.0).finds(&[Kind::FalseRefusal]);
    story("TOKEN_EXPIRED", false, 49.0).finds(&[Kind::FalseRefusal]);
    // Nobody knows whether the first attempt has taken the seat.
    let mut unkeyed = Story::new();
    let fan = unkeyed.joins(9, 9, 10.0);
    let held = unkeyed.told.asks(Order { user: 9, what: Story::hold(&[90]), key: None });
    unkeyed.told.hears(held, silent(true));
    unkeyed.told.hears(held, refused("SEAT_TAKEN"));
    unkeyed.told.judge_hold(fan, held, false);
    unkeyed.finds(&[]);
    let pay = |attempts: Vec<Attempt>| {
        let mut story = Story::whole();
        let order =
            Order { user: 4, what: What::Pay { reservation: 4 }, key: Some("key".to_owned()) };
        let id = story.told.asks(order);
        for attempt in attempts {
            story.told.hears(id, attempt);
        }
        story.told.judge_payment(id);
        story
    };
    pay(vec![refused("HOLD_EXPIRED")]).finds(&[]);
    pay(vec![refused("TOKEN_SPENT")]).finds(&[Kind::FalseRefusal]);
    // The same key must get the answer of its own payment.
    pay(vec![silent(true), refused("ALREADY_PAID")]).finds(&[Kind::FalseRefusal]);
    pay(vec![silent(true), refused("HOLD_EXPIRED")]).finds(&[]);
}

#[test]
fn what_the_drill_itself_sees_is_kept_and_counted() {
    let all = [
        (Finding::EventsWait { count: 3 }, Kind::EventLost),
        (Finding::LocksLeft { count: 1 }, Kind::LockLeft),
        (
            Finding::ServerError { request: "GET /".to_owned(), answer: "500".to_owned() },
            Kind::ServerError,
        ),
        (
            Finding::ClientError { request: "GET /".to_owned(), answer: "404".to_owned() },
            Kind::ClientError,
        ),
        (Finding::Audit { instance: "a".to_owned(), said: "I1".to_owned() }, Kind::Audit),
        (Finding::Died { instance: "a".to_owned(), code: -9, log: String::new() }, Kind::Died),
        (Finding::Drill { what: "a mistake".to_owned() }, Kind::Drill),
    ];
    let mut story = Story::whole();
    for (finding, kind) in &all {
        story.told.note(1.0, finding.clone());
        assert_eq!(finding.kind(), *kind);
        assert!(Kind::GROUPS.contains(&kind.group()));
    }
    let expected: Vec<Finding> = all.into_iter().map(|(finding, _)| finding).collect();
    assert_eq!(story.found(), expected);
    assert_eq!(Kind::LockLeft.to_string(), "lock left");
}
