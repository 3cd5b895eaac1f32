//! The JSON of the admin plane's v1 API: the same types serve the handlers, the OpenAPI document and the CLI.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::catalog::{ExportsView, SettingsSpec};
use crate::ids::RevisionId;

mod access;
mod invocations;
mod invoke;
mod triggers;

pub use access::{AuditEntry, AuditList, CreateKeyRequest, KeyList, KeyView, KeyWithSecret, RotateKeyRequest};

pub use invocations::{
    AsyncInvocationList, AsyncInvocationView, ReplayRequest, ReplayView, ReplayedView, StopView, WebhookSecretView,
    WholeAsyncInvocation,
};

pub use invoke::{InvokeRequest, InvokeView};

pub use triggers::{FiredView, TriggerList, TriggerRun, TriggerView};

pub use crate::pool::InstanceCounts;
pub use crate::web::problem::Problem;

/// A deployed function: what identifies it, and its whole configuration.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionView {
    /// The function's name.
    pub name: String,
    /// The version these figures are of: `LATEST`.
    pub version: String,
    /// The revision that `LATEST` names: a number that this host gives to one revision only.
    #[schema(value_type = u64)]
    pub revision: RevisionId,
    /// Lower-case hexadecimal SHA-256 of the component.
    pub sha256: String,
    /// Size of the component.
    pub component_bytes: u64,
    /// What the component exports of the contract.
    pub exports: ExportsView,
    /// Whether an operator suspended it.
    pub suspended: bool,
    /// Why an operator disabled it; absent if it is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<String>,
    /// Why instances of `LATEST` cannot be started, if the last try failed; absent if all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Whether anybody may call it, without an access key: its `auth`, or the host's default, is `none`.
    #[serde(default)]
    pub open: bool,
    /// The version that `LATEST` was published as; absent if it changed since the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<String>,
    /// How many versions there are.
    #[serde(default)]
    pub versions: usize,
    /// How many aliases there are.
    #[serde(default)]
    pub aliases: usize,
    /// Instances by state, of all versions.
    pub instances: InstanceCounts,
    /// When the function was first deployed; RFC 3339, UTC.
    pub created_at: String,
    /// When its code or configuration last changed; RFC 3339, UTC.
    pub updated_at: String,
    /// The configuration.
    #[serde(flatten)]
    pub settings: SettingsSpec,
}

/// All functions.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FunctionList {
    /// Sorted by name.
    pub functions: Vec<FunctionView>,
}

/// Why a function is disabled.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisableRequest {
    /// What callers are told; at most 1024 bytes.
    #[serde(default)]
    pub reason: String,
}

/// What to publish `LATEST` with.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PublishRequest {
    /// For people; at most 1024 bytes.
    #[serde(default)]
    pub description: String,
}

/// A published version: a revision that never changes, under a number.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionView {
    /// The function.
    pub function: String,
    /// `1`, `2`, `3` and so on; a number is never used again.
    pub version: String,
    /// The revision.
    #[schema(value_type = u64)]
    pub revision: RevisionId,
    /// For people.
    pub description: String,
    /// Lower-case hexadecimal SHA-256 of the component.
    pub sha256: String,
    /// Size of the component.
    pub component_bytes: u64,
    /// What the component exports of the contract.
    pub exports: ExportsView,
    /// The aliases that name it, in their order.
    pub aliases: Vec<String>,
    /// Why its instances cannot be started, if the last try failed; absent if all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// When it was published; RFC 3339, UTC.
    pub created_at: String,
    /// The settings it was published with.
    pub settings: SettingsSpec,
}

/// The versions of a function.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VersionList {
    /// The newest first.
    pub versions: Vec<VersionView>,
}

/// What an alias shall name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AliasRequest {
    /// The version; may be left out for an alias that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Shares of the requests that other versions get, each 0 to 1; the rest goes to `version`. At most 16.
    #[serde(default)]
    pub weights: BTreeMap<String, f64>,
    /// For people; at most 1024 bytes. Left out: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// An alias: a name for a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AliasView {
    /// The function.
    pub function: String,
    /// The alias.
    pub alias: String,
    /// The version that gets what the weights leave.
    pub version: String,
    /// Shares of the requests that other versions get.
    pub weights: BTreeMap<String, f64>,
    /// The versions that it named before, the latest last: `rollback` goes back through them.
    pub earlier: Vec<String>,
    /// For people.
    pub description: String,
    /// When it was made; RFC 3339, UTC.
    pub created_at: String,
    /// When it last changed; RFC 3339, UTC.
    pub updated_at: String,
}

/// The aliases of a function.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AliasList {
    /// In the order of their names.
    pub aliases: Vec<AliasView>,
}

/// The host itself.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostView {
    /// The version of the program.
    pub version: String,
    /// Where callers reach functions, as the host bound it: an address and a port. `0.0.0.0` and `[::]` stand for every
    /// address of its machine.
    pub data_address: String,
    /// Who asks, as the audit log names it: an access key's identifier, for instance.
    #[serde(default)]
    pub operator: String,
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
    /// The access key that the request's caller showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
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
    /// What to ask for as `before` to see older ones; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}
