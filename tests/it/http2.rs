//! HTTP/2: both planes speak it by prior knowledge, streams and trailers pass, and no client makes the host hold more than it
//! may. What TLS adds is in `tls`.

use std::process::Stdio;
use std::sync::OnceLock;

use rustix::process::Signal;
use serde_json::json;
use tokio::process::Command;

use crate::support::frames::{
    ACK, CONTINUATION, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PING, RST_STREAM, fields,
};
use crate::support::{Caller, Kind, TestHost, curl, eventually, over_kinds};

/// Errors of RFC 9113, section 7.
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// The largest frame that may be sent without asking (RFC 9113, section 4.2).
const FRAME_BYTES_MAX: usize = 16 << 10;

over_kinds! {
    both: [
        a_client_of_grpc_calls_one_by_one_and_in_streams,
        a_cancelled_stream_is_a_caller_who_left,
        the_function_sees_the_address_that_was_asked_for,
    ]
}

#[tokio::test]
async fn both_planes_speak_it_without_tls_to_those_who_begin_with_it() {
    let host = TestHost::start().await;
    host.deploy("hello", "example-hello", json!({})).await;
    let (call, list) = (format!("{}/invoke/hello", host.data), format!("{}/v1/functions", host.admin));
    let seen = curl(&["--http2-prior-knowledge", "-d", "you", "-w", "%{http_version} %{http_code}", &call]).await;
    assert_eq!(seen, "Hello, you!\n2 200");
    let seen = curl(&["--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", &list]).await;
    assert_eq!(seen, "2 200");
    // An answer to HEAD is a head, whatever it says.
    let missing = format!("{}/fn/nobody/x", host.data);
    for (url, status) in [(&missing, "404"), (&list, "200")] {
        let seen =
            curl(&["--http2-prior-knowledge", "-I", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", url])
                .await;
        assert_eq!(seen, format!("2 {status}"));
    }
    // This one begins with HTTP/1.1 and offers to go on with the other, which nobody need take up.
    let seen = curl(&["--http2", "-d", "you", "-w", "%{http_version} %{http_code}", &call]).await;
    assert_eq!(seen, "Hello, you!\n1.1 200");
}

#[tokio::test]
async fn a_websocket_is_refused_in_words() {
    let host = TestHost::start().await;
    let hello = host.deploy("hello", "example-hello", json!({})).await;
    let asked = hello.request("you").header("connection", "upgrade").header("upgrade", "WebSocket").send().await;
    let refused = crate::support::Reply::of(asked.unwrap()).await.problem(501, "upgrade-not-supported");
    assert!(refused.contains("server-sent events"), "{refused}");
}

#[tokio::test]
async fn half_a_preface_is_waited_for_and_not_for_ever() {
    let host = TestHost::builder().flag("--head-timeout-ms=300").start().await;
    host.deploy("hello", "example-hello", json!({})).await;
    let mut slow = Caller::connect(&host.data).await;
    slow.write("PRI * HT").await;
    assert_eq!(slow.read_to_close().await, "");
    // Nor is a connection kept that begins no request.
    let mut silent = Frames::connect(&host.data, &[]).await;
    assert_eq!(silent.read_to(|frame| frame.kind == GOAWAY).await.expect("a word").error(), 0);
    assert!(silent.read_to(|_| false).await.is_none(), "it is closed");
    let mut half = Frames::connect(&host.data, &[]).await;
    half.send(HEADERS, 0, 1, &fields("/invoke/hello")).await;
    assert!(half.read_to(|_| false).await.is_none(), "it is closed");
    // What only begins like it is a request of HTTP/1.1.
    let mut odd = Caller::connect(&host.data).await;
    odd.write("PRI").await;
    odd.write(" /invoke/hello HTTP/1.1\r\nHost: test\r\n\r\n").await;
    odd.read_to("HTTP/1.1 405").await;
}

async fn the_function_sees_the_address_that_was_asked_for(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({})).await;
    let seen = curl(&["--http2-prior-knowledge", &http.url("/about/x?q=1")]).await;
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(
        (&seen["authority"], &seen["path"]),
        (&json!(host.data.strip_prefix("http://")), &json!("/about/x?q=1"))
    );
}

async fn a_client_of_grpc_calls_one_by_one_and_in_streams(kind: Kind) {
    let host = TestHost::start().await;
    kind.deploy(&host, "http", json!({})).await;
    let address = host.data.strip_prefix("http://").unwrap();
    let mut client = Command::new(grpc());
    client
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/it/fixtures/grpc_client.py"))
        .args([address, "/fn/http/grpc/Echo"]);
    let output = client.stdin(Stdio::null()).output().await.expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn a_cancelled_stream_is_a_caller_who_left(kind: Kind) {
    let host = TestHost::start().await;
    let http = kind.deploy(&host, "http", json!({"freezeAfterMs": 200})).await;
    let mut frames = Frames::connect(&host.data, &[]).await;
    frames.get(1, "/fn/http/forever").await;
    frames.read_to(|frame| frame.stream == 1 && frame.kind != HEADERS).await.expect("part of a body");
    frames.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()).await;
    http.logs("nobody reads any more", 1).await;
    http.reaches("parked").await;
    // The connection goes on.
    frames.get(3, "/fn/http/status/204").await;
    frames.read_to(|frame| frame.stream == 3 && frame.kind == HEADERS).await.expect("another answer");
}

#[tokio::test]
async fn who_reads_one_stream_and_not_another_loses_that_one() {
    let host = TestHost::builder().flag("--write-timeout-ms=300").start().await;
    let http = Kind::Http03.deploy(&host, "http", json!({"timeoutMs": 600_000})).await;
    let mut frames = Frames::connect(&host.data, &[(INITIAL_WINDOW_SIZE, 10)]).await;
    frames.get(1, "/fn/http/bytes/100000000").await;
    let reset = frames.read_to(|frame| frame.kind == RST_STREAM).await.expect("the stream ends");
    assert_eq!((reset.stream, reset.error()), (1, CANCEL));
    http.has_in_flight(0).await;
    frames.send(PING, 0, 0, b"are you?").await;
    let pong = frames.read_to(|frame| frame.kind == PING).await.expect("the connection goes on");
    assert_eq!((pong.flags, &pong.payload[..]), (ACK, &b"are you?"[..]));
}

#[tokio::test]
async fn more_streams_than_there_may_be_are_refused() {
    let host = TestHost::builder().flag("--streams-max=2").start().await;
    let http = Kind::Http03.deploy(&host, "http", json!({"concurrency": 10})).await;
    let mut frames = Frames::connect(&host.data, &[]).await;
    for stream in [1, 3, 5] {
        frames.get(stream, "/fn/http/forever").await;
    }
    let refused = frames.read_to(|frame| frame.kind == RST_STREAM).await.expect("one is refused");
    assert_eq!((refused.stream, refused.error()), (5, REFUSED_STREAM));
    http.has_in_flight(2).await;
}

#[tokio::test]
async fn streams_that_are_reset_again_and_again_end_their_connection() {
    let host = TestHost::start().await;
    let hello = host.deploy("hello", "example-hello", json!({})).await;
    let mut frames = Frames::connect(&host.data, &[]).await;
    for stream in (0..5000).map(|count| 2 * count + 1) {
        let sent = frames.send(HEADERS, END_HEADERS, stream, &fields("/invoke/hello")).await;
        if !sent || !frames.send(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()).await {
            break;
        }
    }
    let last = frames.read_to(|frame| frame.kind == GOAWAY && frame.error() != 0).await;
    assert_eq!(last.expect("the host hangs up").error(), ENHANCE_YOUR_CALM);
    assert_eq!(hello.invoke("you").await.status, 200, "others are served");
}

#[tokio::test]
async fn fields_without_an_end_end_their_connection() {
    let host = TestHost::start().await;
    let hello = host.deploy("hello", "example-hello", json!({})).await;
    let before = host.memory_kib("VmRSS");
    let mut frames = Frames::connect(&host.data, &[]).await;
    frames.send(HEADERS, 0, 1, &fields("/invoke/hello")).await;
    // 140 MB, if somebody took them.
    let field = long_field(14_000);
    let mut taken = 0;
    while taken < 10_000 && frames.send(CONTINUATION, 0, 1, &field).await {
        taken += 1;
    }
    assert!(taken < 10_000, "the host took them all");
    assert!(host.memory_kib("VmRSS") < before + (32 << 10), "{before} KiB before");
    assert_eq!(hello.invoke("you").await.status, 200, "others are served");
}

#[tokio::test]
async fn who_sends_pings_and_reads_no_answer_is_disconnected() {
    let host = TestHost::builder().flag("--write-timeout-ms=300").start().await;
    let hello = host.deploy("hello", "example-hello", json!({})).await;
    let before = host.memory_kib("VmRSS");
    let mut frames = Frames::connect(&host.data, &[]).await;
    let mut taken = 0;
    // More than the kernel keeps on both sides.
    while taken < 4_000_000 && frames.send(PING, 0, 0, b"are you?").await {
        taken += 1;
    }
    assert!(taken < 4_000_000, "the host took them all");
    assert!(host.memory_kib("VmRSS") < before + (32 << 10), "{before} KiB before");
    assert_eq!(hello.invoke("you").await.status, 200, "others are served");
}

#[tokio::test]
async fn fields_that_are_too_large_are_refused() {
    let host = TestHost::start().await;
    host.deploy("hello", "example-hello", json!({})).await;
    let mut frames = Frames::connect(&host.data, &[]).await;
    let block = [fields("/invoke/hello"), long_field(40_000)].concat();
    let (first, rest) = block.split_at(FRAME_BYTES_MAX);
    frames.send(HEADERS, END_STREAM, 1, first).await;
    let parts: Vec<_> = rest.chunks(FRAME_BYTES_MAX).collect();
    for (index, part) in parts.iter().enumerate() {
        frames.send(CONTINUATION, if index + 1 == parts.len() { END_HEADERS } else { 0 }, 1, part).await;
    }
    let answer = frames.read_to(|frame| frame.stream == 1 && frame.kind == HEADERS).await.expect("an answer");
    // 431, as HPACK shortens it.
    assert!(answer.payload.windows(3).any(|bytes| bytes == [0x69, 0x90, 0xff]), "{answer:?}");
    let (call, fits) = (format!("{}/invoke/hello", host.data), format!("x-long: {}", "v".repeat(20_000)));
    let seen = curl(&["--http2-prior-knowledge", "-H", &fits, "-d", "you", "-w", "%{http_code}", &call]).await;
    assert_eq!(seen, "Hello, you!\n200");
}

/// A field whose value has so many bytes, as HPACK writes it.
fn long_field(bytes: usize) -> Vec<u8> {
    let mut field = vec![0x00, 0x01, b'x', 0x7f];
    let mut rest = bytes - 0x7f;
    while rest >= 0x80 {
        field.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    field.push(rest as u8);
    field.resize(field.len() + bytes, b'v');
    field
}

#[tokio::test]
async fn a_host_that_stops_answers_streams_and_takes_no_more() {
    let host = TestHost::start().await;
    host.deploy("sleeper", "example-sleeper", json!({})).await;
    let url = format!("{}/invoke/sleeper", host.data);
    let arguments = ["--http2-prior-knowledge", "-d", "700", "-w", " %{http_code}", &url].map(str::to_owned);
    let call = tokio::task::spawn(async move { curl(&arguments.each_ref().map(String::as_str)).await });
    host.function("sleeper").has_in_flight(1).await;
    let idle = Frames::connect(&host.data, &[]).await;
    host.signal(Signal::TERM);
    assert!(host.ended().await.0.success());
    assert!(call.await.unwrap().ends_with(" 200"));
    drop(idle);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_holds_no_host_up_that_is_to_stop() {
    let host = TestHost::builder().flag("--drain-timeout-ms=300").start().await;
    let http = Kind::Http03.deploy(&host, "http", json!({})).await;
    let mut frames = Frames::connect(&host.data, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    frames.get(1, "/fn/http/about").await;
    frames.read_to(|frame| frame.kind == HEADERS).await.expect("the head of an answer");
    http.has_in_flight(0).await;
    let log = host.log_kept();
    host.signal(Signal::TERM);
    assert!(host.ended().await.0.success());
    let log = log.lock().unwrap();
    assert!(!log.contains("did not end when they were cut off") && !log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn many_streams_share_a_connection() {
    let host = TestHost::start().await;
    let hello = host.deploy("hello", "example-hello", json!({"concurrency": 16})).await;
    hello.invoke("you").await;
    let url = format!("{}/invoke/hello", host.data);
    let load = Command::new("h2load").args(["-n", "2000", "-c", "4", "-m", "8", "-H", ":method: POST", &url]).output();
    let output = load.await.expect("h2load runs; Debian has it in nghttp2-client");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("2000 succeeded, 0 failed"), "{said}");
    eventually("records of all", async || {
        let requests = host.total().await["requests"].as_u64();
        if requests == Some(2001) { Ok(()) } else { Err(format!("{requests:?}")) }
    })
    .await;
}

/// A Python that has gRPC's own client.
fn grpc() -> &'static std::path::Path {
    static PYTHON: OnceLock<std::path::PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| tests::languages::python_with(&["grpcio==1.76.0"]).join("bin/python"))
}
