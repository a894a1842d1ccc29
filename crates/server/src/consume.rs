//! The sample consumer: what a data platform does with the events.
//!
//! Events are handed to the target first and marked as read in Kafka after that, so each arrives at
//! least once. Repetitions are dropped by the event's id, as far back as ids are remembered; a file
//! brings the ids of its last lines back after a restart, a URL or standard output brings none.
//!
//! What does not belong here: the protocol (`boxoffice_backends::events::KafkaSource`).

use std::collections::{HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use boxoffice_backends::events::{KafkaConnection, KafkaSource, Received, SourceEvent};
use indicatif::ProgressBar;
use serde::Deserialize;

use crate::service::StartError;

/// Events that are handed to the target, and marked as read, together.
const BATCH_MAX: usize = 500;
/// What came first waits this long at most for company.
const BATCH_AGE: Duration = Duration::from_millis(500);
/// A target that has not answered a request by then counts as away.
const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// The first and the longest pause before the same event is posted again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Where events go.
pub(crate) enum Destination {
    /// Appended to a file, one in a line.
    File(PathBuf),
    /// Posted to a URL, one in a request.
    Url(String),
    /// Printed, one in a line.
    StandardOutput,
}

/// What is wanted.
pub(crate) struct Consumption {
    /// Where from.
    pub(crate) connection: KafkaConnection,
    /// The consumer group.
    pub(crate) group: String,
    /// Whether a new group begins with the oldest event.
    pub(crate) from_beginning: bool,
    /// Where to.
    pub(crate) destination: Destination,
    /// What cannot be delivered goes into this file.
    pub(crate) dead_letters: PathBuf,
    /// Ids that are remembered.
    pub(crate) remember: usize,
    /// Ends after this time without events.
    pub(crate) until_idle: Option<Duration>,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Events that the target has.
    pub(crate) delivered: u64,
    /// Repetitions dropped.
    pub(crate) repeated: u64,
    /// Messages that went into the dead-letter file.
    pub(crate) dead: u64,
}

/// An event on its way.
struct Pending {
    received: Received,
    /// None where it is no event; then why.
    event: Result<(Arc<str>, String), String>,
}

/// What a target made of its events.
enum Handed {
    /// It has them all.
    All,
    /// We were told to stop, or the partitions were taken away, when it had so many of them.
    Interrupted(usize),
}

/// Consumes until `stop` is set, or until nothing has come for long enough.
pub(crate) fn run(
    wanted: Consumption,
    stop: &AtomicBool,
    progress: &ProgressBar,
) -> Result<Sums, String> {
    let text = |fault| StartError::from(fault).to_string();
    let mut recent_ids = RecentIds::new(wanted.remember);
    let mut target = Target::open(&wanted.destination, &mut recent_ids)?;
    let mut dead_letters = DeadLetters { path: wanted.dead_letters, file: None };
    let mut source =
        KafkaSource::open(wanted.connection, &wanted.group, wanted.from_beginning).map_err(text)?;
    let mut sums = Sums::default();
    let mut batch: Vec<Pending> = Vec::new();
    let (mut began, mut last) = (Instant::now(), Instant::now());
    let (mut assigned, mut complained) = (false, false);
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let (mut idle, mut flushed) = (stopping, false);
        if !stopping {
            match source.receive().map_err(text)? {
                SourceEvent::Idle => idle = true,
                SourceEvent::Revoked => {
                    // Whoever has the partitions now gets these again.
                    recent_ids.forget(batch.drain(..));
                    last = Instant::now();
                }
                SourceEvent::Message(received) => {
                    last = Instant::now();
                    complained = false;
                    if batch.is_empty() {
                        began = last;
                    }
                    let event = read(&received);
                    if event.as_ref().is_ok_and(|(id, _)| !recent_ids.is_new(id)) {
                        sums.repeated += 1;
                    } else {
                        batch.push(Pending { received, event });
                    }
                }
            }
        }
        if !batch.is_empty() && (idle || batch.len() >= BATCH_MAX || began.elapsed() >= BATCH_AGE) {
            let handed = target.deliver(
                &batch,
                &mut source,
                &mut dead_letters,
                stop,
                progress,
                &mut sums,
            )?;
            match handed {
                Handed::All => batch.clear(),
                Handed::Interrupted(done) => {
                    recent_ids.forget(batch.drain(done..));
                    batch.clear();
                }
            }
            flushed = true;
            progress.set_position(sums.delivered);
            progress.set_message(format!("{} repeated, {} dead", sums.repeated, sums.dead));
            if matches!(handed, Handed::Interrupted(_)) {
                if stop.load(Ordering::Relaxed) {
                    return Ok(sums);
                }
                continue;
            }
        }
        if batch.is_empty()
            && (idle || flushed)
            && let Err(fault) = source.commit()
        {
            note(progress, &format!("{}; they may come again", text(fault)));
        }
        if stopping {
            return Ok(sums);
        }
        if let Some(complaint) = source.complaint() {
            // Silence of a broker that is away is not the end of the events.
            last = Instant::now();
            if !complained {
                complained = true;
                note(progress, &format!("Kafka: {complaint}; trying on"));
            }
        }
        if source.is_assigned() != assigned {
            // Nothing could come before.
            assigned = !assigned;
            last = Instant::now();
        }
        if let Some(bound) = wanted.until_idle
            && assigned
            && last.elapsed() >= bound
        {
            if source.is_reachable() {
                return Ok(sums);
            }
            last = Instant::now();
        }
    }
}

fn note(progress: &ProgressBar, text: &str) {
    progress.suspend(|| eprintln!("{text}"));
}

/// Takes the event out of a message, as one line.
fn read(received: &Received) -> Result<(Arc<str>, String), String> {
    #[derive(Deserialize)]
    struct Identified {
        id: String,
    }
    let text = std::str::from_utf8(&received.payload).map_err(|_| "is not text".to_owned())?;
    let Identified { id } =
        serde_json::from_str(text).map_err(|error| format!("is not an event: {error}"))?;
    let line = if text.contains(['\n', '\r']) {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| format!("is not an event: {error}"))?;
        value.to_string()
    } else {
        text.to_owned()
    };
    Ok((id.into(), line))
}

/// The ids of the latest events.
struct RecentIds {
    max: usize,
    order: VecDeque<Arc<str>>,
    ids: HashSet<Arc<str>>,
}

impl RecentIds {
    fn new(max: usize) -> Self {
        // What is in one batch has to be remembered in any case.
        Self { max: max.max(BATCH_MAX), order: VecDeque::new(), ids: HashSet::new() }
    }

    /// Remembers an id; false where it was known.
    fn is_new(&mut self, id: &Arc<str>) -> bool {
        if !self.ids.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id.clone());
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }

    /// Forgets events that came to nothing; they are the latest that are known.
    fn forget(&mut self, batch: impl Iterator<Item = Pending>) {
        for (id, _) in batch.filter_map(|pending| pending.event.ok()) {
            self.ids.remove(&id);
            self.order.pop_back();
        }
    }
}

/// A target that is open.
enum Target {
    File(EventFile),
    Url { url: String, agent: ureq::Agent },
    StandardOutput,
}

impl Target {
    fn open(destination: &Destination, recent_ids: &mut RecentIds) -> Result<Self, String> {
        match destination {
            Destination::File(path) => Ok(Self::File(EventFile::open(path, recent_ids)?)),
            Destination::StandardOutput => Ok(Self::StandardOutput),
            Destination::Url(url) => {
                if !url.starts_with("http://") {
                    return Err(format!(
                        "cannot post to {url}: only http:// is spoken; put a proxy that speaks TLS \
                         in between"
                    ));
                }
                let agent = ureq::Agent::config_builder()
                    .timeout_global(Some(POST_TIMEOUT))
                    .http_status_as_error(false)
                    .max_redirects(0)
                    .build()
                    .new_agent();
                Ok(Self::Url { url: url.clone(), agent })
            }
        }
    }

    /// Hands the events over; when this returns [`Handed::All`] they are as safe as the target can
    /// make them.
    fn deliver(
        &mut self,
        batch: &[Pending],
        source: &mut KafkaSource,
        dead_letters: &mut DeadLetters,
        stop: &AtomicBool,
        progress: &ProgressBar,
        sums: &mut Sums,
    ) -> Result<Handed, String> {
        for pending in batch {
            if let Err(why) = &pending.event {
                dead_letters.add(&pending.received, why)?;
                sums.dead += 1;
            }
        }
        let events = || batch.iter().filter_map(|pending| pending.event.as_ref().ok());
        let lines = || events().flat_map(|(_, line)| [line, "\n"]).collect::<String>();
        match self {
            Self::File(file) => file.append(&lines())?,
            Self::StandardOutput => {
                let mut out = io::stdout().lock();
                out.write_all(lines().as_bytes())
                    .and_then(|()| out.flush())
                    .map_err(|error| format!("cannot write to standard output: {error}"))?;
            }
            Self::Url { url, agent } => {
                for (done, pending) in batch.iter().enumerate() {
                    let Ok((_, line)) = &pending.event else { continue };
                    match post(agent, url, line, source, stop, progress)? {
                        Posted::Taken => sums.delivered += 1,
                        Posted::Refused(why) => {
                            dead_letters.add(&pending.received, &why)?;
                            sums.dead += 1;
                        }
                        Posted::Interrupted => return Ok(Handed::Interrupted(done)),
                    }
                }
                return Ok(Handed::All);
            }
        }
        sums.delivered += events().count() as u64;
        Ok(Handed::All)
    }
}

/// What became of one event.
enum Posted {
    Taken,
    Refused(String),
    Interrupted,
}

/// Posts an event until the target takes or refuses it.
fn post(
    agent: &ureq::Agent,
    url: &str,
    event: &str,
    source: &mut KafkaSource,
    stop: &AtomicBool,
    progress: &ProgressBar,
) -> Result<Posted, String> {
    let (mut pause, longest) = BACK_OFF;
    let mut complained = false;
    loop {
        let answer = agent
            .post(url)
            .header("Content-Type", "application/cloudevents+json; charset=UTF-8")
            .send(event);
        let why = match answer.map(|response| response.status().as_u16()) {
            Ok(200..=299) => {
                if complained {
                    note(progress, &format!("{url} takes events again"));
                }
                return Ok(Posted::Taken);
            }
            Ok(status @ (408 | 429 | 500..=599)) => format!("it answers {status}"),
            Ok(status) => return Ok(Posted::Refused(format!("{url} answered {status}"))),
            Err(error) => error.to_string(),
        };
        if !complained {
            complained = true;
            note(progress, &format!("{url} does not take events ({why}); trying on"));
        }
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if stop.load(Ordering::Relaxed) {
                return Ok(Posted::Interrupted);
            }
            let part = until.saturating_duration_since(Instant::now());
            let kept = source
                .wait(part.min(Duration::from_millis(500)))
                .map_err(|fault| StartError::from(fault).to_string())?;
            if !kept {
                return Ok(Posted::Interrupted);
            }
        }
        pause = (2 * pause).min(longest);
    }
}

/// A file with one event in a line, for one consumer at a time.
struct EventFile {
    path: PathBuf,
    file: File,
    /// How much of the file is known to be whole lines.
    length: u64,
}

impl EventFile {
    /// Opens the file or makes it, cuts off half a line at its end that a crash left, and learns
    /// the ids of its last lines.
    fn open(path: &Path, recent_ids: &mut RecentIds) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot open {}: {error}", path.display());
        let mut file =
            OpenOptions::new().create(true).read(true).append(true).open(path).map_err(failed)?;
        if file.try_lock().is_err() {
            return Err(format!(
                "another process writes to {}; give each consumer a file of its own",
                path.display()
            ));
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))
            .and_then(|d| d.sync_all())
            .map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut tail = Vec::new();
        let mut span = 1 << 20;
        loop {
            let start = size.saturating_sub(span);
            file.seek(SeekFrom::Start(start)).map_err(failed)?;
            tail.clear();
            file.read_to_end(&mut tail).map_err(failed)?;
            let lines = tail.iter().filter(|byte| **byte == b'\n').count();
            if start == 0 || lines > recent_ids.max {
                break;
            }
            span *= 2;
        }
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let length = size - (tail.len() - whole) as u64;
        let not_ours = || format!("{} does not hold events in lines; move it away", path.display());
        if whole == 0 && size > 0 && !tail.starts_with(b"{") {
            return Err(not_ours());
        }
        let lines: Vec<&[u8]> = tail[..whole].split_inclusive(|byte| *byte == b'\n').collect();
        for (n, line) in lines.iter().enumerate().skip(lines.len().saturating_sub(recent_ids.max)) {
            let id = serde_json::from_slice::<serde_json::Value>(line)
                .ok()
                .and_then(|event| event.get("id")?.as_str().map(Arc::from));
            match id {
                Some(id) => {
                    recent_ids.is_new(&id);
                }
                None if n + 1 == lines.len() => return Err(not_ours()),
                None => {}
            }
        }
        if length < size {
            file.set_len(length).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), file, length })
    }

    fn append(&mut self, lines: &str) -> Result<(), String> {
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            let _ = self.file.set_len(self.length);
            return Err(format!("cannot write to {}: {error}", self.path.display()));
        }
        self.length += lines.len() as u64;
        Ok(())
    }
}

/// What cannot be delivered, one message in a line, with the reason.
struct DeadLetters {
    path: PathBuf,
    /// None until there is one.
    file: Option<File>,
}

impl DeadLetters {
    fn add(&mut self, received: &Received, why: &str) -> Result<(), String> {
        let line = serde_json::json!({
            "reason": why,
            "topic": received.topic,
            "partition": received.partition,
            "offset": received.offset,
            "payload": String::from_utf8_lossy(&received.payload),
        });
        let written = match &mut self.file {
            Some(file) => Ok(file),
            file => OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path)
                .map(|opened| file.insert(opened)),
        }
        .and_then(|file| file.write_all(format!("{line}\n").as_bytes()).and(file.sync_data()));
        written.map_err(|error| {
            format!("cannot write the dead letter to {}: {error}", self.path.display())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, max: usize) -> Result<(EventFile, RecentIds), String> {
        let mut recent_ids = RecentIds::new(max);
        EventFile::open(path, &mut recent_ids).map(|file| (file, recent_ids))
    }

    #[test]
    fn a_file_brings_its_last_ids_back_and_loses_half_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let line = |n: usize| format!("{{\"id\":\"e-{n}\"}}\n");
        let (mut file, recent_ids) = open(&path, 1_000).unwrap();
        assert!(recent_ids.ids.is_empty());
        assert!(open(&path, 1_000).is_err_and(|error| error.contains("another process")));
        let lines: String = (0..100_000).map(line).collect();
        file.append(&lines).unwrap();
        file.append("{\"id\":\"e-1000").unwrap();
        drop(file);
        let (file, mut recent_ids) = open(&path, 1_000).unwrap();
        assert_eq!(recent_ids.order.len(), 1_000);
        assert!(!recent_ids.is_new(&"e-99999".into()) && !recent_ids.is_new(&"e-99000".into()));
        assert!(recent_ids.is_new(&"e-98999".into()) && recent_ids.is_new(&"e-100000".into()));
        assert_eq!(file.length, lines.len() as u64);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), lines);
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes");
        for text in ["milk", "milk\nbread\n", "{\"id\":\"e\"}\nbread\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(open(&path, 10).is_err_and(|error| error.contains("move it away")));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_message_becomes_one_line_or_a_reason() {
        let received = |payload: &[u8]| Received {
            topic: "t".into(),
            partition: 0,
            offset: 0,
            payload: payload.to_vec(),
        };
        let (id, line) = read(&received(b"{\n\"id\": \"e-1\"\n}")).unwrap();
        assert_eq!((&*id, &*line), ("e-1", "{\"id\":\"e-1\"}"));
        for payload in [&b"\xff"[..], b"", b"[]", b"{\"id\":1}"] {
            assert!(read(&received(payload)).is_err());
        }
    }
}
