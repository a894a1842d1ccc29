//! The console of operators: signing in and out, and what only it asks for.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderValue, Response, StatusCode};
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{Access, Credential, SESSION_COOKIE};
use super::client::ClientAddress;
use super::cross_site::OwnPage;
use super::extract::ApiJson;
use super::operators::RoleName;
use super::problem::{ErrorCode, Problem};
use super::reply::{fault, json};
use super::state::HttpState;
use crate::console::{LASTS, Session};
use crate::operators::{digest, mark};

/// Who wants to sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// The token of an operator.
    #[schema(example = "bxo_…")]
    token: String,
}

pub(super) async fn login(
    _: OwnPage,
    client: ClientAddress,
    State(HttpState { app, web }): State<HttpState>,
    ApiJson(Login { token }): ApiJson<Login>,
) -> Result<Response<Body>, Problem> {
    if let Some(rate) = &web.login_rate {
        rate.check(client)?;
    }
    let found = app.operators.find(&token).map_err(|cause| fault(&cause))?;
    let who = found.ok_or_else(|| Problem::new(ErrorCode::AdminTokenInvalid))?;
    if !who.role.may(Role::Viewer) {
        let detail =
            format!("the console needs the role {}; {} is {}", Role::Viewer, who.name, who.role);
        return Err(Problem::new(ErrorCode::RoleRequired).detail(detail));
    }
    let session = Session {
        name: who.name.as_ref().to_owned(),
        mark: mark(&digest(&token)),
        until: app.clock.now().plus(LASTS),
    };
    let text = web.sessions.write(&session);
    let text = text.ok_or_else(|| Problem::internal("no key to sign a session with"))?;
    tracing::info!(operator.name = %who.name, client.address = %client.address, "signed in to the console");
    with_cookie(&text, LASTS.as_secs())
}

pub(super) async fn logout(_: OwnPage) -> Result<Response<Body>, Problem> {
    with_cookie("", 0)
}

/// An answer that sets the cookie of the console.
fn with_cookie(value: &str, seconds: u64) -> Result<Response<Body>, Problem> {
    let cookie = format!(
        "{SESSION_COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; Secure; SameSite=Strict"
    );
    let cookie = HeaderValue::try_from(cookie).map_err(Problem::internal)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(SET_COOKIE, cookie);
    Ok(response)
}

/// The operator who asks.
#[derive(Serialize, ToSchema)]
pub(super) struct Me {
    /// What the log calls them.
    name: String,
    /// What they may do.
    role: RoleName,
    /// Until when they are signed in; null where they have sent a token.
    #[schema(required, nullable, format = DateTime)]
    until: Option<String>,
}

pub(super) async fn me(access: Access) -> Response<Body> {
    let until = match &access.by {
        Credential::Token(_) => None,
        Credential::Session(session) => Some(rfc3339(session.until)),
    };
    let who = &access.who;
    json(StatusCode::OK, &Me { name: who.name.as_ref().to_owned(), role: who.role.into(), until })
}
