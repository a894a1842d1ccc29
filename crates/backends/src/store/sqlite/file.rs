//! The file of the store: its place and its mode, the lock beside it, and what a person is told who
//! cannot have it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::rows::Failure;
use super::schema;
use crate::Fault;

/// The file, and what connections to it may do.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) access: Access,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Read and write.
    Write,
    /// Read, with the log that a crash left.
    Read,
    /// Read a file that has no log: nothing is made beside it.
    ReadAlone,
}

const FILE: &str = "boxoffice.sqlite3";
pub(super) const LOCK: &str = "boxoffice.lock";
/// Prepared statements that a connection keeps. There are fewer than this.
const STATEMENTS: usize = 96;

/// The file inside a data directory.
pub(super) fn store(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

impl Place {
    pub(super) fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match self.access {
            Access::Write => {
                let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE;
                Connection::open_with_flags(&self.path, flags)?
            }
            Access::Read | Access::ReadAlone => {
                let flags = flags | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
                let is_alone = self.access == Access::ReadAlone;
                let connection = Connection::open_with_flags(uri(&self.path, is_alone), flags)?;
                // What the log holds stays in the log.
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
                connection
            }
        };
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        // Only a backup from another process, or the end of one, is ever in the way.
        connection.busy_timeout(Duration::from_secs(5))?;
        Ok(connection)
    }
}

/// The file as SQLite takes it with options. `immutable`: nobody writes it, so that SQLite needs
/// neither locks nor files beside it.
fn uri(path: &Path, immutable: bool) -> OsString {
    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => uri.push(*byte),
            _ => uri.extend(format!("%{byte:02X}").bytes()),
        }
    }
    if immutable {
        uri.extend(b"?immutable=1");
    }
    OsString::from_vec(uri)
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// For its owner only: the store holds everybody's points, and the key that signs the tickets.
const PRIVATE: u32 = 0o600;

/// Makes an empty file that only its owner can read.
pub(super) fn create_private(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path).map(drop)
}

/// Makes the file of the store before SQLite does, which would leave its mode to the umask. The log
/// and its index get the mode of the file.
pub(super) fn make_private(path: &Path) -> Result<(), Fault> {
    match create_private(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(Fault::Unavailable(format!(
            "cannot make {}: {error}; check the owner and the mode of its directory, and the \
                 disk",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Takes the files of the store from everybody but their owner, where an older version or a copy
/// left them readable.
pub(super) fn keep_private(path: &Path) {
    for path in ["", "-wal", "-shm"].map(|suffix| beside(path, suffix)) {
        let Ok(found) = std::fs::metadata(&path) else { continue };
        if found.permissions().mode() & 0o077 == 0 {
            continue;
        }
        if let Err(error) = std::fs::set_permissions(&path, Permissions::from_mode(PRIVATE)) {
            let path = path.display();
            tracing::warn!(%path, %error, "others can read the store; its owner should set mode 600");
        }
    }
}

pub(super) enum LockProblem {
    Held,
    Io(std::io::Error),
}

impl LockProblem {
    pub(super) fn into_fault(self, directory: &Path) -> Fault {
        let shown = directory.display();
        Fault::Unavailable(match self {
            Self::Held => format!(
                "another process has the data directory {shown} open; stop it, or choose another \
                 with --data-dir"
            ),
            Self::Io(error) => format!(
                "cannot write to the data directory {shown}: {error}; check its owner, its mode \
                 and the disk, or choose another with --data-dir"
            ),
        })
    }
}

impl schema::SchemaProblem {
    pub(super) fn into_fault(self, path: &Path) -> Fault {
        let shown = path.display();
        Fault::Unavailable(match self {
            Self::Foreign => format!(
                "{shown} is a database of another program; nothing was changed. Choose another \
                 data directory with --data-dir"
            ),
            Self::Newer(found) => format!(
                "{shown} has schema version {found}, this binary knows {}. A newer boxoffice wrote \
                 it: use that one, or restore a backup",
                schema::VERSION
            ),
        })
    }
}

pub(super) fn lock(directory: &Path) -> Result<File, LockProblem> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join(LOCK))
        .map_err(LockProblem::Io)?;
    hold(file)
}

pub(super) fn is_unwritable(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// The lock in a directory that cannot be written. Where there is none, no service runs there, and
/// none can begin to; the directory stands in for it.
pub(super) fn lock_unwritable(directory: &Path) -> Result<File, LockProblem> {
    let file = File::open(directory.join(LOCK)).or_else(|_| File::open(directory));
    hold(file.map_err(LockProblem::Io)?)
}

fn hold(file: File) -> Result<File, LockProblem> {
    use rustix::fs::{FlockOperation, flock};
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LockProblem::Held),
        Err(errno) => Err(LockProblem::Io(errno.into())),
    }
}

/// Says what a person can do about an error of opening.
pub(super) fn explain(path: &Path, failure: Failure) -> Fault {
    use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, DiskFull, NotADatabase, ReadOnly};
    let shown = path.display();
    let Failure::Sqlite(error) = failure else {
        return match Fault::from(failure) {
            Fault::Corrupt(what) => Fault::Corrupt(format!(
                "{shown}: {what}. Restore a backup; the file was left as it is"
            )),
            other => other,
        };
    };
    match error.sqlite_error_code() {
        Some(NotADatabase) => Fault::Corrupt(format!(
            "{shown} is not a SQLite database; nothing was changed. Move it away or restore a backup"
        )),
        Some(DatabaseCorrupt) => Fault::Corrupt(format!(
            "{shown} is damaged ({error}). Restore a backup; the file was left as it is"
        )),
        Some(ReadOnly | CannotOpen) => Fault::Unavailable(format!(
            "{shown} cannot be opened for writing ({error}); check its owner, its mode and the disk"
        )),
        Some(DiskFull) => Fault::Unavailable(format!(
            "the disk is full ({error}); free some space beside {shown} and start again"
        )),
        _ => Fault::Unavailable(format!("{shown}: {error}")),
    }
}
