//! Who may use the admin API, and what is written down of what they change.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRef, FromRequest, FromRequestParts, MatchedPath, Path, Request};
use axum::http::header::{AUTHORIZATION, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, Response, StatusCode};
use boxoffice_backends::Fault;
use boxoffice_backends::store::{Acted, Condition, Effect, Note};
use boxoffice_domain::time::Timestamp;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::client::ClientAddress;
use super::cross_site;
use super::describe::{Described, Description};
use super::extract::{
    ApiJson, BodyLimits, IdempotencyKey, cookies, parse_json, read_json_body, single_header,
};
use super::problem::{ErrorCode, Problem};
use super::reply::{fault, json_bytes};
use super::state::HttpState;
use crate::app::App;
use crate::console::Session;
use crate::endpoints::Route;
use crate::operators::{Operator, Operators, digest};

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

/// The cookie of the console: only for this host, over TLS or on this machine, and never sent along by pages of
/// others.
pub(super) const SESSION_COOKIE: &str = "__Host-boxoffice-ops";

/// By what somebody is known as an operator: a token, sent as it is or in a cookie.
#[derive(Clone, Copy)]
pub(super) struct Credential {
    digest: [u8; 32],
    /// Until when the cookie is good; a token by itself has no end.
    pub(super) until: Option<Timestamp>,
}

impl Credential {
    /// Whose it is; none where it is nobody's any more.
    ///
    /// # Errors
    /// As [`Operators::find`].
    pub(super) fn holder(
        &self,
        operators: &Operators,
        now: Timestamp,
    ) -> Result<Option<Operator>, Fault> {
        if self.until.is_some_and(|until| until <= now) {
            return Ok(None);
        }
        operators.find_digested(&self.digest)
    }
}

/// An operator who may do what the endpoint does. Who is removed meanwhile ends what they began.
pub(super) struct Access {
    /// Who.
    pub(super) who: Operator,
    /// By what they are known.
    pub(super) by: Credential,
    /// Why they do it, where they say so.
    reason: Option<String>,
    from: IpAddr,
}

const X_REASON: HeaderName = HeaderName::from_static("x-reason");
/// The longest reason, in characters.
const REASON_MAX: usize = 200;

/// What a reason looks like: visible ASCII and spaces, and characters that are no control characters as the bytes of
/// their UTF-8.
const REASON_PATTERN: &str = concat!(
    "^([ -$&-~]|%[2-6][0-9A-Fa-f]|%7[0-9A-Ea-e]",
    // Two, three and four bytes, each in its shortest form and none of a surrogate.
    "|%[Cc]2%[ABab][0-9A-Fa-f]|%([Cc][3-9A-Fa-f]|[Dd][0-9A-Fa-f])%[89ABab][0-9A-Fa-f]",
    "|%[Ee]0%[ABab][0-9A-Fa-f]%[89ABab][0-9A-Fa-f]",
    "|%[Ee][Dd]%[89][0-9A-Fa-f]%[89ABab][0-9A-Fa-f]",
    "|%[Ee][1-9A-CEFa-cef](%[89ABab][0-9A-Fa-f]){2}",
    "|%[Ff]0%[9ABab][0-9A-Fa-f](%[89ABab][0-9A-Fa-f]){2}",
    "|%[Ff][1-3](%[89ABab][0-9A-Fa-f]){3}",
    "|%[Ff]4%8[0-9A-Fa-f](%[89ABab][0-9A-Fa-f]){2}",
    "){0,200}$",
);

/// Why an operator does something. Headers are ASCII, so it is percent-encoded UTF-8.
fn reason(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = single_header(headers, &X_REASON)? else { return Ok(None) };
    let is_coded = |part: &str| {
        let code = part.as_bytes().first_chunk::<2>();
        code.is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit))
    };
    let text = percent_decode_str(value).decode_utf8().ok();
    let text = text.filter(|_| value.split('%').skip(1).all(is_coded));
    let fits =
        |text: &str| text.chars().count() <= REASON_MAX && !text.chars().any(char::is_control);
    let text = text.filter(|text| fits(text)).ok_or_else(|| {
        Problem::new(ErrorCode::InvalidHeader).detail(format!(
            "X-Reason must be at most {REASON_MAX} characters as percent-encoded UTF-8, without control \
             characters"
        ))
    })?;
    let text = text.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

impl FromRequestParts<HttpState> for Access {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let HttpState { app, web } = state;
        let now = app.clock.now();
        let (by, unknown) = match bearer(&parts.headers)? {
            Some(token) => {
                let by = Credential { digest: digest(token), until: None };
                (by, ErrorCode::AdminTokenInvalid)
            }
            None => {
                let cookie = cookies(&parts.headers, SESSION_COOKIE)
                    .find_map(|cookie| std::str::from_utf8(cookie).ok())
                    .ok_or_else(|| Problem::new(ErrorCode::AdminTokenMissing))?;
                cross_site::check(&parts.method, &parts.headers, None)?;
                let unknown = ErrorCode::AdminSessionOver;
                let session =
                    web.sessions.read(cookie, now).ok_or_else(|| Problem::new(unknown))?;
                let Session { digest, until } = session;
                (Credential { digest, until: Some(until) }, unknown)
            }
        };
        let found = by.holder(&app.operators, now).map_err(|cause| fault(&cause))?;
        let who = found.ok_or_else(|| Problem::new(unknown))?;
        let needed = route_of(parts).and_then(Route::role);
        // An endpoint that is not in the list lets nobody in.
        let needed = needed.ok_or_else(|| Problem::internal("an endpoint without a role"))?;
        if !who.role.may(needed) {
            let detail = format!("this needs the role {needed}; {} is {}", who.name, who.role);
            return Err(Problem::new(ErrorCode::RoleRequired).detail(detail));
        }
        let reason = reason(&parts.headers)?;
        Ok(Self { who, by, reason, from: ClientAddress::within(parts).address })
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
        let reason = "Why, for the log: at most 200 characters as percent-encoded UTF-8";
        description.header("X-Reason", reason, Some(REASON_PATTERN));
        description.errors(&[
            ErrorCode::DuplicateHeader,
            ErrorCode::InvalidHeader,
            ErrorCode::AdminTokenMissing,
            ErrorCode::AdminTokenInvalid,
            ErrorCode::AdminSessionOver,
            ErrorCode::CrossSite,
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
            reason: self.reason.clone(),
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
        Acted::Now(effect, _) => answer(&effect),
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

/// `If-Match`: what the settings of a queue have to be. `*` or none leaves it open. Tags are compared as they are, so a weak
/// one matches nothing.
pub(super) struct IfMatch(pub(super) Condition);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(match single_header(&parts.headers, &IF_MATCH)? {
            None | Some("*") => Condition::Any,
            Some(tag) => {
                let bare = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
                Condition::Tagged(bare.unwrap_or_default().to_owned())
            }
        }))
    }
}

impl Described for IfMatch {
    fn describe(description: &mut Description) {
        let matching = "The ETag of the settings that the change is meant for";
        description.header("If-Match", matching, None);
        description.errors(&[ErrorCode::DuplicateHeader, ErrorCode::ChangedMeanwhile]);
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
