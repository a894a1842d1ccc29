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

use super::{Gate, Line, Presence, QueueSettings};
use crate::time::Timestamp;

/// How often the speed is measured.
const INTERVAL: Duration = Duration::from_secs(1);
/// Over how many seconds the ratio of real admissions to the rate is smoothed.
const PACE_SMOOTHED_S: f64 = 20.0;
/// And that of people who give up waiting.
const LEAVING_SMOOTHED_S: f64 = 60.0;
/// Before so many have been admitted the rate is believed to be kept.
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
#[derive(Clone, Copy, Debug, Default)]
struct Fading {
    of: f64,
    over: f64,
}

impl Fading {
    fn add(&mut self, of: f64, over: f64, forgets: f64) {
        self.of = self.of * forgets + of;
        self.over = self.over * forgets + over;
    }
}

/// The people of an age, inside.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cohort {
    /// How many were let in,
    pub(super) admitted: u64,
    /// and how many of them take up room now.
    pub(super) inside: u64,
}

impl Cohort {
    const fn gone(&self) -> u64 {
        self.admitted.saturating_sub(self.inside)
    }
}

/// How the line stood when it was measured last.
#[derive(Clone, Debug)]
struct Measured {
    at: Timestamp,
    settings: QueueSettings,
    serving: u64,
    passed: u64,
    readmitted: u64,
    left_ahead: u64,
    waiting: u64,
    has_room: bool,
    /// By when they were let in, in units of an age.
    cohorts: BTreeMap<i64, Cohort>,
}

/// Measures how fast a line moves.
#[derive(Clone, Debug, Default)]
pub struct Speed {
    last: Option<Measured>,
    /// Admissions, to what the rate allows.
    pace: Fading,
    /// Those who gave up waiting, to seconds of waiting.
    leaving: Fading,
    /// Those who went, to seconds that people were inside: by age.
    stays: Vec<Fading>,
    /// Those who stayed to the end, of late.
    timed_out: Fading,
    /// Numbers, what they were promised, and when.
    promises: BTreeMap<(u64, Timestamp), Duration>,
}

impl Speed {
    /// Follows the line, to be called at every tick after [`Presence::follow`]; `bypassing` count as
    /// inside. Returns a forecast where there is a new one: once a second, and where the settings have
    /// changed. `kept` is told of promises that have turned out.
    pub fn follow(
        &mut self,
        line: &Line,
        settings: &QueueSettings,
        next: u64,
        bypassing: u64,
        presence: &Presence,
        now: Timestamp,
        mut kept: impl FnMut(Promise),
    ) -> Option<Forecast> {
        while let Some(first) = self.promises.first_entry() {
            let ((seq, at), told) = (*first.key(), *first.get());
            if seq > line.serving {
                break;
            }
            first.remove();
            kept(Promise { told, took: now.since(at) });
        }
        let is_due = self.last.as_ref().is_none_or(|last| {
            last.settings != *settings || now.since(last.at) >= INTERVAL || now < last.at
        });
        if !is_due {
            return None;
        }
        self.measure(line, settings, next, bypassing, now);
        let forecast = self.forecast(line, settings, bypassing, presence, now);
        self.promise(&forecast, line, settings, next, now);
        Some(forecast)
    }

    fn measure(
        &mut self,
        line: &Line,
        settings: &QueueSettings,
        next: u64,
        bypassing: u64,
        now: Timestamp,
    ) {
        let max = settings.max_active.unwrap_or(u64::MAX);
        let waiting = line.waiting(next);
        let has_room = settings.max_active.is_none()
            || line.active(settings, now) + bypassing < max.saturating_sub(max / 50);
        let cohorts = match settings.max_active {
            Some(_) => line.cohorts(settings, age_ms(settings), now),
            None => BTreeMap::new(),
        };
        let measured = Measured {
            at: now,
            settings: settings.clone(),
            serving: line.serving,
            passed: line.passed.len(),
            readmitted: line.readmitted.len() as u64,
            left_ahead: line.left_in(line.serving, u64::MAX),
            waiting,
            has_room,
            cohorts,
        };
        if let Some(last) = std::mem::replace(&mut self.last, Some(measured)) {
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
        // Those who left after their turn had come count as admitted.
        let turned = line.serving.saturating_sub(last.serving);
        let left = line.left_in(last.serving, line.serving);
        let passed = (line.passed.len() + line.readmitted.len() as u64)
            .saturating_sub(last.passed + last.readmitted);
        let admitted = turned.saturating_sub(left + passed)
            + (line.readmitted.len() as u64).saturating_sub(last.readmitted);
        let is_open = settings.gate(last.at) == Gate::Open;
        if is_open && last.has_room && *has_room && last.waiting > 0 && *waiting > 0 {
            let forgets = (-elapsed_s / PACE_SMOOTHED_S).exp();
            let allowed = settings.admit_per_second * elapsed_s;
            self.pace.add(admitted as f64, allowed, forgets);
        }
        let gave_up = (line.left_in(last.serving, u64::MAX)).saturating_sub(last.left_ahead);
        let forgets = (-elapsed_s / LEAVING_SMOOTHED_S).exp();
        self.leaving.add(gave_up as f64, last.waiting as f64 * elapsed_s, forgets);

        if settings.max_active.is_some() {
            self.stays.resize(AGES, Fading::default());
            let ttl_s = settings.active_ttl.as_secs_f64().max(f64::MIN_POSITIVE);
            let forgets = (-elapsed_s / ttl_s / STAYS_REMEMBERED).exp();
            self.stays.iter_mut().for_each(|stays| stays.add(0.0, 0.0, forgets));
            let slot = now.0.div_euclid(age_ms(settings));
            for (at, cohort) in cohorts {
                let age = usize::try_from(slot - at).unwrap_or(0).min(AGES - 1);
                let before = last.cohorts.get(at).map_or(0, Cohort::gone);
                let gone = cohort.gone().saturating_sub(before);
                // Who comes and goes between two looks was inside for half of the time.
                let inside_s = (cohort.inside as f64 + gone as f64 / 2.0) * elapsed_s;
                self.stays[age].add(gone as f64, inside_s, 1.0);
            }
            let is_over = |at: &&i64| !cohorts.contains_key(at);
            let over = last.cohorts.keys().filter(is_over).map(|at| last.cohorts[at].inside);
            self.timed_out.add(over.sum::<u64>() as f64, 0.0, forgets);
        }
    }

    /// Admissions a second where nothing but the rate limits them; `None` where the line stands still
    /// though it should move.
    fn admitted_per_second(&self, settings: &QueueSettings) -> Option<f64> {
        let pace = (self.pace.of + PACE_BELIEVED) / (self.pace.over + PACE_BELIEVED);
        (pace >= PACE_MIN).then(|| settings.admit_per_second * pace)
    }

    #[allow(clippy::cast_precision_loss)]
    fn forecast(
        &self,
        line: &Line,
        settings: &QueueSettings,
        bypassing: u64,
        presence: &Presence,
        now: Timestamp,
    ) -> Forecast {
        let Some(rate) = self.admitted_per_second(settings) else {
            return Forecast(Course::Unknown);
        };
        // Absent numbers are passed over for nothing.
        let places = presence.places_per_admission(line);
        let leaving =
            if self.leaving.over > 0.0 { self.leaving.of / self.leaving.over } else { 0.0 };
        let Some(max) = settings.max_active else {
            return Forecast(Course::Steady { per_second: rate * places, leaving });
        };
        let begins = match settings.gate(now) {
            Gate::Scheduled(at) => at,
            Gate::Open | Gate::Paused => now,
        };
        let inside = line.cohorts(settings, age_ms(settings), begins);
        let max = max.saturating_sub(bypassing) as f64;
        Forecast(self.bounded(&inside, max, rate, places, leaving, settings, begins))
    }

    /// Follows those inside, and those who will be, to see when there is room for how many.
    #[allow(clippy::cast_precision_loss, clippy::too_many_arguments)]
    fn bounded(
        &self,
        inside: &BTreeMap<i64, Cohort>,
        max: f64,
        rate: f64,
        places: f64,
        leaving: f64,
        settings: &QueueSettings,
        begins: Timestamp,
    ) -> Course {
        let ttl_s = settings.active_ttl.as_secs_f64().max(f64::MIN_POSITIVE);
        let age_s = age_ms(settings) as f64 / 1e3;
        let slot = begins.0.div_euclid(age_ms(settings));
        // Of each class of age: how many are inside, and their age.
        let mut cohorts: VecDeque<(f64, f64)> = inside
            .iter()
            .map(|(at, cohort)| ((slot - at).max(0) as f64 * age_s, cohort.inside as f64))
            .collect();
        let total: Fading = self.stays.iter().fold(Fading::default(), |sum, stays| Fading {
            of: sum.of + stays.of,
            over: sum.over + stays.over,
        });
        let count = |cohorts: &VecDeque<(f64, f64)>| cohorts.iter().map(|(_, n)| n).sum::<f64>();
        if total.of + self.timed_out.of < GONE_MIN {
            // How long people stay is unknown: what is known is how many there is room for.
            let room = (max - count(&cohorts)).max(0.0);
            let points = [(0.0, 0.0), (room / rate, room * places)];
            return Course::Curve { points: points.into(), per_second: 0.0 };
        }
        // Classes of age of which little is known are like the others.
        let mean = total.of / total.over.max(f64::MIN_POSITIVE);
        let rate_of = |stays: &Fading| (stays.of * mean + mean) / (stays.over * mean + 1.0);
        let rates: Vec<f64> = self.stays.iter().map(rate_of).collect();
        let step_s = (age_s).min(0.25 / mean).max(ttl_s / COHORTS_MAX as f64);
        let stay: Vec<f64> = rates.iter().map(|rate| (-rate * step_s).exp()).collect();

        let mut points = Vec::with_capacity(STEPS + 2);
        points.push((0.0, 0.0));
        let (mut time_s, mut moved) = (0.0, 0.0);
        let mut admit = |cohorts: &mut VecDeque<(f64, f64)>, within_s: f64, until_s: f64| {
            let room = (max - count(cohorts)).max(0.0);
            let admitted = room.min(rate * within_s);
            // In relation to how many of those who wait now will be waiting then.
            moved += admitted * places * (leaving * until_s).exp();
            points.push((until_s, moved));
            cohorts.push_back((within_s / 2.0, admitted));
        };
        // There may be room now, which fills as fast as the rate allows.
        let fills_s = ((max - count(&cohorts)).max(0.0) / rate).min(step_s);
        if fills_s > 0.0 {
            admit(&mut cohorts, fills_s, fills_s);
        }
        for _ in 0..STEPS {
            for (age, n) in &mut cohorts {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let class = ((*age / age_s).round() as usize).min(AGES - 1);
                *n *= stay[class];
                *age += step_s;
            }
            cohorts.retain(|(age, n)| *age < ttl_s && *n > 1e-6);
            time_s += step_s;
            admit(&mut cohorts, step_s, time_s);
        }
        let per_second = moved / time_s;
        Course::Curve { points: points.into(), per_second }
    }

    /// Notes what some are promised.
    fn promise(
        &mut self,
        forecast: &Forecast,
        line: &Line,
        settings: &QueueSettings,
        next: u64,
        now: Timestamp,
    ) {
        let waiting = next.saturating_sub(line.serving);
        for part in WATCHED_PARTS {
            let seq = line.serving + waiting / part;
            if seq == line.serving || self.promises.len() >= PROMISES_MAX {
                continue;
            }
            let number = seq - line.serving - line.left_in(line.serving, seq - 1);
            if let Some(told) = forecast.eta(number, settings, now) {
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
