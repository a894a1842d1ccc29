//! The waiting queue: join, status, leave, and the public document.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use boxoffice_backends::Fault;
use boxoffice_backends::events::{rfc3339, rfc3339_to};
use boxoffice_backends::sequencer::{Joined, Name, Newcomer, Queue};
use boxoffice_domain::ids::UserId;
use boxoffice_domain::queue::{Gate, Place, QueueSettings, Ticket, eta, poll_after};
use boxoffice_domain::time::Timestamp;
use http_body_util::Full;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::auth::{Asker, MaybePerson, Presented};
use super::client::ClientAddress;
use super::door::AtDoor;
use super::extract::{ApiJson, IdempotencyKey, JoinKey, PathQueue, WireId, present};
use super::problem::{ErrorCode, Problem};
use super::reply::{PlainObject, fault, field, json, json_bytes, to_json};
use super::state::{HttpState, Web};
use crate::app::{App, AppState};
use crate::tickets::Signed;

/// A fan who wants to join.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct JoinRequest {
    /// Who joins; may be left out where people are known.
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = super::schema::id)]
    user_id: Option<WireId<UserId>>,
    /// Which queue; the default one where it is left out.
    #[schema(example = "main")]
    queue: Option<String>,
    /// The solution of a challenge, as the widget ALTCHA writes it; needed while the service asks for one.
    #[serde(default, deserialize_with = "present")]
    altcha: Option<String>,
}

/// Where a ticket stands.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum TicketStatus {
    /// In the line.
    Waiting,
    /// It opens doors.
    Activated,
    /// It is over: time ran out, it paid, or it was given up.
    Expired,
}

impl TicketStatus {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Activated => "ACTIVATED",
            Self::Expired => "EXPIRED",
        }
    }
}

/// A new ticket.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct JoinResponse<'a> {
    /// The ticket, to be sent as `QUEUE-TOKEN` from now on.
    #[schema(value_type = String)]
    #[serde(serialize_with = "as_text")]
    token: Signed<'a>,
    /// Where it stands.
    status: TicketStatus,
    /// How many are ahead, plus one; 0 once activated. It never grows.
    waiting_number: u64,
    /// How long it may take, in seconds; null while nobody knows (the queue is paused).
    #[schema(required, nullable)]
    eta_seconds: Option<u64>,
    /// When to ask again, in milliseconds; at least 1000.
    poll_after_ms: u64,
    /// When the ticket was given; of one that there was already, the second.
    #[schema(value_type = String, format = DateTime)]
    #[serde(serialize_with = "as_time")]
    joined_at: Timestamp,
}

fn as_text<S: Serializer>(text: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(text)
}

fn as_time<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

impl JoinResponse<'_> {
    fn to_json(&self) -> Vec<u8> {
        let mut json = PlainObject::with_capacity(512);
        json.text_by(field!("token"), |out| self.token.append_to(out));
        json.text(field!("status"), self.status.as_str());
        json.number(field!("waitingNumber"), self.waiting_number);
        match self.eta_seconds {
            Some(seconds) => json.number(field!("etaSeconds"), seconds),
            None => json.null(field!("etaSeconds")),
        }
        json.number(field!("pollAfterMs"), self.poll_after_ms);
        json.text_by(field!("joinedAt"), |out| rfc3339_to(self.joined_at, out));
        json.finish()
    }
}

/// Where a ticket stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusResponse<'a> {
    /// Whose ticket it is.
    #[schema(schema_with = super::schema::id_out)]
    user_id: i64,
    /// Its queue.
    queue: &'a str,
    /// Where it stands.
    status: TicketStatus,
    /// How many are ahead, plus one; 0 unless waiting. It never grows.
    waiting_number: u64,
    /// How long it may take, in seconds; 0 unless waiting; null while nobody knows.
    #[schema(required, nullable)]
    eta_seconds: Option<u64>,
    /// When to ask again, in milliseconds; at least 1000.
    poll_after_ms: u64,
    /// When it stops opening doors; null unless activated.
    #[schema(required, nullable, format = DateTime)]
    active_until: Option<String>,
}

impl StatusResponse<'_> {
    fn to_json(&self) -> Vec<u8> {
        let mut json = PlainObject::with_capacity(256);
        json.number(field!("userId"), self.user_id);
        json.text(field!("queue"), self.queue);
        json.text(field!("status"), self.status.as_str());
        json.number(field!("waitingNumber"), self.waiting_number);
        match self.eta_seconds {
            Some(seconds) => json.number(field!("etaSeconds"), seconds),
            None => json.null(field!("etaSeconds")),
        }
        json.number(field!("pollAfterMs"), self.poll_after_ms);
        match &self.active_until {
            Some(until) => json.text(field!("activeUntil"), until),
            None => json.null(field!("activeUntil")),
        }
        json.finish()
    }
}

/// What a queue is doing.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum QueueState {
    /// It admits.
    Open,
    /// An operator paused it.
    Paused,
    /// It opens at a time still to come; joining is possible.
    Scheduled,
    /// Everything behind it is sold.
    SoldOut,
}

/// What anybody may know of a queue.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueueDocument<'a> {
    /// Its name.
    queue: &'a str,
    /// The highest number admitted.
    serving: u64,
    /// How many wait.
    waiting: u64,
    /// How many it admits in a second at the most.
    admit_per_second: f64,
    /// What it is doing.
    state: QueueState,
    /// When it opens, if that is still to come.
    #[schema(required, nullable, format = DateTime)]
    opens_at: Option<String>,
}

/// The queue's state for people; sold out outweighs all.
pub(super) fn state_of(queue: &Queue, now: Timestamp) -> QueueState {
    match queue.gate(now) {
        _ if queue.is_sold_out() => QueueState::SoldOut,
        Gate::Open => QueueState::Open,
        Gate::Paused => QueueState::Paused,
        Gate::Scheduled(_) => QueueState::Scheduled,
    }
}

/// Seconds to wait, and milliseconds until the next poll.
fn pace(number: u64, settings: &QueueSettings, now: Timestamp, jitter: u64) -> (Option<u64>, u64) {
    let eta = eta(number, settings, now);
    (eta.map(|eta| eta.as_secs()), poll_after(eta, jitter).as_millis() as u64)
}

pub(super) async fn join(
    State(HttpState { app, web }): State<HttpState>,
    client: ClientAddress,
    asker: Asker,
    JoinKey(key): JoinKey,
    ApiJson(request): ApiJson<JoinRequest>,
) -> Result<Response, Problem> {
    let joined = join_at(&app, &web, Instant::now(), client, asker, key, request).await;
    joined.map(|joined| joined.map(Body::new))
}

/// The answer to a join that came at `begun`.
async fn join_at(
    app: &App,
    web: &Web,
    begun: Instant,
    client: ClientAddress,
    asker: Asker,
    key: Option<IdempotencyKey>,
    request: JoinRequest,
) -> Result<Response<Full<Bytes>>, Problem> {
    if app.is_draining() {
        return Err(Problem::new(ErrorCode::ShuttingDown).retry_after(1));
    }
    if let Some(rate) = &web.join_rate {
        rate.check(client)?;
    }
    let user = asker.user(request.user_id.map(|WireId(user)| user))?;
    let name = request.queue.as_deref().unwrap_or(app.default_queue.as_str());
    let queue = app.sequencer.queue(name).ok_or_else(|| Problem::new(ErrorCode::QueueNotFound))?;
    let refused = |cause: Fault| match &cause {
        // What is away is the store, but what the fan cannot have is a place in the queue.
        Fault::Unavailable(what) => {
            Problem::new(ErrorCode::QueueUnavailable).retry_after(1).because(what)
        }
        Fault::OutcomeUnknown(_) | Fault::Corrupt(_) => fault(&cause),
    };
    let name = name_of(&queue, user, key.as_ref());
    if web.door.is_guarded() {
        let solution = request.altcha.as_deref();
        let (queue, person) = (queue.name().as_str(), asker.person());
        let somebody = AtDoor { queue, person, client, name, solution };
        // On the heap, so that it is no part of every join's future.
        Box::pin(web.door.let_in(app, somebody, app.clock.at(begun))).await?;
    }
    let Joined { ticket, is_new } = match name {
        None => {
            let seq = app.sequencer.join(&queue).await.map_err(refused)?;
            let (issued_at, id) = (app.clock.at(begun), app.ids.next());
            let ticket = Ticket { queue: queue.name().clone(), seq, user, issued_at, id };
            Joined { ticket, is_new: true }
        }
        Some(name) => {
            let issued_at = app.clock.at(begun);
            let newcomer = Newcomer { user, name, issued_at, id: app.ids.next() };
            // On the heap, so that it is no part of every join's future.
            let joining = Box::pin(app.sequencer.join_once(&queue, newcomer, issued_at));
            joining.await.map_err(refused)?
        }
    };
    let now = app.clock.at(begun);
    let joined_at = ticket.issued_at;
    let pass = ticket.into();
    let place = app.sequencer.place(&queue, &pass, now);
    let settings = queue.settings();
    let (status, number) = match place {
        Place::Waiting { number } => (TicketStatus::Waiting, number),
        Place::Active { .. } => (TicketStatus::Activated, 0),
        Place::Over(_) => (TicketStatus::Expired, 0),
    };
    let (eta_seconds, poll_after_ms) = pace(number, &settings, now, pass.ticket.seq);
    let answer = JoinResponse {
        token: app.tickets.signed(&pass.ticket),
        status,
        waiting_number: number,
        eta_seconds,
        poll_after_ms,
        joined_at,
    };
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json_bytes(status, answer.to_json()))
}

/// What a repeated join is known by: the person, where each has one place; else the idempotency key.
fn name_of(queue: &Queue, user: UserId, key: Option<&IdempotencyKey>) -> Option<Name> {
    if queue.has_one_place_each() {
        return Some(Name::Person(user));
    }
    let digest = Sha256::new().chain_update(user.get().to_be_bytes()).chain_update(key?.as_str());
    let mut name = [0; 16];
    name.copy_from_slice(&digest.finalize()[..16]);
    Some(Name::Key(name))
}

/// See [`join`]; for requests that have not been through the router.
pub(super) async fn join_from(
    app: AppState,
    web: Arc<Web>,
    begun: Instant,
    client: ClientAddress,
    request: hyper::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Problem> {
    let (parts, body) = request.into_parts();
    let asker = Asker::from_headers(&parts.headers, &app).await?;
    let key = IdempotencyKey::from_headers(&parts.headers)?;
    let ApiJson(request) = ApiJson::read(&parts.headers, body, web.body, client).await?;
    join_at(&app, &web, begun, client, asker, key, request).await
}

pub(super) async fn status(presented: Presented) -> Response {
    place_of(&presented).map(Body::new)
}

/// Makes polls slow, to see that a comparison of load test runs notices: milliseconds in
/// `BOXOFFICE_TEST_POLL_DELAY_MS`. Not part of a release build.
#[cfg(debug_assertions)]
fn delay_for_tests() {
    static DELAY: std::sync::OnceLock<Option<Duration>> = std::sync::OnceLock::new();
    let delay = DELAY.get_or_init(|| {
        let text = std::env::var("BOXOFFICE_TEST_POLL_DELAY_MS").ok()?;
        text.parse().ok().map(Duration::from_millis)
    });
    if let Some(delay) = *delay {
        std::thread::sleep(delay);
    }
}

/// The answer to a poll.
pub(super) fn place_of(presented: &Presented) -> Response<Full<Bytes>> {
    #[cfg(debug_assertions)]
    delay_for_tests();
    let Presented { pass, queue, place, now } = presented;
    let (status, number, until) = match *place {
        Place::Waiting { number } => (TicketStatus::Waiting, number, None),
        Place::Active { until, .. } => (TicketStatus::Activated, 0, Some(rfc3339(until))),
        Place::Over(_) => (TicketStatus::Expired, 0, None),
    };
    // A different wait for each ticket and each poll, so that a crowd does not march in step.
    let jitter = pass.ticket.seq.wrapping_mul(31).wrapping_add(now.0.unsigned_abs());
    let (eta_seconds, poll_after_ms) = if number == 0 {
        (Some(0), poll_after(Some(Duration::ZERO), jitter).as_millis() as u64)
    } else {
        pace(number, &queue.settings(), *now, jitter)
    };
    let answer = StatusResponse {
        user_id: pass.ticket.user.get(),
        queue: pass.ticket.queue.as_str(),
        status,
        waiting_number: number,
        eta_seconds,
        poll_after_ms,
        active_until: until,
    };
    json_bytes(StatusCode::OK, answer.to_json())
}

pub(super) async fn leave(
    State(app): State<AppState>,
    presented: Presented,
) -> Result<StatusCode, Problem> {
    // Giving up what is over already changes nothing, and is what was asked.
    if !matches!(presented.place, Place::Over(_)) {
        // On its own, so that a client who hangs up half-way leaves memory and store agreeing.
        let left = tokio::spawn(async move {
            let Presented { pass, queue, now, .. } = presented;
            app.sequencer.leave(&queue, &pass, now).await
        });
        left.await.map_err(Problem::internal)?.map_err(|cause| fault(&cause))?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// What anybody may know of the queue now.
fn document_of(queue: &Queue, now: Timestamp) -> QueueDocument<'_> {
    let opens_at = match queue.gate(now) {
        Gate::Scheduled(at) => Some(rfc3339(at)),
        Gate::Open | Gate::Paused => None,
    };
    QueueDocument {
        queue: queue.name().as_str(),
        serving: queue.serving(),
        waiting: queue.waiting(),
        admit_per_second: queue.settings().admit_per_second,
        state: state_of(queue, now),
        opens_at,
    }
}

pub(super) async fn document(
    State(HttpState { app, web }): State<HttpState>,
    PathQueue(name): PathQueue,
) -> Result<Response, Problem> {
    document_named(&app, &web, &name, Instant::now()).map(|document| document.map(Body::new))
}

/// The answer to who asks for the public document of a queue, at `begun`.
pub(super) fn document_named(
    app: &App,
    web: &Web,
    name: &str,
    begun: Instant,
) -> Result<Response<Full<Bytes>>, Problem> {
    let render = |queue: &Queue| to_json(&document_of(queue, app.clock.at(begun))).into_bytes();
    let found = web.documents.get(name, begun, || app.sequencer.queue(name), render);
    let json = found.ok_or_else(|| Problem::new(ErrorCode::QueueNotFound))?;
    let mut response = json_bytes(StatusCode::OK, json);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=1"));
    Ok(response)
}

/// A new challenge for who wants to join.
pub(super) async fn challenge(
    State(HttpState { app, web }): State<HttpState>,
    PathQueue(name): PathQueue,
    client: ClientAddress,
    MaybePerson(person): MaybePerson,
) -> Result<Response, Problem> {
    let queue = app.sequencer.queue(&name).ok_or_else(|| Problem::new(ErrorCode::QueueNotFound))?;
    let made = web.door.challenge(&app, &queue, person, client, app.clock.now())?;
    Ok(json(StatusCode::OK, &made))
}

#[cfg(test)]
mod tests {
    use boxoffice_domain::ids::{QueueName, TicketId};

    use super::*;
    use crate::tickets::SigningKeys;

    #[test]
    fn answers_written_by_hand_are_what_serde_would_write() {
        use TicketStatus::{Activated, Expired, Waiting};
        let keys = SigningKeys::new(b"0123456789abcdef0123456789abcdef", []);
        let ticket = Ticket {
            queue: QueueName::new("main-1_a").unwrap(),
            seq: 7,
            user: UserId::new(3).unwrap(),
            issued_at: Timestamp(0),
            id: TicketId([255; 16]),
        };
        for status in [Waiting, Activated, Expired] {
            for eta_seconds in [None, Some(0), Some(u64::MAX)] {
                let join = JoinResponse {
                    token: keys.signed(&ticket),
                    status,
                    waiting_number: u64::MAX,
                    eta_seconds,
                    poll_after_ms: 1_000,
                    joined_at: Timestamp(0),
                };
                assert_eq!(join.to_json(), serde_json::to_vec(&join).unwrap());
                for active_until in [None, Some(rfc3339(Timestamp(1)))] {
                    let poll = StatusResponse {
                        user_id: i64::MAX,
                        queue: "main-1_a",
                        status,
                        waiting_number: 0,
                        eta_seconds,
                        poll_after_ms: 33_000,
                        active_until,
                    };
                    assert_eq!(poll.to_json(), serde_json::to_vec(&poll).unwrap());
                }
            }
        }
    }
}
