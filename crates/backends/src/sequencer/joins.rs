//! Joins that wait for numbers: batches, in the order in which they came.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::Weak;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::newcomer::{Name, Newcomer};
use super::queue::{Given, Join, Queue};
use crate::Fault;

/// The most joins that get their numbers in one step.
const BATCH_MAX: usize = 1024;
/// So many joins are not made to wait for more.
const BATCH_ENOUGH: usize = 32;

/// What gives numbers to a batch of joins.
pub(super) trait Numbers: Send + Sync + 'static {
    /// The least time between the beginnings of two steps, unless many joins wait. It bounds how
    /// many calls the joins cost; who comes alone does not wait.
    const PACE: Duration;

    /// Gives out the next `count` numbers. Returns the first.
    fn next_numbers(
        &self,
        queue: &Queue,
        count: u64,
    ) -> impl Future<Output = Result<u64, Fault>> + Send;

    /// Gives each of these people the ticket that they have, or else a new number. Beside them stands the
    /// number of one that is over.
    fn places(
        &self,
        queue: &Queue,
        people: &[(Newcomer, u64)],
    ) -> impl Future<Output = Result<Vec<Given>, Fault>> + Send;
}

/// Gives numbers to the joins of a queue: in the order in which they came, as many in one step as
/// have come while the last step was under way. Ends with the queue.
pub(super) async fn number_joins<N: Numbers>(
    numbers: Weak<N>,
    queue: Weak<Queue>,
    mut joins: mpsc::UnboundedReceiver<Join>,
) {
    let mut batch: Vec<Join> = Vec::with_capacity(BATCH_MAX);
    let mut begun: Option<Instant> = None;
    while joins.recv_many(&mut batch, BATCH_MAX).await > 0 {
        if let Some(begun) = begun.filter(|_| !N::PACE.is_zero()) {
            while batch.len() < BATCH_ENOUGH {
                let room = BATCH_MAX - batch.len();
                let more = timeout_at(begun + N::PACE, joins.recv_many(&mut batch, room)).await;
                if !matches!(more, Ok(1..)) {
                    break;
                }
            }
        }
        begun = Some(Instant::now());
        let (Some(numbers), Some(queue)) = (numbers.upgrade(), queue.upgrade()) else { return };
        let count = batch.len() as u64;
        let given = give(&*numbers, &queue, &mut batch).await;
        queue.dequeued(count);
        match given {
            Ok(given) => {
                for (join, given) in batch.drain(..).zip(given) {
                    // Whoever hung up keeps an empty place in the line; it costs a moment.
                    let _ = join.reply.send(Ok(given));
                }
            }
            Err(fault) => batch.drain(..).for_each(|join| {
                let _ = join.reply.send(Err(fault.clone()));
            }),
        }
    }
}

/// Gives numbers to the joins of a batch, first to those without a name. Brings it into that order.
async fn give<N: Numbers>(
    numbers: &N,
    queue: &Queue,
    batch: &mut [Join],
) -> Result<Vec<Given>, Fault> {
    batch.sort_by_key(|join| join.newcomer.is_some());
    let unnamed = batch.partition_point(|join| join.newcomer.is_none());
    let mut given = Vec::with_capacity(batch.len());
    if unnamed > 0 {
        let first = numbers.next_numbers(queue, unnamed as u64).await?;
        given.extend((first..).take(unnamed).map(Given::New));
    }
    if unnamed == batch.len() {
        return Ok(given);
    }
    // One who asks twice at once is asked for once.
    let (mut people, mut index) = (Vec::<(Newcomer, u64)>::new(), HashMap::<Name, usize>::new());
    let mut places = Vec::with_capacity(batch.len() - unnamed);
    for (newcomer, over) in batch.iter().filter_map(|join| join.newcomer.as_ref()) {
        match index.entry(newcomer.name) {
            Entry::Occupied(found) => {
                let place = *found.get();
                people[place].1 = people[place].1.max(*over);
                places.push((place, true));
            }
            Entry::Vacant(vacant) => {
                places.push((*vacant.insert(people.len()), false));
                people.push((newcomer.clone(), *over));
            }
        }
    }
    let found = numbers.places(queue, &people).await?;
    for (place, again) in places {
        let missing = || Fault::Corrupt("a join was given no answer".into());
        let answer = *found.get(place).ok_or_else(missing)?;
        given.push(match answer {
            Given::New(seq) if again => Given::Kept(people[place].0.with(seq)),
            answer => answer,
        });
    }
    Ok(given)
}
