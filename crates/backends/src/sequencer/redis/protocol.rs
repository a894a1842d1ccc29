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
    /// More are to be fetched where fewer numbers than this are left.
    pub(super) refill_below: u64,
}

/// What Redis says to a batch of joins.
pub(super) struct Joined {
    /// The first number. `None` where there are not enough.
    pub(super) first: Option<u64>,
    /// Whether this instance is to fetch more.
    pub(super) fetch: bool,
    /// The pool.
    pub(super) pool: Pool,
    /// How many numbers are left in it.
    pub(super) left: u64,
}

/// Numbers that the store has granted, and Redis passes on.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    /// What makes it different from every other one: it goes with the process, and with its term as a
    /// master.
    pub(super) generation: String,
    /// The last number that it was granted; 0 for none.
    pub(super) limit: u64,
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
}

/// What Redis has of a queue.
pub(super) struct Head {
    /// The last number given.
    pub(super) next: u64,
    /// The last number that was granted; 0 for none.
    pub(super) limit: u64,
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
        let arguments = [
            self.options().cluster.clone(),
            queue.to_owned(),
            join.count.to_string(),
            join.highest_given.to_string(),
            join.refill_below.to_string(),
        ];
        self.stats().join_calls.fetch_add(1, Ordering::Relaxed);
        let answer = self.run(&self.join, &self.keys(), &arguments).await?;
        let joined = || {
            let [said, first, skipped, fetch, generation, limit, left] = &answer[..] else {
                return None;
            };
            let given = word(said)? == "OK";
            let first = number(first)?;
            if given {
                self.stats().skipped.fetch_add(number(skipped)?, Ordering::Relaxed);
            }
            Some(Joined {
                first: given.then_some(first),
                fetch: number(fetch)? == 1,
                pool: Pool { generation: word(generation)?, limit: number(limit)? },
                left: number(left)?,
            })
        };
        joined().ok_or_else(|| self.nonsense())
    }

    /// Puts numbers that the store has granted into their pool. Returns false where the pool is another
    /// one by now, or has them.
    pub(super) async fn install(
        &self,
        queue: &QueueName,
        generation: String,
        first: u64,
        last: u64,
    ) -> Result<bool, Refusal> {
        let queue = queue.as_str();
        let cluster = self.options().cluster.clone();
        let arguments =
            [cluster, queue.to_owned(), generation, first.to_string(), last.to_string()];
        self.stats().pool_calls.fetch_add(1, Ordering::Relaxed);
        let installed = self.run(&self.install, &self.keys(), &arguments).await?;
        Ok(installed.first().and_then(word).as_deref() == Some("OK"))
    }

    /// Tells the others, and hears what they have told.
    pub(super) async fn tick(&self, tick: &Tick<'_>) -> Result<Heard, Refusal> {
        let mut arguments = vec![
            self.options().cluster.clone(),
            tick.position.generation.clone(),
            tick.position.read.to_string(),
            tick.turn_ms.to_string(),
            tick.queues.len().to_string(),
        ];
        for (queue, next) in &tick.queues {
            arguments.extend([queue.as_str().to_owned(), next.to_string()]);
        }
        arguments.extend(tick.news.iter().map(News::line));
        self.stats().tick_calls.fetch_add(1, Ordering::Relaxed);
        let answer = self.run(&self.tick, &self.keys(), &arguments).await?;
        heard(&answer).ok_or_else(|| self.nonsense())
    }

    /// The keys of a script: the state, the log, and whose turn it is. One hash tag for all of them, so
    /// that they are on one node of a cluster and one script reaches them.
    fn keys(&self) -> [String; 3] {
        let prefix = &self.options().prefix;
        ["state", "log", "turn"].map(|key| format!("{{{prefix}}}:{key}"))
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
    let [_, generation, read, gap, turn, time, heads, lines] = answer else {
        return None;
    };
    let head = |value: &Value| {
        let [next, limit, given] = value.as_sequence()? else { return None };
        Some(Head { next: number(next)?, limit: number(limit)?, given: number(given)? })
    };
    Some(Heard {
        position: LogPosition { generation: word(generation)?, read: number(read)? },
        gap: number(gap)? == 1,
        turn: number(turn)? == 1,
        time: Timestamp(i64::try_from(number(time)?).ok()?),
        heads: heads.as_sequence()?.iter().map(head).collect::<Option<_>>()?,
        lines: lines.as_sequence()?.iter().map(word).collect::<Option<_>>()?,
    })
}

fn word(value: &Value) -> Option<String> {
    String::from_redis_value_ref(value).ok()
}

fn number(value: &Value) -> Option<u64> {
    u64::from_redis_value_ref(value).ok()
}
