//! Functions: create, read, list, update, delete, and their code.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::code::{self, Code};
use super::fault::{Fault, no_function};
use super::function::{self, Change};
use super::input::{Fields, difference};
use super::request::{Asked, Reply, Target, page};
use super::{Fc, files};
use crate::access::Right;
use crate::catalog::{Compiled, Function, Revision, SettingsSpec};
use crate::clock::microseconds;
use crate::ids::{FunctionName, LATEST};
use crate::operator::reach;

/// Characters of a function's name in the API 2023-03-30.
const NAME_MAX: usize = 64;

pub(super) async fn create(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let fields = asked.body();
    let own = fields.required("functionName")?;
    let target = asked.target_of(own)?;
    if target.service.is_none() && own.len() > NAME_MAX {
        return Err(Fault::invalid(format!("`functionName` has {} characters; at most {NAME_MAX}", own.len())));
    }
    let compiled = uploaded(fc, &fields).await?;
    let (code, compiled) = compiled.ok_or_else(|| {
        Fault::invalid("`code` is missing; it must hold `zipFile`, the base64 of a zip with a WebAssembly component")
    })?;
    let _changing = fc.changing.lock().await;
    let service = target.service.as_ref().map(|service| fc.service(service)).transpose()?;
    if fc.host.function(target.name.as_str()).is_some() {
        let message = match &target.service {
            Some(service) => format!("function '{own}' already exists in service '{service}'"),
            None => format!("function '{own}' already exists"),
        };
        return Err(Fault::exists("FunctionAlreadyExists", message));
    }
    fc.store.forget(target.name.as_str()).await?;
    let mut spec = function::new_settings(fc.config.billing_basis);
    if service.is_some_and(|(_, service)| !service.is_open()) {
        spec.allowed_outbound_hosts.clear();
    }
    let exports = |name: &str| compiled.component().exports(name);
    let change = Change { name: &target.name, api: asked.api, is_new: true, has_code: true, exports: &exports };
    change.apply(&fields, &mut spec)?;
    let id = Uuid::new_v4().to_string();
    spec.function_compute.insert("functionId".to_owned(), id.into());
    note_code(&mut spec.function_compute, &code);
    let patch = serde_json::to_value(&spec).map_err(anyhow::Error::from)?;
    reach::check(&fc.host, &asked.operator, &target.name, &patch)?;
    let (function, _) = fc.host.deploy_compiled(target.name, compiled, Some(patch)).await?;
    Ok(answer(asked, &function, &function.latest))
}

fn note_code(kept: &mut serde_json::Map<String, Value>, code: &Code) {
    kept.insert("codeSize".to_owned(), code.size.into());
    kept.insert("codeChecksum".to_owned(), code.checksum.clone().into());
}

pub(super) fn get(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let function = fc.function(&target)?;
    let revision = fc.revision(&function, &target)?;
    Ok(answer(asked, &function, &revision))
}

pub(super) fn list(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let target = asked.service_target()?;
    let service = target.as_ref().map(|(service, _)| fc.service(service)).transpose()?;
    let frozen = match (&target, &service) {
        (Some((name, Some(qualifier))), Some((_, service))) if qualifier != LATEST => {
            Some(service.version_of(name, qualifier)?.functions.clone())
        }
        _ => None,
    };
    let mut views = Vec::new();
    for function in fc.host.functions() {
        let (service, own) = function.name.parts();
        let is_own = service == target.as_ref().map(|(service, _)| service.as_str());
        if !is_own || !asked.operator.may(Right::Read, function.name.as_str()) {
            continue;
        }
        let revision = match &frozen {
            None => Some(function.latest.clone()),
            Some(frozen) => frozen.get(own).and_then(|number| fc.version(&function, *number)),
        };
        if let Some(revision) = revision {
            views.push((own.to_owned(), function::view(asked.api, &function, &revision)));
        }
    }
    page(asked, "functions", views)
}

pub(super) async fn update(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let (fields, target) = (asked.body(), asked.target()?);
    fc.function(&target)?;
    let uploaded = uploaded(fc, &fields).await?;
    let _changing = fc.changing.lock().await;
    let before = fc.function(&target)?;
    asked.check_match(&etag(&before, &before.latest))?;
    let component = match &uploaded {
        Some((_, compiled)) => compiled.component().clone(),
        None => fc.host.component(&before.latest).await?,
    };
    let exports = |name: &str| component.exports(name);
    let change =
        Change { name: &target.name, api: asked.api, is_new: false, has_code: uploaded.is_some(), exports: &exports };
    let mut spec = before.spec();
    change.apply(&fields, &mut spec)?;
    if let Some((code, _)) = &uploaded {
        note_code(&mut spec.function_compute, code);
    }
    let patch = patch(fc, asked, &before, &spec)?;
    let function = match uploaded {
        Some((_, compiled)) => fc.host.deploy_compiled(target.name, compiled, Some(patch)).await?.0,
        None => fc.host.configure(target.name, patch).await?,
    };
    Ok(answer(asked, &function, &function.latest))
}

pub(super) async fn delete(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let _changing = fc.changing.lock().await;
    let function = fc.function(&target)?;
    asked.check_match(&etag(&function, &function.latest))?;
    fc.host.delete(target.name.clone()).await?;
    fc.store.forget(target.name.as_str()).await?;
    Ok(Reply::nothing())
}

/// Where the code can be fetched: a zip with the component, for a quarter of an hour.
pub(super) async fn code(fc: &Fc, asked: &Asked) -> Result<Reply, Fault> {
    let target = asked.target()?;
    let function = fc.function(&target)?;
    let revision = fc.revision(&function, &target)?;
    let file = fc.host.component_file(&revision);
    let checksum = fc.host.tasks().blocking(move || code::pack(&file).map(|zip| code::checksum(&zip))).await??;
    let url = files::address(fc, asked, &revision);
    Ok(Reply::json(json!({"url": url, "checksum": checksum})))
}

/// Lets callers in again, or keeps them out.
pub(super) async fn allow_invocation(fc: &Fc, asked: &Asked, is_allowed: bool) -> Result<Reply, Fault> {
    let target = asked.target()?;
    fc.function(&target)?;
    let reason = asked.body().text("reason")?.unwrap_or("disabled through Function Compute's API").to_owned();
    let function = fc.host.disable(target.name, (!is_allowed).then_some(reason)).await?;
    Ok(answer(asked, &function, &function.latest))
}

/// The component that a request holds, compiled.
async fn uploaded(fc: &Fc, fields: &Fields<'_>) -> Result<Option<(Code, Compiled)>, Fault> {
    let Some(given) = fields.object("code")? else { return Ok(None) };
    let bytes_max = fc.config.component_bytes_max;
    let code = match (given.text("zipFile")?, given.text("ossObjectName")?) {
        (Some(base64), _) if !base64.is_empty() => {
            let base64 = base64.to_owned();
            fc.host.tasks().blocking(move || code::decode(&base64, bytes_max)).await??
        }
        (_, Some(object)) if !object.is_empty() => {
            let zip = files::take(fc, object).await?;
            fc.host.tasks().blocking(move || code::read(zip, bytes_max)).await??
        }
        _ => {
            return Err(Fault::invalid(
                "`code` must hold `zipFile`, the base64 of a zip with a WebAssembly component, or `ossObjectName`",
            ));
        }
    };
    if let Some(wanted) = given.text("checksum")?.filter(|wanted| !wanted.is_empty() && **wanted != *code.checksum) {
        let message = format!("`code.checksum` is {wanted}, and the CRC-64 of the zip that came is {}", code.checksum);
        return Err(Fault::invalid(message));
    }
    let compiled = fc.host.compile(code.component.clone()).await?;
    Ok(Some((code, compiled)))
}

/// The patch that makes `after` of a function's settings, if whoever asks may set that.
pub(super) fn patch(fc: &Fc, asked: &Asked, before: &Function, after: &SettingsSpec) -> Result<Value, Fault> {
    let value = |spec: &SettingsSpec| serde_json::to_value(spec).map_err(anyhow::Error::from);
    let patch = difference(&value(&before.spec())?, &value(after)?);
    reach::check(&fc.host, &asked.operator, &before.name, &patch)?;
    Ok(patch)
}

/// Names a function as it is at one time.
pub(super) fn etag(function: &Function, revision: &Revision) -> String {
    format!("{:x}-{:x}", revision.id.0, microseconds(function.updated))
}

fn answer(asked: &Asked, function: &Function, revision: &Revision) -> Reply {
    let view = function::view(asked.api, function, revision);
    for warning in view["warnings"].as_array().into_iter().flatten().filter(|_| asked.is_change) {
        tracing::warn!(function = %function.name, "{}", warning.as_str().unwrap_or_default());
    }
    Reply::json(view).with_etag(&etag(function, revision))
}

impl Fc {
    /// The function that a request names.
    pub(super) fn function(&self, target: &Target) -> Result<Arc<Function>, Fault> {
        if let Some(service) = &target.service {
            self.service(service)?;
        }
        self.host
            .function(target.name.as_str())
            .ok_or_else(|| no_function(target.service.as_deref(), target.name.parts().1))
    }

    /// What the qualifier of a request names.
    pub(super) fn revision(&self, function: &Function, target: &Target) -> Result<Arc<Revision>, Fault> {
        let qualifier = self.qualifier(target)?;
        let found = function.resolve(&qualifier, |_| 0.0).map(|found| found.revision);
        found.ok_or_else(|| {
            let (code, what) = match target.qualifier.as_deref().map(str::parse::<u64>) {
                Some(Ok(_)) => ("VersionNotFound", "version"),
                _ => ("AliasNotFound", "alias"),
            };
            let message =
                format!("function '{}' has no {what} '{}'", function.name.parts().1, target.shown_qualifier());
            Fault::not_found(code, message)
        })
    }

    /// A published version of a function.
    pub(super) fn version(&self, function: &Function, number: u64) -> Option<Arc<Revision>> {
        let number = crate::ids::VersionNumber::from_u64(number)?;
        function.versions.get(&number).map(|version| version.revision.clone())
    }

    /// The qualifier of a target as the catalog has it: a service's version is another number for each function.
    pub(super) fn qualifier(&self, target: &Target) -> Result<String, Fault> {
        let qualifier = target.qualifier.as_deref().unwrap_or(LATEST);
        let (Some(service), Ok(_)) = (&target.service, qualifier.parse::<u64>()) else {
            return Ok(qualifier.to_owned());
        };
        let (_, known) = self.service(service)?;
        let own = target.name.parts().1;
        let number = known.version_of(service, qualifier)?.functions.get(own).copied();
        number.map(|number| number.to_string()).ok_or_else(|| no_function(Some(&format!("{service}.{qualifier}")), own))
    }
}

/// All functions of a service.
pub(super) fn of_service(fc: &Fc, service: &str) -> Vec<Arc<Function>> {
    let prefix = FunctionName::prefix_of(service);
    let mut functions = fc.host.functions();
    functions.retain(|function| function.name.as_str().starts_with(&prefix));
    functions
}
