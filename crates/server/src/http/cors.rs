//! Which web pages may read answers: those of `server.cors_origins`, and never what is for operators.
//!
//! Pages send tickets and tokens in headers, so browsers need not be told to send cookies along, and
//! are not: who has signed in on the pages of this service has signed in on no others.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

/// What begins the paths that are for operators, and for the fan's own pages.
const OTHERS: [&str; 5] = ["/admin", "/ops", "/metrics", "/actuator", "/auth/"];

/// The methods and headers of the API, the headers of its answers that pages need, and how long a
/// browser may remember that, in seconds.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PATCH, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, QUEUE-TOKEN, Traceparent, X-Request-Id",
);
const EXPOSED: HeaderValue = HeaderValue::from_static("ETag, Location, Retry-After, X-Request-Id");
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins whose pages may read answers.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Vec<HeaderValue>,
}

/// How an answer is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shared {
    /// With whom; an answer to another is not.
    origin: Option<HeaderValue>,
}

impl Cors {
    /// None where no page may read anything.
    pub(super) fn new(origins: &[String]) -> Option<Self> {
        // Those that are no header values are refused with the configuration.
        let origins: Vec<HeaderValue> =
            origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
        (!origins.is_empty()).then_some(Self { origins })
    }

    /// How the answer to a request is shared; none where it is for operators or
    /// for the fan's own pages.
    pub(super) fn share<B>(&self, request: &Request<B>) -> Option<Shared> {
        let path = request.uri().path();
        if OTHERS.iter().any(|prefix| path.starts_with(prefix)) {
            return None;
        }
        let mut origins = request.headers().get_all(ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (Some(origin), None) => self.origins.iter().find(|listed| *listed == origin),
            _ => None,
        };
        Some(Shared { origin: origin.cloned() })
    }
}

impl Shared {
    /// Whether this is a browser's question what it may ask for a page that may.
    pub(super) fn is_preflight<B>(&self, request: &Request<B>) -> bool {
        self.origin.is_some()
            && *request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Says so in an answer.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        if let Some(origin) = self.origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        let vary = match headers.get(VARY).and_then(|vary| vary.to_str().ok()) {
            Some(vary) => HeaderValue::try_from(format!("{vary}, origin")).ok(),
            None => None,
        };
        headers.insert(VARY, vary.unwrap_or(HeaderValue::from_static("origin")));
    }
}

/// The answer to a preflight.
pub(super) fn preflight<B: Default>() -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}
