//! The keys that the service signs with for others to check: passes, and what it proves (Ed25519, RFC 8032).
//! They are in the store, so that all instances have them and a restart changes nothing.
//!
//! A key signs from a moment on that is said beforehand, so that others have read it by then. What is signed
//! for a moment is signed with the key of that moment, by whomever: the same bytes, however often and wherever
//! it is done. A key that signs no more is still published, as long as a pass of its time may be good.
//!
//! What does not belong here: what is signed; see `passes`.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64_simd::URL_SAFE_NO_PAD as BASE64;
use boxoffice_backends::Fault;
use boxoffice_backends::store::{Rotation, SigningKey, SigningRing, Store};
use boxoffice_domain::time::Timestamp;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

/// The keys are read again this often. The docs promise it.
pub const REFRESH: Duration = Duration::from_secs(5);
/// How long before it signs a new key is published, unless somebody wants it otherwise, in seconds: twice the
/// time for which others may keep the set.
pub const AHEAD_SECONDS: u32 = 2 * SET_AGE_SECONDS;
/// For how long others may keep the set of keys, in seconds.
pub const SET_AGE_SECONDS: u32 = 60;
/// The longest time ahead, in seconds.
pub const AHEAD_SECONDS_MAX: u32 = 30 * 86_400;
/// Signatures have so many bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// The keys of the service.
pub struct ServiceKeys {
    keys: ArcSwap<Keys>,
    /// The keys of which it is known that nothing is signed with them which is still good. No key comes back.
    retired: Mutex<HashSet<String>>,
}

struct Keys {
    ring: SigningRing,
    /// Those that may sign, and whose signatures count, the oldest first; at least one.
    usable: Vec<Arc<Key>>,
    /// The key set (RFC 7517, RFC 8037).
    set: Bytes,
}

/// A key that may sign.
pub struct Key {
    id: Arc<str>,
    pair: Ed25519KeyPair,
    signs_from: Timestamp,
    /// When no pass is signed with it any more, where another key comes after it.
    replaced_at: Option<Timestamp>,
    /// How every token begins that is signed with it.
    prefix: String,
    /// What instances tell each other's passes by; see `passes`.
    tag: Hmac<Sha256>,
}

/// The public half of a key, whatever has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Its id, the `kid` of what is signed with it.
    pub id: String,
    /// The key.
    pub bytes: [u8; 32],
    /// From when on it signs, or was to.
    pub signs_from: Timestamp,
    /// Whether nothing that is signed with it counts any more.
    pub is_withdrawn: bool,
}

/// A signature, and the id of the key that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Which key.
    pub key_id: Arc<str>,
    /// The signature.
    pub bytes: [u8; SIGNATURE_BYTES],
}

impl fmt::Debug for ServiceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServiceKeys").field(&self.keys.load().ring).finish()
    }
}

impl ServiceKeys {
    /// The keys of a store, which gets one where it has none.
    ///
    /// # Errors
    /// Where the store cannot be read, or has keys that are none.
    pub async fn open(store: &Store) -> Result<Self, Fault> {
        let ring = store.signing_keys(None).await?;
        let ring = if ring.keys().is_empty() {
            store.signing_keys(Some(new_key(Timestamp(0))?)).await?
        } else {
            ring
        };
        let retired = Mutex::default();
        let keys = Keys::new(ring, &HashSet::new())?;
        Ok(Self { keys: ArcSwap::from_pointee(keys), retired })
    }

    /// Reads them again, and lets those go that are of no use at `now`. A pass lasts for `pass_lasts`, but for
    /// those of opaque tokens: `tokens_last` says whether one that was issued before a time lasts.
    ///
    /// # Errors
    /// Where the store cannot be read; what was known stays.
    pub async fn refresh(
        &self,
        store: &Store,
        now: Timestamp,
        pass_lasts: Duration,
        tokens_last: impl Fn(Timestamp) -> bool,
    ) -> Result<(), Fault> {
        let ring = store.signing_keys(None).await?;
        let known = self.keys.load();
        let mut retired = self.retired.lock();
        for key in &known.usable {
            let Some(replaced_at) = key.replaced_at else { continue };
            // A pass says in whole seconds when it began, goes by the key of that, and lasts to a whole second.
            let second = Duration::from_secs(1);
            if replaced_at.plus(pass_lasts + second) <= now
                && !tokens_last(replaced_at.plus(second))
            {
                retired.insert(key.id.to_string());
            }
        }
        let is_changed =
            ring != known.ring || known.usable.iter().any(|key| retired.contains(key.id.as_ref()));
        if is_changed {
            self.keys.store(Arc::new(Keys::new(ring, &retired)?));
        }
        Ok(())
    }

    /// Signs a message with the key of a moment.
    pub fn sign(&self, message: &[u8], at: Timestamp) -> Signature {
        let key = self.of(at);
        Signature { key_id: key.id.clone(), bytes: key.sign(message) }
    }

    /// The key of a moment: of those that had begun to sign then, the one that was made last.
    pub fn of(&self, at: Timestamp) -> Arc<Key> {
        self.keys.load().of(at)
    }

    /// The public halves of all keys that there have been, the oldest first.
    pub fn public(&self) -> Vec<PublicKey> {
        let public = |key: &SigningKey| PublicKey {
            id: key.id.clone(),
            bytes: key.public,
            signs_from: key.signs_from,
            is_withdrawn: key.is_withdrawn,
        };
        self.keys.load().ring.keys().iter().map(public).collect()
    }

    /// The ids of those that are published: what is signed with them may count.
    pub fn published(&self) -> Vec<Arc<str>> {
        self.keys.load().usable.iter().map(|key| key.id.clone()).collect()
    }

    /// The published keys as a JSON Web Key Set.
    pub fn set(&self) -> Bytes {
        self.keys.load().set.clone()
    }

    /// The published key that a token says to be signed with, and what follows its header.
    pub fn signer_of<'t>(&self, token: &'t str) -> Option<(Arc<Key>, &'t str)> {
        let keys = self.keys.load();
        let begins = |key: &Arc<Key>| Some((key.clone(), token.strip_prefix(key.prefix.as_str())?));
        keys.usable.iter().rev().find_map(begins)
    }

    /// A change to a new key that signs from `signs_from` on.
    ///
    /// # Errors
    /// Where there is nothing random to be had.
    pub fn rotation(&self, signs_from: Timestamp, withdraws: bool) -> Result<Rotation, Fault> {
        let forgotten = self.retired.lock().iter().cloned().collect();
        Ok(Rotation { key: new_key(signs_from)?, withdraws, forgotten })
    }
}

impl Keys {
    fn new(ring: SigningRing, retired: &HashSet<String>) -> Result<Self, Fault> {
        let is_usable = |key: &&SigningKey| !key.is_withdrawn && !retired.contains(&key.id);
        let candidates: Vec<&SigningKey> = ring.keys().iter().filter(is_usable).collect();
        let mut usable = Vec::new();
        for (index, stored) in candidates.iter().enumerate() {
            let replaced_at = candidates[index + 1..].iter().map(|later| later.signs_from).min();
            if let Some(seed) = &stored.seed {
                usable.push(Arc::new(Key::new(stored, seed, replaced_at)?));
            }
        }
        if usable.is_empty() {
            return Err(Fault::Corrupt("the store has no key to sign with".to_owned()));
        }
        let public = |key: &Arc<Key>| {
            json!({
                "kty": "OKP",
                "crv": "Ed25519",
                "x": BASE64.encode_to_string(key.pair.public_key()),
                "kid": key.id.as_ref(),
                "use": "sig",
                "alg": "EdDSA",
            })
        };
        let set = json!({"keys": usable.iter().map(public).collect::<Vec<_>>()});
        let set = set.to_string().into();
        Ok(Self { ring, usable, set })
    }

    fn of(&self, at: Timestamp) -> Arc<Key> {
        let has_begun = |key: &&Arc<Key>| key.signs_from <= at;
        // What is older than all of them is signed with the oldest.
        self.usable.iter().rev().find(has_begun).unwrap_or(&self.usable[0]).clone()
    }
}

impl Key {
    fn new(
        stored: &SigningKey,
        seed: &[u8; 32],
        replaced_at: Option<Timestamp>,
    ) -> Result<Self, Fault> {
        let wrong = || Fault::Corrupt(format!("the signing key {} in the store", stored.id));
        let pair =
            Ed25519KeyPair::from_seed_and_public_key(seed, &stored.public).map_err(|_| wrong())?;
        let id: Arc<str> = stored.id.as_str().into();
        // The id has no character that needs escaping; the store checks it.
        let header = format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{id}"}}"#);
        let tag_key = Sha256::new().chain_update(b"boxoffice pass tag").chain_update(seed);
        let tag = Hmac::new_from_slice(&tag_key.finalize()).map_err(|_| wrong())?;
        Ok(Self {
            prefix: format!("{}.", BASE64.encode_to_string(header)),
            id,
            pair,
            signs_from: stored.signs_from,
            replaced_at,
            tag,
        })
    }

    /// Its id.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The header of a token that is signed with it, in Base64, and the dot behind it.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Signs a message. The same message has the same signature.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut bytes = [0; SIGNATURE_BYTES];
        // A signature of this kind has 64 bytes.
        bytes.copy_from_slice(self.pair.sign(message).as_ref());
        bytes
    }

    /// Signs claims as a JSON Web Token of a type of its own, so that it passes for nothing else that is signed with
    /// the same key.
    pub fn sign_text(&self, kind: &str, claims: &impl Serialize) -> String {
        // The id has no character that needs escaping; the store checks it.
        let header = format!(r#"{{"alg":"EdDSA","typ":"{kind}","kid":"{}"}}"#, self.id);
        // Claims are ours, and those serialise.
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let mut text = BASE64.encode_to_string(header);
        text.push('.');
        BASE64.encode_append(claims, &mut text);
        let signature = self.sign(text.as_bytes());
        text.push('.');
        BASE64.encode_append(signature, &mut text);
        text
    }

    /// What only instances of this service can tell of a message.
    pub fn tag(&self, message: &[u8]) -> Hmac<Sha256> {
        let mut tag = self.tag.clone();
        tag.update(message);
        tag
    }
}

/// What [`Key::sign_text`] has made, or somebody says to be that.
pub struct SignedText<'t> {
    /// The id of the key that it says to be signed with.
    pub key_id: String,
    /// The claims, which count only with their signature.
    pub claims: Vec<u8>,
    signed: &'t str,
    signature: Vec<u8>,
}

impl<'t> SignedText<'t> {
    /// Takes a text of a type apart; `None` where it is none.
    pub fn read(text: &'t str, kind: &str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let part = |part: &str| BASE64.decode_to_vec(part).ok();
        let header: serde_json::Value = serde_json::from_slice(&part(header)?).ok()?;
        let is_of_it = header["alg"] == "EdDSA" && header["typ"] == kind;
        let key_id = header["kid"].as_str()?.to_owned();
        let (claims, signature) = (part(claims)?, part(signature)?);
        is_of_it.then_some(Self { key_id, claims, signed, signature })
    }

    /// Whether the signature is that of the key with this public half.
    pub fn is_signed_with(&self, public: &[u8; 32]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, public);
        key.verify(self.signed.as_bytes(), &self.signature).is_ok()
    }
}

/// A new key.
fn new_key(signs_from: Timestamp) -> Result<SigningKey, Fault> {
    let failed = || Fault::Unavailable("this machine gives no random numbers".to_owned());
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| failed())?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| failed())?;
    let mut public = [0; 32];
    public.copy_from_slice(pair.public_key().as_ref());
    let id = key_id(&public);
    Ok(SigningKey { id, public, seed: Some(seed), signs_from, is_withdrawn: false })
}

/// A change of keys where no service runs on the store.
///
/// # Errors
/// Where there is nothing random to be had.
pub fn rotation_at_rest(signs_from: Timestamp, withdraws: bool) -> Result<Rotation, Fault> {
    Ok(Rotation { key: new_key(signs_from)?, withdraws, forgotten: Vec::new() })
}

/// The beginning of the key's thumbprint (RFC 7638), 11 characters.
fn key_id(public: &[u8; 32]) -> String {
    let x = BASE64.encode_to_string(public);
    let digest = Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
    BASE64.encode_to_string(&digest[..8])
}

#[cfg(test)]
mod tests {
    use boxoffice_backends::store::{Act, Kept, MemoryStore, Note, Role};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000)
    }

    fn note() -> Note {
        Note {
            at: at(0),
            who: "ada".into(),
            role: Role::Admin,
            origin: "here".into(),
            operation: "rotate_key",
            reason: None,
            key: None,
            answer: Arc::new(|_| String::new()),
        }
    }

    async fn fresh() -> (Store, ServiceKeys) {
        let store = Store::Memory(MemoryStore::open(&Kept::default()));
        let keys = ServiceKeys::open(&store).await.unwrap();
        (store, keys)
    }

    async fn rotate(
        store: &Store,
        keys: &ServiceKeys,
        signs_from: Timestamp,
        withdraws: bool,
    ) -> String {
        let rotation = keys.rotation(signs_from, withdraws).unwrap();
        let id = rotation.key.id.clone();
        store.act(Act::RotateKey(rotation), note()).await.unwrap();
        id
    }

    fn ids(keys: &ServiceKeys) -> Vec<String> {
        keys.published().iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn what_is_signed_can_be_checked_with_the_published_set() {
        let (store, keys) = fresh().await;
        let Signature { key_id, bytes } = keys.sign(b"a message", at(5));
        let set: serde_json::Value = serde_json::from_slice(&keys.set()).unwrap();
        let jwk = &set["keys"][0];
        let told = ["kty", "crv", "use", "alg", "kid"].map(|name| jwk[name].as_str().unwrap());
        assert_eq!(told, ["OKP", "Ed25519", "sig", "EdDSA", &*key_id]);
        assert!(jwk.get("d").is_none(), "the secret half: {jwk}");
        let public = BASE64.decode_to_vec(jwk["x"].as_str().unwrap()).unwrap();
        UnparsedPublicKey::new(&ED25519, &public).verify(b"a message", &bytes).unwrap();
        // Another instance, and this one after a restart, sign the same.
        let other = ServiceKeys::open(&store).await.unwrap();
        assert_eq!(other.sign(b"a message", at(900)), Signature { key_id, bytes });
        assert_eq!(other.public()[0].bytes, public[..]);
    }

    #[tokio::test]
    async fn a_new_key_is_published_before_it_signs_and_an_old_one_until_its_passes_have_ended() {
        let (store, keys) = fresh().await;
        let other = ServiceKeys::open(&store).await.unwrap();
        let old = ids(&keys)[0].clone();
        let new = rotate(&store, &keys, at(120), false).await;
        assert_eq!(ids(&keys), std::slice::from_ref(&old), "nobody has read it yet");
        let refreshed = async |keys: &ServiceKeys, now, tokens_last: bool| {
            keys.refresh(&store, now, HOUR, |_| tokens_last).await.unwrap();
            ids(keys)
        };
        for keys in [&keys, &other] {
            assert_eq!(refreshed(keys, at(5), false).await, [old.clone(), new.clone()]);
            assert_eq!(*keys.sign(b"", Timestamp(119_999)).key_id, *old);
            assert_eq!(*keys.sign(b"", at(120)).key_id, *new);
        }
        // An admission of before is signed as it would have been then.
        assert_eq!(*keys.sign(b"", at(3)).key_id, *old);
        let both = [old.clone(), new.clone()];
        let end = 120 + 3_600 + 1;
        assert_eq!(refreshed(&keys, Timestamp(end * 1_000 - 1), false).await, both);
        assert_eq!(refreshed(&keys, at(end), true).await, both, "a token lasts longer");
        assert_eq!(refreshed(&keys, at(end), false).await, std::slice::from_ref(&new));
        assert_eq!(refreshed(&keys, at(end), true).await, std::slice::from_ref(&new), "for good");
        assert!(keys.signer_of(other.of(at(3)).prefix()).is_none());
        assert_eq!(*keys.sign(b"", at(3)).key_id, *new);
        // With the next change its secret half goes; its public half stays, for what was proved with it.
        let newest = rotate(&store, &keys, at(9_000), false).await;
        let ring = store.signing_keys(None).await.unwrap();
        let told: Vec<_> =
            ring.keys().iter().map(|key| (key.id.clone(), key.seed.is_some())).collect();
        assert_eq!(told, [(old.clone(), false), (new, true), (newest, true)]);
        refreshed(&keys, at(4_000), false).await;
        assert_eq!((keys.public().len(), keys.public()[0].id.as_str()), (3, old.as_str()));
    }

    #[tokio::test]
    async fn a_key_that_was_to_sign_later_never_does_where_another_is_made_to_sign_now() {
        let (store, keys) = fresh().await;
        rotate(&store, &keys, at(500), false).await;
        let now = rotate(&store, &keys, at(10), false).await;
        keys.refresh(&store, at(10), HOUR, |_| false).await.unwrap();
        for time in [10, 499, 500, 9_000] {
            assert_eq!(*keys.sign(b"", at(time)).key_id, *now);
        }
    }

    #[tokio::test]
    async fn what_was_signed_with_a_withdrawn_key_counts_no_more() {
        let (store, keys) = fresh().await;
        let old = keys.of(at(0));
        let new = rotate(&store, &keys, at(50), true).await;
        keys.refresh(&store, at(50), HOUR, |_| true).await.unwrap();
        assert_eq!(ids(&keys), std::slice::from_ref(&new));
        assert!(keys.signer_of(old.prefix()).is_none());
        assert_eq!(*keys.sign(b"", at(3)).key_id, *new, "an admission of before is signed anew");
        let public = keys.public();
        assert_eq!(public.iter().map(|key| key.is_withdrawn).collect::<Vec<_>>(), [true, false]);
    }

    #[tokio::test]
    async fn keys_that_make_no_sense_are_told_and_nothing_secret() {
        let (store, keys) = fresh().await;
        let mut rotation = keys.rotation(at(0), true).unwrap();
        rotation.key.public[0] ^= 1;
        let id = rotation.key.id.clone();
        store.act(Act::RotateKey(rotation), note()).await.unwrap();
        let refused = keys.refresh(&store, at(0), HOUR, |_| false).await;
        assert_eq!(refused, Err(Fault::Corrupt(format!("the signing key {id} in the store"))));
        assert_eq!(ServiceKeys::open(&store).await.map(|_| ()), refused);
        assert_eq!(keys.published().len(), 1, "what was known goes on");
    }
}
