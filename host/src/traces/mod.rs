//! Traces: what became of a request as spans, for collectors of OpenTelemetry.
//!
//! A request that is sampled carries an [`OpenSpan`] on its way. When it ends, its span and those of its parts are made from what was
//! measured anyhow, so that the others pay for nothing but the decision. What the request's function sends is told a
//! [`Parent`], whose children its outgoing requests are. Hooks have spans of their own ([`HookSpan`]), linked to the requests that
//! they follow. A thread of the OpenTelemetry library sends all of them (`export.rs`).

mod context;
mod export;
mod span;

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::{SpanId, TraceId};
use uuid::Uuid;

use self::export::Sender;
use crate::chance;
use crate::ids::FunctionName;

pub use context::{TRACEPARENT, TRACESTATE, TraceContext};
pub use export::{Protocol, TracesConfig};
pub use span::{Course, Followed, HookSpan, OpenSpan, Outgoing};

/// Where spans go; cheap to clone. By default nowhere: the host leaves the traces of others alone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Sender>>);

/// What the call of a function continues; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// What the function is told; none: its request came without one, and is not sampled.
    pub context: Option<TraceContext>,
    /// The span whose children the function's own requests are; none: the request is not sampled.
    pub parent: Option<Parent>,
    /// The host has decided that the request is not sampled, so those that are called for it need not ask themselves.
    pub is_left_out: bool,
}

/// A span that others may be children of.
#[derive(Clone, Debug)]
pub struct Parent {
    sender: Arc<Sender>,
    trace: TraceId,
    span: SpanId,
}

impl Traces {
    /// Sends spans as the configuration says; without one, nowhere.
    pub fn open(config: Option<&TracesConfig>) -> anyhow::Result<Traces> {
        Ok(Traces(config.map(Sender::open).transpose()?.map(Arc::new)))
    }

    /// Begins the span of a function's call if it is sampled: as the caller has done, or else with the share that is configured.
    pub fn begin(
        &self,
        caller: Option<TraceContext>,
        function: &FunctionName,
        began: SystemTime,
    ) -> (Trace, Option<OpenSpan>) {
        let Some(sender) = &self.0 else { return (Trace { context: caller, ..Trace::default() }, None) };
        let sampled = match &caller {
            Some(context) => context.is_sampled(),
            None => chance::drawn() < sender.ratio,
        };
        if !sampled {
            // The function is told nothing new: a text that it must make room for would cost most requests more than all of this.
            return (Trace { context: caller, parent: None, is_left_out: true }, None);
        }
        let trace = caller.as_ref().map_or_else(new_trace, TraceContext::trace);
        let (parent, state) = (caller.as_ref().map(TraceContext::span), caller.and_then(|context| context.tracestate));
        let above = Parent { sender: sender.clone(), trace, span: new_span() };
        let context = Some(TraceContext::of(trace, above.span, state));
        let open = OpenSpan::new(above.clone(), parent, function, began);
        (Trace { context, parent: Some(above), is_left_out: false }, Some(open))
    }

    /// Sends what is not sent yet; gives up after a while.
    pub fn close(&self) {
        if let Some(sender) = &self.0 {
            sender.close();
        }
    }
}

fn new_trace() -> TraceId {
    TraceId::from(Uuid::new_v4().as_u128())
}

fn new_span() -> SpanId {
    // Neither half of a version 4 UUID is all zeros.
    SpanId::from(Uuid::new_v4().as_u64_pair().1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const CALLERS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";

    fn begun(ratio: f64, caller: Option<&str>) -> (Trace, Option<OpenSpan>) {
        let traces = Traces(Some(Arc::new(Sender::for_tests(ratio).0)));
        let caller = caller.map(|text| TraceContext::parse(text, Some("a=1")).unwrap());
        traces.begin(caller, &"f".parse().unwrap(), clock::date())
    }

    #[test]
    fn a_caller_decides_whether_its_requests_are_sampled() {
        for ratio in [0.0, 1.0] {
            let sampled = format!("{CALLERS}1");
            let (trace, span) = begun(ratio, Some(&sampled));
            let context = trace.context.unwrap();
            assert!(span.is_some() && trace.parent.is_some() && context.is_sampled());
            assert_eq!(context.traceparent[..36], sampled[..36], "the trace goes on");
            assert_ne!(*context.traceparent, *sampled, "its parent is the handler");
            assert_eq!(context.tracestate.as_deref(), Some("a=1"));
            let unsampled = format!("{CALLERS}0");
            let (trace, span) = begun(ratio, Some(&unsampled));
            assert!(span.is_none() && trace.parent.is_none());
            assert_eq!(*trace.context.unwrap().traceparent, *unsampled);
        }
    }

    #[test]
    fn without_a_caller_who_decides_it_is_drawn() {
        let (trace, span) = begun(0.0, None);
        assert!(span.is_none() && trace.context.is_none() && trace.is_left_out);
        let (trace, span) = begun(1.0, None);
        assert!(span.is_some() && trace.context.unwrap().is_sampled());
        let sampled = (0..2000).filter(|_| begun(0.25, None).1.is_some()).count();
        assert!((400..600).contains(&sampled), "{sampled} of 2000 are about a quarter");
    }

    #[test]
    fn a_host_that_traces_nothing_passes_on_what_came() {
        let caller = TraceContext::parse(&format!("{CALLERS}1"), None);
        let (trace, span) = Traces::default().begin(caller.clone(), &"f".parse().unwrap(), clock::date());
        assert!(span.is_none() && trace.parent.is_none() && trace.context == caller);
        assert_eq!(Traces::default().begin(None, &"f".parse().unwrap(), clock::date()).0.context, None);
    }
}
