//! How long a place is likely to wait.
//!
//! [`Speed`] measures, once a second, what decides that: how many a second are really admitted where
//! the rate is the limit, how long people stay inside where `max_active` is, how many of those ahead
//! are absent, and how many give up. From that it makes a [`Forecast`]: how far the line will have
//! moved at each moment to come. What a poll does with it is arithmetic.
//!
//! It also keeps some of the promises that it made, and tells how they turned out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{Gate, Line, Outlook, Presence, QueueSettings, Turns};
use crate::time::Timestamp;

/// How often the speed is measured.
const INTERVAL: Duration = Duration::from_secs(1);
/// Over how many seconds, and at least how many admissions, the ratio of real ones to the rate is smoothed.
const PACE_SMOOTHED: f64 = 20.0;
/// And that of people who give up waiting.
const LEAVING_SMOOTHED_S: f64 = 60.0;
/// At first the rate is believed to be kept, as though it had been for so many.
const PACE_BELIEVED: f64 = 5.0;
/// Below this part of the rate the line stands still, and nobody knows for how long.
const PACE_MIN: f64 = 0.02;
/// Stays are told apart by age: so many classes of the active time.
const AGES: usize = 60;
/// How long people stay is unknown before so many have gone.
const GONE_MIN: f64 = 5.0;
/// What was learned of stays is forgotten over so many active times.
const STAYS_REMEMBERED: f64 = 2.0;
/// The steps of a forecast under `max_active`; beyond them the line is expected to go on as on average.
const STEPS: usize = 240;
/// Cohorts that a forecast follows; the oldest are merged where there are more.
const COHORTS_MAX: usize = 600;
/// Promises that are watched at a time.
const PROMISES_MAX: usize = 10_000;
/// What is promised to somebody at so manieth part of the line is watched.
const WATCHED_PARTS: [u64; 3] = [1, 2, 10];
/// A longer wait than this is not told.
const ETA_MAX_S: f64 = u32::MAX as f64;

/// How far the line will have moved, from the moment of the forecast or the opening on.
#[derive(Clone, Debug, PartialEq)]
enum Course {
    /// Nobody knows of any movement.
    Unknown,
    /// So many places a second; and so manieth part of those who wait give up in each second.
    Steady { per_second: f64, leaving: f64 },
    /// Seconds, and the waiting number that is let in by then: both rise. Behind the last point so many
    /// places a second, or nobody knows where that is zero.
    Curve { points: Arc<[(f64, f64)]>, per_second: f64 },
}

/// How far a line is likely to move.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast(Course);

impl Forecast {
    /// What is known before anything was measured: the rate, unless there is a bound.
    pub fn initial(settings: &QueueSettings) -> Self {
        Self(match settings.max_active {
            None => Course::Steady { per_second: settings.admit_per_second, leaving: 0.0 },
            Some(_) => Course::Unknown,
        })
    }

    /// How long the ticket with waiting number `number` is likely to wait, in whole seconds rounded
    /// up; `None` where nobody knows: the queue is paused, or as long as nothing has moved under
    /// `max_active`. It is longer for a higher number.
    pub fn eta(&self, number: u64, settings: &QueueSettings, now: Timestamp) -> Option<Duration> {
        let opens_in = match settings.gate(now) {
            Gate::Open => Duration::ZERO,
            Gate::Scheduled(at) => at.since(now),
            Gate::Paused => return None,
        };
        #[allow(clippy::cast_precision_loss)]
        let number = number as f64;
        let wait_s = match &self.0 {
            Course::Unknown => return None,
            Course::Steady { per_second, leaving } => steady_s(number, *per_second, *leaving),
            Course::Curve { points, per_second } => {
                let index = points.partition_point(|(_, moved)| *moved < number);
                let before = index.checked_sub(1).map_or((0.0, 0.0), |index| points[index]);
                match points.get(index) {
                    Some(next) => {
                        let part = (number - before.1) / (next.1 - before.1).max(f64::MIN_POSITIVE);
                        before.0 + part * (next.0 - before.0)
                    }
                    None if *per_second > 0.0 => before.0 + (number - before.1) / per_second,
                    None => return None,
                }
            }
        };
        // The bound holds for shorter waits too, or else somebody behind a long wait would be told less
        // than somebody before it.
        let wait_s = (wait_s + opens_in.as_secs_f64()).ceil().min(ETA_MAX_S);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some(Duration::from_secs(wait_s as u64))
    }
}

/// Seconds until `number` is let in, at so many places a second, where of those ahead so manieth part
/// gives up in each second.
fn steady_s(number: f64, per_second: f64, leaving: f64) -> f64 {
    let alone_s = number / per_second;
    // ln(1 + x) / x is 1 - x / 2 for a small x.
    if leaving * alone_s < 1e-6 { alone_s } else { (leaving * alone_s).ln_1p() / leaving }
}

/// What can be expected of those who are in a line now, as long as nothing else is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// How long the last of those who wait will do so; `None` where nobody knows.
    pub last_wait: Option<Duration>,
    /// How many of those who wait or are inside will be inside at a time, at the most.
    pub inside_at_most: u64,
}

/// How a promise turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// What was told,
    pub told: Duration,
    /// and how long it took.
    pub took: Duration,
}

impl Promise {
    /// How long it took, in hundredths of what was told.
    pub fn took_percent(&self) -> u64 {
        let told_ms = self.told.as_millis().max(1);
        u64::try_from(self.took.as_millis().saturating_mul(100) / told_ms).unwrap_or(u64::MAX)
    }

    /// Whether it was right to within a quarter of what it took, or five seconds.
    pub fn is_kept(&self) -> bool {
        self.told.abs_diff(self.took) <= Duration::from_secs(5).max(self.took / 4)
    }
}

/// A sum over time that forgets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Fading {
    pub(super) of: f64,
    pub(super) over: f64,
}

impl Fading {
    fn sum(all: &[Self]) -> Self {
        let sum = |sum: Self, one: &Self| Self { of: sum.of + one.of, over: sum.over + one.over };
        all.iter().fold(Self::default(), sum)
    }

    /// What there is of it for one of what it is over; none for none.
    pub(super) fn ratio(&self) -> f64 {
        if self.over > 0.0 { self.of / self.over } else { 0.0 }
    }

    pub(super) fn add(&mut self, of: f64, over: f64, forgets: f64) {
        self.of = self.of * forgets + of;
        self.over = self.over * forgets + over;
    }
}

/// The people who were let in at about the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cohort {
    /// Those whose turn it was and who had not been passed over; who had left by then is among them,
    pub(super) turned: u64,
    /// of whom so many left up to now, of the numbers above the one that was asked about.
    pub(super) left: u64,
    /// How many have paid,
    pub(super) paid: u64,
    /// and how many take up room now.
    pub(super) inside: u64,
}

/// A cohort since it was let in.
#[derive(Clone, Copy, Debug, Default)]
struct Followed {
    now: Cohort,
    /// How many had left before their turn.
    left_before: u64,
}

impl Followed {
    const fn gone(&self) -> u64 {
        self.now.turned.saturating_sub(self.left_before + self.now.inside)
    }
}

/// What the speed of a line is measured by.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The line.
    pub line: &'a Line,
    /// How operators let it admit,
    pub settings: &'a QueueSettings,
    /// and what comes of that with the sale behind it.
    pub outlook: &'a Outlook,
    /// The last number given.
    pub next: u64,
    /// Those who are inside past the line.
    pub bypassing: u64,
    /// Who is there.
    pub presence: &'a Presence,
}

/// How the line stood when it was measured last.
#[derive(Clone, Debug)]
struct Measured {
    at: Timestamp,
    settings: QueueSettings,
    opens_at: Option<Timestamp>,
    turns: Turns,
    left_ahead: u64,
    waiting: u64,
    /// Whether nothing but the rate kept people out.
    has_room: bool,
    /// Those inside, by when they were let in, in units of an age.
    cohorts: BTreeMap<i64, Followed>,
}

/// Measures how fast a line moves.
#[derive(Clone, Debug)]
pub struct Speed {
    last: Option<Measured>,
    /// Admissions, to what the rate allows.
    pace: Fading,
    /// Those who gave up waiting, to seconds of waiting.
    leaving: Fading,
    /// Those who went, to seconds that people were inside: by age.
    stays: Vec<Fading>,
    /// Those who paid, to those who went: by age.
    paid: Vec<Fading>,
    /// Those who stayed to the end, of late.
    timed_out: Fading,
    /// Numbers, what they were promised, and when.
    promises: BTreeMap<(u64, Timestamp), Duration>,
}

impl Default for Speed {
    fn default() -> Self {
        Self {
            last: None,
            pace: Fading { of: PACE_BELIEVED, over: PACE_BELIEVED },
            leaving: Fading::default(),
            stays: Vec::new(),
            paid: Vec::new(),
            timed_out: Fading::default(),
            promises: BTreeMap::new(),
        }
    }
}

impl Speed {
    /// Follows the line, to be called at every tick after [`Presence::follow`]. Returns a forecast where
    /// there is a new one: once a second, and where settings have changed. `kept` is told of promises that
    /// have turned out.
    pub fn follow(
        &mut self,
        seen: &Observed<'_>,
        now: Timestamp,
        mut kept: impl FnMut(Promise),
    ) -> Option<Forecast> {
        while let Some(first) = self.promises.first_entry() {
            let ((seq, at), told) = (*first.key(), *first.get());
            if seq > seen.line.serving {
                break;
            }
            first.remove();
            kept(Promise { told, took: now.since(at) });
        }
        let is_due = self.last.as_ref().is_none_or(|last| {
            last.settings != *seen.settings
                || last.opens_at != seen.outlook.settings.opens_at
                || now.since(last.at) >= INTERVAL
                || now < last.at
        });
        if !is_due {
            return None;
        }
        self.measure(seen, now);
        let forecast = self.forecast(seen, now);
        self.promise(&forecast, seen, now);
        Some(forecast)
    }

    fn measure(&mut self, seen: &Observed<'_>, now: Timestamp) {
        let Observed { line, settings, outlook, next, bypassing, .. } = *seen;
        let before = self.last.as_ref().map_or(0, |last| last.turns.serving.min(line.serving));
        let has_room = outlook.settings.max_active.is_none_or(|max| {
            // Where it is nearly full, it was full at some time of the second.
            line.active(settings, now) + bypassing < max.saturating_sub(max / 50)
        });
        let mut cohorts = BTreeMap::new();
        if outlook.settings.max_active.is_some() {
            for (at, now) in line.cohorts(settings, age_ms(settings), before, now) {
                let known = self.last.as_ref().and_then(|last| last.cohorts.get(&at));
                let left_before = known.map_or(0, |known| known.left_before) + now.left;
                cohorts.insert(at, Followed { now, left_before });
            }
        }
        let measured = Measured {
            at: now,
            settings: settings.clone(),
            opens_at: outlook.settings.opens_at,
            turns: line.turns(),
            left_ahead: line.left_in(line.serving, u64::MAX),
            waiting: line.waiting(next),
            has_room,
            cohorts,
        };
        if let Some(last) = self.last.replace(measured) {
            let elapsed = now.since(last.at);
            // What happened in a long gap, or while the clock was set back, tells nothing of speed.
            if !elapsed.is_zero() && elapsed <= 3 * INTERVAL {
                self.learn(&last, line, now);
            }
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn learn(&mut self, last: &Measured, line: &Line, now: Timestamp) {
        let Some(Measured { has_room, waiting, cohorts, .. }) = &self.last else { return };
        let elapsed_s = now.since(last.at).as_secs_f64();
        let settings = &last.settings;
        let left = line.left_in(last.turns.serving, line.serving);
        let admitted = line.admitted_since(last.turns);
        let is_open = !settings.paused && last.opens_at.is_none_or(|at| at <= last.at);
        if is_open && last.has_room && *has_room && last.waiting > 0 && *waiting > 0 {
            let smoothed_s = PACE_SMOOTHED.max(PACE_SMOOTHED / settings.admit_per_second);
            let forgets = (-elapsed_s / smoothed_s).exp();
            let allowed = settings.admit_per_second * elapsed_s;
            self.pace.add(admitted as f64, allowed, forgets);
        }
        let left_ahead = line.left_in(line.serving, u64::MAX) + left;
        let gave_up = left_ahead.saturating_sub(last.left_ahead);
        let forgets = (-elapsed_s / LEAVING_SMOOTHED_S).exp();
        self.leaving.add(gave_up as f64, last.waiting as f64 * elapsed_s, forgets);

        if cohorts.is_empty() && last.cohorts.is_empty() {
            return;
        }
        self.stays.resize(AGES, Fading::default());
        let ttl_s = settings.active_ttl.as_secs_f64().max(f64::MIN_POSITIVE);
        let forgets = (-elapsed_s / ttl_s / STAYS_REMEMBERED).exp();
        self.paid.resize(AGES, Fading::default());
        let ages = self.stays.iter_mut().chain(&mut self.paid);
        ages.for_each(|of_age| of_age.add(0.0, 0.0, forgets));
        let slot = now.0.div_euclid(age_ms(settings));
        for (at, cohort) in cohorts {
            let age = usize::try_from(slot - at).unwrap_or(0).min(AGES - 1);
            let before = last.cohorts.get(at).copied().unwrap_or_default();
            let gone = cohort.gone().saturating_sub(before.gone());
            // Who comes and goes between two looks was inside for half of the time.
            let inside_s = (cohort.now.inside as f64 + gone as f64 / 2.0) * elapsed_s;
            self.stays[age].add(gone as f64, inside_s, 1.0);
            let paid = cohort.now.paid.saturating_sub(before.now.paid);
            self.paid[age].add(paid as f64, gone as f64, 1.0);
        }
        let is_over = |(at, _): &(&i64, &Followed)| !cohorts.contains_key(*at);
        let over = last.cohorts.iter().filter(is_over).map(|(_, cohort)| cohort.now.inside);
        self.timed_out.add(over.sum::<u64>() as f64, 0.0, forgets);
    }

    /// What can be expected of a line, be it as it is or as it would be with other settings.
    pub fn expect(&self, seen: &Observed<'_>, now: Timestamp) -> Expected {
        let Observed { line, settings, outlook, next, bypassing, .. } = *seen;
        let waiting = line.waiting(next);
        let last_wait = match waiting {
            0 => Some(Duration::ZERO),
            _ if outlook.admits_nobody() => None,
            _ => self.forecast(seen, now).eta(waiting, &outlook.settings, now),
        };
        let inside = line.active(settings, now) + bypassing;
        let to_come = if settings.paused || outlook.admits_nobody() {
            0
        } else {
            // A float turns into the nearest integer that fits.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let admitted =
                (settings.admit_per_second * settings.active_ttl.as_secs_f64()).ceil() as u64;
            waiting.min(admitted)
        };
        let room = outlook.settings.max_active.map_or(u64::MAX, |max| max.max(inside));
        Expected { last_wait, inside_at_most: inside.saturating_add(to_come).min(room) }
    }

    /// Admissions a second where nothing but the rate limits them; `None` where the line stands still
    /// though it should move.
    fn admitted_per_second(&self, settings: &QueueSettings) -> Option<f64> {
        let pace = self.pace.of / self.pace.over.max(f64::MIN_POSITIVE);
        (pace >= PACE_MIN).then_some(settings.admit_per_second * pace)
    }

    fn forecast(&self, seen: &Observed<'_>, now: Timestamp) -> Forecast {
        let Observed { line, settings, outlook, presence, .. } = *seen;
        let Some(rate) = self.admitted_per_second(settings) else {
            return Forecast(Course::Unknown);
        };
        // Absent numbers are passed over for nothing.
        let places = presence.places_per_admission(line);
        let leaving = self.leaving.ratio();
        Forecast(match outlook.settings.max_active {
            None => Course::Steady { per_second: rate * places, leaving },
            Some(_) => self.bounded(seen, rate, places, leaving, now),
        })
    }

    /// Follows those inside, and those who will be, to see when there is room for how many.
    #[allow(clippy::cast_precision_loss)]
    fn bounded(
        &self,
        seen: &Observed<'_>,
        rate: f64,
        places: f64,
        leaving: f64,
        now: Timestamp,
    ) -> Course {
        let Observed { line, settings, outlook, bypassing, .. } = *seen;
        let begins = match outlook.settings.gate(now) {
            Gate::Scheduled(at) => at,
            Gate::Open | Gate::Paused => now,
        };
        let inside = line.cohorts(settings, age_ms(settings), u64::MAX, begins);
        let own_max = settings.max_active.map_or(f64::INFINITY, |max| max as f64);
        let mut stock = outlook.stock.map_or(f64::INFINITY, |stock| stock as f64);
        let max = |stock: f64| (own_max.min(stock) - bypassing as f64).max(0.0);

        let ttl_s = settings.active_ttl.as_secs_f64().max(f64::MIN_POSITIVE);
        let age_s = age_ms(settings) as f64 / 1e3;
        let slot = begins.0.div_euclid(age_ms(settings));
        // Of each class of age: how old they are, and how many.
        let mut cohorts: VecDeque<(f64, f64)> = inside
            .iter()
            .map(|(at, cohort)| ((slot - at).max(0) as f64 * age_s, cohort.inside as f64))
            .collect();
        let count = |cohorts: &VecDeque<(f64, f64)>| cohorts.iter().map(|(_, n)| n).sum::<f64>();
        let total = Fading::sum(&self.stays);
        if total.of + self.timed_out.of < GONE_MIN {
            // How long people stay is unknown: what is known is how many there is room for.
            let room = (max(stock) - count(&cohorts)).max(0.0);
            let points = [(0.0, 0.0), (room / rate, room * places)];
            return Course::Curve { points: points.into(), per_second: 0.0 };
        }
        // Classes of age of which little is known are like the others.
        let mean = total.of / total.over.max(f64::MIN_POSITIVE);
        let rate_of = |stays: &Fading| (stays.of * mean + mean) / (stays.over * mean + 1.0);
        let step_s = age_s.min(0.25 / mean).max(ttl_s / COHORTS_MAX as f64);
        let stay: Vec<f64> =
            self.stays.iter().map(|stays| (-rate_of(stays) * step_s).exp()).collect();
        // Who pays takes the seats along, so that others do not find any in their place.
        let all_paid = Fading::sum(&self.paid);
        let mean_paid = all_paid.of / all_paid.over.max(1.0);
        let paid_of = |paid: &Fading| ((paid.of + mean_paid) / (paid.over + 1.0)).min(1.0);
        let paid: Vec<f64> = self.paid.iter().map(paid_of).collect();

        let mut points = Vec::with_capacity(STEPS + 2);
        points.push((0.0, 0.0));
        let (mut time_s, mut moved) = (0.0, 0.0);
        let mut admit = |cohorts: &mut VecDeque<(f64, f64)>, max: f64, within_s, until_s: f64| {
            let room = (max - count(cohorts)).max(0.0);
            let admitted = room.min(rate * within_s);
            // In relation to how many of those who wait now will be waiting then.
            moved += admitted * places * (leaving * until_s).exp();
            points.push((until_s, moved));
            cohorts.push_back((within_s / 2.0, admitted));
        };
        // There may be room now, which fills as fast as the rate allows.
        let fills_s = ((max(stock) - count(&cohorts)).max(0.0) / rate).min(step_s);
        if fills_s > 0.0 {
            admit(&mut cohorts, max(stock), fills_s, fills_s);
        }
        for _ in 0..STEPS {
            for (age, n) in &mut cohorts {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let class = ((*age / age_s).round() as usize).min(AGES - 1);
                stock -= *n * (1.0 - stay[class]) * paid[class];
                *n *= stay[class];
                *age += step_s;
            }
            cohorts.retain(|(age, n)| *age < ttl_s && *n > 1e-6);
            time_s += step_s;
            admit(&mut cohorts, max(stock), step_s, time_s);
        }
        // Where it ends for good, nobody knows of those behind.
        let per_second = if own_max <= stock { moved / time_s } else { 0.0 };
        Course::Curve { points: points.into(), per_second }
    }

    /// Notes what some are promised.
    fn promise(&mut self, forecast: &Forecast, seen: &Observed<'_>, now: Timestamp) {
        let Observed { line, outlook, next, .. } = *seen;
        if outlook.admits_nobody() {
            return;
        }
        let waiting = next.saturating_sub(line.serving);
        for part in WATCHED_PARTS {
            let seq = line.serving + waiting / part;
            if seq == line.serving || self.promises.len() >= PROMISES_MAX {
                continue;
            }
            let number = seq - line.serving - line.left_in(line.serving, seq - 1);
            if let Some(told) = forecast.eta(number, &outlook.settings, now) {
                self.promises.insert((seq, now), told);
            }
        }
    }
}

/// The width of a class of age.
fn age_ms(settings: &QueueSettings) -> i64 {
    let ttl_ms = i64::try_from(settings.active_ttl.as_millis()).unwrap_or(i64::MAX);
    (ttl_ms / AGES as i64).max(1)
}
