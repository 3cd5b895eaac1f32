//! Traces that make no request slower: a request only notes its span, pre-freeze sends all of them to a collector.
//!
//! Start an OTLP collector on port 4318 (or set `OTLP_ENDPOINT`), then
//! `curl -d work http://127.0.0.1:8080/invoke/tracing`. With a `traceparent` header the span joins the caller's trace.
//! While the collector is away, spans wait for the next freeze.

mod otlp;

use std::{cell::RefCell, time::Duration};

use dormouse_sdk::{Context, Function, Result, sleep};

/// The newest spans that are kept for a collector that does not answer.
const SPANS_MAX: usize = 10_000;

struct Tracing {
    spans: RefCell<Vec<otlp::Span>>,
}

impl Function for Tracing {
    type Event = String;
    type Reply = String;

    async fn initialize(_: &Context) -> Result<Self> {
        Ok(Tracing { spans: RefCell::default() })
    }

    async fn handle(&self, ctx: &Context, event: String) -> Result<String> {
        let mut span = otlp::Span::start(event, ctx.traceparent.as_deref());
        sleep(Duration::from_millis(5)).await; // The work that is traced.
        span.end();
        let trace_id = span.trace_id.clone();
        self.spans.borrow_mut().push(span);
        Ok(trace_id)
    }

    async fn pre_freeze(&self, ctx: &Context) {
        let mut spans = self.spans.take();
        if let Err(error) = otlp::send(&ctx.function, &spans).await {
            eprintln!("{} spans wait for the next freeze: {error}", spans.len());
            // Requests may have come meanwhile; theirs are the newest.
            spans.append(&mut self.spans.borrow_mut());
            self.spans.replace(spans.split_off(spans.len().saturating_sub(SPANS_MAX)));
        }
    }

    async fn pre_stop(&self, ctx: &Context) {
        self.pre_freeze(ctx).await;
    }
}

dormouse_sdk::export!(Tracing);

#[cfg(test)]
mod tests;
