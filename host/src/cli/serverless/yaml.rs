//! YAML as a tree that knows its lines, so that what is wrong can be named with the line that it stands on.

use std::fmt;

use anyhow::bail;
use saphyr::{LoadableYamlNode as _, MarkedYamlOwned, ScalarOwned, YamlDataOwned};
use serde_json::{Map, Value};

/// How deep lists and maps may be within each other.
const DEPTH_MAX: usize = 64;
/// How many values a file may have, counting what an alias repeats.
const VALUES_MAX: usize = 100_000;
/// The key whose value is merged into the map that it stands in.
const MERGE: &str = "<<";

/// A value and the line on which it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) data: Data,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Whole(i64),
    Real(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and its line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) line: usize,
    pub(super) name: String,
}

impl Node {
    /// Reads a file of one document.
    pub(super) fn parse(text: &str) -> anyhow::Result<Node> {
        let documents = MarkedYamlOwned::load_from_str(text)?;
        let [document] = documents.as_slice() else {
            bail!("it must hold one document, and holds {}", documents.len());
        };
        read(document, DEPTH_MAX, &mut 0)
    }

    /// What stands under a key.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        let Data::Map(map) = &self.data else { return None };
        map.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }

    /// The text, if it is one that is not empty.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The value as JSON.
    pub(super) fn json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => (*value).into(),
            Data::Whole(number) => (*number).into(),
            Data::Real(number) => (*number).into(),
            Data::Text(text) => text.clone().into(),
            Data::List(list) => list.iter().map(Node::json).collect(),
            Data::Map(map) => {
                Value::Object(map.iter().map(|(key, value)| (key.name.clone(), value.json())).collect::<Map<_, _>>())
            }
        }
    }

    /// The keys and values; none for anything but a map.
    pub(super) fn entries(&self) -> &[(Key, Node)] {
        match &self.data {
            Data::Map(map) => map,
            _ => &[],
        }
    }
}

/// As a part of a text.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.data {
            Data::Text(text) => f.write_str(text),
            _ => write!(f, "{}", self.json()),
        }
    }
}

fn read(node: &MarkedYamlOwned, depth: usize, values: &mut usize) -> anyhow::Result<Node> {
    let line = node.span.start.line();
    *values += 1;
    if depth == 0 || *values > VALUES_MAX {
        bail!("line {line}: it has more than {VALUES_MAX} values, or more than {DEPTH_MAX} within each other");
    }
    let data = match &node.data {
        YamlDataOwned::Value(scalar) => scalar_of(scalar),
        YamlDataOwned::Representation(text, ..) => Data::Text(text.clone()),
        YamlDataOwned::Tagged(_, inner) => return read(inner, depth, values),
        YamlDataOwned::Sequence(list) => {
            Data::List(list.iter().map(|node| read(node, depth - 1, values)).collect::<anyhow::Result<_>>()?)
        }
        YamlDataOwned::Mapping(map) => {
            let mut entries: Vec<(Key, Node)> = Vec::new();
            let mut merged = Vec::new();
            for (key, value) in map {
                let line = key.span.start.line();
                let name = match &key.data {
                    YamlDataOwned::Value(scalar) => Node { line, data: scalar_of(scalar) }.to_string(),
                    _ => bail!("line {line}: a key must be a text"),
                };
                let value = read(value, depth - 1, values)?;
                if name == MERGE { merged.push(value) } else { entries.push((Key { line, name }, value)) }
            }
            let bases = merged.iter().flat_map(|base| match &base.data {
                Data::List(list) => list.as_slice(),
                _ => std::slice::from_ref(base),
            });
            for (key, value) in bases.flat_map(Node::entries) {
                if entries.iter().all(|(own, _)| own.name != key.name) {
                    entries.push((key.clone(), value.clone()));
                }
            }
            Data::Map(entries)
        }
        YamlDataOwned::Alias(_) | YamlDataOwned::BadValue => bail!("line {line}: this is no YAML value"),
    };
    Ok(Node { line, data })
}

fn scalar_of(scalar: &ScalarOwned) -> Data {
    match scalar {
        ScalarOwned::Null => Data::Null,
        ScalarOwned::Boolean(value) => Data::Bool(*value),
        ScalarOwned::Integer(number) => Data::Whole(*number),
        ScalarOwned::FloatingPoint(number) => Data::Real(number.into_inner()),
        ScalarOwned::String(text) => Data::Text(text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_have_their_types_and_lines() {
        let node = Node::parse("a: 1\nb:\n  - x\n  - true\n  - 1.5\n  - ~\n  - '2'\nc: {d: e}\n").unwrap();
        assert_eq!(node.json(), json!({"a": 1, "b": ["x", true, 1.5, null, "2"], "c": {"d": "e"}}));
        let lines: Vec<_> = node.entries().iter().map(|(key, _)| key.line).collect();
        assert_eq!(lines, [1, 2, 8]);
    }

    #[test]
    fn anchors_and_merges_are_followed() {
        let text = "base: &base {a: 1, b: 2}\nown:\n  <<: *base\n  b: 3\nsame: *base\n";
        let node = Node::parse(text).unwrap();
        assert_eq!(node.get("own").unwrap().json(), json!({"b": 3, "a": 1}));
        assert_eq!(node.get("same").unwrap().json(), json!({"a": 1, "b": 2}));
    }

    #[test]
    fn what_is_no_yaml_is_named_with_its_line() {
        for (text, part) in [
            ("a: [1\nb: 2\n", "line"),
            ("", "holds 0"),
            ("a: 1\n---\nb: 2\n", "holds 2"),
            ("? [a, b]\n: 1\n", "line 1: a key must be a text"),
        ] {
            let error = Node::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        assert!(Node::parse(&deep).is_err());
    }
}
