//! Signed tickets: JSON Web Tokens (RFC 7519) with HMAC-SHA-256.
//!
//! A token is made and checked on the hottest paths, and its header is always one of ours, so the
//! header is compared as text and its part of the MAC is computed once. What is signed is plain
//! JWT all the same: a test reads one the way RFC 7515 says, without any of this.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use boxoffice_domain::ids::{QueueName, TicketId, UserId};
use boxoffice_domain::queue::Ticket;
use boxoffice_domain::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Longer than any token of ours; a longer one is refused unread.
const TOKEN_LENGTH_MAX: usize = 512;

/// The first characters of every signed token: the Base64 of `{"`.
const SIGNED_PREFIX: &str = "eyJ";

/// Whether the text could be a signed token. Opaque tokens must not look like one.
pub fn looks_signed(token: &str) -> bool {
    token.starts_with(SIGNED_PREFIX)
}

/// The keys that tickets are signed and checked with.
pub struct TicketKeys {
    signing: Key,
    previous: Vec<Key>,
}

struct Key {
    id: String,
    /// `header.` in Base64, as it stands at the start of every token under this key.
    prefix: String,
    /// The MAC with the prefix already in it.
    mac: Hmac<Sha256>,
}

/// The token is not one of ours, or was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

impl Key {
    fn new(secret: &[u8]) -> Self {
        let id = key_id(secret);
        let header = format!(r#"{{"alg":"HS256","typ":"JWT","kid":"{id}"}}"#);
        let prefix = format!("{}.", BASE64.encode(header));
        // HMAC takes a key of any length.
        #[allow(clippy::expect_used)]
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length is a key");
        mac.update(prefix.as_bytes());
        Self { id, prefix, mac }
    }
}

/// A name for a key that tells nothing about it.
pub fn key_id(secret: &[u8]) -> String {
    let digest = Sha256::new().chain_update(b"boxoffice key id").chain_update(secret).finalize();
    digest[..4].iter().fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

impl TicketKeys {
    /// Signs with `signing` and also accepts what was signed with any of `previous`.
    pub fn new<'a>(signing: &[u8], previous: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self { signing: Key::new(signing), previous: previous.into_iter().map(Key::new).collect() }
    }

    /// The id of the key that signs.
    pub fn signing_id(&self) -> &str {
        &self.signing.id
    }

    /// The ids of all keys: the one that signs, then the others.
    pub fn ids(&self) -> Vec<String> {
        let all = std::iter::once(&self.signing).chain(&self.previous);
        all.map(|key| key.id.clone()).collect()
    }

    /// Whether tokens under the key with this id are accepted.
    pub fn knows(&self, id: &str) -> bool {
        self.signing.id == id || self.previous.iter().any(|key| key.id == id)
    }

    /// The ticket as a token. The claims are `sub` the user, `q` the queue, `seq` the number, `iat`
    /// the second of issue, `ms` the milliseconds beyond it, and `jti` the unique id in Base64.
    pub fn sign(&self, ticket: &Ticket) -> String {
        // No text in it needs escaping: a queue's name is letters, digits, `-` and `_`.
        let (mut number, at) = (itoa::Buffer::new(), ticket.issued_at.0);
        let mut claims = String::with_capacity(TOKEN_LENGTH_MAX / 2);
        claims.push_str(r#"{"sub":""#);
        claims.push_str(number.format(ticket.user.get()));
        claims.push_str(r#"","q":""#);
        claims.push_str(ticket.queue.as_str());
        claims.push_str(r#"","seq":"#);
        claims.push_str(number.format(ticket.seq));
        claims.push_str(r#","iat":"#);
        claims.push_str(number.format(at.div_euclid(1000)));
        claims.push_str(r#","ms":"#);
        claims.push_str(number.format(at.rem_euclid(1000)));
        claims.push_str(r#","jti":""#);
        BASE64.encode_string(ticket.id.0, &mut claims);
        claims.push_str(r#""}"#);
        let mut token = String::with_capacity(TOKEN_LENGTH_MAX / 2);
        token.push_str(&self.signing.prefix);
        BASE64.encode_string(claims, &mut token);
        let mut mac = self.signing.mac.clone();
        mac.update(&token.as_bytes()[self.signing.prefix.len()..]);
        token.push('.');
        BASE64.encode_string(mac.finalize().into_bytes(), &mut token);
        token
    }

    /// The ticket in a token.
    ///
    /// # Errors
    /// [`Forged`] for anything that [`TicketKeys::sign`] has not made under a known key.
    pub fn verify(&self, token: &str) -> Result<Ticket, Forged> {
        if token.len() > TOKEN_LENGTH_MAX {
            return Err(Forged);
        }
        let keys = std::iter::once(&self.signing).chain(&self.previous);
        let (key, rest) = keys
            .filter_map(|key| token.strip_prefix(key.prefix.as_str()).map(|rest| (key, rest)))
            .next()
            .ok_or(Forged)?;
        let (claims, signature) = rest.split_once('.').ok_or(Forged)?;
        let mut tag = [0; 32];
        let length = BASE64.decode_slice(signature, &mut tag).map_err(|_| Forged)?;
        let mut mac = key.mac.clone();
        mac.update(claims.as_bytes());
        // In constant time, so that a tag cannot be found out byte by byte.
        mac.verify_slice(&tag[..length]).map_err(|_| Forged)?;
        let mut buffer = [0; TOKEN_LENGTH_MAX];
        let length = BASE64.decode_slice(claims, &mut buffer).map_err(|_| Forged)?;
        let claims = std::str::from_utf8(&buffer[..length]).map_err(|_| Forged)?;
        // The signature says that we wrote this, so it has exactly the form in which we write it.
        parse_claims(claims).ok_or(Forged)
    }
}

fn parse_claims(claims: &str) -> Option<Ticket> {
    let (user, rest) = claims.strip_prefix(r#"{"sub":""#)?.split_once('"')?;
    let (queue, rest) = rest.strip_prefix(r#","q":""#)?.split_once('"')?;
    let (seq, rest) = rest.strip_prefix(r#","seq":"#)?.split_once(',')?;
    let (seconds, rest) = rest.strip_prefix(r#""iat":"#)?.split_once(',')?;
    let (ms, rest) = rest.strip_prefix(r#""ms":"#)?.split_once(',')?;
    let id = rest.strip_prefix(r#""jti":""#)?.strip_suffix(r#""}"#)?;
    let mut bytes = [0; 16];
    // Shorter is not ours; longer does not fit.
    if BASE64.decode_slice(id, &mut bytes) != Ok(bytes.len()) {
        return None;
    }
    let issued_ms = seconds.parse::<i64>().ok()?.checked_mul(1000)?;
    Some(Ticket {
        queue: QueueName::new(queue)?,
        seq: seq.parse().ok()?,
        user: user.parse().ok().and_then(UserId::new)?,
        issued_at: Timestamp(issued_ms.checked_add(ms.parse().ok()?)?),
        id: TicketId(bytes),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket(seq: u64, user: i64, id: u128) -> Ticket {
        Ticket {
            queue: QueueName::new("main").unwrap(),
            seq,
            user: UserId::new(user).unwrap(),
            issued_at: Timestamp(1_763_800_000_123),
            id: TicketId(id.to_be_bytes()),
        }
    }

    fn keys() -> TicketKeys {
        TicketKeys::new(b"0123456789abcdef0123456789abcdef", [])
    }

    proptest! {
        #[test]
        fn what_is_signed_is_read_back(seq: u64, user in 1..=i64::MAX, id: u128) {
            let token = keys().sign(&ticket(seq, user, id));
            prop_assert!(token.len() <= TOKEN_LENGTH_MAX && looks_signed(&token));
            prop_assert_eq!(keys().verify(&token), Ok(ticket(seq, user, id)));
        }

        #[test]
        fn any_change_is_forgery(at: prop::sample::Index, byte in 33_u8..127) {
            let token = keys().sign(&ticket(7, 3, 9));
            let mut bytes = token.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(keys().verify(&changed).is_ok(), changed == token);
        }

        #[test]
        fn any_cut_or_addition_is_forgery(cut in 0_usize..200, more in "[!-~]{1,20}") {
            let token = keys().sign(&ticket(7, 3, 9));
            prop_assert!(keys().verify(&token[..cut.min(token.len() - 1)]).is_err());
            let (behind, before) = (format!("{token}{more}"), format!("{more}{token}"));
            prop_assert!(keys().verify(&behind).is_err());
            prop_assert!(keys().verify(&before).is_err());
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,600}") {
            prop_assert!(keys().verify(&text).is_err());
        }
    }

    #[test]
    fn a_token_is_a_plain_jwt() {
        let token = keys().sign(&ticket(7, 3, 9));
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else { panic!("three parts: {token}") };
        let json = |part: &str| -> serde_json::Value {
            serde_json::from_slice(&BASE64.decode(part).unwrap()).unwrap()
        };
        assert_eq!(json(header)["alg"], "HS256");
        assert_eq!(json(header)["kid"], keys().signing_id());
        let claims_read = json(claims);
        assert_eq!(claims_read["sub"], "3");
        assert_eq!(claims_read["seq"], 7);
        assert_eq!(claims_read["iat"], 1_763_800_000);
        let mut mac = Hmac::<Sha256>::new_from_slice(b"0123456789abcdef0123456789abcdef").unwrap();
        mac.update(format!("{header}.{claims}").as_bytes());
        assert_eq!(BASE64.decode(signature).unwrap(), mac.finalize().into_bytes().as_slice());
    }

    #[test]
    fn keys_can_be_rotated() {
        let old = keys();
        let token = old.sign(&ticket(1, 1, 1));
        let secret: &[u8] = b"0123456789abcdef0123456789abcdef";
        let new = TicketKeys::new(b"another key of thirty-two bytes!", [secret]);
        assert!(new.verify(&token).is_ok());
        assert!(new.knows(old.signing_id()));
        assert_ne!(new.signing_id(), old.signing_id());
        assert!(old.verify(&new.sign(&ticket(1, 1, 1))).is_err());
    }

    #[test]
    fn another_algorithm_in_the_header_is_forgery() {
        let none = BASE64.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let claims = keys().sign(&ticket(1, 1, 1)).split('.').nth(1).unwrap().to_owned();
        assert_eq!(keys().verify(&format!("{none}.{claims}.")), Err(Forged));
    }
}
