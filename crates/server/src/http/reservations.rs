//! Reservations: hold seats, look, give back.

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::{Cancel, Catalog, Inventory, Reserve, ReserveRejected, TicketRef};
use boxoffice_backends::{Error, Fault};
use boxoffice_domain::command::{best_refusal_from_memory, refusal_from_memory};
use boxoffice_domain::ids::{ConcertId, ReservationId, SeatId, SessionId, UserId};
use boxoffice_domain::queue::Place;
use boxoffice_domain::sales::{
    Concert, HoldRejected, Item, Reservation, ReservationState, check_seat_list, check_wish,
};
use boxoffice_domain::seating::Wish;
use boxoffice_domain::time::Timestamp;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Asker, Owner, Presented, ended};
use super::client::ClientAddress;
use super::extract::{
    ApiJson, BodyLimits, IdempotencyKey, MaybeIdempotencyKey, PathIds, Whole, WireId, present,
};
use super::idempotency;
use super::page::Section;
use super::place::SeatPlace;
use super::problem::{ErrorCode, Problem};
use super::reply::{fault, hold_rejected, json, reservation_error, reserve_error};
use crate::app::{App, AppState};
use crate::metrics::{Outcome, OutcomeLabel};

/// Seats to hold.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReserveRequest {
    /// Who reserves, the ticket's user; may be left out where people are known.
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = super::schema::id)]
    user_id: Option<WireId<UserId>>,
    /// Which seats: all are held, or none. Either these, or `best`.
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = super::schema::ids)]
    seat_ids: Option<Vec<WireId<SeatId>>>,
    /// The best seats that there are, in place of named ones.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    best: Option<BestRequest>,
}

/// What the best seats have to be like.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BestRequest {
    /// How many.
    #[schema(minimum = 1, value_type = u32)]
    count: Whole<u32>,
    /// Of which grade; of any where it is left out.
    grade: Option<String>,
    /// In which section; in any where it is left out.
    section: Option<String>,
    /// Whether they have to be next to each other.
    #[serde(default = "yes")]
    together: bool,
}

const fn yes() -> bool {
    true
}

impl BestRequest {
    /// What is wished for in this session.
    fn wish(&self, inventory: &Inventory) -> Result<Wish, Problem> {
        let plan = inventory.plan().map(|stored| stored.plan());
        let grade = self.grade.as_ref().map(|name| {
            let found = plan.and_then(|plan| plan.grade_named(name));
            found.ok_or_else(|| Problem::new(ErrorCode::GradeNotFound))
        });
        let section = self.section.as_ref().map(|name| {
            let found = plan.and_then(|plan| plan.section_named(name));
            found.ok_or_else(|| Problem::new(ErrorCode::SectionNotFound))
        });
        Ok(Wish {
            count: self.count.0,
            grade: grade.transpose()?,
            section: section.transpose()?,
            together: self.together,
        })
    }
}

/// A seat of a reservation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReservedSeat<'a> {
    /// The seat.
    #[schema(schema_with = super::schema::id_out)]
    seat_id: i64,
    /// The number printed on it.
    number: u32,
    /// The price agreed, in points.
    price: i64,
    /// Where it is, in a session with a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<SeatPlace<'a>>,
}

/// The seats of a reservation, in the hall of its session where that has one.
fn reserved_seats<'a>(catalog: &'a Catalog, reservation: &Reservation) -> Vec<ReservedSeat<'a>> {
    let inventory = catalog.inventory(reservation.concert, reservation.session);
    let plan = inventory.and_then(|it| it.plan()).map(|stored| &**stored.plan());
    let seat = |item: &Item| ReservedSeat {
        seat_id: item.seat.get(),
        number: item.number,
        price: item.price,
        place: SeatPlace::of(plan, item.number),
    };
    reservation.items.iter().map(seat).collect()
}

/// Seats held.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReserveResponse<'a> {
    /// The reservation, to be paid.
    #[schema(schema_with = super::schema::id_out)]
    reservation_id: i64,
    /// What it costs, in points.
    total_price: i64,
    /// When the hold runs out.
    #[schema(format = DateTime)]
    expires_at: String,
    /// The seats.
    reserved_seats: Vec<ReservedSeat<'a>>,
}

/// What has become of a reservation.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum ReservationStatus {
    /// Waiting for payment.
    Held,
    /// Paid.
    Paid,
    /// Given back.
    Cancelled,
    /// The hold ran out.
    Expired,
    /// It was paid, and its points went back.
    Refunded,
}

impl From<ReservationState> for ReservationStatus {
    fn from(state: ReservationState) -> Self {
        match state {
            ReservationState::Held { .. } => Self::Held,
            ReservationState::Paid { .. } => Self::Paid,
            ReservationState::Cancelled => Self::Cancelled,
            ReservationState::Expired => Self::Expired,
            ReservationState::Refunded { .. } => Self::Refunded,
        }
    }
}

/// A reservation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReservationResponse<'a> {
    /// The reservation.
    #[schema(schema_with = super::schema::id_out)]
    reservation_id: i64,
    /// Whose it is.
    #[schema(schema_with = super::schema::id_out)]
    user_id: i64,
    /// The concert.
    #[schema(schema_with = super::schema::id_out)]
    concert_id: i64,
    /// The session.
    #[schema(schema_with = super::schema::id_out)]
    session_id: i64,
    /// What has become of it.
    status: ReservationStatus,
    /// What it costs, in points.
    total_price: i64,
    /// When it was made.
    #[schema(format = DateTime)]
    reserved_at: String,
    /// When the hold runs out, or ran out.
    #[schema(format = DateTime)]
    expires_at: String,
    /// The seats.
    reserved_seats: Vec<ReservedSeat<'a>>,
    /// The payment, where it is paid or was refunded.
    #[schema(required, nullable)]
    payment_id: Option<i64>,
}

fn count(app: &App, outcome: Outcome) {
    app.metrics.reservations.get_or_create(&OutcomeLabel { outcome }).inc();
}

pub(super) async fn create(
    State(app): State<AppState>,
    presented: Presented,
    asker: Asker,
    ids: PathIds<(ConcertId, SessionId)>,
    MaybeIdempotencyKey(key): MaybeIdempotencyKey,
    ApiJson(request): ApiJson<ReserveRequest>,
) -> Result<Response, Problem> {
    let answer = reserve(&app, presented, asker, ids, key, request).await;
    match answer {
        Ok((response, outcome)) => {
            count(&app, outcome);
            Ok(response)
        }
        Err((problem, outcome)) => {
            count(&app, outcome);
            Err(problem)
        }
    }
}

/// See [`create`]; for requests that have not been through the router.
pub(super) async fn create_from(
    app: AppState,
    limits: BodyLimits,
    ids: PathIds<(ConcertId, SessionId)>,
    client: ClientAddress,
    request: hyper::Request<Incoming>,
) -> Response {
    let (parts, body) = request.into_parts();
    // In the order of the handler's extractors: the first that refuses answers.
    let read = async {
        let presented = Presented::from_headers(&parts.headers, &app)?;
        let asker = Asker::of(&parts, &app).await?;
        let key = IdempotencyKey::from_headers(&parts.headers)?;
        let body = ApiJson::read(&parts.headers, body, limits, client).await?;
        create(State(app), presented, asker, ids, MaybeIdempotencyKey(key), body).await
    };
    read.await.into_response()
}

type Refused = (Problem, Outcome);

async fn reserve(
    app: &AppState,
    presented: Presented,
    asker: Asker,
    PathIds((concert, session)): PathIds<(ConcertId, SessionId)>,
    key: Option<IdempotencyKey>,
    request: ReserveRequest,
) -> Result<(Response, Outcome), Refused> {
    let forbidden = |problem| (problem, Outcome::Forbidden);
    let not_found = |code| (Problem::new(code), Outcome::NotFound);
    let user = asker.user(request.user_id.map(|WireId(user)| user)).map_err(forbidden)?;
    presented.must_be(user).map_err(forbidden)?;
    // A ticket that is over makes no new hold, but may still ask for the answer it got before.
    let over = match presented.place {
        Place::Over(ending) if key.is_some() => Some(ending),
        _ => {
            presented.must_be_active().map_err(forbidden)?;
            None
        }
    };
    let (seats, asked) = match (request.seat_ids, request.best) {
        (Some(ids), None) => {
            let seats: Vec<SeatId> = ids.iter().map(|id| id.0).collect();
            check_seat_list(&seats, &app.limits).map_err(hold_rejected)?;
            (seats, None)
        }
        (None, Some(best)) => {
            let any = Wish { count: best.count.0, grade: None, section: None, together: false };
            check_wish(&any, &app.limits).map_err(hold_rejected)?;
            (Vec::new(), Some(best))
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err((Problem::new(ErrorCode::SeatsOrBest), Outcome::Invalid));
        }
    };

    let catalog = app.store.catalog();
    let concert = catalog.concert(concert).ok_or_else(|| not_found(ErrorCode::ConcertNotFound))?;
    let inventory = catalog
        .inventory(concert.id, session)
        .ok_or_else(|| not_found(ErrorCode::SessionNotFound))?;
    presented.must_be_of(&concert.queue).map_err(forbidden)?;
    if key.is_none() && inventory.called_off().is_some() {
        return Err(hold_rejected(HoldRejected::SessionCancelled));
    }

    let wish = asked.map(|best| best.wish(inventory)).transpose();
    let wish = wish.map_err(|problem| (problem, Outcome::Invalid))?;
    let mut request = Reserve {
        user,
        ticket: TicketRef::from(&presented.pass.ticket),
        ticket_over: over.is_some(),
        concert: concert.id,
        session: inventory.session().id,
        seats,
        best: wish.map(Into::into),
        beside: Vec::new(),
        limits: app.limits,
        release_delay: app.release_delay(),
        idempotency: None,
        now: presented.now,
    };
    if key.is_none()
        && let Some(why) = refused_by_memory(app, &request, concert, inventory)
    {
        return Err(hold_rejected(why));
    }
    let ids = [user.get(), concert.id.get(), session.get()];
    let (operation, best) = match wish {
        None => ("reserve", None),
        Some(Wish { count, grade, section, together }) => {
            let or_none = |index: Option<i64>| index.map_or(0, |index| index + 1);
            let (grade, section) = (or_none(grade.map(i64::from)), or_none(section.map(i64::from)));
            ("reserve the best", Some([count.into(), grade, section, together.into()]))
        }
    };
    let values = ids.into_iter().chain(request.seats.iter().map(|seat| seat.get()));
    let values = values.chain(best.into_iter().flatten());
    let entered = idempotency::enter(app, user, key, operation, values)
        .map_err(|problem| (problem, Outcome::KeyConflict))?;
    let (key, guard) = entered.map_or((None, None), |e| (Some(e.key), Some(e.guard)));
    request.idempotency = key;
    let purchase =
        app.sequencer.purchases().ask(presented.queue.inside_for(presented.place, presented.now));
    let answer = if let Some(guard) = guard {
        // On its own, so that the key stays in progress until the store has answered, even if the
        // client hangs up.
        let store = app.store.clone();
        let task = tokio::spawn(async move {
            let answer = store.reserve(request).await;
            drop(guard);
            answer
        });
        task.await.unwrap_or_else(|error| Err(Fault::OutcomeUnknown(error.to_string()).into()))
    } else {
        app.store.reserve(request).await
    };
    purchase.answered(&answer);
    let answer = answer.map_err(|error| match (error, over) {
        (Error::Rejected(ReserveRejected::Hold(HoldRejected::TicketSpent)), Some(ending)) => {
            (ended(ending), Outcome::Forbidden)
        }
        (error, _) => reserve_error(error),
    })?;
    let outcome = if answer.replayed { Outcome::Replayed } else { Outcome::Created };
    let reservation = answer.value;
    let until = match reservation.state {
        ReservationState::Held { until } => until,
        // The store answers a hold with a hold.
        _ => presented.now,
    };
    let mut response = json(
        StatusCode::CREATED,
        &ReserveResponse {
            reservation_id: reservation.id.get(),
            total_price: reservation.total(),
            expires_at: rfc3339(until),
            reserved_seats: reserved_seats(&catalog, &reservation),
        },
    );
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/reservations/{}", reservation.id))
    {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok((response, outcome))
}

/// Why a hold must be refused, judged by what is in memory.
fn refused_by_memory(
    app: &App,
    request: &Reserve,
    concert: &Concert,
    inventory: &Inventory,
) -> Option<HoldRejected> {
    let session = inventory.session();
    match &request.best {
        None => {
            let known = app.store.seats_for_refusal(inventory, &request.seats)?;
            refusal_from_memory(request, concert, &session, &known)
        }
        Some(best) => {
            let left = app.store.seats_left_for_refusal(inventory, &best.wish, request.now)?;
            best_refusal_from_memory(request, (concert, &session), left)
        }
    }
}

/// Some of somebody's reservations.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReservationList<'a> {
    /// The reservations, the newest first.
    reservations: Vec<ReservationResponse<'a>>,
    /// What to ask for `after`, where there may be more.
    #[schema(required, nullable)]
    next: Option<i64>,
}

pub(super) async fn list(
    State(app): State<AppState>,
    Owner { user, now }: Owner,
    section: Section,
) -> Result<Response, Problem> {
    let after = section.after.and_then(ReservationId::new);
    let found = app.store.reservations_of(user, after, section.limit).await;
    let found = found.map_err(|cause| fault(&cause))?;
    let catalog = app.store.catalog();
    let shown = |(reservation, until): &(_, _)| shown(&catalog, reservation, *until, now);
    let reservations: Vec<_> = found.iter().map(shown).collect();
    let next = section.next(&reservations, |last| last.reservation_id);
    Ok(json(StatusCode::OK, &ReservationList { reservations, next }))
}

/// A reservation of this user, and when its hold ends or has ended.
pub(super) async fn own(
    app: &App,
    user: UserId,
    id: ReservationId,
) -> Result<(Reservation, Timestamp), Problem> {
    let found = app.store.reservation(id).await.map_err(|cause| fault(&cause))?;
    let found = found.ok_or_else(|| Problem::new(ErrorCode::ReservationNotFound))?;
    if found.0.user == user { Ok(found) } else { Err(Problem::new(ErrorCode::ReservationNotYours)) }
}

pub(super) async fn show(
    State(app): State<AppState>,
    Owner { user, now }: Owner,
    PathIds(id): PathIds<ReservationId>,
) -> Result<Response, Problem> {
    let (reservation, until) = own(&app, user, id).await?;
    // What is shown is not sold: where the clock here is off, it is the database's that tells.
    let now = app.store.vouched(now);
    let catalog = app.store.catalog();
    Ok(json(StatusCode::OK, &shown(&catalog, &reservation, until, now)))
}

fn shown<'a>(
    catalog: &'a Catalog,
    reservation: &Reservation,
    until: Timestamp,
    now: Timestamp,
) -> ReservationResponse<'a> {
    let state = reservation.state_at(now);
    let payment_id = match state {
        ReservationState::Paid { payment } | ReservationState::Refunded { payment } => {
            Some(payment.get())
        }
        ReservationState::Held { .. } | ReservationState::Cancelled | ReservationState::Expired => {
            None
        }
    };
    ReservationResponse {
        reservation_id: reservation.id.get(),
        user_id: reservation.user.get(),
        concert_id: reservation.concert.get(),
        session_id: reservation.session.get(),
        status: state.into(),
        total_price: reservation.total(),
        reserved_at: rfc3339(reservation.created_at),
        expires_at: rfc3339(until),
        reserved_seats: reserved_seats(catalog, reservation),
        payment_id,
    }
}

pub(super) async fn cancel(
    State(app): State<AppState>,
    presented: Presented,
    asker: Asker,
    PathIds(id): PathIds<ReservationId>,
) -> Result<StatusCode, Problem> {
    asker.must_own(&presented)?;
    presented.must_have_been_admitted()?;
    let (user, now) = (presented.user(), presented.now);
    let release_delay = app.release_delay();
    match app.store.give_back(Cancel { reservation: id, user, release_delay, now }).await {
        Ok(()) => {
            count(&app, Outcome::Cancelled);
            Ok(StatusCode::NO_CONTENT)
        }
        Err(error) => {
            let (problem, outcome) = reservation_error(error);
            count(&app, outcome);
            Err(problem)
        }
    }
}
