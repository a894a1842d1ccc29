//! Tickets as they are presented, and the opaque tokens (aliases) that stand for some of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use boxoffice_domain::ids::{QueueName, TicketId, UserId};
use boxoffice_domain::queue::{Ending, Place, Ticket};
use boxoffice_domain::time::Timestamp;
use parking_lot::RwLock;

use super::queue::Queue;
use crate::store::{ALIAS_KEPT_MS, Alias, AliasExists, SpentBy};

/// Tickets that bypass the line are counted this often, in milliseconds: they may be many, and
/// their count is needed roughly.
const COUNT_INTERVAL_MS: i64 = 1_000;
/// Tokens that are over are looked for this often, in milliseconds.
const FORGET_INTERVAL_MS: i64 = 60_000;
/// The most tokens that are kept after they are over; past this the oldest of them go sooner.
const KEPT_MAX: usize = 100_000;
/// So many tokens are forgotten under one lock.
const FORGET_PART: usize = 1_000;

/// A ticket as presented: signed, or by an opaque token that an operator issued for it.
#[derive(Clone, Debug)]
pub struct PresentedTicket {
    /// What the ticket says.
    pub ticket: Ticket,
    /// Set where it was let in without ever having been in the line.
    pub bypass: Option<Arc<Bypass>>,
}

/// What is known of a ticket that an operator let in past the line.
#[derive(Debug)]
pub struct Bypass {
    until: Timestamp,
    /// What spent it, as a [`SpentBy`]; [`UNSPENT`] until then.
    spent: AtomicU8,
}

const UNSPENT: u8 = 0;
const PAID: u8 = 1;
const LEFT: u8 = 2;

impl Bypass {
    fn new(until: Timestamp, spent: Option<SpentBy>) -> Self {
        let bypass = Self { until, spent: AtomicU8::new(UNSPENT) };
        if let Some(by) = spent {
            bypass.spend(by);
        }
        bypass
    }

    /// The ticket has paid, or was given up.
    pub(super) fn spend(&self, by: SpentBy) {
        let by = match by {
            SpentBy::Payment => PAID,
            SpentBy::Leaving => LEFT,
        };
        self.spent.store(by, Ordering::Relaxed);
    }

    /// How it ended, where it is spent.
    fn spent(&self) -> Option<Ending> {
        match self.spent.load(Ordering::Relaxed) {
            UNSPENT => None,
            PAID => Some(Ending::Finished),
            _ => Some(Ending::Left),
        }
    }

    fn is_active(&self, now: Timestamp) -> bool {
        now < self.until && self.spent().is_none()
    }
}

impl From<Ticket> for PresentedTicket {
    fn from(ticket: Ticket) -> Self {
        Self { ticket, bypass: None }
    }
}

impl PresentedTicket {
    /// Where the ticket stands, in the line or past it. Its owner is marked as seen.
    pub(super) fn place(&self, queue: &Queue, now: Timestamp) -> Place {
        let Some(bypass) = &self.bypass else {
            return queue.place(self.ticket.seq, now);
        };
        if let Some(ending) = bypass.spent() {
            Place::Over(ending)
        } else if now < bypass.until {
            Place::Active { until: bypass.until, claimed: true }
        } else {
            Place::Over(Ending::TimedOut)
        }
    }
}

/// Opaque tokens to be issued.
#[derive(Clone, Debug)]
pub struct NewAlias {
    /// The token as the client will send it.
    pub token: String,
    /// Whose it is.
    pub user: UserId,
    /// Until when it is active; `None` puts it at the end of the line instead.
    pub active_until: Option<Timestamp>,
    /// The unique id of the ticket behind it.
    pub id: TicketId,
}

/// The opaque tokens in memory.
#[derive(Default)]
pub(super) struct Aliases {
    tokens: RwLock<Tokens>,
    counted_at: AtomicI64,
    forgotten_at: AtomicI64,
}

#[derive(Default)]
struct Tokens {
    by_token: HashMap<String, Token>,
    /// Those past the line, by the tickets behind them.
    bypasses: HashMap<TicketId, Arc<Bypass>>,
}

struct Token {
    pass: PresentedTicket,
    /// When it was over, or was found to be, in milliseconds since 1970; [`NOT_OVER`] until then.
    over_at: AtomicI64,
}

const NOT_OVER: i64 = i64::MAX;

impl Token {
    fn over_at(&self) -> Option<Timestamp> {
        let at = self.over_at.load(Ordering::Relaxed);
        (at != NOT_OVER).then_some(Timestamp(at))
    }

    /// Notes when it was over, if it is.
    fn note_over(&self, queues: &HashMap<&QueueName, &Queue>, now: Timestamp) {
        let ticket = &self.pass.ticket;
        let over_at = match &self.pass.bypass {
            Some(bypass) if bypass.is_active(now) => return,
            Some(bypass) => bypass.until.min(now),
            None if queues.get(&ticket.queue).is_some_and(|q| q.is_over(ticket.seq, now)) => now,
            None => return,
        };
        self.over_at.store(over_at.0, Ordering::Relaxed);
    }
}

/// Which of the tokens that are over are to be forgotten.
struct Forgetting {
    /// Those that were over by then.
    too_old: Timestamp,
    /// The newest of those beyond the most that are kept; all that were over before it go.
    newest_beyond: Timestamp,
    /// How many that were over at the same time as it go as well.
    same_time: usize,
}

impl Forgetting {
    fn new(mut over: Vec<Timestamp>, now: Timestamp) -> Self {
        let too_old = Timestamp(now.0.saturating_sub(ALIAS_KEPT_MS));
        let Some(last) = over.len().checked_sub(KEPT_MAX + 1) else {
            return Self { too_old, newest_beyond: Timestamp(i64::MIN), same_time: 0 };
        };
        let (older, at, _) = over.select_nth_unstable(last);
        let same_time = 1 + older.iter().filter(|older| *older == at).count();
        Self { too_old, newest_beyond: *at, same_time }
    }

    fn is_forgotten(&mut self, over_at: Timestamp) -> bool {
        if over_at <= self.too_old || over_at < self.newest_beyond {
            return true;
        }
        let beyond = over_at == self.newest_beyond && self.same_time > 0;
        self.same_time -= usize::from(beyond);
        beyond
    }
}

impl Aliases {
    pub(super) fn get(&self, token: &str) -> Option<PresentedTicket> {
        self.tokens.read().by_token.get(token).map(|token| token.pass.clone())
    }

    /// Whether the ticket past the line with this id may still open doors. One that is not known was never
    /// issued, or has been over for long.
    pub(super) fn is_of_use(&self, id: TicketId) -> bool {
        self.tokens.read().bypasses.get(&id).is_some_and(|bypass| bypass.spent().is_none())
    }

    /// Whether a ticket past the line that was issued before `time` lasts beyond `now`.
    pub(super) fn last_beyond(&self, time: Timestamp, now: Timestamp) -> bool {
        self.tokens.read().by_token.values().any(|Token { pass, .. }| {
            pass.ticket.issued_at < time && pass.bypass.as_ref().is_some_and(|it| now < it.until)
        })
    }

    /// Checks that these tokens are new, before any number is given to them: a number that nobody
    /// has holds up the line. Returns how many numbers they need.
    pub(super) fn check(&self, new: &[NewAlias]) -> Result<u64, AliasExists> {
        let tokens = self.tokens.read();
        let mut listed = HashSet::with_capacity(new.len());
        for token in new.iter().map(|new| &new.token) {
            if !listed.insert(token) || tokens.by_token.contains_key(token) {
                return Err(AliasExists(token.clone()));
            }
        }
        Ok(new.iter().filter(|new| new.active_until.is_none()).count() as u64)
    }

    /// Makes tickets of new tokens; those in the line are numbered from `first` on.
    pub(super) fn number(
        queue: &Queue,
        tokens: Vec<NewAlias>,
        first: u64,
        now: Timestamp,
    ) -> Vec<Alias> {
        let mut seq = first;
        let alias = |token: NewAlias| {
            let number = if token.active_until.is_some() { 0 } else { seq };
            seq += u64::from(token.active_until.is_none());
            let ticket = Ticket {
                queue: queue.name().clone(),
                seq: number,
                user: token.user,
                issued_at: now,
                id: token.id,
            };
            Alias { token: token.token, ticket, active_until: token.active_until, spent: None }
        };
        tokens.into_iter().map(alias).collect()
    }

    /// Takes over tokens as they are stored. Of one that is here already only its end is news.
    pub(super) fn remember(&self, aliases: &[Alias]) {
        let mut tokens = self.tokens.write();
        let Tokens { by_token, bypasses } = &mut *tokens;
        for alias in aliases {
            if let Some(token) = by_token.get(&alias.token) {
                if let (Some(bypass), Some(by)) = (&token.pass.bypass, alias.spent) {
                    bypass.spend(by);
                }
                continue;
            }
            let bypass = alias.active_until.map(|until| Arc::new(Bypass::new(until, alias.spent)));
            if let Some(bypass) = &bypass {
                bypasses.insert(alias.ticket.id, bypass.clone());
            }
            let pass = PresentedTicket { ticket: alias.ticket.clone(), bypass };
            by_token.insert(alias.token.clone(), Token { pass, over_at: AtomicI64::new(NOT_OVER) });
        }
    }

    /// The ticket past the line has been spent, at another instance.
    pub(super) fn spent(&self, id: TicketId, by: SpentBy) {
        if let Some(bypass) = self.tokens.read().bypasses.get(&id) {
            bypass.spend(by);
        }
    }

    /// Counts the active tickets that are not of the line, for each queue.
    pub(super) fn count(&self, queues: &[Arc<Queue>], now: Timestamp) {
        self.counted_at.store(now.0, Ordering::Relaxed);
        let mut counts: HashMap<QueueName, u64> = HashMap::new();
        for Token { pass, .. } in self.tokens.read().by_token.values() {
            let Some(bypass) = &pass.bypass else { continue };
            if bypass.is_active(now) {
                *counts.entry(pass.ticket.queue.clone()).or_default() += 1;
            }
        }
        for queue in queues {
            let count = counts.get(queue.name()).copied().unwrap_or(0);
            queue.bypassing.store(count, Ordering::Relaxed);
        }
    }

    /// Forgets tokens that have been over for long, so that memory does not grow with all that were
    /// ever issued.
    pub(super) fn forget_over(&self, queues: &[Arc<Queue>], now: Timestamp) {
        self.forgotten_at.store(now.0, Ordering::Relaxed);
        let queues: HashMap<&QueueName, &Queue> =
            queues.iter().map(|queue| (queue.name(), &**queue)).collect();
        let forgotten: Vec<(String, TicketId)> = {
            let tokens = self.tokens.read();
            let not_over = |token: &&Token| token.over_at().is_none();
            tokens.by_token.values().filter(not_over).for_each(|it| it.note_over(&queues, now));
            let over = tokens.by_token.values().filter_map(Token::over_at).collect();
            let mut forgetting = Forgetting::new(over, now);
            let forgotten = tokens.by_token.iter().filter(|(_, token)| {
                token.over_at().is_some_and(|over_at| forgetting.is_forgotten(over_at))
            });
            forgotten.map(|(token, it)| (token.clone(), it.pass.ticket.id)).collect()
        };
        // Polls wait for no more than a part of it.
        for part in forgotten.chunks(FORGET_PART) {
            let mut tokens = self.tokens.write();
            for (token, id) in part {
                tokens.by_token.remove(token);
                tokens.bypasses.remove(id);
            }
        }
        if !forgotten.is_empty() {
            let mut tokens = self.tokens.write();
            let Tokens { by_token, bypasses } = &mut *tokens;
            by_token.shrink_to(by_token.len() * 2);
            bypasses.shrink_to(bypasses.len() * 2);
        }
    }

    /// Counts and forgets, where that was done long ago.
    pub(super) fn tidy(&self, queues: &[Arc<Queue>], now: Timestamp) {
        let due = |last: &AtomicI64, interval_ms| {
            (now.0 - last.load(Ordering::Relaxed)).abs() >= interval_ms
        };
        if due(&self.forgotten_at, FORGET_INTERVAL_MS) {
            self.forget_over(queues, now);
        }
        if due(&self.counted_at, COUNT_INTERVAL_MS) {
            self.count(queues, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use boxoffice_domain::ids::{QueueName, UserId};
    use boxoffice_domain::queue::{Admission, Bucket, LineParts, QueueSettings};
    use tokio::sync::mpsc;

    use super::*;
    use crate::store::StoredQueue;

    const TTL_MS: i64 = 60_000;

    /// A queue in which 1 to 10 were admitted at 0.
    fn queue() -> Arc<Queue> {
        let Some(name) = QueueName::new("main") else { panic!("a name") };
        let stored = StoredQueue {
            name,
            settings: QueueSettings {
                admit_per_second: 1.0,
                max_active: None,
                active_ttl: std::time::Duration::from_millis(TTL_MS as u64),
                claim_window: std::time::Duration::from_secs(5),
                opens_at: None,
                paused: false,
            },
            next: 20,
            watermark: 20,
            line: LineParts {
                serving: 10,
                log: vec![Admission { upto: 10, at: Timestamp(0) }],
                ..LineParts::default()
            },
            bucket: Bucket::default(),
            draw: None,
        };
        match Queue::new(stored, false, false, mpsc::unbounded_channel().0) {
            Ok(queue) => Arc::new(queue),
            Err(fault) => panic!("{fault}"),
        }
    }

    fn alias(queue: &Queue, number: u64, seq: u64, active_until: Option<i64>) -> Alias {
        let Some(user) = UserId::new(1) else { panic!("a user") };
        let ticket = Ticket {
            queue: queue.name().clone(),
            seq,
            user,
            issued_at: Timestamp(0),
            id: TicketId(u128::from(number).to_be_bytes()),
        };
        let active_until = active_until.map(Timestamp);
        Alias { token: number.to_string(), ticket, active_until, spent: None }
    }

    fn sizes(aliases: &Aliases) -> (usize, usize) {
        let tokens = aliases.tokens.read();
        (tokens.by_token.len(), tokens.bypasses.len())
    }

    #[test]
    fn a_token_that_is_over_leaves_memory_a_day_later() {
        let queue = queue();
        let queues = [queue.clone()];
        let aliases = Aliases::default();
        aliases.remember(&[
            alias(&queue, 1, 0, Some(1_000)),
            alias(&queue, 2, 0, Some(i64::MAX)),
            alias(&queue, 3, 0, Some(i64::MAX)),
            alias(&queue, 4, 10, None),
            alias(&queue, 5, 15, None),
        ]);
        let places = |now: i64| -> Vec<Option<Place>> {
            let place = |pass: PresentedTicket| pass.place(&queue, Timestamp(now));
            ["1", "2", "3", "4", "5"].map(|token| aliases.get(token).map(place)).to_vec()
        };
        // One has run out, two is spent; four ran out after its admission, and five waits.
        aliases.spent(TicketId(2_u128.to_be_bytes()), SpentBy::Payment);
        aliases.tidy(&queues, Timestamp(TTL_MS));
        let before = places(TTL_MS);
        assert_eq!(before[0], Some(Place::Over(Ending::TimedOut)));
        assert_eq!(before[1], Some(Place::Over(Ending::Finished)));
        assert!(matches!(before[2], Some(Place::Active { .. })));
        assert_eq!(before[3], Some(Place::Over(Ending::TimedOut)));
        assert!(matches!(before[4], Some(Place::Waiting { .. })));
        assert_eq!((queue.bypassing.load(Ordering::Relaxed), sizes(&aliases)), (1, (5, 3)));
        // For a day from its end each is known.
        let end = 1_000 + ALIAS_KEPT_MS;
        aliases.forget_over(&queues, Timestamp(end - 1));
        assert_eq!(places(end - 1), before);
        aliases.forget_over(&queues, Timestamp(end));
        assert_eq!((places(end)[0], sizes(&aliases)), (None, (4, 2)));
        let end = end + FORGET_INTERVAL_MS;
        aliases.tidy(&queues, Timestamp(end));
        let after = places(end);
        assert_eq!((after[1], after[3]), (None, None));
        assert_eq!((after[2], after[4]), (before[2], before[4]));
        assert_eq!((queue.bypassing.load(Ordering::Relaxed), sizes(&aliases)), (1, (2, 1)));
    }

    #[test]
    fn what_is_asked_of_tokens_past_the_line_is_known() {
        let queue = queue();
        let aliases = Aliases::default();
        let tokens = [(1, 0, Some(1_000)), (2, 0, Some(500)), (3, 9, None)];
        let tokens = tokens.map(|(number, seq, until)| alias(&queue, number, seq, until));
        let issued_at = tokens[0].ticket.issued_at;
        aliases.remember(&tokens);
        let id = |number: u128| TicketId(number.to_be_bytes());
        aliases.spent(id(2), SpentBy::Leaving);
        assert_eq!(
            [1, 2, 3, 4].map(|number| aliases.is_of_use(id(number))),
            [true, false, false, false]
        );
        // What was signed for a token lasts until its end, spent or not.
        let later = Timestamp(issued_at.0 + 1);
        assert!(aliases.last_beyond(later, Timestamp(999)));
        assert!(!aliases.last_beyond(later, Timestamp(1_000)), "all have ended");
        assert!(!aliases.last_beyond(issued_at, Timestamp(0)), "none was issued before");
    }

    #[test]
    fn tokens_that_are_over_are_kept_up_to_a_bound() {
        let queue = queue();
        let queues = [queue.clone()];
        let aliases = Aliases::default();
        let (live, late, most) = (7, 40, KEPT_MAX as u64);
        // All that are over ended at 5, but for the first, which ended before, and 40 that ended last.
        let until = |number: u64| match number {
            _ if number < live => i64::MAX,
            _ if number == live => 4,
            _ if number <= live + late => 6,
            _ => 5,
        };
        let all: Vec<Alias> = (0..live + most + 3)
            .map(|number| alias(&queue, number, 0, Some(until(number))))
            .collect();
        aliases.remember(&all);
        aliases.forget_over(&queues, Timestamp(10));
        let left = KEPT_MAX + live as usize;
        assert_eq!(sizes(&aliases), (left, left));
        assert!((0..live).all(|number| aliases.get(&number.to_string()).is_some()));
        assert!(aliases.get(&live.to_string()).is_none(), "the oldest goes first");
        let mut last = live + 1..=live + late;
        assert!(last.all(|number| aliases.get(&number.to_string()).is_some()));
        // What is left does not hold the memory of what is gone.
        aliases.forget_over(&queues, Timestamp(10 + ALIAS_KEPT_MS));
        assert_eq!(sizes(&aliases), (live as usize, live as usize));
        assert!(aliases.tokens.read().by_token.capacity() < 100);
    }
}
