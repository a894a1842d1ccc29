//! The admission log: what happened to a queue, one record after another, as bytes that are the same
//! wherever they are written.
//!
//! A record is numbered by how many steps and changes the queue had seen with it ([`Line::steps`]), so that
//! one that is missing or added shows. Each is chained to the one before by a digest, which is not made here.
//!
//! The bytes of a record: its version (1), its kind, its number, its time, and what the kind has. A number is
//! a *varint*: seven bits in a byte, the lowest first, the high bit set in all bytes but the last, and as few
//! bytes as it takes. What may be negative is folded first: 0, -1, 1, -2 are 0, 1, 2, 3. What may be missing
//! is a byte 0, or a byte 1 and the value. A digest and a seed are their 32 bytes. A set is the number of its
//! runs, and for each run its distance and its length less one: the distance of the first is from a number
//! that the record names, that of the others from the first number behind the gap that there must be, so a
//! set has one form.
//!
//! [`Line::steps`]: super::Line::steps

use super::draw::{Drawing, Drawn};
use super::runs::Runs;
use super::{QueueSettings, Step};
use crate::time::Timestamp;

/// A record of the admission log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// How many steps and changes the queue had seen with this one.
    pub number: u64,
    /// When, by the clock of the database, or of whoever planned the step.
    pub at: Timestamp,
    /// What happened.
    pub entry: Entry,
}

/// What a record tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Where the queue stands: the beginning of a log, and said again once a day, so that what is older can
    /// be forgotten.
    Stands(Standing),
    /// A step of admission.
    Admitted(Admitted),
    /// The terms have changed.
    Changed(Terms),
    /// The store was put back from a backup, which began this epoch: what came after the backup is gone.
    Restored {
        /// The id of the epoch.
        epoch: u32,
    },
    /// Times that had been in the future were taken back: times go on from here.
    SetBack,
    /// The opening draw: numbers are ranks from now on (see [`Draw`](super::Draw)).
    Drawn(Drawn),
    /// After a restore the seed of the draw to come is another one, because the one before may have been
    /// revealed. This is its digest.
    Committed([u8; 32]),
}

/// Where a queue stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The highest number that had its turn.
    pub serving: u64,
    /// The numbers whose owners were absent in their turn, and that were not let in since.
    pub passed: Runs,
    /// How the queue admits.
    pub terms: Terms,
    /// The opening draw, where there is to be one.
    pub draw: Option<Drawing>,
}

/// What is checked of how a queue admits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Admissions in a thousand seconds.
    pub rate_milli: u64,
    /// How many may be active at once, where that is bounded.
    pub max_active: Option<u64>,
    /// Nobody is let in before this moment, where there is one.
    pub opens_at: Option<Timestamp>,
    /// Nobody is let in while this is so.
    pub paused: bool,
}

impl From<&QueueSettings> for Terms {
    fn from(settings: &QueueSettings) -> Self {
        // As the bucket counts; a float turns into the nearest integer that fits.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rate_milli = (settings.admit_per_second * 1000.0).round() as u64;
        let QueueSettings { max_active, opens_at, paused, .. } = *settings;
        Self { rate_milli, max_active, opens_at, paused }
    }
}

/// A step of admission: every number above `from`, up to and with `upto`, had its turn, and was let in but
/// for those that had left or were passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// The highest number that had its turn before.
    pub from: u64,
    /// The highest number that has had its turn now.
    pub upto: u64,
    /// Of the numbers between, those whose owners were absent.
    pub passed: Runs,
    /// Of the numbers between, those whose owners had left.
    pub left: Runs,
    /// Numbers that had been passed over before and were let in now.
    pub returned: Runs,
}

impl Admitted {
    /// The step, which goes on from `from`.
    pub fn of(step: &Step, from: u64) -> Self {
        let Step { upto, passed, left, returned, .. } = step;
        Self {
            from,
            upto: *upto,
            passed: passed.into(),
            left: left.into(),
            returned: returned.into(),
        }
    }

    /// How many were let in.
    pub fn count(&self) -> u64 {
        let turned = self.upto.saturating_sub(self.from);
        let over = self.passed.count().saturating_add(self.left.count());
        turned.saturating_sub(over).saturating_add(self.returned.count())
    }
}

const VERSION: u8 = 1;
const STANDS: u8 = 0;
const ADMITTED: u8 = 1;
const CHANGED: u8 = 2;
const RESTORED: u8 = 3;
const SET_BACK: u8 = 4;
/// As `STANDS`, and with a draw.
const STANDS_WITH_DRAW: u8 = 5;
const DRAWN: u8 = 6;
const COMMITTED: u8 = 7;

impl Record {
    /// Returns its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(24));
        out.0.push(VERSION);
        let kind = match &self.entry {
            Entry::Stands(Standing { draw: None, .. }) => STANDS,
            Entry::Stands(_) => STANDS_WITH_DRAW,
            Entry::Admitted(_) => ADMITTED,
            Entry::Changed(_) => CHANGED,
            Entry::Restored { .. } => RESTORED,
            Entry::SetBack => SET_BACK,
            Entry::Drawn(_) => DRAWN,
            Entry::Committed(_) => COMMITTED,
        };
        out.0.push(kind);
        out.number(self.number);
        out.time(self.at);
        match &self.entry {
            Entry::Stands(Standing { serving, passed, terms, draw }) => {
                out.number(*serving);
                out.set(passed, 0);
                out.terms(terms);
                if let Some(Drawing { commitment, drawn }) = draw {
                    out.0.extend(commitment);
                    out.0.push(u8::from(drawn.is_some()));
                    drawn.iter().for_each(|drawn| out.drawn(drawn));
                }
            }
            Entry::Admitted(Admitted { from, upto, passed, left, returned }) => {
                out.number(*from);
                out.number(upto.saturating_sub(*from));
                out.set(passed, *from);
                out.set(left, *from);
                out.set(returned, 0);
            }
            Entry::Changed(terms) => out.terms(terms),
            Entry::Restored { epoch } => out.number(u64::from(*epoch)),
            Entry::SetBack => {}
            Entry::Drawn(drawn) => out.drawn(drawn),
            Entry::Committed(commitment) => out.0.extend(commitment),
        }
        out.0
    }

    /// What was written as bytes. `None` where they are no record, or not as a record is written.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        if from.byte()? != VERSION {
            return None;
        }
        let kind = from.byte()?;
        let (number, at) = (from.number()?, from.time()?);
        let entry = match kind {
            STANDS | STANDS_WITH_DRAW => {
                let (serving, passed) = (from.number()?, from.set(0)?);
                let terms = from.terms()?;
                let draw = if kind == STANDS { None } else { Some(from.drawing()?) };
                Entry::Stands(Standing { serving, passed, terms, draw })
            }
            ADMITTED => {
                let first = from.number()?;
                Entry::Admitted(Admitted {
                    from: first,
                    upto: first.checked_add(from.number()?)?,
                    passed: from.set(first)?,
                    left: from.set(first)?,
                    returned: from.set(0)?,
                })
            }
            CHANGED => Entry::Changed(from.terms()?),
            RESTORED => Entry::Restored { epoch: u32::try_from(from.number()?).ok()? },
            SET_BACK => Entry::SetBack,
            DRAWN => Entry::Drawn(from.drawn()?),
            COMMITTED => Entry::Committed(from.digest()?),
            _ => return None,
        };
        from.0.is_empty().then_some(Self { number, at, entry })
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn time(&mut self, at: Timestamp) {
        self.number(((at.0 << 1) ^ (at.0 >> 63)).cast_unsigned());
    }

    /// The numbers of a set are above `base`.
    fn set(&mut self, set: &Runs, base: u64) {
        self.number(set.iter().len() as u64);
        let mut next = base.saturating_add(1);
        for (first, last) in set.iter() {
            self.number(first.saturating_sub(next));
            self.number(last - first);
            next = last.saturating_add(2);
        }
    }

    fn drawn(&mut self, Drawn { count, seed }: &Drawn) {
        self.number(*count);
        self.0.extend(seed);
    }

    fn terms(&mut self, terms: &Terms) {
        let Terms { rate_milli, max_active, opens_at, paused } = terms;
        self.number(*rate_milli);
        self.0.push(u8::from(max_active.is_some()));
        if let Some(max) = max_active {
            self.number(*max);
        }
        self.0.push(u8::from(opens_at.is_some()));
        if let Some(at) = opens_at {
            self.time(*at);
        }
        self.0.push(u8::from(*paused));
    }
}

struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                // A last byte without a bit would be one byte too many.
                return (byte > 0 || shift == 0).then_some(value);
            }
        }
        None
    }

    fn time(&mut self) -> Option<Timestamp> {
        let folded = self.number()?;
        Some(Timestamp((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed()))
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn set(&mut self, base: u64) -> Option<Runs> {
        let count = self.number()?;
        let mut set = Runs::new();
        let mut next = base.checked_add(1);
        for _ in 0..count {
            let first = next?.checked_add(self.number()?)?;
            let last = first.checked_add(self.number()?)?;
            if !set.add(first, last) {
                return None;
            }
            next = last.checked_add(2);
        }
        Some(set)
    }

    fn digest(&mut self) -> Option<[u8; 32]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn drawn(&mut self) -> Option<Drawn> {
        Some(Drawn { count: self.number()?, seed: self.digest()? })
    }

    fn drawing(&mut self) -> Option<Drawing> {
        let commitment = self.digest()?;
        let drawn = if self.flag()? { Some(self.drawn()?) } else { None };
        Some(Drawing { commitment, drawn })
    }

    fn terms(&mut self) -> Option<Terms> {
        let rate_milli = self.number()?;
        let max_active = if self.flag()? { Some(self.number()?) } else { None };
        let opens_at = if self.flag()? { Some(self.time()?) } else { None };
        Some(Terms { rate_milli, max_active, opens_at, paused: self.flag()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(of: &[(u64, u64)]) -> Runs {
        let mut runs = Runs::new();
        assert!(of.iter().all(|(first, last)| runs.add(*first, *last)));
        runs
    }

    fn records() -> Vec<Record> {
        let terms = Terms {
            rate_milli: 12_500,
            max_active: Some(300),
            opens_at: Some(Timestamp(-1)),
            paused: true,
        };
        let standing = Standing {
            serving: u64::MAX,
            passed: runs(&[(1, 1), (3, 200), (1 << 40, u64::MAX)]),
            terms: terms.clone(),
            draw: None,
        };
        let drawn = Drawn { count: u64::MAX, seed: [7; 32] };
        let undrawn = Standing {
            draw: Some(Drawing { commitment: [3; 32], drawn: None }),
            ..standing.clone()
        };
        let after = Standing {
            draw: Some(Drawing { commitment: [3; 32], drawn: Some(drawn) }),
            ..standing.clone()
        };
        let admitted = Admitted {
            from: 1_000,
            upto: 1_020,
            passed: runs(&[(1_001, 1_001), (1_003, 1_010)]),
            left: runs(&[(1_020, 1_020)]),
            returned: runs(&[(1, 999)]),
        };
        [
            Entry::Stands(Standing::default()),
            Entry::Stands(standing),
            Entry::Admitted(Admitted { from: 5, upto: 5, ..Admitted::default() }),
            Entry::Admitted(admitted),
            Entry::Changed(terms),
            Entry::Restored { epoch: u32::MAX },
            Entry::SetBack,
            Entry::Stands(undrawn),
            Entry::Stands(after),
            Entry::Drawn(drawn),
            Entry::Drawn(Drawn { count: 0, seed: [0; 32] }),
            Entry::Committed([255; 32]),
        ]
        .into_iter()
        .zip([0, 1, -1, i64::MAX, i64::MIN, 1_800_000_000_000, 63].into_iter().cycle())
        .map(|(entry, at)| Record { number: at.unsigned_abs(), at: Timestamp(at), entry })
        .collect()
    }

    #[test]
    fn records_are_read_as_they_were_written_and_in_no_other_form() {
        for record in records() {
            let bytes = record.to_bytes();
            assert_eq!(Record::from_bytes(&bytes).as_ref(), Some(&record));
            for end in 0..bytes.len() {
                assert_eq!(Record::from_bytes(&bytes[..end]), None, "{end} bytes of {record:?}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(Record::from_bytes(&longer), None);
            // Whatever else can be read is another record, written as itself.
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut other = bytes.clone();
                    other[at] ^= 1 << bit;
                    if let Some(read) = Record::from_bytes(&other) {
                        assert_ne!(read, record);
                        assert_eq!(read.to_bytes(), other);
                    }
                }
            }
        }
    }

    /// The form is a promise to whoever has kept a head, or has a program of their own that checks it.
    #[test]
    fn the_form_of_a_record_does_not_change() {
        let admitted = Admitted {
            from: 300,
            upto: 310,
            passed: runs(&[(301, 301), (303, 304)]),
            left: runs(&[(310, 310)]),
            returned: runs(&[(7, 7)]),
        };
        assert_eq!(admitted.count(), 7);
        let record = Record { number: 5, at: Timestamp(1_000), entry: Entry::Admitted(admitted) };
        let bytes = [1, 1, 5, 0xd0, 0x0f, 0xac, 0x02, 10, 2, 0, 0, 0, 1, 1, 9, 0, 1, 6, 0];
        assert_eq!(record.to_bytes(), bytes);
        let terms = Terms { rate_milli: 500, max_active: Some(2), opens_at: None, paused: false };
        let standing = Standing { serving: 1, passed: runs(&[(1, 1)]), terms, draw: None };
        let record = Record { number: 0, at: Timestamp(0), entry: Entry::Stands(standing) };
        assert_eq!(record.to_bytes(), [1, 0, 0, 0, 1, 1, 0, 0, 0xf4, 0x03, 1, 2, 0, 0]);
        let drawn = Drawn { count: 300, seed: [9; 32] };
        let record = Record { number: 1, at: Timestamp(-1), entry: Entry::Drawn(drawn) };
        assert_eq!(record.to_bytes(), [&[1, 6, 1, 1, 0xac, 0x02][..], &[9; 32]].concat());
        let record = Record { number: 2, at: Timestamp(0), entry: Entry::Committed([8; 32]) };
        assert_eq!(record.to_bytes(), [&[1, 7, 2, 0][..], &[8; 32]].concat());
        for (drawn, rest) in
            [(None, vec![0]), (Some(drawn), [&[1, 0xac, 0x02][..], &[9; 32]].concat())]
        {
            let draw = Some(Drawing { commitment: [8; 32], drawn });
            let entry = Entry::Stands(Standing { draw, ..Standing::default() });
            let record = Record { number: 0, at: Timestamp(0), entry };
            let bytes = [&[1, 5, 0, 0, 0, 0, 0, 0, 0, 0][..], &[8; 32], &rest].concat();
            assert_eq!(record.to_bytes(), bytes);
        }
    }

    #[test]
    fn numbers_have_one_form() {
        for bytes in [
            &[0x80, 0][..],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert_eq!(Reader(bytes).number(), None, "{bytes:?}");
        }
        let mut out = Writer(Vec::new());
        out.number(u64::MAX);
        assert_eq!((out.0.len(), Reader(&out.0).number()), (10, Some(u64::MAX)));
    }
}
