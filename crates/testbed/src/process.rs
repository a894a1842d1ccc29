//! Child processes: started so that they die with this program, measured, stopped by their own id.
//!
//! The kernel counts the *thread* that has started a child as its parent: a child that is to die with us
//! dies with that thread. So one thread, which lives as long as the program, starts them all.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// Linux has counted a hundred of them in a second on every architecture for decades.
const TICKS_PER_SECOND: f64 = 100.0;

/// A program that we have started.
#[derive(Debug)]
pub struct Process {
    /// What it is called in messages.
    pub name: String,
    child: Child,
    ended: Option<Ended>,
}

/// How a program has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Negative: the signal that ended it.
    pub code: i32,
    /// All of its CPU time.
    pub cpu_seconds: Option<f64>,
}

type Order = (Command, Sender<io::Result<Child>>);

fn start(command: Command) -> io::Result<Child> {
    static ORDERS: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (to, orders) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(to)
    });
    let gone = || io::Error::other("nobody starts children any more");
    let (to, answer) = channel();
    orders.lock().map_err(|_| gone())?.send((command, to)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// `program`, which gets a SIGKILL when this program ends in whatever way.
///
/// `setpriv` of util-linux asks the kernel for that. Where it is missing, only a SIGKILL of this program
/// leaves children behind.
pub fn mortal(program: &Path) -> Command {
    // The kernel tells of no death from before it was asked: who has another parent by then has none any more.
    const UNLESS_ORPHANED: &str = r#"[ "$PPID" = "$0" ] && exec "$@""#;
    if in_path("setpriv") {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "sh", "-c", UNLESS_ORPHANED]);
        command.arg(std::process::id().to_string()).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// The same on these CPUs alone; on all of them where none is named.
pub fn mortal_on(cpus: &[usize], program: &Path) -> Command {
    if cpus.is_empty() {
        return mortal(program);
    }
    let list: Vec<String> = cpus.iter().map(ToString::to_string).collect();
    let mut command = mortal(Path::new("taskset"));
    command.args(["-c", &list.join(",")]).arg(program);
    command
}

/// What a command has said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// All that it has said.
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err).trim().to_owned()
    }
}

/// Runs a command to its end with `input`, at most so long.
pub fn run(command: Command, input: &[u8], patience: Duration) -> Result<Said, String> {
    let mut command = command;
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = command.get_program().to_string_lossy().into_owned();
    let mut process = Process::spawn(&name, command)?;
    let (out, err) = (process.child.stdout.take(), process.child.stderr.take());
    let (stdin, input) = (process.child.stdin.take(), input.to_vec());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            use std::io::Write;
            // Who does not read to the end says why.
            stdin.map(|mut to| to.write_all(&input))
        });
        let out = scope.spawn(|| read_all(out));
        let err = scope.spawn(|| read_all(err));
        let until = Instant::now() + patience;
        let status = loop {
            match process.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) => {
                    process.kill();
                    return Err(format!(
                        "{name} was not done after {:.0} s",
                        patience.as_secs_f64()
                    ));
                }
                Err(error) => return Err(format!("{name}: {error}")),
            }
        };
        let failed = |_| format!("{name}: cannot be read");
        Ok(Said { status, out: out.join().map_err(failed)?, err: err.join().map_err(failed)? })
    })
}

fn read_all(from: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        let _ = from.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a program of that name is to be found.
pub fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

impl Process {
    /// Starts it in a group of its own, so that a Ctrl-C of the terminal reaches this program alone.
    pub fn spawn(name: &str, mut command: Command) -> Result<Self, String> {
        use std::os::unix::process::CommandExt;
        command.process_group(0);
        let child = start(command).map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Self { name: name.to_owned(), child, ended: None })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<Ended> {
        if self.ended.is_none() {
            // Its times can be read until it is reaped.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let gone = rustix::process::waitid(WaitId::Pid(self.pid()?), options);
            if matches!(gone, Ok(None)) {
                return None;
            }
            let cpu_seconds = cpu_seconds(self.child.id());
            if let Ok(Some(status)) = self.child.try_wait() {
                use std::os::unix::process::ExitStatusExt;
                let code =
                    status.code().or_else(|| status.signal().map(|signal| -signal)).unwrap_or(-1);
                self.ended = Some(Ended { code, cpu_seconds });
            }
        }
        self.ended
    }

    /// Whether it runs, without looking how it ended.
    pub fn is_running(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let gone = self.pid().map(|pid| rustix::process::waitid(WaitId::Pid(pid), options));
        self.ended.is_none() && matches!(gone, Some(Ok(None)))
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none()
            && let Some(pid) = self.pid()
        {
            // It may have ended in this moment; that is what was wanted.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Waits for its end, at most so long.
    pub fn wait(&mut self, patience: Duration) -> Option<Ended> {
        let until = Instant::now() + patience;
        loop {
            if let Some(ended) = self.ended() {
                return Some(ended);
            }
            if Instant::now() > until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end and waits; killed where it does not.
    pub fn stop(&mut self, with: Signal, patience: Duration) -> Option<Ended> {
        self.signal(with);
        self.wait(patience).or_else(|| {
            self.kill();
            self.ended()
        })
    }

    /// Ends it, and whatever it has started itself, at once.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            if let Some(pid) = self.pid() {
                // With whatever it has started itself.
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            }
            let _ = self.wait(Duration::from_secs(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Politely first: it may have something to tidy up.
        self.stop(Signal::TERM, Duration::from_secs(10));
    }
}

/// Raises the limit of open files to `needed`, where it is below. `why` begins the message where it cannot be.
pub fn raise_file_limit(needed: u64, why: &str) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let wanted = Rlimit { current: Some(maximum), maximum: limit.maximum };
    if setrlimit(Resource::Nofile, wanted).is_ok() && maximum >= needed {
        return Ok(());
    }
    Err(format!(
        "{why} needs {needed} open files per process, but the limit is {maximum}. Raise it as root with `ulimit -Hn \
         {needed}` in the calling shell, or in /etc/security/limits.conf, or use fewer users."
    ))
}

/// Where the output of a child goes.
pub fn log_to(command: &mut Command, path: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot write {}: {error}", path.display());
    let log = File::options().create(true).append(true).open(path).map_err(failed)?;
    let other = log.try_clone().map_err(failed)?;
    command.stdin(Stdio::null()).stdout(log).stderr(other);
    Ok(())
}

/// The end of a log, indented.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let last: Vec<String> =
        all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}")).collect();
    if last.is_empty() { "    (no output)".to_owned() } else { last.join("\n") }
}

/// CPU time of all threads of a process, ended ones too, user and kernel. In ticks of 10 ms; [`CpuTime`]
/// is finer.
pub fn cpu_seconds(id: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = text[text.rfind(')')? + 2..].split(' ').collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

/// The CPU time of a process at one moment, so that the time between two of them can be told.
///
/// The kernel says it of the whole process in ticks of 10 ms, which is a hundredth of a short measurement, and of
/// each thread that is alive in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuTime {
    whole: f64,
    threads: f64,
}

impl CpuTime {
    /// Two counts, of user and kernel, each rounded to a tick.
    const ROUNDING: f64 = 2.0 / TICKS_PER_SECOND;

    /// Reads it of a process that runs.
    pub fn of(id: u32) -> Option<Self> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{id}/task")).ok()?.flatten() {
            // It may end in this moment.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            nanoseconds += text.split(' ').next()?.parse::<u64>().ok()?;
        }
        Some(Self { whole: cpu_seconds(id)?, threads: nanoseconds as f64 / 1e9 })
    }

    /// Returns the seconds since another moment. A thread that has ended in between took what it had used with
    /// it; where that shows, ticks must do.
    pub fn since(&self, before: &Self) -> f64 {
        let (whole, threads) = (self.whole - before.whole, self.threads - before.threads);
        if (whole - threads).abs() <= Self::ROUNDING { threads } else { whole }
    }
}

/// `VmRSS` or `VmHWM` of a process.
pub fn memory_bytes(id: u32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// CPU seconds that everything on the machine has used.
pub fn machine_cpu_seconds() -> Option<f64> {
    used_seconds(&fs::read_to_string("/proc/stat").ok()?, "cpu", Stolen::IsNotOurs)
}

/// For how long one CPU has done anything for anybody.
pub fn busy_seconds(cpu: usize) -> Option<f64> {
    used_seconds(&fs::read_to_string("/proc/stat").ok()?, &format!("cpu{cpu}"), Stolen::IsBusy)
}

/// What is thought of the time that the host gave to others.
#[derive(Clone, Copy, PartialEq)]
enum Stolen {
    IsBusy,
    IsNotOurs,
}

fn used_seconds(stat: &str, name: &str, stolen: Stolen) -> Option<f64> {
    let line = stat.lines().find(|line| line.split(' ').next() == Some(name))?;
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // user nice system (idle iowait) irq softirq steal
    let ours: Option<f64> = [0, 1, 2, 5, 6].into_iter().map(|n| fields.get(n)).sum();
    let steal = fields.get(7).filter(|_| stolen == Stolen::IsBusy).unwrap_or(&0.0);
    Some((ours? + steal) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_busy_with_all_but_waiting() {
        let stat = "cpu  200 2 4 900 80 6 8 10 0 0\ncpu1 9 9 9 9 9 9 9 9 0 0\n\
                    cpu0 100 1 2 500 40 3 4 50 0 0\nintr 1 2\n";
        assert_eq!(used_seconds(stat, "cpu", Stolen::IsNotOurs), Some(2.2));
        assert_eq!(used_seconds(stat, "cpu0", Stolen::IsBusy), Some(1.6));
        assert_eq!(used_seconds(stat, "cpu7", Stolen::IsBusy), None);
        assert_eq!(used_seconds("cpu0 1 2", "cpu0", Stolen::IsBusy), None);
    }

    #[test]
    fn the_time_of_a_process_is_finer_than_ticks_unless_threads_end() {
        let at = |whole, threads| CpuTime { whole, threads };
        let before = at(1.00, 0.7001);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(at(1.43, 1.1345).since(&before), 0.4344));
        // One that had used 0.2 s is gone.
        assert!(close(at(1.43, 0.9345).since(&before), 0.43));
        let (id, until) = (std::process::id(), Instant::now() + Duration::from_secs(20));
        let began = CpuTime::of(id).unwrap();
        while CpuTime::of(id).unwrap().since(&began) < 0.03 {
            assert!(Instant::now() < until, "no time was counted");
        }
        assert_eq!(CpuTime::of(u32::MAX), None);
    }
}
