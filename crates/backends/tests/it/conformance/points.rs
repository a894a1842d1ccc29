//! Points: charged, spent, never lost.

use boxoffice_domain::points::{BALANCE_MAX, ChargeRejected};

use super::{PRICE, START, Subject, assert_clean, at_once, charge, count_events, pay, sale, user};
use boxoffice_backends::Error;
use boxoffice_backends::store::PointsRejected;

const CHARGED: &str = "user.point-charged";

/// The balance of a user never heard of is 0, and asking does not make an account.
pub(crate) async fn an_unknown_user_has_nothing(Subject { store, .. }: Subject) {
    assert_eq!(store.balance(user(1)).await, Ok(0));
    assert_eq!(store.balance(user(i64::MAX)).await, Ok(0));
    assert_clean(&store, START).await;
}

/// Charges of nothing, of less, and past the largest balance move nothing.
pub(crate) async fn amounts_out_of_range_are_refused(Subject { store, .. }: Subject) {
    let refused = |why| Err(Error::Rejected(PointsRejected::Charge(why)));
    for amount in [0, -1, i64::MIN] {
        let answer = store.charge(charge(1, amount, START)).await;
        assert_eq!(answer, refused(ChargeRejected::NotPositive), "{amount}");
    }
    let answer = store.charge(charge(1, BALANCE_MAX, START)).await.unwrap();
    assert_eq!(answer.value, BALANCE_MAX);
    for amount in [1, BALANCE_MAX, i64::MAX] {
        let answer = store.charge(charge(1, amount, START)).await;
        assert_eq!(answer, refused(ChargeRejected::Overflow), "{amount}");
    }
    let answer = store.charge(charge(2, i64::MAX, START)).await;
    assert_eq!(answer, refused(ChargeRejected::Overflow));
    assert_eq!(store.balance(user(1)).await, Ok(BALANCE_MAX));
    assert_eq!(store.balance(user(2)).await, Ok(0));
    assert_eq!(count_events(&store, CHARGED).await, 1);
    assert_clean(&store, START).await;
}

/// Five charges of one user at once: each answer tells of one more.
pub(crate) async fn five_charges_at_once_all_count(Subject { store, .. }: Subject) {
    for round in 0..10 {
        let charges = (0..5).map(|_| {
            let store = store.clone();
            async move { store.charge(charge(1, 10, START)).await.unwrap().value }
        });
        let mut balances = at_once(charges).await;
        balances.sort_unstable();
        let before = round * 50;
        assert_eq!(balances, [10, 20, 30, 40, 50].map(|more| before + more));
    }
    assert_eq!(store.balance(user(1)).await, Ok(500));
    assert_eq!(count_events(&store, CHARGED).await, 50);
    assert_clean(&store, START).await;
}

/// A user charges and pays at once, again and again: what comes in less what goes out is left.
pub(crate) async fn charging_and_paying_at_once_conserves_points(Subject { store, .. }: Subject) {
    const BUYERS: i64 = 20;
    let sale = sale(&store, BUYERS as u32).await;
    for seat in 0..BUYERS {
        // One account, so that all of them meet in one row; a ticket each.
        let mut request = sale.reserve(1, &[seat as usize], START);
        request.ticket = super::ticket(seat as u64 + 1);
        request.limits.seats_per_user_max = BUYERS as u32;
        let held = store.reserve(request).await.unwrap().value;
        let mut payment = pay(1, held.id, START);
        payment.ticket = super::ticket(seat as u64 + 1);
        let charger = store.clone();
        let payer = store.clone();
        let charges = tokio::spawn(async move {
            for _ in 0..3 {
                charger.charge(charge(1, PRICE / 2, START)).await.unwrap();
            }
        });
        // The points may not be there yet; they will be.
        let paid = tokio::spawn(async move {
            while payer.pay(payment.clone()).await.is_err() {
                tokio::task::yield_now().await;
            }
        });
        charges.await.unwrap();
        paid.await.unwrap();
        assert_eq!(store.balance(user(1)).await, Ok((seat + 1) * PRICE / 2));
    }
    assert_clean(&store, START).await;
}
