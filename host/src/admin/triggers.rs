//! Triggers: list and fire. They are made, changed and deleted with the function's configuration.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use http::StatusCode;

use super::Plane;
use super::audit::Detail;
use super::model::{FiredView, Problem, TriggerList, TriggerRun, TriggerView};
use super::reject::{Named, find};
use crate::catalog::TriggerKind;
use crate::ids::{FunctionName, RequestId};
use crate::trigger::Standing;
use crate::web::problem::Failure;

type Shared = State<Arc<Plane>>;

/// A function's triggers: what they are, what timers did last and when they tick next.
#[utoipa::path(get, path = "/v1/functions/{name}/triggers", operation_id = "listTriggers",
    params(("name" = String, Path, description = "The function's name")),
    responses((status = 200, body = TriggerList), (status = 404, body = Problem)))]
pub(super) async fn list(State(plane): Shared, Named(name): Named<FunctionName>) -> Result<Json<TriggerList>, Failure> {
    let function = find(&plane.host, &name)?;
    let mut triggers = Vec::new();
    for standing in plane.triggers.list(&function).await? {
        let mut runs = Vec::new();
        for id in &standing.runs {
            let state = match id.parse::<RequestId>() {
                Ok(request) => plane.queue.show(name.clone(), request).await?.map(|(record, _, _)| record.state),
                Err(_) => None,
            };
            runs.push(TriggerRun { id: id.clone(), state: state.map(|state| state.as_str().to_owned()) });
        }
        triggers.push(view(standing, runs));
    }
    Ok(Json(TriggerList { triggers }))
}

/// Fires a timer now, beside its own times, whether or not it is enabled.
#[utoipa::path(post, path = "/v1/functions/{name}/triggers/{trigger}/fire", operation_id = "fireTrigger",
    params(("name" = String, Path, description = "The function's name"),
           ("trigger" = String, Path, description = "The trigger's name")),
    responses((status = 202, body = FiredView), (status = 400, body = Problem), (status = 404, body = Problem),
              (status = 429, body = Problem)))]
pub(super) async fn fire(
    State(plane): Shared,
    Path((name, trigger)): Path<(String, String)>,
) -> Result<impl IntoResponse, Failure> {
    let function = find(&plane.host, &name.parse()?)?;
    let id = plane.triggers.fire(&function, &trigger).await?.id.to_string();
    Ok((StatusCode::ACCEPTED, Detail(format!("as {id}")).attached(), Json(FiredView { id })))
}

fn view(standing: Standing, runs: Vec<TriggerRun>) -> TriggerView {
    let time = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
    let address = match standing.spec.check() {
        Ok(TriggerKind::Http(http)) => Some(http.address()),
        Ok(TriggerKind::Timer(_)) | Err(_) => None,
    };
    let next = standing.next.into_iter().map(time).collect();
    TriggerView { name: standing.name, trigger: standing.spec, next, runs, address }
}
