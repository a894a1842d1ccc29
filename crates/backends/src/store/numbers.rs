//! Who gets which numbers. Every number of a queue comes from here, once: in a block for a pool from
//! which a Redis passes them on, or straight to an instance while no instance has Redis.

use boxoffice_domain::ids::QueueName;

use crate::planted::{Bug, planted};

/// While an instance has had Redis within so many milliseconds, numbers come from its pool only.
pub(super) const REDIS_SEEN_MS: i64 = 2_000;
/// A sighting that is so many milliseconds in the future is none: the database's clock has been set
/// back since.
pub(super) const REDIS_AHEAD_MS: i64 = 1_000;

/// A pool in Redis asks for the numbers behind those that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRequest {
    /// Of which queue.
    pub queue: QueueName,
    /// What makes this pool different from every other one, earlier ones of the same Redis included.
    pub pool: String,
    /// The last number that the pool was granted; 0 for none. It only rises.
    pub after: u64,
    /// How many numbers it wants.
    pub count: u64,
}

/// What a pool is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The numbers from `first` to `last`. Who asks again for the same place gets the same ones, so an
    /// answer that was late or lost costs no numbers.
    Numbers {
        /// The first one.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// The pool has been granted more since: the request came late.
    Late,
}

/// Numbers taken without Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// They begin here.
    From(u64),
    /// None: an instance has had Redis a moment ago, and its pool has lower ones.
    Elsewhere,
}

/// What a queue has granted last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LastGrant {
    pub(super) pool: String,
    pub(super) after: u64,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// Decides on a request. `watermark` is the last number that was ever handed out.
pub(super) fn decide(last: &LastGrant, watermark: u64, request: &GrantRequest) -> Grant {
    if last.pool == request.pool {
        if request.after == last.after && !planted(Bug::GrantAnew) {
            return Grant::Numbers { first: last.first, last: last.last };
        }
        if request.after < last.after {
            return Grant::Late;
        }
    }
    Grant::Numbers { first: watermark + 1, last: watermark + request.count.max(1) }
}

/// What is to be kept of a grant where it is a new one.
pub(super) fn new_grant(
    last: &LastGrant,
    request: &GrantRequest,
    grant: Grant,
) -> Option<LastGrant> {
    let Grant::Numbers { first, last: upto } = grant else { return None };
    let new = LastGrant { pool: request.pool.clone(), after: request.after, first, last: upto };
    (new != *last).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pool: &str, after: u64, count: u64) -> GrantRequest {
        let Some(queue) = QueueName::new("main") else { panic!("a name") };
        GrantRequest { queue, pool: pool.into(), after, count }
    }

    /// What a queue grants, one request after another.
    #[derive(Default)]
    struct Queue {
        last: LastGrant,
        watermark: u64,
    }

    impl Queue {
        fn grant(&mut self, pool: &str, after: u64, count: u64) -> Option<(u64, u64)> {
            let request = request(pool, after, count);
            let grant = decide(&self.last, self.watermark, &request);
            if let Some(new) = new_grant(&self.last, &request, grant) {
                self.watermark = new.last;
                self.last = new;
            }
            match grant {
                Grant::Numbers { first, last } => Some((first, last)),
                Grant::Late => None,
            }
        }
    }

    #[test]
    fn a_request_that_is_repeated_gets_the_same_numbers() {
        let mut queue = Queue::default();
        assert_eq!(queue.grant("a", 0, 64), Some((1, 64)));
        assert_eq!(queue.grant("a", 0, 100), Some((1, 64)));
        assert_eq!(queue.grant("a", 64, 10), Some((65, 74)));
        assert_eq!(queue.grant("a", 0, 64), None);
        assert_eq!(queue.grant("a", 64, 10), Some((65, 74)));
        assert_eq!(queue.watermark, 74);
    }

    #[test]
    fn another_pool_gets_other_numbers() {
        let mut queue = Queue::default();
        assert_eq!(queue.grant("a", 0, 10), Some((1, 10)));
        assert_eq!(queue.grant("b", 0, 10), Some((11, 20)));
        // A late request of the first pool hands out numbers that nobody else gets.
        assert_eq!(queue.grant("a", 0, 10), Some((21, 30)));
        assert_eq!(queue.grant("b", 0, 10), Some((31, 40)));
        queue.watermark += 7;
        assert_eq!(queue.grant("b", 40, 0), Some((48, 48)));
    }
}
