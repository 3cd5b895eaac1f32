//! The machine: what it is, which core a thread may use, and how much CPU went to anything but the benchmark.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::clock;

/// The core of the server under test.
pub(crate) const SERVER_CORE: usize = 0;
/// The core of the load generator.
pub(crate) const GENERATOR_CORE: usize = 1;

/// What /proc/stat counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where threads may run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cores {
    Only(usize),
    All,
}

/// Runs `work` on a thread that may use only these cores. Processes that it starts may use no others either.
pub(crate) fn on<T: Send>(cores: Cores, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let pinned = scope.spawn(move || {
            if let Cores::Only(core) = cores {
                let mut set = CpuSet::new();
                set.set(core);
                // A machine with one core has no second one; the report says how many there are.
                let _ = sched_setaffinity(None, &set);
            }
            work()
        });
        pinned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether the calling thread has a core of its own.
pub(crate) fn is_pinned() -> bool {
    cores() > 1 && sched_getaffinity(None).is_ok_and(|set| set.count() == 1)
}

/// CPU time of a process, with all of its threads that still run, to the nanosecond.
pub(crate) fn process_cpu(pid: u32) -> Result<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} has ended"))?;
    let schedules = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    let nanos = schedules.filter_map(|schedule| schedule.split(' ').next()?.parse::<u64>().ok());
    Ok(Duration::from_nanos(nanos.sum()))
}

/// Seconds that all cores were busy, and seconds that the hypervisor kept from them.
struct Counters {
    at: Instant,
    idle: f64,
    stolen: f64,
    ours: Duration,
}

/// Watches what the machine does beside the benchmark.
pub(crate) struct Watch {
    before: Counters,
    pids: Vec<u32>,
}

impl Watch {
    /// `pids` are the servers under test; this process counts as well.
    pub(crate) fn start(pids: &[u32]) -> Result<Watch> {
        let pids = pids.to_vec();
        Ok(Watch { before: Counters::read(&pids)?, pids })
    }

    /// The share of the machine's CPU time that went elsewhere since the start.
    pub(crate) fn foreign(&self) -> Result<f64> {
        let (before, after) = (&self.before, Counters::read(&self.pids)?);
        let whole = (after.at - before.at).as_secs_f64() * cores() as f64;
        let busy = whole - (after.idle - before.idle);
        let ours = after.ours.saturating_sub(before.ours).as_secs_f64();
        let stolen = after.stolen - before.stolen;
        Ok(((busy - ours).max(0.0) + stolen) / whole)
    }
}

impl Counters {
    fn read(pids: &[u32]) -> Result<Counters> {
        let own = clock_gettime(ClockId::ProcessCPUTime);
        // The load generator's threads end before the second reading; this clock goes on counting them.
        let own = Duration::new(own.tv_sec as u64, own.tv_nsec as u32);
        let servers = pids.iter().map(|pid| process_cpu(*pid)).sum::<Result<Duration>>()?;
        let ours = own + servers + ended_children_cpu()?;
        let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        // After the name: user, nice, system, idle, iowait, irq, softirq, steal.
        let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
        let seconds = |field: usize| ticks.get(field).copied().unwrap_or_default() / TICKS_PER_SECOND;
        Ok(Counters { at: clock::now(), idle: seconds(3) + seconds(4), stolen: seconds(7), ours })
    }
}

/// CPU time of the programs that this one has run and that have ended.
fn ended_children_cpu() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    // After the name, which may hold anything, the first field is the third; theirs are the 16th and the 17th.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ').skip(13).take(2);
    let ticks: f64 = fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

/// The machine's cores, whichever of them the thread that asks may use.
pub(crate) fn cores() -> usize {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let numbered = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    stat.lines().filter(numbered).count().max(1)
}

pub(crate) fn load_average() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

/// What a reader must know of the machine to judge a figure.
pub(crate) fn describe() -> Value {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split(':').nth(1).unwrap_or_default().trim().to_owned()
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "date": humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
        "cores": cores(),
        "processor": first("/proc/cpuinfo", "model name"),
        "memory": first("/proc/meminfo", "MemTotal"),
        "kernel": release.trim(),
        "loadAverage": load_average(),
    })
}
