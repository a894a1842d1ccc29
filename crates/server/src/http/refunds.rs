//! Refunds.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use boxoffice_backends::Fault;
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::Refund;
use boxoffice_domain::ids::{PaymentId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Asker, Presented};
use super::extract::{ApiJson, IdempotencyKey, MaybeIdempotencyKey, PathIds, WireId, present};
use super::idempotency;
use super::problem::{ErrorCode, Problem};
use super::reply::{fault, fault_outcome, json, refund_error};
use crate::app::AppState;
use crate::metrics::{Outcome, OutcomeLabel};

/// Whose payment is to be refunded.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RefundRequest {
    /// Who paid, the ticket's user; may be left out where people are known.
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = super::schema::id)]
    user_id: Option<WireId<UserId>>,
}

/// A refund made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefundResponse {
    /// The payment.
    #[schema(schema_with = super::schema::id_out)]
    payment_id: i64,
    /// What it had paid.
    #[schema(schema_with = super::schema::id_out)]
    reservation_id: i64,
    /// How much came back, in points.
    refund_amount: i64,
    /// That it is done.
    status: RefundStatus,
    /// When.
    #[schema(format = DateTime)]
    refunded_at: String,
}

/// What has become of a refund.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum RefundStatus {
    /// The points are back, and the seats are not the buyer's any more.
    Refunded,
}

pub(super) async fn create(
    State(app): State<AppState>,
    presented: Presented,
    asker: Asker,
    PathIds(payment): PathIds<PaymentId>,
    MaybeIdempotencyKey(key): MaybeIdempotencyKey,
    ApiJson(request): ApiJson<RefundRequest>,
) -> Result<Response, Problem> {
    let count = |outcome| app.metrics.payments.get_or_create(&OutcomeLabel { outcome }).inc();
    match refund(&app, presented, asker, payment, key, request).await {
        Ok((response, outcome)) => {
            count(outcome);
            Ok(response)
        }
        Err((problem, outcome)) => {
            count(outcome);
            Err(problem)
        }
    }
}

async fn refund(
    app: &AppState,
    presented: Presented,
    asker: Asker,
    payment: PaymentId,
    key: Option<IdempotencyKey>,
    request: RefundRequest,
) -> Result<(Response, Outcome), (Problem, Outcome)> {
    let forbidden = |problem| (problem, Outcome::Forbidden);
    let failed = |cause: Fault| (fault(&cause), fault_outcome(&cause));
    let user = asker.user(request.user_id.map(|WireId(user)| user)).map_err(forbidden)?;
    presented.must_be(user).map_err(forbidden)?;
    presented.must_have_been_admitted().map_err(forbidden)?;
    let not_found = || (Problem::new(ErrorCode::PaymentNotFound), Outcome::NotFound);
    let paid = app.store.payment(payment).await.map_err(failed)?.ok_or_else(not_found)?;
    let found = app.store.reservation(paid.reservation).await.map_err(failed)?;
    let (reservation, _) = found.ok_or_else(not_found)?;
    let entered = idempotency::enter(app, user, key, "refund", [user.get(), payment.get()])
        .map_err(|problem| (problem, Outcome::KeyConflict))?;
    let (key, guard) = entered.map_or((None, None), |e| (Some(e.key), Some(e.guard)));
    let refund = Refund {
        payment,
        reservation: paid.reservation,
        of: (reservation.concert, reservation.session),
        user,
        ends_before: Duration::from_secs(app.config.sales.refund_until_hours * 3_600),
        release_delay: app.release_delay(),
        idempotency: key,
        now: presented.now,
    };
    // On its own, so that the key stays in progress until the store has answered.
    let store = app.store.clone();
    let task = tokio::spawn(async move {
        let answer = store.refund(refund).await;
        drop(guard);
        answer
    });
    let answer =
        task.await.unwrap_or_else(|error| Err(Fault::OutcomeUnknown(error.to_string()).into()));
    let answer = answer.map_err(refund_error)?;
    let outcome = if answer.replayed { Outcome::Replayed } else { Outcome::Refunded };
    let refunded = answer.value;
    let response = json(
        StatusCode::OK,
        &RefundResponse {
            payment_id: refunded.payment.get(),
            reservation_id: refunded.reservation.get(),
            refund_amount: refunded.amount,
            status: RefundStatus::Refunded,
            refunded_at: rfc3339(refunded.refunded_at),
        },
    );
    Ok((response, outcome))
}
