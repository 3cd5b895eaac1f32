//! The data plane: callers reach functions here.
//!
//! One request: `listener` accepts the connection, `invoke` finds the function in the catalog, reads the event and asks
//! its pool, the pool runs it, and `problem` turns every way this can fail into a status and a code. Nothing here
//! decides which instance runs a request.

pub mod headers;
mod event;
mod invoke;
pub mod linger;
pub mod listener;
pub mod problem;
mod timer;

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use tokio::net::TcpListener;

use self::event::EventReader;
use self::listener::Service;
use crate::config::DataConfig;
use crate::parts::Parts;

/// What a caller gets.
type Response = http::Response<Full<Bytes>>;

/// What all requests share.
struct Plane {
    parts: Arc<Parts>,
    events: EventReader,
}

impl Service for Plane {
    type Body = Full<Bytes>;

    async fn answer(&self, request: http::Request<Incoming>) -> Response {
        invoke::answer(self, request).await
    }
}

/// Serves callers until the host closes.
pub async fn serve(listener: TcpListener, parts: Arc<Parts>, config: DataConfig) {
    let tasks = parts.tasks.clone();
    let connections_max = config.connections_max;
    let plane = Plane { parts, events: EventReader::new(config.event_bytes_max) };
    listener::serve(listener, plane, connections_max, tasks).await;
}
