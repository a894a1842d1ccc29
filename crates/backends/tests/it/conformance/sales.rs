//! Seats, holds and payments.

use std::time::Duration;

use boxoffice_domain::ids::{ConcertId, QueueName, ReservationId, SeatId, SessionId, TicketId};
use boxoffice_domain::invariant::Invariant;
use boxoffice_domain::sales::{
    HoldRejected, Limits, Reservation, ReservationState, SeatState, SettleRejected,
};
use boxoffice_domain::time::Timestamp;

use super::{
    HOLD_MS, PRICE, START, Sale, Subject, assert_clean, at, at_once, charge, count_events, key,
    limits, main_queue, pay, sale, session_of, ticket, user, waiting_rows,
};
use boxoffice_backends::Error;
use boxoffice_backends::store::{
    CLOCK_BOUND_MS, Cancel, Pay, ReservationRejected, Reserve, ReserveRejected, Store, TicketRef,
};

const RESERVED: &str = "concert.concert-reserved";
const ENDED: &str = "concert.reservation-cancelled";
const PAID: &str = "concert.payment-completed";

fn no_hold<T>(why: HoldRejected) -> Result<T, Error<ReserveRejected>> {
    Err(Error::Rejected(ReserveRejected::Hold(why)))
}

fn not_settled<T>(why: SettleRejected) -> Result<T, Error<ReservationRejected>> {
    Err(Error::Rejected(ReservationRejected::Settle(why)))
}

/// A request that cannot have every seat gets none, and leaves nothing behind.
pub(crate) async fn reserve_takes_all_seats_or_none(Subject { store, .. }: Subject) {
    let sale = sale(&store, 5).await;
    let other = session_of(&store, sale.concert, 1).await;
    let first = sale.held(&store, 1, &[2]).await;
    let answer = store.reserve(sale.reserve(2, &[0, 1, 2, 3], START)).await;
    assert_eq!(answer, no_hold(HoldRejected::SeatTaken(sale.seats[2])));
    let mut request = sale.reserve(2, &[0, 1], START);
    request.seats.push(other.seats[0]);
    let answer = store.reserve(request.clone()).await;
    assert_eq!(answer, no_hold(HoldRejected::NoSuchSeat(other.seats[0])));
    request.seats = vec![sale.seats[0], sale.seats[0]];
    let answer = store.reserve(request.clone()).await;
    assert_eq!(answer, no_hold(HoldRejected::DuplicateSeat(sale.seats[0])));
    request.seats = vec![];
    assert_eq!(store.reserve(request.clone()).await, no_hold(HoldRejected::NoSeats));
    request.seats = sale.seats.clone();
    assert_eq!(store.reserve(request).await, no_hold(HoldRejected::TooManySeats { max: 4 }));
    for free in [0, 1, 3, 4] {
        assert_eq!(sale.owner(&store, free), SeatState::Available, "seat {free}");
    }
    assert_eq!(count_events(&store, RESERVED).await, 1);

    // In the order asked for, at the price of each.
    let second = store.reserve(sale.reserve(2, &[4, 0, 3, 1], at(7))).await.unwrap().value;
    let items: Vec<_> = second.items.iter().map(|i| (i.seat, i.number, i.price)).collect();
    let expected = [4, 0, 3, 1].map(|index| (sale.seats[index], index as u32 + 1, PRICE));
    assert_eq!(items, expected);
    assert_eq!(second.state, ReservationState::Held { until: at(7 + HOLD_MS) });
    assert_eq!(
        (second.user, second.concert, second.session),
        (user(2), sale.concert, sale.session)
    );
    assert_eq!(second.created_at, at(7));
    assert_ne!(first.id, second.id);
    let stored = store.reservation(second.id).await.unwrap();
    assert_eq!(stored, Some((second, at(7 + HOLD_MS))));
    assert_clean(&store, at(7)).await;
}

/// Neither a held nor a sold seat goes to anybody else, nor to its owner again.
pub(crate) async fn a_seat_has_one_owner(Subject { store, .. }: Subject) {
    let sale = sale(&store, 2).await;
    sale.held(&store, 1, &[0]).await;
    sale.bought(&store, 2, &[1]).await;
    for by in [1, 3] {
        for seat in [0, 1] {
            let answer = store.reserve(sale.reserve(by, &[seat], at(1))).await;
            assert_eq!(answer, no_hold(HoldRejected::SeatTaken(sale.seats[seat])), "{by} {seat}");
        }
    }
    // A sold seat does not come back when the hold would have run out.
    assert_eq!(store.expire_due(at(HOLD_MS), 10).await, Ok(1));
    let answer = store.reserve(sale.reserve(3, &[1], at(HOLD_MS))).await;
    assert_eq!(answer, no_hold(HoldRejected::SeatTaken(sale.seats[1])));
    assert_clean(&store, at(HOLD_MS)).await;
}

/// A seat whose hold ran out goes to the next buyer at once, swept or not.
pub(crate) async fn an_expired_hold_is_free_to_the_millisecond(Subject { store, .. }: Subject) {
    let sale = sale(&store, 2).await;
    let first = sale.held(&store, 1, &[0, 1]).await;
    let answer = store.reserve(sale.reserve(2, &[0], at(HOLD_MS - 1))).await;
    assert_eq!(answer, no_hold(HoldRejected::SeatTaken(sale.seats[0])));
    let second = store.reserve(sale.reserve(2, &[0], at(HOLD_MS))).await.unwrap().value;
    let held = |reservation, until| SeatState::Held { reservation, until };
    assert_eq!(sale.owner(&store, 0), held(second.id, at(2 * HOLD_MS)));
    assert_clean(&store, at(HOLD_MS)).await;

    // The sweep ends the first hold and leaves the seat that has gone on.
    assert_eq!(store.expire_due(at(HOLD_MS), 10).await, Ok(1));
    assert_eq!(sale.owner(&store, 0), held(second.id, at(2 * HOLD_MS)));
    assert_eq!(sale.owner(&store, 1), SeatState::Available);
    let (stored, until) = store.reservation(first.id).await.unwrap().unwrap();
    assert_eq!((stored.state, until), (ReservationState::Expired, at(HOLD_MS)));
    store.charge(charge(2, PRICE, START)).await.unwrap();
    store.pay(pay(2, second.id, at(HOLD_MS))).await.unwrap();
    assert_clean(&store, at(HOLD_MS)).await;
}

/// Where instances share the store, whoever gave a seat to the next buyer may have had a clock that was ahead; a
/// process that is alone has no other clock. A hold that had longer to live is a seat of two all the same.
pub(crate) async fn an_audit_allows_for_clocks_that_are_ahead(Subject { store, .. }: Subject) {
    let sale = sale(&store, 1).await;
    sale.held(&store, 1, &[0]).await;
    store.reserve(sale.reserve(2, &[0], at(HOLD_MS))).await.unwrap();
    let bound_ms = if store.clock_check().is_some() { CLOCK_BOUND_MS } else { 0 };
    assert_clean(&store, at(HOLD_MS - bound_ms)).await;
    let audit = store.audit(at(HOLD_MS - bound_ms - 1)).await.unwrap();
    let one_owner = audit.iter().find(|finding| finding.invariant == Invariant::OneOwner);
    assert_eq!(one_owner.unwrap().violations, 1, "{audit:?}");
}

/// A hold can be paid or given back until the millisecond in which it runs out.
pub(crate) async fn an_expired_hold_is_not_payable_to_the_millisecond(
    Subject { store, .. }: Subject,
) {
    let sale = sale(&store, 4).await;
    let first = sale.held(&store, 1, &[0]).await;
    let second = sale.held(&store, 2, &[1]).await;
    let third = sale.held(&store, 3, &[2]).await;
    let fourth = sale.held(&store, 4, &[3]).await;
    for by in [1, 2] {
        store.charge(charge(by, PRICE, START)).await.unwrap();
    }
    store.pay(pay(2, second.id, at(HOLD_MS - 1))).await.unwrap();
    store.cancel(third.id, user(3), at(HOLD_MS - 1)).await.unwrap();
    let expired = SettleRejected::Expired;
    let late = store.pay(pay(1, first.id, at(HOLD_MS))).await;
    assert_eq!(late, not_settled(expired));
    assert_eq!(store.cancel(fourth.id, user(4), at(HOLD_MS)).await, not_settled(expired));
    assert_eq!(store.balance(user(1)).await, Ok(PRICE));
    // After the sweep the answer is the same.
    assert_eq!(store.expire_due(at(HOLD_MS), 10).await, Ok(2));
    let late = store.pay(pay(1, first.id, at(HOLD_MS))).await;
    assert_eq!(late, not_settled(expired));
    assert_eq!(count_events(&store, ENDED).await, 3);
    assert_clean(&store, at(HOLD_MS)).await;
}

/// Requests reach the store in another order than they got their times. A payment from before the
/// end of a hold that comes after the next buyer took a seat of it comes too late.
pub(crate) async fn a_payment_that_comes_late_takes_no_seat_from_the_next_buyer(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 2).await;
    let first = sale.held(store, 1, &[0, 1]).await;
    let second = store.reserve(sale.reserve(2, &[1], at(HOLD_MS))).await.unwrap().value;
    for by in [1, 2] {
        store.charge(charge(by, 2 * PRICE, START)).await.unwrap();
    }
    let late = store.pay(pay(1, first.id, at(HOLD_MS - 1))).await;
    assert_eq!(late, not_settled(SettleRejected::Expired));
    assert_eq!(store.balance(user(1)).await, Ok(2 * PRICE));
    assert!(
        matches!(sale.owner(store, 1), SeatState::Held { reservation, .. } if reservation == second.id)
    );
    store.pay(pay(2, second.id, at(HOLD_MS + 1))).await.unwrap();
    let late = store.pay(pay(1, first.id, at(HOLD_MS - 1))).await;
    assert_eq!(late, not_settled(SettleRejected::Expired));
    let late = store.cancel(first.id, user(1), at(HOLD_MS - 1)).await;
    assert_eq!(late, not_settled(SettleRejected::Expired));
    // Tidying up frees what nobody took, and takes nothing from anybody either.
    assert_eq!(store.expire_due(at(HOLD_MS - 1), 10).await, Ok(1));
    assert_eq!(sale.owner(store, 0), SeatState::Available);
    assert_eq!(sale.owner(store, 1), SeatState::Sold { reservation: second.id });
    assert_clean(store, at(HOLD_MS + 1)).await;
}

/// Seats given back are free for the next buyer, and the hold is over for good.
pub(crate) async fn cancel_frees_the_seats(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 2).await;
    let first = sale.held(store, 1, &[0, 1]).await;
    store.charge(charge(1, 2 * PRICE, START)).await.unwrap();
    store.cancel(first.id, user(1), at(1)).await.unwrap();
    assert_eq!(sale.owner(store, 0), SeatState::Available);
    let cancelled = SettleRejected::Cancelled;
    assert_eq!(store.cancel(first.id, user(1), at(2)).await, not_settled(cancelled));
    assert_eq!(store.pay(pay(1, first.id, at(2))).await, not_settled(cancelled));
    let stored = store.reservation(first.id).await.unwrap().unwrap();
    assert_eq!((stored.0.state, stored.1), (ReservationState::Cancelled, at(HOLD_MS)));
    // The ticket is not spent by that, and the seats are there for others too.
    let again = store.reserve(sale.reserve(1, &[0], at(3))).await.unwrap().value;
    store.reserve(sale.reserve(2, &[1], at(3))).await.unwrap();
    store.pay(pay(1, again.id, at(3))).await.unwrap();
    assert_eq!(count_events(store, ENDED).await, 1);
    assert_eq!(store.expire_due(at(HOLD_MS), 10).await, Ok(0));
    assert_clean(store, at(4)).await;
    let subject = subject.reopened().await;
    assert_eq!(sale.owner(&subject.store, 0), SeatState::Sold { reservation: again.id });
    assert_clean(&subject.store, at(4)).await;
}

/// One payment: the points go, the seats are sold, the ticket is spent, and one event says so.
pub(crate) async fn payment_moves_points_sells_seats_and_spends_the_ticket(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 3).await;
    let held = sale.held(store, 1, &[0, 2]).await;
    store.charge(charge(1, 250, START)).await.unwrap();
    let answer = store.pay(pay(1, held.id, at(9))).await.unwrap();
    assert!(!answer.replayed);
    let payment = answer.value;
    assert_eq!((payment.reservation, payment.amount), (held.id, 2 * PRICE));
    assert_eq!(payment.paid_at, at(9));
    assert_eq!(store.balance(user(1)).await, Ok(50));
    let sold = SeatState::Sold { reservation: held.id };
    assert_eq!([0, 1, 2].map(|n| sale.owner(store, n)), [sold, SeatState::Available, sold]);
    let stored = store.reservation(held.id).await.unwrap().unwrap();
    assert_eq!(stored.0.state, ReservationState::Paid { payment: payment.id });
    assert_eq!(stored.0.items, held.items);
    assert_eq!(stored.1, at(HOLD_MS));
    let answer = store.reserve(sale.reserve(1, &[1], at(10))).await;
    assert_eq!(answer, no_hold(HoldRejected::TicketSpent));
    assert_eq!(count_events(store, PAID).await, 1);
    // Paid is paid: it is not given back, and it does not run out.
    let paid = SettleRejected::AlreadyPaid;
    assert_eq!(store.cancel(held.id, user(1), at(10)).await, not_settled(paid));
    assert_eq!(store.pay(pay(1, held.id, at(10))).await, not_settled(paid));
    assert_eq!(store.expire_due(at(HOLD_MS), 10).await, Ok(0));
    let late = store.pay(pay(1, held.id, at(HOLD_MS))).await;
    assert_eq!(late, not_settled(paid));
    assert_clean(store, at(10)).await;
}

/// Without enough points nothing happens: the hold stands and can be paid later.
pub(crate) async fn a_payment_that_is_refused_changes_nothing(Subject { store, .. }: Subject) {
    let sale = sale(&store, 1).await;
    let held = sale.held(&store, 1, &[0]).await;
    for balance in [0, PRICE - 1] {
        if balance > 0 {
            store.charge(charge(1, balance, START)).await.unwrap();
        }
        let answer = store.pay(pay(1, held.id, at(1))).await;
        assert_eq!(answer, not_settled(SettleRejected::NotEnoughPoints { balance, due: PRICE }));
        assert_eq!(store.balance(user(1)).await, Ok(balance));
    }
    let still = SeatState::Held { reservation: held.id, until: at(HOLD_MS) };
    assert_eq!(sale.owner(&store, 0), still);
    assert_eq!(count_events(&store, PAID).await, 0);
    store.charge(charge(1, 1, START)).await.unwrap();
    store.pay(pay(1, held.id, at(2))).await.unwrap();
    assert_eq!(store.balance(user(1)).await, Ok(0));
    assert_clean(&store, at(2)).await;
}

/// Five hundred at once, one seat: one has it and the others are told so.
pub(crate) async fn five_hundred_buyers_of_one_seat_and_one_gets_it(
    Subject { store, .. }: Subject,
) {
    let sale = sale(&store, 1).await;
    let buyers = (1..=500).map(|by| {
        let (store, request) = (store.clone(), sale.reserve(by, &[0], START));
        async move { store.reserve(request).await }
    });
    let answers = at_once(buyers).await;
    let taken = no_hold(HoldRejected::SeatTaken(sale.seats[0]));
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.into_iter().all(|answer| answer == taken));
    let owner = won.into_iter().next().unwrap().unwrap().value;
    let held = SeatState::Held { reservation: owner.id, until: at(HOLD_MS) };
    assert_eq!(sale.owner(&store, 0), held);
    assert_eq!(count_events(&store, RESERVED).await, 1);
    assert_clean(&store, START).await;
}

/// Requests that overlap in one seat each: whoever has one has all, and no two share a seat.
pub(crate) async fn overlapping_seats_at_once_go_to_one_buyer_whole(
    Subject { store, .. }: Subject,
) {
    const SEATS: usize = 12;
    let sale = sale(&store, SEATS as u32).await;
    let buyers = (0..60).map(|n: usize| {
        // Forwards and backwards, which is how two locks get taken crosswise.
        let mut seats = [n % SEATS, (n + 1) % SEATS, (n + 2) % SEATS];
        if n % 2 == 1 {
            seats.reverse();
        }
        let (store, request) = (store.clone(), sale.reserve(n as i64 + 1, &seats, START));
        async move { store.reserve(request).await }
    });
    let mut owned = 0;
    for answer in at_once(buyers).await {
        match answer {
            Ok(answer) => {
                for item in &answer.value.items {
                    let index = sale.seats.iter().position(|seat| *seat == item.seat).unwrap();
                    let owner = sale.owner(&store, index);
                    let held = SeatState::Held { reservation: answer.value.id, until: at(HOLD_MS) };
                    assert_eq!(owner, held);
                    owned += 1;
                }
            }
            Err(Error::Rejected(ReserveRejected::Hold(HoldRejected::SeatTaken(_)))) => {}
            Err(other) => panic!("{other}"),
        }
    }
    let held = (0..SEATS).filter(|n| sale.owner(&store, *n) != SeatState::Available).count();
    assert_eq!(held, owned);
    assert!(owned >= 6, "at least two of them fit in: {owned}");
    assert_clean(&store, START).await;
}

/// Three payments of one reservation at once: one is made, the others are told of it.
pub(crate) async fn three_payments_at_once_and_one_counts(Subject { store, .. }: Subject) {
    let sale = sale(&store, 10).await;
    for n in 0..10 {
        let by = n as i64 + 1;
        let held = sale.held(&store, by, &[n]).await;
        store.charge(charge(by, 5 * PRICE, START)).await.unwrap();
        let payments = (0..3).map(|_| {
            let (store, request) = (store.clone(), pay(by, held.id, at(1)));
            async move { store.pay(request).await }
        });
        let answers = at_once(payments).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        for answer in answers.into_iter().filter(Result::is_err) {
            let paid = not_settled(SettleRejected::AlreadyPaid);
            assert!(answer == paid || answer == not_settled(SettleRejected::TicketSpent));
        }
        assert_eq!(store.balance(user(by)).await, Ok(4 * PRICE));
    }
    assert_eq!(count_events(&store, PAID).await, 10);
    assert_clean(&store, at(1)).await;
}

/// A ticket with several reservations pays for one of them, whichever comes first.
pub(crate) async fn one_ticket_pays_once_however_many_reservations_it_has(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 4).await;
    let mut held = Vec::new();
    for seat in 0..4 {
        held.push(sale.held(store, 1, &[seat]).await);
    }
    store.charge(charge(1, 4 * PRICE, START)).await.unwrap();
    let payments = held.iter().map(|held| {
        let (store, request) = (store.clone(), pay(1, held.id, at(1)));
        async move { store.pay(request).await }
    });
    let answers = at_once(payments).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    let spent = not_settled(SettleRejected::TicketSpent);
    assert_eq!(answers.iter().filter(|answer| **answer == spent).count(), 3);
    assert_eq!(store.balance(user(1)).await, Ok(3 * PRICE));
    assert_clean(store, at(1)).await;
}

/// Payment in the last millisecond against the sweep in the next one: each hold is either paid or
/// expired, never both and never neither.
pub(crate) async fn payment_and_expiry_at_once_and_one_wins(Subject { store, .. }: Subject) {
    const HOLDS: usize = 40;
    let sale = sale(&store, HOLDS as u32).await;
    let mut held = Vec::new();
    for n in 0..HOLDS {
        let by = n as i64 + 1;
        held.push(sale.held(&store, by, &[n]).await);
        store.charge(charge(by, PRICE, START)).await.unwrap();
    }
    let mut payments = Vec::new();
    let mut sweeps = Vec::new();
    for (n, held) in held.iter().enumerate() {
        let payer = store.clone();
        let request = pay(held.user.get(), held.id, at(HOLD_MS - 1));
        payments.push(tokio::spawn(async move { payer.pay(request).await }));
        if n % 4 == 3 {
            let sweeper = store.clone();
            sweeps.push(tokio::spawn(async move { sweeper.expire_due(at(HOLD_MS), 3).await }));
            // Lets both get going, or else the payments would all be first in the queue.
            tokio::task::yield_now().await;
        }
    }
    let mut answers = Vec::new();
    for payment in payments {
        answers.push(payment.await.unwrap());
    }
    let mut expired = 0;
    for sweep in sweeps {
        expired += sweep.await.unwrap().unwrap() as usize;
    }
    // A hold that a sweep's time has ended is over, also where the sweep did not get to it.
    expired += store.expire_due(at(HOLD_MS), HOLDS as u32).await.unwrap() as usize;
    let mut paid = 0;
    for (n, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(_) => {
                paid += 1;
                assert_eq!(sale.owner(&store, n), SeatState::Sold { reservation: held[n].id });
            }
            answer => {
                assert_eq!(answer, not_settled(SettleRejected::Expired));
                let stored = store.reservation(held[n].id).await.unwrap().unwrap().0;
                assert_eq!(stored.state, ReservationState::Expired);
                assert_eq!(sale.owner(&store, n), SeatState::Available);
            }
        }
    }
    assert_eq!(paid + expired, HOLDS);
    assert_eq!(count_events(&store, PAID).await, paid);
    assert_eq!(count_events(&store, ENDED).await, expired);
    assert_clean(&store, at(HOLD_MS)).await;
}

/// The sweep ends what ran out, the oldest first, as many as asked for, once.
pub(crate) async fn expire_due_ends_what_ran_out_and_nothing_else(Subject { store, .. }: Subject) {
    let sale = sale(&store, 6).await;
    let mut held = Vec::new();
    // Not in the order of their seats.
    for (n, ms) in [(1, 10), (3, 20), (2, 30), (4, 40), (0, 50)] {
        let request = sale.reserve(n as i64 + 1, &[n], at(ms));
        held.push(store.reserve(request).await.unwrap().value);
    }
    sale.bought(&store, 6, &[5]).await;
    assert_eq!(store.expire_due(at(HOLD_MS + 9), 10).await, Ok(0));
    assert_eq!(store.expire_due(at(HOLD_MS + 40), 2).await, Ok(2));
    let free = |n| sale.owner(&store, n) == SeatState::Available;
    assert_eq!([0, 1, 2, 3, 4, 5].map(free), [false, true, false, true, false, false]);
    assert_eq!(store.expire_due(at(HOLD_MS + 40), 10).await, Ok(2));
    assert_eq!([0, 1, 2, 3, 4, 5].map(free), [false, true, true, true, true, false]);
    assert_eq!(store.expire_due(at(HOLD_MS + 40), 10).await, Ok(0));
    assert_eq!(store.expire_due(at(10 * HOLD_MS), 0).await, Ok(0));
    assert_eq!(store.expire_due(at(10 * HOLD_MS), 10).await, Ok(1));
    assert_eq!(count_events(&store, ENDED).await, 5);
    assert_clean(&store, at(10 * HOLD_MS)).await;
}

/// Live holds and bought seats count together, over all reservations of the session; what ran out
/// or was given back does not, and other sessions and users have limits of their own.
pub(crate) async fn a_user_has_no_more_seats_than_allowed(Subject { store, .. }: Subject) {
    let sale = sale(&store, 16).await;
    let other = session_of(&store, sale.concert, 6).await;
    let over = |has| no_hold(HoldRejected::UserLimit { max: 6, has });
    let bought = sale.bought(&store, 1, &[0, 1]).await.0;
    assert_eq!(bought.items.len(), 2);
    // That spent the first ticket.
    let with_next = |request: Reserve| Reserve { ticket: ticket(1001), ..request };
    let request = |seats: &[usize], now| with_next(sale.reserve(1, seats, at(now)));
    let second = store.reserve(request(&[2, 3], 10)).await.unwrap().value;
    assert_eq!(store.reserve(request(&[4, 5, 6], 11)).await, over(4));
    store.reserve(request(&[4, 5], 12)).await.unwrap();
    assert_eq!(store.reserve(request(&[6], 13)).await, over(6));
    store.reserve(with_next(other.reserve(1, &[0, 1, 2, 3], at(13)))).await.unwrap();
    store.reserve(sale.reserve(2, &[6, 7, 8, 9], at(13))).await.unwrap();
    // What was given back does not count.
    store.cancel(second.id, user(1), at(14)).await.unwrap();
    store.reserve(request(&[10, 11], 15)).await.unwrap();
    assert_eq!(store.reserve(request(&[12], 16)).await, over(6));
    // What ran out does not count either, from that very millisecond and before any sweep.
    assert_eq!(store.reserve(request(&[12], HOLD_MS + 11)).await, over(6));
    store.reserve(request(&[12], HOLD_MS + 12)).await.unwrap();
    assert_eq!(store.reserve(request(&[13, 14], HOLD_MS + 14)).await, over(5));
    // Bought seats count for ever.
    store.reserve(request(&[4, 5, 10, 11], 3 * HOLD_MS)).await.unwrap();
    assert_eq!(store.reserve(request(&[13], 3 * HOLD_MS)).await, over(6));
    assert_clean(&store, at(3 * HOLD_MS)).await;
}

/// A user who asks for more from several windows at once gets no more than allowed.
pub(crate) async fn a_user_has_no_more_seats_than_allowed_at_once(Subject { store, .. }: Subject) {
    let sale = sale(&store, 20).await;
    let requests = (0..20).map(|n| {
        let (store, request) = (store.clone(), sale.reserve(1, &[n], START));
        async move { store.reserve(request).await }
    });
    let answers = at_once(requests).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 6);
    let limits = limits();
    let over = HoldRejected::UserLimit { max: limits.seats_per_user_max, has: 6 };
    let refused: Vec<_> = answers.into_iter().filter(Result::is_err).collect();
    assert!(refused.into_iter().all(|answer| answer == no_hold(over)));
    assert_clean(&store, START).await;
}

/// A ticket that paid buys nothing more: neither a new hold nor one made before.
pub(crate) async fn a_spent_ticket_neither_reserves_nor_pays(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 3).await;
    let before = sale.held(store, 1, &[0]).await;
    sale.bought(store, 1, &[1]).await;
    store.charge(charge(1, PRICE, START)).await.unwrap();
    let answer = store.reserve(sale.reserve(1, &[2], at(1))).await;
    assert_eq!(answer, no_hold(HoldRejected::TicketSpent));
    let answer = store.pay(pay(1, before.id, at(1))).await;
    assert_eq!(answer, not_settled(SettleRejected::TicketSpent));
    // Not for another user either, and not after a restart.
    let stolen = Reserve { ticket: ticket(1), ..sale.reserve(2, &[2], at(1)) };
    assert_eq!(store.reserve(stolen).await, no_hold(HoldRejected::TicketSpent));
    let subject = subject.reopened().await;
    let store = &subject.store;
    let answer = store.reserve(sale.reserve(1, &[2], at(1))).await;
    assert_eq!(answer, no_hold(HoldRejected::TicketSpent));
    assert_eq!(store.is_spent(ticket(1)).await, Ok(true));
    assert_eq!(store.is_spent(ticket(77)).await, Ok(false));
    // The hold of before can be paid with another ticket, or given back.
    store.pay(Pay { ticket: ticket(77), ..pay(1, before.id, at(2)) }).await.unwrap();
    assert_clean(store, at(2)).await;
}

/// A ticket given up, in the line or after its admission, buys nothing. Another ticket with the
/// same number (of another queue, or issued past the line) is another ticket.
pub(crate) async fn a_ticket_given_up_neither_reserves_nor_pays(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 8).await;
    for (by, waiting) in [(1, true), (2, false)] {
        let held = sale.held(store, by, &[by as usize]).await;
        store.charge(charge(by, PRICE, START)).await.unwrap();
        store.leave_queue(ticket(by as u64), waiting, at(1)).await.unwrap();
        // Once more changes nothing.
        store.leave_queue(ticket(by as u64), waiting, at(2)).await.unwrap();
        let answer = store.reserve(sale.reserve(by, &[0], at(2))).await;
        assert_eq!(answer, no_hold(HoldRejected::TicketSpent));
        let answer = store.pay(pay(by, held.id, at(2))).await;
        assert_eq!(answer, not_settled(SettleRejected::TicketSpent));
        // The hold can still be given back.
        store.cancel(held.id, user(by), at(3)).await.unwrap();
    }
    let others = [
        TicketRef { queue: QueueName::new("vip").unwrap(), ..ticket(1) },
        TicketRef { seq: 0, ..ticket(1) },
        TicketRef { id: TicketId([9; 16]), ..ticket(1) },
    ];
    let subject = subject.reopened().await;
    for (n, other) in others.into_iter().enumerate() {
        let request = Reserve { ticket: other, ..sale.reserve(3 + n as i64, &[3 + n], at(4)) };
        subject.store.reserve(request).await.unwrap();
    }
    let answer = subject.store.reserve(sale.reserve(2, &[0], at(4))).await;
    assert_eq!(answer, no_hold(HoldRejected::TicketSpent));
    assert_clean(&subject.store, at(4)).await;
}

/// A reservation is settled by its owner; nobody settles one that does not exist.
pub(crate) async fn nobody_settles_for_another(Subject { store, .. }: Subject) {
    let sale = sale(&store, 1).await;
    let held = sale.held(&store, 1, &[0]).await;
    store.charge(charge(2, PRICE, START)).await.unwrap();
    let theirs = SettleRejected::NotYours;
    assert_eq!(store.pay(pay(2, held.id, at(1))).await, not_settled(theirs));
    assert_eq!(store.cancel(held.id, user(2), at(1)).await, not_settled(theirs));
    assert_eq!(store.balance(user(2)).await, Ok(PRICE));
    let nobody = ReservationId::new(held.id.get() + 1).unwrap();
    let missing = || Err(Error::Rejected(ReservationRejected::NoSuchReservation));
    assert_eq!(store.pay(pay(1, nobody, at(1))).await, missing().map(|()| unreachable!()));
    assert_eq!(store.cancel(nobody, user(1), at(1)).await, missing());
    assert_eq!(store.reservation(nobody).await, Ok(None));
    store.cancel(held.id, user(1), at(1)).await.unwrap();
    // Whose it is does not depend on what has become of it.
    assert_eq!(store.pay(pay(2, held.id, at(2))).await, not_settled(theirs));
    assert_eq!(store.pay(pay(2, held.id, at(2 * HOLD_MS))).await, not_settled(theirs));
    assert_clean(&store, at(2 * HOLD_MS)).await;
}

/// Seats are sold with their own session, and sessions with their own concert.
pub(crate) async fn seats_and_sessions_of_others_are_not_sold(Subject { store, .. }: Subject) {
    let sale_a = sale(&store, 2).await;
    let sale_b = sale(&store, 2).await;
    let mut request = sale_a.reserve(1, &[0], START);
    request.seats.push(sale_b.seats[1]);
    let answer = store.reserve(request.clone()).await;
    assert_eq!(answer, no_hold(HoldRejected::NoSuchSeat(sale_b.seats[1])));
    for unknown in [sale_b.seats[1].get() + 1, i64::MAX] {
        let unknown = SeatId::new(unknown).unwrap();
        request.seats = vec![unknown];
        let answer = store.reserve(request.clone()).await;
        assert_eq!(answer, no_hold(HoldRejected::NoSuchSeat(unknown)));
    }
    let refused = |why| Err(Error::Rejected(why));
    let request = sale_a.reserve(1, &[0], START);
    let no_session = refused(ReserveRejected::NoSuchSession);
    let strange = Reserve { session: sale_b.session, ..request.clone() };
    assert_eq!(store.reserve(strange).await, no_session);
    let nowhere = SessionId::new(999).unwrap();
    let strange = Reserve { session: nowhere, ..request.clone() };
    assert_eq!(store.reserve(strange).await, no_session);
    let nothing = ConcertId::new(999).unwrap();
    let strange = Reserve { concert: nothing, ..request };
    assert_eq!(store.reserve(strange).await, refused(ReserveRejected::NoSuchConcert));
    assert_eq!(count_events(&store, RESERVED).await, 0);
    assert_clean(&store, START).await;
}

/// Reservations begin with the concert's opening, end with its closing, and end when the session
/// begins.
pub(crate) async fn the_doors_open_and_close_to_the_millisecond(Subject { store, .. }: Subject) {
    let sale = sale(&store, 4).await;
    let (opens_at, closes_at) = (START, at(86_400_000));
    let starts_at = at(80_000_000);
    let answer = store.reserve(sale.reserve(1, &[0], at(-1))).await;
    assert_eq!(answer, no_hold(HoldRejected::NotYetOpen { opens_at }));
    store.reserve(sale.reserve(1, &[0], START)).await.unwrap();
    let last = boxoffice_domain::time::Timestamp(starts_at.0 - 1);
    store.reserve(sale.reserve(1, &[1], last)).await.unwrap();
    let answer = store.reserve(sale.reserve(1, &[2], starts_at)).await;
    assert_eq!(answer, no_hold(HoldRejected::SessionStarted));
    let answer = store.reserve(sale.reserve(1, &[2], closes_at)).await;
    assert_eq!(answer, no_hold(HoldRejected::Closed { closed_at: closes_at }));
    assert_clean(&store, closes_at).await;
}

/// After a restart everything is as it was acknowledged, and the sale goes on.
pub(crate) async fn everything_survives_a_reopen(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 8).await;
    let (bought, _) = sale.bought(store, 1, &[0, 1]).await;
    let held = sale.held(store, 2, &[2]).await;
    let given_back = sale.held(store, 3, &[3]).await;
    store.cancel(given_back.id, user(3), at(1)).await.unwrap();
    let early = store.reserve(sale.reserve(4, &[4], START)).await.unwrap().value;
    store.charge(charge(2, 3 * PRICE, at(1))).await.unwrap();
    let expired = store.expire_due(at(HOLD_MS), 1).await.unwrap();
    assert_eq!(expired, 1);
    let ids = [bought.id, held.id, given_back.id, early.id];
    let mut before = Vec::new();
    for id in ids {
        before.push(store.reservation(id).await.unwrap());
    }
    let seats = store.catalog().inventory(sale.concert, sale.session).unwrap().snapshot().1;
    let events = waiting_rows(store, 100).await;
    assert_clean(store, at(1)).await;

    let subject = subject.reopened().await;
    let store = &subject.store;
    for (id, before) in ids.into_iter().zip(before) {
        assert_eq!(store.reservation(id).await.unwrap(), before);
    }
    assert_eq!(store.catalog().inventory(sale.concert, sale.session).unwrap().snapshot().1, seats);
    assert_eq!(waiting_rows(store, 100).await, events);
    assert_eq!(store.balance(user(2)).await, Ok(3 * PRICE));
    assert_clean(store, at(1)).await;
    // One of the two that were due was swept; the other is still payable in its time.
    let (open, by) = match store.reservation(held.id).await.unwrap().unwrap().0.state {
        ReservationState::Expired => (early.id, 4),
        _ => (held.id, 2),
    };
    store.charge(charge(by, PRICE, at(2))).await.unwrap();
    store.pay(pay(by, open, at(2))).await.unwrap();
    store.reserve(sale.reserve(5, &[5, 6, 7], at(2))).await.unwrap();
    assert_clean(store, at(2)).await;
}

/// One ticket holds one thing at a time, and not for ever; other tickets, and other sessions, do not
/// change that.
pub(crate) async fn a_ticket_holds_within_bounds(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 40).await;
    let other = session_of(store, sale.concert, 4).await;
    let tight = Limits { live_holds_max: 1, holds_per_ticket_max: 3, ..limits() };
    let ask = |sale: &Sale, seat: usize, ms| Reserve {
        limits: tight,
        ..sale.reserve(1, &[seat], at(ms))
    };
    let live = no_hold(HoldRejected::LiveHoldLimit { max: 1 });
    let first = store.reserve(ask(&sale, 0, 0)).await.unwrap().value;
    assert_eq!(store.reserve(ask(&sale, 1, 1)).await, live);
    assert_eq!(store.reserve(ask(&other, 0, 1)).await, live, "in another session");
    // Another ticket of the same user is another ticket.
    let second = Reserve { ticket: ticket(1001), ..ask(&sale, 2, 2) };
    store.reserve(second).await.unwrap();
    assert_eq!(store.reserve(ask(&sale, 1, 3)).await, live);
    // Whether it is paid, given back or over, swept or not: it is not in the way.
    store.cancel(first.id, user(1), at(4)).await.unwrap();
    let next = store.reserve(ask(&sale, 1, 5)).await.unwrap().value;
    assert_eq!(store.reserve(ask(&other, 0, 4 + HOLD_MS)).await, live);
    let last = store.reserve(ask(&other, 0, 5 + HOLD_MS)).await.unwrap().value;
    // Neither here nor after a restart there is a fourth.
    let again = |ms| ask(&sale, 3, ms);
    let spent_up = no_hold(HoldRejected::HoldLimit { max: 3 });
    assert_eq!(store.reserve(again(6 + 2 * HOLD_MS)).await, spent_up);
    assert_eq!(store.expire_due(at(7 + 2 * HOLD_MS), 100).await.unwrap(), 3);
    let subject = subject.reopened().await;
    assert_eq!(subject.store.reserve(again(8 + 2 * HOLD_MS)).await, spent_up);
    let fresh = Reserve { ticket: ticket(1002), ..again(9 + 2 * HOLD_MS) };
    subject.store.reserve(fresh).await.unwrap();
    assert!(first.id < next.id && next.id < last.id);
    assert_clean(&subject.store, at(10 + 2 * HOLD_MS)).await;
}

/// Tickets that an operator issued past the line have no number of their own, and count by their ids.
/// Many asked for with one ticket at once are one hold.
pub(crate) async fn tickets_without_a_number_count_by_their_ids(Subject { store, .. }: Subject) {
    let sale = sale(&store, 40).await;
    let tight = Limits { live_holds_max: 1, ..limits() };
    let opaque = |id: u8| TicketRef { queue: main_queue(), seq: 0, id: TicketId([id; 16]) };
    let asked = (0..30).map(|n| {
        let ticket = opaque(n as u8 % 3);
        let request = Reserve { ticket, limits: tight, ..sale.reserve(1, &[n], START) };
        let request = Reserve { user: user(1 + n as i64 % 3), ..request };
        let store = store.clone();
        async move { store.reserve(request).await }
    });
    let answers = at_once(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    let live = no_hold(HoldRejected::LiveHoldLimit { max: 1 });
    assert_eq!(answers.iter().filter(|answer| **answer == live).count(), 27);
}

/// A seat that is given back, or whose hold runs out, can be had some time later, by nobody before that;
/// a restart does not forget it.
pub(crate) async fn a_seat_given_up_is_free_after_its_delay(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 4).await;
    let delay = Duration::from_secs(7);
    let ask =
        |by, seat: usize, now| Reserve { release_delay: delay, ..sale.reserve(by, &[seat], now) };
    let free = |store: &Store, now| {
        let catalog = store.catalog();
        let inventory = catalog.inventory(sale.concert, sale.session).unwrap();
        let seats = inventory.snapshot().1;
        let free = seats.iter().filter(|seat| seat.state.is_free(now)).count() as u64;
        assert!(inventory.available(now) <= free, "a hold that ran out counts once it is ended");
        free
    };
    let held = store.reserve(ask(1, 0, START)).await.unwrap().value;
    assert_eq!(held.state, ReservationState::Held { until: at(HOLD_MS) });
    let runs_out = store.reserve(ask(2, 1, START)).await.unwrap().value;
    let back = Cancel { reservation: held.id, user: user(1), release_delay: delay, now: at(10) };
    store.give_back(back).await.unwrap();
    assert_eq!(sale.owner(store, 0), SeatState::Released { until: at(7_010) });
    assert_clean(store, at(11)).await;

    let subject = subject.reopened().await;
    let store = &subject.store;
    let taken = |seat: usize| no_hold(HoldRejected::SeatTaken(sale.seats[seat]));
    assert_eq!(store.reserve(ask(3, 0, at(7_009))).await, taken(0));
    assert_eq!((free(store, at(7_009)), free(store, at(7_010))), (2, 3));
    store.reserve(ask(3, 0, at(7_010))).await.unwrap();
    // The hold is over when it was said to be; its seat is not free yet, swept or not.
    store.charge(charge(2, PRICE, START)).await.unwrap();
    let late = store.pay(pay(2, runs_out.id, at(HOLD_MS))).await;
    assert_eq!(late, not_settled(SettleRejected::Expired));
    assert_eq!(store.reserve(ask(4, 1, at(HOLD_MS))).await, taken(1));
    assert_clean(store, at(HOLD_MS)).await;
    assert_eq!(store.expire_due(at(HOLD_MS), 10).await.unwrap(), 1);
    assert_eq!(sale.owner(store, 1), SeatState::Released { until: at(HOLD_MS + 7_000) });
    assert_eq!(store.reserve(ask(4, 1, at(HOLD_MS + 6_999))).await, taken(1));
    store.reserve(ask(4, 1, at(HOLD_MS + 7_000))).await.unwrap();
    assert_clean(store, at(HOLD_MS + 7_001)).await;
}

/// Whoever pays with another ticket than the one that holds spends both; a ticket of another queue pays
/// for nothing of this one.
pub(crate) async fn a_payment_spends_the_ticket_that_holds(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 9).await;
    store.charge(charge(1, 10 * PRICE, START)).await.unwrap();
    let vip = TicketRef { queue: QueueName::new("vip").unwrap(), ..ticket(9) };
    let held = sale.held(store, 1, &[0]).await;
    let with_vip = Pay { ticket: vip.clone(), ..pay(1, held.id, at(1)) };
    assert_eq!(store.pay(with_vip.clone()).await, not_settled(SettleRejected::WrongQueue));
    assert_eq!(store.balance(user(1)).await, Ok(10 * PRICE));
    assert_eq!(store.is_spent(vip).await, Ok(false));

    let other = |reservation, ms| Pay { ticket: ticket(1001), ..pay(1, reservation, at(ms)) };
    let asked = Pay { idempotency: key("once", 1), ..other(held.id, 2) };
    let paid = store.pay(asked.clone()).await.unwrap();
    assert_eq!((paid.replayed, &paid.also_spent), (false, &Some(ticket(1))));
    for spent in [1, 1001] {
        assert_eq!(store.is_spent(ticket(spent)).await, Ok(true), "ticket {spent}");
    }
    let over = no_hold(HoldRejected::TicketSpent);
    assert_eq!(store.reserve(sale.reserve(1, &[1], at(3))).await, over);
    // The repetition is the same payment and spends nothing.
    let again = store.pay(Pay { ticket: ticket(1002), now: at(4), ..asked }).await.unwrap();
    assert_eq!((again.replayed, again.value, again.also_spent), (true, paid.value, None));
    assert_eq!(store.is_spent(ticket(1002)).await, Ok(false));

    // What was given up meanwhile, or has paid for something else, is spent once.
    let first = store.reserve(sale.reserve(2, &[2], at(5))).await.unwrap().value;
    let second = store.reserve(sale.reserve(2, &[3], at(5))).await.unwrap().value;
    let third = store.reserve(sale.reserve(2, &[4], at(5))).await.unwrap().value;
    store.charge(charge(2, 10 * PRICE, at(5))).await.unwrap();
    let by = |seq, reservation, ms| Pay { ticket: ticket(seq), ..pay(2, reservation, at(ms)) };
    store.pay(by(2, first.id, 6)).await.unwrap();
    let paid = store.pay(by(2001, second.id, 7)).await.unwrap();
    assert_eq!(paid.also_spent, None);
    // Of two at once with two tickets one pays, and the other stays good.
    let both = at_once([2002, 2003].map(|seq| {
        let (store, request) = (store.clone(), by(seq, third.id, 8));
        async move { store.pay(request).await }
    }))
    .await;
    assert_eq!(both.iter().filter(|answer| answer.is_ok()).count(), 1);
    let spent = at_once([2002, 2003].map(|seq| {
        let store = store.clone();
        async move { store.is_spent(ticket(seq)).await.unwrap() }
    }))
    .await;
    assert_eq!(spent.iter().filter(|spent| **spent).count(), 1);
    assert_clean(store, at(9)).await;
    let subject = subject.reopened().await;
    assert_eq!(subject.store.is_spent(ticket(1)).await, Ok(true));
    assert_clean(&subject.store, at(10)).await;
}

/// Whoever lost the answer to a hold finds it again: a user's own reservations, the newest first, page by
/// page.
pub(crate) async fn reservations_are_listed_by_their_owner(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 9).await;
    assert_eq!(store.reservations_of(user(1), None, 10).await, Ok(Vec::new()));
    let mut made = Vec::new();
    for n in 0..5 {
        // Two of them in the same moment.
        let now = at([0, 1, 1, 2, 3][n]);
        let by_other = sale.reserve(2, &[5], now);
        if n == 2 {
            store.reserve(by_other).await.unwrap();
        }
        made.push(store.reserve(sale.reserve(1, &[n], now)).await.unwrap().value.id);
    }
    store.cancel(made[4], user(1), at(4)).await.unwrap();
    let subject = subject.reopened().await;
    let store = &subject.store;
    let ids = |page: Vec<(Reservation, Timestamp)>| -> Vec<ReservationId> {
        assert!(page.iter().all(|(reservation, _)| reservation.user == user(1)));
        page.into_iter().map(|(reservation, _)| reservation.id).collect()
    };
    let all = store.reservations_of(user(1), None, 10).await.unwrap();
    assert_eq!(all[0].0.state, ReservationState::Cancelled);
    made.reverse();
    assert_eq!(ids(all), made);
    let mut paged = Vec::new();
    loop {
        let page = store.reservations_of(user(1), paged.last().copied(), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        paged.append(&mut ids(page));
    }
    assert_eq!(paged, made);
    // One of somebody else, or of nobody, leads nowhere.
    let others = store.reservations_of(user(2), None, 10).await.unwrap();
    let nobody = ReservationId::new(i64::MAX).unwrap();
    for after in [others[0].0.id, nobody] {
        assert_eq!(store.reservations_of(user(1), Some(after), 10).await, Ok(Vec::new()));
    }
}
