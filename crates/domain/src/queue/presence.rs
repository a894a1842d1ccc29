//! Who of those near the head of a line has polled lately.
//!
//! A number is absent when its owner has not polled for three of the intervals that its last poll
//! was told, and for ten seconds at least. What is kept is one moment for each number of a stretch
//! that can be admitted in about the next minute; everybody behind it is unknown, and is given the
//! benefit of the doubt when the stretch reaches them.
//!
//! Who polls is somebody else's business, and so is passing over: [`Line::plan`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::pace::poll_after_max;
use super::{Line, QueueSettings, eta};
use crate::time::Timestamp;

/// So many intervals without a poll mean that nobody is there.
const INTERVALS: u32 = 3;
/// Nobody is absent sooner than this, whatever the interval: scripts poll every three seconds
/// whatever they are told.
const ABSENT_AFTER_MIN: Duration = Duration::from_secs(10);
/// The stretch has at least so many numbers that are not absent, if so many wait.
const PRESENT_MIN: u64 = 1 << 17;
/// The most numbers in the stretch, absent ones included: four bytes for each.
const STRETCH_MAX: u64 = 1 << 20;
/// The stretch covers what is admitted in this time.
const AHEAD: Duration = Duration::from_secs(60);
/// Who is there has polled within this time: the longest interval, a tenth, and the way.
const REMEMBERED: Duration = Duration::from_secs(35);
/// A poll that is heard of now came no longer ago.
const MOMENT: Duration = Duration::from_secs(2);
/// How often the line is sampled, and the absent ones are counted.
const SECOND: Duration = Duration::from_secs(1);
/// Where nobody listened for longer than this, polls have gone unheard.
const UNHEARD: Duration = Duration::from_secs(2);
/// The unit of the moments that are kept.
const UNIT_MS: i64 = 100;

/// How the line stood at some moment, which decides what polls were told from then on.
#[derive(Clone, Debug)]
struct Sample {
    at: Timestamp,
    serving: u64,
    /// How many above `serving` had left.
    left: u64,
    /// How many had been passed over.
    passed: u64,
    settings: QueueSettings,
}

impl Sample {
    fn new(line: &Line, settings: &QueueSettings, at: Timestamp) -> Self {
        let left = line.left_in(line.serving, u64::MAX);
        let passed = line.passed.len();
        Self { at, serving: line.serving, left, passed, settings: settings.clone() }
    }

    fn is_like(&self, settings: &QueueSettings) -> bool {
        let pace = |s: &QueueSettings| (s.admit_per_second, s.opens_at, s.paused);
        pace(&self.settings) == pace(settings)
    }
}

/// How a line stood of late, for the longest interval that somebody may have been told.
struct Lately {
    /// Each with how much higher waiting numbers may have been then than now. Empty where nobody
    /// knows.
    samples: Vec<(u64, Sample)>,
}

impl Lately {
    /// How long a poll counts of somebody whose waiting number is `number` now.
    fn counts(&self, number: u64) -> Duration {
        self.counts_with(|higher| number.saturating_add(higher))
    }

    /// The same for one number after the other, none lower than the one before it.
    fn counts_rising(&self) -> impl FnMut(u64) -> Duration {
        let most = poll_after_max(None) * INTERVALS;
        let mut last = Duration::ZERO;
        move |number| {
            // Most of a long line was told the longest interval there is.
            if last < most {
                last = self.counts(number);
            }
            last
        }
    }

    /// The same of somebody who was passed over, and so had the number 1 then.
    fn counts_passed(&self) -> Duration {
        self.counts_with(|_| 1)
    }

    fn counts_with(&self, number: impl Fn(u64) -> u64) -> Duration {
        let told = |(higher, sample): &(u64, Sample)| {
            poll_after_max(eta(number(*higher), &sample.settings, sample.at))
        };
        let longest = self.samples.iter().map(told).max().unwrap_or(poll_after_max(None));
        (longest * INTERVALS).max(ABSENT_AFTER_MIN)
    }
}

/// Who of those near the head of a line has polled lately, as far as one instance has heard.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    /// The number before the first of the stretch.
    from: u64,
    /// For each number of the stretch until when it counts as present: in units of 100 ms since
    /// `base`, rounded up.
    until: VecDeque<u32>,
    base: Timestamp,
    /// Those who were passed over and polled since, and until when they count as present.
    back: BTreeMap<u64, Timestamp>,
    /// The last number given, at the last `follow`.
    next: u64,
    /// How the line stood: a sample every second and for each change of the settings, as old as
    /// [`REMEMBERED`] and one more.
    history: VecDeque<Sample>,
    /// The last `follow`.
    followed: Option<(u64, Timestamp)>,
    /// The latest moment that was ever named, but for a clock that was set back.
    latest: Timestamp,
    /// How many of the stretch were absent when they were counted last, but for those who have had
    /// their turn since; and when that was.
    absent: u64,
    counted_at: Timestamp,
}

impl Presence {
    /// Returns the numbers whose polls matter: those above the first, up to and with the second.
    pub fn stretch(&self) -> (u64, u64) {
        (self.from, self.from + self.until.len() as u64)
    }

    /// Follows the line: forgets numbers that had their turn, and takes in those that can be admitted
    /// in about the next minute. To be called at every tick, before [`Line::plan`], and after each
    /// change of the settings, or else nobody knows what polls were told by those that were in force
    /// between two ticks. A tick that comes more than two seconds after the last counts as
    /// [`Presence::assume_all`].
    pub fn follow(&mut self, line: &Line, settings: &QueueSettings, next: u64, now: Timestamp) {
        self.keep_time(now);
        if self.until.is_empty() {
            self.base = now;
        }
        let unheard = self.followed.is_some_and(|(_, at)| now.since(at) > UNHEARD);
        if unheard {
            self.history.clear();
            self.followed = None;
        }
        let changed = self.history.back().is_some_and(|last| !last.is_like(settings));
        let before = self.followed.map_or(line.serving, |(serving, _)| serving.min(line.serving));
        self.sample(line, settings, before, now);
        self.drop_turned(line, now);
        if unheard {
            self.assume_all(line, settings, now);
        } else if changed {
            self.assume_told(line, settings, now);
        }
        if now.since(self.counted_at) >= SECOND {
            self.count(line, now);
        }
        self.extend(line, settings, next, now);
        self.next = self.next.max(next);
        self.followed = Some((line.serving, now));
    }

    /// The owners of these numbers polled, at `now` or a moment before: numbers of the stretch, and
    /// numbers that were passed over, whose owners are back. Others are ignored.
    pub fn polled(
        &mut self,
        seqs: impl IntoIterator<Item = u64>,
        line: &Line,
        settings: &QueueSettings,
        now: Timestamp,
    ) {
        // Heard out of order, an older poll must not shorten what a later one was told.
        let late = now < self.latest;
        self.latest = self.latest.max(now);
        let mut seqs: Vec<u64> = seqs.into_iter().collect();
        if seqs.is_empty() {
            return;
        }
        let lately = self.lately(line, settings, MOMENT, now);
        seqs.sort_unstable();
        let mut counts = lately.counts_rising();
        // Counted on from number to number, because counting anew is slow where many have left.
        let mut left = line.left.iter();
        left.advance_to(line.serving + 1);
        let (mut left, mut left_ahead) = (left.peekable(), 0);
        for seq in seqs {
            if seq <= line.serving {
                if line.waits_apart(seq) {
                    let until = now.plus(lately.counts_passed());
                    let known = self.back.entry(seq).or_insert(until);
                    *known = if late { until.max(*known) } else { until };
                }
            } else if let Some(index) = self.index(seq) {
                while left.next_if(|left| *left < seq).is_some() {
                    left_ahead += 1;
                }
                let number = seq - line.serving - left_ahead;
                let until = units(self.base, now.plus(counts(number)));
                let known = &mut self.until[index];
                *known = if late { until.max(*known) } else { until };
            }
        }
    }

    /// Polls may have gone unheard until `now`: everybody of the stretch counts as present for as
    /// long as if they had come into it now. Of those who were passed over only those count who are
    /// known to be back.
    pub fn assume_all(&mut self, line: &Line, settings: &QueueSettings, now: Timestamp) {
        self.latest = self.latest.max(now);
        let lately = self.lately(line, settings, REMEMBERED, now);
        let mut counts = lately.counts_rising();
        let (from, base) = (self.from, self.base);
        for (seq, known) in (from + 1..).zip(&mut self.until) {
            let number = seq.saturating_sub(line.serving).max(1);
            *known = units(base, now.plus(counts(number))).max(*known);
        }
        let until = now.plus(lately.counts_passed());
        self.back.values_mut().for_each(|known| *known = until.max(*known));
        self.absent = 0;
    }

    /// Whether the owner of `seq` is known to be absent. Of numbers outside the stretch nothing is
    /// known.
    pub fn is_absent(&self, seq: u64, now: Timestamp) -> bool {
        self.index(seq).is_some_and(|index| self.is_over(self.until[index], now))
    }

    /// Returns the numbers that were passed over and whose owners are there again, lowest first.
    pub fn returned(&self, line: &Line, now: Timestamp) -> impl Iterator<Item = u64> {
        let there = self.back.iter().filter(move |(_, until)| now < **until).map(|(seq, _)| *seq);
        there.filter(|seq| line.waits_apart(*seq))
    }

    /// How many of the stretch are absent.
    pub fn absent(&self, now: Timestamp) -> u64 {
        // Compared as the units that they are, so that a million take a fraction of a millisecond.
        let Ok(now_units) = u64::try_from((now.0.saturating_sub(self.base.0)).div_euclid(UNIT_MS))
        else {
            return 0;
        };
        let now_units = u32::try_from(now_units).unwrap_or(u32::MAX);
        let (one, two) = self.until.as_slices();
        let count =
            |part: &[u32]| part.iter().map(|until| u64::from(*until <= now_units)).sum::<u64>();
        count(one) + count(two)
    }

    /// The last number that can be judged, for a line that serves `serving`.
    pub(super) fn judged(&self, serving: u64) -> u64 {
        let (from, upto) = self.stretch();
        if serving < from { serving } else { upto }
    }

    /// Whether the stretch is as long as it may be, so that those behind it wait to be judged.
    pub(super) fn is_full(&self) -> bool {
        self.until.len() as u64 >= STRETCH_MAX
    }

    /// Whoever is there may have been told by these settings a moment ago, by another instance that
    /// knew of them sooner.
    fn assume_told(&mut self, line: &Line, settings: &QueueSettings, now: Timestamp) {
        let told = Lately { samples: vec![(0, Sample::new(line, settings, now))] };
        let mut counts = told.counts_rising();
        for index in 0..self.until.len() {
            if !self.is_over(self.until[index], now) {
                let number = (self.from + 1 + index as u64).saturating_sub(line.serving).max(1);
                let until = units(self.base, now.plus(counts(number)));
                self.until[index] = until.max(self.until[index]);
            }
        }
    }

    fn index(&self, seq: u64) -> Option<usize> {
        let index = usize::try_from(seq.checked_sub(self.from + 1)?).ok()?;
        (index < self.until.len()).then_some(index)
    }

    fn is_over(&self, until: u32, now: Timestamp) -> bool {
        now.0.saturating_sub(self.base.0) >= i64::from(until) * UNIT_MS
    }

    /// Sees to it that times can be told, whatever the clock does.
    fn keep_time(&mut self, now: Timestamp) {
        let went_back = self.latest.since(now) >= SECOND;
        // Halfway through what the units can tell, which is years.
        let far = now.0.saturating_sub(self.base.0) / UNIT_MS > i64::from(u32::MAX / 2);
        if went_back || far {
            // Nobody's last poll counts for longer than this from now on; so nobody who is gone counts
            // as present until a clock that was ahead is caught up with.
            let bound = if went_back {
                now.plus(poll_after_max(None) * INTERVALS)
            } else {
                Timestamp(i64::MAX)
            };
            let old_base = std::mem::replace(&mut self.base, now);
            for until in &mut self.until {
                let at = Timestamp(old_base.0.saturating_add(i64::from(*until) * UNIT_MS));
                *until = units(now, at.min(bound));
            }
            self.back.values_mut().for_each(|until| *until = bound.min(*until));
        }
        if went_back {
            self.history.clear();
            self.counted_at = now;
            self.latest = now;
        }
        self.latest = self.latest.max(now);
    }

    /// Notes how the line stands. `before` is what it served when the settings may have changed.
    fn sample(&mut self, line: &Line, settings: &QueueSettings, before: u64, now: Timestamp) {
        let due = match self.history.back() {
            None => true,
            Some(last) => now.since(last.at) >= SECOND || !last.is_like(settings),
        };
        if due {
            let mut sample = Sample::new(line, settings, now);
            sample.serving = before;
            sample.at = self.history.back().map_or(now, |last| last.at.max(now));
            self.history.push_back(sample);
        }
        while self.history.get(1).is_some_and(|second| now.since(second.at) >= REMEMBERED) {
            self.history.pop_front();
        }
    }

    /// How the line stood within the last `time`. Where the time is [`REMEMBERED`] and the history
    /// is not as old: nothing.
    fn lately(
        &self,
        line: &Line,
        settings: &QueueSettings,
        time: Duration,
        now: Timestamp,
    ) -> Lately {
        let begins = self.history.partition_point(|sample| now.since(sample.at) >= time);
        if begins == 0 && time == REMEMBERED {
            return Lately { samples: Vec::new() };
        }
        let current = Sample::new(line, settings, now);
        let mut samples: Vec<(u64, Sample)> = Vec::new();
        let recent = self.history.iter().skip(begins.saturating_sub(1));
        for sample in recent.chain([&current]) {
            // Numbers only fall: of the same settings the oldest told the longest interval.
            if samples.last().is_some_and(|(_, last)| last.is_like(&sample.settings)) {
                continue;
            }
            let moved = line.serving.saturating_sub(sample.serving);
            let left = line.left_in(sample.serving, u64::MAX).saturating_sub(sample.left);
            samples.push((moved + left, sample.clone()));
        }
        Lately { samples }
    }

    /// Forgets the numbers that had their turn.
    fn drop_turned(&mut self, line: &Line, now: Timestamp) {
        let turned = usize::try_from(line.serving.saturating_sub(self.from)).unwrap_or(usize::MAX);
        let turned = turned.min(self.until.len());
        let now_over = |until: &&u32| self.is_over(**until, now);
        let absent = self.until.iter().take(turned).filter(now_over).count() as u64;
        self.absent = self.absent.saturating_sub(absent);
        self.until.drain(..turned);
        // A line that was replaced by one further back begins anew.
        if line.serving < self.from {
            self.until.clear();
            self.absent = 0;
        }
        self.from = line.serving;
        while let Some(first) = self.back.first_entry() {
            if line.passed.contains(*first.key()) {
                break;
            }
            first.remove();
        }
    }

    /// Counts the absent ones, and gives back memory that is no longer needed.
    fn count(&mut self, line: &Line, now: Timestamp) {
        self.absent = self.absent(now);
        self.counted_at = now;
        self.back.retain(|seq, until| now < *until && line.waits_apart(*seq));
        if self.until.len() < self.until.capacity() / 4 {
            self.until.shrink_to(self.until.len() * 2);
        }
    }

    /// Takes in the numbers that can be admitted in about the next minute.
    fn extend(&mut self, line: &Line, settings: &QueueSettings, next: u64, now: Timestamp) {
        let (_, end) = self.stretch();
        let len = self.until.len() as u64;
        // A float turns into the nearest integer that fits.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let in_time = (settings.admit_per_second * AHEAD.as_secs_f64()) as u64;
        // Where many are absent, many are likely to be absent behind them, and it takes a while to
        // tell: so it looks the further ahead the more there are.
        let passed_lately =
            self.history.front().map_or(0, |first| line.passed.len().saturating_sub(first.passed));
        let wanted = (in_time.max(PRESENT_MIN) + self.absent + passed_lately)
            .saturating_sub(len.saturating_sub(self.absent));
        let upto = end + wanted.min(STRETCH_MAX.saturating_sub(len)).min(next.saturating_sub(end));
        if upto == end {
            return;
        }
        let left = line.left_in(line.serving, end);
        let number = |seq: u64| seq - line.serving - left.min(seq - line.serving - 1);
        // Whoever came since the last tick was told by how the line stands now.
        let known = if self.followed.is_none() { upto } else { self.next.clamp(end, upto) };
        for (first, last, time) in [(end + 1, known, REMEMBERED), (known + 1, upto, MOMENT)] {
            if first <= last {
                let lately = self.lately(line, settings, time, now);
                let mut counts = lately.counts_rising();
                let until = |seq| units(self.base, now.plus(counts(number(seq))));
                self.until.extend((first..=last).map(until));
            }
        }
    }
}

/// `at` in whole units since `base`, rounded up.
fn units(base: Timestamp, at: Timestamp) -> u32 {
    let ms = at.0.saturating_sub(base.0).max(0);
    let units = ms / UNIT_MS + i64::from(ms % UNIT_MS > 0);
    u32::try_from(units).unwrap_or(u32::MAX)
}
