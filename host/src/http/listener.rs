//! Connections: accepted up to a bound, closed in order. Both planes use it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::shutdown::Tasks;

/// How long a client may take to send a request's head; also the longest idle time of a kept connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait after `accept` failed, for lack of files for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until the host closes. Beyond `connections_max`, clients wait in the kernel's queue.
pub async fn serve(listener: TcpListener, router: Router, connections_max: usize, tasks: Tasks) {
    let places = Arc::new(Semaphore::new(connections_max));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = tasks.closing() => return,
        };
        match accepted {
            Ok((stream, place)) => {
                let (router, closing) = (router.clone(), tasks.clone());
                tasks.spawn(async move {
                    connection(stream, router, closing).await;
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

async fn connection(stream: TcpStream, router: Router, tasks: Tasks) {
    let service = service_fn(move |request: http::Request<Incoming>| router.clone().oneshot(request.map(Body::new)));
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = tasks.closing() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!("connection ended early: {error}");
    }
}
