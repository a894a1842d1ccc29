//! The store: every operation is a whole business operation, atomic and durable when it answers.
//!
//! Time does not go back here: an operation that comes with an earlier time than one that was
//! decided before it is decided at that later time.
//!
//! There is no find and no save. An operation loads what it needs, asks the decider of
//! `boxoffice-domain`, and writes the result, all in one transaction.

mod columns;
mod hall;
mod mysql;
mod sqlite;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::ids::{
    ConcertId, PaymentId, QueueName, ReservationId, SeatId, SessionId, TicketId, UserId,
};
use boxoffice_domain::invariant::Finding;
use boxoffice_domain::points::ChargeRejected;
use boxoffice_domain::queue::{Admission, Bucket, Settings, Ticket};
use boxoffice_domain::sales::{HoldRejected, Limits, Reservation, Seat, SettleRejected};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;

pub use hall::{Catalog, Hall};
pub use mysql::{MysqlOptions, MysqlServer, MysqlStore, MysqlTls};
pub use sqlite::{SqliteOptions, SqliteStore, backup as sqlite_backup};
pub use stats::{Commit, CommitObserver, StoreStats};

use crate::{Error, Fault, Tasks};

/// What makes a repeated request the same request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The client's key. It is unique for one user, not for all.
    pub key: String,
    /// A digest of everything that was asked under it.
    pub fingerprint: [u8; 32],
}

/// The key was used before for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyReused;

/// An answer, and whether it was given before under the same idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// Whether nothing was done this time.
    pub replayed: bool,
}

/// Which ticket an operation is done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketKey {
    /// The queue.
    pub queue: QueueName,
    /// The number; 0 for a ticket that an operator issued past the line.
    pub seq: u64,
    /// The unique id.
    pub id: TicketId,
}

impl From<&Ticket> for TicketKey {
    fn from(ticket: &Ticket) -> Self {
        Self { queue: ticket.queue.clone(), seq: ticket.seq, id: ticket.id }
    }
}

/// Asks for a hold.
#[derive(Clone, Debug)]
pub struct Reserve {
    /// Who asks.
    pub user: UserId,
    /// With which ticket.
    pub ticket: TicketKey,
    /// Whether the ticket is known to be over; then only the answer to an earlier request with the
    /// same idempotency key is given.
    pub ticket_over: bool,
    /// The concert of the session.
    pub concert: ConcertId,
    /// The session.
    pub session: SessionId,
    /// Which seats.
    pub seats: Vec<SeatId>,
    /// The limits in force.
    pub limits: Limits,
    /// The client's idempotency key.
    pub idempotency: Option<IdempotencyKey>,
    /// The time.
    pub now: Timestamp,
}

/// Why a hold was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveRejected {
    /// The decider says no.
    Hold(HoldRejected),
    /// There is no such concert.
    NoSuchConcert,
    /// The concert has no such session.
    NoSuchSession,
    /// The idempotency key was used for something else.
    KeyReused,
}

/// Asks for a payment.
#[derive(Clone, Debug)]
pub struct Pay {
    /// Who pays.
    pub user: UserId,
    /// With which ticket; the payment spends it.
    pub ticket: TicketKey,
    /// For which reservation.
    pub reservation: ReservationId,
    /// The client's idempotency key.
    pub idempotency: Option<IdempotencyKey>,
    /// The time.
    pub now: Timestamp,
}

/// A payment made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Its id.
    pub id: PaymentId,
    /// What it pays.
    pub reservation: ReservationId,
    /// In points.
    pub amount: i64,
    /// When.
    pub paid_at: Timestamp,
}

/// Why a reservation was not paid, given back, or shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationRejected {
    /// The decider says no.
    Settle(SettleRejected),
    /// There is no such reservation.
    NoSuchReservation,
    /// The idempotency key was used for something else.
    KeyReused,
}

/// Asks for points to be charged.
#[derive(Clone, Debug)]
pub struct Charge {
    /// Whose.
    pub user: UserId,
    /// How many.
    pub amount: i64,
    /// The client's idempotency key.
    pub idempotency: Option<IdempotencyKey>,
    /// The time.
    pub now: Timestamp,
}

/// Why points were not charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointsRejected {
    /// The decider says no.
    Charge(ChargeRejected),
    /// The idempotency key was used for something else.
    KeyReused,
}

/// A queue as it was stored last.
#[derive(Clone, Debug)]
pub struct StoredQueue {
    /// Its name.
    pub name: QueueName,
    /// How it admits.
    pub settings: Settings,
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

/// An event on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its place in the outbox; rises with every event.
    pub id: i64,
    /// The name of the topic.
    pub topic: String,
    /// Events of one key keep their order.
    pub key: i64,
    /// The event as CloudEvents JSON.
    pub body: String,
}

/// Events on their way out, and whatever keeps others from carrying the same ones. Dropped without
/// having been marked as published, they are there for the next one who asks.
pub struct Outbox {
    /// The events, oldest first.
    pub rows: Vec<OutboxRow>,
    /// What the store holds for them meanwhile; a store with one instance needs nothing.
    claim: Option<mysql::Claim>,
}

/// The store in use.
#[derive(Clone)]
pub enum Store {
    /// A SQLite file.
    Sqlite(Arc<SqliteStore>),
    /// A MySQL or MariaDB database, which several instances may share.
    Mysql(Arc<MysqlStore>),
}

/// How a store operation ends.
pub type StoreResult<T, R> = Result<T, Error<R>>;

impl Store {
    /// The background work on this store. Whoever runs the service ends it where any of it is lost.
    pub fn tasks(&self) -> &Tasks {
        match self {
            Self::Sqlite(store) => store.tasks(),
            Self::Mysql(store) => store.tasks(),
        }
    }

    /// The concerts, sessions and seats as of the last commit.
    pub fn catalog(&self) -> Arc<Catalog> {
        match self {
            Self::Sqlite(store) => store.catalog(),
            Self::Mysql(store) => store.catalog(),
        }
    }

    /// The seats with these ids, as far as it is certain what has become of them: a seat that may
    /// have come free without our knowing counts as free. So what is refused on them is refused
    /// rightly. `None` where there may be seats that this instance has not heard of yet.
    pub fn certain(&self, hall: &Hall, seats: &[SeatId]) -> Option<Vec<Option<Seat>>> {
        match self {
            Self::Sqlite(_) => Some(hall.find(seats)),
            Self::Mysql(store) => store.certain(hall, seats),
        }
    }

    /// Holds seats: all or none.
    pub async fn reserve(
        &self,
        request: Reserve,
    ) -> StoreResult<Answer<Reservation>, ReserveRejected> {
        match self {
            Self::Sqlite(store) => store.reserve(request).await,
            Self::Mysql(store) => store.reserve(request).await,
        }
    }

    /// Pays for a reservation: points, seats, ticket and event together.
    pub async fn pay(&self, request: Pay) -> StoreResult<Answer<Payment>, ReservationRejected> {
        match self {
            Self::Sqlite(store) => store.pay(request).await,
            Self::Mysql(store) => store.pay(request).await,
        }
    }

    /// Gives a hold back.
    pub async fn cancel(
        &self,
        reservation: ReservationId,
        user: UserId,
        now: Timestamp,
    ) -> StoreResult<(), ReservationRejected> {
        match self {
            Self::Sqlite(store) => store.cancel(reservation, user, now).await,
            Self::Mysql(store) => store.cancel(reservation, user, now).await,
        }
    }

    /// Charges points; gives the balance afterwards.
    pub async fn charge(&self, request: Charge) -> StoreResult<Answer<i64>, PointsRejected> {
        match self {
            Self::Sqlite(store) => store.charge(request).await,
            Self::Mysql(store) => store.charge(request).await,
        }
    }

    /// The balance of a user; 0 for one never heard of.
    pub async fn balance(&self, user: UserId) -> Result<i64, Fault> {
        match self {
            Self::Sqlite(store) => store.balance(user).await,
            Self::Mysql(store) => store.balance(user).await,
        }
    }

    /// A reservation, with the end of its hold (also once it is settled).
    pub async fn reservation(
        &self,
        id: ReservationId,
    ) -> Result<Option<(Reservation, Timestamp)>, Fault> {
        match self {
            Self::Sqlite(store) => store.reservation(id).await,
            Self::Mysql(store) => store.reservation(id).await,
        }
    }

    /// Tidies up at most `max` holds that ran out by `now`; gives how many. Nothing depends on when
    /// this runs but the event that tells of it.
    pub async fn expire_due(&self, now: Timestamp, max: u32) -> Result<u32, Fault> {
        match self {
            Self::Sqlite(store) => store.expire_due(now, max).await,
            Self::Mysql(store) => store.expire_due(now, max).await,
        }
    }

    /// Forgets idempotency keys older than `keep`, at most `max` of them; gives how many.
    pub async fn forget_keys(
        &self,
        now: Timestamp,
        keep: Duration,
        max: u32,
    ) -> Result<u32, Fault> {
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp(now.0.saturating_sub(keep_ms));
        match self {
            Self::Sqlite(store) => store.forget_keys(before, max).await,
            Self::Mysql(store) => store.forget_keys(before, max).await,
        }
    }

    /// Every queue as stored.
    pub async fn queues(&self) -> Result<Vec<StoredQueue>, Fault> {
        match self {
            Self::Sqlite(store) => store.queues().await,
            Self::Mysql(store) => store.queues().await,
        }
    }

    /// Makes a queue; does nothing where it exists. Gives whether it is new.
    pub async fn create_queue(&self, name: QueueName, settings: Settings) -> Result<bool, Fault> {
        match self {
            Self::Sqlite(store) => store.create_queue(name, settings).await,
            Self::Mysql(store) => store.create_queue(name, settings).await,
        }
    }

    /// Changes how a queue admits, and takes the credit that it has saved up.
    pub async fn set_queue(&self, name: QueueName, settings: Settings) -> Result<(), Fault> {
        match self {
            Self::Sqlite(store) => store.set_queue(name, settings).await,
            Self::Mysql(store) => store.set_queue(name, settings).await,
        }
    }

    /// Makes the state of some queues durable, and the time with it. Counters never go back, but
    /// for a watermark that returns to `next` when the service ends in good order.
    pub async fn checkpoint(&self, queues: Vec<Checkpoint>, now: Timestamp) -> Result<(), Fault> {
        match self {
            Self::Sqlite(store) => store.checkpoint(queues, now).await,
            Self::Mysql(store) => store.checkpoint(queues, now).await,
        }
    }

    /// Hands out the next `count` numbers of a queue, all above `at_least` and above every number
    /// that was handed out before; gives the first. They are gone, whether the caller uses them or
    /// not. With a `count` of 0 the watermark rises to `at_least` and nothing else happens.
    pub async fn take_numbers(
        &self,
        queue: QueueName,
        count: u64,
        at_least: u64,
    ) -> Result<u64, Fault> {
        match self {
            Self::Sqlite(store) => store.take_numbers(queue, count, at_least).await,
            Self::Mysql(store) => store.take_numbers(queue, count, at_least).await,
        }
    }

    /// Makes a step of admission durable, and the time with it. Gives false, and does nothing,
    /// where somebody has admitted since the step was planned, or the queue is paused: the planner
    /// is to look again.
    pub async fn advance(&self, step: Advance, now: Timestamp) -> Result<bool, Fault> {
        match self {
            Self::Sqlite(store) => store.advance(step, now).await,
            Self::Mysql(store) => store.advance(step, now).await,
        }
    }

    /// Makes durable what is known of some queues, and the time with it. Several instances call
    /// this in any order: nothing goes back. A floor counts up to what was admitted.
    pub async fn record(&self, progress: Vec<Progress>, now: Timestamp) -> Result<(), Fault> {
        match self {
            Self::Sqlite(store) => store.record(progress, now).await,
            Self::Mysql(store) => store.record(progress, now).await,
        }
    }

    /// Records that a ticket was given up: in the line (`waiting`), or after its admission.
    pub async fn give_up(
        &self,
        ticket: TicketKey,
        waiting: bool,
        now: Timestamp,
    ) -> Result<(), Fault> {
        match self {
            Self::Sqlite(store) => store.give_up(ticket, waiting, now).await,
            Self::Mysql(store) => store.give_up(ticket, waiting, now).await,
        }
    }

    /// Stores opaque tokens: all or none.
    pub async fn add_aliases(&self, aliases: Vec<Alias>) -> StoreResult<(), AliasExists> {
        match self {
            Self::Sqlite(store) => store.add_aliases(aliases).await,
            Self::Mysql(store) => store.add_aliases(aliases).await,
        }
    }

    /// Every opaque token, but for those that ran out more than a day before `now`.
    pub async fn aliases(&self, now: Timestamp) -> Result<Vec<Alias>, Fault> {
        match self {
            Self::Sqlite(store) => store.aliases(now).await,
            Self::Mysql(store) => store.aliases(now).await,
        }
    }

    /// The latest time that the store has seen.
    pub async fn clock(&self) -> Result<Timestamp, Fault> {
        match self {
            Self::Sqlite(store) => store.clock().await,
            Self::Mysql(store) => store.clock().await,
        }
    }

    /// Makes a concert.
    pub async fn create_concert(&self, concert: NewConcert) -> Result<ConcertId, Fault> {
        match self {
            Self::Sqlite(store) => store.create_concert(concert).await,
            Self::Mysql(store) => store.create_concert(concert).await,
        }
    }

    /// Makes a session with its first seats. `None` where there is no such concert.
    pub async fn create_session(
        &self,
        concert: ConcertId,
        starts_at: Timestamp,
        seats: Vec<NewSeats>,
    ) -> Result<Option<(SessionId, Vec<AddedSeats>)>, Fault> {
        match self {
            Self::Sqlite(store) => store.create_session(concert, starts_at, seats).await,
            Self::Mysql(store) => store.create_session(concert, starts_at, seats).await,
        }
    }

    /// Adds seats to a session. `None` where the concert has no such session.
    pub async fn add_seats(
        &self,
        concert: ConcertId,
        session: SessionId,
        seats: NewSeats,
    ) -> Result<Option<AddedSeats>, Fault> {
        match self {
            Self::Sqlite(store) => store.add_seats(concert, session, seats).await,
            Self::Mysql(store) => store.add_seats(concert, session, seats).await,
        }
    }

    /// Puts a first stock in: all or nothing, so that a crash does not leave half of it.
    pub async fn seed(&self, seed: Seed, now: Timestamp) -> Result<(), Fault> {
        match self {
            Self::Sqlite(store) => store.seed(seed, now).await,
            Self::Mysql(store) => store.seed(seed, now).await,
        }
    }

    /// The oldest events that have not been published, at most `max`. Where several instances
    /// share the store, no two have events of the same key at a time, and the answer may be empty
    /// because another has them all.
    pub async fn take_outbox(&self, max: u32) -> Result<Outbox, Fault> {
        match self {
            Self::Sqlite(store) => Ok(Outbox { rows: store.take_outbox(max).await?, claim: None }),
            Self::Mysql(store) => store.take_outbox(max).await,
        }
    }

    /// The outbox id of the latest event ever written, published or not; 0 where there is none.
    pub async fn last_event(&self) -> Result<i64, Fault> {
        match self {
            Self::Sqlite(store) => store.last_event().await,
            Self::Mysql(store) => store.last_event().await,
        }
    }

    /// Records that these events were published, and forgets them.
    pub async fn mark_published(&self, outbox: Outbox) -> Result<(), Fault> {
        match self {
            Self::Sqlite(store) => {
                store.mark_published(outbox.rows.iter().map(|row| row.id).collect()).await
            }
            Self::Mysql(store) => store.mark_published(outbox).await,
        }
    }

    /// A value that belongs to the store as a whole, such as the signing key. Where `fresh` is
    /// given and there is none yet, that becomes the value.
    pub async fn setting(
        &self,
        name: &'static str,
        fresh: Option<String>,
    ) -> Result<Option<String>, Fault> {
        match self {
            Self::Sqlite(store) => store.setting(name, fresh).await,
            Self::Mysql(store) => store.setting(name, fresh).await,
        }
    }

    /// Replaces such a value.
    pub async fn set_setting(&self, name: &'static str, value: String) -> Result<(), Fault> {
        match self {
            Self::Sqlite(store) => store.set_setting(name, value).await,
            Self::Mysql(store) => store.set_setting(name, value).await,
        }
    }

    /// Checks the invariants that the store can see, on one consistent snapshot.
    pub async fn audit(&self, now: Timestamp) -> Result<Vec<Finding>, Fault> {
        match self {
            Self::Sqlite(store) => store.audit(now).await,
            Self::Mysql(store) => store.audit(now).await,
        }
    }

    /// How the store is doing, for metrics.
    pub fn stats(&self) -> &StoreStats {
        match self {
            Self::Sqlite(store) => store.stats(),
            Self::Mysql(store) => store.stats(),
        }
    }

    /// Commits what is waiting and closes the store. Later operations are refused.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Mysql(store) => store.close().await,
        }
    }
}
