//! What callers are told: every way a request can end, its status, its code, and nothing beyond.

use std::convert::Infallible;

use futures::stream;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Gate, PATIENCE, Reply, TestFunction, TestHost, eventually};
use tests::text;

const PROBE: &str = "guest-probe";
const ECHO: &str = "guest-sync";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn an_unknown_function_or_version_is_not_found() {
    let host = TestHost::start().await;
    let detail = host.function("nobody").invoke("").await.problem(404, "function-not-found");
    assert!(detail.contains("`nobody`"), "{detail}");
    // A name that no function can have is simply not there; nor is it repeated at length.
    let long = host.function(&"a".repeat(2000)).invoke("").await.problem(404, "function-not-found");
    assert!(long.len() < 200, "{long}");
    host.function("no%20such").invoke("").await.problem(404, "function-not-found");

    let small = deploy_small(&host, "small").await;
    assert_eq!(with_query(&small, "?qualifier=LATEST").await.status, 200);
    assert_eq!(with_query(&small, "?other=1").await.status, 200);
    for qualifier in ["7", "live", "latest"] {
        let reply = with_query(&small, &format!("?qualifier={qualifier}")).await;
        let detail = reply.problem(404, "function-not-found");
        assert!(detail.contains(&format!("`{qualifier}`")) && detail.contains("LATEST"), "{detail}");
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_read_is_refused_as_a_problem() {
    let host = TestHost::start().await;
    host.function("%FF").invoke("").await.problem(400, "invalid-request");
    let small = deploy_small(&host, "small").await;
    with_query(&small, "?qualifier=a&qualifier=b").await.problem(400, "invalid-request");
}

#[tokio::test]
async fn wrong_methods_and_paths_are_told_what_is_right() {
    let host = TestHost::start().await;
    let small = deploy_small(&host, "small").await;
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let method = method.parse().unwrap();
        let request = host.client.request(method, format!("{}/invoke/small", host.data));
        let reply = Reply::of(request.send().await.unwrap()).await;
        let detail = reply.problem(405, "method-not-allowed");
        assert!(detail.contains("POST"), "{detail}");
        assert_eq!(reply.header("allow"), "POST");
        assert_ne!(reply.header("dormouse-request-id"), "");
    }
    for path in ["/", "/invoke", "/invoke/", "/invoke/small/more", "/v1/functions", "/healthz", "/../etc/passwd"] {
        let request = host.client.post(format!("{}{path}", host.data));
        let reply = Reply::of(request.send().await.unwrap()).await;
        let detail = reply.problem(404, "not-found");
        assert!(detail.contains("/invoke/{function}"), "{path}: {detail}");
        assert_ne!(reply.header("dormouse-request-id"), "");
    }
    assert_eq!(small.states().await, Vec::<String>::new(), "nothing of this reached a function");
}

#[tokio::test]
async fn a_request_keeps_its_callers_identifier_if_that_is_sane() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", PROBE, json!({})).await;
    let named = async |function: &TestFunction, id: &str| {
        let event = json!({"do": ["context"]}).to_string();
        Reply::of(function.request(event).header("X-Request-Id", id).send().await.unwrap()).await
    };
    for sane in ["order-1.2:3/4+5=6@7_8", &"a".repeat(128)] {
        let reply = named(&probe, sane).await;
        assert_eq!(reply.header("dormouse-request-id"), sane);
        assert_eq!(reply.results()[0]["requestId"], sane, "the guest is told the same");
        let missing = named(&host.function("nobody"), sane).await;
        missing.problem(404, "function-not-found");
        assert_eq!(missing.header("dormouse-request-id"), sane, "errors carry it too");
    }
    let mut given = Vec::new();
    for odd in ["a b", "<script>", "a\"b", "a,b", &"a".repeat(129), ""] {
        let reply = named(&probe, odd).await;
        let id = reply.header("dormouse-request-id").to_owned();
        assert_eq!(reply.results()[0]["requestId"], id);
        assert!(id.len() == 36 && id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{odd:?}: {id}");
        given.push(id);
    }
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 6, "each request gets an identifier of its own");
}

#[tokio::test]
async fn a_trace_context_reaches_the_guest_only_if_it_is_well_formed() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", PROBE, json!({})).await;
    let told = async |traceparent: &str| {
        let event = json!({"do": ["context"]}).to_string();
        let request = probe.request(event).header("traceparent", traceparent);
        Reply::of(request.send().await.unwrap()).await.results()[0]["traceparent"].clone()
    };
    assert_eq!(told(TRACEPARENT).await, TRACEPARENT);
    let no_trace = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
    let no_parent = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
    let bad_version = TRACEPARENT.replacen("00", "ff", 1);
    let upper = TRACEPARENT.to_uppercase();
    let longer = format!("{TRACEPARENT}-00");
    for bad in ["", "hello", &TRACEPARENT[1..], &longer, &upper, no_trace, no_parent, &bad_version] {
        assert_eq!(told(bad).await, Value::Null, "{bad}");
    }
    assert_eq!(probe.script(json!(["context"])).await.results()[0]["traceparent"], Value::Null);
}

#[tokio::test]
async fn a_reply_says_how_it_started_and_where_its_time_went() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", PROBE, json!({})).await;
    let reply = probe.script(json!([{"sleep-ms": 30}, {"spin-ms": 5}])).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "application/octet-stream");
    assert_eq!(reply.start(), "cold");
    assert!(reply.timing("queue") >= 0.0);
    assert!(reply.timing("start") > 0.0, "an instance was started for it");
    assert!(reply.timing("handler") >= 35.0, "{}", reply.timing("handler"));
    // Beside other tests the guest may not get all of the CPU in its 5 ms; its sleep is not executed time in any case.
    let executed = reply.timing("exec");
    assert!(executed > 0.0 && executed <= reply.timing("handler") - 29.0, "{executed}");
    probe.reaches("parked").await;
    assert_eq!(probe.script(json!([])).await.start(), "parked");
    let failed = probe.script(json!([{"fail": "no"}])).await;
    assert!(failed.timing("handler") > 0.0, "errors of functions say it as well");
}

#[tokio::test]
async fn an_event_over_the_limit_is_refused_and_reaches_no_instance() {
    let host = TestHost::builder().flag("--event-bytes-max=1000").start().await;
    let echo = host.deploy("echo", ECHO, json!({})).await;
    let too_large = async |reply: Reply| {
        let detail = reply.problem(413, "event-too-large");
        assert!(detail.contains("1000 bytes"), "{detail}");
        assert_eq!(echo.states().await, Vec::<String>::new());
    };
    too_large(echo.invoke(vec![b'x'; 1001]).await).await;
    too_large(echo.invoke(chunked(1001, 100)).await).await;
    assert_eq!(echo.invoke(vec![b'x'; 1000]).await.body, vec![b'x'; 1000]);
    assert_eq!(echo.invoke(chunked(1000, 100)).await.body, vec![0; 1000]);
    assert_eq!(echo.invoke("").await.body, b"", "an event may be empty");
}

#[tokio::test]
async fn the_limit_of_events_is_6_mib_unless_configured_and_32_mib_at_most() {
    let host = TestHost::start().await;
    let echo = host.deploy("echo", ECHO, json!({})).await;
    let largest = echo.invoke(vec![b'x'; 6 << 20]).await;
    assert_eq!((largest.status, largest.body.len()), (200, 6 << 20));
    echo.invoke(vec![b'x'; (6 << 20) + 1]).await.problem(413, "event-too-large");

    let host = TestHost::builder().flag("--event-bytes-max=33554432").start().await;
    let echo = host.deploy("echo", ECHO, json!({"memoryMb": 256})).await;
    let largest = echo.invoke(vec![b'x'; 32 << 20]).await;
    assert_eq!((largest.status, largest.body.len()), (200, 32 << 20));
    echo.invoke(chunked((32 << 20) + 1, 1 << 20)).await.problem(413, "event-too-large");

    let mut command = TestHost::builder().flag("--event-bytes-max=33554433").command();
    let refused = timeout(PATIENCE, command.output()).await.expect("it ends at once").unwrap();
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("`event-bytes-max` is 33554433"), "{text}");
}

#[tokio::test]
async fn an_error_of_the_function_is_told_in_its_own_words() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", PROBE, json!({})).await;
    let reply = probe.script(json!(["count", {"fail": "no such order: \"4711\" \u{1f42d}"}])).await;
    assert_eq!(reply.problem(500, "function-failed"), "no such order: \"4711\" \u{1f42d}");
    assert_eq!(reply.start(), "cold");
    let next = probe.script(json!(["count"])).await;
    assert_eq!(next.results(), json!([2]), "the instance lives on");
}

#[tokio::test]
async fn a_crash_names_the_trap_and_leaves_the_backtrace_in_the_log() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", PROBE, json!({})).await;
    for step in ["trap", "panic"] {
        let reply = probe.script(json!(["count", step])).await;
        let detail = reply.problem(502, "function-crashed");
        assert!(detail.starts_with("unreachable: "), "{detail}");
        for hint in ["guest_probe", "backtrace", "0x", ".rs", "/"] {
            assert!(!reply.text().replace("about:blank", "").contains(hint), "{hint:?} in {reply:?}");
        }
        let request = reply.header("dormouse-request-id");
        let lines = probe.lines().await;
        let crash = lines.iter().find(|line| line["stream"] == "host" && line["request"] == request);
        let crash = crash.unwrap_or_else(|| panic!("no line of the host about {request} in {lines:?}"));
        let text = crash["text"].as_str().unwrap();
        assert!(text.contains("crashed") && text.contains("guest_probe"), "the guest's functions are named: {text}");
        probe.is_gone().await;
    }
    assert_eq!(probe.script(json!(["count"])).await.results(), json!([1]), "a new instance answers the next request");
    assert_eq!(host.metric("dormouse_instance_crashes_total").await, 2.0);
}

#[tokio::test]
async fn wanting_too_much_memory_is_told_apart_from_other_crashes() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", PROBE, json!({"memoryMb": 64})).await;
    let reply = probe.script(json!(["grow-forever"])).await;
    let detail = reply.problem(502, "function-out-of-memory");
    assert!(detail.contains("`memoryMb`"), "{detail}");
    probe.logs("64 MB", 1).await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_with_a_timeout() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", PROBE, json!({"timeoutMs": 50})).await;
    for step in [json!({"sleep-ms": 3_600_000}), json!("spin-forever")] {
        let reply = probe.script(json!([step])).await;
        let detail = reply.problem(504, "function-timed-out");
        assert!(detail.contains("`timeoutMs`"), "{detail}");
        assert!(reply.timing("handler") >= 50.0);
    }
}

#[tokio::test]
async fn requests_that_are_lost_with_their_instance_are_told_so() {
    let host = TestHost::start().await;
    let gate = Gate::closed().await;
    let settings = json!({"concurrency": 2, "maxInstances": 1, "allowedOutboundHosts": ["127.0.0.1"]});
    let probe = host.deploy("probe", PROBE, settings).await;
    let bystander = probe.script_in_background(json!([gate.step()]));
    let _held = gate.arrival().await;
    probe.script(json!(["trap"])).await.problem(502, "function-crashed");
    let detail = bystander.await.unwrap().problem(502, "instance-lost");
    assert!(detail.contains("not to blame"), "{detail}");
}

#[tokio::test]
async fn a_busy_function_says_when_to_try_again() {
    let host = TestHost::start().await;
    let gate = Gate::closed().await;
    let settings = |depth: u32, wait_ms: u32| {
        json!({"maxInstances": 1, "queueDepth": depth, "queueTimeoutMs": wait_ms,
               "allowedOutboundHosts": ["127.0.0.1"]})
    };
    let full = host.deploy("full", PROBE, settings(0, 60_000)).await;
    let slow = host.deploy("slow", PROBE, settings(5, 20)).await;
    for (function, word) in [(full, "queue is full"), (slow, "`queueTimeoutMs`")] {
        let busy = function.script_in_background(json!([gate.step()]));
        let held = gate.arrival().await;
        let refused = function.script(json!([])).await;
        let detail = refused.problem(429, "function-busy");
        assert!(detail.contains(word), "{detail}");
        assert_retry_after(&refused);
        held.release().await;
        assert_eq!(busy.await.unwrap().status, 200, "whoever was first is not disturbed");
        eventually("room again", async || match function.script(json!([])).await {
            reply if reply.status == 200 => Ok(()),
            reply => Err(format!("{reply:?}")),
        })
        .await;
    }
}

#[tokio::test]
async fn a_full_host_makes_room_by_stopping_whoever_sleeps_and_else_says_so() {
    let host = TestHost::builder().flag("--instances-max=1").start().await;
    let gate = Gate::closed().await;
    let probe = host.deploy("probe", PROBE, json!({"allowedOutboundHosts": ["127.0.0.1"]})).await;
    let small = deploy_small(&host, "small").await;
    let busy = probe.script_in_background(json!([gate.step()]));
    let held = gate.arrival().await;
    let refused = small.invoke("").await;
    refused.problem(503, "host-full");
    assert_retry_after(&refused);
    held.release().await;
    assert_eq!(busy.await.unwrap().status, 200);
    probe.reaches("parked").await;
    assert_eq!(small.invoke("").await.status, 200, "the parked instance made room");
    assert_eq!(probe.states().await, Vec::<String>::new());
    assert_eq!(probe.lines_with("pre-stop ").await, 1, "it went in order");
}

#[tokio::test]
async fn a_draining_host_answers_what_it_took_and_takes_nothing_new() {
    let host = TestHost::start().await;
    let gate = Gate::closed().await;
    let probe = host.deploy("probe", PROBE, json!({"allowedOutboundHosts": ["127.0.0.1"]})).await;
    let under_way = probe.script_in_background(json!([gate.step(), "count"]));
    let held = gate.arrival().await;
    host.signal(Signal::TERM);
    let refused = eventually("the drain", async || match probe.script(json!([])).await {
        reply if reply.status == 503 => Ok(reply),
        reply => Err(format!("{reply:?}")),
    })
    .await;
    refused.problem(503, "host-draining");
    assert_retry_after(&refused);
    held.release().await;
    assert_eq!(under_way.await.unwrap().results()[1], 1, "it is answered all the same");
    let (status, _) = host.ended().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn half_sent_events_hurt_nobody() {
    let host = TestHost::start().await;
    let small = deploy_small(&host, "small").await;
    let heads = [
        "POST /invoke/small HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nonly this",
        "POST /invoke/small HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nonly",
        "POST /invoke/small HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nonly\r\n",
        "POST /invoke/small HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nonly t",
        "POST /invoke/small HTT",
        "\0\u{1}\u{2}\r\n\r\n",
    ];
    for head in heads {
        let mut stream = connect(&host).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // What it says does not matter, as long as it ends and is no result.
        let ended = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{head:?}: the host holds on to the connection");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{head:?}");
    }
    assert_eq!(small.states().await, Vec::<String>::new(), "no instance was started for any of them");
    assert_eq!(host.invocations().await, Vec::<Value>::new());
    assert_eq!(small.invoke("").await.status, 200);
}

#[tokio::test]
async fn the_record_of_a_caller_that_left_says_so() {
    let host = TestHost::start().await;
    let gate = Gate::closed().await;
    let probe = host.deploy("probe", PROBE, json!({"allowedOutboundHosts": ["127.0.0.1"]})).await;
    let event = json!({"do": [gate.step(), "count"]}).to_string();
    let mut stream = connect(&host).await;
    let head = format!("POST /invoke/probe HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{event}", event.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    let held = gate.arrival().await;
    stream.shutdown().await.unwrap();
    // The host closes the connection when it has seen that the caller left.
    let closed = timeout(PATIENCE, stream.read(&mut [0])).await.expect("the host notices");
    assert_eq!(closed.unwrap_or(0), 0, "there was no answer");
    held.release().await;
    let record = eventually("the record", async || host.invocations().await.pop().ok_or("none".to_owned())).await;
    assert_eq!((&record["outcome"], &record["delivered"]), (&json!("ok"), &json!(false)), "{record}");
    assert_eq!(probe.script(json!(["count"])).await.results(), json!([2]), "what it began was finished");
    eventually("the second record", async || match host.invocations().await.last() {
        Some(record) if record["delivered"] == true => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// The smallest function there is; it compiles in no time.
async fn deploy_small(host: &TestHost, name: &str) -> TestFunction {
    let reply = host.put_code(name, text::Small::PLAIN.component(), &json!({})).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    host.function(name)
}

async fn with_query(function: &TestFunction, query: &str) -> Reply {
    let (client, request) = function.request("").build_split();
    let mut request = request.unwrap();
    let url = format!("{}{query}", request.url());
    *request.url_mut() = url.parse().unwrap();
    Reply::of(client.execute(request).await.unwrap()).await
}

/// An event of zeros that is sent in chunks, its length unsaid.
fn chunked(bytes: usize, chunk_bytes: usize) -> reqwest::Body {
    let chunks = (0..bytes).step_by(chunk_bytes).map(move |sent| vec![0; chunk_bytes.min(bytes - sent)]);
    reqwest::Body::wrap_stream(stream::iter(chunks.map(Ok::<_, Infallible>)))
}

async fn connect(host: &TestHost) -> TcpStream {
    TcpStream::connect(host.data.trim_start_matches("http://")).await.expect("the data plane listens")
}

fn assert_retry_after(reply: &Reply) {
    let seconds: u64 = reply.header("retry-after").parse().unwrap_or_else(|_| panic!("no Retry-After: {reply:?}"));
    assert!(seconds >= 1);
}
