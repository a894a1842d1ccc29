//! One place for each person, in the memory of one process.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use boxoffice_backends::sequencer::{
    Joined, LocalSequencer, Name, Newcomer, PresentedTicket, Sequencer,
};
use boxoffice_backends::store::Store;
use boxoffice_domain::ids::TicketId;
use boxoffice_domain::invariant::Invariant;
use boxoffice_domain::queue::{Ending, Place, Ticket};

use crate::common::{crashed, fresh, open};
use crate::conformance::{at, at_once, user};
use crate::line::{Line, TTL_MS, fast, slow};

async fn sequencer(store: &Store) -> Sequencer {
    Sequencer::Local(LocalSequencer::open(store.clone(), &slow(), true).await.unwrap())
}

/// Somebody who joins; `attempt` makes the id of a new ticket.
pub(crate) fn newcomer(person: i64, attempt: u64, now: i64) -> Newcomer {
    let id = (u128::from(attempt) << 64) | person as u128;
    Newcomer {
        user: user(person),
        name: Name::Person(user(person)),
        issued_at: at(now),
        id: TicketId(id.to_be_bytes()),
    }
}

impl Line {
    async fn join_once(&self, person: i64, attempt: u64) -> Joined {
        let newcomer = newcomer(person, attempt, self.now);
        self.sequencer.join_once(&self.queue, newcomer, at(self.now)).await.unwrap()
    }

    /// A poll, as the service answers it.
    fn poll(&self, ticket: &Ticket) -> Place {
        let pass = PresentedTicket::from(ticket.clone());
        let place = self.sequencer.place(&self.queue, &pass, at(self.now));
        if !matches!(place, Place::Over(_)) {
            self.sequencer.show(&self.queue, ticket);
        }
        place
    }

    fn counted(&self) -> (u64, u64) {
        let counters = self.queue.counters();
        (counters.rejoined.load(Ordering::Relaxed), counters.seconds.load(Ordering::Relaxed))
    }

    fn assert_one_each(&self, people: u64) {
        let findings = self.sequencer.audit(at(self.now));
        let found = findings.iter().find(|found| found.invariant == Invariant::OnePlaceEach);
        let found = found.unwrap();
        assert_eq!((found.checked, found.violations), (people, 0), "{found:?}");
        assert_eq!(self.queue.people(), Some(people));
    }
}

#[tokio::test]
async fn a_person_has_one_ticket_until_it_is_over() {
    let (store, _guard) = fresh().await;
    let mut line = Line::on((store.clone(), sequencer(&store).await), fast(None)).await;
    let first = line.join_once(1, 1).await;
    assert!(first.is_new && first.ticket.seq == 1);
    let other = line.join_once(2, 2).await;
    assert_eq!(other.ticket.seq, 2);
    let again = line.join_once(1, 3).await;
    assert_eq!(again, Joined { is_new: false, ..first.clone() });
    line.ticks(2).await;
    assert!(matches!(line.poll(&first.ticket), Place::Active { .. }));
    assert_eq!(line.join_once(1, 4).await.ticket, first.ticket);
    // Given up.
    let pass = PresentedTicket::from(first.ticket.clone());
    line.sequencer.leave(&line.queue, &pass, at(line.now)).await.unwrap();
    let second = line.join_once(1, 5).await;
    assert_eq!((second.is_new, second.ticket.seq), (true, 3));
    assert_eq!(line.join_once(1, 6).await.ticket.id, second.ticket.id);
    // Paid.
    line.tick(100).await;
    line.sequencer.finish(&line.queue, &second.ticket.clone().into());
    assert_eq!(line.join_once(1, 7).await.ticket.seq, 4);
    assert_eq!(line.counted(), (3, 0));
    // Out of time.
    line.tick(100).await;
    line.assert_one_each(2);
    line.tick(TTL_MS + 100).await;
    assert_eq!(line.join_once(1, 8).await.ticket.seq, 5);
    line.ticks(4).await;
    line.assert_one_each(1);
    line.close().await;
}

/// However many ask at the same moment, in whichever task.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_many_times_at_once_gets_one_number() {
    let (store, _guard) = fresh().await;
    let line = Line::on((store.clone(), sequencer(&store).await), slow()).await;
    const PEOPLE: i64 = 50;
    const EACH: i64 = 40;
    let joins = (0..PEOPLE * EACH).map(|join| {
        let (sequencer, queue) = (line.sequencer.clone(), line.queue.clone());
        let newcomer = newcomer(1 + join % PEOPLE, join as u64, 0);
        async move { sequencer.join_once(&queue, newcomer, at(0)).await.unwrap() }
    });
    let joined = at_once(joins).await;
    let tickets: BTreeSet<_> =
        joined.iter().map(|it| (it.ticket.user, it.ticket.seq, it.ticket.id.0)).collect();
    assert_eq!(tickets.len() as i64, PEOPLE);
    assert_eq!(joined.iter().filter(|joined| joined.is_new).count() as i64, PEOPLE);
    assert_eq!(line.queue.next() as i64, PEOPLE);
    line.assert_one_each(PEOPLE as u64);
    line.close().await;
}

/// After a crash nothing is known of anybody, until they poll.
#[tokio::test]
async fn the_tickets_that_are_shown_bring_back_whose_they_are() {
    let (store, guard) = fresh().await;
    let mut line = Line::on((store.clone(), sequencer(&store).await), slow()).await;
    let mut tickets = Vec::new();
    for person in 1..=6 {
        tickets.push(line.join_once(person, person as u64).await.ticket);
    }
    line.tick(100).await;
    let copy = crashed(guard.path());
    let store = open(copy.path());
    let sequencer = sequencer(&store).await;
    let queue = sequencer.queue("main").unwrap();
    let mut line = Line { sequencer, queue, store, now: line.now };
    // 1 polls and joins; 2 joins before polling, and shows both tickets; 3 shows the new one alone.
    line.poll(&tickets[0]);
    line.tick(100).await;
    assert_eq!(line.join_once(1, 11).await.ticket.id, tickets[0].id);
    let second = line.join_once(2, 12).await;
    let third = line.join_once(3, 13).await;
    assert!(second.is_new && third.is_new);
    line.poll(&second.ticket);
    line.poll(&tickets[1]);
    line.poll(&third.ticket);
    line.tick(100).await;
    assert!(matches!(line.poll(&tickets[1]), Place::Waiting { .. } | Place::Active { .. }));
    assert_eq!(line.poll(&second.ticket), Place::Over(Ending::Left));
    assert_eq!(line.join_once(2, 14).await.ticket.id, tickets[1].id);
    assert_eq!(line.join_once(3, 15).await.ticket.id, third.ticket.id);
    assert_eq!(line.counted().1, 1);
    // The one that was let in counts for more than one that is further ahead and waits: nobody is
    // thrown out of the shop. Here the older one is in.
    assert!(matches!(line.poll(&tickets[2]), Place::Active { .. } | Place::Waiting { .. }));
    line.tick(100).await;
    assert_eq!(line.poll(&third.ticket), Place::Over(Ending::Left));
    assert_eq!(line.join_once(3, 16).await.ticket.id, tickets[2].id);
    // Giving up a place is durable.
    line.tick(100).await;
    let now = line.now;
    let copy = crashed(copy.path());
    let store = open(copy.path());
    let sequencer = self::sequencer(&store).await;
    let queue = sequencer.queue("main").unwrap();
    let line = Line { sequencer, queue, store, now };
    assert_eq!(line.poll(&second.ticket), Place::Over(Ending::Left));
    assert_eq!(line.poll(&third.ticket), Place::Over(Ending::Left));
    line.close().await;
}

/// Where people are not known, a join is found again by its idempotency key, whatever became of it.
#[tokio::test]
async fn a_join_is_found_by_its_key() {
    let (store, _guard) = fresh().await;
    let local = LocalSequencer::open(store.clone(), &slow(), false).await.unwrap();
    let line = Line::on((store, Sequencer::Local(local)), fast(None)).await;
    let join = async |key: u8, person: i64, attempt: u64| {
        let newcomer = Newcomer { name: Name::Key([key; 16]), ..newcomer(person, attempt, 0) };
        line.sequencer.join_once(&line.queue, newcomer, at(0)).await.unwrap()
    };
    let first = join(1, 7, 1).await;
    assert_eq!(join(1, 7, 2).await, Joined { is_new: false, ..first.clone() });
    assert_eq!(join(2, 7, 3).await.ticket.seq, 2);
    let pass = PresentedTicket::from(first.ticket.clone());
    line.sequencer.leave(&line.queue, &pass, at(0)).await.unwrap();
    assert_eq!(join(1, 7, 4).await.ticket, first.ticket);
    assert_eq!(line.join().await, 3);
    assert_eq!(line.queue.people(), None);
    line.close().await;
}
