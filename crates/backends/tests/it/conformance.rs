//! What every store must pass. Written against [`boxoffice_backends::store::Store`] alone.
//!
//! A store instantiates the suite with [`store_conformance!`], which makes one test of each case. It
//! is given two async functions: one that makes an empty store, and one that closes a store and opens
//! it again on the same data:
//!
//! ```text
//! async fn fresh() -> (Store, Guard) { .. }
//! async fn reopen(store: Store, guard: &Guard) -> Store { .. }
//! store_conformance!(fresh, reopen);
//! ```
//!
//! The guard, of any type, lives as long as the test: a temporary directory, or a database that is
//! dropped with it. A case sees the store through its operations and nothing else, so it holds for
//! every backend; what only one backend can suffer is tested beside that backend.

pub(crate) mod acts;
pub(crate) mod catalogue;
pub(crate) mod draws;
pub(crate) mod events;
pub(crate) mod idempotency;
pub(crate) mod log;
pub(crate) mod people;
pub(crate) mod points;
pub(crate) mod queues;
pub(crate) mod random;
pub(crate) mod refunds;
pub(crate) mod sales;
pub(crate) mod seating;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::ids::{
    ConcertId, QueueName, ReservationId, SeatId, SessionId, TicketId, UserId,
};
use boxoffice_domain::invariant::Invariant;
use boxoffice_domain::queue::{QueueSettings, Step};
use boxoffice_domain::sales::{Limits, Reservation, SeatState};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;

use boxoffice_backends::store::{
    Charge, IdempotencyKey, NewConcert, NewSeats, OutboxRow, Pay, Payment, Reserve, Seating, Store,
    StoredPlan, TicketRef,
};

type Reopen = Box<dyn Fn(Store) -> Pin<Box<dyn Future<Output = Store> + Send>> + Send + Sync>;

/// An empty store under test, with the way to close it and open it again.
pub(crate) struct Subject {
    /// The store.
    pub(crate) store: Store,
    reopen: Reopen,
}

impl Subject {
    /// A store, and what closes a store and opens it again on the same data.
    pub(crate) fn new<F>(store: Store, reopen: impl Fn(Store) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Store> + Send + 'static,
    {
        Self { store, reopen: Box::new(move |store| Box::pin(reopen(store))) }
    }

    /// The same data in a store opened anew. No other handle to the store may be left.
    #[must_use]
    pub(crate) async fn reopened(self) -> Self {
        let store = (self.reopen)(self.store).await;
        Self { store, reopen: self.reopen }
    }
}

/// Makes one `#[tokio::test]` of each case of the suite. See [the module](self).
macro_rules! store_conformance {
    ($fresh:path, $reopen:path) => {
        $crate::conformance::store_conformance! { @cases $fresh, $reopen;
            acts::every_act_is_one_row_of_the_log,
            acts::an_epoch_begins_and_stays,
            acts::an_act_under_a_key_is_done_once,
            acts::a_correction_is_seen_and_decides,
            acts::corrections_at_once_all_stand,
            acts::only_what_nobody_has_is_removed,
            acts::a_hold_and_a_removal_at_once_and_one_wins,
            acts::what_was_refunded_is_not_removed,
            acts::calling_off_counts_what_it_did,
            acts::lists_are_whole_in_parts,
            acts::of_two_who_saw_the_same_one_changes_a_queue,
            acts::a_change_is_taken_back_once,
            acts::reservations_are_found,
            acts::operators_come_and_go,
            acts::keys_that_sign_change_and_stay,
            acts::keys_changed_at_once_are_all_there,
            catalogue::what_was_made_is_there_at_once_and_after_a_reopen,
            catalogue::nothing_is_added_where_it_does_not_belong,
            catalogue::added_seats_are_numbered_on_and_can_be_bought,
            catalogue::sessions_made_at_once_do_not_share_a_seat,
            catalogue::whoever_was_told_of_a_change_sees_it,
            catalogue::a_seed_is_there_and_is_accounted_for,
            catalogue::settings_keep_the_first_fresh_value,
            catalogue::settings_made_at_once_agree,
            draws::a_queue_is_drawn_once_at_its_opening,
            draws::of_draws_at_once_one_counts,
            draws::only_a_queue_with_a_draw_is_drawn,
            draws::what_tickets_did_is_known_by_their_ranks,
            draws::who_came_back_is_known_by_rank,
            draws::a_draw_makes_planned_steps_void,
            draws::an_opening_that_was_drawn_is_not_moved,
            draws::a_restore_exchanges_the_seed_of_a_draw_to_come,
            events::what_was_taken_and_dropped_is_there_again,
            events::the_outbox_keeps_the_order_and_forgets_what_was_published,
            events::events_say_what_happened,
            events::marking_twice_or_for_nothing_counts_nothing,
            events::ids_never_come_again,
            idempotency::a_repeated_reserve_gets_the_first_answer,
            idempotency::a_repeated_payment_gets_the_first_answer,
            idempotency::a_repeated_charge_gets_the_first_answer,
            idempotency::a_key_is_for_one_request,
            idempotency::keys_of_two_users_are_independent,
            idempotency::keys_survive_a_reopen,
            idempotency::old_keys_are_forgotten_to_the_millisecond,
            idempotency::one_key_at_once_does_one_thing,
            idempotency::a_refusal_is_not_remembered,
            idempotency::a_ticket_that_is_over_only_gets_earlier_answers,
            log::a_log_is_one_chain_from_the_beginning_on,
            log::a_log_is_read_in_parts,
            log::of_steps_at_once_one_is_in_the_log,
            log::a_step_that_is_stored_twice_is_in_the_log_once,
            log::a_step_that_is_planned_once_more_goes_on_from_what_is_stored,
            log::a_restore_and_a_clock_that_is_set_back_are_in_the_log,
            log::an_old_part_of_a_log_is_forgotten,
            people::a_person_gets_an_id_once,
            people::an_id_that_is_brought_along_is_one_persons,
            people::people_seen_at_once_have_one_id_each,
            points::an_unknown_user_has_nothing,
            points::amounts_out_of_range_are_refused,
            points::five_charges_at_once_all_count,
            points::charging_and_paying_at_once_conserves_points,
            queues::a_queue_is_made_once_and_configured,
            queues::a_change_of_a_queue_touches_what_it_names,
            queues::changes_of_a_queue_at_once_all_stand,
            queues::counters_never_go_back,
            queues::a_checkpoint_of_several_queues_is_all_or_nothing,
            queues::a_line_survives_a_reopen,
            queues::numbers_are_granted_once,
            queues::numbers_are_taken_above_those_of_a_pool,
            queues::numbers_granted_and_taken_at_once_are_disjoint,
            queues::no_numbers_are_taken_while_an_instance_has_redis,
            queues::instances_hear_each_other,
            queues::one_of_several_admits,
            queues::a_step_is_for_the_queue_as_it_was_planned,
            queues::a_change_of_settings_makes_planned_steps_void,
            queues::a_step_counts_at_about_its_own_time,
            queues::the_passed_and_the_returned_survive_a_reopen,
            queues::a_checkpoint_keeps_who_was_passed_over,
            queues::who_came_back_and_finished_is_over,
            queues::what_is_recorded_never_goes_back,
            queues::times_in_the_future_are_set_back,
            queues::the_clock_never_goes_back,
            queues::aliases_are_stored_all_or_none,
            queues::aliases_know_whether_they_are_spent_and_run_out,
            random::buyers_at_once_agree_with_a_model,
            refunds::a_refund_gives_back_points_and_seats_once,
            refunds::of_refunds_at_once_one_gives_points,
            refunds::a_refund_that_is_refused_changes_nothing,
            refunds::a_refund_ends_to_the_millisecond,
            refunds::a_session_called_off_gives_everything_back,
            sales::reserve_takes_all_seats_or_none,
            sales::a_ticket_holds_within_bounds,
            sales::tickets_without_a_number_count_by_their_ids,
            sales::a_seat_given_up_is_free_after_its_delay,
            sales::a_payment_spends_the_ticket_that_holds,
            sales::reservations_are_listed_by_their_owner,
            sales::a_seat_has_one_owner,
            sales::an_audit_allows_for_clocks_that_are_ahead,
            sales::an_expired_hold_is_free_to_the_millisecond,
            sales::an_expired_hold_is_not_payable_to_the_millisecond,
            sales::a_payment_that_comes_late_takes_no_seat_from_the_next_buyer,
            sales::cancel_frees_the_seats,
            sales::payment_moves_points_sells_seats_and_spends_the_ticket,
            sales::a_payment_that_is_refused_changes_nothing,
            sales::five_hundred_buyers_of_one_seat_and_one_gets_it,
            sales::overlapping_seats_at_once_go_to_one_buyer_whole,
            sales::three_payments_at_once_and_one_counts,
            sales::one_ticket_pays_once_however_many_reservations_it_has,
            sales::payment_and_expiry_at_once_and_one_wins,
            sales::expire_due_ends_what_ran_out_and_nothing_else,
            sales::a_user_has_no_more_seats_than_allowed,
            sales::a_user_has_no_more_seats_than_allowed_at_once,
            sales::a_spent_ticket_neither_reserves_nor_pays,
            sales::a_ticket_given_up_neither_reserves_nor_pays,
            sales::nobody_settles_for_another,
            sales::seats_and_sessions_of_others_are_not_sold,
            sales::the_doors_open_and_close_to_the_millisecond,
            sales::everything_survives_a_reopen,
            seating::a_session_has_the_hall_that_it_was_made_with,
            seating::a_session_with_a_hall_is_changed_as_any_other,
            seating::the_best_seats_are_chosen_as_they_were_wished_for,
            seating::the_best_at_once_sell_out_to_the_last_seat,
            seating::who_may_not_hold_keeps_nobody_from_the_best,
            seating::the_best_under_a_key_are_chosen_once,
            seating::no_single_seat_is_left_needlessly,
            seating::no_single_seat_is_left_at_once,
        }
    };
    (@cases $fresh:path, $reopen:path; $($group:ident :: $case:ident),* $(,)?) => {
        $(
            #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (store, guard) = $fresh().await;
                let guard = ::std::sync::Arc::new(guard);
                let subject = $crate::conformance::Subject::new(store, move |store| {
                    let guard = guard.clone();
                    async move { $reopen(store, &guard).await }
                });
                $crate::conformance::$group::$case(subject).await;
            }
        )*
    };
}
pub(crate) use store_conformance;

/// When every case begins.
pub(crate) const START: Timestamp = Timestamp(1_800_000_000_000);
/// How long seats are held, in milliseconds.
pub(crate) const HOLD_MS: i64 = 300_000;
/// The price of each seat of [`sale`].
pub(crate) const PRICE: i64 = 100;

/// So many milliseconds after [`START`].
pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp(START.0 + ms)
}

/// The user with this id.
pub(crate) fn user(id: i64) -> UserId {
    UserId::new(id).unwrap()
}

/// The queue that the concert of [`sale`] is behind.
pub(crate) fn main_queue() -> QueueName {
    QueueName::new("main").unwrap()
}

/// A step of admission up to a number, in which everybody is there.
pub(crate) fn everybody(upto: u64, at: Timestamp) -> Step {
    let none = RoaringTreemap::new;
    Step { upto, at, passed: none(), left: none(), returned: none() }
}

/// The ticket with this number, of the main queue.
pub(crate) fn ticket(seq: u64) -> TicketRef {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&seq.to_be_bytes());
    TicketRef { queue: main_queue(), seq, id: TicketId(id) }
}

/// At most 4 seats in a reservation and 6 for a user, in as many holds as they like.
pub(crate) fn limits() -> Limits {
    Limits {
        hold: Duration::from_millis(HOLD_MS as u64),
        seats_per_reservation_max: 4,
        seats_per_user_max: 6,
        live_holds_max: u32::MAX,
        holds_per_ticket_max: u32::MAX,
        no_orphans: false,
    }
}

/// A key, and a fingerprint made of one byte.
pub(crate) fn key(key: &str, fingerprint: u8) -> Option<IdempotencyKey> {
    Some(IdempotencyKey { key: key.into(), fingerprint: [fingerprint; 32] })
}

/// Settings of a queue, each different from what a store might fill in by itself.
pub(crate) fn settings() -> QueueSettings {
    QueueSettings {
        admit_per_second: 12.5,
        max_active: Some(77),
        active_ttl: Duration::from_millis(300_001),
        claim_window: Duration::from_millis(30_002),
        opens_at: Some(at(5)),
        paused: true,
    }
}

/// A concert that is open from [`START`] for a day.
pub(crate) fn concert() -> NewConcert {
    NewConcert {
        name: "Night of the \"Öwl\" 🦉".into(),
        venue: "Hall 1".into(),
        queue: main_queue(),
        opens_at: START,
        closes_at: at(86_400_000),
    }
}

/// A session with seats for sale.
#[derive(Clone, Debug)]
pub(crate) struct Sale {
    /// Its concert.
    pub(crate) concert: ConcertId,
    /// The session.
    pub(crate) session: SessionId,
    /// The seats, by number.
    pub(crate) seats: Vec<SeatId>,
}

/// Makes a concert with one session of `seats` seats.
pub(crate) async fn sale(store: &Store, seats: u32) -> Sale {
    let concert = store.create_concert(concert()).await.unwrap();
    session_of(store, concert, seats).await
}

/// Makes another session of a concert.
pub(crate) async fn session_of(store: &Store, concert: ConcertId, seats: u32) -> Sale {
    let seats = vec![NewSeats { count: seats, price: PRICE }];
    let made = store.create_session(concert, at(80_000_000), seats).await.unwrap();
    let (session, added) = made.unwrap();
    let seats = added
        .iter()
        .flat_map(|added| added.first.get()..added.first.get() + i64::from(added.count))
        .map(|id| SeatId::new(id).unwrap())
        .collect();
    Sale { concert, session, seats }
}

/// Makes another session of a concert, with this hall.
pub(crate) async fn planned(store: &Store, concert: ConcertId, hall: &Arc<StoredPlan>) -> Sale {
    let seating = Seating::planned(hall.clone(), &seating::PRICES).unwrap();
    let made = store.create_session(concert, at(80_000_000), seating).await.unwrap();
    let (session, added) = made.unwrap();
    let [added] = added[..] else { panic!("{added:?}") };
    let ids = added.first.get()..added.first.get() + i64::from(added.count);
    Sale { concert, session, seats: ids.map(|id| SeatId::new(id).unwrap()).collect() }
}

impl Sale {
    /// Asks for the seats with these places in the list, with the user's own first ticket.
    pub(crate) fn reserve(&self, by: i64, seats: &[usize], now: Timestamp) -> Reserve {
        Reserve {
            user: user(by),
            ticket: ticket(by as u64),
            ticket_over: false,
            concert: self.concert,
            session: self.session,
            seats: seats.iter().map(|index| self.seats[*index]).collect(),
            best: None,
            beside: Vec::new(),
            limits: limits(),
            release_delay: Duration::ZERO,
            idempotency: None,
            now,
        }
    }

    /// Who has the seat with this place in the list, as far as the catalogue knows.
    pub(crate) fn owner(&self, store: &Store, seat: usize) -> SeatState {
        let catalog = store.catalog();
        let inventory = catalog.inventory(self.concert, self.session).unwrap();
        inventory.find(&[self.seats[seat]])[0].unwrap().state
    }

    /// Reserves, and expects it to succeed.
    pub(crate) async fn held(&self, store: &Store, by: i64, seats: &[usize]) -> Reservation {
        store.reserve(self.reserve(by, seats, START)).await.unwrap().value
    }

    /// Gives the user exactly enough points, reserves and pays.
    pub(crate) async fn bought(
        &self,
        store: &Store,
        by: i64,
        seats: &[usize],
    ) -> (Reservation, Payment) {
        let reservation = self.held(store, by, seats).await;
        store.charge(charge(by, reservation.total(), START)).await.unwrap();
        let payment = store.pay(pay(by, reservation.id, START)).await.unwrap().value;
        (reservation, payment)
    }
}

/// Asks to pay, with the user's own first ticket.
pub(crate) fn pay(by: i64, reservation: ReservationId, now: Timestamp) -> Pay {
    Pay { user: user(by), ticket: ticket(by as u64), reservation, idempotency: None, now }
}

/// Asks for points.
pub(crate) fn charge(by: i64, amount: i64, now: Timestamp) -> Charge {
    Charge { user: user(by), amount, idempotency: None, now }
}

/// The oldest rows of the outbox, at most `max`. Nothing is claimed when this returns.
pub(crate) async fn waiting_rows(store: &Store, max: u32) -> Vec<OutboxRow> {
    store.next_events(max).await.unwrap().rows
}

/// Marks rows as published that were taken before.
pub(crate) async fn mark_rows(store: &Store, rows: &[OutboxRow]) {
    let mut outbox = store.next_events(1).await.unwrap();
    outbox.rows = rows.to_vec();
    store.mark_published(outbox).await.unwrap();
}

/// The events that wait in the outbox: topic and body.
pub(crate) async fn waiting_events(store: &Store) -> Vec<(String, serde_json::Value)> {
    let rows = waiting_rows(store, 100_000).await;
    rows.into_iter()
        .map(|row| (row.topic, serde_json::from_str(&row.body).expect("an event is JSON")))
        .collect()
}

/// How many events of this topic wait.
pub(crate) async fn count_events(store: &Store, topic: &str) -> usize {
    waiting_events(store).await.iter().filter(|(of, _)| of == topic).count()
}

/// Expects an audit that looks at every invariant a store can see and finds nothing.
pub(crate) async fn assert_clean(store: &Store, now: Timestamp) {
    let findings = store.audit(now).await.unwrap();
    for finding in &findings {
        assert_eq!(finding.violations, 0, "{finding:?}");
    }
    for invariant in [
        Invariant::OneOwner,
        Invariant::PointsConserved,
        Invariant::NobodyOvertaken,
        Invariant::AcknowledgedIsDurable,
        Invariant::OneEvent,
        Invariant::PaidOnce,
        Invariant::SpentIsSpent,
        Invariant::OneChain,
    ] {
        assert!(findings.iter().any(|f| f.invariant == invariant), "{invariant} was not audited");
    }
}

/// Runs all of these at once and gives their results in the same order.
pub(crate) async fn at_once<T: Send + 'static>(
    futures: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

/// A case that nobody instantiates passes for ever.
#[test]
fn every_case_is_in_the_list() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/conformance");
    let list = std::fs::read_to_string(format!("{folder}.rs")).unwrap();
    let mut cases = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let group = path.file_stem().unwrap().to_str().unwrap();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let Some(rest) = line.strip_prefix("pub(crate) async fn ") else { continue };
            let case = rest.split('(').next().unwrap();
            assert!(list.contains(&format!("{group}::{case},")), "{group}::{case}");
            cases += 1;
        }
    }
    assert!(cases > 50, "only {cases} found");
}
