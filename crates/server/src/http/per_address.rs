//! How many of something each client address has at once, with a bound.
//!
//! What does not belong here: rates (see `rate_limit`), and deciding what the client's address is
//! (see `client`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::client::one_client;

/// Counts by client. Nobody is remembered who has none.
#[derive(Debug)]
pub(super) struct PerAddress {
    max: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl PerAddress {
    /// Lets each client have so many.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, counts: Mutex::default() })
    }

    /// Counts one more for an address; none where it has as many as it may. It is counted out when
    /// the guard is dropped.
    ///
    /// Addresses of this machine are not counted: who is here can do worse, and a proxy here that
    /// nobody has named brings everybody.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<OneOfAddress> {
        if address.to_canonical().is_loopback() {
            return Some(OneOfAddress(None));
        }
        let client = one_client(address);
        let mut counts = self.counts.lock();
        let count = counts.entry(client).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(OneOfAddress(Some((Arc::clone(self), client))))
    }
}

/// One that is counted.
#[derive(Debug)]
pub(super) struct OneOfAddress(Option<(Arc<PerAddress>, IpAddr)>);

impl Drop for OneOfAddress {
    fn drop(&mut self) {
        let Some((counted, client)) = &self.0 else { return };
        let mut counts = counted.counts.lock();
        if let Entry::Occupied(mut entry) = counts.entry(*client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
            // What a crowd has occupied is given back when it has gone.
            if counts.is_empty() && counts.capacity() > 1_024 {
                counts.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_a_bound_of_its_own_and_who_has_none_is_forgotten() {
        let per = PerAddress::new(2);
        let enter = |address: &str| per.enter(address.parse().unwrap());
        let held = [enter("192.0.2.1"), enter("::ffff:192.0.2.1"), enter("192.0.2.2")];
        assert!(held.iter().all(Option::is_some));
        assert!(enter("192.0.2.1").is_none());
        // A customer has a whole /64.
        let network = [enter("2001:db8::1"), enter("2001:db8::ffff:2")];
        assert!(network.iter().all(Option::is_some));
        assert!(enter("2001:db8::3").is_none());
        assert!(enter("2001:db8:0:1::3").is_some());
        drop((held, network));
        assert!(enter("192.0.2.1").is_some());
        assert!(per.counts.lock().is_empty());
    }

    #[test]
    fn this_machine_has_no_bound() {
        let per = PerAddress::new(1);
        let enter = |address: &str| per.enter(address.parse().unwrap());
        let held = ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"].map(enter);
        let more = ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"].map(enter);
        assert!(held.iter().chain(&more).all(Option::is_some));
        assert!(per.counts.lock().is_empty());
    }
}
