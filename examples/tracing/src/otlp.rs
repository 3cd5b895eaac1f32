//! As much of OpenTelemetry's wire format (OTLP/HTTP with JSON) as one kind of span needs.

use std::{
    env,
    hash::{BuildHasher, RandomState},
    time::{Duration, SystemTime},
};

use dormouse_sdk::{Result, http};
use serde::Serialize;
use serde_json::json;

/// A span of a server's work. The JSON mapping of OTLP wants times as text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Span {
    pub(crate) trace_id: String,
    span_id: String,
    parent_span_id: String,
    name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
}

impl Span {
    /// Starts a span in the caller's trace, or in a new one if the caller has none.
    pub(crate) fn start(name: String, traceparent: Option<&str>) -> Self {
        // version-trace-parent-flags, as in 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.
        let mut caller = traceparent.unwrap_or_default().split('-').skip(1).map(str::to_owned);
        Span {
            trace_id: caller.next().unwrap_or_else(|| random_hex() + &random_hex()),
            span_id: random_hex(),
            parent_span_id: caller.next().unwrap_or_default(),
            name,
            kind: 2, // A server's.
            start_time_unix_nano: now(),
            end_time_unix_nano: String::new(),
        }
    }

    pub(crate) fn end(&mut self) {
        self.end_time_unix_nano = now();
    }
}

/// Sends spans to the collector. Either it has taken all of them, or this is an error.
pub(crate) async fn send(service: &str, spans: &[Span]) -> Result<()> {
    if spans.is_empty() {
        return Ok(());
    }
    let endpoint = env::var("OTLP_ENDPOINT").unwrap_or_else(|_| "http://127.0.0.1:4318/v1/traces".into());
    let resource = json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": service } }] });
    let scope = json!({ "scope": { "name": "dormouse-example" }, "spans": spans });
    let batch = json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [scope] }] });
    // Shorter than the hook's own timeout, so that a slow collector costs no more than this attempt.
    let response = http::Request::post(endpoint).json(&batch)?.timeout(Duration::from_secs(2)).send().await?;
    if !response.is_success() {
        return Err(format!("the collector answered {}", response.status).into());
    }
    Ok(())
}

/// 64 random bits: each `RandomState` has keys of its own.
fn random_hex() -> String {
    format!("{:016x}", RandomState::new().hash_one(()))
}

fn now() -> String {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}
