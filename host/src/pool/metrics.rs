//! What pools count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::ids::FunctionName;

/// Counters of all pools of a host.
#[derive(Default)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
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
        metrics
    }

    pub(super) fn counter(&self, function: &FunctionName, code: &'static str) -> Counter {
        let labels = RequestLabels { function: function.as_str().to_owned(), code };
        self.requests.get_or_create(&labels).clone()
    }
}
