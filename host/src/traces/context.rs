//! W3C Trace Context: how a request says whose child it is (<https://www.w3.org/TR/trace-context/>).

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use opentelemetry::{SpanId, TraceId};

/// The field that carries the context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The field of what tracing systems pass to each other beside it.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The length of a `traceparent` of version 00, the only one there is (section 3.2).
const TRACEPARENT_BYTES: usize = 55;
/// How long a `tracestate` may be. Longer ones may be dropped (section 3.3.1.5).
const TRACESTATE_BYTES_MAX: usize = 512;
/// The flag that says that the caller has sampled its span.
const SAMPLED: u8 = 1;

/// Whose child a request is. Both texts have the form that the specification gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// `00-<trace>-<span>-<flags>`, all in hexadecimal digits.
    pub traceparent: Arc<str>,
    /// What tracing systems pass to each other beside it.
    pub tracestate: Option<Arc<str>>,
}

impl TraceContext {
    /// The context that a request's fields carry, if it has the form of one.
    pub fn of_fields(fields: &HeaderMap) -> Option<TraceContext> {
        let text = |name: &HeaderName| fields.get(name)?.to_str().ok();
        TraceContext::parse(text(&TRACEPARENT)?, text(&TRACESTATE))
    }

    /// The context of these texts, unless `traceparent` has not the form of one.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<TraceContext> {
        // A later version may have more parts (section 3.2.3); this host goes on with those that it knows.
        let is_later = !traceparent.starts_with("00-") && traceparent.as_bytes().get(TRACEPARENT_BYTES) == Some(&b'-');
        let traceparent = if is_later { traceparent.get(..TRACEPARENT_BYTES)? } else { traceparent };
        let parts: Vec<&str> = traceparent.split('-').collect();
        let [version, trace, parent, flags] = parts.as_slice() else { return None };
        let lengths = [version.len(), trace.len(), parent.len(), flags.len()];
        let is_digit = |byte: u8| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let named = [trace, parent].iter().all(|id| id.bytes().any(|digit| digit != b'0'));
        // Version `ff` is the one that will never be.
        let formed = lengths == [2, 32, 16, 2] && traceparent.bytes().all(is_digit) && *version != "ff";
        let passed = |state: &&str| !state.is_empty() && state.len() <= TRACESTATE_BYTES_MAX && state.is_ascii();
        let own = || if is_later { format!("00{}", &traceparent[2..]).into() } else { traceparent.into() };
        (formed && named)
            .then(|| TraceContext { traceparent: own(), tracestate: tracestate.filter(passed).map(Arc::from) })
    }

    /// The context of a span, which is sampled.
    pub(super) fn of(trace: TraceId, span: SpanId, tracestate: Option<Arc<str>>) -> TraceContext {
        let traceparent = format!("00-{trace}-{span}-{SAMPLED:02x}").into();
        TraceContext { traceparent, tracestate }
    }

    /// The trace.
    pub(super) fn trace(&self) -> TraceId {
        TraceId::from_hex(&self.traceparent[3..35]).unwrap_or(TraceId::INVALID)
    }

    /// The span of it that is the caller.
    pub(super) fn span(&self) -> SpanId {
        SpanId::from_hex(&self.traceparent[36..52]).unwrap_or(SpanId::INVALID)
    }

    /// Whether the caller has sampled its span.
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(&self.traceparent[53..], 16).is_ok_and(|flags| flags & SAMPLED != 0)
    }

    /// The `traceparent` of another span of the trace, with the flags of this one.
    pub fn beside(&self, span: u64) -> String {
        format!("{}{span:016x}{}", &self.traceparent[..36], &self.traceparent[52..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn only_what_has_the_form_is_a_context() {
        let context = TraceContext::parse(GOOD, Some("a=1,b=2")).unwrap();
        assert!(context.is_sampled() && context.tracestate.as_deref() == Some("a=1,b=2"));
        assert_eq!(TraceContext::of(context.trace(), context.span(), context.tracestate.clone()), context);
        assert_eq!(context.beside(0xa), GOOD.replace("b7ad6b7169203331", "000000000000000a"));
        assert!(!TraceContext::parse(&GOOD.replace("-01", "-02"), None).unwrap().is_sampled());
        assert!(TraceContext::parse(&GOOD.replace("-01", "-03"), None).unwrap().is_sampled());
        let later = TraceContext::parse(&format!("cc{}-more", &GOOD[2..]), None).unwrap();
        assert_eq!(*later.traceparent, *GOOD, "what is known of a later version goes on");
        for wrong in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replace("00-", "ff-"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace("-01", "-1"),
            &GOOD.replace("-01", "-0g"),
            &format!("{GOOD}-00"),
            &GOOD.replace('-', "0"),
        ] {
            assert_eq!(TraceContext::parse(wrong, None), None, "{wrong}");
        }
        for state in ["", "ä=1", &"a".repeat(513)] {
            assert_eq!(TraceContext::parse(GOOD, Some(state)).unwrap().tracestate, None, "{state}");
        }
    }
}
