//! The sequencer of several instances.
//!
//! The store hands out blocks of numbers and decides, by compare-and-set, who admits. Redis passes
//! the numbers of the current block to joins, and news between the instances. Each of them keeps a
//! mirror of every queue, which is all that polls read. Nothing here rests on Redis keeping what it
//! was told: without it joins take their numbers from the store, and mirrors are read from there.
//!
//! Time-outs and pauses of calls are measured here, with the runtime's own clock; what the rules
//! call `now` comes in as everywhere.

mod link;
mod news;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::Settings;
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use redis::{FromRedisValue, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use self::link::{Away, Link, Script};
pub use self::link::{RedisMode, RedisOptions, RedisStats};
use self::news::News;
use super::aliases::Aliases;
use super::joins::{Numbers, number_joins};
use super::queue::Queue;
use super::{NewAlias, Pass};
use crate::store::{Advance, Alias, AliasExists, Progress, Store, StoredQueue};
use crate::{Error, Fault};

/// A block of numbers lasts, at the rate at which joins come, as long as so many fetches of one take,
/// but at least and at most so many milliseconds. What is left of it is lost with Redis, so it is no
/// longer than it has to be.
const BLOCK_FETCHES: u64 = 16;
const BLOCK_MS_MIN: u64 = 100;
const BLOCK_MS_MAX: u64 = 2_000;
/// Who is missing in Redis is missed after so many seconds; see the script `join`.
const MISSED_SECONDS: u64 = 4;
/// How often `tick` is called.
const TICKS_PER_SECOND: u64 = 10;
/// The fewest numbers of a block.
const BLOCK_MIN: u64 = 64;
/// The most numbers of a block.
const BLOCK_MAX: u64 = 1_000_000;
/// A join that waits for the store to hand out numbers waits no longer than this.
const TAKE_TIMEOUT: Duration = Duration::from_millis(500);
/// A join that needs a block which somebody else fetches looks for it this often.
const FETCHED_INTERVAL: Duration = Duration::from_millis(4);
/// After so long it fetches one itself: the other may have been killed.
const FETCHED_TIMEOUT: Duration = Duration::from_millis(300);
/// A tick does not wait longer for the store to make something durable.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);
/// Nor longer to read all queues.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// While the store keeps a tick waiting, the others are heard this often.
const NEWS_INTERVAL: Duration = Duration::from_millis(100);
/// While Redis is away the queues are read from the store this often, in milliseconds: a little
/// less than the credit that a bucket can hold.
const LOOK_INTERVAL_MS: i64 = 400;
/// How much longer that may become where the store is slow to answer, in milliseconds.
const LOOK_PAUSE_MAX_MS: i64 = 5_000;
/// What is known is recorded this often, in milliseconds.
const RECORD_INTERVAL_MS: i64 = 1_000;
/// Opaque tokens are read again this often while Redis is away, in milliseconds.
const ALIASES_INTERVAL_MS: i64 = 3_000;
/// Everything is read from the store this often, in milliseconds, whatever news have come: an
/// instance may have been killed before it told what it had done.
const RECONCILE_INTERVAL_MS: i64 = 30_000;
/// After a fault of the store this instance does not ask for the turn for so many milliseconds.
const FAULT_PAUSE_MS: i64 = 500;
/// When the store comes back while Redis is away, numbers wait for so long: instances that have
/// Redis tell the store first which numbers were given without it.
const STORE_BACK_PAUSE: Duration = Duration::from_secs(2);
/// The most news that wait for Redis. Past this the others are told to read the store.
const NEWS_MAX: usize = 10_000;
/// Clocks that are further apart than this are reported, in milliseconds.
const CLOCK_APART_MS: i64 = 1_000;

/// The scripts that run in Redis.
struct Scripts {
    join: Script,
    install: Script,
    tick: Script,
}

/// A queue, and how fast numbers of it are asked for.
struct Member {
    queue: Arc<Queue>,
    /// Numbers a second, of all instances together.
    rate: AtomicU64,
    /// How many numbers Redis has given, and had at the tick before.
    given: AtomicU64,
    /// See `given`.
    given_before: AtomicU64,
    /// The highest number that was given without the store, as far as is known here.
    loose: AtomicU64,
    /// How long it takes this instance to fetch a block, in microseconds.
    fetch_us: AtomicU64,
}

impl Member {
    /// Measures the rate, once in a tick: a mean of about half a second.
    fn measure(&self) {
        let given = self.given.load(Ordering::Relaxed);
        let before = self.given_before.swap(given, Ordering::Relaxed);
        let rate = self.rate.load(Ordering::Relaxed);
        // An instance that has just come does not know since when.
        let since = if before == 0 { given } else { before };
        let last = given.saturating_sub(since) * TICKS_PER_SECOND;
        self.rate.store((rate * 4 + last) / 5, Ordering::Relaxed);
    }

    fn block(&self) -> u64 {
        let fetches_ms = self.fetch_us.load(Ordering::Relaxed) * BLOCK_FETCHES / 1000;
        let block_ms = fetches_ms.clamp(BLOCK_MS_MIN, BLOCK_MS_MAX);
        (self.rate.load(Ordering::Relaxed) * block_ms / 1000).clamp(BLOCK_MIN, BLOCK_MAX)
    }

    /// The joins of the time after which an instance is missed.
    fn missed(&self) -> u64 {
        (self.rate.load(Ordering::Relaxed) * MISSED_SECONDS).clamp(2 * BLOCK_MIN, 2 * BLOCK_MAX)
    }

    /// A fetch took so long: a mean of about four of them.
    fn fetched(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / BLOCK_FETCHES);
        let before = self.fetch_us.load(Ordering::Relaxed);
        self.fetch_us.store(before - before / 4 + took_us / 4, Ordering::Relaxed);
    }

    /// Numbers up to here may have been given.
    fn known(&self) -> u64 {
        self.queue.next().max(self.loose.load(Ordering::Relaxed))
    }
}

/// What a tick keeps for the next one.
struct Beat {
    /// Where in the log this instance has read up to.
    generation: String,
    read: u64,
    /// The mirrors may lack something that the store has.
    reload: bool,
    /// Numbers may have been given that nobody here knows of.
    unsure: bool,
    aliases: bool,
    /// When to read the queues from the store again, while Redis is away.
    look_at: Timestamp,
    reconciled_at: Timestamp,
    recorded_at: Timestamp,
    aliases_at: Timestamp,
    fault_at: Option<Timestamp>,
    clock_reported: bool,
    /// The last tick was without Redis.
    alone: bool,
    /// The others are to know of this instance.
    member: bool,
}

/// Whether numbers may be taken from the store while Redis is away.
#[derive(Default)]
struct Direct {
    store_failed: bool,
    not_before: Option<Instant>,
}

/// The sequencer of several instances.
pub struct RedisSequencer {
    store: Store,
    link: Arc<Link>,
    scripts: Scripts,
    defaults: Settings,
    members: ArcSwap<BTreeMap<QueueName, Arc<Member>>>,
    aliases: Aliases,
    news: Mutex<Vec<News>>,
    beat: tokio::sync::Mutex<Beat>,
    /// The store did not hand out numbers the last time that it was asked.
    store_away: AtomicBool,
    direct: Mutex<Direct>,
    this: Weak<Self>,
}

/// What Redis says to a tick.
struct Heard {
    turn: bool,
    lines: Vec<String>,
    /// The keys of tickets of the instances that run, told to one that comes.
    others: Vec<String>,
}

/// What Redis says to a batch of joins.
enum Joined {
    /// The first number, and whether this instance is to fetch a block.
    Numbers { first: u64, fetch: bool },
    /// There is no block, or too little is left of it. Numbers up to `known` may have been given;
    /// `fetch` as above.
    Short { known: u64, fetch: bool },
}

impl RedisSequencer {
    /// Loads the queues as the store has them, and connects to Redis. Every queue gets the active
    /// time and claim window of `defaults`. Redis may be away.
    ///
    /// # Errors
    /// Where the store cannot be read, what it says of a queue makes no sense, or the Redis belongs
    /// to instances of another store.
    pub async fn open(
        store: Store,
        defaults: &Settings,
        options: RedisOptions,
    ) -> Result<Arc<Self>, Fault> {
        let now = store.clock().await?;
        let aliases = store.aliases(now).await?;
        let link = Link::new(options, store.tasks().clone());
        let sequencer = Arc::new_cyclic(|this| Self {
            store,
            link,
            scripts: Scripts {
                join: Script::new(concat!(
                    include_str!("redis/state.lua"),
                    include_str!("redis/join.lua")
                )),
                install: Script::new(concat!(
                    include_str!("redis/state.lua"),
                    include_str!("redis/install.lua")
                )),
                tick: Script::new(concat!(
                    include_str!("redis/state.lua"),
                    include_str!("redis/tick.lua")
                )),
            },
            defaults: defaults.clone(),
            members: ArcSwap::default(),
            aliases: Aliases::default(),
            news: Mutex::default(),
            beat: tokio::sync::Mutex::new(Beat {
                generation: String::new(),
                read: 0,
                reload: false,
                unsure: false,
                aliases: false,
                look_at: now,
                reconciled_at: now,
                recorded_at: now,
                aliases_at: now,
                fault_at: None,
                clock_reported: false,
                alone: false,
                member: false,
            }),
            store_away: AtomicBool::new(false),
            direct: Mutex::default(),
            this: this.clone(),
        });
        sequencer.aliases.remember(&aliases);
        sequencer.reload(false).await?;
        if let Err(why) = sequencer.link.dial().await {
            sequencer.link.set_away(&why);
        }
        let mut beat = sequencer.beat.lock().await;
        match sequencer.exchange(&mut beat, 0, now).await {
            Ok(heard) => {
                sequencer.compare_keys(&heard.others)?;
                sequencer.settle(&mut beat, true, now).await?;
                sequencer.link.is_back();
            }
            Err(Refusal::Away) => {}
            Err(Refusal::Foreign(why)) => return Err(Fault::Unavailable(why.0)),
        }
        beat.member = true;
        drop(beat);
        sequencer.aliases.count(&sequencer.queues(), now);
        Ok(sequencer)
    }

    /// Each instance has to know the key that any other signs with: otherwise who got a ticket at
    /// one is nobody at another.
    fn compare_keys(&self, others: &[String]) -> Result<(), Fault> {
        let ours = &self.link.options().ticket_keys;
        for other in others {
            let theirs: Vec<&str> = other.split(' ').collect();
            let knows_ours = ours.first().is_none_or(|key| theirs.contains(&key.as_str()));
            let known = theirs.first().is_none_or(|key| ours.iter().any(|ours| ours == key));
            if knows_ours && known {
                continue;
            }
            return Err(Fault::Unavailable(format!(
                "another instance runs with ticket keys {other}, this one has {} (the first one \
                 signs): {}. Give all instances one ticket.signing_key; to change it, first add \
                 the new one to ticket.previous_signing_keys everywhere",
                ours.join(" "),
                if known { "it does not know ours" } else { "we do not know theirs" },
            )));
        }
        Ok(())
    }

    pub(super) fn stats(&self) -> &RedisStats {
        &self.link.stats
    }

    pub(super) fn queue(&self, name: &str) -> Option<Arc<Queue>> {
        self.members.load().get(name).map(|member| member.queue.clone())
    }

    pub(super) fn queues(&self) -> Vec<Arc<Queue>> {
        self.members.load().values().map(|member| member.queue.clone()).collect()
    }

    pub(super) async fn create(&self, name: QueueName, settings: Settings) -> Result<bool, Fault> {
        if !self.store.create_queue(name, settings).await? {
            return Ok(false);
        }
        self.reload(false).await?;
        self.tell(News::Reload);
        Ok(true)
    }

    pub(super) async fn settings(&self, queue: &Queue) -> Result<Settings, Fault> {
        self.reload(false).await?;
        Ok(queue.settings())
    }

    pub(super) async fn configure(
        &self,
        queue: &Arc<Queue>,
        settings: Settings,
    ) -> Result<(), Fault> {
        self.store.set_queue(queue.name().clone(), settings.clone()).await?;
        queue.configure(&settings);
        queue.forget_credit();
        self.tell(News::Reload);
        Ok(())
    }

    pub(super) async fn join(&self, queue: &Queue) -> Result<u64, Fault> {
        queue.wait_for_number().await
    }

    pub(super) fn alias(&self, token: &str) -> Option<Pass> {
        self.aliases.get(token)
    }

    pub(super) async fn issue(
        &self,
        queue: &Arc<Queue>,
        tokens: Vec<NewAlias>,
        now: Timestamp,
    ) -> Result<Vec<Alias>, Error<AliasExists>> {
        let in_line = self.aliases.check(&tokens).map_err(Error::Rejected)?;
        let first = if in_line > 0 { self.take(queue, in_line).await? } else { 0 };
        let aliases = Aliases::number(queue, tokens, first, now);
        // After an error the numbers are empty places, for good.
        self.store.add_aliases(aliases.clone()).await?;
        self.aliases.remember(&aliases);
        self.aliases.count(&self.queues(), now);
        self.tell(News::Issued);
        Ok(aliases)
    }

    pub(super) async fn leave(
        &self,
        queue: &Queue,
        pass: &Pass,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let seq = pass.ticket.seq;
        let waiting = pass.beside.is_none() && queue.is_waiting(seq);
        self.store.give_up((&pass.ticket).into(), waiting, now).await?;
        match &pass.beside {
            Some(beside) => self.spend(beside, pass),
            None => {
                queue.leave(seq);
                self.tell(News::Left(queue.name().clone(), vec![seq]));
            }
        }
        Ok(())
    }

    pub(super) fn finish(&self, queue: &Queue, pass: &Pass) {
        match &pass.beside {
            Some(beside) => self.spend(beside, pass),
            None => {
                queue.finish(pass.ticket.seq);
                self.tell(News::Finished(queue.name().clone(), vec![pass.ticket.seq]));
            }
        }
    }

    fn spend(&self, beside: &super::Beside, pass: &Pass) {
        beside.spent.store(true, Ordering::Relaxed);
        self.tell(News::Spent(pass.ticket.id));
    }

    // ---- news ----

    /// Has the others told with the next tick.
    fn tell(&self, news: News) {
        let mut waiting = self.news.lock();
        if waiting.len() >= NEWS_MAX {
            waiting.clear();
            waiting.push(News::Issued);
            waiting.push(News::Reload);
        }
        waiting.push(news);
    }

    /// The keys of a script: the state, the log, and these. One hash tag for all of them, so that
    /// they are on one node of a cluster and one script reaches them.
    fn keys<'k>(&self, more: impl IntoIterator<Item = (&'k str, &'k str)>) -> Vec<String> {
        let prefix = &self.link.options().prefix;
        let mut keys = vec![format!("{{{prefix}}}:state"), format!("{{{prefix}}}:log")];
        keys.extend(more.into_iter().map(|(kind, name)| format!("{{{prefix}}}:{kind}{name}")));
        keys
    }

    async fn run(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[String],
    ) -> Result<Vec<Value>, Refusal> {
        let answer = self.link.run(script, keys, arguments).await.map_err(|_| Refusal::Away)?;
        let Value::Array(parts) = answer else { return Err(self.nonsense()) };
        if parts.first().and_then(word).as_deref() == Some("FOREIGN") {
            let prefix = &self.link.options().prefix;
            let why = Away(format!(
                "the keys {{{prefix}}} in this redis belong to instances of another store; choose \
                 another queue.redis.prefix for one of the two"
            ));
            self.link.set_away(&why);
            return Err(Refusal::Foreign(why));
        }
        Ok(parts)
    }

    fn nonsense(&self) -> Refusal {
        let why = Away(
            "redis gave an answer that makes no sense; do all instances have the same version?"
                .into(),
        );
        self.link.set_away(&why);
        Refusal::Away
    }

    /// Tells the news that wait and hears what others told. `turn_ms` as the script wants it.
    async fn exchange(
        &self,
        beat: &mut Beat,
        turn_ms: i64,
        now: Timestamp,
    ) -> Result<Heard, Refusal> {
        let members = self.members.load_full();
        let mut keys = self.keys([("turn", "")]);
        keys.extend(self.keys(members.keys().map(|name| ("queue:", name.as_str()))).drain(2..));
        let known = &self.link.options().ticket_keys;
        // An instance that has not been let in, or that ends, is none.
        let keys_known = if beat.member { known.join(" ") } else { String::new() };
        let mut arguments = vec![
            self.link.options().cluster.clone(),
            beat.generation.clone(),
            beat.read.to_string(),
            turn_ms.to_string(),
            self.link.options().instance.clone(),
            keys_known,
            members.len().to_string(),
        ];
        arguments.extend(members.values().map(|member| member.queue.next().to_string()));
        let telling = std::mem::take(&mut *self.news.lock());
        arguments.extend(telling.iter().map(News::line));
        self.link.stats.tick_calls.fetch_add(1, Ordering::Relaxed);
        let answer = match self.run(&self.scripts.tick, &keys, &arguments).await {
            Ok(answer) => answer,
            Err(refusal) => {
                // They may have been told all the same; hearing them twice does no harm.
                let mut waiting = self.news.lock();
                let since = std::mem::replace(&mut *waiting, telling);
                drop(waiting);
                since.into_iter().for_each(|news| self.tell(news));
                return Err(refusal);
            }
        };
        let heard = self.hear(beat, &members, &answer, now);
        heard.ok_or_else(|| self.nonsense())
    }

    fn hear(
        &self,
        beat: &mut Beat,
        members: &BTreeMap<QueueName, Arc<Member>>,
        answer: &[Value],
        now: Timestamp,
    ) -> Option<Heard> {
        let [_, generation, read, gap, turn, time, heads, lines, others] = answer else {
            return None;
        };
        let generation = word(generation)?;
        let gap = number(gap)? == 1;
        if gap {
            beat.reload = true;
            beat.aliases = true;
            // Who was seen elsewhere in the last second is not in the store yet: once more, soon.
            beat.reconciled_at = Timestamp(now.0 - RECONCILE_INTERVAL_MS + 2 * RECORD_INTERVAL_MS);
        }
        beat.generation = generation;
        beat.read = number(read)?;
        let mut loose = false;
        for (member, head) in members.values().zip(heads.as_sequence()?) {
            let [next, limit, is_loose, given] = head.as_sequence()? else { return None };
            // Redis has no block, so it may have forgotten which numbers were given.
            beat.unsure |= gap && number(limit)? == 0;
            member.queue.learn_next(number(next)?);
            member.given.store(number(given)?, Ordering::Relaxed);
            if number(is_loose)? == 1 {
                loose = true;
                member.loose.fetch_max(number(limit)?, Ordering::Relaxed);
            }
        }
        self.link.stats.unsecured.store(loose, Ordering::Relaxed);
        let ahead = now.0.saturating_sub(i64::try_from(number(time)?).ok()?);
        self.link.stats.clock_ahead_ms.store(ahead, Ordering::Relaxed);
        if (ahead.abs() > CLOCK_APART_MS) != beat.clock_reported {
            beat.clock_reported = !beat.clock_reported;
            if beat.clock_reported {
                tracing::warn!(
                    clock.ahead_ms = ahead,
                    "this instance's clock and that of redis are apart; set both by NTP"
                );
            }
        }
        let lines = lines.as_sequence()?.iter().map(word).collect::<Option<_>>()?;
        let others = others.as_sequence()?.iter().map(word).collect::<Option<_>>()?;
        Some(Heard { turn: number(turn)? == 1, lines, others })
    }

    /// Takes in what others told.
    fn take_in(&self, beat: &mut Beat, lines: &[String], now: Timestamp) {
        // Many pieces of one kind come together, and each change of a line is a copy of it.
        let mut over = Over::new();
        let members = self.members.load();
        for line in lines {
            match News::read(line) {
                News::Admitted(step) => {
                    // Room was made before it was taken.
                    end(&members, &mut over);
                    match members.get(&step.queue) {
                        Some(member) => beat.reload |= !member.queue.advanced(&step, false, now),
                        None => beat.reload = true,
                    }
                }
                News::Claimed(queue, seqs) => {
                    if let Some(member) = members.get(&queue) {
                        member.queue.hear_claimed(seqs, now);
                    }
                }
                News::Left(queue, seqs) => over.entry((queue, false)).or_default().extend(seqs),
                News::Finished(queue, seqs) => over.entry((queue, true)).or_default().extend(seqs),
                News::Spent(id) => self.aliases.spent(id),
                News::Issued => beat.aliases = true,
                News::Reload => beat.reload = true,
            }
        }
        end(&members, &mut over);
    }

    // ---- the store ----

    /// Reads the queues from the store into the mirrors. `unsure`: numbers up to the watermark may
    /// have been given.
    async fn reload(&self, unsure: bool) -> Result<(), Fault> {
        self.link.stats.reloads.fetch_add(1, Ordering::Relaxed);
        let stored = in_time(READ_TIMEOUT, self.store.queues()).await?;
        let mut fresh = Vec::new();
        {
            let members = self.members.load();
            for mut stored in stored {
                stored.settings.active_ttl = self.defaults.active_ttl;
                stored.settings.claim_window = self.defaults.claim_window;
                let Some(member) = members.get(&stored.name) else {
                    fresh.push(stored);
                    continue;
                };
                if unsure {
                    member.queue.learn_next(stored.watermark);
                }
                let settings = stored.settings.clone();
                member.queue.absorb(stored, &settings)?;
            }
        }
        for stored in fresh {
            self.start(stored)?;
        }
        Ok(())
    }

    fn start(&self, stored: StoredQueue) -> Result<(), Fault> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let queue = Arc::new(Queue::new(stored, true, sender)?);
        let member = Arc::new(Member {
            queue: queue.clone(),
            rate: AtomicU64::new(0),
            given: AtomicU64::new(0),
            given_before: AtomicU64::new(0),
            loose: AtomicU64::new(0),
            fetch_us: AtomicU64::new(0),
        });
        let mut known = false;
        self.members.rcu(|members| {
            // Two that ask at once may both have read of it.
            known = members.contains_key(queue.name());
            let mut members = BTreeMap::clone(members);
            members.entry(queue.name().clone()).or_insert_with(|| member.clone());
            members
        });
        if !known {
            let joins = number_joins(self.this.clone(), Arc::downgrade(&queue), receiver);
            self.store.tasks().spawn("joins", joins);
        }
        Ok(())
    }

    /// Reads from the store what the mirrors may lack.
    async fn settle(&self, beat: &mut Beat, queues: bool, now: Timestamp) -> Result<(), Fault> {
        if queues || beat.reload {
            let unsure = beat.unsure;
            // What is heard meanwhile may ask for it once more.
            (beat.reload, beat.unsure) = (false, false);
            let read = self.meanwhile(beat, now, self.reload(unsure)).await;
            beat.reload |= read.is_err();
            beat.unsure |= unsure && read.is_err();
            read?;
        }
        if beat.aliases {
            beat.aliases = false;
            let read = self.meanwhile(beat, now, self.read_aliases()).await;
            beat.aliases |= read.is_err();
            read?;
        }
        Ok(())
    }

    async fn read_aliases(&self) -> Result<(), Fault> {
        let clock = in_time(READ_TIMEOUT, self.store.clock()).await?;
        let aliases = in_time(READ_TIMEOUT, self.store.aliases(clock)).await?;
        self.aliases.remember(&aliases);
        Ok(())
    }

    /// Waits for the store. Where that takes long, the news of the others are heard all the same: they
    /// may have a store that is quick, and the mirrors must not fall behind theirs.
    async fn meanwhile<T>(
        &self,
        beat: &mut Beat,
        now: Timestamp,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = std::pin::pin!(work);
        let began = Instant::now();
        loop {
            if let Ok(done) = timeout(NEWS_INTERVAL, work.as_mut()).await {
                return done;
            }
            if beat.alone || !self.link.is_connected() {
                continue;
            }
            let now = now.plus(began.elapsed());
            if let Ok(heard) = self.exchange(beat, 0, now).await {
                self.take_in(beat, &heard.lines, now);
            }
        }
    }

    async fn record(&self, now: Timestamp) -> Result<(), Fault> {
        let queues = self.queues();
        let ahead = self.link.stats.clock_ahead_ms.load(Ordering::Relaxed);
        let trusted = ahead <= CLOCK_APART_MS;
        let progress: Vec<Progress> = queues.iter().map(|queue| queue.progress(trusted)).collect();
        let recorded = in_time(STORE_TIMEOUT, self.store.record(progress, now)).await;
        if recorded.is_err() {
            queues.iter().for_each(|queue| queue.not_recorded());
        }
        recorded
    }

    // ---- ticks ----

    pub(super) async fn tick(&self, now: Timestamp) -> Result<(), Fault> {
        let mut beat = self.beat.lock().await;
        let beat = &mut *beat;
        let queues = self.queues();
        for queue in &queues {
            let claimed = queue.refresh(now);
            if !claimed.is_empty() {
                self.tell(News::Claimed(queue.name().clone(), claimed));
            }
        }
        self.aliases.count_now_and_then(&queues, now);
        self.link.redial();
        if !self.link.is_connected() {
            return self.tick_alone(beat, now).await;
        }
        let faulty = beat.fault_at.is_some_and(|at| (now.0 - at.0).abs() < FAULT_PAUSE_MS);
        let turn = i64::try_from(self.link.options().turn.as_millis()).unwrap_or(i64::MAX);
        let turn_ms = if faulty || !self.link.stats.is_up() {
            0
        } else if turn == 0 {
            -1
        } else {
            turn
        };
        let Ok(heard) = self.exchange(beat, turn_ms, now).await else {
            return self.tick_alone(beat, now).await;
        };
        beat.alone = false;
        self.take_in(beat, &heard.lines, now);
        self.members.load().values().for_each(|member| member.measure());
        let result = self.tick_together(beat, heard.turn, faulty, now).await;
        beat.fault_at = match &result {
            Err(_) => Some(now),
            Ok(()) if !faulty => None,
            Ok(()) => beat.fault_at,
        };
        self.link.is_back();
        result
    }

    async fn tick_together(
        &self,
        beat: &mut Beat,
        turn: bool,
        faulty: bool,
        now: Timestamp,
    ) -> Result<(), Fault> {
        if faulty {
            return Ok(());
        }
        let began = Instant::now();
        // Before anything else: the store is to know which numbers were given without it.
        if self.link.stats.unsecured.load(Ordering::Relaxed) {
            for member in self.members.load_full().values() {
                if member.loose.load(Ordering::Relaxed) > 0 {
                    let secured = self.supply(member, 0).await.map_err(|refusal| match refusal {
                        Unsupplied::Store(fault) => fault,
                        Unsupplied::Redis => Fault::Unavailable("redis is away".into()),
                    });
                    secured?;
                }
            }
        }
        if (now.0 - beat.reconciled_at.0).abs() >= RECONCILE_INTERVAL_MS {
            beat.reconciled_at = now;
            beat.reload = true;
        }
        self.settle(beat, false, now).await?;
        if !turn {
            return Ok(());
        }
        let admitted = self.admit(beat, now).await;
        if (now.0 - beat.recorded_at.0).abs() >= RECORD_INTERVAL_MS {
            beat.recorded_at = now;
            self.meanwhile(beat, now, self.record(now)).await?;
        }
        // The others need not wait for the next tick. Should this fail, the next one tells them.
        let now = now.plus(began.elapsed());
        if matches!(admitted, Ok(true))
            && let Ok(heard) = self.exchange(beat, 0, now).await
        {
            self.take_in(beat, &heard.lines, now);
        }
        admitted.map(|_| ())
    }

    /// Plans a step for each queue and makes it durable; gives whether there was any.
    async fn admit(&self, beat: &mut Beat, now: Timestamp) -> Result<bool, Fault> {
        let mut any = false;
        for queue in self.queues() {
            let Some(step) = queue.plan(now) else { continue };
            match self.meanwhile(beat, now, self.advance(&queue, step, now)).await {
                Ok(true) => any = true,
                // Somebody has admitted since, or the queue is paused.
                Ok(false) => beat.reload = true,
                Err(fault) => {
                    // It may have happened.
                    beat.reload = true;
                    return Err(fault);
                }
            }
        }
        Ok(any)
    }

    /// Makes a step durable. Where that takes longer than anybody waits for it, it is told all the same:
    /// it happened, and fans are shown it by whoever reads the store.
    async fn advance(
        &self,
        queue: &Arc<Queue>,
        step: Advance,
        now: Timestamp,
    ) -> Result<bool, Fault> {
        let (this, store, queue) = (self.this.clone(), self.store.clone(), queue.clone());
        let task = tokio::spawn(async move {
            let done = store.advance(step.clone(), now).await;
            if let (Ok(true), Some(this)) = (&done, this.upgrade()) {
                this.admitted(&queue, step, now);
            }
            done
        });
        let ended = async {
            task.await.unwrap_or_else(|error| Err(Fault::OutcomeUnknown(error.to_string())))
        };
        in_time(STORE_TIMEOUT, ended).await
    }

    fn admitted(&self, queue: &Queue, step: Advance, now: Timestamp) {
        queue.advanced(&step, true, now);
        self.tell(News::Admitted(step));
    }

    /// A tick without Redis: the store tells what others have done, and every instance tries to
    /// admit.
    async fn tick_alone(&self, beat: &mut Beat, now: Timestamp) -> Result<(), Fault> {
        // A clock that went back does not keep us waiting for longer than the longest pause.
        if now < beat.look_at && beat.look_at.0 - now.0 <= LOOK_INTERVAL_MS + LOOK_PAUSE_MAX_MS {
            return Ok(());
        }
        beat.look_at = Timestamp(now.0 + LOOK_INTERVAL_MS);
        if !std::mem::replace(&mut beat.alone, true) {
            // Others may have given numbers in the last moments that nobody tells of any more.
            beat.unsure = true;
        }
        if (now.0 - beat.aliases_at.0).abs() >= ALIASES_INTERVAL_MS {
            beat.aliases_at = now;
            beat.aliases = true;
        }
        if (now.0 - beat.recorded_at.0).abs() >= RECORD_INTERVAL_MS {
            beat.recorded_at = now;
            self.meanwhile(beat, now, self.record(now)).await?;
        }
        let began = Instant::now();
        self.settle(beat, true, now).await?;
        // A store that is slow to tell is not asked again at once.
        let took = i64::try_from(began.elapsed().as_millis()).unwrap_or(0);
        beat.look_at.0 += (took * 5).min(LOOK_PAUSE_MAX_MS);
        self.admit(beat, now).await?;
        Ok(())
    }

    pub(super) async fn close(&self, now: Timestamp) -> Result<(), Fault> {
        let mut beat = self.beat.lock().await;
        self.queues().iter().for_each(|queue| queue.close());
        beat.member = false;
        if self.link.is_connected() {
            // Without Redis the others read it from the store.
            let _ = self.exchange(&mut beat, 0, now).await;
        }
        self.record(now).await
    }

    // ---- numbers ----

    fn member(&self, queue: &Queue) -> Result<Arc<Member>, Fault> {
        let member = self.members.load().get(queue.name()).cloned();
        member.ok_or_else(|| Fault::Unavailable("the queue is closed".into()))
    }

    async fn number(&self, member: &Arc<Member>, count: u64) -> Result<u64, Fault> {
        let fetched_by = Instant::now() + FETCHED_TIMEOUT;
        let mut tries = 0;
        // A block may be taken by others before this instance sees any of it.
        while tries < 8 {
            if !self.link.stats.is_up() {
                return self.direct(member, count).await;
            }
            let unsecured = self.store_away.load(Ordering::Relaxed);
            let known = match self.ask(member, count, unsecured).await {
                Ok(Joined::Numbers { first, fetch }) => {
                    if fetch {
                        self.prefetch(member);
                    }
                    return Ok(first);
                }
                Ok(Joined::Short { fetch: false, .. }) if Instant::now() < fetched_by => {
                    tokio::time::sleep(FETCHED_INTERVAL).await;
                    continue;
                }
                Ok(Joined::Short { known, .. }) => known,
                Err(_) => {
                    tries += 1;
                    continue;
                }
            };
            tries += 1;
            member.loose.fetch_max(known, Ordering::Relaxed);
            if let Err(Unsupplied::Store(fault)) = self.supply(member, count).await {
                // Where Redis has a block it goes on without the store. Where it has none, nobody
                // can tell which numbers were given.
                if unsecured {
                    return Err(fault);
                }
            }
        }
        Err(Fault::Unavailable("numbers have run out".into()))
    }

    /// Asks Redis for numbers.
    async fn ask(&self, member: &Member, count: u64, unsecured: bool) -> Result<Joined, Refusal> {
        let queue = member.queue.name().as_str();
        let keys = self.keys([("queue:", queue), ("fetch:", queue)]);
        let arguments = [
            self.link.options().cluster.clone(),
            count.to_string(),
            member.queue.next().to_string(),
            (member.block() / 2).to_string(),
            u8::from(unsecured).to_string(),
            member.missed().to_string(),
        ];
        self.link.stats.join_calls.fetch_add(1, Ordering::Relaxed);
        let answer = self.run(&self.scripts.join, &keys, &arguments).await?;
        let joined = match (answer.first().and_then(word).as_deref(), &answer[1..]) {
            (Some("OK"), [first, fetch, skipped]) => number(skipped)
                .zip(number(first))
                .zip(number(fetch))
                .map(|((skipped, first), fetch)| {
                    self.link.stats.skipped.fetch_add(skipped, Ordering::Relaxed);
                    Joined::Numbers { first, fetch: fetch == 1 }
                }),
            (Some("SHORT"), [known, fetch]) => number(known)
                .zip(number(fetch))
                .map(|(known, fetch)| Joined::Short { known, fetch: fetch == 1 }),
            _ => None,
        };
        joined.ok_or_else(|| self.nonsense())
    }

    /// Takes a block from the store and installs it in Redis.
    async fn supply(&self, member: &Member, count: u64) -> Result<(), Unsupplied> {
        let size = member.block().max(count * 8).min(BLOCK_MAX.max(count));
        let name = member.queue.name();
        let began = Instant::now();
        let taken = self.store.take_numbers(name.clone(), size, member.known());
        let taken = in_time(TAKE_TIMEOUT, taken).await;
        member.fetched(began.elapsed());
        self.store_away.store(taken.is_err(), Ordering::Relaxed);
        let first = taken.map_err(Unsupplied::Store)?;
        self.link.stats.blocks.fetch_add(1, Ordering::Relaxed);
        let keys = self.keys([("queue:", name.as_str()), ("fetch:", name.as_str())]);
        let arguments = [
            self.link.options().cluster.clone(),
            first.to_string(),
            (first + size - 1).to_string(),
        ];
        self.link.stats.block_calls.fetch_add(1, Ordering::Relaxed);
        let installed = self.run(&self.scripts.install, &keys, &arguments).await;
        let installed = installed.map_err(|_| Unsupplied::Redis)?;
        if installed.first().and_then(word).as_deref() != Some("OK") {
            self.link.stats.skipped.fetch_add(size, Ordering::Relaxed);
        }
        Ok(())
    }

    fn prefetch(&self, member: &Arc<Member>) {
        let (this, member) = (self.this.clone(), member.clone());
        tokio::spawn(async move {
            if let Some(sequencer) = this.upgrade() {
                // The next join that needs the block tries again, and tells why it cannot.
                let _ = sequencer.supply(&member, 0).await;
            }
        });
    }

    /// Takes numbers from the store itself, because Redis is away.
    async fn direct(&self, member: &Member, count: u64) -> Result<u64, Fault> {
        let failed = {
            let direct = self.direct.lock();
            if direct.not_before.is_some_and(|at| Instant::now() < at) {
                return Err(Fault::Unavailable(
                    "redis is away, and the store has just come back".into(),
                ));
            }
            direct.store_failed
        };
        let asked = if failed { 0 } else { count };
        let name = member.queue.name().clone();
        let taken = in_time(TAKE_TIMEOUT, self.store.take_numbers(name, asked, member.known()));
        let taken = taken.await;
        let mut direct = self.direct.lock();
        direct.store_failed = taken.is_err();
        let first = taken?;
        if failed {
            direct.not_before = Some(Instant::now() + STORE_BACK_PAUSE);
            return Err(Fault::Unavailable(
                "redis is away, and the store has just come back".into(),
            ));
        }
        self.link.stats.direct.fetch_add(count, Ordering::Relaxed);
        Ok(first)
    }
}

impl Numbers for RedisSequencer {
    /// At most a hundred calls a second of an instance, unless each serves 32 joins.
    const PACE: Duration = Duration::from_millis(10);

    async fn take(&self, queue: &Queue, count: u64) -> Result<u64, Fault> {
        let member = self.member(queue)?;
        queue.is_open()?;
        let first = self.number(&member, count).await?;
        queue.give(first, count);
        Ok(first)
    }
}

/// Why Redis did not do as it was asked.
enum Refusal {
    /// It is not there, or cannot; the link has logged why.
    Away,
    /// It serves others.
    Foreign(Away),
}

/// Why there is no new block.
enum Unsupplied {
    Store(Fault),
    Redis,
}

/// Ends a call of the store in time. The call itself goes on; what it takes is lost.
async fn in_time<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        Err(Fault::Unavailable(format!("no answer from the store within {} ms", limit.as_millis())))
    })
}

/// Numbers that are over, by queue and by whether they have paid.
type Over = HashMap<(QueueName, bool), Vec<u64>>;

fn end(members: &BTreeMap<QueueName, Arc<Member>>, over: &mut Over) {
    for ((queue, finished), seqs) in over.drain() {
        if let Some(member) = members.get(&queue) {
            member.queue.hear_over(seqs, finished);
        }
    }
}

fn word(value: &Value) -> Option<String> {
    String::from_redis_value_ref(value).ok()
}

fn number(value: &Value) -> Option<u64> {
    u64::from_redis_value_ref(value).ok()
}
