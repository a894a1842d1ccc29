//! Passes: what an admitted fan shows to others, who check it by themselves (JSON Web Token, RFC 7519, signed
//! with Ed25519, RFC 8037).
//!
//! A pass says nothing that its ticket and its admission do not say, and a signature of this kind is the same
//! each time. So all instances make the same pass, however often, and none has to be kept. The last ones are
//! kept all the same: to sign costs more than a poll.
//!
//! The claim `tag` is for our own gate. It is a MAC (HMAC-SHA-256, half of it) under a key that only instances
//! have, over the claims before it. Whoever makes passes up is found out by it for the price of a hash, and
//! no signature is looked at, nor anything remembered. What has a good tag was made here, so there is one
//! signature that it can have: it is made again, or is remembered, and compared.
//!
//! What does not belong here: HTTP, and which key signs when; see `signing`.

use std::sync::Arc;

use base64_simd::{AsOut, URL_SAFE_NO_PAD as BASE64};
use boxoffice_domain::ids::{QueueName, TicketId, UserId};
use boxoffice_domain::time::Timestamp;
use hmac::Mac;
use quick_cache::sync::Cache;

use crate::signing::{Key, SIGNATURE_BYTES, ServiceKeys};

/// The longest pass, in bytes. With an issuer of 200 characters they have 850.
pub const PASS_BYTES_MAX: usize = 1_024;
/// The longest name of an issuer, in bytes.
pub const ISSUER_BYTES_MAX: usize = 200;
/// Passes whose signatures are remembered, at about 150 bytes each.
const REMEMBERED_MAX: usize = 100_000;

const TAG_BYTES: usize = 16;
/// The Base64 of 16 bytes, and that of a signature.
const TAG_LENGTH: usize = 22;
const SIGNATURE_LENGTH: usize = 86;

/// Makes passes, and checks those that come back.
pub struct Passes {
    /// `{"iss":"…","aud":"`, which is how the claims of all of them begin.
    beginning: String,
    made: Cache<TicketId, Arc<Made>>,
}

/// What a pass says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// For which queue it is.
    pub queue: QueueName,
    /// Whose it is.
    pub user: UserId,
    /// The second of the admission.
    pub begins: i64,
    /// The second by which the active time has ended. It is good before that.
    pub ends: i64,
    /// The id of the ticket.
    pub id: TicketId,
    /// Its number; 0 where it is past the line.
    pub seq: u64,
    /// In which epoch of the store the pass was made.
    pub epoch: u32,
}

/// A pass that was made.
struct Made {
    key_id: Arc<str>,
    claims: Claims,
    tag: [u8; TAG_BYTES],
    signature: [u8; SIGNATURE_BYTES],
}

impl Claims {
    /// Whether the pass is good at `now`.
    pub const fn are_good_at(&self, now: Timestamp) -> bool {
        now.0 < self.ends.saturating_mul(1_000)
    }
}

impl Passes {
    /// Passes of an issuer, whose name has no character that JSON would escape.
    pub fn new(issuer: &str) -> Self {
        let beginning = format!(r#"{{"iss":"{issuer}","aud":""#);
        Self { beginning, made: Cache::new(REMEMBERED_MAX) }
    }

    /// The pass with these claims, under the key of the moment of the admission.
    pub fn pass(&self, keys: &ServiceKeys, claims: &Claims) -> String {
        let key = keys.of(Timestamp(claims.begins.saturating_mul(1_000)));
        let kept = self.made.get(&claims.id);
        let kept = kept.filter(|made| made.key_id == *key.id() && made.claims == *claims);
        let made = kept.unwrap_or_else(|| self.make(&key, claims));
        let mut pass = self.unsigned(&key, claims, &made.tag);
        pass.push('.');
        BASE64.encode_append(made.signature, &mut pass);
        pass
    }

    /// What a pass says, where it was made under a published key and not changed since. Nothing is said of
    /// whether it has ended.
    pub fn read(&self, keys: &ServiceKeys, pass: &str) -> Option<Claims> {
        if pass.len() > PASS_BYTES_MAX {
            return None;
        }
        let (key, rest) = keys.signer_of(pass)?;
        let (text, signature) =
            rest.split_at_checked(rest.len().checked_sub(SIGNATURE_LENGTH + 1)?)?;
        let mut bytes = [0; SIGNATURE_BYTES];
        let signature = signature.strip_prefix('.')?.as_bytes();
        let signature = BASE64.decode(signature, bytes[..].as_out()).ok()?;
        let mut bytes = [0; PASS_BYTES_MAX];
        let text = BASE64.decode(text.as_bytes(), bytes[..].as_out()).ok()?;
        let (claims, tag) = self.parse(std::str::from_utf8(text).ok()?)?;
        // One form for what it says, or it is none of ours.
        let mut written = Vec::with_capacity(text.len());
        self.write(&claims, &mut written);
        let tagged = written.len();
        push_tag(&tag, &mut written);
        if written != text {
            return None;
        }
        let kept = self.made.get(&claims.id);
        let kept = kept.filter(|made| made.key_id == *key.id() && made.claims == claims);
        let is_ours = match &kept {
            Some(made) => are_same(&made.tag, &tag),
            None => key.tag(&written[..tagged]).verify_truncated_left(&tag).is_ok(),
        };
        if !is_ours {
            return None;
        }
        let made = kept.unwrap_or_else(|| self.make(&key, &claims));
        are_same(&made.signature, signature).then_some(claims)
    }

    /// Signs, and remembers that.
    fn make(&self, key: &Key, claims: &Claims) -> Arc<Made> {
        let mut text = Vec::with_capacity(PASS_BYTES_MAX);
        self.write(claims, &mut text);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&key.tag(&text).finalize().into_bytes()[..TAG_BYTES]);
        let signature = key.sign(self.unsigned(key, claims, &tag).as_bytes());
        let (key_id, claims) = (key.id().clone(), claims.clone());
        let made = Arc::new(Made { key_id, claims, tag, signature });
        self.made.insert(made.claims.id, made.clone());
        made
    }

    /// The header and the claims, in Base64: what is signed.
    fn unsigned(&self, key: &Key, claims: &Claims, tag: &[u8; TAG_BYTES]) -> String {
        let mut text = Vec::with_capacity(PASS_BYTES_MAX);
        self.write(claims, &mut text);
        push_tag(tag, &mut text);
        let mut pass = String::with_capacity(PASS_BYTES_MAX);
        pass.push_str(key.prefix());
        BASE64.encode_append(&text, &mut pass);
        pass
    }

    /// Writes the claims but for the tag.
    fn write(&self, claims: &Claims, text: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        text.extend_from_slice(self.beginning.as_bytes());
        text.extend_from_slice(claims.queue.as_str().as_bytes());
        text.extend_from_slice(br#"","sub":""#);
        text.extend_from_slice(number.format(claims.user.get()).as_bytes());
        text.extend_from_slice(br#"","iat":"#);
        text.extend_from_slice(number.format(claims.begins).as_bytes());
        text.extend_from_slice(br#","exp":"#);
        text.extend_from_slice(number.format(claims.ends).as_bytes());
        text.extend_from_slice(br#","jti":""#);
        BASE64.encode_append(claims.id.0, text);
        text.extend_from_slice(br#"","seq":"#);
        text.extend_from_slice(number.format(claims.seq).as_bytes());
        if claims.epoch != 0 {
            text.extend_from_slice(br#","ep":"#);
            text.extend_from_slice(number.format(claims.epoch).as_bytes());
        }
    }

    /// What [`Passes::write`] has written, with a tag.
    fn parse(&self, text: &str) -> Option<(Claims, [u8; TAG_BYTES])> {
        let rest = text.strip_prefix(self.beginning.as_str())?;
        let (queue, rest) = rest.split_once('"')?;
        let (user, rest) = number(rest.strip_prefix(r#","sub":""#)?)?;
        let (begins, rest) = number(rest.strip_prefix(r#"","iat":"#)?)?;
        let (ends, rest) = number(rest.strip_prefix(r#","exp":"#)?)?;
        let (id, rest) = bytes(rest.strip_prefix(r#","jti":""#)?)?;
        let (seq, rest) = number(rest.strip_prefix(r#"","seq":"#)?)?;
        let (epoch, rest) = match rest.strip_prefix(r#","ep":"#) {
            Some(rest) => number(rest)?,
            None => (0, rest),
        };
        let (tag, rest) = bytes(rest.strip_prefix(r#","tag":""#)?)?;
        let claims = Claims {
            queue: QueueName::new(queue)?,
            user: UserId::new(i64::try_from(user).ok()?)?,
            begins: i64::try_from(begins).ok()?,
            ends: i64::try_from(ends).ok()?,
            id: TicketId(id),
            seq,
            epoch: u32::try_from(epoch).ok()?,
        };
        (rest == r#""}"#).then_some((claims, tag))
    }
}

fn push_tag(tag: &[u8; TAG_BYTES], text: &mut Vec<u8>) {
    text.extend_from_slice(br#","tag":""#);
    BASE64.encode_append(tag, text);
    text.extend_from_slice(br#""}"#);
}

/// The number that a text begins with, and what follows.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// The sixteen bytes that a text begins with, in Base64, and what follows.
fn bytes(text: &str) -> Option<([u8; 16], &str)> {
    let (text, rest) = text.split_at_checked(TAG_LENGTH)?;
    let mut bytes = [0; 16];
    BASE64.decode(text.as_bytes(), bytes[..].as_out()).ok()?;
    Some((bytes, rest))
}

/// Compares in a time that tells nothing of where they differ.
fn are_same(one: &[u8], other: &[u8]) -> bool {
    let differ = |differ: u8, (one, other): (&u8, &u8)| differ | (one ^ other);
    one.len() == other.len() && one.iter().zip(other).fold(0, differ) == 0
}

#[cfg(test)]
mod tests {
    use boxoffice_backends::store::{Act, Kept, MemoryStore, Note, Role, Store};
    use proptest::prelude::*;
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    fn claims(user: i64, seq: u64, id: u128, epoch: u32) -> Claims {
        Claims {
            queue: QueueName::new("main").unwrap(),
            user: UserId::new(user).unwrap(),
            begins: 1_763_800_000,
            ends: 1_763_800_300,
            id: TicketId(id.to_be_bytes()),
            seq,
            epoch,
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn fresh() -> (Store, ServiceKeys) {
        block_on(async {
            let store = Store::Memory(MemoryStore::open(&Kept::default()));
            let keys = ServiceKeys::open(&store).await.unwrap();
            (store, keys)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_made_is_read_back(user in 1..=i64::MAX, seq: u64, id: u128, epoch: u32) {
            let (_store, keys) = fresh();
            let claims = claims(user, seq, id, epoch);
            let (here, elsewhere) = (Passes::new("boxoffice"), Passes::new("boxoffice"));
            let pass = here.pass(&keys, &claims);
            prop_assert!(pass.len() <= PASS_BYTES_MAX);
            // Where it was made, where it was not, and where it has been seen before.
            for passes in [&here, &elsewhere, &elsewhere] {
                prop_assert_eq!(passes.read(&keys, &pass), Some(claims.clone()));
                prop_assert_eq!(&passes.pass(&keys, &claims), &pass);
            }
            prop_assert_eq!(Passes::new("another").read(&keys, &pass), None);
        }

        #[test]
        fn any_change_is_found_out(at: prop::sample::Index, byte in 33_u8..127, more in "[!-~]{1,20}", cut: prop::sample::Index) {
            let (_store, keys) = fresh();
            let (here, elsewhere) = (Passes::new("boxoffice"), Passes::new("boxoffice"));
            let pass = here.pass(&keys, &claims(3, 7, 9, 0));
            let mut changed = pass.clone().into_bytes();
            let at = at.index(changed.len());
            changed[at] = byte;
            let changed = String::from_utf8(changed).unwrap();
            for passes in [&here, &elsewhere] {
                prop_assert_eq!(passes.read(&keys, &changed).is_some(), changed == pass, "{}", changed);
                for wrong in [format!("{pass}{more}"), format!("{more}{pass}"), pass[..cut.index(pass.len())].to_owned()] {
                    prop_assert_eq!(passes.read(&keys, &wrong), None);
                }
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,1200}") {
            let (_store, keys) = fresh();
            let passes = Passes::new("boxoffice");
            prop_assert_eq!(passes.read(&keys, &text), None);
            let begun = format!("{}{text}", keys.of(Timestamp(0)).prefix());
            prop_assert_eq!(passes.read(&keys, &begun), None);
        }
    }

    #[test]
    fn a_pass_is_a_plain_jwt_under_a_published_key() {
        let (_store, keys) = fresh();
        let pass = Passes::new("https://tickets.example").pass(&keys, &claims(17, 7, 9, 5));
        let parts: Vec<&str> = pass.split('.').collect();
        let [header, body, signature] = parts[..] else { panic!("three parts: {pass}") };
        let decoded = |part: &str| BASE64.decode_to_vec(part).unwrap();
        let json =
            |part: &str| -> serde_json::Value { serde_json::from_slice(&decoded(part)).unwrap() };
        let key = &keys.public()[0];
        assert_eq!(json(header), serde_json::json!({"alg": "EdDSA", "typ": "JWT", "kid": key.id}));
        let told = json(body);
        assert_eq!(
            (&told["iss"], &told["aud"], &told["sub"], &told["iat"], &told["exp"]),
            (
                &"https://tickets.example".into(),
                &"main".into(),
                &"17".into(),
                &1_763_800_000.into(),
                &1_763_800_300.into(),
            )
        );
        assert_eq!(told["jti"], BASE64.encode_to_string(9_u128.to_be_bytes()));
        let message = format!("{header}.{body}");
        let public = UnparsedPublicKey::new(&ED25519, key.bytes);
        public.verify(message.as_bytes(), &decoded(signature)).unwrap();
    }

    #[test]
    fn one_pass_has_one_form() {
        // The last character of a signature has bits that mean nothing; they must not be ignored.
        let (_store, keys) = fresh();
        let passes = Passes::new("boxoffice");
        let pass = passes.pass(&keys, &claims(17, 7, 9, 0));
        let (begin, last) = pass.split_at(pass.len() - 1);
        for other in (33_u8..127).map(char::from).filter(|other| !last.contains(*other)) {
            assert_eq!(passes.read(&keys, &format!("{begin}{other}")), None, "{other}");
        }
        // The same claims in other words, with the tag and the signature of the pass,
        let parts: Vec<&str> = pass.split('.').collect();
        let said = String::from_utf8(BASE64.decode_to_vec(parts[1]).unwrap()).unwrap();
        let other = BASE64.encode_to_string(said.replace("\"seq\":7", "\"seq\":07"));
        assert_ne!(other, parts[1]);
        assert_eq!(passes.read(&keys, &format!("{}.{other}.{}", parts[0], parts[2])), None);
        // and with others, by somebody who has the key.
        let key = keys.of(Timestamp(0));
        let mut text = Vec::new();
        passes.write(&claims(17, 7, 9, 0), &mut text);
        let other = String::from_utf8(text).unwrap().replace("\"seq\":7", "\"seq\":07");
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&key.tag(other.as_bytes()).finalize().into_bytes()[..TAG_BYTES]);
        let mut other = other.into_bytes();
        push_tag(&tag, &mut other);
        let mut pass = key.prefix().to_owned();
        BASE64.encode_append(&other, &mut pass);
        let signature = key.sign(pass.as_bytes());
        pass.push('.');
        BASE64.encode_append(signature, &mut pass);
        assert_eq!(passes.read(&keys, &pass), None);
    }

    #[test]
    fn passes_that_somebody_makes_up_are_not_remembered() {
        let (_store, keys) = fresh();
        let passes = Passes::new("boxoffice");
        let good = passes.pass(&keys, &claims(1, 1, 1, 0));
        let key = keys.of(Timestamp(0));
        for id in 2..1_000 {
            let mut made_up = passes.unsigned(&key, &claims(1, 1, id, 0), &[7; TAG_BYTES]);
            made_up.push('.');
            BASE64.encode_append([7; SIGNATURE_BYTES], &mut made_up);
            assert_eq!(passes.read(&keys, &made_up), None);
        }
        assert_eq!(passes.made.len(), 1);
        // A good one with a wrong signature is one more at the most, however many of them come.
        let claims = claims(1, 1, 2_000, 0);
        let other = Passes::new("boxoffice").pass(&keys, &claims);
        for n in 0..64 {
            let mut wrong = other.clone().into_bytes();
            let at = wrong.len() - 2 - n;
            wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(passes.read(&keys, &String::from_utf8(wrong).unwrap()), None);
        }
        assert_eq!(passes.made.len(), 2);
        assert!(passes.read(&keys, &good).is_some() && passes.read(&keys, &other).is_some());
    }

    #[test]
    fn a_pass_is_of_the_key_of_its_admission_and_ends_with_a_withdrawn_key() {
        let (store, keys) = fresh();
        let passes = Passes::new("boxoffice");
        let (before, after) =
            (claims(1, 1, 1, 0), Claims { begins: 1_763_900_000, ..claims(1, 2, 2, 0) });
        let old = passes.pass(&keys, &before);
        let rotate = |signs_from, withdraws| {
            let rotation = keys.rotation(signs_from, withdraws).unwrap();
            let note = Note {
                at: Timestamp(0),
                who: "ada".into(),
                role: Role::Admin,
                origin: "here".into(),
                operation: "rotate_key",
                reason: None,
                key: None,
                answer: Arc::new(|_| String::new()),
            };
            block_on(async {
                store.act(Act::RotateKey(rotation), note).await.unwrap();
                let lasts = std::time::Duration::from_secs(300);
                keys.refresh(&store, Timestamp(1_763_900_000_000), lasts, |_| true).await.unwrap();
            });
        };
        rotate(Timestamp(1_763_900_000_000), false);
        assert_eq!(passes.pass(&keys, &before), old, "made again, it is the same");
        let new = passes.pass(&keys, &after);
        assert_ne!(old.split('.').next(), new.split('.').next(), "under the new key");
        assert_eq!(passes.read(&keys, &old), Some(before.clone()));
        assert_eq!(passes.read(&keys, &new), Some(after.clone()));
        rotate(Timestamp(1_763_900_000_000), true);
        assert_eq!((passes.read(&keys, &old), passes.read(&keys, &new)), (None, None));
        let again = passes.pass(&keys, &before);
        assert_eq!(passes.read(&keys, &again), Some(before));
    }

    #[test]
    fn the_longest_pass_fits() {
        let (_store, keys) = fresh();
        let passes = Passes::new(&"i".repeat(ISSUER_BYTES_MAX));
        let queue = QueueName::new(&"q".repeat(QueueName::LENGTH_MAX)).unwrap();
        let far = i64::MAX / 1_000;
        let claims = Claims {
            queue,
            begins: far,
            ends: far,
            ..claims(i64::MAX, u64::MAX, u128::MAX, u32::MAX)
        };
        let pass = passes.pass(&keys, &claims);
        assert_eq!(passes.read(&keys, &pass), Some(claims), "{} bytes", pass.len());
    }
}
