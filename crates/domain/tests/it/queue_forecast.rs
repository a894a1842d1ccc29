//! What fans are told of how long it takes, and how long it takes.

use std::collections::BTreeMap;
use std::time::Duration;

use boxoffice_domain::queue::{
    Bucket, Expected, Forecast, Line, Observed, Outlook, Place, Presence, Promise, QueueSettings,
    Speed, poll_after,
};
use boxoffice_domain::time::Timestamp;
use proptest::prelude::*;

use crate::dice::Dice;

const NOW: Timestamp = Timestamp(1_000_000_000);
const TICK_MS: i64 = 100;

fn settings(admit_per_second: f64, max_active: Option<u64>) -> QueueSettings {
    QueueSettings {
        admit_per_second,
        max_active,
        active_ttl: Duration::from_secs(300),
        claim_window: Duration::from_secs(30),
        opens_at: None,
        paused: false,
    }
}

/// How people of a crowd behave, each part of one.
#[derive(Clone, Copy)]
struct Habits {
    /// Join and are never heard of again.
    no_shows: f64,
    /// Are there when they are let in, and close the page before they have claimed it.
    asleep: f64,
    /// Give up, in each minute of waiting.
    give_up: f64,
    /// How long they stay inside: at least, and on average on top.
    stays_s: (f64, f64),
    /// Buy a seat in the end; the others leave without.
    buy: f64,
}

/// A queue, and people who are told how long it takes.
struct Sale {
    line: Line,
    presence: Presence,
    bucket: Bucket,
    speed: Speed,
    forecast: Forecast,
    settings: QueueSettings,
    habits: Habits,
    dice: Dice,
    next: u64,
    now: Timestamp,
    /// The seats that are left, where admission goes by that.
    seats: Option<u64>,
    /// Nothing is admitted, as where the store does not answer.
    stands_still: bool,
    /// What comes: polls of those who wait, and the moments when people go.
    polls: BTreeMap<(i64, u64), ()>,
    goes: BTreeMap<(i64, u64), ()>,
    /// What each was told, and when.
    told: BTreeMap<u64, Vec<(Timestamp, Duration)>>,
    untold: u64,
    promises: Vec<Promise>,
    watched: Vec<Promise>,
}

impl Sale {
    fn new(settings: QueueSettings, habits: Habits) -> Self {
        Self {
            line: Line::default(),
            presence: Presence::default(),
            bucket: Bucket::default(),
            speed: Speed::default(),
            forecast: Forecast::initial(&settings),
            settings,
            habits,
            dice: Dice(7),
            next: 0,
            now: NOW,
            seats: None,
            stands_still: false,
            polls: BTreeMap::new(),
            goes: BTreeMap::new(),
            told: BTreeMap::new(),
            untold: 0,
            promises: Vec::new(),
            watched: Vec::new(),
        }
    }

    fn join(&mut self, count: u64) {
        for _ in 0..count {
            self.next += 1;
            if self.dice.roll() >= self.habits.no_shows {
                self.poll(self.next);
            }
        }
    }

    fn poll(&mut self, seq: u64) {
        let (settings, now) = (&self.settings, self.now);
        match self.line.place(seq, settings.active_ttl, now) {
            Place::Waiting { number } => {
                let eta = self.forecast.eta(number, settings, now);
                match eta {
                    Some(eta) => self.told.entry(seq).or_default().push((now, eta)),
                    None => self.untold += 1,
                }
                let after = poll_after(eta, settings, now, seq.wrapping_mul(31) ^ now.0 as u64);
                if self.dice.roll() < self.habits.give_up * after.as_secs_f64() / 60.0 {
                    self.line.leave(seq);
                    self.told.remove(&seq);
                } else {
                    self.polls.insert((now.plus(after).0, seq), ());
                }
            }
            Place::Active { claimed: false, .. } => {
                if self.dice.roll() >= self.habits.asleep {
                    self.line.claim(seq, settings.active_ttl, now);
                    let (least, more) = self.habits.stays_s;
                    let stays_s = least + self.dice.about(more);
                    self.goes.insert((now.0 + (stays_s * 1e3) as i64, seq), ());
                }
            }
            Place::Active { .. } | Place::Over(_) | Place::Undrawn => {}
        }
    }

    fn tick(&mut self) {
        self.now.0 += TICK_MS;
        let now = self.now;
        let mut polled = Vec::new();
        while let Some(due) = self.polls.first_entry().filter(|due| due.key().0 <= now.0) {
            let (_, seq) = due.remove_entry().0;
            polled.push(seq);
            self.poll(seq);
        }
        while let Some(due) = self.goes.first_entry().filter(|due| due.key().0 <= now.0) {
            let (_, seq) = due.remove_entry().0;
            if self.dice.roll() < self.habits.buy {
                self.line.finish(seq);
                self.seats = self.seats.map(|seats| seats.saturating_sub(1));
            } else {
                self.line.leave(seq);
            }
        }
        let (line, settings) = (&self.line, &self.settings);
        self.presence.polled(polled, line, settings, now);
        self.presence.follow(line, settings, self.next, now);
        let credit = self.bucket.fill(settings.admit_per_second, now);
        let before = line.serving();
        let credit = if self.stands_still { 0 } else { credit };
        let in_force = &self.outlook().settings;
        if let Some(step) = line.plan(in_force, self.next, credit, 0, &self.presence, now) {
            let admitted = self.line.admit(&step);
            self.bucket.spend(admitted);
            for seq in (before + 1..=step.upto).filter(|seq| !step.passed.contains(*seq)) {
                for (at, told) in self.told.remove(&seq).unwrap_or_default() {
                    self.promises.push(Promise { told, took: now.since(at) });
                }
            }
        }
        self.line.prune(self.settings.active_ttl, now);
        let outlook = self.outlook();
        let watched = &mut self.watched;
        let kept = |promise| watched.push(promise);
        let seen = Observed {
            line: &self.line,
            settings: &self.settings,
            outlook: &outlook,
            next: self.next,
            bypassing: 0,
            presence: &self.presence,
        };
        let new = self.speed.follow(&seen, now, kept);
        if let Some(forecast) = new {
            self.forecast = forecast;
        }
    }

    fn outlook(&self) -> Outlook {
        let mut outlook = Outlook { stock: self.seats, ..Outlook::of(self.settings.clone()) };
        let bounds = [self.settings.max_active, self.seats];
        outlook.settings.max_active = bounds.into_iter().flatten().min();
        outlook
    }

    fn run(&mut self, seconds: i64, joins_per_second: f64) {
        let mut due = 0.0;
        for _ in 0..seconds * 1_000 / TICK_MS {
            due += joins_per_second * TICK_MS as f64 / 1e3;
            self.join(due as u64);
            due -= (due as u64) as f64;
            self.tick();
        }
    }

    /// How many of the promises were kept, in percent.
    fn kept(promises: &[Promise]) -> f64 {
        let kept = promises.iter().filter(|promise| promise.is_kept()).count();
        100.0 * kept as f64 / promises.len() as f64
    }

    /// Whether at least nine of ten promises were kept, of those that were told and of those that are
    /// watched.
    fn assert_kept(&self, promises_min: usize) {
        assert!(self.promises.len() >= promises_min, "only {} promises", self.promises.len());
        let (told, watched) = (Self::kept(&self.promises), Self::kept(&self.watched));
        println!("{told:.1} % kept of {}, {} untold", self.promises.len(), self.untold);
        assert!(told >= 90.0, "{told:.1} % of {}", self.promises.len());
        assert!(watched >= 90.0, "{watched:.1} % of {} that are watched", self.watched.len());
        // What is watched tells how it stands with the others.
        assert!((told - watched).abs() < 5.0, "{told:.1} % and {watched:.1} %");
    }
}

/// What can be expected of a sale if it went on with these settings.
fn expected(sale: &Sale, settings: &QueueSettings) -> Expected {
    let outlook = Outlook::of(settings.clone());
    let seen = Observed {
        line: &sale.line,
        settings,
        outlook: &outlook,
        next: sale.next,
        bypassing: 0,
        presence: &sale.presence,
    };
    sale.speed.expect(&seen, sale.now)
}

const BUYERS: Habits =
    Habits { no_shows: 0.2, asleep: 0.05, give_up: 0.02, stays_s: (20.0, 60.0), buy: 0.8 };

#[test]
fn promises_under_a_rate_are_kept() {
    let mut sale = Sale::new(settings(20.0, None), BUYERS);
    sale.join(10_000);
    sale.run(300, 20.0);
    sale.settings.admit_per_second = 15.0;
    sale.run(300, 20.0);
    sale.settings.admit_per_second = 20.0;
    sale.run(600, 20.0);
    sale.assert_kept(500_000);
}

#[test]
fn promises_under_a_bound_are_kept() {
    let mut sale = Sale::new(settings(50.0, Some(300)), BUYERS);
    sale.join(2_000);
    sale.run(400, 5.0);
    sale.settings.max_active = Some(350);
    sale.run(400, 5.0);
    sale.settings.max_active = Some(280);
    sale.run(400, 5.0);
    sale.assert_kept(100_000);
}

#[test]
fn promises_are_kept_where_everybody_stays_to_the_end() {
    let habits = Habits { no_shows: 0.0, asleep: 0.0, give_up: 0.0, stays_s: (1e6, 1.0), buy: 0.0 };
    let mut sale = Sale::new(settings(50.0, Some(100)), habits);
    sale.join(1_000);
    sale.run(1_200, 0.0);
    // Until the first of them are out nobody knows how long people stay.
    assert!(sale.untold > 20_000);
    sale.assert_kept(10_000);
}

#[test]
fn promises_are_rough_as_a_hall_sells_out() {
    let mut sale = Sale::new(settings(50.0, None), BUYERS);
    sale.seats = Some(400);
    sale.join(2_000);
    // Until it is nearly sold out.
    while sale.seats.unwrap() > 20 {
        sale.run(10, 1.0);
    }
    // A few get in for seats that others did not take, by ones and twos.
    let sum = |of: fn(&Promise) -> Duration| sale.promises.iter().map(of).sum::<Duration>();
    let (told, took) = (sum(|promise| promise.told), sum(|promise| promise.took));
    assert!(told > took / 2 && told < took * 2, "{told:?} of {took:?}");
    assert!(Sale::kept(&sale.promises) >= 50.0, "{}", Sale::kept(&sale.promises));
    assert!(sale.promises.len() > 4_000 && sale.untold > 20_000);
}

#[test]
fn a_fan_behind_a_full_house_is_not_told_a_second() {
    let mut sale = Sale::new(settings(50.0, Some(20)), BUYERS);
    sale.join(60);
    sale.run(5, 0.0);
    let eta = |sale: &Sale, number| sale.forecast.eta(number, &sale.settings, sale.now);
    assert_eq!(sale.line.serving(), 20);
    assert_eq!(eta(&sale, 25), None, "nobody has gone yet");
    sale.run(120, 0.0);
    let told = eta(&sale, 5).unwrap().as_secs();
    assert!((5..60).contains(&told), "{told} s");
    // Room for those who are next is known at once.
    sale.settings.max_active = Some(500);
    sale.run(1, 0.0);
    assert!(eta(&sale, 5).unwrap() <= Duration::from_secs(1));
}

#[test]
fn a_line_that_stands_still_promises_nothing() {
    let mut sale = Sale::new(settings(10.0, None), BUYERS);
    sale.join(10_000);
    sale.run(60, 0.0);
    let eta = |sale: &Sale| sale.forecast.eta(100, &sale.settings, sale.now);
    let moving = eta(&sale).unwrap();
    sale.stands_still = true;
    for _ in 0..100 {
        sale.run(1, 0.0);
        assert!(eta(&sale).is_none_or(|eta| eta >= moving));
    }
    assert_eq!(eta(&sale), None);
    sale.stands_still = false;
    sale.run(20, 0.0);
    assert!(eta(&sale).is_some());
}

#[test]
fn the_time_until_an_opening_is_counted_and_a_pause_has_no_end() {
    let mut sale = Sale::new(settings(10.0, None), BUYERS);
    sale.settings.opens_at = Some(NOW.plus(Duration::from_secs(600)));
    sale.join(1_000);
    sale.run(60, 0.0);
    let told = sale.forecast.eta(100, &sale.settings, sale.now).unwrap().as_secs();
    assert!((545..=550).contains(&told), "{told}");
    sale.settings.paused = true;
    assert_eq!(sale.forecast.eta(100, &sale.settings, sale.now), None);
}

#[test]
fn what_is_expected_of_a_change_comes_true() {
    let habits = Habits { no_shows: 0.0, asleep: 0.0, give_up: 0.0, ..BUYERS };
    let mut sale = Sale::new(settings(10.0, None), habits);
    sale.join(3_000);
    sale.run(60, 0.0);
    let slow = expected(&sale, &sale.settings).last_wait.unwrap().as_secs();
    assert!((225..=255).contains(&slow), "{slow}");
    let change = QueueSettings { admit_per_second: 30.0, ..sale.settings.clone() };
    let told = expected(&sale, &change);
    sale.settings = change;
    let (mut took, mut most) = (0, 0);
    while sale.line.waiting(sale.next) > 0 {
        sale.run(1, 0.0);
        took += 1;
        most = most.max(sale.line.active(&sale.settings, sale.now));
    }
    let wait = told.last_wait.unwrap().as_secs();
    assert!(wait.abs_diff(took) <= 1 + took / 10, "{wait} s, and it took {took}");
    assert!(most <= told.inside_at_most, "{most} of {}", told.inside_at_most);
    let nobody = expected(&sale, &sale.settings);
    assert_eq!(nobody.last_wait, Some(Duration::ZERO));
    assert_eq!(nobody.inside_at_most, sale.line.active(&sale.settings, sale.now));
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: ProptestConfig::default().cases / 8,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whoever_is_behind_is_not_told_less(
        rate_milli in prop_oneof![1..1_000_u64, 1_000..1_000_000_u64],
        max_active in proptest::option::of(0..2_000_u64),
        ttl_ms in prop_oneof![1..2_000_u64, 1_000..90_000_000_u64],
        claim_part in 1..=10_u32,
        habits in (0.0..1.0_f64, 0.0..1.0_f64, 0.0..60.0_f64, 0.0..100.0_f64, 0.0..1.0_f64),
        seats in proptest::option::of(0..2_000_u64),
        joins in 0..3_000_u64,
        joins_per_second in 0.0..50.0_f64,
        jump_ms in prop_oneof![Just(0), -100_000_000..100_000_000_i64],
        numbers in proptest::collection::vec(any::<u64>(), 8),
    ) {
        let mut settings = settings(rate_milli as f64 / 1e3, max_active);
        settings.active_ttl = Duration::from_millis(ttl_ms);
        settings.claim_window = settings.active_ttl / claim_part;
        let (no_shows, asleep, give_up, stays_s, buy) = habits;
        let stays_s = (0.0, stays_s);
        let mut sale = Sale::new(settings, Habits { no_shows, asleep, give_up, stays_s, buy });
        sale.seats = seats;
        sale.join(joins);
        for part in 0..6 {
            sale.run(5, joins_per_second);
            let mut numbers: Vec<u64> = numbers.iter().map(|n| n >> (n % 64)).collect();
            numbers.sort_unstable();
            let eta = |number| sale.forecast.eta(number, &sale.settings, sale.now);
            let mut before = Some(Duration::ZERO);
            for number in numbers {
                let told = eta(number);
                // Nobody knows, for those who are further back than for somebody.
                let grows = match (before, told) {
                    (Some(before), Some(told)) => told >= before,
                    (None, told) => told.is_none(),
                    (Some(_), None) => true,
                };
                prop_assert!(grows, "{number}: {told:?} after {before:?}");
                before = told;
            }
            if part == 3 {
                sale.now.0 += jump_ms;
            }
        }
    }

    #[test]
    fn a_faster_line_is_expected_to_be_shorter_and_fuller(
        rate in 1.0..200.0_f64,
        faster in 1.0..20.0_f64,
        max_active in proptest::option::of(1..500_u64),
        more in 0..500_u64,
        joins in 0..3_000_u64,
        ran in 0..60_u32,
    ) {
        let mut sale = Sale::new(settings(rate, max_active), BUYERS);
        sale.join(joins);
        sale.run(ran.into(), 0.0);
        let slow = expected(&sale, &sale.settings);
        let change = QueueSettings { admit_per_second: rate * faster, ..sale.settings.clone() };
        let fast = expected(&sale, &change);
        if let (Some(slow), Some(fast)) = (slow.last_wait, fast.last_wait) {
            prop_assert!(fast <= slow, "{fast:?} at {faster} times the rate, {slow:?} before");
        }
        prop_assert!(fast.inside_at_most >= slow.inside_at_most);
        let active = sale.line.active(&sale.settings, sale.now);
        let (waiting, max) = (sale.line.waiting(sale.next), max_active.unwrap_or(u64::MAX));
        for it in [slow, fast] {
            prop_assert!(it.inside_at_most >= active && it.inside_at_most <= active + waiting);
            prop_assert!(it.inside_at_most <= max.max(active));
        }
        let change = QueueSettings {
            max_active: max_active.map(|max| max + more),
            ..sale.settings.clone()
        };
        prop_assert!(expected(&sale, &change).inside_at_most >= slow.inside_at_most);
        let paused = QueueSettings { paused: true, ..sale.settings.clone() };
        let still = expected(&sale, &paused);
        prop_assert_eq!(still.inside_at_most, active);
        prop_assert_eq!(still.last_wait.is_some(), waiting == 0);
    }
}
