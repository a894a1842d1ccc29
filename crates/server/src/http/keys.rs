//! The keys that the service signs with: the public set, and their change by operators.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::{Act, Acted, Effect};
use boxoffice_domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{Access, Asked, created};
use super::extract::{MaybeIdempotencyKey, Whole};
use super::problem::{ErrorCode, Problem};
use super::reply::{act_error, fault, json, to_json};
use crate::app::{App, AppState};
use crate::signing::{AHEAD_SECONDS, AHEAD_SECONDS_MAX, PublicKey, SET_AGE_SECONDS};
use crate::workers::refresh_signing_keys;

/// A key set (RFC 7517) of Ed25519 keys (RFC 8037).
#[derive(ToSchema)]
#[allow(dead_code)]
pub(super) struct KeySet {
    /// The keys whose signatures may count.
    keys: Vec<PublishedKey>,
}

/// An Ed25519 key.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(super) struct PublishedKey {
    /// `OKP`.
    kty: String,
    /// `Ed25519`.
    crv: String,
    /// The key, in Base64.
    x: String,
    /// What passes under it name it by.
    kid: String,
    /// `sig`.
    #[schema(rename = "use")]
    used_for: String,
    /// `EdDSA`.
    alg: String,
}

pub(super) async fn set(State(app): State<AppState>) -> Response<Body> {
    let mut response = app.signing.set().into_response();
    let age = format!("public, max-age={SET_AGE_SECONDS}");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    if let Ok(age) = age.try_into() {
        headers.insert(CACHE_CONTROL, age);
    }
    response
}

/// What becomes of a key, in this order; withdrawn it may be at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum KeyState {
    /// It is published, and signs later.
    Next,
    /// It signs.
    Signing,
    /// It signs no more, and is published as long as a pass of its time may be good.
    Old,
    /// Nothing is good any more that it signed to be let in with.
    Retired,
    /// Nothing that it signed counts any more.
    Withdrawn,
}

/// A key.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedKey {
    /// Its id.
    pub kid: String,
    /// What becomes of it.
    pub state: KeyState,
    /// From when on it signs.
    #[schema(format = DateTime)]
    pub signs_from: String,
}

/// All keys.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// The oldest first.
    pub keys: Vec<ListedKey>,
}

/// A change of keys.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyRotation {
    /// In how many seconds the new key signs. It is published at once, so that whoever checks passes has
    /// read it by then; 120 where this is left out, twice the time for which the set may be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2_592_000, value_type = Option<u64>)]
    pub in_seconds: Option<Whole<u32>>,
    /// Whether all other keys are withdrawn, because somebody else has one: the new key signs at once, and
    /// passes under the others count no more.
    #[serde(default)]
    pub withdraw: bool,
}

/// A new key.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyCreated {
    /// Its id.
    pub kid: String,
    /// From when on it signs.
    #[schema(format = DateTime)]
    pub signs_from: String,
}

pub(super) async fn list(
    _: Access,
    State(app): State<AppState>,
) -> Result<Response<Body>, Problem> {
    let now = app.clock.now();
    let keys = states(&app, now).into_iter().map(|(key, state)| ListedKey {
        kid: key.id,
        state,
        signs_from: rfc3339(key.signs_from),
    });
    Ok(json(StatusCode::OK, &KeyList { keys: keys.collect() }))
}

fn states(app: &App, now: Timestamp) -> Vec<(PublicKey, KeyState)> {
    let signing = app.signing.of(now).id().clone();
    let published = app.signing.published();
    let state = |key: &PublicKey| match () {
        () if key.is_withdrawn => KeyState::Withdrawn,
        () if *key.id == *signing => KeyState::Signing,
        () if !published.iter().any(|id| **id == *key.id) => KeyState::Retired,
        () if key.signs_from > now => KeyState::Next,
        () => KeyState::Old,
    };
    app.signing.public().into_iter().map(|key| (key.clone(), state(&key))).collect()
}

pub(super) async fn rotate(
    access: Access,
    State(app): State<AppState>,
    MaybeIdempotencyKey(key): MaybeIdempotencyKey,
    asked: Asked<KeyRotation>,
) -> Result<Response<Body>, Problem> {
    let KeyRotation { in_seconds, withdraw } = &asked.body;
    let in_seconds = in_seconds.as_ref().map(|seconds| seconds.0);
    if in_seconds.is_some_and(|seconds| seconds > AHEAD_SECONDS_MAX) {
        let detail = format!("inSeconds must be from 0 to {AHEAD_SECONDS_MAX}");
        return Err(Problem::new(ErrorCode::InvalidSetting).detail(detail));
    }
    if *withdraw && in_seconds.is_some_and(|seconds| seconds > 0) {
        return Err(Problem::new(ErrorCode::InvalidSetting)
            .detail("inSeconds must be left out where all other keys are withdrawn"));
    }
    let in_seconds = if *withdraw { 0 } else { in_seconds.unwrap_or(AHEAD_SECONDS) };
    let signs_from = Timestamp(app.clock.now().0 + i64::from(in_seconds) * 1_000);
    let rotation = app.signing.rotation(signs_from, *withdraw).map_err(|cause| fault(&cause))?;
    let answer = |effect: &Effect| match effect {
        Effect::Key { after, signs_from, .. } => {
            to_json(&KeyCreated { kid: after.clone(), signs_from: rfc3339(*signs_from) })
        }
        _ => String::new(),
    };
    let note = access.creation(&app, "rotate_key", key, &asked, answer);
    let acted = app.store.act(Act::RotateKey(rotation), note).await.map_err(act_error)?;
    if let Acted::Now(Effect::Key { after, .. }, _) = &acted {
        tracing::info!(key.id = %after, withdraws = *withdraw, "another key signs");
        if let Err(error) = refresh_signing_keys(&app).await {
            tracing::warn!(%error, "the signing keys cannot be read; trying on");
        }
    }
    Ok(created(acted, answer))
}
