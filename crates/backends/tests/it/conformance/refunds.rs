//! Refunds.

use std::time::Duration;

use boxoffice_backends::Error;
use boxoffice_backends::store::{
    Act, CalledOff, Effect, Note, Pay, Payment, Refund, RefundRefused, ReservationRejected,
    Reserve, ReserveRejected, Store,
};
use boxoffice_domain::ids::PaymentId;
use boxoffice_domain::points::BALANCE_MAX;
use boxoffice_domain::sales::{
    HoldRejected, RefundRejected, Reservation, ReservationState, SeatState, SettleRejected,
};
use boxoffice_domain::time::Timestamp;

use super::acts::{effect, note};
use super::{
    PRICE, START, Sale, Subject, assert_clean, at, at_once, charge, count_events, key, pay, sale,
    session_of, ticket, user, waiting_events,
};

const REFUNDED: &str = "concert.payment-refunded";
/// Sessions of [`sale`] begin then.
const BEGINS_MS: i64 = 80_000_000;

/// Asks for a refund, up to an hour before the session.
pub(crate) fn refund(
    by: i64,
    (reservation, payment): &(Reservation, Payment),
    now: Timestamp,
) -> Refund {
    Refund {
        payment: payment.id,
        reservation: reservation.id,
        of: (reservation.concert, reservation.session),
        user: user(by),
        ends_before: Duration::from_secs(3_600),
        release_delay: Duration::ZERO,
        idempotency: None,
        now,
    }
}

fn refused<T>(why: RefundRejected) -> Result<T, Error<RefundRefused>> {
    Err(Error::Rejected(RefundRefused::Refund(why)))
}

/// Seats that nobody has.
fn free(store: &Store, sale: &Sale) -> usize {
    (0..sale.seats.len()).filter(|seat| sale.owner(store, *seat) == SeatState::Available).count()
}

/// The points come back, the seats are free, the event tells it; once, whoever asks how often.
pub(crate) async fn a_refund_gives_back_points_and_seats_once(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 6).await;
    let bought = sale.bought(store, 1, &[0, 1]).await;
    let kept = sale.bought(store, 2, &[2]).await;
    store.charge(charge(1, 7, START)).await.unwrap();
    let asked = Refund { idempotency: key("back", 1), ..refund(1, &bought, at(5)) };
    let done = store.refund(asked.clone()).await.unwrap();
    assert!(!done.replayed);
    let expected = (bought.1.id, bought.0.id, 2 * PRICE, at(5));
    let told = done.value;
    assert_eq!((told.payment, told.reservation, told.amount, told.refunded_at), expected);
    assert_eq!(store.balance(user(1)).await, Ok(7 + 2 * PRICE));
    assert_eq!(free(store, &sale), 5);
    let (stored, _) = store.reservation(bought.0.id).await.unwrap().unwrap();
    assert_eq!(stored.state, ReservationState::Refunded { payment: bought.1.id });
    let event = waiting_events(store).await.pop().unwrap();
    assert_eq!(
        (event.0.as_str(), &event.1["data"]["refundAmount"]),
        (REFUNDED, &(2 * PRICE).into())
    );
    assert_clean(store, at(6)).await;

    let subject = subject.reopened().await;
    let store = &subject.store;
    for again in [
        asked.clone(),
        refund(1, &bought, at(9)),
        Refund { idempotency: key("another", 2), ..refund(1, &bought, at(9)) },
    ] {
        let again = store.refund(again).await.unwrap();
        assert_eq!((again.replayed, again.value), (true, told));
    }
    let other = Refund { idempotency: key("back", 2), ..refund(1, &bought, at(9)) };
    assert_eq!(store.refund(other).await, Err(Error::Rejected(RefundRefused::KeyReused)));
    assert_eq!(store.balance(user(1)).await, Ok(7 + 2 * PRICE));
    assert_eq!(count_events(store, REFUNDED).await, 1);
    // What was refunded is neither paid again nor given back; its seats are the next buyer's.
    let refunded = || Err(Error::Rejected(ReservationRejected::Settle(SettleRejected::Refunded)));
    let another = Pay { ticket: ticket(1001), ..pay(1, bought.0.id, at(9)) };
    assert_eq!(store.pay(another).await, refunded());
    assert_eq!(store.cancel(bought.0.id, user(1), at(9)).await, refunded().map(|_| ()));
    let next = sale.bought(store, 3, &[0, 1]).await;
    // The first refund does not free what somebody else has bought since.
    store.refund(refund(1, &bought, at(10))).await.unwrap();
    assert_eq!(sale.owner(store, 0), SeatState::Sold { reservation: next.0.id });
    assert_eq!(sale.owner(store, 2), SeatState::Sold { reservation: kept.0.id });
    assert_clean(store, at(11)).await;
}

/// Twice at once is once.
pub(crate) async fn of_refunds_at_once_one_gives_points(Subject { store, .. }: Subject) {
    let sale = sale(&store, 20).await;
    let mut asked = Vec::new();
    for by in 1..=5 {
        let bought = sale.bought(&store, by, &[by as usize]).await;
        for n in 0..4 {
            let idempotency = if n < 2 { key(&format!("refund-{n}"), 1) } else { None };
            asked.push((store.clone(), Refund { idempotency, ..refund(by, &bought, at(5)) }));
        }
    }
    let asked =
        asked.into_iter().map(|(store, request)| async move { store.refund(request).await });
    let answers = at_once(asked).await;
    let first = answers.iter().filter(|answer| !answer.as_ref().unwrap().replayed).count();
    assert_eq!((first, answers.len()), (5, 20));
    for by in 1..=5 {
        assert_eq!(store.balance(user(by)).await, Ok(PRICE));
    }
    assert_eq!(count_events(&store, REFUNDED).await, 5);
    assert_eq!(free(&store, &sale), 20);
    assert_clean(&store, at(6)).await;
}

/// Nobody refunds another's, or too late, or what is not paid, or over the largest balance.
pub(crate) async fn a_refund_that_is_refused_changes_nothing(Subject { store, .. }: Subject) {
    let sale = sale(&store, 6).await;
    let bought = sale.bought(&store, 1, &[0]).await;
    let held = sale.held(&store, 2, &[1]).await;
    let ask = |request: Refund| {
        let store = store.clone();
        async move { store.refund(request).await }
    };
    assert_eq!(ask(refund(2, &bought, at(1))).await, refused(RefundRejected::NotYours));
    let until = at(BEGINS_MS - 3_600_000);
    let other = PaymentId::new(bought.1.id.get() + 1).unwrap();
    let not_paid = (held, Payment { id: other, ..bought.1 });
    assert_eq!(ask(refund(2, &not_paid, at(1))).await, refused(RefundRejected::NotPaid));
    let by_other = Refund { payment: other, ..refund(1, &bought, at(1)) };
    assert_eq!(ask(by_other).await, refused(RefundRejected::NotPaid));
    store.charge(charge(1, BALANCE_MAX - PRICE + 1, at(1))).await.unwrap();
    assert_eq!(ask(refund(1, &bought, at(2))).await, refused(RefundRejected::Overflow));
    assert_eq!(store.balance(user(1)).await, Ok(BALANCE_MAX - PRICE + 1));
    // A point less, and it goes: spent for a seat of the same price.
    let next = Reserve { ticket: ticket(1001), ..sale.reserve(1, &[2], at(2)) };
    let next = store.reserve(next).await.unwrap().value;
    let paid = Pay { ticket: ticket(1001), ..pay(1, next.id, at(2)) };
    store.pay(paid).await.unwrap();
    assert_eq!(ask(refund(1, &bought, until)).await, refused(RefundRejected::TooLate { until }));
    assert_eq!(count_events(&store, REFUNDED).await, 0);
    assert_clean(&store, until).await;
}

/// The limit is exact to the millisecond.
pub(crate) async fn a_refund_ends_to_the_millisecond(Subject { store, .. }: Subject) {
    let sale = sale(&store, 2).await;
    let bought = sale.bought(&store, 1, &[0]).await;
    let until = at(BEGINS_MS - 3_600_000);
    let delayed = Refund {
        release_delay: Duration::from_secs(9),
        ..refund(1, &bought, Timestamp(until.0 - 1))
    };
    store.refund(delayed).await.unwrap();
    let free_at = Timestamp(until.0 - 1 + 9_000);
    assert_eq!(sale.owner(&store, 0), SeatState::Released { until: free_at });
    // Asked again after the limit, the answer is the same.
    let again = store.refund(refund(1, &bought, at(BEGINS_MS))).await.unwrap();
    assert!(again.replayed);
    assert_clean(&store, at(BEGINS_MS)).await;
}

/// Nothing is held or paid of a session that was called off; what was comes to an end, once, over a
/// restart in the middle, and other sessions sell on.
pub(crate) async fn a_session_called_off_gives_everything_back(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 40).await;
    let other = session_of(store, sale.concert, 4).await;
    let mut bought = Vec::new();
    for by in 1..=9 {
        bought.push(sale.bought(store, by, &[by as usize]).await);
    }
    let elsewhere = other.bought(store, 30, &[0]).await;
    let held = sale.held(store, 20, &[20, 21]).await;
    let gone = sale.held(store, 21, &[22]).await;
    store.cancel(gone.id, user(21), at(1)).await.unwrap();
    // One who paid has as many points as anybody may have.
    store.charge(charge(1, BALANCE_MAX, at(1))).await.unwrap();
    store.charge(charge(20, 10 * PRICE, at(1))).await.unwrap();
    // Before it is called off nothing is settled.
    let all = |bought: &[(Reservation, Payment)]| {
        let mut ids: Vec<_> = bought.iter().map(|(reservation, _)| reservation.id).collect();
        ids.extend([held.id, gone.id, elsewhere.0.id]);
        ids
    };
    let settled = store.settle_called_off(&all(&bought), at(2)).await.unwrap();
    assert!(settled.iter().all(|what| *what == CalledOff::Nothing), "{settled:?}");

    for ms in [3, 4] {
        let act = Act::CallOff(sale.concert, Some(sale.session));
        let told = effect(store, act, Note { at: at(ms), ..note("call_off") }).await;
        let before = usize::from(ms > 3);
        let (concert, session) = (sale.concert, Some(sale.session));
        let expected = Effect::CalledOff { concert, session, before, after: 1, at: at(ms) };
        assert_eq!(told, expected);
    }
    let inventory =
        |store: &Store| store.catalog().inventory(sale.concert, sale.session).unwrap().clone();
    assert_eq!(inventory(store).called_off(), Some(at(3)), "what was said first stays");
    let off = HoldRejected::SessionCancelled;
    let answer = store.reserve(sale.reserve(31, &[30], at(5))).await;
    assert_eq!(answer, Err(Error::Rejected(ReserveRejected::Hold(off))));
    let off = ReservationRejected::Settle(SettleRejected::SessionCancelled);
    assert_eq!(store.pay(pay(20, held.id, at(5))).await, Err(Error::Rejected(off)));
    other.held(store, 32, &[1]).await;

    let first: Vec<_> = bought[..4].iter().map(|(reservation, _)| reservation.id).collect();
    let settled = store.settle_called_off(&first, at(6)).await.unwrap();
    let refunded = CalledOff::Refunded;
    assert_eq!(settled, [CalledOff::Overflow, refunded, refunded, refunded]);
    assert_clean(store, at(7)).await;

    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(inventory(store).called_off(), Some(at(3)));
    let answer = store.reserve(sale.reserve(31, &[30], at(8))).await;
    assert!(answer.is_err(), "{answer:?}");
    // As whoever goes on sees them, and twice at once.
    let owners = inventory(store).owners();
    assert_eq!(owners.len(), 7);
    let both = at_once([1, 2].map(|_| {
        let (store, owners) = (store.clone(), owners.clone());
        async move { store.settle_called_off(&owners, at(9)).await.unwrap() }
    }))
    .await;
    for (nth, reservation) in owners.iter().enumerate() {
        let told = [both[0][nth], both[1][nth]];
        let one = |what| told.iter().filter(|told| **told == what).count();
        if *reservation == bought[0].0.id {
            assert_eq!((one(CalledOff::Refunded), one(CalledOff::Ended)), (0, 0));
        } else if *reservation == held.id {
            assert_eq!(one(CalledOff::Ended), 1, "{told:?}");
        } else {
            assert_eq!(one(CalledOff::Refunded), 1, "{told:?}");
        }
    }
    assert_eq!(inventory(store).owners(), [bought[0].0.id]);
    for by in 2..=9 {
        assert_eq!(store.balance(user(by)).await, Ok(PRICE), "user {by}");
    }
    assert_eq!(store.refunded(sale.session).await, Ok(8));
    assert_eq!(store.refunded(other.session).await, Ok(0));
    assert_eq!(count_events(store, REFUNDED).await, 8);
    // With room for the points the last one comes back too.
    let next = Reserve { ticket: ticket(1001), ..other.reserve(1, &[2], at(10)) };
    let next = store.reserve(next).await.unwrap().value;
    store.pay(Pay { ticket: ticket(1001), ..pay(1, next.id, at(10)) }).await.unwrap();
    let settled = store.settle_called_off(&all(&bought), at(11)).await.unwrap();
    assert_eq!(settled.iter().filter(|what| **what == CalledOff::Refunded).count(), 1);
    assert_eq!(store.balance(user(1)).await, Ok(BALANCE_MAX));
    assert_eq!(free(store, &sale), 40);
    let kept = SeatState::Sold { reservation: elsewhere.0.id };
    assert_eq!(other.owner(store, 0), kept);
    assert_clean(store, at(12)).await;
}
