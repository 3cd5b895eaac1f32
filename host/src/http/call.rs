//! One request's call: what it brings is made what its function takes, and the function's pool runs it.

use http::request::Parts as Head;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use super::linger::Lingering;
use super::problem::Failure;
use super::route::{Route, invalid};
use super::{Plane, Response, headers, reply};
use crate::catalog::Function;
use crate::guest::{self, BodyError, Input, Protocol};
use crate::ids::{LATEST, RequestId};
use crate::instance::Answer;
use crate::pool;

/// Answers any request to the data plane.
pub(super) async fn answer(plane: &Plane, sent: http::Request<Incoming>) -> Response {
    let request = headers::request_id(sent.headers());
    let (head, body) = sent.into_parts();
    let body = Lingering::new(body, plane.parts.tasks.clone());
    let invoked = !matches!(Route::of(&head), Ok(Route::Serve { .. }));
    let method = head.method.clone();
    match run(plane, &request, head, body).await {
        Ok(answer) if invoked => reply::to_invocation(answer, &request).await,
        Ok(answer) => reply::to_request(answer, &request, &method).await,
        Err(failure) => reply::failed(failure, &request),
    }
}

async fn run(plane: &Plane, request: &RequestId, head: Head, body: Lingering) -> Result<Answer, Failure> {
    let route = Route::of(&head)?;
    if plane.parts.tasks.draining() {
        return Err(pool::Refused::Draining.into());
    }
    let name = route.function();
    let found = plane.parts.catalog.get(name).ok_or_else(|| Failure::function_not_found(name, None))?;
    let traceparent = headers::traceparent(&head.headers);
    let input = match (&route, found.exports.protocol) {
        (Route::Invoke { qualifier, .. }, protocol) => {
            check_invocation_type(&head.headers)?;
            if let Some(qualifier) = qualifier.as_deref().filter(|qualifier| *qualifier != LATEST) {
                return Err(Failure::function_not_found(name, Some(qualifier)));
            }
            let event = plane.events.read(&head.headers, body).await?.bytes;
            match protocol {
                Protocol::Event => Input::Event(event),
                Protocol::Http02 | Protocol::Http03 => Input::Http(Box::new(guest::event_request(whole(event)))),
            }
        }
        (Route::Serve { .. }, Protocol::Event) => Input::Event(plane.events.read(&head.headers, body).await?.bytes),
        (Route::Serve { path, .. }, Protocol::Http02 | Protocol::Http03) => {
            check_path(&found, path)?;
            let uri = guests_uri(&head, path)?;
            Input::Http(Box::new(forwarded(head, uri, body)))
        }
    };
    if !plane.parts.ledger.has_room() {
        let detail = "the host cannot store what requests use at the moment, so it takes none";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "host-full", detail));
    }
    let pool = plane.parts.pool(&found).await.map_err(|error| {
        tracing::error!(function = %found.name, %request, "cannot prepare the function: {error}");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the host could not prepare the function")
    })?;
    Ok(pool.call(pool::Request { id: request.clone(), input, traceparent }).await?)
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

/// Hooks that are requests are the host's to send.
fn check_path(function: &Function, path: &str) -> Result<(), Failure> {
    let exports = &function.exports;
    let hooks = [&exports.initializer, &exports.pre_freeze, &exports.pre_stop];
    let paths = hooks.into_iter().flatten().filter_map(|hook| hook.name.split_once(' '));
    if paths.into_iter().any(|(_, hook)| hook == path) {
        let detail = format!("`{path}` is a hook of this function, which only the host calls");
        return Err(Failure::new(StatusCode::NOT_FOUND, "not-found", detail));
    }
    Ok(())
}

/// The address as the function sees it: its own paths begin at `/`, and the authority is the one that the caller used.
fn guests_uri(head: &Head, path: &str) -> Result<Uri, Failure> {
    let host = head.headers.get(header::HOST).map(HeaderValue::as_bytes);
    let authority = host.filter(|host| !host.is_empty()).unwrap_or(b"localhost");
    let authority = Authority::try_from(authority).map_err(|_| invalid("the field `Host` is not an address"))?;
    let path = match head.uri.query() {
        None => path.parse(),
        Some(query) => format!("{path}?{query}").parse(),
    };
    let path: PathAndQuery = path.map_err(|_| invalid("the path cannot be read"))?;
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path);
    uri.build().map_err(|_| invalid("the address cannot be read"))
}

fn forwarded(head: Head, uri: Uri, body: Lingering) -> http::Request<guest::Body> {
    let mut request = http::Request::new(body.map_err(BodyError::from).boxed_unsync());
    *request.method_mut() = head.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = head.headers;
    request
}

fn whole(bytes: Vec<u8>) -> guest::Body {
    Full::from(bytes).map_err(|never| match never {}).boxed_unsync()
}
