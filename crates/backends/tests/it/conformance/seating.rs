//! Halls, and holds of the best seats in them.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use boxoffice_backends::Error;
use boxoffice_backends::store::{
    Act, ActRejected, Acted, Effect, NewSeats, Reserve, ReserveRejected, Seating, Store, StoredPlan,
};
use boxoffice_domain::ids::{ConcertId, SeatId};
use boxoffice_domain::sales::{HoldRejected, Limits, Reservation, SeatState};
use boxoffice_domain::seating::{
    Area, Parts, PlacePart, Plan, Point, RowPart, SeatingPart, SectionPart, Wish,
};

use super::acts::note;
use super::{
    HOLD_MS, PRICE, START, Sale, Subject, assert_clean, at, at_once, charge, key, limits, pay,
    planned, sale, session_of, user,
};

/// What places of the grades of [`hall`] cost.
pub(crate) const PRICES: [i64; 3] = [500, 200, 50];

/// A hall of two rows of ten with an aisle in the middle, each behind the other, and places for 30 to stand.
/// The first row is of the first grade, the second of the second, the rest of the third.
pub(crate) fn hall() -> Arc<StoredPlan> {
    let row = |row: i32, grade: u16| RowPart {
        name: (row + 1).to_string(),
        places: (0..10)
            .map(|index| PlacePart {
                label: (index + 1).to_string(),
                grade,
                at: Point { x: 25 * index, y: 100 + 40 * row },
            })
            .collect(),
        cuts: Some(vec![5]),
    };
    let area = Area { at: Point { x: 0, y: 300 }, size: Point { x: 200, y: 100 } };
    let parts = Parts {
        name: "Öwl's Hall 🦉 </script>".into(),
        size: Point { x: 300, y: 500 },
        stage: Point { x: 112, y: 0 },
        grades: vec!["R".into(), "S".into(), "A".into()],
        sections: vec![
            SectionPart {
                name: "Floor".into(),
                seating: SeatingPart::Rows(vec![row(0, 0), row(1, 1)]),
            },
            SectionPart {
                name: "Behind".into(),
                seating: SeatingPart::Standing { area, grade: 2, count: 30 },
            },
        ],
    };
    Arc::new(StoredPlan::new(Plan::new(parts).unwrap()).unwrap())
}

/// The best seats of a session.
pub(crate) fn best(sale: &Sale, by: i64, count: u32) -> Reserve {
    let wish = Wish { count, grade: None, section: None, together: true };
    Reserve { best: Some(wish.into()), ..sale.reserve(by, &[], START) }
}

/// The numbers of the seats of a hold.
pub(crate) fn numbers(reservation: &Reservation) -> Vec<u32> {
    reservation.items.iter().map(|item| item.number).collect()
}

fn refused(why: HoldRejected) -> Error<ReserveRejected> {
    Error::Rejected(ReserveRejected::Hold(why))
}

/// A session has the hall that it was made with, its seats are the places of it at the prices of their grades,
/// and after a reopen it is the same. Sessions of one hall share it.
pub(crate) async fn a_session_has_the_hall_that_it_was_made_with(subject: Subject) {
    let hall = hall();
    let numbered = sale(&subject.store, 3).await;
    let one = planned(&subject.store, numbered.concert, &hall).await;
    let two = planned(&subject.store, numbered.concert, &hall).await;
    assert_eq!(one.seats.len(), 50);
    let check = |store: &Store| {
        let catalog = store.catalog();
        let of = |sale: &Sale| catalog.inventory(sale.concert, sale.session).unwrap().clone();
        let (first, second) = (of(&one), of(&two));
        let plan = first.plan().unwrap();
        assert!(Arc::ptr_eq(plan, second.plan().unwrap()));
        assert_eq!((plan.digest(), plan.body()), (hall.digest(), hall.body()));
        assert_eq!(plan.plan(), hall.plan());
        assert!(Arc::ptr_eq(catalog.plan(&hall.digest()).unwrap(), plan));
        let (_, seats) = first.snapshot();
        for (index, seat) in seats.iter().enumerate() {
            let grade = hall.plan().places()[index].grade;
            assert_eq!((seat.id, seat.number), (one.seats[index], index as u32 + 1));
            assert_eq!(seat.price, PRICES[usize::from(grade)]);
        }
        let priced = |at| {
            first.prices(at).iter().map(|it| (it.price, it.grade, it.total)).collect::<Vec<_>>()
        };
        let expected = [(500, Some(0), 10), (200, Some(1), 10), (50, Some(2), 30)];
        assert_eq!(priced(START), expected);
        let plain = of(&numbered);
        assert!(plain.plan().is_none());
        assert_eq!(plain.prices(START)[0].grade, None);
        assert_eq!(plain.hall().place_count(), 3);
    };
    check(&subject.store);
    assert_clean(&subject.store, START).await;
    let subject = subject.reopened().await;
    check(&subject.store);
    let held = subject.store.reserve(one.reserve(1, &[0, 49], START)).await.unwrap().value;
    assert_eq!((held.total(), numbers(&held)), (550, vec![1, 50]));
    assert_clean(&subject.store, START).await;
}

/// A plan comes and goes with the sessions that have it, its seats stay as they are, and a change of the
/// session is as of any other.
pub(crate) async fn a_session_with_a_hall_is_changed_as_any_other(subject: Subject) {
    let store = &subject.store;
    let hall = hall();
    let other = sale(store, 3).await;
    let concert = other.concert;
    let seating = Seating::planned(hall.clone(), &PRICES).unwrap();
    let act = Act::CreateSession(concert, at(1_000), seating);
    let Ok(Acted::Now(Effect::Session { after: Some(made), added, plan, .. }, _)) =
        store.act(act, note("c")).await
    else {
        panic!("no session")
    };
    assert_eq!((plan, added.len(), added[0].count), (Some(hall.digest()), 1, 50));
    let log = store.log(i64::MAX, 1).await.unwrap();
    assert!(log[0].after.as_ref().unwrap().contains(&hall.digest().to_string()));
    let more = NewSeats { count: 2, price: PRICE };
    let add = Act::AddSeats(concert, made.id, more);
    assert_eq!(store.act(add, note("m")).await, Err(Error::Rejected(ActRejected::HasPlan)));
    assert_eq!(store.add_seats(concert, made.id, more).await, Ok(None));
    store.act(Act::ChangeSession(concert, made.id, at(2_000)), note("t")).await.unwrap();
    let catalog = store.catalog();
    let inventory = catalog.inventory(concert, made.id).unwrap();
    assert_eq!((inventory.session().starts_at, inventory.total()), (at(2_000), 50));
    assert!(catalog.plan(&hall.digest()).is_some());
    let sale = Sale {
        concert,
        session: made.id,
        seats: (0..50).map(|n| SeatId::new(added[0].first.get() + n).unwrap()).collect(),
    };
    let held = store.reserve(best(&sale, 1, 2)).await.unwrap().value;
    let remove = || store.act(Act::RemoveSession(concert, made.id), note("r"));
    assert_eq!(remove().await, Err(Error::Rejected(ActRejected::SoldOrHeld)));
    store.act(Act::CallOff(concert, Some(made.id)), note("o")).await.unwrap();
    let over = store.reserve(best(&sale, 2, 2)).await.unwrap_err();
    assert_eq!(over, refused(HoldRejected::SessionCancelled));
    store.settle_called_off(&[held.id], START).await.unwrap();
    remove().await.unwrap();
    assert!(store.catalog().plan(&hall.digest()).is_none());
    let again = planned(store, concert, &hall).await;
    assert!(again.seats[0].get() >= added[0].first.get() + 50);
    assert_clean(store, START).await;
    let subject = subject.reopened().await;
    assert!(subject.store.catalog().plan(&hall.digest()).is_some());
    assert_clean(&subject.store, START).await;
}

/// The best seats are together, near the stage, and of what was wished for; where there are none, the answer
/// says why.
pub(crate) async fn the_best_seats_are_chosen_as_they_were_wished_for(subject: Subject) {
    let store = &subject.store;
    let numbered = sale(store, 4).await;
    let hall = planned(store, numbered.concert, &hall()).await;
    let ask = |by, count, change: &dyn Fn(&mut Wish)| {
        let mut wish = Wish { count, grade: None, section: None, together: true };
        change(&mut wish);
        Reserve { best: Some(wish.into()), ..hall.reserve(by, &[], START) }
    };
    let held = store.reserve(ask(1, 2, &|_| {})).await.unwrap().value;
    assert_eq!(numbers(&held), [4, 5]);
    assert_eq!(held.total(), 1_000);
    let held = store.reserve(ask(1, 4, &|wish| wish.grade = Some(1))).await.unwrap().value;
    assert_eq!(numbers(&held).len(), 4);
    assert!(held.items.iter().all(|item| item.price == 200));
    let standing = store.reserve(ask(2, 3, &|wish| wish.section = Some(1))).await.unwrap().value;
    assert_eq!(numbers(&standing), [21, 22, 23]);
    // Of the first grade 8 are left: 3 in a row, and 5 in a row.
    for (by, left) in [(3, 8), (4, 4)] {
        let held = store.reserve(ask(by, 4, &|wish| wish.grade = Some(0))).await;
        assert_eq!(held.is_ok(), left == 8, "{held:?}");
    }
    let apart = |wish: &mut Wish| (wish.grade, wish.together) = (Some(0), false);
    assert_eq!(
        store.reserve(ask(5, 4, &|wish| wish.grade = Some(0))).await.unwrap_err(),
        refused(HoldRejected::NotTogether)
    );
    let held = store.reserve(ask(6, 4, &apart)).await.unwrap().value;
    assert_eq!(numbers(&held).len(), 4);
    assert_eq!(
        store.reserve(ask(7, 1, &apart)).await.unwrap_err(),
        refused(HoldRejected::NotEnoughSeats { free: 0 })
    );
    // Where nothing is known of the hall, the lowest numbers are the best.
    assert_eq!(numbers(&store.reserve(best(&numbered, 8, 3)).await.unwrap().value), [1, 2, 3]);
    assert_eq!(
        store.reserve(best(&numbered, 9, 2)).await.unwrap_err(),
        refused(HoldRejected::NotEnoughSeats { free: 1 })
    );
    // Limits count as ever.
    for (count, why) in [(0, HoldRejected::NoSeats), (5, HoldRejected::TooManySeats { max: 4 })] {
        assert_eq!(store.reserve(ask(9, count, &|_| {})).await.unwrap_err(), refused(why));
    }
    let nowhere = Reserve {
        session: numbered.session,
        concert: ConcertId::new(999).unwrap(),
        ..best(&hall, 9, 1)
    };
    assert_eq!(
        store.reserve(nowhere).await.unwrap_err(),
        Error::Rejected(ReserveRejected::NoSuchConcert)
    );
    store.reserve(best(&hall, 10, 4)).await.unwrap();
    assert_eq!(
        store.reserve(best(&hall, 10, 3)).await.unwrap_err(),
        refused(HoldRejected::UserLimit { max: 6, has: 4 })
    );
    // What ran out is there again.
    let again = Reserve { now: at(HOLD_MS), ..ask(11, 2, &|_| {}) };
    assert_eq!(numbers(&store.reserve(again).await.unwrap().value), [4, 5]);
    // Other reasons come first.
    let late = Reserve { now: at(90_000_000), ..best(&numbered, 9, 2) };
    assert!(matches!(
        store.reserve(late).await.unwrap_err(),
        Error::Rejected(ReserveRejected::Hold(HoldRejected::Closed { .. }))
    ));
    assert_clean(store, at(HOLD_MS)).await;
}

/// Of many who want the best at once no two get the same seat, the hall is sold out to its last seat, and
/// nobody is refused before.
pub(crate) async fn the_best_at_once_sell_out_to_the_last_seat(subject: Subject) {
    let numbered = sale(&subject.store, 1).await;
    let hall = planned(&subject.store, numbered.concert, &hall()).await;
    // Those who name seats come between them.
    let named: Vec<_> = (0..10).map(|n| hall.reserve(100 + n, &[2 * n as usize], START)).collect();
    let wishes = (1..=60).map(|by| {
        let wish = Wish { count: 1, grade: None, section: None, together: true };
        Reserve { best: Some(wish.into()), ..hall.reserve(by, &[], START) }
    });
    let store = subject.store.clone();
    let answers = at_once(wishes.chain(named).map(|request| {
        let store = store.clone();
        async move { (request.best.is_some(), store.reserve(request).await) }
    }))
    .await;
    let mut seats = HashSet::new();
    let mut lost = 0;
    for (is_best, answer) in answers {
        match answer {
            Ok(answer) => {
                let [item] = answer.value.items[..] else { panic!("{answer:?}") };
                assert!(seats.insert(item.seat), "{} twice", item.number);
            }
            Err(error) if is_best => {
                lost += 1;
                assert_eq!(error, refused(HoldRejected::NotEnoughSeats { free: 0 }));
            }
            Err(error) => assert!(
                matches!(error, Error::Rejected(ReserveRejected::Hold(HoldRejected::SeatTaken(_)))),
                "{error:?}"
            ),
        }
    }
    assert_eq!(seats.len(), 50);
    assert!(lost >= 10, "{lost}");
    assert_clean(&subject.store, START).await;
}

/// Whoever waits for the best seats behind others is told when the session is gone, and whoever may not hold any
/// keeps nobody from them, however often they ask.
pub(crate) async fn who_may_not_hold_keeps_nobody_from_the_best(subject: Subject) {
    const MANY: i64 = 300;
    const ROUNDS: usize = 10;
    let store = &subject.store;
    let strict = |mut request: Reserve| {
        request.limits.live_holds_max = 1;
        request
    };
    let elsewhere = sale(store, 60).await;
    for by in 0..60_i64 {
        let own = strict(elsewhere.reserve(100 + by, &[by as usize], START));
        store.reserve(own).await.unwrap();
    }
    let told = |answers: &[Result<_, Error<ReserveRejected>>], why: &HoldRejected| {
        let is = |answer: &&Result<_, _>| **answer == Err(refused(*why));
        answers.iter().filter(is).count()
    };
    let limit = HoldRejected::LiveHoldLimit { max: 1 };

    // One of them asks again and again.
    let wanted = session_of(store, elsewhere.concert, 4).await;
    let asked = (0..MANY).map(|_| strict(best(&wanted, 100, 4)));
    let asked = asked.chain([strict(best(&wanted, 1, 4))]);
    let asked = at_once(asked.map(|request| {
        let store = store.clone();
        async move { store.reserve(request).await.map(|answer| numbers(&answer.value)) }
    }));
    let mut answers = within(asked).await;
    assert_eq!(answers.pop(), Some(Ok(vec![1, 2, 3, 4])));
    // Where the other one came first, in a batch beside theirs, nothing is left.
    let late = told(&answers, &HoldRejected::NotEnoughSeats { free: 0 });
    assert_eq!(told(&answers, &limit) + late, answers.len(), "{answers:?}");

    // All of them ask, and the session is removed meanwhile: nobody is told of seats that they have not named.
    for _ in 0..ROUNDS {
        let doomed = session_of(store, elsewhere.concert, 4).await;
        let remover = store.clone();
        let removal = Act::RemoveSession(doomed.concert, doomed.session);
        let removed = tokio::spawn(async move { remover.act(removal, note("x")).await });
        let asked = at_once((0..60).map(|by| {
            let (store, request) = (store.clone(), strict(best(&doomed, 100 + by, 4)));
            async move { store.reserve(request).await.map(|answer| numbers(&answer.value)) }
        }));
        let answers = within(asked).await;
        removed.await.unwrap().unwrap();
        let gone = Err(Error::Rejected(ReserveRejected::NoSuchSession));
        let gone = answers.iter().filter(|answer| **answer == gone).count();
        assert_eq!(told(&answers, &limit) + gone, answers.len(), "{answers:?}");
    }
    assert_clean(store, START).await;
}

/// What is done in a few seconds, or hangs.
async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("somebody waits for ever")
}

/// The same request for the best gets the first answer again, also when nothing is left; another one under its
/// key is refused.
pub(crate) async fn the_best_under_a_key_are_chosen_once(subject: Subject) {
    let sale = sale(&subject.store, 4).await;
    let ask = |fingerprint| Reserve { idempotency: key("k", fingerprint), ..best(&sale, 1, 2) };
    let store = subject.store.clone();
    let answers = at_once((0..4).map(|_| {
        let (store, request) = (store.clone(), ask(1));
        async move { store.reserve(request).await.unwrap() }
    }))
    .await;
    let first: BTreeSet<_> = answers.iter().map(|answer| answer.value.id).collect();
    assert_eq!(first.len(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.replayed).count(), 3);
    assert_eq!(numbers(&answers[0].value), [1, 2]);
    drop(store);
    let subject = subject.reopened().await;
    subject.store.reserve(best(&sale, 2, 2)).await.unwrap();
    let again = subject.store.reserve(ask(1)).await.unwrap();
    assert!(again.replayed);
    assert_eq!(numbers(&again.value), [1, 2]);
    assert_eq!(
        subject.store.reserve(ask(2)).await.unwrap_err(),
        Error::Rejected(ReserveRejected::KeyReused)
    );
    subject.store.charge(charge(1, 2 * PRICE, START)).await.unwrap();
    subject.store.pay(pay(1, again.value.id, START)).await.unwrap();
    assert_clean(&subject.store, START).await;
}

/// Where no hold may leave a single seat, one that does is refused, whoever else holds at the same time; where
/// every choice does, it is not.
pub(crate) async fn no_single_seat_is_left_needlessly(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 10).await;
    let strict = Limits { no_orphans: true, seats_per_user_max: 100, ..limits() };
    let hold = |by, seats: &[usize]| Reserve { limits: strict, ..sale.reserve(by, seats, START) };
    // One at the end would be left.
    assert_eq!(
        store.reserve(hold(1, &[1, 2])).await.unwrap_err(),
        refused(HoldRejected::LeavesSinglePlace { number: 1 })
    );
    let held = store.reserve(hold(1, &[0, 1])).await.unwrap().value;
    assert_eq!(
        store.reserve(hold(2, &[3])).await.unwrap_err(),
        refused(HoldRejected::LeavesSinglePlace { number: 3 })
    );
    store.reserve(hold(2, &[7, 8, 9])).await.unwrap();
    // Of five in a row four leave a single one in any case.
    store.reserve(hold(3, &[2, 3, 4, 5])).await.unwrap();
    // The last one is free for anybody.
    store.reserve(hold(4, &[6])).await.unwrap();
    store.cancel(held.id, user(1), START).await.unwrap();
    assert_eq!(
        numbers(
            &store.reserve(Reserve { limits: strict, ..best(&sale, 5, 1) }).await.unwrap().value
        ),
        [1]
    );
    assert_clean(store, START).await;
}

/// Two holds at once that leave no single seat each, but would together, are not both made; nor do those of the
/// best leave any.
pub(crate) async fn no_single_seat_is_left_at_once(subject: Subject) {
    let strict = Limits { no_orphans: true, ..limits() };
    let first = sale(&subject.store, 1).await;
    let mut sales = Vec::new();
    for _ in 0..12 {
        sales.push(session_of(&subject.store, first.concert, 12).await);
    }
    let mut requests = Vec::new();
    for (sale, by) in sales.iter().zip((0..).step_by(3)) {
        let named =
            |by, seats: &[usize]| Reserve { limits: strict, ..sale.reserve(by, seats, START) };
        let chosen = Reserve { limits: strict, ..best(sale, by + 3, 2) };
        requests.extend([named(by + 1, &[0, 1]), named(by + 2, &[3, 4]), chosen]);
    }
    let store = subject.store.clone();
    let answers = at_once(requests.into_iter().map(|request| {
        let store = store.clone();
        async move { (request.best.is_some(), store.reserve(request).await) }
    }))
    .await;
    for (is_best, answer) in &answers {
        match answer {
            Ok(_) => {}
            Err(Error::Rejected(ReserveRejected::Hold(
                HoldRejected::SeatTaken(_) | HoldRejected::LeavesSinglePlace { .. },
            ))) if !is_best => {}
            Err(error) => panic!("{error:?}, best: {is_best}"),
        }
    }
    for sale in &sales {
        let catalog = subject.store.catalog();
        let inventory = catalog.inventory(sale.concert, sale.session).unwrap();
        let (_, seats) = inventory.snapshot();
        let is_free =
            |index: usize| seats.get(index).is_some_and(|seat| seat.state == SeatState::Available);
        let is_single = |index: &usize| {
            is_free(*index) && !is_free(index.wrapping_sub(1)) && !is_free(index + 1)
        };
        assert_eq!((0..12).find(is_single), None, "{seats:?}");
        // One of the two, and the best.
        assert!((0..12).filter(|index| !is_free(*index)).count() >= 2);
    }
    assert_clean(&subject.store, START).await;
}
