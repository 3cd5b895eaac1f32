//! A guest's HTTP response. The caller reads its body while the guest is still writing it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http::header::CONTENT_LENGTH;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::oneshot;
pub use wasmtime_wasi_http::Error as BodyError;

/// A request's or response's body that a guest reads or writes.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A guest's response. Its body is streamed as the guest writes it.
pub type Response = http::Response<ResponseBody>;

/// The body of a guest's response. It ends with an error if the guest does not write all of it.
pub struct ResponseBody {
    body: Body,
    delivery: Delivery,
    /// The length in `Content-Length`.
    announced: Option<u64>,
    sent: u64,
    /// Held back until the guest has finished the request.
    trailers: Option<Frame<Bytes>>,
    /// The error that the reader gets at its next poll.
    error: Option<BodyError>,
    /// Tells the guest's side that the body ended, and what was wrong, if anything.
    ended: Option<oneshot::Sender<Result<(), String>>>,
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {:?} bytes", self.sent, self.announced)
    }
}

/// A handle to a response's body.
#[derive(Clone, Default)]
pub struct Delivery(Arc<State>);

#[derive(Default)]
struct State {
    /// The body was read to its end.
    whole: AtomicBool,
    /// The guest will write no more.
    closed: AtomicBool,
    reader: AtomicWaker,
}

impl Delivery {
    /// Called when the guest has finished the request. A body that was read to its end then ends; any other gets an
    /// error.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.reader.wake();
    }

    /// True if the body was read to its end.
    pub fn is_whole(&self) -> bool {
        self.0.whole.load(Ordering::Acquire)
    }

    fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }
}

impl ResponseBody {
    /// Wraps the engine's response. The receiver gets how the body ended.
    pub(super) fn new(response: http::Response<Body>) -> (Response, oneshot::Receiver<Result<(), String>>) {
        let (ended, end) = oneshot::channel();
        let announced = response.headers().get(CONTENT_LENGTH).and_then(|bytes| bytes.to_str().ok()?.parse().ok());
        let wrap = |body| ResponseBody {
            body,
            delivery: Delivery::default(),
            announced,
            sent: 0,
            trailers: None,
            error: None,
            ended: Some(ended),
        };
        (response.map(wrap), end)
    }

    /// A handle to this body.
    pub fn delivery(&self) -> Delivery {
        self.delivery.clone()
    }

    /// The body's length, if it is known before reading.
    pub fn length(&self) -> Option<u64> {
        self.announced.or_else(|| self.body.size_hint().exact())
    }

    /// Drops the body unread, and waits until the guest has finished the request.
    pub async fn skip(mut self) {
        // Dropping the body tells a guest that still writes that nobody reads.
        self.body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        self.end(Ok(()));
        poll_fn(|cx| {
            self.delivery.0.reader.register(cx.waker());
            if self.delivery.is_closed() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// True if all announced bytes arrived. The engine checks this as well, but drops its error when its channel is
    /// full.
    fn is_complete(&self) -> bool {
        self.announced.is_none_or(|announced| announced == self.sent)
    }

    fn end(&mut self, how: Result<(), String>) {
        if let Some(ended) = self.ended.take() {
            // Before the message: after it, the request is answered and `is_whole` is read.
            self.delivery.0.whole.store(how.is_ok(), Ordering::Release);
            // The receiver is gone if the guest is.
            let _ = ended.send(how);
        }
    }

    /// Ends the body with an error. The error is returned one poll later, because hyper drops what it has not sent yet
    /// when it gets one.
    fn break_off(&mut self, cx: &Context<'_>, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let sent = self.sent;
        self.end(Err(match self.announced {
            Some(announced) => format!("its body ended after {sent} of {announced} announced bytes ({error})"),
            None => format!("its body broke off after {sent} bytes ({error})"),
        }));
        self.error = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Registered before the flags are read, so that a `close` in between wakes this task.
        self.delivery.0.reader.register(cx.waker());
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let closed = self.delivery.is_closed();
        if self.delivery.is_whole() {
            // The end is held back until the guest has finished the request, so that the caller's next request finds
            // room in the instance. `close` wakes this task.
            return if closed { Poll::Ready(self.trailers.take().map(Ok)) } else { Poll::Pending };
        }
        if closed {
            return self.break_off(cx, BodyError::HttpResponseIncomplete);
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) if !frame.is_trailers() => {
                self.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => self.break_off(cx, error),
            // Closed is checked again: a guest that ends closes this first, then drops the engine's end of the channel,
            // which looks like the end of the body.
            _ if self.delivery.is_closed() || !self.is_complete() => {
                self.break_off(cx, BodyError::HttpResponseIncomplete)
            }
            trailers => {
                // Readers do not poll again after trailers, so these are held back with the end of the body.
                self.trailers = trailers.and_then(Result::ok);
                self.end(Ok(()));
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.delivery.is_whole() && self.delivery.is_closed()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // The reader has all announced bytes and does not poll for the end, or the caller left. Nobody waits for more.
        let whole = !self.delivery.is_closed() && self.announced == Some(self.sent);
        if let Some(ended) = self.ended.take() {
            self.delivery.0.whole.store(whole, Ordering::Release);
            let _ = ended.send(Ok(()));
        }
    }
}
