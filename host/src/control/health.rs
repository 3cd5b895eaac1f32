//! For supervisors and Prometheus.

use std::sync::Arc;

use axum::extract::State;
use http::{StatusCode, header};
use prometheus_client::encoding::text::encode;

use super::Plane;
use super::model::Problem;
use crate::http::problem::Failure;

/// The process runs.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String)))]
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// The host takes requests.
#[utoipa::path(get, path = "/readyz", responses((status = 200, body = String), (status = 503, body = Problem)))]
pub(super) async fn ready(State(plane): State<Arc<Plane>>) -> Result<&'static str, Failure> {
    let not_ready = |code, detail: &str| Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, code, detail));
    if plane.parts.tasks.draining() {
        return not_ready("host-draining", "the host is shutting down");
    }
    if !plane.parts.ledger.healthy() {
        return not_ready("ledger-unhealthy", "the ledger cannot be written; see the host's log");
    }
    Ok("ready\n")
}

/// What the host counts, in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String)))]
pub(super) async fn metrics(
    State(plane): State<Arc<Plane>>,
) -> Result<([(header::HeaderName, &'static str); 1], String), Failure> {
    plane.parts.measure();
    let mut text = String::new();
    encode(&mut text, &plane.parts.registry).map_err(anyhow::Error::from)?;
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, open_metrics)], text))
}
