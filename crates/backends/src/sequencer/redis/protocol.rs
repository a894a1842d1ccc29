//! What is said to Redis, and what it answers: the keys, the scripts, and their words as types.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::time::Timestamp;
use redis::{FromRedisValue, Value};

use super::link::{Away, Link, RedisOptions, RedisStats, Script};
use crate::Tasks;
use crate::sequencer::news::News;

/// The calls of Redis.
pub(super) struct Protocol {
    link: Arc<Link>,
    join: Script,
    install: Script,
    tick: Script,
}

/// Why Redis did not do as it was asked.
pub(super) enum Refusal {
    /// It is not there, or cannot; the link has logged why.
    Away,
    /// It serves others.
    Foreign(Away),
}

/// A batch of joins.
pub(super) struct Join<'q> {
    pub(super) queue: &'q QueueName,
    pub(super) count: u64,
    /// Numbers up to here have been given, as far as this instance has heard.
    pub(super) highest_given: u64,
    /// A block is to be fetched where fewer numbers than this are left.
    pub(super) refill_below: u64,
    /// The store is away: the block may be extended without it.
    pub(super) store_away: bool,
    /// See the script.
    pub(super) missed: u64,
}

/// What Redis says to a batch of joins.
pub(super) enum Joined {
    /// The first number, and whether this instance is to fetch a block.
    Numbers { first: u64, fetch: bool },
    /// There is no block, or too little is left of it. Numbers up to `highest_given` may have been
    /// given; `fetch` as above.
    Short { highest_given: u64, fetch: bool },
}

/// Up to where an instance has read the log.
#[derive(Clone, Default)]
pub(super) struct LogPosition {
    generation: String,
    read: u64,
}

/// A tick: what an instance tells, and up to where it has heard the others.
pub(super) struct Tick<'t> {
    pub(super) position: &'t LogPosition,
    /// For how many milliseconds it wants the turn; 0 for not at all, -1 for without asking.
    pub(super) turn_ms: i64,
    /// Whether the others may count it as one that runs.
    pub(super) is_member: bool,
    /// Each queue, and the last number given there as far as this instance has heard.
    pub(super) queues: Vec<(&'t QueueName, u64)>,
    pub(super) news: &'t [News],
}

/// What Redis says to a tick.
pub(super) struct Heard {
    pub(super) position: LogPosition,
    /// Some of the log is gone: what it said is to be read from the store.
    pub(super) gap: bool,
    pub(super) turn: bool,
    /// The time that Redis has.
    pub(super) time: Timestamp,
    /// The queues, in the order of the question.
    pub(super) heads: Vec<Head>,
    pub(super) lines: Vec<String>,
    /// The keys of tickets of the instances that run, told to one that comes.
    pub(super) others: Vec<String>,
}

/// What Redis has of a queue.
pub(super) struct Head {
    /// The last number given.
    pub(super) next: u64,
    /// The end of the block; 0 where there is none.
    pub(super) limit: u64,
    /// Whether that end lies beyond what the store has handed out.
    pub(super) is_unsecured: bool,
    /// How many numbers this Redis has given.
    pub(super) given: u64,
}

impl Protocol {
    pub(super) fn new(options: RedisOptions, tasks: Tasks) -> Self {
        Self {
            link: Link::new(options, tasks),
            join: Script::new(concat!(include_str!("state.lua"), include_str!("join.lua"))),
            install: Script::new(concat!(include_str!("state.lua"), include_str!("install.lua"))),
            tick: Script::new(concat!(include_str!("state.lua"), include_str!("tick.lua"))),
        }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn options(&self) -> &RedisOptions {
        self.link.options()
    }

    pub(super) fn stats(&self) -> &RedisStats {
        &self.link.stats
    }

    /// Asks for numbers.
    pub(super) async fn join(&self, join: &Join<'_>) -> Result<Joined, Refusal> {
        let queue = join.queue.as_str();
        let keys = self.keys([("queue:", queue), ("fetch:", queue)]);
        let arguments = [
            self.options().cluster.clone(),
            join.count.to_string(),
            join.highest_given.to_string(),
            join.refill_below.to_string(),
            u8::from(join.store_away).to_string(),
            join.missed.to_string(),
        ];
        self.stats().join_calls.fetch_add(1, Ordering::Relaxed);
        let answer = self.run(&self.join, &keys, &arguments).await?;
        let joined = match (answer.first().and_then(word).as_deref(), &answer[1..]) {
            (Some("OK"), [first, fetch, skipped]) => number(skipped)
                .zip(number(first))
                .zip(number(fetch))
                .map(|((skipped, first), fetch)| {
                    self.stats().skipped.fetch_add(skipped, Ordering::Relaxed);
                    Joined::Numbers { first, fetch: fetch == 1 }
                }),
            (Some("SHORT"), [highest_given, fetch]) => number(highest_given)
                .zip(number(fetch))
                .map(|(highest_given, fetch)| Joined::Short { highest_given, fetch: fetch == 1 }),
            _ => None,
        };
        joined.ok_or_else(|| self.nonsense())
    }

    /// Installs a block of numbers. Returns false where it came too late, and was dropped.
    pub(super) async fn install(
        &self,
        queue: &QueueName,
        first: u64,
        last: u64,
    ) -> Result<bool, Refusal> {
        let keys = self.keys([("queue:", queue.as_str()), ("fetch:", queue.as_str())]);
        let arguments = [self.options().cluster.clone(), first.to_string(), last.to_string()];
        self.stats().block_calls.fetch_add(1, Ordering::Relaxed);
        let installed = self.run(&self.install, &keys, &arguments).await?;
        Ok(installed.first().and_then(word).as_deref() == Some("OK"))
    }

    /// Tells the others, and hears what they have told.
    pub(super) async fn tick(&self, tick: &Tick<'_>) -> Result<Heard, Refusal> {
        let queues = tick.queues.iter().map(|(name, _)| ("queue:", name.as_str()));
        let keys = self.keys(std::iter::once(("turn", "")).chain(queues));
        let ticket_keys = &self.options().ticket_keys;
        let ticket_keys = if tick.is_member { ticket_keys.join(" ") } else { String::new() };
        let mut arguments = vec![
            self.options().cluster.clone(),
            tick.position.generation.clone(),
            tick.position.read.to_string(),
            tick.turn_ms.to_string(),
            self.options().instance.clone(),
            ticket_keys,
            tick.queues.len().to_string(),
        ];
        arguments.extend(tick.queues.iter().map(|(_, next)| next.to_string()));
        arguments.extend(tick.news.iter().map(News::line));
        self.stats().tick_calls.fetch_add(1, Ordering::Relaxed);
        let answer = self.run(&self.tick, &keys, &arguments).await?;
        heard(&answer).ok_or_else(|| self.nonsense())
    }

    /// The keys of a script: the state, the log, and these. One hash tag for all of them, so that
    /// they are on one node of a cluster and one script reaches them.
    fn keys<'k>(&self, more: impl IntoIterator<Item = (&'k str, &'k str)>) -> Vec<String> {
        let prefix = &self.options().prefix;
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
            let prefix = &self.options().prefix;
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
}

fn heard(answer: &[Value]) -> Option<Heard> {
    let [_, generation, read, gap, turn, time, heads, lines, others] = answer else {
        return None;
    };
    let head = |value: &Value| {
        let [next, limit, unsecured, given] = value.as_sequence()? else { return None };
        Some(Head {
            next: number(next)?,
            limit: number(limit)?,
            is_unsecured: number(unsecured)? == 1,
            given: number(given)?,
        })
    };
    Some(Heard {
        position: LogPosition { generation: word(generation)?, read: number(read)? },
        gap: number(gap)? == 1,
        turn: number(turn)? == 1,
        time: Timestamp(i64::try_from(number(time)?).ok()?),
        heads: heads.as_sequence()?.iter().map(head).collect::<Option<_>>()?,
        lines: lines.as_sequence()?.iter().map(word).collect::<Option<_>>()?,
        others: others.as_sequence()?.iter().map(word).collect::<Option<_>>()?,
    })
}

fn word(value: &Value) -> Option<String> {
    String::from_redis_value_ref(value).ok()
}

fn number(value: &Value) -> Option<u64> {
    u64::from_redis_value_ref(value).ok()
}
