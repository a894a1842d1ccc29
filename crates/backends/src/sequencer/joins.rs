//! Joins that wait for numbers: batches, in the order in which they came.

use std::future::Future;
use std::sync::Weak;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::queue::{JoinReply, Queue};
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
}

/// Gives numbers to the joins of a queue: in the order in which they came, as many in one step as
/// have come while the last step was under way. Ends with the queue.
pub(super) async fn number_joins<N: Numbers>(
    numbers: Weak<N>,
    queue: Weak<Queue>,
    mut joins: mpsc::UnboundedReceiver<JoinReply>,
) {
    let mut batch: Vec<JoinReply> = Vec::with_capacity(BATCH_MAX);
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
        let given = numbers.next_numbers(&queue, count).await;
        queue.dequeued(count);
        match given {
            Ok(first) => {
                for (reply, seq) in batch.drain(..).zip(first..) {
                    // Whoever hung up keeps an empty place in the line; it costs a moment.
                    let _ = reply.send(Ok(seq));
                }
            }
            Err(fault) => batch.drain(..).for_each(|reply| {
                let _ = reply.send(Err(fault.clone()));
            }),
        }
    }
}
