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

use super::auth::{Asker, Cashier, safe};
use super::extract::{ApiJson, IdempotencyKey, MaybeIdempotencyKey, PathIds, WireAmount};
use super::idempotency;
use super::problem::{ErrorCode, Problem};
use super::reply::{charge_error, fault, json};
use crate::app::AppState;
use crate::metrics::{Outcome, OutcomeLabel};

/// Points to charge.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChargeRequest {
    /// How many; at least 1.
    #[schema(schema_with = super::schema::amount)]
    amount: WireAmount,
}

/// A balance.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PointsResponse {
    /// The balance, in points.
    total_amount: i64,
}

pub(super) async fn charge(
    State(app): State<AppState>,
    _: Cashier,
    PathIds(user): PathIds<UserId>,
    MaybeIdempotencyKey(key): MaybeIdempotencyKey,
    ApiJson(request): ApiJson<ChargeRequest>,
) -> Result<Response, Problem> {
    let count = |outcome| app.metrics.points_charges.get_or_create(&OutcomeLabel { outcome }).inc();
    match charged(&app, user, key, request).await {
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

async fn charged(
    app: &AppState,
    user: UserId,
    key: Option<IdempotencyKey>,
    request: ChargeRequest,
) -> Result<(i64, Outcome), (Problem, Outcome)> {
    let user = safe(user).map_err(|problem| (problem, Outcome::Invalid))?;
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

pub(super) async fn balance(
    State(app): State<AppState>,
    asker: Asker,
    PathIds(user): PathIds<UserId>,
) -> Result<Response, Problem> {
    let user = asker.user(Some(user))?;
    let total_amount = app.store.balance(user).await.map_err(|cause| fault(&cause))?;
    Ok(json(StatusCode::OK, &PointsResponse { total_amount }))
}
