//! Proof of work at the door: challenges, and their solutions, as the widget ALTCHA speaks them.
//!
//! It is the first version of its format, because every widget knows that one. Nobody here remembers a
//! challenge: its parameters stand in its salt, of which the challenge is a digest, and that is signed
//! (docs/decisions/046 says why, and why it is written here).
//!
//! What does not belong here: HTTP, and which solutions were used (see the sequencer).

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;

use base64_simd::STANDARD as BASE64;
use boxoffice_backends::sequencer::Solution;
use boxoffice_domain::ids::UserId;
use boxoffice_domain::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::config::{ChallengeConfig, ChallengeMode};

/// The only digest that is used, by the name that the widget knows.
const ALGORITHM: &str = "SHA-256";

/// Longer than any solution of ours, which a widget may say more about; a longer one is refused unread.
const PAYLOAD_LENGTH_MAX: usize = 2_048;

/// A challenge: to find the number whose digest behind the salt it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Challenge {
    /// The digest to be used.
    #[schema(value_type = String, example = "SHA-256")]
    pub algorithm: &'static str,
    /// The digest of the salt with the number behind it, in hexadecimal.
    pub challenge: String,
    /// The highest number that it may be; all are as likely.
    pub maxnumber: u64,
    /// What stands before the number. It says until when the challenge is good, for which queue, and for
    /// whom.
    pub salt: String,
    /// Shows that this service has made it.
    pub signature: String,
}

/// A solution, as the widget writes it: Base64 of this as JSON.
#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    algorithm: Cow<'a, str>,
    #[serde(borrow)]
    challenge: Cow<'a, str>,
    number: u64,
    #[serde(borrow)]
    salt: Cow<'a, str>,
    #[serde(borrow)]
    signature: Cow<'a, str>,
}

/// Whom a challenge is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// A person who is known.
    Person(UserId),
    /// Whoever comes from this address, or, where it is none, from this machine or one of its proxies.
    Address(Option<IpAddr>),
}

/// Why a solution is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It is not what a widget makes of a challenge of ours.
    Malformed,
    /// The challenge is not ours, or was changed.
    Forged,
    /// The number is not the one.
    Wrong,
    /// The challenge is over.
    Expired,
    /// The challenge is for another queue.
    OfAnotherQueue,
    /// The challenge is for another person or address, or whoever knew whether it was used is gone.
    OfAnother,
}

impl Flaw {
    /// What the client is told.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Malformed => "it is not what the widget makes of a challenge of this service",
            Self::Forged => "the challenge is not of this service, or was changed",
            Self::Wrong => "the number does not solve the challenge",
            Self::Expired => "the challenge is over",
            Self::OfAnotherQueue => "the challenge is for another queue",
            Self::OfAnother => {
                "the challenge is for another person or address, or from before a restart"
            }
        }
    }
}

/// What challenges are signed with: the first key signs, and all are accepted.
pub struct Challenges {
    keys: Vec<Hmac<Sha256>>,
    /// Whoever remembers which solutions were used: nobody else accepts them.
    memory: Uuid,
}

/// The key that challenges are signed with, as text, where tickets are signed with this secret. Nothing
/// about the secret follows from it.
pub fn challenge_key(ticket_secret: &[u8]) -> String {
    hex(&mac(&new_mac(ticket_secret), b"boxoffice challenge key"))
}

fn new_mac(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes a key of any length.
    #[allow(clippy::expect_used)]
    Hmac::<Sha256>::new_from_slice(key).expect("any length is a key")
}

fn mac(key: &Hmac<Sha256>, text: &[u8]) -> [u8; 32] {
    key.clone().chain_update(text).finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest(salt: &str, number: u64) -> [u8; 32] {
    let mut text = itoa::Buffer::new();
    Sha256::new().chain_update(salt).chain_update(text.format(number)).finalize().into()
}

impl Challenges {
    /// Challenges of a service with these keys (see [`challenge_key`]), which are good where this memory
    /// has those that were used.
    pub fn new(keys: &[String], memory: Uuid) -> Self {
        Self { keys: keys.iter().map(|key| new_mac(key.as_bytes())).collect(), memory }
    }

    /// Stands for somebody, and tells nobody else who it is.
    fn mark(&self, key: &Hmac<Sha256>, whom: Whom) -> String {
        let memory = self.memory.simple();
        let text = match whom {
            Whom::Person(user) => format!("{memory} person {user}"),
            Whom::Address(Some(address)) => format!("{memory} address {address}"),
            Whom::Address(None) => format!("{memory} address of ours"),
        };
        hex(&mac(key, text.as_bytes())[..8])
    }

    /// A new challenge with numbers up to `maxnumber`. None where there is no key.
    pub fn make(
        &self,
        queue: &str,
        whom: Whom,
        maxnumber: u64,
        expires_at: Timestamp,
    ) -> Option<Challenge> {
        // The lower 62 bits are all random.
        let random = (Uuid::new_v4().as_u128() & (u128::MAX >> 66)) as u64;
        let number = random % maxnumber.saturating_add(1);
        let key = self.keys.first()?;
        let salt = Salt {
            random: &Uuid::new_v4().simple().to_string(),
            expires: expires_at.0.div_euclid(1_000),
            queue,
            whom: &self.mark(key, whom),
        };
        let salt = salt.to_text();
        let challenge = hex(&digest(&salt, number));
        let signature = hex(&mac(key, challenge.as_bytes()));
        Some(Challenge { algorithm: ALGORITHM, challenge, maxnumber, salt, signature })
    }

    /// The solution in the text of a widget, of a challenge that was made for this queue and for one of
    /// these. By whom it is used is not filled in.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(
        &self,
        payload: &str,
        queue: &str,
        whom: &[Whom],
        now: Timestamp,
    ) -> Result<Solution, Flaw> {
        if payload.len() > PAYLOAD_LENGTH_MAX {
            return Err(Flaw::Malformed);
        }
        let json = BASE64.decode_to_vec(payload).map_err(|_| Flaw::Malformed)?;
        let payload: Payload<'_> = serde_json::from_slice(&json).map_err(|_| Flaw::Malformed)?;
        let salt = Salt::parse(&payload.salt).ok_or(Flaw::Malformed)?;
        let signature = of_hex(&payload.signature).ok_or(Flaw::Malformed)?;
        if payload.algorithm != ALGORITHM {
            return Err(Flaw::Malformed);
        }
        let is_signed_by = |key: &&Hmac<Sha256>| {
            let mac = Hmac::clone(key).chain_update(payload.challenge.as_bytes());
            // In constant time, so that a signature cannot be found out byte by byte.
            mac.verify_slice(&signature).is_ok()
        };
        let key = self.keys.iter().find(is_signed_by).ok_or(Flaw::Forged)?;
        // What the challenge is a digest of is ours, if it is: the salt, and where it ends.
        let digest = digest(&payload.salt, payload.number);
        if payload.challenge != hex(&digest) {
            return Err(Flaw::Wrong);
        }
        let expires_at = Timestamp(salt.expires.saturating_mul(1_000));
        if now >= expires_at {
            return Err(Flaw::Expired);
        }
        if salt.queue != queue {
            return Err(Flaw::OfAnotherQueue);
        }
        if !whom.iter().any(|whom| self.mark(key, *whom) == salt.whom) {
            return Err(Flaw::OfAnother);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Ok(Solution { id, expires_at, by: None })
    }
}

/// What stands before the number: in one form only, and with an end, so that no digit of the number can be
/// taken for one of a parameter.
struct Salt<'a> {
    random: &'a str,
    expires: i64,
    queue: &'a str,
    whom: &'a str,
}

impl<'a> Salt<'a> {
    fn to_text(&self) -> String {
        let Self { random, expires, queue, whom } = self;
        format!("{random}?expires={expires}&queue={queue}&for={whom}&")
    }

    fn parse(text: &'a str) -> Option<Self> {
        let (random, parameters) = text.split_once("?expires=")?;
        let (expires, parameters) = parameters.split_once("&queue=")?;
        let (queue, whom) = parameters.split_once("&for=")?;
        let salt =
            Self { random, expires: expires.parse().ok()?, queue, whom: whom.strip_suffix('&')? };
        (salt.to_text() == text).then_some(salt)
    }
}

fn of_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Up to which number challenges go while so many joins come in a second; none where nobody is asked for
/// one. It rises as the joins do, so that twice as many cost whoever sends them all four times as much.
pub fn maxnumber(config: &ChallengeConfig, joins_per_second: f64) -> Option<u64> {
    let ChallengeConfig { mode, target_per_second, maxnumber_min, maxnumber_max, .. } = config;
    match mode {
        ChallengeMode::Off => return None,
        ChallengeMode::Auto if joins_per_second <= *target_per_second => return None,
        ChallengeMode::On | ChallengeMode::Auto => {}
    }
    // A float becomes the nearest number that there is.
    let wanted = (*maxnumber_min as f64 * joins_per_second / target_per_second) as u64;
    Some(wanted.max(*maxnumber_min).min(*maxnumber_max))
}

/// How many come in a second: in the window that runs, and in the part of the one before that is not over
/// yet.
#[derive(Debug, Default)]
pub struct Rate {
    window: i64,
    count: u64,
    before: u64,
}

/// Long enough for a rate, and short enough to follow a rush.
const WINDOW_MS: i64 = 5_000;

impl Rate {
    /// Counts one more.
    pub fn note(&mut self, now: Timestamp) {
        self.turn(now);
        self.count += 1;
    }

    /// How many come in a second.
    pub fn per_second(&mut self, now: Timestamp) -> f64 {
        self.turn(now);
        let gone = (now.0 - self.window * WINDOW_MS) as f64 / WINDOW_MS as f64;
        let left = 1.0 - gone.clamp(0.0, 1.0);
        (self.before as f64 * left + self.count as f64) * 1_000.0 / WINDOW_MS as f64
    }

    fn turn(&mut self, now: Timestamp) {
        let window = now.0.div_euclid(WINDOW_MS);
        if window > self.window {
            self.before = if window == self.window + 1 { self.count } else { 0 };
            (self.window, self.count) = (window, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_764_000_000_000);
    const END: Timestamp = Timestamp(1_764_000_060_000);
    const HERE: Whom = Whom::Address(None);

    fn challenges() -> Challenges {
        Challenges::new(&[challenge_key(b"0123456789abcdef0123456789abcdef")], Uuid::nil())
    }

    fn solve(challenge: &Challenge) -> u64 {
        let Challenge { challenge, salt, maxnumber, .. } = challenge;
        (0..=*maxnumber).find(|number| hex(&digest(salt, *number)) == *challenge).unwrap()
    }

    fn payload(challenge: &Challenge, number: u64) -> String {
        let Challenge { algorithm, challenge, salt, signature, .. } = challenge;
        let payload = serde_json::json!({
            "algorithm": algorithm, "challenge": challenge, "number": number, "salt": salt,
            "signature": signature, "took": 12,
        });
        BASE64.encode_to_string(payload.to_string())
    }

    /// From the documentation of ALTCHA: salt, number, and what they make with this key.
    #[test]
    fn digests_and_signatures_are_those_of_altcha() {
        let challenge = hex(&digest("3065d108b2314f5ecc7e1207", 971_813));
        let wanted = "aa9c8ec8057413dd8220e21e15ab54b095fb3c840601d44c39bece8d9df34529";
        assert_eq!(challenge, wanted);
        let signature = hex(&mac(&new_mac(b"super-secret"), challenge.as_bytes()));
        let wanted = "d6c436288f1979f298f6532cea31db9e84e6338f4f58a9e00cb4105abbd11397";
        assert_eq!(signature, wanted);
    }

    #[test]
    fn a_solution_is_good_for_whom_it_was_made_until_it_ends() {
        let challenges = challenges();
        let of = |text: &str| Whom::Address(Some(text.parse().unwrap()));
        let somebody = [Whom::Person(UserId::new(7).unwrap()), of("192.0.2.1"), of("2001:db8::")];
        for whom in somebody.into_iter().chain([HERE]) {
            let made = challenges.make("main", whom, 50, END).unwrap();
            let text = payload(&made, solve(&made));
            let check = |queue, whom: &[Whom], now| challenges.check(&text, queue, whom, now);
            let solution = check("main", &[of("192.0.2.9"), whom], NOW).unwrap();
            assert_eq!(solution.expires_at, END);
            assert_eq!(check("main", &[whom], NOW), Ok(solution));
            assert_eq!(check("vip", &[whom], NOW), Err(Flaw::OfAnotherQueue));
            assert_eq!(check("main", &[of("192.0.2.9")], NOW), Err(Flaw::OfAnother));
            assert_eq!(check("main", &[], NOW), Err(Flaw::OfAnother));
            assert!(check("main", &[whom], Timestamp(END.0 - 1)).is_ok());
            assert_eq!(check("main", &[whom], END), Err(Flaw::Expired));
        }
    }

    #[test]
    fn what_another_process_remembers_is_not_accepted() {
        let key = challenge_key(b"0123456789abcdef0123456789abcdef");
        let made = challenges().make("main", HERE, 50, END).unwrap();
        let text = payload(&made, solve(&made));
        let after = Challenges::new(&[key], Uuid::new_v4());
        assert_eq!(after.check(&text, "main", &[HERE], NOW), Err(Flaw::OfAnother));
        assert!(challenges().check(&text, "main", &[HERE], NOW).is_ok());
    }

    #[test]
    fn keys_rotate() {
        let [old, new] = [[1; 32], [2; 32]].map(|secret: [u8; 32]| challenge_key(&secret));
        let before = Challenges::new(std::slice::from_ref(&old), Uuid::nil());
        let after = Challenges::new(&[new, old], Uuid::nil());
        let made = before.make("main", HERE, 50, END).unwrap();
        let text = payload(&made, solve(&made));
        assert!(after.check(&text, "main", &[HERE], NOW).is_ok());
        let made = after.make("main", HERE, 50, END).unwrap();
        let text = payload(&made, solve(&made));
        assert_eq!(before.check(&text, "main", &[HERE], NOW), Err(Flaw::Forged));
        assert!(after.check(&text, "main", &[HERE], NOW).is_ok());
    }

    #[test]
    fn nothing_can_be_moved_between_the_salt_and_the_number() {
        let challenges = challenges();
        let made = challenges.make("main", HERE, 50_000, END).unwrap();
        let number = solve(&made);
        let check = |salt: &str, number| {
            let made = Challenge { salt: salt.into(), ..made.clone() };
            challenges.check(&payload(&made, number), "main", &[HERE], NOW)
        };
        assert!(check(&made.salt, number).is_ok());
        // A digit of the number becomes one of a parameter.
        let text = number.to_string();
        for at in 1..text.len() {
            let (first, rest) = text.split_at(at);
            let salt = format!("{}{first}", made.salt);
            assert_eq!(check(&salt, rest.parse().unwrap()), Err(Flaw::Malformed));
        }
        let later = (END.0 + 9_000_000) / 1_000;
        for salt in [
            made.salt.replace(&(END.0 / 1_000).to_string(), &later.to_string()),
            made.salt.replace("queue=main", "queue=vip"),
            format!("{}&", made.salt),
        ] {
            assert_eq!(check(&salt, number), Err(Flaw::Wrong));
        }
        for salt in [
            made.salt.trim_end_matches('&').to_owned(),
            made.salt.replace("expires=", "expires=+"),
            made.salt.replace("expires=", "expires=0"),
            made.salt.replace('?', "&"),
            String::new(),
        ] {
            assert_eq!(check(&salt, number), Err(Flaw::Malformed), "{salt}");
        }
        assert_eq!(check(&made.salt, number + 1), Err(Flaw::Wrong));
    }

    #[test]
    fn what_is_no_solution_is_refused() {
        let challenges = challenges();
        let made = challenges.make("main", HERE, 50, END).unwrap();
        let number = solve(&made);
        let good = payload(&made, number);
        let check = |text: &str| challenges.check(text, "main", &[HERE], NOW);
        assert!(check(&good).is_ok());
        let forged = Challenge { signature: "0".repeat(64), ..made.clone() };
        assert_eq!(check(&payload(&forged, number)), Err(Flaw::Forged));
        let another = Challenges::new(&[challenge_key(b"another")], Uuid::nil());
        let another = another.make("main", HERE, 50, END).unwrap();
        assert_eq!(check(&payload(&another, solve(&another))), Err(Flaw::Forged));
        // The challenge of one, with the salt of another.
        let second = challenges.make("main", HERE, 50, END).unwrap();
        let mixed = Challenge { salt: second.salt.clone(), ..made.clone() };
        assert_eq!(check(&payload(&mixed, solve(&second))), Err(Flaw::Wrong));
        let algorithm = Challenge { algorithm: "SHA-1", ..made.clone() };
        assert_eq!(check(&payload(&algorithm, number)), Err(Flaw::Malformed));
        let shorter = Challenge { signature: made.signature[1..].into(), ..made.clone() };
        assert_eq!(check(&payload(&shorter, number)), Err(Flaw::Malformed));
        let upper = Challenge { challenge: made.challenge.to_uppercase(), ..made.clone() };
        assert_eq!(check(&payload(&upper, number)), Err(Flaw::Forged));
        let json = String::from_utf8(BASE64.decode_to_vec(&good).unwrap()).unwrap();
        let of = |json: &str| BASE64.encode_to_string(json);
        for text in [
            "",
            "x",
            "null",
            &good[1..],
            &json,
            &of("{}"),
            &of("[]"),
            &of("null"),
            &of(&json.replace(&format!(":{number},"), ":-1,")),
            &of(&json.replace(&format!(":{number},"), &format!(":{number}.5,"))),
            &of(&json.replace(&format!(":{number},"), &format!(":\"{number}\","))),
            &of(&format!("{json}{json}")),
            &"A".repeat(PAYLOAD_LENGTH_MAX + 4),
        ] {
            assert_eq!(check(text), Err(Flaw::Malformed), "{text}");
        }
    }

    #[test]
    fn challenges_get_harder_as_joins_come_faster() {
        let config = |mode| ChallengeConfig {
            mode,
            target_per_second: 100.0,
            maxnumber_min: 10_000,
            maxnumber_max: 200_000,
            ..ChallengeConfig::default()
        };
        let (off, on, auto) =
            (config(ChallengeMode::Off), config(ChallengeMode::On), config(ChallengeMode::Auto));
        for (rate, always, at_times) in [
            (0.0, 10_000, None),
            (100.0, 10_000, None),
            (101.0, 10_100, Some(10_100)),
            (250.0, 25_000, Some(25_000)),
            (1_999.0, 199_900, Some(199_900)),
            (2_000.0, 200_000, Some(200_000)),
            (1e12, 200_000, Some(200_000)),
            (f64::INFINITY, 200_000, Some(200_000)),
        ] {
            assert_eq!(maxnumber(&off, rate), None);
            assert_eq!(maxnumber(&on, rate), Some(always), "{rate}");
            assert_eq!(maxnumber(&auto, rate), at_times, "{rate}");
        }
    }

    #[test]
    fn a_rate_follows_what_comes() {
        let mut rate = Rate::default();
        let at = |ms: i64| Timestamp(NOW.0 + ms);
        assert_eq!(rate.per_second(at(0)), 0.0);
        // A hundred a second for ten seconds.
        for ms in (0..10_000).step_by(10) {
            rate.note(at(ms));
        }
        assert!((rate.per_second(at(9_999)) - 100.0).abs() < 1.0);
        assert!((rate.per_second(at(12_500)) - 50.0).abs() < 1.0);
        assert_eq!(rate.per_second(at(15_000)), 0.0);
        for _ in 0..50 {
            rate.note(at(60_000));
        }
        assert_eq!(rate.per_second(at(60_000)), 10.0);
        // A clock that goes back a little loses nothing.
        assert_eq!(rate.per_second(at(59_000)), 10.0);
        assert_eq!(rate.per_second(at(600_000)), 0.0);
    }

    /// Guessing is no better than trying: every number is as likely.
    #[test]
    fn numbers_are_spread() {
        let challenges = challenges();
        let mut seen = [0; 4];
        for _ in 0..400 {
            let made = challenges.make("main", HERE, 3, END).unwrap();
            seen[solve(&made) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (50..=150).contains(count)), "{seen:?}");
    }
}
