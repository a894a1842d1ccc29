//! What only a SQLite file can suffer: other programs, other versions, damage, crashes, copies.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::common::{crashed, fresh, open, options, raw, try_open};
use crate::conformance::{
    self, PRICE, START, assert_clean, at, charge, everybody, main_queue, pay, sale, settings,
    ticket, user,
};
use boxoffice_backends::store::{
    Checkpoint, Digest, Restore, SqliteOptions, SqliteStore, Store, sqlite_backup as backup,
};
use boxoffice_backends::{Error, Fault};
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{Bucket, Entry, Record, Runs, SettingsChange, Standing, Step};
use boxoffice_domain::sales::SeatState;
use tempfile::TempDir;

/// Why a store does not open.
fn refusal(directory: &Path) -> Fault {
    try_open(directory).err().expect("this store must not open")
}

fn assert_says(fault: &Fault, parts: &[&str]) {
    let text = fault.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

/// Waits for what another thread is about to do, with a limit that a failure alone reaches.
async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < limit, "it never came");
        tokio::task::yield_now().await;
    }
}

/// A store with a sale in it, closed, so that all of it is in the one file.
async fn closed() -> TempDir {
    let (store, directory) = fresh().await;
    let sale = sale(&store, 300).await;
    for n in 0..40 {
        let by = n as i64 + 1;
        let held = sale.held(&store, by, &[n]).await;
        store.charge(charge(by, 2 * PRICE, START)).await.unwrap();
        if n % 2 == 0 {
            store.pay(pay(by, held.id, START)).await.unwrap();
        }
    }
    store.create_queue(main_queue(), settings()).await.unwrap();
    store.close().await;
    directory
}

#[tokio::test]
async fn a_second_process_is_told_that_the_directory_is_in_use() {
    let (store, directory) = fresh().await;
    assert!(SqliteStore::is_locked(directory.path()));
    let fault = refusal(directory.path());
    assert!(matches!(fault, Fault::Unavailable(_)));
    let path = directory.path().to_str().unwrap();
    assert_says(&fault, &["another process", path, "--data-dir"]);
    // The attempt did not disturb the first, nor take its lock.
    store.charge(charge(1, 5, START)).await.unwrap();
    assert!(SqliteStore::is_locked(directory.path()));
    store.close().await;
    drop(store);
    assert!(!SqliteStore::is_locked(directory.path()));
    assert_eq!(open(directory.path()).balance(user(1)).await, Ok(5));
}

#[tokio::test]
async fn a_store_tells_the_version_that_the_file_had() {
    let directory = tempfile::tempdir().unwrap();
    assert!(!SqliteStore::is_locked(directory.path()));
    // The directory is made, with those above it.
    let inner = directory.path().join("a/b");
    let (store, version) = try_open(&inner).unwrap();
    assert_eq!(version, 0);
    Store::Sqlite(store).close().await;
    assert_eq!(try_open(&inner).unwrap().1, SqliteStore::SCHEMA_VERSION);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(directory.path(), mode(0o555)).unwrap();
    // Modes do not bind root; /proc takes files from nobody.
    let is_root = std::fs::write(directory.path().join("probe"), "").is_ok();
    let read_only = if is_root { Path::new("/proc/self") } else { directory.path() };
    let fault = refusal(read_only);
    assert!(matches!(fault, Fault::Unavailable(_)));
    let path = read_only.to_str().unwrap();
    assert_says(&fault, &["cannot write", path, "its mode", "--data-dir"]);
    // Nor can a directory be made in there.
    let fault = refusal(&read_only.join("data"));
    assert!(matches!(fault, Fault::Unavailable(_)));
    assert_says(&fault, &["cannot make the data directory", "--data-dir"]);
    std::fs::set_permissions(directory.path(), mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_directory_in_the_place_of_the_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(SqliteStore::file(directory.path())).unwrap();
    let fault = refusal(directory.path());
    assert!(matches!(fault, Fault::Unavailable(_)));
    assert_says(&fault, &["boxoffice.sqlite3", "cannot be opened"]);
}

#[tokio::test]
async fn a_file_of_another_program_is_left_alone() {
    for sql in [
        "CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)",
        "PRAGMA application_id = 77; CREATE TABLE theirs (x)",
        "PRAGMA user_version = 3; CREATE TABLE theirs (x)",
        // Made, but without a table so far.
        "PRAGMA user_version = 1",
    ] {
        let directory = tempfile::tempdir().unwrap();
        raw(directory.path()).execute_batch(sql).unwrap();
        let file = SqliteStore::file(directory.path());
        let before = std::fs::read(&file).unwrap();
        let fault = refusal(directory.path());
        assert!(matches!(fault, Fault::Unavailable(_)));
        assert_says(&fault, &["another program", "nothing was changed", "--data-dir"]);
        assert_eq!(std::fs::read(&file).unwrap(), before, "{sql}");
        assert!(!SqliteStore::is_locked(directory.path()));
    }
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date() {
    let (store, directory) = fresh().await;
    store.create_queue(main_queue(), settings()).await.unwrap();
    store.take_numbers(main_queue(), 7).await.unwrap();
    store.close().await;
    drop(store);
    raw(directory.path())
        .execute_batch(
            "DROP TABLE plan; ALTER TABLE session DROP COLUMN plan; \
             ALTER TABLE queue DROP COLUMN draw_seed; ALTER TABLE queue DROP COLUMN drawn; \
             ALTER TABLE queue DROP COLUMN chain; DROP TABLE admission_log; \
             DROP TABLE admission_mark; ALTER TABLE queue DROP COLUMN credit_micro; ALTER TABLE queue DROP COLUMN credit_at; \
             ALTER TABLE queue DROP COLUMN steps; ALTER TABLE queue DROP COLUMN pool; \
             ALTER TABLE queue DROP COLUMN pool_after; ALTER TABLE queue DROP COLUMN pool_first; \
             ALTER TABLE queue DROP COLUMN pool_last; \
             DROP TABLE queue_passed; DROP TABLE readmitted; DROP TABLE operator; \
             DROP TABLE change_log; DROP TABLE change_key; DROP TABLE person; \
             DROP INDEX reservation_live; DROP INDEX reservation_by_ticket; \
             DROP INDEX reservation_of_user; DROP TABLE refund; DROP TABLE called_off; \
             ALTER TABLE reservation DROP COLUMN queue; \
             ALTER TABLE reservation DROP COLUMN ticket_seq; \
             ALTER TABLE reservation DROP COLUMN ticket_id; \
             CREATE INDEX reservation_by_user ON reservation (user_id, session_id); \
             PRAGMA user_version = 1",
        )
        .unwrap();
    let (store, version) = try_open(directory.path()).unwrap();
    assert_eq!(version, 1);
    let store = Store::Sqlite(store);
    let queue = store.queues().await.unwrap().remove(0);
    assert_eq!((queue.settings, queue.watermark), (settings(), 7));
    assert_eq!(queue.bucket, Bucket::default());
    assert!(queue.line.steps == 0 && queue.line.passed.is_empty());
    assert_clean(&store, START).await;
}

/// A line from before there was a log: it begins with where the line stands, and goes on from there.
#[tokio::test]
async fn the_log_of_an_older_file_begins_with_where_the_line_stands() {
    let (store, directory) = fresh().await;
    store.create_queue(main_queue(), settings()).await.unwrap();
    let step = |before, step| Checkpoint {
        queue: main_queue(),
        next: 9,
        watermark: 9,
        floor: 0,
        step: Some((before, step)),
        claimed: None,
        over_before: START,
    };
    let first = Step { passed: [2, 3].into_iter().collect(), ..everybody(5, at(1)) };
    store.checkpoint(vec![step(0, first)], at(1)).await.unwrap();
    let returned = [3].into_iter().collect();
    let second = Step { returned, ..everybody(5, at(2)) };
    store.checkpoint(vec![step(5, second)], at(2)).await.unwrap();
    store.close().await;
    drop(store);
    raw(directory.path())
        .execute_batch(
            "DROP INDEX change_log_undoes; DROP INDEX person_by_name; \
             ALTER TABLE change_log DROP COLUMN undoes; ALTER TABLE change_log DROP COLUMN reason; \
             DROP TABLE plan; ALTER TABLE session DROP COLUMN plan; \
             ALTER TABLE queue DROP COLUMN draw_seed; ALTER TABLE queue DROP COLUMN drawn; \
             ALTER TABLE queue DROP COLUMN chain; DROP TABLE admission_log; \
             DROP TABLE admission_mark; PRAGMA user_version = 5",
        )
        .unwrap();
    let (store, version) = try_open(directory.path()).unwrap();
    assert_eq!(version, 5);
    let store = Store::Sqlite(store);
    let begun = |store: &Store| {
        let store = store.clone();
        async move { store.admission_log(main_queue(), None, 9).await.unwrap().unwrap() }
    };
    let log = begun(&store).await;
    assert_eq!((log.previous, log.links.len()), (Digest::genesis(&main_queue()), 1));
    let record = Record::from_bytes(&log.links[0].bytes).unwrap();
    let passed = Runs::from(&[2].into_iter().collect());
    let standing = Standing { serving: 5, passed, terms: (&settings()).into(), draw: None };
    assert_eq!((record.number, record.entry), (2, Entry::Stands(standing)));
    store.checkpoint(vec![step(5, everybody(7, at(3)))], at(3)).await.unwrap();
    assert_clean(&store, START).await;
    store.close().await;
    drop(store);
    // Once begun it only goes on.
    let (store, _) = try_open(directory.path()).unwrap();
    let again = begun(&Store::Sqlite(store)).await;
    assert_eq!((again.links.len(), &again.links[0]), (2, &log.links[0]));
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_left_alone() {
    let directory = closed().await;
    let newer = SqliteStore::SCHEMA_VERSION + 1;
    raw(directory.path()).pragma_update(None, "user_version", newer).unwrap();
    let file = SqliteStore::file(directory.path());
    let before = std::fs::read(&file).unwrap();
    let fault = refusal(directory.path());
    assert!(matches!(fault, Fault::Unavailable(_)));
    let found = format!("schema version {newer}");
    assert_says(&fault, &[&found, "newer boxoffice", "restore a backup"]);
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn garbage_is_left_alone() {
    // A single byte is an empty file to SQLite; there is nothing in it to lose.
    for length in [2, 16, 100, 511, 512, 4096, 100_000] {
        let directory = tempfile::tempdir().unwrap();
        let garbage: Vec<u8> = (0..length).map(|n: u32| (n.wrapping_mul(31) >> 2) as u8).collect();
        let file = SqliteStore::file(directory.path());
        std::fs::write(&file, &garbage).unwrap();
        let fault = refusal(directory.path());
        assert!(matches!(fault, Fault::Corrupt(_)), "{length}: {fault}");
        assert_says(&fault, &["is not a SQLite database", "nothing was changed", "backup"]);
        assert_eq!(std::fs::read(&file).unwrap(), garbage, "{length}");
    }
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_reported_and_left_alone() {
    let directory = closed().await;
    let file = SqliteStore::file(directory.path());
    let whole = std::fs::read(&file).unwrap();
    // SQLite keeps no checksums: a cut inside the last page is not noticed before that is read.
    for length in [whole.len() - 4096, whole.len() / 2, 4096 + 1, 4096, 4095] {
        std::fs::write(&file, &whole[..length]).unwrap();
        let fault = refusal(directory.path());
        assert!(matches!(fault, Fault::Corrupt(_)), "{length}: {fault}");
        assert_says(&fault, &["boxoffice.sqlite3", "damaged", "Restore a backup"]);
        assert_eq!(std::fs::read(&file).unwrap(), whole[..length], "{length}");
    }
    std::fs::write(&file, &whole).unwrap();
    assert_clean(&open(directory.path()), START).await;
}

#[tokio::test]
async fn a_damaged_page_is_an_error_and_never_a_wrong_answer() {
    let directory = closed().await;
    let file = SqliteStore::file(directory.path());
    let whole = std::fs::read(&file).unwrap();
    let (mut refused, mut audited) = (0, 0);
    for page in 0..whole.len() / 4096 {
        let mut damaged = whole.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0xa5);
        std::fs::write(&file, &damaged).unwrap();
        match try_open(directory.path()) {
            Err(fault) => {
                refused += 1;
                assert!(matches!(fault, Fault::Corrupt(_)), "page {page}: {fault}");
                assert_says(&fault, &["boxoffice.sqlite3", "backup"]);
                assert_eq!(std::fs::read(&file).unwrap(), damaged, "page {page}");
            }
            // What a start does not read, an audit or a write comes across.
            Ok((store, _)) => {
                let store = Store::Sqlite(store);
                match store.audit(START).await {
                    Err(fault) => {
                        audited += 1;
                        assert!(matches!(fault, Fault::Corrupt(_)), "page {page}: {fault}");
                    }
                    Ok(findings) => {
                        audited += usize::from(findings.iter().any(|found| found.violations > 0));
                    }
                }
                if let Err(error) = store.charge(charge(1, 1, START)).await {
                    assert!(matches!(error, Error::Fault(Fault::Corrupt(_))), "page {page}");
                }
                store.close().await;
            }
        }
    }
    assert!(refused > 3 && audited > 3, "{refused} refused, {audited} found by the audit");
}

#[tokio::test]
async fn a_value_that_cannot_be_is_told_in_a_sentence() {
    for (table, column, value) in
        [("seat", "price", "NULL"), ("concert", "name", "x'ff'"), ("queue", "serving", "NULL")]
    {
        let directory = closed().await;
        // As a damaged page may read: the schema forbids it, and nobody asks the schema.
        let connection = raw(directory.path());
        let schema = |from: &str, to: &str| {
            connection
                .execute_batch(&format!(
                    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET \
                     sql = replace(sql, '{from}', '{to}') WHERE name = '{table}'; \
                     PRAGMA writable_schema = RESET"
                ))
                .unwrap();
        };
        let kind = if value == "NULL" { "INTEGER" } else { "TEXT" };
        schema(&format!("{column} {kind} NOT NULL"), &format!("{column} ANY"));
        let count =
            connection.execute(&format!("UPDATE {table} SET {column} = {value}"), []).unwrap();
        assert!(count > 0, "{table}.{column}");
        schema(&format!("{column} ANY"), &format!("{column} {kind} NOT NULL"));
        drop(connection);
        let fault = match try_open(directory.path()) {
            Err(fault) => fault,
            Ok((store, _)) => Store::Sqlite(store).queues().await.unwrap_err(),
        };
        assert!(matches!(fault, Fault::Corrupt(_)), "{fault}");
        assert_says(&fault, &["boxoffice.sqlite3", column, "where that cannot be", "a backup"]);
    }
}

/// The files of a directory and what is in them.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn a_look_finds_what_is_there_and_writes_nothing() {
    // Closed, and as a crash leaves it: then all is in the log.
    let (store, running) = fresh().await;
    store.charge(charge(1, 5, START)).await.unwrap();
    let crash = crashed(running.path());
    let rest = closed().await;
    for (directory, points) in [(&rest, 2 * PRICE), (&crash, 5)] {
        let file = SqliteStore::file(directory.path());
        let log = file.with_extension("sqlite3-wal");
        let before = (std::fs::read(&file).unwrap(), std::fs::read(&log).ok());
        let store = Store::Sqlite(SqliteStore::open_read_only(options(directory.path())).unwrap());
        assert_says(&refusal(directory.path()), &["another process"]);
        let user = if points == 5 { user(1) } else { user(2) };
        assert_eq!(store.balance(user).await, Ok(points));
        assert_clean(&store, START).await;
        assert!(store.charge(charge(1, 5, START)).await.is_err(), "it writes");
        store.close().await;
        drop(store);
        assert_eq!((std::fs::read(&file).unwrap(), std::fs::read(&log).ok()), before);
    }
    assert!(content(rest.path()).len() == 2, "the file and its lock only");
    assert_eq!(open(crash.path()).balance(user(1)).await, Ok(5));
}

#[tokio::test]
async fn a_look_leaves_what_it_cannot_read_as_it_is() {
    let empty = tempfile::tempdir().unwrap();
    raw(empty.path()).execute_batch("VACUUM").unwrap();
    let older = closed().await;
    raw(older.path())
        .execute_batch(
            "ALTER TABLE queue DROP COLUMN credit_micro; ALTER TABLE queue DROP COLUMN credit_at; \
             ALTER TABLE queue DROP COLUMN steps; ALTER TABLE queue DROP COLUMN pool; \
             ALTER TABLE queue DROP COLUMN pool_after; ALTER TABLE queue DROP COLUMN pool_first; \
             ALTER TABLE queue DROP COLUMN pool_last; \
             DROP TABLE queue_passed; DROP TABLE readmitted; \
             PRAGMA user_version = 1",
        )
        .unwrap();
    let newer = closed().await;
    let version = SqliteStore::SCHEMA_VERSION + 1;
    raw(newer.path()).pragma_update(None, "user_version", version).unwrap();
    let foreign = tempfile::tempdir().unwrap();
    raw(foreign.path()).execute_batch("CREATE TABLE theirs (x)").unwrap();
    for (directory, texts) in [
        (&older, &["schema version 1", "nothing was changed", "`boxoffice migrate`"][..]),
        (&newer, &["newer boxoffice"]),
        (&foreign, &["another program"]),
        (&empty, &["schema version 0"]),
    ] {
        // The lock is there, as after any start.
        drop(std::fs::File::create(directory.path().join("boxoffice.lock")).unwrap());
        let before = content(directory.path());
        let looked = SqliteStore::open_read_only(options(directory.path()));
        assert_says(&looked.err().expect("it opens"), texts);
        assert!(content(directory.path()) == before, "{texts:?}: something was written");
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn only_the_owner_can_read_the_store_and_its_copies() {
    // What most systems begin with; files are readable by all then, unless somebody sees to it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let (store, directory) = fresh().await;
    let file = SqliteStore::file(directory.path());
    let files = ["", "-wal", "-shm"].map(|suffix| {
        let mut name = file.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    });
    store.charge(charge(1, 5, START)).await.unwrap();
    assert_eq!(files.each_ref().map(|path| mode(path)), [0o600; 3]);

    // As an older version left them, log and index from a crash among them.
    let crash = crashed(directory.path());
    let old = ["boxoffice.sqlite3", "boxoffice.sqlite3-wal", "boxoffice.sqlite3-shm"];
    let old = old.map(|name| crash.path().join(name));
    for path in &old {
        drop(std::fs::File::options().create(true).append(true).open(path).unwrap());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let again = open(crash.path());
    assert_eq!(again.balance(user(1)).await, Ok(5));
    assert_eq!(old.each_ref().map(|path| mode(path)), [0o600; 3]);

    let target = crash.path().join("copy.sqlite3");
    let mut modes = Vec::new();
    backup(directory.path(), &target, |_, _| modes.push(target.exists().then(|| mode(&target))))
        .unwrap();
    assert!(!modes.is_empty(), "nobody looked while it was written");
    assert!(modes.iter().all(|mode| *mode == Some(0o600)), "{modes:?}");
    assert_eq!(mode(&target), 0o600);
}

/// A store whose writer stops after each commit until it is let on, so that what is sent meanwhile
/// is one batch. Also gives the sizes of the batches that were committed.
struct Halted {
    store: Store,
    directory: TempDir,
    sizes: Arc<Mutex<Vec<usize>>>,
    go: mpsc::Sender<()>,
    /// Waits for the answer to the commit after which the writer stopped.
    stopped_by: Option<tokio::task::JoinHandle<()>>,
}

impl Halted {
    async fn new(queue_max: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let (go, wait) = mpsc::channel();
        let wait = Mutex::new(wait);
        let seen = sizes.clone();
        let options = SqliteOptions {
            queue_max,
            observe: std::sync::Arc::new(move |commit| {
                seen.lock().unwrap().push(commit.commands);
                // Once nobody can let it on any more, it is free.
                let _ = wait.lock().unwrap().recv();
            }),
            ..options(directory.path())
        };
        let store = Store::Sqlite(SqliteStore::open(options).unwrap().0);
        let mut halted = Self { store, directory, sizes, go, stopped_by: None };
        halted.halt().await;
        halted
    }

    /// Makes a commit after which the writer stops.
    async fn halt(&mut self) {
        let commits = self.sizes().len();
        let store = self.store.clone();
        self.stopped_by = Some(tokio::spawn(async move {
            store.set_setting("some", "value".into()).await.unwrap();
        }));
        eventually(|| (self.sizes().len() > commits).then_some(())).await;
    }

    fn sizes(&self) -> Vec<usize> {
        self.sizes.lock().unwrap().clone()
    }

    async fn pending(&self, count: u64) {
        let pending = || self.store.stats().pending.load(Ordering::SeqCst);
        eventually(|| (pending() == count).then_some(())).await;
    }
}

#[tokio::test]
async fn what_waits_is_one_commit() {
    let halted = Halted::new(10_000).await;
    let store = halted.store.clone();
    let charges: Vec<_> = (1..=40)
        .map(|by| {
            let store = store.clone();
            tokio::spawn(async move { store.charge(charge(by, by, START)).await })
        })
        .collect();
    halted.pending(40).await;
    drop(halted.go);
    for charge in charges {
        charge.await.unwrap().unwrap();
    }
    assert_eq!(*halted.sizes.lock().unwrap(), [1, 40]);
    assert_clean(&store, START).await;
}

/// In one batch: good operations, refused ones, and two that fail in the middle of their writes.
#[tokio::test]
async fn an_operation_that_fails_does_not_hurt_its_neighbours() {
    let halted = Halted::new(10_000).await;
    let store = halted.store.clone();
    let vip = QueueName::new("vip").unwrap();
    let mut good = Vec::new();
    let mut bad = Vec::new();
    let mut refused = Vec::new();
    for n in 1..=10 {
        let (a, b, c) = (store.clone(), store.clone(), store.clone());
        good.push(tokio::spawn(async move { a.charge(charge(n, n, START)).await.is_ok() }));
        refused.push(tokio::spawn(async move { b.charge(charge(n, -n, START)).await }));
        if n == 3 {
            let name = main_queue();
            good.push(tokio::spawn(
                async move { c.create_queue(name, settings()).await == Ok(true) },
            ));
        } else if n % 4 == 0 {
            // The first queue is written before the second turns out to be none.
            let first = Checkpoint {
                queue: main_queue(),
                next: 9,
                watermark: 9,
                floor: 0,
                step: Some((0, everybody(5, START))),
                claimed: None,
                over_before: START,
            };
            let second = Checkpoint { queue: vip.clone(), ..first.clone() };
            bad.push(tokio::spawn(async move { c.checkpoint(vec![first, second], START).await }));
        }
    }
    halted.pending(23).await;
    drop(halted.go);
    for good in good {
        assert!(good.await.unwrap());
    }
    for refused in refused {
        assert!(matches!(refused.await.unwrap(), Err(Error::Rejected(_))));
    }
    for bad in bad {
        assert!(matches!(bad.await.unwrap(), Err(Fault::Corrupt(_))));
    }
    // Nothing of the failed ones is left, and nothing was done twice when the others ran again.
    let main = store.queues().await.unwrap();
    assert_eq!((main.len(), main[0].line.serving, main[0].watermark), (1, 0, 0));
    for n in 1..=10 {
        assert_eq!(store.balance(user(n)).await, Ok(n));
    }
    assert_eq!(store.next_events(100).await.unwrap().rows.len(), 10);
    assert_eq!(store.stats().fault(), None, "the last write succeeded");
    assert_clean(&store, START).await;
}

/// Ids that a rolled-back batch has used are not in anybody's hands; those after it are new.
#[tokio::test]
async fn seats_and_ids_are_right_after_a_rolled_back_batch() {
    let mut halted = Halted::new(10_000).await;
    let store = halted.store.clone();
    // The commit under way, and two for the sale.
    (0..3).for_each(|_| halted.go.send(()).unwrap());
    let sale = sale(&store, 4).await;
    halted.halt().await;
    let reserve = |by: i64, seats: &[usize]| {
        let (store, request) = (store.clone(), sale.reserve(by, seats, START));
        tokio::spawn(async move { store.reserve(request).await })
    };
    let first = reserve(1, &[0, 1]);
    let second = reserve(2, &[1, 2]);
    let failing = store.clone();
    let vip = QueueName::new("vip").unwrap();
    let failing =
        tokio::spawn(async move { failing.change_queue(vip, SettingsChange::default()).await });
    let third = reserve(3, &[2, 3]);
    let fourth = reserve(4, &[0, 3]);
    halted.pending(5).await;
    drop(halted.go);
    let first = first.await.unwrap().unwrap().value;
    let third = third.await.unwrap().unwrap().value;
    assert_ne!(first.id, third.id);
    assert!(second.await.unwrap().is_err() && fourth.await.unwrap().is_err());
    failing.await.unwrap().unwrap_err();
    assert_eq!(store.next_events(100).await.unwrap().rows.len(), 2);
    assert_clean(&store, START).await;
}

/// A commit that fails at the very end, as on a full disk, shows nowhere: neither in the seats in
/// memory nor in the ids that come next. The store says what is wrong until a write succeeds.
#[tokio::test]
async fn a_commit_that_fails_did_not_happen() {
    let (store, directory) = fresh().await;
    let sale = sale(&store, 3).await;
    let held = sale.held(&store, 1, &[0]).await;
    store.charge(charge(1, PRICE, START)).await.unwrap();
    // The rows go in; it is the commit that finds the missing parent.
    let table = "CREATE TABLE child (parent REFERENCES setting (name) DEFERRABLE INITIALLY \
                 DEFERRED)";
    let other = raw(directory.path());
    other.execute_batch(table).unwrap();
    for table in ["UPDATE ON seat", "INSERT ON concert", "INSERT ON points_entry"] {
        let trigger = format!(
            "CREATE TRIGGER \"{table}\" AFTER {table} BEGIN INSERT INTO child VALUES ('none'); END"
        );
        other.execute_batch(&trigger).unwrap();
    }
    let version = store.catalog().inventory(sale.concert, sale.session).unwrap().version();
    let request = sale.reserve(2, &[1, 2], START);
    for _ in 0..2 {
        let answer = store.reserve(request.clone()).await;
        assert!(matches!(answer, Err(Error::Fault(Fault::Unavailable(_)))), "{answer:?}");
        assert!(store.stats().fault().unwrap().contains("constraint"));
    }
    store.pay(pay(1, held.id, START)).await.unwrap_err();
    store.cancel(held.id, user(1), START).await.unwrap_err();
    store.charge(charge(1, 1, START)).await.unwrap_err();
    store.create_concert(conformance::concert()).await.unwrap_err();
    assert_eq!(sale.owner(&store, 1), SeatState::Available);
    assert!(matches!(sale.owner(&store, 0), SeatState::Held { .. }));
    let catalog = store.catalog();
    assert_eq!(catalog.inventory(sale.concert, sale.session).unwrap().version(), version);
    assert_eq!(catalog.concerts().count(), 1);
    assert_eq!(store.balance(user(1)).await, Ok(PRICE));
    assert_clean(&store, START).await;

    for table in ["UPDATE ON seat", "INSERT ON concert", "INSERT ON points_entry"] {
        other.execute_batch(&format!("DROP TRIGGER \"{table}\"")).unwrap();
    }
    store.reserve(request).await.unwrap();
    assert_eq!(store.stats().fault(), None);
    store.pay(pay(1, held.id, START)).await.unwrap();
    assert_eq!(store.next_events(100).await.unwrap().rows.len(), 4);
    assert_clean(&store, START).await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let halted = Halted::new(3).await;
    let store = halted.store.clone();
    let waiting: Vec<_> = (1..=3)
        .map(|by| {
            let store = store.clone();
            tokio::spawn(async move { store.charge(charge(by, 1, START)).await })
        })
        .collect();
    halted.pending(3).await;
    let fault = store.set_setting("one", "more".into()).await.unwrap_err();
    assert!(matches!(fault, Fault::Unavailable(_)));
    assert_says(&fault, &["too many"]);
    // Reads go on beside it.
    assert_eq!(store.balance(user(1)).await, Ok(0));
    drop(halted.go);
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    // All of them are answered, so there is room again.
    store.set_setting("one", "more".into()).await.unwrap();
    assert_clean(&store, START).await;
}

#[tokio::test]
async fn a_closed_store_has_kept_what_was_waiting_and_takes_no_more() {
    let halted = Halted::new(10_000).await;
    let store = halted.store.clone();
    let waiting: Vec<_> = (1..=20)
        .map(|by| {
            let store = store.clone();
            tokio::spawn(async move { store.charge(charge(by, 7, START)).await })
        })
        .collect();
    halted.pending(20).await;
    drop(halted.go);
    store.close().await;
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    let answer = store.charge(charge(1, 1, START)).await;
    assert_eq!(answer, Err(Error::Fault(Fault::Unavailable("the store is closed".into()))));
    assert_eq!(store.stats().pending.load(Ordering::SeqCst), 0);
    // Closing what is closed does nothing.
    store.close().await;
    drop((store, halted.store));
    let store = open(halted.directory.path());
    for by in 1..=20 {
        assert_eq!(store.balance(user(by)).await, Ok(7));
    }
    assert_clean(&store, START).await;
}

/// Everybody who asked has hung up and nobody holds the store any more, but its writer is still at
/// work: whoever opened the file now would count on from numbers that the writer is about to use.
#[tokio::test]
async fn a_dropped_store_is_in_use_until_its_writer_has_ended() {
    let halted = Halted::new(10_000).await;
    let charges: Vec<_> = (1..=30)
        .map(|by| {
            let store = halted.store.clone();
            tokio::spawn(async move { store.charge(charge(by, 7, START)).await })
        })
        .collect();
    halted.pending(30).await;
    for charge in &charges {
        charge.abort();
    }
    for charge in charges {
        assert!(charge.await.unwrap_err().is_cancelled());
    }
    let Halted { store, directory, go, stopped_by, .. } = halted;
    let stopped_by = stopped_by.unwrap();
    stopped_by.abort();
    assert!(stopped_by.await.unwrap_err().is_cancelled());
    drop(store);
    let path = directory.path();
    assert!(SqliteStore::is_locked(path), "the writer is at work");
    drop(go);
    let store = eventually(|| try_open(path).ok()).await;
    let store = Store::Sqlite(store.0);
    for by in 1..=30 {
        assert_eq!(store.balance(user(by)).await, Ok(7));
        store.charge(charge(by, 1, START)).await.unwrap();
    }
    assert_clean(&store, START).await;
}

/// Tasks that charge and buy until told to stop; each adds up what was acknowledged to it.
struct Writers {
    acknowledged: Vec<Arc<AtomicI64>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    async fn start(store: &Store, count: i64) -> Self {
        let sale = sale(store, 2_000).await;
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged: Vec<Arc<AtomicI64>> = (0..count).map(|_| Arc::default()).collect();
        let write = |(index, sum): (usize, &Arc<AtomicI64>)| {
            let (store, sale) = (store.clone(), sale.clone());
            let (stop, sum) = (stop.clone(), sum.clone());
            tokio::spawn(async move {
                let by = index as i64 + 1;
                for round in 0..2_000 / count as usize {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    store.charge(charge(by, PRICE + 1, START)).await.unwrap();
                    let mut request = sale.reserve(by, &[index + round * count as usize], START);
                    request.limits.seats_per_user_max = 2_000;
                    request.ticket = ticket(by as u64 * 10_000 + round as u64);
                    let mut payment =
                        pay(by, store.reserve(request.clone()).await.unwrap().value.id, START);
                    payment.ticket = request.ticket;
                    store.pay(payment).await.unwrap();
                    sum.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let tasks = acknowledged.iter().enumerate().map(write).collect();
        Self { acknowledged, stop, tasks }
    }

    fn so_far(&self) -> Vec<i64> {
        self.acknowledged.iter().map(|sum| sum.load(Ordering::SeqCst)).collect()
    }

    async fn written(&self, each: i64) {
        eventually(|| self.so_far().iter().all(|sum| *sum >= each).then_some(())).await;
    }

    async fn end(self) -> Vec<i64> {
        self.stop.store(true, Ordering::SeqCst);
        let Self { acknowledged, tasks, .. } = self;
        for task in tasks {
            task.await.unwrap();
        }
        acknowledged.iter().map(|sum| sum.load(Ordering::SeqCst)).collect()
    }
}

/// A copy has at least what was acknowledged before it was begun, at most what was after it was
/// done, and no operation by half. Each round of a writer leaves it one point.
async fn assert_between(store: &Store, before: &[i64], after: &[i64]) {
    assert_clean(store, START).await;
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        let by = index as i64 + 1;
        let balance = store.balance(user(by)).await.unwrap();
        // A round is three operations; a copy may catch it after the first or the second.
        let rounds = if balance > PRICE { balance - PRICE } else { balance };
        assert!((*before..=after + 1).contains(&rounds), "{by}: {before} {balance} {after}");
    }
}

/// The files as a crash leaves them hold everything that was acknowledged, wherever the log ends:
/// it may be cut anywhere behind the last commit that was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loses_nothing_that_was_acknowledged() {
    let (store, directory) = fresh().await;
    let writers = Writers::start(&store, 8).await;
    for round in 1..=3 {
        writers.written(round * 4).await;
        let before = writers.so_far();
        let copy = crashed(directory.path());
        let after = writers.so_far();
        let survivor = open(copy.path());
        assert_between(&survivor, &before, &after).await;
        // And it goes on from there.
        let more = sale(&survivor, 1).await;
        more.bought(&survivor, 9_000, &[0]).await;
        assert_clean(&survivor, START).await;
    }
    writers.end().await;
    assert_clean(&store, START).await;
}

/// A write that was torn in the middle is no commit: the log is cut at every so many bytes, and
/// each time the store opens, whole.
#[tokio::test]
async fn a_torn_log_is_a_shorter_past() {
    let (store, directory) = fresh().await;
    let sale = sale(&store, 30).await;
    let mut ends = vec![];
    let log = directory.path().join("boxoffice.sqlite3-wal");
    for n in 0..10 {
        sale.bought(&store, n as i64 + 1, &[n]).await;
        ends.push(std::fs::metadata(&log).unwrap().len());
    }
    let whole = std::fs::read(&log).unwrap();
    let mut cuts: Vec<u64> = (0..12).map(|n| whole.len() as u64 * n / 12 + 17 * n).collect();
    // Exactly at a commit, and one byte to either side.
    cuts.extend(ends.iter().step_by(3).flat_map(|end| [end - 1, *end, end + 1]));
    cuts.retain(|cut| (ends[0]..=whole.len() as u64).contains(cut));
    assert!(cuts.len() > 15, "{cuts:?}");
    for cut in cuts {
        let copy = crashed(directory.path());
        let torn = std::fs::File::options()
            .write(true)
            .open(copy.path().join("boxoffice.sqlite3-wal"))
            .unwrap();
        torn.set_len(cut).unwrap();
        let survivor = open(copy.path());
        assert_clean(&survivor, START).await;
        let sold = survivor.catalog().inventory(sale.concert, sale.session).unwrap().sold();
        let whole_ones = ends.iter().filter(|end| **end <= cut).count() as u64;
        assert_eq!(sold, whole_ones, "cut at {cut} of {ends:?}");
    }
}

/// Dropped without a word, as when a panic takes the service down.
#[tokio::test]
async fn a_store_that_was_not_closed_opens_as_it_was() {
    let (mut store, directory) = fresh().await;
    let sale = sale(&store, 20).await;
    for round in 0..5_usize {
        let (bought, _) = sale.bought(&store, round as i64 + 1, &[round]).await;
        store.charge(charge(99, 1, at(round as i64))).await.unwrap();
        drop(store);
        let opened = eventually(|| try_open(directory.path()).ok()).await;
        store = Store::Sqlite(opened.0);
        assert_eq!(store.balance(user(99)).await, Ok(round as i64 + 1));
        let found = store.reservation(bought.id).await.unwrap().unwrap().0;
        assert_eq!(found.items, bought.items);
        assert_eq!(store.clock().await, Ok(at(round as i64)));
        assert_clean(&store, START).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_during_a_sale_is_whole() {
    let (store, directory) = fresh().await;
    let writers = Writers::start(&store, 8).await;
    for round in 1..=3 {
        writers.written(round * 3).await;
        let before = writers.so_far();
        let copy = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().to_owned(), SqliteStore::file(copy.path()));
        let size = tokio::task::spawn_blocking(move || {
            let mut told = 0;
            let size = backup(&from, &to, |_, _| told += 1).unwrap();
            assert!(told > 0, "nobody was told of progress");
            assert_eq!(size, std::fs::metadata(&to).unwrap().len());
            size
        });
        assert!(size.await.unwrap() > 0);
        let after = writers.so_far();
        // It is a store of its own, of this version, in one file.
        assert_eq!(std::fs::read_dir(copy.path()).unwrap().count(), 1);
        let (copied, version) = try_open(copy.path()).unwrap();
        assert_eq!(version, SqliteStore::SCHEMA_VERSION);
        assert_between(&Store::Sqlite(copied), &before, &after).await;
    }
    writers.end().await;
    assert_clean(&store, START).await;
}

/// Halls are in a backup, and after a restore the seats are the places that they were.
#[tokio::test]
async fn a_restored_store_has_its_halls() {
    let (store, directory) = fresh().await;
    let other = sale(&store, 1).await;
    let hall = conformance::seating::hall();
    let planned = conformance::planned(&store, other.concert, &hall).await;
    let held = store.reserve(conformance::seating::best(&planned, 1, 2)).await.unwrap().value;
    let target = directory.path().join("copy.sqlite3");
    backup(directory.path(), &target, |_, _| {}).unwrap();
    let restored = tempfile::tempdir().unwrap();
    Restore::begin(restored.path(), &target).unwrap().finish().unwrap();
    let copy = open(restored.path());
    let catalog = copy.catalog();
    let inventory = catalog.inventory(planned.concert, planned.session).unwrap();
    assert_eq!(inventory.plan().unwrap().body(), hall.body());
    let next = copy.reserve(conformance::seating::best(&planned, 2, 2)).await.unwrap().value;
    assert!(next.items.iter().all(|item| !held.items.contains(item)));
    assert_clean(&copy, START).await;
}

#[tokio::test]
async fn a_backup_that_cannot_be_made_leaves_nothing() {
    let directory = closed().await;
    let empty = tempfile::tempdir().unwrap();
    let target = empty.path().join("copy.sqlite3");
    let quiet = |_, _| {};
    let fault = backup(empty.path(), &target, quiet).unwrap_err();
    assert_says(&fault, &["there is no store", empty.path().to_str().unwrap()]);
    let nowhere = empty.path().join("none/copy.sqlite3");
    assert!(matches!(backup(directory.path(), &nowhere, quiet), Err(Fault::Unavailable(_))));
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);

    std::fs::write(&target, "precious").unwrap();
    let fault = backup(directory.path(), &target, quiet).unwrap_err();
    assert_says(&fault, &["exists already"]);
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");

    // Of a damaged file no half copy is kept either.
    let file = SqliteStore::file(directory.path());
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let half = empty.path().join("half.sqlite3");
    assert!(matches!(backup(directory.path(), &half, quiet), Err(Fault::Corrupt(_))));
    assert!(!half.exists());
    // Here the copy is under way when the damage shows.
    let mut damaged = whole.clone();
    let middle = whole.len() / 8192 * 4096;
    damaged[middle..middle + 10 * 4096].fill(0xa5);
    std::fs::write(&file, &damaged).unwrap();
    assert!(matches!(backup(directory.path(), &half, quiet), Err(Fault::Corrupt(_))));
    assert!(!half.exists());
}
