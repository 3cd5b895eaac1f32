//! The data plane: callers reach functions here.
//!
//! One request: `route` reads the address, `call` makes a call of it for the host's one door, `reply` makes an answer of
//! what comes back, and `reject` turns every way this can fail into a problem. Nothing here decides what runs.

mod call;
mod cors;
mod event;
mod reject;
mod reply;
mod route;

use std::sync::Arc;

use hyper::body::Incoming;
use tokio::net::TcpListener;

use self::event::EventReader;
use self::reply::{ReplyBody, Response};
use crate::config::DataConfig;
use crate::host::Host;
use crate::queue::Queue;
use crate::web::listener;
use crate::web::service::{Client, Service};
use crate::web::tls::Tls;

/// What all requests share.
struct Plane {
    host: Arc<Host>,
    queue: Arc<Queue>,
    events: EventReader,
}

impl Service for Plane {
    type Body = ReplyBody;

    async fn answer(&self, request: http::Request<Incoming>, _client: Client) -> Response {
        call::answer(self, request).await
    }
}

/// Serves callers until the host closes.
pub async fn serve(listener: TcpListener, tls: Option<Tls>, queue: Arc<Queue>, config: DataConfig) {
    let host = queue.host().clone();
    let tasks = host.tasks().clone();
    let events = EventReader::new(config.event_bytes_max, host.clone());
    let plane = Plane { host, queue, events };
    listener::serve(listener, tls, plane, config.connections, tasks).await;
}
