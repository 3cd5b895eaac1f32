//! The JSON of triggers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::catalog::TriggerSpec;

/// A trigger: what it is, and what it did and will do.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerView {
    /// Its name.
    pub name: String,
    /// What it is, as the function's `triggers` has it.
    pub trigger: TriggerSpec,
    /// When a timer ticks next; RFC 3339, UTC. Nothing if it is disabled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
    /// A timer's newest invocations, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<TriggerRun>,
    /// The address of an HTTP trigger: host name, if it has one, and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// An invocation that a timer made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TriggerRun {
    /// Its identifier.
    pub id: String,
    /// Where it stands; absent once it is not kept any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// A function's triggers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TriggerList {
    /// By name.
    pub triggers: Vec<TriggerView>,
}

/// The invocation that a trigger made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FiredView {
    /// Its identifier.
    pub id: String,
}
