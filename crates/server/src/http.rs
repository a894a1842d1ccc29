//! The HTTP side: the listener, what wraps every request, and the handlers.
//!
//! A handler parses, calls one operation, and maps the answer. Rules are in `boxoffice-domain`,
//! what is stored in `boxoffice-backends`.

mod admin;
mod auth;
mod client;
mod concerts;
pub mod extract;
mod front;
mod idempotency;
pub mod listener;
pub mod observe;
pub mod openapi;
mod ops;
mod payments;
mod points;
pub mod problem;
mod queue;
pub mod rate_limit;
mod reply;
pub mod request_id;
mod reservations;
pub mod route;
pub mod seat_list;

pub use admin::{IssuedTokens, TokenIssue};

use axum::Router;
use axum::handler::Handler;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use utoipa_swagger_ui::{self as swagger_ui, SwaggerUi};

use crate::app::AppState;
use observe::{Observer, method_not_allowed, not_found};
use route::Route;

pub use front::Front;

/// Every endpoint, wrapped.
fn router(app: AppState, observer: &Observer) -> Router {
    let mut router = Router::new();
    for route in Route::ALL {
        if let Some(methods) = endpoint(observer, *route) {
            router = router.route(route.template(), methods);
        }
    }
    // Swagger UI brings its own routes, and its own idea of what it answers for a file it has not.
    let swagger = SwaggerUi::new("/swagger-ui").config(swagger_ui::Config::from("/openapi.json"));
    let swagger = Router::from(swagger)
        .route_layer(map_response(swagger_answer))
        .route_layer(observer.layer(Route::SwaggerUi));
    router
        .with_state(app)
        .merge(swagger)
        .fallback(observer.handler(Route::NotFound, not_found))
        .method_not_allowed_fallback(observer.handler(Route::MethodNotAllowed, method_not_allowed))
}

async fn swagger_answer(response: Response) -> Response {
    if response.status().is_client_error() { not_found().await.into_response() } else { response }
}

/// The handler of an endpoint; none for those that are served elsewhere.
fn endpoint(observer: &Observer, route: Route) -> Option<MethodRouter<AppState>> {
    fn wrap<T: 'static>(
        observer: &Observer,
        route: Route,
        handler: impl Handler<T, AppState, Future: Unpin>,
    ) -> Option<MethodRouter<AppState>> {
        let method = match route.method() {
            "GET" => MethodFilter::GET,
            "POST" => MethodFilter::POST,
            "PATCH" => MethodFilter::PATCH,
            "DELETE" => MethodFilter::DELETE,
            other => unreachable!("no endpoint has the method {other}"),
        };
        Some(on(method, observer.handler(route, handler)))
    }
    match route {
        Route::QueueJoin => wrap(observer, route, queue::join),
        Route::QueueStatus => wrap(observer, route, queue::status),
        Route::QueueLeave => wrap(observer, route, queue::leave),
        Route::QueuePublic => wrap(observer, route, queue::document),
        Route::ConcertList => wrap(observer, route, concerts::list),
        Route::SessionList => wrap(observer, route, concerts::sessions),
        Route::SeatList => wrap(observer, route, concerts::seats),
        Route::ReservationCreate => wrap(observer, route, reservations::create),
        Route::ReservationGet => wrap(observer, route, reservations::show),
        Route::ReservationCancel => wrap(observer, route, reservations::cancel),
        Route::PaymentCreate => wrap(observer, route, payments::create),
        Route::PointsCharge => wrap(observer, route, points::charge),
        Route::PointsChargeByPost => wrap(observer, route, points::charge_by_post),
        Route::PointsBalance => wrap(observer, route, points::balance),
        Route::HealthLive => wrap(observer, route, ops::live),
        Route::HealthReady => wrap(observer, route, ops::ready),
        Route::Metrics => wrap(observer, route, ops::metrics),
        Route::MetricsActuator => wrap(observer, route, ops::metrics_actuator),
        Route::ErrorList => wrap(observer, route, ops::errors),
        Route::AdminQueueList => wrap(observer, route, admin::queues),
        Route::AdminQueueCreate => wrap(observer, route, admin::create_queue),
        Route::AdminQueueChange => wrap(observer, route, admin::change_queue),
        Route::AdminQueuePause => wrap(observer, route, admin::pause),
        Route::AdminQueueResume => wrap(observer, route, admin::resume),
        Route::AdminTokenIssue => wrap(observer, route, admin::issue_tokens),
        Route::AdminConcertCreate => wrap(observer, route, admin::create_concert),
        Route::AdminSessionCreate => wrap(observer, route, admin::create_session),
        Route::AdminSeatCreate => wrap(observer, route, admin::create_seats),
        Route::AdminAudit => wrap(observer, route, admin::run_audit),
        Route::OpenApi => wrap(observer, route, ops::openapi),
        Route::SwaggerUi | Route::NotFound | Route::MethodNotAllowed => None,
    }
}
