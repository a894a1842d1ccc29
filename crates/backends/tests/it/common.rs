//! SQLite stores in temporary directories.

// Not every test uses all of it.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;

use boxoffice_backends::Fault;
use boxoffice_backends::store::{SqliteOptions, SqliteStore, Store};
use rusqlite::Connection;
use tempfile::TempDir;

/// Options as the service has them, with small limits.
pub(crate) fn options(directory: &Path) -> SqliteOptions {
    SqliteOptions {
        directory: directory.into(),
        batch_max: 256,
        queue_max: 10_000,
        observe: std::sync::Arc::new(|_| {}),
    }
}

/// Opens the store of a directory.
pub(crate) fn try_open(directory: &Path) -> Result<(Arc<SqliteStore>, i64), Fault> {
    SqliteStore::open(options(directory))
}

/// Opens the store of a directory, which must work.
pub(crate) fn open(directory: &Path) -> Store {
    Store::Sqlite(try_open(directory).unwrap().0)
}

/// An empty store.
pub(crate) async fn fresh() -> (Store, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (open(directory.path()), directory)
}

/// Closes a store, to open it anew.
pub(crate) async fn reopen(store: Store, directory: &TempDir) -> Store {
    store.close().await;
    drop(store);
    open(directory.path())
}

/// What a crash at this moment would leave: the files as they are now, in a directory of their own.
/// Right for as long as the log is shorter than what SQLite copies back into the file.
pub(crate) fn crashed(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let file = SqliteStore::file(directory);
    for suffix in ["", "-wal"] {
        let name = format!("{}{suffix}", file.file_name().unwrap().to_str().unwrap());
        let from = directory.join(&name);
        if from.exists() {
            std::fs::copy(from, copy.path().join(name)).unwrap();
        }
    }
    copy
}

/// The file of a directory, as another program would open it.
pub(crate) fn raw(directory: &Path) -> Connection {
    Connection::open(SqliteStore::file(directory)).unwrap()
}
