//! What processes use, as the kernel tells.

use std::fs;

/// Linux has counted a hundred of them in a second on every architecture for decades.
const TICKS_PER_SECOND: f64 = 100.0;

/// At one moment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Of the load itself, in seconds.
    pub(crate) own_cpu: f64,
    /// Of the service, in seconds.
    pub(crate) server_cpu: f64,
    /// Resident memory of the service.
    pub(crate) server_bytes: u64,
}

/// Looks at this process, and at the service's where its id is known.
///
/// # Errors
/// Where there is no such process.
pub(crate) fn now(server: Option<u32>) -> Result<Usage, String> {
    let own_cpu = cpu_seconds("self").ok_or("/proc/self/stat cannot be read")?;
    let Some(server) = server else { return Ok(Usage { own_cpu, ..Usage::default() }) };
    let server = server.to_string();
    let gone = || format!("process {server} cannot be looked at");
    let server_cpu = cpu_seconds(&server).ok_or_else(gone)?;
    Ok(Usage { own_cpu, server_cpu, server_bytes: resident_bytes(&server).ok_or_else(gone)? })
}

/// CPU time of all threads, user and kernel.
fn cpu_seconds(process: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program stands in brackets and may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, kernel): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + kernel) / TICKS_PER_SECOND)
}

fn resident_bytes(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}
