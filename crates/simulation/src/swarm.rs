//! Plans drawn from a seed. Each history has a few kinds of faults and fans and not all of them at
//! once: what happens everywhere at the same time hides what happens alone.

use std::time::Duration;

use boxoffice_domain::queue::{SaleRules, SettingsChange};
use boxoffice_domain::time::Timestamp;

use crate::plan::{Fate, Fault, Group, Habit, Peer, Plan, Polls, StoreKind, Way, What, Which};
use crate::random::Stream;
use crate::timeline::EPOCH_MS;

/// Of what a lost pool leaves, nobody knows at once that nobody is there; nor of whom a dead instance had
/// answered.
const BROKEN_DRAIN_MS: u64 = 170_000;

/// Which faults there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// None.
    None,
    /// All through the history; nobody has to be let in.
    Safety,
    /// In its first half; then everybody who is there has to be let in.
    Liveness,
    /// One of the three, by the seed.
    Swarm,
}

/// What a run of histories is about.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Which faults there are.
    pub mode: Mode,
    /// How long a history is.
    pub seconds: u64,
    /// How many fans come.
    pub clients: u64,
    /// How many of a hundred queues have an opening draw.
    pub drawn: u64,
}

/// The plan of a seed.
pub fn plan(seed: u64, scope: Scope) -> Plan {
    let mut dice = Stream::new(seed, "plan", 0);
    let mode = match scope.mode {
        Mode::Swarm => match dice.below(10) {
            0 => Mode::None,
            1..=3 => Mode::Liveness,
            _ => Mode::Safety,
        },
        mode => mode,
    };
    let mut plan = Plan::calm(seed);
    plan.length_ms = scope.seconds * 1_000;
    settings(&mut plan, &mut dice);
    plan.crowd = crowd(&plan, scope.clients, &mut Stream::new(seed, "crowd", 0));
    if mode != Mode::None {
        let until_ms = if mode == Mode::Liveness { plan.length_ms / 2 } else { plan.length_ms };
        plan.faults = faults(&plan, until_ms, &mut Stream::new(seed, "faults", 0));
    }
    if mode == Mode::Liveness {
        make_live(&mut plan, scope.clients);
    } else {
        // Who waits for something to buy may wait for ever.
        sale(&mut plan, &mut Stream::new(seed, "sale", 0));
    }
    let mut dice = Stream::new(seed, "draw", 0);
    if dice.percent(scope.drawn) {
        opening(&mut plan, mode, &mut dice);
    }
    plan
}

/// Has those drawn who join before the opening, which comes when some have joined. Sometimes something breaks
/// just then; sometimes an operator moves the opening, or tries to, or has the queue paused.
fn opening(plan: &mut Plan, mode: Mode, dice: &mut Stream) {
    const KINDS: [u64; 15] = [0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 14, 15];
    plan.draw = true;
    let latest_ms = plan.length_ms * 3 / 4;
    let rush = dice.pick(&plan.crowd);
    let in_rush_ms = rush.from_ms + dice.between(0, rush.over_ms);
    let anywhere_ms = dice.between(1_000, plan.length_ms / 2);
    let at_ms = if dice.percent(50) { in_rush_ms } else { anywhere_ms }.min(latest_ms);
    let at = |ms: u64| Some(Timestamp(EPOCH_MS + ms as i64));
    plan.queue.opens_at = at(at_ms);
    let mut changes = Vec::new();
    if dice.percent(40) {
        let then_ms = at_ms.saturating_sub(5_000) + dice.below(8_000);
        let to_ms = (at_ms.saturating_sub(8_000) + dice.below(16_000)).min(latest_ms);
        let opens_at = Some(at(to_ms));
        changes.push((then_ms, SettingsChange { opens_at, ..SettingsChange::default() }));
    }
    // Where everybody has to be let in, nobody can be sure that the end of a pause is heard.
    if mode != Mode::Liveness && dice.percent(25) {
        plan.queue.paused = dice.percent(50);
        if !plan.queue.paused {
            let paused_ms = at_ms.saturating_sub(dice.between(0, 3_000));
            changes.push((paused_ms, SettingsChange::pause(true)));
        }
        changes.push((at_ms + dice.between(0, 8_000), SettingsChange::pause(false)));
    }
    let was_calm = plan.faults.is_empty();
    for (at_ms, change) in changes {
        let instance = dice.below(plan.instances as u64) as usize;
        let what = What::Change(instance, change);
        plan.faults.push(Fault { from_ms: at_ms, until_ms: at_ms, what });
    }
    if mode != Mode::None && dice.percent(60) {
        for _ in 0..dice.between(1, 2) {
            let what = draw(plan, *dice.pick(&KINDS), dice);
            let from_ms = at_ms.saturating_sub(dice.between(0, 2_500));
            let longest_ms = *dice.pick(&[600, 3_000, 8_000]);
            let until_ms = at_ms + dice.between(50, longest_ms);
            let until_ms = if is_at_once(&what) { from_ms } else { until_ms };
            plan.faults.push(Fault { from_ms, until_ms, what });
        }
    }
    plan.faults.sort_by_key(|fault| fault.from_ms);
    if plan.liveness && was_calm && !plan.faults.is_empty() {
        plan.drain_ms += BROKEN_DRAIN_MS;
    }
}

/// Has the queue follow its sale, which may open in the middle of the history.
fn sale(plan: &mut Plan, dice: &mut Stream) {
    if !dice.percent(40) {
        return;
    }
    let by_stock = dice.percent(70);
    plan.sale_rules = Some(SaleRules { by_stock, ..SaleRules::default() });
    if dice.percent(50) {
        plan.sale_opens_ms = dice.between(0, plan.length_ms / 2) as i64;
    }
}

fn settings(plan: &mut Plan, dice: &mut Stream) {
    plan.instances = *dice.pick(&[1, 2, 3, 3, 3, 4]);
    plan.queue.admit_per_second = *dice.pick(&[0.5, 2.0, 5.0, 10.0, 10.0, 30.0, 100.0]);
    plan.queue.max_active = dice.percent(50).then(|| dice.between(5, 60));
    plan.queue.claim_window = Duration::from_millis(dice.between(5_000, 30_000));
    plan.queue.active_ttl = Duration::from_millis(dice.between(30_000, 300_000));
    plan.store = if dice.percent(20) { StoreKind::Sqlite } else { StoreKind::Memory };
    plan.call_timeout = Duration::from_millis(dice.between(100, 500));
    plan.turn = Duration::from_millis(*dice.pick(&[0, 90, 90]));
    plan.yields = *dice.pick(&[0, 8, 64]);
    plan.seats = *dice.pick(&[10, 100, 400]);
    plan.hold = Duration::from_millis(dice.between(5_000, 60_000));
    let apart_ms = *dice.pick(&[0, 20, 400]);
    let ahead = |dice: &mut Stream| dice.below(2 * apart_ms + 1) as i64 - apart_ms as i64;
    plan.clocks_ahead_ms = (0..plan.instances).map(|_| ahead(dice)).collect();
    let slowness = *dice.pick(&[1, 1, 4]);
    // Sometimes all fans are late.
    let fans = *dice.pick(&[(200, 20_000), (200, 20_000), (200, 20_000), (200_000, 3_000_000)]);
    plan.latency_us = [(80, 400 * slowness), (300, 3_000 * slowness), fans];
}

fn crowd(plan: &Plan, clients: u64, dice: &mut Stream) -> Vec<Group> {
    let habits = [
        Habit { buys: 80, charges: 50, repeats: 30, greedy: 30, ..Habit::WAITS },
        Habit { buys: 50, roams: 50, charges: 30, repeats: 50, greedy: 20, ..Habit::WAITS },
        Habit { polls: Polls::Every(3_000), buys: 50, ..Habit::WAITS },
        Habit { leaves: 40, wanders: 30, buys: 50, ..Habit::WAITS },
        Habit::JOINS,
        Habit { roams: 100, buys: 50, wanders: 50, repeats: 30, ..Habit::WAITS },
    ];
    let kinds = dice.between(1, 4);
    (0..kinds)
        .map(|_| {
            let from_ms = dice.between(200, plan.length_ms / 2);
            let over_ms = *dice.pick(&[100, 1_000, plan.length_ms / 3, plan.length_ms / 2]);
            Group {
                count: (clients / kinds).max(1) as usize,
                from_ms,
                over_ms,
                at: dice.percent(20).then(|| dice.below(plan.instances as u64) as usize),
                habit: *dice.pick(&habits),
            }
        })
        .collect()
}

fn faults(plan: &Plan, until_ms: u64, dice: &mut Stream) -> Vec<Fault> {
    const KINDS: u64 = 16;
    let kinds: Vec<u64> = (0..KINDS).filter(|_| dice.percent(30)).collect();
    if kinds.is_empty() {
        return Vec::new();
    }
    let count = dice.between(1, 6);
    let mut faults = Vec::new();
    for _ in 0..count {
        let kind = *dice.pick(&kinds);
        let longest_ms = *dice.pick(&[300, 3_000, until_ms / 2]);
        let anywhere_ms = dice.between(100, until_ms.saturating_sub(200).max(101));
        // What goes wrong in a rush is felt by more, and a rush may be short.
        let rush = dice.pick(&plan.crowd);
        let in_rush_ms = rush.from_ms + dice.between(0, rush.over_ms);
        let in_rush = dice.percent(30) && in_rush_ms + 200 < until_ms;
        let from_ms = if in_rush { in_rush_ms } else { anywhere_ms };
        let until = (from_ms + dice.between(50, longest_ms.max(51))).min(until_ms);
        let what = draw(plan, kind, dice);
        let until_ms = if is_at_once(&what) { from_ms } else { until };
        faults.push(Fault { from_ms, until_ms, what });
    }
    faults.sort_by_key(|fault| fault.from_ms);
    faults
}

const fn is_at_once(what: &What) -> bool {
    matches!(
        what,
        What::Flush
            | What::Failover { .. }
            | What::RedisClock(_)
            | What::Clock(..)
            | What::Change(..)
    )
}

fn draw(plan: &Plan, kind: u64, dice: &mut Stream) -> What {
    let instance = dice.below(plan.instances as u64) as usize;
    let instances = match dice.below(3) {
        0 => Which::ALL,
        1 => Which::only(instance),
        _ => Which::but(instance),
    };
    let way = *dice.pick(&[Way::Both, Way::Both, Way::To, Way::Back]);
    let fate = *dice.pick(&[Fate::Lost, Fate::Late, Fate::Refused]);
    match kind {
        0 => What::Cut { instances, peer: Peer::Redis, way, fate },
        1 => What::Cut { instances, peer: Peer::Store, way, fate },
        2 | 3 => {
            let peer = if kind == 2 { Peer::Redis } else { Peer::Store };
            let high = *dice.pick(&[20, 300, 1_200]);
            let (there_ms, back_ms) = match dice.below(3) {
                0 => ((0, high), (0, 0)),
                1 => ((0, 0), (high / 2, high)),
                _ => ((0, high / 2), (0, high / 2)),
            };
            What::Slow { instances, peer, there_ms, back_ms }
        }
        4 => What::Flush,
        5 => What::Restart { age_ms: dice.percent(50).then(|| dice.between(0, 5_000)) },
        6 => What::Failover { lag_ms: dice.between(0, 2_000) },
        7 => What::OutOfMemory,
        8 => What::RedisClock(signed(dice, &[50, 2_000, 3_600_000])),
        9 => What::Kill(instance),
        10 => What::Stop(instance),
        11 => What::Pause(instance),
        12 => What::Clock(instance, signed(dice, &[300, 5_000, 3_600_000])),
        13 => What::Change(instance, change(plan, dice)),
        14 => What::StoreClock(signed(dice, &[300, 5_000])),
        _ => What::Twice { instances, within_ms: *dice.pick(&[1, 50, 2_000]) },
    }
}

fn signed(dice: &mut Stream, sizes: &[u64]) -> i64 {
    let size = *dice.pick(sizes);
    let size = dice.between(size / 2, size) as i64;
    if dice.percent(50) { size } else { -size }
}

fn change(plan: &Plan, dice: &mut Stream) -> SettingsChange {
    match dice.below(4) {
        0 => SettingsChange::pause(true),
        1 => SettingsChange::pause(false),
        2 => {
            let at_ms = dice.between(0, plan.length_ms) as i64;
            let opens_at = Some(Some(Timestamp(EPOCH_MS + at_ms)));
            SettingsChange { opens_at, ..SettingsChange::default() }
        }
        _ => {
            let admit_per_second = Some(*dice.pick(&[1.0, 5.0, 50.0]));
            SettingsChange { admit_per_second, ..SettingsChange::default() }
        }
    }
}

/// Gives everybody time to be let in once nothing is broken any more.
fn make_live(plan: &mut Plan, clients: u64) {
    plan.liveness = true;
    plan.faults.retain(|fault| {
        // What lasts longer than the history, as a pause by an operator, keeps everybody out.
        !matches!(fault.what, What::Change(..) | What::Clock(..) | What::RedisClock(_))
    });
    plan.queue.admit_per_second = plan.queue.admit_per_second.max(10.0);
    // Longer than any fault, where there is no bound that has to become free: whose admission is not
    // heard of for an active time is not let in.
    let active_s = if plan.queue.max_active.is_some() { 30 } else { 60 };
    plan.queue.active_ttl = Duration::from_secs(active_s);
    plan.queue.claim_window = plan.queue.claim_window.min(Duration::from_secs(8));
    plan.queue.max_active = plan.queue.max_active.map(|max| max.max(30));
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    #[expect(clippy::cast_sign_loss, reason = "a rate is above zero")]
    let by_rate_ms = (clients as f64 / plan.queue.admit_per_second * 1_000.0) as u64;
    let by_bound_ms = plan.queue.max_active.map_or(0, |max| clients.div_ceil(max) * 31_000);
    plan.length_ms /= 2;
    for group in &mut plan.crowd {
        group.from_ms /= 2;
        group.over_ms = (group.over_ms / 2).max(1);
    }
    plan.drain_ms = by_rate_ms.max(by_bound_ms) * 12 / 10 + 15_000;
    if !plan.faults.is_empty() {
        plan.drain_ms += BROKEN_DRAIN_MS;
    }
}
