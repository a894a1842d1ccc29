//! What can go wrong with an operation, apart from a rule that forbids it.

/// Why a backend could not do what was asked. No rule of the business is in here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing happened; the same call may work later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// It may have happened or not; the same call with the same idempotency key tells.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// What is stored makes no sense. Somebody must look.
    #[error("corrupt: {0}")]
    Corrupt(String),
}

/// How an operation failed: a rule forbids it (`R` says which), or the backend could not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error<R> {
    /// A rule forbids it. Nothing happened.
    #[error("rejected: {0:?}")]
    Rejected(R),
    /// The backend could not.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl<R> Error<R> {
    /// Puts a decider's answer and a backend's together.
    pub(crate) fn flatten<T>(answer: Result<Result<T, R>, Fault>) -> Result<T, Self> {
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(rejected)) => Err(Self::Rejected(rejected)),
            Err(fault) => Err(Self::Fault(fault)),
        }
    }
}
