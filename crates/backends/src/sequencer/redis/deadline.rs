//! Calls of the store that end in time.

use std::time::Duration;

use tokio::time::timeout;

use crate::Fault;

/// A join that waits for the store to hand out numbers waits no longer than this.
pub(super) const NUMBERS_TIMEOUT: Duration = Duration::from_millis(500);
/// A tick does not wait longer for the store to make something durable.
pub(super) const STORE_TIMEOUT: Duration = Duration::from_secs(1);
/// Nor longer to read all queues.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends a call of the store in time. The call itself goes on; what it hands out is lost.
pub(super) async fn in_time<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        Err(Fault::Unavailable(format!("no answer from the store within {} ms", limit.as_millis())))
    })
}
