//! What pools count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::ids::FunctionName;

/// Counters of all pools of a host.
#[derive(Default)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    instances: Family<StateLabel, Gauge>,
    waiting_requests: Gauge,
    memory_bytes: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    function: String,
    code: &'static str,
}

impl Metrics {
    /// Makes the counters and names them in `registry`.
    pub fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics::default();
        let help = "Requests by function and by `ok` or the code of the problem";
        registry.register("requests", help, metrics.requests.clone());
        registry.register("instances", "Instances by state", metrics.instances.clone());
        registry.register("waiting_requests", "Requests that wait for an instance", metrics.waiting_requests.clone());
        registry.register("guest_memory_bytes", "Linear memory of all instances", metrics.memory_bytes.clone());
        metrics
    }

    pub(super) fn measure(&self, instances: [(&'static str, u32); 6], waiting_requests: usize, memory_bytes: u64) {
        self.waiting_requests.set(waiting_requests as i64);
        for (state, count) in instances {
            self.instances.get_or_create(&StateLabel { state }).set(count.into());
        }
        self.memory_bytes.set(memory_bytes.cast_signed());
    }

    pub(super) fn counter(&self, function: &FunctionName, code: &'static str) -> Counter {
        let labels = RequestLabels { function: function.as_str().to_owned(), code };
        self.requests.get_or_create(&labels).clone()
    }
}
