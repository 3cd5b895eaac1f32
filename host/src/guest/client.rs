//! Connections to other hosts. A guest's requests share them while its instance is awake; a parked instance has none.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, timeout};
use wasmtime_wasi_http::RequestOptions;

use super::delivery::{Body, BodyError};
use super::reach::{Connector, Reach, ReachError};

/// The timeout of each step for which the guest sets none.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long an idle connection is kept while its instance is awake.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

type Connecting = Client<HttpsConnector<Connector>, Body>;

/// A guest's connections.
#[derive(Default)]
pub(super) struct Connections(Mutex<Option<Connecting>>);

impl Connections {
    /// Closes the idle connections. The others close when their request has ended.
    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// A client that uses them. Created by the first request, because most guests never send one.
    pub(super) fn client(&self, reach: &Arc<Reach>) -> Connecting {
        let mut client = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        client.get_or_insert_with(|| within(reach.clone())).clone()
    }
}

fn within(reach: Arc<Reach>) -> Connecting {
    // One for all guests: reading the system's roots takes milliseconds.
    static TLS: OnceLock<ClientConfig> = OnceLock::new();
    let https = HttpsConnectorBuilder::new().with_tls_config(TLS.get_or_init(tls).clone());
    let connector = https.https_or_http().enable_http1().wrap_connector(Connector(reach));
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIMEOUT).build(connector)
}

/// TLS that trusts the system's root certificates.
fn tls() -> ClientConfig {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!("cannot read some of the system's root certificates: {error}");
    }
    let mut roots = RootCertStore::empty();
    let (trusted, _) = roots.add_parsable_certificates(found.certs);
    if trusted == 0 {
        tracing::warn!("the system has no root certificates; outgoing requests over TLS will fail");
    }
    let config =
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    config.expect("the provider has the protocols' ciphers").with_root_certificates(roots).with_no_client_auth()
}

/// Sends a request over a connection of its own.
pub(super) async fn request(
    reach: &Arc<Reach>,
    request: http::Request<Body>,
) -> Result<http::Response<Incoming>, BodyError> {
    within(reach.clone()).request(request).await.map_err(|error| explain(&error))
}

/// Sends a request. `place` is released together with the response's body.
pub(super) async fn send(
    client: Connecting,
    request: http::Request<Body>,
    options: Option<RequestOptions>,
    place: OwnedSemaphorePermit,
) -> Result<http::Response<Body>, BodyError> {
    let given = |time: fn(&RequestOptions) -> Option<Duration>| options.as_ref().and_then(time).unwrap_or(PATIENCE);
    // The client does not tell if it connects or reuses a connection, so the two timeouts are added.
    let head = given(|options| options.connect_timeout).saturating_add(given(|options| options.first_byte_timeout));
    let between = given(|options| options.between_bytes_timeout);
    let response = timeout(head, client.request(request)).await.map_err(|_| BodyError::ConnectionReadTimeout)?;
    let response = response.map_err(|error| explain(&error))?;
    Ok(response.map(|body| {
        let timer = Box::pin(tokio::time::sleep(between));
        ResponseBody { body, between, timer, _place: place }.boxed_unsync()
    }))
}

/// A response's body with a timeout between its parts.
struct ResponseBody {
    body: Incoming,
    between: Duration,
    timer: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let deadline = Instant::now() + self.between;
                self.timer.as_mut().reset(deadline);
                Poll::Ready(frame.map(|frame| frame.map_err(|error| explain(&error))))
            }
            Poll::Pending => {
                ready!(self.timer.as_mut().poll(cx));
                Poll::Ready(Some(Err(BodyError::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The error as an error code of `wasi:http`.
fn explain(error: &(dyn StdError + 'static)) -> BodyError {
    named(error).unwrap_or_else(|| BodyError::InternalError(Some(error.to_string())))
}

/// The first of an error's causes that `wasi:http` has a code for.
fn named(error: &(dyn StdError + 'static)) -> Option<BodyError> {
    match error.downcast_ref() {
        Some(ReachError::Unresolved(_)) => return Some(BodyError::DnsError { rcode: None, info_code: None }),
        Some(ReachError::Full) => return Some(BodyError::ConnectionLimitReached),
        Some(ReachError::Guarded(_)) => return Some(BodyError::DestinationIpProhibited),
        None => {}
    }
    if let Some(known) = error.downcast_ref::<rustls::Error>() {
        return Some(tls_error(known));
    }
    if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
        return Some(BodyError::HttpResponseIncomplete);
    }
    let Some(io) = error.downcast_ref::<io::Error>() else { return error.source().and_then(named) };
    // `source` of an I/O error skips the error that it wraps, which says more than the kind.
    io.get_ref().and_then(|inner| named(inner)).or_else(|| io_error(io.kind()))
}

fn tls_error(error: &rustls::Error) -> BodyError {
    match error {
        rustls::Error::InvalidCertificate(_) => BodyError::TlsCertificateError,
        rustls::Error::AlertReceived(alert) => {
            BodyError::TlsAlertReceived { alert_id: Some(u8::from(*alert)), alert_message: Some(format!("{alert:?}")) }
        }
        _ => BodyError::TlsProtocolError,
    }
}

fn io_error(kind: io::ErrorKind) -> Option<BodyError> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some(BodyError::ConnectionRefused),
        io::ErrorKind::TimedOut => Some(BodyError::ConnectionTimeout),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(BodyError::DestinationIpUnroutable),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(BodyError::ConnectionTerminated),
        _ => None,
    }
}
