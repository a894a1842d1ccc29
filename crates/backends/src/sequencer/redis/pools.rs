//! Numbers for joins: Redis passes on what the store has granted. While no instance has Redis they come
//! from the store one batch at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::deadline::{NUMBERS_TIMEOUT, in_time};
use super::member::{Member, Members};
use super::protocol::{Join, Joined, Pool, Protocol};
use crate::planted::{Bug, planted};
use crate::sequencer::joins::Numbers;
use crate::sequencer::newcomer::{Newcomer, Stub};
use crate::sequencer::queue::{Given, Queue};
use crate::store::{Grant, GrantRequest, Store, Taken};
use crate::{Fault, tasks};

/// A join that needs numbers which somebody fetches looks for them this often.
const FETCHED_INTERVAL: Duration = Duration::from_millis(4);
/// A refusal of the store counts for so long.
const REFUSED: Duration = Duration::from_millis(1_000);
/// Joins wait for so long until no other instance has had Redis for two seconds. Where another has it,
/// they are sent there at once.
const REDIS_GONE: Duration = Duration::from_millis(3_000);
/// While Redis is away the store is asked this often whether it has been long enough.
const REDIS_GONE_INTERVAL: Duration = Duration::from_millis(100);

/// What joins were given.
struct Numbered {
    /// The first new number.
    first: u64,
    /// The tickets of the people who have one.
    kept: Vec<Option<Stub>>,
    /// Which pool keeps the new ones; `None` where the store gave the numbers.
    generation: Option<String>,
}

/// Where the numbers of this instance come from.
pub(super) struct Pools {
    store: Store,
    protocol: Arc<Protocol>,
    members: Arc<Members>,
    /// Why the store did not grant numbers, the last time that it was asked, and when.
    refused: Mutex<Option<(Fault, Instant)>>,
    /// Another instance has had Redis since this one lost it.
    others_have_redis: AtomicBool,
    this: Weak<Self>,
}

impl Pools {
    pub(super) fn new(store: Store, protocol: Arc<Protocol>, members: Arc<Members>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            store,
            protocol,
            members,
            refused: Mutex::default(),
            others_have_redis: AtomicBool::new(false),
            this: this.clone(),
        })
    }

    /// Whether joins are sent elsewhere: another instance has Redis, and this one has not.
    pub(super) fn are_elsewhere(&self) -> bool {
        self.others_have_redis.load(Ordering::Relaxed)
            && !self.protocol.stats().is_up()
            && !planted(Bug::TakenBesideRedis)
    }

    /// Whether another instance has Redis, as of now.
    pub(super) fn set_others_have_redis(&self, have: bool) {
        self.others_have_redis.store(have, Ordering::Relaxed);
    }

    /// The next `count` numbers; or, with people, for as many of them as have no ticket.
    async fn numbers(
        &self,
        member: &Arc<Member>,
        count: u64,
        people: &[(Newcomer, u64)],
    ) -> Result<Numbered, Fault> {
        let since = Instant::now();
        let mut asked_redis_at = since;
        let mut fetching = false;
        loop {
            if !self.protocol.stats().is_up() {
                match self.take(member, count, since).await? {
                    // Who has a ticket, nobody knows now; see `Sequencer::keep_shown`.
                    Some(first) => {
                        let kept = vec![None; people.len()];
                        return Ok(Numbered { first, kept, generation: None });
                    }
                    None => asked_redis_at = Instant::now(),
                }
            }
            let target = member.pool(self.protocol.options().reserve).max(count);
            let join = Join {
                queue: member.queue.name(),
                count,
                highest_given: member.queue.next(),
                refill_below: (target * 3 / 4).max(count),
                people,
            };
            // Redis has been put aside where it does not answer.
            let Ok(joined) = self.protocol.join(&join).await else { continue };
            let Joined { first, fetch, pool, left, kept } = joined;
            let generation = Some(pool.generation.clone());
            if fetch {
                fetching = true;
                self.fetch_behind(member, pool, (target - left.min(target)).max(count));
            }
            if let Some(first) = first {
                return Ok(Numbered { first, kept, generation });
            }
            let refused = if fetching { None } else { self.refused() };
            if refused.is_some() || asked_redis_at.elapsed() >= NUMBERS_TIMEOUT {
                let why = "numbers have run out, and the store has not granted more in time";
                return Err(refused.unwrap_or_else(|| Fault::Unavailable(why.into())));
            }
            sleep(FETCHED_INTERVAL).await;
        }
    }

    /// The queue, where it takes joins.
    fn member_to_join(&self, queue: &Queue) -> Result<Arc<Member>, Fault> {
        let member = self.members.get(queue.name().as_str());
        queue.is_open()?;
        member.ok_or_else(|| Fault::Unavailable("the queue is closed".into()))
    }

    /// Why the store granted nothing a moment ago. Those who come meanwhile need not wait for the same.
    fn refused(&self) -> Option<Fault> {
        let refused = self.refused.lock();
        refused.as_ref().filter(|(_, at)| at.elapsed() < REFUSED).map(|(why, _)| why.clone())
    }

    /// Has the store grant numbers, and puts them into their pool. It takes as long as it takes, whether
    /// anybody waits for it or not: what was granted is not lost.
    fn fetch_behind(&self, member: &Arc<Member>, pool: Pool, count: u64) {
        let (this, member) = (self.this.clone(), member.clone());
        tasks::detach(async move {
            let Some(pools) = this.upgrade() else { return };
            let fetched = pools.fetch(&member, pool, count).await;
            *pools.refused.lock() = fetched.err().map(|why| (why, Instant::now()));
        });
    }

    async fn fetch(&self, member: &Member, pool: Pool, count: u64) -> Result<(), Fault> {
        let Pool { generation, limit } = pool;
        let queue = member.queue.name().clone();
        let request = GrantRequest { queue, pool: generation.clone(), after: limit, count };
        let granted = self.store.grant_numbers(request).await?;
        let Grant::Numbers { first, last } = granted else { return Ok(()) };
        self.protocol.stats().grants.fetch_add(1, Ordering::Relaxed);
        // Where this fails, the next one who asks is granted the same ones.
        let _ = self.protocol.install(member.queue.name(), generation, first, last).await;
        Ok(())
    }

    /// The next `count` numbers from the store itself, because Redis is away; `None` where it has come
    /// back meanwhile.
    async fn take(
        &self,
        member: &Arc<Member>,
        count: u64,
        since: Instant,
    ) -> Result<Option<u64>, Fault> {
        let name = member.queue.name();
        loop {
            if !self.are_elsewhere() {
                let taken = self.store.take_numbers(name.clone(), count);
                if let Taken::From(first) = in_time(NUMBERS_TIMEOUT, taken).await? {
                    self.protocol.stats().direct.fetch_add(count, Ordering::Relaxed);
                    return Ok(Some(first));
                }
            }
            if self.protocol.stats().is_up() {
                return Ok(None);
            }
            if self.are_elsewhere() || since.elapsed() >= REDIS_GONE {
                self.protocol.stats().elsewhere.fetch_add(count, Ordering::Relaxed);
                return Err(Fault::Unavailable(
                    "redis is away here and not elsewhere: other instances have the numbers".into(),
                ));
            }
            sleep(REDIS_GONE_INTERVAL).await;
        }
    }
}

impl Numbers for Pools {
    /// At most a hundred calls a second of an instance, unless each serves 32 joins.
    const PACE: Duration = Duration::from_millis(10);

    async fn next_numbers(&self, queue: &Queue, count: u64) -> Result<u64, Fault> {
        let member = self.member_to_join(queue)?;
        let Numbered { first, .. } = self.numbers(&member, count, &[]).await?;
        queue.note_given(first, count);
        Ok(first)
    }

    async fn places(&self, queue: &Queue, people: &[(Newcomer, u64)]) -> Result<Vec<Given>, Fault> {
        let member = self.member_to_join(queue)?;
        let numbered = self.numbers(&member, people.len() as u64, people).await?;
        let Numbered { first, kept, generation } = numbered;
        let new = kept.iter().filter(|kept| kept.is_none()).count();
        if new > 0 {
            queue.note_given(first, new as u64);
        }
        let mut seqs = first..;
        let given: Vec<Given> = kept
            .into_iter()
            .map(|kept| kept.map_or_else(|| Given::New(seqs.next().unwrap_or(0)), Given::Kept))
            .collect();
        if let Some(generation) = generation {
            let new = people.iter().zip(&given).filter_map(|((newcomer, _), given)| match given {
                Given::New(seq) if newcomer.is_person() => Some(*seq),
                Given::New(_) | Given::Kept(_) => None,
            });
            queue.note_kept(new, &generation);
        }
        Ok(given)
    }
}
