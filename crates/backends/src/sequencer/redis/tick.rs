//! Ticks: news are told and heard, the mirrors catch up with the store, and somebody admits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use boxoffice_domain::time::Timestamp;
use tokio::time::{Instant, timeout};

use super::deadline::{STORE_TIMEOUT, in_time};
use super::member::ByName;
use super::mirror::{Lacks, Mirror};
use super::mode::{Event, Mode};
use super::protocol::{Heard, LogPosition, Protocol, Refusal, Tick};
use crate::planted::{Bug, planted};
use crate::sequencer::governing::Among;
use crate::sequencer::news::News;
use crate::sequencer::queue::{Queue, Refreshed};
use crate::store::{Advance, DrawRequest, Progress, Store, Taken};
use crate::{Fault, tasks};

/// While the store keeps a tick waiting, the others are heard this often.
const NEWS_INTERVAL: Duration = Duration::from_millis(100);
/// While Redis is away the queues are read from the store this often, in milliseconds: a little
/// less than the credit that a bucket can hold.
const LOOK_INTERVAL_MS: i64 = 400;
/// How much longer that may become where the store is slow to answer, in milliseconds.
const LOOK_PAUSE_MAX_MS: i64 = 5_000;
/// What this instance has of the queues is recorded this often, in milliseconds.
const RECORD_INTERVAL_MS: i64 = 1_000;
/// Opaque tokens are read again this often while Redis is away, in milliseconds.
const ALIASES_INTERVAL_MS: i64 = 3_000;
/// Everything is read from the store this often, in milliseconds, whatever news have come: an
/// instance may have been killed before it told what it had done.
const RECONCILE_INTERVAL_MS: i64 = 30_000;
/// Places of people are kept in Redis for a time; whoever polls is noted there anew this often, in
/// milliseconds.
const REFRESH_INTERVAL_MS: i64 = 3_600_000;
/// After a fault of the store this instance does not ask for the turn for so many milliseconds.
const FAULT_PAUSE_MS: i64 = 500;

/// Something that is done every so often.
struct Every {
    interval_ms: i64,
    last: Timestamp,
}

impl Every {
    const fn new(interval_ms: i64, last: Timestamp) -> Self {
        Self { interval_ms, last }
    }

    /// Whether it is to be done now; then it counts as done.
    fn is_due(&mut self, now: Timestamp) -> bool {
        // A clock that went back does not put it off for longer than it went back.
        let due = (now.0 - self.last.0).abs() >= self.interval_ms;
        if due {
            self.last = now;
        }
        due
    }

    /// It is to be done in so many milliseconds, whenever it was done last.
    const fn bring_forward(&mut self, now: Timestamp, in_ms: i64) {
        self.last = Timestamp(now.0 - self.interval_ms + in_ms);
    }
}

/// What ticks do, and what one of them keeps for the next.
pub(super) struct Ticker {
    store: Store,
    protocol: Arc<Protocol>,
    mirror: Arc<Mirror>,
    mode: Mode,
    position: LogPosition,
    lacks: Lacks,
    /// When to read the queues from the store again, while Redis is away.
    look_at: Timestamp,
    reconciling: Every,
    recording: Every,
    reading_aliases: Every,
    refreshing: Every,
    store_failed_at: Option<Timestamp>,
    /// Whether the clock here can be trusted, as of this tick.
    may_admit: Result<(), Fault>,
}

impl Ticker {
    pub(super) fn new(
        store: Store,
        protocol: Arc<Protocol>,
        mirror: Arc<Mirror>,
        now: Timestamp,
    ) -> Self {
        Self {
            store,
            protocol,
            mirror,
            mode: Mode::Opening,
            position: LogPosition::default(),
            lacks: Lacks::default(),
            look_at: now,
            reconciling: Every::new(RECONCILE_INTERVAL_MS, now),
            recording: Every::new(RECORD_INTERVAL_MS, now),
            reading_aliases: Every::new(ALIASES_INTERVAL_MS, now),
            refreshing: Every::new(REFRESH_INTERVAL_MS, now),
            store_failed_at: None,
            may_admit: Ok(()),
        }
    }

    /// Takes part from now on. Redis may be away.
    ///
    /// # Errors
    /// Where the store cannot be read, or Redis belongs to instances of another store.
    pub(super) async fn open(&mut self, now: Timestamp) -> Result<(), Fault> {
        match self.exchange(0, now).await {
            Ok(heard) => {
                self.catch_up(true, now).await?;
                self.hear(&heard, now);
                self.protocol.link().is_back();
            }
            Err(Refusal::Away) => {}
            Err(Refusal::Foreign(why)) => return Err(Fault::Unavailable(why.0)),
        }
        self.mode = self.mode.after(Event::Opened);
        Ok(())
    }

    pub(super) async fn tick(&mut self, now: Timestamp) -> Result<(), Fault> {
        if self.mode == Mode::Closed {
            return Ok(());
        }
        // What is admitted is admitted by the database's time. Where this clock is too far from it, the
        // others are heard all the same, and who polls here is seen.
        self.may_admit = self.store.clock_correction_ms().map(|_| ());
        let now = self.store.vouched(now);
        self.mirror.note_sales(now);
        self.look_who_polled(now);
        self.mirror.aliases.tidy(&self.mirror.queues(), now);
        let protocol = self.protocol.clone();
        protocol.link().redial();
        if !protocol.link().is_connected() {
            return self.tick_alone(now).await;
        }
        let store_failed =
            self.store_failed_at.is_some_and(|at| (now.0 - at.0).abs() < FAULT_PAUSE_MS);
        let in_use = protocol.stats().is_up();
        let mode = self.mode.after(Event::Answered { in_use, store_failed });
        let wants_turn = mode.asks_for_turn() && self.may_admit.is_ok();
        let turn_ms = if wants_turn { self.turn_ms() } else { 0 };
        let Ok(heard) = self.exchange(turn_ms, now).await else {
            return self.tick_alone(now).await;
        };
        self.mode = mode;
        self.hear(&heard, now);
        self.govern(if heard.turn { Among::OthersAndTurn } else { Among::Others }, now);
        if mode != Mode::Resting {
            let done = self.tick_together(heard.turn, now).await;
            self.store_failed_at = done.is_err().then_some(now);
            protocol.link().is_back();
            return done;
        }
        protocol.link().is_back();
        Ok(())
    }

    /// Takes in who has polled here since the last tick, and has the others told.
    fn look_who_polled(&self, now: Timestamp) {
        for queue in self.mirror.queues() {
            let Refreshed { claimed, late, returned } = queue.refresh(self.may_admit.is_err(), now);
            for (seqs, news) in [
                (claimed, News::Claimed as fn(_, _) -> _),
                (late, News::ClaimedLate),
                (returned, News::Returned),
            ] {
                if !seqs.is_empty() {
                    self.mirror.tell(news(queue.name().clone(), seqs));
                }
            }
        }
    }

    /// Sees to it that no more are let in than the shop can serve.
    fn govern(&self, among: Among, now: Timestamp) {
        // With a clock that is off it sells nothing.
        let among = if self.may_admit.is_err() { Among::Nobody } else { among };
        let news = self.mirror.governing.step(&self.mirror.queues(), among, now);
        news.into_iter().for_each(|news| self.mirror.tell(news));
    }

    /// For how long to ask for the turn, as the script wants it.
    fn turn_ms(&self) -> i64 {
        match i64::try_from(self.protocol.options().turn.as_millis()) {
            // Each tick admits, whoever's it is.
            Ok(0) => -1,
            Ok(turn_ms) => turn_ms,
            Err(_) => i64::MAX,
        }
    }

    async fn tick_together(&mut self, turn: bool, now: Timestamp) -> Result<(), Fault> {
        let began = Instant::now();
        self.lacks.queues |= self.reconciling.is_due(now);
        self.lacks.queues |= self.mirror.queues().iter().any(|queue| queue.has_suspects());
        self.catch_up(false, now).await?;
        if !turn {
            // Whoever has the turn for long may have started a moment ago, and not have heard of them.
            let has_unrecorded = self.mirror.queues().iter().any(|queue| queue.has_unrecorded());
            if has_unrecorded && self.recording.is_due(now) {
                self.record(now).await?;
            }
            return Ok(());
        }
        let admitted = self.admit(false, now).await;
        if self.recording.is_due(now) {
            self.record(now).await?;
        }
        // The others need not wait for the next tick. Should this fail, the next one tells them.
        let now = now.plus(began.elapsed());
        if matches!(admitted, Ok(true))
            && let Ok(heard) = self.exchange(0, now).await
        {
            self.hear(&heard, now);
        }
        admitted.map(|_| ())
    }

    /// A tick without Redis: the store tells what others have done, and every instance tries to
    /// admit.
    async fn tick_alone(&mut self, now: Timestamp) -> Result<(), Fault> {
        // A clock that went back does not keep us waiting for longer than the longest pause.
        if now < self.look_at && self.look_at.0 - now.0 <= LOOK_INTERVAL_MS + LOOK_PAUSE_MAX_MS {
            return Ok(());
        }
        self.look_at = Timestamp(now.0 + LOOK_INTERVAL_MS);
        let mode = self.mode.after(Event::Missed);
        // Others may have given numbers in the last moments that nobody tells of any more.
        self.lacks.numbers |= self.mode != mode;
        self.mode = mode;
        self.lacks.aliases |= self.reading_aliases.is_due(now);
        if self.recording.is_due(now) {
            self.record(now).await?;
        }
        let began = Instant::now();
        self.govern(Among::Alone, now);
        self.catch_up(true, now).await?;
        // A store that is slow to tell is not asked again at once.
        let took = i64::try_from(began.elapsed().as_millis()).unwrap_or(0);
        self.look_at.0 += (took * 5).min(LOOK_PAUSE_MAX_MS);
        self.admit(true, now).await?;
        Ok(())
    }

    pub(super) async fn close(&mut self, now: Timestamp) -> Result<(), Fault> {
        self.mirror.queues().iter().for_each(|queue| queue.close());
        self.mode = self.mode.after(Event::Closed);
        // What is stored last is what everybody who starts is held against.
        let now = self.store.vouched(now);
        self.look_who_polled(now);
        if self.protocol.link().is_connected() {
            // Without Redis the others read it from the store.
            let _ = self.exchange(0, now).await;
        }
        record(&self.store, &self.mirror, now).await
    }

    // ---- the others ----

    /// Tells the news that wait and hears what others told. `turn_ms` as the script wants it.
    async fn exchange(&mut self, turn_ms: i64, now: Timestamp) -> Result<Heard, Refusal> {
        let members = self.mirror.members.all();
        let telling = self.mirror.untold.drain();
        let tick = Tick {
            position: &self.position,
            turn_ms,
            queues: members.iter().map(|(name, member)| (name, member.queue.next())).collect(),
            news: &telling,
        };
        match self.protocol.tick(&tick).await {
            Ok(heard) => {
                self.compare(&members, &heard, now);
                Ok(heard)
            }
            Err(refusal) => {
                // They may have been told all the same; hearing them twice does no harm.
                self.mirror.untold.put_back(telling);
                Err(refusal)
            }
        }
    }

    /// Compares what Redis has of the queues, the log and the time with what this instance has.
    fn compare(&mut self, members: &ByName, heard: &Heard, now: Timestamp) {
        if heard.gap {
            self.lacks.queues = true;
            self.lacks.aliases = true;
            // Who was seen elsewhere in the last second is not in the store yet: once more, soon.
            self.reconciling.bring_forward(now, 2 * RECORD_INTERVAL_MS);
        }
        if self.position.was_lost(&heard.position) {
            self.protocol.stats().lost.fetch_add(1, Ordering::Relaxed);
        }
        self.position = heard.position.clone();
        let is_to_refresh = self.refreshing.is_due(now);
        for shown in members.values().filter_map(|member| member.queue.shown()) {
            shown.keep_in(self.position.generation());
            if is_to_refresh {
                shown.forget();
            }
        }
        let mut pooled = 0;
        for (member, head) in members.values().zip(&heard.heads) {
            // Redis has no pool, so it may have forgotten which numbers were given.
            self.lacks.numbers |= heard.gap && head.limit == 0;
            member.queue.learn_next(head.next);
            member.note_given(head.given, heard.time);
            pooled += head.limit.saturating_sub(head.next);
        }
        self.protocol.stats().pooled.store(pooled, Ordering::Relaxed);
    }

    fn hear(&mut self, heard: &Heard, now: Timestamp) {
        let Lacks { queues, numbers, aliases } = self.mirror.hear(&heard.lines, now);
        self.lacks.queues |= queues;
        self.lacks.numbers |= numbers;
        self.lacks.aliases |= aliases;
    }

    // ---- the store ----

    /// Reads from the store what the mirrors may lack, and the queues in any case where it is asked
    /// for.
    async fn catch_up(&mut self, queues: bool, now: Timestamp) -> Result<(), Fault> {
        let mirror = self.mirror.clone();
        if queues || self.lacks.queues {
            let numbers = self.lacks.numbers;
            // What is heard meanwhile may ask for it once more.
            (self.lacks.queues, self.lacks.numbers) = (false, false);
            let read = self.meanwhile(now, mirror.reload(numbers)).await;
            self.lacks.queues |= read.is_err();
            self.lacks.numbers |= numbers && read.is_err();
            read?;
        }
        if self.lacks.aliases {
            self.lacks.aliases = false;
            let read = self.meanwhile(now, mirror.read_aliases()).await;
            self.lacks.aliases |= read.is_err();
            read?;
        }
        Ok(())
    }

    /// Waits for the store. Where that takes long, the news of the others are heard all the same: they
    /// may have a store that is quick, and the mirrors must not fall behind theirs.
    async fn meanwhile<T>(&mut self, now: Timestamp, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let began = Instant::now();
        loop {
            if let Ok(done) = timeout(NEWS_INTERVAL, work.as_mut()).await {
                return done;
            }
            if !self.mode.hears() || !self.protocol.link().is_connected() {
                continue;
            }
            let now = now.plus(began.elapsed());
            if let Ok(heard) = self.exchange(0, now).await {
                self.hear(&heard, now);
            }
        }
    }

    /// Records what this instance has of the queues.
    async fn record(&mut self, now: Timestamp) -> Result<(), Fault> {
        let (store, mirror) = (self.store.clone(), self.mirror.clone());
        self.meanwhile(now, record(&store, &mirror, now)).await
    }

    /// The opening draws that are due, of all numbers that are given by now: as Redis has just said, or where
    /// it is away (`alone`) as the store says. Returns whether there was any.
    async fn draw(&mut self, alone: bool, now: Timestamp) -> Result<bool, Fault> {
        let mut any = false;
        for queue in self.mirror.queues().into_iter().filter(|queue| queue.draw_is_due(now)) {
            let (store, name) = (self.store.clone(), queue.name().clone());
            let drawn = async move {
                // Behind an empty place, so that what a pool has left is drawn, too, and goes to nobody who joins
                // later. Where others have Redis it is for them.
                let count = match alone {
                    false => queue.next(),
                    true => match store.take_numbers(name.clone(), 1).await? {
                        Taken::From(first) => first,
                        Taken::Elsewhere => return Ok(false),
                    },
                };
                let drawn = store.draw(DrawRequest { queue: name, count, at: now }).await?;
                Ok(drawn.is_some())
            };
            any |= self.meanwhile(now, in_time(STORE_TIMEOUT, drawn)).await?;
        }
        if any {
            // The others read it from the store as well.
            self.mirror.tell(News::Reload);
            self.catch_up(true, now).await?;
        }
        Ok(any)
    }

    /// Plans a step for each queue and makes it durable. Returns whether there was any.
    async fn admit(&mut self, alone: bool, now: Timestamp) -> Result<bool, Fault> {
        self.may_admit.clone()?;
        // Queues may have been found since the tick began, and it may have begun a while ago.
        self.mirror.note_sales(now);
        let mut any = self.draw(alone, now).await?;
        for queue in self.mirror.queues() {
            let Some(step) = queue.plan(now) else { continue };
            let advanced = advance(self.store.clone(), self.mirror.clone(), queue, step, now);
            match self.meanwhile(now, advanced).await {
                Ok(true) => any = true,
                // Somebody has admitted since, or the queue was changed.
                Ok(false) => self.lacks.queues = true,
                Err(fault) => {
                    // It may have happened.
                    self.lacks.queues = true;
                    return Err(fault);
                }
            }
        }
        Ok(any)
    }
}

async fn record(store: &Store, mirror: &Mirror, now: Timestamp) -> Result<(), Fault> {
    let queues = mirror.queues();
    // What is below a floor is forgotten for all.
    let trusted = store.clock_correction_ms().is_ok();
    let progress: Vec<Progress> = queues.iter().map(|queue| queue.progress(trusted, now)).collect();
    let recorded = in_time(STORE_TIMEOUT, store.record(progress, now)).await;
    if recorded.is_err() {
        queues.iter().for_each(|queue| queue.not_recorded());
    }
    recorded
}

/// Makes a step durable. Where that takes longer than anybody waits for it, it is told all the same:
/// it happened, and fans are shown it by whoever reads the store.
async fn advance(
    store: Store,
    mirror: Arc<Mirror>,
    queue: Arc<Queue>,
    step: Advance,
    now: Timestamp,
) -> Result<bool, Fault> {
    let task = tasks::detach(async move {
        if planted(Bug::ToldBeforeCommit) {
            queue.advanced(&step, true);
            mirror.tell(News::Admitted(step.clone()));
        }
        let done = store.advance(step.clone(), now).await;
        if matches!(done, Ok(true)) {
            queue.advanced(&step, true);
            mirror.tell(News::Admitted(step));
        }
        done
    });
    let ended =
        async { task.await.unwrap_or_else(|error| Err(Fault::OutcomeUnknown(error.to_string()))) };
    in_time(STORE_TIMEOUT, ended).await
}
