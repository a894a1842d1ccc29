//! What instances tell each other: a line of the log in Redis. Whoever does not understand a line,
//! as one of a newer version, reads the store instead.

use std::fmt::Write as _;
use std::time::Duration;

use boxoffice_domain::ids::{QueueName, TicketId};
use boxoffice_domain::queue::{Bucket, Felt, Governor, GovernorParts, Reason, Step};
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use roaring::RoaringTreemap;

use crate::store::{Advance, SpentBy};

/// One piece of news. All of it is in the store already, or soon, and hearing it twice does no harm.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum News {
    /// A step of admission is durable.
    Admitted(Advance),
    /// These were seen for the first time since their admission.
    Claimed(QueueName, Vec<u64>),
    /// So were these, after the claim window.
    ClaimedLate(QueueName, Vec<u64>),
    /// These were passed over, and are there again.
    Returned(QueueName, Vec<u64>),
    /// These gave up.
    Left(QueueName, Vec<u64>),
    /// These have paid.
    Finished(QueueName, Vec<u64>),
    /// A ticket past the line is spent.
    Spent(TicketId, SpentBy),
    /// Opaque tokens were issued.
    Issued,
    /// What purchases felt like at the instance of this number since it last told.
    Felt(u64, Felt),
    /// What was decided for all of that, and when.
    Governed(Timestamp, GovernorParts),
    /// A queue was made or has new settings, or more has happened than can be told.
    Reload,
}

impl News {
    pub(super) fn line(&self) -> String {
        let list = |kind: char, queue: &QueueName, seqs: &[u64]| {
            let seqs: Vec<String> = seqs.iter().map(u64::to_string).collect();
            format!("{kind} {queue} {}", seqs.join(","))
        };
        match self {
            Self::Admitted(Advance { queue, steps, serving, step, bucket }) => {
                let (credit, filled_at) = bucket.state();
                let filled_at = filled_at.unwrap_or_default().0;
                // Who has left is told by other news, and the log has it already.
                let Step { upto, at, passed, left: _, returned } = step;
                let (passed, returned) = (ranges(passed), ranges(returned));
                format!(
                    "a {queue} {steps} {serving} {upto} {} {credit} {filled_at} {passed} {returned}",
                    at.0
                )
            }
            Self::Claimed(queue, seqs) => list('c', queue, seqs),
            Self::ClaimedLate(queue, seqs) => list('d', queue, seqs),
            Self::Returned(queue, seqs) => list('p', queue, seqs),
            Self::Left(queue, seqs) => list('l', queue, seqs),
            Self::Finished(queue, seqs) => list('f', queue, seqs),
            Self::Spent(id, by) => {
                // Instances of a version that does not tell the two apart read no further than the id.
                let by = match by {
                    SpentBy::Payment => "",
                    SpentBy::Leaving => " l",
                };
                format!("b {:032x}{by}", u128::from_be_bytes(id.0))
            }
            Self::Issued => "t".into(),
            Self::Felt(id, felt) => {
                let Felt { over, asked, served, refused, waited, waiting, admitted, age, aged } =
                    felt;
                let [over, waited, age] = [over, waited, age].map(Duration::as_micros);
                format!(
                    "o {id} {over} {asked} {served} {refused} {waited} {waiting} {admitted} {age} {aged}"
                )
            }
            Self::Governed(at, (reason, numbers)) => {
                let mut line = format!("g {} {}", at.0, reason.name());
                numbers.iter().for_each(|number| {
                    // Writing to a text cannot fail.
                    let _ = write!(line, " {number}");
                });
                line
            }
            Self::Reload => "r".into(),
        }
    }

    pub(super) fn read(line: &str) -> Self {
        Self::parse(line).unwrap_or(Self::Reload)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        match kind {
            "b" => {
                let id = u128::from_str_radix(words.next()?, 16).ok()?;
                let by = SpentBy::of(words.next() != Some("l"));
                return Some(Self::Spent(TicketId(id.to_be_bytes()), by));
            }
            "t" => return Some(Self::Issued),
            "o" => return felt(words),
            "g" => return governed(words),
            "a" | "c" | "d" | "p" | "l" | "f" => {}
            _ => return None,
        }
        let queue = QueueName::new(words.next()?)?;
        if kind == "a" {
            let mut number = || words.next()?.parse::<i64>().ok();
            let mut count = || u64::try_from(number()?).ok();
            let (steps, serving, upto) = (count()?, count()?, count()?);
            let at = Timestamp(number()?);
            let credit = u64::try_from(number()?).ok()?;
            let bucket = Bucket::restore(credit, Some(Timestamp(number()?)));
            let (passed, returned) = (numbers(words.next()?)?, numbers(words.next()?)?);
            let left = RoaringTreemap::new();
            let step = Step { upto, at, passed, left, returned };
            return Some(Self::Admitted(Advance { queue, steps, serving, step, bucket }));
        }
        let seqs = words.next()?.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
        match kind {
            "c" => Some(Self::Claimed(queue, seqs)),
            "d" => Some(Self::ClaimedLate(queue, seqs)),
            "p" => Some(Self::Returned(queue, seqs)),
            "l" => Some(Self::Left(queue, seqs)),
            _ => Some(Self::Finished(queue, seqs)),
        }
    }
}

fn felt<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<News> {
    let mut number = || words.next()?.parse::<u64>().ok();
    let id = number()?;
    let over = Duration::from_micros(number()?);
    let (asked, served, refused) = (number()?, number()?, number()?);
    let waited = Duration::from_micros(number()?);
    let (waiting, admitted) = (number()?, number()?);
    let age = Duration::from_micros(number()?);
    let aged = number()?;
    let felt = Felt { over, asked, served, refused, waited, waiting, admitted, age, aged };
    Some(News::Felt(id, felt))
}

fn governed<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<News> {
    let at = Timestamp(words.next()?.parse().ok()?);
    let name = words.next()?;
    let reason = Reason::ALL.into_iter().find(|reason| reason.name() == name)?;
    let numbers = words.map(str::parse).collect::<Result<Vec<f64>, _>>().ok()?;
    let parts = (reason, numbers.try_into().ok()?);
    // Whatever cannot be one is not passed on.
    Governor::restore(parts)?;
    Some(News::Governed(at, parts))
}

/// A set of numbers as text: `1-4,7`, or `-` for none.
fn ranges(seqs: &RoaringTreemap) -> String {
    let mut text = String::new();
    let mut left = seqs.iter().peekable();
    while let Some(first) = left.next() {
        let mut last = first;
        while let Some(next) = left.next_if(|next| *next == last + 1) {
            last = next;
        }
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a text cannot fail.
        let _ = match last - first {
            0 => write!(text, "{comma}{first}"),
            _ => write!(text, "{comma}{first}-{last}"),
        };
    }
    if text.is_empty() { "-".into() } else { text }
}

/// The set of numbers that a text names.
fn numbers(text: &str) -> Option<RoaringTreemap> {
    let mut seqs = RoaringTreemap::new();
    if text == "-" {
        return Some(seqs);
    }
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        seqs.insert_range(first..=last);
    }
    Some(seqs)
}

/// The most news that wait for Redis. Past this the others are told to read the store.
const NEWS_MAX: usize = 10_000;

/// News that the others have not been told.
#[derive(Default)]
pub(super) struct Untold(Mutex<Vec<News>>);

impl Untold {
    pub(super) fn add(&self, news: News) {
        let mut waiting = self.0.lock();
        if waiting.len() >= NEWS_MAX {
            waiting.clear();
            waiting.push(News::Issued);
            waiting.push(News::Reload);
        }
        waiting.push(news);
    }

    /// Everything, to be told now.
    pub(super) fn drain(&self) -> Vec<News> {
        std::mem::take(&mut *self.0.lock())
    }

    /// These could not be told, and come before all that was added since.
    pub(super) fn put_back(&self, news: Vec<News>) {
        let since = std::mem::replace(&mut *self.0.lock(), news);
        since.into_iter().for_each(|news| self.add(news));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_heard_as_they_were_told() {
        let Some(queue) = QueueName::new("a-1_b") else { panic!("a name") };
        let bucket = Bucket::restore(1_500_000, Some(Timestamp(1_800_000_000_000)));
        let at = Timestamp(1_800_000_000_001);
        let step = |passed: &[u64], returned: &[u64]| Step {
            upto: 12,
            at,
            passed: passed.iter().copied().collect(),
            left: RoaringTreemap::new(),
            returned: returned.iter().copied().collect(),
        };
        let advance = |step| Advance {
            queue: queue.clone(),
            steps: 7,
            serving: 10,
            step,
            bucket: bucket.clone(),
        };
        for news in [
            News::Admitted(advance(step(&[], &[]))),
            News::Admitted(advance(step(&[11], &[1, 2, 3, 7, 1 << 40]))),
            News::Returned(queue.clone(), vec![3, 5]),
            News::Claimed(queue.clone(), vec![1]),
            News::ClaimedLate(queue.clone(), vec![1, 9]),
            News::Left(queue.clone(), vec![1, u64::MAX]),
            News::Finished(queue, vec![7, 8, 9]),
            News::Spent(TicketId([0; 16]), SpentBy::Payment),
            News::Spent(TicketId([0xab; 16]), SpentBy::Leaving),
            News::Issued,
            News::Felt(
                u64::MAX,
                Felt {
                    over: Duration::from_millis(1_001),
                    asked: 7,
                    served: 5,
                    refused: 1,
                    waited: Duration::from_micros(12_345),
                    waiting: 1,
                    admitted: 3,
                    age: Duration::from_millis(9_000),
                    aged: 6,
                },
            ),
            News::Governed(at, Governor::default().parts()),
            News::Reload,
        ] {
            assert_eq!(News::read(&news.line()), news);
        }
        for unknown in [
            "",
            "x",
            "a main 1",
            "a main 1 2 3 4 5 6 1-x -",
            "c main",
            "c main 1,x",
            "b zz",
            "l ! 1",
            "o 1 2 3",
            "o 1 2 3 4 5 6 7 8 9 -1",
            "g 1 full 1 1 -1",
            "g 1 full 0 1 -1 0.005 0 0 0 0 0 0 0 0 0",
            "g 1 full NaN 1 -1 0.005 0 0 0 0 0 0 0 0 0",
            "g 1 empty 1 1 -1 0.005 0 0 0 0 0 0 0 0 0",
        ] {
            assert_eq!(News::read(unknown), News::Reload, "{unknown}");
        }
    }

    #[test]
    fn news_wait_in_order_and_not_without_end() {
        let left = |seq: usize| match QueueName::new("main") {
            Some(queue) => News::Left(queue, vec![seq as u64]),
            None => panic!("a name"),
        };
        let untold = Untold::default();
        untold.add(left(1));
        let telling = untold.drain();
        untold.add(left(2));
        untold.put_back(telling);
        assert_eq!(untold.drain(), [left(1), left(2)]);
        // What is too much to tell is read from the store: tokens and queues.
        (0..=NEWS_MAX).for_each(|seq| untold.add(left(seq)));
        assert_eq!(untold.drain(), [News::Issued, News::Reload, left(NEWS_MAX)]);
        assert_eq!(untold.drain(), []);
    }
}
