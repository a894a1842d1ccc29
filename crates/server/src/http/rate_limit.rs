//! A limit per client address, for joins and for polls.
//!
//! What does not belong here: deciding what the client's address is (see `client`), and limits that
//! protect the service as a whole; those are the classes.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::client::ClientAddress;
use super::problem::{ErrorCode, Problem};

/// After how many checks addresses that have been quiet are forgotten. It bounds what a crowd of
/// addresses can occupy: those seen within a bucket's refill time, plus this many.
const CHECKS_PER_SWEEP: u32 = 65_536;

/// A token bucket per client address.
#[derive(Debug)]
pub struct ClientRateLimit {
    buckets: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
    checks: AtomicU32,
}

impl ClientRateLimit {
    /// So many in a second, and `burst` at once; none where it is off.
    pub fn new(per_second: f64, burst: u32) -> Option<Self> {
        if per_second <= 0.0 {
            return None;
        }
        let period = Duration::try_from_secs_f64(1.0 / per_second).ok()?;
        let burst = NonZeroU32::new(burst)?;
        let quota = Quota::with_period(period)?.allow_burst(burst);
        Some(Self {
            buckets: RateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            checks: AtomicU32::new(0),
        })
    }

    /// Takes one from the client's bucket. Who is no stranger has none, and passes.
    ///
    /// # Errors
    /// 429 with `Retry-After` in whole seconds, at least one, where the bucket is empty.
    pub(super) fn check(&self, client: ClientAddress) -> Result<(), Problem> {
        let Some(client) = client.stranger() else { return Ok(()) };
        if self.checks.fetch_add(1, Ordering::Relaxed) % CHECKS_PER_SWEEP == CHECKS_PER_SWEEP - 1 {
            self.forget_quiet();
        }
        self.buckets.check_key(&client).map_err(|denied| {
            let wait = denied.wait_time_from(self.clock.now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            Problem::new(ErrorCode::RateLimited)
                .retry_after(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX))
        })
    }

    /// Forgets addresses whose bucket is full again. Called by itself now and then.
    pub fn forget_quiet(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }

    /// Addresses remembered.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no address is remembered.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(per_second: f64, burst: u32) -> ClientRateLimit {
        ClientRateLimit::new(per_second, burst).unwrap()
    }

    fn check(limit: &ClientRateLimit, peer: &str) -> Result<(), Problem> {
        limit.check(ClientAddress::of_peer(peer.parse().unwrap(), &[]))
    }

    #[test]
    fn zero_is_off() {
        assert!(ClientRateLimit::new(0.0, 500).is_none());
    }

    #[test]
    fn the_burst_passes_and_the_next_is_told_when() {
        let limit = limit(0.1, 3);
        for _ in 0..3 {
            check(&limit, "192.0.2.1:1").unwrap();
        }
        let problem = check(&limit, "192.0.2.1:1").unwrap_err();
        assert_eq!(problem, Problem::new(ErrorCode::RateLimited).retry_after(10));
        check(&limit, "192.0.2.2:1").unwrap();
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_this_machine_is_none() {
        let limit = limit(0.001, 1);
        check(&limit, "[2001:db8:1:2::1]:1").unwrap();
        assert!(check(&limit, "[2001:db8:1:2:ffff::9]:1").is_err());
        check(&limit, "[2001:db8:1:3::1]:1").unwrap();
        for _ in 0..10 {
            check(&limit, "127.0.0.1:1").unwrap();
            check(&limit, "[::1]:1").unwrap();
        }
    }

    /// What the documentation of the default says of it.
    #[test]
    fn by_default_a_shared_address_gets_in_and_does_not_fill_the_line() {
        let limit = ClientRateLimit::new(10.0, 500).unwrap();
        let joined = (0..2_000).filter(|_| check(&limit, "192.0.2.1:1").is_ok()).count();
        assert!((500..600).contains(&joined), "{joined}");
    }

    #[test]
    fn quiet_addresses_are_forgotten() {
        // A bucket of one that refills in a microsecond is full again at once.
        let limit = limit(1_000_000.0, 1);
        for n in 0..=255 {
            let _ = check(&limit, &format!("192.0.2.{n}:1"));
        }
        std::thread::sleep(Duration::from_millis(5));
        limit.forget_quiet();
        assert!(limit.is_empty(), "{} remembered", limit.len());
    }
}
