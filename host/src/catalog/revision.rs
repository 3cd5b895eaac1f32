//! A revision: a component, what it exports, and its settings.

use std::time::SystemTime;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::settings::Settings;
use crate::guest::{Capacity, Export, Exports, Hook, Protocol, Refusal};
use crate::ids::{FunctionName, RevisionId};

/// What a component exports of the contract; absent: it has no such export, or the hook is disabled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportsView {
    /// What the handler is called with.
    #[serde(default)]
    pub protocol: Protocol,
    /// Answers requests.
    pub handler: ExportView,
    /// How many requests an instance can serve.
    #[serde(default)]
    pub capacity: Capacity,
    /// Runs before the first request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initializer: Option<ExportView>,
    /// Runs before each parking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_freeze: Option<ExportView>,
    /// Runs before the instance is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_stop: Option<ExportView>,
}

/// One export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportView {
    /// The export's name in the component; for a hook without one, the request that the host sends instead.
    pub name: String,
    /// Whether it is an asynchronous export; only those let several requests run in one instance.
    pub r#async: bool,
}

impl ExportsView {
    pub(super) fn new(exports: &Exports, capacity: Capacity) -> Result<ExportsView, Refusal> {
        let hooks = [&exports.initializer, &exports.pre_freeze, &exports.pre_stop];
        let request = hooks.into_iter().flatten().find_map(Hook::request);
        if let (Some(request), Some(requests_max)) = (request, capacity.requests_max) {
            return Err(Refusal::NoRequestLeft { request: request.to_string(), requests_max });
        }
        let view = |hook: &Option<Hook>| hook.as_ref().map(ExportView::from);
        Ok(ExportsView {
            protocol: exports.protocol,
            capacity,
            handler: ExportView::from(&exports.handler),
            initializer: view(&exports.initializer),
            pre_freeze: view(&exports.pre_freeze),
            pre_stop: view(&exports.pre_stop),
        })
    }

    /// Whether the handler is called with HTTP requests.
    pub fn takes_http(&self) -> bool {
        self.protocol != Protocol::Event
    }

    /// Whether a path is that of a hook which only the host may send, in whatever way it is written: as it stands, or as
    /// a router in the guest may read it.
    pub fn is_hook_path(&self, path: &str) -> bool {
        let hooks = [&self.initializer, &self.pre_freeze, &self.pre_stop];
        let mut own = hooks.into_iter().flatten().filter_map(|hook| hook.name.split_once(' ')).peekable();
        if own.peek().is_none() {
            return false;
        }
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        let written = [routed(path), routed(&decoded)];
        own.any(|(_, own)| written.iter().any(|path| *path == own[1..]))
    }

    /// Whether an instance may have several requests at once.
    pub fn shares(&self) -> bool {
        self.handler.r#async && self.capacity.shares
    }
}

/// A path without its first slash as routers read it: without empty and dot segments, matrix parameters (`;v=1`) and a last
/// slash, and with slashes for backslashes (the URL standard of browsers).
fn routed(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments.join("/")
}

impl From<&Export> for ExportView {
    fn from(export: &Export) -> ExportView {
        ExportView { name: export.name.clone(), r#async: export.is_async }
    }
}

impl From<&Hook> for ExportView {
    fn from(hook: &Hook) -> ExportView {
        match hook {
            Hook::Export(export) => ExportView::from(export),
            Hook::Request(request) => ExportView { name: request.to_string(), r#async: false },
        }
    }
}

/// What a function was at one time: a component with its settings. Never changed; a change makes a new one.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Its identifier.
    pub id: RevisionId,
    /// The function.
    pub function: FunctionName,
    /// Lower-case hexadecimal SHA-256 of the component.
    pub sha256: String,
    /// The component's size.
    pub component_bytes: u64,
    /// What it exports.
    pub exports: ExportsView,
    /// The settings.
    pub settings: Settings,
    /// When it was made.
    pub created: SystemTime,
}
