//! The JSON of requests. Clients differ in how they write names, so names are read without regard to case; `null` is as good
//! as left out; and what has the wrong type is named with its place.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::fault::Fault;

/// An object in a request.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// Where it stands, with a dot at the end.
    at: &'static str,
}

/// Objects and lists within each other: far more than any client sends. What is kept must be read again, with more around it.
const DEPTH_MAX: usize = 32;

/// Reads the body of a request; none stands for no fields.
pub(super) fn parse(body: &[u8]) -> Result<Map<String, Value>, Fault> {
    if body.trim_ascii().is_empty() { Ok(Map::new()) } else { parse_object("the body of the request", body) }
}

/// Reads an object. `what` names it in messages.
pub(super) fn parse_object(what: &str, text: &[u8]) -> Result<Map<String, Value>, Fault> {
    match serde_json::from_slice(text) {
        Ok(value) if !is_within(&value, DEPTH_MAX) => {
            Err(Fault::invalid(format!("{what} has more than {DEPTH_MAX} objects and lists within each other")))
        }
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(Fault::invalid(format!("{what} is {}; it must be an object", kind(&other)))),
        Err(error) => Err(Fault::invalid(format!("{what} is no JSON: {error}"))),
    }
}

fn is_within(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(list) => depth > 0 && list.iter().all(|value| is_within(value, depth - 1)),
        Value::Object(map) => depth > 0 && map.values().all(|value| is_within(value, depth - 1)),
        _ => true,
    }
}

impl<'a> Fields<'a> {
    pub(super) fn of(map: &'a Map<String, Value>) -> Fields<'a> {
        Fields { map, at: "" }
    }

    /// What is there under a name.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        let own = self.map.get(name).or_else(|| {
            let is_own = |(key, _): &(&String, &Value)| key.eq_ignore_ascii_case(name);
            self.map.iter().find(is_own).map(|(_, value)| value)
        });
        own.filter(|value| !value.is_null())
    }

    /// Whether there is something under a name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn wrong<T>(&self, name: &str, found: &Value, wanted: &str) -> Result<T, Fault> {
        Err(Fault::invalid(format!("`{}{name}` is {}; it must be {wanted}", self.at, kind(found))))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => self.wrong(name, other, "a string"),
        }
    }

    /// A text that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&'a str, Fault> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) | None => {
                Err(Fault::invalid(format!("`{}{name}` is missing; it must be a string that is not empty", self.at)))
            }
        }
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => self.wrong(name, other, "true or false"),
        }
    }

    /// A whole number within bounds.
    pub(super) fn whole(&self, name: &str, bounds: RangeInclusive<u64>) -> Result<Option<u64>, Fault> {
        let Some(found) = self.get(name) else { return Ok(None) };
        let wanted = format!("a whole number, {} to {}", bounds.start(), bounds.end());
        match found.as_u64().filter(|number| bounds.contains(number)) {
            Some(number) => Ok(Some(number)),
            None if found.is_number() => {
                Err(Fault::invalid(format!("`{}{name}` is {found}; it must be {wanted}", self.at)))
            }
            None => self.wrong(name, found, &wanted),
        }
    }

    /// An object within.
    pub(super) fn object(&self, name: &'static str) -> Result<Option<Fields<'a>>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { map, at: place(name) })),
            Some(other) => self.wrong(name, other, "an object"),
        }
    }

    /// A list.
    pub(super) fn list(&self, name: &str) -> Result<Option<&'a Vec<Value>>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => self.wrong(name, other, "a list"),
        }
    }

    /// An object of strings, whose names are taken as they are.
    pub(super) fn texts(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, Fault> {
        let map = match self.get(name) {
            None => return Ok(None),
            Some(Value::Object(map)) => map,
            Some(other) => return self.wrong(name, other, "an object of strings"),
        };
        let text = |(key, value): (&String, &Value)| match value {
            Value::String(text) => Ok((key.clone(), text.clone())),
            other => Err(Fault::invalid(format!("`{}{name}.{key}` is {}; it must be a string", self.at, kind(other)))),
        };
        map.iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// All names and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.iter()
    }
}

/// Where the fields of an object stand.
fn place(name: &str) -> &'static str {
    match name {
        "code" => "code.",
        "initializer" => "instanceLifecycleConfig.initializer.",
        "preFreeze" => "instanceLifecycleConfig.preFreeze.",
        "preStop" => "instanceLifecycleConfig.preStop.",
        "triggerConfig" => "triggerConfig.",
        "onSuccess" => "destinationConfig.onSuccess.",
        "onFailure" => "destinationConfig.onFailure.",
        _ => "",
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The merge patch (RFC 7396) that makes `after` of `before`. Neither may hold `null`.
pub(super) fn difference(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return after.clone() };
    let mut patch = Map::new();
    for (name, value) in after {
        match before.get(name) {
            Some(same) if same == value => {}
            Some(other) => drop(patch.insert(name.clone(), difference(other, value))),
            None => drop(patch.insert(name.clone(), value.clone())),
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// A value without the parts that are `null`.
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_read_in_any_case_and_null_is_left_out() {
        let body = parse(br#"{"InstanceConcurrency": 3, "description": null, "Code": {"ZIPFILE": "x"}}"#).unwrap();
        let fields = Fields::of(&body);
        assert_eq!(fields.whole("instanceConcurrency", 1..=200).unwrap(), Some(3));
        assert_eq!(fields.text("description").unwrap(), None);
        assert_eq!(fields.object("code").unwrap().unwrap().text("zipFile").unwrap(), Some("x"));
        assert!(parse(b"").unwrap().is_empty() && parse(b" \n").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let body =
            parse(br#"{"a": 1, "b": "x", "c": -1, "d": 1.5, "preStop": {"timeout": "3"}, "e": {"f": 1}}"#).unwrap();
        let fields = Fields::of(&body);
        let message = |fault: Fault| fault.message.into_owned();
        assert_eq!(message(fields.text("a").unwrap_err()), "`a` is a number; it must be a string");
        assert_eq!(
            message(fields.whole("b", 1..=9).unwrap_err()),
            "`b` is a string; it must be a whole number, 1 to 9"
        );
        assert_eq!(message(fields.whole("c", 1..=9).unwrap_err()), "`c` is -1; it must be a whole number, 1 to 9");
        assert_eq!(message(fields.whole("d", 1..=9).unwrap_err()), "`d` is 1.5; it must be a whole number, 1 to 9");
        let hook = fields.object("preStop").unwrap().unwrap();
        let said = message(hook.whole("timeout", 1..=90).unwrap_err());
        assert_eq!(said, "`instanceLifecycleConfig.preStop.timeout` is a string; it must be a whole number, 1 to 90");
        assert_eq!(message(fields.texts("e").unwrap_err()), "`e.f` is a number; it must be a string");
        assert!(message(fields.required("missing").unwrap_err()).contains("`missing` is missing"));
        let nested = |depth: usize| "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
        assert!(parse(nested(32).as_bytes()).is_ok());
        assert!(message(parse(nested(33).as_bytes()).unwrap_err()).contains("more than 32 objects and lists"));
        for (body, said) in [(&b"[1]"[..], "is a list; it must be an object"), (b"{", "is no JSON")] {
            assert!(message(parse(body).unwrap_err()).contains(said));
        }
    }

    #[test]
    fn a_difference_makes_the_one_of_the_other() {
        let before = json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1, 2], "f": {"g": 1}});
        let after = json!({"a": 2, "b": {"c": 1, "x": {"y": 1}}, "e": [1], "f": "text", "h": {}});
        let mut made = before.clone();
        json_patch::merge(&mut made, &difference(&before, &after));
        assert_eq!(made, after);
        assert_eq!(difference(&after, &after), json!({}));
        assert_eq!(without_nulls(&json!({"a": null, "b": [{"c": null}]})), json!({"b": [{}]}));
    }
}
