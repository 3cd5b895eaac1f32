//! A guest's HTTP response.
//!
//! What the guest writes before it first waits is collected in its own poll. Most guests have written all by then: the
//! response leaves as a whole, with its length, in one write. Otherwise the caller reads the body while the guest goes on
//! writing it.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::task::AtomicWaker;
use http::HeaderName;
use http::header::{self, CONTENT_LENGTH};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::oneshot;
pub use wasmtime_wasi_http::Error as BodyError;

/// The code of a response that is none.
const INVALID: &str = "function-response-invalid";
/// A body of more bytes than this is sent as it comes.
const COLLECTED_BYTES_MAX: usize = 64 << 10;

/// A request's or response's body that a guest reads or writes.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A guest's response.
pub type Response = http::Response<ResponseBody>;

/// The body of a guest's response.
pub enum ResponseBody {
    /// All of it.
    Whole(Bytes),
    /// The guest still writes it.
    Streamed(Box<StreamedBody>),
}

/// How a body ended: read by the caller, or collected before the caller got anything; or what was wrong with it.
pub(super) type Ended = Result<Option<Box<Response>>, String>;

/// A response whose body is being collected.
pub(super) struct Collecting {
    response: http::Response<Body>,
    /// The length in `Content-Length`.
    announced: Option<u64>,
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    is_over: bool,
    /// The guest's call has returned.
    pub(super) has_returned: bool,
    /// Nothing of the guest runs on that could write more.
    pub(super) is_final: bool,
    ended: oneshot::Sender<Ended>,
}

/// A body that is streamed as the guest writes it. It ends with an error if the guest does not write all of it.
pub struct StreamedBody {
    /// What was collected.
    frames: VecDeque<Frame<Bytes>>,
    body: Body,
    delivery: Delivery,
    /// The length in `Content-Length`.
    announced: Option<u64>,
    sent: u64,
    /// Held back until the guest has finished the request.
    trailers: Option<Frame<Bytes>>,
    /// The error that the reader gets at its next poll.
    error: Option<BodyError>,
    /// Tells the guest's side that the body ended.
    ended: Option<oneshot::Sender<Ended>>,
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResponseBody::Whole(bytes) => write!(f, "{} bytes", bytes.len()),
            ResponseBody::Streamed(body) => write!(f, "{} of {:?} bytes", body.sent, body.announced),
        }
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
    /// What it has written is there; it may have forgotten to end it.
    is_final: AtomicBool,
    /// What went wrong after the head of the response: the code of the problem, and the problem.
    failure: OnceLock<(&'static str, String)>,
    reader: AtomicWaker,
}

impl Delivery {
    /// Called when the guest has finished the request. A body that was read to its end then ends; any other gets an
    /// error.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.reader.wake();
    }

    /// The same when the request has failed.
    pub fn fail(&self, code: &'static str, detail: String) {
        // It ends once.
        let _ = self.0.failure.set((code, detail));
        self.close();
    }

    /// What went wrong, if something did.
    pub fn failure(&self) -> Option<(&'static str, String)> {
        self.0.failure.get().cloned()
    }

    /// Called when nothing of the guest runs on that could write more.
    pub(super) fn note_final(&self) {
        self.0.is_final.store(true, Ordering::Release);
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

impl Collecting {
    /// Begins with the engine's response. The receiver gets how the body ended.
    pub(super) fn new(response: http::Response<Body>) -> (Collecting, oneshot::Receiver<Ended>) {
        let (ended, end) = oneshot::channel();
        let announced = response.headers().get(CONTENT_LENGTH).and_then(|bytes| bytes.to_str().ok()?.parse().ok());
        let (frames, bytes) = (VecDeque::new(), 0);
        (
            Collecting {
                response,
                announced,
                frames,
                bytes,
                is_over: false,
                has_returned: false,
                is_final: false,
                ended,
            },
            end,
        )
    }

    /// Takes what the guest has written. None if that is all and the call has returned: then the receiver has it.
    pub(super) fn collect(mut self, cx: &mut Context<'_>) -> Option<Collecting> {
        loop {
            if self.is_over && self.has_returned && !self.is_missing() {
                self.end();
                return None;
            }
            let has_trailers = self.frames.back().is_some_and(Frame::is_trailers);
            if self.is_over || has_trailers || self.bytes > COLLECTED_BYTES_MAX {
                return Some(self);
            }
            match Pin::new(self.response.body_mut()).poll_frame(cx) {
                // A guest that forgot to end its body has announced how much it is, or nobody knows.
                Poll::Pending if self.is_final && self.announced == Some(self.bytes as u64) => self.is_over = true,
                Poll::Pending if self.is_final => {
                    let text = broken(self.bytes as u64, self.announced, &BodyError::HttpResponseIncomplete);
                    let _ = self.ended.send(Err(text));
                    return None;
                }
                Poll::Pending => return Some(self),
                Poll::Ready(Some(Ok(frame))) => {
                    self.bytes += frame.data_ref().map_or(0, Bytes::len);
                    self.frames.push_back(frame);
                }
                Poll::Ready(Some(Err(error))) if self.is_missing() && !is_longer(0, self.announced, &error) => {
                    self.is_over = true;
                }
                Poll::Ready(Some(Err(error))) => {
                    let text = broken(self.bytes as u64, self.announced, &error);
                    // The receiver lives as long as the call.
                    let _ = self.ended.send(Err(text));
                    return None;
                }
                Poll::Ready(None) => self.is_over = true,
            }
        }
    }

    /// The response, if the guest has written all of it.
    pub(super) fn whole(mut self, cx: &mut Context<'_>) -> Option<Box<Response>> {
        while let Poll::Ready(frame) = Pin::new(self.response.body_mut()).poll_frame(cx) {
            let Some(Ok(frame)) = frame else {
                self.is_over = frame.is_none();
                break;
            };
            self.bytes += frame.data_ref().map_or(0, Bytes::len);
            self.frames.push_back(frame);
        }
        let is_whole = self.is_over && self.announced.is_none_or(|announced| announced == self.bytes as u64);
        // One with trailers can only be streamed.
        let has_trailers = self.frames.back().is_some_and(Frame::is_trailers);
        (is_whole && !has_trailers).then(|| joined(self.response, self.frames))
    }

    /// A body is announced and there is none. Whether that is right depends on the request (RFC 9110, section 8.6), which the
    /// reader knows.
    fn is_missing(&self) -> bool {
        self.bytes == 0 && self.announced.is_some_and(|announced| announced > 0)
    }

    fn end(self) {
        let bytes = self.bytes as u64;
        let whole = match self.announced {
            Some(announced) if announced != bytes => {
                Err(broken(bytes, self.announced, &BodyError::HttpResponseIncomplete))
            }
            _ => Ok(Some(joined(self.response, self.frames))),
        };
        let _ = self.ended.send(whole);
    }

    /// The response as it is: the caller reads what was collected, and then what the guest goes on to write.
    pub(super) fn stream(self) -> (Box<Response>, Delivery) {
        let delivery = Delivery::default();
        let wrap = |body| StreamedBody {
            frames: self.frames,
            body: if self.is_over { nothing() } else { body },
            delivery: delivery.clone(),
            announced: self.announced,
            sent: 0,
            trailers: None,
            error: None,
            ended: Some(self.ended),
        };
        (Box::new(self.response.map(|body| ResponseBody::Streamed(Box::new(wrap(body))))), delivery)
    }
}

/// The response with all of its body.
fn joined(response: http::Response<Body>, mut frames: VecDeque<Frame<Bytes>>) -> Box<Response> {
    let mut first = frames.pop_front().and_then(|frame| frame.into_data().ok()).unwrap_or_default();
    if !frames.is_empty() {
        let mut all = BytesMut::from(first);
        frames.iter().filter_map(Frame::data_ref).for_each(|data| all.extend_from_slice(data));
        first = all.freeze();
    }
    Box::new(response.map(|_| ResponseBody::Whole(first)))
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Fields that say how a message is framed and where it goes. They are read before the body, so in trailers they would only
/// mislead who reads them there (RFC 9110, section 6.5.1).
const FRAMING: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A part of a body, without the trailers that no message may have.
pub fn without_framing(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        for name in &FRAMING {
            trailers.remove(name);
        }
    }
    frame
}

/// What was wrong with a body.
fn broken(sent: u64, announced: Option<u64>, error: &BodyError) -> String {
    match announced {
        Some(announced) if is_longer(sent, Some(announced), error) => {
            format!("its body is longer than the {announced} bytes that it announced")
        }
        Some(announced) if matches!(error, BodyError::HttpResponseBodySize(_)) => {
            format!("its body ended after {sent} of {announced} announced bytes")
        }
        Some(announced) => format!("its body ended after {sent} of {announced} announced bytes ({error})"),
        None => format!("its body broke off after {sent} bytes ({error})"),
    }
}

/// Whether a guest wrote more than it announced. The engine's error has the length that it would have had.
fn is_longer(sent: u64, announced: Option<u64>, error: &BodyError) -> bool {
    let written = if let BodyError::HttpResponseBodySize(Some(written)) = error { *written } else { sent };
    announced.is_some_and(|announced| written.max(sent) > announced)
}

impl ResponseBody {
    /// A handle to a body that the guest still writes.
    pub fn delivery(&self) -> Option<Delivery> {
        match self {
            ResponseBody::Whole(_) => None,
            ResponseBody::Streamed(body) => Some(body.delivery().clone()),
        }
    }
}

impl StreamedBody {
    /// The length that the guest announced.
    pub fn length(&self) -> Option<u64> {
        self.announced
    }

    /// A handle to it.
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Drops the body unread, and waits until the guest has finished the request.
    pub async fn skip(mut self) {
        // Dropping the body tells a guest that still writes that nobody reads.
        self.body = nothing();
        self.frames.clear();
        self.end(Ok(None));
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

    fn next_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn end(&mut self, how: Ended) {
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
        let text = broken(self.sent, self.announced, &error);
        // Unless the request failed in another way, which ended the body.
        let _ = self.delivery.0.failure.set((INVALID, text.clone()));
        self.end(Err(text));
        self.error = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl hyper::body::Body for StreamedBody {
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
        // Read before the body: what was written before it was set is there then.
        let is_final = self.delivery.0.is_final.load(Ordering::Acquire);
        let frame = match self.next_frame(cx) {
            Poll::Pending if is_final && self.announced == Some(self.sent) => None,
            Poll::Pending if is_final => return self.break_off(cx, BodyError::HttpResponseIncomplete),
            frame => ready!(frame),
        };
        match frame {
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
                self.trailers = trailers.and_then(Result::ok).map(without_framing);
                self.end(Ok(None));
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.delivery.is_whole() && self.delivery.is_closed()
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for StreamedBody {
    fn drop(&mut self) {
        // The reader has all announced bytes and does not poll for the end, or the caller left. Nobody waits for more.
        let whole = !self.delivery.is_closed() && self.announced == Some(self.sent);
        if let Some(ended) = self.ended.take() {
            self.delivery.0.whole.store(whole, Ordering::Release);
            let _ = ended.send(Ok(None));
        }
    }
}
