//! The world of a history: networks, servers, instances and fans, and one loop that moves all of them.

mod breaks;
mod fan;
mod message;
mod network;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use boxoffice_backends::Fault as Failure;
use boxoffice_backends::simulation::plant;
use boxoffice_backends::store::{
    CLOCK_BOUND_MS, DatabaseTime, DrawSeed, Kept, LogPart, MemoryStore, NewConcert, NewSeats, Seed,
    SqliteOptions, SqliteStore, Store,
};
use boxoffice_domain::ids::{SeatId, UserId};
use boxoffice_domain::queue::{Drawn, Record};
use boxoffice_domain::time::Timestamp;

use self::fan::Fan;
use self::message::{Event, Message, Request};
use self::network::Redis;
use self::process::Process;
use crate::check::{Checker, Fact, Violation, checkers};
use crate::digest::Digest;
use crate::instance::{Now, queue_name};
use crate::plan::{Plan, StoreKind};
use crate::random::Stream;
use crate::timeline::{EPOCH_MS, Next, Outside, Timeline};
use crate::turns::Turns;

/// What has happened in a history.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What broke a promise.
    pub violations: Vec<Violation>,
    /// How often each fault of the plan changed what became of a message, a call or a process.
    pub bites: Vec<u64>,
    /// What was done.
    pub counts: Counts,
    /// The hash of all that happened.
    pub digest: u64,
    /// What was said to Redis, where it was to be kept.
    pub calls: Vec<Call>,
    /// How each fan fared.
    pub fans: Vec<Fared>,
    /// Which turn each number had.
    pub turns: Arc<Turns>,
}

/// How a fan fared. Times are microseconds since the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fared {
    /// The number.
    pub seq: Option<u64>,
    /// When the fan heard of the number,
    pub joined_us: u64,
    /// and of being let in.
    pub let_in_us: Option<u64>,
}

/// A command that Redis has executed.
#[derive(Clone, Debug)]
pub struct Call {
    /// When, in microseconds since the beginning.
    pub at_us: u64,
    /// The command.
    pub words: Vec<Vec<u8>>,
    /// What Redis has answered.
    pub answer: redis::Value,
}

/// What was done in a history: one that did nothing shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Joins that got a number.
    pub joins: u64,
    /// The highest number that was given. What is above the count of joins is empty places.
    pub highest: u64,
    /// Polls that were answered.
    pub polls: u64,
    /// Fans who saw that they were let in.
    pub seen: u64,
    /// Holds.
    pub holds: u64,
    /// Payments.
    pub payments: u64,
    /// Numbers that were drawn at the opening.
    pub drawn: u64,
    /// Steps of admission.
    pub steps: u64,
    /// Numbers admitted.
    pub admitted: u64,
    /// Numbers passed over.
    pub passed: u64,
    /// Numbers let in after having been passed over.
    pub returned: u64,
    /// Commands that Redis executed.
    pub redis_calls: u64,
    /// Operations that the store executed.
    pub store_calls: u64,
    /// Events that a sink was given.
    pub events: u64,
    /// Requests that had no answer, or none that tells what happened.
    pub unknown: u64,
    /// Requests that were told to come again.
    pub unavailable: u64,
    /// Looks at which some instance let in fewer than its rate, because of how purchases went, ...
    pub slowed: u64,
    /// ... at which another one let in another part of it, ...
    pub disagreed: u64,
    /// ... and at which all let in all that they may, since the last of them.
    pub at_full: u64,
}

/// Checkers look at the store this often, in microseconds.
const LOOK_US: u64 = 100_000;
/// The balancer asks instances whether they are ready this often, in microseconds.
const PROBE_US: u64 = 500_000;
/// What each fan has to spend.
const POINTS: i64 = 1_000_000;
/// What a seat costs; a charge is one point, so that it shows which part of a balance came from them.
const PRICE: i64 = 100;

/// See the module.
pub struct World {
    plan: Plan,
    outside: Arc<Outside<Message>>,
    timeline: Timeline<Message, Event>,
    redis: Redis,
    store: Store,
    store_ahead_ms: Arc<AtomicI64>,
    processes: Vec<Process>,
    /// Which instances the balancer believes to be ready.
    ready: Vec<bool>,
    fans: Vec<Fan>,
    seats: Vec<SeatId>,
    requests: BTreeMap<u64, Request>,
    last_request: u64,
    /// Faults that are under way, by their place in the plan.
    active: Vec<usize>,
    /// Messages that come when a fault is over.
    held: Vec<(usize, Event)>,
    bites: Vec<u64>,
    network_dice: Stream,
    balancer_dice: Stream,
    checkers: Vec<Box<dyn Checker>>,
    violations: Vec<Violation>,
    serving: u64,
    /// Which turn each number has, once it was drawn.
    turns: Option<Arc<Turns>>,
    /// Who was let in after having been passed over, as the store had it then.
    readmitted: BTreeSet<u64>,
    /// Who has been passed over, as the store had it then.
    passed: BTreeSet<u64>,
    calls: Vec<Call>,
    counts: Counts,
    digest: Digest,
    /// Whether tasks may have been woken since they were left to themselves.
    unsettled: bool,
    traces: bool,
}

/// Runs a history.
///
/// # Errors
/// Where the simulation itself cannot be set up.
pub fn run(plan: &Plan, traces: bool) -> Result<Report, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::Unavailable(why.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        // The world goes on when tasks have nothing left to do, and not before.
        .event_interval(1 << 30)
        .build()
        .map_err(|error| failed(&error))?;
    plant(plan.bug);
    runtime.block_on(async {
        let mut world = World::open(plan.clone(), traces).await?;
        world.live().await?;
        world.end().await
    })
}

impl World {
    async fn open(plan: Plan, traces: bool) -> Result<Self, Failure> {
        let outside = Outside::new();
        let store_ahead_ms = Arc::new(AtomicI64::new(0));
        let time = {
            let (outside, ahead) = (outside.clone(), store_ahead_ms.clone());
            DatabaseTime::told_by(move || {
                let elapsed_ms = (outside.now_us() / 1_000) as i64;
                Timestamp(EPOCH_MS + elapsed_ms + ahead.load(Ordering::Relaxed))
            })
        };
        let store = match plan.store {
            StoreKind::Memory => Store::Memory(MemoryStore::open(&Kept::at(time))),
            StoreKind::Sqlite => {
                let directory = scratch(plan.seed);
                let _ = std::fs::remove_dir_all(&directory);
                Store::Sqlite(SqliteStore::open_inline(
                    SqliteOptions {
                        directory,
                        batch_max: 256,
                        queue_max: 16_384,
                        observe: Arc::new(|_| {}),
                    },
                    time,
                )?)
            }
        };
        let now = Timestamp(EPOCH_MS);
        let seed = plan.draw_seed().map(DrawSeed);
        store.create_queue_drawn(queue_name(), plan.queue.clone(), seed).await?;
        let fans: usize = plan.crowd.iter().map(|group| group.count).sum();
        let concert = NewConcert {
            name: "a concert".into(),
            venue: "a hall".into(),
            queue: queue_name(),
            opens_at: Timestamp(EPOCH_MS + plan.sale_opens_ms),
            closes_at: Timestamp(EPOCH_MS + 100 * 3_600_000),
        };
        let session = (
            Timestamp(EPOCH_MS + 100 * 3_600_000),
            NewSeats { count: plan.seats.max(1), price: PRICE }.into(),
        );
        let users = 1..=i64::try_from(fans.max(1)).unwrap_or(i64::MAX);
        let seed = Seed { users, points: POINTS, concerts: vec![(concert, vec![session])] };
        store.seed(seed, now).await?;
        let catalog = store.catalog();
        let seats = catalog
            .concerts()
            .flat_map(|concert| catalog.inventories(concert.id))
            .flat_map(|inventory| inventory.snapshot().1)
            .map(|seat| seat.id)
            .collect();
        let redis = Redis::new(plan.seed).map_err(|error| Failure::Corrupt(error.to_string()))?;
        let checkers = checkers(&plan);
        let mut world = Self {
            timeline: Timeline::new(outside.clone()),
            redis,
            store,
            store_ahead_ms,
            processes: Vec::new(),
            ready: vec![false; plan.instances],
            fans: Vec::new(),
            seats,
            requests: BTreeMap::new(),
            last_request: 0,
            active: Vec::new(),
            held: Vec::new(),
            bites: vec![0; plan.faults.len()],
            network_dice: Stream::new(plan.seed, "network", 0),
            balancer_dice: Stream::new(plan.seed, "balancer", 0),
            checkers,
            violations: Vec::new(),
            serving: 0,
            turns: None,
            readmitted: BTreeSet::new(),
            passed: BTreeSet::new(),
            calls: Vec::new(),
            counts: Counts::default(),
            digest: Digest::default(),
            unsettled: true,
            traces,
            outside,
            plan,
        };
        for instance in 0..world.plan.instances {
            let ahead = world.plan.clocks_ahead_ms.get(instance).copied().unwrap_or(0);
            world.processes.push(Process::new(ahead));
            world.start(instance);
        }
        world.plan_faults();
        world.invite();
        world.timeline.at(LOOK_US, Event::Look);
        world.timeline.at(PROBE_US / 10, Event::Probe);
        Ok(world)
    }

    async fn live(&mut self) -> Result<(), Failure> {
        let end_us = (self.plan.length_ms + self.plan.drain_ms) * 1_000;
        loop {
            let settle = std::mem::take(&mut self.unsettled);
            match self.timeline.next(end_us, settle).await {
                Next::Messages(messages) => {
                    self.unsettled = true;
                    for message in messages {
                        self.hear(message).await?;
                    }
                }
                Next::Event(event) => {
                    let looked = matches!(event, Event::Look);
                    self.happen(event).await?;
                    if looked && self.is_over() {
                        return Ok(());
                    }
                }
                Next::End => return Ok(()),
            }
        }
    }

    /// Whether everybody who is to be let in has been.
    fn is_over(&self) -> bool {
        let drains = self.plan.liveness && self.now_us() > (self.plan.length_ms + 1_000) * 1_000;
        drains && !self.fans.iter().any(|fan| fan.waits().is_some())
    }

    async fn happen(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Look => {
                self.look().await?;
                let next_us = self.now_us() + LOOK_US;
                self.timeline.at(next_us, Event::Look);
            }
            Event::Probe => {
                for instance in 0..self.processes.len() {
                    self.ready[instance] = self.processes[instance].is_ready();
                }
                let next_us = self.now_us() + PROBE_US;
                self.timeline.at(next_us, Event::Probe);
            }
            Event::Start(instance) => self.start_if_due(instance),
            Event::Wakes(fan) => self.fan_wakes(fan),
            Event::GivesUp(request) => self.fan_gives_up(request),
            Event::RequestArrives(request) => self.request_arrives(request),
            Event::ResponseArrives(request, told) => self.response_arrives(request, told),
            Event::Begins(fault) => self.fault_begins(fault),
            Event::Ends(fault) => self.fault_ends(fault),
            Event::Copied(fault) => self.redis.copy(fault),
            other => self.arrives(other),
        }
        Ok(())
    }

    async fn hear(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Opened(instance, life, opened) => self.opened(instance, life, opened),
            Message::Stopped(instance, life) => self.stopped(instance, life),
            Message::Answered(request, told) => self.answered(request, told),
            Message::Executed { instance, life, operation, reply } => {
                self.counts.store_calls += 1;
                self.digest.number(self.now_us());
                self.digest.bytes(operation.as_bytes());
                if operation.contains("advance") || operation.contains("store.draw") {
                    self.look().await?;
                }
                self.executed(instance, life, reply);
            }
            Message::Relayed(events) => self.relayed(events),
            Message::Connect { instance, life, reply } => self.connects(instance, life, reply),
            Message::Call { connection, words, reply } => self.calls(connection, words, reply),
            Message::Errand { instance, life, errand } => self.sends(instance, life, errand),
        }
        Ok(())
    }

    /// Looks what the instances make of how purchases go.
    fn look_at_governors(&mut self) {
        let running = self.processes.iter().filter(|process| process.is_up());
        let shares: Vec<f64> = running
            .filter_map(|process| process.instance.as_ref())
            .map(|instance| instance.sequencer.governed().share)
            .collect();
        let is_slowed = shares.iter().any(|share| *share < 1.0);
        self.counts.slowed += u64::from(is_slowed);
        self.counts.disagreed += u64::from(shares.windows(2).any(|two| two[0] != two[1]));
        self.counts.at_full = if is_slowed { 0 } else { self.counts.at_full + 1 };
    }

    /// Looks who was admitted.
    async fn look(&mut self) -> Result<(), Failure> {
        self.look_at_governors();
        let Some(queue) = self.store.queues().await?.pop() else { return Ok(()) };
        let line = &queue.line;
        if let Some(draw) = &queue.draw {
            let (drawn, opens_at) = (draw.drawn, queue.settings.opens_at);
            self.fact(&Fact::Opening { drawn, opens_at });
            if let (None, Some(Drawn { count, seed })) = (&self.turns, drawn) {
                self.counts.drawn = count;
                self.digest.number(count);
                self.trace(|| format!("{count} are drawn"));
                let turns = Arc::new(Turns::drawn(&seed, count));
                self.turns = Some(turns.clone());
                self.fact(&Fact::Drawn { turns });
            }
        }
        let turns = self.turns.clone().unwrap_or_default();
        let database = self.database_now();
        let unsold = self.unsold();
        self.fact(&Fact::Unsold { seats: unsold, database });
        let before = std::mem::take(&mut self.readmitted);
        self.readmitted = line.readmitted.iter().map(|(seq, _)| *seq).collect();
        let back = line.readmitted.iter().filter(|(seq, _)| !before.contains(seq));
        let back: Vec<(u64, Timestamp)> = back.copied().collect();
        let mut admitted: Vec<u64> = back.iter().map(|(seq, _)| *seq).collect();
        let serving = self.serving;
        let mut steps: Vec<(u64, Timestamp)> = line
            .log
            .iter()
            .filter(|step| step.upto > serving)
            .map(|step| (step.upto, step.at))
            .collect();
        if let (true, Some((_, at))) = (steps.is_empty(), back.first()) {
            steps.push((serving, *at));
        }
        for (upto, at) in steps {
            let from = self.serving;
            self.serving = upto;
            self.counts.steps += 1;
            let over = |seq: &u64| line.left.contains(*seq) || line.passed.contains(*seq);
            // Who has come back was passed over before.
            let is_back = |seq: &u64| self.readmitted.contains(seq);
            admitted.extend((from + 1..=upto).filter(|seq| !over(seq) && !is_back(seq)));
            let passed = (from + 1..=upto).filter(|seq| line.passed.contains(*seq));
            let passed: Vec<u64> = passed.filter(|seq| !line.left.contains(*seq)).collect();
            self.counts.admitted += admitted.len() as u64;
            self.counts.passed += passed.len() as u64;
            self.digest.number(upto);
            self.digest.number(at.0.unsigned_abs());
            let (in_all, gone) = (admitted.len(), passed.len());
            self.trace(|| {
                let at_ms = at.0 - EPOCH_MS;
                format!(
                    "{in_all} of {}..={upto} admitted, {gone} passed over, at {at_ms}",
                    from + 1
                )
            });
            let admitted = std::mem::take(&mut admitted);
            let number = |turn: u64| turns.number(turn);
            let admitted = admitted.into_iter().map(number).collect();
            let passed = passed.into_iter().map(number).collect();
            let settings = queue.settings.clone();
            self.fact(&Fact::Step { from, upto, admitted, passed, at, database, settings });
        }
        self.counts.returned += back.len() as u64;
        self.fact(&Fact::Looked { watermark: queue.watermark });
        Ok(())
    }

    /// How many seats are not sold.
    fn unsold(&self) -> u64 {
        let catalog = self.store.catalog();
        let inventories = catalog.concerts().flat_map(|concert| catalog.inventories(concert.id));
        inventories.map(|inventory| inventory.total() as u64 - inventory.sold()).sum()
    }

    /// The sink has these events.
    fn relayed(&mut self, events: Vec<(i64, i64, String)>) {
        for (id, key, body) in events {
            self.counts.events += 1;
            self.fact(&Fact::Event { id, key, body });
        }
    }

    /// Tells the checkers.
    fn fact(&mut self, fact: &Fact) {
        let now_us = self.now_us();
        for checker in &mut self.checkers {
            checker.note(now_us, fact, &mut self.violations);
        }
    }

    /// Reads the admission log, as anybody can.
    async fn read_log(&mut self) -> Result<(), Failure> {
        let whole = self.store.admission_log(queue_name(), None, u32::MAX).await?;
        let Some(LogPart { previous, links, .. }) = whole else { return Ok(()) };
        let mut digest = previous;
        for link in links {
            digest = digest.then(&link.bytes);
            let follows = digest == link.digest;
            if let Some(record) = Record::from_bytes(&link.bytes) {
                self.fact(&Fact::Logged { record, follows });
            }
        }
        Ok(())
    }

    async fn end(mut self) -> Result<Report, Failure> {
        self.look().await?;
        if let Some(queue) = self.store.queues().await?.pop() {
            self.passed = queue.line.passed.iter().collect();
        }
        let rest = self.store.next_events(u32::MAX).await?.rows;
        self.relayed(rest.into_iter().map(|row| (row.id, row.key, row.body)).collect());
        let now = Timestamp(EPOCH_MS + (self.now_us() / 1_000) as i64);
        // An instance whose clock is ahead by no more than the bound may have given seats to the next one already.
        let all_agree = Timestamp(now.0 + CLOCK_BOUND_MS);
        for finding in self.store.audit(all_agree).await? {
            self.fact(&Fact::Audited(finding));
        }
        self.read_log().await?;
        let running: Vec<_> =
            self.processes.iter().filter_map(|process| process.instance.clone()).collect();
        for instance in running {
            for finding in instance.sequencer.audit(instance.clock.now()) {
                self.fact(&Fact::Audited(finding));
            }
        }
        for fan in 0..self.fans.len() {
            for reservation in std::mem::take(&mut self.fans[fan].held) {
                if self.store.reservation(reservation).await?.is_none() {
                    self.fact(&Fact::Lost { fan, what: format!("the hold {reservation}") });
                }
            }
            if let Some(ticket) = self.fans[fan].left.take()
                && !self.store.is_spent((&ticket).into()).await?
            {
                self.fact(&Fact::Lost { fan, what: format!("that {} was given up", ticket.seq) });
            }
            let charges = self.fans[fan].charges;
            if charges.1 > 0
                && let Some(user) = UserId::new(fan as i64 + 1)
            {
                let more = self.store.balance(user).await? - POINTS;
                self.fact(&Fact::Charged { fan, charges, found: more.rem_euclid(PRICE) as u64 });
            }
            if let Some(reservation) = self.fans[fan].paid {
                let found = self.store.reservation(reservation).await?;
                let state = found.map(|(reservation, _)| reservation.state);
                self.fact(&Fact::PaidInTheEnd { fan, reservation, state });
            }
            let turn = |seq| self.turns.as_ref().map_or(seq, |turns| turns.turn(seq));
            if let Some((seq, since_us)) = self.fans[fan].waits()
                && (turn(seq) > self.serving || self.passed.contains(&turn(seq)))
            {
                self.fact(&Fact::StillWaits { fan, seq, since_us });
            }
        }
        let now_us = self.now_us();
        for checker in &mut self.checkers {
            checker.end(now_us, &mut self.violations);
        }
        self.redis.digest(&mut self.digest);
        if matches!(self.plan.store, StoreKind::Sqlite) {
            let _ = std::fs::remove_dir_all(scratch(self.plan.seed));
        }
        Ok(Report {
            violations: self.violations,
            bites: self.bites,
            counts: self.counts,
            digest: self.digest.value(),
            calls: self.calls,
            fans: self.fans.iter().map(|fan| fan.fared).collect(),
            turns: self.turns.unwrap_or_default(),
        })
    }

    fn now_us(&self) -> u64 {
        self.outside.now_us()
    }

    /// The store's time.
    fn database_now(&self) -> Timestamp {
        let elapsed_ms = (self.now_us() / 1_000) as i64;
        Timestamp(EPOCH_MS + elapsed_ms + self.store_ahead_ms.load(Ordering::Relaxed))
    }

    fn now(&self) -> Now {
        let outside = self.outside.clone();
        Arc::new(move || outside.now_us())
    }

    fn trace(&self, line: impl FnOnce() -> String) {
        if self.traces {
            let now_us = self.now_us();
            println!("{:>9}.{:03} ms  {}", now_us / 1_000, now_us % 1_000, line());
        }
    }

    fn soon(&mut self, wait: Duration, event: Event) {
        let at_us = self.now_us() + wait.as_micros() as u64;
        self.timeline.at(at_us, event);
    }
}

/// Where SQLite keeps its file: in memory, where there is such a place.
fn scratch(seed: u64) -> std::path::PathBuf {
    let shared = std::path::Path::new("/dev/shm");
    let base = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    base.join(format!("boxoffice-simulation-{}-{thread}-{seed}", std::process::id()))
}
