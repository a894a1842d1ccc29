//! What operators change: done once, with a row of the log, and not where something is sold.

use std::sync::Arc;

use boxoffice_domain::ids::{ConcertId, QueueName, UserId};
use boxoffice_domain::queue::{QueueSettings, SettingsChange, Ticket};
use boxoffice_domain::sales::{Concert, HoldRejected, Reservation, SeatState};
use boxoffice_domain::time::Timestamp;

use super::refunds::refund;
use super::{
    HOLD_MS, START, Subject, assert_clean, at, at_once, concert, main_queue, sale, session_of,
    settings, ticket, user,
};
use boxoffice_backends::Error;
use boxoffice_backends::store::{
    Act, ActRejected, Acted, Alias, Became, CalledOff, Cancel, ConcertChange, Condition, Effect,
    Epochs, LogEntry, NewPerson, NewSeats, Note, Part, Payment, Person, ReservationFilter,
    ReserveRejected, Role, Rotation, SigningKey, SigningRing, Stood, Store, StoredOperator,
    change_back, settings_tag,
};

/// A note of Ada, an admin, who calls from here.
pub(crate) fn note(operation: &'static str) -> Note {
    Note {
        at: at(7),
        who: "ada".into(),
        role: Role::Admin,
        origin: "203.0.113.9".into(),
        operation,
        reason: None,
        key: None,
        answer: Arc::new(|effect| format!("{effect:?}")),
    }
}

fn keyed(key: &str, fingerprint: u8) -> Note {
    Note { key: Some((key.into(), [fingerprint; 32])), ..note("keyed") }
}

pub(super) async fn effect(store: &Store, act: Act, note: Note) -> Effect {
    match store.act(act, note).await.unwrap() {
        Acted::Now(effect, _) => effect,
        Acted::Before(answer) => panic!("done before: {answer}"),
    }
}

async fn refused(store: &Store, act: Act) -> ActRejected {
    match store.act(act, note("refused")).await {
        Err(Error::Rejected(rejected)) => rejected,
        other => panic!("{other:?}"),
    }
}

async fn log(store: &Store) -> Vec<LogEntry> {
    store.log(i64::MAX, 1_000).await.unwrap()
}

fn operator(name: &str, digest: u8) -> StoredOperator {
    StoredOperator {
        name: name.into(),
        role: Role::Cashier,
        digest: [digest; 32],
        created_at: at(3),
    }
}

fn corrected(concert: ConcertId) -> Act {
    let name = Some("Die Köchin".to_owned());
    Act::ChangeConcert(concert, ConcertChange { name, ..ConcertChange::default() })
}

fn change_queue(change: &SettingsChange, condition: Condition) -> Act {
    Act::ChangeQueue(main_queue(), change.clone(), condition)
}

fn rate(admit_per_second: f64) -> SettingsChange {
    SettingsChange { admit_per_second: Some(admit_per_second), ..SettingsChange::default() }
}

fn alias(token: &str) -> Alias {
    let ticket =
        Ticket { queue: main_queue(), seq: 0, user: user(1), issued_at: at(0), id: ticket(9).id };
    Alias { token: token.into(), ticket, active_until: Some(at(9_000)), spent: None }
}

/// Every act is one row that says who, from where, what it was and what it has become; what is refused is
/// none.
pub(crate) async fn every_act_is_one_row_of_the_log(subject: Subject) {
    let store = &subject.store;
    let vip = || QueueName::new("vip").unwrap();
    let change = SettingsChange { max_active: Some(None), ..SettingsChange::pause(false) };
    effect(store, Act::CreateQueue(main_queue(), settings(), None), note("a")).await;
    assert_eq!(log(store).await.len(), 1);
    let Effect::Queue { before, after, .. } =
        effect(store, change_queue(&change, Condition::Any), note("b")).await
    else {
        panic!("a queue")
    };
    assert_eq!(before, Some(settings()));
    let expected = QueueSettings { max_active: None, paused: false, ..settings() };
    assert_eq!(after, expected);
    assert_eq!(store.queues().await.unwrap()[0].settings, expected);
    let Effect::Concert { before: None, after: Some(made) } =
        effect(store, Act::CreateConcert(concert()), note("c")).await
    else {
        panic!("a concert")
    };
    let id = made.id;
    effect(store, corrected(id), note("d")).await;
    let seats = vec![NewSeats { count: 2, price: 5 }];
    let Effect::Session { after: Some(session), .. } =
        effect(store, Act::CreateSession(id, at(1_000), seats.into()), note("e")).await
    else {
        panic!("a session")
    };
    let more = NewSeats { count: 3, price: 9 };
    effect(store, Act::AddSeats(id, session.id, more), note("f")).await;
    effect(store, Act::ChangeSession(id, session.id, at(2_000)), note("g")).await;
    effect(store, Act::CallOff(id, None), note("off")).await;
    effect(store, Act::RemoveSession(id, session.id), note("h")).await;
    effect(store, Act::RemoveConcert(id), note("i")).await;
    effect(store, Act::Issue(main_queue(), vec![alias("a-secret")]), note("j")).await;
    effect(store, Act::AddOperator(operator("desk-1", 1)), note("k")).await;
    effect(store, Act::RemoveOperator("desk-1".into()), note("l")).await;
    effect(store, Act::SetClockBack(at(9_000_000)), note("m")).await;

    let before = log(store).await;
    for (act, why) in [
        (Act::CreateQueue(main_queue(), settings(), None), ActRejected::Exists),
        (Act::ChangeQueue(vip(), change, Condition::Any), ActRejected::NoSuchQueue),
        (corrected(id), ActRejected::NoSuchConcert),
        (Act::RemoveConcert(id), ActRejected::NoSuchConcert),
        (Act::CreateSession(id, at(0), vec![].into()), ActRejected::NoSuchConcert),
        (Act::AddSeats(id, session.id, more), ActRejected::NoSuchSession),
        (Act::ChangeSession(id, session.id, at(0)), ActRejected::NoSuchSession),
        (Act::RemoveSession(id, session.id), ActRejected::NoSuchSession),
        (Act::CallOff(id, Some(session.id)), ActRejected::NoSuchSession),
        (Act::CallOff(id, None), ActRejected::NoSuchConcert),
        (
            Act::Issue(main_queue(), vec![alias("a-secret")]),
            ActRejected::TokenExists("a-secret".into()),
        ),
        (Act::RemoveOperator("desk-1".into()), ActRejected::NoSuchOperator),
    ] {
        assert_eq!(refused(store, act.clone()).await, why, "{act:?}");
    }
    let subject = subject.reopened().await;
    let entries = log(&subject.store).await;
    assert_eq!(entries, before, "what is refused leaves none, and a restart keeps them");
    let operations: Vec<&str> = entries.iter().map(|entry| entry.operation.as_str()).collect();
    assert_eq!(
        operations,
        ["m", "l", "k", "j", "i", "h", "off", "g", "f", "e", "d", "c", "b", "a"]
    );
    assert!(entries.is_sorted_by(|a, b| a.id > b.id));
    for entry in &entries {
        let who = (entry.at, entry.who.as_str(), entry.role, entry.origin.as_str());
        assert_eq!(who, (at(7), "ada", Role::Admin, "203.0.113.9"));
        let text = format!("{entry:?}");
        assert!(!text.contains("a-secret") && !text.contains("1, 1, 1"), "a secret: {text}");
    }
    let changed = &entries[12];
    assert_eq!(changed.target, "queue main");
    assert!(changed.before.as_ref().unwrap().contains("\"maxActive\":77"), "{changed:?}");
    assert!(changed.after.as_ref().unwrap().contains("\"maxActive\":null"), "{changed:?}");
    let named = &entries[10];
    assert_eq!(named.target, format!("concert {id}"));
    assert!(named.before.as_ref().unwrap().contains("Öwl"), "{named:?}");
    assert!(named.after.as_ref().unwrap().contains("Die Köchin"), "{named:?}");
    let gone = |entry: &LogEntry| (entry.before.is_some(), entry.after.is_some());
    assert_eq!(gone(&entries[1]), (true, false));
    assert_eq!(gone(&entries[4]), (true, false));
    assert_eq!(gone(&entries[13]), (false, true));
    let off = &entries[6];
    assert_eq!(off.target, format!("concert {id}"));
    assert_eq!(off.before.as_deref(), Some("{\"sessionsCancelled\":0}"));
    assert!(off.after.as_ref().unwrap().contains("\"sessionsCancelled\":1"), "{off:?}");
    // In pages.
    let page = subject.store.log(entries[4].id, 3).await.unwrap();
    assert_eq!(page, entries[5..8]);
    assert_clean(&subject.store, START).await;
}

/// A restore begins an epoch, which is in the log and stays.
pub(crate) async fn an_epoch_begins_and_stays(subject: Subject) {
    assert_eq!(subject.store.epochs().await, Ok(Epochs::default()));
    let first = Epochs::default().with(7, [(main_queue(), 5)]).unwrap();
    let begun = effect(&subject.store, Act::BeginEpoch(first.clone()), note("restore")).await;
    assert_eq!(begun, Effect::Epoch { id: 7 });
    let subject = subject.reopened().await;
    assert_eq!(subject.store.epochs().await, Ok(first.clone()));
    let second = first.with(u32::MAX, [(main_queue(), 9)]).unwrap();
    effect(&subject.store, Act::BeginEpoch(second.clone()), note("restore")).await;
    assert_eq!(subject.store.epochs().await, Ok(second));
    assert_eq!(subject.store.is_copy().await, Ok(false));
    let log = log(&subject.store).await;
    assert_eq!((log.len(), log[0].target.as_str()), (2, "epoch"));
    assert_clean(&subject.store, START).await;
}

/// The same key and the same request do it once and give the first answer; another request is refused.
pub(crate) async fn an_act_under_a_key_is_done_once(subject: Subject) {
    let store = &subject.store;
    let create = || Act::CreateConcert(concert());
    let first = match store.act(create(), keyed("k", 1)).await.unwrap() {
        Acted::Now(effect, _) => format!("{effect:?}"),
        Acted::Before(answer) => panic!("{answer}"),
    };
    let again = store.act(create(), keyed("k", 1)).await;
    assert_eq!(again, Ok(Acted::Before(first.clone())));
    let reused = Err(Error::Rejected(ActRejected::KeyReused));
    assert_eq!(store.act(create(), keyed("k", 2)).await, reused);
    assert_eq!(store.acted_before(&keyed("k", 1)).await, Ok(Some(first.clone())));
    assert_eq!(store.acted_before(&keyed("other", 1)).await, Ok(None));
    assert_eq!(
        store.acted_before(&keyed("k", 2)).await,
        Err(Error::Rejected(ActRejected::KeyReused))
    );
    // Another operator's key is another key.
    let bob = Note { who: "bob".into(), ..keyed("k", 1) };
    assert!(matches!(store.act(create(), bob).await, Ok(Acted::Now(..))));
    assert_eq!(store.catalog().concerts().count(), 2);

    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(store.act(create(), keyed("k", 1)).await, Ok(Acted::Before(first)));
    assert_eq!(log(store).await.len(), 2, "a repetition is no change");
    // Many at once.
    let acted =
        at_once(
            (0..8).map(|_| {
                let store = store.clone();
                async move {
                    store.act(Act::CreateConcert(concert()), keyed("at once", 3)).await.unwrap()
                }
            }),
        )
        .await;
    let now = acted.iter().filter(|acted| matches!(acted, Acted::Now(..))).count();
    assert_eq!(now, 1, "{acted:?}");
    assert_eq!(store.catalog().concerts().count(), 3);
    // Forgotten with the keys of buyers.
    let keep = std::time::Duration::from_millis(1);
    store.forget_keys(at(8), keep, 10).await.unwrap();
    assert!(matches!(store.acted_before(&keyed("k", 1)).await, Ok(Some(_))), "not old enough");
    store.forget_keys(at(9), keep, 10).await.unwrap();
    assert_eq!(store.acted_before(&keyed("k", 1)).await, Ok(None));
}

/// A correction changes what it names, is seen at once, and decides who may buy.
pub(crate) async fn a_correction_is_seen_and_decides(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 3).await;
    let change = |change| Act::ChangeConcert(sale.concert, change);
    let shown = |store: &Store| Concert::clone(store.catalog().concert(sale.concert).unwrap());
    let before = shown(store);
    let venue = ConcertChange { venue: Some("Hall 2".into()), ..ConcertChange::default() };
    effect(store, change(venue), note("a")).await;
    assert_eq!(shown(store), Concert { venue: "Hall 2".into(), ..before.clone() });
    // Both ends are checked against what the change leaves as it is.
    let closes = |at| ConcertChange { closes_at: Some(at), ..ConcertChange::default() };
    assert_eq!(refused(store, change(closes(START))).await, ActRejected::ClosesBeforeOpening);
    effect(store, change(closes(at(50))), note("b")).await;
    let late = store.reserve(sale.reserve(1, &[0], at(50))).await;
    let closed = HoldRejected::Closed { closed_at: at(50) };
    assert_eq!(late, Err(Error::Rejected(ReserveRejected::Hold(closed))));
    // A session that begins earlier is over earlier.
    effect(store, change(closes(at(99_000_000))), note("c")).await;
    let earlier = Act::ChangeSession(sale.concert, sale.session, at(40));
    effect(store, earlier, note("d")).await;
    let late = store.reserve(sale.reserve(1, &[0], at(60))).await;
    let started = HoldRejected::SessionStarted;
    assert_eq!(late, Err(Error::Rejected(ReserveRejected::Hold(started))));
    let later = Act::ChangeSession(sale.concert, sale.session, at(90_000_000));
    effect(store, later, note("e")).await;
    sale.held(store, 1, &[0]).await;
    let other =
        Act::ChangeSession(ConcertId::new(sale.concert.get() + 1).unwrap(), sale.session, at(0));
    assert_eq!(refused(store, other).await, ActRejected::NoSuchSession);

    let subject = subject.reopened().await;
    let catalog = subject.store.catalog();
    let inventory = catalog.inventory(sale.concert, sale.session).unwrap();
    assert_eq!(inventory.session().starts_at, at(90_000_000));
    let after = Concert { venue: "Hall 2".into(), closes_at: at(99_000_000), ..before };
    assert_eq!(shown(&subject.store), after);
    assert!(matches!(sale.owner(&subject.store, 0), SeatState::Held { .. }));
    assert_clean(&subject.store, START).await;
}

/// Corrections at once never undo each other.
pub(crate) async fn corrections_at_once_all_stand(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 1).await;
    for round in 0..10_i64 {
        let changes = [
            ConcertChange { name: Some(format!("name {round}")), ..ConcertChange::default() },
            ConcertChange { venue: Some(format!("venue {round}")), ..ConcertChange::default() },
            ConcertChange { opens_at: Some(at(round)), ..ConcertChange::default() },
            ConcertChange { closes_at: Some(at(9_000 + round)), ..ConcertChange::default() },
        ];
        at_once(changes.into_iter().map(|change| {
            let store = store.clone();
            async move { effect(&store, Act::ChangeConcert(sale.concert, change), note("x")).await }
        }))
        .await;
        let subject = store.catalog();
        let shown = subject.concert(sale.concert).unwrap();
        let found = (shown.name.clone(), shown.venue.clone(), shown.opens_at, shown.closes_at);
        let expected =
            (format!("name {round}"), format!("venue {round}"), at(round), at(9_000 + round));
        assert_eq!(found, expected);
    }
    assert_eq!(log(store).await.len(), 40);
}

/// What is sold or held stays; what is not goes, for good, and nothing gets its ids again.
pub(crate) async fn only_what_nobody_has_is_removed(subject: Subject) {
    let store = &subject.store;
    let kept = sale(store, 2).await;
    let empty = session_of(store, kept.concert, 2).await;
    let held = kept.held(store, 1, &[0]).await;
    for act in [Act::RemoveSession(kept.concert, kept.session), Act::RemoveConcert(kept.concert)] {
        assert_eq!(refused(store, act).await, ActRejected::SoldOrHeld);
    }
    assert_eq!(store.catalog().inventories(kept.concert).len(), 2, "nothing went half");
    effect(store, Act::RemoveSession(kept.concert, empty.session), note("a")).await;
    assert!(store.catalog().inventory_of(empty.session).is_none());
    let gone = store.reserve(empty.reserve(2, &[0], START)).await;
    assert_eq!(gone, Err(Error::Rejected(ReserveRejected::NoSuchSession)));
    let seats = NewSeats { count: 1, price: 1 };
    assert_eq!(store.add_seats(kept.concert, empty.session, seats).await, Ok(None));
    // Sold is as good as held; given back is as good as never.
    store.cancel(held.id, user(1), at(1)).await.unwrap();
    let bought = kept.bought(store, 2, &[1]).await;
    assert_eq!(
        refused(store, Act::RemoveConcert(kept.concert)).await,
        ActRejected::SoldOrHeld,
        "{bought:?}"
    );
    let other = sale(store, 2).await;
    let returned = other.held(store, 3, &[0, 1]).await;
    store.cancel(returned.id, user(3), at(2)).await.unwrap();
    effect(store, Act::RemoveConcert(other.concert), note("b")).await;
    assert!(store.catalog().concert(other.concert).is_none());
    assert!(store.catalog().inventory_of(other.session).is_none());
    assert_clean(store, START).await;

    let subject = subject.reopened().await;
    let store = &subject.store;
    assert_eq!(store.catalog().concerts().count(), 1);
    assert!(store.catalog().inventory_of(other.session).is_none());
    // The reservation of a session that is gone can still be looked up.
    let (found, _) = store.reservation(returned.id).await.unwrap().unwrap();
    assert_eq!(found.session, other.session);
    let next = sale(store, 1).await;
    assert!(next.concert > other.concert && next.session > other.session);
    assert!(next.seats[0] > other.seats[1], "{next:?} {other:?}");
    assert_clean(store, at(HOLD_MS)).await;
}

/// What was refunded stays in the books, so its session does; a session that was called off and sold
/// nothing goes. Seats that are free later do not keep it.
pub(crate) async fn what_was_refunded_is_not_removed(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 2).await;
    let empty = session_of(store, sale.concert, 2).await;
    let bought = sale.bought(store, 1, &[0]).await;
    effect(store, Act::CallOff(sale.concert, None), note("a")).await;
    let settled = store.settle_called_off(&[bought.0.id], at(8)).await.unwrap();
    assert_eq!(settled, [CalledOff::Refunded]);
    assert_eq!(sale.owner(store, 0), SeatState::Available);
    let remove = || Act::RemoveSession(sale.concert, sale.session);
    for act in [remove(), Act::RemoveConcert(sale.concert)] {
        assert_eq!(refused(store, act).await, ActRejected::SoldOrHeld);
    }
    effect(store, Act::RemoveSession(sale.concert, empty.session), note("b")).await;

    let subject = subject.reopened().await;
    let store = &subject.store;
    let catalog = store.catalog();
    assert_eq!(catalog.inventories(sale.concert).len(), 1);
    let off = catalog.inventory_of(sale.session).unwrap().called_off();
    assert_eq!(off, Some(at(7)));
    assert_eq!(refused(store, remove()).await, ActRejected::SoldOrHeld);
    // Moving it does not bring it back.
    effect(store, Act::ChangeSession(sale.concert, sale.session, at(90_000_000)), note("c")).await;
    let answer = store.reserve(sale.reserve(2, &[1], at(9))).await;
    let off = HoldRejected::SessionCancelled;
    assert_eq!(answer, Err(Error::Rejected(ReserveRejected::Hold(off))));
    assert_eq!(store.refunded(sale.session).await, Ok(1));

    let other = super::sale(store, 2).await;
    let held = other.held(store, 3, &[0]).await;
    let later = Cancel {
        reservation: held.id,
        user: user(3),
        release_delay: std::time::Duration::from_secs(60),
        now: at(10),
    };
    store.give_back(later).await.unwrap();
    assert!(matches!(other.owner(store, 0), SeatState::Released { .. }));
    effect(store, Act::RemoveSession(other.concert, other.session), note("d")).await;
    assert_clean(store, at(11)).await;
}

/// Of those who call a concert off at once, one does it; all are in the log.
pub(crate) async fn calling_off_counts_what_it_did(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 1).await;
    session_of(store, sale.concert, 1).await;
    let off = |session| Act::CallOff(sale.concert, session);
    effect(store, off(Some(sale.session)), note("a")).await;
    let told = at_once((0..4).map(|_| {
        let (store, act) = (store.clone(), off(None));
        async move { effect(&store, act, note("b")).await }
    }))
    .await;
    let mut before: Vec<usize> = told
        .iter()
        .map(|told| match told {
            Effect::CalledOff { session: None, before, after: 2, .. } => *before,
            other => panic!("{other:?}"),
        })
        .collect();
    before.sort_unstable();
    assert_eq!(before, [1, 2, 2, 2]);
    assert_eq!(log(store).await.len(), 5);
    let elsewhere = ConcertId::new(sale.concert.get() + 1).unwrap();
    let wrong = Act::CallOff(elsewhere, Some(sale.session));
    assert_eq!(refused(store, wrong).await, ActRejected::NoSuchSession);
    for inventory in store.catalog().inventories(sale.concert) {
        assert_eq!(inventory.called_off(), Some(at(7)));
    }
}

/// A seat is sold, or its session is removed; never both.
pub(crate) async fn a_hold_and_a_removal_at_once_and_one_wins(subject: Subject) {
    let store = &subject.store;
    let (mut sold, mut removed) = (0, 0);
    for round in 0..12_i64 {
        let sale = sale(store, 3).await;
        let (holder, remover) = (store.clone(), store.clone());
        let (session, concert) = (sale.session, sale.concert);
        let hold = sale.reserve(100 + round, &[0, 1], START);
        let (held, gone) = if round % 2 == 0 {
            tokio::join!(
                tokio::spawn(async move { holder.reserve(hold).await }),
                tokio::spawn(async move {
                    remover.act(Act::RemoveSession(concert, session), note("x")).await
                }),
            )
        } else {
            let (gone, held) = tokio::join!(
                tokio::spawn(
                    async move { remover.act(Act::RemoveConcert(concert), note("x")).await }
                ),
                tokio::spawn(async move { holder.reserve(hold).await }),
            );
            (held, gone)
        };
        let (held, gone) = (held.unwrap(), gone.unwrap());
        assert_ne!(held.is_ok(), gone.is_ok(), "round {round}: {held:?} {gone:?}");
        sold += u32::from(held.is_ok());
        removed += u32::from(gone.is_ok());
    }
    assert_eq!(sold + removed, 12);
    assert_clean(store, START).await;
}

/// Lists are whole in parts of any size, by state too.
pub(crate) async fn lists_are_whole_in_parts(subject: Subject) {
    let store = &subject.store;
    let sale = sale(store, 10).await;
    sale.bought(store, 1, &[0, 1]).await;
    sale.held(store, 2, &[2]).await;
    let back = sale.held(store, 2, &[3]).await;
    store.cancel(back.id, user(2), at(1)).await.unwrap();
    sale.bought(store, 3, &[4]).await;
    sale.held(store, 4, &[5]).await;
    let returned = sale.bought(store, 5, &[6]).await;
    store.refund(refund(5, &returned, at(2))).await.unwrap();
    store.charge(super::charge(2, 7, START)).await.unwrap();
    store.charge(super::charge(4, 3, START)).await.unwrap();
    for max in [1, 2, 3, 100] {
        let mut found: Vec<(i64, usize)> = Vec::new();
        let (mut after, mut parts) = (0, 0);
        loop {
            let part =
                store.list_reservations(after, max, ReservationFilter::default()).await.unwrap();
            assert!(part.items.len() <= max as usize);
            let row = |(it, _): &(Reservation, Timestamp)| (it.user.get(), it.items.len());
            found.extend(part.items.iter().map(row));
            parts += 1;
            let Some(next) = part.next else { break };
            assert!(next > after, "{next} after {after}");
            after = next;
        }
        // Ids come in blocks where there is a server, so their order is not that of time.
        found.sort_unstable();
        assert_eq!(found, [(1, 2), (2, 1), (2, 1), (3, 1), (4, 1), (5, 1)], "{max}");
        assert!(parts >= 6 / max as usize);
    }
    for (became, users) in [
        (Became::Held, &[2_i64, 4] as &[i64]),
        (Became::Paid, &[1, 3]),
        (Became::Cancelled, &[2]),
        (Became::Expired, &[]),
        (Became::Refunded, &[5]),
    ] {
        let filter = ReservationFilter { became: Some(became), ..ReservationFilter::default() };
        let part = store.list_reservations(0, 100, filter).await.unwrap();
        let mut found: Vec<i64> = part.items.iter().map(|(it, _)| it.user.get()).collect();
        found.sort_unstable();
        assert_eq!((&found[..], part.next), (users, None), "{became:?}");
    }
    let paid = store.list_payments(0, 1).await.unwrap();
    let rest = store.list_payments(paid.next.unwrap(), 100).await.unwrap();
    let of = |part: &Part<(Payment, UserId)>| -> Vec<(i64, i64)> {
        part.items.iter().map(|(payment, user)| (user.get(), payment.amount)).collect()
    };
    let mut payments = [of(&paid), of(&rest)].concat();
    payments.sort_unstable();
    assert_eq!((payments, rest.next), (vec![(1, 200), (3, 100), (5, 100)], None));
    let people = store.list_people(0, 2).await.unwrap();
    let rest = store.list_people(people.next.unwrap(), 100).await.unwrap();
    let person = |id, balance, held, paid| Person { user: user(id), balance, held, paid };
    assert_eq!(people.items, [person(1, 0, 0, 1), person(2, 7, 1, 0)]);
    assert_eq!(rest.items, [person(3, 0, 0, 1), person(4, 3, 1, 0), person(5, 100, 0, 0)]);
    assert_eq!(rest.next, None);
}

/// Operators are known by what is left of their tokens, and gone once they are removed.
pub(crate) async fn operators_come_and_go(subject: Subject) {
    let store = &subject.store;
    assert_eq!(store.operators().await, Ok(vec![]));
    let (one, two) = (operator("desk-1", 1), operator("desk-2", 2));
    for new in [&one, &two] {
        effect(store, Act::AddOperator(new.clone()), note("add")).await;
    }
    assert_eq!(refused(store, Act::AddOperator(operator("desk-1", 3))).await, ActRejected::Exists);
    assert_eq!(store.operators().await, Ok(vec![one.clone(), two.clone()]));
    // Removed, added under the same name and removed again, in one moment.
    for digest in 4..7 {
        effect(store, Act::RemoveOperator("desk-1".into()), note("remove")).await;
        effect(store, Act::AddOperator(operator("desk-1", digest)), note("add")).await;
    }
    let subject = subject.reopened().await;
    let found = subject.store.operators().await.unwrap();
    assert_eq!(found, [operator("desk-1", 6), two]);
}

fn rotation(id: &str, fill: u8, withdraws: bool) -> Rotation {
    let seed = Some([fill; 32]);
    let (id, public, signs_from) = (id.to_owned(), [!fill; 32], at(i64::from(fill)));
    let key = SigningKey { id, public, seed, signs_from, is_withdrawn: false };
    Rotation { key, withdraws, forgotten: vec!["one".into()] }
}

/// The keys of the service are in the store and in no log.
pub(crate) async fn keys_that_sign_change_and_stay(subject: Subject) {
    let store = &subject.store;
    assert_eq!(store.signing_keys(None).await, Ok(SigningRing::default()));
    let first = rotation("one", 1, false).key;
    let ring = SigningRing::of(first.clone());
    assert_eq!(store.signing_keys(Some(first.clone())).await, Ok(ring.clone()));
    let other = rotation("other", 9, false).key;
    assert_eq!(store.signing_keys(Some(other)).await, Ok(ring), "there is one");

    let changed = effect(store, Act::RotateKey(rotation("two", 201, false)), note("rotate")).await;
    let Effect::Key { before, after, signs_from, withdraws } = changed else { panic!("a key") };
    let told = (before.as_deref(), after.as_str(), signs_from, withdraws);
    assert_eq!(told, (Some("one"), "two", at(201), false));
    // Whoever carries it out twice has the key once.
    effect(store, Act::RotateKey(rotation("two", 202, true)), note("rotate")).await;
    effect(store, Act::RotateKey(rotation("three", 203, true)), note("rotate")).await;
    let subject = subject.reopened().await;
    let ring = subject.store.signing_keys(None).await.unwrap();
    let keys: Vec<_> = ring
        .keys()
        .iter()
        .map(|key| (key.id.as_str(), key.seed.map(|seed| seed[0]), key.is_withdrawn))
        .collect();
    assert_eq!(keys, [("one", None, true), ("two", None, true), ("three", Some(203), false)]);
    let entries = log(&subject.store).await;
    assert_eq!((entries.len(), entries[0].target.as_str()), (3, "signing keys"));
    for entry in &entries {
        let text = format!("{entry:?}").to_lowercase();
        assert!(!text.contains("cbcb") && !text.contains("203, 203"), "a secret: {text}");
    }
    assert_clean(&subject.store, START).await;
}

/// None of the changes that are made at the same time is lost.
pub(crate) async fn keys_changed_at_once_are_all_there(subject: Subject) {
    let names: Vec<String> = (0..8).map(|n| format!("k{n}")).collect();
    at_once(names.clone().into_iter().map(|name| {
        let store = subject.store.clone();
        async move {
            let act = Act::RotateKey(rotation(&name, 5, false));
            // Where two wait for each other's locks, one is told to come again.
            while let Err(error) = store.act(act.clone(), note("rotate")).await {
                assert!(matches!(error, Error::Fault(_)), "{error:?}");
            }
        }
    }))
    .await;
    let ring = subject.store.signing_keys(None).await.unwrap();
    let mut found: Vec<&str> = ring.keys().iter().map(|key| key.id.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, names);
}

/// Of those who have seen the same settings, one changes them; the others are told what they are now.
pub(crate) async fn of_two_who_saw_the_same_one_changes_a_queue(subject: Subject) {
    let store = &subject.store;
    effect(store, Act::CreateQueue(main_queue(), settings(), None), note("create")).await;
    for round in 0..4 {
        let seen = store.queues().await.unwrap()[0].settings.clone();
        let tag = settings_tag(&seen);
        let acted = at_once((0..6).map(|who| {
            let (store, tag) = (store.clone(), tag.clone());
            async move {
                let change = rate(f64::from(100 * (round + 1) + who));
                store.act(change_queue(&change, Condition::Tagged(tag)), note("change")).await
            }
        }))
        .await;
        let mut done = Vec::new();
        for acted in acted {
            match acted {
                Ok(Acted::Now(Effect::Queue { after, .. }, _)) => done.push(after),
                Err(Error::Rejected(ActRejected::ChangedMeanwhile(stood))) => {
                    let Stood(now) = *stood;
                    assert!(now != seen && settings_tag(&now) != tag, "{now:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(done.len(), 1, "{done:?}");
        assert_eq!(store.queues().await.unwrap()[0].settings, done[0]);
    }
    // What is refused is not in the log; who asks for nothing is not refused.
    assert_eq!(log(store).await.len(), 5);
    effect(store, change_queue(&rate(7.0), Condition::Any), note("change")).await;
    let refused = refused(store, change_queue(&rate(8.0), Condition::Tagged("x".into()))).await;
    let stood = QueueSettings { admit_per_second: 7.0, ..settings() };
    assert_eq!(refused, ActRejected::ChangedMeanwhile(Box::new(Stood(stood))));
    assert_clean(store, START).await;
}

/// Takes back what an entry of the log has changed.
fn undo(entry: &LogEntry) -> Act {
    let back = change_back(entry.before.as_deref().unwrap()).unwrap();
    let became = entry.after.clone().unwrap();
    let until = Timestamp(entry.at.0 + 1_000);
    change_queue(&back, Condition::Undoes { entry: entry.id, became, until })
}

/// A change is taken back once, in time, and only as long as the queue is as it left it.
pub(crate) async fn a_change_is_taken_back_once(subject: Subject) {
    let store = &subject.store;
    effect(store, Act::CreateQueue(main_queue(), settings(), None), note("create")).await;
    let why = Note { reason: Some("너무 빨라 — \u{1f525}".into()), ..note("change") };
    let opens =
        SettingsChange { opens_at: Some(Some(at(99_000))), max_active: Some(None), ..rate(0.3) };
    let Ok(Acted::Now(_, id)) = store.act(change_queue(&opens, Condition::Any), why).await else {
        panic!("changed")
    };
    let entry = log(store).await.remove(0);
    assert_eq!((entry.id, entry.undoes), (id, None));
    assert_eq!(entry.reason.as_deref(), Some("너무 빨라 — \u{1f525}"));

    // Changed since, and changed back by hand: then it is as the change left it.
    effect(store, change_queue(&rate(0.4), Condition::Any), note("change")).await;
    let ActRejected::ChangedSince(stood) = refused(store, undo(&entry)).await else {
        panic!("changed since")
    };
    assert_eq!(stood.0.admit_per_second, 0.4);
    effect(store, change_queue(&rate(0.3), Condition::Any), note("change")).await;
    let late = Note { at: Timestamp(entry.at.0 + 1_001), ..note("undo") };
    let late = store.act(undo(&entry), late).await;
    assert_eq!(late, Err(Error::Rejected(ActRejected::UndoTooLate)));

    let acted = at_once((0..6).map(|_| {
        let (store, entry) = (store.clone(), entry.clone());
        async move { store.act(undo(&entry), note("undo")).await }
    }))
    .await;
    let done = acted.iter().filter_map(|acted| match acted {
        Ok(Acted::Now(_, id)) => Some(*id),
        _ => None,
    });
    let done: Vec<i64> = done.collect();
    assert_eq!(done.len(), 1, "{acted:?}");
    for acted in &acted {
        let undone = Err(Error::Rejected(ActRejected::Undone(done[0])));
        assert!(*acted == undone || matches!(acted, Ok(Acted::Now(..))), "{acted:?}");
    }
    assert_eq!(store.queues().await.unwrap()[0].settings, settings());
    let undone = log(store).await.remove(0);
    assert_eq!((undone.id, undone.undoes), (done[0], Some(entry.id)));

    // However late it is, and whatever the queue is by then, it stays undone; and that can be taken back.
    let subject = subject.reopened().await;
    let store = &subject.store;
    let later = Note { at: Timestamp(entry.at.0 + 900_000), ..note("undo") };
    let again = store.act(undo(&entry), later).await;
    assert_eq!(again, Err(Error::Rejected(ActRejected::Undone(undone.id))));
    effect(store, undo(&undone), note("undo")).await;
    let redone = store.queues().await.unwrap()[0].settings.clone();
    assert_eq!((redone.admit_per_second, redone.opens_at), (0.3, Some(at(99_000))));
    assert_eq!(log(store).await.len(), 6);
    assert_clean(store, START).await;
}

/// Reservations are found by whose they are, and by what they are for.
pub(crate) async fn reservations_are_found(subject: Subject) {
    let store = &subject.store;
    let one = sale(store, 8).await;
    let other = sale(store, 8).await;
    for (sale, user, seat) in
        [(&one, 1, 0), (&other, 4, 0), (&one, 2, 1), (&other, 5, 1), (&one, 3, 2), (&other, 6, 2)]
    {
        sale.bought(store, user, &[seat]).await;
    }
    let back = one.held(store, 7, &[3]).await;
    store.cancel(back.id, user(7), at(1)).await.unwrap();
    let held = other.held(store, 7, &[3]).await;
    let all = ReservationFilter::default();
    let users = |ids: &[i64]| Some(ids.iter().map(|id| user(*id)).collect::<Vec<_>>());
    for (filter, expected) in [
        (ReservationFilter { users: users(&[7]), ..all.clone() }, &[7_i64, 7] as &[i64]),
        (ReservationFilter { users: users(&[2, 7]), ..all.clone() }, &[2, 7, 7]),
        (ReservationFilter { users: users(&[]), ..all.clone() }, &[]),
        (ReservationFilter { users: users(&[99]), ..all.clone() }, &[]),
        (ReservationFilter { concert: Some(one.concert), ..all.clone() }, &[1, 2, 3, 7]),
        (ReservationFilter { session: Some(other.session), ..all.clone() }, &[4, 5, 6, 7]),
        (
            ReservationFilter {
                concert: Some(one.concert),
                session: Some(other.session),
                ..all.clone()
            },
            &[],
        ),
        (ReservationFilter { reservation: Some(held.id), ..all.clone() }, &[7]),
        (ReservationFilter { reservation: Some(held.id), users: users(&[7]), ..all.clone() }, &[7]),
        (ReservationFilter { reservation: Some(held.id), users: users(&[2]), ..all.clone() }, &[]),
        (ReservationFilter { users: users(&[7]), became: Some(Became::Held), ..all.clone() }, &[7]),
        (
            ReservationFilter {
                users: users(&[1, 2, 5, 6, 7]),
                became: Some(Became::Paid),
                concert: Some(other.concert),
                session: Some(other.session),
                ..all.clone()
            },
            &[5, 6],
        ),
    ] {
        for max in [1, 2, 100] {
            let (mut found, mut after) = (Vec::new(), 0);
            loop {
                let part = store.list_reservations(after, max, filter.clone()).await.unwrap();
                assert!(part.items.len() <= max as usize);
                found.extend(part.items.iter().map(|(it, _)| it.user.get()));
                let Some(next) = part.next else { break };
                assert!(next > after, "{next} after {after}");
                after = next;
            }
            found.sort_unstable();
            assert_eq!(found, expected, "{filter:?} by {max}");
        }
    }

    let person = |digest: u8, name: &str| NewPerson {
        digest: [digest; 32],
        issuer: format!("https://issuer.example/{digest}"),
        name: name.into(),
        id: None,
    };
    let people = vec![person(1, "ada"), person(2, "김철수"), person(3, "ada"), person(4, "Ada")];
    let ids = store.people(people, at(1)).await.unwrap();
    let id = |index: usize| ids[index].unwrap();
    for (name, expected) in
        [("ada", vec![id(0), id(2)]), ("김철수", vec![id(1)]), ("Ada", vec![id(3)]), ("ad", vec![])]
    {
        assert_eq!(store.people_named(name.into()).await.unwrap(), expected, "{name}");
    }
    assert_clean(store, START).await;
}
