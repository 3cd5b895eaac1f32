//! What one guest may hold: memory, tables, instances, handles and output.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

/// Elements of all tables; language runtimes need a few thousand.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Core instances, memories and tables of one component; toolchains make about a dozen.
const INSTANCES_MAX: usize = 64;
const TABLES_MAX: usize = 64;
const MEMORIES_MAX: usize = 8;
/// Handles that a guest may hold in the engine's tables.
pub(super) const HANDLES_MAX: usize = 10_000;
/// Host resources that a guest may hold: streams, pollables, HTTP fields.
pub(super) const RESOURCES_MAX: usize = 10_000;
/// Bytes that one call may move between guest and host: the largest event or reply, and some room for its other data.
pub(super) const HOSTCALL_BYTES_MAX: usize = 40 << 20;
/// Bytes that one request for random numbers may ask for.
pub(super) const RANDOM_BYTES_MAX: u64 = 1 << 20;

/// Figures of a guest that others may read while it runs or is parked.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    pub(super) memory_bytes: AtomicU64,
    pub(super) memory_bytes_peak: AtomicU64,
    /// Set when memory growth was refused; cleared if the guest carries on without it.
    pub(super) memory_refused: AtomicBool,
}

/// Limits a store. The memory limit is for all linear memories of the component together.
pub(super) struct Limits {
    memory_bytes_max: usize,
    memory_bytes: usize,
    gauge: Arc<Gauge>,
    /// Linear memory of all guests of the host.
    total: Arc<AtomicU64>,
}

impl Limits {
    pub(super) fn new(memory_bytes_max: usize, gauge: Arc<Gauge>, total: Arc<AtomicU64>) -> Limits {
        Limits { memory_bytes_max, memory_bytes: 0, gauge, total }
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.total.fetch_sub(self.memory_bytes as u64, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes - current.min(self.memory_bytes) + desired;
        if total > self.memory_bytes_max {
            // The guest sees that the growth failed, and may carry on. If it traps instead, this is reported as the
            // cause.
            self.gauge.memory_refused.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        self.total.fetch_add((total - self.memory_bytes) as u64, Ordering::Relaxed);
        self.memory_bytes = total;
        self.gauge.memory_bytes.store(total as u64, Ordering::Relaxed);
        self.gauge.memory_bytes_peak.fetch_max(total as u64, Ordering::Relaxed);
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}
