//! Header fields that Dormouse reads and writes.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::ids::RequestId;
use crate::instance::Timings;

/// On every reply: the request's identifier.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("dormouse-request-id");
/// On replies of functions: `cold`, `parked` or `active`.
pub const START: HeaderName = HeaderName::from_static("dormouse-start");
/// On requests: `sync` or `async`.
pub const INVOCATION_TYPE: HeaderName = HeaderName::from_static("dormouse-invocation-type");
/// On deployments: a JSON merge patch for the function's configuration.
pub const SETTINGS: HeaderName = HeaderName::from_static("dormouse-settings");
/// On replies of functions: where the time went.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const CALLERS_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The length of a `traceparent` of version 00, the only one there is (W3C Trace Context, section 3.2).
const TRACEPARENT_BYTES: usize = 55;

/// The caller's own identifier if it sent a sane one, else a new one.
pub fn request_id(headers: &HeaderMap) -> RequestId {
    let own = headers.get(CALLERS_REQUEST_ID).and_then(|value| value.to_str().ok()).and_then(RequestId::from_caller);
    own.unwrap_or_default()
}

/// The caller's trace context, if it has the form of one: `00-<32 hex>-<16 hex>-<2 hex>`, neither identifier all zeros.
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else { return None };
    let lengths = [version.len(), trace.len(), parent.len(), flags.len()];
    let digits = text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let named = [trace, parent].iter().all(|id| id.bytes().any(|digit| digit != b'0'));
    // Version `ff` is the one that will never be.
    let formed = text.len() == TRACEPARENT_BYTES && lengths == [2, 32, 16, 2] && digits && *version != "ff";
    (formed && named).then(|| text.to_owned())
}

/// A request identifier as a header's value.
pub fn value(request: &RequestId) -> HeaderValue {
    // Identifiers are made of characters that every header may hold.
    HeaderValue::from_str(request.as_str()).unwrap_or(HeaderValue::from_static("-"))
}

/// `Server-Timing` (W3C) with durations in ms.
pub fn server_timing(timings: &Timings) -> HeaderValue {
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let text = format!(
        "queue;dur={:.3}, start;dur={:.3}, handler;dur={:.3}, exec;dur={:.3}",
        ms(timings.queue),
        ms(timings.start),
        ms(timings.handler),
        ms(timings.executed),
    );
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_trace_contexts_reach_a_guest() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, text.parse().unwrap());
            traceparent(&headers)
        };
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(read(good).as_deref(), Some(good));
        let no_trace = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let no_parent = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
        for bad in ["", "00-0af7-b7ad-01", &good.to_uppercase(), &good.replace('-', "_"), &format!("{good}-00")] {
            assert_eq!(read(bad), None, "{bad}");
        }
        for bad in [no_trace, no_parent, &good.replacen("00", "ff", 1)] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
