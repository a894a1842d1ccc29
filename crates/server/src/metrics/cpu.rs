//! What Linux says of the CPU time that the process may have, and of what it wanted and did not get.
//!
//! Read at each scrape, from the files of the threads and of the control group, of either version. What the kernel
//! does not say is absent, rather than 0.
//!
//! What does not belong here: the CPU time that was had, which every process has.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use parking_lot::Mutex;

/// What the kernel says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Told {
    /// CPUs that may be used: those that the process is bound to, or the quota where that is less.
    pub cpus: Option<f64>,
    /// For how long threads were kept from running because a quota was used up, in seconds.
    pub throttled_seconds: Option<f64>,
    /// For how long threads could have run and waited for a CPU, in seconds.
    pub run_queue_wait_seconds: Option<f64>,
}

/// Reads what the kernel says.
#[derive(Debug)]
pub(super) struct Cpu {
    /// `/`, except in tests.
    root: PathBuf,
    waits: Mutex<Waits>,
}

/// The kernel forgets a thread that has ended, and a counter must not: so what each had is remembered.
#[derive(Debug, Default)]
struct Waits {
    /// By thread, in nanoseconds.
    of_threads: HashMap<u32, u64>,
    total: u64,
}

impl Cpu {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), waits: Mutex::default() }
    }

    /// What there is to know now.
    pub(super) fn read(&self) -> Told {
        let group = Group::of_self(&self.root);
        let quota = group.as_ref().and_then(|group| group.quota);
        let bound = self.bound_cpus();
        Told {
            cpus: bound.map(|bound| quota.map_or(bound, |quota| quota.min(bound))),
            throttled_seconds: group.and_then(|group| group.throttled_seconds()),
            run_queue_wait_seconds: self.run_queue_wait_seconds(),
        }
    }

    /// How many CPUs the scheduler may use for it.
    fn bound_cpus(&self) -> Option<f64> {
        let status = std::fs::read_to_string(self.root.join("proc/self/status")).ok()?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        let mut count = 0_u32;
        for range in list.trim().split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            count += last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)? + 1;
        }
        Some(f64::from(count))
    }

    /// A thread that begins and ends between two scrapes is not counted.
    fn run_queue_wait_seconds(&self) -> Option<f64> {
        let threads = std::fs::read_dir(self.root.join("proc/self/task")).ok()?;
        let mut waits = self.waits.lock();
        let mut of_threads = HashMap::with_capacity(waits.of_threads.len() + 1);
        let mut is_told = false;
        for thread in threads.flatten() {
            let id = thread.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            // One that has just ended has no file any more.
            let text = std::fs::read_to_string(thread.path().join("schedstat"));
            let (Some(id), Ok(text)) = (id, text) else { continue };
            // proc(5): time on a CPU, time in a run queue, time slices. All are 0 where the kernel does not count.
            let fields: Vec<u64> = text.split_ascii_whitespace().flat_map(str::parse).collect();
            let [_, wait, _] = fields[..] else { continue };
            is_told |= fields.iter().any(|field| *field > 0);
            let before = waits.of_threads.get(&id).copied().unwrap_or(0);
            // Less than before is another thread with the same number.
            waits.total += wait.checked_sub(before).unwrap_or(wait);
            of_threads.insert(id, wait);
        }
        waits.of_threads = of_threads;
        is_told.then_some(waits.total as f64 / 1e9)
    }
}

/// The versions of control groups differ in where things stand and in their units.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Version {
    One,
    Two,
}

/// The control group whose quota is the smallest of those that the process is in, or its own where none has a quota.
#[derive(Debug)]
struct Group {
    version: Version,
    directory: PathBuf,
    /// In CPUs.
    quota: Option<f64>,
}

impl Group {
    fn of_self(root: &Path) -> Option<Self> {
        let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
        let mounts = std::fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
        // cgroups(7): number, controllers, path. With both versions at once, one of them has the CPUs.
        let entries = groups.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?))
        });
        let mut path_one = None;
        let mut path_two = None;
        for (controllers, path) in entries {
            if controllers.split(',').any(|controller| controller == "cpu") {
                path_one = Some(path);
            } else if controllers.is_empty() {
                path_two = Some(path);
            }
        }
        let (version, path) = match (path_one, path_two) {
            (Some(path), _) => (Version::One, path),
            (None, Some(path)) => (Version::Two, path),
            (None, None) => return None,
        };
        let (mount, shown) = mounts.lines().find_map(|line| mounted(line, version))?;
        let mount = root.join(mount.strip_prefix('/')?);
        // In a container the mount shows the container's own group, whatever its path is outside. A path that
        // cannot be seen from here begins with `..`.
        let below = Path::new(path).strip_prefix(shown).unwrap_or(Path::new(""));
        let is_below = below.components().all(|part| matches!(part, Component::Normal(_)));
        let own = if is_below { mount.join(below) } else { mount.clone() };
        let mut found = Self { version, quota: quota(version, &own), directory: own.clone() };
        for directory in
            own.ancestors().skip(1).take_while(|directory| directory.starts_with(&mount))
        {
            if let Some(outer) = quota(version, directory)
                && found.quota.is_none_or(|inner| outer < inner)
            {
                found = Self { version, quota: Some(outer), directory: directory.to_owned() };
            }
        }
        Some(found)
    }

    fn throttled_seconds(&self) -> Option<f64> {
        let (name, per_second) = match self.version {
            Version::One => ("throttled_time", 1e9),
            Version::Two => ("throttled_usec", 1e6),
        };
        let stat = std::fs::read_to_string(self.directory.join("cpu.stat")).ok()?;
        let mut fields = stat.lines().filter_map(|line| line.split_once(' '));
        let time: u64 = fields.find(|(field, _)| *field == name)?.1.parse().ok()?;
        Some(time as f64 / per_second)
    }
}

/// Where a line of mountinfo has the control groups that deal with CPUs, and which group is at that place.
fn mounted(line: &str, version: Version) -> Option<(&str, &str)> {
    // proc(5): optional fields end with a hyphen.
    let (place, what) = line.split_once(" - ")?;
    let mut what = what.split(' ');
    let kind = what.next()?;
    let is_it = match version {
        Version::One => {
            kind == "cgroup" && what.next_back()?.split(',').any(|option| option == "cpu")
        }
        Version::Two => kind == "cgroup2",
    };
    let mut place = place.split(' ').skip(3);
    let shown = place.next()?;
    is_it.then_some((place.next()?, shown))
}

fn quota(version: Version, directory: &Path) -> Option<f64> {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).ok();
    let number = |text: &str| f64::from_str(text.trim()).ok().filter(|number| *number > 0.0);
    let (quota, period) = match version {
        Version::One => (number(&read("cpu.cfs_quota_us")?)?, number(&read("cpu.cfs_period_us")?)?),
        Version::Two => {
            let text = read("cpu.max")?;
            let (quota, period) = text.split_once(' ')?;
            // `max` is no number.
            (number(quota)?, number(period)?)
        }
    };
    Some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), files);
        root
    }

    fn put(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    const STATUS: (&str, &str) = ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-2,5\n");
    const VERSION_TWO: (&str, &str) = (
        "proc/self/mountinfo",
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
         31 22 0:28 / /sys/fs/cgroup rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate\n",
    );
    const VERSION_ONE: (&str, &str) = (
        "proc/self/mountinfo",
        "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
         32 31 0:29 /docker/ab /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
         41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    );

    #[test]
    fn a_container_with_groups_of_version_two() {
        let root = root(&[
            STATUS,
            VERSION_TWO,
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/cpu.stat", "usage_usec 9\nnr_throttled 4\nthrottled_usec 2500000\n"),
            ("proc/self/task/7/schedstat", "100 1500000000 3\n"),
        ]);
        let told = Cpu::new(root.path()).read();
        let expected = Told {
            cpus: Some(1.5),
            throttled_seconds: Some(2.5),
            run_queue_wait_seconds: Some(1.5),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn the_smallest_quota_of_the_groups_counts_and_its_group_is_asked() {
        let root = root(&[
            STATUS,
            VERSION_TWO,
            ("proc/self/cgroup", "0::/sale.slice/boxoffice.service\n"),
            ("sys/fs/cgroup/sale.slice/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/sale.slice/cpu.stat", "throttled_usec 7000000\n"),
            ("sys/fs/cgroup/sale.slice/boxoffice.service/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/sale.slice/boxoffice.service/cpu.stat", "throttled_usec 0\n"),
        ]);
        let told = Cpu::new(root.path()).read();
        assert_eq!((told.cpus, told.throttled_seconds), (Some(0.5), Some(7.0)));
    }

    #[test]
    fn a_container_with_groups_of_version_one_beside_version_two() {
        let groups =
            "9:name=systemd:/docker/ab\n3:cpuset:/docker/ab\n1:cpu,cpuacct:/docker/ab\n0::/\n";
        let files = [
            STATUS,
            VERSION_ONE,
            ("proc/self/cgroup", groups),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            (
                "sys/fs/cgroup/cpu,cpuacct/cpu.stat",
                "nr_periods 3\nnr_throttled 1\nthrottled_time 250000000\n",
            ),
            ("sys/fs/cgroup/unified/cpu.stat", "throttled_usec 99000000\n"),
        ];
        let root = root(&files);
        let cpu = Cpu::new(root.path());
        let told = cpu.read();
        assert_eq!((told.cpus, told.throttled_seconds), (Some(2.0), Some(0.25)));
        // A path that cannot be seen from inside, and no quota.
        put(
            root.path(),
            &[
                ("proc/self/cgroup", "1:cpu,cpuacct:/../cd\n"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ],
        );
        let told = cpu.read();
        assert_eq!((told.cpus, told.throttled_seconds), (Some(4.0), Some(0.25)));
    }

    #[test]
    fn what_the_kernel_does_not_say_is_absent() {
        assert_eq!(Cpu::new(root(&[]).path()).read(), Told::default());
        // Groups without the CPU controller, and a kernel that counts no waits.
        let root = root(&[
            STATUS,
            VERSION_TWO,
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.stat", "usage_usec 9\nuser_usec 4\n"),
            ("proc/self/task/7/schedstat", "0 0 0\n"),
        ]);
        assert_eq!(Cpu::new(root.path()).read(), Told { cpus: Some(4.0), ..Told::default() });
    }

    #[test]
    fn what_a_thread_waited_is_not_forgotten_with_it() {
        let root = root(&[
            ("proc/self/task/7/schedstat", "1 1000000000 1\n"),
            ("proc/self/task/8/schedstat", "1 2000000000 1\n"),
        ]);
        let cpu = Cpu::new(root.path());
        let waited = || cpu.read().run_queue_wait_seconds;
        assert_eq!(waited(), Some(3.0));
        put(root.path(), &[("proc/self/task/7/schedstat", "1 1500000000 2\n")]);
        std::fs::remove_dir_all(root.path().join("proc/self/task/8")).unwrap();
        assert_eq!(waited(), Some(3.5));
        // Another thread gets the number of the one that ended, and one gets the number of one that lives.
        put(
            root.path(),
            &[
                ("proc/self/task/7/schedstat", "1 100000000 1\n"),
                ("proc/self/task/8/schedstat", "1 400000000 1\n"),
            ],
        );
        assert_eq!(waited(), Some(4.0));
    }
}
