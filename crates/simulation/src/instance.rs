//! One instance: the parts of the service that are simulated, put together as `crates/server` does, and
//! the checks that its handlers make.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use boxoffice_backends::sequencer::{
    PresentedTicket, Queue, RedisMode, RedisOptions, RedisSequencer, Sequencer,
};
use boxoffice_backends::simulation::{Endpoint, Gate, SimulatedRedis};
use boxoffice_backends::store::{
    Charge, IdempotencyKey, Pay, ReservationRejected, Reserve, ReserveRejected, Rules, Store,
    TicketRef,
};
use boxoffice_backends::{Error, Fault};
use boxoffice_domain::command::refusal_from_memory;
use boxoffice_domain::ids::{QueueName, ReservationId, SeatId, TicketId, UserId};
use boxoffice_domain::queue::{Ending, Place, QueueSettings, SaleRules, SettingsChange, Ticket};
use boxoffice_domain::sales::{HoldRejected, Limits, SettleRejected};
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use crate::timeline::EPOCH_MS;

/// The name of the queue.
pub const QUEUE: &str = "main";
const TICK: Duration = Duration::from_millis(100);
const SWEEP: Duration = Duration::from_millis(500);
const SWEEP_MAX: u32 = 500;
const RELAY: Duration = Duration::from_millis(200);
const RELAY_MAX: u32 = 256;
const BEAT: Duration = Duration::from_millis(500);
/// An instance whose beats are not answered for so long does not reach its store.
const BEAT_MISSED_US: u64 = 3_000_000;
const STORED_AHEAD_MAX: Duration = Duration::from_secs(60);
const DRIFT_MAX_MS: i64 = 2_000;

/// Microseconds since the beginning, for those who may ask.
pub type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The wall clock of a machine: how far it is ahead, in milliseconds.
pub type Ahead = Arc<AtomicI64>;

/// Where events go: the id, the key, the event.
pub type Sink = Arc<dyn Fn(Vec<(i64, i64, String)>) + Send + Sync>;

/// The clock of an instance, by the rules of `server::clock`.
pub struct Clock {
    now: Now,
    ahead_ms: Ahead,
    anchor_us: u64,
    base_ms: AtomicI64,
}

impl Clock {
    fn start(now: Now, ahead_ms: Ahead, floor: Timestamp) -> Self {
        let anchor_us = now();
        let clock = Self { now, ahead_ms, anchor_us, base_ms: AtomicI64::new(0) };
        let wall = clock.wall_ms();
        clock.base_ms.store(wall.max(floor.0), Ordering::Relaxed);
        clock
    }

    fn wall_ms(&self) -> i64 {
        EPOCH_MS + ((self.now)() / 1_000) as i64 + self.ahead_ms.load(Ordering::Relaxed)
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        let elapsed_us = (self.now)() - self.anchor_us;
        Timestamp(self.base_ms.load(Ordering::Relaxed) + (elapsed_us / 1_000) as i64)
    }

    fn follow(&self) {
        let ahead_ms = self.wall_ms() - self.now().0;
        if ahead_ms.abs() <= DRIFT_MAX_MS {
            self.base_ms.fetch_add(ahead_ms.clamp(-1, 1), Ordering::Relaxed);
        }
    }
}

/// What an instance is started with.
pub struct Start {
    pub(crate) number: usize,
    /// How often it was started before.
    pub(crate) life: u64,
    pub(crate) store: Store,
    pub(crate) redis: Arc<dyn Endpoint>,
    pub(crate) queue: QueueSettings,
    pub(crate) sale_rules: Option<SaleRules>,
    pub(crate) call_timeout: Duration,
    pub(crate) turn: Duration,
    pub(crate) limits: Limits,
    pub(crate) now: Now,
    pub(crate) ahead_ms: Ahead,
    pub(crate) sink: Sink,
}

/// An instance that runs.
pub struct Instance {
    store: Store,
    pub(crate) sequencer: Sequencer,
    pub(crate) clock: Clock,
    limits: Limits,
    sink: Sink,
    draining: AtomicBool,
    in_flight: Mutex<BTreeSet<(UserId, String)>>,
    number: usize,
    life: u64,
    ids: AtomicU64,
    /// When the last beat was answered.
    beat_us: AtomicU64,
}

/// What a client sends.
#[derive(Clone, Debug)]
pub enum Ask {
    /// To join.
    Join(UserId),
    /// Where the ticket stands.
    Poll(Ticket),
    /// To give the ticket up.
    Leave(Ticket),
    /// To hold seats.
    Hold(Ticket, Vec<SeatId>, Option<String>),
    /// To pay.
    Pay(Ticket, ReservationId, Option<String>),
    /// To give a hold back.
    GiveBack(Ticket, ReservationId),
    /// To charge points.
    Charge(UserId, i64, String),
    /// As an operator: to change the queue.
    Change(SettingsChange),
}

/// Where a ticket stands, as a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In the line.
    Waiting(u64),
    /// In the line, and to be drawn.
    Undrawn,
    /// Let in.
    Active,
    /// Over, and why.
    Over(Ending),
}

/// What a client is told.
#[derive(Clone, Debug)]
pub enum Told {
    /// A new ticket, where it stands, and when to poll, in milliseconds.
    Joined(Ticket, Standing, u64),
    /// Where the ticket stands, and when to poll again, in milliseconds.
    Place(Standing, u64),
    /// The hold.
    Held(ReservationId),
    /// That it is paid.
    Paid(ReservationId),
    /// That points are charged, and how many there are.
    Charged(i64),
    /// That it is done.
    Done,
    /// 4xx: a rule forbids it.
    Refused(Refusal),
    /// 503: nothing has happened.
    Unavailable,
    /// 500 or 504: it may have happened.
    Unknown,
    /// There was no answer.
    Broken,
}

/// Why a rule forbids something, as far as clients act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The ticket is not active.
    NotActive,
    /// The ticket is spent.
    Spent,
    /// Somebody has the seat.
    Taken,
    /// The hold ran out, or was given back.
    Gone,
    /// It is paid already.
    AlreadyPaid,
    /// A request with the same key is in progress.
    InProgress,
    /// Anything else.
    Other,
}

impl Instance {
    /// Starts an instance; what it does in the background belongs to the process of the current task.
    ///
    /// # Errors
    /// As the service, where it cannot start.
    pub async fn open(start: Start) -> Result<Arc<Self>, Fault> {
        let Start {
            number,
            life,
            store,
            redis,
            queue,
            sale_rules,
            call_timeout,
            turn,
            limits,
            now,
            ahead_ms,
            sink,
        } = start;
        // As the service: what instances have seen binds none of them, and far ahead is refused.
        let clock = Clock::start(now, ahead_ms, Timestamp(0));
        let database = store.compare_clocks(clock.now()).await?.unwrap_or(clock.now());
        if store.clock().await?.since(database) > STORED_AHEAD_MAX {
            return Err(Fault::Unavailable("the store has seen a time far ahead".into()));
        }
        let options = RedisOptions {
            mode: RedisMode::Simulated(SimulatedRedis(redis)),
            nodes: vec![("redis".into(), 6379)],
            user: None,
            password: None,
            sentinel_password: None,
            database: 0,
            tls: false,
            tls_ca: None,
            prefix: "boxoffice".into(),
            call_timeout,
            connect_timeout: Duration::from_millis(1_000),
            turn,
            instance: format!("{number}-{life}"),
            ticket_keys: vec!["key".into()],
            one_place_each: false,
            epoch: 0,
            rules: Rules::default(),
            cluster: "cluster".into(),
            reserve: Duration::from_secs(30),
        };
        let opened = RedisSequencer::open(store.clone(), &queue, options, clock.now());
        let sequencer = opened.await?;

        let opened_us = (clock.now)();
        let instance = Arc::new(Self {
            store: store.clone(),
            sequencer: Sequencer::Redis(sequencer),
            clock,
            limits,
            sink,
            draining: AtomicBool::new(false),
            in_flight: Mutex::default(),
            number,
            life,
            ids: AtomicU64::new(0),
            beat_us: AtomicU64::new(opened_us),
        });
        instance.sequencer.beat(instance.clock.now()).await?;
        if let Some(rules) = sale_rules {
            instance.sequencer.follow_sales(rules, instance.clock.now());
        }
        instance.sequencer.govern();
        store.tasks().spawn("admission", instance.clone().admit());
        store.tasks().spawn("beats", instance.clone().beats());
        store.tasks().spawn("expiry of holds", instance.clone().sweep());
        store.tasks().spawn("relay", instance.clone().relay());
        Ok(instance)
    }

    async fn admit(self: Arc<Self>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.draining.load(Ordering::Relaxed) {
            ticks.tick().await;
            self.clock.follow();
            let _ = self.sequencer.tick(self.clock.now()).await;
        }
    }

    async fn beats(self: Arc<Self>) {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.draining.load(Ordering::Relaxed) {
            beats.tick().await;
            if self.sequencer.beat(self.clock.now()).await.is_ok() {
                self.beat_us.store((self.clock.now)(), Ordering::Relaxed);
            }
        }
    }

    async fn sweep(self: Arc<Self>) {
        let mut sweeps = interval(SWEEP);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.draining.load(Ordering::Relaxed) {
            sweeps.tick().await;
            while matches!(self.store.expire_due(self.clock.now(), SWEEP_MAX).await, Ok(SWEEP_MAX))
            {
            }
        }
    }

    async fn relay(self: Arc<Self>) {
        let mut looks = interval(RELAY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.draining.load(Ordering::Relaxed) {
            looks.tick().await;
            while let Ok(outbox) = self.store.next_events(RELAY_MAX).await {
                if outbox.rows.is_empty() {
                    break;
                }
                let told = outbox.rows.iter().map(|row| (row.id, row.key, row.body.clone()));
                (self.sink)(told.collect());
                if self.store.mark_published(outbox).await.is_err() {
                    break;
                }
            }
        }
    }

    /// Ends in good order.
    pub async fn stop(&self) {
        self.draining.store(true, Ordering::Relaxed);
        let _ = self.sequencer.close(self.clock.now()).await;
    }

    /// Whether it takes connections: one that ends has closed its listener first of all.
    pub fn listens(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }

    /// Whether a balancer should send it anything.
    pub fn is_ready(&self) -> bool {
        self.listens()
            && !self.store.tasks().any_lost()
            && !self.sequencer.are_joins_elsewhere()
            && self.store.clock_correction_ms().is_ok()
            // As the service, whose store says that the database does not answer.
            && (self.clock.now)() < self.beat_us.load(Ordering::Relaxed) + BEAT_MISSED_US
    }

    fn queue(&self) -> Option<Arc<Queue>> {
        self.sequencer.queue(QUEUE)
    }

    /// The answer to a poll.
    pub fn poll(&self, ticket: &Ticket) -> Told {
        let Some(queue) = self.queue() else { return Told::Refused(Refusal::Other) };
        let now = self.clock.now();
        let place = self.sequencer.place(&queue, &ticket.clone().into(), now);
        let jitter = ticket.seq.wrapping_mul(31).wrapping_add(now.0.unsigned_abs());
        let (standing, poll_after_ms) = told(place, &queue, now, jitter);
        Told::Place(standing, poll_after_ms)
    }

    /// The answer to any request.
    pub async fn answer(self: Arc<Self>, ask: Ask) -> Told {
        match ask {
            Ask::Join(user) => self.join(user).await,
            Ask::Poll(ticket) => self.poll(&ticket),
            Ask::Leave(ticket) => self.leave(ticket).await,
            Ask::Hold(ticket, seats, key) => self.hold(ticket, seats, key).await,
            Ask::Pay(ticket, reservation, key) => self.pay(ticket, reservation, key).await,
            Ask::GiveBack(ticket, reservation) => self.give_back(ticket, reservation).await,
            Ask::Charge(user, amount, key) => self.charge(user, amount, key).await,
            Ask::Change(change) => {
                let Some(queue) = self.queue() else { return Told::Refused(Refusal::Other) };
                let opens_at = change.opens_at;
                match self.sequencer.change(&queue, change).await {
                    // It was drawn: the handler refuses.
                    Ok(settings) if opens_at.is_some_and(|at| at != settings.opens_at) => {
                        Told::Refused(Refusal::Other)
                    }
                    Ok(_) => Told::Done,
                    Err(fault) => failed(&fault),
                }
            }
        }
    }

    async fn join(&self, user: UserId) -> Told {
        if self.draining.load(Ordering::Relaxed) {
            return Told::Unavailable;
        }
        let now = self.clock.now();
        let Some(queue) = self.queue() else { return Told::Refused(Refusal::Other) };
        let seq = match self.sequencer.join(&queue).await {
            Ok(seq) => seq,
            Err(fault) => return failed(&fault),
        };
        let ticket =
            Ticket { queue: queue.name().clone(), seq, user, issued_at: now, id: self.ticket_id() };
        let place = self.sequencer.place(&queue, &ticket.clone().into(), now);
        let (standing, poll_after_ms) = told(place, &queue, now, seq);
        Told::Joined(ticket, standing, poll_after_ms)
    }

    fn ticket_id(&self) -> TicketId {
        let mut id = [0; 16];
        id[0] = self.number as u8;
        id[1..8].copy_from_slice(&self.life.to_be_bytes()[1..]);
        id[8..].copy_from_slice(&self.ids.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        TicketId(id)
    }

    fn present(&self, ticket: Ticket) -> Option<(PresentedTicket, Arc<Queue>, Place, Timestamp)> {
        let queue = self.queue()?;
        let (pass, now) = (PresentedTicket::from(ticket), self.clock.now());
        let place = self.sequencer.place(&queue, &pass, now);
        Some((pass, queue, place, now))
    }

    async fn leave(self: Arc<Self>, ticket: Ticket) -> Told {
        let Some((pass, queue, place, now)) = self.present(ticket) else {
            return Told::Refused(Refusal::Other);
        };
        if matches!(place, Place::Over(_)) {
            return Told::Done;
        }
        match detached(async move { self.sequencer.leave(&queue, &pass, now).await }).await {
            Some(Ok(())) => Told::Done,
            Some(Err(fault)) => failed(&fault),
            None => Told::Unknown,
        }
    }

    async fn hold(
        self: Arc<Self>,
        ticket: Ticket,
        seats: Vec<SeatId>,
        key: Option<String>,
    ) -> Told {
        let Some((pass, queue, place, now)) = self.present(ticket) else {
            return Told::Refused(Refusal::Other);
        };
        let over = match place {
            Place::Active { .. } => None,
            Place::Over(ending) if key.is_some() => Some(ending),
            Place::Over(Ending::TimedOut) | Place::Waiting { .. } | Place::Undrawn => {
                return Told::Refused(Refusal::NotActive);
            }
            Place::Over(_) => return Told::Refused(Refusal::Spent),
        };
        let catalog = self.store.catalog();
        let found = catalog.concerts().find_map(|concert| {
            Some((concert.clone(), catalog.inventories(concert.id).first()?.clone()))
        });
        let Some((concert, inventory)) = found else { return Told::Refused(Refusal::Other) };
        let user = pass.ticket.user;
        let mut request = Reserve {
            user,
            ticket: TicketRef::from(&pass.ticket),
            ticket_over: over.is_some(),
            concert: concert.id,
            session: inventory.session().id,
            seats,
            best: None,
            beside: Vec::new(),
            limits: self.limits,
            release_delay: Duration::ZERO,
            idempotency: None,
            now,
        };
        if key.is_none()
            && let Some(known) = self.store.seats_for_refusal(&inventory, &request.seats)
            && let Some(why) = refusal_from_memory(&request, &concert, &inventory.session(), &known)
        {
            return hold_refused(why);
        }
        let Some(guard) = self.enter(user, key.as_deref()) else {
            return Told::Refused(Refusal::InProgress);
        };
        let values = request.seats.iter().map(|seat| seat.get());
        request.idempotency = key.map(|key| IdempotencyKey { key, fingerprint: print(1, values) });
        let store = self.store.clone();
        let purchase = self.sequencer.purchases().ask(queue.inside_for(place, now));
        let answer = detached(async move {
            let answer = store.reserve(request).await;
            purchase.answered(&answer);
            drop(guard);
            answer
        });
        match answer.await {
            Some(Ok(answer)) => Told::Held(answer.value.id),
            Some(Err(Error::Rejected(ReserveRejected::Hold(why)))) => hold_refused(why),
            Some(Err(Error::Rejected(_))) => Told::Refused(Refusal::Other),
            Some(Err(Error::Fault(fault))) => failed(&fault),
            None => Told::Unknown,
        }
    }

    async fn pay(
        self: Arc<Self>,
        ticket: Ticket,
        reservation: ReservationId,
        key: Option<String>,
    ) -> Told {
        let Some((pass, queue, place, now)) = self.present(ticket) else {
            return Told::Refused(Refusal::Other);
        };
        if matches!(place, Place::Waiting { .. } | Place::Undrawn) {
            return Told::Refused(Refusal::NotActive);
        }
        let user = pass.ticket.user;
        let Some(guard) = self.enter(user, key.as_deref()) else {
            return Told::Refused(Refusal::InProgress);
        };
        let fingerprint = print(2, [reservation.get()]);
        let idempotency = key.map(|key| IdempotencyKey { key, fingerprint });
        let over = Queue::is_spent(place);
        let purchase = self.sequencer.purchases().ask(queue.inside_for(place, now));
        let answer = detached(async move {
            let ticket = TicketRef::from(&pass.ticket);
            let again = ticket.clone();
            let answer = self.store.pay(Pay { user, ticket, reservation, idempotency, now }).await;
            purchase.answered(&answer);
            let spent = match &answer {
                Ok(answer) if answer.replayed => {
                    !over && self.store.is_spent(again).await.unwrap_or(false)
                }
                Ok(_) => true,
                Err(_) => false,
            };
            if spent {
                self.sequencer.finish(&queue, &pass);
            }
            drop(guard);
            answer
        });
        match answer.await {
            Some(Ok(answer)) => Told::Paid(answer.value.reservation),
            Some(Err(Error::Rejected(why))) => settle_refused(why),
            Some(Err(Error::Fault(fault))) => failed(&fault),
            None => Told::Unknown,
        }
    }

    async fn charge(self: Arc<Self>, user: UserId, amount: i64, key: String) -> Told {
        let Some(guard) = self.enter(user, Some(&key)) else {
            return Told::Refused(Refusal::InProgress);
        };
        let (now, fingerprint) = (self.clock.now(), print(3, [amount]));
        let idempotency = Some(IdempotencyKey { key, fingerprint });
        let answer = detached(async move {
            let answer = self.store.charge(Charge { user, amount, idempotency, now }).await;
            drop(guard);
            answer
        });
        match answer.await {
            Some(Ok(answer)) => Told::Charged(answer.value),
            Some(Err(Error::Rejected(_))) => Told::Refused(Refusal::Other),
            Some(Err(Error::Fault(fault))) => failed(&fault),
            None => Told::Unknown,
        }
    }

    async fn give_back(&self, ticket: Ticket, reservation: ReservationId) -> Told {
        let Some((pass, _, place, now)) = self.present(ticket) else {
            return Told::Refused(Refusal::Other);
        };
        if matches!(place, Place::Waiting { .. } | Place::Undrawn) {
            return Told::Refused(Refusal::NotActive);
        }
        match self.store.cancel(reservation, pass.ticket.user, now).await {
            Ok(()) => Told::Done,
            Err(Error::Rejected(why)) => settle_refused(why),
            Err(Error::Fault(fault)) => failed(&fault),
        }
    }

    /// Enters an idempotency key, where there is one; `None` where it is in progress.
    fn enter(self: &Arc<Self>, user: UserId, key: Option<&str>) -> Option<Guard> {
        let entry = key.map(|key| (user, key.to_owned()));
        let fresh = entry.as_ref().is_none_or(|entry| self.in_flight.lock().insert(entry.clone()));
        fresh.then(|| Guard { instance: self.clone(), entry })
    }
}

struct Guard {
    instance: Arc<Instance>,
    entry: Option<(UserId, String)>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            self.instance.in_flight.lock().remove(entry);
        }
    }
}

/// Goes on whether anybody waits for it or not, as long as the process does.
async fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    match Gate::current() {
        Some(process) => process.spawn(work).await.ok(),
        None => Some(work.await),
    }
}

fn told(place: Place, queue: &Queue, now: Timestamp, jitter: u64) -> (Standing, u64) {
    let after = queue.told(place, now, jitter).poll_after;
    let standing = match place {
        Place::Undrawn => Standing::Undrawn,
        Place::Waiting { number } => Standing::Waiting(number),
        Place::Active { .. } => Standing::Active,
        Place::Over(ending) => Standing::Over(ending),
    };
    (standing, after.as_millis() as u64)
}

const fn failed(fault: &Fault) -> Told {
    match fault {
        Fault::Unavailable(_) => Told::Unavailable,
        Fault::OutcomeUnknown(_) | Fault::Corrupt(_) => Told::Unknown,
    }
}

const fn hold_refused(why: HoldRejected) -> Told {
    Told::Refused(match why {
        HoldRejected::SeatTaken(_) => Refusal::Taken,
        HoldRejected::TicketSpent => Refusal::Spent,
        _ => Refusal::Other,
    })
}

const fn settle_refused(why: ReservationRejected) -> Told {
    Told::Refused(match why {
        ReservationRejected::Settle(SettleRejected::AlreadyPaid) => Refusal::AlreadyPaid,
        ReservationRejected::Settle(SettleRejected::Cancelled | SettleRejected::Expired) => {
            Refusal::Gone
        }
        ReservationRejected::Settle(SettleRejected::TicketSpent) => Refusal::Spent,
        _ => Refusal::Other,
    })
}

/// A digest of what was asked under a key.
fn print(kind: u8, values: impl IntoIterator<Item = i64>) -> [u8; 32] {
    let mut print = [kind; 32];
    for (place, value) in values.into_iter().take(3).enumerate() {
        print[8 * place + 1..8 * place + 9].copy_from_slice(&value.to_be_bytes());
    }
    print
}

/// The queue's name as a type.
pub fn queue_name() -> QueueName {
    match QueueName::new(QUEUE) {
        Some(name) => name,
        None => unreachable!("it is a name"),
    }
}
