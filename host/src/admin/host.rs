//! The host itself: which program it is, and where callers reach it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Plane;
use super::model::HostView;
use crate::operator::Operator;

/// The host.
#[utoipa::path(get, path = "/v1/host", operation_id = "showHost", responses((status = 200, body = HostView)))]
pub(super) async fn show(State(plane): State<Arc<Plane>>, operator: Operator) -> Json<HostView> {
    Json(HostView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data_address: plane.data.to_string(),
        operator: operator.name(),
    })
}
