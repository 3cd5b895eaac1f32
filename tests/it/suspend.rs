//! Suspend and resume, in the middle of execution: rule 10 of the lifecycle.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{Kind, TestFunction, TestHost, eventually, over_kinds};

over_kinds! {
    pool: [
        requests_to_a_suspended_function_wait_and_are_served_after_it,
        a_suspended_instance_that_must_go_ends_its_requests_and_calls_pre_stop,
    ],
    calls: [
        a_suspended_request_goes_on_with_exact_state_and_pays_nothing_for_the_pause,
        a_timeout_stands_still_during_a_suspension_and_goes_on_after_it,
    ],
    hooks: [
        an_instance_suspended_in_pre_freeze_ends_the_hook_and_freezes_anew_after_it,
    ],
    sharing: [
        all_requests_of_an_instance_are_suspended_and_resumed_together,
    ],
}

/// Waits until an instance executed for so long.
async fn executes_for_ms(function: &TestFunction, ms: f64) {
    eventually(&format!("{ms} ms of execution"), async || {
        let instances = function.instances().await;
        let executed = instances.iter().filter_map(|instance| instance["executedMs"].as_f64()).fold(0.0, f64::max);
        if executed >= ms { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
}

/// Waits for the record of the function's last window, and returns it.
async fn only_window(host: &TestHost, function: &str) -> Value {
    eventually("the record of the window", async || {
        let mut windows = host.windows().await;
        windows.retain(|window| window["function"] == function && window["state"] == "ended");
        if windows.len() == 1 { Ok(windows.pop().unwrap()) } else { Err(format!("{windows:?}")) }
    })
    .await
}

/// Rule 10: exact state, no CPU, no charge, and a timeout that stands still.
async fn a_suspended_request_goes_on_with_exact_state_and_pays_nothing_for_the_pause(kind: Kind) {
    let host = TestHost::start().await;
    let through = kind.deploy(&host, "through", json!({"freezeAfterMs": 0})).await;
    let work = json!([{"work": kind.work()}]);
    let expected = through.script(work.clone()).await;
    through.reaches("parked").await;
    let timeout_ms = (3.0 * expected.timing("handler")) as u64 + 1000;
    let paused = kind.deploy(&host, "paused", json!({"freezeAfterMs": 0, "timeoutMs": timeout_ms})).await;
    let request = paused.script_in_background(work);
    executes_for_ms(&paused, 20.0).await;
    host.order("paused", "suspend").await;
    let instances = paused.reaches("suspended").await;
    assert!(!request.is_finished(), "it was suspended in the middle");
    assert_eq!(host.get("/v1/functions/paused").await.json()["instances"]["suspended"], 1);
    // The rule is about what does not happen in a stretch of time, which is longer than the request's timeout.
    let pause_ms = timeout_ms + 500;
    let mut least = Duration::MAX;
    for _ in 0..2 {
        least = least.min(host.cpu_of_all(sleep(Duration::from_millis(pause_ms / 2 + 1))).await);
    }
    // If it ran on in them, it would take all of them, or as much CPU as the same work took before.
    let least_ms = least.as_secs_f64() * 1000.0;
    assert!(least_ms < expected.timing("exec") / 20.0, "{least_ms} ms of CPU, and {expected:?}");
    assert_eq!(paused.instances().await, instances, "nothing moved");
    host.order("paused", "resume").await;
    let reply = request.await.unwrap();
    assert_eq!(reply.results(), expected.results());
    let window = only_window(&host, "paused").await;
    for figure in ["executedMs", "durationMs", "openMs"] {
        assert!(window[figure].as_f64().unwrap() < pause_ms as f64, "the pause is in {figure}: {window}");
    }
    let wall = reply.timing("handler");
    assert!(wall > pause_ms as f64, "{wall} of {pause_ms} ms");
}

/// Rule 10: the same for a guest that waits, and its deadline is there again after the pause.
async fn a_timeout_stands_still_during_a_suspension_and_goes_on_after_it(kind: Kind) {
    let host = TestHost::start().await;
    let probe = kind.deploy(&host, "probe", json!({"timeoutMs": 2000})).await;
    for (steps, status) in [(json!([{"sleep-ms": 1000}]), 200), (json!(["spin-forever"]), 504)] {
        let request = probe.script_in_background(steps);
        eventually("a request in flight", async || {
            let instances = probe.instances().await;
            if instances.iter().any(|instance| instance["inFlight"] == 1) {
                Ok(())
            } else {
                Err(format!("{instances:?}"))
            }
        })
        .await;
        host.order("probe", "suspend").await;
        eventually("a suspended instance", async || {
            let states = probe.states().await;
            if states.contains(&"suspended".to_owned()) { Ok(()) } else { Err(format!("{states:?}")) }
        })
        .await;
        // The rule is about time: longer than the timeout.
        sleep(Duration::from_millis(2500)).await;
        assert!(!request.is_finished());
        host.order("probe", "resume").await;
        assert_eq!(request.await.unwrap().status, status);
    }
}

/// Rule 10: requests wait for a suspended function.
async fn requests_to_a_suspended_function_wait_and_are_served_after_it(kind: Kind) {
    let host = TestHost::start().await;
    let probe = kind.deploy(&host, "probe", json!({"freezeAfterMs": 0})).await;
    probe.script(json!([])).await;
    probe.reaches("parked").await;
    host.order("probe", "suspend").await;
    assert_eq!(host.get("/v1/functions/probe").await.json()["suspended"], true);
    let waiting = probe.script_in_background(json!([]));
    // The rule is about what does not happen in a stretch of time.
    sleep(Duration::from_millis(700)).await;
    assert!(!waiting.is_finished());
    assert_eq!(probe.states().await, ["parked"]);
    host.order("probe", "resume").await;
    let reply = waiting.await.unwrap();
    assert_eq!((reply.status, reply.start()), (200, "parked"));
    assert_eq!(reply.state()["requests"], 2);
    assert!(reply.timing("queue") > 300.0, "{reply:?}");
}

/// Rule 10: a wait for a suspended function is bounded like any other.
#[tokio::test]
async fn a_request_to_a_suspended_function_waits_no_longer_than_the_queue_allows() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"queueTimeoutMs": 300})).await;
    host.order("probe", "suspend").await;
    probe.script(json!([])).await.problem(429, "function-busy");
    host.order("probe", "resume").await;
    assert_eq!(probe.script(json!([])).await.status, 200);
}

/// Rule 10: several requests in one instance.
async fn all_requests_of_an_instance_are_suspended_and_resumed_together(kind: Kind) {
    let host = TestHost::start().await;
    let probe = kind.deploy(&host, "probe", json!({"concurrency": 5, "timeoutMs": 3000})).await;
    let requests: Vec<_> = (0..5).map(|_| probe.script_in_background(json!([{"sleep-ms": 1000}]))).collect();
    eventually("five requests in one instance", async || {
        let instances = probe.instances().await;
        if instances.iter().any(|instance| instance["inFlight"] == 5) { Ok(()) } else { Err(format!("{instances:?}")) }
    })
    .await;
    host.order("probe", "suspend").await;
    assert_eq!(probe.reaches("suspended").await[0]["inFlight"], 5);
    // The rule is about what does not happen: the sleeps are over by then.
    sleep(Duration::from_millis(1500)).await;
    assert!(!requests.iter().any(tokio::task::JoinHandle::is_finished));
    host.order("probe", "resume").await;
    for request in requests {
        assert_eq!(request.await.unwrap().state()["maxInFlight"], 5);
    }
}

/// Rules 5 and 10: new code, deletion or an operator's stop ends a suspension; requests in it are answered first.
async fn a_suspended_instance_that_must_go_ends_its_requests_and_calls_pre_stop(kind: Kind) {
    let host = TestHost::start().await;
    let probe = kind.deploy(&host, "probe", json!({})).await;
    let request = probe.script_in_background(json!([{"sleep-ms": 700}]));
    probe.reaches("active").await;
    host.order("probe", "suspend").await;
    let instances = probe.reaches("suspended").await;
    assert_eq!(host.post(&format!("/v1/instances/{}/stop", instances[0]["id"].as_str().unwrap())).await.status, 202);
    assert_eq!(request.await.unwrap().status, 200);
    assert_eq!(probe.logs("requests=1", 1).await, 1);
    probe.is_gone().await;
}

/// Rule 10: during pre-freeze.
async fn an_instance_suspended_in_pre_freeze_ends_the_hook_and_freezes_anew_after_it(kind: Kind) {
    let host = TestHost::start().await;
    let hook = json!({"do": [{"sleep-ms": 1000}, {"print": "hook over"}]}).to_string();
    let probe = kind.deploy(&host, "probe", json!({"freezeAfterMs": 0, "environment": {"PRE_FREEZE": hook}})).await;
    probe.script(json!([])).await;
    probe.reaches("freezing").await;
    host.order("probe", "suspend").await;
    probe.reaches("suspended").await;
    // The rule is about what does not happen: left alone, the hook would be over by then.
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(probe.lines_with("hook over").await, 0);
    host.order("probe", "resume").await;
    probe.reaches("parked").await;
    // The suspension ended the freeze that it came upon: its hook ends, and the next freeze calls it anew.
    assert_eq!(probe.logs("hook over", 2).await, 2);
    assert_eq!(probe.lines_with("pre-freeze ").await, 2);
}
