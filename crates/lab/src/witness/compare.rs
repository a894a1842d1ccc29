//! Every acknowledged answer against the books.

use std::collections::{BTreeMap, BTreeSet};

use super::ASKED_BEFORE_MS;
use super::books::{Books, EntryKind, SeatState, State, Topic};
use super::finding::Finding;
use super::told::{Effect, Given, Told, Verdict, What};

/// Effects that were asked for by one user for one thing.
type Asked<'a, K> = BTreeMap<K, Vec<&'a Effect>>;

fn may_be(effects: &[&Effect]) -> bool {
    effects.iter().any(|effect| effect.may_be_done())
}

fn said(effects: &[&Effect]) -> String {
    let all: Vec<String> =
        effects.iter().map(|effect| format!("{:?} {:?}", effect.verdict, effect.log)).collect();
    if all.is_empty() { "nothing was asked".to_owned() } else { all.join("; ") }
}

fn of<'a, K: Ord>(asked: &'a Asked<'a, K>, key: &K) -> &'a [&'a Effect] {
    asked.get(key).map_or(&[], Vec::as_slice)
}

/// Returns everything that is wrong: what was noted as answers came, and where answers and books differ.
pub(crate) fn compare(told: &Told, books: &Books) -> Vec<Finding> {
    let mut found: Vec<Finding> = told.noted.iter().map(|noted| noted.finding.clone()).collect();
    found.extend(numbers_twice(told));
    let asked = Everything::of(told);
    holds(told.ours.as_ref(), &asked, books, &mut found);
    acknowledged(told, &asked, books, &mut found);
    at_the_same_time(told, books, &mut found);
    points(&asked, books, &mut found);
    found.extend(events(books));
    found
}

/// All effects, by what they are about.
struct Everything<'a> {
    held: Asked<'a, (i64, i64, &'a [i64])>,
    paid: Asked<'a, (i64, i64)>,
    cancelled: Asked<'a, (i64, i64)>,
    refunded: Asked<'a, (i64, i64)>,
    charged: Asked<'a, i64>,
}

impl<'a> Everything<'a> {
    fn of(told: &'a Told) -> Self {
        let mut all = Self {
            held: BTreeMap::new(),
            paid: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            refunded: BTreeMap::new(),
            charged: BTreeMap::new(),
        };
        for effect in &told.effects {
            let user = effect.user;
            match &effect.what {
                What::Hold { session, seats } => {
                    all.held.entry((user, *session, seats)).or_default().push(effect);
                }
                What::Pay { reservation } => {
                    all.paid.entry((user, *reservation)).or_default().push(effect);
                }
                What::Cancel { reservation } => {
                    all.cancelled.entry((user, *reservation)).or_default().push(effect);
                }
                What::Refund { payment } => {
                    all.refunded.entry((user, *payment)).or_default().push(effect);
                }
                What::Charge => all.charged.entry(user).or_default().push(effect),
            }
        }
        all
    }
}

fn numbers_twice(told: &Told) -> Vec<Finding> {
    let mut users: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    for fan in &told.fans {
        users.entry(fan.seq).or_default().push(fan.user);
    }
    users
        .into_iter()
        .filter(|(_, users)| users.len() > 1)
        .map(|(seq, users)| Finding::NumberTwice { seq, users })
        .collect()
}

/// What is in the database was asked for, and hangs together.
fn holds(
    ours: Option<&std::ops::Range<i64>>,
    asked: &Everything<'_>,
    books: &Books,
    found: &mut Vec<Finding>,
) {
    let mut have: BTreeMap<(i64, i64, &[i64]), usize> = BTreeMap::new();
    let mut sold: BTreeMap<i64, i64> = BTreeMap::new();
    for (&number, row) in &books.reservations {
        let key = (row.user, row.session, row.seats.as_slice());
        *have.entry(key).or_default() += 1;
        let effects = asked.held.get(&key).map_or(&[][..], Vec::as_slice);
        let is_ours = ours.is_none_or(|ours| ours.contains(&row.user));
        if is_ours && !may_be(effects) {
            let (user, said) = (row.user, said(effects));
            found.push(Finding::HoldNotAsked { reservation: number, user, said });
        }
        if row.state != State::Paid {
            continue;
        }
        for &seat in &row.seats {
            if let Some(other) = sold.insert(seat, number) {
                found.push(Finding::SeatPaidTwice { seat, reservations: [other, number] });
            }
            let is = books.seats.get(&seat).copied();
            if is != Some((SeatState::Sold, number)) {
                found.push(Finding::SeatLost { seat, reservation: number, found: is });
            }
        }
        let payment = row.payment.and_then(|payment| books.payments.get(&payment));
        if payment.is_none_or(|payment| payment.reservation != number) {
            found.push(Finding::PaymentOfAnother { reservation: number, payment: row.payment });
        }
    }
    for ((user, session, seats), effects) in &asked.held {
        // Without a key, one attempt is one effect; with one, all attempts are one.
        let asked = effects.iter().filter(|effect| effect.may_be_done()).count();
        let have = have.get(&(*user, *session, *seats)).copied().unwrap_or(0);
        if asked > 0 && have > asked {
            found.push(Finding::HoldsTooMany { user: *user, seats: seats.to_vec(), have, asked });
        }
    }
}

/// What was acknowledged is there, and what became of it was asked for.
fn acknowledged(told: &Told, asked: &Everything<'_>, books: &Books, found: &mut Vec<Finding>) {
    for (&number, &id) in &told.reservations {
        let held = told.effect(id);
        let Some(row) = books.reservations.get(&number).filter(|row| row.user == held.user) else {
            let said = said(&[held]);
            found.push(Finding::HoldLost { reservation: number, user: held.user, said });
            continue;
        };
        let key = (held.user, number);
        let (pays, gives) = (of(&asked.paid, &key), of(&asked.cancelled, &key));
        let is_paid = matches!(row.state, State::Paid | State::Refunded);
        if is_paid && !may_be(pays) {
            found.push(Finding::PaidNotAsked { reservation: number, said: said(pays) });
        }
        if row.state == State::Cancelled && !may_be(gives) {
            found.push(Finding::CancelNotAsked { reservation: number, said: said(gives) });
        }
        for pay in pays.iter().filter(|pay| pay.verdict == Verdict::Done) {
            let Given::Payment { payment, amount } = pay.given else { continue };
            let is = books.payments.get(&payment);
            let same = is.is_some_and(|is| is.reservation == number && is.amount == amount);
            if !is_paid || !same {
                let state = row.state;
                found.push(Finding::PaymentLost { reservation: number, payment, state });
            }
        }
        if gives.iter().any(|give| give.verdict == Verdict::Done) && row.state != State::Cancelled {
            found.push(Finding::CancelLost { reservation: number, state: row.state });
        }
        if let (State::Refunded, Some(payment)) = (row.state, row.payment) {
            let asked = of(&asked.refunded, &(held.user, payment));
            if !may_be(asked) {
                found.push(Finding::RefundNotAsked { payment, said: said(asked) });
            }
        }
    }
    for ((_, payment), effects) in &asked.refunded {
        if effects.iter().any(|effect| effect.verdict == Verdict::Done) {
            let of = books.payments.get(payment);
            let row = of.and_then(|payment| books.reservations.get(&payment.reservation));
            let refund = books.refunds.get(payment);
            let same = row.is_some_and(|row| row.state == State::Refunded)
                && refund.is_some_and(|refund| {
                    of.is_some_and(|of| of.reservation == refund.reservation)
                });
            if let (false, Some(row)) = (same, row) {
                found.push(Finding::RefundLost { payment: *payment, state: row.state });
            }
        }
    }
}

/// Two live holds of one seat at a time, among those that were acknowledged and not given back.
fn at_the_same_time(told: &Told, books: &Books, found: &mut Vec<Finding>) {
    let mut spans: BTreeMap<i64, Vec<(i64, i64, i64, State)>> = BTreeMap::new();
    for (&number, &id) in &told.reservations {
        let Some(row) = books.reservations.get(&number) else { continue };
        let until = match row.state {
            State::Cancelled => continue,
            State::Paid => i64::MAX,
            State::Held => row.held_until,
            // Somebody has ended it, and another may have been asked before.
            State::Expired => row.held_until.saturating_sub(ASKED_BEFORE_MS),
            State::Refunded => {
                let refund = row.payment.and_then(|payment| books.refunds.get(&payment));
                refund.map_or(row.held_until, |refund| refund.at).saturating_sub(ASKED_BEFORE_MS)
            }
        };
        if let What::Hold { seats, .. } = &told.effect(id).what {
            for &seat in seats {
                spans.entry(seat).or_default().push((row.created_at, until, number, row.state));
            }
        }
    }
    for (seat, mut spans) in spans {
        spans.sort_unstable_by_key(|(from, until, number, _)| (*from, *until, *number));
        for pair in spans.windows(2) {
            let [(_, until, one, state), (from, _, other, _)] = *pair else { continue };
            if from < until {
                let (reservations, overlap_ms) = ([one, other], until.saturating_sub(from));
                found.push(Finding::SeatHeldTwice { seat, reservations, state, overlap_ms });
            }
        }
    }
}

fn points(asked: &Everything<'_>, books: &Books, found: &mut Vec<Finding>) {
    let mut sums: BTreeMap<i64, i64> = BTreeMap::new();
    let mut of_kind: BTreeMap<(i64, EntryKind), Vec<i64>> = BTreeMap::new();
    let mut of_payment: BTreeMap<(EntryKind, i64), usize> = BTreeMap::new();
    for entry in books.entries.values() {
        *sums.entry(entry.user).or_default() += entry.amount;
        of_kind.entry((entry.user, entry.kind)).or_default().push(entry.amount);
        if let Some(payment) = entry.payment {
            *of_payment.entry((entry.kind, payment)).or_default() += 1;
        }
    }
    for (&user, &balance) in &books.balances {
        let entries = sums.get(&user).copied().unwrap_or(0);
        if entries != balance {
            found.push(Finding::Balance { user, balance, entries });
        }
    }
    for (&user, effects) in &asked.charged {
        let have = of_kind.get(&(user, EntryKind::Charge)).map_or(0, Vec::len);
        let acknowledged = effects.iter().filter(|it| it.verdict == Verdict::Done).count();
        let at_most = effects.iter().filter(|it| it.may_be_done()).count();
        if have < acknowledged {
            let said = said(effects);
            found.push(Finding::ChargeLost { user, have, acknowledged, said });
        }
        if have > at_most {
            let said = said(effects);
            found.push(Finding::ChargedTooOften { user, have, at_most, said });
        }
    }
    for (&payment, row) in &books.payments {
        let entries = of_payment.get(&(EntryKind::Payment, payment)).copied().unwrap_or(0);
        if entries != 1 {
            found.push(Finding::PaymentEntries { payment, entries });
        }
        let taken = of_kind.get(&(row.user, EntryKind::Payment));
        if !taken.is_some_and(|taken| taken.contains(&-row.amount)) {
            let (user, amount) = (row.user, row.amount);
            found.push(Finding::PaymentTookNothing { payment, user, amount });
        }
    }
    for &payment in books.refunds.keys() {
        let entries = of_payment.get(&(EntryKind::Refund, payment)).copied().unwrap_or(0);
        if entries != 1 {
            found.push(Finding::RefundEntries { payment, entries });
        }
    }
}

/// Returns effects without exactly one event, and events without an effect.
pub(crate) fn events(books: &Books) -> Vec<Finding> {
    let mut found = Vec::new();
    for topic in Topic::ALL {
        let wanted: BTreeSet<i64> = match topic {
            Topic::Reserved => books.reservations.keys().copied().collect(),
            Topic::Cancelled => {
                let ended = |state| matches!(state, State::Cancelled | State::Expired);
                let ended = books.reservations.iter().filter(|(_, row)| ended(row.state));
                ended.map(|(number, _)| *number).collect()
            }
            Topic::Paid => books.payments.keys().copied().collect(),
            Topic::Refunded => books.refunds.keys().copied().collect(),
            Topic::Charged => {
                let charges = books.entries.iter().filter(|(_, it)| it.kind == EntryKind::Charge);
                charges.map(|(number, _)| *number).collect()
            }
        };
        let have: BTreeMap<i64, u32> = books
            .events
            .iter()
            .filter(|((of, _), _)| *of == topic)
            .map(|((_, id), count)| (*id, *count))
            .collect();
        found.extend(
            wanted
                .iter()
                .filter(|id| !have.contains_key(id))
                .map(|&id| Finding::EventLost { topic, id }),
        );
        for (&id, &count) in &have {
            if count > 1 {
                found.push(Finding::EventTwice { topic, id, count });
            }
            // A hold that ran out is recorded a little later than it is told.
            if topic != Topic::Cancelled && !wanted.contains(&id) {
                found.push(Finding::EventOfNothing { topic, id });
            }
        }
    }
    let unknown = books.unknown_events.iter();
    found.extend(unknown.map(|name| Finding::EventUnknown { name: name.clone() }));
    found
}
