//! The data plane: callers reach functions here.
//!
//! One request: `listener` accepts the connection, `invoke` reads the event and finds the function in the catalog and
//! its pool, the pool runs it, and `problem` turns every way this can fail into a status and a code. Nothing here
//! decides which instance runs a request.

pub mod headers;
mod event;
mod invoke;
mod linger;
pub mod listener;
pub mod problem;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use tokio::net::TcpListener;

use self::event::EventReader;
use crate::config::DataConfig;
use crate::parts::Parts;

/// What the handlers share.
struct Plane {
    parts: Arc<Parts>,
    events: EventReader,
}

/// Serves callers until the host closes.
pub async fn serve(listener: TcpListener, parts: Arc<Parts>, config: DataConfig) {
    let tasks = parts.tasks.clone();
    let connections_max = config.connections_max;
    let plane = Arc::new(Plane { parts, events: EventReader::new(config.event_bytes_max) });
    let router = Router::new()
        .route("/invoke/{function}", post(invoke::invoke).fallback(invoke::wrong_method))
        .fallback(invoke::no_such_path)
        .with_state(plane);
    listener::serve(listener, router, connections_max, tasks).await;
}
