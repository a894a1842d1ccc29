//! Sessions that do not take place: calling off, and how far the refunds are.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::Inventory;
use boxoffice_domain::ids::{ConcertId, SessionId};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Admin;
use super::extract::PathIds;
use super::problem::{ErrorCode, Problem};
use super::reply::{fault, json};
use crate::app::AppState;

/// Sessions that were called off.
#[derive(Serialize, ToSchema)]
pub(super) struct Progress {
    /// Each of them.
    sessions: Vec<CalledOffSession>,
}

/// A session that was called off.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CalledOffSession {
    /// The session.
    #[schema(schema_with = super::schema::id_out)]
    session_id: i64,
    /// When it was called off.
    #[schema(format = DateTime)]
    cancelled_at: String,
    /// How many payments were refunded because of that.
    refunded: u64,
    /// How many reservations are neither ended nor refunded yet.
    left: usize,
}

async fn call_off(
    app: &AppState,
    concert: ConcertId,
    inventories: Vec<Arc<Inventory>>,
) -> Result<Response, Problem> {
    let sessions: Vec<SessionId> =
        inventories.iter().map(|inventory| inventory.session().id).collect();
    tracing::info!(concert.id = concert.get(), sessions = sessions.len(), "called off");
    let done = app.store.call_off(concert, sessions, app.clock.now()).await;
    done.map_err(|cause| fault(&cause))?;
    progress(app, inventories).await
}

async fn progress(app: &AppState, inventories: Vec<Arc<Inventory>>) -> Result<Response, Problem> {
    let mut sessions = Vec::new();
    for inventory in inventories {
        let Some(at) = inventory.called_off() else { continue };
        let session = inventory.session().id;
        sessions.push(CalledOffSession {
            session_id: session.get(),
            cancelled_at: rfc3339(at),
            refunded: app.store.refunded(session).await.map_err(|cause| fault(&cause))?,
            left: inventory.owners().len(),
        });
    }
    Ok(json(StatusCode::OK, &Progress { sessions }))
}

fn sessions_of(app: &AppState, concert: ConcertId) -> Result<Vec<Arc<Inventory>>, Problem> {
    let catalog = app.store.catalog();
    let found = catalog.concert(concert).map(|_| catalog.inventories(concert).to_vec());
    found.ok_or_else(|| Problem::new(ErrorCode::ConcertNotFound))
}

fn session_of(
    app: &AppState,
    (concert, session): (ConcertId, SessionId),
) -> Result<Vec<Arc<Inventory>>, Problem> {
    let catalog = app.store.catalog();
    let found = catalog.inventory(concert, session).map(|inventory| vec![inventory.clone()]);
    found.ok_or_else(|| Problem::new(ErrorCode::SessionNotFound))
}

pub(super) async fn cancel_concert(
    _: Admin,
    State(app): State<AppState>,
    PathIds(concert): PathIds<ConcertId>,
) -> Result<Response, Problem> {
    let sessions = sessions_of(&app, concert)?;
    call_off(&app, concert, sessions).await
}

pub(super) async fn concert_progress(
    _: Admin,
    State(app): State<AppState>,
    PathIds(concert): PathIds<ConcertId>,
) -> Result<Response, Problem> {
    let sessions = sessions_of(&app, concert)?;
    progress(&app, sessions).await
}

pub(super) async fn cancel_session(
    _: Admin,
    State(app): State<AppState>,
    PathIds(of): PathIds<(ConcertId, SessionId)>,
) -> Result<Response, Problem> {
    let sessions = session_of(&app, of)?;
    call_off(&app, of.0, sessions).await
}

pub(super) async fn session_progress(
    _: Admin,
    State(app): State<AppState>,
    PathIds(of): PathIds<(ConcertId, SessionId)>,
) -> Result<Response, Problem> {
    let sessions = session_of(&app, of)?;
    progress(&app, sessions).await
}
