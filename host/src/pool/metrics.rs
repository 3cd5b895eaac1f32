//! What pools count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::ids::FunctionName;
use crate::instance::{Ended, Start};
use crate::telemetry::{FunctionLabel, FunctionLabels, SECONDS};

type Times = Family<FunctionLabel, Histogram, fn() -> Histogram>;

/// Counters of all pools of a host.
pub struct Metrics {
    labels: FunctionLabels,
    requests: Family<RequestLabels, Counter>,
    queue: Times,
    start: Times,
    handler: Times,
    executed: Times,
    instances: Family<StateLabel, Gauge>,
    waiting_requests: Gauge,
    memory_bytes: Gauge,
    parked_bytes: Gauge,
}

/// Those of one function. Looking them up for each request would cost an allocation each.
pub(super) struct FunctionMetrics {
    function: String,
    requests: Family<RequestLabels, Counter>,
    /// Requests that went well, by how they found their instance.
    ok: [Counter; 3],
    queue: Histogram,
    start: Histogram,
    handler: Histogram,
    executed: Histogram,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    function: String,
    code: &'static str,
    start: &'static str,
}

impl Metrics {
    /// Makes the counters and names them in `registry`.
    pub fn register(registry: &mut Registry, labels: FunctionLabels) -> Metrics {
        let times = || Times::new_with_constructor(|| Histogram::new(SECONDS));
        let metrics = Metrics {
            labels,
            requests: Family::default(),
            queue: times(),
            start: times(),
            handler: times(),
            executed: times(),
            instances: Family::default(),
            waiting_requests: Gauge::default(),
            memory_bytes: Gauge::default(),
            parked_bytes: Gauge::default(),
        };
        let help = "Requests by function, by `ok` or the code of the problem, and by the state in which they found their instance";
        registry.register("requests", help, metrics.requests.clone());
        for (name, help, times) in [
            ("request_queue", "Waits of requests for an instance", &metrics.queue),
            ("request_start", "Starting or thawing an instance for a request", &metrics.start),
            ("request_handler", "Requests in the handler", &metrics.handler),
            ("request_executed", "Executed time of instances during requests", &metrics.executed),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, times.clone());
        }
        registry.register("instances", "Instances by state", metrics.instances.clone());
        registry.register("waiting_requests", "Requests that wait for an instance", metrics.waiting_requests.clone());
        registry.register("guest_memory_bytes", "Linear memory of all instances", metrics.memory_bytes.clone());
        registry.register("parked_memory_bytes", "Linear memory of parked instances", metrics.parked_bytes.clone());
        metrics
    }

    pub(super) fn measure(
        &self,
        instances: [(&'static str, u32); 6],
        waiting_requests: usize,
        (memory_bytes, parked_bytes): (u64, u64),
    ) {
        self.waiting_requests.set(waiting_requests as i64);
        for (state, count) in instances {
            self.instances.get_or_create(&StateLabel { state }).set(count.into());
        }
        self.memory_bytes.set(memory_bytes.cast_signed());
        self.parked_bytes.set(parked_bytes.cast_signed());
    }

    /// The counters of one function.
    pub(super) fn of(&self, function: &FunctionName) -> FunctionMetrics {
        let label = self.labels.of(function);
        let time = |times: &Times| times.get_or_create(&label).clone();
        let ok = [Start::Cold, Start::Parked, Start::Active].map(|start| {
            let labels = RequestLabels { function: label.function.clone(), code: "ok", start: start.as_str() };
            self.requests.get_or_create(&labels).clone()
        });
        FunctionMetrics {
            requests: self.requests.clone(),
            ok,
            queue: time(&self.queue),
            start: time(&self.start),
            handler: time(&self.handler),
            executed: time(&self.executed),
            function: label.function,
        }
    }
}

impl FunctionMetrics {
    /// Counts a request that has ended.
    pub(super) fn count(&self, Ended { code, start, timings }: Ended) {
        match (code, start) {
            ("ok", Some(start)) => {
                self.ok[start as usize].inc();
            }
            (code, start) => {
                let (function, start) = (self.function.clone(), start.map_or("none", Start::as_str));
                self.requests.get_or_create(&RequestLabels { function, code, start }).inc();
            }
        }
        self.queue.observe(timings.queue.as_secs_f64());
        if start.is_some() {
            self.start.observe(timings.start.as_secs_f64());
            self.handler.observe(timings.handler.as_secs_f64());
            self.executed.observe(timings.executed.as_secs_f64());
        }
    }
}
