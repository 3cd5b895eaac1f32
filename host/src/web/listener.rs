//! Connections: accepted up to a bound, closed in order. Both planes use it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutWriter;

use super::timer::ConnectionTimer;
use crate::config::ConnectionBounds;
use crate::shutdown::Tasks;

/// How long a client may take to send a request's head; also the longest idle time of a kept connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait after `accept` failed, for lack of files for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// The body of its replies.
    type Body: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send + 'static;

    /// Answers one request.
    fn answer(&self, request: http::Request<Incoming>) -> impl Future<Output = http::Response<Self::Body>> + Send;
}

/// Serves connections until the host closes. Beyond the bound, clients wait in the kernel's queue.
pub async fn serve(listener: TcpListener, service: impl Service, bounds: ConnectionBounds, tasks: Tasks) {
    let service = Arc::new(service);
    let places = Arc::new(Semaphore::new(bounds.connections_max));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = tasks.closing() => return,
        };
        match accepted {
            Ok((stream, place)) => {
                let (service, closing) = (service.clone(), tasks.clone());
                let mut stream = TimeoutWriter::new(stream);
                stream.set_timeout(Some(bounds.write_timeout));
                tasks.spawn(async move {
                    connection(stream, &*service, closing).await;
                    drop(place);
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
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Replies are small and whole; waiting to fill a segment would only delay them.
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

async fn connection(stream: TimeoutWriter<TcpStream>, service: &impl Service, tasks: Tasks) {
    let service = service_fn(|request| {
        let answer = service.answer(request);
        Heard { work: async { Ok::<_, Infallible>(answer.await) }, done: false }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(ConnectionTimer::new(HEAD_TIMEOUT))
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(Box::pin(stream)), service)
    );
    // It is asked once, which leaves this task's waker there: it takes a lock that all connections share.
    let mut closing = std::pin::pin!(tasks.closing());
    let (mut asked, mut told) = (false, false);
    let served = poll_fn(|cx| {
        if !std::mem::replace(&mut asked, true) {
            let _ = closing.as_mut().poll(cx);
        }
        if !told && tasks.is_closing() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    });
    let served = served.await;
    if let Err(error) = served {
        tracing::debug!("connection ended early: {error}");
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
