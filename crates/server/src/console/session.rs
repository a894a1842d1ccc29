//! Who is signed in, as a cookie says it. The service keeps nothing of that: any instance can read it.
//!
//! A cookie has the token that it stands for, encrypted. A signature over a name would do for who has the cookie, but
//! the key is in the store and so in each backup, beside the names of all operators: whoever found one could sign in.
//! No token is in there.

use std::time::Duration;

use base64_simd::URL_SAFE_NO_PAD as BASE64;
use boxoffice_domain::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::Sha256;

use crate::operators::digest;

/// How long somebody is signed in: a night, and not the next one. The docs promise it.
pub const LASTS: Duration = Duration::from_secs(12 * 3_600);
/// The longest token that a cookie has room for, in bytes.
pub const TOKEN_MAX: usize = 2_000;

/// The time of its end, in bytes; the token is what is left.
const UNTIL: usize = 8;
/// Longer than any of ours; a longer one is refused unread.
const LENGTH_MAX: usize = 3_000;

/// Somebody who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The digest of their token.
    pub digest: [u8; 32],
    /// Until when.
    pub until: Timestamp,
}

/// The keys of sessions: the one that writes them, then those that are accepted.
pub struct Sessions(Vec<LessSafeKey>);

/// The key of sessions that follows from the secret that tickets are signed with: all instances have it,
/// and it changes with that.
pub fn session_key(ticket_secret: &[u8]) -> [u8; 32] {
    // HMAC takes a key of any length.
    #[allow(clippy::expect_used)]
    let mac = Hmac::<Sha256>::new_from_slice(ticket_secret).expect("any length is a key");
    mac.chain_update(b"boxoffice console session key").finalize().into_bytes().into()
}

impl Sessions {
    /// Sessions under these keys, of which the first one writes.
    pub fn new(keys: &[[u8; 32]]) -> Self {
        let keys = keys.iter().filter_map(|key| UnboundKey::new(&CHACHA20_POLY1305, key).ok());
        Self(keys.map(LessSafeKey::new).collect())
    }

    /// A session as a text that nobody else can make. None where the token is too long, or there is no
    /// randomness to be had.
    pub fn write(&self, token: &str, until: Timestamp) -> Option<String> {
        if token.len() > TOKEN_MAX {
            return None;
        }
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut said = until.0.to_be_bytes().to_vec();
        said.extend_from_slice(token.as_bytes());
        let by = Nonce::assume_unique_for_key(nonce);
        self.0.first()?.seal_in_place_append_tag(by, Aad::empty(), &mut said).ok()?;
        Some(BASE64.encode_to_string([&nonce[..], &said].concat()))
    }

    /// What such a text says; none where it is not one of ours, or over at `now`.
    pub fn read(&self, text: &str, now: Timestamp) -> Option<Session> {
        if text.len() > LENGTH_MAX {
            return None;
        }
        let bytes = BASE64.decode_to_vec(text).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        self.0.iter().find_map(|key| {
            let mut sealed = sealed.to_vec();
            let by = Nonce::assume_unique_for_key(*nonce);
            let said = key.open_in_place(by, Aad::empty(), &mut sealed).ok()?;
            let (until, token) = said.split_first_chunk::<UNTIL>()?;
            let until = Timestamp(i64::from_be_bytes(*until));
            let token = std::str::from_utf8(token).ok()?;
            (now < until).then(|| Session { digest: digest(token), until })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const UNTIL: Timestamp = Timestamp(1_800_000_600_000);
    const TOKEN: &str = "bxo_0123456789abcdef";

    fn sessions(secrets: &[&[u8]]) -> Sessions {
        Sessions::new(&secrets.iter().map(|secret| session_key(secret)).collect::<Vec<_>>())
    }

    fn session() -> Session {
        Session { digest: digest(TOKEN), until: UNTIL }
    }

    #[test]
    fn a_session_says_whose_token_it_is_until_its_end() {
        let sessions = sessions(&[b"one"]);
        let text = sessions.write(TOKEN, UNTIL).unwrap();
        assert!(text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains("bxo"), "{text}");
        assert_eq!(sessions.read(&text, NOW), Some(session()));
        assert_eq!(sessions.read(&text, Timestamp(UNTIL.0 - 1)), Some(session()));
        assert_eq!(sessions.read(&text, UNTIL), None);
        assert_ne!(sessions.write(TOKEN, UNTIL).unwrap(), text);
        let longest = "x".repeat(TOKEN_MAX);
        let text = sessions.write(&longest, UNTIL).unwrap();
        assert_eq!(sessions.read(&text, NOW).unwrap().digest, digest(&longest));
        assert_eq!(sessions.write(&format!("{longest}x"), UNTIL), None);
    }

    #[test]
    fn keys_that_are_accepted_read_and_only_the_first_one_writes() {
        let before = sessions(&[b"one"]).write(TOKEN, UNTIL).unwrap();
        assert_eq!(sessions(&[b"two", b"one"]).read(&before, NOW), Some(session()));
        assert_eq!(sessions(&[b"two"]).read(&before, NOW), None);
        let after = sessions(&[b"two", b"one"]).write(TOKEN, UNTIL).unwrap();
        assert_eq!(sessions(&[b"one"]).read(&after, NOW), None);
        assert_eq!(sessions(&[]).write(TOKEN, UNTIL), None);
    }

    #[test]
    fn whatever_is_changed_in_it_makes_it_void() {
        let sessions = sessions(&[b"one"]);
        let text = sessions.write(TOKEN, UNTIL).unwrap();
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
