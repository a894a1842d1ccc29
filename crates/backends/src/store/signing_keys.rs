//! The keys that the service signs with for others to check: passes, and what it proves. All instances
//! share them.
//!
//! What does not belong here: signing.

use std::fmt;

use boxoffice_domain::time::Timestamp;

/// The setting that has them.
pub(super) const SIGNING_KEYS: &str = "signing.keys";
/// So many are kept; the oldest go first, which have been of no use for long.
const KEYS_MAX: usize = 200;

/// An Ed25519 key.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// What it is called: 1 to 64 of letters, digits, `-` and `_`.
    pub id: String,
    /// The public half.
    pub public: [u8; 32],
    /// The secret half; `None` once nothing is to be signed with it any more.
    pub seed: Option<[u8; 32]>,
    /// From when on it signs.
    pub signs_from: Timestamp,
    /// Whether nothing that is signed with it counts any more, because others may have it.
    pub is_withdrawn: bool,
}

/// The secret half is in no log.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .field("has_seed", &self.seed.is_some())
            .field("signs_from", &self.signs_from)
            .field("is_withdrawn", &self.is_withdrawn)
            .finish_non_exhaustive()
    }
}

/// A change of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The new key.
    pub key: SigningKey,
    /// Whether all others are withdrawn.
    pub withdraws: bool,
    /// The keys whose secret halves are of no use any more, by their ids.
    pub forgotten: Vec<String>,
}

/// The keys of a store, in the order in which they were made. Of those that have begun to sign, the one
/// that was made last signs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigningRing(Vec<SigningKey>);

impl SigningRing {
    /// The keys, the oldest first.
    pub fn keys(&self) -> &[SigningKey] {
        &self.0
    }

    /// The ring with one key.
    pub fn of(key: SigningKey) -> Self {
        Self(vec![key])
    }

    /// The ring after a change. The same change again changes nothing.
    pub(super) fn rotated(&self, rotation: &Rotation) -> Self {
        let Rotation { key, withdraws, forgotten } = rotation;
        let mut ring = self.clone();
        if ring.0.iter().any(|known| known.id == key.id) {
            return ring;
        }
        for known in &mut ring.0 {
            known.is_withdrawn |= withdraws;
            if known.is_withdrawn || forgotten.contains(&known.id) {
                known.seed = None;
            }
        }
        ring.0.push(key.clone());
        let beyond = ring.0.len().saturating_sub(KEYS_MAX);
        ring.0.drain(..beyond);
        ring
    }

    /// As text for the store: a key in a line, with its id, from when on it signs, its public half, its
    /// secret half or `-`, and `good` or `withdrawn`.
    pub(super) fn to_text(&self) -> String {
        let line = |key: &SigningKey| {
            let seed = key.seed.map_or("-".to_owned(), |seed| hex(&seed));
            let state = if key.is_withdrawn { "withdrawn" } else { "good" };
            format!("{} {} {} {seed} {state}\n", key.id, key.signs_from.0, hex(&key.public))
        };
        self.0.iter().map(line).collect()
    }

    /// What was stored as text. `None` where it makes no sense.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let key = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let [id, signs_from, public, seed, state] = words[..] else { return None };
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            let is_id = (1..=64).contains(&id.len()) && id.bytes().all(plain);
            is_id.then_some(SigningKey {
                id: id.to_owned(),
                public: unhex(public)?,
                seed: if seed == "-" { None } else { Some(unhex(seed)?) },
                signs_from: Timestamp(signs_from.parse().ok()?),
                is_withdrawn: match state {
                    "good" => false,
                    "withdrawn" => true,
                    _ => return None,
                },
            })
        };
        text.lines().map(key).collect::<Option<_>>().map(Self)
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, fill: u8) -> SigningKey {
        SigningKey {
            id: id.into(),
            public: [fill; 32],
            seed: Some([fill ^ 0xff; 32]),
            signs_from: Timestamp(i64::from(fill)),
            is_withdrawn: false,
        }
    }

    fn rotation(key: SigningKey, withdraws: bool) -> Rotation {
        Rotation { key, withdraws, forgotten: Vec::new() }
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let ring = SigningRing::of(key("a", 1))
            .rotated(&rotation(key("b-_9", 2), true))
            .rotated(&rotation(key("c", 255), false));
        assert_eq!(SigningRing::from_text(&ring.to_text()), Some(ring.clone()));
        assert_eq!(SigningRing::from_text(""), Some(SigningRing::default()));
        let good = ring.to_text();
        let last = good.lines().last().unwrap_or_default();
        for wrong in [
            last.replace("c ", " "),
            last.replace("c ", "ü "),
            last.replace("255", "x"),
            last.replace("ff", "f"),
            last.replace("ff", "+f"),
            last.replace("good", "fine"),
            format!("{last} more"),
        ] {
            assert_eq!(SigningRing::from_text(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_change_of_keys_keeps_what_others_may_still_check() {
        let ring = SigningRing::of(key("a", 1)).rotated(&rotation(key("b", 2), false));
        let change = Rotation {
            key: key("c", 3),
            withdraws: false,
            forgotten: vec!["a".into(), "unknown".into()],
        };
        let changed = ring.rotated(&change);
        let told = |ring: &SigningRing| -> Vec<(String, bool, bool)> {
            let key = |key: &SigningKey| (key.id.clone(), key.seed.is_some(), key.is_withdrawn);
            ring.keys().iter().map(key).collect()
        };
        let is = |id: &str, has_seed, is_withdrawn| (id.to_owned(), has_seed, is_withdrawn);
        assert_eq!(
            told(&changed),
            [is("a", false, false), is("b", true, false), is("c", true, false)]
        );
        assert_eq!(changed.rotated(&change), changed, "once");
        let stolen = changed.rotated(&rotation(key("d", 4), true));
        assert_eq!(
            told(&stolen),
            [
                is("a", false, true),
                is("b", false, true),
                is("c", false, true),
                is("d", true, false)
            ]
        );
        let many = (0..=255).fold(SigningRing::default(), |ring, n| {
            ring.rotated(&rotation(key(&format!("k{n}"), n), false))
        });
        assert_eq!((many.keys().len(), many.keys()[0].id.as_str()), (KEYS_MAX, "k56"));
    }

    #[test]
    fn a_key_keeps_its_secret() {
        let text = format!("{:?} {:?}", key("a", 1), rotation(key("b", 1), true));
        assert!(text.contains("\"a\"") && !text.contains("254"), "{text}");
    }
}
