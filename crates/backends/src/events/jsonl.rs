//! Events into a file, one in a line: the sink that needs nothing installed.
//!
//! A line is `{"outboxId": n, "topic": ..., "key": ..., "event": {...}}`. Outbox ids rise from line to line, so
//! after a crash between writing and marking as published the sink knows by the last line what it
//! has already, and each event stands in the file once.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::Fault;
use crate::store::OutboxRow;

/// A file of events.
pub struct JsonlSink {
    path: PathBuf,
    file: File,
    /// How much of the file is known to be whole lines.
    length: u64,
    /// The outbox id in the last line.
    last_id: i64,
}

/// How far back from its end the file is searched for its last line. Far more than a line has.
const TAIL_BYTES: u64 = 64 * 1024;

impl JsonlSink {
    /// Opens the file, or makes it. Half a line at its end, left by a crash, is cut off.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] where it cannot be opened; [`Fault::Corrupt`] where its last line is
    /// not one of ours.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let shown = path.display();
        let failed = |error: std::io::Error| {
            Fault::Unavailable(format!("cannot open the events file {shown}: {error}"))
        };
        let mut file =
            OpenOptions::new().create(true).read(true).append(true).open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let start = size.saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).map_err(failed)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole == 0 && start > 0 {
            return Err(Fault::Corrupt(format!("{shown} does not hold events in lines")));
        }
        let length = start + whole as u64;
        if length < size {
            tracing::warn!(path = %shown, bytes = size - length, "cut half a line off the events");
            file.set_len(length).map_err(failed)?;
        }
        let lines = &tail[..whole];
        let last = lines.strip_suffix(b"\n").and_then(|lines| lines.rsplit(|b| *b == b'\n').next());
        let last_id = match last {
            None => 0,
            Some(line) => serde_json::from_slice::<serde_json::Value>(line)
                .ok()
                .and_then(|line| line.get("outboxId").and_then(serde_json::Value::as_i64))
                .ok_or_else(|| {
                    Fault::Corrupt(format!(
                        "the last line of {shown} is not an event; move the file away"
                    ))
                })?,
        };
        Ok(Self { path: path.to_owned(), file, length, last_id })
    }

    /// The outbox id of the last event in the file; 0 where there is none.
    pub(super) const fn last_id(&self) -> i64 {
        self.last_id
    }

    pub(super) fn publish(&mut self, rows: &[OutboxRow]) -> Result<(), Fault> {
        use std::fmt::Write as _;
        let mut lines = String::new();
        for row in rows.iter().filter(|row| row.id > self.last_id) {
            // The topic is one of ours and the body is JSON already.
            let _ = writeln!(
                lines,
                "{{\"outboxId\":{},\"topic\":\"{}\",\"key\":{},\"event\":{}}}",
                row.id, row.topic, row.key, row.body
            );
        }
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Back to whole lines, so that the next try does not write behind half a one.
            let _ = self.file.set_len(self.length);
            let shown = self.path.display();
            return Err(Fault::Unavailable(format!("cannot write events to {shown}: {error}")));
        }
        self.length += lines.len() as u64;
        self.last_id = rows.last().map_or(self.last_id, |row| row.id.max(self.last_id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64) -> OutboxRow {
        OutboxRow { id, topic: "t".into(), key: 1, body: format!("{{\"id\":\"e{id}\"}}") }
    }

    fn ids(path: &Path) -> Vec<i64> {
        std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["outboxId"]
                    .as_i64()
                    .unwrap()
            })
            .collect()
    }

    #[test]
    fn what_was_written_before_a_crash_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        JsonlSink::open(&path).unwrap().publish(&[row(1), row(2)]).unwrap();
        let mut again = JsonlSink::open(&path).unwrap();
        again.publish(&[row(1), row(2), row(3)]).unwrap();
        assert_eq!(ids(&path), [1, 2, 3]);
    }

    #[test]
    fn half_a_line_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        JsonlSink::open(&path).unwrap().publish(&[row(1), row(2)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..20 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let mut sink = JsonlSink::open(&path).unwrap();
            sink.publish(&[row(1), row(2), row(3)]).unwrap();
            assert_eq!(ids(&path), [1, 2, 3], "cut by {cut}");
        }
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        std::fs::write(&path, "hello\nworld\n").unwrap();
        assert!(matches!(JsonlSink::open(&path), Err(Fault::Corrupt(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hello\nworld\n");
    }
}
