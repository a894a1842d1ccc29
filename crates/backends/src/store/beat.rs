//! What instances tell each other through the store, twice a second: that they are there, whether they
//! have Redis, and whose polls they have answered. The answer also has the database's time.
//!
//! It goes through the store and not through Redis because all that follows from it, admission and
//! numbers without Redis, needs the store anyway, and has to work while Redis is away.

use std::collections::BTreeMap;
use std::io;

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;
use sha2::{Digest, Sha256};

use super::numbers::{REDIS_AHEAD_MS, REDIS_SEEN_MS};

/// What an instance tells.
#[derive(Clone, Debug, Default)]
pub struct Beat {
    /// Its name.
    pub instance: String,
    /// Whether it ends. The others hear whose polls it has answered, and wait for nothing more.
    pub is_last: bool,
    /// Whether Redis answers it.
    pub with_redis: bool,
    /// The ids of its ticket keys; the first one signs.
    pub ticket_keys: String,
    /// What it decides by.
    pub rules: Rules,
    /// Whose polls it has answered since `since`.
    pub present: Present,
    /// Whom it has seen for the first time since their admission, within the claim window, since `since`.
    pub claimed: Present,
    /// The database's time at the beat since which the two are whole.
    pub since: Timestamp,
}

/// What an instance hears.
#[derive(Clone, Debug)]
pub struct Beats {
    /// The database's time.
    pub now: Timestamp,
    /// What the others have told last.
    pub others: Vec<OtherBeat>,
}

/// What another instance has told last.
#[derive(Clone, Debug)]
pub struct OtherBeat {
    /// Its name.
    pub instance: String,
    /// The database's time when it told it.
    pub at: Timestamp,
    /// Whether that was its last beat.
    pub has_ended: bool,
    /// The database's time when it had Redis last; 0 for never, and where it has ended.
    pub redis_at: Timestamp,
    /// See [`Beat`].
    pub ticket_keys: String,
    /// See [`Beat`].
    pub rules: Rules,
    /// See [`Beat`].
    pub present: Present,
    /// See [`Beat`].
    pub claimed: Present,
    /// See [`Beat`].
    pub since: Timestamp,
}

/// An instance that has told nothing for so long is forgotten, in milliseconds.
pub(super) const FORGOTTEN_MS: i64 = 600_000;

/// The settings that an instance decides by, which all instances must agree on: names and values, as
/// text. None of them is a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(BTreeMap<String, String>);

/// A longer value is told by its beginning and its digest, so that a beat stays small.
const VALUE_MAX: usize = 200;
const BEGINNING: usize = 120;

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Rules {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(rules: I) -> Self {
        Self(rules.into_iter().map(|(name, value)| (name.into(), bounded(value.into()))).collect())
    }
}

/// A value in one line of at most [`VALUE_MAX`] bytes; two that differ are told apart.
fn bounded(value: String) -> String {
    if value.len() <= VALUE_MAX && !value.contains('\n') {
        return value;
    }
    let beginning: String = value.chars().take_while(|char| *char != '\n').collect();
    let cut = beginning.floor_char_boundary(BEGINNING);
    let digest = Sha256::digest(&value);
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{}... (SHA-256 {hex}...)", &beginning[..cut])
}

impl Rules {
    /// As text for a column: `name=value` in lines.
    pub(super) fn to_text(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    /// What was stored as text.
    pub(super) fn from_text(text: &str) -> Self {
        let rules = text.lines().filter_map(|line| line.split_once('='));
        Self(rules.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// In what another instance differs, in words. A rule that only one of the two knows is none: they are
    /// of two versions of the program.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let differs = |(name, ours): (&String, &String)| {
            let theirs = other.0.get(name).filter(|theirs| *theirs != ours)?;
            Some(format!("{name} is {theirs} there and {ours} here"))
        };
        self.0.iter().filter_map(differs).collect()
    }
}

/// Numbers of fans, by queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Present(pub Vec<(QueueName, RoaringTreemap)>);

impl Present {
    /// As bytes for a column: the length of the name, the name, the numbers; and so on.
    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for (queue, seqs) in &self.0 {
            let name = queue.as_str().as_bytes();
            bytes.push(u8::try_from(name.len()).map_err(io::Error::other)?);
            bytes.extend_from_slice(name);
            seqs.serialize_into(&mut bytes)?;
        }
        Ok(bytes)
    }

    /// What was stored as bytes. `None` where they make no sense.
    pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut present = Self::default();
        while let Some((length, rest)) = bytes.split_first() {
            let (name, mut rest) = rest.split_at_checked(usize::from(*length))?;
            let queue = QueueName::new(str::from_utf8(name).ok()?)?;
            let seqs = RoaringTreemap::deserialize_from(&mut rest).ok()?;
            present.0.push((queue, seqs));
            bytes = rest;
        }
        Some(present)
    }
}

/// What instances have told, for a store in which they are no table.
#[derive(Debug, Default)]
pub(super) struct Instances(BTreeMap<String, OtherBeat>);

impl Instances {
    /// Takes in a beat at `now`, the database's time.
    pub(super) fn beat(&mut self, beat: Beat, now: Timestamp) -> Beats {
        let before = self.0.remove(&beat.instance).map(|row| row.redis_at).unwrap_or_default();
        let others = self.0.values().cloned().collect();
        let row = OtherBeat {
            instance: beat.instance,
            at: now,
            has_ended: beat.is_last,
            redis_at: match (beat.is_last, beat.with_redis) {
                (true, _) => Timestamp::default(),
                (false, true) => now,
                (false, false) => before,
            },
            ticket_keys: beat.ticket_keys,
            rules: beat.rules,
            present: beat.present,
            claimed: beat.claimed,
            since: beat.since,
        };
        self.0.insert(row.instance.clone(), row);
        self.0.retain(|_, row| now.0.saturating_sub(row.at.0) < FORGOTTEN_MS);
        Beats { now, others }
    }

    /// Whether an instance has had Redis a moment before `now`.
    pub(super) fn any_with_redis(&self, now: Timestamp) -> bool {
        self.0.values().any(|row| {
            let ago = now.0.saturating_sub(row.redis_at.0);
            (-REDIS_AHEAD_MS..REDIS_SEEN_MS).contains(&ago)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_compared_by_name() {
        let ours = Rules::from_iter([("a", "1"), ("b", "\"x=y\""), ("new", "1")]);
        assert_eq!(Rules::from_text(&ours.to_text()), ours);
        assert_eq!(Rules::from_text(""), Rules::default());
        let theirs = Rules::from_iter([("a", "2"), ("b", "\"x=z\""), ("old", "3")]);
        assert_eq!(
            ours.differences(&theirs),
            ["a is 2 there and 1 here", "b is \"x=z\" there and \"x=y\" here"]
        );
        // What only one of them knows is another version's.
        let later = Rules::from_iter([("a", "1"), ("b", "\"x=y\""), ("newer", "1")]);
        assert_eq!(ours.differences(&later), [""; 0]);
        assert_eq!(ours.differences(&Rules::default()), [""; 0]);
    }

    #[test]
    fn a_long_value_is_bounded_and_still_told_apart() {
        let long = |last: &str| Rules::from_iter([("a", format!("{}{last}", "é".repeat(5_000)))]);
        assert!(long("x").to_text().len() < 2 + VALUE_MAX);
        assert_eq!(long("x").differences(&long("x")), [""; 0]);
        assert_eq!(long("x").differences(&long("y")).len(), 1);
        // Nor does a line of a value become a rule.
        let lines = Rules::from_iter([("a", "1\nb=2")]);
        assert_eq!(Rules::from_text(&lines.to_text()), lines);
    }

    #[test]
    fn what_is_told_is_heard() {
        let name = |name| QueueName::new(name).unwrap_or_else(|| panic!("a name"));
        let present = Present(vec![
            (name("main"), (1..1_000).chain([1 << 40]).collect()),
            (name("a-1_b"), RoaringTreemap::new()),
            (name("vip"), [7].into_iter().collect()),
        ]);
        let Ok(bytes) = present.to_bytes() else { panic!("no bytes") };
        assert_eq!(Present::from_bytes(&bytes), Some(present));
        assert_eq!(Present::from_bytes(&[]), Some(Present::default()));
        assert_eq!(Present::from_bytes(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Present::from_bytes(&[200, 1]), None);
    }
}
