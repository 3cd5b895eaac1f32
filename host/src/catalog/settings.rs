//! A revision's settings in their checked form: made once from what people wrote, and never parsed again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::spec::SettingsSpec;
use crate::guest::{EntryNames, HostPattern};
use crate::meter::Basis;

/// Checked settings; [`SettingsSpec::check`] makes them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What they were made from, without what does not matter to instances: the function's description and tags.
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
    /// What is charged; none: the host's default.
    pub billing_basis: Option<Basis>,
}

impl Settings {
    /// The guest's environment.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.spec.environment
    }

    /// Whether instances with these settings need not change when the settings become `other`.
    pub(super) fn run_like(&self, other: &Settings) -> bool {
        self.spec == other.spec
    }
}
