//! Hooks as HTTP requests: for components of `wasi:http` that were written for Function Compute, or for any host.
//!
//! Methods, paths and fields are those of Function Compute's custom runtimes.

use std::fmt;

use http::{HeaderName, HeaderValue, Method, Uri, header};
use http_body_util::{BodyExt as _, Collected, Empty, Limited};

use super::call::{CallContext, Entry};
use super::delivery::Body;

/// How much is read of what a failed hook says.
const ERROR_BYTES_MAX: usize = 4096;
/// What callers may not send: fields that begin so say who calls the function, and how.
const FIELD_PREFIX: &str = "x-fc-";
/// The path that events of `/invoke/{function}` go to.
const INVOKE_PATH: &str = "/invoke";
/// What a caller's own request is, whatever its path.
const FROM_CALLER: ControlPath = ControlPath("/http-invoke");

/// Tells what the host sends from what a caller sends: it stands in `x-fc-control-path`.
#[derive(Clone, Copy)]
struct ControlPath(&'static str);

/// A hook's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    entry: Entry,
    /// Where it goes.
    pub path: &'static str,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method(), self.path)
    }
}

impl Request {
    /// The request of a hook.
    pub(super) fn of(entry: Entry) -> Option<Request> {
        let path = match entry {
            Entry::Handler => return None,
            Entry::Initializer => "/initialize",
            Entry::PreFreeze => "/pre-freeze",
            Entry::PreStop => "/pre-stop",
        };
        Some(Request { entry, path })
    }

    fn method(self) -> Method {
        if self.entry == Entry::Initializer { Method::POST } else { Method::GET }
    }

    /// The request itself.
    pub(super) fn build(self) -> http::Request<Body> {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let mut request = http::Request::new(body);
        *request.method_mut() = self.method();
        *request.uri_mut() = local(self.path);
        request.extensions_mut().insert(ControlPath(self.path));
        request
    }

    /// Whether a response means that the hook did its work; if not, what it says. Reads all of it: a guest may take a
    /// reader that leaves for an error.
    pub(super) async fn check(self, response: http::Response<Body>) -> Result<(), String> {
        let status = response.status();
        if status.as_u16() < 400 {
            let mut body = response.into_body();
            while let Some(Ok(_)) = body.frame().await {}
            return Ok(());
        }
        let said = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect().await.map(Collected::to_bytes);
        let said = said.unwrap_or_default();
        Err(format!("{self} was answered with {status}: {}", String::from_utf8_lossy(&said)))
    }
}

/// An event as a request, as Function Compute hands it to custom runtimes.
pub fn event_request(body: Body) -> http::Request<Body> {
    let mut request = http::Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = local(INVOKE_PATH);
    request.extensions_mut().insert(ControlPath(INVOKE_PATH));
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    request
}

/// An address without a caller.
fn local(path: &'static str) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = Some(http::uri::Authority::from_static("localhost"));
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static(path));
    Uri::from_parts(parts).unwrap_or_default()
}

/// Says in a request's fields what an event's context says; the caller's own fields of these names go.
pub(super) fn tell(request: &mut http::Request<Body>, context: &CallContext) {
    let ControlPath(control_path) = request.extensions().get().copied().unwrap_or(FROM_CALLER);
    let fields = request.headers_mut();
    let forged: Vec<HeaderName> =
        fields.keys().filter(|name| name.as_str().starts_with(FIELD_PREFIX)).cloned().collect();
    for name in forged {
        fields.remove(name);
    }
    let texts: [(&'static str, &str); 5] = [
        ("x-fc-request-id", &context.request_id),
        ("x-fc-function-name", &context.function),
        ("x-fc-version-id", &context.version),
        ("x-fc-instance-id", &context.instance_id),
        ("x-fc-control-path", control_path),
    ];
    for (name, text) in texts {
        // Identifiers are made of characters that every field may hold.
        if let Ok(value) = HeaderValue::from_str(text) {
            fields.insert(HeaderName::from_static(name), value);
        }
    }
    let numbers: [(&'static str, u64); 3] = [
        ("x-fc-function-memory", context.memory_mb.into()),
        ("x-fc-function-deadline", context.deadline_ms),
        ("x-fc-retry-count", u64::from(context.attempt).saturating_sub(1)),
    ];
    for (name, number) in numbers {
        fields.insert(HeaderName::from_static(name), HeaderValue::from(number));
    }
}
