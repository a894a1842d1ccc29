//! What is to happen in a history: who is there, what breaks, and when.

use std::fmt;
use std::time::Duration;

use boxoffice_backends::simulation::Bug;
use boxoffice_domain::queue::{QueueSettings, SaleRules, SettingsChange};

use crate::random::Stream;

/// One history. Together with the code it decides everything that happens.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of all random numbers.
    pub seed: u64,
    /// How long clients and faults go on, in milliseconds.
    pub length_ms: u64,
    /// How long it goes on after that, with nothing broken any more, in milliseconds.
    pub drain_ms: u64,
    /// Whether at the end everybody who is there has to have been let in.
    pub liveness: bool,
    /// How many instances there are.
    pub instances: usize,
    /// How the queue admits.
    pub queue: QueueSettings,
    /// Whether those who join before the opening are drawn.
    pub draw: bool,
    /// Where the sale is kept.
    pub store: StoreKind,
    /// A call of Redis ends after this.
    pub call_timeout: Duration,
    /// For how long an instance has the turn to admit.
    pub turn: Duration,
    /// How often, of 256 times, tasks of an instance are polled in another order.
    pub yields: u8,
    /// How far the wall clock of each instance is ahead at first, in milliseconds.
    pub clocks_ahead_ms: Vec<i64>,
    /// From a call to its answer, without a fault, in microseconds: Redis, the store, instances.
    pub latency_us: [(u64, u64); 3],
    /// How many seats there are.
    pub seats: u32,
    /// How long seats are held for payment.
    pub hold: Duration,
    /// When the sale opens, in milliseconds; it may have been open before the beginning.
    pub sale_opens_ms: i64,
    /// How the queue follows the sale behind it, where it does.
    pub sale_rules: Option<SaleRules>,
    /// Who comes.
    pub crowd: Vec<Group>,
    /// What breaks.
    pub faults: Vec<Fault>,
    /// Whether all that was said to Redis is kept.
    pub records: bool,
    /// A mistake that is planted in the code.
    pub bug: Option<Bug>,
}

/// Where the sale is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// In maps.
    Memory,
    /// In SQLite, in the same thread.
    Sqlite,
}

/// Fans of one kind.
#[derive(Clone, Debug)]
pub struct Group {
    /// How many.
    pub count: usize,
    /// When the first one joins, in milliseconds.
    pub from_ms: u64,
    /// Over how long they come, in milliseconds.
    pub over_ms: u64,
    /// The instance that they all ask, and those who roam ask first; else a balancer chooses one that is
    /// ready.
    pub at: Option<usize>,
    /// What they do.
    pub habit: Habit,
}

/// What a fan does.
#[derive(Clone, Copy, Debug)]
pub struct Habit {
    /// When they poll.
    pub polls: Polls,
    /// How many of a hundred ask another instance each time.
    pub roams: u64,
    /// How many of a hundred buy once they are let in.
    pub buys: u64,
    /// How many of a hundred give up while waiting.
    pub leaves: u64,
    /// How many of a hundred go away for a while and come back.
    pub wanders: u64,
    /// How many of a hundred charge points before they buy.
    pub charges: u64,
    /// How many of a hundred ask once more, with the same key, what was answered.
    pub repeats: u64,
    /// How many of a hundred hold seats twice, and try to pay for both.
    pub greedy: u64,
    /// Whether they join again where a join failed.
    pub persists: bool,
}

/// When a fan polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polls {
    /// When told to.
    AsTold,
    /// Every so many milliseconds, whatever they are told.
    Every(u64),
    /// When told to, but not before this moment, in milliseconds.
    Later(u64),
    /// Never.
    Never,
}

impl Habit {
    /// Waits, is let in, and does nothing.
    pub const WAITS: Self = Self {
        polls: Polls::AsTold,
        roams: 0,
        buys: 0,
        leaves: 0,
        wanders: 0,
        charges: 0,
        repeats: 0,
        greedy: 0,
        persists: true,
    };
    /// Joins and is not seen again.
    pub const JOINS: Self = Self { polls: Polls::Never, persists: false, ..Self::WAITS };
}

/// Something that breaks for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// When it begins, in milliseconds.
    pub from_ms: u64,
    /// When it ends, in milliseconds; what happens at once has no end.
    pub until_ms: u64,
    /// What it is.
    pub what: What,
}

/// Some of the instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which(pub u32);

impl Which {
    /// All of them.
    pub const ALL: Self = Self(u32::MAX);

    /// Only this one.
    pub const fn only(instance: usize) -> Self {
        Self(1 << instance)
    }

    /// All but this one.
    pub const fn but(instance: usize) -> Self {
        Self(!(1 << instance))
    }

    /// Whether this one is among them.
    pub const fn has(self, instance: usize) -> bool {
        self.0 & (1 << instance) != 0
    }
}

/// A server that instances talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Redis.
    Redis,
    /// The store.
    Store,
}

/// Which messages a cut stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Those to the server and those back.
    Both,
    /// Those to the server.
    To,
    /// Those back.
    Back,
}

/// What becomes of a message that does not come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is lost.
    Lost,
    /// It comes when the way is free again.
    Late,
    /// Whoever sends it is told at once, and connections are broken.
    Refused,
}

/// What breaks.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Some instances cannot talk to a server.
    Cut {
        /// Which.
        instances: Which,
        /// With whom.
        peer: Peer,
        /// In which direction.
        way: Way,
        /// What becomes of messages.
        fate: Fate,
    },
    /// Messages take longer, in milliseconds.
    Slow {
        /// For whom.
        instances: Which,
        /// With whom.
        peer: Peer,
        /// On the way there, from and to.
        there_ms: (u64, u64),
        /// On the way back, from and to.
        back_ms: (u64, u64),
    },
    /// Redis loses its data.
    Flush,
    /// Redis is killed and started anew at the end, with a copy of its data as old as `age_ms`, or
    /// without.
    Restart {
        /// How old the copy is.
        age_ms: Option<u64>,
    },
    /// A replica that lags becomes the master, at once.
    Failover {
        /// By how much it lags.
        lag_ms: u64,
    },
    /// Commands of some instances reach Redis a second time, up to so many milliseconds later, as from
    /// a client that sends them again.
    Twice {
        /// Of which.
        instances: Which,
        /// How much later at the most.
        within_ms: u64,
    },
    /// Redis has no memory left.
    OutOfMemory,
    /// The clock of Redis is set forward or back for good, in milliseconds.
    RedisClock(i64),
    /// The clock of the store is set forward or back, until the end.
    StoreClock(i64),
    /// An instance is killed, and started at the end.
    Kill(usize),
    /// An instance is stopped in good order, and started at the end.
    Stop(usize),
    /// An instance does nothing until the end.
    Pause(usize),
    /// The wall clock of an instance is set forward or back, in milliseconds.
    Clock(usize, i64),
    /// An operator changes the queue, by way of this instance.
    Change(usize, SettingsChange),
}

impl What {
    /// A name for its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Cut { peer: Peer::Redis, .. } => "redis cut",
            Self::Cut { peer: Peer::Store, .. } => "store cut",
            Self::Slow { peer: Peer::Redis, .. } => "redis slow",
            Self::Slow { peer: Peer::Store, .. } => "store slow",
            Self::Flush => "redis flushed",
            Self::Restart { .. } => "redis restarted",
            Self::Failover { .. } => "redis failed over",
            Self::Twice { .. } => "redis twice",
            Self::OutOfMemory => "redis full",
            Self::RedisClock(_) => "redis clock",
            Self::StoreClock(_) => "store clock",
            Self::Kill(_) => "killed",
            Self::Stop(_) => "stopped",
            Self::Pause(_) => "paused",
            Self::Clock(..) => "clock",
            Self::Change(..) => "changed",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7} – {:>7} ms  {:?}", self.from_ms, self.until_ms, self.what)
    }
}

impl Plan {
    /// Three instances, ten admissions a second, quick networks, nobody there, nothing broken.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            length_ms: 60_000,
            drain_ms: 0,
            liveness: false,
            instances: 3,
            queue: QueueSettings {
                admit_per_second: 10.0,
                max_active: None,
                active_ttl: Duration::from_secs(300),
                claim_window: Duration::from_secs(30),
                opens_at: None,
                paused: false,
            },
            draw: false,
            store: StoreKind::Memory,
            call_timeout: Duration::from_millis(250),
            turn: Duration::from_millis(90),
            yields: 16,
            clocks_ahead_ms: vec![0; 3],
            latency_us: [(80, 400), (300, 3_000), (200, 5_000)],
            seats: 100,
            hold: Duration::from_secs(20),
            sale_opens_ms: -1_000_000,
            sale_rules: None,
            crowd: Vec::new(),
            faults: Vec::new(),
            records: false,
            bug: None,
        }
    }

    /// What decides the opening draw, where there is one.
    pub fn draw_seed(&self) -> Option<[u8; 32]> {
        let mut dice = Stream::new(self.seed, "seed of the draw", 0);
        let seed = std::array::from_fn(|_| dice.below(256) as u8);
        self.draw.then_some(seed)
    }

    /// How far the wall clocks of instances are apart at first, in milliseconds.
    pub fn clocks_apart_ms(&self) -> u64 {
        let ahead_ms = || self.clocks_ahead_ms.iter().copied();
        ahead_ms().max().unwrap_or(0).abs_diff(ahead_ms().min().unwrap_or(0))
    }

    /// Adds fans.
    #[must_use]
    pub fn with(mut self, group: Group) -> Self {
        self.crowd.push(group);
        self
    }

    /// Adds so many fans a second, who ask this instance, or any.
    #[must_use]
    pub fn joins(
        self,
        per_second: u64,
        (from_ms, until_ms): (u64, u64),
        at: Option<usize>,
    ) -> Self {
        let over_ms = until_ms - from_ms;
        let count = (per_second * over_ms / 1_000) as usize;
        self.with(Group { count, from_ms, over_ms, at, habit: Habit::JOINS })
    }

    /// Has something break.
    #[must_use]
    pub fn breaks(mut self, (from_ms, until_ms): (u64, u64), what: What) -> Self {
        self.faults.push(Fault { from_ms, until_ms, what });
        self
    }

    /// Goes on for so long.
    #[must_use]
    pub const fn lasts(mut self, seconds: u64) -> Self {
        self.length_ms = seconds * 1_000;
        self
    }
}
