//! Who is signed in, as a cookie says it. The service keeps nothing of that: any instance can read it.

use std::time::Duration;

use base64_simd::URL_SAFE_NO_PAD as BASE64;
use boxoffice_domain::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How long somebody is signed in: a night, and not the next one. The docs promise it.
pub const LASTS: Duration = Duration::from_secs(12 * 3_600);

/// The time of its end, the mark of the token, and the tag, in bytes; the name is what is left.
const UNTIL: usize = 8;
const MARK: usize = 32;
const TAG: usize = 32;
/// Longer than any of ours; a longer one is refused unread.
const LENGTH_MAX: usize = 256;

/// Somebody who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The name of the operator.
    pub name: String,
    /// Stands for the token that they signed in with; see [`crate::operators::mark`].
    pub mark: [u8; MARK],
    /// Until when.
    pub until: Timestamp,
}

/// The keys of sessions: the one that signs, then those that are accepted.
pub struct Sessions(Vec<Hmac<Sha256>>);

/// The key of sessions that follows from the secret that tickets are signed with: all instances have it,
/// and it changes with that.
pub fn session_key(ticket_secret: &[u8]) -> [u8; 32] {
    tag(&new_mac(ticket_secret), &[b"boxoffice console session key"])
}

fn new_mac(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes a key of any length.
    #[allow(clippy::expect_used)]
    Hmac::<Sha256>::new_from_slice(key).expect("any length is a key")
}

fn tag(mac: &Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    let mac = parts.iter().fold(mac.clone(), |mac, part| mac.chain_update(part));
    mac.finalize().into_bytes().into()
}

impl Sessions {
    /// Sessions under these keys, of which the first one signs.
    pub fn new(keys: &[[u8; 32]]) -> Self {
        Self(keys.iter().map(|key| new_mac(key)).collect())
    }

    /// A session as a text that nobody else can make. None where there is no key.
    pub fn write(&self, session: &Session) -> Option<String> {
        let Session { name, mark, until } = session;
        let mut bytes = Vec::with_capacity(UNTIL + MARK + name.len() + TAG);
        bytes.extend_from_slice(&until.0.to_be_bytes());
        bytes.extend_from_slice(mark);
        bytes.extend_from_slice(name.as_bytes());
        let tag = tag(self.0.first()?, &[&bytes]);
        bytes.extend_from_slice(&tag);
        Some(BASE64.encode_to_string(bytes))
    }

    /// What such a text says; none where it is not one of ours, or over at `now`.
    pub fn read(&self, text: &str, now: Timestamp) -> Option<Session> {
        if text.len() > LENGTH_MAX {
            return None;
        }
        let bytes = BASE64.decode_to_vec(text).ok()?;
        let (said, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG)?)?;
        // In constant time, so that a tag cannot be found out byte by byte.
        let is_ours = |mac: &Hmac<Sha256>| mac.clone().chain_update(said).verify_slice(tag).is_ok();
        if !self.0.iter().any(is_ours) {
            return None;
        }
        let (until, said) = said.split_first_chunk::<UNTIL>()?;
        let (mark, name) = said.split_first_chunk::<MARK>()?;
        let until = Timestamp(i64::from_be_bytes(*until));
        let name = std::str::from_utf8(name).ok()?.to_owned();
        (now < until).then_some(Session { name, mark: *mark, until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn session() -> Session {
        Session { name: "desk-1".into(), mark: [7; 32], until: NOW.plus(LASTS) }
    }

    fn sessions(secrets: &[&[u8]]) -> Sessions {
        Sessions::new(&secrets.iter().map(|secret| session_key(secret)).collect::<Vec<_>>())
    }

    #[test]
    fn a_session_says_who_until_its_end() {
        let sessions = sessions(&[b"one"]);
        let text = sessions.write(&session()).unwrap();
        assert!(text.len() <= LENGTH_MAX && text.bytes().all(|b| b.is_ascii_graphic()), "{text}");
        assert_eq!(sessions.read(&text, NOW), Some(session()));
        assert_eq!(sessions.read(&text, Timestamp(session().until.0 - 1)), Some(session()));
        assert_eq!(sessions.read(&text, session().until), None);
        let longest = Session { name: "x".repeat(40), ..session() };
        assert!(sessions.write(&longest).unwrap().len() <= LENGTH_MAX);
    }

    #[test]
    fn keys_that_are_accepted_read_and_only_the_first_one_signs() {
        let before = sessions(&[b"one"]).write(&session()).unwrap();
        assert!(sessions(&[b"two", b"one"]).read(&before, NOW).is_some());
        assert!(sessions(&[b"two"]).read(&before, NOW).is_none());
        let after = sessions(&[b"two", b"one"]).write(&session()).unwrap();
        assert!(sessions(&[b"one"]).read(&after, NOW).is_none());
    }

    #[test]
    fn whatever_is_changed_in_it_makes_it_void() {
        let sessions = sessions(&[b"one"]);
        let text = sessions.write(&session()).unwrap();
        let bytes = BASE64.decode_to_vec(&text).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(sessions.read(&BASE64.encode_to_string(changed), NOW), None, "byte {at}");
        }
        for length in 0..bytes.len() {
            let cut = BASE64.encode_to_string(&bytes[..length]);
            assert_eq!(sessions.read(&cut, NOW), None, "{length} bytes");
        }
        for text in ["", "=", "a b", "€", &"A".repeat(10_000), &format!("{text}A")] {
            assert_eq!(sessions.read(text, NOW), None, "{text}");
        }
    }

    #[test]
    fn it_is_another_key_than_that_of_challenges() {
        let key = session_key(b"secret");
        assert_ne!(key.as_slice(), crate::challenge::challenge_key(b"secret").as_bytes());
        assert_ne!(key, session_key(b"secret2"));
    }
}
