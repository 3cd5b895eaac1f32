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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_function_is_told_what_it_is_and_a_client_sees_only_its_own() {
        let mut spec = SettingsSpec { memory_mb: 256, timeout_ms: 1500, ..SettingsSpec::default() };
        spec.environment =
            [("A".to_owned(), "b".to_owned()), ("FC_PRE_STOP_HANDLER".to_owned(), "old".to_owned())].into();
        let kept = json!({"handler": "index.handler", "hooks": {"initializer": "index.init", "preStop": ""}});
        spec.function_compute = kept.as_object().unwrap().clone();
        complete(&"shop.cart".parse().unwrap(), &mut spec);
        let told = |name: &str| spec.environment.get(name).map(String::as_str);
        assert_eq!((told("FC_SERVICE_NAME"), told("FC_FUNCTION_NAME")), (Some("shop"), Some("cart")));
        assert_eq!(
            (told("FC_FUNCTION_HANDLER"), told("FC_FUNCTION_INITIALIZER")),
            (Some("index.handler"), Some("index.init"))
        );
        assert_eq!((told("FC_FUNCTION_MEMORY_SIZE"), told("FC_FUNCTION_TIMEOUT")), (Some("256"), Some("2")));
        assert_eq!(told("FC_PRE_STOP_HANDLER"), None, "it is disabled");
        assert_eq!(own(&spec.environment), [("A".to_owned(), "b".to_owned())].into());
        assert!(check(&own(&spec.environment)).is_ok());
        assert!(check(&spec.environment).unwrap_err().message.contains("`FC_"), "reserved");
    }
}
