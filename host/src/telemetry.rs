//! The host's own log, and the metrics that add up readings.

use std::io::IsTerminal as _;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
use crate::ids::FunctionName;
use crate::meter::{Reading, compute_units};

/// Starts the host's log on standard error. `RUST_LOG` says what is logged; guests' lines are target `guest`, at debug.
/// Called once, by the command that runs a host.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, in a test, leaves the first subscriber in place.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// Sums of what ended windows are charged for, by function. They agree with the ledger's sums of the same windows.
#[derive(Default)]
pub struct Charges {
    windows: Family<FunctionLabel, Counter>,
    window_requests: Family<FunctionLabel, Counter>,
    epochs: Family<FunctionLabel, Counter>,
    compute_units: Family<FunctionLabel, Counter<f64, AtomicU64>>,
    executed: Family<FunctionLabel, Counter<f64, AtomicU64>>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FunctionLabel {
    function: String,
}

impl Charges {
    /// Makes the counters and names them in `registry`.
    pub fn register(registry: &mut Registry) -> Charges {
        let charges = Charges::default();
        registry.register("windows", "Active windows that ended", charges.windows.clone());
        registry.register("window_requests", "Requests in windows that ended", charges.window_requests.clone());
        registry.register("charged_epochs", "Charged epochs of 1 ms", charges.epochs.clone());
        registry.register("charged_cu", "Charged CU: seconds at 1 GB", charges.compute_units.clone());
        registry.register("executed_seconds", "Executed time", charges.executed.clone());
        charges
    }

    /// The counters of one function. Looking them up for each window would cost an allocation each.
    pub fn of(&self, function: &FunctionName) -> FunctionCharges {
        let label = FunctionLabel { function: function.as_str().to_owned() };
        FunctionCharges {
            windows: self.windows.get_or_create(&label).clone(),
            window_requests: self.window_requests.get_or_create(&label).clone(),
            epochs: self.epochs.get_or_create(&label).clone(),
            compute_units: self.compute_units.get_or_create(&label).clone(),
            executed: self.executed.get_or_create(&label).clone(),
        }
    }
}

/// What one function is charged for.
pub struct FunctionCharges {
    windows: Counter,
    window_requests: Counter,
    epochs: Counter,
    compute_units: Counter<f64, AtomicU64>,
    executed: Counter<f64, AtomicU64>,
}

impl FunctionCharges {
    /// Counts a window that ended.
    pub fn count(&self, reading: Reading<'_>) {
        let Reading::Window(window) = reading else { return };
        if !window.ended {
            return;
        }
        let epochs = window.epochs();
        self.windows.inc();
        self.window_requests.inc_by(window.requests.into());
        self.epochs.inc_by(epochs);
        self.compute_units.inc_by(compute_units(epochs * u64::from(window.memory_mb)));
        self.executed.inc_by(window.executed.as_secs_f64());
    }
}
