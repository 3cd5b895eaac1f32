//! Versions and aliases: those of services, and those of single functions.

use std::collections::BTreeMap;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value, json};

use super::Fc;
use super::fault::Fault;
use super::functions::of_service;
use super::input::Fields;
use super::request::{Asked, Reply, page};
use super::service::{Service, ServiceAlias, ServiceVersion, no_alias};
use crate::catalog::{Alias, AliasChange, ChangeError};
use crate::clock::{self, microseconds};
use crate::ids::{AliasName, FunctionName, VersionNumber};

pub(super) async fn publish(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let description = asked.body().text("description")?.unwrap_or_default().to_owned();
    let _changing = fc.changing.lock().await;
    if !asked.api.has_services() {
        let target = asked.target()?;
        fc.function(&target)?;
        let number = publish_one(fc, &target.name, &description).await?;
        let function = fc.function(&target)?;
        let version = function.versions.get(&number).ok_or_else(|| no_version(number))?;
        return Ok(Reply::json(view(number.as_u64(), &version.description, version.created)));
    }
    let name = asked.service()?;
    let (_, mut service) = fc.service(&name)?;
    let mut functions = BTreeMap::new();
    for function in of_service(fc, &name) {
        let number = publish_one(fc, &function.name, &description).await?;
        functions.insert(function.name.parts().1.to_owned(), number.as_u64());
    }
    let created = clock::date();
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
    let number: VersionNumber =
        asked.item().parse().map_err(|error: crate::ids::InvalidVersion| Fault::invalid(error.to_string()))?;
    let _changing = fc.changing.lock().await;
    if !asked.api.has_services() {
        let target = asked.target()?;
        fc.function(&target)?;
        fc.host.delete_version(target.name, number).await?;
        return Ok(Reply::nothing());
    }
    let name = asked.service()?;
    let (_, mut service) = fc.service(&name)?;
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

fn no_version(number: impl std::fmt::Display) -> Fault {
    Fault::not_found("VersionNotFound", format!("version '{number}' does not exist"))
}

fn view(number: u64, description: &str, created: SystemTime) -> Value {
    let time = humantime::format_rfc3339_seconds(created).to_string();
    json!({"versionId": number.to_string(), "description": description, "createdTime": time, "lastModifiedTime": time})
}

pub(super) async fn create_alias(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let fields = asked.body();
    let name = alias_name(fields.required("aliasName")?)?;
    fields.required("versionId")?;
    let _changing = fc.changing.lock().await;
    if aliases(fc, asked)?.contains_key(name.as_str()) {
        return Err(Fault::exists("AliasAlreadyExists", format!("alias '{name}' already exists")));
    }
    set_alias(fc, asked, name, ServiceAlias::default()).await
}

pub(super) async fn update_alias(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let name = alias_name(asked.item())?;
    let _changing = fc.changing.lock().await;
    let before = find_alias(fc, asked)?;
    asked.check_match(&etag(&before))?;
    set_alias(fc, asked, name, before).await
}

pub(super) fn get_alias(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let alias = find_alias(fc, asked)?;
    Ok(answer(asked.item(), &alias))
}

pub(super) fn list_aliases(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let aliases = aliases(fc, asked)?;
    let views = aliases.iter().map(|(name, alias)| (name.clone(), alias_view(name, alias)));
    page(asked, "aliases", views.collect())
}

pub(super) async fn delete_alias(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let name = alias_name(asked.item())?;
    let _changing = fc.changing.lock().await;
    asked.check_match(&etag(&find_alias(fc, asked)?))?;
    if !asked.api.has_services() {
        fc.host.delete_alias(asked.target()?.name, name).await?;
        return Ok(Reply::nothing());
    }
    let owner = asked.service()?;
    let (_, mut service) = fc.service(&owner)?;
    service.aliases.remove(name.as_str());
    fc.put_service(&owner, &service).await?;
    drop_from_functions(fc, &owner, &name, |_| true).await?;
    Ok(Reply::nothing())
}

/// Makes an alias what a request says; what that leaves out stays as it is in `alias`.
async fn set_alias(fc: &Fc, asked: &Asked, name: AliasName, mut alias: ServiceAlias) -> Result<Reply, Fault> {
    let fields = asked.body();
    if let Some(version) = fields.text("versionId")? {
        alias.version = version_number(version)?.as_u64();
    }
    if let Some(weights) = weights(&fields)? {
        alias.weights = weights;
    }
    if let Some(text) = fields.text("description")? {
        text.clone_into(&mut alias.description);
    }
    alias.updated_us = microseconds(clock::date());
    if alias.created_us == 0 {
        alias.created_us = alias.updated_us;
    }
    if asked.api.has_services() {
        let owner = asked.service()?;
        let (_, mut service) = fc.service(&owner)?;
        set_on_functions(fc, &owner, &service, (&name, &alias)).await?;
        service.aliases.insert(name.to_string(), alias.clone());
        fc.put_service(&owner, &service).await?;
    } else {
        let target = asked.target()?;
        let numbers = |number: u64| VersionNumber::from_u64(number).ok_or_else(|| no_version(number));
        let weights = alias.weights.iter().map(|(number, weight)| Ok((numbers(*number)?, *weight)));
        let change = AliasChange {
            version: Some(numbers(alias.version)?),
            weights: weights.collect::<Result<_, Fault>>()?,
            description: Some(alias.description.clone()),
        };
        let (set, _) = fc.host.set_alias(target.name, name.clone(), change).await?;
        alias = of_function(&set);
    }
    Ok(answer(name.as_str(), &alias))
}

/// Makes an alias of a service one of each of its functions.
async fn set_on_functions(
    fc: &Fc,
    owner: &str,
    service: &Service,
    (name, alias): (&AliasName, &ServiceAlias),
) -> Result<(), Fault> {
    let main = service.version_of(owner, &alias.version.to_string())?;
    let others: Vec<(&ServiceVersion, f64)> = alias
        .weights
        .iter()
        .map(|(number, weight)| Ok((service.version_of(owner, &number.to_string())?, *weight)))
        .collect::<Result<_, Fault>>()?;
    for (function, number) in &main.functions {
        let full = FunctionName::of_service(owner, function).map_err(|error| Fault::invalid(error.to_string()))?;
        let (Some(version), Some(_)) = (VersionNumber::from_u64(*number), fc.host.function(full.as_str())) else {
            continue;
        };
        let mut weights = BTreeMap::new();
        for (other, weight) in &others {
            // Both versions of the service may have the same version of this function.
            let own = other.functions.get(function).copied().and_then(VersionNumber::from_u64);
            if let Some(own) = own.filter(|own| *own != version) {
                *weights.entry(own).or_insert(0.0) += weight;
            }
        }
        let change = AliasChange { version: Some(version), weights, description: Some(alias.description.clone()) };
        fc.host.set_alias(full, name.clone(), change).await?;
    }
    drop_from_functions(fc, owner, name, |function| !main.functions.contains_key(function)).await
}

/// Deletes an alias of those functions of a service that it is not for.
async fn drop_from_functions(
    fc: &Fc,
    owner: &str,
    name: &AliasName,
    is_meant: impl Fn(&str) -> bool,
) -> Result<(), Fault> {
    for function in of_service(fc, owner) {
        if is_meant(function.name.parts().1) && function.aliases.contains_key(name) {
            fc.host.delete_alias(function.name.clone(), name.clone()).await?;
        }
    }
    Ok(())
}

/// The aliases of what a request is about.
fn aliases(fc: &Fc, asked: &Asked) -> Result<BTreeMap<String, ServiceAlias>, Fault> {
    if asked.api.has_services() {
        return Ok(fc.service(&asked.service()?)?.1.aliases);
    }
    let function = fc.function(&asked.target()?)?;
    Ok(function.aliases.iter().map(|(name, alias)| (name.to_string(), of_function(alias))).collect())
}

fn find_alias(fc: &Fc, asked: &Asked) -> Result<ServiceAlias, Fault> {
    let owner = asked.names.service.as_deref().or(asked.names.function.as_deref()).unwrap_or_default();
    aliases(fc, asked)?.remove(asked.item()).ok_or_else(|| no_alias(owner, asked.item()))
}

fn of_function(alias: &Alias) -> ServiceAlias {
    ServiceAlias {
        version: alias.version.as_u64(),
        weights: alias.weights.iter().map(|(number, weight)| (number.as_u64(), *weight)).collect(),
        description: alias.description.clone(),
        created_us: microseconds(alias.created),
        updated_us: microseconds(alias.updated),
    }
}

fn alias_name(text: &str) -> Result<AliasName, Fault> {
    text.parse().map_err(|error: crate::ids::InvalidAlias| Fault::invalid(error.to_string()))
}

fn version_number(text: &str) -> Result<VersionNumber, Fault> {
    text.parse().map_err(|error: crate::ids::InvalidVersion| Fault::invalid(error.to_string()))
}

fn weights(fields: &Fields<'_>) -> Result<Option<BTreeMap<u64, f64>>, Fault> {
    let given = match fields.get("additionalVersionWeight") {
        None => return Ok(None),
        Some(Value::Object(given)) => given,
        Some(_) => {
            return Err(Fault::invalid("`additionalVersionWeight` must be an object of weights, 0 to 1, by version"));
        }
    };
    let weight = |(version, weight): (&String, &Value)| {
        let weight = weight.as_f64().filter(|weight| (0.0..=1.0).contains(weight));
        let weight = weight.ok_or_else(|| {
            Fault::invalid(format!("`additionalVersionWeight.{version}` must be a number from 0 to 1"))
        })?;
        Ok((version_number(version)?.as_u64(), weight))
    };
    given.iter().map(weight).collect::<Result<_, _>>().map(Some)
}

fn etag(alias: &ServiceAlias) -> String {
    format!("{:x}", alias.updated_us)
}

fn answer(name: &str, alias: &ServiceAlias) -> Reply {
    let mut fields = HeaderMap::new();
    if let Ok(etag) = HeaderValue::from_str(&etag(alias)) {
        fields.insert(header::ETAG, etag);
    }
    Reply::json(alias_view(name, alias)).with(fields)
}

fn alias_view(name: &str, alias: &ServiceAlias) -> Value {
    let time = |us| humantime::format_rfc3339_seconds(clock::from_microseconds(us)).to_string();
    let weights: Map<String, Value> =
        alias.weights.iter().map(|(number, weight)| (number.to_string(), (*weight).into())).collect();
    json!({
        "aliasName": name, "versionId": alias.version.to_string(), "description": alias.description,
        "additionalVersionWeight": weights, "createdTime": time(alias.created_us), "lastModifiedTime": time(alias.updated_us),
    })
}
