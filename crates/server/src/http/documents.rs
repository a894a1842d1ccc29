//! The public documents of queues and concerts, as they were rendered last.
//!
//! What asks for them is whoever stands between the service and a crowd, and it gets the same bytes as
//! often as it asks, until there is something new to say. There is no `ETag`: while anybody joins, a document
//! that is a second old is never the current one, and a 304 would save a hundred bytes.
//!
//! What does not belong here: what stands in a document (see `queue` and `concerts`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::body::Bytes;
use boxoffice_backends::sequencer::Queue;
use boxoffice_backends::store::{Catalog, Digest, StoredPlan};
use boxoffice_domain::ids::ConcertId;
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::OnceCell;

use super::seat_list::gzip;

/// For so long a document is good, unless settings or line change before. Joins alone do not change it
/// any sooner, and there may be thousands of them in that time.
const GOOD_FOR: Duration = Duration::from_millis(100);

/// The documents of all queues that somebody has asked for.
#[derive(Default)]
pub(super) struct Documents {
    of: ArcSwap<BTreeMap<String, Arc<Document>>>,
    /// Held while a queue is added.
    adding: Mutex<()>,
}

/// That of a queue.
#[derive(Default)]
struct Document {
    rendered: ArcSwapOption<Rendered>,
    /// Held while it is rendered: one does it for all who ask, and none after another with what is older.
    rendering: Mutex<()>,
}

struct Rendered {
    at: Instant,
    queue: Arc<Queue>,
    edition: u64,
    json: Bytes,
}

impl Documents {
    /// The document of the queue with this name for a request that came at `begun`; `find` knows the
    /// queue, and `render` makes a document of it. None where there is no such queue.
    pub(super) fn get(
        &self,
        name: &str,
        begun: Instant,
        find: impl FnOnce() -> Option<Arc<Queue>>,
        render: impl FnOnce(&Queue) -> Vec<u8>,
    ) -> Option<Bytes> {
        if let Some(document) = self.of.load().get(name) {
            return document.good(begun).or_else(|| document.renew(begun, find, render));
        }
        // Only queues that exist take room.
        let queue = find()?;
        self.add(name).renew(begun, || Some(queue), render)
    }

    fn add(&self, name: &str) -> Arc<Document> {
        let _adding = self.adding.lock();
        let mut all = BTreeMap::clone(&self.of.load());
        let document = all.entry(name.to_owned()).or_default().clone();
        self.of.store(Arc::new(all));
        document
    }
}

impl Document {
    fn good(&self, begun: Instant) -> Option<Bytes> {
        let rendered = self.rendered.load();
        let Rendered { at, queue, edition, json } = &**rendered.as_ref()?;
        let is_good =
            begun.saturating_duration_since(*at) < GOOD_FOR && queue.edition() == *edition;
        is_good.then(|| json.clone())
    }

    fn renew(
        &self,
        begun: Instant,
        find: impl FnOnce() -> Option<Arc<Queue>>,
        render: impl FnOnce(&Queue) -> Vec<u8>,
    ) -> Option<Bytes> {
        let _rendering = self.rendering.lock();
        // Somebody else may have done it meanwhile.
        if let Some(json) = self.good(begun) {
            return Some(json);
        }
        let queue = find()?;
        // Before the queue is read: what comes in between is seen the next time.
        let (at, edition) = (Instant::now(), queue.edition());
        let json = Bytes::from(render(&queue));
        let rendered = Rendered { at, queue, edition, json: json.clone() };
        self.rendered.store(Some(Arc::new(rendered)));
        Some(json)
    }
}

/// For so long the document of a concert is good. All its seats are counted for it, and in a rush some of
/// them change with every commit.
const CONCERT_GOOD_FOR: Duration = Duration::from_secs(1);
/// Bytes of documents that are kept. There may be more concerts than anybody asks for.
const CONCERT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What a document takes beside its bytes, about.
const CONCERT_BYTES_BESIDE: u64 = 128;
/// Documents of different concerts are rendered side by side, most of the time.
const RENDERERS: usize = 16;

/// Those of the concerts that are asked for most.
pub(super) struct ConcertDocuments {
    kept: Cache<ConcertId, KeptConcert, ByBytes>,
    /// Held while a concert is rendered: one does it for all who ask.
    rendering: [Mutex<()>; RENDERERS],
}

#[derive(Clone)]
struct KeptConcert {
    at: Instant,
    json: Bytes,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<ConcertId, KeptConcert> for ByBytes {
    fn weight(&self, _: &ConcertId, kept: &KeptConcert) -> u64 {
        kept.json.len() as u64 + CONCERT_BYTES_BESIDE
    }
}

impl Default for ConcertDocuments {
    fn default() -> Self {
        let documents = (CONCERT_BYTES_MAX / 2_048) as usize;
        let kept = Cache::with_weighter(documents, CONCERT_BYTES_MAX, ByBytes);
        Self { kept, rendering: Default::default() }
    }
}

impl ConcertDocuments {
    /// The document of a concert for a request that came at `begun`; `render` makes it. None where there is
    /// no such concert.
    pub(super) fn get(
        &self,
        id: ConcertId,
        begun: Instant,
        render: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<Bytes> {
        if let Some(json) = self.good(id, begun) {
            return Some(json);
        }
        let _rendering = self.rendering[id.get().unsigned_abs() as usize % RENDERERS].lock();
        // Somebody else may have done it meanwhile.
        if let Some(json) = self.good(id, begun) {
            return Some(json);
        }
        let at = Instant::now();
        let Some(json) = render() else {
            self.kept.remove(&id);
            return None;
        };
        let json = Bytes::from(json);
        self.kept.insert(id, KeptConcert { at, json: json.clone() });
        Some(json)
    }

    fn good(&self, id: ConcertId, begun: Instant) -> Option<Bytes> {
        let KeptConcert { at, json } = self.kept.get(&id)?;
        (begun.saturating_duration_since(at) < CONCERT_GOOD_FOR).then_some(json)
    }
}

/// Plans compressed, each once. Those that no session has any more are forgotten with the next that is new.
#[derive(Default)]
pub(super) struct PackedPlans(Mutex<HashMap<Digest, Arc<OnceCell<Bytes>>>>);

impl PackedPlans {
    /// The bytes of a plan, compressed.
    pub(super) async fn packed(&self, catalog: &Catalog, plan: &Arc<StoredPlan>) -> Bytes {
        let cell = {
            let mut cells = self.0.lock();
            if !cells.contains_key(&plan.digest()) {
                cells.retain(|digest, _| catalog.plan(digest).is_some());
            }
            cells.entry(plan.digest()).or_default().clone()
        };
        let pack = || async {
            let plan = plan.clone();
            let packed = tokio::task::spawn_blocking(move || gzip(plan.body())).await;
            packed.unwrap_or_default()
        };
        cell.get_or_init(pack).await.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: i64) -> ConcertId {
        ConcertId::new(number).unwrap()
    }

    #[test]
    fn a_concert_is_rendered_once_in_a_second_and_forgotten_with_it() {
        let documents = ConcertDocuments::default();
        let begun = Instant::now();
        let late = begun + CONCERT_GOOD_FOR + Duration::from_millis(200);
        let text = |json: &str| Some(json.as_bytes().to_vec());
        assert_eq!(documents.get(id(1), begun, || None), None);
        assert_eq!(documents.get(id(1), begun, || text("one")).unwrap(), "one");
        assert_eq!(documents.get(id(1), begun, || panic!("it is there")).unwrap(), "one");
        assert_eq!(documents.get(id(2), begun, || text("two")).unwrap(), "two");
        // It was rendered after `begun`.
        let soon = begun + CONCERT_GOOD_FOR / 2;
        assert_eq!(documents.get(id(1), soon, || panic!("it is good")).unwrap(), "one");
        assert_eq!(documents.get(id(1), late, || text("three")).unwrap(), "three");
        assert_eq!(documents.get(id(1), late + CONCERT_GOOD_FOR, || None), None);
        assert_eq!(documents.kept.len(), 1);
    }

    #[test]
    fn what_is_kept_of_concerts_is_bounded() {
        let documents = ConcertDocuments::default();
        let begun = Instant::now();
        for number in 1..=40_000 {
            documents.get(id(number), begun, || Some(vec![b'x'; 2_048]));
        }
        assert!(documents.kept.weight() <= CONCERT_BYTES_MAX, "{}", documents.kept.weight());
        assert!(documents.kept.len() > 1_000, "{}", documents.kept.len());
    }
}
