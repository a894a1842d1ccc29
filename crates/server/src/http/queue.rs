//! The waiting queue: join, status, leave, and the public document.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::State as Service;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use boxoffice_backends::Fault;
use boxoffice_backends::events::{rfc3339, rfc3339_to};
use boxoffice_backends::sequencer::{Joined, Name, Newcomer, Queue};
use boxoffice_backends::store::Digest;
use boxoffice_domain::ids::UserId;
use boxoffice_domain::queue::{Closing, Ending, Place, QueueState as State, Ticket};
use boxoffice_domain::time::Timestamp;
use http_body_util::Full;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
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
    #[schema(value_type = String, required = false)]
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
    /// It is over; `reason` says why.
    Expired,
}

/// Why a ticket is over.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum ExpiryReason {
    /// It paid.
    Paid,
    /// It was given up.
    Left,
    /// Its time to buy ran out.
    TimedOut,
    /// It waits, and all is sold. Should seats come back, it waits on.
    SoldOut,
    /// It waits, and the last sale behind the queue is over.
    Ended,
}

impl ExpiryReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Paid => "PAID",
            Self::Left => "LEFT",
            Self::TimedOut => "TIMED_OUT",
            Self::SoldOut => "SOLD_OUT",
            Self::Ended => "ENDED",
        }
    }
}

impl From<Ending> for ExpiryReason {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Finished => Self::Paid,
            Ending::Left => Self::Left,
            Ending::TimedOut => Self::TimedOut,
        }
    }
}

impl From<Closing> for ExpiryReason {
    fn from(closing: Closing) -> Self {
        match closing {
            Closing::SoldOut => Self::SoldOut,
            Closing::Ended => Self::Ended,
        }
    }
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
    /// How many are ahead, plus one; 0 once activated. It never grows. Null before an opening draw in which
    /// the ticket takes part.
    #[schema(required, nullable)]
    waiting_number: Option<u64>,
    /// How long it may take, in seconds, by the speed at which the line moves; null while nobody knows
    /// (the queue is paused, or nobody has gone yet whose place would be free).
    #[schema(required, nullable)]
    eta_seconds: Option<u64>,
    /// When to ask again, in milliseconds: at most a third of the claim window, and at most 5000 while the
    /// queue is paused or within 30 s of its opening.
    poll_after_ms: u64,
    /// When the ticket was given; of one that there was already, the second.
    #[schema(value_type = String, format = DateTime)]
    #[serde(serialize_with = "as_time")]
    joined_at: Timestamp,
    /// What the queue is doing.
    queue_state: QueueState,
    /// What to show where others check it, such as at a gate; only if activated.
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<String>,
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
        match self.waiting_number {
            Some(number) => json.number(field!("waitingNumber"), number),
            None => json.null(field!("waitingNumber")),
        }
        match self.eta_seconds {
            Some(seconds) => json.number(field!("etaSeconds"), seconds),
            None => json.null(field!("etaSeconds")),
        }
        json.number(field!("pollAfterMs"), self.poll_after_ms);
        json.text_by(field!("joinedAt"), |out| rfc3339_to(self.joined_at, out));
        json.text(field!("queueState"), self.queue_state.as_str());
        if let Some(pass) = &self.pass {
            json.text(field!("pass"), pass);
        }
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
    /// How many are ahead, plus one; 0 once activated, paid, given up or timed out. It never grows. Null before
    /// an opening draw in which the ticket takes part.
    #[schema(required, nullable)]
    waiting_number: Option<u64>,
    /// How long it may take, in seconds, by the speed at which the line moves; 0 unless there is a number;
    /// null while nobody knows.
    #[schema(required, nullable)]
    eta_seconds: Option<u64>,
    /// When to ask again, in milliseconds: at most a third of the claim window, and at most 5000 while the
    /// queue is paused or within 30 s of its opening.
    poll_after_ms: u64,
    /// When it stops opening doors; null unless activated.
    #[schema(required, nullable, format = DateTime)]
    active_until: Option<String>,
    /// What the queue is doing.
    queue_state: QueueState,
    /// Why the ticket is over; null unless expired.
    #[schema(required, nullable)]
    reason: Option<ExpiryReason>,
    /// What to show where others check it, such as at a gate; only if activated. It is good until
    /// `activeUntil`.
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<String>,
}

impl StatusResponse<'_> {
    fn to_json(&self) -> Vec<u8> {
        let mut json = PlainObject::with_capacity(256);
        json.number(field!("userId"), self.user_id);
        json.text(field!("queue"), self.queue);
        json.text(field!("status"), self.status.as_str());
        match self.waiting_number {
            Some(number) => json.number(field!("waitingNumber"), number),
            None => json.null(field!("waitingNumber")),
        }
        match self.eta_seconds {
            Some(seconds) => json.number(field!("etaSeconds"), seconds),
            None => json.null(field!("etaSeconds")),
        }
        json.number(field!("pollAfterMs"), self.poll_after_ms);
        match &self.active_until {
            Some(until) => json.text(field!("activeUntil"), until),
            None => json.null(field!("activeUntil")),
        }
        json.text(field!("queueState"), self.queue_state.as_str());
        match self.reason {
            Some(reason) => json.text(field!("reason"), reason.as_str()),
            None => json.null(field!("reason")),
        }
        if let Some(pass) = &self.pass {
            json.text(field!("pass"), pass);
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
    /// It opens at a time still to come, because the queue or the first sale behind it does; joining is
    /// possible.
    Scheduled,
    /// Everything behind it is sold.
    SoldOut,
    /// The last sale behind it is over.
    Ended,
}

impl QueueState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Paused => "PAUSED",
            Self::Scheduled => "SCHEDULED",
            Self::SoldOut => "SOLD_OUT",
            Self::Ended => "ENDED",
        }
    }
}

impl From<State> for QueueState {
    fn from(state: State) -> Self {
        match state {
            State::Open => Self::Open,
            State::Paused => Self::Paused,
            State::Scheduled(_) => Self::Scheduled,
            State::Closed(Closing::SoldOut) => Self::SoldOut,
            State::Closed(Closing::Ended) => Self::Ended,
        }
    }
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
    /// How many it admits in a second now: less where the shop cannot serve more, and none while it is shut.
    admitting_per_second: f64,
    /// What it is doing.
    state: QueueState,
    /// The same, by the name that it has in the answers about tickets.
    queue_state: QueueState,
    /// When it opens, if that is still to come: the later of its own opening and that of the first sale
    /// behind it.
    #[schema(required, nullable, format = DateTime)]
    opens_at: Option<String>,
    /// Of a queue with an opening draw: SHA-256 of the line `boxoffice draw 1`, a line feed, the queue's name, a
    /// line feed, and the seed, in hexadecimal.
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    draw_commitment: Option<String>,
    /// The seed in hexadecimal, from the opening on; null before.
    #[schema(value_type = Option<String>, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    draw_seed: Option<Option<String>>,
    /// How many tickets were drawn; null before the opening.
    #[schema(value_type = Option<u64>, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    draw_count: Option<Option<u64>>,
}

/// The refusal of a join where there is nothing to join for.
fn turned_away(closing: Closing) -> Problem {
    Problem::new(match closing {
        Closing::SoldOut => ErrorCode::QueueSoldOut,
        Closing::Ended => ErrorCode::QueueEnded,
    })
}

pub(super) async fn join(
    Service(HttpState { app, web }): Service<HttpState>,
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
    if let Some(closing) = queue.turned_away() {
        return Err(turned_away(closing));
    }
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
    let (status, shown) = match place {
        Place::Waiting { .. } | Place::Undrawn => (TicketStatus::Waiting, None),
        Place::Active { until, .. } => {
            (TicketStatus::Activated, Some(app.pass(&pass, &queue, until)))
        }
        Place::Over(_) => (TicketStatus::Expired, None),
    };
    let told = queue.told(place, now, pass.ticket.seq);
    let answer = JoinResponse {
        token: app.tickets.signed(&pass.ticket),
        status,
        waiting_number: number_at(place),
        eta_seconds: told.eta.map(|eta| eta.as_secs()),
        poll_after_ms: told.poll_after.as_millis() as u64,
        joined_at,
        queue_state: told.state.into(),
        pass: shown,
    };
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json_bytes(status, answer.to_json()))
}

/// The number that is told of a place. It stays where the ticket is turned away: nothing was done to it, and what
/// is sold may come back.
const fn number_at(place: Place) -> Option<u64> {
    match place {
        Place::Waiting { number } => Some(number),
        Place::Undrawn => None,
        Place::Active { .. } | Place::Over(_) => Some(0),
    }
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
    let asker = Asker::of(&parts, &app).await?;
    let key = IdempotencyKey::from_headers(&parts.headers)?;
    let ApiJson(request) = ApiJson::read(&parts.headers, body, web.body, client).await?;
    join_at(&app, &web, begun, client, asker, key, request).await
}

pub(super) async fn status(
    Service(HttpState { app, web }): Service<HttpState>,
    client: ClientAddress,
    presented: Presented,
) -> Result<Response, Problem> {
    if let Some(rate) = &web.poll_rate {
        rate.check(client)?;
    }
    Ok(place_of(&app, &presented).map(Body::new))
}

/// Makes polls slow, to see that a comparison of load test runs notices: milliseconds in
/// `BOXOFFICE_TEST_POLL_DELAY_MS`. Not part of a release build.
#[cfg(debug_assertions)]
fn delay_for_tests() {
    static DELAY: std::sync::OnceLock<Option<std::time::Duration>> = std::sync::OnceLock::new();
    let delay = DELAY.get_or_init(|| {
        let text = std::env::var("BOXOFFICE_TEST_POLL_DELAY_MS").ok()?;
        text.parse().ok().map(std::time::Duration::from_millis)
    });
    if let Some(delay) = *delay {
        std::thread::sleep(delay);
    }
}

/// The answer to a poll.
pub(super) fn place_of(app: &App, presented: &Presented) -> Response<Full<Bytes>> {
    #[cfg(debug_assertions)]
    delay_for_tests();
    let Presented { pass, queue, place, now } = presented;
    // A different wait for each ticket and each poll, so that a crowd does not march in step.
    let jitter = pass.ticket.seq.wrapping_mul(31).wrapping_add(now.0.unsigned_abs());
    let told = queue.told(*place, *now, jitter);
    let (status, until, reason) = match (*place, told.turned_away) {
        (Place::Waiting { .. } | Place::Undrawn, None) => (TicketStatus::Waiting, None, None),
        (Place::Waiting { .. } | Place::Undrawn, Some(closing)) => {
            (TicketStatus::Expired, None, Some(closing.into()))
        }
        (Place::Active { until, .. }, _) => (TicketStatus::Activated, Some(until), None),
        (Place::Over(ending), _) => (TicketStatus::Expired, None, Some(ending.into())),
    };
    let answer = StatusResponse {
        user_id: pass.ticket.user.get(),
        queue: pass.ticket.queue.as_str(),
        status,
        waiting_number: number_at(*place),
        eta_seconds: told.eta.map(|eta| eta.as_secs()),
        poll_after_ms: told.poll_after.as_millis() as u64,
        active_until: until.map(rfc3339),
        queue_state: told.state.into(),
        reason,
        pass: until.map(|until| app.pass(pass, queue, until)),
    };
    json_bytes(StatusCode::OK, answer.to_json())
}

pub(super) async fn leave(
    Service(app): Service<AppState>,
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
    let state = queue.state(now);
    let opens_at = match state {
        State::Scheduled(at) => Some(rfc3339(at)),
        State::Open | State::Paused | State::Closed(_) => None,
    };
    let draw = queue.draw();
    let drawn = draw.as_ref().map(|draw| draw.drawn);
    QueueDocument {
        draw_commitment: draw.as_ref().map(|draw| Digest(draw.commitment).to_string()),
        draw_seed: drawn.map(|drawn| drawn.map(|drawn| Digest(drawn.seed).to_string())),
        draw_count: drawn.map(|drawn| drawn.map(|drawn| drawn.count)),
        queue: queue.name().as_str(),
        serving: queue.serving(),
        waiting: queue.waiting(),
        admit_per_second: queue.settings().admit_per_second,
        admitting_per_second: (queue.admitting_per_second(now) * 1e3).round() / 1e3,
        state: state.into(),
        queue_state: state.into(),
        opens_at,
    }
}

pub(super) async fn document(
    Service(HttpState { app, web }): Service<HttpState>,
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
    Service(HttpState { app, web }): Service<HttpState>,
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
        use ExpiryReason::{Ended, Left, Paid, SoldOut, TimedOut};
        use TicketStatus::{Activated, Expired, Waiting};
        let states = [
            QueueState::Open,
            QueueState::Paused,
            QueueState::Scheduled,
            QueueState::SoldOut,
            QueueState::Ended,
        ];
        let reasons = [None, Some(Paid), Some(Left), Some(TimedOut), Some(SoldOut), Some(Ended)];
        let mut others = states.into_iter().cycle().zip(reasons.into_iter().cycle());
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
                let (queue_state, _) = others.next().unwrap();
                for pass in [None, Some("a.b-_.c".to_owned())] {
                    let join = JoinResponse {
                        token: keys.signed(&ticket),
                        status,
                        waiting_number: Some(u64::MAX).filter(|_| eta_seconds != Some(0)),
                        eta_seconds,
                        poll_after_ms: 1_000,
                        joined_at: Timestamp(0),
                        pass,
                        queue_state,
                    };
                    assert_eq!(join.to_json(), serde_json::to_vec(&join).unwrap());
                }
                for active_until in [None, Some(rfc3339(Timestamp(1)))] {
                    let (queue_state, reason) = others.next().unwrap();
                    let poll = StatusResponse {
                        user_id: i64::MAX,
                        queue: "main-1_a",
                        status,
                        waiting_number: Some(0).filter(|_| eta_seconds != Some(0)),
                        eta_seconds,
                        poll_after_ms: 33_000,
                        pass: active_until.clone(),
                        active_until,
                        queue_state,
                        reason,
                    };
                    assert_eq!(poll.to_json(), serde_json::to_vec(&poll).unwrap());
                }
            }
        }
    }
}
