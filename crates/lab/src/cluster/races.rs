//! Races: one seat, one reservation, one balance, one moment, wanted at all instances at once.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use testbed::Instance;

use super::shop::{Buyer, Hall, balance, charge, hold};
use super::swarm::{Answer, Call, Reply, at_moment, at_once, in_turn};
use super::{Check, Checks, INSTANCES};
use crate::report::{highest, median};

const BUYERS_OF_ONE_SEAT: usize = 500;
/// What a payment of `one_reservation` costs of what its buyer has.
const PRICE: u32 = 10;
const POINTS: u64 = 100;
/// A charge of `one_balance`, and what the seat there costs.
const CHARGE: u64 = 500;
const DEAR: u32 = 1_000;
/// How long after one another payment and charges are sent: a payment takes longer until it is at the account.
const GAPS_US: [u64; 5] = [0, 20, 100, 200, 500];
/// When the payment is sent, from the end of its hold.
const AIMS_MS: [i64; 10] = [-250, -20, -8, -4, -2, -1, 0, 1, 3, 6];

/// Replies, and how many there were of each.
pub(super) type Tally = BTreeMap<Reply, usize>;

pub(super) fn tally<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Tally {
    let mut tally = Tally::new();
    for answer in answers {
        *tally.entry(answer.reply.clone()).or_default() += 1;
    }
    tally
}

/// Replies as a list.
pub(super) fn listed(tally: &Tally) -> String {
    let parts: Vec<String> = tally
        .iter()
        .map(|(reply, count)| format!("{count} × {}", reply.to_string().trim()))
        .collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn reply(status: u16, code: &str) -> Reply {
    Reply { status, code: code.to_owned() }
}

/// Says what is wrong where so many want one seat.
fn judge_seat(told: &Tally, buyers: usize) -> Option<String> {
    let right = Tally::from([(reply(201, ""), 1), (reply(409, "SEAT_TAKEN"), buyers - 1)]);
    (*told != right).then(|| format!("{buyers} at one seat: {}", listed(told)))
}

/// Says what is wrong where one reservation is paid several times at once.
fn judge_payments(told: &Tally, left: i64) -> Vec<String> {
    let mut wrong = Vec::new();
    let paid: usize = told.iter().filter(|(it, _)| it.status == 201).map(|(_, count)| count).sum();
    let refused = |it: &Reply| matches!(it.code.as_str(), "ALREADY_PAID" | "TOKEN_SPENT");
    if paid != 1 || !told.keys().all(|it| it.status == 201 || refused(it)) {
        wrong.push(format!("three payments: {}", listed(told)));
    }
    let due = POINTS as i64 - i64::from(PRICE);
    if left != due {
        wrong.push(format!("three payments: {left} points are left instead of {due}"));
    }
    wrong
}

/// Says what is wrong where an account that had `before` is charged twice while it pays.
fn judge_balance(before: u64, payment: &Reply, charges: &[Reply], left: i64) -> Vec<String> {
    let mut wrong = Vec::new();
    for charge in charges.iter().filter(|charge| charge.status != 200) {
        wrong.push(format!("a charge was answered {charge}"));
    }
    let (won, price) = (payment.status == 201, i64::from(DEAR));
    let poor = payment.code == "NOT_ENOUGH_POINTS" && before < u64::from(DEAR);
    if !won && !poor {
        wrong.push(format!("a payment beside charges was answered {payment}"));
    }
    let due = (before + CHARGE * charges.len() as u64) as i64 - if won { price } else { 0 };
    if left != due {
        wrong.push(format!("charges and payment: {left} points instead of {due}"));
    }
    wrong
}

/// What was seen of a payment against the end of its hold, while somebody else wants the seat.
#[derive(Clone, Debug)]
struct Moment {
    payment: Reply,
    rival: Reply,
    /// Of the rival's second try, where the first was refused.
    again: Option<Reply>,
    /// Points of who paid or did not.
    left: i64,
}

impl Moment {
    fn is_paid(&self) -> bool {
        self.payment.status == 201
    }

    /// Says what is wrong.
    fn judge(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let (payment, rival, won) = (&self.payment, &self.rival, self.is_paid());
        if !won && payment.code != "HOLD_EXPIRED" {
            wrong.push(format!("the payment was answered {payment}"));
        }
        if rival.status != 201 && rival.code != "SEAT_TAKEN" {
            wrong.push(format!("the rival was answered {rival}"));
        }
        if won && rival.status == 201 {
            wrong.push("paid, and sold to the rival".to_owned());
        }
        // The rival may have been early and the holder late: then the seat is to be had by now.
        let other = self.again.as_ref().unwrap_or(rival);
        if (other.status == 201) == won {
            wrong.push(format!("paid: {won}, the rival then has {other}"));
        }
        let due = if won { 0 } else { i64::from(PRICE) };
        if self.left != due {
            wrong.push(format!("paid: {won}, and {} points are left", self.left));
        }
        wrong
    }
}

/// Who plays a round of `one_moment` where.
struct Game<'a> {
    hall: &'a Hall,
    holder: &'a Buyer,
    rival: &'a Buyer,
    seat: usize,
    aim_ms: i64,
    /// Where the seat is held, and where the points are asked for.
    at: [&'a Instance; 2],
    /// Where is paid, and where the rival asks.
    ports: [u16; 2],
}

impl Game<'_> {
    fn play(&self) -> Result<Moment, String> {
        let held = hold(self.at[0], self.hall, self.holder, self.seat)?;
        let moment = held.ends.checked_add(SignedDuration::from_millis(self.aim_ms));
        let moment = SystemTime::from(moment.map_err(|error| error.to_string())?);
        let wanting = self.hall.reserving(self.rival, self.seat, None);
        let [paid_at, wanted_at] = self.ports;
        let calls = [(paid_at, self.holder.paying(&held)), (wanted_at, wanting)];
        let answers = at_moment(&calls, moment)?;
        let [payment, rival] = &answers[..] else { return Err("two answers are due".to_owned()) };
        let again = match rival.status() {
            201 => None,
            _ => at_once(&calls[1..])?.pop().map(|answer| answer.reply),
        };
        Ok(Moment {
            payment: payment.reply.clone(),
            rival: rival.reply.clone(),
            again,
            left: balance(self.at[1], self.holder)?,
        })
    }
}

impl Checks<'_> {
    pub(super) fn races(&mut self) -> Result<(), String> {
        self.one_seat()?;
        self.one_reservation()?;
        self.one_balance()?;
        self.one_moment()
    }

    fn wrong_in(&mut self, number: usize, problems: impl IntoIterator<Item = String>) {
        let round = number + 1;
        self.found.wrong(problems.into_iter().map(|it| format!("round {round}: {it}")));
    }

    fn one_seat(&mut self) -> Result<(), String> {
        let rounds = self.options.rounds();
        let mut buyers = self.buyers(BUYERS_OF_ONE_SEAT)?;
        let hall = self.hall(rounds as u32, PRICE)?;
        let (mut times, mut turned_away) = (Vec::new(), 0);
        for number in 0..rounds {
            let key = (number % 2 == 1).then(|| format!("try-{number}"));
            self.random.shuffle(&mut buyers);
            let requests = buyers.iter().map(|buyer| hall.reserving(buyer, number, key.as_deref()));
            let calls: Vec<Call> = self.spread(buyers.len()).into_iter().zip(requests).collect();
            let answers = at_once(&calls)?;
            let last = answers.iter().map(|answer| answer.answered).fold(0.0, f64::max);
            let first = answers.iter().map(|answer| answer.asked).fold(f64::INFINITY, f64::min);
            times.push((last - first) * 1e3);
            // On a busy machine some wait too long for a connection. They are told to come back, and do.
            let (away, there): (Vec<_>, Vec<_>) = answers
                .iter()
                .zip(&calls)
                .partition(|(answer, _)| answer.is(503, "STORE_UNAVAILABLE"));
            let mut told = tally(there.into_iter().map(|(answer, _)| answer));
            turned_away += away.len();
            if !away.is_empty() {
                let again: Vec<Call> = away.into_iter().map(|(_, call)| call.clone()).collect();
                for (reply, count) in tally(&at_once(&again)?) {
                    *told.entry(reply).or_default() += count;
                }
            }
            self.wrong_in(number, judge_seat(&told, buyers.len()));
        }
        let text = format!(
            "{rounds} rounds: one 201 and {} × 409 SEAT_TAKEN in each, after {turned_away} × 503 of those who waited too \
             long for a connection; a round took {:.0} ms ({:.0}–{:.0})",
            BUYERS_OF_ONE_SEAT - 1,
            median(&times).unwrap_or(f64::NAN),
            times.iter().copied().fold(f64::INFINITY, f64::min),
            highest(&times).unwrap_or(f64::NAN)
        );
        self.found.record(Check::Races, &format!("{BUYERS_OF_ONE_SEAT} buyers, one seat"), text);
        Ok(())
    }

    fn one_reservation(&mut self) -> Result<(), String> {
        let rounds = self.options.rounds();
        let buyers = self.buyers(rounds)?;
        let hall = self.hall(rounds as u32, PRICE)?;
        let mut refused = Tally::new();
        for (number, buyer) in buyers.iter().enumerate() {
            charge(self.first(), buyer, POINTS)?;
            let held = hold(self.any(), &hall, buyer, number)?;
            let ports = self.spread(INSTANCES);
            let calls: Vec<Call> =
                ports.into_iter().map(|port| (port, buyer.paying(&held))).collect();
            let told = tally(&at_once(&calls)?);
            let left = balance(self.any(), buyer)?;
            self.wrong_in(number, judge_payments(&told, left));
            for (reply, count) in told.into_iter().filter(|(reply, _)| reply.status != 201) {
                *refused.entry(reply).or_default() += count;
            }
        }
        let text = format!("{rounds} rounds: one 201 in each, the others {}", listed(&refused));
        self.found.record(Check::Races, "3 payments, one reservation", text);
        Ok(())
    }

    fn one_balance(&mut self) -> Result<(), String> {
        let rounds = self.options.rounds();
        let buyers = self.buyers(rounds)?;
        let hall = self.hall(rounds as u32, DEAR)?;
        let mut paid = 0;
        for (number, buyer) in buyers.iter().enumerate() {
            // Every other one can pay only if a charge comes first.
            let before = if number % 2 == 1 { 600 } else { 1_500 };
            charge(self.first(), buyer, before)?;
            let held = hold(self.any(), &hall, buyer, number)?;
            let requests = [buyer.paying(&held), buyer.charging(CHARGE), buyer.charging(CHARGE)];
            let mut calls: Vec<Call> = self.spread(INSTANCES).into_iter().zip(requests).collect();
            // Who is sent first is the first to be there, if by enough: the payment in half of the rounds of either kind.
            let late = number % 4 > 1;
            if late {
                calls.reverse();
            }
            let gap = Duration::from_micros(GAPS_US[number / 4 % GAPS_US.len()]);
            let mut replies: Vec<Reply> =
                in_turn(&calls, gap)?.into_iter().map(|answer| answer.reply).collect();
            if late {
                replies.reverse();
            }
            let (payment, charges) = replies.split_first().ok_or("three answers are due")?;
            let left = balance(self.any(), buyer)?;
            paid += usize::from(payment.status == 201);
            self.wrong_in(number, judge_balance(before, payment, charges, left));
        }
        let text = format!(
            "{rounds} rounds: every balance to the point, {paid} paid, {} were too poor at that moment",
            rounds - paid
        );
        self.found.record(Check::Races, "2 charges and a payment", text);
        Ok(())
    }

    /// A payment against the end of its hold, while somebody else wants the seat at another instance.
    fn one_moment(&mut self) -> Result<(), String> {
        let rounds = self.options.rounds();
        let (holders, rivals) = (self.buyers(rounds)?, self.buyers(rounds)?);
        let hall = self.hall(rounds as u32, PRICE)?;
        for holder in &holders {
            charge(self.first(), holder, u64::from(PRICE))?;
        }
        let mut plans = Vec::new();
        for _ in 0..rounds {
            let ports = self.spread(2);
            let at = [(); 2].map(|()| self.random.usize(..INSTANCES));
            plans.push(([ports[0], ports[1]], at));
        }
        let instances = &self.cluster.instances;
        let games: Vec<Game<'_>> = plans
            .into_iter()
            .enumerate()
            .map(|(number, (ports, at))| Game {
                hall: &hall,
                holder: &holders[number],
                rival: &rivals[number],
                seat: number,
                aim_ms: AIMS_MS[number % AIMS_MS.len()],
                at: at.map(|index| &instances[index]),
                ports,
            })
            .collect();
        let mut moments = Vec::new();
        for some in games.chunks(AIMS_MS.len()) {
            let played: Vec<Result<Moment, String>> = std::thread::scope(|scope| {
                let running: Vec<_> = some.iter().map(|game| scope.spawn(|| game.play())).collect();
                let broken = |_| Err("a round panicked".to_owned());
                running.into_iter().map(|thread| thread.join().unwrap_or_else(broken)).collect()
            });
            for moment in played {
                moments.push(moment?);
            }
        }
        for (number, moment) in moments.iter().enumerate() {
            self.wrong_in(number, moment.judge());
        }
        let paid = moments.iter().filter(|moment| moment.is_paid()).count();
        let ran_out = rounds - paid;
        self.found.expect(paid > 0 && ran_out > 0, || {
            format!("only one outcome was seen: {paid} paid, {ran_out} ran out")
        });
        let text = format!(
            "{rounds} rounds within 20 ms of the moment or well before: {paid} paid, {ran_out} ran out and went to the \
             rival, never both"
        );
        self.found.record(Check::Races, "payment against expiry", text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rows: &[(u16, &str, usize)]) -> Tally {
        rows.iter().map(|&(status, code, count)| (reply(status, code), count)).collect()
    }

    #[test]
    fn a_seat_has_one_buyer_and_all_others_know() {
        let taken = (409, "SEAT_TAKEN");
        let right = told(&[(201, "", 1), (taken.0, taken.1, 499)]);
        assert_eq!(judge_seat(&right, 500), None);
        for wrong in [
            told(&[(201, "", 2), (taken.0, taken.1, 498)]),
            told(&[(taken.0, taken.1, 500)]),
            told(&[(201, "", 1), (taken.0, taken.1, 498)]),
            told(&[(201, "", 1), (taken.0, taken.1, 498), (503, "STORE_UNAVAILABLE", 1)]),
            told(&[(201, "", 1), (taken.0, taken.1, 498), (0, "", 1)]),
        ] {
            assert_eq!(
                judge_seat(&wrong, 500),
                Some(format!("500 at one seat: {}", listed(&wrong)))
            );
        }
        assert_eq!(listed(&right), "1 × 201, 499 × 409 SEAT_TAKEN");
        assert_eq!(listed(&Tally::new()), "none");
    }

    #[test]
    fn a_reservation_is_paid_once() {
        let right = told(&[(201, "", 1), (409, "ALREADY_PAID", 1), (403, "TOKEN_SPENT", 1)]);
        assert_eq!(judge_payments(&right, 90), [""; 0]);
        let twice = told(&[(201, "", 2), (409, "ALREADY_PAID", 1)]);
        assert_eq!(judge_payments(&twice, 80).len(), 2);
        let never = told(&[(409, "ALREADY_PAID", 3)]);
        assert_eq!(judge_payments(&never, 90), ["three payments: 3 × 409 ALREADY_PAID"]);
        let odd = told(&[(201, "", 1), (404, "UNKNOWN", 2)]);
        assert_eq!(judge_payments(&odd, 90), ["three payments: 1 × 201, 2 × 404 UNKNOWN"]);
        let lost = "three payments: 100 points are left instead of 90";
        assert_eq!(judge_payments(&right, 100), [lost]);
    }

    #[test]
    fn a_balance_is_right_to_the_point() {
        let (paid, poor, charged) =
            (reply(201, ""), reply(409, "NOT_ENOUGH_POINTS"), reply(200, ""));
        let both = [charged.clone(), charged.clone()];
        assert_eq!(judge_balance(1_500, &paid, &both, 1_500), [""; 0]);
        assert_eq!(judge_balance(600, &paid, &both, 600), [""; 0]);
        assert_eq!(judge_balance(600, &poor, &both, 1_600), [""; 0]);
        let found = judge_balance(1_500, &paid, &both, 1_000);
        assert_eq!(found, ["charges and payment: 1000 points instead of 1500"]);
        let found = judge_balance(1_500, &poor, &both, 2_500);
        assert_eq!(found, ["a payment beside charges was answered 409 NOT_ENOUGH_POINTS"]);
        let found = judge_balance(600, &reply(0, ""), &both, 1_600);
        assert_eq!(found.len(), 1, "{found:?}");
        let found = judge_balance(1_500, &paid, &[charged, reply(504, "OUTCOME")], 1_500);
        assert_eq!(found, ["a charge was answered 504 OUTCOME"]);
    }

    #[test]
    fn of_a_payment_and_a_rival_exactly_one_wins() {
        let taken = || reply(409, "SEAT_TAKEN");
        let paid =
            Moment { payment: reply(201, ""), rival: taken(), again: Some(taken()), left: 0 };
        let ran_out = Moment {
            payment: reply(409, "HOLD_EXPIRED"),
            rival: reply(201, ""),
            again: None,
            left: 10,
        };
        let early = Moment { rival: taken(), again: Some(reply(201, "")), ..ran_out.clone() };
        for right in [&paid, &ran_out, &early] {
            assert_eq!(right.judge(), [""; 0]);
        }
        let found = Moment { rival: reply(201, ""), again: None, ..paid.clone() }.judge();
        assert_eq!(found, ["paid, and sold to the rival", "paid: true, the rival then has 201 "]);
        let found = Moment { again: Some(reply(201, "")), ..paid.clone() }.judge();
        assert_eq!(found, ["paid: true, the rival then has 201 "]);
        let found = Moment { again: Some(taken()), ..early.clone() }.judge();
        assert_eq!(found, ["paid: false, the rival then has 409 SEAT_TAKEN"]);
        let found = Moment { left: 10, ..paid.clone() }.judge();
        assert_eq!(found, ["paid: true, and 10 points are left"]);
        let found = Moment { left: 0, ..ran_out.clone() }.judge();
        assert_eq!(found, ["paid: false, and 0 points are left"]);
        let found = Moment { payment: reply(503, "X"), ..ran_out }.judge();
        assert_eq!(found, ["the payment was answered 503 X"]);
        let found = Moment { rival: reply(500, "X"), ..paid }.judge();
        assert_eq!(found, ["the rival was answered 500 X"]);
    }
}
