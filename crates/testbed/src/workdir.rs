//! Directories of our own, which do not stay behind.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use tempfile::TempDir;

/// A directory for logs and data.
#[derive(Debug)]
pub struct Workdir {
    path: PathBuf,
    temporary: Option<TempDir>,
}

impl Workdir {
    /// Returns an empty directory, with the id of this process in its name, that is removed when this is dropped, and also when nobody drops it: a
    /// static never is, and a program that is killed drops nothing.
    pub fn temporary() -> Result<Self, String> {
        let prefix = format!("boxoffice-{}-", std::process::id());
        let made = tempfile::Builder::new().prefix(&prefix).tempdir();
        let made = made.map_err(|error| format!("cannot make a temporary directory: {error}"))?;
        remember(made.path());
        Ok(Self { path: made.path().to_owned(), temporary: Some(made) })
    }

    /// Returns a directory that is kept. It is made where it is missing.
    pub fn kept(path: &Path) -> Result<Self, String> {
        let failed = |error| format!("cannot make the directory {}: {error}", path.display());
        std::fs::create_dir_all(path).map_err(failed)?;
        // Whoever is started there has another working directory.
        Ok(Self { path: path.canonicalize().map_err(failed)?, temporary: None })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes away with this.
    pub fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }
}

/// Tells the shell that outlives us what to remove at our end.
fn remember(path: &Path) {
    static JANITOR: OnceLock<Option<Mutex<ChildStdin>>> = OnceLock::new();
    let janitor = JANITOR.get_or_init(|| {
        // What dies with us may still write for a moment.
        let script = "trap '' INT TERM HUP; while IFS= read -r d; do set -- \"$@\" \"$d\"; done; \
                      sleep 0.5; if [ $# -gt 0 ]; then rm -rf -- \"$@\"; fi";
        let mut command = Command::new("sh");
        command.args(["-c", script, "janitor"]).process_group(0).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().ok().and_then(|mut child| child.stdin.take()).map(Mutex::new)
    });
    if let Some(janitor) = janitor
        && let Ok(mut to) = janitor.lock()
    {
        let _ = writeln!(to, "{}", path.display());
    }
}
