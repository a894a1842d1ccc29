//! Who asks: tickets in `QUEUE-TOKEN`, and people in `Authorization`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use boxoffice_backends::sequencer::{PresentedTicket, Queue};
use boxoffice_backends::store::Role;
use boxoffice_domain::ids::{QueueName, UserId};
use boxoffice_domain::queue::{Ending, Place};
use boxoffice_domain::time::Timestamp;

use super::access::{ADMIN_SCHEME, bearer};
use super::describe::{Described, Description};
use super::extract::single_header;
use super::problem::{ErrorCode, Problem};
use super::reply::fault;
use super::sign_in::{self, IDENTITY_COOKIE};
use super::state::HttpState;
use crate::app::App;
use crate::people::{PERSON_MAX, People, Stranger};
use crate::tickets::{NoTicket, looks_signed};

/// What tickets are called among the security schemes of the API's description.
pub(super) const TICKET_SCHEME: &str = "queueToken";
/// What the tokens of people are called there.
pub(super) const PERSON_SCHEME: &str = "personToken";

/// The header that carries a ticket.
pub(super) const QUEUE_TOKEN: HeaderName = HeaderName::from_static("queue-token");

/// A ticket of ours, whatever has become of it.
pub(super) struct Presented {
    /// The ticket.
    pub pass: PresentedTicket,
    /// Its queue.
    pub queue: Arc<Queue>,
    /// Where it stands.
    pub place: Place,
    /// At this time, which is the time of the whole request.
    pub now: Timestamp,
}

impl FromRequestParts<HttpState> for Presented {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        Self::from_headers(&parts.headers, state.app())
    }
}

impl Described for Presented {
    fn describe(description: &mut Description) {
        description.secured(TICKET_SCHEME);
        description.errors(&[
            ErrorCode::DuplicateHeader,
            ErrorCode::TokenMissing,
            ErrorCode::TokenInvalid,
            ErrorCode::TokenOutdated,
        ]);
    }
}

impl Presented {
    /// The ticket of a request. Reads memory only.
    pub(crate) fn from_headers(headers: &HeaderMap, app: &App) -> Result<Self, Problem> {
        Self::at(headers, app, Instant::now())
    }

    /// The same for a request that has begun at `begun`, a moment ago.
    pub(crate) fn at(headers: &HeaderMap, app: &App, begun: Instant) -> Result<Self, Problem> {
        let Some(token) = single_header(headers, &QUEUE_TOKEN)? else {
            return Err(Problem::new(ErrorCode::TokenMissing));
        };
        let invalid = || Problem::new(ErrorCode::TokenInvalid);
        if !looks_signed(token) {
            let pass = app.sequencer.alias(token).ok_or_else(invalid)?;
            let queue = app.sequencer.queue(pass.ticket.queue.as_str()).ok_or_else(invalid)?;
            let now = app.clock.at(begun);
            let place = app.sequencer.place(&queue, &pass, now);
            return Ok(Self { pass, queue, place, now });
        }
        let find = |name: &str| {
            let queue = app.sequencer.queue(name)?;
            Some((queue.name().clone(), queue))
        };
        let (ticket, queue, is_person) =
            app.tickets.verify(token, find).map_err(|why| match why {
                NoTicket::Forged => invalid(),
                NoTicket::OfAnotherEpoch => Problem::new(ErrorCode::TokenOutdated),
            })?;
        let (pass, now) = (PresentedTicket::from(ticket), app.clock.at(begun));
        let place = app.sequencer.place(&queue, &pass, now);
        if is_person && !matches!(place, Place::Over(_)) {
            // Where a person has one place, joins are to find it.
            app.sequencer.show(&queue, &pass.ticket);
        }
        Ok(Self { pass, queue, place, now })
    }

    /// Whose ticket it is.
    pub(super) const fn user(&self) -> UserId {
        self.pass.ticket.user
    }

    /// Refuses anybody but the ticket's user.
    pub(super) fn must_be(&self, user: UserId) -> Result<(), Problem> {
        if user == self.user() { Ok(()) } else { Err(Problem::new(ErrorCode::UserMismatch)) }
    }

    /// Refuses a ticket of another queue than the concert's.
    pub(super) fn must_be_of(&self, queue: &QueueName) -> Result<(), Problem> {
        if *queue == self.pass.ticket.queue {
            return Ok(());
        }
        Err(Problem::new(ErrorCode::WrongQueue)
            .detail(format!("this concert is sold behind the queue {queue}; join that one")))
    }

    /// Refuses a ticket that does not open doors now.
    pub(super) fn must_be_active(&self) -> Result<(), Problem> {
        match self.place {
            Place::Active { .. } => Ok(()),
            Place::Waiting { number } => Err(Problem::new(ErrorCode::TokenNotActivated)
                .detail(format!("the ticket waits at number {number}"))),
            Place::Undrawn => Err(Problem::new(ErrorCode::TokenNotActivated)
                .detail("the ticket takes part in the draw at the opening of its queue")),
            Place::Over(ending) => Err(ended(ending)),
        }
    }

    /// Refuses a ticket that was never admitted. One whose time ran out passes: what it reserved
    /// while it was active is still its own, until the hold runs out.
    pub(super) fn must_have_been_admitted(&self) -> Result<(), Problem> {
        match self.place {
            Place::Waiting { .. } | Place::Undrawn => self.must_be_active(),
            Place::Active { .. } | Place::Over(_) => Ok(()),
        }
    }
}

/// The answer to a ticket that is over.
pub(super) fn ended(ending: Ending) -> Problem {
    Problem::new(match ending {
        Ending::TimedOut => ErrorCode::TokenExpired,
        Ending::Finished | Ending::Left => ErrorCode::TokenSpent,
    })
}

/// The person who asks, where people are known; `None` where the service believes what requests say.
#[derive(Clone, Copy)]
pub(super) struct Asker(Option<UserId>);

impl FromRequestParts<HttpState> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        Self::of(parts, state.app()).await
    }
}

impl Described for Asker {
    fn describe(description: &mut Description) {
        description.may_be_secured(PERSON_SCHEME);
        description.cookie(IDENTITY_COOKIE, "Who has signed in on the pages, in place of a token");
        description.errors(&[
            ErrorCode::DuplicateHeader,
            ErrorCode::CrossSite,
            ErrorCode::InvalidField,
            ErrorCode::PersonTokenMissing,
            ErrorCode::PersonTokenInvalid,
            ErrorCode::UserMismatch,
            ErrorCode::UserIdTooLarge,
            ErrorCode::IssuerUnavailable,
            ErrorCode::StoreUnavailable,
            ErrorCode::OutcomeUnknown,
        ]);
    }
}

impl Asker {
    /// The person of a request: of its token, or of its cookie where it has none.
    pub(crate) async fn of(parts: &Parts, app: &App) -> Result<Self, Problem> {
        let Parts { method, headers, .. } = parts;
        match (&app.people, &app.sign_in) {
            (None, _) => Ok(Self(None)),
            (_, Some(sign_in)) if !headers.contains_key(AUTHORIZATION) => {
                sign_in::person(sign_in, method, headers, app.clock.now()).map(|it| Self(Some(it)))
            }
            // On the heap, so that it is no part of every join's future.
            (Some(people), _) => Box::pin(Self::known_to(people, headers, app.clock.now())).await,
        }
    }

    async fn known_to(
        people: &People,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let token = bearer(headers)?.ok_or_else(|| Problem::new(ErrorCode::PersonTokenMissing))?;
        match people.person(token, now).await {
            Ok(user) => Ok(Self(Some(user))),
            Err(Stranger::Invalid(why)) => {
                Err(Problem::new(ErrorCode::PersonTokenInvalid).detail(why))
            }
            Err(Stranger::NoKeys) => Err(Problem::new(ErrorCode::IssuerUnavailable).retry_after(5)),
            Err(Stranger::Store(cause)) => Err(fault(&cause)),
        }
    }

    /// The person, where people are known.
    pub(super) const fn person(self) -> Option<UserId> {
        self.0
    }

    /// Returns who it is that a request is about, where it names `given`.
    pub(super) fn user(self, given: Option<UserId>) -> Result<UserId, Problem> {
        match (self.0, given) {
            (Some(person), Some(given)) if person != given => {
                Err(Problem::new(ErrorCode::UserMismatch)
                    .detail("userId is another person's; it can be left out"))
            }
            (Some(person), _) => Ok(person),
            (None, Some(given)) => safe(given),
            (None, None) => {
                Err(Problem::new(ErrorCode::InvalidField).detail("userId: it is needed here"))
            }
        }
    }

    /// Refuses a ticket of another person.
    pub(super) fn must_own(self, presented: &Presented) -> Result<(), Problem> {
        match self.0 {
            Some(person) => presented.must_be(person),
            None => Ok(()),
        }
    }
}

/// The person who asks, where people are known and the request says who it is.
pub(super) struct MaybePerson(pub(super) Option<UserId>);

impl FromRequestParts<HttpState> for MaybePerson {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let has_token = parts.headers.contains_key(AUTHORIZATION);
        match Asker::of(parts, state.app()).await {
            // A cookie that is over says nothing.
            Err(_) if !has_token => Ok(Self(None)),
            asker => Ok(Self(asker?.person())),
        }
    }
}

impl Described for MaybePerson {
    fn describe(description: &mut Description) {
        Asker::describe(description);
    }
}

/// Whose own things are asked for: those of the person who asks, where people are known; else those of the
/// user of a ticket that has been admitted.
pub(super) struct Owner {
    /// Whose.
    pub(super) user: UserId,
    /// The time of the whole request.
    pub(super) now: Timestamp,
}

impl FromRequestParts<HttpState> for Owner {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let app = state.app();
        let Asker(person) = Asker::of(parts, app).await?;
        if let Some(user) = person
            && !parts.headers.contains_key(QUEUE_TOKEN)
        {
            return Ok(Self { user, now: app.clock.now() });
        }
        let presented = Presented::from_headers(&parts.headers, app)?;
        match person {
            Some(person) => presented.must_be(person)?,
            None => presented.must_have_been_admitted()?,
        }
        Ok(Self { user: presented.user(), now: presented.now })
    }
}

impl Described for Owner {
    fn describe(description: &mut Description) {
        Presented::describe(description);
        Asker::describe(description);
        description.errors(&[ErrorCode::TokenNotActivated]);
        description.person_suffices();
    }
}

/// Refuses an id that not every JSON parser reads exactly.
pub(super) fn safe(user: UserId) -> Result<UserId, Problem> {
    if user.get() <= PERSON_MAX { Ok(user) } else { Err(Problem::new(ErrorCode::UserIdTooLarge)) }
}

/// Somebody who may charge points: where people are known, a shop with a token of its own, and nobody for
/// themselves; else everybody.
pub(super) struct Cashier;

impl FromRequestParts<HttpState> for Cashier {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let app = state.app();
        if app.people.is_none() {
            return Ok(Self);
        }
        let token =
            bearer(&parts.headers)?.ok_or_else(|| Problem::new(ErrorCode::AdminTokenMissing))?;
        let found = app.operators.find(token).map_err(|cause| fault(&cause))?;
        let who = found.ok_or_else(|| Problem::new(ErrorCode::AdminTokenInvalid))?;
        if who.role.may(Role::Cashier) {
            return Ok(Self);
        }
        let detail = format!("this needs the role cashier; {} is {}", who.name, who.role);
        Err(Problem::new(ErrorCode::RoleRequired).detail(detail))
    }
}

impl Described for Cashier {
    fn describe(description: &mut Description) {
        description.may_be_secured(ADMIN_SCHEME);
        description.errors(&[
            ErrorCode::DuplicateHeader,
            ErrorCode::AdminTokenMissing,
            ErrorCode::AdminTokenInvalid,
            ErrorCode::RoleRequired,
            ErrorCode::UserIdTooLarge,
        ]);
    }
}
