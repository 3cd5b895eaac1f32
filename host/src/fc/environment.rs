//! The variables that Function Compute gives every function, `FC_...`. They are in the setting `environment`, which is what
//! instances get; clients see only their own.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fault::Fault;
use crate::catalog::SettingsSpec;
use crate::ids::FunctionName;

/// What their names begin with, and no client's may.
const RESERVED: &str = "FC_";

type Variables = BTreeMap<String, String>;

/// Refuses variables that are not a client's to set.
pub(super) fn check(variables: &Variables) -> Result<(), Fault> {
    match variables.keys().find(|name| name.starts_with(RESERVED)) {
        None => Ok(()),
        Some(name) => Err(Fault::invalid(format!(
            "`environmentVariables` has `{name}`; names that begin with `{RESERVED}` are reserved"
        ))),
    }
}

/// The variables that a client has set.
pub(super) fn own(variables: &Variables) -> Variables {
    let own = variables.iter().filter(|(name, _)| !name.starts_with(RESERVED));
    own.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Puts those that are not the client's beside the client's own, as the settings are now.
pub(super) fn complete(name: &FunctionName, spec: &mut SettingsSpec) {
    let (service, function) = name.parts();
    let kept = &spec.function_compute;
    let text = |name: &str| kept.get(name).and_then(Value::as_str);
    let hooks = kept.get("hooks").and_then(Value::as_object);
    let hook = |name: &str| hooks.and_then(|hooks: &Map<String, Value>| hooks.get(name)?.as_str());
    let mut variables = own(&spec.environment);
    for (name, value) in [
        ("FC_ACCOUNT_ID", Some("0")),
        ("FC_REGION", Some("local")),
        ("FC_FUNCTION_NAME", Some(function)),
        ("FC_SERVICE_NAME", service),
        ("FC_FUNCTION_HANDLER", text("handler")),
        ("FC_FUNCTION_MEMORY_SIZE", Some(spec.memory_mb.to_string().as_str())),
        ("FC_FUNCTION_TIMEOUT", Some(spec.timeout_ms.div_ceil(1000).to_string().as_str())),
        ("FC_FUNCTION_INITIALIZER", hook("initializer")),
        ("FC_INITIALIZATION_TIMEOUT", Some(spec.lifecycle.initializer.timeout_ms.div_ceil(1000).to_string().as_str())),
        ("FC_PRE_FREEZE_HANDLER", hook("preFreeze")),
        ("FC_PRE_STOP_HANDLER", hook("preStop")),
    ] {
        variables.extend(value.filter(|value| !value.is_empty()).map(|value| (name.to_owned(), value.to_owned())));
    }
    spec.environment = variables;
}
