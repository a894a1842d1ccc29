//! Where programs are: ours, and those of others.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::Process;
use crate::signals;

/// Returns the directory of the repository.
pub fn root() -> PathBuf {
    // Where it was built, unless the clone has moved since; then from where it is called.
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    built.canonicalize().unwrap_or_else(|_| PathBuf::from("."))
}

/// Returns where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Returns the path of an external tool, which `scripts/tools` installs where it is missing.
pub fn tool(name: &str) -> Result<PathBuf, String> {
    let mut command = Command::new(root().join("scripts/tools"));
    command.args(["--path", name]).stdin(Stdio::null()).stderr(Stdio::inherit());
    let said = command.output().map_err(|error| format!("cannot run scripts/tools: {error}"))?;
    if !said.status.success() {
        return Err(format!("{name} is not available; scripts/tools says above what to do"));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&said.stdout).trim()))
}

/// Returns the path of a program of a package that a tool belongs to.
pub fn program(name: &str, package: &str) -> Result<PathBuf, String> {
    // Debian keeps servers in /usr/sbin, which the PATH of an ordinary user lacks.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(beside)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("{name} is missing; install the package {package}"))
}

/// Builds a package's release binaries, or one of its examples.
pub fn build(package: &str, what: &[&str]) -> Result<(), String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "-p", package]).args(what).current_dir(root());
    eprintln!("+ cargo build --release -p {package} {}", what.join(" "));
    command.stdin(Stdio::null());
    let mut process = Process::spawn("cargo", command).map_err(|error| {
        format!("{error}. Install Rust from https://rustup.rs, or use --no-build")
    })?;
    loop {
        if let Some(ended) = process.ended() {
            return match ended.code {
                0 => Ok(()),
                _ => Err("the build failed; its messages are above".to_owned()),
            };
        }
        if signals::stopped() {
            return Err("stopped while building".to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the release build of the service.
pub fn boxoffice() -> Result<PathBuf, String> {
    built("boxoffice", "cargo build --release")
}

/// Returns the release build of an example of the service.
pub fn example(name: &str) -> Result<PathBuf, String> {
    example_of("boxoffice", name)
}

/// Returns the release build of an example of a package.
pub fn example_of(package: &str, name: &str) -> Result<PathBuf, String> {
    built(
        &format!("examples/{name}"),
        &format!("cargo build --release -p {package} --example {name}"),
    )
}

fn built(name: &str, how: &str) -> Result<PathBuf, String> {
    let path = target_dir().join("release").join(name);
    if path.is_file() {
        // The service has another working directory.
        path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))
    } else {
        Err(format!(
            "{} is missing; build it with `{how}`, or leave out --no-build",
            path.display()
        ))
    }
}
