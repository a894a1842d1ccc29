//! The best seats for those in a batch who named none: chosen before its rows are loaded, so that they are
//! locked like any other seats, by what is in memory and what those before them in the batch take.
//!
//! What was chosen may turn out taken all the same, where instances share the store. Then it is chosen anew,
//! with what was learnt of it; nobody is refused because somebody was faster, as long as there are seats
//! that fit. The rule by which seats are the best is `domain::seating`'s.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::command::{Best, Reserve, TicketRef};
use boxoffice_domain::ids::{SeatId, SessionId};
use boxoffice_domain::seating::{PlaceSet, Plan, around, choose};
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::catalog::Inventory;

/// So often the best seats are chosen anew for one who asked, before they are told to ask again.
pub(super) const CHOICES_MAX: u32 = 32;
/// A choice that leaves a single seat again and again is taken: memory and store may disagree about what
/// else there is.
pub(super) const SINGLES_MAX: u32 = 8;
/// For so long nobody is given a seat that another transaction had locked: it is most likely gone then.
const AVOIDED: Duration = Duration::from_millis(100);
/// Whether a session has no more seats that fit is looked up no more often than this.
const LOOKED: Duration = Duration::from_millis(250);

/// What is known beside the seats in memory, by all who make batches of one store.
#[derive(Default)]
pub(super) struct Learnt(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    /// Seats that were locked by others, and when.
    locked: HashMap<SeatId, Instant>,
    /// When sessions were looked at in the store.
    looked: HashMap<SessionId, Instant>,
}

impl Learnt {
    /// Takes note of seats that another transaction had locked.
    pub(super) fn locked(&self, seats: impl IntoIterator<Item = SeatId>) {
        let (now, mut inside) = (Instant::now(), self.0.lock());
        inside.locked.retain(|_, at| now.duration_since(*at) < AVOIDED);
        inside.locked.extend(seats.into_iter().map(|seat| (seat, now)));
    }

    fn avoided(&self) -> HashSet<SeatId> {
        let mut inside = self.0.lock();
        inside.locked.retain(|_, at| at.elapsed() < AVOIDED);
        inside.locked.keys().copied().collect()
    }

    /// Whether it is time to look at a session in the store; then that counts as done.
    fn is_to_be_looked_at(&self, session: SessionId) -> bool {
        let looked = &mut self.0.lock().looked;
        looked.retain(|_, at| at.elapsed() < LOOKED);
        let is_due = !looked.contains_key(&session);
        if is_due {
            looked.insert(session, Instant::now());
        }
        is_due
    }
}

/// How a choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// Seats are chosen, or none that fit are left.
    Done,
    /// Others are about to take what is left. Whether they do shows with the next batch.
    Later,
    /// None are left as far as is known here; the store may know better.
    Look,
}

/// The seats of one session as a batch begins with them.
struct View {
    inventory: Arc<Inventory>,
    plan: Arc<Plan>,
    free: PlaceSet,
    /// The free ones that neither another transaction has locked nor somebody in the batch takes.
    left: PlaceSet,
}

/// The choices of one batch.
pub(super) struct Choices {
    avoided: HashSet<SeatId>,
    views: HashMap<SessionId, View>,
    /// What those before have taken, of sessions that nobody has had to look at yet.
    taken: HashMap<SessionId, Vec<SeatId>>,
    /// Whose choices have taken seats.
    tickets: HashSet<TicketRef>,
}

impl Choices {
    pub(super) fn new(learnt: &Learnt) -> Self {
        let (views, taken, tickets) = (HashMap::new(), HashMap::new(), HashSet::new());
        Self { avoided: learnt.avoided(), views, taken, tickets }
    }

    /// Whether there are seats that nobody is given, because another transaction had locked them.
    pub(super) fn avoids_any(&self) -> bool {
        !self.avoided.is_empty()
    }

    /// Forgets what is known of a session, because there is something newer.
    fn forget(&mut self, session: SessionId) {
        self.views.remove(&session);
    }

    /// Takes note that somebody takes these seats.
    fn take(&mut self, session: SessionId, seats: &[SeatId]) {
        self.taken.entry(session).or_default().extend(seats);
        if let Some(view) = self.views.get_mut(&session) {
            for index in view.inventory.indexes(seats) {
                view.left.remove(index);
            }
        }
    }

    fn view(&mut self, inventory: &Arc<Inventory>, now: Timestamp) -> &mut View {
        let session = inventory.session().id;
        let taken = self.taken.get(&session).map_or(&[][..], Vec::as_slice);
        let avoided = &self.avoided;
        self.views.entry(session).or_insert_with(|| {
            let plan = inventory.hall();
            let free = inventory.free_places(plan.place_count(), now);
            let mut left = free.clone();
            let gone: Vec<SeatId> = avoided.iter().chain(taken).copied().collect();
            for index in inventory.indexes(&gone) {
                left.remove(index);
            }
            View { inventory: inventory.clone(), plan, free, left }
        })
    }

    /// Chooses seats for a hold that names none, and says on which others it depends where it must not leave a
    /// single one.
    pub(super) fn choose(
        &mut self,
        reserve: &mut Reserve,
        inventory: &Arc<Inventory>,
        (learnt, now): (&Learnt, Timestamp),
    ) -> Chosen {
        let session = inventory.session().id;
        reserve.beside.clear();
        // With one ticket nobody takes seats from others twice in a batch: nearly always the second hold is refused for
        // the first one, and if not, it may find taken what the first one has taken.
        let is_first = reserve.best.is_none() || !self.tickets.contains(&reserve.ticket);
        if let Some(Best { wish, refused }) = &mut reserve.best {
            reserve.seats.clear();
            *refused = None;
            let view = self.view(inventory, now);
            let from = if is_first { &view.left } else { &view.free };
            match choose(&view.plan, from, wish) {
                Ok(places) => reserve.seats = view.inventory.seats_at(&places),
                Err(_) if choose(&view.plan, &view.free, wish).is_ok() => return Chosen::Later,
                Err(why) => {
                    *refused = Some(why);
                    // What others give back matters now, as to whoever looks at the seats.
                    inventory.ask_for();
                    if learnt.is_to_be_looked_at(session) {
                        self.forget(session);
                        return Chosen::Look;
                    }
                    return Chosen::Done;
                }
            }
        }
        if reserve.limits.no_orphans {
            let view = self.view(inventory, now);
            let places = view.inventory.indexes(&reserve.seats);
            let beside: Vec<u32> = around(&view.plan, &places).into_iter().flatten().collect();
            reserve.beside = view.inventory.seats_at(&beside);
        }
        if is_first {
            self.take(session, &reserve.seats);
        }
        if reserve.best.is_some() {
            self.tickets.insert(reserve.ticket.clone());
        }
        Chosen::Done
    }

    /// The halls in which single seats are watched, with the places that are free.
    pub(super) fn halls(self) -> impl Iterator<Item = (SessionId, Arc<Plan>, PlaceSet)> {
        self.views.into_iter().map(|(session, view)| (session, view.plan, view.free))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a rush somebody finds no seats every few milliseconds.
    #[tokio::test(start_paused = true)]
    async fn a_session_is_looked_at_again_and_again() {
        let (learnt, session) = (Learnt::default(), SessionId::new(1).unwrap());
        let mut looks = 0;
        for _ in 0..200 {
            looks += u32::from(learnt.is_to_be_looked_at(session));
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert!((7..=9).contains(&looks), "{looks} in two seconds");
    }
}
