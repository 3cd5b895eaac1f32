//! Aliases: those of services, which are aliases of each of their functions, and those of single functions.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Fc;
use super::fault::Fault;
use super::functions::of_service;
use super::input::Fields;
use super::request::{Asked, Reply, page};
use super::service::{Service, ServiceAlias, ServiceVersion, check_text, no_alias};
use super::version::{VERSIONS_MAX, no_version, version_number};
use crate::catalog::{Alias, AliasChange, Function};
use crate::clock::{self, microseconds};
use crate::ids::{AliasName, FunctionName, VersionNumber};

pub(super) async fn create(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let fields = asked.body();
    let name = alias_name(fields.required("aliasName")?)?;
    fields.required("versionId")?;
    let _changing = fc.changing.lock().await;
    if aliases(fc, asked)?.contains_key(name.as_str()) {
        return Err(Fault::exists("AliasAlreadyExists", format!("alias '{name}' already exists")));
    }
    set_alias(fc, asked, name, ServiceAlias::default()).await
}

pub(super) async fn update(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let name = alias_name(asked.item())?;
    let _changing = fc.changing.lock().await;
    let before = find_alias(fc, asked)?;
    asked.check_match(&etag(&before))?;
    set_alias(fc, asked, name, before).await
}

pub(super) fn get(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let alias = find_alias(fc, asked)?;
    Ok(answer(asked.item(), &alias))
}

pub(super) fn list(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let aliases = aliases(fc, asked)?;
    let views = aliases.iter().map(|(name, alias)| (name.clone(), alias_view(name, alias)));
    page(asked, "aliases", views.collect())
}

pub(super) async fn delete(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let name = alias_name(asked.item())?;
    let _changing = fc.changing.lock().await;
    asked.check_match(&etag(&find_alias(fc, asked)?))?;
    if !asked.api.has_services() {
        fc.host.delete_alias(asked.target()?.name, name).await?;
        return Ok(Reply::nothing());
    }
    let owner = asked.service()?;
    let mut service = Service::clone(&fc.service(&owner)?.1);
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
        let mut service = Service::clone(&fc.service(&owner)?.1);
        check_text("description", &alias.description)?;
        if service.aliases.len() >= VERSIONS_MAX && !service.aliases.contains_key(name.as_str()) {
            let message = format!("service '{owner}' has {VERSIONS_MAX} aliases; delete some first");
            return Err(Fault::new(StatusCode::BAD_REQUEST, "LimitExceededError", message));
        }
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
    check_shares(alias)?;
    // What can be wrong is looked at before the first change. A function that was deleted and made anew since a version was
    // published has nothing of it.
    let mut changes = Vec::new();
    for (own, number) in &main.functions {
        let full = FunctionName::of_service(owner, own).map_err(|error| Fault::invalid(error.to_string()))?;
        let Some(function) = fc.host.function(full.as_str()) else { continue };
        let known =
            |number: u64| VersionNumber::from_u64(number).filter(|number| function.versions.contains_key(number));
        let Some(version) = known(*number) else { continue };
        let mut weights = BTreeMap::new();
        for (other, weight) in &others {
            // Both versions of the service may have the same version of this function.
            let other = other.functions.get(own).and_then(|number| known(*number));
            if let Some(other) = other.filter(|other| *other != version) {
                *weights.entry(other).or_insert(0.0) += weight;
            }
        }
        let change = AliasChange { version: Some(version), weights, description: Some(alias.description.clone()) };
        changes.push((function, change));
    }
    let meant: Vec<String> = changes.iter().map(|(function, _)| function.name.parts().1.to_owned()).collect();
    let mut done = Vec::new();
    for (function, change) in changes {
        if let Err(error) = fc.host.set_alias(function.name.clone(), name.clone(), change).await {
            undo(fc, name, done).await;
            return Err(error.into());
        }
        done.push(function);
    }
    drop_from_functions(fc, owner, name, |function| !meant.iter().any(|own| own == function)).await
}

/// Refuses shares that no function could have.
fn check_shares(alias: &ServiceAlias) -> Result<(), Fault> {
    if alias.weights.contains_key(&alias.version) {
        let message =
            format!("`additionalVersionWeight` names version {}, which gets what the others leave", alias.version);
        return Err(Fault::invalid(message));
    }
    let sum: f64 = alias.weights.values().sum();
    if sum > 1.0 + 1e-9 {
        return Err(Fault::invalid(format!("`additionalVersionWeight` has a sum of {sum}; it must be at most 1")));
    }
    Ok(())
}

/// Gives functions back the alias that they had before, as far as that is possible.
async fn undo(fc: &Fc, name: &AliasName, functions: Vec<Arc<Function>>) {
    for function in functions {
        let undone = match function.aliases.get(name) {
            Some(before) => {
                let change = AliasChange {
                    version: Some(before.version),
                    weights: before.weights.clone(),
                    description: Some(before.description.clone()),
                };
                fc.host.set_alias(function.name.clone(), name.clone(), change).await.map(drop)
            }
            None => fc.host.delete_alias(function.name.clone(), name.clone()).await,
        };
        if let Err(error) = undone {
            tracing::warn!(function = %function.name, alias = %name, "an alias of a service is half set: {error}");
        }
    }
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
        return Ok(fc.service(&asked.service()?)?.1.aliases.clone());
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
    Reply::json(alias_view(name, alias)).with_etag(&etag(alias))
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
