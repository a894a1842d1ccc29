//! Who of those near the head of a line has polled lately.
//!
//! A number is absent when its owner has not polled for three of the longest intervals that anybody is
//! told, and for ten seconds at least. What is kept is one moment for each number of a stretch
//! that can be admitted in about the next minute; everybody behind it is unknown, and is given the
//! benefit of the doubt when the stretch reaches them.
//!
//! Who polls is somebody else's business, and so is passing over: [`Line::plan`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::pace::poll_after_max;
use super::{Draw, Line, QueueSettings};
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
/// How often the absent ones are counted.
const SECOND: Duration = Duration::from_secs(1);
/// Where nobody listened for longer than this, polls have gone unheard.
const UNHEARD: Duration = Duration::from_secs(2);
/// The unit of the moments that are kept.
const UNIT_MS: i64 = 100;

/// How long a poll counts: for three of the longest intervals that anybody is told, which is the claim
/// window for all but the shortest and the longest ones. Other instances may know less of the speed of
/// the line, and have told more than this one would.
fn counts(settings: &QueueSettings) -> Duration {
    (poll_after_max(settings) * INTERVALS).max(ABSENT_AFTER_MIN)
}

/// How a line stood.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Timestamp,
    /// How many had been passed over,
    passed: u64,
    /// and the last number that had been given.
    next: u64,
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
    /// How the line stood while polls of that time count, a second apart.
    lately: VecDeque<Sample>,
    /// The last `follow`.
    followed: Option<Timestamp>,
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
    /// in about the next minute. To be called at every tick, before [`Line::plan`]. A tick that comes
    /// more than two seconds after the last counts as [`Presence::assume_all`].
    pub fn follow(&mut self, line: &Line, settings: &QueueSettings, next: u64, now: Timestamp) {
        self.keep_time(settings, now);
        if self.until.is_empty() {
            self.base = now;
        }
        let unheard = self.followed.is_some_and(|at| now.since(at) > UNHEARD);
        self.drop_turned(line, now);
        if unheard {
            self.assume_all(settings, now);
        }
        if now.since(self.counted_at) >= SECOND {
            self.count(line, settings, next, now);
        }
        self.extend(line, settings, next, now);
        self.followed = Some(now);
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
        let until = now.plus(counts(settings));
        let until_units = units(self.base, until);
        for seq in seqs {
            if seq <= line.serving {
                if line.waits_apart(seq) {
                    let known = self.back.entry(seq).or_insert(until);
                    *known = if late { until.max(*known) } else { until };
                }
            } else if let Some(index) = self.index(seq) {
                let known = &mut self.until[index];
                *known = if late { until_units.max(*known) } else { until_units };
            }
        }
    }

    /// Polls may have gone unheard until `now`: everybody of the stretch counts as present for as
    /// long as if they had come into it now. Of those who were passed over only those count who are
    /// known to be back.
    pub fn assume_all(&mut self, settings: &QueueSettings, now: Timestamp) {
        self.latest = self.latest.max(now);
        let until = now.plus(counts(settings));
        let until_units = units(self.base, until);
        self.until.iter_mut().for_each(|known| *known = until_units.max(*known));
        self.back.values_mut().for_each(|known| *known = until.max(*known));
        self.absent = 0;
    }

    /// The opening draw gives numbers their ranks: who has polled before is known by rank from now on.
    pub fn draw(&mut self, draw: &Draw, settings: &QueueSettings, now: Timestamp) {
        let unknown = units(self.base, now.plus(counts(settings)));
        let (from, upto) = self.stretch();
        let known = |rank| self.index(draw.number(rank)).map_or(unknown, |index| self.until[index]);
        self.until = (from + 1..=upto).map(known).collect();
        self.absent = self.absent(now);
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

    /// How many numbers have their turn for each of them that is let in, of those who have been waiting
    /// for long enough that it is known whether they are there. Who left is in nobody's way.
    pub(super) fn places_per_admission(&self, line: &Line) -> f64 {
        let (from, upto) = self.stretch();
        let upto = self.lately.front().map_or(from, |then| then.next.clamp(from, upto));
        // Who left does not poll any more, and is absent a little later.
        let left = line.left_in(from, upto);
        let waiting = upto - from - left;
        let there = waiting.saturating_sub(self.absent.saturating_sub(left));
        #[allow(clippy::cast_precision_loss)]
        let places = waiting as f64 / there.max(1) as f64;
        places.max(1.0)
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

    fn index(&self, seq: u64) -> Option<usize> {
        let index = usize::try_from(seq.checked_sub(self.from + 1)?).ok()?;
        (index < self.until.len()).then_some(index)
    }

    fn is_over(&self, until: u32, now: Timestamp) -> bool {
        now.0.saturating_sub(self.base.0) >= i64::from(until) * UNIT_MS
    }

    /// Sees to it that times can be told, whatever the clock does.
    fn keep_time(&mut self, settings: &QueueSettings, now: Timestamp) {
        let went_back = self.latest.since(now) >= SECOND;
        // Halfway through what the units can tell, which is years.
        let far = now.0.saturating_sub(self.base.0) / UNIT_MS > i64::from(u32::MAX / 2);
        if went_back || far {
            // Nobody's last poll counts for longer than this from now on; so nobody who is gone counts
            // as present until a clock that was ahead is caught up with.
            let bound = if went_back { now.plus(counts(settings)) } else { Timestamp(i64::MAX) };
            let old_base = std::mem::replace(&mut self.base, now);
            for until in &mut self.until {
                let at = Timestamp(old_base.0.saturating_add(i64::from(*until) * UNIT_MS));
                *until = units(now, at.min(bound));
            }
            self.back.values_mut().for_each(|until| *until = bound.min(*until));
        }
        if went_back {
            self.lately.clear();
            self.counted_at = now;
            self.latest = now;
        }
        self.latest = self.latest.max(now);
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
    fn count(&mut self, line: &Line, settings: &QueueSettings, next: u64, now: Timestamp) {
        self.absent = self.absent(now);
        self.counted_at = now;
        self.lately.push_back(Sample { at: now, passed: line.passed.len(), next });
        let counts = counts(settings);
        while self.lately.get(1).is_some_and(|second| now.since(second.at) >= counts) {
            self.lately.pop_front();
        }
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
            self.lately.front().map_or(0, |then| line.passed.len().saturating_sub(then.passed));
        let wanted = (in_time.max(PRESENT_MIN) + self.absent + passed_lately)
            .saturating_sub(len.saturating_sub(self.absent));
        let upto = end + wanted.min(STRETCH_MAX.saturating_sub(len)).min(next.saturating_sub(end));
        if upto == end {
            return;
        }
        // In doubt they are there: of those behind the stretch nothing was known.
        let until = units(self.base, now.plus(counts(settings)));
        self.until.resize(self.until.len() + (upto - end) as usize, until);
    }
}

/// `at` in whole units since `base`, rounded up.
fn units(base: Timestamp, at: Timestamp) -> u32 {
    let ms = at.0.saturating_sub(base.0).max(0);
    let units = ms / UNIT_MS + i64::from(ms % UNIT_MS > 0);
    u32::try_from(units).unwrap_or(u32::MAX)
}
