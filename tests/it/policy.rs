//! Which instance a request gets, and what becomes of it if there is none; `pool/policy.rs` decides.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::future::{join, join_all};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{Reply, TestHost, eventually};

/// The instance that answered a script whose first step was `context`.
fn instance(reply: &Reply) -> String {
    reply.results()[0]["instanceId"].as_str().expect("an instance").to_owned()
}

fn context_and_sleep(ms: u64) -> Value {
    json!(["context", {"sleep-ms": ms}])
}

#[tokio::test]
async fn there_are_never_more_instances_than_allowed() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"maxInstances": 3, "freezeAfterMs": 0})).await;
    let requests = join_all((0..40).map(|_| probe.script(context_and_sleep(100))));
    let mut requests = std::pin::pin!(requests);
    let mut most = 0;
    let replies = loop {
        tokio::select! {
            replies = &mut requests => break replies,
            instances = probe.instances() => most = most.max(instances.len()),
        }
    };
    assert_eq!(most, 3, "no more, and no fewer when they are needed");
    let instances: HashSet<String> = replies.iter().map(instance).collect();
    assert_eq!(instances.len(), 3);
    assert!(replies.iter().all(|reply| reply.state()["maxInFlight"] == 1));
}

#[tokio::test]
async fn the_most_recently_parked_instance_is_taken_first() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"freezeAfterMs": 0})).await;
    let (early, late) = join(probe.script(context_and_sleep(500)), probe.script(context_and_sleep(1200))).await;
    assert_ne!(instance(&early), instance(&late));
    probe.reaches("parked").await;
    assert_eq!(instance(&probe.script(json!(["context"])).await), instance(&late));
    probe.reaches("parked").await;
    // And the other way round: the one that was early parks last now.
    let (first, second) = join(probe.script(context_and_sleep(500)), probe.script(context_and_sleep(1200))).await;
    assert_ne!(instance(&first), instance(&second));
    probe.reaches("parked").await;
    assert_eq!(instance(&probe.script(json!(["context"])).await), instance(&second));
}

#[tokio::test]
async fn nobody_waits_while_an_instance_has_room() {
    let host = TestHost::start().await;
    let settings = json!({"maxInstances": 2, "concurrency": 4, "queueTimeoutMs": 20_000});
    let probe = host.deploy("probe", "guest-probe", settings).await;
    let replies = join_all((0..9).map(|_| probe.script(context_and_sleep(1500)))).await;
    let instances: HashSet<String> = replies.iter().map(instance).collect();
    assert_eq!(instances.len(), 2);
    // Eight have room; the ninth waits for one of their sleeps.
    let queued = replies.iter().filter(|reply| reply.timing("queue") > 700.0).count();
    assert_eq!(queued, 1, "{replies:?}");
    assert!(replies.iter().any(|reply| reply.state()["maxInFlight"] == 4));
    assert!(replies.iter().all(|reply| reply.state()["maxInFlight"].as_u64() <= Some(4)));
}

#[tokio::test]
async fn the_fullest_instance_with_room_is_taken_so_that_others_come_to_rest() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"concurrency": 3, "freezeAfterMs": 0})).await;
    let start = |ms| probe.script_in_background(context_and_sleep(ms));
    let (long, other, short) = (start(5000), start(5000), start(1500));
    probe.instance_has_in_flight(3).await;
    let elsewhere = start(4000);
    probe.instance_has_in_flight(1).await;
    let short = short.await.unwrap();
    // One instance has two requests in flight, the other one; both have room.
    let next = probe.script(json!(["context"])).await;
    assert_eq!(probe.instances().await.len(), 2);
    assert_eq!(instance(&next), instance(&short));
    assert_ne!(instance(&next), instance(&elsewhere.await.unwrap()));
    assert!(join_all([long, other]).await.into_iter().all(|reply| reply.unwrap().status == 200));
}

#[tokio::test]
async fn a_full_queue_turns_requests_away() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"maxInstances": 1, "queueDepth": 2})).await;
    let running = probe.script_in_background(json!([{"sleep-ms": 3000}]));
    probe.instance_has_in_flight(1).await;
    // Two of five may wait; whichever they are, the others are told at once.
    let replies = join_all((0..5).map(|_| probe.script(json!([])))).await;
    let (served, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert_eq!((served.len(), refused.len()), (2, 3), "{replies:?}");
    for reply in refused {
        reply.problem(429, "function-busy");
        assert!(reply.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{reply:?}");
    }
    assert!(served.iter().all(|reply| reply.timing("queue") > 500.0), "{served:?}");
    assert_eq!(running.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_request_that_waits_too_long_for_an_instance_is_turned_away() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"maxInstances": 1, "queueTimeoutMs": 300})).await;
    let running = probe.script_in_background(json!([{"sleep-ms": 3000}]));
    probe.instance_has_in_flight(1).await;
    let refused = probe.script(json!(["count"])).await;
    refused.problem(429, "function-busy");
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{refused:?}");
    assert!(!running.is_finished(), "it did not wait for the other");
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(probe.script(json!(["count"])).await.results()[0], 1, "what was turned away never ran");
}

#[tokio::test]
async fn a_caller_that_left_the_queue_is_not_served_and_keeps_nobody_out() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"maxInstances": 1, "queueDepth": 1})).await;
    let running = probe.script_in_background(json!([{"sleep-ms": 4000}]));
    probe.instance_has_in_flight(1).await;
    let impatient = probe.request(json!({"do": ["count"]}).to_string()).timeout(Duration::from_millis(300));
    assert!(impatient.send().await.unwrap_err().is_timeout());
    // The host notices a moment later that its caller left.
    let patient = eventually("a place in the queue", async || {
        let reply = probe.script(json!(["count"])).await;
        if reply.status == 200 { Ok(reply) } else { Err(format!("{reply:?}")) }
    })
    .await;
    assert_eq!(patient.results()[0], 1, "nobody counted before");
    assert!(patient.timing("queue") > 500.0, "it got the place while the first request ran: {patient:?}");
    assert_eq!(running.await.unwrap().status, 200);
}

#[tokio::test]
async fn no_request_is_lost_and_none_is_answered_twice() {
    let host = TestHost::start().await;
    let settings = json!({"maxInstances": 3, "concurrency": 4, "freezeAfterMs": 0, "queueTimeoutMs": 25_000});
    let probe = host.deploy("probe", "guest-probe", settings).await;
    let calls = (0..300_u64).map(|number| {
        let probe = probe.clone();
        async move {
            // Different for each, the same in each run. Some come late, so that instances freeze in between.
            let (late_ms, sleep_ms) = (number * 7919 % 1500, number * 104_729 % 60);
            sleep(Duration::from_millis(late_ms)).await;
            let id = format!("caller-{number}");
            let script = json!({"do": ["context", {"sleep-ms": sleep_ms}, {"print": format!("ran {id}.")}]});
            let request = probe.request(script.to_string()).header("X-Request-Id", &id);
            let reply = Reply::of(request.send().await.unwrap()).await;
            assert_eq!(reply.results()[0]["requestId"], id);
            assert_eq!(reply.header("dormouse-request-id"), id);
            assert!(reply.state()["maxInFlight"].as_u64() <= Some(4));
            instance(&reply)
        }
    });
    let instances: HashSet<String> = join_all(calls).await.into_iter().collect();
    assert!(instances.len() <= 3, "{instances:?}");
    let lines: Vec<String> = probe.lines().await.iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect();
    for number in 0..300 {
        let ran = lines.iter().filter(|line| **line == format!("ran caller-{number}.")).count();
        assert_eq!(ran, 1, "caller-{number}");
    }
    let parked = probe.reaches("parked").await;
    assert_eq!(parked.iter().map(|instance| instance["requests"].as_u64().unwrap()).sum::<u64>(), 300);
    let records = eventually("300 records", async || {
        let records = host.invocations().await;
        if records.len() >= 300 { Ok(records) } else { Err(records.len().to_string()) }
    });
    let records = records.await;
    let requests: HashSet<&str> = records.iter().map(|record| record["request"].as_str().unwrap()).collect();
    assert_eq!((records.len(), requests.len()), (300, 300));
}

#[tokio::test]
async fn an_instance_answers_as_many_requests_as_it_may_and_goes() {
    let host = TestHost::start().await;
    let settings = json!({"maxRequestsPerInstance": 2, "freezeAfterMs": 60_000, "concurrency": 10});
    let probe = host.deploy("probe", "guest-probe", settings).await;
    let first = instance(&probe.script(json!(["context"])).await);
    assert_eq!(instance(&probe.script(json!(["context"])).await), first);
    // It does not linger for requests that it may not take, and its end is in order.
    probe.logs("pre-stop ", 1).await;
    assert_eq!(probe.lines_with("pre-freeze ").await, 0);
    assert_ne!(instance(&probe.script(json!(["context"])).await), first);
    let replies = join_all((0..9).map(|_| probe.script(context_and_sleep(100)))).await;
    let mut answered: HashMap<String, u32> = HashMap::new();
    for reply in &replies {
        *answered.entry(instance(reply)).or_default() += 1;
    }
    assert!(answered.values().all(|requests| *requests <= 2), "{answered:?}");
    let stops = "dormouse_instance_stops_total{reason=\"spent\"}";
    eventually("six spent instances", async || {
        let stops = host.metric(stops).await;
        if stops == 6.0 { Ok(()) } else { Err(stops.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn instances_that_cannot_start_are_started_again_less_and_less_often_and_the_function_says_so() {
    let host = TestHost::start().await;
    let fails = json!({"do": [{"fail": "no database"}]}).to_string();
    let settings = json!({"minInstances": 10, "environment": {"INITIALIZER": fails}});
    let function = host.deploy("failing", "guest-probe", settings).await;
    let shown = eventually("a fault", async || {
        let shown = host.get("/v1/functions/failing").await.json();
        if shown["fault"].is_string() { Ok(shown) } else { Err(shown.to_string()) }
    })
    .await;
    assert!(shown["fault"].as_str().unwrap().contains("ended before it was ready"), "{shown}");
    // One restart of all ten for each failure in a row, and not one for each instance that ended.
    let starts = function.lines_with("no database").await;
    assert!(starts <= 10 * 5, "{starts} instances were started");
    function.configure(json!({"environment": {"INITIALIZER": null}})).await;
    eventually("ten instances", async || {
        let (shown, count) = (host.get("/v1/functions/failing").await.json(), function.instances().await.len());
        if shown["fault"].is_null() && count == 10 { Ok(()) } else { Err(format!("{shown} {count}")) }
    })
    .await;
}
