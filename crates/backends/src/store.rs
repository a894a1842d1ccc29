//! The store: every operation is a whole business operation, atomic and durable when it answers.
//!
//! What sells is a [`Command`]: all stores execute it in the same way, many in one transaction (see
//! `batch`). The rest (queues, what is for sale, settings, events on their way out) are operations
//! of their own.
//!
//! Time does not go back here: an operation that comes with an earlier time than one that was
//! decided before it is decided at that later time.

mod act;
mod batch;
mod beat;
mod catalog;
mod chain;
mod choosing;
mod clock_check;
mod columns;
mod database_time;
mod digest;
#[cfg(feature = "simulation")]
pub mod distant;
mod draws;
mod epochs;
mod memory;
mod mysql;
mod numbers;
mod plans;
mod signing_keys;
mod sqlite;
mod stats;
mod types;

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::ids::{
    ConcertId, PaymentId, QueueName, ReservationId, SeatId, SessionId, UserId,
};
use boxoffice_domain::invariant::Finding;
use boxoffice_domain::queue::{Drawn, QueueSettings, SettingsChange};
use boxoffice_domain::sales::{Reservation, Seat, SeatState};
use boxoffice_domain::seating::Wish;
use boxoffice_domain::time::Timestamp;
use tokio::time::Instant;

pub use act::{
    Act, ActRejected, Acted, Answering, ConcertChange, Condition, Effect, LogEntry, Note, Role,
    Stood, StoredOperator, change_back, settings_tag,
};
pub use beat::{Beat, Beats, OtherBeat, Present, Rules};
pub use boxoffice_domain::command::{
    Answer, Best, CallOff, CalledOff, Cancel, Charge, Command, Expire, IdempotencyKey, LeaveQueue,
    Outcome, Pay, Payment, PointsRejected, Refund, RefundRefused, Refunded, ReservationRejected,
    Reserve, ReserveRejected, TicketRef,
};
pub use catalog::{Catalog, Inventory, Priced};
pub use chain::{Head, Link, LogPart};
pub use clock_check::{CLOCK_BOUND_MS, ClockCheck};
pub use database_time::DatabaseTime;
pub use digest::Digest;
pub(crate) use draws::order;
pub use draws::{DrawSeed, draw, is_as_committed};
pub use epochs::Epochs;
pub use memory::{Kept, MemoryStore};
pub use mysql::{MysqlOptions, MysqlServer, MysqlStore, MysqlTls};
pub use numbers::{Grant, GrantRequest, Taken};
pub use plans::{PLAN_BYTES_MAX, StoredPlan};
pub use signing_keys::{Rotation, SigningKey, SigningRing};
pub use sqlite::{Restore, SqliteOptions, SqliteStore, backup as sqlite_backup};
pub use stats::{Commit, CommitObserver, StoreStats};
pub(crate) use types::ALIAS_KEPT_MS;
pub use types::{
    AddedSeats, Advance, Alias, AliasExists, Became, Checkpoint, DrawRequest, NewConcert,
    NewPerson, NewSeats, Part, Person, Progress, ReservationFilter, Seating, Seed, ShortenLog,
    SpentBy, StoredQueue,
};

pub use crate::cloud_event::OutboxRow;
use crate::planted::{Bug, planted};
use crate::{Error, Fault, Tasks};

/// Events on their way out, and whatever keeps others from carrying the same ones. Dropped without
/// having been marked as published, they are there for the next one who asks.
pub struct Outbox {
    /// The events, oldest first.
    pub rows: Vec<OutboxRow>,
    /// What the store holds for them meanwhile; a store with one instance needs nothing.
    shards: Option<mysql::HeldShards>,
}

/// The store in use.
#[derive(Clone)]
pub enum Store {
    /// A SQLite file.
    Sqlite(Arc<SqliteStore>),
    /// A MySQL or MariaDB database, which several instances may share.
    Mysql(Arc<MysqlStore>),
    /// Maps in memory, for tests and simulations.
    Memory(Arc<MemoryStore>),
    /// One of the others, at the end of a simulated network.
    #[cfg(feature = "simulation")]
    Distant(Arc<distant::Distant>),
}

/// How a store operation ends.
pub type StoreResult<T, R> = Result<T, Error<R>>;

/// Calls the same method of whichever store it is, and waits for the answer: what goes over the
/// network to a store that is not here.
macro_rules! forward {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Store::Sqlite($store) => $call,
            Store::Mysql($store) => $call,
            Store::Memory($store) => $call,
            #[cfg(feature = "simulation")]
            Store::Distant(distant) => {
                let work = async move |near| match &near {
                    distant::Near::Sqlite($store) => $call,
                    distant::Near::Memory($store) => $call,
                };
                distant.call(stringify!($call), work).await
            }
        }
    };
}

/// The same for what is known without asking the store.
macro_rules! at_hand {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Store::Sqlite($store) => $call,
            Store::Mysql($store) => $call,
            Store::Memory($store) => $call,
            #[cfg(feature = "simulation")]
            Store::Distant(distant) => match &distant.near {
                distant::Near::Sqlite($store) => $call,
                distant::Near::Memory($store) => $call,
            },
        }
    };
}

/// Takes the answer to a command apart. Another kind of answer than was asked for is a mistake of
/// the program.
macro_rules! answer_of {
    ($kind:ident, $outcome:expr) => {
        match $outcome {
            Ok(Outcome::$kind(answer)) => Error::flatten(Ok(answer)),
            Ok(other) => Err(Fault::Corrupt(format!("the answer is {other:?}")).into()),
            Err(fault) => Err(fault.into()),
        }
    };
}

/// Holds that are tidied up at a time, so that a sweep of many leaves room for buyers.
const EXPIRE_STEP: u32 = 100;

impl Store {
    /// The background work on this store. Whoever runs the service ends it where any of it is lost.
    pub fn tasks(&self) -> &Tasks {
        match self {
            #[cfg(feature = "simulation")]
            Self::Distant(distant) => distant.tasks(),
            _ => at_hand!(self, store => store.tasks()),
        }
    }

    /// The concerts, sessions and seats as of the last commit.
    pub fn catalog(&self) -> Arc<Catalog> {
        at_hand!(self, store => store.catalog())
    }

    /// The seats with these ids, as far as it is certain what has become of them: a seat that may
    /// have come free without our knowing counts as free. So what is refused on them is refused
    /// rightly. `None` where there may be seats that this instance has not heard of yet.
    pub fn seats_for_refusal(
        &self,
        inventory: &Inventory,
        seats: &[SeatId],
    ) -> Option<Vec<Option<Seat>>> {
        match self {
            Self::Sqlite(_) | Self::Memory(_) => Some(inventory.find(seats)),
            Self::Mysql(store) => store.seats_for_refusal(inventory, seats),
            #[cfg(feature = "simulation")]
            Self::Distant(_) => Some(inventory.find(seats)),
        }
    }

    /// How many of the seats that fit a wish may be free at `now`, as far as the wish goes. So who is refused
    /// for want of seats is refused rightly. `None` where there may be seats that this instance has not heard of.
    pub fn seats_left_for_refusal(
        &self,
        inventory: &Inventory,
        wish: &Wish,
        now: Timestamp,
    ) -> Option<u32> {
        match self {
            Self::Sqlite(_) | Self::Memory(_) => {
                Some(inventory.left_for(wish, |state| state.is_free(now)))
            }
            // Others may have given back what they held, and a hall gets no more seats.
            Self::Mysql(_) => inventory.plan().is_some().then(|| {
                inventory.left_for(wish, |state| !matches!(state, SeatState::Sold { .. }))
            }),
            #[cfg(feature = "simulation")]
            Self::Distant(_) => Some(inventory.left_for(wish, |state| state.is_free(now))),
        }
    }

    /// Executes a command of the sale, together with whatever else waits.
    async fn execute(&self, command: Command) -> Result<Outcome, Fault> {
        self.clock_correction_ms()?;
        forward!(self, store => batch::answered(store.sales.ask(command)?).await)
    }

    /// Holds seats: all or none.
    pub async fn reserve(
        &self,
        request: Reserve,
    ) -> StoreResult<Answer<Reservation>, ReserveRejected> {
        answer_of!(Reserve, self.execute(Command::Reserve(request)).await)
    }

    /// Pays for a reservation: points, seats, ticket and event together.
    pub async fn pay(&self, request: Pay) -> StoreResult<Answer<Payment>, ReservationRejected> {
        answer_of!(Pay, self.execute(Command::Pay(request)).await)
    }

    /// Gives a hold back; its seats are free at once.
    pub async fn cancel(
        &self,
        reservation: ReservationId,
        user: UserId,
        now: Timestamp,
    ) -> StoreResult<(), ReservationRejected> {
        self.give_back(Cancel { reservation, user, release_delay: Duration::ZERO, now }).await
    }

    /// Gives a hold back; its seats are free some time later.
    pub async fn give_back(&self, request: Cancel) -> StoreResult<(), ReservationRejected> {
        answer_of!(Cancel, self.execute(Command::Cancel(request)).await)
    }

    /// Charges points; returns the balance afterwards.
    pub async fn charge(&self, request: Charge) -> StoreResult<Answer<i64>, PointsRejected> {
        answer_of!(Charge, self.execute(Command::Charge(request)).await)
    }

    /// Gives the points of a payment back; its seats are free some time later.
    pub async fn refund(&self, request: Refund) -> StoreResult<Answer<Refunded>, RefundRefused> {
        answer_of!(Refund, self.execute(Command::Refund(request)).await)
    }

    /// Records that a ticket was given up: in the line (`waiting`), or after its admission.
    pub async fn leave_queue(
        &self,
        ticket: TicketRef,
        waiting: bool,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let command = Command::LeaveQueue(LeaveQueue { ticket, waiting, now });
        self.execute(command).await.map(|_| ())
    }

    /// The balance of a user; 0 for one never heard of.
    pub async fn balance(&self, user: UserId) -> Result<i64, Fault> {
        forward!(self, store => store.balance(user).await)
    }

    /// Whether a ticket has paid, or was given up.
    pub async fn is_spent(&self, ticket: TicketRef) -> Result<bool, Fault> {
        forward!(self, store => store.is_spent(ticket).await)
    }

    /// A reservation, with the end of its hold (also once it is settled).
    pub async fn reservation(
        &self,
        id: ReservationId,
    ) -> Result<Option<(Reservation, Timestamp)>, Fault> {
        forward!(self, store => store.reservation(id).await)
    }

    /// The payment with this id.
    pub async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Fault> {
        forward!(self, store => store.payment(id).await)
    }

    /// A user's reservations, the newest first, at most `max` of them: those made before `after`, where
    /// one is given. Each with the end of its hold.
    pub async fn reservations_of(
        &self,
        user: UserId,
        after: Option<ReservationId>,
        max: u32,
    ) -> Result<Vec<(Reservation, Timestamp)>, Fault> {
        let rows = forward!(self, store => store.reservations_of(user, after, max).await)?;
        Ok(rows.into_iter().map(|row| (row.reservation, row.until)).collect())
    }

    /// Tidies up at most `max` holds that ran out by `now`; returns how many. Nothing depends on
    /// when this runs but the event that tells of it. Holds that somebody has under a lock are left
    /// for the next time.
    pub async fn expire_due(&self, now: Timestamp, max: u32) -> Result<u32, Fault> {
        self.clock_correction_ms()?;
        #[cfg(feature = "simulation")]
        if let Self::Distant(distant) = self {
            let sweep = move |near: distant::Near| near.expire_due(now, max);
            return distant.call("expire_due", sweep).await;
        }
        let ahead = if planted(Bug::SweepAhead) { 10 } else { 0 };
        let now = now.plus(Duration::from_secs(ahead));
        let now = at_hand!(self, store => store.sales.not_before(now));
        let mut ended = 0;
        let mut left = max;
        while left > 0 {
            let step = EXPIRE_STEP.min(left);
            let due = forward!(self, store => store.due(now, step).await)?;
            let found = u32::try_from(due.len()).unwrap_or(step);
            let asked = due
                .into_iter()
                .map(|reservation| Command::Expire(Expire { reservation, now }))
                .map(|command| at_hand!(self, store => store.sales.ask(command)))
                .collect::<Result<Vec<_>, _>>()?;
            let before = ended;
            for answer in asked {
                if batch::answered(answer).await? == Outcome::Expire(true) {
                    ended += 1;
                }
            }
            let ended_now = ended - before;
            left -= ended_now;
            // Of what was asked for at once, one batch may have kept some locked from another.
            let is_all = found < step && ended_now == found;
            if is_all || ended_now == 0 {
                break;
            }
        }
        Ok(ended)
    }

    /// Returns the id of each of these people, in their order. Whoever is seen for the first time gets the
    /// next free one, or the one that they bring along; `None` where that is another person's.
    ///
    /// No account has an id before its person has it, so nobody gets another's points.
    pub async fn people(
        &self,
        people: Vec<NewPerson>,
        now: Timestamp,
    ) -> Result<Vec<Option<UserId>>, Fault> {
        forward!(self, store => store.people(people, now).await)
    }

    /// Forgets idempotency keys older than `keep`, at most `max` of them; returns how many.
    pub async fn forget_keys(
        &self,
        now: Timestamp,
        keep: Duration,
        max: u32,
    ) -> Result<u32, Fault> {
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp(now.0.saturating_sub(keep_ms));
        forward!(self, store => store.forget_keys(before, max).await)
    }

    /// Every queue as stored.
    pub async fn queues(&self) -> Result<Vec<StoredQueue>, Fault> {
        forward!(self, store => store.queues().await)
    }

    /// Makes a queue; does nothing where it exists. Returns whether it is new.
    pub async fn create_queue(
        &self,
        name: QueueName,
        settings: QueueSettings,
    ) -> Result<bool, Fault> {
        self.create_queue_drawn(name, settings, None).await
    }

    /// The same for a queue with an opening draw, where there is a seed.
    pub async fn create_queue_drawn(
        &self,
        name: QueueName,
        settings: QueueSettings,
        seed: Option<DrawSeed>,
    ) -> Result<bool, Fault> {
        forward!(self, store => store.create_queue(name, settings, seed).await)
    }

    /// Draws, at the opening, those who joined before it. Returns the draw; an earlier one, where there was
    /// one. `None` where the queue is not to be drawn, or not yet.
    pub async fn draw(&self, request: DrawRequest) -> Result<Option<Drawn>, Fault> {
        forward!(self, store => store.draw(request).await)
    }

    /// Changes how a queue admits, and takes the credit that it has saved up. Returns how it admits
    /// from now on. What the change does not name stays, whoever changes it at the same time. One that would
    /// move an opening that was drawn changes nothing.
    pub async fn change_queue(
        &self,
        name: QueueName,
        change: SettingsChange,
    ) -> Result<QueueSettings, Fault> {
        forward!(self, store => store.change_queue(name, change).await)
    }

    /// Makes the state of some queues durable, and the time with it. Counters never go back, but
    /// for a watermark that returns to `next` when the service ends in good order.
    pub async fn checkpoint(&self, queues: Vec<Checkpoint>, now: Timestamp) -> Result<(), Fault> {
        forward!(self, store => store.checkpoint(queues, now).await)
    }

    /// Grants a pool in Redis the numbers behind those that it has. Numbers are granted once, and only
    /// a repeated request gets the same ones again.
    pub async fn grant_numbers(&self, request: GrantRequest) -> Result<Grant, Fault> {
        forward!(self, store => store.grant_numbers(request).await)
    }

    /// Takes the next `count` numbers of a queue for tickets of this moment, unless an instance has had
    /// Redis within the last two seconds. They count as given.
    pub async fn take_numbers(&self, queue: QueueName, count: u64) -> Result<Taken, Fault> {
        forward!(self, store => store.take_numbers(queue, count).await)
    }

    /// Tells the other instances that this one is there, and hears what they have told.
    pub async fn beat(&self, beat: Beat) -> Result<Beats, Fault> {
        forward!(self, store => store.beat(beat).await)
    }

    /// The database's time; the system's where the store is no server.
    pub async fn database_now(&self) -> Result<Timestamp, Fault> {
        forward!(self, store => store.database_now().await)
    }

    /// How the clock here compares with that of the database, where the store has one of its own.
    pub fn clock_check(&self) -> Option<&ClockCheck> {
        match self {
            Self::Sqlite(_) | Self::Memory(_) => None,
            Self::Mysql(store) => Some(store.clock_check()),
            #[cfg(feature = "simulation")]
            Self::Distant(distant) => Some(distant.clock_check()),
        }
    }

    /// Compares the clock here, which says `now`, with that of the database. Returns the database's time;
    /// `None` where it has no clock of its own.
    pub async fn compare_clocks(&self, now: Timestamp) -> Result<Option<Timestamp>, Fault> {
        let Some(check) = self.clock_check() else { return Ok(None) };
        let began = Instant::now();
        let database = self.database_now().await?;
        check.note(now, began.elapsed(), database);
        Ok(Some(database))
    }

    /// How many milliseconds to take from the clock here to have the time that the database vouches for.
    ///
    /// # Errors
    /// Where the two are too far apart for anything that depends on time; the text says by how much.
    pub fn clock_correction_ms(&self) -> Result<i64, Fault> {
        self.clock_check().map_or(Ok(0), ClockCheck::correction_ms)
    }

    /// The time of the database, as far as that is known, where the clock here says `now`.
    pub fn vouched(&self, now: Timestamp) -> Timestamp {
        let Some(check) = self.clock_check() else { return now };
        let off_ms = check.correction_ms().unwrap_or_else(|_| check.ahead_ms().unwrap_or(0));
        Timestamp(now.0.saturating_sub(off_ms))
    }

    /// Makes a step of admission durable, and the time with it. Returns false, and does nothing,
    /// where the queue has admitted or was changed since the step was planned, or its time is not the
    /// database's: the planner is to look again.
    pub async fn advance(&self, step: Advance, now: Timestamp) -> Result<bool, Fault> {
        forward!(self, store => store.advance(step, now).await)
    }

    /// Makes durable what is known of some queues, and the time with it. Several instances call
    /// this in any order: nothing goes back. A floor counts up to what was admitted.
    pub async fn record(&self, progress: Vec<Progress>, now: Timestamp) -> Result<(), Fault> {
        forward!(self, store => store.record(progress, now).await)
    }

    /// Stores opaque tokens: all or none.
    pub async fn add_aliases(&self, aliases: Vec<Alias>) -> StoreResult<(), AliasExists> {
        forward!(self, store => store.add_aliases(aliases).await)
    }

    /// Every opaque token, but for those that ran out more than a day before `now`.
    pub async fn aliases(&self, now: Timestamp) -> Result<Vec<Alias>, Fault> {
        forward!(self, store => store.aliases(now).await)
    }

    /// The latest time that the store has seen.
    pub async fn clock(&self) -> Result<Timestamp, Fault> {
        forward!(self, store => store.clock().await)
    }

    /// Takes back what was stored at times after `now`, because a clock was wrong: it happened now. Holds
    /// that were made then end. Returns how many rows were changed.
    pub async fn set_back(&self, now: Timestamp) -> Result<u64, Fault> {
        forward!(self, store => store.set_back(now).await)
    }

    /// Does what an operator asks, and writes down who asked and what it changed, in one transaction.
    /// Asked again under the same key, it gives the first answer and does nothing.
    pub async fn act(&self, act: Act, note: Note) -> StoreResult<Acted, ActRejected> {
        // Tokens that are active until the wrong time. All else that an act writes down has no part in
        // who may do what, and a queue has to be paused by any clock.
        if matches!(act, Act::Issue(..)) {
            self.clock_correction_ms()?;
        }
        forward!(self, store => store.act(act, note).await)
    }

    /// What an operator was answered under the key of this note, where that was asked before.
    pub async fn acted_before(&self, note: &Note) -> StoreResult<Option<String>, ActRejected> {
        let Some((key, fingerprint)) = note.key.clone() else { return Ok(None) };
        let who = note.who.clone();
        let kept: Result<_, Fault> = forward!(self, store => store.kept(who, key).await);
        match kept? {
            None => Ok(None),
            Some((digest, answer)) if digest == fingerprint => Ok(Some(answer)),
            Some(_) => Err(Error::Rejected(ActRejected::KeyReused)),
        }
    }

    /// The operators whose tokens are good, by name.
    pub async fn operators(&self) -> Result<Vec<StoredOperator>, Fault> {
        forward!(self, store => store.operators().await)
    }

    /// Reservations behind this id.
    pub async fn list_reservations(
        &self,
        after: i64,
        max: u32,
        filter: ReservationFilter,
    ) -> Result<Part<(Reservation, Timestamp)>, Fault> {
        forward!(self, store => store.list_reservations(after, max, filter).await)
    }

    /// The first of those whom their issuers call so: at most 20, because a name is one person's at an issuer.
    pub async fn people_named(&self, name: String) -> Result<Vec<UserId>, Fault> {
        forward!(self, store => store.people_named(name).await)
    }

    /// Payments behind this id, each with who paid.
    pub async fn list_payments(
        &self,
        after: i64,
        max: u32,
    ) -> Result<Part<(Payment, UserId)>, Fault> {
        forward!(self, store => store.list_payments(after, max).await)
    }

    /// Those who have an account, behind this id.
    pub async fn list_people(&self, after: i64, max: u32) -> Result<Part<Person>, Fault> {
        forward!(self, store => store.list_people(after, max).await)
    }

    /// What operators have changed before the entry of this number, the latest first.
    pub async fn log(&self, before: i64, max: u32) -> Result<Vec<LogEntry>, Fault> {
        forward!(self, store => store.log(before, max).await)
    }

    /// The records of the admission log of a queue behind the number `after`, or from the oldest that is kept,
    /// at most `max` of them. `None` where there is no such queue.
    pub async fn admission_log(
        &self,
        queue: QueueName,
        after: Option<u64>,
        max: u32,
    ) -> Result<Option<LogPart>, Fault> {
        forward!(self, store => store.admission_log(queue, after, max).await)
    }

    /// Forgets what is old of an admission log, and has it say where the queue stands, so that it can be read
    /// from there on. Returns how many records were forgotten.
    pub async fn shorten_log(&self, shorten: ShortenLog) -> Result<u64, Fault> {
        forward!(self, store => store.shorten_log(shorten).await)
    }

    /// Settles reservations of sessions that were called off: holds end, payments are refunded. Doing
    /// it again, here or elsewhere, does nothing. Returns what has become of each.
    pub async fn settle_called_off(
        &self,
        reservations: &[ReservationId],
        now: Timestamp,
    ) -> Result<Vec<CalledOff>, Fault> {
        self.clock_correction_ms()?;
        #[cfg(feature = "simulation")]
        if let Self::Distant(_) = self {
            return Err(Fault::Unavailable("a simulated cluster calls nothing off".into()));
        }
        let asked = reservations
            .iter()
            .map(|reservation| Command::CallOff(CallOff { reservation: *reservation, now }))
            .map(|command| at_hand!(self, store => store.sales.ask(command)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut settled = Vec::with_capacity(asked.len());
        for answer in asked {
            match batch::answered(answer).await? {
                Outcome::CallOff(what) => settled.push(what),
                other => return Err(Fault::Corrupt(format!("the answer is {other:?}"))),
            }
        }
        Ok(settled)
    }

    /// How many payments of a session were refunded because it was called off.
    pub async fn refunded(&self, session: SessionId) -> Result<u64, Fault> {
        forward!(self, store => store.refunded(session).await)
    }

    /// Makes a concert.
    pub async fn create_concert(&self, concert: NewConcert) -> Result<ConcertId, Fault> {
        forward!(self, store => store.create_concert(concert).await)
    }

    /// Makes a session with its first seats. `None` where there is no such concert.
    pub async fn create_session(
        &self,
        concert: ConcertId,
        starts_at: Timestamp,
        seats: impl Into<Seating>,
    ) -> Result<Option<(SessionId, Vec<AddedSeats>)>, Fault> {
        let seats = seats.into();
        forward!(self, store => store.create_session(concert, starts_at, seats).await)
    }

    /// Adds seats to a session. `None` where the concert has no such session, or it has a plan.
    pub async fn add_seats(
        &self,
        concert: ConcertId,
        session: SessionId,
        seats: NewSeats,
    ) -> Result<Option<AddedSeats>, Fault> {
        forward!(self, store => store.add_seats(concert, session, seats).await)
    }

    /// Puts a first stock in: all or nothing, so that a crash does not leave half of it.
    pub async fn seed(&self, seed: Seed, now: Timestamp) -> Result<(), Fault> {
        forward!(self, store => store.seed(seed, now).await)
    }

    /// The oldest events that have not been published, at most `max`. Where several instances
    /// share the store, no two have events of the same key at a time, and the answer may be empty
    /// because another has them all.
    pub async fn next_events(&self, max: u32) -> Result<Outbox, Fault> {
        match self {
            Self::Sqlite(store) => Ok(Outbox { rows: store.next_events(max).await?, shards: None }),
            Self::Mysql(store) => {
                let (rows, shards) = store.next_events(max).await?;
                Ok(Outbox { rows, shards: Some(shards) })
            }
            Self::Memory(store) => Ok(Outbox { rows: store.next_events(max), shards: None }),
            #[cfg(feature = "simulation")]
            Self::Distant(distant) => {
                let read = move |near: distant::Near| near.next_events(max);
                distant.call("next_events", read).await
            }
        }
    }

    /// The outbox id of the latest event ever written, published or not; 0 where there is none.
    pub async fn last_event(&self) -> Result<i64, Fault> {
        forward!(self, store => store.last_event().await)
    }

    /// Records that these events were published, and forgets them.
    pub async fn mark_published(&self, outbox: Outbox) -> Result<(), Fault> {
        match self {
            Self::Sqlite(store) => {
                store.mark_published(outbox.rows.iter().map(|row| row.id).collect()).await
            }
            Self::Mysql(store) => store.mark_published(outbox.rows, outbox.shards).await,
            Self::Memory(store) => {
                store.mark_published(outbox.rows.iter().map(|row| row.id).collect());
                Ok(())
            }
            #[cfg(feature = "simulation")]
            Self::Distant(distant) => {
                let mark = move |near: distant::Near| near.mark_published(outbox);
                distant.call("mark_published", mark).await
            }
        }
    }

    /// A value that belongs to the store as a whole, such as the signing key. Where `fresh` is
    /// given and there is none yet, that becomes the value.
    pub async fn setting(
        &self,
        name: &'static str,
        fresh: Option<String>,
    ) -> Result<Option<String>, Fault> {
        forward!(self, store => store.setting(name, fresh).await)
    }

    /// Replaces such a value.
    pub async fn set_setting(&self, name: &'static str, value: String) -> Result<(), Fault> {
        forward!(self, store => store.set_setting(name, value).await)
    }

    /// The epochs of the tickets.
    ///
    /// # Errors
    /// Where the store cannot be read, or what it says of them makes no sense.
    pub async fn epochs(&self) -> Result<Epochs, Fault> {
        let text = self.setting(epochs::EPOCHS, None).await?.unwrap_or_default();
        Epochs::from_text(&text)
            .ok_or_else(|| Fault::Corrupt(format!("the setting {} is {text:?}", epochs::EPOCHS)))
    }

    /// The keys that the service signs with in public. Where there are none yet, `fresh` becomes the first.
    ///
    /// # Errors
    /// Where the store cannot be read, or what it says of them makes no sense.
    pub async fn signing_keys(&self, fresh: Option<SigningKey>) -> Result<SigningRing, Fault> {
        let fresh = fresh.map(|key| SigningRing::of(key).to_text());
        let text = self.setting(signing_keys::SIGNING_KEYS, fresh).await?.unwrap_or_default();
        // The text has the secret halves.
        SigningRing::from_text(&text)
            .ok_or_else(|| Fault::Corrupt("the setting signing.keys makes no sense".to_owned()))
    }

    /// Whether the store is the copy of a backup, and no restore has begun an epoch of its own: it would
    /// give numbers again that were given after the backup.
    pub async fn is_copy(&self) -> Result<bool, Fault> {
        let of = self.setting(epochs::BACKUP_OF, None).await?;
        let current = self.epochs().await?.current().to_string();
        Ok(of.is_some_and(|of| of == current))
    }

    /// Checks the invariants that the store can see, on one consistent snapshot.
    pub async fn audit(&self, now: Timestamp) -> Result<Vec<Finding>, Fault> {
        // Where instances share it, one whose clock is ahead by no more than the bound may have given seats to the
        // next buyer already.
        let ahead_ms = if self.clock_check().is_some() { CLOCK_BOUND_MS } else { 0 };
        let now = Timestamp(now.0.saturating_add(ahead_ms));
        forward!(self, store => store.audit(now).await)
    }

    /// How the store is doing, for metrics.
    pub fn stats(&self) -> &StoreStats {
        at_hand!(self, store => store.stats())
    }

    /// Commits what is waiting and closes the store. Later operations are refused.
    pub async fn close(&self) {
        match self {
            // The others still have it.
            #[cfg(feature = "simulation")]
            Self::Distant(_) => {}
            _ => at_hand!(self, store => store.close().await),
        }
    }
}
