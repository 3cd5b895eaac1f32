//! W3C Trace Context of outgoing requests: they continue the caller's trace, or start one for the request being served.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use http::{HeaderName, HeaderValue};
use uuid::Uuid;

use super::attribution::Origin;

/// The field that carries the context (W3C Trace Context, section 3.2).
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The context of a request that a guest sends: the trace and flags of its origin, and a new parent.
pub(super) fn continued(origin: &Origin) -> HeaderValue {
    let (trace, flags) = match origin.traceparent.as_deref() {
        // Only well-formed ones reach a guest: `00-<32 hex>-<16 hex>-<2 hex>`.
        Some(text) => (text[3..35].to_owned(), text[53..].to_owned()),
        None => (trace_of(origin.request.as_str()), "01".to_owned()),
    };
    // Neither half of a version 4 UUID is all zeros.
    let (_, parent) = Uuid::new_v4().as_u64_pair();
    HeaderValue::from_str(&format!("00-{trace}-{parent:016x}-{flags}")).unwrap_or(HeaderValue::from_static(""))
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
    use super::*;
    use crate::ids::RequestId;

    fn sent(request: &RequestId, traceparent: Option<&str>) -> String {
        let origin = Origin { request: request.clone(), key: None, traceparent: traceparent.map(str::to_owned) };
        continued(&origin).to_str().unwrap().to_owned()
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
