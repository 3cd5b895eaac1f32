//! The host's own log, and the metrics that add up readings.
//!
//! A line that is written while a request is answered carries the request's identifier. That is all that a span of
//! `tracing` would do here, and a span costs each request an entry in a registry and a formatted text, lines or no lines.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::io::IsTerminal as _;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::ids::{FunctionName, RequestId};
use crate::meter::{Reading, compute_units};

/// The bounds of histograms in seconds, from a thaw to the longest calls.
pub const SECONDS: [f64; 14] =
    [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// The modules of the host whose levels can be set, and what functions write.
const MODULES: [&str; 24] = [
    "access",
    "admin",
    "catalog",
    "cli",
    "config",
    "console",
    "data",
    "fc",
    "guest",
    "host",
    "instance",
    "invoke",
    "ledger",
    "log",
    "machine",
    "memory",
    "operator",
    "pool",
    "queue",
    "server",
    "telemetry",
    "traces",
    "trigger",
    "web",
];
/// The target of the lines that functions write, which are written at `debug`.
const FUNCTIONS: &str = "functions";
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// What is written into the host's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogLevels(String);

impl LogLevels {
    /// Levels as operators write them: `LEVEL`, and `MODULE=LEVEL` for those that differ, separated by commas.
    pub fn parse(text: &str) -> Result<LogLevels, String> {
        let mut directives = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (module, level) = part.split_once('=').map_or((None, part), |(module, level)| (Some(module), level));
            if !LEVELS.contains(&level) {
                return Err(format!("`log-levels` has the level `{level}`; there are {}", LEVELS.join(", ")));
            }
            directives.push(match module {
                None => level.to_owned(),
                Some(FUNCTIONS) => format!("guest={level}"),
                Some(module) if MODULES.contains(&module) => format!("dormouse::{module}={level}"),
                Some(module) => {
                    return Err(format!(
                        "`log-levels` names `{module}`; there are {FUNCTIONS}, which is what functions write, and {}",
                        MODULES.join(", ")
                    ));
                }
            });
        }
        Ok(LogLevels(directives.join(",")))
    }
}

/// How the host's own log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// An object a line, for programs.
    Json,
}

/// Starts the host's log on standard error. Without levels `RUST_LOG` says what is logged, as in other programs in Rust.
/// Called once, by the command that runs a host.
pub fn init(format: LogFormat, levels: Option<&LogLevels>) {
    let filter = match levels {
        Some(levels) => EnvFilter::new(&levels.0),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, in a test, leaves the first subscriber in place.
    let _ = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .fmt_fields(TextWithRequest(DefaultFields::new()))
            .try_init(),
        LogFormat::Json => builder.json().map_event_format(JsonWithRequest).try_init(),
    };
}

thread_local!(static REQUEST: RefCell<Option<RequestId>> = const { RefCell::new(None) });

pin_project! {
    /// Work on a request; see [`about`].
    pub struct About<W> {
        request: Option<RequestId>,
        #[pin]
        work: W,
    }
}

/// Does `work`. The lines of the host's log that it writes carry the request's identifier.
pub fn about<W: Future>(request: &RequestId, work: W) -> About<W> {
    About { request: Some(request.clone()), work }
}

impl<W: Future> Future for About<W> {
    type Output = W::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<W::Output> {
        /// Puts back what was there, also when the work panics.
        struct Swapped<'a>(&'a mut Option<RequestId>);
        impl Drop for Swapped<'_> {
            fn drop(&mut self) {
                REQUEST.with_borrow_mut(|current| std::mem::swap(current, self.0));
            }
        }
        let this = self.project();
        REQUEST.with_borrow_mut(|current| std::mem::swap(current, this.request));
        let _swapped = Swapped(this.request);
        this.work.poll(cx)
    }
}

/// The request that the line with these fields is about, unless one of the fields names it.
fn request_unnamed_in(fields: impl FnOnce(&mut Names)) -> Option<RequestId> {
    let request = REQUEST.with_borrow(Clone::clone)?;
    let mut names = Names { request: false };
    fields(&mut names);
    (!names.request).then_some(request)
}

struct Names {
    request: bool,
}

impl Visit for Names {
    fn record_debug(&mut self, field: &Field, _: &dyn fmt::Debug) {
        self.request |= field.name() == "request";
    }
}

/// Writes the request behind the fields of a line.
struct TextWithRequest(DefaultFields);

impl<'writer> FormatFields<'writer> for TextWithRequest {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let request = request_unnamed_in(|names| fields.record(names));
        self.0.format_fields(writer.by_ref(), fields)?;
        request.map_or(Ok(()), |request| write!(writer, " request={}", request.as_str()))
    }
}

/// Writes the request as the last member of a line, which is a JSON object.
struct JsonWithRequest<F>(F);

impl<S, N, F> FormatEvent<S, N> for JsonWithRequest<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(request) = request_unnamed_in(|names| event.record(names)) else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let members = line.trim_end().strip_suffix('}').ok_or(fmt::Error)?;
        writeln!(writer, "{members},\"request\":{}}}", serde_json::Value::from(request.as_str()))
    }
}

/// Sums of what ended windows are charged for, by function. They agree with the ledger's sums of the same windows.
pub struct Charges {
    labels: FunctionLabels,
    windows: Family<FunctionLabel, Counter>,
    window_requests: Family<FunctionLabel, Counter>,
    epochs: Family<FunctionLabel, Counter>,
    compute_units: Family<FunctionLabel, Counter<f64, AtomicU64>>,
    executed: Family<FunctionLabel, Counter<f64, AtomicU64>>,
}

/// The function that a figure is about.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FunctionLabel {
    /// Its name, or what stands for those that have no figures of their own.
    pub function: String,
}

/// Which functions have figures of their own, so that a host of very many does not have very many series. Cheap to clone.
#[derive(Clone)]
pub struct FunctionLabels {
    named: Arc<Mutex<HashSet<FunctionName>>>,
    max: usize,
}

/// Stands for all functions beyond the bound; no function can have this name.
const OTHERS: &str = "(others)";

impl FunctionLabels {
    /// So many functions have figures of their own: the first that need some.
    pub fn new(max: usize) -> FunctionLabels {
        FunctionLabels { named: Arc::default(), max }
    }

    /// The label of a function.
    pub fn of(&self, function: &FunctionName) -> FunctionLabel {
        let mut named = self.named.lock().expect("no holder of this lock panics");
        let has_own = named.contains(function) || (named.len() < self.max && named.insert(function.clone()));
        FunctionLabel { function: if has_own { function.as_str() } else { OTHERS }.to_owned() }
    }
}

/// The text format of Prometheus, version 0.0.4, of a text in the format OpenMetrics 1.0. They differ in how counters are
/// described, and in what ends the text.
pub fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let counters: HashSet<&str> =
        open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    for line in open_metrics.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        match line
            .strip_prefix("# ")
            .and_then(|rest| rest.split_once(' '))
            .and_then(|(kind, rest)| Some((kind, rest.split_once(' ')?)))
        {
            Some((kind, (name, rest))) if counters.contains(name) => {
                text.push_str(&format!("# {kind} {name}_total {rest}"))
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

impl Charges {
    /// Makes the counters and names them in `registry`.
    pub fn register(registry: &mut Registry, labels: FunctionLabels) -> Charges {
        let charges = Charges {
            labels,
            windows: Family::default(),
            window_requests: Family::default(),
            epochs: Family::default(),
            compute_units: Family::default(),
            executed: Family::default(),
        };
        registry.register("windows", "Active windows that ended", charges.windows.clone());
        registry.register("window_requests", "Requests in windows that ended", charges.window_requests.clone());
        registry.register("charged_epochs", "Charged epochs of 1 ms", charges.epochs.clone());
        registry.register("charged_cu", "Charged CU: seconds at 1 GB", charges.compute_units.clone());
        registry.register("executed_seconds", "Executed time", charges.executed.clone());
        charges
    }

    /// The counters of one function. Looking them up for each window would cost an allocation each.
    pub fn of(&self, function: &FunctionName) -> FunctionCharges {
        let label = self.labels.of(function);
        FunctionCharges {
            windows: self.windows.get_or_create(&label).clone(),
            window_requests: self.window_requests.get_or_create(&label).clone(),
            epochs: self.epochs.get_or_create(&label).clone(),
            compute_units: self.compute_units.get_or_create(&label).clone(),
            executed: self.executed.get_or_create(&label).clone(),
        }
    }
}

/// What is counted of asynchronous invocations.
pub struct WorkMetrics {
    attempts: Family<CodeLabel, Counter>,
    waiting: Gauge,
    running: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabel {
    code: String,
}

impl WorkMetrics {
    /// Makes the counters and names them in `registry`.
    pub fn register(registry: &mut Registry) -> WorkMetrics {
        let work = WorkMetrics { attempts: Family::default(), waiting: Gauge::default(), running: Gauge::default() };
        let help = "Attempts at asynchronous invocations, by `ok` or the code of the problem";
        // There from the start, so that a rate can be told of the first.
        drop(work.attempts.get_or_create(&CodeLabel { code: "ok".to_owned() }));
        registry.register("queue_attempts", help, work.attempts.clone());
        registry.register("queue_waiting", "Asynchronous invocations that wait for an attempt", work.waiting.clone());
        registry.register("queue_running", "Asynchronous invocations that run", work.running.clone());
        work
    }

    /// Counts an attempt that ended.
    pub fn attempted(&self, code: &str) {
        self.attempts.get_or_create(&CodeLabel { code: code.to_owned() }).inc();
    }

    /// Notes how many invocations wait and run now.
    pub fn measure(&self, waiting: u64, running: u64) {
        self.waiting.set(waiting.cast_signed());
        self.running.set(running.cast_signed());
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

#[cfg(test)]
mod tests {
    use std::io;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[test]
    fn levels_are_set_by_module() {
        let parsed = |text: &str| LogLevels::parse(text).map(|levels| levels.0);
        assert_eq!(parsed("warn, pool=debug,functions=off").unwrap(), "warn,dormouse::pool=debug,guest=off");
        assert!(parsed("loud").unwrap_err().contains("`loud`; there are error, warn"));
        assert!(
            parsed("pools=info").unwrap_err().contains("`pools`") && parsed("").is_err() && parsed("info,").is_err()
        );
        let modules =
            include_str!("lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        let modules: HashSet<&str> = modules.collect();
        assert!(MODULES.iter().all(|module| modules.contains(module)), "a module that there is not");
    }

    #[test]
    fn functions_beyond_the_bound_have_their_figures_together() {
        let labels = FunctionLabels::new(2);
        let of = |name: &str| labels.of(&name.parse().unwrap()).function;
        assert_eq!([of("a"), of("b"), of("c"), of("a"), of("d")], ["a", "b", "(others)", "a", "(others)"]);
    }

    #[test]
    fn the_text_for_prometheus_describes_counters_by_their_whole_names() {
        let open = "# HELP x_requests Requests.\n# TYPE x_requests counter\nx_requests_total{a=\"b\"} 1\n# HELP x_time_seconds Times.\n\
                    # TYPE x_time_seconds histogram\n# UNIT x_time_seconds seconds\nx_time_seconds_sum 0.5\n# EOF\n";
        let expected = "# HELP x_requests_total Requests.\n# TYPE x_requests_total counter\nx_requests_total{a=\"b\"} 1\n\
                        # HELP x_time_seconds Times.\n# TYPE x_time_seconds histogram\nx_time_seconds_sum 0.5\n";
        assert_eq!(prometheus_text(open), expected);
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Written;

        fn make_writer(&self) -> Written {
            self.clone()
        }
    }

    /// The lines that are written outside of a request, in one, and in one while a field names another.
    async fn lines(subscriber: impl Subscriber + Send + Sync, written: Written) -> Vec<String> {
        let _default = tracing::subscriber::set_default(subscriber);
        let request = RequestId::from_caller("a-b").unwrap();
        tracing::warn!("before");
        about(&request, async {
            tracing::warn!(count = 1, "in");
            tokio::task::yield_now().await;
            tracing::warn!(request = "other", "of another");
        })
        .await;
        tracing::warn!("after");
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn a_line_of_text_names_the_request_that_it_is_about() {
        let written = Written::default();
        let builder = tracing_subscriber::fmt().with_ansi(false).with_writer(written.clone());
        let lines = lines(builder.fmt_fields(TextWithRequest(DefaultFields::new())).finish(), written).await;
        let names = |line: &str| line.matches("request=").count();
        assert_eq!(lines.iter().map(|line| names(line)).collect::<Vec<_>>(), [0, 1, 1, 0], "{lines:?}");
        assert!(lines[1].ends_with("in count=1 request=a-b") && lines[2].ends_with("request=\"other\""), "{lines:?}");
    }

    #[tokio::test]
    async fn a_line_of_json_names_the_request_that_it_is_about() {
        let written = Written::default();
        let builder = tracing_subscriber::fmt().json().with_writer(written.clone());
        let lines = lines(builder.map_event_format(JsonWithRequest).finish(), written).await;
        let lines: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let requests: Vec<_> = lines.iter().map(|line| line["request"].as_str()).collect();
        assert_eq!(requests, [None, Some("a-b"), None, None], "{lines:?}");
        assert_eq!((&lines[1]["fields"]["count"], &lines[2]["fields"]["request"]), (&1.into(), &"other".into()));
    }
}
