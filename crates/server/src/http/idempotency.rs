//! Idempotency keys on their way in: a digest of what was asked, and the guard against a second
//! request while the first is under way. What was done under a key is in the store, in the
//! transaction of the effect.

use boxoffice_backends::store::IdempotencyKey as StoredKey;
use boxoffice_domain::ids::UserId;
use sha2::{Digest, Sha256};

use super::extract::IdempotencyKey;
use super::problem::{ErrorCode, Problem};
use crate::app::{App, InFlightGuard};

/// A key entered, with the guard that keeps others out until the answer is there.
pub(super) struct Entered {
    /// For the store.
    pub key: StoredKey,
    /// To be dropped after the answer.
    pub guard: InFlightGuard,
}

/// Enters the key of a request. `operation` and `values` are everything that was asked.
///
/// # Errors
/// 409 where a request with this key is under way.
pub(super) fn enter(
    app: &App,
    user: UserId,
    key: Option<IdempotencyKey>,
    operation: &str,
    values: impl IntoIterator<Item = i64>,
) -> Result<Option<Entered>, Problem> {
    let Some(key) = key else { return Ok(None) };
    let guard = app
        .in_flight
        .enter(user, key.as_str())
        .ok_or_else(|| Problem::new(ErrorCode::IdempotencyInFlight).retry_after(1))?;
    let mut digest = Sha256::new().chain_update(operation);
    for value in values {
        digest.update(value.to_be_bytes());
    }
    let key = StoredKey { key: key.as_str().to_owned(), fingerprint: digest.finalize().into() };
    Ok(Some(Entered { key, guard }))
}
