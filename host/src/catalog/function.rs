//! A deployed function as the catalog knows it.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::settings::{Hook, Settings, export_name};
use crate::guest::{Capacity, EntryNames, Export, Exports, Hook as HookCall, HookName, Protocol, Refusal};
use crate::ids::FunctionName;
use crate::log::Log;

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
        let request = hooks.into_iter().flatten().find_map(HookCall::request);
        if let (Some(request), Some(requests_max)) = (request, capacity.requests_max) {
            return Err(Refusal::NoRequestLeft { request: request.to_string(), requests_max });
        }
        let view = |hook: &Option<HookCall>| hook.as_ref().map(ExportView::from);
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

    /// Whether an instance may have several requests at once.
    pub fn shares(&self) -> bool {
        self.handler.r#async && self.capacity.shares
    }
}

impl From<&Export> for ExportView {
    fn from(export: &Export) -> ExportView {
        ExportView { name: export.name.clone(), r#async: export.is_async }
    }
}

impl From<&HookCall> for ExportView {
    fn from(hook: &HookCall) -> ExportView {
        match hook {
            HookCall::Export(export) => ExportView::from(export),
            HookCall::Request(request) => ExportView { name: request.to_string(), r#async: false },
        }
    }
}

/// One revision of a function. A change makes a new one; requests under way keep theirs.
#[derive(Clone)]
pub struct Function {
    /// Its name.
    pub name: FunctionName,
    /// Counts from 1 the changes that need new instances.
    pub revision: u64,
    /// Lower-case hexadecimal SHA-256 of the component.
    pub sha256: String,
    /// The component's size.
    pub component_bytes: u64,
    /// What it exports.
    pub exports: ExportsView,
    /// Its configuration.
    pub settings: Settings,
    /// Whether an operator suspended it.
    pub suspended: bool,
    /// When it was first deployed.
    pub created: SystemTime,
    /// When it last changed.
    pub updated: SystemTime,
    /// What its instances wrote; all revisions share it.
    pub log: Log,
    /// Held while the function's instances are prepared, so that it happens once.
    pub preparing: Arc<tokio::sync::Mutex<()>>,
}

impl Settings {
    /// The exports that this configuration names.
    pub fn entry_names(&self) -> EntryNames {
        let hook = |hook: &Hook| match hook.handler.as_deref() {
            None => HookName::Default,
            Some("") => HookName::Disabled,
            Some(entry) => HookName::Named(export_name(entry)),
        };
        EntryNames {
            handler: export_name(&self.handler),
            initializer: hook(&self.lifecycle.initializer),
            pre_freeze: hook(&self.lifecycle.pre_freeze),
            pre_stop: hook(&self.lifecycle.pre_stop),
        }
    }

    /// Whether running instances need not change when the configuration becomes `other`.
    pub(super) fn runs_like(&self, other: &Settings) -> bool {
        let described = Settings { description: other.description.clone(), tags: other.tags.clone(), ..self.clone() };
        described == *other
    }
}
