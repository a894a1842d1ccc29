//! What the HTTP side keeps beside the service.
//!
//! What does not belong here: anything that has effects outlasting a request; see `crate::app`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use ipnet::IpNet;

use super::cors::Cors;
use super::damper::Damper;
use super::documents::{ConcertDocuments, Documents, PackedPlans};
use super::door::Door;
use super::extract::BodyLimits;
use super::rate_limit::ClientRateLimit;
use super::seat_list::SeatLists;
use super::seat_states::SeatStates;
use super::seat_streams::Streams;
use crate::app::AppState;
use crate::console::Sessions;
use crate::pages::Pages;

/// Attempts to sign in to the console of one client: so many in a second, and so many at once. The docs
/// promise them.
const LOGINS_PER_SECOND: f64 = 1.0 / 6.0;
const LOGINS_AT_ONCE: u32 = 10;
/// How often the log is told at the most why somebody was not signed in: anybody can bring that about.
const NOT_SIGNED_IN_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// What handlers and extractors can reach: the service, and what only HTTP needs. Cloning shares.
///
/// Two handles side by side, so that who needs the service only follows one pointer to it.
#[derive(Clone)]
pub struct HttpState {
    /// The service.
    pub(super) app: AppState,
    /// What only HTTP needs.
    pub(super) web: Arc<Web>,
}

/// What only HTTP needs.
pub(super) struct Web {
    /// The limits of bodies.
    pub body: BodyLimits,
    /// The pages that may read answers, where there are any.
    pub cors: Option<Cors>,
    /// The public documents of queues as they were rendered last.
    pub documents: Documents,
    /// The public documents of concerts as they were rendered last.
    pub concerts: ConcertDocuments,
    /// The pages, where they are served.
    pub pages: Option<Pages>,
    /// What stands before joins.
    pub door: Door,
    /// The limit of joins for each client, where there is one.
    pub join_rate: Option<ClientRateLimit>,
    /// The limit of polls for each client, where there is one.
    pub poll_rate: Option<ClientRateLimit>,
    /// Proxies whose word is taken for where a request comes from.
    pub trusted_proxies: Vec<IpNet>,
    /// Seat lists as they were rendered last.
    pub seat_lists: SeatLists,
    /// What is known of the states of seats.
    pub seat_states: SeatStates,
    /// The streams of them that are open.
    pub streams: Arc<Streams>,
    /// Plans of halls, compressed.
    pub plans: PackedPlans,
    /// Who is signed in to the console.
    pub sessions: Sessions,
    /// The limit of attempts to sign in for each client.
    pub login_rate: Option<ClientRateLimit>,
    /// Bounds how often the log is told why somebody was not signed in.
    pub not_signed_in: Damper,
}

impl HttpState {
    /// The state for a service, as it is configured.
    ///
    /// # Errors
    /// A sentence that names the trusted proxy that is no address and no network, or what is wrong with the
    /// pages.
    pub fn new(app: AppState) -> Result<Self, String> {
        let server = &app.config.server;
        let trusted_proxies = server.trusted_proxies().map_err(|text| {
            format!("server.trusted_proxies: {text:?} is no address and no network")
        })?;
        let body = BodyLimits { max_bytes: server.max_body_bytes, timeout: server.body_timeout() };
        let web = Web {
            body,
            cors: Cors::new(&server.cors_origins),
            documents: Documents::default(),
            concerts: ConcertDocuments::default(),
            pages: Pages::new(&app.config)?,
            door: Door::new(&app),
            join_rate: ClientRateLimit::new(server.join_rate.per_second, server.join_rate.burst),
            poll_rate: ClientRateLimit::new(server.poll_rate.per_second, server.poll_rate.burst),
            trusted_proxies,
            seat_lists: SeatLists::default(),
            seat_states: SeatStates::default(),
            streams: Arc::new(Streams::new(server)),
            plans: PackedPlans::default(),
            sessions: Sessions::new(&app.tickets.session_keys()),
            login_rate: ClientRateLimit::new(LOGINS_PER_SECOND, LOGINS_AT_ONCE),
            not_signed_in: Damper::new(NOT_SIGNED_IN_LOG_INTERVAL),
        };
        Ok(Self { app, web: Arc::new(web) })
    }

    /// The service.
    pub const fn app(&self) -> &AppState {
        &self.app
    }
}

impl FromRef<HttpState> for AppState {
    fn from_ref(state: &HttpState) -> Self {
        state.app.clone()
    }
}

impl FromRef<HttpState> for BodyLimits {
    fn from_ref(state: &HttpState) -> Self {
        state.web.body
    }
}
