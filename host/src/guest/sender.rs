//! HTTP requests that the host sends on behalf of a function: they reach what the function's own requests may reach.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::time::timeout;

use super::client;
use super::host_pattern::HostPattern;
use super::reach::{self, Network, Reach};

/// How much of a reply is read: enough for people to see what is wrong.
const REPLY_BYTES_MAX: usize = 4096;

/// Sends requests within the reach of one function.
pub struct Sender(Arc<Reach>);

/// What was answered.
#[derive(Debug)]
pub struct Sent {
    /// The status.
    pub status: u16,
    /// The beginning of the body; nothing if it is long.
    pub body: Bytes,
}

impl Sender {
    /// Sends where the function of these `allowedOutboundHosts` may.
    pub fn new(allowed: &[HostPattern], network: Arc<Network>) -> Sender {
        Sender(Arc::new(Reach::new(allowed, network)))
    }

    /// Sends a POST and waits for the answer, for so long in all. A redirect is an answer like any other.
    pub async fn post(&self, url: &str, fields: HeaderMap, body: Bytes, limit: Duration) -> Result<Sent, String> {
        let uri: Uri = url.parse().map_err(|_| format!("`{url}` is no address"))?;
        let (host, port) = (uri.host().unwrap_or_default().to_owned(), reach::port_of(&uri));
        if !self.0.names(&host, port) {
            return Err(format!("{host}:{port} is not in `allowedOutboundHosts`"));
        }
        let mut request = http::Request::new(Full::from(body).map_err(|never| match never {}).boxed_unsync());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = fields;
        let agent = header::HeaderValue::from_static(concat!("dormouse/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        let sent = async {
            // A connection of its own: it is seldom the same host soon again.
            let response = client::request(&self.0, request).await.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), REPLY_BYTES_MAX).collect().await;
            Ok(Sent { status, body: body.map(|body| body.to_bytes()).unwrap_or_default() })
        };
        timeout(limit, sent).await.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
    }
}
