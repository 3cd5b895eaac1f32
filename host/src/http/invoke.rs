//! `POST /invoke/{function}`: the body is the event, the reply's body is the result.

use std::borrow::Cow;

use http::request::Parts as Head;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hyper::body::{Bytes, Incoming};
use percent_encoding::percent_decode_str;

use super::linger::Lingering;
use super::problem::{self, Failure};
use super::{Plane, Response, headers};
use crate::ids::{LATEST, RequestId};
use crate::instance::Answer;
use crate::pool;

/// Paths of functions begin so.
const INVOKE: &str = "/invoke/";

/// Answers any request to the data plane.
pub(super) async fn answer(plane: &Plane, sent: http::Request<Incoming>) -> Response {
    let request = headers::request_id(sent.headers());
    match run(plane, &request, sent).await {
        Ok(answer) => reply(answer, &request),
        Err(failure) => {
            let wrong_method = failure.status == StatusCode::METHOD_NOT_ALLOWED;
            let mut response = failure.reply(&request);
            if wrong_method {
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            response
        }
    }
}

async fn run(plane: &Plane, request: &RequestId, sent: http::Request<Incoming>) -> Result<Answer, Failure> {
    let (head, body) = sent.into_parts();
    let tasks = &plane.parts.tasks;
    let body = Lingering::new(body, tasks.clone());
    let function = function_name(&head)?;
    let qualifier = qualifier(&head)?;
    if tasks.draining() {
        return Err(pool::Refused::Draining.into());
    }
    check_invocation_type(&head.headers)?;
    let found = plane.parts.catalog.get(&function).ok_or_else(|| Failure::function_not_found(&function, None))?;
    if let Some(qualifier) = qualifier.filter(|qualifier| qualifier != LATEST) {
        return Err(Failure::function_not_found(&function, Some(&qualifier)));
    }
    let event = plane.events.read(&head.headers, body).await?;
    if !plane.parts.ledger.has_room() {
        let detail = "the host cannot store what requests use at the moment, so it takes none";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "host-full", detail));
    }
    let pool = plane.parts.pool(&found).await.map_err(|error| {
        tracing::error!(%function, %request, "cannot prepare the function: {error}");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the host could not prepare the function")
    })?;
    let traceparent = headers::traceparent(&head.headers);
    Ok(pool.call(pool::Request { id: request.clone(), event: event.bytes, traceparent }).await?)
}

/// The function that the path names.
fn function_name(head: &Head) -> Result<Cow<'_, str>, Failure> {
    let name = head.uri.path().strip_prefix(INVOKE).filter(|name| !name.is_empty() && !name.contains('/'));
    let Some(name) = name else {
        let detail = "there is nothing here; functions are at POST /invoke/{function}";
        return Err(Failure::new(StatusCode::NOT_FOUND, "not-found", detail));
    };
    if head.method != Method::POST {
        let detail = "functions are invoked with POST; the body is the event";
        return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail));
    }
    percent_decode_str(name).decode_utf8().map_err(|_| invalid("the path is not UTF-8"))
}

/// The version or alias that the query asks for.
fn qualifier(head: &Head) -> Result<Option<String>, Failure> {
    let Some(query) = head.uri.query() else { return Ok(None) };
    let mut named = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "qualifier");
    let qualifier = named.next().map(|(_, value)| value.into_owned());
    match named.next() {
        None => Ok(qualifier),
        Some(_) => Err(invalid("the query has more than one `qualifier`")),
    }
}

fn invalid(detail: &str) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "invalid-request", detail)
}

fn check_invocation_type(fields: &HeaderMap) -> Result<(), Failure> {
    match fields.get(headers::INVOCATION_TYPE).map(HeaderValue::as_bytes) {
        None | Some(b"sync") => Ok(()),
        Some(_) => Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "invocation-type-not-supported",
            "this host runs invocations of type `sync` only; leave `Dormouse-Invocation-Type` out",
        )),
    }
}

fn reply(answer: Answer, request: &RequestId) -> Response {
    let mut response = match problem::result(answer.outcome) {
        Ok(body) => {
            let mut response = Response::new(Bytes::from(body).into());
            let fields = response.headers_mut();
            fields.reserve(headers::REPLY_FIELDS);
            fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            fields.insert(headers::REQUEST_ID, headers::value(request));
            response
        }
        Err(failure) => failure.reply(request),
    };
    let fields = response.headers_mut();
    if answer.instance.is_some() {
        fields.insert(headers::START, HeaderValue::from_static(answer.start.as_str()));
    }
    fields.insert(headers::SERVER_TIMING, headers::server_timing(&answer.timings));
    response
}
