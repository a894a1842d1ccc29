//! The opening draw, and what may go wrong just then. In all of these but where something else is said the
//! queue opens ten seconds after the beginning, and everybody who is there has to be let in.

use std::time::Duration;

use boxoffice_domain::queue::SettingsChange;
use boxoffice_domain::time::Timestamp;
use simulation::plan::{Fate, Group, Habit, Peer, Plan, Polls, StoreKind, Way, What, Which};
use simulation::timeline::EPOCH_MS;
use simulation::world::Report;

use crate::common::{assert_holds, fan, history};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const OPENS_MS: u64 = 10_000;

fn at(ms: u64) -> Option<Timestamp> {
    Some(Timestamp(EPOCH_MS + ms as i64))
}

fn opens(ms: u64) -> SettingsChange {
    SettingsChange { opens_at: Some(at(ms)), ..SettingsChange::default() }
}

fn cut(instances: Which, peer: Peer, fate: Fate) -> What {
    What::Cut { instances, peer, way: Way::Both, fate }
}

/// A queue that is drawn; nobody is there yet.
fn empty(seed: u64) -> Plan {
    let mut plan = Plan::calm(seed).lasts(30);
    plan.draw = true;
    plan.liveness = true;
    plan.drain_ms = 250_000;
    plan.queue.opens_at = at(OPENS_MS);
    plan.queue.admit_per_second = 20.0;
    plan.queue.claim_window = Duration::from_secs(8);
    if seed % 3 == 2 {
        plan.store = StoreKind::Sqlite;
    }
    plan
}

fn come(plan: Plan, count: usize, (from_ms, until_ms): (u64, u64), habit: Habit) -> Plan {
    plan.with(Group { count, from_ms, over_ms: until_ms - from_ms, at: None, habit })
}

/// One that people join before the opening, at it, and after it.
fn drawn(seed: u64) -> Plan {
    let roams = Habit { roams: 50, ..Habit::WAITS };
    let plan = come(empty(seed), 100, (2_000, 9_000), Habit::WAITS);
    let plan = come(plan, 100, (8_000, 12_000), roams);
    come(plan, 40, (12_000, 20_000), Habit::WAITS)
}

/// Runs a plan in which nothing may break, though some are drawn and some come later.
fn held(plan: &Plan) -> Report {
    let report = history(plan);
    assert_holds(&report);
    let (drawn, joins) = (report.counts.drawn, report.counts.joins);
    println!("seed {}: {drawn} drawn of {joins}, {} admitted", plan.seed, report.counts.admitted);
    assert!(drawn >= 100 && joins > 200 && report.counts.highest > drawn, "{:?}", report.counts);
    assert!(report.fans.iter().all(|fan| fan.let_in_us.is_some()), "somebody was not let in");
    report
}

#[test]
fn all_are_let_in_in_the_order_of_the_draw() {
    for seed in 0..6 {
        let mut plan = drawn(seed);
        plan.crowd.iter_mut().for_each(|group| group.habit.polls = Polls::Every(500));
        let report = held(&plan);
        assert_ne!(report.turns.turn(1), 1, "of seed {seed}");
        for fan in &report.fans {
            let turn = report.turns.turn(fan.seq.unwrap());
            // Twenty a second, after a bucket of half a second; whoever came later waits for nobody.
            let due_us = OPENS_MS * 1_000 + turn.saturating_sub(11) * 50_000;
            let let_in_us = fan.let_in_us.unwrap();
            let from_us = due_us.max(fan.joined_us);
            assert!(let_in_us >= due_us, "turn {turn} at {let_in_us}");
            assert!(let_in_us <= from_us + 3_000_000, "turn {turn} at {let_in_us}");
        }
    }
}

#[test]
fn all_instances_are_started_anew_at_the_opening() {
    for seed in 0..10 {
        let from_ms = OPENS_MS - 300 + seed * 60;
        for what in [What::Kill as fn(usize) -> What, What::Stop] {
            let plan = [A, B, C].into_iter().fold(drawn(seed), |plan, instance| {
                plan.breaks((from_ms, from_ms + 1_500), what(instance))
            });
            held(&plan);
        }
    }
}

#[test]
fn redis_loses_its_data_at_the_opening() {
    for seed in 0..10 {
        let at_ms = OPENS_MS - 200 + seed * 50;
        held(&drawn(seed).breaks((at_ms, 0), What::Flush));
        held(&drawn(seed).breaks((at_ms, 0), What::Failover { lag_ms: 900 }));
        for age_ms in [None, Some(1_500)] {
            held(&drawn(seed).breaks((at_ms, at_ms + 700), What::Restart { age_ms }));
        }
    }
}

#[test]
fn clocks_are_apart_at_the_opening() {
    for seed in 0..6 {
        for clocks_ahead_ms in [vec![-900, 0, 900], vec![900, -900, -900]] {
            held(&Plan { clocks_ahead_ms, ..drawn(seed) });
        }
    }
}

#[test]
fn the_store_is_away_at_the_opening() {
    for seed in 0..6 {
        for instances in [Which::ALL, Which::only(A), Which::but(A)] {
            for fate in [Fate::Refused, Fate::Lost, Fate::Late] {
                held(&drawn(seed).breaks((7_500, 12_500), cut(instances, Peer::Store, fate)));
            }
        }
        let slow = |there_ms, back_ms| What::Slow {
            instances: Which::ALL,
            peer: Peer::Store,
            there_ms,
            back_ms,
        };
        held(&drawn(seed).breaks((7_500, 12_500), slow((0, 300), (0, 1_200))));
        held(&drawn(seed).breaks((7_500, 12_500), slow((0, 1_200), (0, 300))));
    }
}

#[test]
fn redis_is_away_at_the_opening() {
    for seed in 0..6 {
        for instances in [Which::ALL, Which::only(A), Which::but(A)] {
            for fate in [Fate::Refused, Fate::Lost] {
                held(&drawn(seed).breaks((5_000, 15_000), cut(instances, Peer::Redis, fate)));
            }
        }
    }
}

/// Numbers came from the store until a moment ago, and the one that has Redis back first draws.
pub(crate) fn redis_is_back(seed: u64) -> Plan {
    let back_ms = OPENS_MS - seed * 60;
    let habit = Habit::WAITS;
    drawn(seed)
        .breaks((4_000, back_ms), cut(Which::only(A), Peer::Redis, Fate::Refused))
        .breaks((4_000, back_ms + 1_500), cut(Which::but(A), Peer::Redis, Fate::Refused))
        .with(Group { count: 200, from_ms: 6_000, over_ms: 6_000, at: Some(B), habit })
}

/// Before, those were not drawn who had joined at B within the last second.
#[test]
fn redis_comes_back_at_the_opening() {
    for seed in 0..20 {
        held(&redis_is_back(seed));
    }
}

/// A pause keeps everybody out, and the draw is at the opening all the same.
#[test]
fn a_queue_that_is_paused_when_it_opens() {
    for seed in 0..4 {
        let mut plan =
            drawn(seed).breaks((25_000, 0), What::Change(B, SettingsChange::pause(false)));
        plan.queue.paused = seed % 2 == 0;
        if !plan.queue.paused {
            plan = plan.breaks((9_000, 0), What::Change(A, SettingsChange::pause(true)));
        }
        let report = held(&plan);
        let first_us = report.fans.iter().filter_map(|fan| fan.let_in_us).min();
        assert!(first_us.is_some_and(|at_us| at_us >= 25_000_000), "{first_us:?}");
        // All but whoever comes within a second of it.
        let come =
            |until_us: u64| report.fans.iter().filter(|fan| fan.joined_us < until_us).count();
        let expected = come(9_500_000) as u64..=come(11_500_000) as u64;
        assert!(expected.contains(&report.counts.drawn), "{expected:?}: {}", report.counts.drawn);
    }
}

/// Before the draw an operator may move the opening; afterwards nothing comes of it.
#[test]
fn the_opening_is_moved() {
    for seed in 0..6 {
        for (first, second, drawn_ms) in [
            ((4_000, 16_000), (9_000, 12_000), 12_000),
            ((4_000, 7_000), (6_000, 11_000), 11_000),
            // To a time that is over: it opens at once.
            ((5_000, 14_000), (9_900, 3_000), 9_900),
            // Moved a moment before it is over.
            ((9_980 + 5 * seed, 11_500), (11_490 + 5 * seed, 13_000), 10_000),
        ] {
            let plan = drawn(seed)
                .breaks((first.0, 0), What::Change(A, opens(first.1)))
                .breaks((second.0, 0), What::Change(C, opens(second.1)))
                .breaks((18_000, 0), What::Change(B, opens(25_000)))
                .breaks((19_000, 0), What::Change(B, opens(1_000)));
            let report = held(&plan);
            let come = report.fans.iter().filter(|fan| fan.joined_us < drawn_ms * 1_000 - 300_000);
            assert!(report.counts.drawn >= come.count() as u64, "{}", report.counts.drawn);
        }
    }
}

/// Nobody is kept waiting by a change that comes after the draw.
#[test]
fn an_opening_that_was_drawn_is_not_put_off() {
    for seed in 0..4 {
        let report = held(&drawn(seed).breaks((11_500, 0), What::Change(B, opens(100_000))));
        assert!(report.fans.iter().all(|fan| fan.let_in_us.is_some_and(|at| at < 60_000_000)));
    }
}

#[test]
fn a_draw_of_nobody_and_of_one() {
    for seed in 0..3 {
        for count in [0, 1] {
            let mut plan = empty(seed);
            if count == 1 {
                plan = plan.with(fan(5_000, None, Habit::WAITS));
            }
            let report = history(&come(plan, 20, (12_000, 14_000), Habit::WAITS));
            assert_holds(&report);
            assert_eq!(report.counts.drawn, count);
            let turns = report.fans.iter().map(|fan| fan.seq.map(|seq| report.turns.turn(seq)));
            assert!(turns.eq(report.fans.iter().map(|fan| fan.seq)));
            assert!(report.fans.iter().all(|fan| fan.let_in_us.is_some()));
        }
    }
}

/// Whoever has left is out, and nobody else, wherever they left: also at one that has not heard of the draw.
#[test]
fn people_leave_before_the_draw_and_at_it() {
    let leaves = Habit { leaves: 100, polls: Polls::Every(300), ..Habit::WAITS };
    let slow = What::Slow {
        instances: Which::only(C),
        peer: Peer::Store,
        there_ms: (0, 100),
        back_ms: (800, 1_600),
    };
    for seed in 0..10 {
        let group =
            |count, from_ms, at| Group { count, from_ms, over_ms: 3_000, at, habit: leaves };
        let plan = drawn(seed)
            .with(group(60, 7_000, Some(A)))
            .with(group(60, 7_500, Some(C)))
            .breaks((9_500, 14_000), cut(Which::only(C), Peer::Redis, Fate::Refused))
            .breaks((9_500, 14_000), slow.clone());
        let report = history(&plan);
        assert_holds(&report);
        assert!(report.counts.drawn >= 100, "{:?}", report.counts);
        assert!(report.fans[..240].iter().all(|fan| fan.let_in_us.is_some()));
        let stayed = report.fans[240..].iter().filter(|fan| fan.let_in_us.is_some()).count();
        println!("seed {seed}: {stayed} of 120 were let in before they left");
        assert!(stayed < 100, "{stayed}");
    }
}
