//! Sums over window records: what was used, what is charged, and what the other basis would have charged.
//!
//! SQLite adds integers, so the sums are exact whatever their number; only the last step makes milliseconds and CU of
//! them. The control plane and the CLI use these types as they are.

use std::time::{Duration, SystemTime};

use rusqlite::Row;
use serde::{Deserialize, Serialize};

use super::query::{Conditions, QueryError};
use super::{Ledger, time};
use crate::ids::{FunctionName, InstanceId};
use crate::meter::{self, compute_units};

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
        let conditions = Conditions::new(query.function.as_ref(), query.from, query.to);
        let mut statement = reader.prepare(&sql(query.group, conditions.sql()))?;
        let mut rows = statement.query(conditions.values())?;
        let mut total = Exact::default();
        let mut groups = Vec::new();
        while let Some(row) = rows.next()? {
            let exact = Exact::read(row)?;
            total.add(&exact);
            let Some(key) = key(query.group, row)? else { continue };
            if groups.len() == GROUPS_MAX {
                return Err(QueryError::TooManyGroups);
            }
            groups.push(UsageGroup { key, sums: exact.sums() });
        }
        Ok(Usage { groups, total: total.sums() })
    }
}

/// The statement whose columns [`key`] and [`Exact::read`] read. Nanoseconds are summed as whole milliseconds and
/// the rest, because the parked time of a few thousand instances would pass 292 years, which is all an integer holds.
fn sql(group: Group, conditions: &str) -> String {
    let key = match group {
        Group::None => "''".to_owned(),
        Group::Function => "function".to_owned(),
        Group::Instance => "instance".to_owned(),
        Group::Hour => format!("start_us - start_us % {HOUR_US}"),
        Group::Day => format!("start_us - start_us % {DAY_US}"),
    };
    let epoch = meter::EPOCH.as_nanos();
    let whole = |column: &str| format!("({column} / {epoch} + ({column} % {epoch} > 0))");
    let (execution, duration) = (whole("executed_ns"), whole("duration_ns"));
    format!(
        "SELECT {key}, count(*), sum(requests), sum(hook_calls), max(memory_bytes_peak),
            sum(executed_ns / 1000000), sum(executed_ns % 1000000),
            sum(duration_ns / 1000000), sum(duration_ns % 1000000),
            sum(open_ns / 1000000), sum(open_ns % 1000000),
            sum(parked_ns / 1000000), sum(parked_ns % 1000000),
            sum({execution}), sum({execution} * memory_mb),
            sum({duration}), sum({duration} * memory_mb),
            sum(iif(by_duration, {duration}, {execution})),
            sum(iif(by_duration, {duration}, {execution}) * memory_mb),
            total(CAST(parked_ns AS REAL) * parked_bytes)
        FROM windows {conditions} GROUP BY 1 ORDER BY 1"
    )
}

fn key(group: Group, row: &Row<'_>) -> rusqlite::Result<Option<String>> {
    Ok(match group {
        Group::None => None,
        Group::Function => Some(row.get(0)?),
        Group::Instance => Some(InstanceId::from_u64(row.get::<_, i64>(0)?.cast_unsigned()).to_string()),
        Group::Hour | Group::Day => Some(time::rfc3339(row.get(0)?)),
    })
}

/// Epochs, and epochs times configured MB.
#[derive(Default)]
struct Charge {
    epochs: u64,
    epoch_mb: u64,
}

impl Charge {
    fn add(&mut self, other: &Charge) {
        self.epochs += other.epochs;
        self.epoch_mb += other.epoch_mb;
    }
}

/// Sums as SQLite made them.
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
    fn read(row: &Row<'_>) -> rusqlite::Result<Exact> {
        let number = |column: usize| -> rusqlite::Result<u64> { Ok(row.get::<_, i64>(column)?.cast_unsigned()) };
        let span = |column| -> rusqlite::Result<Duration> {
            Ok(Duration::from_millis(number(column)?) + Duration::from_nanos(number(column + 1)?))
        };
        let charge = |column| -> rusqlite::Result<Charge> {
            Ok(Charge { epochs: number(column)?, epoch_mb: number(column + 1)? })
        };
        Ok(Exact {
            windows: number(1)?,
            requests: number(2)?,
            hook_calls: number(3)?,
            memory_bytes_peak: number(4)?,
            executed: span(5)?,
            duration: span(7)?,
            open: span(9)?,
            parked: span(11)?,
            by_execution: charge(13)?,
            by_duration: charge(15)?,
            charged: charge(17)?,
            parked_byte_ns: row.get(19)?,
        })
    }

    fn add(&mut self, other: &Exact) {
        self.windows += other.windows;
        self.requests += other.requests;
        self.hook_calls += other.hook_calls;
        self.memory_bytes_peak = self.memory_bytes_peak.max(other.memory_bytes_peak);
        self.executed += other.executed;
        self.duration += other.duration;
        self.open += other.open;
        self.parked += other.parked;
        self.by_execution.add(&other.by_execution);
        self.by_duration.add(&other.by_duration);
        self.charged.add(&other.charged);
        self.parked_byte_ns += other.parked_byte_ns;
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
