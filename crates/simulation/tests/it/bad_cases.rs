//! What may go wrong all at once, written down.

use std::time::Duration;

use boxoffice_domain::queue::SettingsChange;
use boxoffice_domain::time::Timestamp;
use simulation::plan::{Fate, Group, Habit, Peer, Plan, Polls, Way, What, Which};
use simulation::timeline::EPOCH_MS;
use simulation::world::{Fared, Report};

use crate::common::{assert_holds, history};

const BUYS: Habit = Habit { buys: 60, repeats: 30, greedy: 20, ..Habit::WAITS };
const ROAMS: Habit = Habit { roams: 100, ..BUYS };

fn cut(instances: Which, peer: Peer) -> What {
    What::Cut { instances, peer, way: Way::Both, fate: Fate::Lost }
}

fn come(plan: Plan, count: usize, (from_ms, until_ms): (u64, u64), habit: Habit) -> Plan {
    plan.with(Group { count, from_ms, over_ms: until_ms - from_ms, at: None, habit })
}

/// Runs a plan in which nothing may break, though somebody comes and is let in.
fn held(plan: &Plan) -> Report {
    let report = history(plan);
    assert_holds(&report);
    assert!(report.counts.joins > 0 && report.counts.admitted > 0, "{:?}", report.counts);
    report
}

#[test]
fn redis_is_wiped_while_the_store_is_away() {
    for seed in 0..10 {
        let plan = Plan::calm(seed)
            .lasts(40)
            .breaks((8_000, 20_000), cut(Which::ALL, Peer::Store))
            .breaks((10_000 + seed * 113, 0), What::Flush)
            .breaks((22_000, 0), What::Flush);
        held(&come(plan, 300, (1_000, 35_000), BUYS));
    }
}

#[test]
fn both_are_away_and_come_back_in_either_order() {
    for seed in 0..10 {
        for (redis_ms, store_ms) in [(20_000, 15_000), (15_000, 20_000), (18_000, 18_000)] {
            let plan = Plan::calm(seed)
                .lasts(40)
                .breaks((8_000 + seed * 7, store_ms), cut(Which::ALL, Peer::Store))
                .breaks((8_000 + seed * 11, redis_ms), What::Restart { age_ms: None });
            held(&come(plan, 300, (1_000, 35_000), BUYS));
        }
    }
}

#[test]
fn one_that_has_never_reached_this_redis() {
    for seed in 0..5 {
        let plan = Plan::calm(seed)
            .lasts(60)
            .breaks((0, 45_000), cut(Which::only(2), Peer::Redis))
            .breaks((12_000, 0), What::Flush);
        held(&come(plan, 300, (1_000, 50_000), ROAMS));
    }
}

#[test]
fn clocks_that_are_off() {
    const HOUR_MS: i64 = 3_600_000;
    for (seed, by_ms) in [5_000, HOUR_MS, 365 * 24 * HOUR_MS].into_iter().enumerate() {
        for by_ms in [by_ms, -by_ms] {
            // One starts so, and is put right by its next start; another one is set while it runs, which
            // it does not follow until it is started again.
            let mut plan = Plan::calm(seed as u64)
                .lasts(60)
                .breaks((20_000, 0), What::Clock(0, -by_ms))
                .breaks((25_000, 26_000), What::Kill(0))
                .breaks((15_000, 0), What::Clock(1, by_ms))
                .breaks((30_000, 31_000), What::Stop(1));
            plan.clocks_ahead_ms = vec![by_ms, 0, 0];
            held(&come(plan, 300, (1_000, 40_000), ROAMS));
        }
    }
}

#[test]
fn a_database_whose_clock_is_off() {
    for (seed, by_ms) in [5_000, 3_600_000, -5_000, -3_600_000].into_iter().enumerate() {
        let plan =
            Plan::calm(seed as u64).lasts(60).breaks((15_000, 25_000), What::StoreClock(by_ms));
        let report = held(&come(plan, 300, (1_000, 50_000), ROAMS));
        // As long as it is off nobody is let in; afterwards they are.
        let off =
            |fan: &&Fared| fan.let_in_us.is_some_and(|at| (20_000_000..25_000_000).contains(&at));
        assert_eq!(report.fans.iter().filter(off).count(), 0, "{by_ms}");
        let late = report.fans.iter().filter(|fan| fan.let_in_us.is_some_and(|at| at > 26_000_000));
        assert!(late.count() > 0, "{by_ms}: {:?}", report.counts);
    }
}

#[test]
fn every_fan_is_late() {
    for seed in 0..5 {
        let mut plan = Plan::calm(seed).lasts(60);
        plan.latency_us[2] = (1_000_000, 4_000_000);
        plan.queue.max_active = Some(50);
        held(&come(plan, 200, (1_000, 20_000), ROAMS));
    }
}

#[test]
fn a_queue_of_one() {
    for seed in 0..5 {
        let mut plan = Plan::calm(seed).lasts(60).breaks((5_000, 6_000), What::Kill(0));
        plan.queue.max_active = Some(1);
        plan.queue.active_ttl = Duration::from_secs(4);
        plan.queue.claim_window = Duration::from_secs(2);
        held(&come(plan, 8, (1_000, 1_100), BUYS));
        let mut alone = Plan::calm(seed).lasts(20);
        alone.liveness = true;
        let report = held(&come(alone, 1, (1_000, 1_001), BUYS));
        assert_eq!(report.counts.admitted, 1);
    }
}

#[test]
fn the_rate_is_changed_in_mid_rush() {
    for seed in 0..10 {
        let rate = |rate| SettingsChange { admit_per_second: Some(rate), ..Default::default() };
        let plan = Plan::calm(seed)
            .lasts(40)
            .breaks((5_000 + seed * 31, 0), What::Change(0, rate(100.0)))
            .breaks((7_000, 0), What::Change(1, rate(1.0)))
            .breaks((9_000, 0), What::Change(2, rate(20.0)));
        held(&come(plan, 500, (4_000, 8_000), ROAMS));
    }
}

#[test]
fn an_opening_is_put_off_and_brought_forward_in_a_rush() {
    let opens = |at_ms| SettingsChange {
        opens_at: Some(Some(Timestamp(EPOCH_MS + at_ms))),
        ..SettingsChange::default()
    };
    for seed in 0..10 {
        let mut plan = Plan::calm(seed)
            .lasts(40)
            .breaks((9_990 + seed, 0), What::Change(0, opens(30_000)))
            .breaks((15_000, 0), What::Change(1, opens(20_000)));
        plan.queue.opens_at = Some(Timestamp(EPOCH_MS + 10_000));
        held(&come(plan, 300, (4_000, 12_000), ROAMS));
    }
}

#[test]
fn fans_who_poll_at_two_instances_while_one_is_cut_off() {
    for seed in 0..10 {
        let mut plan = Plan::calm(seed)
            .lasts(60)
            .breaks((10_000, 25_000), cut(Which::only(1), Peer::Store))
            .breaks((12_000, 20_000), cut(Which::only(2), Peer::Redis));
        plan.queue.max_active = Some(60);
        held(&come(plan, 300, (1_000, 30_000), ROAMS));
    }
}

#[test]
fn ten_thousand_come_back_at_once() {
    let away = Habit { polls: Polls::Later(60_000), ..Habit::WAITS };
    let mut plan = Plan::calm(1).lasts(80);
    // By then everybody has been told how long to wait, and those who went away are known to be gone.
    plan.queue.opens_at = Some(Timestamp(EPOCH_MS + 45_000));
    plan.queue.admit_per_second = 500.0;
    plan.queue.max_active = Some(2_000);
    plan.queue.active_ttl = Duration::from_secs(600);
    let plan = come(plan, 10_000, (1_000, 3_000), away);
    // Who is there all the time is let in past them.
    let plan = come(plan, 100, (3_000, 4_000), Habit::WAITS);
    let report = held(&plan);
    let let_in = |of: std::ops::Range<usize>| {
        report.fans[of].iter().filter_map(|fan| fan.let_in_us).collect::<Vec<_>>()
    };
    let (back, there) = (let_in(0..10_000), let_in(10_000..10_100));
    println!("{} came back and were let in; {:?}", back.len(), report.counts);
    assert_eq!(there.len(), 100);
    assert!(there.iter().all(|at| *at < 60_000_000), "{:?}", there.iter().max());
    // The room there is, at the rate there is, and no more: the checkers have counted.
    assert_eq!(back.len(), 1_900);
    let (first, last) = (back.iter().min().unwrap(), back.iter().max().unwrap());
    assert!(*first >= 60_000_000 && *last < 70_000_000, "{first} to {last}");
}
