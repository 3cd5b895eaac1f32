//! What every kind of function must show, whatever its language: a short set that all kinds run by default. The other
//! files test one subject each, by default over the kinds whose path in the host differs there; see `support::Kind`.

use serde_json::{Value, json};

use crate::support::{Kind, TestFunction, TestHost, over_kinds};

over_kinds! {
    whole: [
        it_is_initialized_keeps_its_state_through_a_freeze_and_stops_in_order,
        its_errors_and_crashes_are_told_to_callers_and_in_the_log,
        it_is_stopped_at_its_timeout_whether_it_waits_or_computes,
    ],
}

/// The functions' own words about their hooks, in order.
async fn hooks_told(function: &TestFunction) -> Vec<String> {
    let lines = function.lines().await;
    let texts = lines.iter().filter(|line| line["stream"] == "stdout").filter_map(|line| line["text"].as_str());
    texts.filter_map(|text| text.split(' ').next()).map(str::to_owned).collect()
}

async fn it_is_initialized_keeps_its_state_through_a_freeze_and_stops_in_order(kind: Kind) {
    let host = TestHost::start().await;
    let function = kind.deploy(&host, "function", json!({"freezeAfterMs": 0})).await;
    let first = function.script(json!(["count", {"print": "handler ran"}, "context", "log"])).await;
    assert_eq!((first.start(), first.results()[0].as_u64()), ("cold", Some(1)));
    let calls: Vec<Value> = serde_json::from_value(first.results()[3].clone()).unwrap();
    assert_eq!(calls.first(), Some(&json!("initializer")), "{calls:?}");
    let instance = function.reaches("parked").await[0]["id"].clone();
    assert_eq!(first.results()[2]["instanceId"], instance);
    let second = function.script(json!(["count"])).await;
    assert_eq!((second.start(), second.results()), ("parked", json!([2])));
    function.reaches("parked").await;
    let order = format!("/v1/instances/{}/stop", instance.as_str().unwrap());
    assert_eq!(host.post(&order).await.status, 202);
    function.is_gone().await;
    function.logs("pre-stop ", 1).await;
    assert_eq!(hooks_told(&function).await, ["initializer", "handler", "pre-freeze", "pre-freeze", "pre-stop"]);
    let lines = function.lines().await;
    let line = lines.iter().find(|line| line["text"] == "handler ran").expect("what it printed");
    assert_eq!((&line["instance"], line["request"].as_str()), (&instance, Some(first.header("dormouse-request-id"))));
}

async fn its_errors_and_crashes_are_told_to_callers_and_in_the_log(kind: Kind) {
    let host = TestHost::start().await;
    let function = kind.deploy(&host, "function", json!({})).await;
    let failed = function.script(json!(["count", {"fail": "no such order"}])).await.problem(500, "function-failed");
    assert!(failed.contains("no such order"), "{failed}");
    assert_eq!(function.script(json!(["count"])).await.results(), json!([2]), "an error costs no instance");
    let crashed = function.script(json!(["trap"])).await;
    assert!(crashed.problem(502, "function-crashed").contains(kind.trap()), "{crashed:?}");
    function.logs("instance crashed", 1).await;
    function.is_gone().await;
    assert_eq!(function.script(json!(["count"])).await.results(), json!([1]), "a new instance serves");
}

async fn it_is_stopped_at_its_timeout_whether_it_waits_or_computes(kind: Kind) {
    let host = TestHost::start().await;
    let function = kind.deploy(&host, "function", json!({"timeoutMs": 300})).await;
    for step in [json!({"sleep-ms": 25_000}), json!("spin-forever")] {
        function.script(json!([step])).await.problem(504, "function-timed-out");
    }
    function.is_gone().await;
    assert_eq!(
        function.lines_with("pre-stop ").await,
        1,
        "one that waited has its pre-stop, one that computes has not"
    );
}
