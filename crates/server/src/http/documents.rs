//! The public documents of the queues, as they were rendered last.
//!
//! What asks for them is whoever stands between the service and a crowd, and it gets the same bytes as
//! often as it asks, until there is something new to say. There is no `ETag`: while anybody joins, a document
//! that is a second old is never the current one, and a 304 would save a hundred bytes.
//!
//! What does not belong here: what stands in a document (see `queue`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::body::Bytes;
use boxoffice_backends::sequencer::Queue;
use parking_lot::Mutex;

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
