//! What the machine allows: the kernel's limit on memory maps, memory, and open files.
//!
//! Read once at start. The host derives from it how many instances it may hold, so that it never runs into a limit of
//! the kernel: at the map limit the process can hang while it drops stores.

use std::fs;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kernel maps that one instance needs, measured: 7 for a Rust component, one more for growth.
pub const MAPS_PER_INSTANCE: u64 = 8;
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

    /// Instances that the map limit allows.
    pub fn instances_max(&self) -> usize {
        (self.maps_max.saturating_sub(MAPS_RESERVED) / MAPS_PER_INSTANCE).max(1) as usize
    }

    /// Memory that instances may have together: three quarters, the rest is for compiled code, buffers and the system.
    pub fn instance_memory_bytes_max(&self) -> u64 {
        self.memory_bytes / 4 * 3
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
    // Absent, or the word `max`: no limit of its own.
    Ok(read_number("/sys/fs/cgroup/memory.max").map_or(total, |own| own.min(total)))
}

fn read_number(path: &str) -> anyhow::Result<u64> {
    Ok(fs::read_to_string(path)?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_default_allows_the_instances_that_were_measured_to_fit() {
        let machine = Machine { maps_max: 65_530, memory_bytes: 24 << 30, open_files_max: 1024 };
        // Creation stops near 9,300 stores at seven maps each.
        assert_eq!(machine.instances_max(), 7679);
        assert_eq!(machine.instance_memory_bytes_max(), 18 << 30);
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read().unwrap();
        assert!(machine.maps_max > 0 && machine.memory_bytes > 0 && machine.open_files_max > 0);
    }
}
