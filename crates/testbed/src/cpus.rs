//! Which CPUs a program may use, and how much of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CGROUP_CPU: &str = "/sys/fs/cgroup/cpu";

/// The CPUs that a service may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Cpus {
    /// Numbers of the CPUs that it is pinned to.
    pub list: Vec<usize>,
    /// How much of them, where that is less.
    pub quota: Option<f64>,
}

impl Cpus {
    /// How many CPUs that is.
    pub fn count(&self) -> f64 {
        self.quota.unwrap_or(self.list.len() as f64)
    }

    /// `2` is how many, `0.5` a part of one, `0,1` and `0-1` are which, `0` is CPU 0, `all` is every one.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::choose(text, &available())
    }

    fn choose(text: &str, have: &[usize]) -> Result<Self, String> {
        let wrong = || {
            format!(
                "--cpus {text}: give a count (1), a part (0.5), a list (0,1), a range (0-1) or all"
            )
        };
        if text == "all" {
            return Ok(Self { list: have.to_vec(), quota: None });
        }
        let few = |wanted: usize| {
            format!(
                "--cpus {text}: this machine has only {} for this program, and {wanted} are needed",
                have.len()
            )
        };
        if text.contains('.') {
            let quota: f64 = text.parse().map_err(|_| wrong())?;
            if !(0.01..=1024.0).contains(&quota) {
                return Err(wrong());
            }
            let count = quota.ceil() as usize;
            let list = have.get(..count).ok_or_else(|| few(count))?.to_vec();
            return Ok(Self { quota: (quota < count as f64).then_some(quota), list });
        }
        if let Ok(count) = text.parse::<usize>()
            && count > 0
        {
            return Ok(Self {
                list: have.get(..count).ok_or_else(|| few(count))?.to_vec(),
                quota: None,
            });
        }
        let mut list = Vec::new();
        for part in text.split(',') {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let (low, high): (usize, usize) =
                (low.parse().map_err(|_| wrong())?, high.parse().map_err(|_| wrong())?);
            if low > high || high > 4096 {
                return Err(wrong());
            }
            list.extend(low..=high);
        }
        list.sort_unstable();
        list.dedup();
        match list.iter().find(|cpu| !have.contains(cpu)) {
            Some(cpu) => {
                Err(format!("--cpus {text}: this program may not use CPU {cpu}, only {have:?}"))
            }
            None => Ok(Self { list, quota: None }),
        }
    }

    /// Every CPU that this program may use.
    pub fn all() -> Self {
        Self { list: available(), quota: None }
    }
}

/// Numbers of the CPUs that this program may use.
pub fn available() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect(),
        Err(_) => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// A share of CPU time that the kernel enforces, removed when it is dropped.
#[derive(Debug)]
pub struct Quota(PathBuf);

impl Quota {
    /// For these processes and all that they start from now on.
    pub fn impose(cpus: f64, pids: &[u32]) -> Result<Self, String> {
        // In short periods rather than the usual 100 ms: a service that used up its share sleeps for the rest of
        // the period, and that shows in every latency. The kernel takes no share below 1 ms.
        let period_us = (1000.0 / cpus).clamp(10_000.0, 1_000_000.0);
        let path = Path::new(CGROUP_CPU).join(format!(
            "boxoffice-{}-{}",
            std::process::id(),
            pids.first().copied().unwrap_or(0)
        ));
        let failed = |error: std::io::Error| {
            format!(
                "a part of a CPU needs the cpu controller of cgroup v1 at {CGROUP_CPU} and root: {}: {error}. Give a \
                 whole number of CPUs, which needs neither",
                path.display()
            )
        };
        fs::create_dir(&path).map_err(failed)?;
        let quota = Self(path.clone());
        fs::write(path.join("cpu.cfs_period_us"), format!("{period_us:.0}")).map_err(failed)?;
        fs::write(path.join("cpu.cfs_quota_us"), format!("{:.0}", (cpus * period_us).max(1000.0)))
            .map_err(failed)?;
        for pid in pids {
            fs::write(path.join("cgroup.procs"), pid.to_string()).map_err(failed)?;
        }
        Ok(quota)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // The kernel needs a moment to see that the last process is gone.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_listed_or_shared() {
        let choose = |text: &str| Cpus::choose(text, &[0, 1, 4, 5]);
        for (text, list, count) in [
            ("1", &[0][..], 1.0),
            ("3", &[0, 1, 4], 3.0),
            ("0", &[0], 1.0),
            ("4,1", &[1, 4], 2.0),
            ("4-5", &[4, 5], 2.0),
            ("all", &[0, 1, 4, 5], 4.0),
            ("0.5", &[0], 0.5),
            ("1.5", &[0, 1], 1.5),
            ("2.0", &[0, 1], 2.0),
        ] {
            let cpus = choose(text).unwrap();
            assert_eq!((cpus.list.as_slice(), cpus.count()), (list, count), "{text}");
        }
        for text in [
            "",
            "x",
            "5",
            "4.5",
            "2-3",
            "0.0",
            "-1",
            "1-0",
            "0,2",
            "NaN",
            "inf",
            "1e9",
            "0-99999999999",
        ] {
            assert!(choose(text).is_err(), "{text}");
        }
        assert!(choose("5").unwrap_err().contains("has only 4"));
    }
}
