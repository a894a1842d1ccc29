//! Events into a file, one in a line: the sink that needs nothing installed.
//!
//! A line is `{"outboxId": n, "topic": ..., "key": ..., "event": {...}}`. After a crash between
//! writing and marking as published the sink knows by the last lines what it has already, and each
//! event stands in the file once. It goes by the ids of those lines and not by the highest of them:
//! where several commit at a time, an event may come after one with a higher id.

use std::collections::{HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::Fault;
use crate::cloud_event::OutboxRow;

/// A file of events.
pub struct JsonlSink {
    path: PathBuf,
    file: File,
    /// Whether the file system tells how many names the file has.
    counts_names: bool,
    /// How much of the file is known to be whole lines.
    length: u64,
    /// The highest outbox id in the last lines.
    last_id: i64,
    /// The outbox ids in the last lines, oldest first, and the same to be asked.
    order: VecDeque<i64>,
    recent_ids: HashSet<i64>,
}

/// Lines that are remembered. Events are handed over again only as long as they have not been
/// marked, and no more than some thousands are under way.
const KNOWN_MAX: usize = 20_000;
/// How far back from its end the file is searched for those lines, of which each has some hundred
/// bytes.
const TAIL_BYTES: u64 = 16 * 1024 * 1024;

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
        // For its owner only: the events tell who bought what.
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        // An older version left the mode to the umask. Whoever lets a group read does so on purpose.
        if found.permissions().mode() & 0o007 != 0
            && let Err(error) = file.set_permissions(PermissionsExt::from_mode(0o600))
        {
            tracing::warn!(path = %shown, %error, "everybody can read the events");
        }
        let size = found.len();
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
        // The first line of the tail may have lost its beginning.
        let from = if start > 0 {
            lines.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1)
        } else {
            0
        };
        let mut sink = Self {
            path: path.to_owned(),
            file,
            counts_names: found.nlink() > 0,
            length,
            last_id: 0,
            order: VecDeque::new(),
            recent_ids: HashSet::new(),
        };
        let lines: Vec<&[u8]> = lines[from..].split(|b| *b == b'\n').collect();
        let lines = lines.strip_suffix(&[b"".as_slice()]).unwrap_or(&lines);
        for line in &lines[lines.len().saturating_sub(KNOWN_MAX)..] {
            let id = id_of(line).ok_or_else(|| {
                Fault::Corrupt(format!("a line of {shown} is not an event; move the file away"))
            })?;
            sink.remember(id);
        }
        Ok(sink)
    }

    fn remember(&mut self, id: i64) {
        self.last_id = self.last_id.max(id);
        if self.recent_ids.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent_ids.remove(&oldest);
        }
    }

    /// The highest outbox id at the end of the file; 0 where there is none.
    pub(super) const fn last_id(&self) -> i64 {
        self.last_id
    }

    /// Whether the file can still be found by anybody but us.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] where it was deleted.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let shown = self.path.display();
        let found = self.file.metadata().map_err(|error| {
            Fault::Unavailable(format!("cannot look at the events file {shown}: {error}"))
        })?;
        if self.counts_names && found.nlink() == 0 {
            return Err(Fault::Corrupt(format!(
                "the events file {shown} was deleted while it was open, so nobody can read what is \
                 written into it. A start makes a new one"
            )));
        }
        Ok(())
    }

    pub(super) fn publish(&mut self, rows: &[OutboxRow]) -> Result<(), Fault> {
        use std::fmt::Write as _;
        let mut lines = String::new();
        for row in rows.iter().filter(|row| !self.recent_ids.contains(&row.id)) {
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
        // Before and after: what was written into a deleted file is not to count as published.
        self.check()?;
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Back to whole lines, so that the next try does not write behind half a one.
            let _ = self.file.set_len(self.length);
            let shown = self.path.display();
            return Err(Fault::Unavailable(format!("cannot write events to {shown}: {error}")));
        }
        self.check()?;
        self.length += lines.len() as u64;
        rows.iter().for_each(|row| self.remember(row.id));
        Ok(())
    }
}

/// Reads the id only: the event behind it may be long, and there are thousands of lines.
fn id_of(line: &[u8]) -> Option<i64> {
    let rest = line.strip_prefix(b"{\"outboxId\":").filter(|_| line.ends_with(b"}"))?;
    let digits = rest.split(|byte| *byte == b',').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
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
    fn an_event_that_was_committed_late_is_written_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let mut sink = JsonlSink::open(&path).unwrap();
        sink.publish(&[row(1), row(3), row(4)]).unwrap();
        sink.publish(&[row(2), row(3), row(5)]).unwrap();
        assert_eq!(sink.last_id(), 5);
        let mut again = JsonlSink::open(&path).unwrap();
        again.publish(&[row(1), row(2), row(5), row(6)]).unwrap();
        assert_eq!(ids(&path), [1, 3, 4, 2, 5, 6]);
    }

    #[test]
    fn a_deleted_file_takes_no_events() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let mut sink = JsonlSink::open(&path).unwrap();
        sink.publish(&[row(1)]).unwrap();
        // Renamed it still has a name, and gets what comes.
        let kept = directory.path().join("events.1.jsonl");
        std::fs::rename(&path, &kept).unwrap();
        sink.publish(&[row(2)]).unwrap();
        assert_eq!((ids(&kept), sink.check()), (vec![1, 2], Ok(())));
        std::fs::remove_file(&kept).unwrap();
        for lost in [sink.check(), sink.publish(&[row(3)])] {
            let Err(Fault::Corrupt(why)) = lost else { panic!("{lost:?}") };
            assert!(why.contains("events.jsonl was deleted"), "{why}");
        }
        // The event is written by whoever opens the file anew.
        let mut again = JsonlSink::open(&path).unwrap();
        again.publish(&[row(3)]).unwrap();
        assert_eq!(ids(&path), [3]);
    }

    #[test]
    fn only_the_owner_can_read_the_events() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        drop(JsonlSink::open(&path).unwrap());
        assert_eq!(mode(), 0o600);
        // As an older version made it, and as somebody set it who has a reader in his group.
        for (found, left) in [(0o644, 0o600), (0o640, 0o640)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(found)).unwrap();
            drop(JsonlSink::open(&path).unwrap());
            assert_eq!(mode(), left);
        }
    }

    #[test]
    fn no_more_lines_are_remembered_than_needed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let count = KNOWN_MAX as i64 + 500;
        let rows: Vec<OutboxRow> = (1..=count).map(row).collect();
        JsonlSink::open(&path).unwrap().publish(&rows).unwrap();
        let sink = JsonlSink::open(&path).unwrap();
        assert_eq!((sink.recent_ids.len(), sink.order.len()), (KNOWN_MAX, KNOWN_MAX));
        assert_eq!((sink.last_id(), sink.order.front()), (count, Some(&501)));
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
