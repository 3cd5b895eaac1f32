//! W3C Trace Context of outgoing requests: they continue the caller's trace, or start one for the request being served.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use uuid::Uuid;

use super::attribution::Origin;
use super::reach;
use crate::traces::{Outgoing, TRACEPARENT, TRACESTATE};

/// Gives a request that a guest sends its context, and begins its span if its origin is sampled. One that has a context stays as
/// it is: its guest does its own tracing.
pub(super) fn begin<B>(request: &mut Request<B>, origin: &Origin) -> Option<Outgoing> {
    if request.headers().contains_key(TRACEPARENT) {
        return None;
    }
    let span = origin.trace.parent.as_ref().map(|parent| {
        let uri = request.uri();
        let host = (uri.host().unwrap_or_default(), reach::port_of(uri));
        parent.outgoing(request.method(), host, uri.path())
    });
    let traceparent = match &span {
        Some(span) => span.context().traceparent.to_string(),
        None => continued(origin),
    };
    let state = origin.trace.context.as_ref().and_then(|context| context.tracestate.as_deref());
    let fields = request.headers_mut();
    put(fields, TRACEPARENT, &traceparent);
    if let Some(state) = state
        && !fields.contains_key(TRACESTATE)
    {
        put(fields, TRACESTATE, state);
    }
    span
}

fn put(fields: &mut HeaderMap, name: HeaderName, text: &str) {
    // Only what has the form of a context comes here, and that can stand in a field.
    if let Ok(value) = HeaderValue::from_str(text) {
        fields.insert(name, value);
    }
}

/// The trace and flags of the origin, and a new parent.
fn continued(origin: &Origin) -> String {
    // Neither half of a version 4 UUID is all zeros.
    let (_, parent) = Uuid::new_v4().as_u64_pair();
    match &origin.trace.context {
        Some(context) => context.beside(parent),
        None => {
            let flags = if origin.trace.is_left_out { "00" } else { "01" };
            format!("00-{}-{parent:016x}-{flags}", trace_of(origin.request.as_str()))
        }
    }
}

/// The trace of a request that came without one: the same for everything sent while serving it.
fn trace_of(request: &str) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, request).hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(0), half(1) | 1)
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;
    use crate::ids::RequestId;
    use crate::traces::{Trace, TraceContext};

    fn fields(request: &RequestId, traceparent: Option<&str>, own: &[(&'static str, &'static str)]) -> HeaderMap {
        let context = traceparent.map(|text| TraceContext::parse(text, Some("a=1")).unwrap());
        let trace = Trace { context, ..Trace::default() };
        let origin = Origin { request: request.clone(), key: None, trace };
        let mut sent = Request::new(());
        *sent.uri_mut() = Uri::from_static("http://example.com/");
        own.iter().for_each(|(name, value)| put(sent.headers_mut(), HeaderName::from_static(name), value));
        assert!(begin(&mut sent, &origin).is_none(), "it is not sampled here");
        sent.headers().clone()
    }

    fn sent(request: &RequestId, traceparent: Option<&str>) -> String {
        fields(request, traceparent, &[])[TRACEPARENT].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_guest_that_does_its_own_tracing_is_left_alone() {
        let own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let request = RequestId::new();
        assert_eq!(fields(&request, Some(own), &[("traceparent", "mine")])[TRACEPARENT], "mine");
        assert_eq!(fields(&request, Some(own), &[("tracestate", "b=2")])[TRACESTATE], "b=2");
        assert_eq!(fields(&request, Some(own), &[])[TRACESTATE], "a=1");
        assert!(!fields(&request, None, &[]).contains_key(TRACESTATE));
    }

    #[test]
    fn a_trace_goes_on_with_a_parent_of_its_own() {
        let own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let request = RequestId::new();
        let (one, other) = (sent(&request, Some(own)), sent(&request, Some(own)));
        for text in [&one, &other] {
            assert_eq!((text.len(), &text[..36], &text[52..]), (own.len(), &own[..36], "-00"), "{text}");
        }
        assert!(one != other && one != own);
    }

    #[test]
    fn a_request_without_a_trace_begins_one() {
        let (one, other) = (RequestId::new(), RequestId::new());
        let trace = |request| sent(request, None)[3..35].to_owned();
        assert_eq!(trace(&one), trace(&one));
        assert_ne!(trace(&one), trace(&other));
        assert!(sent(&one, None).ends_with("-01"));
    }
}
