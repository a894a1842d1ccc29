//! Ports of 127.0.0.1.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

/// Returns a free port that the kernel does not give to connections, so that a server that is down for a
/// moment finds it again. None is returned twice.
pub fn free_port() -> Result<u16, String> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first_of_kernel =
        range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    let mut given = GIVEN.lock().map_err(|_| "the list of ports is broken")?;
    for _ in 0..1_000 {
        let port = fastrand::u16(10_000..30_000);
        if port < first_of_kernel && !given.contains(&port) && bind(port).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    Err(format!("no free port between 10000 and {}", first_of_kernel.min(30_000)))
}

fn bind(port: u16) -> std::io::Result<()> {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).map(drop)
}

/// Refuses a port that somebody listens on.
pub fn require_free(port: u16) -> Result<(), String> {
    bind(port).map_err(|error| {
        format!(
            "port {port} of 127.0.0.1 is not free ({error}). Stop what listens there (`ss -ltnp 'sport = :{port}'` names \
             it) or choose another with --port; scripts that are hard-wired to a port need that one"
        )
    })
}

/// Whether somebody accepts connections there.
pub fn listens(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_refused() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(
            require_free(port)
                .unwrap_err()
                .contains(&format!("port {port} of 127.0.0.1 is not free"))
        );
        assert!(listens(port));
        drop(taken);
        require_free(port).unwrap();
    }

    #[test]
    fn no_port_is_given_twice_and_none_is_of_the_kernel() {
        let ports: Vec<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 50);
        assert!(ports.iter().all(|port| (10_000..32_768).contains(port)), "{ports:?}");
    }
}
