//! Operators and what they have changed.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::{Act, Acted, Effect, LogEntry, Role, StoredOperator};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{Access, Asked, PathOperator, created};
use super::extract::MaybeIdempotencyKey;
use super::page::Page;
use super::problem::{ErrorCode, Problem};
use super::reply::{act_error, fault, json, to_json};
use crate::app::{App, AppState};
use crate::operators::{digest, is_name, new_token};

/// What an operator may do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Reads.
    Viewer,
    /// Also pauses, resumes and re-rates queues.
    Operator,
    /// Everything.
    Admin,
    /// Charges points, and nothing else.
    Cashier,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Viewer => Self::Viewer,
            RoleName::Operator => Self::Operator,
            RoleName::Admin => Self::Admin,
            RoleName::Cashier => Self::Cashier,
        }
    }
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
            Role::Cashier => Self::Cashier,
        }
    }
}

/// An operator.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedOperator {
    /// What the log calls them.
    pub name: String,
    /// What they may do.
    pub role: RoleName,
    /// Since when.
    #[schema(format = DateTime)]
    pub created_at: String,
}

/// All operators.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct OperatorList {
    /// By name.
    pub operators: Vec<ListedOperator>,
}

/// An operator to be added.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewOperator {
    /// What the log will call them: 1 to 40 of `a-z`, `0-9`, `-` and `_`.
    #[schema(example = "desk-1", pattern = "^[a-z0-9_-]{1,40}$")]
    pub name: String,
    /// What they may do.
    pub role: RoleName,
}

/// An operator who was added.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperatorCreated {
    /// What the log calls them.
    pub name: String,
    /// What they may do.
    pub role: RoleName,
    /// Since when.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// Their token; nobody can look it up again. Null where the request is told again under its
    /// idempotency key, because only a digest of the token is kept.
    #[schema(required, nullable)]
    pub token: Option<String>,
}

pub(super) async fn list(
    _: Access,
    State(app): State<AppState>,
) -> Result<Response<Body>, Problem> {
    let operators = app.store.operators().await.map_err(|cause| fault(&cause))?;
    let operators = operators.into_iter().map(|stored| ListedOperator {
        name: stored.name,
        role: stored.role.into(),
        created_at: rfc3339(stored.created_at),
    });
    Ok(json(StatusCode::OK, &OperatorList { operators: operators.collect() }))
}

pub(super) async fn add(
    access: Access,
    State(app): State<AppState>,
    MaybeIdempotencyKey(key): MaybeIdempotencyKey,
    asked: Asked<NewOperator>,
) -> Result<Response<Body>, Problem> {
    let NewOperator { name, role } = &asked.body;
    if !is_name(name) {
        return Err(Problem::new(ErrorCode::InvalidSetting).detail(
            "name must be 1 to 40 of a-z, 0-9, - and _, and neither admin nor command-line",
        ));
    }
    let token = new_token();
    let new = StoredOperator {
        name: name.clone(),
        role: (*role).into(),
        digest: digest(&token),
        created_at: app.clock.now(),
    };
    let answer = |effect: &Effect, token: Option<String>| match effect {
        Effect::Operator { after: Some(after), .. } => to_json(&OperatorCreated {
            name: after.name.clone(),
            role: after.role.into(),
            created_at: rfc3339(after.created_at),
            token,
        }),
        _ => String::new(),
    };
    // What is kept under the key must not have the token.
    let kept = move |effect: &Effect| answer(effect, None);
    let note = access.creation(&app, "add_operator", key, &asked, kept);
    let acted = app.store.act(Act::AddOperator(new), note).await.map_err(act_error)?;
    follow(&app, &acted).await;
    tracing::info!(operator.name = %name, operator.role = Role::from(*role).as_str(), "operator added");
    Ok(created(acted, |effect| answer(effect, Some(token.clone()))))
}

pub(super) async fn remove(
    access: Access,
    State(app): State<AppState>,
    PathOperator(name): PathOperator,
) -> Result<StatusCode, Problem> {
    let note = access.note(&app, "remove_operator");
    let acted = app.store.act(Act::RemoveOperator(name.clone()), note).await.map_err(act_error)?;
    follow(&app, &acted).await;
    tracing::info!(operator.name = %name, "operator removed");
    Ok(StatusCode::NO_CONTENT)
}

/// Who was added or removed here is so at once, here.
async fn follow(app: &App, acted: &Acted) {
    if matches!(acted, Acted::Now(..))
        && let Err(error) = app.operators.refresh(&app.store).await
    {
        tracing::warn!(%error, "the list of operators cannot be read; trying on");
    }
}

/// A change that an operator made.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoggedChange {
    /// Later changes have higher ones.
    #[schema(schema_with = super::schema::id_out)]
    id: i64,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// Who: an operator's name, `admin` for the configured token, `command-line` for a command at rest.
    who: String,
    /// With which role.
    role: RoleName,
    /// From which address.
    origin: String,
    /// The operation's id.
    operation: String,
    /// What was changed.
    target: String,
    /// What it was, as JSON; null where it is new.
    #[schema(required, nullable)]
    before: Option<String>,
    /// What it has become, as JSON; null where it is gone.
    #[schema(required, nullable)]
    after: Option<String>,
    /// Why, where they have said it.
    #[schema(required, nullable)]
    reason: Option<String>,
    /// The change that this one took back; null where it did not.
    #[schema(required, nullable)]
    undoes: Option<i64>,
}

/// A page of the log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangeLog {
    /// The latest first.
    changes: Vec<LoggedChange>,
    /// What `after` is to be for the next page; null behind the last.
    #[schema(required, nullable)]
    next: Option<i64>,
}

pub(super) async fn log(
    _: Access,
    State(app): State<AppState>,
    page: Page,
) -> Result<Response<Body>, Problem> {
    let before = page.section.after.unwrap_or(i64::MAX);
    let entries = app.store.log(before, page.section.limit).await.map_err(|cause| fault(&cause))?;
    let next = page.section.next(&entries, |entry| entry.id);
    let changes: Vec<LoggedChange> = entries.into_iter().map(logged).collect();
    Ok(page.answer("changes", &changes, next, ""))
}

pub(super) fn logged(entry: LogEntry) -> LoggedChange {
    LoggedChange {
        id: entry.id,
        at: rfc3339(entry.at),
        who: entry.who,
        role: entry.role.into(),
        origin: entry.origin,
        operation: entry.operation,
        target: entry.target,
        before: entry.before,
        after: entry.after,
        reason: entry.reason,
        undoes: entry.undoes,
    }
}
