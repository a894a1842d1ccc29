//! What the listeners of a session were told lately: a ring of events that all of them share.
//!
//! What does not belong here: what the events say (see `seat_states`), and who listens (see `seat_streams`).

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Events that are kept for those who are slow: ten seconds of them.
const EVENTS_KEPT: usize = 40;
/// And their bytes.
const EVENT_BYTES_KEPT: usize = 256 * 1024;

/// Where the listeners of a session are told; nowhere while there are none.
#[derive(Default)]
pub(super) struct Feed(Mutex<Weak<watch::Sender<News>>>);

/// What the listeners of a session were told lately.
#[derive(Default)]
pub(super) struct News {
    events: VecDeque<Event>,
    bytes: usize,
    /// How often there was nothing to tell for long.
    pub(super) heartbeats: u64,
}

/// An event, the same for all.
pub(super) struct Event {
    /// For whom it is: whoever knows this version or a later one. 0 where it tells all.
    pub(super) from: u64,
    /// The version that is known afterwards.
    pub(super) upto: u64,
    /// As it is sent.
    pub(super) bytes: Bytes,
}

/// What a listener is to be told next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This, and it knows this version then.
    Event(u64, Bytes),
    /// All, because what it has missed is not there any more.
    All,
    /// Nothing.
    Nothing,
}

impl News {
    /// Adds an event. One that tells all takes the place of those before.
    pub(super) fn push(&mut self, event: Event) {
        let tells_all = event.from == 0;
        self.bytes += event.bytes.len();
        self.events.push_back(event);
        let is_too_much = |it: &Self| it.events.len() > EVENTS_KEPT || it.bytes > EVENT_BYTES_KEPT;
        while self.events.len() > 1 && (is_too_much(self) || tells_all) {
            self.bytes -= self.events.pop_front().map_or(0, |event| event.bytes.len());
        }
    }

    /// What somebody is to be told next who knows a version.
    pub(super) fn after(&self, known: u64) -> Next {
        let begin = self.events.partition_point(|event| event.upto <= known);
        match self.events.get(begin) {
            None => Next::Nothing,
            Some(event) if event.from <= known => Next::Event(event.upto, event.bytes.clone()),
            Some(_) => Next::All,
        }
    }
}

impl Feed {
    /// Listens. Where nobody did, `begin` is to have somebody tell what is new.
    pub(super) fn listen(
        &self,
        begin: impl FnOnce(Arc<watch::Sender<News>>),
    ) -> watch::Receiver<News> {
        let mut feed = self.0.lock();
        if let Some(news) = feed.upgrade() {
            return news.subscribe();
        }
        let (news, listener) = watch::channel(News::default());
        let news = Arc::new(news);
        *feed = Arc::downgrade(&news);
        begin(news);
        listener
    }

    /// Returns whether whoever tells `news` is to go on, which is where somebody listens and `may` says so. Where not,
    /// the next one to listen begins anew.
    pub(super) fn goes_on(&self, news: &watch::Sender<News>, may: impl FnOnce() -> bool) -> bool {
        let mut feed = self.0.lock();
        let goes_on = news.receiver_count() > 0 && may();
        if !goes_on {
            *feed = Weak::new();
        }
        goes_on
    }
}

#[cfg(test)]
mod tests;
