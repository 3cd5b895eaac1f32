//! What instances count.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::order::StopReason;
use crate::guest::Entry;
use crate::ids::FunctionName;
use crate::telemetry::FunctionLabels;

/// The reason of an instance that ended itself when it had answered everybody.
pub(super) const EXITED: &str = "exited";

/// The bounds of hooks' histograms: fewer than those of requests, since there are three for each function.
const HOOK_SECONDS: [f64; 7] = [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0];

/// How hooks fail: they say so, their instance crashes, or their time is over.
const HOOK_FAILURES: [&str; 3] = ["failed", "crashed", "timed-out"];

/// Counters of all instances of a host.
pub struct Metrics {
    /// Hooks that were called. Pre-freeze may come with every request, so none is looked up by its label.
    initializer_calls: Counter,
    pre_freeze_calls: Counter,
    pre_stop_calls: Counter,
    /// Hooks that did not return in order, by hook and what happened.
    pub(super) hook_failures: Family<HookFailureLabels, Counter>,
    labels: FunctionLabels,
    hook_times: HookTimesFamily,
    /// Instances that ended without being asked, by what happened.
    pub(super) crashes: Family<CrashLabel, Counter>,
    /// Instances that stopped in order, by reason.
    pub(super) stops: Family<StopLabel, Counter>,
}

type HookTimesFamily = Family<FunctionHookLabels, Histogram, fn() -> Histogram>;

/// How long the hooks of one function take. Looking them up for each call would cost an allocation each, and who scrapes pays
/// for those that are never called.
pub struct HookTimes {
    function: String,
    family: HookTimesFamily,
    hooks: [OnceLock<Histogram>; 3],
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FunctionHookLabels {
    function: String,
    hook: &'static str,
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
    pub fn register(registry: &mut Registry, labels: FunctionLabels) -> Metrics {
        let hook_calls = Family::<HookLabel, Counter>::default();
        registry.register("hook_calls", "Hooks that were called", hook_calls.clone());
        let calls = |hook: Entry| hook_calls.get_or_create(&HookLabel { hook: hook.as_str() }).clone();
        let metrics = Metrics {
            initializer_calls: calls(Entry::Initializer),
            pre_freeze_calls: calls(Entry::PreFreeze),
            pre_stop_calls: calls(Entry::PreStop),
            hook_failures: Family::default(),
            labels,
            hook_times: HookTimesFamily::new_with_constructor(|| Histogram::new(HOOK_SECONDS)),
            crashes: Family::default(),
            stops: Family::default(),
        };
        // What counts from its first increase on is not seen to increase.
        for hook in [Entry::Initializer, Entry::PreFreeze, Entry::PreStop] {
            for failure in HOOK_FAILURES {
                drop(metrics.hook_failures.get_or_create(&HookFailureLabels { hook: hook.as_str(), failure }));
            }
        }
        for reason in StopReason::ALL.map(StopReason::as_str).into_iter().chain([EXITED]) {
            drop(metrics.stops.get_or_create(&StopLabel { reason }));
        }
        registry.register("hook_failures", "Hooks that did not return in order", metrics.hook_failures.clone());
        let help = "Hooks, until they returned or were no longer waited for";
        registry.register_with_unit("hook", help, Unit::Seconds, metrics.hook_times.clone());
        registry.register("instance_crashes", "Instances that ended without pre-stop", metrics.crashes.clone());
        registry.register("instance_stops", "Instances that stopped in order", metrics.stops.clone());
        metrics
    }

    /// Those of a function's hooks.
    pub fn hook_times(&self, function: &FunctionName) -> HookTimes {
        let function = self.labels.of(function).function;
        HookTimes { function, family: self.hook_times.clone(), hooks: Default::default() }
    }

    /// Instances that were stopped to make room for others.
    pub fn evictions(&self) -> u64 {
        self.stops.get_or_create(&StopLabel { reason: StopReason::Evicted.as_str() }).get()
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

impl HookTimes {
    pub(super) fn observe(&self, hook: Entry, time: Duration) {
        let place = match hook {
            Entry::Initializer => 0,
            Entry::PreFreeze => 1,
            Entry::PreStop => 2,
            Entry::Handler => return, // A request, whose times the pool counts.
        };
        let histogram = self.hooks[place].get_or_init(|| {
            let labels = FunctionHookLabels { function: self.function.clone(), hook: hook.as_str() };
            self.family.get_or_create(&labels).clone()
        });
        histogram.observe(time.as_secs_f64());
    }
}
