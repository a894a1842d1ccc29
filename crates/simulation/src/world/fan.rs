//! Fans: what they ask, and what they make of the answers.

use std::time::Duration;

use boxoffice_domain::ids::{ReservationId, SeatId, UserId};
use boxoffice_domain::queue::Ticket;

use super::message::{Event, Request};
use super::{Fared, World};
use crate::check::Fact;
use crate::instance::{Ask, Refusal, Standing, Told};
use crate::plan::{Habit, Polls};
use crate::random::Stream;

/// Nobody waits longer than this for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before the same is asked again.
const AGAIN_MS: (u64, u64) = (500, 1_500);
/// Nobody tries more often than this.
const TRIES_MAX: u32 = 30;

/// A fan.
pub(super) struct Fan {
    habit: Habit,
    at: Option<usize>,
    dice: Stream,
    /// What is asked at the next waking.
    next: Option<Ask>,
    /// The request whose answer is awaited.
    pending: Option<u64>,
    ticket: Option<Ticket>,
    standing: Option<Standing>,
    /// When the first answer said that the fan waits, in microseconds.
    since_us: u64,
    /// The instance that the fan asked last.
    sticks_to: Option<usize>,
    tries: u32,
    keys: u32,
    holds: u32,
    leaves: bool,
    wanders: bool,
    /// When what is asked now was asked for the first time, in microseconds.
    first_us: u64,
    /// The first answer to what is asked once more.
    repeats_of: Option<i64>,
    /// A hold that is paid for after another.
    spare: Option<ReservationId>,
    pub(super) fared: Fared,
    /// How many charges were acknowledged, and how many were asked for.
    pub(super) charges: (u64, u64),
    /// What the fan was told: holds, a payment, and that the ticket is given up.
    pub(super) held: Vec<ReservationId>,
    pub(super) paid: Option<ReservationId>,
    pub(super) left: Option<Ticket>,
}

impl Fan {
    /// The number of a fan who polls and has not been let in, and since when.
    pub(super) fn waits(&self) -> Option<(u64, u64)> {
        let is_there = self.next.is_some() || self.pending.is_some();
        let ticket = self.ticket.as_ref().filter(|_| is_there)?;
        let is_waiting = matches!(self.standing, Some(Standing::Waiting(_) | Standing::Undrawn));
        is_waiting.then_some((ticket.seq, self.since_us))
    }

    /// A key for half of the requests.
    fn key(&mut self) -> Option<String> {
        let key = self.any_key();
        key.filter(|_| self.dice.percent(50))
    }

    fn any_key(&mut self) -> Option<String> {
        self.keys += 1;
        Some(format!("key-{}", self.keys))
    }
}

impl World {
    /// Has all fans come when the plan says so.
    pub(super) fn invite(&mut self) {
        for group in self.plan.crowd.clone() {
            for place in 0..group.count {
                let number = self.fans.len();
                let mut dice = Stream::new(self.plan.seed, "fan", number as u64);
                let user = UserId::new(number as i64 + 1);
                let even_us = group.over_ms * 1_000 * place as u64 / group.count as u64;
                let spread_us = group.over_ms * 1_000 / group.count as u64;
                let at_us = group.from_ms * 1_000 + even_us + dice.below(spread_us.max(1));
                let leaves = dice.percent(group.habit.leaves);
                let wanders = dice.percent(group.habit.wanders);
                self.fans.push(Fan {
                    habit: group.habit,
                    at: group.at,
                    dice,
                    next: user.map(Ask::Join),
                    pending: None,
                    ticket: None,
                    standing: None,
                    since_us: 0,
                    sticks_to: None,
                    tries: 0,
                    keys: 0,
                    holds: 0,
                    leaves,
                    wanders,
                    first_us: 0,
                    repeats_of: None,
                    spare: None,
                    fared: Fared::default(),
                    charges: (0, 0),
                    held: Vec::new(),
                    paid: None,
                    left: None,
                });
                self.timeline.at(at_us, Event::Wakes(number));
            }
        }
    }

    /// Where the request of a fan goes.
    fn choose(&mut self, number: usize) -> usize {
        let fan = &mut self.fans[number];
        let begins = fan.ticket.is_none() && fan.tries == 0;
        if let Some(at) = fan.at.filter(|_| begins || fan.habit.roams == 0) {
            return at;
        }
        let roams = fan.dice.percent(fan.habit.roams);
        if let Some(before) = fan.sticks_to.filter(|before| !roams && self.ready[*before]) {
            return before;
        }
        let ready: Vec<usize> = (0..self.ready.len()).filter(|at| self.ready[*at]).collect();
        let chosen = if ready.is_empty() {
            self.balancer_dice.below(self.ready.len() as u64) as usize
        } else {
            *self.balancer_dice.pick(&ready)
        };
        fan.sticks_to = Some(chosen);
        chosen
    }

    pub(super) fn fan_wakes(&mut self, number: usize) {
        if self.fans[number].pending.is_some() {
            return;
        }
        let Some(ask) = self.fans[number].next.clone() else { return };
        let instance = self.choose(number);
        let asked_us = self.now_us();
        if self.fans[number].tries == 0 {
            self.fans[number].first_us = asked_us;
        }
        if matches!(ask, Ask::Pay(..) | Ask::Leave(_)) {
            let leaves = matches!(ask, Ask::Leave(_));
            self.fact(&Fact::MayEnd { fan: number, leaves });
        }
        if let Ask::GiveBack(_, reservation) = ask {
            self.fact(&Fact::GivesBack { reservation });
        }
        self.last_request += 1;
        let request = self.last_request;
        let fan = Some(number);
        self.requests
            .insert(request, Request { fan, ask, instance, life: 0, asked_us, arrived: false });
        self.fans[number].pending = Some(request);
        let (low, high) = self.plan.latency_us[2];
        let wait_us = self.network_dice.between(low / 2, high / 2);
        self.soon(Duration::from_micros(wait_us), Event::RequestArrives(request));
        self.soon(PATIENCE, Event::GivesUp(request));
    }

    pub(super) fn fan_gives_up(&mut self, request: u64) {
        let waits = self.requests.get(&request).and_then(|request| request.fan);
        if waits.is_some_and(|fan| self.fans[fan].pending == Some(request)) {
            self.response_arrives(request, Told::Broken);
        }
    }

    pub(super) fn response_arrives(&mut self, number: u64, told: Told) {
        let Some(request) = self.requests.remove(&number) else { return };
        let Some(fan) = request.fan else {
            if let (Ask::Change(change), Told::Done) = (request.ask, told) {
                self.fact(&Fact::Changed { change });
            }
            return;
        };
        if self.fans[fan].pending != Some(number) {
            return;
        }
        self.fans[fan].pending = None;
        match told {
            Told::Joined(ticket, standing, after_ms) => {
                let seq = ticket.seq;
                self.fact(&Fact::Told { fan, seq });
                self.fans[fan].ticket = Some(ticket);
                self.fans[fan].tries = 0;
                self.fans[fan].since_us = self.now_us();
                self.fans[fan].fared =
                    Fared { seq: Some(seq), joined_us: self.now_us(), let_in_us: None };
                self.stands(fan, standing, after_ms, &request);
            }
            Told::Place(standing, after_ms) => {
                self.counts.polls += 1;
                self.fans[fan].tries = 0;
                self.stands(fan, standing, after_ms, &request);
            }
            Told::Held(reservation) => {
                if !self.asks_once_more(fan, &request, reservation.get()) {
                    self.after_hold(fan, reservation);
                }
            }
            Told::Paid(reservation) => {
                if !self.asks_once_more(fan, &request, reservation.get()) {
                    self.after_payment(fan);
                }
            }
            Told::Charged(balance) => {
                if !self.asks_once_more(fan, &request, balance)
                    && let Some(ticket) = self.fans[fan].ticket.clone()
                {
                    self.choose_seats(fan, ticket);
                }
            }
            Told::Done => {
                if let Ask::Leave(ticket) = request.ask {
                    // Of one that was over already nothing is kept.
                    if matches!(
                        self.fans[fan].standing,
                        Some(Standing::Waiting(_) | Standing::Undrawn)
                    ) {
                        self.fans[fan].left = Some(ticket);
                    }
                    self.fact(&Fact::Ended { fan });
                }
                self.fans[fan].next = None;
            }
            Told::Refused(refusal) => {
                if refusal != Refusal::InProgress {
                    self.fans[fan].tries = 0;
                }
                self.refused(fan, &request.ask, refusal);
            }
            Told::Unavailable => {
                self.counts.unavailable += 1;
                self.again(fan, request.ask);
            }
            Told::Unknown | Told::Broken => {
                self.counts.unknown += 1;
                self.fans[fan].sticks_to = None;
                self.again(fan, request.ask);
            }
        }
    }

    /// Takes an answer in. Where the request had a key, the fan may ask it once more, as one who does
    /// not know that it was answered.
    fn asks_once_more(&mut self, number: usize, request: &Request, answer: i64) -> bool {
        self.fans[number].tries = 0;
        if let Some(first) = self.fans[number].repeats_of.take() {
            self.fact(&Fact::Repeated { fan: number, first, again: Some(answer) });
            return false;
        }
        let key = match &request.ask {
            Ask::Hold(_, seats, key) => {
                self.counts.holds += 1;
                if let Some(reservation) = ReservationId::new(answer) {
                    self.fans[number].held.push(reservation);
                    let (seats, asked_us) = (seats.clone(), self.fans[number].first_us);
                    self.fact(&Fact::Held { fan: number, reservation, seats, asked_us });
                }
                key.is_some()
            }
            Ask::Pay(_, reservation, key) => {
                self.counts.payments += 1;
                let reservation = *reservation;
                self.trace(|| format!("fan {number} has paid {reservation}"));
                self.fans[number].paid = Some(reservation);
                self.fact(&Fact::Ended { fan: number });
                self.fact(&Fact::Paid { fan: number, reservation });
                key.is_some()
            }
            Ask::Charge(..) => {
                self.fans[number].charges.0 += 1;
                true
            }
            _ => false,
        };
        let fan = &mut self.fans[number];
        let again = key && fan.dice.percent(fan.habit.repeats);
        if again {
            fan.repeats_of = Some(answer);
            fan.next = Some(request.ask.clone());
            let wait_ms = fan.dice.between(10, 3_000);
            self.soon(Duration::from_millis(wait_ms), Event::Wakes(number));
        }
        again
    }

    /// Asks the same again, a little later.
    fn again(&mut self, number: usize, ask: Ask) {
        let fan = &mut self.fans[number];
        fan.tries += 1;
        let gives_up = matches!(ask, Ask::Join(_)) && !fan.habit.persists;
        // Who waits in the line does not go away for it.
        if gives_up || (fan.tries > TRIES_MAX && !matches!(ask, Ask::Poll(_))) {
            fan.next = None;
            return;
        }
        let wait_ms = fan.dice.between(AGAIN_MS.0, AGAIN_MS.1);
        fan.next = Some(ask);
        self.soon(Duration::from_millis(wait_ms), Event::Wakes(number));
    }

    fn stands(&mut self, number: usize, standing: Standing, after_ms: u64, request: &Request) {
        let fan = &mut self.fans[number];
        let Some(ticket) = fan.ticket.clone() else { return };
        let is_new = fan.standing != Some(standing);
        fan.standing = Some(standing);
        let (seq, polls) = (ticket.seq, fan.habit.polls != Polls::Never);
        if is_new {
            self.trace(|| format!("fan {number} with {seq} stands at {standing:?}"));
        }
        let Request { asked_us, instance, .. } = *request;
        self.fact(&Fact::Stands {
            fan: number,
            seq,
            standing,
            after_ms,
            asked_us,
            instance,
            polls,
        });
        let now_ms = self.now_us() / 1_000;
        let fan = &mut self.fans[number];
        fan.next = None;
        match standing {
            Standing::Waiting(_) | Standing::Undrawn => {
                let mut wait_ms = match fan.habit.polls {
                    Polls::AsTold => after_ms,
                    Polls::Every(ms) => ms,
                    Polls::Later(from_ms) => after_ms.max(from_ms.saturating_sub(now_ms)),
                    Polls::Never => return,
                };
                if wait_ms > after_ms && matches!(fan.habit.polls, Polls::Later(_)) {
                    self.fact(&Fact::Away { fan: number });
                }
                let fan = &mut self.fans[number];
                fan.next = Some(Ask::Poll(ticket.clone()));
                if fan.leaves && fan.dice.percent(20) {
                    fan.next = Some(Ask::Leave(ticket));
                } else if fan.wanders && fan.dice.percent(20) {
                    fan.wanders = false;
                    wait_ms += fan.dice.between(10_000, 40_000);
                    self.fact(&Fact::Away { fan: number });
                }
                self.soon(Duration::from_millis(wait_ms), Event::Wakes(number));
            }
            Standing::Active => {
                self.counts.seen += 1;
                let now_us = self.now_us();
                let fan = &mut self.fans[number];
                fan.since_us = now_us;
                fan.fared.let_in_us.get_or_insert(now_us);
                if fan.dice.percent(fan.habit.charges)
                    && let (Some(key), Some(user)) = (fan.any_key(), UserId::new(number as i64 + 1))
                {
                    fan.charges.1 += 1;
                    fan.next = Some(Ask::Charge(user, 1, key));
                    let wait_ms = fan.dice.between(100, 2_000);
                    self.soon(Duration::from_millis(wait_ms), Event::Wakes(number));
                } else if fan.dice.percent(fan.habit.buys) {
                    self.choose_seats(number, ticket);
                }
            }
            Standing::Over(_) => {}
        }
    }

    fn choose_seats(&mut self, number: usize, ticket: Ticket) {
        let fan = &mut self.fans[number];
        fan.holds += 1;
        let count = fan.dice.between(1, 2) as usize;
        let mut seats: Vec<SeatId> = Vec::new();
        while seats.len() < count.min(self.seats.len()) {
            let seat = *fan.dice.pick(&self.seats);
            if !seats.contains(&seat) {
                seats.push(seat);
            }
        }
        let key = fan.key();
        fan.next = Some(Ask::Hold(ticket, seats, key));
        let wait_ms = fan.dice.between(100, 2_000);
        self.soon(Duration::from_millis(wait_ms), Event::Wakes(number));
    }

    fn after_hold(&mut self, number: usize, reservation: ReservationId) {
        let fan = &mut self.fans[number];
        let Some(ticket) = fan.ticket.clone() else { return };
        if fan.spare.is_none() && fan.held.len() == 1 && fan.dice.percent(fan.habit.greedy) {
            fan.spare = Some(reservation);
            self.choose_seats(number, ticket);
            return;
        }
        let key = fan.key();
        fan.next = match fan.dice.below(10) {
            0 => None,
            1 => Some(Ask::GiveBack(ticket, reservation)),
            _ => Some(Ask::Pay(ticket, reservation, key)),
        };
        let wait_ms = fan.dice.between(200, 5_000);
        self.soon(Duration::from_millis(wait_ms), Event::Wakes(number));
    }

    /// Who has paid may try to pay once more, with the same ticket.
    fn after_payment(&mut self, number: usize) {
        let fan = &mut self.fans[number];
        fan.next = None;
        let Some((ticket, spare)) = fan.ticket.clone().zip(fan.spare.take()) else { return };
        if fan.paid == Some(spare) {
            return;
        }
        let key = fan.key();
        fan.next = Some(Ask::Pay(ticket, spare, key));
        let wait_ms = fan.dice.between(1, 2_000);
        self.soon(Duration::from_millis(wait_ms), Event::Wakes(number));
    }

    fn refused(&mut self, number: usize, ask: &Ask, refusal: Refusal) {
        let is_answer =
            !matches!(refusal, Refusal::InProgress | Refusal::NotActive | Refusal::Other);
        if is_answer && let Some(first) = self.fans[number].repeats_of.take() {
            self.fact(&Fact::Repeated { fan: number, first, again: None });
        }
        if let (Refusal::Gone, Ask::Pay(_, reservation, _)) = (refusal, ask) {
            self.fact(&Fact::Gone { fan: number, reservation: *reservation });
        }
        let fan = &mut self.fans[number];
        fan.next = None;
        match (refusal, ask) {
            (Refusal::Taken, Ask::Hold(ticket, ..)) if fan.holds < 4 => {
                self.choose_seats(number, ticket.clone());
            }
            (Refusal::AlreadyPaid, Ask::Pay(_, reservation, _)) => {
                fan.paid = Some(*reservation);
                self.fact(&Fact::Ended { fan: number });
            }
            (Refusal::InProgress, ask) => self.again(number, ask.clone()),
            _ => {}
        }
    }
}
