//! Names of settings: kebab-case in manifests and on the command line, camelCase in the API.
//!
//! Called by `manifest.rs` and for `--set`. Nothing here reads files or talks to a host.

use std::str::FromStr;

use anyhow::{Context, bail};
use heck::{ToKebabCase, ToLowerCamelCase};
use serde_json::{Map, Value};

use crate::catalog::SettingsSpec;

/// Settings whose keys belong to the author and are never respelled.
const AUTHORS_KEYS: [&str; 2] = ["environment", "tags"];

/// Settings whose keys are names of the author's, above settings that are respelled.
const AUTHORS_NAMES: [&str; 2] = ["qualifiers", "triggers"];

/// `memory-mb` as `memoryMb`, which stays as it is.
pub(super) fn camel(name: &str) -> String {
    name.to_lower_camel_case()
}

/// `memoryMb` as `memory-mb`, and so each part of a dotted name.
pub(super) fn kebab(name: &str) -> String {
    name.split('.').map(ToKebabCase::to_kebab_case).collect::<Vec<_>>().join(".")
}

/// A way to a value as it stands in a manifest: `lifecycle.pre-stop.handler`, `environment.PORT`.
pub(super) fn spelled(path: &[String]) -> String {
    kebab_path(path).join(".")
}

/// The parts of a way to a value as they stand in a manifest.
pub(super) fn kebab_path(path: &[String]) -> Vec<String> {
    match path {
        [map, ..] if AUTHORS_KEYS.contains(&map.as_str()) => path.to_vec(),
        path => respelled(path.iter().map(String::as_str), kebab),
    }
}

/// The parts of a way to a value in another spelling, but for the author's own names.
fn respelled<'a>(path: impl Iterator<Item = &'a str>, spell: fn(&str) -> String) -> Vec<String> {
    let mut above = "";
    let respell = |part: &'a str| {
        if AUTHORS_NAMES.contains(&std::mem::replace(&mut above, part)) { part.to_owned() } else { spell(part) }
    };
    path.map(respell).collect()
}

/// Respells the settings that a message names in backticks, so that it speaks of the keys people wrote.
pub(super) fn kebab_names(message: &str) -> String {
    let is_name = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '.')
    };
    let respelled = message.split('`').enumerate().map(|(index, part)| {
        // Every second part stood between backticks.
        if index % 2 == 1 && is_name(part) { kebab(part) } else { part.to_owned() }
    });
    respelled.collect::<Vec<_>>().join("`")
}

/// The API's spelling of a table of settings, at any depth. Says which setting is there in two spellings.
pub(super) fn camel_object(table: Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut respelled = Map::new();
    for (key, value) in table {
        let camel = camel(&key);
        let value = match value {
            Value::Object(named) if AUTHORS_NAMES.contains(&camel.as_str()) => {
                let entry = |(name, value)| match value {
                    Value::Object(inner) => Ok((name, Value::Object(camel_object(inner)?))),
                    value => Ok((name, value)),
                };
                Value::Object(named.into_iter().map(entry).collect::<Result<_, String>>()?)
            }
            Value::Object(inner) if !AUTHORS_KEYS.contains(&camel.as_str()) => Value::Object(camel_object(inner)?),
            value => value,
        };
        let kebab = kebab(&camel);
        if respelled.insert(camel, value).is_some() {
            return Err(format!("`{kebab}` is there twice, in different spellings; keep one of them"));
        }
    }
    Ok(respelled)
}

/// The values of an object with the way to each; an empty object is a value too.
pub(super) fn leaves(object: &Map<String, Value>) -> Vec<(Vec<String>, Value)> {
    let mut found = Vec::new();
    for (key, value) in object {
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                for (mut path, value) in leaves(inner) {
                    path.insert(0, key.clone());
                    found.push((path, value));
                }
            }
            value => found.push((vec![key.clone()], value.clone())),
        }
    }
    found
}

/// An object that holds `value` at the end of `path`.
pub(super) fn nested(path: &[String], value: Value) -> Value {
    path.iter().rev().fold(value, |inner, key| Value::Object(Map::from_iter([(key.clone(), inner)])))
}

/// One `--set KEY=VALUE`: a part of a JSON merge patch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Assignment {
    path: Vec<String>,
    value: Value,
}

impl FromStr for Assignment {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Assignment> {
        let (key, value) = text.split_once('=').context("write it as `key=value`, for example `memory-mb=256`")?;
        let path = path(key);
        if path.iter().any(String::is_empty) {
            bail!("`{key}` is not a setting");
        }
        let json = serde_json::from_str::<Value>(value).ok();
        let text = Value::String(value.to_owned());
        let fault = |value: &Value| serde_json::from_value::<SettingsSpec>(nested(&path, value.clone())).err();
        if json == Some(Value::Null) {
            // A merge patch goes back to the default at a null; only the name can be wrong.
            return match fault(&text) {
                Some(unknown) if unknown.to_string().contains("unknown field") => bail!("{unknown}"),
                Some(_) | None => Ok(Assignment { path, value: Value::Null }),
            };
        }
        // What is JSON is taken as JSON where that fits, so that a text setting may still be `8080` or `true`.
        let candidates = json.into_iter().chain([text]);
        let mut first_fault = None;
        for value in candidates {
            match fault(&value) {
                None => return Ok(Assignment { path, value }),
                Some(fault) => first_fault = first_fault.or(Some(fault)),
            }
        }
        let fault = first_fault.map(|fault| kebab_names(&fault.to_string())).unwrap_or_default();
        bail!("`{key}`: {fault}")
    }
}

/// Splits a dotted key. The author's own keys may hold dots, so they are not split further.
fn path(key: &str) -> Vec<String> {
    match key.split_once('.') {
        Some((map, own)) if AUTHORS_KEYS.contains(&map) => vec![map.to_owned(), own.to_owned()],
        Some(_) | None => respelled(key.split('.'), camel),
    }
}

/// Puts assignments into a merge patch; the later one wins.
pub(super) fn assign(patch: &mut Map<String, Value>, assignments: &[Assignment]) {
    for assignment in assignments {
        insert(patch, &assignment.path, assignment.value.clone());
    }
}

fn insert(object: &mut Map<String, Value>, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        object.insert(first.clone(), value);
        return;
    }
    let inner = object.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
    if !inner.is_object() {
        *inner = Value::Object(Map::new());
    }
    if let Value::Object(inner) = inner {
        insert(inner, rest, value);
    }
}

/// The merge patch (RFC 7396) that turns `current` into `wanted`; what only `current` has is removed with a null.
pub(super) fn merge_patch(current: &Value, wanted: &Value) -> Map<String, Value> {
    let (Value::Object(current), Value::Object(wanted)) = (current, wanted) else { return Map::new() };
    let mut patch = Map::new();
    for key in current.keys().filter(|key| !wanted.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in wanted {
        match current.get(key) {
            Some(same) if same == value => {}
            Some(before) if before.is_object() && value.is_object() => {
                patch.insert(key.clone(), Value::Object(merge_patch(before, value)));
            }
            Some(_) | None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patch(assignments: &[&str]) -> Value {
        let assignments: Vec<Assignment> = assignments.iter().map(|text| text.parse().unwrap()).collect();
        let mut patch = Map::new();
        assign(&mut patch, &assignments);
        Value::Object(patch)
    }

    #[test]
    fn names_are_respelled_both_ways() {
        let pairs =
            [("memory-mb", "memoryMb"), ("handler", "handler"), ("allowed-outbound-hosts", "allowedOutboundHosts")];
        for (kebab_name, camel_name) in pairs {
            assert_eq!(camel(kebab_name), camel_name);
            assert_eq!(camel(camel_name), camel_name);
            assert_eq!(kebab(camel_name), kebab_name);
        }
        assert_eq!(kebab("lifecycle.preFreeze.timeoutMs"), "lifecycle.pre-freeze.timeout-ms");
        assert_eq!(
            kebab_names("`memoryMb` is 1; say `http://exampleHost`"),
            "`memory-mb` is 1; say `http://exampleHost`"
        );
    }

    #[test]
    fn the_authors_own_keys_stay() {
        let table = json!({"environment": {"some-key": "x"}, "lifecycle": {"pre-stop": {"timeout-ms": 1}}});
        let Value::Object(table) = table else { panic!() };
        let expected = json!({"environment": {"some-key": "x"}, "lifecycle": {"preStop": {"timeoutMs": 1}}});
        assert_eq!(camel_object(table).map(Value::Object), Ok(expected));
    }

    #[test]
    fn a_setting_in_two_spellings_is_refused() {
        let table = json!({"lifecycle": {"pre-stop": {"timeout-ms": 1, "timeout_ms": 2}}});
        let Value::Object(table) = table else { panic!() };
        assert!(camel_object(table).unwrap_err().starts_with("`timeout-ms` is there twice"));
    }

    #[test]
    fn assignments_are_json_where_that_fits_and_text_elsewhere() {
        assert_eq!(patch(&["memory-mb=256"]), json!({"memoryMb": 256}));
        assert_eq!(patch(&["description=8080"]), json!({"description": "8080"}));
        assert_eq!(patch(&["environment.PORT=8080"]), json!({"environment": {"PORT": "8080"}}));
        assert_eq!(patch(&["environment.a-b.c=x=y"]), json!({"environment": {"a-b.c": "x=y"}}));
        assert_eq!(patch(&["billing-basis=duration"]), json!({"billingBasis": "duration"}));
        assert_eq!(patch(&["allowedOutboundHosts=[\"a.b\"]"]), json!({"allowedOutboundHosts": ["a.b"]}));
        assert_eq!(patch(&["memoryMb=null"]), json!({"memoryMb": null}));
        assert_eq!(
            patch(&["lifecycle.pre-stop.handler=", "lifecycle.preStop.timeout-ms=5"]),
            json!({"lifecycle": {"preStop": {"handler": "", "timeoutMs": 5}}})
        );
    }

    #[test]
    fn wrong_assignments_are_refused() {
        for bad in ["memory-mb", "=1", "a..b=1", "memory-mbs=1", "memory-mb=many", "nonsense=null", "lifecycle=3"] {
            assert!(bad.parse::<Assignment>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_merge_patch_reaches_exactly_the_wanted_settings() {
        let current: SettingsSpec = serde_json::from_value(json!({
            "memoryMb": 512, "environment": {"A": "1", "B": "2"}, "billingBasis": "duration",
            "lifecycle": {"preStop": {"handler": "bye", "timeoutMs": 7}},
        }))
        .unwrap();
        let wanted: SettingsSpec = serde_json::from_value(json!({"environment": {"B": "3", "C": "4"}})).unwrap();
        let value = |settings: &SettingsSpec| serde_json::to_value(settings).unwrap();
        let patch = Value::Object(merge_patch(&value(&current), &value(&wanted)));
        assert_eq!(current.merged(&patch).unwrap(), wanted);
        assert_eq!(merge_patch(&value(&wanted), &value(&wanted)), Map::new());
    }
}
