//! The governor in a loop that is closed: whom it lets in buys, and how that goes is what it is told.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use boxoffice_domain::queue::{Felt, Governor, Reason, SHARE_MIN};
use proptest::prelude::*;

use crate::dice::Dice;

/// What the database can do, from a moment on.
#[derive(Clone, Copy)]
struct Can {
    from_s: f64,
    /// Operations a second; none while it is away.
    per_second: f64,
    /// What each takes beside that.
    latency_s: f64,
}

/// A queue whose line never ends, and those who are let in.
struct Shop {
    /// From a moment on.
    admit_per_second: Vec<(f64, f64)>,
    /// How long people look before they hold a seat, and before they pay: at least, and on average on top.
    think_s: (f64, f64),
    /// Of those who hold, how many pay.
    pay: f64,
    can: Vec<Can>,
    /// Refused after this time.
    patience_s: f64,
    /// How often whoever is refused comes again.
    tries: u32,
    /// Whether the time an operation takes is always the same.
    even: bool,
    governed: bool,
    seconds: f64,
}

#[derive(Clone, Copy)]
struct Operation {
    asked_ms: i64,
    let_in_ms: i64,
    pays: bool,
    tries: u32,
}

/// What happened in a second.
struct Second {
    share: f64,
    served: u64,
    refused: u64,
    waits_ms: Vec<i64>,
}

const STEP_MS: i64 = 5;

impl Shop {
    fn can(&self, at_s: f64) -> Can {
        *self.can.iter().rev().find(|can| can.from_s <= at_s).unwrap()
    }

    fn rate(&self, at_s: f64) -> f64 {
        self.admit_per_second.iter().rev().find(|(from_s, _)| *from_s <= at_s).unwrap().1
    }

    fn run(&self, seed: u64) -> Vec<Second> {
        let mut dice = Dice(seed);
        let mut governor = Governor::default();
        let mut seconds: Vec<Second> = Vec::new();
        // When somebody acts, and what they do.
        let mut acts: BinaryHeap<Reverse<(i64, bool, u32, i64)>> = BinaryHeap::new();
        let mut queue: VecDeque<Operation> = VecDeque::new();
        let mut credit = 0.0;
        let mut work = 0.0;
        let mut felt = Felt::default();
        let mut second = Second { share: 1.0, served: 0, refused: 0, waits_ms: Vec::new() };
        let think = |dice: &mut Dice| ((self.think_s.0 + dice.about(self.think_s.1)) * 1e3) as i64;
        for now_ms in (0..(self.seconds * 1e3) as i64).step_by(STEP_MS as usize) {
            let can = self.can(now_ms as f64 / 1e3);
            let share = if self.governed { governor.share() } else { 1.0 };
            let rate = self.rate(now_ms as f64 / 1e3);
            credit += rate * share * STEP_MS as f64 / 1e3;
            while credit >= 1.0 {
                credit -= 1.0;
                felt.admitted += 1;
                acts.push(Reverse((now_ms + think(&mut dice), false, 0, now_ms)));
            }
            while let Some(Reverse((at_ms, pays, tries, let_in_ms))) = acts.peek().copied() {
                if at_ms > now_ms {
                    break;
                }
                acts.pop();
                felt.asked += 1;
                felt.aged += 1;
                felt.age += Duration::from_millis((now_ms - let_in_ms).unsigned_abs());
                queue.push_back(Operation { asked_ms: now_ms, let_in_ms, pays, tries });
            }
            // Late ones are refused, and come again after a second.
            while let Some(first) = queue.front() {
                if (now_ms - first.asked_ms) as f64 / 1e3 <= self.patience_s {
                    break;
                }
                let Operation { pays, tries, let_in_ms, .. } = queue.pop_front().unwrap();
                felt.refused += 1;
                second.refused += 1;
                if tries < self.tries {
                    acts.push(Reverse((now_ms + 1_000, pays, tries + 1, let_in_ms)));
                }
            }
            if can.per_second > 0.0 {
                work += STEP_MS as f64 / 1e3;
            }
            while work > 0.0 {
                let Some(first) = queue.pop_front() else {
                    work = 0.0;
                    break;
                };
                let mean = 1.0 / can.per_second;
                work -= if self.even { mean } else { dice.about(mean) };
                let waited_ms = now_ms - first.asked_ms + (can.latency_s * 1e3) as i64;
                felt.served += 1;
                felt.waited += Duration::from_millis(waited_ms.unsigned_abs());
                second.served += 1;
                second.waits_ms.push(waited_ms);
                if !first.pays && dice.roll() < self.pay {
                    acts.push(Reverse((
                        now_ms + waited_ms + think(&mut dice),
                        true,
                        0,
                        first.let_in_ms,
                    )));
                }
            }
            if now_ms % 1_000 == 1_000 - STEP_MS {
                felt.over = Duration::from_secs(1);
                felt.waiting = queue.len() as u64;
                governor.decide(std::mem::take(&mut felt), rate);
                second.share = share;
                seconds.push(second);
                second = Second { share: 1.0, served: 0, refused: 0, waits_ms: Vec::new() };
            }
        }
        seconds
    }
}

fn p99_ms(seconds: &[Second]) -> i64 {
    let mut all: Vec<i64> = seconds.iter().flat_map(|one| one.waits_ms.iter().copied()).collect();
    all.sort_unstable();
    all.get(all.len() * 99 / 100).copied().unwrap_or(0)
}

fn served(seconds: &[Second]) -> f64 {
    seconds.iter().map(|one| one.served).sum::<u64>() as f64
}

fn refused(seconds: &[Second]) -> u64 {
    seconds.iter().map(|one| one.refused).sum()
}

/// The lowest and the highest share.
fn shares(seconds: &[Second]) -> (f64, f64) {
    let shares = seconds.iter().map(|one| one.share);
    shares.fold((1.0, 0.0), |(low, high): (f64, f64), share| (low.min(share), high.max(share)))
}

/// How many seconds pass until all are let in.
fn back_s(seconds: &[Second]) -> Option<usize> {
    seconds.iter().position(|one| one.share >= 0.999)
}

const FAST: Can = Can { from_s: 0.0, per_second: 5_000.0, latency_s: 0.003 };
/// Two operations are a purchase.
const SLOW: Can = Can { from_s: 60.0, per_second: 400.0, latency_s: 0.003 };

/// People who hold a seat about 3 s after they were let in, and pay about 3 s later.
fn shop() -> Shop {
    Shop {
        admit_per_second: vec![(0.0, 1_000.0)],
        think_s: (1.0, 2.0),
        pay: 1.0,
        can: vec![FAST],
        patience_s: 3.0,
        tries: 3,
        even: false,
        governed: true,
        seconds: 120.0,
    }
}

#[test]
fn a_shop_that_serves_200_purchases_a_second_of_1000_keeps_those_inside_from_waiting() {
    for (seed, even) in [(1, false), (2, false), (3, true)] {
        for think_s in [(0.5, 0.5), (1.0, 2.0)] {
            let back = Can { from_s: 240.0, ..FAST };
            let can = vec![FAST, SLOW, back];
            let shop = Shop { can, even, think_s, seconds: 300.0, ..shop() };
            let seconds = shop.run(seed);
            assert_eq!(shares(&seconds[..60]), (1.0, 1.0), "nothing was wrong");
            // Those who were inside when it became slow cannot be helped.
            let settled = &seconds[90..240];
            let waits_ms = p99_ms(settled);
            assert!(waits_ms <= 1_000 && refused(settled) == 0, "{think_s:?}: {waits_ms} ms");
            let goodput = served(settled) / (settled.len() as f64 * SLOW.per_second);
            assert!(goodput >= 0.95, "{think_s:?}: {goodput}");
            // 0.2 is what it bears.
            let (low, high) = shares(&seconds[120..240]);
            assert!(low >= 0.12 && high <= 0.3, "{think_s:?}: {low} to {high}");
            let back = back_s(&seconds[240..]);
            assert!(back.is_some_and(|back| back <= 30), "{think_s:?}: {back:?}");
        }
    }
}

#[test]
fn a_shop_that_is_slow_from_the_opening_on_is_found_out() {
    for seed in 1..=3 {
        let shop = Shop { can: vec![Can { from_s: 0.0, ..SLOW }], seconds: 240.0, ..shop() };
        let seconds = shop.run(seed);
        let settled = &seconds[90..];
        let goodput = served(settled) / (settled.len() as f64 * SLOW.per_second);
        let waits_ms = p99_ms(settled);
        assert!(waits_ms <= 1_000 && goodput >= 0.9, "{waits_ms} ms, {goodput}");
    }
}

#[test]
fn without_it_nearly_everybody_waits_in_vain() {
    let shop = Shop { can: vec![FAST, SLOW], governed: false, seconds: 180.0, ..shop() };
    let seconds = shop.run(1);
    let settled = &seconds[90..];
    assert!(p99_ms(settled) > 2_500, "{}", p99_ms(settled));
    assert!(refused(settled) as f64 > 2.0 * served(settled));
}

#[test]
fn people_who_take_their_time_do_not_make_it_swing() {
    let shop = Shop {
        think_s: (3.0, 5.0),
        can: vec![FAST, SLOW, Can { from_s: 300.0, ..FAST }],
        seconds: 400.0,
        ..shop()
    };
    for seed in 1..=3 {
        let seconds = shop.run(seed);
        let settled = &seconds[140..300];
        let (low, high) = shares(settled);
        assert!(low >= 0.12 && high <= 0.3, "{low} to {high}");
        assert!(p99_ms(settled) <= 1_000 && refused(settled) == 0, "{}", p99_ms(settled));
        let goodput = served(settled) / (settled.len() as f64 * SLOW.per_second);
        assert!(goodput >= 0.95, "{goodput}");
        // It has to wait for them to see whether there is room.
        assert!(back_s(&seconds[300..]).is_some_and(|back| back <= 60));
    }
}

#[test]
fn a_shop_that_is_well_is_never_held_up() {
    for (per_second, latency_s) in [(5_000.0, 0.0), (2_500.0, 0.003), (4_000.0, 0.15)] {
        let can = vec![Can { from_s: 0.0, per_second, latency_s }];
        let seconds = Shop { can, ..shop() }.run(7);
        assert_eq!(shares(&seconds), (1.0, 1.0), "{per_second} a second");
    }
}

#[test]
fn while_the_store_is_away_the_line_moves_on_at_the_least_rate_and_is_back_soon() {
    let away = Can { from_s: 60.0, per_second: 0.0, latency_s: 0.0 };
    let shop =
        Shop { can: vec![FAST, away, Can { from_s: 90.0, ..FAST }], seconds: 150.0, ..shop() };
    let seconds = shop.run(1);
    assert_eq!(shares(&seconds[66..90]), (SHARE_MIN, SHARE_MIN));
    assert!(back_s(&seconds[90..]).is_some_and(|back| back <= 30));
    // It does not come back to as many as wait by then.
    assert_eq!(refused(&seconds[100..]), 0);
}

#[test]
fn when_the_store_is_back_those_who_have_come_again_all_the_time_show_that_it_is() {
    // Some connections are left, which serve one in a hundred.
    let used_up = Can { from_s: 60.0, per_second: 1.0, latency_s: 0.003 };
    for seed in 1..=12 {
        let shop = Shop {
            admit_per_second: vec![(0.0, 60.0)],
            think_s: (2.0, 2.0),
            can: vec![FAST, used_up, Can { from_s: 100.0, ..FAST }],
            patience_s: 0.5,
            tries: 60,
            even: true,
            seconds: 180.0,
            ..shop()
        };
        let seconds = shop.run(seed);
        assert_eq!(shares(&seconds[80..100]), (SHARE_MIN, SHARE_MIN));
        let back = back_s(&seconds[100..]);
        assert!(back.is_some_and(|back| back <= 30), "{back:?}");
        assert_eq!(refused(&seconds[102..]), 0);
    }
}

#[test]
fn two_who_are_on_their_way_do_not_wait() {
    let few = Felt {
        over: Duration::from_secs(1),
        asked: 11,
        served: 9,
        waiting: 2,
        waited: Duration::from_millis(90),
        ..Felt::default()
    };
    assert_eq!(few.wait(), Duration::from_millis(10));
    let mut governor = Governor::default();
    governor.decide(few, 60.0);
    assert_eq!((governor.share(), governor.reason()), (1.0, Reason::Full));
    assert_eq!(Felt { waiting: 18, ..few }.wait(), Duration::from_secs(2));
}

/// Rows were locked from outside, and are free again.
#[test]
fn those_who_are_served_at_last_are_no_new_trouble() {
    let second = Felt { over: Duration::from_secs(1), ..Felt::default() };
    let mut governor = Governor::default();
    let locked = Felt { asked: 60, refused: 60, waiting: 60, ..second };
    (0..10).for_each(|_| governor.decide(locked, 60.0));
    assert_eq!(governor.share(), SHARE_MIN);
    (0..10).for_each(|_| governor.decide(second, 60.0));
    let late = Felt { asked: 1, served: 5, waited: Duration::from_secs(8), ..second };
    governor.decide(late, 60.0);
    assert_eq!(governor.reason(), Reason::Rising);
    let (before, quick) = (governor.share(), Felt { served: 1, asked: 1, ..second });
    (0..3).for_each(|_| governor.decide(quick, 60.0));
    assert!(governor.share() > before + 0.1, "{before} to {}", governor.share());
    // Where they keep coming it is.
    governor.decide(Felt { asked: 5, ..late }, 60.0);
    assert_eq!(governor.reason(), Reason::Waiting);
}

#[test]
fn a_shop_that_bears_most_of_the_rate_is_not_asked_for_more() {
    let can = Can { from_s: 60.0, per_second: 1_400.0, latency_s: 0.003 };
    for seed in 1..=3 {
        let seconds = Shop { can: vec![FAST, can], seconds: 300.0, ..shop() }.run(seed);
        let settled = &seconds[90..];
        let goodput = served(settled) / (settled.len() as f64 * can.per_second);
        assert!(p99_ms(settled) <= 1_000 && goodput >= 0.95, "{} ms, {goodput}", p99_ms(settled));
        let (low, high) = shares(&seconds[120..]);
        assert!(low >= 0.5 && high <= 0.95, "{low} to {high}");
    }
}

#[test]
fn a_database_that_is_far_away_costs_some_admissions_and_not_the_sale() {
    // Each operation takes a second, and as many are done as ever.
    let far = Can { from_s: 60.0, per_second: 5_000.0, latency_s: 1.0 };
    let seconds = Shop { can: vec![FAST, far], seconds: 240.0, ..shop() }.run(1);
    let (low, _) = shares(&seconds[60..]);
    assert!(low > 0.4 && low < 0.9, "{low}");
    // That it helps nothing to let in fewer shows when fewer are let in.
    assert!(back_s(&seconds[70..]).is_some_and(|back| back <= 60));
    assert_eq!(shares(&seconds[130..]), (1.0, 1.0));
}

#[test]
fn a_rate_that_is_raised_is_raised_from_what_the_shop_bears() {
    let shop = Shop {
        admit_per_second: vec![(0.0, 300.0), (60.0, 600.0)],
        can: vec![Can { from_s: 0.0, per_second: 400.0, latency_s: 0.003 }],
        seconds: 180.0,
        ..shop()
    };
    let seconds = shop.run(1);
    let settled = &seconds[120..];
    let goodput = served(settled) / (settled.len() as f64 * 400.0);
    assert!(p99_ms(settled) <= 1_000 && goodput >= 0.95, "{} ms, {goodput}", p99_ms(settled));
}

fn any_felt() -> impl Strategy<Value = (Felt, f64)> {
    let count = || prop_oneof![0..100_u64, 0..100_000_u64, Just(u64::MAX)];
    let time = || prop_oneof![0..5_000_u64, Just(u64::MAX)].prop_map(Duration::from_millis);
    let full = prop_oneof![Just(0.0), 0.001..1e9_f64];
    let counts = (count(), count(), count(), count(), count(), count());
    (time(), counts, time(), time(), full).prop_map(
        |(over, (asked, served, refused, waiting, admitted, aged), waited, age, full)| {
            let felt = Felt { over, asked, served, refused, waited, waiting, admitted, age, aged };
            (felt, full)
        },
    )
}

proptest! {
    #[test]
    fn whatever_is_felt_the_line_moves_and_rises_by_little(
        all in prop::collection::vec(any_felt(), 1..60),
    ) {
        let mut governor = Governor::default();
        for (felt, full) in all {
            let before = governor;
            governor.decide(felt, full);
            let share = governor.share();
            prop_assert!((SHARE_MIN..=1.0).contains(&share), "{share}");
            let over_s = felt.over.as_secs_f64().min(10.0);
            prop_assert!(share <= before.share() + 0.1 * over_s + 1e-9, "{before:?} {felt:?} {share}");
            prop_assert!(governor.reason() != Reason::Full || share == 1.0);
            // Whoever is told of it has the same one.
            prop_assert_eq!(Governor::restore(governor.parts()), Some(governor));
        }
    }

    #[test]
    fn nothing_that_makes_no_sense_is_taken_over(at in 0..22_usize, bad in prop_oneof![
        Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(1e300 * 1e300),
    ]) {
        let (reason, mut numbers) = Governor::default().parts();
        numbers[at] = bad;
        prop_assert_eq!(Governor::restore((reason, numbers)), None);
    }
}
