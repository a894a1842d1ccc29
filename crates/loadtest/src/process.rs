//! Child processes: started so that they die with this program, measured, stopped by their own id.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// Linux has counted a hundred of them in a second on every architecture for decades.
const TICKS_PER_SECOND: f64 = 100.0;

/// A program that we have started.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    child: Child,
    ended: Option<Ended>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// Negative: the signal that ended it.
    pub(crate) code: i32,
    /// All of its CPU time.
    pub(crate) cpu_seconds: Option<f64>,
}

/// `program`, which gets a SIGKILL when this program ends in whatever way.
///
/// `setpriv` of util-linux asks the kernel for that. Where it is missing, only a SIGKILL of this program
/// leaves children behind.
pub(crate) fn mortal(program: &Path) -> Command {
    if in_path("setpriv") {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// Whether a program of that name is to be found.
pub(crate) fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

impl Process {
    /// Starts it in a group of its own, so that a Ctrl-C of the terminal reaches this program alone.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Result<Self, String> {
        use std::os::unix::process::CommandExt;
        let child = command
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Self { name: name.to_owned(), child, ended: None })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<Ended> {
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

    pub(crate) fn signal(&self, signal: Signal) {
        if self.ended.is_none()
            && let Some(pid) = self.pid()
        {
            // It may have ended in this moment; that is what was wanted.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Waits for its end, at most so long.
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<Ended> {
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
    pub(crate) fn stop(&mut self, with: Signal, patience: Duration) -> Option<Ended> {
        self.signal(with);
        self.wait(patience).or_else(|| {
            self.kill();
            self.ended()
        })
    }

    fn kill(&mut self) {
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

/// Where the output of a child goes.
pub(crate) fn log_to(command: &mut Command, path: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot write {}: {error}", path.display());
    let log = File::options().create(true).append(true).open(path).map_err(failed)?;
    let other = log.try_clone().map_err(failed)?;
    command.stdin(Stdio::null()).stdout(log).stderr(other);
    Ok(())
}

/// The end of a log, indented.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let last: Vec<String> =
        all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}")).collect();
    if last.is_empty() { "    (no output)".to_owned() } else { last.join("\n") }
}

/// CPU time of all threads of a process, ended ones too, user and kernel.
pub(crate) fn cpu_seconds(id: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = text[text.rfind(')')? + 2..].split(' ').collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

/// `VmRSS` or `VmHWM` of a process.
pub(crate) fn memory_bytes(id: u32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// CPU seconds that everything on the machine has used.
pub(crate) fn machine_cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<f64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // user nice system (idle iowait) irq softirq; what the host stole is not ours.
    let used =
        fields.first()? + fields.get(1)? + fields.get(2)? + fields.get(5)? + fields.get(6)?;
    Some(used / TICKS_PER_SECOND)
}
