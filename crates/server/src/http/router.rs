//! The router: every endpoint of the list at its place, and what answers where there is none.

use axum::Router;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use utoipa_swagger_ui::{self as swagger_ui, SwaggerUi};

use super::observe::{Observer, method_not_allowed, not_found};
use super::state::HttpState;
use super::{
    admin, calling_off, concerts, openapi, ops, payments, points, queue, refunds, reservations,
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
    route_all(observer)
        .with_state(state)
        .merge(swagger)
        .fallback(observer.handler(Route::NotFound, not_found))
        .method_not_allowed_fallback(observer.handler(Route::MethodNotAllowed, method_not_allowed))
}

async fn swagger_answer(response: Response) -> Response {
    if response.status().is_client_error() { not_found().await.into_response() } else { response }
}
