//! One place for each person: which ticket somebody has in a queue is found by who they are.
//!
//! Nothing of it is in the store, so that no join costs a commit for it. It may be lost without harm: the
//! tickets that people show when they poll bring it back.

mod kept;
mod noted;

use boxoffice_domain::queue::{Place, Ticket};
use parking_lot::Mutex;

pub(super) use self::kept::Tickets;
use self::noted::Noted;

/// Tickets that were shown and wait for the next tick. Past this they wait for their owners' next polls.
const SHOWN_MAX: usize = 50_000;

/// A ticket that is to be kept, because its owner has shown one.
#[derive(Clone, Debug)]
pub(super) struct Keeping {
    /// What was shown.
    pub(super) shown: Ticket,
    /// What is kept from now on: this one, or the one that was kept already.
    pub(super) keeps: Ticket,
    /// The number of the one whose place it takes; 0 for none.
    pub(super) replaces: u64,
    /// Whether it was chosen over another one. What one instance has chosen, no other undoes: two that
    /// know of different steps would otherwise give up both.
    pub(super) is_chosen: bool,
    /// Whether it takes the place of one that was chosen, because that is nobody's any more.
    pub(super) is_forced: bool,
    /// What is given up once it is kept.
    pub(super) gives_up: Option<Ticket>,
    /// Whether that was found here; where another instance has chosen, it gives the other one up as well.
    pub(super) is_found_here: bool,
}

impl Keeping {
    /// A ticket as it was shown.
    pub(super) fn of(shown: Ticket) -> Self {
        Self {
            keeps: shown.clone(),
            shown,
            replaces: 0,
            is_chosen: false,
            is_forced: false,
            gives_up: None,
            is_found_here: true,
        }
    }

    /// What is to be kept where another one is, and both stand so, with their ranks.
    pub(super) fn against(
        shown: Ticket,
        here: (Place, u64),
        other: Other,
        there: (Place, u64),
    ) -> Self {
        let replaces = other.ticket.seq;
        // The answer to a join that took too long, and whose number came from elsewhere then: nobody was
        // told of it.
        let is_ghost = other.ticket.id == shown.id && !other.was_shown;
        if is_ghost || matches!(there.0, Place::Over(_)) {
            return Self { replaces, is_forced: true, ..Self::of(shown) };
        }
        if !other.is_chosen && is_preferred(here, there) {
            let gives_up = Some(other.ticket);
            return Self { replaces, is_chosen: true, gives_up, ..Self::of(shown) };
        }
        Self {
            gives_up: Some(shown.clone()),
            shown,
            keeps: other.ticket,
            replaces,
            is_chosen: true,
            is_forced: false,
            is_found_here: !other.is_chosen,
        }
    }
}

/// Another ticket that the owner of a shown one has.
#[derive(Clone, Debug)]
pub(super) struct Other {
    pub(super) ticket: Ticket,
    /// Whether somebody has shown it.
    pub(super) was_shown: bool,
    /// See [`Keeping`].
    pub(super) is_chosen: bool,
}

/// What has become of a ticket that was to be kept.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Done,
    /// Another one is there.
    Another(Other),
    /// Nobody knows; it is asked again with the next poll.
    Unknown,
}

/// Whether a ticket is to be kept rather than another one of the same person: the one that opens doors,
/// for longer, or else the one that is further ahead. One that is over is nobody's place.
fn is_preferred(this: (Place, u64), other: (Place, u64)) -> bool {
    let order = |(place, rank): (Place, u64)| match place {
        Place::Active { until, .. } => (0, -until.0, rank),
        Place::Waiting { .. } | Place::Undrawn => (1, 0, rank),
        Place::Over(_) => (2, 0, rank),
    };
    order(this) < order(other)
}

/// The tickets that people have shown, and that are not yet kept where joins look for them.
#[derive(Default)]
pub(super) struct Shown {
    noted: Noted,
    /// Of what keeps them: another one has none of what was noted.
    generation: Mutex<String>,
    waiting: Mutex<Vec<Ticket>>,
}

impl Shown {
    /// Somebody has shown this ticket, which is not over. Most have before.
    pub(super) fn show(&self, ticket: &Ticket) {
        if self.noted.has(ticket.seq) {
            return;
        }
        let mut waiting = self.waiting.lock();
        if waiting.len() < SHOWN_MAX {
            waiting.push(ticket.clone());
        }
    }

    /// At most `count` of those that wait.
    pub(super) fn take(&self, count: usize) -> Vec<Ticket> {
        let mut waiting = self.waiting.lock();
        let count = count.min(waiting.len());
        let rest = waiting.split_off(count);
        let mut taken = std::mem::replace(&mut *waiting, rest);
        drop(waiting);
        // A client that polls often between two ticks.
        taken.sort_unstable_by_key(|ticket| ticket.seq);
        taken.dedup_by_key(|ticket| ticket.seq);
        taken.retain(|ticket| !self.noted.has(ticket.seq));
        taken
    }

    /// These numbers are kept where joins look for them, by what has this generation.
    pub(super) fn note(&self, seqs: impl IntoIterator<Item = u64>, generation: &str) {
        let known = self.generation.lock();
        if *known == generation {
            seqs.into_iter().for_each(|seq| self.noted.set(seq));
        }
    }

    /// They are kept by what has this generation. Where that is new, whoever polls is to be noted anew.
    pub(super) fn keep_in(&self, generation: &str) {
        let mut known = self.generation.lock();
        if *known != generation {
            generation.clone_into(&mut known);
            self.noted.clear();
        }
    }

    /// Whoever polls is to be noted anew.
    pub(super) fn forget(&self) {
        self.noted.clear();
    }
}

#[cfg(test)]
mod tests {
    use boxoffice_domain::ids::{QueueName, TicketId, UserId};
    use boxoffice_domain::time::Timestamp;

    use super::*;

    fn ticket(seq: u64) -> Ticket {
        match (QueueName::new("main"), UserId::new(seq as i64)) {
            (Some(queue), Some(user)) => {
                Ticket { queue, seq, user, issued_at: Timestamp(0), id: TicketId([0; 16]) }
            }
            _ => panic!("ticket {seq}"),
        }
    }

    #[test]
    fn what_is_shown_waits_until_it_is_noted() {
        let shown = Shown::default();
        let seqs = |shown: &Shown, count| -> Vec<u64> {
            shown.take(count).iter().map(|ticket| ticket.seq).collect()
        };
        [3, 1, 3, 2].iter().for_each(|seq| shown.show(&ticket(*seq)));
        assert_eq!(seqs(&shown, 3), [1, 3]);
        shown.note([1, 3], "");
        [1, 3].iter().for_each(|seq| shown.show(&ticket(*seq)));
        assert_eq!(seqs(&shown, 9), [2]);
        assert!(seqs(&shown, 9).is_empty());
        // What another generation keeps, this one does not.
        shown.keep_in("b");
        shown.note([2], "a");
        (1..=3).for_each(|seq| shown.show(&ticket(seq)));
        assert_eq!(seqs(&shown, 9), [1, 2, 3]);
        shown.note([2], "b");
        shown.keep_in("b");
        (1..=3).for_each(|seq| shown.show(&ticket(seq)));
        assert_eq!(seqs(&shown, 9), [1, 3]);
        (0..2 * SHOWN_MAX as u64).for_each(|seq| shown.show(&ticket(seq + 10)));
        assert_eq!(shown.take(usize::MAX).len(), SHOWN_MAX);
    }

    #[test]
    fn the_ticket_that_opens_doors_for_longer_is_preferred_and_then_the_lower_number() {
        use boxoffice_domain::queue::Ending;
        let active = |until| Place::Active { until: Timestamp(until), claimed: true };
        let waiting = Place::Waiting { number: 1 };
        let over = Place::Over(Ending::TimedOut);
        let order = [
            (active(20), 9),
            (active(9), 7),
            (active(9), 8),
            (waiting, 1),
            (waiting, 2),
            (over, 0),
        ];
        for (index, this) in order.iter().enumerate() {
            for (other_index, other) in order.iter().enumerate() {
                assert_eq!(is_preferred(*this, *other), index < other_index, "{this:?} {other:?}");
            }
        }
    }
}
