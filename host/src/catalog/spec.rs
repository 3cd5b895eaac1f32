//! A function's settings as people write them: the JSON of the API and of the catalog's database, and the manifest's.
//!
//! `settings.rs` makes the checked form of them and reports every fault at once. Nothing here reads files or clocks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::asynchronous::AsyncSpec;
use super::trigger::TriggerSpecs;
use crate::access::Auth;
use crate::meter::Basis;

/// A function's settings. Every field has a default, so `{}` stands for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Settings)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SettingsSpec {
    /// The export that answers requests; `index.handler`, `handler` and `Handler` all name `handler`.
    pub handler: String,
    /// Linear memory of one instance in MB: 64 to 4096.
    pub memory_mb: u32,
    /// A request's longest time in the handler, in ms: 1 to 86 400 000.
    pub timeout_ms: u64,
    /// Requests that one instance may have in flight: 1 to 200. Above 1 needs asynchronous exports.
    pub concurrency: u32,
    /// Instances that may exist at once: 1 to 100 000.
    pub max_instances: u32,
    /// Requests that an instance answers before it is stopped: 1 for a fresh instance each time. Left out: as many as the
    /// component can answer, which for nearly all has no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests_per_instance: Option<u32>,
    /// Instances that are kept, parked, even when nobody calls.
    pub min_instances: u32,
    /// Parked this long, an instance is stopped; in ms.
    pub idle_timeout_ms: u64,
    /// The linger between the last reply and pre-freeze, in ms; 0 is allowed.
    pub freeze_after_ms: u64,
    /// Requests that may wait for an instance.
    pub queue_depth: u32,
    /// The longest such wait, in ms.
    pub queue_timeout_ms: u64,
    /// The guest's environment; the host's own is never shown to it.
    pub environment: BTreeMap<String, String>,
    /// What a handler of events gets for an HTTP request.
    #[serde(skip_serializing_if = "HttpEvent::is_default")]
    pub http_event: HttpEvent,
    /// The hooks.
    pub lifecycle: Lifecycle,
    /// Hosts that the guest may call: `example.com`, `example.com:8443`, `*.example.com`, `127.0.0.1:4318`, or `*`.
    pub allowed_outbound_hosts: Vec<String>,
    /// What is charged; the host's default if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing_basis: Option<Basis>,
    /// What callers must show, whichever version they ask for: `none` or `key`; the host's default if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// How asynchronous invocations are run, whichever version they ask for.
    #[serde(rename = "async", skip_serializing_if = "AsyncSpec::is_empty")]
    pub asynchronous: AsyncSpec,
    /// What invokes the function by itself or under an address of its own, by name.
    #[serde(skip_serializing_if = "TriggerSpecs::is_empty")]
    pub triggers: TriggerSpecs,
    /// For people.
    pub description: String,
    /// For people and programs; the host does not read them.
    pub tags: BTreeMap<String, String>,
    /// What clients of Function Compute's APIs set that has no counterpart here, as they wrote it. The host keeps it for them and
    /// does nothing else with it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub function_compute: Map<String, Value>,
}

/// What a handler of events gets for an HTTP request, at `/fn/{function}/...` and at addresses of the function's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HttpEvent {
    /// The request's body; the reply's bytes are the response's body.
    #[default]
    Body,
    /// The request as JSON, and a reply that may be a response as JSON, as behind HTTP triggers of Function Compute 3.0.
    Request,
}

impl HttpEvent {
    fn is_default(&self) -> bool {
        *self == HttpEvent::default()
    }
}

/// The three hooks of an instance's lifecycle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Lifecycle {
    /// Once, before the first request; at most 300 s.
    pub initializer: Hook,
    /// Once each time before the instance is parked; at most 90 s.
    pub pre_freeze: Hook,
    /// Once, before the instance is dropped; at most 90 s.
    pub pre_stop: Hook,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Hook {
    /// The export to call. Empty: the hook is disabled. Left out: the export of the hook's own name, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// The longest time the hook may take, in ms.
    pub timeout_ms: u64,
}

impl Default for SettingsSpec {
    fn default() -> SettingsSpec {
        SettingsSpec {
            handler: "handler".to_owned(),
            memory_mb: 128,
            timeout_ms: 60_000,
            concurrency: 1,
            max_instances: 100,
            max_requests_per_instance: None,
            min_instances: 0,
            idle_timeout_ms: 600_000,
            freeze_after_ms: 10,
            queue_depth: 1000,
            queue_timeout_ms: 10_000,
            environment: BTreeMap::new(),
            http_event: HttpEvent::default(),
            lifecycle: Lifecycle::default(),
            allowed_outbound_hosts: Vec::new(),
            billing_basis: None,
            auth: None,
            asynchronous: AsyncSpec::default(),
            triggers: TriggerSpecs::new(),
            description: String::new(),
            tags: BTreeMap::new(),
            function_compute: Map::new(),
        }
    }
}

impl Default for Hook {
    fn default() -> Hook {
        Hook { handler: None, timeout_ms: 3_000 }
    }
}

impl SettingsSpec {
    /// Applies a JSON merge patch (RFC 7396): absent stays, `null` goes back to the default.
    pub fn merged(&self, patch: &Value) -> anyhow::Result<SettingsSpec> {
        if !patch.is_object() {
            anyhow::bail!("the patch is not a JSON object");
        }
        let mut whole = serde_json::to_value(self)?;
        json_patch::merge(&mut whole, patch);
        Ok(serde_json::from_value(whole)?)
    }
}

/// The export that a configured entry names: the part after the last `.`, in kebab-case.
///
/// `index.preFreeze`, `preFreeze`, `pre_freeze` and `pre-freeze` all name `pre-freeze`, so that configurations written
/// for Function Compute stay as they are.
pub fn export_name(entry: &str) -> String {
    let last = entry.rsplit('.').next().unwrap_or(entry);
    let mut name = String::with_capacity(last.len() + 4);
    for (index, letter) in last.chars().enumerate() {
        if letter == '_' {
            name.push('-');
        } else if letter.is_ascii_uppercase() {
            if index > 0 && !name.ends_with('-') {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        } else {
            name.push(letter);
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_of_every_spelling_name_the_same_export() {
        for entry in ["index.preFreeze", "preFreeze", "pre-freeze", "pre_freeze", "a.b.PreFreeze"] {
            assert_eq!(export_name(entry), "pre-freeze", "{entry}");
        }
        assert_eq!(export_name("index.handler"), "handler");
    }

    #[test]
    fn every_fault_is_reported_together() {
        let patch = json!({"memoryMb": 1, "concurrency": 0, "lifecycle": {"preStop": {"timeoutMs": 90_001}}});
        let faults = SettingsSpec::default().merged(&patch).unwrap().check().unwrap_err().to_string();
        for name in ["memoryMb", "concurrency", "preStop"] {
            assert!(faults.contains(name), "{faults}");
        }
    }

    #[test]
    fn a_patch_keeps_what_it_leaves_out_and_null_restores_the_default() {
        let before = SettingsSpec::default()
            .merged(&json!({"memoryMb": 256, "lifecycle": {"preFreeze": {"handler": "", "timeoutMs": 7}}}))
            .unwrap();
        let after = before.merged(&json!({"memoryMb": null, "lifecycle": {"preStop": {"handler": "bye"}}})).unwrap();
        assert_eq!(after.memory_mb, 128);
        assert_eq!(after.lifecycle.pre_freeze, Hook { handler: Some(String::new()), timeout_ms: 7 });
        assert_eq!(after.lifecycle.pre_stop.handler.as_deref(), Some("bye"));
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = SettingsSpec::default().merged(&json!({"memoryMB": 256})).unwrap_err().to_string();
        assert!(error.contains("memoryMB"), "{error}");
    }
}
