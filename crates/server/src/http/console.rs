//! The console of operators: signing in and out, and what only it asks for.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderValue, Response, StatusCode};
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::Role;
use boxoffice_domain::queue::{
    Circumstances, Expected, QueueSettings, SettingsChange, Warning, warnings,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{Access, SESSION_COOKIE};
use super::admin::{QueueChange, etag, find, for_queue, nullable};
use super::client::ClientAddress;
use super::cross_site::OwnPage;
use super::extract::{ApiJson, PathQueue, Whole};
use super::operators::RoleName;
use super::problem::{ErrorCode, Problem};
use super::reply::{fault, json};
use super::state::HttpState;
use crate::app::AppState;
use crate::console::{LASTS, TOKEN_MAX};

/// Who wants to sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// The token of an operator.
    #[schema(example = "bxo_…")]
    token: String,
}

pub(super) async fn login(
    _: OwnPage,
    client: ClientAddress,
    State(HttpState { app, web }): State<HttpState>,
    ApiJson(Login { token }): ApiJson<Login>,
) -> Result<Response<Body>, Problem> {
    if let Some(rate) = &web.login_rate {
        rate.check(client)?;
    }
    let found = app.operators.find(&token).map_err(|cause| fault(&cause))?;
    let who = found.ok_or_else(|| Problem::new(ErrorCode::AdminTokenInvalid))?;
    if !who.role.may(Role::Viewer) {
        let detail =
            format!("the console needs the role {}; {} is {}", Role::Viewer, who.name, who.role);
        return Err(Problem::new(ErrorCode::RoleRequired).detail(detail));
    }
    if token.len() > TOKEN_MAX {
        let detail = format!("a token of more than {TOKEN_MAX} bytes has no room in a cookie");
        return Err(Problem::new(ErrorCode::AdminTokenInvalid).detail(detail));
    }
    let session = web.sessions.write(&token, app.clock.now().plus(LASTS));
    let session = session.ok_or_else(|| Problem::internal("a session cannot be encrypted"))?;
    tracing::info!(operator.name = %who.name, client.address = %client.address, "signed in to the console");
    with_cookie(&session, LASTS.as_secs())
}

pub(super) async fn logout(_: OwnPage) -> Result<Response<Body>, Problem> {
    with_cookie("", 0)
}

/// An answer that sets the cookie of the console.
fn with_cookie(value: &str, seconds: u64) -> Result<Response<Body>, Problem> {
    let cookie = format!(
        "{SESSION_COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; Secure; SameSite=Strict"
    );
    let cookie = HeaderValue::try_from(cookie).map_err(Problem::internal)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(SET_COOKIE, cookie);
    Ok(response)
}

/// A change to be looked at. What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Proposal {
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
    /// Whether it is paused.
    paused: Option<bool>,
}

/// What can be expected of a queue with some settings, as long as nothing else changes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Expectation {
    admit_per_second: f64,
    #[schema(required, nullable)]
    max_active: Option<u64>,
    #[schema(required, nullable, format = DateTime)]
    opens_at: Option<String>,
    paused: bool,
    /// How long the last of those who wait now will do so; null where nobody knows.
    #[schema(required, nullable)]
    last_wait_seconds: Option<u64>,
    /// When the line of now will be empty; null where nobody waits or knows.
    #[schema(required, nullable, format = DateTime)]
    line_empty_at: Option<String>,
    /// How many of those who wait or are inside now will be inside at a time, at the most.
    inside_at_most: u64,
}

/// Something to be thought about before the change.
#[derive(Serialize, ToSchema)]
pub(super) struct PreviewWarning {
    /// What it is.
    code: &'static str,
    /// The same in words.
    detail: String,
    /// What is exceeded or not reached, where it is a number.
    #[schema(required, nullable)]
    limit: Option<f64>,
}

impl From<Warning> for PreviewWarning {
    #[allow(clippy::cast_precision_loss)]
    fn from(warning: Warning) -> Self {
        let (code, detail, limit) = match warning {
            Warning::AboveGovernor(limit) => (
                "ABOVE_GOVERNOR",
                format!(
                    "the store serves those of {limit:.1} admissions a second now, and no more are let in"
                ),
                Some(limit),
            ),
            Warning::AboveSafeRate(limit) => (
                "ABOVE_SAFE_RATE",
                format!("{limit} admissions a second were measured to be safe (queue.safe_rate)"),
                Some(limit),
            ),
            Warning::BelowInside(inside) => (
                "BELOW_INSIDE",
                format!(
                    "{inside} are inside: nobody is put out, and nobody comes in until enough have gone"
                ),
                Some(inside as f64),
            ),
            Warning::OpensInPast => {
                ("OPENS_IN_PAST", "that time is over: the queue opens at once".to_owned(), None)
            }
            Warning::OpeningMoved => (
                "OPENING_MOVED",
                "the queue has opened: nobody more is let in until then".to_owned(),
                None,
            ),
        };
        Self { code, detail, limit }
    }
}

/// What a change would do.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Preview {
    queue: String,
    /// When it was looked at.
    #[schema(format = DateTime)]
    at: String,
    /// As it is.
    now: Expectation,
    /// As it would be.
    then: Expectation,
    /// How many wait,
    waiting: u64,
    /// and how many are inside.
    inside: u64,
    /// Seats behind it that are not sold; null where nothing is sold behind it.
    #[schema(required, nullable)]
    seats_left: Option<u64>,
    /// How many seats a purchase takes on average; null before the first one.
    #[schema(required, nullable)]
    seats_per_purchase: Option<f64>,
    /// For how many more purchases the seats last; null where that is not known.
    #[schema(required, nullable)]
    buyers_served: Option<u64>,
    /// What speaks against it, or may not be meant.
    warnings: Vec<PreviewWarning>,
    /// Stands for the settings as they are, for `If-Match` of the change.
    etag: String,
}

pub(super) async fn preview(
    _: Access,
    State(app): State<AppState>,
    PathQueue(name): PathQueue,
    ApiJson(asked): ApiJson<Proposal>,
) -> Result<Response<Body>, Problem> {
    let Proposal { admit_per_second, max_active, opens_at, paused } = asked;
    let queue = find(&app, &name)?;
    let now = app.clock.now();
    let change = QueueChange { admit_per_second, max_active, opens_at }.checked()?;
    let change = for_queue(SettingsChange { paused, ..change }, &queue, now);
    let before = queue.settings();
    let mut after = before.clone();
    change.apply(&mut after);
    let (waiting, inside) = (queue.waiting(), queue.active(now));
    let [is, would_be] = queue.preview(&change, now);
    let expectation = |settings: &QueueSettings, expected: Expected| {
        let empty_at = expected.last_wait.filter(|_| waiting > 0).map(|wait| now.plus(wait));
        Expectation {
            admit_per_second: settings.admit_per_second,
            max_active: settings.max_active,
            opens_at: settings.opens_at.map(rfc3339),
            paused: settings.paused,
            last_wait_seconds: expected.last_wait.map(|wait| wait.as_secs()),
            line_empty_at: empty_at.map(rfc3339),
            inside_at_most: expected.inside_at_most,
        }
    };
    let (_, stock) = app.live.of_queue(queue.name());
    #[allow(clippy::cast_precision_loss)]
    let per_purchase = (stock.purchases > 0).then(|| stock.sold as f64 / stock.purchases as f64);
    // A float turns into the nearest integer that fits.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let served = |per_purchase: f64| (stock.left as f64 / per_purchase.max(1.0)).floor() as u64;
    let governed = app.sequencer.governed();
    let circumstances = Circumstances {
        now,
        inside,
        governed: (governed.share < 1.0).then_some(governed.share * before.admit_per_second),
        safe_rate: app.config.queue.safe_rate,
    };
    let warnings = warnings(&before, &after, &circumstances);
    Ok(json(
        StatusCode::OK,
        &Preview {
            queue: name,
            at: rfc3339(now),
            now: expectation(&before, is),
            then: expectation(&after, would_be),
            waiting,
            inside,
            seats_left: (stock.total > 0).then_some(stock.left),
            seats_per_purchase: per_purchase,
            buyers_served: per_purchase.filter(|_| stock.total > 0).map(served),
            warnings: warnings.into_iter().map(PreviewWarning::from).collect(),
            etag: etag(&before),
        },
    ))
}

/// The operator who asks.
#[derive(Serialize, ToSchema)]
pub(super) struct Me {
    /// What the log calls them.
    name: String,
    /// What they may do.
    role: RoleName,
    /// Until when they are signed in; null where they have sent a token.
    #[schema(required, nullable, format = DateTime)]
    until: Option<String>,
}

pub(super) async fn me(access: Access) -> Response<Body> {
    let until = access.by.until.map(rfc3339);
    let who = &access.who;
    json(StatusCode::OK, &Me { name: who.name.as_ref().to_owned(), role: who.role.into(), until })
}
