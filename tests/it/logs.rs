//! A function's log: whole lines of what its instances write, and whose each of them is.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::{Gate, Kind, TestFunction, TestHost, dormouse, eventually, over_kinds};

/// Bytes that a line may have.
const LINE_BYTES_MAX: usize = 32 << 10;
/// Answered calls that the host remembers as long as something of them may still run.
const ANSWERED_MAX: usize = 16;

over_kinds! {
    calls: [
        every_line_says_who_wrote_it_and_when,
    ],
    sharing: [
        a_line_belongs_to_the_request_whose_task_wrote_it,
        a_line_of_a_task_that_goes_on_belongs_to_the_request_that_began_it,
    ],
}

/// The line that is this text, once it is there.
async fn line(function: &TestFunction, text: &str) -> Value {
    function.logs(text, 1).await;
    let lines = function.lines().await;
    lines.iter().find(|line| line["text"] == text).unwrap_or_else(|| panic!("no such line: {lines:?}")).clone()
}

async fn every_line_says_who_wrote_it_and_when(kind: Kind) {
    let host = TestHost::start().await;
    let function = kind.deploy(&host, "speaker", json!({"freezeAfterMs": 0})).await;
    let before = SystemTime::now();
    let reply = function.script(json!([{"print": "out"}, {"eprint": "err"}, "context"])).await;
    function.reaches("parked").await;
    let context = &reply.results()[2];
    for (text, stream) in [("out", "stdout"), ("err", "stderr")] {
        let line = line(&function, text).await;
        assert_eq!(line["stream"], stream);
        assert_eq!((&line["function"], &line["version"]), (&json!("speaker"), &json!("LATEST")));
        assert_eq!((&line["instance"], &line["request"]), (&context["instanceId"], &context["requestId"]));
        assert_eq!(line["request"], reply.header("dormouse-request-id"));
        let time = humantime::parse_rfc3339(line["time"].as_str().unwrap()).unwrap();
        assert!(before - Duration::from_millis(1) <= time && time <= SystemTime::now(), "{line}");
    }
    // A hook has an identifier of its own, which it was told and which stands in its line.
    let lines = function.lines().await;
    let hook = lines.iter().find(|line| line["text"].as_str().unwrap().starts_with("pre-freeze ")).expect("the hook's");
    assert_eq!(hook["text"].as_str().unwrap().split(' ').nth(1), hook["request"].as_str());
}

#[tokio::test]
async fn long_lines_are_cut_and_every_line_says_whose_it_is() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    let long = "dormouse!".repeat(100_000 / 9);
    let reply = probe.script(json!([{"print": long}, {"eprint": "oh\r"}, {"print": "a\nb"}, "context"])).await;
    let context = &reply.results()[3];
    let lines = probe.lines().await;
    let own: Vec<&Value> = lines.iter().filter(|line| line["request"] == context["requestId"]).collect();
    assert!(own.iter().all(|line| line["instance"] == context["instanceId"]), "{own:?}");
    let written = |stream: &str| -> Vec<&str> {
        own.iter().filter(|line| line["stream"] == stream).map(|line| line["text"].as_str().unwrap()).collect()
    };
    let (out, err) = (written("stdout"), written("stderr"));
    let (pieces, rest) = out.split_at(out.len() - 2);
    assert!(pieces.len() >= 4 && pieces.iter().all(|piece| piece.len() <= LINE_BYTES_MAX), "{} pieces", pieces.len());
    assert_eq!(pieces.concat(), long, "nothing is lost at the cuts");
    assert_eq!(rest, ["a", "b"]);
    assert_eq!(err, ["oh"]);
}

async fn a_line_belongs_to_the_request_whose_task_wrote_it(kind: Kind) {
    let host = TestHost::start().await;
    let gate = Gate::closed().await;
    let settings = json!({"concurrency": 2, "maxInstances": 1, "allowedOutboundHosts": ["127.0.0.1"]});
    let function = kind.deploy(&host, "function", settings).await;
    let other = function.script_in_background(json!([gate.step(), {"print": "mine"}]));
    let held = gate.arrival().await;
    let writer = function.script(json!([{"print": "whose is this?"}])).await;
    held.release().await;
    let other = other.await.unwrap();
    assert_eq!(line(&function, "whose is this?").await["request"], writer.header("dormouse-request-id"));
    assert_eq!(line(&function, "mine").await["request"], other.header("dormouse-request-id"));
}

/// One at a time or two at once: what a request leaves running writes on its behalf.
async fn a_line_of_a_task_that_goes_on_belongs_to_the_request_that_began_it(kind: Kind) {
    for concurrency in [1, 2] {
        let host = TestHost::start().await;
        let settings = json!({"concurrency": concurrency, "maxInstances": 1, "freezeAfterMs": 10_000});
        let function = kind.deploy(&host, "function", settings).await;
        let first = function.script(json!([{"spawn-print": [400, "beside"]}, {"spawn-print": [1200, "after"]}])).await;
        let second = function.script(json!([{"sleep-ms": 800}, {"print": "own"}])).await;
        let third = function.script_in_background(json!([{"sleep-ms": 800}]));
        for text in ["beside", "after"] {
            let line = line(&function, text).await;
            assert_eq!(line["request"], first.header("dormouse-request-id"), "at {concurrency} at once: {line}");
        }
        assert_eq!(line(&function, "own").await["request"], second.header("dormouse-request-id"));
        assert_eq!(third.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_line_that_may_be_of_several_requests_says_so() {
    let host = TestHost::start().await;
    let function = host.deploy("function", "guest-probe", json!({"freezeAfterMs": 30_000})).await;
    function.script(json!([{"spawn-print": [1500, "of a request long ago"]}])).await;
    for _ in 0..ANSWERED_MAX {
        function.script(json!([{"spawn-ticker-ms": 10_000}])).await;
    }
    let line = line(&function, "of a request long ago").await;
    assert_eq!((&line["requestUnknown"], line.get("request")), (&json!(true), None), "{line}");
    let shown = crate::support::dormouse().args(["logs", "function", "--admin", &host.admin]).output().await.unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.lines().any(|line| line.ends_with(" ? stdout of a request long ago")), "{shown}");
}

#[tokio::test]
async fn yesterdays_lines_can_be_read_after_a_restart_and_after_a_kill() {
    let host = TestHost::start().await;
    let function = host.deploy("probe", "guest-probe", json!({})).await;
    let reply = function.script(json!([{"print": "before the restart"}])).await;
    function.reaches("parked").await;
    let host = host.restart().await;
    let function = host.function("probe");
    let of_request = format!("/v1/functions/probe/logs?request={}", reply.header("dormouse-request-id"));
    let lines = host.get(&of_request).await.json()["lines"].clone();
    assert_eq!(lines[0]["text"], "before the restart", "{lines}");
    let newest = function.lines().await.last().unwrap()["sequence"].as_u64().unwrap();
    function.script(json!([{"print": "before the kill"}])).await;
    let written = line(&function, "before the kill").await;
    assert!(written["sequence"].as_u64().unwrap() > newest, "the lines are counted on");
    let log_bytes = || std::fs::metadata(host.state_dir().join("logs.sqlite-wal")).map_or(0, |file| file.len());
    // A transaction that follows another one has begun: the one before is whole.
    for _ in 0..2 {
        let before = log_bytes();
        function.script(json!([{"print": "more"}])).await;
        let grown = async || if log_bytes() > before { Ok(()) } else { Err(format!("{before} bytes")) };
        eventually("the file has more lines", grown).await;
    }
    let host = host.kill_and_restart().await;
    assert_eq!(line(&host.function("probe"), "before the kill").await, written);
}

#[tokio::test]
async fn lines_are_searched_and_read_page_by_page_beyond_what_memory_holds() {
    const LINES: u64 = 6000;
    let host = TestHost::start().await;
    let function = host.deploy("probe", "guest-probe", json!({})).await;
    for hundreds in 0..LINES / 100 {
        let steps: Vec<Value> =
            (1..=100).map(|one| json!({"print": format!("line {}", hundreds * 100 + one)})).collect();
        function.script(json!(steps)).await.results();
    }
    let middle = SystemTime::now();
    function.script(json!([{"eprint": "the Last one"}])).await.results();
    let read = async |query: &str| host.get(&format!("/v1/functions/probe/logs?{query}")).await.json();
    let texts = |answer: &Value| -> Vec<String> {
        let lines = answer["lines"].as_array().unwrap();
        lines.iter().map(|line| line["text"].as_str().unwrap().to_owned()).filter(|text| text.contains("ine")).collect()
    };
    let (mut all, mut query) = (Vec::new(), "text=line&stream=stdout&tail=700".to_owned());
    loop {
        let answer = read(&query).await;
        all.splice(0..0, texts(&answer));
        let Some(next) = answer["next"].as_u64() else { break };
        query = format!("text=line&stream=stdout&tail=700&before={next}");
    }
    assert!(all.into_iter().eq((1..=LINES).map(|number| format!("line {number}"))), "every line, once and in order");
    let found = texts(&read("text=LINE%20171&tail=1000").await);
    assert!(found.len() == 11 && found.iter().all(|text| text.starts_with("line 171")), "{found:?}");
    let last = read("stream=stderr&text=last").await;
    assert_eq!(last["lines"][0]["text"], "the Last one", "{last}");
    let from = humantime::format_rfc3339_micros(middle);
    assert_eq!(read(&format!("from={from}&tail=1000")).await["lines"][0]["text"], "the Last one");
    assert_eq!(texts(&read(&format!("to={from}&tail=1&text=line")).await), [format!("line {LINES}")]);
    for (query, wrong) in [
        ("stream=nowhere", "`stdout`, `stderr` or `host`"),
        ("from=soon", "2027-01-31"),
        ("tail=100001", "0 to 100000"),
        ("follow=true&before=3", "`before`"),
        ("after=3", "`follow`"),
        (&format!("text={}", "a".repeat(1025)), "1024 bytes"),
    ] {
        let detail = host.get(&format!("/v1/functions/probe/logs?{query}")).await.problem(400, "invalid-request");
        assert!(detail.contains(wrong), "{query}: {detail}");
    }
}

#[tokio::test]
async fn a_function_that_is_deployed_anew_has_none_of_the_lines_of_the_one_that_was_deleted() {
    let host = TestHost::start().await;
    let function = host.deploy("probe", "guest-probe", json!({})).await;
    function.script(json!([{"print": "secret"}])).await.results();
    function.reaches("parked").await;
    assert_eq!(function.delete().await.status, 204);
    let host = host.restart().await;
    let function = host.deploy("probe", "guest-probe", json!({})).await;
    function.script(json!([{"print": "new"}])).await.results();
    assert_eq!(function.lines_with("secret").await, 0);
    let first = &function.lines().await[0];
    assert_eq!(first["sequence"], 1, "{first}");
    assert!(first["text"].as_str().unwrap().starts_with("initializer "), "{first}");
}

#[tokio::test]
async fn a_function_that_writes_without_end_keeps_the_file_within_its_bound() {
    let host = TestHost::builder().flag("--logs-max-mb=2").flag("--logs-function-max-mb=1").start().await;
    let function = host.deploy("probe", "guest-probe", json!({})).await;
    let file_mb = || std::fs::metadata(host.state_dir().join("logs.sqlite")).unwrap().len() >> 20;
    for number in 0..60 {
        // Digits of a square root cannot be compressed well.
        let text: String =
            (1..8000u32).map(|digit| format!("{:.12}", f64::from(digit + number * 8000).sqrt().fract())).collect();
        function.script(json!([{"print": text}])).await.results();
        assert!(file_mb() <= 2, "{} MB", file_mb());
    }
    let lines = function.lines().await;
    assert!(lines[0]["sequence"].as_u64().unwrap() > 1, "the oldest lines are gone");
}

#[tokio::test]
async fn levels_of_the_hosts_own_log_are_set_by_module() {
    let said = async |levels: &str| {
        let host = TestHost::builder().flag(&format!("--log-levels={levels}")).start().await;
        let function = host.deploy("probe", "guest-probe", json!({})).await;
        function.script(json!([{"print": "hello from the guest"}])).await.results();
        let log = host.log_kept();
        host.signal(rustix::process::Signal::TERM);
        host.ended().await;
        log.lock().unwrap().clone()
    };
    let (usual, quiet, chatty) =
        (said("info").await, said("error").await, said("error,functions=debug,server=info").await);
    assert!(usual.contains("listening") && !usual.contains("hello from"), "{usual}");
    assert!(!quiet.contains("listening") && !quiet.contains("hello from"), "{quiet}");
    assert!(chatty.contains("listening") && chatty.contains("hello from") && !chatty.contains("room for"), "{chatty}");
    let written = chatty.lines().find(|line| line.contains("hello from")).unwrap();
    assert!(written.contains("function=probe"), "{written}");
    for (levels, wrong) in [("loud", "`loud`"), ("pools=info", "`pools`")] {
        let output = dormouse().args(["serve", "--log-levels", levels]).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(wrong), "{text}");
    }
}

#[tokio::test]
async fn a_function_whose_requests_are_denied_by_the_thousand_does_not_fill_its_log() {
    let host = TestHost::start().await;
    let function = host.deploy("probe", "guest-probe", json!({})).await;
    let far = format!("http://{}x/", "a.".repeat(5000));
    let steps: Vec<Value> = (0..200).map(|_| json!({"http-get": far})).collect();
    function.script(json!(steps)).await.results();
    let denied = function.lines_with("denied").await;
    assert!((1..150).contains(&denied), "{denied} lines of 200");
    eventually("how many were left out is told", async || {
        function.script(json!([{"http-get": far}])).await.results();
        let told = function.lines_with("are left out before it").await;
        if told > 0 { Ok(()) } else { Err(format!("{denied} lines before")) }
    })
    .await;
    assert!(function.lines().await.iter().all(|line| line["text"].as_str().unwrap().len() < 1000));
}

#[tokio::test]
async fn whoever_follows_a_log_sees_the_end_when_its_function_is_deleted_and_the_start_of_another_one() {
    let host = TestHost::start().await;
    let function = host.deploy("probe", "guest-probe", json!({})).await;
    let print: Vec<Value> = (0..50).map(|number| json!({"print": format!("old {number}")})).collect();
    function.script(json!(print)).await.results();
    let follow = async |after: u64| {
        let url = format!("{}/v1/functions/probe/logs?follow=true&after={after}", host.admin);
        host.client.get(url).send().await.unwrap()
    };
    let followed = follow(0).await;
    assert_eq!(function.delete().await.status, 204);
    let all = tokio::time::timeout(Duration::from_secs(30), followed.text()).await.expect("the stream ends").unwrap();
    assert!(all.contains("old 0") && all.contains("old 49"), "{all}");
    let function = host.deploy("probe", "guest-probe", json!({})).await;
    function.script(json!([{"print": "of the new one"}])).await.results();
    // The number is one of the function that was deleted.
    let mut followed = follow(50).await;
    let mut seen = String::new();
    while !seen.contains("of the new one") {
        let chunk = tokio::time::timeout(Duration::from_secs(30), followed.chunk()).await.expect("a line in time");
        seen.push_str(std::str::from_utf8(&chunk.unwrap().expect("the stream goes on")).unwrap());
    }
}

#[tokio::test]
async fn many_searches_at_once_wait_for_each_other_and_the_host_still_ends_in_time() {
    let host = TestHost::start().await;
    let function = host.deploy("probe", "guest-probe", json!({})).await;
    for _ in 0..20 {
        let steps: Vec<Value> = (0..12).map(|_| json!({"print": "\u{1}".repeat(32_000)})).collect();
        function.script(json!(steps)).await.results();
    }
    let before = host.memory_kib("VmRSS");
    let url = format!("{}/v1/functions/probe/logs?tail=100000&text=nowhere", host.admin);
    let asked: Vec<_> = (0..60).map(|_| tokio::spawn(host.client.get(&url).send())).collect();
    for (number, asked) in asked.into_iter().enumerate() {
        if number % 2 == 0 {
            asked.abort();
        } else {
            let status = asked.await.unwrap().unwrap().status();
            assert!(status == 200 || status == 503, "{status}");
        }
    }
    let grown_mb = host.memory_kib("VmRSS").saturating_sub(before) >> 10;
    assert!(grown_mb < 600, "{grown_mb} MB more");
    host.signal(rustix::process::Signal::TERM);
    assert!(host.ended().await.0.success());
}
