//! What operators change, and what each change leaves behind: a row of the log, and the answer under the
//! idempotency key that it came with. Both are written in the transaction of the change.
//!
//! What does not belong here: who may change what (the service's business), and how a change is stored.

use std::fmt;
use std::sync::Arc;

use boxoffice_domain::ids::{ConcertId, QueueName, SessionId};
use boxoffice_domain::queue::{QueueSettings, SettingsChange};
use boxoffice_domain::sales::{Concert, Session};
use boxoffice_domain::time::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::draws::DrawSeed;
use super::epochs::Epochs;
use super::signing_keys::{Rotation, SIGNING_KEYS, SigningRing};
use super::types::{AddedSeats, Alias, NewConcert, NewSeats, Seating};
use crate::events::{from_rfc3339, rfc3339};

/// What an operator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Also changes queues.
    Operator,
    /// Everything.
    Admin,
    /// Charges points, and nothing else.
    Cashier,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Admin, Self::Cashier];

    /// The role as text, in the store, the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Cashier => "cashier",
        }
    }

    /// The role of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether somebody with this role may do what needs that one.
    pub const fn may(self, needed: Self) -> bool {
        match (self, needed) {
            (Self::Admin, _)
            | (Self::Operator, Self::Operator | Self::Viewer)
            | (Self::Viewer, Self::Viewer)
            | (Self::Cashier, Self::Cashier) => true,
            (Self::Operator, Self::Admin | Self::Cashier)
            | (Self::Viewer, Self::Operator | Self::Admin | Self::Cashier)
            | (Self::Cashier, Self::Viewer | Self::Operator | Self::Admin) => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An operator, but for the token: of that only a digest is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOperator {
    /// What the log calls them.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// SHA-256 of their token.
    pub digest: [u8; 32],
    /// Since when.
    pub created_at: Timestamp,
}

/// What to correct of a concert. What is `None` stays as it is, whoever changes it meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConcertChange {
    /// Its name.
    pub name: Option<String>,
    /// Its venue.
    pub venue: Option<String>,
    /// When reservations begin.
    pub opens_at: Option<Timestamp>,
    /// When they end.
    pub closes_at: Option<Timestamp>,
}

impl ConcertChange {
    /// The concert after the change, unless its sale would end before it begins.
    pub(super) fn applied(&self, to: &Concert) -> Result<Concert, ActRejected> {
        let changed = Concert {
            name: self.name.clone().unwrap_or_else(|| to.name.clone()),
            venue: self.venue.clone().unwrap_or_else(|| to.venue.clone()),
            opens_at: self.opens_at.unwrap_or(to.opens_at),
            closes_at: self.closes_at.unwrap_or(to.closes_at),
            ..to.clone()
        };
        if changed.closes_at <= changed.opens_at {
            return Err(ActRejected::ClosesBeforeOpening);
        }
        Ok(changed)
    }
}

/// What an operator does.
#[derive(Clone, Debug)]
pub enum Act {
    /// Makes a queue; with a seed, one with an opening draw.
    CreateQueue(QueueName, QueueSettings, Option<DrawSeed>),
    /// Changes how a queue admits, where the condition holds.
    ChangeQueue(QueueName, SettingsChange, Condition),
    /// Issues opaque tokens of one queue.
    Issue(QueueName, Vec<Alias>),
    /// Makes a concert.
    CreateConcert(NewConcert),
    /// Corrects a concert.
    ChangeConcert(ConcertId, ConcertChange),
    /// Removes a concert in which nothing is sold or held, with its sessions.
    RemoveConcert(ConcertId),
    /// Makes a session of a concert, with its first seats.
    CreateSession(ConcertId, Timestamp, Seating),
    /// Moves a session of a concert to another time.
    ChangeSession(ConcertId, SessionId, Timestamp),
    /// Removes a session of a concert in which nothing is sold or held.
    RemoveSession(ConcertId, SessionId),
    /// Calls a session of a concert off, or all that it has: nothing is held or paid there any more. When
    /// that was said first, stays.
    CallOff(ConcertId, Option<SessionId>),
    /// Adds seats to a session of a concert that has no plan.
    AddSeats(ConcertId, SessionId, NewSeats),
    /// Adds an operator.
    AddOperator(StoredOperator),
    /// Takes an operator's token away.
    RemoveOperator(String),
    /// Takes back what was stored at times after this one, because a clock was wrong.
    SetClockBack(Timestamp),
    /// Begins an epoch after a restore: all epochs, that one the last.
    BeginEpoch(Epochs),
    /// Changes the key that the service signs with in public.
    RotateKey(Rotation),
}

/// What has to be so for a queue to be changed. It is decided with the change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// Its settings have this [`settings_tag`].
    Tagged(String),
    /// It takes a change back.
    Undoes {
        /// The entry of the log.
        entry: i64,
        /// What the entry says that the queue became: it still has to be that.
        became: String,
        /// Until when that may be.
        until: Timestamp,
    },
}

impl Condition {
    /// Which entry of the log the change takes back; none where it is another.
    pub(super) const fn undoes(&self) -> Option<i64> {
        match self {
            Self::Undoes { entry, .. } => Some(*entry),
            Self::Any | Self::Tagged(_) => None,
        }
    }

    /// Whether it holds at `now` for a queue with these settings, where the change that it takes back was taken
    /// back by `undone_by`.
    pub(super) fn check(
        &self,
        settings: &QueueSettings,
        undone_by: Option<i64>,
        now: Timestamp,
    ) -> Result<(), ActRejected> {
        let stood = || Box::new(Stood(settings.clone()));
        let text = settings_json(settings).to_string();
        match (self, undone_by) {
            (Self::Any, _) => Ok(()),
            (Self::Tagged(tag), _) if *tag == settings_tag(settings) => Ok(()),
            (Self::Tagged(_), _) => Err(ActRejected::ChangedMeanwhile(stood())),
            (Self::Undoes { .. }, Some(by)) => Err(ActRejected::Undone(by)),
            (Self::Undoes { until, .. }, None) if now > *until => Err(ActRejected::UndoTooLate),
            (Self::Undoes { became, .. }, None) if *became == text => Ok(()),
            (Self::Undoes { .. }, None) => Err(ActRejected::ChangedSince(stood())),
        }
    }
}

/// The settings of a queue that operators change, as they stood.
#[derive(Clone, Debug, PartialEq)]
pub struct Stood(pub QueueSettings);

// Rates are finite.
impl Eq for Stood {}

/// Tells settings of a queue from others, as far as operators change them.
pub fn settings_tag(settings: &QueueSettings) -> String {
    let text = settings_json(settings).to_string();
    let mut tag = super::Digest(Sha256::digest(text).into()).to_string();
    tag.truncate(16);
    tag
}

/// The change that makes a queue what an entry of the log says that it was; none where the text is none of
/// [`Effect::told`] of a queue.
pub fn change_back(was: &str) -> Option<SettingsChange> {
    let was: Value = serde_json::from_str(was).ok()?;
    let opens_at = match &was["opensAt"] {
        Value::Null => None,
        at => Some(from_rfc3339(at.as_str()?)?),
    };
    let max_active = match &was["maxActive"] {
        Value::Null => None,
        max => Some(max.as_u64()?),
    };
    Some(SettingsChange {
        admit_per_second: Some(was["admitPerSecond"].as_f64()?),
        max_active: Some(max_active),
        opens_at: Some(opens_at),
        paused: Some(was["paused"].as_bool()?),
    })
}

impl Act {
    /// Which entry of the log it takes back; none where it does something else.
    pub(super) const fn undoes(&self) -> Option<i64> {
        match self {
            Self::ChangeQueue(_, _, condition) => condition.undoes(),
            _ => None,
        }
    }

    /// Whether it may touch many rows.
    pub(super) const fn is_bulk(&self) -> bool {
        match self {
            Self::Issue(..)
            | Self::CreateSession(..)
            | Self::AddSeats(..)
            | Self::RemoveConcert(_)
            | Self::RemoveSession(..)
            | Self::SetClockBack(_) => true,
            Self::CreateQueue(..)
            | Self::ChangeQueue(..)
            | Self::CreateConcert(_)
            | Self::ChangeConcert(..)
            | Self::ChangeSession(..)
            | Self::CallOff(..)
            | Self::AddOperator(_)
            | Self::RemoveOperator(_)
            | Self::BeginEpoch(_)
            | Self::RotateKey(_) => false,
        }
    }
}

/// What an act has changed. `None` before is new; `None` after is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// How a queue admits.
    Queue {
        /// Which.
        name: QueueName,
        /// Before.
        before: Option<QueueSettings>,
        /// From now on.
        after: QueueSettings,
        /// Whether it was made with an opening draw.
        drawn: bool,
    },
    /// Opaque tokens were issued.
    Issued {
        /// For which queue.
        queue: QueueName,
        /// How many.
        count: usize,
        /// Until when they are active; those in the line have no such time.
        active_until: Option<Timestamp>,
    },
    /// A concert.
    Concert {
        /// Before.
        before: Option<Concert>,
        /// From now on.
        after: Option<Concert>,
    },
    /// A session.
    Session {
        /// Before.
        before: Option<Session>,
        /// From now on.
        after: Option<Session>,
        /// The seats that it was made with.
        added: Vec<AddedSeats>,
        /// The plan that it was made with.
        plan: Option<Digest>,
    },
    /// Sessions were called off.
    CalledOff {
        /// Of which concert.
        concert: ConcertId,
        /// Which; all that the concert has where none is named.
        session: Option<SessionId>,
        /// How many of them were called off before.
        before: usize,
        /// How many are from now on.
        after: usize,
        /// When that was said.
        at: Timestamp,
    },
    /// Seats of a session.
    Seats {
        /// Which session.
        session: SessionId,
        /// The seats; none where none were wanted.
        added: Option<AddedSeats>,
        /// The price of each, in points.
        price: i64,
    },
    /// An operator.
    Operator {
        /// Before.
        before: Option<StoredOperator>,
        /// From now on.
        after: Option<StoredOperator>,
    },
    /// Times in the store.
    Clock {
        /// How many rows had later ones.
        rows: u64,
        /// When they have happened from now on.
        now: Timestamp,
    },
    /// A restore is done, and another epoch has begun.
    Epoch {
        /// Its id.
        id: u32,
    },
    /// Another key signs.
    Key {
        /// The one that was made last before.
        before: Option<String>,
        /// The new one.
        after: String,
        /// From when on it signs.
        signs_from: Timestamp,
        /// Whether all others are withdrawn.
        withdraws: bool,
    },
}

/// What the keys that were stored are after a change, and what that has changed.
///
/// # Errors
/// What was stored makes no sense.
pub(super) fn rotate(stored: &str, rotation: &Rotation) -> Result<(String, Effect), String> {
    let ring = SigningRing::from_text(stored)
        .ok_or_else(|| format!("the setting {SIGNING_KEYS} makes no sense"))?;
    let effect = Effect::Key {
        before: ring.keys().last().map(|key| key.id.clone()),
        after: rotation.key.id.clone(),
        signs_from: rotation.key.signs_from,
        withdraws: rotation.withdraws,
    };
    Ok((ring.rotated(rotation).to_text(), effect))
}

/// Why an act was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActRejected {
    /// There is one of that name.
    Exists,
    /// There is a token of that name; none was issued.
    TokenExists(String),
    /// There is no such queue.
    NoSuchQueue,
    /// Those who joined before the opening were drawn: it stays when it was.
    Drawn,
    /// The settings of the queue are not those that they had to be, but these.
    ChangedMeanwhile(Box<Stood>),
    /// The queue is not as the change left it that was to be taken back, but this.
    ChangedSince(Box<Stood>),
    /// It is too late to take the change back.
    UndoTooLate,
    /// The change was taken back before, by this entry of the log.
    Undone(i64),
    /// There is no such concert.
    NoSuchConcert,
    /// The concert has no such session.
    NoSuchSession,
    /// There is no such operator.
    NoSuchOperator,
    /// A concert's sale would end before it begins.
    ClosesBeforeOpening,
    /// Seats in it are sold, or held.
    SoldOrHeld,
    /// The session has a plan: its seats are the places of that hall.
    HasPlan,
    /// The idempotency key was used for something else.
    KeyReused,
}

/// What of an act is written down beside its effect.
#[derive(Clone)]
pub struct Note {
    /// When.
    pub at: Timestamp,
    /// Who: the name of the operator.
    pub who: String,
    /// With which role.
    pub role: Role,
    /// From where: a client's address, or the command line.
    pub origin: String,
    /// What the operation is called.
    pub operation: &'static str,
    /// Why, where they have said it.
    pub reason: Option<String>,
    /// The idempotency key, where there is one, and a digest of all that was asked under it.
    pub key: Option<(String, [u8; 32])>,
    /// What to keep under the key, for who asks again.
    pub answer: Answering,
}

/// Makes the answer to an effect.
pub type Answering = Arc<dyn Fn(&Effect) -> String + Send + Sync>;

/// How an act ends that is not refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Acted {
    /// It was done now, which is in the log under this number.
    Now(Effect, i64),
    /// It was done under the same key before. The answer that was kept.
    Before(String),
}

/// A row of the log of what operators changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its number; later entries have higher ones.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// With which role.
    pub role: Role,
    /// From where.
    pub origin: String,
    /// What the operation is called.
    pub operation: String,
    /// What was changed.
    pub target: String,
    /// What it was before, as JSON; none where it is new.
    pub before: Option<String>,
    /// What it has become, as JSON; none where it is gone.
    pub after: Option<String>,
    /// Why, where that was said.
    pub reason: Option<String>,
    /// The entry whose change it took back, where it did.
    pub undoes: Option<i64>,
}

/// What a row of the log says of an effect: the target, what was, what is.
pub(super) struct Told {
    pub(super) target: String,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

impl Effect {
    /// What the log says of it. Never a secret: neither tokens nor their digests. Every text in it has
    /// a bound, so the whole has.
    pub(super) fn told(&self) -> Told {
        let told = |target: String, before: Option<Value>, after: Option<Value>| Told {
            target,
            before: before.map(|value| value.to_string()),
            after: after.map(|value| value.to_string()),
        };
        match self {
            Self::Queue { name, before, after, drawn } => {
                let mut after = settings_json(after);
                if *drawn {
                    after["opening"] = "draw".into();
                }
                told(format!("queue {name}"), before.as_ref().map(settings_json), Some(after))
            }
            Self::Issued { queue, count, active_until } => {
                let after = json!({"count": count, "activeUntil": active_until.map(rfc3339)});
                told(format!("tokens of queue {queue}"), None, Some(after))
            }
            Self::Concert { before, after } => {
                let id = before.as_ref().or(after.as_ref()).map_or(0, |concert| concert.id.get());
                let json = |concert: &Concert| concert_json(concert);
                told(format!("concert {id}"), before.as_ref().map(json), after.as_ref().map(json))
            }
            Self::Session { before, after, added, plan } => {
                let id = before.or(*after).map_or(0, |session| session.id.get());
                let seats: u32 = added.iter().map(|added| added.count).sum();
                let json = |session: Session| session_json(&session);
                let after = after.map(json).map(|mut after| {
                    if !added.is_empty() {
                        after["seatCount"] = seats.into();
                    }
                    if let Some(plan) = plan {
                        after["plan"] = plan.to_string().into();
                    }
                    after
                });
                told(format!("session {id}"), before.map(json), after)
            }
            Self::CalledOff { concert, session, before, after, at } => {
                let target = match session {
                    Some(session) => format!("session {session}"),
                    None => format!("concert {concert}"),
                };
                let after = json!({"sessionsCancelled": after, "at": rfc3339(*at)});
                told(target, Some(json!({"sessionsCancelled": before})), Some(after))
            }
            Self::Seats { session, added, price } => {
                let first = added.map(|added| added.first.get());
                let count = added.map_or(0, |added| added.count);
                let after = json!({"firstSeatId": first, "seatCount": count, "price": price});
                told(format!("session {session}"), None, Some(after))
            }
            Self::Operator { before, after } => {
                let name = before.as_ref().or(after.as_ref()).map(|operator| &operator.name);
                let json = |operator: &StoredOperator| json!({"role": operator.role.as_str()});
                told(
                    format!("operator {}", name.map_or("", String::as_str)),
                    before.as_ref().map(json),
                    after.as_ref().map(json),
                )
            }
            Self::Clock { rows, now } => {
                let after = json!({"rows": rows, "now": rfc3339(*now)});
                told("clock".to_owned(), None, Some(after))
            }
            Self::Key { before, after, signs_from, withdraws } => {
                let json = |id: &String| json!({"kid": id});
                let after = json!({
                    "kid": after,
                    "signsFrom": rfc3339(*signs_from),
                    "othersWithdrawn": withdraws,
                });
                told("signing keys".to_owned(), before.as_ref().map(json), Some(after))
            }
            Self::Epoch { id } => told("epoch".to_owned(), None, Some(json!({"id": id}))),
        }
    }
}

fn settings_json(settings: &QueueSettings) -> Value {
    json!({
        "admitPerSecond": settings.admit_per_second,
        "maxActive": settings.max_active,
        "opensAt": settings.opens_at.map(rfc3339),
        "paused": settings.paused,
    })
}

fn concert_json(concert: &Concert) -> Value {
    json!({
        "name": concert.name,
        "venue": concert.venue,
        "queue": concert.queue.as_str(),
        "reservationOpensAt": rfc3339(concert.opens_at),
        "reservationClosesAt": rfc3339(concert.closes_at),
    })
}

fn session_json(session: &Session) -> Value {
    json!({"concertId": session.concert.get(), "concertAt": rfc3339(session.starts_at)})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> QueueSettings {
        QueueSettings {
            admit_per_second: 0.1,
            max_active: Some(7),
            active_ttl: std::time::Duration::from_secs(300),
            claim_window: std::time::Duration::from_secs(30),
            opens_at: Some(Timestamp(1_800_000_000_123)),
            paused: true,
        }
    }

    #[test]
    fn a_change_back_makes_the_settings_what_they_were() {
        let plain = QueueSettings { max_active: None, opens_at: None, paused: false, ..settings() };
        let fast = QueueSettings { admit_per_second: 1e6, ..settings() };
        for was in [settings(), plain, fast] {
            let mut now =
                QueueSettings { admit_per_second: 5.0, max_active: Some(1), ..settings() };
            change_back(&settings_json(&was).to_string()).unwrap().apply(&mut now);
            assert_eq!(now, was);
        }
        for none in ["", "{}", "[]", "null", r#"{"admitPerSecond":1,"paused":0}"#] {
            assert_eq!(change_back(none), None, "{none}");
        }
    }

    #[test]
    fn a_tag_goes_by_what_operators_change() {
        let tag = settings_tag(&settings());
        assert_eq!(tag.len(), 16);
        let same = QueueSettings { active_ttl: std::time::Duration::ZERO, ..settings() };
        assert_eq!(settings_tag(&same), tag);
        for other in [
            QueueSettings { admit_per_second: 0.2, ..settings() },
            QueueSettings { max_active: None, ..settings() },
            QueueSettings { opens_at: Some(Timestamp(1_800_000_000_124)), ..settings() },
            QueueSettings { paused: false, ..settings() },
        ] {
            assert_ne!(settings_tag(&other), tag, "{other:?}");
        }
    }

    #[test]
    fn a_role_may_what_it_is_for() {
        use Role::{Admin, Cashier, Operator, Viewer};
        for (role, may) in [
            (Viewer, &[Viewer] as &[Role]),
            (Operator, &[Viewer, Operator]),
            (Admin, &[Viewer, Operator, Admin, Cashier]),
            (Cashier, &[Cashier]),
        ] {
            let found: Vec<Role> =
                Role::ALL.into_iter().filter(|needed| role.may(*needed)).collect();
            assert_eq!(found, may, "{role}");
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
    }
}
