//! Pages, as browsers ask for them.
//!
//! What does not belong here: what is in the pages (`crates/server/pages`), and how it is put together
//! (`crate::pages`).

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY,
    VARY, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, Uri};
use axum::routing::{MethodFilter, on};
use boxoffice_domain::ids::{ConcertId, QueueName, ReservationId, SessionId};
use http_body_util::Full;

use super::coding::{Asked, Coding};
use super::extract::{Id, Ids, PathIds};
use super::observe::Observer;
use super::problem::{ErrorCode, Problem};
use super::state::HttpState;
use crate::endpoints::Route;
use crate::pages::{ASSETS, Pages, Site, WORKER, is_of};

const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const SERVICE_WORKER_ALLOWED: HeaderName = HeaderName::from_static("service-worker-allowed");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");
/// What no page needs. One that waits may keep the screen on.
const PERMISSIONS: HeaderValue = HeaderValue::from_static(
    "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), screen-wake-lock=(self), usb=()",
);
/// The console reads the codes of tickets with a camera.
const PERMISSIONS_OF_CONSOLE: HeaderValue = HeaderValue::from_static(
    "camera=(self), display-capture=(), geolocation=(), microphone=(), payment=(), screen-wake-lock=(self), usb=()",
);

/// Whoever has a document looks for a newer one after a minute, and does without where there is none to be
/// had: what it says is the same for everybody and changes with the program only.
const KEPT_A_MINUTE: HeaderValue =
    HeaderValue::from_static("public, max-age=60, stale-if-error=86400");
/// An address with a hash never means anything else.
const KEPT_FOR_GOOD: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// What is to be asked for each time: it may be another one already.
const ASKED_FOR: HeaderValue = HeaderValue::from_static("no-cache");

/// The document of the console, whichever section it is asked for.
const CONSOLE: &str = "ops/index.html";

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted<'p> {
    /// The endpoint that has it.
    pub(super) route: Route,
    /// The file of a document, or the address of an asset behind [`ASSETS`].
    name: &'p str,
}

/// What a path leads to; none where it is not that of a page. Whether there is such a concert is for the
/// page to find out: it is the same for all.
pub(super) fn find(path: &str) -> Option<Wanted<'_>> {
    if let Some(name) = path.strip_prefix(ASSETS) {
        return Some(Wanted { route: Route::PageAsset, name });
    }
    let has = |route: Route, prefix: &str, is_there: fn(&str, &str) -> bool| {
        path.starts_with(prefix) && is_there(path, route.template())
    };
    let (route, name) = match path {
        "/" => (Route::PageStart, "fan/index.html"),
        "/me" => (Route::PageMe, "fan/me.html"),
        "/ops" => (Route::PageOps, CONSOLE),
        "/ops/login" => (Route::PageOpsLogin, "ops/login.html"),
        _ if has(Route::PageConcert, "/c/", path_is_of::<ConcertId>) => {
            (Route::PageConcert, "fan/concert.html")
        }
        _ if has(Route::PageSeats, "/c/", path_is_of::<(ConcertId, SessionId)>) => {
            (Route::PageSeats, "fan/seats.html")
        }
        _ if has(Route::PagePay, "/pay/", path_is_of::<ReservationId>) => {
            (Route::PagePay, "fan/pay.html")
        }
        _ if has(Route::PageTicket, "/t/", path_is_of::<ReservationId>) => {
            (Route::PageTicket, "fan/ticket.html")
        }
        _ if path.strip_prefix("/ops/").is_some_and(is_section) => (Route::PageOpsSection, CONSOLE),
        _ => {
            QueueName::new(path.strip_prefix("/wait/")?)?;
            (Route::PageWait, "wait/index.html")
        }
    };
    Some(Wanted { route, name })
}

/// Whether the console has this section. Which one it shows it reads from its address.
fn is_section(section: &str) -> bool {
    const SECTIONS: [&str; 8] =
        ["queues", "sales", "concerts", "orders", "log", "audit", "operators", "tickets"];
    match section.split_once('/') {
        None => SECTIONS.contains(&section),
        Some(("queues", queue)) => QueueName::new(queue).is_some(),
        Some(("concerts", id)) => ConcertId::parse(id).is_some(),
        Some(("orders", id)) => ReservationId::parse(id).is_some(),
        Some(_) => false,
    }
}

fn path_is_of<T: Ids>(path: &str, template: &str) -> bool {
    PathIds::<T>::of(path, template).is_some()
}

/// Adds the endpoints of the pages to a router.
pub(super) fn routes(router: Router<HttpState>, observer: &Observer) -> Router<HttpState> {
    Route::PAGES.into_iter().fold(router, |router, route| {
        router.route(route.template(), on(MethodFilter::GET, observer.handler(route, show)))
    })
}

async fn show(
    State(HttpState { web, .. }): State<HttpState>,
    uri: Uri,
    asked: Asked,
) -> Result<Response<Body>, Problem> {
    let unknown = || Problem::new(ErrorCode::RouteNotFound);
    let wanted = find(uri.path()).ok_or_else(unknown)?;
    let answered = match web.pages.as_ref().ok_or_else(unknown)? {
        Pages::Built(site) => answer(site, wanted, &asked),
        Pages::Directory { from, told } => {
            let (from, told) = (from.clone(), told.clone());
            let read = tokio::task::spawn_blocking(move || Site::read(&from, &told)).await;
            let site = read.map_err(Problem::internal)?.map_err(Problem::internal)?;
            answer(&site, wanted, &asked).map(|mut response| {
                response.headers_mut().insert(CACHE_CONTROL, ASKED_FOR);
                response
            })
        }
    };
    answered.map(|response| response.map(Body::new))
}

/// The answer to who asks for a part of a site.
pub(super) fn answer(
    site: &Site,
    wanted: Wanted<'_>,
    asked: &Asked,
) -> Result<Response<Full<Bytes>>, Problem> {
    let found = match wanted.route {
        Route::PageAsset => site.asset(wanted.name).map(|(served, is_current)| {
            (served, if is_current { KEPT_FOR_GOOD } else { ASKED_FOR })
        }),
        _ => site.document(wanted.name).map(|served| (served, KEPT_A_MINUTE)),
    };
    let (served, kept) = found.ok_or_else(|| Problem::new(ErrorCode::RouteNotFound))?;
    let tag = match asked.coding {
        Coding::Identity => format!("\"{}\"", served.hash()),
        Coding::Gzip => format!("\"{}-gzip\"", served.hash()),
    };
    let mut response = Response::new(Full::default());
    let is_known = asked.has(&tag);
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = Full::new(match asked.coding {
            Coding::Identity => served.body.clone(),
            Coding::Gzip => served.gzip(),
        });
    }
    let headers = response.headers_mut();
    if !is_known {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(served.media_type));
        if let Coding::Gzip = asked.coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }
    headers.insert(CACHE_CONTROL, kept);
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    // Hexadecimal digits are no control characters.
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, SAME_ORIGIN);
    if let Route::PageAsset = wanted.route
        && is_of(wanted.name, WORKER)
    {
        // It is not below the pages that it is for.
        headers.insert(SERVICE_WORKER_ALLOWED, HeaderValue::from_static("/t/"));
    }
    if let Some(policy) = &served.policy {
        headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
        headers.insert(CROSS_ORIGIN_OPENER_POLICY, SAME_ORIGIN);
        let permissions = match wanted.route {
            Route::PageOps | Route::PageOpsSection => PERMISSIONS_OF_CONSOLE,
            _ => PERMISSIONS,
        };
        headers.insert(PERMISSIONS_POLICY, permissions);
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    Ok(response)
}
