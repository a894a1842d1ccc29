//! Which address a request comes from: the peer's, or the one that a proxy of ours vouches for. And
//! whether it is a stranger's, whom limits apply to.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::describe::{Described, Description};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client. What stands before the router puts it into every request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientAddress {
    pub address: IpAddr,
    /// Of this machine, or of a trusted proxy that vouches for nobody else.
    pub is_ours: bool,
}

impl ClientAddress {
    /// The client of a request with these headers, which came from `peer`, where these proxies are
    /// trusted.
    pub(super) fn of(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let address = behind(peer.ip(), headers, trusted);
        Self { address, is_ours: is_ours(address, trusted) }
    }

    /// Whoever opened a connection.
    pub(super) fn of_peer(peer: SocketAddr, trusted: &[IpNet]) -> Self {
        Self { address: peer.ip(), is_ours: is_ours(peer.ip(), trusted) }
    }

    /// The client whom limits apply to: an IPv4 address, or an IPv6 /64, of which one customer has a
    /// whole. None where it is ours: who is on this machine can do worse, and a proxy that says nothing
    /// of its clients brings all of them.
    pub(super) fn stranger(self) -> Option<IpAddr> {
        if self.is_ours {
            return None;
        }
        Some(match self.address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }

    /// The client of a request that has come through the router.
    pub(super) fn within(parts: &Parts) -> Self {
        let unknown = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), is_ours: false };
        parts.extensions.get().copied().unwrap_or(unknown)
    }
}

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::within(parts))
    }
}

/// The peer's address comes with every connection.
impl Described for ClientAddress {
    fn describe(_: &mut Description) {}
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address.to_canonical()))
}

fn is_ours(address: IpAddr, trusted: &[IpNet]) -> bool {
    address.to_canonical().is_loopback() || is_trusted(address, trusted)
}

/// Each proxy appends the address that it was called from, so the list is read from its end, and
/// only as far as those who wrote it are trusted: what stands before that, anybody may have sent.
fn behind(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    if !is_trusted(peer, trusted) {
        // Nearly every join where no proxy is trusted: the header is not even looked for.
        return peer;
    }
    let mut client = peer;
    let lines = headers.get_all(X_FORWARDED_FOR).into_iter().rev();
    for hop in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
        if !is_trusted(client, trusted) {
            break;
        }
        match parse(hop) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// An address, with or without a port.
fn parse(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    text.parse().ok().or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_list_is_believed_as_far_as_its_writers_are() {
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "127.0.0.1/32"].map(|net| net.parse().unwrap()).into();
        for (peer, lines, expected) in [
            ("10.1.1.1", &[] as &[&str], "10.1.1.1"),
            ("10.1.1.1", &["1.2.3.4"], "1.2.3.4"),
            ("::ffff:10.1.1.1", &["1.2.3.4:5678"], "1.2.3.4"),
            ("10.1.1.1", &["[2001:db8::7]:443"], "2001:db8::7"),
            // Whoever comes without a proxy may write what they like.
            ("9.9.9.9", &["1.2.3.4"], "9.9.9.9"),
            // The client sent the first; our proxy appended the second.
            ("10.1.1.1", &["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
            // Two proxies of ours in a row, in one line and in two.
            ("127.0.0.1", &["6.6.6.6, 1.2.3.4, 10.2.2.2"], "1.2.3.4"),
            ("127.0.0.1", &["6.6.6.6", "1.2.3.4", " 10.2.2.2 "], "1.2.3.4"),
            // What cannot be read vouches for nobody.
            ("10.1.1.1", &["1.2.3.4, unknown"], "10.1.1.1"),
            ("10.1.1.1", &["1.2.3.4,"], "10.1.1.1"),
            ("10.1.1.1", &["10.3.3.3"], "10.3.3.3"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
            }
            let client = behind(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_bytes(b"1.2.3.4, \xff").unwrap());
        let peer = "10.1.1.1".parse().unwrap();
        assert_eq!(behind(peer, &headers, &trusted), peer);
        assert_eq!(behind(peer, &headers, &[]), peer);
    }

    #[test]
    fn strangers_are_addresses_and_networks_that_are_not_ours() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        for (peer, expected) in [
            ("192.0.2.1:1", Some("192.0.2.1")),
            ("[::ffff:192.0.2.1]:1", Some("192.0.2.1")),
            ("[2001:db8:1:2:ffff::9]:1", Some("2001:db8:1:2::")),
            ("127.0.0.1:1", None),
            ("127.8.8.8:1", None),
            ("[::1]:1", None),
            ("[::ffff:127.0.0.1]:1", None),
            ("10.1.1.1:1", None),
        ] {
            let client = ClientAddress::of_peer(peer.parse().unwrap(), &trusted);
            let expected = expected.map(|address| address.parse::<IpAddr>().unwrap());
            assert_eq!(client.stranger(), expected, "{peer}");
        }
        let mut headers = HeaderMap::new();
        let of = |headers: &HeaderMap| {
            ClientAddress::of("10.1.1.1:1".parse().unwrap(), headers, &trusted).stranger()
        };
        assert_eq!(of(&headers), None);
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("127.0.0.1, 192.0.2.1"));
        assert_eq!(of(&headers), Some("192.0.2.1".parse().unwrap()));
    }
}
