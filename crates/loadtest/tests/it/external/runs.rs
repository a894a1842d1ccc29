//! The program as it is used: real k6, the real service, and what goes wrong with them.
//!
//! Needs k6 (`scripts/tools k6`), the service and the example `hello` as release builds, the service as a debug
//! build, strace, and root for fractions of a CPU. `scripts/test loadtest` has them all.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// They measure, so one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removed at the end, with all that is in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn out(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn loadtest() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.stdin(Stdio::null());
    command
}

/// Quick scenario 3 with a few users, on the binaries as they are.
fn short(out: &Path, more: &[&str]) -> Command {
    let mut command = loadtest();
    command
        .args(["run", "scenario3", "--no-build", "-e", "VUS=20", "-e", "P95_MS=2000", "--out"])
        .arg(out);
    if !more.iter().any(|one| one.starts_with("DURATION=")) {
        command.args(["-e", "DURATION=5s"]);
    }
    command.args(more);
    command
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[track_caller]
fn fails_with(output: &Output, code: i32, parts: &[&str]) -> String {
    let text = text(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    text
}

#[track_caller]
fn run_of(out: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(out.join("run.json")).unwrap()).unwrap()
}

fn codes(run: &Value) -> Vec<String> {
    let findings = run["verdict"]["findings"].as_array().unwrap().iter();
    findings.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

/// Processes whose command line has this in it.
fn processes(part: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if id != std::process::id() && String::from_utf8_lossy(&line).contains(part) {
            found.push(id);
        }
    }
    found
}

/// Nothing that a run has started is there any more: k6, the service, its directory, its cgroup.
#[track_caller]
fn nothing_left(child: u32, out: &Path) {
    assert_eq!(processes(&out.display().to_string()), [] as [u32; 0]);
    let mark = format!("boxoffice-{child}-");
    assert_eq!(processes(&mark), [] as [u32; 0]);
    for directory in [std::env::temp_dir(), PathBuf::from("/sys/fs/cgroup/cpu")] {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            assert!(
                !entry.file_name().to_string_lossy().starts_with(&mark),
                "{:?} is left",
                entry.path()
            );
        }
    }
}

fn signal(id: u32, name: &str) {
    assert!(Command::new("kill").args([name, &id.to_string()]).status().unwrap().success());
}

/// Waits until k6 has measured a few seconds.
#[track_caller]
fn wait_for_seconds(child: &mut Child, out: &Path, seconds: usize) {
    let until = Instant::now() + Duration::from_secs(40);
    loop {
        let recorded = fs::read_to_string(out.join("k6-seconds.ndjson")).unwrap_or_default();
        if recorded.matches("\"snapshot\"").count() >= seconds {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        assert!(Instant::now() < until, "k6 measures nothing");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_run_passes_and_keeps_all_of_it() {
    let _alone = alone();
    let place = Place::new();
    let out = place.out("run");
    let child = spawn(short(&out, &[]));
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    nothing_left(id, &out);
    let run = run_of(&out);
    assert_eq!(run["verdict"]["outcome"], "pass");
    assert_eq!(run["test"], "scenario3");
    assert_eq!(run["generator"]["k6_version"], "1.1.0");
    assert!(run["generator"]["cpu_seconds"].as_f64().unwrap() > 0.0);
    assert!(run["server"]["cpu_seconds"].as_f64().unwrap() > 0.0);
    assert!(run["totals"]["duration"]["p999"].as_f64().unwrap() > 0.0);
    assert!(run["totals"]["requests"].as_u64().unwrap() > 20);
    assert!(run["by_request"]["poll"]["p95"].as_f64().unwrap() > 0.0);
    assert_eq!(run["audit"]["clean"], true);
    let at = run["series"]["at"].as_array().unwrap().len();
    assert!(at >= 5, "{at} seconds");
    for name in [
        "requests_per_second",
        "duration_p95_ms",
        "server_cpus",
        "generator_cpus",
        "machine_cpus",
        "queue_active",
    ] {
        let values =
            run["series"]["values"][name].as_array().unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(values.len(), at);
        assert!(values.iter().filter(|value| value.is_number()).count() >= 3, "{name}: {values:?}");
    }
    for name in ["report.html", "report.md", "k6.log", "k6-summary.json", "server.log"] {
        assert!(fs::metadata(out.join(name)).unwrap().len() > 0, "{name}");
    }
    // It is not written over, and it is as good as itself.
    fails_with(&short(&out, &[]).output().unwrap(), 1, &["holds a run already"]);
    let same = loadtest().arg("compare").arg(&out).arg(&out).output().unwrap();
    assert!(same.status.success(), "{}", text(&same));
    let again = loadtest().arg("report").arg(&out).args(["--lang", "ko"]).output().unwrap();
    assert!(again.status.success(), "{}", text(&again));
}

#[test]
fn static_answers_stand_beside_the_service() {
    let _alone = alone();
    let place = Place::new();
    let out = place.out("run");
    let mut command = loadtest();
    command.args(["run", "scenario2", "--no-build", "--baseline", "--out"]).arg(&out);
    for pair in ["VUS=5", "START_VUS=5", "RATE=50", "DURATION=4s", "P95_MS=2000"] {
        command.args(["-e", pair]);
    }
    let child = spawn(command);
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    nothing_left(id, &out);
    let baseline = &run_of(&out)["baseline"];
    assert!(baseline["p95_ratio"].as_f64().unwrap() > 0.0, "{baseline}");
    assert!(baseline["totals"]["requests"].as_u64().unwrap() > 100, "{baseline}");
    assert_eq!(baseline["totals"]["failed_share"].as_f64(), Some(0.0), "{baseline}");
}

#[test]
fn a_threshold_that_is_crossed_fails_the_run() {
    let _alone = alone();
    let place = Place::new();
    let out = place.out("run");
    let output = short(&out, &["-e", "P95_MS=0.001"]).output().unwrap();
    fails_with(&output, 1, &["FAIL scenario3", "ThresholdCrossed"]);
    assert!(codes(&run_of(&out)).contains(&"threshold_crossed".to_owned()));
}

#[test]
fn ctrl_c_stops_the_children_and_keeps_what_there_is() {
    let _alone = alone();
    let place = Place::new();
    let out = place.out("run");
    let mut child = spawn(short(&out, &["-e", "DURATION=120s", "--cpus", "0.5"]));
    wait_for_seconds(&mut child, &out, 4);
    let id = child.id();
    signal(id, "-INT");
    let asked = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    fails_with(&output, 130, &["INCOMPLETE"]);
    nothing_left(id, &out);
    let run = run_of(&out);
    assert_eq!(run["verdict"]["outcome"], "incomplete");
    assert_eq!(codes(&run)[0], "interrupted");
    assert!(run["series"]["at"].as_array().unwrap().len() >= 4);
    assert!(run["totals"]["requests"].as_u64().unwrap() > 0);
    assert!(out.join("report.html").is_file() && out.join("report.md").is_file());
}

#[test]
fn even_a_sigkill_leaves_no_children() {
    let _alone = alone();
    let place = Place::new();
    let out = place.out("run");
    let mut child = spawn(short(&out, &["-e", "DURATION=120s"]));
    wait_for_seconds(&mut child, &out, 2);
    let id = child.id();
    signal(id, "-KILL");
    child.wait().unwrap();
    let mark = format!("boxoffice-{id}-");
    let directories = || {
        let all = fs::read_dir(std::env::temp_dir()).unwrap().flatten();
        all.filter(|entry| entry.file_name().to_string_lossy().starts_with(&mark)).count()
    };
    let until = Instant::now() + Duration::from_secs(5);
    while !processes(&mark).is_empty()
        || !processes(&out.display().to_string()).is_empty()
        || directories() > 0
    {
        assert!(Instant::now() < until, "children or directories are left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_service_that_dies_fails_the_run_and_the_rest_is_kept() {
    let _alone = alone();
    let place = Place::new();
    let out = place.out("run");
    let mut child = spawn(short(&out, &["-e", "DURATION=120s"]));
    wait_for_seconds(&mut child, &out, 4);
    let id = child.id();
    let servers = processes(&format!("/boxoffice-{id}-"));
    assert_eq!(servers.len(), 1, "{servers:?}");
    signal(servers[0], "-KILL");
    let output = child.wait_with_output().unwrap();
    fails_with(&output, 1, &["FAIL", "ServiceDied", "ended with code -9 during the run"]);
    nothing_left(id, &out);
    let run = run_of(&out);
    assert_eq!(run["verdict"]["outcome"], "fail");
    assert_eq!(codes(&run)[0], "service_died");
    assert!(run["series"]["at"].as_array().unwrap().len() >= 4);
    assert!(run["totals"]["requests"].as_u64().unwrap() > 0);
    // What it wrote to the disk is still in order.
    assert_eq!(run["audit"]["clean"], true);
    // And whoever compares with it is told.
    assert!(out.join("report.html").is_file());
}

#[test]
fn what_can_be_known_beforehand_is_said_beforehand() {
    let _alone = alone();
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let run = |more: &[&str]| short(&place.out("run"), more).output().unwrap();
    fails_with(&run(&["--port", &port]), 1, &[&format!("port {port} of 127.0.0.1 is not free")]);
    fails_with(&run(&["--cpus", "99"]), 1, &["--cpus 99: this machine has only"]);
    fails_with(
        &run(&["--url", "http://127.0.0.1:1"]),
        1,
        &["http://127.0.0.1:1 cannot be reached"],
    );
    fails_with(&run(&["-e", "VUS=many"]), 1, &["k6 cannot read", "VUS=many"]);
    fails_with(
        &loadtest().args(["run", "nosuch"]).output().unwrap(),
        1,
        &["there is no test and no script nosuch", "scenario1"],
    );
    fails_with(
        &loadtest().args(["all", "--only", "nosuch"]).output().unwrap(),
        1,
        &["there is no test nosuch"],
    );
    assert!(!place.out("run").join("run.json").exists());
}

#[test]
fn k6_must_be_there_and_of_the_right_version() {
    let place = Place::new();
    let with = |k6: &Path| short(&place.out("run"), &[]).env("LOADTEST_K6", k6).output().unwrap();
    fails_with(&with(Path::new("/nonexistent/k6")), 1, &["scripts/tools k6", "/nonexistent/k6"]);
    let fake = place.out("k6");
    for (says, expected) in [
        (
            "k6 v0.49.0 (go1.21.6, linux/amd64)",
            "is k6 0.49.0; its outputs are only known from 1.1.x",
        ),
        ("k6 v1.10.0 (go1.24)", "is k6 1.10.0"),
        ("hello", "does not say its version as k6 does"),
    ] {
        fs::write(&fake, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
        fails_with(&with(&fake), 1, &[expected, "scripts/tools k6"]);
    }
    assert!(!place.out("run").exists());
}

#[test]
fn a_run_of_another_format_is_refused_by_name() {
    let place = Place::new();
    for (format, expected) in [(0, "by an older loadtest"), (999, "by a newer loadtest")] {
        let old = place.out(&format!("format-{format}"));
        fs::create_dir(&old).unwrap();
        fs::write(old.join("run.json"), format!("{{\"format\":{format}}}")).unwrap();
        let file = old.join("run.json").display().to_string();
        fails_with(&loadtest().arg("report").arg(&old).output().unwrap(), 1, &[expected, &file]);
        fails_with(
            &loadtest().arg("compare").arg(&old).arg(&old).output().unwrap(),
            1,
            &[expected, &file],
        );
    }
}

/// A disk of its own, unmounted at the end.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_and_nothing_is_left_running() {
    let _alone = alone();
    let place = Place::new();
    let mount = place.out("disk");
    fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"])
        .arg(&mount)
        .status()
        .unwrap();
    assert!(mounted.success(), "mounting needs root");
    let disk = Disk(mount);
    let out = disk.0.join("run");
    fs::write(disk.0.join("filler"), vec![0; 100 * 1024]).unwrap();
    let child = spawn(short(&out, &[]));
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    fails_with(&output, 1, &["cannot write", "No space left on device"]);
    nothing_left(id, &out);
    assert!(!out.join("run.json").exists(), "half a run is none");
}

/// A breakpoint run in which something was put in the way on purpose.
fn limit(name: &str, more: &[&str]) -> Value {
    let place = Place::new();
    let out = place.out(name);
    let mut command = loadtest();
    command.args(["run", "breakpoint", "--no-build", "--hold", "10", "--out"]).arg(&out);
    for pair in ["WORKLOAD=mix", "WARMUP=2s", "STEPS=7", "DURATION=21s"] {
        command.args(["-e", pair]);
    }
    let child = spawn({
        command.args(more);
        command
    });
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    println!("{}", text(&output));
    nothing_left(id, &out);
    let run = run_of(&out);
    assert_eq!(run["verdict"]["outcome"], "pass", "{}", text(&output));
    assert!(output.status.success());
    // Setting the stage takes a slow service much longer than that; it is not on the axis.
    assert_eq!(run["series"]["warm_up_seconds"], 2.0);
    let found = &run["breakpoint"];
    let held: Vec<_> = found["confirmations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["held"].as_bool())
        .collect();
    assert_eq!(held, [Some(true), Some(false)], "80 % holds and 120 % does not");
    found.clone()
}

#[test]
fn a_limit_put_at_the_cpu_is_found_there() {
    let _alone = alone();
    let found = limit(
        "cpu",
        &["--cpus", "0.05", "-e", "USERS=100", "-e", "START_RATE=20", "-e", "MAX_RATE=380"],
    );
    assert_eq!(found["saturated"], "server_cpu", "{found}");
}

#[test]
fn a_limit_put_at_the_store_is_found_there() {
    let _alone = alone();
    let slow = "strace -D -f --seccomp-bpf -o /dev/null -e trace=fsync,fdatasync \
                -e inject=fsync,fdatasync:delay_exit=40000";
    // A disk that is only slow makes the batches bigger, and holds; one that takes few at a time does not.
    let few = [
        "--set",
        "store.batch_max=4",
        "-e",
        "USERS=100",
        "-e",
        "START_RATE=20",
        "-e",
        "MAX_RATE=320",
    ];
    let found = limit("store", &[&["--wrap", slow], &few[..]].concat());
    assert_eq!(found["saturated"], "store", "{found}");
}

#[test]
fn a_planted_regression_is_flagged() {
    const SWITCH: &str = "BOXOFFICE_TEST_POLL_DELAY_MS";
    let _alone = alone();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // The switch is in debug builds alone.
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let holds = |path: PathBuf| {
        let program = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        program.windows(SWITCH.len()).any(|window| window == SWITCH.as_bytes())
    };
    assert!(!holds(target.join("release/boxoffice")), "a release build must not have it");
    let debug = target.join("debug/boxoffice");
    assert!(holds(debug.clone()));
    let place = Place::new();
    let (before, after) = (place.out("before"), place.out("after"));
    let program = debug.display().to_string();
    for (out, delay) in [(&before, None), (&after, Some("25"))] {
        let mut command = short(out, &["--binary", &program]);
        if let Some(delay) = delay {
            command.env(SWITCH, delay);
        }
        let output = command.output().unwrap();
        // By itself it is well within its thresholds.
        assert!(output.status.success(), "{}", text(&output));
    }
    let compared = loadtest().arg("compare").arg(&before).arg(&after).output().unwrap();
    let said = text(&compared);
    assert_eq!(compared.status.code(), Some(1), "{said}");
    // What got worse is named.
    let worse = said.lines().find(|line| line.starts_with("B is worse than A in")).unwrap_or("");
    assert!(worse.contains("poll"), "{said}");
    // The other way round it is no regression. In so short a run other figures may differ by chance.
    let back = text(&loadtest().arg("compare").arg(&after).arg(&before).output().unwrap());
    let of = |start: &str| back.lines().find(|line| line.starts_with(start)).unwrap_or("");
    assert!(of("B is better than A in").contains("poll"), "{back}");
    assert!(!of("B is worse than A in").contains("poll"), "{back}");
}
