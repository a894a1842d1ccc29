//! Points: charge and balance.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use boxoffice_backends::Fault;
use boxoffice_backends::store::Charge;
use boxoffice_domain::ids::UserId;
use boxoffice_domain::points::BALANCE_MAX;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{ApiJson, IdempotencyKey, MaybeIdempotencyKey, PathId, WireAmount};
use super::idempotency;
use super::problem::{ErrorCode, Problem};
use super::reply::{charge_error, fault, json};
use crate::app::AppState;
use crate::metrics::{Outcome, OutcomeLabel};

/// Points to charge.
#[derive(Deserialize, ToSchema)]
pub(super) struct ChargeRequest {
    /// How many; at least 1.
    #[schema(schema_with = super::openapi::amount_schema)]
    amount: WireAmount,
}

/// A balance.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PointsResponse {
    /// The balance, in points.
    total_amount: i64,
}

/// Charges points onto a balance. `POST` does the same.
#[utoipa::path(
    patch, path = "/api/v1/users/{id}/points/charge", tag = "points", request_body = ChargeRequest,
    params(
        ("id" = String, Path, description = "The user", pattern = "^[1-9][0-9]{0,17}$", example = "1"),
        ("Idempotency-Key" = Option<String>, Header, description = "Same key and body: the first answer again", pattern = "^[!#-~][!-~]{0,254}$"),
    ),
    responses((status = 200, description = "The balance afterwards", body = PointsResponse))
)]
pub(super) async fn charge(
    State(app): State<AppState>,
    id: PathId,
    MaybeIdempotencyKey(key): MaybeIdempotencyKey,
    ApiJson(request): ApiJson<ChargeRequest>,
) -> Result<Response, Problem> {
    let count = |outcome| app.metrics.points_charges.get_or_create(&OutcomeLabel { outcome }).inc();
    match charged(&app, id, key, request).await {
        Ok((total_amount, outcome)) => {
            count(outcome);
            Ok(json(StatusCode::OK, &PointsResponse { total_amount }))
        }
        Err((problem, outcome)) => {
            count(outcome);
            Err(problem)
        }
    }
}

/// Charges points, for clients that cannot `PATCH`.
#[utoipa::path(
    post, path = "/api/v1/users/{id}/points/charge", tag = "points", request_body = ChargeRequest,
    params(
        ("id" = String, Path, description = "The user", pattern = "^[1-9][0-9]{0,17}$", example = "1"),
        ("Idempotency-Key" = Option<String>, Header, description = "Same key and body: the first answer again", pattern = "^[!#-~][!-~]{0,254}$"),
    ),
    responses((status = 200, description = "The balance afterwards", body = PointsResponse))
)]
pub(super) async fn charge_by_post(
    state: State<AppState>,
    id: PathId,
    key: MaybeIdempotencyKey,
    request: ApiJson<ChargeRequest>,
) -> Result<Response, Problem> {
    charge(state, id, key, request).await
}

async fn charged(
    app: &AppState,
    id: PathId,
    key: Option<IdempotencyKey>,
    request: ChargeRequest,
) -> Result<(i64, Outcome), (Problem, Outcome)> {
    let user = user(id).map_err(|problem| (problem, Outcome::Invalid))?;
    let amount = request.amount.get().ok_or_else(|| {
        let detail = format!("amount must be from 1 to {BALANCE_MAX}");
        (Problem::new(ErrorCode::InvalidAmount).detail(detail), Outcome::Invalid)
    })?;
    let entered = idempotency::enter(app, user, key, "charge", [user.get(), amount])
        .map_err(|problem| (problem, Outcome::KeyConflict))?;
    let (store, now) = (app.store.clone(), app.clock.now());
    let task = tokio::spawn(async move {
        let (key, guard) = entered.map_or((None, None), |e| (Some(e.key), Some(e.guard)));
        let answer = store.charge(Charge { user, amount, idempotency: key, now }).await;
        drop(guard);
        answer
    });
    let answer =
        task.await.unwrap_or_else(|error| Err(Fault::OutcomeUnknown(error.to_string()).into()));
    let answer = answer.map_err(charge_error)?;
    let outcome = if answer.replayed { Outcome::Replayed } else { Outcome::Completed };
    Ok((answer.value, outcome))
}

/// Tells a balance.
#[utoipa::path(
    get, path = "/api/v1/users/{id}/points", tag = "points",
    params(("id" = String, Path, description = "The user", pattern = "^[1-9][0-9]{0,17}$", example = "1")),
    responses((status = 200, description = "The balance; 0 for a user never heard of", body = PointsResponse))
)]
pub(super) async fn balance(State(app): State<AppState>, id: PathId) -> Result<Response, Problem> {
    let total_amount = app.store.balance(user(id)?).await.map_err(|cause| fault(&cause))?;
    Ok(json(StatusCode::OK, &PointsResponse { total_amount }))
}

fn user(id: PathId) -> Result<UserId, Problem> {
    UserId::new(id.get()).ok_or_else(|| Problem::new(ErrorCode::InvalidId))
}
