//! What goes on, told to the console once a second: one snapshot for all who listen, made once. A listener
//! keeps a place and nothing else, so who is slow costs no memory, and gets the latest.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::Response;
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::Role;
use boxoffice_domain::queue::QueueState as Doing;
use boxoffice_domain::sales::Concert;
use boxoffice_domain::time::Timestamp;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::access::{Access, Credential};
use super::operators::{LoggedChange, logged};
use super::problem::{ErrorCode, Problem};
use super::queue::QueueState;
use super::reply::{HEARTBEAT, events, to_json};
use super::settings::etag;
use crate::app::{App, AppState};
use crate::console::live;
use crate::console::live::{Alarm, Listener, POINTS, Point, QUEUES_MAX, Rates, Requests, SMOOTHED};
use crate::health::{self, Health};

/// Sessions that are told of.
const SESSIONS_MAX: usize = 200;
/// What operators have changed in this time is told, and at most so many changes.
const ACTIONS_FOR: Duration = Duration::from_secs(900);
pub(crate) const ACTIONS_MAX: u32 = 50;
/// Who listens hears something at least this often.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A browser that has lost the stream comes back after so many milliseconds.
const RETRY: &str = "retry: 2000\n\n";
/// Whole seconds after which somebody for whom there is no room may ask again.
const FULL_RETRY_AFTER_SECONDS: u32 = 10;

/// What goes on now. Rates are means over the last five seconds.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snapshot {
    /// The service's time.
    #[schema(format = DateTime)]
    at: String,
    /// The version of the program.
    version: &'static str,
    /// What this instance is called; null where it is the only one.
    #[schema(required, nullable)]
    instance: Option<String>,
    /// The others that are there.
    instances: Vec<LiveInstance>,
    /// Which of the figures are of all instances, and which of this one.
    scope: Scope,
    /// The queues, by name.
    queues: Vec<LiveQueue>,
    /// How much of their rates queues admit.
    governor: LiveGovernor,
    /// What is sold, now or later.
    concerts: Vec<LiveConcert>,
    /// How many more queues there are,
    queues_left_out: usize,
    /// and how many more sessions.
    sessions_left_out: usize,
    /// How the parts of the service are.
    health: Health,
    /// How requests were answered in the last minute.
    requests: LiveRequests,
    /// What somebody should look at.
    alarms: Vec<LiveAlarm>,
    /// What operators have changed in the last quarter of an hour, the latest first.
    actions: Vec<LoggedChange>,
}

/// An instance.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LiveInstance {
    /// What it is called.
    instance: String,
    /// When it said last that it is there.
    #[schema(format = DateTime)]
    seen_at: String,
}

/// Which figures are whose.
#[derive(Serialize, ToSchema)]
struct Scope {
    /// Those of all instances.
    all: [&'static str; 4],
    /// Those of this one.
    instance: [&'static str; 4],
}

const SCOPE: Scope = Scope {
    all: ["queues", "governor", "concerts", "actions"],
    instance: ["joinsPerSecondHere", "health", "requests", "alarms"],
};

/// A queue.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LiveQueue {
    queue: String,
    /// What it is doing.
    state: QueueState,
    /// When it opens, where a time is set; the first sale behind it may open later.
    #[schema(required, nullable, format = DateTime)]
    opens_at: Option<String>,
    /// When it opens, by that time and the first sale behind it; null where it is open, or never opens.
    #[schema(required, nullable, format = DateTime)]
    opening_at: Option<String>,
    /// Whether an operator paused it.
    paused: bool,
    /// Stands for its settings, for `If-Match`.
    etag: String,
    /// Admissions a second, as they are set.
    admit_per_second: f64,
    /// Admissions a second at the most, as the shop can serve them; 0 where it is shut.
    admitting_per_second: f64,
    /// How many may be active; null where that is not bounded.
    #[schema(required, nullable)]
    max_active: Option<u64>,
    /// How many wait.
    waiting: u64,
    /// How many are active.
    active: u64,
    joins_per_second: f64,
    /// Those at this instance.
    joins_per_second_here: f64,
    admitted_per_second: f64,
    payments_per_second: f64,
    seats_sold_per_second: f64,
    /// How long the last of those who wait will do so; null where nobody knows.
    #[schema(required, nullable)]
    last_wait_seconds: Option<u64>,
    /// When the line of now will be empty; null where nobody waits or knows.
    #[schema(required, nullable, format = DateTime)]
    line_empty_at: Option<String>,
    /// Seats that are sold behind it, now or later.
    seats_total: u64,
    /// Those that are not sold.
    seats_left: u64,
    /// When all is sold if it goes on as in the last minute; null where it does not go.
    #[schema(required, nullable)]
    minutes_to_sell_out: Option<f64>,
}

/// How much of their rates queues admit, so that the shop can serve those who are inside.
#[derive(Serialize, ToSchema)]
struct LiveGovernor {
    /// The part.
    share: f64,
    /// Why: `full`, `refusing`, `waiting` or `rising`.
    reason: &'static str,
}

/// A concert.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LiveConcert {
    #[schema(schema_with = super::schema::id_out)]
    concert_id: i64,
    name: String,
    queue: String,
    sessions: Vec<LiveSession>,
}

/// A session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LiveSession {
    #[schema(schema_with = super::schema::id_out)]
    session_id: i64,
    /// When it begins.
    #[schema(format = DateTime)]
    concert_at: String,
    /// Its seats by grade and price.
    grades: Vec<LiveGrade>,
}

/// Seats of one grade and price.
#[derive(Serialize, ToSchema)]
struct LiveGrade {
    /// Null where there are no grades.
    #[schema(required, nullable)]
    grade: Option<String>,
    /// In points.
    price: i64,
    total: u64,
    free: u64,
    /// Held, or given back and not free yet.
    held: u64,
    sold: u64,
    /// What was paid for those that are sold, in points.
    money: i64,
}

/// How requests were answered in the last minute, but for those of operators and their tools.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LiveRequests {
    /// How many with 503,
    unavailable: u64,
    /// of how many.
    asked: u64,
    /// What 95 of 100 did not exceed.
    p95_ms: LiveTimes,
}

/// Times in milliseconds; null where nobody asked.
#[derive(Serialize, ToSchema)]
struct LiveTimes {
    /// Of polls, pages and public documents.
    #[schema(required, nullable)]
    polls: Option<f64>,
    /// Of holds and payments.
    #[schema(required, nullable)]
    purchases: Option<f64>,
}

/// Something that somebody should look at.
#[derive(Serialize, ToSchema)]
struct LiveAlarm {
    /// What it is.
    code: &'static str,
    /// `critical` where it keeps the service from selling, else `warning`.
    level: &'static str,
    /// What it is about, where there is more than one.
    #[schema(required, nullable)]
    target: Option<&'static str>,
    /// What it is, in words.
    detail: String,
    /// Since when.
    #[schema(format = DateTime)]
    since: String,
}

impl From<Alarm> for LiveAlarm {
    fn from(alarm: Alarm) -> Self {
        let level = if alarm.is_critical { "critical" } else { "warning" };
        let Alarm { code, target, detail, since, .. } = alarm;
        Self { code, level, target, detail, since: rfc3339(since) }
    }
}

/// To the hundredth: more is of no use to anybody.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn queues(app: &App, now: Timestamp) -> (Vec<LiveQueue>, usize) {
    let all = app.sequencer.queues();
    let told = all.iter().take(QUEUES_MAX).map(|queue| {
        let settings = queue.settings();
        let (rates, stock) = app.live.of_queue(queue.name());
        let (waiting, last_wait) = (queue.waiting(), queue.last_wait(now));
        let empty_at = last_wait.filter(|_| waiting > 0).map(|wait| now.plus(wait));
        let state = queue.state(now);
        let opening_at = match state {
            Doing::Scheduled(at) => Some(rfc3339(at)),
            Doing::Open | Doing::Paused | Doing::Closed(_) => None,
        };
        #[allow(clippy::cast_precision_loss)]
        let sold_out = || stock.left as f64 / rates.seats_of_minute / 60.0;
        LiveQueue {
            queue: queue.name().as_str().to_owned(),
            state: state.into(),
            opens_at: settings.opens_at.map(rfc3339),
            opening_at,
            paused: settings.paused,
            etag: etag(&settings),
            admit_per_second: settings.admit_per_second,
            admitting_per_second: rounded(queue.admitting_per_second(now)),
            max_active: settings.max_active,
            waiting,
            active: queue.active(now),
            joins_per_second: rounded(rates.joins),
            joins_per_second_here: rounded(rates.joins_here),
            admitted_per_second: rounded(rates.admitted),
            payments_per_second: rounded(rates.payments),
            seats_sold_per_second: rounded(rates.seats),
            last_wait_seconds: last_wait.map(|wait| wait.as_secs()),
            line_empty_at: empty_at.map(rfc3339),
            seats_total: stock.total,
            seats_left: stock.left,
            minutes_to_sell_out: (rates.seats_of_minute > 0.0).then(|| rounded(sold_out())),
        }
    });
    (told.collect(), all.len().saturating_sub(QUEUES_MAX))
}

fn concerts(app: &App, now: Timestamp) -> (Vec<LiveConcert>, usize) {
    let catalog = app.store.catalog();
    let (mut told, mut count, mut left_out) = (Vec::new(), 0, 0);
    let session_of = |concert: &Concert| {
        let all = catalog.inventories(concert.id).iter();
        all.filter(|inventory| inventory.is_sold(concert, now)).cloned().collect::<Vec<_>>()
    };
    let mut kept = std::collections::HashSet::new();
    for concert in catalog.concerts() {
        let mut sessions = session_of(concert);
        let room = SESSIONS_MAX - count;
        left_out += sessions.len().saturating_sub(room);
        sessions.truncate(room);
        count += sessions.len();
        if sessions.is_empty() {
            continue;
        }
        let sessions = sessions.iter().map(|inventory| {
            let session = inventory.session();
            kept.insert(session.id);
            let prices = app.live.seats(inventory, now);
            let grades = prices.iter().map(|priced| LiveGrade {
                grade: inventory.grade_name(priced.grade),
                price: priced.price,
                total: priced.total,
                free: priced.free,
                held: priced.held(),
                sold: priced.sold,
                money: priced.money(),
            });
            LiveSession {
                session_id: session.id.get(),
                concert_at: rfc3339(session.starts_at),
                grades: grades.collect(),
            }
        });
        told.push(LiveConcert {
            concert_id: concert.id.get(),
            name: concert.name.clone(),
            queue: concert.queue.as_str().to_owned(),
            sessions: sessions.collect(),
        });
    }
    app.live.keep_seats(|id| kept.contains(&id));
    (told, left_out)
}

fn snapshot(app: &App) -> Snapshot {
    let now = app.clock.now();
    let (instance, others) = app.sequencer.instances().unzip();
    let instances = others.unwrap_or_default().into_iter();
    let (queues, queues_left_out) = queues(app, now);
    let (concerts, sessions_left_out) = concerts(app, now);
    let governed = app.sequencer.governed();
    let health = health::of(app.parts());
    let requests = app.live.requests(&app.metrics);
    let alarms = app.live.alarms((app.parts(), &app.metrics), &health, &requests, now);
    let Requests { unavailable, asked, polls_p95_ms, purchases_p95_ms } = requests;
    let actions = app.live.actions();
    let recent = actions.iter().filter(|entry| now.since(entry.at) <= ACTIONS_FOR);
    Snapshot {
        at: rfc3339(now),
        version: env!("CARGO_PKG_VERSION"),
        instance,
        instances: instances
            .map(|(instance, at)| LiveInstance { instance, seen_at: rfc3339(at) })
            .collect(),
        scope: SCOPE,
        queues,
        governor: LiveGovernor { share: governed.share, reason: governed.reason.name() },
        concerts,
        queues_left_out,
        sessions_left_out,
        health,
        requests: LiveRequests {
            unavailable,
            asked,
            p95_ms: LiveTimes {
                polls: polls_p95_ms.map(rounded),
                purchases: purchases_p95_ms.map(rounded),
            },
        },
        alarms: alarms.into_iter().map(LiveAlarm::from).collect(),
        actions: recent.cloned().map(logged).collect(),
    }
}

/// How it was in the last quarter of an hour: in columns, of which the last value is the latest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct History {
    every_seconds: usize,
    until: String,
    points: usize,
    queues: Vec<QueueHistory>,
    unavailable: Vec<u64>,
    purchases_p95_ms: Vec<Option<f64>>,
}

/// The same of a queue; null for the time before it was made.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueHistory {
    queue: String,
    waiting: Vec<Option<u64>>,
    active: Vec<Option<u64>>,
    joins_per_second: Vec<Option<f64>>,
    admitted_per_second: Vec<Option<f64>>,
    payments_per_second: Vec<Option<f64>>,
}

fn history(app: &App) -> History {
    let live::History { queues, requests } = app.live.history();
    let queues = queues.into_iter().map(|(name, points)| {
        let count = |of: fn(&Point) -> u64| points.iter().map(|it| it.as_ref().map(of)).collect();
        let rate = |of: fn(&Rates) -> f64| {
            let points = points.iter().map(|it| it.as_ref().map(|it| rounded(of(&it.rates))));
            points.collect()
        };
        QueueHistory {
            queue: name.as_str().to_owned(),
            waiting: count(|it| it.waiting),
            active: count(|it| it.active),
            joins_per_second: rate(|it| it.joins),
            admitted_per_second: rate(|it| it.admitted),
            payments_per_second: rate(|it| it.payments),
        }
    });
    History {
        every_seconds: SMOOTHED,
        until: rfc3339(app.clock.now()),
        points: requests.len().min(POINTS),
        queues: queues.collect(),
        unavailable: requests.iter().map(|it| it.unavailable).collect(),
        purchases_p95_ms: requests.iter().map(|it| it.purchases_p95_ms.map(rounded)).collect(),
    }
}

/// An event as it is sent. JSON of ours is one line.
fn event(name: &str, data: &impl Serialize) -> Bytes {
    format!("event: {name}\ndata: {}\n\n", to_json(data)).into()
}

/// Looks at everything, and tells those who listen; to be called once a second.
pub(crate) fn publish(app: &App) {
    app.live.sample(app.parts(), &app.metrics, app.clock.now());
    if app.live.has_listeners() {
        app.live.tell(event("live", &snapshot(app)));
    }
}

/// Why a stream ends.
#[derive(Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", tag = "reason")]
enum End {
    SignedOut,
    ShuttingDown,
}

pub(super) async fn live(
    access: Access,
    State(app): State<AppState>,
) -> Result<Response<Body>, Problem> {
    let listener = app.live.listen().ok_or_else(|| {
        Problem::new(ErrorCode::Overloaded)
            .detail("as many listen already as may")
            .retry_after(FULL_RETRY_AFTER_SECONDS)
    })?;
    // It holds one piece at the most.
    let (pieces, told) = mpsc::channel(1);
    tokio::spawn(follow(app, access.by, listener, pieces));
    Ok(events(stream::unfold(told, |mut told| async {
        told.recv().await.map(|piece| (Ok(piece), told))
    })))
}

/// Tells one listener all there is to tell, until it has gone, the service ends, or it may not hear it any
/// more.
async fn follow(
    app: AppState,
    by: Credential,
    mut listener: Listener,
    pieces: mpsc::Sender<Bytes>,
) {
    let mut next = [RETRY.as_bytes(), &event("history", &history(&app))].concat().into();
    loop {
        // What nobody can say at the moment ends nothing: who is removed while the store is away is removed
        // once it is back.
        let is_known = by.holder(&app.operators, app.clock.now());
        let end = if is_known.is_ok_and(|who| who.is_none_or(|who| !who.role.may(Role::Viewer))) {
            Some(End::SignedOut)
        } else {
            app.is_draining().then_some(End::ShuttingDown)
        };
        if let Some(end) = end {
            let _ = pieces.send(event("end", &end)).await;
            return;
        }
        if pieces.send(next).await.is_err() {
            return;
        }
        next = tokio::select! {
            told = timeout(SILENCE_MAX, listener.next()) => match told {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(_) => HEARTBEAT,
            },
            () = pieces.closed() => return,
        };
    }
}
