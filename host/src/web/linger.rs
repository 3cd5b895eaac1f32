//! Request bodies that nobody reads to their end, because the request was refused by its head or its size.
//!
//! A connection that is closed while its client still sends is reset, and with it goes the answer that says why. So
//! what is left of such a body is read and thrown away for a while, beside the answer that is on its way.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use crate::shutdown::Tasks;

/// How long to read what nobody wants.
const LINGER: Duration = Duration::from_secs(10);
/// Bytes of it that are read at most.
const LINGER_BYTES_MAX: usize = 256 << 20;

/// A body that is read on when it is dropped early.
pub struct Lingering {
    /// None when it has ended.
    body: Option<Incoming>,
    tasks: Tasks,
}

impl Lingering {
    /// Reads `body` on, in a task of `tasks`, if it is dropped early.
    pub fn new(body: Incoming, tasks: Tasks) -> Lingering {
        Lingering { body: Some(body), tasks }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let body = &mut self.get_mut().body;
        let Some(open) = body else { return Poll::Ready(None) };
        let frame = Pin::new(open).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            *body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let tasks = self.tasks.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                _ = tokio::time::timeout(LINGER, discard(body)) => {}
                () = tasks.closing() => {}
            }
        });
    }
}

async fn discard(mut body: Incoming) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > LINGER_BYTES_MAX {
            return;
        }
    }
}
