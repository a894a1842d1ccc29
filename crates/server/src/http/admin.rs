//! The admin API: for operators, behind a bearer token.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use boxoffice_backends::Error;
use boxoffice_backends::events::{from_rfc3339, rfc3339};
use boxoffice_backends::sequencer::{NewAlias, Queue};
use boxoffice_backends::store::{AddedSeats, AliasExists, NewConcert, NewSeats};
use boxoffice_domain::ids::{ConcertId, QueueName, SessionId, UserId};
use boxoffice_domain::queue::SettingsChange;
use boxoffice_domain::sales::PRICE_MAX;
use boxoffice_domain::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

use super::auth::Admin;
use super::extract::{ApiJson, PathIds, PathQueue, Whole, WireId};
use super::problem::{ErrorCode, Problem};
use super::queue::{QueueState, state_of};
use super::reply::{fault, json};
use crate::app::{AppState, queue_settings};
use crate::audit::audit;
use crate::config::RATES;
use crate::tickets::looks_signed;

/// The most tokens that one call issues.
const TOKENS_MAX: u32 = 100_000;
/// The most seats that one call makes.
const SEATS_MAX: u32 = 200_000;
/// The longest name, venue and token, in characters.
const TEXT_MAX: usize = 200;

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(ErrorCode::InvalidSetting).detail(detail)
}

/// A moment in a request.
fn moment(field: &str, text: &str) -> Result<Timestamp, Problem> {
    from_rfc3339(text).ok_or_else(|| {
        invalid(format!(
            "{field}: expected a date and time with an offset, such as 2026-12-31T20:00:00+09:00, \
             from the year 1970 to the year 9999"
        ))
    })
}

/// Tells `null` (remove the value) from a field that was left out (leave it as it is).
#[allow(clippy::option_option)]
fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A queue, for operators.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AdminQueue {
    queue: String,
    /// What it is doing.
    state: QueueState,
    /// The last number given.
    next: u64,
    /// The highest number admitted.
    serving: u64,
    /// How many wait.
    waiting: u64,
    /// How many are active.
    active: u64,
    /// Admissions a second.
    admit_per_second: f64,
    /// How many may be active; null where that is not bounded.
    #[schema(required, nullable)]
    max_active: Option<u64>,
    /// When it opens, where a time is set.
    #[schema(required, nullable, format = DateTime)]
    opens_at: Option<String>,
}

/// All queues.
#[derive(Serialize, ToSchema)]
pub(super) struct AdminQueueList {
    queues: Vec<AdminQueue>,
}

fn shown(queue: &Queue, now: Timestamp) -> AdminQueue {
    let settings = queue.settings();
    AdminQueue {
        queue: queue.name().as_str().to_owned(),
        state: state_of(queue, now),
        next: queue.next(),
        serving: queue.serving(),
        waiting: queue.waiting(),
        active: queue.active(now),
        admit_per_second: settings.admit_per_second,
        max_active: settings.max_active,
        opens_at: settings.opens_at.map(rfc3339),
    }
}

pub(super) async fn queues(_: Admin, State(app): State<AppState>) -> Response {
    let now = app.clock.now();
    let queues = app.sequencer.queues().iter().map(|queue| shown(queue, now)).collect();
    json(StatusCode::OK, &AdminQueueList { queues })
}

/// How a queue shall admit. What is left out stays as it is, or as the configuration says for a
/// new queue.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueueChange {
    /// Admissions a second; above 0.
    #[schema(example = 300.0)]
    admit_per_second: Option<f64>,
    /// How many may be active; null for no bound.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>, example = 5000)]
    max_active: Option<Option<Whole<u64>>>,
    /// When it opens; null for at once.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, format = DateTime)]
    opens_at: Option<Option<String>>,
}

/// A queue to be made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewQueue {
    /// Its name: 1 to 40 of `a-z`, `0-9`, `-` and `_`.
    #[schema(example = "vip", pattern = "^[a-z0-9_-]{1,40}$")]
    queue: String,
    /// How it admits.
    #[serde(flatten)]
    settings: QueueChange,
}

impl QueueChange {
    /// The change, if it makes sense.
    fn checked(self) -> Result<SettingsChange, Problem> {
        if self.admit_per_second.is_some_and(|rate| !RATES.contains(&rate)) {
            return Err(invalid(format!(
                "admitPerSecond must be from {} to {}; to stop admission, pause the queue",
                RATES.start(),
                RATES.end()
            )));
        }
        let max_active = self.max_active.map(|max| max.map(|max| max.0));
        if max_active == Some(Some(0)) {
            return Err(invalid("maxActive must be at least 1; null removes the bound"));
        }
        let opening = |at: Option<String>| at.map(|at| moment("opensAt", &at)).transpose();
        Ok(SettingsChange {
            admit_per_second: self.admit_per_second,
            max_active,
            opens_at: self.opens_at.map(opening).transpose()?,
            paused: None,
        })
    }
}

pub(super) async fn create_queue(
    _: Admin,
    State(app): State<AppState>,
    ApiJson(new): ApiJson<NewQueue>,
) -> Result<Response, Problem> {
    let name = QueueName::new(&new.queue)
        .ok_or_else(|| invalid("queue must be 1 to 40 of a-z, 0-9, - and _"))?;
    let mut settings = queue_settings(&app.config);
    new.settings.checked()?.apply(&mut settings);
    if !app.sequencer.create(name.clone(), settings).await.map_err(|cause| fault(&cause))? {
        return Err(Problem::new(ErrorCode::AlreadyExists).detail("this queue exists"));
    }
    tracing::info!(queue.name = %name, "queue created");
    Ok(json(StatusCode::CREATED, &shown(&*find(&app, name.as_str())?, app.clock.now())))
}

fn find(app: &AppState, name: &str) -> Result<Arc<Queue>, Problem> {
    app.sequencer.queue(name).ok_or_else(|| Problem::new(ErrorCode::QueueNotFound))
}

async fn change(
    app: &AppState,
    queue: &Arc<Queue>,
    change: SettingsChange,
) -> Result<Response, Problem> {
    let settings = app.sequencer.change(queue, change).await.map_err(|cause| fault(&cause))?;
    tracing::info!(
        queue.name = %queue.name(),
        queue.admit_per_second = settings.admit_per_second,
        queue.paused = settings.paused,
        "queue changed"
    );
    Ok(json(StatusCode::OK, &shown(queue, app.clock.now())))
}

pub(super) async fn change_queue(
    _: Admin,
    State(app): State<AppState>,
    PathQueue(name): PathQueue,
    ApiJson(asked): ApiJson<QueueChange>,
) -> Result<Response, Problem> {
    let queue = find(&app, &name)?;
    change(&app, &queue, asked.checked()?).await
}

pub(super) async fn pause(
    _: Admin,
    State(app): State<AppState>,
    PathQueue(name): PathQueue,
) -> Result<Response, Problem> {
    change(&app, &find(&app, &name)?, SettingsChange::pause(true)).await
}

pub(super) async fn resume(
    _: Admin,
    State(app): State<AppState>,
    PathQueue(name): PathQueue,
) -> Result<Response, Problem> {
    change(&app, &find(&app, &name)?, SettingsChange::pause(false)).await
}

/// Opaque tokens to be issued.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenIssue {
    /// How many.
    #[schema(minimum = 1, maximum = 100_000, example = 300, value_type = u32)]
    pub count: Whole<u32>,
    /// What they look like; `{n}` becomes the number, which starts at `firstNumber`.
    #[schema(example = "queue_token_{n}")]
    pub format: String,
    /// Whether they open doors at once, past the line. Otherwise they join its end.
    #[serde(default)]
    pub activated: bool,
    /// The number of the first.
    #[serde(default = "one")]
    #[schema(minimum = 1, default = 1, value_type = u32)]
    pub first_number: Whole<u32>,
    /// Whose they all are; token n is user n's where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 1)]
    pub user_id: Option<WireId<UserId>>,
    /// The queue; the default one where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// How long activated tokens open doors, in seconds; the queue's active time where it is left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, value_type = Option<u32>)]
    pub active_seconds: Option<Whole<u32>>,
}

const fn one() -> Whole<u32> {
    Whole(1)
}

/// Tokens that were issued.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuedTokens {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub first: String,
    /// The last of them.
    pub last: String,
    /// Until when they open doors; null where they wait in the line.
    #[schema(required, nullable, format = DateTime)]
    pub active_until: Option<String>,
}

pub(super) async fn issue_tokens(
    _: Admin,
    State(app): State<AppState>,
    ApiJson(issue): ApiJson<TokenIssue>,
) -> Result<Response, Problem> {
    let (count, first_number) = (issue.count.0, issue.first_number.0);
    if !(1..=TOKENS_MAX).contains(&count) {
        return Err(invalid(format!("count must be from 1 to {TOKENS_MAX}")));
    }
    let last = u64::from(first_number) + u64::from(count) - 1;
    if first_number == 0 || u32::try_from(last).is_err() {
        return Err(invalid("firstNumber and count do not fit"));
    }
    if count > 1 && !issue.format.contains("{n}") {
        return Err(invalid("format must contain {n} where there is more than one token"));
    }
    let visible = issue.format.bytes().all(|byte| byte.is_ascii_graphic());
    if !visible || issue.format.is_empty() || issue.format.len() > TEXT_MAX {
        return Err(invalid(format!("format must be 1 to {TEXT_MAX} visible ASCII characters")));
    }
    if looks_signed(&issue.format) {
        return Err(invalid("format must not start like a signed token (eyJ)"));
    }
    if issue.active_seconds == Some(Whole(0)) {
        return Err(invalid("activeSeconds must be at least 1"));
    }
    let queue = find(&app, issue.queue.as_deref().unwrap_or(app.default_queue.as_str()))?;
    let now = app.clock.now();
    let active_for = issue
        .active_seconds
        .map_or(queue.settings().active_ttl, |seconds| Duration::from_secs(seconds.0.into()));
    let active_until = issue.activated.then(|| now.plus(active_for));
    let numbers = (0..count).map(|offset| first_number + offset);
    let tokens: Vec<NewAlias> = numbers
        .filter_map(|number| {
            let user = match issue.user_id {
                Some(WireId(user)) => user,
                None => UserId::new(number.into())?,
            };
            Some(NewAlias {
                token: issue.format.replace("{n}", &number.to_string()),
                user,
                active_until,
                id: app.ids.next(),
            })
        })
        .collect();
    let issued = app.sequencer.issue(&queue, tokens, now).await.map_err(|error| match error {
        Error::Rejected(AliasExists(token)) => Problem::new(ErrorCode::AlreadyExists)
            .detail(format!("the token {token} exists; nothing was issued")),
        Error::Fault(cause) => fault(&cause),
    })?;
    tracing::info!(queue.name = %queue.name(), tokens = issued.len(), "opaque tokens issued");
    let text = |alias: Option<&boxoffice_backends::store::Alias>| {
        alias.map(|alias| alias.token.clone()).unwrap_or_default()
    };
    Ok(json(
        StatusCode::CREATED,
        &IssuedTokens {
            count: issued.len(),
            first: text(issued.first()),
            last: text(issued.last()),
            active_until: active_until.map(rfc3339),
        },
    ))
}

/// A concert to be made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConcertRequest {
    /// Its name.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// Where it is.
    #[schema(min_length = 1, max_length = 200)]
    venue: String,
    /// When reservations begin.
    #[schema(format = DateTime)]
    reservation_opens_at: String,
    /// When they end.
    #[schema(format = DateTime)]
    reservation_closes_at: String,
    /// The queue that it is sold behind; the default one where it is left out.
    queue: Option<String>,
}

/// A concert made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConcertCreated {
    #[schema(schema_with = super::schema::id_out)]
    concert_id: i64,
}

fn named(field: &str, text: &str) -> Result<String, Problem> {
    let length = text.chars().count();
    if text.trim().is_empty() || length > TEXT_MAX || text.chars().any(char::is_control) {
        return Err(invalid(format!(
            "{field} must be 1 to {TEXT_MAX} characters, without control characters"
        )));
    }
    Ok(text.to_owned())
}

pub(super) async fn create_concert(
    _: Admin,
    State(app): State<AppState>,
    ApiJson(new): ApiJson<ConcertRequest>,
) -> Result<Response, Problem> {
    let queue = find(&app, new.queue.as_deref().unwrap_or(app.default_queue.as_str()))?;
    let opens_at = moment("reservationOpensAt", &new.reservation_opens_at)?;
    let closes_at = moment("reservationClosesAt", &new.reservation_closes_at)?;
    if closes_at <= opens_at {
        return Err(invalid("reservationClosesAt must be after reservationOpensAt"));
    }
    let concert = NewConcert {
        name: named("name", &new.name)?,
        venue: named("venue", &new.venue)?,
        queue: queue.name().clone(),
        opens_at,
        closes_at,
    };
    let id = app.store.create_concert(concert).await.map_err(|cause| fault(&cause))?;
    tracing::info!(concert.id = id.get(), "concert created");
    Ok(json(StatusCode::CREATED, &ConcertCreated { concert_id: id.get() }))
}

/// A session to be made, with its first seats.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionRequest {
    /// When it begins.
    #[schema(format = DateTime)]
    concert_at: String,
    /// How many seats.
    #[schema(minimum = 1, maximum = 200_000, value_type = u32)]
    seat_count: Whole<u32>,
    /// The price of each, in points.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64, value_type = i64)]
    price: Whole<i64>,
}

/// A session made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionCreated {
    #[schema(schema_with = super::schema::id_out)]
    session_id: i64,
    /// The first seat; the others follow without a gap.
    #[schema(schema_with = super::schema::id_out)]
    first_seat_id: i64,
    /// How many seats were made.
    seat_count: u32,
}

fn seats(count: u32, price: i64) -> Result<NewSeats, Problem> {
    if !(1..=SEATS_MAX).contains(&count) {
        return Err(invalid(format!("seatCount must be from 1 to {SEATS_MAX}")));
    }
    if !(0..=PRICE_MAX).contains(&price) {
        return Err(invalid(format!("price must be from 0 to {PRICE_MAX}")));
    }
    Ok(NewSeats { count, price })
}

pub(super) async fn create_session(
    _: Admin,
    State(app): State<AppState>,
    PathIds(concert): PathIds<ConcertId>,
    ApiJson(new): ApiJson<SessionRequest>,
) -> Result<Response, Problem> {
    let not_found = || Problem::new(ErrorCode::ConcertNotFound);
    let starts_at = moment("concertAt", &new.concert_at)?;
    let group = seats(new.seat_count.0, new.price.0)?;
    let made = app.store.create_session(concert, starts_at, vec![group]).await;
    let (session, added) = made.map_err(|cause| fault(&cause))?.ok_or_else(not_found)?;
    tracing::info!(concert.id = concert.get(), session.id = session.get(), "session created");
    let added = added.first().copied();
    Ok(json(
        StatusCode::CREATED,
        &SessionCreated {
            session_id: session.get(),
            first_seat_id: added.map_or(0, |added| added.first.get()),
            seat_count: added.map_or(0, |added| added.count),
        },
    ))
}

/// Seats to be added.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SeatsRequest {
    /// How many.
    #[schema(minimum = 1, maximum = 200_000, value_type = u32)]
    seat_count: Whole<u32>,
    /// The price of each, in points.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64, value_type = i64)]
    price: Whole<i64>,
}

/// Seats added.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SeatsCreated {
    /// The first seat; the others follow without a gap.
    #[schema(schema_with = super::schema::id_out)]
    first_seat_id: i64,
    /// How many.
    seat_count: u32,
}

pub(super) async fn create_seats(
    _: Admin,
    State(app): State<AppState>,
    PathIds((concert, session)): PathIds<(ConcertId, SessionId)>,
    ApiJson(new): ApiJson<SeatsRequest>,
) -> Result<Response, Problem> {
    let not_found = || Problem::new(ErrorCode::SessionNotFound);
    let group = seats(new.seat_count.0, new.price.0)?;
    let added = app.store.add_seats(concert, session, group).await;
    let AddedSeats { first, count } =
        added.map_err(|cause| fault(&cause))?.ok_or_else(not_found)?;
    Ok(json(StatusCode::CREATED, &SeatsCreated { first_seat_id: first.get(), seat_count: count }))
}

pub(super) async fn run_audit(_: Admin, State(app): State<AppState>) -> Result<Response, Problem> {
    let report = audit(&app).await.map_err(|cause| fault(&cause))?;
    Ok(json(StatusCode::OK, &report))
}
