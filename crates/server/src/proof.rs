//! The admission log for others to check: records and heads as text, and an export in a file. How to check it
//! is in `docs/proof.md`.
//!
//! What does not belong here: the rules that it is held against (`queue::Replay` of the domain), and the
//! digests (`store::Digest`).

pub mod export;
pub mod verify;

use std::io;

use base64_simd::URL_SAFE_NO_PAD as BASE64;
use boxoffice_backends::events::{from_rfc3339, rfc3339};
use boxoffice_backends::store::{Digest, Head, Link};
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{Admitted, Drawing, Drawn, Entry, Record, Runs, Standing, Terms};
use boxoffice_domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::signing::{ServiceKeys, SignedText};

/// What a signed head says to be in its header, so that it passes for nothing else that is signed with the
/// same key.
const HEAD_TYPE: &str = "boxoffice-head+jwt";
/// The longest head, in characters.
const HEAD_LENGTH_MAX: usize = 1_024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RecordKind {
    /// Says where the queue stands: at the beginning, and once a day.
    Stands,
    /// A step of admission.
    Admitted,
    /// Rate, bound, opening or pause have changed.
    Changed,
    /// The store was put back from a backup.
    Restored,
    /// Times that had been in the future were taken back.
    SetBack,
    /// Those who joined before the opening were drawn.
    Drawn,
    /// After a restore the seed of the draw to come is another one.
    Committed,
}

/// An opening draw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordDraw {
    /// The digest of the seed, in hexadecimal. Not in `DRAWN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commitment: Option<String>,
    /// How many numbers were drawn: those from 1 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The seed, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
}

impl RecordDraw {
    fn of(commitment: Option<[u8; 32]>, drawn: Option<Drawn>) -> Self {
        let hex = |bytes| Digest(bytes).to_string();
        Self {
            commitment: commitment.map(hex),
            count: drawn.map(|drawn| drawn.count),
            seed: drawn.map(|drawn| hex(drawn.seed)),
        }
    }

    fn commitment(&self) -> Option<[u8; 32]> {
        Digest::from_hex(self.commitment.as_ref()?).map(|digest| digest.0)
    }

    fn drawn(&self) -> Option<Drawn> {
        let seed = Digest::from_hex(self.seed.as_ref()?)?;
        Some(Drawn { count: self.count?, seed: seed.0 })
    }

    fn drawing(&self) -> Option<Drawing> {
        Some(Drawing { commitment: self.commitment()?, drawn: self.drawn() })
    }
}

/// How a queue admits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordTerms {
    /// Admissions a second.
    pub admit_per_second: f64,
    /// How many may be active at once; null for no bound.
    #[schema(required, nullable)]
    pub max_active: Option<u64>,
    /// Nobody is let in before; null for no such moment.
    #[schema(required, nullable, format = DateTime)]
    pub opens_at: Option<String>,
    /// Nobody is let in while this is so.
    pub paused: bool,
}

/// A record of the admission log. Sets of numbers are runs: the first and the last number of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoggedRecord {
    /// Its number; each is one more than that before.
    pub number: u64,
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: RecordKind,
    /// `ADMITTED`: the highest number that had its turn before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// `ADMITTED`: the highest number that has had its turn now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upto: Option<u64>,
    /// `STANDS`: the highest number that had its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<u64>,
    /// `ADMITTED`: those between whose owners were absent. `STANDS`: those whose owners were, and who were not
    /// let in since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<Vec<(u64, u64)>>,
    /// `ADMITTED`: those between whose owners had left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Vec<(u64, u64)>>,
    /// `ADMITTED`: those who had been passed over before and were let in now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned: Option<Vec<(u64, u64)>>,
    /// `STANDS`, `CHANGED`: how the queue admits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<RecordTerms>,
    /// `RESTORED`: the id of the epoch that began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// `STANDS`, `DRAWN`, `COMMITTED`: the opening draw, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draw: Option<RecordDraw>,
    /// SHA-256 of the digest before and the bytes of this record, in hexadecimal digits.
    pub digest: String,
}

fn runs_out(runs: &Runs) -> Option<Vec<(u64, u64)>> {
    Some(runs.iter().collect())
}

fn runs_in(pairs: &[(u64, u64)]) -> Option<Runs> {
    let mut runs = Runs::new();
    pairs.iter().all(|(first, last)| runs.add(*first, *last)).then_some(runs)
}

impl From<&Terms> for RecordTerms {
    fn from(terms: &Terms) -> Self {
        // Rates are up to a million, and count to the thousandth.
        #[allow(clippy::cast_precision_loss)]
        let admit_per_second = terms.rate_milli as f64 / 1000.0;
        Self {
            admit_per_second,
            max_active: terms.max_active,
            opens_at: terms.opens_at.map(rfc3339),
            paused: terms.paused,
        }
    }
}

impl RecordTerms {
    fn read(&self) -> Option<Terms> {
        // A float turns into the nearest integer that fits.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rate_milli = (self.admit_per_second * 1000.0).round() as u64;
        let opens_at = match &self.opens_at {
            Some(text) => Some(from_rfc3339(text)?),
            None => None,
        };
        Some(Terms { rate_milli, max_active: self.max_active, opens_at, paused: self.paused })
    }
}

impl LoggedRecord {
    /// A record as text; `None` where its bytes make no sense.
    pub fn new(link: &Link) -> Option<Self> {
        let Record { number, at, entry } = Record::from_bytes(&link.bytes)?;
        let kind = match &entry {
            Entry::Stands(_) => RecordKind::Stands,
            Entry::Admitted(_) => RecordKind::Admitted,
            Entry::Changed(_) => RecordKind::Changed,
            Entry::Restored { .. } => RecordKind::Restored,
            Entry::SetBack => RecordKind::SetBack,
            Entry::Drawn(_) => RecordKind::Drawn,
            Entry::Committed(_) => RecordKind::Committed,
        };
        let mut logged = Self {
            number,
            at: rfc3339(at),
            kind,
            from: None,
            upto: None,
            serving: None,
            passed_over: None,
            left: None,
            returned: None,
            terms: None,
            epoch: None,
            draw: None,
            digest: link.digest.to_string(),
        };
        match &entry {
            Entry::Stands(Standing { serving, passed, terms, draw }) => {
                logged.serving = Some(*serving);
                logged.passed_over = runs_out(passed);
                logged.terms = Some(terms.into());
                let draw = draw.as_ref();
                logged.draw = draw.map(|draw| RecordDraw::of(Some(draw.commitment), draw.drawn));
            }
            Entry::Admitted(Admitted { from, upto, passed, left, returned }) => {
                (logged.from, logged.upto) = (Some(*from), Some(*upto));
                logged.passed_over = runs_out(passed);
                (logged.left, logged.returned) = (runs_out(left), runs_out(returned));
            }
            Entry::Changed(terms) => logged.terms = Some(terms.into()),
            Entry::Restored { epoch } => logged.epoch = Some(*epoch),
            Entry::SetBack => {}
            Entry::Drawn(drawn) => logged.draw = Some(RecordDraw::of(None, Some(*drawn))),
            Entry::Committed(commitment) => {
                logged.draw = Some(RecordDraw::of(Some(*commitment), None));
            }
        }
        Some(logged)
    }

    /// The record and its digest; `None` where something is missing or makes no sense.
    pub fn read(&self) -> Option<(Record, Digest)> {
        let set = |pairs: &Option<Vec<(u64, u64)>>| runs_in(pairs.as_deref()?);
        let entry = match self.kind {
            RecordKind::Stands => Entry::Stands(Standing {
                serving: self.serving?,
                passed: set(&self.passed_over)?,
                terms: self.terms.as_ref()?.read()?,
                draw: match &self.draw {
                    Some(draw) => Some(draw.drawing()?),
                    None => None,
                },
            }),
            RecordKind::Admitted => Entry::Admitted(Admitted {
                from: self.from?,
                upto: self.upto?,
                passed: set(&self.passed_over)?,
                left: set(&self.left)?,
                returned: set(&self.returned)?,
            }),
            RecordKind::Changed => Entry::Changed(self.terms.as_ref()?.read()?),
            RecordKind::Restored => Entry::Restored { epoch: self.epoch? },
            RecordKind::SetBack => Entry::SetBack,
            RecordKind::Drawn => Entry::Drawn(self.draw.as_ref()?.drawn()?),
            RecordKind::Committed => Entry::Committed(self.draw.as_ref()?.commitment()?),
        };
        let (number, at) = (self.number, from_rfc3339(&self.at)?);
        let record = Record { number, at, entry };
        let digest = Digest::from_hex(&self.digest)?;
        // Whoever reads the text reads what the digest is of, and nothing beside it.
        let link = Link { number, bytes: record.to_bytes(), digest };
        (Self::new(&link).as_ref() == Some(self)).then_some((record, digest))
    }
}

/// What a signed head says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HeadClaims {
    queue: QueueText,
    number: u64,
    digest: String,
    iat: i64,
}

/// The name of a queue as text.
type QueueText = String;

/// A head that somebody has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    /// Of which queue.
    pub queue: QueueName,
    /// The last record at that time.
    pub head: Head,
    /// When it was signed.
    pub at: Timestamp,
    /// With which key.
    pub key_id: String,
}

/// Signs the head of a queue at a time.
pub fn sign(keys: &ServiceKeys, queue: &QueueName, head: Head, now: Timestamp) -> String {
    let claims = HeadClaims {
        queue: queue.as_str().to_owned(),
        number: head.number,
        digest: head.digest.to_string(),
        iat: now.0.div_euclid(1_000),
    };
    keys.of(now).sign_text(HEAD_TYPE, &claims)
}

/// Public keys, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicKeys(Vec<(String, [u8; 32])>);

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

impl PublicKeys {
    /// The Ed25519 keys of a JSON Web Key Set.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_set(text: &str) -> Result<Self, String> {
        let set: KeySet = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let key = |key: &serde_json::Value| {
            let part = |name: &str| key[name].as_str();
            let bytes = BASE64.decode_to_vec(part("x")?).ok()?.try_into().ok()?;
            let is_ours = part("kty") == Some("OKP") && part("crv") == Some("Ed25519");
            is_ours.then_some((part("kid")?.to_owned(), bytes))
        };
        let keys: Vec<_> = set.keys.iter().filter_map(key).collect();
        if keys.is_empty() { Err("it has no Ed25519 key".to_owned()) } else { Ok(Self(keys)) }
    }

    /// The key with an id.
    pub fn get(&self, id: &str) -> Option<&[u8; 32]> {
        self.0.iter().find(|(known, _)| known == id).map(|(_, key)| key)
    }
}

impl SignedHead {
    /// Reads a head and checks its signature.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str, keys: &PublicKeys) -> Result<Self, String> {
        let text = text.trim();
        let no_head = || "it is no head that a boxoffice has signed".to_owned();
        if text.len() > HEAD_LENGTH_MAX {
            return Err(no_head());
        }
        let signed = SignedText::read(text, HEAD_TYPE).ok_or_else(no_head)?;
        let key_id = &signed.key_id;
        let key = keys.get(key_id).ok_or_else(|| {
            format!("it is signed with the key {key_id}, which is not among the keys")
        })?;
        if !signed.is_signed_with(key) {
            return Err(format!("its signature is not that of the key {key_id}"));
        }
        let claims: HeadClaims = serde_json::from_slice(&signed.claims).map_err(|_| no_head())?;
        let HeadClaims { queue, number, digest, iat } = claims;
        Ok(Self {
            queue: QueueName::new(&queue).ok_or_else(no_head)?,
            head: Head { number, digest: Digest::from_hex(&digest).ok_or_else(no_head)? },
            at: Timestamp(iat.saturating_mul(1_000)),
            key_id: signed.key_id,
        })
    }
}

/// A line that cannot be read.
fn unreadable(error: &io::Error) -> String {
    format!("cannot read: {error}")
}

#[cfg(test)]
mod tests {
    use boxoffice_backends::store::{Kept, MemoryStore, Store};

    use super::*;

    pub(super) fn queue() -> QueueName {
        QueueName::new("main").unwrap()
    }

    pub(super) async fn keys() -> ServiceKeys {
        let store = Store::Memory(MemoryStore::open(&Kept::default()));
        ServiceKeys::open(&store).await.unwrap()
    }

    fn public(keys: &ServiceKeys) -> PublicKeys {
        PublicKeys::from_set(std::str::from_utf8(&keys.set()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_head_is_signed_and_passes_for_nothing_else() {
        let keys = keys().await;
        let head = Head { number: 7, digest: Digest([0xab; 32]) };
        let at = Timestamp(1_800_000_000_000);
        let signed = sign(&keys, &queue(), head, at);
        let key_id = keys.of(at).id().to_string();
        let expected = SignedHead { queue: queue(), head, at, key_id };
        assert_eq!(SignedHead::read(&signed, &public(&keys)), Ok(expected.clone()));
        assert_eq!(SignedHead::read(&format!(" {signed}\n"), &public(&keys)), Ok(expected));
        assert_eq!(keys.signer_of(&signed).map(|(key, _)| key.id().clone()), None, "no pass");
        // Whatever is changed in it, it counts no more.
        for at in 0..signed.len() {
            let mut other = signed.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(SignedHead::read(&other, &public(&keys)).is_err(), "{at}: {other}");
        }
        let others = public(&self::tests::keys().await);
        let error = SignedHead::read(&signed, &others).unwrap_err();
        assert!(error.contains("not among the keys"), "{error}");
        // The same id with another key behind it.
        let PublicKeys(mut wrong) = public(&keys);
        wrong[0].1 = others.0[0].1;
        let error = SignedHead::read(&signed, &PublicKeys(wrong)).unwrap_err();
        assert!(error.contains("signature"), "{error}");
        for text in ["", "a", "a.b", "a.b.c", "....", &"x".repeat(5_000)] {
            assert!(SignedHead::read(text, &public(&keys)).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_are_read_from_a_set() {
        for text in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"RSA","kid":"a"}]}"#] {
            assert!(PublicKeys::from_set(text).is_err(), "{text}");
        }
    }
}
