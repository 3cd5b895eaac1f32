//! Tags of functions and services. Those of functions are a setting.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Fc;
use super::fault::Fault;
use super::function::{ARN, tags};
use super::request::{Asked, Reply, check_service, page};
use super::service::Service;
use crate::access::Right;
use crate::ids::FunctionName;

/// What has tags.
enum Resource {
    Function(FunctionName),
    Service(String),
}

/// Refuses what whoever asks may not do.
pub(super) fn check(asked: &Asked) -> Result<(), Fault> {
    for resource in resources(asked)? {
        match resource {
            Resource::Function(name) => asked.check(Right::Manage, name.as_str())?,
            Resource::Service(name) => asked.check(Right::Manage, &FunctionName::prefix_of(&name))?,
        }
    }
    Ok(())
}

/// Adds tags, or removes them.
pub(super) async fn change(fc: &Fc, asked: &Asked, is_added: bool) -> Result<Reply, Fault> {
    let Wanted { added, removed, all } = Wanted::of(asked)?;
    let _changing = fc.changing.lock().await;
    for resource in resources(asked)? {
        match resource {
            Resource::Function(name) => {
                let function =
                    fc.host.function(name.as_str()).ok_or_else(|| super::fault::no_function(None, name.as_str()))?;
                let mut patch = Map::new();
                if is_added {
                    patch.extend(added.iter().map(|(key, value)| (key.clone(), value.clone().into())));
                } else {
                    let gone = function.tags.keys().filter(|key| all || removed.contains(key));
                    patch.extend(gone.map(|key| (key.clone(), Value::Null)));
                }
                fc.host.configure(name, json!({"tags": patch})).await?;
            }
            Resource::Service(name) => {
                let mut service = Service::clone(&fc.service(&name)?.1);
                if is_added {
                    service.tags.extend(added.clone());
                } else {
                    service.tags.retain(|key, _| !all && !removed.contains(key));
                }
                fc.put_service(&name, &service).await?;
            }
        }
    }
    Ok(Reply::nothing())
}

/// The tags of one resource: the 2.0 APIs.
pub(super) fn get(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let arn = asked.param("resourceArn").ok_or_else(|| Fault::invalid("`resourceArn` is missing"))?;
    let tags = match resource(arn)? {
        Resource::Function(name) => {
            asked.check(Right::Read, name.as_str())?;
            let function = fc.host.function(name.as_str());
            function.ok_or_else(|| super::fault::no_function(None, name.as_str()))?.tags.clone()
        }
        Resource::Service(name) => {
            asked.check(Right::Read, &FunctionName::prefix_of(&name))?;
            fc.service(&name)?.1.tags.clone()
        }
    };
    Ok(Reply::json(json!({"resourceArn": arn, "tags": tags})))
}

/// The tags of functions: the API 2023-03-30.
pub(super) fn list(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let wanted: Vec<Resource> = listed(asked, "ResourceId").map(|id| resource(&id)).collect::<Result<_, _>>()?;
    let is_wanted = |name: &FunctionName| {
        wanted.is_empty() || wanted.iter().any(|one| matches!(one, Resource::Function(own) if own == name))
    };
    let mut items = Vec::new();
    for function in fc.host.functions() {
        let is_plain = function.name.parts().0.is_none();
        if is_plain && is_wanted(&function.name) && asked.operator.may(Right::Read, function.name.as_str()) {
            for (key, value) in &function.tags {
                let item = json!({"ResourceType": "function", "ResourceId": format!("{ARN}{}", function.name),
                    "TagKey": key, "TagValue": value});
                items.push((format!("{} {key}", function.name), item));
            }
        }
    }
    page(asked, "TagResources", items)
}

/// What is to be done to tags.
struct Wanted {
    added: BTreeMap<String, String>,
    removed: Vec<String>,
    /// Whether all are to be removed.
    all: bool,
}

impl Wanted {
    fn of(asked: &Asked) -> Result<Wanted, Fault> {
        let fields = asked.body();
        let added = match fields.get("tags") {
            Some(Value::Object(_)) => fields.texts("tags")?.unwrap_or_default(),
            _ => tags(&fields)?,
        };
        let keys = fields.list("tagKeys")?.or(fields.list("tagKey")?).into_iter().flatten();
        let mut removed: Vec<String> = keys.filter_map(|key| key.as_str().map(str::to_owned)).collect();
        removed.extend(listed(asked, "TagKey"));
        let all = fields.boolean("all")?.unwrap_or_else(|| asked.param("All") == Some("true"));
        Ok(Wanted { added, removed, all })
    }
}

/// What a request is about.
fn resources(asked: &Asked) -> Result<Vec<Resource>, Fault> {
    let fields = asked.body();
    let mut names: Vec<String> = fields.text("resourceArn")?.map(str::to_owned).into_iter().collect();
    let ids = fields.list("resourceId")?.into_iter().flatten();
    names.extend(ids.filter_map(|id| id.as_str().map(str::to_owned)));
    names.extend(listed(asked, "ResourceId"));
    if names.is_empty() {
        return Err(Fault::invalid("the request names no resource: `resourceArn`, or `ResourceId`"));
    }
    names.iter().map(|name| resource(name)).collect()
}

/// A list in the query: the text of one in JSON, or a parameter for each (`TagKey.1=a`).
fn listed<'a>(asked: &'a Asked, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let own = move |(key, _): &&(String, String)| {
        let rest = key.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    asked
        .query
        .iter()
        .filter(own)
        .flat_map(|(_, value)| serde_json::from_str::<Vec<String>>(value).unwrap_or_else(|_| vec![value.clone()]))
}

/// The function or service that a resource's name names.
fn resource(arn: &str) -> Result<Resource, Fault> {
    let own = arn.strip_prefix("acs:fc:").and_then(|rest| rest.splitn(3, ':').nth(2)).unwrap_or(arn);
    let parts: Vec<&str> = own.split('/').collect();
    let wrong = |error: crate::ids::InvalidName| Fault::invalid(error.to_string());
    match parts.as_slice() {
        ["services", service, "functions", function] => {
            FunctionName::of_service(service, function).map(Resource::Function).map_err(wrong)
        }
        ["services", service] => check_service(service).map(|()| Resource::Service((*service).to_owned())),
        ["functions", function] | [function] => function.parse().map(Resource::Function).map_err(wrong),
        _ => {
            let shown: String = arn.chars().take(128).collect();
            Err(Fault::invalid(format!("'{shown}' names neither a function nor a service")))
        }
    }
}
