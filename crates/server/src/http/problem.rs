//! Errors as clients see them: RFC 9457 documents with a stable code.
//!
//! [`ErrorCode`] is the closed list. Its one table feeds the responses, the API description and
//! `docs/errors.md`, so that none of them can disagree.
//!
//! What does not belong here: turning a refusal of the domain into a code (each handler's business,
//! in one exhaustive match) and anything about a cause beyond logging it.

use std::borrow::Cow;
use std::fmt::{Display, Write};

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::request_id::RequestId;

/// The media type of every error.
pub const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! error_codes {
    ($($name:ident $code:literal $status:ident $title:literal $when:literal $todo:literal;)+) => {
        /// A stable error code. Codes are never renamed or given another meaning once released.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $when] $name,)+
        }

        impl ErrorCode {
            /// Every code, in the order of the documentation: by status.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)+];

            /// The code as it stands in a response.
            pub const fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => $code,)+ }
            }

            /// The HTTP status that it always comes with.
            pub const fn status(self) -> StatusCode {
                match self { $(ErrorCode::$name => StatusCode::$status,)+ }
            }

            /// A short summary that does not vary.
            pub const fn title(self) -> &'static str {
                match self { $(ErrorCode::$name => $title,)+ }
            }

            /// When it happens, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(ErrorCode::$name => $when,)+ }
            }

            /// What the client should do.
            pub const fn advice(self) -> &'static str {
                match self { $(ErrorCode::$name => $todo,)+ }
            }
        }
    };
}

error_codes! {
    MalformedJson "MALFORMED_JSON" BAD_REQUEST "Malformed JSON"
        "The body is empty, not UTF-8, or not one JSON document."
        "Correct the request; repeating it is of no use.";
    InvalidField "INVALID_FIELD" BAD_REQUEST "Invalid field"
        "A field is missing, has the wrong type, or is not one of the known values; the detail names its path."
        "Correct the field.";
    InvalidId "INVALID_ID" BAD_REQUEST "Invalid id"
        "An id in the path is not a positive 64-bit decimal number."
        "Use an id that the service gave out.";
    InvalidQuery "INVALID_QUERY" BAD_REQUEST "Invalid query"
        "A query parameter is unknown or has an invalid value."
        "Correct the parameter.";
    InvalidHeader "INVALID_HEADER" BAD_REQUEST "Invalid header"
        "A header has a value that it cannot have."
        "Correct the header.";
    DuplicateHeader "DUPLICATE_HEADER" BAD_REQUEST "Duplicate header"
        "A header that may come once came several times."
        "Send it once.";
    TokenMissing "TOKEN_MISSING" UNAUTHORIZED "No queue token"
        "The request needs a QUEUE-TOKEN header and has none."
        "Join the queue and send the token that it answers with.";
    TokenInvalid "TOKEN_INVALID" UNAUTHORIZED "Invalid queue token"
        "The queue token is forged, truncated or unknown."
        "Join the queue anew.";
    TokenOutdated "TOKEN_OUTDATED" UNAUTHORIZED "Outdated queue token"
        "The service was restored from a backup, and the queue token was given after that; its place is lost."
        "Join the queue anew.";
    PersonTokenMissing "PERSON_TOKEN_MISSING" UNAUTHORIZED "Not logged in"
        "The request needs an Authorization header with the bearer token of a person, or the cookie of somebody who signed in on the pages."
        "Log in at the issuer, and send its token; on the pages, sign in.";
    PersonTokenInvalid "PERSON_TOKEN_INVALID" UNAUTHORIZED "Invalid person token"
        "The person's token or cookie is forged, over, or not for this service; the detail says which."
        "Log in anew at the issuer, and send its token; on the pages, sign in again.";
    AdminTokenMissing "ADMIN_TOKEN_MISSING" UNAUTHORIZED "No operator token"
        "The admin API needs an Authorization header with a bearer token."
        "Send an operator's token, or the admin token.";
    AdminTokenInvalid "ADMIN_TOKEN_INVALID" UNAUTHORIZED "Invalid operator token"
        "The bearer token is neither the admin token of this service nor that of one of its operators."
        "Send a token that was not taken away.";
    AdminSessionOver "ADMIN_SESSION_OVER" UNAUTHORIZED "Signed out of the console"
        "The cookie of the console is forged or over, or its operator was removed."
        "Sign in again.";
    PassMissing "PASS_MISSING" UNAUTHORIZED "No pass"
        "The visitor has no pass: neither a cookie boxoffice-pass nor a bearer token."
        "Wait at the address in Location until there is one.";
    PassInvalid "PASS_INVALID" UNAUTHORIZED "Invalid pass"
        "The pass is forged, over, for another queue or for none, or its ticket is spent."
        "Wait at the address in Location until there is another.";
    NotEnoughPoints "NOT_ENOUGH_POINTS" PAYMENT_REQUIRED "Not enough points"
        "The user has fewer points than the reservation costs."
        "Charge points and pay again before the hold ends.";
    TokenNotActivated "TOKEN_NOT_ACTIVATED" FORBIDDEN "Not your turn yet"
        "The token's owner is still waiting."
        "Poll the queue until the status is ACTIVATED.";
    TokenExpired "TOKEN_EXPIRED" FORBIDDEN "Queue token expired"
        "The time to buy is over for this token."
        "Join the queue anew.";
    TokenSpent "TOKEN_SPENT" FORBIDDEN "Queue token spent"
        "The token was used for a payment, or its owner left the queue."
        "Join the queue anew to buy more.";
    UserMismatch "USER_MISMATCH" FORBIDDEN "Not this user's token"
        "The request names another user than the token's owner, or the ticket is another person's."
        "Use the user that joined the queue.";
    ChallengeRequired "CHALLENGE_REQUIRED" FORBIDDEN "Challenge to be solved"
        "Joins need the solution of a challenge at the moment, and this one has none."
        "Get a challenge from the address in the detail, have the widget solve it, and join with its solution as the field altcha.";
    ChallengeInvalid "CHALLENGE_INVALID" FORBIDDEN "No solution"
        "The solution is not one of a challenge that was made for this queue and this client, or the challenge is over; the detail says which."
        "Get a new challenge and solve it.";
    WrongQueue "WRONG_QUEUE" FORBIDDEN "Token of another queue"
        "The concert is sold through another queue than the token's."
        "Join the concert's queue.";
    ReservationNotYours "RESERVATION_NOT_YOURS" FORBIDDEN "Not your reservation"
        "The reservation belongs to another user."
        "Use a reservation of this user.";
    RoleRequired "ROLE_REQUIRED" FORBIDDEN "Role required"
        "The operator's role does not include this."
        "Ask an operator who has the role that the detail names.";
    CrossSite "CROSS_SITE" FORBIDDEN "Request of another site"
        "A request that a cookie vouches for did not come from a page of this service; nothing was done."
        "Use the service's own pages, or send a token in Authorization.";
    RouteNotFound "ROUTE_NOT_FOUND" NOT_FOUND "No such endpoint"
        "No endpoint has this path."
        "See /openapi.json for what there is.";
    QueueNotFound "QUEUE_NOT_FOUND" NOT_FOUND "No such queue"
        "There is no queue of this name."
        "Leave the queue out, or use one that exists.";
    ConcertNotFound "CONCERT_NOT_FOUND" NOT_FOUND "No such concert"
        "There is no concert with this id."
        "List the concerts.";
    SessionNotFound "SESSION_NOT_FOUND" NOT_FOUND "No such session"
        "The concert has no session with this id."
        "List the concert's sessions.";
    PlanNotFound "PLAN_NOT_FOUND" NOT_FOUND "No such plan"
        "No session has a plan with this digest."
        "Use the digest that the concert names.";
    SeatNotFound "SEAT_NOT_FOUND" NOT_FOUND "No such seat"
        "The session has no seat with one of these ids."
        "List the session's seats.";
    ReservationNotFound "RESERVATION_NOT_FOUND" NOT_FOUND "No such reservation"
        "There is no reservation with this id."
        "Reserve anew.";
    OperatorNotFound "OPERATOR_NOT_FOUND" NOT_FOUND "No such operator"
        "There is no operator of this name."
        "List the operators.";
    LogEntryNotFound "LOG_ENTRY_NOT_FOUND" NOT_FOUND "No such change"
        "The log of changes has no entry with this id."
        "List the log.";
    PaymentNotFound "PAYMENT_NOT_FOUND" NOT_FOUND "No such payment"
        "There is no payment with this id."
        "List the user's reservations.";
    MethodNotAllowed "METHOD_NOT_ALLOWED" METHOD_NOT_ALLOWED "Method not allowed"
        "The path exists, but not with this method; the Allow header lists those that it has."
        "Use one of the allowed methods.";
    RequestTimeout "REQUEST_TIMEOUT" REQUEST_TIMEOUT "Request body too slow"
        "The body did not arrive in time."
        "Send the request again.";
    SeatTaken "SEAT_TAKEN" CONFLICT "Seat taken"
        "At least one of the seats is held or sold; none was reserved."
        "List the seats and choose others.";
    NotEnoughSeats "NOT_ENOUGH_SEATS" CONFLICT "Not enough seats"
        "Of the seats that would do, fewer are free than were asked for."
        "Ask for fewer seats, for another grade, or for another section.";
    NotTogether "NOT_TOGETHER" CONFLICT "Not together"
        "So many seats are free, but not next to each other."
        "Ask for fewer seats, or for seats that need not be together.";
    ReservationNotOpen "RESERVATION_NOT_OPEN" CONFLICT "Sale not open yet"
        "The concert's sale has not begun."
        "Come back at reservationOpensAt.";
    ReservationClosed "RESERVATION_CLOSED" CONFLICT "Sale closed"
        "The concert's sale is over."
        "Choose another concert.";
    SessionStarted "SESSION_STARTED" CONFLICT "Session has started"
        "The session has begun and is no longer sold."
        "Choose another session.";
    SessionCancelled "SESSION_CANCELLED" CONFLICT "Session called off"
        "The session was called off; nothing is held or paid there any more, and what was paid is refunded."
        "Choose another session.";
    SeatLimitReached "SEAT_LIMIT_REACHED" CONFLICT "Seat limit reached"
        "The user would hold or own more seats of this session than allowed."
        "Ask for fewer seats.";
    AlreadyRefunded "ALREADY_REFUNDED" CONFLICT "Already refunded"
        "The reservation was paid, and its points went back."
        "Reserve anew.";
    RefundTooLate "REFUND_TOO_LATE" CONFLICT "Too late for a refund"
        "It is too close to the beginning of the session."
        "Nothing; the seats stay the buyer's.";
    LiveHoldLimit "LIVE_HOLD_LIMIT" CONFLICT "Another hold waits for payment"
        "The ticket holds seats already that are not paid; it pays for one reservation."
        "Pay for that reservation, or give it back first.";
    HoldLimit "HOLD_LIMIT" CONFLICT "Too many holds"
        "The ticket has held seats as often as one ticket may."
        "Join the queue anew.";
    NotPaid "NOT_PAID" CONFLICT "Not paid"
        "The reservation is not paid, or was refunded, so there is no ticket to show."
        "Pay for it while it is held.";
    AlreadyPaid "ALREADY_PAID" CONFLICT "Already paid"
        "The reservation is paid."
        "Nothing: the seats are the buyer's.";
    HoldExpired "HOLD_EXPIRED" CONFLICT "Hold expired"
        "The hold ran out before the payment; no points were taken."
        "Reserve anew.";
    HoldCancelled "HOLD_CANCELLED" CONFLICT "Hold given back"
        "The reservation was cancelled; no points were taken."
        "Reserve anew.";
    QueueSoldOut "QUEUE_SOLD_OUT" CONFLICT "Sold out"
        "Everything behind the queue is sold."
        "Come back if seats are given back: the queue's document says so.";
    QueueEnded "QUEUE_ENDED" CONFLICT "Sale over"
        "The last sale behind the queue is over."
        "Choose a concert behind another queue.";
    QueueDrawn "QUEUE_DRAWN" CONFLICT "Drawn"
        "Those who joined before the opening were drawn, so the opening stays when it was."
        "Pause the queue instead, or make another one.";
    ChallengeUsed "CHALLENGE_USED" CONFLICT "Solution used"
        "The solution of the challenge was used for another join; nothing was done."
        "Get a new challenge and solve it. To repeat a join, send it with the same idempotency key as the first time.";
    IdempotencyInFlight "IDEMPOTENCY_IN_FLIGHT" CONFLICT "Request in progress"
        "A request with the same idempotency key has not been answered yet."
        "Wait a second and send the same request with the same key.";
    AlreadyExists "ALREADY_EXISTS" CONFLICT "Already exists"
        "There is one with this name or id already."
        "Use another name, or the one that exists.";
    SessionHasPlan "SESSION_HAS_PLAN" CONFLICT "Session has a plan"
        "The seats of the session are the places of its plan, and no others can be added."
        "Make another session, with another plan.";
    SoldOrHeld "SOLD_OR_HELD" CONFLICT "Sold or held"
        "Seats in it are sold or held, or were refunded, so it cannot be removed."
        "Call it off, which gives everybody their points back.";
    ChangedSince "CHANGED_SINCE" CONFLICT "Changed since"
        "The queue is no longer as that change left it, so the change cannot be taken back; current has its settings."
        "Look at the settings, and change them to what they are to be.";
    UndoTooLate "UNDO_TOO_LATE" CONFLICT "Too late to take back"
        "A change can be taken back for ten minutes."
        "Change the settings to what they are to be.";
    NotUndoable "NOT_UNDOABLE" CONFLICT "Not to be taken back"
        "The entry of the log is no change of a queue's settings."
        "Take back changes of queues only.";
    ChangedMeanwhile "CHANGED_MEANWHILE" PRECONDITION_FAILED "Changed meanwhile"
        "The queue's settings are no longer those that If-Match names; nothing was changed, and current has them."
        "Look at the settings as they are now, and decide again.";
    BodyTooLarge "BODY_TOO_LARGE" PAYLOAD_TOO_LARGE "Body too large"
        "The body is larger than the service reads."
        "Send less.";
    UriTooLong "URI_TOO_LONG" URI_TOO_LONG "URI too long"
        "The path and query are longer than the service reads."
        "Send less.";
    UnsupportedMediaType "UNSUPPORTED_MEDIA_TYPE" UNSUPPORTED_MEDIA_TYPE "Not JSON"
        "The body's Content-Type is not application/json."
        "Send JSON and say so.";
    NoSeats "NO_SEATS" UNPROCESSABLE_ENTITY "No seats"
        "The list of seats is empty."
        "Name at least one seat.";
    DuplicateSeats "DUPLICATE_SEATS" UNPROCESSABLE_ENTITY "Duplicate seats"
        "The list names a seat twice."
        "Name each seat once.";
    TooManySeats "TOO_MANY_SEATS" UNPROCESSABLE_ENTITY "Too many seats"
        "The list is longer than one reservation may be."
        "Ask for fewer seats.";
    SeatsOrBest "SEATS_OR_BEST" UNPROCESSABLE_ENTITY "Seats or the best"
        "The request names seats and asks for the best, or does neither."
        "Send seatIds or best.";
    GradeNotFound "GRADE_NOT_FOUND" UNPROCESSABLE_ENTITY "No such grade"
        "The session has no seats of this grade, or has no plan at all."
        "Choose one of the concert's prices.";
    SectionNotFound "SECTION_NOT_FOUND" UNPROCESSABLE_ENTITY "No such section"
        "The session's plan has no such section, or it has no plan at all."
        "Choose a section of the plan.";
    LeavesSingleSeat "LEAVES_SINGLE_SEAT" UNPROCESSABLE_ENTITY "A single seat would be left"
        "Beside the seats one free seat would be left between taken ones, and as many seats could be had otherwise."
        "Choose seats beside taken ones or an aisle, or leave two free.";
    InvalidAmount "INVALID_AMOUNT" UNPROCESSABLE_ENTITY "Invalid amount"
        "The amount is not a positive number of points."
        "Send a positive amount.";
    PointsOverflow "POINTS_OVERFLOW" UNPROCESSABLE_ENTITY "Too many points"
        "The balance would exceed what an account can hold."
        "Send a smaller amount.";
    UserIdTooLarge "USER_ID_TOO_LARGE" UNPROCESSABLE_ENTITY "User id too large"
        "The user's id is above 2⁵³ − 1, which not every JSON parser reads exactly."
        "Use an id up to 9007199254740991.";
    IdempotencyKeyReused "IDEMPOTENCY_KEY_REUSED" UNPROCESSABLE_ENTITY "Idempotency key reused"
        "The idempotency key was used for a request with another content."
        "Use a new key for a new request.";
    PlanInvalid "PLAN_INVALID" UNPROCESSABLE_ENTITY "Invalid plan"
        "Something is wrong with the plan of the hall; the detail names the first of it."
        "Ask with ?dry_run=true for all that is wrong, and correct it.";
    InvalidSetting "INVALID_SETTING" UNPROCESSABLE_ENTITY "Invalid setting"
        "A value given to the admin API is out of range or contradicts another."
        "Correct the value that the detail names.";
    TooManySlowBodies "TOO_MANY_SLOW_BODIES" TOO_MANY_REQUESTS "Too many slow bodies"
        "Too many request bodies of this client address are on their way at once; nothing was done."
        "Send the body together with its head, and wait as long as Retry-After says.";
    TooManyConnections "TOO_MANY_CONNECTIONS" TOO_MANY_REQUESTS "Too many connections"
        "Too many connections of this client address are open; nothing was done."
        "Send several requests over one connection, close those that are not needed, and wait as long as Retry-After says.";
    RateLimited "RATE_LIMITED" TOO_MANY_REQUESTS "Too many requests"
        "This client address sends faster than allowed."
        "Wait as long as Retry-After says.";
    HeadersTooLarge "HEADERS_TOO_LARGE" REQUEST_HEADER_FIELDS_TOO_LARGE "Headers too large"
        "The request's head is larger than the service reads."
        "Send fewer or shorter headers.";
    Internal "INTERNAL" INTERNAL_SERVER_ERROR "Internal error"
        "A fault of the service, logged under the request id."
        "Try again with the same idempotency key; if it persists, report the request id.";
    Overloaded "OVERLOADED" SERVICE_UNAVAILABLE "Overloaded"
        "Too many requests of this kind, or connections, are in progress; nothing was done."
        "Wait as long as Retry-After says, then try again.";
    StoreUnavailable "STORE_UNAVAILABLE" SERVICE_UNAVAILABLE "Store unavailable"
        "The store does not answer; nothing was done."
        "Wait as long as Retry-After says, then try again with the same idempotency key.";
    QueueUnavailable "QUEUE_UNAVAILABLE" SERVICE_UNAVAILABLE "Queue unavailable"
        "The queue cannot give out numbers; nobody's place is lost."
        "Wait as long as Retry-After says, then try again.";
    IssuerUnavailable "ISSUER_UNAVAILABLE" SERVICE_UNAVAILABLE "Issuer unavailable"
        "The keys that people's tokens are checked with cannot be read; nothing was done."
        "Wait as long as Retry-After says, then try again.";
    ShuttingDown "SHUTTING_DOWN" SERVICE_UNAVAILABLE "Shutting down"
        "This instance is stopping; nothing was done."
        "Try again; another instance will answer.";
    OutcomeUnknown "OUTCOME_UNKNOWN" GATEWAY_TIMEOUT "Outcome unknown"
        "The store was reached but did not confirm: it may have happened or not."
        "Send the same request with the same idempotency key; it answers what happened.";
}

impl ErrorCode {
    /// What `WWW-Authenticate` says beside it (RFC 6750), where a bearer token would help.
    const fn challenge(self) -> Option<&'static str> {
        match self {
            Self::PersonTokenMissing | Self::AdminTokenMissing => Some("Bearer"),
            Self::PersonTokenInvalid | Self::AdminTokenInvalid => {
                Some("Bearer error=\"invalid_token\"")
            }
            _ => None,
        }
    }

    /// The code in lower-case kebab form: the anchor in the documentation.
    pub fn anchor(self) -> String {
        self.as_str().to_ascii_lowercase().replace('_', "-")
    }
}

/// An error on its way to the client.
///
/// The request id is that of the request being polled when the response is made; see
/// [`RequestId::current`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: ErrorCode,
    detail: Option<Cow<'static, str>>,
    retry_after_seconds: Option<u32>,
    closes: bool,
    current: Option<Box<Value>>,
    cause: Option<Cause>,
}

/// What is at the bottom of a problem. It travels in the extensions of a response, which no client
/// sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause(pub String);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    message: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<&'a Value>,
}

impl Problem {
    /// A problem whose detail is the code's meaning.
    pub fn new(code: ErrorCode) -> Self {
        Self {
            code,
            detail: None,
            retry_after_seconds: None,
            closes: false,
            current: None,
            cause: None,
        }
    }

    /// A 500 with its cause.
    pub fn internal(cause: impl Display) -> Self {
        Self::new(ErrorCode::Internal).because(cause)
    }

    /// Says why, for the log: whatever observes the request writes it down under the request's id.
    /// The client gets none of it.
    #[must_use]
    pub fn because(mut self, cause: impl Display) -> Self {
        self.cause = Some(Cause(cause.to_string()));
        self
    }

    /// Says what is wrong with this very request. Must not repeat a secret. Ignored for
    /// [`ErrorCode::Internal`], whose responses never carry a cause.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        if self.code != ErrorCode::Internal {
            self.detail = Some(detail.into());
        }
        self
    }

    /// Adds `Retry-After`, in whole seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// Says what it is now that was to be changed.
    #[must_use]
    pub fn current(mut self, current: Value) -> Self {
        self.current = Some(Box::new(current));
        self
    }

    /// Ends the connection with the answer, where what the client still sends is of no use.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The detail that the client will read.
    pub fn detail_text(&self) -> &str {
        self.detail.as_deref().unwrap_or(self.code.meaning())
    }

    /// The JSON document.
    pub fn to_json(&self, request_id: &str) -> Vec<u8> {
        let detail = self.detail_text();
        let document = Document {
            kind: &format!("/docs/errors#{}", self.code.anchor()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail,
            code: self.code.as_str(),
            message: detail,
            request_id,
            current: self.current.as_deref(),
        };
        // Texts and JSON always serialise.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

impl From<ErrorCode> for Problem {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let id = RequestId::current().map_or_else(|| "-".to_owned(), |id| id.to_string());
        let mut response = Response::new(Body::from(self.to_json(&id)));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(challenge) = self.code.challenge() {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

/// The text of `docs/errors.md`.
pub fn errors_markdown() -> String {
    let mut out = String::from(
        "# Errors\n\n\
         Every error is an `application/problem+json` document (RFC 9457) with `type`, `title`, \
         `status`, `detail`, and besides these a stable `code`, a `message` (the detail again) and \
         the `requestId` to quote when asking for help. Decide by `code`; texts may change.\n\n\
         This page is generated from the table in `crates/server/src/http/problem.rs`.\n\n\
         | Status | Code | Meaning |\n|---|---|---|\n",
    );
    // Writing to a string cannot fail.
    for code in ErrorCode::ALL {
        let (status, anchor) = (code.status().as_u16(), code.anchor());
        let _ = writeln!(out, "| {status} | [{}](#{anchor}) | {} |", code.as_str(), code.meaning());
    }
    for code in ErrorCode::ALL {
        let _ = write!(
            out,
            "\n<a id=\"{}\"></a>\n## {}\n\n**{} {}.** {}\n\n**What to do:** {}\n",
            code.anchor(),
            code.as_str(),
            code.status().as_u16(),
            code.title(),
            code.meaning(),
            code.advice(),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_upper_snake_and_unique() {
        let mut seen: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        for code in &seen {
            assert!(code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{code}");
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), ErrorCode::ALL.len());
        assert!(
            ErrorCode::ALL
                .iter()
                .all(|code| code.status().is_client_error() || code.status().is_server_error())
        );
    }

    #[test]
    fn the_document_has_what_both_generations_of_clients_read() {
        let problem = Problem::new(ErrorCode::SeatTaken).detail("seat 7 is held");
        let json: serde_json::Value = serde_json::from_slice(&problem.to_json("r1")).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "/docs/errors#seat-taken", "title": "Seat taken", "status": 409,
                "detail": "seat 7 is held", "code": "SEAT_TAKEN", "message": "seat 7 is held",
                "requestId": "r1",
            })
        );
        let response = Problem::new(ErrorCode::Overloaded).retry_after(3).into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
    }

    #[test]
    fn an_internal_error_carries_no_cause() {
        let problem = Problem::internal("password=hunter2").detail("hunter2");
        assert!(!String::from_utf8(problem.to_json("r1")).unwrap().contains("hunter2"));
    }

    #[test]
    fn errors_md_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
        let wanted = errors_markdown();
        if std::env::var_os("BOXOFFICE_TEST_BLESS").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == wanted,
            "docs/errors.md differs from the table; regenerate it with \
             `BOXOFFICE_TEST_BLESS=1 cargo test -p boxoffice errors_md`"
        );
    }
}
