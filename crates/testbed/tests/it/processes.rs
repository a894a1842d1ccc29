//! What becomes of children and directories when their program ends.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testbed::process::{mortal, mortal_on, run};
use testbed::{Process, Workdir};

const PATIENCE: Duration = Duration::from_secs(20);
/// Set where this program is to be the one that is killed.
const VICTIM: &str = "BOXOFFICE_TESTBED_VICTIM";

#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "it does not happen: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn sleeper() -> Process {
    let mut command = mortal(Path::new("sleep"));
    command.arg("600").stdin(Stdio::null());
    Process::spawn("sleep", command).unwrap()
}

/// A zombie is there, too, but has no memory.
fn runs(id: u32) -> bool {
    testbed::process::memory_bytes(id, "VmRSS").is_some()
}

#[test]
fn a_child_outlives_the_thread_that_has_started_it() {
    let mut child = std::thread::spawn(sleeper).join().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.ended().is_none(), "{:?}", child.ended());
    child.kill();
    assert_eq!(child.ended().unwrap().code, -9);
}

/// Started by the next test, with the variable; by itself it has nothing to do.
#[test]
fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let child = sleeper();
    let directory = Workdir::temporary().unwrap();
    println!("victim {} {}", child.id(), directory.path().display());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_program_that_is_killed_leaves_no_child_and_no_directory() {
    let mut command = mortal(&std::env::current_exe().unwrap());
    command.args(["processes::victim", "--exact", "--nocapture"]).env(VICTIM, "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut victim = Process::spawn("the victim", command).unwrap();
    let out = BufReader::new(victim.child().stdout.take().unwrap());
    let line = out.lines().map_while(Result::ok).find(|line| line.contains("victim ")).unwrap();
    let mut words = line[line.find("victim ").unwrap()..].split(' ').skip(1);
    let child: u32 = words.next().unwrap().parse().unwrap();
    let directory = PathBuf::from(words.next().unwrap());
    assert!(runs(child) && directory.is_dir());
    victim.kill();
    wait_until("the child ends", || !runs(child));
    wait_until("the directory goes", || !directory.exists());
}

#[test]
fn a_directory_goes_when_it_is_dropped_unless_it_is_kept() {
    let outer = Workdir::temporary().unwrap();
    let kept = Workdir::kept(&outer.path().join("a/b")).unwrap();
    let path = kept.path().to_owned();
    assert!(outer.is_temporary() && !kept.is_temporary());
    drop(kept);
    assert!(path.is_dir());
    drop(outer);
    assert!(!path.exists());
}

#[test]
fn a_child_is_pinned_and_counted() {
    let first = testbed::cpus::available()[0];
    let mut command = mortal_on(&[first], Path::new("sh"));
    command.args(["-c", "while :; do :; done"]);
    let child = Process::spawn("the spinner", command).unwrap();
    let cpus = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.unwrap().trim().to_owned()
    };
    wait_until("it is pinned", || cpus() == first.to_string());
    wait_until("it uses its CPU", || {
        testbed::process::cpu_seconds(child.id()).is_some_and(|seconds| seconds > 0.1)
    });
}

#[test]
fn a_command_is_run_to_its_end_or_given_up() {
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    };
    let said = run(shell("cat; echo b >&2; exit 3"), b"a", PATIENCE).unwrap();
    assert_eq!((said.status.code(), said.out.as_str(), said.err.as_str()), (Some(3), "a", "b\n"));
    // More than a pipe holds.
    let said = run(shell("head -c 300000 /dev/zero"), b"", PATIENCE).unwrap();
    assert_eq!(said.out.len(), 300_000);
    let began = Instant::now();
    let error = run(shell("sleep 600"), b"", Duration::from_millis(200)).unwrap_err();
    assert!(error.contains("not done"), "{error}");
    assert!(began.elapsed() < PATIENCE);
    let error = run(Command::new("/no/such/program"), b"", PATIENCE).unwrap_err();
    assert!(error.contains("cannot start /no/such/program"), "{error}");
}
