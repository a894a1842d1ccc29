//! The cookies of people who sign in: JSON in Base64, and a MAC over it.
//!
//! The MAC (HMAC-SHA-256) is under a key that is derived from that of tickets, so every instance can open what
//! another sealed, and nobody else can make one. It is over the kind of the cookie, the issuer and the client,
//! too: what was sealed for another is of no use here. It is over the epoch of the store as well, because after
//! a restore an id may be given to somebody else.

use base64_simd::URL_SAFE_NO_PAD as BASE64;
use boxoffice_domain::ids::UserId;
use boxoffice_domain::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::tickets::SigningKeys;

/// The longest cookie, in bytes; browsers keep 4,096.
const LENGTH_MAX: usize = 3_072;
/// The Base64 of a MAC.
const TAG_LENGTH: usize = 43;

/// Somebody who is signed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Who, see [`Identity::user`].
    #[serde(rename = "u")]
    pub(super) user: i64,
    /// What to call them; empty where the issuer does not say.
    #[serde(rename = "n")]
    pub name: String,
    /// Until when, in milliseconds since 1970.
    #[serde(rename = "x")]
    pub until: i64,
}

/// Somebody who was sent to the issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// What the issuer is to send back, so that no other browser can bring a code along.
    #[serde(rename = "s")]
    pub state: String,
    /// What the ID token is to say, so that it is of this sign-in.
    #[serde(rename = "n")]
    pub nonce: String,
    /// What shows that the code was asked for here.
    #[serde(rename = "v")]
    pub verifier: String,
    /// Where to go on.
    #[serde(rename = "b")]
    pub back: String,
    /// Until when, in milliseconds since 1970.
    #[serde(rename = "x")]
    pub until: i64,
}

impl Identity {
    /// Who it is.
    pub fn user(&self) -> Option<UserId> {
        UserId::new(self.user)
    }
}

/// What is sealed in a cookie.
pub trait Sealed: Serialize + DeserializeOwned {
    /// Tells it from what is sealed in others.
    const KIND: &'static str;

    /// Until when it is good, in milliseconds since 1970.
    fn until(&self) -> i64;
}

impl Sealed for Identity {
    const KIND: &'static str = "identity";

    fn until(&self) -> i64 {
        self.until
    }
}

impl Sealed for Login {
    const KIND: &'static str = "login";

    fn until(&self) -> i64 {
        self.until
    }
}

/// Seals cookies and opens them.
pub struct Cookies {
    /// The one that seals, then the others.
    keys: Vec<Hmac<Sha256>>,
}

impl Cookies {
    /// For the clients of an issuer.
    pub(super) fn new(tickets: &SigningKeys, issuer: &str, client: &str) -> Self {
        let key = |secret: &[u8; 32]| {
            // HMAC takes a key of any length.
            #[allow(clippy::expect_used)]
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length is a key");
            for part in [issuer, client] {
                mac.update(&(part.len() as u64).to_be_bytes());
                mac.update(part.as_bytes());
            }
            mac.update(&tickets.epoch().to_be_bytes());
            mac
        };
        Self { keys: tickets.cookie_keys().iter().map(key).collect() }
    }

    /// Writes what a cookie is to say.
    pub fn seal<T: Sealed>(&self, what: &T) -> String {
        // Only maps with text keys are in it, so it always serialises.
        let json = serde_json::to_vec(what).unwrap_or_default();
        let mut text = BASE64.encode_to_string(json);
        if let Some(key) = self.keys.first() {
            let tag = tagged::<T>(key, text.as_bytes()).finalize().into_bytes();
            text.push('.');
            BASE64.encode_append(tag, &mut text);
        }
        text
    }

    /// What a cookie says, if it was sealed here and is good at `now`.
    pub fn open<T: Sealed>(&self, text: &[u8], now: Timestamp) -> Option<T> {
        if text.len() > LENGTH_MAX {
            return None;
        }
        let at = text.len().checked_sub(TAG_LENGTH + 1)?;
        let (sealed, tag) = text.split_at(at);
        let tag = BASE64.decode_to_vec(tag.strip_prefix(b".")?).ok()?;
        let is_ours = |key: &Hmac<Sha256>| tagged::<T>(key, sealed).verify_slice(&tag).is_ok();
        if !self.keys.iter().any(is_ours) {
            return None;
        }
        let json = BASE64.decode_to_vec(sealed).ok()?;
        let what: T = serde_json::from_slice(&json).ok()?;
        (now.0 < what.until()).then_some(what)
    }
}

fn tagged<T: Sealed>(key: &Hmac<Sha256>, text: &[u8]) -> Hmac<Sha256> {
    key.clone().chain_update(T::KIND).chain_update(b"\n").chain_update(text)
}

#[cfg(test)]
mod tests {
    use boxoffice_backends::store::Epochs;
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_763_800_000_000);
    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    const OTHER: &[u8] = b"another key of thirty-two bytes!";

    fn cookies() -> Cookies {
        Cookies::new(&SigningKeys::new(KEY, []), "https://id.example", "pages")
    }

    fn identity(name: &str) -> Identity {
        Identity { user: 17, name: name.to_owned(), until: NOW.0 + 1_000 }
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_read_back(name in "\\PC{0,60}", user in 1..=i64::MAX) {
            let identity = Identity { user, ..identity(&name) };
            let sealed = cookies().seal(&identity);
            // A cookie's value, and short enough.
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            prop_assert!(sealed.bytes().all(is_plain) && sealed.len() <= 1_024);
            prop_assert_eq!(cookies().open::<Identity>(sealed.as_bytes(), NOW), Some(identity));
        }

        #[test]
        fn any_change_is_found_out(at: prop::sample::Index, byte in 33_u8..127, cut: prop::sample::Index) {
            let sealed = cookies().seal(&identity("Kim")).into_bytes();
            let mut changed = sealed.clone();
            let at = at.index(changed.len());
            changed[at] = byte;
            let opened = cookies().open::<Identity>(&changed, NOW);
            prop_assert_eq!(opened.is_some(), changed == sealed);
            prop_assert_eq!(cookies().open::<Identity>(&sealed[..cut.index(sealed.len())], NOW), None);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..3_000)) {
            prop_assert_eq!(cookies().open::<Identity>(&bytes, NOW), None);
            prop_assert_eq!(cookies().open::<Login>(&bytes, NOW), None);
        }
    }

    #[test]
    fn it_ends() {
        let sealed = cookies().seal(&identity("Kim"));
        let at = |now: i64| cookies().open::<Identity>(sealed.as_bytes(), Timestamp(now));
        assert!(at(NOW.0 + 999).is_some());
        assert_eq!(at(NOW.0 + 1_000), None);
    }

    #[test]
    fn what_was_sealed_for_another_end_is_of_no_use() {
        let sealed = cookies().seal(&identity("Kim"));
        let open = |cookies: &Cookies| cookies.open::<Identity>(sealed.as_bytes(), NOW);
        let with = |keys: SigningKeys, issuer, client| Cookies::new(&keys, issuer, client);
        let (issuer, client) = ("https://id.example", "pages");
        let ours = || SigningKeys::new(KEY, []);
        let epochs = Epochs::default().with(7, []).unwrap();
        for (other, what) in [
            (with(SigningKeys::new(OTHER, []), issuer, client), "key"),
            (with(ours(), "https://id.examplf", client), "issuer"),
            (with(ours(), issuer, "shop"), "client"),
            (with(ours(), "https://id.examplepa", "ges"), "where the issuer ends"),
            (with(ours().within(epochs), issuer, client), "epoch"),
        ] {
            assert_eq!(open(&other), None, "another {what}");
        }
        // Keys change, and those before are accepted for as long as they are configured.
        assert!(open(&with(SigningKeys::new(OTHER, [KEY]), issuer, client)).is_some());
        let login = Login {
            state: "s".into(),
            nonce: "n".into(),
            verifier: "v".into(),
            back: "/".into(),
            until: NOW.0 + 1_000,
        };
        let login = cookies().seal(&login);
        assert!(cookies().open::<Login>(login.as_bytes(), NOW).is_some());
        assert_eq!(cookies().open::<Identity>(login.as_bytes(), NOW), None);
        assert_eq!(cookies().open::<Login>(sealed.as_bytes(), NOW), None);
    }
}
