//! Signed tickets: JSON Web Tokens (RFC 7519) with HMAC-SHA-256.
//!
//! A token is made and checked on the hottest paths, and its header is always one of ours, so the
//! header is compared as text and its part of the MAC is computed once: it fills a block of SHA-256,
//! so that nothing of it is hashed again. What is signed is plain JWT all the same: a test reads one
//! the way RFC 7515 says, without any of this.

use std::fmt;

use base64_simd::{AsOut, URL_SAFE_NO_PAD as BASE64};
use boxoffice_backends::store::Epochs;
use boxoffice_domain::ids::{QueueName, TicketId, UserId};
use boxoffice_domain::queue::Ticket;
use boxoffice_domain::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::challenge::challenge_key;
use crate::console::session_key;

/// Longer than any token of ours; a longer one is refused unread.
const TOKEN_LENGTH_MAX: usize = 512;

/// The most characters of claims: two numbers of 20 digits, a time of 20 and a queue's name of 40.
const CLAIMS_LENGTH_MAX: usize = 192;

/// The Base64 of a ticket's id, and that of a MAC.
const TICKET_ID_LENGTH: usize = 22;
const SIGNATURE_LENGTH: usize = 43;

/// The first characters of every signed token: the Base64 of `{"`.
const SIGNED_PREFIX: &str = "eyJ";

/// Whether the text could be a signed token. Opaque tokens must not look like one.
pub fn looks_signed(token: &str) -> bool {
    token.starts_with(SIGNED_PREFIX)
}

/// The claim of a ticket of a person who was known. Where users are believed, anybody could have got it.
const PERSON_CLAIM: &str = r#","p":1"#;

use NoTicket::Forged;

/// The keys that tickets are signed and checked with.
pub struct SigningKeys {
    signing: Key,
    previous: Vec<Key>,
    epochs: Epochs,
    /// Whether tickets are given to people who are known.
    of_people: bool,
}

struct Key {
    id: String,
    /// `header.` in Base64, as it stands at the start of every token under this key.
    prefix: String,
    /// The MAC with the prefix already in it.
    mac: Hmac<Sha256>,
    /// What challenges are signed with.
    challenge: String,
    /// What sessions of the console are signed with.
    session: [u8; 32],
    /// What cookies of people are sealed with.
    cookie: [u8; 32],
}

/// Why a token is no ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTicket {
    /// It is not one of ours, or was changed.
    Forged,
    /// It is of another epoch: it was given after the backup that the store was restored from, and its
    /// number may be somebody else's now.
    OfAnotherEpoch,
}

impl Key {
    fn new(secret: &[u8]) -> Self {
        let id = key_id(secret);
        let header = format!(r#"{{"alg":"HS256","typ":"JWT","kid":"{id}"}}"#);
        let prefix = format!("{}.", BASE64.encode_to_string(header));
        // HMAC takes a key of any length.
        #[allow(clippy::expect_used)]
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length is a key");
        let cookie = mac.clone().chain_update(b"boxoffice cookie key").finalize().into_bytes();
        mac.update(prefix.as_bytes());
        let (challenge, session) = (challenge_key(secret), session_key(secret));
        Self { id, prefix, mac, challenge, session, cookie: cookie.into() }
    }
}

/// A name for a key that tells nothing about it: 11 characters, with which a token's header is as long
/// as a block of SHA-256.
pub fn key_id(secret: &[u8]) -> String {
    let digest = Sha256::new().chain_update(b"boxoffice key id").chain_update(secret).finalize();
    BASE64.encode_to_string(&digest[..8])
}

impl SigningKeys {
    /// Signs with `signing` and also accepts what was signed with any of `previous`.
    pub fn new<'a>(signing: &[u8], previous: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let previous = previous.into_iter().map(Key::new).collect();
        Self { signing: Key::new(signing), previous, epochs: Epochs::default(), of_people: false }
    }

    /// The same in a store with these epochs: tickets are signed in the current one.
    pub fn within(self, epochs: Epochs) -> Self {
        Self { epochs, ..self }
    }

    /// The epoch in which tickets are signed.
    pub fn epoch(&self) -> u32 {
        self.epochs.current()
    }

    /// Whether a ticket of this epoch and number belongs to the store; see [`Epochs::have`].
    pub fn belongs(&self, epoch: u32, queue: &QueueName, seq: u64) -> bool {
        self.epochs.have(epoch, queue, seq)
    }

    /// The same for people who are known, which their tickets say.
    pub fn of_people(self, of_people: bool) -> Self {
        Self { of_people, ..self }
    }

    /// The id of the key that signs.
    pub fn signing_id(&self) -> &str {
        &self.signing.id
    }

    /// The ids of all keys: the one that signs, then the others.
    pub fn ids(&self) -> Vec<String> {
        let all = std::iter::once(&self.signing).chain(&self.previous);
        all.map(|key| key.id.clone()).collect()
    }

    /// The keys of challenges: the one that signs, then the others. All instances have the same, and they
    /// change with those of tickets.
    pub fn challenge_keys(&self) -> Vec<String> {
        let all = std::iter::once(&self.signing).chain(&self.previous);
        all.map(|key| key.challenge.clone()).collect()
    }

    /// The same of sessions of the console.
    pub fn session_keys(&self) -> Vec<[u8; 32]> {
        let all = std::iter::once(&self.signing).chain(&self.previous);
        all.map(|key| key.session).collect()
    }

    /// The keys of cookies: the one that seals, then the others.
    pub fn cookie_keys(&self) -> Vec<[u8; 32]> {
        let all = std::iter::once(&self.signing).chain(&self.previous);
        all.map(|key| key.cookie).collect()
    }

    /// Whether tokens under the key with this id are accepted.
    pub fn knows(&self, id: &str) -> bool {
        self.signing.id == id || self.previous.iter().any(|key| key.id == id)
    }

    /// The ticket as a token, where that is to be written.
    pub const fn signed<'a>(&'a self, ticket: &'a Ticket) -> Signed<'a> {
        Signed { keys: self, ticket }
    }

    /// Writes the ticket as a token behind what is there. The claims are `sub` the user, `q` the queue, `seq` the number, `iat`
    /// the second of issue, and `jti` the unique id in Base64; `ep` the epoch, after a restore; and `p` where the user is a person
    /// who was known.
    fn sign(&self, ticket: &Ticket, token: &mut Vec<u8>) {
        // No text in it needs escaping: a queue's name is letters, digits, `-` and `_`.
        let mut number = itoa::Buffer::new();
        let mut claims = Claims { text: [0; CLAIMS_LENGTH_MAX], length: 0 };
        claims.push(br#"{"sub":""#);
        claims.push(number.format(ticket.user.get()).as_bytes());
        claims.push(br#"","q":""#);
        claims.push(ticket.queue.as_str().as_bytes());
        claims.push(br#"","seq":"#);
        claims.push(number.format(ticket.seq).as_bytes());
        claims.push(br#","iat":"#);
        claims.push(number.format(ticket.issued_at.0.div_euclid(1000)).as_bytes());
        claims.push(br#","jti":""#);
        let mut id = [0; TICKET_ID_LENGTH];
        claims.push(BASE64.encode(&ticket.id.0, id[..].as_out()));
        claims.push(b"\"");
        if self.epochs.current() != 0 {
            claims.push(br#","ep":"#);
            claims.push(number.format(self.epochs.current()).as_bytes());
        }
        if self.of_people {
            claims.push(PERSON_CLAIM.as_bytes());
        }
        claims.push(b"}");
        token.extend_from_slice(self.signing.prefix.as_bytes());
        let begin = token.len();
        BASE64.encode_append(claims.as_bytes(), token);
        let mut mac = self.signing.mac.clone();
        mac.update(&token[begin..]);
        token.push(b'.');
        BASE64.encode_append(mac.finalize().into_bytes(), token);
    }

    /// The ticket in a token, its queue, which `find` knows by its name, and whether its user was known as
    /// a person when it was given.
    ///
    /// # Errors
    /// [`NoTicket::Forged`] for anything that [`SigningKeys::sign`] has not made under a known key for a
    /// queue that `find` knows; [`NoTicket::OfAnotherEpoch`] for what a restore has undone.
    pub fn verify<Q>(
        &self,
        token: &str,
        find: impl FnOnce(&str) -> Option<(QueueName, Q)>,
    ) -> Result<(Ticket, Q, bool), NoTicket> {
        if token.len() > TOKEN_LENGTH_MAX {
            return Err(Forged);
        }
        let keys = std::iter::once(&self.signing).chain(&self.previous);
        let (key, rest) = keys
            .filter_map(|key| token.strip_prefix(key.prefix.as_str()).map(|rest| (key, rest)))
            .next()
            .ok_or(Forged)?;
        let at = rest.len().checked_sub(SIGNATURE_LENGTH + 1).ok_or(Forged)?;
        let (claims, signature) = rest.as_bytes().split_at(at);
        let signature = signature.strip_prefix(b".").ok_or(Forged)?;
        let mut tag = [0; 32];
        let tag = BASE64.decode(signature, tag[..].as_out()).map_err(|_| Forged)?;
        let mut mac = key.mac.clone();
        mac.update(claims);
        // In constant time, so that a tag cannot be found out byte by byte.
        mac.verify_slice(tag).map_err(|_| Forged)?;
        let mut buffer = [0; TOKEN_LENGTH_MAX];
        let claims = BASE64.decode(claims, buffer[..].as_out()).map_err(|_| Forged)?;
        let claims = std::str::from_utf8(claims).map_err(|_| Forged)?;
        // The signature says that we wrote this, so it has exactly the form in which we write it.
        let (ticket, found, epoch, is_person) = parse_claims(claims, find).ok_or(Forged)?;
        if !self.epochs.have(epoch, &ticket.queue, ticket.seq) {
            return Err(NoTicket::OfAnotherEpoch);
        }
        Ok((ticket, found, is_person))
    }
}

/// A ticket as a token.
pub struct Signed<'a> {
    keys: &'a SigningKeys,
    ticket: &'a Ticket,
}

impl Signed<'_> {
    /// Writes the token behind what is there.
    pub fn append_to(&self, text: &mut Vec<u8>) {
        self.keys.sign(self.ticket, text);
    }
}

impl fmt::Display for Signed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut token = Vec::with_capacity(TOKEN_LENGTH_MAX);
        self.append_to(&mut token);
        f.write_str(str::from_utf8(&token).map_err(|_| fmt::Error)?)
    }
}

/// The claims while they are written.
struct Claims {
    text: [u8; CLAIMS_LENGTH_MAX],
    length: usize,
}

impl Claims {
    fn push(&mut self, text: &[u8]) {
        self.text[self.length..][..text.len()].copy_from_slice(text);
        self.length += text.len();
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

fn parse_claims<Q>(
    claims: &str,
    find: impl FnOnce(&str) -> Option<(QueueName, Q)>,
) -> Option<(Ticket, Q, u32, bool)> {
    let (user, rest) = number(claims.strip_prefix(r#"{"sub":""#)?)?;
    let rest = rest.strip_prefix(r#"","q":""#)?;
    let (name, rest) = rest.split_at(rest.bytes().position(|byte| byte == b'"')?);
    let (seq, rest) = number(rest.strip_prefix(r#"","seq":"#)?)?;
    let (seconds, rest) = number(rest.strip_prefix(r#","iat":"#)?)?;
    let (id, rest) = rest.strip_prefix(r#","jti":""#)?.split_at_checked(TICKET_ID_LENGTH)?;
    let rest = rest.strip_prefix('"')?;
    let (epoch, rest) = match rest.strip_prefix(r#","ep":"#) {
        None => (0, rest),
        Some(rest) => number(rest)?,
    };
    let epoch = u32::try_from(epoch).ok()?;
    let (is_person, rest) = match rest.strip_prefix(PERSON_CLAIM) {
        None => (false, rest),
        Some(rest) => (true, rest),
    };
    if rest != "}" {
        return None;
    }
    let mut bytes = [0; 16];
    BASE64.decode(id.as_bytes(), bytes[..].as_out()).ok()?;
    let (queue, found) = find(name)?;
    let ticket = Ticket {
        queue,
        seq,
        user: UserId::new(i64::try_from(user).ok()?)?,
        issued_at: Timestamp(i64::try_from(seconds).ok()?.checked_mul(1000)?),
        id: TicketId(bytes),
    };
    Some((ticket, found, epoch, is_person))
}

/// The number that a text begins with, and what follows.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as OTHER_BASE64;
    use proptest::prelude::*;

    use super::*;

    fn ticket(seq: u64, user: i64, id: u128) -> Ticket {
        Ticket {
            queue: QueueName::new("main").unwrap(),
            seq,
            user: UserId::new(user).unwrap(),
            issued_at: Timestamp(1_763_800_000_000),
            id: TicketId(id.to_be_bytes()),
        }
    }

    fn read(keys: &SigningKeys, token: &str) -> Result<Ticket, NoTicket> {
        let any = |name: &str| Some((QueueName::new(name)?, ()));
        keys.verify(token, any).map(|(ticket, (), _)| ticket)
    }

    fn keys() -> SigningKeys {
        SigningKeys::new(b"0123456789abcdef0123456789abcdef", [])
    }

    proptest! {
        #[test]
        fn what_is_signed_is_read_back(seq: u64, user in 1..=i64::MAX, id: u128) {
            let token = keys().signed(&ticket(seq, user, id)).to_string();
            prop_assert!(token.len() <= TOKEN_LENGTH_MAX && looks_signed(&token));
            prop_assert_eq!(read(&keys(), &token), Ok(ticket(seq, user, id)));
        }

        #[test]
        fn any_change_is_forgery(at: prop::sample::Index, byte in 33_u8..127) {
            let token = keys().signed(&ticket(7, 3, 9)).to_string();
            let mut bytes = token.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(read(&keys(), &changed).is_ok(), changed == token);
        }

        #[test]
        fn any_cut_or_addition_is_forgery(cut in 0_usize..200, more in "[!-~]{1,20}") {
            let token = keys().signed(&ticket(7, 3, 9)).to_string();
            prop_assert!(read(&keys(), &token[..cut.min(token.len() - 1)]).is_err());
            let (behind, before) = (format!("{token}{more}"), format!("{more}{token}"));
            prop_assert!(read(&keys(), &behind).is_err());
            prop_assert!(read(&keys(), &before).is_err());
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,600}") {
            prop_assert!(read(&keys(), &text).is_err());
        }
    }

    #[test]
    fn a_token_is_a_plain_jwt() {
        let token = keys().signed(&ticket(7, 3, 9)).to_string();
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else { panic!("three parts: {token}") };
        let json = |part: &str| -> serde_json::Value {
            serde_json::from_slice(&OTHER_BASE64.decode(part).unwrap()).unwrap()
        };
        assert_eq!(json(header)["alg"], "HS256");
        assert_eq!(json(header)["kid"], keys().signing_id());
        let claims_read = json(claims);
        assert_eq!(claims_read["sub"], "3");
        assert_eq!(claims_read["seq"], 7);
        assert_eq!(claims_read["iat"], 1_763_800_000);
        let mut mac = Hmac::<Sha256>::new_from_slice(b"0123456789abcdef0123456789abcdef").unwrap();
        mac.update(format!("{header}.{claims}").as_bytes());
        assert_eq!(OTHER_BASE64.decode(signature).unwrap(), mac.finalize().into_bytes().as_slice());
    }

    #[test]
    fn one_token_has_one_form() {
        // The last character of a signature has bits that mean nothing; they must not be ignored.
        let token = keys().signed(&ticket(7, 3, 9)).to_string();
        let (begin, last) = token.split_at(token.len() - 1);
        for other in (33_u8..127).map(char::from).filter(|other| !last.contains(*other)) {
            assert_eq!(read(&keys(), &format!("{begin}{other}")), Err(Forged), "{other}");
        }
    }

    #[test]
    fn the_longest_claims_fit() {
        let queue = QueueName::new(&"q".repeat(QueueName::LENGTH_MAX)).unwrap();
        let issued_at = Timestamp(i64::MAX / 1000 * 1000);
        let ticket = Ticket { queue, issued_at, ..ticket(u64::MAX, i64::MAX, u128::MAX) };
        let keys = keys().within(Epochs::default().with(u32::MAX, []).unwrap()).of_people(true);
        assert_eq!(read(&keys, &keys.signed(&ticket).to_string()), Ok(ticket));
    }

    proptest! {
        /// Of all tickets that were given before and after a backup, and after its restore, those that are
        /// taken have numbers of their own, and none that is of the store is lost.
        #[test]
        fn a_restore_leaves_no_number_to_two(
            restores in prop::collection::vec((0_u64..50, 0_u64..50), 1..5),
        ) {
            let queue = QueueName::new("main").unwrap();
            let mut epochs = Epochs::default();
            // Each given number, whose it is, and whether it is of the store.
            let (mut next, mut given, mut user) = (0, Vec::new(), 0);
            for (id, (before, after)) in (1_u32..).zip(restores) {
                let mut backup = next;
                for (of_store, count) in [(true, before), (false, after)] {
                    for _ in 0..count {
                        (next, user) = (next + 1, user + 1);
                        let keys = keys().within(epochs.clone());
                        let token = keys.signed(&ticket(next, user, 1)).to_string();
                        given.push((token, next, user, of_store));
                    }
                    if of_store {
                        backup = next;
                    }
                }
                epochs = epochs.with(id, [(queue.clone(), backup)]).unwrap();
                next = backup;
            }
            let keys = keys().within(epochs);
            let mut owners = std::collections::BTreeMap::new();
            for (token, seq, user, of_store) in given {
                match read(&keys, &token) {
                    Ok(ticket) => {
                        prop_assert!(of_store);
                        prop_assert_eq!((ticket.seq, ticket.user.get()), (seq, user));
                        prop_assert_eq!(owners.insert(seq, user), None);
                    }
                    Err(refused) => {
                        prop_assert_eq!((refused, of_store), (NoTicket::OfAnotherEpoch, false));
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_epoch_stands_in_no_token() {
        let queue = QueueName::new("main").unwrap();
        let (before, after) = (keys(), keys());
        let after = after.within(Epochs::default().with(7, [(queue, 10)]).unwrap());
        let kept = before.signed(&ticket(10, 3, 9)).to_string();
        let lost = before.signed(&ticket(11, 3, 9)).to_string();
        assert_eq!(read(&after, &kept), Ok(ticket(10, 3, 9)));
        assert_eq!(read(&after, &lost), Err(NoTicket::OfAnotherEpoch));
        let new = after.signed(&ticket(11, 3, 9)).to_string();
        assert_eq!(read(&after, &new), Ok(ticket(11, 3, 9)));
        // Nor does a store take one that was given after a restore of which it knows nothing.
        assert_eq!(read(&before, &new), Err(NoTicket::OfAnotherEpoch));
        let claims = OTHER_BASE64.decode(new.split('.').nth(1).unwrap()).unwrap();
        assert!(String::from_utf8(claims).unwrap().ends_with(r#","ep":7}"#));
    }

    #[test]
    fn a_ticket_says_whether_its_user_was_known() {
        let (believed, known) = (keys(), keys().of_people(true));
        for keys in [&believed, &known] {
            for (by, is_person) in [(&believed, false), (&known, true)] {
                let token = by.signed(&ticket(7, 3, 9)).to_string();
                let any = |name: &str| Some((QueueName::new(name)?, ()));
                assert_eq!(keys.verify(&token, any), Ok((ticket(7, 3, 9), (), is_person)));
            }
        }
    }

    #[test]
    fn the_header_is_a_block_of_the_hash() {
        assert_eq!(keys().signing.prefix.len(), 64);
    }

    #[test]
    fn keys_can_be_rotated() {
        let old = keys();
        let token = old.signed(&ticket(1, 1, 1)).to_string();
        let secret: &[u8] = b"0123456789abcdef0123456789abcdef";
        let new = SigningKeys::new(b"another key of thirty-two bytes!", [secret]);
        assert!(read(&new, &token).is_ok());
        assert!(new.knows(old.signing_id()));
        assert_ne!(new.signing_id(), old.signing_id());
        assert!(read(&old, &new.signed(&ticket(1, 1, 1)).to_string()).is_err());
    }

    #[test]
    fn another_algorithm_in_the_header_is_forgery() {
        let none = OTHER_BASE64.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let claims =
            keys().signed(&ticket(1, 1, 1)).to_string().split('.').nth(1).unwrap().to_owned();
        assert_eq!(read(&keys(), &format!("{none}.{claims}.")), Err(Forged));
    }
}
