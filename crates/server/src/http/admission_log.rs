//! The admission log of a queue, for everybody.

use axum::extract::{FromRequestParts, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use boxoffice_backends::store::{Head, LogPart};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::describe::{Described, Description};
use super::extract::PathQueue;
use super::page::query;
use super::problem::{ErrorCode, Problem};
use super::reply::{fault, json};
use crate::app::AppState;
use crate::proof::{self, LoggedRecord};

/// The last record of a log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogHead {
    /// Its number.
    number: u64,
    /// Its digest, in hexadecimal digits.
    digest: String,
    /// Both and the time, signed with the service's key (JWS, Ed25519). Whoever keeps it can show later that
    /// something before it was changed.
    signed: String,
}

/// A part of the admission log of a queue.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AdmissionLog {
    queue: String,
    /// The digest that the first of these records goes on from.
    previous: String,
    /// Records in order.
    records: Vec<LoggedRecord>,
    /// What `after` is to be for the next page; null behind the last.
    #[schema(required, nullable)]
    next: Option<u64>,
    /// The last record of the whole log.
    head: LogHead,
}

/// Which part of the log is asked for.
pub(super) struct LogSection {
    limit: u32,
    after: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    limit: Option<u32>,
    after: Option<u64>,
}

/// Records of a page where none is asked for.
const USUAL: u32 = 100;
/// The most records of a page.
const MAX: u32 = 1_000;

impl<S: Send + Sync> FromRequestParts<S> for LogSection {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let LogQuery { limit, after } = query(&parts.uri)?;
        let limit = limit.unwrap_or(USUAL);
        let invalid = |what: String| Problem::new(ErrorCode::InvalidQuery).detail(what);
        if !(1..=MAX).contains(&limit) {
            return Err(invalid(format!("limit must be from 1 to {MAX}")));
        }
        if after.is_some_and(|after| i64::try_from(after).is_err()) {
            return Err(invalid("after must be the number of a record".into()));
        }
        Ok(Self { limit, after })
    }
}

impl Described for LogSection {
    fn describe(description: &mut Description) {
        let most = format!("At most so many; {USUAL} where it is left out");
        description.query_number("limit", &most, USUAL, 1..=MAX.into());
        let behind = "Those behind the record of this number: `next` of the page before. From the oldest \
                      that is kept where it is left out";
        description.query_number("after", behind, 100, 0..=i64::MAX);
        description.errors(&[ErrorCode::InvalidQuery]);
    }
}

pub(super) async fn show(
    State(app): State<AppState>,
    PathQueue(name): PathQueue,
    LogSection { limit, after }: LogSection,
) -> Result<Response, Problem> {
    let queue = app.sequencer.queue(&name).ok_or_else(|| Problem::new(ErrorCode::QueueNotFound))?;
    let part = app.store.admission_log(queue.name().clone(), after, limit).await;
    let part = part.map_err(|cause| fault(&cause))?;
    let LogPart { previous, links, head } =
        part.ok_or_else(|| Problem::new(ErrorCode::QueueNotFound))?;
    let records = links.iter().map(|link| {
        let nonsense = || Problem::internal(format!("record {} of {name}", link.number));
        LoggedRecord::new(link).ok_or_else(nonsense)
    });
    let records = records.collect::<Result<Vec<_>, _>>()?;
    let next = links.last().map(|link| link.number).filter(|number| *number < head.number);
    let Head { number, digest } = head;
    // By the time that all instances share.
    let now = app.store.vouched(app.clock.now());
    let signed = proof::sign(&app.signing, queue.name(), head, now);
    let head = LogHead { number, digest: digest.to_string(), signed };
    let log = AdmissionLog { queue: name, previous: previous.to_string(), records, next, head };
    let mut response = json(StatusCode::OK, &log);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=1"));
    Ok(response)
}
