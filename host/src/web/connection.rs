//! One connection: with TLS or without, in HTTP/1.1 or HTTP/2 as the client begins. Closed in order when the host closes.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::Method;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout, timeout_at};
use tokio_io_timeout::TimeoutWriter;
use tokio_rustls::server::TlsStream;

use super::gather::Gathered;
use super::service::{Client, Fingerprint, Service};
use super::stream::{OnTasks, note_frame};
use super::timer::ConnectionTimer;
use super::tls::Tls;
use crate::config::ConnectionBounds;
use crate::proxies::Hop;
use crate::shutdown::Tasks;

/// How long a client may take to send another request's head; also the longest time that a connection is kept idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection without a request may take to end when the host closes: one that has sent half a head must not
/// hold the host up.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// HTTP/2 without TLS begins with this (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// TLS begins with a record of this type (RFC 8446, section 5.1), which is no letter.
const HANDSHAKE: u8 = 22;
/// What a client of HTTP gets where TLS is spoken.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\
    content-length: 49\r\n\r\nTLS is spoken here; use https:// in the address\r\n";
/// What a client of TLS gets where none is spoken: the alert `protocol_version`, which is fatal.
const SPEAK_PLAINLY: &[u8] = &[21, 3, 1, 0, 2, 2, 70];
/// What is read of a client that is sent away.
const UNREAD_BYTES_MAX: u64 = 256 << 10;
/// Between two looks at a preface that is not whole: the kernel does not tell when there is more to look at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// What a request's fields may take together over HTTP/2, as its section 6.5.2 counts them.
const FIELDS_BYTES_MAX: u32 = 32 << 10;
/// What a client may send ahead of its reader over HTTP/2, on a connection: about what HTTP/1.1 reads ahead.
const AHEAD_BYTES_MAX: u32 = 256 << 10;
/// What is taken from a reply ahead of what its client takes, where it comes in pieces.
const SEND_BYTES_MAX: usize = 64 << 10;
/// A client of HTTP/2 that is silent for so long is asked whether it is there, and must answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// What a client begins with.
enum Beginning {
    Http(Version),
    Handshake,
}

/// A stream that fails when its client reads nothing for too long.
type InTime = Pin<Box<TimeoutWriter<TcpStream>>>;

/// A connection that can be served.
enum Begun {
    Plain(InTime, Version),
    Tls(Box<TlsStream<InTime>>, Version),
}

/// What serves all connections of a listener.
pub(super) struct Plane<S> {
    pub(super) service: S,
    pub(super) tls: Option<Tls>,
    pub(super) bounds: ConnectionBounds,
    pub(super) tasks: Tasks,
}

/// Serves a connection to its end.
pub(super) async fn serve<S: Service>(stream: TcpStream, address: IpAddr, plane: Arc<Plane<S>>) {
    let first_by = Instant::now() + plane.bounds.head_timeout;
    let begun = tokio::select! {
        begun = timeout_at(first_by, begin(stream, &plane)) => begun.map_err(anyhow::Error::from).flatten(),
        () = plane.tasks.closing() => return,
    };
    let served = match begun {
        Ok(Begun::Plain(stream, version)) => {
            let client = plane.client(address, false, None);
            plane.http(stream, version, client, first_by).await
        }
        Ok(Begun::Tls(stream, version)) => {
            // One that is not signed as it must be has ended the handshake.
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let certificate = shown.map(|certificate| Fingerprint::of(certificate));
            let client = plane.client(address, true, certificate);
            plane.http(*stream, version, client, first_by).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::debug!("connection ended early: {error:#}");
    }
}

/// Sees what a client speaks, and shakes hands with it.
async fn begin<S>(stream: TcpStream, plane: &Plane<S>) -> anyhow::Result<Begun> {
    let bounds = &plane.bounds;
    let tls = match (&plane.tls, beginning(&stream).await?) {
        (None, Beginning::Http(version)) => return Ok(Begun::Plain(in_time(stream, bounds), version)),
        (Some(tls), Beginning::Handshake) => tls,
        (tls, _) => {
            let _ = timeout(CLOSE_WITHIN, tell(stream, if tls.is_some() { SPEAK_TLS } else { SPEAK_PLAINLY })).await;
            anyhow::bail!("the client speaks TLS where none is, or none where it is");
        }
    };
    let stream = tls.acceptor().accept(in_time(stream, bounds)).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Begun::Tls(Box::new(stream), if is_http2 { Version::Http2 } else { Version::Http1 }))
}

/// Sends the last word of a connection. What the client has sent is read: a connection that is closed before it is reset, and
/// the word may be lost with it.
async fn tell(mut stream: TcpStream, word: &[u8]) -> io::Result<()> {
    stream.write_all(word).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(UNREAD_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

fn in_time(stream: TcpStream, bounds: &ConnectionBounds) -> InTime {
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(bounds.write_timeout));
    Box::pin(stream)
}

/// What a client begins with. Takes nothing from the stream.
async fn beginning(stream: &TcpStream) -> io::Result<Beginning> {
    let mut seen = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut seen).await?;
        match &seen[..count] {
            [HANDSHAKE, ..] => return Ok(Beginning::Handshake),
            seen if seen == PREFACE => return Ok(Beginning::Http(Version::Http2)),
            seen if seen.is_empty() || !PREFACE.starts_with(seen) => return Ok(Beginning::Http(Version::Http1)),
            _ => sleep(LOOK_INTERVAL).await,
        }
    }
}

impl<S: Service> Plane<S> {
    fn client(&self, peer: IpAddr, has_tls: bool, certificate: Option<Fingerprint>) -> Client {
        let address = peer.to_canonical();
        let hop = Hop { peer: address, is_proxied: self.bounds.proxies.has(address), has_tls };
        Client { address, hop, certificate }
    }

    /// Who sent a request on a connection.
    fn caller<B>(&self, client: Client, request: &http::Request<B>) -> Client {
        match client.hop.is_proxied {
            true => Client { address: self.bounds.proxies.caller(client.hop.peer, request.headers()), ..client },
            false => client,
        }
    }

    async fn http(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        version: Version,
        client: Client,
        first_by: Instant,
    ) -> anyhow::Result<()> {
        let io = TokioIo::new(stream);
        match version {
            Version::Http1 => self.http_1(io, client, first_by - Instant::now()).await?,
            Version::Http2 => self.http_2(Gathered::new(io), client, first_by).await?,
        }
        Ok(())
    }

    async fn http_1(
        &self,
        io: impl Read + Write + Unpin + Send + 'static,
        client: Client,
        head_timeout: Duration,
    ) -> hyper::Result<()> {
        let busy = Arc::new(());
        let answer = service_fn(|request| {
            let client = self.caller(client, &request);
            let (answer, busy) = (self.service.answer(request, client), busy.clone());
            let work =
                async { Ok::<_, Infallible>(answer.await.map(|body| Sent { body, is_left_out: false, _busy: busy })) };
            Heard { work, done: false }
        });
        let connection = http1::Builder::new()
            .timer(ConnectionTimer::new(head_timeout))
            .header_read_timeout(IDLE_TIMEOUT)
            .serve_connection(io, answer);
        // It looks itself how long it waits for a head.
        to_its_end(connection, &busy, None, &self.tasks).await
    }

    async fn http_2(
        self: Arc<Self>,
        io: impl Read + Write + Unpin + Send + 'static,
        client: Client,
        first_by: Instant,
    ) -> hyper::Result<()> {
        let busy = Arc::new(());
        let answer = service_fn(|request| {
            let (plane, busy) = (self.clone(), busy.clone());
            let work = async move {
                let (client, is_left_out) = (plane.caller(client, &request), *request.method() == Method::HEAD);
                let reply = plane.service.answer(request, client).await;
                Ok::<_, Infallible>(reply.map(|body| Sent { body, is_left_out, _busy: busy }))
            };
            Heard { work, done: false }
        });
        let streams = OnTasks { tasks: self.tasks.clone(), write_timeout: self.bounds.write_timeout };
        let connection = http2::Builder::new(streams)
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.bounds.streams_max)
            .max_header_list_size(FIELDS_BYTES_MAX)
            .initial_connection_window_size(AHEAD_BYTES_MAX)
            .initial_stream_window_size(AHEAD_BYTES_MAX)
            .max_send_buf_size(SEND_BYTES_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(io, answer);
        to_its_end(connection, &busy, Some(first_by), &self.tasks).await
    }
}

/// Drives a connection until it ends, which it does soon after the host closes. `busy` is held by its requests. `idle_by`: it
/// ends as well if no request has begun by then, and when it has been idle for long.
async fn to_its_end<C>(connection: C, busy: &Arc<()>, mut idle_by: Option<Instant>, tasks: &Tasks) -> hyper::Result<()>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut connection = pin!(connection);
    // It is asked once, which leaves this task's waker there: it takes a lock that all connections share.
    let (mut closing, mut cut_off) = (pin!(tasks.closing()), pin!(tasks.cut_off()));
    let (mut asked, mut told) = (false, false);
    let ends_idle = idle_by.is_some();
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if !std::mem::replace(&mut asked, true) {
            let _ = closing.as_mut().poll(cx);
        }
        loop {
            if !told && tasks.is_closing() {
                (told, timer) = (true, None);
                connection.as_mut().graceful_shutdown();
            }
            let served = connection.as_mut().poll(cx);
            if served.is_ready() {
                return served;
            }
            let is_busy = Arc::strong_count(busy) > 1;
            // Who has not read an answer by the time that all is cut off will not get it.
            let mut is_cut_off = || tasks.is_cut_off() || cut_off.as_mut().poll(cx).is_ready();
            let waits = if told { !is_busy || is_cut_off() } else { ends_idle && !is_busy };
            if is_busy {
                idle_by = None;
            }
            if !waits {
                timer = None;
                return Poll::Pending;
            }
            let timer = timer.get_or_insert_with(|| {
                let by = idle_by.filter(|_| !told);
                let by = by.unwrap_or_else(|| Instant::now() + if told { CLOSE_WITHIN } else { IDLE_TIMEOUT });
                Box::pin(sleep_until(by))
            });
            ready!(timer.as_mut().poll(cx));
            if std::mem::replace(&mut told, true) {
                return Poll::Ready(Ok(()));
            }
            idle_by = None;
            timer.as_mut().reset(Instant::now() + CLOSE_WITHIN);
            connection.as_mut().graceful_shutdown();
        }
    })
    .await
}

pin_project! {
    /// The body of a reply, which keeps its connection busy.
    struct Sent<B> {
        #[pin]
        body: B,
        // HTTP/1.1 leaves the body of an answer to HEAD out by itself; in HTTP/2 it would be sent.
        is_left_out: bool,
        _busy: Arc<()>,
    }
}

impl<B: Body<Data = Bytes>> Body for Sent<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = self.project().body.poll_frame(cx);
        note_frame(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.is_left_out || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pin_project! {
    /// A request at work. If its caller hangs up with the last byte of it, hyper drops it before it could see that byte,
    /// or before it was looked at at all. So it gets one more look: what was sent whole is accepted, and recorded.
    struct Heard<W: Future> {
        #[pin]
        work: W,
        done: bool,
    }

    impl<W: Future> PinnedDrop for Heard<W> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // Without a runtime the whole host is being dropped.
            if !*this.done && Handle::try_current().is_ok() {
                let _ = this.work.poll(&mut Context::from_waker(Waker::noop()));
            }
        }
    }
}

impl<W: Future> Future for Heard<W> {
    type Output = W::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<W::Output> {
        let this = self.project();
        *this.done = true; // Stays so if the work panics: it must not be looked at again.
        let answer = this.work.poll(cx);
        *this.done = answer.is_ready();
        answer
    }
}
