//! Versions: publish, list, show, delete.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;

use super::Plane;
use super::audit::Detail;
use super::functions::json_or_default;
use super::model::{Problem, PublishRequest, VersionList, VersionView};
use super::reject::{Named, NamedOf, find};
use crate::catalog::{Function, Version};
use crate::host::Host;
use crate::ids::{FunctionName, VersionNumber};
use crate::web::problem::{Code, Failure};

type Shared = State<Arc<Plane>>;

/// A function's versions, the newest first.
#[utoipa::path(get, path = "/v1/functions/{name}/versions", operation_id = "listVersions",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 200, body = VersionList), (status = 404, body = Problem)))]
pub(super) async fn list(State(plane): Shared, Named(name): Named<FunctionName>) -> Result<Json<VersionList>, Failure> {
    let function = find(&plane.host, &name)?;
    let versions = function.versions.values().rev().map(|version| view(&plane.host, &function, version)).collect();
    Ok(Json(VersionList { versions }))
}

/// Publishes `LATEST` under the next number. Nothing is compiled or copied.
#[utoipa::path(post, path = "/v1/functions/{name}/versions", operation_id = "publishVersion",
    params(("name" = String, Path, description = "The function's name")), request_body = PublishRequest,
    responses((status = 201, body = VersionView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn publish(
    State(plane): Shared,
    Named(name): Named<FunctionName>,
    body: Body,
) -> Result<impl IntoResponse, Failure> {
    let PublishRequest { description } = json_or_default(body).await?;
    let (function, version) = plane.host.publish(name, description).await?;
    let detail = Detail(format!("version {}, revision {}", version.number, version.revision.id));
    Ok((StatusCode::CREATED, detail.attached(), Json(view(&plane.host, &function, &version))))
}

/// One version.
#[utoipa::path(get, path = "/v1/functions/{name}/versions/{version}", operation_id = "showVersion",
    params(("name" = String, Path, description = "The function's name"),
           ("version" = String, Path, description = "The version's number")),
    responses((status = 200, body = VersionView), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(plane): Shared,
    NamedOf(name, number): NamedOf<VersionNumber>,
) -> Result<Json<VersionView>, Failure> {
    let function = find(&plane.host, &name)?;
    let version = function
        .versions
        .get(&number)
        .ok_or_else(|| Failure::new(Code::VersionNotFound, format!("function `{name}` has no version {number}")))?;
    Ok(Json(view(&plane.host, &function, version)))
}

/// Deletes a version that no alias names. Its instances finish their requests and stop.
#[utoipa::path(delete, path = "/v1/functions/{name}/versions/{version}", operation_id = "deleteVersion",
    params(("name" = String, Path, description = "The function's name"),
           ("version" = String, Path, description = "The version's number")),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn delete(
    State(plane): Shared,
    NamedOf(name, number): NamedOf<VersionNumber>,
) -> Result<StatusCode, Failure> {
    plane.host.delete_version(name, number).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn view(host: &Host, function: &Function, version: &Version) -> VersionView {
    let revision = &version.revision;
    let naming = function.aliases.values().filter(|alias| alias.names(version.number));
    VersionView {
        function: function.name.to_string(),
        version: version.number.to_string(),
        revision: revision.id,
        description: version.description.clone(),
        sha256: revision.sha256.clone(),
        component_bytes: revision.component_bytes,
        exports: revision.exports.clone(),
        aliases: naming.map(|alias| alias.name.to_string()).collect(),
        fault: host.fault(revision.id),
        created_at: humantime::format_rfc3339_millis(version.created).to_string(),
        settings: function.spec_of(revision),
    }
}
