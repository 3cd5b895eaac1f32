//! What an instance's driver knows about its function, and the figures that others may read of an instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::metrics::{HookTimes, Metrics};
use crate::guest::{Blueprint, Entry};
use crate::ids::{FunctionName, VersionLabel};
use crate::log::LogWriter;
use crate::meter::{Basis, Post};

/// What all instances of a function share.
pub struct Terms {
    /// The function.
    pub function: FunctionName,
    /// The version that instances report.
    pub version: VersionLabel,
    /// Configured memory.
    pub memory_mb: u32,
    /// The billing basis.
    pub basis: Basis,
    /// Requests that one instance serves at once; 1 unless the handler is asynchronous.
    pub concurrency: u32,
    /// Requests that an instance answers before it is stopped.
    pub requests_max: Option<u32>,
    /// The linger between the last reply and pre-freeze.
    pub freeze_after: Duration,
    /// How long instantiation may take, with the start functions of the component.
    pub start_timeout: Duration,
    /// The initializer's timeout.
    pub initializer_timeout: Duration,
    /// Pre-freeze's timeout.
    pub pre_freeze_timeout: Duration,
    /// Pre-stop's timeout.
    pub pre_stop_timeout: Duration,
    /// How to make an instance.
    pub blueprint: Arc<Blueprint>,
    /// The function's log.
    pub log: LogWriter,
    /// Receives the readings.
    pub post: Post,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// How long hooks take.
    pub hook_times: HookTimes,
}

impl Terms {
    pub(super) fn timeout(&self, hook: Entry) -> Duration {
        match hook {
            Entry::Initializer => self.initializer_timeout,
            Entry::PreFreeze => self.pre_freeze_timeout,
            Entry::PreStop => self.pre_stop_timeout,
            Entry::Handler => Duration::ZERO, // Each request has its own.
        }
    }
}

/// Figures of one instance that others may read at any time.
#[derive(Debug, Default)]
pub struct Vitals {
    memory_bytes: AtomicU64,
    executed_ns: AtomicU64,
    requests: AtomicU64,
    windows: AtomicU32,
}

impl Vitals {
    /// Linear memory.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Executed time since the instance started.
    pub fn executed(&self) -> Duration {
        Duration::from_nanos(self.executed_ns.load(Ordering::Relaxed))
    }

    /// Requests since the instance started.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Active windows since the instance started.
    pub fn windows(&self) -> u32 {
        self.windows.load(Ordering::Relaxed)
    }

    pub(super) fn set_memory_bytes(&self, bytes: u64) {
        self.memory_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_executed(&self, time: Duration) {
        self.executed_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(super) fn add_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_window(&self) {
        self.windows.fetch_add(1, Ordering::Relaxed);
    }
}
