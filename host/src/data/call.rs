//! A request to the data plane as a call of a function.

use http::request::Parts as Head;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tracing::Instrument as _;

use super::event::EventReader;
use super::reply::{self, Response};
use super::route::{Route, Way, invalid};
use crate::guest::{self, BodyError, Protocol};
use crate::host::Host;
use crate::ids::RequestId;
use crate::instance::Answer;
use crate::invoke::{Call, Payload};
use crate::meter::CalledBy;
use crate::web::linger::Lingering;
use crate::web::problem::{Code, Failure};
use crate::web::{headers, span};

/// Answers any request to the data plane.
pub(super) async fn answer(host: &Host, events: &EventReader, sent: http::Request<Incoming>) -> Response {
    let request = headers::request_id(sent.headers());
    let span = span::of(&request);
    let answered = async {
        let (head, body) = sent.into_parts();
        let body = Lingering::new(body, host.tasks().clone());
        let route = match Route::of(&head) {
            Ok(route) => route,
            Err(failure) => return reply::failed(failure, &request),
        };
        let (way, method) = (route.way, head.method.clone());
        match call(host, events, &request, (route, &head), body).await {
            Ok(answer) => match way {
                Way::Invoke => reply::to_invocation(answer, &request).await,
                Way::Serve => reply::to_request(answer, &request, &method).await,
            },
            Err(failure) => reply::failed(failure, &request),
        }
    };
    answered.instrument(span).await
}

async fn call(
    host: &Host,
    events: &EventReader,
    request: &RequestId,
    (route, head): (Route<'_>, &Head),
    body: Lingering,
) -> Result<Answer, Failure> {
    if route.way == Way::Invoke {
        check_invocation_type(&head.headers)?;
    }
    let call = Call {
        function: &route.function,
        qualifier: route.qualifier.as_deref(),
        affinity: head.headers.get(headers::AFFINITY).map(HeaderValue::as_bytes),
        request: request.clone(),
        traceparent: headers::traceparent(&head.headers),
        called_by: CalledBy::Data,
        attempt: 1,
    };
    let (way, path) = (route.way, route.path);
    let payload = |protocol| async move {
        match (way, protocol) {
            (Way::Invoke, _) | (Way::Serve, Protocol::Event) => {
                events.read(&head.headers, body).await.map(Payload::Event)
            }
            (Way::Serve, Protocol::Http02 | Protocol::Http03) => {
                let uri = guests_uri(head, path)?;
                Ok(Payload::Http(Box::new(forwarded(head, uri, body))))
            }
        }
    };
    host.invoke(call, payload).await
}

fn check_invocation_type(fields: &HeaderMap) -> Result<(), Failure> {
    match fields.get(headers::INVOCATION_TYPE).map(HeaderValue::as_bytes) {
        None | Some(b"sync") => Ok(()),
        Some(_) => Err(Failure::new(
            Code::InvocationTypeNotSupported,
            "this host runs invocations of type `sync` only; leave `Dormouse-Invocation-Type` out",
        )),
    }
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

fn forwarded(head: &Head, uri: Uri, body: Lingering) -> http::Request<guest::Body> {
    let mut request = http::Request::new(body.map_err(BodyError::from).boxed_unsync());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = head.headers.clone();
    request
}
