//! Payments.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use boxoffice_backends::Fault;
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::sequencer::Queue;
use boxoffice_backends::store::{Answer, Pay, TicketRef};
use boxoffice_domain::ids::{ReservationId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Asker, Presented};
use super::extract::{ApiJson, IdempotencyKey, MaybeIdempotencyKey, WireId, present};
use super::idempotency;
use super::problem::Problem;
use super::reply::{json, reservation_error};
use crate::app::{App, AppState};
use crate::metrics::{Outcome, OutcomeLabel};

/// A reservation to be paid.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PaymentRequest {
    /// Who pays, the ticket's user; may be left out where people are known.
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = super::schema::id)]
    user_id: Option<WireId<UserId>>,
    /// Which reservation.
    #[schema(schema_with = super::schema::id)]
    reservation_id: WireId<ReservationId>,
}

/// A payment made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PaymentResponse {
    /// The payment.
    #[schema(schema_with = super::schema::id_out)]
    payment_id: i64,
    /// What it paid.
    #[schema(schema_with = super::schema::id_out)]
    reservation_id: i64,
    /// How much, in points.
    payment_amount: i64,
    /// That it is done.
    status: PaymentStatus,
    /// When.
    #[schema(format = DateTime)]
    paid_at: String,
}

/// What has become of a payment.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum PaymentStatus {
    /// The points are taken and the seats are the buyer's.
    Completed,
}

pub(super) async fn create(
    State(app): State<AppState>,
    presented: Presented,
    asker: Asker,
    MaybeIdempotencyKey(key): MaybeIdempotencyKey,
    ApiJson(request): ApiJson<PaymentRequest>,
) -> Result<Response, Problem> {
    let count = |outcome| app.metrics.payments.get_or_create(&OutcomeLabel { outcome }).inc();
    match pay(&app, presented, asker, key, request).await {
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

async fn pay(
    app: &AppState,
    presented: Presented,
    asker: Asker,
    key: Option<IdempotencyKey>,
    request: PaymentRequest,
) -> Result<(Response, Outcome), (Problem, Outcome)> {
    let forbidden = |problem| (problem, Outcome::Forbidden);
    let PaymentRequest { user_id, reservation_id: WireId(reservation) } = request;
    let user = asker.user(user_id.map(|WireId(user)| user)).map_err(forbidden)?;
    presented.must_be(user).map_err(forbidden)?;
    presented.must_have_been_admitted().map_err(forbidden)?;
    let entered = idempotency::enter(app, user, key, "pay", [user.get(), reservation.get()])
        .map_err(|problem| (problem, Outcome::KeyConflict))?;

    // On its own: once the store has been asked, the ticket's place in memory and the key in
    // progress must follow its answer, whether the client is still there or not.
    let task = {
        let app = app.clone();
        let over = Queue::is_spent(presented.place);
        let inside_for = presented.queue.inside_for(presented.place, presented.now);
        let purchase = app.sequencer.purchases().ask(inside_for);
        let Presented { pass, queue, now, .. } = presented;
        tokio::spawn(async move {
            let (key, guard) = entered.map_or((None, None), |e| (Some(e.key), Some(e.guard)));
            let ticket = TicketRef::from(&pass.ticket);
            let again = ticket.clone();
            let answer =
                app.store.pay(Pay { user, ticket, reservation, idempotency: key, now }).await;
            purchase.answered(&answer);
            let spent = match &answer {
                // The ticket need not be the one that paid: then it stays good. Where it is, the
                // answer that would have told so may have been lost, between here and the store.
                Ok(answer) if answer.replayed => !over && is_spent(&app, again).await,
                Ok(_) => true,
                Err(_) => false,
            };
            if spent {
                app.sequencer.finish(&queue, &pass);
            }
            if let Ok(Answer { also_spent: Some(holding), .. }) = &answer {
                app.sequencer.finish_ticket(holding);
            }
            drop(guard);
            answer
        })
    };
    let answer =
        task.await.unwrap_or_else(|error| Err(Fault::OutcomeUnknown(error.to_string()).into()));
    let answer = answer.map_err(reservation_error)?;
    let outcome = if answer.replayed { Outcome::Replayed } else { Outcome::Completed };
    let payment = answer.value;
    let response = json(
        StatusCode::CREATED,
        &PaymentResponse {
            payment_id: payment.id.get(),
            reservation_id: payment.reservation.get(),
            payment_amount: payment.amount,
            status: PaymentStatus::Completed,
            paid_at: rfc3339(payment.paid_at),
        },
    );
    Ok((response, outcome))
}

/// Whether the store knows that a ticket is spent. While it cannot be asked, memory stays as it is;
/// the store itself refuses what is spent.
async fn is_spent(app: &App, ticket: TicketRef) -> bool {
    app.store.is_spent(ticket).await.unwrap_or_else(|cause| {
        tracing::warn!(error = %cause, "the store does not say whether a ticket is spent");
        false
    })
}
