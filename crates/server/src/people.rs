//! Who somebody is: people are known by bearer tokens (JWT, RFC 7519) of an OpenID Connect issuer, and
//! have a small id of their own here.
//!
//! A token that was found good is remembered by its digest until it ends, so that a person costs one
//! check of a signature and not one for each request.
//!
//! What does not belong here: which requests have to say who asks; see `http::auth`.

mod ids;
pub(crate) mod issuer;
mod keys;
mod signatures;

use std::fmt;
use std::sync::Arc;

use boxoffice_backends::Fault;
use boxoffice_backends::store::{NewPerson, Store};
use boxoffice_domain::ids::UserId;
use boxoffice_domain::points::BALANCE_MAX;
use boxoffice_domain::time::Timestamp;
use jsonwebtoken::{Algorithm, decode, decode_header};
use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use self::ids::Ids;
use self::keys::{Key, Keys, NoKey};
use crate::config::AuthConfig;

/// The longest token, in bytes. Those of common issuers have 700 to 2,500.
const TOKEN_MAX: usize = 8_192;
/// The longest name that an issuer may call somebody, in characters; OpenID Connect's bound for `sub`.
const NAME_MAX: usize = 255;
/// Tokens that are remembered, at about 100 bytes each.
const REMEMBERED_MAX: usize = 200_000;
/// The claims that a name to be shown is taken from, the first that there is,
const NAMES: [&str; 3] = ["name", "preferred_username", "email"];
/// and how many characters of it are shown.
const SHOWN_MAX: usize = 60;
/// The highest id, 2⁵³ − 1: the highest number that is exact in every JSON parser.
pub const PERSON_MAX: i64 = BALANCE_MAX;

/// Why nobody is known by a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stranger {
    /// It is not a good one; why, in words for whoever sent it.
    Invalid(String),
    /// The issuer's keys have not been read yet.
    NoKeys,
    /// The store does not tell who it is.
    Store(Fault),
}

fn invalid(why: impl Into<String>) -> Stranger {
    Stranger::Invalid(why.into())
}

/// A name as it is shown: a short line, without characters that would have what stands beside it read otherwise.
fn to_be_shown(name: &str) -> String {
    let is_mark = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let plain = name.trim().chars().filter(|c| !is_mark(*c));
    plain.take(SHOWN_MAX).collect()
}

/// The people of an issuer.
pub struct People {
    issuer: String,
    claim: String,
    leeway_ms: i64,
    keys: Arc<Keys>,
    ids: Ids,
    remembered: Cache<[u8; 32], Known>,
}

/// Somebody whose token was good.
#[derive(Clone, Copy)]
struct Known {
    user: UserId,
    until: Timestamp,
}

/// Somebody who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIn {
    /// Who.
    pub user: UserId,
    /// What to call them; empty where the issuer does not say.
    pub name: String,
}

/// What an issuer calls somebody.
#[derive(Debug, PartialEq, Eq)]
enum Name<'a> {
    Text(&'a str),
    /// An id that is used as it is.
    Id(UserId),
}

impl fmt::Debug for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("People").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl People {
    /// Reads the issuer's keys. Where they cannot be read from the network now, that is tried again in
    /// the background, and nobody is known until then.
    ///
    /// # Errors
    /// What is wrong with the file of the keys or of the authorities.
    pub async fn open(config: &AuthConfig, store: &Store) -> Result<Self, String> {
        let issuer = config.issuer.clone().unwrap_or_default();
        let keys = Arc::new(Keys::open(config, &issuer).await?);
        let reading = keys::keep_read(Arc::downgrade(&keys));
        store.tasks().spawn("issuer keys", reading);
        Ok(Self {
            issuer,
            claim: config.user_claim.clone(),
            leeway_ms: i64::from(config.leeway_seconds) * 1_000,
            keys,
            ids: Ids::new(store.clone()),
            remembered: Cache::new(REMEMBERED_MAX),
        })
    }

    /// Lets go of the store. Nobody new is known any more.
    pub async fn close(&self) {
        self.ids.close().await;
    }

    /// Returns whose token it is, at `now`.
    ///
    /// # Errors
    /// [`Stranger`].
    pub async fn person(&self, token: &str, now: Timestamp) -> Result<UserId, Stranger> {
        if token.len() > TOKEN_MAX {
            return Err(invalid(format!("it is longer than {TOKEN_MAX} bytes")));
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.remembered.get(&digest)
            && now < known.until
        {
            return Ok(known.user);
        }
        let (claims, until) = self.check(token, None, now).await?;
        let user = self.id_of(&claims, now).await?;
        self.remembered.insert(digest, Known { user, until });
        Ok(user)
    }

    /// Returns whose ID token it is, at `now`: one that was made for this client, for the sign-in with this
    /// nonce (OpenID Connect Core 1.0, 3.1.3.7).
    ///
    /// # Errors
    /// [`Stranger`].
    pub async fn signed_in(
        &self,
        token: &str,
        client: &str,
        nonce: &str,
        now: Timestamp,
    ) -> Result<SignedIn, Stranger> {
        if token.len() > TOKEN_MAX {
            return Err(invalid(format!("it is longer than {TOKEN_MAX} bytes")));
        }
        let (claims, _) = self.check(token, Some(client), now).await?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("nonce") != Some(nonce) {
            return Err(invalid("it is of another sign-in (nonce)"));
        }
        let audiences = claims.get("aud").and_then(Value::as_array).map_or(1, Vec::len);
        if (audiences > 1 || claims.contains_key("azp")) && text("azp") != Some(client) {
            return Err(invalid("it was made for another client (azp)"));
        }
        let user = self.id_of(&claims, now).await?;
        let name = NAMES.iter().filter_map(|name| text(name)).map(to_be_shown);
        let name = name.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        Ok(SignedIn { user, name })
    }

    /// Returns the id of the person that claims are about.
    async fn id_of(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<UserId, Stranger> {
        let person = self.named(claims)?;
        let found = self.ids.id_of(person, now).await.map_err(Stranger::Store)?;
        found.ok_or_else(|| invalid("another person has this id here"))
    }

    /// Returns what a good token says, and until when it is good. It is for a client of the issuer, or else
    /// for the configured audience.
    async fn check(
        &self,
        token: &str,
        client: Option<&str>,
        now: Timestamp,
    ) -> Result<(Map<String, Value>, Timestamp), Stranger> {
        let malformed = || invalid("it is no signed JWT with RS256, ES256 or EdDSA");
        let header = decode_header(token).map_err(|_| malformed())?;
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA) {
            return Err(malformed());
        }
        if header.crit.is_some() {
            return Err(invalid("its header asks for more than is understood here (crit)"));
        }
        let found = self.keys.find(header.kid.as_deref(), header.alg).await;
        let keys = found.map_err(|why| match why {
            NoKey::NotRead => Stranger::NoKeys,
            NoKey::Unknown => invalid("it is signed with a key that the issuer does not have"),
        })?;
        // The issuer may have called two keys by one name.
        let mut why = malformed();
        for Key { decoding, validation, .. } in &keys {
            let mut of_client = None;
            if let Some(client) = client {
                of_client.insert(validation.clone()).set_audience(&[client]);
            }
            let validation = of_client.as_ref().unwrap_or(validation);
            match decode::<Map<String, Value>>(token, decoding, validation) {
                // One issuer, and not a list that has it.
                Ok(data) if !data.claims.get("iss").is_some_and(Value::is_string) => {
                    return Err(invalid("its iss is no text"));
                }
                Ok(data) => {
                    let until = self.time_of(&data.claims, now)?;
                    return Ok((data.claims, until));
                }
                Err(error) => why = invalid(error.to_string()),
            }
        }
        Err(why)
    }

    /// Returns until when a token is good that is good at `now`.
    fn time_of(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, Stranger> {
        // Seconds since 1970, and fractions of one (RFC 7519, NumericDate).
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                #[allow(clippy::cast_possible_truncation, reason = "it saturates")]
                Some(seconds) => Ok(Some(Timestamp((seconds * 1_000.0) as i64))),
                None => Err(invalid(format!("its {name} is no time"))),
            },
        };
        let until = time("exp")?.ok_or_else(|| invalid("it has no exp"))?;
        let until = Timestamp(until.0.saturating_add(self.leeway_ms));
        if now >= until {
            return Err(invalid("it has expired"));
        }
        if time("nbf")?.is_some_and(|from| from.0.saturating_sub(self.leeway_ms) > now.0) {
            return Err(invalid("it is not good yet (nbf)"));
        }
        Ok(until)
    }

    /// Returns what the claims call their person.
    fn named(&self, claims: &Map<String, Value>) -> Result<NewPerson, Stranger> {
        let claim = &self.claim;
        let name = match claims.get(claim) {
            Some(Value::String(text)) if text.is_empty() => {
                return Err(invalid(format!("its {claim} is empty")));
            }
            Some(Value::String(text)) if text.chars().count() > NAME_MAX => {
                return Err(invalid(format!("its {claim} is longer than {NAME_MAX} characters")));
            }
            Some(Value::String(text)) => Name::Text(text),
            Some(Value::Number(number)) => {
                let id = number.as_i64().filter(|id| *id <= PERSON_MAX).and_then(UserId::new);
                Name::Id(id.ok_or_else(|| {
                    invalid(format!("its {claim} is no whole number from 1 to {PERSON_MAX}"))
                })?)
            }
            Some(_) => return Err(invalid(format!("its {claim} is neither text nor a number"))),
            None => return Err(invalid(format!("it has no {claim}"))),
        };
        // Which kind of name it is belongs to it: 17 and "17" are two people.
        let (kind, name, id) = match name {
            Name::Text(text) => (b't', text.to_owned(), None),
            Name::Id(id) => (b'n', id.to_string(), Some(id)),
        };
        let length = self.issuer.len() as u64;
        let digest = Sha256::new()
            .chain_update(length.to_be_bytes())
            .chain_update(&self.issuer)
            .chain_update([kind])
            .chain_update(&name);
        Ok(NewPerson { digest: digest.finalize().into(), issuer: self.issuer.clone(), name, id })
    }
}
