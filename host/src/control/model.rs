//! The JSON of the admin plane's v1 API: the same types serve the handlers, the OpenAPI document and the CLI.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::catalog::{ExportsView, Settings};

pub use crate::http::problem::Problem;
pub use crate::pool::InstanceCounts;

/// A deployed function: what identifies it, and its whole configuration.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionView {
    /// The function's name.
    pub name: String,
    /// The version these figures are of: `LATEST`.
    pub version: String,
    /// Counts deployments and configuration changes, from 1.
    pub revision: u64,
    /// Lower-case hexadecimal SHA-256 of the component.
    pub sha256: String,
    /// Size of the component.
    pub component_bytes: u64,
    /// What the component exports of the contract.
    pub exports: ExportsView,
    /// Whether an operator suspended it.
    pub suspended: bool,
    /// Instances by state.
    pub instances: InstanceCounts,
    /// When the function was first deployed; RFC 3339, UTC.
    pub created_at: String,
    /// When its code or configuration last changed; RFC 3339, UTC.
    pub updated_at: String,
    /// The configuration.
    #[serde(flatten)]
    pub settings: Settings,
}

/// All functions.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FunctionList {
    /// Sorted by name.
    pub functions: Vec<FunctionView>,
}

/// One instance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceView {
    /// `i-` and 16 hexadecimal digits.
    pub id: String,
    /// The function.
    pub function: String,
    /// The version that runs.
    pub version: String,
    /// `starting`, `initializing`, `active`, `freezing`, `parked`, `suspended`, `stopping` or `stopped`.
    pub state: String,
    /// Counts the instance's changes of state.
    pub generation: u64,
    /// Since when it is in that state; RFC 3339, UTC.
    pub since: String,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests since the instance started.
    pub requests: u64,
    /// Active windows since the instance started.
    pub windows: u32,
    /// Linear memory now.
    pub memory_bytes: u64,
    /// Executed time since the instance started, in ms.
    pub executed_ms: f64,
}

/// A function's instances.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InstanceList {
    /// Oldest first.
    pub instances: Vec<InstanceView>,
}

/// A line of a function's log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// When it was written; RFC 3339, UTC.
    pub time: String,
    /// Counts the function's lines; a gap means that lines were dropped.
    pub sequence: u64,
    /// `stdout`, `stderr`, or `host` for what the host has to say about the instance.
    pub stream: String,
    /// The function.
    pub function: String,
    /// The version that the instance runs.
    pub version: String,
    /// The instance.
    pub instance: String,
    /// The request, or the call of a hook, whose task wrote the line, even if it was answered before. Absent for what
    /// belongs to none, such as what a component writes while it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// That the line belongs to one of several requests, and that the engine cannot tell to which; else absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub request_unknown: bool,
    /// The line, without its end.
    pub text: String,
}

/// The newest lines of a function's log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogLines {
    /// Oldest first.
    pub lines: Vec<LogLine>,
}
