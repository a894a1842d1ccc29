//! Answers: JSON, and how the backends' refusals become problems. The one place where each refusal
//! meets its status code; the matches are exhaustive on purpose.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::{
    ActRejected, PointsRejected, RefundRefused, ReservationRejected, ReserveRejected,
};
use boxoffice_backends::{Error, Fault};
use boxoffice_domain::points::{BALANCE_MAX, ChargeRejected};
use boxoffice_domain::queue::QueueSettings;
use boxoffice_domain::sales::{HoldRejected, RefundRejected, SettleRejected};
use bytes::Bytes;
use futures_util::Stream;
use serde::Serialize;

use super::problem::{ErrorCode, Problem};
use super::settings::CurrentSettings;
use crate::metrics::Outcome;

/// Seconds after which a store that could not write is worth another try.
const STORE_RETRY_AFTER_SECONDS: u32 = 1;

/// A JSON answer.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => json_bytes(status, bytes),
        Err(error) => axum::response::IntoResponse::into_response(Problem::internal(error)),
    }
}

/// A value as JSON. Only values of ours are answered, and those serialise.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// An answer that is JSON already, as whatever body the caller has use for.
pub(super) fn json_bytes<T, B: From<T>>(status: StatusCode, bytes: T) -> Response<B> {
    let mut response = Response::new(B::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer that goes on as events (Server-Sent Events).
pub(super) fn events(
    pieces: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
) -> Response<Body> {
    /// A proxy that collects answers would make events late.
    const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// Says nothing, where silence would be a lost connection: a comment.
pub(super) const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");

/// Writes an object without looking for characters to be escaped, for the two answers that are
/// nearly all of the traffic: a third of the work of a join was to look through its token for them.
/// Its texts must not need any, and it must not be empty.
pub(super) struct PlainObject(Vec<u8>);

/// The name of a field, as it stands in a [`PlainObject`].
macro_rules! field {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}
pub(super) use field;

impl PlainObject {
    /// An object with room for so many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// A text that needs no escaping.
    pub(super) fn text(&mut self, field: &str, value: &str) {
        self.text_by(field, |out| out.extend_from_slice(value.as_bytes()));
    }

    /// The same, by what appends it.
    pub(super) fn text_by(&mut self, field: &str, append: impl FnOnce(&mut Vec<u8>)) {
        self.0.extend_from_slice(field.as_bytes());
        self.0.push(b'"');
        let begin = self.0.len();
        append(&mut self.0);
        debug_assert!(
            self.0[begin..].iter().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'))
        );
        self.0.push(b'"');
    }

    /// A number.
    pub(super) fn number(&mut self, field: &str, value: impl itoa::Integer) {
        self.0.extend_from_slice(field.as_bytes());
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// No value.
    pub(super) fn null(&mut self, field: &str) {
        self.0.extend_from_slice(field.as_bytes());
        self.0.extend_from_slice(b"null");
    }

    /// The object.
    pub(super) fn finish(mut self) -> Vec<u8> {
        // In place of the comma before the first field.
        if let Some(first) = self.0.first_mut() {
            *first = b'{';
        }
        self.0.push(b'}');
        self.0
    }
}

/// What a store that could not becomes.
pub(super) fn fault(fault: &Fault) -> Problem {
    match fault {
        Fault::Unavailable(what) => Problem::new(ErrorCode::StoreUnavailable)
            .retry_after(STORE_RETRY_AFTER_SECONDS)
            .because(what),
        Fault::OutcomeUnknown(what) => Problem::new(ErrorCode::OutcomeUnknown).because(what),
        Fault::Corrupt(what) => Problem::internal(what),
    }
}

/// The metric label of a store that could not.
pub(super) const fn fault_outcome(fault: &Fault) -> Outcome {
    match fault {
        Fault::Unavailable(_) => Outcome::Unavailable,
        Fault::OutcomeUnknown(_) => Outcome::Unknown,
        Fault::Corrupt(_) => Outcome::Failed,
    }
}

/// What a refused hold becomes.
pub(super) fn hold_rejected(rejected: HoldRejected) -> (Problem, Outcome) {
    use HoldRejected as R;
    let (code, detail, outcome) = match rejected {
        R::NoSeats => (ErrorCode::NoSeats, None, Outcome::Invalid),
        R::TooManySeats { max } => (
            ErrorCode::TooManySeats,
            Some(format!("a reservation holds at most {max} seats")),
            Outcome::Invalid,
        ),
        R::DuplicateSeat(seat) => (
            ErrorCode::DuplicateSeats,
            Some(format!("seat {seat} was asked for twice")),
            Outcome::Invalid,
        ),
        R::TicketSpent => (ErrorCode::TokenSpent, None, Outcome::Forbidden),
        R::SessionCancelled => (ErrorCode::SessionCancelled, None, Outcome::NotOpen),
        R::NotYetOpen { opens_at } => (
            ErrorCode::ReservationNotOpen,
            Some(format!("reservations open at {}", rfc3339(opens_at))),
            Outcome::NotOpen,
        ),
        R::Closed { closed_at } => (
            ErrorCode::ReservationClosed,
            Some(format!("reservations closed at {}", rfc3339(closed_at))),
            Outcome::NotOpen,
        ),
        R::SessionStarted => (ErrorCode::SessionStarted, None, Outcome::NotOpen),
        R::NoSuchSeat(seat) => (
            ErrorCode::SeatNotFound,
            Some(format!("the session has no seat {seat}")),
            Outcome::NotFound,
        ),
        R::SeatTaken(seat) => {
            (ErrorCode::SeatTaken, Some(format!("seat {seat} is taken")), Outcome::SeatTaken)
        }
        R::UserLimit { max, has } => (
            ErrorCode::SeatLimitReached,
            Some(format!("you have {has} seats of this session; the limit is {max}")),
            Outcome::Limit,
        ),
        R::LiveHoldLimit { max } => (
            ErrorCode::LiveHoldLimit,
            Some(format!("a ticket holds at most {max} unpaid reservations at a time")),
            Outcome::Limit,
        ),
        R::HoldLimit { max } => {
            (ErrorCode::HoldLimit, Some(format!("a ticket may hold {max} times")), Outcome::Limit)
        }
        R::NotEnoughSeats { free } => (
            ErrorCode::NotEnoughSeats,
            Some(format!("of the seats that would do, {free} are free")),
            Outcome::SeatTaken,
        ),
        R::NotTogether => (ErrorCode::NotTogether, None, Outcome::SeatTaken),
        R::LeavesSinglePlace { number } => (
            ErrorCode::LeavesSingleSeat,
            Some(format!("seat number {number} would be left alone")),
            Outcome::Invalid,
        ),
    };
    (with_detail(code, detail), outcome)
}

fn with_detail(code: ErrorCode, detail: Option<String>) -> Problem {
    match detail {
        Some(detail) => Problem::new(code).detail(detail),
        None => Problem::new(code),
    }
}

/// What a reservation that was not made becomes.
pub(super) fn reserve_error(error: Error<ReserveRejected>) -> (Problem, Outcome) {
    let rejected = match error {
        Error::Fault(cause) => return (fault(&cause), fault_outcome(&cause)),
        Error::Rejected(rejected) => rejected,
    };
    match rejected {
        ReserveRejected::Hold(rejected) => hold_rejected(rejected),
        ReserveRejected::NoSuchConcert => {
            (Problem::new(ErrorCode::ConcertNotFound), Outcome::NotFound)
        }
        ReserveRejected::NoSuchSession => {
            (Problem::new(ErrorCode::SessionNotFound), Outcome::NotFound)
        }
        ReserveRejected::KeyReused => {
            (Problem::new(ErrorCode::IdempotencyKeyReused), Outcome::KeyConflict)
        }
    }
}

/// What a reservation that was not settled becomes.
pub(super) fn settle_rejected(rejected: SettleRejected) -> (Problem, Outcome) {
    use SettleRejected as R;
    match rejected {
        R::NotYours => (Problem::new(ErrorCode::ReservationNotYours), Outcome::Forbidden),
        R::AlreadyPaid => (Problem::new(ErrorCode::AlreadyPaid), Outcome::AlreadyPaid),
        R::Cancelled => (Problem::new(ErrorCode::HoldCancelled), Outcome::HoldGone),
        R::Expired => (Problem::new(ErrorCode::HoldExpired), Outcome::HoldGone),
        R::Refunded => (Problem::new(ErrorCode::AlreadyRefunded), Outcome::HoldGone),
        R::SessionCancelled => (Problem::new(ErrorCode::SessionCancelled), Outcome::NotOpen),
        R::TicketSpent => (Problem::new(ErrorCode::TokenSpent), Outcome::Forbidden),
        R::WrongQueue => (Problem::new(ErrorCode::WrongQueue), Outcome::Forbidden),
        R::NotEnoughPoints { balance, due } => (
            Problem::new(ErrorCode::NotEnoughPoints)
                .detail(format!("{due} points are due, the balance is {balance}")),
            Outcome::InsufficientPoints,
        ),
    }
}

/// What a payment or cancellation that failed becomes.
pub(super) fn reservation_error(error: Error<ReservationRejected>) -> (Problem, Outcome) {
    let rejected = match error {
        Error::Fault(cause) => return (fault(&cause), fault_outcome(&cause)),
        Error::Rejected(rejected) => rejected,
    };
    match rejected {
        ReservationRejected::Settle(rejected) => settle_rejected(rejected),
        ReservationRejected::NoSuchReservation => {
            (Problem::new(ErrorCode::ReservationNotFound), Outcome::NotFound)
        }
        ReservationRejected::KeyReused => {
            (Problem::new(ErrorCode::IdempotencyKeyReused), Outcome::KeyConflict)
        }
    }
}

/// What an operator's change that failed becomes.
pub(super) fn act_error(error: Error<ActRejected>) -> Problem {
    use ActRejected as R;
    let rejected = match error {
        Error::Fault(cause) => return fault(&cause),
        Error::Rejected(rejected) => rejected,
    };
    match rejected {
        R::Exists => Problem::new(ErrorCode::AlreadyExists),
        R::TokenExists(token) => Problem::new(ErrorCode::AlreadyExists)
            .detail(format!("the token {token} exists; nothing was issued")),
        R::NoSuchQueue => Problem::new(ErrorCode::QueueNotFound),
        R::Drawn => Problem::new(ErrorCode::QueueDrawn),
        R::NoSuchConcert => Problem::new(ErrorCode::ConcertNotFound),
        R::NoSuchSession => Problem::new(ErrorCode::SessionNotFound),
        R::NoSuchOperator => Problem::new(ErrorCode::OperatorNotFound),
        R::ClosesBeforeOpening => Problem::new(ErrorCode::InvalidSetting)
            .detail("reservationClosesAt must be after reservationOpensAt"),
        R::SoldOrHeld => Problem::new(ErrorCode::SoldOrHeld),
        R::HasPlan => Problem::new(ErrorCode::SessionHasPlan),
        R::KeyReused => Problem::new(ErrorCode::IdempotencyKeyReused),
        R::ChangedMeanwhile(stood) => changed(ErrorCode::ChangedMeanwhile, &stood.0),
        R::ChangedSince(stood) => changed(ErrorCode::ChangedSince, &stood.0),
        R::UndoTooLate => Problem::new(ErrorCode::UndoTooLate),
        R::Undone(by) => Problem::new(ErrorCode::NotUndoable)
            .detail(format!("taken back before, by change {by}")),
    }
}

fn changed(code: ErrorCode, settings: &QueueSettings) -> Problem {
    let current = serde_json::to_value(CurrentSettings::of(settings)).unwrap_or_default();
    Problem::new(code).current(current)
}

/// What a refund that was not made becomes.
pub(super) fn refund_error(error: Error<RefundRefused>) -> (Problem, Outcome) {
    use RefundRejected as R;
    let rejected = match error {
        Error::Fault(cause) => return (fault(&cause), fault_outcome(&cause)),
        Error::Rejected(rejected) => rejected,
    };
    match rejected {
        RefundRefused::Refund(R::NotYours) => {
            (Problem::new(ErrorCode::ReservationNotYours), Outcome::Forbidden)
        }
        RefundRefused::Refund(R::NotPaid) | RefundRefused::NoSuchPayment => {
            (Problem::new(ErrorCode::PaymentNotFound), Outcome::NotFound)
        }
        RefundRefused::Refund(R::TooLate { until }) => (
            Problem::new(ErrorCode::RefundTooLate).detail(format!(
                "payments for this session were refunded until {}",
                rfc3339(until)
            )),
            Outcome::NotOpen,
        ),
        RefundRefused::Refund(R::Overflow) => (
            Problem::new(ErrorCode::PointsOverflow)
                .detail(format!("a balance holds at most {BALANCE_MAX} points")),
            Outcome::Invalid,
        ),
        RefundRefused::KeyReused => {
            (Problem::new(ErrorCode::IdempotencyKeyReused), Outcome::KeyConflict)
        }
    }
}

/// What a charge that failed becomes.
pub(super) fn charge_error(error: Error<PointsRejected>) -> (Problem, Outcome) {
    match error {
        Error::Fault(cause) => (fault(&cause), fault_outcome(&cause)),
        Error::Rejected(PointsRejected::Charge(ChargeRejected::NotPositive)) => {
            (Problem::new(ErrorCode::InvalidAmount), Outcome::Invalid)
        }
        Error::Rejected(PointsRejected::Charge(ChargeRejected::Overflow)) => (
            Problem::new(ErrorCode::PointsOverflow)
                .detail(format!("a balance holds at most {BALANCE_MAX} points")),
            Outcome::Invalid,
        ),
        Error::Rejected(PointsRejected::KeyReused) => {
            (Problem::new(ErrorCode::IdempotencyKeyReused), Outcome::KeyConflict)
        }
    }
}
