//! The time of stores that have no server, and so no clock of their own.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use boxoffice_domain::time::Timestamp;

/// What tells such a store the time. It stands for the clock of a database server: it is asked inside
/// the store, and is not the clock of the service.
#[derive(Clone, Default)]
pub struct DatabaseTime(Option<Arc<dyn Fn() -> Timestamp + Send + Sync>>);

impl DatabaseTime {
    /// A time that is told by this.
    pub fn told_by(time: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(time)))
    }

    /// The time, where there is somebody to tell it. The store of one process has none but its own.
    pub(super) fn told(&self) -> Option<Timestamp> {
        self.0.as_ref().map(|time| time())
    }

    /// The time: the system's, where nobody else tells it.
    pub(super) fn now(&self) -> Timestamp {
        self.told().unwrap_or_else(|| {
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp(0).plus(since_1970)
        })
    }
}
