//! What the machine allows: the kernel's limit on memory maps, memory, and open files.
//!
//! Read once at start. The host derives from it how many instances it may hold, so that it never runs into a limit of
//! the kernel: at the map limit the process can hang while it drops stores.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Kernel maps that an instance of a large component needs, measured: 7, and one for growth.
pub const MAPS_PER_LARGE_INSTANCE: u64 = 8;
/// Maps that are left for everything else: compiled code, threads, the allocator.
const MAPS_RESERVED: u64 = 4096;

/// The machine's limits.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// `vm.max_map_count`.
    pub maps_max: u64,
    /// Memory that this process may use: the machine's, or its control group's if that is less.
    pub memory_bytes: u64,
    /// Files that this process may have open, after raising.
    pub open_files_max: u64,
}

impl Machine {
    /// Reads the limits, and raises the number of open files as far as allowed.
    pub fn read() -> anyhow::Result<Machine> {
        let maps_max = read_number("/proc/sys/vm/max_map_count").context("read the kernel's map limit")?;
        Ok(Machine { maps_max, memory_bytes: memory_bytes()?, open_files_max: raise_open_files() })
    }

    /// Maps that instances may have together.
    pub fn instance_maps_max(&self) -> u64 {
        self.maps_max.saturating_sub(MAPS_RESERVED)
    }

    /// Memory that the host may have when it starts another instance: three quarters, the rest is for the system and for
    /// what instances that are there may still want.
    pub fn instance_memory_bytes_max(&self) -> u64 {
        self.memory_bytes / 4 * 3
    }
}

/// Memory that this process has now, in bytes.
pub fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * rustix::param::page_size() as u64
}

/// CPU time that the calling thread used so far.
pub fn thread_cpu() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec as u32)
}

/// Makes the calling thread give way to those that serve connections. Where both want all of a core, it gets about a
/// tenth, so that nobody starves.
pub fn give_way() {
    // Elsewhere the whole process would become nicer.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(10) {
        tracing::debug!(%error, "threads that should give way have the priority of all others");
    }
}

fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Refused at worst: then the current limit stays, and connections end there.
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    current.unwrap_or(u64::MAX)
}

fn memory_bytes() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read the machine's memory")?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).and_then(|rest| {
        let kilobytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kilobytes << 10)
    });
    let total = total.context("read the machine's memory: no MemTotal in /proc/meminfo")?;
    Ok(cgroup_memory_bytes().map_or(total, |group| group.min(total)))
}

/// The smallest memory limit of the control groups that this process is in, if any limits it.
pub fn cgroup_memory_bytes() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    cgroup_limit(&own, Path::new("/sys/fs/cgroup"))
}

/// The smallest limit from the group that `own` names up to `root`, of version 2 and of version 1.
fn cgroup_limit(own: &str, root: &Path) -> Option<u64> {
    let limits = own.lines().filter_map(|line| {
        // `0::/path` for version 2, `4:memory:/path` for version 1.
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (base, file) = if controllers.is_empty() {
            (root.to_owned(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            return None;
        };
        // In a container the path may be one of the machine's, of which only the end of the way up is there.
        let group = base.join(path.trim_start_matches('/'));
        let way_up = group.ancestors().take_while(|folder| folder.starts_with(&base));
        way_up.filter_map(|folder| read_number(&folder.join(file).to_string_lossy()).ok()).min()
    });
    // No limit is the word `max`, or in version 1 a number beyond all memory.
    limits.min().filter(|bytes| *bytes < 1 << 60)
}

fn read_number(path: &str) -> anyhow::Result<u64> {
    Ok(fs::read_to_string(path)?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_maps_and_some_memory_are_left_for_everything_else() {
        let machine = Machine { maps_max: 65_530, memory_bytes: 24 << 30, open_files_max: 1024 };
        // Creation stops near 9,300 stores at seven maps each.
        assert_eq!(machine.instance_maps_max() / MAPS_PER_LARGE_INSTANCE, 7679);
        assert_eq!(machine.instance_memory_bytes_max(), 18 << 30);
    }

    #[test]
    fn the_smallest_limit_of_all_control_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let limit = |own: &str| cgroup_limit(own, root.path());
        assert_eq!(limit("0::/a/b\n"), None, "nothing is there");
        write("a/b/memory.max", "max\n");
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/memory.max", "2000\n");
        write("a/b/c/memory.max", "1000\n");
        assert_eq!(limit("0::/a/b\n"), Some(2000), "of a group above; those below and beside are others'");
        assert_eq!(limit("0::/a/b/c\n"), Some(1000));
        write("memory/x/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit("3:cpu:/x\n4:memory,hugetlb:/x\n"), None, "version 1 says so with a number");
        write("memory/memory.limit_in_bytes", "3000\n");
        assert_eq!(limit("4:memory:/x/not/here\n0::/\n"), Some(3000));
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read().unwrap();
        assert!(machine.maps_max > 0 && machine.memory_bytes > 0 && machine.open_files_max > 0);
        assert!((1 << 20..machine.memory_bytes).contains(&resident_bytes()));
    }
}
