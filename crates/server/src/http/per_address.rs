//! How many of something each client address has at once, with a bound.
//!
//! What does not belong here: rates (see `rate_limit`), and deciding what the client's address is
//! (see `client`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::client::ClientAddress;

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

    /// Counts one more for a client; none where it has as many as it may. It is counted out when the
    /// guard is dropped. Who is no stranger is not counted.
    pub(super) fn enter(self: &Arc<Self>, client: ClientAddress) -> Option<OneOfAddress> {
        let Some(client) = client.stranger() else { return Some(OneOfAddress(None)) };
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
        let enter = |peer: &str| per.enter(ClientAddress::of_peer(peer.parse().unwrap(), &[]));
        let held = [enter("192.0.2.1:1"), enter("[::ffff:192.0.2.1]:2"), enter("192.0.2.2:1")];
        assert!(held.iter().all(Option::is_some));
        assert!(enter("192.0.2.1:3").is_none());
        let network = [enter("[2001:db8::1]:1"), enter("[2001:db8::ffff:2]:1")];
        assert!(network.iter().all(Option::is_some));
        assert!(enter("[2001:db8::3]:1").is_none());
        assert!(enter("[2001:db8:0:1::3]:1").is_some());
        // Our own have no bound.
        let ours = [(); 3].map(|()| enter("127.0.0.1:1"));
        assert!(ours.iter().all(Option::is_some));
        drop((held, network, ours));
        assert!(enter("192.0.2.1:1").is_some());
        assert!(per.counts.lock().is_empty());
    }
}
