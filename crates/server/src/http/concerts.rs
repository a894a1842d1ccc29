//! What is for sale.

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::Catalog;
use boxoffice_domain::ids::{ConcertId, SessionId};
use boxoffice_domain::sales::Concert;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use utoipa::ToSchema;

use super::auth::Presented;
use super::describe::{Described, Description};
use super::extract::PathIds;
use super::problem::{ErrorCode, Problem};
use super::reply::json;
use super::seat_list::Coding;
use super::state::HttpState;
use crate::app::AppState;

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
    concert_id: i64,
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
    let catalog = app.store.catalog();
    let concerts = catalog
        .concerts()
        .map(|concert| ListedConcert {
            concert_id: concert.id.get(),
            name: concert.name.clone(),
            venue: concert.venue.clone(),
            queue: concert.queue.as_str().to_owned(),
            reservation_opens_at: rfc3339(concert.opens_at),
            reservation_closes_at: rfc3339(concert.closes_at),
        })
        .collect();
    json(StatusCode::OK, &ConcertList { concerts })
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
        .filter(|inventory| now < concert.sells_until(&inventory.session()))
        .filter(|inventory| inventory.called_off().is_none())
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
    asked: Asked,
) -> Result<Response, Problem> {
    let catalog = app.store.catalog();
    let concert = open_concert(&catalog, &presented, id)?;
    let inventory = catalog
        .inventory(concert.id, session)
        .ok_or_else(|| Problem::new(ErrorCode::SessionNotFound))?;
    // A clock that is off here does not free what others hold.
    let now = app.store.vouched(presented.now);
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

/// Which of the forms of a list a client asks for, and which lists it has.
pub(super) struct Asked {
    coding: Coding,
    known: Vec<HeaderValue>,
}

impl Asked {
    /// Whether the client has the list of this tag. A proxy that compresses makes a tag weak.
    fn has(&self, etag: &str) -> bool {
        self.known.iter().any(|value| {
            let tags = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            tags.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag))
                .any(|tag| tag == b"*" || tag == etag.as_bytes())
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let headers = &parts.headers;
        let coding = if accepts_gzip(headers) { Coding::Gzip } else { Coding::Identity };
        Ok(Self { coding, known: headers.get_all(IF_NONE_MATCH).iter().cloned().collect() })
    }
}

impl Described for Asked {
    fn describe(description: &mut Description) {
        description.header("If-None-Match", "The ETag of the list that the client has", None);
    }
}

/// Whether the client names gzip without refusing it (`q=0`).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let named = |value: &HeaderValue| {
        value.to_str().unwrap_or_default().split(',').any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"))
                && !parts.any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)))
        })
    };
    headers.get_all(ACCEPT_ENCODING).iter().any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_ask_for_it() {
        for (value, expected) in [
            ("gzip", true),
            ("br, GZip;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0, br", false),
            ("br", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
