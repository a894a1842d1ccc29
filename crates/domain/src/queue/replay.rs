//! Whether an admission log keeps the rules of the line.

use std::fmt;

use super::draw::{Drawing, Drawn};
use super::record::{Admitted, Entry, Record, Standing, Terms};
use super::runs::Runs;
use super::{Bucket, CLOCKS_APART};
use crate::time::Timestamp;

/// A rule that a record breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The log does not begin with where the queue stands.
    NoBeginning,
    /// A record is missing before it, or one is there twice.
    Number {
        /// The number that follows the one before.
        expected: u64,
    },
    /// The queue does not stand where the records before have led.
    Elsewhere {
        /// In which respect.
        part: &'static str,
    },
    /// The step does not go on where the one before ended, or it goes back.
    NotInOrder {
        /// The highest number that had its turn before.
        serving: u64,
    },
    /// Numbers are said to be absent or to have left whose turn it was not, or both.
    NoTurn,
    /// Numbers are let in late that had not been passed over, or were let in since.
    NotPassedOver {
        /// The first number of such a run,
        first: u64,
        /// and its last.
        last: u64,
    },
    /// Somebody had a turn while the queue was paused.
    Paused,
    /// Somebody had a turn before the queue opened.
    NotOpen {
        /// When it opens.
        opens_at: Timestamp,
    },
    /// More were let in than the rate allows.
    TooFast {
        /// How many were let in.
        admitted: u64,
        /// How many the rate allowed at this moment.
        allowed: u64,
    },
    /// More were let in at once than may be active.
    TooMany {
        /// How many were let in.
        admitted: u64,
        /// How many may be active.
        max: u64,
    },
    /// Time goes back.
    TimeBack {
        /// The time before which it may not be.
        before: Timestamp,
    },
    /// Somebody had a turn before the draw.
    NotDrawn,
    /// It is a draw, and none is to come: there was one before, or somebody had a turn already.
    NoDraw,
    /// The seed of a draw was exchanged without need.
    Recommitted,
}

impl Broken {
    /// Whether it is about who comes before whom, and not about when or how many.
    pub const fn is_of_order(&self) -> bool {
        match self {
            Self::NoBeginning
            | Self::Number { .. }
            | Self::Elsewhere { .. }
            | Self::NotInOrder { .. }
            | Self::NoTurn
            | Self::NotPassedOver { .. }
            | Self::NotDrawn
            | Self::NoDraw
            | Self::Recommitted => true,
            Self::Paused
            | Self::NotOpen { .. }
            | Self::TooFast { .. }
            | Self::TooMany { .. }
            | Self::TimeBack { .. } => false,
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBeginning => write!(f, "the log does not begin with where the queue stands"),
            Self::Number { expected } => {
                write!(f, "records are missing or doubled: number {expected} should come here")
            }
            Self::Elsewhere { part } => {
                write!(f, "it says another {part} than the records before have led to")
            }
            Self::NotInOrder { serving } => {
                write!(f, "it does not go on behind number {serving}, who was the last before")
            }
            Self::NoTurn => {
                write!(f, "it has numbers absent or gone whose turn it was not, or twice")
            }
            Self::NotPassedOver { first, last } => write!(
                f,
                "it lets numbers {first} to {last} in late, who had not been passed over, or were let \
                 in since"
            ),
            Self::Paused => write!(f, "it was made while the queue was paused"),
            Self::NotOpen { opens_at } => {
                write!(f, "it was made before the queue opened (at {} ms)", opens_at.0)
            }
            Self::TooFast { admitted, allowed } => {
                write!(f, "it lets {admitted} in, and the rate allows {allowed}")
            }
            Self::TooMany { admitted, max } => {
                write!(f, "it lets {admitted} in at once, and {max} may be active")
            }
            Self::NotDrawn => write!(f, "somebody has their turn before the draw"),
            Self::NoDraw => write!(f, "it is a draw where none was to come"),
            Self::Recommitted => {
                write!(f, "it exchanges the seed of the draw, and no restore came before")
            }
            Self::TimeBack { before } => {
                write!(f, "its time is before that of an earlier step ({} ms)", before.0)
            }
        }
    }
}

/// A log of admissions, followed record by record.
///
/// The rate is that of [`Bucket`], from step to step: so in any stretch of time no more are let in than the
/// rate makes of it, and what a full bucket holds. A log, a change of the terms and a restore begin with a
/// full one.
#[derive(Clone, Debug)]
pub struct Replay {
    number: Option<u64>,
    standing: Standing,
    bucket: Bucket,
    /// When the last step was made by which the line moved on.
    moved_at: Timestamp,
    /// The latest time of a step.
    latest: Timestamp,
    /// Whether the last record is that of a restore.
    is_restored: bool,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            number: None,
            standing: Standing::default(),
            bucket: full(),
            moved_at: Timestamp(i64::MIN),
            latest: Timestamp(i64::MIN),
            is_restored: false,
        }
    }
}

const fn full() -> Bucket {
    Bucket::restore(u64::MAX, None)
}

impl Replay {
    /// The number of the last record.
    pub const fn number(&self) -> Option<u64> {
        self.number
    }

    /// The highest number that had its turn.
    pub const fn serving(&self) -> u64 {
        self.standing.serving
    }

    /// The numbers that were passed over and not let in since.
    pub const fn passed(&self) -> &Runs {
        &self.standing.passed
    }

    /// How the queue admits.
    pub const fn terms(&self) -> &Terms {
        &self.standing.terms
    }

    /// The opening draw, where there is one.
    pub const fn draw(&self) -> Option<&Drawing> {
        self.standing.draw.as_ref()
    }

    /// Whether the opening draw is still to come.
    pub fn is_undrawn(&self) -> bool {
        self.draw().is_some_and(|draw| draw.drawn.is_none())
    }

    /// Takes the next record in. Returns the rules that it breaks; what comes behind it is held against what
    /// it says all the same.
    pub fn follow(&mut self, record: &Record) -> Vec<Broken> {
        let mut broken = Vec::new();
        match (self.number, &record.entry) {
            (None, Entry::Stands(standing)) => self.standing = standing.clone(),
            (None, _) => broken.push(Broken::NoBeginning),
            (Some(before), _) => {
                let expected = before.saturating_add(1);
                if record.number != expected {
                    broken.push(Broken::Number { expected });
                }
            }
        }
        self.number = Some(record.number);
        let was_restored = std::mem::replace(
            &mut self.is_restored,
            matches!(record.entry, Entry::Restored { .. }),
        );
        match &record.entry {
            Entry::Stands(standing) => {
                self.compare(standing, &mut broken);
                // A log may begin anywhere, and not there.
                if self.is_undrawn() && standing.serving > 0 {
                    broken.push(Broken::NotDrawn);
                }
            }
            Entry::Admitted(step) => {
                if self.is_undrawn() {
                    broken.push(Broken::NotDrawn);
                }
                self.order(step, &mut broken);
                self.pace(step, record.at, &mut broken);
            }
            Entry::Changed(terms) => {
                self.standing.terms = terms.clone();
                self.bucket = full();
            }
            Entry::Drawn(drawn) => self.drawn(*drawn, record.at, &mut broken),
            Entry::Committed(commitment) => {
                self.committed(*commitment, was_restored, &mut broken);
            }
            Entry::Restored { .. } | Entry::SetBack => {
                self.bucket = full();
                if matches!(record.entry, Entry::SetBack) {
                    (self.moved_at, self.latest) = (Timestamp(i64::MIN), Timestamp(i64::MIN));
                }
            }
        }
        broken
    }

    fn drawn(&mut self, drawn: Drawn, at: Timestamp, broken: &mut Vec<Broken>) {
        if let Some(opens_at) = self.standing.terms.opens_at.filter(|opens_at| at < *opens_at) {
            broken.push(Broken::NotOpen { opens_at });
        }
        match &mut self.standing.draw {
            Some(Drawing { drawn: none @ None, .. }) if self.standing.serving == 0 => {
                *none = Some(drawn);
            }
            Some(_) | None => broken.push(Broken::NoDraw),
        }
    }

    fn committed(&mut self, commitment: [u8; 32], is_due: bool, broken: &mut Vec<Broken>) {
        match &mut self.standing.draw {
            Some(Drawing { commitment: before, drawn: None }) if is_due => *before = commitment,
            Some(_) | None => broken.push(Broken::Recommitted),
        }
    }

    fn compare(&mut self, standing: &Standing, broken: &mut Vec<Broken>) {
        let Standing { serving, passed, terms, draw } = &self.standing;
        for (part, same) in [
            ("highest number", *serving == standing.serving),
            ("set of numbers that were passed over", *passed == standing.passed),
            ("rate, bound, opening or pause", *terms == standing.terms),
            ("draw", *draw == standing.draw),
        ] {
            if !same {
                broken.push(Broken::Elsewhere { part });
            }
        }
        self.standing = standing.clone();
    }

    fn order(&mut self, step: &Admitted, broken: &mut Vec<Broken>) {
        let Admitted { from, upto, passed, left, returned } = step;
        let Standing { serving, passed: waiting, .. } = &mut self.standing;
        if from != serving || upto < from {
            broken.push(Broken::NotInOrder { serving: *serving });
        }
        let between =
            |set: &Runs| set.bounds().is_none_or(|(first, last)| *from < first && last <= *upto);
        if !between(passed) || !between(left) || passed.meets(left) {
            broken.push(Broken::NoTurn);
        }
        // Whoever comes back was passed over in an earlier step.
        for (first, last) in returned.iter() {
            if !waiting.take(first, last) {
                broken.push(Broken::NotPassedOver { first, last });
            }
        }
        for (first, last) in passed.iter() {
            waiting.add(first, last);
        }
        *serving = (*serving).max(*upto);
    }

    fn pace(&mut self, step: &Admitted, at: Timestamp, broken: &mut Vec<Broken>) {
        let Terms { rate_milli, max_active, opens_at, paused } = &self.standing.terms;
        if *paused {
            broken.push(Broken::Paused);
        }
        if let Some(opens_at) = opens_at.filter(|opens_at| at < *opens_at) {
            broken.push(Broken::NotOpen { opens_at });
        }
        let admitted = step.count();
        if let Some(max) = max_active.filter(|max| admitted > *max) {
            broken.push(Broken::TooMany { admitted, max });
        }
        // A thousandth is exact enough: the bucket rounds to it.
        #[allow(clippy::cast_precision_loss)]
        let rate = *rate_milli as f64 / 1000.0;
        let allowed = self.bucket.fill(rate, at);
        if admitted > allowed {
            broken.push(Broken::TooFast { admitted, allowed });
        }
        self.bucket.spend(admitted);

        // Whoever plans a step that lets nobody new in may have a clock that is behind.
        let apart = i64::try_from(CLOCKS_APART.as_millis()).unwrap_or(i64::MAX);
        let before = self.moved_at.max(Timestamp(self.latest.0.saturating_sub(apart)));
        if at < before {
            broken.push(Broken::TimeBack { before });
        }
        if step.upto > step.from {
            self.moved_at = self.moved_at.max(at);
        }
        self.latest = self.latest.max(at);
    }
}

/// What a record means for a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was let in, in its turn.
    Admitted,
    /// Its owner was absent in its turn.
    PassedOver,
    /// Its owner had left before its turn.
    Left,
    /// It had been passed over, and was let in now.
    Readmitted,
}

impl Record {
    /// What it means for the number `seq`, if anything.
    pub fn fate(&self, seq: u64) -> Option<Fate> {
        let Entry::Admitted(Admitted { from, upto, passed, left, returned }) = &self.entry else {
            return None;
        };
        if returned.contains(seq) {
            return Some(Fate::Readmitted);
        }
        (*from < seq && seq <= *upto).then(|| {
            if passed.contains(seq) {
                Fate::PassedOver
            } else if left.contains(seq) {
                Fate::Left
            } else {
                Fate::Admitted
            }
        })
    }
}
