//! Lists for operators.

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::Became;
use boxoffice_domain::ids::ConcertId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Access;
use super::admin::AdminSession;
use super::concerts::ListedConcert;
use super::extract::PathIds;
use super::page::{Page, PageOf};
use super::problem::{ErrorCode, Problem};
use super::reply::fault;
use super::reservations::ReservationStatus;
use crate::app::AppState;

/// A page of concerts.
#[derive(Serialize, ToSchema)]
pub(super) struct ConcertPage {
    /// By id.
    concerts: Vec<ListedConcert>,
    /// What `after` is to be for the next page; null behind the last.
    #[schema(required, nullable)]
    next: Option<i64>,
}

/// A page of sessions.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionPage {
    /// By id.
    sessions: Vec<AdminSession>,
    /// What `after` is to be for the next page; null behind the last.
    #[schema(required, nullable)]
    next: Option<i64>,
}

/// A reservation, for operators.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedReservation {
    #[schema(schema_with = super::schema::id_out)]
    reservation_id: i64,
    #[schema(schema_with = super::schema::id_out)]
    user_id: i64,
    #[schema(schema_with = super::schema::id_out)]
    concert_id: i64,
    #[schema(schema_with = super::schema::id_out)]
    session_id: i64,
    /// What has become of it, as it is recorded: a hold that ran out is so within a second.
    status: ReservationStatus,
    /// How many seats.
    seat_count: usize,
    /// In points.
    total_price: i64,
    #[schema(format = DateTime)]
    created_at: String,
    /// When the hold ends or ended.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// A page of reservations.
#[derive(Serialize, ToSchema)]
pub(super) struct ReservationPage {
    /// By id. It may be shorter than was asked for, and not be the last.
    reservations: Vec<ListedReservation>,
    /// What `after` is to be for the next page; null behind the last.
    #[schema(required, nullable)]
    next: Option<i64>,
}

/// A payment, for operators.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedPayment {
    #[schema(schema_with = super::schema::id_out)]
    payment_id: i64,
    #[schema(schema_with = super::schema::id_out)]
    reservation_id: i64,
    /// Who paid.
    #[schema(schema_with = super::schema::id_out)]
    user_id: i64,
    /// In points.
    payment_amount: i64,
    #[schema(format = DateTime)]
    paid_at: String,
}

/// A page of payments.
#[derive(Serialize, ToSchema)]
pub(super) struct PaymentPage {
    /// By id.
    payments: Vec<ListedPayment>,
    /// What `after` is to be for the next page; null behind the last.
    #[schema(required, nullable)]
    next: Option<i64>,
}

/// Somebody who has an account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedPerson {
    #[schema(schema_with = super::schema::id_out)]
    user_id: i64,
    /// The balance, in points.
    total_amount: i64,
    /// Reservations that wait for payment.
    held_reservations: u64,
    /// Reservations that are paid.
    paid_reservations: u64,
}

/// A page of people.
#[derive(Serialize, ToSchema)]
pub(super) struct PeoplePage {
    /// By id.
    people: Vec<ListedPerson>,
    /// What `after` is to be for the next page; null behind the last.
    #[schema(required, nullable)]
    next: Option<i64>,
}

pub(super) async fn concerts(_: Access, State(app): State<AppState>, page: Page) -> Response<Body> {
    let catalog = app.store.catalog();
    let after = page.section.after.unwrap_or(0);
    let behind = catalog.concerts().filter(|concert| concert.id.get() > after);
    let concerts: Vec<ListedConcert> = behind
        .take(page.section.limit as usize)
        .map(|concert| ListedConcert::from(&**concert))
        .collect();
    let next = page.section.next(&concerts, |concert| concert.concert_id);
    page.answer("concerts", &concerts, next, "")
}

pub(super) async fn sessions(
    _: Access,
    State(app): State<AppState>,
    PathIds(concert): PathIds<ConcertId>,
    page: Page,
) -> Result<Response<Body>, Problem> {
    let catalog = app.store.catalog();
    if catalog.concert(concert).is_none() {
        return Err(Problem::new(ErrorCode::ConcertNotFound));
    }
    let after = page.section.after.unwrap_or(0);
    let now = app.clock.now();
    let all = catalog.inventories(concert).iter();
    let behind = all.filter(|inventory| inventory.session().id.get() > after);
    let sessions: Vec<AdminSession> = behind
        .take(page.section.limit as usize)
        .map(|inventory| AdminSession::of(inventory, now))
        .collect();
    let next = page.section.next(&sessions, |session| session.session_id);
    Ok(page.answer("sessions", &sessions, next, ""))
}

/// What the list of reservations can be narrowed to.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum StateFilter {
    Held,
    Paid,
    Cancelled,
    Expired,
    Refunded,
}

impl StateFilter {
    const fn parts(self) -> (Became, &'static str) {
        match self {
            Self::Held => (Became::Held, "&state=HELD"),
            Self::Paid => (Became::Paid, "&state=PAID"),
            Self::Cancelled => (Became::Cancelled, "&state=CANCELLED"),
            Self::Expired => (Became::Expired, "&state=EXPIRED"),
            Self::Refunded => (Became::Refunded, "&state=REFUNDED"),
        }
    }
}

pub(super) async fn reservations(
    _: Access,
    State(app): State<AppState>,
    PageOf { page, state }: PageOf<StateFilter>,
) -> Result<Response<Body>, Problem> {
    let (became, extra) = state.map(StateFilter::parts).unzip();
    let after = page.section.after.unwrap_or(0);
    let part = app.store.list_reservations(after, page.section.limit, became).await;
    let part = part.map_err(|cause| fault(&cause))?;
    let listed = part.items.into_iter().map(|(reservation, until)| ListedReservation {
        reservation_id: reservation.id.get(),
        user_id: reservation.user.get(),
        concert_id: reservation.concert.get(),
        session_id: reservation.session.get(),
        status: ReservationStatus::from(reservation.state),
        seat_count: reservation.items.len(),
        total_price: reservation.total(),
        created_at: rfc3339(reservation.created_at),
        expires_at: rfc3339(until),
    });
    let listed: Vec<ListedReservation> = listed.collect();
    Ok(page.answer("reservations", &listed, part.next, extra.unwrap_or("")))
}

pub(super) async fn payments(
    _: Access,
    State(app): State<AppState>,
    page: Page,
) -> Result<Response<Body>, Problem> {
    let part = app.store.list_payments(page.section.after.unwrap_or(0), page.section.limit).await;
    let part = part.map_err(|cause| fault(&cause))?;
    let listed = part.items.into_iter().map(|(payment, user)| ListedPayment {
        payment_id: payment.id.get(),
        reservation_id: payment.reservation.get(),
        user_id: user.get(),
        payment_amount: payment.amount,
        paid_at: rfc3339(payment.paid_at),
    });
    let listed: Vec<ListedPayment> = listed.collect();
    Ok(page.answer("payments", &listed, part.next, ""))
}

pub(super) async fn people(
    _: Access,
    State(app): State<AppState>,
    page: Page,
) -> Result<Response<Body>, Problem> {
    let part = app.store.list_people(page.section.after.unwrap_or(0), page.section.limit).await;
    let part = part.map_err(|cause| fault(&cause))?;
    let listed = part.items.into_iter().map(|person| ListedPerson {
        user_id: person.user.get(),
        total_amount: person.balance,
        held_reservations: person.held,
        paid_reservations: person.paid,
    });
    let listed: Vec<ListedPerson> = listed.collect();
    Ok(page.answer("people", &listed, part.next, ""))
}
