//! Sums over window records: what was used, what is charged, and what the other basis would have charged.
//!
//! The sums are integers, so they are exact; only the last step converts them to milliseconds and CU. The control plane
//! and the CLI use these types as they are.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::by_key::ByKey;
use super::exact::Exact;
use super::hours::HOUR_US;
use super::query::{Blocks, GROUPS_MAX, Head, QueryError, Reader, Scope, Visible, Visited};
use super::rows::WindowRow;
use super::time::to_unix_us;
use super::{Ledger, time};
use crate::csv::Row;
use crate::ids::{FunctionName, InstanceId, KeyId};
use crate::meter::{Rest, compute_units};

const BYTES_PER_GB: f64 = (1_u64 << 30) as f64;
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
    /// What to group the sums by, in addition to the total.
    #[param(inline)]
    pub group: Group,
}

/// What sums are grouped by.
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
    /// Each access key. What an instance used is divided among the keys of its requests, in proportion to the time that was
    /// executed for them.
    Key,
}

/// The answer to a [`UsageQuery`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// The groups in the order of their keys; empty if none were asked for.
    pub groups: Vec<UsageGroup>,
    /// The sums over all windows of the query.
    pub total: Sums,
}

/// The sums of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageGroup {
    /// The function's name, the instance's identifier, the start of the hour or day in RFC 3339, or the access key's
    /// identifier, which is `-` for what was used without a key.
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
    /// Time for which the instances were parked before these windows; never charged.
    pub parked_ms: f64,
    /// Charged epochs: each window on its own basis, rounded up separately.
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

impl Row for UsageGroup {
    const COLUMNS: &'static [&'static str] = &[
        "key",
        "requests",
        "hookCalls",
        "windows",
        "executedMs",
        "durationMs",
        "openMs",
        "epochs",
        "cu",
        "executionEpochs",
        "executionCu",
        "durationEpochs",
        "durationCu",
        "memoryBytesPeak",
        "parkedMs",
        "parkedGbSeconds",
    ];
}

impl Usage {
    /// Adds the time for which an instance has been parked until `now`, which no window includes yet: to the sums of its function, of
    /// itself, or of the hour or day that it is. To which access key it will belong is not known yet.
    pub fn add_parked(
        &mut self,
        group: Group,
        (function, instance): (&FunctionName, InstanceId),
        rest: Rest,
        now: SystemTime,
    ) {
        self.total.add_parked(rest.time, rest.bytes);
        let key = match group {
            Group::None | Group::Key => return,
            Group::Instance => GroupKey::Instance(instance),
            Group::Function => GroupKey::Function(function.shared()),
            Group::Hour => GroupKey::at(to_unix_us(now), HOUR_US),
            Group::Day => GroupKey::at(to_unix_us(now), DAY_US),
        };
        let key = key.text();
        let place = match self.groups.binary_search_by(|group| group.key.cmp(&key)) {
            Ok(place) => place,
            Err(place) => {
                self.groups.insert(place, UsageGroup { key, sums: Sums::default() });
                place
            }
        };
        self.groups[place].sums.add_parked(rest.time, rest.bytes);
    }
}

impl Sums {
    /// Adds parked time of an instance that no window includes yet.
    pub(super) fn add_parked(&mut self, parked: Duration, bytes: u64) {
        self.parked_ms += time::to_ms(parked.as_nanos());
        self.parked_gb_seconds += parked.as_secs_f64() * bytes as f64 / BYTES_PER_GB;
    }
}

impl Ledger {
    /// Adds up the windows of `query`, of the functions that are visible. It blocks.
    pub fn usage(&self, query: &UsageQuery, visible: Visible<'_>) -> Result<Usage, QueryError> {
        let scope = Scope::new(query.function.as_ref(), query.from, query.to, visible);
        let reader = self.reader()?;
        match query.group {
            // What an hour is the sum of cannot be told apart again.
            Group::Instance | Group::Key => of_windows(&reader, &scope, query.group),
            Group::None | Group::Function | Group::Hour | Group::Day => of_hours(&reader, &scope, query.group),
        }
    }
}

/// Adds up whole hours, and the windows that are in none.
fn of_hours(reader: &Reader, scope: &Scope<'_>, group: Group) -> Result<Usage, QueryError> {
    let mut sums = Totals::default();
    let mut function = Function::default();
    let begun_us = scope.from_us.rem_euclid(HOUR_US);
    let first_us = if begun_us == 0 { scope.from_us } else { scope.from_us.saturating_add(HOUR_US - begun_us) };
    // For ever is a whole hour's end as well.
    let end_us = if scope.to_us == i64::MAX { i64::MAX } else { scope.to_us - scope.to_us.rem_euclid(HOUR_US) };
    let summed_to = if first_us < end_us { reader.summed_to()? } else { 0 };
    let mut add = |head: &Head<'_>, row: &WindowRow| {
        let mut exact = Exact::default();
        exact.add(row);
        sums.add(GroupKey::of(group, &mut function, head.function, row.start_us), &exact)
    };
    reader.open_windows(scope, &mut add)?;
    if summed_to == 0 {
        reader.ended_windows(scope, Blocks::All, &mut add)?;
    } else {
        reader.ended_windows(scope, Blocks::From(summed_to), &mut add)?;
        for edge in [scope.between(i64::MIN, first_us), scope.between(end_us, i64::MAX)] {
            if edge.from_us < edge.to_us {
                reader.ended_windows(&edge, Blocks::Before(summed_to), &mut add)?;
            }
        }
        reader.hours(&scope.between(first_us, end_us), |name, hour_us, hour| {
            sums.add(GroupKey::of(group, &mut function, name, hour_us), hour)
        })?;
    }
    Ok(sums.usage())
}

/// Adds up windows, each for itself.
fn of_windows(reader: &Reader, scope: &Scope<'_>, group: Group) -> Result<Usage, QueryError> {
    let mut by_key = (group == Group::Key).then(|| ByKey::read(reader, scope)).transpose()?;
    let mut sums = Totals::default();
    reader.windows(scope, |_, row| {
        if let Some(by_key) = &mut by_key {
            by_key.add(row)?;
        }
        let mut exact = Exact::default();
        exact.add(row);
        let key = (group == Group::Instance).then_some(GroupKey::Instance(row.instance));
        sums.add(key, &exact)
    })?;
    if let Some(by_key) = by_key {
        sums.groups.extend(by_key.divided().into_iter().map(|(key, exact)| (GroupKey::AccessKey(key), exact)));
    }
    Ok(sums.usage())
}

/// The sums of a query.
#[derive(Default)]
struct Totals {
    total: Exact,
    groups: BTreeMap<GroupKey, Exact>,
}

impl Totals {
    fn add(&mut self, key: Option<GroupKey>, sums: &Exact) -> Visited {
        self.total.add_sums(sums);
        if let Some(key) = key {
            self.groups.entry(key).or_default().add_sums(sums);
            if self.groups.len() > GROUPS_MAX {
                return Err(QueryError::TooManyGroups);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn usage(self) -> Usage {
        let groups = self.groups.into_iter().map(|(key, exact)| UsageGroup { key: key.text(), sums: exact.into() });
        Usage { groups: groups.collect(), total: self.total.into() }
    }
}

/// Identifies a group. Groups are in this order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum GroupKey {
    Function(Arc<str>),
    Instance(InstanceId),
    /// The start of the hour or day.
    Time(i64),
    /// None: what was used without one.
    AccessKey(Option<KeyId>),
}

/// The function of the last window. The next window is likely to be of the same function, so its name is shared.
#[derive(Default)]
struct Function(Arc<str>);

impl Function {
    fn named(&mut self, name: &str) -> Arc<str> {
        if *self.0 != *name {
            self.0 = name.into();
        }
        self.0.clone()
    }
}

impl GroupKey {
    /// The group of what a function used from a time on.
    fn of(group: Group, function: &mut Function, name: &str, start_us: i64) -> Option<GroupKey> {
        match group {
            Group::None | Group::Instance | Group::Key => None,
            Group::Function => Some(GroupKey::Function(function.named(name))),
            Group::Hour => Some(GroupKey::at(start_us, HOUR_US)),
            Group::Day => Some(GroupKey::at(start_us, DAY_US)),
        }
    }

    /// The hour or day that a time is in.
    fn at(time_us: i64, span_us: i64) -> GroupKey {
        GroupKey::Time(time_us - time_us % span_us)
    }

    fn text(&self) -> String {
        match self {
            GroupKey::Function(name) => name.as_ref().to_owned(),
            GroupKey::Instance(instance) => instance.to_string(),
            GroupKey::Time(begin_us) => time::rfc3339(*begin_us),
            GroupKey::AccessKey(key) => key.map_or_else(|| "-".to_owned(), |key| key.to_string()),
        }
    }
}

impl From<Exact> for Sums {
    fn from(exact: Exact) -> Sums {
        Sums {
            requests: exact.requests,
            hook_calls: exact.hook_calls,
            windows: exact.windows,
            executed_ms: time::to_ms(exact.executed_ns),
            duration_ms: time::to_ms(exact.duration_ns),
            open_ms: time::to_ms(exact.open_ns),
            parked_ms: time::to_ms(exact.parked_ns),
            epochs: exact.charged.epochs,
            cu: compute_units(exact.charged.epoch_mb),
            execution_epochs: exact.by_execution.epochs,
            execution_cu: compute_units(exact.by_execution.epoch_mb),
            duration_epochs: exact.by_duration.epochs,
            duration_cu: compute_units(exact.by_duration.epoch_mb),
            memory_bytes_peak: exact.memory_bytes_peak,
            parked_gb_seconds: exact.parked_byte_ns as f64 / 1e9 / BYTES_PER_GB,
        }
    }
}
