//! Who the operators are: the holder of `admin.token`, and those whom the store knows by digests of their
//! tokens. What is known is in memory, so that looking a token up costs the store nothing.
//!
//! What does not belong here: HTTP, and which endpoint needs which role (`endpoints`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boxoffice_backends::Fault;
use boxoffice_backends::store::{Role, Store};
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// What the holder of `admin.token` is called.
pub const CONFIGURED: &str = "admin";
/// Who changes the store from the command line where no service runs.
pub const COMMAND_LINE: &str = "command-line";
/// How tokens of operators begin, so that one in a log or a repository is known for what it is.
pub const TOKEN_PREFIX: &str = "bxo_";
/// The operators are read again this often. The docs promise it.
pub const REFRESH: Duration = Duration::from_secs(2);
/// Operators of the store are believed for so long without it having been read.
const STALE: Duration = Duration::from_secs(30);

/// An operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// What the log calls them.
    pub name: Arc<str>,
    /// What they may do.
    pub role: Role,
}

/// The operators.
pub struct Operators {
    configured: [u8; 32],
    known: RwLock<Known>,
    /// Held while they are read, so that an earlier reading never replaces a later one.
    reading: tokio::sync::Mutex<()>,
}

struct Known {
    by_digest: HashMap<[u8; 32], Operator>,
    read_at: Instant,
}

impl Operators {
    /// The operators of a store. `admin_token` is good whatever the store says.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn open(admin_token: &str, store: &Store) -> Result<Self, Fault> {
        let known = RwLock::new(Known { by_digest: HashMap::new(), read_at: Instant::now() });
        let reading = tokio::sync::Mutex::new(());
        let operators = Self { configured: digest(admin_token), known, reading };
        operators.refresh(store).await?;
        Ok(operators)
    }

    /// Whose token this is; none where it is nobody's. Reads memory only.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] where it may be somebody's, but the store has not told for long who is
    /// still an operator.
    pub fn find(&self, token: &str) -> Result<Option<Operator>, Fault> {
        // Digests, so that the time of the comparison tells nothing about the token.
        self.find_digested(&digest(token))
    }

    /// The same by the [`digest`] of the token.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_digested(&self, digest: &[u8; 32]) -> Result<Option<Operator>, Fault> {
        if *digest == self.configured {
            return Ok(Some(Operator { name: CONFIGURED.into(), role: Role::Admin }));
        }
        let known = self.known.read();
        if known.read_at.elapsed() > STALE {
            let why = "the store has not told for long who the operators are";
            return Err(Fault::Unavailable(why.into()));
        }
        Ok(known.by_digest.get(digest).cloned())
    }

    /// Reads them again.
    ///
    /// # Errors
    /// Where the store cannot be read; what was known stays.
    pub async fn refresh(&self, store: &Store) -> Result<(), Fault> {
        let _reading = self.reading.lock().await;
        let read_at = Instant::now();
        let by_digest = store.operators().await?.into_iter().map(|stored| {
            (stored.digest, Operator { name: stored.name.into(), role: stored.role })
        });
        let by_digest = by_digest.collect();
        *self.known.write() = Known { by_digest, read_at };
        Ok(())
    }
}

/// What is stored of a token. It is random and long, so a plain digest gives nothing away.
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// A new token: 244 random bits.
pub fn new_token() -> String {
    format!("{TOKEN_PREFIX}{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Whether an operator can be called so. Names that the service gives itself are not to be had.
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    let fits = (1..=40).contains(&name.len()) && name.bytes().all(plain);
    fits && ![CONFIGURED, COMMAND_LINE].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_nobody_is_called_as_the_service_calls_somebody() {
        for good in ["a", "desk-1", "box_office", &"x".repeat(40)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "Desk", "desk 1", "admin", "command-line", "désk", &"x".repeat(41)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn tokens_are_known_by_their_beginning_and_are_never_the_same() {
        let (one, two) = (new_token(), new_token());
        assert_ne!(one, two);
        assert!(one.starts_with("bxo_") && one.len() == 4 + 64, "{one}");
        assert_ne!(digest(&one), digest(&two));
    }
}
