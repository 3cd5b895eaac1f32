//! Traces that make no request slower: a request only notes its span, pre-freeze sends all of them to a collector.
//!
//! Start an OTLP collector on port 4318 (or set `OTLP_ENDPOINT`), then
//! `curl -d work http://127.0.0.1:8080/invoke/tracing`. With a `traceparent` header the span joins the caller's trace.

use std::{cell::RefCell, env, hash::BuildHasher, hash::RandomState, time::Duration, time::SystemTime};

use dormouse_sdk::{Context, Function, Result, http, sleep};
use serde_json::{Value, json};

#[derive(Default)]
struct Tracing(RefCell<Vec<Value>>);

impl Function for Tracing {
    type Event = String;
    type Reply = String;

    async fn initialize(_: &Context) -> Result<Self> {
        Ok(Tracing::default())
    }

    async fn handle(&self, ctx: &Context, name: String) -> Result<String> {
        // version-trace-parent-flags, as in 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.
        let mut caller = ctx.traceparent.as_deref().unwrap_or_default().split('-').skip(1);
        let trace = caller.next().map_or_else(|| random() + &random(), str::to_owned);
        let (parent, start) = (caller.next().unwrap_or_default(), now());
        sleep(Duration::from_millis(5)).await; // The work that is traced.
        let span = json!({
            "traceId": trace, "spanId": random(), "parentSpanId": parent, "name": name, "kind": 2,
            "startTimeUnixNano": start, "endTimeUnixNano": now(),
        });
        self.0.borrow_mut().push(span);
        Ok(trace)
    }

    async fn pre_freeze(&self, ctx: &Context) {
        let spans = self.0.take();
        if let Err(error) = send(&ctx.function, &spans).await {
            eprintln!("{} spans wait for the next freeze: {error}", spans.len());
            let newest = spans.len().saturating_sub(10_000); // A collector that stays away must not cost all memory.
            self.0.borrow_mut().splice(0..0, spans.into_iter().skip(newest));
        }
    }

    async fn pre_stop(&self, ctx: &Context) {
        self.pre_freeze(ctx).await;
    }
}

/// Sends spans in OpenTelemetry's wire format; an error unless the collector has taken all of them.
async fn send(service: &str, spans: &[Value]) -> Result<()> {
    let endpoint = env::var("OTLP_ENDPOINT").unwrap_or_else(|_| "http://127.0.0.1:4318/v1/traces".into());
    let resource = json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": service } }] });
    let batch = json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "spans": spans }] }] });
    let request = http::Request::post(endpoint).json(&batch)?.timeout(Duration::from_secs(2));
    let accepted = spans.is_empty() || request.send().await?.is_success();
    if accepted { Ok(()) } else { Err("the collector refused them".into()) }
}

fn random() -> String {
    format!("{:016x}", RandomState::new().hash_one(())) // Each `RandomState` has keys of its own.
}

fn now() -> String {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

dormouse_sdk::export!(Tracing);

#[cfg(test)]
mod tests;
