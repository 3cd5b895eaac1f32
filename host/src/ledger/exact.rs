//! Sums over windows in integers, so that they are exact.

use super::rows::WindowRow;
use crate::meter::Basis;

/// Epochs, and epochs times configured MB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) epochs: u64,
    pub(super) epoch_mb: u64,
}

impl Charge {
    fn add(&mut self, epochs: u64, memory_mb: u32) {
        self.epochs += epochs;
        self.epoch_mb += epochs * u64::from(memory_mb);
    }
}

/// Exact sums over windows. 64 bits hold only 584 years in nanoseconds, which the parked time of a few thousand
/// instances exceeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exact {
    pub(super) windows: u64,
    pub(super) requests: u64,
    pub(super) hook_calls: u64,
    pub(super) memory_bytes_peak: u64,
    pub(super) executed_ns: u128,
    pub(super) duration_ns: u128,
    pub(super) open_ns: u128,
    pub(super) parked_ns: u128,
    pub(super) by_execution: Charge,
    pub(super) by_duration: Charge,
    pub(super) charged: Charge,
    pub(super) parked_byte_ns: u128,
}

impl Exact {
    pub(super) fn add(&mut self, row: &WindowRow) {
        self.windows += 1;
        self.requests += u64::from(row.requests);
        self.hook_calls += u64::from(row.hook_calls);
        self.memory_bytes_peak = self.memory_bytes_peak.max(row.memory_bytes_peak);
        self.executed_ns += u128::from(row.executed_ns);
        self.duration_ns += u128::from(row.duration_ns);
        self.open_ns += u128::from(row.open_ns);
        self.parked_ns += u128::from(row.parked_ns);
        self.by_execution.add(row.epochs_by(Basis::Execution), row.memory_mb);
        self.by_duration.add(row.epochs_by(Basis::Duration), row.memory_mb);
        self.charged.add(row.epochs(), row.memory_mb);
        let byte_ns = u128::from(row.parked_ns) * u128::from(row.parked_bytes);
        self.parked_byte_ns = self.parked_byte_ns.saturating_add(byte_ns);
    }

    /// Adds what others used.
    pub(super) fn add_sums(&mut self, other: &Exact) {
        let add = |charge: &mut Charge, other: Charge| {
            charge.epochs += other.epochs;
            charge.epoch_mb += other.epoch_mb;
        };
        self.windows += other.windows;
        self.requests += other.requests;
        self.hook_calls += other.hook_calls;
        self.memory_bytes_peak = self.memory_bytes_peak.max(other.memory_bytes_peak);
        self.executed_ns += other.executed_ns;
        self.duration_ns += other.duration_ns;
        self.open_ns += other.open_ns;
        self.parked_ns += other.parked_ns;
        add(&mut self.by_execution, other.by_execution);
        add(&mut self.by_duration, other.by_duration);
        add(&mut self.charged, other.charged);
        self.parked_byte_ns = self.parked_byte_ns.saturating_add(other.parked_byte_ns);
    }
}
