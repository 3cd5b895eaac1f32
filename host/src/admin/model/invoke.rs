//! Calling a function through the operators' API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What to call a function with.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InvokeRequest {
    /// The event; of a function of HTTP, the request's body.
    #[serde(default)]
    pub event: String,
    /// A version or an alias; absent: `LATEST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<String>,
    /// The method of the request; absent: `GET`. For functions of HTTP, as the two below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path and query of the request; absent: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Header fields of the request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// What a function answered.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvokeView {
    /// The request's identifier.
    pub request: String,
    /// The HTTP status that a caller would have got.
    pub status: u16,
    /// `ok`, or the code of the problem.
    pub code: String,
    /// `cold`, `parked` or `active`; empty if it got no instance.
    pub start: String,
    /// Where the time went, as in the field `Server-Timing`: durations in ms.
    pub server_timing: String,
    /// The reply, the response's body or what went wrong, as text; its first 256 KiB.
    pub body: String,
    /// What the request wrote into the log; its first 200 lines. Empty for those who may not read the log.
    pub lines: Vec<String>,
}
