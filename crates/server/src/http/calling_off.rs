//! Sessions that do not take place: calling off, and how far the refunds are.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::{Act, Inventory, Note};
use boxoffice_domain::ids::{ConcertId, SessionId};
use serde::Serialize;
use utoipa::ToSchema;

use super::access::Access;
use super::extract::PathIds;
use super::problem::{ErrorCode, Problem};
use super::reply::{act_error, fault, json};
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
    note: Note,
    concert: ConcertId,
    session: Option<SessionId>,
) -> Result<Response, Problem> {
    app.store.act(Act::CallOff(concert, session), note).await.map_err(act_error)?;
    tracing::info!(
        concert.id = concert.get(),
        session.id = session.map(SessionId::get),
        "called off"
    );
    let inventories = match session {
        None => sessions_of(app, concert),
        Some(session) => session_of(app, (concert, session)),
    };
    // It is done, even where another instance made them a moment ago and this one does not show them yet.
    progress(app, inventories.unwrap_or_default()).await
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
    access: Access,
    State(app): State<AppState>,
    PathIds(concert): PathIds<ConcertId>,
) -> Result<Response, Problem> {
    call_off(&app, access.note(&app, "cancel_concert"), concert, None).await
}

pub(super) async fn concert_progress(
    _: Access,
    State(app): State<AppState>,
    PathIds(concert): PathIds<ConcertId>,
) -> Result<Response, Problem> {
    let sessions = sessions_of(&app, concert)?;
    progress(&app, sessions).await
}

pub(super) async fn cancel_session(
    access: Access,
    State(app): State<AppState>,
    PathIds((concert, session)): PathIds<(ConcertId, SessionId)>,
) -> Result<Response, Problem> {
    call_off(&app, access.note(&app, "cancel_session"), concert, Some(session)).await
}

pub(super) async fn session_progress(
    _: Access,
    State(app): State<AppState>,
    PathIds(of): PathIds<(ConcertId, SessionId)>,
) -> Result<Response, Problem> {
    let sessions = session_of(&app, of)?;
    progress(&app, sessions).await
}
