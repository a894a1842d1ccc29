//! The admin API: for operators, behind a bearer token.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::header::ETAG;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use boxoffice_backends::Error;
use boxoffice_backends::events::{from_rfc3339, rfc3339};
use boxoffice_backends::sequencer::{NewAlias, Queue};
use boxoffice_backends::store::{
    Act, ActRejected, Acted, ConcertChange, Condition, Digest as PlanDigest, Effect, Inventory,
    NewConcert, NewSeats, Note, Seating, StoredPlan, change_back,
};
use boxoffice_domain::ids::{ConcertId, QueueName, SessionId, UserId};
use boxoffice_domain::queue::{Outlook, QueueSettings, SettingsChange};
use boxoffice_domain::sales::PRICE_MAX;
use boxoffice_domain::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::task::spawn_blocking;
use utoipa::ToSchema;
use uuid::Uuid;

use super::access::{Access, Asked, AskedAtLength, IfMatch, created};
use super::concerts::ListedConcert;
use super::describe::{Described, Description};
use super::extract::{ApiJson, Id, MaybeIdempotencyKey, PathIds, PathQueue, Whole, WireId};
use super::page::query;
use super::problem::{ErrorCode, Problem};
use super::queue::QueueState;
use super::reply::{act_error, fault, json, to_json};
use super::settings::etag;
use crate::app::{AppState, queue_settings};
use crate::audit::audit;
use crate::config::RATES;
use crate::plans::{Imported, PlanReport, PretixPlan, Standing, import, report_of};
use crate::tickets::looks_signed;

/// The most tokens that one call issues.
const TOKENS_MAX: u32 = 100_000;
/// The most seats that one call makes.
const SEATS_MAX: u32 = 200_000;
/// The longest name, venue and format of tokens, in characters.
const TEXT_MAX: usize = 200;
/// The longest token, in characters.
const TOKEN_MAX: usize = 400;

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
pub(super) fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
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
    /// When it opens, where a time is set; the first sale behind it may open later.
    #[schema(required, nullable, format = DateTime)]
    opens_at: Option<String>,
    /// In which order those have their turn who join before the opening.
    opening: Opening,
    /// Whether an operator paused it.
    paused: bool,
    /// Stands for its settings, for `If-Match`.
    etag: String,
    /// The entry of the log that the change made; only in answers to changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_id: Option<i64>,
}

/// In which order those have their turn who join before the opening of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Opening {
    /// As they joined.
    #[default]
    Fifo,
    /// They are drawn at the opening. Who joins later follows behind them.
    Draw,
}

impl Opening {
    const fn of(is_drawn: bool) -> Self {
        if is_drawn { Self::Draw } else { Self::Fifo }
    }
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
        state: queue.state(now).into(),
        next: queue.next(),
        serving: queue.serving(),
        waiting: queue.waiting(),
        active: queue.active(now),
        admit_per_second: settings.admit_per_second,
        max_active: settings.max_active,
        opens_at: settings.opens_at.map(rfc3339),
        opening: Opening::of(queue.draw().is_some()),
        paused: settings.paused,
        etag: etag(&settings),
        log_id: None,
    }
}

/// A queue as an answer, with its entity tag.
fn tagged(queue: &AdminQueue) -> Response {
    let mut response = json(StatusCode::OK, queue);
    if let Ok(tag) = HeaderValue::try_from(&queue.etag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

pub(super) async fn queue(
    _: Access,
    State(app): State<AppState>,
    PathQueue(name): PathQueue,
) -> Result<Response, Problem> {
    Ok(tagged(&shown(&*find(&app, &name)?, app.clock.now())))
}

pub(super) async fn queues(_: Access, State(app): State<AppState>) -> Response {
    let now = app.clock.now();
    let queues = app.sequencer.queues().iter().map(|queue| shown(queue, now)).collect();
    json(StatusCode::OK, &AdminQueueList { queues })
}

/// How a queue shall admit. What is left out stays as it is, or as the configuration says for a
/// new queue.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct QueueChange {
    /// Admissions a second; above 0.
    #[schema(example = 300.0)]
    pub(super) admit_per_second: Option<f64>,
    /// How many may be active; null for no bound.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>, example = 5000)]
    pub(super) max_active: Option<Option<Whole<u64>>>,
    /// When it opens; null for at once.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) opens_at: Option<Option<String>>,
}

/// A queue to be made.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewQueue {
    /// Its name: 1 to 40 of `a-z`, `0-9`, `-` and `_`.
    #[schema(example = "vip", pattern = "^[a-z0-9_-]{1,40}$")]
    queue: String,
    // The fields of a change; serde cannot tell unknown fields from those of a struct within.
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
    /// In which order those have their turn who join before the opening; stays as it is. A draw needs `opensAt`.
    #[serde(default)]
    opening: Opening,
}

impl QueueChange {
    /// The change, if it makes sense.
    pub(super) fn checked(self) -> Result<SettingsChange, Problem> {
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

/// A change as it is to be made to a queue: there is a moment at which those were drawn who are to be.
pub(super) fn for_queue(change: SettingsChange, queue: &Queue, now: Timestamp) -> SettingsChange {
    if change.opens_at == Some(None) && queue.draw().is_some_and(|draw| draw.drawn.is_none()) {
        return SettingsChange { opens_at: Some(Some(now)), ..change };
    }
    change
}

pub(super) async fn create_queue(
    access: Access,
    State(app): State<AppState>,
    MaybeIdempotencyKey(key): MaybeIdempotencyKey,
    asked: Asked<NewQueue>,
) -> Result<Response, Problem> {
    let NewQueue { queue, admit_per_second, max_active, opens_at, opening } = asked.body.clone();
    let name = QueueName::new(&queue)
        .ok_or_else(|| invalid("queue must be 1 to 40 of a-z, 0-9, - and _"))?;
    let mut settings = queue_settings(&app.config);
    QueueChange { admit_per_second, max_active, opens_at }.checked()?.apply(&mut settings);
    let drawn = opening == Opening::Draw;
    if drawn && settings.opens_at.is_none() {
        return Err(invalid("a queue with a draw needs opensAt: that is when it is drawn"));
    }
    let now = app.clock.now();
    let answer = move |effect: &Effect| match effect {
        Effect::Queue { name, after, drawn, .. } => to_json(&shown_new(name, after, *drawn, now)),
        _ => String::new(),
    };
    let note = access.creation(&app, "create_queue", key, &asked, answer);
    let acted =
        app.sequencer.create_noted(name.clone(), settings, drawn, note).await.map_err(act_error)?;
    tracing::info!(queue.name = %name, "queue created");
    Ok(created(acted, answer))
}

/// A queue that nobody has joined yet.
fn shown_new(
    name: &QueueName,
    settings: &QueueSettings,
    drawn: bool,
    now: Timestamp,
) -> AdminQueue {
    AdminQueue {
        queue: name.as_str().to_owned(),
        state: Outlook::of(settings.clone()).state(now).into(),
        next: 0,
        serving: 0,
        waiting: 0,
        active: 0,
        admit_per_second: settings.admit_per_second,
        max_active: settings.max_active,
        opens_at: settings.opens_at.map(rfc3339),
        opening: Opening::of(drawn),
        paused: settings.paused,
        etag: etag(settings),
        log_id: None,
    }
}

pub(super) fn find(app: &AppState, name: &str) -> Result<Arc<Queue>, Problem> {
    app.sequencer.queue(name).ok_or_else(|| Problem::new(ErrorCode::QueueNotFound))
}

async fn change(
    app: &AppState,
    queue: &Arc<Queue>,
    change: SettingsChange,
    condition: Condition,
    note: Note,
) -> Result<Response, Problem> {
    let acted = app.sequencer.change_noted(queue, change, condition, note).await;
    let log_id = match acted {
        Ok(Acted::Now(_, entry)) | Err(Error::Rejected(ActRejected::Undone(entry))) => Some(entry),
        Ok(Acted::Before(_)) => None,
        Err(error) => return Err(act_error(error)),
    };
    let settings = queue.settings();
    tracing::info!(
        queue.name = %queue.name(),
        queue.admit_per_second = settings.admit_per_second,
        queue.paused = settings.paused,
        "queue changed"
    );
    Ok(tagged(&AdminQueue { log_id, ..shown(queue, app.clock.now()) }))
}

pub(super) async fn change_queue(
    access: Access,
    State(app): State<AppState>,
    PathQueue(name): PathQueue,
    IfMatch(condition): IfMatch,
    ApiJson(asked): ApiJson<QueueChange>,
) -> Result<Response, Problem> {
    let queue = find(&app, &name)?;
    let asked = for_queue(asked.checked()?, &queue, app.clock.now());
    change(&app, &queue, asked, condition, access.note(&app, "change_queue")).await
}

pub(super) async fn pause(
    access: Access,
    State(app): State<AppState>,
    PathQueue(name): PathQueue,
    IfMatch(condition): IfMatch,
) -> Result<Response, Problem> {
    let note = access.note(&app, "pause");
    change(&app, &find(&app, &name)?, SettingsChange::pause(true), condition, note).await
}

pub(super) async fn resume(
    access: Access,
    State(app): State<AppState>,
    PathQueue(name): PathQueue,
    IfMatch(condition): IfMatch,
) -> Result<Response, Problem> {
    let note = access.note(&app, "resume");
    change(&app, &find(&app, &name)?, SettingsChange::pause(false), condition, note).await
}

/// An entry of the log.
#[derive(Clone, Copy)]
pub(super) struct LogId(i64);

impl Id for LogId {
    const NAMES: &'static str = "The entry of the log";

    fn from_value(value: i64) -> Option<Self> {
        (value > 0).then_some(Self(value))
    }
}

/// How long a change of a queue can be taken back. The docs promise it.
const UNDO: Duration = Duration::from_secs(600);

pub(super) async fn undo(
    access: Access,
    State(app): State<AppState>,
    PathIds(LogId(id)): PathIds<LogId>,
) -> Result<Response, Problem> {
    let found = app.store.log(id.saturating_add(1), 1).await.map_err(|cause| fault(&cause))?;
    let entry = found.into_iter().find(|entry| entry.id == id);
    let entry = entry.ok_or_else(|| Problem::new(ErrorCode::LogEntryNotFound))?;
    let not_undoable = || Problem::new(ErrorCode::NotUndoable);
    let name = entry.target.strip_prefix("queue ").ok_or_else(not_undoable)?;
    let before = entry.before.as_deref().and_then(change_back).ok_or_else(not_undoable)?;
    let became = entry.after.ok_or_else(not_undoable)?;
    let condition = Condition::Undoes { entry: id, became, until: entry.at.plus(UNDO) };
    change(&app, &find(&app, name)?, before, condition, access.note(&app, "undo")).await
}

/// Opaque tokens to be issued.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenIssue {
    /// How many.
    #[schema(minimum = 1, maximum = 100_000, example = 300, value_type = u32)]
    pub count: Whole<u32>,
    /// What they look like; `{n}` becomes the number, which starts at `firstNumber`, and `{r}` 32 random
    /// characters.
    #[schema(example = "queue_token_{n}_{r}")]
    pub format: String,
    /// Whether they open doors at once, past the line. Otherwise they join its end. Such tokens need
    /// `{r}`, because whoever guesses one walks in.
    #[serde(default)]
    pub activated: bool,
    /// Whether activated tokens may be guessed all the same.
    #[serde(default)]
    pub guessable: bool,
    /// The number of the first.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 4_294_967_295_u64, default = 1, value_type = u64)]
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
    #[schema(minimum = 1, maximum = 4_294_967_295_u64, value_type = Option<u64>)]
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
    /// All of them, where they are random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<String>>,
    /// Until when they open doors; null where they wait in the line.
    #[schema(required, nullable, format = DateTime)]
    pub active_until: Option<String>,
}

/// What is kept under an idempotency key of tokens: enough to tell them again, however many they are.
#[derive(Serialize, Deserialize)]
struct KeptIssue {
    seed: String,
    active_until: Option<i64>,
}

impl TokenIssue {
    /// The texts of the tokens, of which the random parts follow from `seed`.
    fn texts<'a>(&'a self, seed: &'a str) -> impl Iterator<Item = String> + 'a {
        (0..self.count.0).map(move |offset| {
            let number = self.first_number.0 + offset;
            let text = self.format.replace("{n}", &number.to_string());
            if self.is_random() { text.replace("{r}", &random_part(seed, number)) } else { text }
        })
    }

    fn is_random(&self) -> bool {
        self.format.contains("{r}")
    }

    fn issued(&self, kept: &KeptIssue) -> IssuedTokens {
        let tokens: Vec<String> = self.texts(&kept.seed).collect();
        let text = |token: Option<&String>| token.cloned().unwrap_or_default();
        IssuedTokens {
            count: tokens.len(),
            first: text(tokens.first()),
            last: text(tokens.last()),
            tokens: self.is_random().then_some(tokens),
            active_until: kept.active_until.map(|until| rfc3339(Timestamp(until))),
        }
    }
}

/// 128 bits that nobody can guess without the seed.
fn random_part(seed: &str, number: u32) -> String {
    let digest = Sha256::new().chain_update(seed).chain_update(number.to_be_bytes()).finalize();
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

pub(super) async fn issue_tokens(
    access: Access,
    State(app): State<AppState>,
    MaybeIdempotencyKey(key): MaybeIdempotencyKey,
    asked: Asked<TokenIssue>,
) -> Result<Response, Problem> {
    let issue = &asked.body;
    let (count, first_number) = (issue.count.0, issue.first_number.0);
    if !(1..=TOKENS_MAX).contains(&count) {
        return Err(invalid(format!("count must be from 1 to {TOKENS_MAX}")));
    }
    let last = u64::from(first_number) + u64::from(count) - 1;
    if first_number == 0 || u32::try_from(last).is_err() {
        return Err(invalid("firstNumber and count do not fit"));
    }
    if count > 1 && !issue.format.contains("{n}") && !issue.is_random() {
        return Err(invalid("format must contain {n} or {r} where there is more than one token"));
    }
    if issue.activated && !issue.is_random() && !issue.guessable {
        return Err(invalid(
            "format must contain {r}, a random part, because whoever guesses an activated token walks \
             in; guessable (--guessable) says that this may be so",
        ));
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
    // 244 random bits.
    let seed = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let numbers = (0..count).map(|offset| first_number + offset);
    let tokens: Vec<NewAlias> = numbers
        .zip(issue.texts(&seed))
        .filter_map(|(number, token)| {
            let user = match issue.user_id {
                Some(WireId(user)) => user,
                None => UserId::new(number.into())?,
            };
            Some(NewAlias { token, user, active_until, id: app.ids.next() })
        })
        .collect();
    if tokens.iter().any(|token| token.token.len() > TOKEN_MAX) {
        return Err(invalid(format!("a token must be no longer than {TOKEN_MAX} characters")));
    }
    let kept = to_json(&KeptIssue { seed, active_until: active_until.map(|until| until.0) });
    let answer = move |_: &Effect| kept.clone();
    let note = access.creation(&app, "issue_tokens", key, &asked, answer.clone());
    let acted = app.sequencer.issue_noted(&queue, tokens, now, note).await.map_err(act_error)?;
    let kept = match acted {
        Acted::Now(effect, _) => {
            tracing::info!(queue.name = %queue.name(), tokens = count, "opaque tokens issued");
            answer(&effect)
        }
        Acted::Before(kept) => kept,
    };
    let kept: KeptIssue = serde_json::from_str(&kept).map_err(Problem::internal)?;
    Ok(json(StatusCode::CREATED, &issue.issued(&kept)))
}

/// A concert to be made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
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
    access: Access,
    State(app): State<AppState>,
    MaybeIdempotencyKey(key): MaybeIdempotencyKey,
    asked: Asked<ConcertRequest>,
) -> Result<Response, Problem> {
    let new = &asked.body;
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
    let answer = |effect: &Effect| match effect {
        Effect::Concert { after: Some(made), .. } => {
            to_json(&ConcertCreated { concert_id: made.id.get() })
        }
        _ => String::new(),
    };
    let note = access.creation(&app, "create_concert", key, &asked, answer);
    let acted = app.store.act(Act::CreateConcert(concert), note).await.map_err(act_error)?;
    tracing::info!(concert.name = asked.body.name, "concert created");
    Ok(created(acted, answer))
}

/// What to correct of a concert. What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConcertCorrection {
    /// Its name.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Where it is.
    #[schema(min_length = 1, max_length = 200)]
    venue: Option<String>,
    /// When reservations begin.
    #[schema(format = DateTime)]
    reservation_opens_at: Option<String>,
    /// When they end.
    #[schema(format = DateTime)]
    reservation_closes_at: Option<String>,
}

pub(super) async fn change_concert(
    access: Access,
    State(app): State<AppState>,
    PathIds(id): PathIds<ConcertId>,
    ApiJson(asked): ApiJson<ConcertCorrection>,
) -> Result<Response, Problem> {
    let time = |field: &str, at: Option<String>| at.map(|at| moment(field, &at)).transpose();
    let text = |field: &str, text: Option<String>| text.map(|it| named(field, &it)).transpose();
    let change = ConcertChange {
        name: text("name", asked.name)?,
        venue: text("venue", asked.venue)?,
        opens_at: time("reservationOpensAt", asked.reservation_opens_at)?,
        closes_at: time("reservationClosesAt", asked.reservation_closes_at)?,
    };
    let note = access.note(&app, "change_concert");
    let acted = app.store.act(Act::ChangeConcert(id, change), note).await.map_err(act_error)?;
    match acted {
        Acted::Now(Effect::Concert { after: Some(concert), .. }, _) => {
            tracing::info!(concert.id = id.get(), "concert changed");
            let concert = ListedConcert::of(&app.store.catalog(), &concert, app.clock.now());
            Ok(json(StatusCode::OK, &concert))
        }
        other => Err(Problem::internal(format!("a change of a concert ended as {other:?}"))),
    }
}

pub(super) async fn remove_concert(
    access: Access,
    State(app): State<AppState>,
    PathIds(id): PathIds<ConcertId>,
) -> Result<StatusCode, Problem> {
    let note = access.note(&app, "remove_concert");
    app.store.act(Act::RemoveConcert(id), note).await.map_err(act_error)?;
    tracing::info!(concert.id = id.get(), "concert removed");
    Ok(StatusCode::NO_CONTENT)
}

/// A session to be made, with its first seats: so many of one price, or the places of a hall.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SessionRequest {
    /// When it begins.
    #[schema(format = DateTime)]
    concert_at: String,
    /// How many seats, where it is to have no plan.
    #[schema(minimum = 1, maximum = 200_000, value_type = Option<u32>, nullable = false)]
    seat_count: Option<Whole<u32>>,
    /// The price of each, in points.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64, value_type = Option<i64>, nullable = false)]
    price: Option<Whole<i64>>,
    /// The hall, as a seating plan of pretix.
    #[schema(nullable = false)]
    plan: Option<PretixPlan>,
    /// A hall that another session has, by the digest of its plan.
    #[schema(pattern = "^[0-9a-f]{64}$", nullable = false)]
    plan_digest: Option<String>,
    /// With a plan: the price of each category, in points.
    #[schema(value_type = Option<BTreeMap<String, i64>>, nullable = false)]
    prices: Option<BTreeMap<String, Whole<i64>>>,
    /// Areas of the plan that are for standing.
    #[schema(nullable = false)]
    standing: Option<Vec<StandingRequest>>,
}

/// An area of a plan that is for standing.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StandingRequest {
    /// What is written in it, or its uuid.
    area: String,
    /// How many may stand there.
    #[schema(minimum = 1, value_type = u32)]
    count: Whole<u32>,
    /// The category of these places.
    category: String,
}

/// A session made.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionCreated {
    #[schema(schema_with = super::schema::id_out)]
    session_id: i64,
    /// The first seat; the others follow without a gap.
    #[schema(schema_with = super::schema::id_out)]
    first_seat_id: i64,
    /// How many seats were made.
    seat_count: u32,
    /// With a plan: what became of it.
    #[serde(flatten, default, skip_deserializing)]
    report: Option<PlanReport>,
}

fn seats(count: u32, price: i64) -> Result<NewSeats, Problem> {
    if !(1..=SEATS_MAX).contains(&count) {
        return Err(invalid(format!("seatCount must be from 1 to {SEATS_MAX}")));
    }
    check_price("price", price)?;
    Ok(NewSeats { count, price })
}

fn check_price(field: &str, price: i64) -> Result<(), Problem> {
    if (0..=PRICE_MAX).contains(&price) {
        return Ok(());
    }
    Err(invalid(format!("{field} must be from 0 to {PRICE_MAX}")))
}

/// Whether only to tell what would be done.
pub(super) struct DryRun(bool);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DryRunQuery {
    #[serde(default)]
    dry_run: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for DryRun {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let DryRunQuery { dry_run } = query(&parts.uri)?;
        Ok(Self(dry_run))
    }
}

impl Described for DryRun {
    fn describe(description: &mut Description) {
        let what = "Whether only to tell what is to be made of the plan";
        description.query("dry_run", what, &["true", "false"]);
        description.errors(&[ErrorCode::InvalidQuery]);
    }
}

/// What a session is to be made with.
enum WithSeats {
    Numbered(NewSeats),
    Planned(Box<Imported>),
    Known(Arc<StoredPlan>, Vec<i64>),
}

/// Reads what a session is to be made with.
async fn with_seats(app: &AppState, asked: &mut SessionRequest) -> Result<WithSeats, Problem> {
    let missing = |field: &str| {
        Problem::new(ErrorCode::InvalidField).detail(format!("the body: missing field `{field}`"))
    };
    let numbered = asked.seat_count.is_some() || asked.price.is_some();
    let with_plan = asked.prices.is_some() || asked.standing.is_some();
    let hall = (asked.plan.take(), asked.plan_digest.take());
    let prices = match &asked.prices {
        None => None,
        Some(prices) => {
            prices
                .iter()
                .try_for_each(|(grade, price)| check_price(&format!("prices.{grade}"), price.0))?;
            Some(prices.iter().map(|(grade, price)| (grade.clone(), price.0)).collect())
        }
    };
    match hall {
        (None, None) => {
            if with_plan {
                return Err(missing("plan"));
            }
            let count = asked.seat_count.ok_or_else(|| missing("seatCount"))?;
            let price = asked.price.ok_or_else(|| missing("price"))?;
            seats(count.0, price.0).map(WithSeats::Numbered)
        }
        _ if numbered => {
            Err(invalid("a session has either seatCount and price, or a plan and prices"))
        }
        (Some(_), Some(_)) => Err(invalid("a session has either plan or planDigest")),
        (Some(plan), None) => {
            let prices: BTreeMap<String, i64> = prices.ok_or_else(|| missing("prices"))?;
            let standing = asked.standing.take().unwrap_or_default().into_iter();
            let standing: Vec<Standing> = standing
                .map(|it| Standing { area: it.area, count: it.count.0, category: it.category })
                .collect();
            if standing.iter().any(|standing| standing.count == 0) {
                return Err(invalid("standing: count must be at least 1"));
            }
            // A large hall takes a while.
            let imported = spawn_blocking(move || import(plan, &standing, Some(&prices))).await;
            imported.map(|it| WithSeats::Planned(Box::new(it))).map_err(Problem::internal)
        }
        (None, Some(digest)) => {
            let prices: BTreeMap<String, i64> = prices.ok_or_else(|| missing("prices"))?;
            if asked.standing.is_some() {
                return Err(invalid("the areas for standing of a known plan are known"));
            }
            let catalog = app.store.catalog();
            let known =
                PlanDigest::from_hex(&digest).and_then(|digest| catalog.plan(&digest).cloned());
            let known = known.ok_or_else(|| Problem::new(ErrorCode::PlanNotFound))?;
            let price = |grade: &String| {
                let named = || invalid(format!("prices: the grade {grade} has none"));
                prices.get(grade).copied().ok_or_else(named)
            };
            let prices = known.plan().grades().iter().map(price).collect::<Result<_, _>>()?;
            Ok(WithSeats::Known(known, prices))
        }
    }
}

/// What is wrong with a plan, in one sentence.
fn plan_invalid(report: &PlanReport) -> Problem {
    let first = report.problems.first().map_or_else(String::new, |fault| {
        let with = fault.with.as_ref().map_or_else(String::new, |with| format!(", with {with}"));
        format!("{} at {}{with}", fault.what.word(), fault.r#where)
    });
    let more = match report.problem_count {
        0 | 1 => String::new(),
        count => format!("; {} more", count - 1),
    };
    Problem::new(ErrorCode::PlanInvalid).detail(format!("{first}{more}"))
}

pub(super) async fn create_session(
    access: Access,
    State(app): State<AppState>,
    PathIds(concert): PathIds<ConcertId>,
    DryRun(dry_run): DryRun,
    MaybeIdempotencyKey(key): MaybeIdempotencyKey,
    AskedAtLength(mut asked): AskedAtLength<SessionRequest>,
) -> Result<Response, Problem> {
    let starts_at = moment("concertAt", &asked.body.concert_at)?;
    let (seating, report) = match with_seats(&app, &mut asked.body).await? {
        WithSeats::Numbered(_) if dry_run => {
            return Err(invalid("dry_run: there is no plan to be told of"));
        }
        WithSeats::Numbered(group) => (group.into(), None),
        WithSeats::Planned(imported) => {
            let Imported { report, hall } = *imported;
            if dry_run {
                must_exist(&app, concert)?;
                return Ok(json(StatusCode::OK, &report));
            }
            let (plan, prices) = hall.ok_or_else(|| plan_invalid(&report))?;
            (planned(Arc::new(plan), &prices)?, Some(report))
        }
        WithSeats::Known(plan, prices) => {
            let report = report_of(&plan);
            if dry_run {
                must_exist(&app, concert)?;
                return Ok(json(StatusCode::OK, &report));
            }
            (planned(plan, &prices)?, Some(report))
        }
    };
    // The report is the same for who asks the same again, and need not be kept.
    let answer = |effect: &Effect| match effect {
        Effect::Session { after: Some(made), added, .. } => {
            let added = added.first();
            to_json(&SessionCreated {
                session_id: made.id.get(),
                first_seat_id: added.map_or(0, |added| added.first.get()),
                seat_count: added.map_or(0, |added| added.count),
                report: None,
            })
        }
        _ => String::new(),
    };
    let note = access.creation(&app, "create_session", key, &asked, answer);
    let act = Act::CreateSession(concert, starts_at, seating);
    let acted = app.store.act(act, note).await.map_err(act_error)?;
    tracing::info!(concert.id = concert.get(), "session created");
    if report.is_none() {
        return Ok(created(acted, answer));
    }
    let ids = match acted {
        Acted::Now(effect, _) => answer(&effect),
        Acted::Before(kept) => kept,
    };
    let ids: SessionCreated = serde_json::from_str(&ids).map_err(Problem::internal)?;
    Ok(json(StatusCode::CREATED, &SessionCreated { report, ..ids }))
}

fn must_exist(app: &AppState, concert: ConcertId) -> Result<(), Problem> {
    let catalog = app.store.catalog();
    let found = catalog.concert(concert).map(|_| ());
    found.ok_or_else(|| Problem::new(ErrorCode::ConcertNotFound))
}

fn planned(plan: Arc<StoredPlan>, prices: &[i64]) -> Result<Seating, Problem> {
    Seating::planned(plan, prices).ok_or_else(|| Problem::internal("a grade without a price"))
}

/// What to correct of a session.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SessionCorrection {
    /// When it begins.
    #[schema(format = DateTime)]
    concert_at: Option<String>,
}

/// A session, for operators.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AdminSession {
    #[schema(schema_with = super::schema::id_out)]
    pub(super) session_id: i64,
    #[schema(schema_with = super::schema::id_out)]
    pub(super) concert_id: i64,
    /// When it begins.
    #[schema(format = DateTime)]
    pub(super) concert_at: String,
    /// All its seats.
    pub(super) total_seat_count: u64,
    /// Those that are neither held nor sold.
    pub(super) available_seat_count: u64,
    /// Those that are sold.
    pub(super) sold_seat_count: u64,
    /// When it was called off; null where it takes place.
    #[schema(required, nullable, format = DateTime)]
    pub(super) cancelled_at: Option<String>,
}

impl AdminSession {
    pub(super) fn of(inventory: &Inventory, now: Timestamp) -> Self {
        let session = inventory.session();
        Self {
            session_id: session.id.get(),
            concert_id: session.concert.get(),
            concert_at: rfc3339(session.starts_at),
            total_seat_count: inventory.total() as u64,
            available_seat_count: inventory.available(now),
            sold_seat_count: inventory.sold(),
            cancelled_at: inventory.called_off().map(rfc3339),
        }
    }
}

pub(super) async fn change_session(
    access: Access,
    State(app): State<AppState>,
    PathIds((concert, session)): PathIds<(ConcertId, SessionId)>,
    ApiJson(asked): ApiJson<SessionCorrection>,
) -> Result<Response, Problem> {
    let not_found = || Problem::new(ErrorCode::SessionNotFound);
    // Where nothing is named, nothing changes.
    if let Some(at) = asked.concert_at {
        let act = Act::ChangeSession(concert, session, moment("concertAt", &at)?);
        app.store.act(act, access.note(&app, "change_session")).await.map_err(act_error)?;
        tracing::info!(session.id = session.get(), "session changed");
    }
    let catalog = app.store.catalog();
    let inventory = catalog.inventory(concert, session).ok_or_else(not_found)?;
    Ok(json(StatusCode::OK, &AdminSession::of(inventory, app.clock.now())))
}

pub(super) async fn remove_session(
    access: Access,
    State(app): State<AppState>,
    PathIds((concert, session)): PathIds<(ConcertId, SessionId)>,
) -> Result<StatusCode, Problem> {
    let note = access.note(&app, "remove_session");
    app.store.act(Act::RemoveSession(concert, session), note).await.map_err(act_error)?;
    tracing::info!(session.id = session.get(), "session removed");
    Ok(StatusCode::NO_CONTENT)
}

/// Seats to be added.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
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
    access: Access,
    State(app): State<AppState>,
    PathIds((concert, session)): PathIds<(ConcertId, SessionId)>,
    MaybeIdempotencyKey(key): MaybeIdempotencyKey,
    asked: Asked<SeatsRequest>,
) -> Result<Response, Problem> {
    let group = seats(asked.body.seat_count.0, asked.body.price.0)?;
    let answer = |effect: &Effect| match effect {
        Effect::Seats { added: Some(added), .. } => {
            to_json(&SeatsCreated { first_seat_id: added.first.get(), seat_count: added.count })
        }
        _ => String::new(),
    };
    let note = access.creation(&app, "create_seats", key, &asked, answer);
    let act = Act::AddSeats(concert, session, group);
    let acted = app.store.act(act, note).await.map_err(act_error)?;
    Ok(created(acted, answer))
}

pub(super) async fn run_audit(_: Access, State(app): State<AppState>) -> Result<Response, Problem> {
    let report = audit(&app).await.map_err(|cause| fault(&cause))?;
    Ok(json(StatusCode::OK, &report))
}
