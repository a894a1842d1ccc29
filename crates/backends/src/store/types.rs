//! What is asked of a store beside the sale, and what it answers.

use std::sync::Arc;

use boxoffice_domain::ids::{ConcertId, QueueName, ReservationId, SeatId, SessionId, UserId};
use boxoffice_domain::queue::{Bucket, Drawing, LineParts, QueueSettings, Step, Ticket};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;

use super::plans::StoredPlan;
use crate::planted::{Bug, planted};

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
    /// Who was admitted, passed over, seen, or is over.
    pub line: LineParts,
    /// The credit that the last shared step of admission left; empty since the settings changed.
    pub bucket: Bucket,
    /// The opening draw, where there is one.
    pub draw: Option<Drawing>,
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
    /// A step of admission to be made durable before anybody learns of it, and the highest number that
    /// was admitted before it.
    pub step: Option<(u64, Step)>,
    /// The claimed numbers, where they changed.
    pub claimed: Option<RoaringTreemap>,
    /// Who was let in after having been passed over, and before this, is out of time.
    pub over_before: Timestamp,
}

/// The opening draw of a queue, to be made durable unless there was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrawRequest {
    /// Which queue.
    pub queue: QueueName,
    /// How many numbers take part: all that were given, as far as is known to whoever asks. Those that the
    /// store knows of take part in any case: it may have given them itself to an instance without Redis.
    pub count: u64,
    /// When.
    pub at: Timestamp,
}

/// A step of admission of a queue that several instances share, to be made durable unless the queue
/// has changed since it was planned.
#[derive(Clone, Debug, PartialEq)]
pub struct Advance {
    /// Which queue.
    pub queue: QueueName,
    /// How many steps and changes of settings the queue had seen, as whoever planned it knew it.
    pub steps: u64,
    /// The highest number admitted before the step.
    pub serving: u64,
    /// The step.
    pub step: Step,
    /// The credit that is left after the step.
    pub bucket: Bucket,
}

/// How much of the admission log of a queue is kept.
#[derive(Clone, Debug)]
pub struct ShortenLog {
    /// Which queue.
    pub queue: QueueName,
    /// What is older is forgotten, up to a record that says where the queue stood.
    pub kept_since: Timestamp,
    /// Where the queue stands is said again if that was said before this moment for the last time.
    pub marked_before: Timestamp,
    /// The most records to forget now.
    pub max: u32,
}

/// A step may be planned by so much later a time than the database's, in milliseconds: admissions at a
/// time to come would stop all that follow.
pub(super) const STEP_AHEAD_MS: i64 = 1_000;
/// A step may have been planned so long ago, in milliseconds: an instance that stood still decided on
/// what was.
pub(super) const STEP_LATE_MS: i64 = 2_000;

impl Advance {
    /// Whether the database, at its time `now`, may still carry the step out. A store without a time of
    /// its own may.
    pub(super) fn is_timely(&self, now: Option<Timestamp>) -> bool {
        now.is_none_or(|now| {
            if planted(Bug::UntimelySteps) {
                return true;
            }
            let late_ms = now.0.saturating_sub(self.step.at.0);
            (-STEP_AHEAD_MS..=STEP_LATE_MS).contains(&late_ms)
        })
    }
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
    /// Who was let in after having been passed over, and before this, is out of time.
    pub over_before: Timestamp,
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
    /// Whether it is spent, and by what.
    pub spent: Option<SpentBy>,
}

/// What spent a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpentBy {
    /// It paid.
    Payment,
    /// Its owner gave it up.
    Leaving,
}

impl SpentBy {
    /// Whether by a payment: what the stores keep is which one, where there is one.
    pub(crate) const fn of(has_paid: bool) -> Self {
        if has_paid { Self::Payment } else { Self::Leaving }
    }
}

/// A person, as the issuer of their tokens names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPerson {
    /// What tells them from everybody else: a digest of issuer and name.
    pub digest: [u8; 32],
    /// The issuer.
    pub issuer: String,
    /// What the issuer calls them.
    pub name: String,
    /// The id that they bring along; none where they are to get one.
    pub id: Option<UserId>,
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

/// The first seats of a session, numbered from 1.
#[derive(Clone, Debug)]
pub struct Seating {
    /// The price of each, in points.
    prices: Vec<i64>,
    /// How many of them are told together, as one range of ids.
    groups: Vec<u32>,
    plan: Option<Arc<StoredPlan>>,
}

impl From<Vec<NewSeats>> for Seating {
    /// So many of each price, in a session without a plan.
    fn from(groups: Vec<NewSeats>) -> Self {
        let price = |group: &NewSeats| std::iter::repeat_n(group.price, group.count as usize);
        Self {
            prices: groups.iter().flat_map(price).collect(),
            groups: groups.iter().map(|group| group.count).collect(),
            plan: None,
        }
    }
}

impl From<NewSeats> for Seating {
    fn from(group: NewSeats) -> Self {
        vec![group].into()
    }
}

impl Seating {
    /// The places of a hall, each at the price of its grade. `None` where a grade has no price.
    pub fn planned(plan: Arc<StoredPlan>, prices: &[i64]) -> Option<Self> {
        let places = plan.plan().places();
        let price = |grade: u16| prices.get(usize::from(grade)).copied();
        let prices = places.iter().map(|place| price(place.grade)).collect::<Option<Vec<_>>>()?;
        let count = u32::try_from(prices.len()).ok()?;
        Some(Self { prices, groups: vec![count], plan: Some(plan) })
    }

    /// The price of each seat, in points and in the order of their numbers.
    pub(super) fn prices(&self) -> &[i64] {
        &self.prices
    }

    /// The hall that they are places of, where there is one.
    pub(super) const fn plan(&self) -> Option<&Arc<StoredPlan>> {
        self.plan.as_ref()
    }

    /// Which seats were made, where the first has this id and the others follow.
    pub(super) fn added(&self, first: Option<SeatId>) -> Vec<AddedSeats> {
        let mut next = first.map_or(0, SeatId::get);
        let range = |count: &u32| {
            let first = SeatId::new(next).filter(|_| *count > 0)?;
            next += i64::from(*count);
            Some(AddedSeats { first, count: *count })
        };
        self.groups.iter().filter_map(range).collect()
    }
}

/// Seats that were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedSeats {
    /// The id of the first; the others follow without a gap.
    pub first: SeatId,
    /// How many.
    pub count: u32,
}

/// What has become of the reservations of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// They wait for payment.
    Held,
    /// They are paid.
    Paid,
    /// They were given back.
    Cancelled,
    /// Their holds ran out.
    Expired,
    /// They were paid, and their points went back.
    Refunded,
}

/// Which reservations a list has: those to which all of this applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReservationFilter {
    /// What has become of them.
    pub became: Option<Became>,
    /// They are of one of these users: a few, each once.
    pub users: Option<Vec<UserId>>,
    /// This one.
    pub reservation: Option<ReservationId>,
    /// They are for this concert.
    pub concert: Option<ConcertId>,
    /// They are for this session.
    pub session: Option<SessionId>,
}

impl ReservationFilter {
    /// Behind which id, and up to which one, they are to be looked for.
    pub(super) fn range(&self, after: i64) -> (i64, i64) {
        match self.reservation {
            Some(id) => (after.max(id.get() - 1), id.get()),
            None => (after, i64::MAX),
        }
    }
}

/// The most people whom one name finds.
pub(super) const NAMED_MAX: u32 = 20;

/// A part of a list, with the id behind which the next part begins; none where this is the last. A part
/// may be shorter than was asked for, and still not be the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<T> {
    /// By id.
    pub items: Vec<T>,
    /// Where the next part begins.
    pub next: Option<i64>,
}

impl<T> Part<T> {
    /// The part that was read of a range whose end is `end`, where it has one.
    pub(super) fn of(items: Vec<T>, max: u32, end: Option<i64>, id: impl Fn(&T) -> i64) -> Self {
        let full = items.len() >= max as usize;
        let next = if full { items.last().map(id) } else { end };
        Self { items, next }
    }
}

/// The part of several lists together, of which each has at most `max` items in this range of ids.
pub(super) fn merged<T>(mut items: Vec<T>, max: u32, id: impl Fn(&T) -> i64) -> Part<T> {
    items.sort_unstable_by_key(&id);
    items.truncate(max as usize);
    Part::of(items, max, None, id)
}

/// Rows that one part of a list looks at, however few of them it is about.
pub(super) const LOOKED_AT_MAX: u32 = 10_000;

/// Somebody who has an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Person {
    /// Who.
    pub user: UserId,
    /// In points.
    pub balance: i64,
    /// Reservations that wait for payment.
    pub held: u64,
    /// Reservations that are paid.
    pub paid: u64,
}

/// A first stock of everything, as demo data is.
#[derive(Clone, Debug)]
pub struct Seed {
    /// These users get points to begin with.
    pub users: std::ops::RangeInclusive<i64>,
    /// So many each.
    pub points: i64,
    /// Concerts, each with the beginnings and seats of its sessions.
    pub concerts: Vec<(NewConcert, Vec<(Timestamp, Seating)>)>,
}
