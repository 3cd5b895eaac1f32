//! Instances: list, show, stop.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::Plane;
use super::model::{InstanceList, InstanceView, Problem};
use super::reject::{Named, find, instance_not_found};
use crate::host::Found;
use crate::ids::{FunctionName, InstanceId};
use crate::web::problem::Failure;

/// A function's instances.
#[utoipa::path(get, path = "/v1/functions/{name}/instances", operation_id = "listInstances",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 200, body = InstanceList), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    Named(name): Named<FunctionName>,
) -> Result<Json<InstanceList>, Failure> {
    let function = find(&plane.host, &name)?;
    let instances = plane.host.instances(&function.name);
    Ok(Json(InstanceList { instances: instances.iter().map(view).collect() }))
}

/// One instance.
#[utoipa::path(get, path = "/v1/instances/{id}", operation_id = "showInstance",
    params(("id" = String, Path, description = "The instance's identifier")),
    responses((status = 200, body = InstanceView), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(plane): State<Arc<Plane>>,
    Named(id): Named<InstanceId>,
) -> Result<Json<InstanceView>, Failure> {
    let found = plane.host.instance(id).ok_or_else(|| instance_not_found(id))?;
    Ok(Json(view(&found)))
}

/// Stops an instance in order: its requests end, its pre-stop runs.
#[utoipa::path(post, path = "/v1/instances/{id}/stop", operation_id = "stopInstance",
    params(("id" = String, Path, description = "The instance's identifier")),
    responses((status = 202), (status = 404, body = Problem)))]
pub(super) async fn stop(State(plane): State<Arc<Plane>>, Named(id): Named<InstanceId>) -> Result<StatusCode, Failure> {
    if plane.host.stop_instance(id) { Ok(StatusCode::ACCEPTED) } else { Err(instance_not_found(id)) }
}

fn view(found: &Found) -> InstanceView {
    let instance = &found.instance;
    InstanceView {
        id: instance.id.to_string(),
        function: found.function.to_string(),
        version: found.version.to_string(),
        state: instance.state.as_str().to_owned(),
        generation: instance.generation,
        since: humantime::format_rfc3339_millis(instance.since).to_string(),
        in_flight: instance.in_flight,
        requests: instance.vitals.requests(),
        windows: instance.vitals.windows(),
        memory_bytes: instance.vitals.memory_bytes(),
        executed_ms: instance.vitals.executed().as_secs_f64() * 1000.0,
    }
}
