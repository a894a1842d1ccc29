//! The service, assembled: what handlers and workers can reach.
//!
//! What does not belong here: anything of HTTP.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use boxoffice_backends::sequencer::{PresentedTicket, Queue, Sequencer};
use boxoffice_backends::store::Store;
use boxoffice_domain::ids::{QueueName, TicketId, UserId};
use boxoffice_domain::queue::{AfterSale, QueueSettings, SaleRules};
use boxoffice_domain::sales::Limits;
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::console::live::Live;
use crate::metrics::Metrics;
use crate::operators::Operators;
use crate::passes::{Claims, Passes};
use crate::people::People;
use crate::sign_in::SignIn;
use crate::signing::ServiceKeys;
use crate::tickets::SigningKeys;

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
    /// Who may use the admin API, and who charges points.
    pub operators: Operators,
    /// The default queue, for joins that name none.
    pub default_queue: QueueName,
    /// The keys of the tickets.
    pub tickets: SigningKeys,
    /// The keys that it signs with for others to check.
    pub signing: ServiceKeys,
    /// What admitted fans show to others.
    pub passes: Passes,
    /// The people who are known; `None` where the service believes what requests say.
    pub people: Option<People>,
    /// How they sign in on the pages; `None` where they cannot.
    pub sign_in: Option<SignIn>,
    /// What Prometheus reads.
    pub metrics: Metrics,
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
    /// What goes on, for the console.
    pub live: Live,
}

/// Makes ids that no other process makes and none repeats. They rise, which keeps them close together on
/// the disk. A ticket is protected by its signature, so nobody gains by guessing one.
pub struct TicketIds {
    /// When the process began (6 bytes, milliseconds since 1970), and what tells it from others that
    /// began in that moment (5 bytes).
    process: [u8; 11],
    next: AtomicU64,
}

impl TicketIds {
    /// For a process that begins now.
    pub fn new(now: Timestamp) -> Self {
        let mut process = [0; 11];
        process[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
        process[6..].copy_from_slice(&Uuid::new_v4().into_bytes()[..5]);
        Self { process, next: AtomicU64::new(0) }
    }

    /// A new unique id for a ticket.
    pub fn next(&self) -> TicketId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        id[..11].copy_from_slice(&self.process);
        // 2^40 tickets are more than a process lives to give.
        id[11..].copy_from_slice(&number.to_be_bytes()[3..]);
        TicketId(id)
    }
}

/// How handlers hold it.
pub type AppState = Arc<App>;

impl App {
    /// Whether the service is about to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The pass of a ticket of `queue` that is active until `until`.
    pub fn pass(&self, ticket: &PresentedTicket, queue: &Queue, until: Timestamp) -> String {
        let PresentedTicket { ticket, bypass } = ticket;
        let begins = match bypass {
            Some(_) => ticket.issued_at,
            None => Timestamp(until.0 - queue.settings().active_ttl.as_millis() as i64),
        };
        let claims = Claims {
            queue: ticket.queue.clone(),
            user: ticket.user,
            // Whole seconds, so that whoever is told that they are in has a good pass.
            begins: begins.0.div_euclid(1_000),
            ends: until.0.saturating_add(999).div_euclid(1_000),
            id: ticket.id,
            seq: ticket.seq,
            epoch: self.tickets.epoch(),
        };
        self.passes.pass(&self.signing, &claims)
    }

    /// What a pass says that is good for `queue` at `now`; `None` where it is not.
    pub fn good_pass(&self, pass: &str, queue: &Queue, now: Timestamp) -> Option<Claims> {
        let claims = self.passes.read(&self.signing, pass)?;
        let is_of_it = claims.queue == *queue.name();
        // Not by a clock that is ahead.
        let is_good = claims.are_good_at(now) || claims.are_good_at(self.store.vouched(now));
        let belongs = self.tickets.belongs(claims.epoch, &claims.queue, claims.seq);
        let is_given_up = || self.sequencer.is_given_up(queue, claims.seq, claims.id, now);
        (is_of_it && is_good && belongs && !is_given_up()).then_some(claims)
    }

    /// How long a seat that somebody gives up stays taken: a part of the configured time that nobody
    /// can foresee.
    pub fn release_delay(&self) -> Duration {
        let most_ms = self.config.sales.release_jitter_seconds * 1_000;
        if most_ms == 0 {
            return Duration::ZERO;
        }
        let random = Uuid::new_v4().as_u128() % (u128::from(most_ms) + 1);
        Duration::from_millis(u64::try_from(random).unwrap_or(most_ms))
    }
}

/// How much one user may take, by the configuration.
pub fn limits(config: &Config) -> Limits {
    let count = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Limits {
        hold: Duration::from_secs(config.sales.hold_seconds),
        seats_per_reservation_max: count(config.sales.max_seats_per_reservation),
        seats_per_user_max: count(config.sales.max_seats_per_user),
        live_holds_max: count(config.sales.live_holds_max),
        holds_per_ticket_max: count(config.sales.holds_per_ticket_max),
        no_orphans: config.sales.no_orphans,
    }
}

/// The settings that the configuration gives to a new queue.
pub fn queue_settings(config: &Config) -> QueueSettings {
    QueueSettings {
        admit_per_second: config.queue.admit_per_second,
        max_active: config.queue.max_active,
        active_ttl: Duration::from_secs(config.queue.active_ttl_seconds),
        claim_window: Duration::from_secs(config.queue.claim_window_seconds),
        opens_at: None,
        paused: false,
    }
}

/// How queues follow the sales behind them, by the configuration.
pub fn sale_rules(config: &Config) -> SaleRules {
    let after = |after: config::AfterSale| match after {
        config::AfterSale::Close => AfterSale::Close,
        config::AfterSale::GoOn => AfterSale::GoOn,
    };
    SaleRules {
        by_stock: config.queue.stock == config::Stock::On,
        after_sold_out: after(config.queue.after_sold_out),
        after_end: after(config.queue.after_end),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_tickets_rise_and_no_two_are_the_same() {
        let ids = [1, 1, 2].map(|ms| TicketIds::new(Timestamp(1_763_800_000_000 + ms)));
        let of = |ids: &TicketIds| (0..300).map(|_| ids.next().0).collect::<Vec<_>>();
        let made: Vec<_> = ids.iter().map(of).collect();
        assert!(made.iter().all(|made| made.is_sorted()));
        assert!(made[0].last() < made[2].first());
        let different: HashSet<_> = made.iter().flatten().collect();
        assert_eq!(different.len(), 900);
    }
}
