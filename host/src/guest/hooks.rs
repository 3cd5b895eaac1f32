//! Hooks as HTTP requests: for components of `wasi:http` that were written for Function Compute, or for any host.
//!
//! Methods, paths and fields are those of Function Compute's custom runtimes.

use std::fmt;

use http::{HeaderName, HeaderValue, Method, Uri, header};
use http_body_util::{BodyExt as _, Collected, Empty, Limited};

use super::call::{CallContext, Entry};
use super::delivery::Body;
use crate::traces::TRACEPARENT;

/// How much of a failed hook's response is read.
const ERROR_BYTES_MAX: usize = 4096;
/// Fields with this prefix say who calls the function, and how. Callers may not send them.
const FIELD_PREFIX: &str = "x-fc-";
/// The fields that say so. Constants, because names are checked when they are made.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-fc-request-id");
const FUNCTION_NAME: HeaderName = HeaderName::from_static("x-fc-function-name");
const VERSION_ID: HeaderName = HeaderName::from_static("x-fc-version-id");
const INSTANCE_ID: HeaderName = HeaderName::from_static("x-fc-instance-id");
const CONTROL_PATH: HeaderName = HeaderName::from_static("x-fc-control-path");
const FUNCTION_MEMORY: HeaderName = HeaderName::from_static("x-fc-function-memory");
const FUNCTION_DEADLINE: HeaderName = HeaderName::from_static("x-fc-function-deadline");
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-fc-retry-count");
/// How many they are.
const FIELDS: usize = 8;
/// The path at which the function gets the events of `/invoke/{function}`.
const INVOKE_PATH: &str = "/invoke";
/// The control path of a caller's own request, whatever its path.
const FROM_CALLER: ControlPath = ControlPath("/http-invoke");

/// The value of `x-fc-control-path`. It distinguishes the host's requests from those of callers.
#[derive(Clone, Copy)]
struct ControlPath(&'static str);

/// A hook's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    entry: Entry,
    /// Its path.
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

    /// Builds the HTTP request.
    pub(super) fn build(self) -> http::Request<Body> {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let mut request = http::Request::new(body);
        *request.method_mut() = self.method();
        *request.uri_mut() = local(self.path);
        request.extensions_mut().insert(ControlPath(self.path));
        request
    }

    /// Checks if a response means success; if not, returns its text. Reads a successful response to its end, because a
    /// guest may take it for an error if the reader leaves.
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

/// An event as a request, in the form that Function Compute uses for custom runtimes.
pub fn event_request(body: Body) -> http::Request<Body> {
    let mut request = http::Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = local(INVOKE_PATH);
    request.extensions_mut().insert(ControlPath(INVOKE_PATH));
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    request
}

/// The URI of a request that no caller sent.
fn local(path: &'static str) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = Some(http::uri::Authority::from_static("localhost"));
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static(path));
    Uri::from_parts(parts).unwrap_or_default()
}

/// What the fields say that is the same for every request to an instance.
pub(super) struct InstanceFields([(HeaderName, HeaderValue); 3]);

impl InstanceFields {
    pub(super) fn of(context: &CallContext) -> InstanceFields {
        InstanceFields([
            (FUNCTION_NAME, text(&context.function)),
            (INSTANCE_ID, text(&context.instance_id)),
            (FUNCTION_MEMORY, HeaderValue::from(context.memory_mb)),
        ])
    }
}

/// An identifier as the value of a field.
fn text(identifier: &str) -> HeaderValue {
    HeaderValue::from_str(identifier).expect("identifiers consist of characters that are valid in any field")
}

/// Puts the data of an event's context into a request's fields. Removes the caller's own fields with this prefix.
pub(super) fn tell(request: &mut http::Request<Body>, context: &CallContext, of_instance: &InstanceFields) {
    let ControlPath(control_path) = request.extensions().get().copied().unwrap_or(FROM_CALLER);
    let fields = request.headers_mut();
    let is_forged = |name: &HeaderName| {
        let name = name.as_str().as_bytes();
        // CGI and its like take `_` for `-`.
        let plain = name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte });
        name.len() >= FIELD_PREFIX.len() && plain.take(FIELD_PREFIX.len()).eq(FIELD_PREFIX.bytes())
    };
    let forged: Vec<HeaderName> = fields.keys().filter(|name| is_forged(name)).cloned().collect();
    for name in forged {
        fields.remove(name);
    }
    fields.reserve(FIELDS);
    for (name, value) in &of_instance.0 {
        fields.insert(name, value.clone());
    }
    fields.insert(CONTROL_PATH, HeaderValue::from_static(control_path));
    fields.insert(REQUEST_ID, text(&context.request_id));
    fields.insert(VERSION_ID, text(&context.version));
    fields.insert(FUNCTION_DEADLINE, HeaderValue::from(context.deadline_ms));
    let retries = match context.attempt {
        0 | 1 => HeaderValue::from_static("0"),
        attempt => HeaderValue::from(attempt - 1),
    };
    fields.insert(RETRY_COUNT, retries);
    // The caller's own, unless the host traces the request.
    if let Some(traceparent) = &context.traceparent {
        fields.insert(TRACEPARENT, text(traceparent));
    }
}
