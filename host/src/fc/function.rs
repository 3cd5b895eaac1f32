//! A function as these APIs write it, and as the settings of this host have it. Nothing here reads or changes anything.
//!
//! Fields that have a counterpart become settings. All others are kept as they were written, in the setting
//! `functionCompute`, so that a client reads back what it wrote; what a client might rely on and does not get is named in
//! `warnings`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::api::Api;
use super::environment;
use super::fault::Fault;
use super::input::{Fields, without_nulls};
use crate::catalog::{Function, Hook, HttpEvent, Revision, SettingsSpec, export_name};
use crate::ids::FunctionName;

/// The prefix of resource names; this host is one region with one account.
pub(super) const ARN: &str = "acs:fc:local:0:functions/";
/// What a function's memory may be, in MB.
const MEMORY_MB: std::ops::RangeInclusive<u64> = 128..=32_768;
/// What 32-bit addresses reach.
const MEMORY_MB_MAX: u64 = 4096;

/// Fields that are kept as they are; and why they have no effect, if a client should know.
const KEPT: &[(&str, Option<&str>)] = &[
    ("runtime", None),
    ("handler", None),
    ("initializer", None),
    ("instanceType", None),
    ("instanceSoftConcurrency", None),
    ("cpu", None),
    ("diskSize", None),
    ("caPort", None),
    ("instanceIsolationMode", None),
    ("disableInjectCredentials", None),
    ("resourceGroupId", None),
    ("enableLongLiving", None),
    ("customRuntimeConfig", Some("its commands are not run: the component is the whole function")),
    ("customContainerConfig", Some("no image is run: the component is the whole function")),
    ("customHealthCheckConfig", Some("an instance that answers is healthy")),
    ("customDNS", Some("names are looked up as on the host")),
    ("disableOndemand", Some("instances are started as they are needed, up to `maxInstances`")),
    ("gpuMemorySize", Some("there is no GPU")),
    ("gpuConfig", Some("there is no GPU")),
    ("layers", Some("a component holds everything that it needs")),
    ("logConfig", Some("lines are kept by this host: `dormouse logs` shows them")),
    ("microSandboxConfig", Some("every instance has a sandbox of its own")),
    ("role", Some("functions get no credentials")),
    ("sessionAffinity", Some("requests with the same `Dormouse-Affinity` stay on one version, not on one instance")),
    ("sessionAffinityConfig", None),
    ("tracingConfig", Some("functions get a `traceparent`; traces go where the host's `--otlp-endpoint` says")),
    ("vpcConfig", Some("functions reach the network of the host, as far as `internetAccess` lets them")),
];
/// Fields that stand for files; a function would lose what it writes there.
const REFUSED: &[&str] = &["nasConfig", "ossMountConfig", "juiceFsConfig", "polarFsConfig"];

/// The three hooks: the field's name, that of the setting, and the longest timeout in seconds.
const HOOKS: [(&str, &str, u64); 3] =
    [("initializer", "initializer", 300), ("preFreeze", "pre-freeze", 90), ("preStop", "pre-stop", 90)];

/// Where fields go.
pub(super) struct Change<'a> {
    /// The function's name on this host.
    pub(super) name: &'a FunctionName,
    pub(super) api: Api,
    /// Whether the function is new.
    pub(super) is_new: bool,
    /// Whether there is new code, which may export something else.
    pub(super) has_code: bool,
    /// Whether the code exports this name.
    pub(super) exports: &'a (dyn Fn(&str) -> bool + Sync),
}

/// The settings of a function that is created, before its fields are looked at.
pub(super) fn new_settings(billing_basis: crate::meter::Basis) -> SettingsSpec {
    let mut spec = SettingsSpec { timeout_ms: 3000, billing_basis: Some(billing_basis), ..SettingsSpec::default() };
    spec.allowed_outbound_hosts = vec!["*".to_owned()];
    spec.http_event = HttpEvent::Request;
    // Hooks run only if they are configured.
    for hook in [&mut spec.lifecycle.initializer, &mut spec.lifecycle.pre_freeze, &mut spec.lifecycle.pre_stop] {
        hook.handler = Some(String::new());
    }
    spec.asynchronous.max_attempts = Some(4);
    spec.asynchronous.max_event_age_ms = Some(86_400_000);
    spec
}

impl Change<'_> {
    /// Puts the fields of a request into the settings.
    pub(super) fn apply(&self, fields: &Fields<'_>, spec: &mut SettingsSpec) -> Result<(), Fault> {
        if self.is_new {
            fields.required("runtime")?;
            fields.required("handler")?;
        }
        keep(fields, &mut spec.function_compute)?;
        self.numbers(fields, spec)?;
        if let Some(text) = fields.text("description")? {
            text.clone_into(&mut spec.description);
        }
        if let Some(environment) = fields.texts("environmentVariables")? {
            environment::check(&environment)?;
            spec.environment = environment;
        }
        if let Some(open) = fields.boolean("internetAccess")? {
            spec.allowed_outbound_hosts = if open { vec!["*".to_owned()] } else { Vec::new() };
        }
        if fields.has("handler") || self.has_code {
            spec.handler = self.handler(&spec.function_compute);
        }
        if fields.has("tags") && self.is_new {
            spec.tags = tags(fields)?;
        }
        self.hooks(fields, spec)?;
        environment::complete(self.name, spec);
        Ok(())
    }

    fn numbers(&self, fields: &Fields<'_>, spec: &mut SettingsSpec) -> Result<(), Fault> {
        if let Some(megabytes) = fields.whole("memorySize", MEMORY_MB)? {
            if megabytes % 64 != 0 {
                return Err(Fault::invalid(format!("`memorySize` is {megabytes}; it must be a multiple of 64")));
            }
            if megabytes > MEMORY_MB_MAX {
                return Err(Fault::invalid(format!(
                    "`memorySize` is {megabytes}; a component reaches at most {MEMORY_MB_MAX} MB, because its addresses have 32 bits"
                )));
            }
            spec.memory_mb = u32::try_from(megabytes).unwrap_or(u32::MAX);
        }
        if let Some(seconds) = fields.whole("timeout", 1..=86_400)? {
            spec.timeout_ms = seconds * 1000;
        }
        if let Some(count) = fields.whole("instanceConcurrency", 1..=200)? {
            spec.concurrency = u32::try_from(count).unwrap_or(u32::MAX);
        }
        if let Some(seconds) = fields.whole("idleTimeout", 0..=2_592_000)? {
            spec.idle_timeout_ms = seconds * 1000;
        }
        Ok(())
    }

    /// The export that answers requests. What a custom runtime calls its handler says nothing about a component.
    fn handler(&self, kept: &Map<String, Value>) -> String {
        let own = kept.get("handler").and_then(Value::as_str).unwrap_or_default();
        if self.finds_functions_itself(kept) {
            return "handler".to_owned();
        }
        if (self.exports)(&export_name(own)) { own.to_owned() } else { "handler".to_owned() }
    }

    /// Whether the component was made of source code: then what is behind its exports finds the functions that are named.
    fn finds_functions_itself(&self, kept: &Map<String, Value>) -> bool {
        let runtime = kept.get("runtime").and_then(Value::as_str).unwrap_or_default();
        let is_language = runtime.starts_with("python") || runtime.starts_with("nodejs");
        is_language && ["handler", "initializer", "pre-freeze", "pre-stop"].iter().all(|name| (self.exports)(name))
    }

    fn hooks(&self, fields: &Fields<'_>, spec: &mut SettingsSpec) -> Result<(), Fault> {
        let lifecycle = fields.object("instanceLifecycleConfig")?;
        for (name, export, longest) in HOOKS {
            let given = match lifecycle {
                Some(lifecycle) => lifecycle.object(name)?,
                None => None,
            };
            let (mut handler, mut timeout) = (None, None);
            if let Some(given) = given {
                handler = given.text("handler")?.map(str::to_owned).or(command(&given)?);
                // The timeout of a hook that is disabled has no meaning.
                if handler.as_deref() != Some("") {
                    timeout = given.whole("timeout", 1..=longest)?;
                }
            }
            if name == "initializer" && self.api.has_services() {
                handler = fields.text("initializer")?.map(str::to_owned).or(handler);
                if handler.as_deref() != Some("") {
                    timeout = fields.whole("initializationTimeout", 1..=longest)?.or(timeout);
                }
            }
            let hook = match name {
                "initializer" => &mut spec.lifecycle.initializer,
                "preFreeze" => &mut spec.lifecycle.pre_freeze,
                _ => &mut spec.lifecycle.pre_stop,
            };
            self.hook(hook, (name, export), handler, &mut spec.function_compute);
            if let Some(seconds) = timeout {
                hook.timeout_ms = seconds * 1000;
            }
        }
        Ok(())
    }

    /// Sets one hook; without a handler it stays as it is, but for new code that may call its export by another name.
    fn hook(
        &self,
        hook: &mut Hook,
        (name, export): (&str, &str),
        handler: Option<String>,
        kept: &mut Map<String, Value>,
    ) {
        let is_disabled = hook.handler.as_deref() == Some("");
        let wanted = match handler {
            Some(handler) => handler,
            None if self.has_code && !is_disabled => written(kept, name).unwrap_or_default().to_owned(),
            None => return,
        };
        let hooks = kept.entry("hooks").or_insert_with(|| json!({}));
        if let Value::Object(hooks) = hooks {
            hooks.insert(name.to_owned(), wanted.clone().into());
        }
        // Any text turns a hook on; the export has the hook's own name, unless there is one of the text's.
        let own = (self.exports)(&export_name(&wanted)) && !self.finds_functions_itself(kept);
        let own = own || !(self.exports)(export);
        hook.handler = Some(if wanted.is_empty() || own { wanted } else { export.to_owned() });
    }
}

/// What a client wrote as a hook's handler.
fn written<'a>(kept: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    kept.get("hooks")?.get(name)?.as_str()
}

/// The command of a hook, which custom runtimes may have instead of a handler.
fn command(hook: &Fields<'_>) -> Result<Option<String>, Fault> {
    let Some(parts) = hook.list("command")? else { return Ok(None) };
    let parts: Vec<&str> = parts.iter().filter_map(Value::as_str).collect();
    Ok(Some(parts.join(" ")))
}

fn keep(fields: &Fields<'_>, kept: &mut Map<String, Value>) -> Result<(), Fault> {
    for name in REFUSED {
        if fields.get(name).is_some_and(|value| !is_empty(value)) {
            return Err(Fault::invalid(format!(
                "`{name}` names a file system, which functions of this host do not have: what they write would be lost"
            )));
        }
    }
    for (name, _) in KEPT {
        if let Some(value) = fields.get(name) {
            kept.insert((*name).to_owned(), without_nulls(value));
        }
    }
    Ok(())
}

/// Whether a value says nothing: an empty text, list or object, `false`, or one that holds only these.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty() || text == "NONE",
        Value::Array(list) => list.iter().all(is_empty),
        Value::Object(map) => map.values().all(is_empty),
        Value::Number(number) => number.as_f64() == Some(0.0),
    }
}

/// Tags as a list of keys and values.
pub(super) fn tags(fields: &Fields<'_>) -> Result<BTreeMap<String, String>, Fault> {
    let list = fields.list("tags")?.or(fields.list("tag")?);
    let mut tags = BTreeMap::new();
    for tag in list.into_iter().flatten() {
        let Value::Object(tag) = tag else {
            return Err(Fault::invalid("`tags` must be a list of objects with `Key` and `Value`"));
        };
        let tag = Fields::of(tag);
        tags.insert(tag.required("key")?.to_owned(), tag.text("value")?.unwrap_or_default().to_owned());
    }
    Ok(tags)
}

/// What has no effect, for people.
pub(super) fn warnings(kept: &Map<String, Value>) -> Vec<String> {
    let warning = |(name, why): &(&str, Option<&str>)| {
        let why = why.filter(|_| kept.get(*name).is_some_and(|value| !is_empty(value)))?;
        Some(format!("`{name}` is kept and has no effect: {why}"))
    };
    KEPT.iter().filter_map(warning).collect()
}

/// A function, or a version of it, as the API answers it.
pub(super) fn view(api: Api, function: &Function, revision: &Revision) -> Value {
    let spec = function.spec_of(revision);
    let kept = &spec.function_compute;
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    let mut view = Map::new();
    for (name, _) in KEPT {
        if let Some(value) = kept.get(*name) {
            view.insert((*name).to_owned(), value.clone());
        }
    }
    view.entry("runtime").or_insert_with(|| "custom".into());
    view.entry("handler").or_insert_with(|| spec.handler.clone().into());
    let hook = |name: &str, hook: &Hook| {
        let handler = match hook.handler.as_deref() {
            Some("") => "",
            // Turned on by default: it runs if the component has it.
            None => "",
            Some(own) => written(kept, name).filter(|text| !text.is_empty()).unwrap_or(own),
        };
        json!({"handler": handler, "timeout": hook.timeout_ms.div_ceil(1000)})
    };
    let mut lifecycle = json!({
        "preFreeze": hook("preFreeze", &spec.lifecycle.pre_freeze), "preStop": hook("preStop", &spec.lifecycle.pre_stop),
    });
    let initializer = hook("initializer", &spec.lifecycle.initializer);
    let mut set = |name: &str, value: Value| drop(view.insert(name.to_owned(), value));
    if api.has_services() {
        set("initializer", initializer["handler"].clone());
        set("initializationTimeout", initializer["timeout"].clone());
    } else {
        lifecycle["initializer"] = initializer;
        set("functionArn", format!("{ARN}{}", function.name).into());
        set("state", "Active".into());
        set("lastUpdateStatus", "Successful".into());
        set("idleTimeout", (spec.idle_timeout_ms / 1000).into());
        let tags = spec.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value}));
        set("tags", tags.collect());
        let layers = kept.get("layers").and_then(Value::as_array).into_iter().flatten();
        set("layers", layers.map(|arn| json!({"arn": arn, "size": 0})).collect());
        if let Some(reason) = &function.disabled {
            set(
                "invocationRestriction",
                json!({"disable": true, "reason": reason, "lastModifiedTime": time(function.updated)}),
            );
        }
    }
    set("instanceLifecycleConfig", lifecycle);
    set("functionName", function.name.parts().1.into());
    set("functionId", kept.get("functionId").cloned().unwrap_or_else(|| function.name.as_str().into()));
    set("description", spec.description.clone().into());
    set("memorySize", spec.memory_mb.into());
    set("timeout", spec.timeout_ms.div_ceil(1000).into());
    set("instanceConcurrency", spec.concurrency.into());
    set("environmentVariables", json!(environment::own(&spec.environment)));
    set("internetAccess", (!spec.allowed_outbound_hosts.is_empty()).into());
    set("codeSize", kept.get("codeSize").cloned().unwrap_or_else(|| revision.component_bytes.into()));
    set("codeChecksum", kept.get("codeChecksum").cloned().unwrap_or_else(|| "".into()));
    set("createdTime", time(function.created).into());
    set("lastModifiedTime", time(function.updated).into());
    let warnings = warnings(kept);
    if !warnings.is_empty() {
        set("warnings", warnings.into());
    }
    Value::Object(view)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::meter::Basis;

    fn applied(api: Api, spec: &mut SettingsSpec, is_new: bool, fields: &Value, exports: &[&str]) -> Result<(), Fault> {
        let exports = |name: &str| exports.contains(&name);
        let name = "shop.cart".parse().unwrap();
        let change = Change { name: &name, api, is_new, has_code: is_new, exports: &exports };
        change.apply(&Fields::of(fields.as_object().unwrap()), spec)
    }

    const ALL: &[&str] = &["handler", "initializer", "pre-freeze", "pre-stop"];

    fn hooks(spec: &SettingsSpec) -> [(Option<&str>, u64); 3] {
        let lifecycle = &spec.lifecycle;
        [&lifecycle.initializer, &lifecycle.pre_freeze, &lifecycle.pre_stop]
            .map(|hook| (hook.handler.as_deref(), hook.timeout_ms))
    }

    #[test]
    fn hooks_run_if_they_are_configured_and_stay_if_they_are_left_out() {
        let mut spec = new_settings(Basis::Duration);
        let fields = json!({"runtime": "custom", "handler": "index.handler", "initializer": "index.init", "initializationTimeout": 5,
            "instanceLifecycleConfig": {"preFreeze": {"handler": "index.preFreeze", "timeout": 30}}});
        applied(Api::V2016, &mut spec, true, &fields, ALL).unwrap();
        let initializer = (Some("initializer"), 5000);
        assert_eq!(hooks(&spec), [initializer, (Some("index.preFreeze"), 30_000), (Some(""), 3000)]);
        let update = json!({"InstanceLifecycleConfig": {"PreStop": {"Handler": "bye", "Timeout": 40}}});
        applied(Api::V2021, &mut spec, false, &update, ALL).unwrap();
        assert_eq!(hooks(&spec), [initializer, (Some("index.preFreeze"), 30_000), (Some("pre-stop"), 40_000)]);
        let disabled = json!({"instanceLifecycleConfig": {"preFreeze": {"handler": "", "timeout": 6000}}});
        applied(Api::V2016, &mut spec, false, &disabled, ALL).unwrap();
        assert_eq!(hooks(&spec), [initializer, (Some(""), 30_000), (Some("pre-stop"), 40_000)]);
        let removed = json!({"instanceLifecycleConfig": {"initializer": {"command": [], "handler": "", "timeout": 3},
            "preStop": {"command": []}}});
        applied(Api::V2023, &mut spec, false, &removed, ALL).unwrap();
        assert_eq!(hooks(&spec), [(Some(""), 5000), (Some(""), 30_000), (Some(""), 40_000)]);
    }

    #[test]
    fn handlers_name_exports_if_there_are_such_and_else_the_usual_ones() {
        let create = |handler: &str, exports: &[&str]| {
            let mut spec = new_settings(Basis::Duration);
            let fields = json!({"runtime": "custom", "handler": handler,
                "instanceLifecycleConfig": {"preStop": {"handler": "main.lastWords"}}});
            applied(Api::V2023, &mut spec, true, &fields, exports).unwrap();
            (spec.handler, spec.lifecycle.pre_stop.handler.unwrap())
        };
        let own = |handler: &str, hook: &str| (handler.to_owned(), hook.to_owned());
        assert_eq!(create("index.run", &["handler", "run", "pre-stop"]), own("index.run", "pre-stop"));
        assert_eq!(create("bootstrap", ALL), own("handler", "pre-stop"));
        assert_eq!(create("index.handler", &["handler", "last-words"]), own("index.handler", "main.lastWords"));
        // The glue of languages finds functions itself, and may export whatever else.
        let mut spec = new_settings(Basis::Duration);
        let swapped = json!({"runtime": "nodejs20", "handler": "index.run", "instanceLifecycleConfig": {
            "initializer": {"handler": "index.init"}, "preStop": {"handler": "index.preFreeze"}}});
        applied(Api::V2023, &mut spec, true, &swapped, &["init", "run", ALL[0], ALL[1], ALL[2], ALL[3]]).unwrap();
        assert_eq!(
            (spec.handler.as_str(), hooks(&spec)[0].0, hooks(&spec)[2].0),
            ("handler", Some("initializer"), Some("pre-stop"))
        );
        // Nothing to call: the catalog says so.
        assert_eq!(create("index.handler", &["handler"]), own("index.handler", "main.lastWords"));
    }

    #[test]
    fn numbers_have_the_bounds_of_function_compute() {
        let refused = |fields: Value| {
            let mut spec = new_settings(Basis::Duration);
            applied(Api::V2016, &mut spec, false, &fields, ALL).unwrap_err().message.into_owned()
        };
        for (fields, part) in [
            (json!({"memorySize": 100}), "`memorySize` is 100"),
            (json!({"memorySize": 130}), "multiple of 64"),
            (json!({"memorySize": 8192}), "at most 4096 MB"),
            (json!({"timeout": 0}), "`timeout` is 0"),
            (json!({"timeout": 86_401}), "`timeout` is 86401"),
            (json!({"instanceConcurrency": 201}), "`instanceConcurrency` is 201"),
            (json!({"initializationTimeout": 301}), "`initializationTimeout` is 301"),
            (
                json!({"instanceLifecycleConfig": {"preStop": {"handler": "x", "timeout": 91}}}),
                "preStop.timeout` is 91",
            ),
            (json!({"instanceLifecycleConfig": []}), "`instanceLifecycleConfig` is a list"),
            (json!({"nasConfig": {"mountPoints": [{"mountDir": "/mnt"}]}}), "`nasConfig` names a file system"),
        ] {
            let said = refused(fields);
            assert!(said.contains(part), "{said}");
        }
        let mut spec = new_settings(Basis::Duration);
        let fine = json!({"memorySize": 512, "timeout": 10, "InstanceConcurrency": 7, "internetAccess": false,
            "nasConfig": {"mountPoints": [], "userId": 0}, "vpcConfig": {"vpcId": "vpc-1"}, "layers": []});
        applied(Api::V2021, &mut spec, false, &fine, ALL).unwrap();
        assert_eq!((spec.memory_mb, spec.timeout_ms, spec.concurrency), (512, 10_000, 7));
        assert!(spec.allowed_outbound_hosts.is_empty());
        let warnings = warnings(&spec.function_compute);
        assert!(matches!(warnings.as_slice(), [one] if one.contains("`vpcConfig`")), "{warnings:?}");
    }
}
