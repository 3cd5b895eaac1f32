//! A collector of traces: OTLP's own service over gRPC, and its address over HTTP with protocol buffers and with JSON.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

use super::eventually;

/// A collector that keeps what it got.
#[derive(Clone)]
pub(crate) struct Collector {
    /// Its address, without a scheme.
    pub(crate) address: String,
    received: Received,
}

#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn over_http(State(received): State<Received>, fields: HeaderMap, body: Bytes) -> StatusCode {
    let is_json = fields.get("content-type").is_some_and(|kind| kind == "application/json");
    let read = if is_json {
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    } else {
        ExportTraceServiceRequest::decode(body).map_err(|error| error.to_string())
    };
    match read {
        Ok(request) => {
            received.0.lock().unwrap().push(request);
            StatusCode::OK
        }
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

impl Collector {
    pub(crate) async fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let received = Received::default();
        let router = Router::new().route("/v1/traces", post(over_http)).with_state(received.clone()).route_service(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            TraceServiceServer::new(received.clone()),
        );
        tokio::spawn(async move { axum::serve(listener, router).await });
        Collector { address, received }
    }

    /// All spans that came.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let received = self.received.0.lock().unwrap();
        let scopes = received.iter().flat_map(|request| &request.resource_spans).flat_map(|of| &of.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The names of the services that have sent spans.
    pub(crate) fn services(&self) -> Vec<String> {
        let received = self.received.0.lock().unwrap();
        let resources =
            received.iter().flat_map(|request| &request.resource_spans).filter_map(|of| of.resource.as_ref());
        let names = resources.flat_map(|resource| &resource.attributes).filter(|pair| pair.key == "service.name");
        names.filter_map(|pair| text(pair.value.as_ref()?.value.as_ref()?)).collect()
    }

    /// Waits for a span of this name.
    pub(crate) async fn span(&self, name: &str) -> Span {
        eventually(&format!("a span `{name}`"), async || {
            let spans = self.spans();
            let names: Vec<String> = spans.iter().map(|span| span.name.clone()).collect();
            spans.into_iter().find(|span| span.name == name).ok_or(format!("{names:?}"))
        })
        .await
    }
}

/// An attribute of a span as text; nothing if it is not there.
pub(crate) fn attribute(span: &Span, name: &str) -> String {
    let pair = span.attributes.iter().find(|pair| pair.key == name);
    pair.and_then(|pair| text(pair.value.as_ref()?.value.as_ref()?)).unwrap_or_default()
}

fn text(value: &Any) -> Option<String> {
    match value {
        Any::StringValue(text) => Some(text.clone()),
        Any::BoolValue(value) => Some(value.to_string()),
        Any::IntValue(value) => Some(value.to_string()),
        Any::DoubleValue(value) => Some(value.to_string()),
        _ => None,
    }
}
