//! The sequencer: gives joins their numbers, admits, and knows where each ticket stands.

mod aliases;
mod governing;
mod joins;
mod local;
mod newcomer;
mod news;
mod places;
mod polled;
mod queue;
mod redis;
mod sales;
mod solutions;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use boxoffice_domain::ids::{QueueName, TicketId};
use boxoffice_domain::invariant::{Finding, Invariant};
use boxoffice_domain::queue::{Ending, Place, QueueSettings, SaleRules, SettingsChange, Ticket};
use boxoffice_domain::time::Timestamp;

use self::aliases::Aliases;
pub use self::aliases::{Bypass, NewAlias, PresentedTicket};
use self::governing::Governing;
pub use self::governing::{Governed, Purchase, Purchases};
use self::joins::Numbers;
pub use self::local::LocalSequencer;
pub use self::newcomer::{Joined, Name, Newcomer};
use self::news::News;
use self::places::{Keeping, Kept};
use self::queue::Given;
pub use self::queue::{Counters, Queue, Told};
#[cfg(feature = "simulation")]
pub use self::redis::simulated;
pub use self::redis::{RedisMode, RedisOptions, RedisSequencer, RedisStats};
pub use self::sales::sale_of;
pub use self::solutions::{Solution, Use};
use crate::store::{
    Act, ActRejected, Acted, Alias, AliasExists, Condition, DrawSeed, Note, SpentBy, Store,
    TicketRef,
};
use crate::{Error, Fault, tasks};

/// A person's ticket may be over when it is found, and the next one too, but hardly so often.
const JOIN_ATTEMPTS: usize = 8;
/// So many tickets that were shown are kept in one tick.
const SHOWN_TICK_MAX: usize = 5_000;

/// So many second places are given up in one tick.
const SECONDS_TICK_MAX: usize = 500;

/// The sequencer in use.
#[derive(Clone)]
pub enum Sequencer {
    /// Counters in this process, checkpointed in the store.
    Local(Arc<LocalSequencer>),
    /// Numbers and news through Redis, what is durable through the store; shared by instances.
    Redis(Arc<RedisSequencer>),
}

impl Sequencer {
    /// The queue of this name.
    pub fn queue(&self, name: &str) -> Option<Arc<Queue>> {
        match self {
            Self::Local(local) => local.queue(name),
            Self::Redis(redis) => redis.queue(name),
        }
    }

    /// Every queue, by name.
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        match self {
            Self::Local(local) => local.queues(),
            Self::Redis(redis) => redis.queues(),
        }
    }

    /// From now on the queues follow the sales behind them, by these rules; what was said first stays. Who
    /// does not say so has queues that know of no sale.
    pub fn follow_sales(&self, rules: SaleRules, now: Timestamp) {
        let now = self.store().vouched(now);
        match self {
            Self::Local(local) => local.follow_sales(rules, now),
            Self::Redis(redis) => redis.follow_sales(rules, now),
        }
    }

    /// From now on queues admit as many as the shop can serve, and no more than their settings say. Who does not
    /// say so has queues that admit at their rate whatever becomes of the purchases.
    pub fn govern(&self) {
        self.governing().follow();
    }

    /// Where to note how purchases go.
    pub fn purchases(&self) -> &Arc<Purchases> {
        self.governing().purchases()
    }

    /// How many of those who could be let in are.
    pub fn governed(&self) -> Governed {
        self.governing().governed()
    }

    /// Makes a queue. Returns whether it is new.
    pub async fn create(&self, name: QueueName, settings: QueueSettings) -> Result<bool, Fault> {
        match self {
            Self::Local(local) => local.create(name, settings).await,
            Self::Redis(redis) => redis.create(name, settings).await,
        }
    }

    /// Changes how a queue admits, durably. Returns the settings in force afterwards. What the change
    /// does not name stays as it is, whoever changes it at the same time, here or elsewhere.
    pub async fn change(
        &self,
        queue: &Arc<Queue>,
        change: SettingsChange,
    ) -> Result<QueueSettings, Fault> {
        let (sequencer, queue) = (self.clone(), queue.clone());
        // In a task of its own: what the store has carried out must be seen here, even where whoever
        // asked for it has hung up.
        let task = tasks::detach(async move {
            match sequencer {
                Self::Local(local) => local.change(&queue, change).await,
                Self::Redis(redis) => redis.change(&queue, change).await,
            }
        });
        task.await.unwrap_or_else(|error| Err(Fault::OutcomeUnknown(error.to_string())))
    }

    /// The same as [`Self::create`], for an operator: with what is to be written down of it. Those who join before
    /// the opening may have to be drawn.
    pub async fn create_noted(
        &self,
        name: QueueName,
        settings: QueueSettings,
        drawn: bool,
        note: Note,
    ) -> Result<Acted, Error<ActRejected>> {
        let seed = if drawn { Some(DrawSeed::random()?) } else { None };
        let act = Act::CreateQueue(name.clone(), settings, seed);
        let sequencer = self.clone();
        let task = tasks::detach(async move {
            match sequencer {
                Self::Local(local) => local.create_noted(name, act, note).await,
                Self::Redis(redis) => redis.create_noted(act, note).await,
            }
        });
        task.await.unwrap_or_else(|error| Err(Fault::OutcomeUnknown(error.to_string()).into()))
    }

    /// The same as [`Self::change`], for an operator: with what has to be so, and what is to be written down of it.
    pub async fn change_noted(
        &self,
        queue: &Arc<Queue>,
        change: SettingsChange,
        condition: Condition,
        note: Note,
    ) -> Result<Acted, Error<ActRejected>> {
        let (sequencer, queue) = (self.clone(), queue.clone());
        let task = tasks::detach(async move {
            let act = Act::ChangeQueue(queue.name().clone(), change, condition);
            match sequencer {
                Self::Local(local) => local.change_noted(&queue, act, note).await,
                Self::Redis(redis) => redis.change_noted(&queue, act, note).await,
            }
        });
        task.await.unwrap_or_else(|error| Err(Fault::OutcomeUnknown(error.to_string()).into()))
    }

    /// What this instance is called, and the others that are there with when they said so last; `None` where it is
    /// the only one.
    pub fn instances(&self) -> Option<(String, Vec<(String, Timestamp)>)> {
        match self {
            Self::Local(_) => None,
            Self::Redis(redis) => Some(redis.instances()),
        }
    }

    /// The next number of the queue. Numbers rise in the order in which joins arrive here.
    pub async fn join(&self, queue: &Queue) -> Result<u64, Fault> {
        match self {
            Self::Local(local) => local.join(queue).await,
            Self::Redis(redis) => redis.join(queue).await,
        }
    }

    /// The ticket that somebody has in the queue, or a new one. A person whose ticket is over gets a new
    /// one; a join that is repeated under its idempotency key gets the one that it got.
    pub async fn join_once(
        &self,
        queue: &Queue,
        newcomer: Newcomer,
        now: Timestamp,
    ) -> Result<Joined, Fault> {
        let mut over = 0;
        for _ in 0..JOIN_ATTEMPTS {
            let stub = match queue.wait_for_place(Some((newcomer.clone(), over))).await? {
                Given::New(seq) => newcomer.with(seq),
                Given::Kept(stub) => stub,
            };
            // It may be found by a call that was made again because the first one took too long.
            let is_new = stub.id == newcomer.id;
            let ticket = stub.ticket(queue.name(), newcomer.user);
            let is_of_use = is_new
                || !newcomer.is_person()
                || !matches!(self.place(queue, &ticket.clone().into(), now), Place::Over(_));
            if is_of_use {
                if !is_new {
                    queue.counters().rejoined.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(Joined { ticket, is_new });
            }
            over = stub.seq;
        }
        Err(Fault::Unavailable("tickets of this person end as soon as they begin".into()))
    }

    /// Uses the solution of a challenge, for a join. Who repeats it by the same name is told so.
    pub async fn use_solution(&self, solution: &Solution, now: Timestamp) -> Use {
        match self {
            Self::Local(local) => local.solutions().take(solution, now),
            Self::Redis(redis) => redis.use_solution(solution, now).await,
        }
    }

    /// Somebody has shown a signed ticket, which is not over: joins will find it.
    pub fn show(&self, queue: &Queue, ticket: &Ticket) {
        if let Some(shown) = queue.shown() {
            shown.show(ticket);
        }
    }

    /// Keeps the tickets that people have shown since the last tick. Who has two gives one up.
    async fn keep_shown(&self, now: Timestamp) -> Result<(), Fault> {
        let now = self.store().vouched(now);
        for queue in self.queues() {
            let Some(shown) = queue.shown() else { continue };
            let place = |ticket: &Ticket| queue.peek(ticket.seq, now);
            let taken = shown.take(SHOWN_TICK_MAX).into_iter();
            let live = taken.filter(|ticket| !matches!(place(ticket).0, Place::Over(_)));
            let mut keeping: Vec<Keeping> = live.map(Keeping::of).collect();
            for _ in 0..JOIN_ATTEMPTS {
                if keeping.is_empty() {
                    break;
                }
                let kept = match self {
                    Self::Local(local) => local.keep(&queue, &keeping),
                    Self::Redis(redis) => redis.keep(&queue, &keeping).await,
                };
                let (mut leaving, mut again) = (Vec::new(), Vec::new());
                for (keeping, kept) in keeping.into_iter().zip(kept) {
                    let Keeping { shown, gives_up, is_found_here, .. } = keeping;
                    match (kept, gives_up) {
                        (Kept::Done, Some(second)) => {
                            let count = u64::from(is_found_here);
                            queue.counters().seconds.fetch_add(count, Ordering::Relaxed);
                            let (sequencer, queue) = (self.clone(), queue.clone());
                            leaving.push(tasks::detach(async move {
                                sequencer.leave(&queue, &second.into(), now).await
                            }));
                        }
                        // Those beyond are found with their owners' next polls.
                        (Kept::Another(other), _) if again.len() < SECONDS_TICK_MAX => {
                            let (here, there) = (place(&shown), place(&other.ticket));
                            again.push(Keeping::against(shown, here, other, there));
                        }
                        (Kept::Done | Kept::Another(_) | Kept::Unknown, _) => {}
                    }
                }
                for left in leaving {
                    left.await
                        .unwrap_or_else(|error| Err(Fault::OutcomeUnknown(error.to_string())))?;
                }
                keeping = again;
            }
        }
        Ok(())
    }

    /// Where joins look for it, the ticket is not to be found any more, because it is over.
    async fn forget_place(&self, queue: &Queue, ticket: &Ticket) {
        match self {
            Self::Redis(redis) if queue.has_one_place_each() => {
                redis.forget_place(queue, ticket).await;
            }
            // In one process all know at once.
            Self::Redis(_) | Self::Local(_) => {}
        }
    }

    /// What stands behind an opaque token.
    pub fn alias(&self, token: &str) -> Option<PresentedTicket> {
        self.aliases().get(token)
    }

    /// Whether an activated opaque token that was issued before `time` lasts beyond `now`. Looks at all of
    /// them.
    pub fn tokens_last(&self, time: Timestamp, now: Timestamp) -> bool {
        self.aliases().last_beyond(time, now)
    }

    /// Whether the ticket with this number and id has paid or was given up, as far as is known here. Nobody
    /// counts as seen by that. Reads memory only.
    pub fn is_given_up(&self, queue: &Queue, seq: u64, id: TicketId, now: Timestamp) -> bool {
        // No number has 0: those are past the line.
        if seq == 0 {
            return !self.aliases().is_of_use(id);
        }
        matches!(queue.peek(seq, now).0, Place::Over(Ending::Finished | Ending::Left))
    }

    /// Issues opaque tokens: all or none.
    pub async fn issue(
        &self,
        queue: &Arc<Queue>,
        tokens: Vec<NewAlias>,
        now: Timestamp,
    ) -> Result<Vec<Alias>, Error<AliasExists>> {
        let in_line = self.aliases().check(&tokens).map_err(Error::Rejected)?;
        let first = if in_line > 0 { self.next_numbers(queue, in_line).await? } else { 0 };
        let issued = Aliases::number(queue, tokens, first, now);
        // After an error the numbers are empty places, for good. To pass over them in memory alone
        // would let the places behind them go back by as many at the next start.
        self.store().add_aliases(issued.clone()).await?;
        self.aliases().remember(&issued);
        self.aliases().count(&self.queues(), now);
        self.tell(|| News::Issued);
        Ok(issued)
    }

    /// The same as [`Self::issue`], for an operator: with what is to be written down of it.
    pub async fn issue_noted(
        &self,
        queue: &Arc<Queue>,
        tokens: Vec<NewAlias>,
        now: Timestamp,
        note: Note,
    ) -> Result<Acted, Error<ActRejected>> {
        // Before numbers are taken that nobody would get.
        if let Some(answer) = self.store().acted_before(&note).await? {
            return Ok(Acted::Before(answer));
        }
        let exists = |AliasExists(token)| Error::Rejected(ActRejected::TokenExists(token));
        let in_line = self.aliases().check(&tokens).map_err(exists)?;
        let first = if in_line > 0 { self.next_numbers(queue, in_line).await? } else { 0 };
        let issued = Aliases::number(queue, tokens, first, now);
        let act = Act::Issue(queue.name().clone(), issued.clone());
        let acted = self.store().act(act, note).await?;
        if matches!(acted, Acted::Now(..)) {
            self.aliases().remember(&issued);
            self.aliases().count(&self.queues(), now);
            self.tell(|| News::Issued);
        }
        Ok(acted)
    }

    /// Where a ticket stands. Reads memory only; also notes that its owner has been seen.
    pub fn place(&self, queue: &Queue, pass: &PresentedTicket, now: Timestamp) -> Place {
        let place = pass.place(queue, now);
        if matches!(place, Place::Over(Ending::TimedOut)) {
            // Not by a clock that is ahead.
            let vouched = self.store().vouched(now);
            if vouched < now {
                return pass.place(queue, vouched);
            }
        }
        place
    }

    /// The owner gives the ticket up; durable when this returns.
    pub async fn leave(
        &self,
        queue: &Queue,
        pass: &PresentedTicket,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let seq = pass.ticket.seq;
        let waiting = pass.bypass.is_none() && queue.is_waiting(seq);
        self.store().leave_queue((&pass.ticket).into(), waiting, now).await?;
        match &pass.bypass {
            Some(bypass) => self.spend(bypass, pass, SpentBy::Leaving),
            None => {
                queue.leave(seq);
                self.tell(|| News::Left(queue.name().clone(), vec![seq]));
                self.forget_place(queue, &pass.ticket).await;
            }
        }
        Ok(())
    }

    /// The ticket has paid. The store knows already; this is for those who ask where it stands.
    pub fn finish(&self, queue: &Arc<Queue>, pass: &PresentedTicket) {
        let seq = pass.ticket.seq;
        match &pass.bypass {
            Some(bypass) => self.spend(bypass, pass, SpentBy::Payment),
            None => {
                queue.finish(seq);
                self.tell(|| News::Finished(queue.name().clone(), vec![seq]));
                if matches!(self, Self::Redis(_)) && queue.has_one_place_each() {
                    let (sequencer, queue) = (self.clone(), queue.clone());
                    let ticket = pass.ticket.clone();
                    tasks::detach(async move { sequencer.forget_place(&queue, &ticket).await });
                }
            }
        }
    }

    /// The same for a ticket that was not shown: another of the same person has paid for what it held.
    pub fn finish_ticket(&self, ticket: &TicketRef) {
        if ticket.seq == 0 {
            self.aliases().spent(ticket.id, SpentBy::Payment);
            self.tell(|| News::Spent(ticket.id, SpentBy::Payment));
        } else if let Some(queue) = self.queue(ticket.queue.as_str()) {
            queue.finish(ticket.seq);
            self.tell(|| News::Finished(queue.name().clone(), vec![ticket.seq]));
        }
    }

    fn spend(&self, bypass: &Bypass, pass: &PresentedTicket, by: SpentBy) {
        bypass.spend(by);
        self.tell(|| News::Spent(pass.ticket.id, by));
    }

    /// One step of admission for every queue. To be called every 100 ms.
    pub async fn tick(&self, now: Timestamp) -> Result<(), Fault> {
        match self {
            Self::Local(local) => local.tick(now).await?,
            Self::Redis(redis) => redis.tick(now).await?,
        }
        self.keep_shown(now).await
    }

    /// Tells the other instances, where there may be any, that this one is there, hears the same of
    /// them, and compares the clocks. To be called every 500 ms.
    pub async fn beat(&self, now: Timestamp) -> Result<(), Fault> {
        match self {
            Self::Local(local) => local.beat(now).await,
            Self::Redis(redis) => redis.beat(now).await,
        }
    }

    /// Whether this instance takes no joins, because it has no Redis and others have.
    pub fn are_joins_elsewhere(&self) -> bool {
        match self {
            Self::Local(_) => false,
            Self::Redis(redis) => redis.are_joins_elsewhere(),
        }
    }

    /// Records the counters for the last time, exactly, so that no number is skipped after an
    /// orderly restart. Joins after this are refused.
    pub async fn close(&self, now: Timestamp) -> Result<(), Fault> {
        match self {
            Self::Local(local) => local.close(now).await,
            Self::Redis(redis) => redis.close(now).await,
        }
    }

    /// Checks the invariants that only the sequencer can see.
    pub fn audit(&self, now: Timestamp) -> Vec<Finding> {
        let mut overtaken = Finding::new(Invariant::NobodyOvertaken);
        let mut bounded = Finding::new(Invariant::ActiveBounded);
        let mut one_each = Finding::new(Invariant::OnePlaceEach);
        for queue in self.queues() {
            queue.audit(&mut overtaken, &mut bounded, now);
            queue.audit_places(&mut one_each);
        }
        vec![overtaken, bounded, one_each]
    }

    /// How the sequencer's Redis is doing, where it has one.
    pub fn redis(&self) -> Option<&RedisStats> {
        match self {
            Self::Local(_) => None,
            Self::Redis(redis) => Some(redis.stats()),
        }
    }

    // ---- what the two differ in, for what they do alike ----

    fn store(&self) -> &Store {
        match self {
            Self::Local(local) => local.store(),
            Self::Redis(redis) => redis.store(),
        }
    }

    fn governing(&self) -> &Governing {
        match self {
            Self::Local(local) => local.governing(),
            Self::Redis(redis) => redis.governing(),
        }
    }

    fn aliases(&self) -> &Aliases {
        match self {
            Self::Local(local) => local.aliases(),
            Self::Redis(redis) => redis.aliases(),
        }
    }

    async fn next_numbers(&self, queue: &Queue, count: u64) -> Result<u64, Fault> {
        match self {
            Self::Local(local) => local.next_numbers(queue, count).await,
            Self::Redis(redis) => redis.next_numbers(queue, count).await,
        }
    }

    /// Has the other instances told, where there may be any.
    fn tell(&self, news: impl FnOnce() -> News) {
        match self {
            Self::Local(_) => {}
            Self::Redis(redis) => redis.tell(news()),
        }
    }
}
