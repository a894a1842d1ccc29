//! What every request handler can reach.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::FromRef;
use boxoffice_backends::sequencer::Sequencer;
use boxoffice_backends::store::Store;
use boxoffice_domain::ids::{QueueName, TicketId, UserId};
use boxoffice_domain::queue::Settings;
use boxoffice_domain::sales::Limits;
use boxoffice_domain::time::Timestamp;
use ipnet::IpNet;
use parking_lot::Mutex;
use uuid::{ContextV7, Timestamp as UuidTime, Uuid};

use crate::clock::Clock;
use crate::config::Config;
use crate::http::extract::BodyLimits;
use crate::http::rate_limit::ClientRateLimit;
use crate::http::seat_list::SeatLists;
use crate::metrics::Metrics;
use crate::tickets::TicketKeys;

/// The service, assembled.
pub struct App {
    /// The configuration that it was started with.
    pub config: Config,
    /// Its time.
    pub clock: Clock,
    /// Seats, money, and everything that must not be lost.
    pub store: Store,
    /// The waiting queues.
    pub sequencer: Sequencer,
    /// The default queue, for joins that name none.
    pub default_queue: QueueName,
    /// The keys of the tickets.
    pub tickets: TicketKeys,
    /// What the admin API asks for.
    pub admin_token: String,
    /// What Prometheus reads.
    pub metrics: Metrics,
    /// The limit of joins for each client, where there is one.
    pub join_rate: Option<ClientRateLimit>,
    /// Proxies whose word is taken for where a request comes from.
    pub trusted_proxies: Vec<IpNet>,
    /// Seat lists as they were rendered last.
    pub seat_lists: SeatLists,
    /// How much one user may take.
    pub limits: Limits,
    /// Idempotency keys of requests in progress.
    pub in_flight: InFlight,
    /// Set when the service is to end: it is no longer ready.
    pub draining: AtomicBool,
    /// Set while events cannot be published; they wait in the store.
    pub events_wait: AtomicBool,
    /// Makes the ids of tickets.
    pub ids: TicketIds,
}

/// Makes ids that rise with time, which keeps them close together on the disk.
pub struct TicketIds(Mutex<ContextV7>);

impl Default for TicketIds {
    fn default() -> Self {
        Self(Mutex::new(ContextV7::new()))
    }
}

/// How handlers hold it.
pub type AppState = Arc<App>;

impl FromRef<AppState> for BodyLimits {
    fn from_ref(app: &AppState) -> Self {
        Self {
            max_bytes: app.config.server.max_body_bytes,
            timeout: app.config.server.body_timeout(),
        }
    }
}

impl App {
    /// A new unique id for a ticket.
    pub fn ticket_id(&self, now: Timestamp) -> TicketId {
        let ms = now.0.unsigned_abs();
        let nanos = (ms % 1000) as u32 * 1_000_000;
        let time = UuidTime::from_unix(&*self.ids.0.lock(), ms / 1000, nanos);
        TicketId(Uuid::new_v7(time).into_bytes())
    }

    /// Whether the service is about to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// How much one user may take, by the configuration.
pub fn limits(config: &Config) -> Limits {
    let count = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Limits {
        hold: Duration::from_secs(config.sales.hold_seconds),
        seats_per_reservation_max: count(config.sales.max_seats_per_reservation),
        seats_per_user_max: count(config.sales.max_seats_per_user),
    }
}

/// The settings that the configuration gives to a new queue.
pub fn queue_settings(config: &Config) -> Settings {
    Settings {
        admit_per_second: config.queue.admit_per_second,
        max_active: config.queue.max_active,
        active_ttl: Duration::from_secs(config.queue.active_ttl_seconds),
        claim_window: Duration::from_secs(config.queue.claim_window_seconds),
        opens_at: None,
        paused: false,
    }
}

/// Idempotency keys whose first request has not been answered yet.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<HashSet<(UserId, String)>>>);

impl InFlight {
    /// Enters a key; `None` where it is in progress already. It is left when the guard is dropped.
    pub fn enter(&self, user: UserId, key: &str) -> Option<InFlightGuard> {
        let entry = (user, key.to_owned());
        let fresh = self.0.lock().insert(entry.clone());
        fresh.then(|| InFlightGuard { keys: self.clone(), entry })
    }
}

/// Keeps a key in progress.
pub struct InFlightGuard {
    keys: InFlight,
    entry: (UserId, String),
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.keys.0.lock().remove(&self.entry);
    }
}
