//! Requests that may be sent a second time: their bodies come back if nothing of them was sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::delivery::{Body, BodyError};

/// How long a connection that failed may take to give a request's body back.
const BACK_WITHIN: Duration = Duration::from_secs(1);

/// A request whose body comes back if nothing of it was sent.
pub(super) struct Again {
    head: http::request::Parts,
    body: oneshot::Receiver<Body>,
}

/// A body that is on its way.
struct Lent {
    /// None when it has ended.
    body: Option<Body>,
    /// Where it goes back to; none once a part of it was taken.
    back: Option<oneshot::Sender<Body>>,
}

/// The request, and itself once more if it does no harm to send it twice (RFC 9110, section 9.2.2).
pub(super) fn lent(request: http::Request<Body>) -> (http::Request<Body>, Option<Again>) {
    if !request.method().is_idempotent() {
        return (request, None);
    }
    let (head, body) = request.into_parts();
    let (back, returned) = oneshot::channel();
    let lent = Lent { body: Some(body), back: Some(back) }.boxed_unsync();
    (http::Request::from_parts(head.clone(), lent), Some(Again { head, body: returned }))
}

impl Again {
    /// The request, if nothing of its body was sent.
    pub(super) async fn taken_back(self) -> Option<http::Request<Body>> {
        // The connection drops the body when it has ended, which it is about to.
        let body = timeout(BACK_WITHIN, self.body).await.ok()?.ok()?;
        Some(http::Request::from_parts(self.head, body))
    }
}

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match frame {
            Some(_) => self.back = None,
            None => self.body = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), |body| body.size_hint())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(back) = self.back.take() {
            let empty = || Empty::new().map_err(|never| match never {}).boxed_unsync();
            // Nobody wants it if the request went well.
            let _ = back.send(self.body.take().unwrap_or_else(empty));
        }
    }
}
