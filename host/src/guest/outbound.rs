//! Outgoing HTTP: to the hosts that the function's configuration allows, and nowhere else.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::client;
use super::mailbox::Mailbox;
use super::reach::{self, Reach};
use super::trace;
use crate::ids::InstanceId;
use crate::log::{Author, LogWriter, Stream};

/// Outgoing requests that one guest may have under way.
const REQUESTS_MAX: usize = 128;

/// Allows or denies each outgoing request of one guest, before any DNS lookup.
pub(super) struct Outbound {
    reach: Arc<Reach>,
    /// Created by the first request, because most guests never send one.
    places: Option<Arc<Semaphore>>,
    log: Told,
    mailbox: Arc<Mailbox>,
}

/// Lines about outgoing requests that one instance may cause in a second; more are counted and told with the next.
const LINES_PER_SECOND: u32 = 20;
/// How much of a host's name is told.
const HOST_BYTES_MAX: usize = 253;

/// What is told of one instance's outgoing requests: a function may send thousands a second that fail.
#[derive(Clone)]
struct Told {
    log: LogWriter,
    instance: InstanceId,
    second: Arc<Mutex<Second>>,
}

#[derive(Default)]
struct Second {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Told {
    fn tell(&self, author: Author, text: &str) {
        let left_out = {
            let mut second = self.second.lock().expect("no holder of this lock panics");
            if second.began.is_none_or(|began| began.elapsed() >= Duration::from_secs(1)) {
                (second.began, second.lines) = (Some(Instant::now()), 0);
            }
            second.lines += 1;
            if second.lines > LINES_PER_SECOND {
                second.left_out += 1;
                return;
            }
            std::mem::take(&mut second.left_out)
        };
        let more = if left_out > 0 {
            format!(" ({left_out} more lines of this kind are left out before it)")
        } else {
            String::new()
        };
        self.log.write(Stream::Host, self.instance, author, format!("{text}{more}"));
    }
}

/// A host's name, as far as it is told.
fn shown(host: &str) -> &str {
    &host[..host.floor_char_boundary(HOST_BYTES_MAX)]
}

impl Outbound {
    pub(super) fn new(reach: Arc<Reach>, log: LogWriter, instance: InstanceId, mailbox: Arc<Mailbox>) -> Outbound {
        let log = Told { log, instance, second: Arc::default() };
        Outbound { reach, places: None, log, mailbox }
    }

    fn allows(&self, host: &str, port: u16) -> bool {
        let allowed = self.reach.names(host, port);
        if !allowed {
            self.tell(&format!("outgoing request to {}:{port} denied: not in allowedOutboundHosts", shown(host)));
        }
        allowed
    }

    fn tell(&self, text: &str) {
        self.log.tell(self.mailbox.author(), text);
    }

    fn place(&mut self) -> Result<OwnedSemaphorePermit, Error> {
        let places = self.places.get_or_insert_with(|| Arc::new(Semaphore::new(REQUESTS_MAX)));
        places.clone().try_acquire_owned().map_err(|_| {
            self.tell(&format!("outgoing request denied: {REQUESTS_MAX} are under way already"));
            Error::ConnectionLimitReached
        })
    }
}

type Transmission = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Transmission), Error>;

impl WasiHttpHooks for Outbound {
    // The default asks through a closure that it allocates, for each field of each request.
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn send_request(
        &mut self,
        mut request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _body_ended: Transmission,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let Some(host) = request.uri().host().map(str::to_owned) else {
            return Box::new(std::future::ready(Err(Error::HttpRequestUriInvalid)));
        };
        let port = reach::port_of(request.uri());
        if !self.allows(&host, port) {
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        }
        let place = match self.place() {
            Ok(place) => place,
            Err(error) => return Box::new(std::future::ready(Err(error))),
        };
        let mut span = self.mailbox.origin().and_then(|origin| trace::begin(&mut request, &origin));
        let (mailbox, reach) = (self.mailbox.clone(), self.reach.clone());
        let (log, author) = (self.log.clone(), self.mailbox.author());
        Box::new(async move {
            let sent = client::send((&mailbox.connections, reach), request, options, place).await;
            if let Some(span) = &mut span {
                match &sent {
                    Ok(response) => span.answered(response.status().as_u16()),
                    Err(error) => span.failed(error.to_string()),
                }
            }
            let response = sent.inspect_err(|error| {
                let host = shown(&host);
                // Logged as well, because not every language shows this error to its functions.
                let text = match error {
                    Error::DestinationIpProhibited => format!(
                        "outgoing request to {host}:{port} denied: it is an address of the host itself or of its cloud; \
                         to allow it, name the address with its port in allowedOutboundHosts"
                    ),
                    Error::ConnectionLimitReached => format!(
                        "outgoing request to {host}:{port} denied: this function has half of --outgoing-connections-max \
                         open, or all functions together as many as that allows"
                    ),
                    error => format!("outgoing request to {host}:{port} failed: {error}"),
                };
                log.tell(author, &text);
            })?;
            // hyper's connection sends the rest of the request's body by itself, and ends the response early if it
            // cannot.
            Ok((response, Box::new(std::future::ready(Ok(()))) as Transmission))
        })
    }
}
