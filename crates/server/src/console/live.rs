//! What goes on, second by second: rates, and how they were in the last quarter of an hour. All of it has a
//! bound, and none of it is stored.
//!
//! What does not belong here: what is sent to whom, and as what (`http::live`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use boxoffice_backends::sequencer::Queue;
use boxoffice_backends::store::{Inventory, LogEntry, Priced};
use boxoffice_domain::ids::{QueueName, SessionId};
use boxoffice_domain::queue::{Reason, Turns};
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::app::App;
use crate::endpoints::Class;
use crate::health::{Health, HealthStatus};
use crate::metrics::Spread;

/// Listeners at a time; the docs promise it.
const LISTENERS_MAX: usize = 32;
/// Queues that are watched.
pub const QUEUES_MAX: usize = 100;
/// Rates are means over so many samples, of which there is one a second; there is a point of the history as often.
/// The docs promise both.
pub const SMOOTHED: usize = 5;
/// What is left is expected to sell as fast as in so many.
const SELLING: usize = 60;
/// Points of the history: a quarter of an hour.
pub const POINTS: usize = 180;
/// Requests are looked at over so many points: a minute.
const MINUTE: usize = 12;
/// Refusals are an alarm from this part of all requests on, and from so many on.
const REFUSED_PART: f64 = 0.01;
const REFUSED_MIN: u64 = 5;
/// So many commands that wait are an alarm, if they do for long.
const PENDING_MAX: u64 = 1_000;
/// What comes and goes is none.
const PENDING_FOR: Duration = Duration::from_secs(3);
const EVENTS_FOR: Duration = Duration::from_secs(10);
/// Events that wait after a round of the relay, which took as many as it may.
const EVENTS_MANY: i64 = 2_000;
/// Seats are counted again after this time though none has changed: some are free later.
const RECOUNTED: Duration = Duration::from_secs(5);
/// The classes of requests whose refusals and times count.
const BUYERS: [Class; 6] =
    [Class::Payment, Class::Charge, Class::Reservation, Class::Poll, Class::Join, Class::Browse];

/// How fast things go, for each second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Joins at all instances,
    pub joins: f64,
    /// and at this one.
    pub joins_here: f64,
    /// People let in.
    pub admitted: f64,
    /// Purchases.
    pub payments: f64,
    /// Seats sold.
    pub seats: f64,
    /// Seats sold in the last minute.
    pub seats_of_minute: f64,
}

/// What is for sale behind a queue now, and was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// Seats that are sold now or later, and those of them that are not sold.
    pub total: u64,
    /// See `total`.
    pub left: u64,
    /// All seats that are sold, and in how many purchases.
    pub sold: u64,
    /// See `sold`.
    pub purchases: u64,
}

/// A queue at a moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    next: u64,
    turns: Turns,
    admitted: u64,
    joined_here: u64,
    stock: Stock,
}

/// A point of the history of a queue.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// How many wait.
    pub waiting: u64,
    /// How many are active.
    pub active: u64,
    /// How fast things go.
    pub rates: Rates,
}

/// How it was in the last quarter of an hour; the oldest point is the first.
pub struct History {
    /// Of each queue; none for the time before it was there.
    pub queues: Vec<(QueueName, Vec<Option<Point>>)>,
    /// Of requests.
    pub requests: Vec<Requests>,
}

/// The history of a queue.
#[derive(Default)]
struct Watched {
    samples: VecDeque<Sample>,
    points: VecDeque<Option<Point>>,
}

impl Watched {
    fn add(&mut self, sample: Sample) {
        self.samples.push_back(sample);
        if self.samples.len() > SELLING + 1 {
            self.samples.pop_front();
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn rates(&self) -> Rates {
        let Some(now) = self.samples.back() else { return Rates::default() };
        let before = |steps: usize| {
            let index = self.samples.len().saturating_sub(steps + 1);
            self.samples.get(index).unwrap_or(now)
        };
        let per_second = |since: &Sample, of: fn(&Sample) -> u64| {
            let seconds = now.at.duration_since(since.at).as_secs_f64();
            if seconds > 0.0 { of(now).saturating_sub(of(since)) as f64 / seconds } else { 0.0 }
        };
        let recent = before(SMOOTHED);
        Rates {
            joins: per_second(recent, |it| it.next),
            joins_here: per_second(recent, |it| it.joined_here),
            admitted: per_second(recent, |it| it.admitted),
            payments: per_second(recent, |it| it.stock.purchases),
            seats: per_second(recent, |it| it.stock.sold),
            seats_of_minute: per_second(before(SELLING), |it| it.stock.sold),
        }
    }
}

/// How requests were answered, up to a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Answered {
    unavailable: u64,
    all: Spread,
    polls: Spread,
    purchases: Spread,
}

impl Answered {
    fn up_to_now(app: &App) -> Self {
        let durations = &app.metrics.http_server_request_duration;
        Self {
            unavailable: durations.unavailable(),
            all: durations.spread(&BUYERS),
            polls: durations.spread(&[Class::Poll]),
            purchases: durations.spread(&[Class::Reservation, Class::Payment]),
        }
    }

    fn since(&self, before: &Self) -> Requests {
        Requests {
            unavailable: self.unavailable.saturating_sub(before.unavailable),
            asked: self.all.since(&before.all).count(),
            polls_p95_ms: self.polls.since(&before.polls).quantile_ms(0.95),
            purchases_p95_ms: self.purchases.since(&before.purchases).quantile_ms(0.95),
        }
    }
}

/// How requests were answered in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Requests {
    /// How many with 503,
    pub unavailable: u64,
    /// of how many.
    pub asked: u64,
    /// What 95 of 100 polls did not exceed, in milliseconds.
    pub polls_p95_ms: Option<f64>,
    /// The same of holds and payments.
    pub purchases_p95_ms: Option<f64>,
}

impl Requests {
    #[allow(clippy::cast_precision_loss)]
    fn are_refused(&self) -> bool {
        self.unavailable >= REFUSED_MIN
            && self.unavailable as f64 > self.asked as f64 * REFUSED_PART
    }
}

/// Something that somebody should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What it is: a stable code.
    pub code: &'static str,
    /// Whether it keeps the service from selling.
    pub is_critical: bool,
    /// What it is about, where there is more than one.
    pub target: Option<&'static str>,
    /// What it is, in words.
    pub detail: String,
    /// Since when.
    pub since: Timestamp,
}

/// Something that may be an alarm.
struct Trouble {
    code: &'static str,
    is_critical: bool,
    target: Option<&'static str>,
    detail: String,
    /// For how long it has to be so.
    lasts: Duration,
}

fn troubles(app: &App, health: &Health, requests: &Requests) -> Vec<Trouble> {
    let trouble = |code, detail: String| Trouble {
        code,
        is_critical: false,
        target: None,
        detail,
        lasts: Duration::ZERO,
    };
    let mut found = Vec::new();
    for part in &health.dependencies {
        let detail = part.detail.unwrap_or_default().to_owned();
        let (code, is_critical) = match part.status {
            HealthStatus::Up => continue,
            HealthStatus::Degraded => ("PART_DEGRADED", false),
            HealthStatus::Down => ("PART_DOWN", true),
        };
        found.push(Trouble { is_critical, target: Some(part.name), ..trouble(code, detail) });
    }
    let governed = app.sequencer.governed();
    let why = match governed.reason {
        Reason::Full => None,
        Reason::Refusing => Some("purchases are refused"),
        Reason::Waiting => Some("purchases wait for too long"),
        Reason::Rising => Some("it rises again"),
    };
    if let Some(why) = why {
        let detail = format!("{:.0} % of the rate is let in: {why}", governed.share * 100.0);
        found.push(trouble("GOVERNOR_SLOWING", detail));
    }
    if requests.are_refused() {
        let Requests { unavailable, asked, .. } = requests;
        let detail = format!("{unavailable} of {asked} requests of the last minute answered 503");
        found.push(trouble("REFUSALS", detail));
    }
    let events = app.metrics.events_pending.get();
    if app.events_wait.load(Ordering::Relaxed) || events >= EVENTS_MANY {
        let detail = format!("{events} events or more wait to be published");
        found.push(Trouble { lasts: EVENTS_FOR, ..trouble("EVENTS_BEHIND", detail) });
    }
    let pending = app.store.stats().pending.load(Ordering::Relaxed);
    if pending >= PENDING_MAX {
        let detail = format!("{pending} commands wait for the store");
        found.push(Trouble { lasts: PENDING_FOR, ..trouble("STORE_BEHIND", detail) });
    }
    found
}

/// The seats of a session, as they were counted last.
struct Counted {
    version: u64,
    at: Instant,
    prices: Arc<[Priced]>,
}

#[derive(Default)]
struct Figures {
    ticks: usize,
    queues: BTreeMap<QueueName, Watched>,
    answered: VecDeque<Answered>,
    points: VecDeque<Requests>,
    /// Since when there is what trouble.
    troubles: HashMap<(&'static str, Option<&'static str>), Timestamp>,
    counted: HashMap<SessionId, Counted>,
}

/// What goes on, and who is told.
pub struct Live {
    figures: Mutex<Figures>,
    actions: Mutex<Arc<[LogEntry]>>,
    frames: watch::Sender<Bytes>,
    places: Arc<Semaphore>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            figures: Mutex::default(),
            actions: Mutex::new(Arc::new([])),
            frames: watch::Sender::new(Bytes::new()),
            places: Arc::new(Semaphore::new(LISTENERS_MAX)),
        }
    }
}

/// A place among those who are told. What there was before they came is not for them.
pub struct Listener {
    frames: watch::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// Waits for what is told next; whoever is late gets the latest. None where nothing more comes.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.frames.changed().await.ok()?;
        Some(self.frames.borrow_and_update().clone())
    }
}

/// What is for sale behind each queue.
fn stocks(app: &App, now: Timestamp) -> HashMap<QueueName, Stock> {
    let catalog = app.store.catalog();
    let mut stocks: HashMap<QueueName, Stock> = HashMap::new();
    for concert in catalog.concerts() {
        let stock = stocks.entry(concert.queue.clone()).or_default();
        for inventory in catalog.inventories(concert.id) {
            let (sold, purchases) = inventory.purchases(now);
            stock.sold += sold;
            stock.purchases += purchases;
            if inventory.is_sold(concert, now) {
                let total = inventory.total() as u64;
                stock.total += total;
                stock.left += total.saturating_sub(inventory.sold());
            }
        }
    }
    stocks
}

impl Live {
    /// Looks at everything; to be called once a second.
    pub fn sample(&self, app: &App) {
        let (at, now) = (Instant::now(), app.clock.now());
        let stocks = stocks(app, now);
        let mut figures = self.figures.lock();
        let figures = &mut *figures;
        let is_point = figures.ticks.is_multiple_of(SMOOTHED);
        figures.ticks = figures.ticks.wrapping_add(1);
        if is_point {
            let answered = Answered::up_to_now(app);
            let requests = figures.answered.back().map(|before| answered.since(before));
            push(&mut figures.points, requests.unwrap_or_default(), POINTS);
            push(&mut figures.answered, answered, MINUTE);
        }
        let points = figures.points.len();
        for queue in app.sequencer.queues().iter().take(QUEUES_MAX) {
            let watched = figures.queues.entry(queue.name().clone()).or_default();
            let stock = stocks.get(queue.name()).copied().unwrap_or_default();
            watched.add(Sample::of(queue, watched.samples.back(), stock, at));
            if is_point {
                let point = Point {
                    waiting: queue.waiting(),
                    active: queue.active(now),
                    rates: watched.rates(),
                };
                push(&mut watched.points, Some(point), POINTS);
                // A queue that is new has none before.
                while watched.points.len() < points {
                    watched.points.push_front(None);
                }
            }
        }
    }

    /// How fast things go at a queue, and what is for sale behind it.
    pub fn of_queue(&self, name: &QueueName) -> (Rates, Stock) {
        let figures = self.figures.lock();
        let watched = figures.queues.get(name);
        let stock = watched.and_then(|watched| watched.samples.back()).map(|it| it.stock);
        (watched.map(Watched::rates).unwrap_or_default(), stock.unwrap_or_default())
    }

    /// How requests were answered in about the last minute.
    pub fn requests(&self, app: &App) -> Requests {
        let before = self.figures.lock().answered.front().copied().unwrap_or_default();
        Answered::up_to_now(app).since(&before)
    }

    /// What somebody should look at now.
    pub fn alarms(&self, app: &App, health: &Health, requests: &Requests) -> Vec<Alarm> {
        let now = app.clock.now();
        let found = troubles(app, health, requests);
        let mut figures = self.figures.lock();
        let known = std::mem::take(&mut figures.troubles);
        let mut alarms = Vec::new();
        for Trouble { code, is_critical, target, detail, lasts } in found {
            let since = known.get(&(code, target)).copied().unwrap_or(now);
            figures.troubles.insert((code, target), since);
            if now.since(since) >= lasts {
                alarms.push(Alarm { code, is_critical, target, detail, since });
            }
        }
        alarms
    }

    /// The seats of a session by price. As long as somebody asks, what others do to them matters.
    pub fn seats(&self, inventory: &Inventory, now: Timestamp) -> Arc<[Priced]> {
        let (id, version) = (inventory.session().id, inventory.version());
        let is_current = |it: &&Counted| it.version == version && it.at.elapsed() < RECOUNTED;
        if let Some(counted) = self.figures.lock().counted.get(&id).filter(is_current) {
            return counted.prices.clone();
        }
        let prices: Arc<[Priced]> = inventory.prices(now).into();
        let counted = Counted { version, at: Instant::now(), prices: prices.clone() };
        self.figures.lock().counted.insert(id, counted);
        prices
    }

    /// Forgets the seats of all sessions but these.
    pub fn keep_seats(&self, of: impl Fn(SessionId) -> bool) {
        self.figures.lock().counted.retain(|id, _| of(*id));
    }

    /// How it was in the last quarter of an hour.
    pub fn history(&self) -> History {
        let figures = self.figures.lock();
        let queues = figures.queues.iter();
        let queues =
            queues.map(|(name, watched)| (name.clone(), watched.points.iter().copied().collect()));
        History { queues: queues.collect(), requests: figures.points.iter().copied().collect() }
    }

    /// What operators have changed of late, the latest first.
    pub fn actions(&self) -> Arc<[LogEntry]> {
        self.actions.lock().clone()
    }

    /// Notes what they have changed of late.
    pub fn note_actions(&self, actions: Vec<LogEntry>) {
        *self.actions.lock() = actions.into();
    }

    /// A place among those who are told; none where all are taken.
    pub fn listen(&self) -> Option<Listener> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        Some(Listener { frames: self.frames.subscribe(), _place: place })
    }

    /// Whether anybody is told.
    pub fn has_listeners(&self) -> bool {
        self.frames.receiver_count() > 0
    }

    /// Tells all who listen.
    pub fn tell(&self, frame: Bytes) {
        self.frames.send_replace(frame);
    }
}

fn push<T>(points: &mut VecDeque<T>, point: T, max: usize) {
    points.push_back(point);
    if points.len() > max {
        points.pop_front();
    }
}

impl Sample {
    fn of(queue: &Queue, before: Option<&Self>, stock: Stock, at: Instant) -> Self {
        let turns = queue.turns();
        let (since, admitted) = before.map_or((turns, 0), |before| (before.turns, before.admitted));
        Self {
            at,
            next: queue.next(),
            turns,
            admitted: admitted + queue.admitted_since(since),
            joined_here: queue.counters().joined.load(Ordering::Relaxed),
            stock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, admitted: u64, purchases: u64) -> Sample {
        let stock = Stock { sold: 2 * purchases, purchases, ..Stock::default() };
        Sample { at, next: 10 * admitted, turns: Turns::default(), admitted, joined_here: 0, stock }
    }

    #[test]
    fn rates_are_means_of_the_last_seconds() {
        let mut watched = Watched::default();
        assert_eq!(watched.rates(), Rates::default());
        let begin = Instant::now();
        watched.add(sample(begin, 100, 0));
        assert_eq!(watched.rates(), Rates::default());
        // Ten a second, of which two buy; then twenty, of which nobody does.
        let at = |second: u64| begin + Duration::from_secs(second);
        for second in 1..=30 {
            watched.add(sample(at(second), 100 + 10 * second, 2 * second));
        }
        let rates = watched.rates();
        assert_eq!((rates.admitted, rates.joins, rates.payments), (10.0, 100.0, 2.0));
        assert_eq!((rates.seats, rates.seats_of_minute), (4.0, 4.0));
        for second in 31..=35 {
            watched.add(sample(at(second), 400 + 20 * (second - 30), 60));
        }
        let rates = watched.rates();
        assert_eq!((rates.admitted, rates.payments, rates.seats), (20.0, 0.0, 0.0));
        assert!((rates.seats_of_minute - 120.0 / 35.0).abs() < 1e-9);
        // A refund is no purchase.
        watched.add(sample(at(36), 520, 50));
        assert_eq!(watched.rates().payments, 0.0);
        for second in 37..=500 {
            watched.add(sample(at(second), 520, 50));
        }
        assert_eq!(watched.samples.len(), SELLING + 1);
        assert_eq!(watched.rates(), Rates::default());
    }

    #[test]
    fn a_few_refusals_are_no_alarm() {
        let requests = |unavailable, asked| Requests { unavailable, asked, ..Requests::default() };
        for (unavailable, asked, refused) in
            [(0, 0, false), (4, 4, false), (5, 5, true), (10, 1_000, false), (11, 1_000, true)]
        {
            assert_eq!(
                requests(unavailable, asked).are_refused(),
                refused,
                "{unavailable} {asked}"
            );
        }
    }
}
