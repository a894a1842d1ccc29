//! The keys of an issuer: a JSON Web Key Set (RFC 7517), read from where the issuer says or from a
//! file, and read again as keys come and go.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::issuer::{ANSWER_BYTES_MAX, Issuer};
use super::signatures;
use crate::config::AuthConfig;

/// A set has at the most so many keys that are of use.
const KEYS_MAX: usize = 100;
/// For an unknown key the set is read at the most this often,
const AGAIN: Duration = Duration::from_secs(60);
/// or this often as long as there is none.
const RETRY: Duration = Duration::from_secs(5);
/// A set is read again after this time in any case, so that a key that was withdrawn ends.
const AGE_MAX: Duration = Duration::from_secs(600);

/// A key that can be used.
#[derive(Clone)]
pub(super) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    /// What a token signed with it must be; but for the time, which is the service's.
    pub(super) validation: Validation,
}

/// Why there is no key.
pub(super) enum NoKey {
    /// The set has not been read yet.
    NotRead,
    /// It is not in the set.
    Unknown,
}

/// Where the set comes from.
enum Source {
    File(PathBuf),
    /// Its address; the issuer is asked for it where there is none.
    Web(Arc<Issuer>, Option<String>),
}

/// The keys of the issuer, as they were read last.
pub(super) struct Keys {
    source: Source,
    issuer: String,
    audience: String,
    set: ArcSwapOption<Vec<Key>>,
    /// When the set was asked for last.
    asked: Mutex<Option<Instant>>,
}

impl Keys {
    pub(super) async fn open(config: &AuthConfig, issuer: &str) -> Result<Self, String> {
        signatures::install();
        let source = match &config.jwks_file {
            Some(path) => Source::File(path.clone()),
            None => Source::Web(Arc::new(Issuer::new(config)?), config.jwks_url.clone()),
        };
        let keys = Self {
            source,
            issuer: issuer.to_owned(),
            audience: config.audience.clone().unwrap_or_default(),
            set: ArcSwapOption::empty(),
            asked: Mutex::default(),
        };
        match (keys.read_after(Duration::ZERO).await, &keys.source) {
            (Err(why), Source::File(_)) => Err(why),
            _ => Ok(keys),
        }
    }

    /// Returns the keys that a token may be signed with.
    pub(super) async fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<Key>, NoKey> {
        if let Ok(found) = self.known(id, algorithm) {
            return Ok(found);
        }
        let pause = if self.set.load().is_some() { AGAIN } else { RETRY };
        let _ = self.read_after(pause).await;
        self.known(id, algorithm)
    }

    fn known(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Vec<Key>, NoKey> {
        let set = self.set.load();
        let Some(set) = set.as_ref() else { return Err(NoKey::NotRead) };
        let fits =
            |key: &&Key| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id);
        let found: Vec<Key> = set.iter().filter(fits).cloned().collect();
        // Without a name it is clear only where there is one.
        let is_clear = !found.is_empty() && (id.is_some() || found.len() == 1);
        if is_clear { Ok(found) } else { Err(NoKey::Unknown) }
    }

    /// Reads the set, unless that was tried less than `pause` ago. Whoever comes meanwhile waits for it.
    async fn read_after(&self, pause: Duration) -> Result<(), String> {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < pause) {
            return Ok(());
        }
        *asked = Some(Instant::now());
        let keys = self.read().await.and_then(|set| parse(&set, &self.issuer, &self.audience));
        match keys {
            Ok(keys) => {
                if self.set.swap(Some(Arc::new(keys))).is_none() {
                    tracing::info!(issuer = %self.issuer, "the issuer's keys are there");
                }
                Ok(())
            }
            Err(why) => {
                let what_now = match self.set.load().as_ref() {
                    Some(_) => "those that are known go on",
                    None => "nobody is known until they are there; trying on",
                };
                let issuer = &self.issuer;
                tracing::warn!(%issuer, error = %why, "cannot read the issuer's keys; {what_now}");
                Err(format!("the keys of the issuer {issuer}: {why}"))
            }
        }
    }

    async fn read(&self) -> Result<Vec<u8>, String> {
        let work: Box<dyn FnOnce() -> Result<Vec<u8>, String> + Send> = match &self.source {
            Source::File(path) => {
                let path = path.clone();
                Box::new(move || {
                    fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
                })
            }
            Source::Web(issuer, set) => {
                let (issuer, set) = (issuer.clone(), set.clone());
                Box::new(move || match set {
                    Some(set) => issuer.get(&set),
                    None => issuer.get(&issuer.discover()?.jwks_uri),
                })
            }
        };
        let read = tokio::task::spawn_blocking(work).await;
        read.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// Reads the set now and then, until nobody needs it.
pub(super) async fn keep_read(keys: Weak<Keys>) {
    let mut since_read = Duration::ZERO;
    loop {
        tokio::time::sleep(RETRY).await;
        let Some(keys) = keys.upgrade() else { return };
        since_read += RETRY;
        if keys.set.load().is_some() && since_read < AGE_MAX {
            continue;
        }
        since_read = Duration::ZERO;
        let _ = keys.read_after(RETRY).await;
    }
}

/// Returns the keys of a set that can be used. Others, of other types or for other ends, are passed
/// over: an issuer may have them.
fn parse(set: &[u8], issuer: &str, audience: &str) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    if set.len() as u64 > ANSWER_BYTES_MAX {
        return Err(format!("the set is larger than {ANSWER_BYTES_MAX} bytes"));
    }
    let set: Set = serde_json::from_slice(set).map_err(|error| format!("no key set: {error}"))?;
    let usable = set.keys.into_iter().filter_map(|key| usable(key, issuer, audience));
    let keys: Vec<Key> = usable.take(KEYS_MAX).collect();
    if keys.is_empty() {
        return Err("the set has no key for RS256, ES256 or EdDSA".into());
    }
    Ok(keys)
}

fn usable(key: Value, issuer: &str, audience: &str) -> Option<Key> {
    let key: Jwk = serde_json::from_value(key).ok()?;
    let algorithm = match &key.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let is_for_signatures =
        key.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let is_for_it = key.common.key_algorithm.is_none_or(|named| {
        named.to_string().parse::<Algorithm>().is_ok_and(|named| named == algorithm)
    });
    if !is_for_signatures || !is_for_it {
        return None;
    }
    let decoding = DecodingKey::from_jwk(&key).ok()?;
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["iss", "aud"]);
    // By the service's time, not by this machine's.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    Some(Key { id: key.common.key_id, algorithm, decoding, validation })
}

#[cfg(test)]
mod tests;
