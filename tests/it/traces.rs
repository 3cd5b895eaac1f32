//! Traces of requests at a collector: spans of a request and its parts, of what it sends, of the function's own work, and of hooks.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

use crate::support::{Collector, Kind, Reply, TestHost, TestServer, attribute, eventually, over_kinds};

over_kinds! {
    calls: [
        a_request_that_calls_out_is_one_connected_trace,
    ],
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn context(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A host that sends its traces to the collector every few milliseconds.
async fn traced(collector: &Collector, flags: &[&str]) -> TestHost {
    let mut host = TestHost::builder()
        .flag(&format!("--otlp-endpoint=http://{}", collector.address))
        .variable("OTEL_BSP_SCHEDULE_DELAY", "20");
    for flag in flags {
        host = host.flag(flag);
    }
    host.start().await
}

fn is_child(child: &Span, parent: &Span) {
    assert_eq!(hex(&child.parent_span_id), hex(&parent.span_id), "{} is not a child of {}", child.name, parent.name);
    assert_eq!(child.trace_id, parent.trace_id);
    assert!(child.start_time_unix_nano <= child.end_time_unix_nano, "{child:?}");
}

async fn a_request_that_calls_out_is_one_connected_trace(kind: Kind) {
    for flags in [&[][..], &["--otlp-protocol=http/protobuf"]] {
        let collector = Collector::start().await;
        let host = traced(&collector, flags).await;
        let server = TestServer::start("hello", Duration::ZERO).await;
        let settings = json!({"allowedOutboundHosts": ["127.0.0.1"], "freezeAfterMs": 0});
        let function = kind.deploy(&host, "caller", settings).await;
        let get = json!({"http-get": format!("http://{}/path?secret=1", server.address)});
        let event = json!({"do": [get]}).to_string();
        let request = function.request(event).header("traceparent", context("01")).header("tracestate", "vendor=1");
        let reply = Reply::of(request.send().await.unwrap()).await;
        assert_eq!(reply.status, 200, "{reply:?}");

        let freeze = collector.span("pre-freeze").await;
        let request = collector.span("caller").await;
        let (handler, outgoing) = (collector.span("handler").await, collector.span("GET").await);
        assert_eq!((hex(&request.trace_id), hex(&request.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
        for part in [&collector.span("queue").await, &collector.span("start").await, &handler] {
            is_child(part, &request);
        }
        is_child(&outgoing, &handler);
        let sent = &server.received()[0];
        let told = format!("00-{TRACE}-{}-01", hex(&outgoing.span_id));
        assert_eq!((sent.field("traceparent"), sent.field("tracestate")), (told.as_str(), "vendor=1"));

        for hook in [&collector.span("initializer").await, &freeze] {
            assert_ne!(hook.trace_id, request.trace_id, "a hook has a trace of its own");
            let [link] = hook.links.as_slice() else { panic!("{hook:?}") };
            assert_eq!((&link.trace_id, &link.span_id), (&request.trace_id, &request.span_id));
        }

        for (name, value) in [
            ("faas.trigger", "http"),
            ("faas.version", "LATEST"),
            ("faas.coldstart", "true"),
            ("dormouse.function", "caller"),
            ("dormouse.start", "cold"),
            ("dormouse.code", "ok"),
            ("faas.invocation_id", reply.header("dormouse-request-id")),
        ] {
            assert_eq!(attribute(&request, name), value, "{name} of {request:?}");
        }
        assert_eq!(attribute(&outgoing, "url.path"), "/path", "what stands in a query may be a secret");
        assert_eq!(attribute(&outgoing, "http.response.status_code"), "200");
        assert!(collector.services().iter().all(|service| service == "dormouse"), "{:?}", collector.services());
        function.reaches("parked").await;
        function.script(json!([])).await.results();
        let thaw = collector.span("thaw").await;
        let thawed = eventually("the request that was thawed for", async || {
            let spans = collector.spans();
            spans.into_iter().find(|span| span.span_id == thaw.parent_span_id).ok_or("not there".to_owned())
        })
        .await;
        assert_eq!((thawed.name.as_str(), attribute(&thawed, "dormouse.start").as_str()), ("caller", "parked"));
    }
}

#[tokio::test]
async fn spans_of_the_function_itself_join_the_trace_and_those_of_a_hook_the_hooks() {
    let collector = Collector::start().await;
    let host = traced(&collector, &[]).await;
    let endpoint = format!("http://{}/v1/traces", collector.address);
    let settings =
        json!({"allowedOutboundHosts": ["127.0.0.1"], "environment": {"OTLP_ENDPOINT": endpoint}, "freezeAfterMs": 0});
    let tracing = host.deploy("tracing", "example-tracing", settings).await;
    let request = tracing.request("work of the guest").header("traceparent", context("01"));
    assert_eq!(request.send().await.unwrap().text().await.unwrap(), TRACE);
    // The function sends its own spans in pre-freeze.
    is_child(&collector.span("work of the guest").await, &collector.span("handler").await);
    is_child(&collector.span("POST").await, &collector.span("pre-freeze").await);
}

#[tokio::test]
async fn a_caller_decides_and_else_the_share_that_is_configured() {
    let collector = Collector::start().await;
    let host = traced(&collector, &["--trace-ratio=0"]).await;
    let server = TestServer::start("hello", Duration::ZERO).await;
    let probe = host.deploy("probe", "guest-probe", json!({"allowedOutboundHosts": ["127.0.0.1"]})).await;
    let told = async |flags: Option<&str>| {
        let mut request = probe.request(json!({"do": ["context"]}).to_string());
        if let Some(flags) = flags {
            request = request.header("traceparent", context(flags));
        }
        Reply::of(request.send().await.unwrap()).await.results()[0]["traceparent"].clone()
    };
    assert_eq!(told(Some("00")).await, context("00"), "what is not sampled is passed on");
    assert_eq!(told(None).await, Value::Null);
    probe.script(json!([{"http-get": format!("http://{}/", server.address)}])).await.results();
    assert!(
        server.received()[0].field("traceparent").ends_with("-00"),
        "those that it calls learn that it is not sampled"
    );
    let sampled = told(Some("01")).await;
    let sampled = sampled.as_str().unwrap();
    assert!(sampled.starts_with(&format!("00-{TRACE}-")) && sampled.ends_with("-01") && sampled != context("01"));
    let handler = collector.span("handler").await;
    assert_eq!(
        sampled,
        format!("00-{TRACE}-{}-01", hex(&handler.span_id)),
        "its own spans are children of the handler"
    );
    let count = |name: &str| collector.spans().iter().filter(|span| span.name == name).count();
    assert_eq!((count("probe"), count("handler")), (1, 1));
}

#[tokio::test]
async fn what_failed_and_what_was_refused_is_said_in_its_span() {
    let collector = Collector::start().await;
    let host = traced(&collector, &[]).await;
    let settings = json!({"maxInstances": 1, "queueDepth": 0, "allowedOutboundHosts": ["127.0.0.1"]});
    let probe = host.deploy("probe", "guest-probe", settings).await;
    probe.script(json!([{"error": "on purpose"}])).await;
    let of_code = async |code: &str| -> Span {
        eventually(&format!("a span with {code}"), async || {
            let spans = collector.spans();
            let codes: Vec<String> = spans.iter().map(|span| attribute(span, "dormouse.code")).collect();
            spans.into_iter().find(|span| attribute(span, "error.type") == code).ok_or(format!("{codes:?}"))
        })
        .await
    };
    let failed = of_code("function-failed").await;
    assert_eq!(failed.status.unwrap().message, "function-failed");
    let gate = crate::support::Gate::closed().await;
    let busy = probe.script_in_background(json!([gate.step()]));
    let held = gate.arrival().await;
    probe.script(json!([])).await.problem(429, "function-busy");
    of_code("function-busy").await;
    held.release().await;
    busy.await.unwrap().results();
    // Nobody listens there.
    probe.script(json!([{"http-get": "http://127.0.0.1:1/"}])).await;
    let refused = eventually("the span of what was not answered", async || {
        let spans = collector.spans();
        let ports: Vec<String> = spans.iter().map(|span| attribute(span, "server.port")).collect();
        spans.into_iter().find(|span| attribute(span, "server.port") == "1").ok_or(format!("{ports:?}"))
    })
    .await;
    assert!(!attribute(&refused, "error.type").is_empty(), "{refused:?}");
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_no_request_anything_and_is_said_once() {
    let host = TestHost::builder()
        .flag("--otlp-endpoint=http://127.0.0.1:1")
        .variable("OTEL_BSP_SCHEDULE_DELAY", "20")
        .start()
        .await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    for _ in 0..3 {
        probe.script(json!([])).await.results();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("the log says it", async || match host.log().matches("traces cannot be sent").count() {
        1 => Ok(()),
        other => Err(format!("{other} times: {}", host.log())),
    })
    .await;
    host.signal(rustix::process::Signal::TERM);
    assert!(host.ended().await.0.success(), "the host ends in order");
}

#[tokio::test]
async fn settings_of_traces_are_checked() {
    for (flags, wrong) in [
        (&["--otlp-endpoint=somewhere"][..], "`http://127.0.0.1:4317`"),
        (&["--trace-ratio=0.5"], "`otlp-endpoint`"),
        (&["--otlp-endpoint=http://127.0.0.1:4317", "--trace-ratio=2"], "0 to 1"),
    ] {
        let output = crate::support::dormouse().arg("serve").args(flags).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(wrong), "{flags:?}: {said}");
    }
}
