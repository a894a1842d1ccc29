//! An export: the admission log of a queue as a file that can be checked by itself. One JSON text in a line:
//! first what it is, then the records in order, at last the signed head.

use std::io::{self, Write};

use boxoffice_backends::Fault;
use boxoffice_backends::store::{Head, LogPart, Store};
use boxoffice_domain::ids::QueueName;
use serde::{Deserialize, Serialize};

use super::LoggedRecord;

/// What the first line says to be.
pub(super) const FORMAT: &str = "boxoffice admission log";
/// The version of the format.
pub(super) const VERSION: u32 = 1;

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Beginning {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) queue: String,
    /// The digest that the first record goes on from.
    pub(super) previous: String,
    /// The public keys of the service, as a key set.
    pub(super) keys: serde_json::Value,
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct End {
    /// The head, signed.
    pub(super) head: String,
}

/// A part of a log that a service has answered.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// The digest that the first of these records goes on from.
    pub previous: String,
    /// Records in order.
    pub records: Vec<LoggedRecord>,
    /// What `after` is to be for the next page; none behind the last.
    pub next: Option<u64>,
    /// The head, signed.
    pub head: SignedEnd,
}

/// The head of a page.
#[derive(Debug, Deserialize)]
pub struct SignedEnd {
    /// The number of the last record of all.
    pub number: u64,
    /// The head, signed.
    pub signed: String,
}

/// An export that is being written.
pub struct Export<W> {
    out: W,
    has_begun: bool,
    last: Option<u64>,
}

fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

impl<W: Write> Export<W> {
    /// An export into `out`.
    pub const fn new(out: W) -> Self {
        Self { out, has_begun: false, last: None }
    }

    /// The number of the last record that was written.
    pub const fn last(&self) -> Option<u64> {
        self.last
    }

    /// Writes the first line, once.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn begin(&mut self, queue: &str, previous: &str, keys: &str) -> io::Result<()> {
        if self.has_begun {
            return Ok(());
        }
        self.has_begun = true;
        let beginning = Beginning {
            format: FORMAT.to_owned(),
            version: VERSION,
            queue: queue.to_owned(),
            previous: previous.to_owned(),
            keys: serde_json::from_str(keys)?,
        };
        line(&mut self.out, &beginning)
    }

    /// Writes records, up to and with the number `last`.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn records(&mut self, records: &[LoggedRecord], last: u64) -> io::Result<()> {
        for record in records.iter().filter(|record| record.number <= last) {
            line(&mut self.out, record)?;
            self.last = Some(record.number);
        }
        Ok(())
    }

    /// Writes the last line.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn end(mut self, head: String) -> io::Result<()> {
        line(&mut self.out, &End { head })?;
        self.out.flush()
    }
}

/// Records that are read from a store in one go.
const PART: u32 = 1_000;

/// Exports the log of a queue from a store. Returns its head; `None` where there is no such queue.
///
/// # Errors
/// Where the store cannot be read, or the file not written.
pub async fn from_store<W: Write>(
    store: &Store,
    queue: &QueueName,
    keys: &str,
    export: &mut Export<W>,
) -> Result<Option<Head>, Fault> {
    let failed = |error: io::Error| Fault::Unavailable(format!("cannot write: {error}"));
    let mut end: Option<Head> = None;
    loop {
        let part = store.admission_log(queue.clone(), export.last(), PART).await?;
        let Some(LogPart { previous, links, head }) = part else { return Ok(None) };
        let head = *end.get_or_insert(head);
        export.begin(queue.as_str(), &previous.to_string(), keys).map_err(failed)?;
        let record = |link| {
            let nonsense = || Fault::Corrupt(format!("a record of queue {queue}"));
            LoggedRecord::new(link).ok_or_else(nonsense)
        };
        let records = links.iter().map(record).collect::<Result<Vec<_>, _>>()?;
        export.records(&records, head.number).map_err(failed)?;
        if links.is_empty() || export.last() >= Some(head.number) {
            return Ok(Some(head));
        }
    }
}
