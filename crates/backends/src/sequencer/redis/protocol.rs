//! What is said to Redis, and what it answers: the keys, the scripts, and their words as types.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use boxoffice_domain::ids::{QueueName, TicketId};
use boxoffice_domain::queue::Ticket;
use boxoffice_domain::time::Timestamp;
use redis::{FromRedisValue, ToRedisArgs, Value};

use super::link::{Away, Link, RedisOptions, RedisStats, Script};
use crate::Tasks;
use crate::sequencer::newcomer::{
    JOIN_KEY_SECONDS, Name, Newcomer, Stub, five_bytes, of_five_bytes,
};
use crate::sequencer::news::News;
use crate::sequencer::places::{Keeping, Other};
use crate::sequencer::solutions::{NOBODY, SLACK_MS, Solution};

/// For how long a person's place is kept, in seconds, unless it is shown again.
const PERSON_SECONDS: u32 = 10_800;
/// So many people share a key. Redis packs hashes of up to 128 fields (`hash-max-listpack-entries`), and so
/// many, of 34 bytes, fill a block of 4,096 bytes; the next larger one has 5,120.
const PEOPLE_OF_KEY: i64 = 120;

/// The calls of Redis.
pub(super) struct Protocol {
    link: Arc<Link>,
    join: Script,
    install: Script,
    keep: Script,
    forget: Script,
    tick: Script,
    solve: Script,
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
    /// Who they are, where each of them may have a ticket, and the number of one that is over.
    pub(super) people: &'q [(Newcomer, u64)],
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
    /// The tickets of the people who have one.
    pub(super) kept: Vec<Option<Stub>>,
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

impl LogPosition {
    /// Of the Redis that has the log; see [`Pool`].
    pub(super) fn generation(&self) -> &str {
        &self.generation
    }

    /// Whether the Redis that has the log lost what it had when this instance read it last.
    pub(super) fn was_lost(&self, heard: &Self) -> bool {
        // Who has just started has read nothing.
        !self.generation.is_empty() && self.generation != heard.generation
    }
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
            keep: Script::new(concat!(include_str!("state.lua"), include_str!("keep.lua"))),
            forget: Script::new(concat!(include_str!("state.lua"), include_str!("forget.lua"))),
            tick: Script::new(concat!(include_str!("state.lua"), include_str!("tick.lua"))),
            solve: Script::new(concat!(include_str!("state.lua"), include_str!("solve.lua"))),
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
        let mut keys = self.keys().to_vec();
        let mut arguments: Vec<Vec<u8>> = vec![
            self.options().cluster.clone().into(),
            queue.into(),
            join.count.to_string().into(),
            join.highest_given.to_string().into(),
            join.refill_below.to_string().into(),
        ];
        for (newcomer, over) in join.people {
            let (key, field, seconds) = self.place_of(queue, newcomer.name);
            keys.push(key);
            let behind = behind(&newcomer.with(0));
            arguments.extend([field, five_bytes(*over).into(), behind, seconds.into()]);
        }
        self.stats().join_calls.fetch_add(1, Ordering::Relaxed);
        let answer = self.run(&self.join, &keys, &arguments).await?;
        let joined = || {
            let [said, first, skipped, fetch, generation, limit, left, kept] = &answer[..] else {
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
                kept: stubs(kept)?.into_iter().map(|found| found.map(|(stub, _)| stub)).collect(),
            })
        };
        joined().ok_or_else(|| self.nonsense())
    }

    /// Keeps tickets of people. Returns the generation that keeps them, and the tickets of those who have
    /// another one.
    pub(super) async fn keep(
        &self,
        queue: &QueueName,
        keeping: &[Keeping],
    ) -> Result<(String, Vec<Option<Other>>), Refusal> {
        let mut keys = self.keys().to_vec();
        let mut arguments: Vec<Vec<u8>> =
            vec![self.options().cluster.clone().into(), PERSON_SECONDS.to_string().into()];
        for Keeping { shown, keeps, replaces, is_chosen, is_forced, .. } in keeping {
            let (key, field, _) = self.place_of(queue.as_str(), Name::Person(keeps.user));
            keys.push(key);
            let flags = if shown.seq == keeps.seq { SHOWN } else { 0 }
                | if *is_chosen { CHOSEN } else { 0 };
            let (seq, replaces) = (five_bytes(keeps.seq).into(), five_bytes(*replaces).into());
            let (flags, forced) = (flags.to_string(), u8::from(*is_forced).to_string());
            let behind = behind(&Stub::of(keeps));
            arguments.extend([field, seq, replaces, behind, flags.into(), forced.into()]);
        }
        self.stats().keep_calls.fetch_add(1, Ordering::Relaxed);
        let answer = self.run(&self.keep, &keys, &arguments).await?;
        let kept = || {
            let [_, generation, found] = &answer[..] else { return None };
            let other = |((stub, flags), keeping): ((Stub, u8), &Keeping)| Other {
                ticket: stub.ticket(queue, keeping.shown.user),
                was_shown: flags & SHOWN != 0,
                is_chosen: flags & CHOSEN != 0,
            };
            let others = stubs(found)?.into_iter().zip(keeping);
            let others = others.map(|(found, keeping)| found.map(|found| other((found, keeping))));
            Some((word(generation)?, others.collect()))
        };
        kept().ok_or_else(|| self.nonsense())
    }

    /// Forgets the ticket of a person, unless another one is there.
    pub(super) async fn forget(&self, queue: &QueueName, ticket: &Ticket) -> Result<(), Refusal> {
        let (key, field, _) = self.place_of(queue.as_str(), Name::Person(ticket.user));
        let mut keys = self.keys().to_vec();
        keys.push(key);
        let cluster = self.options().cluster.clone().into();
        let arguments: [Vec<u8>; 3] = [cluster, field, five_bytes(ticket.seq).into()];
        self.stats().keep_calls.fetch_add(1, Ordering::Relaxed);
        self.run(&self.forget, &keys, &arguments).await.map(|_| ())
    }

    /// Uses the solution of a challenge. Returns by whom it was used before.
    pub(super) async fn use_solution(
        &self,
        solution: &Solution,
        now: Timestamp,
    ) -> Result<Option<[u8; 16]>, Refusal> {
        let mut keys = self.keys().to_vec();
        let id = u128::from_be_bytes(solution.id);
        keys.push(format!("{{{}}}:solved:{id:032x}", self.options().prefix));
        let left_ms = solution.expires_at.0.saturating_sub(now.0).saturating_add(SLACK_MS);
        let left_seconds = left_ms.max(1).unsigned_abs().div_ceil(1_000);
        let arguments: [Vec<u8>; 3] = [
            self.options().cluster.clone().into(),
            solution.by.unwrap_or(NOBODY).into(),
            left_seconds.to_string().into(),
        ];
        self.stats().solution_calls.fetch_add(1, Ordering::Relaxed);
        let answer = self.run(&self.solve, &keys, &arguments).await?;
        let used = || {
            let [_, is_first, by] = &answer[..] else { return None };
            if number(is_first)? == 1 {
                return Some(None);
            }
            let Value::BulkString(by) = by else { return None };
            Some(Some(by.as_slice().try_into().ok()?))
        };
        used().ok_or_else(|| self.nonsense())
    }

    /// The key and the field that has the ticket of this name in the queue, and for how many seconds.
    /// People with neighbouring ids share a key, because small hashes are packed.
    fn place_of(&self, queue: &str, name: Name) -> (String, Vec<u8>, String) {
        let RedisOptions { prefix, epoch, .. } = self.options();
        match name {
            Name::Person(user) => {
                let user = user.get();
                let key = format!("{{{prefix}}}:people:{epoch}:{queue}:{}", user / PEOPLE_OF_KEY);
                (key, user.to_string().into(), PERSON_SECONDS.to_string())
            }
            Name::Key(digest) => {
                let digest = u128::from_be_bytes(digest);
                let key = format!("{{{prefix}}}:join:{epoch}:{queue}:{digest:032x}");
                (key, b"t".to_vec(), JOIN_KEY_SECONDS.to_string())
            }
        }
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
        arguments: &[impl ToRedisArgs + Sync],
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

/// What is kept of a ticket behind its number: the second of issue (5 bytes) and the id (16).
fn behind(stub: &Stub) -> Vec<u8> {
    let seconds = stub.issued_at.0.div_euclid(1_000).to_be_bytes();
    [&seconds[3..], &stub.id.0].concat()
}

/// Of a ticket that is kept: somebody has shown it.
const SHOWN: u8 = 2;
/// It was chosen over another one of the same person.
const CHOSEN: u8 = 1;

/// The tickets that a script has found, each as its number and what [`behind`] says, with its flags in the
/// two highest bits, which no second needs before the year 10,000.
fn stubs(found: &Value) -> Option<Vec<Option<(Stub, u8)>>> {
    let stub = |found: &Value| {
        let Value::BulkString(text) = found else { return None };
        if text.is_empty() {
            return Some(None);
        }
        let (seq, rest) = text.split_first_chunk::<5>()?;
        let (seconds, id) = rest.split_first_chunk::<5>()?;
        let mut seconds = *seconds;
        let flags = seconds[0] >> 6;
        seconds[0] &= 0x3f;
        let issued_at = Timestamp(i64::try_from(of_five_bytes(seconds)).ok()? * 1_000);
        let id = TicketId(id.try_into().ok()?);
        Some(Some((Stub { seq: of_five_bytes(*seq), issued_at, id }, flags)))
    };
    found.as_sequence()?.iter().map(stub).collect()
}

fn word(value: &Value) -> Option<String> {
    String::from_redis_value_ref(value).ok()
}

fn number(value: &Value) -> Option<u64> {
    u64::from_redis_value_ref(value).ok()
}
