//! Functions: deploy, list, show, configure, suspend, resume, delete.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

use super::Plane;
use super::model::{FunctionList, FunctionView, Problem};
use super::reject::{Named, invalid};
use crate::catalog::{Function, Settings};
use crate::http::headers;
use crate::http::problem::Failure;
use crate::ids::{FunctionName, LATEST};
use crate::parts::Parts;

/// The largest configuration that is read: the bounds of its fields together are far below.
const PATCH_BYTES_MAX: usize = 2 << 20;

type Name = Named<FunctionName>;
type Shared = State<Arc<Plane>>;

/// All functions, by name.
#[utoipa::path(get, path = "/v1/functions", operation_id = "listFunctions", responses((status = 200, body = FunctionList)))]
pub(super) async fn list(State(plane): Shared) -> Json<FunctionList> {
    let functions = plane.parts.catalog.list();
    Json(FunctionList { functions: functions.iter().map(|function| view(&plane.parts, function)).collect() })
}

/// One function.
#[utoipa::path(get, path = "/v1/functions/{name}", operation_id = "showFunction",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 200, body = FunctionView), (status = 404, body = Problem)))]
pub(super) async fn show(State(plane): Shared, Named(name): Name) -> Result<Json<FunctionView>, Failure> {
    let function =
        plane.parts.catalog.get(name.as_str()).ok_or_else(|| Failure::function_not_found(name.as_str(), None))?;
    Ok(Json(view(&plane.parts, &function)))
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
    Named(name): Name,
    fields: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<FunctionView>), Failure> {
    let patch = fields.get(headers::SETTINGS).map(|value| json(value.as_bytes())).transpose()?;
    let component = read_component(&fields, body, plane.config.component_bytes_max).await?;
    let parts = plane.parts.clone();
    let deployed = plane.parts.tasks.finish(async move { parts.deploy(name, component, patch).await });
    let (function, created) = deployed.await??;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(view(&plane.parts, &function))))
}

/// Changes the configuration by a JSON merge patch (RFC 7396): what is left out stays, `null` restores the default.
#[utoipa::path(patch, path = "/v1/functions/{name}", operation_id = "configureFunction",
    params(("name" = String, Path, description = "The function's name")),
    request_body(content = Settings, content_type = "application/merge-patch+json"),
    responses((status = 200, body = FunctionView), (status = 404, body = Problem),
              (status = 413, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn configure(
    State(plane): Shared,
    Named(name): Name,
    body: Body,
) -> Result<Json<FunctionView>, Failure> {
    let patch = read_patch(body).await?;
    let (parts, patch) = (plane.parts.clone(), json(&patch)?);
    let function = plane.parts.tasks.finish(async move { parts.configure(&name, &patch).await }).await??;
    Ok(Json(view(&plane.parts, &function)))
}

/// Deletes a function. Requests that were accepted are answered, and every instance's pre-stop runs.
#[utoipa::path(delete, path = "/v1/functions/{name}", operation_id = "deleteFunction",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn delete(State(plane): Shared, Named(name): Name) -> Result<StatusCode, Failure> {
    let parts = plane.parts.clone();
    plane.parts.tasks.finish(async move { parts.delete(&name).await }).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Stops every instance of the function where it stands, in the middle of execution too. New requests wait.
#[utoipa::path(post, path = "/v1/functions/{name}/suspend", operation_id = "suspendFunction",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 200, body = FunctionView), (status = 404, body = Problem)))]
pub(super) async fn suspend(State(plane): Shared, Named(name): Name) -> Result<Json<FunctionView>, Failure> {
    let parts = plane.parts.clone();
    let function = plane.parts.tasks.finish(async move { parts.suspend(&name).await }).await??;
    Ok(Json(view(&plane.parts, &function)))
}

/// Lets the function's instances go on exactly where they stood.
#[utoipa::path(post, path = "/v1/functions/{name}/resume", operation_id = "resumeFunction",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 200, body = FunctionView), (status = 404, body = Problem)))]
pub(super) async fn resume(State(plane): Shared, Named(name): Name) -> Result<Json<FunctionView>, Failure> {
    let parts = plane.parts.clone();
    let function = plane.parts.tasks.finish(async move { parts.resume(&name).await }).await??;
    Ok(Json(view(&plane.parts, &function)))
}

fn json(bytes: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(bytes).map_err(|error| invalid(format!("the configuration is not JSON: {error}")))
}

async fn read_component(fields: &HeaderMap, body: Body, bytes_max: usize) -> Result<Bytes, Failure> {
    let too_large = || {
        let detail = format!("the component is larger than {bytes_max} bytes, the most this host takes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "component-too-large", detail)
    };
    let announced = fields.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: usize| bytes > bytes_max) {
        return Err(too_large());
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(invalid("the component ended before its announced length")),
    }
}

async fn read_patch(body: Body) -> Result<Bytes, Failure> {
    match Limited::new(body, PATCH_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = format!("the configuration is larger than {PATCH_BYTES_MAX} bytes, the most this host takes");
            Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "configuration-too-large", detail))
        }
        Err(_) => Err(invalid("the configuration ended before its announced length")),
    }
}

fn view(parts: &Parts, function: &Function) -> FunctionView {
    let time = |time| humantime::format_rfc3339_millis(time).to_string();
    FunctionView {
        name: function.name.to_string(),
        version: LATEST.to_owned(),
        revision: function.revision,
        sha256: function.sha256.clone(),
        component_bytes: function.component_bytes,
        exports: function.exports.clone(),
        suspended: function.suspended,
        instances: parts.pools.newest(&function.name).map(|pool| pool.counts()).unwrap_or_default(),
        created_at: time(function.created),
        updated_at: time(function.updated),
        settings: function.settings.clone(),
    }
}
