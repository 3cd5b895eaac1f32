//! Asynchronous invocations: accepted on disk, tried again, told to destinations, seen, stopped and replayed, and what is left of
//! them when the host is killed.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Gate, Kind, Reply, TestFunction, TestHost, TestServer, curl, dormouse, eventually};

/// Hands an event over.
async fn hand_over(function: &TestFunction, id: Option<&str>, event: impl Into<reqwest::Body>) -> Reply {
    let request = function.request(event).header("dormouse-invocation-type", "async");
    let request = match id {
        Some(id) => request.header("dormouse-invocation-id", id),
        None => request,
    };
    Reply::of(request.send().await.expect("the data plane answers")).await
}

/// Hands a script over under this identifier; it must be accepted.
async fn accepted(function: &TestFunction, id: &str, steps: Value) {
    let reply = hand_over(function, Some(id), json!({"do": steps}).to_string()).await;
    assert_eq!(reply.status, 202, "{reply:?}");
}

fn at(function: &str, rest: &str) -> String {
    format!("/v1/functions/{function}/invocations{rest}")
}

async fn shown(host: &TestHost, function: &str, id: &str) -> Value {
    let reply = host.get(&at(function, &format!("/{id}"))).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// Waits until an invocation is in a state; returns it.
async fn reaches(host: &TestHost, function: &str, id: &str, state: &str) -> Value {
    eventually(&format!("{id} being {state}"), async || {
        let view = shown(host, function, id).await;
        if view["state"] == state { Ok(view) } else { Err(view.to_string()) }
    })
    .await
}

async fn list(host: &TestHost, function: &str, query: &str) -> Vec<Value> {
    let reply = host.get(&at(function, query)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["invocations"].as_array().expect("invocations").clone()
}

/// The invocation that told a destination of the end of this one.
fn told(view: &Value) -> String {
    view["destination"]["invocation"].as_str().unwrap_or_else(|| panic!("nobody was told: {view}")).to_owned()
}

/// Quick retries, so that tests need not wait.
fn quick(more: Value) -> Value {
    let mut rules = json!({"retryWaitMs": 10});
    for (key, value) in more.as_object().expect("an object") {
        rules[key] = value.clone();
    }
    json!({"async": rules, "allowedOutboundHosts": ["127.0.0.1"], "concurrency": 10})
}

#[tokio::test]
async fn an_event_is_handed_over_and_runs_once_however_often_it_is_sent() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    let steps = json!({"do": ["context", "count"]}).to_string();
    for attempt in 0..3 {
        let reply = hand_over(&probe, Some("order-4711"), steps.clone()).await;
        assert_eq!((reply.status, reply.header("dormouse-invocation-id")), (202, "order-4711"), "{reply:?}");
        assert_eq!(reply.json()["invocationId"], "order-4711");
        assert_eq!(reply.json()["known"], attempt > 0);
        reaches(&host, "probe", "order-4711", "succeeded").await;
    }
    let view = shown(&host, "probe", "order-4711").await;
    assert_eq!((&view["attempts"], &view["code"]), (&json!(1), &json!("ok")), "{view}");
    assert_eq!(view["event"], json!({"encoding": "utf-8", "data": steps}));
    let reply: Value = serde_json::from_str(view["reply"]["data"].as_str().unwrap()).unwrap();
    assert_eq!(reply["results"][0]["requestId"], "order-4711");
    assert_eq!((&reply["results"][0]["attempt"], &reply["results"][1]), (&json!(1), &json!(1)));
    // Without an identifier each is a new one.
    let (one, other) = (hand_over(&probe, None, "{\"do\":[]}").await, hand_over(&probe, None, "{\"do\":[]}").await);
    assert_ne!(one.header("dormouse-invocation-id"), other.header("dormouse-invocation-id"));
    // Another function's identifiers are its own.
    let second = host.deploy("second", "guest-probe", json!({})).await;
    assert_eq!(hand_over(&second, Some("order-4711"), "{\"do\":[]}").await.json()["known"], false);
    let records = eventually("three records of usage", async || {
        let records = host.invocations().await;
        let ours: Vec<_> = records.into_iter().filter(|record| record["function"] == "probe").collect();
        if ours.len() == 3 { Ok(ours) } else { Err(format!("{ours:?}")) }
    })
    .await;
    assert!(records.iter().all(|record| record["calledBy"] == "queue" && record["outcome"] == "ok"), "{records:?}");
    assert_eq!(records[0]["request"], "order-4711");
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_in_words() {
    let host = TestHost::builder().flag("--event-bytes-max=1000").start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    let send = async |kind: &str, id: Option<&str>, event: &str| {
        let request = probe.request(event.to_owned()).header("dormouse-invocation-type", kind);
        let request = if let Some(id) = id { request.header("dormouse-invocation-id", id) } else { request };
        Reply::of(request.send().await.unwrap()).await
    };
    let detail = send("later", None, "").await.problem(400, "invocation-type-not-supported");
    assert!(detail.contains("`async`"), "{detail}");
    let detail = send("async", Some("no spaces"), "").await.problem(400, "invalid-request");
    assert!(detail.contains("1 to 128 letters"), "{detail}");
    let detail = send("sync", Some("x"), "").await.problem(400, "invalid-request");
    assert!(detail.contains("Dormouse-Invocation-Type: async"), "{detail}");
    send("async", None, &"x".repeat(1001)).await.problem(413, "event-too-large");
    hand_over(&host.function("nobody"), None, "").await.problem(404, "function-not-found");
    let to_nothing = probe.request_to("prod", "").header("dormouse-invocation-type", "async");
    Reply::of(to_nothing.send().await.unwrap()).await.problem(404, "function-not-found");
    host.order("probe", "disable").await;
    hand_over(&probe, None, "").await.problem(403, "function-disabled");
    host.get(&at("probe", "/nothing")).await.problem(404, "invocation-not-found");
    host.get(&at("probe", "/a%20b")).await.problem(400, "invalid-request");
    let detail = host.get(&at("probe", "?state=odd")).await.problem(400, "invalid-request");
    assert!(detail.contains("waiting-to-retry"), "{detail}");
    host.get(&at("probe", "?from=yesterday")).await.problem(400, "invalid-request");
    host.get(&at("probe", "?limit=0")).await.problem(400, "invalid-request");
    let refused = probe.configure(json!({"async": {"maxAttempts": 0, "onFailure": {"url": "http://x/"}}})).await;
    let detail = refused.problem(422, "settings-refused");
    assert!(detail.contains("`async.maxAttempts` is 0") && detail.contains("x:80 is not in"), "{detail}");
}

#[tokio::test]
async fn what_fails_is_tried_again_and_each_attempt_knows_its_number() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"async": {"retryWaitMs": 10}})).await;
    let short = json!({"timeoutMs": 200, "async": {"retryWaitMs": 10, "maxAttempts": 2}});
    let hasty = host.deploy("hasty", "guest-probe", short).await;
    accepted(&probe, "third", json!([{"fail-until-attempt": 3}, "context"])).await;
    accepted(&probe, "never", json!([{"fail": "no \u{1f980}"}])).await;
    accepted(&probe, "trap", json!(["trap"])).await;
    accepted(&hasty, "late", json!([{"sleep-ms": 60_000}])).await;
    accepted(&hasty, "spin", json!(["spin-forever"])).await;
    let third = reaches(&host, "probe", "third", "succeeded").await;
    assert_eq!(third["attempts"], 3, "{third}");
    assert!(third["reply"]["data"].as_str().unwrap().contains("\"attempt\":3"), "{third}");
    for (function, id, code, attempts) in [
        ("probe", "never", "function-failed", 3),
        ("probe", "trap", "function-crashed", 3),
        ("hasty", "late", "function-timed-out", 2),
        ("hasty", "spin", "function-timed-out", 2),
    ] {
        let view = reaches(&host, function, id, "failed").await;
        assert_eq!((&view["code"], &view["attempts"]), (&json!(code), &json!(attempts)), "{view}");
    }
    assert_eq!(shown(&host, "probe", "never").await["detail"], "no \u{1f980}");
    let records = host.invocations().await;
    let of = |id: &str| records.iter().filter(|record| record["request"] == id).count();
    assert_eq!((of("third"), of("never")), (3, 3), "each attempt is billed");
}

#[tokio::test]
async fn rules_belong_to_the_function_and_may_differ_by_qualifier() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", quick(json!({"maxAttempts": 1}))).await;
    assert_eq!(host.post("/v1/functions/probe/versions").await.status, 201);
    let alias = host.client.put(format!("{}/v1/functions/probe/aliases/my-prod", host.admin));
    assert_eq!(alias.body(json!({"version": "1"}).to_string()).send().await.unwrap().status(), 201);
    probe.script(json!([])).await;
    let before = probe.reaches("parked").await;
    let changed = probe.configure(json!({"async": {"qualifiers": {"my-prod": {"maxAttempts": 2}}}})).await.json();
    assert_eq!(changed["async"]["maxAttempts"], 1);
    assert_eq!(probe.instances().await[0]["id"], before[0]["id"], "no instance is replaced");
    let steps = json!({"do": [{"fail": "x"}]}).to_string();
    for (qualifier, attempts) in [("LATEST", 1), ("my-prod", 2), ("1", 1)] {
        let request = probe.request_to(qualifier, steps.clone()).header("dormouse-invocation-type", "async");
        let reply = Reply::of(request.send().await.unwrap()).await;
        let view = reaches(&host, "probe", reply.header("dormouse-invocation-id"), "failed").await;
        assert_eq!((&view["attempts"], &view["qualifier"]), (&json!(attempts), &json!(qualifier)), "{view}");
    }
    let restarted = host.restart().await;
    let kept = restarted.get("/v1/functions/probe").await.json();
    assert_eq!(kept["async"]["qualifiers"], json!({"my-prod": {"maxAttempts": 2}}));
}

#[tokio::test]
async fn a_full_queue_says_so_and_other_functions_are_not_kept_out() {
    let host = TestHost::start().await;
    let full = host.deploy("full", "guest-probe", json!({"async": {"maxQueued": 2}})).await;
    let other = host.deploy("other", "guest-probe", json!({})).await;
    host.order("full", "suspend").await;
    let hello = json!({"do": []}).to_string();
    for _ in 0..2 {
        assert_eq!(hand_over(&full, None, hello.clone()).await.status, 202);
    }
    let refused = hand_over(&full, None, hello.clone()).await;
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.problem(429, "queue-full").contains("`async.maxQueued`"));
    assert_eq!(hand_over(&other, Some("x"), hello.clone()).await.status, 202);
    reaches(&host, "other", "x", "succeeded").await;
    host.order("full", "resume").await;
    eventually("the queue being empty", async || {
        let left = list(&host, "full", "?state=succeeded").await.len();
        if left == 2 { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
    assert_eq!(hand_over(&full, None, hello).await.status, 202);
}

#[tokio::test]
async fn a_kill_loses_nothing_repeats_no_end_and_counts_on() {
    let gate = Gate::closed().await;
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", quick(json!({"maxAttempts": 1}))).await;
    accepted(&probe, "done", json!(["count"])).await;
    reaches(&host, "probe", "done", "succeeded").await;
    accepted(&probe, "running", json!([gate.step(), "context"])).await;
    let held = gate.arrival().await;
    assert_eq!(shown(&host, "probe", "running").await["state"], "running");
    host.order("probe", "suspend").await;
    accepted(&probe, "waiting", json!([])).await;
    let host = host.kill_and_restart().await;
    drop(held);
    assert_eq!(shown(&host, "probe", "waiting").await["state"], "queued");
    host.order("probe", "resume").await;
    gate.arrival().await.release().await;
    // That the host ended was not the function's failure.
    let running = reaches(&host, "probe", "running", "succeeded").await;
    assert_eq!(running["attempts"], 2, "{running}");
    assert!(running["reply"]["data"].as_str().unwrap().contains("\"attempt\":2"), "{running}");
    reaches(&host, "probe", "waiting", "succeeded").await;
    assert_eq!(shown(&host, "probe", "done").await["attempts"], 1);
    assert_eq!(hand_over(&host.function("probe"), Some("done"), "").await.json()["known"], true);
}

#[tokio::test]
async fn what_waits_or_runs_can_be_stopped_and_what_ended_cannot() {
    let gate = Gate::closed().await;
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", quick(json!({"maxConcurrency": 1}))).await;
    let beside = probe.script_in_background(json!([{"sleep-ms": 200}, "count"]));
    accepted(&probe, "held", json!([gate.step()])).await;
    let held = gate.arrival().await;
    accepted(&probe, "waits", json!([])).await;
    let stop = async |id: &str| host.post(&at("probe", &format!("/{id}/stop"))).await;
    assert_eq!(stop("waits").await.json()["state"], "stopped");
    assert_eq!(shown(&host, "probe", "waits").await["attempts"], 0);
    assert_eq!(stop("held").await.json()["state"], "running");
    let stopped = reaches(&host, "probe", "held", "stopped").await;
    assert_eq!((&stopped["code"], &stopped["attempts"]), (&json!("invocation-stopped"), &json!(1)));
    assert_eq!(beside.await.unwrap().status, 200, "others in the instance are not disturbed");
    drop(held);
    accepted(&probe, "spins", json!(["spin-forever"])).await;
    reaches(&host, "probe", "spins", "running").await;
    eventually("a stop of code that holds the CPU", async || {
        stop("spins").await;
        let view = shown(&host, "probe", "spins").await;
        if view["state"] == "stopped" { Ok(()) } else { Err(view.to_string()) }
    })
    .await;
    stop("spins").await.problem(409, "invocation-ended");
    stop("nothing").await.problem(404, "invocation-not-found");
    assert_eq!(probe.script(json!([])).await.status, 200, "the function goes on");
}

#[tokio::test]
async fn what_has_ended_is_replayed_alone_or_with_all_that_failed() {
    let host = TestHost::builder().flag("--queue-kept-bytes-max=400").start().await;
    let probe = host.deploy("probe", "guest-probe", quick(json!({"maxAttempts": 1}))).await;
    for id in ["a", "b", "c"] {
        accepted(&probe, id, json!([{"fail": id}])).await;
        reaches(&host, "probe", id, "failed").await;
    }
    accepted(&probe, "large", json!([{"print": "x".repeat(400)}])).await;
    let large = reaches(&host, "probe", "large", "succeeded").await;
    assert_eq!(large["event"], Value::Null, "it is too large to be kept");
    host.post(&at("probe", "/large/replay")).await.problem(409, "event-not-kept");
    let replay = host.post(&at("probe", "/a/replay")).await;
    assert_eq!(replay.status, 202, "{replay:?}");
    let again = reaches(&host, "probe", replay.json()["id"].as_str().unwrap(), "failed").await;
    assert_eq!((&again["replayOf"], &again["detail"]), (&json!("a"), &json!("a")));
    let all = host.client.post(format!("{}/v1/functions/probe/replay", host.admin));
    let all = Reply::of(all.body(json!({"from": "2020-01-01T00:00:00Z"}).to_string()).send().await.unwrap()).await;
    // `a` was replayed already; what replayed it failed itself.
    assert_eq!((all.status, all.json()), (202, json!({"replayed": 3, "notKept": 0})), "{all:?}");

    let none = host.client.post(format!("{}/v1/functions/probe/replay", host.admin));
    let none = Reply::of(none.body(json!({"to": "2020-01-01T00:00:00Z"}).to_string()).send().await.unwrap()).await;
    assert_eq!(none.json(), json!({"replayed": 0, "notKept": 0}));
    eventually("seven failed ones", async || {
        let failed = list(&host, "probe", "?state=failed").await.len();
        if failed == 7 { Ok(()) } else { Err(failed.to_string()) }
    })
    .await;
    host.order("probe", "suspend").await;
    accepted(&probe, "waits", json!([])).await;
    host.post(&at("probe", "/waits/replay")).await.problem(409, "invocation-not-ended");
}

#[tokio::test]
async fn lists_are_by_state_and_time_and_come_in_pages() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", quick(json!({"maxAttempts": 1}))).await;
    let other = host.deploy("other", "guest-probe", json!({})).await;
    accepted(&other, "other", json!([])).await;
    for number in 0..5 {
        accepted(&probe, &format!("n{number}"), json!([])).await;
        reaches(&host, "probe", &format!("n{number}"), "succeeded").await;
    }
    accepted(&probe, "bad", json!([{"fail": "x"}])).await;
    let bad = reaches(&host, "probe", "bad", "failed").await;
    let ids = |page: &[Value]| page.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&list(&host, "probe", "").await), ["bad", "n4", "n3", "n2", "n1", "n0"]);
    assert_eq!(ids(&list(&host, "probe", "?state=failed").await), ["bad"]);
    let since = bad["acceptedAt"].as_str().unwrap();
    assert_eq!(ids(&list(&host, "probe", &format!("?from={since}")).await), ["bad"]);
    assert_eq!(ids(&list(&host, "probe", &format!("?to={since}&state=failed")).await), [""; 0]);
    let first = host.get(&at("probe", "?limit=4")).await.json();
    let rest = list(&host, "probe", &format!("?limit=4&before={}", first["next"])).await;
    assert_eq!(ids(&rest), ["n1", "n0"]);
    assert_eq!(ids(&list(&host, "other", "").await), ["other"]);
}

#[tokio::test]
async fn what_is_too_old_expires_without_an_attempt() {
    let host = TestHost::start().await;
    let rules = json!({"maxEventAgeMs": 1000, "onFailure": {"function": "alarm"}});
    let probe = host.deploy("probe", "guest-probe", quick(rules)).await;
    host.deploy("alarm", "guest-probe", json!({})).await;
    host.order("probe", "suspend").await;
    accepted(&probe, "old", json!([])).await;
    let old = reaches(&host, "probe", "old", "expired").await;
    assert_eq!((&old["code"], &old["beganAt"]), (&json!("event-expired"), &Value::Null), "{old}");
    assert_eq!(old["attempts"], 0, "none began");
    let alarm = told(&old);
    let event = shown(&host, "alarm", &alarm).await["event"]["data"].clone();
    let event: Value = serde_json::from_str(event.as_str().unwrap()).unwrap();
    assert_eq!((&event["state"], &event["invocationId"]), (&json!("expired"), &json!("old")));
}

#[tokio::test]
async fn destinations_are_functions_that_learn_how_it_ended() {
    let host = TestHost::start().await;
    let rules = json!({"maxAttempts": 2, "onSuccess": {"function": "good"}, "onFailure": {"function": "bad"}});
    let probe = host.deploy("probe", "guest-probe", quick(rules)).await;
    for name in ["good", "bad"] {
        host.deploy(name, "guest-probe", json!({"async": {"maxAttempts": 1}})).await;
    }
    accepted(&probe, "well", json!(["count"])).await;
    accepted(&probe, "badly", json!([{"fail": "no"}])).await;
    let ended = [("well", "succeeded", "good", "ok", 1), ("badly", "failed", "bad", "function-failed", 2)];
    for (id, state, destination, code, attempts) in ended {
        let view = reaches(&host, "probe", id, state).await;
        assert_eq!(view["destination"]["destination"], destination);
        let next = shown(&host, destination, &told(&view)).await;
        assert_eq!(next["chain"], json!(["probe"]));
        let event: Value = serde_json::from_str(next["event"]["data"].as_str().unwrap()).unwrap();
        let facts =
            json!([event["function"], event["qualifier"], event["invocationId"], event["state"], event["code"]]);
        assert_eq!(facts, json!(["probe", "LATEST", id, state, code]), "{event}");
        assert_eq!(event["attempts"], attempts);
        assert!(event["acceptedAt"].is_string() && event["beganAt"].is_string() && event["endedAt"].is_string());
        if id == "well" {
            assert!(event["reply"]["data"].as_str().unwrap().contains("results"), "{event}");
        } else {
            assert_eq!((&event["detail"], &event["reply"]), (&json!("no"), &Value::Null));
        }
        // The probe does not know what to do with it, and nobody is told of that.
        reaches(&host, destination, &told(&view), "failed").await;
    }
}

#[tokio::test]
async fn a_loop_of_destinations_is_cut_and_named() {
    let host = TestHost::builder().flag("--queue-chain-max=3").start().await;
    let rules = |to: &str| quick(json!({"maxAttempts": 1, "onFailure": {"function": to}}));
    let ping = host.deploy("ping", "guest-probe", rules("pong")).await;
    host.deploy("pong", "guest-probe", rules("ping")).await;
    accepted(&ping, "first", json!([{"fail": "x"}])).await;
    let (mut function, mut id, mut seen) = ("ping", "first".to_owned(), 0);
    let last = loop {
        let view = reaches(&host, function, &id, "failed").await;
        if view["destination"]["invocation"].is_null() {
            break view;
        }
        id = told(&view);
        function = if function == "ping" { "pong" } else { "ping" };
        seen += 1;
    };
    assert_eq!(seen, 3, "so many were told");
    let refused = last["destination"]["refused"].as_str().unwrap();
    assert!(refused.contains("ping -> pong") && refused.contains("queue-chain-max"), "{refused}");
    assert!(host.log().contains("destination not told"), "{}", host.log());
}

#[tokio::test]
async fn a_url_gets_a_signed_request_that_is_tried_until_it_is_taken() {
    let server = TestServer::start("thanks", Duration::ZERO).await;
    let host = TestHost::start().await;
    let url = |path: &str| format!("http://{}{path}", server.address);
    let rules = json!({
        "maxAttempts": 1, "onSuccess": {"url": url("/500/2")}, "onFailure": {"url": url("/503/99"), "maxAttempts": 2},
    });
    let probe = host.deploy("probe", "guest-probe", quick(rules)).await;
    accepted(&probe, "well", json!(["count"])).await;
    let delivery = told(&reaches(&host, "probe", "well", "succeeded").await);
    let delivered = reaches(&host, "probe", &delivery, "succeeded").await;
    assert_eq!((&delivered["attempts"], &delivered["status"]), (&json!(3), &json!(200)), "{delivered}");
    assert_eq!((&delivered["url"], &delivered["reply"]["data"]), (&json!(url("/500/2")), &json!("thanks")));
    let received = server.received();
    assert_eq!(received.len(), 3);
    let secret = host.get("/v1/functions/probe/webhook-secret").await.json()["secret"].as_str().unwrap().to_owned();
    for request in &received {
        assert_eq!((request.method.as_str(), request.field("webhook-id")), ("POST", delivery.as_str()));
        // As any receiver checks it, with what it has for that.
        let signed = format!("{}.{}.{}", request.field("webhook-id"), request.field("webhook-timestamp"), request.body);
        assert_eq!(request.field("webhook-signature"), format!("v1,{}", openssl_hmac(&secret, &signed).await));
        assert_eq!(serde_json::from_str::<Value>(&request.body).unwrap()["invocationId"], "well");
    }
    accepted(&probe, "badly", json!([{"fail": "x"}])).await;
    let delivery = told(&reaches(&host, "probe", "badly", "failed").await);
    let given_up = reaches(&host, "probe", &delivery, "failed").await;
    assert_eq!((&given_up["attempts"], &given_up["code"]), (&json!(2), &json!("destination-failed")), "{given_up}");
    assert!(given_up["detail"].as_str().unwrap().contains("answered 503"), "{given_up}");
    let gone = probe.configure(json!({"allowedOutboundHosts": ["elsewhere"]})).await;
    assert!(gone.problem(422, "settings-refused").contains("is not in `allowedOutboundHosts`"));
}

/// HMAC-SHA256 in base64, with the program that everybody has.
async fn openssl_hmac(secret: &str, text: &str) -> String {
    let script = r#"key=$(printf %s "${1#whsec_}" | base64 -d | od -An -tx1 -v | tr -d ' \n')
        printf %s "$2" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | base64 -w0"#;
    let output = tokio::process::Command::new("sh").args(["-c", script, "sh", secret, text]).output().await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn callers_come_before_waiting_work_and_one_functions_work_before_nobodys() {
    let gate = Gate::closed().await;
    let host = TestHost::start().await;
    let one = json!({"maxInstances": 1, "allowedOutboundHosts": ["127.0.0.1"]});
    let busy = host.deploy("busy", "guest-probe", one).await;
    let other = host.deploy("other", "guest-probe", json!({})).await;
    accepted(&busy, "first", json!([gate.step()])).await;
    let held = gate.arrival().await;
    for number in 0..100 {
        accepted(&busy, &format!("n{number}"), json!([{"sleep-ms": 20}])).await;
    }
    accepted(&other, "quick", json!([])).await;
    reaches(&host, "other", "quick", "succeeded").await;
    assert_eq!(list(&host, "busy", "?state=succeeded").await.len(), 0);
    let caller = busy.script_in_background(json!([]));
    eventually("a caller waiting", async || {
        let waiting = host.metric("dormouse_waiting_requests").await;
        if waiting >= 1.0 { Ok(()) } else { Err(waiting.to_string()) }
    })
    .await;
    held.release().await;
    assert_eq!(caller.await.unwrap().status, 200);
    let done = list(&host, "busy", "?state=succeeded&limit=1000").await.len();
    assert!(done < 50, "the caller waited for {done} of 101 events");
}

#[tokio::test]
async fn no_more_attempts_run_at_once_than_the_rules_say() {
    let gate = Gate::closed().await;
    let host = TestHost::start().await;
    for (name, settings, at_once) in [
        ("half", json!({"maxInstances": 4}), 2),
        ("own", json!({"maxInstances": 4, "async": {"maxConcurrency": 3}}), 3),
        ("all-but-one", json!({"maxInstances": 2, "concurrency": 2, "async": {"maxConcurrency": 100}}), 3),
        ("single", json!({"maxInstances": 1}), 1),
    ] {
        let mut settings = settings;
        settings["allowedOutboundHosts"] = json!(["127.0.0.1"]);
        let function = host.deploy(name, "guest-probe", settings).await;
        for number in 0..6 {
            accepted(&function, &format!("n{number}"), json!([gate.step()])).await;
        }
        let mut held = Vec::new();
        for _ in 0..at_once {
            held.push(gate.arrival().await);
        }
        let states = list(&host, name, "").await;
        let running = states.iter().filter(|one| one["state"] == "running").count();
        assert_eq!(running, at_once, "{name}: {states:?}");
        for held in held {
            held.release().await;
        }
        for _ in at_once..6 {
            gate.arrival().await.release().await;
        }
    }
}

#[tokio::test]
async fn a_stopping_host_finishes_what_runs_and_keeps_what_waits() {
    let gate = Gate::closed().await;
    let host = TestHost::builder().flag("--drain-timeout-ms=20000").start().await;
    let probe = host.deploy("probe", "guest-probe", quick(json!({"maxConcurrency": 1, "maxAttempts": 1}))).await;
    accepted(&probe, "runs", json!([gate.step(), "count"])).await;
    let held = gate.arrival().await;
    accepted(&probe, "waits", json!(["count"])).await;
    let same = host.same();
    host.signal(rustix::process::Signal::TERM);
    eventually("the drain", async || {
        let log = host.log();
        if log.contains("draining") { Ok(()) } else { Err(log) }
    })
    .await;
    held.release().await;
    let (status, _) = host.ended().await;
    assert!(status.success());
    let host = same.start().await;
    let ran = shown(&host, "probe", "runs").await;
    assert_eq!((&ran["state"], &ran["attempts"]), (&json!("succeeded"), &json!(1)), "{ran}");
    let waited = reaches(&host, "probe", "waits", "succeeded").await;
    assert_eq!(waited["attempts"], 1, "it never began before: {waited}");
}

#[tokio::test]
async fn a_drain_that_is_cut_short_leaves_what_ran_for_the_next_host() {
    let gate = Gate::closed().await;
    let host = TestHost::builder().flag("--drain-timeout-ms=0").start().await;
    let probe = host.deploy("probe", "guest-probe", quick(json!({"maxAttempts": 1}))).await;
    accepted(&probe, "runs", json!([gate.step()])).await;
    let held = gate.arrival().await;
    let host = host.restart().await;
    drop(held);
    gate.arrival().await.release().await;
    let ran = reaches(&host, "probe", "runs", "succeeded").await;
    assert_eq!(ran["attempts"], 2, "{ran}");
}

#[tokio::test]
async fn http_functions_get_the_request_as_it_was() {
    let host = TestHost::start().await;
    let http = Kind::Http02.deploy(&host, "http", json!({"async": {"maxAttempts": 1}})).await;
    let send = async |method: &str, path: &str, body: &'static str| {
        let request = http.fetch(method, path).header("dormouse-invocation-type", "async").header("x-one", "1");
        let reply = Reply::of(request.body(body).send().await.unwrap()).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.header("dormouse-invocation-id").to_owned()
    };
    let id = send("BREW", "/about/a%20b?q=1", "").await;
    let view = reaches(&host, "http", &id, "succeeded").await;
    assert_eq!(view["status"], 201);
    let seen: Value = serde_json::from_str(view["reply"]["data"].as_str().unwrap()).unwrap();
    assert_eq!((&seen["method"], &seen["path"]), (&json!("BREW"), &json!("/about/a%20b?q=1")));
    let field = |name: &str| seen["fields"].as_array().unwrap().iter().any(|field| field[0] == name);
    assert!(field("x-one") && !field("dormouse-invocation-type"), "{seen}");
    let counted = send("POST", "/count", "abc").await;
    let counted = reaches(&host, "http", &counted, "succeeded").await;
    assert!(counted["reply"]["data"].as_str().unwrap().contains("\"bytes\":3"), "{counted}");
    let failed = send("GET", "/status/404", "").await;
    let failed = reaches(&host, "http", &failed, "failed").await;
    assert_eq!((&failed["status"], &failed["code"]), (&json!(404), &json!("function-failed")));
    let long = send("GET", "/bytes/3000000", "").await;
    let long = reaches(&host, "http", &long, "succeeded").await;
    assert_eq!((&long["replyBytes"], &long["reply"]), (&json!(3_000_000), &Value::Null), "too large to be kept");
    let hook = http.fetch("POST", "/initialize").header("dormouse-invocation-type", "async").send().await.unwrap();
    Reply::of(hook).await.problem(404, "not-found");
}

#[tokio::test]
async fn what_ended_is_kept_within_bounds_and_its_space_comes_back() {
    let host = TestHost::builder().flag("--queue-kept-max=5").start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"async": {"maxConcurrency": 16}})).await;
    let file = host.state_dir().join("queue.sqlite");
    let large = format!("{{\"do\":[]}}{}", " ".repeat(200_000));
    for number in 0..60 {
        assert_eq!(hand_over(&probe, Some(&format!("n{number}")), large.clone()).await.status, 202);
    }
    let grown = std::fs::metadata(&file).unwrap().len();
    eventually("the newest five being kept, and the space of the others being free", async || {
        let left = list(&host, "probe", "?limit=1000").await;
        let bytes = std::fs::metadata(&file).unwrap().len();
        let all = left.iter().all(|one| one["state"] == "succeeded");
        if left.len() == 5 && all && bytes < grown / 2 {
            Ok(())
        } else {
            Err(format!("{}, {bytes} of {grown}", left.len()))
        }
    })
    .await;
    let host = TestHost::builder().flag("--queue-kept-ms=0").start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    accepted(&probe, "gone", json!([])).await;
    eventually("nothing being kept", async || {
        let left = list(&host, "probe", "").await;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_refuses_events_and_loses_none() {
    const MB: usize = 1 << 20;
    let host = TestHost::builder().file_bytes_max(16 << 20).start().await;
    let probe = host.deploy("probe", "guest-probe", quick(json!({"maxConcurrency": 2}))).await;
    host.order("probe", "suspend").await;
    let event = format!("{{\"do\":[\"count\"]}}{}", " ".repeat(MB));
    let mut taken = 0;
    let refused = loop {
        let reply = hand_over(&probe, Some(&format!("n{taken}")), event.clone()).await;
        if reply.status != 202 {
            break reply;
        }
        taken += 1;
        assert!(taken < 40, "nothing is refused");
    };
    assert_eq!(refused.header("retry-after"), "1");
    refused.problem(503, "queue-unavailable");
    assert!(host.log().contains("the queue cannot be written"), "{}", host.log());
    host.order("probe", "resume").await;
    let lifted =
        std::process::Command::new("prlimit").args([&format!("--pid={}", host.pid()), "--fsize=unlimited"]).status();
    assert!(lifted.unwrap().success());
    for number in 0..taken {
        reaches(&host, "probe", &format!("n{number}"), "succeeded").await;
    }
    assert_eq!(hand_over(&probe, Some(&format!("n{taken}")), "{\"do\":[]}").await.json()["known"], false);
}

#[tokio::test]
async fn an_event_of_a_deleted_function_fails_in_words() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    host.order("probe", "suspend").await;
    accepted(&probe, "late", json!([])).await;
    assert_eq!(probe.delete().await.status, 204);
    let late = reaches(&host, "probe", "late", "failed").await;
    assert_eq!(late["code"], "function-not-found", "{late}");
}

#[tokio::test]
async fn the_command_line_hands_over_lists_shows_stops_and_replays() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", quick(json!({"maxAttempts": 1}))).await;
    let run = async |arguments: &[&str]| {
        let hosts = ["--admin", host.admin.as_str(), "--data", host.data.as_str()];
        let needs_data = arguments[0] == "invoke";
        let hosts = if needs_data { &hosts[..] } else { &hosts[..2] };
        let output = dormouse().args(arguments).args(hosts).output().await.unwrap();
        (
            output.status.success(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let (ok, printed) = run(&["invoke", "probe", "--async", "--id", "job/1", r#"{"do":[{"fail":"no"}]}"#]).await;
    assert!(ok && printed.trim() == "job/1", "{printed}");
    reaches(&host, "probe", "job%2F1", "failed").await;
    let (ok, printed) = run(&["invoke", "probe", "--async", "--id", "job/1", ""]).await;
    assert!(ok && printed.contains("nothing runs twice"), "{printed}");
    let (ok, printed) = run(&["invocations", "list", "probe", "--state", "failed"]).await;
    assert!(ok && printed.contains("job/1") && printed.contains("function-failed: no"), "{printed}");
    let (ok, printed) = run(&["invocations", "show", "probe", "job/1"]).await;
    assert!(ok && printed.contains("function-failed") && printed.contains(r#"{"do":[{"fail":"no"}]}"#), "{printed}");
    let (ok, printed) = run(&["invocations", "replay", "probe", "job/1"]).await;
    assert!(ok && printed.contains("job/1 runs once more, as "), "{printed}");
    let (ok, printed) = run(&["invocations", "stop", "probe", "job/1"]).await;
    assert!(!ok && printed.contains("the invocation has failed and cannot be stopped"), "{printed}");
    eventually("two failed ones", async || {
        let failed = list(&host, "probe", "?state=failed").await.len();
        if failed == 2 { Ok(()) } else { Err(failed.to_string()) }
    })
    .await;
    let (ok, printed) = run(&["invocations", "replay", "probe", "--all", "failed", "--from", "1h"]).await;
    assert!(ok && printed.contains("1 run once more"), "the first was replayed already: {printed}");
    let (ok, printed) = run(&["invocations", "secret", "probe"]).await;
    assert!(ok && printed.starts_with("whsec_"), "{printed}");
    let (ok, printed) = run(&["configure", "probe", "--set", "async.qualifiers.my-prod.max-attempts=7"]).await;
    assert!(ok, "{printed}");
    let settings = host.get("/v1/functions/probe").await.json()["async"].clone();
    assert_eq!(settings["qualifiers"], json!({"my-prod": {"maxAttempts": 7}}));
    assert_eq!(probe.script(json!([])).await.status, 200);
}

#[tokio::test]
async fn many_events_from_many_callers_all_run_once() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({"concurrency": 10})).await;
    let senders = (0..16).map(|sender| {
        let probe = probe.clone();
        tokio::task::spawn(async move {
            for number in 0..25 {
                accepted(&probe, &format!("s{sender}-{number}"), json!([{"sleep-ms": 1}])).await;
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    eventually("all of them", async || {
        let done = list(&host, "probe", "?state=succeeded&limit=1000").await.len();
        if done == 400 { Ok(()) } else { Err(done.to_string()) }
    })
    .await;
    let mut calls: HashMap<String, usize> = HashMap::new();
    for record in host.invocations().await {
        *calls.entry(record["request"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert!(calls.len() == 400 && calls.values().all(|count| *count == 1), "{calls:?}");
}

#[tokio::test]
async fn curl_is_all_that_a_caller_needs() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    assert_eq!(probe.script(json!([])).await.status, 200);
    let invoke = format!("{}/invoke/probe", host.data);
    let head = ["-i", "-H", "Dormouse-Invocation-Type: async", "-d", "{\"do\":[]}"];
    let reply = curl(&[&head[..], &[invoke.as_str()]].concat()).await;
    assert!(reply.starts_with("HTTP/1.1 202 Accepted") && reply.contains("dormouse-invocation-id: "), "{reply}");
}

#[tokio::test]
async fn kills_at_random_moments_lose_and_repeat_nothing() {
    let torture = env!("CARGO_BIN_EXE_torture");
    let output =
        tokio::process::Command::new(torture).args(["queue", "--events", "400", "--kills", "4"]).output().await;
    let output = output.unwrap();
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && printed.contains("none lost"), "{printed}");
}

#[tokio::test]
async fn an_order_to_stop_holds_between_attempts_too() {
    let host = TestHost::start().await;
    let rules = json!({"maxAttempts": 100, "retryWaitMs": 1, "retryWaitMaxMs": 1});
    let probe = host.deploy("probe", "guest-probe", quick(rules)).await;
    for number in 0..20 {
        accepted(&probe, &format!("n{number}"), json!([{"sleep-ms": 1}, {"fail": "x"}])).await;
    }
    for number in 0..20 {
        let stopped = host.post(&at("probe", &format!("/n{number}/stop"))).await;
        if stopped.status != 200 {
            stopped.problem(409, "invocation-ended");
            continue;
        }
        eventually("the end", async || {
            let view = shown(&host, "probe", &format!("n{number}")).await;
            // The last attempt may have ended before it was stopped.
            let over = view["state"] == "stopped" || (view["state"] == "failed" && view["attempts"] == 100);
            if over { Ok(()) } else { Err(view.to_string()) }
        })
        .await;
    }
}

#[tokio::test]
async fn events_of_a_deleted_function_are_not_those_of_its_successor() {
    let host = TestHost::start().await;
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    accepted(&probe, "done", json!([])).await;
    reaches(&host, "probe", "done", "succeeded").await;
    host.order("probe", "suspend").await;
    accepted(&probe, "waits", json!(["count"])).await;
    assert_eq!(probe.delete().await.status, 204);
    let probe = host.deploy("probe", "guest-probe", json!({})).await;
    host.get(&at("probe", "/done")).await.problem(404, "invocation-not-found");
    assert_eq!(list(&host, "probe", "").await.len(), 0);
    assert_eq!(hand_over(&probe, Some("done"), "{\"do\":[]}").await.json()["known"], false);
    reaches(&host, "probe", "done", "succeeded").await;
    eventually("what waited for the other one never running", async || {
        let records = host.invocations().await;
        let waits = records.iter().filter(|record| record["request"] == "waits").count();
        let done = records.iter().filter(|record| record["request"] == "done").count();
        if waits == 0 && done == 2 { Ok(()) } else { Err(format!("{records:?}")) }
    })
    .await;
}

#[tokio::test]
async fn one_function_with_slow_events_leaves_room_for_others() {
    let gate = Gate::closed().await;
    let host = TestHost::builder().flag("--queue-concurrency-max=8").start().await;
    let slow = host.deploy("slow", "guest-probe", quick(json!({"maxConcurrency": 100}))).await;
    let other = host.deploy("other", "guest-probe", json!({})).await;
    for number in 0..10 {
        accepted(&slow, &format!("n{number}"), json!([gate.step()])).await;
    }
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(gate.arrival().await);
    }
    accepted(&other, "quick", json!([])).await;
    reaches(&host, "other", "quick", "succeeded").await;
    let running = list(&host, "slow", "?state=running").await.len();
    assert_eq!(running, 4, "half of all");
}

#[tokio::test]
async fn when_both_wait_callers_get_three_of_four_turns() {
    let gate = Gate::closed().await;
    let server = TestServer::start("", Duration::ZERO).await;
    let host = TestHost::start().await;
    let rules = json!({"maxInstances": 6, "allowedOutboundHosts": ["127.0.0.1"], "async": {"maxConcurrency": 5}});
    let probe = host.deploy("probe", "guest-probe", rules).await;
    let note = |name: &str| json!([{"http-post": [format!("http://{}/", server.address), name]}]);
    let mut callers: Vec<_> = (0..6).map(|_| probe.script_in_background(json!([gate.step()]))).collect();
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(gate.arrival().await);
    }
    for number in 0..5 {
        accepted(&probe, &format!("w{number}"), note("work")).await;
    }
    let wait_for = async |count: f64| {
        eventually("requests that wait", async || {
            let waiting = host.metric("dormouse_waiting_requests").await;
            if waiting == count { Ok(()) } else { Err(waiting.to_string()) }
        })
        .await;
    };
    wait_for(5.0).await;
    callers.extend((0..6).map(|_| probe.script_in_background(note("caller"))));
    wait_for(11.0).await;
    // One instance serves them all, one after the other.
    held.pop().unwrap().release().await;
    eventually("all of them", async || {
        let count = server.received().len();
        if count == 11 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    let order: Vec<String> = server.received().into_iter().map(|one| one.body).collect();
    let (c, w) = ("caller", "work");
    assert_eq!(order, [c, c, c, w, c, c, c, w, w, w, w]);
    for held in held {
        held.release().await;
    }
    for caller in callers {
        assert_eq!(caller.await.unwrap().status, 200);
    }
}
