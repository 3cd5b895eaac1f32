//! Sums over window records: what was used, what is charged, and what the other basis would have charged.
//!
//! Integers are added, so the sums are exact whatever their number; only the last step makes milliseconds and CU of
//! them. The control plane and the CLI use these types as they are.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::query::{Filter, Next, QueryError, read_blocks, read_open_windows};
use super::record::{Window, Windows};
use super::{Ledger, time};
use crate::ids::{FunctionName, InstanceId};
use crate::meter::{compute_units, epochs};

/// Groups that one answer may have.
pub(super) const GROUPS_MAX: usize = 100_000;

const BYTES_PER_GB: f64 = (1_u64 << 30) as f64;
const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// Which windows to add up, and how. A window belongs to the time in which it starts.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// Only this function.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    #[param(value_type = Option<String>)]
    pub function: Option<FunctionName>,
    /// Only windows that started at this time or later; RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none", with = "time")]
    #[schema(value_type = Option<String>, format = DateTime)]
    #[param(value_type = Option<String>, format = DateTime)]
    pub from: Option<SystemTime>,
    /// Only windows that started before this time; RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none", with = "time")]
    #[schema(value_type = Option<String>, format = DateTime)]
    #[param(value_type = Option<String>, format = DateTime)]
    pub to: Option<SystemTime>,
    /// What to have sums for beside the total.
    #[param(inline)]
    pub group: Group,
}

/// What sums are made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The total only.
    #[default]
    None,
    /// Each function.
    Function,
    /// Each instance.
    Instance,
    /// Each hour, in UTC.
    Hour,
    /// Each day, in UTC.
    Day,
}

/// The answer to a [`UsageQuery`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// The groups in order of their keys; none if none were asked for.
    pub groups: Vec<UsageGroup>,
    /// The sums over all windows of the query.
    pub total: Sums,
}

/// The sums of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageGroup {
    /// The function's name, the instance's identifier, or the start of the hour or day in RFC 3339.
    pub key: String,
    /// The sums.
    #[serde(flatten)]
    pub sums: Sums,
}

/// What a set of windows used. Times are in ms and exact to the nanosecond.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sums {
    /// Requests that started.
    pub requests: u64,
    /// Hooks that were called.
    pub hook_calls: u64,
    /// Active windows.
    pub windows: u64,
    /// Time in which the host polled the instances.
    pub executed_ms: f64,
    /// Time in which a request or a hook was under way.
    pub duration_ms: f64,
    /// Time in which the windows were open.
    pub open_ms: f64,
    /// Time for which the instances had been parked before their windows; never charged.
    pub parked_ms: f64,
    /// Charged epochs: each window on its own basis, rounded up by itself.
    pub epochs: u64,
    /// Charged CU.
    pub cu: f64,
    /// The epochs if every window were charged by execution.
    pub execution_epochs: u64,
    /// The CU if every window were charged by execution.
    pub execution_cu: f64,
    /// The epochs if every window were charged by duration.
    pub duration_epochs: u64,
    /// The CU if every window were charged by duration.
    pub duration_cu: f64,
    /// The most linear memory that one instance had.
    pub memory_bytes_peak: u64,
    /// Memory held while parked, in GB (2^30 bytes) times seconds; never charged.
    pub parked_gb_seconds: f64,
}

impl Sums {
    /// Adds time for which an instance has been parked and no window tells of yet.
    pub fn add_parked(&mut self, parked: Duration, bytes: u64) {
        self.parked_ms += time::to_ms(parked);
        self.parked_gb_seconds += parked.as_secs_f64() * bytes as f64 / BYTES_PER_GB;
    }
}

impl Ledger {
    /// Adds up the windows of `query`. It blocks.
    pub fn usage(&self, query: &UsageQuery) -> Result<Usage, QueryError> {
        let reader = self.reader()?;
        let filter = Filter::new(query.function.as_ref(), query.from, query.to);
        let (mut total, mut groups) = (Exact::default(), BTreeMap::new());
        let mut add = |window: Window<'_>| {
            total.add(&window);
            let Some(key) = Key::of(query.group, &window) else { return Ok(()) };
            if groups.len() == GROUPS_MAX && !groups.contains_key(&key) {
                return Err(QueryError::TooManyGroups);
            }
            groups.entry(key).or_insert_with(Exact::default).add(&window);
            Ok(())
        };
        read_open_windows(&reader, filter, &mut add)?;
        read_blocks::<Windows>(&reader, filter, |_| Next::Block, |_, window| add(window))?;
        let groups = groups.into_iter().map(|(key, exact)| UsageGroup { key: key.text(), sums: exact.sums() });
        Ok(Usage { groups: groups.collect(), total: total.sums() })
    }
}

/// What a group has in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Function(String),
    Instance(InstanceId),
    /// The start of an hour or a day.
    Time(i64),
}

impl Key {
    fn of(group: Group, window: &Window<'_>) -> Option<Key> {
        let start_of = |span_us| Key::Time(window.start_us - window.start_us.rem_euclid(span_us));
        match group {
            Group::None => None,
            Group::Function => Some(Key::Function(window.function.to_owned())),
            Group::Instance => Some(Key::Instance(InstanceId::from_u64(window.instance))),
            Group::Hour => Some(start_of(HOUR_US)),
            Group::Day => Some(start_of(DAY_US)),
        }
    }

    fn text(self) -> String {
        match self {
            Key::Function(function) => function,
            Key::Instance(instance) => instance.to_string(),
            Key::Time(start_us) => time::rfc3339(start_us),
        }
    }
}

/// Epochs, and epochs times configured MB.
#[derive(Default)]
struct Charge {
    epochs: u64,
    epoch_mb: u64,
}

impl Charge {
    fn add(&mut self, epochs: u64, memory_mb: u32) {
        self.epochs += epochs;
        self.epoch_mb += epochs * u64::from(memory_mb);
    }
}

/// Sums without rounding.
#[derive(Default)]
struct Exact {
    windows: u64,
    requests: u64,
    hook_calls: u64,
    memory_bytes_peak: u64,
    executed: Duration,
    duration: Duration,
    open: Duration,
    parked: Duration,
    by_execution: Charge,
    by_duration: Charge,
    charged: Charge,
    parked_byte_ns: f64,
}

impl Exact {
    fn add(&mut self, window: &Window<'_>) {
        let (executed, duration) = (Duration::from_nanos(window.executed_ns), Duration::from_nanos(window.duration_ns));
        let (execution_epochs, duration_epochs) = (epochs(executed), epochs(duration));
        let charged = if window.by_duration { duration_epochs } else { execution_epochs };
        self.windows += 1;
        self.requests += u64::from(window.requests);
        self.hook_calls += u64::from(window.hook_calls);
        self.memory_bytes_peak = self.memory_bytes_peak.max(window.memory_bytes_peak);
        self.executed += executed;
        self.duration += duration;
        self.open += Duration::from_nanos(window.open_ns);
        self.parked += Duration::from_nanos(window.parked_ns);
        self.by_execution.add(execution_epochs, window.memory_mb);
        self.by_duration.add(duration_epochs, window.memory_mb);
        self.charged.add(charged, window.memory_mb);
        self.parked_byte_ns += window.parked_ns as f64 * window.parked_bytes as f64;
    }

    fn sums(&self) -> Sums {
        Sums {
            requests: self.requests,
            hook_calls: self.hook_calls,
            windows: self.windows,
            executed_ms: time::to_ms(self.executed),
            duration_ms: time::to_ms(self.duration),
            open_ms: time::to_ms(self.open),
            parked_ms: time::to_ms(self.parked),
            epochs: self.charged.epochs,
            cu: compute_units(self.charged.epoch_mb),
            execution_epochs: self.by_execution.epochs,
            execution_cu: compute_units(self.by_execution.epoch_mb),
            duration_epochs: self.by_duration.epochs,
            duration_cu: compute_units(self.by_duration.epoch_mb),
            memory_bytes_peak: self.memory_bytes_peak,
            parked_gb_seconds: self.parked_byte_ns / 1e9 / BYTES_PER_GB,
        }
    }
}
