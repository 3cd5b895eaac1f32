//! Triggers: what invokes a function by itself, or under an address of its own. One file a kind.
//!
//! They belong to the function as a whole, like who may call it: a change holds at once and restarts no instance.

mod http;
mod timer;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::http::{Cors, HttpTrigger, HttpTriggerSpec, is_proxy_path, proxy_path};
pub use self::timer::{Timer, TimerSpec};

/// Triggers of one function.
const TRIGGERS_MAX: usize = 100;
/// Characters of a trigger's name.
pub const NAME_MAX: usize = 128;

/// What invokes a function: `timer` or `http`, one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Trigger)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TriggerSpec {
    /// Whether it works; by default it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The version or alias that is invoked; left out: `LATEST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<String>,
    /// Invokes the function asynchronously at certain times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timer: Option<TimerSpec>,
    /// Gives the function an address of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpTriggerSpec>,
}

/// Triggers by name.
pub type TriggerSpecs = BTreeMap<String, TriggerSpec>;

/// A checked trigger.
#[derive(Clone, Debug)]
pub enum TriggerKind {
    /// Invokes the function at certain times.
    Timer(Timer),
    /// Gives it an address.
    Http(Box<HttpTrigger>),
}

impl TriggerSpec {
    /// Whether it works.
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// The checked form, or everything that is wrong.
    pub fn check(&self) -> Result<TriggerKind, Vec<String>> {
        match (&self.timer, &self.http) {
            (Some(timer), None) => timer.check().map(TriggerKind::Timer),
            (None, Some(http)) => http.check().map(|http| TriggerKind::Http(Box::new(http))),
            (Some(_), Some(_)) | (None, None) => {
                Err(vec!["a trigger has either `timer` or `http`, and what belongs to it below that".to_owned()])
            }
        }
    }
}

/// Whether a trigger may have this name.
pub fn is_name(name: &str) -> bool {
    let valid = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    !name.is_empty() && name.len() <= NAME_MAX && name.chars().all(valid)
}

/// Says what is wrong with triggers.
pub(super) fn check(triggers: &TriggerSpecs, faults: &mut Vec<String>) {
    if triggers.len() > TRIGGERS_MAX {
        faults.push(format!("`triggers` has more than {TRIGGERS_MAX} entries"));
    }
    for (name, trigger) in triggers {
        if !is_name(name) {
            let shown: String = name.chars().take(NAME_MAX).collect();
            faults.push(format!(
                "`triggers`: `{shown}` is not a trigger's name: 1 to {NAME_MAX} letters, digits, `_` or `-`"
            ));
        }
        for fault in trigger.check().err().unwrap_or_default() {
            faults.push(format!("`triggers.{name}`: {fault}"));
        }
    }
}
