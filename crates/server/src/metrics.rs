//! What the service measures, as the text that Prometheus reads.
//!
//! One field per metric; its doc comment is the help text that a scrape shows. Labels are closed
//! enums, or names that the operator chose (queues, invariants), never ids. Whatever runs on every
//! request is resolved to a handle when the service starts: observing costs a few atomic additions.
//!
//! What does not belong here: deciding what is an outcome, and serving `/metrics`.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boxoffice_domain::invariant::Invariant;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
    MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::endpoints::{Class, Route};

mod cpu;

use cpu::Cpu;

/// How a scrape may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// The text format of Prometheus, which everything reads.
    Text,
    /// OpenMetrics.
    OpenMetrics,
}

impl Exposition {
    /// The `Content-Type` of [`Metrics::render`].
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Upper bounds of request and commit durations, in nanoseconds: 50 µs to 10 s. A poll takes tens
/// of microseconds here, a time-out ten seconds.
const DURATION_BOUNDS_NS: [u64; 17] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds of batch sizes, in commands.
const BATCH_BOUNDS: [u64; 17] =
    [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536];

/// Upper bounds of how long a wait took, in hundredths of what was told.
const ETA_BOUNDS_PERCENT: [u64; 17] =
    [10, 25, 50, 60, 70, 75, 80, 90, 100, 110, 125, 150, 175, 200, 300, 500, 1_000];

/// A histogram of whole numbers with fixed bounds.
///
/// The crate's own takes a mutex per observation, which on the request path is one lock that every
/// worker thread shares; this one takes two relaxed additions. A scrape may see an observation in
/// its bucket and not yet in the sum: they are statistics, not accounts.
#[derive(Debug, Clone)]
pub struct AtomicHistogram(Arc<HistogramInner>);

#[derive(Debug)]
struct HistogramInner {
    bounds: &'static [u64; 17],
    /// What one unit is worth in the unit that is exposed.
    scale: f64,
    buckets: [AtomicU64; 18],
    sum: AtomicU64,
}

impl AtomicHistogram {
    /// Of durations, exposed in seconds.
    pub fn durations() -> Self {
        Self::new(&DURATION_BOUNDS_NS, 1e-9)
    }

    /// Of batch sizes.
    pub fn batches() -> Self {
        Self::new(&BATCH_BOUNDS, 1.0)
    }

    /// Of how long waits took, in hundredths of what was told; exposed as a ratio.
    pub fn eta_ratios() -> Self {
        Self::new(&ETA_BOUNDS_PERCENT, 0.01)
    }

    fn new(bounds: &'static [u64; 17], scale: f64) -> Self {
        Self(Arc::new(HistogramInner {
            bounds,
            scale,
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum: AtomicU64::new(0),
        }))
    }

    /// Counts one value: nanoseconds for a histogram of durations, else the number itself.
    #[inline]
    pub fn observe(&self, value: u64) {
        let inner = &*self.0;
        let bucket = inner.bounds.partition_point(|bound| *bound < value);
        inner.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        inner.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts one duration.
    #[inline]
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Values counted so far.
    pub fn count(&self) -> u64 {
        self.0.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }
}

impl EncodeMetric for AtomicHistogram {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        let inner = &*self.0;
        let bounds = inner.bounds.iter().map(|bound| *bound as f64 * inner.scale);
        let buckets: Vec<(f64, u64)> = bounds
            .chain([f64::INFINITY])
            .zip(inner.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)))
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = inner.sum.load(Ordering::Relaxed) as f64 * inner.scale;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl TypedMetric for AtomicHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

/// Request durations by endpoint and status class. Endpoints that nobody called are left out of a
/// scrape, so that it stays small, and so are classes that did not come; but an endpoint that was
/// called has its failures, none of them too.
#[derive(Debug, Clone)]
pub struct HttpDurations {
    routes: Arc<[[AtomicHistogram; 5]]>,
    /// Those that were answered 503, but for what only operators and their tools ask.
    unavailable: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HttpLabels {
    method: &'static str,
    route: &'static str,
    status: &'static str,
}

impl HttpDurations {
    fn new() -> Self {
        let per_route = |_: &Route| std::array::from_fn(|_| AtomicHistogram::durations());
        Self { routes: Route::ALL.iter().map(per_route).collect(), unavailable: Arc::default() }
    }

    /// Counts a request that took `duration` and was answered with `status`.
    #[inline]
    pub fn observe(&self, route: Route, status: u16, duration: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.routes[route.index()][class].observe_duration(duration);
        if status == 503 && !matches!(route.class(), Class::Admin | Class::Ops) {
            self.unavailable.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many requests were answered 503, but for those of the classes `Admin` and `Ops`.
    pub fn unavailable(&self) -> u64 {
        self.unavailable.load(Ordering::Relaxed)
    }

    /// How long requests of some classes took.
    pub fn spread(&self, classes: &[Class]) -> Spread {
        let routes = Route::ALL.iter().zip(self.routes.iter());
        let histograms = routes.filter(|(route, _)| classes.contains(&route.class()));
        let mut counts = [0; 18];
        for histogram in histograms.flat_map(|(_, histograms)| histograms) {
            for (count, bucket) in counts.iter_mut().zip(&histogram.0.buckets) {
                *count += bucket.load(Ordering::Relaxed);
            }
        }
        Spread(counts)
    }

    /// Requests counted for an endpoint and status class (1 to 5).
    pub fn count(&self, route: Route, status_class: usize) -> u64 {
        self.routes[route.index()][status_class.clamp(1, 5) - 1].count()
    }
}

/// How many requests took how long, up to some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread([u64; 18]);

impl Spread {
    /// Those that came after another spread.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index].saturating_sub(before.0[index])))
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// A time that so manieth part of them did not exceed, in milliseconds, as exactly as the bounds tell;
    /// `None` where there are none.
    pub fn quantile_ms(&self, part: f64) -> Option<f64> {
        let wanted = self.count() as f64 * part;
        let mut below = 0.0;
        for (index, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= wanted {
                let bound = |index: usize| DURATION_BOUNDS_NS.get(index).copied();
                let from = index.checked_sub(1).and_then(bound).unwrap_or(0) as f64;
                // Above the last bound nobody knows.
                let to = bound(index).map_or(from, |to| to as f64);
                return Some((from + (to - from) * (wanted - below) / count) / 1e6);
            }
            below += count;
        }
        None
    }
}

impl EncodeMetric for HttpDurations {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        for (route, classes) in Route::ALL.iter().zip(self.routes.iter()) {
            let called = classes.iter().any(|histogram| histogram.count() > 0);
            for (histogram, status) in classes.iter().zip(["1xx", "2xx", "3xx", "4xx", "5xx"]) {
                if histogram.count() > 0 || called && status == "5xx" {
                    let labels =
                        HttpLabels { method: route.method(), route: route.template(), status };
                    histogram.encode(encoder.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// A label for a queue: bounded by what the operator configured.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct QueueLabel {
    /// The queue's name.
    pub queue: String,
}

impl From<&str> for QueueLabel {
    fn from(queue: &str) -> Self {
        Self { queue: queue.to_owned() }
    }
}

/// A label for a class of requests.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ClassLabel {
    /// The class.
    pub class: Class,
}

/// A label for why queues admit as they do.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Its name, of [`boxoffice_domain::queue::Reason`].
    pub reason: &'static str,
}

/// A label for whose limit was reached.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LimitLabel {
    /// Whose.
    pub limit: Limit,
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
pub enum Limit {
    /// That of all clients together.
    All,
    /// That of one client address.
    Address,
}

impl EncodeLabelValue for Limit {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::All => "all",
            Self::Address => "address",
        })
    }
}

/// A label for what a call of Redis is for.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RedisCallLabel {
    /// What it is for: `join`, `block` or `tick`.
    pub kind: &'static str,
}

/// A label for what happened at the door.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct AtTheDoorLabel {
    /// What happened.
    pub result: AtTheDoor,
}

/// What happened at the door, where joins need the solution of a challenge.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
pub enum AtTheDoor {
    /// A challenge was given.
    Made,
    /// A join had a good solution.
    Solved,
    /// A join had none.
    Missing,
    /// A join had one that is none.
    Invalid,
    /// A join had one that was used.
    Used,
    /// A join could not be told from others.
    Unknown,
}

impl AtTheDoor {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Made, Self::Solved, Self::Missing, Self::Invalid, Self::Used, Self::Unknown];
}

impl EncodeLabelValue for AtTheDoor {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Made => "made",
            Self::Solved => "solved",
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Used => "used",
            Self::Unknown => "unknown",
        })
    }
}

/// A label for a numbered invariant, such as `I1`.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct InvariantLabel {
    /// The invariant's short name.
    pub invariant: String,
}

impl From<Invariant> for InvariantLabel {
    fn from(invariant: Invariant) -> Self {
        Self { invariant: invariant.code().to_owned() }
    }
}

/// A label for how an operation ended.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// How it ended.
    pub outcome: Outcome,
}

impl From<Outcome> for OutcomeLabel {
    fn from(outcome: Outcome) -> Self {
        Self { outcome }
    }
}

macro_rules! outcomes {
    ($($(#[$meta:meta])* $name:ident = $label:literal,)+) => {
        /// How an operation on seats or money ended.
        #[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
        pub enum Outcome { $($(#[$meta])* $name,)+ }

        impl Outcome {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The metric label.
            pub const fn label(self) -> &'static str {
                match self { $(Outcome::$name => $label,)+ }
            }
        }
    };
}

outcomes! {
    /// A reservation was made.
    Created = "created",
    /// A payment or charge went through.
    Completed = "completed",
    /// The points of a payment went back.
    Refunded = "refunded",
    /// A reservation was given back.
    Cancelled = "cancelled",
    /// A hold ran out.
    Expired = "expired",
    /// The first answer was given again for the same idempotency key.
    Replayed = "replayed",
    /// A seat was held or sold.
    SeatTaken = "seat_taken",
    /// The user has as many seats as allowed.
    Limit = "limit",
    /// Booking is not open, or no longer.
    NotOpen = "not_open",
    /// Not enough points.
    InsufficientPoints = "insufficient_points",
    /// The hold ran out or was given back.
    HoldGone = "hold_gone",
    /// It was paid already.
    AlreadyPaid = "already_paid",
    /// Not this user's, or no ticket that opens the door.
    Forbidden = "forbidden",
    /// No such concert, session, seat or reservation.
    NotFound = "not_found",
    /// The request was malformed or asked for something invalid.
    Invalid = "invalid",
    /// The idempotency key was in flight or was used for something else.
    KeyConflict = "key_conflict",
    /// The store did not take the command.
    Unavailable = "unavailable",
    /// Whether it happened is not known.
    Unknown = "unknown",
    /// A fault of the service.
    Failed = "failed",
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.label())
    }
}

/// A gauge.
pub type IntGauge = Gauge<i64, AtomicI64>;
/// Counts per queue.
pub type PerQueueCounter = Family<QueueLabel, Counter>;
/// Counts per limit that was reached.
pub type PerLimitCounter = Family<LimitLabel, Counter>;
/// Levels per queue.
pub type PerQueueGauge = Family<QueueLabel, IntGauge>;
/// A gauge of fractions.
pub type FloatGauge = Gauge<f64, AtomicU64>;
/// A gauge of fractions for each queue.
pub type PerQueueFloat = Family<QueueLabel, FloatGauge>;
/// A histogram per queue.
pub type PerQueueHistogram = Family<QueueLabel, AtomicHistogram, fn() -> AtomicHistogram>;
/// Counts per outcome.
pub type PerOutcomeCounter = Family<OutcomeLabel, Counter>;

macro_rules! metrics {
    ($(#[doc = $help:literal] $field:ident: $type:ty = $name:literal $init:expr,)+) => {
        /// Every metric. Counters are registered without their suffix: the encoder appends
        /// `_total`.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $type,)+
        }

        impl Metrics {
            /// All metrics at zero, and those of the process.
            pub fn new() -> Self {
                let mut registry = Registry::default();
                $(
                    let $field: $type = $init;
                    // The encoder appends the full stop itself.
                    registry.register($name, $help.trim().trim_end_matches('.'), $field.clone());
                )+
                registry.register(
                    "boxoffice_build",
                    "The version that runs",
                    Info::new([("version", env!("CARGO_PKG_VERSION"))]),
                );
                registry.register_collector(Box::new(ProcessCollector::new()));
                let metrics = Self { registry, $($field,)+ };
                metrics.begin_at_zero();
                metrics
            }
        }
    };
}

metrics! {
    /// Duration of HTTP requests from their complete head to their response's head.
    http_server_request_duration: HttpDurations = "http_server_request_duration_seconds" HttpDurations::new(),
    /// Requests answered 503 because too many of their class were in progress.
    http_server_requests_shed: Family<ClassLabel, Counter> = "http_server_requests_shed" Family::default(),
    /// Connections open now.
    http_server_connections: IntGauge = "http_server_connections" Gauge::default(),
    /// Connections answered 503 or 429 and closed because too many were open, in all or of one address.
    http_server_connections_refused: PerLimitCounter = "http_server_connections_refused" Family::default(),
    /// Connections cut because the peer was too slow: head, response, or the shutdown.
    http_server_connections_cut: Counter = "http_server_connections_cut" Counter::default(),
    /// Request bodies on their way, which are those that did not come with their heads.
    http_server_bodies: IntGauge = "http_server_bodies" Gauge::default(),
    /// Requests answered 429 or 503 because too many bodies were on their way.
    http_server_bodies_refused: PerLimitCounter = "http_server_bodies_refused" Family::default(),
    /// Whether the queue admits: 0 while it is paused, before it opens, and when there is nothing to buy.
    queue_open: PerQueueGauge = "boxoffice_queue_open" Family::default(),
    /// Users whom the seats that are left, free or held, can serve; absent where admission does not go by that.
    queue_stock: PerQueueGauge = "boxoffice_queue_stock" Family::default(),
    /// Users whom the queue admits in a second at the most: its rate, or what the shop can serve; 0 while it is shut.
    queue_admitting: PerQueueFloat = "boxoffice_queue_admitting_per_second" Family::default(),
    /// Users whom the queue would admit in a second if the shop could serve any number of them.
    queue_rate: PerQueueFloat = "boxoffice_queue_admit_per_second" Family::default(),
    /// Part of its rate that each queue admits, so that the shop can serve them.
    governor_share: FloatGauge = "boxoffice_governor_share" Gauge::default(),
    /// Why each queue admits that part of its rate: 1 for the reason, 0 for the others.
    governor_reason: Family<ReasonLabel, IntGauge> = "boxoffice_governor_reason" Family::default(),
    /// Users waiting.
    queue_waiting: PerQueueGauge = "boxoffice_queue_waiting" Family::default(),
    /// Users admitted and not finished.
    queue_active: PerQueueGauge = "boxoffice_queue_active" Family::default(),
    /// Highest number admitted.
    queue_serving: PerQueueGauge = "boxoffice_queue_serving" Family::default(),
    /// Users who joined.
    queue_joined: PerQueueCounter = "boxoffice_queue_joined" Family::default(),
    /// Users who gave up, in the line or after being admitted.
    queue_left: PerQueueCounter = "boxoffice_queue_left" Family::default(),
    /// Users admitted.
    queue_admitted: PerQueueCounter = "boxoffice_queue_admitted" Family::default(),
    /// Admitted users whose time ran out.
    queue_expired: PerQueueCounter = "boxoffice_queue_expired" Family::default(),
    /// Admitted users who did not come within the claim window.
    queue_no_show: PerQueueCounter = "boxoffice_queue_no_show" Family::default(),
    /// Numbers passed over because their owners were not there.
    queue_passed: PerQueueCounter = "boxoffice_queue_passed_over" Family::default(),
    /// Numbers passed over whose owners came back and were let in.
    queue_returned: PerQueueCounter = "boxoffice_queue_returned" Family::default(),
    /// Joins that were answered with a ticket that there was.
    queue_rejoined: PerQueueCounter = "boxoffice_queue_rejoined" Family::default(),
    /// Challenges that were given, and joins that needed the solution of one by what became of it.
    challenges: Family<AtTheDoorLabel, Counter> = "boxoffice_challenges" Family::default(),
    /// Second places of people that were given up when they were found.
    queue_seconds: PerQueueCounter = "boxoffice_queue_second_places" Family::default(),
    /// How long waits took, to what was told: for some places of each second, chosen before it is known.
    queue_eta_ratio: PerQueueHistogram = "boxoffice_queue_eta_ratio" Family::new_with_constructor(AtomicHistogram::eta_ratios),
    /// Those of them that took as long as told, to a quarter or five seconds.
    queue_eta_kept: PerQueueCounter = "boxoffice_queue_eta_kept" Family::default(),
    /// Reservation requests by how they ended.
    reservations: PerOutcomeCounter = "boxoffice_reservations" Family::default(),
    /// Payment requests by how they ended.
    payments: PerOutcomeCounter = "boxoffice_payments" Family::default(),
    /// Point charges by how they ended.
    points_charges: PerOutcomeCounter = "boxoffice_points_charges" Family::default(),
    /// Commands that one transaction of the store took.
    store_batch_commands: AtomicHistogram = "boxoffice_store_batch_commands" AtomicHistogram::batches(),
    /// Duration of the store's commits.
    store_commit_duration: AtomicHistogram = "boxoffice_store_commit_duration_seconds" AtomicHistogram::durations(),
    /// Whether the store works: 0 after a write that failed, and while the database is away.
    store_up: IntGauge = "boxoffice_store_up" Gauge::default(),
    /// Commands waiting for the store.
    store_pending_commands: IntGauge = "boxoffice_store_pending_commands" Gauge::default(),
    /// Seat lists rendered.
    seat_list_builds: Counter = "boxoffice_seat_list_builds" Counter::default(),
    /// Streams of seat states that are open.
    seat_streams: IntGauge = "boxoffice_seat_streams" Gauge::default(),
    /// Streams of seat states answered 503 because too many were open.
    seat_streams_refused: Counter = "boxoffice_seat_streams_refused" Counter::default(),
    /// Events sent in streams of seat states, to each listener.
    seat_stream_events: Counter = "boxoffice_seat_stream_events" Counter::default(),
    /// Those of them that told all states again, because the listener was too slow for the changes.
    seat_stream_resends: Counter = "boxoffice_seat_stream_resends" Counter::default(),
    /// Reservations of sessions that were called off, and that are neither ended nor refunded yet.
    called_off_left: IntGauge = "boxoffice_called_off_reservations_left" Gauge::default(),
    /// Events waiting to be published.
    events_pending: IntGauge = "boxoffice_events_pending" Gauge::default(),
    /// Events published.
    events_published: Counter = "boxoffice_events_published" Counter::default(),
    /// Hand-overs of events that failed; the events wait in the store.
    events_failures: Counter = "boxoffice_events_failures" Counter::default(),
    /// Duration of the hand-overs of events.
    events_publish_duration: AtomicHistogram = "boxoffice_events_publish_duration_seconds" AtomicHistogram::durations(),
    /// Invariants that the audit found broken.
    invariant_violations: Family<InvariantLabel, Counter> = "boxoffice_invariant_violations" Family::default(),
    /// Calls of Redis by what they are for: numbers of joins, topping the pool up, ticks.
    redis_calls: Family<RedisCallLabel, Counter> = "boxoffice_redis_calls" Family::default(),
    /// Calls of Redis that failed.
    redis_errors: Counter = "boxoffice_redis_errors" Counter::default(),
    /// Connections made to Redis.
    redis_connections: Counter = "boxoffice_redis_connections" Counter::default(),
    /// Grants of numbers by the store.
    redis_grants: Counter = "boxoffice_redis_grants" Counter::default(),
    /// Numbers that are left in Redis for joins.
    redis_pooled: IntGauge = "boxoffice_redis_pooled_numbers" Gauge::default(),
    /// Numbers that Redis passed over, because the store had given numbers above them itself.
    redis_places_skipped: Counter = "boxoffice_redis_places_skipped" Counter::default(),
    /// Joins whose numbers came from the store because Redis was away.
    redis_direct_joins: Counter = "boxoffice_redis_direct_joins" Counter::default(),
    /// Joins that were refused because Redis was away here and not elsewhere.
    redis_elsewhere_joins: Counter = "boxoffice_redis_elsewhere_joins" Counter::default(),
    /// Times that the queues were read again from the store.
    redis_reloads: Counter = "boxoffice_redis_reloads" Counter::default(),
    /// Times that Redis was found to have lost what it was told: wiped, begun anew, or another master.
    redis_lost: Counter = "boxoffice_redis_lost" Counter::default(),
    /// Whether Redis answers; 0 also where there is none.
    redis_up: IntGauge = "boxoffice_redis_up" Gauge::default(),
    /// How far the clock is ahead of that of the database.
    database_clock_ahead: FloatGauge = "boxoffice_database_clock_ahead_seconds" Gauge::default(),
    /// Times that the wall clock was seen to jump.
    clock_jumps: Counter = "boxoffice_clock_jumps" Counter::default(),
}

impl Metrics {
    /// What is first seen when it has happened once has no rate for that once.
    fn begin_at_zero(&self) {
        for invariant in Invariant::ALL {
            drop(self.invariant_violations.get_or_create(&invariant.into()));
        }
        for outcome in Outcome::ALL {
            for family in [&self.reservations, &self.payments, &self.points_charges] {
                drop(family.get_or_create(&(*outcome).into()));
            }
        }
        for limit in [Limit::All, Limit::Address] {
            for family in [&self.http_server_connections_refused, &self.http_server_bodies_refused]
            {
                drop(family.get_or_create(&LimitLabel { limit }));
            }
        }
        for result in AtTheDoor::ALL {
            drop(self.challenges.get_or_create(&AtTheDoorLabel { result }));
        }
        for class in Class::ALL {
            drop(self.http_server_requests_shed.get_or_create(&ClassLabel { class }));
        }
    }

    /// The text of a scrape. Levels that something else keeps are to be set just before.
    pub fn render(&self, exposition: Exposition) -> String {
        let mut text = String::with_capacity(32 * 1024);
        // Writing to a string cannot fail; a metric that fails to encode is a fault of ours.
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics cannot be encoded");
        }
        match exposition {
            Exposition::Text => as_text_format(&text),
            Exposition::OpenMetrics => text,
        }
    }
}

/// OpenMetrics in the older format. They differ in what stands above the samples: there a family is
/// called as its samples are, with their suffix, and there are no types but the oldest.
fn as_text_format(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 2_048);
    let mut help = "";
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(_), about) => help = about.unwrap_or_default(),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                // Writing to a string cannot fail.
                let _ =
                    write!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
            }
            // Units stand in the names, and the end is where it ends.
            (Some("#"), ..) => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// What Linux says about the process, read at each scrape; nothing where `/proc` is absent.
#[derive(Debug)]
struct ProcessCollector {
    start_time_seconds: f64,
    cpu: Cpu,
}

impl ProcessCollector {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start_time_seconds: now.as_secs_f64(), cpu: Cpu::new(Path::new("/")) }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge(
            "process_start_time_seconds",
            "Start of the process, in seconds since the epoch.",
            self.start_time_seconds,
        )?;
        if let Some(bytes) = resident_memory_bytes() {
            gauge("process_resident_memory_bytes", "Resident memory.", bytes)?;
        }
        if let Some(count) = open_fds() {
            gauge("process_open_fds", "Open file descriptors.", count)?;
        }
        let told = self.cpu.read();
        if let Some(cpus) = told.cpus {
            let help = "CPUs that may be used: those that the process is bound to, or its quota where that is less.";
            gauge("boxoffice_cpus", help, cpus)?;
        }
        for (name, help, seconds) in [
            ("process_cpu_seconds", "CPU time of all threads, user and system.", cpu_seconds()),
            (
                "boxoffice_cpu_throttled_seconds",
                "Time for which threads were kept from running because the quota of CPU time was used up.",
                told.throttled_seconds,
            ),
            (
                "boxoffice_run_queue_wait_seconds",
                "Time for which threads could have run and waited for a CPU, all threads together.",
                told.run_queue_wait_seconds,
            ),
        ] {
            let Some(seconds) = seconds else { continue };
            let counter = ConstCounter::new(seconds);
            let descriptor = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(descriptor)?;
        }
        Ok(())
    }
}

fn cpu_seconds() -> Option<f64> {
    // proc(5): fields 14 and 15 are user and system time in clock ticks, of which Linux has shown
    // 100 a second to user space since 2.6, whatever its own timer does. The second field is the
    // program's name in parentheses and may contain spaces, so counting starts behind it.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn resident_memory_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib * 1024) as f64)
}

fn open_fds() -> Option<f64> {
    // The listing itself holds one open.
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some(count.saturating_sub(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_the_names_that_dashboards_use() {
        let metrics = Metrics::new();
        metrics.http_server_request_duration.observe(
            Route::QueueStatus,
            200,
            Duration::from_micros(80),
        );
        metrics.queue_waiting.get_or_create(&"main".into()).set(7);
        metrics.reservations.get_or_create(&Outcome::SeatTaken.into()).inc();
        metrics.http_server_requests_shed.get_or_create(&ClassLabel { class: Class::Poll }).inc();
        let text = metrics.render(Exposition::OpenMetrics);
        for line in [
            "# TYPE http_server_request_duration_seconds histogram",
            "http_server_request_duration_seconds_bucket{le=\"0.0001\",method=\"GET\",route=\"/api/v1/waiting-queues\",status=\"2xx\"} 1",
            "http_server_request_duration_seconds_count{method=\"GET\",route=\"/api/v1/waiting-queues\",status=\"2xx\"} 1",
            "boxoffice_queue_waiting{queue=\"main\"} 7",
            "boxoffice_reservations_total{outcome=\"seat_taken\"} 1",
            "http_server_requests_shed_total{class=\"poll\"} 1",
            "http_server_request_duration_seconds_count{method=\"GET\",route=\"/api/v1/waiting-queues\",status=\"5xx\"} 0",
            "boxoffice_payments_total{outcome=\"unknown\"} 0",
            "boxoffice_invariant_violations_total{invariant=\"I1\"} 0",
            "http_server_requests_shed_total{class=\"payment\"} 0",
            "http_server_connections 0",
            "boxoffice_clock_jumps_total 0",
            "# HELP boxoffice_events_pending Events waiting to be published.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} missing in\n{text}");
        }
        assert!(text.contains("boxoffice_build_info{version="), "{text}");
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("/api/v1/payments"), "an endpoint that nobody called is left out");
        if cfg!(target_os = "linux") {
            for name in [
                "process_cpu_seconds_total ",
                "process_resident_memory_bytes ",
                "process_open_fds ",
                "process_start_time_seconds ",
                "boxoffice_cpus ",
                "boxoffice_run_queue_wait_seconds_total ",
            ] {
                assert!(text.lines().any(|line| line.starts_with(name)), "{name} missing");
            }
        }
    }

    #[test]
    fn both_formats_have_the_same_samples() {
        let metrics = Metrics::new();
        metrics.queue_waiting.get_or_create(&"main".into()).set(7);
        metrics.http_server_request_duration.observe(
            Route::QueueStatus,
            200,
            Duration::from_micros(80),
        );
        let samples = |text: &str| {
            // Those of the process differ from one moment to the next.
            let is_ours = |line: &&str| {
                !line.starts_with(['#', 'p'])
                    && !line.starts_with("boxoffice_cpu")
                    && !line.starts_with("boxoffice_run_queue")
            };
            let lines = text.lines().filter(is_ours);
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let text = metrics.render(Exposition::Text);
        let open_metrics = metrics.render(Exposition::OpenMetrics);
        assert_eq!(samples(&text), samples(&open_metrics));
        assert!(samples(&text).len() > 50, "{text}");
        for line in [
            "# HELP http_server_requests_shed_total Requests answered 503 because too many of their class were in progress.",
            "# TYPE http_server_requests_shed_total counter",
            "# TYPE http_server_connections gauge",
            "# TYPE http_server_request_duration_seconds histogram",
            "# TYPE boxoffice_build_info gauge",
            "# TYPE process_cpu_seconds_total counter",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} missing in\n{text}");
        }
        assert!(!text.contains("EOF") && !text.contains("UNIT"), "{text}");
    }

    #[test]
    fn every_value_falls_into_the_first_bucket_that_holds_it() {
        let histogram = AtomicHistogram::batches();
        for value in [0, 1, 2, 3, 65_536, 65_537, u64::MAX / 2] {
            histogram.observe(value);
        }
        let counts: Vec<u64> =
            histogram.0.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        assert_eq!((counts[0], counts[1], counts[2], counts[16], counts[17]), (2, 1, 1, 1, 2));
        assert_eq!(histogram.count(), 7);
    }
}
