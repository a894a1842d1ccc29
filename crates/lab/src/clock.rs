//! One clock for everything that is compared.

use std::sync::LazyLock;
use std::time::Instant;

use crate::witness::Seconds;

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Returns seconds since the program looked at the clock first.
pub(crate) fn now() -> Seconds {
    BEGAN.elapsed().as_secs_f64()
}
