//! A request to the data plane as a call of a function.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts as Head;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::reply::{self, Asked, Response};
use super::route::{self, Route, Way, invalid};
use super::{Plane, cors, fields, http_event};
use crate::access::Key;
use crate::catalog::{Address, HttpTrigger, is_proxy_path};
use crate::fc;
use crate::guest::{self, BodyError, EventInput};
use crate::host::Host;
use crate::ids::{KeyId, RequestId};
use crate::instance::Answer;
use crate::invoke::{Call, Caller, Payload, Refusal, Takes};
use crate::operator::session;
use crate::proxies::Hop;
use crate::queue::{self, HandedOver, Receipt};
use crate::telemetry;
use crate::traces::TraceContext;
use crate::web::headers;
use crate::web::linger::Lingering;
use crate::web::problem::{Code, Failure};
use crate::web::service::Client;

/// Answers any request to the data plane.
pub(super) async fn answer(plane: &Plane, sent: http::Request<Incoming>, client: Client) -> Response {
    let host = &plane.host;
    let request = headers::request_id(sent.headers());
    let answered = async {
        let (Head { method, uri, mut headers, version, .. }, body) = sent.into_parts();
        let body = Lingering::new(body, host.tasks().clone());
        session::withhold(&mut headers);
        let mut asked = Asked { request: &request, method: &method, room: host.reply_room(), is_fc: false };
        if let Err(failure) = fields::check_framing(version, &headers) {
            return reply::failed(failure, asked);
        }
        let own = own_address(host, &uri, &headers);
        asked.is_fc = own.as_ref().is_some_and(|own| fc::is_address(own));
        if let Err(failure) = fields::read_theirs(asked.is_fc || is_proxy_path(uri.path()), &mut headers) {
            return reply::failed(failure, asked);
        }
        let cors = own.as_ref().and_then(|own| own.trigger.cors.as_ref());
        if let Some(answer) = cors.and_then(|cors| cors::preflight(cors, &method, &headers)) {
            return answer;
        }
        let origin = cors.and_then(|_| headers.get(header::ORIGIN).cloned());
        let read = fields::check_upgrade(&headers).and_then(|()| {
            let route = match own.clone() {
                Some(own) => Route::to(own, &method, &uri)?,
                None => Route::of(&method, &uri)?,
            };
            let signed = is_proxy_path(uri.path()).then(|| plane.fc.signer(&method, &uri, &headers)).transpose();
            let signed = signed.map_err(|text| Failure::new(Code::Unauthorized, text))?.flatten();
            Ok((route, take_key(host, signed, &mut headers)?))
        });
        let mut answered = match read {
            Ok((route, key)) => {
                let (way, sent) = (route.way, Sent { method: &method, uri: &uri, headers, client, key, body });
                match call(plane, &request, route, sent).await {
                    Ok(Answered::Accepted(receipt)) => reply::accepted(&receipt, &request),
                    Ok(Answered::Now(answer)) => match way {
                        Way::Invoke => reply::to_invocation(answer, asked).await,
                        Way::Serve => reply::to_request(answer, asked).await,
                    },
                    Ok(Answered::OfEvent(answer)) => reply::to_http_event(answer, asked).await,
                    Err(failure) => reply::failed(failure, asked),
                }
            }
            Err(failure) => reply::failed(failure, asked),
        };
        if let Some(own) = &own {
            about_address(&own.trigger, origin.as_ref(), &mut answered);
        }
        answered
    };
    telemetry::about(&request, answered).await
}

/// What a caller is answered.
enum Answered {
    /// What came of the call.
    Now(Answer),
    /// What came of a call whose event was the request.
    OfEvent(Answer),
    /// That it is on disk, and will be made.
    Accepted(Receipt),
}

/// The address of a function's own that a request is for. What every function has comes first.
fn own_address(host: &Host, uri: &Uri, fields: &HeaderMap) -> Option<Arc<Address>> {
    if route::is_reserved(uri.path()) {
        return None;
    }
    let field = fields.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    if is_proxy_path(uri.path()) {
        // It is the same under every host name, so that no address of one can take it away.
        return host.address("", uri.path());
    }
    // A target with an authority, as in HTTP/2, wins (RFC 9112, section 3.2.2).
    let asked = uri.authority().or(field.as_ref()).filter(|asked| !asked.as_str().contains('@'));
    host.address(asked.map_or("", Authority::host).trim_end_matches('.'), uri.path())
}

/// What an address adds to an answer.
fn about_address(trigger: &HttpTrigger, origin: Option<&HeaderValue>, answered: &mut Response) {
    if let Some(cors) = &trigger.cors {
        cors::let_read(cors, origin, answered.headers_mut());
    }
    if answered.status() == StatusCode::METHOD_NOT_ALLOWED && answered.headers().contains_key(header::ALLOW) {
        let named: Vec<&str> = trigger.methods.iter().map(Method::as_str).collect();
        if let (Ok(named), false) = (HeaderValue::from_str(&named.join(", ")), named.is_empty()) {
            answered.headers_mut().insert(header::ALLOW, named);
        }
    }
}

/// A request, apart from its address.
struct Sent<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: HeaderMap,
    client: Client,
    key: Option<Arc<Key>>,
    body: Lingering,
}

async fn call(plane: &Plane, request: &RequestId, route: Route<'_>, mut sent: Sent<'_>) -> Result<Answered, Failure> {
    let host = &plane.host;
    let is_asynchronous = fields::is_asynchronous(&mut sent.headers)?;
    let id = fields::invocation_id(&mut sent.headers)?;
    if id.is_some() && !is_asynchronous {
        return Err(invalid(
            "`Dormouse-Invocation-Id` is for asynchronous invocations: send `Dormouse-Invocation-Type: async` as well",
        ));
    }
    let key = sent.key.take();
    let affinity = sent.headers.get(headers::AFFINITY).cloned();
    let call = Call {
        function: &route.function,
        qualifier: route.qualifier.as_deref(),
        affinity: affinity.as_ref().map(HeaderValue::as_bytes),
        request: request.clone(),
        trace: TraceContext::of_fields(&sent.headers),
        caller: Caller::Outside(key.as_deref()),
        auth: route.own.as_ref().and_then(|own| own.trigger.auth),
        attempt: 1,
        stop: None,
    };
    let (way, path) = (route.way, route.path);
    if way == Way::Serve {
        sent.client.hop.tell(&mut sent.headers);
    }
    if is_asynchronous {
        return hand_over(plane, call, id, (way, path), sent).await.map(Answered::Accepted);
    }
    let mut is_http_event = false;
    let payload = |takes| {
        is_http_event = way == Way::Serve && takes == Takes::EventsOfHttp;
        async move {
            match (way, takes) {
                (Way::Invoke, _) | (Way::Serve, Takes::Events) => {
                    plane.read(&sent.headers, sent.body).await.map(Payload::Event)
                }
                (Way::Serve, Takes::EventsOfHttp) => plane.read_http(request, sent, path).await.map(Payload::Event),
                (Way::Serve, Takes::Http) => Ok(Payload::Http(Box::new(forwarded(sent, path)?))),
            }
        }
    };
    let answer = host.invoke(call, payload).await?;
    Ok(if is_http_event { Answered::OfEvent(answer) } else { Answered::Now(answer) })
}

impl Plane {
    /// Reads an event.
    async fn read(&self, fields: &HeaderMap, body: Lingering) -> Result<EventInput, Failure> {
        let (room, tasks) = (self.host.event_room(), self.host.tasks());
        let (bytes, share) = self.events.read(room, tasks, fields, body).await?;
        Ok(EventInput { bytes, share })
    }

    /// Reads a request as an event.
    async fn read_http(&self, request: &RequestId, sent: Sent<'_>, path: &str) -> Result<EventInput, Failure> {
        let uri = address(&sent.headers, sent.uri, path)?;
        let body = self.read(&sent.headers, sent.body).await?;
        let head = http_event::Head {
            request,
            method: sent.method,
            uri: &uri,
            fields: &sent.headers,
            address: sent.client.address,
        };
        Ok(EventInput { bytes: http_event::event(&head, &body.bytes), share: body.share })
    }
}

/// Hands an asynchronous invocation over to the queue.
async fn hand_over(
    plane: &Plane,
    call: Call<'_>,
    id: Option<RequestId>,
    (way, path): (Way, &str),
    sent: Sent<'_>,
) -> Result<Receipt, Failure> {
    let (function, target) = plane.host.admit(&call)?;
    let exports = &target.revision.exports;
    let takes = Takes::of(&target.revision);
    if way == Way::Serve && takes == Takes::EventsOfHttp {
        let event = Bytes::from_owner(plane.read_http(id.as_ref().unwrap_or(&call.request), sent, path).await?);
        return Ok(plane.queue.accept(&function, &call, HandedOver { id, http: None, event }).await?);
    }
    let mut http = None;
    if way == Way::Serve && takes == Takes::Http {
        let uri = address(&sent.headers, sent.uri, path)?;
        if exports.is_hook_path(uri.path()) {
            return Err(Refusal::HookPath(uri.path().to_owned()).into());
        }
        http = Some(queue::head_of(sent.method, &uri, &sent.headers));
    }
    // The event has its share of memory until it is on disk.
    let event = Bytes::from_owner(plane.read(&sent.headers, sent.body).await?);
    Ok(plane.queue.accept(&function, &call, HandedOver { id, http, event }).await?)
}

/// The access key that a request shows. It is meant for the host, so the function does not get it; what has not the form of
/// this host's keys is the function's own.
fn take_key(host: &Host, signed: Option<Arc<Key>>, fields: &mut HeaderMap) -> Result<Option<Arc<Key>>, Failure> {
    let mut values = fields.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("the field `Authorization` is there more than once"));
    }
    if let Some(key) = signed {
        fields.remove(header::AUTHORIZATION);
        key.count_call()?;
        return Ok(Some(key));
    }
    let shown = headers::bearer(fields).map(|token| host.access().recognise(token)).transpose()?.flatten();
    let Some(key) = shown else {
        // What looks like a key in another form must not reach the function either.
        let detail = "send the access key as `Authorization: Bearer KEY`";
        let odd = KeyId::is_in(value.as_bytes()).then(|| Failure::new(Code::Unauthorized, detail));
        return odd.map_or(Ok(None), Err);
    };
    fields.remove(header::AUTHORIZATION);
    key.count_call()?;
    Ok(Some(key))
}

/// The request as the function sees it: its own paths begin at `/`, and the authority is the one that the caller used.
fn forwarded(sent: Sent<'_>, path: &str) -> Result<http::Request<guest::Body>, Failure> {
    let uri = address(&sent.headers, sent.uri, path)?;
    let body = sent.body.map_frame(guest::without_framing).map_err(BodyError::from);
    let mut request = http::Request::new(body.boxed_unsync());
    *request.uri_mut() = uri;
    *request.method_mut() = sent.method.clone();
    *request.headers_mut() = sent.headers;
    Ok(request)
}

/// The address of a request as the function sees it.
fn address(fields: &HeaderMap, uri: &Uri, path: &str) -> Result<Uri, Failure> {
    // A target that has it wins (RFC 9112, section 3.2.2), as in HTTP/2 (RFC 9113, section 8.3.1).
    let host = uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = host.or_else(|| fields.get(header::HOST).map(HeaderValue::as_bytes));
    let authority = host.filter(|host| !host.is_empty()).unwrap_or(b"localhost");
    let authority = Authority::try_from(authority).ok().filter(|authority| !authority.as_str().contains('@'));
    let authority = authority.ok_or_else(|| invalid("the field `Host` is not an address"))?;
    let path = match uri.query() {
        None => path.parse(),
        Some(query) => format!("{path}?{query}").parse(),
    };
    let path: PathAndQuery = path.map_err(|_| invalid("the path cannot be read"))?;
    let scheme = if Hop::is_secure(fields) { Scheme::HTTPS } else { Scheme::HTTP };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path);
    uri.build().map_err(|_| invalid("the address cannot be read"))
}
