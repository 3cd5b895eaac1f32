//! What the kernel and this process allow: maps, files, memory.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use crate::machine::{MAPS_PER_LARGE_INSTANCE, Machine, cgroup_memory_bytes};

use super::super::units;
use super::Finding;

/// The kernel's usual limit; below it something was turned down.
const MAPS_USUAL: u64 = 65_530;
const MAPS_FOR_MANY: u64 = 1_048_576;
/// Sockets of callers and of guests, the database, compiled code.
const OPEN_FILES_LEAST: u64 = 256;
const OPEN_FILES_GOOD: u64 = 4096;
/// The host itself and a handful of instances.
const MEMORY_BYTES_LEAST: u64 = 128 << 20;
const MEMORY_BYTES_GOOD: u64 = 512 << 20;

pub(super) fn check(rust_backtrace: Option<&str>) -> Vec<Finding> {
    let machine = Machine::read();
    let findings = [
        Some(match &machine {
            Ok(machine) => maps(machine),
            Err(error) => Finding::fail("memory maps", format!("{error:#}")).remedy("Dormouse needs Linux with /proc"),
        }),
        machine.as_ref().ok().map(|machine| open_files(machine.open_files_max)),
        getrlimit(Resource::As).current.map(address_space),
        read_number("/proc/sys/vm/overcommit_memory").and_then(overcommit),
        fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(available).map(memory),
        cgroup_memory_bytes().map(cgroup),
        Some(backtrace(rust_backtrace)),
    ];
    findings.into_iter().flatten().collect()
}

fn read_number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn maps(machine: &Machine) -> Finding {
    let instances = units::count(machine.instance_maps_max() / MAPS_PER_LARGE_INSTANCE);
    let limit = machine.maps_max;
    let text = format!("vm.max_map_count is {limit}: room for {instances} instances of large components");
    let remedy = format!(
        "for more instances of components with much initial data: sudo sysctl -w vm.max_map_count={MAPS_FOR_MANY}"
    );
    if limit < MAPS_USUAL {
        Finding::warn("memory maps", text).remedy(remedy)
    } else if limit < MAPS_FOR_MANY {
        Finding::ok("memory maps", text).remedy(remedy)
    } else {
        Finding::ok("memory maps", text)
    }
}

/// A host raises its own limit as far as it may, so that this is the hard one.
fn open_files(limit: u64) -> Finding {
    let text = format!("at most {}: each connection takes one", units::count(limit));
    let remedy = "ulimit -Hn 65536, or LimitNOFILE=65536 in a systemd unit";
    if limit < OPEN_FILES_LEAST {
        Finding::fail("open files", text).remedy(remedy)
    } else if limit < OPEN_FILES_GOOD {
        Finding::warn("open files", text).remedy(remedy)
    } else {
        Finding::ok("open files", text)
    }
}

/// Instances reserve far more addresses than memory, so that a limit on addresses is met at once.
fn address_space(bytes: u64) -> Finding {
    let text = format!("limited to {}; instances reserve much more than they use", units::bytes(bytes));
    Finding::warn("address space", text).remedy("ulimit -v unlimited; limit memory with a cgroup instead")
}

fn overcommit(mode: u64) -> Option<Finding> {
    let text = "vm.overcommit_memory is 2: the kernel counts what instances reserve as if they used it";
    (mode == 2).then(|| Finding::warn("overcommit", text).remedy("sudo sysctl -w vm.overcommit_memory=0"))
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kb: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kb * 1024)
}

fn memory(bytes: u64) -> Finding {
    let text = format!("{} available", units::bytes(bytes));
    if bytes < MEMORY_BYTES_LEAST {
        Finding::fail("memory", text).remedy("free some; the host itself and a few instances need more than that")
    } else if bytes < MEMORY_BYTES_GOOD {
        Finding::warn("memory", text).remedy("enough for small functions; watch `dormouse list`")
    } else {
        Finding::ok("memory", text)
    }
}

fn cgroup(bytes: u64) -> Finding {
    let text = format!("memory is limited to {}; beyond it the kernel kills the host", units::bytes(bytes));
    if bytes < MEMORY_BYTES_GOOD {
        Finding::warn("cgroup", text).remedy("raise the limit (MemoryMax= in systemd, --memory in a container)")
    } else {
        Finding::ok("cgroup", text)
    }
}

fn backtrace(value: Option<&str>) -> Finding {
    match value {
        None | Some("0") => Finding::ok("RUST_BACKTRACE", "not set"),
        Some(value) => Finding::warn("RUST_BACKTRACE", format!("is {value}: requests take 6 to 28 % more CPU"))
            .remedy("unset RUST_BACKTRACE where the host runs"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn limits_are_judged() {
        let machine = |maps_max| Machine { maps_max, memory_bytes: 1 << 30, open_files_max: 1024 };
        assert_eq!(maps(&machine(1000)).level, Level::Warn);
        assert!(maps(&machine(65_530)).text.contains("room for 7,679 instances"));
        assert_eq!(maps(&machine(2_000_000)).remedy, None);
        let levels = [64, 1024, 65_536].map(|limit| open_files(limit).level);
        assert_eq!(levels, [Level::Fail, Level::Warn, Level::Ok]);
        assert_eq!(
            [memory(1 << 20).level, memory(200 << 20).level, memory(1 << 30).level],
            [Level::Fail, Level::Warn, Level::Ok]
        );
        assert_eq!([overcommit(0), overcommit(1)], [None, None]);
        assert_eq!(
            [backtrace(None).level, backtrace(Some("0")).level, backtrace(Some("1")).level],
            [Level::Ok, Level::Ok, Level::Warn]
        );
    }

    #[test]
    fn available_memory_is_read() {
        assert_eq!(available("MemTotal: 10 kB\nMemAvailable:   2048 kB\n"), Some(2_097_152));
        assert_eq!(available("MemTotal: 10 kB"), None);
    }
}
