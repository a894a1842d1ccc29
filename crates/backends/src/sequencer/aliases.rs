//! Opaque tokens in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use boxoffice_domain::ids::{QueueName, TicketId};
use boxoffice_domain::queue::{Ending, Place, Ticket};
use boxoffice_domain::time::Timestamp;
use parking_lot::RwLock;

use super::{Beside, NewAlias, Pass, Queue};
use crate::store::{Alias, AliasExists};

/// Tokens that are active are counted this often, in milliseconds: they may be many, and their
/// count is needed roughly.
const COUNT_INTERVAL_MS: i64 = 1_000;

/// Every opaque token that is known.
#[derive(Default)]
pub(super) struct Aliases {
    known: RwLock<Known>,
    counted_at: AtomicI64,
}

#[derive(Default)]
struct Known {
    passes: HashMap<String, Pass>,
    /// Those past the line, by the tickets behind them.
    beside: HashMap<TicketId, Arc<Beside>>,
}

impl Aliases {
    pub(super) fn get(&self, token: &str) -> Option<Pass> {
        self.known.read().passes.get(token).cloned()
    }

    /// Checks that these tokens are new, before any number is taken for them: a number that nobody
    /// has holds up the line. Gives how many numbers they need.
    pub(super) fn check(&self, tokens: &[NewAlias]) -> Result<u64, AliasExists> {
        let known = self.known.read();
        let mut listed = HashSet::with_capacity(tokens.len());
        for token in tokens.iter().map(|token| &token.token) {
            if !listed.insert(token) || known.passes.contains_key(token) {
                return Err(AliasExists(token.clone()));
            }
        }
        Ok(tokens.iter().filter(|token| token.active_until.is_none()).count() as u64)
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
            Alias { token: token.token, ticket, active_until: token.active_until, spent: false }
        };
        tokens.into_iter().map(alias).collect()
    }

    /// Takes in what is stored of tokens. What is known of one already stays.
    pub(super) fn remember(&self, aliases: &[Alias]) {
        let mut known = self.known.write();
        for alias in aliases {
            if let Some(pass) = known.passes.get(&alias.token) {
                if let Some(beside) = pass.beside.as_ref().filter(|_| alias.spent) {
                    beside.spent.store(true, Ordering::Relaxed);
                }
                continue;
            }
            let beside = alias
                .active_until
                .map(|until| Arc::new(Beside { until, spent: AtomicBool::new(alias.spent) }));
            if let Some(beside) = &beside {
                known.beside.insert(alias.ticket.id, beside.clone());
            }
            let pass = Pass { ticket: alias.ticket.clone(), beside };
            known.passes.insert(alias.token.clone(), pass);
        }
    }

    /// The ticket past the line has been spent, at another instance.
    pub(super) fn spent(&self, id: TicketId) {
        if let Some(beside) = self.known.read().beside.get(&id) {
            beside.spent.store(true, Ordering::Relaxed);
        }
    }

    /// Counts the active tickets that are not of the line, for each queue.
    pub(super) fn count(&self, queues: &[Arc<Queue>], now: Timestamp) {
        self.counted_at.store(now.0, Ordering::Relaxed);
        let mut counts: HashMap<QueueName, u64> = HashMap::new();
        for pass in self.known.read().passes.values() {
            let Some(beside) = &pass.beside else { continue };
            if beside.until > now && !beside.spent.load(Ordering::Relaxed) {
                *counts.entry(pass.ticket.queue.clone()).or_default() += 1;
            }
        }
        for queue in queues {
            let count = counts.get(queue.name()).copied().unwrap_or(0);
            queue.beside.store(count, Ordering::Relaxed);
        }
    }

    /// Counts them again where that was long ago.
    pub(super) fn count_now_and_then(&self, queues: &[Arc<Queue>], now: Timestamp) {
        if (now.0 - self.counted_at.load(Ordering::Relaxed)).abs() >= COUNT_INTERVAL_MS {
            self.count(queues, now);
        }
    }
}

/// Where a ticket stands, in the line or past it.
pub(super) fn place(queue: &Queue, pass: &Pass, now: Timestamp) -> Place {
    let Some(beside) = &pass.beside else {
        return queue.place(pass.ticket.seq, now);
    };
    if beside.spent.load(Ordering::Relaxed) {
        Place::Over(Ending::Finished)
    } else if now < beside.until {
        Place::Active { until: beside.until, claimed: true }
    } else {
        Place::Over(Ending::TimedOut)
    }
}
