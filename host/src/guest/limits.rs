//! What one guest may hold: memory, tables, instances, handles and output.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use async_trait::async_trait;
use wasmtime::ResourceLimiterAsync;

use super::ending::MemoryLack;
use crate::memory::Governor;

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
    refused: AtomicU8,
}

impl Gauge {
    /// What the guest's memory lacked when growth was refused last; none if it has carried on without it.
    pub(super) fn memory_lack(&self) -> Option<MemoryLack> {
        match self.refused.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(MemoryLack::OwnLimit),
            _ => Some(MemoryLack::Host),
        }
    }

    pub(super) fn note_lack(&self, lack: Option<MemoryLack>) {
        let code = match lack {
            None => 0,
            Some(MemoryLack::OwnLimit) => 1,
            Some(MemoryLack::Host) => 2,
        };
        self.refused.store(code, Ordering::Relaxed);
    }
}

/// Limits a store. The memory limit is for all linear memories of the component together.
pub(super) struct Limits {
    memory_bytes_max: usize,
    memory_bytes: usize,
    gauge: Arc<Gauge>,
    /// Linear memory of all guests of the host.
    total: Arc<AtomicU64>,
    governor: Governor,
}

impl Limits {
    pub(super) fn new(memory_bytes_max: usize, gauge: Arc<Gauge>, total: Arc<AtomicU64>, governor: Governor) -> Limits {
        Limits { memory_bytes_max, memory_bytes: 0, gauge, total, governor }
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.total.fetch_sub(self.memory_bytes as u64, Ordering::Relaxed);
    }
}

#[async_trait]
impl ResourceLimiterAsync for Limits {
    async fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.memory_bytes - current.min(self.memory_bytes) + desired;
        // The memory that an instance begins with is mostly never touched; whether there is room for the instance was
        // asked before it was made.
        let begins = current == 0;
        let lack = if total > self.memory_bytes_max {
            Some(MemoryLack::OwnLimit)
        } else if !begins && !self.governor.grant((desired - current) as u64, self.memory_bytes as u64).await {
            Some(MemoryLack::Host)
        } else {
            None
        };
        if lack.is_some() {
            // The guest sees that the growth failed, and may carry on. If it traps instead, this is reported as the
            // cause.
            self.gauge.note_lack(lack);
            return Ok(false);
        }
        self.total.fetch_add((total - self.memory_bytes) as u64, Ordering::Relaxed);
        self.memory_bytes = total;
        self.gauge.memory_bytes.store(total as u64, Ordering::Relaxed);
        self.gauge.memory_bytes_peak.fetch_max(total as u64, Ordering::Relaxed);
        Ok(true)
    }

    async fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
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
