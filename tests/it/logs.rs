//! A function's log: whole lines of what its instances write, and whose each of them is.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::{Gate, Kind, TestFunction, TestHost, over_kinds};

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
