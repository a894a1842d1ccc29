//! What is for sale.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::sequencer::sale_of;
use boxoffice_backends::store::{Catalog, Inventory, Priced};
use boxoffice_domain::ids::{ConcertId, SessionId};
use boxoffice_domain::queue::Closing;
use boxoffice_domain::sales::Concert;
use boxoffice_domain::time::Timestamp;
use http_body_util::Full;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Presented;
use super::coding::{Asked, Coding};
use super::extract::PathIds;
use super::problem::{ErrorCode, Problem};
use super::reply::{json, json_bytes, to_json};
use super::seat_states::Since;
use super::seat_streams::LastEventId;
use super::state::{HttpState, Web};
use crate::app::{App, AppState};

/// Every concert.
#[derive(Serialize, ToSchema)]
pub(super) struct ConcertList {
    concerts: Vec<ListedConcert>,
}

/// A concert.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedConcert {
    /// The concert.
    #[schema(schema_with = super::schema::id_out)]
    pub(super) concert_id: i64,
    /// Its name.
    name: String,
    /// Where it is.
    venue: String,
    /// The queue that it is sold behind.
    queue: String,
    /// When reservations begin.
    #[schema(format = DateTime)]
    reservation_opens_at: String,
    /// When they end.
    #[schema(format = DateTime)]
    reservation_closes_at: String,
    /// What there is to buy.
    state: ConcertState,
}

/// What anybody may know of a concert.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConcertDocument {
    /// The concert.
    #[serde(flatten)]
    concert: ListedConcert,
    /// When this was written, by the service's clock: up to a second ago.
    #[schema(format = DateTime)]
    server_time: String,
    /// Its sessions in the order of their times, those that are over too.
    sessions: Vec<PublicSession>,
}

/// What there is to buy of a concert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum ConcertState {
    /// Reservations have not begun.
    Scheduled,
    /// There are seats that are not sold, or sessions that are still to be made.
    Open,
    /// All seats of all sessions to come are sold.
    SoldOut,
    /// Reservations have ended, or the last session has begun.
    Ended,
    /// All its sessions were called off.
    Cancelled,
}

/// A session, as anybody may see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PublicSession {
    /// The session.
    #[schema(schema_with = super::schema::id_out)]
    session_id: i64,
    /// When it begins.
    #[schema(format = DateTime)]
    concert_at: String,
    /// How many seats it has.
    total_seat_count: u64,
    /// How many of them nobody has; 0 once it was called off.
    available_seat_count: u64,
    /// Whether it was called off.
    cancelled: bool,
    /// The digest of its plan, under which that is found (`/api/v1/plans/{digest}`); null where it has none.
    #[schema(required, nullable)]
    plan: Option<String>,
    /// Its prices, the highest first.
    prices: Vec<PublicPrice>,
}

/// The seats of a session that have one price, and one grade where it has a plan.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PublicPrice {
    /// The price, in points.
    price: i64,
    /// The grade; null where there is no plan.
    #[schema(required, nullable)]
    grade: Option<String>,
    /// How many such seats there are.
    total_seat_count: u64,
    /// How many of them nobody has; 0 once the session was called off.
    available_seat_count: u64,
}

/// Sessions that can still be booked.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionList {
    sessions: Vec<ListedSession>,
}

/// A session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedSession {
    /// The session.
    #[schema(schema_with = super::schema::id_out)]
    session_id: i64,
    /// When it begins.
    #[schema(format = DateTime)]
    concert_at: String,
    /// How many seats it has.
    total_seat_count: usize,
    /// How many of them nobody has.
    available_seat_count: u64,
}

pub(super) async fn list(State(app): State<AppState>) -> Response {
    let (catalog, now) = (app.store.catalog(), app.clock.now());
    let concerts = catalog.concerts().map(|it| ListedConcert::of(&catalog, it, now)).collect();
    json(StatusCode::OK, &ConcertList { concerts })
}

impl ListedConcert {
    pub(super) fn of(catalog: &Catalog, concert: &Concert, now: Timestamp) -> Self {
        Self {
            concert_id: concert.id.get(),
            name: concert.name.clone(),
            venue: concert.venue.clone(),
            queue: concert.queue.as_str().to_owned(),
            reservation_opens_at: rfc3339(concert.opens_at),
            reservation_closes_at: rfc3339(concert.closes_at),
            state: state_of(catalog, concert, now),
        }
    }
}

pub(super) async fn show(
    State(HttpState { app, web }): State<HttpState>,
    PathIds(id): PathIds<ConcertId>,
) -> Result<Response, Problem> {
    document_of(&app, &web, id, Instant::now()).map(|document| document.map(Body::new))
}

/// The answer to who asks for the public document of a concert, at `begun`.
pub(super) fn document_of(
    app: &App,
    web: &Web,
    id: ConcertId,
    begun: Instant,
) -> Result<Response<Full<Bytes>>, Problem> {
    let render = || {
        let catalog = app.store.catalog();
        let concert = catalog.concert(id)?;
        let now = app.clock.at(begun);
        // A clock that is off here does not free what others hold.
        let vouched = app.store.vouched(now);
        Some(to_json(&document(&catalog, concert, now, vouched)).into_bytes())
    };
    let found = web.concerts.get(id, begun, render);
    let json = found.ok_or_else(|| Problem::new(ErrorCode::ConcertNotFound))?;
    let mut response = json_bytes(StatusCode::OK, json);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=1"));
    Ok(response)
}

/// The document at `now`. Holds end by the time that the store vouches for.
fn document(
    catalog: &Catalog,
    concert: &Concert,
    now: Timestamp,
    vouched: Timestamp,
) -> ConcertDocument {
    let mut inventories: Vec<&Arc<Inventory>> = catalog.inventories(concert.id).iter().collect();
    inventories.sort_by_key(|it| (it.session().starts_at, it.session().id));
    let concert_now = ListedConcert::of(catalog, concert, now);
    if concert_now.state == ConcertState::Open {
        // Only there do others change the seats.
        let sold = inventories.iter().filter(|it| it.is_sold(concert, now));
        sold.for_each(|inventory| inventory.ask_for());
    }
    ConcertDocument {
        concert: concert_now,
        server_time: rfc3339(now),
        sessions: inventories.into_iter().map(|it| public_session(it, vouched)).collect(),
    }
}

/// What there is to buy of a concert. The line behind which it is sold goes by the same.
fn state_of(catalog: &Catalog, concert: &Concert, now: Timestamp) -> ConcertState {
    let inventories = catalog.inventories(concert.id);
    if !inventories.is_empty() && inventories.iter().all(|it| it.called_off().is_some()) {
        return ConcertState::Cancelled;
    }
    match sale_of(catalog, concert, now).closing(now) {
        Some(Closing::Ended) => ConcertState::Ended,
        Some(Closing::SoldOut) => ConcertState::SoldOut,
        None if now < concert.opens_at => ConcertState::Scheduled,
        None => ConcertState::Open,
    }
}

fn public_session(inventory: &Inventory, now: Timestamp) -> PublicSession {
    let session = inventory.session();
    let cancelled = inventory.called_off().is_some();
    let public = |priced: Priced| PublicPrice {
        price: priced.price,
        grade: inventory.grade_name(priced.grade),
        total_seat_count: priced.total,
        // Those of a session that does not take place are nobody's, and nobody can have them.
        available_seat_count: if cancelled { 0 } else { priced.free },
    };
    let prices: Vec<PublicPrice> = inventory.prices(now).into_iter().map(public).collect();
    PublicSession {
        session_id: session.id.get(),
        concert_at: rfc3339(session.starts_at),
        total_seat_count: prices.iter().map(|price| price.total_seat_count).sum(),
        available_seat_count: prices.iter().map(|price| price.available_seat_count).sum(),
        cancelled,
        plan: inventory.plan().map(|plan| plan.digest().to_string()),
        prices,
    }
}

/// The concert, for a ticket that opens it now.
pub(super) fn open_concert<'a>(
    catalog: &'a Catalog,
    presented: &Presented,
    id: ConcertId,
) -> Result<&'a Arc<Concert>, Problem> {
    presented.must_be_active()?;
    let concert = catalog.concert(id).ok_or_else(|| Problem::new(ErrorCode::ConcertNotFound))?;
    presented.must_be_of(&concert.queue)?;
    Ok(concert)
}

/// The session, for a ticket that opens its concert now.
pub(super) fn open_session<'a>(
    catalog: &'a Catalog,
    presented: &Presented,
    concert: ConcertId,
    session: SessionId,
) -> Result<&'a Arc<Inventory>, Problem> {
    let concert = open_concert(catalog, presented, concert)?;
    catalog.inventory(concert.id, session).ok_or_else(|| Problem::new(ErrorCode::SessionNotFound))
}

pub(super) async fn sessions(
    State(app): State<AppState>,
    presented: Presented,
    PathIds(id): PathIds<ConcertId>,
) -> Result<Response, Problem> {
    let catalog = app.store.catalog();
    let concert = open_concert(&catalog, &presented, id)?;
    let now = presented.now;
    let sessions = catalog
        .inventories(concert.id)
        .iter()
        .filter(|inventory| inventory.is_sold(concert, now))
        // Held seats may come back; sold ones hardly do.
        .filter(|inventory| inventory.sold() < inventory.total() as u64)
        .map(|inventory| ListedSession {
            session_id: inventory.session().id.get(),
            concert_at: rfc3339(inventory.session().starts_at),
            total_seat_count: inventory.total(),
            available_seat_count: inventory.available(now),
        })
        .collect();
    Ok(json(StatusCode::OK, &SessionList { sessions }))
}

pub(super) async fn seats(
    State(HttpState { app, web }): State<HttpState>,
    presented: Presented,
    PathIds((id, session)): PathIds<(ConcertId, SessionId)>,
    Since(since): Since,
    asked: Asked,
) -> Result<Response, Problem> {
    let catalog = app.store.catalog();
    let inventory = open_session(&catalog, &presented, id, session)?;
    // A clock that is off here does not free what others hold.
    let now = app.store.vouched(presented.now);
    if let Some(since) = since {
        let told = web.seat_states.of(inventory).since(Some(&since), now);
        let coding = told.coding(asked.coding);
        let mut response = json_bytes(StatusCode::OK, told.bytes(coding));
        if let Coding::Gzip = coding {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        return Ok(response);
    }
    let rendered = web.seat_lists.get(inventory, now).await;

    let etag = rendered.etag(asked.coding);
    let mut response = Response::new(Body::empty());
    if asked.has(etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = Body::from(rendered.bytes(asked.coding).await);
        if let Coding::Gzip = asked.coding {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding, queue-token"));
    // Whoever has a ticket may keep it, and must ask whether it is still right.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(ETAG, etag);
    }
    Ok(response)
}

pub(super) async fn seat_stream(
    State(HttpState { app, web }): State<HttpState>,
    presented: Presented,
    PathIds((id, session)): PathIds<(ConcertId, SessionId)>,
    LastEventId(last): LastEventId,
) -> Result<Response, Problem> {
    let watched = {
        let catalog = app.store.catalog();
        web.seat_states.of(open_session(&catalog, &presented, id, session)?)
    };
    let Presented { pass, queue, .. } = presented;
    web.streams.listen(app, watched, pass, queue, last.as_deref())
}
