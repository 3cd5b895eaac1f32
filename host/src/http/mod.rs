//! The data plane: callers reach functions here.
//!
//! One request: `listener` accepts the connection, `route` reads the address, `call` finds the function in the catalog,
//! makes of the request what the function takes and asks its pool, the pool runs it, `reply` makes an answer of what comes
//! back, and `problem` turns every way this can fail into a status and a code. Nothing here decides which instance runs
//! a request.

pub mod headers;
mod call;
mod event;
pub mod linger;
pub mod listener;
pub mod problem;
mod reply;
mod route;
mod timer;

use std::sync::Arc;

use hyper::body::Incoming;
use tokio::net::TcpListener;

use self::event::EventReader;
use self::listener::Service;
use self::reply::{ReplyBody, Response};
use crate::config::DataConfig;
use crate::parts::Parts;

/// What all requests share.
struct Plane {
    parts: Arc<Parts>,
    events: EventReader,
}

impl Service for Plane {
    type Body = ReplyBody;

    async fn answer(&self, request: http::Request<Incoming>) -> Response {
        call::answer(self, request).await
    }
}

/// Serves callers until the host closes.
pub async fn serve(listener: TcpListener, parts: Arc<Parts>, config: DataConfig) {
    let tasks = parts.tasks.clone();
    let connections_max = config.connections_max;
    let plane = Plane { parts, events: EventReader::new(config.event_bytes_max) };
    listener::serve(listener, plane, connections_max, tasks).await;
}
