//! Seats, points, events.

use std::collections::{BTreeMap, BTreeSet};

use boxoffice_domain::ids::{ReservationId, SeatId};
use boxoffice_domain::sales::ReservationState;

use super::{Checker, Fact, Violation, rules};
use crate::plan::{Plan, What};

/// The audits of store and sequencer find nothing.
pub(super) struct Audit;

impl Checker for Audit {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        let Fact::Audited(finding) = fact else { return };
        if finding.violations > 0 {
            let how = format!("{}: {}", finding.invariant, finding.examples.join("; "));
            broken.push(Violation { rule: rules::AUDIT, at_us: now_us, how });
        }
    }
}

/// What a fan was told is so: holds, payments, tickets that were given up.
pub(super) struct Acknowledged;

impl Checker for Acknowledged {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        let how = match fact {
            Fact::PaidInTheEnd { state: Some(ReservationState::Paid { .. }), .. } => return,
            Fact::PaidInTheEnd { fan, reservation, state } => {
                format!("fan {fan} was told that {reservation} is paid; it is {state:?}")
            }
            Fact::Lost { fan, what } => format!("fan {fan} was told of {what}"),
            _ => return,
        };
        broken.push(Violation { rule: rules::LOST, at_us: now_us, how });
    }
}

/// A hold as a fan was told of it.
struct Hold {
    seats: Vec<SeatId>,
    /// It began no earlier.
    from_us: u64,
    told_us: u64,
    is_paid: bool,
    may_be_over: bool,
}

/// Nobody else holds a seat as long as somebody does, nor once it is sold; and a hold lasts.
pub(super) struct SeatsOnce {
    /// How long a hold lasts at least, by whatever clock.
    lasts_us: u64,
    holds: BTreeMap<ReservationId, Hold>,
    /// Who held a seat last.
    last: BTreeMap<SeatId, ReservationId>,
}

/// What a clock may be off at the beginning of a hold and at its end, and some more, in milliseconds.
const CLOCKS_MS: u64 = 3_000;

impl SeatsOnce {
    pub(super) fn new(plan: &Plan) -> Self {
        let set: u64 = plan
            .faults
            .iter()
            .map(|fault| match fault.what {
                What::StoreClock(by_ms) => by_ms.unsigned_abs(),
                _ => 0,
            })
            .sum();
        let lasts_ms = (plan.hold.as_millis() as u64).saturating_sub(CLOCKS_MS + set);
        Self { lasts_us: lasts_ms * 1_000, holds: BTreeMap::new(), last: BTreeMap::new() }
    }
}

impl Checker for SeatsOnce {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        match fact {
            Fact::Held { fan, reservation, seats, asked_us } => {
                for seat in seats {
                    let before = self.last.insert(*seat, *reservation);
                    let Some(hold) = before.and_then(|before| self.holds.get(&before)) else {
                        continue;
                    };
                    // Asked for before, it may have been there before.
                    let comes_later = *asked_us > hold.told_us && before != Some(*reservation);
                    let lasts = hold.is_paid
                        || (!hold.may_be_over && now_us < hold.from_us + self.lasts_us);
                    if comes_later && lasts {
                        let before = before.map_or(0, ReservationId::get);
                        let how = format!(
                            "{seat} is held by {before}, and now by {reservation} of fan {fan}"
                        );
                        broken.push(Violation { rule: rules::SEAT_TWICE, at_us: now_us, how });
                    }
                }
                let hold = Hold {
                    seats: seats.clone(),
                    from_us: *asked_us,
                    told_us: now_us,
                    is_paid: false,
                    may_be_over: false,
                };
                self.holds.insert(*reservation, hold);
            }
            Fact::GivesBack { reservation } => {
                if let Some(hold) = self.holds.get_mut(reservation) {
                    hold.may_be_over = true;
                }
            }
            Fact::Paid { reservation, .. } => {
                if let Some(hold) = self.holds.get_mut(reservation) {
                    hold.is_paid = true;
                    hold.seats.iter().for_each(|seat| {
                        self.last.insert(*seat, *reservation);
                    });
                }
            }
            Fact::Gone { fan, reservation } => {
                let Some(hold) = self.holds.get(reservation) else { return };
                if !hold.may_be_over && now_us < hold.from_us + self.lasts_us {
                    let how = format!("fan {fan} was told that {reservation} is over");
                    broken.push(Violation { rule: rules::ENDED_EARLY, at_us: now_us, how });
                }
            }
            _ => {}
        }
    }
}

/// A request that is repeated with its key has the answer of the first, and no second effect.
pub(super) struct Repeats;

impl Checker for Repeats {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        let how = match fact {
            Fact::Repeated { fan, first, again } if *again != Some(*first) => {
                format!("fan {fan} was told {first}, then {again:?}")
            }
            Fact::Charged { fan, charges: (least, most), found }
                if !(*least..=*most).contains(found) =>
            {
                format!("fan {fan} has charged {least} to {most} times; {found} had an effect")
            }
            _ => return,
        };
        broken.push(Violation { rule: rules::REPEATED, at_us: now_us, how });
    }
}

/// A ticket pays once.
#[derive(Default)]
pub(super) struct OnePayment(BTreeMap<usize, ReservationId>);

impl Checker for OnePayment {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        let Fact::Paid { fan, reservation } = fact else { return };
        if let Some(first) = self.0.insert(*fan, *reservation).filter(|first| first != reservation)
        {
            let how = format!("fan {fan} has paid {first} and {reservation}");
            broken.push(Violation { rule: rules::PAID_TWICE, at_us: now_us, how });
        }
    }
}

/// Each effect has one event. A sink may be given an event again, behind the first time; those of a key
/// come in order.
#[derive(Default)]
pub(super) struct Events {
    known: BTreeMap<i64, String>,
    last: BTreeMap<i64, i64>,
    effects: BTreeSet<String>,
    told: BTreeSet<String>,
}

/// What an event is about: its type, and the first field of its data.
fn effect(body: &str) -> Option<String> {
    let (_, rest) = body.split_once(r#""type":""#)?;
    let (kind, rest) = rest.split_once('"')?;
    let (_, data) = rest.split_once(r#""data":{"#)?;
    let first = data.split(',').next()?;
    Some(format!("{kind} {first}"))
}

impl Checker for Events {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        let mut violation = |how: String| {
            broken.push(Violation { rule: rules::EVENTS, at_us: now_us, how });
        };
        match fact {
            Fact::Event { id, key, body } => {
                if let Some(first) = self.known.get(id) {
                    if first != body {
                        violation(format!("{id} was {first}, then {body}"));
                    }
                    return;
                }
                let last = self.last.insert(*key, *id).unwrap_or(0);
                if last > *id {
                    violation(format!("{id} of the key {key} comes behind {last}"));
                }
                if !effect(body).is_some_and(|effect| self.effects.insert(effect)) {
                    violation(format!("{id} once more: {body}"));
                }
                self.known.insert(*id, body.clone());
            }
            Fact::Held { reservation, .. } => {
                let told = format!(r#"concert.concert-reserved "reservationId":{reservation}"#);
                self.told.insert(told);
            }
            _ => {}
        }
    }

    fn end(&mut self, now_us: u64, broken: &mut Vec<Violation>) {
        for told in self.told.difference(&self.effects) {
            let how = format!("there is none of {told}");
            broken.push(Violation { rule: rules::EVENTS, at_us: now_us, how });
        }
    }
}
