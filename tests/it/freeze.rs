//! Pre-freeze, the linger before it, and what stands still afterwards: rules 1 to 4 and 7 of the lifecycle.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{Kind, TestFunction, TestHost, eventually, over_kinds};

over_kinds! {
    pool: [
        a_request_within_the_linger_finds_the_instance_active,
        the_linger_is_as_long_as_it_is_configured_and_may_be_zero,
        a_request_during_pre_freeze_goes_to_a_parked_instance_first,
    ],
    hooks: [
        neither_the_answer_nor_its_reported_duration_waits_for_pre_freeze,
        a_request_during_pre_freeze_waits_for_its_end_if_the_instance_takes_one,
        a_trap_in_pre_freeze_costs_the_instance_and_not_the_reply,
        a_pre_freeze_that_overruns_while_it_waits_goes_on_at_the_next_thaw,
        a_pre_freeze_that_overruns_while_it_burns_cpu_costs_the_instance_its_life,
    ],
    sharing: [
        pre_freeze_is_called_once_after_all_overlapping_requests_ended,
        a_request_during_pre_freeze_goes_to_an_active_instance_with_room_first,
        a_request_during_pre_freeze_joins_the_instance_if_it_takes_several,
        a_background_task_stands_still_while_its_instance_is_parked_and_goes_on_at_the_next_thaw,
    ],
}

/// A probe that freezes without a linger; `script` is what its pre-freeze does.
async fn deploy_with_pre_freeze(kind: Kind, host: &TestHost, script: Value, settings: Value) -> TestFunction {
    let mut all = json!({"freezeAfterMs": 0, "environment": {"PRE_FREEZE": json!({"do": script}).to_string()}});
    for (name, value) in settings.as_object().unwrap() {
        all[name] = value.clone();
    }
    kind.deploy(host, "probe", all).await
}

/// The instance that answered a script whose first step was `context`.
fn instance(results: &Value) -> String {
    results[0]["instanceId"].as_str().expect("an instance").to_owned()
}

/// The log line of the host that contains `text`, once it is there.
async fn host_line(function: &TestFunction, text: &str) -> Value {
    function.logs(text, 1).await;
    let lines = function.lines().await;
    let line = lines.iter().find(|line| line["stream"] == "host" && line["text"].as_str().unwrap().contains(text));
    line.unwrap_or_else(|| panic!("no line of the host with {text:?} in {lines:?}")).clone()
}

/// Rule 1.
async fn pre_freeze_is_called_once_after_all_overlapping_requests_ended(kind: Kind) {
    let host = TestHost::start().await;
    let probe = kind.deploy(&host, "probe", json!({"concurrency": 10, "freezeAfterMs": 0})).await;
    probe.script(json!([])).await;
    probe.reaches("parked").await;
    let began = Instant::now();
    probe.script(json!([{"sleep-ms": 200}])).await;
    let alone = began.elapsed();
    let mut quickest = Duration::MAX;
    for round in 2..=6 {
        probe.reaches("parked").await;
        let began = Instant::now();
        let replies = join_all((0..10).map(|_| probe.script(json!([{"sleep-ms": 200}])))).await;
        quickest = quickest.min(began.elapsed());
        // What a reply carries was counted when its request ended: no pre-freeze of this round came before any of them.
        assert!(replies.iter().all(|reply| reply.state()["freezes"] == round), "round {round}: {replies:?}");
        assert!(replies.iter().any(|reply| reply.state()["maxInFlight"] == 10), "round {round}: {replies:?}");
        assert_eq!(probe.reaches("parked").await.len(), 1);
        assert_eq!(probe.lines_with("pre-freeze ").await, round + 1, "the first request and each round froze once");
    }
    // One after another they would take ten times as long as one. The best round counts, for machines with other work.
    assert!(quickest < alone * 5, "{quickest:?}, and {alone:?} alone");
}

/// Rule 1.
async fn neither_the_answer_nor_its_reported_duration_waits_for_pre_freeze(kind: Kind) {
    const HOOK_MS: f64 = 2000.0;
    for hook in [json!({"sleep-ms": HOOK_MS as u64}), json!({"spin-ms": HOOK_MS as u64})] {
        let host = TestHost::start().await;
        let probe = deploy_with_pre_freeze(kind, &host, json!([hook, {"print": "hook over"}]), json!({})).await;
        let reply = probe.script(json!([])).await;
        assert_eq!(probe.lines_with("hook over").await, 0, "the reply came while the hook ran");
        assert!(reply.timing("handler") < HOOK_MS && reply.timing("exec") < HOOK_MS, "{reply:?}");
        probe.logs("hook over", 1).await;
        let record = eventually("the invocation's record", async || {
            host.invocations().await.pop().ok_or_else(|| "none".to_owned())
        });
        assert!(record.await["handlerMs"].as_f64().unwrap() < HOOK_MS);
        probe.reaches("parked").await;
    }
}

/// Rule 2.
async fn a_request_within_the_linger_finds_the_instance_active(kind: Kind) {
    let host = TestHost::start().await;
    let probe = kind.deploy(&host, "probe", json!({"freezeAfterMs": 60_000})).await;
    probe.script(json!([])).await;
    let second = probe.script(json!([])).await;
    assert_eq!(second.start(), "active");
    assert_eq!(second.state()["requests"], 2);
    assert_eq!(probe.states().await, ["active"]);
    assert_eq!(probe.lines_with("pre-freeze").await, 0);
}

/// Rule 2.
async fn the_linger_is_as_long_as_it_is_configured_and_may_be_zero(kind: Kind) {
    let none = lingers_ms(kind, json!({"freezeAfterMs": 0})).await;
    let default = lingers_ms(kind, json!({})).await;
    let long = lingers_ms(kind, json!({"freezeAfterMs": 400})).await;
    assert!(none < default && default >= 9.0, "{none} ms without a linger, {default} by default");
    assert!(long >= 399.0 && long < 400.0 + 2.0 * default, "{long} ms with one of 400, {default} by default");
}

/// How long an instance stays awake after its request: the least of several times, for machines with other work.
async fn lingers_ms(kind: Kind, settings: Value) -> f64 {
    let host = TestHost::start().await;
    let probe = kind.deploy(&host, "probe", settings).await;
    let mut least = f64::MAX;
    for round in 1..=5 {
        probe.script(json!([])).await;
        probe.reaches("parked").await;
        let window = eventually("the window's record", async || {
            let mut windows = host.windows().await;
            windows.retain(|window| window["end"].is_string());
            if windows.len() == round { Ok(windows.pop().unwrap()) } else { Err(format!("{windows:?}")) }
        });
        let window = window.await;
        // Requests and hooks are duration, the linger is not: it is what an open window has beyond them.
        least = least.min(window["openMs"].as_f64().unwrap() - window["durationMs"].as_f64().unwrap());
    }
    least
}

/// Rule 3: another instance that is parked.
async fn a_request_during_pre_freeze_goes_to_a_parked_instance_first(kind: Kind) {
    let host = TestHost::start().await;
    let probe = deploy_with_pre_freeze(kind, &host, json!([{"sleep-ms": 1500}]), json!({})).await;
    let overlapping = [json!([{"sleep-ms": 500}]), json!([{"sleep-ms": 500}])];
    join_all(overlapping.map(|steps| probe.script(steps))).await;
    assert_eq!(probe.reaches("parked").await.len(), 2);
    let first = probe.script(json!(["context"])).await;
    let second = probe.script(json!(["context"])).await;
    assert_eq!((first.start(), second.start()), ("parked", "parked"));
    assert_ne!(instance(&first.results()), instance(&second.results()));
}

/// Rule 3: another instance that is active and has room.
async fn a_request_during_pre_freeze_goes_to_an_active_instance_with_room_first(kind: Kind) {
    let host = TestHost::start().await;
    let settings = json!({"concurrency": 2, "lifecycle": {"preFreeze": {"timeoutMs": 30_000}}});
    let probe =
        deploy_with_pre_freeze(kind, &host, json!([{"sleep-ms": 4000}, {"print": "hook over"}]), settings).await;
    let long = probe.script_in_background(json!([{"sleep-ms": 4000}]));
    let short = probe.script_in_background(json!(["context", {"sleep-ms": 700}]));
    eventually("an instance with two requests", async || {
        let instances = probe.instances().await;
        if instances.iter().any(|instance| instance["inFlight"] == 2) { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
    let elsewhere = probe.script(json!(["context"])).await;
    let short = short.await.unwrap();
    let next = probe.script(json!(["context"])).await;
    assert_eq!(probe.lines_with("hook over").await, 0, "the other instance was still in pre-freeze");
    assert_ne!(instance(&elsewhere.results()), instance(&short.results()));
    assert_eq!(instance(&next.results()), instance(&short.results()));
    assert_eq!(next.start(), "active");
    assert_eq!(long.await.unwrap().status, 200);
}

/// Rule 3: no other instance, concurrency above 1.
async fn a_request_during_pre_freeze_joins_the_instance_if_it_takes_several(kind: Kind) {
    let host = TestHost::start().await;
    let hook = json!([{"sleep-ms": 1500}, {"print": "hook over"}]);
    let probe = deploy_with_pre_freeze(kind, &host, hook, json!({"concurrency": 2})).await;
    probe.script(json!([])).await;
    probe.reaches("freezing").await;
    let second = probe.script(json!([])).await;
    assert_eq!(probe.lines_with("hook over").await, 0, "the reply came while the hook ran");
    assert_eq!(second.start(), "active");
    assert_eq!(second.state()["requests"], 2);
    assert_eq!(probe.instances().await.len(), 1);
    // The freeze was cancelled; the next one has a call of its own.
    assert_eq!(probe.logs("pre-freeze ", 2).await, 2);
    assert_eq!(probe.reaches("parked").await[0]["windows"], 1, "it was not parked in between");
    assert_eq!(probe.lines_with("hook over").await, 2);
    assert_eq!(probe.lines_with("pre-freeze ").await, 2);
}

/// Rule 3: no other instance, concurrency 1.
async fn a_request_during_pre_freeze_waits_for_its_end_if_the_instance_takes_one(kind: Kind) {
    let host = TestHost::start().await;
    let hook = json!([{"sleep-ms": 1000}, {"print": "hook over"}]);
    let probe = deploy_with_pre_freeze(kind, &host, hook, json!({})).await;
    probe.script(json!([])).await;
    probe.reaches("freezing").await;
    let second = probe.script(json!(["log", {"print": "second ran"}])).await;
    assert_eq!(second.state()["requests"], 2, "the same instance answered");
    assert_eq!(second.start(), "active");
    let calls: Vec<String> = serde_json::from_value(second.results()[0].clone()).unwrap();
    let calls: Vec<&str> = calls.iter().map(|call| call.split(':').next().unwrap()).collect();
    assert_eq!(calls, ["initializer", "handler", "pre-freeze", "handler"]);
    assert_eq!(probe.reaches("parked").await.len(), 1);
    let lines = probe.lines().await;
    let texts = lines.iter().filter(|line| line["stream"] == "stdout").map(|line| line["text"].as_str().unwrap());
    let words: Vec<&str> = texts.map(|text| text.split(' ').next().unwrap()).collect();
    // The second request waits for the end of the hook, which is called again before the next freeze.
    assert_eq!(words, ["initializer", "pre-freeze", "hook", "second", "pre-freeze", "hook"]);
}

/// Rule 4.
async fn a_background_task_stands_still_while_its_instance_is_parked_and_goes_on_at_the_next_thaw(kind: Kind) {
    let host = TestHost::start().await;
    let probe = kind.deploy(&host, "probe", json!({"freezeAfterMs": 0})).await;
    let before = probe.script(json!([{"spawn-ticker-ms": 5}, {"sleep-ms": 300}, "ticks"])).await.state();
    let before = before["ticks"].as_u64().unwrap();
    assert!(before > 5, "{before} ticks");
    probe.reaches("parked").await;
    // The rule is about what does not happen in a stretch of time. At 5 ms a tick there would be 400.
    sleep(Duration::from_secs(2)).await;
    let after = probe.script(json!(["ticks", {"sleep-ms": 300}, "ticks"])).await.results();
    let thawed = after[0].as_u64().unwrap();
    assert!(thawed <= before + 10, "{before} before, {thawed} after");
    assert!(after[2].as_u64().unwrap() > thawed + 5, "it goes on: {after}");
}

/// Rule 4.
#[tokio::test]
async fn the_epoch_ticker_stands_still_while_nothing_is_active() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"freezeAfterMs": 0})).await;
    let before = host.waits_of("epoch");
    probe.script(json!([{"spin-ms": 500}])).await;
    let ticked = host.waits_of("epoch") - before;
    assert!(ticked > 50, "{ticked} ticks in half a second of execution");
    probe.reaches("parked").await;
    eventually("a ticker that stands still", async || {
        let before = host.waits_of("epoch");
        // The rule is about what does not happen in a stretch of time; it would tick three hundred times.
        sleep(Duration::from_millis(300)).await;
        let ticked = host.waits_of("epoch") - before;
        if ticked == 0 { Ok(()) } else { Err(format!("{ticked} ticks")) }
    })
    .await;
}

/// Rule 4.
#[tokio::test]
async fn a_thousand_parked_instances_use_no_cpu() {
    let host = TestHost::builder().flag("--instances-max=1100").start().await;
    // Each has a background task that would run every 5 ms if anybody polled it.
    let initializer = json!({"do": [{"spawn-ticker-ms": 5}]}).to_string();
    let settings = json!({
        "minInstances": 1000, "maxInstances": 1000, "freezeAfterMs": 0, "environment": {"INITIALIZER": &initializer},
    });
    let probe = host.deploy("probe", "guest-probe", settings).await;
    eventually("a thousand parked instances", async || {
        let parked = host.get("/v1/functions/probe").await.json()["instances"]["parked"].clone();
        if parked == 1000 { Ok(()) } else { Err(parked.to_string()) }
    })
    .await;
    let one = host.deploy("one", "guest-probe", json!({"environment": {"INITIALIZER": initializer}})).await;
    one.script(json!([])).await;
    let wait = async || {
        one.script(json!([{"sleep-ms": 2000}])).await;
    };
    let awake = host.cpu_of_all(wait()).await;
    one.reaches("parked").await;
    // The rule is about a stretch of time. The ledger may have work left from the starts, hence several stretches.
    let mut least = Duration::MAX;
    for _ in 0..5 {
        least = least.min(host.cpu_of_all(sleep(Duration::from_secs(2))).await);
        if least < awake {
            break;
        }
    }
    assert!(least < awake, "{least:?} of CPU in 2 s; a single one that is awake took {awake:?}");
    assert_eq!(probe.script(json!([])).await.start(), "parked");
}

/// Rule 7.
async fn a_trap_in_pre_freeze_costs_the_instance_and_not_the_reply(kind: Kind) {
    let host = TestHost::start().await;
    let probe = deploy_with_pre_freeze(kind, &host, json!(["trap"]), json!({})).await;
    let first = probe.script(json!(["context"])).await;
    let id = instance(&first.results());
    probe.is_gone().await;
    let line = host_line(&probe, "instance crashed").await;
    assert_eq!(line["instance"], id);
    let hook = probe.lines().await.into_iter().find(|line| line["text"].as_str().unwrap().starts_with("pre-freeze "));
    let request = hook.expect("the hook printed")["text"].as_str().unwrap().split(' ').nth(1).unwrap().to_owned();
    assert_eq!(line["request"], request, "the hook's own request");
    assert_eq!(host.metric("dormouse_hook_failures_total{hook=\"pre-freeze\",failure=\"crashed\"}").await, 1.0);
    let counter = format!("dormouse_instance_crashes_total{{trap=\"{}\"}}", kind.trap());
    assert_eq!(host.metric(&counter).await, 1.0);
    let log = host.log();
    let (_, told) = log.split_once("instance crashed").expect("the operator is told");
    assert!(told.contains("probe") && told.contains(&id) && told.contains(&request), "{told}");
    let second = probe.script(json!([])).await;
    assert_eq!((second.status, second.start()), (200, "cold"));
    assert_eq!(probe.lines_with("pre-stop").await, 0);
}

/// Rule 7.
async fn a_pre_freeze_that_overruns_while_it_waits_goes_on_at_the_next_thaw(kind: Kind) {
    let host = TestHost::start().await;
    let hook = json!([{"sleep-ms": 1000}, {"print": "hook over"}]);
    let settings = json!({"lifecycle": {"preFreeze": {"timeoutMs": 100}}});
    let probe = deploy_with_pre_freeze(kind, &host, hook, settings).await;
    assert_eq!(probe.script(json!([])).await.status, 200);
    probe.reaches("parked").await;
    let line = host_line(&probe, "pre-freeze did not end within 100 ms").await;
    assert!(line["request"].is_string(), "{line}");
    assert_eq!(host.metric("dormouse_hook_failures_total{hook=\"pre-freeze\",failure=\"timed-out\"}").await, 1.0);
    // The rule is about what does not happen: left alone, the hook would be over by then.
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(probe.lines_with("hook over").await, 0);
    let second = probe.script(json!([{"sleep-ms": 300}])).await;
    assert_eq!((second.start(), second.state()["requests"].as_u64()), ("parked", Some(2)));
    assert_eq!(probe.logs("hook over", 1).await, 1);
}

/// Rule 7.
async fn a_pre_freeze_that_overruns_while_it_burns_cpu_costs_the_instance_its_life(kind: Kind) {
    let host = TestHost::start().await;
    let settings = json!({"lifecycle": {"preFreeze": {"timeoutMs": 100}}});
    let probe = deploy_with_pre_freeze(kind, &host, json!(["spin-forever"]), settings).await;
    let first = probe.script(json!(["context"])).await;
    assert_eq!(first.status, 200);
    probe.is_gone().await;
    let line = host_line(&probe, "holds the CPU").await;
    assert_eq!(line["instance"], instance(&first.results()));
    assert!(line["request"].is_string(), "{line}");
    assert_eq!(host.metric("dormouse_hook_failures_total{hook=\"pre-freeze\",failure=\"timed-out\"}").await, 1.0);
    assert_eq!(host.metric("dormouse_instance_crashes_total{trap=\"hook-timeout\"}").await, 1.0);
    assert_eq!(probe.lines_with("pre-stop").await, 0);
    assert_eq!(probe.script(json!([])).await.start(), "cold");
}
