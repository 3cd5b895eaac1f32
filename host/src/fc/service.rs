//! Services of the 2.0 APIs: names under which functions stand, with versions and aliases that are those of all of them.
//!
//! The host knows functions only. A service's version notes which version of each function it froze, and a service's alias is an
//! alias of each function, so that `/v1` and the command line see the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Fc;
use super::fault::Fault;
use super::functions::of_service;
use super::input::{Fields, without_nulls};
use super::request::{Asked, Reply, check_service, page};
use super::store::{Document, Kind};
use crate::access::Right;
use crate::clock::microseconds;
use crate::ids::{FunctionName, LATEST};

/// What a service has beside its description; kept as it is written.
const KEPT: [&str; 7] =
    ["role", "internetAccess", "logConfig", "vpcConfig", "tracingConfig", "ossMountConfig", "useSLRAuthentication"];

/// Bytes of a description and of a tag, as those of functions have; and tags.
const TEXT_BYTES_MAX: usize = 1024;
const TAGS_MAX: usize = 64;

/// Services as they were read last, with what they were read from.
pub(super) type Read = Mutex<HashMap<String, (Arc<Document>, Arc<Service>)>>;

/// Refuses a text for people that is too long.
pub(super) fn check_text(name: &str, text: &str) -> Result<(), Fault> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(Fault::invalid(format!("`{name}` has {} bytes; at most {TEXT_BYTES_MAX}", text.len())))
}

/// A service as it is stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Service {
    pub(super) id: String,
    pub(super) description: String,
    /// The fields in [`KEPT`].
    pub(super) kept: Map<String, Value>,
    /// Tags of the service; those of functions are settings.
    pub(super) tags: BTreeMap<String, String>,
    /// The number of the last version that was published.
    pub(super) last_version: u64,
    pub(super) versions: BTreeMap<u64, ServiceVersion>,
    pub(super) aliases: BTreeMap<String, ServiceAlias>,
}

/// A published version of a service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceVersion {
    pub(super) description: String,
    pub(super) created_us: u64,
    /// The version of each function.
    pub(super) functions: BTreeMap<String, u64>,
}

/// An alias of a service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceAlias {
    pub(super) version: u64,
    pub(super) weights: BTreeMap<u64, f64>,
    pub(super) description: String,
    pub(super) created_us: u64,
    pub(super) updated_us: u64,
}

impl Service {
    /// Whether its functions may reach others, unless they say so themselves.
    pub(super) fn is_open(&self) -> bool {
        self.kept.get("internetAccess").and_then(Value::as_bool).unwrap_or(true)
    }

    /// The version that a number or an alias names.
    pub(super) fn version_of(&self, service: &str, qualifier: &str) -> Result<&ServiceVersion, Fault> {
        let number = match qualifier.parse::<u64>() {
            Ok(number) => number,
            Err(_) => self.aliases.get(qualifier).ok_or_else(|| no_alias(service, qualifier))?.version,
        };
        self.versions.get(&number).ok_or_else(|| {
            Fault::not_found("VersionNotFound", format!("version '{number}' of service '{service}' does not exist"))
        })
    }
}

pub(super) fn no_alias(owner: &str, alias: &str) -> Fault {
    let shown: String = alias.chars().take(128).collect();
    Fault::not_found("AliasNotFound", format!("alias '{shown}' of '{owner}' does not exist"))
}

impl Fc {
    /// A service. One that was never created is there if it has functions, which `/v1` may have made.
    pub(super) fn service(&self, name: &str) -> Result<(Option<Arc<Document>>, Arc<Service>), Fault> {
        check_service(name)?;
        let Some(document) = self.store.get(Kind::Service, "", name) else {
            if of_service(self, name).is_empty() {
                return Err(Fault::not_found("ServiceNotFound", format!("service '{name}' does not exist")));
            }
            return Ok((None, Arc::default()));
        };
        // Requests ask for it, so it is read once after each change.
        let mut read = self.services.lock().expect("no holder of this lock panics");
        if let Some((of, service)) = read.get(name)
            && Arc::ptr_eq(of, &document)
        {
            return Ok((Some(document), service.clone()));
        }
        let service: Arc<Service> = Arc::new(document.read()?);
        read.insert(name.to_owned(), (document.clone(), service.clone()));
        Ok((Some(document), service))
    }

    /// Stores a service.
    pub(super) async fn put_service(&self, name: &str, service: &Service) -> Result<Arc<Document>, Fault> {
        check_text("description", &service.description)?;
        let has_long_tag = service.tags.iter().any(|(name, value)| name.len() + value.len() > TEXT_BYTES_MAX);
        if service.tags.len() > TAGS_MAX || has_long_tag {
            let message = format!("a service has at most {TAGS_MAX} tags of at most {TEXT_BYTES_MAX} bytes each");
            return Err(Fault::invalid(message));
        }
        self.store.put(Kind::Service, "", name, service).await
    }
}

pub(super) async fn create(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let fields = asked.body();
    let name = fields.required("serviceName")?;
    check_service(name)?;
    let _changing = fc.changing.lock().await;
    if fc.store.get(Kind::Service, "", name).is_some() {
        return Err(Fault::exists("ServiceAlreadyExists", format!("service '{name}' already exists")));
    }
    let mut service = Service { id: Uuid::new_v4().to_string(), ..Service::default() };
    apply(&fields, &mut service)?;
    let document = fc.put_service(name, &service).await?;
    Ok(answer(name, Some(&document), &service))
}

pub(super) fn get(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let (name, qualifier) = asked.service_target()?.unwrap_or_default();
    let (document, service) = fc.service(&name)?;
    if let Some(qualifier) = qualifier.filter(|qualifier| qualifier != LATEST) {
        service.version_of(&name, &qualifier)?;
    }
    Ok(answer(&name, document.as_deref(), &service))
}

pub(super) fn list(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let mut names: Vec<String> =
        fc.store.list(Kind::Service).into_iter().map(|document| document.name.clone()).collect();
    names.extend(fc.host.functions().iter().filter_map(|function| function.name.parts().0.map(str::to_owned)));
    names.sort_unstable();
    names.dedup();
    names.retain(|name| asked.operator.may(Right::Read, &FunctionName::prefix_of(name)));
    let tags: Vec<(&str, &str)> =
        asked.query.iter().filter_map(|(name, value)| Some((name.strip_prefix("tag_")?, value.as_str()))).collect();
    let mut views = Vec::new();
    for name in names {
        // One that was deleted meanwhile is not listed.
        let Ok((document, service)) = fc.service(&name) else { continue };
        if tags.iter().all(|(key, value)| service.tags.get(*key).is_some_and(|own| own == value)) {
            let view = view(&name, document.as_deref(), &service);
            views.push((name, view));
        }
    }
    page(asked, "services", views)
}

pub(super) async fn update(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let name = asked.service()?;
    let _changing = fc.changing.lock().await;
    let (document, before) = fc.service(&name)?;
    asked.check_match(&etag(document.as_deref()))?;
    let mut service = Service::clone(&before);
    apply(&asked.body(), &mut service)?;
    let document = fc.put_service(&name, &service).await?;
    if service.is_open() != before.is_open() {
        for function in of_service(fc, &name) {
            let hosts = if service.is_open() { json!(["*"]) } else { json!([]) };
            fc.host.configure(function.name.clone(), json!({"allowedOutboundHosts": hosts})).await?;
        }
    }
    Ok(answer(&name, Some(&document), &service))
}

pub(super) async fn delete(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let name = asked.service()?;
    let _changing = fc.changing.lock().await;
    let (document, service) = fc.service(&name)?;
    asked.check_match(&etag(document.as_deref()))?;
    let functions = of_service(fc, &name);
    if let Some(function) = functions.first() {
        let message =
            format!("service '{name}' has functions, such as '{}'; delete them first", function.name.parts().1);
        return Err(Fault::unmet("ServiceNotEmpty", message));
    }
    if let Some((alias, _)) = service.aliases.first_key_value() {
        let message = format!("service '{name}' has aliases, such as '{alias}'; delete them first");
        return Err(Fault::unmet("ServiceNotEmpty", message));
    }
    fc.store.remove(Kind::Service, "", &name).await?;
    Ok(Reply::nothing())
}

fn apply(fields: &Fields<'_>, service: &mut Service) -> Result<(), Fault> {
    if let Some(text) = fields.text("description")? {
        text.clone_into(&mut service.description);
    }
    if let Some(mounts) = fields.object("nasConfig")?.map(|nas| nas.list("mountPoints")).transpose()?.flatten()
        && !mounts.is_empty()
    {
        let message =
            "`nasConfig` names a file system, which functions of this host do not have: what they write would be lost";
        return Err(Fault::invalid(message));
    }
    fields.boolean("internetAccess")?;
    for name in KEPT {
        if let Some(value) = fields.get(name) {
            service.kept.insert(name.to_owned(), without_nulls(value));
        }
    }
    Ok(())
}

pub(super) fn etag(document: Option<&Document>) -> String {
    document.map_or_else(|| "0".to_owned(), |document| format!("{:x}", microseconds(document.updated)))
}

fn answer(name: &str, document: Option<&Document>, service: &Service) -> Reply {
    Reply::json(view(name, document, service)).with_etag(&etag(document))
}

fn view(name: &str, document: Option<&Document>, service: &Service) -> Value {
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    let (created, updated) = document
        .map_or((std::time::UNIX_EPOCH, std::time::UNIX_EPOCH), |document| (document.created, document.updated));
    let id = if service.id.is_empty() { name } else { &service.id };
    let mut view = json!({
        "serviceName": name, "serviceId": id, "description": service.description, "role": "", "internetAccess": true,
        "logConfig": {"project": "", "logstore": ""}, "vpcConfig": {}, "tracingConfig": {},
        "createdTime": time(created), "lastModifiedTime": time(updated),
    });
    for (name, value) in &service.kept {
        view[name] = value.clone();
    }
    view
}
