//! Tables of the deciders' answers, and their order of precedence.

use std::time::Duration;

use super::*;
use crate::seating;

const NOW: Timestamp = Timestamp(1_000_000);
const HOUR_MS: i64 = 3_600_000;

fn user(id: i64) -> UserId {
    UserId::new(id).unwrap()
}

fn seat_id(id: i64) -> SeatId {
    SeatId::new(id).unwrap()
}

fn reservation_id(id: i64) -> ReservationId {
    ReservationId::new(id).unwrap()
}

fn limits() -> Limits {
    Limits {
        hold: Duration::from_secs(300),
        seats_per_reservation_max: 4,
        seats_per_user_max: 4,
        live_holds_max: 1,
        holds_per_ticket_max: 3,
        no_orphans: false,
    }
}

fn concert() -> Concert {
    Concert {
        id: ConcertId::new(1).unwrap(),
        name: "c".into(),
        venue: "v".into(),
        queue: QueueName::new("main").unwrap(),
        opens_at: Timestamp(NOW.0 - HOUR_MS),
        closes_at: Timestamp(NOW.0 + HOUR_MS),
    }
}

fn session() -> Session {
    Session {
        id: SessionId::new(1).unwrap(),
        concert: ConcertId::new(1).unwrap(),
        starts_at: Timestamp(NOW.0 + 2 * HOUR_MS),
    }
}

fn seat(id: i64, state: SeatState) -> Option<Seat> {
    Some(Seat { id: seat_id(id), number: id as u32, price: 100 * id, state })
}

fn hold_with(
    concert: &Concert,
    session: &Session,
    ids: &[i64],
    seats: &[Option<Seat>],
    user_has: u32,
    ticket_spent: bool,
) -> Result<Reservation, HoldRejected> {
    let seat_ids: Vec<_> = ids.iter().copied().map(seat_id).collect();
    let request = HoldRequest {
        reservation: reservation_id(9),
        user: user(7),
        concert,
        session,
        called_off: false,
        seat_ids: &seat_ids,
        seats,
        user_has,
        ticket_spent,
        ticket_holds: TicketHolds::default(),
        surroundings: None,
    };
    decide_hold(&request, &limits(), NOW)
}

#[test]
fn a_ticket_holds_one_thing_at_a_time_and_not_for_ever() {
    let (concert, session) = (concert(), session());
    let held_with = |made, live| {
        let request = HoldRequest {
            reservation: reservation_id(9),
            user: user(7),
            concert: &concert,
            session: &session,
            called_off: false,
            seat_ids: &[seat_id(1)],
            seats: &[seat(1, SeatState::Available)],
            user_has: 0,
            ticket_spent: false,
            ticket_holds: TicketHolds { made, live },
            surroundings: None,
        };
        decide_hold(&request, &limits(), NOW).map(|_| ())
    };
    assert_eq!(held_with(2, 0), Ok(()));
    assert_eq!(held_with(1, 1), Err(HoldRejected::LiveHoldLimit { max: 1 }));
    assert_eq!(held_with(3, 0), Err(HoldRejected::HoldLimit { max: 3 }));
}

fn hold(ids: &[i64], seats: &[Option<Seat>]) -> Result<Reservation, HoldRejected> {
    hold_with(&concert(), &session(), ids, seats, 0, false)
}

#[test]
fn a_free_seat_is_held_for_the_hold_time_at_its_price() {
    let free = SeatState::Available;
    let granted = hold(&[2, 3], &[seat(2, free), seat(3, free)]).unwrap();
    assert_eq!(granted.total(), 500);
    assert_eq!(granted.state, ReservationState::Held { until: Timestamp(NOW.0 + 300_000) });
    assert_eq!(granted.items.iter().map(|i| i.number).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_hold_ends_to_the_millisecond() {
    let held = |until| SeatState::Held { reservation: reservation_id(1), until: Timestamp(until) };
    assert!(hold(&[1], &[seat(1, held(NOW.0))]).is_ok());
    assert_eq!(hold(&[1], &[seat(1, held(NOW.0 + 1))]), Err(HoldRejected::SeatTaken(seat_id(1))));
}

#[test]
fn one_taken_seat_refuses_all() {
    let sold = SeatState::Sold { reservation: reservation_id(1) };
    assert_eq!(
        hold(&[1, 2], &[seat(1, SeatState::Available), seat(2, sold)]),
        Err(HoldRejected::SeatTaken(seat_id(2)))
    );
}

#[test]
fn what_is_wrong_with_the_request_comes_before_what_is_wrong_with_the_world() {
    let free = SeatState::Available;
    assert_eq!(hold(&[], &[]), Err(HoldRejected::NoSeats));
    assert_eq!(
        hold(&[1, 1], &[seat(1, free), seat(1, free)]),
        Err(HoldRejected::DuplicateSeat(seat_id(1)))
    );
    let five: Vec<_> = (1..=5).map(|id| seat(id, free)).collect();
    assert_eq!(hold(&[1, 2, 3, 4, 5], &five), Err(HoldRejected::TooManySeats { max: 4 }));
    assert_eq!(
        hold(&[1, 8], &[seat(1, SeatState::Sold { reservation: reservation_id(3) }), None]),
        Err(HoldRejected::NoSuchSeat(seat_id(8)))
    );
}

#[test]
fn the_reservation_period_and_the_session_bound_a_hold() {
    let free = [seat(1, SeatState::Available)];
    let mut early = concert();
    early.opens_at = Timestamp(NOW.0 + 1);
    assert_eq!(
        hold_with(&early, &session(), &[1], &free, 0, false),
        Err(HoldRejected::NotYetOpen { opens_at: early.opens_at })
    );
    let mut late = concert();
    late.closes_at = NOW;
    assert_eq!(
        hold_with(&late, &session(), &[1], &free, 0, false),
        Err(HoldRejected::Closed { closed_at: NOW })
    );
    let mut begun = session();
    begun.starts_at = NOW;
    assert_eq!(
        hold_with(&concert(), &begun, &[1], &free, 0, false),
        Err(HoldRejected::SessionStarted)
    );
}

#[test]
fn a_user_has_a_limit_and_a_spent_ticket_holds_nothing() {
    let free = [seat(1, SeatState::Available), seat(2, SeatState::Available)];
    assert!(hold_with(&concert(), &session(), &[1, 2], &free, 2, false).is_ok());
    assert_eq!(
        hold_with(&concert(), &session(), &[1, 2], &free, 3, false),
        Err(HoldRejected::UserLimit { max: 4, has: 3 })
    );
    assert_eq!(
        hold_with(&concert(), &session(), &[1, 2], &free, 0, true),
        Err(HoldRejected::TicketSpent)
    );
}

/// Holds these numbers of a run of ten. Those that memory takes for free are some, and what is stored of the
/// seats around may be otherwise.
fn hold_in_run(
    held: &[u32],
    free_in_memory: &[u32],
    stored: impl Fn(u32) -> SeatState,
) -> Result<(), HoldRejected> {
    let (concert, session) = (concert(), session());
    let plan = Plan::numbered(10);
    let places: Vec<u32> = held.iter().map(|number| number - 1).collect();
    let as_stored = |number: u32| Seat {
        id: seat_id(i64::from(number)),
        number,
        price: 100,
        state: stored(number),
    };
    let around = seating::around(&plan, &places).into_iter().flatten();
    let around: Vec<Seat> = around.map(|place| as_stored(place + 1)).collect();
    let seats: Vec<_> = held.iter().map(|number| Some(as_stored(*number))).collect();
    let seat_ids: Vec<_> = held.iter().map(|number| seat_id(i64::from(*number))).collect();
    let request = HoldRequest {
        reservation: reservation_id(9),
        user: user(7),
        concert: &concert,
        session: &session,
        called_off: false,
        seat_ids: &seat_ids,
        seats: &seats,
        user_has: 0,
        ticket_spent: false,
        ticket_holds: TicketHolds::default(),
        surroundings: Some(Surroundings {
            plan: &plan,
            seats: &around,
            free: &PlaceSet::from_fn(10, |place| free_in_memory.contains(&(place + 1))),
        }),
    };
    decide_hold(&request, &limits(), NOW).map(|_| ())
}

const ALL: [u32; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

#[test]
fn a_hold_that_leaves_a_single_seat_is_refused_unless_every_choice_does() {
    let sold = SeatState::Sold { reservation: reservation_id(1) };
    let free = |_| SeatState::Available;
    let leaves = |number| Err(HoldRejected::LeavesSinglePlace { number });
    assert_eq!(hold_in_run(&[2, 3], &ALL, free), leaves(1));
    assert_eq!(hold_in_run(&[8, 9], &ALL, free), leaves(10));
    assert_eq!(hold_in_run(&[4, 6], &ALL, free), leaves(5));
    assert_eq!(hold_in_run(&[1, 2], &ALL, free), Ok(()));
    assert_eq!(hold_in_run(&[3, 4], &ALL, free), Ok(()));
    // Two of three, and there are no others.
    let three = |number| if number <= 3 { SeatState::Available } else { sold };
    assert_eq!(hold_in_run(&[2, 3], &[1, 2, 3], three), Ok(()));
    // Elsewhere there are: as far as memory knows, for nobody looks there.
    assert_eq!(hold_in_run(&[2, 3], &[1, 2, 3, 7, 8], three), leaves(1));
}

#[test]
fn what_is_stored_around_a_hold_counts_for_more_than_what_memory_has() {
    let sold = SeatState::Sold { reservation: reservation_id(1) };
    let without =
        |gone: u32| move |number| if number == gone { sold } else { SeatState::Available };
    // The second seat to the right has gone meanwhile.
    assert_eq!(
        hold_in_run(&[1, 2], &ALL, without(4)),
        Err(HoldRejected::LeavesSinglePlace { number: 3 })
    );
    // So has the first: nothing is left between.
    assert_eq!(hold_in_run(&[2, 3], &ALL, without(1)), Ok(()));
    // It has come back, of which memory knows nothing.
    assert_eq!(hold_in_run(&[1, 2], &[1, 2, 3, 7, 8], without(0)), Ok(()));
}

#[test]
fn a_seat_around_a_hold_is_free_from_the_moment_on_at_which_it_can_be_had() {
    let until = |until| SeatState::Released { until: Timestamp(until) };
    let fourth = |state| move |number| if number == 4 { state } else { SeatState::Available };
    assert_eq!(hold_in_run(&[1, 2], &ALL, fourth(until(NOW.0))), Ok(()));
    assert_eq!(
        hold_in_run(&[1, 2], &ALL, fourth(until(NOW.0 + 1))),
        Err(HoldRejected::LeavesSinglePlace { number: 3 })
    );
}

#[test]
fn whatever_else_forbids_a_hold_comes_before_the_single_seat_that_it_leaves() {
    let sold = SeatState::Sold { reservation: reservation_id(1) };
    let second = |number| if number == 2 { sold } else { SeatState::Available };
    assert_eq!(hold_in_run(&[2, 3], &ALL, second), Err(HoldRejected::SeatTaken(seat_id(2))));
    let free = |_| SeatState::Available;
    let five = hold_in_run(&[2, 3, 4, 5, 6], &ALL, free);
    assert_eq!(five, Err(HoldRejected::TooManySeats { max: 4 }));
}

fn reservation(state: ReservationState) -> Reservation {
    Reservation {
        id: reservation_id(1),
        user: user(7),
        concert: ConcertId::new(1).unwrap(),
        session: SessionId::new(1).unwrap(),
        items: vec![
            Item { seat: seat_id(1), number: 1, price: 30 },
            Item { seat: seat_id(2), number: 2, price: 12 },
        ],
        created_at: NOW,
        state,
    }
}

#[test]
fn payment_table() {
    use ReservationState::{Cancelled, Expired, Held, Paid};
    let live = Held { until: Timestamp(NOW.0 + 1) };
    let paid = Paid { payment: PaymentId::new(5).unwrap() };
    for (state, who, balance, spent, expected) in [
        (live, 7, 42, false, Ok(42)),
        (live, 7, 41, false, Err(SettleRejected::NotEnoughPoints { balance: 41, due: 42 })),
        (live, 7, 42, true, Err(SettleRejected::TicketSpent)),
        (live, 8, 42, false, Err(SettleRejected::NotYours)),
        (Held { until: NOW }, 7, 42, false, Err(SettleRejected::Expired)),
        (Expired, 7, 42, false, Err(SettleRejected::Expired)),
        (Cancelled, 7, 42, false, Err(SettleRejected::Cancelled)),
        (paid, 7, 42, true, Err(SettleRejected::AlreadyPaid)),
        (paid, 8, 42, true, Err(SettleRejected::NotYours)),
    ] {
        let answer = decide_payment(&reservation(state), user(who), with(balance, spent), NOW);
        assert_eq!(answer, expected, "{state:?} user {who} balance {balance} spent {spent}");
    }
}

#[test]
fn payment_and_expiry_split_time_between_them_without_gap_or_overlap() {
    let until = Timestamp(NOW.0 + 10);
    for offset in 0..20 {
        let now = Timestamp(NOW.0 + offset);
        let held = reservation(ReservationState::Held { until });
        let payable = decide_payment(&held, user(7), with(100, false), now).is_ok();
        let free = SeatState::Held { reservation: held.id, until }.is_free(now);
        assert_ne!(payable, free, "at {offset} ms exactly one of the two holds");
    }
}

fn with(balance: i64, ticket_spent: bool) -> PaidWith {
    PaidWith { balance, ticket_spent, ticket_of_queue: true, called_off: false }
}
