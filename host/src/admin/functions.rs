//! Functions: deploy, list, show, configure, suspend, resume, disable, enable, delete.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Plane;
use super::audit::Detail;
use super::model::{DisableRequest, FunctionList, FunctionView, InstanceCounts, Problem};
use super::reject::{Named, find, invalid};
use crate::access::{Auth, Right};
use crate::catalog::{ChangeError, Function, SettingsSpec};
use crate::host::Host;
use crate::ids::{FunctionName, LATEST};
use crate::operator::{Operator, reach};
use crate::room::Share;
use crate::web::headers;
use crate::web::problem::{Code, Failure};

/// The largest configuration that is read: the bounds of its fields together are far below.
const JSON_BYTES_MAX: usize = 2 << 20;
/// How long an upload waits for memory.
const UPLOAD_WAIT: Duration = Duration::from_secs(60);

type Name = Named<FunctionName>;
type Shared = State<Arc<Plane>>;

/// All functions that the operator may read, by name.
#[utoipa::path(get, path = "/v1/functions", operation_id = "listFunctions", responses((status = 200, body = FunctionList)))]
pub(super) async fn list(State(plane): Shared, operator: Operator) -> Json<FunctionList> {
    let mut functions = plane.host.functions();
    functions.retain(|function| operator.may(Right::Read, function.name.as_str()));
    let counts = plane.host.instance_counts_by_function();
    let view = |function: &Arc<Function>| {
        let counts = counts.get(&function.name).copied().unwrap_or_default();
        view_with(&plane.host, function, counts)
    };
    Json(FunctionList { functions: functions.iter().map(view).collect() })
}

/// One function.
#[utoipa::path(get, path = "/v1/functions/{name}", operation_id = "showFunction",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 200, body = FunctionView), (status = 404, body = Problem)))]
pub(super) async fn show(State(plane): Shared, Named(name): Name) -> Result<Json<FunctionView>, Failure> {
    let function = find(&plane.host, &name)?;
    Ok(Json(view(&plane.host, &function)))
}

/// Deploys a component: a new function with defaults, or new code for the one that is there. The field
/// `Dormouse-Settings` may hold a JSON merge patch for its configuration, applied in the same step.
#[utoipa::path(put, path = "/v1/functions/{name}/code", operation_id = "deployFunction",
    request_body(content = Vec<u8>, content_type = "application/wasm"),
    params(("name" = String, Path, description = "The function's name"),
           ("Dormouse-Settings" = Option<String>, Header, description = "JSON merge patch (RFC 7396)")),
    responses((status = 200, body = FunctionView), (status = 201, body = FunctionView),
              (status = 413, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn deploy(
    State(plane): Shared,
    operator: Operator,
    Named(name): Name,
    fields: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Failure> {
    let patch: Option<Value> = fields.get(headers::SETTINGS).map(|value| parse(value.as_bytes())).transpose()?;
    if let Some(patch) = &patch {
        reach::check(&plane.host, &operator, &name, patch)?;
    }
    let settings = patch.as_ref().map(names_in).filter(|names| !names.is_empty());
    let (component, _share) = read_component(&plane, &fields, body).await?;
    let (function, created) = plane.host.deploy(name, component, patch).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let settings = settings.map(|names| format!(", settings: {names}")).unwrap_or_default();
    let detail = Detail(format!("revision {}, SHA-256 {}{settings}", function.latest.id, function.latest.sha256));
    Ok((status, detail.attached(), Json(view(&plane.host, &function))))
}

/// Changes the configuration by a JSON merge patch (RFC 7396): what is left out stays, `null` restores the default.
#[utoipa::path(patch, path = "/v1/functions/{name}", operation_id = "configureFunction",
    params(("name" = String, Path, description = "The function's name")),
    request_body(content = SettingsSpec, content_type = "application/merge-patch+json"),
    responses((status = 200, body = FunctionView), (status = 404, body = Problem),
              (status = 413, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn configure(
    State(plane): Shared,
    operator: Operator,
    Named(name): Name,
    body: Body,
) -> Result<impl IntoResponse, Failure> {
    let patch: Value = parse(&read_json(body).await?)?;
    reach::check(&plane.host, &operator, &name, &patch)?;
    let settings = names_in(&patch);
    let function = plane.host.configure(name, patch).await?;
    Ok((Detail(settings).attached(), Json(view(&plane.host, &function))))
}

/// Deletes a function with its versions and aliases. Requests that were accepted are answered, and every instance's pre-stop runs.
#[utoipa::path(delete, path = "/v1/functions/{name}", operation_id = "deleteFunction",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn delete(State(plane): Shared, Named(name): Name) -> Result<StatusCode, Failure> {
    plane.host.delete(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Stops every instance of the function where it stands, in the middle of execution too. New requests wait.
#[utoipa::path(post, path = "/v1/functions/{name}/suspend", operation_id = "suspendFunction",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 200, body = FunctionView), (status = 404, body = Problem)))]
pub(super) async fn suspend(State(plane): Shared, Named(name): Name) -> Result<Json<FunctionView>, Failure> {
    let function = plane.host.suspend(name, true).await?;
    Ok(Json(view(&plane.host, &function)))
}

/// Lets the function's instances go on exactly where they stood.
#[utoipa::path(post, path = "/v1/functions/{name}/resume", operation_id = "resumeFunction",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 200, body = FunctionView), (status = 404, body = Problem)))]
pub(super) async fn resume(State(plane): Shared, Named(name): Name) -> Result<Json<FunctionView>, Failure> {
    let function = plane.host.suspend(name, false).await?;
    Ok(Json(view(&plane.host, &function)))
}

/// Refuses new requests of the function with `403 function-disabled` and the reason given. Requests that run are
/// answered, and instances stay until their idle timeout.
#[utoipa::path(post, path = "/v1/functions/{name}/disable", operation_id = "disableFunction",
    params(("name" = String, Path, description = "The function's name")), request_body = DisableRequest,
    responses((status = 200, body = FunctionView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn disable(
    State(plane): Shared,
    Named(name): Name,
    body: Body,
) -> Result<Json<FunctionView>, Failure> {
    let DisableRequest { reason } = json_or_default(body).await?;
    let reason = if reason.is_empty() { "its operator gave no reason".to_owned() } else { reason };
    let function = plane.host.disable(name, Some(reason)).await?;
    Ok(Json(view(&plane.host, &function)))
}

/// Takes requests of the function again.
#[utoipa::path(post, path = "/v1/functions/{name}/enable", operation_id = "enableFunction",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 200, body = FunctionView), (status = 404, body = Problem)))]
pub(super) async fn enable(State(plane): Shared, Named(name): Name) -> Result<Json<FunctionView>, Failure> {
    let function = plane.host.disable(name, None).await?;
    Ok(Json(view(&plane.host, &function)))
}

/// The settings that a patch names, without their values: secrets are among them.
fn names_in(patch: &Value) -> String {
    let names: Vec<&str> = patch.as_object().into_iter().flat_map(|patch| patch.keys().map(String::as_str)).collect();
    names.join(", ")
}

/// Reads a request's JSON.
pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    let body = read_json(body).await?;
    refuse_list(&body)?;
    parse(&body)
}

/// Reads a request's JSON, which may be left out.
pub(super) async fn json_or_default<T: DeserializeOwned + Default>(body: Body) -> Result<T, Failure> {
    let body = read_json(body).await?;
    refuse_list(&body)?;
    if body.is_empty() { Ok(T::default()) } else { parse(&body) }
}

/// For what has fields: serde would take a list of their values as well.
fn refuse_list(json: &[u8]) -> Result<(), Failure> {
    if json.trim_ascii_start().starts_with(b"[") {
        return Err(invalid("the JSON of the request is a list; it must be an object: `{...}`"));
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| invalid(format!("the JSON of the request cannot be read: {error}")))
}

/// A component, with its share of the memory for uploads.
async fn read_component(plane: &Plane, fields: &HeaderMap, body: Body) -> Result<(Bytes, Share), Failure> {
    let bytes_max = plane.config.component_bytes_max;
    let too_large = || {
        let detail = format!("the component is larger than {bytes_max} bytes, the most this host takes");
        Failure::new(Code::ComponentTooLarge, detail)
    };
    let announced = fields.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: usize| bytes > bytes_max) {
        return Err(too_large());
    }
    let share = tokio::select! {
        share = plane.uploads.wait(announced.unwrap_or(bytes_max), UPLOAD_WAIT) => share,
        () = plane.host.tasks().drained() => return Err(ChangeError::Draining.into()),
    };
    let share = share.ok_or_else(|| Failure::new(Code::HostFull, "too many uploads wait for the compiler"))?;
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok((collected.to_bytes(), share)),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(invalid("the component ended before its announced length")),
    }
}

async fn read_json(body: Body) -> Result<Bytes, Failure> {
    match Limited::new(body, JSON_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = format!("the configuration is larger than {JSON_BYTES_MAX} bytes, the most this host takes");
            Err(Failure::new(Code::ConfigurationTooLarge, detail))
        }
        Err(_) => Err(invalid("the configuration ended before its announced length")),
    }
}

fn view(host: &Host, function: &Function) -> FunctionView {
    view_with(host, function, host.instance_counts(&function.name))
}

fn view_with(host: &Host, function: &Function, instances: InstanceCounts) -> FunctionView {
    let time = |time| humantime::format_rfc3339_millis(time).to_string();
    let latest = &function.latest;
    FunctionView {
        name: function.name.to_string(),
        version: LATEST.to_owned(),
        revision: latest.id,
        sha256: latest.sha256.clone(),
        component_bytes: latest.component_bytes,
        exports: latest.exports.clone(),
        suspended: function.suspended,
        disabled: function.disabled.clone(),
        fault: host.fault(latest.id),
        open: host.auth_of(Some(function)) == Auth::None,
        published: function.version_of(latest.id).map(|version| version.number.to_string()),
        versions: function.versions.len(),
        aliases: function.aliases.len(),
        instances,
        created_at: time(function.created),
        updated_at: time(function.updated),
        settings: function.spec(),
    }
}
