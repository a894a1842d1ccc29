//! What this instance knows and nobody can change, so that a batch need not look it up.

use std::collections::BTreeMap;

use boxoffice_domain::command::{Changes, ReservationRow};
use boxoffice_domain::ids::{ReservationId, UserId};
use boxoffice_domain::sales::ReservationState;
use parking_lot::Mutex;
use roaring::RoaringTreemap;

/// The most holds that are remembered.
const HOLDS_MAX: usize = 32_768;

/// What is known, for all batches of this instance.
#[derive(Default)]
pub(super) struct Familiar(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Users who have an account. Accounts are never taken away.
    accounts: RoaringTreemap,
    /// Holds that were made here. Which seats they have never changes; their states do.
    holds: BTreeMap<ReservationId, ReservationRow>,
}

impl Familiar {
    /// Returns those users who are not known to have an account.
    pub(super) fn without_account(&self, users: impl IntoIterator<Item = UserId>) -> Vec<UserId> {
        let known = self.0.lock();
        let unknown = |user: &UserId| !known.accounts.contains(user.get().unsigned_abs());
        users.into_iter().filter(unknown).collect()
    }

    /// Takes note that these users have accounts.
    pub(super) fn add_accounts(&self, users: impl IntoIterator<Item = UserId>) {
        let users = users.into_iter().map(|user| user.get().unsigned_abs());
        self.0.lock().accounts.extend(users);
    }

    /// Divides reservations into those of which the seats are known, and the others. The state of the
    /// known ones is that in which they were made.
    pub(super) fn holds<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a ReservationId>,
    ) -> (Vec<ReservationRow>, Vec<ReservationId>) {
        let known = self.0.lock();
        let (mut found, mut others) = (Vec::new(), Vec::new());
        for id in ids {
            match known.holds.get(id) {
                Some(row) => found.push(row.clone()),
                None => others.push(*id),
            }
        }
        (found, others)
    }

    /// Takes note of the holds that were made, and forgets those that are over.
    pub(super) fn note(&self, changes: &Changes) {
        let mut known = self.0.lock();
        for (id, row) in &changes.reservations_made {
            if matches!(row.reservation.state, ReservationState::Held { .. }) {
                known.holds.insert(*id, row.clone());
            }
        }
        for id in changes.reservations_settled.keys() {
            known.holds.remove(id);
        }
        // The oldest, as far as their ids tell.
        while known.holds.len() > HOLDS_MAX {
            known.holds.pop_first();
        }
    }
}
