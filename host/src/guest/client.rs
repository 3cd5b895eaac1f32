//! Connections to other hosts. A guest's requests share them while its instance is awake; a parked instance has none.

use std::error::Error as StdError;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{self, Either};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, timeout};
use wasmtime_wasi_http::RequestOptions;

use super::delivery::{Body, BodyError};
use super::reach::{Connection, Connector, Reach, ReachError};
use super::repeat::lent;

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

/// How long a request may take in each of its steps.
#[derive(Clone, Copy)]
struct Times {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Times {
    fn of(options: Option<&RequestOptions>) -> Times {
        let given = |time: fn(&RequestOptions) -> Option<Duration>| options.and_then(time).unwrap_or(PATIENCE);
        Times {
            connect: given(|options| options.connect_timeout),
            first_byte: given(|options| options.first_byte_timeout),
            between_bytes: given(|options| options.between_bytes_timeout),
        }
    }
}

/// Sends a request over a connection of the guest's. If that was used before and its server closed it meanwhile, the request goes once more
/// over a new one, if it may be repeated. `place` is released together with the response's body.
pub(super) async fn send(
    (connections, reach): (&Connections, Arc<Reach>),
    request: http::Request<Body>,
    options: Option<RequestOptions>,
    place: OwnedSemaphorePermit,
) -> Result<http::Response<Body>, BodyError> {
    let (client, times) = (connections.client(&reach), Times::of(options.as_ref()));
    let (request, again) = lent(request);
    let response = match (exchange(&client, request, times).await, again) {
        (Err(Failed { was_used: true, error }), Some(again)) if is_closing(&error) => match again.taken_back().await {
            Some(again) => exchange(&within(reach), again, times).await,
            None => Err(Failed { was_used: true, error }),
        },
        (sent, _) => sent,
    };
    let between = times.between_bytes;
    Ok(response.map_err(|failed| failed.error)?.map(|body| {
        let timer = Box::pin(tokio::time::sleep(between));
        ResponseBody { body, between, timer, _place: place }.boxed_unsync()
    }))
}

/// Why there was no response.
struct Failed {
    error: BodyError,
    /// The connection had carried a request before.
    was_used: bool,
}

/// Sends a request and waits for the head of its response.
async fn exchange(
    client: &Connecting,
    mut request: http::Request<Body>,
    times: Times,
) -> Result<http::Response<Incoming>, Failed> {
    let mut connection = capture_connection(&mut request);
    let mut sent = pin!(client.request(request));
    let begun = {
        let connected = pin!(connection.wait_for_connection_metadata());
        let begun = timeout(times.connect, future::select(&mut sent, connected)).await;
        begun.map(|begun| if let Either::Left((response, _)) = begun { Some(response) } else { None })
    };
    let was_used = connection.connection_metadata().as_ref().is_some_and(Connection::is_used);
    let failed = |error| Failed { error, was_used };
    let response = match begun.map_err(|_| failed(BodyError::ConnectionTimeout))? {
        Some(response) => response,
        None => timeout(times.first_byte, sent).await.map_err(|_| failed(BodyError::ConnectionReadTimeout))?,
    };
    response.map_err(|error| failed(explain(&error)))
}

/// Whether an error says that the server closed the connection before it answered.
fn is_closing(error: &BodyError) -> bool {
    matches!(error, BodyError::HttpResponseIncomplete | BodyError::ConnectionTerminated)
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

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the servers of a test end with it")]
mod tests {
    use std::net::SocketAddr;

    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::sync::Semaphore;

    use super::super::reach::Network;
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    struct Caller {
        connections: Connections,
        reach: Arc<Reach>,
    }

    impl Caller {
        fn new() -> Caller {
            let network = Arc::new(Network::new(Vec::new(), 100));
            let reach = Arc::new(Reach::new(&["127.0.0.1".parse().unwrap()], network));
            Caller { connections: Connections::default(), reach }
        }

        async fn send(&self, method: &str, to: SocketAddr, options: RequestOptions) -> Result<String, BodyError> {
            let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
            let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
            let request = http::Request::builder().method(method).uri(format!("http://{to}/")).body(body).unwrap();
            let response = send((&self.connections, self.reach.clone()), request, Some(options), place).await?;
            let body = response.into_body().collect().await?.to_bytes();
            Ok(String::from_utf8(body.to_vec()).unwrap())
        }
    }

    fn waits(connect: Option<u64>, first_byte: Option<u64>) -> RequestOptions {
        let (connect_timeout, first_byte_timeout) = (connect.map(MS), first_byte.map(MS));
        RequestOptions { connect_timeout, first_byte_timeout, between_bytes_timeout: None }
    }

    async fn read_request(stream: &mut TcpStream) -> bool {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte).await {
                Ok(1) => text.extend(byte),
                _ => return false,
            }
        }
        true
    }

    #[tokio::test]
    async fn each_step_has_its_own_timeout() {
        // One that connects and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // One with so many waiting connections that the kernel takes no more.
        let full = TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = full.listen(0).unwrap();
        let _waiting = TcpStream::connect(full.local_addr().unwrap()).await.unwrap();
        // What does not end soon waits for a step whose timeout is another.
        let ends = async |to: &TcpListener, options: RequestOptions, within: Duration| {
            let caller = Caller::new();
            let sent = timeout(within, caller.send("GET", to.local_addr().unwrap(), options)).await.ok()?;
            Some(format!("{:?}", sent.unwrap_err()))
        };
        let (soon, late) = (MS(300), MS(30_000));
        assert_eq!(ends(&silent, waits(None, Some(70)), late).await.as_deref(), Some("ConnectionReadTimeout"));
        assert_eq!(ends(&silent, waits(Some(50), None), soon).await, None);
        assert_eq!(ends(&full, waits(Some(50), None), late).await.as_deref(), Some("ConnectionTimeout"));
        assert_eq!(ends(&full, waits(None, Some(50)), soon).await, None);
    }

    #[tokio::test]
    async fn a_request_goes_once_more_if_the_server_closes_a_used_connection() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        // Each connection answers one request, and closes when it has read the next.
        let served = tokio::task::spawn(async move {
            loop {
                let (mut stream, _) = server.accept().await.unwrap();
                tokio::task::spawn(async move {
                    read_request(&mut stream).await;
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    read_request(&mut stream).await;
                });
            }
        });
        let caller = Caller::new();
        for method in ["GET", "PUT", "DELETE", "POST"] {
            caller.send("POST", address, waits(None, None)).await.expect("a new connection answers");
            // hyper takes it back in a task of its own.
            tokio::time::sleep(MS(200)).await;
            match caller.send(method, address, waits(None, None)).await {
                Ok(answer) => assert!(answer == "ok" && method != "POST", "{method}"),
                Err(error) => assert!(is_closing(&error) && method == "POST", "{method}: {error:?}"),
            }
        }
        served.abort();
    }

    #[tokio::test]
    async fn a_server_that_closes_new_connections_is_not_asked_twice() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let asked_once = tokio::task::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            read_request(&mut stream).await;
            drop(stream);
            timeout(MS(300), server.accept()).await.is_err()
        });
        let error = Caller::new().send("GET", address, waits(None, None)).await.unwrap_err();
        assert!(is_closing(&error), "{error:?}");
        assert!(asked_once.await.unwrap());
    }
}
