//! Instances: list, show, stop.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::Plane;
use super::model::{InstanceList, InstanceView, Problem};
use super::reject::{Named, instance_not_found};
use crate::http::problem::Failure;
use crate::ids::{FunctionName, InstanceId, LATEST};
use crate::pool::Portrait;

/// A function's instances.
#[utoipa::path(get, path = "/v1/functions/{name}/instances", operation_id = "listInstances",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 200, body = InstanceList), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    Named(name): Named<FunctionName>,
) -> Result<Json<InstanceList>, Failure> {
    let function =
        plane.parts.catalog.get(name.as_str()).ok_or_else(|| Failure::function_not_found(name.as_str(), None))?;
    let portraits = plane.parts.pools.newest(&function.name).map(|pool| pool.portraits()).unwrap_or_default();
    Ok(Json(InstanceList { instances: portraits.iter().map(|portrait| view(&function.name, portrait)).collect() }))
}

/// One instance.
#[utoipa::path(get, path = "/v1/instances/{id}", operation_id = "showInstance",
    params(("id" = String, Path, description = "The instance's identifier")),
    responses((status = 200, body = InstanceView), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(plane): State<Arc<Plane>>,
    Named(id): Named<InstanceId>,
) -> Result<Json<InstanceView>, Failure> {
    for (function, pool) in plane.parts.pools.all() {
        if let Some(portrait) = pool.portraits().into_iter().find(|portrait| portrait.id == id) {
            return Ok(Json(view(&function, &portrait)));
        }
    }
    Err(instance_not_found(id))
}

/// Stops an instance in order: its requests end, its pre-stop runs.
#[utoipa::path(post, path = "/v1/instances/{id}/stop", operation_id = "stopInstance",
    params(("id" = String, Path, description = "The instance's identifier")),
    responses((status = 202), (status = 404, body = Problem)))]
pub(super) async fn stop(State(plane): State<Arc<Plane>>, Named(id): Named<InstanceId>) -> Result<StatusCode, Failure> {
    if plane.parts.pools.stop(id) { Ok(StatusCode::ACCEPTED) } else { Err(instance_not_found(id)) }
}

fn view(function: &FunctionName, portrait: &Portrait) -> InstanceView {
    InstanceView {
        id: portrait.id.to_string(),
        function: function.to_string(),
        version: LATEST.to_owned(),
        state: portrait.state.as_str().to_owned(),
        generation: portrait.generation,
        since: humantime::format_rfc3339_millis(portrait.since).to_string(),
        in_flight: portrait.in_flight,
        requests: portrait.vitals.requests(),
        windows: portrait.vitals.windows(),
        memory_bytes: portrait.vitals.memory_bytes(),
        executed_ms: portrait.vitals.executed().as_secs_f64() * 1000.0,
    }
}
