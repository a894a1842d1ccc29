//! Mistakes that can be planted, to see that the simulator finds them. A normal build has none.

/// A mistake in the code that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "simulation"),
    allow(dead_code, unreachable_pub, reason = "nobody can switch one on")
)]
pub enum Bug {
    /// A step of admission is made durable whatever was admitted since it was planned.
    NoCompareAndSet,
}

impl Bug {
    /// All of them.
    #[cfg(feature = "simulation")]
    pub const ALL: &[Self] = &[Self::NoCompareAndSet];
}

#[cfg(feature = "simulation")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches a mistake on, for all that runs on this thread.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether the mistake is switched on.
    #[allow(dead_code, reason = "nothing is planted yet")]
    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "simulation")]
pub use switch::plant;
#[cfg(feature = "simulation")]
#[allow(unused_imports, reason = "nothing is planted yet")]
pub(crate) use switch::planted;

/// Whether the mistake is switched on.
#[allow(dead_code, reason = "nothing is planted yet")]
#[cfg(not(feature = "simulation"))]
pub(crate) const fn planted(_bug: Bug) -> bool {
    false
}
