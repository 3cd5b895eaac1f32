//! Outgoing HTTP: to the hosts that the function's configuration allows, and nowhere else.

use std::future::Future;
use std::sync::Arc;

use http::uri::Scheme;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::host_pattern::HostPattern;
use crate::ids::InstanceId;
use crate::log::{Log, Stream};

/// Outgoing requests that one guest may have under way: each holds an open file, which all guests share.
const REQUESTS_MAX: usize = 128;

/// Decides about each outgoing request of one guest before a name is looked up.
pub(super) struct Outbound {
    allowed: Arc<[HostPattern]>,
    /// Made by the first request: most guests never send one.
    places: Option<Arc<Semaphore>>,
    log: Log,
    instance: InstanceId,
}

impl Outbound {
    pub(super) fn new(allowed: Arc<[HostPattern]>, log: Log, instance: InstanceId) -> Outbound {
        Outbound { allowed, places: None, log, instance }
    }

    fn allows(&self, uri: &http::Uri) -> bool {
        let Some(host) = uri.host() else { return false };
        let default_port = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        let allowed = self.allowed.iter().any(|pattern| pattern.matches(host, port));
        if !allowed {
            let text = format!("outgoing request to {host}:{port} denied: not in allowedOutboundHosts");
            self.log.write(Stream::Host, self.instance, None, text);
        }
        allowed
    }

    fn place(&mut self) -> Result<OwnedSemaphorePermit, Error> {
        let places = self.places.get_or_insert_with(|| Arc::new(Semaphore::new(REQUESTS_MAX)));
        places.clone().try_acquire_owned().map_err(|_| {
            let text = format!("outgoing request denied: {REQUESTS_MAX} are under way already");
            self.log.write(Stream::Host, self.instance, None, text);
            Error::ConnectionLimitReached
        })
    }
}

type Transmission = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Transmission), Error>;

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _body_ended: Transmission,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        if !self.allows(request.uri()) {
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        }
        let place = match self.place() {
            Ok(place) => place,
            Err(error) => return Box::new(std::future::ready(Err(error))),
        };
        Box::new(async move {
            let (response, transmission) = wasmtime_wasi_http::default_send_request(request, options).await?;
            let transmission = async move {
                let transmitted = transmission.await;
                drop(place); // The connection is closed.
                transmitted
            };
            Ok((response.map(BodyExt::boxed_unsync), Box::new(transmission) as Transmission))
        })
    }
}
