//! Starting, parking, waking and stopping; what hooks may be; concurrency and crashes: rules 5, 6, 8 and 11.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Kind, TestFunction, TestHost, TestServer, eventually, over_kinds};

over_kinds! {
    pool: [
        a_new_configuration_stops_instances_of_the_old_once_their_requests_ended,
        deletion_stops_parked_instances_in_order,
        an_operator_stops_an_instance_in_order,
        the_longest_parked_instance_is_stopped_in_order_when_the_host_needs_its_room,
        an_instance_takes_one_request_at_a_time_by_default,
    ],
    calls: [
        a_parked_instance_keeps_its_memory,
        a_crash_is_logged_and_counted_and_calls_no_pre_stop,
    ],
    hooks: [
        an_idle_instance_is_woken_for_pre_stop_and_goes,
        a_pre_stop_that_does_not_end_in_order_keeps_no_instance_alive,
        a_hook_with_an_empty_entry_is_not_called,
        each_hook_is_held_to_its_own_timeout,
    ],
    sharing: [
        the_initializer_runs_once_before_the_first_request,
        a_failed_initializer_answers_those_who_waited_and_the_next_request_starts_a_new_instance,
        two_hundred_requests_share_one_instance,
        a_crash_takes_every_request_of_its_instance_and_no_other,
    ],
}

/// A probe that freezes without a linger, with more settings if needed.
async fn deploy(kind: Kind, host: &TestHost, name: &str, settings: Value) -> TestFunction {
    let mut all = json!({"freezeAfterMs": 0});
    for (name, value) in settings.as_object().unwrap() {
        all[name] = value.clone();
    }
    kind.deploy(host, name, all).await
}

/// Waits for the one pre-stop of an instance that served so many requests, and for the reason being counted.
async fn stopped_once(host: &TestHost, function: &TestFunction, requests: u32, reason: &str) {
    function.logs("pre-stop ", 1).await;
    let counter = format!("dormouse_instance_stops_total{{reason=\"{reason}\"}}");
    eventually(&format!("a stop because of {reason}"), async || {
        let stops = host.metric(&counter).await;
        if stops == 1.0 { Ok(()) } else { Err(stops.to_string()) }
    })
    .await;
    assert_eq!(function.lines_with("pre-stop ").await, 1);
    assert_eq!(function.lines_with(&format!("requests={requests}")).await, 1, "its memory was kept");
    assert_eq!(host.metric("dormouse_instance_crashes_total").await, 0.0);
}

fn environment(variable: &str, steps: Value) -> Value {
    json!({"environment": {variable: json!({"do": steps}).to_string()}})
}

/// The instances whose initializer was called, in that order.
async fn initialized(function: &TestFunction) -> Vec<Value> {
    let mut lines = function.lines().await;
    lines.retain(|line| line["stream"] == "stdout" && line["text"].as_str().unwrap().starts_with("initializer "));
    lines.iter().map(|line| line["instance"].clone()).collect()
}

async fn a_parked_instance_keeps_its_memory(kind: Kind) {
    let host = TestHost::start().await;
    let counter = kind.deploy(&host, "counter", json!({"freezeAfterMs": 0})).await;
    let first = counter.script(json!(["count"])).await;
    assert_eq!(first.results(), json!([1]));
    assert_eq!(first.start(), "cold");
    counter.reaches("parked").await;
    let second = counter.script(json!(["count"])).await;
    assert_eq!(second.results(), json!([2]));
    assert_eq!(second.start(), "parked");
}

/// Rule 5: idle too long.
async fn an_idle_instance_is_woken_for_pre_stop_and_goes(kind: Kind) {
    let host = TestHost::start().await;
    let probe = deploy(kind, &host, "probe", json!({"idleTimeoutMs": 500})).await;
    for _ in 0..3 {
        probe.script(json!([])).await;
    }
    stopped_once(&host, &probe, 3, "idle").await;
    probe.is_gone().await;
    assert_eq!(probe.script(json!([])).await.start(), "cold");
}

/// Rule 5: new code.
#[tokio::test]
async fn new_code_stops_parked_instances_of_the_old_in_order() {
    let host = TestHost::start().await;
    let probe = deploy(Kind::Event, &host, "probe", json!({})).await;
    probe.script(json!([])).await;
    probe.script(json!([])).await;
    probe.reaches("parked").await;
    assert_eq!(host.put_code("probe", tests::component("guest-sync"), &json!({})).await.status, 200);
    stopped_once(&host, &probe, 2, "updated").await;
    assert_eq!(probe.script(json!(["count"])).await.results()[0], 1, "the new code answers");
}

/// Rule 5: new configuration. Requests under way end first.
async fn a_new_configuration_stops_instances_of_the_old_once_their_requests_ended(kind: Kind) {
    let host = TestHost::start().await;
    let probe = deploy(kind, &host, "probe", json!({})).await;
    let under_way = probe.script_in_background(json!(["env", {"sleep-ms": 1000}]));
    probe.instance_has_in_flight(1).await;
    assert_eq!(probe.configure(json!({"environment": {"NEW": "1"}})).await.status, 200);
    let next = probe.script(json!(["env"])).await;
    assert!(!under_way.is_finished());
    assert_eq!(next.results()[0], json!({"NEW": "1"}));
    assert_eq!(under_way.await.unwrap().results()[0], json!({}));
    stopped_once(&host, &probe, 1, "updated").await;
}

/// Rule 5: what does not matter to instances stops none.
#[tokio::test]
async fn a_new_description_leaves_the_instances_alone() {
    let host = TestHost::start().await;
    let probe = deploy(Kind::Event, &host, "probe", json!({})).await;
    probe.script(json!([])).await;
    probe.reaches("parked").await;
    assert_eq!(probe.configure(json!({"description": "new"})).await.status, 200);
    assert_eq!(probe.script(json!([])).await.start(), "parked");
}

/// Rule 5: deleted. A deleted function has no log, so its hook tells a server.
async fn deletion_stops_parked_instances_in_order(kind: Kind) {
    let host = TestHost::start().await;
    let server = TestServer::start("thanks", Duration::ZERO).await;
    let settings = json!({
        "environment": {"HOOK_URL": format!("http://{}/hook", server.address)},
        "allowedOutboundHosts": [server.address.to_string()],
    });
    let probe = deploy(kind, &host, "probe", settings).await;
    probe.script(json!([])).await;
    let parked = probe.reaches("parked").await;
    assert_eq!(probe.delete().await.status, 204);
    eventually("pre-stop", async || {
        let received = server.received();
        let told = received.iter().filter_map(|request| serde_json::from_str::<Value>(&request.body).ok());
        let stops: Vec<Value> = told.filter(|told| told["hook"] == "pre-stop").collect();
        let expected = json!({"hook": "pre-stop", "instance": parked[0]["id"], "requests": 1});
        if stops == [expected] { Ok(()) } else { Err(format!("{received:?}")) }
    })
    .await;
    probe.script(json!([])).await.problem(404, "function-not-found");
    eventually("the stop being counted", async || {
        let stops = host.metric("dormouse_instance_stops_total{reason=\"deleted\"}").await;
        if stops == 1.0 { Ok(()) } else { Err(stops.to_string()) }
    })
    .await;
}

/// Rule 5: an operator's order, to a parked and to a busy instance.
async fn an_operator_stops_an_instance_in_order(kind: Kind) {
    for busy in [false, true] {
        let host = TestHost::start().await;
        let probe = deploy(kind, &host, "probe", json!({})).await;
        let request = probe.script_in_background(json!([{"sleep-ms": if busy { 1000 } else { 0 }}]));
        let instances = probe.reaches(if busy { "active" } else { "parked" }).await;
        let path = format!("/v1/instances/{}/stop", instances[0]["id"].as_str().unwrap());
        assert_eq!(host.post(&path).await.status, 202);
        assert_eq!(request.await.unwrap().status, 200, "busy: {busy}");
        stopped_once(&host, &probe, 1, "operator").await;
        probe.is_gone().await;
        assert_eq!(host.post(&path).await.status, 404);
    }
}

/// Rule 5: evicted for room.
async fn the_longest_parked_instance_is_stopped_in_order_when_the_host_needs_its_room(kind: Kind) {
    let host = TestHost::builder().flag("--instances-max=2").start().await;
    let oldest = deploy(kind, &host, "oldest", json!({})).await;
    let newer = deploy(kind, &host, "newer", json!({})).await;
    let newest = deploy(kind, &host, "newest", json!({})).await;
    oldest.script(json!([])).await;
    oldest.reaches("parked").await;
    newer.script(json!([])).await;
    newer.reaches("parked").await;
    assert_eq!(newest.script(json!([])).await.start(), "cold");
    stopped_once(&host, &oldest, 1, "evicted").await;
    oldest.is_gone().await;
    assert_eq!(newer.script(json!([])).await.start(), "parked");
}

/// Rule 5: after a trap there is nobody left to ask.
async fn a_crash_is_logged_and_counted_and_calls_no_pre_stop(kind: Kind) {
    let host = TestHost::start().await;
    let probe = deploy(kind, &host, "probe", json!({})).await;
    probe.script(json!([])).await;
    let instances = probe.reaches("parked").await;
    let crashed = probe.script(json!(["trap"])).await;
    assert!(crashed.problem(502, "function-crashed").contains(kind.trap()), "{crashed:?}");
    probe.is_gone().await;
    probe.logs("instance crashed", 1).await;
    let lines = probe.lines().await;
    let line = lines.iter().find(|line| line["text"].as_str().unwrap().contains("instance crashed")).unwrap();
    assert_eq!((&line["stream"], &line["instance"]), (&json!("host"), &instances[0]["id"]));
    assert_eq!(line["request"], crashed.header("dormouse-request-id"));
    let counter = format!("dormouse_instance_crashes_total{{trap=\"{}\"}}", kind.trap());
    assert_eq!(host.metric(&counter).await, 1.0);
    assert_eq!(probe.lines_with("pre-stop").await, 0);
    assert_eq!(host.metric("dormouse_hook_calls_total{hook=\"pre-stop\"}").await, 0.0);
    let next = probe.script(json!(["count"])).await;
    assert_eq!((next.start(), next.results()), ("cold", json!([1])));
}

/// Rules 5 and 7: a pre-stop that traps, fails to end or burns is cut off, logged with its request, and counted.
async fn a_pre_stop_that_does_not_end_in_order_keeps_no_instance_alive(kind: Kind) {
    for (steps, failure) in [
        (json!(["trap"]), "crashed"),
        (json!([{"sleep-ms": 25_000}]), "timed-out"),
        (json!(["spin-forever"]), "timed-out"),
    ] {
        let host = TestHost::start().await;
        let mut settings = environment("PRE_STOP", steps);
        settings["lifecycle"] = json!({"preStop": {"timeoutMs": 300}});
        let probe = deploy(kind, &host, "probe", settings).await;
        probe.script(json!([])).await;
        let instances = probe.reaches("parked").await;
        host.post(&format!("/v1/instances/{}/stop", instances[0]["id"].as_str().unwrap())).await;
        probe.is_gone().await;
        let counter = format!("dormouse_hook_failures_total{{hook=\"pre-stop\",failure=\"{failure}\"}}");
        assert_eq!(host.metric(&counter).await, 1.0, "{failure}");
        let lines = probe.lines().await;
        let told = lines.iter().find(|line| line["stream"] == "host").expect("the host tells");
        assert!(told["request"].is_string() && told["instance"] == instances[0]["id"], "{told}");
    }
}

/// Rule 6: disabled.
async fn a_hook_with_an_empty_entry_is_not_called(kind: Kind) {
    let host = TestHost::start().await;
    let off = json!({"handler": ""});
    let lifecycle = json!({"initializer": off, "preFreeze": off, "preStop": off});
    let probe = deploy(kind, &host, "probe", json!({"lifecycle": lifecycle, "idleTimeoutMs": 200})).await;
    assert_eq!(probe.script(json!([])).await.status, 200);
    probe.is_gone().await;
    assert_eq!(host.metric("dormouse_instance_stops_total{reason=\"idle\"}").await, 1.0);
    assert_eq!(host.metric("dormouse_hook_calls_total").await, 0.0);
    assert_eq!(probe.lines_with("pre-").await, 0);
}

/// Rule 6: left out of an update.
#[tokio::test]
async fn a_hook_that_an_update_leaves_out_stays_as_it_is() {
    let host = TestHost::start().await;
    let lifecycle = json!({"preFreeze": {"handler": "", "timeoutMs": 1234}, "preStop": {"timeoutMs": 2345}});
    let probe = deploy(Kind::Event, &host, "probe", json!({"lifecycle": lifecycle})).await;
    assert_eq!(probe.configure(json!({"lifecycle": {"preStop": {"timeoutMs": 99}}})).await.status, 200);
    assert_eq!(probe.configure(json!({"memoryMb": 256})).await.status, 200);
    let settings = host.get("/v1/functions/probe").await.json()["lifecycle"].clone();
    assert_eq!(settings["preFreeze"], json!({"handler": "", "timeoutMs": 1234}));
    assert_eq!(settings["preStop"], json!({"timeoutMs": 99}));
    probe.script(json!([])).await;
    probe.reaches("parked").await;
    assert_eq!(probe.lines_with("pre-freeze").await, 0);
    assert_eq!(probe.configure(json!({"lifecycle": {"preFreeze": {"handler": null}}})).await.status, 200);
    probe.script(json!([])).await;
    assert_eq!(probe.logs("pre-freeze ", 1).await, 1, "the default names the export again");
}

/// Rule 6: entries in the spelling of Function Compute.
#[tokio::test]
async fn an_entry_names_the_export_in_any_spelling() {
    for entry in ["index.preFreeze", "preFreeze", "pre-freeze", "main.pre_freeze"] {
        let host = TestHost::start().await;
        let probe = deploy(Kind::Event, &host, "probe", json!({"lifecycle": {"preFreeze": {"handler": entry}}})).await;
        probe.script(json!([])).await;
        assert_eq!(probe.logs("pre-freeze ", 1).await, 1, "{entry}");
    }
}

/// Rule 6: each hook has an entry of its own, which may be any export of its shape.
#[tokio::test]
async fn a_hook_calls_the_export_that_its_entry_names_and_none_other_is_taken() {
    let host = TestHost::start().await;
    let probe =
        deploy(Kind::Event, &host, "probe", json!({"lifecycle": {"preFreeze": {"handler": "index.preStop"}}})).await;
    probe.script(json!([])).await;
    probe.reaches("parked").await;
    assert_eq!((probe.lines_with("pre-stop ").await, probe.lines_with("pre-freeze ").await), (1, 0));
    let refused = probe.configure(json!({"lifecycle": {"preFreeze": {"handler": "index.nothing"}}})).await;
    assert_eq!(refused.status, 422);
    assert!(refused.json()["detail"].as_str().unwrap().contains("nothing"), "{refused:?}");
    let refused = probe.configure(json!({"lifecycle": {"preFreeze": {"handler": "index.handler"}}})).await;
    assert_eq!(refused.status, 422, "the shape does not fit");
}

/// Rule 6: the bounds of the timeouts, and their default.
#[tokio::test]
async fn the_timeouts_of_hooks_are_bounded() {
    let host = TestHost::start().await;
    let probe = deploy(Kind::Event, &host, "probe", json!({})).await;
    for (hook, most) in [("initializer", 300_000), ("preFreeze", 90_000), ("preStop", 90_000)] {
        let timeout = async || host.get("/v1/functions/probe").await.json()["lifecycle"][hook]["timeoutMs"].clone();
        let set = |ms: u64| json!({"lifecycle": {hook: {"timeoutMs": ms}}});
        assert_eq!(timeout().await, 3000, "{hook}");
        assert_eq!(probe.configure(set(most)).await.status, 200, "{hook}");
        for wrong in [0, most + 1] {
            let refused = probe.configure(set(wrong)).await;
            assert_eq!(refused.status, 422, "{hook} {wrong}");
            assert!(refused.json()["detail"].as_str().unwrap().contains(hook), "{refused:?}");
        }
        assert_eq!(timeout().await, most, "a refused change changes nothing");
    }
}

/// Rule 6: each hook has a timeout of its own.
async fn each_hook_is_held_to_its_own_timeout(kind: Kind) {
    let host = TestHost::start().await;
    let wait = json!({"do": [{"sleep-ms": 25_000}]}).to_string();
    let settings = json!({
        "environment": {"PRE_FREEZE": wait, "PRE_STOP": wait},
        "lifecycle": {"preFreeze": {"timeoutMs": 210}, "preStop": {"timeoutMs": 220}},
        "idleTimeoutMs": 200,
    });
    let probe = deploy(kind, &host, "probe", settings).await;
    probe.script(json!([])).await;
    probe.is_gone().await;
    probe.logs("pre-freeze did not end within 210 ms", 1).await;
    probe.logs("pre-stop did not end within 220 ms", 1).await;
}

/// Rule 8.
async fn the_initializer_runs_once_before_the_first_request(kind: Kind) {
    let host = TestHost::start().await;
    let mut settings = environment("INITIALIZER", json!([{"sleep-ms": 1000}]));
    settings["concurrency"] = json!(10);
    let probe = deploy(kind, &host, "probe", settings).await;
    let replies = join_all((0..5).map(|_| probe.script(json!(["log"])))).await;
    for reply in &replies {
        assert_eq!(reply.start(), "cold", "it came while the instance initialized");
        assert_eq!(reply.results()[0][0], "initializer");
        // The initializer's second is in the start of the first, and in what the others waited for it.
        let waited = reply.timing("start") + reply.timing("queue");
        assert!(reply.timing("handler") < waited, "{reply:?}");
    }
    probe.reaches("parked").await;
    let calls = probe.script(json!(["log"])).await.results()[0].clone();
    let count = calls.as_array().unwrap().iter().filter(|call| *call == "initializer").count();
    assert_eq!(count, 1, "{calls}");
    assert_eq!(probe.lines_with("initializer ").await, 1);
}

/// Rule 8: every way in which an initializer fails.
async fn a_failed_initializer_answers_those_who_waited_and_the_next_request_starts_a_new_instance(kind: Kind) {
    for (ending, status, code) in [
        (json!({"fail": "no luck today"}), 500, "function-failed"),
        (json!("trap"), 502, "function-crashed"),
        (json!({"sleep-ms": 25_000}), 504, "function-timed-out"),
        (json!("spin-forever"), 504, "function-timed-out"),
    ] {
        let host = TestHost::start().await;
        let mut settings = environment("INITIALIZER", json!([{"sleep-ms": 500}, ending]));
        settings["concurrency"] = json!(2);
        settings["maxInstances"] = json!(1);
        settings["lifecycle"] = json!({"initializer": {"timeoutMs": 1500}});
        let probe = deploy(kind, &host, "probe", settings).await;
        for reply in join_all((0..2).map(|_| probe.script(json!([])))).await {
            let detail = reply.problem(status, code);
            assert!(code != "function-failed" || detail.contains("no luck today"), "{reply:?}");
        }
        assert_eq!(initialized(&probe).await.len(), 1, "both waited for the same instance");
        probe.script(json!([])).await.problem(status, code);
        probe.is_gone().await;
        let instances = initialized(&probe).await;
        assert_eq!(instances.len(), 2, "{instances:?}");
        assert_ne!(instances[0], instances[1], "a new instance for the next request");
        assert_eq!(probe.lines_with("pre-stop").await, 0);
        let told = if code == "function-crashed" { "instance crashed" } else { "initializer failed" };
        // Some SDKs write lines like it as well.
        let lines = probe.lines().await;
        let of_host = |line: &&Value| line["stream"] == "host" && line["text"].as_str().unwrap().contains(told);
        assert_eq!(lines.iter().filter(of_host).count(), 2, "{lines:?}");
        assert_eq!(host.metric("dormouse_hook_failures_total{hook=\"initializer\"").await, 2.0);
    }
}

/// Rule 11: the default.
async fn an_instance_takes_one_request_at_a_time_by_default(kind: Kind) {
    let host = TestHost::start().await;
    let probe = kind.deploy(&host, "probe", json!({})).await;
    assert_eq!(host.get("/v1/functions/probe").await.json()["concurrency"], 1);
    let replies = join_all((0..2).map(|_| probe.script(json!([{"sleep-ms": 700}])))).await;
    assert!(replies.iter().all(|reply| reply.state()["maxInFlight"] == 1), "{replies:?}");
    assert_eq!(probe.instances().await.len(), 2);
}

/// Rule 11: the bounds.
#[tokio::test]
async fn concurrency_is_1_to_200() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    for (concurrency, status) in [(0, 422), (1, 200), (200, 200), (201, 422)] {
        let reply = probe.configure(json!({"concurrency": concurrency})).await;
        assert_eq!(reply.status, status, "{concurrency}: {reply:?}");
    }
}

/// Rule 11: two hundred at once in one instance.
async fn two_hundred_requests_share_one_instance(kind: Kind) {
    let host = TestHost::start().await;
    let probe = kind.deploy(&host, "probe", json!({"concurrency": 200, "maxInstances": 1})).await;
    probe.script(json!([])).await;
    let replies = join_all((0..200).map(|_| probe.script(json!([{"sleep-ms": 1500}, "max-in-flight"])))).await;
    let most = replies.iter().map(|reply| reply.results()[1].as_u64().unwrap()).max();
    assert_eq!(most, Some(200));
}

/// Rule 11 and section 3: exports without `async`, and such that are made of functions which block, as C has them.
#[tokio::test]
async fn an_instance_that_blocks_serves_one_request_at_a_time() {
    for (kind, is_async) in [(Kind::Sync, false), (Kind::C, true)] {
        let host = TestHost::start().await;
        let settings = json!({"concurrency": 10, "maxInstances": 1, "freezeAfterMs": 0});
        let function = kind.deploy(&host, "function", settings).await;
        let exports = host.get("/v1/functions/function").await.json()["exports"].clone();
        assert_eq!((&exports["handler"]["async"], &exports["capacity"]["shares"]), (&json!(is_async), &json!(false)));
        let replies = join_all((0..2).map(|_| function.script(json!([{"sleep-ms": 400}, "max-in-flight"])))).await;
        assert!(replies.iter().all(|reply| reply.results()[1] == 1), "{replies:?}");
        // One of them waited for the other's sleep, in the queue and not in the instance.
        let queued = replies.iter().map(|reply| reply.timing("queue")).fold(0.0, f64::max);
        assert!(queued > 300.0, "{kind:?}: {replies:?}");
        assert_eq!(function.reaches("parked").await.len(), 1);
        assert_eq!(function.configure(json!({"maxInstances": 2})).await.status, 200);
        join_all((0..2).map(|_| function.script(json!([{"sleep-ms": 700}])))).await;
        assert_eq!(
            function.reaches("parked").await.len(),
            2,
            "{kind:?}: the second request had an instance of its own"
        );
    }
}

/// Rule 11: a crash takes its own instance and no other.
async fn a_crash_takes_every_request_of_its_instance_and_no_other(kind: Kind) {
    let host = TestHost::start().await;
    let probe = deploy(kind, &host, "probe", json!({"concurrency": 3})).await;
    let spared: Vec<_> = (0..3).map(|_| probe.script_in_background(json!([{"sleep-ms": 3000}]))).collect();
    probe.instance_has_in_flight(3).await;
    let lost: Vec<_> = (0..2).map(|_| probe.script_in_background(json!([{"sleep-ms": 25_000}]))).collect();
    probe.instance_has_in_flight(2).await;
    let crashed = probe.script(json!(["trap"])).await;
    crashed.problem(502, "function-crashed");
    for lost in lost {
        lost.await.unwrap().problem(502, "instance-lost");
    }
    assert_eq!(probe.instances().await.len(), 1);
    for spared in spared {
        assert_eq!(spared.await.unwrap().state()["maxInFlight"], 3);
    }
}
