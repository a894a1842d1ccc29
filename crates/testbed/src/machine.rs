//! What a measurement was made on.

use std::fs;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::cpus::available;
use crate::tools::root;

/// The machine, as a report names it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Model of the CPU.
    pub cpu: String,
    /// How many of them this program may use.
    pub cpus: usize,
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Load average of the last minute, when it was asked for.
    pub load_average_before: f64,
}

impl Machine {
    /// Looks at the machine.
    pub fn look() -> Self {
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu_info.lines().find_map(|line| {
            line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim())
        });
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cpu: cpu.unwrap_or("unknown CPU").to_owned(),
            cpus: available().len(),
            memory_bytes: memory_bytes("MemTotal").unwrap_or(0),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            load_average_before: load
                .split(' ')
                .next()
                .and_then(|it| it.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

/// Returns a figure of `/proc/meminfo`, such as `MemTotal`.
pub fn memory_bytes(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Returns what git calls the state of the repository; none where it does not say.
pub fn commit() -> Option<String> {
    let said = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(root())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    (said.status.success() && !text.is_empty()).then_some(text)
}
