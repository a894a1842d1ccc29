//! Who joins, and what is kept of their tickets.

use boxoffice_domain::ids::{QueueName, TicketId, UserId};
use boxoffice_domain::queue::Ticket;
use boxoffice_domain::time::Timestamp;

/// For how long a join is found again by its idempotency key, in seconds.
pub(super) const JOIN_KEY_SECONDS: u32 = 600;

/// Somebody who joins.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// Who it is.
    pub user: UserId,
    /// What a repeated join is known by.
    pub name: Name,
    /// When a new ticket is issued.
    pub issued_at: Timestamp,
    /// The unique id of a new ticket.
    pub id: TicketId,
}

impl Newcomer {
    /// Whether it is the person who is known.
    pub(super) const fn is_person(&self) -> bool {
        matches!(self.name, Name::Person(_))
    }

    /// What is kept of their ticket with this number.
    pub(super) const fn with(&self, seq: u64) -> Stub {
        Stub { seq, issued_at: self.issued_at, id: self.id }
    }
}

/// What a repeated join is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// The person, who has one place.
    Person(UserId),
    /// A digest of the user and an idempotency key.
    Key([u8; 16]),
}

/// Where somebody is in the line after a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The ticket.
    pub ticket: Ticket,
    /// Whether it is a new one.
    pub is_new: bool,
}

/// What is kept of a ticket whose queue and owner are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stub {
    pub(super) seq: u64,
    pub(super) issued_at: Timestamp,
    pub(super) id: TicketId,
}

impl Stub {
    pub(super) const fn of(ticket: &Ticket) -> Self {
        Self { seq: ticket.seq, issued_at: ticket.issued_at, id: ticket.id }
    }

    pub(super) fn ticket(self, queue: &QueueName, user: UserId) -> Ticket {
        let Self { seq, issued_at, id } = self;
        Ticket { queue: queue.clone(), seq, user, issued_at, id }
    }
}

/// The lower five bytes of a number: enough for a million million.
pub(super) const fn five_bytes(number: u64) -> [u8; 5] {
    let [_, _, _, bytes @ ..] = number.to_be_bytes();
    bytes
}

/// The number of five bytes.
pub(super) const fn of_five_bytes([a, b, c, d, e]: [u8; 5]) -> u64 {
    u64::from_be_bytes([0, 0, 0, a, b, c, d, e])
}
