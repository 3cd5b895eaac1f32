//! What settings let a function reach beyond itself, and who may set that: a key for some functions must not run or replace
//! others by way of those that it manages.

use serde_json::Value;

use super::Operator;
use crate::access::Right;
use crate::catalog::{AsyncSpec, DestinationSpec, SettingsSpec, TriggerKind, TriggerSpec};
use crate::host::Host;
use crate::ids::FunctionName;
use crate::web::problem::{Code, Failure};

/// Refuses a patch of settings by which an operator would reach functions that its key does not cover. What the settings had
/// before stays allowed.
pub fn check(host: &Host, operator: &Operator, name: &FunctionName, patch: &Value) -> Result<(), Failure> {
    let before = host.function(name.as_str()).map(|function| function.spec()).unwrap_or_default();
    // What makes no sense is refused in its own words.
    let Ok(after) = before.merged(patch) else { return Ok(()) };
    let known = destinations(&before);
    for destination in destinations(&after).into_iter().filter(|destination| !known.contains(destination)) {
        operator.check(Right::Invoke, destination)?;
    }
    for (trigger, spec) in &after.triggers {
        if before.triggers.get(trigger) != Some(spec) {
            check_address(host, operator, (name, trigger), spec)?;
        }
    }
    Ok(())
}

/// The functions that settings name as destinations.
fn destinations(spec: &SettingsSpec) -> Vec<&str> {
    let own = std::iter::once(&spec.asynchronous).chain(spec.asynchronous.qualifiers.values());
    let all = own.flat_map(|rules: &AsyncSpec| [&rules.on_success, &rules.on_failure].into_iter().flatten());
    all.filter_map(|DestinationSpec { function, .. }| function.as_deref()).collect()
}

/// Host names are shared: a path below another function's would take its requests away.
fn check_address(
    host: &Host,
    operator: &Operator,
    (function, name): (&FunctionName, &str),
    spec: &TriggerSpec,
) -> Result<(), Failure> {
    let Ok(TriggerKind::Http(http)) = spec.check() else { return Ok(()) };
    if operator.may_with_all(Right::Manage) || http.is_own(function) {
        return Ok(());
    }
    let forbidden = |why: &str| {
        let detail = format!("the key {} may not set `triggers.{name}`: {why}", operator.name());
        Err(Failure::new(Code::Forbidden, detail))
    };
    let Some(host_name) = &http.host else {
        return forbidden(
            "an address without a host name is for all requests; it takes a key with the right to manage all functions (`*`)",
        );
    };
    if host.functions_at(host_name).iter().any(|other| !operator.may(Right::Manage, other.as_str())) {
        return forbidden("another function has addresses of that host name, and the key does not cover it");
    }
    Ok(())
}
