//! `POST /invoke/{function}`: the body is the event, the reply's body is the result.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use tracing::Instrument as _;

use super::problem::{self, Failure};
use super::{Plane, headers};
use crate::ids::{LATEST, RequestId};
use crate::instance::Answer;
use crate::pool;

/// What the query may say.
#[derive(Deserialize)]
pub(super) struct Qualified {
    qualifier: Option<String>,
}

/// Where a request goes.
struct Target {
    function: String,
    qualifier: Option<String>,
}

pub(super) async fn invoke(
    State(plane): State<Arc<Plane>>,
    function: Result<Path<String>, PathRejection>,
    query: Result<Query<Qualified>, QueryRejection>,
    sent: Request,
) -> Response {
    let request = headers::request_id(sent.headers());
    let target = match target(function, query) {
        Ok(target) => target,
        Err(failure) => return failure.reply(&request),
    };
    let span = tracing::debug_span!("request", %request, function = target.function);
    match run(&plane, target, &request, sent).instrument(span).await {
        Ok(answer) => reply(answer, &request),
        Err(failure) => failure.reply(&request),
    }
}

fn target(
    function: Result<Path<String>, PathRejection>,
    query: Result<Query<Qualified>, QueryRejection>,
) -> Result<Target, Failure> {
    let invalid = |detail| Failure::new(StatusCode::BAD_REQUEST, "invalid-request", detail);
    let Path(function) = function.map_err(|rejection| invalid(rejection.body_text()))?;
    let Query(query) = query.map_err(|rejection| invalid(rejection.body_text()))?;
    Ok(Target { function, qualifier: query.qualifier })
}

pub(super) async fn wrong_method(fields: HeaderMap) -> Response {
    let detail = "functions are invoked with POST; the body is the event";
    let failure = Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail);
    let mut response = failure.reply(&headers::request_id(&fields));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

pub(super) async fn no_such_path(fields: HeaderMap) -> Response {
    let detail = "there is nothing here; functions are at POST /invoke/{function}";
    Failure::new(StatusCode::NOT_FOUND, "not-found", detail).reply(&headers::request_id(&fields))
}

async fn run(plane: &Plane, target: Target, request: &RequestId, sent: Request) -> Result<Answer, Failure> {
    let function = target.function.as_str();
    let (head, body) = sent.into_parts();
    let fields = &head.headers;
    if plane.parts.tasks.draining() {
        return Err(pool::Refused::Draining.into());
    }
    check_invocation_type(fields)?;
    let found = plane.parts.catalog.get(function).ok_or_else(|| Failure::function_not_found(function, None))?;
    if let Some(qualifier) = target.qualifier.filter(|qualifier| qualifier != LATEST) {
        return Err(Failure::function_not_found(function, Some(&qualifier)));
    }
    let event = plane.events.read(fields, body).await?;
    if !plane.parts.ledger.has_room() {
        let detail = "the host cannot store what requests use at the moment, so it takes none";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "host-full", detail));
    }
    let pool = plane.parts.pool(&found).await.map_err(|error| {
        tracing::error!(function, %request, "cannot prepare the function: {error}");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the host could not prepare the function")
    })?;
    let traceparent = headers::traceparent(fields);
    Ok(pool.call(pool::Request { id: request.clone(), event: event.bytes, traceparent }).await?)
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
            let mut response = Response::new(Body::from(body));
            let octets = HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(header::CONTENT_TYPE, octets);
            response.headers_mut().insert(headers::REQUEST_ID, headers::value(request));
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
