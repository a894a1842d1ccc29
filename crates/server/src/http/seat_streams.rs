//! Who listens to the states of seats, as Server-Sent Events.
//!
//! One task for each session that anybody listens to looks what is new, a few times a second, and makes one event of
//! it for all. A listener has a position and nothing else: it takes the events that it has not had from a ring that
//! all share, and all states where they have left the ring. So who does not read costs no memory, and how many
//! listen costs nothing but the sending.
//!
//! A stream is no request in progress: its request is over with its head. What bounds streams is how many there are,
//! the ticket, the time-outs of the connection, and the end of the service.
//!
//! What does not belong here: what is told (see `seat_states`), and the ring (see `seat_news`).

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header::HeaderName;
use axum::http::request::Parts;
use axum::response::Response;
use boxoffice_backends::sequencer::{PresentedTicket, Queue};
use boxoffice_domain::ids::TicketId;
use boxoffice_domain::queue::Place;
use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, Sleep, interval_at, sleep};

use super::describe::{Described, Description};
use super::problem::{ErrorCode, Problem};
use super::reply::{HEARTBEAT, events};
use super::seat_news::{Event, News, Next};
use super::seat_states::Watched;
use crate::app::{App, AppState};
use crate::config::ServerConfig;
use crate::metrics::{IntGauge, Metrics};

/// Between two looks at what is new: seats change hundreds of times a second, and eyes do not.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Where there is nothing to be told, something is sent this often: silence is a lost connection.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// How often a listener looks whether its ticket is still good.
const TICKET_INTERVAL: Duration = Duration::from_secs(1);
/// Streams of one ticket: a second tab, or a connection that nobody has seen die.
const STREAMS_PER_TICKET: usize = 2;
/// Whole seconds until a refused listener may try again; it asks for changes meanwhile.
const RETRY_AFTER_SECONDS: u32 = 10;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The streams that are open.
pub(super) struct Streams {
    open: Mutex<Open>,
    max: usize,
    heartbeat: Duration,
}

#[derive(Default)]
struct Open {
    count: usize,
    made: u64,
    of: HashMap<TicketId, Vec<OneStream>>,
}

/// A stream that is open. Dropping this ends it.
struct OneStream {
    id: u64,
    #[expect(dead_code, reason = "it is for its end")]
    end: oneshot::Sender<Infallible>,
}

impl Streams {
    /// With the bounds of a configuration.
    pub(super) fn new(config: &ServerConfig) -> Self {
        let idle = Duration::from_millis(config.idle_timeout_ms);
        // What is silent for longer than that is cut.
        let heartbeat = HEARTBEAT_INTERVAL.min(idle / 2);
        Self { open: Mutex::default(), max: config.streams_max, heartbeat }
    }

    /// Lets a ticket have one more; its oldest ends where that is too many.
    ///
    /// # Errors
    /// 503 where too many are open. Those whose end was only asked for do not count: a client that does not read
    /// keeps no place that another could have, and its connection is cut in time.
    fn enter(self: &Arc<Self>, ticket: TicketId, metrics: &Metrics) -> Result<Entered, Problem> {
        let mut open = self.open.lock();
        let others = open.of.get(&ticket).map_or(0, Vec::len);
        if others < STREAMS_PER_TICKET && open.count >= self.max {
            metrics.seat_streams_refused.inc();
            return Err(Problem::new(ErrorCode::Overloaded)
                .detail("too many streams are open; ask for the seats with since instead")
                .retry_after(RETRY_AFTER_SECONDS));
        }
        open.made += 1;
        let id = open.made;
        let (end, ended) = oneshot::channel();
        let streams = open.of.entry(ticket).or_default();
        streams.push(OneStream { id, end });
        if streams.len() > STREAMS_PER_TICKET {
            streams.remove(0);
        } else {
            open.count += 1;
        }
        metrics.seat_streams.inc();
        let gauge = metrics.seat_streams.clone();
        Ok(Entered { streams: self.clone(), ticket, id, ended, gauge })
    }

    /// Tells whoever has an active ticket of a session, and the version `known`, what is new.
    ///
    /// # Errors
    /// 503 where too many listen.
    pub(super) fn listen(
        self: &Arc<Self>,
        app: AppState,
        watched: Arc<Watched>,
        pass: PresentedTicket,
        queue: Arc<Queue>,
        known: Option<&str>,
    ) -> Result<Response, Problem> {
        let entered = self.enter(pass.ticket.id, &app.metrics)?;
        let told = watched.since(known, app.store.vouched(app.clock.now()));
        let news = watched.feed.listen(|news| {
            let known = told.upto;
            tokio::spawn(tell(app.clone(), watched.clone(), (news, known), self.heartbeat));
        });
        let heartbeats = news.borrow().heartbeats;
        let first = if told.from == told.upto {
            // Proxies pass a head on when something comes behind it.
            HEARTBEAT
        } else {
            app.metrics.seat_stream_events.inc();
            told.event()
        };
        let listener = Listener {
            heartbeats,
            watched,
            pass,
            queue,
            entered,
            news,
            first: Some(first),
            known: told.upto,
            ticket_look: Box::pin(sleep(TICKET_INTERVAL)),
            app,
        };
        Ok(events(stream::unfold(Box::new(listener), Listener::next)))
    }
}

/// The place of a stream among those that are open.
struct Entered {
    streams: Arc<Streams>,
    ticket: TicketId,
    id: u64,
    /// Done when the stream is to end.
    ended: oneshot::Receiver<Infallible>,
    gauge: IntGauge,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.gauge.dec();
        let mut open = self.streams.open.lock();
        let Some(streams) = open.of.get_mut(&self.ticket) else { return };
        let Some(index) = streams.iter().position(|stream| stream.id == self.id) else { return };
        streams.remove(index);
        if streams.is_empty() {
            open.of.remove(&self.ticket);
        }
        open.count -= 1;
    }
}

/// Whether a session is still there.
fn is_there(app: &App, watched: &Watched) -> bool {
    let catalog = app.store.catalog();
    let inventory = catalog.inventory_of(watched.inventory.session().id);
    inventory.is_some_and(|inventory| Arc::ptr_eq(inventory, &watched.inventory))
}

/// Tells the listeners of a session what is new since the version that the first of them knows, until there are
/// none. Their streams end with this.
async fn tell(
    app: AppState,
    watched: Arc<Watched>,
    (news, mut known): (Arc<watch::Sender<News>>, u64),
    heartbeat: Duration,
) {
    let mut looks = interval_at(Instant::now() + LOOK_INTERVAL, LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told_at = Instant::now();
    loop {
        looks.tick().await;
        let may = || !app.draining.load(Ordering::Relaxed) && is_there(&app, &watched);
        if !watched.feed.goes_on(&news, may) {
            return;
        }
        // In a cluster, what others sell is read for those sessions that somebody asks for.
        watched.inventory.ask_for();
        if let Some(told) = watched.news_since(known, app.store.vouched(app.clock.now())) {
            known = told.upto;
            let event = Event { from: told.from, upto: told.upto, bytes: told.event() };
            news.send_modify(|news| news.push(event));
        } else if told_at.elapsed() >= heartbeat {
            news.send_modify(|news| news.heartbeats += 1);
        } else {
            continue;
        }
        told_at = Instant::now();
    }
}

/// Somebody who listens.
struct Listener {
    app: AppState,
    watched: Arc<Watched>,
    pass: PresentedTicket,
    queue: Arc<Queue>,
    entered: Entered,
    news: watch::Receiver<News>,
    /// What is to be sent before any news.
    first: Option<Bytes>,
    /// The version that it knows, when it has read what was sent.
    known: u64,
    heartbeats: u64,
    ticket_look: Pin<Box<Sleep>>,
}

impl Listener {
    /// What is sent next; none at the end.
    async fn next(mut self: Box<Self>) -> Option<(Result<Bytes, Infallible>, Box<Self>)> {
        loop {
            if !self.may_listen() {
                return None;
            }
            if let Some(bytes) = self.due() {
                return Some((Ok(bytes), self));
            }
            tokio::select! {
                biased;
                _ = &mut self.entered.ended => return None,
                () = &mut self.ticket_look => {}
                told = self.news.changed() => told.ok()?,
            }
        }
    }

    /// Whether the ticket still opens the door.
    fn may_listen(&mut self) -> bool {
        let now = self.app.clock.now();
        let Place::Active { until, .. } = self.app.sequencer.place(&self.queue, &self.pass, now)
        else {
            return false;
        };
        if self.ticket_look.is_elapsed() {
            // A ticket whose time is over by this clock and not by that of the database is looked at again soon.
            let left = until.since(now).clamp(LOOK_INTERVAL, TICKET_INTERVAL);
            self.ticket_look.as_mut().reset(Instant::now() + left);
        }
        true
    }

    /// What is to be sent now.
    fn due(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let (next, heartbeats) = {
            let news = self.news.borrow_and_update();
            (news.after(self.known), news.heartbeats)
        };
        let is_heartbeat = std::mem::replace(&mut self.heartbeats, heartbeats) != heartbeats;
        let metrics = &self.app.metrics;
        match next {
            Next::Event(upto, event) => {
                self.known = upto;
                metrics.seat_stream_events.inc();
                Some(event)
            }
            Next::All => {
                let all = self.watched.all();
                self.known = all.upto;
                metrics.seat_stream_events.inc();
                metrics.seat_stream_resends.inc();
                Some(all.event())
            }
            Next::Nothing => is_heartbeat.then_some(HEARTBEAT),
        }
    }
}

/// The version that a client had when its stream ended.
pub(super) struct LastEventId(pub(super) Option<String>);

impl<S: Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let id = parts.headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        Ok(Self(id.map(str::to_owned)))
    }
}

impl Described for LastEventId {
    fn describe(description: &mut Description) {
        let about = "The version that the client has; all states come first where it is left out or not known";
        description.header("Last-Event-ID", about, None);
    }
}

#[cfg(test)]
mod tests;
