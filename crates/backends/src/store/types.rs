//! What is asked of a store beside the sale, and what it answers.

use boxoffice_domain::ids::{QueueName, SeatId};
use boxoffice_domain::queue::{Admission, Bucket, QueueSettings, Ticket};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;

/// A queue as it was stored last.
#[derive(Clone, Debug)]
pub struct StoredQueue {
    /// Its name.
    pub name: QueueName,
    /// How it admits.
    pub settings: QueueSettings,
    /// The last number known to have been given; some up to the watermark may have been, too.
    pub next: u64,
    /// No number above this was given: where the counter goes on after a restart.
    pub watermark: u64,
    /// The highest number admitted.
    pub serving: u64,
    /// Every number up to here has run out of active time.
    pub floor: u64,
    /// Admissions above the floor.
    pub log: Vec<Admission>,
    /// Gave up while waiting.
    pub left: RoaringTreemap,
    /// Seen since their admission.
    pub claimed: RoaringTreemap,
    /// Paid, or left after their admission.
    pub finished: RoaringTreemap,
    /// The credit that the last shared step of admission left; empty since the settings changed.
    pub bucket: Bucket,
}

/// What has changed in a queue since the last checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Which queue.
    pub queue: QueueName,
    /// The last number given.
    pub next: u64,
    /// Numbers up to here may be given without asking again.
    pub watermark: u64,
    /// The floor of the line.
    pub floor: u64,
    /// An admission to be made durable before anybody learns of it.
    pub admission: Option<Admission>,
    /// The claimed numbers, where they changed.
    pub claimed: Option<RoaringTreemap>,
}

/// A step of admission of a queue that several instances share, to be made durable unless somebody
/// has admitted since it was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Which queue.
    pub queue: QueueName,
    /// The highest number admitted before the step, as whoever planned it knew it.
    pub from: u64,
    /// The step; it goes beyond `from`.
    pub admission: Admission,
    /// The credit that is left after the step.
    pub bucket: Bucket,
}

/// What instances have learnt together of a queue. Nothing in it takes anything back: counters
/// rise or stay, claimed numbers are added.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Which queue.
    pub queue: QueueName,
    /// The last number given.
    pub next: u64,
    /// The floor of the line.
    pub floor: u64,
    /// Numbers that were seen since their admission, where there are new ones.
    pub claimed: Option<RoaringTreemap>,
}

/// For a day an opaque token that ran out is still known as such, in memory and in the store; then it
/// is any unknown token.
pub(crate) const ALIAS_KEPT_MS: i64 = 24 * 3_600_000;

/// An opaque token that an operator issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The token as the client sends it.
    pub token: String,
    /// What it stands for.
    pub ticket: Ticket,
    /// Until when it is active, where it was issued past the line; its `seq` is 0 then.
    pub active_until: Option<Timestamp>,
    /// Whether it paid, or was given up.
    pub spent: bool,
}

/// An alias of this name exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasExists(pub String);

/// A concert to be made.
#[derive(Clone, Debug)]
pub struct NewConcert {
    /// Its name.
    pub name: String,
    /// Its venue.
    pub venue: String,
    /// Its queue.
    pub queue: QueueName,
    /// When reservations begin.
    pub opens_at: Timestamp,
    /// When they end.
    pub closes_at: Timestamp,
}

/// Seats to be added to a session, numbered on from the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSeats {
    /// How many.
    pub count: u32,
    /// The price of each, in points.
    pub price: i64,
}

/// Seats that were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedSeats {
    /// The id of the first; the others follow without a gap.
    pub first: SeatId,
    /// How many.
    pub count: u32,
}

/// A first stock of everything, as demo data is.
#[derive(Clone, Debug)]
pub struct Seed {
    /// These users get points to begin with.
    pub users: std::ops::RangeInclusive<i64>,
    /// So many each.
    pub points: i64,
    /// Concerts, each with the beginnings and seats of its sessions.
    pub concerts: Vec<(NewConcert, Vec<(Timestamp, NewSeats)>)>,
}
