//! Concert tickets: signed for who has paid, and checked for who stands at the door of the venue.
//!
//! What does not belong here: what is in a code, and how it is signed; see `crate::concert_tickets`.

use std::fmt::Write;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::store::Inventory;
use boxoffice_domain::ids::{PaymentId, ReservationId, SessionId};
use boxoffice_domain::sales::{Item, Reservation, ReservationState};
use boxoffice_domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Access;
use super::auth::Owner;
use super::extract::{ApiJson, PathIds, WireId, present};
use super::place::SeatPlace;
use super::problem::{ErrorCode, Problem};
use super::reply::{fault, json};
use super::reservations::own;
use crate::app::{App, AppState};
use crate::concert_tickets::{
    Claims, Known, NoTicket, Picture, Ticket, ends, read, sign as sign_ticket,
};

/// By how much the clocks of two instances may differ.
const CLOCKS_SECONDS: i64 = 60;

/// What a buyer shows at the venue.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SignedTicket {
    /// What it says, signed. It is another text each time.
    code: String,
    /// How many modules its QR code is wide and high, without the quiet zone of four around it.
    size: usize,
    /// The dark modules of its QR code as the path of an SVG, in which a module has one unit.
    path: String,
    /// The reservation.
    #[schema(schema_with = super::schema::id_out)]
    reservation_id: i64,
    /// Until when it is good, unless the session is moved.
    #[schema(format = DateTime)]
    valid_until: String,
}

pub(super) async fn sign(
    State(app): State<AppState>,
    Owner { user, now }: Owner,
    PathIds(id): PathIds<ReservationId>,
) -> Result<Response, Problem> {
    let (reservation, _) = own(&app, user, id).await?;
    let catalog = app.store.catalog();
    let inventory = catalog
        .inventory(reservation.concert, reservation.session)
        .ok_or_else(|| Problem::new(ErrorCode::SessionNotFound))?;
    let ReservationState::Paid { payment } = reservation.state else {
        return Err(Problem::new(ErrorCode::NotPaid));
    };
    let ticket = ticket(&reservation, payment, inventory);
    if inventory.called_off().is_some() {
        return Err(Problem::new(ErrorCode::SessionCancelled));
    }
    let claims = ticket.claims(now);
    let code = sign_ticket(&app.signing.of(now), &claims);
    let Picture { size, path } = Picture::of(&code).map_err(Problem::internal)?;
    Ok(json(
        StatusCode::OK,
        &SignedTicket {
            code,
            size,
            path,
            reservation_id: claims.reservation,
            valid_until: rfc3339(Timestamp(claims.exp.saturating_mul(1_000))),
        },
    ))
}

fn ticket(reservation: &Reservation, payment: PaymentId, inventory: &Inventory) -> Ticket {
    Ticket {
        reservation: reservation.id.get(),
        payment: payment.get(),
        concert: reservation.concert.get(),
        session: reservation.session.get(),
        begins: inventory.session().starts_at,
        seats: seat_names(reservation, inventory),
    }
}

/// The seats as people know them: section, row and number, or the number alone where there is no plan.
fn seat_names(reservation: &Reservation, inventory: &Inventory) -> Vec<String> {
    let plan = inventory.plan().map(|stored| &**stored.plan());
    let name = |item: &Item| match SeatPlace::of(plan, item.number) {
        Some(place) => place.name(),
        None => item.number.to_string(),
    };
    reservation.items.iter().map(name).collect()
}

/// A code that somebody shows.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TicketCheck {
    /// What the QR code says.
    code: String,
    /// The session that is being entered; a ticket of another one is not good.
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = super::schema::id)]
    session_id: Option<WireId<SessionId>>,
}

/// Why a ticket is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// It is no concert ticket.
    NotATicket,
    /// It is signed with a key that this service never had, or no longer knows.
    KeyUnknown,
    /// It is signed with a key that was withdrawn.
    KeyWithdrawn,
    /// It was changed, or made up.
    SignatureInvalid,
    /// There is no such reservation, or it is another one by now.
    ReservationUnknown,
    /// The reservation was refunded.
    Refunded,
    /// The session was called off.
    CalledOff,
    /// It is for another session than is being entered.
    OtherSession,
    /// The session was more than a day ago.
    Over,
}

impl Reason {
    /// The same for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotATicket => "this is no concert ticket",
            Self::KeyUnknown => {
                "it is signed with a key that is not known here; have it shown again from its page, which \
                 signs it anew"
            }
            Self::KeyWithdrawn => {
                "it is signed with a key that was withdrawn; have it shown again from its page, which signs \
                 it anew"
            }
            Self::SignatureInvalid => "it was changed or made up",
            Self::ReservationUnknown => "there is no such reservation",
            Self::Refunded => "it was refunded",
            Self::CalledOff => "the session was called off",
            Self::OtherSession => "it is for another session",
            Self::Over => "the session is over",
        }
    }
}

impl From<&NoTicket> for Reason {
    fn from(why: &NoTicket) -> Self {
        match why {
            NoTicket::Malformed => Self::NotATicket,
            NoTicket::KeyUnknown(_) => Self::KeyUnknown,
            NoTicket::KeyWithdrawn(_) => Self::KeyWithdrawn,
            NoTicket::SignatureInvalid => Self::SignatureInvalid,
        }
    }
}

/// Whether a ticket is good now. What it says is told where its signature is right.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether it is.
    pub valid: bool,
    /// Why it is not.
    #[schema(required, nullable)]
    pub reason: Option<Reason>,
    /// The same for people.
    #[schema(required, nullable)]
    pub detail: Option<String>,
    /// The reservation.
    #[schema(required, nullable)]
    pub reservation_id: Option<i64>,
    /// The concert.
    #[schema(required, nullable)]
    pub concert_id: Option<i64>,
    /// The session.
    #[schema(required, nullable)]
    pub session_id: Option<i64>,
    /// What the concert is called.
    #[schema(required, nullable)]
    pub concert: Option<String>,
    /// When the session begins.
    #[schema(required, nullable, format = DateTime)]
    pub session: Option<String>,
    /// The seats as people know them.
    pub seats: Vec<String>,
    /// How many more seats there are that are not among these.
    pub more_seats: u32,
    /// When it was signed.
    #[schema(required, nullable, format = DateTime)]
    pub signed_at: Option<String>,
}

impl Verdict {
    /// What can be said of a text that is no ticket.
    pub fn not_a_ticket(why: &NoTicket) -> Self {
        Self {
            valid: false,
            reason: None,
            detail: None,
            reservation_id: None,
            concert_id: None,
            session_id: None,
            concert: None,
            session: None,
            seats: Vec::new(),
            more_seats: 0,
            signed_at: None,
        }
        .because(Some(why.into()))
    }

    /// What can be said of a ticket by itself.
    pub fn of(claims: Claims) -> Self {
        Self {
            valid: true,
            reason: None,
            detail: None,
            reservation_id: Some(claims.reservation),
            concert_id: Some(claims.concert),
            session_id: Some(claims.session),
            concert: None,
            session: None,
            seats: claims.seats,
            more_seats: claims.more,
            signed_at: Some(rfc3339(Timestamp(claims.iat.saturating_mul(1_000)))),
        }
    }

    /// The verdict in a line, for people.
    pub fn to_text(&self) -> String {
        let mut text = match &self.detail {
            None => "good".to_owned(),
            Some(detail) => format!("not good: {detail}"),
        };
        let id = |id: Option<i64>| id.unwrap_or_default();
        if self.reservation_id.is_some() {
            let _ = write!(
                text,
                "; reservation {}, concert {}{}, session {}{}, seats {}",
                id(self.reservation_id),
                id(self.concert_id),
                self.concert.as_ref().map_or(String::new(), |name| format!(" ({name:?})")),
                id(self.session_id),
                self.session.as_ref().map_or(String::new(), |at| format!(" ({at})")),
                self.seats.join(", "),
            );
            if self.more_seats > 0 {
                let _ = write!(text, " and {} more", self.more_seats);
            }
        }
        text.push('\n');
        text
    }

    /// The same where there is a reason why it is not good.
    pub fn because(self, reason: Option<Reason>) -> Self {
        let detail = reason.map(|reason| reason.text().to_owned());
        Self { valid: reason.is_none(), reason, detail, ..self }
    }
}

pub(super) async fn verify(
    _: Access,
    State(app): State<AppState>,
    ApiJson(check): ApiJson<TicketCheck>,
) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &judge(&app, &check).await?))
}

/// Holds a code against what is so now.
async fn judge(app: &App, check: &TicketCheck) -> Result<Verdict, Problem> {
    let keys = app.signing.public();
    let known = |id: &str| {
        let key = keys.iter().find(|key| key.id == id)?;
        Some(if key.is_withdrawn { Known::Withdrawn } else { Known::Good(key.bytes) })
    };
    let claims = match read(&check.code, known) {
        Ok(claims) => claims,
        Err(why) => return Ok(Verdict::not_a_ticket(&why)),
    };
    let found = match ReservationId::new(claims.reservation) {
        Some(id) => app.store.reservation(id).await.map_err(|cause| fault(&cause))?,
        None => None,
    };
    let catalog = app.store.catalog();
    let sold = found.and_then(|(reservation, _)| {
        let concert = catalog.concert(reservation.concert)?;
        let inventory = catalog.inventory(reservation.concert, reservation.session)?;
        Some((reservation, concert, inventory))
    });
    let Some((reservation, concert, inventory)) = sold else {
        return Ok(Verdict::of(claims).because(Some(Reason::ReservationUnknown)));
    };
    let session = inventory.session();
    let now = app.store.vouched(app.clock.now()).0.div_euclid(1_000);
    let of_another = check.session_id.as_ref().is_some_and(|WireId(id)| *id != session.id);
    let reason = match () {
        // Of another reservation nothing is told.
        () if !is_of(&claims, &reservation, inventory) => {
            return Ok(Verdict::of(claims).because(Some(Reason::ReservationUnknown)));
        }
        () if matches!(reservation.state, ReservationState::Refunded { .. }) => {
            Some(Reason::Refunded)
        }
        () if inventory.called_off().is_some() => Some(Reason::CalledOff),
        () if of_another => Some(Reason::OtherSession),
        () if now >= ends(session.starts_at) => Some(Reason::Over),
        () => None,
    };
    Ok(Verdict {
        concert: Some(concert.name.clone()),
        session: Some(rfc3339(session.starts_at)),
        seats: seat_names(&reservation, inventory),
        more_seats: 0,
        ..Verdict::of(claims).because(reason)
    })
}

/// Whether a ticket was signed for this reservation. Ids are given again after a restore: it must be the same
/// seats, and older than its ticket.
fn is_of(claims: &Claims, reservation: &Reservation, inventory: &Inventory) -> bool {
    let payment = match reservation.state {
        ReservationState::Paid { payment } | ReservationState::Refunded { payment } => payment,
        ReservationState::Held { .. } | ReservationState::Cancelled | ReservationState::Expired => {
            return false;
        }
    };
    let made = reservation.created_at.0.div_euclid(1_000) - CLOCKS_SECONDS;
    ticket(reservation, payment, inventory).has(claims) && claims.iat >= made
}
