//! The states of the seats of a session in two bits each, and what has changed since a version.
//!
//! A version is made when somebody asks and something is different from what was seen last: a seat was
//! published, or a hold ran out, which nobody publishes. Whoever knows a version is told the seats that were
//! touched since, each with the state that it has now, so it does no harm to be told something twice. What was
//! touched is kept for as long as telling it is shorter than telling all. So nothing here grows with the sale,
//! nor with those who ask.
//!
//! What does not belong here: who listens, and when they are told (see `seat_streams`).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use boxoffice_backends::store::Inventory;
use boxoffice_domain::ids::SessionId;
use boxoffice_domain::sales::{Seat, SeatState};
use boxoffice_domain::time::Timestamp;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::coding::Coding;
use super::describe::{Described, Description};
use super::page::query;
use super::problem::{ErrorCode, Problem};
use super::seat_list::{gzip, may_be_stale};
use super::seat_news::Feed;

/// Touched seats are told by their numbers up to this part of all, and up to so many in any case. Beyond, all seats
/// in two bits each are shorter.
const TOUCHED_PART: usize = 16;
const TOUCHED_MIN: usize = 32;

/// A session that nobody has asked for in so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Less than this is not compressed.
const GZIP_MIN: usize = 1_024;

/// The state of a seat, as its two bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has it.
    Free = 0,
    /// Somebody has it who has not paid yet.
    Held = 1,
    /// Somebody has paid for it.
    Sold = 2,
}

impl State {
    fn of(seat: &Seat, now: Timestamp) -> Self {
        match seat.state {
            _ if seat.state.is_free(now) => Self::Free,
            SeatState::Available => Self::Free,
            SeatState::Held { .. } | SeatState::Released { .. } => Self::Held,
            SeatState::Sold { .. } => Self::Sold,
        }
    }
}

/// The states of all seats of a session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SeatStateList {
    /// Names these states; whoever has them asks for what has changed `since`.
    version: String,
    /// How many seats there are. They are numbered from 1.
    count: usize,
    /// The ids of the seats: the number of the first, its id, and how many follow one another from there.
    #[schema(value_type = Vec<Vec<i64>>)]
    seat_ids: Vec<(u32, i64, u32)>,
    /// Two bits for each seat, in base64; the seat with number 1 has the lowest bits of the first byte. 0: free, 1:
    /// held, 2: sold.
    states: String,
}

/// What has changed since a version.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct SeatChanges {
    /// Names the states afterwards.
    version: String,
    /// The numbers of the seats that are free now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    free: Vec<u32>,
    /// Those that are held.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    held: Vec<u32>,
    /// Those that are sold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    sold: Vec<u32>,
}

/// States or changes as bytes, made once for all who are told.
pub(super) struct Told {
    /// Whoever was told less than this may miss something of it: 0 where it is all that there is.
    pub(super) from: u64,
    /// What is known afterwards.
    pub(super) upto: u64,
    version: String,
    json: Bytes,
    gzip: OnceLock<Bytes>,
    event: OnceLock<Bytes>,
}

impl Told {
    fn new(from: u64, upto: u64, version: String, told: &impl Serialize) -> Arc<Self> {
        // Strings and numbers always serialise.
        let json = serde_json::to_vec(told).unwrap_or_default().into();
        let (gzip, event) = (OnceLock::new(), OnceLock::new());
        Arc::new(Self { from, upto, version, json, gzip, event })
    }

    /// How a client that asks for this coding gets it.
    pub(super) fn coding(&self, asked: Coding) -> Coding {
        if self.json.len() < GZIP_MIN { Coding::Identity } else { asked }
    }

    /// The JSON in this form.
    pub(super) fn bytes(&self, coding: Coding) -> Bytes {
        match coding {
            Coding::Identity => self.json.clone(),
            Coding::Gzip => self.gzip.get_or_init(|| gzip(&self.json)).clone(),
        }
    }

    /// As an event of a stream.
    pub(super) fn event(&self) -> Bytes {
        let make = || {
            let id = self.version.as_bytes();
            [b"event: seats\nid: ", id, b"\ndata: ", &self.json, b"\n\n"].concat().into()
        };
        self.event.get_or_init(make).clone()
    }
}

/// The sessions that somebody asks for.
#[derive(Default)]
pub(super) struct SeatStates(RwLock<HashMap<SessionId, Arc<Watched>>>);

impl SeatStates {
    /// What is known of a session.
    pub(super) fn of(&self, inventory: &Arc<Inventory>) -> Arc<Watched> {
        let session = inventory.session().id;
        let known = self.0.read().get(&session).cloned();
        if let Some(watched) = known.filter(|it| Arc::ptr_eq(&it.inventory, inventory)) {
            return watched;
        }
        let mut all = self.0.write();
        all.retain(|_, watched| Arc::strong_count(watched) > 1 || watched.was_asked_lately());
        let watched = all.entry(session).or_insert_with(|| Watched::new(inventory.clone()));
        if !Arc::ptr_eq(&watched.inventory, inventory) {
            *watched = Watched::new(inventory.clone());
        }
        watched.clone()
    }
}

/// A session that somebody asks for.
pub(super) struct Watched {
    /// Its seats.
    pub(super) inventory: Arc<Inventory>,
    /// Where those who listen are told.
    pub(super) feed: Feed,
    known: Mutex<Known>,
}

impl Watched {
    fn new(inventory: Arc<Inventory>) -> Arc<Self> {
        Arc::new(Self { inventory, feed: Feed::default(), known: Mutex::new(Known::new()) })
    }

    /// What somebody is to be told who has `version`: what has changed, or all where that is not known here.
    pub(super) fn since(&self, version: Option<&str>, now: Timestamp) -> Arc<Told> {
        let mut known = self.known.lock();
        known.follow(&self.inventory, now);
        match version.and_then(|version| known.number_of(version)) {
            Some(number) => known.since(number),
            None => known.all(),
        }
    }

    /// What somebody is to be told who knows the version with this number; none where nothing is new.
    pub(super) fn news_since(&self, number: u64, now: Timestamp) -> Option<Arc<Told>> {
        let mut known = self.known.lock();
        known.follow(&self.inventory, now);
        (known.number != number).then(|| known.since(number))
    }

    /// All states, as they are known.
    pub(super) fn all(&self) -> Arc<Told> {
        self.known.lock().all()
    }

    fn was_asked_lately(&self) -> bool {
        self.known.lock().asked_at.elapsed() < FORGOTTEN_AFTER
    }
}

/// What was seen of the seats of a session, and lately touched.
pub(super) struct Known {
    /// Different for each session, each process and each time that it is watched: another one's versions are not
    /// taken for its own.
    nonce: u64,
    /// The number of the version; 0 before the first.
    number: u64,
    states: Vec<State>,
    seat_ids: Vec<(u32, i64, u32)>,
    /// What was touched: the number of the version, and the seat's. The latest comes last.
    touched: VecDeque<(u64, u32)>,
    /// What was touched after the version with this number is all there.
    complete_from: u64,
    /// All states of this version, once somebody has asked.
    all: Option<Arc<Told>>,
    /// The version of the inventory that was looked at.
    seen: u64,
    /// When a hold in it runs out.
    stale_at: Option<Timestamp>,
    /// How long looking took, and when that was.
    cost: Duration,
    looked_at: Instant,
    asked_at: Instant,
}

impl Known {
    pub(super) fn new() -> Self {
        Self {
            nonce: std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8),
            number: 0,
            states: Vec::new(),
            seat_ids: Vec::new(),
            touched: VecDeque::new(),
            complete_from: 0,
            all: None,
            seen: 0,
            stale_at: None,
            cost: Duration::ZERO,
            looked_at: Instant::now(),
            asked_at: Instant::now(),
        }
    }

    /// Looks at the seats, where they may be different.
    fn follow(&mut self, inventory: &Inventory, now: Timestamp) {
        self.asked_at = Instant::now();
        let is_first = self.number == 0;
        if !is_first {
            let is_same =
                self.seen == inventory.version() && self.stale_at.is_none_or(|at| now < at);
            if is_same || may_be_stale(self.cost, self.looked_at) {
                return;
            }
        }
        inventory.look(|version, seats| {
            self.seen = version;
            self.take(seats, now);
        });
        self.looked_at = Instant::now();
        self.cost = self.looked_at.duration_since(self.asked_at);
    }

    /// Takes over the states of all seats, in the order of their numbers. There is a new version where any of them
    /// is different.
    pub(super) fn take(&mut self, seats: &[Seat], now: Timestamp) {
        let next = self.number + 1;
        if self.number == 0 || seats.len() != self.states.len() {
            self.number = next;
            self.states = seats.iter().map(|seat| State::of(seat, now)).collect();
            self.seat_ids = runs_of(seats);
            self.forget_touched();
        } else {
            for ((state, seat), number) in self.states.iter_mut().zip(seats).zip(1..) {
                let is = State::of(seat, now);
                if *state != is {
                    *state = is;
                    self.number = next;
                    self.touched.push_back((next, number));
                }
            }
            if self.number == next {
                self.all = None;
                self.keep_touched();
            }
        }
        self.stale_at = Inventory::next_expiry(seats, now);
    }

    fn forget_touched(&mut self) {
        self.all = None;
        self.touched = VecDeque::new();
        self.complete_from = self.number;
    }

    /// Forgets what was touched in so early versions that telling it would be longer than telling all.
    fn keep_touched(&mut self) {
        let most = (self.states.len() / TOUCHED_PART).max(TOUCHED_MIN);
        if let Some(over) = self.touched.len().checked_sub(most + 1)
            && let Some((number, _)) = self.touched.get(over)
        {
            self.complete_from = *number;
            let forgotten =
                self.touched.partition_point(|(number, _)| *number <= self.complete_from);
            self.touched.drain(..forgotten);
            self.touched.shrink_to(2 * most);
        }
    }

    fn version(&self) -> String {
        format!("{:016x}-{}", self.nonce, self.number)
    }

    /// The number of a version of ours.
    fn number_of(&self, version: &str) -> Option<u64> {
        let (nonce, number) = version.split_once('-')?;
        (nonce == format!("{:016x}", self.nonce)).then(|| number.parse().ok())?
    }

    /// What has changed since the version with this number, or all where that is not known any more.
    pub(super) fn since(&mut self, number: u64) -> Arc<Told> {
        if !(self.complete_from..=self.number).contains(&number) {
            return self.all();
        }
        let begin = self.touched.partition_point(|(touched, _)| *touched <= number);
        let mut seats: Vec<u32> = self.touched.range(begin..).map(|(_, seat)| *seat).collect();
        seats.sort_unstable();
        seats.dedup();
        let mut changes = SeatChanges { version: self.version(), ..SeatChanges::default() };
        for seat in seats {
            match self.states[seat as usize - 1] {
                State::Free => changes.free.push(seat),
                State::Held => changes.held.push(seat),
                State::Sold => changes.sold.push(seat),
            }
        }
        Told::new(number, self.number, self.version(), &changes)
    }

    pub(super) fn all(&mut self) -> Arc<Told> {
        if let Some(all) = &self.all {
            return all.clone();
        }
        let list = SeatStateList {
            version: self.version(),
            count: self.states.len(),
            seat_ids: self.seat_ids.clone(),
            states: base64_simd::STANDARD.encode_to_string(packed(&self.states)),
        };
        let all = Told::new(0, self.number, self.version(), &list);
        self.all = Some(all.clone());
        all
    }
}

fn packed(states: &[State]) -> Vec<u8> {
    let byte = |four: &[State]| four.iter().rev().fold(0, |byte, state| byte << 2 | *state as u8);
    states.chunks(4).map(byte).collect()
}

/// Seats whose ids follow one another: the number of the first, its id, and how many there are.
fn runs_of(seats: &[Seat]) -> Vec<(u32, i64, u32)> {
    let follow = |one: &Seat, next: &Seat| next.id.get() == one.id.get() + 1;
    let mut number = 1;
    let runs = seats.chunk_by(follow).map(|run| {
        let first = number;
        number += run.len() as u32;
        (first, run[0].id.get(), run.len() as u32)
    });
    runs.collect()
}

/// The version that a client has, where it asks for states and not for a list.
pub(super) struct Since(pub(super) Option<String>);

#[derive(Deserialize)]
struct SinceQuery {
    since: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Since {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        query(&parts.uri).map(|SinceQuery { since }| Self(since))
    }
}

impl Described for Since {
    fn describe(description: &mut Description) {
        let about = "The version that the client has, to be told what has changed; 0 for all states. The list where \
                     it is left out";
        description.query_text("since", about, None);
        description.errors(&[ErrorCode::InvalidQuery]);
    }
}

#[cfg(test)]
pub(super) mod tests;
