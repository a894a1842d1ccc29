//! Lists for operators.

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::Response;
use axum::http::request::Parts;
use boxoffice_backends::Fault;
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::{Became, Part, ReservationFilter, Store};
use boxoffice_domain::ids::{ConcertId, PaymentId, ReservationId, SessionId, UserId};
use boxoffice_domain::sales::ReservationState;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Access;
use super::admin::AdminSession;
use super::concerts::ListedConcert;
use super::describe::{Described, Description};
use super::extract::{Id, PathIds};
use super::page::{Page, query};
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
    /// What paid for it; null where nothing did.
    #[schema(required, nullable)]
    payment_id: Option<i64>,
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
    let (catalog, now) = (app.store.catalog(), app.clock.now());
    let after = page.section.after.unwrap_or(0);
    let behind = catalog.concerts().filter(|concert| concert.id.get() > after);
    let concerts: Vec<ListedConcert> = behind
        .take(page.section.limit as usize)
        .map(|concert| ListedConcert::of(&catalog, concert, now))
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

/// What has become of the reservations that are asked for.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum StateFilter {
    Held,
    Paid,
    Cancelled,
    Expired,
    Refunded,
}

impl StateFilter {
    const ALL: [Self; 5] = [Self::Held, Self::Paid, Self::Cancelled, Self::Expired, Self::Refunded];

    const fn parts(self) -> (Became, &'static str) {
        match self {
            Self::Held => (Became::Held, "HELD"),
            Self::Paid => (Became::Paid, "PAID"),
            Self::Cancelled => (Became::Cancelled, "CANCELLED"),
            Self::Expired => (Became::Expired, "EXPIRED"),
            Self::Refunded => (Became::Refunded, "REFUNDED"),
        }
    }
}

/// The longest name that is looked for, in characters.
const NAME_MAX: usize = 255;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReservationQuery {
    limit: Option<u32>,
    after: Option<i64>,
    state: Option<StateFilter>,
    user: Option<String>,
    reservation: Option<String>,
    payment: Option<String>,
    name: Option<String>,
    concert: Option<String>,
    session: Option<String>,
}

/// Which reservations are asked for.
pub(super) struct Wanted {
    page: Page,
    state: Option<StateFilter>,
    user: Option<UserId>,
    reservation: Option<ReservationId>,
    payment: Option<PaymentId>,
    name: Option<String>,
    concert: Option<ConcertId>,
    session: Option<SessionId>,
}

/// An id in a query.
fn id<T: Id>(name: &str, text: Option<String>) -> Result<Option<T>, Problem> {
    let parsed = text.map(|text| T::parse(&text).ok_or(name)).transpose();
    parsed.map_err(|name| {
        Problem::new(ErrorCode::InvalidQuery).detail(format!("{name} must be an id"))
    })
}

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let asked: ReservationQuery = query(&parts.uri)?;
        if asked.name.as_ref().is_some_and(|name| name.chars().count() > NAME_MAX) {
            let detail = format!("name must be at most {NAME_MAX} characters");
            return Err(Problem::new(ErrorCode::InvalidQuery).detail(detail));
        }
        Ok(Self {
            page: Page::new(parts, asked.limit, asked.after)?,
            state: asked.state,
            user: id("user", asked.user)?,
            reservation: id("reservation", asked.reservation)?,
            payment: id("payment", asked.payment)?,
            name: asked.name,
            concert: id("concert", asked.concert)?,
            session: id("session", asked.session)?,
        })
    }
}

impl Described for Wanted {
    fn describe(description: &mut Description) {
        Page::describe(description);
        let words = StateFilter::ALL.map(|state| state.parts().1);
        description.query("state", "Those of this state; all where it is left out", &words);
        for (name, what) in [
            ("user", "Those of this user"),
            ("reservation", "The one with this id"),
            ("payment", "The one that this payment paid"),
            ("concert", "Those for this concert"),
            ("session", "Those for this session"),
        ] {
            description.query_number(name, what, 1, 1..=i64::MAX);
        }
        let name = "With `auth.mode = \"jwt\"`: those of whom the issuer calls exactly so";
        description.query_text("name", name, Some(NAME_MAX));
    }
}

impl Wanted {
    /// All that it is narrowed to, for the address of the next page.
    fn extra(&self) -> String {
        let ids = [
            ("user", self.user.map(UserId::get)),
            ("reservation", self.reservation.map(ReservationId::get)),
            ("payment", self.payment.map(PaymentId::get)),
            ("concert", self.concert.map(ConcertId::get)),
            ("session", self.session.map(SessionId::get)),
        ];
        let ids = ids.into_iter().filter_map(|(name, id)| Some(format!("&{name}={}", id?)));
        let state = self.state.map(|state| format!("&state={}", state.parts().1));
        let escaped =
            |name: &String| format!("&name={}", utf8_percent_encode(name, NON_ALPHANUMERIC));
        state.into_iter().chain(ids).chain(self.name.as_ref().map(escaped)).collect()
    }

    /// The same for the store; none where there can be no such reservation.
    async fn filter(&self, store: &Store) -> Result<Option<ReservationFilter>, Fault> {
        let reservation = match (self.reservation, self.payment) {
            (reservation, None) => reservation,
            (wanted, Some(payment)) => {
                let paid = store.payment(payment).await?.map(|payment| payment.reservation);
                if paid.is_none() || wanted.is_some() && wanted != paid {
                    return Ok(None);
                }
                paid
            }
        };
        let users = match (self.user, &self.name) {
            (None, None) => None,
            (Some(user), None) => Some(vec![user]),
            (user, Some(name)) => {
                let mut named = store.people_named(name.clone()).await?;
                named.retain(|id| user.is_none_or(|user| user == *id));
                Some(named)
            }
        };
        Ok(Some(ReservationFilter {
            became: self.state.map(|state| state.parts().0),
            users,
            reservation,
            concert: self.concert,
            session: self.session,
        }))
    }
}

pub(super) async fn reservations(
    _: Access,
    State(app): State<AppState>,
    wanted: Wanted,
) -> Result<Response<Body>, Problem> {
    let page = &wanted.page;
    let after = page.section.after.unwrap_or(0);
    let filter = wanted.filter(&app.store).await.map_err(|cause| fault(&cause))?;
    let part = match filter {
        None => Part { items: Vec::new(), next: None },
        Some(filter) => {
            let part = app.store.list_reservations(after, page.section.limit, filter).await;
            part.map_err(|cause| fault(&cause))?
        }
    };
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
        payment_id: match reservation.state {
            ReservationState::Paid { payment } | ReservationState::Refunded { payment } => {
                Some(payment.get())
            }
            ReservationState::Held { .. }
            | ReservationState::Cancelled
            | ReservationState::Expired => None,
        },
    });
    let listed: Vec<ListedReservation> = listed.collect();
    Ok(page.answer("reservations", &listed, part.next, &wanted.extra()))
}

/// Seats of a session that have one price.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SoldSeats {
    #[schema(schema_with = super::schema::id_out)]
    concert_id: i64,
    /// The concert's name.
    concert: String,
    #[schema(schema_with = super::schema::id_out)]
    session_id: i64,
    /// When the session begins.
    #[schema(format = DateTime)]
    concert_at: String,
    /// When it was called off; null where it takes place.
    #[schema(required, nullable, format = DateTime)]
    cancelled_at: Option<String>,
    /// Their grade; null where there are none.
    #[schema(required, nullable)]
    grade: Option<String>,
    /// The price of each, in points.
    price: i64,
    /// How many there are.
    total: u64,
    /// Those that can be bought.
    free: u64,
    /// Those that are held, or were given back and are not free yet.
    held: u64,
    /// Those that are sold.
    sold: u64,
    /// What was paid for these, in points.
    money: i64,
}

/// A page of sales.
#[derive(Serialize, ToSchema)]
pub(super) struct SalesPage {
    /// By session and price.
    sales: Vec<SoldSeats>,
    /// What `after` is to be for the next page; null behind the last.
    #[schema(required, nullable)]
    next: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SalesQuery {
    limit: Option<u32>,
    after: Option<i64>,
    concert: Option<String>,
}

/// Which sessions are asked for.
pub(super) struct SalesWanted {
    page: Page,
    concert: Option<ConcertId>,
}

impl<S: Send + Sync> FromRequestParts<S> for SalesWanted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let SalesQuery { limit, after, concert } = query(&parts.uri)?;
        Ok(Self { page: Page::new(parts, limit, after)?, concert: id("concert", concert)? })
    }
}

impl Described for SalesWanted {
    fn describe(description: &mut Description) {
        Page::describe(description);
        description.query_number("concert", "Sessions of this concert", 1, 1..=i64::MAX);
    }
}

pub(super) async fn sales(
    _: Access,
    State(app): State<AppState>,
    SalesWanted { page, concert: wanted }: SalesWanted,
) -> Response<Body> {
    let catalog = app.store.catalog();
    let after = page.section.after.unwrap_or(0);
    let concerts = catalog.concerts().filter(|concert| wanted.is_none_or(|id| id == concert.id));
    let all = concerts.flat_map(|concert| {
        catalog.inventories(concert.id).iter().map(move |inventory| (concert, inventory))
    });
    let mut behind: Vec<_> =
        all.filter(|(_, inventory)| inventory.session().id.get() > after).collect();
    behind.sort_unstable_by_key(|(_, inventory)| inventory.session().id);
    behind.truncate(page.section.limit as usize);
    let next = page.section.next(&behind, |(_, inventory)| inventory.session().id.get());
    let now = app.clock.now();
    let mut sales = Vec::new();
    for (concert, inventory) in behind {
        let session = AdminSession::of(inventory, now);
        for priced in inventory.prices(now) {
            sales.push(SoldSeats {
                concert_id: session.concert_id,
                concert: concert.name.clone(),
                session_id: session.session_id,
                concert_at: session.concert_at.clone(),
                cancelled_at: session.cancelled_at.clone(),
                grade: inventory.grade_name(priced.grade),
                price: priced.price,
                total: priced.total,
                free: priced.free,
                held: priced.held(),
                sold: priced.sold,
                money: priced.money(),
            });
        }
    }
    let extra = wanted.map(|id| format!("&concert={id}")).unwrap_or_default();
    page.answer("sales", &sales, next, &extra)
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
