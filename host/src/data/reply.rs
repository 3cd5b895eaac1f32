//! Answers to callers: of events' replies, of functions' own HTTP responses, and of what went wrong.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use serde_json::json;

use super::http_event;
use super::reject::{self, Answered};
use crate::fc;
use crate::guest::{self, BodyError, ResponseBody, StreamedBody};
use crate::ids::RequestId;
use crate::instance::{Answer, Timings};
use crate::queue::Receipt;
use crate::room::{Room, Share};
use crate::web::headers;
use crate::web::problem::{Code, Failure};

/// A response that announces no more than this is sent when all of it is there, so that half of one can be told from a
/// whole one by its status. Longer ones, and those that announce nothing, are sent as they come.
const HELD_BYTES_MAX: u64 = 64 << 10;
/// How much of a function's error is shown.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// What a caller gets.
pub(super) type Response = http::Response<ReplyBody>;

/// The body of a reply.
pub(super) enum ReplyBody {
    /// It is all there.
    Whole(Full<Bytes>),
    /// It comes from a guest.
    Streamed(Box<StreamedBody>),
    /// It is Function Compute's APIs'.
    Other(guest::Body),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            ReplyBody::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            ReplyBody::Streamed(body) => Pin::new(body).poll_frame(cx),
            ReplyBody::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ReplyBody::Whole(body) => body.is_end_stream(),
            ReplyBody::Streamed(body) => body.is_end_stream(),
            ReplyBody::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Whole(body) => body.size_hint(),
            ReplyBody::Streamed(body) => body.size_hint(),
            ReplyBody::Other(body) => body.size_hint(),
        }
    }
}

/// What an answer has to know of its request.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) request: &'a RequestId,
    pub(super) method: &'a Method,
    /// Memory for replies.
    pub(super) room: &'a Room,
    /// Whether failures have the statuses that Function Compute's HTTP triggers have.
    pub(super) is_fc: bool,
}

/// What went wrong.
pub(super) fn failed(failure: Failure, asked: Asked<'_>) -> Response {
    let code = failure.code;
    let mut response = if asked.is_fc {
        let (status, name, kind) = fc::http_error(code);
        let mut response = failure.reply_with(status, asked.request);
        response.headers_mut().insert(name, kind);
        response.map(ReplyBody::Whole)
    } else {
        failure.reply(asked.request).map(ReplyBody::Whole)
    };
    if code == Code::MethodNotAllowed {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// The receipt for an asynchronous invocation.
pub(super) fn accepted(receipt: &Receipt, request: &RequestId) -> Response {
    let body = json!({"invocationId": receipt.id.as_str(), "state": receipt.state.as_str(), "known": receipt.is_known});
    let mut response = Response::new(ReplyBody::Whole(Bytes::from(body.to_string()).into()));
    *response.status_mut() = StatusCode::ACCEPTED;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(headers::INVOCATION_ID, headers::value(&receipt.id));
    fields.insert(headers::REQUEST_ID, headers::value(request));
    response
}

/// The answer to an event.
pub(super) async fn to_invocation(answer: Answer, asked: Asked<'_>) -> Response {
    let about = About::of(&answer);
    let response = match reject::result(answer.outcome) {
        Ok(Answered::Event(reply)) => event(reply, asked.room),
        Ok(Answered::Http(response)) => invoked(*response).await,
        Err(failure) => Err(failure),
    };
    about.note(response.unwrap_or_else(|failure| failed(failure, asked)), asked.request)
}

/// The answer to an HTTP request.
pub(super) async fn to_request(answer: Answer, asked: Asked<'_>) -> Response {
    let about = About::of(&answer);
    let response = match reject::result(answer.outcome) {
        Ok(Answered::Event(reply)) => event(reply, asked.room),
        Ok(Answered::Http(response)) => held(*response, asked.method).await,
        Err(failure) => Err(failure),
    };
    about.note(response.unwrap_or_else(|failure| failed(failure, asked)), asked.request)
}

/// The answer to an HTTP request that the function got as an event.
pub(super) async fn to_http_event(answer: Answer, asked: Asked<'_>) -> Response {
    let about = About::of(&answer);
    let response = match reject::result(answer.outcome) {
        Ok(Answered::Event(reply)) => written(reply, asked.room, asked.method),
        Ok(Answered::Http(response)) => held(*response, asked.method).await,
        Err(failure) => Err(failure),
    };
    about.note(response.unwrap_or_else(|failure| failed(failure, asked)), asked.request)
}

/// What a function replied, which has its share of the memory for replies until it is sent.
struct Reply<B> {
    bytes: B,
    _share: Share,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Reply<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

fn shared<B>(bytes: B, room: &Room) -> Result<Bytes, Failure>
where
    B: AsRef<[u8]> + Into<Bytes> + Send + 'static,
{
    let too_many = || Failure::new(Code::HostFull, "too many large replies wait for their callers to read them");
    Ok(match room.take(bytes.as_ref().len()).ok_or_else(too_many)? {
        None => bytes.into(),
        share => Bytes::from_owner(Reply { bytes, _share: share }),
    })
}

fn event(reply: Vec<u8>, room: &Room) -> Result<Response, Failure> {
    let mut response = Response::new(ReplyBody::Whole(shared(reply, room)?.into()));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

/// The response that a reply stands for.
fn written(reply: Vec<u8>, room: &Room, method: &Method) -> Result<Response, Failure> {
    let (mut head, body) = http_event::response(reply)?.into_parts();
    let body = if is_bodiless(method, &mut head) { Bytes::new() } else { shared(body, room)? };
    Ok(Response::from_parts(head, ReplyBody::Whole(body.into())))
}

/// Whether a response has no body, whatever the function wrote.
fn is_bodiless(method: &Method, head: &mut Parts) -> bool {
    if matches!(head.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
        // The one announces nothing, the other that it has none (RFC 9110, sections 8.6 and 15.3.6).
        head.headers.remove(header::CONTENT_LENGTH);
    }
    // The others announce what they do not hold (section 6.4.1).
    let without = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
    method == Method::HEAD || without.contains(&head.status)
}

/// A response as it is, once its body is whole if it is short.
async fn held(response: guest::Response, method: &Method) -> Result<Response, Failure> {
    let (mut head, body) = response.into_parts();
    let bodiless = is_bodiless(method, &mut head);
    let body = match body {
        ResponseBody::Whole(bytes) => {
            let bytes = if bodiless { Bytes::new() } else { bytes };
            return Ok(Response::from_parts(head, ReplyBody::Whole(bytes.into())));
        }
        ResponseBody::Streamed(body) if bodiless => {
            body.skip().await;
            return Ok(Response::from_parts(head, ReplyBody::Whole(Full::default())));
        }
        ResponseBody::Streamed(body) => body,
    };
    if body.length().is_none_or(|bytes| bytes > HELD_BYTES_MAX) {
        return Ok(Response::from_parts(head, ReplyBody::Streamed(body)));
    }
    let delivery = body.delivery().clone();
    match body.collect().await {
        Ok(body) => Ok(Response::from_parts(head, ReplyBody::Whole(body.to_bytes().into()))),
        Err(error) => Err(match delivery.failure() {
            Some((code, detail)) => Failure::new(Code::named(code), detail),
            None => Failure::new(Code::FunctionResponseInvalid, error.to_string()),
        }),
    }
}

/// The response to `POST /invoke`: its body is the result, or the error's text, as its status says.
async fn invoked(response: guest::Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.as_u16() < 400 {
        let mut response = held(response, &Method::POST).await?;
        *response.status_mut() = StatusCode::OK;
        return Ok(response);
    }
    let text = match response.into_body() {
        ResponseBody::Whole(bytes) => Ok(bytes.slice(..bytes.len().min(ERROR_BYTES_MAX))),
        ResponseBody::Streamed(body) => Limited::new(*body, ERROR_BYTES_MAX).collect().await.map(Collected::to_bytes),
    };
    let text = text.map_or_else(|error| error.to_string(), |text| String::from_utf8_lossy(&text).into_owned());
    let detail = format!("{status}: {text}");
    Err(Failure::new(Code::FunctionFailed, detail))
}

/// What every answer of a function says about its call.
struct About {
    start: Option<&'static str>,
    timings: Timings,
}

impl About {
    fn of(answer: &Answer) -> About {
        About { start: answer.instance.map(|_| answer.start.as_str()), timings: answer.timings }
    }

    fn note(&self, mut response: Response, request: &RequestId) -> Response {
        let status = response.status();
        let fields: &mut HeaderMap = response.headers_mut();
        fields.reserve(headers::REPLY_FIELDS);
        fields.insert(headers::REQUEST_ID, headers::value(request));
        if let Some(start) = self.start {
            fields.insert(headers::START, HeaderValue::from_static(start));
        }
        if status.canonical_reason().is_none() {
            // Without it hyper would make one up.
            response.extensions_mut().insert(ReasonPhrase::from_static(b""));
        }
        let fields = response.headers_mut();
        // A list, to which the function may have added its own.
        fields.append(headers::SERVER_TIMING, headers::server_timing(&self.timings));
        response
    }
}
