//! What instances count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::guest::Entry;

/// Counters of all instances of a host.
pub struct Metrics {
    /// Hooks that were called. Pre-freeze may come with every request, so none is looked up by its label.
    initializer_calls: Counter,
    pre_freeze_calls: Counter,
    pre_stop_calls: Counter,
    /// Hooks that did not return in order, by hook and what happened.
    pub(super) hook_failures: Family<HookFailureLabels, Counter>,
    /// Instances that ended without being asked, by what happened.
    pub(super) crashes: Family<CrashLabel, Counter>,
    /// Instances that stopped in order, by reason.
    pub(super) stops: Family<StopLabel, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HookLabel {
    hook: &'static str,
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
        let hook_calls = Family::<HookLabel, Counter>::default();
        registry.register("hook_calls", "Hooks that were called", hook_calls.clone());
        let calls = |hook: Entry| hook_calls.get_or_create(&HookLabel { hook: hook.as_str() }).clone();
        let metrics = Metrics {
            initializer_calls: calls(Entry::Initializer),
            pre_freeze_calls: calls(Entry::PreFreeze),
            pre_stop_calls: calls(Entry::PreStop),
            hook_failures: Family::default(),
            crashes: Family::default(),
            stops: Family::default(),
        };
        registry.register("hook_failures", "Hooks that did not return in order", metrics.hook_failures.clone());
        registry.register("instance_crashes", "Instances that ended without pre-stop", metrics.crashes.clone());
        registry.register("instance_stops", "Instances that stopped in order", metrics.stops.clone());
        metrics
    }

    /// Pre-stop hooks that ran so far.
    pub fn pre_stops(&self) -> u64 {
        self.pre_stop_calls.get()
    }

    pub(super) fn hook_called(&self, hook: Entry) {
        match hook {
            Entry::Initializer => self.initializer_calls.inc(),
            Entry::PreFreeze => self.pre_freeze_calls.inc(),
            Entry::PreStop => self.pre_stop_calls.inc(),
            Entry::Handler => 0, // A request, counted as such by the pool.
        };
    }
}
