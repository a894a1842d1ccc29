//! Checkers: each holds what happens against one promise.

mod admission;
mod draw;
mod order;
mod sale;
mod sold;

use std::fmt;
use std::sync::Arc;

use boxoffice_domain::ids::{ReservationId, SeatId};
use boxoffice_domain::invariant::Finding;
use boxoffice_domain::queue::{Drawn, QueueSettings, Record, SettingsChange};
use boxoffice_domain::sales::ReservationState;
use boxoffice_domain::time::Timestamp;

use crate::instance::Standing;
use crate::plan::Plan;
use crate::turns::Turns;

/// Something that has happened. Times are microseconds since the beginning.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    /// An instance has given a number, when the store had the time `database`. Whether the fan hears of it
    /// is another matter.
    Numbered { fan: usize, seq: u64, asked_us: u64, instance: usize, database: Timestamp },
    /// A fan has heard which number it is.
    Told { fan: usize, seq: u64 },
    /// A fan has heard where the ticket stands, and when to ask again.
    Stands {
        fan: usize,
        seq: u64,
        standing: Standing,
        after_ms: u64,
        asked_us: u64,
        instance: usize,
        polls: bool,
    },
    /// A fan polls no more for a while.
    Away { fan: usize },
    /// A fan has asked to pay or to leave: the ticket may be over from now on.
    MayEnd { fan: usize, leaves: bool },
    /// A fan has paid or left, and has been told so.
    Ended { fan: usize },
    /// A fan was told of a hold that was asked for at `asked_us` or later.
    Held { fan: usize, reservation: ReservationId, seats: Vec<SeatId>, asked_us: u64 },
    /// A fan asks to give a hold back.
    GivesBack { reservation: ReservationId },
    /// A fan was told, for the first time, that it is paid.
    Paid { fan: usize, reservation: ReservationId },
    /// A fan who asked to pay was told that the hold is over.
    Gone { fan: usize, reservation: ReservationId },
    /// A request that was answered was made once more with the same key; `None` for a refusal.
    Repeated { fan: usize, first: i64, again: Option<i64> },
    /// A sink was given an event.
    Event { id: i64, key: i64, body: String },
    /// At the end: how many charges were acknowledged and asked for, and how many have had an effect.
    Charged { fan: usize, charges: (u64, u64), found: u64 },
    /// The store has recorded steps of admission, of the turns from `from` to `upto`: who was admitted, those
    /// who came back included, and who was passed over, by number. `at` is the time, `database` the time that
    /// the store had.
    Step {
        from: u64,
        upto: u64,
        admitted: Vec<u64>,
        passed: Vec<u64>,
        at: Timestamp,
        database: Timestamp,
        settings: QueueSettings,
    },
    /// The store was looked at: so many seats were not sold then, and this was its time.
    Unsold { seats: u64, database: Timestamp },
    /// The store was looked at: it has handed out the numbers up to `watermark`.
    Looked { watermark: u64 },
    /// The store was looked at: the draw, if there was one, and when the queue opens. It is told of queues with
    /// an opening draw.
    Opening { drawn: Option<Drawn>, opens_at: Option<Timestamp> },
    /// Those who have joined were drawn: it is durable.
    Drawn { turns: Arc<Turns> },
    /// An operator was told that the queue is changed.
    Changed { change: SettingsChange },
    /// At the end: a record of the admission log, and whether its digest follows from the one before.
    Logged { record: Record, follows: bool },
    /// An audit of the code itself has found this.
    Audited(Finding),
    /// At the end: what has become of a reservation that a fan was told is paid.
    PaidInTheEnd { fan: usize, reservation: ReservationId, state: Option<ReservationState> },
    /// At the end: a fan was told of this, and the store does not know it.
    Lost { fan: usize, what: String },
    /// At the end: a fan who polls has not been let in.
    StillWaits { fan: usize, seq: u64, since_us: u64 },
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub rule: &'static str,
    /// When, in microseconds since the beginning.
    pub at_us: u64,
    /// How, in words.
    pub how: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8} ms  {}: {}", self.at_us / 1_000, self.rule, self.how)
    }
}

/// Holds what happens against one promise.
pub(crate) trait Checker {
    /// Something has happened.
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>);

    /// Nothing happens any more.
    fn end(&mut self, _now_us: u64, _broken: &mut Vec<Violation>) {}
}

/// All checkers, for a plan.
pub(crate) fn checkers(plan: &Plan) -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(order::NumbersOnce::default()),
        Box::new(order::PlacesShrink::new(plan)),
        Box::new(order::InOrder::new(plan)),
        Box::new(order::FromTheStore::default()),
        Box::new(order::Log::default()),
        Box::new(draw::OneDraw::new(plan)),
        Box::new(draw::DrawnAreThose::new(plan)),
        Box::new(draw::OwnPlace::default()),
        Box::new(admission::Rate::new(plan)),
        Box::new(admission::Vouched),
        Box::new(admission::Bound::new(plan)),
        Box::new(admission::Gated::default()),
        Box::new(sold::Followed::new(plan)),
        Box::new(admission::LetIn::new(plan)),
        Box::new(admission::AskedInTime::new(plan)),
        Box::new(sale::Audit),
        Box::new(sale::Acknowledged),
        Box::new(sale::SeatsOnce::new(plan)),
        Box::new(sale::Repeats),
        Box::new(sale::OnePayment::default()),
        Box::new(sale::Events::default()),
        Box::new(admission::ByAStep::default()),
        Box::new(order::EmptyPlaces::new(plan)),
    ]
}

/// The rules by name, as they stand in violations.
pub mod rules {
    /// A number is given to one ticket only.
    pub const NUMBER_TWICE: &str = "a number twice";
    /// A place never grows.
    pub const PLACE_GREW: &str = "a place grew";
    /// First come, first served.
    pub const OVERTAKEN: &str = "overtaken";
    /// Only the store hands out numbers.
    pub const UNKNOWN_TO_STORE: &str = "a number that the store has not handed out";
    /// Whoever checks the admission log finds nothing.
    pub const LOG: &str = "the admission log";
    /// A queue is drawn once, by the seed that was committed to, when it opens.
    pub const ONE_DRAW: &str = "a draw";
    /// Nobody has a place or a turn before the draw.
    pub const BEFORE_THE_DRAW: &str = "before the draw";
    /// All know of the draw in time.
    pub const DRAW_UNHEARD: &str = "a draw that was not heard of";
    /// Who comes before the opening is drawn.
    pub const NOT_DRAWN: &str = "came before the opening and is not drawn";
    /// Who comes after the draw is not.
    pub const DRAWN_LATE: &str = "came after the draw and is among the drawn";
    /// What a fan is told is about their own ticket.
    pub const ANOTHERS_PLACE: &str = "another's place";
    /// Times of admission are within a bound of the store's.
    pub const TIME_APART: &str = "admitted at another time";
    /// The rate is kept.
    pub const TOO_FAST: &str = "admitted too fast";
    /// `max_active` is kept.
    pub const TOO_MANY: &str = "too many active";
    /// A queue that is paused or not open admits nobody.
    pub const SHUT: &str = "admitted while shut";
    /// Nobody is admitted before the sale opens, or after all is sold.
    pub const NOTHING_TO_BUY: &str = "admitted with nothing to buy";
    /// No more are admitted than what is left can serve.
    pub const NOT_FOR_ALL: &str = "admitted more than what is left can serve";
    /// Whoever polls is let in.
    pub const NOT_LET_IN: &str = "not let in";
    /// Whoever polls as told hears within the claim window, though one answer is lost.
    pub const ASKED_SELDOM: &str = "told to ask too seldom";
    /// Whoever polls is not passed over.
    pub const PASSED_OVER: &str = "passed over";
    /// The audits of the code find nothing.
    pub const AUDIT: &str = "audit";
    /// Nobody is told to be let in before that is durable.
    pub const NO_STEP: &str = "let in without a step";
    /// Numbers that nobody has are no more than a pool.
    pub const EMPTY: &str = "empty places";
    /// A seat that somebody holds is nobody else's.
    pub const SEAT_TWICE: &str = "a seat twice";
    /// A hold lasts as long as was told.
    pub const ENDED_EARLY: &str = "a hold ended early";
    /// A request that is repeated has the same answer, and one effect.
    pub const REPEATED: &str = "another answer to a repeated request";
    /// A ticket pays once.
    pub const PAID_TWICE: &str = "paid twice";
    /// Each effect has one event, and those of a key come in order.
    pub const EVENTS: &str = "events";
    /// What was acknowledged is there.
    pub const LOST: &str = "lost";
}
