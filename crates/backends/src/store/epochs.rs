//! Epochs: what a restore of a backup begins, so that tickets that were given after the backup are told
//! apart from those that are given after the restore. Both may have the same numbers.

use std::collections::BTreeMap;

use boxoffice_domain::ids::QueueName;

/// The setting that has them.
pub(super) const EPOCHS: &str = "ticket.epochs";
/// The setting of a backup that says in which epoch it was made. As long as that is the current one, it was
/// copied and not restored.
pub(super) const BACKUP_OF: &str = "backup.epoch";

/// The epochs of a store, since its last restores. The first one of a store has the id 0.
///
/// Ids are random, not counted: two restores of one backup begin two epochs that know nothing of each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs(Vec<Epoch>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Epoch {
    id: u32,
    /// The last number of each queue that was, or may have been, given before it began.
    given: BTreeMap<QueueName, u64>,
}

impl Epochs {
    /// The id of the current one.
    pub fn current(&self) -> u32 {
        self.0.last().map_or(0, |epoch| epoch.id)
    }

    /// Whether a ticket of this epoch and number belongs to the store: it is of the current epoch, or it was
    /// given before every epoch that has begun since then, by what the store knows of that time.
    pub fn have(&self, epoch: u32, queue: &QueueName, seq: u64) -> bool {
        if epoch == self.current() {
            return true;
        }
        let since = match epoch {
            0 => Some(0),
            _ => self.0.iter().position(|known| known.id == epoch).map(|at| at + 1),
        };
        let given_before = |later: &Epoch| later.given.get(queue).is_some_and(|last| seq <= *last);
        since.is_some_and(|since| self.0[since..].iter().all(given_before))
    }

    /// The same with one more, which begins now. `None` where the id is taken.
    pub fn with(&self, id: u32, given: impl IntoIterator<Item = (QueueName, u64)>) -> Option<Self> {
        if id == 0 || self.0.iter().any(|epoch| epoch.id == id) {
            return None;
        }
        let mut epochs = self.clone();
        epochs.0.push(Epoch { id, given: given.into_iter().collect() });
        Some(epochs)
    }

    /// As text for the store: an epoch in a line, its id and `queue=number` for each queue.
    pub fn to_text(&self) -> String {
        let line = |epoch: &Epoch| {
            let queues = epoch.given.iter().map(|(queue, last)| format!(" {queue}={last}"));
            format!("{}{}\n", epoch.id, queues.collect::<String>())
        };
        self.0.iter().map(line).collect()
    }

    /// What was stored as text. `None` where it makes no sense.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut epochs = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let id = words.next()?.parse().ok()?;
            let given = words.map(|word| {
                let (queue, last) = word.split_once('=')?;
                Some((QueueName::new(queue)?, last.parse().ok()?))
            });
            epochs = epochs.with(id, given.collect::<Option<Vec<_>>>()?)?;
        }
        Some(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> QueueName {
        QueueName::new(text).unwrap_or_else(|| panic!("a name"))
    }

    fn with(epochs: &Epochs, id: u32, main: u64) -> Epochs {
        epochs.with(id, [(name("main"), main)]).unwrap_or_else(|| panic!("{id} is taken"))
    }

    #[test]
    fn tickets_from_before_a_backup_stay_and_later_ones_do_not() {
        let first = Epochs::default();
        assert!(first.have(0, &name("main"), u64::MAX) && !first.have(7, &name("main"), 1));
        let second = with(&first, 7, 100);
        assert_eq!(second.current(), 7);
        for (epoch, seq, belongs) in
            [(0, 100, true), (0, 101, false), (7, 1, true), (7, u64::MAX, true), (8, 1, false)]
        {
            assert_eq!(second.have(epoch, &name("main"), seq), belongs, "{epoch} {seq}");
        }
        // A queue that was not there when it was restored gave no number before.
        assert!(!second.have(0, &name("vip"), 1));
        // A backup of the second epoch: what counts of the first is what both knew.
        let third = with(&second, 9, 150);
        for (epoch, seq, belongs) in
            [(0, 100, true), (0, 101, false), (7, 150, true), (7, 151, false), (9, 151, true)]
        {
            assert_eq!(third.have(epoch, &name("main"), seq), belongs, "{epoch} {seq}");
        }
        // The first backup once more: the second epoch has never been.
        let again = with(&first, 11, 100);
        assert!(!again.have(7, &name("main"), 1) && !again.have(9, &name("main"), 1));
        assert!(again.have(0, &name("main"), 100));
    }

    #[test]
    fn epochs_are_read_as_they_were_written() {
        let epochs = with(&with(&Epochs::default(), 7, 100), u32::MAX, u64::MAX);
        assert_eq!(epochs.to_text(), format!("7 main=100\n{} main={}\n", u32::MAX, u64::MAX));
        let epochs = epochs.with(1, []).unwrap_or_default();
        assert_eq!(Epochs::from_text(&epochs.to_text()), Some(epochs.clone()));
        assert_eq!(Epochs::from_text(""), Some(Epochs::default()));
        for text in ["x", "0 main=1", "7 main", "7 main=x", "7 a b", "7\n7", "7 Main=1"] {
            assert_eq!(Epochs::from_text(text), None, "{text}");
        }
        for taken in [0, 7] {
            assert_eq!(epochs.with(taken, []), None);
        }
    }
}
