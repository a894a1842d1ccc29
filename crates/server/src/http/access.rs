//! Who may use the admin API, and what is written down of what they change.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRef, FromRequest, FromRequestParts, MatchedPath, Path, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Response, StatusCode};
use boxoffice_backends::store::{Acted, Effect, Note};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::client::ClientAddress;
use super::describe::{Described, Description};
use super::extract::{
    ApiJson, BodyLimits, IdempotencyKey, parse_json, read_json_body, single_header,
};
use super::problem::{ErrorCode, Problem};
use super::reply::{fault, json_bytes};
use super::state::HttpState;
use crate::app::App;
use crate::endpoints::Route;
use crate::operators::Operator;

/// What tokens of operators are called among the security schemes of the API's description.
pub(super) const ADMIN_SCHEME: &str = "adminToken";

/// The bearer token of a request.
///
/// # Errors
/// 400 where the header comes twice or is not readable.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = single_header(headers, &AUTHORIZATION)? else { return Ok(None) };
    Ok(value
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim()))
}

/// An operator who may do what the endpoint does. Who is removed meanwhile ends what they began.
pub(super) struct Access {
    who: Operator,
    from: IpAddr,
}

impl FromRequestParts<HttpState> for Access {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let Some(token) = bearer(&parts.headers)? else {
            return Err(Problem::new(ErrorCode::AdminTokenMissing));
        };
        let found = state.app.operators.find(token).map_err(|cause| fault(&cause))?;
        let who = found.ok_or_else(|| Problem::new(ErrorCode::AdminTokenInvalid))?;
        let needed = route_of(parts).and_then(Route::role);
        // An endpoint that is not in the list lets nobody in.
        let needed = needed.ok_or_else(|| Problem::internal("an endpoint without a role"))?;
        if !who.role.may(needed) {
            let detail = format!("this needs the role {needed}; {} is {}", who.name, who.role);
            return Err(Problem::new(ErrorCode::RoleRequired).detail(detail));
        }
        Ok(Self { who, from: ClientAddress::within(parts).address })
    }
}

/// The endpoint that the router found.
fn route_of(parts: &Parts) -> Option<Route> {
    let template = parts.extensions.get::<MatchedPath>()?;
    let method = if parts.method == Method::HEAD { &Method::GET } else { &parts.method };
    Route::find(method.as_str(), template.as_str())
}

impl Described for Access {
    fn describe(description: &mut Description) {
        description.secured(ADMIN_SCHEME);
        description.errors(&[
            ErrorCode::DuplicateHeader,
            ErrorCode::AdminTokenMissing,
            ErrorCode::AdminTokenInvalid,
            ErrorCode::RoleRequired,
            ErrorCode::StoreUnavailable,
        ]);
    }
}

impl Access {
    /// What is to be written down of what they do now.
    pub(super) fn note(&self, app: &App, operation: &'static str) -> Note {
        Note {
            at: app.clock.now(),
            who: self.who.name.as_ref().to_owned(),
            role: self.who.role,
            origin: self.from.to_canonical().to_string(),
            operation,
            key: None,
            answer: Arc::new(|_| String::new()),
        }
    }

    /// The same for what is created, which is answered the same again under the same key.
    pub(super) fn creation<T>(
        &self,
        app: &App,
        operation: &'static str,
        key: Option<IdempotencyKey>,
        asked: &Asked<T>,
        answer: impl Fn(&Effect) -> String + Send + Sync + 'static,
    ) -> Note {
        let key = key.map(|key| (key.as_str().to_owned(), asked.digest));
        Note { key, answer: Arc::new(answer), ..self.note(app, operation) }
    }
}

/// The answer to what was created, now or before.
pub(super) fn created(acted: Acted, answer: impl Fn(&Effect) -> String) -> Response<Body> {
    let body = match acted {
        Acted::Now(effect) => answer(&effect),
        Acted::Before(body) => body,
    };
    json_bytes(StatusCode::CREATED, body.into_bytes())
}

/// A JSON body, with a digest of the whole request: where it goes and what it says, however that is
/// spaced and ordered.
pub(super) struct Asked<T> {
    /// What it says.
    pub(super) body: T,
    digest: [u8; 32],
}

impl<T, S> FromRequest<S> for Asked<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
    BodyLimits: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let limits = BodyLimits::from_ref(state);
        Self::read(request, limits, limits.max_bytes).await
    }
}

impl<T: DeserializeOwned> Asked<T> {
    /// Reads a request. Of what is longer than `plain_bytes` the bytes themselves are what it says: to sort
    /// them would take many times their room.
    async fn read(
        request: Request,
        limits: BodyLimits,
        plain_bytes: usize,
    ) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let client = ClientAddress::within(&parts);
        let bytes = read_json_body(&parts.headers, body, limits, client).await?;
        let body = parse_json(&bytes)?;
        let digest =
            Sha256::new().chain_update(parts.method.as_str()).chain_update(parts.uri.path());
        let digest = if bytes.len() <= plain_bytes {
            let canonical: serde_json::Value = parse_json(&bytes)?;
            digest.chain_update(canonical.to_string())
        } else {
            digest.chain_update(&bytes)
        };
        Ok(Self { body, digest: digest.finalize().into() })
    }
}

/// The same, where the body may hold the plan of a hall.
pub(super) struct AskedAtLength<T>(pub(super) Asked<T>);

impl<T: DeserializeOwned + Send> FromRequest<HttpState> for AskedAtLength<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &HttpState) -> Result<Self, Problem> {
        let usual = state.web.body;
        let max_bytes = usual.max_bytes.max(state.app.config.server.max_plan_bytes);
        let limits = BodyLimits { max_bytes, ..usual };
        Asked::read(request, limits, usual.max_bytes).await.map(Self)
    }
}

impl<T: ToSchema> Described for AskedAtLength<T> {
    fn describe(description: &mut Description) {
        ApiJson::<T>::describe(description);
    }
}

impl<T: ToSchema> Described for Asked<T> {
    fn describe(description: &mut Description) {
        ApiJson::<T>::describe(description);
    }
}

/// The only path parameter of a route, the name of an operator.
pub(super) struct PathOperator(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathOperator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(Problem::new(ErrorCode::OperatorNotFound)),
        }
    }
}

impl Described for PathOperator {
    fn describe(description: &mut Description) {
        description.path_operator();
        description.errors(&[ErrorCode::OperatorNotFound]);
    }
}
