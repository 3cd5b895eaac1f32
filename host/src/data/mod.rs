//! The data plane: callers reach functions here.
//!
//! One request: `route` reads the address and `fields` what else is for the host, `call` makes a call of it for the
//! host's one door, `reply` makes an answer of what comes back, and `reject` turns every way this can fail into a problem.
//! Nothing here decides what runs.

mod call;
mod cors;
mod fields;
mod http_event;
mod reject;
mod reply;
mod route;

use std::sync::Arc;

use hyper::body::Incoming;
use tokio::net::TcpListener;

use self::reply::{ReplyBody, Response};
use crate::catalog::is_proxy_path;
use crate::config::DataConfig;
use crate::fc::{self, Fc};
use crate::host::Host;
use crate::queue::Queue;
use crate::web::event::EventReader;
use crate::web::listener;
use crate::web::service::{Client, Service};
use crate::web::tls::Tls;

/// What all requests share.
struct Plane {
    host: Arc<Host>,
    queue: Arc<Queue>,
    fc: Arc<Fc>,
    events: EventReader,
}

impl Service for Plane {
    type Body = ReplyBody;

    async fn answer(&self, request: http::Request<Incoming>, client: Client) -> Response {
        let path = request.uri().path();
        if path.starts_with("/2") && fc::is_api(path) && !is_proxy_path(path) {
            return self.fc.answer(request, client, fc::Listener::Data).await.map(ReplyBody::Other);
        }
        call::answer(self, request, client).await
    }
}

/// Serves callers until the host closes.
pub async fn serve(listener: TcpListener, tls: Option<Tls>, (queue, fc): (Arc<Queue>, Arc<Fc>), config: DataConfig) {
    let host = queue.host().clone();
    let tasks = host.tasks().clone();
    let events = EventReader::new(config.event_bytes_max);
    let plane = Plane { host, queue, fc, events };
    listener::serve(listener, tls, plane, config.connections, tasks).await;
}
