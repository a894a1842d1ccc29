//! Signing in on the fan's pages, as browsers see it: they are sent to the issuer and come back, and what they
//! keep is a cookie. Nobody who is on that way is shown an error of the API: a page says what went wrong.
//!
//! What does not belong here: how the issuer is asked, and what is in the cookies (`crate::sign_in`).

use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, SET_COOKIE, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use axum::middleware::map_response;
use axum::routing::{MethodFilter, on};
use boxoffice_backends::events::rfc3339;
use boxoffice_domain::ids::UserId;
use boxoffice_domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::cross_site;
use super::describe::{Described, Description};
use super::extract::cookies;
use super::gate::is_plain_path;
use super::observe::Observer;
use super::problem::{ErrorCode, Problem};
use super::reply::json;
use super::state::{HttpState, Web};
use crate::app::AppState;
use crate::endpoints::Route;
use crate::sign_in::{Identity, LOGIN_SECONDS, Login, Refused, SignIn};

/// The cookie of somebody who is signed in. A browser takes it from this host alone, and by TLS.
pub(super) const IDENTITY_COOKIE: &str = "__Host-boxoffice";
/// The cookie of somebody who was sent to the issuer.
const LOGIN_COOKIE: &str = "__Host-boxoffice-login";
/// So many cookies of one name are tried.
const TRIED_MAX: usize = 4;
/// The longest path to come back to, in bytes: it is in a cookie meanwhile.
const BACK_BYTES_MAX: usize = 1_024;

/// How it went wrong, as pages are told.
#[derive(Clone, Copy)]
enum Failure {
    /// The issuer cannot be asked at the moment.
    Away,
    /// The fan, or the issuer, did not want to.
    Denied,
    /// The browser has no cookie of it: it took too long, or cookies are blocked.
    Late,
    /// Anything else, which another try may mend.
    Failed,
}

impl Failure {
    const fn word(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Denied => "denied",
            Self::Late => "late",
            Self::Failed => "failed",
        }
    }
}

/// Somebody who is signed in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Me {
    /// What to call them; empty where the issuer does not say.
    name: String,
    /// Their id here.
    #[schema(schema_with = super::schema::id_out)]
    user_id: i64,
    /// When they have to sign in again.
    #[schema(format = DateTime)]
    until: String,
}

/// Who is signed in, by the cookies of a request.
///
/// # Errors
/// 401 where nobody is.
fn identity(
    sign_in: &SignIn,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<(UserId, Identity), Problem> {
    let mut refusal = Problem::new(ErrorCode::PersonTokenMissing);
    for cookie in cookies(headers, IDENTITY_COOKIE).take(TRIED_MAX) {
        let found = sign_in.cookies().open::<Identity>(cookie, now);
        if let Some((user, identity)) = found.and_then(|it| Some((it.user()?, it))) {
            return Ok((user, identity));
        }
        refusal = Problem::new(ErrorCode::PersonTokenInvalid)
            .detail("the sign-in is over, or was not made here; sign in again");
    }
    Err(refusal)
}

/// Who asks by a cookie: for what changes anything, on a page of ours.
///
/// # Errors
/// 401 where nobody is signed in, 403 where a page of another site asks.
pub(super) fn person(
    sign_in: &SignIn,
    method: &Method,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<UserId, Problem> {
    let (user, _) = identity(sign_in, headers, now)?;
    cross_site::check(method, headers, Some(sign_in.origin()))?;
    Ok(user)
}

/// The sign-in that is set up here.
fn set_up(app: &AppState) -> Result<&SignIn, Problem> {
    app.sign_in.as_ref().ok_or_else(|| Problem::new(ErrorCode::RouteNotFound))
}

/// Adds the endpoints that browsers are sent through to a router.
pub(super) fn routes(router: Router<HttpState>, observer: &Observer) -> Router<HttpState> {
    let login = on(MethodFilter::GET, observer.handler(Route::AuthLogin, login));
    let callback = on(MethodFilter::GET, observer.handler(Route::AuthCallback, callback));
    router
        .route(Route::AuthLogin.template(), login.layer(map_response(for_people)))
        .route(Route::AuthCallback.template(), callback.layer(map_response(for_people)))
}

/// Has a page say what went wrong, in place of an error of the API.
async fn for_people(response: Response<Body>) -> Response<Body> {
    let failure = match response.status() {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return response,
        status if status.is_server_error() => Failure::Away,
        status if status.is_client_error() => Failure::Failed,
        _ => return response,
    };
    let mut told = failed("/", failure);
    for (name, value) in response.headers() {
        if name.as_str().starts_with("x-") || [CACHE_CONTROL, VARY].contains(name) {
            told.headers_mut().insert(name, value.clone());
        }
    }
    told
}

/// What a browser asks for to sign in.
#[derive(Deserialize)]
pub(super) struct Begin {
    /// The path to come back to.
    #[serde(rename = "return")]
    back: Option<String>,
    /// `login` where the issuer is to ask who it is, whoever was signed in there.
    prompt: Option<String>,
}

async fn login(
    State(HttpState { app, web }): State<HttpState>,
    asked: Result<Query<Begin>, QueryRejection>,
) -> Result<Response<Body>, Problem> {
    let sign_in = set_up(&app)?;
    let (back, prompt) = asked.map_or((None, None), |Query(it)| (it.back, it.prompt));
    let back = own_path(back.as_deref());
    let begun = sign_in.begin(back, prompt.as_deref() == Some("login"), app.clock.now()).await;
    let (address, login) = match begun {
        Ok(begun) => begun,
        Err(why) => return Ok(refused(&web, back, &why)),
    };
    let mut response = sent_to(&address);
    set_cookie(&mut response, LOGIN_COOKIE, &sign_in.cookies().seal(&login), LOGIN_SECONDS);
    Ok(response)
}

/// What the issuer sends a browser back with.
#[derive(Deserialize)]
pub(super) struct Callback {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

async fn callback(
    State(HttpState { app, web }): State<HttpState>,
    headers: HeaderMap,
    asked: Result<Query<Callback>, QueryRejection>,
) -> Result<Response<Body>, Problem> {
    let sign_in = set_up(&app)?;
    let now = app.clock.now();
    let mut sent = cookies(&headers, LOGIN_COOKIE).take(TRIED_MAX);
    let login = sent.find_map(|cookie| sign_in.cookies().open::<Login>(cookie, now));
    let mut response = match (login, asked) {
        (None, _) => failed("/", Failure::Late),
        (Some(login), Err(_)) => failed(&login.back, Failure::Failed),
        (Some(login), Ok(Query(came))) => came_back(&app, &web, sign_in, &login, came, now).await,
    };
    // It is good for one try.
    set_cookie(&mut response, LOGIN_COOKIE, "", 0);
    Ok(response)
}

/// The answer to a browser that was sent to the issuer and is back.
async fn came_back(
    app: &AppState,
    web: &Web,
    sign_in: &SignIn,
    login: &Login,
    came: Callback,
    now: Timestamp,
) -> Response<Body> {
    let back = &login.back;
    // Anything else was not asked for by this browser.
    if came.state.as_deref() != Some(login.state.as_str()) {
        return failed(back, Failure::Failed);
    }
    let code = match (came.error.as_deref(), came.code) {
        (None, Some(code)) => code,
        (Some("access_denied"), _) => return failed(back, Failure::Denied),
        (Some("temporarily_unavailable" | "server_error"), _) => {
            return failed(back, Failure::Away);
        }
        (error, _) => {
            let error = error.unwrap_or("neither a code nor an error");
            let shown: String = error.chars().filter(char::is_ascii_graphic).take(64).collect();
            return refused(web, back, &Refused::Wrong(shown));
        }
    };
    // `People` is there where people can sign in.
    let Some(people) = &app.people else { return failed(back, Failure::Failed) };
    match sign_in.finish(people, &code, came.iss.as_deref(), login, now).await {
        Ok(identity) => {
            let mut response = sent_to(back);
            let seconds = (identity.until - now.0) / 1_000;
            set_cookie(&mut response, IDENTITY_COOKIE, &sign_in.cookies().seal(&identity), seconds);
            response
        }
        Err(why) => refused(web, back, &why),
    }
}

/// Somebody whose browser is here on its own.
pub(super) struct OwnPage;

impl FromRequestParts<HttpState> for OwnPage {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let own = set_up(state.app())?.origin();
        cross_site::check(&parts.method, &parts.headers, Some(own))?;
        Ok(Self)
    }
}

impl Described for OwnPage {
    fn describe(description: &mut Description) {
        let site = "What browsers say of the page that asks: `same-origin`";
        description.header("Sec-Fetch-Site", site, None);
        description.header("Origin", "The same, of those that do not say so", None);
        description.errors(&[
            ErrorCode::DuplicateHeader,
            ErrorCode::RouteNotFound,
            ErrorCode::CrossSite,
        ]);
    }
}

/// Whoever has the cookie is signed out in this browser; the issuer is not told.
pub(super) async fn logout(_: OwnPage) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    set_cookie(&mut response, IDENTITY_COOKIE, "", 0);
    response
}

/// Somebody who is signed in.
pub(super) struct SignedIn(UserId, Identity);

impl FromRequestParts<HttpState> for SignedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let app = state.app();
        let (user, identity) = identity(set_up(app)?, &parts.headers, app.clock.now())?;
        Ok(Self(user, identity))
    }
}

impl Described for SignedIn {
    fn describe(description: &mut Description) {
        description.cookie(IDENTITY_COOKIE, "Who is signed in");
        description.errors(&[
            ErrorCode::RouteNotFound,
            ErrorCode::PersonTokenMissing,
            ErrorCode::PersonTokenInvalid,
        ]);
    }
}

pub(super) async fn me(SignedIn(user, identity): SignedIn) -> Response<Body> {
    let Identity { name, until, .. } = identity;
    let me = Me { name, user_id: user.get(), until: rfc3339(Timestamp(until)) };
    json(StatusCode::OK, &me)
}

/// The path to come back to: what was asked for, if it is a path of ours and nothing else.
fn own_path(asked: Option<&str>) -> &str {
    let is_ours = |path: &&str| {
        is_plain_path(path)
            && path.len() <= BACK_BYTES_MAX
            && !path.contains('#')
            // It would lead around in a circle.
            && !path.starts_with("/auth/")
    };
    asked.filter(is_ours).unwrap_or("/")
}

fn sent_to(address: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    // It is visible ASCII, and so is a value.
    if let Ok(address) = HeaderValue::try_from(address) {
        response.headers_mut().insert(LOCATION, address);
    }
    // The code is for nobody else.
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn failed(back: &str, failure: Failure) -> Response<Body> {
    let with = if back.contains('?') { '&' } else { '?' };
    sent_to(&format!("{back}{with}signin={}", failure.word()))
}

fn refused(web: &Web, back: &str, why: &Refused) -> Response<Body> {
    let (failure, cause) = match why {
        Refused::Away(cause) => (Failure::Away, cause),
        Refused::Wrong(cause) => (Failure::Failed, cause),
    };
    if let Some(left_out) = web.not_signed_in.pass(Instant::now()) {
        tracing::warn!(error = %cause, log.left_out = left_out, "the issuer does not sign somebody in");
    }
    failed(back, failure)
}

/// Has a browser keep a cookie for so many seconds; forget it where that is none.
fn set_cookie(response: &mut Response<Body>, name: &str, value: &str, seconds: i64) {
    let cookie =
        format!("{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax");
    // Base64 and dots are visible ASCII.
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_comes_back_to_a_path_of_ours_and_nowhere_else() {
        for path in ["/", "/c/4", "/wait/main?c=4", "/c/4/s/15?a=%2F%2Fevil", "/authors"] {
            assert_eq!(own_path(Some(path)), path);
        }
        let long = format!("/{}", "x".repeat(1_024));
        for path in [
            "",
            "c/4",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/\t/evil.example",
            "/./",
            "/a/../..//evil",
            "/%2e%2e//evil",
            "/c/4#x",
            "/auth/login",
            "/auth/callback?code=1",
            "/\u{e9}",
            "/ x",
            "javascript:alert(1)",
            &long,
        ] {
            assert_eq!(own_path(Some(path)), "/", "{path}");
        }
        assert_eq!(own_path(None), "/");
    }
}
