//! The one list of endpoints, and the classes of work that they are sorted into.
//!
//! Whoever makes something of endpoints expands [`endpoints!`]: this module into [`Route`], with its
//! metric labels; `http` into the router; `http::openapi` into the API's description.
//!
//! What does not belong here: anything of HTTP beyond the words. What a request must bring along is
//! not listed either. The description reads it off the extractors that the handler takes.

use std::fmt::Write;

use boxoffice_backends::store::Role;
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// Hands every endpoint to the macro `$expand`:
///
/// ```text
/// /// What it does: the summary in the description.
/// Name = METHOD "path template" Class {
///     handler: the handler, in a module of `http`,
///     role: who may ask, for endpoints of the admin API and for no others,
///     operation: "tag" "operation id",
///     answers: [status "what it means" => what its body is, …],
///     errors: [codes of the handler itself; extractors bring along their own],
/// }
/// ```
///
/// An endpoint without an operation is not described. One without a handler is served by somebody
/// else's routes, or stands for requests that have no endpoint; `ANY` is its method.
macro_rules! endpoints {
    ($expand:ident) => {
        $expand! {
            /// Joins a queue.
            QueueJoin = POST "/api/v1/waiting-queues" Join {
                handler: queue::join,
                operation: "queue" "join",
                answers: [
                    200 "The ticket that there is" => json::<queue::JoinResponse>(),
                    201 "A ticket at the end of the line" => json::<queue::JoinResponse>(),
                ],
                errors: [
                    QueueNotFound, QueueSoldOut, QueueEnded, RateLimited, ChallengeRequired,
                    ChallengeInvalid, ChallengeUsed, QueueUnavailable, ShuttingDown, OutcomeUnknown,
                ],
            }

            /// Returns where a ticket stands.
            QueueStatus = GET "/api/v1/waiting-queues" Poll {
                handler: queue::status,
                operation: "queue" "status",
                answers: [200 "Where the ticket stands" => json::<queue::StatusResponse>()],
                errors: [RateLimited],
            }

            /// Gives up a ticket.
            QueueLeave = DELETE "/api/v1/waiting-queues" Join {
                handler: queue::leave,
                operation: "queue" "leave",
                answers: [204 "The place is given up, for good"],
                errors: [StoreUnavailable, OutcomeUnknown],
            }

            /// Returns the public state of a queue.
            QueuePublic = GET "/api/v1/waiting-queues/{queue}" Poll {
                handler: queue::document,
                operation: "queue" "document",
                answers: [
                    200 "How the queue is doing; may be cached for a second" => json::<queue::QueueDocument>(),
                ],
                errors: [],
            }

            /// Lets a visitor pass, or says where to wait: for proxies.
            Gate = GET "/gate/{queue}" Poll {
                handler: gate::ask,
                operation: "queue" "gate",
                answers: [204 "The pass is good"],
                errors: [],
            }

            /// Makes a challenge to be solved by who wants to join.
            QueueChallenge = GET "/api/v1/waiting-queues/{queue}/challenge" Join {
                handler: queue::challenge,
                operation: "queue" "challenge",
                answers: [200 "A challenge, as the widget ALTCHA takes it" => json::<challenge::Challenge>()],
                errors: [],
            }

            /// Returns a part of the admission log of a queue.
            QueueLog = GET "/api/v1/waiting-queues/{queue}/log" Browse {
                handler: admission_log::show,
                operation: "queue" "admission_log",
                answers: [
                    200 "Records of who was let in, each chained to the one before; may be cached for a second"
                        => json::<admission_log::AdmissionLog>(),
                ],
                errors: [StoreUnavailable],
            }

            /// Lists all concerts.
            ConcertList = GET "/api/v1/concerts" Browse {
                handler: concerts::list,
                operation: "concerts" "list",
                answers: [200 "All concerts" => json::<concerts::ConcertList>()],
                errors: [],
            }

            /// Returns the public state of a concert.
            ConcertGet = GET "/api/v1/concerts/{id}" Poll {
                handler: concerts::show,
                operation: "concerts" "show_concert",
                answers: [
                    200 "The concert with its sessions; may be cached for a second"
                        => json::<concerts::ConcertDocument>(),
                ],
                errors: [ConcertNotFound],
            }

            /// Returns the plan of a hall.
            PlanGet = GET "/api/v1/plans/{digest}" Poll {
                handler: plans::show,
                operation: "concerts" "show_plan",
                answers: [
                    200 "The plan; it never changes" => json::<plans::PlanDocument>(),
                    304 "The client has it",
                ],
                errors: [],
            }

            /// Lists the sessions of a concert that can still be booked.
            SessionList = GET "/api/v1/concerts/{id}/sessions" Browse {
                handler: concerts::sessions,
                operation: "concerts" "sessions",
                answers: [200 "Sessions that can still be booked" => json::<concerts::SessionList>()],
                errors: [
                    TokenNotActivated, TokenExpired, TokenSpent, WrongQueue, ConcertNotFound,
                ],
            }

            /// Lists the seats of a session.
            SeatList = GET "/api/v1/concerts/{id}/sessions/{sessionId}/seats" Browse {
                handler: concerts::seats,
                operation: "concerts" "seats",
                answers: [
                    200 "The seats, or with `since` their states as bits or what has changed; a hold decides who gets them"
                        => json::<seat_list::SeatList>()
                            .or_json::<seat_states::SeatStateList>()
                            .or_json::<seat_states::SeatChanges>(),
                    304 "The client's list is current",
                ],
                errors: [
                    TokenNotActivated, TokenExpired, TokenSpent, WrongQueue, ConcertNotFound,
                    SessionNotFound,
                ],
            }

            /// Tells the states of the seats of a session, and what changes, until the ticket is over.
            SeatStream = GET "/api/v1/concerts/{id}/sessions/{sessionId}/seats/stream" Browse {
                handler: concerts::seat_stream,
                operation: "concerts" "seat_stream",
                answers: [
                    200 "Events `seats`, whose data is what the list answers with `since`, and whose id is the version"
                        => text("text/event-stream"),
                ],
                errors: [
                    TokenNotActivated, TokenExpired, TokenSpent, WrongQueue, ConcertNotFound,
                    SessionNotFound,
                ],
            }

            /// Holds seats.
            ReservationCreate = POST "/api/v1/concerts/{id}/sessions/{sessionId}/reservations" Reservation {
                handler: reservations::create,
                operation: "sales" "reserve",
                answers: [
                    201 "All seats are held" => json::<reservations::ReserveResponse>().header("Location", "The reservation"),
                ],
                errors: [
                    UserMismatch, TokenNotActivated, TokenExpired, TokenSpent, WrongQueue,
                    ConcertNotFound, SessionNotFound, SeatNotFound, SeatTaken,
                    ReservationNotOpen, ReservationClosed, SessionStarted, SeatLimitReached,
                    SessionCancelled, LiveHoldLimit, HoldLimit,
                    NotEnoughSeats, NotTogether, NoSeats, DuplicateSeats, TooManySeats, SeatsOrBest,
                    GradeNotFound, SectionNotFound, LeavesSingleSeat,
                    StoreUnavailable, OutcomeUnknown,
                ],
            }

            /// Lists the reservations of the ticket's user, the newest first.
            ReservationList = GET "/api/v1/reservations" Browse {
                handler: reservations::list,
                operation: "sales" "list_own_reservations",
                answers: [200 "Some of them" => json::<reservations::ReservationList>()],
                errors: [TokenNotActivated, StoreUnavailable],
            }

            /// Shows a reservation.
            ReservationGet = GET "/api/v1/reservations/{id}" Browse {
                handler: reservations::show,
                operation: "sales" "show",
                answers: [200 "The reservation" => json::<reservations::ReservationResponse>()],
                errors: [
                    TokenNotActivated, ReservationNotYours, ReservationNotFound,
                    StoreUnavailable,
                ],
            }

            /// Signs what a buyer shows at the venue, anew each time.
            ReservationTicket = GET "/api/v1/reservations/{id}/ticket" Browse {
                handler: concert_tickets::sign,
                operation: "sales" "show_ticket",
                answers: [200 "What to show, as text and as a QR code" => json::<concert_tickets::SignedTicket>()],
                errors: [
                    TokenNotActivated, ReservationNotYours, ReservationNotFound, SessionNotFound,
                    NotPaid, SessionCancelled, StoreUnavailable,
                ],
            }

            /// Gives back a hold.
            ReservationCancel = DELETE "/api/v1/reservations/{id}" Reservation {
                handler: reservations::cancel,
                operation: "sales" "cancel",
                answers: [204 "The seats are free again"],
                errors: [
                    TokenNotActivated, ReservationNotYours, ReservationNotFound, AlreadyPaid,
                    AlreadyRefunded, HoldExpired, HoldCancelled, StoreUnavailable, OutcomeUnknown,
                ],
            }

            /// Pays for a reservation and spends the ticket.
            PaymentCreate = POST "/api/v1/payments" Payment {
                handler: payments::create,
                operation: "sales" "pay",
                answers: [201 "Paid" => json::<payments::PaymentResponse>()],
                errors: [
                    NotEnoughPoints, UserMismatch, TokenNotActivated, TokenSpent, WrongQueue,
                    ReservationNotYours, ReservationNotFound, AlreadyPaid, AlreadyRefunded,
                    HoldExpired, HoldCancelled, SessionCancelled, StoreUnavailable, OutcomeUnknown,
                ],
            }

            /// Gives the points of a payment back; its seats are free again.
            PaymentRefund = POST "/api/v1/payments/{id}/refund" Payment {
                handler: refunds::create,
                operation: "sales" "refund",
                answers: [200 "The points are back" => json::<refunds::RefundResponse>()],
                errors: [
                    UserMismatch, TokenNotActivated, ReservationNotYours, PaymentNotFound,
                    RefundTooLate, PointsOverflow, StoreUnavailable, OutcomeUnknown,
                ],
            }

            /// Charges points onto a balance. `POST` does the same.
            PointsCharge = PATCH "/api/v1/users/{id}/points/charge" Charge {
                handler: points::charge,
                operation: "points" "charge",
                answers: [200 "The balance afterwards" => json::<points::PointsResponse>()],
                errors: [InvalidAmount, PointsOverflow, StoreUnavailable, OutcomeUnknown],
            }

            /// Charges points, for clients that cannot send `PATCH`.
            PointsChargeByPost = POST "/api/v1/users/{id}/points/charge" Charge {
                handler: points::charge,
                operation: "points" "charge_by_post",
                answers: [200 "The balance afterwards" => json::<points::PointsResponse>()],
                errors: [InvalidAmount, PointsOverflow, StoreUnavailable, OutcomeUnknown],
            }

            /// Returns a user's balance.
            PointsBalance = GET "/api/v1/users/{id}/points" Browse {
                handler: points::balance,
                operation: "points" "balance",
                answers: [
                    200 "The balance; 0 for a user never heard of" => json::<points::PointsResponse>(),
                ],
                errors: [StoreUnavailable],
            }

            /// Reports that the process answers.
            HealthLive = GET "/health/live" Ops {
                handler: ops::live,
                operation: "operations" "live",
                answers: [200 "The process answers" => json::<Health>()],
                errors: [],
            }

            /// Reports whether the service can sell.
            HealthReady = GET "/health/ready" Ops {
                handler: ops::ready,
                operation: "operations" "ready",
                answers: [
                    200 "It can" => json::<Health>(),
                    503 "It cannot" => json::<Health>(),
                ],
                errors: [],
            }

            /// Returns the metrics to Prometheus.
            Metrics = GET "/metrics" Ops {
                handler: ops::metrics,
                operation: "operations" "metrics",
                answers: [
                    200 "The metrics; OpenMetrics where Accept asks for it"
                        => text("text/plain").or("application/openmetrics-text"),
                ],
                errors: [],
            }

            /// Returns the metrics where existing scrape configurations look.
            MetricsActuator = GET "/actuator/prometheus" Ops {
                handler: ops::metrics,
                operation: "operations" "metrics_actuator",
                answers: [
                    200 "The same, where existing configurations look"
                        => text("text/plain").or("application/openmetrics-text"),
                ],
                errors: [],
            }

            /// Returns the public keys that passes are signed with.
            KeySet = GET "/.well-known/jwks.json" Ops {
                handler: keys::set,
                operation: "operations" "key_set",
                answers: [
                    200 "The keys; may be kept for a minute"
                        => json::<keys::KeySet>().named("application/jwk-set+json"),
                ],
                errors: [],
            }

            /// The OpenAPI document.
            OpenApi = GET "/openapi.json" Ops {
                handler: openapi::show,
            }

            /// The OpenAPI document for people.
            SwaggerUi = GET "/swagger-ui/" Ops {}

            /// Lists the error codes.
            ErrorList = GET "/docs/errors" Ops {
                handler: ops::errors,
                operation: "operations" "errors",
                answers: [200 "Every error code, as Markdown" => text("text/markdown")],
                errors: [],
            }

            /// Sends a browser to the issuer, to sign in.
            AuthLogin = GET "/auth/login" SignIn {}

            /// Takes a browser back that the issuer has sent.
            AuthCallback = GET "/auth/callback" SignIn {}

            /// Signs out in this browser.
            AuthLogout = POST "/auth/logout" SignIn {
                handler: sign_in::logout,
                operation: "people" "sign_out",
                answers: [204 "The cookie is gone"],
                errors: [],
            }

            /// Tells who is signed in.
            AuthMe = GET "/auth/me" Browse {
                handler: sign_in::me,
                operation: "people" "me",
                answers: [200 "Who it is" => json::<sign_in::Me>()],
                errors: [],
            }

            /// The page with all concerts.
            PageStart = GET "/" Poll {}

            /// The page of a concert.
            PageConcert = GET "/c/{id}" Poll {}

            /// The page with the seats of a session.
            PageSeats = GET "/c/{id}/s/{sessionId}" Poll {}

            /// The page to pay for a reservation.
            PagePay = GET "/pay/{id}" Poll {}

            /// The page of a ticket that was bought.
            PageTicket = GET "/t/{id}" Poll {}

            /// The page with what a browser has of a person.
            PageMe = GET "/me" Poll {}

            /// The page to wait on.
            PageWait = GET "/wait/{queue}" Poll {}

            /// The page to sign in to the console.
            PageOpsLogin = GET "/ops/login" Poll {}

            /// The console: what is happening now.
            PageOps = GET "/ops" Poll {}

            /// A section of the console.
            PageOpsSection = GET "/ops/{*section}" Poll {}

            /// What pages are made of.
            PageAsset = GET "/assets/{*file}" Poll {}

            /// Signs an operator in to the console.
            ConsoleLogin = POST "/ops/login" Browse {
                handler: console::login,
                operation: "console" "login",
                answers: [204 "Signed in: the cookie says who it is"],
                errors: [AdminTokenInvalid, RoleRequired, RateLimited, StoreUnavailable],
            }

            /// Signs out of the console in this browser.
            ConsoleLogout = POST "/ops/logout" Browse {
                handler: console::logout,
                operation: "console" "logout",
                answers: [204 "The cookie is gone"],
                errors: [],
            }

            /// Shows which operator asks.
            AdminMe = GET "/admin/v1/me" Admin {
                handler: console::me,
                role: Viewer,
                operation: "admin" "current_operator",
                answers: [200 "The operator" => json::<console::Me>()],
                errors: [],
            }

            /// Tells what goes on, once a second, as server-sent events: `history`, then `live`; `end` says why there are no more.
            AdminLive = GET "/admin/v1/live" Admin {
                handler: live::live,
                role: Viewer,
                operation: "admin" "what_goes_on",
                answers: [
                    200 "Events; those called `live` have this as their data"
                        => json::<live::Snapshot>().named("text/event-stream"),
                ],
                errors: [],
            }

            /// Lists all queues.
            AdminQueueList = GET "/admin/v1/queues" Admin {
                handler: admin::queues,
                role: Viewer,
                operation: "admin" "queues",
                answers: [200 "All queues" => json::<admin::AdminQueueList>()],
                errors: [],
            }

            /// Makes a queue.
            AdminQueueCreate = POST "/admin/v1/queues" Admin {
                handler: admin::create_queue,
                role: Admin,
                operation: "admin" "create_queue",
                answers: [201 "The queue" => json::<admin::AdminQueue>()],
                errors: [InvalidSetting, AlreadyExists, StoreUnavailable, OutcomeUnknown],
            }

            /// Shows a queue.
            AdminQueueGet = GET "/admin/v1/queues/{queue}" Admin {
                handler: admin::queue,
                role: Viewer,
                operation: "admin" "queue",
                answers: [
                    200 "The queue" => json::<admin::AdminQueue>().header("ETag", "Stands for its settings"),
                ],
                errors: [QueueNotFound],
            }

            /// Says what a change of a queue would do, and does not change it.
            AdminQueuePreview = POST "/admin/v1/queues/{queue}/preview" Admin {
                handler: console::preview,
                role: Viewer,
                operation: "admin" "preview_queue",
                answers: [200 "What can be expected" => json::<console::Preview>()],
                errors: [QueueNotFound, InvalidSetting],
            }

            /// Changes how a queue admits.
            AdminQueueChange = PATCH "/admin/v1/queues/{queue}" Admin {
                handler: admin::change_queue,
                role: Operator,
                operation: "admin" "change_queue",
                answers: [
                    200 "The queue afterwards" => json::<admin::AdminQueue>().header("ETag", "Stands for its settings"),
                ],
                errors: [InvalidSetting, QueueDrawn, StoreUnavailable, OutcomeUnknown],
            }

            /// Stops admission; joining and polling go on.
            AdminQueuePause = POST "/admin/v1/queues/{queue}/pause" Admin {
                handler: admin::pause,
                role: Operator,
                operation: "admin" "pause",
                answers: [200 "The queue afterwards" => json::<admin::AdminQueue>()],
                errors: [StoreUnavailable, OutcomeUnknown],
            }

            /// Takes admission up again.
            AdminQueueResume = POST "/admin/v1/queues/{queue}/resume" Admin {
                handler: admin::resume,
                role: Operator,
                operation: "admin" "resume",
                answers: [200 "The queue afterwards" => json::<admin::AdminQueue>()],
                errors: [StoreUnavailable, OutcomeUnknown],
            }

            /// Issues opaque tokens: all or none.
            AdminTokenIssue = POST "/admin/v1/tokens" Admin {
                handler: admin::issue_tokens,
                role: Admin,
                operation: "admin" "issue_tokens",
                answers: [201 "The tokens are valid" => json::<admin::IssuedTokens>()],
                errors: [
                    InvalidSetting, QueueNotFound, AlreadyExists, StoreUnavailable,
                    OutcomeUnknown,
                ],
            }

            /// Makes a concert.
            AdminConcertCreate = POST "/admin/v1/concerts" Admin {
                handler: admin::create_concert,
                role: Admin,
                operation: "admin" "create_concert",
                answers: [201 "The concert" => json::<admin::ConcertCreated>()],
                errors: [InvalidSetting, QueueNotFound, StoreUnavailable, OutcomeUnknown],
            }

            /// Makes a session with its first seats, or with the hall of a seating plan.
            AdminSessionCreate = POST "/admin/v1/concerts/{id}/sessions" Admin {
                handler: admin::create_session,
                role: Admin,
                operation: "admin" "create_session",
                answers: [
                    200 "What would be made of the plan" => json::<PlanReport>(),
                    201 "The session" => json::<admin::SessionCreated>(),
                ],
                errors: [
                    InvalidSetting, PlanInvalid, PlanNotFound, ConcertNotFound, StoreUnavailable,
                    OutcomeUnknown,
                ],
            }

            /// Calls off all sessions of a concert; holds end and payments are refunded, some at a time.
            AdminConcertCancel = POST "/admin/v1/concerts/{id}/cancel" Admin {
                handler: calling_off::cancel_concert,
                role: Admin,
                operation: "admin" "cancel_concert",
                answers: [200 "Called off; what is left to be settled" => json::<calling_off::Progress>()],
                errors: [ConcertNotFound, StoreUnavailable, OutcomeUnknown],
            }

            /// Shows how far the refunds of a concert's sessions are.
            AdminConcertCancelled = GET "/admin/v1/concerts/{id}/cancel" Admin {
                handler: calling_off::concert_progress,
                role: Viewer,
                operation: "admin" "concert_cancelled",
                answers: [200 "The sessions that were called off" => json::<calling_off::Progress>()],
                errors: [ConcertNotFound, StoreUnavailable],
            }

            /// Calls off a session.
            AdminSessionCancel = POST "/admin/v1/concerts/{id}/sessions/{sessionId}/cancel" Admin {
                handler: calling_off::cancel_session,
                role: Admin,
                operation: "admin" "cancel_session",
                answers: [200 "Called off; what is left to be settled" => json::<calling_off::Progress>()],
                errors: [SessionNotFound, StoreUnavailable, OutcomeUnknown],
            }

            /// Shows how far the refunds of a session are.
            AdminSessionCancelled = GET "/admin/v1/concerts/{id}/sessions/{sessionId}/cancel" Admin {
                handler: calling_off::session_progress,
                role: Viewer,
                operation: "admin" "session_cancelled",
                answers: [200 "The session, if it was called off" => json::<calling_off::Progress>()],
                errors: [SessionNotFound, StoreUnavailable],
            }

            /// Adds seats to a session, numbered on from its last.
            AdminSeatCreate = POST "/admin/v1/concerts/{id}/sessions/{sessionId}/seats" Admin {
                handler: admin::create_seats,
                role: Admin,
                operation: "admin" "create_seats",
                answers: [201 "The seats" => json::<admin::SeatsCreated>()],
                errors: [
                    InvalidSetting, SessionNotFound, SessionHasPlan, StoreUnavailable,
                    OutcomeUnknown,
                ],
            }

            /// Corrects a concert: what is left out stays as it is.
            AdminConcertChange = PATCH "/admin/v1/concerts/{id}" Admin {
                handler: admin::change_concert,
                role: Admin,
                operation: "admin" "change_concert",
                answers: [200 "The concert afterwards" => json::<concerts::ListedConcert>()],
                errors: [InvalidSetting, ConcertNotFound, StoreUnavailable, OutcomeUnknown],
            }

            /// Removes a concert in which nothing is sold or held, with its sessions.
            AdminConcertRemove = DELETE "/admin/v1/concerts/{id}" Admin {
                handler: admin::remove_concert,
                role: Admin,
                operation: "admin" "remove_concert",
                answers: [204 "It is gone"],
                errors: [ConcertNotFound, SoldOrHeld, StoreUnavailable, OutcomeUnknown],
            }

            /// Moves a session to another time.
            AdminSessionChange = PATCH "/admin/v1/concerts/{id}/sessions/{sessionId}" Admin {
                handler: admin::change_session,
                role: Admin,
                operation: "admin" "change_session",
                answers: [200 "The session afterwards" => json::<admin::AdminSession>()],
                errors: [InvalidSetting, SessionNotFound, StoreUnavailable, OutcomeUnknown],
            }

            /// Removes a session in which nothing is sold or held.
            AdminSessionRemove = DELETE "/admin/v1/concerts/{id}/sessions/{sessionId}" Admin {
                handler: admin::remove_session,
                role: Admin,
                operation: "admin" "remove_session",
                answers: [204 "It is gone"],
                errors: [SessionNotFound, SoldOrHeld, StoreUnavailable, OutcomeUnknown],
            }

            /// Lists the operators, but for the holder of the configured token.
            AdminOperatorList = GET "/admin/v1/operators" Admin {
                handler: operators::list,
                role: Viewer,
                operation: "admin" "operators",
                answers: [200 "All operators" => json::<operators::OperatorList>()],
                errors: [StoreUnavailable],
            }

            /// Adds an operator; the answer is the only one that has the token.
            AdminOperatorCreate = POST "/admin/v1/operators" Admin {
                handler: operators::add,
                role: Admin,
                operation: "admin" "add_operator",
                answers: [201 "The operator" => json::<operators::OperatorCreated>()],
                errors: [InvalidSetting, AlreadyExists, StoreUnavailable, OutcomeUnknown],
            }

            /// Takes an operator's token away.
            AdminOperatorRemove = DELETE "/admin/v1/operators/{name}" Admin {
                handler: operators::remove,
                role: Admin,
                operation: "admin" "remove_operator",
                answers: [204 "The token is refused from now on"],
                errors: [StoreUnavailable, OutcomeUnknown],
            }

            /// Says of a ticket that somebody shows whether it is good now.
            AdminTicketVerify = POST "/admin/v1/tickets/verify" Admin {
                handler: concert_tickets::verify,
                role: Viewer,
                operation: "admin" "verify_ticket",
                answers: [200 "Whether it is, and why not" => json::<concert_tickets::Verdict>()],
                errors: [StoreUnavailable],
            }

            /// Lists the keys that the service signs with, the oldest first.
            AdminKeyList = GET "/admin/v1/keys" Admin {
                handler: keys::list,
                role: Viewer,
                operation: "admin" "keys",
                answers: [200 "All keys" => json::<keys::KeyList>()],
                errors: [],
            }

            /// Changes the key that the service signs with.
            AdminKeyRotate = POST "/admin/v1/keys/rotate" Admin {
                handler: keys::rotate,
                role: Admin,
                operation: "admin" "rotate_key",
                answers: [201 "The new key" => json::<keys::KeyCreated>()],
                errors: [InvalidSetting, StoreUnavailable, OutcomeUnknown],
            }

            /// Lists what operators have changed, the latest first.
            AdminLog = GET "/admin/v1/log" Admin {
                handler: operators::log,
                role: Viewer,
                operation: "admin" "log",
                answers: [200 "A page of the log" => json::<operators::ChangeLog>().or_csv()],
                errors: [StoreUnavailable],
            }

            /// Takes a change of a queue back, within ten minutes, where the queue is still as that change left it.
            AdminUndo = POST "/admin/v1/log/{id}/undo" Admin {
                handler: admin::undo,
                role: Operator,
                operation: "admin" "undo",
                answers: [
                    200 "The queue afterwards" => json::<admin::AdminQueue>().header("ETag", "Stands for its settings"),
                ],
                errors: [
                    LogEntryNotFound, QueueNotFound, QueueDrawn, ChangedSince, UndoTooLate,
                    NotUndoable, StoreUnavailable, OutcomeUnknown,
                ],
            }

            /// Lists concerts.
            AdminConcertList = GET "/admin/v1/concerts" Admin {
                handler: lists::concerts,
                role: Viewer,
                operation: "admin" "list_concerts",
                answers: [200 "A page of them" => json::<lists::ConcertPage>().or_csv()],
                errors: [],
            }

            /// Lists the sessions of a concert, those that are over too.
            AdminSessionList = GET "/admin/v1/concerts/{id}/sessions" Admin {
                handler: lists::sessions,
                role: Viewer,
                operation: "admin" "list_sessions",
                answers: [200 "A page of them" => json::<lists::SessionPage>().or_csv()],
                errors: [ConcertNotFound],
            }

            /// Lists reservations.
            AdminReservationList = GET "/admin/v1/reservations" Admin {
                handler: lists::reservations,
                role: Viewer,
                operation: "admin" "list_reservations",
                answers: [200 "A page of them" => json::<lists::ReservationPage>().or_csv()],
                errors: [StoreUnavailable],
            }

            /// Sums up what is sold, by session and price.
            AdminSales = GET "/admin/v1/sales" Admin {
                handler: lists::sales,
                role: Viewer,
                operation: "admin" "sales",
                answers: [
                    200 "A page of them; `limit` and `after` are about sessions" => json::<lists::SalesPage>().or_csv(),
                ],
                errors: [],
            }

            /// Lists payments.
            AdminPaymentList = GET "/admin/v1/payments" Admin {
                handler: lists::payments,
                role: Viewer,
                operation: "admin" "list_payments",
                answers: [200 "A page of them" => json::<lists::PaymentPage>().or_csv()],
                errors: [StoreUnavailable],
            }

            /// Lists those who have an account.
            AdminPeopleList = GET "/admin/v1/people" Admin {
                handler: lists::people,
                role: Viewer,
                operation: "admin" "list_people",
                answers: [200 "A page of them" => json::<lists::PeoplePage>().or_csv()],
                errors: [StoreUnavailable],
            }

            /// Checks the numbered invariants on the live store.
            AdminAudit = GET "/admin/v1/audit" Admin {
                handler: admin::run_audit,
                role: Viewer,
                operation: "admin" "run_audit",
                answers: [200 "What the audit found; `clean` sums it up" => json::<AuditReport>()],
                errors: [StoreUnavailable],
            }

            /// A browser asks what a page of another origin may do.
            Preflight = ANY "(preflight)" Ops {}

            /// No endpoint has this path.
            NotFound = ANY "(not found)" Ops {}

            /// The path exists, but not with this method.
            MethodNotAllowed = ANY "(method not allowed)" Ops {}
        }
    };
}
pub(crate) use endpoints;

/// The text of a method.
macro_rules! method_text {
    (ANY) => {
        "*"
    };
    ($method:ident) => {
        stringify!($method)
    };
}

/// The role of an endpoint.
macro_rules! role_of {
    (handler: $handler:path, role: $role:ident, $($rest:tt)*) => {
        Some(Role::$role)
    };
    ($($details:tt)*) => {
        None
    };
}

macro_rules! routes {
    ($(
        $(#[$meta:meta])*
        $name:ident = $method:ident $template:literal $class:ident { $($details:tt)* }
    )+) => {
        /// An endpoint. One variant per method and path template, so that a metric label and an
        /// array index can be had without looking at the request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Route {
            $($(#[$meta])* $name,)+
        }

        impl Route {
            /// Every endpoint, in declaration order; `Route::X as usize` is its index.
            pub const ALL: &[Route] = &[$(Route::$name,)+];

            /// The method it is registered under; `*` where it takes any.
            pub const fn method(self) -> &'static str {
                match self { $(Route::$name => method_text!($method),)+ }
            }

            /// The path template, with `{…}` for parameters.
            pub const fn template(self) -> &'static str {
                match self { $(Route::$name => $template,)+ }
            }

            /// The class whose limit it counts against.
            pub const fn class(self) -> Class {
                match self { $(Route::$name => Class::$class,)+ }
            }

            /// The role that an operator must have at least; none where it is not for operators.
            pub const fn role(self) -> Option<Role> {
                match self { $(Route::$name => role_of!($($details)*),)+ }
            }
        }
    };
}

endpoints!(routes);

impl Route {
    /// What is for browsers: pages, and what they are made of.
    pub const PAGES: [Self; 11] = [
        Self::PageStart,
        Self::PageConcert,
        Self::PageSeats,
        Self::PagePay,
        Self::PageTicket,
        Self::PageMe,
        Self::PageWait,
        Self::PageOpsLogin,
        Self::PageOps,
        Self::PageOpsSection,
        Self::PageAsset,
    ];

    /// How many endpoints there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The endpoint with this method and path template.
    pub fn find(method: &str, template: &str) -> Option<Self> {
        let is_it = |route: &&Self| route.method() == method && route.template() == template;
        Self::ALL.iter().find(is_it).copied()
    }

    /// The endpoint's index, for arrays of [`Route::COUNT`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// An endpoint of the admin API that nobody was given a role for does not compile.
const _: () = {
    let mut index = 0;
    while index < Route::COUNT {
        let route = Route::ALL[index];
        let is_admin = matches!(route.class(), Class::Admin);
        assert!(is_admin == route.role().is_some(), "each admin endpoint has a role, and no other");
        index += 1;
    }
};

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.template())
    }
}

/// What a request competes with. Each class has a limit of its own, so that a crowd that browses
/// cannot keep a buyer from paying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Payments.
    Payment,
    /// Point charges, which must not take the place of payments.
    Charge,
    /// Reservations made and given back.
    Reservation,
    /// Queue status, pages and public documents: what is answered from memory at once.
    Poll,
    /// Queue joins and leaves.
    Join,
    /// Concerts, sessions, seats, balances.
    Browse,
    /// People who sign in or out. The issuer may be slow, and nobody else is to wait for it.
    SignIn,
    /// The admin API.
    Admin,
    /// Health, metrics, documents: never shed, because that is when they are needed.
    Ops,
}

impl Class {
    /// Every class; `Class::X as usize` is its index.
    pub const ALL: [Class; 9] = [
        Class::Payment,
        Class::Charge,
        Class::Reservation,
        Class::Poll,
        Class::Join,
        Class::Browse,
        Class::SignIn,
        Class::Admin,
        Class::Ops,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Class::Payment => "payment",
            Class::Charge => "charge",
            Class::Reservation => "reservation",
            Class::Poll => "poll",
            Class::Join => "join",
            Class::Browse => "browse",
            Class::SignIn => "sign_in",
            Class::Admin => "admin",
            Class::Ops => "ops",
        }
    }

    /// The class's index in [`Class::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl EncodeLabelValue for Class {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_follow_the_lists() {
        for (index, route) in Route::ALL.iter().enumerate() {
            assert_eq!(route.index(), index);
        }
        for (index, class) in Class::ALL.iter().enumerate() {
            assert_eq!(class.index(), index);
        }
    }

    #[test]
    fn no_two_endpoints_share_their_labels() {
        let mut labels: Vec<_> = Route::ALL.iter().map(|r| (r.method(), r.template())).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Route::COUNT);
    }
}
