//! Seat lists as bytes: serialised once for each change, and only when somebody asks.
//!
//! During a sell-out the seats change hundreds of times a second. A list that nobody reads is not
//! built; one that everybody reads is built by the first and shared by the rest. A list of a big
//! hall that takes long to build may be a few builds old, so that building never takes more than
//! a part of the processor: the list advises, the hold decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use boxoffice_backends::store::Inventory;
use boxoffice_domain::ids::SessionId;
use boxoffice_domain::sales::{Seat, SeatState};
use boxoffice_domain::seating::Plan;
use boxoffice_domain::time::Timestamp;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::{Mutex, OnceCell};
use utoipa::ToSchema;

use super::coding::Coding;
use super::place::SeatPlace;

/// A seat list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SeatList<'a> {
    /// How many seats there are.
    total_seat_count: usize,
    /// Seats that can be taken.
    available_seats: Vec<ListedSeat<'a>>,
    /// Seats that somebody has.
    unavailable_seats: Vec<ListedSeat<'a>>,
}

/// A seat in a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedSeat<'a> {
    /// The seat.
    #[schema(schema_with = super::schema::id_out)]
    seat_id: i64,
    /// The number printed on it.
    number: u32,
    /// Whether somebody has it.
    status: SeatStatus,
    /// Its price, in points.
    price: i64,
    /// Where it is, in a session with a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<SeatPlace<'a>>,
}

/// Who has a seat.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum SeatStatus {
    /// Nobody.
    Available,
    /// Somebody who has not paid yet.
    TemporaryReserved,
    /// Somebody who has paid.
    Confirmed,
}

/// The entity tags of one rendering. They are strong, so each form of it has its own: the same tag
/// would say that the bytes are the same.
#[derive(Clone)]
struct Etags {
    identity: String,
    gzip: String,
}

impl Etags {
    fn new(process: u32, count: u64) -> Self {
        let name = format!("{process:08x}-{count}");
        Self { identity: format!("\"{name}\""), gzip: format!("\"{name}-gzip\"") }
    }
}

/// A rendered list.
pub(super) struct Rendered {
    etags: Etags,
    json: Bytes,
    gzip: OnceCell<Bytes>,
    version: u64,
    /// When a hold in it runs out, which no version counts.
    stale_at: Option<Timestamp>,
    cost: Duration,
    at: Instant,
}

#[derive(Default)]
struct Slot {
    current: ArcSwapOption<Rendered>,
    /// Held while one is being built: who waits for it takes that one.
    building: Mutex<()>,
}

/// All lists that were asked for.
pub(super) struct SeatLists {
    slots: RwLock<HashMap<SessionId, Arc<Slot>>>,
    builds: AtomicU64,
    /// Different in every process, because versions start anew in each.
    nonce: u32,
}

impl Default for SeatLists {
    fn default() -> Self {
        let nonce = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8) as u32;
        Self { slots: RwLock::default(), builds: AtomicU64::new(0), nonce }
    }
}

/// A build that takes less than this is made for every change; beyond it, lists may be stale.
const COST_FREE: Duration = Duration::from_millis(1);
/// A list may be as old as this many builds take, so building takes a fifth of a core at the most.
const STALE_BUILDS: u32 = 4;
/// But never older than this.
const STALE_MAX: Duration = Duration::from_millis(500);
/// Halls with more seats are rendered on another thread.
const INLINE_MAX: usize = 4_096;

/// Whether what took `cost` to make at `at` is good enough, whatever has changed since.
pub(super) fn may_be_stale(cost: Duration, at: Instant) -> bool {
    cost > COST_FREE && at.elapsed() < (cost * STALE_BUILDS).min(STALE_MAX)
}

impl Rendered {
    fn serves(&self, inventory: &Inventory, now: Timestamp) -> bool {
        let fresh = self.version == inventory.version() && self.stale_at.is_none_or(|at| now < at);
        fresh || may_be_stale(self.cost, self.at)
    }

    /// Names this very rendering, in this form.
    pub(super) fn etag(&self, coding: Coding) -> &str {
        match coding {
            Coding::Identity => &self.etags.identity,
            Coding::Gzip => &self.etags.gzip,
        }
    }

    /// The JSON in this form.
    pub(super) async fn bytes(&self, coding: Coding) -> Bytes {
        match coding {
            Coding::Identity => self.json.clone(),
            Coding::Gzip => self.compressed().await,
        }
    }

    /// The list compressed, once.
    async fn compressed(&self) -> Bytes {
        let compress = || async {
            let json = self.json.clone();
            let compressed = tokio::task::spawn_blocking(move || gzip(&json)).await;
            compressed.unwrap_or_default()
        };
        self.gzip.get_or_init(compress).await.clone()
    }
}

impl SeatLists {
    /// How many lists were built since the start.
    pub(super) fn builds(&self) -> u64 {
        self.builds.load(Ordering::Relaxed)
    }

    /// The list of a session.
    pub(super) async fn get(&self, inventory: &Arc<Inventory>, now: Timestamp) -> Arc<Rendered> {
        let slot = self.slot(inventory.session().id);
        if let Some(rendered) = slot.current.load_full().filter(|list| list.serves(inventory, now))
        {
            return rendered;
        }
        let _building = slot.building.lock().await;
        if let Some(rendered) = slot.current.load_full().filter(|list| list.serves(inventory, now))
        {
            return rendered;
        }
        let count = self.builds.fetch_add(1, Ordering::Relaxed);
        let etags = Etags::new(self.nonce, count);
        let rendered = if inventory.total() <= INLINE_MAX {
            Arc::new(render(inventory, now, etags))
        } else {
            let (inventory, again) = (inventory.clone(), etags.clone());
            let built = tokio::task::spawn_blocking(move || render(&inventory, now, etags)).await;
            // The thread pool refuses only while the process ends.
            Arc::new(built.unwrap_or_else(|_| Rendered {
                etags: again,
                json: Bytes::from_static(b"{}"),
                gzip: OnceCell::new(),
                version: 0,
                stale_at: None,
                cost: Duration::ZERO,
                at: Instant::now(),
            }))
        };
        slot.current.store(Some(rendered.clone()));
        rendered
    }

    fn slot(&self, session: SessionId) -> Arc<Slot> {
        if let Some(slot) = self.slots.read().get(&session) {
            return slot.clone();
        }
        self.slots.write().entry(session).or_default().clone()
    }
}

fn render(inventory: &Inventory, now: Timestamp, etags: Etags) -> Rendered {
    let at = Instant::now();
    let (version, seats) = inventory.snapshot();
    let (free, taken): (Vec<&Seat>, Vec<&Seat>) =
        seats.iter().partition(|seat| seat.state.is_free(now));
    let plan = inventory.plan().map(|stored| &**stored.plan());
    let list = SeatList {
        total_seat_count: seats.len(),
        available_seats: free.into_iter().map(|seat| listed(plan, seat, true)).collect(),
        unavailable_seats: taken.into_iter().map(|seat| listed(plan, seat, false)).collect(),
    };
    // Strings and numbers always serialise.
    let json = serde_json::to_vec(&list).unwrap_or_default().into();
    Rendered {
        etags,
        json,
        gzip: OnceCell::new(),
        version,
        stale_at: Inventory::next_expiry(&seats, now),
        cost: at.elapsed(),
        at: Instant::now(),
    }
}

fn listed<'a>(plan: Option<&'a Plan>, seat: &Seat, free: bool) -> ListedSeat<'a> {
    let status = match seat.state {
        _ if free => SeatStatus::Available,
        SeatState::Available => SeatStatus::Available,
        SeatState::Held { .. } | SeatState::Released { .. } => SeatStatus::TemporaryReserved,
        SeatState::Sold { .. } => SeatStatus::Confirmed,
    };
    ListedSeat {
        seat_id: seat.id.get(),
        number: seat.number,
        status,
        price: seat.price,
        place: SeatPlace::of(plan, seat.number),
    }
}

/// The fastest level: a seat list shrinks to a tenth at any.
pub(super) fn gzip(json: &[u8]) -> Bytes {
    use std::io::Write;
    let mut encoder = GzEncoder::new(Vec::with_capacity(json.len() / 8), Compression::fast());
    // Writing to a vector does not fail.
    let _ = encoder.write_all(json);
    encoder.finish().unwrap_or_default().into()
}
