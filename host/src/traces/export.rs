//! Sending spans: OTLP over gRPC or HTTP, by the OpenTelemetry library and its thread.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanProcessor as _};
use opentelemetry_sdk::{Resource, trace};
use serde::Deserialize;

/// How long the end of the host waits for the last spans to be sent.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// How spans are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
pub enum Protocol {
    /// OTLP over gRPC, usually on port 4317.
    #[default]
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP over HTTP with protocol buffers, usually on port 4318.
    #[serde(rename = "http/protobuf")]
    #[value(name = "http/protobuf")]
    Http,
}

/// Where spans go, and which.
#[derive(Clone, Debug)]
pub struct TracesConfig {
    /// The collector's address.
    pub endpoint: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// The share of requests that are sampled whose callers do not decide.
    pub ratio: f64,
}

/// Sends spans from a thread of its own.
pub(super) struct Sender {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    pub(super) ratio: f64,
}

impl Sender {
    /// Must be called where there is a runtime of tokio, which gRPC uses.
    pub(super) fn open(config: &TracesConfig) -> anyhow::Result<Sender> {
        let endpoint = config.endpoint.trim_end_matches('/');
        let exporter = match config.protocol {
            Protocol::Grpc => SpanExporter::builder().with_tonic().with_endpoint(endpoint).build(),
            Protocol::Http => {
                // The specification appends this to the address of all signals.
                let endpoint = format!("{endpoint}/v1/traces");
                let client = http_client().context("make a client for traces")?;
                SpanExporter::builder().with_http().with_http_client(client).with_endpoint(endpoint).build()
            }
        };
        let exporter = exporter.with_context(|| format!("`otlp-endpoint` is `{endpoint}`"))?;
        Ok(Sender::new(Reporting { exporter, failed: AtomicBool::new(false) }, config.ratio))
    }

    fn new(exporter: impl trace::SpanExporter + 'static, ratio: f64) -> Sender {
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("dormouse");
        }
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource.build());
        let scope = InstrumentationScope::builder("dormouse").with_version(env!("CARGO_PKG_VERSION")).build();
        Sender { processor, scope, ratio }
    }

    /// Spans that come faster than they can be sent are dropped.
    pub(super) fn send(&self, span: SpanData) {
        self.processor.on_end(span);
    }

    pub(super) fn scope(&self) -> InstrumentationScope {
        self.scope.clone()
    }

    pub(super) fn close(&self) {
        if let Err(error) = self.processor.shutdown_with_timeout(CLOSE_WITHIN) {
            tracing::warn!("the last traces were not sent: {error}");
        }
    }

    /// A sender whose spans can be read.
    #[cfg(test)]
    pub(super) fn for_tests(ratio: f64) -> (Sender, Collected) {
        let collected = Collected::default();
        (Sender::new(collected.clone(), ratio), collected)
    }

    #[cfg(test)]
    pub(super) fn flush(&self) {
        self.processor.force_flush().unwrap();
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// A client that blocks: the library's thread knows no runtime, and such a client cannot be made where there is one.
fn http_client() -> anyhow::Result<reqwest::blocking::Client> {
    let make = || {
        // Fails if it was done before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::blocking::Client::builder().build()
    };
    let made = thread::spawn(make).join().map_err(|_| anyhow::anyhow!("it panicked"))?;
    Ok(made?)
}

/// Keeps spans.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(super) struct Collected(pub(super) std::sync::Arc<std::sync::Mutex<Vec<SpanData>>>);

#[cfg(test)]
impl trace::SpanExporter for Collected {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

/// Says once that spans cannot be sent, and once that they can be sent again.
#[derive(Debug)]
struct Reporting {
    exporter: SpanExporter,
    failed: AtomicBool,
}

impl trace::SpanExporter for Reporting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        let failed_before = self.failed.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !failed_before => {
                tracing::warn!("traces cannot be sent and are dropped until they can: {error}");
            }
            Ok(()) if failed_before => tracing::info!("traces are sent again"),
            Err(_) | Ok(()) => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
