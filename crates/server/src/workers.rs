//! What goes on beside the requests: admission, tidying up, and carrying events away.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use boxoffice_backends::Fault;
use boxoffice_backends::events::{EventSink, StopBy};
use boxoffice_backends::store::{CalledOff, ShortenLog};
use boxoffice_domain::ids::ReservationId;
use boxoffice_domain::time::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::app::{App, AppState};
use crate::clock::Drift;
use crate::endpoints::Class;
use crate::http;
use crate::metrics::{ClassLabel, Outcome, OutcomeLabel};
use crate::operators;
use crate::signing;

/// Admission in steps of this length; the docs promise it.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two counts of how promises turned out.
const PROMISES_TICKS: u32 = 10;
/// The other instances are told this often that this one is there; see `Sequencer::beat`.
const BEAT: Duration = Duration::from_millis(500);
/// The console is told what goes on this often.
const PUBLISH: Duration = Duration::from_secs(1);
/// What operators have changed is read this often, while somebody looks at it.
const CHANGES: Duration = Duration::from_secs(2);
/// Holds that ran out are tidied up this often. Nothing waits for it but their events.
const SWEEP: Duration = Duration::from_millis(500);
/// Holds that one transaction tidies up, so that buyers are not kept waiting by it.
const SWEEP_MAX: u32 = 500;
/// Sessions that were called off are looked at this often.
const CALL_OFF: Duration = Duration::from_secs(1);
/// Reservations of them that are settled at a time, so that buyers of others are not kept waiting.
const CALL_OFF_STEP: usize = 100;
/// One that cannot be refunded, because the balance is too large, is tried again after this time.
const CALL_OFF_AGAIN: Duration = Duration::from_secs(60);
/// Idempotency keys that are old enough are looked for this often.
const FORGET: Duration = Duration::from_secs(5);
/// Admission logs are looked at this often, whether some of them is old enough to go.
const SHORTEN: Duration = Duration::from_secs(600);
/// Records that one transaction forgets, so that admission is not kept waiting by it.
const SHORTEN_MAX: u32 = 5_000;
/// A log says where the queue stands this often, in milliseconds, if anything has happened. The docs promise it.
const STANDING_MS: i64 = 86_400_000;
/// Events are looked for this often.
const RELAY: Duration = Duration::from_millis(200);
/// Events that are handed over at once.
const RELAY_MAX: u32 = 2_000;
/// The time for the last hand-over of events when the service ends. The docs promise 5 s for all of it.
const LAST_RELAY: Duration = Duration::from_secs(4);
/// What the relay is called where it is lost.
const EVENT_RELAY: &str = "event relay";

/// The background work of a service.
pub(crate) struct Workers {
    stop: watch::Sender<bool>,
    stop_by: StopBy,
    running: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts all of it.
    pub(crate) fn start(app: &AppState, sink: EventSink) -> Self {
        let (stop, stopped) = watch::channel(false);
        let stop_by = sink.stop_by();
        let tasks = app.store.tasks();
        let running = vec![
            tasks.spawn_steady("admission", admit(app.clone(), stopped.clone())),
            tasks.spawn_steady("beats", beats(app.clone(), stopped.clone())),
            tasks.spawn("expiry of holds", sweep(app.clone(), stopped.clone())),
            tasks.spawn("calling off", settle_called_off(app.clone(), stopped.clone())),
            tasks.spawn("expiry of keys", forget(app.clone(), stopped.clone())),
            tasks.spawn("admission log", shorten_logs(app.clone(), stopped.clone())),
            tasks.spawn("list of operators", follow_operators(app.clone(), stopped.clone())),
            tasks.spawn("live figures", publish(app.clone(), stopped.clone())),
            tasks.spawn("recent changes", follow_changes(app.clone(), stopped.clone())),
            tasks.spawn("signing keys", follow_signing_keys(app.clone(), stopped.clone())),
            tasks.spawn(EVENT_RELAY, relay(app.clone(), sink, stopped)),
        ];
        Self { stop, stop_by, running }
    }

    /// Ends all of it, after one last round of the relay.
    pub(crate) async fn stop(self) {
        self.stop_by.set(Instant::now() + LAST_RELAY);
        let _ = self.stop.send(true);
        for task in self.running {
            // One that panicked has been reported as lost.
            let _ = task.await;
        }
    }
}

/// Waits for the next beat; false once it is time to end.
async fn beat(interval: &mut tokio::time::Interval, stopped: &mut watch::Receiver<bool>) -> bool {
    if *stopped.borrow() {
        return false;
    }
    tokio::select! {
        _ = interval.tick() => true,
        _ = stopped.changed() => false,
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval(period);
    // Late is late: catching up would be a burst.
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Logs the first of a row of failures, and that they are over.
#[derive(Default)]
struct Complaint {
    failing: bool,
}

impl Complaint {
    fn note(&mut self, what: &'static str, result: Result<(), Fault>) {
        match result {
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(%error, "{what} has stopped; trying on");
            }
            Err(_) => {}
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("{what} goes on");
            }
            Ok(()) => {}
        }
    }
}

async fn admit(app: AppState, mut stopped: watch::Receiver<bool>) {
    let mut ticks = every(TICK);
    let mut complaint = Complaint::default();
    let mut count = 0_u32;
    let mut shed = 0;
    while beat(&mut ticks, &mut stopped).await {
        note_shed(&app, &mut shed);
        if let Drift::Jumped(ahead_ms) = app.clock.follow() {
            app.metrics.clock_jumps.inc();
            tracing::error!(
                clock.ahead_ms = ahead_ms,
                "the wall clock has jumped; keeping the old time until a restart"
            );
        }
        complaint.note("admission", app.sequencer.tick(app.clock.now()).await);
        if count.is_multiple_of(PROMISES_TICKS) {
            count_promises(&app);
        }
        count = count.wrapping_add(1);
    }
}

/// Purchases that were refused before anybody looked at them tell of the shop, too. `before` is how many there were.
fn note_shed(app: &App, before: &mut u64) {
    let shed = [Class::Reservation, Class::Payment].map(|class| {
        app.metrics.http_server_requests_shed.get_or_create(&ClassLabel { class }).get()
    });
    let shed: u64 = shed.iter().sum();
    app.sequencer.purchases().refuse(shed - *before);
    *before = shed;
}

/// Tells the console what goes on.
async fn publish(app: AppState, mut stopped: watch::Receiver<bool>) {
    let mut rounds = every(PUBLISH);
    while beat(&mut rounds, &mut stopped).await {
        http::publish(&app);
    }
}

/// Looks at what operators have changed of late, while somebody wants to know.
async fn follow_changes(app: AppState, mut stopped: watch::Receiver<bool>) {
    let mut rounds = every(CHANGES);
    let mut complaint = Complaint::default();
    while beat(&mut rounds, &mut stopped).await {
        if app.live.has_listeners() {
            let read = app.store.log(i64::MAX, http::ACTIONS_MAX).await;
            let read = read.map(|entries| app.live.note_actions(entries));
            complaint.note("reading the log of changes", read);
        }
    }
}

async fn beats(app: AppState, mut stopped: watch::Receiver<bool>) {
    let mut beats = every(BEAT);
    let mut complaint = Complaint::default();
    while beat(&mut beats, &mut stopped).await {
        complaint.note("telling the other instances", app.sequencer.beat(app.clock.now()).await);
    }
}

/// Counts how the promises turned out that waiting fans were made.
fn count_promises(app: &AppState) {
    for queue in app.sequencer.queues() {
        let label = queue.name().as_str().into();
        let ratios = app.metrics.queue_eta_ratio.get_or_create(&label);
        let kept = app.metrics.queue_eta_kept.get_or_create(&label);
        for promise in queue.take_promises() {
            ratios.observe(promise.took_percent());
            kept.inc_by(promise.is_kept().into());
        }
    }
}

async fn sweep(app: AppState, mut stopped: watch::Receiver<bool>) {
    let mut sweeps = every(SWEEP);
    let mut complaint = Complaint::default();
    while beat(&mut sweeps, &mut stopped).await {
        complaint.note("tidying up", sweep_once(&app).await);
    }
}

async fn sweep_once(app: &AppState) -> Result<(), Fault> {
    loop {
        let ended = app.store.expire_due(app.clock.now(), SWEEP_MAX).await?;
        let label = OutcomeLabel { outcome: Outcome::Expired };
        app.metrics.reservations.get_or_create(&label).inc_by(ended.into());
        if ended < SWEEP_MAX {
            return Ok(());
        }
    }
}

async fn settle_called_off(app: AppState, mut stopped: watch::Receiver<bool>) {
    let mut looks = every(CALL_OFF);
    let mut complaint = Complaint::default();
    let mut too_much = HashMap::new();
    while beat(&mut looks, &mut stopped).await {
        let settled = settle_all_called_off(&app, &mut too_much, &stopped).await;
        complaint.note("settling what was called off", settled);
    }
}

/// Ends all holds and refunds all payments of sessions that were called off, some at a time. Which they
/// are shows in the seats, so whoever goes on after a crash, or beside another instance, sees what is
/// left. `too_much` are those that cannot be refunded now, and when that was found.
async fn settle_all_called_off(
    app: &AppState,
    too_much: &mut HashMap<ReservationId, Instant>,
    stopped: &watch::Receiver<bool>,
) -> Result<(), Fault> {
    let catalog = app.store.catalog();
    let inventories = catalog.concerts().flat_map(|concert| catalog.inventories(concert.id));
    let called_off: Vec<_> =
        inventories.filter(|inventory| inventory.called_off().is_some()).collect();
    too_much.retain(|_, found| found.elapsed() < CALL_OFF_AGAIN);
    let mut left = 0;
    for inventory in called_off {
        let mut owners = inventory.owners();
        left += owners.len();
        app.metrics.called_off_left.set(left as i64);
        owners.retain(|reservation| !too_much.contains_key(reservation));
        for step in owners.chunks(CALL_OFF_STEP) {
            if *stopped.borrow() {
                return Ok(());
            }
            let began = Instant::now();
            let settled = app.store.settle_called_off(step, app.clock.now()).await?;
            for (reservation, what) in step.iter().zip(settled) {
                let (counter, outcome) = match what {
                    CalledOff::Ended => (&app.metrics.reservations, Outcome::Cancelled),
                    CalledOff::Refunded => (&app.metrics.payments, Outcome::Refunded),
                    CalledOff::Overflow => {
                        too_much.insert(*reservation, Instant::now());
                        tracing::warn!(
                            reservation.id = reservation.get(),
                            "a refund would pass the largest balance; trying again later"
                        );
                        (&app.metrics.payments, Outcome::Invalid)
                    }
                    CalledOff::Nothing | CalledOff::Locked => continue,
                };
                counter.get_or_create(&OutcomeLabel { outcome }).inc();
            }
            // The store is the buyers' for as long as it was ours.
            tokio::time::sleep(began.elapsed()).await;
        }
    }
    if left == 0 {
        app.metrics.called_off_left.set(0);
    }
    Ok(())
}

async fn forget(app: AppState, mut stopped: watch::Receiver<bool>) {
    let mut looks = every(FORGET);
    let mut complaint = Complaint::default();
    while beat(&mut looks, &mut stopped).await {
        complaint.note("forgetting idempotency keys", forget_all(&app, &stopped).await);
    }
}

async fn shorten_logs(app: AppState, mut stopped: watch::Receiver<bool>) {
    let mut looks = every(SHORTEN);
    let mut complaint = Complaint::default();
    while beat(&mut looks, &mut stopped).await {
        complaint.note("forgetting old records of admission", shorten_all(&app, &stopped).await);
    }
}

/// Forgets what is old of all admission logs.
async fn shorten_all(app: &AppState, stopped: &watch::Receiver<bool>) -> Result<(), Fault> {
    let now = app.store.vouched(app.clock.now());
    let kept_since = match i64::try_from(app.config.queue.log_days).unwrap_or(0) {
        0 => Timestamp(i64::MIN),
        days => Timestamp(now.0 - days * 86_400_000),
    };
    for queue in app.sequencer.queues() {
        while !*stopped.borrow() {
            let began = Instant::now();
            let shorten = ShortenLog {
                queue: queue.name().clone(),
                kept_since,
                marked_before: Timestamp(now.0 - STANDING_MS),
                max: SHORTEN_MAX,
            };
            if app.store.shorten_log(shorten).await? < u64::from(SHORTEN_MAX) {
                break;
            }
            // The store is the others' for as long as it was ours.
            tokio::time::sleep(began.elapsed()).await;
        }
    }
    Ok(())
}

/// Reads again and again who the operators are: another instance may have added or removed one.
async fn follow_operators(app: AppState, mut stopped: watch::Receiver<bool>) {
    let mut looks = every(operators::REFRESH);
    let mut complaint = Complaint::default();
    while beat(&mut looks, &mut stopped).await {
        let read = app.operators.refresh(&app.store).await;
        complaint.note("reading the list of operators", read);
    }
}

/// Reads again and again which keys sign: another instance may have changed them.
async fn follow_signing_keys(app: AppState, mut stopped: watch::Receiver<bool>) {
    let mut looks = every(signing::REFRESH);
    let mut complaint = Complaint::default();
    while beat(&mut looks, &mut stopped).await {
        complaint.note("reading the signing keys", refresh_signing_keys(&app).await);
    }
}

/// Reads which keys sign.
pub(crate) async fn refresh_signing_keys(app: &App) -> Result<(), Fault> {
    // Not by a clock that is ahead: what is let go now does not come back.
    let now = app.store.vouched(app.clock.now());
    let pass_lasts = Duration::from_secs(app.config.queue.active_ttl_seconds);
    let tokens_last = |issued_before| app.sequencer.tokens_last(issued_before, now);
    app.signing.refresh(&app.store, now, pass_lasts, tokens_last).await
}

/// Forgets every key that is old enough, however many came in a second.
async fn forget_all(app: &AppState, stopped: &watch::Receiver<bool>) -> Result<(), Fault> {
    let keep = Duration::from_secs(app.config.sales.idempotency_hours * 3_600);
    while !*stopped.borrow() {
        let began = Instant::now();
        let forgotten = app.store.forget_keys(app.clock.now(), keep, SWEEP_MAX).await?;
        if forgotten < SWEEP_MAX {
            break;
        }
        // The store is the buyers' for as long as it was ours.
        tokio::time::sleep(began.elapsed()).await;
    }
    Ok(())
}

/// Why a round of the relay did not hand everything over.
enum Unrelayed {
    /// The next round may.
    Fault(Fault),
    /// The sink is lost.
    Lost(String),
}

impl From<Fault> for Unrelayed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Unrelayed {
    /// What a sink says about itself.
    fn by_sink(fault: Fault) -> Self {
        match fault {
            Fault::Corrupt(why) => Self::Lost(why),
            fault => Self::Fault(fault),
        }
    }
}

async fn relay(app: AppState, sink: EventSink, mut stopped: watch::Receiver<bool>) {
    let mut rounds = every(RELAY);
    let mut complaint = Complaint::default();
    let mut sink = Some(sink);
    loop {
        let last = !beat(&mut rounds, &mut stopped).await;
        let mut published = relay_all(&app, &mut sink).await;
        if published.is_ok() && !last {
            // A sink without a connection is not well, even while there is nothing to publish.
            let connected = with_sink(&mut sink, EventSink::connect).await;
            published = connected.and_then(|connected| connected.map_err(Unrelayed::by_sink));
        }
        app.events_wait.store(published.is_err(), Ordering::Relaxed);
        match published {
            Ok(()) => complaint.note("publishing events", Ok(())),
            Err(Unrelayed::Fault(fault)) => complaint.note("publishing events", Err(fault)),
            Err(Unrelayed::Lost(why)) => return app.store.tasks().lose(EVENT_RELAY, why),
        }
        if last {
            return;
        }
    }
}

/// Uses the sink on a thread that may wait for files and for brokers.
async fn with_sink<T: Send + 'static>(
    sink: &mut Option<EventSink>,
    work: impl FnOnce(&mut EventSink) -> T + Send + 'static,
) -> Result<T, Unrelayed> {
    let Some(mut working) = sink.take() else {
        return Err(Unrelayed::Lost("the event sink is gone".to_owned()));
    };
    let task = tokio::task::spawn_blocking(move || {
        let result = work(&mut working);
        (working, result)
    });
    // Whoever panicked has dropped the sink.
    let (back, result) =
        task.await.map_err(|error| Unrelayed::Lost(format!("the event sink is gone: {error}")))?;
    *sink = Some(back);
    Ok(result)
}

/// Hands over everything that waits.
async fn relay_all(app: &AppState, sink: &mut Option<EventSink>) -> Result<(), Unrelayed> {
    loop {
        let outbox = app.store.next_events(RELAY_MAX).await?;
        app.metrics.events_pending.set(outbox.rows.len() as i64);
        if outbox.rows.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let (outbox, published) = with_sink(sink, move |sink| {
            let published = sink.publish(&outbox.rows);
            (outbox, published)
        })
        .await?;
        app.metrics.events_publish_duration.observe_duration(began.elapsed());
        if published.is_err() {
            app.metrics.events_failures.inc();
        }
        published.map_err(Unrelayed::by_sink)?;
        let count = outbox.rows.len();
        app.store.mark_published(outbox).await?;
        app.metrics.events_published.inc_by(count as u64);
        if count < RELAY_MAX as usize {
            app.metrics.events_pending.set(0);
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use boxoffice_backends::events::JsonlSink;

    use super::*;

    #[tokio::test]
    async fn a_sink_whose_work_panics_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let open = || JsonlSink::open(&directory.path().join("events.jsonl")).unwrap();
        let mut sink = Some(EventSink::Jsonl(open()));
        assert!(matches!(with_sink(&mut sink, |_| 7).await, Ok(7)));
        let panicked = with_sink(&mut sink, |_| assert_eq!(1, 2, "on purpose")).await;
        let Err(Unrelayed::Lost(why)) = panicked else { panic!("it goes on without a sink") };
        assert!(why.contains("the event sink is gone") && why.contains("on purpose"), "{why}");
    }
}
