//! Custom domains. Each route of one is an HTTP trigger of its function, with the domain as its host; what the client wrote
//! is kept beside. Two domains have no route in common, as two triggers have no address in common.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::Fc;
use super::api::Api;
use super::fault::Fault;
use super::functions;
use super::input::{Fields, without_nulls};
use super::request::{Asked, Reply, Target, page};
use super::store::{Document, Kind};
use crate::access::{Auth, Right};
use crate::catalog::{HttpTriggerSpec, TriggerSpec, TriggerSpecs};
use crate::ids::{FunctionName, LATEST};

/// What names of their triggers begin with.
const PREFIX: &str = "domain-";
/// A browser would show users a certificate that is not the one they were promised.
const NO_CERTIFICATE: &str = "`certConfig` is not taken: the data listener has one certificate for all names, set with \
                              `--tls-cert` and `--tls-key`, which may be for several";

pub(super) async fn create(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let name = asked.body().required("domainName")?.to_ascii_lowercase();
    check_name(&name)?;
    let _changing = fc.changing.lock().await;
    if fc.store.get(Kind::Domain, "", &name).is_some() {
        return Err(Fault::exists("DomainNameAlreadyExists", format!("domain name '{}' already exists", shown(&name))));
    }
    set(fc, asked, &name, Map::new()).await
}

pub(super) async fn update(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let _changing = fc.changing.lock().await;
    let document = find(fc, asked)?;
    set(fc, asked, &document.name, document.value.as_object().cloned().unwrap_or_default()).await
}

pub(super) fn get(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let document = find(fc, asked)?;
    check_routes(asked, document.value.as_object(), Right::Read)?;
    Ok(Reply::json(view(asked, &document)))
}

pub(super) fn list(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let mut documents = fc.store.list(Kind::Domain);
    documents.retain(|document| check_routes(asked, document.value.as_object(), Right::Read).is_ok());
    page(asked, "customDomains", documents.iter().map(|one| (one.name.clone(), view(asked, one))).collect())
}

pub(super) async fn delete(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let _changing = fc.changing.lock().await;
    let document = find(fc, asked)?;
    check_routes(asked, document.value.as_object(), Right::Manage)?;
    change_triggers(fc, asked, &document.name, &[]).await?;
    fc.store.remove(Kind::Domain, "", &document.name).await?;
    Ok(Reply::nothing())
}

fn find(fc: &Fc, asked: &Asked) -> Result<std::sync::Arc<Document>, Fault> {
    let name = asked.item().to_ascii_lowercase();
    fc.store
        .get(Kind::Domain, "", &name)
        .ok_or_else(|| Fault::not_found("DomainNameNotFound", format!("domain name '{}' does not exist", shown(&name))))
}

/// A name as callers ask for it: without a dot at its end, which they may leave out.
fn check_name(name: &str) -> Result<(), Fault> {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() <= 253 && name.split('.').all(is_label) {
        return Ok(());
    }
    let message = format!("`domainName` is {:?}; it must be a host name such as `shop.example.com`", shown(name));
    Err(Fault::invalid(message))
}

fn shown(name: &str) -> String {
    name.chars().take(128).collect()
}

/// Makes a domain what a request says; what that leaves out stays as it is in `kept`.
async fn set(fc: &Fc, asked: &Asked, name: &str, mut kept: Map<String, Value>) -> Result<Reply, Fault> {
    let fields = asked.body();
    check_routes(asked, Some(&kept), Right::Manage)?;
    if fields
        .object("certConfig")?
        .is_some_and(|config| config.iter().any(|(_, value)| !value.is_null() && value != ""))
    {
        return Err(Fault::invalid(NO_CERTIFICATE));
    }
    for field in ["protocol", "routeConfig", "tlsConfig", "wafConfig", "authConfig", "corsConfig"] {
        if let Some(value) = fields.get(field) {
            kept.insert(field.to_owned(), without_nulls(value));
        }
    }
    check_routes(asked, Some(&kept), Right::Manage)?;
    let routes = routes(fc, asked, name, &kept)?;
    change_triggers(fc, asked, name, &routes).await?;
    let document = fc.store.put(Kind::Domain, "", name, &kept).await?;
    Ok(Reply::json(view(asked, &document)))
}

/// A route: the function, and the trigger that it is.
type Route = (Target, TriggerSpec);

fn routes(fc: &Fc, asked: &Asked, domain: &str, kept: &Map<String, Value>) -> Result<Vec<Route>, Fault> {
    let mut routes: Vec<Route> = Vec::new();
    let fields = Fields::of(kept);
    if let Some(protocol) = fields.text("protocol")?.filter(|own| !["HTTP", "HTTPS", "HTTP,HTTPS"].contains(own)) {
        let shown: String = protocol.chars().take(32).collect();
        return Err(Fault::invalid(format!("`protocol` is '{shown}'; it must be `HTTP`, `HTTPS` or `HTTP,HTTPS`")));
    }
    let config = fields.object("routeConfig")?;
    let list = config.map(|config| config.list("routes")).transpose()?.flatten();
    if list.is_none_or(|list| list.is_empty() || !list.iter().all(Value::is_object)) {
        return Err(Fault::invalid(
            "`routeConfig.routes` must be a list of at least one object, with `path` and `functionName`",
        ));
    }
    for route in written(kept) {
        let fields = Fields::of(route);
        let target = target(asked.api, &fields)?;
        let function = fc.function(&target)?;
        let mut spec = trigger(domain, &fields, auth(kept, &function.triggers)?)?;
        if let Some(own) = spec.qualifier.take() {
            spec.qualifier = Some(fc.qualifier(&Target { qualifier: Some(own), ..target.clone() })?);
        }
        let path = |spec: &TriggerSpec| spec.http.as_ref().and_then(|http| http.path.clone());
        if routes.iter().any(|(_, other)| path(other) == path(&spec)) {
            let path: String = path(&spec).unwrap_or_default().chars().take(128).collect();
            return Err(Fault::invalid(format!("`routeConfig.routes` has the path '{path}' twice")));
        }
        routes.push((target, spec));
    }
    Ok(routes)
}

/// A route as a trigger. The qualifier is the one that was written.
fn trigger(domain: &str, route: &Fields<'_>, auth: Auth) -> Result<TriggerSpec, Fault> {
    if route.object("rewriteConfig")?.is_some_and(|rewrite| rewrite.iter().any(|(_, rules)| rules != &json!([]))) {
        return Err(Fault::invalid("`rewriteConfig` is not there: a function sees the path that the caller asked for"));
    }
    let methods = route.list("methods")?.into_iter().flatten();
    let http = HttpTriggerSpec {
        host: Some(domain.to_owned()),
        path: Some(route.required("path")?.to_owned()),
        methods: methods.filter_map(|method| method.as_str().map(str::to_owned)).collect(),
        auth: Some(auth),
        ..HttpTriggerSpec::default()
    };
    let qualifier = route.text("qualifier")?.filter(|own| !own.is_empty() && *own != LATEST).map(str::to_owned);
    Ok(TriggerSpec { qualifier, http: Some(http), ..TriggerSpec::default() })
}

/// The triggers that a domain has on one function, which has others already.
pub(super) fn triggers_on(
    name: &FunctionName,
    domain: &Map<String, Value>,
    others: &TriggerSpecs,
) -> Result<TriggerSpecs, Fault> {
    let host = Fields::of(domain).required("domainName")?.to_ascii_lowercase();
    check_name(&host)?;
    let api = if name.parts().0.is_some() { Api::V2016 } else { Api::V2023 };
    let mut triggers = TriggerSpecs::new();
    for (index, route) in written(domain).into_iter().enumerate() {
        let route = Fields::of(route);
        if target(api, &route)?.name == *name {
            triggers.insert(format!("{}{index}", prefix(&host)), trigger(&host, &route, auth(domain, others)?)?);
        }
    }
    Ok(triggers)
}

/// What the names of a domain's triggers begin with.
fn prefix(domain: &str) -> String {
    format!("{PREFIX}{}-", hex::encode(&Sha256::digest(domain)[..6]))
}

/// The routes that a client wrote.
fn written(kept: &Map<String, Value>) -> Vec<&Map<String, Value>> {
    let config = kept.get("routeConfig").and_then(Value::as_object);
    let routes = config.and_then(|config| Fields::of(config).get("routes")?.as_array());
    routes.into_iter().flatten().filter_map(Value::as_object).collect()
}

fn target(api: Api, route: &Fields<'_>) -> Result<Target, Fault> {
    let own = route.required("functionName")?;
    let wrong = |error: crate::ids::InvalidName| Fault::invalid(error.to_string());
    let service = route.text("serviceName")?.filter(|_| api.has_services()).map(str::to_owned);
    let name = match &service {
        Some(service) => FunctionName::of_service(service, own).map_err(wrong)?,
        None => own.parse().map_err(wrong)?,
    };
    Ok(Target { service, name, qualifier: None })
}

/// What callers must show: what the domain says, or else what the function's own trigger asks for.
fn auth(kept: &Map<String, Value>, others: &TriggerSpecs) -> Result<Auth, Fault> {
    let config = Fields::of(kept).object("authConfig")?;
    match config.map(|config| config.text("authType")).transpose()?.flatten() {
        Some("anonymous" | "none" | "") => Ok(Auth::None),
        Some("function") => Ok(Auth::Key),
        Some(other) => {
            let shown: String = other.chars().take(32).collect();
            Err(Fault::invalid(format!("`authConfig.authType` is '{shown}'; it must be `anonymous` or `function`")))
        }
        None => {
            let asks = |spec: &TriggerSpec| spec.http.as_ref().is_some_and(|http| http.auth == Some(Auth::Key));
            Ok(if others.values().any(asks) { Auth::Key } else { Auth::None })
        }
    }
}

/// Refuses who may not do that with every function that a domain leads to.
fn check_routes(asked: &Asked, kept: Option<&Map<String, Value>>, right: Right) -> Result<(), Fault> {
    for route in kept.map(written).unwrap_or_default() {
        let api = if route.contains_key("serviceName") { Api::V2016 } else { Api::V2023 };
        asked.check(right, target(api, &Fields::of(route))?.name.as_str())?;
    }
    Ok(())
}

/// Whether a trigger is one of a domain.
pub(super) fn is_route(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Makes the triggers of a domain these and no others, on whichever functions they are. All of it is undone if a part of it
/// cannot be.
async fn change_triggers(fc: &Fc, asked: &Asked, domain: &str, routes: &[Route]) -> Result<(), Fault> {
    let prefix = prefix(domain);
    let mut changes = Vec::new();
    for function in fc.host.functions() {
        let own = |triggers: &TriggerSpecs| -> TriggerSpecs {
            let own = triggers.iter().filter(|(name, _)| name.starts_with(&prefix));
            own.map(|(name, spec)| (name.clone(), spec.clone())).collect()
        };
        let before = own(&function.triggers);
        let wanted = routes.iter().enumerate().filter(|(_, (target, _))| target.name == function.name);
        let after: TriggerSpecs = wanted.map(|(index, (_, spec))| (format!("{prefix}{index}"), spec.clone())).collect();
        if before != after {
            let mut spec = function.spec();
            spec.triggers.extend(after.clone());
            // Who may not do that changes nothing.
            functions::patch(fc, asked, &function, &spec)?;
            changes.push((function.name.clone(), before, after));
        }
    }
    // What is given up comes first: another one may want it.
    let none = TriggerSpecs::new();
    for (name, before, _) in &changes {
        replace(fc, name, before, &none).await?;
    }
    for (done, (name, _, after)) in changes.iter().enumerate() {
        if let Err(fault) = replace(fc, name, &none, after).await {
            // All of the domain's new ones are gone before an old one comes back.
            for (name, _, after) in &changes[..done] {
                let _ = replace(fc, name, after, &none).await;
            }
            for (name, before, _) in &changes {
                if let Err(fault) = replace(fc, name, &none, before).await {
                    tracing::error!(function = %name, "routes of {domain} could not be put back: {}", fault.message);
                }
            }
            return Err(fault);
        }
    }
    Ok(())
}

/// Takes triggers away from a function and gives it others, in one step.
async fn replace(fc: &Fc, name: &FunctionName, gone: &TriggerSpecs, new: &TriggerSpecs) -> Result<(), Fault> {
    if gone.is_empty() && new.is_empty() {
        return Ok(());
    }
    let mut triggers: Map<String, Value> = gone.keys().map(|name| (name.clone(), Value::Null)).collect();
    for (name, spec) in new {
        triggers.insert(name.clone(), serde_json::to_value(spec).map_err(anyhow::Error::from)?);
    }
    fc.host.configure(name.clone(), json!({"triggers": triggers})).await?;
    Ok(())
}

fn view(asked: &Asked, document: &Document) -> Value {
    let mut view = document.value.as_object().cloned().unwrap_or_default();
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    view.entry("protocol").or_insert_with(|| "HTTP".into());
    view.entry("routeConfig").or_insert_with(|| json!({"routes": []}));
    for (name, value) in [
        ("domainName", document.name.clone()),
        ("accountId", "0".to_owned()),
        ("apiVersion", asked.api.as_str().to_owned()),
        ("createdTime", time(document.created)),
        ("lastModifiedTime", time(document.updated)),
    ] {
        view.insert(name.to_owned(), value.into());
    }
    Value::Object(view)
}
