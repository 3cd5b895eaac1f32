//! What instances count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counters of all instances of a host.
#[derive(Default)]
pub struct Metrics {
    /// Hooks that were called, by hook.
    pub(super) hook_calls: Family<HookLabel, Counter>,
    /// Hooks that did not return in order, by hook and what happened.
    pub(super) hook_failures: Family<HookFailureLabels, Counter>,
    /// Instances that ended without being asked, by what happened.
    pub(super) crashes: Family<CrashLabel, Counter>,
    /// Instances that stopped in order, by reason.
    pub(super) stops: Family<StopLabel, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct HookLabel {
    pub(super) hook: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct HookFailureLabels {
    pub(super) hook: &'static str,
    pub(super) failure: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct CrashLabel {
    pub(super) trap: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct StopLabel {
    pub(super) reason: &'static str,
}

impl Metrics {
    /// Makes the counters and names them in `registry`.
    pub fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        registry.register("hook_calls", "Hooks that were called", metrics.hook_calls.clone());
        registry.register("hook_failures", "Hooks that did not return in order", metrics.hook_failures.clone());
        registry.register("instance_crashes", "Instances that ended without pre-stop", metrics.crashes.clone());
        registry.register("instance_stops", "Instances that stopped in order", metrics.stops.clone());
        metrics
    }

    /// Pre-stop hooks that ran so far.
    pub fn pre_stops(&self) -> u64 {
        self.hook_calls.get_or_create(&HookLabel { hook: "pre-stop" }).get()
    }
}
