//! Request bodies that are on their way: begun, and not yet here as a whole.
//!
//! A body that comes in one piece with its head is never on its way. Any other may take as long as
//! its sender likes, up to `server.body_timeout_ms`, so it must not occupy what others wait for: a
//! slot of its class. It occupies a place here, of which each address has only some.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::client::ClientAddress;
use super::per_address::{OneOfAddress, PerAddress};
use super::problem::{ErrorCode, Problem};
use crate::config::ServerConfig;
use crate::metrics::{IntGauge, Limit, LimitLabel, Metrics, PerLimitCounter};

/// Whole seconds that a refused sender is asked to wait.
const RETRY_AFTER_SECONDS: u32 = 1;

/// The places of bodies on their way.
#[derive(Debug)]
pub(super) struct Bodies {
    max: usize,
    count: AtomicUsize,
    per_address: Arc<PerAddress>,
    level: IntGauge,
    refused: PerLimitCounter,
}

impl Bodies {
    pub(super) fn new(config: &ServerConfig, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            max: config.bodies_max,
            count: AtomicUsize::new(0),
            per_address: PerAddress::new(config.bodies_per_address_max),
            level: metrics.http_server_bodies.clone(),
            refused: metrics.http_server_bodies_refused.clone(),
        })
    }

    /// Takes a place for a body of this client.
    ///
    /// # Errors
    /// 429 where the client has as many as it may, 503 where all together have.
    pub(super) fn enter(self: &Arc<Self>, client: ClientAddress) -> Result<OnItsWay, Problem> {
        let refused = |code, limit| {
            self.refused.get_or_create(&LimitLabel { limit }).inc();
            // The rest of the body may still come, and nobody wants it.
            Problem::new(code).retry_after(RETRY_AFTER_SECONDS).closing()
        };
        let Some(one) = self.per_address.enter(client) else {
            return Err(refused(ErrorCode::TooManySlowBodies, Limit::Address));
        };
        // Counted first and compared afterwards: two cannot both take the last place.
        let place = OnItsWay { bodies: Arc::clone(self), _one: one };
        self.level.inc();
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.max {
            return Err(refused(ErrorCode::Overloaded, Limit::All)
                .detail("too many request bodies are on their way; send them with their heads"));
        }
        Ok(place)
    }
}

/// A place that is taken. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct OnItsWay {
    bodies: Arc<Bodies>,
    _one: OneOfAddress,
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.bodies.level.dec();
        self.bodies.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_and_all_together_have_a_bound() {
        let metrics = Metrics::new();
        let config =
            ServerConfig { bodies_max: 3, bodies_per_address_max: 2, ..ServerConfig::default() };
        let bodies = Bodies::new(&config, &metrics);
        let enter = |peer: &str| bodies.enter(ClientAddress::of_peer(peer.parse().unwrap(), &[]));
        let code = |refused: Result<OnItsWay, Problem>| refused.unwrap_err().code();
        let one = enter("192.0.2.1:1").unwrap();
        let two = enter("192.0.2.1:1").unwrap();
        assert_eq!(code(enter("192.0.2.1:1")), ErrorCode::TooManySlowBodies);
        let three = enter("192.0.2.2:1").unwrap();
        assert_eq!(code(enter("192.0.2.3:1")), ErrorCode::Overloaded);
        // Who is refused takes no place, neither of all nor of their address.
        assert_eq!(metrics.http_server_bodies.get(), 3);
        for limit in [Limit::All, Limit::Address] {
            let refused = metrics.http_server_bodies_refused.get_or_create(&LimitLabel { limit });
            assert_eq!(refused.get(), 1);
        }
        drop((one, three));
        drop([enter("192.0.2.3:1").unwrap(), enter("192.0.2.3:1").unwrap()]);
        drop(two);
        assert_eq!(metrics.http_server_bodies.get(), 0);
    }
}
