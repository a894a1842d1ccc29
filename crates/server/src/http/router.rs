//! The router: every endpoint of the list at its place, and what answers where there is none.

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_FRAME_OPTIONS};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use utoipa_swagger_ui::{self as swagger_ui, SwaggerUi};

use super::observe::{Observer, method_not_allowed, not_found};
use super::state::HttpState;
use super::{
    admin, admission_log, calling_off, concert_tickets, concerts, console, gate, keys, lists, live,
    openapi, operators, ops, pages, payments, plans, points, queue, refunds, reservations, sign_in,
};
use crate::endpoints::{Route, endpoints};

macro_rules! route_all {
    ($(
        $(#[$meta:meta])*
        $name:ident = $method:ident $template:literal $class:ident {
            $(handler: $handler:path, $($described:tt)*)?
        }
    )+) => {
        /// Every endpoint that has a handler, wrapped.
        fn route_all(observer: &Observer) -> Router<HttpState> {
            Router::new()
                $($(.route(
                    $template,
                    on(MethodFilter::$method, observer.handler(Route::$name, $handler)),
                ))?)+
        }
    };
}

endpoints!(route_all);

/// Every endpoint, wrapped.
pub(super) fn router(state: HttpState, observer: &Observer) -> Router {
    // Swagger UI brings its own routes, and its own idea of what it answers for a file it has not.
    let swagger = SwaggerUi::new("/swagger-ui").config(swagger_ui::Config::from("/openapi.json"));
    let swagger = Router::from(swagger)
        .route_layer(map_response(swagger_answer))
        .route_layer(observer.layer(Route::SwaggerUi));
    let routes = sign_in::routes(route_all(observer), observer);
    let routes = match &state.web.pages {
        Some(_) => pages::routes(routes, observer),
        None => routes,
    };
    routes
        .with_state(state)
        .merge(swagger)
        .fallback(observer.handler(Route::NotFound, not_found))
        .method_not_allowed_fallback(observer.handler(Route::MethodNotAllowed, method_not_allowed))
}

/// What the pages of Swagger UI may do: show what comes from here, and ask here. It styles elements by
/// itself, and has its icons in its style sheet.
const SWAGGER: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

async fn swagger_answer(mut response: Response) -> Response {
    if response.status().is_client_error() {
        return not_found().await.into_response();
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, SWAGGER);
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
