//! One resource of a file: a function with everything that is deployed with it, in the terms of Function Compute's APIs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::BUILD_FOLDER;
use super::keys::{self, Shape};
use super::yaml::Node;
use crate::cli::shell::quoted;
use crate::cli::source::{Runtime, Source};
use crate::ids::FunctionName;

/// An object of the API.
pub(super) type Object = Map<String, Value>;

/// A function.
pub(crate) struct Resource {
    /// Its name on a host.
    pub(in crate::cli) name: FunctionName,
    /// Its service, for the component `fc`.
    pub(in crate::cli) service: Option<Object>,
    /// Its fields, but for its code.
    pub(in crate::cli) fields: Object,
    pub(in crate::cli) triggers: Vec<Object>,
    pub(in crate::cli) asynchronous: Option<Object>,
    pub(in crate::cli) concurrency: Option<Object>,
    pub(in crate::cli) provision: Option<Object>,
    pub(in crate::cli) scaling: Option<Object>,
    pub(in crate::cli) domains: Vec<Object>,
    pub(in crate::cli) aliases: Vec<Object>,
    /// The file that is deployed.
    pub(in crate::cli) component: PathBuf,
    /// The commands that are run before.
    pub(in crate::cli) build: Option<String>,
    /// What the component is made of, if it is made here.
    pub(in crate::cli) source: Option<Source>,
}

/// Where faults and notes go.
pub(super) type Reports<'a> = (&'a mut Vec<String>, &'a mut Vec<String>);

impl Resource {
    /// Reads a resource; none if something is wrong with its keys.
    pub(super) fn read(
        label: &str,
        mut node: Node,
        folder: &Path,
        (faults, notes): Reports<'_>,
    ) -> anyhow::Result<Option<Resource>> {
        let before = faults.len();
        keys::check(&mut node, Shape::Map(keys::RESOURCE), label, faults);
        let component = node.get("component").with_context(|| format!("line {}: `component` is missing", node.line))?;
        let (is_fc3, known) = match component.text().unwrap_or_default().split('@').next().unwrap_or_default() {
            "fc3" => (true, keys::FC3),
            "fc" | "devsapp/fc" => (false, keys::FC),
            other => bail!("line {}: component `{other}` is not known; known are `fc` and `fc3`", component.line),
        };
        let mut props = node.get("props").with_context(|| format!("line {}: `props` is missing", node.line))?.clone();
        keys::check(&mut props, Shape::Map(known), "", faults);
        let line = props.line;
        let made = if is_fc3 { fc3(&props, folder, notes) } else { fc(&props, folder, notes) };
        let mut resource = made.with_context(|| format!("line {line}"))?;
        resource.build = commands(&node, notes);
        Ok((faults.len() == before).then_some(resource))
    }

    /// The handlers that the fields name.
    fn handlers(fields: &Object) -> Vec<String> {
        let hooks = fields.get("instanceLifecycleConfig").and_then(Value::as_object);
        let hooks = hooks.into_iter().flat_map(Map::values).filter_map(|hook| hook.get("handler"));
        let named = ["handler", "initializer"].into_iter().filter_map(|name| fields.get(name)).chain(hooks);
        let mut handlers: Vec<String> = Vec::new();
        for handler in named.filter_map(Value::as_str).filter(|handler| !handler.is_empty()) {
            if !handlers.iter().any(|known| known == handler) {
                handlers.push(handler.to_owned());
            }
        }
        handlers
    }
}

/// A resource of the component `fc3`.
fn fc3(props: &Node, folder: &Path, notes: &mut Vec<String>) -> anyhow::Result<Resource> {
    let mut fields = object(props);
    fields.remove("region");
    fields.remove("endpoint");
    let own = required(&fields, "functionName")?;
    let name: FunctionName = own.parse()?;
    let code = fields.remove("code");
    let domain = fields.remove("customDomain").and_then(|domain| object_of(&domain)).and_then(|mut domain| {
        let mut routes: Vec<Value> = domain.remove("route").into_iter().collect();
        if let Some(config) = domain.remove("routeConfig") {
            routes.extend(config["routes"].as_array().cloned().unwrap_or_default());
        }
        with_routes(domain, routes, (None, &own), notes)
    });
    let taken = |fields: &mut Object, name: &str| fields.remove(name).and_then(|value| object_of(&value));
    let resource = Resource {
        triggers: list(fields.remove("triggers")),
        aliases: list(fields.remove("aliases")),
        asynchronous: taken(&mut fields, "asyncInvokeConfig"),
        concurrency: taken(&mut fields, "concurrencyConfig"),
        provision: taken(&mut fields, "provisionConfig"),
        scaling: taken(&mut fields, "scalingConfig"),
        domains: domain.into_iter().collect(),
        ..plain(name, None, fields)
    };
    let code = match &code {
        Some(Value::Object(code)) => code.get("src").and_then(Value::as_str),
        Some(Value::String(code)) => Some(code.as_str()),
        _ => None,
    };
    with_code(resource, code.context("`code` is missing; it is the path of the function's folder")?, folder)
}

/// A resource of the component `fc`.
fn fc(props: &Node, folder: &Path, notes: &mut Vec<String>) -> anyhow::Result<Resource> {
    let mut props = object(props);
    let mut service = props.remove("service").and_then(|value| object_of(&value)).context("`service` is missing")?;
    let mut fields = props.remove("function").and_then(|value| object_of(&value)).context("`function` is missing")?;
    let named = |object: &mut Object, what: &str| -> anyhow::Result<String> {
        let name = required(object, "name").with_context(|| format!("of the {what}"))?;
        object.remove("name");
        object.insert(format!("{what}Name"), name.clone().into());
        Ok(name)
    };
    let (service_name, own) = (named(&mut service, "service")?, named(&mut fields, "function")?);
    let name = FunctionName::of_service(&service_name, &own)?;
    let triggers = list(props.remove("triggers")).into_iter().map(|mut trigger| {
        for (short, long) in
            [("name", "triggerName"), ("type", "triggerType"), ("config", "triggerConfig"), ("role", "invocationRole")]
        {
            trigger = renamed(trigger, short, long);
        }
        trigger
    });
    let domains = list(props.remove("customDomains")).into_iter().filter_map(|mut domain| {
        let routes = domain.remove("routeConfigs").and_then(|routes| routes.as_array().cloned()).unwrap_or_default();
        with_routes(domain, routes, (Some(&service_name), &own), notes)
    });
    let code = required(&fields, "codeUri").context("of the function");
    fields.remove("codeUri");
    let asynchronous = fields.remove("asyncConfiguration").and_then(|value| object_of(&value));
    let resource = Resource {
        triggers: triggers.collect(),
        domains: domains.collect(),
        aliases: list(props.remove("aliases")),
        asynchronous: asynchronous.map(|rules| renamed(rules, "destination", "destinationConfig")),
        ..plain(name, Some(service), fields)
    };
    with_code(resource, &code?, folder)
}

fn plain(name: FunctionName, service: Option<Object>, fields: Object) -> Resource {
    Resource {
        name,
        service,
        fields,
        triggers: Vec::new(),
        asynchronous: None,
        concurrency: None,
        provision: None,
        scaling: None,
        domains: Vec::new(),
        aliases: Vec::new(),
        component: PathBuf::new(),
        build: None,
        source: None,
    }
}

/// What the code is: a component, a folder with one, or source code.
fn with_code(mut resource: Resource, code: &str, folder: &Path) -> anyhow::Result<Resource> {
    let path = folder.join(code.trim_start_matches("./"));
    let runtime = required(&resource.fields, "runtime")?;
    if path.extension().is_some_and(|extension| extension == "wasm" || extension == "zip") {
        resource.component = path;
    } else if let Some(runtime) = Runtime::named(&runtime) {
        let handlers = Resource::handlers(&resource.fields);
        resource.component = folder.join(BUILD_FOLDER).join(format!("{}.wasm", resource.name));
        resource.source = Some(Source { runtime, folder: path, handlers });
    } else {
        let components = std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
        let components = components.filter(|path| path.extension().is_some_and(|extension| extension == "wasm"));
        let components: Vec<PathBuf> = components.collect();
        let [component] = components.as_slice() else {
            bail!(
                "the runtime `{runtime}` needs a component, and {} holds {} files `.wasm`; it must be a folder with one, or the \
                 file itself. Source code is built for runtimes of Python and Node.js",
                path.display(),
                components.len()
            );
        };
        resource.component = component.clone();
    }
    Ok(resource)
}

/// A domain with its routes; none if it has no name of its own.
fn with_routes(
    mut domain: Object,
    routes: Vec<Value>,
    (service, function): (Option<&str>, &str),
    notes: &mut Vec<String>,
) -> Option<Object> {
    if domain.get("domainName").and_then(Value::as_str) == Some("auto") {
        notes.push(
            "`domainName: auto` has no effect: there are no names to give away here; an HTTP trigger has an address without one"
                .to_owned(),
        );
        return None;
    }
    let routes = routes.into_iter().filter_map(|route| object_of(&route)).map(|mut route| {
        route.entry("functionName").or_insert_with(|| function.into());
        if let Some(service) = service {
            route.entry("serviceName").or_insert_with(|| service.into());
        }
        Value::Object(route)
    });
    domain.insert("routeConfig".to_owned(), json!({"routes": routes.collect::<Vec<_>>()}));
    Some(domain)
}

/// The commands that a resource runs before it is deployed, as one.
fn commands(node: &Node, notes: &mut Vec<String>) -> Option<String> {
    let mut commands = Vec::new();
    for (when, actions) in node.get("actions").map(Node::entries).unwrap_or_default() {
        let actions = match &actions.data {
            super::yaml::Data::List(actions) => actions.as_slice(),
            _ => &[],
        };
        for action in actions {
            match action.get("run").and_then(Node::text) {
                Some(command) if when.name == "pre-deploy" => {
                    commands.push(match action.get("path").and_then(Node::text) {
                        Some(path) => format!("(cd '{}' && {command}\n)", quoted(path)),
                        None => format!("({command}\n)"),
                    })
                }
                _ => notes.push(format!(
                    "line {}: this action of `{}` has no effect: only `run` of `pre-deploy` is carried out",
                    action.line, when.name
                )),
            }
        }
    }
    (!commands.is_empty()).then(|| commands.join(" && "))
}

fn required(fields: &Object, name: &str) -> anyhow::Result<String> {
    let text = fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    text.map(str::to_owned).with_context(|| format!("`{name}` is missing; it must be a text"))
}

fn renamed(mut object: Object, short: &str, long: &str) -> Object {
    if let Some(value) = object.remove(short) {
        object.insert(long.to_owned(), value);
    }
    object
}

fn object(node: &Node) -> Object {
    object_of(&node.json()).unwrap_or_default()
}

/// An object without what is `null` in it.
fn object_of(value: &Value) -> Option<Object> {
    let object = value.as_object()?;
    Some(
        object
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    )
}

fn list(value: Option<Value>) -> Vec<Object> {
    value.and_then(|value| value.as_array().cloned()).unwrap_or_default().iter().filter_map(object_of).collect()
}
