//! HTTP functions: components of `wasi:http` as they are, under `/fn/{function}/{path}`. That their instances live like
//! those of event functions is what `freeze`, `lifecycle`, `timeouts` and `suspend` show; here is what only HTTP has.

use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::support::{Caller, Gate, Kind, Reply, TestFunction, TestHost, eventually, over_kinds};

over_kinds! {
    both: [
        every_method_path_and_field_reaches_the_function,
        a_response_is_answered_as_it_is,
        what_is_written_at_once_leaves_whole_and_with_its_length,
        callers_cannot_say_what_only_the_host_says,
        a_large_body_passes_in_either_direction_through_little_memory,
        server_sent_events_arrive_as_they_are_written,
        a_body_is_answered_while_it_is_still_sent,
        trailers_pass_in_either_direction,
        a_function_notices_that_its_caller_left,
        a_function_notices_that_its_caller_left_in_the_middle_of_a_body,
        a_request_is_in_flight_until_its_body_is_read,
        half_a_short_body_is_a_502_that_is_logged,
        half_a_long_body_breaks_off_and_is_logged,
        a_short_body_that_never_comes_is_a_504,
        a_body_that_is_longer_than_announced_is_told_so,
        a_status_says_what_follows_it,
        an_answer_is_not_lost_with_the_instance_that_gave_it,
        a_response_without_a_body_may_announce_one,
        a_status_that_ends_no_request_is_a_502_that_is_logged,
        an_invalid_header_is_refused_to_the_guest_and_logged_if_it_gives_up,
        an_error_is_a_failure,
        a_timeout_in_the_middle_of_a_body_breaks_it_off,
        an_instance_that_goes_breaks_its_bodies_off,
        a_request_that_follows_another_finds_the_same_instance,
        an_invocation_is_a_post_to_invoke,
    ]
}

async fn sent(request: reqwest::RequestBuilder) -> Reply {
    Reply::of(request.send().await.expect("the data plane answers")).await
}

/// The last line of the host in the function's log that has `text` in it.
async fn told(function: &TestFunction, text: &str) -> Value {
    function.logs(text, 1).await;
    let lines = function.lines().await;
    let line = lines.iter().rfind(|line| line["stream"] == "host" && line["text"].as_str().unwrap().contains(text));
    line.unwrap_or_else(|| panic!("no line of the host with {text:?}: {lines:?}")).clone()
}

async fn every_method_path_and_field_reaches_the_function(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({})).await;
    for method in ["GET", "POST", "DELETE", "BREW"] {
        let request = http.fetch(method, "/about/a%20b/..%2F?q=1&q=%26").header("x-one", "1").header("x-one", "2");
        let seen = sent(request).await.json();
        assert_eq!(seen["method"], method);
        assert_eq!(seen["path"], "/about/a%20b/..%2F?q=1&q=%26");
        assert_eq!(seen["authority"], host.data.strip_prefix("http://").unwrap());
        let ones = seen["fields"].as_array().unwrap().iter().filter(|field| field[0] == "x-one");
        assert_eq!(ones.map(|field| field[1].as_str().unwrap()).collect::<Vec<_>>(), ["1", "2"]);
    }
    assert_eq!(sent(http.fetch("GET", "")).await.status, 404, "the function's own answer to its path `/`");
    let unknown = sent(host.function("nobody").fetch("GET", "/")).await;
    unknown.problem(404, "function-not-found");
}

async fn a_response_is_answered_as_it_is(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({})).await;
    let reply = sent(http.fetch("GET", "/about").header("x-request-id", "mine")).await;
    assert_eq!(reply.status, 201);
    assert_eq!(reply.header("content-type"), "text/x-own; charset=latin-1");
    let many: Vec<_> = reply.headers.get_all("x-many").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(many, ["1", "2"]);
    assert_eq!((reply.start(), reply.header("dormouse-request-id")), ("cold", "mine"));
    assert!(reply.timing("handler") > 0.0 && reply.timing("exec") > 0.0, "{reply:?}");
}

async fn what_is_written_at_once_leaves_whole_and_with_its_length(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({})).await;
    for path in ["/about", "/status/200", "/status/404"] {
        // On a busy machine a time slice can end in the middle of writing: then the reply is streamed.
        let mut replies = Vec::new();
        while replies.len() < 20
            && replies.last().is_none_or(|reply: &Reply| !reply.header("transfer-encoding").is_empty())
        {
            replies.push(sent(http.fetch("GET", path)).await);
        }
        let reply = replies.last().unwrap();
        assert_eq!(reply.header("content-length"), reply.body.len().to_string(), "{path}: {reply:?}");
        assert_eq!(reply.headers.get("transfer-encoding"), None, "{path}");
    }
    let long = sent(http.fetch("GET", "/bytes/200000")).await;
    assert_eq!((long.body.len(), long.header("transfer-encoding")), (200_000, "chunked"));
}

async fn callers_cannot_say_what_only_the_host_says(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({"memoryMb": 96})).await;
    let request = http.fetch("GET", "/about").header("x-fc-request-id", "forged").header("x-fc-account-id", "root");
    // CGI and its like take the one for the other.
    let request = request.header("x_fc_request_id", "forged").header("x_forwarded_for", "6.6.6.6");
    let reply = sent(request).await;
    let seen = reply.json();
    let field = |name: &str| {
        let fields = seen["fields"].as_array().unwrap();
        fields.iter().filter(|field| field[0] == name).map(|field| field[1].clone()).collect::<Vec<_>>()
    };
    assert_eq!(field("x-fc-request-id"), [reply.header("dormouse-request-id")]);
    assert_eq!(field("x-fc-function-name"), ["http"]);
    assert_eq!(field("x-fc-function-memory"), ["96"]);
    assert_eq!(field("x-fc-control-path"), ["/http-invoke"]);
    for forged in ["x-fc-account-id", "x_fc_request_id", "x_forwarded_for"] {
        assert_eq!(field(forged), Vec::<Value>::new(), "{forged}");
    }
    // The initializer is a request in both kinds.
    sent(http.fetch("POST", "/initialize")).await.problem(404, "not-found");
    assert_eq!(http.lines_with("initializer ").await, 1, "the host called it, and nobody else");
}

async fn a_large_body_passes_in_either_direction_through_little_memory(kind: Kind) {
    const BYTES: usize = 256 << 20;
    const CHUNK: usize = 1 << 20;
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({"timeoutMs": 600_000})).await;
    sent(http.fetch("GET", "/about")).await;
    let before = host.memory_kib("VmHWM");
    let upload = futures::stream::iter((0..BYTES / CHUNK).map(|_| Ok::<_, std::io::Error>(vec![b'x'; CHUNK])));
    let counted = sent(http.fetch("POST", "/count").body(reqwest::Body::wrap_stream(upload))).await;
    assert_eq!(counted.json()["bytes"], BYTES);
    let download = http.fetch("GET", &format!("/bytes/{BYTES}")).send().await.unwrap();
    let mut chunks = download.bytes_stream();
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        bytes += chunk.expect("all of it comes").len();
    }
    assert_eq!(bytes, BYTES);
    let grown = host.memory_kib("VmHWM") - before;
    assert!(grown < 32 << 10, "the host grew by {grown} KiB");
}

async fn server_sent_events_arrive_as_they_are_written(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({"allowedOutboundHosts": ["127.0.0.1"]})).await;
    let gate = Gate::closed().await;
    let response = http.fetch("POST", "/events").body(gate.url()).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = response.bytes_stream();
    assert_eq!(events.next().await.unwrap().unwrap(), "data: first\n\n");
    // The function writes the last one after it passed the gate.
    gate.arrival().await.release().await;
    assert_eq!(events.next().await.unwrap().unwrap(), "data: last\n\n");
    assert!(events.next().await.is_none());
}

async fn a_body_is_answered_while_it_is_still_sent(kind: Kind) {
    let host = TestHost::start().await;
    kind.deploy(&host, "http", json!({})).await;
    let mut caller = Caller::connect(&host.data).await;
    caller.write("POST /fn/http/echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for part in ["one", "two", "three"] {
        caller.write(format!("{:x}\r\n{part}\r\n", part.len())).await;
        caller.read_to(part).await;
    }
    caller.write("0\r\n\r\n").await;
    caller.read_to("0\r\n\r\n").await;
}

async fn trailers_pass_in_either_direction(kind: Kind) {
    let host = TestHost::start().await;
    kind.deploy(&host, "http", json!({})).await;
    let mut caller = Caller::connect(&host.data).await;
    caller
        .write("POST /fn/http/count HTTP/1.1\r\nHost: test\r\nTrailer: x-end\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    // What frames a message is no trailer.
    caller.write("3\r\nabc\r\n0\r\nx-end: yes\r\ncontent-length: 5\r\nhost: other\r\n\r\n").await;
    caller.read_to(r#"{"bytes":3,"end":"yes","trailers":1}"#).await;
    caller.write("GET /fn/http/bytes/5 HTTP/1.1\r\nHost: test\r\nTE: trailers\r\n\r\n").await;
    let read = caller.read_to("x-end: 5\r\n\r\n").await;
    assert!(read.contains("5\r\nxxxxx\r\n0\r\n"), "{read}");
}

async fn a_function_notices_that_its_caller_left(kind: Kind) {
    let host = TestHost::start().await;
    // It looks once a millisecond, which it does only for as long as it is awake.
    let http = kind.deploy(&host, "http", json!({"freezeAfterMs": 200})).await;
    let mut caller = Caller::connect(&host.data).await;
    caller.write("GET /fn/http/forever HTTP/1.1\r\nHost: test\r\n\r\n").await;
    caller.read_to("and on").await;
    drop(caller);
    http.logs("nobody reads any more", 1).await;
    http.reaches("parked").await;
    let record =
        eventually("the record", async || host.invocations().await.pop().ok_or_else(|| "none".to_owned())).await;
    assert_eq!((&record["outcome"], &record["delivered"]), (&json!("ok"), &json!(false)), "{record}");
}

async fn a_function_notices_that_its_caller_left_in_the_middle_of_a_body(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({"freezeAfterMs": 200})).await;
    let mut caller = Caller::connect(&host.data).await;
    caller.write("POST /fn/http/count HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n").await;
    caller.write("x".repeat(500)).await;
    http.has_in_flight(1).await;
    drop(caller);
    http.logs("the body broke off", 1).await;
    http.reaches("parked").await;
}

async fn a_request_is_in_flight_until_its_body_is_read(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({"freezeAfterMs": 0})).await;
    let mut caller = Caller::connect(&host.data).await;
    caller.write("GET /fn/http/forever HTTP/1.1\r\nHost: test\r\n\r\n").await;
    caller.read_to("and on").await;
    http.has_in_flight(1).await;
    assert_eq!(http.states().await, ["active"]);
    assert_eq!(http.lines_with("pre-freeze").await, 0);
    drop(caller);
    http.reaches("parked").await;
    assert_eq!(http.lines_with("pre-freeze ").await, 1);
}

async fn half_a_short_body_is_a_502_that_is_logged(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({})).await;
    let reply = sent(http.fetch("GET", "/half/10")).await;
    reply.problem(502, "function-response-invalid");
    let line = told(&http, "its body ended after 5 of 10 announced bytes").await;
    assert_eq!(line["request"], reply.header("dormouse-request-id"));
}

async fn a_short_body_that_never_comes_is_a_504(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({"timeoutMs": 500})).await;
    sent(http.fetch("GET", "/stuck/10")).await.problem(504, "function-timed-out");
}

async fn a_body_that_is_longer_than_announced_is_told_so(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({})).await;
    let reply = sent(http.fetch("GET", "/over/10")).await;
    let detail = reply.problem(502, "function-response-invalid");
    assert!(detail.contains("its body is longer than the 10 bytes that it announced"), "{detail}");
}

async fn half_a_long_body_breaks_off_and_is_logged(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({})).await;
    let mut caller = Caller::connect(&host.data).await;
    caller.write("GET /fn/http/half/200000 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let read = caller.read_to_close().await;
    assert!(read.starts_with("HTTP/1.1 200 OK") && read.len() < 200_000, "{} bytes", read.len());
    told(&http, "its body ended after 100000 of 200000 announced bytes").await;
    let record =
        eventually("the record", async || host.invocations().await.pop().ok_or_else(|| "none".to_owned())).await;
    assert_eq!((&record["outcome"], &record["delivered"]), (&json!("function-response-invalid"), &json!(false)));
}

async fn a_response_without_a_body_may_announce_one(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({})).await;
    for _ in 0..10 {
        let unchanged = sent(http.fetch("GET", "/unchanged/1000")).await;
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
        let head = sent(http.fetch("HEAD", "/bytes/200000")).await;
        assert_eq!((head.status, head.body.len(), head.headers.get("content-length")), (200, 0, None));
        let about = sent(http.fetch("HEAD", "/about")).await;
        assert_eq!((about.status, about.body.len()), (201, 0));
        assert_eq!(sent(http.fetch("GET", "/status/204")).await.status, 204);
    }
    assert_eq!(http.instances().await.len(), 1, "whoever has an answer finds room in the instance");
    assert_eq!(http.lines_with("no proper response").await, 0);
}

async fn an_answer_is_not_lost_with_the_instance_that_gave_it(kind: Kind) {
    let host = TestHost::start().await;
    // It goes a moment after its answer, and parked it would not.
    let http = kind.deploy(&host, "http", json!({"freezeAfterMs": 5000})).await;
    for (path, crashes) in [("/last/exit", 0.0), ("/last/trap", 1.0)] {
        let reply = sent(http.fetch("GET", path)).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "done"), "{path}");
        http.is_gone().await;
        let exited = host.metric(r#"dormouse_instance_stops_total{reason="exited"}"#).await;
        assert_eq!((host.metric("dormouse_instance_crashes_total").await, exited), (crashes, 1.0), "{path}");
    }
}

async fn a_status_says_what_follows_it(kind: Kind) {
    let host = TestHost::start().await;
    kind.deploy(&host, "http", json!({})).await;
    // 205 has no body, whatever the function writes (RFC 9110, section 15.3.6); a status that nobody knows has no phrase.
    for (path, head, end) in [
        ("reset", "HTTP/1.1 205 Reset Content\r\n", "content-length: 0\r\n"),
        ("status/204", "HTTP/1.1 204 No Content\r\n", "\r\n\r\n"),
        ("status/299", "HTTP/1.1 299 \r\n", ""),
        ("status/599", "HTTP/1.1 599 \r\n", ""),
    ] {
        let mut caller = Caller::connect(&host.data).await;
        let request = format!("GET /fn/http/{path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        caller.write(request).await;
        let read = caller.read_to_close().await;
        assert!(read.starts_with(head) && read.contains(end) && !read.contains("text"), "{path}: {read}");
    }
}

async fn a_status_that_ends_no_request_is_a_502_that_is_logged(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({})).await;
    for status in [200, 204, 304, 418, 599] {
        assert_eq!(sent(http.fetch("GET", &format!("/status/{status}"))).await.status, status);
    }
    let reply = sent(http.fetch("GET", "/status/101")).await;
    let detail = reply.problem(502, "function-response-invalid");
    assert!(detail.contains("101"), "{detail}");
    let line = told(&http, "its status is 101 Switching Protocols, which ends no request").await;
    assert_eq!(line["request"], reply.header("dormouse-request-id"));
    assert_eq!(http.instances().await.len(), 1, "it goes on");
}

async fn an_invalid_header_is_refused_to_the_guest_and_logged_if_it_gives_up(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({})).await;
    // It announces `many` bytes, and expects that to be taken.
    sent(http.fetch("GET", "/half/many")).await.problem(502, "function-crashed");
    http.logs("HeaderError::InvalidSyntax", 1).await;
}

async fn an_error_is_a_failure(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({})).await;
    let detail = sent(http.fetch("GET", "/error")).await.problem(500, "function-failed");
    assert!(detail.contains("it has no answer"), "{detail}");
    if kind == Kind::Http02 {
        let detail = sent(http.fetch("GET", "/none")).await.problem(502, "function-response-invalid");
        assert!(detail.contains("without a response"), "{detail}");
        told(&http, "without a response").await;
    }
    assert_eq!(http.instances().await.len(), 1, "it goes on");
}

async fn a_timeout_in_the_middle_of_a_body_breaks_it_off(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({"timeoutMs": 500})).await;
    let mut caller = Caller::connect(&host.data).await;
    caller.write("GET /fn/http/forever HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let read = caller.read_to_close().await;
    assert!(read.contains("and on") && !read.ends_with("0\r\n\r\n"), "{read}");
    let record =
        eventually("the record", async || host.invocations().await.pop().ok_or_else(|| "none".to_owned())).await;
    assert_eq!((&record["outcome"], &record["delivered"]), (&json!("function-timed-out"), &json!(false)), "{record}");
    http.is_gone().await;
}

async fn an_instance_that_goes_breaks_its_bodies_off(kind: Kind) {
    let host = TestHost::builder().flag("--drain-timeout-ms=200").start().await;
    kind.deploy(&host, "http", json!({})).await;
    let mut caller = Caller::connect(&host.data).await;
    caller.write("GET /fn/http/forever HTTP/1.1\r\nHost: test\r\n\r\n").await;
    caller.read_to("and on").await;
    host.signal(rustix::process::Signal::TERM);
    let read = caller.read_to_close().await;
    assert!(!read.ends_with("0\r\n\r\n"), "half a body must not look like a whole one");
    host.ended().await;
}

async fn a_request_that_follows_another_finds_the_same_instance(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({"freezeAfterMs": 0})).await;
    for path in ["/about", "/bytes/100000", "/nothing", "/echo"] {
        for _ in 0..50 {
            sent(http.fetch("POST", path).body("x")).await;
        }
        assert_eq!(http.instances().await.len(), 1, "{path}: whoever has an answer finds room in the instance");
    }
}

async fn an_invocation_is_a_post_to_invoke(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({})).await;
    let context = http.script(json!(["context"])).await.results()[0].clone();
    assert_eq!(
        (&context["function"], &context["version"], &context["attempt"]),
        (&json!("http"), &json!("LATEST"), &json!(1))
    );
    assert!(context["deadlineMs"].as_u64().unwrap() > 1_700_000_000_000);
    let detail = http.script(json!([{"fail": "not today"}])).await.problem(500, "function-failed");
    assert!(detail.contains("not today"), "{detail}");
}

#[tokio::test]
async fn a_failed_hook_is_one_that_answers_with_400_or_above() {
    let host = TestHost::start().await;
    let fails = json!({"do": [{"fail": "no flush today"}]}).to_string();
    let settings =
        json!({"freezeAfterMs": 0, "idleTimeoutMs": 200, "environment": {"PRE_FREEZE": fails, "PRE_STOP": fails}});
    let http = Kind::Http02.deploy(&host, "http", settings).await;
    assert_eq!(http.script(json!([])).await.status, 200);
    let line = told(&http, "GET /pre-freeze was answered").await;
    let text = line["text"].as_str().unwrap();
    assert!(text.contains("GET /pre-freeze was answered with 500 Internal Server Error: no flush today"), "{text}");
    told(&http, "GET /pre-stop was answered").await;
    http.is_gone().await;
    for hook in ["pre-freeze", "pre-stop"] {
        let failures = format!("dormouse_hook_failures_total{{hook=\"{hook}\",failure=\"failed\"}}");
        assert_eq!(host.metric(&failures).await, 1.0, "{hook}");
    }
    assert_eq!(host.metric("dormouse_instance_stops_total{reason=\"idle\"}").await, 1.0, "it stopped in order");
}

#[tokio::test]
async fn a_hook_that_is_a_request_cannot_be_sent_from_outside() {
    let host = TestHost::start().await;
    let hooks = json!({"freezeAfterMs": 60_000});
    for (kind, name) in [(Kind::Http02, "http-02"), (Kind::Hono, "hono")] {
        let http = kind.deploy(&host, name, hooks.clone()).await;
        assert_eq!(http.script(json!([])).await.status, 200);
        let before = http.lines_with("pre-freeze").await;
        for path in [
            "pre-freeze",
            "pre%2Dfreeze",
            "%70re-freeze",
            "./pre-freeze",
            "%2e/pre-freeze",
            "x/../pre-freeze",
            "x/%2E%2e/pre-freeze",
            "/pre-freeze",
            "pre-freeze/",
            "pre-freeze;v=1",
            "pre-freeze%3Bv",
            "\\pre-freeze",
            "pre-freeze?x",
        ] {
            let mut caller = Caller::connect(&host.data).await;
            caller.write(format!("GET /fn/{name}/{path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
            assert_eq!(caller.reply().await, 404, "{path}");
        }
        assert_eq!(http.lines_with("pre-freeze").await, before, "{name}");
        // What only looks like one reaches the function.
        let reply = sent(http.fetch("POST", "/pre-freezer").body(json!({"do": ["count"]}).to_string())).await;
        assert_eq!(reply.header("dormouse-start"), "active", "{reply:?}");
    }
}

#[tokio::test]
async fn hooks_that_are_not_configured_are_no_requests() {
    let host = TestHost::start().await;
    let http = Kind::Hono.deploy_as_it_is(&host, "http", json!({"freezeAfterMs": 0})).await;
    http.script(json!([])).await;
    http.reaches("parked").await;
    assert_eq!(http.lines_with("initializer").await + http.lines_with("pre-freeze").await, 0);
    let shown = host.get("/v1/functions/http").await.json()["exports"].clone();
    assert_eq!(shown["protocol"], "wasi:http@0.2");
    assert_eq!(shown["preFreeze"], Value::Null);
    http.configure(json!({"lifecycle": {"preFreeze": {"handler": "index.preFreeze"}}})).await;
    let shown = host.get("/v1/functions/http").await.json()["exports"].clone();
    assert_eq!(shown["preFreeze"]["name"], "GET /pre-freeze");
}

#[tokio::test]
async fn an_event_function_takes_the_body_of_any_request() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    let reply = sent(probe.fetch("PUT", "/any/path?q").body(json!({"do": ["count"]}).to_string())).await;
    assert_eq!((reply.results(), reply.header("content-type")), (json!([1]), "application/octet-stream"));
}

#[tokio::test]
async fn what_others_may_read_in_another_way_is_refused() {
    let host = TestHost::start().await;
    host.deploy("hello", "example-hello", json!({})).await;
    for (fields, detail) in [
        ("", "`Host` is missing"),
        ("Host: a\r\nHost: b\r\n", "`Host` is there more than once"),
        ("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n", "`Transfer-Encoding`"),
        ("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "`Transfer-Encoding`"),
        ("Host: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "`Transfer-Encoding`"),
        ("Host: a\r\nX-Fc-Invocation-Type: Async\r\n", "here it is `dormouse-invocation-type`"),
        ("Host: a\r\nX-Fc-Stateful-Async-Invocation-Id: one\r\n", "here it is `dormouse-invocation-id`"),
    ] {
        let mut caller = Caller::connect(&host.data).await;
        caller.write(format!("POST /invoke/hello HTTP/1.1\r\n{fields}Connection: close\r\n\r\n0\r\n\r\n")).await;
        let read = caller.read_to_close().await;
        let is_refused = read.starts_with("HTTP/1.1 400 ") && read.contains("invalid-request") && read.contains(detail);
        assert!(is_refused, "{fields}: {read}");
    }
    let mut caller = Caller::connect(&host.data).await;
    caller.write("POST /invoke/hello HTTP/1.0\r\n\r\n").await;
    assert!(caller.read_to_close().await.starts_with("HTTP/1.0 200 "), "HTTP/1.0 has no such field");
}

#[tokio::test]
async fn a_function_is_told_how_its_request_came() {
    for (flags, forwarded, proto, by) in [
        (&[][..], "127.0.0.1", "http", None),
        (&["--trusted-proxies=127.0.0.0/8"][..], "198.51.100.7, 127.0.0.1", "https", Some("shop.example")),
    ] {
        let mut host = TestHost::builder();
        for flag in flags {
            host = host.flag(flag);
        }
        let host = host.start().await;
        let http = Kind::Http03.deploy(&host, "http", json!({})).await;
        let claimed = |request: reqwest::RequestBuilder| {
            let request = request.header("x-forwarded-for", "198.51.100.7").header("x-forwarded-proto", "https");
            request.header("x-forwarded-host", "shop.example").header("x-real-ip", "198.51.100.7")
        };
        let seen = sent(claimed(http.fetch("GET", "/about"))).await.json();
        let field = |name: &str| {
            let fields = seen["fields"].as_array().unwrap().iter();
            fields.clone().find(|field| field[0] == name).map(|field| field[1].as_str().unwrap().to_owned())
        };
        assert_eq!(
            (field("x-forwarded-for").as_deref(), field("x-forwarded-proto").as_deref()),
            (Some(forwarded), Some(proto))
        );
        assert_eq!((field("x-forwarded-host").as_deref(), field("x-real-ip").is_some()), (by, by.is_some()));
        // So is the audit log.
        let patch = host.client.patch(format!("{}/v1/functions/http", host.admin)).json(&json!({"description": "x"}));
        assert_eq!(claimed(patch).send().await.unwrap().status(), 200);
        let entry = host.get("/v1/audit").await.json()["entries"][0].clone();
        let caller = if by.is_some() { "198.51.100.7" } else { "127.0.0.1" };
        assert!(entry.to_string().contains(caller), "{entry}");
    }
}

#[tokio::test]
async fn a_body_that_is_never_ended_waits_for_nobody() {
    let host = TestHost::start().await;
    let http = Kind::Http02.deploy(&host, "http", json!({"timeoutMs": 60_000})).await;
    // The length tells where it ends; without one nobody knows whether it has.
    for bytes in [10, 200_000] {
        let reply = sent(http.fetch("GET", &format!("/leak/{bytes}"))).await;
        assert_eq!((reply.status, reply.body.len()), (200, bytes));
    }
    let detail = sent(http.fetch("GET", "/leak")).await.problem(502, "function-response-invalid");
    assert!(detail.contains("its body broke off after 4 bytes"), "{detail}");
    // A caller that has all announced bytes may ask again before the call is over, and then finds another instance.
    let states = http.states().await;
    let (crashes, stops) =
        (host.metric("dormouse_instance_crashes_total").await, host.metric("dormouse_instance_stops_total").await);
    assert!(!states.is_empty() && (crashes, stops) == (0.0, 0.0), "each goes on: {states:?}");
}
