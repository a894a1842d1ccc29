//! The same request under the same key is the same request.

use std::time::Duration;

use boxoffice_domain::ids::UserId;
use boxoffice_domain::sales::{HoldRejected, ReservationState, SettleRejected};

use super::{
    HOLD_MS, PRICE, START, Subject, assert_clean, at, at_once, charge, key, pay, sale, user,
};
use boxoffice_backends::Error;
use boxoffice_backends::store::{
    Answer, Charge, Pay, PointsRejected, ReservationRejected, Reserve, ReserveRejected,
};

fn reserve_with(request: Reserve, name: &str, fingerprint: u8) -> Reserve {
    Reserve { idempotency: key(name, fingerprint), ..request }
}

fn pay_with(request: Pay, name: &str, fingerprint: u8) -> Pay {
    Pay { idempotency: key(name, fingerprint), ..request }
}

fn charge_with(request: Charge, name: &str, fingerprint: u8) -> Charge {
    Charge { idempotency: key(name, fingerprint), ..request }
}

fn again<T>(answer: Answer<T>) -> Answer<T> {
    assert!(!answer.replayed);
    Answer { replayed: true, ..answer }
}

/// A repeated reserve gets the hold it got first, whether that is live, over, given back or paid.
pub(crate) async fn a_repeated_reserve_gets_the_first_answer(Subject { store, .. }: Subject) {
    let sale = sale(&store, 3).await;
    let requests = [0, 1, 2].map(|n: usize| {
        reserve_with(sale.reserve(n as i64 + 1, &[n], at(n as i64)), "reserve", n as u8)
    });
    let mut answers = Vec::new();
    for request in &requests {
        answers.push(again(store.reserve(request.clone()).await.unwrap()));
    }
    let repeat = async |now| {
        for (request, answer) in requests.iter().zip(&answers) {
            // The time is not part of what was asked.
            let request = Reserve { now, ..request.clone() };
            assert_eq!(store.reserve(request).await.as_ref(), Ok(answer));
        }
    };
    repeat(at(10)).await;
    store.cancel(answers[0].value.id, user(1), at(11)).await.unwrap();
    store.charge(charge(2, PRICE, at(11))).await.unwrap();
    store.pay(pay(2, answers[1].value.id, at(11))).await.unwrap();
    repeat(at(12)).await;
    assert_eq!(store.expire_due(at(HOLD_MS + 2), 10).await, Ok(1));
    repeat(at(HOLD_MS + 3)).await;
    // Someone else has the seat by now.
    store.reserve(sale.reserve(9, &[0], at(HOLD_MS + 4))).await.unwrap();
    repeat(at(HOLD_MS + 5)).await;
    let until = at(1 + HOLD_MS);
    assert_eq!(answers[1].value.state, ReservationState::Held { until });
    assert_eq!(super::count_events(&store, "concert.concert-reserved").await, 4);
    assert_clean(&store, at(HOLD_MS + 5)).await;
}

/// A repeated payment gets the payment it made, though ticket and reservation are used up.
pub(crate) async fn a_repeated_payment_gets_the_first_answer(Subject { store, .. }: Subject) {
    let sale = sale(&store, 1).await;
    let held = sale.held(&store, 1, &[0]).await;
    store.charge(charge(1, 3 * PRICE, START)).await.unwrap();
    let request = pay_with(pay(1, held.id, at(5)), "pay", 1);
    let answer = again(store.pay(request.clone()).await.unwrap());
    assert_eq!(answer.value.paid_at, at(5));
    for now in [at(5), at(6), at(2 * HOLD_MS)] {
        let repeated = store.pay(Pay { now, ..request.clone() }).await;
        assert_eq!(repeated.as_ref(), Ok(&answer));
    }
    assert_eq!(store.balance(user(1)).await, Ok(2 * PRICE));
    assert_eq!(super::count_events(&store, "concert.payment-completed").await, 1);
    assert_clean(&store, at(6)).await;
}

/// A repeated charge gets the balance of then, though the balance has moved on.
pub(crate) async fn a_repeated_charge_gets_the_first_answer(Subject { store, .. }: Subject) {
    store.charge(charge(1, 5, START)).await.unwrap();
    let request = charge_with(charge(1, 10, START), "charge", 1);
    let answer = again(store.charge(request.clone()).await.unwrap());
    assert_eq!(answer.value, 15);
    store.charge(charge(1, 100, START)).await.unwrap();
    assert_eq!(store.charge(request).await, Ok(answer));
    assert_eq!(store.balance(user(1)).await, Ok(115));
    assert_eq!(super::count_events(&store, "user.point-charged").await, 3);
    assert_clean(&store, START).await;
}

/// Another body under the same key is refused, and so is another kind of request.
pub(crate) async fn a_key_is_for_one_request(Subject { store, .. }: Subject) {
    let sale = sale(&store, 2).await;
    let hold = reserve_with(sale.reserve(1, &[0], START), "k1", 1);
    let held = store.reserve(hold.clone()).await.unwrap().value;
    store.charge(charge_with(charge(1, PRICE, START), "k2", 2)).await.unwrap();
    store.pay(pay_with(pay(1, held.id, START), "k3", 3)).await.unwrap();

    for name in ["k1", "k2", "k3"] {
        let other = reserve_with(sale.reserve(1, &[1], START), name, 9);
        let answer = store.reserve(other).await;
        assert_eq!(answer, Err(Error::Rejected(ReserveRejected::KeyReused)), "{name}");
        let answer = store.charge(charge_with(charge(1, 1, START), name, 9)).await;
        assert_eq!(answer, Err(Error::Rejected(PointsRejected::KeyReused)), "{name}");
        let answer = store.pay(pay_with(pay(1, held.id, START), name, 9)).await;
        assert_eq!(answer, Err(Error::Rejected(ReservationRejected::KeyReused)), "{name}");
    }
    // Nothing came of those, and the right body is still answered.
    assert!(store.reserve(hold).await.unwrap().replayed);
    assert_eq!(store.balance(user(1)).await, Ok(0));
    // A key differs in every character, its case too.
    assert!(!store.charge(charge_with(charge(1, 1, START), "K1", 9)).await.unwrap().replayed);
    assert_clean(&store, START).await;
}

/// Two users may use the same key for anything.
pub(crate) async fn keys_of_two_users_are_independent(Subject { store, .. }: Subject) {
    let sale = sale(&store, 2).await;
    let one = reserve_with(sale.reserve(1, &[0], START), "same", 1);
    let two = reserve_with(sale.reserve(2, &[1], START), "same", 1);
    let one = store.reserve(one).await.unwrap();
    let two = store.reserve(two).await.unwrap();
    assert!(!one.replayed && !two.replayed);
    assert_ne!(one.value.id, two.value.id);
    let three = store.charge(charge_with(charge(3, 7, START), "same", 2)).await.unwrap();
    assert_eq!((three.value, three.replayed), (7, false));
    assert_clean(&store, START).await;
}

/// A client that lost the answer with the connection still gets it after a restart.
pub(crate) async fn keys_survive_a_reopen(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 1).await;
    let hold = reserve_with(sale.reserve(1, &[0], START), "reserve", 1);
    let held = again(store.reserve(hold.clone()).await.unwrap());
    let points = charge_with(charge(1, PRICE, START), "charge", 2);
    let charged = again(store.charge(points.clone()).await.unwrap());
    let payment = pay_with(pay(1, held.value.id, START), "pay", 3);
    let paid = again(store.pay(payment.clone()).await.unwrap());

    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(store.reserve(hold.clone()).await, Ok(held));
    assert_eq!(store.charge(points).await, Ok(charged));
    assert_eq!(store.pay(payment).await, Ok(paid));
    let other = reserve_with(hold, "reserve", 9);
    assert_eq!(store.reserve(other).await, Err(Error::Rejected(ReserveRejected::KeyReused)));
    assert_clean(store, START).await;
}

/// Keys older than the time to keep go, oldest first and no more than asked for.
pub(crate) async fn old_keys_are_forgotten_to_the_millisecond(Subject { store, .. }: Subject) {
    let request = |n: i64| charge_with(charge(1, 1, at(n)), &format!("k{n}"), 1);
    for n in 0..5 {
        store.charge(request(n)).await.unwrap();
    }
    let keep = Duration::from_millis(100);
    assert_eq!(store.forget_keys(at(100), keep, 10).await, Ok(0));
    assert_eq!(store.forget_keys(at(104), keep, 3).await, Ok(3));
    assert_eq!(store.forget_keys(at(104), keep, 3).await, Ok(1));
    assert_eq!(store.forget_keys(at(104), keep, 3).await, Ok(0));
    assert!(store.charge(request(4)).await.unwrap().replayed);
    for n in 0..4 {
        assert!(!store.charge(request(n)).await.unwrap().replayed, "k{n}");
    }
    assert_eq!(store.balance(user(1)).await, Ok(9));
    assert_eq!(store.forget_keys(at(0), Duration::MAX, 10).await, Ok(0));
    assert_clean(&store, START).await;
}

/// One request sent many times at once is done once, and everybody gets the same answer.
pub(crate) async fn one_key_at_once_does_one_thing(Subject { store, .. }: Subject) {
    const TIMES: usize = 16;
    async fn all_the_same<T, F>(requests: impl Iterator<Item = F>)
    where
        T: PartialEq + std::fmt::Debug + Send + 'static,
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let answers = at_once(requests).await;
        assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
        assert!(answers.windows(2).all(|w| w[0].value == w[1].value), "{answers:?}");
    }
    let sale = sale(&store, 1).await;
    let request = reserve_with(sale.reserve(1, &[0], START), "reserve", 1);
    let reserve = |_| {
        let (store, request) = (store.clone(), request.clone());
        async move { store.reserve(request).await.unwrap() }
    };
    all_the_same((0..TIMES).map(reserve)).await;
    let request = charge_with(charge(1, PRICE, START), "charge", 1);
    let charges = |_| {
        let (store, request) = (store.clone(), request.clone());
        async move { store.charge(request).await.unwrap() }
    };
    all_the_same((0..TIMES).map(charges)).await;
    let seat = sale.owner(&store, 0);
    let boxoffice_domain::sales::SeatState::Held { reservation, .. } = seat else {
        panic!("{seat:?}");
    };
    let request = pay_with(pay(1, reservation, START), "pay", 1);
    let pays = |_| {
        let (store, request) = (store.clone(), request.clone());
        async move { store.pay(request).await.unwrap() }
    };
    all_the_same((0..TIMES).map(pays)).await;
    assert_eq!(store.balance(user(1)).await, Ok(0));
    assert_clean(&store, START).await;
}

/// A refusal leaves the key free: what was missing may be there by the next try.
pub(crate) async fn a_refusal_is_not_remembered(Subject { store, .. }: Subject) {
    let sale = sale(&store, 1).await;
    let first = sale.held(&store, 2, &[0]).await;
    let hold = reserve_with(sale.reserve(1, &[0], START), "reserve", 1);
    let taken = ReserveRejected::Hold(HoldRejected::SeatTaken(sale.seats[0]));
    assert_eq!(store.reserve(hold.clone()).await, Err(Error::Rejected(taken)));
    store.cancel(first.id, user(2), START).await.unwrap();
    let held = store.reserve(hold).await.unwrap();
    assert!(!held.replayed);

    let payment = pay_with(pay(1, held.value.id, START), "pay", 2);
    let short = SettleRejected::NotEnoughPoints { balance: 0, due: PRICE };
    let refused = Err(Error::Rejected(ReservationRejected::Settle(short)));
    assert_eq!(store.pay(payment.clone()).await, refused);
    store.charge(charge(1, PRICE, START)).await.unwrap();
    assert!(!store.pay(payment).await.unwrap().replayed);
    assert_clean(&store, START).await;
}

/// Whoever is known to be out of time may still ask what became of the request, and no more.
pub(crate) async fn a_ticket_that_is_over_only_gets_earlier_answers(
    Subject { store, .. }: Subject,
) {
    let sale = sale(&store, 2).await;
    let request = reserve_with(sale.reserve(1, &[0], START), "reserve", 1);
    let answer = again(store.reserve(request.clone()).await.unwrap());
    let over = Reserve { ticket_over: true, ..request };
    assert_eq!(store.reserve(over.clone()).await, Ok(answer));
    let spent = Err(Error::Rejected(ReserveRejected::Hold(HoldRejected::TicketSpent)));
    let fresh = Reserve { seats: vec![sale.seats[1]], ..reserve_with(over.clone(), "other", 2) };
    assert_eq!(store.reserve(fresh.clone()).await, spent);
    let by_another: UserId = user(2);
    assert_eq!(store.reserve(Reserve { user: by_another, ..fresh }).await, spent);
    assert_eq!(super::count_events(&store, "concert.concert-reserved").await, 1);
    assert_clean(&store, START).await;
}
