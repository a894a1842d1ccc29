//! What the machine can do to the program: a clock that jumps, a disk that is full, slow, read-only
//! or fails. Needs root and tools, and fails where one is missing.
//!
//! The tests run one after another, because most of them measure time. Those of the clock mostly wait,
//! and so they may run at the same time.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use crate::program::{self, Answer, Client, Killed, PATIENCE, Server, finish, run, wait_until};
use boxoffice_backends::store::SqliteStore;
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a demo user begins with.
const POINTS: i64 = 1_000_000;
const QUEUE: &str = "/api/v1/waiting-queues";

static TURN: RwLock<()> = RwLock::new(());

fn alone() -> RwLockWriteGuard<'static, ()> {
    assert!(rustix::process::geteuid().is_root(), "these tests must run as root");
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}

fn beside_others_that_wait() -> RwLockReadGuard<'static, ()> {
    assert!(rustix::process::geteuid().is_root(), "these tests must run as root");
    TURN.read().unwrap_or_else(PoisonError::into_inner)
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    (directory, data)
}

/// Where a tool is. One that is missing is a failure, not a reason to test less.
fn tool(name: &str, package: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = path.split(':').map(|folder| Path::new(folder).join(name)).find(|p| p.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is missing, which this test needs; install the Debian package {package}")
    })
}

// ---- Asking.

fn poll(client: &mut Client, token: &str) -> Value {
    let answer = client.send("GET", QUEUE, &[("QUEUE-TOKEN", token)], None).unwrap();
    answer.expect(200).json()
}

fn join(client: &mut Client, user: i64) -> Answer {
    client.send("POST", QUEUE, &[], Some(&json!({ "userId": user }))).unwrap()
}

fn joined(client: &mut Client, user: i64) -> String {
    join(client, user).expect(201).json()["token"].as_str().unwrap().to_owned()
}

fn reserve(client: &mut Client, token: &str, user: i64, seats: &[i64]) -> Answer {
    let path = "/api/v1/concerts/1/sessions/1/reservations";
    let body = json!({ "userId": user, "seatIds": seats });
    client.send("POST", path, &[("QUEUE-TOKEN", token)], Some(&body)).unwrap()
}

fn show(client: &mut Client, token: &str, reservation: i64) -> Value {
    let path = format!("/api/v1/reservations/{reservation}");
    client.send("GET", &path, &[("QUEUE-TOKEN", token)], None).unwrap().expect(200).json()
}

fn pay(client: &mut Client, token: &str, user: i64, reservation: i64) -> Answer {
    let body = json!({ "userId": user, "reservationId": reservation });
    client.send("POST", "/api/v1/payments", &[("QUEUE-TOKEN", token)], Some(&body)).unwrap()
}

fn charge(client: &mut Client, user: i64) -> std::io::Result<Answer> {
    let path = format!("/api/v1/users/{user}/points/charge");
    client.send("PATCH", &path, &[], Some(&json!({ "amount": 1 })))
}

fn balance(client: &mut Client, user: i64) -> i64 {
    let path = format!("/api/v1/users/{user}/points");
    let answer = client.send("GET", &path, &[], None).unwrap();
    answer.expect(200).json()["totalAmount"].as_i64().unwrap()
}

fn ready(client: &mut Client) -> Answer {
    client.send("GET", "/health/ready", &[], None).unwrap()
}

fn time_of(body: &Value, field: &str) -> jiff::Timestamp {
    body[field].as_str().unwrap().parse().unwrap()
}

/// Insists that the store said that it could not, and when to come back.
#[track_caller]
fn assert_unavailable(answer: &Answer, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (503, code), "{answer:?}");
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(seconds >= 1, "{answer:?}");
}

// ---- Clocks.

/// A wall clock of our own for the program, that can be set while it runs.
pub(super) struct WallClock {
    library: PathBuf,
    file: PathBuf,
}

impl WallClock {
    pub(super) fn new(directory: &Path) -> Self {
        tool("faketime", "faketime");
        let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
        let library = folders
            .chain([PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib")])
            .map(|folder| folder.join("faketime/libfaketimeMT.so.1"))
            .find(|path| path.is_file())
            .expect("libfaketimeMT.so.1 is missing; install the Debian package faketime");
        let clock = Self { library, file: directory.join("wall-clock") };
        clock.set(0);
        clock
    }

    /// Sets it so many seconds ahead of the true one.
    pub(super) fn set(&self, ahead: i64) {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{ahead:+}\n")).unwrap();
        fs::rename(&new, &self.file).unwrap();
    }

    pub(super) fn command(&self, directory: &Path) -> Command {
        let mut command = program::command(directory);
        command.env("LD_PRELOAD", &self.library);
        command.env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("DONT_FAKE_MONOTONIC", "1");
        command
    }
}

/// An hour forward or back, while people wait, are active and hold seats, changes nothing for them.
fn the_wall_clock_jumps_by(ahead: i64) {
    const RATE: f64 = 5.0;
    const ACTIVE: Duration = Duration::from_secs(7);
    const HOLD: Duration = Duration::from_secs(5);
    let (directory, data) = place();
    let clock = WallClock::new(directory.path());
    let server = Server::start_by(
        clock.command(directory.path()),
        &data,
        &[
            "--set",
            "queue.admit_per_second=5",
            "--set",
            "queue.active_ttl_seconds=7",
            "--set",
            "queue.claim_window_seconds=7",
            "--set",
            "sales.hold_seconds=5",
        ],
    );
    let mut client = server.client();
    let tokens: Vec<String> = (1..=60).map(|user| joined(&mut client, user)).collect();
    let mut numbers = vec![u64::MAX; tokens.len()];
    // When each was first seen active.
    let mut active: Vec<Option<Instant>> = vec![None; tokens.len()];
    let mut ended: Vec<Option<Duration>> = vec![None; tokens.len()];
    wait_until("the first is let in", || poll(&mut client, &tokens[0])["status"] == "ACTIVATED");
    let began = Instant::now();
    let hold = reserve(&mut client, &tokens[0], 1, &[1]).expect(201).json();
    let held_at = Instant::now();
    let reservation = hold["reservationId"].as_i64().unwrap();
    let mut released = None;
    let mut jumped = false;
    let mut admitted = Vec::new();
    while began.elapsed() < ACTIVE + Duration::from_secs(2) {
        if !jumped && began.elapsed() > Duration::from_secs(1) {
            clock.set(ahead);
            jumped = true;
        }
        for (index, token) in tokens.iter().enumerate() {
            let body = poll(&mut client, token);
            let number = body["waitingNumber"].as_u64().unwrap();
            assert!(number <= numbers[index], "number {} became {body}", numbers[index]);
            numbers[index] = number;
            match body["status"].as_str().unwrap() {
                "WAITING" => assert!(active[index].is_none(), "{body}"),
                "ACTIVATED" => {
                    assert!(ended[index].is_none(), "{body}");
                    active[index].get_or_insert_with(Instant::now);
                }
                _ => {
                    let since = active[index].expect("active before it is over");
                    ended[index].get_or_insert_with(|| since.elapsed());
                }
            }
        }
        let status = show(&mut client, &tokens[0], reservation)["status"].clone();
        if status == "EXPIRED" {
            released.get_or_insert_with(|| held_at.elapsed());
        } else {
            assert!(status == "HELD" && released.is_none(), "{status}");
        }
        admitted.push((began.elapsed(), active.iter().flatten().count()));
        std::thread::sleep(Duration::from_millis(50));
    }
    // A poll's round over all takes a moment, so what it sees may be as old.
    let slack = Duration::from_millis(900);
    let released = released.expect("the hold runs out");
    assert!(released + slack > HOLD && released < HOLD + slack, "held for {released:?}");
    let ends: Vec<Duration> = ended.iter().flatten().copied().collect();
    assert!(ends.len() >= 5, "{ends:?}");
    for end in &ends {
        assert!(*end + slack > ACTIVE && *end < ACTIVE + slack, "active for {end:?}");
    }
    for (at, count) in admitted {
        let expected = at.as_secs_f64() * RATE;
        assert!((count as f64 - expected).abs() <= 6.0, "{count} admitted after {at:?}");
    }
    assert_eq!(server.metric("boxoffice_clock_jumps_total"), 1.0);
    assert!(server.log().contains("the wall clock has jumped"), "{}", server.log());
    // It comes back, and jumps again: two more.
    clock.set(0);
    std::thread::sleep(Duration::from_millis(500));
    clock.set(ahead);
    wait_until("the second jump is seen", || server.metric("boxoffice_clock_jumps_total") == 2.0);
    run(&data, &["audit"]).ok();
    println!(
        "{ahead:+} s: held for {released:.2?}, active for {:.2?} to {:.2?}",
        ends.iter().min().unwrap(),
        ends.iter().max().unwrap()
    );
    server.stop();
}

#[test]
fn the_wall_clock_jumps_an_hour_forward() {
    let _turn = beside_others_that_wait();
    the_wall_clock_jumps_by(3_600);
}

#[test]
fn the_wall_clock_jumps_an_hour_back() {
    let _turn = beside_others_that_wait();
    the_wall_clock_jumps_by(-3_600);
}

/// A restart with the clock nearly a minute back (more is refused): what was left of tickets and holds is left of them. A store
/// that was closed knows the time to the moment, one that was killed the time of its last commit, which
/// the tick after a join makes.
fn a_restart_with_the_clock_back(kill: bool, known: Duration) {
    let (directory, data) = place();
    let clock = WallClock::new(directory.path());
    let settings = ["--set", "sales.hold_seconds=8", "--set", "queue.active_ttl_seconds=30"];
    let start = || Server::start_by(clock.command(directory.path()), &data, &settings);
    let mut server = start();
    let mut client = server.client();
    let token = joined(&mut client, 1);
    wait_until("the ticket is let in", || poll(&mut client, &token)["status"] == "ACTIVATED");
    let until = time_of(&poll(&mut client, &token), "activeUntil");
    let hold = reserve(&mut client, &token, 1, &[1]).expect(201).json();
    let reservation = hold["reservationId"].as_i64().unwrap();
    std::thread::sleep(Duration::from_millis(2_500));
    let before = time_of(&join(&mut client, 2).expect(201).json(), "joinedAt");
    let stopped = Instant::now();
    if kill {
        std::thread::sleep(Duration::from_millis(300));
        server.kill();
    } else {
        server.stop();
    }
    clock.set(-50);
    server = start();
    assert!(server.log().contains("the wall clock is behind the store"), "{}", server.log());
    let mut client = server.client();
    let after = time_of(&join(&mut client, 3).expect(201).json(), "joinedAt");
    let (since, second) = (after.duration_since(before).as_secs_f64(), 1.0);
    let elapsed = stopped.elapsed().as_secs_f64();
    assert!(since >= -known.as_secs_f64(), "the time went back by {since} s");
    assert!(since <= elapsed + second, "{since} s passed in {elapsed} s");
    let status = poll(&mut client, &token);
    assert_eq!(status["status"], "ACTIVATED");
    assert_eq!(time_of(&status, "activeUntil"), until);
    let shown = show(&mut client, &token, reservation);
    assert_eq!(shown["status"], "HELD");
    assert_eq!(shown["expiresAt"], hold["expiresAt"]);
    // And what is left runs out by the true passing of time.
    let left = time_of(&hold, "expiresAt").duration_since(after).as_secs_f64();
    let at = Instant::now();
    wait_until("the hold runs out", || {
        show(&mut client, &token, reservation)["status"] == "EXPIRED"
    });
    let took = at.elapsed().as_secs_f64();
    assert!((took - left).abs() < second, "{left} s were left, and took {took} s");
    println!("killed {kill}: {since:.3} s passed over the restart, {left:.3} s of the hold left");
    run(&data, &["audit"]).ok();
    server.stop();
}

#[test]
fn a_restart_with_the_clock_back_gives_nobody_time() {
    let _turn = beside_others_that_wait();
    a_restart_with_the_clock_back(false, Duration::ZERO);
}

#[test]
fn a_restart_after_a_kill_with_the_clock_back_gives_nobody_time() {
    let _turn = beside_others_that_wait();
    a_restart_with_the_clock_back(true, Duration::from_secs(1));
}

// ---- Disks.

/// A small file system of its own.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf, megabytes: u32) -> Self {
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new(tool("mount", "mount"));
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "boxoffice-test"]);
        mount.arg(&at);
        tool("umount", "mount");
        finish(mount).ok();
        Self(at)
    }

    fn remount(&self, option: &str) {
        let mut mount = Command::new(tool("mount", "mount"));
        mount.args(["-o", &format!("remount,{option}")]).arg(&self.0);
        finish(mount).ok();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: whatever still has a file open there is about to end.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Makes system calls of a running process fail until it is dropped.
struct Sabotage(Killed);

impl Sabotage {
    /// `calls` and `fault` are what strace calls them, such as `fsync,fdatasync` and `error=EIO`.
    fn begin(server: &Server, calls: &str, fault: &str) -> Self {
        let mut strace = Command::new(tool("strace", "strace"));
        strace.args(["-f", "-o", "/dev/null", "-p", &server.id().to_string()]);
        strace.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{fault}")]);
        strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = Killed(strace.spawn().unwrap());
        let said = std::sync::Arc::new(Mutex::new(String::new()));
        let (from, to) = (child.0.stderr.take().unwrap(), said.clone());
        std::thread::spawn(move || {
            use std::io::BufRead;
            for line in std::io::BufReader::new(from).lines().map_while(Result::ok) {
                to.lock().unwrap().push_str(&line);
            }
        });
        let deadline = Instant::now() + PATIENCE;
        while !said.lock().unwrap().contains("attached") {
            let ended = child.0.try_wait().unwrap().is_some();
            assert!(!ended && Instant::now() < deadline, "strace: {}", said.lock().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
        // It says so before the last thread is under its hand.
        std::thread::sleep(Duration::from_millis(100));
        Self(child)
    }
}

impl Drop for Sabotage {
    fn drop(&mut self) {
        // Asked to end, strace lets the process go on; killed, it might leave it stopped.
        let id = i32::try_from(self.0.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        let _ = rustix::process::kill_process(id.unwrap(), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// People with every kind of business, for whom the store's troubles are made.
struct Scene {
    /// Active, with nothing held.
    buyer: String,
    /// Active, holding.
    holder: String,
    reservation: i64,
    waiting: String,
    acknowledged: i64,
}

impl Scene {
    const BUYER: i64 = 1;
    const HOLDER: i64 = 2;
    const CHARGED: i64 = 3;

    fn set(server: &Server) -> Self {
        let issue = ["token", "issue", "--count", "2", "--activated", "--guessable"];
        run(server.data(), &issue).ok();
        // Nobody is let in any more, so that the one in the line stays there.
        run(server.data(), &["queue", "pause"]).ok();
        let mut client = server.client();
        let waiting = joined(&mut client, 4);
        let (buyer, holder) = ("queue_token_1".to_owned(), "queue_token_2".to_owned());
        let hold = reserve(&mut client, &holder, Self::HOLDER, &[10, 11]).expect(201).json();
        let reservation = hold["reservationId"].as_i64().unwrap();
        Self { buyer, holder, reservation, waiting, acknowledged: 0 }
    }

    /// Charges until the store cannot any more; returns that answer.
    fn charge_until_it_fails(&mut self, client: &mut Client) -> Answer {
        for _ in 0..20_000 {
            let answer = charge(client, Self::CHARGED).unwrap();
            if answer.status != 200 {
                return answer;
            }
            self.acknowledged += 1;
        }
        panic!("the store goes on and on");
    }

    /// What must hold while the store cannot write.
    fn while_it_cannot_write(&self, client: &mut Client) {
        assert_unavailable(&charge(client, Self::CHARGED).unwrap(), "STORE_UNAVAILABLE");
        let answer = reserve(client, &self.buyer, Self::BUYER, &[20]);
        assert_unavailable(&answer, "STORE_UNAVAILABLE");
        let answer = pay(client, &self.holder, Self::HOLDER, self.reservation);
        assert_unavailable(&answer, "STORE_UNAVAILABLE");
        let path = format!("/api/v1/reservations/{}", self.reservation);
        let holder = [("QUEUE-TOKEN", self.holder.as_str())];
        let answer = client.send("DELETE", &path, &holder, None).unwrap();
        assert_unavailable(&answer, "STORE_UNAVAILABLE");
        let waiting = [("QUEUE-TOKEN", self.waiting.as_str())];
        let answer = client.send("DELETE", QUEUE, &waiting, None).unwrap();
        assert_unavailable(&answer, "STORE_UNAVAILABLE");
        self.reads_work(client);
        let answer = ready(client);
        assert_eq!(answer.status, 503, "{answer:?}");
        let body = answer.json();
        assert_eq!(
            (&body["status"], &body["dependencies"][0]["name"]),
            (&json!("DOWN"), &json!("store"))
        );
        assert_eq!(body["dependencies"][0]["status"], "DOWN");
        client.send("GET", "/health/live", &[], None).unwrap().expect(200);
    }

    /// Nothing that was refused has happened, and whoever only looks sees it.
    fn reads_work(&self, client: &mut Client) {
        assert_eq!(poll(client, &self.buyer)["status"], "ACTIVATED");
        assert_eq!(poll(client, &self.holder)["status"], "ACTIVATED");
        let status = poll(client, &self.waiting);
        assert_eq!((&status["status"], &status["waitingNumber"]), (&json!("WAITING"), &json!(1)));
        assert_eq!(show(client, &self.holder, self.reservation)["status"], "HELD");
        let buyer = [("QUEUE-TOKEN", self.buyer.as_str())];
        let path = "/api/v1/concerts/1/sessions/1/seats";
        let seats = client.send("GET", path, &buyer, None).unwrap().expect(200).json();
        let held: Vec<&Value> = seats["unavailableSeats"].as_array().unwrap().iter().collect();
        assert_eq!(held.len(), 2, "{held:?}");
        client.send("GET", "/api/v1/concerts", &buyer, None).unwrap().expect(200);
        assert_eq!(balance(client, Self::CHARGED), POINTS + self.acknowledged);
    }

    /// Everything works again, without a restart and with nothing lost or made up.
    fn after(&mut self, server: &Server) {
        let mut client = server.client();
        wait_until("it is ready by itself", || ready(&mut client).status == 200);
        self.reads_work(&mut client);
        charge(&mut client, Self::CHARGED).unwrap().expect(200);
        self.acknowledged += 1;
        join(&mut client, 5).expect(201);
        reserve(&mut client, &self.buyer, Self::BUYER, &[20]).expect(201);
        pay(&mut client, &self.holder, Self::HOLDER, self.reservation).expect(201);
        run(server.data(), &["audit"]).ok();
        self.assert_books(&mut client);
    }

    fn assert_books(&self, client: &mut Client) {
        assert_eq!(balance(client, Self::CHARGED), POINTS + self.acknowledged);
        assert_eq!(show(client, &self.holder, self.reservation)["status"], "PAID");
        assert_eq!(poll(client, &self.holder)["status"], "EXPIRED");
    }

    /// And a restart reads the same, with one event for each effect.
    fn after_restart(&self, server: Server) {
        let data = server.data().to_owned();
        server.stop();
        run(&data, &["audit"]).ok();
        let server = Server::start(&data, &[]);
        self.assert_books(&mut server.client());
        server.stop();
        let events = fs::read_to_string(data.join("events.jsonl")).unwrap();
        let mut ids: Vec<String> = events
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"]["id"].to_string())
            .collect();
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all, "an event is there twice");
        // The charges, two reservations, one payment.
        assert_eq!(i64::try_from(all).unwrap(), self.acknowledged + 3);
    }
}

#[test]
fn a_full_disk_stops_sales_until_there_is_room() {
    let _alone = alone();
    let (directory, _) = place();
    let disk = Tmpfs::mount(directory.path().join("disk"), 8);
    let data = disk.0.join("data");
    let server = Server::start(&data, &[]);
    let mut scene = Scene::set(&server);
    let mut client = server.client();
    for _ in 0..50 {
        charge(&mut client, Scene::CHARGED).unwrap().expect(200);
        scene.acknowledged += 1;
    }
    for round in 1..=2 {
        let filler = disk.0.join("filler");
        let mut file = File::create(&filler).unwrap();
        let mut filled = 0;
        for size in [65_536, 4_096] {
            while file.write_all(&vec![1; size]).is_ok() {
                filled += size;
            }
        }
        let before = scene.acknowledged;
        let answer = scene.charge_until_it_fails(&mut client);
        assert_unavailable(&answer, "STORE_UNAVAILABLE");
        let wrote = scene.acknowledged - before;
        // For a while, because background work goes on trying in between.
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            scene.while_it_cannot_write(&mut client);
        }
        // Some numbers were reserved before; then joining says that it cannot.
        let refused = (0..200).map(|_| join(&mut client, 6)).find(|answer| answer.status != 201);
        assert_unavailable(&refused.expect("numbers run out"), "QUEUE_UNAVAILABLE");
        println!("round {round}: {filled} bytes filled the disk, {wrote} charges still fitted");
        drop(file);
        fs::remove_file(&filler).unwrap();
        if round == 1 {
            wait_until("it is ready by itself", || ready(&mut client).status == 200);
            scene.reads_work(&mut client);
            charge(&mut client, Scene::CHARGED).unwrap().expect(200);
            scene.acknowledged += 1;
            run(&data, &["audit"]).ok();
        }
    }
    scene.after(&server);
    scene.after_restart(server);
}

#[test]
fn a_disk_that_is_full_at_the_start_is_named() {
    let _alone = alone();
    let (directory, _) = place();
    let disk = Tmpfs::mount(directory.path().join("disk"), 3);
    let data = disk.0.join("data");
    let filler = disk.0.join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[1; 4_096]).is_ok() {}
    drop(file);
    let serve = ["serve", "--listen", "127.0.0.1:0", "--no-demo"];
    run(&data, &serve).fails_with(&["data"]);
    fs::remove_file(&filler).unwrap();
    Server::start(&data, &["--no-demo"]).stop();
    run(&data, &["audit"]).ok();
}

#[test]
fn writes_that_fail_are_refused_and_nothing_else() {
    let _alone = alone();
    for error in ["ENOSPC", "EIO", "EROFS", "EDQUOT"] {
        let (_directory, data) = place();
        let server = Server::start(&data, &[]);
        let mut scene = Scene::set(&server);
        let mut client = server.client();
        for _ in 0..20 {
            charge(&mut client, Scene::CHARGED).unwrap().expect(200);
            scene.acknowledged += 1;
        }
        {
            let _sabotage =
                Sabotage::begin(&server, "pwrite64,ftruncate", &format!("error={error}"));
            let answer = scene.charge_until_it_fails(&mut client);
            assert_unavailable(&answer, "STORE_UNAVAILABLE");
            for _ in 0..3 {
                scene.while_it_cannot_write(&mut client);
            }
        }
        scene.after(&server);
        scene.after_restart(server);
        println!("{error}: ok");
    }
}

/// Writes fail here and there: some transactions are rolled back half-way, some go through.
#[test]
fn writes_that_fail_now_and_then_tell_no_lies() {
    let _alone = alone();
    let (_directory, data) = place();
    let server = Server::start(&data, &[]);
    let mut scene = Scene::set(&server);
    let (done, refused) = (AtomicI64::new(0), AtomicI64::new(0));
    {
        let _sabotage = Sabotage::begin(&server, "pwrite64", "error=EIO:when=3+19");
        std::thread::scope(|scope| {
            for user in 100..108 {
                let (done, refused, server) = (&done, &refused, &server);
                scope.spawn(move || {
                    let mut client = server.client();
                    let mut acknowledged = 0;
                    for _ in 0..60 {
                        let answer = charge(&mut client, user).unwrap();
                        if answer.status == 200 {
                            acknowledged += 1;
                            let told = answer.json()["totalAmount"].as_i64().unwrap();
                            assert_eq!(told, POINTS + acknowledged);
                            done.fetch_add(1, Ordering::Relaxed);
                        } else {
                            assert_unavailable(&answer, "STORE_UNAVAILABLE");
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    assert_eq!(balance(&mut client, user), POINTS + acknowledged);
                });
            }
        });
    }
    let (done, refused) = (done.into_inner(), refused.into_inner());
    println!("{done} charges went through, {refused} were refused");
    assert!(done > 0 && refused > 0, "{done} {refused}");
    scene.after(&server);
    scene.acknowledged += done;
    let data = server.data().to_owned();
    server.stop();
    run(&data, &["audit"]).ok();
}

#[test]
fn a_failed_fsync_stops_the_service_and_a_restart_has_all() {
    let _alone = alone();
    for round in 0..3 {
        let (_directory, data) = place();
        let mut server = Server::start(&data, &[]);
        let acknowledged: Vec<AtomicI64> = (0..8).map(|_| AtomicI64::new(0)).collect();
        let stop = AtomicBool::new(false);
        let ended = std::thread::scope(|scope| {
            for (user, acknowledged) in acknowledged.iter().enumerate() {
                let (address, stop) = (server.address(), &stop);
                scope.spawn(move || {
                    let mut client = Client::new(address);
                    while !stop.load(Ordering::Relaxed) {
                        let Ok(answer) = charge(&mut client, 100 + user as i64) else { return };
                        answer.expect(200);
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(200));
            let calls = "fsync,fdatasync";
            // At once, or after some commits that go through.
            let fault = format!("error=EIO:when={}+", 1 + 20 * round);
            let _sabotage = Sabotage::begin(&server, calls, &fault);
            let ended = server.wait();
            stop.store(true, Ordering::Relaxed);
            ended
        });
        assert_ne!(ended.code, Some(0), "{}", ended.err);
        assert!(ended.err.contains("fsync failed; stopping rather than guess"), "{}", ended.err);
        assert!(!ended.err.contains("panicked"), "{}", ended.err);
        let server = Server::start(&data, &[]);
        let mut client = server.client();
        for (user, acknowledged) in acknowledged.iter().enumerate() {
            let stored = balance(&mut client, 100 + user as i64) - POINTS;
            let acknowledged = acknowledged.load(Ordering::Relaxed);
            assert!(acknowledged > 0);
            // One more may have reached the disk without its answer.
            let all = (acknowledged..=acknowledged + 1).contains(&stored);
            assert!(all, "{acknowledged} were acknowledged, {stored} are there");
        }
        run(&data, &["audit"]).ok();
        server.stop();
    }
}

#[test]
fn a_read_only_data_directory_is_named_and_works_again_once_it_is_writable() {
    let _alone = alone();
    let (directory, _) = place();
    let disk = Tmpfs::mount(directory.path().join("disk"), 64);
    let data = disk.0.join("data");
    Server::start(&data, &[]).stop();
    let file = SqliteStore::file(&data);
    let before = fs::read(&file).unwrap();
    disk.remount("ro");
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate"]] {
        let said = run(&data, arguments).fails_with(&["data", "ead-only file system"]);
        assert!(said.contains("--data-dir") || said.contains("disk"), "{said}");
    }
    // An audit only reads, with a lock and without one.
    run(&data, &["audit"]).ok();
    disk.remount("rw");
    fs::remove_file(data.join("boxoffice.lock")).unwrap();
    disk.remount("ro");
    run(&data, &["audit"]).ok();
    let new = disk.0.join("new");
    run(&new, &["serve", "--listen", "127.0.0.1:0"])
        .fails_with(&["cannot make the data directory", "ead-only file system"]);
    let backup = disk.0.join("backup.sqlite3").display().to_string();
    run(&data, &["backup", &backup]).fails_with(&["sqlite3"]);
    assert!(fs::read(&file).unwrap() == before);
    disk.remount("rw");
    let server = Server::start(&data, &[]);
    charge(&mut server.client(), 1).unwrap().expect(200);
    run(&data, &["audit"]).ok();
    server.stop();
}

/// A service whose commits take so much longer, from the start and with a filter in the kernel, so that only
/// these calls are slow. The program is the child here, and strace watches from aside.
fn slow_disk(directory: &Path, data: &Path, delay: Duration, arguments: &[&str]) -> Server {
    let mut command = Command::new(tool("strace", "strace"));
    command.args(["-D", "-f", "--seccomp-bpf", "-o", "/dev/null"]);
    command.args(["-e", "trace=fsync,fdatasync", "-e"]);
    command.arg(format!("inject=fsync,fdatasync:delay_exit={}", delay.as_micros()));
    command.arg(env!("CARGO_BIN_EXE_boxoffice"));
    program::shield(&mut command, directory);
    command.env("RUST_BACKTRACE", "1");
    Server::start_by(command, data, arguments)
}

/// The rate at which a queue admits, of its own, while eight people hold and give back.
fn admitting_while_people_buy(server: &Server) -> f64 {
    const BUYERS: i64 = 8;
    let document = |client: &mut Client| {
        let answer = client.send("GET", "/api/v1/waiting-queues/main", &[], None).unwrap();
        answer.expect(200).json()
    };
    let mut client = server.client();
    let full = document(&mut client)["admitPerSecond"].as_f64().unwrap();
    assert_eq!(document(&mut client)["admittingPerSecond"].as_f64().unwrap(), full);
    let until = Instant::now() + Duration::from_secs(6);
    let mut lowest = full;
    std::thread::scope(|scope| {
        for user in 1..=BUYERS {
            scope.spawn(move || {
                let mut client = server.client();
                let token = joined(&mut client, user);
                wait_until("the admission", || poll(&mut client, &token)["status"] == "ACTIVATED");
                while Instant::now() < until {
                    let held = reserve(&mut client, &token, user, &[user]).expect(201).json();
                    let path = format!("/api/v1/reservations/{}", held["reservationId"]);
                    let headers = [("QUEUE-TOKEN", token.as_str())];
                    client.send("DELETE", &path, &headers, None).unwrap().expect(204);
                }
            });
        }
        while Instant::now() < until {
            lowest = document(&mut client)["admittingPerSecond"].as_f64().unwrap().min(lowest);
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    lowest / full
}

#[test]
fn fewer_are_let_in_while_purchases_wait_for_a_slow_disk() {
    let _alone = alone();
    const DELAY: Duration = Duration::from_millis(300);
    let holds = ["--set", "sales.holds_per_ticket_max=1000"];
    for governor in ["on", "off"] {
        let (directory, data) = place();
        let set = format!("queue.governor={governor}");
        let arguments = [&holds[..], &["--set", &set]].concat();
        let server = slow_disk(directory.path(), &data, DELAY, &arguments);
        let lowest = admitting_while_people_buy(&server);
        let share = server.metric("boxoffice_governor_share");
        let admitting = server.metric("boxoffice_queue_admitting_per_second{queue=\"main\"}");
        let log = server.stop();
        println!("governor {governor}: admits {lowest:.3} of its rate, {admitting} a second");
        let is_told = log.contains("letting in fewer");
        match governor {
            "on" => {
                assert!(lowest < 0.97 && is_told && share <= 1.0, "{lowest} of the rate\n{log}")
            }
            _ => assert!(lowest == 1.0 && !is_told && share == 1.0 && admitting == 300.0),
        }
    }
}

#[test]
fn a_slow_disk_makes_big_batches_and_no_slower_polls() {
    let _alone = alone();
    const WRITERS: i64 = 48;
    const DELAY: Duration = Duration::from_millis(50);
    let (directory, data) = place();
    let server = slow_disk(directory.path(), &data, DELAY, &[]);
    let mut client = server.client();
    let token = joined(&mut client, 1);
    let batches = |name: &str| server.metric(&format!("boxoffice_store_batch_commands_{name}"));
    let (sum, count) = (batches("sum"), batches("count"));
    let acknowledged: Vec<AtomicI64> = (0..WRITERS).map(|_| AtomicI64::new(0)).collect();
    let until = Instant::now() + Duration::from_secs(3);
    let mut polls = Vec::new();
    std::thread::scope(|scope| {
        for (user, acknowledged) in acknowledged.iter().enumerate() {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                while Instant::now() < until {
                    charge(&mut client, 100 + user as i64).unwrap().expect(200);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
        while Instant::now() < until {
            let asked = Instant::now();
            poll(&mut client, &token);
            polls.push(asked.elapsed());
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let batch = (batches("sum") - sum) / (batches("count") - count);
    polls.sort();
    let p99 = polls[polls.len() * 99 / 100];
    let mut total = 0;
    for (user, acknowledged) in acknowledged.iter().enumerate() {
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        assert_eq!(balance(&mut client, 100 + user as i64), POINTS + acknowledged);
        total += acknowledged;
    }
    run(&data, &["audit"]).ok();
    server.stop();
    run(&data, &["audit"]).ok();
    println!("{total} charges, {batch:.1} in a commit, {} polls, p99 {p99:.2?}", polls.len());
    // What the usual disk gives is no measure: in a rush the writer waits for batches there, too.
    assert!(batch > WRITERS as f64 / 4.0, "{batch} operations in a commit");
    assert!(p99 < DELAY, "a poll does not wait for a commit: p99 {p99:?}");
}

/// A check of the tests: a clock that was not set would prove nothing.
#[test]
fn the_tools_do_what_these_tests_believe() {
    let _alone = alone();
    let (directory, data) = place();
    let clock = WallClock::new(directory.path());
    clock.set(-3_600);
    let server = Server::start_by(clock.command(directory.path()), &data, &[]);
    let told = time_of(&join(&mut server.client(), 1).expect(201).json(), "joinedAt");
    let behind = jiff::Timestamp::now().duration_since(told).as_secs();
    assert!((3_595..3_605).contains(&behind), "{behind} s behind");
    server.stop();
    let connection = Connection::open(SqliteStore::file(&data)).unwrap();
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}
