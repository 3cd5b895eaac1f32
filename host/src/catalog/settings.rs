//! A revision's settings in their checked form: made once from what people wrote, and never parsed again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::asynchronous::AsyncSpec;
use super::spec::{Hook, HttpEvent, SettingsSpec, export_name};
use super::trigger::{self, TriggerSpecs};
use crate::guest::{EntryNames, HookName, HostPattern};
use crate::meter::Basis;

/// The longest request, in ms: one day, as in Function Compute.
const TIMEOUT_MS_MAX: u64 = 86_400_000;
/// The most bytes that an environment's names and values may have together.
const ENVIRONMENT_BYTES_MAX: usize = 65_536;
const TEXT_BYTES_MAX: usize = 1024;
const TAGS_MAX: usize = 64;
const OUTBOUND_HOSTS_MAX: usize = 256;

/// Checked settings; [`SettingsSpec::check`] makes them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What they were made from, without what belongs to the function as a whole: who may call it, how it is called asynchronously, triggers, description and tags.
    pub(super) spec: SettingsSpec,
    /// The exports that are called.
    pub entry_names: EntryNames,
    /// Linear memory of one instance.
    pub memory_mb: u32,
    /// A request's longest time in the handler.
    pub request_timeout: Duration,
    /// Requests that one instance may have in flight, if its exports allow it.
    pub concurrency: u32,
    /// Instances that may exist at once.
    pub instances_max: u32,
    /// Instances that are kept even when nobody calls.
    pub instances_min: u32,
    /// Requests that an instance answers before it is stopped.
    pub requests_max: Option<u32>,
    /// Parked this long, an instance is stopped.
    pub idle_timeout: Duration,
    /// The linger between the last reply and pre-freeze.
    pub freeze_after: Duration,
    /// Requests that may wait for an instance.
    pub queue_depth: u32,
    /// The longest such wait.
    pub queue_timeout: Duration,
    /// The initializer's timeout.
    pub initializer_timeout: Duration,
    /// Pre-freeze's timeout.
    pub pre_freeze_timeout: Duration,
    /// Pre-stop's timeout.
    pub pre_stop_timeout: Duration,
    /// Where instances may send HTTP requests.
    pub outbound_hosts: Vec<HostPattern>,
    /// What a handler of events gets for an HTTP request.
    pub http_event: HttpEvent,
    /// What is charged; none: the host's default.
    pub billing_basis: Option<Basis>,
}

impl Settings {
    /// The guest's environment.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.spec.environment
    }

    /// What clients of Function Compute's APIs set that has no counterpart here.
    pub fn function_compute(&self) -> &Map<String, Value> {
        &self.spec.function_compute
    }

    /// Whether instances with these settings need not change when the settings become `other`.
    pub(super) fn run_like(&self, other: &Settings) -> bool {
        self.spec == other.spec
    }
}

/// Everything that is wrong with settings.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct SettingsFaults(pub Vec<String>);

impl SettingsSpec {
    /// The checked form, or every fault together.
    pub fn check(&self) -> Result<Settings, SettingsFaults> {
        let mut faults = Vec::new();
        self.check_numbers(&mut faults);
        self.check_texts(&mut faults);
        let mut outbound_hosts = Vec::new();
        for host in &self.allowed_outbound_hosts {
            match host.parse::<HostPattern>() {
                Ok(pattern) => outbound_hosts.push(pattern),
                Err(fault) => faults.push(format!("`allowedOutboundHosts`: {fault}")),
            }
        }
        let allowed = |host: &str, port| outbound_hosts.iter().any(|pattern: &HostPattern| pattern.matches(host, port));
        self.asynchronous.check(allowed, &mut faults);
        trigger::check(&self.triggers, &mut faults);
        if !faults.is_empty() {
            return Err(SettingsFaults(faults));
        }
        let timeout = |hook: &Hook| Duration::from_millis(hook.timeout_ms);
        Ok(Settings {
            entry_names: self.entry_names(),
            memory_mb: self.memory_mb,
            request_timeout: Duration::from_millis(self.timeout_ms),
            concurrency: self.concurrency,
            instances_max: self.max_instances,
            instances_min: self.min_instances,
            requests_max: self.max_requests_per_instance,
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
            freeze_after: Duration::from_millis(self.freeze_after_ms),
            queue_depth: self.queue_depth,
            queue_timeout: Duration::from_millis(self.queue_timeout_ms),
            initializer_timeout: timeout(&self.lifecycle.initializer),
            pre_freeze_timeout: timeout(&self.lifecycle.pre_freeze),
            pre_stop_timeout: timeout(&self.lifecycle.pre_stop),
            outbound_hosts,
            http_event: self.http_event,
            billing_basis: self.billing_basis,
            spec: SettingsSpec {
                auth: None,
                asynchronous: AsyncSpec::default(),
                triggers: TriggerSpecs::new(),
                description: String::new(),
                tags: BTreeMap::new(),
                ..self.clone()
            },
        })
    }

    /// The exports that the settings name.
    fn entry_names(&self) -> EntryNames {
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

    fn check_numbers(&self, faults: &mut Vec<String>) {
        let mut range = |name: &str, value: u64, least: u64, most: u64| {
            if value < least || value > most {
                faults.push(format!("`{name}` is {value}; it must be {least} to {most}"));
            }
        };
        range("memoryMb", self.memory_mb.into(), 64, 4096);
        range("timeoutMs", self.timeout_ms, 1, TIMEOUT_MS_MAX);
        range("concurrency", self.concurrency.into(), 1, 200);
        range("maxInstances", self.max_instances.into(), 1, 100_000);
        range("maxRequestsPerInstance", self.max_requests_per_instance.unwrap_or(1).into(), 1, u32::MAX.into());
        range("minInstances", self.min_instances.into(), 0, self.max_instances.into());
        range("idleTimeoutMs", self.idle_timeout_ms, 0, 30 * TIMEOUT_MS_MAX);
        range("freezeAfterMs", self.freeze_after_ms, 0, 60_000);
        range("queueDepth", self.queue_depth.into(), 0, 100_000);
        range("queueTimeoutMs", self.queue_timeout_ms, 0, TIMEOUT_MS_MAX);
        range("lifecycle.initializer.timeoutMs", self.lifecycle.initializer.timeout_ms, 1, 300_000);
        range("lifecycle.preFreeze.timeoutMs", self.lifecycle.pre_freeze.timeout_ms, 1, 90_000);
        range("lifecycle.preStop.timeoutMs", self.lifecycle.pre_stop.timeout_ms, 1, 90_000);
    }

    fn check_texts(&self, faults: &mut Vec<String>) {
        if self.handler.is_empty() {
            faults.push("`handler` is empty; it must name the export that answers requests".to_owned());
        }
        let environment_bytes: usize = self.environment.iter().map(|(name, value)| name.len() + value.len()).sum();
        if environment_bytes > ENVIRONMENT_BYTES_MAX {
            faults.push(format!("`environment` has {environment_bytes} bytes; at most {ENVIRONMENT_BYTES_MAX}"));
        }
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                faults.push(format!("`environment` holds {name:?}; a name has no `=` and is not empty, and no NUL"));
            }
        }
        faults.extend(check_text("description", &self.description).err());
        let tag_too_long = |(name, value): (&String, &String)| name.len() + value.len() > TEXT_BYTES_MAX;
        if self.tags.len() > TAGS_MAX || self.tags.iter().any(tag_too_long) {
            faults.push(format!("`tags` must be at most {TAGS_MAX} of at most {TEXT_BYTES_MAX} bytes each"));
        }
        let kept_bytes = serde_json::to_string(&self.function_compute).map_or(0, |text| text.len());
        if kept_bytes > ENVIRONMENT_BYTES_MAX {
            faults.push(format!("`functionCompute` has {kept_bytes} bytes; at most {ENVIRONMENT_BYTES_MAX}"));
        }
        if self.allowed_outbound_hosts.len() > OUTBOUND_HOSTS_MAX {
            faults.push(format!("`allowedOutboundHosts` has more than {OUTBOUND_HOSTS_MAX} entries"));
        }
    }
}

/// Checks the length of a text for people; says what is wrong.
pub(super) fn check_text(name: &str, text: &str) -> Result<(), String> {
    if text.len() > TEXT_BYTES_MAX { Err(format!("`{name}` has more than {TEXT_BYTES_MAX} bytes")) } else { Ok(()) }
}
