//! Where the results of a run are kept: `target/loadtest/TIME-NAME/`.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use testbed::tools::target_dir;

use crate::model::{FORMAT, Run};

pub(crate) const RUN: &str = "run.json";

/// Makes a new directory, `out` or one with time and name.
pub(crate) fn make(out: Option<&Path>, name: &str) -> Result<PathBuf, String> {
    let path = match out {
        Some(out) => out.to_owned(),
        None => {
            let now = jiff::Timestamp::now().to_string();
            // 2026-11-23T00:47:12.123Z as 20261123-004712: seconds suffice, and file names stay plain.
            let digits: String = now.chars().filter(char::is_ascii_digit).take(14).collect();
            let (date, time) = digits.split_at(8);
            target_dir().join("loadtest").join(format!("{date}-{time}-{name}"))
        }
    };
    fs::create_dir_all(&path)
        .map_err(|error| format!("cannot make the run directory {}: {error}", path.display()))?;
    if path.join(RUN).exists() {
        return Err(format!(
            "{} holds a run already; give --out another directory",
            path.display()
        ));
    }
    // Children are started elsewhere.
    path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes a file so that whoever reads it sees the old one or the whole new one.
pub(crate) fn write(path: &Path, content: &str) -> Result<(), String> {
    let beside = path.with_extension("new");
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        let full = if error.kind() == ErrorKind::StorageFull {
            " (free some space, or give --out another disk)"
        } else {
            ""
        };
        format!("cannot write {}: {error}{full}", path.display())
    })
}

/// Keeps a run.
pub(crate) fn save(directory: &Path, run: &Run) -> Result<(), String> {
    let text = serde_json::to_string(run)
        .map_err(|error| format!("cannot write the run as JSON: {error}"))?;
    write(&directory.join(RUN), &(text + "\n"))
}

/// Reads a run; `path` is its directory or its file.
pub(crate) fn load(path: &Path) -> Result<Run, String> {
    let file = if path.is_dir() { path.join(RUN) } else { path.to_owned() };
    let text = fs::read_to_string(&file).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            format!("{} is no run directory: there is no {}", path.display(), file.display())
        }
        _ => format!("cannot read {}: {error}", file.display()),
    })?;
    parse(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn parse(text: &str) -> Result<Run, String> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    // Before anything else: another format may lack or have any field.
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) if format > u64::from(FORMAT) => {
            return Err(format!(
                "written in format {format} by a newer loadtest; this one reads format {FORMAT}. Use the newer one"
            ));
        }
        Some(format) => {
            return Err(format!(
                "written in format {format} by an older loadtest; this one reads format {FORMAT}. Make the run anew"
            ));
        }
        None => return Err("this is no run of loadtest: it does not say its format".to_owned()),
    }
    serde_json::from_value(value)
        .map_err(|error| format!("not a run as format {FORMAT} has it: {error}"))
}

/// All runs in the directories given: each is one run, or holds directories of runs.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for path in paths {
        if path.join(RUN).is_file() || path.is_file() {
            found.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let mut inside: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.join(RUN).is_file())
            .collect();
        if inside.is_empty() {
            return Err(format!("{} is no run directory, and holds none", path.display()));
        }
        inside.sort();
        found.append(&mut inside);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_is_told_by_name_and_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(RUN);
        for (content, expected) in [
            (r#"{"format":999,"test":"x"}"#, "by a newer loadtest"),
            (r#"{"format":0}"#, "by an older loadtest"),
            (r#"{"test":"x"}"#, "does not say its format"),
            (r#"{"format":1}"#, "not a run as format 1 has it: missing field"),
            ("{", "not JSON"),
        ] {
            fs::write(&file, content).unwrap();
            for path in [directory.path(), file.as_path()] {
                let error = load(path).unwrap_err();
                assert!(
                    error.contains(expected) && error.contains("run.json"),
                    "{content}: {error}"
                );
            }
        }
        fs::remove_file(&file).unwrap();
        assert!(load(directory.path()).unwrap_err().contains("no run directory"));
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("report.md");
        write(&file, "old").unwrap();
        write(&file, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        // A directory in its way is what a full disk is: it cannot be written.
        fs::create_dir(directory.path().join("report.new")).unwrap();
        assert!(write(&file, "newer").unwrap_err().contains("report.md"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    }

    #[test]
    fn a_run_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("a/b");
        make(Some(&out), "x").unwrap();
        make(Some(&out), "x").unwrap();
        fs::write(out.join(RUN), "{}").unwrap();
        assert!(make(Some(&out), "x").unwrap_err().contains("holds a run already"));
        assert_eq!(find(&[directory.path().join("a")]).unwrap(), [directory.path().join("a/b")]);
        assert!(find(&[directory.path().to_owned()]).unwrap_err().contains("holds none"));
    }
}
