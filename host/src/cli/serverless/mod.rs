//! Files of Serverless Devs, `s.yaml`: what they deploy, in the terms of Function Compute's APIs.
//!
//! `yaml.rs` reads the file, `variables.rs` fills it in, `keys.rs` knows what may be in it, and `resource.rs` makes of each
//! resource the fields that `requests.rs` sends to a host. `manifest.rs` makes a `dormouse.toml` of it instead. Nothing here
//! builds: code that must be built becomes a function of a [`Manifest`], as that of a `dormouse.toml` is.

mod keys;
mod manifest;
mod requests;
mod resource;
mod variables;
mod yaml;

use std::cell::Cell;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use self::resource::Resource;
use self::variables::{LEFT, Scope};
use self::yaml::{Data, Node};
use super::manifest::{Manifest, ManifestFaults, ManifestFunction, chosen};
use crate::catalog::SettingsSpec;
use crate::ids::FunctionName;

/// Where components that are built here are put, beside the file.
pub(super) const BUILD_FOLDER: &str = ".dormouse-build";

const FILE_NAME: &str = "s.yaml";

/// A checked file.
pub(super) struct Template {
    pub(super) path: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) resources: Vec<Resource>,
    /// What of it has no effect.
    pub(super) notes: Vec<String>,
}

impl Template {
    /// Reads the file at `path`.
    pub(super) fn read(path: &Path) -> anyhow::Result<Template> {
        // A folder stands for the file of the usual name in it.
        let file = path.join(FILE_NAME);
        let path = if path.is_dir() { file.as_path() } else { path };
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Template::parse(&text, path.to_owned(), &|name| std::env::var(name).ok())
    }

    fn parse(text: &str, path: PathBuf, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Template> {
        let mut root = Node::parse(text).with_context(|| format!("read {}", path.display()))?;
        let beside = path.parent().unwrap_or(Path::new(""));
        let folder = if beside == Path::new("") { PathBuf::from(".") } else { beside.to_owned() };
        let mut faults = Vec::new();
        keys::check(&mut root, keys::Shape::Map(keys::FILE), "", &mut faults);
        let mut notes = Vec::new();
        if root.get("flow").is_some() {
            notes.push(
                "`flow` has no effect: resources are deployed one after another, as they stand in the file".to_owned(),
            );
        }
        let all = root.get("resources").or_else(|| root.get("services")).map(Node::entries).unwrap_or_default();
        let mut resources = Vec::new();
        for (label, node) in all {
            let read = extended(&root, node).and_then(|node| {
                Scope { root: &root, this: Some(&node), folder: &folder, env, left: Cell::new(LEFT) }.resolve(&node)
            });
            match read.and_then(|node| Resource::read(&label.name, node, &folder, (&mut faults, &mut notes))) {
                Ok(Some(resource)) if resources.iter().any(|other: &Resource| other.name == resource.name) => {
                    faults.push(format!("resource `{}`: the function `{}` is there twice", label.name, resource.name));
                }
                Ok(resource) => resources.extend(resource),
                Err(error) => faults.push(format!("resource `{}`: {error:#}", label.name)),
            }
        }
        if all.is_empty() && faults.is_empty() {
            faults
                .push("there is no function; `resources` must hold one, with `component: fc3` and `props`".to_owned());
        }
        if !faults.is_empty() {
            return Err(ManifestFaults { path, faults }.into());
        }
        Ok(Template { path, folder, resources, notes })
    }

    /// Keeps only the functions named, or all of them if none is.
    pub(super) fn only(mut self, names: &[FunctionName]) -> anyhow::Result<Template> {
        self.resources = chosen(self.resources, |resource| &resource.name, names, &self.path)?;
        Ok(self)
    }

    /// What must be built, and what is built already.
    pub(super) fn manifest(&self) -> Manifest {
        let function = |resource: &Resource| ManifestFunction {
            name: resource.name.clone(),
            component: resource.component.clone(),
            build: resource.build.clone(),
            source: resource.source.clone(),
            example: None,
            settings: SettingsSpec::default(),
            aliases: Vec::new(),
        };
        let functions = self.resources.iter().map(function).collect();
        Manifest { path: self.path.clone(), folder: self.folder.clone(), functions }
    }
}

/// A resource over the template of the file that it extends.
fn extended(root: &Node, resource: &Node) -> anyhow::Result<Node> {
    let Some(extend) = resource.get("extend") else { return Ok(resource.clone()) };
    let name = extend.get("name").and_then(Node::text).context("`extend` names no template")?;
    let base = root.get("template").and_then(|templates| templates.get(name));
    let base = base.with_context(|| format!("line {}: there is no template `{name}`", extend.line))?;
    let mut own = resource.clone();
    let Data::Map(entries) = &mut own.data else { return Ok(own) };
    match entries.iter_mut().find(|(key, _)| key.name == "props") {
        Some((_, props)) => *props = over(base, props),
        None => entries.push((yaml::Key { line: extend.line, name: "props".to_owned() }, base.clone())),
    }
    Ok(own)
}

/// A value over another one: maps are joined, everything else is replaced.
fn over(base: &Node, own: &Node) -> Node {
    let (Data::Map(below), Data::Map(above)) = (&base.data, &own.data) else { return own.clone() };
    let mut joined = above.clone();
    for (key, value) in below {
        match joined.iter_mut().find(|(own, _)| own.name == key.name) {
            Some((_, own)) => *own = over(value, own),
            None => joined.push((key.clone(), value.clone())),
        }
    }
    Node { line: own.line, data: Data::Map(joined) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> anyhow::Result<Template> {
        Template::parse(text, PathBuf::from("project/s.yaml"), &|_| None)
    }

    #[test]
    fn a_file_of_fc3_is_understood() {
        let template = parse(
            r#"
edition: 3.0.0
name: demo
access: default
vars: {size: 512}
template: {base: {region: cn-hangzhou, timeout: 10}}
resources:
  one:
    component: fc3
    extend: {name: base}
    props:
      functionName: demo
      runtime: custom.debian10
      handler: index.handler
      code: ./one.wasm
      memorySize: ${vars.size}
      timeout: "20"
      instanceLifecycleConfig: {preStop: {handler: bye, timeout: 40}}
      triggers:
        - {triggerName: web, triggerType: http, triggerConfig: {authType: anonymous}}
      asyncInvokeConfig: {maxAsyncRetryAttempts: 1}
      customDomain: {domainName: shop.example.com, protocol: HTTP, route: {path: /*}}
      aliases: [{aliasName: prod}]
"#,
        )
        .unwrap();
        let [one] = template.resources.as_slice() else { panic!() };
        assert_eq!((one.name.as_str(), one.service.is_some()), ("demo", false));
        assert_eq!(one.component, Path::new("project/one.wasm"));
        assert_eq!((one.fields["memorySize"].clone(), one.fields["timeout"].clone()), (json!(512), json!(20)));
        assert_eq!(one.fields["instanceLifecycleConfig"]["preStop"]["timeout"], 40);
        assert!(!one.fields.contains_key("triggers") && !one.fields.contains_key("region"), "{:?}", one.fields);
        assert_eq!(one.triggers[0]["triggerName"], "web");
        assert_eq!(one.asynchronous.as_ref().unwrap()["maxAsyncRetryAttempts"], 1);
        let route = json!([{"path": "/*", "functionName": "demo"}]);
        assert_eq!(one.domains[0]["routeConfig"]["routes"], route);
        assert_eq!(one.aliases[0]["aliasName"], "prod");
    }

    #[test]
    fn a_file_of_fc_is_understood() {
        let template = parse(
            r#"
edition: 1.0.0
name: demo
services:
  one:
    component: fc
    props:
      region: cn-hangzhou
      service: {name: shop, internetAccess: true}
      function:
        name: cart
        runtime: nodejs16
        handler: index.handler
        codeUri: ./code
        initializer: index.init
        instanceLifecycleConfig: {preFreeze: {handler: index.preFreeze, timeout: 60}}
        asyncConfiguration: {destination: {onSuccess: x}, statefulInvocation: true}
      triggers: [{name: web, type: http, config: {authType: anonymous, methods: [GET]}}]
      customDomains:
        - {domainName: shop.example.com, protocol: HTTP, routeConfigs: [{path: /*, methods: [GET]}]}
"#,
        )
        .unwrap();
        let [one] = template.resources.as_slice() else { panic!() };
        assert_eq!(one.name.as_str(), "shop.cart");
        assert_eq!(one.service.as_ref().unwrap()["internetAccess"], true);
        assert_eq!(
            (one.fields["functionName"].clone(), one.fields["initializer"].clone()),
            (json!("cart"), json!("index.init"))
        );
        assert_eq!(
            one.triggers[0],
            *json!({"triggerName": "web", "triggerType": "http",
            "triggerConfig": {"authType": "anonymous", "methods": ["GET"]}})
            .as_object()
            .unwrap()
        );
        assert_eq!(one.asynchronous.as_ref().unwrap()["destinationConfig"], json!({"onSuccess": "x"}));
        let route = json!([{"path": "/*", "methods": ["GET"], "functionName": "cart", "serviceName": "shop"}]);
        assert_eq!(one.domains[0]["routeConfig"]["routes"], route);
        let source = one.source.as_ref().unwrap();
        assert_eq!(source.handlers, ["index.handler", "index.init", "index.preFreeze"]);
        assert_eq!(one.component, Path::new("project/.dormouse-build/shop.cart.wasm"));
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        let error = parse(
            "edition: 3.0.0\nnmae: demo\nresources:\n  one:\n    component: fc3\n    props:\n      functionName: one\n      \
             runtime: python3.10\n      handler: index.handler\n      code: ./code\n      memorySizes: 1\n      timeout: long\n      \
             instanceLifecycleConfig: {preFrezee: {}}\n  two:\n    component: oss\n    props: {}\n  three:\n    component: fc3\n    \
             props: {runtime: python3, code: ./x, functionName: '${vars.x}'}\n  four:\n    component: fc3\n    props: {code: x}\n",
        )
        .err()
        .unwrap();
        let text = format!("{error:#}");
        for part in [
            "line 2: unknown key `nmae`; known here: `edition`",
            "line 11: unknown key `memorySizes`",
            "line 12: `timeout` is the text \"long\"; it must be a number",
            "line 13: unknown key `instanceLifecycleConfig.preFrezee`; known here: `initializer`, `preFreeze`, `preStop`",
            "resource `two`: line 15: component `oss` is not known",
            "resource `three`: line 19: `${vars.x}`: is not there",
            "resource `four`: line 22: `functionName` is missing",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
