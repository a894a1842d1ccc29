//! What was acknowledged, what there is, and what follows if the two differ.
//!
//! Nothing here asks anybody: [`Told`] is filled by the load as answers come, [`Books`] is read from the
//! database and from Kafka when all is quiet, and [`compare`] holds one against the other. So each kind of
//! loss can be planted in a test, which sees that exactly this is found.

mod books;
mod compare;
mod finding;
#[cfg(test)]
mod tests;
mod told;

#[cfg(test)]
pub(crate) use books::Reservation;
pub(crate) use books::{Books, Events, State, Topic};
pub(crate) use compare::{compare, events};
pub(crate) use finding::{Finding, Kind};
pub(crate) use told::{
    Answer, Attempt, Effect, EffectId, FanId, FanState, Given, Heard, Joined, LateNews, Next,
    Order, Overtaken, Status, Told, Verdict, What,
};

/// Seconds on a clock that only goes forward.
pub(crate) type Seconds = f64;

/// Points that each buyer is charged with.
pub(crate) const CHARGE: i64 = 10_000;
/// An admission is known to all instances within about 0.2 s, 0.5 s while Redis is away. More than that,
/// because the machine is shared; the report says how long it really took.
pub(crate) const LAG_S: Seconds = 2.0;
/// How long a hold lasts, by the settings of the instances.
pub(crate) const HOLD_S: Seconds = 20.0;

/// An instance decides by the time at which it was asked, and may have waited for the database for so long, in
/// milliseconds: what another one has decided meanwhile seems to come after it.
pub(crate) const ASKED_BEFORE_MS: i64 = 2_500;
