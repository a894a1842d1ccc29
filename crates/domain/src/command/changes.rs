//! What commands have done, for a store to save.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Command, Payment, Refunded, ReservationRow, TicketRef};
use crate::event::Event;
use crate::ids::{PaymentId, QueueName, ReservationId, SeatId, SessionId, UserId};
use crate::sales::{Reservation, SeatState};
use crate::time::Timestamp;

/// Why an entry stands in the ledger of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The user began with it.
    Opening,
    /// Points were charged.
    Charge,
    /// A payment took them.
    Payment(PaymentId),
    /// They came back from a payment.
    Refund(PaymentId),
}

/// An entry in the ledger of points. Its balance is that of the user afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointsEntry {
    /// Its id.
    pub id: i64,
    /// Whose points.
    pub user: UserId,
    /// How many were added; below zero where they were taken.
    pub amount: i64,
    /// The balance afterwards.
    pub balance: i64,
    /// Why.
    pub kind: EntryKind,
    /// When.
    pub at: Timestamp,
}

/// A ticket that opens nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpentTicket {
    /// Which one.
    pub ticket: TicketRef,
    /// The payment that spent it; none where it was given up.
    pub payment: Option<PaymentId>,
    /// When.
    pub at: Timestamp,
}

/// An idempotency key, to be remembered with what was done under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// Whose key.
    pub user: UserId,
    /// The client's key.
    pub key: String,
    /// A digest of everything that was asked under it.
    pub fingerprint: [u8; 32],
    /// The id of the reservation, the payment or the entry that was made.
    pub result: i64,
    /// When.
    pub at: Timestamp,
}

/// A refund, to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRefund {
    /// The refund.
    pub refund: Refunded,
    /// Whose points.
    pub user: UserId,
    /// The session whose seats came free.
    pub session: SessionId,
    /// Whether it was made because the session was called off.
    pub called_off: bool,
}

/// All that some commands have done. Each row stands once, as it is at the end.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// New balances.
    pub accounts: BTreeMap<UserId, i64>,
    /// New states of seats.
    pub seats: BTreeMap<SeatId, (SessionId, SeatState)>,
    /// Reservations made, as they are now.
    pub reservations_made: BTreeMap<ReservationId, ReservationRow>,
    /// Reservations that were there before and have been paid, given back, ended or refunded.
    pub reservations_settled: BTreeMap<ReservationId, Reservation>,
    /// Payments made, and who paid.
    pub payments: Vec<(Payment, UserId)>,
    /// Refunds made.
    pub refunds: Vec<NewRefund>,
    /// New entries in the ledger.
    pub entries: Vec<PointsEntry>,
    /// Tickets spent or given up.
    pub spent: Vec<SpentTicket>,
    /// Numbers that have left a line.
    pub left: Vec<(QueueName, u64)>,
    /// Idempotency keys to be remembered.
    pub keys: Vec<NewKey>,
    /// Events, in the order in which things happened.
    pub events: Vec<(Event, Timestamp)>,
}

impl Changes {
    /// Whether there is nothing to save.
    pub fn is_empty(&self) -> bool {
        // Whatever else happens has an event, a spent ticket or a number that has left.
        self.events.is_empty() && self.spent.is_empty() && self.left.is_empty()
    }
}

/// Ids that have been given to nothing yet, for what is going to be made.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    /// Of reservations.
    pub reservations: IdRange,
    /// Of payments.
    pub payments: IdRange,
    /// Of entries in the ledger.
    pub entries: IdRange,
}

/// Ids of one kind, in two runs: what is left of an older one, and a newer one.
#[derive(Clone, Debug)]
pub struct IdRange {
    now: Range<i64>,
    then: Range<i64>,
}

impl Default for IdRange {
    fn default() -> Self {
        Self { now: 0..0, then: 0..0 }
    }
}

impl IdRange {
    /// Returns how many there are.
    pub fn left(&self) -> i64 {
        (self.now.end - self.now.start).saturating_add(self.then.end - self.then.start)
    }

    /// Adds a run of ids.
    pub fn add(&mut self, more: Range<i64>) {
        if self.now.is_empty() {
            self.now = std::mem::replace(&mut self.then, 0..0);
        }
        if self.now.is_empty() {
            self.now = more;
        } else {
            self.then = more;
        }
    }

    /// Drops the ids up to this one: something else has used them.
    pub fn skip_to(&mut self, used: i64) {
        for run in [&mut self.now, &mut self.then] {
            run.start = run.start.max(used.saturating_add(1)).min(run.end.max(run.start));
        }
    }

    /// Returns the next id, which stays there until it is taken.
    pub(super) fn next(&self) -> Option<i64> {
        self.now.clone().next().or_else(|| self.then.clone().next())
    }

    pub(super) fn take(&mut self) -> Option<i64> {
        self.now.next().or_else(|| {
            self.now = std::mem::replace(&mut self.then, 0..0);
            self.now.next()
        })
    }
}

/// How many ids some commands may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdsNeeded {
    /// Of reservations.
    pub reservations: i64,
    /// Of payments.
    pub payments: i64,
    /// Of entries in the ledger.
    pub entries: i64,
}

impl IdsNeeded {
    /// Counts what one more command may use.
    pub const fn add(&mut self, command: &Command) {
        match command {
            Command::Reserve(_) => self.reservations += 1,
            Command::Pay(_) => {
                self.payments += 1;
                self.entries += 1;
            }
            Command::Charge(_) | Command::Refund(_) | Command::CallOff(_) => self.entries += 1,
            Command::Cancel(_) | Command::Expire(_) | Command::LeaveQueue(_) => {}
        }
    }
}
