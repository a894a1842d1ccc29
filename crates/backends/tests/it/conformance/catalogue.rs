//! What is for sale, and values of the store as a whole.

use std::collections::BTreeSet;

use boxoffice_domain::ids::{ConcertId, SeatId, SessionId};
use boxoffice_domain::sales::{Concert, Seat, SeatState, Session};

use super::{
    HOLD_MS, PRICE, START, Subject, assert_clean, at, at_once, charge, concert, pay, sale,
    session_of, user, waiting_rows,
};
use boxoffice_backends::store::{AddedSeats, Catalog, NewConcert, NewSeats, Seed};

type ConcertWithSeats = (Concert, Vec<(Session, Vec<Seat>)>);

/// All of a catalogue, in a form that can be compared.
fn content(catalog: &Catalog) -> Vec<ConcertWithSeats> {
    let inventories = |concert| {
        let inventories = catalog.inventories(concert).iter();
        inventories.map(|inventory| (inventory.session(), inventory.snapshot().1)).collect()
    };
    catalog.concerts().map(|concert| (Concert::clone(concert), inventories(concert.id))).collect()
}

/// Concerts, sessions and seats show as they were made, before and after a restart.
pub(crate) async fn what_was_made_is_there_at_once_and_after_a_reopen(subject: Subject) {
    let store = &subject.store;
    assert_eq!(content(&store.catalog()), []);
    let other = NewConcert { name: "Other".into(), venue: "".into(), ..concert() };
    let first = store.create_concert(concert()).await.unwrap();
    let second = store.create_concert(other).await.unwrap();
    assert_ne!(first, second);
    let groups = vec![
        NewSeats { count: 2, price: 500 },
        NewSeats { count: 0, price: 1 },
        NewSeats { count: 3, price: 70 },
    ];
    let (session, added) = store.create_session(first, at(1_000), groups).await.unwrap().unwrap();
    let (empty, none) = store.create_session(first, at(2_000), vec![]).await.unwrap().unwrap();
    assert_eq!(none, []);
    let catalog = store.catalog();
    let made = Concert {
        id: first,
        name: concert().name,
        venue: concert().venue,
        queue: concert().queue,
        opens_at: concert().opens_at,
        closes_at: concert().closes_at,
    };
    assert_eq!(**catalog.concert(first).unwrap(), made);
    let inventory = catalog.inventory(first, session).unwrap();
    let expected = Session { id: session, concert: first, starts_at: at(1_000) };
    assert_eq!(inventory.session(), expected);
    let (_, seats) = inventory.snapshot();
    let numbers: Vec<_> = seats.iter().map(|seat| (seat.number, seat.price)).collect();
    assert_eq!(numbers, [(1, 500), (2, 500), (3, 70), (4, 70), (5, 70)]);
    assert!(seats.iter().all(|seat| seat.state == SeatState::Available));
    // The ranges tell the ids, group by group; a group without seats has none.
    let ids: Vec<i64> = seats.iter().map(|seat| seat.id.get()).collect();
    let first_of = |index: usize| SeatId::new(ids[index]).unwrap();
    let ranges =
        [AddedSeats { first: first_of(0), count: 2 }, AddedSeats { first: first_of(2), count: 3 }];
    assert_eq!(added, ranges);
    assert_eq!((inventory.total(), inventory.available(START), inventory.sold()), (5, 5, 0));
    let sessions: Vec<_> =
        catalog.inventories(first).iter().map(|inventory| inventory.session().id).collect();
    assert_eq!(sessions, [session, empty]);
    assert!(catalog.inventories(second).is_empty());
    assert!(catalog.inventory(second, session).is_none(), "a session of another concert");

    let before = content(&catalog);
    drop(catalog);
    let subject = subject.reopened().await;
    assert_eq!(content(&subject.store.catalog()), before);
    // Ids go on behind those that are taken.
    let third = subject.store.create_concert(concert()).await.unwrap();
    assert!(third > second);
    let more = session_of(&subject.store, third, 1).await;
    assert!(more.session > empty && more.seats[0] > seats[4].id);
    assert_clean(&subject.store, START).await;
}

/// Sessions of no concert and seats of no session are not made.
pub(crate) async fn nothing_is_added_where_it_does_not_belong(Subject { store, .. }: Subject) {
    let one = NewSeats { count: 1, price: 1 };
    let nothing = ConcertId::new(1).unwrap();
    assert_eq!(store.create_session(nothing, START, vec![one]).await, Ok(None));
    let sale_a = sale(&store, 1).await;
    let sale_b = sale(&store, 1).await;
    assert_eq!(store.add_seats(sale_a.concert, sale_b.session, one).await, Ok(None));
    let nowhere = SessionId::new(999).unwrap();
    assert_eq!(store.add_seats(sale_a.concert, nowhere, one).await, Ok(None));
    assert_eq!(store.catalog().inventory(sale_b.concert, sale_b.session).unwrap().total(), 1);
    assert_clean(&store, START).await;
}

/// Seats added later go on in numbers and ids, also where another session came in between, and
/// are sold like the others.
pub(crate) async fn added_seats_are_numbered_on_and_can_be_bought(subject: Subject) {
    let store = &subject.store;
    let mut first = sale(store, 3).await;
    let second = session_of(store, first.concert, 2).await;
    let more = NewSeats { count: 2, price: 40 };
    let inventory = store.catalog().inventory(first.concert, first.session).unwrap().clone();
    let version = inventory.version();
    let added = store.add_seats(first.concert, first.session, more).await.unwrap().unwrap();
    assert!(added.first > second.seats[1]);
    assert!(inventory.version() > version, "lists made before are stale");
    let nothing = NewSeats { count: 0, price: 40 };
    let none = store.add_seats(first.concert, first.session, nothing).await.unwrap();
    assert_eq!(none, None);
    let ids = [added.first.get(), added.first.get() + 1].map(|id| SeatId::new(id).unwrap());
    first.seats.extend(ids);
    drop(inventory);

    let (bought, _) = first.bought(store, 1, &[0, 3]).await;
    assert_eq!(bought.items.iter().map(|item| item.number).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(bought.total(), PRICE + 40);
    let before = content(&store.catalog());
    assert_clean(store, START).await;
    let subject = subject.reopened().await;
    assert_eq!(content(&subject.store.catalog()), before);
    let held = first.held(&subject.store, 2, &[4, 1]).await;
    assert_eq!(held.total(), PRICE + 40);
    let again = subject.store.add_seats(first.concert, first.session, more).await.unwrap();
    assert!(again.unwrap().first > first.seats[4]);
    let numbers: Vec<_> = subject.store.catalog().inventories(first.concert)[0].snapshot().1;
    let numbers: Vec<_> = numbers.iter().map(|seat| seat.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
    assert_clean(&subject.store, START).await;
}

/// Many sessions made and seats added at once get ids of their own.
pub(crate) async fn sessions_made_at_once_do_not_share_a_seat(Subject { store, .. }: Subject) {
    let first = sale(&store, 1).await;
    let made = at_once((0..20).map(|_| {
        let (store, concert, session) = (store.clone(), first.concert, first.session);
        async move {
            let more = NewSeats { count: 2, price: PRICE };
            store.add_seats(concert, session, more).await.unwrap().unwrap();
            session_of(&store, concert, 3).await
        }
    }))
    .await;
    let sessions: BTreeSet<_> = made.iter().map(|sale| sale.session).collect();
    let seats: BTreeSet<_> = made.iter().flat_map(|sale| sale.seats.clone()).collect();
    assert_eq!((sessions.len(), seats.len()), (20, 60));
    let (_, seats) = store.catalog().inventory(first.concert, first.session).unwrap().snapshot();
    let numbers: Vec<_> = seats.iter().map(|seat| seat.number).collect();
    assert_eq!(numbers, (1..=41).collect::<Vec<_>>());
    assert_eq!(store.catalog().inventories(first.concert).len(), 21);
    assert_clean(&store, START).await;
}

/// What was acknowledged is in the catalogue, the counts and the version with it.
pub(crate) async fn whoever_was_told_of_a_change_sees_it(Subject { store, .. }: Subject) {
    let sale = sale(&store, 5).await;
    let inventory = store.catalog().inventory(sale.concert, sale.session).unwrap().clone();
    let mut version = inventory.version();
    let mut changed = |what: &str| {
        let after = inventory.version();
        assert!(after > version, "{what} did not raise the version");
        version = after;
    };
    let counts = || (inventory.total(), inventory.available(START), inventory.sold());
    let held = sale.held(&store, 1, &[0, 1]).await;
    changed("a hold");
    assert_eq!(counts(), (5, 3, 0));
    store.charge(charge(1, 2 * PRICE, START)).await.unwrap();
    store.pay(pay(1, held.id, START)).await.unwrap();
    changed("a payment");
    assert_eq!(counts(), (5, 3, 2));
    let held = sale.held(&store, 2, &[2]).await;
    changed("a hold");
    store.cancel(held.id, user(2), START).await.unwrap();
    changed("a cancel");
    assert_eq!(counts(), (5, 3, 2));
    sale.held(&store, 3, &[3]).await;
    changed("a hold");
    store.expire_due(at(HOLD_MS), 1).await.unwrap();
    changed("an expiry");
    assert_eq!(counts(), (5, 3, 2));
    // Nothing changes nothing.
    let before = inventory.version();
    assert!(store.reserve(sale.reserve(4, &[0], START)).await.is_err());
    store.charge(charge(4, 1, START)).await.unwrap();
    assert_eq!(inventory.version(), before);
    assert_clean(&store, at(HOLD_MS)).await;
}

/// A first stock of users and concerts is there as a whole, and the books are right with it.
pub(crate) async fn a_seed_is_there_and_is_accounted_for(subject: Subject) {
    let group = NewSeats { count: 4, price: PRICE };
    let sessions = vec![(at(1_000), group.into()), (at(2_000), group.into())];
    let seed = Seed {
        users: 1..=30,
        points: 500,
        concerts: vec![(concert(), sessions), (concert(), vec![])],
    };
    subject.store.charge(charge(40, 7, START)).await.unwrap();
    subject.store.seed(seed, START).await.unwrap();
    // At once, with whatever the store remembers of ids.
    assert_eq!(subject.store.charge(charge(29, 1, START)).await.unwrap().value, 501);
    assert_clean(&subject.store, START).await;
    let before = content(&subject.store.catalog());
    assert_eq!(before.len(), 2);
    assert_eq!(before[0].1.iter().map(|(_, seats)| seats.len()).collect::<Vec<_>>(), [4, 4]);
    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(content(&store.catalog()), before);
    for (by, points) in [(1, 500), (30, 500), (31, 0)] {
        assert_eq!(store.balance(user(by)).await, Ok(points), "user {by}");
    }
    // The points are as good as any, and nobody is told of them: of the charges only.
    assert_eq!(waiting_rows(store, 10).await.len(), 2);
    assert_eq!(store.charge(charge(30, 1, START)).await.unwrap().value, 501);
    assert_clean(store, START).await;
}

/// The first fresh value of a setting stays, until it is replaced on purpose.
pub(crate) async fn settings_keep_the_first_fresh_value(subject: Subject) {
    let store = &subject.store;
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(store.setting("key", None).await, Ok(None));
    assert_eq!(store.setting("key", some("first")).await, Ok(some("first")));
    assert_eq!(store.setting("key", some("second")).await, Ok(some("first")));
    assert_eq!(store.setting("other", None).await, Ok(None));
    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(store.setting("key", some("third")).await, Ok(some("first")));
    store.set_setting("key", "fourth".into()).await.unwrap();
    store.set_setting("new", "".into()).await.unwrap();
    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(store.setting("key", None).await, Ok(some("fourth")));
    assert_eq!(store.setting("new", some("x")).await, Ok(some("")));
}

/// Instances that start at once agree on one signing key.
pub(crate) async fn settings_made_at_once_agree(Subject { store, .. }: Subject) {
    let values = at_once((0..16).map(|n| {
        let store = store.clone();
        async move { store.setting("key", Some(format!("value {n}"))).await.unwrap().unwrap() }
    }))
    .await;
    assert!(values.windows(2).all(|two| two[0] == two[1]), "{values:?}");
    assert_eq!(store.setting("key", None).await, Ok(values.first().cloned()));
}
