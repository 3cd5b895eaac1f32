//! Connections: accepted up to a bound, closed in order. Both planes use it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_io_timeout::TimeoutWriter;

use super::timer::ConnectionTimer;
use crate::config::ConnectionBounds;
use crate::shutdown::Tasks;

/// How long a client may take to send another request's head; also the longest idle time of a kept connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection without a request may take to end when the host closes: one that has sent half a head must not
/// hold the host up.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);
/// How long to wait after `accept` failed, for lack of files for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a client gets that has too many connections.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// The body of its replies.
    type Body: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send + 'static;

    /// Answers one request.
    fn answer(&self, request: http::Request<Incoming>) -> impl Future<Output = http::Response<Self::Body>> + Send;
}

/// Serves connections until the host closes. Beyond the bound, clients wait in the kernel's queue; a client address that
/// has too many of them is refused, so that others need not wait for it.
pub async fn serve(listener: TcpListener, service: impl Service, bounds: ConnectionBounds, tasks: Tasks) {
    let service = Arc::new(service);
    let places = Arc::new(Semaphore::new(bounds.connections_max));
    let clients = Clients::default();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = tasks.closing() => return,
        };
        match accepted {
            Ok((stream, address, place)) => {
                let Some(client) = clients.enter(address, bounds.per_client_max) else {
                    // As far as it fits into the kernel's buffer, which is empty.
                    let _ = stream.try_write(TOO_MANY);
                    tracing::debug!(client = %address, "refused a connection: the client has its share");
                    continue;
                };
                let (service, closing) = (service.clone(), tasks.clone());
                let mut stream = TimeoutWriter::new(stream);
                stream.set_timeout(Some(bounds.write_timeout));
                tasks.spawn(async move {
                    connection(stream, &*service, bounds.head_timeout, closing).await;
                    drop((place, client));
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, IpAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    // Replies are small and whole; waiting to fill a segment would only delay them.
    stream.set_nodelay(true)?;
    Ok((stream, address.ip(), place))
}

/// Connections by client address; cheap to clone.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection of a client; counted until it is dropped.
struct Client {
    clients: Clients,
    address: IpAddr,
}

impl Clients {
    /// Another connection of the client, unless it has `most` of them.
    fn enter(&self, address: IpAddr, most: usize) -> Option<Client> {
        let address = network_of(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Client { clients: self.clone(), address })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// The address as one client has it: of version 6, a client has a whole network of 64 bits.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => (u128::from(address) >> 64 << 64).to_be_bytes().into(),
    }
}

async fn connection(stream: TimeoutWriter<TcpStream>, service: &impl Service, head_timeout: Duration, tasks: Tasks) {
    let idle = Arc::new(());
    let service = service_fn(|request| {
        let (answer, busy) = (service.answer(request), idle.clone());
        let work = async { Ok::<_, Infallible>(answer.await.map(|body| Sent { body, _busy: busy })) };
        Heard { work, done: false }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(ConnectionTimer::new(head_timeout))
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(Box::pin(stream)), service)
    );
    // It is asked once, which leaves this task's waker there: it takes a lock that all connections share.
    let mut closing = std::pin::pin!(tasks.closing());
    let (mut asked, mut told) = (false, false);
    let mut close_by = None;
    let served = poll_fn(|cx| {
        if !std::mem::replace(&mut asked, true) {
            let _ = closing.as_mut().poll(cx);
        }
        if !told && tasks.is_closing() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        let served = connection.as_mut().poll(cx);
        if told && served.is_pending() && Arc::strong_count(&idle) == 1 {
            let close_by = close_by.get_or_insert_with(|| Box::pin(sleep(CLOSE_WITHIN)));
            return close_by.as_mut().poll(cx).map(Ok);
        }
        served
    });
    let served = served.await;
    if let Err(error) = served {
        tracing::debug!("connection ended early: {error}");
    }
}

pin_project! {
    /// The body of a reply, which keeps its connection busy.
    struct Sent<B> {
        #[pin]
        body: B,
        _busy: Arc<()>,
    }
}

impl<B: Body> Body for Sent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_share() {
        let clients = Clients::default();
        let enter = |address: &str| clients.enter(address.parse().unwrap(), 2);
        let first = enter("10.0.0.1");
        let _second = enter("::ffff:10.0.0.1").expect("the same one, in the form of version 6");
        assert!(first.is_some() && enter("10.0.0.1").is_none());
        let _other = enter("10.0.0.2").expect("another client");
        drop(first);
        assert!(enter("10.0.0.1").is_some());
        let _network = [enter("2001:db8::1"), enter("2001:db8::2")].map(|entered| entered.expect("two"));
        assert!(enter("2001:db8::ffff:3").is_none() && enter("2001:db8:0:1::1").is_some());
        assert_eq!(clients.0.lock().unwrap().len(), 3, "who left is forgotten");
    }
}
