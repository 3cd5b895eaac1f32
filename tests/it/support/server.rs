//! A real HTTP server for guests to call: it keeps what it received.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, rustls};

/// A request that the server got.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: String,
    /// The fields.
    pub(crate) fields: HeaderMap,
}

impl Received {
    /// A field's text; empty if it is not there.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().unwrap_or("?"))
    }
}

/// Listens on a port of the system's choice until it is dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<Connections>,
    accepting: tokio::task::JoinHandle<()>,
}

/// How many connections there were, and are.
#[derive(Default)]
struct Connections {
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl TestServer {
    /// A server that answers every request with `body`, after `delay`.
    pub(crate) async fn start(body: &'static str, delay: Duration) -> TestServer {
        TestServer::start_with(body, delay, None).await
    }

    /// The same over TLS.
    pub(crate) async fn start_tls(body: &'static str, config: rustls::ServerConfig) -> TestServer {
        TestServer::start_with(body, Duration::ZERO, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_with(body: &'static str, delay: Duration, tls: Option<TlsAcceptor>) -> TestServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let received = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Connections::default());
        let (kept, counted) = (received.clone(), connections.clone());
        let accepting = tokio::task::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, counted, tls) = (kept.clone(), counted.clone(), tls.clone());
                counted.accepted.fetch_add(1, Ordering::SeqCst);
                counted.open.fetch_add(1, Ordering::SeqCst);
                tokio::task::spawn(async move {
                    let service = service_fn(move |request| answer(request, kept.clone(), body, delay));
                    let server = hyper::server::conn::http1::Builder::new();
                    // A client that breaks off, or trusts nobody, is what some tests are about.
                    match tls {
                        None => drop(server.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(server.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                    counted.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        TestServer { address, received, connections, accepting }
    }

    /// How many connections were made to it so far.
    pub(crate) fn accepted(&self) -> usize {
        self.connections.accepted.load(Ordering::SeqCst)
    }

    /// How many are open now.
    pub(crate) fn open(&self) -> usize {
        self.connections.open.load(Ordering::SeqCst)
    }

    /// What it received so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    kept: Arc<Mutex<Vec<Received>>>,
    body: &'static str,
    delay: Duration,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, sent) = request.into_parts();
    let sent = sent.collect().await.map(|sent| sent.to_bytes()).unwrap_or_default();
    let received = Received {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        body: String::from_utf8_lossy(&sent).into_owned(),
        fields: head.headers,
    };
    // A path such as `/500/3` answers so with this status, to as many requests.
    let wanted =
        received.path.trim_start_matches('/').split_once('/').map(|(status, times)| (status.parse(), times.parse()));
    let mut status = 200;
    if let Some((Ok(failing), Ok(times))) = wanted {
        let before = kept.lock().unwrap().iter().filter(|other| other.path == received.path).count();
        status = if before < times { failing } else { 200 };
    }
    kept.lock().unwrap().push(received);
    tokio::time::sleep(delay).await;
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    Ok(response)
}
