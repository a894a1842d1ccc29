//! Restoring a backup into an empty data directory. All that is unfinished is in a directory of its own in
//! there; the store is moved to its place as the last step, whole and synced, or never.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::file::{self, Access, LOCK, Place, beside, create_private, explain, lock};
use super::schema;
use crate::Fault;

/// Where the store is until it is whole.
const UNFINISHED: &str = "restoring";

/// A restore that is under way. Nobody else can open the store meanwhile.
pub struct Restore {
    directory: PathBuf,
    _lock: File,
}

fn unavailable(what: impl Into<String>) -> Fault {
    Fault::Unavailable(what.into())
}

impl Restore {
    /// Copies a backup into a data directory, which is made where it is missing.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] where the directory is not empty or cannot be written, or the file is missing,
    /// not a store of ours, or a newer one; [`Fault::Corrupt`] where it is damaged.
    pub fn begin(directory: &Path, backup: &Path) -> Result<Self, Fault> {
        let shown = directory.display();
        let cannot = |what: &str, error: std::io::Error| {
            unavailable(format!("cannot {what} {shown}: {error}; choose another with --data-dir"))
        };
        let mut private = fs::DirBuilder::new();
        private.mode(0o700).recursive(true);
        check(backup)?;
        private.create(directory).map_err(|error| cannot("make the data directory", error))?;
        let lock = lock(directory).map_err(|problem| problem.into_fault(directory))?;
        let restore = Self { directory: directory.to_owned(), _lock: lock };
        for entry in fs::read_dir(directory).map_err(|error| cannot("read", error))? {
            let name = entry.map_err(|error| cannot("read", error))?.file_name();
            if name != LOCK && name != UNFINISHED {
                return Err(unavailable(format!(
                    "the data directory {shown} is not empty: {} is in it. Restore into a new one, and \
                     leave this one as it is until the service runs on the other",
                    name.display()
                )));
            }
        }
        let unfinished = restore.unfinished();
        private.create(&unfinished).map_err(|error| cannot("write to", error))?;
        restore.empty()?;
        let target = file::store(&unfinished);
        create_private(&target).map_err(|error| cannot("write to", error))?;
        let copied = || {
            let connection = source(backup).connect()?;
            connection.execute("VACUUM INTO ?1", [target.to_string_lossy()])?;
            let copy = Place { path: target.clone(), access: Access::Write }.connect()?;
            copy.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        };
        let found = copied().map_err(|error| explain(backup, error.into()))?;
        if found != "ok" {
            return Err(Fault::Corrupt(format!("{} is damaged: {found}", backup.display())));
        }
        Ok(restore)
    }

    /// The data directory of the store while it is unfinished.
    pub fn unfinished(&self) -> PathBuf {
        self.directory.join(UNFINISHED)
    }

    /// Puts the store, which nobody has open any more, at its place.
    ///
    /// # Errors
    /// Where that cannot be written; then there is no store.
    pub fn finish(self) -> Result<(), Fault> {
        let (from, to) = (file::store(&self.unfinished()), file::store(&self.directory));
        let log = beside(&from, "-wal");
        if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            return Err(Fault::Corrupt(format!("{} was not closed", from.display())));
        }
        let moved = File::open(&from)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&from, &to))
            .and_then(|()| File::open(&self.directory)?.sync_all());
        moved.map_err(|error| unavailable(format!("cannot write {}: {error}", to.display())))?;
        self.clear()
    }

    /// Removes what an earlier restore has left. The directory stays all the while: it says that there is
    /// no store, should this one be cut short as well.
    fn empty(&self) -> Result<(), Fault> {
        let unfinished = self.unfinished();
        let emptied = fs::read_dir(&unfinished).and_then(|mut entries| {
            entries.try_for_each(|entry| {
                let path = entry?.path();
                if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
            })
        });
        emptied
            .map_err(|error| unavailable(format!("cannot empty {}: {error}", unfinished.display())))
    }

    /// Removes what is unfinished.
    fn clear(&self) -> Result<(), Fault> {
        let unfinished = self.unfinished();
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(unavailable(format!("cannot remove {}: {error}", unfinished.display())))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses to make a new store where a restore was cut short: whoever starts it believes that all is there.
pub(super) fn must_be_done(directory: &Path) -> Result<(), Fault> {
    if file::store(directory).exists() || !directory.join(UNFINISHED).exists() {
        return Ok(());
    }
    Err(unavailable(format!(
        "a restore into {} was cut short, and there is no store. Run `boxoffice restore FILE` again",
        directory.display()
    )))
}

fn source(backup: &Path) -> Place {
    // What a log beside it holds belongs to it.
    let has_log = fs::metadata(beside(backup, "-wal")).is_ok_and(|log| log.len() > 0);
    let access = if has_log { Access::Read } else { Access::ReadAlone };
    Place { path: backup.to_owned(), access }
}

/// Whether a file is a store that this program can restore.
fn check(backup: &Path) -> Result<(), Fault> {
    let shown = backup.display();
    match fs::metadata(backup) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(unavailable(format!("{shown} is not a file"))),
        Err(error) => return Err(unavailable(format!("cannot read {shown}: {error}"))),
    }
    let explain = |error: rusqlite::Error| explain(backup, error.into());
    let connection = source(backup).connect().map_err(explain)?;
    let version = schema::version(&connection)
        .map_err(explain)?
        .map_err(|problem| problem.into_fault(backup))?;
    if version == 0 {
        return Err(unavailable(format!("{shown} is empty: it is no backup")));
    }
    Ok(())
}
