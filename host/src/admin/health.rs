//! For supervisors and Prometheus.

use std::sync::Arc;

use axum::extract::State;
use http::{HeaderMap, header};

use super::Plane;
use super::model::Problem;
use crate::telemetry;
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

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the host counts: in the text format of Prometheus, or in that of OpenMetrics for those who ask for it with `Accept`.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String)))]
pub(super) async fn metrics(
    State(plane): State<Arc<Plane>>,
    fields: HeaderMap,
) -> Result<([(header::HeaderName, &'static str); 1], String), Failure> {
    let accepted = fields.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_open =
        accepted.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with("application/openmetrics-text"));
    let (waiting, running) = plane.queue.backlog();
    plane.host.work_metrics().measure(waiting, running);
    let text = plane.host.metrics()?;
    let (kind, text) = if is_open { (OPEN_METRICS, text) } else { (PROMETHEUS, telemetry::prometheus_text(&text)) };
    Ok(([(header::CONTENT_TYPE, kind)], text))
}
