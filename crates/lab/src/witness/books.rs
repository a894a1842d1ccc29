//! What the database and Kafka have, read after a round.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;
use testbed::MariaDb;

/// What has become of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Held,
    Paid,
    Cancelled,
    Expired,
    Refunded,
}

impl State {
    fn of(column: i64) -> Result<Self, String> {
        Ok(match column {
            0 => Self::Held,
            1 => Self::Paid,
            2 => Self::Cancelled,
            3 => Self::Expired,
            4 => Self::Refunded,
            other => return Err(format!("{other} is no state of a reservation")),
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "held",
            Self::Paid => "paid",
            Self::Cancelled => "given back",
            Self::Expired => "run out",
            Self::Refunded => "refunded",
        })
    }
}

/// What a seat that is not simply available is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SeatState {
    Held,
    Sold,
    Released,
}

impl fmt::Display for SeatState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "held",
            Self::Sold => "sold",
            Self::Released => "released",
        })
    }
}

/// Why an entry stands in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EntryKind {
    Opening,
    Charge,
    Payment,
    Refund,
}

/// A reservation in the database. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    pub(crate) user: i64,
    pub(crate) session: i64,
    /// In order.
    pub(crate) seats: Vec<i64>,
    pub(crate) created_at: i64,
    pub(crate) held_until: i64,
    pub(crate) state: State,
    pub(crate) payment: Option<i64>,
}

/// A payment in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) reservation: i64,
    pub(crate) user: i64,
    pub(crate) amount: i64,
}

/// A refund in the database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refund {
    pub(crate) reservation: i64,
    pub(crate) at: i64,
}

/// A row of the ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) user: i64,
    pub(crate) amount: i64,
    pub(crate) kind: EntryKind,
    pub(crate) payment: Option<i64>,
}

/// All that was written, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    pub(crate) reservations: BTreeMap<i64, Reservation>,
    pub(crate) payments: BTreeMap<i64, Payment>,
    /// By payment.
    pub(crate) refunds: BTreeMap<i64, Refund>,
    pub(crate) entries: BTreeMap<i64, Entry>,
    pub(crate) balances: BTreeMap<i64, i64>,
    /// Seats that are not available, with their reservation.
    pub(crate) seats: BTreeMap<i64, (SeatState, i64)>,
    /// How often each event is in Kafka under an id of its own.
    pub(crate) events: BTreeMap<(Topic, i64), u32>,
    /// Names of events that nobody knows.
    pub(crate) unknown_events: BTreeSet<String>,
}

impl Books {
    /// Reads the database, and takes what the consumer has written so far.
    pub(crate) fn read(database: &MariaDb, events: &Events) -> Result<Self, String> {
        let mut books = Self {
            events: events.count.clone(),
            unknown_events: events.unknown.clone(),
            ..Self::default()
        };
        rows(
            database,
            "SELECT id, user_id, session_id, items, created_at, held_until, state, \
             COALESCE(payment_id, 0) FROM boxoffice.reservation",
            |row| {
                let items: Vec<Vec<Value>> = serde_json::from_str(row.text(3)?)
                    .map_err(|error| format!("items of a reservation: {error}"))?;
                let mut seats = items
                    .iter()
                    .map(|item| {
                        item.first().and_then(Value::as_i64).ok_or("an item without a seat")
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                seats.sort_unstable();
                let reservation = Reservation {
                    user: row.number(1)?,
                    session: row.number(2)?,
                    seats,
                    created_at: row.number(4)?,
                    held_until: row.number(5)?,
                    state: State::of(row.number(6)?)?,
                    payment: row.id(7)?,
                };
                books.reservations.insert(row.number(0)?, reservation);
                Ok(())
            },
        )?;
        rows(
            database,
            "SELECT id, reservation_id, user_id, amount FROM boxoffice.payment",
            |row| {
                let payment = Payment {
                    reservation: row.number(1)?,
                    user: row.number(2)?,
                    amount: row.number(3)?,
                };
                books.payments.insert(row.number(0)?, payment);
                Ok(())
            },
        )?;
        rows(
            database,
            "SELECT payment_id, reservation_id, refunded_at FROM boxoffice.refund",
            |row| {
                let refund = Refund { reservation: row.number(1)?, at: row.number(2)? };
                books.refunds.insert(row.number(0)?, refund);
                Ok(())
            },
        )?;
        rows(
            database,
            "SELECT id, user_id, amount, kind, COALESCE(payment_id, 0) FROM boxoffice.points_entry",
            |row| {
                let kind = match row.number(3)? {
                    0 => EntryKind::Opening,
                    1 => EntryKind::Charge,
                    2 => EntryKind::Payment,
                    3 => EntryKind::Refund,
                    other => return Err(format!("{other} is no kind of an entry")),
                };
                let entry = Entry {
                    user: row.number(1)?,
                    amount: row.number(2)?,
                    kind,
                    payment: row.id(4)?,
                };
                books.entries.insert(row.number(0)?, entry);
                Ok(())
            },
        )?;
        rows(database, "SELECT user_id, balance FROM boxoffice.account", |row| {
            books.balances.insert(row.number(0)?, row.number(1)?);
            Ok(())
        })?;
        rows(
            database,
            "SELECT id, state, COALESCE(reservation_id, 0) FROM boxoffice.seat WHERE state <> 0",
            |row| {
                let state = match row.number(1)? {
                    1 => SeatState::Held,
                    2 => SeatState::Sold,
                    3 => SeatState::Released,
                    other => return Err(format!("{other} is no state of a seat")),
                };
                books.seats.insert(row.number(0)?, (state, row.number(2)?));
                Ok(())
            },
        )?;
        Ok(books)
    }
}

struct Row<'a>(Vec<&'a str>);

impl<'a> Row<'a> {
    fn text(&self, index: usize) -> Result<&'a str, String> {
        self.0.get(index).copied().ok_or_else(|| format!("a row has too few columns: {:?}", self.0))
    }

    fn number(&self, index: usize) -> Result<i64, String> {
        let text = self.text(index)?;
        text.parse().map_err(|_| format!("{text} is no number, in {:?}", self.0))
    }

    fn id(&self, index: usize) -> Result<Option<i64>, String> {
        Ok(Some(self.number(index)?).filter(|id| *id != 0))
    }
}

fn rows(
    database: &MariaDb,
    sql: &str,
    mut take: impl FnMut(&Row<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let text = database.run(sql)?;
    for line in text.lines().filter(|line| !line.is_empty()) {
        take(&Row(line.split('\t').collect())).map_err(|error| format!("`{sql}`: {error}"))?;
    }
    Ok(())
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Topic {
    Reserved,
    Cancelled,
    Paid,
    Refunded,
    Charged,
}

impl Topic {
    pub(crate) const ALL: [Self; 5] =
        [Self::Reserved, Self::Cancelled, Self::Paid, Self::Refunded, Self::Charged];

    const fn name(self) -> &'static str {
        match self {
            Self::Reserved => "concert.concert-reserved",
            Self::Cancelled => "concert.reservation-cancelled",
            Self::Paid => "concert.payment-completed",
            Self::Refunded => "concert.payment-refunded",
            Self::Charged => "user.point-charged",
        }
    }

    /// The field with the id of the effect.
    const fn subject(self) -> &'static str {
        match self {
            Self::Reserved | Self::Cancelled => "reservationId",
            Self::Paid | Self::Refunded => "paymentId",
            Self::Charged => "entryId",
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a consumer has written, read as it grows.
#[derive(Debug)]
pub(crate) struct Events {
    path: PathBuf,
    offset: u64,
    count: BTreeMap<(Topic, i64), u32>,
    unknown: BTreeSet<String>,
}

impl Events {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, count: BTreeMap::new(), unknown: BTreeSet::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many events of a topic there are.
    pub(crate) fn of(&self, topic: Topic) -> u64 {
        let own = self.count.iter().filter(|((of, _), _)| *of == topic);
        own.map(|(_, count)| u64::from(*count)).sum()
    }

    /// Reads the lines that have come since.
    pub(crate) fn read(&mut self) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.path.display());
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(self.offset)).map_err(failed)?;
        file.read_to_end(&mut text).map_err(failed)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.take(line)?;
        }
        self.offset += whole as u64;
        Ok(())
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let event: Value = serde_json::from_slice(line)
            .map_err(|error| format!("an event: {error}: {}", String::from_utf8_lossy(line)))?;
        let name = event["type"].as_str().unwrap_or_default();
        let topic = Topic::ALL.into_iter().find(|topic| topic.name() == name);
        let known = topic.and_then(|topic| Some((topic, event["data"][topic.subject()].as_i64()?)));
        match known {
            Some(key) => *self.count.entry(key).or_default() += 1,
            None => {
                self.unknown.insert(name.to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn events_are_read_as_they_come_and_only_whole_lines() {
        let directory = testbed::Workdir::temporary().unwrap();
        let path = directory.path().join("events");
        let mut events = Events::new(path.clone());
        events.read().unwrap();
        let paid = r#"{"id":"paid-9","type":"concert.payment-completed","data":{"paymentId":9,"reservationId":7}}"#;
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        write!(file, "{paid}\n{}", &paid[..40]).unwrap();
        events.read().unwrap();
        assert_eq!(events.count, BTreeMap::from([((Topic::Paid, 9), 1)]));
        writeln!(file, "{}", &paid[40..]).unwrap();
        writeln!(file, r#"{{"type":"concert.nonsense","data":{{}}}}"#).unwrap();
        writeln!(file, r#"{{"type":"user.point-charged","data":{{"entryId":3}}}}"#).unwrap();
        events.read().unwrap();
        assert_eq!(events.count, BTreeMap::from([((Topic::Paid, 9), 2), ((Topic::Charged, 3), 1)]));
        assert_eq!(events.unknown, BTreeSet::from(["concert.nonsense".to_owned()]));
        assert_eq!((events.of(Topic::Paid), events.of(Topic::Refunded)), (2, 0));
    }
}
