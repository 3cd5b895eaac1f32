//! `dormouse.toml`: the functions of a project, where their components are, how they are built and configured.
//!
//! Read by `build`, `deploy` and `up`. Every fault of a manifest is reported together. Nothing here builds or deploys.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::source::{Runtime, Source};
use super::spelling;
use crate::catalog::SettingsSpec;
use crate::ids::{AliasName, FunctionName, LATEST, VersionNumber};

/// The name a manifest has in its folder.
pub(super) const FILE_NAME: &str = "dormouse.toml";
/// What a function may have beside its settings.
const OWN_KEYS: [&str; 5] = ["component", "build", "source", "example", "aliases"];

/// A checked manifest.
#[derive(Debug)]
pub(super) struct Manifest {
    /// Where it stands.
    pub(super) path: PathBuf,
    /// Its folder, in which build commands run.
    pub(super) folder: PathBuf,
    /// Sorted by name.
    pub(super) functions: Vec<ManifestFunction>,
}

/// One function of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ManifestFunction {
    pub(super) name: FunctionName,
    /// The component, found from where the command runs.
    pub(super) component: PathBuf,
    /// The shell command that makes the component.
    pub(super) build: Option<String>,
    /// What the component is made of, if it is source code for Function Compute's runtimes.
    pub(super) source: Option<Source>,
    /// An event to try the function with; for a function of HTTP, a path such as `/tea`, or a body.
    pub(super) example: Option<String>,
    /// The whole configuration; what the manifest leaves out has its default.
    pub(super) settings: SettingsSpec,
    /// Names for its versions, set after it was deployed.
    pub(super) aliases: Vec<ManifestAlias>,
}

/// `[functions.NAME.aliases.ALIAS]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ManifestAlias {
    pub(super) alias: AliasName,
    /// The version that gets what the weights leave; none: `LATEST`, which is published for it.
    pub(super) version: Option<VersionNumber>,
    /// Shares of other versions.
    pub(super) weights: BTreeMap<VersionNumber, f64>,
}

/// Everything that is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub(super) struct ManifestFaults {
    pub(super) path: PathBuf,
    pub(super) faults: Vec<String>,
}

impl fmt::Display for ManifestFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.faults.as_slice() {
            [fault] => write!(f, "{path}: {fault}"),
            faults => {
                write!(f, "{path} has {} faults:", faults.len())?;
                faults.iter().try_for_each(|fault| write!(f, "\n  - {fault}"))
            }
        }
    }
}

impl Manifest {
    /// Reads the manifest at `location`, or the `dormouse.toml` in it if it is a folder.
    pub(super) fn read(location: &Path) -> anyhow::Result<Manifest> {
        let path = if location.is_dir() { location.join(FILE_NAME) } else { location.to_owned() };
        let path = path.strip_prefix(".").map(Path::to_owned).unwrap_or(path);
        if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            bail!("{0} is no manifest; `-t {0}` takes a file of Serverless Devs", path.display());
        }
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let template = path.with_file_name("s.yaml");
                if template.is_file() {
                    bail!("there is no {}, but there is {1}: `-t {1}` takes it", path.display(), template.display());
                }
                bail!("there is no {}; `dormouse new NAME` starts a project that has one", path.display())
            }
            Err(error) => return Err(error).with_context(|| format!("read manifest {}", path.display())),
        };
        Ok(Manifest::parse(&text, path)?)
    }

    fn parse(text: &str, path: PathBuf) -> Result<Manifest, ManifestFaults> {
        let beside = path.parent().unwrap_or(Path::new("")).to_owned();
        let table = match toml::from_str::<toml::Table>(text) {
            Ok(table) => table,
            Err(error) => return Err(ManifestFaults { path, faults: vec![error.to_string().trim_end().to_owned()] }),
        };
        let mut faults = Vec::new();
        let mut functions = Vec::new();
        for (key, value) in table {
            if key != "functions" {
                faults.push(format!("unknown key `{key}`; a manifest has only tables `[functions.NAME]`"));
            } else if let toml::Value::Table(tables) = value {
                functions
                    .extend(tables.into_iter().filter_map(|(name, value)| one(&beside, &name, value, &mut faults)));
            } else {
                faults.push("`functions` is not a table; write `[functions.NAME]`".to_owned());
            }
        }
        if functions.is_empty() && faults.is_empty() {
            faults.push("there is no function; add a table `[functions.NAME]` with a `component`".to_owned());
        }
        if !faults.is_empty() {
            return Err(ManifestFaults { path, faults });
        }
        let folder = if beside == Path::new("") { PathBuf::from(".") } else { beside };
        functions.sort_by(|left: &ManifestFunction, right| left.name.cmp(&right.name));
        Ok(Manifest { path, folder, functions })
    }

    /// Keeps only the functions named, or all of them if none is.
    pub(super) fn only(mut self, names: &[FunctionName]) -> anyhow::Result<Manifest> {
        self.functions = chosen(self.functions, |function| &function.name, names, &self.path)?;
        Ok(self)
    }
}

/// Those of a file's functions that are named, or all of them if none is.
pub(super) fn chosen<T>(
    mut functions: Vec<T>,
    name_of: impl Fn(&T) -> &FunctionName,
    names: &[FunctionName],
    path: &Path,
) -> anyhow::Result<Vec<T>> {
    if let Some(missing) = names.iter().find(|name| functions.iter().all(|function| name_of(function) != *name)) {
        let known: Vec<&str> = functions.iter().map(|function| name_of(function).as_str()).collect();
        bail!("{} has no function `{missing}`; it has: {}", path.display(), known.join(", "));
    }
    if !names.is_empty() {
        functions.retain(|function| names.contains(name_of(function)));
    }
    Ok(functions)
}

/// Reads one `[functions.NAME]`; `None` if anything is wrong with it.
fn one(folder: &Path, name: &str, value: toml::Value, faults: &mut Vec<String>) -> Option<ManifestFunction> {
    let faults_before = faults.len();
    let mut fault = |fault: String| faults.push(format!("function `{name}`: {fault}"));
    let parsed = name.parse::<FunctionName>().map_err(|invalid| fault(invalid.to_string())).ok();
    let Some(Value::Object(mut table)) = json(value) else {
        fault("not a table; write `[functions.NAME]`".to_owned());
        return None;
    };
    let own = OWN_KEYS.map(|key| table.remove(key));
    let [component, build, source, example, aliases] = own;
    let component = match component {
        Some(Value::String(component)) if !component.is_empty() => Some(folder.join(component)),
        Some(_) => {
            fault("`component` is not a path".to_owned());
            None
        }
        None => {
            fault("`component` is missing; it is the path of the .wasm file, from the manifest's folder".to_owned());
            None
        }
    };
    let build = match build {
        None => None,
        Some(Value::String(command)) if !command.trim().is_empty() => Some(command),
        Some(_) => {
            fault("`build` is not a shell command".to_owned());
            None
        }
    };
    let source = source.map_or(Ok(None), |source| self::source(source, folder).map(Some));
    let source = source.map_err(&mut fault).ok();
    // An event may be written as a table too; then it is sent as JSON.
    let example = example.map(|example| match example {
        Value::String(text) => text,
        other => other.to_string(),
    });
    let aliases = aliases.map_or(Some(Vec::new()), |aliases| self::aliases(aliases, &mut fault));
    let settings = settings(table, &mut fault);
    if faults.len() > faults_before {
        return None;
    }
    let (name, component) = (parsed?, component?);
    Some(ManifestFunction { name, component, build, source: source?, example, settings: settings?, aliases: aliases? })
}

/// `[functions.NAME.source]`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawSource {
    folder: String,
    runtime: String,
    handlers: Vec<String>,
}

fn source(value: Value, beside: &Path) -> Result<Source, String> {
    let shape = "write `source = { folder = \"code\", runtime = \"python3\", handlers = [\"index.handler\"] }`";
    let RawSource { folder, runtime, handlers } =
        serde_json::from_value(value).map_err(|error| format!("`source`: {error}; {shape}"))?;
    let runtime = Runtime::named(&runtime)
        .ok_or_else(|| format!("`source.runtime` is `{runtime}`; it must begin with `python` or `nodejs`"))?;
    Ok(Source { runtime, folder: beside.join(folder), handlers })
}

/// What an alias of a manifest may say.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawAlias {
    #[serde(default = "latest")]
    version: String,
    #[serde(default)]
    weights: BTreeMap<String, f64>,
}

fn latest() -> String {
    LATEST.to_owned()
}

/// Reads `[functions.NAME.aliases]`; `None` if anything is wrong with it.
fn aliases(value: Value, fault: &mut impl FnMut(String)) -> Option<Vec<ManifestAlias>> {
    let Value::Object(table) = value else {
        fault("`aliases` is not a table; write `[functions.NAME.aliases.ALIAS]` with `version = \"1\"`".to_owned());
        return None;
    };
    let read = |(name, value): (String, Value)| -> anyhow::Result<ManifestAlias> {
        let alias = name.parse::<AliasName>()?;
        let RawAlias { version, weights } = serde_json::from_value(value)?;
        let version = if version == LATEST { None } else { Some(version.parse()?) };
        let weights = weights.into_iter().map(|(version, weight)| Ok((version.parse()?, weight)));
        Ok(ManifestAlias { alias, version, weights: weights.collect::<anyhow::Result<_>>()? })
    };
    let mut found = Vec::new();
    for (name, value) in table {
        match read((name.clone(), value)) {
            Ok(alias) => found.push(alias),
            Err(error) => {
                fault(format!("alias `{name}`: {error}; write `version = \"1\"` or `version = \"LATEST\"`"));
                return None;
            }
        }
    }
    Some(found)
}

/// Reads the settings value by value, because serde alone stops at the first fault.
fn settings(table: Map<String, Value>, fault: &mut impl FnMut(String)) -> Option<SettingsSpec> {
    let table = spelling::camel_object(table).map_err(&mut *fault).ok()?;
    let mut sound = true;
    for (path, value) in spelling::leaves(&table) {
        if let Err(error) = serde_json::from_value::<SettingsSpec>(spelling::nested(&path, value)) {
            fault(explained(&path, &error.to_string()));
            sound = false;
        }
    }
    if !sound {
        return None;
    }
    let settings = match serde_json::from_value::<SettingsSpec>(Value::Object(table)) {
        Ok(settings) => settings,
        Err(error) => {
            fault(spelling::kebab_names(&error.to_string()));
            return None;
        }
    };
    match settings.check() {
        Ok(_) => Some(settings),
        Err(wrong) => {
            wrong.0.iter().for_each(|wrong| fault(spelling::kebab_names(wrong)));
            None
        }
    }
}

/// A fault at `path` in the manifest's own words.
fn explained(path: &[String], message: &str) -> String {
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, "));
    let Some((unknown, allowed)) = unknown else {
        return format!("`{}`: {}", spelling::spelled(path), spelling::kebab_names(message));
    };
    // The unknown key may be a table on the way to the value.
    let depth = path.iter().position(|part| part == unknown).map_or(path.len(), |index| index + 1);
    let (key, allowed) = (spelling::spelled(&path[..depth]), spelling::kebab_names(allowed));
    let own = if depth == 1 { OWN_KEYS.map(|key| format!(", `{key}`")).concat() } else { String::new() };
    format!("unknown key `{key}`, {allowed}{own}")
}

/// A TOML value as JSON; `None` for numbers that JSON does not have.
fn json(value: toml::Value) -> Option<Value> {
    Some(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)?.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(values) => Value::Array(values.into_iter().map(json).collect::<Option<_>>()?),
        toml::Value::Table(table) => {
            let entry = |(key, value)| Some((key, json(value)?));
            Value::Object(table.into_iter().map(entry).collect::<Option<_>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, ManifestFaults> {
        Manifest::parse(text, PathBuf::from("project/dormouse.toml"))
    }

    #[test]
    fn a_whole_manifest_is_understood() {
        let manifest = parse(
            r#"
            [functions.hello]
            component = "target/hello.wasm"
            build = "cargo build"
            example = { name = "World" }
            memory-mb = 256
            allowed-outbound-hosts = ["example.com"]
            environment = { some-KEY = "x" }

            [functions.hello.lifecycle.pre-freeze]
            handler = ""
            timeout-ms = 50

            [functions.hello.aliases]
            prod = { version = "3", weights = { 4 = 0.25 } }
            next = {}

            [functions.again]
            component = "again.wasm"
            "#,
        )
        .unwrap();
        assert_eq!(manifest.folder, Path::new("project"));
        let [again, hello] = manifest.functions.as_slice() else { panic!("{manifest:?}") };
        assert_eq!(again.settings, SettingsSpec::default());
        assert_eq!(hello.component, Path::new("project/target/hello.wasm"));
        assert_eq!(hello.build.as_deref(), Some("cargo build"));
        assert_eq!(hello.example.as_deref(), Some(r#"{"name":"World"}"#));
        assert_eq!(hello.settings.memory_mb, 256);
        let version = |number| VersionNumber::from_u64(number).unwrap();
        let alias = |name: &str, version, weights: &[_]| ManifestAlias {
            alias: name.parse().unwrap(),
            version,
            weights: weights.iter().copied().collect(),
        };
        let expected = [alias("next", None, &[]), alias("prod", Some(version(3)), &[(version(4), 0.25)])];
        let mut aliases = hello.aliases.clone();
        aliases.sort_by(|one, other| one.alias.cmp(&other.alias));
        assert_eq!(aliases, expected);
        assert_eq!(hello.settings.environment["some-KEY"], "x");
        assert_eq!(hello.settings.lifecycle.pre_freeze.handler.as_deref(), Some(""));
        assert_eq!(hello.settings.lifecycle.pre_freeze.timeout_ms, 50);
    }

    #[test]
    fn every_fault_is_reported_together() {
        let faults = parse(
            r#"
            [host]
            [functions.one]
            memory-mbs = 1
            timeout-ms = "long"
            lifecycle.pre-frezee.handler = "x"
            environment.PORT = 8080
            [functions."not a name"]
            component = 5
            [functions.two]
            component = "x.wasm"
            concurrency = 1000
            memory-mb = 1
            [functions.three]
            component = "x.wasm"
            build = ""
            [functions.four]
            component = "x.wasm"
            aliases.prod = { version = "x" }
            [functions.five]
            component = "x.wasm"
            source = { folder = "code", runtime = "java8", handlers = [] }
            [functions.six]
            component = "x.wasm"
            source = { folder = "code" }
            "#,
        )
        .unwrap_err();
        let text = faults.to_string();
        for part in [
            "unknown key `host`",
            "function `one`: unknown key `memory-mbs`, expected one of",
            "`memory-mb`, `timeout-ms`",
            "`component`, `build`, `source`, `example`, `aliases`",
            "function `five`: `source.runtime` is `java8`; it must begin with `python` or `nodejs`",
            "function `six`: `source`: missing field `runtime`; write `source = {",
            "function `one`: `timeout-ms`: invalid type: string \"long\"",
            "function `one`: unknown key `lifecycle.pre-frezee`, expected one of `initializer`, `pre-freeze`, `pre-stop`",
            "function `one`: `environment.PORT`",
            "function `one`: `component` is missing",
            "`not a name` is not a function name",
            "`component` is not a path",
            "function `two`: `concurrency` is 1000; it must be 1 to 200",
            "function `two`: `memory-mb` is 1",
            "function `three`: `build` is not a shell command",
            "function `four`: alias `prod`: `x` is not a version",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert_eq!(faults.faults.len(), 14, "{text}");
    }

    #[test]
    fn an_empty_manifest_says_what_is_wanted() {
        assert!(parse("").unwrap_err().to_string().contains("[functions.NAME]"));
        assert!(parse("[functions]").unwrap_err().to_string().contains("[functions.NAME]"));
        assert!(parse("functions = 3").unwrap_err().to_string().contains("not a table"));
        assert!(parse("functions.x = 3").unwrap_err().to_string().contains("function `x`: not a table"));
    }

    #[test]
    fn functions_are_chosen_by_name() {
        let manifest = || parse("functions.a.component = 'a'\nfunctions.b.component = 'b'").unwrap();
        assert_eq!(manifest().only(&[]).unwrap().functions.len(), 2);
        assert_eq!(manifest().only(&["b".parse().unwrap()]).unwrap().functions[0].name.as_str(), "b");
        let missing = manifest().only(&["c".parse().unwrap()]).unwrap_err().to_string();
        assert!(missing.contains("no function `c`; it has: a, b"), "{missing}");
    }
}
