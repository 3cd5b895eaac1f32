//! Versions: those of services, and those of single functions.

use std::collections::BTreeMap;
use std::time::SystemTime;

use http::StatusCode;
use serde_json::{Value, json};

use super::Fc;
use super::fault::Fault;
use super::functions::{self, of_service};
use super::request::{Asked, Reply, page};
use super::service::{self, Service, ServiceAlias, ServiceVersion, check_text};
use crate::catalog::ChangeError;
use crate::clock::{self, microseconds};
use crate::ids::{FunctionName, VersionNumber};

/// Versions, and aliases, of a service.
pub(super) const VERSIONS_MAX: usize = 1000;

pub(super) async fn publish(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let description = asked.body().text("description")?.unwrap_or_default().to_owned();
    let _changing = fc.changing.lock().await;
    if !asked.api.has_services() {
        let target = asked.target()?;
        let function = fc.function(&target)?;
        asked.check_match(&functions::etag(&function, &function.latest))?;
        let number = publish_one(fc, &target.name, &description).await?;
        let function = fc.function(&target)?;
        let version = function.versions.get(&number).ok_or_else(|| no_version(number))?;
        return Ok(Reply::json(view(number.as_u64(), &version.description, version.created)));
    }
    let name = asked.service()?;
    let (document, service) = fc.service(&name)?;
    asked.check_match(&service::etag(document.as_deref()))?;
    check_text("description", &description)?;
    let mut functions = BTreeMap::new();
    for function in of_service(fc, &name) {
        let number = publish_one(fc, &function.name, &description).await?;
        functions.insert(function.name.parts().1.to_owned(), number.as_u64());
    }
    if let Some((number, newest)) =
        service.versions.last_key_value().filter(|(_, newest)| newest.functions == functions)
    {
        let created = clock::from_microseconds(newest.created_us);
        return Ok(Reply::json(view(*number, &newest.description, created)));
    }
    if service.versions.len() >= VERSIONS_MAX {
        let message = format!("service '{name}' has {VERSIONS_MAX} versions; delete some first");
        return Err(Fault::new(StatusCode::BAD_REQUEST, "LimitExceededError", message));
    }
    let (mut service, created) = (Service::clone(&service), clock::date());
    service.last_version += 1;
    let number = service.last_version;
    let version = ServiceVersion { description: description.clone(), created_us: microseconds(created), functions };
    service.versions.insert(number, version);
    fc.put_service(&name, &service).await?;
    Ok(Reply::json(view(number, &description, created)))
}

/// Publishes a function; one that has not changed keeps the version that it has.
async fn publish_one(fc: &Fc, name: &FunctionName, description: &str) -> Result<VersionNumber, Fault> {
    match fc.host.publish(name.clone(), description.to_owned()).await {
        Ok((_, version)) => Ok(version.number),
        Err(ChangeError::Unchanged(_, number)) => Ok(number),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn list(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let is_forward = asked.param("direction").is_some_and(|direction| direction.eq_ignore_ascii_case("FORWARD"));
    let versions: Vec<(u64, Value)> = if asked.api.has_services() {
        let (_, service) = fc.service(&asked.service()?)?;
        let view = |(number, version): (&u64, &ServiceVersion)| {
            (*number, view(*number, &version.description, clock::from_microseconds(version.created_us)))
        };
        service.versions.iter().map(view).collect()
    } else {
        let function = fc.function(&asked.target()?)?;
        let versions = function.versions.values();
        versions
            .map(|version| {
                let number = version.number.as_u64();
                (number, view(number, &version.description, version.created))
            })
            .collect()
    };
    // Names of the same length have the order of the numbers.
    let place = |number: u64| format!("{:020}", if is_forward { number } else { u64::MAX - number });
    page(asked, "versions", versions.into_iter().map(|(number, view)| (place(number), view)).collect())
}

pub(super) async fn delete(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let number = version_number(asked.item())?;
    let _changing = fc.changing.lock().await;
    if !asked.api.has_services() {
        let target = asked.target()?;
        fc.function(&target)?;
        fc.host.delete_version(target.name, number).await?;
        return Ok(Reply::nothing());
    }
    let name = asked.service()?;
    let mut service = Service::clone(&fc.service(&name)?.1);
    let number = number.as_u64();
    let names = |alias: &ServiceAlias| alias.version == number || alias.weights.contains_key(&number);
    if let Some((alias, _)) = service.aliases.iter().find(|(_, alias)| names(alias)) {
        let message = format!("alias '{alias}' names version {number} of service '{name}'; move or delete it first");
        return Err(Fault::unmet("PreconditionFailed", message));
    }
    let version = service.versions.remove(&number).ok_or_else(|| {
        Fault::not_found("VersionNotFound", format!("version '{number}' of service '{name}' does not exist"))
    })?;
    fc.put_service(&name, &service).await?;
    for (function, own) in version.functions {
        let is_used = service.versions.values().any(|other| other.functions.get(&function) == Some(&own));
        let (Ok(function), Some(own)) = (FunctionName::of_service(&name, &function), VersionNumber::from_u64(own))
        else {
            continue;
        };
        if !is_used && fc.host.function(function.as_str()).is_some() {
            // An alias of `/v1` may still need it.
            let deleted = fc.host.delete_version(function, own).await;
            if let Err(ChangeError::Internal(error)) = deleted {
                return Err(error.into());
            }
        }
    }
    Ok(Reply::nothing())
}

pub(super) fn version_number(text: &str) -> Result<VersionNumber, Fault> {
    text.parse().map_err(|error: crate::ids::InvalidVersion| Fault::invalid(error.to_string()))
}

pub(super) fn no_version(number: impl std::fmt::Display) -> Fault {
    Fault::not_found("VersionNotFound", format!("version '{number}' does not exist"))
}

fn view(number: u64, description: &str, created: SystemTime) -> Value {
    let time = humantime::format_rfc3339_seconds(created).to_string();
    json!({"versionId": number.to_string(), "description": description, "createdTime": time, "lastModifiedTime": time})
}
