//! Batches of commands on rows that stand for a store, and what is left of them afterwards.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::event::Event;
use crate::sales::{Concert, Item, ReservationState, Seat, SeatState, Session};

const NOW: Timestamp = Timestamp(1_000_000);
const HOLD_MS: i64 = 300_000;

fn user(id: i64) -> UserId {
    UserId::new(id).unwrap()
}

fn seat(id: i64) -> SeatId {
    SeatId::new(id).unwrap()
}

fn session() -> SessionId {
    SessionId::new(7).unwrap()
}

fn concert() -> ConcertId {
    ConcertId::new(3).unwrap()
}

fn ticket(seq: u64) -> TicketRef {
    let queue = QueueName::new("main").unwrap();
    TicketRef { queue, seq, id: TicketId([seq as u8; 16]) }
}

fn key(name: &str) -> Option<IdempotencyKey> {
    Some(IdempotencyKey { key: name.into(), fingerprint: [1; 32] })
}

fn reserve(by: i64, seats: &[i64]) -> Reserve {
    Reserve {
        user: user(by),
        ticket: ticket(by as u64),
        ticket_over: false,
        concert: concert(),
        session: session(),
        seats: seats.iter().copied().map(seat).collect(),
        best: None,
        beside: Vec::new(),
        limits: Limits {
            hold: Duration::from_millis(HOLD_MS as u64),
            seats_per_reservation_max: 4,
            seats_per_user_max: 4,
            live_holds_max: u32::MAX,
            holds_per_ticket_max: u32::MAX,
            no_orphans: false,
        },
        release_delay: Duration::ZERO,
        idempotency: None,
        now: NOW,
    }
}

fn pay(by: i64, reservation: i64) -> Pay {
    let reservation = ReservationId::new(reservation).unwrap();
    Pay { user: user(by), ticket: ticket(by as u64), reservation, idempotency: None, now: NOW }
}

fn charge(by: i64, amount: i64) -> Charge {
    Charge { user: user(by), amount, idempotency: None, now: NOW }
}

/// A store of ten seats at 100 points, in which every user has a balance of 1,000 points; with the
/// rows that these commands want, and no others.
fn rows_for(commands: &[Command], before: impl Fn(&mut Rows, &Wants)) -> Rows {
    let mut wants = Wants::default();
    commands.iter().for_each(|command| wants.add(command));
    let mut ids = Ids::default();
    ids.reservations.add(50..99);
    ids.payments.add(60..99);
    ids.entries.add(70..99);
    let mut rows = Rows::new(ids);
    for of in &wants.sessions {
        let known = Concert {
            id: concert(),
            name: "c".into(),
            venue: "v".into(),
            queue: QueueName::new("main").unwrap(),
            opens_at: Timestamp(0),
            closes_at: Timestamp(i64::MAX),
        };
        let starts_at = Timestamp(i64::MAX);
        let session = Session { id: session(), concert: concert(), starts_at };
        rows.put_session(*of, (Some(Arc::new(known)), Some(session)));
    }
    for user in &wants.accounts {
        rows.put_account(*user, 1_000);
    }
    for id in &wants.reservations {
        rows.put_reservation(*id, None);
    }
    for (id, session) in &wants.seats {
        let number = u32::try_from(id.get()).unwrap();
        let free = Seat { id: *id, number, price: 100, state: SeatState::Available };
        rows.put_seat(*id, (id.get() <= 10).then_some((*session, free)));
    }
    for of in &wants.live_seats {
        rows.put_live_seats(*of, Vec::new());
    }
    for ticket in &wants.tickets {
        rows.put_ticket(ticket.clone(), false);
    }
    for ticket in &wants.holds_of {
        rows.put_ticket_holds(ticket.clone(), Vec::new());
    }
    for (user, key) in &wants.keys {
        rows.put_key(*user, key.clone(), None);
    }
    before(&mut rows, &wants);
    rows
}

fn run(commands: &[Command]) -> (Vec<Outcome>, Changes, Ids) {
    let mut rows = rows_for(commands, |_, _| {});
    let outcomes = execute_all(&mut rows, commands);
    let (changes, ids) = rows.into_changes();
    (outcomes, changes, ids)
}

fn execute_all(rows: &mut Rows, commands: &[Command]) -> Vec<Outcome> {
    commands.iter().map(|command| execute(rows, command, command.now()).unwrap()).collect()
}

fn held(outcome: &Outcome) -> &Answer<Reservation> {
    match outcome {
        Outcome::Reserve(Ok(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_two_who_want_one_seat_in_a_batch_the_first_gets_it() {
    let commands = [Command::Reserve(reserve(1, &[4, 5])), Command::Reserve(reserve(2, &[5, 6]))];
    let (outcomes, changes, ids) = run(&commands);
    assert_eq!(held(&outcomes[0]).value.id.get(), 50);
    let taken = Err(ReserveRejected::Hold(HoldRejected::SeatTaken(seat(5))));
    assert_eq!(outcomes[1], Outcome::Reserve(taken));
    // A refusal leaves nothing, and uses up no id.
    assert_eq!(changes.seats.len(), 2);
    assert_eq!((changes.reservations_made.len(), changes.events.len()), (1, 1));
    assert_eq!(ids.reservations.left(), 48);
}

#[test]
fn a_batch_of_refusals_changes_nothing() {
    let nothing = [
        Command::Reserve(reserve(1, &[11])),
        Command::Reserve(reserve(1, &[])),
        Command::Reserve(reserve(1, &[1, 1])),
        Command::Reserve(reserve(1, &[1, 2, 3, 4, 5, 6, 7])),
        Command::Charge(charge(1, 0)),
        Command::Pay(pay(1, 9)),
        Command::Expire(Expire { reservation: ReservationId::new(9).unwrap(), now: NOW }),
    ];
    let (_, changes, _) = run(&nothing);
    assert!(changes.is_empty());
    assert!(changes.accounts.is_empty() && changes.keys.is_empty() && changes.seats.is_empty());
}

#[test]
fn a_repetition_in_the_same_batch_gets_the_first_answer() {
    let keyed = Reserve { idempotency: key("k"), ..reserve(1, &[1]) };
    let other = IdempotencyKey { key: "k".into(), fingerprint: [2; 32] };
    let commands = [
        Command::Reserve(keyed.clone()),
        Command::Reserve(keyed.clone()),
        Command::Reserve(Reserve { idempotency: Some(other), ..keyed }),
        Command::Charge(Charge { idempotency: key("c"), ..charge(1, 5) }),
        Command::Charge(Charge { idempotency: key("c"), ..charge(1, 5) }),
    ];
    let (outcomes, changes, _) = run(&commands);
    let (first, again) = (held(&outcomes[0]), held(&outcomes[1]));
    assert_eq!((first.replayed, again.replayed), (false, true));
    assert_eq!(first.value, again.value);
    assert_eq!(outcomes[2], Outcome::Reserve(Err(ReserveRejected::KeyReused)));
    assert_eq!(outcomes[3], Outcome::Charge(Ok(Answer::new(1_005))));
    assert_eq!(outcomes[4], Outcome::Charge(Ok(Answer::replayed(1_005))));
    assert_eq!((changes.keys.len(), changes.events.len()), (2, 2));
    assert_eq!(changes.accounts, [(user(1), 1_005)].into());
}

#[test]
fn a_key_whose_request_was_refused_is_free_for_the_next() {
    let commands = [
        Command::Reserve(reserve(2, &[1])),
        Command::Reserve(Reserve { idempotency: key("k"), ..reserve(1, &[1]) }),
        Command::Reserve(Reserve { idempotency: key("k"), ..reserve(1, &[2]) }),
    ];
    let (outcomes, changes, _) = run(&commands);
    assert!(matches!(outcomes[1], Outcome::Reserve(Err(_))));
    assert!(!held(&outcomes[2]).replayed);
    assert_eq!(changes.keys.len(), 1);
}

#[test]
fn commands_of_one_user_see_what_those_before_them_did() {
    // Four seats are the limit; two of them are given back in between.
    let first = Command::Reserve(reserve(1, &[1, 2]));
    let second = Command::Reserve(reserve(1, &[3, 4]));
    let third = Command::Reserve(reserve(1, &[5]));
    let reservation = ReservationId::new(50).unwrap();
    let cancel = Command::Cancel(Cancel {
        reservation,
        user: user(1),
        release_delay: Duration::ZERO,
        now: NOW,
    });
    let commands = [first, second, third.clone(), cancel, third];
    let mut rows = rows_for(&commands, |_, _| {});
    let outcomes = execute_all(&mut rows, &commands);
    let limit = HoldRejected::UserLimit { max: 4, has: 4 };
    assert_eq!(outcomes[2], Outcome::Reserve(Err(ReserveRejected::Hold(limit))));
    assert_eq!(outcomes[3], Outcome::Cancel(Ok(())));
    assert_eq!(held(&outcomes[4]).value.id.get(), 52);
    // What was made and given back in one batch is saved as it ends.
    let (changes, _) = rows.into_changes();
    assert_eq!(
        changes.reservations_made[&reservation].reservation.state,
        ReservationState::Cancelled
    );
    assert!(changes.reservations_settled.is_empty());
    assert_eq!(changes.seats[&seat(1)].1, SeatState::Available);
    assert_eq!(changes.events.len(), 4);
}

#[test]
fn a_hold_made_in_a_batch_can_be_paid_in_it_and_spends_its_ticket() {
    let commands = [
        Command::Reserve(reserve(1, &[1, 2])),
        Command::Pay(pay(1, 50)),
        Command::Pay(pay(1, 50)),
        Command::Reserve(reserve(1, &[3])),
        Command::LeaveQueue(LeaveQueue { ticket: ticket(1), waiting: false, now: NOW }),
    ];
    let (outcomes, changes, _) = run(&commands);
    let Outcome::Pay(Ok(paid)) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!((paid.value.id.get(), paid.value.amount), (60, 200));
    let twice = SettleRejected::AlreadyPaid;
    assert_eq!(outcomes[2], Outcome::Pay(Err(ReservationRejected::Settle(twice))));
    let spent = Err(ReserveRejected::Hold(HoldRejected::TicketSpent));
    assert_eq!(outcomes[3], Outcome::Reserve(spent));
    let made = &changes.reservations_made[&ReservationId::new(50).unwrap()].reservation;
    assert_eq!(made.state, ReservationState::Paid { payment: paid.value.id });
    assert_eq!(changes.spent.len(), 1, "given up after it was spent: nothing new");
    assert_eq!(changes.accounts, [(user(1), 800)].into());
    assert_eq!((changes.entries.len(), changes.entries[0].amount), (1, -200));
    let topics: Vec<_> = changes.events.iter().map(|(event, _)| event.topic()).collect();
    assert_eq!(topics.len(), 2);
    assert!(matches!(changes.events[1].0, Event::PaymentCompleted { amount: 200, .. }));
}

/// A hold of seats 1 and 2 by user 1, of which `state` says what has become of seat 2.
fn with_hold(state: SeatState) -> impl Fn(&mut Rows, &Wants) {
    move |rows, wants| {
        let id = ReservationId::new(9).unwrap();
        let until = NOW.plus(Duration::from_secs(1));
        let item = |n: i64| Item { seat: seat(n), number: n as u32, price: 100 };
        let reservation = Reservation {
            id,
            user: user(1),
            concert: concert(),
            session: session(),
            items: vec![item(1), item(2)],
            created_at: Timestamp(0),
            state: ReservationState::Held { until },
        };
        rows.put_reservation(id, Some(ReservationRow { reservation, until, ticket: None }));
        if wants.sessions.is_empty() {
            rows.put_session((concert(), session()), (None, None));
        }
        let held = SeatState::Held { reservation: id, until };
        for (n, state) in [(1, held), (2, state)] {
            let seat = Seat { id: seat(n), number: n as u32, price: 100, state };
            rows.put_seat(seat.id, Some((session(), seat)));
        }
    }
}

#[test]
fn a_hold_of_which_another_has_taken_a_seat_is_over_whatever_the_clock_says() {
    let other = ReservationId::new(10).unwrap();
    let until = Timestamp(NOW.0 + HOLD_MS);
    let commands = [Command::Pay(pay(1, 9))];
    let lost = with_hold(SeatState::Held { reservation: other, until });
    let outcomes = execute_all(&mut rows_for(&commands, lost), &commands);
    let over = Err(ReservationRejected::Settle(SettleRejected::Expired));
    assert_eq!(outcomes[0], Outcome::Pay(over));
    // With both seats it is good for a second.
    let id = ReservationId::new(9).unwrap();
    let kept =
        with_hold(SeatState::Held { reservation: id, until: NOW.plus(Duration::from_secs(1)) });
    let outcomes = execute_all(&mut rows_for(&commands, kept), &commands);
    assert!(matches!(outcomes[0], Outcome::Pay(Ok(_))), "{outcomes:?}");
}

#[test]
fn what_ran_out_frees_its_own_seats_and_no_others() {
    let other = ReservationId::new(10).unwrap();
    let until = Timestamp(NOW.0 + HOLD_MS);
    let late = NOW.plus(Duration::from_secs(1));
    let reservation = ReservationId::new(9).unwrap();
    let expire = |now| Command::Expire(Expire { reservation, now });
    let commands = [expire(NOW), expire(late), expire(late)];
    let lost = with_hold(SeatState::Held { reservation: other, until });
    let mut rows = rows_for(&commands, lost);
    let outcomes = execute_all(&mut rows, &commands);
    assert_eq!(outcomes, [Outcome::Expire(false), Outcome::Expire(true), Outcome::Expire(false)]);
    let (changes, _) = rows.into_changes();
    assert_eq!(changes.seats.keys().collect::<Vec<_>>(), [&seat(1)]);
    assert_eq!(changes.reservations_settled[&reservation].state, ReservationState::Expired);
    assert_eq!(changes.events.len(), 1);
}

/// While somebody else has a seat locked, only what the lock cannot change is answered.
#[test]
fn a_lock_is_waited_for_where_it_may_bring_good_news() {
    let other = ReservationId::new(10).unwrap();
    let sold = SeatState::Sold { reservation: other };
    let ran_out = SeatState::Held { reservation: other, until: NOW };
    let wish = Command::Reserve(Reserve { idempotency: key("k"), ..reserve(2, &[2, 3]) });
    let taken = Outcome::Reserve(Err(ReserveRejected::Hold(HoldRejected::SeatTaken(seat(2)))));
    for (state, account_is_locked, expected) in [
        (sold, false, Some(taken.clone())),
        (sold, true, None),
        (ran_out, false, None),
        (SeatState::Available, false, None),
    ] {
        let mut rows = rows_for(std::slice::from_ref(&wish), with_hold(state));
        rows.put_locked(RowId::Seat(seat(2)));
        if account_is_locked {
            rows.put_locked(RowId::Account(user(2)));
        }
        assert_eq!(answer_while_locked(&mut rows, &wish, NOW), expected, "{state:?}");
        assert!(rows.into_changes().0.is_empty());
    }
    // A repeated request needs no seat.
    let mut rows = rows_for(std::slice::from_ref(&wish), |rows, _| {
        let row = KeyRow { fingerprint: [2; 32], result: 10 };
        rows.put_key(user(2), "other".into(), Some(row));
    });
    rows.put_locked(RowId::Seat(seat(2)));
    assert_eq!(answer_while_locked(&mut rows, &wish, NOW), None);
    let reused = Command::Reserve(Reserve { idempotency: key("other"), ..reserve(2, &[2]) });
    let reused = answer_while_locked(&mut rows, &reused, NOW);
    assert_eq!(reused, Some(Outcome::Reserve(Err(ReserveRejected::KeyReused))));
}

#[test]
fn answers_that_say_that_something_was_done_before() {
    let hold = reserve(1, &[1, 2]);
    let again = Command::Reserve(Reserve { idempotency: key("a"), ..hold.clone() });
    let commands = [again.clone(), again, Command::Reserve(reserve(3, &[1]))];
    let mut rows = rows_for(&commands, |_, _| {});
    let says: Vec<bool> = commands
        .iter()
        .map(|command| execute(&mut rows, command, NOW).unwrap().confirms_earlier())
        .collect();
    assert_eq!(says, [false, true, false]);
    let paid = ReservationRejected::Settle(SettleRejected::AlreadyPaid);
    let gone = ReservationRejected::Settle(SettleRejected::Cancelled);
    assert!(Outcome::Pay(Err(paid)).confirms_earlier());
    assert!(!Outcome::Pay(Err(gone)).confirms_earlier());
    assert!(Outcome::Cancel(Err(paid)).confirms_earlier());
    assert!(Outcome::Cancel(Err(gone)).confirms_earlier());
    assert!(!Outcome::Cancel(Ok(())).confirms_earlier());
}

#[test]
fn rows_that_a_command_locks() {
    let commands = [Command::Reserve(reserve(1, &[1, 2])), Command::Pay(pay(3, 9))];
    let rows = rows_for(&commands, with_hold(SeatState::Available));
    let (a, s) = (|id| RowId::Account(user(id)), |id| RowId::Seat(seat(id)));
    assert_eq!(rows.rows_of(&commands[0]), [s(1), s(2), a(1)]);
    let nine = RowId::Reservation(ReservationId::new(9).unwrap());
    // The seats of a reservation show once it is loaded.
    assert_eq!(commands[1].rows(), [nine, a(3)]);
    assert_eq!(rows.rows_of(&commands[1]), [nine, a(3), s(1), s(2)]);
}

#[test]
#[should_panic(expected = "was looked at and not wanted")]
fn a_row_that_was_not_wanted_must_not_be_looked_at() {
    let mut rows = rows_for(&[Command::Reserve(reserve(1, &[1]))], |_, _| {});
    let _ = execute(&mut rows, &Command::Reserve(reserve(1, &[2])), NOW);
}

#[test]
fn ids_come_in_runs_and_none_comes_twice() {
    let mut ids = IdRange::default();
    assert_eq!((ids.left(), ids.take()), (0, None));
    ids.add(5..7);
    ids.add(20..22);
    assert_eq!((ids.left(), ids.next()), (4, Some(5)));
    let taken: Vec<_> = std::iter::from_fn(|| ids.take()).collect();
    assert_eq!(taken, [5, 6, 20, 21]);
    ids.add(30..31);
    assert_eq!((ids.next(), ids.take(), ids.take()), (Some(30), Some(30), None));
    ids.add(40..44);
    ids.add(50..53);
    ids.skip_to(41);
    assert_eq!((ids.next(), ids.left()), (Some(42), 5));
    ids.skip_to(50);
    assert_eq!((ids.next(), ids.left()), (Some(51), 2));
    ids.skip_to(99);
    assert_eq!((ids.next(), ids.left()), (None, 0));
}

#[test]
fn as_many_ids_are_asked_for_as_could_be_used() {
    let mut needed = IdsNeeded::default();
    for command in [
        Command::Reserve(reserve(1, &[1])),
        Command::Pay(pay(1, 9)),
        Command::Charge(charge(1, 1)),
        Command::LeaveQueue(LeaveQueue { ticket: ticket(1), waiting: true, now: NOW }),
    ] {
        needed.add(&command);
    }
    assert_eq!(needed, IdsNeeded { reservations: 1, payments: 1, entries: 2 });
}
