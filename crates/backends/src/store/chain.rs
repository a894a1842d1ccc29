//! The admission log as a chain: each record with the digest of the one before. What is in a record is the
//! domain's business (`queue::Record`); here it becomes rows.

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::invariant::Finding;
use boxoffice_domain::queue::{Admitted, Drawing, Entry, Record, Replay, Runs, Standing, Step};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;
use sha2::{Digest as _, Sha256};

use super::columns::Corrupt;
use super::digest::Digest;
use super::draws;

/// Before the first record stands the digest of this and the name of the queue, so that no log passes for
/// another queue's.
const GENESIS: &[u8] = b"boxoffice admission log 1\n";

// What a chain of records has come to: the SHA-256 of the digest before it and the bytes of the last record.
impl Digest {
    /// The digest before the first record of a queue.
    pub fn genesis(queue: &QueueName) -> Self {
        let mut hash = Sha256::new();
        hash.update(GENESIS);
        hash.update(queue.as_str());
        Self(hash.finalize().into())
    }

    /// The digest of a record that follows this one.
    #[must_use]
    pub fn then(&self, record: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(record);
        Self(hash.finalize().into())
    }
}

/// The last record of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Its digest.
    pub digest: Digest,
}

/// A record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub number: u64,
    /// Its bytes; see [`Record::to_bytes`].
    pub bytes: Vec<u8>,
    /// Its digest.
    pub digest: Digest,
}

/// A part of the admission log of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// The digest before the first of these records.
    pub previous: Digest,
    /// Records in order. None behind the last one.
    pub links: Vec<Link>,
    /// The last record of all, at the same moment.
    pub head: Head,
}

impl LogPart {
    /// What was read behind the number `after`, with the record of that number where there is one. What is
    /// older than the oldest that is kept was forgotten, and of the last one forgotten the digest is left.
    pub(super) fn of(
        queue: &QueueName,
        after: Option<u64>,
        mut links: Vec<Link>,
        head: Head,
    ) -> Self {
        let genesis = Digest::genesis(queue);
        let begins = links.first().is_some_and(|first| genesis.then(&first.bytes) == first.digest);
        let asked_behind = links.first().is_some_and(|first| Some(first.number) == after);
        if links.is_empty() {
            return Self { previous: head.digest, links, head };
        }
        if begins && !asked_behind {
            return Self { previous: genesis, links, head };
        }
        let previous = links.remove(0).digest;
        Self { previous, links, head }
    }
}

/// The record that follows a head, and the head that it becomes.
pub(super) fn following(before: Head, at: Timestamp, entry: Entry) -> (Link, Head) {
    let number = before.number + 1;
    let bytes = Record { number, at, entry }.to_bytes();
    let digest = before.digest.then(&bytes);
    (Link { number, bytes, digest }, Head { number, digest })
}

/// The first record of a log, with this number.
pub(super) fn first(queue: &QueueName, number: u64, at: Timestamp, entry: Entry) -> Link {
    let bytes = Record { number, at, entry }.to_bytes();
    Link { number, digest: Digest::genesis(queue).then(&bytes), bytes }
}

/// The digest of a column.
pub(super) fn digest_of(bytes: &[u8]) -> Result<Digest, Corrupt> {
    let bytes = bytes.try_into().map_err(|_| Corrupt("length of a digest of the log".into()))?;
    Ok(Digest(bytes))
}

/// The step as it goes on from `serving`. Whoever planned it may have known of less: where nobody knew
/// whether the step before was stored, another one is planned from the same place, and what was stored
/// stands.
pub(super) fn upon(step: &Step, serving: u64) -> Step {
    let mut step = step.clone();
    for set in [&mut step.passed, &mut step.left] {
        set.remove_range(..=serving);
    }
    step
}

/// The record of a step, of which these were let in again; `None` where nothing has happened, because all of
/// it was stored before.
pub(super) fn admitted(step: Step, serving: u64, returned: RoaringTreemap) -> Option<Entry> {
    let step = Step { returned, ..step };
    let is_new = step.upto > serving || !step.returned.is_empty();
    is_new.then(|| Entry::Admitted(Admitted::of(&step, serving)))
}

/// Records that an audit looks at in one go.
pub(super) const AUDIT_PART: u32 = 5_000;

/// The check of a log, record by record (I10).
pub(super) struct Check {
    queue: QueueName,
    previous: Digest,
    replay: Replay,
}

impl Check {
    /// Begins behind this digest.
    pub(super) fn new(queue: QueueName, previous: Digest) -> Self {
        Self { queue, previous, replay: Replay::default() }
    }

    pub(super) fn follow(&mut self, link: &Link, finding: &mut Finding) {
        let (queue, number) = (&self.queue, link.number);
        finding.add_checked(1);
        let digest = self.previous.then(&link.bytes);
        if digest != link.digest {
            finding.violated(format!("record {number} of queue {queue} has another digest"));
        }
        // What comes behind is held against what is stored, so that one change is told once.
        self.previous = link.digest;
        let Some(record) = Record::from_bytes(&link.bytes).filter(|read| read.number == number)
        else {
            finding.violated(format!("record {number} of queue {queue} makes no sense"));
            return;
        };
        if let Entry::Stands(Standing { draw: Some(drawing), .. }) = &record.entry {
            self.check_seed(drawing, number, finding);
        }
        for broken in self.replay.follow(&record).into_iter().filter(|it| it.is_of_order()) {
            finding.violated(format!("record {number} of queue {queue}: {broken}"));
        }
        if let (Entry::Drawn(_), Some(drawing)) = (&record.entry, self.replay.draw().cloned()) {
            self.check_seed(&drawing, number, finding);
        }
    }

    fn check_seed(&self, drawing: &Drawing, number: u64, finding: &mut Finding) {
        let queue = &self.queue;
        finding.expect(draws::is_as_committed(drawing, queue), || {
            format!("record {number} of queue {queue} draws with another seed than it committed to")
        });
    }

    /// Compares the end of the log with the line as it is stored.
    pub(super) fn end(
        self,
        head: Head,
        serving: u64,
        passed: &RoaringTreemap,
        finding: &mut Finding,
    ) {
        let Self { queue, previous, replay } = self;
        let number = replay.number();
        finding.expect(number == Some(head.number) && previous == head.digest, || {
            format!("the log of queue {queue} ends with {number:?}, and not with {}", head.number)
        });
        finding.expect(replay.serving() == serving, || {
            format!("queue {queue} serves {serving}, its log {}", replay.serving())
        });
        finding.expect(*replay.passed() == Runs::from(passed), || {
            format!("queue {queue} has passed over others than its log says")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        QueueName::new(name).unwrap_or_else(|| panic!("a name"))
    }

    #[test]
    fn a_digest_is_of_its_queue_and_of_all_before_it() {
        let (main, other) = (Digest::genesis(&queue("main")), Digest::genesis(&queue("other")));
        assert_ne!(main, other);
        assert_eq!(
            main.to_string(),
            // printf 'boxoffice admission log 1\nmain' | sha256sum
            "d0d04a03400e051af660dd039bcf2ade9fd61f7dc61b5d421a147165f304e786"
        );
        assert_ne!(main.then(b"a"), other.then(b"a"));
        assert_ne!(main.then(b"a").then(b"b"), main.then(b"b").then(b"a"));
        assert_eq!(Digest::from_hex(&main.to_string()), Some(main));
        for text in ["", "0", &"0".repeat(63), &"0".repeat(66), &"G".repeat(64), &"é".repeat(32)] {
            assert_eq!(Digest::from_hex(text), None, "{text}");
        }
    }

    #[test]
    fn a_step_that_is_planned_once_more_goes_on_from_what_is_stored() {
        let step = Step {
            upto: 9,
            at: Timestamp(5),
            passed: [5, 7].into_iter().collect(),
            left: [6, 8].into_iter().collect(),
            returned: [1, 2].into_iter().collect(),
        };
        let set = |seqs: &[u64]| Runs::from(&seqs.iter().copied().collect());
        let found = admitted(upon(&step, 6), 6, RoaringTreemap::from_iter([2]));
        let expected =
            Admitted { from: 6, upto: 9, passed: set(&[7]), left: set(&[8]), returned: set(&[2]) };
        assert_eq!(found, Some(Entry::Admitted(expected)));
        let all = admitted(upon(&step, 4), 4, step.returned.clone());
        assert_eq!(all, Some(Entry::Admitted(Admitted::of(&step, 4))));
        assert_eq!(admitted(upon(&step, 9), 9, RoaringTreemap::new()), None);
    }
}
