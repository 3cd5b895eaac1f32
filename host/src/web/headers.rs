//! Header fields that Dormouse reads and writes.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::Bytes;

use crate::ids::RequestId;
use crate::instance::Timings;

/// On every reply: the request's identifier.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("dormouse-request-id");
/// On replies of functions: `cold`, `parked` or `active`.
pub const START: HeaderName = HeaderName::from_static("dormouse-start");
/// On requests: `sync` or `async`.
pub const INVOCATION_TYPE: HeaderName = HeaderName::from_static("dormouse-invocation-type");
/// On asynchronous requests and their replies: the identifier of the invocation.
pub const INVOCATION_ID: HeaderName = HeaderName::from_static("dormouse-invocation-id");
/// On requests: those with the same value stay on one side of an alias with weights.
pub const AFFINITY: HeaderName = HeaderName::from_static("dormouse-affinity");
/// On deployments: a JSON merge patch for the function's configuration.
pub const SETTINGS: HeaderName = HeaderName::from_static("dormouse-settings");
/// On replies of functions: where the time went.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Fields that Dormouse writes into a function's reply, and hyper's own.
pub const REPLY_FIELDS: usize = 6;
const CALLERS_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Room for a `Server-Timing` of durations below a thousand seconds.
const SERVER_TIMING_BYTES: usize = 88;

/// The caller's own identifier if it sent a sane one, else a new one.
pub fn request_id(headers: &HeaderMap) -> RequestId {
    let own = headers.get(CALLERS_REQUEST_ID).and_then(|value| value.to_str().ok()).and_then(RequestId::from_caller);
    own.unwrap_or_default()
}

/// The token of `Authorization: Bearer TOKEN`, if the field is there once. The scheme may be written in any case (RFC 9110,
/// section 11.1).
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// A request identifier as a header's value.
pub fn value(request: &RequestId) -> HeaderValue {
    // Identifiers are made of characters that every header may hold.
    HeaderValue::from_str(request.as_str()).unwrap_or(HeaderValue::from_static("-"))
}

/// `Server-Timing` (W3C) with durations in ms.
pub fn server_timing(timings: &Timings) -> HeaderValue {
    let mut text = Vec::with_capacity(SERVER_TIMING_BYTES);
    for (name, duration) in [
        ("queue;dur=", timings.queue),
        (", start;dur=", timings.start),
        (", handler;dur=", timings.handler),
        (", exec;dur=", timings.executed),
    ] {
        text.extend_from_slice(name.as_bytes());
        push_ms(&mut text, duration);
    }
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}

/// Writes ms with three decimals. It is on every reply, and formatting floats takes longer than a small function runs.
fn push_ms(text: &mut Vec<u8>, duration: Duration) {
    // In 64 bits: division of 128 is a loop.
    let below = u64::from(duration.subsec_nanos() + 500) / 1000;
    let micros = duration.as_secs().saturating_mul(1_000_000).saturating_add(below);
    let mut digits = [b'0'; 24];
    let (mut rest, mut at) = (micros, digits.len());
    while rest > 0 || at > digits.len() - 4 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let (whole, decimals) = digits[at..].split_at(digits.len() - at - 3);
    text.extend_from_slice(whole);
    text.push(b'.');
    text.extend_from_slice(decimals);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_ms_with_three_decimals() {
        for (nanos, text) in [
            (0, "0.000"),
            (499, "0.000"),
            (500, "0.001"),
            (41_499, "0.041"),
            (999_999, "1.000"),
            (1_000_000, "1.000"),
            (86_400_000_123_456, "86400000.123"),
        ] {
            let mut written = Vec::new();
            push_ms(&mut written, Duration::from_nanos(nanos));
            assert_eq!(String::from_utf8(written).unwrap(), text, "{nanos} ns");
        }
        let mut longest = Vec::new();
        push_ms(&mut longest, Duration::MAX);
        assert_eq!(longest, (u64::MAX / 1000).to_string().into_bytes().into_iter().chain(*b".615").collect::<Vec<_>>());
    }

    #[test]
    fn a_token_is_taken_from_the_one_field_that_has_it() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        for good in ["Bearer secret", "bearer secret", "BEARER  secret"] {
            assert_eq!(read(&[good]).as_deref(), Some("secret"), "{good}");
        }
        for bad in [&["secret"][..], &["Basic secret"], &["Bearersecret"], &[], &["Bearer secret", "Bearer secret"]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
