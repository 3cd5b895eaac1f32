//! For supervisors and Prometheus.

use std::sync::Arc;

use axum::extract::State;
use http::header;

use super::Plane;
use super::model::Problem;
use crate::web::problem::{Code, Failure};

/// The process runs.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String)))]
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// The host takes requests.
#[utoipa::path(get, path = "/readyz", responses((status = 200, body = String), (status = 503, body = Problem)))]
pub(super) async fn ready(State(plane): State<Arc<Plane>>) -> Result<&'static str, Failure> {
    if plane.host.tasks().draining() {
        return Err(Failure::new(Code::HostDraining, "the host is shutting down"));
    }
    if !plane.host.is_ledger_healthy() {
        return Err(Failure::new(Code::LedgerUnhealthy, "the ledger cannot be written; see the host's log"));
    }
    if !plane.queue.is_healthy() {
        return Err(Failure::new(
            Code::QueueUnavailable,
            "asynchronous invocations cannot be stored; see the host's log",
        ));
    }
    Ok("ready\n")
}

/// What the host counts, in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String)))]
pub(super) async fn metrics(
    State(plane): State<Arc<Plane>>,
) -> Result<([(header::HeaderName, &'static str); 1], String), Failure> {
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, open_metrics)], plane.host.metrics()?))
}
