//! What fans and buyers were told. Whatever contradicts what was told before is noted at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde::Serialize;

use super::finding::Finding;
use super::{CHARGE, HOLD_S, LAG_S, Seconds};

/// A fan, by the order of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FanId(pub(crate) usize);

/// An effect, by the order of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EffectId(pub(crate) usize);

/// What a fan is, as far as the fan knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FanState {
    Waiting,
    Active,
    Leaving,
    Left,
    Over,
}

/// What an answer says of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Waiting,
    Activated,
    Expired,
}

/// An answer to a poll.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) instance: String,
    pub(crate) status: Status,
    pub(crate) number: u64,
    pub(crate) sent_at: Seconds,
    pub(crate) at: Seconds,
}

/// An answer to a join.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    pub(crate) user: i64,
    pub(crate) token: String,
    /// The number in the token.
    pub(crate) seq: u64,
    pub(crate) heard: Heard,
}

/// Who has joined, with all that was said to them.
#[derive(Clone, Debug)]
pub(crate) struct Fan {
    pub(crate) user: i64,
    pub(crate) token: String,
    pub(crate) seq: u64,
    pub(crate) sent_at: Seconds,
    pub(crate) at: Seconds,
    pub(crate) state: FanState,
    pub(crate) active_at: Option<Seconds>,
    /// Whether the ticket may be over: it left, or tried to pay.
    pub(crate) spent: bool,
    /// The last number at each instance, with the time when it was heard.
    seen: BTreeMap<String, (u64, Seconds)>,
    /// When it was heard, and the number: falling numbers.
    low: Vec<(Seconds, u64)>,
}

/// What an effect is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Seats in order.
    Hold {
        session: i64,
        seats: Vec<i64>,
    },
    Pay {
        reservation: i64,
    },
    Cancel {
        reservation: i64,
    },
    Refund {
        payment: i64,
    },
    Charge,
}

/// What follows from all answers to one effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// It was acknowledged.
    #[serde(rename = "ok")]
    Done,
    /// A rule forbids it.
    Refused,
    /// Every answer said that nothing was done.
    Nothing,
    /// It may be either.
    Unknown,
}

/// What an acknowledgement gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Nothing,
    Reservation(i64),
    Payment { payment: i64, amount: i64 },
}

/// An answer to the asking for an effect.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The error code; empty where there is none.
    pub(crate) code: String,
    pub(crate) instance: String,
    pub(crate) at: Seconds,
    pub(crate) retry_after: Option<Seconds>,
    pub(crate) given: Given,
}

/// What came of one request.
#[derive(Clone, Debug)]
pub(crate) enum Attempt {
    /// Nothing; whether it was sent at all is known.
    Silent {
        reason: String,
        sent: bool,
    },
    Answered(Answer),
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Next {
    Settled,
    /// It may be asked again after a pause.
    Again(Seconds),
}

/// Who wants what; with a key, all attempts are one.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) user: i64,
    pub(crate) what: What,
    pub(crate) key: Option<String>,
}

/// One thing that was asked for, perhaps several times.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    pub(crate) user: i64,
    pub(crate) what: What,
    pub(crate) key: Option<String>,
    pub(crate) round: u32,
    pub(crate) verdict: Verdict,
    /// The code of the refusal.
    pub(crate) code: String,
    pub(crate) given: Given,
    /// When the last answer came.
    pub(crate) at: Seconds,
    pub(crate) attempts: u32,
    /// Attempts of which nobody knows what they did.
    pub(crate) unknown: u32,
    pub(crate) log: Vec<String>,
}

impl Effect {
    /// Takes what came of one more request.
    pub(crate) fn hear(&mut self, attempt: Attempt) -> Next {
        self.attempts += 1;
        let answer = match attempt {
            Attempt::Silent { reason, sent } => {
                self.unknown += u32::from(sent);
                self.log.push(reason);
                return Next::Again(1.0);
            }
            Attempt::Answered(answer) => answer,
        };
        self.at = answer.at;
        self.log.push(format!(
            "{} {} {} {:.2}",
            answer.status, answer.code, answer.instance, answer.at
        ));
        match (answer.status, answer.retry_after) {
            (..300, _) => {
                self.verdict = Verdict::Done;
                self.given = answer.given;
                Next::Settled
            }
            // A 503 that the proxy made: it found no instance, so nothing was done.
            (503, None) => Next::Again(1.0),
            (502 | 504, _) => {
                self.unknown += 1;
                Next::Again(1.0)
            }
            (503, Some(pause)) => Next::Again(pause),
            _ if answer.code == "IDEMPOTENCY_IN_FLIGHT" => {
                self.unknown += 1;
                Next::Again(1.0)
            }
            _ => {
                self.verdict = if self.unknown > 0 { Verdict::Unknown } else { Verdict::Refused };
                self.code = answer.code;
                Next::Settled
            }
        }
    }

    /// Nobody asks again.
    pub(crate) fn give_up(&mut self) {
        self.verdict = if self.unknown > 0 { Verdict::Unknown } else { Verdict::Nothing };
    }

    /// Whether it can have been done.
    pub(crate) fn may_be_done(&self) -> bool {
        matches!(self.verdict, Verdict::Done | Verdict::Unknown)
    }

    /// The reservation that was given.
    pub(crate) const fn reservation(&self) -> Option<i64> {
        match (self.verdict, self.given) {
            (Verdict::Done, Given::Reservation(number)) => Some(number),
            _ => None,
        }
    }
}

/// Something that was wrong as soon as it was said.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    pub(crate) at: Seconds,
    pub(crate) finding: Finding,
}

/// A poll that another instance answered with a higher number, for as long as news take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LateNews {
    pub(crate) round: u32,
    pub(crate) age: Seconds,
    pub(crate) numbers: u64,
}

/// Fans with a lower number than somebody whose join was answered before theirs was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Overtaken {
    pub(crate) fans: usize,
    /// By how many numbers at the most.
    pub(crate) numbers: u64,
    /// The longest time between the two.
    pub(crate) seconds: Seconds,
}

/// Everything that was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) round: u32,
    pub(crate) fans: Vec<Fan>,
    pub(crate) effects: Vec<Effect>,
    /// Reservations that were acknowledged.
    pub(crate) reservations: BTreeMap<i64, EffectId>,
    pub(crate) noted: Vec<Noted>,
    pub(crate) late_news: Vec<LateNews>,
    /// Other users are somebody else's, who ask for things of their own.
    pub(crate) ours: Option<std::ops::Range<i64>>,
}

impl Told {
    /// Notes what is wrong.
    pub(crate) fn note(&mut self, at: Seconds, finding: Finding) {
        self.noted.push(Noted { at, finding });
    }

    pub(crate) fn fan(&self, id: FanId) -> &Fan {
        &self.fans[id.0]
    }

    pub(crate) fn fan_mut(&mut self, id: FanId) -> &mut Fan {
        &mut self.fans[id.0]
    }

    pub(crate) fn effect(&self, id: EffectId) -> &Effect {
        &self.effects[id.0]
    }

    // ---- places

    /// Somebody has joined. Returns who, and whether they are let in already.
    pub(crate) fn joined(&mut self, joined: Joined) -> (FanId, bool) {
        let id = FanId(self.fans.len());
        let heard = joined.heard;
        self.fans.push(Fan {
            user: joined.user,
            token: joined.token,
            seq: joined.seq,
            sent_at: heard.sent_at,
            at: heard.at,
            state: FanState::Waiting,
            active_at: None,
            spent: false,
            seen: BTreeMap::new(),
            low: vec![(heard.at, heard.number)],
        });
        (id, self.polled(id, heard))
    }

    /// The token of a place is not known.
    pub(crate) fn place_unknown(&mut self, id: FanId, instance: String, at: Seconds) {
        let seq = self.fan(id).seq;
        self.note(at, Finding::PlaceUnknown { seq, instance });
    }

    /// Holds what a fan was told against what was said before. Returns whether they are let in just now.
    pub(crate) fn polled(&mut self, id: FanId, heard: Heard) -> bool {
        let Heard { instance, status, sent_at, at, .. } = heard;
        let number = match status {
            Status::Waiting => heard.number,
            Status::Activated => 0,
            Status::Expired => {
                let fan = self.fan_mut(id);
                fan.state = FanState::Over;
                let (seq, spent) = (fan.seq, fan.spent);
                if !spent {
                    self.note(at, Finding::PlaceOver { seq, instance });
                }
                return false;
            }
        };
        let round = self.round;
        let fan = &mut self.fans[id.0];
        let seq = fan.seq;
        // At one instance never, whatever happens; it must have heard the other answer before it was asked.
        let before = fan.seen.insert(instance.clone(), (number, at));
        let grew_at_one = before.filter(|(low, heard_at)| *heard_at < sent_at && number > *low);
        let mut finding = grew_at_one.map(|(before, heard_at)| Finding::NumberGrewAtOne {
            seq,
            instance: instance.clone(),
            before,
            after: number,
            apart_ms: ((sent_at - heard_at) * 1000.0) as u64,
        });
        // At another instance only for as long as news take.
        let lower = |(heard_at, low): &&(Seconds, u64)| *heard_at < sent_at && *low < number;
        if let Some((heard_at, low)) = fan.low.iter().rev().find(lower).copied() {
            self.late_news.push(LateNews { round, age: sent_at - heard_at, numbers: number - low });
            let older = fan.low.iter().rev().find(|(heard_at, _)| *heard_at < sent_at - LAG_S);
            if let Some(&(_, before)) = older.filter(|(_, low)| *low < number) {
                finding.get_or_insert(Finding::NumberGrew { seq, instance, before, after: number });
            }
        }
        if fan.low.last().is_none_or(|(_, low)| number < *low) {
            fan.low.push((at, number));
            if fan.low.len() > 50 {
                fan.low.drain(1..20);
            }
        }
        let let_in = status == Status::Activated && fan.state == FanState::Waiting;
        if let_in {
            fan.state = FanState::Active;
            fan.active_at = Some(at);
        }
        if let Some(finding) = finding {
            self.note(at, finding);
        }
        let_in
    }

    /// Returns how many of those who joined since then were overtaken.
    pub(crate) fn overtaken(&self, since: Seconds) -> Overtaken {
        let mut fans: Vec<&Fan> = self.fans.iter().filter(|fan| fan.at >= since).collect();
        fans.sort_by(|one, other| one.sent_at.total_cmp(&other.sent_at));
        // By nanoseconds, which have an order.
        let nanos = |at: Seconds| (at * 1e9) as u64;
        let mut answered: BinaryHeap<_> =
            fans.iter().map(|fan| Reverse((nanos(fan.at), fan.seq))).collect();
        let (mut highest, mut highest_at) = (0, 0.0);
        let mut overtaken = Overtaken::default();
        for fan in fans {
            while let Some(&Reverse((at, seq))) = answered.peek() {
                if at >= nanos(fan.sent_at) {
                    break;
                }
                answered.pop();
                if seq > highest {
                    (highest, highest_at) = (seq, at as Seconds / 1e9);
                }
            }
            if fan.seq < highest {
                overtaken.fans += 1;
                overtaken.numbers = overtaken.numbers.max(highest - fan.seq);
                overtaken.seconds = overtaken.seconds.max(fan.sent_at - highest_at);
            }
        }
        overtaken
    }

    // ---- effects

    /// Somebody asks for an effect.
    pub(crate) fn asks(&mut self, order: Order) -> EffectId {
        let id = EffectId(self.effects.len());
        self.effects.push(Effect {
            user: order.user,
            what: order.what,
            key: order.key,
            round: self.round,
            // Until an answer says more: it may be under way when a round ends.
            verdict: Verdict::Unknown,
            code: String::new(),
            given: Given::Nothing,
            at: 0.0,
            attempts: 0,
            unknown: 0,
            log: Vec::new(),
        });
        id
    }

    /// Takes what came of a request for an effect.
    pub(crate) fn hears(&mut self, id: EffectId, attempt: Attempt) -> Next {
        let effect = &mut self.effects[id.0];
        let next = effect.hear(attempt);
        let Some(reservation) = effect.reservation() else { return next };
        let (user, at) = (effect.user, effect.at);
        if let Some(other) = self.reservations.insert(reservation, id) {
            let users = [self.effect(other).user, user];
            self.note(at, Finding::ReservationTwice { reservation, users });
        }
        next
    }

    /// Nobody asks again.
    pub(crate) fn gives_up(&mut self, id: EffectId) {
        self.effects[id.0].give_up();
    }

    /// Judges why a hold was refused: a seat that nobody else has asked for cannot be taken, and a ticket that
    /// was let in is good.
    pub(crate) fn judge_hold(&mut self, fan: FanId, id: EffectId, contested: bool) {
        let held = self.effect(id);
        let code = held.code.as_str();
        let why = match code {
            "SEAT_TAKEN" if !contested => {
                // A first attempt without a key may have taken it.
                if held.unknown > 0 && held.key.is_none() {
                    return;
                }
                "for seats that nobody else wants".to_owned()
            }
            "TOKEN_NOT_ACTIVATED" | "TOKEN_EXPIRED" | "TOKEN_SPENT" => {
                // At another instance, for as long as news take.
                let Some(active_at) = self.fan(fan).active_at else { return };
                let age = held.at - active_at;
                if code == "TOKEN_NOT_ACTIVATED" && age <= LAG_S {
                    return;
                }
                format!("for a ticket that was let in {age:.2} s ago")
            }
            _ => return,
        };
        self.refused_wrongly(id, why);
    }

    fn refused_wrongly(&mut self, id: EffectId, why: String) {
        let effect = self.effect(id);
        let (user, code, at) = (effect.user, effect.code.clone(), effect.at);
        let said = format!("{:?} {:?}", effect.what, effect.log);
        self.note(at, Finding::RefusedWrongly { user, code, why, said });
    }

    /// Judges a payment of a live hold.
    pub(crate) fn judge_payment(&mut self, id: EffectId) {
        let paid = self.effect(id);
        let code = paid.code.as_str();
        match paid.verdict {
            Verdict::Refused if !matches!(code, "HOLD_EXPIRED" | "NOT_ENOUGH_POINTS") => {
                self.refused_wrongly(id, "for a payment of a live hold".to_owned());
            }
            Verdict::Unknown
                if matches!(code, "ALREADY_PAID" | "TOKEN_SPENT") && paid.key.is_some() =>
            {
                self.refused_wrongly(id, "of its own payment under the same key".to_owned());
            }
            _ => {}
        }
    }

    /// Judges two payments of one reservation at once, with different keys: one of them only.
    pub(crate) fn judge_payments(&mut self, both: [EffectId; 2]) {
        let [one, other] = both.map(|id| self.effect(id));
        if let (Verdict::Done, Verdict::Done, What::Pay { reservation }) =
            (one.verdict, other.verdict, &one.what)
        {
            let (reservation, at) = (*reservation, one.at.max(other.at));
            self.note(at, Finding::PaidTwice { reservation });
        }
    }

    /// Judges two holds of one seat at once.
    pub(crate) fn judge_race(&mut self, both: [EffectId; 2], seat: i64) {
        let [one, other] = both.map(|id| self.effect(id));
        // One that was tried again for long enough may have come after the end of the other's hold.
        let close = (one.at - other.at).abs() < HOLD_S - 2.0;
        if one.verdict == Verdict::Done && other.verdict == Verdict::Done && close {
            let (users, at) = ([one.user, other.user], one.at.max(other.at));
            self.note(at, Finding::SeatToldTwice { seat, users });
        }
    }

    /// Judges a balance that was told after one charge, before anything was paid.
    pub(crate) fn judge_points(&mut self, charge: EffectId, points: i64, at: Seconds) {
        let charge = self.effect(charge);
        if charge.verdict == Verdict::Done && points != CHARGE {
            let user = charge.user;
            self.note(at, Finding::PointsTold { user, points });
        }
    }
}
