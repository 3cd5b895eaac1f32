//! Outgoing HTTP: to the hosts that the function's configuration allows, and nowhere else.

use std::future::Future;
use std::sync::Arc;

use http::uri::Scheme;
use http_body_util::BodyExt;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::host_pattern::HostPattern;
use crate::ids::InstanceId;
use crate::log::{Log, Stream};

/// Decides about each outgoing request of one guest before a name is looked up.
pub(super) struct Outbound {
    allowed: Arc<[HostPattern]>,
    log: Log,
    instance: InstanceId,
}

impl Outbound {
    pub(super) fn new(allowed: Arc<[HostPattern]>, log: Log, instance: InstanceId) -> Outbound {
        Outbound { allowed, log, instance }
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
        Box::new(async move {
            let (response, transmission) = wasmtime_wasi_http::default_send_request(request, options).await?;
            Ok((response.map(BodyExt::boxed_unsync), Box::new(transmission) as Transmission))
        })
    }
}
